//! The law of the relay: whatever is said, in whatever pieces and order it
//! comes, a client hears what a server would tell it that judges for itself;
//! nothing reaches the server that was not admitted; and what was admitted is
//! completed once.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::gate::{Decision, Held, Terms, Unanswered};
use crate::net::listen_at::At;
use crate::process::clock;
use crate::protocols::laws::{Choices, Peer, Relay, World, move_all};
use crate::protocols::pipe::Outbox;

use super::super::conversation::{Ask, Conversation, Step};
use super::super::effect::Effect;
use super::super::refuse::Poison;
use super::super::reply::ReplyError;
use super::super::request;
use super::super::scripts::Scripts;
use super::super::{Dangerous, Refusals, Upstream};
use super::server::Server;
use super::values::value;

/// All that must hold.
pub(in crate::protocols) fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    World::with(|world| match choices.below(5) {
        0 => noise(world, choices),
        1 => a_server_may_be_lost(world, choices),
        what => a_client_hears_what_a_judging_server_says(world, what == 2, choices),
    });
}

struct Asked {
    decision: Decision,
    held: Held<Bytes>,
    effect: Effect,
}

struct Between<'a> {
    world: &'a World,
    talk: Conversation,
    from_client: BytesMut,
    from_server: BytesMut,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    asked: Option<Asked>,
}

impl<'a> Between<'a> {
    fn new(world: &'a World) -> Self {
        let scripts = Arc::new(Scripts::new(1_000));
        Self {
            world,
            talk: Conversation::new(scripts, Refusals::Substitute, Dangerous::Refuse),
            from_client: BytesMut::new(),
            from_server: BytesMut::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            asked: None,
        }
    }

    fn advance(&mut self) {
        while self.asked.is_none() {
            match self.talk.client(&mut self.from_client) {
                Step::More => break,
                Step::Drop => {}
                Step::Pass(bytes, _) => self.to_server.extend_from_slice(&bytes),
                Step::Refuse(why) => {
                    let event = clock::operation_id(clock::now());
                    self.poison(Poison::unasked(event, why));
                }
                Step::Instead(poison) => self.poison(*poison),
                Step::Ask(ask) => self.ask(*ask),
            }
        }
        let mut out = Outbox::default();
        self.talk.speak(&mut out);
        self.to_client.extend_from_slice(&out.concat());
    }

    fn ask(&mut self, ask: Ask) {
        let upstream = Upstream {
            listen: At::Tcp(([127, 0, 0, 1], 1).into()),
            host: "laws".into(),
            port: 1,
            tls: crate::net::database_tls::Settings::default(),
        };
        let terms = Terms {
            hold_within: Duration::from_secs(1),
            unanswered: Unanswered::AsSet,
            applies: |_| false,
            contradicts: |_| false,
            replaces: |_| false,
        };
        let Ask {
            described,
            database,
            bytes,
            effect,
            fits: _,
            stands_alone: _,
        } = ask;
        let operation = described.operation(
            &upstream,
            database,
            &self.world.session(),
            None,
            clock::now(),
        );
        self.asked = Some(Asked {
            held: Held::new(operation.id, bytes),
            decision: self.world.admit(operation, &terms),
            effect,
        });
    }

    fn poison(&mut self, poison: Poison) {
        if let Some(instead) = self.talk.refused(poison) {
            self.to_server.extend_from_slice(&instead);
        }
    }

    fn decides(&mut self) {
        let Some(Asked {
            decision,
            held,
            effect,
        }) = self.asked.take()
        else {
            return;
        };
        match decision {
            Decision::Proceed(permit) => {
                let cleared = held.release(&permit).unwrap();
                self.to_server.extend_from_slice(&cleared.into_inner());
                self.talk.granted(effect, permit);
            }
            Decision::Refuse(refused) => self.poison(Poison::of(&refused)),
            Decision::Replay(_) => panic!("nothing is set aside"),
        }
    }

    fn answered(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        self.from_server.extend_from_slice(bytes);
        let mut out = Outbox::default();
        let answered = self.talk.server(&mut self.from_server, &mut out);
        self.to_client.extend_from_slice(&out.concat());
        answered
    }
}

