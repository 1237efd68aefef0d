//! Refusals as a client wants to see them: `ER_SPECIFIC_ACCESS_DENIED_ERROR`,
//! which no driver tries again or connects anew because of. An error ends no
//! transaction here, and a connection has one command at a time, so that a
//! refusal is just an answer.

use bytes::Bytes;

use crate::domain::{OperationId, Refusal};
use crate::gate::Refused;

use super::wire::packet;

const DENIED: (u16, &str) = (1227, "42000");
const INTERRUPTED: (u16, &str) = (1317, "70100");
const SHUTDOWN: (u16, &str) = (1053, "08S01");
const OUT_OF_ORDER: (u16, &str) = (1156, "08S01");
const SLOW: (u16, &str) = (1159, "08S01");
const UNREACHABLE: (u16, &str) = (1105, "HY000");

/// Whether the session ends with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    End,
}

/// What a client is answered, whatever the packet's number will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    body: Vec<u8>,
    pub(super) then: Then,
}

impl Answered {
    /// A refusal.
    pub(super) fn of(refused: &Refused) -> Self {
        let ends = matches!(refused.refusal, Refusal::Halted(_) | Refusal::ShuttingDown);
        let code = match &refused.refusal {
            Refusal::ShuttingDown => SHUTDOWN,
            Refusal::Blocked(_)
            | Refusal::OutcomeBlocked(_)
            | Refusal::Halted(_)
            | Refusal::ActivityAborted(_)
            | Refusal::ApprovalPending { .. }
            | Refusal::Rejected { .. }
            | Refusal::ApprovalExpired(_)
            | Refusal::PolicyUnavailable(_)
            | Refusal::Unjudgeable(_)
            | Refusal::ConstraintNotApplicable(_)
            | Refusal::Unattributed
            | Refusal::NotRecorded
            | Refusal::Overloaded(_) => DENIED,
        };
        let what_next = match (&refused.policy, refused.is_retryable()) {
            (_, true) => "; the same statement may be tried again later".to_owned(),
            (Some(policy), false) => format!("; ask the owner of policy \"{policy}\""),
            (None, false) => String::new(),
        };
        let text = format!(
            "{} (operation {}, refusal code {}{what_next})",
            refused.refusal,
            refused.event,
            refused.refusal.code()
        );
        Self {
            body: error(code, &text),
            then: if ends { Then::End } else { Then::GoOn },
        }
    }

    /// For what is refused without asking anybody.
    pub(super) fn unasked(why: &str) -> Self {
        Self::going_on(error(DENIED, &format!("openbox-sidecar: {why}")))
    }

    /// For a hold that somebody's `KILL` ended, or that no longer applies.
    pub(super) fn interrupted(event: OperationId, why: &str) -> Self {
        Self::going_on(error(INTERRUPTED, &format!("{why} (operation {event})")))
    }

    /// For a session that cannot go on.
    pub(super) fn ending(why: &str) -> Self {
        Self {
            body: error(DENIED, &format!("openbox-sidecar: {why}")),
            then: Then::End,
        }
    }

    fn going_on(body: Vec<u8>) -> Self {
        Self {
            body,
            then: Then::GoOn,
        }
    }

    /// As the packet of this number.
    pub(super) fn packet(&self, sequence: u8) -> Bytes {
        packet(sequence, &self.body)
    }
}

/// The end of a session in which a peer broke the protocol.
pub(super) fn broken(sequence: u8, why: &str) -> Bytes {
    packet(sequence, &error(OUT_OF_ORDER, why))
}

/// The end of a session with a sidecar that stops.
pub(super) fn shutting_down(sequence: u8) -> Bytes {
    packet(sequence, &error(SHUTDOWN, "the sidecar is shutting down"))
}

/// The end of a login that took too long.
pub(super) fn slow(sequence: u8) -> Bytes {
    const WHY: &str = "openbox-sidecar: nobody has logged in in time (mysql.login_within)";
    packet(sequence, &error(SLOW, WHY))
}

/// Instead of a greeting: there is no server. No state is said before both
/// sides have agreed on what they speak.
pub(super) fn unreachable(why: &str) -> Bytes {
    let (code, _) = UNREACHABLE;
    packet(0, &before_login(code, why))
}

/// Instead of a greeting: nobody may come.
pub(super) fn instead_of_greeting(refused: &Refused) -> Bytes {
    let text = format!(
        "{} (operation {}, refusal code {})",
        refused.refusal,
        refused.event,
        refused.refusal.code()
    );
    packet(0, &before_login(DENIED.0, &text))
}

/// An answer to a login that cannot go on.
pub(super) fn login(sequence: u8, why: &str) -> Bytes {
    packet(sequence, &error(DENIED, &format!("openbox-sidecar: {why}")))
}

fn before_login(code: u16, text: &str) -> Vec<u8> {
    let mut body = vec![0xff];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(plain(text).as_bytes());
    body
}

fn error((code, state): (u16, &str), text: &str) -> Vec<u8> {
    let mut body = vec![0xff];
    body.extend_from_slice(&code.to_le_bytes());
    body.push(b'#');
    body.extend_from_slice(state.as_bytes());
    body.extend_from_slice(plain(text).as_bytes());
    body
}

/// One line of at most as many bytes as clients keep.
fn plain(text: &str) -> String {
    const TEXT_BYTES_MAX: usize = 500;
    let mut line: String = text
        .chars()
        .map(|one| if one.is_control() { ' ' } else { one })
        .collect();
    line.truncate(line.floor_char_boundary(TEXT_BYTES_MAX));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::clock;

    #[test]
    fn my_9_a_refusal_is_an_error_that_nobody_tries_again() {
        let event = clock::operation_id(clock::now());
        let refused = Refused::unasked(Refusal::Unattributed, event);
        let packet = Answered::of(&refused).packet(1);
        assert!(packet[3] == 1 && packet[4..].starts_with(b"\xff\xcb\x04#42000"));
        let text = String::from_utf8_lossy(&packet).into_owned();
        assert!(
            text.contains(&event.to_string()) && text.contains("unattributed"),
            "{text}"
        );
        let greeting = instead_of_greeting(&refused);
        assert!(greeting.starts_with(&[greeting[0], 0, 0, 0, 0xff]) && !greeting.contains(&b'#'));
    }
}
