//! The head of a WebSocket frame (RFC 6455 §5.2), read strictly: what two readers
//! could take for different frames is no frame.

use super::super::body::length as length_of;

/// Longest payload of a control frame, bytes (RFC 6455 §5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// Who sends a frame: a client masks all of its frames, a server none (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    fn of(opcode: u8) -> Result<Self, Wrong> {
        match opcode {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            _ => Err(Wrong("a frame of a kind that nobody has defined")),
        }
    }

    pub(super) fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// Whether it is the last of its message.
    pub(super) last: bool,
    /// What its payload is masked with, if it is.
    pub(super) mask: Option<[u8; 4]>,
    /// Bytes of its payload.
    pub(super) length: u64,
    /// Bytes of the head itself.
    pub(super) head_bytes: usize,
}

/// Why bytes are no frame, in words for who sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) &'static str);

impl Head {
    /// Reads the head at the beginning of `bytes`; `None` while it is not all there.
    ///
    /// # Errors
    /// The bytes are no frame that `from` may send where no extension was agreed on.
    pub(super) fn read(bytes: &[u8], from: Side) -> Result<Option<Self>, Wrong> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Wrong(
                "a reserved bit is set, and no extension was agreed on",
            ));
        }
        let kind = Kind::of(first & 0x0f)?;
        let last = first & 0x80 != 0;
        let masked = second & 0x80 != 0;
        if masked != (from == Side::Client) {
            return Err(Wrong(match from {
                Side::Client => "a frame of a client that is not masked",
                Side::Server => "a frame of a server that is masked",
            }));
        }
        let short = second & 0x7f;
        if kind.is_control() && !(last && usize::from(short) <= CONTROL_BYTES_MAX) {
            return Err(Wrong("a control frame in pieces, or over 125 bytes"));
        }
        let Some((length, rest)) = length(short, rest)? else {
            return Ok(None);
        };
        let (mask, rest) = match (masked, rest) {
            (false, rest) => (None, rest),
            (true, [a, b, c, d, rest @ ..]) => (Some([*a, *b, *c, *d]), rest),
            (true, _) => return Ok(None),
        };
        Ok(Some(Self {
            kind,
            last,
            mask,
            length,
            head_bytes: bytes.len().saturating_sub(rest.len()),
        }))
    }
}

/// The length that `short` announces, in its only form, and what follows it.
fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Wrong> {
    let (length, least, rest) = match (short, rest) {
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 126, rest),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (length, 1 << 16, rest)
        }
        (126 | 127, _) => return Ok(None),
        (short, rest) => (u64::from(short), 0, rest),
    };
    if length < least || length >> 63 != 0 {
        return Err(Wrong(
            "a length that is not in its shortest form, or over 2^63",
        ));
    }
    Ok(Some((length, rest)))
}

/// Takes the mask off `payload`, of which `before` bytes came earlier (§5.3).
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4], before: u64) {
    let mut mask = mask;
    mask.rotate_left(usize::try_from(before % 4).unwrap_or_default());
    let [a, b, c, d] = mask;
    // Eight at a time: messages may be large.
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    // At most seven are left, and the mask has four.
    for (byte, mask) in tail.iter_mut().skip(4).zip(mask) {
        *byte ^= mask;
    }
}

/// A text message of `from` in one frame (§5.6). One of a client is masked with `mask`.
pub(super) fn text(from: Side, says: &str, mask: [u8; 4]) -> Vec<u8> {
    framed(from, 0x81, says.as_bytes().to_vec(), mask)
}

/// A Close frame of `from` (§5.5.1), its reason cut to what fits. One of a client
/// is masked with `mask`.
pub(super) fn close(from: Side, code: u16, reason: &str, mask: [u8; 4]) -> Vec<u8> {
    let fits = CONTROL_BYTES_MAX.saturating_sub(2);
    let reason = reason
        .get(..reason.floor_char_boundary(fits))
        .unwrap_or_default();
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    framed(from, 0x88, payload, mask)
}

