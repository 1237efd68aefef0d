//! Wall-clock time and random identifiers, the two things the domain must not fetch itself.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::{OperationId, SpanId, Timestamp, TraceId};

/// Now. A clock before 1970 reads as the epoch.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A fresh id for an operation or event that begins at `at`.
pub fn operation_id(at: Timestamp) -> OperationId {
    OperationId::new(at.unix_ms(), rand::random())
}

/// A fresh trace id, never zero (W3C Trace Context §3.2.2.3).
pub fn trace_id() -> TraceId {
    TraceId(rand::random::<u128>() | 1)
}

/// A fresh span id, never zero (W3C Trace Context §3.2.2.4).
pub fn span_id() -> SpanId {
    SpanId(rand::random::<u64>() | 1)
}

/// An unguessable name: `prefix` and 128 random bits as hex.
pub fn secret_name(prefix: &str) -> String {
    format!("{prefix}{:032x}", rand::random::<u128>())
}
