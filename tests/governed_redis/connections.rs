//! How connections begin and end, and whose they are.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::json;

use crate::clients::python_program;
use crate::support::redis::{Client, Reply, Server, array, simple, text};
use crate::support::until;
use crate::{POLICY, Setup, World};

#[test]
fn rd_5_logging_in_is_the_servers_and_nobody_else_sees_how() {
    let world = World::with(&["--requirepass", "correct-horse"], |setup| setup);
    let mut client = world.client();
    assert!(client.ask("GET a").error().starts_with("NOAUTH"));
    assert!(client.ask("GET forbidden").is_refusal());
    assert!(client.ask("AUTH wrong").error().starts_with("WRONGPASS"));
    assert_eq!(client.ask("AUTH correct-horse"), simple("OK"));
    assert_eq!(client.ask("SET a 1"), simple("OK"));
    let mut client = world.client();
    let hello = client.ask("HELLO 3 AUTH default correct-horse SETNAME me");
    let Reply::Many(hello) = hello else {
        panic!("{hello:?}")
    };
    assert!(
        hello.contains(&Reply::Integer(3)),
        "it is not downgraded: {hello:?}"
    );
    assert_eq!(client.ask("GET b"), Reply::Null);
    until("the records", || {
        (world.told("completed").len() == 3).then_some(())
    });
    let journal = std::fs::read_to_string(world.sidecar.state.join("journal.jsonl")).unwrap();
    assert!(!journal.contains("horse") && !world.sidecar.log().contains("horse"));
}

#[test]
fn c_12_a_client_name_or_user_says_whose_a_command_is() {
    let world = World::new();
    let sidecar = &world.sidecar;
    let run = json!({ "workflow_id": "w", "run_id": "r", "workflow_type": "t" });
    sidecar.event("/v1/workflows", &run);
    let activity =
        json!({ "workflow_id": "w", "run_id": "r", "activity_id": "a1", "activity_type": "t" });
    sidecar.event("/v1/activities", &activity);
    let other =
        json!({ "workflow_id": "w", "run_id": "r", "activity_id": "a2", "activity_type": "t" });
    sidecar.event("/v1/activities", &other);
    let context = json!({ "workflow_id": "w", "run_id": "r", "activity_id": "a1" });
    let (status, answer) = sidecar.agent("PUT", "/v1/contexts/mine", &context.to_string());
    assert_eq!(status, 200, "{answer}");
    world.server.ask("ACL SETUSER mine on nopass ~* +@all");
    for login in [
        "CLIENT SETNAME mine",
        "AUTH mine x",
        "HELLO 2 SETNAME mine",
        "HELLO 3 AUTH mine x",
    ] {
        let mut client = world.client();
        let before = world.told("started").len();
        client.all(&[login, "GET a"]);
        let told = until("the record", || world.told("started").get(before).cloned());
        assert_eq!(told["attribution"], "database_hint", "{login}: {told}");
        assert_eq!(told["activity_id"], "a1", "{login}: {told}");
    }
    // A login that the server turned down, or that was undone, is nobody's.
    world.server.ask("ACL SETUSER mine resetpass");
    for logins in [&["AUTH mine wrong"][..], &["CLIENT SETNAME mine", "RESET"]] {
        let mut client = world.client();
        let before = world.told("started").len();
        client.all(logins);
        client.ask("GET a");
        let told = until("the record", || world.told("started").get(before).cloned());
        assert_ne!(told["attribution"], "database_hint", "{logins:?}: {told}");
    }
}

#[test]
fn rd_19_a_client_that_stops_sending_still_hears_its_replies() {
    let world = World::new();
    let out = Command::new("redis-cli")
        .args(["-p", &world.port.to_string(), "--pipe"])
        .stdin({
            let path = world
                .sidecar
                .setup
                .write("pipe.txt", "SET a 1\r\nSET forbidden 1\r\nINCR a\r\n");
            std::fs::File::open(path).unwrap()
        })
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("errors: 1, replies: 3"), "{said}");
    let mut client = world.client();
    client.say(&["SET b 1", "QUIT"]);
    assert_eq!(client.next(), simple("OK"));
    assert_eq!((client.next(), client.next()), (simple("OK"), Reply::End));
}

#[test]
fn rd_19_a_server_that_cuts_a_client_off_for_its_output_completes_what_was_open() {
    let world = World::with(
        &["--client-output-buffer-limit", "normal 1mb 0 0"],
        |setup| setup,
    );
    let mut direct = Client::connect(world.server.port);
    direct.send(array(&[b"SET", b"big", &vec![b'v'; 8 << 20]]));
    assert_eq!(direct.next(), simple("OK"));
    let mut client = world.client();
    for one in [&mut direct, &mut client] {
        // Its limit is seen before the first byte of the reply is sent.
        one.say(&["GET big"]);
        assert_eq!(one.rest(), "");
    }
    let told = until("the completions", || {
        let told = world.told("completed");
        (told.len() == world.told("started").len()).then_some(told)
    });
    let last = told.last().unwrap();
    assert_eq!(last["outcome"], "failed", "{told:?}");
    // It was that connection, and nobody else's.
    assert_eq!(world.client().ask("EXISTS big"), Reply::Integer(1));
}

