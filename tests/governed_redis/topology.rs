//! Clusters and Sentinels, real ones: their clients stay with the sidecar.

use std::process::Command;

use crate::POLICY;
use crate::support::redis::{Client, Reply, Server, simple, text};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::{free_port, until};

/// Three masters, each with a third of the slots.
fn cluster() -> Vec<Server> {
    let start = |_| {
        let bus = free_port().to_string();
        Server::start(&["--cluster-enabled", "yes", "--cluster-port", &bus])
    };
    let nodes: Vec<_> = (0..3).map(start).collect();
    let ranges = ["0 5460", "5461 10922", "10923 16383"];
    for (node, range) in nodes.iter().zip(ranges) {
        let reply = node.ask(&format!("CLUSTER ADDSLOTSRANGE {range}"));
        assert_eq!(reply, simple("OK"));
        let Reply::Text(bus) = node.ask("CLUSTER NODES") else {
            panic!()
        };
        let bus = bus.split(['@', ' ', ',']).nth(2).unwrap().to_owned();
        let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port);
        for other in &nodes {
            assert_eq!(other.ask(&meet), simple("OK"));
        }
    }
    for node in &nodes {
        until("the cluster to agree", || {
            let Reply::Text(info) = node.ask("CLUSTER INFO") else {
                panic!()
            };
            let agreed = ["cluster_state:ok", "cluster_known_nodes:3\r"];
            agreed.iter().all(|word| info.contains(word)).then_some(())
        });
    }
    nodes
}

/// A sidecar for these servers, and where it listens for each.
fn governed(ports: &[u16], more: impl FnOnce(Setup) -> Setup) -> (Sidecar, Vec<u16>) {
    let mut setup = Setup::new().policy(POLICY);
    let mut listeners = Vec::new();
    for port in ports {
        let listen = free_port();
        listeners.push(listen);
        setup = setup.flag(
            "--redis",
            &format!("127.0.0.1:{listen}=redis://localhost:{port}"),
        );
    }
    (more(setup).start(), listeners)
}

fn ports(nodes: &[Server]) -> Vec<u16> {
    nodes.iter().map(|node| node.port).collect()
}

/// Every number and text of a reply, one after the other.
fn flat(reply: &Reply) -> String {
    match reply {
        Reply::Many(all) | Reply::Push(all) => all.iter().map(flat).collect::<Vec<_>>().join(" "),
        Reply::Text(text) | Reply::Simple(text) | Reply::Error(text) => text.clone(),
        Reply::Integer(number) => number.to_string(),
        Reply::Null | Reply::End => String::new(),
    }
}

/// Whether a word of `said` is that port: ids and times may hold its digits.
fn names(said: &str, port: u16) -> bool {
    let port = port.to_string();
    said.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word == port)
}

const ANSWERS: [&str; 3] = ["CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER NODES"];

#[test]
fn rd_13_a_cluster_is_where_the_sidecar_listens_for_its_nodes() {
    let nodes = cluster();
    let (_sidecar, listeners) = governed(&ports(&nodes), |setup| setup);
    for version in ["HELLO 2", "HELLO 3"] {
        let mut client = Client::connect(listeners[0]);
        client.ask(version);
        for line in ANSWERS {
            let said = flat(&client.ask(line));
            for (node, listener) in nodes.iter().zip(&listeners) {
                assert!(said.contains(&listener.to_string()), "{line}: {said}");
                assert!(!names(&said, node.port), "{line}: {said}");
            }
        }
        assert!(client.ask("GET {b}forbidden").is_refusal());
    }
    // `a` is the third's, slot 15495; `b` the first's.
    let mut client = Client::connect(listeners[0]);
    let moved = client.ask("SET a 1");
    let expected = format!("MOVED 15495 127.0.0.1:{}", listeners[2]);
    assert_eq!(moved.error(), expected);
    assert_eq!(client.ask("SET b 1"), simple("OK"));
    let replies = client.all(&["MULTI", "CLUSTER SLOTS", "EXEC", "GET b"]);
    assert!(replies[1].is_refusal() && replies[2].error().starts_with("EXECABORT"));
    assert_eq!(replies[3], text("1"));
    // A slot that moves.
    let Reply::Text(third) = nodes[2].ask("CLUSTER MYID") else {
        panic!()
    };
    let Reply::Text(first) = nodes[0].ask("CLUSTER MYID") else {
        panic!()
    };
    nodes[2].ask(&format!("CLUSTER SETSLOT 15495 MIGRATING {first}"));
    nodes[0].ask(&format!("CLUSTER SETSLOT 15495 IMPORTING {third}"));
    let ask = Client::connect(listeners[2]).ask("GET a");
    assert_eq!(ask.error(), format!("ASK 15495 127.0.0.1:{}", listeners[0]));
    assert_eq!(client.all(&["ASKING", "SET a 2"])[1], simple("OK"));
}

