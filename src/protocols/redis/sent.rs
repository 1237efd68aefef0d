//! The account of what the server was sent: which replies are owed, and how
//! what follows is to be read.

use bytes::Bytes;

use crate::domain::Outcome;
use crate::gate::Permit;

use super::Refusals;
use super::conversation::{Conversation, Owed, Running, Tail};
use super::effect::{Effect, Silence};
use super::refuse::{self, Poison};
use super::request;

impl Conversation {
    /// A command was let through: its reply is owed.
    pub(super) fn granted(&mut self, effect: Effect, permit: Permit) {
        self.tail = Tail::Pass;
        self.sent(Some(Running::new(permit)), effect);
    }

    /// A command was refused. Returns what the server gets instead.
    pub(super) fn refused(&mut self, poison: Poison) -> Option<Bytes> {
        if !self.rest.is_over() {
            self.tail = Tail::Drop(Some(Box::new(poison)));
            return None;
        }
        match self.refusals {
            Refusals::Substitute => {
                let bytes = poison.command();
                self.sent(None, Effect::Poisoned(Box::new(poison)));
                Some(bytes)
            }
            Refusals::Local => {
                self.spoilt |= self.in_transaction;
                if self.silence == Silence::None {
                    self.say(poison.error(), poison.then);
                }
                self.silence = self.silence.after();
                None
            }
        }
    }

    /// `DISCARD` for an `EXEC` of a transaction with a command that the server
    /// never saw.
    pub(super) fn spoilt_exec(&mut self, effect: &Effect) -> Option<Bytes> {
        if !matches!(effect, Effect::Exec) || !std::mem::take(&mut self.spoilt) {
            return None;
        }
        let text = "Transaction discarded because of previous errors.";
        self.sent(None, Effect::Spoilt(refuse::line("EXECABORT", text)));
        Some(request::array(&["DISCARD"]).freeze())
    }

    /// Asks the server what it calls this connection, where that can be asked.
    pub(super) fn asks_own_id(&mut self) -> Option<Bytes> {
        let asks = self
            .owed
            .iter()
            .any(|owed| matches!(owed.effect, Effect::OwnId));
        if self.id.is_some() || asks || !self.may_ask() {
            return None;
        }
        Some(self.question())
    }

    /// Asks the server whether somebody has to log in, if that is waited for:
    /// it says so in answer to any question.
    pub(super) fn asks_login(&mut self) -> Option<Bytes> {
        std::mem::take(&mut self.wants_login).then(|| self.question())
    }

    /// Whether the server can be asked something that the client did not ask.
    pub(super) fn may_ask(&self) -> bool {
        !self.in_transaction
            && self.silence == Silence::None
            && self.rest.is_over()
            && self.refusals == Refusals::Substitute
    }

    fn question(&mut self) -> Bytes {
        self.sent(None, Effect::OwnId);
        request::array(&["CLIENT", "ID"]).freeze()
    }

    /// Keeps account of what the server has been sent.
    pub(super) fn sent(&mut self, running: Option<Running>, effect: Effect) {
        self.owes_unfinished = false;
        // A transaction that changed the database ends: what follows waits.
        let unsettled =
            self.elsewhere && matches!(effect, Effect::Exec | Effect::Discard | Effect::Spoilt(_));
        match &effect {
            Effect::Multi => self.in_transaction = true,
            Effect::Exec | Effect::Discard | Effect::Spoilt(_) => {
                // Outside of one it is an error, and changes nothing.
                self.watches &= !self.in_transaction;
                (self.in_transaction, self.spoilt, self.elsewhere) = (false, false, false);
            }
            Effect::Watch => self.watches = true,
            // Inside of one it is queued.
            Effect::Unwatch => self.watches &= self.in_transaction,
            Effect::Reset => {
                (self.in_transaction, self.spoilt, self.elsewhere) = (false, false, false);
                self.watches = false;
                // An answer that is to be skipped is skipped all the same: its own.
                if self.silence == Silence::Off {
                    self.silence = Silence::None;
                }
            }
            Effect::Select(_) => self.elsewhere |= self.in_transaction,
            Effect::Reply(silence) => {
                let silence = *silence;
                return self.silences(running, silence);
            }
            Effect::None
            | Effect::Hello(_)
            | Effect::Auth(_)
            | Effect::Name(_)
            | Effect::Subscribe(..)
            | Effect::Unsubscribe(..)
            | Effect::Poisoned(_)
            | Effect::Topology(_)
            | Effect::Unblock(_)
            | Effect::OwnId
            | Effect::Unanswered(_)
            | Effect::Local(..) => {}
        }
        let silence = self.silence;
        self.silence = silence.after();
        if silence != Silence::None {
            if matches!(effect, Effect::Select(_)) {
                self.database = None;
            }
            // What follows these is answered, and they change how.
            let changes = matches!(effect, Effect::Multi | Effect::Reset);
            if changes && silence == Silence::Next {
                let barrier = effect.is_barrier();
                self.barriers = self.barriers.saturating_add(usize::from(barrier));
                self.owed.push_back(Owed {
                    running: None,
                    effect: Effect::Unanswered(Box::new(effect)),
                    barrier,
                });
            }
            if let Some(running) = running {
                let why = "unobserved: the client asked for no replies";
                running.ended(Outcome::Answered, why);
            }
            return;
        }
        let barrier = unsettled || effect.is_barrier() && !self.in_transaction;
        if barrier {
            self.barriers = self.barriers.saturating_add(1);
        }
        self.owes_unfinished = !self.rest.is_over();
        self.owed.push_back(Owed {
            running,
            effect,
            barrier,
        });
    }

    fn silences(&mut self, running: Option<Running>, asked: Silence) {
        self.silence = match (asked, self.silence) {
            (Silence::None, _) => Silence::None,
            (Silence::Off, _) | (_, Silence::Off) => Silence::Off,
            (_, _) => Silence::Next,
        };
        if asked == Silence::None {
            self.owed.push_back(Owed::new(running, Effect::None));
        }
    }
}
