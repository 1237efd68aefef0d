//! What an execution looks like to policy.

use crate::domain::{
    Action, Capture, Captured, DatabaseCall, JsonText, Operation, Process, Timestamp, TraceId,
};
use crate::process::clock;
use crate::protocols::sql::told::{self, Said};
use crate::protocols::sql::{Class, Flags};
use crate::session::{Claim, Session, trace_of};

use super::Upstream;
use super::conversation::{Ask, Conversation};
use super::statement::Text;

/// Most bytes of a statement that policy sees.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// The evidence of whose an execution is: an attribute of the query, a comment behind it,
/// or what holds of all its connection.
pub(super) fn claim<'a>(asked: &Ask, of_connection: Claim<'a>) -> Claim<'a> {
    let tags = asked.text.analysis.as_ref().map(|analysis| &*analysis.tags);
    let tag = tags.and_then(|tags| tags.iter().find(|(name, _)| &**name == "traceparent"));
    let parent = asked.trace.as_deref().or(tag.map(|(_, value)| &**value));
    Claim {
        trace: parent.and_then(trace_of).or(of_connection.trace),
        ..of_connection
    }
}

/// The evidence of whose a connection is: its attributes, and who is behind it.
pub(super) fn claim_of_connection<'a>(talk: &'a Conversation, callers: &'a [Process]) -> Claim<'a> {
    Claim {
        trace: talk.trace().and_then(trace_of),
        database_hint: talk.claims(),
        callers,
        ..Claim::default()
    }
}

/// Where something is executed, and who has logged in for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) database: Option<&'a str>,
    pub(super) user: Option<&'a str>,
}

impl Place<'_> {
    /// What is executed there, as it is told.
    fn call(self, operation: &str, statement: Capture, reading: JsonText) -> DatabaseCall {
        DatabaseCall {
            system: "mysql".into(),
            name: self.database.map(Into::into),
            user: self.user.map(Into::into),
            operation: operation.into(),
            statement,
            server_address: Some(self.upstream.host.clone()),
            server_port: Some(self.upstream.port),
            reading: Some(reading),
            told: crate::domain::Told::AsItIs,
        }
    }
}

/// The operation that `asked` is.
pub(super) fn operation(
    asked: &Ask,
    place: Place<'_>,
    session: &Session,
    trace: Option<TraceId>,
    started_at: Timestamp,
) -> Box<Operation> {
    let statement = capture(shown(&asked.text), asked.digest);
    let call = place.call(operation_of(asked), statement, reading(&asked.text));
    envelope(call, session, trace, started_at)
}

/// The operation of beginning a session.
pub(super) fn beginning(
    place: Place<'_>,
    session: &Session,
    trace: Option<TraceId>,
    started_at: Timestamp,
) -> Box<Operation> {
    const VERB: &str = "CONNECT";
    let reading = Said {
        class: Class::Session,
        verbs: &[VERB],
        ..Said::opaque(None, Flags::default())
    };
    let call = place.call(VERB, capture(VERB.to_owned(), None), reading.json());
    envelope(call, session, trace, started_at)
}

fn envelope(
    call: DatabaseCall,
    session: &Session,
    trace: Option<TraceId>,
    started_at: Timestamp,
) -> Box<Operation> {
    Box::new(Operation {
        id: clock::operation_id(started_at),
        trace: trace.unwrap_or_else(clock::trace_id),
        span: clock::span_id(),
        parent: None,
        started_at,
        context: session.context.clone(),
        attribution: session.attribution,
        fingerprint: None,
        action: Action::Database(call),
        reported: None,
    })
}

fn capture(mut statement: String, digest: Option<[u8; 32]>) -> Capture {
    let bytes = u64::try_from(statement.len()).unwrap_or(u64::MAX);
    let state = match statement.len() > SHOWN_BYTES_MAX || digest.is_none() {
        true => Captured::Partial,
        false => Captured::Whole,
    };
    statement.truncate(statement.floor_char_boundary(SHOWN_BYTES_MAX));
    Capture {
        trailers: None,
        text: Some(statement),
        bytes,
        digest,
        state,
        ..Capture::default()
    }
}

/// What is asked about, in one word: of a command that says nothing to be read, its name.
fn operation_of(asked: &Ask) -> &str {
    let name = asked.text.text.as_deref().filter(|_| asked.kind.by_name);
    name.unwrap_or_else(|| verb(&asked.text))
}

/// An opaque text has no verb that could be believed.
fn verb(text: &Text) -> &'static str {
    match &text.analysis {
        Some(analysis) if !text.is_opaque() => analysis.verb(),
        Some(_) | None => "UNKNOWN",
    }
}

/// The text, without its literals where one may be a password.
fn shown(text: &Text) -> String {
    match (&text.text, &text.analysis) {
        (Some(text), Some(analysis)) if !analysis.secret => text.to_string(),
        (_, Some(analysis)) if !analysis.redacted.is_empty() => analysis.redacted.to_string(),
        (Some(_), _) => "(a statement that cannot be read)".to_owned(),
        (None, _) => format!(
            "(a statement that was not seen: {})",
            text.why.unwrap_or_default()
        ),
    }
}

fn reading(text: &Text) -> JsonText {
    match (&text.analysis, text.why) {
        (Some(analysis), None) => analysis.told.clone(),
        (Some(analysis), why) => told::of(analysis, why, Flags::default()),
        (None, why) => Said::opaque(why, Flags::default()).json(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_12_only_a_traceparent_of_the_right_shape_names_a_trace() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let value = u128::from_str_radix(id, 16).unwrap();
        for (text, expected) in [
            (format!("00-{id}-00f067aa0ba902b7-01"), Some(TraceId(value))),
            (format!("00-+{}-1-01", &id[1..]), None),
            ("00-00000000000000000000000000000000-1-01".to_owned(), None),
            (id.to_owned(), None),
        ] {
            assert_eq!(trace_of(&text), expected, "{text}");
        }
    }

    #[test]
    fn c_7_a_text_that_cannot_be_read_is_not_shown() {
        let opaque = Text::opaque(b"SET PASSWORD = '\xffsecret'", "why");
        assert_eq!(shown(&opaque), "(a statement that cannot be read)");
        assert_eq!(verb(&opaque), "UNKNOWN");
        assert!(reading(&opaque).0.contains(r#""opaque":"why""#));
        assert!(shown(&Text::unknown()).contains("prepared out of sight"));
    }
}
