//! What is owed to whom, after startup. No sockets, no clock, no gate: bytes
//! and decisions in, bytes and questions out.
//!
//! ```text
//! client            conversation         gate        server
//!   |-- Parse -------->|-- Pass ---------------------->|
//!   |-- Bind --------->|-- Pass ---------------------->|
//!   |-- Execute ------>|-- Ask ---------->|            |
//!   |                  |<- Permit --------|            |
//!   |                  |-- Cleared ------------------->|
//!   |<-----------------------------|- CommandComplete -|  the permit is settled
//! ```
//!
//! A refused message is replaced by an `Execute` that the server is sure to
//! reject, with a `Sync` where it stood for a `Query` or `FunctionCall`; the
//! server's error is rewritten when it comes. So the server keeps the order of
//! answers, skips to `Sync`, aborts the transaction and reports its own status.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::domain::{Answer, Completion, DatabaseAnswer, Outcome};
use crate::gate::Permit;
use crate::metrics::Passage;
use crate::process::clock;
use crate::protocols::sql::TEXT_BYTES_MAX;

use super::binding;
use super::outbox::Outbox;
use super::refuse::Poison;
use super::statement::{Named, Names, Reading, Text};
use super::wire::{Cursor, Fields, HEAD, WireError, head, message, rows};

/// How much of a `Query` or `Parse` is read, bytes: more than a text that is
/// understood, so that one of those is told from one that is cut. What is longer
/// is opaque, and its rest passes once it is permitted.
const STATEMENT_BYTES_MAX: usize = TEXT_BYTES_MAX + (64 << 10);
/// Longest message that only names something, bytes.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// How much of a `Bind` is read before its values pass on, and how much of it
/// counts towards what a retry is compared by, bytes.
const BIND_BYTES_MAX: usize = 64 << 10;
/// How much of an error is read, bytes.
const ERROR_BYTES_MAX: usize = 16 << 10;
/// Most answers owed at once; beyond it the client waits.
const OWED_MAX: usize = 8_192;

/// What to do with what the client just said.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing until more has come, or been answered.
    More,
    /// Forward without asking.
    Pass(Bytes, Passage),
    /// Nothing: the server would discard it.
    Drop,
    /// Ask the gate.
    Ask(Box<Ask>),
    /// The client is done; forward it and end.
    Goodbye(Bytes),
}

/// What is asked about.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) text: Text,
    /// What makes a retry the same execution; `None` where not all was read.
    pub(super) digest: Option<[u8; 32]>,
    /// What is forwarded once it is permitted.
    pub(super) bytes: Bytes,
    /// The function of a `FunctionCall`.
    pub(super) function: Option<u32>,
}

/// Which message asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    /// Of this portal.
    Execute(Box<[u8]>),
    /// This portal of an opaque statement: planning may already run functions.
    Bind(Box<[u8]>),
    Call,
}

/// Whether an execution may give names of prepared statements other texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is known not to.
    Stays,
    /// Its text decides.
    MayChange,
}

/// An admitted execution, and what is known of how it goes.
#[derive(Debug)]
pub(super) struct Running {
    permit: Permit,
    rows: Option<u64>,
    error: Option<Box<str>>,
}

impl Running {
    pub(super) fn new(permit: Permit) -> Self {
        Self {
            permit,
            rows: None,
            error: None,
        }
    }

    fn counted(&mut self, rows: Option<u64>) {
        if let Some(more) = rows {
            self.rows = Some(self.rows.unwrap_or(0).saturating_add(more));
        }
    }

    fn failed(&mut self, fields: &Fields) {
        let text = masked(&fields.text);
        let text = format!("SQLSTATE {}: {text}", fields.code);
        self.error.get_or_insert(text.into());
    }

    fn settle(self, outcome: Outcome) {
        let rows = self.rows;
        self.permit.report(Completion {
            ended_at: clock::now(),
            outcome,
            answer: (outcome == Outcome::Answered)
                .then_some(Answer::Database(DatabaseAnswer { rows })),
            error: self.error,
        });
    }

    fn skipped(mut self) {
        self.error
            .get_or_insert("skipped: an earlier statement of its batch failed".into());
        self.settle(Outcome::Abandoned);
    }

