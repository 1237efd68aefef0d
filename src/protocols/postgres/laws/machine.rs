//! The law of the relay: whatever is said, in whatever pieces and order it
//! comes, a client hears what a server would tell it that judges for itself;
//! nothing is executed that was not admitted; and what was admitted is completed
//! once, with the rows that the server counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::domain::OperationId;
use crate::gate::{Decision, Held, Permit, Refused};
use crate::process::clock;
use crate::protocols::laws::{Choices, Peer, Relay, World, move_all};
use crate::protocols::pipe::Outbox;
use crate::protocols::sql::{Analyses, Flags};

use super::super::AskAt;
use super::super::binding::Channels;
use super::super::conversation::{Ask, Changes, Conversation, Kind, Step};
use super::super::describe::{self, Place};
use super::super::limits;
use super::super::refuse::Poison;
use super::super::startup::Negotiated;
use super::super::statement::{Reading, Text};
use super::super::wire::{HEAD, WireError, head, message};
use super::script::script;
use super::server::Server;

/// All that must hold.
pub(in crate::protocols) fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    World::with(|world| match choices.below(4) {
        0 => noise(world, choices),
        1 => a_server_may_be_lost(world, choices),
        _ => a_client_hears_what_a_judging_server_says(world, choices),
    });
}

/// A question under way, and what policy says to it.
struct Asked {
    decision: Decision,
    kind: Kind,
    text: Text,
    digest: Option<[u8; 32]>,
    changes: Changes,
    held: Held<Bytes>,
    event: OperationId,
    status: Option<u8>,
}

struct Between<'a> {
    world: &'a World,
    talk: Conversation,
    from_client: BytesMut,
    from_server: BytesMut,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    asked: Option<Asked>,
    /// The client has said what cannot be, which ends the session.
    broken: bool,
}

impl<'a> Between<'a> {
    fn new(world: &'a World) -> Self {
        let reading = Reading::new(Arc::new(Analyses::new(1 << 20)));
        Self {
            world,
            talk: Conversation::new(reading, Negotiated::plain(), Channels::Same, AskAt::Execute),
            from_client: BytesMut::new(),
            from_server: BytesMut::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            asked: None,
            broken: false,
        }
    }

    /// What a client may say at all, this one says: only where data is taken can
    /// it say the wrong thing.
    fn lawfully_advance(&mut self) {
        match self.advance() {
            Ok(()) => {}
            Err(WireError::Unexpected("client", _)) => self.broken = true,
            Err(other) => panic!("{other}"),
        }
    }

    fn advance(&mut self) -> Result<(), WireError> {
        while self.asked.is_none() && !self.broken {
            match self.talk.client(&mut self.from_client)? {
                Step::More => break,
                Step::Drop => {}
                Step::Pass(bytes, _) | Step::Goodbye(bytes) => {
                    self.to_server.extend_from_slice(&bytes)
                }
                Step::Refuse(kind, refusal) => {
                    let refused = Refused::unasked(refusal, clock::operation_id(clock::now()));
                    self.poison(&kind, Poison::of(&refused));
                }
                Step::Ask(ask) => self.ask(*ask),
            }
        }
        Ok(())
    }

    fn ask(&mut self, ask: Ask) {
        let place = Place {
            host: "laws".into(),
            port: 1,
            database: "laws".into(),
            user: None,
        };
        let session = self.world.session();
        let operation = describe::operation(
            &ask,
            &place,
            &session,
            None,
            (clock::now(), Flags::default()),
        );
        let terms = limits::terms(&ask.kind, &ask.text, Duration::from_secs(1));
        let event = operation.id;
        self.asked = Some(Asked {
            decision: self.world.admit(operation, &terms),
            changes: ask.changes,
            kind: ask.kind,
            text: ask.text,
            digest: ask.digest,
            held: Held::new(event, ask.bytes),
            event,
            status: self.talk.settled_status(),
        });
    }

    fn decides(&mut self) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        match &asked.decision {
            Decision::Proceed(_) => {}
            Decision::Refuse(refused) => return self.poison(&asked.kind, Poison::of(refused)),
            Decision::Replay(_) => panic!("nothing is set aside"),
        }
        let Asked {
            decision,
            kind,
            text,
            digest,
            changes,
            held,
            event,
            status,
        } = asked;
        let Decision::Proceed(permit) = decision else {
            return;
        };
        if self.talk.is_skipping() {
            return self.talk.overtaken(permit);
        }
        if status.is_some() && self.talk.settled_status() != status {
            drop::<Permit>(permit);
            return self.poison(&kind, Poison::cancelled(event, "it changed"));
        }
        let cleared = held.release(&permit).unwrap();
        let sent = self
            .talk
            .granted(kind, text, digest, permit, changes, cleared);
        self.to_server.extend_from_slice(&sent);
    }

    fn poison(&mut self, kind: &Kind, poison: Poison) {
        if self.talk.is_skipping() {
            return self.talk.drop_rest();
        }
        let instead = self.talk.refused(kind, poison);
        self.to_server.extend_from_slice(&instead);
    }

    fn answered(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.from_server.extend_from_slice(bytes);
        let mut out = Outbox::default();
        self.talk.server(&mut self.from_server, &mut out)?;
        self.to_client.extend_from_slice(&out.concat());
        Ok(())
    }
}

