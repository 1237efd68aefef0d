//! The agent's API: lifecycle events as plain POSTs that any language can send,
//! each answered 200 with its verdict, and what an agent may know of itself; and
//! the routes of OpenBox Core ([`served`]), for agents with an SDK.
//!
//! It opens and closes runs and activities. It never decides anything:
//! approvals, halts and policy are the operator's.

mod activities;
mod answer;
mod approvals;
mod contexts;
mod ended;
mod events;
mod fields;
mod info;
pub mod served;
mod subject;
mod workflows;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post, put};
use serde::Deserialize;

use crate::domain::{Context, Event, EventKind, JsonText};
use crate::gate::{Gate, Noted};
use crate::policy::core::{Known, Unsigned};
use crate::process::clock;

use self::ended::Ended;
use self::served::Served;
use super::auth::{Guard, Token, guarded};
use super::problem::{Problem, unknown_method, unknown_route};
use super::text;

/// How long the agent's requests may wait, and how large they may be. Built by `config`.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long an event waits for a person when its `?wait=` says nothing.
    pub hold_within: Duration,
    /// Longest `?wait=` that is taken, of events and of approvals.
    pub wait_max: Duration,
    /// See [`served`].
    pub served: served::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold_within: Duration::from_secs(25),
            wait_max: Duration::from_secs(60),
            served: served::Settings::default(),
        }
    }
}

/// What the agent's API is built from.
#[derive(Debug)]
pub struct AgentApi {
    /// Who decides.
    pub gate: Gate,
    /// The agent's token.
    pub token: Token,
    /// Where the listener is bound.
    pub address: SocketAddr,
    /// See [`Settings`].
    pub settings: Settings,
    /// Who signs what SDKs send; without one, nobody may.
    pub signer: Option<(Known, Unsigned)>,
    /// The HTTP proxy, as the agent reaches it; absent when it is off.
    pub proxy_url: Option<Box<str>>,
    /// Where the public CA is.
    pub ca_path: Option<PathBuf>,
    /// The public CA itself.
    pub ca_pem: Option<Arc<str>>,
}

/// The routes of the agent's API, behind its guard.
pub fn router(api: AgentApi) -> Router {
    let guard = Guard {
        token: api.token.clone(),
        address: api.address,
    };
    let state = Arc::new(Shared {
        served: Served::new(&api),
        api,
        ended: Ended::default(),
    });
    let served = served::routes(state.clone());
    let routes = Router::new()
        .route("/v1/workflows", post(workflows::start))
        .route(
            "/v1/workflows/{workflow_id}/runs/{run_id}/complete",
            post(workflows::complete),
        )
        .route(
            "/v1/workflows/{workflow_id}/runs/{run_id}/fail",
            post(workflows::fail),
        )
        .route("/v1/signals", post(workflows::signal))
        .route("/v1/activities", post(activities::start))
        .route(
            "/v1/activities/{activity_id}/complete",
            post(activities::complete),
        )
        .route("/v1/events", post(events::take))
        .route(
            "/v1/contexts/{name}",
            put(contexts::register).delete(contexts::forget),
        )
        .route("/v1/approvals/{id}", get(approvals::show))
        .route("/v1/session", get(info::session))
        .route("/v1/ca.pem", get(info::ca))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .with_state(state);
    guarded(routes, guard).merge(served)
}

/// What every route shares.
#[derive(Debug)]
struct Shared {
    api: AgentApi,
    ended: Ended,
    served: Served,
}

/// `?wait=`.
#[derive(Debug, Deserialize)]
struct Wait {
    wait: Option<String>,
}

impl Shared {
    /// How long an event may wait for a person.
    fn hold_within(&self, query: &Wait) -> Result<Duration, Problem> {
        let settings = &self.api.settings;
        text::wait(
            query.wait.as_deref(),
            settings.hold_within,
            settings.wait_max,
        )
    }

    /// Has an event judged.
    async fn note(
        &self,
        kind: EventKind,
        context: Arc<Context>,
        fields: Vec<(&'static str, JsonText)>,
        hold_within: Duration,
    ) -> (Event, Noted) {
        let at = clock::now();
        let event = Event {
            id: clock::operation_id(at),
            kind,
            context,
            at,
            fields,
        };
        let noted = self.api.gate.note(&event, hold_within).await;
        (event, noted)
    }
}

#[cfg(test)]
mod tests;
