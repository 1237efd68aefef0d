//! What makes a retry the same operation: run, method, URL and body, and the
//! few headers that change what a server makes of them.

use sha2::{Digest, Sha256};

use crate::domain::{Action, Captured, Event, Fingerprint, HttpCall, Operation};

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
    match &operation.action {
        Action::Http(call) => http(&mut hash, call)?,
    }
    Some(finish(hash))
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

fn http(hash: &mut Sha256, call: &HttpCall) -> Option<()> {
    if !call.body.state.is_whole() {
        return None;
    }
    part(hash, b"http");
    part(hash, call.method.as_bytes());
    part(hash, call.url.as_bytes());
    for (name, value) in call
        .headers
        .iter()
        .filter(|(name, _)| changes_meaning(name))
    {
        part(hash, name.to_ascii_lowercase().as_bytes());
        part(hash, value.as_bytes());
    }
    match (call.body.state, call.body.digest, &call.body.text) {
        (_, Some(digest), _) => part(hash, &digest),
        (_, None, Some(text)) => part(hash, text.as_bytes()),
        (Captured::Empty, None, None) => part(hash, b""),
        // Whole, but what it was is not known any more.
        (_, None, None) => return None,
    }
    Some(())
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
