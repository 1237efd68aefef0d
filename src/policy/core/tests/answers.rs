//! What Core's answers mean.

use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::domain::{ApprovalId, Reason, Verdict};
use crate::policy::core::{Answered, StartError, answer, approvals};
use crate::policy::{Approval, ApprovalState, Finding, Guardrails, PolicyError, Ruling, Side};

fn answered(status: u16, body: impl Into<Vec<u8>>) -> Answered {
    Answered {
        status: StatusCode::from_u16(status).unwrap(),
        body: body.into(),
        retry_after: None,
    }
}

fn judged(status: u16, body: &str) -> Result<Ruling, PolicyError> {
    answer::ruling(&answered(status, body), None)
}

/// `allow`, or `unavailable: …`, or `unjudgeable: …`.
fn shown(judged: &Result<Ruling, PolicyError>) -> String {
    match judged {
        Ok(ruling) => match &ruling.reason {
            Some(reason) => format!("{}: {reason}", ruling.verdict),
            None => ruling.verdict.to_string(),
        },
        Err(PolicyError::Unavailable(reason)) => format!("unavailable: {reason}"),
        Err(PolicyError::Unjudgeable(reason)) => format!("unjudgeable: {reason}"),
    }
}

#[test]
fn answers_mean_what_the_contract_says() {
    let table = [
        // 1.1, 1.0, both
        (r#"{"verdict":"allow"}"#, "allow"),
        (r#"{"verdict":"ALLOW"}"#, "allow"),
        (
            r#"{"verdict":"constrain","constraints":["run_in_sandbox"]}"#,
            "constrain",
        ),
        (r#"{"verdict":"require_approval"}"#, "require_approval"),
        (r#"{"verdict":"request-approval"}"#, "require_approval"),
        (r#"{"verdict":"block","reason":"no"}"#, "block: no"),
        (
            r#"{"verdict":"block","reason":null,"behavioral_violations":["a","b"]}"#,
            "block: violates a; b",
        ),
        (r#"{"verdict":"halt"}"#, "halt"),
        (r#"{"action":"continue"}"#, "allow"),
        (r#"{"action":"stop"}"#, "halt"),
        (
            r#"{"action":"require-approval","verdict":null}"#,
            "require_approval",
        ),
        (r#"{"verdict":"allow","action":"continue"}"#, "allow"),
        (r#"{"verdict":"halt","action":"STOP"}"#, "halt"),
        (
            r#" {"verdict":"require_approval","action":"require-approval"} "#,
            "require_approval",
        ),
        (
            r#"{"verdict":"block","patch":{"new_input":{"a":1}}}"#,
            "block",
        ),
        // no answer is an answer
        (
            r#"{}"#,
            "unjudgeable: the answer of OpenBox Core names no verdict",
        ),
        (
            r#"{"verdict":null,"action":null}"#,
            "unjudgeable: the answer of OpenBox Core names no verdict",
        ),
        (
            r#"{"verdict":"weird"}"#,
            r#"unjudgeable: the answer of OpenBox Core uses an unknown word for its verdict: "weird""#,
        ),
        (
            r#"{"verdict":"","action":"allow"}"#,
            r#"unjudgeable: the answer of OpenBox Core uses an unknown word for its verdict: """#,
        ),
        (
            r#"{"verdict":"allow","action":"go"}"#,
            r#"unjudgeable: the answer of OpenBox Core uses an unknown word for its action: "go""#,
        ),
        (
            r#"{"verdict":"allow","action":"block"}"#,
            "unjudgeable: the answer of OpenBox Core contradicts itself: verdict allow, action block",
        ),
        (
            r#"{"verdict":"block","action":"continue"}"#,
            "unjudgeable: the answer of OpenBox Core contradicts itself: verdict block, action allow",
        ),
        (
            r#"{"verdict":true}"#,
            "unjudgeable: the answer of OpenBox Core has a verdict that is not a string",
        ),
        (
            r#"{"verdict":0,"action":"allow"}"#,
            "unjudgeable: the answer of OpenBox Core has a verdict that is not a string",
        ),
        (
            r#"{"verdict":["allow"]}"#,
            "unjudgeable: the answer of OpenBox Core has a verdict that is not a string",
        ),
        (
            r#"["allow","allow"]"#,
            "unjudgeable: the answer of OpenBox Core cannot be read (not a JSON object)",
        ),
        (
            r#""allow""#,
            "unjudgeable: the answer of OpenBox Core cannot be read (not a JSON object)",
        ),
        (
            "",
            "unjudgeable: the answer of OpenBox Core cannot be read (not a JSON object)",
        ),
        (
            "<html>allow</html>",
            "unjudgeable: the answer of OpenBox Core cannot be read (not a JSON object)",
        ),
        (
            r#"{"verdict":"block","verdict":"allow"}"#,
            "unjudgeable: the answer of OpenBox Core cannot be read (duplicate field `verdict` at line 1 column 28)",
        ),
        // guardrails stand between BLOCK and REQUIRE_APPROVAL
        (
            r#"{"verdict":"allow","guardrails_result":{"validation_passed":true}}"#,
            "allow",
        ),
        (r#"{"verdict":"allow","guardrails_result":{}}"#, "allow"),
        (r#"{"verdict":"allow","guardrails_result":null}"#, "allow"),
        (
            r#"{"verdict":"allow","guardrails_result":{"validation_passed":false,"reasons":[{"type":"pii","reason":"r"},{"reason":"s"}]}}"#,
            "block: r; s",
        ),
        (
            r#"{"verdict":"allow","guardrails":{"validation_passed":false}}"#,
            "block: Guardrails validation failed",
        ),
        (
            r#"{"verdict":"allow","guardrails_result":{"validation_passed":false,"input_type":"activity_output","reasons":7}}"#,
            "block: Guardrails output validation failed",
        ),
        (
            r#"{"verdict":"require_approval","guardrails_result":{"validation_passed":false}}"#,
            "block: Guardrails validation failed",
        ),
        (
            r#"{"verdict":"constrain","guardrails_result":{"validation_passed":false}}"#,
            "block: Guardrails validation failed",
        ),
        (
            r#"{"verdict":"halt","reason":"h","guardrails_result":{"validation_passed":false}}"#,
            "halt: h",
        ),
        (
            r#"{"verdict":"block","reason":"b","guardrails_result":{"validation_passed":"?"}}"#,
            "block: b",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(shown(&judged(200, body)), expected, "{body}");
    }
    for body in [
        r#"{"verdict":"allow","guardrails_result":{"validation_passed":null}}"#,
        r#"{"verdict":"allow","guardrails_result":{"validation_passed":"false"}}"#,
        r#"{"verdict":"allow","guardrails_result":[true]}"#,
        r#"{"verdict":"allow","guardrails_result":false}"#,
        r#"{"verdict":"allow","guardrails_result":{},"guardrails":{}}"#,
    ] {
        assert!(
            matches!(judged(200, body), Err(PolicyError::Unjudgeable(_))),
            "{body}"
        );
    }
}

#[test]
fn statuses_mean_what_the_design_says() {
    let allow = r#"{"verdict":"allow"}"#;
    // status, body, what it is
    let table = [
        (201, allow, "unjudgeable: OpenBox Core answered HTTP 201"),
        (204, "", "unjudgeable: OpenBox Core answered HTTP 204"),
        (302, allow, "unjudgeable: OpenBox Core answered HTTP 302"),
        (400, "{}", "unjudgeable: OpenBox Core answered HTTP 400"),
        (
            401,
            r#"{"reason_code":"invalid_api_key"}"#,
            "unjudgeable: OpenBox Core answered HTTP 401, invalid_api_key: it does not accept our API key; check OPENBOX_API_KEY",
        ),
        (
            403,
            r#"{"code":"did_agent_mismatch"}"#,
            "unjudgeable: OpenBox Core answered HTTP 403, did_agent_mismatch: the DID is of another agent than the API key; check OPENBOX_AGENT_DID and OPENBOX_API_KEY",
        ),
        (404, allow, "unjudgeable: OpenBox Core answered HTTP 404"),
        (408, allow, "unjudgeable: OpenBox Core answered HTTP 408"),
        (
            413,
            allow,
            "unjudgeable: OpenBox Core answered HTTP 413: this is too large to evaluate",
        ),
        (429, allow, "unavailable: OpenBox Core answered HTTP 429"),
        (
            500,
            r#"{"code":500,"message":"context deadline exceeded"}"#,
            "unavailable: OpenBox Core answered HTTP 500, context deadline exceeded",
        ),
        (
            500,
            r#"{"code":500,"message":"Blob size exceeds limit."}"#,
            "unjudgeable: OpenBox Core answered HTTP 500, Blob size exceeds limit.: this is too large to evaluate",
        ),
        (503, "no", "unavailable: OpenBox Core answered HTTP 503"),
    ];
    for (status, body, expected) in table {
        assert_eq!(shown(&judged(status, body)), expected);
    }
}

#[test]
fn of_many_rules_that_core_names_a_hundred_are_kept() {
    let rules: Vec<String> = (0..101).map(|n| format!("rule {n}")).collect();
    let said = serde_json::json!({"verdict": "block", "behavioral_violations": rules});
    let ruling = judged(200, &said.to_string()).unwrap();
    assert_eq!(ruling.violations.len(), 100);
    assert_eq!(&*ruling.violations[99], "rule 99");
}

#[test]
fn what_comes_with_a_verdict_is_kept() {
    let ruling = judged(
        200,
        r#"{"governance_event_id":"e-1","verdict":"require_approval","reason":"ask\nfirst","policy_id":"p-1",
            "approval_id":"a-1","approval_expiration_time":"2026-01-01 12:00:00+00","constraints":["x",{"rows":5}]}"#,
    )
    .unwrap();
    let expected = Ruling {
        reason: Some(Reason::from("ask first")),
        policy: Some("p-1".into()),
        event_id: Some("e-1".into()),
        constraints: vec!["x".into(), r#"{"rows":5}"#.into()],
        approval: Some(Approval {
            id: Some(ApprovalId("a-1".into())),
            expires_at: Some(Timestamp(1_767_268_800_000_000_000)),
        }),
        ..Ruling::new(Verdict::RequireApproval, 0)
    };
    assert_eq!(ruling, expected);
    let bare = judged(
        200,
        r#"{"verdict":"require_approval","approval_id":7,"approval_expiration_time":"soon"}"#,
    );
    let approval = Approval {
        id: None,
        expires_at: None,
    };
    assert_eq!(bare.unwrap().approval, Some(approval));
    assert_eq!(
        judged(200, r#"{"verdict":"allow","approval_id":"a"}"#)
            .unwrap()
            .approval,
        None
    );
}

#[test]
fn a_patch_comes_with_a_block_and_is_one_new_input() {
    let of = |verdict: &str, patch: &str| {
        let body =
            format!(r#"{{"verdict":"{verdict}","patch":{patch},"age_result":{{"allowed":true}}}}"#);
        let ruling = judged(200, &body).unwrap();
        assert_eq!(ruling.age, Some(JsonText(r#"{"allowed":true}"#.into())));
        ruling.patch.map(|patch| patch.0.to_string())
    };
    for input in ["null", "\"x\"", "[1]", "{}", "1.5", "9007199254740991"] {
        let patch = format!("{{\"new_input\":{input}}}");
        assert_eq!(of("block", &patch), Some(patch.clone()));
        for other in ["allow", "constrain", "require_approval", "halt"] {
            assert_eq!(of(other, &patch), None, "{other}");
        }
    }
    for no_patch in [
        r#"{"new_input":true}"#,
        r#"{"new_input":9007199254740993}"#,
        r#"{"new_input":1,"x":1}"#,
        r#"{"other":1}"#,
        "{}",
        "[]",
        "null",
        "7",
    ] {
        assert_eq!(of("block", no_patch), None, "{no_patch}");
    }
}

#[test]
fn what_guardrails_found_is_kept_with_its_side_and_place() {
    let ruling = judged(
        200,
        r#"{"verdict":"allow","guardrails_result":{"input_type":"activity_output","validation_passed":false,
            "reasons":[{"type":"pii","field":"output.card","reason":"a card"},{"reason":"rude"},7]}}"#,
    )
    .unwrap();
    let finding = |kind: &str, field: &str, reason: &str| Finding {
        kind: kind.into(),
        field: field.into(),
        reason: reason.into(),
    };
    let expected = Guardrails {
        side: Side::Output,
        passed: false,
        findings: vec![
            finding("pii", "output.card", "a card"),
            finding("", "", "rude"),
        ],
    };
    assert_eq!(ruling.guardrails.as_deref(), Some(&expected));
    assert_eq!(ruling.verdict, Verdict::Block);
}

#[test]
fn a_replacement_is_kept_unless_it_replaces_nothing() {
    // input, replacement, what it is about, kept
    let table = [
        (Some("[1]"), "[2]", "activity_input", true),
        (Some("[1]"), "[1]", "activity_input", false),
        (
            Some(r#"[{"a": 1, "b": 2}]"#),
            r#"{"b":2,"a":1}"#,
            "activity_input",
            false,
        ),
        (Some("[1]"), "[1]", "activity_output", true),
        (Some("[]"), "{}", "activity_input", true),
        (None, "[1.0]", "activity_input", true),
        (Some("[1]"), "null", "activity_input", false),
    ];
    for (input, replacement, about, kept) in table {
        let body = format!(
            r#"{{"verdict":"allow","guardrails_result":{{"input_type":"{about}","redacted_input":{replacement}}}}}"#
        );
        let input = input.map(|input| JsonText(input.into()));
        let ruling = answer::ruling(&answered(200, body), input.as_ref()).unwrap();
        let expected = kept.then(|| JsonText(replacement.into()));
        assert_eq!(ruling.redacted, expected, "{input:?} {replacement}");
    }
}

/// Every combination of what may stand under each key.
fn every_answer() -> impl Iterator<Item = Value> {
    let words = || {
        let mut words: Vec<Option<Value>> = [
            "allow",
            "Continue",
            "constrain",
            "require-approval",
            "block",
            "halt",
            "stop",
            "",
            "alow",
            "allow ",
            "null",
        ]
        .into_iter()
        .map(|word| Some(word.into()))
        .collect();
        words.extend([
            None,
            Some(Value::Null),
            Some(json!(true)),
            Some(json!(0)),
            Some(json!(["allow"])),
            Some(json!({"verdict": "allow"})),
        ]);
        words
    };
    let guardrails = [
        None,
        Some(Value::Null),
        Some(json!({})),
        Some(json!({"validation_passed": true})),
        Some(json!({"validation_passed": false})),
        Some(json!({"validation_passed": "true"})),
        Some(json!([true])),
        Some(json!("allow")),
    ];
    words().into_iter().flat_map(move |verdict| {
        let guardrails = guardrails.clone();
        words().into_iter().flat_map(move |action| {
            let verdict = verdict.clone();
            guardrails.clone().into_iter().map(move |guardrails| {
                let mut answer = serde_json::Map::new();
                for (name, value) in [
                    ("verdict", &verdict),
                    ("action", &action),
                    ("guardrails_result", &guardrails),
                ] {
                    if let Some(value) = value {
                        answer.insert(name.to_owned(), value.clone());
                    }
                }
                Value::Object(answer)
            })
        })
    })
}

#[test]
fn no_answer_yields_an_allow_that_it_does_not_say() {
    let says_allow = |value: &Value| {
        matches!(
            value.as_str().map(str::to_lowercase).as_deref(),
            Some("allow" | "continue")
        )
    };
    let mut allowed = 0;
    for answer in every_answer() {
        let (verdict, action) = (&answer["verdict"], &answer["action"]);
        let guardrails = &answer["guardrails_result"];
        let may_allow = (says_allow(verdict) || verdict.is_null())
            && (says_allow(action) || action.is_null())
            && !(verdict.is_null() && action.is_null())
            && (guardrails.is_null() || guardrails.is_object())
            && matches!(
                guardrails.get("validation_passed"),
                None | Some(Value::Bool(true))
            );
        let text = answer.to_string();
        let is_allowed =
            matches!(judged(200, &text), Ok(ruling) if ruling.verdict == Verdict::Allow);
        assert_eq!(is_allowed, may_allow, "{text}");
        allowed += usize::from(is_allowed);
        // Cut short anywhere, it says nothing.
        for end in 0..text.len() {
            assert!(judged(200, &text[..end]).is_err(), "{}", &text[..end]);
        }
        // Nor does it inside anything else.
        for wrapped in [
            format!("[{text}]"),
            format!(r#"{{"data":{text}}}"#),
            format!("{text}{text}"),
        ] {
            assert!(judged(200, &wrapped).is_err(), "{wrapped}");
        }
    }
    assert!(allowed > 0);
}

#[test]
fn polls_are_read_action_first_and_only_words_decide() {
    let now = Timestamp(1_767_268_800_000_000_000);
    let pending = || ApprovalState::Pending { expires_at: None };
    let rejected = |why: &str| ApprovalState::Rejected(Reason::from(why));
    let table = [
        (r#"{"id":"x","action":"allow"}"#, ApprovalState::Granted),
        (r#"{"id":"x","action":"continue"}"#, ApprovalState::Granted),
        (r#"{"id":"x","verdict":"allow"}"#, ApprovalState::Granted),
        (
            r#"{"id":"x","action":"block","reason":"no"}"#,
            rejected("no"),
        ),
        (
            r#"{"id":"x","action":"halt"}"#,
            rejected("no reason was given"),
        ),
        (
            r#"{"id":"x","action":"stop","expired":true}"#,
            rejected("no reason was given"),
        ),
        (r#"{"id":"x","action":"require_approval"}"#, pending()),
        (r#"{"id":"x","action":"constrain"}"#, pending()),
        (
            r#"{"id":"x","action":"pending","verdict":"allow"}"#,
            pending(),
        ),
        (r#"{"id":"x","action":true,"verdict":"allow"}"#, pending()),
        (
            r#"{"id":"x","action":"block","verdict":"require_approval"}"#,
            rejected("no reason was given"),
        ),
        (r#"{"id":"x"}"#, pending()),
        ("{}", pending()),
        (
            r#"{"action":"require_approval","approval_expiration_time":"2026-01-01T12:00:01Z"}"#,
            ApprovalState::Pending {
                expires_at: Some(Timestamp(now.0 + 1_000_000_000)),
            },
        ),
        (
            r#"{"action":"require_approval","approval_expiration_time":"2026-01-01T12:00:00Z"}"#,
            ApprovalState::Expired,
        ),
        (
            r#"{"action":"allow","approval_expiration_time":"2020-01-01 00:00:00"}"#,
            ApprovalState::Expired,
        ),
        (
            r#"{"action":"allow","expired":true}"#,
            ApprovalState::Expired,
        ),
        (
            r#"{"action":"allow","approval_expiration_time":"soon"}"#,
            ApprovalState::Granted,
        ),
        (
            r#"{"action":"allow","approval_expiration_time":"2026-01-01T12:00:01Z"}"#,
            ApprovalState::Granted,
        ),
    ];
    for (body, expected) in table {
        assert_eq!(
            approvals::state(&answered(200, body), now),
            Ok(expected),
            "{body}"
        );
    }
    for body in [
        r#"{"action":"allow","verdict":"block"}"#,
        r#"{"action":"block","verdict":"allow"}"#,
        "",
        "[]",
        r#"["allow"]"#,
        r#"{"action":"block","action":"allow"}"#,
    ] {
        assert!(
            approvals::state(&answered(200, body), now).is_err(),
            "{body}"
        );
    }
    for (status, is_unavailable) in [
        (404, true),
        (500, true),
        (429, true),
        (401, false),
        (201, false),
    ] {
        let state = approvals::state(&answered(status, r#"{"action":"allow"}"#), now);
        let error = state.unwrap_err();
        assert_eq!(
            matches!(error, PolicyError::Unavailable(_)),
            is_unavailable,
            "{status}"
        );
    }
}

#[test]
fn an_introduction_goes_by_the_status() {
    let url = || "https://core.example".to_owned();
    let said = |status, body: &str| answer::introduced(&answered(status, body), url());
    assert_eq!(said(200, r#"{"valid":true}"#), Ok(()));
    assert_eq!(said(200, "hello"), Ok(()));
    for (status, body) in [
        (401, r#"{"reason_code":"invalid_api_key"}"#),
        (403, "{}"),
        (200, r#"{"valid":false}"#),
    ] {
        let error = said(status, body).unwrap_err();
        assert!(matches!(error, StartError::KeyRejected { .. }), "{status}");
        assert!(error.to_string().contains("OPENBOX_API_KEY"));
    }
    for status in [301, 404, 500] {
        assert!(
            matches!(said(status, "{}"), Err(StartError::Unexpected { .. })),
            "{status}"
        );
    }
}

/// xorshift64*: the same answers for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        high as usize % bound
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    /// Any JSON, with the names and words of the contract more often than chance
    /// has them.
    fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 7 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(1 << 20) as i64 - (1 << 19)),
            3 => json!(1e300),
            4..=6 => json!(self.one_of(&WORDS)),
            7 => (0..self.below(4)).map(|_| self.json(depth - 1)).collect(),
            _ => {
                let fields = (0..self.below(7))
                    .map(|_| (self.one_of(&NAMES).to_owned(), self.json(depth - 1)));
                Value::Object(fields.collect())
            }
        }
    }
}

const NAMES: [&str; 20] = [
    "verdict",
    "action",
    "verdict",
    "action",
    "reason",
    "policy_id",
    "constraints",
    "behavioral_violations",
    "approval_id",
    "approval_expiration_time",
    "expired",
    "guardrails_result",
    "guardrails",
    "validation_passed",
    "redacted_input",
    "input_type",
    "reasons",
    "age_result",
    "patch",
    "risk_score",
];

const WORDS: [&str; 16] = [
    "allow",
    "ALLOW",
    "continue",
    "constrain",
    "require_approval",
    "require-approval",
    "block",
    "halt",
    "stop",
    "pending",
    "approved",
    "",
    "activity_output",
    "2020-01-01T00:00:00Z",
    "\u{0}\u{7f}\u{fffd}",
    "allow ",
];

/// Whether `word` is one that lets an operation pass.
fn lets_pass(word: Option<&Value>) -> bool {
    let word = word.and_then(Value::as_str).unwrap_or_default();
    let word = word.to_ascii_lowercase();
    ["allow", "continue", "constrain"].contains(&word.as_str())
}

fn says_otherwise(word: Option<&Value>) -> bool {
    word.is_some_and(|word| !word.is_null() && !lets_pass(Some(word)))
}

#[test]
fn any_json_is_a_verdict_or_an_error_and_never_an_invented_allow() {
    let mut numbers = Numbers(0x0b0c_5eed);
    let input = JsonText(r#"[{"q":"x"}]"#.into());
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..60_000 {
        let said = match numbers.below(8) {
            0 => numbers.json(3),
            _ => {
                let mut fields = serde_json::Map::new();
                for _ in 0..numbers.below(6) {
                    fields.insert(numbers.one_of(&NAMES).to_owned(), numbers.json(2));
                }
                Value::Object(fields)
            }
        };
        let mut text = said.to_string().into_bytes();
        let broken = numbers.below(20) == 0 && text.len() > 1;
        if broken {
            text.truncate(numbers.below(text.len()));
        }
        let shown = String::from_utf8_lossy(&text).into_owned();
        let status = [200, 200, 200, 201, 302, 401, 403, 404, 429, 500][numbers.below(10)];
        let answer = answer::ruling(&answered(status, text.clone()), Some(&input));
        let state = approvals::state(&answered(status, text), Timestamp(u64::MAX / 2));
        let (verdict, action) = (said.get("verdict"), said.get("action"));
        let agrees = (lets_pass(verdict) || lets_pass(action))
            && !says_otherwise(verdict)
            && !says_otherwise(action);
        let failed = ["guardrails_result", "guardrails"]
            .iter()
            .any(|name| said[*name]["validation_passed"] == json!(false));
        match answer {
            Ok(ruling) if matches!(ruling.verdict, Verdict::Allow | Verdict::Constrain) => {
                passed += 1;
                assert!(
                    status == 200 && !broken && agrees && !failed,
                    "{status} {shown}"
                );
            }
            Ok(_) | Err(_) => refused += 1,
        }
        if state == Ok(ApprovalState::Granted) {
            let granted = |word: Option<&Value>| {
                lets_pass(word)
                    && word.is_some_and(|word| {
                        !word.as_str().unwrap().starts_with('c') || word == "continue"
                    })
            };
            assert!(status == 200 && !broken, "{status} {shown}");
            assert!(
                granted(action) || (action.is_none_or(Value::is_null) && granted(verdict)),
                "{shown}"
            );
        }
    }
    // The law is about something.
    assert!(passed > 200 && refused > 500, "{passed} {refused}");
}
