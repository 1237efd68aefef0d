//! What a command does to its connection, once the server has said that it did.

use bytes::Bytes;

use super::commands::Arguments;
use super::refuse::{Poison, Then};
use super::reply;
use super::topology::Answer;
use super::waiting::Unblock;

/// See the module.
#[derive(Debug)]
pub(super) enum Effect {
    None,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Select(Option<u32>),
    Hello(Box<Hello>),
    Auth(Option<Box<str>>),
    Name(Box<str>),
    Reset,
    /// `CLIENT REPLY`.
    Reply(Silence),
    /// So many confirmations of this kind are to come.
    Subscribe(Kind, usize),
    /// The same; `None`: as many as there are subscriptions.
    Unsubscribe(Kind, Option<usize>),
    /// Replaced: the server's error is to be rewritten.
    Poisoned(Box<Poison>),
    /// Replaced by a `DISCARD`, whose reply becomes this error.
    Spoilt(Bytes),
    /// Its reply names other servers.
    Topology(Answer),
    /// `CLIENT UNBLOCK`.
    Unblock(Unblock),
    /// Asked by the relay: what the server calls the connection.
    OwnId,
    /// Nothing of the server: said here, in its turn.
    Local(Bytes, Then),
    /// What the server does without fail, and whose answer its client asked not
    /// to get.
    Unanswered(Box<Effect>),
}

/// What `HELLO` asks for.
#[derive(Debug, Default)]
pub(super) struct Hello {
    pub(super) version: Option<u8>,
    pub(super) user: Option<Box<str>>,
    pub(super) name: Option<Box<str>>,
}

/// Which subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// `CLIENT REPLY`, as it stands for the next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    None,
    /// The next command is not answered.
    Next,
    /// None is answered.
    Off,
}

impl Silence {
    /// How it stands after one command.
    pub(super) fn after(self) -> Self {
        match self {
            Self::None | Self::Next => Self::None,
            Self::Off => Self::Off,
        }
    }
}

impl Effect {
    /// The effect of a command called `name`.
    pub(super) fn of(name: &str, arguments: &impl Arguments) -> Self {
        let exactly = |count: usize| arguments.count() == count;
        let names = arguments.count().saturating_sub(1);
        let text = |at: usize| {
            let argument = arguments.argument(at)?;
            Some(std::str::from_utf8(argument).ok()?.into())
        };
        if let Some(answer) = Answer::of(name) {
            return Self::Topology(answer);
        }
        match name {
            "CLIENT UNBLOCK" => Unblock::of(arguments).map_or(Self::None, Self::Unblock),
            "MULTI" if exactly(1) => Self::Multi,
            "EXEC" if exactly(1) => Self::Exec,
            "DISCARD" if exactly(1) => Self::Discard,
            "WATCH" if names > 0 => Self::Watch,
            "UNWATCH" if exactly(1) => Self::Unwatch,
            "RESET" if exactly(1) => Self::Reset,
            "SELECT" => Self::Select(
                arguments
                    .argument(1)
                    .and_then(reply::integer)
                    .and_then(|number| u32::try_from(number).ok()),
            ),
            "HELLO" => Self::Hello(Box::new(hello(arguments))),
            "AUTH" if exactly(2) => Self::Auth(Some("default".into())),
            "AUTH" => Self::Auth(text(1)),
            "CLIENT SETNAME" if exactly(3) => text(2).map_or(Self::None, Self::Name),
            "CLIENT REPLY" if exactly(3) => match arguments.argument(2) {
                Some(word) if word.eq_ignore_ascii_case(b"ON") => Self::Reply(Silence::None),
                Some(word) if word.eq_ignore_ascii_case(b"OFF") => Self::Reply(Silence::Off),
                Some(word) if word.eq_ignore_ascii_case(b"SKIP") => Self::Reply(Silence::Next),
                _ => Self::None,
            },
            "SUBSCRIBE" if names > 0 => Self::Subscribe(Kind::Channel, names),
            "PSUBSCRIBE" if names > 0 => Self::Subscribe(Kind::Pattern, names),
            "SSUBSCRIBE" if names > 0 => Self::Subscribe(Kind::Shard, names),
            "UNSUBSCRIBE" => Self::Unsubscribe(Kind::Channel, (names > 0).then_some(names)),
            "PUNSUBSCRIBE" => Self::Unsubscribe(Kind::Pattern, (names > 0).then_some(names)),
            "SUNSUBSCRIBE" => Self::Unsubscribe(Kind::Shard, (names > 0).then_some(names)),
            _ => Self::None,
        }
    }

    /// Whether the server answers nothing in its turn.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Local(..) | Self::Unanswered(_))
    }

    /// Whether nothing may be judged before its reply is there.
    pub(super) fn is_barrier(&self) -> bool {
        matches!(
            self,
            Self::Select(_) | Self::Hello(_) | Self::Auth(_) | Self::Name(_) | Self::Reset
        )
    }
}

fn hello(arguments: &impl Arguments) -> Hello {
    let mut hello = Hello {
        version: match arguments.argument(1) {
            Some(b"2") => Some(2),
            Some(b"3") => Some(3),
            _ => None,
        },
        ..Hello::default()
    };
    let text = |at: usize| {
        let argument = arguments.argument(at)?;
        Some(std::str::from_utf8(argument).ok()?.into())
    };
    let mut at = 2_usize;
    while let Some(option) = arguments.argument(at) {
        let next = at.saturating_add(1);
        if option.eq_ignore_ascii_case(b"AUTH") {
            hello.user = text(next);
            at = at.saturating_add(3);
        } else if option.eq_ignore_ascii_case(b"SETNAME") {
            hello.name = text(next);
            at = at.saturating_add(2);
        } else {
            at = next;
        }
    }
    hello
}

/// How many subscriptions there are, as the server counts them: channels and
/// patterns together, shard channels by themselves.
#[derive(Debug, Default)]
pub(super) struct Subscribed {
    channels: u64,
    patterns: u64,
    shards: u64,
}

impl Subscribed {
    pub(super) fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Channel => self.channels,
            Kind::Pattern => self.patterns,
            Kind::Shard => self.shards,
        }
    }

    pub(super) fn any(&self) -> bool {
        self.channels > 0 || self.patterns > 0 || self.shards > 0
    }

    /// The server has counted, after one of `kind` came or went.
    pub(super) fn counted(&mut self, kind: Kind, total: u64) {
        match kind {
            Kind::Channel => self.channels = total.saturating_sub(self.patterns),
            Kind::Pattern => self.patterns = total.saturating_sub(self.channels),
            Kind::Shard => self.shards = total,
        }
    }
}
