//! The proxy as its peers see it, byte for byte.

mod socks;
mod world;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::domain::{ApprovalId, Stage, Verdict};
use crate::policy::Ruling;
use crate::policy::scripted::Scripted;

use self::world::{Origin, World, hear, hear_until};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello";

fn ruling(verdict: Verdict) -> Ruling {
    Ruling {
        reason: Some("because".into()),
        ..Ruling::new(verdict, 0)
    }
}

#[tokio::test]
async fn an_allowed_request_reaches_the_origin_and_is_judged_twice() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let origin = Origin::saying(HELLO).await;
    let answer = world
        .say(&format!(
            "GET http://{0}/a?b=1 HTTP/1.1\r\nHost: {0}\r\nX-Odd-CASE: 1\r\nProxy-Connection: keep-alive\r\nX-OpenBox-Run-Id: r\r\n\r\n",
            origin.address
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
    let heard = origin.heard();
    assert!(heard.starts_with("GET /a?b=1 HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("X-Odd-CASE: 1\r\n"), "{heard}");
    assert!(
        !heard.to_lowercase().contains("proxy-connection"),
        "{heard}"
    );
    assert!(!heard.to_lowercase().contains("openbox"), "{heard}");
    let decided = ["decision allow", "completion release"];
    world.decided(&decided).await;
}

#[tokio::test]
async fn a_body_passes_whole_however_it_is_framed() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    let big = "Q".repeat(200_000);
    let chunked = format!("5\r\nhello\r\n{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
    for request in [
        format!(
            "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody"
        ),
        format!(
            "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Length: {}\r\n\r\n{big}",
            big.len()
        ),
        format!(
            "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n{big}",
            big.len()
        ),
        format!(
            "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
        ),
        format!(
            "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody"
        ),
    ] {
        let answer = world.say(&request).await;
        assert!(answer.contains("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    let heard = origin.heard();
    // Chunks may be cut anew on the way.
    assert_eq!(heard.matches('Q').count(), 600_000);
    assert_eq!(heard.matches("body").count(), 2);
}

#[tokio::test]
async fn a_blocked_request_never_reaches_the_origin() {
    let world =
        World::new(Scripted::default().at(Stage::Started, [Ok(ruling(Verdict::Block))])).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    let answer = world
        .say(&format!(
            "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Length: 4\r\n\r\nbody"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    for part in [
        "\"code\":\"blocked\"",
        "because",
        "openbox-verdict: block",
        "application/problem+json",
        "do not try another way",
    ] {
        assert!(answer.contains(part), "{part} is missing in {answer}");
    }
    assert_eq!(origin.heard(), "");
    assert_eq!(world.decisions(), ["decision blocked"]);
}

#[tokio::test]
async fn a_blocked_outcome_is_withheld() {
    let script =
        Scripted::always(Verdict::Allow).at(Stage::Completed, [Ok(ruling(Verdict::Block))]);
    let world = World::new(script).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    let answer = world
        .say(&format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n"))
        .await;
    assert!(answer.contains("\"code\":\"outcome_blocked\""), "{answer}");
    assert!(!answer.contains("hello"), "{answer}");
    assert!(origin.heard().starts_with("GET / "));
}

#[tokio::test]
async fn a_held_request_is_served_once_a_person_agrees_and_only_once() {
    let world = World::new(Scripted::always(Verdict::RequireApproval).at(
        Stage::Completed,
        [Ok(ruling(Verdict::Allow)), Ok(ruling(Verdict::Allow))],
    ))
    .await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    let request = format!("DELETE http://{a}/x HTTP/1.1\r\nHost: {a}\r\n\r\n");
    let first = world.say(&request).await;
    assert!(first.contains("\"code\":\"approval_pending\""), "{first}");
    assert!(first.contains("retry-after: "), "{first}");
    let open = world.gate.approvals();
    assert_eq!(open.len(), 1);
    world.gate.approve(&open[0].id, "test").unwrap();
    let second = world.say(&request).await;
    assert!(second.ends_with("hello"), "{second}");
    let third = world.say(&request).await;
    assert!(third.contains("\"code\":\"approval_pending\""), "{third}");
    assert_eq!(origin.heard().matches("DELETE").count(), 1);
}

#[tokio::test]
async fn a_withheld_answer_is_handed_out_without_asking_the_origin_again() {
    let script = Scripted::always(Verdict::Allow)
        .at(Stage::Completed, [Ok(ruling(Verdict::RequireApproval))]);
    let world = World::new(script).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    let request =
        format!("POST http://{a}/pay HTTP/1.1\r\nHost: {a}\r\nContent-Length: 2\r\n\r\n{{}}");
    let first = world.say(&request).await;
    assert!(first.contains("\"code\":\"approval_pending\""), "{first}");
    let id: ApprovalId = world.gate.approvals()[0].id.clone();
    world.gate.approve(&id, "test").unwrap();
    let second = world.say(&request).await;
    assert!(second.ends_with("hello"), "{second}");
    assert_eq!(origin.heard().matches("POST").count(), 1);
}

#[tokio::test]
async fn a_halt_refuses_everything_after_it_and_closes() {
    let world = World::new(Scripted::always(Verdict::Halt)).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    let request = format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n");
    for _ in 0..2 {
        let answer = world.say(&request).await;
        assert!(answer.contains("\"code\":\"halted\""), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(origin.heard(), "");
}

#[tokio::test]
async fn a_client_that_leaves_while_held_sends_nothing() {
    let settings = super::Settings::default();
    let world = World::with(Scripted::always(Verdict::RequireApproval), settings).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    #[rustfmt::skip]
    let requests = [
        format!("GET http://{a}/1 HTTP/1.1\r\nHost: {a}\r\n\r\n"),
        format!("GET http://{a}/2 HTTP/1.1\r\nHost: {a}\r\n\r\nGET http://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n"),
        format!("POST http://{a}/3 HTTP/1.1\r\nHost: {a}\r\nContent-Type: image/png\r\nContent-Length: 900000\r\n\r\npart"),
        format!("POST http://{a}/4 HTTP/1.1\r\nHost: {a}\r\nContent-Type: image/png\r\nExpect: 100-continue\r\nContent-Length: 900000\r\n\r\n"),
    ];
    for request in requests {
        let mut client = world.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let before = world.gate.approvals().len();
        while world.gate.approvals().len() == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(client);
        // The connection's place is given back once nothing of it is left.
        while !world
            .gate
            .metrics()
            .render()
            .contains("openbox_connections_open 0")
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let granted: Vec<_> = world.gate.approvals();
    for hold in granted {
        world.gate.approve(&hold.id, "test").unwrap();
    }
    assert_eq!(origin.heard(), "");
}

#[tokio::test]
async fn what_has_two_readings_is_refused_and_nothing_is_evaluated() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    #[rustfmt::skip]
    let table = [
        // request                                                                                                     status
        (format!("POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400"),
        (format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\nHost: {a}\r\n\r\n"),                                        "400"),
        (format!("GET http://{a}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"),                                               "400"),
        (format!("GET http://u:p@{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n"),                                                 "400"),
        (format!("GET http://{a}/ HTTP/1.1\nHost: {a}\n\n"),                                                           "400"),
        (format!("POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),       "400"),
        (format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\nX: 1\r\n folded\r\n\r\n"),                                  "400"),
        (format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\nX: a\0b\r\n\r\n"),                                          "400"),
        (format!("GET / HTTP/1.1\r\nHost: {a}\r\n\r\n"),                                                               "400"),
        (format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\nX: {}\r\n\r\n", "x".repeat(70_000)),                        "431"),
        (format!("POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),                                                                "505"),
    ];
    for (request, status) in table {
        let answer = world.say(&request).await;
        let shown: String = request.chars().take(120).collect();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown:?}: {answer}"
        );
        assert!(answer.contains("problem+json"), "{answer}");
    }
    assert_eq!(origin.heard(), "");
    assert_eq!(world.decisions(), [""; 0]);
}

#[tokio::test]
async fn a_refused_head_keeps_its_turn_behind_earlier_answers() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    let mut client = world.connect().await;
    let requests = format!(
        "GET http://{a}/1 HTTP/1.1\r\nHost: {a}\r\n\r\nGET http://{a}/2 HTTP/1.1\r\nHost: {a}\r\nHost: b\r\n\r\nGET http://{a}/3 HTTP/1.1\r\nHost: {a}\r\n\r\n"
    );
    client.write_all(requests.as_bytes()).await.unwrap();
    // To the end, so that an answer to the third would be heard.
    let answer = hear_until(&mut client, |_| false).await;
    let ok = answer.find("200 OK").unwrap();
    let bad = answer.find("400 Bad Request").unwrap();
    assert!(ok < bad, "{answer}");
    assert!(!origin.heard().contains("/3"));
}

#[tokio::test]
async fn a_tunnel_carries_plain_http_and_pins_its_host() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let origin = Origin::saying(HELLO).await;
    let a = origin.address;
    let mut client = world.connect().await;
    let connect = format!("CONNECT {a} HTTP/1.1\r\nHost: {a}\r\n\r\n");
    client.write_all(connect.as_bytes()).await.unwrap();
    assert!(hear(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let inner = format!("POST /in HTTP/1.1\r\nHost: {a}\r\nContent-Length: 2\r\n\r\nhi");
    client.write_all(inner.as_bytes()).await.unwrap();
    assert!(hear(&mut client).await.ends_with("hello"));
    client
        .write_all(b"GET /out HTTP/1.1\r\nHost: other.test\r\n\r\n")
        .await
        .unwrap();
    assert!(hear(&mut client).await.starts_with("HTTP/1.1 421 "));
    assert!(!origin.heard().contains("/out"));
}

#[tokio::test]
async fn an_origin_that_lies_about_its_length_is_reported_not_hidden() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let origin =
        Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 50\r\nConnection: close\r\n\r\nhel")
            .await;
    let a = origin.address;
    let mut client = world.connect().await;
    let request = format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    // The origin keeps its connection open, so the deadline of the capture
    // comes first, and the answer streams on without its end.
    let answer = hear_until(&mut client, |heard| heard.ends_with("\r\n\r\nhel")).await;
    assert!(answer.contains("200 OK"), "{answer}");
    assert!(answer.ends_with("hel"), "{answer}");
    drop(client);
    while world.decisions().len() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let journal = world.journal();
    let completion = journal.last().unwrap();
    assert_eq!(completion.get("outcome").unwrap(), "abandoned");
}

#[tokio::test]
async fn a_client_that_falls_silent_is_let_go() {
    let short = Duration::from_millis(50);
    let long = Duration::from_secs(3_600);
    // A body that stalls is bounded by `capture_within` and `answer_within`.
    #[rustfmt::skip]
    let table = [
        // idle   head    sent before the silence
        (short,   long,   ""),
        (long,    short,  "GET http://a.test/ HTTP/1.1\r\nHost: a"),
    ];
    for (idle_within, head_within, sent) in table {
        let settings = super::Settings {
            idle_within,
            head_within,
            capture_within: long,
            ..super::Settings::default()
        };
        let world = World::with(Scripted::always(Verdict::Block), settings).await;
        let mut client = world.connect().await;
        client.write_all(sent.as_bytes()).await.unwrap();
        let ended = async {
            let mut rest = [0; 1024];
            // An end or an error: either way the connection is let go.
            while client.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        assert!(ended.is_ok(), "still open after {sent:?}");
    }
}
