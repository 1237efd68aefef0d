//! What a server answers to one command, packet by packet: where a result ends,
//! how many rows it has, and what it says of the session. Rows are told apart by
//! their first byte, and not read.

use super::capability::Capabilities;
use super::wire::{Cursor, FULL_BYTES, WireError};

/// Most bytes of a packet that are looked at.
pub(super) const LOOKED_AT_BYTES: usize = 4 << 10;
/// Fewest bytes that say what was prepared.
const PREPARED_BYTES: usize = 12;
/// Longest message of an error that is kept, bytes.
const MESSAGE_BYTES_MAX: usize = 512;

/// Bits of a server's status.
const IN_TRANSACTION: u16 = 1;
const MORE_RESULTS: u16 = 1 << 3;
const CURSOR: u16 = 1 << 6;
const NO_BACKSLASH_ESCAPES: u16 = 1 << 9;
const SESSION_CHANGED: u16 = 1 << 14;

/// What a server says of the session with each result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status(u16);

impl Status {
    pub(super) fn in_transaction(self) -> bool {
        self.0 & IN_TRANSACTION != 0
    }

    pub(super) fn no_backslash_escapes(self) -> bool {
        self.0 & NO_BACKSLASH_ESCAPES != 0
    }

    fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }
}

/// What is answered to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One packet that says it is done, or an error.
    Done,
    /// Results, one after another.
    Results,
    /// A prepared statement.
    Prepared,
    /// More rows of a result.
    Rows,
    /// Definitions of columns.
    Columns,
    /// One packet of text.
    Text,
    /// What a server has changed and goes on changing, event by event.
    Changes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Done,
    Result,
    /// Before so many definitions of columns.
    Columns(u64),
    ColumnsEnd,
    Rows,
    Prepared,
    /// Before definitions of parameters, of columns, and what ends them.
    Definitions(u32, u32),
    DefinitionsEnd(u32),
    Fields,
    Text,
    Changes,
}

/// What a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A part of the answer.
    Part,
    /// A row.
    Row,
    /// The end of one result of several.
    Next,
    /// The end of the answer.
    End,
    /// The server asks for the contents of a file.
    File,
}

/// An error of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerError {
    pub(super) code: u16,
    pub(super) state: Box<str>,
    pub(super) text: Box<str>,
}

impl ServerError {
    /// Reads the body of an error packet.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let mut at = Cursor::new(body);
        at.u8().filter(|first| *first == 0xff)?;
        let code = at.u16()?;
        let text = |bytes: &[u8]| {
            let bytes = bytes.get(..MESSAGE_BYTES_MAX).unwrap_or(bytes);
            String::from_utf8_lossy(bytes).into()
        };
        let mut state = Box::from("HY000");
        if at.rest().first() == Some(&b'#') {
            at.u8()?;
            state = text(at.take(5)?);
        }
        Some(Self {
            code,
            state,
            text: text(at.rest()),
        })
    }
}

/// The answer to one command, as far as it has come.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    at: At,
    ends_with_ok: bool,
    tracks: bool,
    /// Rows returned or affected so far, where the server said so.
    pub(super) rows: Option<u64>,
    pub(super) error: Option<ServerError>,
    /// Results that have ended before the last.
    pub(super) results: usize,
    /// The newest.
    pub(super) status: Option<Status>,
    /// The database that is now current, where the server said so.
    pub(super) database: Option<Box<str>>,
    /// The number of the statement it prepared.
    pub(super) prepared: Option<u32>,
}

impl Answer {
    pub(super) fn new(form: Form, capabilities: Capabilities) -> Self {
        Self {
            at: match form {
                Form::Done => At::Done,
                Form::Results => At::Result,
                Form::Prepared => At::Prepared,
                Form::Rows => At::Rows,
                Form::Columns => At::Fields,
                Form::Text => At::Text,
                Form::Changes => At::Changes,
            },
            ends_with_ok: capabilities.has(Capabilities::DEPRECATE_EOF),
            tracks: capabilities.has(Capabilities::SESSION_TRACK),
            rows: None,
            error: None,
            results: 0,
            status: None,
            database: None,
            prepared: None,
        }
    }

    /// Whether it goes on for as long as somebody listens.
    pub(super) fn is_endless(&self) -> bool {
        self.at == At::Changes
    }

    /// How many bytes of the body of a packet this must see, of which `first` is
    /// the first byte.
    pub(super) fn looks_at(&self, first: u8, length: usize) -> usize {
        let is_row = self.at == At::Rows && !matches!(first, 0xfe | 0xff);
        let is_event = self.at == At::Changes && first == 0;
        if is_row || is_event {
            1
        } else {
            length.min(LOOKED_AT_BYTES)
        }
    }

