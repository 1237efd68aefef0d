//! What CONSTRAIN asks of a command, and what this protocol does about it.
//!
//! - `read_only`: holds for what only reads, and is contradicted by the rest.
//! - `max_rows:N`: no more than so many elements come. Applied where a command
//!   says itself how many it wants, and saying less means the first of them:
//!   `LRANGE`, `ZRANGE` and their like, `LIMIT`, `COUNT` of `XRANGE`, what pops
//!   or picks. `SCAN`'s `COUNT` is a hint to the server and limits nothing.
//!
//! Everything else is recorded, or refused where constraints are enforced.

use std::time::Duration;

use bytes::Bytes;

use crate::gate::{Terms, Unanswered};

use super::commands::{Arguments, Class};
use super::reply;
use super::request::{self, Progress};

const READ_ONLY: &str = "read_only";
const MAX_ROWS: &str = "max_rows:";

/// Where a command says how many it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// It has one at most.
    One,
    /// The last index is there, and this one the first.
    Until { at: usize, first: i64 },
    /// The number is there; a negative one means all.
    Count { at: usize },
    /// The number is there; a negative one means as many, with repeats.
    Picks { at: usize },
    /// Nowhere, but it may say so at the end, in these words.
    Append(&'static [&'static str]),
}

impl Limit {
    /// Of a command called `name`, where there is one.
    pub(super) fn of(name: &str, arguments: &impl Arguments) -> Option<Self> {
        if arguments.seen() < arguments.count() {
            return None;
        }
        let number = |at: usize| reply::integer(arguments.argument(at)?);
        let option = |from: usize, word: &str| {
            let mut all = from..arguments.count();
            all.find(|at| {
                let argument = arguments.argument(*at).unwrap_or_default();
                argument.eq_ignore_ascii_case(word.as_bytes())
            })
        };
        let until = || match (number(2)?, number(3)?) {
            (first @ 0.., -1 | 0..) => Some(Self::Until { at: 3, first }),
            // Where the end is counted from behind, the first of them are not known.
            _ => None,
        };
        let limit = |from: usize| match option(from, "LIMIT") {
            None => Some(Self::Append(&["LIMIT", "0"])),
            Some(at) => {
                let at = at.saturating_add(2);
                number(at).map(|_| Self::Count { at })
            }
        };
        match name {
            "GET" | "HGET" | "STRLEN" | "EXISTS" | "TYPE" | "TTL" | "PTTL" | "LLEN" | "SCARD"
            | "ZCARD" | "HLEN" | "ZSCORE" | "LINDEX" | "SISMEMBER" | "GETRANGE" | "HEXISTS"
            | "ZCOUNT" | "GETBIT" | "BITCOUNT" | "XLEN" => Some(Self::One),
            "LRANGE" | "ZREVRANGE" => until(),
            "ZRANGE" if option(4, "BYSCORE").or(option(4, "BYLEX")).is_some() => limit(4),
            "ZRANGE" => until(),
            "ZRANGEBYSCORE" | "ZREVRANGEBYSCORE" | "ZRANGEBYLEX" | "ZREVRANGEBYLEX" => limit(4),
            "XRANGE" | "XREVRANGE" => match option(4, "COUNT") {
                None => Some(Self::Append(&["COUNT"])),
                Some(at) => {
                    let at = at.saturating_add(1);
                    number(at).map(|_| Self::Count { at })
                }
            },
            "LPOP" | "RPOP" | "SPOP" | "ZPOPMIN" | "ZPOPMAX" if arguments.count() == 2 => {
                Some(Self::One)
            }
            "LPOP" | "RPOP" | "SPOP" | "ZPOPMIN" | "ZPOPMAX" => {
                number(2).filter(|count| *count >= 0)?;
                Some(Self::Count { at: 2 })
            }
            "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" if arguments.count() == 2 => {
                Some(Self::One)
            }
            "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" => {
                number(2).map(|_| Self::Picks { at: 2 })
            }
            _ => None,
        }
    }

