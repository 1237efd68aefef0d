//! Names of operations, spans and actions.

use std::fmt;

/// Names one operation for its whole life, from asking to completion. Laid out
/// as a UUID of version 7 (RFC 9562 §5.7), so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(u128);

impl OperationId {
    /// `unix_ms` is cut to 48 bits; `random` fills what the layout leaves free.
    pub fn new(unix_ms: u64, random: u128) -> Self {
        const RANDOM: u128 = (0x0fff_u128 << 64) | 0x3fff_ffff_ffff_ffff;
        const VERSION_AND_VARIANT: u128 = (0x7000_u128 << 64) | (0x8000_u128 << 48);
        let time = (u128::from(unix_ms) & 0xffff_ffff_ffff) << 80;
        Self(time | (random & RANDOM) | VERSION_AND_VARIANT)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: every record of the journal has one, and five numbers with
        // their padding take as long as the rest of its line.
        let mut text = [b'-'; 36];
        let bytes = self.0.to_be_bytes().into_iter();
        let mut digits = bytes.flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
        for (at, place) in text.iter_mut().enumerate() {
            if !matches!(at, 8 | 13 | 18 | 23) {
                *place = digits.next().unwrap_or(b'0');
            }
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0'.saturating_add(nibble),
        _ => b'a'.saturating_add(nibble).saturating_sub(10),
    }
}

/// W3C Trace Context trace id: 32 lowercase hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// W3C Trace Context parent (span) id: 16 lowercase hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub u64);

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What makes two operations the same operation tried again: a digest of the
/// run, the action and its whole body. Shown as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_id_is_a_uuid_of_version_7() {
        let id = OperationId::new(0x0192_3456_789a, u128::MAX).to_string();
        assert_eq!(id, "01923456-789a-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn later_operations_sort_later_whatever_their_random_part() {
        assert!(OperationId::new(1, u128::MAX) < OperationId::new(2, 0));
    }
}
