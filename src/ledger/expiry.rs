//! The end of a recording that was promised under a clock that was wrong.

use rusqlite::params;

use super::{Ledger, LedgerError};
use crate::clock::Wall;

impl Ledger {
    /// A finished recording is kept until then instead; `None`: for ever. False if there is no such recording.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn tape_expires(
        &mut self,
        call: &str,
        expires_at: Option<Wall>,
        now: Wall,
    ) -> Result<bool, LedgerError> {
        self.write(now, |on| {
            let sql = "UPDATE recordings SET expires_at = ?2 WHERE call = ?1 AND state = 'kept'";
            Ok(on.execute(sql, params![call, expires_at.map(|at| at.0)])? > 0)
        })
    }
}
