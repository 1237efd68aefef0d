//! Messages, invalidations and confirmations, in both versions of the protocol.

use crate::World;
use crate::support::redis::{Client, Reply, simple, text};

fn publish(world: &World, channel: &str) {
    world.server.ask(&format!("PUBLISH {channel} m"));
}

/// The first word of what comes next, and whether it came as a push.
fn word(client: &mut Client) -> (String, bool) {
    let reply = client.next();
    let push = matches!(reply, Reply::Push(_));
    let (Reply::Many(parts) | Reply::Push(parts)) = reply else {
        panic!("{reply:?}")
    };
    let Reply::Text(word) = &parts[0] else {
        panic!("{parts:?}")
    };
    (word.clone(), push)
}

fn is(name: &str, push: bool) -> (String, bool) {
    (name.to_owned(), push)
}

#[test]
fn rd_8_subscriptions_of_resp2_are_confirmed_one_by_one_and_refusals_come_in_their_turn() {
    let world = World::new();
    let mut client = world.client();
    client.say(&[
        "SUBSCRIBE a b",
        "SUBSCRIBE forbidden",
        "PSUBSCRIBE p*",
        "PING",
    ]);
    assert_eq!(word(&mut client), is("subscribe", false));
    assert_eq!(word(&mut client), is("subscribe", false));
    assert!(client.next().is_refusal());
    assert_eq!(word(&mut client), is("psubscribe", false));
    assert_eq!(word(&mut client), is("pong", false));
    publish(&world, "a");
    publish(&world, "px");
    publish(&world, "forbidden");
    assert_eq!(word(&mut client), is("message", false));
    assert_eq!(word(&mut client), is("pmessage", false));
    client.say(&[
        "UNSUBSCRIBE",
        "PUNSUBSCRIBE",
        "UNSUBSCRIBE",
        "GET forbidden",
        "PING",
    ]);
    assert_eq!(word(&mut client), is("unsubscribe", false));
    assert_eq!(word(&mut client), is("unsubscribe", false));
    assert_eq!(word(&mut client), is("punsubscribe", false));
    assert_eq!(word(&mut client), is("unsubscribe", false));
    assert!(client.next().is_refusal());
    assert_eq!(client.next(), simple("PONG"));
    // An array that looks like a message is none, once nothing is subscribed.
    world.server.ask("RPUSH l message a b");
    client.say(&["LRANGE l 0 -1", "GET forbidden"]);
    assert_eq!(word(&mut client), is("message", false));
    assert!(client.next().is_refusal());
}

#[test]
fn rd_5_rd_8_rd_9_in_resp3_messages_come_between_replies_and_during_holds() {
    let world = World::new();
    let mut client = world.client();
    assert!(matches!(client.ask("HELLO 3 SETNAME me"), Reply::Many(_)));
    client.say(&[
        "SUBSCRIBE a b",
        "GET x",
        "GET forbidden",
        "UNSUBSCRIBE b",
        "GET x",
    ]);
    assert_eq!(word(&mut client), is("subscribe", true));
    assert_eq!(word(&mut client), is("subscribe", true));
    assert_eq!(client.next(), Reply::Null);
    assert!(client.next().is_refusal());
    assert_eq!(word(&mut client), is("unsubscribe", true));
    assert_eq!(client.next(), Reply::Null);
    client.say(&["GET held", "GET x"]);
    let approval = world.sidecar.pending_approval();
    publish(&world, "a");
    assert_eq!(word(&mut client), is("message", true));
    world.sidecar.approve(&approval);
    assert_eq!((client.next(), client.next()), (Reply::Null, Reply::Null));
}

#[test]
fn rd_8_in_resp2_messages_come_while_a_subscription_waits_for_a_person() {
    let world = World::new();
    let mut client = world.client();
    client.say(&["SUBSCRIBE a"]);
    assert_eq!(word(&mut client), is("subscribe", false));
    client.say(&["SUBSCRIBE held", "SUBSCRIBE b"]);
    let approval = world.sidecar.pending_approval();
    publish(&world, "a");
    assert_eq!(word(&mut client), is("message", false));
    world.sidecar.approve(&approval);
    assert_eq!(word(&mut client), is("subscribe", false));
    assert_eq!(word(&mut client), is("subscribe", false));
    publish(&world, "held");
    assert_eq!(word(&mut client), is("message", false));
    // What it is called is no question in this mode, and is not asked again and again.
    let Reply::Text(stats) = world.server.ask("INFO commandstats") else {
        panic!()
    };
    let asked = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_client|id:"));
    assert!(
        asked.is_none_or(|line| line.contains(":calls=0,") && line.contains("rejected_calls=1,")),
        "{stats}"
    );
}

