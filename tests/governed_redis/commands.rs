//! Commands by themselves and in pipelines: allowed, refused, and what is told.

use crate::World;
use crate::support::redis::{Reply, array, simple, text};
use crate::support::until;

#[test]
fn rd_2_rd_3_a_refused_command_is_answered_in_its_turn_and_never_happens() {
    let world = World::new();
    let mut client = world.client();
    let replies = client.all(&[
        "SET a 1",
        "SET forbidden 1",
        "INCR a",
        "GET forbidden",
        "GET a",
    ]);
    assert_eq!(replies[0], simple("OK"));
    assert_eq!(replies[2], Reply::Integer(2));
    assert_eq!(replies[4], text("2"));
    for refused in [&replies[1], &replies[3]] {
        let error = refused.error();
        assert!(
            error.starts_with("NOPERM blocked by policy: the test says block (operation "),
            "{error}"
        );
    }
    assert_eq!(world.server.ask("EXISTS forbidden"), Reply::Integer(0));
}

#[test]
fn rd_1_inline_commands_are_read_as_the_server_reads_them() {
    let world = World::new();
    let mut client = world.client();
    client.send("\r\n*0\r\n  SET 'a b' \"x\\x41\\n\"  \r\nGET 'a b'\n");
    assert_eq!((client.next(), client.next()), (simple("OK"), text("xA\n")));
    client.send("GET forbidden\r\nPING\r\n");
    assert!(client.next().is_refusal());
    assert_eq!(client.next(), simple("PONG"));
}

#[test]
fn rd_1_what_is_no_command_is_answered_as_the_server_answers_and_ends() {
    let world = World::new();
    for bad in [
        "*1\r\n$-1\r\n",
        "*2147483648\r\n",
        "*x\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n$536870913\r\n",
        "SET \"a\r\n",
    ] {
        let mut direct = crate::Client::connect(world.server.port);
        let mut client = world.client();
        for one in [&mut direct, &mut client] {
            one.send(format!("*2\r\n$3\r\nGET\r\n$1\r\na\r\n{bad}"));
            assert_eq!(one.next(), Reply::Null, "{bad:?}");
        }
        assert_eq!(client.next(), direct.next(), "{bad:?}");
        assert_eq!((client.next(), direct.next()), (Reply::End, Reply::End));
    }
    let malformed = || {
        world
            .sidecar
            .metric("openbox_malformed_total{protocol=\"redis\"}")
    };
    assert_eq!(malformed(), 6);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.next(), Reply::End);
    // Its first line is a command, to a server as well.
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(client.next().error().starts_with("ERR wrong number"));
    assert_eq!(client.next(), Reply::End);
    assert_eq!(malformed(), 8);
}

#[test]
fn rd_1_lengths_counts_and_nesting_beyond_what_a_server_takes_are_answered_as_it_does() {
    let world = World::new();
    let before = world.sidecar.peak_kib();
    let endless = format!("*1\r\n${}", "1".repeat(70_000));
    for bad in [
        "*1\r\n$-2\r\n",
        "*1\r\n*1\r\n$4\r\nPING\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "*1\r\n$4294967296\r\n",
        "*2\r\n$3\r\nGET\r\n%1\r\n",
        &"*1\r\n".repeat(50_000),
        &"a".repeat(70_000),
        &endless,
    ] {
        let mut direct = crate::Client::connect(world.server.port);
        let mut client = world.client();
        for one in [&mut direct, &mut client] {
            one.try_send(bad.as_bytes());
        }
        let (said, expected) = (client.next(), direct.next());
        let error = said.error();
        assert!(error.starts_with("ERR Protocol error: "), "{error}");
        assert_eq!(said, expected, "{:?}", &bad[..bad.len().min(40)]);
        assert_eq!(client.next(), Reply::End);
    }
    // More arguments than servers before 7.0 take: here the sidecar is stricter than the one behind it.
    let mut client = world.client();
    client.send("*1048577\r\n");
    let error = client.next();
    assert_eq!(
        error.error(),
        "ERR Protocol error: invalid multibulk length"
    );
    // A server skips two bytes behind an argument, whatever they are; here they are looked at, also
    // behind one whose beginning has left already.
    let long = format!(
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n{}",
        "v".repeat(100_002)
    );
    let (beginning, rest) = long.split_at(80_000);
    for (first, then) in [("*1\r\n$4\r\nPI", "NGxx"), (beginning, rest)] {
        let mut client = world.client();
        client.send(first);
        if first == beginning {
            until("the beginning to be judged", || {
                (!world.told("started").is_empty()).then_some(())
            });
        }
        client.send(then);
        let error = client.next();
        let expected = "ERR Protocol error: expected \\r\\n behind a bulk string";
        assert_eq!(error.error(), expected);
        assert_eq!(client.next(), Reply::End);
    }
    assert_eq!(world.server.ask("EXISTS k"), Reply::Integer(0));
    let given_up = until("its completion", || {
        world.told("completed").first().cloned()
    });
    assert_eq!(given_up["outcome"], "abandoned", "{given_up}");
    let grown = world.sidecar.peak_kib() - before;
    assert!(grown < 20 << 10, "{grown} KiB");
}

