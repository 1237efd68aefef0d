//! Programs that know nothing of the sidecar but their own variables.

use crate::support::process;
use crate::support::redis::{Reply, Server, text};
use crate::support::sidecar::BINARY;
use crate::{POLICY, Setup, World};

#[test]
fn a_child_that_knows_only_its_redis_url_is_governed() {
    let server = Server::start(&[]);
    let setup = Setup::new()
        .policy(POLICY)
        .flag("--redis", &format!("redis://localhost:{}", server.port))
        .env("REDIS_URL", &format!("redis://127.0.0.1:{}/1", server.port));
    let ran = process::run(&mut setup.run_command(&[
        "sh",
        "-c",
        "redis-cli -u \"$REDIS_URL\" SET allowed 1 && redis-cli -u \"$REDIS_URL\" SET forbidden 1",
    ]));
    let expected = "OK\nNOPERM blocked by policy: the test says block";
    assert!(ran.out.starts_with(expected), "{}{}", ran.out, ran.err);
    let keys = server.ask("INFO keyspace");
    assert!(
        matches!(&keys, Reply::Text(text) if text.contains("db1:keys=1,")),
        "{keys:?}"
    );
    // In two parts, and where nothing is said at all.
    let by_parts = setup
        .env("REDIS_HOST", "LOCALHOST")
        .env("REDIS_PORT", &server.port.to_string());
    let command = "redis-cli -h $REDIS_HOST -p $REDIS_PORT SET forbidden 1";
    let ran = process::run(&mut by_parts.run_command(&["sh", "-c", command]));
    assert!(ran.out.contains("the test says block"), "{}", ran.out);
    let setup = Setup::new()
        .policy(POLICY)
        .flag("--redis", &format!("redis://localhost:{}", server.port));
    let command = "redis-cli -u \"$REDIS_URL\" SET forbidden 1";
    let ran = process::run(&mut setup.run_command(&["sh", "-c", command]));
    assert!(ran.out.contains("the test says block"), "{}", ran.out);
}

#[test]
fn env_sends_a_shell_to_the_relay_of_a_serving_sidecar() {
    let world = World::new();
    let sidecar = &world.sidecar;
    let (port, server) = (world.port, world.server.port);
    let script = format!(
        "eval \"$({BINARY} env --state-dir {} --http-listen {} --agent-listen {} --redis {})\" && exec redis-cli -u \"$CACHE_URL\" SET allowed there",
        sidecar.state.display(),
        sidecar.http,
        sidecar.agent,
        format_args!("127.0.0.1:{port}=redis://localhost:{server}"),
    );
    let url = format!("redis://127.0.0.1:{server}");
    let mut shell = process::command("sh");
    let ended = process::run(shell.args(["-c", &script]).env("CACHE_URL", url));
    assert_eq!(ended.out, "OK\n", "{}", ended.err);
    assert_eq!(world.server.ask("GET allowed"), text("there"));
    assert_eq!(world.told("started").len(), 1);
}
