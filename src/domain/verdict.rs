//! What policy answered.

use std::fmt;
use std::sync::Arc;

/// The five answers, mildest first. There is no "unknown": a word nobody knows
/// is an error of the backend, never a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Go ahead.
    Allow,
    /// Go ahead within limits.
    Constrain,
    /// Ask a person first.
    RequireApproval,
    /// Not this operation.
    Block,
    /// Not this operation, nor any later one of the run.
    Halt,
}

impl Verdict {
    /// Every verdict, mildest first.
    pub const ALL: [Self; 5] = [
        Self::Allow,
        Self::Constrain,
        Self::RequireApproval,
        Self::Block,
        Self::Halt,
    ];

    /// The word of the wire contract, metric labels and the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Constrain => "constrain",
            Self::RequireApproval => "require_approval",
            Self::Block => "block",
            Self::Halt => "halt",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names an approval a person gives or refuses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApprovalId(pub Arc<str>);

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why, in words fit to show the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(pub Arc<str>);

impl Reason {
    /// Longest reason kept, characters; the rest is cut.
    pub const CHARS_MAX: usize = 1_000;

    /// Takes text from a peer: control characters become spaces, so that it can
    /// stand in a header or a log line, and it is cut at [`Self::CHARS_MAX`].
    pub fn from_peer(text: &str) -> Self {
        let clean: String = text
            .chars()
            .take(Self::CHARS_MAX)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        Self(clean.into())
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_is_a_total_order_with_halt_on_top() {
        let mut sorted = Verdict::ALL;
        sorted.sort();
        assert_eq!(sorted, Verdict::ALL);
        assert_eq!(Verdict::ALL.iter().max(), Some(&Verdict::Halt));
    }

    #[test]
    fn a_reason_cannot_carry_a_line_end() {
        let reason = Reason::from_peer("no\r\nset-cookie: a");
        assert_eq!(reason.to_string(), "no  set-cookie: a");
    }
}
