//! Both APIs as a test meets them: real routers on loopback, a scripted policy,
//! a real journal, and a client that sends what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use crate::domain::Context;
use crate::gate::{
    Constraints, FailMode, Gate, Govern, HaltScope, Parts, Settings, Unasked, Unheld,
};
use crate::journal::{self, Journal};
use crate::metrics::Metrics;
use crate::net::listen::{Bound, bind};
use crate::net::listen_at::Listening;
use crate::policy::PolicyBackend;
use crate::process::{Drain, DrainTrigger, clock, drain, spawn_named};
use crate::session::Registry;
use crate::session::registry::{self, Unattributed};
use crate::state::Store;

use super::agent::{self, AgentApi};
use super::auth::Token;
use super::operator::{self, OperatorApi};
use super::serve::{Limits, serve};

/// Serves `router` on `bound` until `drain` begins, as the real ones are.
pub(crate) fn serve_for_test(bound: Bound, router: Router, metrics: &Arc<Metrics>, drain: &Drain) {
    let listening = Listening::Tcp(bound);
    let (metrics, drain) = (metrics.clone(), drain.clone());
    let serving = serve("test", listening, router, Limits::API, metrics, drain);
    drop(spawn_named("test", serving));
}

pub(in crate::control) struct World {
    pub(in crate::control) gate: Gate,
    pub(in crate::control) agent: Api,
    pub(in crate::control) operator: Api,
    /// What the next policy reload says is wrong.
    pub(in crate::control) reload_fails: Arc<AtomicBool>,
    pub(in crate::control) shutdown: operator::Shutdown,
    pub(in crate::control) folder: tempfile::TempDir,
    _trigger: DrainTrigger,
}

/// One API and the token that opens it.
#[derive(Clone)]
pub(in crate::control) struct Api {
    pub(in crate::control) address: SocketAddr,
    pub(in crate::control) token: Token,
    router: Router,
}

#[derive(Debug)]
pub(in crate::control) struct Answer {
    pub(in crate::control) status: u16,
    pub(in crate::control) head: String,
    pub(in crate::control) text: String,
}

impl World {
    pub(in crate::control) fn new(backend: impl PolicyBackend + 'static) -> Self {
        Self::failing(backend, FailMode::Closed)
    }

    pub(in crate::control) fn failing(
        backend: impl PolicyBackend + 'static,
        fail_mode: FailMode,
    ) -> Self {
        Self::set(backend, fail_mode, agent::Settings::default())
    }

    pub(in crate::control) fn set(
        backend: impl PolicyBackend + 'static,
        fail_mode: FailMode,
        settings: agent::Settings,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(backend, fail_mode, folder.path());
        let (trigger, drain) = drain::channel();
        let [agent_bound, operator_bound] =
            [(); 2].map(|()| bind(([127, 0, 0, 1], 0).into()).unwrap());
        let (agent_token, operator_token) = (Token::for_agent(), Token::for_operator());
        let agent_router = agent::router(AgentApi {
            gate: gate.clone(),
            token: agent_token.clone(),
            address: Some(agent_bound.address()),
            settings,
            signer: None,
            proxy_url: Some("http://127.0.0.1:15801".into()),
            ca_path: Some("/state/ca.pem".into()),
            ca_pem: Some("-----BEGIN CERTIFICATE-----\n".into()),
            environment: agent::Environment(Arc::new(|format| Ok(format!("{format:?}")))),
        });
        let shutdown = operator::Shutdown::default();
        let reload_fails = Arc::new(AtomicBool::new(false));
        let fails = reload_fails.clone();
        let operator_router = operator::router(OperatorApi {
            gate: gate.clone(),
            token: operator_token.clone(),
            address: operator_bound.address(),
            reload: Arc::new(move || match fails.load(Ordering::Relaxed) {
                true => Err("policy.rego:3: unknown builtin".to_owned()),
                false => Ok("2 rules".to_owned()),
            }),
            describe: Arc::new(|| "scripted".to_owned()),
            config: Arc::new(
                serde_json::json!({"fail_mode": {"value": "open", "from": "default"}}),
            ),
            shutdown: shutdown.clone(),
        });
        let agent = Api {
            address: agent_bound.address(),
            token: agent_token,
            router: agent_router.clone(),
        };
        let operator = Api {
            address: operator_bound.address(),
            token: operator_token,
            router: operator_router.clone(),
        };
        for (bound, router) in [
            (agent_bound, agent_router),
            (operator_bound, operator_router),
        ] {
            serve_for_test(bound, router, gate.metrics(), &drain);
        }
        Self {
            gate,
            agent,
            operator,
            reload_fails,
            shutdown,
            folder,
            _trigger: trigger,
        }
    }

    pub(in crate::control) fn journal(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("journal.jsonl")).unwrap()
    }

    /// Opens run `r` of workflow `w`.
    pub(in crate::control) async fn opened(self) -> Self {
        let body = r#"{"workflow_id":"w","run_id":"r","workflow_type":"t","task_queue":"q"}"#;
        let answer = self.agent.post("/v1/workflows", body).await;
        assert_eq!(answer.json()["verdict"], "allow", "{answer:?}");
        self
    }
}

fn gate(
    backend: impl PolicyBackend + 'static,
    fail_mode: FailMode,
    folder: &std::path::Path,
) -> Gate {
    let own = Context {
        workflow_id: "own-workflow".into(),
        run_id: "own-run".into(),
        workflow_type: "own-type".into(),
        task_queue: "own-queue".into(),
        activity: None,
    };
    let sessions = registry::Settings {
        own,
        unattributed: Unattributed::Session,
        runs_max: 4,
        activities_max: 4,
        contexts_max: 2,
        context_lives: Duration::from_secs(60),
        callers: crate::net::caller::Callers::Identified,
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
            fail_mode,
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

impl Api {
    pub(in crate::control) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body).await
    }

    pub(in crate::control) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    /// With token and body, over the socket.
    pub(in crate::control) async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.address,
            self.token.expose(),
            body.len(),
        ))
        .await
    }

    /// Its routes, without a socket.
    pub(in crate::control) fn router(&self) -> Router {
        self.router.clone()
    }

    /// Exactly `request`, over the socket.
    pub(in crate::control) async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let whole = read_some(&mut stream).await;
        let (head, text) = whole.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            text: text.to_owned(),
        }
    }

    /// Without a socket, for tests that pause the clock.
    pub(in crate::control) async fn direct(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.token.expose()))
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        Answer {
            status,
            head: String::new(),
            text: String::from_utf8(text).unwrap(),
        }
    }
}

impl Answer {
    pub(in crate::control) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The status and `code` of a problem.
    pub(in crate::control) fn problem(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["status"], self.status);
        assert!(
            self.head.is_empty() || self.head.contains("content-type: application/problem+json")
        );
        (self.status, json["code"].as_str().unwrap().to_owned())
    }
}

/// One response by its content length, or what came before the end.
pub(in crate::control) async fn read_some(stream: &mut TcpStream) -> String {
    let mut whole = Vec::new();
    let mut some = [0; 4096];
    loop {
        let read = stream.read(&mut some).await.unwrap_or(0);
        whole.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&whole).into_owned();
        let done = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse()
                        .ok()
                })
                .unwrap_or(0);
            body.len() >= length
        });
        if read == 0 || done {
            return text;
        }
    }
}
