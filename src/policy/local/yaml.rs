//! YAML of policy authors: every problem at once, each with its file, its
//! place, what was found and what was expected.

use serde_norway::{Mapping, Value};

/// What is wrong with one file, collected while it is read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file: &'a str,
    pub(super) problems: Vec<String>,
}

/// A place in a file: `behaviour[2].states[0]`.
pub(super) type Place = String;

/// `key` within `place`.
pub(super) fn within(place: &str, key: &str) -> Place {
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str) -> Self {
        Self {
            file,
            problems: Vec::new(),
        }
    }

    /// The document of `text`; `None` and a problem if it is no YAML.
    pub(super) fn parse(&mut self, text: &str) -> Option<Value> {
        match serde_norway::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("{}: {error}", self.file));
                None
            }
        }
    }

    /// Tells that what stands at `place` is not what belongs there.
    pub(super) fn wrong(&mut self, place: &str, found: &Value, expected: &str, example: &str) {
        let text = format!("{} is not {expected}", shown(found));
        self.tell(place, &text, expected, example);
    }

    /// Tells that nothing stands at `place`.
    pub(super) fn missing(&mut self, place: &str, expected: &str, example: &str) {
        self.tell(place, "nothing stands here", expected, example);
    }

    /// Tells `what` is wrong at `place`.
    pub(super) fn tell(&mut self, place: &str, what: &str, expected: &str, example: &str) {
        self.problems.push(format!(
            "{}: {place}: {what}\n  expected   {expected}\n  example    {example}",
            self.file
        ));
    }

    /// The mapping at `place`, which may have the `known` keys and no other.
    pub(super) fn mapping<'v>(
        &mut self,
        place: &str,
        value: &'v Value,
        known: &[&str],
    ) -> Option<&'v Mapping> {
        let expected = format!("a mapping with {}", known.join(", "));
        let Some(map) = value.as_mapping() else {
            self.wrong(place, value, &expected, "see the README");
            return None;
        };
        for key in map.keys() {
            if !key.as_str().is_some_and(|key| known.contains(&key)) {
                let what = format!("there is no key {}", shown(key));
                self.tell(place, &what, &expected, "see the README");
            }
        }
        Some(map)
    }

    /// The list of `key`; empty where there is none.
    pub(super) fn list<'v>(&mut self, place: &str, map: &'v Mapping, key: &str) -> &'v [Value] {
        match map.get(key) {
            None | Some(Value::Null) => &[],
            Some(Value::Sequence(items)) => items,
            Some(other) => {
                self.wrong(&within(place, key), other, "a list", &format!("{key}: []"));
                &[]
            }
        }
    }

    /// The text of `key`, if there is one.
    pub(super) fn text<'v>(&mut self, place: &str, map: &'v Mapping, key: &str) -> Option<&'v str> {
        match map.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if !text.trim().is_empty() => Some(text),
            Some(other) => {
                self.wrong(&within(place, key), other, "text", &format!("{key}: word"));
                None
            }
        }
    }

    /// The text of `key`, which must be there.
    pub(super) fn needed_text<'v>(
        &mut self,
        place: &str,
        map: &'v Mapping,
        key: &str,
    ) -> Option<&'v str> {
        if matches!(map.get(key), None | Some(Value::Null)) {
            self.missing(&within(place, key), "text", &format!("{key}: word"));
        }
        self.text(place, map, key)
    }

    /// The texts of the list `key`.
    pub(super) fn texts<'v>(&mut self, place: &str, map: &'v Mapping, key: &str) -> Vec<&'v str> {
        let mut texts = Vec::new();
        for (index, item) in self.list(place, map, key).iter().enumerate() {
            match item.as_str().filter(|text| !text.trim().is_empty()) {
                Some(text) => texts.push(text),
                None => {
                    let place = format!("{}[{index}]", within(place, key));
                    self.wrong(&place, item, "text", "- word");
                }
            }
        }
        texts
    }

    /// The whole number of `key` within `range`, if there is one.
    pub(super) fn number(
        &mut self,
        place: &str,
        map: &Mapping,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let found = map.get(key).filter(|value| !value.is_null())?;
        let number = found.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            let example = format!("{key}: {}", range.start());
            self.wrong(&within(place, key), found, &expected, &example);
        }
        number
    }

    /// The duration of `key`: `30s`, `5m`, `2h`, or a number of seconds.
    pub(super) fn seconds(&mut self, place: &str, map: &Mapping, key: &str) -> Option<u64> {
        let found = map.get(key).filter(|value| !value.is_null())?;
        let seconds = match found {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => seconds_of(text),
            Value::Null
            | Value::Bool(_)
            | Value::Sequence(_)
            | Value::Mapping(_)
            | Value::Tagged(_) => None,
        };
        let seconds = seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
        if seconds.is_none() {
            let expected = "a duration from 1s to 24h";
            self.wrong(&within(place, key), found, expected, &format!("{key}: 5m"));
        }
        seconds
    }
}

/// Longest duration that rules may name.
const SECONDS_MAX: u64 = 24 * 60 * 60;

fn seconds_of(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return None,
    })
}

/// A value as its author wrote it, about, and not all of it.
fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(_) => "a tagged value".to_owned(),
    };
    text.chars().take(CHARS_MAX).collect()
}
