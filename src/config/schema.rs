//! The JSON Schema of the configuration file, as `config schema` prints it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::raw::Raw;
use super::settings::{Fallback, setting};

/// The schema, with defaults.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Raw>()
        .to_value();
    if let Some(root) = schema.as_object_mut() {
        finish(root, "");
    }
    schema
}

/// Every key of the file with the first line of its documentation, in the
/// order of the file.
pub fn documented(schema: &Value) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    gather(schema, "", &mut rows);
    rows
}

fn gather(schema: &Value, path: &str, rows: &mut Vec<(String, String)>) {
    for (name, property) in properties(schema) {
        let path = joined(path, name);
        if properties(property).next().is_some() {
            gather(property, &path, rows);
        } else {
            rows.push((path, text(property, "description").to_owned()));
        }
    }
}

/// The properties of an object's schema; none for anything else.
pub(super) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let all = schema.get("properties").and_then(Value::as_object);
    all.into_iter().flatten()
}

/// A text member of a schema.
pub(super) fn text<'a>(schema: &'a Value, member: &str) -> &'a str {
    schema
        .get(member)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The path of a key inside the section `path`.
pub(super) fn joined(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Replaces derived defaults, which only say that every key is optional, by
/// the real ones, and lets `null` pass where an enumeration would refuse it.
fn finish(schema: &mut Map<String, Value>, path: &str) {
    schema.remove("default");
    let default = setting(path).map(|setting| setting.default);
    if let Some(Fallback::Is(text)) = default {
        schema.insert("default".to_owned(), scalar(text));
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (name, property) in properties {
            if let Some(property) = property.as_object_mut() {
                finish(property, &joined(path, name));
            }
        }
    }
}

fn scalar(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::super::settings::SETTINGS;
    use super::*;

    #[test]
    fn the_table_and_the_file_know_the_same_keys() {
        let schema = schema();
        let keys: Vec<_> = documented(&schema).into_iter().map(|row| row.0).collect();
        let mut table: Vec<_> = SETTINGS.iter().map(|s| s.key).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        table.sort_unstable();
        assert_eq!(sorted, table);
    }

    #[test]
    fn every_key_is_documented_and_nothing_unknown_is_allowed() {
        let schema = schema();
        for (key, doc) in documented(&schema) {
            assert!(!doc.is_empty(), "{key} says nothing");
            assert!(!doc.contains('|'), "{key} breaks a Markdown table");
        }
        assert_eq!(schema["additionalProperties"], Value::Bool(false));
        assert_eq!(
            schema["properties"]["http"]["additionalProperties"],
            Value::Bool(false)
        );
        assert_eq!(
            schema["properties"]["http"]["properties"]["hold_within"]["default"],
            "25s"
        );
        assert_eq!(
            schema["properties"]["http"]["properties"]["connections_max"]["default"],
            20_000
        );
    }
}
