//! Whether the sidecar's own APIs answer.

use std::ffi::OsString;
use std::net::SocketAddr;

use zeroize::Zeroizing;

use crate::app::child_env::value_of;

use super::super::health;
use super::super::operator_client::shown;
use super::ask;
use super::finding::{Finding, Report, Weight};
use super::sidecar::{Sidecar, parts_of};

/// What asks least of the agent API.
const SESSION: &str = "/v1/session";
/// Why it matters where nobody can ask there.
const UNTOLD: &str =
    "what only the agent knows (its runs, activities, tools) is not told, so it is not judged";

pub(super) fn look(sidecar: &Sidecar, parent: &[(OsString, OsString)], report: &mut Report) {
    ready(sidecar, report);
    agent_api(sidecar, parent, report);
}

fn ready(sidecar: &Sidecar, report: &mut Report) {
    let Some(address) = sidecar.told.health.map(|listen| sidecar.reached(listen)) else {
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
    let Some(address) = sidecar.told.agent.map(|listen| sidecar.reached(listen)) else {
        return;
    };
    if !may_have_token(sidecar, parent, address) {
        report.add(unasked(address));
        return;
    }
    let (name, token) = match token(parent) {
        Ok(found) => found,
        Err(finding) => {
            report.add(finding);
            return;
        }
    };
    let said = token.as_deref().map(|token| token.trim());
    // What could not stand in a field is no token, and must not become more than one.
    let is_token = said.is_none_or(|said| said.bytes().all(|byte| byte.is_ascii_graphic()));
    let answer = match is_token {
        true => ask::get(address, SESSION, &address.to_string(), said),
        false => Ok((401, String::new())),
    };
    let told = match (answer, token) {
        (Ok((401, _)), Some(_)) => (
            "agent_token_of_another",
            format!("{name} does not open the agent API of the sidecar that runs"),
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
        why: UNTOLD.to_owned(),
        set: vec![set.to_owned()],
    });
}

/// Whether the agent's token may go to `address`, which nobody but the one that answered has named: it is on this
/// machine, or where the proxy is, or where clients send it already.
fn may_have_token(sidecar: &Sidecar, parent: &[(OsString, OsString)], address: SocketAddr) -> bool {
    let url = value_of(parent, "OPENBOX_SIDECAR_URL").and_then(|url| url.to_str());
    let is_named = url
        .and_then(parts_of)
        .is_some_and(|(host, port)| sidecar.is_reached(host, port, address));
    address.ip().is_loopback() || address.ip() == sidecar.proxy.ip() || is_named
}

fn unasked(address: SocketAddr) -> Finding {
    Finding {
        weight: Weight::Note,
        code: "agent_api_unasked",
        what: format!("the agent API is said to be at {address}, and was not asked"),
        why: "that is neither this machine nor where the proxy is, so it was not shown the agent's token"
            .to_owned(),
        set: vec![format!(
            "if it is the sidecar's: export OPENBOX_SIDECAR_URL='http://{address}'"
        )],
    }
}

/// A token, and the variable that says it.
type Said = (&'static str, Option<Zeroizing<String>>);

/// What opens the agent API, as clients find it.
///
/// # Errors
/// It is to be in a file that cannot be read.
fn token(parent: &[(OsString, OsString)]) -> Result<Said, Finding> {
    const DIRECT: &str = "OPENBOX_SIDECAR_TOKEN";
    const FILE: &str = "OPENBOX_SIDECAR_TOKEN_FILE";
    if let Some(token) = value_of(parent, DIRECT).filter(|token| !token.is_empty()) {
        let token = Zeroizing::new(token.to_string_lossy().into_owned());
        return Ok((DIRECT, Some(token)));
    }
    let Some(path) = value_of(parent, FILE).filter(|path| !path.is_empty()) else {
        return Ok((DIRECT, None));
    };
    match std::fs::read_to_string(path) {
        Ok(token) => Ok((FILE, Some(Zeroizing::new(token)))),
        Err(error) => Err(Finding {
            weight: Weight::Finding,
            code: "agent_token_unreadable",
            what: format!(
                "{FILE}: {} cannot be read: {error}",
                shown(&path.to_string_lossy())
            ),
            why: UNTOLD.to_owned(),
            set: vec![
                "make the folder that the sidecar shares (share_dir) visible here, and name its agent-token"
                    .to_owned(),
            ],
        }),
    }
}
