//! Requests of RESP, read without copying: where a command ends, and where its
//! arguments are. Resumes where it stopped, whatever the reads were cut into.
//!
//! As strict as a reader can be and still take what clients send: what this
//! takes, a server takes in the same way.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

/// Longest inline command, or count or length line, bytes; the server's own.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Most arguments of a command. The limit of servers before 7.0; later ones take
/// more, which no client was seen to need, and each argument has to be looked at.
const ARGUMENTS_MAX: u64 = 1_048_576;
/// Longest argument, bytes; the server's own default.
const ARGUMENT_BYTES_MAX: u64 = 512 << 20;
/// Most arguments, and longest argument in bytes, of who has not logged in
/// where that is asked for; the server's own limits.
const ARGUMENTS_BEFORE_LOGIN_MAX: u64 = 10;
const ARGUMENT_BYTES_BEFORE_LOGIN_MAX: u64 = 16 << 10;

/// What no server would take. Displayed as a server says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// An inline command that does not end.
    InlineTooBig,
    /// Quotes that do not end, or are followed by more.
    Quotes,
    /// A count that is none, or too large.
    Count,
    /// A count that does not end.
    CountTooBig,
    /// This instead of a length.
    NoLength(u8),
    /// A length that is none, or too large.
    Length,
    /// A length that does not end.
    LengthTooBig,
    /// An argument is longer than it said.
    Terminator,
    /// More arguments than before a login.
    CountBeforeLogin,
    /// A longer argument than before a login.
    LengthBeforeLogin,
    /// It begins with what a browser says.
    NotRedis,
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            Self::InlineTooBig => f.write_str("too big inline request"),
            Self::Quotes => f.write_str("unbalanced quotes in request"),
            Self::Count => f.write_str("invalid multibulk length"),
            Self::CountTooBig => f.write_str("too big mbulk count string"),
            Self::NoLength(found) => {
                let found = char::from(*found);
                let found = if found.is_ascii_graphic() { found } else { ' ' };
                write!(f, "expected '$', got '{found}'")
            }
            Self::Length => f.write_str("invalid bulk length"),
            Self::LengthTooBig => f.write_str("too big bulk count string"),
            Self::Terminator => f.write_str("expected \\r\\n behind a bulk string"),
            Self::CountBeforeLogin => f.write_str("unauthenticated multibulk length"),
            Self::LengthBeforeLogin => f.write_str("unauthenticated bulk length"),
            Self::NotRedis => f.write_str("HTTP on a port for Redis"),
        }
    }
}

/// How far a command has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is not whole yet.
    More,
    /// So many bytes say nothing: an empty line, an empty array.
    Nothing(usize),
    /// It is whole, and so long.
    Whole(usize),
    /// An inline command of these words, and so long.
    Inline(usize, Vec<Vec<u8>>),
}

/// The command at the beginning of a buffer, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    count: u32,
    left: u32,
    begun: bool,
    /// Bytes of the argument at `at`, whose length was read.
    open: Option<u64>,
    arguments: Vec<(u32, u32)>,
    /// What is wrong with it unless somebody has logged in.
    before_login: Option<RequestError>,
}

impl Scan {
    /// Forgets the command, for the next.
    pub(super) fn clear(&mut self) {
        self.arguments.clear();
        (self.at, self.count, self.left, self.begun, self.open) = (0, 0, 0, false, None);
        self.before_login = None;
    }

    /// What no server would take of it, as far as it was read, from who has
    /// not logged in where that is asked for.
    pub(super) fn before_login(&self) -> Option<RequestError> {
        self.before_login
    }

    /// Where the argument `index` is, once it was seen whole.
    pub(super) fn argument(&self, index: usize) -> Option<Range<usize>> {
        let (start, end) = self.arguments.get(index)?;
        Some(usize::try_from(*start).ok()?..usize::try_from(*end).ok()?)
    }

    /// How many arguments were seen whole.
    pub(super) fn seen(&self) -> usize {
        self.arguments.len()
    }

    /// How many it has in all.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Where it ends at the least, as far as that is known.
    pub(super) fn ends_at_least_at(&self) -> usize {
        let open = usize::try_from(self.open.unwrap_or(0)).unwrap_or(usize::MAX);
        self.at.saturating_add(open)
    }