    fn lost(mut self) {
        self.error
            .get_or_insert("the server ended the connection".into());
        self.settle(Outcome::Failed);
    }
}

/// A message of the server without what somebody wrote: values stand in quotes.
fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    for (at, part) in text.split('"').enumerate() {
        if at > 0 {
            masked.push('"');
        }
        // Names stand in pairs of quotes, and so do values.
        masked.push_str(if at % 2 == 0 { part } else { "…" });
    }
    masked
}

/// An answer that the server owes, or will skip.
#[derive(Debug)]
enum Owed {
    Parse(Box<[u8]>, Text),
    Bind(Box<[u8]>, Portal),
    Close(u8, Box<[u8]>),
    Describe,
    Execute(Box<[u8]>, Executing),
    Sync,
    Query(Option<Running>),
    Call(Option<Running>),
}

#[derive(Debug)]
enum Executing {
    Running(Running),
    /// An empty text: nothing was asked, nothing runs.
    Nothing,
    Poisoned(Box<Poison>),
}

#[derive(Debug)]
struct Portal {
    text: Text,
    digest: Option<[u8; 32]>,
    /// Admitted at `Bind` already, or stopped at its row limit.
    running: Option<Running>,
}

impl Named for Portal {
    fn text(&self) -> &Text {
        &self.text
    }
}

/// The rest of a message of the client whose beginning was dealt with.
#[derive(Clone, Copy, Debug)]
enum Tail {
    Pass(Passage),
    Drop,
}

/// One session.
#[derive(Debug)]
pub(super) struct Conversation {
    /// As the server last reported it; `None` before it was ready at all.
    status: Option<u8>,
    reading: Reading,
    owed: VecDeque<Owed>,
    statements: Names<Text>,
    portals: Names<Portal>,
    /// The server discards what comes before the next `Sync`.
    skipping: bool,
    /// The server takes data of a `COPY`.
    copying: bool,
    tail: (usize, Tail),
    /// Bytes of a message of the server that are still to come.
    reply_left: usize,
    /// An error has gone out that ends the session.
    ended: bool,
    /// Something has been executed since the server was last ready: it reports
    /// changed settings only then.
    executed: bool,
    /// The server has said that it ends the session.
    farewell: bool,
    key: Option<Bytes>,
    /// Answered in front of the server's first message, once.
    negotiated: Option<Bytes>,
    /// Whether mechanisms with channel binding are left out of the server's offer.
    unbound: bool,
}

impl Conversation {
    pub(super) fn new(reading: Reading, negotiated: Option<Bytes>) -> Self {
        Self {
            status: None,
            reading,
            owed: VecDeque::new(),
            statements: Names::default(),
            portals: Names::default(),
            skipping: false,
            copying: false,
            tail: (0, Tail::Drop),
            reply_left: 0,
            ended: false,
            executed: false,
            farewell: false,
            key: None,
            negotiated,
            unbound: false,
        }
    }

    /// The client and the server see different channels; see [`binding`].
    pub(super) fn leave_out_channel_binding(&mut self) {
        self.unbound = true;
    }

    /// Whether a transaction is open: a hold keeps its locks.
    pub(super) fn in_transaction(&self) -> bool {
        self.status != Some(b'I')
    }

    /// The status, where nothing that is under way can change it.
    pub(super) fn settled_status(&self) -> Option<u8> {
        self.status.filter(|_| self.owed.is_empty())
    }

    /// Whether what was executed may have changed how the server reads texts.
    fn is_unsettled(&self) -> bool {
        self.executed || !self.owed.is_empty()
    }

    /// Whether what was passed on ends where a message does.
    pub(super) fn between_requests(&self) -> bool {
        self.tail.0 == 0
    }

    /// Whether answers are owed that a `Flush` would bring.
    pub(super) fn owes_answers(&self) -> bool {
        !self.owed.is_empty() && !matches!(self.owed.back(), Some(Owed::Sync | Owed::Query(_)))
    }

    /// Whether an error has gone out that ends the session.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the server has said that it ends the session.
    pub(super) fn said_farewell(&self) -> bool {
        self.farewell
    }

    /// Whether a message may be put between two of the server.
    pub(super) fn between_replies(&self) -> bool {
        self.reply_left == 0
    }

