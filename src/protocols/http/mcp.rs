//! The tool that a request calls, when its body is a `tools/call` of the Model
//! Context Protocol (JSON-RPC 2.0 over HTTP, revision 2025-06-18).
//!
//! It only tells policy more: a body that is read wrongly here is still judged
//! as the HTTP request that it is.

use serde_json::Value;

use crate::domain::{Capture, ToolCall};

/// The call in `body`; the first one of a batch. `None` for every other body,
/// also one that was not seen whole.
pub(super) fn tool_call(body: &Capture) -> Option<ToolCall> {
    let text = body.text.as_deref()?;
    if !body.state.is_whole() || !may_name_a_call(text) {
        return None;
    }
    let body: Value = serde_json::from_str(text).ok()?;
    match body.as_array() {
        Some(batch) => batch.iter().find_map(of_request),
        None => of_request(&body),
    }
}

/// Whether parsing is worth its time: JSON may write the method with escapes.
fn may_name_a_call(text: &str) -> bool {
    let has = |part: &[u8]| memchr::memmem::find(text.as_bytes(), part).is_some();
    has(b"tools/call") || (has(b"\\") && has(b"2.0"))
}

fn of_request(request: &Value) -> Option<ToolCall> {
    if request.get("method")?.as_str()? != "tools/call" {
        return None;
    }
    let name = request.pointer("/params/name").and_then(Value::as_str);
    Some(ToolCall {
        name: name.map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Captured;

    #[test]
    fn a_tool_call_is_found_however_it_is_written() {
        let call = |name: Option<&str>| {
            Some(ToolCall {
                name: name.map(Into::into),
            })
        };
        #[rustfmt::skip]
        let table = [
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{}}}"#, call(Some("pay"))),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"name":"pay"}}"#,              call(Some("pay"))),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools\u002fcall"}"#,                                   call(None)),
            (r#"[{"method":"ping"},{"method":"tools/call","params":{"name":"b"}}]"#,                     call(Some("b"))),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,                                        None),
            (r#"{"text":"how to use tools/call"}"#,                                                      None),
            (r#"{"method":"tools/call""#,                                                                None),
            ("",                                                                                         None),
        ];
        for (text, expected) in table {
            let mut body = Capture {
                text: Some(text.to_owned()),
                state: Captured::Whole,
                ..Capture::default()
            };
            assert_eq!(tool_call(&body), expected, "{text}");
            body.state = Captured::Partial;
            assert_eq!(tool_call(&body), None, "{text}");
        }
    }
}
