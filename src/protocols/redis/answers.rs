//! The server's side of a conversation: whose reply is whose.

use bytes::{Buf, Bytes, BytesMut};

use crate::domain::Outcome;
use crate::protocols::pipe::Outbox;

use super::conversation::{Conversation, Login, Owed};
use super::effect::{Effect, Kind, Subscribed};
use super::nodes::Route;
use super::refuse::{self, Then};
use super::reply::{self, Head, ReplyError, first_word};
use super::topology::{self, Answer};

/// What the server is in the middle of saying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unit {
    /// The reply to the oldest command that is owed one.
    #[default]
    Reply,
    /// One of the replies inside that to `EXEC`.
    Element,
    /// A message, an invalidation: nothing that was asked for.
    Aside,
    /// One of the confirmations of a subscription.
    Confirmation(Kind),
}

/// How a reply ends, as its first line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Said {
    #[default]
    Well,
    Queued,
    Null,
    Error(Box<str>),
}

enum Begun {
    Forward(Unit, Said),
    /// All of it is replaced.
    Instead(Bytes, Then),
    /// So many bytes, which are all of it, are replaced.
    Rewritten(Bytes, usize),
    /// The head of the reply to `EXEC`.
    Transaction(u64),
}

impl Conversation {
    /// Whether something may be put between two replies.
    pub(super) fn between_replies(&self) -> bool {
        self.replies.is_over() && self.exec_left.is_none()
    }

