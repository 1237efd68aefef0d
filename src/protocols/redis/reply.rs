//! Replies of RESP2 and RESP3, counted and not read: where one ends, in any
//! nesting, without recursion and without keeping what it holds.

/// Longest line that is waited for whole, bytes. One beyond it is an error
/// message of a script; its end is not read.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Longest first element of a push that is looked at, bytes.
const WORD_BYTES_MAX: i64 = 32;
/// Most elements that one reply may still owe; far more than a server has.
const ELEMENTS_MAX: u64 = 1 << 40;

/// What no server of Redis says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyError {
    /// A type that nobody knows.
    Type(u8),
    /// A length or count that is none.
    Number,
    /// More elements than a reply can have.
    Elements,
    /// One that has to be read whole, and is too long for that.
    TooLong,
    /// A bulk string is longer than it said.
    Terminator,
    /// A reply that no command asked for.
    Unasked,
}

impl std::fmt::Display for ReplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Type(found) => {
                write!(f, "a reply of type {found:#04x}, which RESP does not have")
            }
            Self::Number => f.write_str("a reply with a length that is no number"),
            Self::TooLong => {
                f.write_str("an answer about other servers that is too long to be read")
            }
            Self::Elements => f.write_str("a reply with more elements than there can be"),
            Self::Terminator => f.write_str("a bulk string without its end"),
            Self::Unasked => f.write_str("a reply that no command asked for"),
        }
    }
}

/// The line that an element begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// Its type.
    pub(super) kind: u8,
    /// The line behind the type.
    pub(super) text: &'a [u8],
    /// Bytes of the line, with type and end, or what there is of it.
    pub(super) bytes: usize,
    /// How many elements or bytes follow; `None` where none do.
    pub(super) length: Option<u64>,
    /// Whether `text` is all of it.
    pub(super) whole: bool,
}

impl Head<'_> {
    /// Whether it is an error.
    pub(super) fn is_error(&self) -> bool {
        matches!(self.kind, b'-' | b'!')
    }

    /// Whether it stands for nothing: what a transaction that did not happen
    /// is answered with.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, b'_') || matches!(self.kind, b'*' | b'$') && self.length.is_none()
    }
}

/// The head at the beginning of `input`, once it is there.
///
/// # Errors
/// What no server says.
pub(super) fn head(input: &[u8]) -> Result<Option<Head<'_>>, ReplyError> {
    let Some((kind, rest)) = input.split_first() else {
        return Ok(None);
    };
    let counts = match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => false,
        b'$' | b'*' | b'~' | b'>' | b'%' | b'|' | b'=' | b'!' => true,
        other => return Err(ReplyError::Type(*other)),
    };
    let line = rest
        .get(..rest.len().min(LINE_BYTES_MAX))
        .unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', line) else {
        return match (line.len() == LINE_BYTES_MAX, counts) {
            (false, _) => Ok(None),
            (true, true) => Err(ReplyError::Number),
            (true, false) => Ok(Some(Head {
                kind: *kind,
                text: line,
                bytes: line.len().saturating_add(1),
                length: None,
                whole: false,
            })),
        };
    };
    let text = line.get(..end).unwrap_or_default();
    let text = text.strip_suffix(b"\r").ok_or(ReplyError::Terminator)?;
    let length = match counts {
        false => None,
        true => match integer(text).ok_or(ReplyError::Number)? {
            -1 => None,
            length => Some(u64::try_from(length).map_err(|_| ReplyError::Number)?),
        },
    };
    Ok(Some(Head {
        kind: *kind,
        text,
        bytes: end.saturating_add(2),
        length,
        whole: true,
    }))
}

/// A decimal number as RESP writes it: no sign but minus, no leading zeros.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = match digits {
        [] => false,
        [b'0'] => digits.len() == text.len(),
        [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if !plain || text.len() > 20 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The word that an aggregate begins with, behind its head. `None`: not there
/// yet; empty: not a word.
///
/// # Errors
/// What no server says.
pub(super) fn first_word(input: &[u8]) -> Result<Option<&[u8]>, ReplyError> {
    let Some(head) = head(input)? else {
        return Ok(None);
    };
    match (head.kind, head.length) {
        (b'+', _) => Ok(Some(head.text)),
        (b'$', Some(length)) if i64::try_from(length).is_ok_and(|l| l <= WORD_BYTES_MAX) => {
            let end = usize::try_from(length).unwrap_or(0);
            let rest = input.get(head.bytes..).unwrap_or_default();
            Ok(rest.get(..end))
        }
        _ => Ok(Some(b"")),
    }
}

/// How much of a reply is still to come.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Elements that have not begun.
    pending: u64,
    /// Bytes of a string, with its end.
    skip: u64,
    /// In a line that is too long to be waited for.
    in_line: bool,
}

impl Scan {
    /// Expects one element.
    pub(super) fn begin(&mut self) {
        self.pending = 1;
    }

    /// Whether nothing is to come.
    pub(super) fn is_over(&self) -> bool {
        self.pending == 0 && self.skip == 0 && !self.in_line
    }

    /// Whether the element that begins next is the last, and of the outermost.
    pub(super) fn is_last(&self) -> bool {
        self.pending == 1
    }

    /// Takes in an element that begins.
    ///
    /// # Errors
    /// What no server says.
    pub(super) fn element(&mut self, head: &Head<'_>) -> Result<(), ReplyError> {
        let length = head.length.unwrap_or(0);
        let elements = match head.kind {
            b'*' | b'~' | b'>' => length,
            b'%' => length.saturating_mul(2),
            // It stands in front of an element and is none.
            b'|' => length.saturating_mul(2).saturating_add(1),
            _ => 0,
        };
        if let (b'$' | b'=' | b'!', Some(length)) = (head.kind, head.length) {
            self.skip = length.saturating_add(2);
        }
        self.in_line = !head.whole;
        self.pending = self.pending.saturating_sub(1).saturating_add(elements);
        if self.pending > ELEMENTS_MAX || self.skip > ELEMENTS_MAX {
            return Err(ReplyError::Elements);
        }
        Ok(())
    }

    /// How many bytes at the beginning of `input` are the inside of what has
    /// begun; `None` where an element begins there.
    pub(super) fn inside(&mut self, input: &[u8]) -> Option<usize> {
        if self.in_line {
            return Some(match memchr::memchr(b'\n', input) {
                Some(end) => {
                    self.in_line = false;
                    end.saturating_add(1)
                }
                None => input.len(),
            });
        }
        if self.skip == 0 {
            return None;
        }
        let now = usize::try_from(self.skip).unwrap_or(usize::MAX);
        let now = now.min(input.len());
        let less = u64::try_from(now).unwrap_or(u64::MAX);
        self.skip = self.skip.saturating_sub(less);
        Some(now)
    }
}
