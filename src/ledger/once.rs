//! Requests that must not be done twice: the `Idempotency-Key` of the REST API.

use rusqlite::{OptionalExtension as _, params};

use super::{Ledger, LedgerError};
use crate::clock::Wall;

/// How long an answer is kept, in milliseconds.
const KEPT: i64 = 24 * 3_600 * 1_000;

/// After this many milliseconds a request that was never answered has died with its process.
const DEAD: i64 = 60 * 1_000;

/// How many answers are kept.
const MOST: i64 = 10_000;

/// What is known of a request that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: do it, then say [`Ledger::finish`] or [`Ledger::forget`].
    New,
    /// It is being done.
    Running,
    /// It was done: this was the answer.
    Replay {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: String,
    },
    /// The key was used for another request.
    Mismatch,
}

impl Ledger {
    /// A request comes in with this key. `owner`: whose key it is; two owners don't get in each other's way.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn begin(
        &mut self,
        key: &str,
        owner: &str,
        body_sha256: &[u8; 32],
        now: Wall,
    ) -> Result<Begun, LedgerError> {
        self.write(now, |on| {
            let found = on
                .query_row(
                    "SELECT body_sha256, begun_at, status, body FROM requests WHERE owner = ?1 AND key = ?2",
                    params![owner, key],
                    |row| {
                        Ok((
                            row.get::<_, Vec<u8>>(0)?,
                            row.get::<_, i64>(1)?,
                            row.get::<_, Option<u16>>(2)?,
                            row.get::<_, Option<String>>(3)?,
                        ))
                    },
                )
                .optional()?;
            if let Some((sha256, begun_at, status, body)) = found {
                // A clock that was set back must not keep a request alive.
                let age = now.0.abs_diff(begun_at);
                let kept = if status.is_some() { KEPT } else { DEAD };
                if age < kept.unsigned_abs() {
                    return Ok(match status {
                        _ if sha256 != body_sha256 => Begun::Mismatch,
                        Some(status) => Begun::Replay { status, body: body.unwrap_or_default() },
                        None => Begun::Running,
                    });
                }
            }
            on.execute(
                "INSERT OR REPLACE INTO requests (owner, key, body_sha256, begun_at) VALUES (?1, ?2, ?3, ?4)",
                params![owner, key, body_sha256.as_slice(), now.0],
            )?;
            on.execute("DELETE FROM requests WHERE begun_at <= ?1", [now.0.saturating_sub(KEPT)])?;
            let kept: i64 = on.query_row("SELECT count(*) FROM requests", [], |row| row.get(0))?;
            if kept > MOST {
                on.execute(
                    "DELETE FROM requests WHERE rowid IN
                         (SELECT rowid FROM requests ORDER BY begun_at, rowid LIMIT ?1)",
                    [kept - MOST],
                )?;
            }
            Ok(Begun::New)
        })
    }

    /// The request was answered so; the same request gets this answer from now on.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn finish(
        &mut self,
        key: &str,
        owner: &str,
        status: u16,
        body: &str,
        now: Wall,
    ) -> Result<(), LedgerError> {
        self.write(now, |on| {
            on.execute(
                "UPDATE requests SET status = ?3, body = ?4 WHERE owner = ?1 AND key = ?2 AND status IS NULL",
                params![owner, key, status, body],
            )
            .map(|_| ())
        })
    }

    /// The request came to nothing and may be tried again with the same key.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn forget(&mut self, key: &str, owner: &str, now: Wall) -> Result<(), LedgerError> {
        self.write(now, |on| {
            on.execute(
                "DELETE FROM requests WHERE owner = ?1 AND key = ?2 AND status IS NULL",
                params![owner, key],
            )
            .map(|_| ())
        })
    }
}