impl Relay for Between<'_> {
    fn client(&mut self, bytes: &[u8]) {
        self.from_client.extend_from_slice(bytes);
        self.lawfully_advance();
    }

    fn server(&mut self, bytes: &[u8]) {
        self.answered(bytes).unwrap();
        self.lawfully_advance();
    }

    fn to_server(&mut self) -> &mut Vec<u8> {
        &mut self.to_server
    }

    fn asks(&self) -> bool {
        self.asked.is_some()
    }

    fn decide(&mut self) {
        self.decides();
        self.lawfully_advance();
    }
}

/// Messages with their bodies, of errors only the code.
fn messages(mut bytes: &[u8]) -> Vec<(char, String)> {
    let mut messages = Vec::new();
    while let Some((tag, body)) = head(bytes, "x").unwrap() {
        let inside = &bytes[HEAD..HEAD + body];
        bytes = &bytes[HEAD + body..];
        let said = match tag {
            b'E' => code(inside),
            _ => format!("{inside:?}"),
        };
        messages.push((char::from(tag), said));
    }
    assert!(bytes.is_empty(), "half a message: {bytes:?}");
    messages
}

fn a_client_hears_what_a_judging_server_says(world: &World, mut choices: Choices<'_>) {
    let said = script(&mut choices);
    let mut ideal = Server::new(true);
    ideal.hears(&said);
    let (mut server, mut through) = (Server::new(false), Between::new(world));
    move_all(&mut through, &mut server, &said, choices, usize::MAX);
    assert!(
        ideal.out_of_step || (through.from_client.is_empty() && !through.broken),
        "it waits for nothing: {:?}",
        messages(&through.from_client)
    );
    let (heard, mut expected) = (messages(&through.to_client), messages(ideal.all()));
    if ideal.out_of_step {
        // Either the relay has ended it, and says so itself, or the server.
        assert!(through.broken || server.out_of_step, "it goes on");
        expected.truncate(heard.len());
    }
    let alike = |(heard, expected): (&(char, String), &(char, String))| {
        heard.0 == expected.0 && expected.1.split('|').any(|one| one == heard.1)
    };
    let same = heard.len() == expected.len() && heard.iter().zip(&expected).all(alike);
    assert!(
        same,
        "said {:?}\nheard {heard:?}\nnot {expected:?}",
        shown(&said)
    );
    through.talk.lost();
    drop(through);
    let rows: u64 = world.ended().iter().filter_map(|ended| ended.rows).sum();
    assert_eq!(rows, server.rows, "said {:?}", shown(&said));
}

fn code(error: &[u8]) -> String {
    let mut fields = error.split(|byte| *byte == 0);
    let code = fields.find_map(|field| field.strip_prefix(b"C"));
    String::from_utf8_lossy(code.unwrap_or_default()).into_owned()
}

fn shown(said: &[u8]) -> Vec<(char, String)> {
    let mut shown = Vec::new();
    let mut rest = said;
    while let Some((tag, body)) = head(rest, "x").unwrap() {
        let inside = String::from_utf8_lossy(&rest[HEAD..HEAD + body]).replace('\0', "·");
        shown.push((char::from(tag), inside));
        rest = &rest[HEAD + body..];
    }
    shown
}

/// Whenever the server is lost, what is open is completed.
fn a_server_may_be_lost(world: &World, mut choices: Choices<'_>) {
    let most = usize::from(choices.byte());
    let said = script(&mut choices);
    let (mut server, mut through) = (Server::new(false), Between::new(world));
    move_all(&mut through, &mut server, &said, choices, most);
    through.talk.lost();
    drop(through);
    drop(world.ended());
}

/// A server may say anything: it ends the session, or does not, and what was
/// admitted is completed.
fn noise(world: &World, mut choices: Choices<'_>) {
    let said = script(&mut choices);
    let mut through = Between::new(world);
    let login = Server::new(false);
    through.answered(login.all()).unwrap();
    through.from_client.extend_from_slice(&said);
    let mut ended = through.advance().is_err();
    while choices.are_left() && !ended {
        let tag = choices.pick(b"123CIsEZTtnDGHWSNAKRVdcvQ\0");
        let length = choices.below(9);
        let mut answer = message(tag, &[choices.bytes(length)]).to_vec();
        if choices.below(16) == 0 {
            answer[1 + choices.below(4)] ^= choices.byte();
        }
        ended = through.answered(&answer).is_err();
        through.decides();
        ended = ended || through.advance().is_err();
    }
    through.talk.lost();
    drop(through);
    drop(world.ended());
}
