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
    /// MySQL and MariaDB.
    Mysql {
        /// Whether `"…"` is a name: `ANSI_QUOTES` in `sql_mode`.
        ansi_quotes: bool,
        /// Whether a backslash escapes nothing: `NO_BACKSLASH_ESCAPES`.
        no_backslash_escapes: bool,
        /// See [`Conditional`].
        conditional: Conditional,
    },
}

/// What becomes of comments that only some servers execute, and only from some version on:
/// `/*! … */`, `/*!50000 … */`, and MariaDB's `/*M! … */`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conditional {
    /// Each is executed.
    Executed,
    /// Those are that a server executes which is of this version: 80036 is 8.0.36.
    By {
        /// Whether it is MariaDB. That executes `/*M!` as well, and leaves out what MySQL
        /// has said since 5.7 and before 10.0.
        mariadb: bool,
        /// 0 is older than all.
        version: u32,
    },
}

impl Conditional {
    /// Whether a comment is executed that asks for `version`, `only_mariadb` where it
    /// begins `/*M!`.
    pub(super) fn executes(self, only_mariadb: bool, version: Option<u32>) -> bool {
        const OF_MYSQL: std::ops::RangeInclusive<u32> = 50_700..=99_999;
        match self {
            Self::Executed => true,
            Self::By { mariadb: false, .. } if only_mariadb => false,
            Self::By {
                mariadb,
                version: of_server,
            } => version.is_none_or(|version| {
                let left_out = mariadb && !only_mariadb && OF_MYSQL.contains(&version);
                version <= of_server && !left_out
            }),
        }
    }
}

/// Most versions that the comments of one text may ask for.
const VERSIONS_MAX: usize = 4;

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

    /// Whether `text` may have comments that some servers execute.
    pub(super) fn has_conditions(self, text: &str) -> bool {
        let has = |what: &[u8]| memchr::memmem::find(text.as_bytes(), what).is_some();
        !self.is_postgres() && (has(b"/*!") || has(b"/*M!"))
    }

    /// All ways in which servers read `text`, of whatever version they are, besides the one
    /// that executes all; `None` where those are too many.
    ///
    /// Each server decides about each comment: one that is skipped by all would be
    /// executed behind one that hides it from a reading that executes all.
    pub(super) fn readings(self, text: &str) -> Option<Vec<Self>> {
        let Self::Mysql {
            ansi_quotes,
            no_backslash_escapes,
            ..
        } = self
        else {
            return Some(vec![self]);
        };
        let all = conditions(text.as_bytes());
        let mut versions: Vec<_> = all.iter().filter_map(|(_, version)| *version).collect();
        versions.sort_unstable();
        versions.dedup();
        if versions.len() > VERSIONS_MAX {
            return None;
        }
        versions.insert(0, 0);
        let mut seen = vec![vec![(true, false); all.len()]];
        let mut readings = Vec::new();
        for mariadb in [false, true] {
            for version in &versions {
                let conditional = Conditional::By {
                    mariadb,
                    version: *version,
                };
                let decides = |(only, version): &(bool, Option<u32>)| {
                    // What MySQL takes for a comment, it ends elsewhere than MariaDB does
                    // one that it skips.
                    (conditional.executes(*only, *version), *only && !mariadb)
                };
                let decided: Vec<_> = all.iter().map(decides).collect();
                if !seen.contains(&decided) {
                    seen.push(decided);
                    readings.push(Self::Mysql {
                        ansi_quotes,
                        no_backslash_escapes,
                        conditional,
                    });
                }
            }
        }
        Some(readings)
    }

    pub(super) const fn is_postgres(self) -> bool {
        matches!(self, Self::Postgres { .. })
    }
}

/// The version that a comment asks for, of whose text behind `/*!` or `/*M!` `rest` is,
/// and how many digits it has. Fewer than five are part of the text, to every server.
/// `Err` where servers disagree how many it has.
pub(super) fn version(rest: &[u8]) -> Result<(Option<u32>, usize), ()> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let length = match digits {
        0..=4 => return Ok((None, 0)),
        5 => 5,
        6 if rest.get(6).is_none_or(u8::is_ascii_whitespace) => 6,
        _ => return Err(()),
    };
    let text = rest.get(..length).unwrap_or_default();
    let version = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    Ok((version, length))
}

/// What each comment asks for that some servers execute, and whether it is MariaDB's,
/// each once; also what looks like one.
fn conditions(text: &[u8]) -> Vec<(bool, Option<u32>)> {
    // Of each version two kinds, and two without one: more than anybody reads.
    const MOST: usize = 2 * (VERSIONS_MAX + 1);
    let mut all = Vec::new();
    for at in memchr::memmem::find_iter(text, b"/*") {
        let (only_mariadb, rest) = match text.get(at.saturating_add(2)..) {
            Some([b'!', rest @ ..]) => (false, rest),
            Some([b'M', b'!', rest @ ..]) => (true, rest),
            Some(_) | None => continue,
        };
        let Ok((version, _)) = version(rest) else {
            continue;
        };
        if !all.contains(&(only_mariadb, version)) {
            all.push((only_mariadb, version));
        }
        if all.len() > MOST {
            break;
        }
    }
    all
}