    /// `command` with no more than `rows`.
    pub(super) fn fit(self, command: Bytes, rows: u32) -> Bytes {
        let rows = i64::from(rows);
        let Some(mut words) = words(&command) else {
            return command;
        };
        let mut put = |at: usize, number: i64| {
            if let Some(word) = words.get_mut(at) {
                *word = number.to_string().into_bytes();
            }
        };
        let said = |at: usize| reply::integer(words_at(&command, at)?.as_slice());
        match self {
            Self::One => return command,
            Self::Until { at, first } => {
                let last = first.saturating_add(rows).saturating_sub(1);
                match said(at) {
                    Some(wanted @ 0..) => put(at, wanted.min(last)),
                    _ => put(at, last),
                }
            }
            Self::Count { at } => match said(at) {
                Some(wanted @ 0..) => put(at, wanted.min(rows)),
                _ => put(at, rows),
            },
            Self::Picks { at } => {
                let wanted = said(at).unwrap_or(rows);
                put(at, wanted.clamp(rows.saturating_neg(), rows));
            }
            Self::Append(front) => {
                words.extend(front.iter().map(|word| word.as_bytes().to_vec()));
                words.push(rows.to_string().into_bytes());
            }
        }
        request::array(&words).freeze()
    }
}

/// The words of a command that is there whole.
fn words(command: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut scan = request::Scan::default();
    let Ok(Progress::Whole(_)) = scan.advance(command) else {
        return None;
    };
    let word = |at| Some(command.get(scan.argument(at)?)?.to_vec());
    (0..scan.count()).map(word).collect()
}

fn words_at(command: &[u8], at: usize) -> Option<Vec<u8>> {
    words(command)?.get(at).cloned()
}

/// The rows of a `max_rows:N`.
fn rows(name: &str) -> Option<u32> {
    let rows = name.strip_prefix(MAX_ROWS)?.trim().parse().ok()?;
    (rows > 0).then_some(rows)
}

/// The fewest rows that are asked for.
pub(super) fn rows_of(constraints: &[Box<str>]) -> Option<u32> {
    constraints.iter().filter_map(|name| rows(name)).min()
}

/// What Redis brings to a decision about a command of this class.
pub(super) fn terms(class: Class, limit: Option<Limit>, hold_within: Duration) -> Terms {
    let reads = class == Class::Read;
    let applies: fn(&str) -> bool = match (reads, limit) {
        (true, Some(_)) => |name| name == READ_ONLY || rows(name).is_some(),
        (true, None) => |name| name == READ_ONLY,
        (false, Some(_)) => |name| rows(name).is_some(),
        (false, None) => |_| false,
    };
    let contradicts: fn(&str) -> bool = match reads {
        true => |_| false,
        false => |name| name == READ_ONLY,
    };
    Terms {
        hold_within,
        unanswered: Unanswered::AsSet,
        applies,
        contradicts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_9_a_command_asks_for_no_more_than_it_may_or_has_no_limit() {
        for (line, expected) in [
            ("GET k", Some("GET k")),
            ("LRANGE k 0 -1", Some("LRANGE k 0 9")),
            ("LRANGE k 5 100", Some("LRANGE k 5 14")),
            ("LRANGE k 5 7", Some("LRANGE k 5 7")),
            ("LRANGE k -5 -1", None),
            ("LRANGE k 0 -2", None),
            ("ZRANGE k 0 -1 WITHSCORES", Some("ZRANGE k 0 9 WITHSCORES")),
            (
                "ZRANGE k 0 1 BYSCORE LIMIT 3 99",
                Some("ZRANGE k 0 1 BYSCORE LIMIT 3 10"),
            ),
            (
                "ZRANGEBYSCORE k -inf +inf",
                Some("ZRANGEBYSCORE k -inf +inf LIMIT 0 10"),
            ),
            (
                "ZRANGEBYSCORE k 0 1 limit 2 -1",
                Some("ZRANGEBYSCORE k 0 1 limit 2 10"),
            ),
            ("XRANGE k - +", Some("XRANGE k - + COUNT 10")),
            ("XRANGE k - + COUNT 3", Some("XRANGE k - + COUNT 3")),
            ("SPOP k 100", Some("SPOP k 10")),
            ("SRANDMEMBER k -100", Some("SRANDMEMBER k -10")),
            ("SRANDMEMBER k -3", Some("SRANDMEMBER k -3")),
            ("LPOP k x", None),
            ("HGETALL k", None),
            ("SCAN 0 COUNT 100", None),
        ] {
            let words: Vec<_> = line
                .split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect();
            let name = line.split(' ').next().unwrap_or_default();
            let command = request::array(&words).freeze();
            let fitted = Limit::of(name, &words).map(|limit| limit.fit(command, 10));
            let expected = expected.map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                request::array(&words).freeze()
            });
            assert_eq!(fitted, expected, "{line}");
        }
    }
}