    /// Takes the next packet: as many bytes of its body as [`Self::looks_at`]
    /// says, and its length.
    ///
    /// # Errors
    ///
    /// Where a server would not say this now.
    pub(super) fn packet(&mut self, body: &[u8], length: usize) -> Result<Said, WireError> {
        let first = body.first().copied().unwrap_or_default();
        if first == 0xff && self.at != At::Text {
            self.error = Some(ServerError::of(body).ok_or(WireError::Malformed("an error"))?);
            return Ok(Said::End);
        }
        match self.at {
            At::Done => self.done(body, length),
            At::Result => self.result(body, length),
            At::Columns(left) => {
                self.at = match left.saturating_sub(1) {
                    0 if self.ends_with_ok => At::Rows,
                    0 => At::ColumnsEnd,
                    more => At::Columns(more),
                };
                Ok(Said::Part)
            }
            At::ColumnsEnd => {
                let status = self.end(body)?;
                if status.has(CURSOR) {
                    return Ok(self.ended(status));
                }
                self.at = At::Rows;
                Ok(Said::Part)
            }
            At::Rows if self.ends_rows(first, length) => {
                self.rows.get_or_insert(0);
                let status = if self.ends_with_ok {
                    self.ok(body)?
                } else {
                    self.end(body)?
                };
                Ok(self.ended(status))
            }
            At::Rows => {
                self.rows = Some(self.rows.unwrap_or(0).saturating_add(1));
                Ok(Said::Row)
            }
            At::Prepared => self.prepared(body, length),
            At::Definitions(parameters, columns) => {
                let last = parameters == 1;
                let left = parameters.saturating_sub(1);
                Ok(match (last, self.ends_with_ok) {
                    (false, _) => self.defines(left, columns),
                    (true, false) => {
                        self.at = At::DefinitionsEnd(columns);
                        Said::Part
                    }
                    (true, true) => self.defines(columns, 0),
                })
            }
            At::DefinitionsEnd(columns) => {
                self.end(body)?;
                Ok(self.defines(columns, 0))
            }
            At::Fields => {
                if first == 0xfe && length < FULL_BYTES {
                    let status = if self.ends_with_ok && length > 5 {
                        self.ok(body)?
                    } else {
                        self.end(body)?
                    };
                    return Ok(self.ended(status));
                }
                Ok(Said::Part)
            }
            At::Text => Ok(Said::End),
            At::Changes => self.change(body, length),
        }
    }

    fn ends_rows(&self, first: u8, length: usize) -> bool {
        // A row may begin with this byte: then it is longer than any end of rows.
        let end_bytes_max = if self.ends_with_ok { FULL_BYTES } else { 9 };
        first == 0xfe && length < end_bytes_max
    }

    fn done(&mut self, body: &[u8], length: usize) -> Result<Said, WireError> {
        match body.first() {
            Some(0) => {
                let status = self.ok(body)?;
                Ok(self.ended(status))
            }
            Some(0xfe) if length < 9 => {
                let status = self.end(body)?;
                Ok(self.ended(status))
            }
            _ => Err(WireError::Malformed("an answer")),
        }
    }

    fn result(&mut self, body: &[u8], length: usize) -> Result<Said, WireError> {
        match body.first() {
            Some(0) => {
                let affected = Cursor::new(body.get(1..).unwrap_or_default()).integer();
                let all = self.rows.unwrap_or(0).saturating_add(affected.unwrap_or(0));
                self.rows = Some(all);
                let status = self.ok(body)?;
                Ok(self.ended(status))
            }
            Some(0xfb) => Ok(Said::File),
            Some(_) if length <= 9 => {
                let columns = Cursor::new(body).integer();
                let columns = columns.ok_or(WireError::Malformed("a number of columns"))?;
                self.at = At::Columns(columns);
                Ok(Said::Part)
            }
            Some(_) | None => Err(WireError::Malformed("the beginning of a result")),
        }
    }

    fn change(&mut self, body: &[u8], length: usize) -> Result<Said, WireError> {
        match body.first() {
            Some(0) => Ok(Said::Part),
            Some(0xfe) if length < 9 => {
                self.end(body)?;
                Ok(Said::End)
            }
            Some(_) | None => Err(WireError::Malformed("an event")),
        }
    }

