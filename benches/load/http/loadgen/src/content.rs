//! What is asked for and answered over HTTP/1.1 and HTTP/2, as both ends know it.

use clap::ValueEnum;

/// Answered with the small body. What stands below it is, too.
pub(crate) const SMALL_PATH: &str = "/resource";
/// Answered with the large body; what is posted to it must be that.
const LARGE_PATH: &str = "/large";

pub(crate) const SMALL_BYTES: usize = 1024;
const LARGE_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Content {
    /// A GET that is answered with 1 KiB
    Small,
    /// A GET that is answered with 64 KiB
    Large,
    /// A POST of 64 KiB that is answered in a line
    PostLarge,
}

impl Content {
    /// The whole request, given what stands before the path and after it, without the empty line.
    pub(crate) fn request(self, prefix: &str, after: &str) -> Vec<u8> {
        match self {
            Self::Small => format!("GET {prefix}{SMALL_PATH}{after}\r\n").into_bytes(),
            Self::Large => format!("GET {prefix}{LARGE_PATH}{after}\r\n").into_bytes(),
            Self::PostLarge => {
                let head = format!(
                    "POST {prefix}{LARGE_PATH}{after}Content-Type: text/plain\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"
                );
                [head.into_bytes(), text(LARGE_BYTES)].concat()
            }
        }
    }

    /// The body of the answer.
    pub(crate) fn answer(self) -> Vec<u8> {
        match self {
            Self::Small => text(SMALL_BYTES),
            Self::Large => text(LARGE_BYTES),
            Self::PostLarge => format!("received {LARGE_BYTES} bytes\n").into_bytes(),
        }
    }

    /// What a request is, by its first line.
    pub(crate) fn asked(line: &[u8]) -> Self {
        let target = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        match (target.ends_with(LARGE_PATH.as_bytes()), line) {
            (true, [b'P', b'O', b'S', b'T', b' ', ..]) => Self::PostLarge,
            (true, _) => Self::Large,
            (false, _) => Self::Small,
        }
    }
}

/// What is posted with [`Content::PostLarge`].
pub(crate) fn posted() -> Vec<u8> {
    text(LARGE_BYTES)
}

/// As many bytes of text, in lines.
pub(crate) fn text(bytes: usize) -> Vec<u8> {
    b"the quick brown fox jumps over the lazy dog 0123456789 abcdefgh\n"
        .iter()
        .copied()
        .cycle()
        .take(bytes)
        .collect()
}
