//! Why policy does not see all of a body that it must see all of (`http.over_cap: deny`).

use http::HeaderMap;

use crate::domain::{Capture, Captured};
use crate::metrics::{LimitHit, Metrics, OverCap};

use super::body::End;
use super::fields;

/// Why policy does not see all of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// It is larger than what is shown.
    TooLarge,
    /// Not all of it came in time.
    TooSlow,
    /// Not all of a message came in time.
    SlowMessage,
    /// All of it is here, and its reading ends before it does: it swells too much, or decoders disagree about it.
    NotShown,
    /// It is text, in a coding that cannot be undone.
    Undecoded,
}

impl Unseen {
    /// Why no more is shown than `capture`, of what was gathered until `end`; `None` where that is all of it.
    pub(super) fn of(end: End, capture: &Capture, bytes_max: usize) -> Option<Self> {
        match end {
            End::Cap => Some(Self::TooLarge),
            End::Deadline => Some(Self::TooSlow),
            End::Finished if capture.state.is_whole() => None,
            End::Finished if fills(capture, bytes_max) => Some(Self::TooLarge),
            End::Finished => Some(Self::NotShown),
        }
    }

    /// The same of an answer with these fields. A request whose text cannot be decoded counts as no text.
    pub(super) fn of_answer(
        end: End,
        capture: &Capture,
        bytes_max: usize,
        headers: &HeaderMap,
    ) -> Option<Self> {
        let undecoded = || {
            let unread = capture.state == Captured::WholeBinary && fields::says_text(headers);
            unread.then_some(Self::Undecoded)
        };
        Self::of(end, capture, bytes_max).or_else(undecoded)
    }

    /// Counts that something is kept here for it.
    pub(super) fn count(self, metrics: &Metrics) {
        if self == Self::TooLarge {
            metrics.limit_hit(LimitHit::TooLarge);
        }
        metrics.over_cap(OverCap::Denied);
    }

    /// It is said of an answer, or of a piece of one.
    pub(super) fn of_it(self) -> &'static str {
        match self {
            Self::TooLarge => {
                "it is larger than http.capture_bytes_max, and http.over_cap is deny: policy must see all of it"
            }
            Self::TooSlow => {
                "not all of it came within http.capture_within, and http.over_cap is deny: policy must see all of it (http.judge_each has the events of a stream judged one by one)"
            }
            Self::SlowMessage => {
                "not all of it came within http.capture_within, and http.over_cap is deny: policy must see all of it"
            }
            Self::NotShown => {
                "not all of it can be shown to policy, and http.over_cap is deny: policy must see all of it"
            }
            Self::Undecoded => {
                "it is text that cannot be decoded here, and http.over_cap is deny: policy must see all of it"
            }
        }
    }

    /// It is said of the body of a request.
    pub(super) fn of_body(self) -> &'static str {
        match self {
            Self::TooLarge => {
                "the body is larger than http.capture_bytes_max, and http.over_cap is deny: policy must see all of it"
            }
            Self::TooSlow | Self::SlowMessage => {
                "not all of the body came within http.capture_within, and http.over_cap is deny: policy must see all of it"
            }
            Self::NotShown | Self::Undecoded => {
                "not all of the body can be shown to policy, and http.over_cap is deny: policy must see all of it"
            }
        }
    }
}

/// Whether no more could be shown: at most a character was cut that did not fit.
fn fills(capture: &Capture, bytes_max: usize) -> bool {
    const CHARACTER_MAX: usize = 4;
    let shown = capture.text.as_ref().map_or(0, String::len);
    shown.saturating_add(CHARACTER_MAX) > bytes_max
}
