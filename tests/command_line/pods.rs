//! Into the pod: manifests patched by the real binary, and its admission webhook asked over TLS.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::authority::{Authority, Dates};
use crate::support::free_port;
use crate::support::process::{self, Ended, Running};
use crate::support::sidecar::{BINARY, Setup};
use crate::support::until;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: agent, namespace: shop}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata:
      labels: {app: agent, openbox.ai/inject: enabled}
      annotations: {openbox.ai/pg: 'postgres://orders-db:5432'}
    spec:
      containers:
      - {name: app, image: 'app:1'}
---
apiVersion: v1
kind: Service
metadata: {name: agent}
spec: {ports: [{port: 80}]}
";

fn patch(manifest: &str, arguments: &[&str]) -> Ended {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(manifest.as_bytes()).unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["k8s", "patch", "-f"])
        .arg(file.path())
        .args(arguments);
    process::run(&mut command)
}

#[test]
fn a_manifest_is_printed_with_the_sidecar_in_it() {
    let once = patch(DEPLOYMENT, &["--image", "registry.test/sidecar:2"]);
    assert!(once.status.success(), "{}", once.err);
    assert_eq!(once.out.matches("restartPolicy: Always").count(), 1);
    assert!(
        once.out.contains("image: registry.test/sidecar:2"),
        "{}",
        once.out
    );
    assert!(once.out.contains("kind: Service"));
    let twice = patch(&once.out, &["--image", "registry.test/sidecar:2"]);
    assert_eq!(twice.out, once.out);
}

#[test]
fn a_patch_is_for_one_object_and_kustomize_for_many() {
    let one = patch(DEPLOYMENT, &["--emit", "patch"]);
    let operations: Vec<Value> = serde_json::from_str(&one.out).unwrap();
    assert!(
        operations
            .iter()
            .any(|op| op["path"] == "/spec/template/spec/initContainers"),
        "{}",
        one.out
    );
    let two = DEPLOYMENT.replace(
        "---",
        &format!(
            "---{}---",
            DEPLOYMENT
                .replace("---", "")
                .split("apiVersion: v1")
                .next()
                .unwrap()
        ),
    );
    let refused = patch(&two, &["--emit", "patch"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.err.contains("--emit kustomize"), "{}", refused.err);
    let kustomize = patch(&two, &["--emit", "kustomize"]);
    assert_eq!(
        kustomize.out.matches("namespace: shop").count(),
        2,
        "{}",
        kustomize.out
    );
}

#[test]
fn what_stands_in_the_way_is_told_with_object_and_annotation() {
    let wrong = DEPLOYMENT.replace("postgres://", "mongodb://");
    for (manifest, arguments, told) in [
        (
            wrong.as_str(),
            &[][..],
            "Deployment/agent: annotation openbox.ai/pg: ",
        ),
        ("kind: Service", &[][..], "no pod in it"),
        ("a: [", &[][..], "document 1 is no manifest"),
        (
            DEPLOYMENT,
            &["-a", "pg"][..],
            "--annotation pg: it is not NAME=VALUE",
        ),
        (
            DEPLOYMENT,
            &["--injection", "/nonexistent.yaml"][..],
            "/nonexistent.yaml: ",
        ),
    ] {
        let ended = patch(manifest, arguments);
        assert_eq!(
            (ended.status.code(), ended.out.as_str()),
            (Some(1), ""),
            "{told}"
        );
        assert!(ended.err.contains(told), "{told}: {}", ended.err);
    }
}

#[test]
fn an_injector_with_a_wrong_default_does_not_start_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("injection.yaml");
    for (defaults, told) in [
        (
            "{workers: many}",
            "default of annotation openbox.ai/workers: ",
        ),
        (
            "{pgg: x}",
            "default of annotation openbox.ai/pgg is not known",
        ),
        ("{pg: 5432}", "injection.yaml: "),
    ] {
        std::fs::write(&path, format!("defaults: {defaults}\n")).unwrap();
        let mut command = Command::new(BINARY);
        command
            .args([
                "injector",
                "--listen",
                "127.0.0.1:0",
                "--cert",
                "none",
                "--key",
                "none",
            ])
            .arg("--injection")
            .arg(&path);
        let ended = process::run(&mut command);
        assert_eq!(ended.status.code(), Some(1), "{defaults}");
        assert!(ended.err.contains(told), "{defaults}: {}", ended.err);
        assert!(ended.err.contains("injection.yaml"), "{}", ended.err);
    }
}

struct Injector(Child);

