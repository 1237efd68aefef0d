//! One question, asked until it is answered, within its deadline.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use tokio::time::{Instant, sleep};

use crate::domain::{JsonText, Reason, Stage};
use crate::policy::{PolicyError, Question, Ruling, Untold};

use super::client::{Answered, Call, NoAnswer, Route};
use super::compact::{self, Size};
use super::{CoreClient, answer, input_of, retry, wire};

/// A question as it is sent.
struct Asked {
    size: Size,
    text: Bytes,
    /// What Core's guardrails are shown.
    input: Option<JsonText>,
    key: HeaderValue,
}

impl CoreClient {
    /// Asks `question`: as a whole where Core takes it, else shorter; again
    /// where there was no answer, as often as its deadline and the budget of
    /// retries allow. Cancel-safe: dropping it closes the connection.
    pub(super) async fn evaluate(
        &self,
        question: Question<'_>,
    ) -> Result<Arc<Ruling>, PolicyError> {
        let began = Instant::now();
        let deadline = began.checked_add(self.answer_within).unwrap_or(began);
        self.retries.earn();
        let mut sizes: &[Size] = &Size::ALL;
        loop {
            let asked = self.written(question, sizes)?;
            let answered = self.until_answered(&asked, deadline).await?;
            sizes = asked.size.smaller();
            if answered.is_too_large() && !sizes.is_empty() {
                tracing::debug!(size = ?asked.size, "too large for OpenBox Core, asked shorter");
                continue;
            }
            let ruling = answer::ruling(&answered, asked.input.as_ref())?;
            if asked.size != Size::Full && ruling.redacted.is_some() {
                let why = "OpenBox Core redacted what it was shown only in part, so nothing can stand for the whole";
                return Err(PolicyError::Unjudgeable(Reason::from(why)));
            }
            return Ok(Arc::new(ruling));
        }
    }

    /// Tells what there was no answer to when it happened. A verdict about it
    /// comes too late to stop it, and not for what comes after it.
    pub(super) async fn tell_later(&self, untold: &Untold) -> Result<Option<Ruling>, PolicyError> {
        let key = HeaderValue::from_str(&untold.key);
        let asked = Asked {
            size: Size::Minimal,
            text: Bytes::copy_from_slice(untold.text.as_bytes()),
            input: None,
            key: key.unwrap_or(HeaderValue::from_static("")),
        };
        let began = Instant::now();
        let deadline = began.checked_add(self.answer_within).unwrap_or(began);
        let answered = self.until_answered(&asked, deadline).await?;
        let ruling = answer::ruling(&answered, None)?;
        tracing::debug!(key = %untold.key, verdict = ruling.verdict.as_str(), "OpenBox Core was told later");
        Ok(Some(ruling))
    }

    /// The largest of `sizes` that Core takes.
    fn written(&self, question: Question<'_>, sizes: &[Size]) -> Result<Asked, PolicyError> {
        let max = self.question_bytes_max;
        let mut least = 0;
        for size in sizes {
            let (text, input) = text(question, *size);
            least = text.len();
            if least <= max {
                return Ok(Asked {
                    size: *size,
                    text: text.into(),
                    input,
                    key: key(question, *size),
                });
            }
        }
        let reason = format!("too large to evaluate: {least} bytes, at most {max} are sent");
        Err(PolicyError::Unjudgeable(Reason(reason.into())))
    }

    async fn until_answered(
        &self,
        asked: &Asked,
        deadline: Instant,
    ) -> Result<Answered, PolicyError> {
        let mut again = 0_u32;
        loop {
            let outcome = self.once(asked, deadline).await;
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(pause) = self.retries.pause(again, &outcome, left) else {
                return Ok(outcome?);
            };
            sleep(pause).await;
            again = again.saturating_add(1);
        }
    }

    async fn once(&self, asked: &Asked, deadline: Instant) -> Result<Answered, NoAnswer> {
        let call = Call::new(Route::Evaluate, asked.text.clone()).named(asked.key.clone());
        self.called(call, deadline).await
    }

    /// Calls Core, unless it is being left alone.
    pub(super) async fn called(&self, call: Call, deadline: Instant) -> Result<Answered, NoAnswer> {
        let now = Instant::now();
        let leave = self.breaker.enter(now).map_err(NoAnswer::Resting)?;
        let within = deadline.saturating_duration_since(now);
        let outcome = self.client.call(call, within).await;
        if retry::is_absent(&outcome) {
            leave.failed(Instant::now());
        } else if let Err(NoAnswer::Queued(_) | NoAnswer::Unproven(_)) = outcome {
            // Core was not asked.
            drop(leave);
        } else {
            leave.answered();
        }
        outcome
    }
}

/// What is sent for `question`, and the input it shows.
fn text(question: Question<'_>, size: Size) -> (Vec<u8>, Option<JsonText>) {
    if size != Size::Full {
        return shorter(question, size);
    }
    match question {
        Question::Started(operation) => (
            wire::operation(operation, None),
            input_of(&operation.context),
        ),
        Question::Completed(operation, completion) => (
            wire::operation(operation, Some(completion)),
            input_of(&operation.context),
        ),
        Question::Event(event) => (
            wire::event(event),
            wire::input_of(event)
                .cloned()
                .or_else(|| input_of(&event.context)),
        ),
    }
}

/// The same, of as much of it as `size` says.
fn shorter(question: Question<'_>, size: Size) -> (Vec<u8>, Option<JsonText>) {
    match question {
        Question::Started(operation) => {
            let operation = compact::operation(operation, size);
            text(Question::Started(&operation), Size::Full)
        }
        Question::Completed(operation, completion) => {
            let operation = compact::operation(operation, size);
            let completion = compact::completion(completion, size);
            text(Question::Completed(&operation, &completion), Size::Full)
        }
        Question::Event(event) => {
            let event = compact::event(event, size);
            text(Question::Event(&event), Size::Full)
        }
    }
}

/// What is kept of `question`: no bodies, which are not stored. What has not
/// happened needs no telling. Its key is that of the whole: where that got to
/// Core before, this is the same report again.
pub(super) fn untold(question: Question<'_>) -> Option<Untold> {
    if let Question::Started(_) = question {
        return None;
    }
    let (text, _) = text(question, Size::Minimal);
    Some(Untold {
        key: key(question, Size::Full).to_str().ok()?.into(),
        text: String::from_utf8(text).ok()?.into(),
    })
}

/// Names what is asked, the same however often it is.
fn key(question: Question<'_>, size: Size) -> HeaderValue {
    let (id, what) = match question {
        Question::Started(operation) => (operation.id, Stage::Started.as_str()),
        Question::Completed(operation, _) => (operation.id, Stage::Completed.as_str()),
        Question::Event(event) => (event.id, "event"),
    };
    let key = format!("{id}-{what}{}", size.suffix());
    // Hex digits, letters and dashes.
    HeaderValue::try_from(key).unwrap_or(HeaderValue::from_static(""))
}
