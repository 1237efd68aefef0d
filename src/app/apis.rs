//! The local APIs, wired.

use std::path::Path;
use std::sync::Arc;

use axum::Router;

use crate::config::SdkConfig;
use crate::control::agent::{self, AgentApi};
use crate::control::auth::Token;
use crate::control::operator::{self, OperatorApi};
use crate::gate::Gate;
use crate::net::mint::Mint;

use super::judge::Judge;
use super::{Addresses, trust};

/// What both APIs are about.
pub(super) struct Apis<'a> {
    pub(super) gate: &'a Gate,
    pub(super) addresses: &'a Addresses,
    pub(super) state_dir: &'a Path,
    pub(super) mint: &'a Mint,
    pub(super) sdk: &'a SdkConfig,
}

impl Apis<'_> {
    /// The agent's; routes nobody reaches where it is off.
    pub(super) fn agent(&self, token: Token) -> Router {
        let Some(address) = self.addresses.agent else {
            return Router::new();
        };
        agent::router(AgentApi {
            gate: self.gate.clone(),
            token,
            address,
            settings: agent::Settings {
                served: self.sdk.served,
                ..agent::Settings::default()
            },
            signer: self.sdk.signer.clone(),
            proxy_url: self.addresses.http.map(|at| format!("http://{at}").into()),
            ca_path: Some(self.state_dir.join(trust::CA)),
            ca_pem: Some(self.mint.authority().pem().into()),
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
        })
    }
}
