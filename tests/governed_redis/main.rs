//! The real sidecar between real clients and a real Redis. Tests are named
//! after the situations of the protocol that they show.

#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an overflow or a bad index in a test fails the test; the file is no data path"
)]

#[path = "../support/mod.rs"]
mod support;

mod administration;
mod blocking;
mod clients;
mod commands;
mod connections;
mod environment;
mod holds;
mod newer;
mod outages;
mod pipelines;
mod pubsub;
mod redis_rs;
mod repeats;
mod tls;
mod topology;
mod transactions;
mod twemproxy;

use support::redis::{Client, Reply, Server};
use support::sidecar::{Setup, Sidecar};
use support::{free_port, until};

/// What a command names says what is decided about it before it leaves.
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
} else := {"decision": "REQUIRE_APPROVAL", "reason": "the test says ask"} if {
	started
	contains(span.db_statement, "held")
} else := {"decision": "CONSTRAIN", "reason": "the test says read", "constraints": ["read_only"]} if {
	started
	contains(span.db_statement, "limited")
} else := {"decision": "CONSTRAIN", "reason": "the test says few", "constraints": ["max_rows:2"]} if {
	started
	contains(span.db_statement, "few")
} else := {"decision": "BLOCK", "reason": concat(" ", [span.db_reading.class, concat(",", span.db_reading.flags)])} if {
	started
	span.db_name == "5"
} else := {"decision": "BLOCK", "reason": span.db_statement} if {
	started
	span.db_name == "6"
} else := {"decision": "BLOCK", "reason": "not in this database"} if {
	started
	span.db_name == "7"
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
        Self::with(&[], |setup| setup)
    }

    fn with(server: &[&str], more: impl FnOnce(Setup) -> Setup) -> Self {
        Self::before(Server::start(server), more)
    }

    fn before(server: Server, more: impl FnOnce(Setup) -> Setup) -> Self {
        let port = free_port();
        let url = format!("127.0.0.1:{port}=redis://localhost:{}", server.port);
        let sidecar = more(Setup::new().policy(POLICY).flag("--redis", &url)).start();
        Self {
            server,
            sidecar,
            port,
        }
    }

    /// A connection through the sidecar.
    fn client(&self) -> Client {
        Client::connect(self.port)
    }

    /// Waits until the server has so many of these `INFO clients`.
    fn until_clients(&self, which: &str, count: usize) {
        until(which, || {
            let Reply::Text(clients) = self.server.ask("INFO clients") else {
                panic!()
            };
            let line = format!("{which}:{count}\r\n");
            clients.contains(&line).then_some(())
        });
    }

    /// Records of the journal at `stage`.
    fn told(&self, stage: &str) -> Vec<serde_json::Value> {
        let lines = self.sidecar.journal().into_iter();
        lines.filter(|line| line["stage"] == stage).collect()
    }
}
