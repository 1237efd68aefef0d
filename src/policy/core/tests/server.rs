//! Against servers that answer, and servers that do not.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::domain::{Reason, Verdict};
use crate::policy::core::{
    AgentDid, BoxedIo, Connector, CoreClient, Identities, Identity, Own, SigningKey, StartError,
    connect_plain,
};
use crate::policy::{
    ApprovalState, ApprovalsAt, Judging, PolicyBackend, PolicyError, Question, Ruling,
};
use crate::process::spawn_named;

/// What a server does with one request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Writes this and keeps the connection.
    Say(String),
    /// Writes this and closes it.
    SayAndClose(String),
    /// Writes this and never another byte.
    SayAndHang(String),
    /// Closes a connection without reading from it.
    HangUp,
}

pub(super) fn reply(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(super) fn say(body: &str) -> Act {
    Act::Say(reply(200, body))
}

pub(super) const ALLOW: &str = r#"{"verdict":"allow","action":"continue"}"#;

/// A Core that follows a script, one act a request, the last one for ever.
pub(super) struct Core {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    accepted: AtomicUsize,
    requests: Mutex<Vec<String>>,
    open: AtomicUsize,
    open_most: AtomicUsize,
    /// Requests wait for this when `gated`.
    gate: Option<Notify>,
}

impl Core {
    pub(super) async fn start(script: Vec<Act>) -> Self {
        Self::with(script, Seen::default()).await
    }

    /// As [`Self::start`], with a script that knows where it is played.
    pub(super) async fn start_with(script: impl FnOnce(SocketAddr) -> Vec<Act>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let script = script(listener.local_addr().unwrap());
        Self::at(listener, script, Seen::default()).await
    }

    async fn with(script: Vec<Act>, seen: Seen) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self::at(listener, script, seen).await
    }

    async fn at(listener: TcpListener, script: Vec<Act>, seen: Seen) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(seen);
        let next = Arc::new(AtomicUsize::new(0));
        let server = Self {
            address,
            seen: Arc::clone(&seen),
        };
        drop(spawn_named("test core", async move {
            let script = Arc::new(script);
            while let Ok((stream, _)) = listener.accept().await {
                seen.accepted.fetch_add(1, Ordering::SeqCst);
                let (script, seen, next) =
                    (Arc::clone(&script), Arc::clone(&seen), Arc::clone(&next));
                drop(spawn_named(
                    "test core connection",
                    serve(stream, script, seen, next),
                ));
            }
        }));
        server
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/base/", self.address)
    }

    fn client(&self) -> CoreClient {
        CoreClient::new(settings(&self.url()), connect_plain())
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Vec<Act>>,
    seen: Arc<Seen>,
    next: Arc<AtomicUsize>,
) {
    loop {
        let act = |n: usize| script[n.min(script.len() - 1)].clone();
        if matches!(act(next.load(Ordering::SeqCst)), Act::HangUp) {
            next.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let Some(request) = request(&mut stream).await else {
            return;
        };
        seen.requests.lock().unwrap().push(request);
        let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.open_most.fetch_max(open, Ordering::SeqCst);
        if let Some(gate) = &seen.gate {
            gate.notified().await;
        }
        seen.open.fetch_sub(1, Ordering::SeqCst);
        match act(next.fetch_add(1, Ordering::SeqCst)) {
            Act::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Act::SayAndClose(text) => {
                drop(stream.write_all(text.as_bytes()).await);
                return;
            }
            Act::SayAndHang(text) => {
                drop(stream.write_all(text.as_bytes()).await);
                std::future::pending::<()>().await;
            }
            Act::HangUp => return,
        }
    }
}

/// Head and body of one request.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(seen).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + std::str::from_utf8(&body).unwrap())
}

async fn ask(client: &CoreClient) -> Result<Arc<Ruling>, PolicyError> {
    let operation = operation(context(Some(activity())));
    match client.judge(Question::Started(&operation)) {
        Judging::Now(answer) => answer,
        Judging::Later(answer) => answer.await,
    }
}

