//! Answers that come in pieces, each judged by itself.

use crate::domain::{Action, Capture, Captured, Refusal, Stage};
use crate::process::clock;

use super::admit::Trail;
use super::permit::Permit;
use super::{Decision, Refused};

impl Permit {
    /// A permit for one piece of the answer to what this one admits, to be completed
    /// with that piece: an event of a stream, a message of a WebSocket. The ruling that
    /// admitted the whole admits it, so policy is asked about its content only.
    ///
    /// Its operation has an id and a span of its own, below the span of the whole, and
    /// shows no request body: that was judged, and no retry is the same piece.
    ///
    /// # Errors
    /// The run is halted, the activity aborted, or the record cannot be written.
    pub async fn piece(&self) -> Result<Self, Refused> {
        self.admit_piece().await.map_err(|refused| Refused {
            // What it is an answer to was carried out.
            stage: Stage::Completed,
            ..refused
        })
    }

    async fn admit_piece(&self) -> Result<Self, Refused> {
        let Some(admitted) = self.admitted.as_deref() else {
            let refusal = Refusal::Unjudgeable("its operation is completed".into());
            let event = clock::operation_id(clock::now());
            return Err(Refused::unasked(refusal, event));
        };
        let started_at = clock::now();
        let mut operation = admitted.operation.clone();
        operation.id = clock::operation_id(started_at);
        operation.parent = Some(operation.span);
        operation.span = clock::span_id();
        operation.started_at = started_at;
        operation.fingerprint = None;
        if let Action::Http(call) = &mut operation.action {
            call.body = Capture {
                state: Captured::Skipped,
                ..Capture::default()
            };
        }
        let trail = Trail {
            ruling: admitted.ruling.clone(),
            by_fail_mode: admitted.ruling.is_none(),
            unanswered: admitted.unanswered,
            ..Trail::default()
        };
        let line = admitted
            .gate
            .into_line(operation, admitted.session.clone(), trail)?;
        match line.written().await {
            Decision::Proceed(piece) => Ok(piece),
            Decision::Refuse(refused) => Err(refused),
            Decision::Replay(replay) => {
                let refusal = Refusal::Unjudgeable("it was done before".into());
                Err(Refused::unasked(refusal, replay.event))
            }
        }
    }
}
