//! What stands behind names that SQL gives, uses and forgets: `PREPARE`,
//! `EXECUTE`, `DECLARE`, `FETCH` and their kin.
//!
//! The server keeps them with those of its messages, past the end of a
//! transaction that failed. So a change is noted when the server says it did it,
//! and what is to be executed is looked up when it is.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocols::sql::named::{self, Does, Name};
use crate::protocols::sql::{Analysis, Statement};

use super::super::statement::Text;
use super::owed::{Executing, Owed, Portal, Prepared};
use super::{Conversation, Unresolved};

/// Longest text that is put together from those behind names, bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// What an execution does to names, once the server has done it.
#[derive(Debug)]
pub(in crate::protocols::postgres) enum Changes {
    /// Nothing.
    None,
    /// This, in order.
    Known(VecDeque<Change>),
    /// Anything: afterwards no name is certain.
    Unknown,
}

/// See [`Does`].
#[derive(Debug)]
pub(in crate::protocols::postgres) enum Change {
    Prepared(Name, Text),
    Deallocated(Option<Name>),
    Declared(Name, Text, bool),
    Closed(Option<Name>),
    Discarded,
}

impl Changes {
    /// Of a text that goes by no name.
    pub(super) fn of(text: &Text) -> Self {
        if text.is_opaque() {
            Self::Unknown
        } else {
            Self::None
        }
    }
}

impl Change {
    /// What the server says when it has done it.
    fn tag(&self) -> &'static [u8] {
        match self {
            Self::Prepared(..) => b"PREPARE\0",
            Self::Deallocated(Some(_)) => b"DEALLOCATE\0",
            Self::Deallocated(None) => b"DEALLOCATE ALL\0",
            Self::Declared(..) => b"DECLARE CURSOR\0",
            Self::Closed(Some(_)) => b"CLOSE CURSOR\0",
            Self::Closed(None) => b"CLOSE CURSOR ALL\0",
            Self::Discarded => b"DISCARD ALL\0",
        }
    }

    fn statement(&self, name: &[u8]) -> Option<Text> {
        match self {
            Self::Prepared(known, text) if **known == *name => Some(text.clone()),
            Self::Deallocated(Some(known)) if **known == *name => Some(Text::unknown()),
            Self::Deallocated(None) | Self::Discarded => Some(Text::unknown()),
            Self::Prepared(..) | Self::Deallocated(_) | Self::Declared(..) | Self::Closed(_) => {
                None
            }
        }
    }

    fn cursor(&self, name: &[u8]) -> Option<Text> {
        match self {
            Self::Declared(known, text, _) if **known == *name => Some(text.clone()),
            Self::Closed(Some(known)) if **known == *name => Some(Text::unknown()),
            Self::Closed(None) | Self::Discarded => Some(Text::unknown()),
            Self::Prepared(..) | Self::Deallocated(_) | Self::Declared(..) | Self::Closed(_) => {
                None
            }
        }
    }

    /// What it is about may have changed before it is done.
    pub(super) fn is_uncertain(&mut self) {
        if let Self::Prepared(_, text) | Self::Declared(_, text, _) = self {
            *text = Text::unknown();
        }
    }
}

/// A text put together from those behind names.
#[derive(Default)]
struct Together {
    shown: String,
    statements: Vec<Statement>,
    behind: Vec<Arc<Analysis>>,
    changes: VecDeque<Change>,
}

impl Together {
    fn shows(&mut self, text: &str) {
        if !self.shown.is_empty() {
            self.shown.push_str("; ");
        }
        self.shown.push_str(text);
    }

    /// `statement` runs what stands behind a name, where that is one statement.
    fn runs(&mut self, piece: &str, statement: &Statement, inner: &Text) {
        let known = inner.analysis.as_ref().filter(|_| inner.why.is_none());
        match (known, &inner.text) {
            (Some(analysis), Some(text)) if let [one] = &*analysis.statements => {
                self.statements.push(statement.that_runs(one));
                self.shows(text);
                if !self.behind.iter().any(|known| Arc::ptr_eq(known, analysis)) {
                    self.behind.push(analysis.clone());
                }
            }
            _ => self.keeps(piece, statement),
        }
    }

    fn keeps(&mut self, piece: &str, statement: &Statement) {
        self.statements.push(statement.clone());
        self.shows(piece);
    }
}

