//! The live stream, where a client comes back, and the kill switch.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::control::testing::{Api, World};
use crate::domain::Verdict;
use crate::policy::Ruling;
use crate::policy::scripted::Scripted;
use crate::process::spawn_named;

/// Reads a stream until `count` events are there: their ids, and the text.
async fn heard(api: &Api, after: Option<u64>, count: usize) -> (Vec<u64>, String) {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let last = after.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
    let request = format!(
        "GET /v1/stream HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n{last}\r\n",
        api.address,
        api.token.expose()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut some = [0; 4096];
    loop {
        let read = stream.read(&mut some).await.unwrap();
        assert!(read > 0, "it ended: {text}");
        text.push_str(std::str::from_utf8(&some[..read]).unwrap());
        let ids: Vec<u64> = text
            .lines()
            .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
            .collect();
        if ids.len() >= count {
            return (ids, text);
        }
    }
}

async fn signal(world: &World, name: &str) {
    let body = json!({"workflow_id":"w","run_id":"r","signal_name":name}).to_string();
    let answer = world.agent.post("/v1/signals", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing_and_hears_nothing_twice() {
    let world = World::new(Scripted::always(Verdict::Allow)).opened().await;
    for name in ["a", "b", "c"] {
        signal(&world, name).await;
    }
    let (all, text) = heard(&world.operator, Some(0), 4).await;
    assert!(text.contains("text/event-stream") && text.contains("event: event"));
    let distinct: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(
        distinct.into_iter().collect::<Vec<_>>(),
        all,
        "in order, each once"
    );
    let (rest, _) = heard(&world.operator, Some(all[1]), 2).await;
    assert_eq!(rest, all[2..]);
    let waiting = async {
        let (next, text) = heard(&world.agent, all.last().copied(), 1).await;
        assert!(next[0] > all[3]);
        assert!(!text.contains("\"chain\""), "{text}");
    };
    tokio::join!(waiting, signal(&world, "d"));
    let answer = world
        .operator
        .raw(&format!(
            "GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nlast-event-id: x\r\n\r\n",
            world.operator.token.expose()
        ))
        .await;
    assert_eq!(answer.problem(), (400, "invalid_last_event_id".to_owned()));
}

#[tokio::test]
async fn the_kill_switch_halts_everything_and_leaves_a_halted_run_halted() {
    let world = World::new(Scripted::always(Verdict::Allow)).opened().await;
    let set = |body: &'static str| world.operator.send("PUT", "/v1/killswitch", body);
    assert_eq!(set("{}").await.problem(), (400, "missing_field".to_owned()));
    assert_eq!(
        set(r#"{"engaged":true}"#).await.problem().1,
        "missing_field"
    );
    assert_eq!(
        set(r#"{"engaged":false,"reason":" "}"#).await.problem().0,
        400
    );
    let halt = world
        .operator
        .post("/v1/runs/r/halt", r#"{"reason":"one"}"#)
        .await;
    assert_eq!(halt.status, 200);
    let answer = set(r#"{"engaged":true,"reason":"all","by":"ann"}"#).await;
    assert_eq!(answer.json(), json!({"engaged":true,"reason":"all"}));
    let other = world
        .agent
        .post("/v1/workflows", r#"{"workflow_id":"x"}"#)
        .await;
    assert_eq!(other.json()["verdict"], "halt");
    assert!(
        world
            .journal()
            .contains(r#""run_id":"*","by":"ann","reason":"all""#)
    );
    assert_eq!(
        set(r#"{"engaged":false}"#).await.json(),
        json!({"engaged":false})
    );
    assert_eq!(
        world.operator.get("/v1/killswitch").await.json(),
        json!({"engaged":false})
    );
    let of_run = json!({"workflow_id":"w","run_id":"r","signal_name":"s"}).to_string();
    let still = world.agent.post("/v1/signals", &of_run).await;
    assert_eq!(still.json()["verdict"], "halt");
}

/// A thousand connections have two ends each in this process.
fn open_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).unwrap();
}

#[tokio::test]
async fn a_thousand_who_wait_for_an_approval_hear_of_it_while_operations_flow() {
    open_many_files();
    let world = World::new(Scripted::always(Verdict::Allow).on_events([
        Ok(Ruling::new(Verdict::Allow, 0)),
        Ok(Ruling::new(Verdict::RequireApproval, 0)),
    ]));
    let world = world.opened().await;
    let activity = r#"{"workflow_id":"w","run_id":"r","activity_id":"a","activity_type":"t"}"#;
    let held = world.agent.post("/v1/activities?wait=0", activity).await;
    let id = held.json()["approval_id"].as_str().unwrap().to_owned();
    let polls = (0..1_000).map(|_| {
        let (api, path) = (world.agent.clone(), format!("/v1/approvals/{id}?wait=60s"));
        spawn_named("test", async move { api.get(&path).await })
    });
    let polls: Vec<_> = polls.collect();
    for n in 0..20 {
        let began = Instant::now();
        signal(&world, &n.to_string()).await;
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    assert!(!polls.iter().any(JoinHandle::is_finished), "nobody decided");
    let path = format!("/v1/approvals/{id}/approve");
    assert_eq!(world.operator.post(&path, "{}").await.status, 200);
    for poll in polls {
        let told = poll.await.unwrap();
        assert_eq!(told.json()["state"], "granted", "{told:?}");
    }
}

#[tokio::test]
async fn a_thousand_streams_hear_everything_while_operations_flow() {
    open_many_files();
    let world = World::new(Scripted::always(Verdict::Allow)).opened().await;
    let (all, _) = heard(&world.operator, Some(0), 1).await;
    let begun = all[0];
    let streams = (0..1_000).map(|_| {
        let api = world.operator.clone();
        spawn_named("test", async move { heard(&api, Some(begun), 20).await.0 })
    });
    let streams: Vec<_> = streams.collect();
    for n in 0..20 {
        signal(&world, &n.to_string()).await;
    }
    let mut expected = None;
    for stream in streams {
        let ids = stream.await.unwrap();
        assert_eq!(&ids, expected.get_or_insert_with(|| ids.clone()));
    }
}
