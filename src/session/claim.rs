//! The evidence an operation brings of whose it is. Claims are hints from the
//! agent: they count only for runs and activities that were opened with an
//! allowed event, and none of them grants anything.

use crate::domain::{Process, TraceId};

/// The trace id of a W3C `traceparent`.
#[must_use]
pub fn trace_of(traceparent: &str) -> Option<TraceId> {
    let hex = traceparent.split('-').nth(1)?;
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let id = u128::from_str_radix(hex, 16).ok()?;
    (id != 0).then_some(TraceId(id))
}

/// Evidence, borrowed from a request. All of it is optional.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim<'a> {
    /// `X-OpenBox-Workflow-Id`.
    pub workflow_id: Option<&'a str>,
    /// `X-OpenBox-Run-Id`.
    pub run_id: Option<&'a str>,
    /// `X-OpenBox-Activity-Id`.
    pub activity_id: Option<&'a str>,
    /// Trace id of `traceparent`.
    pub trace: Option<TraceId>,
    /// `openbox.run` of `baggage`.
    pub baggage_run: Option<&'a str>,
    /// `openbox.activity` of `baggage`.
    pub baggage_activity: Option<&'a str>,
    /// User name of the proxy credentials: a registered context.
    pub proxy_user: Option<&'a str>,
    /// `application_name` of a database session: a registered context.
    pub database_hint: Option<&'a str>,
    /// The process that the connection comes from, then its parents.
    pub callers: &'a [Process],
}
