//! Which of flag, environment, file and default says a setting, and what it says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::problem::{Problem, quoted};
use super::settings::{Fallback, Setting, setting};
use super::source::Source;
use super::value::{self, Wrong};

/// Flags as they were typed, by name, in order.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Adds one use of `flag`, written `--like-this`.
    pub fn push(&mut self, flag: &'static str, value: String) {
        self.0.push((flag, value));
    }

    /// Every value of `flag`, in order.
    pub(super) fn all<'a>(&'a self, flag: &'a str) -> impl Iterator<Item = &'a str> {
        let of_flag = self.0.iter().filter(move |(name, _)| *name == flag);
        of_flag.map(|(_, value)| value.as_str())
    }
}

impl<const N: usize> From<[(&'static str, &str); N]> for Flags {
    fn from(flags: [(&'static str, &str); N]) -> Self {
        Self(flags.map(|(name, value)| (name, value.to_owned())).into())
    }
}

/// Who said a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Env,
    File,
}

/// A value somebody said, and where.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) origin: Origin,
    /// As a problem names it.
    pub(super) at: String,
    pub(super) text: String,
}

/// Reads settings one by one and remembers every problem.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    pub(super) flags: &'a Flags,
    pub(super) env: &'a Source,
    /// How problems name the file.
    pub(super) file: String,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    /// What was found said, by key.
    pub(super) said: RefCell<BTreeMap<&'static str, (Origin, Vec<String>)>>,
}

