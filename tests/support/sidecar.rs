//! The real binary, serving: started with port 0 everywhere, found through
//! what it says of itself, killed when the test is over.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tempfile::TempDir;

use super::authority::Authority;
use super::origin::Origin;
use super::process::{self, Running};
use super::until;
use super::wire::{Message, Wire};

/// A key as Core gives them out; the stand-in takes any.
pub(crate) const KEY: &str = "obx_test_0123456789abcdef0123456789abcdef0123456789abcdef";

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_openbox-sidecar");

/// What a sidecar is to be started with.
pub(crate) struct Setup {
    folder: Arc<TempDir>,
    state: PathBuf,
    /// Options of a small disk of its own that the state folder is on.
    disk: Option<&'static str>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let setup = Self {
            state: folder.path().join("state"),
            folder,
            disk: None,
            arguments: Vec::new(),
            environment: Vec::new(),
        };
        setup.flag("--log-format", "json")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.state.clone()
    }

    pub(crate) fn state_in(mut self, path: PathBuf) -> Self {
        self.state = path;
        self
    }

    /// Puts the state folder on a file system of its own, mounted with `options`
    /// where nobody but the sidecar sees it: this process finds it behind the
    /// sidecar's root.
    pub(crate) fn state_on_a_disk(mut self, options: &'static str) -> Self {
        std::fs::create_dir_all(&self.state).unwrap();
        self.disk = Some(options);
        self
    }

    pub(crate) fn flag(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes a file beside the state folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Judges by `rego`, with all the time that a busy machine takes: a refusal for want of
    /// it is not what a test is about.
    pub(crate) fn policy(self, rego: &str) -> Self {
        self.policy_with(rego, "evaluate_within: 20s")
    }

    /// The same, with other settings of `policy`.
    pub(crate) fn policy_with(self, rego: &str, settings: &str) -> Self {
        let path = self.write("policy.rego", rego);
        let setup = self.flag("--policy", &path);
        setup.config(&format!("policy:\n  {settings}\n"))
    }

    /// Sections of the configuration file, behind those that were said before.
    pub(crate) fn config(self, yaml: &str) -> Self {
        let name = "openbox-sidecar.yaml";
        let before = std::fs::read_to_string(self.folder().join(name)).ok();
        let path = self.write(
            name,
            &[before.as_deref().unwrap_or_default(), yaml].concat(),
        );
        match before {
            Some(_) => self,
            None => self.flag("--config", &path),
        }
    }

    /// Asks this Core, and does as `fail_mode` says where it gives no answer.
    pub(crate) fn core(self, url: &str, fail_mode: &str) -> Self {
        self.flag("--core-url", url)
            .flag("--fail-mode", fail_mode)
            .env("OPENBOX_API_KEY", KEY)
    }

    /// Makes `origin` findable by its name.
    pub(crate) fn reach(self, origin: &Origin) -> Self {
        self.flag("--resolve", &origin.resolve())
            .flag("--allow-address", "127.0.0.1/32")
    }

    pub(crate) fn trust(self, authority: &Authority) -> Self {
        let path = self.write("upstream.pem", &authority.pem);
        self.flag("--upstream-ca", &path)
    }

    /// The binary with `verb` and everything that was set.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = self.binary();
        command
            .arg(verb)
            .arg("--state-dir")
            .arg(&self.state)
            .args(&self.arguments)
            .env("HOME", self.folder())
            .envs(self.environment.iter().map(|(n, v)| (n, v)));
        command
    }

    fn binary(&self) -> Command {
        let Some(options) = self.disk else {
            return process::command(BINARY);
        };
        let mut command = process::command("unshare");
        command
            .args(["--mount", "--map-root-user", "sh", "-c"])
            .arg("mount -t tmpfs -o \"$1\" none \"$2\" && shift 2 && exec \"$@\"")
            .args(["sh", options])
            .arg(&self.state)
            .arg(BINARY);
        command
    }

    pub(crate) fn serve_command(&self) -> Command {
        let mut command = self.command("serve");
        for name in ["http", "agent", "operator", "health"] {
            command.args([format!("--{name}-listen"), "127.0.0.1:0".to_owned()]);
        }
        command
    }

    /// `run -- …` of these words.
    pub(crate) fn run_command(&self, words: &[&str]) -> Command {
        let mut command = self.command("run");
        command.arg("--").args(words);
        command
    }

    pub(crate) fn start(self) -> Sidecar {
        let mut running = Running::start(&mut self.serve_command());
        let line = until("the sidecar to serve", || {
            if let Some(status) = running.has_ended() {
                panic!("the sidecar ended with {status}: {}", running.err());
            }
            log_line(&running.err(), "serving")
        });
        let listening = line["listening"].as_str().unwrap().to_owned();
        let address = |name: &str| {
            let mut words = listening.split(' ').filter_map(|word| word.split_once('='));
            let found = words.find(|(n, _)| *n == name);
            found.unwrap().1.parse().unwrap()
        };
        let state = match self.disk {
            None => self.state(),
            Some(_) => {
                let root = format!("/proc/{}/root", running.child.id());
                let within = self.state.strip_prefix("/").unwrap();
                Path::new(&root).join(within)
            }
        };
        let operator = std::fs::read_to_string(state.join("operator.json")).unwrap();
        let operator: Value = serde_json::from_str(&operator).unwrap();
        let agent_token = std::fs::read_to_string(state.join("agent-token")).unwrap();
        Sidecar {
            http: address("http"),
            agent: address("agent"),
            operator: address("operator"),
            health: address("health"),
            agent_token: agent_token.trim().to_owned(),
            operator_token: operator["token"].as_str().unwrap().to_owned(),
            state,
            running,
            setup: self,
        }
    }
}

