//! What must hold of the codecs and machines whatever a peer sends, as functions
//! of arbitrary bytes that panic where it does not.
//!
//! Written once and used twice: `make fuzz` lets a fuzzer choose the bytes
//! (`tests/fuzz`), `make test` takes random ones and the corpora that fuzzing
//! left in `tests/fuzz/corpus`.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a law that is broken panics: that is how it is told"
)]

mod choices;
mod relay;
#[cfg(test)]
mod tests;
mod world;

pub(in crate::protocols) use choices::{Choices, pieces};
pub(in crate::protocols) use relay::{Peer, Relay, move_all};
pub(in crate::protocols) use world::{CAPPED, CAPPED_ROWS, FORBIDDEN, World};

use super::{mysql, postgres, redis, sql};

/// Something that must hold.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// What `make fuzz` calls it; the folder of its corpus.
    pub name: &'static str,
    /// Panics where it does not hold for these bytes.
    pub check: fn(&[u8]),
}

/// All of them.
pub const ALL: &[Law] = &[
    Law {
        name: "sql",
        check: sql::laws::check,
    },
    Law {
        name: "postgres_codec",
        check: postgres::laws::codec,
    },
    Law {
        name: "postgres_machine",
        check: postgres::laws::machine,
    },
    Law {
        name: "mysql_codec",
        check: mysql::laws::codec,
    },
    Law {
        name: "mysql_machine",
        check: mysql::laws::machine,
    },
    Law {
        name: "redis_codec",
        check: redis::laws::codec,
    },
    Law {
        name: "redis_machine",
        check: redis::laws::machine,
    },
];
