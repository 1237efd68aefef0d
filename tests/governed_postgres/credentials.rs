//! Logging in to a server in the agent's place.

use std::process::Command;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use crate::support::postgres::{Client, Message, PASSWORD, Server, tags};
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

/// What an agent of this sidecar hears that starts with `parameters` and proves `password`, where it is let in: without
/// the proof itself.
fn start(world: &World, parameters: &[(&str, &str)], password: &str) -> (Client, Vec<Message>) {
    let mut client = Client::open(world.port);
    client.startup(196_608, parameters);
    let offer = client.next().unwrap();
    assert_eq!(offer.body, b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let first = scram.message();
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    say(
        &mut client,
        &[b"SCRAM-SHA-256\0", &length[..], first].concat(),
    );
    let challenge = client.next().unwrap();
    scram.update(&challenge.body[4..]).unwrap();
    say(&mut client, scram.message());
    let proof = client.next().unwrap();
    if proof.tag == 'E' {
        return (client, vec![proof]);
    }
    scram.finish(&proof.body[4..]).unwrap();
    let heard = client.until_ready();
    (client, heard)
}

fn say(client: &mut Client, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    client.send(&[b"p", &length[..], body].concat());
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
        // Whoever it says it is, and without a word of the password.
        let token = world.sidecar.agent_token.clone();
        let (mut client, heard) = start(&world, &[("user", "nobody")], &token);
        assert!(tags(&heard).starts_with('R'), "{method}");
        assert_eq!(heard[0].body, [0; 4], "{method}");
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
        let token = world.sidecar.agent_token.clone();
        let (_client, answer) = start(&world, &[("user", "postgres")], &token);
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
    let judged = [("user", "postgres"), ("role", "pg_monitor")];
    let token = world.sidecar.agent_token.clone();
    let (_client, answer) = start(&world, &judged, &token);
    assert_eq!(error(&answer).field('C'), "42501");
}

#[test]
fn pg_8_who_comes_by_a_network_proves_the_token_and_who_comes_by_a_path_need_not() {
    let lines = format!("*:*:*:*:{PASSWORD}\n");
    let world = world("scram-sha-256", "postgres@", &lines);
    for password in ["", "obx_live_wrong", PASSWORD] {
        let (mut client, answer) = start(&world, &[("user", "a")], password);
        let last = error(&answer);
        assert_eq!(
            (last.field('V'), last.field('C')),
            ("FATAL".into(), "28P01".into())
        );
        assert!(
            last.field('M').contains("agent token"),
            "{}",
            last.field('M')
        );
        assert!(client.next().is_none());
    }
    // What is said before the proof is done is not heard.
    let mut early = Client::open(world.port);
    early.startup(196_608, &[("user", "a")]);
    drop(early.next());
    early.send(b"Q\0\0\0\x0dSELECT 1\0");
    assert_eq!(error(&early.until_ready()).field('C'), "08P01");

    let psql = |password: &str, place: &str| {
        let program = Command::new("psql")
            .args([
                "-XAtc",
                "SELECT current_user",
                &format!("{place} user=a dbname=postgres"),
            ])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (said(&program.stdout), said(&program.stderr))
    };
    let here = format!("host=127.0.0.1 port={}", world.port);
    assert_eq!(
        psql(&world.sidecar.agent_token, &here),
        ("postgres".into(), String::new())
    );
    let (_, refused) = psql("wrong", &here);
    assert!(refused.contains("agent token"), "{refused}");

    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new().policy(POLICY);
    let passfile = setup.write("pgpass", &lines);
    let (path, server) = (folder.path().display(), world.server.port);
    let url = format!("{path}=postgres://postgres@localhost:{server}?passfile={passfile}");
    let _sidecar = setup.flag("--pg", &url).start();
    crate::support::until("the path", || {
        folder.path().join(".s.PGSQL.5432").exists().then_some(())
    });
    let by_path = psql("", &format!("host={path}"));
    assert_eq!(by_path, ("postgres".into(), String::new()));
}
