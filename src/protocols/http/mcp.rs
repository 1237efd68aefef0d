//! The tool that a request calls, when its body is a `tools/call` of the Model
//! Context Protocol (JSON-RPC 2.0 over HTTP, revision 2025-06-18), and how such a
//! call hears no: as an error of JSON-RPC, since its clients take any other status
//! for a failure of the transport and see no reason.
//!
//! It only tells policy more: a body that is read wrongly here is still judged
//! as the HTTP request that it is.

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
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
    /// None of a batch, of a notification, of what is no id, and of a body that cannot be read.
    pub(super) id: Option<RequestId>,
}

/// The id of a request of JSON-RPC: a text, or a whole number.
#[derive(Debug, Serialize)]
pub(super) struct RequestId(Value);

impl RequestId {
    fn of(request: &Members) -> Option<Self> {
        let value = |name: &str| -> Option<Value> {
            let mut found = request.0.iter().filter(|(key, _)| key == name);
            let (Some((_, value)), None) = (found.next(), found.next()) else {
                return None;
            };
            serde_json::from_str(value.get()).ok()
        };
        let id = value("id")?;
        let is_it = match &id {
            Value::String(_) => true,
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        };
        (is_it && value("jsonrpc")? == "2.0").then_some(Self(id))
    }
}

/// The members of an object in their order, also those of one name, with values as they are written:
/// how deep these go, and what their numbers say, is nothing to whoever looks for a name.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        from.deserialize_map(Each)
    }
}

impl Members {
    /// The values under `name`, in whatever case: servers written in Go take any, and ſ for s.
    fn all(&self, name: &str) -> impl Iterator<Item = &RawValue> {
        self.0
            .iter()
            .filter(move |(key, _)| key.replace('ſ', "s").eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// The value under `name`, if there is one and no other.
    fn only(&self, name: &str) -> Option<&RawValue> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }
}

/// The call in `body`; of a batch, the one that is in it. One without a name is told where there
/// are several, and where the body cannot be read, but may be one to whoever reads more than JSON.
/// `None` for every other body, also one that was not seen whole.
pub(super) fn call(body: &Capture) -> Option<Call> {
    let text = body.text.as_deref()?;
    if !body.state.is_whole() || !may_name_a_call(text) {
        return None;
    }
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if let Ok(request) = serde_json::from_str::<Members>(text) {
        return Some(Call {
            tool: of_request(&request)?,
            id: RequestId::of(&request),
        });
    }
    let tool = match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(batch) => of_batch(&batch)?,
        // What begins as JSON does, or with a comment, as some readers of it allow.
        Err(_) if text.starts_with(['{', '[', '/']) => ToolCall { name: None },
        Err(_) => return None,
    };
    Some(Call { tool, id: None })
}

fn of_batch(batch: &[&RawValue]) -> Option<ToolCall> {
    let mut calls = batch.iter().filter_map(|one| {
        let request: Members = serde_json::from_str(one.get()).ok()?;
        of_request(&request)
    });
    let first = calls.next()?;
    Some(match calls.next() {
        Some(_) => ToolCall { name: None },
        None => first,
    })
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
    const WRITTEN: [&str; 6] = [
        "tools/call",
        "tools\\/call",
        // Its letters and its slash, escaped.
        "\\u006",
        "\\u007",
        "\\u002f",
        "\\u002F",
    ];
    let has = |part: &str| memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some();
    WRITTEN.into_iter().any(has)
}

/// The call that `request` is to any reader of it; named, if all find the same name.
fn of_request(request: &Members) -> Option<ToolCall> {
    let text = |value: &RawValue| serde_json::from_str::<String>(value.get()).ok();
    let mut methods = request.all("method").filter_map(text);
    if !methods.any(|method| method == "tools/call") {
        return None;
    }
    let name = || {
        request.only("method")?;
        let params: Members = serde_json::from_str(request.only("params")?.get()).ok()?;
        text(params.only("name")?)
    };
    Some(ToolCall {
        name: name().map(Into::into),
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
            (r#"{"jsonrpc":"2\u002e0","method":"tools\u002Fcall","params":{"name":"pay"}}"#,            call(Some("pay"))),
            (r#"{"Method":"tools/call","PARAMS":{"nAme":"pay"}}"#,                                       call(Some("pay"))),
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

    fn named(text: &str) -> Option<Option<Box<str>>> {
        let body = Capture {
            text: Some(text.to_owned()),
            state: Captured::Whole,
            ..Capture::default()
        };
        tool_call(&body).map(|call| call.name)
    }

    #[test]
    fn a_call_that_is_not_read_is_one_without_a_name() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        for argument in [deep.as_str(), "1e999"] {
            let text = format!(
                r#"{{"method":"tools/call","params":{{"arguments":{argument},"name":"drop"}}}}"#
            );
            assert_eq!(named(&text), Some(Some("drop".into())), "{argument:.9}");
        }
        for text in [
            r#"{"method":"tools/call","params":{"arguments":{"x":NaN},"name":"drop"}}"#,
            r#" {"method":"tools/call","params":{"name":"drop"}} x"#,
            r#"/* */ {"method":"tools/call","params":{"name":"drop"}}"#,
            r#"{"method":"tools/call""#,
            "\u{feff}{\"method\":\"tools\\/call\"",
        ] {
            assert_eq!(named(text), Some(None), "{text}");
        }
        // What is no JSON at all calls nothing.
        assert_eq!(named("how to use tools/call: {"), None);
    }

    #[test]
    fn a_call_has_a_name_where_there_is_one_call_and_one_name() {
        for text in [
            r#"[{"method":"tools/call","params":{"name":"add"}},{"method":"tools/call","params":{"name":"drop"}}]"#,
            r#"[{"method":"tools/call","params":{"name":"add"}},{"METHOD":"tools/call","params":{"name":"add"}}]"#,
            r#"{"method":"tools/call","params":{"name":"add","name":"drop"}}"#,
            r#"{"method":"tools/call","params":{"name":"add","Name":"drop"}}"#,
            r#"{"method":"tools/call","params":{"name":"add"},"param\u017f":{"name":"drop"}}"#,
            r#"{"method":"tools/call","method":"ping","params":{"name":"add"}}"#,
        ] {
            assert_eq!(named(text), Some(None), "{text}");
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
