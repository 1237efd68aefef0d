//! The tool that a request calls, when its body is a `tools/call` of the Model
//! Context Protocol (JSON-RPC 2.0 over HTTP, revision 2025-06-18), and how such a
//! call hears no: as an error of JSON-RPC, since its clients take any other status
//! for a failure of the transport and see no reason.
//!
//! It only tells policy more: a body that is read wrongly here is still judged
//! as the HTTP request that it is.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::{Capture, ToolCall};

use super::outgoing::Outgoing;
use super::refuse;

/// The code of the error: of those that are for servers to choose (JSON-RPC 2.0 §5.1), and none that
/// clients of MCP know as something else; -32001 is a timeout to them, which is tried again.
const REFUSED: i32 = -32_050;

/// A call, and the id that its answer needs.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) tool: ToolCall,
    /// None of a batch, of a notification, and of what is no id.
    pub(super) id: Option<RequestId>,
}

/// The id of a request of JSON-RPC: a text, or a whole number.
#[derive(Debug, Serialize)]
pub(super) struct RequestId(Value);

impl RequestId {
    fn of(request: &Value) -> Option<Self> {
        let is_it = match request.get("id")? {
            Value::String(_) => true,
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        };
        let speaks = request.get("jsonrpc")?.as_str()? == "2.0";
        (is_it && speaks).then(|| Self(request.get("id").cloned().unwrap_or_default()))
    }
}

/// The call in `body`; the first one of a batch. `None` for every other body,
/// also one that was not seen whole.
pub(super) fn call(body: &Capture) -> Option<Call> {
    let text = body.text.as_deref()?;
    if !body.state.is_whole() || !may_name_a_call(text) {
        return None;
    }
    let body: Value = serde_json::from_str(text).ok()?;
    match body.as_array() {
        Some(batch) => Some(Call {
            tool: batch.iter().find_map(of_request)?,
            id: None,
        }),
        None => Some(Call {
            tool: of_request(&body)?,
            id: RequestId::of(&body),
        }),
    }
}

/// The same without its id.
pub(super) fn tool_call(body: &Capture) -> Option<ToolCall> {
    call(body).map(|call| call.tool)
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: &'a RequestId,
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: i32,
    message: &'a str,
    data: &'a RawValue,
}

/// Makes a refusal of the gate the answer to the call with this id. Other answers, of origins and of
/// the sidecar's own, stay as they are.
pub(super) fn speak_as(response: &mut Response<Outgoing>, id: &RequestId) {
    let (Some(message), Some(document)) = (refuse::words(response), refuse::document(response))
    else {
        return;
    };
    let Ok(data) = serde_json::from_slice::<&RawValue>(document) else {
        return;
    };
    let answer = serde_json::to_vec(&Answer {
        jsonrpc: "2.0",
        id,
        error: Error {
            code: REFUSED,
            message,
            data,
        },
    });
    let Ok(answer) = answer else {
        return;
    };
    *response.status_mut() = StatusCode::OK;
    response.body_mut().say(Bytes::from(answer));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
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

    #[test]
    fn an_id_is_a_text_or_a_whole_number_of_a_single_request() {
        #[rustfmt::skip]
        let table = [
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#,                    Some("7")),
            (r#"{"jsonrpc":"2.0","id":18446744073709551615,"method":"tools/call"}"#, Some("18446744073709551615")),
            (r#"{"jsonrpc":"2.0","id":"a\"b","method":"tools/call"}"#,               Some(r#""a\"b""#)),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"tools/call"}"#,                  None),
            (r#"{"jsonrpc":"2.0","id":1e99,"method":"tools/call"}"#,                 None),
            (r#"{"jsonrpc":"2.0","id":null,"method":"tools/call"}"#,                 None),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"tools/call"}"#,                  None),
            (r#"{"jsonrpc":"2.0","method":"tools/call"}"#,                           None),
            (r#"{"jsonrpc":"1.0","id":1,"method":"tools/call"}"#,                    None),
            (r#"{"id":1,"method":"tools/call"}"#,                                    None),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call"}]"#,                  None),
        ];
        for (text, expected) in table {
            let body = Capture {
                text: Some(text.to_owned()),
                state: Captured::Whole,
                ..Capture::default()
            };
            let id = call(&body).unwrap().id;
            let id = id.map(|id| serde_json::to_string(&id).unwrap());
            assert_eq!(id.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_problem_that_is_no_refusal_stays_as_it_is() {
        let mut ours = refuse::problem(StatusCode::BAD_GATEWAY, "x", "not there", None);
        speak_as(&mut ours, &RequestId(1.into()));
        assert_eq!(ours.status(), 502);
        assert_eq!(
            ours.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }
}
