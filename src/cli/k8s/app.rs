//! What the app's containers are given: the environment that `run` gives its child, and the folder of
//! certificates and token, to read.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

use crate::app::child_databases::Database;
use crate::app::child_env::{self, Agent, Change, Given, Proxy};
use crate::config::{Config, Listener};

use super::annotations::Wanted;
use super::pod::{list, name_of};
use super::sidecar::{SHARE, SHARED_VOLUME, SOCKET};

const TOKEN_FILE: &str = "OPENBOX_SIDECAR_TOKEN_FILE";
/// What `run` gives its child the token as: SDKs read the one, whoever knows the sidecar the other.
const TOKEN: [&str; 2] = ["OPENBOX_API_KEY", "OPENBOX_SIDECAR_TOKEN"];

/// Sends `container` through the sidecar. Answers with what a person should know.
pub(super) fn send_through(container: &mut Value, wanted: &Wanted) -> Vec<String> {
    let databases = wanted.databases();
    let name = name_of(container).to_owned();
    let mut warnings = Vec::new();
    let Some(variables) = list(container, "env") else {
        return warnings;
    };
    let parent: Vec<_> = variables.iter().map(literal_of).collect();
    let unread = unread(variables);
    let of_databases = names(&changes(&parent, &wanted.config, &databases));
    let always = names(&changes(&parent, &wanted.config, &[]));
    let mut ours = Vec::new();
    for change in changes(&parent, &wanted.config, &databases) {
        let (Some(variable), Ok(value)) = (
            change.name.to_str(),
            change.value.map(OsString::into_string).transpose(),
        ) else {
            continue;
        };
        if wanted.agent_token.is_some() && TOKEN.contains(&variable) {
            continue;
        }
        // Where it points is in a Secret or ConfigMap: replacing it blindly could lead to another server.
        let guessed = of_databases.contains(variable) && !always.contains(variable);
        if guessed && unread.contains(variable) {
            continue;
        }
        let place = variables
            .iter()
            .position(|entry| name_of(entry) == variable);
        match (place, value) {
            (Some(place), Some(value)) => {
                if let Some(entry) = variables.get_mut(place) {
                    *entry = json!({"name": variable, "value": value});
                }
            }
            (Some(place), None) => drop(variables.remove(place)),
            (None, Some(value)) => ours.push(json!({"name": variable, "value": value})),
            (None, None) => {}
        }
    }
    if !databases.is_empty() {
        warnings.extend(unread.iter().filter(|name| may_be_database(name)).map(|variable| {
            format!(
                "container {name}: {variable} comes from a Secret or ConfigMap and stays as it is; if it leads to a database that is governed, let it lead to the sidecar's listener for it"
            )
        }));
    }
    ours.extend(token(variables, wanted));
    // In front, so that others may refer to ours.
    ours.retain(|entry| {
        !variables
            .iter()
            .any(|there| name_of(there) == name_of(entry))
    });
    variables.splice(0..0, ours);
    mount(container);
    warnings
}

/// The token where the pod has it in a Secret: put where `variables` has one, else to be added.
fn token(variables: &mut [Value], wanted: &Wanted) -> Vec<Value> {
    let Some((secret, key)) = &wanted.agent_token else {
        return Vec::new();
    };
    let reference = json!({"secretKeyRef": {"name": secret, "key": key}});
    let mut ours = Vec::new();
    for name in TOKEN {
        let entry = json!({"name": name, "valueFrom": reference});
        match variables.iter_mut().find(|there| name_of(there) == name) {
            // Or a second injection would move it.
            Some(there) => *there = entry,
            None => ours.push(entry),
        }
    }
    ours
}

fn changes(
    parent: &[(OsString, OsString)],
    config: &Config,
    databases: &[Database],
) -> Vec<Change> {
    let share = Path::new(SHARE);
    let files =
        [crate::app::CA, crate::app::BUNDLE, crate::app::JAVA_STORE].map(|name| share.join(name));
    let [ca, bundle, java_store] = &files;
    let socket = &share.join(SOCKET);
    let at = |listener: Listener| match listener {
        Listener::At(address) => Some(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            address.port(),
        )),
        Listener::Off => None,
    };
    let given = Given {
        proxy: at(config.listen.http).map(|address| Proxy {
            address,
            ca,
            bundle,
            java_store: Some(java_store),
        }),
        agent: at(config.listen.agent).map(|address| Agent {
            address: Some(address),
            socket: Some(socket),
            token: None,
        }),
        databases,
    };
    let mut all = child_env::changes(parent, &given);
    if given.agent.is_some() {
        let path = share.join(crate::app::AGENT_TOKEN).into_os_string();
        // Its name is one of a secret's, of an earlier injection.
        all.retain(|change| change.name != TOKEN_FILE);
        all.push(Change {
            name: TOKEN_FILE.into(),
            value: Some(path),
        });
    }
    all
}

fn names(changes: &[Change]) -> BTreeSet<String> {
    let all = changes.iter().filter_map(|change| change.name.to_str());
    all.map(str::to_owned).collect()
}

/// A variable as it is written, `$(OTHER)` in it included; empty where only Kubernetes knows.
fn literal_of(entry: &Value) -> (OsString, OsString) {
    let value = entry
        .get("value")
        .and_then(Value::as_str)
        .unwrap_or_default();
    (name_of(entry).into(), value.into())
}

/// Variables whose values stand elsewhere.
fn unread(variables: &[Value]) -> BTreeSet<String> {
    let elsewhere = variables
        .iter()
        .filter(|entry| entry.get("valueFrom").is_some());
    elsewhere.map(|entry| name_of(entry).to_owned()).collect()
}

fn may_be_database(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    ["URL", "URI", "DSN", "HOST", "DATABASE"]
        .iter()
        .any(|word| upper.contains(word))
}

fn mount(container: &mut Value) {
    if let Some(mounts) = list(container, "volumeMounts") {
        mounts.retain(|mount| name_of(mount) != SHARED_VOLUME);
        mounts.push(json!({"name": SHARED_VOLUME, "mountPath": SHARE, "readOnly": true}));
    }
}
