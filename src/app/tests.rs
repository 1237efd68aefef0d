//! The wiring with a scripted policy, and starts that fail.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::{self, Flags, For, Source};

fn config(folder: &Path, flags: &[(&'static str, &str)]) -> Config {
    let mut all = Flags::default();
    all.push("--state-dir", folder.to_str().unwrap().to_owned());
    for (flag, value) in flags {
        all.push(flag, (*value).to_owned());
    }
    config::check(&all, &Source::new([], "host"), For::Run).unwrap()
}

async fn bound(folder: &Path) -> Bound {
    bind(config(folder, &[]), For::Run).await.unwrap()
}

#[tokio::test]
async fn a_bound_sidecar_knows_its_addresses_and_can_be_found() {
    let folder = tempfile::tempdir().unwrap();
    let bound = bound(folder.path()).await;
    let addresses = bound.view().addresses;
    for (name, address) in addresses.named() {
        assert_ne!(address.unwrap().port(), 0, "{name}");
    }
    let path = operator_file(folder.path());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let operator: serde_json::Value = serde_json::from_str(&text).unwrap();
    let url = format!("http://{}", addresses.operator.unwrap());
    assert_eq!(operator["url"], url.as_str());
    assert_eq!(operator["pid"], std::process::id());
    let token = std::fs::read_to_string(folder.path().join("agent-token")).unwrap();
    assert_eq!(token, bound.view().agent_token.expose());
    assert_ne!(operator["token"], token.as_str());
    drop(bound);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_drain_ends_it_and_frees_folder_and_ports() {
    let folder = tempfile::tempdir().unwrap();
    let bound = bound(folder.path()).await;
    let readiness = bound.readiness();
    assert_eq!(readiness.waiting_for(), ["listeners"]);
    let address = bound.view().addresses.http.unwrap();
    let (trigger, drain) = drain::channel();
    let running = spawn_named("test", bound.run(drain));
    while !readiness.waiting_for().is_empty() {
        tokio::task::yield_now().await;
    }
    trigger.begin();
    running.await.unwrap();
    assert!(std::net::TcpListener::bind(address).is_ok());
    assert!(!operator_file(folder.path()).exists());
}

#[tokio::test]
async fn two_sidecars_do_not_share_a_state_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = bound(folder.path()).await;
    let before = std::fs::read(operator_file(folder.path())).unwrap();
    let second = bind(config(folder.path(), &[]), For::Run).await;
    let text = second.unwrap_err().to_string();
    assert!(text.contains("--state-dir"), "{text}");
    assert_eq!(std::fs::read(operator_file(folder.path())).unwrap(), before);
    drop(first);
}

#[tokio::test]
async fn a_taken_port_names_its_flag() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = config(folder.path(), &[("--agent-listen", &address)]);
    let error = bind(config, For::Run).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("--agent-listen"), "{text}");
    assert!(text.contains(&address), "{text}");
}

#[tokio::test]
async fn an_unusable_state_folder_names_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let config = config(&file.join("below"), &[]);
    let error = bind(config, For::Run).await.unwrap_err();
    assert!(error.to_string().contains("--state-dir"), "{error}");
}

#[tokio::test]
async fn a_listener_that_is_off_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[("--operator-listen", "off")]);
    let bound = bind(config, For::Run).await.unwrap();
    assert_eq!(bound.view().addresses.operator, None);
    assert!(!operator_file(folder.path()).exists());
}

#[tokio::test]
async fn a_halt_is_seen_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let bound = bound(folder.path()).await;
    let view = bound.view();
    assert_eq!(view.halted(), None);
    let own = view.gate.registry().own().run.clone();
    let (reason, ()) = tokio::join!(view.until_halted(), async {
        view.gate.halt(&own, &Reason::from("enough"), "a test");
    });
    assert_eq!(reason, Reason::from("enough"));
}

#[tokio::test]
async fn run_does_not_part_a_kept_authority_from_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let start = |purpose| bind(config(folder.path(), &[]), purpose);
    let fingerprint = |bound: Bound| bound.view().ca_fingerprint;
    let kept = fingerprint(start(For::Serve).await.unwrap());
    assert_eq!(fingerprint(start(For::Run).await.unwrap()), kept);
    assert_eq!(fingerprint(start(For::Serve).await.unwrap()), kept);
    std::fs::remove_file(folder.path().join("ca.key")).unwrap();
    assert_ne!(fingerprint(start(For::Run).await.unwrap()), kept);
}