#[test]
fn rd_13_a_node_that_is_not_governed_is_refused_or_gets_a_listener() {
    let nodes = cluster();
    let (_sidecar, listeners) = governed(&ports(&nodes)[..1], |setup| setup);
    let mut client = Client::connect(listeners[0]);
    for line in ANSWERS {
        let reply = client.ask(line);
        assert!(reply.is_refusal(), "{line}: {reply:?}");
        assert!(reply.error().contains("give it a --redis"), "{reply:?}");
    }
    let error = client.ask("SET a 1");
    let is_named = error.error().contains(&format!(":{}", nodes[2].port));
    assert!(error.error().starts_with("ERR ") && is_named, "{error:?}");
    // Or one is opened.
    let open = |setup: Setup| setup.config("redis:\n  nodes: open\n");
    let (_sidecar, listeners) = governed(&ports(&nodes)[..1], open);
    let mut client = Client::connect(listeners[0]);
    let moved = client.ask("SET a 1");
    let port = moved.error().rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(!ports(&nodes).contains(&port), "{moved:?}");
    let mut other = Client::connect(port);
    assert_eq!(other.ask("SET a 1"), simple("OK"));
    assert!(other.ask("SET {a}forbidden 1").is_refusal());
    assert_eq!(client.ask("SET a 1"), moved, "the same one is named again");
    assert_eq!(nodes[2].ask("GET a"), text("1"));
}

/// Each of these programs checks itself, and says what it has seen.
fn checks(program: &mut Command, env: &[(&str, u16)], expected: &str) {
    for (name, value) in env {
        program.env(name, value.to_string());
    }
    let ran = program.output().unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    let err = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(out.trim(), expected, "{err}");
}

fn python() -> Command {
    let python = std::env::vars_os()
        .find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1;
    let mut command = Command::new(python);
    command.arg("tests/clients/redis_topology.py");
    command
}

#[test]
fn rd_13_clients_of_clusters_are_governed_on_every_node() {
    let nodes = cluster();
    let (sidecar, listeners) = governed(&ports(&nodes), |setup| setup);
    let at = [("REDIS_PORT", listeners[0])];
    checks(python().arg("cluster"), &at, "cluster saw all");
    for client in ["ioredis-cluster", "node-redis-cluster"] {
        let expected = format!("{client} saw all");
        let mut node = Command::new("node");
        checks(
            node.args(["tests/clients/redis_topology.mjs", client]),
            &at,
            &expected,
        );
    }
    for node in &nodes {
        assert!(!matches!(node.ask("DBSIZE"), Reply::Integer(0)));
    }
    let told = sidecar.journal().into_iter();
    let sets = told.filter(|line| line["db_operation"] == "SET" && line["stage"] == "started");
    assert_eq!(sets.count(), 3 * 64);
}

/// A Sentinel of `master`.
fn sentinel(master: &Server) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentinel.conf");
    std::fs::write(&file, "sentinel resolve-hostnames no\n").unwrap();
    let server = Server::start_sentinel(&file, folder);
    let monitor = format!("SENTINEL MONITOR mymaster 127.0.0.1 {} 1", master.port);
    assert_eq!(server.ask(&monitor), simple("OK"));
    server
}

#[test]
fn rd_13_what_sentinel_names_is_where_the_sidecar_listens_for_it() {
    let master = Server::start(&[]);
    let of_master = format!("127.0.0.1 {}", master.port);
    let _replica = Server::start(&["--replicaof", &of_master]);
    let sentinel = sentinel(&master);
    until("the replica to be known", || {
        let said = flat(&sentinel.ask("SENTINEL REPLICAS mymaster"));
        said.contains("slave").then_some(())
    });
    let (_sidecar, listeners) = governed(&[sentinel.port, master.port], |setup| setup);
    let listener = listeners[1].to_string();
    for version in ["HELLO 2", "HELLO 3"] {
        let mut client = Client::connect(listeners[0]);
        client.ask(version);
        for line in [
            "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster",
            "SENTINEL MASTERS",
            "SENTINEL MASTER mymaster",
        ] {
            let said = flat(&client.ask(line));
            assert!(said.contains(&listener), "{line}: {said}");
            assert!(!names(&said, master.port), "{line}: {said}");
        }
        // The replica has no place here.
        assert_eq!(
            client.ask("SENTINEL REPLICAS mymaster"),
            Reply::Many(Vec::new())
        );
        assert!(client.ask("SENTINEL REMOVE mymaster").is_refusal());
    }
    let at = [("SENTINEL_PORT", listeners[0])];
    checks(python().arg("sentinel"), &at, "sentinel saw all");
    let mut node = Command::new("node");
    checks(
        node.args(["tests/clients/redis_topology.mjs", "ioredis-sentinel"]),
        &at,
        "ioredis-sentinel saw all",
    );
}

#[test]
fn rd_13_a_switch_of_the_master_names_what_the_sidecar_listens_for() {
    let master = Server::start(&[]);
    let of_master = format!("127.0.0.1 {}", master.port);
    let replica = Server::start(&["--replicaof", &of_master]);
    let sentinel = sentinel(&master);
    until("the replica to be known", || {
        let said = flat(&sentinel.ask("SENTINEL REPLICAS mymaster"));
        said.contains("slave").then_some(())
    });
    let servers = [sentinel.port, master.port, replica.port];
    let (_sidecar, listeners) = governed(&servers, |setup| setup);
    let mut client = Client::connect(listeners[0]);
    let found = flat(&client.ask("SENTINEL REPLICAS mymaster"));
    let here = format!("127.0.0.1:{}", listeners[2]);
    assert!(found.contains(&here), "{found}");
    client.ask("SUBSCRIBE +switch-master");
    until("the replica to be fit", || {
        let reply = sentinel.ask("SENTINEL FAILOVER mymaster");
        (reply == simple("OK")).then_some(())
    });
    let (old, new) = (listeners[1], listeners[2]);
    let expected = format!("message +switch-master mymaster 127.0.0.1 {old} 127.0.0.1 {new}");
    assert_eq!(flat(&client.next()), expected);
}
