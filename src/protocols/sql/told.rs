//! What policy and the journal are told of a statement: `db_reading`.

use serde::Serialize;

use crate::domain::JsonText;

use super::{Analysis, Class, Flags, Relation};

/// What is said of a statement, or of several together.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// The strictest class.
    pub class: Class,
    /// Upper case; each once.
    pub verbs: &'a [&'static str],
    /// Each once, sorted.
    pub relations: &'a [&'a Relation],
    /// Each once, sorted.
    pub functions: &'a [&'a str],
    /// See [`Flags`].
    pub flags: Flags,
    /// Why it is not understood.
    pub opaque: Option<&'a str>,
    /// What earlier statements of its session have set.
    pub earlier: Flags,
}

/// As JSON; fields in the order of the alphabet.
#[derive(Serialize)]
struct Reading<'a> {
    class: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    earlier: &'a [&'static str],
    flags: &'a [&'static str],
    functions: &'a [&'a str],
    opaque: Option<&'a str>,
    relations: &'a [Named<'a>],
    verbs: &'a [&'static str],
}

#[derive(Serialize)]
struct Named<'a> {
    access: &'static str,
    name: &'a str,
    resolved: bool,
}

impl<'a> Said<'a> {
    /// Of a text that cannot be read, and `why`; `earlier` statements set that.
    #[must_use]
    pub fn opaque(why: Option<&'a str>, earlier: Flags) -> Self {
        Self {
            class: Class::Opaque,
            verbs: &[],
            relations: &[],
            functions: &[],
            flags: Flags::default(),
            opaque: why,
            earlier,
        }
    }

    /// As the JSON of `db_reading`.
    pub fn json(&self) -> JsonText {
        let relations: Vec<_> = self
            .relations
            .iter()
            .map(|relation| Named {
                access: relation.access.as_str(),
                name: &relation.name,
                resolved: relation.resolved,
            })
            .collect();
        let reading = Reading {
            class: self.class.as_str(),
            earlier: &names(self.earlier.lasting()),
            flags: &names(self.flags),
            functions: self.functions,
            opaque: self.opaque,
            relations: &relations,
            verbs: self.verbs,
        };
        // Texts and lists of texts cannot fail to become JSON.
        let json = serde_json::to_string(&reading).unwrap_or_default();
        JsonText(json.into())
    }
}

/// The flags that are set, by their names.
fn names(flags: Flags) -> Vec<&'static str> {
    let all = [
        (flags.no_where, "no_where"),
        (flags.server_file, "server_file"),
        (flags.program, "program"),
        (flags.for_update, "for_update"),
        (flags.sets_role, "sets_role"),
        (flags.sets_path, "sets_path"),
    ];
    let set = all.iter().filter(|(is, _)| *is);
    set.map(|(_, name)| *name).collect()
}

/// What is said of all statements of `analysis`; for another reason than its
/// own it is opaque where there is a `why`; `earlier` statements set that.
pub fn of(analysis: &Analysis, why: Option<&str>, earlier: Flags) -> JsonText {
    let (mut verbs, mut relations, mut functions) = (Vec::new(), Vec::new(), Vec::new());
    for statement in &analysis.statements {
        for verb in &statement.verbs {
            if !verbs.contains(verb) {
                verbs.push(*verb);
            }
        }
        relations.extend(&statement.relations);
        functions.extend(statement.functions.iter().map(|name| &**name));
    }
    relations.sort_unstable();
    relations.dedup();
    functions.sort_unstable();
    functions.dedup();
    let own = || analysis.statements.iter().find_map(|one| one.opaque);
    let said = Said {
        class: match why {
            Some(_) => Class::Opaque,
            None => analysis.class(),
        },
        verbs: &verbs,
        relations: &relations,
        functions: &functions,
        flags: analysis.flags(),
        opaque: why.or_else(own),
        earlier,
    };
    said.json()
}
