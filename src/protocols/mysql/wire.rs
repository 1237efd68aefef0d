//! Packets as bytes: headers, integers of their own lengths, and what reads them
//! without looking behind their end.
//!
//! A packet of 16 MiB or more comes in frames; every frame but the last is full.

use std::fmt;

use bytes::Bytes;

/// What stands in front of each frame: its length and its number.
pub(super) const HEADER_BYTES: usize = 4;
/// The length of a full frame, bytes: another one follows.
pub(super) const FULL_BYTES: usize = 0xff_ffff;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Of what follows it, bytes.
    pub(super) length: usize,
    pub(super) sequence: u8,
}

impl Header {
    /// That of the frame at the beginning of `input`, once it is there.
    pub(super) fn of(input: &[u8]) -> Option<Self> {
        let [a, b, c, sequence] = *input.first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_le_bytes([a, b, c, 0]);
        Some(Self {
            length: usize::try_from(length).ok()?,
            sequence,
        })
    }

    /// Whether another frame of the same packet follows.
    pub(super) fn is_full(self) -> bool {
        self.length == FULL_BYTES
    }

    /// With its header, bytes.
    pub(super) fn whole(self) -> usize {
        self.length.saturating_add(HEADER_BYTES)
    }
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WireError {
    /// A frame with another number than the one that is next.
    OutOfOrder { expected: u8, found: u8 },
    /// This is not what it should be.
    Malformed(&'static str),
    /// This is longer than is read.
    TooLong(&'static str),
    /// The server said this at a time when it has nothing to say.
    Unexpected(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder { expected, found } => write!(
                f,
                "packet number {found} came where {expected} is next: this is not MySQL's protocol, or packets were lost"
            ),
            Self::Malformed(what) => write!(f, "{what} is malformed"),
            Self::TooLong(what) => write!(f, "{what} is longer than is read"),
            Self::Unexpected(what) => write!(f, "the server sent {what} unasked"),
        }
    }
}

/// `body`, shorter than a full frame, as a packet.
pub(super) fn packet(sequence: u8, body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let [a, b, c, _] = length.to_le_bytes();
    [&[a, b, c, sequence], body].concat().into()
}

/// Reads a body from its beginning; `None` behind its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An integer whose first byte says how long it is. `None` for the two first
    /// bytes that are none, too.
    pub(super) fn integer(&mut self) -> Option<u64> {
        match self.u8()? {
            small @ ..=0xfa => Some(small.into()),
            0xfc => self.u16().map(u64::from),
            0xfd => {
                let [a, b, c] = self.array()?;
                Some(u32::from_le_bytes([a, b, c, 0]).into())
            }
            0xfe => self.u64(),
            0xfb | 0xff => None,
        }
    }

    /// Bytes behind their number.
    pub(super) fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.integer()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// Bytes up to a NUL, which is taken, too.
    pub(super) fn until_nul(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let taken = self.take(end)?;
        self.u8()?;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn my_22_a_full_frame_is_told_from_the_last() {
        let header = |bytes: &[u8]| Header::of(bytes);
        assert_eq!(header(&[1, 0, 0]), None);
        let small = header(&[1, 2, 0, 7]).unwrap();
        assert_eq!(
            (small.length, small.sequence, small.is_full()),
            (513, 7, false)
        );
        assert!(header(&[255, 255, 255, 0]).unwrap().is_full());
        assert_eq!(&packet(3, b"ab")[..], b"\x02\0\0\x03ab");
    }

    #[test]
    fn integers_and_bytes_are_never_read_behind_the_end() {
        for (body, expected) in [
            (&[0xfa][..], Some(0xfa)),
            (&[0xfb], None),
            (&[0xfc, 1, 2], Some(0x201)),
            (&[0xfc, 1], None),
            (&[0xfd, 1, 2, 3], Some(0x3_0201)),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0, 0], Some(1)),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0], None),
            (&[0xff], None),
            (&[], None),
        ] {
            assert_eq!(Cursor::new(body).integer(), expected, "{body:?}");
        }
        assert_eq!(
            Cursor::new(&[2, b'a', b'b', b'c']).counted(),
            Some(&b"ab"[..])
        );
        assert_eq!(Cursor::new(&[3, b'a', b'b']).counted(), None);
        assert_eq!(Cursor::new(b"ab\0c").until_nul(), Some(&b"ab"[..]));
        assert_eq!(Cursor::new(b"ab").until_nul(), None);
    }
}