#[test]
fn rd_17_values_of_any_size_stream_and_a_refused_one_is_swallowed() {
    let world = World::new();
    let mut client = world.client();
    let value = vec![b'v'; 20 << 20];
    for (key, refused) in [("big", false), ("forbidden", true), ("other", false)] {
        let bytes = array(&[b"SET", key.as_bytes(), &value]);
        client.send([&bytes[..], b"*1\r\n$4\r\nPING\r\n"].concat());
        assert_eq!(client.next().is_refusal(), refused, "{key}");
        assert_eq!(client.next(), simple("PONG"));
    }
    assert_eq!(world.server.ask("STRLEN big"), Reply::Integer(20 << 20));
    assert_eq!(world.server.ask("EXISTS forbidden"), Reply::Integer(0));
    // And back, between others.
    client.say(&["PING", "GET big", "PING"]);
    assert_eq!(client.next(), simple("PONG"));
    assert!(matches!(client.next(), Reply::Text(text) if text.len() == value.len()));
    assert_eq!(client.next(), simple("PONG"));
}

#[test]
fn c_8_rd_17_a_key_behind_a_large_value_is_still_judged() {
    let world = World::new();
    let mut client = world.client();
    for size in [100 << 10, 3 << 20] {
        let value = vec![b'v'; size];
        client.send(array(&[b"MSET", b"a", &value, b"forbidden", b"1"]));
        assert!(client.next().is_refusal(), "{size}");
    }
    assert_eq!(client.ask("PING"), simple("PONG"));
    assert_eq!(world.server.ask("EXISTS a forbidden"), Reply::Integer(0));
}

#[test]
fn c_7_c_2_both_stages_are_told_once_and_without_values() {
    let world = World::new();
    let mut client = world.client();
    client.all(&["SELECT 6"]);
    let shown = client.ask("SET k secret-value EX 100");
    assert!(
        shown.error().contains("policy: SET k ? EX ? (operation"),
        "{shown:?}"
    );
    client.all(&[
        "SELECT 3",
        "SET k secret-value EX 100",
        "LPUSH k 1",
        "GET k",
    ]);
    let completed = until("all completions", || {
        let told = world.told("completed");
        (told.len() == 3).then_some(told)
    });
    let mut started = world.told("started");
    assert_eq!(started.len(), 4);
    let started = started.split_off(1);
    let operation = |line: &serde_json::Value| line["db_operation"].as_str().unwrap().to_owned();
    for told in [&started, &completed] {
        let operations: Vec<_> = told.iter().map(operation).collect();
        assert_eq!(operations, ["SET", "LPUSH", "GET"]);
    }
    for line in started.iter().chain(&completed) {
        assert_eq!(line["db_system"], "redis", "{line}");
        assert_eq!(line["db_name"], "3", "{line}");
    }
    assert!(
        completed[1]["error"]
            .as_str()
            .unwrap()
            .contains("WRONGTYPE")
    );
    let journal = std::fs::read_to_string(world.sidecar.state.join("journal.jsonl")).unwrap();
    assert!(!journal.contains("secret-value"));
}

