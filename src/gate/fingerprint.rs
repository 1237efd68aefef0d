//! What makes a retry the same operation: run, method, URL and body, and the
//! few headers that change what a server makes of them.

use sha2::{Digest, Sha256};

use crate::domain::{
    Action, Capture, Captured, Context, DatabaseCall, Event, FileCall, Fingerprint, FunctionCall,
    HttpCall, Operation, Stage, Told,
};

/// The fingerprint of `operation`; `None` when its body was not seen whole, for
/// then nobody can say that a retry is the same.
pub(super) fn of_operation(operation: &Operation) -> Option<Fingerprint> {
    let mut hash = Sha256::new();
    part(&mut hash, b"operation");
    let context = &operation.context;
    part(&mut hash, context.workflow_id.as_bytes());
    part(&mut hash, context.run_id.as_bytes());
    let activity = context.activity.as_ref().map_or("", |a| &*a.id);
    part(&mut hash, activity.as_bytes());
    match (&operation.reported, &operation.action) {
        (Some(_), action) => told(&mut hash, action),
        (None, Action::Http(call)) => http(&mut hash, call)?,
        (None, Action::Database(call)) => database(&mut hash, call)?,
        (None, Action::File(call)) => file(&mut hash, call)?,
        (None, Action::Function(call)) => function(&mut hash, call)?,
    }
    Some(finish(hash))
}

/// The fingerprint of an activity's ids; `None` outside any activity.
pub(super) fn of_subject(context: &Context) -> Option<Fingerprint> {
    let activity = context.activity.as_ref()?;
    let mut hash = Sha256::new();
    part(&mut hash, b"subject");
    part(&mut hash, context.workflow_id.as_bytes());
    part(&mut hash, context.run_id.as_bytes());
    part(&mut hash, activity.id.as_bytes());
    Some(finish(hash))
}

/// What a hook and the wire have in common where both are about one thing, at
/// `stage`; `None` for what only one of them can see. Before it leaves, the
/// content belongs to it, and must be known whole.
pub(super) fn of_twin(operation: &Operation, stage: Stage) -> Option<Fingerprint> {
    let mut hash = Sha256::new();
    part(&mut hash, b"twin");
    part(&mut hash, stage.as_str().as_bytes());
    part(&mut hash, &operation.trace.0.to_be_bytes());
    let context = &operation.context;
    part(&mut hash, context.workflow_id.as_bytes());
    part(&mut hash, context.run_id.as_bytes());
    optional(&mut hash, context.activity.as_ref().map(|a| &*a.id));
    match &operation.action {
        Action::Http(call) => {
            part(&mut hash, b"http");
            part(&mut hash, call.method.to_ascii_uppercase().as_bytes());
            part(&mut hash, call.scheme.as_bytes());
            part(&mut hash, call.host.as_bytes());
            part(&mut hash, &call.port.to_be_bytes());
            part(&mut hash, target(&call.url).as_bytes());
            not_shown(&mut hash, call);
            match (stage, Content::of(&call.body)) {
                (Stage::Completed, _) => {}
                (Stage::Started, Content::Empty) => part(&mut hash, b"-"),
                (Stage::Started, Content::Is(digest)) => part(&mut hash, &digest),
                (Stage::Started, Content::Unknown) => return None,
            }
        }
        Action::Database(call) => {
            if call.statement.state != Captured::Whole {
                return None;
            }
            part(&mut hash, b"database");
            part(&mut hash, call.system.as_bytes());
            let text = call.statement.text.as_deref()?;
            part(
                &mut hash,
                &match call.told {
                    Told::AsItIs => Sha256::digest(text).into(),
                    Told::Digest(digest) => digest,
                    Told::Unknown => return None,
                },
            );
        }
        Action::File(_) | Action::Function(_) => return None,
    }
    Some(finish(hash))
}

/// Path and query of an absolute URL.
fn target(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    match rest.find(['/', '?']).and_then(|at| rest.get(at..)) {
        Some(target) => target,
        None => "/",
    }
}

/// What is known of a body, to compare what two saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// There is none.
    Empty,
    /// The SHA-256 of all of it.
    Is([u8; 32]),
    /// Not all of it was seen.
    Unknown,
}

impl Content {
    pub(super) fn of(body: &Capture) -> Self {
        // No hook tells of them.
        if body.trailers.is_some() {
            return Self::Unknown;
        }
        match (body.state, body.digest, &body.text) {
            (Captured::Empty, _, _) => Self::Empty,
            (Captured::Whole, _, Some(text)) if text.is_empty() => Self::Empty,
            (Captured::Whole | Captured::WholeBinary, Some(digest), _) => Self::Is(digest),
            (Captured::Whole, None, Some(text)) => Self::Is(Sha256::digest(text).into()),
            (
                Captured::Whole | Captured::WholeBinary | Captured::Partial | Captured::Skipped,
                _,
                _,
            ) => Self::Unknown,
        }
    }
}

