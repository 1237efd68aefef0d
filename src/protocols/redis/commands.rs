//! What commands are: which of their arguments are keys, and whether they
//! read, write or administer. `commands.txt` is what Sentinel and Redis 7.0.15
//! and Valkey 9.1.2 answer to `COMMAND` (`scripts/redis-commands.py` asks them),
//! one line a command or subcommand: name, arity, flags, and where its keys are
//! (access, where to begin, which from there).
//!
//! What it does not list is opaque, and has no keys that could be known.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a command does at the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    Write,
    Admin,
    /// Nobody knows.
    Opaque,
}

impl Class {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Opaque => "opaque",
        }
    }
}

/// What is done to a key, or to what is named like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Subscribe,
    Publish,
}

impl Access {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
        }
    }
}

/// A line of the table.
#[derive(Debug)]
pub(super) struct Row {
    /// `GET`, `CONFIG SET`.
    pub(super) name: Box<str>,
    pub(super) class: Class,
    /// What the server calls dangerous.
    pub(super) dangerous: bool,
    /// It may wait for something to come.
    pub(super) blocking: bool,
    /// Its second word is half of its name.
    pub(super) contains: bool,
    keys: Vec<Spec>,
}

#[derive(Clone, Copy, Debug)]
struct Spec {
    access: Access,
    begin: Begin,
    find: Find,
}

#[derive(Clone, Copy, Debug)]
enum Begin {
    At(usize),
    /// Behind this word, searched from here; from the end where negative.
    Behind(&'static str, i64),
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum Find {
    /// Up to this place from the first (from the end where negative), one in
    /// so many, in this part of what is left.
    Range {
        last: i64,
        step: usize,
        limit: i64,
    },
    /// As many as the argument there says.
    Counted {
        count: usize,
        first: usize,
        step: usize,
    },
    Unknown,
}

static TABLE: LazyLock<HashMap<&'static str, Row>> =
    LazyLock::new(|| table(include_str!("commands.txt")));

/// Longest name that is looked up, bytes; none is longer.
const NAME_BYTES_MAX: usize = 32;

/// The row of a command; `second` is its second word.
pub(super) fn lookup(name: &[u8], second: Option<&[u8]>) -> Option<&'static Row> {
    let mut space = [0; NAME_BYTES_MAX];
    let row = TABLE.get(upper(&mut space, &[name])?)?;
    match second {
        Some(second) if row.contains => TABLE.get(upper(&mut space, &[name, b"|", second])?),
        _ => Some(row),
    }
}

fn upper<'a>(space: &'a mut [u8; NAME_BYTES_MAX], parts: &[&[u8]]) -> Option<&'a str> {
    let mut length = 0_usize;
    for part in parts {
        let end = length.saturating_add(part.len());
        let place = space.get_mut(length..end)?;
        place.copy_from_slice(part);
        place.make_ascii_uppercase();
        length = end;
    }
    std::str::from_utf8(space.get(..length)?).ok()
}