impl Conversation {
    /// What `text` does where it goes by names, as they will be when the server
    /// comes to it, and what it does to them.
    pub(super) fn resolved(&mut self, text: Text) -> Result<(Text, Changes), Unresolved> {
        if !text.goes_by_name() {
            let changes = Changes::of(&text);
            return Ok((text, changes));
        }
        let (Some(sql), Some(analysis)) = (text.text.clone(), text.analysis.clone()) else {
            return Ok((text, Changes::Unknown));
        };
        // It may have been read when literals still ended elsewhere.
        let again = self.reading.again(&sql);
        let pieces = named::statements(&sql, again.1).filter(|_| *again.0 == *analysis);
        let Some(pieces) = pieces.filter(|all| all.len() == analysis.statements.len()) else {
            return Ok((text, Changes::Unknown));
        };
        let mut all = Together::default();
        for ((piece, does), statement) in pieces.into_iter().zip(&analysis.statements) {
            let change = match does {
                Does::Executes(name) => {
                    let inner = self.behind_statement(&name, &all.changes)?;
                    all.runs(piece, statement, &inner);
                    None
                }
                Does::Fetches(name) => {
                    let inner = self.behind_cursor(&name, &all.changes)?;
                    all.runs(piece, statement, &inner);
                    None
                }
                Does::Prepares(name, inner) => Some(Change::Prepared(name, self.inner(inner))),
                Does::Declares(name, inner, lasts) => {
                    Some(Change::Declared(name, self.inner(inner), lasts))
                }
                Does::Deallocates(name) => Some(Change::Deallocated(name)),
                Does::Closes(name) => Some(Change::Closed(name)),
                Does::DiscardsAll => Some(Change::Discarded),
                Does::Nothing => {
                    all.keeps(piece, statement);
                    None
                }
            };
            if let Some(change) = change {
                all.keeps(piece, statement);
                all.changes.push_back(change);
            }
            if all.shown.len() > TEXT_BYTES_MAX {
                return Ok((text, Changes::Unknown));
            }
        }
        let text = if all.behind.is_empty() {
            text
        } else {
            let behind: Vec<_> = all.behind.iter().map(|known| &**known).collect();
            Text {
                text: Some(all.shown.into()),
                analysis: Some(analysis.that_does(all.statements, &behind).into()),
                why: None,
            }
        };
        let changes = match (text.is_opaque(), all.changes.is_empty()) {
            (true, _) => Changes::Unknown,
            (false, true) => Changes::None,
            (false, false) => Changes::Known(all.changes),
        };
        Ok((text, changes))
    }

    fn inner(&self, text: &str) -> Text {
        self.reading.read(text.as_bytes(), self.is_unsettled())
    }

    fn behind_statement(&self, name: &[u8], before: &VecDeque<Change>) -> Result<Text, Unresolved> {
        let changed = before.iter().rev().find_map(|one| one.statement(name));
        changed
            .or_else(|| self.statement(name))
            .ok_or(Unresolved::Unanswered)
    }

    fn behind_cursor(
        &mut self,
        name: &[u8],
        before: &VecDeque<Change>,
    ) -> Result<Text, Unresolved> {
        if let Some(text) = before.iter().rev().find_map(|one| one.cursor(name)) {
            return Ok(text);
        }
        let portal = self.portal(name)?;
        if portal.as_ref().is_some_and(|portal| portal.is_limited()) {
            return Err(Unresolved::Limited);
        }
        Ok(portal.map_or_else(Text::unknown, |portal| portal.text.clone()))
    }

    /// The server says that it has done what this `tag` says.
    pub(super) fn changed(&mut self, tag: &[u8]) {
        let Some(Owed::Query(Some(running)) | Owed::Execute(_, Executing::Running(running))) =
            self.owed.front_mut()
        else {
            return;
        };
        let Some(changes) = &mut running.changes else {
            return;
        };
        if changes.front().is_none_or(|change| change.tag() != tag) {
            return;
        }
        let change = changes.pop_front();
        if changes.is_empty() {
            running.changes = None;
        }
        match change {
            Some(Change::Prepared(name, text)) => self.statements.put(name, Prepared::of(text)),
            Some(Change::Deallocated(Some(name))) => drop(self.statements.take(&name)),
            Some(Change::Deallocated(None)) => self.statements.clear_named(),
            Some(Change::Declared(name, text, lasts)) => {
                self.opened(name, Portal::declared(text, lasts));
            }
            Some(Change::Closed(Some(name))) => self.closed(&name),
            Some(Change::Closed(None)) => self.forget_portals(|_| false),
            Some(Change::Discarded) => {
                self.statements.clear_named();
                self.forget_portals(|_| false);
                // What was admitted behind it may have set something already.
                let mut behind = self.owed.iter().skip(1);
                if behind.all(|owed| matches!(owed, Owed::Sync)) {
                    self.earlier = self.began;
                }
            }
            None => {}
        }
    }
}
