//! Who did what with a recording: written with the deed, never changed.

use rusqlite::{Transaction, params};

use super::permit::before;
use super::{Ledger, LedgerError, MAX_LIST, tape};
use crate::clock::Wall;
use std::time::Duration;

/// Entries that are kept at most: the oldest go first.
pub(super) const MOST: i64 = 100_000;

/// How long an entry is kept: ten years.
const KEPT: Duration = Duration::from_secs(3_653 * 86_400);

/// Bytes that are kept of each text.
const TEXT: usize = 1_000;

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Its own id; later entries have greater ones.
    pub id: i64,
    /// When it was done.
    pub at: Wall,
    /// Who did it: a key's name, `retention`, `cli`.
    pub who: String,
    /// What was done: `recording.deleted`.
    pub action: String,
    /// What it was done to: a call's id.
    pub subject: String,
    /// What else is to be said: why, from where, which parts.
    pub detail: String,
}

impl Ledger {
    /// Writes an entry. Of each text its first 1,000 bytes are kept; of the entries the last 100,000.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn audit(
        &mut self,
        at: Wall,
        who: &str,
        action: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), LedgerError> {
        self.write(at, |on| put(on, at, who, action, subject, detail))
    }

    /// Entries of the audit log, the latest first: those before the one with this id. `limit` is bounded by
    /// [`MAX_LIST`].
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn audits(&self, limit: usize, before: Option<i64>) -> Result<Vec<Audit>, LedgerError> {
        self.read(|on| {
            if tape::older(on)? {
                return Ok(Vec::new());
            }
            let mut statement = on.prepare(
                "SELECT id, at, who, action, subject, detail FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let limit = i64::try_from(limit.min(MAX_LIST)).unwrap_or(i64::MAX);
            let entries = statement.query_map(params![before.unwrap_or(i64::MAX), limit], |row| {
                Ok(Audit {
                    id: row.get(0)?,
                    at: Wall(row.get(1)?),
                    who: row.get(2)?,
                    action: row.get(3)?,
                    subject: row.get(4)?,
                    detail: row.get(5)?,
                })
            })?;
            entries.collect()
        })
    }
}

/// Writes an entry together with what it tells of, and forgets the one that is too many.
pub(super) fn put(
    on: &Transaction<'_>,
    at: Wall,
    who: &str,
    action: &str,
    subject: &str,
    detail: &str,
) -> rusqlite::Result<()> {
    on.execute(
        "INSERT INTO audit (at, who, action, subject, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![at.0, cut(who), cut(action), cut(subject), cut(detail)],
    )?;
    let last = on.last_insert_rowid();
    on.execute("DELETE FROM audit WHERE id <= ?1", [last.saturating_sub(MOST)]).map(|_| ())
}

/// Forgets a batch of entries that are older than ten years.
pub(super) fn forget(on: &Transaction<'_>, now: Wall, batch: i64) -> rusqlite::Result<u64> {
    let gone = on.execute(
        "DELETE FROM audit WHERE id IN (
             SELECT id FROM audit INDEXED BY audit_by_age WHERE at < ?1 ORDER BY at LIMIT ?2)",
        params![before(now, KEPT).0, batch],
    )?;
    Ok(u64::try_from(gone).unwrap_or(u64::MAX))
}

/// The beginning of a text, whole characters only.
pub(super) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT)).unwrap_or(text)
}
