//! What the server answers: heads are read, and the bodies of few.

use bytes::{Buf, Bytes, BytesMut};

use crate::domain::Outcome;
use crate::protocols::pipe::Outbox;

use super::super::binding::{self, Channels};
use super::super::limits::{RowCut, RowLimit};
use super::super::wire::{Cursor, Fields, HEAD, WireError, head, message, rows};
use super::owed::{Executing, Owed, Portal};
use super::{Conversation, SMALL_BYTES_MAX};

/// How much of an error is read, bytes.
const ERROR_BYTES_MAX: usize = 16 << 10;

enum Reply {
    Forward,
    Instead(Bytes),
    InFront(Bytes),
    LeaveOut,
}

impl Conversation {
    /// Moves what has come from the server to the client, and notes what it
    /// answers. Only heads are read, and the bodies of few.
    pub(in crate::protocols::postgres) fn server(
        &mut self,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), WireError> {
        let mut run = 0_usize;
        loop {
            if self.is_raw() {
                run = input.len();
                break;
            }
            if self.reply_left > 0 {
                let now = self.reply_left.min(input.len().saturating_sub(run));
                if now == 0 {
                    break;
                }
                run = match self.leaves_out {
                    true => leave_out(now, run, input, out),
                    false => run.saturating_add(now),
                };
                self.reply_left = self.reply_left.saturating_sub(now);
                self.leaves_out &= self.reply_left > 0;
                continue;
            }
            let rest = input.get(run..).unwrap_or_default();
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
                    run = leave_out(HEAD.saturating_add(seen), run, input, out);
                    out.push(bytes);
                }
                Reply::LeaveOut => {
                    run = leave_out(HEAD.saturating_add(seen), run, input, out);
                    self.reply_left = body.saturating_sub(seen);
                    self.leaves_out = self.reply_left > 0;
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
            b'D' if self.cut().is_some_and(RowCut::leaves_out) => return Ok(Reply::LeaveOut),
            b'C' | b'I' => return self.complete(tag, body, whole),
            b's' => return self.suspended(),
            b'E' => return Ok(self.error(body, whole)),
            b'S' => {
                let mut cursor = Cursor::new(body, "ParameterStatus");
                if whole && let (Ok(name), Ok(value)) = (cursor.text(), cursor.text()) {
                    self.reading.reported(name, value);
                }
            }
            b'1' => match self.owed.pop_front() {
                Some(Owed::Parse(name, prepared)) => self.statements.put(name, prepared),
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
        let offer = (tag == b'R' && self.channels != Channels::Same)
            .then(|| binding::without(body))
            .flatten();
        let unbound = match self.channels {
            Channels::Same => None,
            Channels::NoneHere => offer,
            Channels::Differ => {
                self.offers_foreign_channel = offer.is_some();
                None
            }
        };
        let told = match self.negotiated.take() {
            Some(negotiated) if tag != b'E' => negotiated.told((tag == b'v').then_some(body)),
            Some(_) | None => None,
        };
        Ok(match (told, unbound) {
            (Some(ours), _) if tag == b'v' => Some(Reply::Instead(ours)),
            (Some(ours), Some(unbound)) => Some(Reply::Instead([ours, unbound].concat().into())),
            (Some(ours), None) => Some(Reply::InFront(ours)),
            (None, unbound) => unbound.map(Reply::Instead),
        })
    }

    pub(super) fn opened(&mut self, name: Box<[u8]>, portal: Portal) {
        self.closed(&name);
        self.portals.put(name, portal);
    }

    pub(super) fn closed(&mut self, name: &[u8]) {
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
            self.transaction_ended();
        }
        Ok(())
    }

    /// Portals end with it, but for cursors that were made to last, where it was
    /// committed for certain.
    fn transaction_ended(&mut self) {
        let undone = std::mem::take(&mut self.undone);
        self.forget_portals(|portal| portal.lasts && !undone);
    }

    pub(super) fn forget_portals(&mut self, but: impl Fn(&Portal) -> bool) {
        let ended = std::mem::take(&mut self.portals);
        for (name, portal) in ended.into_all() {
            if but(&portal) {
                self.portals.put(name, portal);
            } else if let Some(running) = portal.running {
                running.settle(Outcome::Answered);
            }
        }
    }

    /// What leaves rows out of the answer that comes now.
    fn cut(&mut self) -> Option<&mut RowCut> {
        match self.owed.front_mut() {
            Some(Owed::Query(Some(running)) | Owed::Execute(_, Executing::Running(running))) => {
                running.cut.as_mut()
            }
            _ => None,
        }
    }

    fn complete(&mut self, tag: u8, body: &[u8], whole: bool) -> Result<Reply, WireError> {
        let cut = self.cut().filter(|_| tag == b'C' && whole);
        let instead = cut.and_then(|cut| cut.complete(body));
        let rows = match tag {
            b'C' => rows(instead.as_deref().unwrap_or(body)),
            _ => None,
        };
        self.changed(body);
        self.undone |= body.starts_with(b"ROLLBACK");
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
        Ok(match instead {
            Some(tag) => Reply::Instead(message(b'C', &[&tag])),
            None => Reply::Forward,
        })
    }

    /// The row limit was reached: an `Execute` of the same portal goes on.
    fn suspended(&mut self) -> Result<Reply, WireError> {
        let Some(Owed::Execute(name, executing)) = self.owed.pop_front() else {
            return Err(WireError::Unexpected("server", b's'));
        };
        if let Executing::Running(mut running) = executing {
            if let Some(cut) = &mut running.cut {
                cut.goes_on();
            }
            let reached = running.limit.as_mut().and_then(RowLimit::reached);
            if let Some(rows) = reached {
                running.counted(Some(rows.into()));
                running.settle(Outcome::Answered);
                let tag = format!("SELECT {rows}");
                return Ok(Reply::Instead(message(b'C', &[tag.as_bytes(), b"\0"])));
            }
            match self.portals.get_mut(&name) {
                Some(portal) => {
                    portal.spent = false;
                    portal.running = Some(running);
                }
                None => running.settle(Outcome::Answered),
            }
        }
        Ok(Reply::Forward)
    }

    fn error(&mut self, body: &[u8], whole: bool) -> Reply {
        let fields = Fields::of(body);
        self.copying = false;
        self.undone = true;
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
        } else if let Some(running) = self.owed.front_mut().and_then(Owed::running_mut) {
            running.failed(&fields);
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
        let ended = match self.owed.front_mut() {
            Some(Owed::Execute(_, Executing::Running(running)) | Owed::Query(Some(running))) => {
                running.data_ended.take()
            }
            _ => None,
        };
        self.copying = ended.is_none();
        // What was sent behind the `Execute` is ignored by a server that copies.
        let mut left = ended.unwrap_or(usize::MAX);
        while left > 0
            && matches!(self.owed.get(1), Some(Owed::Sync))
            && matches!(self.owed.front(), Some(Owed::Execute(..)))
        {
            drop(self.owed.remove(1));
            left = left.saturating_sub(1);
        }
    }
}

/// Lets `run` bytes go and leaves out those behind it; how many run again.
fn leave_out(bytes: usize, run: usize, input: &mut BytesMut, out: &mut Outbox) -> usize {
    out.push(input.split_to(run).freeze());
    input.advance(bytes);
    0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Reason, Refusal};
    use crate::gate::Refused;
    use crate::process::clock;
    use crate::protocols::postgres::AskAt;
    use crate::protocols::postgres::conversation::{Kind, Step};
    use crate::protocols::postgres::refuse::Poison;
    use crate::protocols::postgres::startup::Negotiated;
    use crate::protocols::postgres::statement::Reading;
    use crate::protocols::sql::Analyses;