/// What a hook told is all there is: an SDK sends the same hook again after an
/// approval, also where it never saw a body, a parameter or what is written, and
/// must find the approval or it would ask for ever. It never is what the wire
/// shows, so it joins no hold of one.
fn told(hash: &mut Sha256, action: &Action) {
    part(hash, b"told");
    match action {
        Action::Http(call) => {
            part(hash, b"http");
            part(hash, call.method.as_bytes());
            part(hash, call.url.as_bytes());
            not_shown(hash, call);
            optional(hash, call.body.text.as_deref());
        }
        Action::Database(call) => {
            part(hash, b"database");
            part(hash, call.system.as_bytes());
            optional(hash, call.name.as_deref());
            part(hash, call.operation.as_bytes());
            optional(hash, call.statement.text.as_deref());
        }
        Action::File(call) => {
            part(hash, b"file");
            part(hash, call.path.as_bytes());
            optional(hash, call.mode.as_deref());
            part(hash, call.operation.as_bytes());
        }
        Action::Function(call) => {
            part(hash, b"function");
            optional(hash, call.module.as_deref());
            part(hash, call.function.as_bytes());
            optional(hash, call.arguments.as_ref().map(|json| &*json.0));
        }
    }
}

/// The fingerprint of a lifecycle event: everything but when it was sent.
pub(super) fn of_event(event: &Event) -> Fingerprint {
    let mut hash = Sha256::new();
    let context = &event.context;
    part(&mut hash, b"event");
    part(&mut hash, event.kind.as_str().as_bytes());
    part(&mut hash, context.workflow_id.as_bytes());
    part(&mut hash, context.run_id.as_bytes());
    if let Some(activity) = &context.activity {
        part(&mut hash, activity.id.as_bytes());
        part(&mut hash, activity.kind.as_bytes());
        part(&mut hash, activity.input.0.as_bytes());
    }
    let told = event.fields.iter().filter(|(name, _)| !tells_when(name));
    for (name, value) in told {
        part(&mut hash, name.as_bytes());
        part(&mut hash, value.0.as_bytes());
    }
    finish(hash)
}

/// What the URL does not show. Nothing where it shows all, so that what was granted before these
/// were left out of it is found again.
fn not_shown(hash: &mut Sha256, call: &HttpCall) {
    if let Some(secrets) = call.secrets {
        part(hash, b"secrets");
        part(hash, &secrets);
    }
}

fn http(hash: &mut Sha256, call: &HttpCall) -> Option<()> {
    // A body in a file is shown in part, and its digest is that of all of it.
    if !call.body.state.is_whole() && call.body.digest.is_none() {
        return None;
    }
    part(hash, b"http");
    part(hash, call.method.as_bytes());
    part(hash, call.url.as_bytes());
    not_shown(hash, call);
    for (name, value) in call
        .headers
        .iter()
        .filter(|(name, _)| changes_meaning(name))
    {
        part(hash, name.to_ascii_lowercase().as_bytes());
        part(hash, value.as_bytes());
    }
    match (call.body.state, call.body.digest, &call.body.text) {
        // Told apart: a text could be the digest of another body.
        (_, Some(digest), _) => {
            part(hash, b"digest");
            part(hash, &digest);
        }
        (_, None, Some(text)) => {
            part(hash, b"text");
            part(hash, text.as_bytes());
        }
        (Captured::Empty, None, None) => part(hash, b""),
        // Whole, but what it was is not known any more.
        (_, None, None) => return None,
    }
    // Nothing where there are none, so that what was granted before they were looked at is found again.
    if let Some(trailers) = &call.body.trailers {
        part(hash, b"trailers");
        part(hash, &trailers.digest);
    }
    Some(())
}

fn database(hash: &mut Sha256, call: &DatabaseCall) -> Option<()> {
    // Without one, what is bound to the statement is not known.
    let digest = call.statement.digest?;
    part(hash, b"database");
    part(hash, call.system.as_bytes());
    optional(hash, call.name.as_deref());
    optional(hash, call.server_address.as_deref());
    part(hash, &call.server_port.unwrap_or(0).to_be_bytes());
    part(hash, call.operation.as_bytes());
    part(hash, &digest);
    // What policy decides by it holds for nobody else.
    if let Some(user) = &call.user {
        part(hash, user.as_bytes());
    }
    Some(())
}