fn log_line(log: &str, message: &str) -> Option<Value> {
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines.find(|line: &Value| line["message"] == message)
}

/// A sidecar that serves.
pub(crate) struct Sidecar {
    pub(crate) http: SocketAddr,
    pub(crate) agent: SocketAddr,
    pub(crate) operator: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) agent_token: String,
    pub(crate) operator_token: String,
    pub(crate) state: PathBuf,
    pub(crate) running: Running,
    pub(crate) setup: Setup,
}

impl Sidecar {
    /// Kills it as nothing can be caught, and starts another where it was.
    pub(crate) fn killed_and_started_again(self) -> Self {
        let Self { running, setup, .. } = self;
        drop(running);
        setup.start()
    }

    /// Ends it in good order, and starts another where it was.
    pub(crate) fn ended_and_started_again(self) -> Self {
        let Self { running, setup, .. } = self;
        running.signal("TERM");
        assert!(running.ended().status.success());
        setup.start()
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.http)
    }

    pub(crate) fn get(&self, url: &str) -> Message {
        self.send("GET", url, &[], "")
    }

    /// One request in absolute form on a connection of its own.
    pub(crate) fn send(
        &self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Message {
        let mut wire = self.wire();
        wire.say(request(method, url, fields, body));
        wire.answer_to(method)
    }

    /// The inside of a tunnel to `origin`, intercepted if it speaks TLS.
    pub(crate) fn tunnel(&self, origin: &Origin) -> Wire {
        self.tunnel_to(&origin.authority())
    }

    /// The same, to this host and port.
    pub(crate) fn tunnel_to(&self, authority: &str) -> Wire {
        let mut wire = self.wire();
        wire.say(format!(
            "CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n"
        ));
        let head = wire.head().unwrap();
        assert_eq!(head.status(), 200, "{head:?}");
        wire
    }

    pub(crate) fn tls_tunnel(&self, origin: &Origin) -> Wire {
        self.tunnel(origin)
            .secured(self.client_config(), origin.name)
    }

    /// What trusts this sidecar's authority.
    pub(crate) fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.ca()).unwrap();
        roots.add(ca).unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.state.join("ca.pem")
    }

    pub(crate) fn operator(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        api(self.operator, &self.operator_token, method, path, body)
    }

    pub(crate) fn agent(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        api(self.agent, &self.agent_token, method, path, body)
    }

    /// An event that must be answered 200.
    pub(crate) fn event(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.agent("POST", path, &body.to_string());
        let pending = answer["code"] == "approval_pending";
        let wanted = if pending { 202 } else { 200 };
        assert_eq!(status, wanted, "{path} {body}: {answer}");
        answer
    }

    pub(crate) fn health(&self, path: &str) -> (u16, String) {
        let mut wire = Wire::connect(self.health);
        wire.say(format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.health
        ));
        let answer = wire.answer();
        (answer.status(), answer.text())
    }

    /// The value of one metric, labels included in its name.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.health("/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no metric {name} in {text}"));
        value.parse().unwrap()
    }

    /// The most memory it has ever had resident, KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.running.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse().unwrap()
    }

    pub(crate) fn journal(&self) -> Vec<Value> {
        journal(&self.state)
    }

    /// The first journal line that `is` accepts, once it is there.
    /// How many decisions and completions the journal has, and the sums of what its series
    /// say of `admitted`, `answered`, `ended_apart` and `rows`.
    pub(crate) fn repeats(&self) -> [u64; 6] {
        let journal = self.journal();
        let of = |record: &str| {
            let all = journal.iter().filter(|line| line["record"] == record);
            u64::try_from(all.count()).unwrap()
        };
        let sum = |name: &str| {
            let all = journal.iter().filter(|line| line["record"] == "series");
            all.filter_map(|line| line[name].as_u64()).sum()
        };
        [
            of("decision"),
            of("completion"),
            sum("admitted"),
            sum("answered"),
            sum("ended_apart"),
            sum("rows"),
        ]
    }

    pub(crate) fn recorded(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.journal().into_iter().find(|line| is(line)))
    }

    /// The record of `path` at this stage, once it is there.
    pub(crate) fn record_of(&self, path: &str, stage: &str) -> Value {
        let what = format!("the {stage} record of {path}");
        self.recorded(&what, |line| {
            line["stage"] == stage
                && line["http_url"]
                    .as_str()
                    .is_some_and(|url| url.ends_with(path))
        })
    }

    /// The approval that waits for a person, once there is one.
    pub(crate) fn pending_approval(&self) -> Value {
        until("an approval", || {
            let (_, all) = self.operator("GET", "/v1/approvals?status=pending", "");
            all["approvals"].get(0).cloned()
        })
    }

    pub(crate) fn approve(&self, approval: &Value) {
        let id = approval["approval_id"].as_str().unwrap();
        let (status, answer) = self.operator("POST", &format!("/v1/approvals/{id}/approve"), "{}");
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) fn reject(&self, approval: &Value, reason: &str) {
        let id = approval["approval_id"].as_str().unwrap();
        let body = serde_json::json!({ "reason": reason }).to_string();
        let (status, answer) = self.operator("POST", &format!("/v1/approvals/{id}/reject"), &body);
        assert_eq!(status, 200, "{answer}");
    }

    /// Replaces the policy file and waits until the sidecar has read it.
    pub(crate) fn change_policy(&self, rego: &str) {
        let before = self.metric("openbox_policy_reloads_total{result=\"ok\"}");
        self.setup.write("policy.rego", rego);
        let (status, answer) = self.operator("POST", "/v1/policy/reload", "{}");
        assert_eq!(status, 200, "{answer}");
        assert!(self.metric("openbox_policy_reloads_total{result=\"ok\"}") > before);
    }

    pub(crate) fn log(&self) -> String {
        self.running.err()
    }
}

/// A request as bytes; the body's length is its own unless a field frames it.
pub(crate) fn request(method: &str, url: &str, fields: &[(&str, &str)], body: &str) -> String {
    let authority = url.split('/').nth(2).unwrap_or_default();
    let mut text = format!("{method} {url} HTTP/1.1\r\nhost: {authority}\r\n");
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let framed = fields.iter().any(|(name, _)| *name == "transfer-encoding");
    if !body.is_empty() && !framed {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text
}

pub(crate) fn api(
    address: SocketAddr,
    token: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let mut wire = Wire::connect(address);
    let bearer = format!("Bearer {token}");
    let fields = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("connection", "close"),
    ];
    let text = request(method, &format!("http://{address}{path}"), &fields, body);
    wire.say(text.replacen(&format!("http://{address}"), "", 1));
    let answer = wire.answer();
    let status = answer.status();
    (
        status,
        serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
    )
}

/// Every line of the journal in `state`, parsed: one that does not parse fails
/// the test, unless it is the last and still being written.
pub(crate) fn journal(state: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(state.join("journal.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
