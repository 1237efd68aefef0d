//! A server of PostgreSQL, as far as its protocol goes: what it answers to each
//! message, what it discards, and when it lets answers go.
//!
//! It can judge what it is asked to do before it does it: then it says what a
//! client should hear that talks to any server through the sidecar.

use std::collections::HashMap;

use crate::protocols::laws::{FORBIDDEN, Peer};
use crate::protocols::sql::{Analysis, Class, Dialect};

use super::super::wire::{Cursor, HEAD, head, message};

/// Rows of a query, and of a table.
const ROWS: usize = 5;

#[derive(Debug, Default)]
struct Portal {
    text: String,
    rows_told: usize,
    done: bool,
}

/// What an error is: its SQLSTATE, or any of several where a client cannot be
/// promised one.
type Code = &'static str;
const REFUSED: Code = "42501";
/// Refused, as nobody can say what it is, or not there.
const NOT_KNOWN: Code = "42501|34000|26000";

#[derive(Debug)]
pub(super) struct Server {
    judges: bool,
    input: Vec<u8>,
    /// What was answered, of which `flushed` has left.
    out: Vec<u8>,
    flushed: usize,
    skipping: bool,
    /// Data is taken; whether a simple query asked for that.
    copying: Option<bool>,
    status: u8,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, Portal>,
    /// Rows that completions have counted.
    pub(super) rows: u64,
    ended: bool,
    /// It was told something else where it took data, and no longer knows where
    /// messages begin.
    pub(super) out_of_step: bool,
}

impl Server {
    pub(super) fn new(judges: bool) -> Self {
        let mut server = Self {
            judges,
            input: Vec::new(),
            out: Vec::new(),
            flushed: 0,
            skipping: false,
            copying: None,
            status: b'I',
            statements: HashMap::new(),
            portals: HashMap::new(),
            rows: 0,
            ended: false,
            out_of_step: false,
        };
        server.say(b'R', &[&[0; 4]]);
        server.say(b'S', &[b"standard_conforming_strings\0on\0"]);
        server.say(b'K', &[&[7; 8]]);
        server.ready();
        server
    }

    fn messages(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some((tag, body)) = head(&self.input, "x").unwrap() {
            let Some(inside) = self.input.get(HEAD..HEAD + body) else {
                return;
            };
            let body = inside.to_vec();
            self.input.drain(..HEAD + body.len());
            if !self.ended {
                self.message(tag, &body);
            }
        }
    }

    /// What waits for a `Flush` or `Sync`, too.
    pub(super) fn all(&self) -> &[u8] {
        &self.out
    }

    fn say(&mut self, tag: u8, parts: &[&[u8]]) {
        self.out.extend_from_slice(&message(tag, parts));
    }

    fn ready(&mut self) {
        let status = [self.status];
        self.say(b'Z', &[&status]);
        if self.status == b'I' {
            self.portals.clear();
        }
        self.flushed = self.out.len();
    }

    fn error(&mut self, code: Code, about: &[u8]) {
        self.say(
            b'E',
            &[
                b"SERROR\0VERROR\0C",
                code.as_bytes(),
                b"\0M",
                about,
                b"\0\0",
            ],
        );
        // It never waits for a `Flush`.
        self.flushed = self.out.len();
        if self.status == b'T' {
            self.status = b'E';
        }
        if self.status == b'I' {
            self.portals.clear();
        }
    }

    /// An error of the extended protocol.
    fn fails(&mut self, code: Code, about: &[u8]) {
        self.error(code, about);
        self.skipping = true;
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if let Some(simple) = self.copying {
            return self.data(tag, simple);
        }
        if tag == b'X' {
            self.ended = true;
            return;
        }
        if self.skipping && tag != b'S' {
            return;
        }
        let mut cursor = Cursor::new(body, "x");
        match tag {
            b'S' => {
                self.skipping = false;
                self.ready();
            }
            b'H' => self.flushed = self.out.len(),
            b'd' | b'c' | b'f' => {}
            b'Q' => self.query(cursor.text().unwrap()),
            b'P' => {
                let (name, text) = (cursor.text().unwrap(), cursor.text().unwrap());
                self.parse(name, text);
            }
            b'B' => {
                let (portal, name) = (cursor.text().unwrap(), cursor.text().unwrap());
                self.bind(portal, name);
            }
            b'D' => {
                let [what] = cursor.array().unwrap();
                self.describe(what, cursor.text().unwrap());
            }
            b'C' => {
                let [what] = cursor.array().unwrap();
                let name = cursor.text().unwrap();
                match what {
                    b'S' => drop(self.statements.remove(name)),
                    _ => drop(self.portals.remove(name)),
                }
                self.say(b'3', &[]);
            }
            b'E' => {
                let name = cursor.text().unwrap();
                let most = u32::from_be_bytes(cursor.array().unwrap());
                self.execute(name, usize::try_from(most).unwrap());
            }
            b'F' => self.call(u32::from_be_bytes(cursor.array().unwrap())),
            other => panic!("a message {:?} has reached the server", char::from(other)),
        }
    }

