//! What one verdict of the embedded policy costs: the starter policy, remembered
//! and evaluated, at both stages, for a GET and for a POST with a body of 1 KB,
//! and what rules beside it add.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that goes wrong must stop"
)]

mod exchange;

use divan::Bencher;
use openbox_sidecar::domain::{Completion, Operation};
use openbox_sidecar::policy::local::{LocalPolicy, Settings};
use openbox_sidecar::policy::{Judging, PolicyBackend, Question};

const KINDS: [&str; 4] = [
    "GET started",
    "GET completed",
    "POST started",
    "POST completed",
];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

#[divan::bench(args = KINDS)]
fn remembered(bencher: Bencher<'_, '_>, kind: &str) {
    judge(bencher, kind, Settings::default());
}

#[divan::bench(args = KINDS)]
fn evaluated(bencher: Bencher<'_, '_>, kind: &str) {
    let settings = Settings {
        memory_bytes_max: 0,
        ..Settings::default()
    };
    judge(bencher, kind, settings);
}

/// Rules beside the starter policy: `none`; ten behaviour rules, the last of which
/// is about the operation and lets it pass; guardrails that look at its body for
/// all personal data, a word and a pattern, and find nothing.
#[divan::bench(args = ["none", "behaviour", "guardrails"])]
fn ruled(bencher: Bencher<'_, '_>, which: &str) {
    let folder = tempfile::tempdir().unwrap();
    let starter = include_str!("../config/policies/starter.rego");
    std::fs::write(folder.path().join("starter.rego"), starter).unwrap();
    let rules = match which {
        "behaviour" => {
            let rule = |trigger: &str, states: &str, verdict: &str| {
                format!(
                    "- {{name: n, trigger: {trigger}, states: [{states}], window: 5m, verdict: {verdict}}}\n"
                )
            };
            let others = rule("file_write", "file_read", "BLOCK").repeat(9);
            let own = rule("http_post", "http_get", "ALLOW");
            format!("behaviour:\n{others}{own}")
        }
        "guardrails" => {
            let rail = |kind: &str| {
                format!(
                    "- {{name: n, {kind}, stage: input, action: block, operations: [http_request]}}\n"
                )
            };
            [
                "type: pii",
                "type: ban_words, words: [bluebird]",
                "type: regex, pattern: 'AKIA[0-9A-Z]{16}'",
            ]
            .map(rail)
            .into_iter()
            .fold("guardrails:\n".to_owned(), |all, rail| all + &rail)
        }
        _ => String::new(),
    };
    if !rules.is_empty() {
        std::fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    }
    let settings = Settings {
        path: Some(folder.path().to_owned()),
        ..Settings::default()
    };
    judge(bencher, "POST started", settings);
}

fn judge(bencher: Bencher<'_, '_>, kind: &str, settings: Settings) {
    let policy = LocalPolicy::load(settings).unwrap();
    let (operation, completion) = operation(kind);
    bencher.bench_local(|| {
        let question = match &completion {
            None => Question::Started(&operation),
            Some(completion) => Question::Completed(&operation, completion),
        };
        let Judging::Now(ruling) = policy.judge(question) else {
            panic!("the embedded policy answers at once");
        };
        ruling.unwrap()
    });
}

fn operation(kind: &str) -> (Operation, Option<Completion>) {
    let (method, stage) = kind.split_once(' ').expect("a method and a stage");
    let completion = (stage == "completed").then(exchange::answer);
    (exchange::request(method, "/items"), completion)
}