    /// The key that cancels this session, once the server has told it.
    pub(super) fn take_key(&mut self) -> Option<Bytes> {
        self.key.take()
    }

    /// Whether the server discards what comes before the next `Sync`.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Everything that is open ends with the connection to the server.
    pub(super) fn lost(&mut self) {
        for owed in self.owed.drain(..) {
            if let Some(running) = owed.into_running() {
                running.lost();
            }
        }
    }

    // ------------------------------------------------------------ the client

    /// Deals with at most one message of the client.
    pub(super) fn client(&mut self, input: &mut BytesMut) -> Result<Step, WireError> {
        if let Some(step) = self.tail(input) {
            return Ok(step);
        }
        let Some((tag, body)) = head(input, "a message of the client")? else {
            return Ok(Step::More);
        };
        if self.status.is_none() {
            return self.before_ready(tag, body, input);
        }
        if self.owed.len() >= OWED_MAX {
            return Ok(Step::More);
        }
        match tag {
            b'd' | b'c' | b'f' => Ok(self.copy_data(tag, body, input)),
            b'S' => self.sync(body, input),
            b'H' => self.small(body, "Flush", input).map(|bytes| {
                bytes.map_or(Step::More, |bytes| Step::Pass(bytes, Passage::DatabaseFlow))
            }),
            b'X' => self
                .small(body, "Terminate", input)
                .map(|bytes| bytes.map_or(Step::More, Step::Goodbye)),
            _ if self.copying => Err(WireError::Unexpected("client", tag)),
            b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'F' if self.skipping => {
                input.advance(HEAD);
                self.tail = (body, Tail::Drop);
                Ok(Step::Drop)
            }
            b'Q' => self.query(body, input),
            b'P' => self.parse(body, input),
            b'B' => self.bind(body, input),
            b'E' => self.execute(body, input),
            b'D' | b'C' => self.describe_or_close(tag, body, input),
            b'F' => self.call(body, input),
            other => Err(WireError::Unexpected("client", other)),
        }
    }

    fn tail(&mut self, input: &mut BytesMut) -> Option<Step> {
        let (left, what) = self.tail;
        if left == 0 {
            return None;
        }
        let now = left.min(input.len());
        if now == 0 {
            return Some(Step::More);
        }
        self.tail.0 = left.saturating_sub(now);
        let bytes = input.split_to(now);
        Some(match what {
            Tail::Pass(passage) => Step::Pass(bytes.freeze(), passage),
            Tail::Drop => Step::Drop,
        })
    }

    /// Only answers to the server's questions of who it is.
    fn before_ready(
        &mut self,
        tag: u8,
        body: usize,
        input: &mut BytesMut,
    ) -> Result<Step, WireError> {
        match tag {
            b'p' => Ok(
                match self.small(body, "an authentication message", input)? {
                    Some(bytes) => Step::Pass(bytes, Passage::DatabaseLogin),
                    None => Step::More,
                },
            ),
            b'X' => Ok(match self.small(body, "Terminate", input)? {
                Some(bytes) => Step::Goodbye(bytes),
                None => Step::More,
            }),
            // Early, and not wrong: it waits.
            _ => Ok(Step::More),
        }
    }

    /// The whole message, once it is there.
    fn small(
        &mut self,
        body: usize,
        what: &'static str,
        input: &mut BytesMut,
    ) -> Result<Option<Bytes>, WireError> {
        if body > SMALL_BYTES_MAX {
            return Err(WireError::TooLong(what));
        }
        Ok(whole(body, input))
    }

    fn copy_data(&mut self, tag: u8, body: usize, input: &mut BytesMut) -> Step {
        // Outside a COPY the server ignores them.
        if tag != b'd' {
            self.copying = false;
        }
        self.tail = (body, Tail::Pass(Passage::DatabaseCopy));
        Step::Pass(input.split_to(HEAD).freeze(), Passage::DatabaseCopy)
    }

    fn sync(&mut self, body: usize, input: &mut BytesMut) -> Result<Step, WireError> {
        let Some(bytes) = self.small(body, "Sync", input)? else {
            return Ok(Step::More);
        };
        // While it copies the server ignores it.
        if !self.copying {
            self.skipping = false;
            self.owed.push_back(Owed::Sync);
        }
        Ok(Step::Pass(bytes, Passage::DatabaseFlow))
    }

