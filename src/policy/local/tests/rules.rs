//! Behaviour rules and guardrails, beside a Rego that allows.

use std::time::Duration;

use super::*;
use crate::domain::{Reason, Reported};
use crate::policy::local::Reloaded;
use crate::policy::{Finding, Guardrails, Side, redaction};

const ALLOW: &str = "package p\nresult := \"ALLOW\"\n";
const LOOK_FIRST: &str = "behaviour:\n  - {name: look first, trigger: http_delete, states: [http_get], \
                          window: 10m, verdict: BLOCK, message: read it before you delete it}\n";

fn patient() -> Settings {
    Settings {
        evaluate_within: Duration::from_secs(30),
        ..Settings::default()
    }
}

fn with_rules(rego: &str, rules: &str) -> LocalPolicy {
    try_load(&[("policy.rego", rego), ("rules.yaml", rules)], patient()).unwrap()
}

fn problems(rules: &str) -> Vec<String> {
    let files = [("policy.rego", ALLOW), ("my_rules.yaml", rules)];
    let error = try_load(&files, patient()).unwrap_err();
    error.problems().to_vec()
}

fn happened(policy: &LocalPolicy, operation: &Operation) {
    let completion = answered(200, Capture::default());
    judge(policy, Question::Completed(operation, &completion)).unwrap();
}

fn delete() -> Operation {
    operation("DELETE", "example.com", "/items/1")
}

fn get() -> Operation {
    operation("GET", "example.com", "/items/1")
}

#[test]
fn a_trigger_without_its_states_fires_and_after_them_it_does_not() {
    let policy = with_rules(ALLOW, LOOK_FIRST);
    let ruling = started(&policy, &delete()).unwrap();
    assert_eq!(ruling.verdict, Verdict::Block);
    assert_eq!(
        ruling.reason,
        Some(Reason::from("read it before you delete it"))
    );
    assert_eq!(
        ruling.policy.as_deref(),
        Some("behaviour rule \"look first\"")
    );
    // Nor does one that only began, or one that failed, count.
    assert_eq!(verdict(&policy, &get()), Verdict::Allow);
    let failed = Completion {
        outcome: Outcome::Failed,
        answer: None,
        ..answered(200, Capture::default())
    };
    judge(&policy, Question::Completed(&get(), &failed)).unwrap();
    assert_eq!(verdict(&policy, &delete()), Verdict::Block);
    happened(&policy, &get());
    assert_eq!(verdict(&policy, &delete()), Verdict::Allow);
}

#[test]
fn what_another_run_did_does_not_count() {
    let policy = with_rules(ALLOW, LOOK_FIRST);
    happened(&policy, &get());
    let mut other = delete();
    other.context = Arc::new(Context {
        run_id: "other".into(),
        ..(*other.context).clone()
    });
    assert_eq!(verdict(&policy, &other), Verdict::Block);
    assert_eq!(verdict(&policy, &delete()), Verdict::Allow);
}

#[tokio::test(start_paused = true)]
async fn what_lies_before_the_window_does_not_count() {
    let policy = with_rules(ALLOW, LOOK_FIRST);
    happened(&policy, &get());
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(verdict(&policy, &delete()), Verdict::Allow);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(verdict(&policy, &delete()), Verdict::Block);
}

#[test]
fn the_first_rule_by_priority_decides_and_the_strictest_of_it_and_the_rego_wins() {
    let rules = "behaviour:\n\
        - {name: low, priority: 1, trigger: http_delete, states: [file_read], window: 60, verdict: 4}\n\
        - {name: high, priority: 90, trigger: http_delete, states: [http_get], window: 60, verdict: 2, approval_timeout: 5m}\n";
    let say = |word: &str| format!("package p\nresult := \"{word}\"\n");
    #[rustfmt::skip]
    let table = [
        // Rego      verdict                   whose
        ("ALLOW",     Verdict::RequireApproval, "behaviour rule \"high\""),
        ("CONSTRAIN", Verdict::RequireApproval, "behaviour rule \"high\""),
        ("BLOCK",     Verdict::Block,           "data.p"),
        ("HALT",      Verdict::Halt,            "data.p"),
    ];
    for (word, expected, whose) in table {
        let ruling = started(&with_rules(&say(word), rules), &delete()).unwrap();
        assert_eq!(
            (ruling.verdict, ruling.policy.as_deref()),
            (expected, Some(whose)),
            "{word}"
        );
        let asked = expected == Verdict::RequireApproval;
        assert_eq!(ruling.approval.is_some(), asked, "{word}");
    }
}

