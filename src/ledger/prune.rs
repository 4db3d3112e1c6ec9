//! Forgetting what is old, a little at a time: a call that ends meanwhile must not wait for the disk.

use rusqlite::{Transaction, params};

use super::permit::{WEEK, before};
use super::{Ledger, LedgerError, audit, tape};
use crate::clock::Wall;
use std::time::Duration;

/// Rows of each kind that go in one transaction.
const BATCH: i64 = 500;

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Calls, recordings that are gone, and permissions that nobody has heard of since, in days.
    pub calls_days: u32,
    /// Events and how their deliveries went, in days.
    pub logs_days: u32,
}

impl Default for Keep {
    /// Two years of calls, thirty days of deliveries.
    fn default() -> Self {
        Keep { calls_days: 730, logs_days: 30 }
    }
}

/// What went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Calls.
    pub calls: u64,
    /// Lines of the delivery log.
    pub logs: u64,
    /// Events, with what was known of their deliveries.
    pub events: u64,
    /// Recordings that are not on this disk any more.
    pub recordings: u64,
    /// Entries of the audit log.
    pub audits: u64,
    /// There is more to forget: call again, after others have had the disk.
    pub more: bool,
}

impl Ledger {
    /// Forgets a batch of what is too old. Running calls stay, however old, and so do recordings whose file is on this
    /// disk, with their calls: who may be heard there was told so, and the call's row is the proof. Entries of the audit
    /// log stay for ten years, and 100,000 of them at most.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn prune(&mut self, now: Wall, keep: Keep) -> Result<Pruned, LedgerError> {
        self.write(now, |on| {
            let days = |days: u32| before(now, Duration::from_secs(u64::from(days) * 86_400)).0;
            let (calls_before, logs_before) = (days(keep.calls_days), days(keep.logs_days));
            let calls = batch(
                on,
                "DELETE FROM calls WHERE seq IN (
                     SELECT seq FROM calls INDEXED BY calls_by_digits
                     WHERE listed_at < ?1 AND status IN ('ended', 'failed')
                       AND NOT EXISTS (SELECT 1 FROM recordings WHERE call = calls.id AND local = 1)
                     ORDER BY listed_at LIMIT ?2)",
                calls_before,
            )?;
            let logs = batch(
                on,
                "DELETE FROM delivery_log WHERE id IN (
                     SELECT id FROM delivery_log INDEXED BY delivery_log_by_age WHERE at < ?1 LIMIT ?2)",
                logs_before,
            )?;
            // An event that still waits after all this time waits for a webhook that is long gone.
            on.execute(
                "DELETE FROM deliveries WHERE event_seq IN (
                     SELECT seq FROM events INDEXED BY events_by_age WHERE created_at < ?1
                     ORDER BY created_at, seq LIMIT ?2)",
                params![logs_before, BATCH],
            )?;
            let events = batch(
                on,
                "DELETE FROM events WHERE seq IN (
                     SELECT seq FROM events INDEXED BY events_by_age WHERE created_at < ?1
                     ORDER BY created_at, seq LIMIT ?2)",
                logs_before,
            )?;
            // Small tables: they may go whole.
            on.execute("DELETE FROM permission_requests WHERE at < ?1", [before(now, WEEK).0])?;
            on.execute(
                "DELETE FROM permissions
                 WHERE updated_at < ?1 AND (accepted = 0 OR coalesce(expires_at < ?2, 0))",
                params![calls_before, now.0],
            )?;
            let recordings = tape::forget(on, calls_before, BATCH)?;
            let audits = audit::forget(on, now, BATCH)?;
            let more = [calls, logs, events, recordings, audits].contains(&BATCH.unsigned_abs());
            Ok(Pruned { calls, logs, events, recordings, audits, more })
        })
    }
}

fn batch(on: &Transaction<'_>, sql: &str, before: i64) -> rusqlite::Result<u64> {
    let gone = on.execute(sql, params![before, BATCH])?;
    Ok(u64::try_from(gone).unwrap_or(u64::MAX))
}