    /// The rest of the command, for it to be let by without being kept, and
    /// how much of it was read.
    pub(super) fn take_rest(&mut self) -> (Rest, usize) {
        let rest = Rest {
            left: self.left,
            bytes: self.open.map(|open| open.saturating_add(2)),
        };
        let read = self.at;
        self.clear();
        (rest, read)
    }

    /// Reads on in `input`, which begins where the command does.
    ///
    /// # Errors
    /// What no server would take.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<Progress, RequestError> {
        if !self.begun {
            let Some(first) = input.first() else {
                return Ok(Progress::More);
            };
            if *first != b'*' {
                return inline(input);
            }
            let (line, bytes) = (RequestError::CountTooBig, RequestError::Count);
            let Some((count, next)) = number(input.get(1..), line, bytes)? else {
                return Ok(Progress::More);
            };
            let next = next.saturating_add(1);
            let Ok(count) = u64::try_from(count) else {
                return Ok(Progress::Nothing(next));
            };
            if count == 0 {
                return Ok(Progress::Nothing(next));
            }
            if count > ARGUMENTS_MAX {
                return Err(RequestError::Count);
            }
            if count > ARGUMENTS_BEFORE_LOGIN_MAX {
                self.before_login = Some(RequestError::CountBeforeLogin);
            }
            self.count = u32::try_from(count).map_err(|_| RequestError::Count)?;
            (self.begun, self.left, self.at) = (true, self.count, next);
        }
        self.arguments_of(input)
    }

    fn arguments_of(&mut self, input: &[u8]) -> Result<Progress, RequestError> {
        while self.left > 0 {
            let rest = input.get(self.at..).unwrap_or_default();
            let Some(length) = self.open else {
                let Some((length, next)) = length(rest)? else {
                    return Ok(Progress::More);
                };
                self.at = self.at.saturating_add(next);
                self.open = Some(length);
                if length > ARGUMENT_BYTES_BEFORE_LOGIN_MAX {
                    let wrong = RequestError::LengthBeforeLogin;
                    self.before_login.get_or_insert(wrong);
                }
                continue;
            };
            let length = usize::try_from(length).map_err(|_| RequestError::Length)?;
            match rest.get(length..length.saturating_add(2)) {
                None => return Ok(Progress::More),
                Some(b"\r\n") => {}
                Some(_) => return Err(RequestError::Terminator),
            }
            let end = self.at.saturating_add(length);
            let place = |at: usize| u32::try_from(at).map_err(|_| RequestError::Length);
            self.arguments.push((place(self.at)?, place(end)?));
            self.at = end.saturating_add(2);
            self.left = self.left.saturating_sub(1);
            self.open = None;
        }
        Ok(Progress::Whole(self.at))
    }
}

/// What is still to come of a command whose beginning was dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    left: u32,
    /// Bytes of the argument under way, with what ends it.
    bytes: Option<u64>,
}

impl Rest {
    /// Whether it has all come.
    pub(super) fn is_over(self) -> bool {
        self.left == 0
    }

    /// How many bytes at the beginning of `input` belong to it.
    ///
    /// # Errors
    /// What no server would take.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<usize, RequestError> {
        let mut at = 0_usize;
        while self.left > 0 {
            let rest = input.get(at..).unwrap_or_default();
            let Some(bytes) = self.bytes else {
                match length(rest)? {
                    None => break,
                    Some((length, next)) => {
                        at = at.saturating_add(next);
                        self.bytes = Some(length.saturating_add(2));
                    }
                }
                continue;
            };
            // What ends it is seen as one piece, to be sure of it.
            let have = u64::try_from(rest.len()).unwrap_or(u64::MAX);
            if have >= bytes {
                let end = usize::try_from(bytes).unwrap_or(usize::MAX);
                if rest.get(end.saturating_sub(2)..end) != Some(b"\r\n") {
                    return Err(RequestError::Terminator);
                }
                at = at.saturating_add(end);
                self.left = self.left.saturating_sub(1);
                self.bytes = None;
                continue;
            }
            let now = have.min(bytes.saturating_sub(2));
            at = at.saturating_add(usize::try_from(now).unwrap_or(0));
            self.bytes = Some(bytes.saturating_sub(now));
            break;
        }
        Ok(at)
    }
}

