//! A server of MySQL, as far as its protocol goes: what it answers to each
//! packet, with which numbers, and what it remembers in between.
//!
//! It can judge what it is asked to do before it does it: then it says what a
//! client should hear that talks to any server through the sidecar.

use std::collections::BTreeMap;

use crate::protocols::laws::{CAPPED, CAPPED_ROWS, FORBIDDEN, Peer};
use crate::protocols::sql::{Analysis, Class, Conditional, Dialect};

use super::super::capability::Capabilities;
use super::super::commands::Code;
use super::super::statement::PROBE;
use super::super::wire::{Cursor, HEADER_BYTES, Header, packet};
use super::script::FILES;

/// Rows of a table.
const ROWS: usize = 5;

/// What an error is: its code.
type ErrorCode = u16;
const REFUSED: ErrorCode = 1227;

const IN_TRANSACTION: u16 = 1;
const MORE_RESULTS: u16 = 8;
const CURSOR: u16 = 0x40;
const LAST_ROW: u16 = 0x80;
const NO_BACKSLASH_ESCAPES: u16 = 0x200;
const SESSION_CHANGED: u16 = 0x4000;

#[derive(Debug)]
struct Prepared {
    text: String,
    /// As it was read when it was prepared.
    opaque: bool,
    data: Vec<u8>,
    /// Rows of its cursor that are left, and of those that may be told.
    cursor: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Login,
    Commands,
    File,
}

#[derive(Debug)]
pub(super) struct Server {
    judges: bool,
    speaks: Capabilities,
    input: Vec<u8>,
    out: Vec<u8>,
    /// Of its next packet.
    number: u8,
    at: At,
    charset: String,
    mode: String,
    in_transaction: bool,
    pub(super) database: String,
    changed: bool,
    /// How texts were read when that last mattered: charset and mode.
    observed: Option<(String, String)>,
    statements: BTreeMap<u32, Prepared>,
    last: Option<u32>,
    next: u32,
    /// Rows of the file that is read.
    file_rows: u8,
    /// Rows that may be told of a result.
    cap: usize,
    /// Rows that answers to what was judged have told of.
    pub(super) rows: u64,
}

impl Server {
    /// One that has just heard a login under the number before `number`.
    pub(super) fn new(judges: bool, speaks: Capabilities, rounds: usize, number: u8) -> Self {
        let mut server = Self {
            judges,
            speaks,
            input: Vec::new(),
            out: Vec::new(),
            number,
            at: At::Login,
            charset: String::new(),
            mode: String::new(),
            in_transaction: false,
            database: "shop".to_owned(),
            changed: false,
            observed: None,
            statements: BTreeMap::new(),
            last: None,
            next: 0,
            file_rows: 0,
            cap: usize::MAX,
            rows: 0,
        };
        server.begins();
        match rounds {
            0 => server.lets_in(),
            _ => server.say(b"\xfeplugin\0nonce678901234567890\0"),
        }
        server
    }

    fn begins(&mut self) {
        self.charset = "utf8mb4".to_owned();
        self.mode = String::new();
        self.in_transaction = false;
        self.statements.clear();
        self.last = None;
    }

    fn lets_in(&mut self) {
        self.at = At::Commands;
        self.ok(0, 0);
    }

    fn say(&mut self, body: &[u8]) {
        self.out.extend_from_slice(&packet(self.number, body));
        self.number = self.number.wrapping_add(1);
    }

    fn status(&self) -> u16 {
        let escapes = self.mode == "NO_BACKSLASH_ESCAPES";
        let both = [
            (self.in_transaction, IN_TRANSACTION),
            (escapes, NO_BACKSLASH_ESCAPES),
        ];
        both.into_iter()
            .map(|(has, bit)| if has { bit } else { 0 })
            .sum()
    }

    fn ok(&mut self, affected: u8, more: u16) {
        self.done(0, affected, more);
    }

    /// An `OK` packet that begins like this.
    fn done(&mut self, first: u8, affected: u8, more: u16) {
        let tells = self.changed && self.speaks.has(Capabilities::SESSION_TRACK);
        let changed = if tells { SESSION_CHANGED } else { 0 };
        let mut body = vec![first, affected, 0];
        body.extend_from_slice(&(self.status() | more | changed).to_le_bytes());
        body.extend_from_slice(&[0, 0]);
        if tells {
            let name = self.database.as_bytes();
            let length = u8::try_from(name.len()).unwrap();
            body.extend_from_slice(&[0, length + 3, 1, length + 1, length]);
            body.extend_from_slice(name);
        }
        self.changed = false;
        self.say(&body);
    }

