//! Questions that are too large for Core, said shorter: first with the
//! beginnings of long texts, then with nothing but what names the operation.
//! What was left out is marked as what was never seen, so policy knows.

use std::sync::Arc;

use serde_json::json;

use crate::domain::{
    Action, ActivityRef, Answer, Capture, Captured, Completion, Context, Event, EventKind, Headers,
    JsonText, Operation, Reported,
};

/// How much of a question is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// All of it.
    Full,
    /// The beginnings of long texts.
    Compact,
    /// What names it.
    Minimal,
}

impl Size {
    pub(super) const ALL: [Self; 3] = [Self::Full, Self::Compact, Self::Minimal];

    /// Those that are smaller.
    pub(super) fn smaller(self) -> &'static [Self] {
        match self {
            Self::Full => &[Self::Compact, Self::Minimal],
            Self::Compact => &[Self::Minimal],
            Self::Minimal => &[],
        }
    }

    /// What an idempotency key of this size ends with: another body must not
    /// come under the key of the first.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Full => "",
            Self::Compact => "-compact",
            Self::Minimal => "-minimal",
        }
    }

    fn chars(self) -> usize {
        match self {
            Self::Full => usize::MAX,
            Self::Compact => 4_000,
            Self::Minimal => 0,
        }
    }

    /// Longest URL, path or statement kept in a minimal question.
    const NAME_CHARS_MAX: usize = 2_000;
    /// Longest JSON text kept whole in a compact question, bytes.
    const JSON_BYTES_MAX: usize = 16_384;
}

/// `operation`, as much of it as `size` says.
pub(super) fn operation(operation: &Operation, size: Size) -> Operation {
    let mut short = operation.clone();
    short.context = context(&operation.context, size);
    match &mut short.action {
        Action::Http(call) => {
            shorten(&mut call.body, size);
            if size == Size::Minimal {
                call.headers = Headers::default();
                call.body.trailers = None;
                call.url = beginning(&call.url, Size::NAME_CHARS_MAX).into();
            }
        }
        Action::Database(call) => match size {
            Size::Minimal => cut(&mut call.statement, Size::NAME_CHARS_MAX),
            Size::Full | Size::Compact => shorten(&mut call.statement, size),
        },
        Action::File(call) => call.path = beginning(&call.path, Size::NAME_CHARS_MAX).into(),
        Action::Function(call) => {
            call.arguments = call.arguments.take().map(|said| value(&said, size));
        }
    }
    if let Some(reported) = &mut short.reported {
        **reported = Reported {
            // What stands for an object is an object too.
            attributes: value(&reported.attributes, size),
            name: beginning(&reported.name, Size::NAME_CHARS_MAX).into(),
            kind: reported.kind.clone(),
            envelope: reported
                .envelope
                .iter()
                .map(|(name, said)| (*name, value(said, size)))
                .collect(),
        };
    }
    short
}

/// `completion`, as much of it as `size` says.
pub(super) fn completion(completion: &Completion, size: Size) -> Completion {
    let mut short = completion.clone();
    match &mut short.answer {
        Some(Answer::Http(answer)) => {
            shorten(&mut answer.body, size);
            if size == Size::Minimal {
                answer.headers = Headers::default();
                answer.body.trailers = None;
            }
        }
        Some(Answer::Function(answer)) => {
            answer.result = answer.result.take().map(|said| value(&said, size));
        }
        Some(Answer::Database(_) | Answer::File(_)) | None => {}
    }
    short
}

/// `event`, as much of it as `size` says.
pub(super) fn event(event: &Event, size: Size) -> Event {
    let mut short = event.clone();
    if event.kind == EventKind::Handoff {
        // Nothing but names.
        return short;
    }
    short.context = context(&event.context, size);
    for (name, said) in &mut short.fields {
        *said = if is_list(name) {
            list(said, size)
        } else {
            value(said, size)
        };
    }
    short
}

/// Fields that the contract wants as arrays.
fn is_list(name: &str) -> bool {
    ["activity_input", "signal_args"].contains(&name)
}

fn context(context: &Arc<Context>, size: Size) -> Arc<Context> {
    let Some(activity) = &context.activity else {
        return context.clone();
    };
    Arc::new(Context {
        activity: Some(ActivityRef {
            input: list(&activity.input, size),
            ..activity.clone()
        }),
        ..Context::clone(context)
    })
}

fn value(said: &JsonText, size: Size) -> JsonText {
    let is_short = match size {
        Size::Full => true,
        Size::Compact => said.0.len() <= Size::JSON_BYTES_MAX,
        // Words and numbers are as short as what would stand for them.
        Size::Minimal => said.0.len() <= 64,
    };
    if is_short {
        return said.clone();
    }
    JsonText(preview(said, size).to_string().into())
}

fn list(said: &JsonText, size: Size) -> JsonText {
    let short = value(said, size);
    if Arc::ptr_eq(&short.0, &said.0) {
        return short;
    }
    JsonText(json!([preview(said, size)]).to_string().into())
}

fn preview(said: &JsonText, size: Size) -> serde_json::Value {
    json!({"preview": beginning(&said.0, size.chars()), "truncated": true})
}

fn shorten(capture: &mut Capture, size: Size) {
    cut(capture, size.chars());
}

fn cut(capture: &mut Capture, chars: usize) {
    let Some(text) = &capture.text else { return };
    let short = beginning(text, chars);
    if short.len() == text.len() {
        return;
    }
    capture.text = (!short.is_empty()).then(|| short.to_owned());
    capture.state = match chars {
        0 => Captured::Skipped,
        _ => Captured::Partial,
    };
}

fn beginning(text: &str, chars: usize) -> &str {
    match text.char_indices().nth(chars) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}
