//! The input document, whole.

use std::path::Path;

use super::*;
use crate::policy::local::input::{Builder, Facts};

fn golden(name: &str, question: Question<'_>) {
    let facts = Facts {
        agent_id: Some("agent-7".into()),
        risk_tier: Some(2),
    };
    let document = Builder::new().document(question, &facts, None).unwrap();
    let shown = serde_json::to_string_pretty(&document).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/policy/local/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(shown, expected, "{name}");
}

#[test]
fn the_document_of_a_request_is_the_contracts() {
    let mut operation = operation("POST", "api.openai.com", "/v1/embeddings");
    call(&mut operation).body = Capture {
        state: Captured::Partial,
        ..text("{\"input\":")
    };
    golden("http_started.json", Question::Started(&operation));
}

#[test]
fn the_document_of_an_answer_is_the_contracts() {
    let mut operation = operation("GET", "example.com", "/items");
    operation.context = context(Some(activity("[{\"id\": 1}]")));
    let completion = answered(404, text("not found"));
    golden(
        "http_completed.json",
        Question::Completed(&operation, &completion),
    );
}

#[test]
fn the_document_of_a_request_without_an_answer_is_the_contracts() {
    let operation = operation("GET", "example.com", "/items");
    golden(
        "http_failed.json",
        Question::Completed(&operation, &failed()),
    );
}

#[test]
fn the_document_of_a_statement_is_the_contracts() {
    let completion = done(Answer::Database(DatabaseAnswer { rows: Some(3) }));
    golden(
        "db_completed.json",
        Question::Completed(
            &statement("DELETE", "FROM orders WHERE id = $1"),
            &completion,
        ),
    );
}

#[test]
fn the_document_of_a_file_is_the_contracts() {
    let operation = of(Action::File(FileCall {
        path: "/srv/report.csv".into(),
        mode: Some("r".into()),
        operation: "read".into(),
    }));
    let completion = done(Answer::File(FileAnswer {
        bytes_read: Some(12),
        bytes_written: None,
        lines: Some(1),
    }));
    golden(
        "file_completed.json",
        Question::Completed(&operation, &completion),
    );
}

/// What a hook said stands beside what we make of it, and never over it.
#[test]
fn the_document_of_a_function_is_the_contracts() {
    let mut operation = function(r#"{"args":[5]}"#);
    let attributes = r#"{"tenant": "a", "gen_ai.system": "b"}"#;
    operation.reported = reported("function billing.charge", attributes);
    let completion = done(Answer::Function(FunctionAnswer {
        result: Some(JsonText(r#"{"charged":5}"#.into())),
    }));
    golden(
        "function_completed.json",
        Question::Completed(&operation, &completion),
    );
}

#[test]
fn a_tool_call_is_shown_as_one() {
    let mut operation = operation("POST", "tools.example", "/mcp");
    call(&mut operation).tool = Some(ToolCall {
        name: Some("pay".into()),
    });
    golden("mcp_started.json", Question::Started(&operation));
}

#[test]
fn the_document_of_an_event_is_the_contracts() {
    let fields = vec![
        ("status", JsonText("\"completed\"".into())),
        ("activity_output", JsonText("{\"total\": 1e3}".into())),
    ];
    let event = event(
        EventKind::ActivityCompleted,
        context(Some(activity("[1]"))),
        fields,
    );
    golden("activity_completed.json", Question::Event(&event));
}

#[test]
fn the_document_of_a_signal_is_the_contracts() {
    let fields = vec![
        ("signal_name", JsonText("\"user_input\"".into())),
        ("signal_args", JsonText("[\"buy\"]".into())),
    ];
    let event = event(EventKind::SignalReceived, context(None), fields);
    golden("signal_received.json", Question::Event(&event));
}

#[test]
fn the_input_of_one_activity_is_not_shown_for_another() {
    let mut builder = Builder::new();
    for id in [1, 2, 2, 1] {
        let mut operation = operation("GET", "example.com", "/");
        operation.context = context(Some(activity(&format!("[{id}]"))));
        let question = Question::Started(&operation);
        let document = builder.document(question, &Facts::default(), None).unwrap();
        assert_eq!(document["activity_input"][0].as_u32().unwrap(), id);
    }
}
