//! What a client says: one message at a time, read no further than it must be.

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::domain::Refusal;
use crate::metrics::Passage;
use crate::protocols::sql::TEXT_BYTES_MAX;

use super::super::AskAt;
use super::super::binding;
use super::super::describe::large_object;
use super::super::statement::Text;
use super::super::wire::{Cursor, HEAD, WireError, head, message};
use super::named::Changes;
use super::owed::{Executing, Owed, Portal, Prepared};
use super::{Ask, Conversation, Kind, SMALL_BYTES_MAX, Step, Tail, Unanswered, Unresolved};

/// How much of a `Query` or `Parse` is read, bytes: more than a text that is
/// understood, so that one of those is told from one that is cut. What is longer
/// is opaque, and its rest passes once it is permitted.
const STATEMENT_BYTES_MAX: usize = TEXT_BYTES_MAX + (64 << 10);
/// How much of a `Bind` is read before its values pass on, and how much of it
/// counts towards what a retry is compared by, bytes.
const BIND_BYTES_MAX: usize = 64 << 10;
/// Most answers owed at once; beyond it the client waits.
const OWED_MAX: usize = 8_192;

impl Conversation {
    /// Deals with at most one message of the client.
    pub(in crate::protocols::postgres) fn client(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Step, WireError> {
        if let Some(step) = self.tail(input) {
            return Ok(step);
        }
        if self.is_raw() {
            return Ok(match input.is_empty() {
                true => Step::More,
                false => Step::Pass(input.split().freeze(), Passage::DatabaseReplication),
            });
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
        self.flushed &= self.in_batch();
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
            b'Q' | b'F' if self.in_batch() => Ok(self.flush_first()),
            b'Q' => self.query(body, input),
            b'P' => self.parse(body, input),
            b'B' => self.bind(body, input),
            b'E' => self.execute(body, input),
            b'D' | b'C' => self.describe_or_close(tag, body, input),
            b'F' => self.call(body, input),
            other => Err(WireError::Unexpected("client", other)),
        }
    }

    /// Whether what the server still answers is of a batch that no `Sync` has
    /// ended.
    fn in_batch(&self) -> bool {
        self.owed.back().is_some_and(|owed| !owed.ends_batch())
    }

    /// A server that fails in a batch discards what comes before `Sync`, a
    /// `Query` too; one that is refused would bring a `Sync` of its own, and end
    /// what the client has not. So what came before is answered first.
    fn flush_first(&mut self) -> Step {
        if std::mem::replace(&mut self.flushed, true) {
            return Step::More;
        }
        Step::Pass(message(b'H', &[]), Passage::DatabaseFlow)
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
                    Some(bytes) => {
                        let offered = std::mem::take(&mut self.offers_foreign_channel);
                        if offered && binding::binds(bytes.get(HEAD..).unwrap_or_default()) {
                            return Err(WireError::ForeignChannel);
                        }
                        Step::Pass(bytes, Passage::DatabaseLogin)
                    }
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
        if tag != b'd' && !std::mem::take(&mut self.copying) {
            self.ends_data_ahead();
        }
        self.tail = (body, Tail::Pass(Passage::DatabaseCopy));
        Step::Pass(input.split_to(HEAD).freeze(), Passage::DatabaseCopy)
    }

    /// The data of a COPY ends before the server has said that it takes some:
    /// then the `Sync`s sent in between are ignored, and later ones are not.
    fn ends_data_ahead(&mut self) {
        let mut syncs = 0_usize;
        for owed in self.owed.iter_mut().rev() {
            match owed {
                Owed::Sync => syncs = syncs.saturating_add(1),
                Owed::Execute(_, Executing::Running(running)) | Owed::Query(Some(running)) => {
                    running.data_ended.get_or_insert(syncs);
                    return;
                }
                Owed::Parse(..)
                | Owed::Bind(..)
                | Owed::Close(..)
                | Owed::Describe
                | Owed::Execute(..)
                | Owed::Query(None)
                | Owed::Call(_) => return,
            }
        }
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
        let (text, changes) = match self.resolved(text) {
            Ok(resolved) => resolved,
            Err(Unresolved::Limited) => return Ok(no_more_rows(Kind::Query)),
            Err(Unresolved::Unanswered) => {
                put_back(bytes, input);
                return Ok(Step::More);
            }
        };
        let digest = Some(Sha256::digest(&bytes).into());
        Ok(ask_named(Kind::Query, text, digest, bytes, changes))
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
            return Ok(self.prepare(name, Text::too_long(), None, bytes));
        }
        let text = cursor.text()?;
        let types = u16::from_be_bytes(cursor.array()?);
        for _ in 0..types {
            cursor.array::<4>()?;
        }
        cursor.finish()?;
        let text = self.reading.read(text, self.is_unsettled());
        let digest = (self.ask_at == AskAt::Parse).then(|| Sha256::digest(&bytes).into());
        Ok(self.prepare(name, text, digest, bytes))
    }

