//! Statements that go by a name: what gives one, what runs what stands behind it,
//! what forgets it. In PostgreSQL, whose sessions share these names with the
//! messages of its protocol.

use super::analysis::{Class, Statement, cut, pieces};
use super::functions::effect;
use super::keywords::Keyword as K;
use super::lexer::Kind;
use super::words::{NAME_BYTES_MAX, Words};
use super::{Analysis, Dialect};

/// Why what only names a statement is opaque.
pub(super) const BY_NAME: &str = "it runs a statement by its name";
/// The verbs of such statements.
const VERBS: [&str; 8] = [
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "DECLARE",
    "FETCH",
    "MOVE",
    "CLOSE",
    "DISCARD",
];

/// A name as the server looks it up.
pub type Name = Box<[u8]>;

/// What a statement has to do with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does<'a> {
    /// `PREPARE name AS statement`.
    Prepares(Name, &'a str),
    /// `EXECUTE name`.
    Executes(Name),
    /// `DEALLOCATE name`, or all.
    Deallocates(Option<Name>),
    /// `DECLARE name CURSOR FOR query`; whether it outlives its transaction.
    Declares(Name, &'a str, bool),
    /// `FETCH` or `MOVE` of this cursor.
    Fetches(Name),
    /// `CLOSE name`, or all.
    Closes(Option<Name>),
    /// `DISCARD ALL`.
    DiscardsAll,
    /// Nothing.
    Nothing,
}

/// Whether any of `statements` goes by a name.
pub(super) fn any(statements: &[Statement]) -> bool {
    let mut first = statements.iter().filter_map(|one| one.verbs.first());
    first.any(|verb| VERBS.contains(verb))
}

/// Each statement of `text`, and what it has to do with names; `None` where that
/// cannot be told.
pub fn statements(text: &str, dialect: Dialect) -> Option<Vec<(&str, Does<'_>)>> {
    let words = cut(text, dialect).ok()?;
    let all = Words {
        text,
        words: &words,
        dialect,
    };
    pieces(all)
        .map(|piece| Some((range(text, piece, 0)?, does(text, piece)?)))
        .collect()
}

/// The text from word `at` to the last.
fn range<'t>(text: &'t str, words: Words<'_>, at: usize) -> Option<&'t str> {
    let (first, last) = (words.words.get(at)?, words.words.last()?);
    text.get(first.token.start..last.token.end)
}

fn does<'t>(text: &'t str, words: Words<'_>) -> Option<Does<'t>> {
    Some(match words.keyword(0) {
        // `PREPARE TRANSACTION 'name'`.
        K::Prepare if words.kind(2) == Some(Kind::Text) => Does::Nothing,
        K::Prepare => {
            let at = (2..words.len()).find(|at| words.is(*at, K::As))?;
            Does::Prepares(name(words, 1)?, range(text, words, at.checked_add(1)?)?)
        }
        K::Execute => Does::Executes(name(words, 1)?),
        K::Deallocate => {
            let prepare = words.is(1, K::Prepare) && words.len() > 2;
            let at = 1_usize.saturating_add(usize::from(prepare));
            Does::Deallocates(one_or_all(words, at)?)
        }
        K::Declare => {
            let at = (2..words.len()).find(|at| words.is(*at, K::For))?;
            // `WITHOUT HOLD` is a word of its own.
            let lasts = (2..at).any(|at| words.is(at, K::With));
            Does::Declares(
                name(words, 1)?,
                range(text, words, at.checked_add(1)?)?,
                lasts,
            )
        }
        K::Fetch | K::Move => Does::Fetches(name(words, words.len().checked_sub(1)?)?),
        K::Close => Does::Closes(one_or_all(words, 1)?),
        K::Discard if words.is(1, K::All) => Does::DiscardsAll,
        _ => Does::Nothing,
    })
}

fn one_or_all(words: Words<'_>, at: usize) -> Option<Option<Name>> {
    if words.is(at, K::All) {
        return Some(None);
    }
    name(words, at).map(Some)
}

/// Word `at` as a name that is sure to be the server's.
fn name(words: Words<'_>, at: usize) -> Option<Name> {
    let name = words.whole_name(at)?;
    // What else than ASCII a server folds depends on its locale.
    let certain = name.is_ascii() || words.kind(at) == Some(Kind::Name);
    (certain && name.len() <= NAME_BYTES_MAX).then(|| name.into_bytes().into())
}

impl Statement {
    /// This one, which only names `inner`, as what it does: the verbs and relations
    /// of that, and the functions of its own arguments.
    #[must_use]
    pub fn that_runs(&self, inner: &Self) -> Self {
        if self.opaque.is_some_and(|why| why != BY_NAME) {
            return self.clone();
        }
        let mut runs = inner.clone();
        for verb in &self.verbs {
            if !runs.verbs.contains(verb) {
                runs.verbs.push(verb);
            }
        }
        for name in &self.functions {
            let last = name.rsplit('.').next().unwrap_or_default();
            if let Some(effect) = effect(&last.to_ascii_lowercase()) {
                runs.class = runs.class.max(effect.class());
                runs.flags = runs.flags.and(effect.flags());
            }
            if !runs.functions.contains(name) {
                runs.functions.push(name.clone());
            }
        }
        runs.functions.sort();
        if runs.class == Class::Opaque {
            runs.opaque.get_or_insert(BY_NAME);
        }
        runs
    }
}

impl Analysis {
    /// The same text where its statements do this. `behind` is what stands behind
    /// the names in it.
    #[must_use]
    pub fn that_does(&self, statements: Vec<Statement>, behind: &[&Self]) -> Self {
        let mut redacted = self.redacted.to_string();
        for inner in behind {
            redacted.push_str(" | ");
            redacted.push_str(&inner.redacted);
        }
        self.replaced(
            statements,
            redacted,
            behind.iter().any(|inner| inner.secret),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_26_pg_35_the_name_that_a_statement_goes_by_is_the_servers() {
        let name = |name: &str| Name::from(name.as_bytes());
        let long = format!("EXECUTE {}", "x".repeat(64));
        for (text, expected) in [
            (
                "PREPARE Q (int, text) AS DELETE FROM t WHERE id = $1 ;",
                Some(Does::Prepares(name("q"), "DELETE FROM t WHERE id = $1")),
            ),
            ("PREPARE TRANSACTION 'x'", Some(Does::Nothing)),
            (
                "EXECUTE \"Q\"\"1\"(1, 2)",
                Some(Does::Executes(name("Q\"1"))),
            ),
            (
                "DEALLOCATE PREPARE q",
                Some(Does::Deallocates(Some(name("q")))),
            ),
            (
                "DEALLOCATE prepare",
                Some(Does::Deallocates(Some(name("prepare")))),
            ),
            ("DEALLOCATE ALL", Some(Does::Deallocates(None))),
            (
                "DEALLOCATE \"all\"",
                Some(Does::Deallocates(Some(name("all")))),
            ),
            (
                "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1",
                Some(Does::Declares(name("c"), "SELECT 1", true)),
            ),
            (
                "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1 FOR UPDATE",
                Some(Does::Declares(name("c"), "SELECT 1 FOR UPDATE", false)),
            ),
            ("FETCH c", Some(Does::Fetches(name("c")))),
            ("FETCH BACKWARD ALL FROM C", Some(Does::Fetches(name("c")))),
            ("MOVE 10 IN c", Some(Does::Fetches(name("c")))),
            ("FETCH 10", None),
            ("CLOSE ALL", Some(Does::Closes(None))),
            ("CLOSE c", Some(Does::Closes(Some(name("c"))))),
            ("DISCARD ALL", Some(Does::DiscardsAll)),
            ("DISCARD PLANS", Some(Does::Nothing)),
            ("EXECUTE é", None),
            (&long, None),
            ("EXECUTE U&\"q\"", None),
        ] {
            let found = statements(text, Dialect::POSTGRES);
            let found = found.map(|found| found.into_iter().map(|(_, does)| does).collect());
            assert_eq!(found, expected.map(|one| vec![one]), "{text}");
        }
    }

    #[test]
    fn pg_26_what_runs_by_a_name_is_what_stands_behind_it_and_its_arguments() {
        let read = |text| Analysis::of(text, Dialect::POSTGRES);
        let inner = read("DELETE FROM t");
        for (text, class, functions) in [
            ("EXECUTE q", Class::Write, vec![]),
            ("EXECUTE q(lower('x'))", Class::Write, vec!["lower"]),
            (
                "EXECUTE q(pg_terminate_backend(1))",
                Class::Admin,
                vec!["pg_terminate_backend"],
            ),
            (
                "EXECUTE q(query_to_xml('x', true, true, ''))",
                Class::Opaque,
                vec!["query_to_xml"],
            ),
            ("FETCH ALL FROM q", Class::Write, vec![]),
        ] {
            let outer = read(text);
            assert_eq!(outer.class(), Class::Opaque, "{text}");
            assert!(outer.by_name, "{text}");
            let runs = outer.statements[0].that_runs(&inner.statements[0]);
            assert_eq!(runs.class, class, "{text}");
            let found: Vec<_> = runs.functions.iter().map(|name| &**name).collect();
            assert_eq!(found, functions, "{text}");
            if class != Class::Opaque {
                assert_eq!(runs.verbs[0], "DELETE", "{text}");
                assert!(runs.flags.no_where, "{text}");
            }
        }
    }
}