#[test]
fn every_problem_of_the_rules_is_told_with_its_place() {
    let told = problems(
        "behaviour:\n\
         - {name: a, trigger: http_remove, states: [], window: soon, verdict: MAYBE}\n\
         - {name: b, trigger: http_get, states: [http_get], window: 5m, verdict: 2, priority: 101, oops: 1}\n\
         guardrails:\n\
         - {name: c, type: toxicity, stage: input, action: block, activities: [{activity_type: x}]}\n\
         - {name: d, type: regex, pattern: '(', stage: before, action: redact}\n\
         - {name: e, type: pii, entities: [SHOE_SIZE], stage: output, action: block, activities: [{activity_type: x, fields_to_check: [input.x]}]}\n\
         - {name: f, type: regex, pattern: 'a*', stage: input, action: block, operations: [telepathy]}\n",
    );
    let expected = [
        "behaviour[0].trigger: \"http_remove\" is no semantic type",
        "behaviour[0].states: nothing stands here",
        "behaviour[0].window: \"soon\" is not a duration from 1s to 24h",
        "behaviour[0].verdict: \"MAYBE\" is not ALLOW",
        "behaviour[1]: there is no key \"oops\"",
        "behaviour[1].priority: 101 is not a whole number from 1 to 100",
        "behaviour[1].approval_timeout: nothing stands here",
        "guardrails[0].type: \"toxicity\" needs a service",
        "guardrails[1].pattern: it cannot be used",
        "guardrails[1].stage: \"before\" is neither",
        "guardrails[1].activities: nothing stands here",
        "guardrails[2].entities: \"SHOE_SIZE\" cannot be recognised",
        "guardrails[2].activities[0].fields_to_check: \"input.x\" is no path of this stage",
        "guardrails[3].pattern: it matches the empty text",
        "guardrails[3].operations: \"telepathy\" is no family",
    ];
    for words in expected {
        let found = told.iter().find(|problem| problem.contains(words));
        let found = found.unwrap_or_else(|| panic!("{words}\nnot in\n{}", told.join("\n")));
        assert!(
            found.contains("my_rules.yaml: ") && found.contains("expected"),
            "{found}"
        );
    }
    assert_eq!(told.len(), expected.len(), "{}", told.join("\n"));
    assert!(problems("behaviour: [").concat().contains("my_rules.yaml"));
}

#[test]
fn rules_are_reloaded_with_the_last_good_ones_and_the_past_kept() {
    let folder = tempfile::tempdir().unwrap();
    let rego = folder.path().join("my.rego");
    let rules = folder.path().join("my_rules.yaml");
    std::fs::write(&rego, ALLOW).unwrap();
    let policy = LocalPolicy::load(Settings {
        path: Some(rego),
        ..patient()
    })
    .unwrap();
    assert_eq!(verdict(&policy, &delete()), Verdict::Allow);
    std::fs::write(&rules, LOOK_FIRST).unwrap();
    assert_eq!(policy.reload(), Ok(Reloaded::Changed { generation: 2 }));
    assert_eq!(verdict(&policy, &delete()), Verdict::Block);
    happened(&policy, &get());
    std::fs::write(&rules, "behaviour: 7").unwrap();
    assert!(
        policy
            .reload()
            .unwrap_err()
            .to_string()
            .contains("behaviour")
    );
    let changed = LOOK_FIRST.replace("look first", "look");
    std::fs::write(&rules, changed).unwrap();
    assert_eq!(policy.reload(), Ok(Reloaded::Changed { generation: 3 }));
    assert_eq!(verdict(&policy, &delete()), Verdict::Allow);
    assert!(
        policy
            .describe()
            .contains("1 behaviour rules, 0 guardrails")
    );
}

