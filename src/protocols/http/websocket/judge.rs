//! What the gate is asked about a message, and what its sender is told.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::domain::{
    Action, Answer, Capture, Captured, Completion, Headers, HttpAnswer, HttpCall, JsonText,
    Operation, OperationId, Outcome, Reason, Refusal,
};
use crate::gate::{After, Decision, Held, Permit, Refused, Terms};
use crate::process::clock;

use super::super::body::{self, End};
use super::super::line::Line;
use super::super::mask::Mask;
use super::super::mcp;
use super::super::replace;
use super::super::routes::Treatment;
use super::super::settings::Completed;
use super::super::unseen::Unseen;
use super::super::withhold;
use super::frame::{self, Side, Wrong};
use super::message::Message;

/// Why a WebSocket was ended here.
#[derive(Debug)]
pub(super) enum No {
    /// The gate said so; the id is the operation's, where there is one.
    Refused(Box<Refusal>, Option<OperationId>),
    /// Policy does not see all of a message of the agent, and `http.over_cap` is `deny`.
    Unseen(Unseen),
    /// The bytes are not WebSocket.
    Wrong(Wrong),
    /// Nothing has moved for too long.
    Silent,
    /// A message was waiting when its sender closed, and nobody decided in time.
    Left,
}

impl No {
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal), None)
    }

    pub(super) fn wrong(wrong: Wrong) -> super::way::Ended {
        super::way::Ended::No(Self::Wrong(wrong))
    }

    /// The status of the Close frames (RFC 6455 §7.4.1).
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Refused(refusal, _) if matches!(**refusal, Refusal::ShuttingDown) => 1012,
            Self::Unseen(Unseen::TooLarge) => 1009,
            Self::Refused(..) | Self::Left | Self::Unseen(_) => 1008,
            Self::Wrong(_) => 1002,
            Self::Silent => 1001,
        }
    }

    /// What the agent is told. The code and the id come first: what does not fit
    /// is cut.
    pub(super) fn to_client(&self) -> String {
        match self {
            Self::Refused(refusal, Some(id)) => format!("{} {id}: {refusal}", refusal.code()),
            Self::Refused(refusal, None) => format!("{}: {refusal}", refusal.code()),
            Self::Unseen(Unseen::TooLarge) => {
                "the message is over http.capture_bytes_max, and http.over_cap is deny".to_owned()
            }
            Self::Unseen(_) => {
                "the message took longer than http.capture_within, and http.over_cap is deny"
                    .to_owned()
            }
            Self::Wrong(Wrong(what)) => (*what).to_owned(),
            Self::Silent => "nothing moved for http.idle_within".to_owned(),
            Self::Left => "closed while a message was waiting: it was not sent".to_owned(),
        }
    }

    /// What the server is told: nothing about the agent's policies.
    pub(super) fn to_server(&self) -> String {
        match self {
            Self::Refused(refusal, _) => refusal.code().to_owned(),
            Self::Unseen(Unseen::TooLarge) => "message too large".to_owned(),
            Self::Unseen(_) => "message too slow".to_owned(),
            Self::Wrong(Wrong(what)) => (*what).to_owned(),
            Self::Silent => "silent for too long".to_owned(),
            Self::Left => String::new(),
        }
    }
}

impl From<Refused> for No {
    fn from(refused: Refused) -> Self {
        Self::Refused(Box::new(refused.refusal), Some(refused.event))
    }
}

/// A message that may be sent on.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) bytes: Bytes,
    /// To be completed once it was sent; see [`Judge::sent`].
    pub(super) permit: Option<Permit>,
}

