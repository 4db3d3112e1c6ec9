//! MEMORY: calls, costs, permissions and events on their way out, in SQLite.
//!
//! One writer (the gateway) and any number of readers (`watrunk calls`) work on the same file at once: it is in
//! write-ahead mode. A power cut costs the last records at most, never the file (`synchronous = NORMAL`); that a call is
//! being recorded, and what the user answered to it, not even then (`FULL`).

mod again;
mod agent;
mod audit;
pub mod cost;
pub mod country;
mod deliver;
mod expiry;
mod fault;
mod once;
mod permit;
mod prune;
mod query;
mod running;
mod schema;
mod spool;
mod tape;
#[cfg(test)]
mod tests;
mod trunk;
mod usage;

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use rust_decimal::Decimal;

pub use again::MISSING;
pub use audit::Audit;
pub use cost::{Billing, Estimate, Priced, Rate, Rates};
pub use deliver::{Attempt, LogEntry, WebhookState};
pub use fault::LedgerError;
pub use once::Begun;
pub use permit::{Permission, Requests};
pub use prune::{Keep, Pruned};
pub use query::CallQuery;
pub use schema::CallRow;
pub use spool::{Due, Spooled};
pub use tape::{RECORDINGS, TapeRow, TapeState, UploadState, recorded};
pub use usage::{Channel, Group, Totals, Usage, UsageQuery};

use crate::call::leg::{Direction, Why};
use crate::call::record::Record;
use crate::clock::Wall;

/// The file's name in the state folder.
pub const FILE: &str = "calls.db";

/// How long another process may hold the file before we give up.
const BUSY: Duration = Duration::from_secs(1);

/// Records that one [`Ledger::list`] returns at most.
pub const MAX_LIST: usize = 10_000;

/// Files up to this size are checked whole when they are opened: a larger one would delay the first call.
const CHECKED_WHOLE: u64 = 16 * 1024 * 1024;

/// The history of calls.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    connection: Connection,
    /// What a recorded minute costs, in US dollars: see [`Ledger::charge`].
    recording_per_minute: Decimal,
}

/// Which records to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Only this direction.
    pub direction: Option<Direction>,
    /// Only calls that were answered, or only the others.
    pub answered: Option<bool>,
    /// Only calls that ended for this reason.
    pub why: Option<Why>,
    /// How many at most; [`MAX_LIST`] bounds it.
    pub limit: usize,
    /// Only calls admitted before the one with this id, for the next page. An id that isn't there has nothing
    /// before it.
    pub before: Option<String>,
}

impl Default for Filter {
    /// The latest 50 calls of any kind.
    fn default() -> Self {
        Filter { direction: None, answered: None, why: None, limit: 50, before: None }
    }
}

impl Ledger {
    /// Opens the history in `state_dir` for writing; folder and file are made if they aren't there (0700, 0600).
    ///
    /// A file that is damaged is set aside as `calls.db.corrupt-<now>` (milliseconds) with a warning in the log,
    /// and a new one is begun: a gateway must start.
    ///
    /// # Errors
    /// When there can be no file there, or a newer version of this program has written it.
    pub fn open(state_dir: &Path, now: Wall) -> Result<Ledger, LedgerError> {
        let path = state_dir.join(FILE);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|e| LedgerError::Refused(format!("{} can't be made: {e}", state_dir.display())))?;
        let connection = match open_file(&path) {
            Err(LedgerError::Corrupt(why)) => {
                set_aside(&path, now, &why)?;
                open_file(&path)?
            }
            other => other?,
        };
        Ok(Ledger { path, connection, recording_per_minute: Decimal::ZERO })
    }

    /// Opens the history for reading, also while a gateway writes it.
    ///
    /// # Errors
    /// [`LedgerError::Missing`] if no gateway has written one yet.
    pub fn open_read_only(state_dir: &Path) -> Result<Ledger, LedgerError> {
        let path = state_dir.join(FILE);
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(LedgerError::Missing(path)),
            Err(e) => return Err(LedgerError::Refused(format!("{}: {e}", path.display()))),
        }
        let at = |error: rusqlite::Error| LedgerError::at(&path, &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(at)?;
        connection.busy_timeout(BUSY).map_err(at)?;
        match schema::version(&connection).map_err(at)? {
            0 => Err(LedgerError::Missing(path)),
            found if found > schema::VERSION => Err(LedgerError::Newer { found, known: schema::VERSION }),
            _ => Ok(Ledger { path, connection, recording_per_minute: Decimal::ZERO }),
        }
    }

    /// Does this work in one transaction: all of it or nothing. A file that turns out to be damaged is set aside
    /// as in [`Ledger::open`], and the work is done in the new one.
    fn write<T>(
        &mut self,
        now: Wall,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        match self.transaction(&work) {
            Err(LedgerError::Corrupt(why)) => {
                // The damaged file is let go of before it gets another name.
                self.connection =
                    Connection::open_in_memory().map_err(|e| LedgerError::at(&self.path, &e))?;
                set_aside(&self.path, now, &why)?;
                self.connection = open_file(&self.path)?;
                self.transaction(&work)
            }
            other => other,
        }
    }

    /// As [`Ledger::write`], and a power cut does not take it back.
    fn write_for_good<T>(
        &mut self,
        now: Wall,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        self.sync("FULL");
        let done = self.write(now, work);
        self.sync("NORMAL");
        done
    }

    fn sync(&self, level: &str) {
        if let Err(error) = self.connection.pragma_update(None, "synchronous", level) {
            tracing::debug!(%error, level, "how the history is synced can't be changed");
        }
    }

    fn transaction<T>(
        &mut self,
        work: &impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let done = (|| {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })();
        done.map_err(|error: rusqlite::Error| LedgerError::at(&self.path, &error))
    }

    /// Reads, and says of which file if that fails.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        work(&self.connection).map_err(|error| LedgerError::at(&self.path, &error))
    }

    /// The finished calls that pass the filter, the latest admitted first; also from a file that an older version
    /// has written.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Record>, LedgerError> {
        let at = |error: rusqlite::Error| LedgerError::at(&self.path, &error);
        let version = schema::version(&self.connection).map_err(at)?;
        let mut statement = self.connection.prepare(&schema::select(version)).map_err(at)?;
        let mut rows = statement
            .query(params![
                filter.direction.map(Direction::as_str),
                filter.answered,
                filter.why.map(Why::as_str),
                filter.before,
                filter.limit.min(MAX_LIST) as i64,
            ])
            .map_err(at)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next().map_err(at)? {
            match schema::record(row).map_err(at)? {
                Ok(record) => records.push(record),
                Err(word) => tracing::warn!(%word, "a record of another version is left out: unknown word"),
            }
        }
        Ok(records)
    }
}