    fn query(&mut self, body: usize, input: &mut BytesMut) -> Result<Step, WireError> {
        let seen = body.min(STATEMENT_BYTES_MAX);
        let Some(bytes) = whole(seen, input) else {
            return Ok(Step::More);
        };
        if seen < body {
            self.tail = rest_of(body, seen);
            return Ok(ask(Kind::Query, Text::too_long(), None, bytes));
        }
        let mut cursor = Cursor::new(bytes.get(HEAD..).unwrap_or_default(), "Query");
        let text = cursor.text()?;
        cursor.finish()?;
        let text = self.reading.read(text, self.is_unsettled());
        if text.is_empty() {
            self.owed.push_back(Owed::Query(None));
            return Ok(Step::Pass(bytes, Passage::DatabaseFlow));
        }
        let digest = Sha256::digest(&bytes).into();
        Ok(ask(Kind::Query, text, Some(digest), bytes))
    }

    fn parse(&mut self, body: usize, input: &mut BytesMut) -> Result<Step, WireError> {
        let seen = body.min(STATEMENT_BYTES_MAX);
        let Some(bytes) = whole(seen, input) else {
            return Ok(Step::More);
        };
        let mut cursor = Cursor::new(bytes.get(HEAD..).unwrap_or_default(), "Parse");
        let name = cursor.name()?;
        if seen < body {
            self.tail = rest_of(body, seen);
            self.owed.push_back(Owed::Parse(name, Text::too_long()));
            return Ok(Step::Pass(bytes, Passage::DatabasePreparation));
        }
        let text = cursor.text()?;
        let types = u16::from_be_bytes(cursor.array()?);
        for _ in 0..types {
            cursor.array::<4>()?;
        }
        cursor.finish()?;
        let text = self.reading.read(text, self.is_unsettled());
        self.owed.push_back(Owed::Parse(name, text));
        Ok(Step::Pass(bytes, Passage::DatabasePreparation))
    }

    fn bind(&mut self, body: usize, input: &mut BytesMut) -> Result<Step, WireError> {
        let seen = body.min(BIND_BYTES_MAX);
        let Some(bytes) = whole(seen, input) else {
            return Ok(Step::More);
        };
        let all = body == seen;
        let read = bytes.get(HEAD..).unwrap_or_default();
        let mut cursor = Cursor::new(read, "Bind");
        let (portal, name) = (cursor.name()?, cursor.name()?);
        let Some(text) = self.statement(&name) else {
            put_back(bytes, input);
            return Ok(Step::More);
        };
        let digest = all.then(|| {
            let mut hash = Sha256::new();
            hash.update(text.text.as_deref().unwrap_or_default());
            hash.update(cursor.rest());
            hash.finalize().into()
        });
        self.tail = rest_of(body, seen);
        if text.is_opaque() {
            return Ok(ask(Kind::Bind(portal), text, digest, bytes));
        }
        self.owed.push_back(Owed::Bind(
            portal,
            Portal {
                text,
                digest,
                running: None,
            },
        ));
        Ok(Step::Pass(bytes, Passage::DatabasePreparation))
    }

    fn execute(&mut self, body: usize, input: &mut BytesMut) -> Result<Step, WireError> {
        let Some(bytes) = self.small(body, "Execute", input)? else {
            return Ok(Step::More);
        };
        let mut cursor = Cursor::new(bytes.get(HEAD..).unwrap_or_default(), "Execute");
        let portal = cursor.name()?;
        cursor.array::<4>()?;
        cursor.finish()?;
        let known = match self.portal(&portal) {
            Ok(Some(known)) => known,
            Ok(None) => return Ok(ask(Kind::Execute(portal), Text::unknown(), None, bytes)),
            Err(Unanswered) => {
                put_back(bytes, input);
                return Ok(Step::More);
            }
        };
        let (text, digest) = (known.text.clone(), known.digest);
        // Decided already: at `Bind`, or when it began.
        if let Some(running) = known.running.take() {
            let executing = Executing::Running(running);
            self.owed.push_back(Owed::Execute(portal, executing));
            return Ok(Step::Pass(bytes, Passage::DatabaseFlow));
        }
        if text.is_empty() {
            self.owed
                .push_back(Owed::Execute(portal, Executing::Nothing));
            return Ok(Step::Pass(bytes, Passage::DatabaseFlow));
        }
        Ok(ask(Kind::Execute(portal), text, digest, bytes))
    }

