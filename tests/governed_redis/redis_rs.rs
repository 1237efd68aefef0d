//! redis-rs, the client of Rust programs: in both versions of the protocol it sees the same direct and relayed, and a
//! refusal in its place.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, ErrorKind, PushInfo, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::broadcast;

use crate::World;
use crate::support::redis::Server;

const VERSIONS: [&str; 2] = ["resp2", "resp3"];

fn client(port: u16, version: &str) -> Client {
    Client::open(format!("redis://127.0.0.1:{port}/3?protocol={version}")).unwrap()
}

/// With more patience than its half a second and its second: a test shares its machine.
fn config() -> AsyncConnectionConfig {
    let minute = Some(Duration::from_secs(60));
    AsyncConnectionConfig::new()
        .set_response_timeout(minute)
        .set_connection_timeout(minute)
}

async fn connection(port: u16, version: &str) -> MultiplexedConnection {
    let client = client(port, version);
    let config = config();
    let connected = client.get_multiplexed_async_connection_with_config(&config);
    connected.await.unwrap()
}

/// What it sees of values of all kinds, a pipeline, a transaction, a script.
async fn seen(port: u16, version: &str) -> Vec<Value> {
    let mut to = connection(port, version).await;
    let mut all = Vec::new();
    let mut pipeline = redis::pipe();
    for number in 0..500 {
        pipeline
            .set(format!("k:{number}"), number)
            .incr(format!("k:{}", number / 2), 1);
    }
    all.extend(pipeline.query_async::<Vec<Value>>(&mut to).await.unwrap());
    let mut atomic = redis::pipe();
    atomic
        .atomic()
        .hset("h", "a", 1)
        .hgetall("h")
        .zadd("z", "m", 1.5)
        .zscore("z", "m");
    all.extend(atomic.query_async::<Vec<Value>>(&mut to).await.unwrap());
    let large: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[0]).collect();
    let () = to.set("large", &large).await.unwrap();
    let back: Vec<u8> = to.get("large").await.unwrap();
    assert_eq!(back, large);
    let script = redis::Script::new("return {KEYS[1], ARGV[1], {1, false}}");
    all.push(
        script
            .key("k")
            .arg("a")
            .invoke_async(&mut to)
            .await
            .unwrap(),
    );
    all.push(
        redis::cmd("SMEMBERS")
            .arg("none")
            .query_async(&mut to)
            .await
            .unwrap(),
    );
    let wrong: RedisResult<i64> = to.lpush("h", 1).await;
    all.push(Value::SimpleString(wrong.unwrap_err().to_string()));
    all
}

#[tokio::test]
async fn redis_rs_sees_the_same_direct_and_relayed() {
    let (world, direct) = (World::new(), Server::start(&[]));
    for version in VERSIONS {
        let expected = seen(direct.port, version).await;
        assert!(expected.len() > 1000, "{}", expected.len());
        assert_eq!(seen(world.port, version).await, expected, "{version}");
    }
}

#[tokio::test]
async fn redis_rs_finds_a_refusal_at_its_place_in_a_pipeline_and_none_of_a_transaction_done() {
    let world = World::new();
    for version in VERSIONS {
        let mut to = connection(world.port, version).await;
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for number in 0..100 {
            let key = if number == 50 { "forbidden" } else { "allowed" };
            pipeline.set(format!("{key}:{number}"), number);
        }
        let answers: Vec<RedisResult<Value>> = pipeline.query_async(&mut to).await.unwrap();
        let refused: Vec<_> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| answer.is_err())
            .collect();
        let [(50, Err(error))] = refused.as_slice() else {
            panic!("{version}: {refused:?}");
        };
        assert_eq!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::NoPerm),
            "{error:?}"
        );
        assert!(error.to_string().contains("the test says block"), "{error}");

        let mut atomic = redis::pipe();
        atomic.atomic().set("t", version).set("forbidden", 1);
        let done: RedisResult<Value> = atomic.query_async(&mut to).await;
        let error = done.unwrap_err();
        assert!(error.to_string().contains("the test says block"), "{error}");
        assert!(!to.exists::<_, bool>("t").await.unwrap());
        // The connection is as good as before.
        assert_eq!(to.get::<_, i64>("allowed:99").await.unwrap(), 99);
    }
}

#[tokio::test]
async fn redis_rs_hears_messages_among_answers_in_resp3() {
    let world = World::new();
    let (tell, mut told) = broadcast::channel::<PushInfo>(16);
    let config = config().set_push_sender(tell);
    let hears = client(world.port, "resp3");
    let mut hears = hears
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap();
    hears.subscribe("news").await.unwrap();
    let mut other = connection(world.port, "resp2").await;
    let heard: i64 = other.publish("news", "hello").await.unwrap();
    assert_eq!(heard, 1);
    loop {
        let push = told.recv().await.unwrap();
        if push.kind == redis::PushKind::Message {
            let text = Value::BulkString(b"hello".to_vec());
            assert!(push.data.contains(&text), "{push:?}");
            break;
        }
    }
    let answer: String = redis::cmd("PING").query_async(&mut hears).await.unwrap();
    assert_eq!(answer, "PONG");
}