    fn prepared(&mut self, body: &[u8], length: usize) -> Result<Said, WireError> {
        // MySQL 9 prepares nothing, and says that all is well, where somebody may not
        // change a setting of an old name.
        if body.first() == Some(&0) && length < PREPARED_BYTES {
            self.ok(body)?;
            return Ok(Said::End);
        }
        let mut at = Cursor::new(body);
        let read = || -> Option<(u32, u16, u16)> {
            at.u8().filter(|first| *first == 0)?;
            Some((at.u32()?, at.u16()?, at.u16()?))
        };
        let malformed = WireError::Malformed("a prepared statement");
        let (number, columns, parameters) = { read }().ok_or(malformed)?;
        self.prepared = Some(number);
        Ok(match parameters {
            0 => self.defines(columns.into(), 0),
            some => self.defines(some.into(), columns.into()),
        })
    }

    /// So many definitions follow, and then so many.
    fn defines(&mut self, now: u32, then: u32) -> Said {
        match (now, then) {
            (0, _) => Said::End,
            (now, then) => {
                self.at = At::Definitions(now, then);
                Said::Part
            }
        }
    }

    fn ended(&mut self, status: Status) -> Said {
        if status.has(MORE_RESULTS) {
            self.at = At::Result;
            self.results = self.results.saturating_add(1);
            return Said::Next;
        }
        Said::End
    }

    /// The status in an `EOF` packet.
    fn end(&mut self, body: &[u8]) -> Result<Status, WireError> {
        let mut at = Cursor::new(body);
        let read = || {
            at.u8().filter(|first| *first == 0xfe)?;
            at.u16()?;
            at.u16()
        };
        let status = { read }().ok_or(WireError::Malformed("the end of a result"))?;
        Ok(self.said(Status(status)))
    }

    /// The status in an `OK` packet.
    fn ok(&mut self, body: &[u8]) -> Result<Status, WireError> {
        let mut at = Cursor::new(body);
        let mut read = || {
            at.u8()?;
            at.integer()?;
            at.integer()?;
            let status = at.u16()?;
            at.u16()?;
            Some(Status(status))
        };
        let status = read().ok_or(WireError::Malformed("the end of a result"))?;
        if self.tracks && status.has(SESSION_CHANGED) {
            at.counted();
            self.database = changed_database(at).or_else(|| self.database.take());
        }
        Ok(self.said(status))
    }

    fn said(&mut self, status: Status) -> Status {
        self.status = Some(status);
        status
    }
}

/// The new current database in what an `OK` packet says of the session.
fn changed_database(mut at: Cursor<'_>) -> Option<Box<str>> {
    const SCHEMA: u8 = 1;
    let mut changes = Cursor::new(at.counted()?);
    while let (Some(kind), Some(data)) = (changes.u8(), changes.counted()) {
        if kind == SCHEMA {
            let name = Cursor::new(data).counted()?;
            return Some(String::from_utf8_lossy(name).into());
        }
    }
    None
}

