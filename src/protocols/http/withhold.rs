//! How much of an answer is here before any of it goes out, and why one stays that policy does
//! not see all of.
//!
//! What policy is to judge before its agent has it must be here whole. Where that takes too much
//! room or time, it goes on and is judged at its end, or, where `http.over_cap` is `deny`, stays.

use std::time::Duration;

use http::HeaderMap;

use crate::domain::{Action, Answer, Capture, Completion, HttpAnswer, Outcome};
use crate::gate::{Permit, Refused};
use crate::process::clock;

use super::answer_body::AnswerBody;
use super::body::{self, End, Gathered};
use super::fields::Reading;
use super::grpc::messages;
use super::line::Line;
use super::routes::Treatment;
use super::seen;
use super::settings::Completed;
use super::unseen::Unseen;

/// How much of an answer is here before any of it goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// All of it, if it comes soon and is small; else it goes on.
    WhatIsSmall,
    /// All of it; else none of it goes out.
    All,
}

/// What the head of an answer says of its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced<'a> {
    pub(super) reading: &'a Reading,
    /// Its length, where it is said.
    pub(super) bytes: Option<u64>,
    /// There is none.
    pub(super) over: bool,
    pub(super) events: Streams,
}

/// Whether an answer comes in events that must not wait for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streams {
    /// It does not.
    Not,
    /// It does.
    Events,
    /// It does, and each of them is judged.
    JudgedEvents,
}

impl Before {
    pub(super) fn of(treatment: &Treatment, answer: &Announced<'_>) -> Self {
        let cap = treatment.capture_bytes_max;
        let is_within = |bytes| usize::try_from(bytes).is_ok_and(|bytes| bytes <= cap);
        // What is no text is known by its length beforehand, as it is of a request.
        let small = match answer.reading.is_text() {
            true => answer.bytes.is_none_or(is_within),
            false => cap > 0 && answer.bytes.is_some_and(is_within),
        };
        match (treatment.completed, answer.events) {
            (Completed::Observe, _) => Self::Nothing,
            (Completed::Enforce, _) if answer.over => Self::WhatIsSmall,
            (Completed::Enforce, Streams::JudgedEvents) => Self::Nothing,
            (Completed::Enforce, _) if treatment.withholds_over_cap() => Self::All,
            (Completed::Enforce, Streams::Not) if small => Self::WhatIsSmall,
            (Completed::Enforce, Streams::Not | Streams::Events) => Self::Nothing,
        }
    }

    /// Reads that much of `body`: all of it, or as far as that went.
    pub(super) async fn read(
        self,
        line: &Line,
        permit: &Permit,
        body: &mut AnswerBody,
        (reading, cap): (&Reading, usize),
    ) -> Result<Gathered, hyper::Error> {
        let within = line.proxy.settings.capture_within;
        match (self, reading) {
            (Self::Nothing, _) => Ok(Gathered {
                end: End::Cap,
                ..Gathered::default()
            }),
            (Self::WhatIsSmall, Reading::Messages(_)) => {
                let begins_within = begins_within(line, permit);
                messages::gather(body, cap, (begins_within, within)).await
            }
            // Of messages all are waited for, too.
            (Self::WhatIsSmall | Self::All, _) => body::gather(body, cap, within).await,
        }
    }

    /// Whether what was `gathered` of an answer is all that goes on of it.
    pub(super) fn ends_with(self, gathered: &Gathered) -> bool {
        self == Self::All || gathered.end == End::Finished
    }

    /// Why the answer stays here, of which policy sees `capture`; `None` where that is all of it.
    pub(super) fn withheld(
        self,
        gathered: &Gathered,
        capture: &Capture,
        (cap, headers): (usize, &HeaderMap),
    ) -> Option<Unseen> {
        match self {
            Self::Nothing | Self::WhatIsSmall => None,
            Self::All => Unseen::of_answer(gathered.end, capture, cap, headers),
        }
    }
}

