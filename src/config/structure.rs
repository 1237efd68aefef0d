//! From YAML text to [`Raw`], with every unknown key and every value of the wrong kind told at once.
//!
//! serde would stop at the first; so the document is compared with the schema
//! first, and what is wrong is taken out before serde reads the rest.

use serde_json::Value as Schema;
use serde_norway::Value;

use super::problem::{Problem, quoted};
use super::raw::Raw;
use super::schema::{joined, properties, schema, text};

/// Reads `yaml`, the content of `file`.
pub(super) fn read(yaml: &str, file: &str, problems: &mut Vec<Problem>) -> Raw {
    let broken = |error: &dyn std::fmt::Display| Problem {
        at: file.to_owned(),
        found: error.to_string(),
        expected: "a YAML document".to_owned(),
        example: "fail_mode: closed".to_owned(),
    };
    let mut document: Value = match serde_norway::from_str(yaml) {
        Ok(document) => document,
        Err(error) => {
            problems.push(broken(&error));
            return Raw::default();
        }
    };
    let mut inspection = Inspection { file, problems };
    if document.is_null() || !inspection.accepts(&mut document, &schema(), "") {
        return Raw::default();
    }
    match serde_norway::from_value(document) {
        Ok(raw) => raw,
        Err(error) => {
            problems.push(broken(&error));
            Raw::default()
        }
    }
}

struct Inspection<'a> {
    file: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Inspection<'_> {
    /// Whether `value` is of the kind that `schema` asks for; what is not
    /// inside it has been reported and taken out.
    fn accepts(&mut self, value: &mut Value, schema: &Schema, path: &str) -> bool {
        let kind = kind_of(schema);
        let accepted = match (kind, &mut *value) {
            ("object", Value::Mapping(entries)) => {
                self.inspect_entries(entries, schema, path);
                true
            }
            ("array", Value::Sequence(items)) => items.iter().all(Value::is_string),
            ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => true,
            ("integer", Value::Number(number)) => number.is_u64(),
            _ => false,
        };
        if !accepted {
            self.tell(
                path,
                described(value),
                expected_kind(kind),
                example(schema, path),
            );
        }
        accepted
    }

    fn inspect_entries(
        &mut self,
        entries: &mut serde_norway::Mapping,
        schema: &Schema,
        path: &str,
    ) {
        let old = std::mem::take(entries);
        for (key, mut value) in old {
            let name = key.as_str().unwrap_or_default();
            let at = joined(path, name);
            match properties(schema).find(|(known, _)| *known == name) {
                None => self.tell_unknown(schema, path, &key),
                // `key:` with nothing behind it means the default.
                Some(_) if value.is_null() => {}
                Some((_, property)) => {
                    if self.accepts(&mut value, property, &at) {
                        entries.insert(key, value);
                    }
                }
            }
        }
    }

    fn tell_unknown(&mut self, schema: &Schema, path: &str, key: &Value) {
        let known: Vec<_> = properties(schema).map(|(name, _)| name.as_str()).collect();
        let at = joined(
            path,
            &key.as_str().map_or_else(|| described(key), str::to_owned),
        );
        let example = known.first().map(|name| joined(path, name));
        self.tell(
            &at,
            "there is no such key".to_owned(),
            format!("one of {}", known.join(", ")),
            example.unwrap_or_default(),
        );
    }

    fn tell(&mut self, path: &str, found: String, expected: String, example: String) {
        let at = if path.is_empty() {
            self.file.to_owned()
        } else {
            format!("{path} ({})", self.file)
        };
        self.problems.push(Problem {
            at,
            found,
            expected,
            example,
        });
    }
}

/// `string`, `integer`, …; optional ones say `["string", "null"]`.
fn kind_of(schema: &Schema) -> &str {
    match schema.get("type") {
        Some(Schema::Array(kinds)) => kinds.first().and_then(Schema::as_str).unwrap_or_default(),
        _ => text(schema, "type"),
    }
}

fn expected_kind(kind: &str) -> String {
    match kind {
        "object" => "keys and values",
        "array" => "a list of texts",
        "boolean" => "true or false",
        "integer" => "a whole number, 0 or more",
        _ => "a text",
    }
    .to_owned()
}

fn example(schema: &Schema, path: &str) -> String {
    let first = |member: &str| schema.get(member)?.as_array()?.first().cloned();
    let value = first("examples")
        .or_else(|| first("enum"))
        .or_else(|| schema.get("default").cloned());
    let key = path.rsplit('.').next().unwrap_or_default();
    match (value, kind_of(schema)) {
        (Some(Schema::String(text)), _) => format!("{key}: {text}"),
        (Some(value), _) => format!("{key}: {value}"),
        (None, "object") if path.is_empty() => "fail_mode: closed".to_owned(),
        (None, "object") => {
            let inner = properties(schema).next().map(|(name, _)| name.as_str());
            format!("{key}: {{ {}: … }}", inner.unwrap_or_default())
        }
        (None, "integer") => format!("{key}: 4"),
        (None, _) => format!("{key}: \"some text\""),
    }
}

/// A value in words. Nested values are not quoted: they may be long.
fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(yes) => format!("{yes}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "keys and values".to_owned(),
        Value::Tagged(_) => "a tagged value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        let mut problems = Vec::new();
        read(yaml, "f.yaml", &mut problems);
        problems
            .iter()
            .map(|p| format!("{}: {}", p.at, p.found))
            .collect()
    }

    #[test]
    fn everything_that_is_misshapen_is_told_at_once() {
        let yaml = "\
fail_mod: open
workers: four
http:
  capture: 1
  hold_within: 25
  passthrough: [a, 2]
  nested: { deep: 1 }
listen: 15801
upstream:
  ca: /etc/ca.pem
log:
";
        assert_eq!(
            problems(yaml),
            [
                "fail_mod (f.yaml): there is no such key",
                "workers (f.yaml): the text \"four\"",
                "http.capture (f.yaml): the number 1",
                "http.hold_within (f.yaml): the number 25",
                "http.passthrough (f.yaml): a list",
                "http.nested (f.yaml): there is no such key",
                "listen (f.yaml): the number 15801",
                "upstream.ca (f.yaml): the text \"/etc/ca.pem\"",
            ]
        );
    }

    #[test]
    fn what_is_well_shaped_beside_a_problem_is_kept() {
        let mut problems = Vec::new();
        let raw = read(
            "fail_mode: closed\nx: 1\nworkers: 3\nlisten: {http: off}",
            "f",
            &mut problems,
        );
        assert_eq!(problems.len(), 1);
        assert_eq!(raw.fail_mode.as_deref(), Some("closed"));
        assert_eq!(
            (raw.workers, raw.listen.http.as_deref()),
            (Some(3), Some("off"))
        );
    }

    #[test]
    fn a_document_that_is_no_mapping_is_a_problem_and_an_empty_one_is_not() {
        for (yaml, told) in [
            ("", 0),
            ("# only a comment\n", 0),
            ("- a\n", 1),
            ("text", 1),
            ("a: [", 1),
            ("workers: 1\nworkers: 2\n", 1),
            ("? [a]\n: 1\n", 1),
            ("workers: -1", 1),
            ("workers: 1.5", 1),
            ("fail_mode: !x open", 1),
        ] {
            assert_eq!(problems(yaml).len(), told, "{yaml:?}: {:?}", problems(yaml));
        }
    }
}
