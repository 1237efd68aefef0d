//! The verbs against a real operator API, found by its announcement.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use crate::cli::{Cli, Streams, dispatch, exit};
use crate::control::agent::{self, AgentApi};
use crate::control::auth::{Token, write_private};
use crate::control::operator::{self, OperatorApi};
use crate::control::testing;
use crate::domain::{Context, Verdict};
use crate::gate::{
    Constraints, FailMode, Gate, Govern, HaltScope, Parts, Settings, Unasked, Unheld,
};
use crate::journal::{self, Journal};
use crate::metrics::Metrics;
use crate::net::listen::bind;
use crate::policy::Ruling;
use crate::policy::scripted::Scripted;
use crate::process::{DrainTrigger, clock, drain};
use crate::session::Registry;
use crate::session::registry::{self, Unattributed};
use crate::state::Store;

use super::*;

/// A sidecar's two APIs, announced in a state folder.
struct Sidecar {
    folder: tempfile::TempDir,
    agent: Operator,
    url: String,
    token: Token,
    _trigger: DrainTrigger,
}

fn gate(folder: &Path) -> Gate {
    let backend = Scripted::always(Verdict::Allow).on_events([
        Ok(Ruling::new(Verdict::Allow, 0)),
        Ok(Ruling::new(Verdict::RequireApproval, 0)),
        Ok(Ruling::new(Verdict::RequireApproval, 0)),
    ]);
    let sessions = registry::Settings {
        own: Context {
            workflow_id: "own-workflow".into(),
            run_id: "own-run".into(),
            workflow_type: "t".into(),
            task_queue: "q".into(),
            activity: None,
        },
        unattributed: Unattributed::Session,
        runs_max: 4,
        activities_max: 4,
        contexts_max: 4,
        context_lives: Duration::from_secs(60),
        callers: crate::net::caller::Callers::Unknown,
    };
    let journal = Journal::open(&journal::Settings::new(folder));
    let (gate, _housekeeping) = Gate::new(Parts {
        backend: Arc::new(backend),
        journal: journal.unwrap(),
        state: Store::nowhere(),
        registry: Arc::new(Registry::new(sessions, clock::now())),
        metrics: Arc::new(Metrics::new().unwrap()),
        settings: Settings {
            judge_within: Duration::from_secs(5),
            approval_lives: Duration::from_secs(600),
            holds_max: 8,
            reports_max: 8,
            fail_mode: FailMode::Closed,
            fail_closed_for: [].into(),
            constraints: Constraints::Advisory,
            halt_scope: HaltScope::Run,
            govern: Govern::Both,
            unasked: Unasked::default(),
            unheld: Unheld::default(),
            count_after: None,
        },
    });
    gate
}

