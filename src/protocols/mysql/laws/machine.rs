//! The law of the relay: whatever is said, in whatever pieces and order it
//! comes, a client hears what a server would tell it that judges for itself;
//! nothing is executed that was not admitted; what was admitted is completed
//! once, with the rows that the client was told; and the current database is
//! known.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::gate::{Decision, Held};
use crate::net::database_tls;
use crate::net::listen_at::At;
use crate::process::clock;
use crate::protocols::laws::{Choices, Peer, Relay, World, move_all};
use crate::protocols::pipe::Outbox;

use super::super::answer::Form;
use super::super::capability::Capabilities;
use super::super::conversation::{Ask, Conversation, Kind, Sides, Step};
use super::super::describe::Place;
use super::super::greeting::{Login, Who};
use super::super::refuse::Answered;
use super::super::statement::Text;
use super::super::wire::{HEADER_BYTES, Header, WireError, packet};
use super::super::{Sessions, Upstream, WhereUnsaid, describe, limits};
use super::script::script;
use super::server::Server;

/// All that must hold.
pub(in crate::protocols) fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    World::with(|world| match choices.below(5) {
        0 => noise(world, choices),
        1 => a_client_may_say_anything(world, choices),
        2 => a_server_may_be_lost(world, choices),
        _ => a_client_hears_what_a_judging_server_says(world, choices),
    });
}

fn upstream() -> Upstream {
    Upstream {
        listen: At::Tcp(([127, 0, 0, 1], 1).into()),
        host: "laws".into(),
        port: 1,
        tls: database_tls::Settings::default(),
        unsaid: WhereUnsaid::Nothing,
    }
}

/// A question under way, and what policy says to it.
struct Asked {
    decision: Decision,
    kind: Kind,
    text: Text,
    held: Held<Bytes>,
}

pub(super) struct Between<'a> {
    world: &'a World,
    pub(super) talk: Conversation,
    from_client: BytesMut,
    from_server: BytesMut,
    pub(super) to_server: Vec<u8>,
    pub(super) to_client: Vec<u8>,
    asked: Option<Asked>,
}

/// How a connection begins.
#[derive(Clone, Copy)]
struct Beginning {
    speaks: Capabilities,
    /// Of proofs that the server wants behind the first.
    rounds: usize,
    /// By how much the server's numbers are ahead of the client's.
    shift: u8,
    sessions: Sessions,
}

impl Beginning {
    fn of(choices: &mut Choices<'_>) -> Self {
        const SOME: [Capabilities; 3] = [
            Capabilities::DEPRECATE_EOF,
            Capabilities::QUERY_ATTRIBUTES,
            Capabilities::SESSION_TRACK,
        ];
        let always = Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::PLUGIN_AUTH
            | Capabilities::LOCAL_FILES;
        let chosen = choices.byte();
        let some = SOME.into_iter().enumerate();
        let speaks = some.fold(always, |all, (bit, one)| match chosen >> bit & 1 {
            0 => all,
            _ => all | one,
        });
        Self {
            speaks,
            rounds: usize::from(chosen >> 3 & 1),
            // TLS on neither leg or both, on the client's, or on the server's.
            shift: [0, 0xff, 1, 0][usize::from(chosen >> 4 & 3)],
            sessions: [Sessions::Pass, Sessions::Judge][usize::from(chosen >> 6 & 1)],
        }
    }

    fn server(self, judges: bool) -> Server {
        let shift = if judges { 0 } else { self.shift };
        Server::new(judges, self.speaks, self.rounds, shift.wrapping_add(2))
    }
}

impl<'a> Between<'a> {
    fn begun(world: &'a World, begins: Beginning) -> Self {
        let sessions = begins.sessions;
        Self::new(world, begins.speaks, sessions, begins.shift)
    }

    pub(super) fn new(
        world: &'a World,
        speaks: Capabilities,
        sessions: Sessions,
        shift: u8,
    ) -> Self {
        let login = Login {
            capabilities: speaks,
            plugin: None,
            who: Who {
                user: None,
                database: Some("shop".into()),
                attributes: Vec::new(),
            },
        };
        Self {
            world,
            talk: Conversation::in_clear(login, sessions, shift),
            from_client: BytesMut::new(),
            from_server: BytesMut::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            asked: None,
        }
    }

