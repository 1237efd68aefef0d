//! Programs that know nothing of the sidecar but their own variables.

use crate::support::authority::{Authority, Dates};
use crate::support::postgres::{PASSWORD, Server};
use crate::support::process;
use crate::support::sidecar::{BINARY, Setup};
use crate::{POLICY, World};

#[test]
fn a_child_that_knows_only_its_database_url_is_governed() {
    let authority = Authority::new();
    let (chain, key) = authority.pair("localhost", Dates::Current);
    let hba = "hostssl all all all scram-sha-256\n";
    let server = Server::start_secured(hba, &chain, &key, &authority.pem);
    let setup = Setup::new().policy(POLICY);
    let root = setup.write("root.pem", &authority.pem);
    let place = format!("localhost:{}", server.port);
    let tls = format!("sslmode=verify-full&sslrootcert={root}");
    let setup = setup
        .flag("--pg", &format!("postgres://{place}?{tls}"))
        .env(
            "DATABASE_URL",
            &format!(
                "postgres://postgres:{PASSWORD}@{place}/postgres?{tls}&channel_binding=require"
            ),
        );
    let allowed = process::run(&mut setup.run_command(&[
        "sh",
        "-c",
        "exec psql -XAt \"$DATABASE_URL\" -c \"SELECT 'in as ' || current_user\"",
    ]));
    assert_eq!(allowed.out, "in as postgres\n", "{}", allowed.err);
    let python = std::env::vars_os()
        .find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1;
    let script = "import os, psycopg
with psycopg.connect(os.environ['DATABASE_URL']) as conn:
    try:
        conn.execute('SELECT 1 AS forbidden')
    except psycopg.errors.InsufficientPrivilege as error:
        print(error.diag.message_primary)";
    let python = python.to_str().unwrap();
    let blocked = process::run(&mut setup.run_command(&[python, "-c", script]));
    assert_eq!(
        blocked.out, "blocked by policy: the test says block\n",
        "{}",
        blocked.err
    );
    // The same server by the variables of its own clients.
    let by_parts = setup
        .env("PGHOST", "LOCALHOST")
        .env("PGPORT", &server.port.to_string())
        .env("PGUSER", "postgres")
        .env("PGPASSWORD", PASSWORD)
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", &root);
    let sql = "SELECT 2 AS forbidden";
    let blocked = process::run(&mut by_parts.run_command(&["psql", "-XAt", "-c", sql]));
    assert!(
        blocked.err.contains("the test says block"),
        "{}",
        blocked.err
    );
}

#[test]
fn env_sends_a_shell_to_the_relay_of_a_serving_sidecar() {
    let world = World::new();
    let sidecar = &world.sidecar;
    let (port, server) = (world.port, world.server.port);
    let script = format!(
        "eval \"$({BINARY} env --state-dir {} --http-listen {} --agent-listen {} --pg {})\" && exec psql -XAt \"$ORDERS_URL\" -c 'SELECT 1 AS forbidden'",
        sidecar.state.display(),
        sidecar.http,
        sidecar.agent,
        format_args!("127.0.0.1:{port}=postgres://localhost:{server}"),
    );
    let url = format!("postgresql://postgres@127.0.0.1:{server}/postgres");
    let mut shell = process::command("sh");
    let ended = process::run(shell.args(["-c", &script]).env("ORDERS_URL", url));
    assert!(ended.err.contains("the test says block"), "{}", ended.err);
}
