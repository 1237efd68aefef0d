//! Logging in to a server in the agent's place.

use crate::support::postgres::{Client, PASSWORD, Server, tags};
use crate::support::sidecar::{Setup, Sidecar};
use crate::{POLICY, World, error};

/// A server that asks for a password by `method`, and a sidecar that has `lines`
/// in its passfile and logs in as `role`.
fn world(method: &str, role: &str, lines: &str) -> World {
    let server = Server::start_with(&format!("host all all all {method}\n"), &[]);
    let port = crate::free_port();
    let setup = Setup::new().policy(POLICY);
    let passfile = setup.write("pgpass", &lines.replace("PORT", &server.port.to_string()));
    let url = format!(
        "127.0.0.1:{port}=postgres://{role}localhost:{}?passfile={passfile}",
        server.port
    );
    let sidecar = setup.flag("--pg", &url).start();
    World {
        server,
        sidecar,
        port,
    }
}

fn never_shown(sidecar: &Sidecar) {
    let shown = format!("{:?}{}", sidecar.journal(), sidecar.running.err());
    for secret in [PASSWORD, "battery-staple"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn pg_8_the_sidecar_logs_in_with_a_password_that_the_agent_does_not_know() {
    for method in ["scram-sha-256", "md5", "password"] {
        let lines = format!("# of a test\nlocalhost:PORT:*:postgres:{PASSWORD}\n");
        let world = world(method, "postgres@", &lines);
        // Whoever it says it is, and without a word of a password.
        let mut client = Client::connect(world.port, &[("user", "nobody")]);
        assert!(tags(&client.greeting).starts_with('R'), "{method}");
        assert_eq!(client.greeting[0].body, [0; 4], "{method}");
        let who = client.rows("SELECT current_user || ' in ' || current_database()");
        assert_eq!(who, [["postgres in postgres"]], "{method}");
        let refused = client.query("DELETE FROM forbidden");
        assert_eq!(error(&refused).field('C'), "42501", "{method}");
        never_shown(&world.sidecar);
    }
}

#[test]
fn pg_8_pg_12_a_login_that_fails_is_told_and_shows_no_password() {
    for (method, role, lines, code, said) in [
        (
            "scram-sha-256",
            "",
            "*:*:*:postgres:battery-staple\n",
            "28P01",
            "password authentication failed",
        ),
        (
            "md5",
            "",
            "*:*:*:postgres:battery-staple\n",
            "28P01",
            "password authentication failed",
        ),
        (
            "scram-sha-256",
            "",
            "*:*:*:other:battery-staple\n",
            "28000",
            "no line of the passfile",
        ),
        (
            "scram-sha-256",
            "other@",
            "*:*:*:postgres:battery-staple\n",
            "28000",
            "no line of the passfile",
        ),
    ] {
        let world = world(method, role, lines);
        let mut client = Client::open(world.port);
        client.startup(196_608, &[("user", "postgres")]);
        let answer = client.until_ready();
        let last = error(&answer);
        assert_eq!(
            (last.field('V'), last.field('C')),
            ("FATAL".into(), code.into())
        );
        assert!(last.field('M').contains(said), "{}", last.field('M'));
        never_shown(&world.sidecar);
    }
}

#[test]
fn pg_8_what_may_not_start_is_refused_before_anybody_logs_in() {
    let lines = format!("*:*:*:*:{PASSWORD}\n");
    let world = world("scram-sha-256", "postgres@", &lines);
    let mut client = Client::open(world.port);
    let judged = [("user", "postgres"), ("role", "pg_monitor")];
    client.startup(196_608, &judged);
    assert_eq!(error(&client.until_ready()).field('C'), "42501");
}