#[test]
fn rd_14_the_database_that_a_command_is_in_is_known() {
    let world = World::new();
    let mut client = world.client();
    let replies = client.all(&[
        "SELECT 7",
        "SET a 1",
        "SELECT 99",
        "SET a 1",
        "SELECT 0",
        "SET a 1",
    ]);
    let refused: Vec<_> = replies.iter().map(Reply::is_refusal).collect();
    assert_eq!(refused, [false, true, false, true, false, false]);
    // Where it is queued, nobody can say.
    let replies = client.all(&["MULTI", "SELECT 99", "SET a 1", "DISCARD", "SET a 1"]);
    let refused: Vec<_> = replies.iter().map(Reply::is_refusal).collect();
    assert_eq!(refused, [false, false, true, false, false]);
}

#[test]
fn rd_11_a_script_is_its_text_and_an_unknown_one_is_opaque() {
    let world = World::new();
    let unknown = world.server.ask("SCRIPT LOAD return(7)");
    let Reply::Text(unknown) = unknown else {
        panic!()
    };
    let mut client = world.client();
    let unseen = client.ask(&format!("EVALSHA {unknown} 0"));
    assert!(unseen.error().starts_with("NOSCRIPT "), "{unseen:?}");
    let Reply::Text(known) = client.ask("SCRIPT LOAD return(8)") else {
        panic!()
    };
    assert_eq!(client.ask(&format!("EVALSHA {known} 0")), Reply::Integer(8));
    assert_eq!(client.ask("EVAL return(7) 0"), Reply::Integer(7));
    assert_eq!(
        client.ask(&format!("EVALSHA {unknown} 0")),
        Reply::Integer(7)
    );
    assert!(client.ask("EVAL return('forbidden') 0").is_refusal());
    assert!(client.ask("EVAL return(1) 1 forbidden").is_refusal());
}

#[test]
fn rd_14_a_reset_is_a_new_beginning_and_swapped_databases_keep_their_numbers() {
    let world = World::new();
    let mut client = world.client();
    client.all(&["SELECT 7", "RESET"]);
    assert_eq!(client.ask("SET a 1"), simple("OK"));
    assert_eq!(world.server.ask("GET a"), text("1"));
    // What was in the database 0 is in 7 now, and this connection is not.
    assert_eq!(client.ask("SWAPDB 0 7"), simple("OK"));
    assert_eq!(client.ask("GET a"), Reply::Null);
    client.ask("SELECT 7");
    assert!(client.ask("GET a").is_refusal());
}

#[test]
fn rd_11_a_library_is_its_text_and_a_function_its_name_and_keys() {
    let world = World::new();
    let mut client = world.client();
    let library = |text: &str| {
        let text = format!(
            "#!lua name=l\nredis.register_function{{function_name='f', \
             callback=function(k, a) return '{text}' end, flags={{'no-writes'}}}}"
        );
        array(&[b"FUNCTION", b"LOAD", b"REPLACE", text.as_bytes()])
    };
    client.send(library("forbidden"));
    assert!(client.next().is_refusal());
    assert_eq!(world.server.ask("FUNCTION LIST"), Reply::Many(Vec::new()));
    client.send(library("fine"));
    assert_eq!(client.next(), text("l"));
    for call in ["FCALL", "FCALL_RO"] {
        let replies = client.all(&[
            &format!("{call} f 1 k"),
            &format!("{call} f 1 forbidden"),
            &format!("{call} forbidden 0"),
        ]);
        assert_eq!(replies[0], text("fine"), "{call}");
        assert!(replies[1].is_refusal() && replies[2].is_refusal(), "{call}");
    }
}

#[test]
fn rd_15_rd_16_rd_9_rd_13_what_cannot_be_governed_is_refused_and_says_why() {
    let world = World::new();
    let mut client = world.client();
    for line in [
        "MONITOR",
        "PSYNC ? -1",
        "SYNC",
        "DEBUG SLEEP 0",
        "MODULE LOAD /x.so",
        "CONFIG SET dir /tmp",
        "CONFIG SET maxmemory 0 dbfilename x",
        "SHUTDOWN NOSAVE",
        "REPLICAOF localhost 1",
        "SLAVEOF localhost 1",
        "SENTINEL SET a b c",
        "SENTINEL INFO-CACHE a",
        "CLUSTER SYNCSLOTS a",
        "REPLCONF listening-port 1",
        "CONFIG REWRITE",
    ] {
        let reply = client.ask(line);
        assert!(
            reply.is_refusal() && reply.error().contains("openbox-sidecar: "),
            "{line}: {reply:?}"
        );
    }
    assert_eq!(client.ask("CONFIG SET maxmemory 0"), simple("OK"));
    let open = World::with(&["--enable-debug-command", "yes"], |setup| {
        setup.config("redis:\n  dangerous: judge\n")
    });
    let mut client = open.client();
    assert_eq!(client.ask("DEBUG SLEEP 0"), simple("OK"));
    assert!(client.ask("MONITOR").is_refusal());
}

