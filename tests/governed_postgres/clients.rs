//! Real clients, which do not know that the sidecar is there.

use std::process::Command;

use crate::World;

#[test]
fn psql_shows_results_and_refusals() {
    let world = World::new();
    let script = "INSERT INTO t VALUES (1), (2);\nSELECT * FROM t;\n\\copy t (id) TO STDOUT\nDELETE FROM forbidden;\nSELECT count(*) FROM t;\n";
    let file = world.sidecar.setup.write("script.sql", script);
    let ran = Command::new("psql")
        .args(["-At", "-f", &file])
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", world.port.to_string())
        .env("PGUSER", "postgres")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert_eq!(out, "INSERT 0 2\n1|\n2|\n1\n2\n2\n", "{err}");
    assert!(
        err.contains("ERROR:  blocked by policy: the test says block"),
        "{err}"
    );
}

/// Each of these programs checks itself, and says what it has seen.
fn python(script: &str, expected: &str) {
    let world = World::new();
    let python = std::env::vars_os()
        .find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1;
    let ran = Command::new(python)
        .args(["tests/clients/postgres.py", script])
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", world.port.to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert_eq!(out.trim(), expected, "{err}");
}

#[test]
fn psycopg_3_with_pipelines_savepoints_copy_and_server_cursors() {
    python("psycopg3", "psycopg3 saw all");
}

#[test]
fn psycopg_2_with_large_objects_and_named_cursors() {
    python("psycopg2", "psycopg2 saw all");
}

#[test]
fn asyncpg_with_prepared_statements_executemany_and_listeners() {
    python("asyncpg", "asyncpg saw all");
}