    /// Moves what has come from the server to the client, and notes whose it
    /// is. Strings are neither read nor kept.
    ///
    /// # Errors
    /// What no server says.
    pub(super) fn server(
        &mut self,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), ReplyError> {
        let mut run = 0_usize;
        while !self.ended {
            if self.replies.is_over() && self.speaks_here() {
                out.push(input.split_to(run).freeze());
                run = 0;
                self.speak(out);
                continue;
            }
            let rest = input.get(run..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            if let Some(inside) = self.replies.inside(rest) {
                run = run.saturating_add(inside);
                self.over();
                continue;
            }
            let Some(head) = reply::head(rest)? else {
                break;
            };
            if !self.replies.is_over() {
                self.count(&head);
                self.replies.element(&head)?;
                run = run.saturating_add(head.bytes);
                self.over();
                continue;
            }
            let behind = rest.get(head.bytes..).unwrap_or_default();
            let Some(begun) = self.begin(&head, behind, rest)? else {
                break;
            };
            let bytes = head.bytes;
            match begun {
                Begun::Forward(unit, said) => {
                    self.note(unit, said);
                    self.replies.begin();
                    self.replies.element(&head)?;
                    run = run.saturating_add(bytes);
                    self.over();
                }
                Begun::Instead(instead, then) => {
                    out.push(input.split_to(run).freeze());
                    run = 0;
                    input.advance(bytes.min(input.len()));
                    out.push(instead);
                    self.ended |= then == Then::End;
                }
                Begun::Rewritten(instead, bytes) => {
                    out.push(input.split_to(run).freeze());
                    run = 0;
                    input.advance(bytes.min(input.len()));
                    out.push(instead);
                }
                Begun::Transaction(elements) => {
                    run = run.saturating_add(bytes);
                    self.exec_left = Some(elements);
                    self.executed();
                }
            }
        }
        out.push(input.split_to(run).freeze());
        Ok(())
    }

    /// Whether something that is said here comes next.
    fn speaks_here(&self) -> bool {
        let next = self.owed.front();
        let here = next.is_some_and(|owed| owed.effect.is_unanswered());
        self.exec_left.is_none() && (here || !self.due.is_empty())
    }

    /// Says what is due here.
    pub(super) fn speak(&mut self, out: &mut Outbox) {
        if !self.between_replies() {
            return;
        }
        while let Some((bytes, then)) = self.due.pop_front() {
            out.push(bytes);
            self.ended |= then == Then::End;
        }
        while let Some(owed) = self.owed.pop_front_if(|owed| owed.effect.is_unanswered()) {
            if let Effect::Local(bytes, then) = owed.effect {
                out.push(bytes);
                self.ended |= then == Then::End;
            } else if let Effect::Unanswered(effect) = owed.effect {
                let barrier = owed.barrier;
                let owed = Owed::new(owed.running, *effect);
                self.replied(Owed { barrier, ..owed }, Said::Well);
            }
        }
    }

    /// Whose it is what begins; `None` until more is there.
    fn begin(
        &mut self,
        head: &Head<'_>,
        behind: &[u8],
        all: &[u8],
    ) -> Result<Option<Begun>, ReplyError> {
        if let Some(unit) = self.unasked(head, behind)? {
            if self.of_sentinel && unit == Some(Unit::Aside) {
                return self.led(Answer::Message, all);
            }
            return Ok(unit.map(|unit| Begun::Forward(unit, Said::Well)));
        }
        if self.exec_left.is_some() {
            return Ok(Some(Begun::Forward(Unit::Element, said(head))));
        }
        let Some(owed) = self.owed.front() else {
            // A server that lets nobody in says so unasked.
            return match head.is_error() {
                true => Ok(Some(Begun::Forward(Unit::Aside, Said::Well))),
                false => Err(ReplyError::Unasked),
            };
        };
        if let (Effect::Exec, b'*', Some(elements)) = (&owed.effect, head.kind, head.length) {
            return Ok(Some(Begun::Transaction(elements)));
        }
        if let (&Effect::Topology(answer), false) = (&owed.effect, head.is_error()) {
            // Where it is queued, it was refused.
            return self.led(answer, all);
        }
        if let (true, Some(instead)) = (head.whole, self.instead(head)) {
            return Ok(Some(instead));
        }
        Ok(Some(Begun::Forward(Unit::Reply, said(head))))
    }

    /// What names other servers, with where they are reached from here.
    fn led(&mut self, answer: Answer, all: &[u8]) -> Result<Option<Begun>, ReplyError> {
        let Some(bytes) = topology::whole(all)? else {
            return Ok(None);
        };
        let reply = all.get(..bytes).unwrap_or_default();
        let rewritten = match &self.route {
            Some(route) => topology::rewritten(answer, reply, route),
            None => Err(topology::Nowhere::any()),
        };
        if answer == Answer::Message {
            // What leads nowhere is left out.
            let instead = rewritten.unwrap_or_default();
            return Ok(Some(Begun::Rewritten(instead.into(), bytes)));
        }
        self.of_sentinel |= answer.is_of_sentinel();
        let instead = match rewritten {
            Ok(instead) => instead.into(),
            Err(nowhere) => refuse::line("NOPERM", &nowhere.told()),
        };
        if let Some(owed) = self.owed.pop_front() {
            self.replied(owed, Said::Well);
        }
        Ok(Some(Begun::Rewritten(instead, bytes)))
    }

    /// What is no reply. `Some(None)`: not clear yet; `None`: it is one.
    fn unasked(&self, head: &Head<'_>, behind: &[u8]) -> Result<Option<Option<Unit>>, ReplyError> {
        let awaited = match self.owed.front().map(|owed| &owed.effect) {
            Some(Effect::Subscribe(kind, _)) => Some((*kind, true)),
            Some(Effect::Unsubscribe(kind, _)) => Some((*kind, false)),
            _ => None,
        };
        let push = head.kind == b'>';
        let message = head.kind == b'*'
            && head.length.is_some()
            && !self.resp3
            && (awaited.is_some() || self.subscribed.any());
        if !push && !message {
            return Ok(None);
        }
        let Some(word) = first_word(behind)? else {
            return Ok(Some(None));
        };
        let confirmed = match word {
            b"subscribe" => Some((Kind::Channel, true)),
            b"psubscribe" => Some((Kind::Pattern, true)),
            b"ssubscribe" => Some((Kind::Shard, true)),
            b"unsubscribe" => Some((Kind::Channel, false)),
            b"punsubscribe" => Some((Kind::Pattern, false)),
            b"sunsubscribe" => Some((Kind::Shard, false)),
            _ => None,
        };
        Ok(match confirmed {
            Some((kind, _)) if confirmed == awaited => Some(Some(Unit::Confirmation(kind))),
            Some(_) => Some(Some(Unit::Aside)),
            None if push => Some(Some(Unit::Aside)),
            None if matches!(word, b"message" | b"pmessage" | b"smessage") => {
                Some(Some(Unit::Aside))
            }
            None => None,
        })
    }

    /// What the client gets instead of a reply that is one line.
    fn instead(&mut self, head: &Head<'_>) -> Option<Begun> {
        let owed = self.owed.front()?;
        let redirected = || {
            let error = redirected(head, self.route.as_ref());
            error.map(|error| Begun::Instead(error, Then::GoOn))
        };
        let instead = match &owed.effect {
            Effect::Poisoned(poison) if head.kind == b'-' && poison.is_meant(head.text) => {
                if let Some(route) = &self.route {
                    route.server.answers_unknown();
                }
                Begun::Instead(poison.error(), poison.then)
            }
            Effect::Poisoned(_) if head.kind != b'-' => {
                tracing::error!("a server answered a command that cannot exist");
                return None;
            }
            Effect::Spoilt(error) if head.kind == b'+' => Begun::Instead(error.clone(), Then::GoOn),
            Effect::OwnId => {
                self.id = match head.kind {
                    b':' => reply::integer(head.text),
                    _ => None,
                };
                Begun::Instead(Bytes::new(), Then::GoOn)
            }
            Effect::Unblock(asked) if head.kind == b':' && head.text == b"0" => {
                let upstream = self.route.as_ref().map(|route| route.server.upstream())?;
                let ended = self.waiting.ends(upstream, *asked);
                let instead = ended.then(|| Bytes::from_static(b":1\r\n"))?;
                Begun::Instead(instead, Then::GoOn)
            }
            Effect::None
            | Effect::Multi
            | Effect::Exec
            | Effect::Discard
            | Effect::Watch
            | Effect::Unwatch
            | Effect::Select(_)
            | Effect::Hello(_)
            | Effect::Auth(_)
            | Effect::Name(_)
            | Effect::Reset
            | Effect::Reply(_)
            | Effect::Topology(_)
            | Effect::Unblock(_)
            | Effect::Subscribe(..)
            | Effect::Unsubscribe(..)
            | Effect::Poisoned(_)
            | Effect::Spoilt(_)
            | Effect::Unanswered(_)
            | Effect::Local(..) => redirected()?,
        };
        let text = head.text;
        if let Some(owed) = self.owed.pop_front() {
            let said = match head.kind {
                b'-' => Said::Error(error_text(text)),
                _ => Said::Well,
            };
            self.replied(owed, said);
        }
        Some(instead)
    }

    /// Keeps what the end of the reply needs to know.
    fn note(&mut self, unit: Unit, said: Said) {
        (self.unit, self.said) = (unit, said);
        if let Unit::Confirmation(kind) = unit
            && let Some(owed) = self.owed.front_mut()
            && let Effect::Unsubscribe(_, left @ None) = &mut owed.effect
        {
            let there = self.subscribed.of(kind).max(1);
            *left = Some(usize::try_from(there).unwrap_or(usize::MAX));
        }
    }

    /// The count at the end of a confirmation.
    fn count(&mut self, head: &Head<'_>) {
        if let (Unit::Confirmation(kind), true, b':') =
            (self.unit, self.replies.is_last(), head.kind)
            && let Some(total) = reply::integer(head.text)
        {
            self.subscribed
                .counted(kind, u64::try_from(total).unwrap_or(0));
        }
    }

    /// If what was begun is over, says so.
    fn over(&mut self) {
        if !self.replies.is_over() {
            return;
        }
        let said = std::mem::take(&mut self.said);
        match std::mem::take(&mut self.unit) {
            Unit::Aside => {}
            Unit::Reply => {
                if let Some(owed) = self.owed.pop_front() {
                    self.replied(owed, said);
                }
            }
            Unit::Element => {
                if let Some(mut owed) = self.queued.pop_front() {
                    self.apply(&mut owed, &said);
                    settle(owed, said);
                }
                if let Some(left) = &mut self.exec_left {
                    *left = left.saturating_sub(1);
                }
                self.executed();
            }
            Unit::Confirmation(_) => {
                let Some(owed) = self.owed.front_mut() else {
                    return;
                };
                let (Effect::Subscribe(_, left) | Effect::Unsubscribe(_, Some(left))) =
                    &mut owed.effect
                else {
                    return;
                };
                *left = left.saturating_sub(1);
                if *left == 0
                    && let Some(owed) = self.owed.pop_front()
                {
                    settle(owed, Said::Well);
                }
            }
        }
    }

    /// If everything of a transaction has been answered, ends it.
    fn executed(&mut self) {
        if self.exec_left != Some(0) {
            return;
        }
        self.exec_left = None;
        self.multi = false;
        for owed in self.queued.drain(..) {
            settle(owed, Said::Well);
        }
        if let Some(owed) = self.owed.pop_front() {
            if owed.barrier {
                self.barriers = self.barriers.saturating_sub(1);
            }
            settle(owed, Said::Well);
        }
    }

    fn replied(&mut self, mut owed: Owed, said: Said) {
        if owed.barrier {
            self.barriers = self.barriers.saturating_sub(1);
        }
        if self.login != Login::Done {
            self.login = self.login.after(&owed.effect, &said);
        }
        if self.multi && said == Said::Queued {
            self.queued.push_back(owed);
            return;
        }
        self.apply(&mut owed, &said);
        settle(owed, said);
    }

    /// What a reply changes.
    fn apply(&mut self, owed: &mut Owed, said: &Said) {
        match (&mut owed.effect, said) {
            (Effect::Exec, Said::Null) => self.discard("discarded: a watched key has changed"),
            // Whichever it is: servers of a cluster have others than EXECABORT.
            (Effect::Exec, Said::Error(_)) => {
                self.discard("discarded: the transaction was aborted");
            }
            (Effect::Discard | Effect::Spoilt(_), Said::Well) => {
                self.discard("discarded: the client gave the transaction up");
            }
            (_, Said::Error(_) | Said::Null | Said::Queued) => {}
            (Effect::Multi, Said::Well) => self.multi = true,
            (Effect::Select(database), Said::Well) => self.database = *database,
            (Effect::Hello(hello), Said::Well) => {
                if let Some(version) = hello.version {
                    self.resp3 = version == 3;
                }
                if let Some(user) = hello.user.take() {
                    self.user = Some(user);
                }
                if let Some(name) = hello.name.take() {
                    self.client_name = Some(name);
                }
            }
            (Effect::Auth(user), Said::Well) => self.user = user.take(),
            (Effect::Name(name), Said::Well) => {
                self.client_name = Some(std::mem::take(name)).filter(|name| !name.is_empty());
            }
            (Effect::Reset, Said::Well) => {
                self.discard("discarded: the client reset the connection");
                (self.resp3, self.database) = (false, Some(0));
                self.login = Login::Unknown;
                (self.user, self.client_name) = (None, None);
                self.subscribed = Subscribed::default();
            }
            (
                Effect::None
                | Effect::Exec
                | Effect::Watch
                | Effect::Unwatch
                | Effect::Reply(_)
                | Effect::Subscribe(..)
                | Effect::Unsubscribe(..)
                | Effect::Poisoned(_)
                | Effect::Topology(_)
                | Effect::Unblock(_)
                | Effect::OwnId
                | Effect::Unanswered(_)
                | Effect::Local(..),
                Said::Well,
            ) => {}
        }
    }

    fn discard(&mut self, why: &str) {
        self.multi = false;
        for running in self.queued.drain(..).filter_map(|owed| owed.running) {
            running.ended(Outcome::Abandoned, why);
        }
    }
}

impl Login {
    /// As a reply shows it. Some errors come before a server looks who asks.
    fn after(self, effect: &Effect, said: &Said) -> Self {
        match said {
            Said::Error(code) if &**code == "NOAUTH" => Self::Needed,
            Said::Error(_) if !matches!(effect, Effect::OwnId) => self,
            Said::Error(_) | Said::Well | Said::Queued | Said::Null => Self::Done,
        }
    }
}

fn settle(owed: Owed, said: Said) {
    if let Some(mut running) = owed.running {
        if let Said::Error(text) = said {
            running.error = Some(text);
        }
        running.settle(Outcome::Answered);
    }
}

fn said(head: &Head<'_>) -> Said {
    match head.kind {
        b'-' => Said::Error(error_text(head.text)),
        b'!' => Said::Error("ERR".into()),
        b'+' if head.text == b"QUEUED" => Said::Queued,
        _ if head.is_null() => Said::Null,
        _ => Said::Well,
    }
}

/// The code of an error. Its text may hold what a client or a script wrote.
fn error_text(text: &[u8]) -> Box<str> {
    let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_code = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    match std::str::from_utf8(code) {
        Ok(text) if !text.is_empty() && text.len() <= 32 && code.iter().all(is_code) => text.into(),
        _ => "ERR".into(),
    }
}

/// What is said instead of an error that would lead around the sidecar.
fn redirected(head: &Head<'_>, route: Option<&Route>) -> Option<Bytes> {
    if head.kind != b'-' {
        return None;
    }
    let mut leads = ["MOVED ", "ASK ", "REDIRECT "].iter();
    if !leads.any(|word| head.text.starts_with(word.as_bytes())) {
        return None;
    }
    let redirect = route.map(|route| topology::redirect(head.text, route));
    Some(
        match redirect.unwrap_or_else(|| Err(topology::Nowhere::any())) {
            Ok(error) => error.into(),
            Err(nowhere) => refuse::line("ERR", &nowhere.told()),
        },
    )
}
