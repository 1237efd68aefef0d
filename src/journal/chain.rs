//! How records hang together: each line ends in its number and in a SHA-256
//! over the hash before it and everything that stands in the line.
//!
//! ```text
//! {"record":"decision",…,"seq":7,"chain":"9f86…"}
//! ```

use std::io::Write;

use sha2::{Digest, Sha256};

/// A SHA-256.
pub(super) type Hash = [u8; 32];

const CHAIN: &[u8] = b",\"chain\":\"";
const SEQUENCE: &[u8] = b",\"seq\":";
const END: &[u8] = b"\"}";
const HEX_LENGTH: usize = 64;

/// Where the chain has got to: the number of the next record, and the hash of
/// the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) next: u64,
    pub(super) hash: Hash,
}

impl Link {
    /// Appends `record`, a JSON object with members, to `out` as the next line.
    pub(super) fn frame(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(record.strip_suffix(b"}").unwrap_or(record));
        out.extend_from_slice(SEQUENCE);
        // Writing to memory does not fail.
        let _infallible = write!(out, "{}", self.next);
        let hash = self.hash_with(out.get(from..).unwrap_or_default());
        out.extend_from_slice(CHAIN);
        hex_into(&hash, out);
        out.extend_from_slice(END);
        out.push(b'\n');
        *self = self.after(hash);
    }

    /// The chain after `line`, which has no line end.
    pub(super) fn follow(&self, line: &[u8]) -> Result<Self, String> {
        let (content, chain) = split(line).ok_or("it does not end in \"seq\" and \"chain\"")?;
        let number = sequence(content).ok_or("it has no \"seq\"")?;
        if number != self.next {
            return Err(format!(
                "record {} should stand here, and record {number} does",
                self.next
            ));
        }
        let hash = self.hash_with(content);
        // As text, so that a flipped bit in the text is seen too.
        if hex(&hash).as_bytes() != chain {
            return Err("its hash is not that of its content and the record before".to_owned());
        }
        Ok(self.after(hash))
    }

    fn hash_with(&self, content: &[u8]) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(self.hash);
        hasher.update(content);
        hasher.finalize().into()
    }

    fn after(&self, hash: Hash) -> Self {
        Self {
            next: self.next.saturating_add(1),
            hash,
        }
    }
}

/// What is hashed of a line, and its hash as text.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(END)?;
    let (rest, chain) = line.split_at_checked(line.len().checked_sub(HEX_LENGTH)?)?;
    Some((rest.strip_suffix(CHAIN)?, chain))
}

fn sequence(content: &[u8]) -> Option<u64> {
    let digits = content.iter().rev().take_while(|b| b.is_ascii_digit());
    let (head, digits) = content.split_at_checked(content.len().checked_sub(digits.count())?)?;
    head.strip_suffix(SEQUENCE)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The number of a framed line, without its line feed.
pub(super) fn number(line: &[u8]) -> Option<u64> {
    sequence(split(line)?.0)
}

/// Lower-case hex digits of `bytes`.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut digits = Vec::with_capacity(bytes.len().saturating_mul(2));
    hex_into(bytes, &mut digits);
    String::from_utf8(digits).unwrap_or_default()
}

/// Appends the lower-case hex digits of `bytes`: each record ends in some, and
/// no text of their own has to be made for them. Made in place and two at once: one by
/// one, with a look at the capacity before each, took more than the hash.
fn hex_into(bytes: &[u8], out: &mut Vec<u8>) {
    const LETTERS: u8 = b'a' - 10;
    let digit = |nibble: u8| nibble.wrapping_add(if nibble < 10 { b'0' } else { LETTERS });
    let from = out.len();
    out.resize(from.saturating_add(bytes.len().saturating_mul(2)), 0);
    let (space, _) = out.get_mut(from..).unwrap_or_default().as_chunks_mut::<2>();
    for (pair, byte) in space.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
}

/// What [`hex`] wrote, if it is `N` bytes.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != N.checked_mul(2)? || !text.bytes().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let at = index.checked_mul(2)?;
        *byte = u8::from_str_radix(text.get(at..at.checked_add(2)?)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_line_is_seen() {
        let start = Link {
            next: 41,
            hash: [7; 32],
        };
        let (mut link, mut line) = (start, Vec::new());
        link.frame(br#"{"record":"x"}"#, &mut line);
        let line = line.strip_suffix(b"\n").unwrap();
        assert_eq!(start.follow(line), Ok(link));
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut bad = line.to_vec();
                bad[at] ^= 1 << bit;
                assert!(start.follow(&bad).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn hex_is_read_as_it_was_written_and_in_no_other_spelling() {
        let bytes = [0, 0x0f, 0xa0, 0xff];
        assert_eq!(hex(&bytes), "000fa0ff");
        assert_eq!(unhex::<4>("000fa0ff"), Some(bytes));
        for byte in 0..=u8::MAX {
            assert_eq!(hex(&[byte]), format!("{byte:02x}"));
        }
        for bad in ["000FA0FF", "000fa0f", "000fa0ff0", "000fa0fg", ""] {
            assert_eq!(unhex::<4>(bad), None, "{bad}");
        }
    }
}