    fn describe_or_close(
        &mut self,
        tag: u8,
        body: usize,
        input: &mut BytesMut,
    ) -> Result<Step, WireError> {
        let Some(bytes) = self.small(body, "Describe or Close", input)? else {
            return Ok(Step::More);
        };
        let mut cursor = Cursor::new(bytes.get(HEAD..).unwrap_or_default(), "Describe or Close");
        let [what] = cursor.array()?;
        let name = cursor.name()?;
        cursor.finish()?;
        self.owed.push_back(match tag {
            b'C' => Owed::Close(what, name),
            _ => Owed::Describe,
        });
        Ok(Step::Pass(bytes, Passage::DatabasePreparation))
    }

    fn call(&mut self, body: usize, input: &mut BytesMut) -> Result<Step, WireError> {
        // Its arguments pass once it is permitted.
        let seen = body.min(BIND_BYTES_MAX);
        let Some(bytes) = whole(seen, input) else {
            return Ok(Step::More);
        };
        let mut cursor = Cursor::new(bytes.get(HEAD..).unwrap_or_default(), "FunctionCall");
        let function = u32::from_be_bytes(cursor.array()?);
        self.tail = rest_of(body, seen);
        let digest = (seen == body).then(|| Sha256::digest(&bytes).into());
        Ok(Step::Ask(Box::new(Ask {
            kind: Kind::Call,
            text: Text::unknown(),
            digest,
            bytes,
            function: Some(function),
        })))
    }

    /// The statement of this name, as it will be when the server comes to it.
    /// `None`: an earlier batch gives the name another meaning, or fails and
    /// leaves it its old one; what it does is to be waited for.
    fn statement(&self, name: &[u8]) -> Option<Text> {
        let mut ended = false;
        for owed in self.owed.iter().rev() {
            ended |= owed.ends_batch();
            let text = match owed {
                Owed::Parse(known, text) if **known == *name => text.clone(),
                Owed::Close(b'S', known) if **known == *name => Text::unknown(),
                Owed::Parse(..)
                | Owed::Bind(..)
                | Owed::Close(..)
                | Owed::Describe
                | Owed::Execute(..)
                | Owed::Sync
                | Owed::Query(_)
                | Owed::Call(_) => continue,
            };
            return (!ended).then_some(text);
        }
        let known = self.statements.get(name).cloned();
        Some(known.unwrap_or_else(Text::unknown))
    }

    /// The portal of this name, as it will be when the server comes to it.
    fn portal(&mut self, name: &[u8]) -> Result<Option<&mut Portal>, Unanswered> {
        let is_it = |owed: &Owed| matches!(owed, Owed::Bind(known, _) | Owed::Close(b'P', known) if **known == *name);
        let at = self.owed.iter().rposition(is_it);
        let Some(at) = at else {
            return Ok(self.portals.get_mut(name));
        };
        if self.owed.iter().skip(at).any(Owed::ends_batch) {
            return Err(Unanswered);
        }
        Ok(match self.owed.get_mut(at) {
            Some(Owed::Bind(_, portal)) => Some(portal),
            Some(_) | None => None,
        })
    }

    /// The gate said yes to what was asked last.
    pub(super) fn granted(
        &mut self,
        kind: Kind,
        text: Text,
        digest: Option<[u8; 32]>,
        permit: Permit,
        names: Meaning,
    ) {
        if names == Meaning::MayChange && text.renames() {
            self.names_are_uncertain();
        }
        self.executed = true;
        let running = Running::new(permit);
        self.owed.push_back(match kind {
            Kind::Query => Owed::Query(Some(running)),
            Kind::Execute(portal) => Owed::Execute(portal, Executing::Running(running)),
            Kind::Bind(portal) => Owed::Bind(
                portal,
                Portal {
                    text,
                    digest,
                    running: Some(running),
                },
            ),
            Kind::Call => Owed::Call(Some(running)),
        });
    }

