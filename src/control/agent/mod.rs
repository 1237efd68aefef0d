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
mod evaluate;
mod events;
mod fields;
mod info;
mod live;
mod open;
pub mod served;
mod spans;
mod subject;
mod tools;
mod whose;
mod workflows;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::{Context, Event, EventKind, JsonText};
use crate::gate::{Gate, Noted};
use crate::policy::core::{Known, Unsigned};
use crate::process::clock;

use self::ended::Ended;
use self::open::Operations;
use self::served::Served;
use super::auth::{Guard, Token, Turns, guarded};
use super::described::WaitText;
use super::problem::{Problem, unknown_method, unknown_route};
use super::rate::Rate;
use super::{idempotency, openapi, text};

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
    /// Where the listener is bound; `None` where it is at a path alone.
    pub address: Option<SocketAddr>,
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
    /// What sends a program through this sidecar.
    pub environment: Environment,
}

/// The environment of a program that is to go through the sidecar, in a format
/// (`sh`, `dotenv`, `json`); the message says why there is none.
#[derive(Clone)]
pub struct Environment(pub Arc<dyn Fn(Format) -> Result<String, String> + Send + Sync>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// How an environment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For every POSIX shell.
    Sh,
    /// For readers of dotenv files.
    Dotenv,
    /// One object; what is to be taken out is `null`.
    Json,
}

/// The routes of the agent's API, behind its guard.
pub fn router(api: AgentApi) -> Router {
    let guard = Guard {
        token: api.token.clone(),
        address: api.address,
    };
    let per_second = api.settings.served.requests_per_second_max;
    let turns = Turns {
        rate: Arc::new(Rate::new(per_second)),
        metrics: api.gate.metrics().clone(),
    };
    let state = Arc::new(Shared {
        served: Served::new(&api, turns.rate.clone()),
        api,
        ended: Ended::default(),
        operations: Operations::default(),
    });
    let served = served::routes(state.clone());
    let (routes, document) = OpenApiRouter::with_openapi(openapi::document("agent"))
        .routes(routes!(workflows::start))
        .routes(routes!(workflows::complete))
        .routes(routes!(workflows::fail))
        .routes(routes!(workflows::signal))
        .routes(routes!(activities::start))
        .routes(routes!(activities::complete))
        .routes(routes!(events::take))
        .routes(routes!(evaluate::evaluate))
        .routes(routes!(evaluate::batch))
        .routes(routes!(tools::check))
        .routes(routes!(tools::submit))
        .routes(routes!(tools::complete))
        .routes(routes!(contexts::register, contexts::forget))
        .routes(routes!(approvals::show))
        .routes(routes!(info::session))
        .routes(routes!(info::environment))
        .routes(routes!(info::ca))
        .routes(routes!(live::stream))
        .split_for_parts();
    let routes = routes
        .route("/openapi.json", openapi::serve(&document))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .with_state(state)
        .layer(middleware::from_fn_with_state(
            idempotency::Answers::default(),
            idempotency::once,
        ));
    guarded(routes, guard, turns).merge(served)
}

/// What every route shares.
#[derive(Debug)]
struct Shared {
    api: AgentApi,
    ended: Ended,
    operations: Operations,
    served: Served,
}

/// How long to wait for a person.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// `25s`, `500ms`, `1m`, or plain seconds; at most 60 s.
    #[param(inline, value_type = Option<WaitText>)]
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
mod hooks_tests;
#[cfg(test)]
mod tests;
