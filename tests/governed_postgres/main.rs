//! The real sidecar between real clients and a real PostgreSQL. Tests are named
//! after the situations of the protocol that they show.

#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an overflow or a bad index in a test fails the test; the file is no data path"
)]

#[path = "../support/mod.rs"]
mod support;

mod agent_leg;
mod clients;
mod completions;
mod constraints;
mod credentials;
mod environment;
mod extended;
mod holds;
mod login;
mod names;
mod outages;
mod repeats;
mod simple;
mod streams;
mod tls;
mod tokio_postgres;

use support::free_port;
use support::postgres::{Client, Message, Server, tags};
use support::sidecar::{Setup, Sidecar};

/// What a statement names says what is decided about it before it leaves.
const POLICY: &str = r#"
package test

default result := {"decision": "ALLOW"}

span := input.spans[0]

started if {
	input.hook_trigger
	span.stage == "started"
}

result := {"decision": "HALT", "reason": "the test says halt"} if {
	started
	contains(span.db_statement, "halting")
} else := {"decision": "BLOCK", "reason": "the test says block"} if {
	started
	contains(span.db_statement, "forbidden")
} else := {"decision": "BLOCK", "reason": "nobody understands this"} if {
	started
	span.db_reading.class == "opaque"
	not contains(span.db_statement, "trusted")
} else := {"decision": "REQUIRE_APPROVAL", "reason": "the test says ask"} if {
	started
	contains(span.db_statement, "held")
} else := {"decision": "CONSTRAIN", "constraints": ["max_rows:3"]} if {
	started
	contains(span.db_statement, "capped")
} else := {"decision": "CONSTRAIN", "constraints": ["read_only"]} if {
	started
	contains(span.db_statement, "reading")
} else := {"decision": "CONSTRAIN", "constraints": ["statement_timeout:2000"]} if {
	started
	contains(span.db_statement, "hurried")
} else := {"decision": "BLOCK", "reason": "no role but one's own"} if {
	started
	startswith(span.db_statement, "SET role")
}
"#;

/// A server, and a sidecar in front of it.
struct World {
    server: Server,
    sidecar: Sidecar,
    port: u16,
}

impl World {
    fn new() -> Self {
        Self::with("host all all all trust\n", |setup| setup)
    }

    fn with(hba: &str, more: impl FnOnce(Setup) -> Setup) -> Self {
        let server = Server::start_with(hba, &[]);
        let port = free_port();
        let url = format!("127.0.0.1:{port}=postgres://localhost:{}", server.port);
        let setup = Setup::new().policy(POLICY).flag("--pg", &url);
        let sidecar = more(setup).start();
        let world = Self {
            server,
            sidecar,
            port,
        };
        if hba.contains("trust") {
            world
                .server
                .ask("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, x text)");
            for name in ["forbidden", "held", "halting"] {
                world.server.ask(&format!("CREATE TABLE {name} (id int)"));
            }
        }
        world
    }

    /// A session through the sidecar.
    fn client(&self) -> Client {
        Client::connect(self.port, &[("user", "postgres")])
    }

    /// What table `t` holds, asked past the sidecar.
    fn ids(&self) -> String {
        self.server
            .ask("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM t")
    }

    /// Operations of the journal at `stage`, as (statement, decision).
    fn told(&self, stage: &str) -> Vec<serde_json::Value> {
        let journal = self.sidecar.journal();
        let lines = journal.into_iter();
        lines.filter(|line| line["stage"] == stage).collect()
    }
}

/// The error in an answer.
fn error(answer: &[Message]) -> &Message {
    let found = answer.iter().find(|message| message.tag == 'E');
    found.unwrap_or_else(|| panic!("no error in {answer:?}"))
}

/// The transaction status that an answer ends with.
fn status(answer: &[Message]) -> char {
    let last = answer.last().unwrap();
    assert_eq!(last.tag, 'Z', "{answer:?}");
    char::from(last.body[0])
}

/// Tags of an answer, and the status it ends with.
fn shape(answer: &[Message]) -> (String, char) {
    (tags(answer), status(answer))
}