    fn data(&mut self, tag: u8, simple: bool) {
        match tag {
            b'c' => {
                self.completed("COPY 3", 3);
                self.copying = None;
                if simple {
                    self.ready();
                }
            }
            b'f' => {
                self.copying = None;
                if simple {
                    self.error("57014", b"the client gave up");
                    self.ready();
                } else {
                    self.fails("57014", b"the client gave up");
                }
            }
            b'd' | b'H' | b'S' => {}
            b'X' => self.ended = true,
            _ => {
                self.error("08P01", b"unexpected message type");
                self.error("08P01", b"synchronization was lost");
                (self.ended, self.out_of_step) = (true, true);
            }
        }
    }

    fn completed(&mut self, tag: &str, rows: u64) {
        self.say(b'C', &[tag.as_bytes(), b"\0"]);
        self.rows += rows;
    }

    /// Whether it would be refused on the way to a server that does not judge.
    fn refuses(&self, text: &str) -> bool {
        let refused = text.contains(FORBIDDEN) || is_opaque(text);
        assert!(
            self.judges || !refused,
            "{text:?} is executed, and was not admitted"
        );
        refused
    }

    fn query(&mut self, text: &[u8]) {
        let text = std::str::from_utf8(text).unwrap();
        if self.judges && self.refuses(text) {
            self.error(REFUSED, b"no");
            return self.ready();
        }
        // What was refused has not come that far.
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        if text.trim().is_empty() {
            self.say(b'I', &[]);
            return self.ready();
        }
        for text in text.split(';') {
            let mut portal = Portal {
                text: text.trim().to_owned(),
                ..Portal::default()
            };
            match self.run(&mut portal, 0, Some(())) {
                Ok(()) if self.copying.is_some() => return,
                Ok(()) => {}
                Err(code) => {
                    self.error(code, b"it fails");
                    break;
                }
            }
        }
        self.ready();
    }

    fn parse(&mut self, name: &[u8], text: &[u8]) {
        let text = std::str::from_utf8(text).unwrap();
        if name.is_empty() {
            self.statements.remove(name);
        }
        let failed = match self.status {
            _ if text.contains(';') || text.starts_with("FROB") => Some("42601"),
            b'E' if !ends_transaction(text) => Some("25P02"),
            _ if self.statements.contains_key(name) => Some("42P05"),
            _ => None,
        };
        if let Some(code) = failed {
            return self.fails(code, b"it cannot be prepared");
        }
        self.statements.insert(name.to_vec(), text.to_owned());
        self.say(b'1', &[]);
    }

    fn bind(&mut self, portal: &[u8], name: &[u8]) {
        let text = self.statements.get(name).cloned();
        if self.judges && text.as_deref().is_none_or(is_opaque) {
            let code = if text.is_none() { NOT_KNOWN } else { REFUSED };
            return self.fails(code, b"no");
        }
        let failed = match (&text, self.status) {
            (None, _) => Some("26000"),
            (Some(text), b'E') if !ends_transaction(text) => Some("25P02"),
            _ if !portal.is_empty() && self.portals.contains_key(portal) => Some("42P03"),
            _ => None,
        };
        if let Some(code) = failed {
            return self.fails(code, b"it cannot be bound");
        }
        let bound = Portal {
            text: text.unwrap_or_default(),
            ..Portal::default()
        };
        self.portals.insert(portal.to_vec(), bound);
        self.say(b'2', &[]);
    }

    fn describe(&mut self, what: u8, name: &[u8]) {
        let (text, missing) = match what {
            b'S' => (self.statements.get(name), "26000"),
            _ => (self.portals.get(name).map(|portal| &portal.text), "34000"),
        };
        let Some(text) = text.cloned() else {
            return self.fails(missing, b"there is none");
        };
        if self.status == b'E' && text.starts_with("SELECT") {
            return self.fails("25P02", b"the transaction has failed");
        }
        if what == b'S' {
            self.say(b't', &[&[0; 2]]);
        }
        match text.starts_with("SELECT") {
            true => self.say(b'T', &[&[0; 2]]),
            false => self.say(b'n', &[]),
        }
    }

