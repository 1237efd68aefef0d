//! What calls of gRPC are made of, as both ends know it: one message that is sent, and how often it comes back.

use http::HeaderMap;

use crate::content;

/// The type of what is sent either way.
pub(crate) const CONTENT: &str = "application/grpc";
/// Name of the trailer that says how a call ended; 0 is well.
pub(crate) const STATUS: &str = "grpc-status";
/// Name of the trailer that says so in words.
pub(crate) const MESSAGE: &str = "grpc-message";

/// Text in a message, bytes: its only field. With it a frame stays below 256 bytes, and the `h2` crate then writes many
/// at once, as servers of gRPC do; each larger one would be a TLS record and a system call of its own.
const TEXT_BYTES: u16 = 200;
/// Messages that answer a call of [`Call::Stream`].
const STREAMED: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Answered with the message.
    Unary,
    /// Answered with the message, many times.
    Stream,
}

impl Call {
    pub(crate) const ALL: [Self; 2] = [Self::Unary, Self::Stream];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Unary => "/bench.Echo/Unary",
            Self::Stream => "/bench.Echo/Stream",
        }
    }

    /// Messages of the answer.
    pub(crate) fn messages(self) -> usize {
        match self {
            Self::Unary => 1,
            Self::Stream => STREAMED,
        }
    }
}

/// The message with its prefix: not compressed, its length, field 1 as a string.
pub(crate) fn message() -> Vec<u8> {
    let [high, low] = TEXT_BYTES.to_be_bytes();
    // The varint of a number between 128 and 16,383.
    let varint = [0x80 | low & 0x7f, high << 1 | low >> 7];
    let text = content::text(usize::from(TEXT_BYTES));
    let field = [&[0x0a], &varint[..], &text].concat();
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &field].concat()
}

/// Whether a call ended well.
pub(crate) fn succeeded(trailers: Option<&HeaderMap>) -> Result<(), String> {
    let trailers = trailers.ok_or("no trailers")?;
    match trailers.get(STATUS) {
        Some(status) if status == "0" => Ok(()),
        status => Err(format!(
            "grpc-status {status:?}, {:?}",
            trailers.get(MESSAGE)
        )),
    }
}
