//! What the server owes an answer to, in the order in which it answers.

use super::super::refuse::Poison;
use super::super::statement::{Named, Text};
use super::running::Running;

/// An answer that the server owes, or will skip.
#[derive(Debug)]
pub(super) enum Owed {
    Parse(Box<[u8]>, Text),
    Bind(Box<[u8]>, Portal),
    Close(u8, Box<[u8]>),
    Describe,
    Execute(Box<[u8]>, Executing),
    Sync,
    Query(Option<Running>),
    Call(Option<Running>),
}

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all of them run; a box each would cost an allocation per statement"
)]
pub(super) enum Executing {
    Running(Running),
    /// An empty text: nothing was asked, nothing runs.
    Nothing,
    Poisoned(Box<Poison>),
}

#[derive(Debug)]
pub(super) struct Portal {
    pub(super) text: Text,
    pub(super) digest: Option<[u8; 32]>,
    /// Admitted at `Bind` already, or stopped at its row limit.
    pub(super) running: Option<Running>,
    /// No more rows may come of it; or how many, is known once those under way
    /// have come.
    pub(super) spent: bool,
}

impl Named for Portal {
    fn text(&self) -> &Text {
        &self.text
    }
}

impl Owed {
    /// Whether `ReadyForQuery` answers it.
    pub(super) fn ends_batch(&self) -> bool {
        match self {
            Self::Sync | Self::Query(_) | Self::Call(_) => true,
            Self::Parse(..)
            | Self::Bind(..)
            | Self::Close(..)
            | Self::Describe
            | Self::Execute(..) => false,
        }
    }

    pub(super) fn into_running(self) -> Option<Running> {
        match self {
            Self::Query(running) | Self::Call(running) => running,
            Self::Execute(_, Executing::Running(running)) => Some(running),
            Self::Bind(_, portal) => portal.running,
            Self::Execute(_, Executing::Nothing | Executing::Poisoned(_))
            | Self::Parse(..)
            | Self::Close(..)
            | Self::Describe
            | Self::Sync => None,
        }
    }
}