#[test]
fn c_11_a_server_that_goes_away_ends_connections_and_completes_what_was_open() {
    let mut world = World::new();
    let mut client = world.client();
    client.say(&["BLPOP list 0"]);
    until("the record", || {
        (world.told("started").len() == 1).then_some(())
    });
    let gone = Server::start(&[]);
    drop(std::mem::replace(&mut world.server, gone));
    assert_eq!(client.next(), Reply::End);
    let told = until("the completion", || {
        world.told("completed").first().cloned()
    });
    assert_eq!(told["outcome"], "failed", "{told}");
    // And one that is not there is not there.
    assert_eq!(world.client().next(), Reply::End);
}

/// What an SDK tells of a command before it is sent.
fn hook(trace: &str, statement: &str) -> String {
    let span = json!({
        "span_id": "a9e7a0932bce22bd",
        "trace_id": trace,
        "name": "SET",
        "kind": "CLIENT",
        "stage": "started",
        "start_time": 1_795_205_241_017_898_422_u64,
        "attributes": {},
        "hook_type": "db_query",
        "db_system": "redis",
        "db_name": "0",
        "db_operation": "SET",
        "db_statement": statement,
    });
    json!({
        "source": "workflow-telemetry",
        "event_type": "ActivityStarted",
        "workflow_id": "w",
        "run_id": "r",
        "workflow_type": "t",
        "activity_id": "a1",
        "activity_type": "t",
        "task_queue": "q",
        "attempt": 1,
        "spans": [span],
        "span_count": 1,
        "hook_trigger": true,
        "timestamp": "2026-11-20T20:07:21.017Z",
    })
    .to_string()
}

#[test]
fn c_12_a_command_joins_the_hook_that_told_of_it_in_the_same_trace() {
    let world = World::new();
    let sidecar = &world.sidecar;
    let run = json!({ "workflow_id": "w", "run_id": "r", "workflow_type": "t" });
    sidecar.event("/v1/workflows", &run);
    let activity =
        json!({ "workflow_id": "w", "run_id": "r", "activity_id": "a1", "activity_type": "t" });
    sidecar.event("/v1/activities", &activity);
    let trace = "3800f20a02299f916864a33ba8b78231";
    let mut client = world.client();
    client.ask(&format!("CLIENT SETNAME 00-{trace}-5590c32ca679fc4e-01"));
    for (told, words, joins) in [
        ("SET k v", &["SET", "k", "v"][..], true),
        ("SET k a b", &["SET", "k", "a b"], true),
        ("SET k v", &["SET", "k", "w"], false),
        ("SET k x y", &["SET", "k x", "y"], false),
        ("SET l ?", &["SET", "l", "v"], false),
    ] {
        let hook = hook(trace, told);
        let (status, said) = sidecar.agent("POST", "/api/v1/governance/evaluate", &hook);
        assert_eq!(status, 200, "{said}");
        let before = world.told("started").len();
        let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        client.send(array(&words));
        assert_eq!(client.next(), simple("OK"));
        let record = until("the record", || world.told("started").get(before).cloned());
        assert_eq!(record["joined"].is_string(), joins, "{told}: {record}");
        assert_eq!(record["activity_id"], "a1", "{record}");
    }
}

#[test]
fn rd_20_a_server_may_be_a_socket_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock").display().to_string();
    let server = Server::start(&["--unixsocket", &path]);
    let port = crate::free_port();
    let setup = Setup::new()
        .policy(POLICY)
        .flag("--redis", &format!("127.0.0.1:{port}=redis+unix://{path}"));
    let _sidecar = setup.start();
    let mut client = Client::connect(port);
    let replies = client.all(&["SET a 1", "SET forbidden 1", "INCR a"]);
    assert_eq!(
        (&replies[0], &replies[2]),
        (&simple("OK"), &Reply::Integer(2))
    );
    assert!(replies[1].is_refusal());
    assert_eq!(server.ask("DBSIZE"), Reply::Integer(1));
    drop(server);
    assert_eq!(client.next(), Reply::End);
    // One that is not there is not there.
    assert_eq!(Client::connect(port).next(), Reply::End);
}

