//! Real clients, which do not know that the sidecar is there.

use std::process::Command;

use crate::World;

#[test]
fn mariadb_shows_results_and_refusals() {
    let world = World::new();
    let script = "INSERT INTO t VALUES (1, 'it\\'s'), (2, \"b\");\nSELECT * FROM t;\nDELETE FROM forbidden;\nDELIMITER //\nSELECT count(*) FROM t //\n";
    let file = world.sidecar.setup.write("script.sql", script);
    let ran = Command::new("mariadb")
        .args([
            "--no-defaults",
            "-h127.0.0.1",
            "-ubob",
            "-NB",
            "--force",
            "shop",
        ])
        .arg(format!("-P{}", world.port))
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert_eq!(out, "1\tit's\n2\tb\n2\n", "{err}");
    assert!(
        err.contains("ERROR 1227 (42000)") && err.contains("the test says block"),
        "{err}"
    );
}

/// A world in which `bob` has a password.
fn world() -> World {
    let world = World::new();
    world
        .server
        .ask("ALTER USER bob@'%' IDENTIFIED BY 'secret'");
    world
}

/// Each of these programs checks itself, and says what it has seen.
fn checks(world: &World, program: &mut Command, expected: &str) {
    let ran = program
        .env("MYSQL_PORT", world.port.to_string())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert_eq!(out.trim(), expected, "{err}");
}

fn python(client: &str) {
    python_in(&world(), client);
}

/// `client` against whatever server there is.
pub(crate) fn python_in(world: &World, client: &str) {
    let python = std::env::vars_os()
        .find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1;
    checks(
        world,
        Command::new(python).args(["tests/clients/mysql_clients.py", client]),
        &format!("{client} saw all"),
    );
}

#[test]
fn pymysql_with_transactions_and_several_rows() {
    python("pymysql");
}

#[test]
fn mysql_connector_with_prepared_statements_and_a_change_of_user() {
    python("connector");
}

#[test]
fn aiomysql_with_a_pool() {
    python("aiomysql");
}

#[test]
fn sqlalchemy_with_tables_of_its_own() {
    python("sqlalchemy");
}

#[test]
fn mysql2_with_prepared_statements_and_several_results() {
    node_in(&world());
}

pub(crate) fn node_in(world: &World) {
    checks(
        world,
        Command::new("node").arg("tests/clients/mysql.mjs"),
        "mysql2 saw all",
    );
}

#[test]
fn mysqlclient_with_rows_that_are_read_as_they_come() {
    python("mysqlclient");
}

/// In two ways to the same server alike, as that counts it: what it draws at random no seed
/// says.
#[test]
fn sysbench_sees_no_errors_and_has_the_server_do_the_same() {
    sysbench_in(&World::with(&[], |setup| setup));
}

pub(crate) fn sysbench_in(world: &World) {
    world
        .server
        .ask("ALTER USER bob@'%' IDENTIFIED BY 'secret'");
    let sysbench = |port: u16, test: &str, more: &[&str]| {
        let ran = Command::new("sysbench")
            .arg(test)
            .args(["--mysql-host=127.0.0.1", "--mysql-user=bob"])
            .args(["--mysql-password=secret", "--mysql-db=shop"])
            .args([&format!("--mysql-port={port}"), "--table-size=500"])
            .args(["--events=60", "--time=0"])
            .args(more)
            .output()
            .expect("scripts/needs.sh was not run");
        let out = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{out}");
        out
    };
    for mode in ["--db-ps-mode=auto", "--db-ps-mode=disable"] {
        let done = [world.server.port, world.port].map(|port| {
            sysbench(port, "oltp_read_write", &["prepare"]);
            let before = counted(world);
            let ran = sysbench(port, "oltp_read_write", &[mode, "run"]);
            let after = counted(world);
            assert_eq!(said(&ran, "transactions:"), "60", "{ran}");
            assert_eq!(said(&ran, "ignored errors:"), "0", "{ran}");
            let rows = world
                .server
                .ask("SELECT count(*), max(id) FROM shop.sbtest1");
            sysbench(port, "oltp_read_write", &["cleanup"]);
            let counts: Vec<_> = after.iter().zip(before).map(|(a, b)| a - b).collect();
            (said(&ran, "queries:").to_owned(), counts, rows)
        });
        assert_eq!(done[0].1, [60, 60, 60, 60, 120], "{done:?}");
        assert_eq!(done[0], done[1], "{mode}");
    }
}