    /// What may prepare statements by SQL may give their names other texts.
    fn names_are_uncertain(&mut self) {
        self.statements.clear_named();
        for owed in &mut self.owed {
            if let Owed::Parse(name, text) = owed
                && !name.is_empty()
            {
                *text = Text::unknown();
            }
        }
    }

    /// What was asked last is refused; what stands in its place.
    pub(super) fn refused(&mut self, kind: &Kind, poison: Poison) -> Bytes {
        let execute = poison.execute();
        let poisoned = Executing::Poisoned(Box::new(poison));
        self.owed.push_back(Owed::Execute(Box::default(), poisoned));
        self.drop_rest();
        match kind {
            Kind::Query | Kind::Call => {
                self.owed.push_back(Owed::Sync);
                [execute, message(b'S', &[])].concat().into()
            }
            Kind::Execute(_) | Kind::Bind(_) => execute,
        }
    }

    /// What was asked last no longer has a place: the server discards it.
    pub(super) fn overtaken(&mut self, permit: Permit) {
        self.drop_rest();
        Running::new(permit).skipped();
    }

    /// The rest of what was asked last goes nowhere, as its beginning did not.
    pub(super) fn drop_rest(&mut self) {
        self.tail.1 = Tail::Drop;
    }

    // ------------------------------------------------------------ the server

    /// Moves what has come from the server to the client, and notes what it
    /// answers. Only heads are read, and the bodies of few.
    pub(super) fn server(
        &mut self,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), WireError> {
        let mut run = 0_usize;
        loop {
            let rest = input.get(run..).unwrap_or_default();
            if self.reply_left > 0 {
                let now = self.reply_left.min(rest.len());
                if now == 0 {
                    break;
                }
                run = run.saturating_add(now);
                self.reply_left = self.reply_left.saturating_sub(now);
                continue;
            }
            let Some((tag, body)) = head(rest, "a message of the server")? else {
                break;
            };
            self.expected(tag, body)?;
            let seen = body.min(self.reads(tag)?);
            let Some(frame) = rest.get(HEAD..HEAD.saturating_add(seen)) else {
                break;
            };
            match self.reply(tag, frame, body == seen)? {
                Reply::Forward => {
                    run = run.saturating_add(HEAD).saturating_add(seen);
                    self.reply_left = body.saturating_sub(seen);
                }
                Reply::Instead(bytes) => {
                    out.push(input.split_to(run).freeze());
                    input.advance(HEAD.saturating_add(seen));
                    out.push(bytes);
                    run = 0;
                }
                Reply::InFront(bytes) => {
                    out.push(input.split_to(run).freeze());
                    out.push(bytes);
                    run = HEAD.saturating_add(seen);
                    self.reply_left = body.saturating_sub(seen);
                }
            }
            if self.ended {
                input.truncate(run);
                break;
            }
        }
        out.push(input.split_to(run).freeze());
        Ok(())
    }

    /// Before it is ready a server says little. What is no message of that is
    /// another protocol's, and its length nothing to wait for.
    fn expected(&self, tag: u8, body: usize) -> Result<(), WireError> {
        if self.status.is_some() {
            return Ok(());
        }
        if !b"RKSZENv".contains(&tag) {
            return Err(WireError::Unexpected("server", tag));
        }
        if body > SMALL_BYTES_MAX {
            return Err(WireError::TooLong("a login message"));
        }
        Ok(())
    }

    /// How much of a message's body is read.
    fn reads(&self, tag: u8) -> Result<usize, WireError> {
        Ok(match tag {
            b'Z' => 1,
            b'C' => 128,
            b'E' => ERROR_BYTES_MAX,
            b'S' => 1_024,
            b'K' => 260,
            b'R' | b'v' => SMALL_BYTES_MAX,
            b'W' => return Err(WireError::Unexpected("server", tag)),
            _ => 0,
        })
    }

