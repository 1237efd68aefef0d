//! What a client says, as bytes choose it: what drivers say, in any order, and
//! all of it ahead.

use bytes::Bytes;

use crate::protocols::laws::Choices;

use super::super::capability::Capabilities;
use super::super::commands::Code;
use super::super::wire::packet;

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
    "SELECT x FROM capped",
    "SELECT x FROM capped; SELECT 1; SELECT y FROM capped",
    "SELECT 1; INSERT INTO t VALUES (2)",
    "SELECT 1; SELECT x FROM forbidden",
    "INSERT INTO t VALUES (1); SELECT broken FROM t; SELECT 2",
    "USE shop",
    "use `a b` ;",
    "USE gone -- why",
    "USE shop; SELECT 1",
    "INSERT INTO t VALUES (1); USE stock; SELECT broken FROM t; USE shop",
    "KILL QUERY 7",
];
/// What changes how the server reads what follows, and what is then read in
/// another way.
const READ: &[&str] = &[
    "SET sql_mode = 'ANSI_QUOTES'",
    "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "SET sql_mode = ''",
    "SET NAMES gbk",
    "SET NAMES utf8mb4",
    "SET autocommit = 0",
    "SET sql_mode = 'ANSI_QUOTES'; SELECT \"a\"",
    "SELECT \"a\"",
    "SELECT 'it\\'s' FROM t",
    "SELECT 'é'",
    "SELECT '\\'",
];
const PREPARED: &[&str] = &[
    "SELECT ?",
    "SELECT x FROM t WHERE id = ?",
    "INSERT INTO t VALUES (?)",
    "SELECT x FROM forbidden WHERE id = ?",
    "SELECT x FROM capped",
    "FROB ?",
    "SELECT 1; SELECT 2",
    "SELECT 'it\\'s' FROM t",
    "SELECT \"a\", ?, ?",
    "SET NAMES gbk",
    "",
];
pub(super) const FILES: &[&str] = &[
    "LOAD DATA LOCAL INFILE 'f' INTO TABLE t",
    "LOAD DATA LOCAL INFILE 'another' INTO TABLE t",
    "LOAD DATA LOCAL INFILE 'f' INTO TABLE forbidden",
];
/// Numbers of statements; the last means whichever was prepared last.
const NUMBERS: &[u32] = &[1, 1, 2, 3, u32::MAX];
/// More of an execution than is looked at.
const LONG_BYTES: usize = 70_000;

/// A conversation's worth of packets, behind a login of this many rounds.
pub(super) fn script(rounds: usize, speaks: Capabilities, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut said = Vec::new();
    if rounds > 0 {
        said.extend_from_slice(&packet(3, b"proof"));
    }
    for _ in 0..choices.below(24) {
        let next = said_next(speaks, choices);
        said.extend_from_slice(&next);
    }
    said
}

fn command(code: Code, rest: &[u8]) -> Bytes {
    packet(0, &[&[code.0], rest].concat())
}

/// A query with or without attributes, as both sides agreed.
fn query(text: &str, speaks: Capabilities, choices: &mut Choices<'_>) -> Bytes {
    let attributes: &[u8] = match (
        speaks.has(Capabilities::QUERY_ATTRIBUTES),
        choices.below(4) == 0,
    ) {
        (false, _) => b"",
        (true, false) => b"\0\x01",
        (true, true) => b"\x01\x01\0\x01\xfe\0\x01a\x02vw",
    };
    command(Code::QUERY, &[attributes, text.as_bytes()].concat())
}

fn said_next(speaks: Capabilities, choices: &mut Choices<'_>) -> Vec<u8> {
    let number = |choices: &mut Choices<'_>| choices.pick(NUMBERS).to_le_bytes();
    match choices.below(18) {
        0..=2 => query(choices.pick(TEXTS), speaks, choices),
        3 | 4 => query(choices.pick(READ), speaks, choices),
        5 | 6 => command(Code::STMT_PREPARE, choices.pick(PREPARED).as_bytes()),
        7 | 8 => {
            let mut body = number(choices).to_vec();
            // With or without a cursor.
            body.extend_from_slice(&[choices.pick(&[0, 0, 1]), 1, 0, 0, 0]);
            if choices.below(16) == 0 {
                body.resize(LONG_BYTES, 7);
            }
            command(Code::STMT_EXECUTE, &body)
        }
        9 => {
            let [a, b, c, d] = number(choices);
            let rows = choices.pick(&[1, 2, 9]);
            command(Code::STMT_FETCH, &[a, b, c, d, rows, 0, 0, 0])
        }
        10 => {
            let data = [&number(choices)[..], &[0, 0], b"long"].concat();
            command(Code::STMT_SEND_LONG_DATA, &data)
        }
        11 => command(
            choices.pick(&[Code::STMT_CLOSE, Code::STMT_RESET]),
            &number(choices),
        ),
        12 => {
            let name = choices.pick(&["shop", "forbidden", "a`b c"]);
            command(
                choices.pick(&[Code::INIT_DB, Code::FIELD_LIST]),
                name.as_bytes(),
            )
        }
        13 => {
            let code = choices.pick(&[
                Code::PING,
                Code::RESET_CONNECTION,
                Code::SET_OPTION,
                Code::STATISTICS,
                Code::PROCESS_INFO,
                Code::DEBUG,
                Code(0x12),
                Code(0xfe),
                Code(0x55),
            ]);
            command(code, b"\0\0")
        }
        14 => return changes_user(choices),
        15 => return sends_file(speaks, choices),
        _ => return runs(choices),
    }
    .to_vec()
}

/// Somebody who is believed at once, is asked to prove it, or is nobody.
fn changes_user(choices: &mut Choices<'_>) -> Vec<u8> {
    let user = choices.pick(b"aabbc");
    let database = choices.pick(&["", "shop", "stock"]);
    let body = [&[user], &b"\0\0"[..], database.as_bytes(), b"\0\x2d\0p\0"].concat();
    let change = command(Code::CHANGE_USER, &body);
    match user {
        b'b' => [change, packet(2, b"proof")].concat(),
        _ => change.to_vec(),
    }
}

/// As drivers do: something is prepared, executed with a cursor or without, and fetched.
fn runs(choices: &mut Choices<'_>) -> Vec<u8> {
    let last = &u32::MAX.to_le_bytes()[..];
    let text = choices.pick(PREPARED);
    let cursor = choices.pick(&[1, 0]);
    let mut said = command(Code::STMT_PREPARE, text.as_bytes()).to_vec();
    said.extend_from_slice(&command(
        Code::STMT_EXECUTE,
        &[last, &[cursor, 1, 0, 0, 0]].concat(),
    ));
    for _ in 0..choices.below(4) {
        let rows = choices.pick(&[2, 1, 9]);
        said.extend_from_slice(&command(
            Code::STMT_FETCH,
            &[last, &[rows, 0, 0, 0]].concat(),
        ));
    }
    said
}

/// The contents of a file are said where the server asks for that file.
fn sends_file(speaks: Capabilities, choices: &mut Choices<'_>) -> Vec<u8> {
    let text = choices.pick(FILES);
    let mut said = query(text, speaks, choices).to_vec();
    if text == FILES[0] {
        let pieces = u8::try_from(choices.below(3)).unwrap();
        for piece in 0..pieces {
            said.extend_from_slice(&packet(2 + piece, b"1\n"));
        }
        said.extend_from_slice(&packet(2 + pieces, b""));
    }
    said
}
