//! What is asked about one execution, from the question to what is sent of it.

use std::mem::{self, Discriminant};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::{OperationId, TraceId};
use crate::gate::{Decision, Held, Permit};
use crate::process::clock;
use crate::protocols::postgres::conversation::{Ask, Changes, Kind};
use crate::protocols::postgres::refuse::{self, Poison};
use crate::protocols::postgres::statement::Text;
use crate::protocols::postgres::wire::message;
use crate::protocols::postgres::{describe, limits};
use crate::protocols::sql::Flags;

use super::opening::unattributed;
use super::{Ended, Relay};

/// When a client is told that a person is waited for.
const NOTICE_AFTER: Duration = Duration::from_secs(5);
/// When answers that are owed are asked for although the client did not.
const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// A question under way.
pub(super) struct Asked {
    decision: Pin<Box<dyn Future<Output = Decision> + Send>>,
    about: About,
    held: Held<Bytes>,
    like: Option<Like>,
    event: OperationId,
    /// The status then, where nothing under way could change it.
    status: Option<u8>,
    since: Instant,
    /// It takes longer than a decision that is made at once.
    pub(super) lasts: bool,
    flushed: bool,
    noticed: bool,
}

/// What is executed.
struct About {
    kind: Kind,
    text: Text,
    digest: Option<[u8; 32]>,
    changes: Changes,
}

/// What makes two executions of a session the same to policy.
#[derive(Debug)]
pub(super) struct Like {
    text: Text,
    kind: Discriminant<Kind>,
    /// What earlier statements have set, which policy is told, too.
    earlier: Flags,
}

impl Like {
    fn is(&self, other: &Self) -> bool {
        self.kind == other.kind && self.earlier == other.earlier && self.text.is(&other.text)
    }

    /// `None` for what does more than one execution.
    fn of(asked: &Ask, earlier: Flags) -> Option<Self> {
        let alone = asked.function.is_none() && matches!(asked.changes, Changes::None);
        alone.then(|| Self {
            text: asked.text.clone(),
            kind: mem::discriminant(&asked.kind),
            earlier,
        })
    }
}

impl About {
    /// With the bytes of it.
    fn of(asked: Ask) -> (Self, Bytes) {
        let Ask {
            kind,
            text,
            digest,
            bytes,
            function: _,
            changes,
        } = asked;
        let about = Self {
            kind,
            text,
            digest,
            changes,
        };
        (about, bytes)
    }
}

