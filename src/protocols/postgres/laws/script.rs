//! What a client says, as bytes choose it: what drivers say, in any order.

use crate::protocols::laws::Choices;

use super::super::wire::message;

/// Statements that mean what they mean whenever they come.
const TEXTS: &[&str] = &[
    "SELECT 1",
    "SELECT x FROM t",
    "INSERT INTO t VALUES (1)",
    "SELECT x FROM forbidden",
    "DELETE FROM forbidden",
    "SELECT broken FROM t",
    "FROB x",
    "",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "COPY t TO STDOUT",
    "DO $$ BEGIN END $$",
    "SELECT 1; INSERT INTO t VALUES (2)",
    "SELECT 1; SELECT x FROM forbidden",
    "INSERT INTO t VALUES (1); SELECT broken FROM t; SELECT 2",
];
const COPIES: &[&str] = &["COPY t FROM STDIN", "COPY forbidden FROM STDIN"];
const STATEMENTS: &[&str] = &["", "s", "t"];
const PORTALS: &[&str] = &["", "p"];

/// A conversation's worth of messages.
pub(super) fn script(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut said = Vec::new();
    for _ in 0..choices.below(24) {
        said_next(choices, &mut said);
    }
    // Whoever says something waits for its end.
    said.extend_from_slice(&message(b'S', &[]));
    said
}

fn said_next(choices: &mut Choices<'_>, said: &mut Vec<u8>) {
    let mut say = |tag, parts: &[&[u8]]| said.extend_from_slice(&message(tag, parts));
    match choices.below(16) {
        0 | 1 => say(b'Q', &[choices.pick(TEXTS).as_bytes(), b"\0"]),
        2 | 3 => {
            let (name, text) = (choices.pick(STATEMENTS), choices.pick(TEXTS));
            say(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"]);
        }
        4 | 5 => {
            let (portal, name) = (choices.pick(PORTALS), choices.pick(STATEMENTS));
            say(
                b'B',
                &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"],
            );
        }
        6 | 7 => {
            let (portal, most) = (choices.pick(PORTALS), choices.pick(&[0, 0, 2, 5, 7]));
            say(b'E', &[portal.as_bytes(), b"\0\0\0\0", &[most]]);
        }
        8 => {
            let (what, name) = (choices.pick(b"SP"), choices.pick(STATEMENTS));
            say(b'D', &[&[what], name.as_bytes(), b"\0"]);
        }
        9 => {
            let (what, name) = (choices.pick(b"SP"), choices.pick(STATEMENTS));
            say(b'C', &[&[what], name.as_bytes(), b"\0"]);
        }
        10 => say(b'S', &[]),
        11 => say(b'H', &[]),
        12 => {
            let function: u32 = choices.pick(&[952, 1_234]);
            say(b'F', &[&function.to_be_bytes(), &[0; 8]]);
        }
        // As drivers do: all of a statement at once.
        13 => {
            let text = choices.pick(TEXTS);
            say(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"]);
            say(b'B', &[b"\0\0\0\0\0\0\0\0"]);
            say(b'D', &[b"P\0"]);
            say(b'E', &[b"\0\0\0\0\0"]);
            say(b'S', &[]);
        }
        14 => {
            say(b'Q', &[choices.pick(COPIES).as_bytes(), b"\0"]);
            data(choices, said);
        }
        _ => {
            say(b'P', &[b"\0", choices.pick(COPIES).as_bytes(), b"\0\0\0"]);
            say(b'B', &[b"\0\0\0\0\0\0\0\0"]);
            say(b'E', &[b"\0\0\0\0\0"]);
            if choices.below(2) == 0 {
                say(b'S', &[]);
            }
            data(choices, said);
            said.extend_from_slice(&message(b'S', &[]));
        }
    }
}

/// Data of a COPY, and its end.
fn data(choices: &mut Choices<'_>, said: &mut Vec<u8>) {
    for _ in 0..choices.below(3) {
        said.extend_from_slice(&message(b'd', &[b"1\n"]));
    }
    said.extend_from_slice(&match choices.below(3) {
        0 => message(b'f', &[b"no\0"]),
        _ => message(b'c', &[]),
    });
}
