//! What becomes of a command before anybody is asked: judged, passed by name,
//! or refused by the relay itself. Reviewing the relay for what is not judged
//! is reading [`passes`].

use crate::metrics::Passage;

use super::commands::Arguments;
use super::topology::Answer;

/// See [`treatment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    Judge,
    Pass(Passage),
    /// With this reason.
    Refuse(&'static str),
}

/// What may administer the server beyond what can be governed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dangerous {
    /// Refused.
    Refuse,
    /// Judged like any command.
    Judge,
}

/// Where a command stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) dangerous: Dangerous,
    pub(super) in_transaction: bool,
    /// The client has asked for no replies.
    pub(super) silent: bool,
    /// The server takes more than a login, or what a subscriber may say.
    pub(super) answers_anything: bool,
}

/// What becomes of a command called `name`, in capitals.
pub(super) fn treatment(name: &str, arguments: &impl Arguments, at: Standing) -> Treatment {
    if let Some(why) = refused(name, arguments, at) {
        return Treatment::Refuse(why);
    }
    passes(name).map_or(Treatment::Judge, Treatment::Pass)
}

/// What needs no decision.
fn passes(name: &str) -> Option<Passage> {
    Some(match name {
        "AUTH" | "HELLO" => Passage::DatabaseLogin,
        // Of the connection: what they change is known, and counts for what
        // is judged.
        "SELECT"
        | "RESET"
        | "QUIT"
        | "PING"
        | "READONLY"
        | "READWRITE"
        | "ASKING"
        | "CLIENT SETNAME"
        | "CLIENT SETINFO"
        | "CLIENT CAPA"
        | "CLIENT GETNAME"
        | "CLIENT ID"
        | "CLIENT REPLY"
        | "CLIENT INFO"
        | "CLIENT CACHING"
        | "CLIENT NO-EVICT"
        | "CLIENT NO-TOUCH"
        | "CLIENT TRACKINGINFO"
        | "CLIENT GETREDIR" => Passage::DatabaseFlow,
        // Each command between them is judged when it is queued.
        "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "UNWATCH" => Passage::DatabaseFlow,
        // What was subscribed to was judged.
        "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE" => Passage::DatabaseFlow,
        // About the server's own commands.
        "COMMAND"
        | "COMMAND DOCS"
        | "COMMAND INFO"
        | "COMMAND COUNT"
        | "COMMAND LIST"
        | "COMMAND GETKEYS"
        | "COMMAND GETKEYSANDFLAGS" => Passage::DatabaseFlow,
        _ => return None,
    })
}

fn refused(name: &str, arguments: &impl Arguments, at: Standing) -> Option<&'static str> {
    let dangerous = at.dangerous == Dangerous::Refuse;
    match name {
        "MONITOR" => Some("MONITOR shows what others do, and is not relayed"),
        "SYNC" | "PSYNC" | "REPLCONF" => Some("replication is not relayed"),
        "CLUSTER SYNCSLOTS" => Some("replication is not relayed"),
        _ if at.in_transaction && Answer::of(name).is_some() => {
            Some("what names other servers is not relayed inside a transaction")
        }
        "SENTINEL INFO-CACHE" | "SENTINEL IS-MASTER-DOWN-BY-ADDR" => Some(
            "the answer would lead around the sidecar, which rewrites only what names servers one by one",
        ),
        "SENTINEL CONFIG"
        | "SENTINEL DEBUG"
        | "SENTINEL FAILOVER"
        | "SENTINEL FLUSHCONFIG"
        | "SENTINEL MONITOR"
        | "SENTINEL REMOVE"
        | "SENTINEL RESET"
        | "SENTINEL SET"
        | "SENTINEL SIMULATE-FAILURE"
            if dangerous =>
        {
            Some("it is dangerous, and refused while redis.dangerous is refuse")
        }
        "DEBUG" | "SHUTDOWN" | "REPLICAOF" | "SLAVEOF" | "FAILOVER" | "CONFIG REWRITE"
            if dangerous =>
        {
            Some("it is dangerous, and refused while redis.dangerous is refuse")
        }
        _ if dangerous && (name == "MODULE" || name.starts_with("MODULE ")) => {
            Some("it is dangerous, and refused while redis.dangerous is refuse")
        }
        "CONFIG SET" if dangerous && sets_files(arguments) => {
            Some("it moves files of the server, and is refused while redis.dangerous is refuse")
        }
        "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE"
        | "SUNSUBSCRIBE"
            if at.in_transaction || at.silent =>
        {
            Some("subscriptions are not relayed inside a transaction, or without replies")
        }
        // Whether they came to pass would not be known, and so not whose what follows is.
        "HELLO" | "AUTH" | "CLIENT SETNAME" if at.in_transaction || at.silent => {
            Some("who asks is not said inside a transaction, or without replies")
        }
        "CLIENT REPLY" if !at.answers_anything => {
            Some("the server takes no CLIENT REPLY before a login, or while subscribed")
        }
        "CLIENT REPLY" if at.in_transaction => {
            Some("CLIENT REPLY is not relayed inside a transaction")
        }
        "EXEC" | "DISCARD" | "MULTI" | "SELECT" | "RESET" | "QUIT" | "HELLO" | "AUTH"
        | "CLIENT REPLY" | "CLIENT SETNAME"
            if arguments.seen() < arguments.count() =>
        {
            Some("it is too long")
        }
        _ => None,
    }
}

/// Whether it names where the server keeps files, or may.
fn sets_files(arguments: &impl Arguments) -> bool {
    if arguments.seen() < arguments.count() {
        return true;
    }
    let names = (2..arguments.count()).step_by(2);
    let mut names = names.filter_map(|at| arguments.argument(at));
    names.any(|name| {
        [
            "dir",
            "dbfilename",
            "appenddirname",
            "appendfilename",
            "aclfile",
            "logfile",
            "pidfile",
            "unixsocket",
            "slaveof",
            "replicaof",
        ]
        .iter()
        .any(|file| name.eq_ignore_ascii_case(file.as_bytes()))
    })
}
