//! Programs that know nothing of the sidecar but their own variables.

use crate::POLICY;
use crate::support::mysql::Server;
use crate::support::process;
use crate::support::sidecar::Setup;

#[test]
fn a_child_that_knows_only_its_own_variables_is_governed() {
    let server = Server::start(&[]);
    let place = format!("localhost:{}", server.port);
    let setup = Setup::new()
        .policy(POLICY)
        .flag("--mysql", &format!("mysql://{place}"))
        .env("DATABASE_URL", &format!("mysql+pymysql://bob@{place}/shop"));
    // Without a variable that says where, the server that is governed is meant.
    let command = ["mariadb", "--no-defaults", "-ubob", "-NB", "shop", "-e"];
    let ran = |setup: &Setup, sql: &str| {
        process::run(&mut setup.run_command(&[&command[..], &[sql]].concat()))
    };
    let allowed = ran(&setup, "SELECT 'in'");
    assert_eq!(allowed.out, "in\n", "{}", allowed.err);
    let blocked = ran(&setup, "DELETE FROM forbidden");
    assert!(
        blocked.err.contains("the test says block"),
        "{}",
        blocked.err
    );
    let python = std::env::vars_os()
        .find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1;
    let script = "import os, sqlalchemy
with sqlalchemy.create_engine(os.environ['DATABASE_URL']).connect() as connection:
    try:
        connection.execute(sqlalchemy.text('DELETE FROM forbidden'))
    except sqlalchemy.exc.DBAPIError as error:
        print(error.orig.args[0])";
    let python = python.to_str().unwrap();
    let blocked = process::run(&mut setup.run_command(&[python, "-c", script]));
    assert_eq!(blocked.out, "1227\n", "{}", blocked.err);
    let by_parts = setup
        .env("MYSQL_HOST", "127.0.0.1")
        .env("MYSQL_TCP_PORT", &server.port.to_string());
    let blocked = ran(&by_parts, "DELETE FROM forbidden");
    assert!(
        blocked.err.contains("the test says block"),
        "{}",
        blocked.err
    );
}
