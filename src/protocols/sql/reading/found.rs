//! What has been found of a statement.

use crate::protocols::sql::analysis::{Access, Class, Flags, Relation, Statement};
use crate::protocols::sql::functions::effect;

/// Most relations, and most functions, of one statement that is understood.
pub(super) const NAMES_MAX: usize = 128;

/// What has been found.
#[derive(Debug)]
pub(in crate::protocols::sql) struct Found {
    pub(in crate::protocols::sql) verbs: Vec<&'static str>,
    pub(in crate::protocols::sql) class: Class,
    pub(in crate::protocols::sql) relations: Vec<Relation>,
    pub(in crate::protocols::sql) functions: Vec<Box<str>>,
    pub(in crate::protocols::sql) flags: Flags,
    pub(in crate::protocols::sql) opaque: Option<&'static str>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            verbs: Vec::new(),
            class: Class::Session,
            relations: Vec::new(),
            functions: Vec::new(),
            flags: Flags::default(),
            opaque: None,
        }
    }
}

impl Found {
    pub(in crate::protocols::sql) fn verb(&mut self, verb: &'static str, class: Class) {
        self.class = self.class.max(class);
        if !self.verbs.contains(&verb) {
            self.verbs.push(verb);
        }
    }

    pub(in crate::protocols::sql) fn give_up(&mut self, why: &'static str) {
        self.class = Class::Opaque;
        self.opaque.get_or_insert(why);
    }

    pub(in crate::protocols::sql) fn relation(&mut self, name: &[String], access: Access) {
        if self.relations.len() >= NAMES_MAX {
            return self.give_up("it names too many relations");
        }
        let relation = Relation {
            name: name.join(".").into(),
            resolved: name.len() > 1,
            access,
        };
        if !self.relations.contains(&relation) {
            self.relations.push(relation);
        }
    }

    pub(super) fn function(&mut self, name: &[String]) {
        let last = name.last().map(|name| name.to_ascii_lowercase());
        if let Some(effect) = last.as_deref().and_then(effect) {
            self.flags = self.flags.and(effect.flags());
            if effect.class() == Class::Opaque {
                self.give_up("it calls a function that runs a text");
            }
            self.class = self.class.max(effect.class());
        }
        let name: Box<str> = name.join(".").into();
        if self.functions.contains(&name) {
            return;
        }
        if self.functions.len() >= NAMES_MAX {
            return self.give_up("it calls too many functions");
        }
        self.functions.push(name);
    }

    pub(in crate::protocols::sql) fn into_statement(mut self) -> Statement {
        self.relations.sort();
        self.functions.sort();
        Statement {
            verbs: self.verbs,
            class: self.class,
            relations: self.relations,
            functions: self.functions,
            flags: self.flags,
            opaque: self.opaque,
        }
    }
}