    /// What a client says next, as far as it can be dealt with now.
    pub(super) fn advance(&mut self) -> Result<(), WireError> {
        while self.asked.is_none() && !self.talk.has_ended() {
            match self.talk.client(&mut self.from_client)? {
                Step::More => break,
                Step::Drop => {}
                Step::Pass(bytes, _)
                | Step::Password(bytes)
                | Step::Own(bytes)
                | Step::Goodbye(bytes) => {
                    self.to_server.extend_from_slice(&bytes);
                }
                Step::Say(bytes) => self.to_client.extend_from_slice(&bytes),
                Step::Ask(ask) => self.ask(*ask),
                Step::Enter => self.enters(),
            }
        }
        Ok(())
    }

    fn enters(&mut self) {
        let (session, now) = (self.world.session(), clock::now());
        let upstream = upstream();
        let place = Place {
            upstream: &upstream,
            database: self.talk.database(),
            user: self.talk.user(),
        };
        let operation = describe::beginning(place, &session, None, now);
        let terms = limits::terms_of_session(Duration::from_secs(1));
        self.asked = Some(Asked {
            held: Held::new(operation.id, Bytes::new()),
            decision: self.world.admit(operation, &terms),
            kind: Kind {
                form: Form::Done,
                statement: None,
                kills: None,
                by_name: false,
                stays: None,
            },
            text: Text::unknown(),
        });
    }

    fn ask(&mut self, ask: Ask) {
        let upstream = upstream();
        let (session, now) = (self.world.session(), clock::now());
        let place = Place {
            upstream: &upstream,
            database: ask.database.as_deref(),
            user: self.talk.user(),
        };
        let operation = describe::operation(&ask, place, &session, None, now);
        let terms = limits::terms(&ask.text, Duration::from_secs(1));
        self.asked = Some(Asked {
            held: Held::new(operation.id, ask.bytes),
            decision: self.world.admit(operation, &terms),
            kind: ask.kind,
            text: ask.text,
        });
    }

    fn decides(&mut self) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        let Asked {
            decision,
            kind,
            text,
            held,
        } = asked;
        match decision {
            Decision::Proceed(permit) if self.talk.is_entering() => {
                let Step::Own(bytes) = self.talk.entered(permit) else {
                    panic!("a session begins with nothing")
                };
                self.to_server.extend_from_slice(&bytes);
            }
            Decision::Proceed(permit) if kind.stays.is_some() => {
                panic!("{kind:?} does not go on, and policy {permit:?}")
            }
            Decision::Proceed(permit) => {
                let cleared = held.release(&permit).unwrap();
                self.to_server.extend_from_slice(&cleared.into_inner());
                self.talk.granted(kind, text, permit);
            }
            Decision::Refuse(refused) => match self.talk.refused(kind, Answered::of(&refused)) {
                Step::Own(bytes) => self.to_server.extend_from_slice(&bytes),
                Step::Say(bytes) => self.to_client.extend_from_slice(&bytes),
                Step::Drop => {}
                other @ (Step::More
                | Step::Pass(_, _)
                | Step::Password(_)
                | Step::Goodbye(_)
                | Step::Ask(_)
                | Step::Enter) => panic!("{other:?} is no refusal"),
            },
            Decision::Replay(_) => panic!("nothing is set aside"),
        }
    }

    pub(super) fn answered(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.from_server.extend_from_slice(bytes);
        let (mut to_client, mut to_server) = (Outbox::default(), Outbox::default());
        let mut sides = Sides {
            to_client: &mut to_client,
            to_server: &mut to_server,
        };
        let said = self.talk.server(&mut self.from_server, &mut sides);
        self.to_client.extend_from_slice(&to_client.concat());
        self.to_server.extend_from_slice(&to_server.concat());
        said
    }

    pub(super) fn says(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.from_client.extend_from_slice(bytes);
        self.advance()
    }

    /// The connection ends: everything that was admitted has ended, too.
    fn ends(mut self) {
        let world = self.world;
        self.talk.lost();
        drop(self);
        drop(world.ended());
    }
}

impl Relay for Between<'_> {
    fn client(&mut self, bytes: &[u8]) {
        self.says(bytes).unwrap();
    }

    fn server(&mut self, bytes: &[u8]) {
        self.answered(bytes).unwrap();
        self.advance().unwrap();
    }

    fn to_server(&mut self) -> &mut Vec<u8> {
        &mut self.to_server
    }

    fn asks(&self) -> bool {
        self.asked.is_some()
    }

    fn decide(&mut self) {
        self.decides();
        self.advance().unwrap();
    }
}

/// Packets with their numbers and bodies, of errors only the code.
fn packets(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut packets = Vec::new();
    while let Some(header) = Header::of(bytes) {
        let body = &bytes[HEADER_BYTES..header.whole()];
        bytes = &bytes[header.whole()..];
        let said = match body {
            [0xff, a, b, ..] => format!("error {}", u16::from_le_bytes([*a, *b])),
            _ => String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned(),
        };
        packets.push((header.sequence, said));
    }
    assert!(bytes.is_empty(), "half a packet: {bytes:?}");
    packets
}

