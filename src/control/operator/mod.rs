//! The operator's API: what a person decides about an agent. The agent's token
//! does not open it.

mod approvals;
mod killswitch;
mod live;
#[cfg(test)]
mod live_tests;
mod policy;
mod runs;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::domain::Reason;
use crate::gate::Gate;

use super::auth::{Guard, Token, Turns, guarded};
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
        address: api.address,
    };
    let turns = Turns {
        rate: Arc::new(Rate::new(REQUESTS_PER_SECOND_MAX)),
        metrics: api.gate.metrics().clone(),
    };
    let routes = Router::new()
        .route("/v1/approvals", get(approvals::list))
        .route("/v1/approvals/{id}", get(approvals::show))
        .route("/v1/approvals/{id}/approve", post(approvals::approve))
        .route("/v1/approvals/{id}/reject", post(approvals::reject))
        .route("/v1/runs", get(runs::list))
        .route("/v1/runs/{run_id}/halt", post(runs::halt))
        .route("/v1/runs/{run_id}/resume", post(runs::resume))
        .route("/v1/policy/reload", post(policy::reload))
        .route("/v1/status", get(policy::status))
        .route("/v1/stream", get(live::stream))
        .route("/v1/killswitch", get(killswitch::show).put(killswitch::set))
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