/// A line `$LENGTH` and how long the line is.
fn length(input: &[u8]) -> Result<Option<(u64, usize)>, RequestError> {
    match input.first() {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => return Err(RequestError::NoLength(*other)),
    }
    let (line, wrong) = (RequestError::LengthTooBig, RequestError::Length);
    let Some((length, next)) = number(input.get(1..), line, wrong)? else {
        return Ok(None);
    };
    let length = u64::try_from(length).map_err(|_| wrong)?;
    if length > ARGUMENT_BYTES_MAX {
        return Err(wrong);
    }
    Ok(Some((length, next.saturating_add(1))))
}

/// A number and the line end behind it, and how long both are.
fn number(
    input: Option<&[u8]>,
    endless: RequestError,
    wrong: RequestError,
) -> Result<Option<(i64, usize)>, RequestError> {
    let input = input.unwrap_or_default();
    // No number is longer than this, with its end.
    let line = input.get(..input.len().min(24)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', line) else {
        return match line.len() {
            24 if memchr::memchr(b'\r', line).is_none() => Err(endless),
            24 => Err(wrong),
            _ => Ok(None),
        };
    };
    let digits = line.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let number = digits.and_then(super::reply::integer).ok_or(wrong)?;
    Ok(Some((number, end.saturating_add(1))))
}

/// An inline command: one line of words.
fn inline(input: &[u8]) -> Result<Progress, RequestError> {
    let line = input
        .get(..input.len().min(LINE_BYTES_MAX))
        .unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', line) else {
        return match line.len() {
            LINE_BYTES_MAX => Err(RequestError::InlineTooBig),
            _ => Ok(Progress::More),
        };
    };
    let text = line.get(..end).unwrap_or_default();
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    // A server reads it as a text that a zero byte ends.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let words = words(text).ok_or(RequestError::Quotes)?;
    let next = end.saturating_add(1);
    let Some(first) = words.first() else {
        return Ok(Progress::Nothing(next));
    };
    if first.eq_ignore_ascii_case(b"post") || first.eq_ignore_ascii_case(b"host:") {
        return Err(RequestError::NotRedis);
    }
    Ok(Progress::Inline(next, words))
}

/// The words of an inline command, with quotes as the server reads them.
pub(super) fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let (word, next) = word(rest)?;
        words.push(word);
        rest = next;
    }
}

fn word(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut rest = line;
    while let Some((first, next)) = rest.split_first() {
        match first {
            b'"' => rest = double_quoted(next, &mut word)?,
            b'\'' => rest = single_quoted(next, &mut word)?,
            space if space.is_ascii_whitespace() => break,
            other => {
                word.push(*other);
                rest = next;
                continue;
            }
        }
        // A closing quote ends the word.
        return match rest.first() {
            None => Some((word, rest)),
            Some(space) if space.is_ascii_whitespace() => Some((word, rest)),
            Some(_) => None,
        };
    }
    Some((word, rest))
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'"', next @ ..] => return Some(next),
            [b'\\', b'x', high, low, next @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0);
                let byte = (digit(*high) << 4) | digit(*low);
                word.push(u8::try_from(byte).unwrap_or(0));
                rest = next;
            }
            [b'\\', escaped, next @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = next;
            }
            [other, next @ ..] => {
                word.push(*other);
                rest = next;
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\'', next @ ..] => return Some(next),
            [b'\\', b'\'', next @ ..] => {
                word.push(b'\'');
                rest = next;
            }
            [other, next @ ..] => {
                word.push(*other);
                rest = next;
            }
            [] => return None,
        }
    }
}

/// A command as an array of bulk strings.
pub(super) fn array<T: AsRef<[u8]>>(words: &[T]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        out.put_slice(format!("${}\r\n", word.len()).as_bytes());
        out.put_slice(word);
        out.put_slice(b"\r\n");
    }
    out
}
