//! SCRAM with channel binding, where each side of us has a channel of its own.
//!
//! A client binds its proof to the certificate that it sees. In clear it sees
//! none, and a server that offers binding on its own TLS would be believed to
//! be attacked: so what it offers with binding is left out. Inside TLS nothing
//! is left out: it works where we show the server's own certificate, and where
//! the client does without (`channel_binding=disable`, and drivers that know
//! nothing of it). Where neither is so, the server would call it an attack, or
//! a client whose offer was shortened would; so the client is told before.

use bytes::Bytes;

use super::wire::{Cursor, message};

/// Longest authentication request that is read for its mechanisms, bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// `AuthenticationSASL`.
const SASL: u32 = 10;
/// How mechanisms with channel binding end.
const PLUS: &[u8] = b"-PLUS";

/// What the two sides see of each other's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    /// The same: neither has any, only the client has, or both have one under
    /// one certificate.
    Same,
    /// The server has one, and the client none.
    NoneHere,
    /// Each has its own.
    Differ,
}

/// Whether a client's first answer binds it to the channel that it sees, or
/// says that it would: to be told apart from one that knows of no binding.
pub(super) fn binds(answer: &[u8]) -> bool {
    let mut cursor = Cursor::new(answer, "an authentication message");
    let (Ok(mechanism), Ok([_, _, _, _])) = (cursor.text(), cursor.array()) else {
        return false;
    };
    mechanism.ends_with(PLUS) || cursor.rest().starts_with(b"y,")
}

/// What stands for the authentication request of `body`, where it offers
/// mechanisms with channel binding and others.
pub(super) fn without(body: &[u8]) -> Option<Bytes> {
    if body.len() > REQUEST_BYTES_MAX {
        return None;
    }
    let mut cursor = Cursor::new(body, "an authentication request");
    if u32::from_be_bytes(cursor.array().ok()?) != SASL {
        return None;
    }
    let (mut kept, mut dropped) = (Vec::new(), false);
    loop {
        let mechanism = cursor.text().ok()?;
        if mechanism.is_empty() {
            break;
        }
        if mechanism.ends_with(PLUS) {
            dropped = true;
        } else {
            kept.extend_from_slice(mechanism);
            kept.push(0);
        }
    }
    cursor.finish().ok()?;
    (dropped && !kept.is_empty()).then(|| message(b'R', &[&SASL.to_be_bytes(), &kept, b"\0"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_7_a_client_that_binds_is_told_from_one_that_does_not() {
        for (answer, expected) in [
            (&b"SCRAM-SHA-256-PLUS\0\0\0\0\x05p=x,,"[..], true),
            (b"SCRAM-SHA-256\0\0\0\0\x05y,,n=", true),
            (b"SCRAM-SHA-256\0\0\0\0\x05n,,n=", false),
            (b"a password, which ends with -PLUS\0", false),
            (b"-PLUS", false),
            (b"", false),
        ] {
            assert_eq!(binds(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn pg_7_channel_binding_is_left_out_of_a_whole_offer_that_has_more() {
        for (body, expected) in [
            (
                &b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"[..],
                Some(&b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"[..]),
            ),
            (b"\0\0\0\x0aSCRAM-SHA-256\0\0", None),
            (b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0", None),
            (b"\0\0\0\x0bSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", None),
            (b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0", None),
            (b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0x", None),
            (b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA", None),
            (b"\0\0\0", None),
        ] {
            assert_eq!(without(body).as_deref(), expected, "{body:?}");
        }
    }
}
