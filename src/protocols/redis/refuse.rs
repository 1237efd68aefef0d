//! Refusals as a client wants to see them: `-NOPERM`, which no client tries
//! again, or connects anew because of.

use bytes::Bytes;

use crate::domain::{OperationId, Refusal};
use crate::gate::Refused;

use super::request;
use super::waiting::Unblocked;

/// Whether the connection ends with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    End,
}

/// What the server is made to reject stands for, until it has.
#[derive(Clone, Debug)]
pub(super) struct Poison {
    marker: String,
    error: Bytes,
    pub(super) then: Then,
}

impl Poison {
    pub(super) fn of(refused: &Refused) -> Self {
        let ends = matches!(refused.refusal, Refusal::Halted(_) | Refusal::ShuttingDown);
        Self {
            marker: format!("openbox:{}", refused.event),
            error: refusal(refused),
            then: if ends { Then::End } else { Then::GoOn },
        }
    }

    /// For a script that was refused unseen: so a client sends its text, which
    /// is then judged.
    pub(super) fn unseen_script(refused: &Refused) -> Self {
        let text = format!(
            "No matching script. The sidecar has not seen its text, and policy refuses what nobody knows (operation {})",
            refused.event
        );
        Self {
            error: line("NOSCRIPT", &text),
            ..Self::of(refused)
        }
    }

    /// For what `CLIENT UNBLOCK` of another connection ended the wait of.
    pub(super) fn unblocked(event: OperationId, how: Unblocked) -> Self {
        match how {
            Unblocked::TimedOut => {
                Self::unasked(event, "CLIENT UNBLOCK ended its wait for a person")
            }
            Unblocked::WithError => Self {
                error: line("UNBLOCKED", "client unblocked via CLIENT UNBLOCK"),
                ..Self::unasked(event, "")
            },
        }
    }

    /// For what is refused without asking anybody.
    pub(super) fn unasked(event: OperationId, why: &str) -> Self {
        Self {
            marker: format!("openbox:{event}"),
            error: line("NOPERM", &format!("openbox-sidecar: {why}")),
            then: Then::GoOn,
        }
    }

    /// What the server is sure to reject: a command that cannot exist.
    pub(super) fn command(&self) -> Bytes {
        request::array(&[self.marker.as_bytes()]).freeze()
    }

    /// Whether an error of the server is about it.
    pub(super) fn is_meant(&self, text: &[u8]) -> bool {
        memchr::memmem::find(text, self.marker.as_bytes()).is_some()
    }

    pub(super) fn error(&self) -> Bytes {
        self.error.clone()
    }
}

/// A refusal as an error.
pub(super) fn refusal(refused: &Refused) -> Bytes {
    let mut text = format!(
        "{} (operation {}, refusal code {}",
        refused.refusal,
        refused.event,
        refused.refusal.code()
    );
    match (&refused.policy, refused.is_retryable()) {
        (_, true) => text.push_str("; the same command may be tried again later)"),
        (Some(policy), false) => {
            text.push_str("; ask the owner of policy \"");
            text.push_str(policy);
            text.push_str("\")");
        }
        (None, false) => text.push(')'),
    }
    line("NOPERM", &text)
}

/// An error as one line.
pub(super) fn line(code: &str, text: &str) -> Bytes {
    let mut line = format!("-{code} ");
    line.extend(
        text.chars()
            .map(|one| if one.is_control() { ' ' } else { one }),
    );
    line.push_str("\r\n");
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rd_3_an_error_is_one_line_whatever_its_reason_is() {
        assert_eq!(&line("NOPERM", "a\r\n+OK")[..], b"-NOPERM a  +OK\r\n");
    }
}
