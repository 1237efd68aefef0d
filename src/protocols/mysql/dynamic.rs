//! Texts within texts: what `EXECUTE IMMEDIATE` executes, and what a session has prepared by a
//! name (`PREPARE`, `EXECUTE`, `DEALLOCATE PREPARE`). What is not plain is nothing that is read,
//! and where something has run that is not understood, no name is known: it may have prepared
//! another text by it.

use std::collections::HashMap;

use crate::protocols::sql::{Dialect, Kind, Lexer, Token};

use super::statement::{Text, is_plain};

/// Most names of one session that are remembered; what is executed by another is opaque.
const NAMES_MAX: usize = 1_024;
/// Most bytes of their texts.
const NAMES_BYTES_MAX: usize = 1 << 20;
/// Longest name, bytes: the servers' own limit.
const NAME_BYTES_MAX: usize = 64;
/// Most tokens of a text that are looked at; with more it is opaque.
const TOKENS_MAX: usize = 512;

/// The one plain literal that a text executes (`EXECUTE IMMEDIATE`) or prepares (`PREPARE …
/// FROM`): the text is read as that. Within the literal nothing is escaped, and nothing is
/// read in more ways than one.
pub(super) fn literal(text: &str, dialect: Dialect) -> Option<&str> {
    if !begins(text, dialect, &["EXECUTE", "PREPARE"]) {
        return None;
    }
    let is = |token: &Token, word: &str| token.of(text).eq_ignore_ascii_case(word);
    let all = tokens(text, dialect)?;
    let literal = match without_end(&all) {
        [verb, how, literal] if is(verb, "EXECUTE") && is(how, "IMMEDIATE") => literal,
        [_, _, _, literal] => prepared(text).and(Some(literal))?,
        _ => return None,
    };
    let inner = literal.of(text).strip_prefix('\'')?.strip_suffix('\'')?;
    let is_plain = is_plain(inner.as_bytes()) && !inner.contains(CONVERTED);
    (literal.kind == Kind::Text && is_plain).then_some(inner)
}

/// What a literal must not hold, beside what [`is_plain`] says. A quote would be two; and before
/// MariaDB executes or prepares a literal it converts it to the encoding of the connection
/// (`character_set_connection`) and back, and one of those, `swe7`, has none of the others: each
/// becomes a `?`, which is a parameter where a name in backquotes was.
const CONVERTED: [char; 5] = ['\'', '@', '`', '|', '\u{7f}'];

/// The name that a plain text prepares something by.
fn prepared(text: &str) -> Option<String> {
    let all = plain_tokens(text)?;
    match without_end(&all) {
        [verb, given, from, literal]
            if verb.of(text).eq_ignore_ascii_case("PREPARE")
                && from.of(text).eq_ignore_ascii_case("FROM")
                && literal.kind == Kind::Text =>
        {
            name(given, text)
        }
        _ => None,
    }
}

/// The name that a plain text forgets.
fn forgotten(text: &str) -> Option<String> {
    let all = plain_tokens(text)?;
    let [verb, what, given] = without_end(&all) else {
        return None;
    };
    let mut verbs = ["DEALLOCATE", "DROP"].iter();
    let forgets = verbs.any(|known| verb.of(text).eq_ignore_ascii_case(known))
        && what.of(text).eq_ignore_ascii_case("PREPARE");
    name(given, text).filter(|_| forgets)
}

/// The name of what a plain text executes, with variables of the session or without.
fn executed(text: &str) -> Option<String> {
    let all = plain_tokens(text)?;
    let [verb, given, with @ ..] = without_end(&all) else {
        return None;
    };
    let executes = verb.of(text).eq_ignore_ascii_case("EXECUTE");
    let knows = match with {
        [] => true,
        [using, values @ ..] => {
            using.of(text).eq_ignore_ascii_case("USING") && are_variables(values, text)
        }
    };
    name(given, text).filter(|_| executes && knows)
}

fn are_variables(values: &[Token], text: &str) -> bool {
    let mut all = values.split(|token| token.kind == Kind::Mark(b','));
    all.all(|one| matches!(one, [at, name] if at.of(text) == "@" && name.kind == Kind::Word))
}

/// As the servers compare names. One in quotes may be any.
fn name(token: &Token, text: &str) -> Option<String> {
    let name = token.of(text);
    let is_known = token.kind == Kind::Word && name.len() <= NAME_BYTES_MAX;
    is_known.then(|| name.to_ascii_lowercase())
}

/// Whether a text begins with one of these words: nearly none does, and however long it is, no
/// more of it is looked at.
fn begins(text: &str, dialect: Dialect, verbs: &[&str]) -> bool {
    let first = Lexer::new(text, dialect).find(|token| !token.kind.is_blank());
    first.is_some_and(|first| {
        let first = first.of(text);
        verbs.iter().any(|verb| first.eq_ignore_ascii_case(verb))
    })
}

