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

mod client;
mod named;
mod owed;
mod running;
mod server;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::domain::Refusal;
use crate::gate::{Cleared, Permit};
use crate::metrics::Passage;
use crate::protocols::sql::Flags;

use super::AskAt;
use super::binding::Channels;
use super::limits;
use super::refuse::Poison;
use super::startup::Negotiated;
use super::statement::{Names, Reading, Text};
use super::wire::message;

pub(super) use named::Changes;
use owed::{Executing, Owed, Portal, Prepared};
use running::Running;

/// Longest message that only names something, bytes.
const SMALL_BYTES_MAX: usize = 64 << 10;

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
    /// Replace it: what was decided before leaves it nothing to ask.
    Refuse(Kind, Refusal),
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
    /// What it does to names.
    pub(super) changes: Changes,
}

/// Which message asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    /// Of this portal.
    Execute(Box<[u8]>),
    /// This portal of an opaque statement, as planning may already run functions;
    /// or of any, where that is asked for.
    Bind(Box<[u8]>),
    /// This statement: its first execution.
    Parse(Box<[u8]>),
    Call,
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
    ask_at: AskAt,
    statements: Names<Prepared>,
    portals: Names<Portal>,
    /// The server discards what comes before the next `Sync`.
    skipping: bool,
    /// The answers of a batch that is not ended were asked for.
    flushed: bool,
    /// The server takes data of a `COPY`.
    copying: bool,
    tail: (usize, Tail),
    /// Bytes of a message of the server that are still to come.
    reply_left: usize,
    /// They do not go to the client.
    leaves_out: bool,
    /// An error has gone out that ends the session.
    ended: bool,
    /// Something has been executed since the server was last ready: it reports
    /// changed settings only then.
    executed: bool,
    /// Something has failed or was rolled back since the last transaction ended.
    undone: bool,
    /// The server has said that it ends the session.
    farewell: bool,
    key: Option<Bytes>,
    /// Answered in front of the server's first message, once.
    negotiated: Option<Negotiated>,
    channels: Channels,
    /// The server has just offered to bind to a channel that the client does not see.
    offers_foreign_channel: bool,
    /// What follows once the server is ready is another protocol, which passes.
    replicates: bool,
    /// What has been set that holds for statements behind it. Once set it counts as
    /// set: a rollback may undo it, and only `DISCARD ALL` is sure to.
    earlier: Flags,
    /// The same as the session began.
    began: Flags,
}

impl Conversation {
    pub(super) fn new(
        reading: Reading,
        negotiated: Negotiated,
        channels: Channels,
        ask_at: AskAt,
    ) -> Self {
        Self {
            status: None,
            reading,
            ask_at,
            owed: VecDeque::new(),
            statements: Names::default(),
            portals: Names::default(),
            skipping: false,
            flushed: false,
            copying: false,
            tail: (0, Tail::Drop),
            reply_left: 0,
            leaves_out: false,
            ended: false,
            executed: false,
            undone: false,
            farewell: false,
            key: None,
            negotiated: Some(negotiated),
            channels,
            offers_foreign_channel: false,
            replicates: false,
            earlier: Flags::default(),
            began: Flags::default(),
        }
    }

    /// The session was admitted to replicate: what it says once the server is
    /// ready passes unread, both ways.
    pub(super) fn replicates(&mut self) {
        self.replicates = true;
    }

    /// The session began with settings that may be any.
    pub(super) fn begins_uncertain(&mut self) {
        (self.began, self.earlier) = (Flags::UNCERTAIN, Flags::UNCERTAIN);
    }

    /// What earlier statements have set.
    pub(super) fn earlier(&self) -> Flags {
        self.earlier
    }

    fn is_raw(&self) -> bool {
        self.replicates && self.status.is_some()
    }

    /// Whether a transaction is open: a hold keeps its locks.
    pub(super) fn in_transaction(&self) -> bool {
        self.status != Some(b'I')
    }

    /// The status, where nothing that is under way can change it.
    pub(super) fn settled_status(&self) -> Option<u8> {
        self.status.filter(|_| self.owed.is_empty())
    }

    /// Whether the server has ever been ready.
    pub(super) fn was_ready(&self) -> bool {
        self.status.is_some()
    }

    /// Whether what was executed may have changed how the server reads texts.
    fn is_unsettled(&self) -> bool {
        self.executed || !self.owed.is_empty()
    }