/// What is written is never seen, so a write is never the same as another.
fn file(hash: &mut Sha256, call: &FileCall) -> Option<()> {
    if call.operation.starts_with("write") {
        return None;
    }
    part(hash, b"file");
    part(hash, call.path.as_bytes());
    optional(hash, call.mode.as_deref());
    part(hash, call.operation.as_bytes());
    Some(())
}

fn function(hash: &mut Sha256, call: &FunctionCall) -> Option<()> {
    let arguments = call.arguments.as_ref()?;
    part(hash, b"function");
    optional(hash, call.module.as_deref());
    part(hash, call.function.as_bytes());
    part(hash, arguments.0.as_bytes());
    Some(())
}

/// Tells nothing from an empty text.
fn optional(hash: &mut Sha256, text: Option<&str>) {
    match text {
        Some(text) => {
            part(hash, b"+");
            part(hash, text.as_bytes());
        }
        None => part(hash, b"-"),
    }
}

/// Fields that differ each time the same event is sent.
fn tells_when(field: &str) -> bool {
    ["start_time", "end_time", "duration_ms"].contains(&field)
}

/// Headers by which the same bytes become another request. All others may
/// differ between retries (dates, trace ids, cookies, user agents).
fn changes_meaning(name: &str) -> bool {
    const NAMES: [&str; 4] = ["content-type", "content-encoding", "authorization", "range"];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
        || name.to_ascii_lowercase().ends_with("-override")
}

/// Length first, so that no two lists of parts run together.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    hash.update(length.to_be_bytes());
    hash.update(bytes);
}

fn finish(hash: Sha256) -> Fingerprint {
    let digest: [u8; 32] = hash.finalize().into();
    let mut print = [0; 16];
    for (to, from) in print.iter_mut().zip(digest) {
        *to = from;
    }
    Fingerprint(print)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{
        Attribution, Capture, Context, JsonText, OperationId, SpanId, Timestamp, TraceId,
    };

    fn print(action: Action) -> Option<Fingerprint> {
        of_operation(&Operation {
            id: OperationId::new(1, 1),
            trace: TraceId(1),
            span: SpanId(1),
            parent: None,
            started_at: Timestamp(1),
            context: Arc::new(Context {
                workflow_id: "w".into(),
                run_id: "r".into(),
                workflow_type: "t".into(),
                task_queue: "q".into(),
                activity: None,
            }),
            attribution: Attribution::OwnSession,
            fingerprint: None,
            action,
            reported: None,
        })
    }

    fn database(name: Option<&str>, operation: &str, digest: Option<u8>) -> Action {
        Action::Database(DatabaseCall {
            system: "postgresql".into(),
            name: name.map(Into::into),
            user: None,
            operation: operation.into(),
            statement: Capture {
                digest: digest.map(|byte| [byte; 32]),
                ..Capture::default()
            },
            server_address: None,
            server_port: None,
            reading: None,
            told: Told::AsItIs,
        })
    }

    /// As [`database`] with no name.
    fn by(user: &str) -> Action {
        let Action::Database(mut call) = database(None, "SELECT", Some(1)) else {
            unreachable!();
        };
        call.user = Some(user.into());
        Action::Database(call)
    }

    fn file(operation: &str, mode: Option<&str>) -> Action {
        Action::File(FileCall {
            path: "/srv/a".into(),
            mode: mode.map(Into::into),
            operation: operation.into(),
        })
    }

    fn function(module: Option<&str>, arguments: Option<&str>) -> Action {
        Action::Function(FunctionCall {
            function: "pay".into(),
            module: module.map(Into::into),
            arguments: arguments.map(|json| JsonText(json.into())),
        })
    }

    #[test]
    fn what_differs_in_one_respect_is_not_the_same() {
        let different = [
            database(None, "SELECT", Some(1)),
            database(Some(""), "SELECT", Some(1)),
            database(Some("a"), "SELECT", Some(1)),
            database(None, "DELETE", Some(1)),
            database(None, "SELECT", Some(2)),
            by(""),
            by("a"),
            file("read", None),
            file("read", Some("r")),
            file("delete", None),
            function(None, Some("[1]")),
            function(None, Some("[2]")),
            function(Some("billing"), Some("[1]")),
        ];
        let prints: std::collections::HashSet<_> = different
            .iter()
            .cloned()
            .map(|action| print(action).unwrap().0)
            .collect();
        assert_eq!(prints.len(), different.len());
        for action in different {
            assert_eq!(print(action.clone()), print(action));
        }
    }

    /// One approval must not serve for bytes that nobody saw.
    #[test]
    fn what_was_not_seen_whole_is_never_the_same() {
        for action in [
            database(None, "INSERT", None),
            file("write", Some("w")),
            file("writelines", Some("w")),
            function(None, None),
        ] {
            assert_eq!(print(action.clone()), None, "{action:?}");
        }
    }
}