/// Keeps an answer here, or a piece of one, that policy must see all of and does not. Policy is told,
/// and shown what there is of it.
pub(super) async fn unseen(
    line: &Line,
    permit: Permit,
    answer: HttpAnswer,
    why: Unseen,
) -> Refused {
    why.count(line.proxy.gate.metrics());
    let why = why.of_it();
    let completion = Completion {
        ended_at: clock::now(),
        outcome: Outcome::Failed,
        answer: Some(Answer::Http(answer)),
        error: Some(why.into()),
    };
    permit.withhold(completion, why.into()).await
}

/// How long the first message of an answer is waited for.
fn begins_within(line: &Line, permit: &Permit) -> Duration {
    let asked = permit.operation().map(|operation| &operation.action);
    let all_is_said = match asked {
        Some(Action::Http(call)) => call.body.state.is_whole(),
        Some(Action::Database(_) | Action::File(_) | Action::Function(_)) | None => true,
    };
    // A client that has not said everything may wait for the head of its answer to go on.
    match all_is_said {
        true => line.proxy.settings.capture_within,
        false => seen::MESSAGE_BEGINS_WITHIN,
    }
}

#[cfg(test)]
mod tests {
    use crate::protocols::http::OverCap;

    use super::*;

    #[test]
    fn an_answer_is_here_whole_as_far_as_its_treatment_says() {
        use Before::{All, Nothing, WhatIsSmall};
        use Completed::{Enforce, Observe};
        use OverCap::{Deny, Partial, Spill};
        use Reading::{Not, Text};
        use Streams::{Events, JudgedEvents};
        #[rustfmt::skip]
        let table = [
            // completed, over_cap, cap, reading, length,     over,  events        before
            (Enforce, Partial, 10, Text, Some(10), false, Streams::Not, WhatIsSmall),
            (Enforce, Partial, 10, Text, None,     false, Streams::Not, WhatIsSmall),
            (Enforce, Partial, 10, Text, Some(11), false, Streams::Not, Nothing),
            (Enforce, Spill,   10, Text, Some(11), false, Streams::Not, Nothing),
            (Enforce, Partial, 10, Not,  Some(10), false, Streams::Not, WhatIsSmall),
            (Enforce, Partial, 10, Not,  None,     false, Streams::Not, Nothing),
            (Enforce, Partial, 10, Not,  Some(11), false, Streams::Not, Nothing),
            (Enforce, Partial, 10, Text, None,     false, Events,       Nothing),
            (Enforce, Partial, 10, Text, None,     false, JudgedEvents, Nothing),
            (Enforce, Partial, 10, Not,  None,     true,  Streams::Not, WhatIsSmall),
            (Enforce, Deny,    10, Text, Some(10), false, Streams::Not, All),
            (Enforce, Deny,    10, Text, Some(11), false, Streams::Not, All),
            (Enforce, Deny,    10, Not,  None,     false, Streams::Not, All),
            (Enforce, Deny,    10, Text, None,     false, Events,       All),
            (Enforce, Deny,    10, Text, None,     false, JudgedEvents, Nothing),
            (Enforce, Deny,    10, Text, Some(11), true,  Streams::Not, WhatIsSmall),
            (Enforce, Deny,    0,  Not,  Some(11), false, Streams::Not, Nothing),
            (Enforce, Partial, 0,  Not,  Some(0),  false, Streams::Not, Nothing),
            (Observe, Deny,    10, Text, Some(11), false, Streams::Not, Nothing),
            (Observe, Deny,    10, Text, Some(0),  true,  Streams::Not, Nothing),
        ];
        for row in table {
            let (completed, over_cap, capture_bytes_max, ref reading, bytes, over, events, before) =
                row;
            let treatment = Treatment {
                completed,
                over_cap,
                capture_bytes_max,
                ..Treatment::default()
            };
            let answer = Announced {
                reading,
                bytes,
                over,
                events,
            };
            assert_eq!(Before::of(&treatment, &answer), before, "{row:?}");
        }
    }
}
