//! A call's row: written when the call is admitted, updated while it runs, closed once.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params, params_from_iter};
use rust_decimal::Decimal;

use super::cost::Billing;
use super::spool::{self, Spooled};
use super::{Ledger, LedgerError, permit, schema, tape};
use crate::call::leg::Direction;
use crate::call::record::{Record, Running};

impl Ledger {
    /// Writes the row of a running call, or brings it up to date. A closed call stays as it is, so every error may
    /// be answered by trying again.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn note(&mut self, running: &Running) -> Result<(), LedgerError> {
        self.write(running.offered_at, |on| {
            let mut row = schema::running_values(running);
            row.push(Value::Integer(place(on, &running.id, running.offered_at.0)?));
            on.prepare(&schema::note())?.execute(params_from_iter(row))?;
            if running.answered_at.is_some() {
                let user = party(running.direction, &running.from, &running.to);
                permit::connected(on, &running.phone_number_id, user, running.user_id.as_deref())?;
            }
            Ok(())
        })
    }

    /// Closes a call's row and puts its events into the spool: both or neither. Closing it again changes nothing
    /// and spools nothing, so every error may be answered by trying again.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn close(
        &mut self,
        record: &Record,
        billing: &Billing,
        spool: &[Spooled],
    ) -> Result<(), LedgerError> {
        let per_minute = self.recording_per_minute;
        self.write(record.ended_at, |on| end(on, record, Some(billing), spool, per_minute))
    }

    /// Writes a finished call that has no bill. Writing one that is there already changes nothing, so every error
    /// may be answered by trying again.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn insert(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.write(record.ended_at, |on| end(on, record, None, &[], Decimal::ZERO))
    }

    /// The calls that were never closed, the oldest first: at the start, those that a crash has interrupted.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn interrupted(&self) -> Result<Vec<Running>, LedgerError> {
        let sql = format!(
            "SELECT {} FROM calls INDEXED BY calls_running WHERE ended_at IS NULL ORDER BY seq",
            schema::row_columns()
        );
        Ok(self.rows(&sql, &[])?.into_iter().map(|row| row.call).collect())
    }
}

/// Closes a row, once.
pub(super) fn end(
    on: &Transaction<'_>,
    record: &Record,
    billing: Option<&Billing>,
    spool: &[Spooled],
    recording_per_minute: Decimal,
) -> rusqlite::Result<()> {
    let row = schema::closing(record, billing, place(on, &record.id, record.offered_at.0)?);
    if on.prepare(&schema::close())?.execute(params_from_iter(row))? == 0 {
        return Ok(());
    }
    tape::settle_closed(on, &record.id, recording_per_minute)?;
    if record.answered() || record.connected_at.is_some() {
        let user = party(record.direction, &record.from, &record.to);
        permit::connected(on, &record.phone_number_id, user, record.user_id.as_deref())?;
    }
    spool::put(on, spool)
}

/// The WhatsApp user of a call.
fn party<'a>(direction: Direction, from: &'a str, to: &'a str) -> &'a str {
    match direction {
        Direction::Inbound => from,
        Direction::Outbound => to,
    }
}

/// The place of a call in the list: the first free millisecond from its offering on. A call that has a row keeps the
/// one it has: here it gets a place that nobody has, so that the row is found by its id alone.
fn place(on: &Transaction<'_>, id: &str, offered_at: i64) -> rusqlite::Result<i64> {
    if exists(on, "SELECT 1 FROM calls WHERE id = ?1", id)? {
        return Ok(i64::MIN);
    }
    free(on, offered_at)
}

/// The first free place from this one on.
fn free(on: &Connection, from: i64) -> rusqlite::Result<i64> {
    let taken: Option<i64> = on
        .query_row("SELECT listed_at FROM calls WHERE listed_at = ?1", [from], |row| row.get(0))
        .optional()?;
    if taken.is_none() {
        return Ok(from);
    }
    on.query_row(
        "SELECT listed_at + 1 FROM calls AS before
         WHERE listed_at >= ?1 AND NOT EXISTS (SELECT 1 FROM calls WHERE listed_at = before.listed_at + 1)
         ORDER BY listed_at LIMIT 1",
        params![from],
        |row| row.get(0),
    )
}

fn exists(on: &Connection, sql: &str, id: &str) -> rusqlite::Result<bool> {
    on.query_row(sql, [id], |_| Ok(())).optional().map(|found| found.is_some())
}
