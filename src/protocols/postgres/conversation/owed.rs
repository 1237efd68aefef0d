//! What the server owes an answer to, in the order in which it answers.

use super::super::refuse::Poison;
use super::super::statement::{Named, Text};
use super::running::Running;

/// An answer that the server owes, or will skip.
#[derive(Debug)]
pub(super) enum Owed {
    Parse(Box<[u8]>, Prepared),
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

/// A statement that was prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) text: Text,
    /// Its first execution was admitted at `Parse` already.
    pub(super) running: Option<Box<Running>>,
}

impl Prepared {
    pub(super) fn of(text: Text) -> Self {
        Self {
            text,
            running: None,
        }
    }
}

impl Named for Prepared {
    fn text(&self) -> &Text {
        &self.text
    }
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
    /// It outlives its transaction.
    pub(super) lasts: bool,
}

impl Portal {
    /// One that is opened by its text's `Bind`.
    pub(super) fn bound(text: Text, digest: Option<[u8; 32]>, running: Option<Running>) -> Self {
        Self {
            text,
            digest,
            running,
            spent: false,
            lasts: false,
        }
    }

    /// Whether policy left its rows a limit.
    pub(super) fn is_limited(&self) -> bool {
        let running = self.running.as_ref();
        self.spent || running.is_some_and(|running| running.limit.is_some())
    }

    /// A cursor of SQL.
    pub(super) fn declared(text: Text, lasts: bool) -> Self {
        Self {
            lasts,
            ..Self::bound(text, None, None)
        }
    }
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

    /// Whether it may change what stands behind names.
    pub(super) fn changes_names(&self) -> bool {
        match self {
            Self::Query(Some(running)) | Self::Execute(_, Executing::Running(running)) => {
                running.changes.is_some()
            }
            Self::Query(None)
            | Self::Execute(..)
            | Self::Parse(..)
            | Self::Bind(..)
            | Self::Close(..)
            | Self::Describe
            | Self::Call(_)
            | Self::Sync => false,
        }
    }

    /// The execution that was admitted with it.
    pub(super) fn running_mut(&mut self) -> Option<&mut Running> {
        match self {
            Self::Query(running) | Self::Call(running) => running.as_mut(),
            Self::Execute(_, Executing::Running(running)) => Some(running),
            Self::Bind(_, portal) => portal.running.as_mut(),
            Self::Parse(_, prepared) => prepared.running.as_deref_mut(),
            Self::Execute(_, Executing::Nothing | Executing::Poisoned(_))
            | Self::Close(..)
            | Self::Describe
            | Self::Sync => None,
        }
    }

    pub(super) fn into_running(self) -> Option<Running> {
        match self {
            Self::Query(running) | Self::Call(running) => running,
            Self::Execute(_, Executing::Running(running)) => Some(running),
            Self::Bind(_, portal) => portal.running,
            Self::Parse(_, prepared) => prepared.running.map(|running| *running),
            Self::Execute(_, Executing::Nothing | Executing::Poisoned(_))
            | Self::Close(..)
            | Self::Describe
            | Self::Sync => None,
        }
    }
}
