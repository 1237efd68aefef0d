//! mysql_async, the client of Rust programs: prints what it sees of the server at a
//! port, so that two ways to one can be compared. `forbidden` is not there for it to
//! see: what happens to statements that name it is printed last.

use futures_util::StreamExt;
use mysql_async::prelude::{Query, Queryable, WithParams};
use mysql_async::{Conn, Error, OptsBuilder, Params, TxOpts, params};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let port = port.expect("the port of a server");
    let options = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some("bob"))
        .pass(Some("secret"))
        .db_name(Some("shop"))
        .prefer_socket(false);
    let mut conn = Conn::new(options).await?;
    texts(&mut conn).await?;
    prepared(&mut conn).await?;
    transactions(&mut conn).await?;
    conn.ping().await?;
    println!("reset: {}", conn.reset().await?);
    refused(&mut conn).await?;
    conn.disconnect().await
}

/// Text queries, of several results, and of many rows.
async fn texts(conn: &mut Conn) -> Result<(), Error> {
    conn.query_drop("DROP TABLE IF EXISTS made").await?;
    conn.query_drop("CREATE TABLE made (id int PRIMARY KEY, x longtext)")
        .await?;
    let mut result = conn
        .query_iter("INSERT INTO made VALUES (1, 'it\\'s'); SELECT x FROM made; DO 0; SELECT 7")
        .await?;
    while !result.is_empty() {
        let rows: Vec<mysql_async::Row> = result.collect().await?;
        println!("a result: {rows:?}, {} affected", result.affected_rows());
    }
    drop(result);
    let digits = "SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3";
    let many = format!(
        "SELECT a.d + b.d, repeat('é', 999) FROM ({digits}) a, ({digits}) b, ({digits}) c, ({digits}) d"
    );
    let mut rows = conn.query_stream::<(i64, String), _>(&*many).await?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = rows.next().await {
        let (_, text) = row?;
        (count, bytes) = (count + 1, bytes + text.len());
    }
    println!("{count} rows of {bytes} bytes");
    Ok(())
}

/// Prepared statements: values of several types, batches, and errors.
async fn prepared(conn: &mut Conn) -> Result<(), Error> {
    let rows = (2..40).map(|id| (id, format!("name {id}")));
    conn.exec_batch("INSERT INTO made VALUES (?, ?)", rows)
        .await?;
    let found: Vec<(i32, Option<String>)> = conn
        .exec(
            "SELECT id, x FROM made WHERE id % 13 = :rest",
            params! {"rest" => 1},
        )
        .await?;
    println!("{found:?}");
    // Sent ahead of its execution, as it is long.
    let long = "x".repeat(17 << 20);
    conn.exec_drop("UPDATE made SET x = ? WHERE id = 3", (&long,))
        .await?;
    let length: Option<usize> = "SELECT length(x) FROM made WHERE id = ?"
        .with((3,))
        .first(&mut *conn)
        .await?;
    println!("{length:?} bytes were kept");
    let twice = conn
        .exec_drop("INSERT INTO made VALUES (?, 'twice')", (2,))
        .await;
    println!("twice: {}", told(twice));
    println!(
        "no table: {}",
        told(conn.query_drop("SELECT 1 FROM nowhere").await)
    );
    Ok(())
}

async fn transactions(conn: &mut Conn) -> Result<(), Error> {
    let mut transaction = conn.start_transaction(TxOpts::default()).await?;
    transaction
        .query_drop("DELETE FROM made WHERE id < 20")
        .await?;
    println!("{} gone", transaction.affected_rows());
    transaction.rollback().await?;
    let left: Option<i64> = conn.query_first("SELECT count(*) FROM made").await?;
    println!("{left:?} left");
    Ok(())
}

/// What names `forbidden`, as text and prepared, in a transaction that goes on.
async fn refused(conn: &mut Conn) -> Result<(), Error> {
    let mut transaction = conn.start_transaction(TxOpts::default()).await?;
    transaction
        .query_drop("INSERT INTO made VALUES (200, 'kept')")
        .await?;
    println!(
        "text: {}",
        told(transaction.query_drop("DELETE FROM forbidden").await)
    );
    let statement = "DELETE FROM forbidden WHERE id = ?";
    println!(
        "prepared: {}",
        told(transaction.exec_drop(statement, (1,)).await)
    );
    transaction.commit().await?;
    let kept: Option<String> = conn
        .exec_first("SELECT x FROM made WHERE id = 200", Params::Empty)
        .await?;
    println!("{kept:?}");
    Ok(())
}

/// The code of an error of the server, and its text.
fn told(answer: Result<(), Error>) -> String {
    match answer {
        Ok(()) => "done".to_owned(),
        Err(Error::Server(error)) => format!("{} {}: {}", error.code, error.state, error.message),
        Err(other) => format!("{other}"),
    }
}
