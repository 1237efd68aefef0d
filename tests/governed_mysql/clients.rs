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
