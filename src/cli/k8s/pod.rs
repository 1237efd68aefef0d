//! Puts a sidecar into a pod, or says why not. Applied to its own result, it changes nothing: admission
//! plugins are asked again when another one has changed the pod.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::annotations::{INJECT, INJECTED, Mode, PREFIX, Refused, Wanted};
use super::{apart, app, confined, grace, sidecar};

/// The list that the sidecar is in.
const FIRST: &str = "initContainers";

/// What holds for every pod of an installation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Injection {
    /// Image of the sidecar.
    pub(super) image: String,
    /// Image of the container that sets the kernel's rules: the same, and `nft`.
    pub(super) init_net_image: String,
    /// When the image is pulled, as Kubernetes names it.
    pub(super) image_pull_policy: String,
    /// Resources of the sidecar's container, as Kubernetes writes them.
    pub(super) resources: Value,
    /// Annotations that hold where a pod does not say otherwise, without `openbox.ai/`.
    pub(super) defaults: BTreeMap<String, String>,
}

impl Default for Injection {
    fn default() -> Self {
        Self {
            image: concat!(
                "ghcr.io/openbox-ai/openbox-sidecar:",
                env!("CARGO_PKG_VERSION")
            )
            .to_owned(),
            init_net_image: concat!(
                "ghcr.io/openbox-ai/openbox-sidecar-init-net:",
                env!("CARGO_PKG_VERSION")
            )
            .to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            resources: json!({
                "requests": {"cpu": "50m", "memory": "64Mi"},
                "limits": {"memory": "512Mi"},
            }),
            defaults: BTreeMap::new(),
        }
    }
}

/// What was done with a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It has a sidecar; what a person should know.
    Injected(Vec<String>),
    /// It does not want one.
    Left(&'static str),
}

/// Whether the pod's label asks for a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Only pods that say so: the webhook's way.
    ByLabel,
    /// Every pod that does not forbid it: somebody named this manifest.
    ByHand,
}

/// Puts a sidecar into `template`, an object with `metadata` and `spec` as a Pod has them.
///
/// # Errors
/// The pod, or an annotation of it, cannot be what it says; `template` may be changed in part then.
pub(super) fn inject(
    template: &mut Value,
    injection: &Injection,
    asked: Asked,
) -> Result<Done, Refused> {
    let label = text_at(template, &["metadata", "labels"], INJECT);
    match (label.as_deref(), asked) {
        (Some("disabled"), _) => return Ok(Done::Left("its label openbox.ai/inject is disabled")),
        (Some("enabled"), _) | (None, Asked::ByHand) => {}
        (None, Asked::ByLabel) => {
            return Ok(Done::Left("it has no label openbox.ai/inject: enabled"));
        }
        (Some(other), _) => {
            let told = format!("label {INJECT} is {other:?}; it is enabled or disabled");
            return Err(Refused::one(told));
        }
    }
    let annotations = strings(template.pointer("/metadata/annotations"));
    let mut wanted = Wanted::read(&annotations, &injection.defaults)?;
    let injected = annotations.contains_key(INJECTED);
    object(template, "metadata");
    shape(template)?;
    let Some(spec) = template.get_mut("spec") else {
        return Err(Refused::one("it has no spec"));
    };
    refuse(spec, &wanted, injected)?;
    let mut warnings = warnings(spec);
    warnings.extend(apart::keys(spec, &wanted));
    warnings.extend(grace::fit(spec, &mut wanted)?);
    warnings.extend(apps(spec, &wanted));
    place(spec, &wanted, injection);
    if let Some(annotations) = template
        .get_mut("metadata")
        .and_then(|metadata| object(metadata, "annotations"))
    {
        annotations.insert(INJECTED.to_owned(), env!("CARGO_PKG_VERSION").into());
    }
    Ok(Done::Injected(warnings))
}

/// Whether what is to be changed is as Kubernetes has it: the API server looks at it only afterwards.
fn shape(template: &Value) -> Result<(), Refused> {
    let is = |path: &str, kind: &str, fits: fn(&Value) -> bool| match template.pointer(path) {
        Some(value) if !value.is_null() && !fits(value) => Err(Refused::one(format!(
            "{} is no {kind}",
            path.trim_start_matches('/').replace('/', ".")
        ))),
        Some(_) | None => Ok(()),
    };
    let objects = |value: &Value| {
        let all = value.as_array();
        all.is_some_and(|all| all.iter().all(|item| item.is_object()))
    };
    if !template.pointer("/spec/containers").is_some_and(objects) {
        return Err(Refused::one("spec.containers is no list of containers"));
    }
    is("/spec/initContainers", "list of containers", objects)?;
    is("/spec/volumes", "list of volumes", objects)?;
    is("/spec/securityContext", "object", Value::is_object)?;
    is("/metadata", "object", Value::is_object)?;
    is("/metadata/annotations", "object", Value::is_object)?;
    for of in ["initContainers", "containers"] {
        let all = template
            .pointer(&format!("/spec/{of}"))
            .and_then(Value::as_array);
        for (place, _) in all.into_iter().flatten().enumerate() {
            is(
                &format!("/spec/{of}/{place}/env"),
                "list of variables",
                objects,
            )?;
            is(
                &format!("/spec/{of}/{place}/volumeMounts"),
                "list of mounts",
                objects,
            )?;
        }
    }
    Ok(())
}

