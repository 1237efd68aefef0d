//! tokio-postgres, the client of Rust programs: it sees the same direct and relayed, and a refusal in its place.

use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use openbox_sidecar::process::spawn_named;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, SimpleQueryMessage};

use crate::World;
use crate::support::PATIENCE;
use crate::support::postgres::Server;

/// A session, and what the server says in it unasked.
async fn connect(port: u16) -> (Client, mpsc::Receiver<String>) {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("postgres");
    let (client, mut connection) = config.connect(NoTls).await.unwrap();
    let (told, asides) = mpsc::channel(16);
    spawn_named("client", async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            let text = match message {
                AsyncMessage::Notice(notice) => format!("notice {}", notice.message()),
                AsyncMessage::Notification(event) => {
                    format!("{} {}", event.channel(), event.payload())
                }
                _ => "something else".to_owned(),
            };
            let _nobody_listens = told.send(text).await;
        }
    });
    (client, asides)
}

/// What a program notices of values, transactions, portals, pipelines, COPY and notifications.
async fn seen(port: u16) -> Vec<String> {
    let (mut client, mut asides) = connect(port).await;
    let mut all = Vec::new();
    let script =
        "CREATE TABLE numbers (id int8 PRIMARY KEY, name text); LISTEN channel; SELECT 1 AS one";
    for message in client.simple_query(script).await.unwrap() {
        all.push(match message {
            SimpleQueryMessage::Row(row) => format!("row {:?}", row.get("one")),
            SimpleQueryMessage::CommandComplete(rows) => format!("complete {rows}"),
            SimpleQueryMessage::RowDescription(_) | _ => "description".to_owned(),
        });
    }
    all.extend(copied(&client).await);
    all.extend(pipelined(&client).await);
    all.extend(transacted(&mut client).await);
    let failed = client.query("SELECT 1 / $1::int4", &[&0_i32]).await;
    all.push(format!("{:?}", refusal(&failed.unwrap_err())));
    client
        .batch_execute("NOTIFY channel, 'payload'")
        .await
        .unwrap();
    let aside = timeout(PATIENCE, asides.recv()).await;
    all.push(aside.expect("a notification").unwrap());
    all
}

/// Rows that are copied in, in pieces that are no rows, and out again.
async fn copied(client: &Client) -> Vec<String> {
    let sink = client.copy_in("COPY numbers FROM STDIN").await.unwrap();
    let mut sink = pin!(sink);
    let text: String = (0..2_000).map(|id| format!("{id}\tname {id}\n")).collect();
    for piece in text.as_bytes().chunks(777) {
        sink.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let rows = sink.finish().await.unwrap();
    let stream = client.copy_out("COPY numbers TO STDOUT").await.unwrap();
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(pieces.concat(), text.as_bytes());
    vec![format!("{rows} copied in, {} pieces out", pieces.len())]
}

/// Two hundred executions of one prepared statement, none waited for before the next.
async fn pipelined(client: &Client) -> Vec<String> {
    let text = "SELECT name, id + 1 FROM numbers WHERE id = $1";
    let statement = client.prepare(text).await.unwrap();
    let asked = (0..200_i64).map(|id| {
        let (client, statement) = (&client, &statement);
        async move { client.query_one(statement, &[&id]).await.unwrap() }
    });
    let rows = futures_util::future::join_all(asked).await;
    let told = rows.iter().map(|row| {
        let (name, next): (&str, i64) = (row.get(0), row.get(1));
        format!("{name} {next}")
    });
    told.collect()
}

/// A savepoint that is rolled back, and a portal that is fetched from in parts.
async fn transacted(client: &mut Client) -> Vec<String> {
    let mut transaction = client.transaction().await.unwrap();
    let savepoint = transaction.savepoint("part").await.unwrap();
    let gone = savepoint.execute("DELETE FROM numbers WHERE id < $1", &[&1_000_i64]);
    let gone = gone.await.unwrap();
    savepoint.rollback().await.unwrap();
    let portal = transaction.bind("SELECT id FROM numbers ORDER BY id", &[]);
    let portal = portal.await.unwrap();
    let mut parts = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 700).await.unwrap();
        if rows.is_empty() {
            break;
        }
        parts.push(rows.len());
    }
    transaction.commit().await.unwrap();
    vec![format!(
        "{gone} gone and back, fetched in parts of {parts:?}"
    )]
}

#[tokio::test(flavor = "multi_thread")]
async fn tokio_postgres_sees_the_same_direct_and_relayed() {
    let world = World::new();
    let relayed = seen(world.port).await;
    let direct = seen(Server::start().port).await;
    assert_eq!(relayed, direct);
    assert_eq!(relayed.len(), 5 + 1 + 200 + 1 + 1 + 1, "{relayed:?}");
}

fn refusal(error: &Error) -> (SqlState, String) {
    let error = error.as_db_error().expect("an error of the server");
    (error.code().clone(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokio_postgres_sees_a_refusal_in_its_place_and_goes_on() {
    let world = World::new();
    let (client, _asides) = connect(world.port).await;
    let (before, refused, after) = tokio::join!(
        client.query_one("SELECT $1::int4", &[&1_i32]),
        client.query_one("SELECT $1::int4 AS forbidden", &[&2_i32]),
        client.query_one("SELECT $1::int4", &[&3_i32]),
    );
    let told = (
        SqlState::INSUFFICIENT_PRIVILEGE,
        "blocked by policy: the test says block".to_owned(),
    );
    assert_eq!(before.unwrap().get::<_, i32>(0), 1);
    assert_eq!(refusal(&refused.unwrap_err()), told);
    assert_eq!(after.unwrap().get::<_, i32>(0), 3);
    let many = client.batch_execute("INSERT INTO t VALUES (1); DELETE FROM forbidden");
    assert_eq!(refusal(&many.await.unwrap_err()), told);
    assert_eq!(world.ids(), "");
}

/// Runs what blocks while the client's connection is served by another thread.
fn blocking<T>(what: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn c_3_tokio_postgres_waits_for_a_person_and_cancels() {
    let world = World::new();
    let (client, _asides) = connect(world.port).await;
    let held = client.prepare("SELECT $1::int4 AS held").await.unwrap();
    let asked = client.query_one(&held, &[&1_i32]);
    let decided = async {
        let approval = blocking(|| world.sidecar.pending_approval());
        blocking(|| world.sidecar.approve(&approval));
    };
    let (row, ()) = tokio::join!(asked, decided);
    assert_eq!(row.unwrap().get::<_, i32>("held"), 1);
    let cancel = client.cancel_token();
    let asked = client.query_one(&held, &[&2_i32]);
    let cancelled = async {
        blocking(|| world.sidecar.pending_approval());
        cancel.cancel_query(NoTls).await.unwrap();
    };
    let (refused, ()) = tokio::join!(asked, cancelled);
    let told = (
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request".to_owned(),
    );
    assert_eq!(refusal(&refused.unwrap_err()), told);
    let row = client.query_one("SELECT 3", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 3);
}
