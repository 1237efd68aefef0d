//! What texts of requests may be, as the OpenAPI documents say it. `text` and
//! `contexts` take exactly these; `tests/apis` holds them to it.

use serde_json::Value;
use utoipa::ToSchema;

/// An id or name, without control characters.
#[derive(ToSchema)]
#[schema(
    min_length = 1,
    max_length = 256,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$"
)]
#[expect(dead_code, reason = "only described")]
pub(in crate::control) struct Id(String);

/// `25s`, `500ms`, `1m`, or plain seconds; at most 60 s.
#[derive(ToSchema)]
#[schema(
    pattern = r"^(0*([1-5]?[0-9]|60)s?|0*([0-9]{1,4}|[1-5][0-9]{4}|60000)ms|0*[01]m|0+h)$",
    example = "25s"
)]
#[expect(dead_code, reason = "only described")]
pub(in crate::control) struct WaitText(String);

/// `30m`, `24h`, `90s`, `500ms`, or plain seconds; at most 24 h.
#[derive(ToSchema)]
#[schema(
    pattern = r"^(0*([0-9]{1,4}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2}|86400)s?|0*([0-9]{1,7}|[1-7][0-9]{7}|8[0-5][0-9]{6}|86[0-3][0-9]{5}|86400000)ms|0*([0-9]{1,3}|1[0-3][0-9]{2}|14[0-3][0-9]|1440)m|0*([0-9]|1[0-9]|2[0-4])h)$",
    example = "30m"
)]
#[expect(dead_code, reason = "only described")]
pub(in crate::control) struct LivesText(String);

/// W3C trace context.
#[derive(ToSchema)]
#[schema(
    pattern = r"^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$",
    example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)]
#[expect(dead_code, reason = "only described")]
pub(in crate::control) struct TraceParent(String);

/// A trace id of W3C trace context.
#[derive(ToSchema)]
#[schema(
    pattern = r"^(?!0{32})[0-9a-f]{32}$",
    example = "4bf92f3577b34da6a3ce929d0e0e4736"
)]
#[expect(dead_code, reason = "only described")]
pub(in crate::control) struct TraceIdText(String);

/// Why, in words for agent and journal: something.
#[derive(ToSchema)]
#[schema(pattern = r"\S", example = "wrong customer")]
#[expect(dead_code, reason = "only described")]
pub(in crate::control) struct Why(String);

/// What went wrong: a text, or an object with a text as `message`.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
pub(in crate::control) enum Fault {
    Text(String),
    Whole {
        message: String,
        #[serde(flatten)]
        more: std::collections::BTreeMap<String, Value>,
    },
}
