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
    },
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
    };

    pub(super) const fn is_postgres(self) -> bool {
        matches!(self, Self::Postgres { .. })
    }
}
