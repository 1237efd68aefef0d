//! What was seen of a body.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A body as far as it was looked at. The text is what policy may read; the
/// rest says how much of the truth that text is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Capture {
    /// The captured text; absent for bodies that are not text.
    pub text: Option<String>,
    /// Bytes of the body seen so far, captured or not.
    pub bytes: u64,
    /// SHA-256 of the whole body, where all of it is here and the text is not all of it.
    pub digest: Option<[u8; 32]>,
    /// How much of the body `text` is.
    pub state: Captured,
    /// The fields behind it, where they were here with all of it.
    pub trailers: Option<Box<Trailers>>,
    /// What `text` takes.
    pub room: Room,
}

/// The fields behind a body (RFC 9110 §6.5). They stand apart from those before it, so that
/// they add nothing to what a policy reads there, and take nothing from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailers {
    /// Redacted as header fields are: `name: value`, a line each.
    pub text: Box<str>,
    /// SHA-256 of them as they came.
    pub digest: [u8; 32],
}

/// Room that something in memory takes, until the last that shares it is dropped. Whoever
/// counts room keeps its own receipt in it.
#[derive(Clone, Default)]
pub struct Room(Option<Arc<dyn Any + Send + Sync>>);

impl Room {
    /// Room that comes back when `receipt` is dropped.
    pub fn of(receipt: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(receipt)))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Taken" } else { "None" })
    }
}

/// Where something is kept makes it nothing else.
impl PartialEq for Room {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Room {}

/// How much of a body was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Captured {
    /// There is no body.
    #[default]
    Empty,
    /// All of it, as text.
    Whole,
    /// All of it was seen and its digest taken, but it is not text.
    WholeBinary,
    /// Its beginning: the cap or a deadline came first.
    Partial,
    /// None of it: not text, or capture is off.
    Skipped,
}

impl Captured {
    /// Whether every byte of the body is known to whoever judges it or
    /// remembers it.
    pub fn is_whole(self) -> bool {
        match self {
            Self::Empty | Self::Whole | Self::WholeBinary => true,
            Self::Partial | Self::Skipped => false,
        }
    }

    /// The word of the journal and of policy input.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Whole => "whole",
            Self::WholeBinary => "binary",
            Self::Partial => "partial",
            Self::Skipped => "skipped",
        }
    }
}