impl Drop for Injector {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_webhook_answers_reviews_over_tls_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let authority = Authority::new();
    let (chain, key) = authority.pair("localhost", Dates::Current);
    std::fs::write(path("tls.crt"), chain).unwrap();
    std::fs::write(path("tls.key"), key).unwrap();
    std::fs::write(path("ca.crt"), &authority.pem).unwrap();
    std::fs::write(
        path("injection.yaml"),
        "image: registry.test/sidecar:3\ndefaults: {fail-mode: closed}\n",
    )
    .unwrap();
    let port = free_port();
    let child = Command::new(BINARY)
        .args([
            "injector",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--cert",
        ])
        .arg(path("tls.crt"))
        .arg("--key")
        .arg(path("tls.key"))
        .arg("--injection")
        .arg(path("injection.yaml"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut injector = Injector(child);
    let curl = |target: &str, body: Option<&str>| {
        let mut command = Command::new("curl");
        command
            .args(["-s", "--max-time", "10", "-w", "\n%{http_code}", "--cacert"])
            .arg(path("ca.crt"));
        if let Some(body) = body {
            command.args([
                "--data-binary",
                body,
                "-H",
                "content-type: application/json",
            ]);
        }
        process::run(command.arg(format!("https://localhost:{port}{target}")))
    };
    let ready = (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        curl("/readyz", None).out.ends_with("200")
    });
    assert!(ready, "it is not ready");
    let pod = json!({
        "metadata": {"generateName": "agent-", "labels": {"openbox.ai/inject": "enabled"}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    });
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "705ab4f5", "namespace": "shop", "operation": "CREATE", "object": pod},
    });
    let answered = curl("/mutate", Some(&review.to_string()));
    let (body, status) = answered.out.rsplit_once('\n').unwrap();
    assert_eq!(status, "200", "{}", answered.out);
    let answer: Value = serde_json::from_str(body).unwrap();
    assert_eq!(answer["response"]["uid"], "705ab4f5");
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    for (target, body, status) in [
        ("/mutate", Some("{"), "400"),
        ("/mutate", Some("{}"), "400"),
        ("/mutate", None, "404"),
        ("/other", None, "404"),
    ] {
        let answered = curl(target, body);
        assert!(
            answered.out.ends_with(status),
            "{target} {body:?}: {}",
            answered.out
        );
    }
    assert!(injector.0.try_wait().unwrap().is_none());
}

#[test]
fn an_injector_without_its_certificate_does_not_start() {
    let mut command = Command::new(BINARY);
    let ended = process::run(command.args([
        "injector",
        "--listen",
        "127.0.0.1:0",
        "--cert",
        "/nonexistent.crt",
        "--key",
        "/nonexistent.key",
    ]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.err.contains("/nonexistent"), "{}", ended.err);
}

fn awaiting(health: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["await", "--health-listen", health])
        .args(arguments);
    command
}

#[test]
fn a_command_that_awaits_the_sidecar_begins_once_it_is_ready() {
    let health = format!("127.0.0.1:{}", free_port());
    let told = process::run(&mut awaiting(
        &health,
        &["--within", "0", "--", "echo", "begun"],
    ));
    assert_eq!((told.status.code(), &*told.out), (Some(1), ""));
    assert!(
        told.err.contains("the command was not begun"),
        "{}",
        told.err
    );

    let app = ["--", "sh", "-c", "echo begun; exit 7"];
    let mut app = Running::start(&mut awaiting(&health, &app));
    assert!(app.has_ended().is_none() && app.out().is_empty());
    let setup = Setup::new();
    let mut serve = setup.command("serve");
    for name in ["http", "agent", "operator"] {
        serve.args([format!("--{name}-listen"), "127.0.0.1:0".to_owned()]);
    }
    let sidecar = Running::start(serve.args(["--health-listen", &health]));
    let ended = app.ended();
    assert_eq!((ended.status.code(), &*ended.out), (Some(7), "begun\n"));

    let missing = process::run(&mut awaiting(&health, &["--", "/no/such/program"]));
    assert_eq!(missing.status.code(), Some(127), "{}", missing.err);
    assert!(missing.err.contains("/no/such/program"), "{}", missing.err);
    sidecar.signal("TERM");
}

#[test]
fn a_job_whose_sidecar_is_an_ordinary_container_finishes() {
    let health = format!("127.0.0.1:{}", free_port());
    let setup = Setup::new();
    // Of an earlier command: it ends nobody.
    let done = setup.write("done", "");
    let start = || {
        let mut serve = setup.command("serve");
        for name in ["http", "agent", "operator"] {
            serve.args([format!("--{name}-listen"), "127.0.0.1:0".to_owned()]);
        }
        serve.args(["--health-listen", &health]);
        Running::start(serve.env("OPENBOX_END_FILE", &done))
    };
    let mut sidecar = start();
    let app = "trap 'exit 5' TERM; echo begun; while :; do sleep 0.1; done";
    let job = ["--end-file", &done, "--", "sh", "-c", app];
    let job = Running::start(&mut awaiting(&health, &job));
    until("the job has begun", || {
        job.out().contains("begun").then_some(())
    });
    assert!(sidecar.has_ended().is_none() && !Path::new(&done).exists());
    job.signal("TERM");
    assert_eq!(job.ended().status.code(), Some(5));
    let ended = sidecar.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);

    // What cannot begin has ended as well.
    let sidecar = start();
    let missing = ["--end-file", &done, "--", "/no/such/program"];
    let missing = process::run(&mut awaiting(&health, &missing));
    assert_eq!(missing.status.code(), Some(127), "{}", missing.err);
    assert_eq!(sidecar.ended().status.code(), Some(0));

    // And what was not begun, as nobody is ready.
    std::fs::remove_file(&done).unwrap();
    let nobody = ["--within", "0", "--end-file", &done, "--", "true"];
    let nobody = process::run(&mut awaiting(&health, &nobody));
    assert_eq!(nobody.status.code(), Some(1), "{}", nobody.err);

    // A folder there is nobody's word.
    std::fs::remove_file(&done).unwrap();
    std::fs::create_dir(&done).unwrap();
    let refused = start().ended();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.err);
    assert!(refused.err.contains("(end_file)"), "{}", refused.err);
}