/// What a pod cannot have together with a sidecar.
fn refuse(spec: &Value, wanted: &Wanted, injected: bool) -> Result<(), Refused> {
    let mut told = Vec::new();
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        told.push("spec.hostNetwork is true: the sidecar's listeners, and everybody on the node who reaches them, would not be the pod's own".to_owned());
    }
    told.extend(apart::of_pod(spec));
    told.extend(apart::of_volumes(spec, wanted));
    let mut names = Vec::new();
    for (of, container) in containers(spec) {
        let name = name_of(container);
        if sidecar::is_ours_to_run(name) {
            // What a pod says of itself proves nothing, but there ours are put anew, in place of what is there.
            if injected && of == FIRST {
                continue;
            }
            told.push(format!("there is a container {name} already, in spec.{of}; take it out, or set the label {INJECT}: disabled"));
        }
        names.push(name);
        told.extend(apart::of_container(container));
        told.extend(taken_ports(container, wanted));
        if wanted.mode == Mode::Redirect {
            told.extend(confined::missing(spec, container));
        }
    }
    for wanted in &wanted.containers {
        if !names.contains(&wanted.as_str()) {
            told.push(format!(
                "annotation {PREFIX}containers names {wanted:?}; the pod has {}",
                names.join(", ")
            ));
        }
    }
    if !injected {
        let volumes = spec.get("volumes").and_then(Value::as_array);
        let ours = volumes
            .into_iter()
            .flatten()
            .map(name_of)
            .filter(|name| sidecar::is_ours(name));
        told.extend(ours.map(|name| {
            format!("there is a volume {name} already, which is a name of the sidecar's")
        }));
    }
    if told.is_empty() {
        Ok(())
    } else {
        Err(Refused(told))
    }
}

/// Ports of an app that the sidecar listens on: both share the pod's address.
fn taken_ports(container: &Value, wanted: &Wanted) -> Vec<String> {
    let ours = listening(wanted);
    let ports = container.get("ports").and_then(Value::as_array);
    let ports = ports.into_iter().flatten();
    let ports = ports.filter_map(|port| port.get("containerPort").and_then(Value::as_u64));
    let taken = ports.filter(|port| ours.contains(port));
    let name = name_of(container);
    taken
        .map(|port| format!("container {name} has port {port}, on which the sidecar listens"))
        .collect()
}

fn listening(wanted: &Wanted) -> Vec<u64> {
    use crate::config::Listener;
    let listen = &wanted.config.listen;
    let all = [
        listen.http,
        listen.transparent,
        listen.agent,
        listen.operator,
        listen.health,
    ];
    let all = all.iter().filter_map(|listener| match listener {
        Listener::At(address) => Some(address.port()),
        Listener::Off => None,
    });
    let databases = wanted
        .databases()
        .into_iter()
        .map(|database| database.listen.port());
    all.chain(databases).map(u64::from).collect()
}

fn warnings(spec: &Value) -> Vec<String> {
    let mut told = Vec::new();
    if spec.get("shareProcessNamespace") == Some(&Value::Bool(true)) {
        told.push("spec.shareProcessNamespace is true: a container that runs as root, or whose image says user 1580, can read the sidecar's files and keys".to_owned());
    }
    told
}

/// The containers of the app, sent through the sidecar.
fn apps(spec: &mut Value, wanted: &Wanted) -> Vec<String> {
    let mut warnings = Vec::new();
    for of in [FIRST, "containers"] {
        let Some(all) = spec.get_mut(of).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in all {
            let name = name_of(container);
            let chosen =
                wanted.containers.is_empty() || wanted.containers.iter().any(|one| one == name);
            if chosen && !sidecar::is_ours_to_run(name) {
                warnings.extend(app::send_through(container, wanted));
            }
        }
    }
    warnings
}

/// The sidecar's container, before all others, and its volumes.
fn place(spec: &mut Value, wanted: &Wanted, injection: &Injection) {
    if let Some(first) = list(spec, FIRST) {
        first.retain(|container| !sidecar::is_ours_to_run(name_of(container)));
        first.insert(0, sidecar::container(wanted, injection));
        match wanted.mode {
            Mode::Redirect => first.insert(0, sidecar::init_net(injection)),
            Mode::Cooperative => {}
        }
    }
    if let Some(volumes) = list(spec, "volumes") {
        volumes.retain(|volume| !sidecar::is_ours(name_of(volume)));
        volumes.extend(sidecar::volumes(wanted));
    }
    if wanted.journal_claim.is_some()
        && let Some(security) = object(spec, "securityContext")
    {
        // A claim's files belong to root otherwise.
        security.entry("fsGroup").or_insert(sidecar::USER.into());
    }
}

/// All containers, with the lists that they are in.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let of = [FIRST, "containers", "ephemeralContainers"];
    let all = of
        .into_iter()
        .filter_map(|of| Some((of, spec.get(of)?.as_array()?)));
    all.flat_map(|(of, list)| list.iter().map(move |container| (of, container)))
}

/// The name of a container, volume or variable; empty where it has none.
pub(super) fn name_of(value: &Value) -> &str {
    value
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The list under `key`, made where it is not there; none where something else is.
pub(super) fn list<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Vec<Value>> {
    let slot = value.as_object_mut()?.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Array(Vec::new());
    }
    slot.as_array_mut()
}

fn object<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Map<String, Value>> {
    let slot = value.as_object_mut()?.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut()
}

fn text_at(value: &Value, path: &[&str], key: &str) -> Option<String> {
    let found = path.iter().try_fold(value, |value, key| value.get(key))?;
    Some(found.get(key)?.as_str()?.to_owned())
}

fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let all = value.and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}