    /// The end of definitions or rows.
    fn end(&mut self, more: u16) {
        let [a, b] = (self.status() | more).to_le_bytes();
        self.say(&[0xfe, 0, 0, a, b]);
    }

    fn ends_rows(&mut self, more: u16) {
        match self.speaks.has(Capabilities::DEPRECATE_EOF) {
            true => self.done(0xfe, 0, more),
            false => self.end(more),
        }
    }

    fn error(&mut self, code: ErrorCode) {
        let [a, b] = code.to_le_bytes();
        self.say(&[&[0xff, a, b], &b"#HY000it fails"[..]].concat());
    }

    fn columns(&mut self, count: u16) {
        for _ in 0..count {
            self.say(b"\x03def");
        }
        if count > 0 && !self.speaks.has(Capabilities::DEPRECATE_EOF) {
            self.end(0);
        }
    }

    fn frames(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(header) = Header::of(&self.input) {
            let Some(body) = self.input.get(HEADER_BYTES..header.whole()) else {
                return;
            };
            let body = body.to_vec();
            self.input.drain(..header.whole());
            self.frame(header.sequence, &body);
        }
    }

    fn frame(&mut self, sequence: u8, body: &[u8]) {
        match self.at {
            At::Login => {
                assert_eq!(sequence, self.number, "a proof out of its turn");
                self.number = sequence.wrapping_add(1);
                self.lets_in();
            }
            At::File => {
                assert_eq!(sequence, self.number, "a file out of its turn");
                self.number = sequence.wrapping_add(1);
                // Each piece is a row.
                if !body.is_empty() {
                    self.file_rows += 1;
                    return;
                }
                self.at = At::Commands;
                self.rows += u64::from(self.file_rows);
                self.ok(self.file_rows, 0);
            }
            At::Commands => {
                assert_eq!(sequence, 0, "a command begins anew");
                self.number = 1;
                self.command(Code(body[0]), &body[1..]);
            }
        }
    }

    /// Whether it is refused on the way to a server that does not judge.
    fn refuses(&self, text: &str, opaque: bool) -> bool {
        let refused = opaque || text.contains(FORBIDDEN);
        assert!(
            self.judges || !refused,
            "{text:?} is executed, and was not admitted"
        );
        refused
    }

    fn command(&mut self, code: Code, body: &[u8]) {
        let number = Cursor::new(body).u32().unwrap_or_default();
        match code {
            Code::QUERY => {
                let text = self.text(body);
                self.query(&text);
            }
            Code::INIT_DB | Code::FIELD_LIST => {
                let name = std::str::from_utf8(body).unwrap();
                match self.refuses(name, false) {
                    true => self.error(REFUSED),
                    false if code == Code::INIT_DB => self.uses(name, 0),
                    false => {
                        self.say(b"\x03def");
                        self.ends_rows(0);
                    }
                }
            }
            Code::PING => self.ok(0, 0),
            Code::SET_OPTION | Code::DEBUG => self.end(0),
            Code::RESET_CONNECTION => {
                self.begins();
                self.ok(0, 0);
            }
            Code::STATISTICS => self.say(b"Uptime: 1"),
            Code::PROCESS_INFO => self.select("SELECT 1", 0),
            Code::STMT_PREPARE => self.prepare(std::str::from_utf8(body).unwrap()),
            Code::STMT_EXECUTE => self.execute(number, body[4] == 1),
            Code::STMT_FETCH => self.fetch(number, usize::from(body[4])),
            Code::STMT_SEND_LONG_DATA => {
                if let Some(prepared) = self.named(number) {
                    prepared.data.extend_from_slice(&body[6..]);
                }
            }
            Code::STMT_CLOSE => {
                if let Some(number) = self.number_of(number) {
                    self.statements.remove(&number);
                    self.last = self.last.filter(|last| *last != number);
                }
            }
            Code::STMT_RESET => match self.named(number) {
                Some(prepared) => {
                    prepared.data.clear();
                    prepared.cursor = None;
                    self.ok(0, 0);
                }
                None => self.error(1243),
            },
            Code::CHANGE_USER => self.changes_user(body),
            other => {
                assert!(self.judges, "{other:?} has reached the server");
                self.error(REFUSED);
            }
        }
    }

