//! Whether the sidecar's own APIs answer.

use std::ffi::OsString;

use crate::app::child_env::{reachable, value_of};

use super::super::health;
use super::ask;
use super::finding::{Finding, Report, Weight};
use super::sidecar::Sidecar;

/// What asks least of the agent API.
const SESSION: &str = "/v1/session";

pub(super) fn look(sidecar: &Sidecar, parent: &[(OsString, OsString)], report: &mut Report) {
    ready(sidecar, report);
    agent_api(sidecar, parent, report);
}

fn ready(sidecar: &Sidecar, report: &mut Report) {
    let Some(address) = sidecar.told.health.map(reachable) else {
        return;
    };
    let (code, what) = match health::ask(address) {
        Ok((200, _)) => return,
        Ok((status, body)) => {
            let said = body.lines().next().unwrap_or_default();
            (
                "not_ready",
                format!("the sidecar is not ready ({status}): {said}"),
            )
        }
        Err(error) => (
            "health_unreachable",
            format!(
                "{address}, where the sidecar tells whether it is ready, cannot be asked: {error}"
            ),
        ),
    };
    report.add(Finding {
        weight: Weight::Note,
        code,
        what,
        why: "what is asked of it now may be refused, or wait".to_owned(),
        set: vec!["see its log, and `openbox-sidecar health`".to_owned()],
    });
}

fn agent_api(sidecar: &Sidecar, parent: &[(OsString, OsString)], report: &mut Report) {
    let Some(address) = sidecar.told.agent.map(reachable) else {
        return;
    };
    let token = value_of(parent, "OPENBOX_SIDECAR_TOKEN").and_then(|token| token.to_str());
    let told = match (
        ask::get(address, SESSION, &address.to_string(), token),
        token,
    ) {
        (Ok((401, _)), Some(_)) => (
            "agent_token_of_another",
            "OPENBOX_SIDECAR_TOKEN does not open the agent API of the sidecar that runs".to_owned(),
            "its token is new at every start, unless OPENBOX_AGENT_TOKEN says it: begin the agent anew, or let it read OPENBOX_SIDECAR_TOKEN_FILE",
        ),
        (Ok(_), _) => return,
        (Err(error), _) => (
            "agent_api_unreachable",
            format!("the agent API at {address} cannot be asked: {error}"),
            "see `listen.agent`, and whether this is the network namespace of the sidecar",
        ),
    };
    let (code, what, set) = told;
    report.add(Finding {
        weight: Weight::Finding,
        code,
        what,
        why: "what only the agent knows (its runs, activities, tools) is not told, so it is not judged".to_owned(),
        set: vec![set.to_owned()],
    });
}
