//! What can go wrong with the history, sorted by what the caller can do.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the history can't be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerError {
    /// The disk is full: try again when there is room.
    Full(PathBuf),
    /// Another process holds the file: try again.
    Busy(PathBuf),
    /// The disk failed to read or write: try again, and look at the disk.
    Disk(String),
    /// The file is damaged. [`super::Ledger::open`] and [`super::Ledger::insert`] set it aside themselves; a reader
    /// can't.
    Corrupt(String),
    /// A newer version of this program has written the file: use that one.
    Newer {
        /// The file's version.
        found: i64,
        /// The latest that this program knows.
        known: i64,
    },
    /// There is no history yet.
    Missing(PathBuf),
    /// The file can't be had: wrong folder, wrong user, read-only file system.
    Refused(String),
    /// A defect of this program.
    Defect(String),
}

impl LedgerError {
    /// Whether the same thing may succeed later.
    pub fn retry(&self) -> bool {
        match self {
            LedgerError::Full(_) | LedgerError::Busy(_) | LedgerError::Disk(_) => true,
            LedgerError::Corrupt(_)
            | LedgerError::Newer { .. }
            | LedgerError::Missing(_)
            | LedgerError::Refused(_)
            | LedgerError::Defect(_) => false,
        }
    }

    /// Sorts what SQLite says about the file at `path`.
    pub(super) fn at(path: &Path, error: &rusqlite::Error) -> LedgerError {
        let said = || match error {
            // The statement itself may be long, and is no news to anybody.
            rusqlite::Error::SqlInputError { msg, .. } => format!("{}: {msg}", path.display()),
            other => format!("{}: {other}", path.display()),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => LedgerError::Full(path.to_owned()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::Busy(path.to_owned()),
            Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => LedgerError::Disk(said()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => LedgerError::Corrupt(said()),
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                LedgerError::Refused(said())
            }
            // A foreign list, and one that grows: everything else is a wrong use of SQLite.
            Some(_) | None => LedgerError::Defect(said()),
        }
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerError::Full(path) => write!(f, "{}: the disk is full", path.display()),
            LedgerError::Busy(path) => write!(f, "{}: another process holds the file", path.display()),
            LedgerError::Disk(said) => write!(f, "the disk failed: {said}"),
            LedgerError::Corrupt(said) => write!(f, "the call history is damaged: {said}"),
            LedgerError::Newer { found, known } => {
                write!(
                    f,
                    "the call history is of version {found}, this program knows up to {known}: use a newer one"
                )
            }
            LedgerError::Missing(path) => write!(f, "{}: there is no call history yet", path.display()),
            LedgerError::Refused(said) => f.write_str(said),
            LedgerError::Defect(said) => write!(f, "a defect of this program: {said}"),
        }
    }
}

impl std::error::Error for LedgerError {}