    fn reply(&mut self, tag: u8, body: &[u8], whole: bool) -> Result<Reply, WireError> {
        if self.status.is_none()
            && let Some(reply) = self.login(tag, body, whole)?
        {
            return Ok(reply);
        }
        match tag {
            b'Z' => self.ready(body)?,
            b'C' | b'I' => self.complete(tag, body)?,
            b's' => self.suspended()?,
            b'E' => return Ok(self.error(body, whole)),
            b'S' => {
                let mut cursor = Cursor::new(body, "ParameterStatus");
                if whole && let (Ok(name), Ok(value)) = (cursor.text(), cursor.text()) {
                    self.reading.reported(name, value);
                }
            }
            b'1' => match self.owed.pop_front() {
                Some(Owed::Parse(name, text)) => self.statements.put(name, text),
                _ => return Err(WireError::Unexpected("server", tag)),
            },
            b'2' => match self.owed.pop_front() {
                Some(Owed::Bind(name, portal)) => self.opened(name, portal),
                _ => return Err(WireError::Unexpected("server", tag)),
            },
            b'3' => match self.owed.pop_front() {
                Some(Owed::Close(b'S', name)) => drop(self.statements.take(&name)),
                Some(Owed::Close(_, name)) => self.closed(&name),
                _ => return Err(WireError::Unexpected("server", tag)),
            },
            b'T' | b'n' if matches!(self.owed.front(), Some(Owed::Describe)) => {
                drop(self.owed.pop_front());
            }
            b'G' => self.copies_in(),
            _ => {}
        }
        Ok(Reply::Forward)
    }

    fn login(&mut self, tag: u8, body: &[u8], whole: bool) -> Result<Option<Reply>, WireError> {
        match tag {
            b'R' | b'v' | b'K' if !whole => return Err(WireError::TooLong("a login message")),
            b'K' => self.key = Some(Bytes::copy_from_slice(body)),
            _ => {}
        }
        let unbound = (tag == b'R' && self.unbound)
            .then(|| binding::without(body))
            .flatten();
        match self.negotiated.take() {
            // Ours names everything that was not passed on, and the newest
            // version that both sides speak is no newer than ours.
            Some(ours) if tag == b'v' => Ok(Some(Reply::Instead(ours))),
            Some(ours) if unbound.is_some() => {
                let both = [ours, unbound.unwrap_or_default()].concat();
                Ok(Some(Reply::Instead(both.into())))
            }
            Some(ours) if tag != b'E' => Ok(Some(Reply::InFront(ours))),
            Some(_) | None => Ok(unbound.map(Reply::Instead)),
        }
    }

    fn opened(&mut self, name: Box<[u8]>, portal: Portal) {
        self.closed(&name);
        self.portals.put(name, portal);
    }

    fn closed(&mut self, name: &[u8]) {
        let closed = self.portals.take(name);
        if let Some(running) = closed.and_then(|portal| portal.running) {
            running.settle(Outcome::Answered);
        }
    }

    fn ready(&mut self, body: &[u8]) -> Result<(), WireError> {
        let [status] = *body else {
            return Err(WireError::Malformed("ReadyForQuery"));
        };
        self.status = Some(status);
        self.copying = false;
        while let Some(owed) = self.owed.pop_front() {
            let last = owed.ends_batch();
            match owed.into_running() {
                Some(running) if last => running.settle(Outcome::Answered),
                Some(running) => running.skipped(),
                None => {}
            }
            if last {
                break;
            }
        }
        self.executed &= !self.owed.is_empty();
        if status == b'I' {
            self.forget_portals();
        }
        Ok(())
    }

    /// They end with their transaction.
    fn forget_portals(&mut self) {
        let ended = std::mem::take(&mut self.portals);
        for portal in ended.into_all() {
            if let Some(running) = portal.running {
                running.settle(Outcome::Answered);
            }
        }
    }

    fn complete(&mut self, tag: u8, body: &[u8]) -> Result<(), WireError> {
        let rows = if tag == b'C' { rows(body) } else { None };
        match self.owed.front_mut() {
            Some(Owed::Query(running)) => {
                if let Some(running) = running {
                    running.counted(rows);
                }
            }
            Some(Owed::Execute(..)) => {
                if let Some(mut running) = self.owed.pop_front().and_then(Owed::into_running) {
                    running.counted(rows);
                    running.settle(Outcome::Answered);
                }
            }
            _ => return Err(WireError::Unexpected("server", tag)),
        }
        self.copying = false;
        Ok(())
    }