impl Relay for Between<'_> {
    fn client(&mut self, bytes: &[u8]) {
        self.from_client.extend_from_slice(bytes);
        self.advance();
    }

    fn server(&mut self, bytes: &[u8]) {
        self.answered(bytes).unwrap();
        self.advance();
    }

    fn to_server(&mut self) -> &mut Vec<u8> {
        &mut self.to_server
    }

    fn asks(&self) -> bool {
        self.asked.is_some()
    }

    fn decide(&mut self) {
        self.decides();
        self.advance();
    }
}

/// What is said on a connection that RESP2 keeps for messages once it listens.
const LISTENING: &[&str] = &[
    "SUBSCRIBE a",
    "SUBSCRIBE a b",
    "SUBSCRIBE forbidden",
    "PSUBSCRIBE p",
    "UNSUBSCRIBE",
    "UNSUBSCRIBE a",
    "PUNSUBSCRIBE",
    "PING",
    "GET k",
    "GET forbidden",
    "RESET",
    "FROB x",
];
const ASKING: &[&str] = &[
    "GET k",
    "GET forbidden",
    "GET",
    "SET k forbidden",
    "SET forbidden v",
    "INCR k",
    "LRANGE l 0 1",
    "PING",
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH k",
    "SELECT 1",
    "SELECT 99",
    "FROB x",
    "MONITOR",
    "DEBUG SLEEP 0",
    "CLIENT REPLY OFF",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY ON",
    "PUBLISH a x",
];

fn script(listening: bool, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut said = Vec::new();
    let mut say =
        |text: &str| said.extend_from_slice(&request::array(&text.split(' ').collect::<Vec<_>>()));
    let three = choices.below(2) == 0;
    if three {
        say("HELLO 3");
    }
    for _ in 0..choices.below(32) {
        // With RESP3 everything goes on beside messages.
        let all = if listening || (three && choices.below(4) == 0) {
            LISTENING
        } else {
            ASKING
        };
        let text = choices.pick(all);
        if listening || text != "RESET" {
            say(text);
        }
    }
    said
}

/// As lines; of errors only the code.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split("\r\n").map(|line| match line.starts_with('-') {
        true => line.split(' ').next().unwrap_or_default().to_owned(),
        false => line.to_owned(),
    });
    lines.collect()
}

fn a_client_hears_what_a_judging_server_says(
    world: &World,
    listening: bool,
    mut choices: Choices<'_>,
) {
    let said = script(listening, &mut choices);
    let (mut ideal, mut server, mut between) =
        (Server::new(true), Server::new(false), Between::new(world));
    ideal.hears(&said);
    move_all(&mut between, &mut server, &said, choices, usize::MAX);
    let shown = String::from_utf8_lossy(&said);
    assert!(
        between.from_client.is_empty(),
        "it waits for nothing: {shown:?}"
    );
    assert!(between.talk.is_idle(), "something is owed: {shown:?}");
    assert_eq!(lines(&between.to_client), lines(ideal.said()), "{shown:?}");
    between.talk.lost();
    drop(between);
    drop(world.ended());
}

/// Whenever the server is lost, what is open is completed.
fn a_server_may_be_lost(world: &World, mut choices: Choices<'_>) {
    let most = usize::from(choices.byte());
    let said = script(choices.below(2) == 0, &mut choices);
    let (mut server, mut between) = (Server::new(false), Between::new(world));
    move_all(&mut between, &mut server, &said, choices, most);
    between.talk.lost();
    drop(between);
    drop(world.ended());
}

/// A server may say anything: it ends the connection, or does not, and what was
/// admitted is completed.
fn noise(world: &World, mut choices: Choices<'_>) {
    let said = script(choices.below(2) == 0, &mut choices);
    let mut between = Between::new(world);
    between.client(&said);
    let mut ended = false;
    while choices.are_left() && !ended {
        let mut answer = Vec::new();
        match choices.below(4) {
            0 => answer.extend_from_slice(choices.bytes(9)),
            1 => answer.extend_from_slice(choices.pick(&[
                &b"+QUEUED\r\n"[..],
                b"+OK\r\n",
                b"*-1\r\n",
                b"-EXECABORT x\r\n",
                b"*2\r\n",
                b">3\r\n+subscribe\r\n+a\r\n:1\r\n",
                b"*3\r\n+message\r\n+a\r\n+b\r\n",
            ])),
            _ => value(&mut choices, 3, &mut answer),
        }
        ended = between.answered(&answer).is_err();
        between.decide();
    }
    between.talk.lost();
    drop(between);
    drop(world.ended());
}