impl Resolver<'_> {
    pub(super) fn tell(&mut self, at: &str, wrong: Wrong) {
        self.problems.push(Problem {
            at: at.to_owned(),
            found: wrong.found,
            expected: wrong.expected,
            example: wrong.example,
        });
    }

    /// What is said for `key`, the strongest voice only.
    pub(super) fn given(&self, key: &str, in_file: Option<String>) -> Option<Given> {
        let row = setting(key)?;
        let by_flag = self.flags.all(row.flag).last().map(|text| Given {
            origin: Origin::Flag,
            at: row.flag.to_owned(),
            text: text.to_owned(),
        });
        let given = by_flag.or_else(|| self.by_env(row)).or_else(|| {
            let text = in_file?;
            Some(self.by_file(key, text))
        });
        self.remember(key, given.as_slice());
        given
    }

    fn remember(&self, key: &str, given: &[Given]) {
        if let (Some(row), Some(first)) = (setting(key), given.first()) {
            let texts = given.iter().map(|given| given.text.clone()).collect();
            self.said
                .borrow_mut()
                .insert(row.key, (first.origin, texts));
        }
    }

    fn by_env(&self, row: &Setting) -> Option<Given> {
        let name = row.env.iter().find(|name| self.env.get(name).is_some())?;
        Some(Given {
            origin: Origin::Env,
            at: (*name).to_owned(),
            text: self.env.get(name)?.to_owned(),
        })
    }

    fn by_file(&self, at: &str, text: String) -> Given {
        Given {
            origin: Origin::File,
            at: format!("{at} ({})", self.file),
            text,
        }
    }

    /// Every item said for a list: flags, or a variable separated by commas,
    /// or the file.
    pub(super) fn items(&self, key: &str, in_file: Option<Vec<String>>) -> Vec<Given> {
        let given = self.items_of(key, in_file);
        self.remember(key, &given);
        given
    }

    fn items_of(&self, key: &str, in_file: Option<Vec<String>>) -> Vec<Given> {
        let Some(row) = setting(key) else {
            return Vec::new();
        };
        let typed: Vec<_> = self.flags.all(row.flag).collect();
        if !typed.is_empty() {
            return typed
                .into_iter()
                .map(|text| self.item(Origin::Flag, row.flag, text))
                .collect();
        }
        if let Some(given) = self.by_env(row) {
            let parts = given
                .text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            return parts
                .map(|text| self.item(Origin::Env, &given.at, text))
                .collect();
        }
        let listed = in_file.unwrap_or_default().into_iter().enumerate();
        listed
            .map(|(index, text)| self.by_file(&format!("{key}[{index}]"), text))
            .collect()
    }

    fn item(&self, origin: Origin, at: &str, text: &str) -> Given {
        Given {
            origin,
            at: at.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Parses what is said for `key`, else its default. A value that does not
    /// parse is told, and the default stands in so that the rest is checked too.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        in_file: Option<String>,
        parse: impl Fn(&str, Option<Origin>) -> Result<T, Wrong>,
    ) -> Result<T, Wrong> {
        if let Some(given) = self.given(key, in_file) {
            match parse(&given.text, Some(given.origin)) {
                Ok(value) => return Ok(value),
                Err(wrong) => self.tell(&given.at, wrong),
            }
        }
        parse(default_of(key), None)
    }

    /// A duration: with its unit, or in seconds where an SDK's variable says it.
    pub(super) fn duration(&mut self, key: &'static str, in_file: Option<String>) -> Duration {
        let parse = |text: &str, origin: Option<Origin>| match origin {
            Some(Origin::Env) => value::seconds(text)
                .or_else(|_| value::duration(text))
                .map_err(|_| {
                    let expected = "seconds, or a whole number and its unit";
                    Wrong::is_not(text, "a duration", expected, "30")
                }),
            Some(Origin::Flag | Origin::File) | None => value::duration(text),
        };
        self.parsed(key, in_file, parse).unwrap_or_default()
    }

    /// A whole number, `at_least` or more.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        in_file: Option<u64>,
        at_least: usize,
    ) -> usize {
        let in_file = in_file.map(|number| number.to_string());
        let parse = |text: &str, _: Option<Origin>| value::count(text, at_least);
        self.parsed(key, in_file, parse).unwrap_or(at_least)
    }

    /// As [`Self::count`], of bytes on a disk.
    pub(super) fn bytes(
        &mut self,
        key: &'static str,
        in_file: Option<u64>,
        at_least: usize,
    ) -> u64 {
        u64::try_from(self.count(key, in_file, at_least)).unwrap_or(u64::MAX)
    }

    /// Yes or no.
    pub(super) fn truth(&mut self, key: &'static str, in_file: Option<bool>) -> bool {
        let in_file = in_file.map(|yes| yes.to_string());
        let parse = |text: &str, _: Option<Origin>| value::truth(text);
        self.parsed(key, in_file, parse).unwrap_or_default()
    }

    /// One of the `words`, the first where nobody says anything valid and the
    /// table names none. Variables may begin with `prefix`.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        in_file: Option<String>,
        words: [(&str, T); 2],
        prefix: &str,
    ) -> T {
        let [first, second] = words;
        self.one_of(key, in_file, first, [second], prefix)
    }

    /// The same for any number of words.
    pub(super) fn one_of<T: Copy, const N: usize>(
        &mut self,
        key: &'static str,
        in_file: Option<String>,
        first: (&str, T),
        others: [(&str, T); N],
        prefix: &str,
    ) -> T {
        let words = || [first].into_iter().chain(others);
        let parse = |text: &str, origin: Option<Origin>| {
            let word = match origin {
                Some(Origin::Env) => text.strip_prefix(prefix).unwrap_or(text),
                Some(Origin::Flag | Origin::File) | None => text,
            };
            let known = words().find(|(known, _)| *known == word);
            known.map(|(_, value)| value).ok_or_else(|| {
                let prefix = if origin == Some(Origin::Env) {
                    prefix
                } else {
                    ""
                };
                let all: Vec<_> = words().map(|(word, _)| format!("{prefix}{word}")).collect();
                let found = match N {
                    1 => "is neither",
                    _ => "is none of them",
                };
                Wrong::new(
                    format!("{} {found}", quoted(text)),
                    &all.join(" or "),
                    &format!("{prefix}{}", first.0),
                )
            })
        };
        self.parsed(key, in_file, parse).unwrap_or(first.1)
    }

    /// Text that is not empty, else `default`.
    pub(super) fn text(&mut self, key: &str, in_file: Option<String>, default: &str) -> String {
        match self.given(key, in_file) {
            None => default.to_owned(),
            Some(given) if given.text.trim().is_empty() => {
                self.tell(
                    &given.at,
                    Wrong::new("the text is empty".to_owned(), "a text", "main"),
                );
                default.to_owned()
            }
            Some(given) => given.text,
        }
    }

    /// Text that is not empty, else the table's default.
    pub(super) fn text_or_table(&mut self, key: &'static str, in_file: Option<String>) -> String {
        self.text(key, in_file, default_of(key))
    }

    /// Every item of a list that parses; the others are told.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        in_file: Option<Vec<String>>,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for given in self.items(key, in_file) {
            match parse(&given.text) {
                Ok(item) => all.push(item),
                Err(wrong) => self.tell(&given.at, wrong),
            }
        }
        all
    }
}

fn default_of(key: &str) -> &'static str {
    match setting(key).map(|setting| setting.default) {
        Some(Fallback::Is(text)) => text,
        Some(Fallback::Of(_) | Fallback::Empty) | None => "",
    }
}
