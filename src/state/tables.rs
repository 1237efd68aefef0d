//! The state file: one redb table a kind of row, keys and values as JSON text.
//! The only file that names `redb`, but for its error.

use std::fs::OpenOptions;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::What;
use super::change::Op;
use super::rows::Restored;

/// The file's name in the state folder.
pub(super) const FILE: &str = "state.redb";

/// How rows are written. Changes when an older program would misread them.
pub(super) const VERSION: &str = "1";
const VERSION_KEY: &str = "version";

/// Most bytes of the file that are kept in memory: it is read once, at start,
/// and what is written is not read again. The default would keep all of it.
const CACHE_BYTES_MAX: usize = 256 << 10;

/// A kind of row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Table {
    /// About this file and its sidecar.
    About,
    /// Open runs.
    Runs,
    /// Open activities.
    Activities,
    /// Why later operations of an open activity are refused.
    Aborts,
    /// Halted runs, open or not.
    Halts,
    /// Approvals that a person may still decide, or an agent may still use.
    Approvals,
}

impl Table {
    const ALL: [Self; 6] = [
        Self::About,
        Self::Runs,
        Self::Activities,
        Self::Aborts,
        Self::Halts,
        Self::Approvals,
    ];

    fn definition(self) -> TableDefinition<'static, &'static str, &'static str> {
        TableDefinition::new(match self {
            Self::About => "about",
            Self::Runs => "runs",
            Self::Activities => "activities",
            Self::Aborts => "aborts",
            Self::Halts => "halts",
            Self::Approvals => "approvals",
        })
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Tables {
    database: Database,
}

impl Tables {
    /// Opens the file, or makes one.
    pub(super) fn open(path: &Path) -> Result<Self, What> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| What::Store(error.into()))?;
        let is_new = file.metadata().is_ok_and(|about| about.len() == 0);
        let locked = |error| {
            if let DatabaseError::DatabaseAlreadyOpen = error {
                What::Locked
            } else {
                What::Store(error.into())
            }
        };
        let backend = FileBackend::new(file).map_err(locked)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES_MAX)
            .create_with_backend(backend)
            .map_err(locked)?;
        let tables = Self { database };
        if is_new {
            let (key, version) = (VERSION_KEY.to_owned(), VERSION.to_owned());
            tables.apply(&[Op::Put(Table::About, key, version)])?;
        }
        tables.check_version()?;
        Ok(tables)
    }

    fn check_version(&self) -> Result<(), What> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = match read.open_table(Table::About.definition()) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Err(What::Foreign),
            Err(error) => return Err(failed(error)),
        };
        let version = table.get(VERSION_KEY).map_err(failed)?;
        match version.as_ref().map(redb::AccessGuard::value) {
            Some(VERSION) => Ok(()),
            Some(other) => Err(What::Version(other.to_owned())),
            None => Err(What::Foreign),
        }
    }

    /// Applies `ops` in order and syncs them to the disk, all or none.
    pub(super) fn apply(&self, ops: &[Op]) -> Result<(), What> {
        let write = self.database.begin_write().map_err(failed)?;
        for table in Table::ALL {
            // Made here, so that reading never finds one missing.
            let mut rows = write.open_table(table.definition()).map_err(failed)?;
            for op in ops.iter().filter(|op| op.table() == table) {
                match op {
                    Op::Put(_, key, value) => {
                        rows.insert(&**key, &**value).map_err(failed)?;
                    }
                    Op::Delete(_, key) => {
                        rows.remove(&**key).map_err(failed)?;
                    }
                    Op::Clear(_, prefix) => {
                        let from = (Bound::Included(&**prefix), Bound::Unbounded::<&str>);
                        // Rows are sorted: those of the prefix come first.
                        let of_prefix = rows
                            .range::<&str>(from)
                            .map_err(failed)?
                            .map_while(|row| match row {
                                Ok((key, _)) => {
                                    let key = key.value();
                                    key.starts_with(&**prefix).then(|| Ok(key.to_owned()))
                                }
                                Err(error) => Some(Err(error)),
                            })
                            .collect::<Result<Vec<_>, _>>()
                            .map_err(failed)?;
                        for key in of_prefix {
                            rows.remove(&*key).map_err(failed)?;
                        }
                    }
                }
            }
        }
        write.commit().map_err(failed)
    }

    /// Everything in it.
    pub(super) fn read(&self) -> Result<Restored, What> {
        let read = self.database.begin_read().map_err(failed)?;
        let mut restored = Restored::default();
        for table in Table::ALL {
            let rows = read.open_table(table.definition()).map_err(failed)?;
            for row in rows.iter().map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                restored
                    .take(table, key.value(), value.value())
                    .map_err(|error| What::Row(format!("{table:?} {}: {error}", key.value())))?;
            }
        }
        Ok(restored)
    }
}

fn failed(error: impl Into<redb::Error>) -> What {
    What::Store(error.into())
}
