//! The nouns: what an agent wants to do, whose it is, and what may be answered.
//!
//! No I/O, no async, no serialization, no clock, no randomness: wire shapes
//! belong to whoever speaks that wire, and identifiers arrive from outside.

pub mod action;
pub mod capture;
pub mod completion;
pub mod context;
pub mod event;
pub mod headers;
pub mod id;
pub mod operation;
pub mod process;
pub mod refusal;
pub mod timestamp;
pub mod verdict;

pub use action::{
    Action, DatabaseCall, FileCall, FunctionCall, HttpCall, Reported, Told, ToolCall,
};
pub use capture::{Capture, Captured, Room, Trailers};
pub use completion::{
    Answer, Completion, DatabaseAnswer, FileAnswer, FunctionAnswer, HttpAnswer, Outcome,
};
pub use context::{ActivityRef, Attribution, Context};
pub use event::{Event, EventKind, JsonText};
pub use headers::Headers;
pub use id::{Fingerprint, OperationId, SpanId, TraceId};
pub use operation::{Operation, Protocol, Stage};
pub use process::Process;
pub use refusal::Refusal;
pub use timestamp::Timestamp;
pub use verdict::{ApprovalId, Reason, Verdict};