/// The values of a row of text; a value that is NULL is empty.
pub(super) fn columns(body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut at = Cursor::new(body);
    let mut all = Vec::new();
    while !at.is_empty() {
        if at.rest().first() == Some(&0xfb) {
            at.u8()?;
            all.push(&[][..]);
            continue;
        }
        all.push(at.counted()?);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Capabilities = Capabilities(0);
    const NEW: Capabilities = Capabilities::DEPRECATE_EOF;

    /// What each packet is, as one letter.
    fn said(form: Form, capabilities: Capabilities, packets: &[&[u8]]) -> (String, Answer) {
        let mut answer = Answer::new(form, capabilities);
        let letters = packets.iter().map(|packet| {
            let seen = answer.looks_at(packet.first().copied().unwrap_or_default(), packet.len());
            match answer.packet(&packet[..seen], packet.len()) {
                Ok(Said::Part) => 'p',
                Ok(Said::Row) => 'r',
                Ok(Said::Next) => 'n',
                Ok(Said::End) => 'e',
                Ok(Said::File) => 'f',
                Err(_) => 'x',
            }
        });
        (letters.collect(), answer)
    }

    #[test]
    fn my_11_my_23_an_answer_ends_where_the_server_says_so() {
        let ok: &[u8] = b"\0\x03\0\x02\0\0\0";
        let more: &[u8] = b"\0\x02\0\x0a\0\0\0";
        let error: &[u8] = b"\xff\x28\x04#42000bad";
        let eof: &[u8] = b"\xfe\0\0\x02\0";
        let eof_more: &[u8] = b"\xfe\0\0\x0a\0";
        let eof_cursor: &[u8] = b"\xfe\0\0\x42\0";
        let end: &[u8] = b"\xfe\0\0\x02\0\0\0";
        let column: &[u8] = b"\x03def";
        let (one, two): (&[u8], &[u8]) = (b"\x01", b"\x02");
        let row: &[u8] = b"\x01a";
        for (form, capabilities, packets, expected, rows) in [
            (Form::Results, OLD, &[ok][..], "e", Some(3)),
            (Form::Results, OLD, &[error], "e", None),
            (Form::Results, OLD, &[more, ok], "ne", Some(5)),
            (
                Form::Results,
                OLD,
                &[one, column, eof, row, row, eof],
                "pppr\u{72}e",
                Some(2),
            ),
            (
                Form::Results,
                OLD,
                &[two, column, column, eof, eof],
                "ppppe",
                Some(0),
            ),
            (
                Form::Results,
                OLD,
                &[one, column, eof, row, error],
                "pppre",
                Some(1),
            ),
            (
                Form::Results,
                OLD,
                &[one, column, eof, row, eof_more, more, ok],
                "ppprnne",
                Some(6),
            ),
            (Form::Results, OLD, &[one, column, eof_cursor], "ppe", None),
            (
                Form::Results,
                NEW,
                &[one, column, row, end],
                "ppre",
                Some(1),
            ),
            (Form::Results, OLD, &[b"\xfb/etc/passwd"], "f", None),
            (Form::Results, OLD, &[b""], "x", None),
            (Form::Results, OLD, &[one, column, row], "ppx", None),
            (Form::Rows, OLD, &[row, eof], "re", Some(1)),
            (Form::Done, OLD, &[ok], "e", None),
            (Form::Done, OLD, &[eof], "e", None),
            (Form::Done, OLD, &[row], "x", None),
            (Form::Columns, OLD, &[column, column, eof], "ppe", None),
            (Form::Text, OLD, &[b"Uptime: 1"], "e", None),
            (Form::Prepared, OLD, &[ok], "e", None),
            (
                Form::Prepared,
                OLD,
                &[b"\0\x07\0\0\0\0\0\0\0\0\0\0"],
                "e",
                None,
            ),
            (
                Form::Prepared,
                OLD,
                &[
                    b"\0\x07\0\0\0\x01\0\x02\0\0\0\0",
                    column,
                    column,
                    eof,
                    column,
                    eof,
                ],
                "pppppe",
                None,
            ),
            (
                Form::Prepared,
                NEW,
                &[b"\0\x07\0\0\0\x01\0\x01\0\0\0\0", column, column],
                "ppe",
                None,
            ),
            (
                Form::Prepared,
                OLD,
                &[b"\0\x07\0\0\0\x01\0\0\0\0\0\0", column, eof],
                "ppe",
                None,
            ),
        ] {
            let (letters, answer) = said(form, capabilities, packets);
            // The letters up to the end; behind it nothing is expected.
            let letters = letters.trim_start_matches('\0');
            assert_eq!(letters, expected, "{form:?} {packets:?}");
            assert_eq!(answer.rows, rows, "{form:?} {packets:?}");
        }
        let (_, prepared) = said(Form::Prepared, OLD, &[b"\0\x07\0\0\0\0\0\0\0\0\0\0"]);
        assert_eq!(prepared.prepared, Some(7));
        let (_, failed) = said(Form::Results, OLD, &[error]);
        let failed = failed.error.unwrap();
        assert_eq!(
            (failed.code, &*failed.state, &*failed.text),
            (1064, "42000", "bad")
        );
    }

    #[test]
    fn my_22_a_row_may_begin_as_the_end_of_rows_does() {
        let mut answer = Answer::new(Form::Rows, OLD);
        let row = [0xfe; 9];
        assert_eq!(answer.packet(&row, FULL_BYTES), Ok(Said::Row));
        let mut answer = Answer::new(Form::Rows, NEW);
        assert_eq!(answer.packet(&row, FULL_BYTES), Ok(Said::Row));
    }

    #[test]
    fn my_17_the_current_database_is_the_one_that_the_server_says() {
        let tracks = Capabilities::SESSION_TRACK;
        let ok: &[u8] = b"\0\0\0\x02\x40\0\0\0\x09\x05\x02\x01a\x01\x05\x04shop";
        // Longer than it says: nothing is read of it.
        let cut: &[u8] = b"\0\0\0\x02\x40\0\0\0\x09\x01\x05\x04sh";
        let good: &[u8] = b"\0\0\0\x02\x40\0\0\0\x07\x01\x05\x04shop";
        for (packet, expected) in [(ok, None), (cut, None), (good, Some("shop"))] {
            let (_, answer) = said(Form::Results, tracks, &[packet]);
            assert_eq!(answer.database.as_deref(), expected, "{packet:?}");
        }
    }

    #[test]
    fn values_of_a_row_are_told_apart() {
        assert_eq!(columns(b"\x01a\xfb\x00"), Some(vec![&b"a"[..], b"", b""]));
        assert_eq!(columns(b"\x05a"), None);
    }
}