/// All tokens of a text; `None` where there are more than are looked at, as something else may
/// stand behind those.
fn tokens(text: &str, dialect: Dialect) -> Option<Vec<Token>> {
    let mut tokens = Lexer::new(text, dialect).filter(|token| !token.kind.is_blank());
    let all: Vec<_> = tokens.by_ref().take(TOKENS_MAX).collect();
    tokens.next().is_none().then_some(all)
}

/// The tokens of a text that means the same to all servers and sessions.
fn plain_tokens(text: &str) -> Option<Vec<Token>> {
    is_plain(text.as_bytes())
        .then(|| tokens(text, Dialect::MYSQL))
        .flatten()
}

fn without_end(tokens: &[Token]) -> &[Token] {
    match tokens {
        [before @ .., end] if end.kind == Kind::Mark(b';') => before,
        all => all,
    }
}

/// What a session has prepared by names, bounded.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<String, Named>,
    bytes: usize,
}

/// A text, and the database it was prepared in.
type Named = (Text, Option<Box<str>>);

impl Names {
    /// What `text` executes by its name; `None` where it does not, or nobody knows what.
    pub(super) fn executed(&self, text: &Text) -> Option<Named> {
        let seen = text.text.as_deref().filter(|_| text.why.is_none())?;
        if self.known.is_empty() || !begins(seen, Dialect::MYSQL, &["EXECUTE"]) {
            return None;
        }
        self.known.get(&executed(seen)?).cloned()
    }

    /// `text` has run in this database, or has `failed`.
    pub(super) fn ran(&mut self, text: &Text, failed: bool, database: Option<&str>) {
        if text.is_opaque() {
            return self.clear();
        }
        let seen = text.text.as_deref().unwrap_or_default();
        if !begins(seen, Dialect::MYSQL, &["PREPARE", "DEALLOCATE", "DROP"]) {
            return;
        }
        match (prepared(seen), forgotten(seen)) {
            (Some(name), _) => {
                // Also where the new text cannot be prepared, the old one is gone.
                self.forget(&name);
                if let Some(inner) = text.prepared().filter(|_| !failed) {
                    self.prepared(name, (inner, database.map(Into::into)));
                }
            }
            (None, Some(name)) => self.forget(&name),
            (None, None) => {}
        }
    }

    fn prepared(&mut self, name: String, named: Named) {
        let bytes = self.bytes.saturating_add(weight(&name, &named));
        if self.known.len() < NAMES_MAX && bytes <= NAMES_BYTES_MAX {
            self.bytes = bytes;
            self.known.insert(name, named);
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some((name, named)) = self.known.remove_entry(name) {
            self.bytes = self.bytes.saturating_sub(weight(&name, &named));
        }
    }

    /// Nobody knows what is executed by any name.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn weight(name: &str, (text, database): &Named) -> usize {
    let text = text.text.as_ref().map_or(0, |text| text.len());
    let database = database.as_ref().map_or(0, |name| name.len());
    // With what keeps them.
    text.saturating_add(name.len())
        .saturating_add(database)
        .saturating_add(128)
}

#[cfg(test)]
mod tests {
    use super::super::statement::Reading;
    use super::*;
    use crate::protocols::sql::Analyses;
    use std::sync::Arc;

    #[test]
    fn my_28_names_are_known_for_as_long_as_nothing_unseen_may_change_them() {
        let reading = Reading::new(Arc::new(Analyses::new(1 << 20)));
        let read = |text: &str| reading.read(text.as_bytes(), false);
        let mut names = Names::default();
        let mut ran = |text: &str, failed: bool| {
            names.ran(&read(text), failed, Some("shop"));
            let known = names.executed(&read("EXECUTE s"));
            known.and_then(|(text, _)| text.text)
        };
        let (one, two) = (Some("SELECT 1".into()), Some("SELECT 2".into()));
        for (text, failed, expected) in [
            ("PREPARE S FROM 'SELECT 1'", false, &one),
            ("SELECT 7", false, &one),
            ("PREPARE s FROM 'SELECT 2'", false, &two),
            ("PREPARE s FROM 'SELECT 1'", true, &None),
            ("PREPARE s FROM 'SELECT 1'", false, &one),
            ("DEALLOCATE PREPARE r", false, &one),
            ("DEALLOCATE PREPARE s", false, &None),
            // Where it would run in another database than this one.
            ("PREPARE s FROM 'USE mysql'", false, &None),
            ("PREPARE s FROM 'SELECT 1'", false, &one),
            ("CALL p()", true, &None),
            ("PREPARE s FROM 'SELECT 1'", false, &one),
            ("PREPARE `s` FROM 'SELECT 2'", false, &None),
            ("PREPARE s FROM 'SELECT 1'", false, &one),
            ("PREPARE s FROM 'SELECT 2' -- \"", false, &None),
            ("PREPARE s FROM 'SELECT 1'", false, &one),
            ("DO 0; PREPARE s FROM 'SELECT 2'", false, &None),
            ("PREPARE s FROM 'SELECT 1'", false, &one),
            (
                "SET STATEMENT a = 1 FOR PREPARE s FROM 'SELECT 2'",
                false,
                &None,
            ),
            ("PREPARE s FROM 'SELECT 1'", false, &one),
            ("SET STATEMENT a = 1 FOR CALL p()", false, &None),
            ("PREPARE s FROM 'SELECT 1'", false, &one),
            ("/*!99999 PREPARE s FROM 'SELECT 2' */", false, &None),
        ] {
            assert_eq!(&ran(text, failed), expected, "{text}");
        }
    }

