//! What a policy's `result` says, as a ruling.

use std::sync::Arc;

use regorus::Value;

use crate::domain::{JsonText, Reason, Verdict};
use crate::policy::Ruling;

use super::Undefined;

/// Constraints kept of one ruling; more is not a policy but a mistake.
const CONSTRAINTS_MAX: usize = 32;

/// Reads `result` of `package`.
///
/// # Errors
/// What is wrong with it, in words for the policy's author: it is neither an
/// object nor a word, or uses a word that is no decision.
pub(super) fn ruling(
    result: &Value,
    package: &Arc<str>,
    undefined: Undefined,
    generation: u64,
) -> Result<Ruling, String> {
    let mut ruling = match result {
        Value::Undefined => nothing_said(undefined, generation),
        Value::String(word) => Ruling::new(decision(word)?, generation),
        Value::Object(object) => {
            let word = match object.get(&Value::from("decision")) {
                Some(Value::String(word)) => word,
                Some(_) => return Err("`decision` is not a string".to_owned()),
                None => return Err("`result` is an object without `decision`".to_owned()),
            };
            let mut ruling = Ruling::new(decision(word)?, generation);
            ruling.reason = reason(object.get(&Value::from("reason")))?;
            ruling.constraints = constraints(object.get(&Value::from("constraints")))?;
            ruling.redacted = redacted(object.get(&Value::from("redacted")))?;
            ruling
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Set(_) => {
            return Err(format!(
                "`result` is {}, not an object {{\"decision\", \"reason\"}} or a word",
                kind(result)
            ));
        }
    };
    ruling.policy = Some(Arc::clone(package));
    Ok(ruling)
}

/// Every spelling of the contract; case does not matter and `-` is `_`.
pub(super) fn decision(word: &str) -> Result<Verdict, String> {
    let folded = word.trim().to_ascii_uppercase().replace('-', "_");
    Ok(match folded.as_str() {
        "ALLOW" | "CONTINUE" => Verdict::Allow,
        "CONSTRAIN" => Verdict::Constrain,
        "REQUIRE_APPROVAL" | "REQUEST_APPROVAL" => Verdict::RequireApproval,
        "BLOCK" => Verdict::Block,
        "HALT" | "STOP" => Verdict::Halt,
        _ => {
            return Err(format!(
                "\"{}\" is no decision; expected ALLOW, CONSTRAIN, REQUIRE_APPROVAL, BLOCK or HALT",
                Reason::from_peer(word)
            ));
        }
    })
}

fn nothing_said(undefined: Undefined, generation: u64) -> Ruling {
    let (verdict, reason) = match undefined {
        Undefined::Deny => (
            Verdict::Block,
            "no rule of the policy decides this; add a `default result`",
        ),
        Undefined::Allow => (Verdict::Allow, "no rule of the policy decides this"),
    };
    let mut ruling = Ruling::new(verdict, generation);
    ruling.reason = Some(Reason::from(reason));
    ruling
}

fn reason(value: Option<&Value>) -> Result<Option<Reason>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Reason::from_peer(text))),
        Some(other) => Err(format!("`reason` is {}, not a string", kind(other))),
    }
}

/// An array or set of strings. One that cannot be read must not be left out:
/// it was meant to hold something back.
fn constraints(value: Option<&Value>) -> Result<Vec<Box<str>>, String> {
    let word = |item: &Value| {
        if let Value::String(text) = item {
            Ok(Box::from(&*Reason::from_peer(text).0))
        } else {
            Err(format!("a constraint is {}, not a string", kind(item)))
        }
    };
    let words: Vec<Box<str>> = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(word).collect::<Result<_, _>>()?,
        Some(Value::Set(items)) => items.iter_sorted().map(word).collect::<Result<_, _>>()?,
        Some(other) => return Err(format!("`constraints` is {}, not a list", kind(other))),
    };
    if words.len() > CONSTRAINTS_MAX {
        return Err(format!("more than {CONSTRAINTS_MAX} constraints"));
    }
    Ok(words)
}

fn redacted(value: Option<&Value>) -> Result<Option<JsonText>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match serde_json::to_string(value) {
            Ok(text) => Ok(Some(JsonText(text.into()))),
            Err(_) => Err("`redacted` cannot be written as JSON".to_owned()),
        },
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "undefined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Ruling, String> {
        let value = Value::from_json_str(json).unwrap();
        ruling(&value, &"data.openbox".into(), Undefined::Deny, 3)
    }

    #[test]
    fn every_spelling_of_the_contract_is_understood() {
        let table = [
            ("ALLOW", Verdict::Allow),
            ("allow", Verdict::Allow),
            ("Continue", Verdict::Allow),
            ("CONSTRAIN", Verdict::Constrain),
            ("REQUIRE_APPROVAL", Verdict::RequireApproval),
            ("require-approval", Verdict::RequireApproval),
            ("request_approval", Verdict::RequireApproval),
            ("Request-Approval", Verdict::RequireApproval),
            ("block", Verdict::Block),
            ("HALT", Verdict::Halt),
            ("stop", Verdict::Halt),
        ];
        for (word, verdict) in table {
            for json in [
                format!("\"{word}\""),
                format!("{{\"decision\": \"{word}\"}}"),
            ] {
                assert_eq!(read(&json).map(|r| r.verdict), Ok(verdict), "{json}");
            }
        }
    }

    #[test]
    fn what_is_no_decision_is_never_one() {
        let table = [
            ("\"pending\"", "\"pending\" is no decision"),
            ("\"\"", "\"\" is no decision"),
            ("\"ALLOWED\"", "\"ALLOWED\" is no decision"),
            ("true", "`result` is a boolean"),
            ("null", "`result` is null"),
            ("[\"ALLOW\"]", "`result` is an array"),
            ("{}", "without `decision`"),
            ("{\"decision\": true}", "`decision` is not a string"),
            (
                "{\"decision\": \"ALLOW\", \"reason\": 1}",
                "`reason` is a number",
            ),
            (
                "{\"decision\": \"CONSTRAIN\", \"constraints\": \"read_only\"}",
                "`constraints` is a string",
            ),
            (
                "{\"decision\": \"CONSTRAIN\", \"constraints\": [1]}",
                "a constraint is a number",
            ),
        ];
        for (json, expected) in table {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn everything_an_object_says_is_kept() {
        let ruling = read(
            "{\"decision\": \"CONSTRAIN\", \"reason\": \"a\\nb\",
              \"constraints\": [\"read_only\"], \"redacted\": {\"a\": 1}}",
        )
        .unwrap();
        assert_eq!(ruling.reason, Some(Reason::from("a b")));
        assert_eq!(ruling.constraints, [Box::from("read_only")]);
        assert_eq!(ruling.redacted, Some(JsonText("{\"a\":1}".into())));
        assert_eq!(ruling.policy.as_deref(), Some("data.openbox"));
        assert_eq!(ruling.generation, 3);
    }

    #[test]
    fn silence_is_what_the_setting_says() {
        for (setting, verdict) in [
            (Undefined::Deny, Verdict::Block),
            (Undefined::Allow, Verdict::Allow),
        ] {
            let ruling = ruling(&Value::Undefined, &"p".into(), setting, 1).unwrap();
            assert_eq!(ruling.verdict, verdict);
            let reason = ruling.reason_or_default().to_string();
            assert!(reason.contains("no rule of the policy decides"), "{reason}");
        }
    }
}