#[test]
fn rd_8_rd_12_silence_that_a_subscriber_may_not_ask_for_is_refused() {
    let world = World::new();
    let mut client = world.client();
    // All at once: that it listens is known when it is confirmed.
    client.say(&["SUBSCRIBE a", "CLIENT REPLY OFF", "UNSUBSCRIBE a", "GET x"]);
    assert_eq!(word(&mut client), is("subscribe", false));
    assert!(client.next().is_refusal());
    assert_eq!(word(&mut client), is("unsubscribe", false));
    assert_eq!(client.next(), Reply::Null);
}

#[test]
fn rd_9_invalidations_of_tracked_keys_are_passed_on_at_once() {
    let world = World::new();
    let mut client = world.client();
    client.ask("HELLO 3");
    assert_eq!(client.ask("CLIENT TRACKING ON"), simple("OK"));
    assert_eq!(client.ask("GET k"), Reply::Null);
    world.server.ask("SET k 1");
    assert_eq!(word(&mut client), is("invalidate", true));
    assert_eq!(client.ask("GET k"), text("1"));
    // In a transaction, too.
    client.all(&["MULTI", "SET other 1", "GET k", "EXEC"]);
    assert!(client.ask("GET forbidden").is_refusal());
}

#[test]
fn rd_6_replies_of_every_type_and_nesting_keep_their_place() {
    let world = World::with(&["--enable-debug-command", "yes"], |setup| {
        setup.config("redis:\n  dangerous: judge\n")
    });
    let mut client = world.client();
    client.ask("HELLO 3");
    for line in ["HSET h f v", "SADD s a b", "ZADD z 1.5 m"] {
        client.ask(line);
    }
    let nested = "EVAL local\tt={};for\ti=1,500\tdo\tt={t}\tend;return\tt 0";
    for (line, kind) in [
        ("SET k v", '+'),
        ("INCR k", '-'),
        ("STRLEN k", ':'),
        ("GET k", '$'),
        ("GET none", '_'),
        ("HGETALL h", '%'),
        ("SMEMBERS s", '~'),
        ("ZRANGE z 0 -1 WITHSCORES", '*'),
        ("ZSCORE z m", ','),
        ("COMMAND INFO GET", '*'),
        ("INFO", '='),
        ("LOLWUT", '='),
        (nested, '*'),
        ("EVAL return{redis.error_reply('E\tx'),1} 0", '*'),
        ("DEBUG PROTOCOL true", '#'),
        ("DEBUG PROTOCOL false", '#'),
        ("DEBUG PROTOCOL bignum", '('),
        ("DEBUG PROTOCOL attrib", '|'),
        ("DEBUG PROTOCOL null", '_'),
        ("DEBUG PROTOCOL verbatim", '='),
    ] {
        client.say(&[line, "GET forbidden"]);
        assert_eq!(client.kind(), kind, "{line}");
        drop(client.next());
        assert!(client.next().is_refusal(), "{line}");
    }
    // One that is no reply, and the reply behind it.
    client.say(&["DEBUG PROTOCOL push", "GET forbidden"]);
    assert!(matches!(client.next(), Reply::Push(_)));
    assert!(matches!(client.next(), Reply::Text(_)));
    assert!(client.next().is_refusal());
}

#[test]
fn rd_8_subscriptions_of_shards_are_confirmed_and_refused_in_their_turn() {
    let world = World::new();
    for push in [false, true] {
        let mut client = world.client();
        if push {
            client.ask("HELLO 3");
        }
        client.say(&["SSUBSCRIBE a", "SSUBSCRIBE forbidden", "SSUBSCRIBE b"]);
        assert_eq!(word(&mut client), is("ssubscribe", push));
        assert!(client.next().is_refusal());
        assert_eq!(word(&mut client), is("ssubscribe", push));
        world.server.ask("SPUBLISH a m");
        world.server.ask("SPUBLISH forbidden m");
        assert_eq!(word(&mut client), is("smessage", push));
        // Without names, one confirmation for each of them.
        client.say(&["SUNSUBSCRIBE", "GET forbidden", "PING"]);
        assert_eq!(word(&mut client), is("sunsubscribe", push));
        assert_eq!(word(&mut client), is("sunsubscribe", push));
        assert!(client.next().is_refusal());
        assert_eq!(client.next(), simple("PONG"));
    }
}