fn table(text: &'static str) -> HashMap<&'static str, Row> {
    let mut rows: HashMap<_, _> = text.lines().filter_map(row).collect();
    let containers: Vec<_> = rows
        .keys()
        .filter_map(|name| Some(name.split_once('|')?.0))
        .collect();
    for name in containers {
        if let Some(row) = rows.get_mut(name) {
            row.contains = true;
        }
    }
    rows
}

fn row(line: &'static str) -> Option<(&'static str, Row)> {
    let mut columns = line.split(' ');
    let (name, _arity, flags) = (columns.next()?, columns.next()?, columns.next()?);
    let has = |flag: &str| flags.split(',').any(|one| one == flag);
    let asks_sentinel = matches!(
        name,
        "SENTINEL|GET-MASTER-ADDR-BY-NAME"
            | "SENTINEL|MASTER"
            | "SENTINEL|MASTERS"
            | "SENTINEL|REPLICAS"
            | "SENTINEL|SLAVES"
            | "SENTINEL|SENTINELS"
            | "SENTINEL|MYID"
            | "SENTINEL|CKQUORUM"
    );
    let class = match (
        has("admin") && !asks_sentinel,
        has("write"),
        has("readonly"),
    ) {
        (true, _, _) => Class::Admin,
        (false, true, _) => Class::Write,
        (false, false, true) => Class::Read,
        (false, false, false) => unflagged(name),
    };
    let row = Row {
        name: name.replace('|', " ").into(),
        class,
        dangerous: has("dangerous"),
        blocking: has("blocking") || name == "WAIT",
        contains: false,
        keys: columns
            .filter(|keys| *keys != "-")
            .filter_map(spec)
            .collect(),
    };
    Some((name, row))
}

/// The class of what the server has no such flag for.
fn unflagged(name: &str) -> Class {
    match name {
        "EVAL" | "EVALSHA" | "FCALL" | "PUBLISH" | "SPUBLISH" | "SCRIPT|LOAD" | "SWAPDB" => {
            Class::Write
        }
        "SCRIPT|FLUSH" | "SCRIPT|KILL" | "SCRIPT|DEBUG" | "FUNCTION|KILL" => Class::Admin,
        _ => Class::Read,
    }
}

fn spec(text: &'static str) -> Option<Spec> {
    let mut parts = text.trim_end_matches('!').split(':');
    let access = match parts.next()? {
        "R" => Access::Read,
        "W" => Access::Write,
        // Of the only one that names no key: `SPUBLISH` and its like.
        _ => return None,
    };
    let begin = parts.next()?;
    let begin = match begin.split_at_checked(1)? {
        ("i", index) => Begin::At(index.parse().ok()?),
        ("k", word) => {
            let (word, from) = word.split_once('@')?;
            Begin::Behind(word, from.parse().ok()?)
        }
        _ => Begin::Unknown,
    };
    let find = parts.next()?;
    let (kind, numbers) = find.split_at_checked(1)?;
    let mut numbers = numbers.split(',').map(str::parse::<i64>);
    let mut number = || numbers.next()?.ok();
    let size = |number: i64| usize::try_from(number).ok();
    let find = match kind {
        "r" => Find::Range {
            last: number()?,
            step: size(number()?)?.max(1),
            limit: number()?,
        },
        "n" => Find::Counted {
            count: size(number()?)?,
            first: size(number()?)?,
            step: size(number()?)?.max(1),
        },
        _ => Find::Unknown,
    };
    Some(Spec {
        access,
        begin,
        find,
    })
}

/// The arguments of a command, as far as they were seen.
pub(super) trait Arguments {
    /// The argument `index`; 0 is the name.
    fn argument(&self, index: usize) -> Option<&[u8]>;
    /// How many there are in all.
    fn count(&self) -> usize;
    /// How many were seen.
    fn seen(&self) -> usize;
}

impl Arguments for Vec<Vec<u8>> {
    fn argument(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(|word| &**word)
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn seen(&self) -> usize {
        self.len()
    }
}

/// A key is behind what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unseen;

impl Row {
    /// Which arguments are keys, in order.
    ///
    /// # Errors
    /// One may be behind what was seen.
    pub(super) fn keys(&self, arguments: &impl Arguments) -> Result<Vec<(usize, Access)>, Unseen> {
        let mut keys = Vec::new();
        for spec in &self.keys {
            spec.keys(arguments, &mut keys)?;
        }
        match &*self.name {
            "SORT" | "SORT_RO" => sort(arguments, &mut keys)?,
            "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE"
            | "SUNSUBSCRIBE" => {
                if arguments.count() > arguments.seen() {
                    return Err(Unseen);
                }
                keys.extend((1..arguments.count()).map(|at| (at, Access::Subscribe)));
            }
            "PUBLISH" | "SPUBLISH" => keys.push((1, Access::Publish)),
            // What is matched may be any key.
            "KEYS" => keys.push((1, Access::Read)),
            _ => {}
        }
        keys.retain(|(at, _)| *at < arguments.count());
        match keys.iter().all(|(at, _)| *at < arguments.seen()) {
            true => Ok(keys),
            false => Err(Unseen),
        }
    }
}

impl Spec {
    fn keys(
        &self,
        arguments: &impl Arguments,
        keys: &mut Vec<(usize, Access)>,
    ) -> Result<(), Unseen> {
        match self.begin {
            Begin::At(index) => self.keys_from(index, arguments, keys),
            Begin::Behind(word, from) => {
                let places = behind(arguments, word, from)?;
                for first in &places {
                    self.keys_from(*first, arguments, keys)?;
                }
                if places.len() > 1 {
                    keys.sort_by_key(|(at, _)| *at);
                    keys.dedup();
                }
                Ok(())
            }
            Begin::Unknown => Ok(()),
        }
    }

    fn keys_from(
        &self,
        first: usize,
        arguments: &impl Arguments,
        keys: &mut Vec<(usize, Access)>,
    ) -> Result<(), Unseen> {
        let count = arguments.count();
        let (first, end, step) = match self.find {
            Find::Range { last, step, limit } => {
                let end = match usize::try_from(last) {
                    Ok(last) => first.saturating_add(last).saturating_add(1),
                    Err(_) => count.saturating_sub(from_end(last).saturating_sub(1)),
                };
                let left = count.saturating_sub(first);
                let part = usize::try_from(limit).ok().filter(|part| *part > 1);
                let end = match part.and_then(|part| left.checked_div(part)) {
                    Some(part) => end.min(first.saturating_add(part)),
                    None => end,
                };
                (first, end, step)
            }
            Find::Counted {
                count: at,
                first: offset,
                step,
            } => {
                let at = first.saturating_add(at);
                if at >= count {
                    return Ok(());
                }
                let number = arguments.argument(at).ok_or(Unseen)?;
                // What is no number is refused by the server.
                let number = super::reply::integer(number).unwrap_or(0);
                let number = usize::try_from(number).unwrap_or(0);
                let first = first.saturating_add(offset);
                let end = first.saturating_add(number.saturating_mul(step));
                (first, end, step)
            }
            Find::Unknown => return Ok(()),
        };
        let end = end.min(count);
        // Before there is a list of what a client only announces.
        let behind = end.saturating_sub(first).saturating_sub(1);
        let behind = behind.saturating_sub(behind.checked_rem(step).unwrap_or(0));
        if first < end && first.saturating_add(behind) >= arguments.seen() {
            return Err(Unseen);
        }
        let places = (first..end).step_by(step);
        keys.extend(places.map(|at| (at, self.access)));
        Ok(())
    }
}

fn from_end(last: i64) -> usize {
    usize::try_from(last.unsigned_abs()).unwrap_or(usize::MAX)
}

/// Most places of a word that keys are looked for behind; a command with more
/// says what nobody means.
const PLACES_MAX: usize = 8;

/// The places behind `word`, wherever it stands: the server goes through the
/// options in their order, where the same word may be a value, or may come twice
/// and only the first, or the last, counts. What may be a key is one.
fn behind(arguments: &impl Arguments, word: &str, from: i64) -> Result<Vec<usize>, Unseen> {
    // From the end means among the options of `MIGRATE`, behind its five arguments.
    let from = usize::try_from(from).unwrap_or(6);
    let mut places = Vec::new();
    for at in from..arguments.count() {
        let argument = arguments.argument(at).ok_or(Unseen)?;
        if argument.eq_ignore_ascii_case(word.as_bytes()) {
            if places.len() >= PLACES_MAX {
                return Err(Unseen);
            }
            places.push(at.saturating_add(1));
        }
    }
    Ok(places)
}

/// The options of `SORT` that name keys, or patterns of them.
fn sort(arguments: &impl Arguments, keys: &mut Vec<(usize, Access)>) -> Result<(), Unseen> {
    let mut at = 2;
    while at < arguments.count() {
        let option = arguments.argument(at).ok_or(Unseen)?;
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        let next = at.saturating_add(1);
        at = if is("LIMIT") {
            at.saturating_add(3)
        } else if is("BY") || is("GET") {
            keys.push((next, Access::Read));
            at.saturating_add(2)
        } else if is("STORE") {
            keys.push((next, Access::Write));
            at.saturating_add(2)
        } else {
            next
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words(Vec<Vec<u8>>, usize);

    impl Arguments for Words {
        fn argument(&self, index: usize) -> Option<&[u8]> {
            self.0.get(index).filter(|_| index < self.1).map(|w| &**w)
        }
        fn count(&self) -> usize {
            self.0.len()
        }
        fn seen(&self) -> usize {
            self.1
        }
    }

    fn keys(line: &str) -> String {
        let words: Vec<_> = line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        let all = words.len();
        let words = Words(words, all);
        let row = lookup(&words.0[0], words.0.get(1).map(|w| &**w)).unwrap();
        let keys = row.keys(&words).unwrap();
        let keys = keys.iter().map(|(at, access)| {
            let name = String::from_utf8_lossy(&words.0[*at]);
            format!("{name}:{}", &access.as_str()[..1])
        });
        keys.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rd_18_keys_are_where_the_server_finds_them() {
        for (line, expected) in [
            ("GET a", "a:r"),
            ("set a b EX 10", "a:w"),
            ("MSET a 1 b 2", "a:w b:w"),
            ("DEL a b c", "a:w b:w c:w"),
            ("BLPOP a b 0", "a:w b:w"),
            ("BITOP AND d a b", "d:w a:r b:r"),
            ("EVAL x 2 a b c", "a:w b:w"),
            ("FCALL_RO f 1 a c", "a:r"),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d:w a:r b:r"),
            ("XREAD COUNT 2 STREAMS a b 0 0", "a:r b:r"),
            ("XREADGROUP GROUP g c STREAMS a >", "a:r"),
            ("SORT a BY w_* GET o_* STORE d", "a:r w_*:r o_*:r d:w"),
            ("GEORADIUS a 1 2 3 m STORE d", "a:r d:w"),
            ("MIGRATE h 1 k 0 9", "k:w"),
            // The server takes the first, or the last, of what comes twice.
            ("MIGRATE h 1 k 0 9 KEYS a keys b", "k:w a:w keys:w b:w"),
            ("MIGRATE keys 1 k 0 9 AUTH p KEYS a", "k:w a:w"),
            ("GEORADIUS a 1 2 3 m STORE b STORE c", "a:r b:w c:w"),
            (
                "GEORADIUSBYMEMBER a x 3 m STOREDIST b STORE c storedist d",
                "a:r b:w c:w d:w",
            ),
            (
                "XREADGROUP COUNT 1 GROUP g STREAMS STREAMS a >",
                "STREAMS:r a:r",
            ),
            ("OBJECT ENCODING a", "a:r"),
            ("PUBLISH c m", "c:p"),
            ("SUBSCRIBE c d", "c:s d:s"),
            ("CONFIG SET dir /", ""),
            ("EVAL x notanumber a", ""),
        ] {
            assert_eq!(keys(line), expected, "{line}");
        }
    }

    #[test]
    fn containers_are_two_words_and_what_is_not_listed_is_unknown() {
        let name = |name: &str, second: Option<&str>| {
            lookup(name.as_bytes(), second.map(str::as_bytes)).map(|row| &*row.name)
        };
        assert_eq!(name("config", Some("set")), Some("CONFIG SET"));
        assert_eq!(name("config", Some("nonsense")), None);
        assert_eq!(name("GET", Some("set")), Some("GET"));
        assert_eq!(name("json.set", Some("a")), None);
        assert_eq!(name(&"x".repeat(99), None), None);
    }

    #[test]
    fn rd_15_classes_are_the_servers() {
        for (name, second, class) in [
            ("GET", None, Class::Read),
            ("SET", None, Class::Write),
            ("FLUSHALL", None, Class::Write),
            ("CONFIG", Some("SET"), Class::Admin),
            ("DEBUG", None, Class::Admin),
            ("EVAL", None, Class::Write),
            ("EVAL_RO", None, Class::Read),
            ("PUBLISH", None, Class::Write),
            ("INFO", None, Class::Read),
        ] {
            let row = lookup(name.as_bytes(), second.map(str::as_bytes)).unwrap();
            assert_eq!(row.class, class, "{name}");
        }
    }

    #[test]
    fn rd_17_a_key_that_was_not_seen_is_said_so() {
        let words = |seen| {
            Words(
                ["MSET", "a", "1", "b", "2"].map(|w| w.into()).to_vec(),
                seen,
            )
        };
        let row = lookup(b"MSET", None).unwrap();
        assert_eq!(row.keys(&words(3)), Err(Unseen));
        assert!(row.keys(&words(4)).is_ok());
    }
}