#[test]
fn rd_12_silence_is_kept_as_the_client_asked_for_it() {
    let world = World::new();
    let mut client = world.client();
    client.say(&[
        "CLIENT REPLY SKIP",
        "SET a 1",
        "GET a",
        "CLIENT REPLY OFF",
        "INCR a",
        "SET forbidden 1",
        "INCR a",
        "CLIENT REPLY ON",
        "CLIENT REPLY SKIP",
        "GET forbidden",
        "GET a",
    ]);
    let replies = [client.next(), client.next(), client.next()];
    assert_eq!(replies, [text("1"), simple("OK"), text("3")]);
    let unobserved = until("all completions", || {
        let told = world.told("completed");
        (told.len() == 5).then_some(told)
    });
    let unobserved = unobserved.iter().filter(|line| {
        let error = line["error"].as_str().unwrap_or_default();
        error.starts_with("unobserved")
    });
    assert_eq!(unobserved.count(), 3);
}

#[test]
fn rd_4_where_the_server_would_end_the_connection_the_refusal_is_said_here() {
    let world = World::with(&[], |setup| setup.config("redis:\n  refusals: local\n"));
    let mut client = world.client();
    let replies = client.all(&["SET a 1", "SET forbidden 1", "GET a", "GET forbidden"]);
    assert_eq!((&replies[0], &replies[2]), (&simple("OK"), &text("1")));
    assert!(replies[1].is_refusal() && replies[3].is_refusal());
    let replies = client.all(&["MULTI", "SET b 1", "SET forbidden 1", "EXEC", "GET b"]);
    assert_eq!(replies[1], simple("QUEUED"));
    assert!(replies[2].is_refusal());
    assert!(replies[3].error().starts_with("EXECABORT"));
    assert_eq!(replies[4], Reply::Null);
    let Reply::Text(stats) = world.server.ask("INFO commandstats") else {
        panic!()
    };
    assert!(!stats.contains("openbox"), "{stats}");
    let Reply::Text(stats) = world.server.ask("INFO errorstats") else {
        panic!()
    };
    assert_eq!(stats, "# Errorstats\r\n", "the server rejected nothing");
}

#[test]
fn c_9_a_write_where_only_reading_is_allowed_is_refused() {
    let world = World::new();
    let mut client = world.client();
    assert_eq!(client.ask("GET limited"), Reply::Null);
    for line in [
        "SET limited 1",
        "PUBLISH limited m",
        "CONFIG SET limited 1",
        "ACL SETUSER limited",
        "SORT other STORE limited",
        "SCRIPT LOAD return('limited')",
    ] {
        assert!(client.ask(line).is_refusal(), "{line}");
    }
    assert_eq!(world.server.ask("EXISTS limited"), Reply::Integer(0));
    assert_eq!(
        world.server.ask("ACL USERS"),
        Reply::Many(vec![text("default")])
    );
}

