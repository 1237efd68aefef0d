//! What CONSTRAIN asks of a command, and what this protocol does about it.
//!
//! - `read_only`: holds for what only reads. What has a variant that the server
//!   keeps from changing anything, as `EVAL` has `EVAL_RO`, becomes that; the
//!   rest contradicts it.
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
enum Limit {
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
    fn of(name: &str, arguments: &impl Arguments) -> Option<Self> {
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

    /// Lets a command of these words ask for no more than `rows`.
    fn fit(self, words: &mut Vec<Vec<u8>>, rows: i64) {
        let said = |words: &[Vec<u8>], at: usize| reply::integer(words.get(at)?);
        let put = |words: &mut [Vec<u8>], at: usize, number: i64| {
            if let Some(word) = words.get_mut(at) {
                *word = number.to_string().into_bytes();
            }
        };
        match self {
            Self::One => {}
            Self::Until { at, first } => {
                let last = first.saturating_add(rows).saturating_sub(1);
                match said(words, at) {
                    Some(wanted @ 0..) => put(words, at, wanted.min(last)),
                    _ => put(words, at, last),
                }
            }
            Self::Count { at } => match said(words, at) {
                Some(wanted @ 0..) => put(words, at, wanted.min(rows)),
                _ => put(words, at, rows),
            },
            Self::Picks { at } => {
                let wanted = said(words, at).unwrap_or(rows);
                put(words, at, wanted.clamp(rows.saturating_neg(), rows));
            }
            Self::Append(front) => {
                words.extend(front.iter().map(|word| word.as_bytes().to_vec()));
                words.push(rows.to_string().into_bytes());
            }
        }
    }
}

/// What a command called `name` is called where the server lets it change
/// nothing; `None` where it has no such name, or asks for a change anyway.
fn read_only_variant(name: &str, arguments: &impl Arguments) -> Option<&'static str> {
    // A pattern may be called so, too: then the stricter reading is taken.
    let says = |words: &[&str]| {
        (2..arguments.count()).any(|at| {
            let argument = arguments.argument(at).unwrap_or_default();
            words
                .iter()
                .any(|word| argument.eq_ignore_ascii_case(word.as_bytes()))
        })
    };
    match name {
        "EVAL" => Some("EVAL_RO"),
        "EVALSHA" => Some("EVALSHA_RO"),
        "FCALL" => Some("FCALL_RO"),
        "SORT" if !says(&["STORE"]) => Some("SORT_RO"),
        "GEORADIUS" if !says(&["STORE", "STOREDIST"]) => Some("GEORADIUS_RO"),
        "GEORADIUSBYMEMBER" if !says(&["STORE", "STOREDIST"]) => Some("GEORADIUSBYMEMBER_RO"),
        "BITFIELD" if !says(&["SET", "INCRBY"]) => Some("BITFIELD_RO"),
        _ => None,
    }
}

/// What of a command can be fitted to constraints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fits {
    limit: Option<Limit>,
    read_only_variant: Option<&'static str>,
}

impl Fits {
    /// Of a command called `name` that is there whole.
    pub(super) fn of(name: &str, arguments: &impl Arguments) -> Self {
        Self {
            limit: Limit::of(name, arguments),
            read_only_variant: read_only_variant(name, arguments),
        }
    }

    /// `command` as `constraints` want it.
    pub(super) fn fit(self, command: Bytes, constraints: &[Box<str>]) -> Bytes {
        let rows = constraints.iter().filter_map(|name| rows(name)).min();
        let limit = self.limit.zip(rows);
        let wants = constraints.iter().any(|name| **name == *READ_ONLY);
        let variant = self.read_only_variant.filter(|_| wants);
        if limit.is_none() && variant.is_none() {
            return command;
        }
        let Some(mut words) = words(&command) else {
            return command;
        };
        if let Some((limit, rows)) = limit {
            limit.fit(&mut words, rows.into());
        }
        if let (Some(variant), Some(name)) = (variant, words.first_mut()) {
            *name = variant.as_bytes().to_vec();
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

/// The rows of a `max_rows:N`.
fn rows(name: &str) -> Option<u32> {
    let rows = name.strip_prefix(MAX_ROWS)?.trim().parse().ok()?;
    (rows > 0).then_some(rows)
}

/// What Redis brings to a decision about a command of this class.
pub(super) fn terms(class: Class, fits: Fits, hold_within: Duration) -> Terms {
    let reads = class == Class::Read || fits.read_only_variant.is_some();
    let applies: fn(&str) -> bool = match (reads, fits.limit) {
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
        replaces: |_| false,
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
            let fits = Fits::of(name, &words);
            let constraints = ["max_rows:10".into(), "max_rows:99".into()];
            let fitted = fits.limit.map(|_| fits.fit(command, &constraints));
            let expected = expected.map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                request::array(&words).freeze()
            });
            assert_eq!(fitted, expected, "{line}");
        }
    }

    #[test]
    fn c_9_what_is_to_change_nothing_is_called_by_the_name_that_may_not() {
        let constraints = ["read_only".into()];
        for (line, expected) in [
            ("EVAL t 0", Some("EVAL_RO t 0")),
            ("EVALSHA s 1 k", Some("EVALSHA_RO s 1 k")),
            ("FCALL f 0", Some("FCALL_RO f 0")),
            ("SORT k BY w_*", Some("SORT_RO k BY w_*")),
            ("SORT k store d", None),
            (
                "GEORADIUS k 1 2 3 m ASC",
                Some("GEORADIUS_RO k 1 2 3 m ASC"),
            ),
            ("GEORADIUS k 1 2 3 m STOREDIST d", None),
            ("GEORADIUSBYMEMBER k m 3 m STORE d", None),
            ("BITFIELD k GET u8 0", Some("BITFIELD_RO k GET u8 0")),
            ("BITFIELD k GET u8 0 incrby u8 0 1", None),
            ("SET k v", None),
        ] {
            let words: Vec<_> = line
                .split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect();
            let name = line.split(' ').next().unwrap_or_default();
            let fits = Fits::of(name, &words);
            let terms = terms(Class::Write, fits, Duration::ZERO);
            assert_eq!((terms.applies)(READ_ONLY), expected.is_some(), "{line}");
            assert_eq!((terms.contradicts)(READ_ONLY), expected.is_none(), "{line}");
            let command = request::array(&words).freeze();
            let expected: Vec<_> = expected.unwrap_or(line).split(' ').collect();
            let expected = request::array(&expected).freeze();
            assert_eq!(fits.fit(command.clone(), &constraints), expected, "{line}");
            assert_eq!(fits.fit(command.clone(), &[]), command, "{line}");
        }
    }
}
