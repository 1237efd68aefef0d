//! Servers that follow another, and who reads what has changed in one.

use std::process::Output;

use crate::support::mysql::{Server, oracle};
use crate::support::until;
use crate::{POLICY, World};

const JUDGED: &str = "mysql:\n  replication: judge\n";

/// What is opaque passes, but for this.
fn passes_but(forbidden: &str) -> String {
    POLICY
        .replace("span.db_reading.class == \"opaque\"", "false")
        .replace("forbidden", forbidden)
}

fn begun(world: &World) -> Vec<String> {
    let told = world.told("started").into_iter();
    let names = told.map(|line| line["db_operation"].as_str().unwrap_or_default().to_owned());
    names.filter(|name| name.starts_with("COM_")).collect()
}

#[test]
fn my_20_a_server_follows_another_where_that_is_judged() {
    let leads = ["--log-bin=log", "--server-id=7", "--binlog-format=ROW"];
    let follows = Server::start(&["--server-id=8"]);
    let world = World::with(&leads, |setup| setup.config(JUDGED));
    world.sidecar.change_policy(&passes_but("COM_BINLOG"));
    let at = world.server.ask("SHOW MASTER STATUS");
    let at: Vec<_> = at.split_whitespace().collect();
    follows.ask(&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='bob',
         MASTER_CONNECT_RETRY=1, MASTER_LOG_FILE='{}', MASTER_LOG_POS={}; START SLAVE",
        world.port, at[0], at[1]
    ));
    until("the follower to be refused, and to come again", || {
        let begun = begun(&world);
        let dumps = begun.iter().filter(|name| *name == "COM_BINLOG_DUMP");
        (dumps.count() > 1).then_some(())
    });
    assert!(begun(&world).contains(&"COM_REGISTER_SLAVE".to_owned()));
    world.sidecar.change_policy(&passes_but("never said"));
    // The second is more than a packet's frame.
    world.server.ask("INSERT INTO shop.t VALUES (1, 'a')");
    world
        .server
        .ask("INSERT INTO shop.t VALUES (2, REPEAT('x', 20000000))");
    until("what has changed to arrive", || {
        let rows = follows.ask("SELECT id, LENGTH(x) FROM shop.t ORDER BY id");
        (rows == "1\t1\n2\t20000000").then_some(())
    });
    assert_eq!(begun(&world).last().unwrap(), "COM_BINLOG_DUMP");
    follows.ask("STOP SLAVE");
    let completed = world.sidecar.recorded("its end", |line| {
        line["stage"] == "completed" && line["db_operation"] == "COM_BINLOG_DUMP"
    });
    assert_eq!(completed["outcome"], "abandoned", "{completed}");
}

fn told(ran: &Output) -> String {
    String::from_utf8_lossy(&[&ran.stdout[..], &ran.stderr].concat()).into_owned()
}

fn reads_log(world: &World) -> Output {
    let mut command = oracle("mysqlbinlog").unwrap();
    command
        .args(["--read-from-remote-server", "-h127.0.0.1", "-ubob"])
        .args([&format!("-P{}", world.port), "--ssl-mode=DISABLED"])
        .arg("binlog.000001")
        .output()
        .unwrap()
}

/// Who replicates is told so by whoever refuses that, and the journal has it either way.
#[test]
fn my_20_c_6_replication_is_asked_about_and_refused_whatever_policy_says_unless_it_is_judged() {
    let start = || Server::start_oracle(&["--log-bin=binlog", "--server-id=7"]);
    let Some(server) = start() else {
        return;
    };
    let world = World::before(server, "", |setup| setup);
    world.sidecar.change_policy(&passes_but("never said"));
    let text = told(&reads_log(&world));
    assert!(text.contains("mysql.replication"), "{text}");
    let completed = world.sidecar.recorded("its end", |line| {
        line["stage"] == "completed" && line["error"].to_string().contains("replication")
    });
    assert_eq!(completed["db_operation"], "COM_BINLOG_DUMP");
    world.sidecar.change_policy(&passes_but("COM_BINLOG"));
    let ran = reads_log(&world);
    let text = told(&ran);
    assert!(
        !ran.status.success() && text.contains("the test says block"),
        "{text}"
    );
    assert_eq!(world.client().rows("SELECT 1"), ["1"]);

    let world = World::before(start().unwrap(), "", |setup| setup.config(JUDGED));
    world.sidecar.change_policy(&passes_but("never said"));
    let ran = reads_log(&world);
    let text = told(&ran);
    assert!(
        ran.status.success() && text.contains("CREATE DATABASE shop"),
        "{text}"
    );
    let completed = world.sidecar.recorded("its end", |line| {
        line["stage"] == "completed" && line["db_operation"] == "COM_BINLOG_DUMP"
    });
    assert_eq!(completed["outcome"], "answered", "{completed}");
}

#[test]
fn my_20_c_9_a_session_with_a_limit_of_rows_does_not_replicate() {
    let world = World::with(&["--log-bin=log", "--server-id=7"], |setup| {
        setup.config(&format!("{JUDGED}  sessions: judge\n"))
    });
    world.sidecar.change_policy(&passes_but("never said"));
    let mut client = world.client();
    let answer = client.command(b"\x12\x04\0\0\0\0\0\x01\0\0\0log.000001");
    let (code, text) = answer[0].error();
    assert!(code == 1227 && text.contains("limit of rows"), "{text}");
    assert_eq!(client.rows("SELECT 1"), ["1"]);
}