    fn execute(&mut self, name: &[u8], most: usize) {
        let Some(mut portal) = self.portals.remove(name) else {
            if self.judges {
                return self.fails(NOT_KNOWN, b"no");
            }
            let about = [b"portal \"", name, b"\" does not exist"].concat();
            return self.fails("34000", &about);
        };
        // What goes on was judged when it began.
        let goes_on = portal.rows_told > 0 && !portal.done;
        let judged = self.judges && !goes_on && !portal.text.is_empty();
        let done = match judged && self.refuses(&portal.text) {
            true => Err(REFUSED),
            false => self.run(&mut portal, most, None),
        };
        match done {
            Ok(()) if ends_transaction(&portal.text) => self.portals.clear(),
            Ok(()) => drop(self.portals.insert(name.to_vec(), portal)),
            Err(code) => {
                self.portals.insert(name.to_vec(), portal);
                self.fails(code, b"it fails");
            }
        }
    }

    fn call(&mut self, function: u32) {
        // Of large objects, or any.
        let known = super::super::describe::large_object(function).is_some();
        assert!(
            self.judges || known,
            "a function is called that was not admitted"
        );
        let failed = match self.status {
            _ if !known => Some(REFUSED),
            b'E' => Some("25P02"),
            _ => None,
        };
        match failed {
            Some(code) => self.error(code, b"no"),
            None => self.say(b'V', &[&[0xff; 4]]),
        }
        self.ready();
    }

    fn run(&mut self, portal: &mut Portal, most: usize, simple: Option<()>) -> Result<(), Code> {
        let text = portal.text.clone();
        if text.is_empty() {
            // Of several statements an empty one is none.
            if simple.is_none() {
                self.say(b'I', &[]);
            }
            return Ok(());
        }
        assert!(!self.refuses(&text) || self.judges);
        if self.status == b'E' && !ends_transaction(&text) {
            return Err("25P02");
        }
        if portal.done && !text.starts_with("SELECT") {
            return Err("55000");
        }
        match text.split(' ').next().unwrap_or_default() {
            "BEGIN" => {
                self.status = b'T';
                self.completed("BEGIN", 0);
            }
            "COMMIT" | "ROLLBACK" => {
                self.status = b'I';
                self.completed(&text, 0);
            }
            "COPY" if text.ends_with("STDIN") => {
                self.copying = Some(simple.is_some());
                self.say(b'G', &[&[0; 3]]);
                self.flushed = self.out.len();
            }
            "COPY" => {
                self.say(b'H', &[&[0; 3]]);
                self.say(b'd', &[b"1"]);
                self.say(b'c', &[]);
                self.completed("COPY 1", 1);
            }
            "SELECT" if text.contains("broken") => {
                self.say(b'D', &[&[0; 2]]);
                return Err("22012");
            }
            "SELECT" => return self.select(portal, most, simple),
            _ => self.completed("INSERT 0 1", 1),
        }
        portal.done = true;
        Ok(())
    }

    fn select(&mut self, portal: &mut Portal, most: usize, simple: Option<()>) -> Result<(), Code> {
        if simple.is_some() {
            self.say(b'T', &[&[0; 2]]);
        }
        let left = ROWS.saturating_sub(portal.rows_told);
        let now = if most == 0 { left } else { left.min(most) };
        for row in 0..now {
            self.say(
                b'D',
                &[&[0, 0], &[u8::try_from(portal.rows_told + row).unwrap()]],
            );
        }
        portal.rows_told += now;
        if most > 0 && now == most {
            self.say(b's', &[]);
            return Ok(());
        }
        portal.done = true;
        self.completed(&format!("SELECT {now}"), u64::try_from(now).unwrap());
        Ok(())
    }
}

impl Peer for Server {
    fn hears(&mut self, bytes: &[u8]) {
        self.messages(bytes);
    }

    fn said(&self) -> &[u8] {
        &self.out[..self.flushed]
    }
}

fn is_opaque(text: &str) -> bool {
    Analysis::of(text, Dialect::POSTGRES).class() == Class::Opaque
}

fn ends_transaction(text: &str) -> bool {
    matches!(text, "COMMIT" | "ROLLBACK")
}
