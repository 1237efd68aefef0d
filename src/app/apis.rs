//! The local APIs, wired.

use std::path::Path;
use std::sync::Arc;

use axum::Router;

use crate::config::{Resolved, SdkConfig};
use crate::control::agent::{self, AgentApi};
use crate::control::auth::Token;
use crate::control::operator::{self, OperatorApi};
use crate::gate::Gate;
use crate::net::mint::Mint;

use super::environment::Environment;
use super::judge::Judge;
use super::{Addresses, env_text, trust};

/// What both APIs are about.
pub(super) struct Apis<'a> {
    /// What a program needs to go through this sidecar.
    pub(super) environment: Environment,
    pub(super) gate: &'a Gate,
    pub(super) addresses: &'a Addresses,
    pub(super) state_dir: &'a Path,
    pub(super) mint: &'a Mint,
    pub(super) sdk: &'a SdkConfig,
    /// What was configured.
    pub(super) resolved: &'a [Resolved],
    pub(super) shutdown: &'a operator::Shutdown,
}

impl Apis<'_> {
    /// The agent's; routes nobody reaches where it is off.
    pub(super) fn agent(self, token: Token) -> Router {
        if self.addresses.agent.is_none() && self.addresses.agent_socket.is_none() {
            return Router::new();
        }
        agent::router(AgentApi {
            gate: self.gate.clone(),
            token,
            address: self.addresses.agent,
            settings: agent::Settings {
                served: self.sdk.served,
                ..agent::Settings::default()
            },
            signer: self.sdk.signer.clone(),
            proxy_url: self.addresses.http.map(|at| format!("http://{at}").into()),
            ca_path: Some(self.state_dir.join(trust::CA)),
            ca_pem: Some(self.mint.authority().pem().into()),
            environment: written(self.environment),
        })
    }

    /// The operator's; routes nobody reaches where it is off.
    pub(super) fn operator(&self, token: Token, judge: Judge) -> Router {
        let Some(address) = self.addresses.operator else {
            return Router::new();
        };
        let (reloading, described) = (judge.clone(), judge);
        let metrics = self.gate.metrics().clone();
        operator::router(OperatorApi {
            gate: self.gate.clone(),
            token,
            address,
            reload: Arc::new(move || reloading.reload(&metrics)),
            describe: Arc::new(move || described.backend.describe()),
            config: Arc::new(settings(self.resolved)),
            shutdown: self.shutdown.clone(),
        })
    }
}

fn settings(resolved: &[Resolved]) -> serde_json::Value {
    let rows = resolved.iter().map(|setting| {
        let Resolved { key, value, from } = setting;
        let said = serde_json::json!({ "value": value, "from": from });
        ((*key).to_owned(), said)
    });
    serde_json::Value::Object(rows.collect())
}

/// Says nothing of our own environment: what that holds is the sidecar's.
fn written(environment: Environment) -> agent::Environment {
    agent::Environment(Arc::new(move |format| {
        let format = match format {
            agent::Format::Sh => env_text::Format::Sh,
            agent::Format::Dotenv => env_text::Format::Dotenv,
            agent::Format::Json => env_text::Format::Json,
        };
        let changes = environment.changes_of(&[]);
        env_text::render(&changes, format).map_err(|error| error.to_string())
    }))
}
