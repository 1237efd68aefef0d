//! Where in a statement the walk is: one level for each open pair of parentheses.

/// What a query, or the part of it in one pair of parentheses, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Nothing yet, or it is no query: arguments, a list.
    Nothing,
    Select,
    Insert,
    Update,
    Delete,
    Merge,
}

/// Where in it the walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// At its beginning.
    Start,
    /// In an expression, or in a list of them.
    Expression,
    /// Before a thing that is selected from.
    Item,
    /// Behind one.
    ItemTail,
    /// Before the table that is changed.
    Target,
    /// Behind it.
    TargetTail,
    /// Before the name of a common table expression.
    CteName,
    /// Behind it.
    CteHead,
    /// Behind its body.
    CteTail,
}

/// What becomes of the tables that are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// They are read.
    Read,
    /// They are read, and any of them changed: `UPDATE a, b SET` of MySQL.
    Updated,
    /// They are read, and rows of those that were named before go: `DELETE a FROM a, b`
    /// of MySQL.
    Deleted,
}

/// What a pair of parentheses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    /// The statement itself, or the body of a common table expression.
    Statement,
    /// A query, or an expression.
    Value,
    /// Things that are joined, or a query.
    Items,
    /// Names and types: nothing that is called or read.
    Columns,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) inside: Inside,
    pub(super) does: Does,
    pub(super) at: At,
    /// Behind `FROM`: a comma leads to the next thing that is selected from.
    pub(super) from: bool,
    pub(super) has_where: bool,
    pub(super) recursive: bool,
    pub(super) joined: Joined,
    /// How many names of common table expressions were known outside.
    pub(super) known: usize,
    /// The body of a common table expression: its name is known behind it.
    pub(super) body: bool,
}

impl Level {
    pub(super) fn new(inside: Inside, at: At, known: usize) -> Self {
        Self {
            inside,
            does: Does::Nothing,
            at,
            from: false,
            has_where: false,
            recursive: false,
            joined: Joined::Read,
            known,
            body: false,
        }
    }
}