/// A frame of `from` that begins with the byte `first`, its length in its shortest form (§5.2).
fn framed(from: Side, first: u8, mut payload: Vec<u8>, mask: [u8; 4]) -> Vec<u8> {
    let bit = match from {
        Side::Client => 0x80,
        Side::Server => 0,
    };
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => frame.push(bit | short),
        (_, Ok(medium)) => {
            frame.push(bit | 126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            frame.push(bit | 127);
            frame.extend_from_slice(&length_of(&payload).to_be_bytes());
        }
    }
    match from {
        Side::Server => {}
        Side::Client => {
            frame.extend_from_slice(&mask);
            unmask(&mut payload, mask, 0);
        }
    }
    frame.extend_from_slice(&payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], from: Side) -> Result<Option<Head>, Wrong> {
        Head::read(bytes, from)
    }

    #[test]
    fn frames_of_the_specification_are_read() {
        // RFC 6455 §5.7.
        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let head = read(&masked, Side::Client).unwrap().unwrap();
        assert_eq!(
            (head.kind, head.last, head.length, head.head_bytes),
            (Kind::Text, true, 5, 6)
        );
        let mut payload = masked[head.head_bytes..].to_vec();
        unmask(&mut payload, head.mask.unwrap(), 0);
        assert_eq!(payload, b"Hello");
        let first = read(&[0x01, 0x03, 0x48, 0x65, 0x6c], Side::Server)
            .unwrap()
            .unwrap();
        assert_eq!(
            (first.kind, first.last, first.length),
            (Kind::Text, false, 3)
        );
        let medium = read(&[0x82, 0x7e, 0x01, 0x00], Side::Server)
            .unwrap()
            .unwrap();
        assert_eq!(
            (medium.kind, medium.length, medium.head_bytes),
            (Kind::Binary, 256, 4)
        );
        let large = [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(read(&large, Side::Server).unwrap().unwrap().length, 65_536);
    }

    #[test]
    fn a_head_that_is_not_all_there_waits_and_is_never_misread() {
        let heads: [&[u8]; 4] = [
            &[0x81, 0x85, 1, 2, 3, 4],
            &[0x82, 0xfe, 1, 0, 1, 2, 3, 4],
            &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
            &[0x88, 0x80, 1, 2, 3, 4],
        ];
        for head in heads {
            for cut in 0..head.len() {
                assert_eq!(
                    read(&head[..cut], Side::Client),
                    Ok(None),
                    "{cut} of {head:?}"
                );
            }
            let read = read(head, Side::Client).unwrap().unwrap();
            assert_eq!(read.head_bytes, head.len());
        }
    }

    #[test]
    fn what_two_readers_could_take_differently_is_no_frame() {
        #[rustfmt::skip]
        let table: [(&[u8], Side); 11] = [
            (&[0xc1, 0x00],                            Side::Server), // RSV1: compression
            (&[0xa1, 0x00],                            Side::Server), // RSV2
            (&[0x91, 0x00],                            Side::Server), // RSV3
            (&[0x83, 0x00],                            Side::Server), // data of an unknown kind
            (&[0x8b, 0x00],                            Side::Server), // control of an unknown kind
            (&[0x81, 0x01, b'a'],                      Side::Client), // not masked
            (&[0x81, 0x81, 1, 2, 3, 4, 5],             Side::Server), // masked
            (&[0x09, 0x00],                            Side::Server), // a ping in pieces
            (&[0x89, 0x7e, 0, 126],                    Side::Server), // a ping over 125 bytes
            (&[0x82, 0x7e, 0, 125],                    Side::Server), // 125 in two bytes
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 255, 255], Side::Server), // 65,535 in eight
        ];
        for (bytes, from) in table {
            assert!(read(bytes, from).is_err(), "{bytes:x?}");
        }
        let endless = [0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert!(read(&endless, Side::Server).is_err());
    }

    #[test]
    fn a_mask_comes_off_wherever_the_payload_was_cut() {
        let mask = [1, 2, 3, 4];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain
            .iter()
            .zip(mask.iter().cycle())
            .map(|(p, m)| p ^ m)
            .collect();
        for cut in 0..plain.len() {
            let (mut one, mut two) = (masked[..cut].to_vec(), masked[cut..].to_vec());
            unmask(&mut one, mask, 0);
            unmask(&mut two, mask, cut as u64);
            assert_eq!([one, two].concat(), plain, "{cut}");
        }
    }

    #[test]
    fn a_text_is_read_as_it_was_written_whatever_its_length() {
        for from in [Side::Client, Side::Server] {
            for bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
                let says = "x".repeat(bytes);
                let mut frame = text(from, &says, [9, 8, 7, 6]);
                let head = read(&frame, from).unwrap().unwrap();
                assert_eq!(
                    (head.kind, head.last, head.length),
                    (Kind::Text, true, bytes as u64),
                    "{from:?}"
                );
                let payload = &mut frame[head.head_bytes..];
                unmask(payload, head.mask.unwrap_or_default(), 0);
                assert_eq!(payload, says.as_bytes(), "{from:?} {bytes}");
            }
        }
    }

    #[test]
    fn a_close_says_as_much_as_fits() {
        let reason = "ä".repeat(100);
        let said = close(Side::Server, 1008, &reason, [0; 4]);
        assert_eq!(said[..4], [0x88, 124, 0x03, 0xf0]);
        assert_eq!(std::str::from_utf8(&said[4..]).unwrap(), "ä".repeat(61));
        let mut masked = close(Side::Client, 1000, "bye", [9, 8, 7, 6]);
        let head = read(&masked, Side::Client).unwrap().unwrap();
        unmask(&mut masked[head.head_bytes..], head.mask.unwrap(), 0);
        assert_eq!(masked[head.head_bytes..], *b"\x03\xe8bye");
    }
}
