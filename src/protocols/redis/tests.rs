//! Laws of the codec: reads cut anywhere change nothing, noise is survived,
//! and what is judged is what the server reads.

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::protocols::pipe::Outbox;

use super::conversation::{Conversation, Step};
use super::reply;
use super::request::{self, Progress};
use super::scripts::Scripts;
use super::{Dangerous, Refusals};

const ROUNDS: u64 = 300;

fn commands(random: &mut StdRng) -> (Vec<u8>, Vec<Vec<Vec<u8>>>) {
    let (mut bytes, mut all) = (Vec::new(), Vec::new());
    for _ in 0..random.random_range(1..6) {
        let words: Vec<Vec<u8>> = (0..random.random_range(1..5))
            .map(|_| {
                let length = random.random_range(0..40);
                (0..length).map(|_| random.random()).collect()
            })
            .collect();
        if random.random_ratio(1, 5) {
            bytes.extend_from_slice(
                [&b"\r\n"[..], b"*0\r\n", b"*-1\r\n"][random.random_range(0..3)],
            );
        }
        bytes.extend_from_slice(&request::array(&words));
        all.push(words);
    }
    (bytes, all)
}

/// Hands out `bytes` in pieces.
fn cut<'a>(bytes: &'a [u8], random: &mut StdRng) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (piece, next) = rest.split_at(random.random_range(1..=rest.len().min(17)));
        pieces.push(piece);
        rest = next;
    }
    pieces
}

#[test]
fn rd_1_requests_read_in_any_pieces_are_the_same() {
    for seed in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let (bytes, expected) = commands(&mut random);
        let (mut input, mut scan, mut seen) =
            (BytesMut::new(), request::Scan::default(), Vec::new());
        for piece in cut(&bytes, &mut random) {
            input.extend_from_slice(piece);
            loop {
                let end = match scan.advance(&input).unwrap() {
                    Progress::More => break,
                    Progress::Nothing(end) => end,
                    Progress::Whole(end) => {
                        let words =
                            (0..scan.count()).map(|at| input[scan.argument(at).unwrap()].to_vec());
                        seen.push(words.collect::<Vec<_>>());
                        end
                    }
                    Progress::Inline(..) => panic!("seed {seed}: no inline command was sent"),
                };
                scan.clear();
                drop(input.split_to(end));
            }
        }
        assert_eq!(seen, expected, "seed {seed}");
        assert!(input.is_empty(), "seed {seed}");
    }
}

#[test]
fn rd_17_the_rest_of_a_command_ends_where_it_does_in_any_pieces() {
    for seed in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let words: Vec<Vec<u8>> = (0..random.random_range(2..6))
            .map(|_| vec![b'x'; random.random_range(0..60)])
            .collect();
        let bytes = [&request::array(&words)[..], b"*1\r\n"].concat();
        let begun = random.random_range(4..bytes.len() - 4);
        let mut scan = request::Scan::default();
        if scan.advance(&bytes[..begun]) != Ok(Progress::More) {
            continue;
        }
        let (mut rest, read) = scan.take_rest();
        let mut input = BytesMut::from(&bytes[read..begun]);
        let mut taken = rest.advance(&input).unwrap();
        drop(input.split_to(taken));
        for piece in cut(&bytes[begun..], &mut random) {
            input.extend_from_slice(piece);
            let now = rest.advance(&input).unwrap();
            drop(input.split_to(now));
            taken += now;
        }
        assert!(rest.is_over(), "seed {seed}");
        assert_eq!(
            (read + taken, &input[..]),
            (bytes.len() - 4, &b"*1\r\n"[..]),
            "seed {seed}"
        );
    }
}

/// A value of any type, of both versions.
fn value(random: &mut StdRng, depth: u32, out: &mut Vec<u8>) {
    let kinds: &[u8] = if depth == 0 {
        b"+-:$_#,(=!N"
    } else {
        b"+-:$_#,(=!N*~%|>"
    };
    match kinds[random.random_range(0..kinds.len())] {
        kind @ (b'+' | b'-' | b':' | b'#' | b',' | b'(') => {
            out.push(kind);
            out.extend_from_slice(b"12 x\r\n");
        }
        b'_' => out.extend_from_slice(b"_\r\n"),
        b'N' => out.extend_from_slice(if random.random() {
            b"$-1\r\n"
        } else {
            b"*-1\r\n"
        }),
        kind @ (b'$' | b'=' | b'!') => {
            let length = random.random_range(0..50);
            out.extend_from_slice(format!("{}{length}\r\n", char::from(kind)).as_bytes());
            out.extend((0..length).map(|_| random.random::<u8>()));
            out.extend_from_slice(b"\r\n");
        }
        kind => {
            let count = random.random_range(0..4);
            out.extend_from_slice(format!("{}{count}\r\n", char::from(kind)).as_bytes());
            let elements = match kind {
                b'%' => count * 2,
                b'|' => count * 2 + 1,
                _ => count,
            };
            for _ in 0..elements {
                value(random, depth - 1, out);
            }
        }
    }
}

#[test]
fn rd_6_replies_end_where_they_do_in_any_pieces_and_any_nesting() {
    for seed in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            value(&mut random, 5, &mut bytes);
            ends.push(bytes.len());
        }
        let (mut scan, mut begun, mut at, mut seen) =
            (reply::Scan::default(), false, 0, Vec::new());
        let mut have = 0;
        for piece in cut(&bytes, &mut random) {
            have += piece.len();
            while at < have {
                let rest = &bytes[at..have];
                if !begun {
                    (begun, ()) = (true, scan.begin());
                }
                if let Some(inside) = scan.inside(rest) {
                    at += inside;
                } else {
                    let Some(head) = reply::head(rest).unwrap() else {
                        break;
                    };
                    scan.element(&head).unwrap();
                    at += head.bytes;
                }
                if scan.is_over() {
                    seen.push(at);
                    begun = false;
                }
            }
        }
        assert_eq!(seen, ends, "seed {seed}");
    }
}