#[tokio::test]
async fn many_questions_share_one_connection() {
    let core = Core::start(vec![
        say(ALLOW),
        Act::Say(reply(500, "{}")),
        Act::Say(reply(404, "")),
        say(ALLOW),
    ])
    .await;
    let client = core.client();
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(ask(&client).await.map(|ruling| ruling.verdict).ok());
    }
    assert_eq!(
        answers
            .iter()
            .filter(|a| **a == Some(Verdict::Allow))
            .count(),
        8
    );
    assert_eq!(core.seen.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_question_is_written_as_the_contract_has_it() {
    let core = Core::start(vec![say(ALLOW)]).await;
    ask(&core.client()).await.unwrap();
    let requests = core.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        "POST /base/api/v1/governance/evaluate HTTP/1.1".to_owned(),
        format!("Host: {}", core.address),
        "Accept: */*".to_owned(),
        "Accept-Encoding: identity".to_owned(),
        "Connection: keep-alive".to_owned(),
        format!("Authorization: Bearer {KEY}"),
        format!("User-Agent: OpenBox-SDK/openbox-sidecar-rust-v{version}"),
        format!("X-Openbox-Sdk-Version: openbox-sidecar-rust-v{version}"),
        format!("Idempotency-Key: {}-started", OperationId::new(1, 2)),
        format!("Content-Length: {}", body.len()),
    ];
    assert_eq!(head.lines().collect::<Vec<_>>(), expected);
    assert!(body.starts_with(r#"{"source":"workflow-telemetry","event_type":"ActivityStarted""#));
}

#[tokio::test]
async fn a_poll_and_an_introduction_go_to_their_own_routes() {
    let core = Core::start(vec![
        say("{}"),
        say(r#"{"action":"allow"}"#),
        Act::Say(reply(401, r#"{"reason_code":"invalid_api_key"}"#)),
    ])
    .await;
    let client = core.client();
    client.validate().await.unwrap();
    let context = context(Some(activity()));
    assert_eq!(client.approval(&context).await, Ok(ApprovalState::Granted));
    let error = client.validate().await.unwrap_err().to_string();
    assert!(
        error.contains("rejected us (HTTP 401, invalid_api_key: it does not accept our API key; check OPENBOX_API_KEY)"),
        "{error}"
    );
    let requests = core.requests();
    assert!(requests[0].starts_with("GET /base/api/v1/auth/validate HTTP/1.1\r\n"));
    assert!(!requests[0].contains("Content-Length"));
    assert!(requests[1].starts_with("POST /base/api/v1/governance/approval HTTP/1.1\r\n"));
    assert!(
        requests[1]
            .ends_with(r#"{"workflow_id":"wf-conf","run_id":"run-conf","activity_id":"act-1"}"#)
    );
}

#[tokio::test]
async fn no_answer_is_unavailable_and_a_bad_one_unjudgeable() {
    let big = format!(
        r#"{{"verdict":"allow","reason":"{}"}}"#,
        "x".repeat(1024 * 1024)
    );
    let chunked =
        |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    let big_chunk = chunked(&format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len()));
    // what it does, whether that is no answer at all
    let table = [
        ("hangs up", Act::HangUp, true),
        ("closes", Act::SayAndClose(String::new()), true),
        (
            "closes in its head",
            Act::SayAndClose("HTTP/1.1 200".to_owned()),
            true,
        ),
        (
            "closes in its body",
            Act::SayAndClose(reply(200, ALLOW).replace('}', "")),
            true,
        ),
        (
            "closes in a chunk",
            Act::SayAndClose(chunked("5\r\n{\"ver")),
            true,
        ),
        ("500", Act::Say(reply(500, ALLOW)), true),
        ("503 and close", Act::SayAndClose(reply(503, "")), true),
        ("429", Act::Say(reply(429, "")), true),
        ("404", Act::Say(reply(404, ALLOW)), false),
        ("401", Act::Say(reply(401, ALLOW)), false),
        ("redirect", Act::Say(reply(302, ALLOW)), false),
        (
            "garbage",
            Act::SayAndClose("SSH-2.0-OpenSSH\r\n\r\n".to_owned()),
            false,
        ),
        (
            "bad chunks",
            Act::SayAndClose(chunked("zz\r\n{}\r\n")),
            false,
        ),
        ("not JSON", say("<html>"), false),
        (
            "contradicts",
            say(r#"{"verdict":"allow","action":"block"}"#),
            false,
        ),
        ("too long", say(&big), false),
        (
            "claims to be far too long",
            Act::SayAndHang(
                "HTTP/1.1 200 OK\r\ncontent-length: 999999999999999\r\n\r\n{".to_owned(),
            ),
            false,
        ),
        ("too long in chunks", Act::Say(big_chunk), false),
    ];
    for (what, act, is_none) in table {
        let core = Core::start(vec![act]).await;
        let error = ask(&core.client()).await.unwrap_err();
        assert_eq!(
            matches!(error, PolicyError::Unavailable(_)),
            is_none,
            "{what}: {error}"
        );
        assert!(!error.to_string().contains(KEY), "{error}");
    }
}

#[tokio::test]
async fn a_core_that_does_not_listen_is_unavailable_and_named_at_start() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = CoreClient::new(settings(&url), connect_plain());
    assert!(matches!(
        ask(&client).await,
        Err(PolicyError::Unavailable(_))
    ));
    let error = client.validate().await.unwrap_err();
    assert!(matches!(error, StartError::Unreachable { .. }));
    assert!(error.to_string().contains(&url), "{error}");
    assert_eq!(client.describe(), format!("OpenBox Core at {url}"));
    assert_eq!(client.approvals_at(), ApprovalsAt::Core);
    let tls = CoreClient::new(settings("https://core.example"), connect_plain());
    assert!(matches!(ask(&tls).await, Err(PolicyError::Unavailable(_))));
}

#[tokio::test]
async fn a_core_that_is_too_slow_is_unavailable_at_the_deadline() {
    for start in [
        String::new(),
        "HTTP/1.1 200 OK\r\ncontent-length: 39\r\n\r\n{".to_owned(),
    ] {
        let core = Core::start(vec![Act::SayAndHang(start)]).await;
        let mut settings = settings(&core.url());
        settings.answer_within = Duration::from_millis(200);
        let client = CoreClient::new(settings, connect_plain());
        let error = ask(&client).await.unwrap_err();
        let reason = Reason::from("OpenBox Core did not answer within 200ms");
        assert_eq!(error, PolicyError::Unavailable(reason));
    }
}

#[tokio::test]
async fn a_kept_connection_that_core_closed_costs_nothing_but_a_new_one() {
    let core = Core::start(vec![Act::SayAndClose(reply(200, ALLOW))]).await;
    let client = core.client();
    for _ in 0..20 {
        ask(&client).await.unwrap();
    }
    assert_eq!(core.seen.accepted.load(Ordering::SeqCst), 20);

    // Closed on reading the next question: it is asked once more, and only once.
    let core = Core::start(vec![
        say(ALLOW),
        Act::SayAndClose(String::new()),
        say(ALLOW),
    ])
    .await;
    let client = core.client();
    for _ in 0..2 {
        ask(&client).await.unwrap();
    }
    assert_eq!(core.requests().len(), 3);
    let core = Core::start(vec![say(ALLOW), Act::SayAndClose(String::new())]).await;
    let client = core.client();
    ask(&client).await.unwrap();
    ask(&client).await.unwrap_err();
    assert_eq!(core.requests().len(), 3);
}

#[tokio::test]
async fn no_more_questions_are_open_than_the_bound_says_and_the_rest_wait() {
    let seen = Seen {
        gate: Some(Notify::new()),
        ..Seen::default()
    };
    let core = Core::with(vec![say(ALLOW)], seen).await;
    let mut settings = settings(&core.url());
    settings.in_flight_max = 2;
    let client = Arc::new(CoreClient::new(settings, connect_plain()));
    let asking: Vec<_> = (0..6)
        .map(|_| {
            let client = Arc::clone(&client);
            spawn_named("test question", async move { ask(&client).await })
        })
        .collect();
    for answered in 0..6 {
        let open = 2.min(6 - answered);
        while core.seen.open.load(Ordering::SeqCst) < open {
            tokio::task::yield_now().await;
        }
        core.seen.gate.as_ref().unwrap().notify_one();
        while core.requests().len() < (answered + 3).min(6) {
            tokio::task::yield_now().await;
        }
    }
    for question in asking {
        assert_eq!(question.await.unwrap().unwrap().verdict, Verdict::Allow);
    }
    assert_eq!(core.seen.open_most.load(Ordering::SeqCst), 2);
    assert_eq!(core.seen.accepted.load(Ordering::SeqCst), 2);
}

/// Opens connections on which nobody ever answers.
fn connect_silence() -> Connector {
    let peers = Mutex::new(Vec::new());
    Arc::new(move |_| {
        let (io, peer) = tokio::io::duplex(64 * 1024);
        peers.lock().unwrap().push(peer);
        let io: BoxedIo = Box::new(TokioIo::new(io));
        Box::pin(std::future::ready(Ok(io)))
    })
}

#[tokio::test(start_paused = true)]
async fn load_of_our_own_is_never_core_being_unavailable() {
    let mut settings = settings("http://localhost");
    settings.in_flight_max = 1;
    let within = settings.answer_within;
    let client = CoreClient::new(settings, connect_silence());
    let begun = Instant::now();
    let (first, (second, waited)) = tokio::join!(ask(&client), async {
        // Gets the slot with a second left, which Core does not answer in.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answer = ask(&client).await;
        (answer, begun.elapsed())
    });
    assert!(matches!(first, Err(PolicyError::Unavailable(_))));
    assert!(matches!(second, Err(PolicyError::Unjudgeable(_))));
    // The deadline covers both waits, to the millisecond of the timer.
    let deadline = within + Duration::from_secs(1);
    assert!(
        waited >= deadline && waited < deadline + Duration::from_millis(5),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_question_too_large_is_not_asked() {
    let core = Core::start(vec![say(ALLOW)]).await;
    let mut settings = settings(&core.url());
    settings.question_bytes_max = 100;
    let client = CoreClient::new(settings, connect_plain());
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(error, PolicyError::Unjudgeable(_)));
    assert!(error.to_string().contains("too large to evaluate"));
    assert!(core.requests().is_empty());
}

#[tokio::test]
async fn a_question_given_up_leaves_no_connection_behind() {
    let seen = Seen {
        gate: Some(Notify::new()),
        ..Seen::default()
    };
    let core = Core::with(vec![say(ALLOW)], seen).await;
    let client = core.client();
    tokio::select! {
        _ = ask(&client) => panic!("answered"),
        () = async { while core.requests().is_empty() { tokio::task::yield_now().await } } => {}
    }
    core.seen.gate.as_ref().unwrap().notify_one();
    let (answer, ()) = tokio::join!(ask(&client), async {
        while core.requests().len() < 2 {
            tokio::task::yield_now().await;
        }
        core.seen.gate.as_ref().unwrap().notify_one();
    });
    answer.unwrap();
    assert_eq!(core.seen.accepted.load(Ordering::SeqCst), 2);
}

/// An agent of the vectors, which signs.
pub(super) fn signed(url: &str) -> Settings {
    const SEED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let did = AgentDid::parse("did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11").unwrap();
    let key = SigningKey::parse(&Secret::new(SEED)).unwrap();
    Settings {
        identity: Identities {
            own: Own::Did(Identity::new(did, key)),
            workload: None,
        },
        ..settings(url)
    }
}

#[tokio::test]
async fn what_is_signed_is_what_is_sent_on_every_route_and_every_connection() {
    let core = Core::start(vec![Act::SayAndClose(reply(200, ALLOW))]).await;
    let settings = signed(&core.url());
    let verifier = settings.identity.did().unwrap().clone();
    let client = CoreClient::new(settings, connect_plain());
    client.validate().await.unwrap();
    ask(&client).await.unwrap();
    client.approval(&context(Some(activity()))).await.unwrap();
    let requests = core.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let (method, rest) = head.split_once(" /base").unwrap();
        let path = rest.split(' ').next().unwrap();
        let header = |name: &str| {
            let line = head.lines().find(|line| {
                line.split_once(": ")
                    .is_some_and(|(is, _)| is.eq_ignore_ascii_case(name))
            });
            line.unwrap().split_once(": ").unwrap().1.to_owned()
        };
        let digest = header("X-OpenBox-Body-SHA256");
        assert_eq!(digest, sha256_hex(body.as_bytes()));
        let canonical = format!(
            "{method}\n{path}\n{}\n{}\n{digest}",
            header("X-OpenBox-Agent-Timestamp"),
            header("X-OpenBox-Agent-Nonce")
        );
        assert!(
            verifier.has_signed(&canonical, &header("X-OpenBox-Agent-Signature")),
            "{request}"
        );
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_rejection_says_in_words_what_is_wrong_and_is_never_an_outage() {
    for (code, words) in [
        ("timestamp_outside_window", "the clock of this machine"),
        ("timestamp_skew", "the clock of this machine"),
        ("signature_invalid", "OPENBOX_AGENT_PRIVATE_KEY"),
        ("nonce_replayed", "repeat requests"),
        ("did_agent_mismatch", "another agent than the API key"),
        ("verifier_not_configured", "register its key"),
        ("invalid_api_key", "check OPENBOX_API_KEY"),
        ("something_new", "OPENBOX_AGENT_DID where it is set"),
    ] {
        for status in [401, 403] {
            let body = format!(r#"{{"reason_code":"{code}","message":"m"}}"#);
            let core = Core::start(vec![Act::Say(reply(status, &body))]).await;
            let client = CoreClient::new(signed(&core.url()), connect_plain());
            let error = ask(&client).await.unwrap_err();
            assert!(matches!(error, PolicyError::Unjudgeable(_)), "{error}");
            assert!(error.to_string().contains(words), "{code}: {error}");
            let error = client.validate().await.unwrap_err();
            assert!(matches!(error, StartError::KeyRejected { .. }), "{error}");
            assert!(error.to_string().contains(words), "{code}: {error}");
        }
    }
}

#[test]
fn the_client_shows_nobody_its_key() {
    let client = CoreClient::new(settings("https://core.example"), connect_plain());
    assert!(!format!("{client:?}").contains(KEY));
}