fn a_client_hears_what_a_judging_server_says(world: &World, mut choices: Choices<'_>) {
    let begins = Beginning::of(&mut choices);
    let said = script(begins.rounds, begins.speaks, &mut choices);
    let (mut ideal, mut server) = (begins.server(true), begins.server(false));
    ideal.hears(&said);
    let mut through = Between::begun(world, begins);
    move_all(&mut through, &mut server, &said, choices, usize::MAX);
    let shown = || packets(&said);
    assert_eq!(
        packets(&through.to_client),
        packets(ideal.said()),
        "said {:?}",
        shown()
    );
    let waits = packets(&through.from_client);
    assert!(waits.is_empty(), "{waits:?} waits, said {:?}", shown());
    assert!(through.talk.is_idle(), "something is owed: {:?}", shown());
    let known = through.talk.database().unwrap_or_default();
    assert_eq!(known, ideal.database, "said {:?}", shown());
    through.talk.lost();
    drop(through);
    let rows: u64 = world.ended().iter().filter_map(|ended| ended.rows).sum();
    assert_eq!(rows, ideal.rows, "said {:?}", shown());
}

/// Whenever the server is lost, what is open is completed.
fn a_server_may_be_lost(world: &World, mut choices: Choices<'_>) {
    let most = usize::from(choices.byte());
    let begins = Beginning::of(&mut choices);
    let said = script(begins.rounds, begins.speaks, &mut choices);
    let mut server = begins.server(false);
    let mut through = Between::begun(world, begins);
    move_all(&mut through, &mut server, &said, choices, most);
    through.ends();
}

/// A server may say anything: it ends the session, or does not, and what was
/// admitted is completed.
fn noise(world: &World, mut choices: Choices<'_>) {
    let begins = Beginning::of(&mut choices);
    let said = script(begins.rounds, begins.speaks, &mut choices);
    let mut through = Between::begun(world, Beginning { shift: 0, ..begins });
    let mut ended = through.answered(begins.server(true).said()).is_err();
    ended = ended || through.advance().is_err();
    through.decides();
    ended = ended || through.says(&said).is_err();
    while choices.are_left() && !ended {
        let answer = answer(&mut choices);
        ended = through.answered(&answer).is_err();
        through.decides();
        ended = ended || through.advance().is_err();
    }
    through.ends();
}

/// What a server may say, or something like it.
pub(super) fn answer(choices: &mut Choices<'_>) -> Vec<u8> {
    const USUAL: &[&[u8]] = &[
        b"\0\0\0\x02\0\0\0",
        b"\0\x01\0\x0a\0\0\0",
        b"\x01",
        b"\x02",
        b"\x03def",
        b"\xfe\0\0\x02\0",
        b"\xfe\0\0\x42\0",
        b"\xfe\0\0\x02\0\0\0",
        b"\x01a",
        b"\xff\x28\x04#42000bad",
        b"\xfbf",
        b"\0\x01\0\0\0\x01\0\x01\0\0\0\0",
        b"\x07utf8mb4\0",
        b"\xfeplugin\0nonce678901234567890\0",
        b"\x01\x04",
        b"\x01\x03",
    ];
    let number = choices.byte();
    let mut packet = match choices.below(4) {
        0 => {
            let length = choices.below(12);
            packet(number, choices.bytes(length)).to_vec()
        }
        _ => packet(number, choices.pick(USUAL)).to_vec(),
    };
    if choices.below(16) == 0 {
        packet[choices.below(3)] ^= choices.byte();
    }
    packet
}

/// A client may say anything: it ends the session, or does not.
fn a_client_may_say_anything(world: &World, mut choices: Choices<'_>) {
    let begins = Beginning::of(&mut choices);
    let mut through = Between::begun(world, Beginning { shift: 0, ..begins });
    let login = begins.server(true);
    let mut ended = through.answered(login.said()).is_err();
    ended = ended || through.advance().is_err();
    through.decides();
    while choices.are_left() && !ended {
        let length = choices.below(24);
        let number = choices.pick(&[0, 0, 0, 1, 2, 3]);
        let mut said = packet(number, choices.bytes(length)).to_vec();
        if choices.below(16) == 0 {
            said[choices.below(3)] ^= choices.byte();
        }
        ended = through.says(&said).is_err();
        through.decides();
        // Whatever it was, it is done.
        let done = answer(&mut choices);
        ended = ended || through.answered(&done).is_err() || through.advance().is_err();
    }
    through.ends();
}