#[test]
fn noise_ends_a_reader_and_never_the_program() {
    let shapes: &[u8] = b"*$+-:_%|>~=!\r\n0123456789 \"'x";
    for seed in 0..ROUNDS * 20 {
        let mut random = StdRng::seed_from_u64(seed);
        let length = random.random_range(0..60);
        let bytes: Vec<u8> = (0..length)
            .map(|_| shapes[random.random_range(0..shapes.len())])
            .collect();
        let mut talk = talk();
        let mut input = BytesMut::from(&bytes[..]);
        for _ in 0..100 {
            if matches!(talk.client(&mut input), Step::More) {
                break;
            }
        }
        let mut out = Outbox::default();
        let mut input = BytesMut::from(&bytes[..]);
        // Either is fine; ending is what counts.
        let _ended = talk.server(&mut input, &mut out);
    }
}

#[test]
fn a_million_levels_of_nesting_are_counted_and_not_entered() {
    let bytes = b"*1\r\n".repeat(1_000_000);
    let mut scan = reply::Scan::default();
    scan.begin();
    let mut at = 0;
    while let Some(head) = reply::head(&bytes[at..]).unwrap() {
        scan.element(&head).unwrap();
        at += head.bytes;
    }
    assert_eq!((at, scan.is_over()), (bytes.len(), false));
}

fn talk() -> Conversation {
    let scripts = std::sync::Arc::new(Scripts::new(1_000));
    Conversation::new(scripts, Refusals::Substitute, Dangerous::Refuse)
}

#[test]
fn rd_2_replies_and_substitutes_keep_their_place_in_any_pieces() {
    for seed in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut talk, mut requests) = (talk(), BytesMut::new());
        let (mut replies, mut expected) = (Vec::new(), Vec::new());
        for number in 0..random.random_range(1..20) {
            if random.random() {
                requests.extend_from_slice(&request::array(&["PING"]));
                let before = replies.len();
                value(&mut random, 2, &mut replies);
                // What is no reply comes besides.
                if replies[before] == b'>' {
                    expected.extend_from_slice(&replies[before..]);
                    let pong = format!("+{number}\r\n");
                    replies.extend_from_slice(pong.as_bytes());
                    expected.extend_from_slice(pong.as_bytes());
                } else {
                    let reply = replies[before..].to_vec();
                    expected.extend_from_slice(&reply);
                }
            } else {
                requests.extend_from_slice(&request::array(&["MONITOR"]));
                replies.push(b'?');
                expected.push(b'?');
            }
        }
        let mut markers = Vec::new();
        loop {
            match talk.client(&mut requests) {
                Step::More => break,
                Step::Pass(..) | Step::Drop => {}
                Step::Refuse(_) => {
                    let event = crate::domain::OperationId::new(markers.len() as u64, 0);
                    let poison = super::refuse::Poison::unasked(event, "no");
                    let error = poison.error();
                    let sent = talk.refused(poison).unwrap();
                    let marker = sent.split(|byte| *byte == b'\n').nth(2).unwrap().to_vec();
                    markers.push((marker, error));
                }
                Step::Ask(_) | Step::Instead(_) => panic!("seed {seed}: nothing is asked"),
            }
        }
        let fill = |text: &[u8], what: &dyn Fn(usize) -> Vec<u8>| {
            let (mut out, mut next) = (Vec::new(), 0);
            let mut rest = text;
            // Only between replies: a string may hold the sign, too.
            while let Some((first, more)) = rest.split_first() {
                if *first == b'?' && next < markers.len() {
                    out.extend(what(next));
                    next += 1;
                } else {
                    out.push(*first);
                }
                rest = more;
            }
            out
        };
        if replies.iter().filter(|byte| **byte == b'?').count() != markers.len() {
            continue;
        }
        let said = fill(&replies, &|at| {
            let marker = String::from_utf8_lossy(&markers[at].0)
                .trim_end()
                .to_owned();
            format!("-ERR unknown command '{marker}', with args beginning with: \r\n").into_bytes()
        });
        let heard = fill(&expected, &|at| markers[at].1.to_vec());
        let (mut input, mut out) = (BytesMut::new(), Outbox::default());
        for piece in cut(&said, &mut random) {
            input.extend_from_slice(piece);
            talk.server(&mut input, &mut out).unwrap();
        }
        assert_eq!(out.concat(), heard, "seed {seed}");
        assert!(talk.is_idle(), "seed {seed}");
    }
}

#[test]
fn rd_3_an_error_about_something_else_is_passed_on_as_it_is() {
    for said in [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-ERR max number of clients reached\r\n",
    ] {
        let (mut talk, mut requests) = (talk(), BytesMut::new());
        requests.extend_from_slice(&request::array(&["MONITOR"]));
        assert!(matches!(talk.client(&mut requests), Step::Refuse(_)));
        let event = crate::domain::OperationId::new(1, 0);
        talk.refused(super::refuse::Poison::unasked(event, "no"))
            .unwrap();
        let (mut input, mut out) = (BytesMut::from(said), Outbox::default());
        talk.server(&mut input, &mut out).unwrap();
        assert_eq!(out.concat(), said.as_bytes());
        assert!(talk.is_idle());
    }
}