    #[test]
    fn c_10_the_refusal_of_a_halted_run_is_the_last_that_a_client_hears() {
        let reading = Reading::new(Arc::new(Analyses::new(1 << 20)));
        let channels = Channels::Same;
        let mut talk = Conversation::new(reading, Negotiated::plain(), channels, AskAt::Execute);
        let mut out = Outbox::default();
        let greeting = [message(b'R', &[&[0; 4]]), message(b'Z', &[b"I"])].concat();
        talk.server(&mut BytesMut::from(&*greeting), &mut out)
            .unwrap();
        let mut said = BytesMut::from(&*message(b'Q', &[b"SELECT 1\0"]));
        assert!(matches!(talk.client(&mut said), Ok(Step::Ask(_))));
        let poison = Poison::of(&Refused::unasked(
            Refusal::Halted(Reason::from_peer("a test")),
            clock::operation_id(clock::now()),
        ));
        let sent = talk.refused(&Kind::Query, poison);
        let marker = String::from_utf8_lossy(&sent[HEAD..]).into_owned();
        let marker = marker.split('\0').next().unwrap();
        let text = format!("Mportal \"{marker}\" does not exist\0\0");
        let error = message(b'E', &[b"SERROR\0VERROR\0C34000\0", text.as_bytes()]);
        let answer = [error, message(b'Z', &[b"I"])].concat();
        let before = out.len();
        talk.server(&mut BytesMut::from(&*answer), &mut out)
            .unwrap();
        let heard = out.concat().split_off(before);
        let fields = Fields::of(&heard[HEAD..]);
        assert!(fields.fatal && talk.has_ended(), "{fields:?}");
        assert!(!heard.ends_with(&message(b'Z', &[b"I"])));
    }
}
