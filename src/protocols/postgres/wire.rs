//! Bytes to messages and back. Knows lengths and tags, nothing about order.

use std::fmt;

use bytes::Bytes;

use crate::metrics::Unaccepted;

/// How much of the text of an error is kept, characters.
pub(super) const TEXT_CHARS_MAX: usize = 500;
/// Tag and length of a message, bytes.
pub(super) const HEAD: usize = 5;

/// Why a peer's bytes cannot be understood. Always ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireError {
    /// A field runs past the end of its message, or bytes remain behind the last.
    Malformed(&'static str),
    /// A message announces more bytes than it may have.
    TooLong(&'static str),
    /// A message that has no place here.
    Unexpected(&'static str, u8),
    /// A client binds its login to a channel that is not the server's.
    ForeignChannel,
}

impl WireError {
    /// The SQLSTATE that says so.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::TooLong(_) | Self::Unexpected(..) => "08P01",
            Self::ForeignChannel => "28000",
        }
    }

    /// Whose fault it is, before there is a session.
    pub(super) fn cause(self) -> Unaccepted {
        match self {
            Self::Unexpected("server", _) | Self::TooLong("a login message") => Unaccepted::Foreign,
            Self::Malformed("a message of the server") => Unaccepted::Foreign,
            Self::TooLong(_) => Unaccepted::TooLarge,
            Self::Malformed(_) | Self::Unexpected(..) => Unaccepted::Malformed,
            Self::ForeignChannel => Unaccepted::Credentials,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "{what} cannot be read"),
            Self::TooLong(what) => write!(f, "{what} is too long"),
            Self::Unexpected(who, tag) => write!(
                f,
                "the {who} sent a message of type {:?} where none is expected",
                char::from(*tag)
            ),
            Self::ForeignChannel => f.write_str(
                "SCRAM with channel binding cannot pass the sidecar, whose certificate is not the server's: \
                 connect with channel_binding=disable, or give the sidecar the server's certificate and key (postgres.agent_sslcert)",
            ),
        }
    }
}

/// Tag and length of the body of the message that begins `input`; `None` until
/// both are there.
pub(super) fn head(input: &[u8], what: &'static str) -> Result<Option<(u8, usize)>, WireError> {
    let Some((head, _)) = input.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let [tag, a, b, c, d] = *head;
    let length = i32::from_be_bytes([a, b, c, d]);
    let body = length
        .checked_sub(4)
        .and_then(|body| usize::try_from(body).ok());
    body.map(|body| Some((tag, body)))
        .ok_or(WireError::Malformed(what))
}

/// A cursor over one message's body. It cannot see the next one.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// `what` names the message, for errors.
    pub(super) fn new(body: &'a [u8], what: &'static str) -> Self {
        Self { rest: body, what }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Malformed(self.what))?;
        self.rest = rest;
        Ok(*head)
    }

    /// Bytes up to the next NUL, without it.
    pub(super) fn text(&mut self) -> Result<&'a [u8], WireError> {
        let end = memchr::memchr(0, self.rest).ok_or(WireError::Malformed(self.what))?;
        let (text, tail) = self.rest.split_at(end);
        self.rest = tail.get(1..).unwrap_or_default();
        Ok(text)
    }

    /// A name: bytes up to the next NUL, as a key.
    pub(super) fn name(&mut self) -> Result<Box<[u8]>, WireError> {
        self.text().map(Into::into)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Ends the message: two parsers that disagree about where it ends can be
    /// made to disagree about what it says.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Malformed(self.what))
        }
    }
}

/// A message of these parts.
pub(super) fn message(tag: u8, parts: &[&[u8]]) -> Bytes {
    let body = parts.concat();
    // Our own messages are short; saturating keeps the arithmetic total.
    let length = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
    [&[tag][..], &length.to_be_bytes(), &body].concat().into()
}

/// The fields of an error or notice that matter, as far as `body` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) fatal: bool,
    pub(super) code: String,
    pub(super) text: String,
}

impl Fields {
    pub(super) fn of(body: &[u8]) -> Self {
        let mut fields = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else {
                break;
            };
            let text = String::from_utf8_lossy(text);
            match kind {
                b'V' => fields.fatal = matches!(&*text, "FATAL" | "PANIC"),
                b'C' => fields.code = text.chars().take(5).collect(),
                b'M' => fields.text = text.chars().take(TEXT_CHARS_MAX).collect(),
                _ => {}
            }
        }
        fields
    }
}

/// Rows that a `CommandComplete` counts: `INSERT 0 5`, `SELECT 3`.
pub(super) fn rows(tag: &[u8]) -> Option<u64> {
    let tag = std::str::from_utf8(tag).ok()?.trim_end_matches('\0');
    tag.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_no_message_has_is_an_error_and_a_part_is_none() {
        for (bytes, expected) in [
            (&b"Q\0\0\0"[..], Ok(None)),
            (b"Q\0\0\0\x04", Ok(Some((b'Q', 0)))),
            (b"Q\x7f\xff\xff\xff", Ok(Some((b'Q', 0x7fff_fffb)))),
            (b"Q\0\0\0\x03", Err(WireError::Malformed("x"))),
            (b"Q\xff\xff\xff\xff", Err(WireError::Malformed("x"))),
        ] {
            assert_eq!(head(bytes, "x"), expected, "{bytes:?}");
        }
    }

    #[test]
    fn rows_are_counted_where_the_server_counts_them() {
        for (tag, expected) in [
            (&b"INSERT 0 5\0"[..], Some(5)),
            (b"SELECT 3\0", Some(3)),
            (b"COPY 7\0", Some(7)),
            (b"CREATE TABLE\0", None),
            (b"BEGIN\0", None),
        ] {
            assert_eq!(rows(tag), expected, "{tag:?}");
        }
    }
}
