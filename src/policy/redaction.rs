//! What stands in the place of a body that was judged: `{"request_body": …}` or
//! `{"response_body": …}`, by the names under which policy is shown bodies. So the
//! redacted input of an activity, which is said in the same place, is never taken for one.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::JsonText;

use super::Side;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    request_body: Option<Box<RawValue>>,
    response_body: Option<Box<RawValue>>,
}

/// `text` in the place of the body of `side`.
pub fn of_body(side: Side, text: &str) -> JsonText {
    let name = match side {
        Side::Input => "request_body",
        Side::Output => "response_body",
    };
    JsonText(serde_json::json!({ name: text }).to_string().into())
}

/// The body that `redacted` puts in the place of that of `side`: a text as it is, any
/// other value as the JSON it is. `None` where it says anything else.
pub fn body(redacted: &JsonText, side: Side) -> Option<String> {
    let said = object(&redacted.0)?;
    let body = match (side, said.request_body, said.response_body) {
        (Side::Input, Some(body), None) | (Side::Output, None, Some(body)) => body,
        (Side::Input | Side::Output, _, _) => return None,
    };
    match serde_json::from_str::<String>(body.get()) {
        Ok(text) => Some(text),
        Err(_) => Some(body.get().to_owned()),
    }
}

/// The object itself, or the only one of a list: inputs are lists of arguments.
fn object(json: &str) -> Option<Said> {
    let json = json.trim();
    if json.starts_with('{') {
        return serde_json::from_str(json).ok();
    }
    let only: [Box<RawValue>; 1] = serde_json::from_str(json).ok()?;
    let [only] = only;
    let only = only.get();
    only.starts_with('{')
        .then(|| serde_json::from_str(only).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_replaced_only_by_what_names_it() {
        #[rustfmt::skip]
        let table = [
            // said                                        request             response
            (r#"{"request_body": "a\n<X>"}"#,              Some("a\n<X>"),     None),
            (r#"[{"request_body": "<X>"}]"#,               Some("<X>"),        None),
            (r#"{"response_body": ""}"#,                   None,               Some("")),
            (r#"{"request_body": {"a": 1.50}}"#,           Some(r#"{"a": 1.50}"#), None),
            (r#"{"request_body": null}"#,                  None,               None),
            (r#"{"request_body": "a", "other": 1}"#,       None,               None),
            (r#"{"request_body": "a", "response_body": "b"}"#, None,           None),
            (r#"["<X>"]"#,                                 None,               None),
            (r#"[["<X>"]]"#,                               None,               None),
            (r#""<X>""#,                                   None,               None),
            (r#"[{"to": "<X>"}]"#,                         None,               None),
            ("{}",                                         None,               None),
            ("[]",                                         None,               None),
        ];
        for (said, request, response) in table {
            let said = JsonText(said.into());
            let found = [Side::Input, Side::Output].map(|side| body(&said, side));
            let expected = [request, response].map(|text| text.map(str::to_owned));
            assert_eq!(found, expected, "{}", said.0);
        }
    }

    #[test]
    fn what_is_said_of_a_body_is_read_as_it_was() {
        for side in [Side::Input, Side::Output] {
            let text = "\"quoted\" \u{1} ä";
            assert_eq!(body(&of_body(side, text), side).as_deref(), Some(text));
        }
    }
}
