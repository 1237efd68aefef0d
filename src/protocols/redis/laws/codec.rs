//! The laws of requests and replies: where one ends, and what it says, does not
//! depend on how reads cut it; what is written is what is read.

use bytes::BytesMut;

use crate::protocols::laws::{Choices, pieces};

use super::super::reply::{self, ReplyError};
use super::super::request::{self, Progress, RequestError, Scan};
use super::values::{inline, value, words};

/// All that must hold.
pub(in crate::protocols) fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let what = choices.below(4);
    let sizes = choices.below(6);
    let sizes = choices.bytes(sizes);
    match what {
        0 => requests(choices.all(), sizes),
        1 => commands(choices, sizes),
        2 => replies(choices.all(), sizes),
        _ => values(choices, sizes),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Array(Vec<Vec<u8>>),
    Inline(Vec<Vec<u8>>),
}

type Read = (Vec<Seen>, Result<usize, RequestError>);

/// What is seen of requests that come in these pieces, and how it ends: with so
/// many bytes left, or this error.
fn read(pieces: &[&[u8]]) -> Read {
    let (mut input, mut scan, mut seen) = (BytesMut::new(), Scan::default(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (end, one) = match scan.advance(&input) {
                Err(wrong) => return (seen, Err(wrong)),
                Ok(Progress::More) => break,
                Ok(Progress::Nothing(end)) => (end, Seen::Nothing),
                Ok(Progress::Inline(end, words)) => (end, Seen::Inline(words)),
                Ok(Progress::Whole(end)) => {
                    let argument = |at| input[scan.argument(at).unwrap()].to_vec();
                    (end, Seen::Array((0..scan.count()).map(argument).collect()))
                }
            };
            assert!(end > 0 && end <= input.len(), "{one:?} ends at {end}");
            seen.push(one);
            scan.clear();
            drop(input.split_to(end));
        }
    }
    (seen, Ok(input.len()))
}

fn requests(bytes: &[u8], sizes: &[u8]) {
    let whole = read(&[bytes]);
    assert_eq!(read(&pieces(bytes, sizes)), whole);
    for one in &whole.0 {
        if let Seen::Array(words) = one {
            let again = read(&[&request::array(words)]);
            assert_eq!(again, (vec![one.clone()], Ok(0)));
        }
    }
    rest(bytes, sizes);
}

/// What is let by without being kept ends where it would have ended.
fn rest(bytes: &[u8], sizes: &[u8]) {
    let mut scan = Scan::default();
    let whole = scan.advance(bytes);
    let ends = match whole {
        Ok(Progress::Whole(end)) => Ok(end),
        Err(wrong) if bytes.first() == Some(&b'*') => Err(wrong),
        Ok(Progress::More | Progress::Nothing(_) | Progress::Inline(..)) | Err(_) => return,
    };
    let cut = sizes.iter().map(|size| usize::from(*size)).sum::<usize>();
    let (front, behind) = bytes.split_at(cut.min(bytes.len()));
    let mut scan = Scan::default();
    if scan.advance(front) != Ok(Progress::More) || scan.count() == 0 {
        return;
    }
    let (mut rest, read) = scan.take_rest();
    let (mut input, mut at) = (BytesMut::from(&front[read..]), read);
    for piece in [&b""[..]].into_iter().chain(pieces(behind, sizes)) {
        input.extend_from_slice(piece);
        match rest.advance(&input) {
            Err(wrong) => return assert_eq!(Err(wrong), ends),
            Ok(now) => {
                at += now;
                drop(input.split_to(now));
            }
        }
        if rest.is_over() {
            break;
        }
    }
    assert_eq!((Ok(at), rest.is_over()), (ends, true));
}

/// What is written is what is read.
fn commands(mut choices: Choices<'_>, sizes: &[u8]) {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    while choices.are_left() {
        match choices.below(5) {
            0 => {
                bytes.extend_from_slice(choices.pick(&[
                    &b"\r\n"[..],
                    b"*0\r\n",
                    b"*-1\r\n",
                    b" \n",
                ]));
                expected.push(Seen::Nothing);
            }
            1 => {
                let words = words(&mut choices);
                let browser = [&b"post"[..], b"host:"];
                if browser
                    .iter()
                    .any(|word| words[0].eq_ignore_ascii_case(word))
                {
                    return;
                }
                bytes.extend_from_slice(&inline(&words));
                expected.push(Seen::Inline(words));
            }
            _ => {
                let words = words(&mut choices);
                bytes.extend_from_slice(&request::array(&words));
                expected.push(Seen::Array(words));
            }
        }
    }
    assert_eq!(read(&pieces(&bytes, sizes)), (expected, Ok(0)));
    requests(&bytes, sizes);
}

/// Where replies end that come in these pieces, and what is wrong with them.
fn ends(pieces: &[&[u8]]) -> (Vec<usize>, Option<ReplyError>) {
    let (mut input, mut at, mut ends) = (Vec::new(), 0, Vec::new());
    let mut scan = reply::Scan::default();
    scan.begin();
    for piece in pieces {
        input.extend_from_slice(piece);
        while at < input.len() {
            let rest = &input[at..];
            match scan.inside(rest) {
                Some(inside) => at += inside,
                None => match reply::head(rest) {
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        if let Err(wrong) = scan.element(&head) {
                            return (ends, Some(wrong));
                        }
                        at += head.bytes.min(rest.len());
                    }
                    Err(wrong) => return (ends, Some(wrong)),
                },
            }
            if scan.is_over() {
                ends.push(at);
                scan.begin();
            }
        }
    }
    (ends, None)
}

fn replies(bytes: &[u8], sizes: &[u8]) {
    assert_eq!(ends(&pieces(bytes, sizes)), ends(&[bytes]));
}

fn values(mut choices: Choices<'_>, sizes: &[u8]) {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    while choices.are_left() {
        value(&mut choices, 4, &mut bytes);
        expected.push(bytes.len());
    }
    assert_eq!(ends(&pieces(&bytes, sizes)), (expected, None));
}