/// Opens or makes the file, checks it and brings it to this version.
fn open_file(path: &Path) -> Result<Connection, LedgerError> {
    let refused = |e: std::io::Error| LedgerError::Refused(format!("{}: {e}", path.display()));
    // Made here and not by SQLite: phone numbers are in it, and its companions take over this mode.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(refused)?;
    let about = file.metadata().map_err(refused)?;
    if about.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(refused)?;
    }
    drop(file);

    let at = |error: rusqlite::Error| LedgerError::at(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection.busy_timeout(BUSY).map_err(at)?;
    let found = schema::version(&connection).map_err(at)?;
    if found > schema::VERSION {
        return Err(LedgerError::Newer { found, known: schema::VERSION });
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(at)?;
    if !mode.eq_ignore_ascii_case("wal") {
        tracing::warn!(path = %path.display(), %mode, "no write-ahead log on this file system: reading may wait");
    }
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(at)?;
    if about.len() <= CHECKED_WHOLE {
        let verdict: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(at)?;
        if verdict != "ok" {
            return Err(LedgerError::Corrupt(verdict));
        }
    }
    // Another program's database, or ours with a table missing, is of no use: better said now than at the
    // end of the first call.
    let strange = |error: rusqlite::Error| match LedgerError::at(path, &error) {
        LedgerError::Defect(why) => LedgerError::Corrupt(format!("it has another layout: {why}")),
        other => other,
    };
    schema::migrate(&mut connection).map_err(strange)?;
    connection.prepare(&schema::close()).map_err(strange)?;
    connection.prepare(&schema::select(schema::VERSION)).map_err(strange)?;
    connection.prepare(&tape::select()).map_err(strange)?;
    Ok(connection)
}

/// Gives a damaged file and its companions another name.
fn set_aside(path: &Path, now: Wall, why: &str) -> Result<(), LedgerError> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let refused = |e: std::io::Error| LedgerError::Refused(format!("{}: {e}", path.display()));
    // A Pi without a clock battery may give the same stamp twice: an older file is not overwritten.
    let aside = (0..100)
        .map(|n| if n == 0 { format!(".corrupt-{}", now.0) } else { format!(".corrupt-{}-{n}", now.0) })
        .find(|suffix| !named(suffix).exists())
        .ok_or_else(|| LedgerError::Refused(format!("too many damaged files beside {}", path.display())))?;
    fs::rename(path, named(&aside)).map_err(refused)?;
    // SQLite would take a log that stays behind for that of the new file.
    for companion in ["-wal", "-shm"] {
        match fs::rename(named(companion), named(&format!("{aside}{companion}"))) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(refused(e)),
        }
    }
    tracing::warn!(
        path = %path.display(),
        kept = %named(&aside).display(),
        reason = why,
        "the call history is damaged: it was set aside, and a new one is begun"
    );
    Ok(())
}