#[test]
fn the_past_is_bounded() {
    let policy = with_rules(ALLOW, LOOK_FIRST);
    for run in 0..11_000 {
        let mut seen = get();
        seen.context = Arc::new(Context {
            run_id: run.to_string().into(),
            ..(*seen.context).clone()
        });
        happened(&policy, &seen);
    }
    assert!(policy.history.runs() <= 10_000, "{}", policy.history.runs());
}

/// `ActivityStarted` or `ActivityCompleted` of `send_email`.
fn event(kind: EventKind, json: &str) -> Event {
    let output = kind == EventKind::ActivityCompleted;
    Event {
        id: OperationId::new(1, 1),
        kind,
        context: context(Some(ActivityRef {
            kind: "send_email".into(),
            ..activity(if output { "[]" } else { json })
        })),
        at: Timestamp(1),
        fields: output
            .then(|| ("activity_output", JsonText(json.into())))
            .into_iter()
            .collect(),
    }
}

fn rail(kind: &str, stage: &str, action: &str, fields: &str) -> String {
    format!(
        "guardrails:\n  - {{name: g, {kind}, stage: {stage}, action: {action}, \
         activities: [{{activity_type: send_email, fields_to_check: [{fields}]}}]}}\n"
    )
}

#[test]
fn a_redaction_replaces_what_is_at_the_named_places_and_nothing_else() {
    use EventKind::{ActivityCompleted, ActivityStarted};
    const CARD: &str = "4111 1111 1111 1111";
    #[rustfmt::skip]
    let table = [
        // type                                  stage     fields              event             given                                            found
        ("type: pii",                            "input",  "",                 ActivityStarted,  format!(r#"[{{"a":"{CARD}","b":7}}]"#),          r#"[{"a":"<CREDIT_CARD>","b":7}]"#),
        ("type: pii",                            "input",  "input.a",          ActivityStarted,  format!(r#"[{{"a":"{CARD}","b":"{CARD}"}}]"#),   r#"[{"a":"<CREDIT_CARD>","b":"4111 1111 1111 1111"}]"#),
        ("type: pii",                            "input",  "input.*.to.*",     ActivityStarted,  r#"[{"to":["a@b.com","x"]}]"#.to_owned(),       r#"[{"to":["<EMAIL_ADDRESS>","x"]}]"#),
        ("type: pii",                            "input",  "input.1",          ActivityStarted,  r#"["a@b.com","c@d.com"]"#.to_owned(),          r#"["a@b.com","<EMAIL_ADDRESS>"]"#),
        ("type: pii",                            "input",  "input",            ActivityStarted,  "[4111111111111111]".to_owned(),                r#"["<CREDIT_CARD>"]"#),
        ("type: pii",                            "output", "output.text",      ActivityCompleted, r#"{"text":"mail a@b.com or c@d.com!"}"#.to_owned(), r#"{"text":"mail <EMAIL_ADDRESS> or <EMAIL_ADDRESS>!"}"#),
        ("type: pii, entities: [PHONE_NUMBER]",  "output", "",                 ActivityCompleted, r#""a@b.com +49 30 901820""#.to_owned(),        r#""a@b.com <PHONE_NUMBER>""#),
        ("type: ban_words, words: [secret]",     "output", "",                 ActivityCompleted, r#""SECRET, not secretary""#.to_owned(),        r#""<BANNED_WORD>, not secretary""#),
        ("type: regex, pattern: 'AKIA[A-Z]{4}'", "output", "",                 ActivityCompleted, r#""key AKIAABCD.""#.to_owned(),                r#""key <REDACTED>.""#),
    ];
    for (kind, stage, fields, what, given, expected) in table {
        let policy = with_rules(ALLOW, &rail(kind, stage, "redact", fields));
        let event = event(what, &given);
        let ruling = judge(&policy, Question::Event(&event)).unwrap();
        let found = ruling.redacted.as_ref().map(|json| &*json.0);
        assert_eq!(
            (ruling.verdict, found),
            (Verdict::Allow, Some(expected)),
            "{kind} {fields}: {given}"
        );
        let guardrails = ruling.guardrails.as_ref().unwrap();
        assert!(guardrails.passed && !guardrails.findings.is_empty());
        let said = format!("{guardrails:?}");
        assert!(!said.contains("4111") && !said.contains("@"), "{said}");
    }
}

#[test]
fn what_a_guardrail_blocks_is_blocked_under_what_policy_itself_refuses() {
    let rules = rail("type: ban_words, words: [secret]", "input", "block", "");
    let event = event(EventKind::ActivityStarted, r#"[{"body":"a secret"}]"#);
    #[rustfmt::skip]
    let table = [
        ("ALLOW",            Verdict::Block, true),
        ("CONSTRAIN",        Verdict::Block, true),
        ("REQUIRE_APPROVAL", Verdict::Block, true),
        ("BLOCK",            Verdict::Block, false),
        ("HALT",             Verdict::Halt,  false),
    ];
    for (word, expected, by_guardrail) in table {
        let policy = with_rules(&format!("package p\nresult := \"{word}\"\n"), &rules);
        let ruling = judge(&policy, Question::Event(&event)).unwrap();
        assert_eq!(ruling.verdict, expected, "{word}");
        let found = by_guardrail.then(|| Guardrails {
            side: Side::Input,
            passed: false,
            findings: vec![Finding {
                kind: "ban_words".into(),
                field: "input.0.body".into(),
                reason: "g: a banned word in input.0.body".into(),
            }],
        });
        assert_eq!(ruling.guardrails.as_deref(), found.as_ref(), "{word}");
        assert_eq!(ruling.redacted, None, "{word}");
    }
    let mut other = event;
    other.kind = EventKind::ActivityCompleted;
    let policy = with_rules(ALLOW, &rules);
    let ruling = judge(&policy, Question::Event(&other)).unwrap();
    assert_eq!(
        (ruling.verdict, &ruling.guardrails),
        (Verdict::Allow, &None)
    );
}

#[test]
fn what_an_operation_carries_is_checked_and_never_let_through_unchecked() {
    let rules = |action: &str| {
        format!(
            "guardrails:\n- {{name: g, type: pii, entities: [EMAIL_ADDRESS], stage: input, action: {action}, \
             operations: [http_request, db_query]}}\n"
        )
    };
    let post = |body: Capture| {
        let mut post = operation("POST", "example.com", "/");
        call(&mut post).body = body;
        post
    };
    let partial = Capture {
        state: Captured::Partial,
        ..text("the beginning")
    };
    let policy = with_rules(ALLOW, &rules("block"));
    assert_eq!(verdict(&policy, &get()), Verdict::Allow);
    assert_eq!(verdict(&policy, &post(text("hello"))), Verdict::Allow);
    assert_eq!(verdict(&policy, &post(text("to a@b.com"))), Verdict::Block);
    // An escape hides nothing.
    let escaped = post(text(r#"{"to":"a\u0040b.com"}"#));
    assert_eq!(verdict(&policy, &escaped), Verdict::Block);
    let insert = statement("INSERT", "INTO t VALUES ('a@b.com')");
    assert_eq!(verdict(&policy, &insert), Verdict::Block);
    let unread = why_not(started(&policy, &post(partial)));
    assert!(unread.contains("not read whole"), "{unread}");
    let redacting = with_rules(ALLOW, &rules("redact"));
    // Nobody can put another statement in the place of one.
    let ruling = started(&redacting, &insert).unwrap();
    assert_eq!((ruling.verdict, &ruling.redacted), (Verdict::Block, &None));
    let reason = ruling.reason.as_ref().unwrap().to_string();
    assert!(reason.contains("cannot be replaced on its way"), "{reason}");
    // Nor another body in the place of one that a hook tells of, or that is not its text.
    let mut told = post(text("to a@b.com"));
    told.reported = Some(Box::new(Reported {
        name: "POST".into(),
        kind: "CLIENT".into(),
        attributes: JsonText("{}".into()),
        envelope: Vec::new(),
    }));
    let mangled = post(Capture {
        digest: Some([7; 32]),
        ..text("to a@b.com \u{fffd}")
    });
    for operation in [told, mangled] {
        assert_eq!(verdict(&redacting, &operation), Verdict::Block);
    }
}

#[test]
fn a_body_is_redacted_value_by_value_or_not_at_all() {
    let rules = "guardrails:\n\
        - {name: a, type: pii, entities: [EMAIL_ADDRESS], stage: input, action: redact, operations: [http_request]}\n\
        - {name: b, type: regex, pattern: 'pin [0-9]+', stage: input, action: redact, operations: [http_request]}\n";
    let policy = with_rules(ALLOW, rules);
    #[rustfmt::skip]
    let table = [
        // body                                     sent in its place
        ("to a@b.com, pin 12",                      Some("to <EMAIL_ADDRESS>, <REDACTED>")),
        (r#"{"x" :"a\u0040b.com","y":[1.0,"pin 7"]}"#, Some(r#"{"x" :"<EMAIL_ADDRESS>","y":[1.0,"<REDACTED>"]}"#)),
        (r#"{"x":"a@b.com","x":"c@d.com"}"#,         Some(r#"{"x":"<EMAIL_ADDRESS>","x":"<EMAIL_ADDRESS>"}"#)),
        (r#""a@b.com""#,                             Some(r#""<EMAIL_ADDRESS>""#)),
        (r#"{"a@b.com":"c@d.com"}"#,                 None),
        (r#"{"x":"a\u0040b.com","x":"y"}"#,          Some(r#"{"x":"<EMAIL_ADDRESS>","x":"y"}"#)),
        (r#"{"n":1e999,"x":"a\u0040b.com"}"#,        Some(r#"{"n":1e999,"x":"<EMAIL_ADDRESS>"}"#)),
        // No JSON to this parser, and to others it may be.
        ("{\"x\":\"a\\u0040b.com\"}\n{}",            None),
        ("\u{feff}{\"x\":\"a\\u0040b.com\"}",       None),
        (r#"{"y":"\ud800","x":"a\u0040b.com"}"#,    Some(r#"{"y":"\ud800","x":"<EMAIL_ADDRESS>"}"#)),
    ];
    for (body, expected) in table {
        let mut post = operation("POST", "example.com", "/");
        call(&mut post).body = text(body);
        let ruling = started(&policy, &post).unwrap();
        let found = ruling
            .redacted
            .as_ref()
            .and_then(|json| redaction::body(json, Side::Input));
        assert_eq!(found.as_deref(), expected, "{body}");
        let verdict = if expected.is_some() {
            Verdict::Allow
        } else {
            Verdict::Block
        };
        assert_eq!(ruling.verdict, verdict, "{body}");
    }
    // UTF-16 reads as text with zeros in it.
    let mut post = operation("POST", "example.com", "/");
    call(&mut post).body = text("{\0\"\0x\0\"\0:\0\"\0a\0@\0");
    let unread = why_not(started(&policy, &post));
    assert!(unread.contains("not text"), "{unread}");
}

#[test]
fn what_is_too_much_to_check_cannot_be_judged() {
    let policy = with_rules(ALLOW, &rail("type: pii", "input", "block", ""));
    #[rustfmt::skip]
    let table = [
        (format!("[\"{}\"]", "a ".repeat(600_000)), "bytes to check"),
        (format!("[{}0]", "0,".repeat(10_000)),     "values to check"),
    ];
    for (input, why) in table {
        let event = event(EventKind::ActivityStarted, &input);
        let told = why_not(judge(&policy, Question::Event(&event)));
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_search_that_takes_too_long_cannot_be_judged() {
    // Each match of `x` looks to the end for a `y` that is not there.
    let rules = rail("type: regex, pattern: '[a-z]*y|x'", "input", "redact", "");
    let settings = Settings {
        evaluate_within: Duration::from_millis(50),
        ..Settings::default()
    };
    let files = [("policy.rego", ALLOW), ("rules.yaml", &*rules)];
    let policy = try_load(&files, settings).unwrap();
    let input = format!("[\"{}\"]", "x".repeat(900_000));
    let event = event(EventKind::ActivityStarted, &input);
    let began = tokio::time::Instant::now();
    let told = why_not(judge(&policy, Question::Event(&event)));
    assert!(told.contains("longer than"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(20));
}
