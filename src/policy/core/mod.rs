//! OpenBox Core over HTTP.

mod answer;
mod approvals;
mod ask;
mod asserted;
mod breaker;
mod client;
mod compact;
mod errand;
mod flight;
mod handoff;
mod head;
mod identity;
mod json;
mod okta;
mod passage;
mod proof;
mod reasons;
mod retry;
mod rsa;
mod settings;
#[cfg(test)]
mod tests;
mod time;
mod transition;
mod verify;
mod wire;
mod workload;

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::{ActivityRef, Context, JsonText, Operation, Reason, Timestamp};

use super::{
    ApprovalState, ApprovalsAt, HandingOver, Handoff, Judging, Later, PolicyBackend, PolicyError,
    Question, Ruling, Untold,
};
pub use asserted::Flaw;
use breaker::Breaker;
use client::{Answered, Call, Client, NoAnswer, Route};
pub use client::{BoxedIo, Connector, Io, connect_plain};
pub use handoff::PROOF;
pub use identity::{AgentDid, Identity, SigningKey};
pub use okta::{Okta, OktaKnown, OktaNames, ToldByCore};
use proof::Unproven;
pub use proof::{Identities, Own};
use retry::Retries;
pub use rsa::RsaKey;
#[cfg(test)]
pub(crate) use rsa::tests::pem as rsa_pem;
pub use settings::{ApiKey, CoreUrl, Scheme, Settings, Unfit};
pub use transition::{Prepared, prove};
pub use verify::{Checked, Known, Rejection, Signed, Signer, Unsigned, Verifier};
pub use wire::{served, told, value};

/// Asks OpenBox Core.
#[derive(Debug)]
pub struct CoreClient {
    client: Client,
    question_bytes_max: usize,
    answer_within: Duration,
    breaker: Breaker,
    retries: Retries,
}

impl CoreClient {
    /// A client that has asked nothing yet. `connector` opens its connections.
    pub fn new(settings: Settings, connector: Connector) -> Self {
        Self {
            question_bytes_max: settings.question_bytes_max,
            answer_within: settings.answer_within,
            breaker: Breaker::default(),
            retries: Retries::new(settings.retries_max),
            client: Client::new(settings, connector),
        }
    }

    /// Asks Core whether it knows our key.
    ///
    /// # Errors
    ///
    /// When it does not, when it cannot be reached, or when whatever answers
    /// there does not answer as Core does.
    pub async fn validate(&self) -> Result<(), StartError> {
        let url = self.client.url().to_string();
        match self
            .client
            .call(Call::new(Route::Validate, Bytes::new()), self.answer_within)
            .await
        {
            Err(NoAnswer::Unproven(Unproven::Rejected(why))) => Err(StartError::Unproven {
                url,
                why: why.to_string(),
            }),
            Err(error) => Err(StartError::Unreachable {
                url,
                why: error.to_string(),
            }),
            Ok(answered) => answer::introduced(&answered, url),
        }
    }

    /// Closes connections that nobody needs at `now`. Meant to be called every
    /// few seconds.
    pub fn sweep(&self, now: Instant) {
        self.client.sweep(now);
    }
}

impl PolicyBackend for CoreClient {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        if let Question::Started(operation) | Question::Completed(operation, _) = question
            && let Some(ruling) = passage::ruling(operation, self.client.url())
        {
            return Judging::Now(Ok(Arc::new(ruling)));
        }
        Judging::Later(Box::pin(self.evaluate(question)))
    }

    fn approvals_at(&self) -> ApprovalsAt {
        ApprovalsAt::Core
    }

    fn approval<'a>(
        &'a self,
        context: &'a Context,
    ) -> Later<'a, Result<ApprovalState, PolicyError>> {
        let Some(question) = wire::approval(context) else {
            let reason = Reason::from("OpenBox Core keeps approvals of activities only");
            return Box::pin(ready(Err(PolicyError::Unjudgeable(reason))));
        };
        Box::pin(async move {
            let answered = self
                .client
                .call(Call::new(Route::Approval, question), self.answer_within)
                .await?;
            approvals::state(&answered, now())
        })
    }

    fn untold(&self, question: Question<'_>) -> Option<Untold> {
        if let Question::Completed(operation, _) = question
            && passage::ruling(operation, self.client.url()).is_some()
        {
            return None;
        }
        ask::untold(question)
    }

    fn tell<'a>(&'a self, untold: &'a Untold) -> Later<'a, Result<Option<Ruling>, PolicyError>> {
        Box::pin(self.tell_later(untold))
    }

    fn hand_over<'a>(&'a self, handoff: Handoff<'a>) -> HandingOver<'a> {
        if handoff.proof.is_none() && !self.client.has_identity() {
            return HandingOver::Unproven;
        }
        HandingOver::Later(Box::pin(self.handed_over(handoff)))
    }

    fn generation(&self) -> u64 {
        // Core's policies have no version we are told.
        0
    }

    fn describe(&self) -> String {
        format!("OpenBox Core at {}", self.client.url())
    }
}

fn input_of(context: &Context) -> Option<JsonText> {
    context.activity.as_ref().map(|a| a.input.clone())
}

/// Whose approval and refusals an operation's are: its activity, or outside any
/// activity one made of its own fingerprint, so that neither a refusal nor an
/// approval spills over to another operation. Ask [`PolicyBackend::approval`]
/// with this.
pub fn subject(operation: &Operation) -> Arc<Context> {
    if operation.context.activity.is_some() {
        return Arc::clone(&operation.context);
    }
    let id = match operation.fingerprint {
        Some(fingerprint) => fingerprint.to_string(),
        None => operation.id.to_string(),
    };
    Arc::new(Context {
        activity: Some(ActivityRef {
            id: id.into(),
            kind: wire::hook_type(operation).into(),
            attempt: 1,
            input: JsonText::empty_array(),
        }),
        ..Context::clone(&operation.context)
    })
}

fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Why the sidecar cannot start with this Core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Core does not know the key.
    KeyRejected {
        /// Where Core is.
        url: String,
        /// What it said.
        said: String,
    },
    /// Nothing answered.
    Unreachable {
        /// Where Core should be.
        url: String,
        /// What happened instead.
        why: String,
    },
    /// We cannot show who we are.
    Unproven {
        /// Where Core is.
        url: String,
        /// Why not.
        why: String,
    },
    /// Something answered that is not Core, or not well.
    Unexpected {
        /// Where Core should be.
        url: String,
        /// What it said.
        said: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyRejected { url, said } => {
                write!(f, "OpenBox Core at {url} rejected us ({said})")
            }
            Self::Unproven { url, why } => write!(
                f,
                "OpenBox Core at {url} was not asked, for we cannot show who we are: {why}"
            ),
            Self::Unreachable { url, why } => write!(
                f,
                "OpenBox Core at {url} cannot be reached ({why}); check OPENBOX_URL and the network"
            ),
            Self::Unexpected { url, said } => write!(
                f,
                "what answers at {url} does not answer as OpenBox Core does ({said}); check OPENBOX_URL"
            ),
        }
    }
}

impl std::error::Error for StartError {}