#[test]
fn c_9_a_script_where_only_reading_is_allowed_is_kept_to_it_by_the_server() {
    let world = World::new();
    let mut client = world.client();
    world.server.ask("RPUSH limited 1");
    let reads = "EVAL return(redis.call('LLEN',KEYS[1])) 1 limited";
    let writes = "return(redis.call('DEL',KEYS[1]))";
    assert_eq!(client.ask(reads), Reply::Integer(1));
    let Reply::Text(sha) = client.ask(&format!("SCRIPT LOAD {writes}")) else {
        panic!()
    };
    let library = "#!lua name=l\nredis.register_function('f', function(k) return redis.call('DEL', k[1]) end)";
    client.send(array(&[b"FUNCTION", b"LOAD", library.as_bytes()]));
    assert_eq!(client.next(), text("l"));
    for line in [
        format!("EVAL {writes} 1 limited"),
        format!("EVALSHA {sha} 1 limited"),
        "FCALL f 1 limited".to_owned(),
    ] {
        let error = client.ask(&line);
        assert!(!error.is_refusal(), "{line}: {error:?}");
        let said = error.error().to_ascii_lowercase();
        let says = said.contains("read-only") || said.contains("_ro command");
        assert!(says, "{line}: {error:?}");
    }
    assert_eq!(client.ask("SORT limited"), Reply::Many(vec![text("1")]));
    assert_eq!(world.server.ask("LLEN limited"), Reply::Integer(1));
    // In a transaction, too.
    let replies = client.all(&["MULTI", reads, &format!("EVAL {writes} 1 limited"), "EXEC"]);
    let Reply::Many(done) = &replies[3] else {
        panic!("{replies:?}")
    };
    assert_eq!(done[0], Reply::Integer(1));
    assert!(matches!(done[1], Reply::Error(_)), "{done:?}");
}

#[test]
fn rd_18_a_key_that_only_the_servers_way_of_reading_options_finds_is_judged() {
    let world = World::new();
    world.server.ask("GEOADD places 1 2 x");
    world.server.ask("XADD forbidden 1-0 f v");
    world.server.ask("XGROUP CREATE forbidden g 0");
    let mut client = world.client();
    for line in [
        "GEORADIUS places 0 0 20000 km STORE other STORE forbidden",
        "GEORADIUSBYMEMBER places x 9 km STOREDIST other STOREDIST forbidden",
        "XREADGROUP COUNT 1 GROUP g STREAMS STREAMS forbidden >",
        "MIGRATE 127.0.0.1 1  0 100 KEYS forbidden keys x",
    ] {
        assert!(client.ask(line).is_refusal(), "{line}");
    }
    assert_eq!(world.server.ask("TYPE forbidden"), simple("stream"));
}

#[test]
fn rd_18_more_keys_than_are_looked_at_are_understood_by_nobody() {
    let world = World::new();
    let mut client = world.client();
    let keys = |count| format!("MGET{}", " k".repeat(count));
    assert!(matches!(client.ask(&keys(1_024)), Reply::Many(_)));
    let error = client.ask(&keys(1_025));
    assert!(error.error().contains("nobody understands"), "{error:?}");
}

#[test]
fn rd_18_keys_are_where_the_server_says_they_are() {
    let world = World::new();
    let mut client = world.client();
    client.ask("SELECT 6");
    for line in [
        "SET k0 v EX 10",
        "MSET k0 v k1 v",
        "BITOP AND k0 k1 k2",
        "BLMPOP 0 2 k0 k1 LEFT COUNT 1",
        "EVAL script 2 k0 k1 arg",
        "EVAL_RO script 1 k0 arg",
        "FCALL f 1 k0 arg",
        "GEORADIUS k0 1 2 3 m STOREDIST k1",
        "LMOVE k0 k1 LEFT RIGHT",
        "MEMORY USAGE k0",
        "OBJECT FREQ k0",
        "SINTERCARD 2 k0 k1",
        "SORT k0 STORE k1",
        "XGROUP CREATE k0 g 0",
        "XREAD COUNT 1 STREAMS k0 k1 0 0",
        "XREADGROUP GROUP g c BLOCK 1 STREAMS k0 >",
        "ZADD k0 1 m",
        "ZDIFFSTORE k0 2 k1 k2",
        "ZMPOP 1 k0 MIN",
        "ZRANGESTORE k0 k1 0 -1",
        "ZUNION 2 k0 k1 WEIGHTS 1 2",
        "COPY k0 k1",
        "MIGRATE localhost 1 k0 0 1",
    ] {
        let Reply::Many(expected) = world.server.ask(&format!("COMMAND GETKEYS {line}")) else {
            panic!("{line}")
        };
        // Refused with its statement as the reason.
        let reply = client.ask(line);
        let words: Vec<_> = reply.error().split(' ').collect();
        for key in ["k0", "k1", "k2"] {
            let is = expected.iter().any(|one| *one == text(key));
            assert_eq!(words.contains(&key), is, "{line}: {key} in {reply:?}");
        }
    }
}