/// Asks about the messages of one WebSocket.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    line: &'a Line,
    handshake: &'a Permit,
    /// Bytes that went either way.
    pub(super) moved: &'a AtomicU64,
    treatment: Treatment,
    /// What must not be seen of what the server says.
    mask: Mask,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        line: &'a Line,
        handshake: &'a Permit,
        moved: &'a AtomicU64,
        mask: Mask,
    ) -> Self {
        let treatment = line.proxy.settings.treatment_of(handshake);
        Self {
            line,
            handshake,
            moved,
            treatment,
            mask,
        }
    }

    pub(super) fn line(&self) -> &'a Line {
        self.line
    }

    /// Most bytes of a message that policy sees.
    pub(super) fn cap(&self) -> usize {
        self.treatment.capture_bytes_max
    }

    /// Longest time in which nothing moves.
    pub(super) fn idles(&self) -> Duration {
        self.treatment.idle_within
    }

    /// Longest wait for a message to be all there.
    pub(super) fn waits(&self) -> Duration {
        self.line.proxy.settings.capture_within
    }

    /// Resolves with the reason once the run is halted.
    pub(super) async fn halted(&self) -> Reason {
        match self.handshake.session() {
            Some(session) => session.until_halted().await,
            None => std::future::pending().await,
        }
    }

    /// Asks about what the agent says before it is sent.
    pub(super) async fn said_by_agent(&self, message: Message) -> Result<Judged, No> {
        let unseen = self.unseen(&message);
        if let Some(why) = unseen.filter(|_| self.treatment.refuses_over_cap()) {
            why.count(self.line.proxy.gate.metrics());
            return Err(No::Unseen(why));
        }
        let asked = self.handshake.operation().zip(self.handshake.session());
        let Some((handshake, session)) = asked else {
            return Err(lost());
        };
        let capture = self.capture(&message);
        let terms = self.terms(&capture, replace::of_request);
        let operation = saying(handshake, capture);
        let id = operation.id;
        let held = Held::new(id, message.raw.bytes);
        let gate = &self.line.proxy.gate;
        match gate.admit(operation, session.clone(), &terms).await {
            Decision::Proceed(permit) => {
                let mut cleared = held.release(&permit).ok_or_else(lost)?;
                let redacted = permit.ruling().and_then(|ruling| ruling.redacted.as_ref());
                if let Some(redacted) = redacted {
                    let said = replace::said(redacted).ok_or_else(lost)?;
                    cleared.amend(|bytes| *bytes = framed(Side::Client, &said));
                }
                Ok(Judged {
                    bytes: cleared.into_inner(),
                    permit: Some(permit),
                })
            }
            Decision::Refuse(refused) => Err(refused.into()),
            // No message is ever parked.
            Decision::Replay(_) => Err(lost()),
        }
    }

    /// Reports that an admitted message was sent, or could not be.
    pub(super) fn sent(&self, permit: Permit, sent: bool) {
        permit.report(Completion {
            ended_at: clock::now(),
            outcome: if sent {
                Outcome::Answered
            } else {
                Outcome::Failed
            },
            answer: None,
            error: (!sent).then(|| "the connection to the server broke off".into()),
        });
    }

    /// Judges what the server says: a piece of the answer to the handshake.
    pub(super) async fn said_by_server(&self, message: Message) -> Result<Judged, No> {
        let piece = self.handshake.piece().await?;
        let capture = self.mask.capture(self.capture(&message));
        let terms = self.terms(&capture, replace::of_answer);
        let answer = HttpAnswer {
            status: StatusCode::SWITCHING_PROTOCOLS.as_u16(),
            headers: Headers::default(),
            body: capture,
        };
        let unseen = self.unseen(&message);
        if let Some(why) = unseen.filter(|_| self.treatment.withholds_over_cap()) {
            let refused = withhold::unseen(self.line, piece, answer, why).await;
            return Err(refused.into());
        }
        let completion = Completion {
            ended_at: clock::now(),
            outcome: Outcome::Answered,
            answer: Some(Answer::Http(answer)),
            error: None,
        };
        let bytes = message.raw.bytes;
        let permit = None;
        if self.treatment.completed == Completed::Observe {
            piece.report(completion);
            return Ok(Judged { bytes, permit });
        }
        match piece.complete(completion, &terms).await {
            After::Release(None) => Ok(Judged { bytes, permit }),
            After::Release(Some(redacted)) => {
                let heard = replace::heard(&redacted).ok_or_else(lost)?;
                let bytes = framed(Side::Server, &heard);
                Ok(Judged { bytes, permit })
            }
            After::Withhold(refused, _) => Err(refused.into()),
        }
    }

    /// Why policy sees no more than the beginning of it.
    fn unseen(&self, message: &Message) -> Option<Unseen> {
        match message.says.end {
            End::Deadline => Some(Unseen::SlowMessage),
            End::Cap => Some(Unseen::TooLarge),
            End::Finished => (message.says.data.len() > self.cap()).then_some(Unseen::TooLarge),
        }
    }

    /// What this brings to a decision about a message that policy sees as `capture`: its text
    /// can be replaced where policy sees all of it.
    fn terms(&self, capture: &Capture, replaces: fn(&JsonText) -> bool) -> Terms {
        let mut terms = self.treatment.terms(&Method::POST);
        if replace::is_replaceable(capture) {
            terms.replaces = replaces;
        }
        terms
    }

    fn capture(&self, message: &Message) -> Capture {
        let cap = self.cap();
        if cap == 0 {
            return Capture {
                bytes: body::length(&message.says.data),
                state: Captured::Skipped,
                ..Capture::default()
            };
        }
        if message.text {
            body::text_capture(&message.says, cap)
        } else {
            body::binary_capture(&message.says)
        }
    }
}

/// What policy put in the place of a message, as `from` says it: in one frame.
fn framed(from: Side, says: &str) -> Bytes {
    // Masks need not be secret from anybody but scripts of a browser.
    let [a, b, c, d, ..] = clock::span_id().0.to_be_bytes();
    Bytes::from(frame::text(from, says, [a, b, c, d]))
}

/// A bug in this program; the message stays here.
fn lost() -> No {
    No::refused(Refusal::Unjudgeable(Reason::from(
        "the decision is about something else",
    )))
}

/// The operation of saying `body` in the WebSocket that `handshake` opened: a POST
/// to its address, in the scheme of WebSocket (RFC 6455 §3).
fn saying(handshake: &Operation, body: Capture) -> Box<Operation> {
    let started_at = clock::now();
    let action = match &handshake.action {
        Action::Http(call) => Action::Http(HttpCall {
            method: "POST".into(),
            // `http` becomes `ws`, and `https` becomes `wss`.
            url: call.url.replacen("http", "ws", 1).into(),
            scheme: match call.scheme {
                "https" => "wss",
                _ => "ws",
            },
            secrets: call.secrets,
            host: call.host.clone(),
            port: call.port,
            path: call.path.clone(),
            headers: call.headers.clone(),
            tool: mcp::tool_call(&body),
            body,
        }),
        other @ (Action::Database(_) | Action::File(_) | Action::Function(_)) => other.clone(),
    };
    Box::new(Operation {
        id: clock::operation_id(started_at),
        trace: handshake.trace,
        span: clock::span_id(),
        parent: Some(handshake.span),
        started_at,
        context: handshake.context.clone(),
        attribution: handshake.attribution,
        fingerprint: None,
        action,
        reported: None,
    })
}
