//! The sidecar as a container of a pod: first of its init containers, and kept running beside the app
//! (`restartPolicy: Always`, Kubernetes 1.29 and later), so that it is there before everything else of the
//! pod and ends after it, and Jobs finish.

use serde_json::{Value, json};

use super::annotations::Wanted;
use super::pod::Injection;

/// Its name in every pod.
pub(super) const NAME: &str = "openbox-sidecar";
/// The user it runs as, its own: what an app must not be, or it could read what the sidecar keeps.
pub(super) const USER: i64 = 1580;
/// Certificates and the agent's token, for the app to read.
pub(super) const SHARE: &str = "/openbox";
/// Where the agent API listens beside its port, for the app.
pub(super) const SOCKET: &str = "agent.sock";
/// Journal and state.
const STATE: &str = "/var/lib/openbox-sidecar";
/// The authority's key, in memory.
const KEYS: &str = "/run/openbox-sidecar";
const CONFIG: &str = "/etc/openbox/config";
const POLICY: &str = "/etc/openbox/policy";
const API_KEY: &str = "/etc/openbox/api-key";
const AGENT_TOKEN: &str = "/etc/openbox/agent-token";
const CREDENTIALS: &str = "/etc/openbox/credentials";
/// Health and metrics, on the pod's address: the kubelet and Prometheus ask from outside.
pub(super) const HEALTH_PORT: u16 = 15_820;
/// Seconds a start may take: a journal of 8 GiB is read through.
const START_WITHIN_S: u16 = 120;

/// The container that sets the rules by which the kernel leads everything to the sidecar.
pub(super) const INIT_NET: &str = "openbox-init-net";

/// Name and size of the volumes that the app shares, and that nobody shares.
pub(super) const SHARED_VOLUME: &str = "openbox-share";
const STATE_VOLUME: &str = "openbox-state";
const KEYS_VOLUME: &str = "openbox-keys";
const CONFIG_VOLUME: &str = "openbox-config";
const POLICY_VOLUME: &str = "openbox-policy";
const API_KEY_VOLUME: &str = "openbox-api-key";
const AGENT_TOKEN_VOLUME: &str = "openbox-agent-token";
const CREDENTIALS_VOLUME: &str = "openbox-credentials";

/// The container.
pub(super) fn container(wanted: &Wanted, injection: &Injection) -> Value {
    let image = wanted.image.as_ref().unwrap_or(&injection.image);
    json!({
        "name": NAME,
        "image": image,
        "imagePullPolicy": injection.image_pull_policy,
        "restartPolicy": "Always",
        "args": ["serve"],
        "env": environment(wanted),
        "ports": [{"name": "openbox-health", "containerPort": HEALTH_PORT, "protocol": "TCP"}],
        "startupProbe": probe("/readyz", 1, START_WITHIN_S),
        "livenessProbe": probe("/livez", 10, 3),
        "readinessProbe": probe("/readyz", 5, 2),
        "resources": injection.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsGroup": USER,
            "runAsNonRoot": true,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts(wanted),
    })
}