impl Relay<'_> {
    pub(super) fn ask(&mut self, asked: Ask) -> Result<(), Ended> {
        let now = clock::now();
        let application = self.application.as_deref();
        let claim = describe::claim(&asked.text, application, self.watch.callers());
        let trace: Option<TraceId> = claim.trace;
        let Some(session) = self.shared.gate.registry().attribute(&claim, now) else {
            let refused = unattributed(clock::operation_id(now));
            self.poison(&asked.kind, Poison::of(&refused));
            return Ok(());
        };
        // All threads count who has it, so it is taken anew only where it changed.
        if self
            .session
            .as_ref()
            .is_none_or(|known| !known.is(&session))
        {
            self.session = Some(session.clone());
        }
        let like = Like::of(&asked, self.talk.earlier());
        let again = like.as_ref().and_then(|like| {
            let digest = asked.digest.as_ref();
            self.repeats
                .again(|last| last.is(like), &session, digest, now)
        });
        if let Some(permit) = again {
            // Nobody waited for it.
            let (about, bytes) = About::of(asked);
            let held = permit.id().map(|event| Held::new(event, bytes));
            return self.go_on(held, about, permit);
        }
        let operation = describe::operation(
            &asked,
            &self.place,
            &session,
            trace,
            (now, self.talk.earlier()),
        );
        let event = operation.id;
        let settings = &self.shared.settings;
        let hold_within = if self.talk.in_transaction() {
            settings.hold_in_transaction_within
        } else {
            settings.hold_within
        };
        let terms = limits::terms(&asked.kind, &asked.text, hold_within);
        let gate = self.shared.gate.clone();
        let status = self.talk.settled_status();
        let (about, bytes) = About::of(asked);
        // An earlier cancel request was about an earlier statement.
        self.cancelled.mark_unchanged();
        self.cancellable.holding.store(true, Ordering::Release);
        self.asked = Some(Asked {
            decision: Box::pin(async move { gate.admit(operation, session, &terms).await }),
            held: Held::new(event, bytes),
            like,
            about,
            event,
            status,
            since: Instant::now(),
            lasts: false,
            flushed: false,
            noticed: false,
        });
        Ok(())
    }

    pub(super) fn decide(&mut self, decision: Decision) -> Result<(), Ended> {
        self.cancellable.holding.store(false, Ordering::Release);
        let Some(asked) = self.asked.take() else {
            return Ok(());
        };
        match decision {
            Decision::Proceed(permit) => self.proceed(asked, permit),
            Decision::Refuse(refused) => {
                self.poison(&asked.about.kind, Poison::of(&refused));
                Ok(())
            }
            // Answers of databases are never set aside.
            Decision::Replay(replay) => {
                let why = "its answer was set aside";
                self.poison(&asked.about.kind, Poison::cancelled(replay.event, why));
                Ok(())
            }
        }
    }

    fn proceed(&mut self, asked: Asked, permit: Permit) -> Result<(), Ended> {
        // An earlier statement of its batch has failed meanwhile.
        if self.talk.is_skipping() {
            self.talk.overtaken(permit);
            return Ok(());
        }
        if asked.status.is_some() && self.talk.settled_status() != asked.status {
            drop(permit);
            let why = "the transaction changed while a person was asked";
            self.poison(&asked.about.kind, Poison::cancelled(asked.event, why));
            return Ok(());
        }
        if let Some(like) = asked.like {
            self.repeats.admitted(like, Like::is, &permit);
        }
        self.go_on(Some(asked.held), asked.about, permit)
    }

    fn go_on(
        &mut self,
        held: Option<Held<Bytes>>,
        about: About,
        permit: Permit,
    ) -> Result<(), Ended> {
        let Some(cleared) = held.and_then(|held| held.release(&permit)) else {
            return Err(Ended::Mismatched);
        };
        let About {
            kind,
            text,
            digest,
            changes,
        } = about;
        let sent = self
            .talk
            .granted(kind, text, digest, permit, changes, cleared);
        self.to_server.push(sent);
        Ok(())
    }

    pub(super) fn poison(&mut self, kind: &Kind, poison: Poison) {
        // The server discards it anyway, and would not answer it.
        if self.talk.is_skipping() {
            self.talk.drop_rest();
            return;
        }
        let instead = self.talk.refused(kind, poison);
        self.to_server.push(instead);
    }

    /// The client no longer wants what is held.
    pub(super) fn void(&mut self, why: &str) {
        self.cancellable.holding.store(false, Ordering::Release);
        if let Some(asked) = self.asked.take() {
            self.poison(&asked.about.kind, Poison::cancelled(asked.event, why));
        }
    }

    /// The client is gone.
    pub(super) fn left(&mut self) {
        self.asked = None;
        self.leaving = true;
    }

    /// A hold lasts: first what is owed is asked for, then the client is told.
    pub(super) fn mark(&mut self) {
        let owes = self.talk.owes_answers();
        let between = self.talk.between_replies();
        let Some(asked) = &mut self.asked else { return };
        if !asked.flushed {
            asked.flushed = true;
            if owes {
                self.to_server.push(message(b'H', &[]));
            }
            return;
        }
        if between && !asked.noticed {
            self.to_client.push(refuse::waiting(asked.event));
        }
        asked.noticed = true;
    }
}

/// The decision, once there is one; `None` the first time that it turns out to
/// take longer than a turn of this thread. Until then neither timers nor the
/// client's leaving are worth being registered for.
pub(super) async fn decided(asked: &mut Option<Asked>) -> Option<Decision> {
    let Some(asked) = asked else {
        return std::future::pending().await;
    };
    let mut looked = asked.lasts;
    std::future::poll_fn(|cx| match asked.decision.as_mut().poll(cx) {
        Poll::Ready(decision) => Poll::Ready(Some(decision)),
        Poll::Pending if asked.lasts => Poll::Pending,
        Poll::Pending if looked => {
            asked.lasts = true;
            Poll::Ready(None)
        }
        Poll::Pending => {
            looked = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// When the next thing is to be said about a hold.
pub(super) fn next_mark(asked: Option<&Asked>) -> Instant {
    let Some(asked) = asked else {
        return Instant::now();
    };
    let after = match (asked.flushed, asked.noticed) {
        (false, _) => FLUSH_AFTER,
        (true, false) => NOTICE_AFTER,
        (true, true) => Duration::from_secs(86_400),
    };
    asked.since.checked_add(after).unwrap_or(asked.since)
}
