//! Reading a request: a bounded body of bounded JSON, and path and query, with
//! problems that say where and what.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::problem::Problem;

/// Longest body, bytes, of everything but what SDKs send to the served routes.
pub(in crate::control) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Most arrays and objects inside each other, likewise.
const DEPTH_MAX: usize = 64;

/// How many times its limit a body that is too long is read and thrown away: a
/// client that is still sending when the connection closes never sees why.
const DISCARDED_TIMES: usize = 16;

/// Longest time a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A JSON body. No body at all is an empty object; its content type is not
/// looked at, for the simplest client sends a wrong one.
#[derive(Debug)]
pub(in crate::control) struct Json<T>(pub(in crate::control) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (_, text) = whole(request, BODY_BYTES_MAX).await?;
        parse(&text).map(Self)
    }
}

/// The head, and the whole body as it came, at most `bytes_max` bytes of it.
pub(in crate::control) async fn whole(
    request: Request,
    bytes_max: usize,
) -> Result<(Parts, Bytes), Problem> {
    tokio::time::timeout(BODY_WITHIN, read(request, bytes_max))
        .await
        .map_err(|_| {
            let seconds = BODY_WITHIN.as_secs();
            let detail = format!("the body did not arrive within {seconds}s");
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
        })?
}

/// What stands in the path.
#[derive(Debug)]
pub(in crate::control) struct InPath<T>(pub(in crate::control) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(path)| Self(path)).map_err(|rejection| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_path",
                rejection.body_text(),
            )
        })
    }
}

/// What stands in the query.
#[derive(Debug)]
pub(in crate::control) struct InQuery<T>(pub(in crate::control) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|rejection| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_query",
                rejection.body_text(),
            )
        })
    }
}

/// A whole number, also one that is written as `7.0`: to JSON Schema it is one,
/// and some languages know no other.
pub(in crate::control) fn whole_number<'de, D: Deserializer<'de>>(
    json: D,
) -> Result<Option<u32>, D::Error> {
    let Some(number) = <Option<serde_json::Number> as serde::Deserialize>::deserialize(json)?
    else {
        return Ok(None);
    };
    let whole = number.as_f64().filter(|number| number.fract() == 0.0);
    let whole = whole.and_then(|number| format!("{number:.0}").parse().ok());
    whole.map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "found {number}, expected a whole number from 0 to {}",
            u32::MAX
        ))
    })
}

async fn read(request: Request, bytes_max: usize) -> Result<(Parts, Bytes), Problem> {
    let (head, mut body) = request.into_parts();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max && head.headers.contains_key(EXPECT) {
        // It asked before it sent anything.
        return Err(too_large(bytes_max));
    }
    let mut whole = BytesMut::new();
    let mut read = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let detail = format!("the body broke off: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "body_broke_off", detail)
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        read = read.saturating_add(data.len());
        if read <= bytes_max {
            whole.extend_from_slice(&data);
        } else if read > bytes_max.saturating_mul(DISCARDED_TIMES) {
            break;
        }
    }
    if read > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok((head, whole.freeze()))
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body has more than {bytes_max} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let text = match text.trim_ascii() {
        b"" => b"{}",
        _ => text,
    };
    check(text, DEPTH_MAX)?;
    // Otherwise serde would take an array as the fields in their order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        let detail = "the body is not a JSON object; expected { … }";
        return Err(Problem::invalid_field(detail));
    }
    serde_json::from_slice(text).map_err(|error| malformed(&error))
}

/// Reads everything once, for raw values are otherwise only skipped over: what
/// we would take and policy could not read must not get that far.
pub(in crate::control) fn check(text: &[u8], depth_max: usize) -> Result<(), Problem> {
    let fault = RefCell::new(None);
    let nested = Nested {
        levels: depth_max,
        fault: &fault,
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    nested
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| match fault.borrow_mut().take() {
            Some(Fault::TooDeep) => {
                let detail = format!(
                    "the JSON has more than {depth_max} arrays and objects inside each other"
                );
                Problem::new(StatusCode::BAD_REQUEST, "too_deep", detail)
            }
            Some(Fault::Twice(name)) => {
                let shown: String = name.escape_debug().take(100).collect();
                let detail = format!(
                    "an object has \"{shown}\" twice, and readers disagree about which counts: {error}"
                );
                Problem::new(StatusCode::BAD_REQUEST, "duplicate_key", detail)
            }
            None => malformed(&error),
        })
}

fn malformed(error: &serde_json::Error) -> Problem {
    let code = match error.classify() {
        serde_json::error::Category::Data => "invalid_field",
        serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof
        | serde_json::error::Category::Io => "malformed_json",
    };
    // The text of the error ends with its line and column.
    let detail = format!("the body cannot be read as JSON: {error}");
    Problem::new(StatusCode::BAD_REQUEST, code, detail)
}

/// What is wrong with a JSON text that is one.
enum Fault {
    TooDeep,
    /// An object has this key twice.
    Twice(String),
}

/// Any value, at most `levels` deep, no key twice, and nothing kept of it.
#[derive(Clone, Copy)]
struct Nested<'a> {
    levels: usize,
    fault: &'a RefCell<Option<Fault>>,
}

impl Nested<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels, ..self }),
            None => {
                self.fault.replace(Some(Fault::TooDeep));
                Err(E::custom("nested too deep"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut known = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if known.contains(&key) {
                self.fault.replace(Some(Fault::Twice(key)));
                return Err(serde::de::Error::custom("found here for the second time"));
            }
            known.insert(key);
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only parsed")]
        input: Option<Box<RawValue>>,
        #[expect(dead_code, reason = "only parsed")]
        name: Option<String>,
    }

    #[test]
    fn a_bad_body_says_what_and_where() {
        let deep =
            |levels: usize| format!("{{\"input\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let (deepest, too_deep, far_too_deep) = (deep(63), deep(64), deep(10_000));
        #[rustfmt::skip]
        let table = [
            ("",                        ""),
            ("{}",                      ""),
            (r#"{"input": [1, {"a": null, "b": -1.5e3}]}"#, ""),
            (&deepest,                  ""),
            (&too_deep,                 "64"),
            (&far_too_deep,             "64"),
            ("{",                       "line 1 column 1"),
            ("{\n \"input\": }",        "line 2 column 11"),
            ("{} {}",                   "line 1 column 4"),
            (r#"{"nam": "x"}"#,         "unknown field `nam`"),
            (r#"{"name": 5}"#,          "expected a string"),
            (r#"{"name": "a", "name": "b"}"#, "duplicate_key"),
            (r#"{"input": {"a": 1, "b": [{"x": 1, "\u0078": 2}]}}"#, "duplicate_key"),
            (r#"{"input": "\ud800"}"#,  "line 1"),
            (r#"{"input": 1e999}"#,     "out of range"),
            ("[null, \"x\"]",           "not a JSON object"),
            ("\"text\"",                "not a JSON object"),
        ];
        for (text, want) in table {
            let got = parse::<Sample>(text.as_bytes()).map(drop);
            let shown = format!("{:?}", got.as_ref().map_err(|p| format!("{p:?}")));
            match want {
                "" => assert!(got.is_ok(), "{text}: {shown}"),
                want => assert!(shown.contains(want), "{text}: {shown}"),
            }
        }
        let response = parse::<Sample>(b"{\xff").unwrap_err().into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
}