impl Sidecar {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(folder.path());
        let (trigger, drain) = drain::channel();
        let [for_agent, for_operator] = [(); 2].map(|()| bind(([127, 0, 0, 1], 0).into()).unwrap());
        let (agent_token, token) = (Token::for_agent(), Token::for_operator());
        let agent = Operator {
            authority: for_agent.address().to_string(),
            token: agent_token.clone(),
        };
        let url = format!("http://{}", for_operator.address());
        let agent_router = agent::router(AgentApi {
            gate: gate.clone(),
            token: agent_token,
            address: Some(for_agent.address()),
            settings: agent::Settings::default(),
            signer: None,
            proxy_url: None,
            ca_path: None,
            ca_pem: None,
            environment: agent::Environment(Arc::new(|_| Err("none".to_owned()))),
        });
        let operator_router = operator::router(OperatorApi {
            gate: gate.clone(),
            token: token.clone(),
            address: for_operator.address(),
            reload: Arc::new(|| Ok(String::new())),
            config: Arc::new(serde_json::json!({})),
            shutdown: operator::Shutdown::default(),
            describe: Arc::new(String::new),
        });
        for (bound, router) in [(for_agent, agent_router), (for_operator, operator_router)] {
            testing::serve_for_test(bound, router, gate.metrics(), &drain);
        }
        let sidecar = Self {
            folder,
            agent,
            url,
            token,
            _trigger: trigger,
        };
        sidecar.announce(sidecar.folder.path(), std::process::id());
        sidecar
    }

    fn announce(&self, folder: &Path, pid: u32) {
        let text = serde_json::json!({
            "url": self.url, "token": self.token.expose(), "pid": pid
        });
        let text = text.to_string();
        write_private(&app::operator_file(folder), text.as_bytes()).unwrap();
    }

    fn forget(&self) {
        fs::remove_file(app::operator_file(self.folder.path())).unwrap();
    }

    /// What a command line says and exits with, as user `ann`.
    fn says(&self, words: &str) -> (u8, String) {
        let folder = self.folder.path().to_str().unwrap();
        let words = format!("openbox-sidecar {words} --state-dir {folder}");
        says(&words.split(' ').collect::<Vec<_>>())
    }

    /// An approval that waits.
    fn asked(&self, activity: &str) -> String {
        let run = serde_json::json!({"workflow_id": "w", "run_id": "r"});
        if self.agent.get("/v1/session").is_ok() && activity == "a" {
            self.agent.post("/v1/workflows", &run).unwrap();
        }
        let start = serde_json::json!({
            "workflow_id": "w", "run_id": "r", "activity_id": activity, "activity_type": "refund"
        });
        let answer = self.agent.post("/v1/activities?wait=0", &start).unwrap();
        answer["approval_id"].as_str().unwrap().to_owned()
    }
}

