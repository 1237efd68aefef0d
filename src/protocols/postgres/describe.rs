//! What an execution looks like to policy.

use std::fmt::Write as _;

use crate::domain::{
    Action, Capture, Captured, DatabaseCall, JsonText, Operation, Process, Timestamp, Told, TraceId,
};
use crate::process::clock;
use crate::protocols::sql::told::{self, Said};
use crate::protocols::sql::{Analysis, Class, Dialect, Flags};
use crate::session::{Claim, Session, trace_of};

use super::conversation::Ask;
use super::statement::Text;

/// Most bytes of a statement that policy sees.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// Where a session leads.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) database: Box<str>,
    /// As the session begins: `SET ROLE` changes what it may do, not who it is of.
    pub(super) user: Option<Box<str>>,
}

/// The evidence of whose an execution is.
pub(super) fn claim<'a>(
    text: &Text,
    application: Option<&'a str>,
    callers: &'a [Process],
) -> Claim<'a> {
    let tags = text.analysis.as_ref().map(|analysis| &analysis.tags);
    let trace = tags.and_then(|tags| {
        let (_, value) = tags.iter().find(|(name, _)| &**name == "traceparent")?;
        trace_of(value)
    });
    Claim {
        trace,
        database_hint: application,
        callers,
        ..Claim::default()
    }
}

/// The operation that `asked` is.
pub(super) fn operation(
    asked: &Ask,
    place: &Place,
    session: &Session,
    trace: Option<TraceId>,
    (started_at, earlier): (Timestamp, Flags),
) -> Box<Operation> {
    let (verb, statement) = match asked.function {
        Some(function) => {
            let name = large_object(function).unwrap_or("a function of this number");
            ("FASTPATH", format!("fastpath {function}: {name}"))
        }
        None => (verb(&asked.text), shown(&asked.text)),
    };
    let reading = match asked.function.and_then(large_object) {
        Some(name) => reading_of_large_object(name),
        None => reading(&asked.text, earlier),
    };
    let call = DatabaseCall {
        system: "postgresql".into(),
        name: Some(place.database.clone()),
        user: place.user.clone(),
        operation: verb.into(),
        statement: capture(statement, asked.digest),
        server_address: Some(place.host.clone()),
        server_port: Some(place.port),
        reading: Some(reading),
        // A hook tells the name, and this shows what stands behind it.
        told: match asked.text.goes_by_name() {
            true => Told::Unknown,
            false => Told::AsItIs,
        },
    };
    envelope(call, session, trace, started_at)
}

/// The operation of starting a session that is more than one for statements, or
/// with settings that are more than settings.
pub(super) fn session(
    verb: &'static str,
    text: String,
    place: &Place,
    session: &Session,
    started_at: Timestamp,
) -> Box<Operation> {
    let reading = said(Class::Admin, &[verb], &[]);
    let call = DatabaseCall {
        system: "postgresql".into(),
        name: Some(place.database.clone()),
        user: place.user.clone(),
        operation: verb.into(),
        statement: capture(text, None),
        server_address: Some(place.host.clone()),
        server_port: Some(place.port),
        reading: Some(reading),
        told: Told::AsItIs,
    };
    envelope(call, session, None, started_at)
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
    let cut = statement.len() > SHOWN_BYTES_MAX;
    if cut {
        statement.truncate(statement.floor_char_boundary(SHOWN_BYTES_MAX));
    }
    Capture {
        trailers: None,
        text: Some(statement),
        bytes,
        digest,
        state: if cut {
            Captured::Partial
        } else {
            Captured::Whole
        },
        ..Capture::default()
    }
}

/// A statement without its connection, as policy sees it: verb, text, reading.
pub fn as_seen(statement: &str) -> (&'static str, String, JsonText) {
    let analysis = Analysis::of(statement, Dialect::POSTGRES);
    let text = Text {
        text: Some(statement.into()),
        analysis: Some(analysis.into()),
        why: None,
    };
    let mut shown = shown(&text);
    if shown.len() > SHOWN_BYTES_MAX {
        shown.truncate(shown.floor_char_boundary(SHOWN_BYTES_MAX));
    }
    (verb(&text), shown, reading(&text, Flags::default()))
}

/// An opaque text has no verb that could be believed.
fn verb(text: &Text) -> &'static str {
    if text.is_opaque() {
        return "UNKNOWN";
    }
    text.analysis
        .as_ref()
        .map_or("UNKNOWN", |analysis| analysis.verb())
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

fn reading(text: &Text, earlier: Flags) -> JsonText {
    match (&text.analysis, text.why) {
        (Some(analysis), None) if earlier == Flags::default() => analysis.told.clone(),
        (Some(analysis), why) => told::of(analysis, why, earlier),
        (None, why) => Said::opaque(why, earlier).json(),
    }
}

fn said(class: Class, verbs: &[&'static str], functions: &[&str]) -> JsonText {
    Said {
        class,
        verbs,
        functions,
        ..Said::opaque(None, Flags::default())
    }
    .json()
}

fn reading_of_large_object(name: &str) -> JsonText {
    let class = match name {
        "lo_import" | "lo_export" => Class::Admin,
        "loread" | "lo_get" | "lo_open" | "lo_close" | "lo_tell" | "lo_lseek" | "lo_lseek64"
        | "lo_tell64" => Class::Read,
        _ => Class::Write,
    };
    said(class, &["FASTPATH"], &[name])
}

/// The functions of large objects that libpq calls by number.
pub(super) fn large_object(function: u32) -> Option<&'static str> {
    Some(match function {
        715 => "lo_create",
        764 => "lo_import",
        765 => "lo_export",
        952 => "lo_open",
        953 => "lo_close",
        954 => "loread",
        955 => "lowrite",
        956 => "lo_lseek",
        957 => "lo_creat",
        958 => "lo_tell",
        964 => "lo_unlink",
        1004 => "lo_truncate",
        3170 => "lo_lseek64",
        3171 => "lo_tell64",
        3172 => "lo_truncate64",
        _ => return None,
    })
}

/// One line for a setting at the start of a session.
pub(super) fn setting(line: &mut String, name: &str, value: &str) {
    let value = value.replace('\'', "''");
    // Writing to a string does not fail.
    let _written = write!(line, "SET {name} TO '{value}'; ");
}