    /// Of a query, behind its attributes.
    fn text(&self, body: &[u8]) -> String {
        let mut at = Cursor::new(body);
        if self.speaks.has(Capabilities::QUERY_ATTRIBUTES) {
            let count = at.u8().unwrap();
            at.u8().unwrap();
            if count == 1 {
                at.take(4).unwrap();
                at.counted().unwrap();
                at.counted().unwrap();
            }
        }
        std::str::from_utf8(at.rest()).unwrap().to_owned()
    }

    fn named(&mut self, number: u32) -> Option<&mut Prepared> {
        self.statements.get_mut(&self.number_of(number)?)
    }

    fn number_of(&self, number: u32) -> Option<u32> {
        match number {
            u32::MAX => self.last,
            other => Some(other),
        }
    }

    fn changes_user(&mut self, body: &[u8]) {
        let mut at = Cursor::new(body);
        let user = at.until_nul().unwrap().to_vec();
        at.u8().unwrap();
        let database = at.until_nul().unwrap();
        let database = String::from_utf8(database.to_vec()).unwrap();
        self.begins();
        match &user[..] {
            b"a" => {
                self.database = database;
                self.lets_in();
            }
            b"b" => {
                self.database = database;
                self.at = At::Login;
                self.say(b"\xfeplugin\0nonce678901234567890\0");
            }
            // As MariaDB does: whoever was there before goes on.
            _ => self.error(1045),
        }
    }

    fn query(&mut self, text: &str) {
        if text == PROBE {
            return self.probed();
        }
        if text.is_empty() {
            return self.error(1065);
        }
        self.observes(text);
        if self.refuses(text, self.is_opaque(text)) {
            return self.error(REFUSED);
        }
        if let Some(file) = FILES.iter().position(|known| *known == text) {
            return self.asks_for_file(file);
        }
        self.caps(text);
        let parts: Vec<_> = text.split(';').map(str::trim).collect();
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        for (index, part) in parts.iter().enumerate() {
            let more = if index + 1 < parts.len() {
                MORE_RESULTS
            } else {
                0
            };
            if !self.run(part, more) {
                return;
            }
        }
    }

    /// No answer to a client: its rows are nobody's.
    fn probed(&mut self) {
        self.say(&[3]);
        self.columns(3);
        let counted = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let digits = self.database.bytes().map(|byte| format!("{byte:02X}"));
        let database = digits.collect::<String>();
        let row = [&self.charset, &self.mode, &database].map(|text| counted(text));
        let row = row.concat();
        self.say(&row);
        self.ends_rows(0);
    }

    fn caps(&mut self, text: &str) {
        let caps = self.judges && text.contains(CAPPED);
        self.cap = if caps { CAPPED_ROWS } else { usize::MAX };
    }

    fn asks_for_file(&mut self, file: usize) {
        // Another than is named: a client is not to be asked for that.
        if file != 0 && self.judges {
            return self.error(REFUSED);
        }
        self.say(b"\xfbf");
        (self.at, self.file_rows) = (At::File, 0);
    }

    /// Whether the next one has its turn.
    fn run(&mut self, text: &str, more: u16) -> bool {
        match text.split(' ').next().unwrap_or_default() {
            "SELECT" if text.contains("broken") => {
                self.say(&[1]);
                self.columns(1);
                self.row(b"\x01a");
                self.error(1365);
                return false;
            }
            "SELECT" => self.select(text, more),
            "INSERT" => {
                self.rows += 1;
                self.ok(1, more);
            }
            "USE" | "use" => {
                let name = text.split(" -- ").next().unwrap_or_default()[4..].trim();
                self.uses(name.trim_matches('`'), more);
            }
            verb => {
                match verb {
                    "BEGIN" => self.in_transaction = true,
                    "COMMIT" => self.in_transaction = false,
                    "SET" => self.set(text),
                    _ => {}
                }
                self.ok(0, more);
            }
        }
        true
    }

    fn set(&mut self, text: &str) {
        if let Some(charset) = text.strip_prefix("SET NAMES ") {
            self.charset = charset.to_owned();
        }
        if let Some(mode) = text.strip_prefix("SET sql_mode = ") {
            self.mode = mode.trim_matches('\'').to_owned();
        }
    }

    fn uses(&mut self, database: &str, more: u16) {
        self.database = database.to_owned();
        self.changed = true;
        self.ok(0, more);
    }

    fn rows_of(text: &str) -> usize {
        if text.contains("FROM") { ROWS } else { 1 }
    }

    fn select(&mut self, text: &str, more: u16) {
        self.say(&[1]);
        self.columns(1);
        for _ in 0..Self::rows_of(text).min(self.cap) {
            self.row(b"\x01a");
        }
        self.ends_rows(more);
    }