#[test]
fn c_9_no_more_elements_come_than_a_constraint_allows() {
    let world = World::with(&[], |setup| setup.config("constraints: enforce\n"));
    let three = |one: &str| world.server.ask(&format!("{one} few a b c"));
    three("RPUSH");
    world.server.ask("SADD fewer a b c");
    world.server.ask("ZADD fewest 1 a 2 b 3 c");
    world.server.ask("XADD fewx 1-0 f v");
    let mut client = world.client();
    let some = |words: &[&str]| Reply::Many(words.iter().map(|word| text(word)).collect());
    assert_eq!(client.ask("LRANGE few 0 -1"), some(&["a", "b"]));
    assert_eq!(client.ask("LRANGE few 1 -1"), some(&["b", "c"]));
    assert_eq!(client.ask("ZRANGEBYSCORE fewest 1 3"), some(&["a", "b"]));
    assert_eq!(client.ask("ZRANGE fewest 0 -1 REV"), some(&["c", "b"]));
    assert!(matches!(client.ask("SRANDMEMBER fewer 3"), Reply::Many(some) if some.len() == 2));
    assert!(matches!(client.ask("XRANGE fewx - +"), Reply::Many(all) if all.len() == 1));
    assert!(matches!(client.ask("LPOP few 3"), Reply::Many(some) if some.len() == 2));
    // What cannot be limited is not let through.
    let unlimited = ["SMEMBERS fewer", "LRANGE few -2 -1", "ZRANGE fewest 0 -2"];
    for line in unlimited {
        assert!(client.ask(line).is_refusal(), "{line}");
    }
    assert_eq!(client.ask("LLEN few"), Reply::Integer(1));
    // As advice, the same is applied, and what cannot be is only recorded.
    let world = World::new();
    world.server.ask("SADD fewer a b c");
    world.server.ask("ZADD fewest 1 a 2 b 3 c");
    let mut client = world.client();
    assert_eq!(client.ask("ZRANGE fewest 0 -1"), some(&["a", "b"]));
    for line in unlimited {
        assert!(matches!(client.ask(line), Reply::Many(_)), "{line}");
    }
}

#[test]
fn rd_2_a_long_pipeline_of_everything_is_answered_and_recorded_in_its_order() {
    let world = World::new();
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for round in 0..60 {
        let key = format!("k{round}");
        for (line, reply) in [
            (format!("SET {key} {round}"), Some(simple("OK"))),
            (format!("GET {key}"), Some(text(&round.to_string()))),
            ("SET forbidden 1".to_owned(), None),
            (format!("INCR {key}"), Some(Reply::Integer(round + 1))),
            ("PING".to_owned(), Some(simple("PONG"))),
            ("MULTI".to_owned(), Some(simple("OK"))),
            (format!("INCR {key}"), Some(simple("QUEUED"))),
            ("GET forbidden".to_owned(), None),
            ("EXEC".to_owned(), None),
            ("NOSUCH x".to_owned(), None),
            (format!("GET {key}"), Some(text(&(round + 1).to_string()))),
        ] {
            lines.push(line);
            expected.push(reply);
        }
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let replies = world.client().all(&lines);
    for ((line, reply), expected) in lines.iter().zip(&replies).zip(&expected) {
        match expected {
            Some(expected) => assert_eq!(reply, expected, "{line}"),
            None if *line == "EXEC" => assert!(reply.error().starts_with("EXECABORT"), "{reply:?}"),
            None => assert!(reply.is_refusal(), "{line}: {reply:?}"),
        }
    }
    // Eight of each round are judged, three of them refused.
    let started = until("the records", || {
        let told = (world.told("started"), world.told("completed"));
        (told.0.len() == 8 * 60 && told.1.len() == 5 * 60).then_some(told.0)
    });
    let said: Vec<_> = started
        .iter()
        .map(|line| line["decision"].clone())
        .collect();
    for round in said.chunks(8) {
        let expected = [
            "allow", "allow", "blocked", "allow", "allow", "blocked", "blocked", "allow",
        ];
        assert_eq!(round, expected);
    }
}
