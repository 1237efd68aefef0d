//! Two ends and a machine between them, moved in whatever order bytes choose.

use super::Choices;

/// A relay without its sockets. What is broken panics.
pub(in crate::protocols) trait Relay {
    /// The client says this.
    fn client(&mut self, bytes: &[u8]);
    /// The server answers this.
    fn server(&mut self, bytes: &[u8]);
    /// What waits for the server.
    fn to_server(&mut self) -> &mut Vec<u8>;
    /// Whether a decision waits to be made.
    fn asks(&self) -> bool;
    /// Makes it.
    fn decide(&mut self);
}

/// What is behind it.
pub(in crate::protocols) trait Peer {
    /// The relay says this.
    fn hears(&mut self, bytes: &[u8]);
    /// What it has let go so far, from the beginning.
    fn said(&self) -> &[u8];
}

/// Moves bytes and decisions between a client that says `said` and `peer`, in
/// the order that is chosen, until nothing moves or `most` moves were made.
pub(in crate::protocols) fn move_all(
    relay: &mut impl Relay,
    peer: &mut impl Peer,
    said: &[u8],
    mut choices: Choices<'_>,
    most: usize,
) {
    let (mut heard, mut answered) = (0, 0);
    for _ in 0..most {
        let moves = [
            heard < said.len(),
            !relay.to_server().is_empty(),
            answered < peer.said().len(),
            relay.asks(),
        ];
        // Behind the choices whatever can move moves, and all at once.
        let (first, size) = match choices.are_left() {
            true => {
                let chosen = usize::from(choices.byte());
                (chosen & 3, (chosen >> 2).saturating_add(1))
            }
            false => (0, usize::MAX),
        };
        let mut turns = [0, 1, 2, 3, 0, 1, 2, 3].into_iter().skip(first).take(4);
        let Some(now) = turns.find(|at| moves[*at]) else {
            return;
        };
        match now {
            0 => {
                let piece = piece(said, heard, size);
                heard = heard.saturating_add(piece.len());
                relay.client(piece);
            }
            1 => {
                let waits = relay.to_server();
                let bytes: Vec<_> = waits.drain(..size.min(waits.len())).collect();
                peer.hears(&bytes);
            }
            2 => {
                let piece = piece(peer.said(), answered, size);
                answered = answered.saturating_add(piece.len());
                relay.server(piece);
            }
            _ => relay.decide(),
        }
    }
}

fn piece(all: &[u8], from: usize, size: usize) -> &[u8] {
    let rest = &all[from..];
    &rest[..size.min(rest.len())]
}
