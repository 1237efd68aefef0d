//! Changes of several tables in one statement, as MySQL has them.

use super::found::NAMES_MAX;
use super::level::{At, Joined};
use super::{K, Kind, Walk};
use crate::protocols::sql::analysis::Access;

/// What has been seen of such a change.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// The first table of an `UPDATE`, by its word: as long as it is the only one, it is
    /// not read.
    first: Option<usize>,
    /// What a `DELETE` names before it says what it joins, by their words.
    targets: Vec<usize>,
    /// What it joins: a table, and what it may be called.
    joined: Vec<(Vec<String>, Option<String>)>,
    /// Whether it joins.
    joins: bool,
}

impl Walk<'_, '_> {
    /// The tables of an `UPDATE` begin at word `at`.
    pub(super) fn updates(&mut self, at: usize) -> usize {
        (self.level.from, self.level.joined) = (true, Joined::Updated);
        self.level.at = At::Item;
        self.item(at)
    }

    /// What a `DELETE` joins follows.
    pub(super) fn deletes_among(&mut self) {
        (self.level.from, self.level.joined) = (true, Joined::Deleted);
        (self.level.at, self.changed.joins) = (At::Item, true);
    }

    /// The table, or name of one, at word `at` loses rows.
    pub(super) fn deletes_from(&mut self, at: usize) {
        self.changed.targets.push(at);
    }

    /// A table that is joined: its name, at word `at`, and the word behind it.
    pub(super) fn joins(&mut self, name: &[String], at: usize, next: usize) {
        match self.level.joined {
            Joined::Read => self.found.relation(name, Access::Read),
            // Which of them is changed, names of columns say, where they say it at all.
            Joined::Updated => {
                self.found.relation(name, Access::Write);
                let Some(first) = self.changed.first.replace(at) else {
                    return;
                };
                for at in [first, at] {
                    if let Some((name, _)) = self.words.dotted(at) {
                        self.found.relation(&name, Access::Read);
                    }
                }
            }
            Joined::Deleted => {
                self.found.relation(name, Access::Read);
                let alias = self.alias(next);
                self.changed.joined.push((name.to_vec(), alias));
            }
        }
    }

    /// What a table may be called of which the name ends before word `at`: a word more than
    /// needed may be in it, one less may not.
    fn alias(&mut self, at: usize) -> Option<String> {
        let mut at = at;
        let is_word = |at| self.words.kind(at) == Some(Kind::Word);
        if is_word(at) && self.words.of(at).eq_ignore_ascii_case("partition") {
            let Some(behind) = self.names_in_parentheses(at.saturating_add(1)) else {
                self.found.give_up("what it deletes from is not known");
                return None;
            };
            at = behind;
        }
        let named = self.words.is(at, K::As);
        let name = at.saturating_add(usize::from(named));
        match self.words.kind(name) {
            // More stands between a name and its alias: `FOR SYSTEM_TIME ALL`.
            _ if matches!(self.words.keyword(at), K::For | K::Tablesample) => {}
            Some(Kind::Word | Kind::Name) => return self.words.name(name),
            None | Some(Kind::Mark(b',' | b')' | b'}')) if !named => return None,
            _ => {}
        }
        self.found.give_up("what it deletes from is not known");
        None
    }

    /// Rows of which tables a `DELETE` takes: what it names may be an alias.
    pub(super) fn deletes(&mut self) {
        let Changed {
            targets,
            joined,
            joins,
            ..
        } = std::mem::take(&mut self.changed);
        if targets.len().max(joined.len()) > NAMES_MAX {
            return self.found.give_up("it deletes from too many tables");
        }
        // Nor is it known which letters beyond ASCII are the same to servers.
        let are_plain = all_ascii(&joined);
        for (target, _) in targets.iter().filter_map(|at| self.words.dotted(*at)) {
            if !joins {
                self.found.relation(&target, Access::Write);
                continue;
            }
            let last = target.last().map_or("", String::as_str);
            // Servers differ in whether case counts, and in what an alias hides: it is
            // whatever it may be.
            let is = |name: &str| name.eq_ignore_ascii_case(last);
            let meant: Vec<_> = joined
                .iter()
                .filter(|(name, alias)| {
                    name.last().is_some_and(|name| is(name)) || alias.as_deref().is_some_and(is)
                })
                .collect();
            let plain = last.is_ascii() && are_plain;
            if meant.is_empty() || !plain {
                self.found.give_up("what it deletes from is not known");
            }
            for (name, _) in meant {
                self.found.relation(name, Access::Write);
            }
        }
    }
}

/// Whether all that tables are called is ASCII.
fn all_ascii(joined: &[(Vec<String>, Option<String>)]) -> bool {
    joined.iter().all(|(name, alias)| {
        let name = name.last().is_none_or(|name| name.is_ascii());
        name && alias.as_deref().is_none_or(str::is_ascii)
    })
}
