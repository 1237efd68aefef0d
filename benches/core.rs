//! Evaluations by our Core client, and a Core that answers at once: the two
//! programs of `benches/load/core/run.py`, which sets them beside the SDK.
//! `core stub` prints its port; `core evaluate PORT IDENTITY IN_FLIGHT SECONDS`
//! prints what it did as JSON; `core floor PORT SECONDS` the same of bare system
//! calls: one write and one read for each question, and nothing else. Run bare, as `cargo bench` does, it does nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "a benchmark that goes wrong must stop"
)]

mod exchange;

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use openbox_sidecar::domain::{ActivityRef, Context, JsonText, Operation, Verdict};
use openbox_sidecar::policy::core::{
    AgentDid, ApiKey, CoreClient, CoreUrl, Identities, Identity, Okta, OktaNames, Own, RsaKey,
    Settings, SigningKey, ToldByCore, connect_plain,
};
use openbox_sidecar::policy::{Judging, PolicyBackend, Question};
use openbox_sidecar::process::spawn_named;
use openbox_sidecar::redact::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As Core answers, with everything it usually says.
const ANSWER: &str = r#"{"governance_event_id":"3f0c2a5e-5f0b-4f3e-9a51-0c8a1d6f2b11","verdict":"allow","action":"allow","risk_score":0.1,"trust_tier":2,"reason":"policy allows it","policy_id":"7d1f6f0e-1c1a-4b6b-8a51-5a4b7a0f9c22","fallback_used":false,"metadata":{}}"#;

/// Before anything is counted: connections are opened, caches are filled.
const WARM_UP: Duration = Duration::from_millis(300);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match words[..] {
        ["stub"] => runtime.block_on(stub()),
        ["floor", port, seconds] => floor(port, Duration::from_secs_f64(seconds.parse().unwrap())),
        ["evaluate", port, identity, in_flight, seconds] => {
            let seconds = Duration::from_secs_f64(seconds.parse().unwrap());
            let client = client(port, identity);
            let in_flight = in_flight.parse().unwrap();
            LocalSet::new().block_on(&runtime, evaluate(client, in_flight, seconds));
        }
        _ => println!("see benches/load/core/run.py"),
    }
}

/// Answers each request when its last byte has come, and reads none of it.
async fn stub() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let answer: Arc<[u8]> = answer.into_bytes().into();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        drop(spawn_named("stub", answered(stream, answer.clone())));
    }
}

async fn answered(mut stream: TcpStream, answer: Arc<[u8]>) {
    stream.set_nodelay(true).unwrap();
    let mut read = Vec::with_capacity(16 * 1024);
    loop {
        while let Some(length) = whole(&read) {
            read.drain(..length);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// How long the first request in `read` is, once all of it has come.
fn whole(read: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"content-length: ";
    let head = read.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let lines = read[..head].split(|byte| *byte == b'\n');
    let length = lines
        .filter(|line| line.len() > LENGTH.len())
        .find(|line| line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH))
        .map_or(0, |line| {
            let digits = std::str::from_utf8(&line[LENGTH.len()..]).unwrap();
            digits.trim().parse().unwrap()
        });
    (read.len() >= head + length).then_some(head + length)
}

fn client(port: &str, identity: &str) -> CoreClient {
    let url = CoreUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let key = ApiKey::parse(Secret::new(format!("obx_test_{}", "0".repeat(48)))).unwrap();
    let own = match identity {
        "unsigned" => Own::Unsigned,
        "did" => {
            let did = AgentDid::parse("did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11").unwrap();
            let seed = Secret::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
            Own::Did(Identity::new(did, SigningKey::parse(&seed).unwrap()))
        }
        pem => {
            let pem = std::fs::read_to_string(pem).unwrap();
            let names = OktaNames {
                agent_id: "11111111-1111-4111-8111-111111111111".into(),
                organization_id: "org-1".into(),
                deployment_id: "dep-1".into(),
                audience: "https://core.example.test/aud".into(),
                external_agent_id: "wlp-okta-1".into(),
                key_id: "kid-1".into(),
            };
            Own::Okta(Okta {
                key: RsaKey::parse(&Secret::new(pem)).unwrap(),
                names: Some(Arc::new(names)),
                told: ToldByCore::default(),
            })
        }
    };
    let settings = Settings {
        identity: Identities {
            own,
            workload: None,
        },
        ..Settings::new(url, key)
    };
    CoreClient::new(settings, connect_plain())
}

/// A POST of 1 KB inside an activity, answered with 1 KB.
fn operation() -> Operation {
    let mut operation = exchange::request("POST", "/items");
    operation.context = Arc::new(Context {
        activity: Some(ActivityRef {
            id: "activity".into(),
            kind: "refund".into(),
            attempt: 1,
            input: JsonText::empty_array(),
        }),
        ..Context::clone(&operation.context)
    });
    operation
}

/// Asks about both stages in turn, for so long, with so many questions open.
async fn evaluate(client: CoreClient, in_flight: usize, within: Duration) {
    let (client, operation, completion) = (
        Rc::new(client),
        Rc::new(operation()),
        Rc::new(exchange::answer()),
    );
    let (asked, is_over) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
    let askers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, operation, completion) =
                (client.clone(), operation.clone(), completion.clone());
            let (asked, is_over) = (asked.clone(), is_over.clone());
            tokio::task::spawn_local(async move {
                while !is_over.get() {
                    for question in [
                        Question::Started(&operation),
                        Question::Completed(&operation, &completion),
                    ] {
                        let ruling = match client.judge(question) {
                            Judging::Now(ruling) => ruling,
                            Judging::Later(ruling) => ruling.await,
                        };
                        assert_eq!(ruling.unwrap().verdict, Verdict::Allow);
                        asked.set(asked.get() + 1);
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    let (before, began, spent) = (asked.get(), Instant::now(), cpu());
    tokio::time::sleep(within).await;
    let (evaluations, took, spent) = (asked.get() - before, began.elapsed(), cpu() - spent);
    is_over.set(true);
    for asker in askers {
        asker.await.unwrap();
    }
    tell(evaluations, took, spent);
}

fn tell(evaluations: u64, took: Duration, spent: Duration) {
    println!(
        "{{\"evaluations\": {evaluations}, \"seconds\": {}, \"cpu_seconds\": {}}}",
        took.as_secs_f64(),
        spent.as_secs_f64()
    );
}

/// What no client can go below: a question as long as ours is written, and its
/// answer read, by a thread that sleeps in between.
fn floor(port: &str, within: Duration) {
    const HEAD: &str = "POST / HTTP/1.1\r\ncontent-length: ";
    let questions = [2_285, 3_600].map(|bytes: usize| {
        let body = "x".repeat(bytes);
        format!("{HEAD}{bytes}\r\n\r\n{body}")
    });
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = [0; 4_096];
    let mut ask = |question: &str| {
        stream.write_all(question.as_bytes()).unwrap();
        assert_ne!(stream.read(&mut answer).unwrap(), 0);
    };
    let (began, spent, mut asked) = (Instant::now(), cpu(), 0);
    while began.elapsed() < within {
        for question in &questions {
            ask(question);
            asked += 1;
        }
    }
    tell(asked, began.elapsed(), cpu() - spent);
}

/// CPU of this thread, which does everything, from the scheduler's own clock.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