    #[test]
    fn my_28_what_is_remembered_by_names_is_bounded() {
        let reading = Reading::new(Arc::new(Analyses::new(1 << 20)));
        let mut names = Names::default();
        let mut prepare = |name: String, bytes: usize| {
            let text = format!("PREPARE {name} FROM 'SELECT {}'", "1".repeat(bytes));
            names.ran(&reading.read(text.as_bytes(), false), false, None);
            (names.known.len(), names.bytes)
        };
        for number in 0..NAMES_MAX {
            prepare(format!("s{number}"), 1);
        }
        let (count, bytes) = prepare("another".into(), 1);
        assert_eq!(count, NAMES_MAX);
        let (count, less) = prepare("s1".into(), NAMES_BYTES_MAX);
        assert!(count < NAMES_MAX && less < bytes, "the old one is gone");
        names.clear();
        assert_eq!((names.known.len(), names.bytes), (0, 0));
    }

    #[test]
    fn my_28_one_plain_literal_is_what_is_executed_or_prepared() {
        for (text, expected) in [
            ("EXECUTE IMMEDIATE 'SELECT 1'", Some("SELECT 1")),
            ("prepare s from 'SELECT ?' ;", Some("SELECT ?")),
            ("PREPARE /* x */ s FROM 'SELECT 1' -- y", Some("SELECT 1")),
            ("PREPARE s FROM 'SELECT 1' -- \"", None),
            ("PREPARE s FROM 'SELECT ''a'''", None),
            ("PREPARE s FROM 'SELECT ' '1'", None),
            ("PREPARE s FROM \"SELECT 1\"", None),
            ("PREPARE s FROM N'SELECT 1'", None),
            ("PREPARE s FROM @v", None),
            ("PREPARE `s` FROM 'SELECT 1'", None),
            ("PREPARE s FROM 'SELECT 1'; SELECT 2", None),
            ("/*! PREPARE s FROM 'SELECT 1' */", None),
            ("PREPARE s /*! FROM */ 'SELECT 1'", None),
            ("PREPARE s AS 'SELECT 1'", None),
            // MariaDB prepares `SELECT 1, ? , (SELECT secret FROM vault) , ?` of it where the
            // connection is in `swe7`.
            (
                "PREPARE s FROM 'SELECT 1, ` , (SELECT secret FROM vault) , `'",
                None,
            ),
            ("EXECUTE IMMEDIATE 'SELECT `a`'", None),
            ("PREPARE s FROM 'SELECT {d ?}'", None),
            ("PREPARE s FROM 'SELECT a || b'", None),
            ("PREPARE s FROM 'SELECT a ^ ~b'", None),
            ("PREPARE s FROM 'SELECT @a'", None),
        ] {
            assert_eq!(literal(text, Dialect::MYSQL), expected, "{text}");
        }
    }

    #[test]
    fn my_28_a_name_is_executed_with_variables_alone() {
        for (text, expected) in [
            ("EXECUTE s", Some("s")),
            ("execute /* x */ S_1 ;", Some("s_1")),
            ("EXECUTE s USING @a, @b", Some("s")),
            ("EXECUTE s USING 1", None),
            ("EXECUTE s USING (SELECT 1)", None),
            ("EXECUTE s USING @a, @'b'", None),
            ("EXECUTE s USING @@a", None),
            ("EXECUTE s USING", None),
            ("EXECUTE `s`", None),
            ("EXECUTE s; EXECUTE r", None),
            ("EXECUTE /*!50000 s */ /*M! r */", None),
            ("EXECUTE IMMEDIATE @v", None),
            ("/*! EXECUTE s */", None),
        ] {
            assert_eq!(executed(text).as_deref(), expected, "{text}");
        }
        // All that is behind it is looked at, or nothing of it is believed.
        let values = |count: usize| vec!["@a"; count].join(", ");
        let most = format!("EXECUTE s USING {}", values(170));
        assert_eq!(executed(&most).as_deref(), Some("s"));
        for behind in ["; DROP TABLE t", ";;", ", @a"] {
            assert_eq!(executed(&format!("{most}{behind}")), None, "{behind}");
        }
        assert_eq!(forgotten("DROP PREPARE S;").as_deref(), Some("s"));
        assert_eq!(forgotten("deallocate prepare s").as_deref(), Some("s"));
        assert_eq!(forgotten("DROP TABLE s"), None);
    }
}