#[test]
fn rd_20_agents_reach_the_relay_by_a_path_with_the_permissions_it_was_given() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("redis.sock");
    let at = path.display().to_string();
    // What a process that died has left behind.
    drop(UnixListener::bind(&path).unwrap());
    let setup = Setup::new()
        .policy(POLICY)
        .config("redis:\n  socket_mode: \"0640\"\n")
        .flag(
            "--redis",
            &format!("{at}=redis://localhost:{}", server.port),
        );
    let sidecar = setup.start();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let cli = |words: &str| {
        let ran = Command::new("redis-cli")
            .args(["-s", &at])
            .args(words.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    assert_eq!(cli("SET allowed there"), "OK\n");
    assert_eq!(server.ask("GET allowed"), text("there"));
    assert!(cli("SET forbidden 1").contains("the test says block"));
    let python = "import redis, sys\n\
        r = redis.Redis(unix_socket_path=sys.argv[1])\n\
        assert r.get('allowed') == b'there'\n\
        pipe = r.pipeline(transaction=True).set('a', '1').set('forbidden', '1')\n\
        try:\n    pipe.execute()\n\
        except redis.exceptions.NoPermissionError as error:\n    print(error)\n\
        assert r.exists('a') == 0\n";
    let ran = Command::new(python_program())
        .args(["-c", python, &at])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains("the test says block"), "{ran:?}");
    sidecar.running.signal("TERM");
    until("the path to be removed", || (!path.exists()).then_some(()));
}

#[test]
fn c_8_before_a_login_commands_are_as_short_as_the_server_wants_them() {
    let world = World::with(&["--requirepass", "correct-horse"], |setup| setup);
    let words = |count: usize| array(&vec![&b"GET"[..]; count]);
    let long = |bytes: usize| array(&[b"SET", b"a", &vec![b'v'; bytes]]);
    // What a server does not wait for: nor does the sidecar.
    for (said, expected) in [
        (b"*11\r\n".to_vec(), "unauthenticated multibulk length"),
        (words(11), "unauthenticated multibulk length"),
        (
            b"*2\r\n$3\r\nGET\r\n$16385\r\n".to_vec(),
            "unauthenticated bulk length",
        ),
        (long(16_385), "unauthenticated bulk length"),
        (long(3 << 20), "unauthenticated bulk length"),
    ] {
        let (mut direct, mut client) = (Client::connect(world.server.port), world.client());
        for one in [&mut direct, &mut client] {
            one.try_send(&said);
            let error = one.next();
            let expected = format!("ERR Protocol error: {expected}");
            assert_eq!(error.error(), expected, "{} bytes", said.len());
            assert_eq!(one.next(), Reply::End);
        }
    }
    assert_eq!(world.told("started").len(), 0, "nobody was asked");
    // As long as one may be, behind others, and behind a login.
    let mut client = world.client();
    client.send(long(16_384));
    assert!(client.next().error().starts_with("NOAUTH"));
    client.send(words(10));
    assert!(client.next().error().starts_with("ERR wrong number"));
    client.say(&["AUTH correct-horse"]);
    client.send([long(100_000), long(3 << 20)].concat());
    for _ in 0..3 {
        assert_eq!(client.next(), simple("OK"));
    }
    // What follows a reset has to log in again.
    client.say(&["RESET", "HELLO 2 AUTH default correct-horse"]);
    client.send(long(16_385));
    assert_eq!(client.next(), simple("RESET"));
    assert!(matches!(client.next(), Reply::Many(_)));
    assert_eq!(client.next(), simple("OK"));
    client.say(&["RESET"]);
    client.send(long(16_385));
    assert_eq!(client.next(), simple("RESET"));
    let error = client.next();
    assert_eq!(
        error.error(),
        "ERR Protocol error: unauthenticated bulk length"
    );
    assert_eq!(client.next(), Reply::End);
}

#[test]
fn c_8_where_nobody_logs_in_the_first_command_may_be_long() {
    let world = World::new();
    let long = array(&[b"SET", b"a", &vec![b'v'; 20_000]]);
    let many: Vec<&[u8]> = std::iter::once(&b"DEL"[..])
        .chain(std::iter::repeat_n(&b"b"[..], 30))
        .collect();
    for first in [
        &[][..],
        b"*1\r\n$5\r\nMULTI\r\n",
        b"*3\r\n$3\r\nSET\r\n$9\r\nforbidden\r\n$1\r\n1\r\n",
        b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n",
    ] {
        for command in [&long, &array(&many)] {
            let mut client = world.client();
            // Whether it is known by then or not.
            client.send([first, command, b"*1\r\n$4\r\nPING\r\n"].concat());
            let mut replies = Vec::new();
            while !matches!(&replies[..], [.., Reply::Simple(said)] if said == "PONG" || said == "QUEUED" && replies.len() == 3)
            {
                replies.push(client.next());
                assert_ne!(replies.last(), Some(&Reply::End), "{replies:?}");
            }
            let protocol =
                |reply: &Reply| matches!(reply, Reply::Error(text) if text.contains("Protocol"));
            assert!(!replies.iter().any(protocol), "{replies:?}");
        }
    }
    assert_eq!(world.server.ask("STRLEN a"), Reply::Integer(20_000));
    // A proxy is not asked what the client did not ask.
    let world = World::with(&[], |setup| setup.config("redis:\n  refusals: local\n"));
    let mut client = world.client();
    client.send(&long);
    assert_eq!(client.next(), simple("OK"));
    let Reply::Text(stats) = world.server.ask("INFO commandstats") else {
        panic!()
    };
    assert!(!stats.contains("client|id"), "{stats}");
}
