//! The real SDKs, unchanged, with the real binary as their OpenBox Core: each
//! script makes its list of checks, and what was recorded must agree.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use serde_json::{Value, json};

use crate::core_mode;
use crate::support::core::{Core, Say, verdict};
use crate::support::origin::Origin;
use crate::support::process;
use crate::support::sidecar::{Setup, Sidecar, journal};
use crate::support::until;

const POLICY: &str = include_str!("policy.rego");

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/compat")
        .join(name)
}

/// The Python that has the SDKs.
fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv-compat/bin/python");
    assert!(
        path.exists(),
        "{} is missing; `make test` makes it, or: scripts/needs.sh",
        path.display()
    );
    path
}

/// `script`, with `sidecar` as the Core it knows.
fn command(sidecar: &Sidecar, script: &str, arguments: &[&str]) -> Command {
    let mut command = process::command(&python().display().to_string());
    command
        .arg(here(script))
        .args(arguments)
        .env("OPENBOX_URL", format!("http://{}", sidecar.agent))
        .env("OPENBOX_API_KEY", &sidecar.agent_token)
        .env(
            "COMPAT_OPERATOR_URL",
            format!("http://{}", sidecar.operator),
        )
        .env("COMPAT_OPERATOR_TOKEN", &sidecar.operator_token)
        // The SDKs are no place for byte code of ours.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// All checks of `command` pass, with an origin at `url`.
fn checks(mut command: Command, url: &str) {
    let ended = process::run(command.env("COMPAT_ORIGIN", url));
    let last = ended.out.lines().last().unwrap_or_default();
    let passed = last.starts_with("all checks passed");
    assert!(passed, "{}\n{}", ended.out, ended.err);
}

/// Where an origin is that is asked directly.
fn direct(origin: &Origin) -> String {
    format!("http://{}", origin.address)
}

/// Decisions about operations of one protocol, at one stage, in the journal.
fn decided(lines: &[Value], record: &str, protocol: &str) -> usize {
    let of = |line: &&Value| line["record"] == record && line["protocol"] == protocol;
    lines.iter().filter(of).count()
}

fn by_local_policy(script: &str) {
    let origin = Origin::site();
    let sidecar = Setup::new().policy(POLICY).start();
    checks(command(&sidecar, script, &[]), &direct(&origin));
    assert_eq!(
        origin.times("/started/block"),
        0,
        "it left before it was allowed"
    );
    assert_eq!(origin.times("/started/require_approval"), 1);
    assert_eq!(origin.times("/completed/block"), 1);
    let lines = journal(&sidecar.state);
    for protocol in ["http", "file", "function"] {
        assert!(decided(&lines, "decision", protocol) > 0, "{protocol}");
        assert!(decided(&lines, "completion", protocol) > 0, "{protocol}");
    }
    let text = format!("{lines:?}");
    assert!(!text.contains(&sidecar.agent_token), "a key in the journal");
}

/// Behaviour rules and guardrails beside the policy.
fn by_rules(script: &str) {
    let origin = Origin::site();
    let setup = Setup::new();
    setup.write("policy_rules.yaml", include_str!("rules.yaml"));
    let sidecar = setup.policy(POLICY).start();
    checks(command(&sidecar, script, &["ruled"]), &direct(&origin));
}

#[test]
fn rules_and_guardrails_govern_the_temporal_sdk() {
    by_rules("temporal.py");
}

#[test]
fn rules_and_guardrails_govern_the_base_sdk() {
    by_rules("base.py");
}

/// A hook of the Temporal SDK as it was captured, at its first stage.
const HOOK: &str = include_str!(
    "../golden/contract/temporal-1.1.0/hook-http-httpx-post/02-hook-http_request-started.json"
);

#[test]
fn behind_a_core_its_verdicts_and_approvals_are_passed_on() {
    let (core, origin) = (Core::start(), Origin::site());
    core.script(|route, body| match route {
        "approval" => Say::Answer(200, r#"{"id":"7","action":"allow"}"#.to_owned()),
        _ if body["hook_trigger"] == true => verdict("require_approval"),
        _ => verdict("block"),
    });
    let sidecar = core_mode::setup(&core.url(), "closed", &origin).start();
    let hook: Value = serde_json::from_str(HOOK).unwrap();
    let hook = hook["request"]["body_raw"].as_str().unwrap();
    let told: Value = serde_json::from_str(hook).unwrap();
    let evaluate = |body: &str| {
        let (status, said) = sidecar.agent("POST", "/api/v1/governance/evaluate", body);
        assert_eq!(status, 200, "{said}");
        said
    };
    let mut event = told.clone();
    event["hook_trigger"] = json!(false);
    let said = evaluate(&event.to_string());
    assert_eq!(
        (&said["verdict"], &said["reason"]),
        (&json!("block"), &json!("core says block"))
    );
    assert_eq!(
        (&said["governance_event_id"], &said["policy_id"]),
        (&json!("core-event"), &json!("core-policy"))
    );
    assert_eq!(evaluate(hook)["verdict"], "require_approval");
    let ids = ["workflow_id", "run_id", "activity_id"].map(|name| (name, told[name].clone()));
    let poll = Value::from(serde_json::Map::from_iter(
        ids.map(|(name, id)| (name.to_owned(), id)),
    ));
    let polled = sidecar.agent("POST", "/api/v1/governance/approval", &poll.to_string());
    assert_eq!((polled.0, &polled.1["action"]), (200, &json!("allow")));
    assert_eq!(
        evaluate(hook)["verdict"],
        "allow",
        "without asking Core anew"
    );
    let asked = core.asked("evaluate");
    assert_eq!(asked.len(), 2, "{asked:?}");
    for name in [
        "workflow_id",
        "run_id",
        "activity_id",
        "activity_type",
        "attempt",
    ] {
        assert_eq!(asked[1][name], told[name], "{name}");
    }
    let (span, given) = (&asked[1]["spans"][0], &told["spans"][0]);
    for name in [
        "span_id",
        "trace_id",
        "start_time",
        "name",
        "http_url",
        "request_body",
    ] {
        assert_eq!(span[name], given[name], "{name}");
    }
    assert_eq!(span["http_method"], "POST");
}

fn expiring(script: &str) {
    let sidecar = Setup::new()
        .policy(POLICY)
        .config("approvals:\n  expire_after: 1s\n")
        .start();
    checks(command(&sidecar, script, &["expiring"]), "");
}

#[test]
fn the_temporal_sdk_has_its_core() {
    by_local_policy("temporal.py");
}

#[test]
fn the_base_sdk_has_its_core() {
    by_local_policy("base.py");
}

#[test]
fn approvals_expire_for_the_temporal_sdk() {
    expiring("temporal.py");
}

#[test]
fn approvals_expire_for_the_base_sdk() {
    expiring("base.py");
}

/// Requests of the SDK go through the proxy too: each is asked about once, at
/// each stage, whoever comes first.
fn seen_twice_asked_once(script: &str) {
    let origin = Origin::site();
    let sidecar = Setup::new().policy(POLICY).reach(&origin).start();
    let mut command = command(&sidecar, script, &["through"]);
    command
        .env("HTTP_PROXY", format!("http://{}", sidecar.http))
        .env("http_proxy", format!("http://{}", sidecar.http))
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1");
    checks(command, &origin.url(""));
    for path in ["/echo", "/started/require_approval"] {
        assert_eq!(origin.times(path), 1, "{path}");
        let url = origin.url(path);
        let of = |record: &str| {
            // What merely confirms a decision is written a little later.
            until("both records", || {
                let mut lines = journal(&sidecar.state);
                lines.retain(|line| {
                    line["record"] == record
                        && line["http_url"] == *url
                        && line["decision"] != "approval_pending"
                });
                (lines.len() >= 2).then_some(lines)
            })
        };
        for record in ["decision", "completion"] {
            let both = of(record);
            assert_eq!(both.len(), 2, "{record} {path}: {both:?}");
            let joined: Vec<_> = both
                .iter()
                .filter(|line| line["joined"].is_string())
                .collect();
            assert_eq!(joined.len(), 1, "{record} {path}: {both:?}");
            let other = both
                .iter()
                .find(|line| line["event_id"] == joined[0]["joined"]);
            assert!(other.is_some(), "{record} {path}: {both:?}");
        }
    }
    let asked = journal(&sidecar.state);
    let pending = asked
        .iter()
        .filter(|line| line["record"] == "approval" && line["state"] == "pending");
    assert_eq!(pending.count(), 1, "one person is asked once");
}

#[test]
fn what_the_temporal_sdk_tells_and_sends_is_asked_about_once() {
    seen_twice_asked_once("temporal.py");
}

#[test]
fn what_the_base_sdk_tells_and_sends_is_asked_about_once() {
    seen_twice_asked_once("base.py");
}

const VECTORS: &str = include_str!("../../src/policy/core/golden/ed25519_v1.json");

/// The base SDK with the identity of the vectors, against a sidecar of `config`.
fn signed(config: &str, arguments: &[&str]) {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let text = |name: &str| vectors[name].as_str().unwrap().to_owned();
    let hex = text("public_key_hex");
    let digits = hex.as_bytes().chunks(2);
    let key: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let config = config.replace("DID", &text("did")).replace(
        "KEY",
        &base64::engine::general_purpose::STANDARD.encode(key),
    );
    let (origin, sidecar) = (
        Origin::site(),
        Setup::new().policy(POLICY).config(&config).start(),
    );
    let mut command = command(&sidecar, "signed.py", arguments);
    command
        .env("COMPAT_DID", text("did"))
        .env("COMPAT_SEED", text("private_seed_b64"));
    checks(command, &direct(&origin));
}

#[test]
fn signatures_are_checked_with_the_reason_codes_of_the_contract() {
    signed("sdk:\n  agent_did: DID\n  agent_public_key: KEY\n", &[]);
}

#[test]
fn what_is_signed_and_cannot_be_checked_is_told_so() {
    signed("", &["unknown"]);
}

/// A Core made of the SDK's own functions, which sets the sidecar beside the SDK.
#[test]
fn identities_are_shown_to_core_as_the_base_sdk_shows_them() {
    let mut command = process::command(&python().display().to_string());
    command
        .arg(here("identities.py"))
        .env("COMPAT_BINARY", env!("CARGO_BIN_EXE_openbox-sidecar"))
        // `common` is for those who have a sidecar already.
        .env("OPENBOX_URL", "")
        .env("OPENBOX_API_KEY", "")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    checks(command, "");
}