/// The container that sets the rules, before everything else; the only one that may.
pub(super) fn init_net(injection: &Injection) -> Value {
    json!({
        "name": INIT_NET,
        "image": injection.init_net_image,
        "imagePullPolicy": injection.image_pull_policy,
        "args": ["init-net", "install"],
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

fn probe(path: &str, period_s: u16, failures: u16) -> Value {
    json!({
        "httpGet": {"path": path, "port": HEALTH_PORT},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    })
}

fn environment(wanted: &Wanted) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let text = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut all = vec![
        field("OPENBOX_POD_IP", "status.podIP"),
        text("OPENBOX_HEALTH_LISTEN", "[$(OPENBOX_POD_IP)]:15820"),
        // One run for the whole life of the pod, over restarts of the container.
        field("OPENBOX_WORKFLOW_ID", "metadata.name"),
        field("OPENBOX_RUN_ID", "metadata.uid"),
        text("OPENBOX_STATE_DIR", &format!("{STATE}/state")),
        text("OPENBOX_CA_DIR", &format!("{KEYS}/ca")),
        text("OPENBOX_SHARE_DIR", SHARE),
        text("OPENBOX_AGENT_SOCKET", &format!("{SHARE}/{SOCKET}")),
        // The app is another user; what opens the API is the token.
        text("OPENBOX_AGENT_SOCKET_MODE", "0666"),
    ];
    if !wanted
        .variables
        .iter()
        .any(|(name, _)| *name == "OPENBOX_LOG_FORMAT")
    {
        all.push(text("OPENBOX_LOG_FORMAT", "json"));
    }
    for (name, value) in &wanted.variables {
        all.push(text(name, &literal(value)));
    }
    if wanted.config_file.is_some() {
        all.push(text(
            "OPENBOX_CONFIG",
            &format!("{CONFIG}/openbox-sidecar.yaml"),
        ));
    }
    if wanted.policy.is_some() {
        all.push(text("OPENBOX_POLICY", POLICY));
    }
    if wanted.api_key.is_some() {
        all.push(text("OPENBOX_API_KEY_FILE", &format!("{API_KEY}/api-key")));
    }
    if wanted.agent_token.is_some() {
        let path = format!("{AGENT_TOKEN}/agent-token");
        all.push(text("OPENBOX_AGENT_TOKEN_FILE", &path));
    }
    all
}

/// Text that Kubernetes takes as it is: `$(NAME)` in it would be replaced.
pub(super) fn literal(value: &str) -> String {
    value.replace("$(", "$$(")
}

fn mounts(wanted: &Wanted) -> Vec<Value> {
    let read_only =
        |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut all = vec![
        json!({"name": SHARED_VOLUME, "mountPath": SHARE}),
        json!({"name": STATE_VOLUME, "mountPath": STATE}),
        json!({"name": KEYS_VOLUME, "mountPath": KEYS}),
    ];
    if wanted.config_file.is_some() {
        all.push(read_only(CONFIG_VOLUME, CONFIG));
    }
    if wanted.policy.is_some() {
        all.push(read_only(POLICY_VOLUME, POLICY));
    }
    if wanted.api_key.is_some() {
        all.push(read_only(API_KEY_VOLUME, API_KEY));
    }
    if wanted.agent_token.is_some() {
        all.push(read_only(AGENT_TOKEN_VOLUME, AGENT_TOKEN));
    }
    if wanted.credentials.is_some() {
        all.push(read_only(CREDENTIALS_VOLUME, CREDENTIALS));
    }
    all
}

/// The volumes of the pod that are ours.
pub(super) fn volumes(wanted: &Wanted) -> Vec<Value> {
    let memory =
        |name: &str| json!({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}});
    let state = match &wanted.journal_claim {
        Some(claim) => json!({"name": STATE_VOLUME, "persistentVolumeClaim": {"claimName": claim}}),
        None => json!({"name": STATE_VOLUME, "emptyDir": {}}),
    };
    let mut all = vec![memory(SHARED_VOLUME), state, memory(KEYS_VOLUME)];
    for (name, map) in [
        (CONFIG_VOLUME, &wanted.config_file),
        (POLICY_VOLUME, &wanted.policy),
    ] {
        if let Some(map) = map {
            all.push(json!({"name": name, "configMap": {"name": map}}));
        }
    }
    for (name, secret, path) in [
        (API_KEY_VOLUME, &wanted.api_key, "api-key"),
        (AGENT_TOKEN_VOLUME, &wanted.agent_token, "agent-token"),
    ] {
        if let Some((secret, key)) = secret {
            // Mounted by the sidecar alone, which is not root.
            all.push(json!({"name": name, "secret": {
                "secretName": secret,
                "defaultMode": 0o444,
                "items": [{"key": key, "path": path}],
            }}));
        }
    }
    if let Some(secret) = &wanted.credentials {
        all.push(json!({"name": CREDENTIALS_VOLUME, "secret": {
            "secretName": secret,
            "defaultMode": 0o444,
        }}));
    }
    all
}

/// Whether a container of this name is one of ours.
pub(super) fn is_ours_to_run(container: &str) -> bool {
    [NAME, INIT_NET].contains(&container)
}

/// Whether a volume of this name is one of ours that the app does not see.
pub(super) fn is_ours_alone(volume: &str) -> bool {
    is_ours(volume) && volume != SHARED_VOLUME
}

/// Whether a volume of this name is one of ours.
pub(super) fn is_ours(volume: &str) -> bool {
    let all = [
        SHARED_VOLUME,
        STATE_VOLUME,
        KEYS_VOLUME,
        CONFIG_VOLUME,
        POLICY_VOLUME,
        API_KEY_VOLUME,
        AGENT_TOKEN_VOLUME,
        CREDENTIALS_VOLUME,
    ];
    all.contains(&volume)
}
