//! From an HTTP request to an operation: what policy sees of it, and the
//! evidence it brings of whose it is.

use http::header::HeaderMap;
use http::request::Parts;

use crate::domain::{Action, Capture, HttpCall, Operation, SpanId, Timestamp, TraceId};
use crate::process::clock;
use crate::session::{Claim, Session};

use super::authority::Target;
use super::{fields, mcp};

/// The W3C Trace Context of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    pub(super) trace: TraceId,
    pub(super) parent: SpanId,
}

/// Reads `traceparent` (W3C Trace Context §3.2): version, trace id, parent id,
/// flags. Anything malformed is as good as none.
pub(super) fn trace(headers: &HeaderMap) -> Option<Trace> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !hex(version, 2) || version == "ff" || !hex(trace, 32) || !hex(parent, 16) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let parent = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    Some(Trace {
        trace: TraceId(trace),
        parent: SpanId(parent),
    })
}

/// The evidence in `headers` of whose the request is.
pub(super) fn claim<'a>(
    headers: &'a HeaderMap,
    trace: Option<Trace>,
    proxy_user: Option<&'a str>,
) -> Claim<'a> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut claim = Claim {
        workflow_id: text("x-openbox-workflow-id"),
        run_id: text("x-openbox-run-id"),
        activity_id: text("x-openbox-activity-id"),
        trace: trace.map(|trace| trace.trace),
        proxy_user,
        ..Claim::default()
    };
    for member in text("baggage")
        .into_iter()
        .flat_map(|value| value.split(','))
    {
        // Properties follow behind a semicolon.
        let member = member.split(';').next().unwrap_or_default();
        match member
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
        {
            Some(("openbox.run", run)) => claim.baggage_run = Some(run),
            Some(("openbox.activity", activity)) => claim.baggage_activity = Some(activity),
            Some(_) | None => {}
        }
    }
    claim
}

/// The operation that a request asks for. `parts` has lost the fields of this
/// hop already.
pub(super) fn operation(
    parts: &Parts,
    target: &Target,
    body: Capture,
    trace: Option<Trace>,
    session: &Session,
    started_at: Timestamp,
) -> Box<Operation> {
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut url = target.origin();
    if !path_and_query.starts_with('/') {
        url.push('/');
    }
    url.push_str(path_and_query);
    let call = HttpCall {
        method: parts.method.as_str().into(),
        url: url.into(),
        scheme: target.scheme,
        host: target.host.clone(),
        port: target.port,
        path: parts.uri.path().into(),
        headers: fields::captured(&parts.headers),
        tool: mcp::tool_call(&body),
        body,
    };
    envelope(Action::Http(call), trace, session, started_at)
}

/// The operation of opening a tunnel whose content is not looked at.
pub(super) fn tunnel(target: &Target, session: &Session, started_at: Timestamp) -> Box<Operation> {
    let call = HttpCall {
        method: "CONNECT".into(),
        url: target.origin().into(),
        scheme: target.scheme,
        host: target.host.clone(),
        port: target.port,
        path: "".into(),
        headers: crate::domain::Headers::default(),
        // What will pass is unknown, so nothing about it may be remembered.
        body: Capture {
            state: crate::domain::Captured::Skipped,
            ..Capture::default()
        },
        tool: None,
    };
    envelope(Action::Http(call), None, session, started_at)
}

fn envelope(
    action: Action,
    trace: Option<Trace>,
    session: &Session,
    started_at: Timestamp,
) -> Box<Operation> {
    Box::new(Operation {
        id: clock::operation_id(started_at),
        trace: trace.map_or_else(clock::trace_id, |trace| trace.trace),
        span: clock::span_id(),
        parent: trace.map(|trace| trace.parent),
        started_at,
        context: session.context.clone(),
        attribution: session.attribution,
        fingerprint: None,
        action,
        reported: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_traceparent_is_as_good_as_none() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        #[rustfmt::skip]
        let table = [
            (good.to_owned(),                       true),
            (good.replace("00-4", "cc-4"),          true),
            (good.replace("00-4", "ff-4"),          false),
            (good.to_uppercase(),                   false),
            (good.replace("4bf9", "4bf"),           false),
            (format!("00-{:032}-00f067aa0ba902b7-01", 0), false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), false),
        ];
        for (value, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            assert_eq!(trace(&headers).is_some(), expected, "{value}");
        }
    }

    #[test]
    fn baggage_names_run_and_activity() {
        let mut headers = HeaderMap::new();
        let value = "a=1, openbox.run = r1;p=2,openbox.activity=a1";
        headers.insert("baggage", value.parse().unwrap());
        let claim = claim(&headers, None, None);
        assert_eq!(
            (claim.baggage_run, claim.baggage_activity),
            (Some("r1"), Some("a1"))
        );
    }
}