    fn row(&mut self, row: &[u8]) {
        self.rows += 1;
        self.say(row);
    }

    fn prepare(&mut self, text: &str) {
        self.last = None;
        self.observes(text);
        if text.is_empty() || text.contains(';') || text.starts_with("FROB") {
            return self.error(1064);
        }
        self.next += 1;
        self.last = Some(self.next);
        let parameters = u16::try_from(text.matches('?').count()).unwrap();
        let columns = u16::from(text.starts_with("SELECT"));
        let mut body = vec![0];
        body.extend_from_slice(&self.next.to_le_bytes());
        body.extend_from_slice(&columns.to_le_bytes());
        body.extend_from_slice(&parameters.to_le_bytes());
        body.extend_from_slice(&[0; 3]);
        self.say(&body);
        self.columns(parameters);
        self.columns(columns);
        let prepared = Prepared {
            text: text.to_owned(),
            opaque: self.is_opaque(text),
            data: Vec::new(),
            cursor: None,
        };
        self.statements.insert(self.next, prepared);
    }

    fn execute(&mut self, number: u32, cursor: bool) {
        let Some(prepared) = self.named(number) else {
            assert!(self.judges, "nobody knows what is executed");
            return self.error(REFUSED);
        };
        let data = std::mem::take(&mut prepared.data);
        prepared.cursor = None;
        let text = prepared.text.clone();
        self.observes(&text);
        let opaque = self.named(number).is_some_and(|prepared| prepared.opaque);
        if self.refuses(&text, opaque) {
            return self.error(REFUSED);
        }
        self.caps(&text);
        if text == "SELECT ?" && !cursor {
            self.say(&[1]);
            self.columns(1);
            self.row(&[&[0, 0], &data[..]].concat());
            self.ends_rows(0);
        } else if cursor && text.starts_with("SELECT") {
            let rows = Self::rows_of(&text);
            let opened = Some((rows, self.cap));
            if let Some(prepared) = self.named(number) {
                prepared.cursor = opened;
            }
            self.say(&[1]);
            self.say(b"\x03def");
            self.ends_rows(CURSOR);
        } else {
            self.run(&text, 0);
        }
    }

    /// Rows of a cursor were judged when it was opened.
    fn fetch(&mut self, number: u32, most: usize) {
        let Some(prepared) = self.named(number) else {
            return self.error(1243);
        };
        let Some((left, cap)) = prepared.cursor else {
            return self.error(1421);
        };
        let now = left.min(most);
        let told = now.min(cap);
        prepared.cursor = Some((left - now, cap - told));
        for _ in 0..told {
            self.say(b"\0\0a");
        }
        self.ends_rows(if left == now { LAST_ROW } else { CURSOR });
    }

    /// Where how `text` is read matters: what was prepared under other rules may mean
    /// another by now.
    fn observes(&mut self, text: &str) {
        if is_plain(text) {
            return;
        }
        let now = (self.charset.clone(), self.mode.clone());
        let before = self.observed.replace(now.clone());
        if before.is_some_and(|before| before != now) {
            for prepared in self.statements.values_mut() {
                prepared.opaque |= !is_plain(&prepared.text);
            }
        }
    }

    fn is_opaque(&self, text: &str) -> bool {
        let plain = is_plain(text);
        let changes = text.contains("SET") && text.contains(';');
        if !plain && (changes || (self.charset == "gbk" && !text.is_ascii())) {
            return true;
        }
        let dialect = Dialect::Mysql {
            ansi_quotes: self.mode == "ANSI_QUOTES",
            no_backslash_escapes: self.mode == "NO_BACKSLASH_ESCAPES",
            conditional: Conditional::Executed,
        };
        in_several_databases(text) || Analysis::of(text, dialect).class() == Class::Opaque
    }
}

/// Whether statements of one packet stand on both sides of a USE, and so run in several.
fn in_several_databases(text: &str) -> bool {
    let mut current = 0;
    let mut ran_in = None;
    for statement in text.split(';').map(str::trim).filter(|s| !s.is_empty()) {
        if statement.starts_with("USE ") {
            current += 1;
        } else if ran_in
            .replace(current)
            .is_some_and(|before| before != current)
        {
            return true;
        }
    }
    false
}

fn is_plain(text: &str) -> bool {
    text.is_ascii() && !text.contains(['"', '\\', '['])
}

impl Peer for Server {
    fn hears(&mut self, bytes: &[u8]) {
        self.frames(bytes);
    }

    fn said(&self) -> &[u8] {
        &self.out
    }
}
