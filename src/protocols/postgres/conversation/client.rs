//! What a client says: one message at a time, read no further than it must be.

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::domain::Refusal;
use crate::metrics::Passage;
use crate::protocols::sql::TEXT_BYTES_MAX;

use super::super::binding;
use super::super::statement::Text;
use super::super::wire::{Cursor, HEAD, WireError, head};
use super::owed::{Executing, Owed, Portal};
use super::{Ask, Conversation, Kind, SMALL_BYTES_MAX, Step, Tail, Unanswered};

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
                spent: false,
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
        if known.spent {
            let why = "no more rows of this portal may be read";
            let refusal = Refusal::ConstraintNotApplicable(why.into());
            return Ok(Step::Refuse(Kind::Execute(portal), refusal));
        }
        let (text, digest) = (known.text.clone(), known.digest);
        // Decided already: at `Bind`, or when it began.
        if let Some(mut running) = known.running.take() {
            known.spent = running.limit.is_some();
            let bytes = match &mut running.limit {
                Some(limit) => limit.fit(&bytes),
                None => bytes,
            };
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
