//! Whose an operation is that the agent tells: the run and activity that it
//! names, else what every operation is attributed by.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::domain::{SpanId, TraceId};
use crate::process::clock;
use crate::session::{Claim, RunKey, Session};

use super::super::problem::Problem;
use super::super::serve::Caller;
use super::super::text::optional;
use super::{Shared, contexts};

/// What a request says about whose its operation is. All of it is optional.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) workflow_id: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) activity_id: Option<String>,
    pub(super) context: Option<String>,
    pub(super) traceparent: Option<String>,
}

/// What comes with a request beside its body.
#[derive(Debug, Default)]
pub(super) struct Heard {
    headers: HeaderMap,
    caller: Caller,
}

impl<S: Send + Sync> FromRequestParts<S> for Heard {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>().cloned();
        Ok(Self {
            headers: parts.headers.clone(),
            caller: caller.unwrap_or_default(),
        })
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

impl Named {
    /// The trace it belongs to, and the span around it.
    pub(super) fn trace(
        &self,
        heard: &Heard,
    ) -> Result<Option<(TraceId, Option<SpanId>)>, Problem> {
        let header = heard
            .headers
            .get(TRACEPARENT)
            .and_then(|value| value.to_str().ok());
        let told = self.traceparent.as_deref().or(header);
        told.map(contexts::traceparent_and_span).transpose()
    }
}

impl Shared {
    /// The session of an operation.
    ///
    /// # Errors
    /// What is named is not open, or nothing is named and nothing else says
    /// whose it is.
    pub(super) fn whose(
        &self,
        named: &Named,
        trace: Option<TraceId>,
        heard: &Heard,
    ) -> Result<Session, Problem> {
        let registry = self.api.gate.registry();
        let workflow_id = optional("workflow_id", named.workflow_id.as_deref())?;
        let run_id = optional("run_id", named.run_id.as_deref())?;
        let activity_id = optional("activity_id", named.activity_id.as_deref())?;
        let context = optional("context", named.context.as_deref())?;
        let is_named = workflow_id.is_some() || run_id.is_some() || activity_id.is_some();
        let now = clock::now();
        if !is_named {
            let claim = Claim {
                trace,
                proxy_user: context.as_deref(),
                callers: &heard.caller.0,
                ..Claim::default()
            };
            return registry.attribute(&claim, now).ok_or_else(|| {
                let detail = "nothing says whose operation this is; name its `activity_id`, or `workflow_id` and `run_id`";
                Problem::new(StatusCode::CONFLICT, "unattributed", detail)
            });
        }
        if let (Some(workflow_id), Some(run_id), None) = (&workflow_id, &run_id, &activity_id) {
            let (workflow_id, run_id) = (workflow_id.clone(), run_id.clone());
            let key = RunKey {
                workflow_id,
                run_id,
            };
            if key == RunKey::of(&registry.own().context) {
                return Ok(registry.own().clone());
            }
        }
        let claim = Claim {
            workflow_id: workflow_id.as_deref(),
            run_id: run_id.as_deref(),
            activity_id: activity_id.as_deref(),
            ..Claim::default()
        };
        registry.named(&claim).ok_or_else(|| match &activity_id {
            Some(id) => {
                let detail = format!(
                    "no activity \"{id}\" is open in exactly one run; POST /v1/activities opens one, if policy allows it"
                );
                Problem::new(StatusCode::NOT_FOUND, "unknown_activity", detail)
            }
            None => {
                let detail = "no open run is meant by these ids, or several are; POST /v1/workflows opens one, if policy allows it";
                Problem::new(StatusCode::NOT_FOUND, "unknown_run", detail)
            }
        })
    }
}
