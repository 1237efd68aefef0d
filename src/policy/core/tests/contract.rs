//! Everything that the SDKs were seen to tell (`tests/golden/contract/told`, one
//! request a line) is taken, and told on to Core with nothing lost.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::domain::{Completion, Event, EventKind, Outcome, Stage};
use crate::policy::core::told::{Hook, Told, ToldRun, What, told};
use crate::policy::core::wire;

/// What Core keeps of an event (contract §2.1), and what is not made anew.
const KEPT: [&str; 23] = [
    "source",
    "event_type",
    "workflow_id",
    "run_id",
    "workflow_type",
    "parent_workflow_id",
    "status",
    "activity_id",
    "activity_type",
    "attempt",
    "activity_input",
    "activity_output",
    "signal_name",
    "signal_args",
    "start_time",
    "end_time",
    "duration_ms",
    "span_count",
    "hook_trigger",
    "metadata",
    "multi_agent_session_id",
    "from_agent_did",
    "workflow_output",
];

/// What a span says of the operation, by family; and what all spans say.
const SPAN: [(&str, &[&str]); 5] = [
    (
        "",
        &[
            "span_id",
            "trace_id",
            "parent_span_id",
            "stage",
            "name",
            "kind",
            "hook_type",
        ],
    ),
    ("http_request", &["http_status_code"]),
    (
        "db_query",
        &[
            "db_system",
            "db_name",
            "db_operation",
            "db_statement",
            "rowcount",
        ],
    ),
    (
        "file_operation",
        &[
            "file_path",
            "file_mode",
            "file_operation",
            "bytes_read",
            "bytes_written",
            "lines_count",
        ],
    ),
    ("function_call", &["function", "module", "args", "result"]),
];

/// Every captured request of `sdk`: the scenario, and the body.
fn requests(sdk: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/contract/told")
        .join(sdk);
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        all.extend(text.lines().map(|line| (name.clone(), line.to_owned())));
    }
    all
}

fn context_of(told: &Told) -> Arc<Context> {
    let run = told.run.clone().unwrap_or_else(|| ToldRun {
        workflow_id: "own".into(),
        run_id: "own".into(),
    });
    Arc::new(Context {
        workflow_id: run.workflow_id,
        run_id: run.run_id,
        workflow_type: told.workflow_type.clone().unwrap_or_default(),
        task_queue: told.task_queue.clone().unwrap_or_default(),
        activity: told.activity.as_ref().map(|named| ActivityRef {
            id: named.id.clone(),
            kind: named.kind.clone().unwrap_or_default(),
            attempt: named.attempt,
            input: named.input.clone(),
        }),
    })
}

fn told_on(told: Told) -> Value {
    serde_json::from_slice(&written_on(told)).unwrap()
}

fn written_on(told: Told) -> Vec<u8> {
    let context = context_of(&told);
    match told.what {
        What::Lifecycle(kind, fields) => wire::event(&Event {
            id: OperationId::new(0, 0),
            kind,
            context,
            at: Timestamp(0),
            fields,
        }),
        What::Hook(hook) => operation_of(context, *hook),
    }
}

fn operation_of(context: Arc<Context>, hook: Hook) -> Vec<u8> {
    let operation = Operation {
        id: OperationId::new(0, 0),
        trace: hook.trace,
        span: hook.span,
        parent: hook.parent,
        started_at: hook.started_at.unwrap(),
        context,
        attribution: Attribution::Headers,
        fingerprint: None,
        action: hook.action,
        reported: Some(Box::new(hook.reported)),
    };
    let completion = (hook.stage == Stage::Completed).then(|| Completion {
        ended_at: hook.ended_at.unwrap(),
        outcome: Outcome::Answered,
        answer: hook.answer,
        error: hook.error,
    });
    wire::operation(&operation, completion.as_ref())
}

/// Whether `to` says what `from` said. A number may be written otherwise.
fn is_kept(from: &Value, to: &Value) -> bool {
    match (from.as_f64(), to.as_f64()) {
        (Some(from), Some(to)) => from == to,
        _ => from == to,
    }
}

#[test]
fn everything_that_sdks_tell_is_told_on_and_nothing_of_it_is_lost() {
    let (mut kinds, mut hooks) = (BTreeSet::new(), BTreeSet::new());
    for sdk in ["base-1.4.0", "temporal-1.1.0"] {
        for (scenario, line) in requests(sdk) {
            let row = format!("{sdk}/{scenario}: {line:.300}");
            let given: Value = serde_json::from_str(&line).unwrap();
            let read = told(line.as_bytes()).unwrap_or_else(|why| panic!("{row}: {why:?}"));
            let written = told_on(read);
            for name in KEPT {
                // `result` is the older word for the output.
                if !given[name].is_null() {
                    assert!(
                        is_kept(&given[name], &written[name]),
                        "{name} of {row}\n{written}"
                    );
                }
            }
            if given["hook_trigger"] != true {
                let kind = given["event_type"].as_str().unwrap();
                kinds.insert(kind.to_owned());
                continue;
            }
            let (from, to) = (
                &given["spans"][0],
                &published::span(written.to_string().as_bytes()),
            );
            let family = from["hook_type"].as_str().unwrap();
            hooks.insert(format!("{family} {}", from["stage"].as_str().unwrap()));
            for (of, names) in SPAN {
                for name in names.iter().filter(|_| of.is_empty() || of == family) {
                    // Where an SDK knows no verb, the statement's own is told.
                    if !from[*name].is_null() && from[*name] != "UNKNOWN" {
                        assert!(is_kept(&from[*name], &to[*name]), "{name} of {row}\n{to}");
                    }
                }
            }
        }
    }
    assert_eq!(kinds.len(), EventKind::ALL.len(), "{kinds:?}");
    assert_eq!(hooks.len(), 8, "four families at two stages: {hooks:?}");
}

/// Between agents: it names no run, and must not be given one on its way.
#[test]
fn a_handoff_is_told_on_field_for_field() {
    let requests = requests("base-1.4.0");
    let handoffs: Vec<_> = requests
        .iter()
        .filter(|(_, line)| line.contains("\"Handoff\""))
        .collect();
    assert_eq!(handoffs.len(), 1);
    for (_, line) in handoffs {
        let given: Value = serde_json::from_str(line).unwrap();
        let at = given["timestamp"].as_str().unwrap();
        let expected = line.replace(at, "1970-01-01T00:00:00.000Z");
        let read = told(line.as_bytes()).unwrap();
        assert!(read.run.is_none());
        assert_eq!(String::from_utf8(written_on(read)).unwrap(), expected);
        // With a run, it counts for that; what Core is told is the same.
        let inside = line.replacen('{', r#"{"workflow_id":"w","run_id":"r","#, 1);
        let read = told(inside.as_bytes()).unwrap();
        assert_eq!(&*read.run.as_ref().unwrap().run_id, "r");
        assert_eq!(String::from_utf8(written_on(read)).unwrap(), expected);
        for name in ["from_agent_did", "multi_agent_session_id"] {
            for bad in [Value::Null, Value::from(""), Value::from(7)] {
                let mut lacks = given.clone();
                lacks[name] = bad.clone();
                let why = told(lacks.to_string().as_bytes()).unwrap_err();
                assert!(why.message.contains(name), "{bad}: {why:?}");
            }
        }
    }
}