/// Statements of five kinds that the server has executed.
fn counted(world: &World) -> Vec<u64> {
    let told = world.server.ask(
        "SHOW GLOBAL STATUS WHERE Variable_name IN
         ('Com_begin', 'Com_commit', 'Com_delete', 'Com_insert', 'Com_update')",
    );
    let counts = told.lines().filter_map(|line| line.split('\t').nth(1));
    counts.map(|count| count.parse().unwrap()).collect()
}

/// The number that is said behind `what`.
fn said<'a>(out: &'a str, what: &str) -> &'a str {
    let line = out.lines().find(|line| line.trim().starts_with(what));
    let words = line.and_then(|line| line.split(what).nth(1)).unwrap_or(out);
    words.split_whitespace().next().unwrap_or_default()
}

#[test]
fn mysql_async_sees_the_same_direct_and_relayed_and_refusals_in_their_place() {
    mysql_async_in(&world());
}

pub(crate) fn mysql_async_in(world: &World) {
    let seen = |port: u16| {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/bin/mysql-async-client");
        let ran = Command::new(program).arg(port.to_string()).output();
        let ran = ran.expect("scripts/needs.sh was not run");
        let err = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{err}");
        let out = String::from_utf8_lossy(&ran.stdout);
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (direct, relayed) = (seen(world.server.port), seen(world.port));
    let names = |line: &&String| line.starts_with("text: ") || line.starts_with("prepared: ");
    let same =
        |all: &[String]| -> Vec<_> { all.iter().filter(|line| !names(line)).cloned().collect() };
    assert_eq!(same(&relayed), same(&direct));
    let refusals: Vec<_> = relayed.iter().filter(names).collect();
    assert_eq!(refusals.len(), 2, "{relayed:?}");
    for refusal in refusals {
        assert!(
            refusal.contains("1227 42000: blocked by policy"),
            "{refusal}"
        );
    }
    assert!(
        direct
            .iter()
            .filter(names)
            .all(|line| line.ends_with(": done"))
    );
}

#[test]
fn my_13_many_rows_of_one_packet_are_judged_as_their_statement() {
    let world = World::new();
    world
        .server
        .ask("CREATE TABLE shop.bytes (id int, x longblob)");
    let program = world.sidecar.setup.write("bulk", "");
    let built = Command::new("cc")
        .args(["-Wall", "-Werror", "-o", &program])
        .args(["tests/clients/bulk.c", "-lmariadb"])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{err}");
    let ran = Command::new(&program)
        .arg(world.port.to_string())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    let lines: Vec<_> = out.lines().collect();
    let [first, refused, last] = lines[..] else {
        panic!("{out}{}", String::from_utf8_lossy(&ran.stderr))
    };
    assert_eq!((first, last), ("3 rows", "3 rows"));
    assert!(refused.starts_with("1227 blocked by policy"), "{refused}");
    let rows = "SELECT count(*), count(DISTINCT id), max(hex(x)) FROM shop.bytes";
    assert_eq!(world.server.ask(rows), "6\t3\tFF2762");
    // Once for all its rows, as they were sent.
    let started = world.told("started");
    assert_eq!(started.len(), 3, "{started:?}");
    let completed = || {
        let lines = world.told("completed").into_iter();
        lines.filter(|line| line["rows"] == 3).count()
    };
    crate::support::until("both to complete", || (completed() == 2).then_some(()));
}
