//! The real sidecar between real clients and a real MariaDB or MySQL. Tests are named
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
mod between;
mod calls;
mod clients;
mod corpus;
mod cuts;
mod environment;
mod holds;
mod login;
mod newer;
mod oracle;
mod outages;
mod prepared;
mod queries;
mod repeats;
mod replication;
mod sessions;
mod streams;
mod unseen;

use support::free_port;
use support::mysql::{Client, Server};
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
} else := {"decision": "BLOCK", "reason": span.db_reading.opaque} if {
	started
	span.db_reading.class == "opaque"
	not contains(span.db_reading.opaque, "too long")
} else := {"decision": "REQUIRE_APPROVAL", "reason": "the test says ask"} if {
	started
	contains(span.db_statement, "held")
} else := {"decision": "BLOCK", "reason": "nobody may come here"} if {
	started
	span.db_statement == "CONNECT"
	span.db_name == "closed"
} else := {"decision": "REQUIRE_APPROVAL", "reason": "somebody comes"} if {
	started
	span.db_statement == "CONNECT"
	span.db_name == "asked"
} else := {"decision": "CONSTRAIN", "constraints": ["max_rows:2", "read_only", "max_execution_time:15000"]} if {
	started
	span.db_statement == "CONNECT"
	span.db_name == "shop"
} else := {"decision": "CONSTRAIN", "constraints": ["max_rows:3"]} if {
	started
	contains(span.db_statement, "capped")
} else := {"decision": "CONSTRAIN", "constraints": ["read_only"]} if {
	started
	contains(span.db_statement, "reading")
} else := {"decision": "BLOCK", "reason": "not the server"} if {
	started
	span.db_reading.class == "admin"
	not contains(span.db_statement, "KILL")
	not contains(span.db_statement, "LOCAL")
} else := {"decision": "BLOCK", "reason": span.db_name} if {
	started
	contains(span.db_statement, "WHICH_DATABASE")
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
        Self::reached_by(server, "", more)
    }

    /// The server's URL ends in `query`.
    fn reached_by(server: &[&str], query: &str, more: impl FnOnce(Setup) -> Setup) -> Self {
        Self::before(Server::start(server), query, more)
    }

    fn before(server: Server, query: &str, more: impl FnOnce(Setup) -> Setup) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        Self::at(&listen, port, server, query, more)
    }

    /// The sidecar listens at a path.
    fn listening_at(path: &str, more: impl FnOnce(Setup) -> Setup) -> Self {
        Self::at(path, 0, Server::start(&[]), "", more)
    }

    fn at(
        listen: &str,
        port: u16,
        server: Server,
        query: &str,
        more: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        let url = format!("{listen}=mysql://localhost:{}{query}", server.port);
        let setup = Setup::new().policy(POLICY).flag("--mysql", &url);
        let sidecar = more(setup).start();
        Self {
            server,
            sidecar,
            port,
        }
    }

    /// A session through the sidecar.
    fn client(&self) -> Client {
        Client::connect(self.port)
    }

    /// What table `t` holds, asked past the sidecar.
    fn ids(&self) -> String {
        self.server
            .ask("SELECT coalesce(group_concat(id ORDER BY id), '') FROM shop.t")
    }

    /// Records of the journal at `stage`.
    fn told(&self, stage: &str) -> Vec<serde_json::Value> {
        let lines = self.sidecar.journal().into_iter();
        lines.filter(|line| line["stage"] == stage).collect()
    }
}
