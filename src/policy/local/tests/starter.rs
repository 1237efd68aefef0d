//! What the starter policy decides.

use super::*;

#[test]
fn the_starter_policy_decides_as_its_comments_say() {
    let policy = LocalPolicy::load(Settings::default()).unwrap();
    use Verdict::{Allow, Block, Constrain, Halt, RequireApproval};
    let table = [
        ("GET", "example.com", "/", Allow),
        ("HEAD", "example.com", "/", Allow),
        ("OPTIONS", "example.com", "/", Allow),
        ("POST", "api.openai.com", "/v1/chat/completions", Allow),
        ("POST", "api.anthropic.com", "/v1/messages", Allow),
        ("POST", "api.github.com", "/repos", Allow),
        ("DELETE", "api.github.com", "/repos/x", Allow),
        ("POST", "example.com", "/", Constrain),
        ("PUT", "example.com", "/", Constrain),
        ("PATCH", "example.com", "/", Constrain),
        ("DELETE", "example.com", "/items/1", RequireApproval),
        ("DELETE", "api.openai.com", "/v1/files/1", RequireApproval),
        ("PROPFIND", "example.com", "/", RequireApproval),
        ("get", "example.com", "/", RequireApproval),
        ("GET", "169.254.169.254", "/latest/meta-data/", Block),
        ("PUT", "169.254.169.254", "/latest/api/token", Block),
        (
            "GET",
            "metadata.google.internal",
            "/computeMetadata/v1/",
            Block,
        ),
        ("GET", "fd00:ec2::254", "/", Block),
        ("GET", "webhook.site", "/x", Halt),
        ("POST", "a.b.oastify.com", "/", Halt),
        ("GET", "mywebhook.site", "/", Allow),
    ];
    for (method, host, path, expected) in table {
        let operation = operation(method, host, path);
        let ruling = started(&policy, &operation).unwrap();
        assert_eq!(ruling.verdict, expected, "{method} {host}{path}");
        assert_eq!(ruling.policy.as_deref(), Some("data.openbox"));
        if expected != Allow {
            assert!(ruling.reason.is_some(), "{method} {host}{path}");
        }
    }
}

#[test]
fn the_starter_policy_lets_databases_be_read_and_asks_about_what_is_hard_to_undo() {
    let policy = LocalPolicy::load(Settings::default()).unwrap();
    for (class, flags, expected) in [
        ("session", "[]", Verdict::Allow),
        ("read", "[\"for_update\"]", Verdict::Allow),
        ("write", "[]", Verdict::Allow),
        ("write", "[\"no_where\"]", Verdict::RequireApproval),
        ("schema", "[]", Verdict::RequireApproval),
        ("admin", "[]", Verdict::RequireApproval),
        ("admin", "[\"program\"]", Verdict::Block),
        ("admin", "[\"server_file\"]", Verdict::Block),
        ("opaque", "[]", Verdict::RequireApproval),
    ] {
        for host in ["db.internal", "localhost"] {
            let mut operation = statement("SELECT", "1");
            if let Action::Database(call) = &mut operation.action {
                let reading = format!("{{\"class\": \"{class}\", \"flags\": {flags}}}");
                call.reading = Some(JsonText(reading.into()));
                call.server_address = Some(host.into());
            }
            let ruling = started(&policy, &operation).unwrap();
            assert_eq!(ruling.verdict, expected, "{class} {flags} {host}");
        }
    }
}

#[test]
fn an_answer_with_a_private_key_is_blocked_and_others_pass() {
    let policy = LocalPolicy::load(Settings::default()).unwrap();
    let table = [
        ("hello", Verdict::Allow),
        ("", Verdict::Allow),
        ("-----BEGIN CERTIFICATE-----\nMII", Verdict::Allow),
        ("-----BEGIN PRIVATE KEY-----\nMII", Verdict::Block),
        (
            "{\"key\": \"-----BEGIN OPENSSH PRIVATE KEY-----\\nb3\"}",
            Verdict::Block,
        ),
    ];
    for method in ["GET", "POST", "DELETE", "PROPFIND"] {
        let operation = operation(method, "example.com", "/");
        for (body, expected) in table {
            let completion = answered(200, text(body));
            let question = Question::Completed(&operation, &completion);
            let ruling = judge(&policy, question).unwrap();
            assert_eq!(ruling.verdict, expected, "{method} {body}");
        }
        let ruling = judge(&policy, Question::Completed(&operation, &failed())).unwrap();
        assert_eq!(ruling.verdict, Verdict::Allow, "{method} failed");
    }
}

#[test]
fn lifecycle_events_pass_the_starter_policy() {
    let policy = LocalPolicy::load(Settings::default()).unwrap();
    for kind in EventKind::ALL {
        let event = event(kind, context(Some(activity("[]"))), Vec::new());
        let ruling = judge(&policy, Question::Event(&event)).unwrap();
        assert_eq!(ruling.verdict, Verdict::Allow, "{kind:?}");
    }
}

#[test]
fn verdicts_of_the_starter_policy_are_remembered() {
    let policy = LocalPolicy::load(Settings::default()).unwrap();
    assert_eq!(
        policy.reads().unwrap(),
        [
            "Host",
            "Method",
            "SemanticType",
            "ResponseBody contains \"-----BEGIN \"",
            "ResponseBody contains \"PRIVATE KEY-----\"",
            "db_reading.class",
            "db_reading.flags"
        ]
    );
    assert!(policy.describe().contains("verdicts remembered"));
}
