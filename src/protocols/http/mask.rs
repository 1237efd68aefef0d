//! Keeps a credential that was added to a request out of sight where the origin says it again.
//!
//! It is found letter for letter, in the text and the fields that policy and journal would have. What
//! the agent is answered stays as it is.

use std::sync::Arc;

use crate::domain::{Capture, Captured, Headers};
use crate::redact::{REDACTED, Secret};

/// Shortest credential that is looked for, bytes: a shorter one is found in what is none.
const BYTES_MIN: usize = 8;

/// What must not be seen of an answer; by default, nothing is looked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Mask(Option<Arc<Secret>>);

impl Mask {
    /// Against `secret`, if it is long enough to be told from other text.
    pub(super) fn of(secret: Arc<Secret>) -> Self {
        Self(Some(secret).filter(|secret| secret.expose().len() >= BYTES_MIN))
    }

    /// The body as it may be seen, and the fields behind it.
    pub(super) fn capture(&self, mut capture: Capture) -> Capture {
        let Some(secret) = self.0.as_deref().map(Secret::expose) else {
            return capture;
        };
        if let Some(text) = &mut capture.text {
            if text.contains(secret) {
                *text = text.replace(secret, REDACTED);
            }
            if capture.state == Captured::Partial {
                cut_beginning_of(secret, text);
            }
        }
        if let Some(trailers) = &mut capture.trailers
            && trailers.text.contains(secret)
        {
            trailers.text = trailers.text.replace(secret, REDACTED).into();
        }
        capture
    }

    /// The fields as they may be seen.
    pub(super) fn headers(&self, headers: Headers) -> Headers {
        let Some(secret) = self.0.as_deref().map(Secret::expose) else {
            return headers;
        };
        if !headers.iter().any(|(_, value)| value.contains(secret)) {
            return headers;
        }
        let mut masked = Headers::default();
        for (name, value) in headers.iter() {
            masked.push(name, &value.replace(secret, REDACTED));
        }
        masked
    }
}

/// A text that is cut may end within the secret.
fn cut_beginning_of(secret: &str, text: &mut String) {
    let beginnings = (BYTES_MIN..secret.len()).rev();
    let mut beginnings = beginnings.filter_map(|length| secret.get(..length));
    if let Some(beginning) = beginnings.find(|beginning| text.ends_with(beginning)) {
        text.truncate(text.len().saturating_sub(beginning.len()));
        text.push_str(REDACTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Trailers;

    fn masked(secret: &str, text: &str, state: Captured) -> String {
        let mask = Mask::of(Arc::new(Secret::new(secret)));
        let capture = Capture {
            text: Some(text.to_owned()),
            state,
            ..Capture::default()
        };
        mask.capture(capture).text.unwrap()
    }

    #[test]
    fn a_secret_is_masked_wherever_it_stands_and_where_the_text_is_cut() {
        use Captured::{Partial, Whole};
        #[rustfmt::skip]
        let table = [
            // secret        text                           state    seen
            ("hush-hush-1", "say hush-hush-1, hush-hush-1", Whole,   "say [REDACTED], [REDACTED]"),
            ("hush-hush-1", "say hush-hush-2",              Whole,   "say hush-hush-2"),
            ("hush-hush-1", "say hush-hush",                Whole,   "say hush-hush"),
            ("hush-hush-1", "say hush-hush",                Partial, "say [REDACTED]"),
            ("hush-hush-1", "say hush-hu",                  Partial, "say hush-hu"),
            ("short",       "a short text",                 Whole,   "a short text"),
        ];
        for (secret, text, state, seen) in table {
            assert_eq!(masked(secret, text, state), seen, "{text} {state:?}");
        }
    }

    #[test]
    fn a_secret_in_a_field_is_masked_and_nothing_is_without_one() {
        let mut headers = Headers::default();
        headers.push("x-echo", "Bearer hush-hush-1");
        headers.push("accept", "*/*");
        let mask = Mask::of(Arc::new(Secret::new("hush-hush-1")));
        let shown = mask.headers(headers.clone());
        assert_eq!(shown.last("x-echo"), Some("Bearer [REDACTED]"));
        assert_eq!(shown.last("accept"), Some("*/*"));
        assert_eq!(Mask::default().headers(headers.clone()), headers);
    }

    #[test]
    fn a_secret_behind_a_body_is_masked() {
        let mask = Mask::of(Arc::new(Secret::new("hush-hush-1")));
        let capture = Capture {
            trailers: Some(Box::new(Trailers {
                text: "x-echo: Bearer hush-hush-1".into(),
                digest: [0; 32],
            })),
            ..Capture::default()
        };
        let shown = mask.capture(capture).trailers.unwrap();
        assert_eq!(&*shown.text, "x-echo: Bearer [REDACTED]");
    }
}
