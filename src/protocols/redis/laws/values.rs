//! Values of both versions of RESP, and commands, as bytes choose them.

use crate::protocols::laws::Choices;

/// Words of a command: a few bytes each, any.
pub(super) fn words(choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let count = 1 + choices.below(5);
    let word = |choices: &mut Choices<'_>| {
        let length = choices.below(24);
        choices.bytes(length).to_vec()
    };
    (0..count).map(|_| word(choices)).collect()
}

/// A command as one line, which every byte can stand in.
pub(super) fn inline(words: &[Vec<u8>]) -> Vec<u8> {
    let mut line = Vec::new();
    for word in words {
        line.extend_from_slice(b" \"");
        for byte in word {
            line.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
        line.push(b'"');
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// A value of any type, of both versions.
pub(super) fn value(choices: &mut Choices<'_>, depth: u32, out: &mut Vec<u8>) {
    let kinds: &[u8] = if depth == 0 {
        b"+-:$_#,(=!N"
    } else {
        b"+-:$_#,(=!N*~%|>"
    };
    match choices.pick(kinds) {
        kind @ (b'+' | b'-' | b':' | b'#' | b',' | b'(') => {
            out.push(kind);
            out.extend_from_slice(b"12 x\r\n");
        }
        b'_' => out.extend_from_slice(b"_\r\n"),
        b'N' => out.extend_from_slice(choices.pick(&[b"$-1\r\n", b"*-1\r\n"])),
        kind @ (b'$' | b'=' | b'!') => {
            let length = choices.below(50);
            let inside = choices.bytes(length);
            out.extend_from_slice(format!("{}{}\r\n", char::from(kind), inside.len()).as_bytes());
            out.extend_from_slice(inside);
            out.extend_from_slice(b"\r\n");
        }
        kind => {
            let count = choices.below(4);
            out.extend_from_slice(format!("{}{count}\r\n", char::from(kind)).as_bytes());
            let elements = match kind {
                b'%' => count * 2,
                b'|' => count * 2 + 1,
                _ => count,
            };
            for _ in 0..elements {
                value(choices, depth - 1, out);
            }
        }
    }
}
