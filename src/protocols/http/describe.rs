//! From an HTTP request to an operation: what policy sees of it, and the
//! evidence it brings of whose it is.

use http::header::HeaderMap;
use http::request::Parts;

use crate::domain::{
    Action, Capture, HttpCall, Operation, Process, SpanId, Timestamp, ToolCall, TraceId,
};
use crate::process::clock;
use crate::redact;
use crate::session::{Claim, Session};

use super::authority::Target;
use super::fields;

/// The W3C Trace Context of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    pub(super) trace: TraceId,
    pub(super) parent: SpanId,
}

/// Reads the value of `traceparent` (W3C Trace Context §3.2): version, trace id,
/// parent id, flags. Anything malformed is as good as none.
fn trace(value: &str) -> Option<Trace> {
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

/// The trace in `headers`, and their evidence of whose the request is. Of a
/// field that is there more than once, the first counts.
pub(super) fn evidence<'a>(
    headers: &'a HeaderMap,
    proxy_user: Option<&'a str>,
    callers: &'a [Process],
) -> (Option<Trace>, Claim<'a>) {
    let mut claim = Claim {
        proxy_user,
        callers,
        ..Claim::default()
    };
    let mut found = None;
    // One look at the names there are costs less than looking for each of ours.
    for name in headers.keys() {
        let text = || headers.get(name).and_then(|value| value.to_str().ok());
        match name.as_str() {
            "traceparent" => found = text().and_then(trace),
            "x-openbox-workflow-id" => claim.workflow_id = text(),
            "x-openbox-run-id" => claim.run_id = text(),
            "x-openbox-activity-id" => claim.activity_id = text(),
            "baggage" => claim_baggage(text().unwrap_or_default(), &mut claim),
            _ => {}
        }
    }
    claim.trace = found.map(|trace: Trace| trace.trace);
    (found, claim)
}

fn claim_baggage<'a>(value: &'a str, claim: &mut Claim<'a>) {
    for member in value.split(',') {
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
}

/// The operation that a request asks for, with the tool that its body calls. `parts` has lost the fields of this
/// hop already.
pub(super) fn operation(
    parts: &Parts,
    target: &Target,
    (body, tool): (Capture, Option<ToolCall>),
    trace: Option<Trace>,
    session: &Session,
    started_at: Timestamp,
) -> Box<Operation> {
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = match path_and_query.starts_with('/') {
        true => target.url(path_and_query),
        false => target.url(&["/", path_and_query].concat()),
    };
    let shown = redact::url(&url);
    let call = HttpCall {
        method: parts.method.as_str().into(),
        secrets: shown.secrets,
        url: shown.url.into(),
        scheme: target.scheme,
        host: target.host.clone(),
        port: target.port,
        path: parts.uri.path().into(),
        headers: fields::captured(&parts.headers),
        tool,
        body,
    };
    envelope(Action::Http(call), trace, session, started_at)
}

/// The operation of opening a tunnel whose content is not looked at.
pub(super) fn tunnel(target: &Target, session: &Session, started_at: Timestamp) -> Box<Operation> {
    let call = HttpCall {
        method: "CONNECT".into(),
        url: target.origin().into(),
        secrets: None,
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
            let (trace, claim) = evidence(&headers, None, &[]);
            let found = (trace.is_some(), claim.trace.is_some());
            assert_eq!(found, (expected, expected), "{value}");
        }
    }

    #[test]
    fn baggage_names_run_and_activity() {
        let mut headers = HeaderMap::new();
        let value = "a=1, openbox.run = r1;p=2,openbox.activity=a1";
        headers.insert("baggage", value.parse().unwrap());
        let (_, claim) = evidence(&headers, None, &[]);
        assert_eq!(
            (claim.baggage_run, claim.baggage_activity),
            (Some("r1"), Some("a1"))
        );
    }
}
