//! What names mean, and who executes, where a session has set that.

use crate::support::postgres::{Client, bind, execute, message, parse, sync, tags};
use crate::{World, error};

/// A name without a schema is what it says until somebody sets what names mean.
const POLICY: &str = r#"
package test

default result := {"decision": "ALLOW"}

reading := input.spans[0].db_reading

result := {"decision": "BLOCK", "reason": "its names may mean anything"} if {
	some relation in reading.relations
	not relation.resolved
	"sets_path" in reading.earlier
} else := {"decision": "BLOCK", "reason": "somebody else executes it"} if {
	reading.class != "session"
	"sets_role" in reading.earlier
}
"#;

const NAMES: &str = "blocked by policy: its names may mean anything";
const ROLE: &str = "blocked by policy: somebody else executes it";

fn world() -> World {
    let world = World::with("host all all all trust\n", |setup| {
        setup.write("policy.rego", POLICY);
        setup
    });
    world.server.ask("CREATE ROLE other");
    world
}

/// Why the statement is refused; nothing where it is not.
fn refused(client: &mut Client, statement: &str) -> String {
    let answer = client.query(statement);
    match answer.iter().any(|message| message.tag == 'E') {
        true => error(&answer).field('M'),
        false => String::new(),
    }
}

#[test]
fn pg_29_policy_knows_what_a_session_has_made_names_mean() {
    let world = world();
    for set in [
        "SET search_path = pg_temp, public",
        "SET SESSION search_path TO public",
        "SET SCHEMA 'public'",
        "SELECT set_config('search_path', 'public', false)",
        "BEGIN; SET search_path = x; ROLLBACK",
        "DO $$ BEGIN SET search_path = public; END $$",
    ] {
        let mut client = world.client();
        assert_eq!(refused(&mut client, "SELECT id FROM t"), "", "{set}");
        client.query(set);
        assert_eq!(refused(&mut client, "SELECT id FROM t"), NAMES, "{set}");
        assert_eq!(refused(&mut client, "DELETE FROM t"), NAMES, "{set}");
        let resolved = "SELECT id FROM public.t";
        let judged = if set.contains("set_config") || set.contains("DO") {
            ROLE
        } else {
            ""
        };
        assert_eq!(refused(&mut client, resolved), judged, "{set}");
        // All that was set is as it was; a session is used again so.
        client.query("DISCARD ALL");
        assert_eq!(refused(&mut client, "SELECT id FROM t"), "", "{set}");
    }
    // Another session has set nothing, and one may begin with it.
    assert_eq!(refused(&mut world.client(), "SELECT id FROM t"), "");
    for (name, value) in [
        ("search_path", "public"),
        ("options", "-c search_path=public"),
    ] {
        let start = [("user", "postgres"), (name, value)];
        let mut client = Client::connect(world.port, &start);
        assert_eq!(refused(&mut client, "SELECT id FROM t"), NAMES, "{name}");
        client.query("DISCARD ALL");
        assert_eq!(refused(&mut client, "SELECT id FROM t"), NAMES, "{name}");
    }
}

#[test]
fn pg_29_policy_knows_that_a_session_has_taken_another_role() {
    let world = world();
    for set in ["SET ROLE other", "SET SESSION AUTHORIZATION other"] {
        let mut client = world.client();
        assert_eq!(refused(&mut client, "SELECT 1"), "", "{set}");
        client.query(set);
        assert_eq!(refused(&mut client, "SELECT 1"), ROLE, "{set}");
    }
    // It holds for what is sent in the same breath, also behind what resets it.
    let mut client = world.client();
    let query = |text: &str| message('Q', &[text.as_bytes(), b"\0"]);
    let all = ["DISCARD ALL", "SET ROLE other", "SELECT 1"];
    client.send(&all.map(query).concat());
    assert_eq!(tags(&client.until_ready()), "CZ");
    assert_eq!(tags(&client.until_ready()), "CZ");
    assert_eq!(error(&client.until_ready()).field('M'), ROLE);
    // And for what is executed by the other protocol.
    client.send(&[parse("", "SELECT 1"), bind("", ""), execute("", 0), sync()].concat());
    assert_eq!(error(&client.until_ready()).field('M'), ROLE);
}
