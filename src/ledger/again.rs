//! What is made good later: an upload that was given up, a SHA-256 for which there was no time, a file that is there
//! again.

use rusqlite::params;

use super::tape::{find, settle, store};
use super::{Ledger, LedgerError, TapeRow, TapeState, audit};
use crate::clock::Wall;

/// Who has "deleted" a recording whose file was not there any more.
pub const MISSING: &str = "missing";

/// Recordings without a SHA-256 that are named at once.
const UNREAD: usize = 100;

impl Ledger {
    /// Uploads that were given up are due again, with all their tries, where the file is still here; how many.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn uploads_again(&mut self, now: Wall) -> Result<usize, LedgerError> {
        self.write(now, |on| {
            on.execute(
                "UPDATE recordings SET upload = 'waiting', upload_tries = 0, upload_next = ?1
                 WHERE upload = 'gave_up' AND local = 1 AND state = 'kept'",
                [now.0],
            )
        })
    }

    /// Recordings on this disk that have no SHA-256: the process ended before it was made. 100 at most.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn tapes_unread(&self) -> Result<Vec<TapeRow>, LedgerError> {
        let tail = "INDEXED BY recordings_by_age WHERE local = 1 AND state = 'kept' AND sha256 = ''
                    ORDER BY began_at, call LIMIT ?1";
        self.tapes(tail, &[(UNREAD as i64).into()])
    }

    /// A finished recording's length in bytes and its SHA-256, which it had not yet. False if it is none, or has one.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn tape_read(
        &mut self,
        call: &str,
        bytes: u64,
        sha256: &str,
        now: Wall,
    ) -> Result<bool, LedgerError> {
        let per_minute = self.recording_per_minute;
        self.write(now, |on| {
            let unread = |row: &TapeRow| row.state == TapeState::Kept && row.finished.sha256.is_empty();
            let Some(mut row) = find(on, call)?.filter(unread) else { return Ok(false) };
            row.finished.bytes = bytes;
            row.finished.sha256 = sha256.to_owned();
            store(on, &row)?;
            settle(on, &row, per_minute)?;
            Ok(true)
        })
    }

    /// A recording whose file was missing has it again: it is kept as long as was promised, and uploaded if it had not
    /// been. The audit log gets its entry. False if it is another's, or was deleted in earnest.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn tape_found(&mut self, call: &str, now: Wall) -> Result<bool, LedgerError> {
        self.write(now, |on| {
            let changed = on.execute(
                "UPDATE recordings SET state = 'kept', local = 1, deleted_at = NULL, deleted_by = NULL,
                     upload = iif(upload = 'gave_up', 'waiting', upload),
                     upload_next = iif(upload = 'gave_up', ?2, upload_next)
                 WHERE call = ?1 AND state = 'deleted' AND deleted_by = ?3",
                params![call, now.0, MISSING],
            )?;
            if changed > 0 {
                audit::put(on, now, MISSING, "recording.found", call, "its file is there again")?;
            }
            Ok(changed > 0)
        })
    }
}
