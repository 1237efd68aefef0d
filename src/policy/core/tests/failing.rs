//! A Core that fails, and what is asked again, left alone, or said shorter.

use std::time::Duration;

use tokio::time::Instant;

use super::server::{ALLOW, Act, Core, reply, say};
use super::*;
use crate::domain::{Answer, Completion, Event, EventKind, HttpAnswer, Outcome, Verdict};
use crate::policy::core::{CoreClient, connect_plain};
use crate::policy::{Judging, PolicyBackend, PolicyError, Question, Ruling};

/// As the product asks: with its retries.
fn client(core: &Core, change: impl FnOnce(&mut Settings)) -> CoreClient {
    let mut settings = Settings {
        retries_max: 2,
        ..settings(&core.url())
    };
    change(&mut settings);
    CoreClient::new(settings, connect_plain())
}

async fn judged(client: &CoreClient, question: Question<'_>) -> Result<Arc<Ruling>, PolicyError> {
    match client.judge(question) {
        Judging::Now(answer) => answer,
        Judging::Later(answer) => answer.await,
    }
}

async fn ask(client: &CoreClient) -> Result<Arc<Ruling>, PolicyError> {
    let operation = operation(context(Some(activity())));
    judged(client, Question::Started(&operation)).await
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    let lines = request.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(is, _)| is.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .next()
        .unwrap()
}

fn body(request: &str) -> serde_json::Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn what_got_no_answer_is_asked_again_under_the_same_key() {
    for failure in [
        Act::HangUp,
        Act::SayAndClose(String::new()),
        Act::SayAndClose(reply(503, "")),
        Act::Say(reply(500, "{}")),
        Act::Say(reply(429, "")),
    ] {
        let core = Core::start(vec![failure.clone(), failure, say(ALLOW)]).await;
        let ruling = ask(&client(&core, |_| {})).await.unwrap();
        assert_eq!(ruling.verdict, Verdict::Allow);
        let requests = core.requests();
        let first = requests.first().unwrap();
        for request in &requests {
            assert_eq!(
                header(request, "idempotency-key"),
                header(first, "idempotency-key")
            );
            assert_eq!(body(request), body(first));
        }
    }
}