    /// Whether what was passed on ends where a message does.
    pub(super) fn between_requests(&self) -> bool {
        self.tail.0 == 0 && !self.is_raw()
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
        (self.reply_left == 0 || self.leaves_out) && !self.is_raw()
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

    /// The statement of this name, as it will be when the server comes to it.
    /// `None`: an earlier batch gives the name another meaning, or fails and
    /// leaves it its old one; what it does is to be waited for.
    fn statement(&self, name: &[u8]) -> Option<Text> {
        let mut ended = false;
        for owed in self.owed.iter().rev() {
            ended |= owed.ends_batch();
            let text = match owed {
                Owed::Parse(known, prepared) if **known == *name => prepared.text.clone(),
                Owed::Close(b'S', known) if **known == *name => Text::unknown(),
                changing if changing.changes_names() => Text::unknown(),
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
        let known = self.statements.get(name);
        Some(known.map_or_else(Text::unknown, |known| known.text.clone()))
    }

    /// What was admitted when the statement of this name was prepared, once.
    fn admitted(&mut self, name: &[u8]) -> Option<Running> {
        if self.ask_at < AskAt::Parse {
            return None;
        }
        for owed in self.owed.iter_mut().rev() {
            match owed {
                Owed::Parse(known, prepared) if **known == *name => {
                    return prepared.running.take().map(|running| *running);
                }
                Owed::Close(b'S', known) if **known == *name => return None,
                changing if changing.changes_names() => return None,
                Owed::Parse(..)
                | Owed::Bind(..)
                | Owed::Close(..)
                | Owed::Describe
                | Owed::Execute(..)
                | Owed::Sync
                | Owed::Query(_)
                | Owed::Call(_) => {}
            }
        }
        let prepared = self.statements.get_mut(name)?;
        prepared.running.take().map(|running| *running)
    }

    /// The portal of this name, as it will be when the server comes to it.
    fn portal(&mut self, name: &[u8]) -> Result<Option<&mut Portal>, Unanswered> {
        let is_it = |owed: &Owed| {
            owed.changes_names()
                || matches!(owed, Owed::Bind(known, _) | Owed::Close(b'P', known) if **known == *name)
        };
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

    /// The gate said yes to what was asked last. What is sent of `cleared`.
    pub(super) fn granted(
        &mut self,
        kind: Kind,
        text: Text,
        digest: Option<[u8; 32]>,
        permit: Permit,
        changes: Changes,
        cleared: Cleared<Bytes>,
    ) -> Bytes {
        self.executed = true;
        let mut bytes = cleared.into_inner();
        let limit = limits::row_limit(&permit, &kind, &text);
        let cut = limits::row_cut(&permit, &kind, &text);
        let mut running = Running::new(permit);
        if let Some(analysis) = &text.analysis {
            self.earlier = self.earlier.and(analysis.flags().lasting());
        }
        match changes {
            Changes::None => {}
            Changes::Known(changes) => running.changes = Some(changes),
            Changes::Unknown => {
                self.names_are_uncertain();
                self.earlier = Flags::UNCERTAIN;
            }
        }
        running.limit = limit;
        running.cut = cut;
        if let (Some(limit), Kind::Execute(portal)) = (&mut running.limit, &kind) {
            bytes = limit.fit(&bytes);
            if let Ok(Some(portal)) = self.portal(portal) {
                portal.spent = true;
            }
        }
        self.owed.push_back(match kind {
            Kind::Query => Owed::Query(Some(running)),
            Kind::Execute(portal) => Owed::Execute(portal, Executing::Running(running)),
            Kind::Bind(portal) => Owed::Bind(portal, Portal::bound(text, digest, Some(running))),
            Kind::Parse(name) => {
                let running = Some(Box::new(running));
                Owed::Parse(name, Prepared { text, running })
            }
            Kind::Call => Owed::Call(Some(running)),
        });
        bytes
    }

    /// What may prepare statements by SQL, and open cursors, may give their names
    /// other texts.
    fn names_are_uncertain(&mut self) {
        self.statements.clear_named();
        let portals = std::mem::take(&mut self.portals);
        for (name, portal) in portals.into_all() {
            if name.is_empty() || portal.running.is_some() {
                self.portals.put(name, portal);
            }
        }
        for owed in &mut self.owed {
            if let Owed::Parse(name, prepared) = owed
                && !name.is_empty()
            {
                *prepared = Prepared::of(Text::unknown());
            }
            let changes = owed.running_mut().and_then(|one| one.changes.as_mut());
            for change in changes.into_iter().flat_map(|changes| changes.iter_mut()) {
                change.is_uncertain();
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
            Kind::Execute(_) | Kind::Bind(_) | Kind::Parse(_) => execute,
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
}

/// What a name means depends on an answer that is still owed.
struct Unanswered;

/// Why it is not known, or not asked about, what a text does that goes by a name.
enum Unresolved {
    /// See [`Unanswered`].
    Unanswered,
    /// Policy left the rows behind the name a limit, which is counted by the
    /// messages of the protocol alone.
    Limited,
}

impl From<Unanswered> for Unresolved {
    fn from(Unanswered: Unanswered) -> Self {
        Self::Unanswered
    }
}