    /// The row limit was reached: an `Execute` of the same portal goes on.
    fn suspended(&mut self) -> Result<(), WireError> {
        let Some(Owed::Execute(name, executing)) = self.owed.pop_front() else {
            return Err(WireError::Unexpected("server", b's'));
        };
        if let Executing::Running(running) = executing {
            match self.portals.get_mut(&name) {
                Some(portal) => portal.running = Some(running),
                None => running.settle(Outcome::Answered),
            }
        }
        Ok(())
    }

    fn error(&mut self, body: &[u8], whole: bool) -> Reply {
        let fields = Fields::of(body);
        self.copying = false;
        self.farewell |= fields.fatal;
        match self.owed.front_mut() {
            Some(Owed::Query(running) | Owed::Call(running)) => {
                if let Some(running) = running {
                    running.failed(&fields);
                }
                return Reply::Forward;
            }
            // What fails at the end of a transaction; and what nobody asked for.
            Some(Owed::Sync) | None => return Reply::Forward,
            Some(_) => {}
        }
        let mut instead = None;
        if let Some(Owed::Execute(_, executing)) = self.owed.front_mut() {
            match executing {
                Executing::Poisoned(poison) if poison.is_meant(&fields.code, &fields.text) => {
                    self.ended = poison.ends;
                    instead = Some(poison.error());
                }
                Executing::Running(running) => running.failed(&fields),
                Executing::Poisoned(_) | Executing::Nothing => {}
            }
        }
        self.skip_batch();
        match instead {
            Some(error) if whole => Reply::Instead(error),
            Some(_) | None => Reply::Forward,
        }
    }

    /// The server discards everything up to `Sync`.
    fn skip_batch(&mut self) {
        let mut first = true;
        while let Some(owed) = self.owed.front() {
            if matches!(owed, Owed::Sync) {
                return;
            }
            let running = self.owed.pop_front().and_then(Owed::into_running);
            match running {
                Some(running) if first => running.settle(Outcome::Answered),
                Some(running) => running.skipped(),
                None => {}
            }
            first = false;
        }
        self.skipping = true;
    }

    fn copies_in(&mut self) {
        self.copying = true;
        // What was sent behind the `Execute` is ignored by a server that copies.
        while matches!(self.owed.get(1), Some(Owed::Sync))
            && matches!(self.owed.front(), Some(Owed::Execute(..)))
        {
            drop(self.owed.remove(1));
        }
    }
}

impl Owed {
    /// Whether `ReadyForQuery` answers it.
    fn ends_batch(&self) -> bool {
        match self {
            Self::Sync | Self::Query(_) | Self::Call(_) => true,
            Self::Parse(..)
            | Self::Bind(..)
            | Self::Close(..)
            | Self::Describe
            | Self::Execute(..) => false,
        }
    }

    fn into_running(self) -> Option<Running> {
        match self {
            Self::Query(running) | Self::Call(running) => running,
            Self::Execute(_, Executing::Running(running)) => Some(running),
            Self::Bind(_, portal) => portal.running,
            Self::Execute(_, Executing::Nothing | Executing::Poisoned(_))
            | Self::Parse(..)
            | Self::Close(..)
            | Self::Describe
            | Self::Sync => None,
        }
    }
}

/// What a name means depends on an answer that is still owed.
struct Unanswered;

enum Reply {
    Forward,
    Instead(Bytes),
    InFront(Bytes),
}

/// What passes once the beginning of a message has been dealt with.
fn rest_of(body: usize, seen: usize) -> (usize, Tail) {
    let passes = Tail::Pass(Passage::DatabasePreparation);
    (body.saturating_sub(seen), passes)
}

fn ask(kind: Kind, text: Text, digest: Option<[u8; 32]>, bytes: Bytes) -> Step {
    Step::Ask(Box::new(Ask {
        kind,
        text,
        digest,
        bytes,
        function: None,
    }))
}

/// Undoes [`whole`].
fn put_back(bytes: Bytes, input: &mut BytesMut) {
    let rest = input.split();
    input.unsplit(BytesMut::from(bytes));
    input.unsplit(rest);
}

/// The head and `body` bytes behind it, once they are there.
fn whole(body: usize, input: &mut BytesMut) -> Option<Bytes> {
    let length = HEAD.saturating_add(body);
    (input.len() >= length).then(|| input.split_to(length).freeze())
}
