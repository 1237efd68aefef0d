//! The settings of a server that change where a literal or a comment ends.

/// Whose rules a text is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// PostgreSQL, and what speaks like it.
    Postgres {
        /// Whether a backslash in `'…'` is a letter like any other: the setting
        /// of the same name, as the server last reported it.
        standard_conforming_strings: bool,
    },
    /// MySQL and MariaDB. A comment that either of them executes is executed.
    Mysql {
        /// Whether `"…"` is a name: `ANSI_QUOTES` in `sql_mode`.
        ansi_quotes: bool,
        /// Whether a backslash escapes nothing: `NO_BACKSLASH_ESCAPES`.
        no_backslash_escapes: bool,
        /// See [`Conditional`].
        conditional: Conditional,
    },
}

/// What becomes of a comment of MySQL that only servers of some versions execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conditional {
    /// It is executed.
    Executed,
    /// It is a comment.
    Skipped,
}

impl Dialect {
    /// PostgreSQL as it comes.
    pub const POSTGRES: Self = Self::Postgres {
        standard_conforming_strings: true,
    };
    /// MySQL as it comes.
    pub const MYSQL: Self = Self::Mysql {
        ansi_quotes: false,
        no_backslash_escapes: false,
        conditional: Conditional::Executed,
    };

    /// The other way in which some servers read `text`, where there is one: without
    /// the comments that others execute.
    pub(super) fn other(self, text: &str) -> Option<Self> {
        let Self::Mysql {
            ansi_quotes,
            no_backslash_escapes,
            conditional: Conditional::Executed,
        } = self
        else {
            return None;
        };
        let has = |what: &[u8]| memchr::memmem::find(text.as_bytes(), what).is_some();
        (has(b"/*!") || has(b"/*M!")).then_some(Self::Mysql {
            ansi_quotes,
            no_backslash_escapes,
            conditional: Conditional::Skipped,
        })
    }

    pub(super) const fn is_postgres(self) -> bool {
        matches!(self, Self::Postgres { .. })
    }
}