#[tokio::test]
async fn what_was_answered_is_not_asked_again() {
    for status in [400, 401, 403, 404, 302] {
        let core = Core::start(vec![Act::Say(reply(status, "{}")), say(ALLOW)]).await;
        let error = ask(&client(&core, |_| {})).await.unwrap_err();
        assert!(matches!(error, PolicyError::Unjudgeable(_)), "{error}");
        assert_eq!(core.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_question_is_asked_three_times_at_most() {
    let core = Core::start(vec![Act::Say(reply(500, "{}"))]).await;
    let error = ask(&client(&core, |_| {})).await.unwrap_err();
    assert!(matches!(error, PolicyError::Unavailable(_)), "{error}");
    assert_eq!(core.requests().len(), 3);
}

#[tokio::test]
async fn retries_end_with_the_deadline_of_the_question() {
    let wait = "HTTP/1.1 429 X\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
    let core = Core::start(vec![Act::Say(wait.to_owned()), say(ALLOW)]).await;
    let client = client(&core, |settings| {
        settings.answer_within = Duration::from_secs(30)
    });
    let began = Instant::now();
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(error, PolicyError::Unavailable(_)), "{error}");
    // It would have to wait for longer than it has: it says so at once.
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(core.requests().len(), 1);
}

#[tokio::test]
async fn a_core_that_is_not_there_is_left_alone() {
    let core = Core::start(vec![Act::SayAndClose(reply(503, ""))]).await;
    let client = client(&core, |settings| settings.retries_max = 0);
    for _ in 0..5 {
        ask(&client).await.unwrap_err();
    }
    let asked = core.requests().len();
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(error, PolicyError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("left alone"), "{error}");
    assert_eq!(core.requests().len(), asked);
}

/// An agent chooses what it asks, and a 500 may be its question's doing.
#[tokio::test]
async fn what_a_question_may_do_does_not_have_core_left_alone() {
    let core = Core::start(vec![Act::Say(reply(500, "{}"))]).await;
    let client = client(&core, |settings| settings.retries_max = 0);
    for _ in 0..20 {
        ask(&client).await.unwrap_err();
    }
    assert_eq!(core.requests().len(), 20);
}

fn large_operation() -> Operation {
    let mut context = Context::clone(&context(Some(activity())));
    let input = format!("[\"{}\"]", "i".repeat(40_000));
    context.activity.as_mut().unwrap().input = JsonText(input.into());
    let mut operation = operation(Arc::new(context));
    if let Action::Http(call) = &mut operation.action {
        call.body = whole(&"b".repeat(60_000));
        call.headers.push("x-long", &"h".repeat(60_000));
    }
    operation
}

#[tokio::test]
async fn a_question_over_the_budget_is_said_shorter_and_marked() {
    let operation = large_operation();
    for (max, input, text, headers) in [
        (256_000, 40_000, Some(60_000), true),
        (100_000, 4_000, Some(4_000), true),
        (60_000, 0, None, false),
    ] {
        let core = Core::start(vec![say(ALLOW)]).await;
        let client = client(&core, |settings| settings.question_bytes_max = max);
        judged(&client, Question::Started(&operation))
            .await
            .unwrap();
        let requests = core.requests();
        let sent = body(&requests[0]);
        let span = &sent["spans"][0];
        assert_eq!(span["request_body"].as_str().map(str::len), text, "{max}");
        assert_eq!(span["request_headers"].get("x-long").is_some(), headers);
        let partial = &span["attributes"]["openbox.http.request_body.partial"];
        let is_whole = text == Some(60_000);
        assert_eq!(*partial == true, !is_whole, "{max}");
        let told = &sent["activity_input"][0];
        if is_whole {
            assert_eq!(told.as_str().unwrap().len(), input);
        } else {
            assert_eq!(told["preview"].as_str().unwrap().len(), input, "{max}");
            assert_eq!(told["truncated"], true);
        }
        assert_eq!(span["http_url"], "http://127.0.0.1:18087/items");
    }
}

#[tokio::test]
async fn core_may_say_itself_that_a_question_is_too_large() {
    let large = r#"{"message":"Blob size exceeds limit."}"#;
    for refusal in [reply(500, large), reply(413, ""), reply(400, large)] {
        let core = Core::start(vec![Act::Say(refusal.clone()), say(ALLOW)]).await;
        let operation = large_operation();
        let client = client(&core, |_| {});
        judged(&client, Question::Started(&operation))
            .await
            .unwrap();
        let requests = core.requests();
        let keys: Vec<_> = requests
            .iter()
            .map(|r| header(r, "idempotency-key"))
            .collect();
        assert_eq!(keys[1], format!("{}-compact", keys[0]));
        // And where nothing is short enough, it is refused under any fail mode.
        let core = Core::start(vec![Act::Say(refusal)]).await;
        let client = self::client(&core, |_| {});
        let error = judged(&client, Question::Started(&operation))
            .await
            .unwrap_err();
        assert!(matches!(error, PolicyError::Unjudgeable(_)), "{error}");
        assert_eq!(core.requests().len(), 3);
    }
}

#[tokio::test]
async fn outcomes_and_events_are_said_shorter_too() {
    let completion = Completion {
        ended_at: Timestamp(1_795_205_533_649_198_629),
        outcome: Outcome::Answered,
        answer: Some(Answer::Http(HttpAnswer {
            status: 200,
            headers: Headers::default(),
            body: whole(&"r".repeat(60_000)),
        })),
        error: None,
    };
    let event = Event {
        id: OperationId::new(1, 2),
        kind: EventKind::SignalReceived,
        context: context(None),
        at: Timestamp(0),
        fields: vec![
            ("signal_name", JsonText("\"s\"".into())),
            (
                "signal_args",
                JsonText(format!("[\"{}\"]", "s".repeat(60_000)).into()),
            ),
        ],
    };
    let core = Core::start(vec![say(ALLOW)]).await;
    let client = client(&core, |settings| settings.question_bytes_max = 50_000);
    let operation = operation(context(None));
    judged(&client, Question::Completed(&operation, &completion))
        .await
        .unwrap();
    judged(&client, Question::Event(&event)).await.unwrap();
    let requests = core.requests();
    let span = &body(&requests[0])["spans"][0];
    assert_eq!(span["response_body"].as_str().unwrap().len(), 4_000);
    assert_eq!(
        span["attributes"]["openbox.http.response_body.partial"],
        true
    );
    let sent = body(&requests[1]);
    assert_eq!(sent["signal_name"], "s");
    assert_eq!(sent["signal_args"][0]["truncated"], true);
}

/// What stands for a part must not be taken for the whole.
#[tokio::test]
async fn a_redaction_of_what_was_said_shorter_is_refused() {
    let redacts = r#"{"verdict":"allow","action":"continue","guardrails_result":{"input_type":"activity_input","redacted_input":["x"],"validation_passed":true}}"#;
    let core = Core::start(vec![say(redacts)]).await;
    let operation = large_operation();
    let whole = client(&core, |_| {});
    let ruling = judged(&whole, Question::Started(&operation)).await.unwrap();
    assert!(ruling.redacted.is_some());
    let shorter = client(&core, |settings| settings.question_bytes_max = 100_000);
    let error = judged(&shorter, Question::Started(&operation))
        .await
        .unwrap_err();
    assert!(matches!(error, PolicyError::Unjudgeable(_)), "{error}");
}