    fn prepare(
        &mut self,
        name: Box<[u8]>,
        text: Text,
        digest: Option<[u8; 32]>,
        bytes: Bytes,
    ) -> Step {
        if self.ask_at == AskAt::Parse && !text.is_empty() && !text.goes_by_name() {
            return ask(Kind::Parse(name), text, digest, bytes);
        }
        self.owed.push_back(Owed::Parse(name, Prepared::of(text)));
        Step::Pass(bytes, Passage::DatabasePreparation)
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
        let admitted = self.admitted(&name);
        let early = text.is_opaque() || (self.ask_at >= AskAt::Bind && !text.is_empty());
        if admitted.is_none() && early && !text.goes_by_name() {
            return Ok(ask(Kind::Bind(portal), text, digest, bytes));
        }
        let portal_of = Portal::bound(text, digest, admitted);
        self.owed.push_back(Owed::Bind(portal, portal_of));
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
        if known.spent {
            return Ok(no_more_rows(Kind::Execute(portal)));
        }
        let (text, digest) = (known.text.clone(), known.digest);
        // Decided already: at `Bind`, or when it began.
        if let Some(mut running) = known.running.take() {
            known.spent = running.limit.is_some();
            let bytes = match &mut running.limit {
                Some(limit) => limit.fit(&bytes),
                None => bytes,
            };
            if text.is_opaque() {
                self.names_are_uncertain();
            }
            let executing = Executing::Running(running);
            self.owed.push_back(Owed::Execute(portal, executing));
            return Ok(Step::Pass(bytes, Passage::DatabaseFlow));
        }
        if text.is_empty() {
            self.owed
                .push_back(Owed::Execute(portal, Executing::Nothing));
            return Ok(Step::Pass(bytes, Passage::DatabaseFlow));
        }
        let (text, changes) = match self.resolved(text) {
            Ok(resolved) => resolved,
            Err(Unresolved::Limited) => return Ok(no_more_rows(Kind::Execute(portal))),
            Err(Unresolved::Unanswered) => {
                put_back(bytes, input);
                return Ok(Step::More);
            }
        };
        let kind = Kind::Execute(portal);
        Ok(ask_named(kind, text, digest, bytes, changes))
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
            changes: match large_object(function) {
                Some(_) => Changes::None,
                None => Changes::Unknown,
            },
        })))
    }
}

/// The rows that policy left a portal have come, or are counted where this does
/// not ask for them.
fn no_more_rows(kind: Kind) -> Step {
    let why = "no more rows of this portal may be read";
    Step::Refuse(kind, Refusal::ConstraintNotApplicable(why.into()))
}

/// What passes once the beginning of a message has been dealt with.
fn rest_of(body: usize, seen: usize) -> (usize, Tail) {
    let passes = Tail::Pass(Passage::DatabasePreparation);
    (body.saturating_sub(seen), passes)
}

fn ask(kind: Kind, text: Text, digest: Option<[u8; 32]>, bytes: Bytes) -> Step {
    let changes = Changes::of(&text);
    ask_named(kind, text, digest, bytes, changes)
}

fn ask_named(
    kind: Kind,
    text: Text,
    digest: Option<[u8; 32]>,
    bytes: Bytes,
    changes: Changes,
) -> Step {
    // The same words mean another statement once their name does.
    let digest = match &text.text {
        Some(shown) if text.goes_by_name() => {
            digest.map(|digest| Sha256::digest([&digest[..], shown.as_bytes()].concat()).into())
        }
        Some(_) | None => digest,
    };
    Step::Ask(Box::new(Ask {
        kind,
        text,
        digest,
        bytes,
        function: None,
        changes,
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