fn says(words: &[&str]) -> (u8, String) {
    let cli = Cli::try_parse_from(words).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = Streams {
        out: &mut out,
        err: &mut err,
    };
    let env = Source::new([("USER", "ann")], "host");
    let code = dispatch(cli, &env, &mut streams).unwrap();
    assert!(out.is_empty() || err.is_empty());
    out.extend(err);
    (code, String::from_utf8(out).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_is_listed_and_decided_once() {
    let sidecar = Sidecar::start();
    let (code, text) = sidecar.says("approvals list");
    assert_eq!((code, &*text), (exit::OK, "nothing waits for a person\n"));
    let first = sidecar.asked("a");
    let second = sidecar.asked("b");
    let (code, text) = sidecar.says("approvals list");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((code, lines.len()), (exit::OK, 3), "{text}");
    assert!(lines[0].starts_with("APPROVAL  "), "{text}");
    assert!(lines[1].starts_with(&first) && lines[2].starts_with(&second));
    assert!(lines[1].ends_with("ActivityStarted refund (a)"), "{text}");
    let (code, text) = sidecar.says("approvals list --json");
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &json[0]["approval_id"]),
        (exit::OK, &Value::from(&*first))
    );

    let (code, text) = sidecar.says(&format!("approvals approve {first}"));
    let want = format!("{first} granted: ActivityStarted refund (a)\n");
    assert_eq!((code, text), (exit::OK, want));
    let (code, text) = sidecar.says(&format!("approvals reject {second} --reason no"));
    assert_eq!(code, exit::OK, "{text}");
    let (code, text) = sidecar.says(&format!("approvals approve {second}"));
    assert_eq!(code, exit::FAILED);
    assert!(text.contains("decided before: it is rejected"), "{text}");
    let (code, text) = sidecar.says("approvals approve apr_x");
    assert_eq!(code, exit::FAILED);
    assert!(text.contains("no such approval"), "{text}");
    let journal = fs::read_to_string(sidecar.folder.path().join("journal.jsonl")).unwrap();
    assert_eq!(journal.matches(r#""by":"ann""#).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_listed_halted_and_resumed() {
    let sidecar = Sidecar::start();
    sidecar.asked("a");
    let (code, text) = sidecar.says("runs halt r --reason enough");
    assert_eq!((code, &*text), (exit::OK, "r halted: enough\n"));
    let (_, text) = sidecar.says("runs list");
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[1].starts_with("own-run") && lines[1].contains("own session"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("r  ") && lines[2].contains("halted: enough"),
        "{text}"
    );
    let (code, text) = sidecar.says("runs resume r --workflow w");
    assert_eq!((code, &*text), (exit::OK, "r resumed\n"));
    let (code, text) = sidecar.says("runs resume r");
    assert_eq!((code, &*text), (exit::OK, "r was not halted\n"));
    let (code, text) = sidecar.says("runs halt own --reason enough");
    assert_eq!((code, &*text), (exit::OK, "own-run halted: enough\n"));
    let (code, text) = sidecar.says("runs resume ../x");
    assert_eq!(code, exit::FAILED);
    assert!(text.contains("no such run"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_sidecar_that_lives_is_found() {
    let sidecar = Sidecar::start();
    sidecar.forget();
    let (code, text) = sidecar.says("approvals list");
    assert_eq!(code, exit::FAILED);
    assert!(text.contains("no sidecar is running"), "{text}");
    assert!(text.contains("--state-dir"), "{text}");

    let runs = sidecar.folder.path().join("runs");
    let announced = |run: &str, age_s: u64, said: Option<&str>| {
        let folder = runs.join(run);
        fs::create_dir_all(&folder).unwrap();
        sidecar.announce(&folder, std::process::id());
        let file = app::operator_file(&folder);
        if let Some(said) = said {
            fs::write(&file, said).unwrap();
        }
        let at = SystemTime::now() - Duration::from_secs(age_s);
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(at).unwrap();
    };
    let ended = format!(
        r#"{{"url":"{}","token":"x","pid":{}}}"#,
        sidecar.url,
        u32::MAX
    );
    announced(
        "older",
        40,
        Some(r#"{"url":"http://127.0.0.1:1","token":"x"}"#),
    );
    announced("live", 30, None);
    announced("process-ended", 20, Some(&ended));
    announced(
        "nobody-listens",
        10,
        Some(r#"{"url":"http://127.0.0.1:1","token":"x"}"#),
    );
    announced("half-written", 5, Some(r#"{"url":"#));
    let (code, text) = sidecar.says("approvals list");
    assert_eq!(code, exit::OK, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_can_be_named_by_url_and_token_file() {
    let sidecar = Sidecar::start();
    sidecar.forget();
    let file = sidecar.folder.path().join("token");
    sidecar.token.write(&file).unwrap();
    let file = file.to_str().unwrap();
    let named = |url: &str, file: &str| {
        let words =
            format!("openbox-sidecar runs list --operator-url {url} --operator-token-file {file}");
        says(&words.split(' ').collect::<Vec<_>>())
    };
    let (code, text) = named(&sidecar.url, file);
    assert_eq!(code, exit::OK, "{text}");
    Token::for_operator().write(Path::new(file)).unwrap();
    #[rustfmt::skip]
    let table = [
        (&*sidecar.url,        file,       "refused the token"),
        ("http://127.0.0.1:1", file,       "no answer from the operator API at 127.0.0.1:1"),
        ("https://127.0.0.1",  file,       "http://127.0.0.1:15810"),
        (&*sidecar.url,        "/nowhere", "/nowhere cannot be read"),
    ];
    for (url, file, want) in table {
        let (code, text) = named(url, file);
        assert_eq!(code, exit::FAILED);
        assert!(text.contains(want), "{url}: {text}");
    }
    let alone = [
        "openbox-sidecar",
        "runs",
        "list",
        "--operator-url",
        &sidecar.url,
    ];
    assert!(Cli::try_parse_from(alone).is_err());
}

#[test]
fn what_an_agent_wrote_cannot_move_the_cursor() {
    assert_eq!(
        shown("a\u{1b}[2Jb\u{202e}c\r\n"),
        "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}"
    );
    assert_eq!(segment("a/../b c"), "a%2F..%2Fb%20c");
}
