//! Events on their way to the user's webhooks: kept on disk until they are delivered or given up.
//!
//! The events of a call go out in order: the next one waits until every earlier one was delivered or given up at that
//! webhook. Calls don't wait for one another, nor do webhooks.

use rusqlite::{Connection, Transaction, params};

use super::{Ledger, LedgerError};
use crate::clock::Wall;

/// Events that wait for one webhook at most; the oldest is given up then.
pub(super) const MOST: i64 = 10_000;

/// What an event that was given up for lack of room says in the log.
const CROWDED: &str = "given up: too many events wait for this webhook";

/// An event to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Its id, unique for ever: one that is there already is not spooled again.
    pub id: String,
    /// The call it belongs to; empty if it waits for no other event.
    pub call_id: String,
    /// Its name: `call.ended`.
    pub name: String,
    /// The body, word for word.
    pub payload: String,
    /// When it happened.
    pub at: Wall,
    /// The webhooks it goes to.
    pub webhooks: Vec<String>,
}

/// An event that is to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Where it stands among the events.
    pub seq: i64,
    /// The event's id.
    pub event_id: String,
    /// The call it belongs to, or empty.
    pub call_id: String,
    /// The event's name.
    pub name: String,
    /// The body.
    pub payload: String,
    /// The webhook it goes to.
    pub webhook_id: String,
    /// Which attempt this will be, from 1.
    pub attempt: u32,
}

/// Deliveries that may go out: of a webhook that is not disabled, and nothing earlier of the same call waits.
const FREE: &str = "d.state = 'pending'
    AND NOT EXISTS (
        SELECT 1 FROM webhooks AS w WHERE w.webhook_id = d.webhook_id AND w.disabled_at IS NOT NULL)
    AND (d.call_id = '' OR NOT EXISTS (
        SELECT 1 FROM deliveries AS p INDEXED BY deliveries_pending
        WHERE p.state = 'pending' AND p.webhook_id = d.webhook_id AND p.call_id = d.call_id
          AND p.event_seq < d.event_seq))";

impl Ledger {
    /// Puts events into the spool, in this order.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn spool(&mut self, events: &[Spooled]) -> Result<(), LedgerError> {
        let now = events.iter().map(|event| event.at).max().unwrap_or_default();
        self.write(now, |on| put(on, events))
    }

    /// What is to be sent now, new events before repeated ones. Who is sending one already gets it again until
    /// [`Ledger::delivered`] or [`Ledger::failed`] is said of it.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn due(&self, now: Wall, limit: usize) -> Result<Vec<Due>, LedgerError> {
        self.read(|on| {
            let mut statement = on.prepare(&format!(
                "SELECT d.event_seq, e.id, e.call_id, e.name, e.payload, d.webhook_id, d.attempt
                 FROM deliveries AS d INDEXED BY deliveries_due JOIN events AS e ON e.seq = d.event_seq
                 WHERE d.next_at <= ?1 AND {FREE} ORDER BY d.next_at, d.event_seq LIMIT ?2"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let due = statement.query_map(params![now.0, limit], |row| {
                Ok(Due {
                    seq: row.get(0)?,
                    event_id: row.get(1)?,
                    call_id: row.get(2)?,
                    name: row.get(3)?,
                    payload: row.get(4)?,
                    webhook_id: row.get(5)?,
                    attempt: row.get::<_, u32>(6)?.saturating_add(1),
                })
            })?;
            due.collect()
        })
    }

    /// When the next event is to be sent: a moment in the past if one is due; `None` if nothing waits.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn next_due(&self) -> Result<Option<Wall>, LedgerError> {
        use rusqlite::OptionalExtension as _;
        self.read(|on| {
            on.query_row(
                &format!(
                    "SELECT d.next_at FROM deliveries AS d INDEXED BY deliveries_due
                     WHERE {FREE} ORDER BY d.next_at LIMIT 1"
                ),
                [],
                |row| row.get(0).map(Wall),
            )
            .optional()
        })
    }
}

/// Puts events into the spool.
pub(super) fn put(on: &Transaction<'_>, events: &[Spooled]) -> rusqlite::Result<()> {
    for event in events {
        let new = on.execute(
            "INSERT OR IGNORE INTO events (id, call_id, name, payload, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![event.id, event.call_id, event.name, event.payload, event.at.0],
        )?;
        if new == 0 {
            continue;
        }
        let seq = on.last_insert_rowid();
        for webhook in &event.webhooks {
            on.execute(
                "INSERT OR IGNORE INTO deliveries (webhook_id, event_seq, call_id) VALUES (?1, ?2, ?3)",
                params![webhook, seq, event.call_id],
            )?;
            make_room(on, webhook, event.at)?;
        }
    }
    Ok(())
}

/// Gives up the oldest events of a webhook that has too many.
pub(super) fn make_room(on: &Connection, webhook: &str, now: Wall) -> rusqlite::Result<()> {
    let waiting: i64 = on.query_row(
        "SELECT count(*) FROM deliveries INDEXED BY deliveries_pending
         WHERE state = 'pending' AND webhook_id = ?1",
        [webhook],
        |row| row.get(0),
    )?;
    for _ in MOST..waiting {
        let (oldest, attempt): (i64, i64) = on.query_row(
            "SELECT event_seq, attempt FROM deliveries INDEXED BY deliveries_pending
             WHERE state = 'pending' AND webhook_id = ?1 ORDER BY event_seq LIMIT 1",
            [webhook],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        on.execute(
            "UPDATE deliveries SET state = 'gave_up' WHERE webhook_id = ?1 AND event_seq = ?2",
            params![webhook, oldest],
        )?;
        on.execute(
            "INSERT INTO delivery_log
                 (webhook_id, event_seq, at, success, response_body, error, attempt, response_ms)
             VALUES (?1, ?2, ?3, 0, '', ?4, ?5, 0)",
            params![webhook, oldest, now.0, CROWDED, attempt],
        )?;
    }
    Ok(())
}
