//! The operator's API: what a person decides about an agent. The agent's token
//! does not open it.

mod approvals;
mod audit;
mod killswitch;
mod live;
#[cfg(test)]
mod live_tests;
mod policy;
#[cfg(test)]
mod record_tests;
mod records;
mod runs;
mod sidecar;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::Reason;
use crate::gate::Gate;

use super::auth::{Guard, Token, Turns, guarded};
use super::openapi;
use super::problem::{Problem, unknown_method, unknown_route};
use super::rate::Rate;
use super::text::id;

/// Most requests a second.
const REQUESTS_PER_SECOND_MAX: usize = 1_000;

/// Loads the policy again. Answers with one line about what is live now, or why
/// the last good policy stayed.
pub type Reload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Says in one line who judges.
pub type Describe = Arc<dyn Fn() -> String + Send + Sync>;

/// Begins the end of this process.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<tokio::sync::Notify>);

impl Shutdown {
    /// Begins it. Nobody has to wait for it yet.
    pub(in crate::control) fn begin(&self) {
        self.0.notify_one();
    }

    /// Resolves once it was begun. Cancel-safe.
    pub async fn begun(&self) {
        self.0.notified().await;
    }
}

/// What the operator's API is built from.
#[derive(Clone)]
pub struct OperatorApi {
    /// Whose approvals and runs they are.
    pub gate: Gate,
    /// The operator's token.
    pub token: Token,
    /// Where the listener is bound.
    pub address: SocketAddr,
    /// See [`Reload`]. May block.
    pub reload: Reload,
    /// See [`Describe`].
    pub describe: Describe,
    /// Every setting with its value and who said it, secrets masked: JSON.
    pub config: Arc<serde_json::Value>,
    /// See [`Shutdown`].
    pub shutdown: Shutdown,
}

impl fmt::Debug for OperatorApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorApi")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The routes of the operator's API, behind its guard.
pub fn router(api: OperatorApi) -> Router {
    let guard = Guard {
        token: api.token.clone(),
        address: Some(api.address),
    };
    let turns = Turns {
        rate: Arc::new(Rate::new(REQUESTS_PER_SECOND_MAX)),
        metrics: api.gate.metrics().clone(),
    };
    let (routes, document) = OpenApiRouter::with_openapi(openapi::document("operator"))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::show))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::reject))
        .routes(routes!(runs::list))
        .routes(routes!(runs::halt))
        .routes(routes!(runs::resume))
        .routes(routes!(records::timeline))
        .routes(routes!(records::operations))
        .routes(routes!(killswitch::show, killswitch::set))
        .routes(routes!(live::stream))
        .routes(routes!(audit::head))
        .routes(routes!(audit::export))
        .routes(routes!(policy::reload))
        .routes(routes!(policy::status))
        .routes(routes!(sidecar::config))
        .routes(routes!(sidecar::shutdown))
        .split_for_parts();
    let routes = routes
        .route("/openapi.json", openapi::serve(&document))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .with_state(Arc::new(api));
    guarded(routes, guard, turns)
}

/// Who decided, for the journal.
fn by(named: Option<&str>) -> Result<Arc<str>, Problem> {
    match named {
        Some(name) => id("by", name),
        None => Ok("operator".into()),
    }
}

/// Why, in words fit for agent and journal.
fn why(reason: Option<&str>) -> Result<Reason, Problem> {
    match reason.map(str::trim) {
        None | Some("") => {
            let example = "\"reason\": \"wrong customer\"";
            Err(Problem::missing_field("reason", example))
        }
        Some(reason) => Ok(Reason::from_peer(reason)),
    }
}

#[cfg(test)]
mod tests;
