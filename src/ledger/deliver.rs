//! How deliveries went: the log, repeating one by hand, and what is known of each webhook.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{Ledger, LedgerError, MAX_LIST, Spooled, spool};
use crate::clock::Wall;

/// A webhook is disabled after this many failed attempts in a row.
pub const MAX_FAILURES: u32 = 10;

/// Bytes of an answer that the log keeps.
const ANSWER: usize = 2_048;

/// One attempt to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: Wall,
    /// The HTTP status, if there was an answer.
    pub status_code: Option<u16>,
    /// The answer's body; 2 kB of it are kept.
    pub response_body: String,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub response_time: Duration,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its own id; later lines have greater ones.
    pub id: i64,
    /// The event's id.
    pub event_id: String,
    /// The event's name.
    pub name: String,
    /// The webhook.
    pub webhook_id: String,
    /// When it began.
    pub at: Wall,
    /// Whether the webhook took the event.
    pub success: bool,
    /// The HTTP status, if there was an answer.
    pub status_code: Option<u16>,
    /// What was sent.
    pub request_payload: String,
    /// The beginning of the answer.
    pub response_body: String,
    /// What went wrong.
    pub error: Option<String>,
    /// Which attempt it was, from 1; 0 if the event was given up before there was one.
    pub attempt_number: u32,
    /// How long it took.
    pub response_time: Duration,
}

/// What is known of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebhookState {
    /// When it was last tried.
    pub last_fired_at: Option<Wall>,
    /// Attempts that have failed in a row.
    pub failure_count: u32,
    /// Since when nothing is sent to it any more, after [`MAX_FAILURES`].
    pub disabled_at: Option<Wall>,
    /// Events that wait for it.
    pub pending: u64,
}

impl Ledger {
    /// The webhook took the event.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn delivered(&mut self, webhook_id: &str, seq: i64, attempt: &Attempt) -> Result<(), LedgerError> {
        self.write(attempt.at, |on| {
            settle(on, webhook_id, seq, attempt, true, None)?;
            on.execute(
                "INSERT INTO webhooks (webhook_id, last_fired_at) VALUES (?1, ?2)
                 ON CONFLICT (webhook_id) DO UPDATE SET last_fired_at = excluded.last_fired_at, failure_count = 0",
                params![webhook_id, attempt.at.0],
            )
            .map(|_| ())
        })
    }

    /// The webhook did not take the event: it is tried again at `next_at`, or given up. True if this was one failure
    /// too many and the webhook is disabled from now on; what waits for it stays.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn failed(
        &mut self,
        webhook_id: &str,
        seq: i64,
        attempt: &Attempt,
        next_at: Option<Wall>,
    ) -> Result<bool, LedgerError> {
        self.write(attempt.at, |on| {
            settle(on, webhook_id, seq, attempt, false, next_at)?;
            on.execute(
                "INSERT INTO webhooks (webhook_id, last_fired_at, failure_count) VALUES (?1, ?2, 1)
                 ON CONFLICT (webhook_id) DO UPDATE SET
                     last_fired_at = excluded.last_fired_at, failure_count = failure_count + 1",
                params![webhook_id, attempt.at.0],
            )?;
            let disabled = on.execute(
                "UPDATE webhooks SET disabled_at = ?2
                 WHERE webhook_id = ?1 AND disabled_at IS NULL AND failure_count >= ?3",
                params![webhook_id, attempt.at.0, MAX_FAILURES],
            )?;
            Ok(disabled > 0)
        })
    }

    /// An event was sent to these webhooks at once, past the spool: for the log, and not to be repeated by itself.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn fired(&mut self, event: &Spooled, attempt: &Attempt) -> Result<(), LedgerError> {
        self.write(attempt.at, |on| {
            spool::put(on, std::slice::from_ref(event))?;
            let seq: i64 =
                on.query_row("SELECT seq FROM events WHERE id = ?1", [&event.id], |row| row.get(0))?;
            for webhook in &event.webhooks {
                settle(on, webhook, seq, attempt, attempt.error.is_none(), None)?;
            }
            Ok(())
        })
    }

    /// Lines of the log, the latest first: of one webhook or all, before the line with this id. `limit` is bounded
    /// by [`MAX_LIST`].
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn log(
        &self,
        webhook: Option<&str>,
        limit: usize,
        before: Option<i64>,
    ) -> Result<Vec<LogEntry>, LedgerError> {
        // Without a webhook the order is that of the table itself.
        let (index, only) = match webhook {
            Some(_) => ("INDEXED BY delivery_log_by_webhook", "AND l.webhook_id = ?3"),
            None => ("NOT INDEXED", "AND ?3 IS NULL"),
        };
        self.read(|on| {
            let mut statement = on.prepare(&format!(
                "SELECT l.id, e.id, e.name, l.webhook_id, l.at, l.success, l.status_code, e.payload,
                        l.response_body, l.error, l.attempt, l.response_ms
                 FROM delivery_log AS l {index} JOIN events AS e ON e.seq = l.event_seq
                 WHERE l.id < ?1 {only} ORDER BY l.id DESC LIMIT ?2"
            ))?;
            let limit = i64::try_from(limit.min(MAX_LIST)).unwrap_or(i64::MAX);
            let lines = statement.query_map(params![before.unwrap_or(i64::MAX), limit, webhook], |row| {
                Ok(LogEntry {
                    id: row.get(0)?,
                    event_id: row.get(1)?,
                    name: row.get(2)?,
                    webhook_id: row.get(3)?,
                    at: Wall(row.get(4)?),
                    success: row.get(5)?,
                    status_code: row.get(6)?,
                    request_payload: row.get(7)?,
                    response_body: row.get(8)?,
                    error: row.get(9)?,
                    attempt_number: row.get(10)?,
                    response_time: Duration::from_millis(u64::try_from(row.get::<_, i64>(11)?).unwrap_or(0)),
                })
            })?;
            lines.collect()
        })
    }

    /// Sends an event once more, from the beginning: to the webhook of this line of the log. False if there is no
    /// such line.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn redeliver_log(&mut self, log_id: i64, now: Wall) -> Result<bool, LedgerError> {
        self.write(now, |on| {
            let line: Option<(i64, String)> = on
                .query_row("SELECT event_seq, webhook_id FROM delivery_log WHERE id = ?1", [log_id], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((seq, webhook)) = line else { return Ok(false) };
            again(on, seq, &webhook, now)
        })
    }

    /// Sends an event once more, from the beginning: to one webhook, or to each that it went to. The number of
    /// webhooks; none if there is no such event.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn redeliver_event(
        &mut self,
        event_id: &str,
        webhook: Option<&str>,
        now: Wall,
    ) -> Result<usize, LedgerError> {
        self.write(now, |on| {
            let mut statement = on.prepare(
                "SELECT d.event_seq, d.webhook_id FROM events AS e JOIN deliveries AS d ON d.event_seq = e.seq
                 WHERE e.id = ?1 AND (?2 IS NULL OR d.webhook_id = ?2)",
            )?;
            let found = statement
                .query_map(params![event_id, webhook], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<Vec<(i64, String)>>>()?;
            for (seq, webhook) in &found {
                again(on, *seq, webhook, now)?;
            }
            Ok(found.len())
        })
    }

    /// What is known of a webhook; of an unknown one, nothing.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn webhook(&self, webhook_id: &str) -> Result<WebhookState, LedgerError> {
        self.read(|on| {
            let pending: i64 = on.query_row(
                "SELECT count(*) FROM deliveries INDEXED BY deliveries_pending
                 WHERE state = 'pending' AND webhook_id = ?1",
                [webhook_id],
                |row| row.get(0),
            )?;
            let state = on
                .query_row(
                    "SELECT last_fired_at, failure_count, disabled_at FROM webhooks WHERE webhook_id = ?1",
                    [webhook_id],
                    |row| {
                        Ok(WebhookState {
                            last_fired_at: row.get::<_, Option<i64>>(0)?.map(Wall),
                            failure_count: row.get(1)?,
                            disabled_at: row.get::<_, Option<i64>>(2)?.map(Wall),
                            pending: 0,
                        })
                    },
                )
                .optional()?;
            Ok(WebhookState { pending: u64::try_from(pending).unwrap_or(0), ..state.unwrap_or_default() })
        })
    }

    /// Begins the count of failures anew: a webhook that was disabled gets its events again, those that waited too.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn reset_webhook(&mut self, webhook_id: &str, now: Wall) -> Result<(), LedgerError> {
        self.write(now, |on| {
            on.execute(
                "UPDATE webhooks SET failure_count = 0, disabled_at = NULL WHERE webhook_id = ?1",
                [webhook_id],
            )
            .map(|_| ())
        })
    }

    /// A webhook is no more: what waits for it is given up. Its lines of the log stay for their time.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn forget_webhook(&mut self, webhook_id: &str, now: Wall) -> Result<(), LedgerError> {
        self.write(now, |on| {
            on.execute(
                "UPDATE deliveries SET state = 'gave_up' WHERE state = 'pending' AND webhook_id = ?1",
                [webhook_id],
            )?;
            on.execute("DELETE FROM webhooks WHERE webhook_id = ?1", [webhook_id]).map(|_| ())
        })
    }
}

/// Writes an attempt to the log and says what becomes of the delivery.
fn settle(
    on: &Transaction<'_>,
    webhook_id: &str,
    seq: i64,
    attempt: &Attempt,
    success: bool,
    next_at: Option<Wall>,
) -> rusqlite::Result<()> {
    let state = match (success, next_at) {
        (true, _) => "done",
        (false, Some(_)) => "pending",
        (false, None) => "gave_up",
    };
    // What was given up meanwhile stays so, except that it did arrive.
    on.execute(
        "UPDATE deliveries SET
             attempt = attempt + 1, next_at = ?3,
             state = CASE WHEN state = 'pending' OR ?4 = 'done' THEN ?4 ELSE state END
         WHERE event_seq = ?1 AND webhook_id = ?2",
        params![seq, webhook_id, next_at.unwrap_or_default().0, state],
    )?;
    on.execute(
        "INSERT INTO delivery_log
             (webhook_id, event_seq, at, success, status_code, response_body, error, attempt, response_ms)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7,
                coalesce((SELECT attempt FROM deliveries WHERE event_seq = ?2 AND webhook_id = ?1), 1), ?8",
        params![
            webhook_id,
            seq,
            attempt.at.0,
            success,
            attempt.status_code,
            cut(&attempt.response_body),
            attempt.error.as_deref().map(cut),
            i64::try_from(attempt.response_time.as_millis()).unwrap_or(i64::MAX),
        ],
    )
    .map(|_| ())
}

/// Sends an event once more.
fn again(on: &Transaction<'_>, seq: i64, webhook: &str, now: Wall) -> rusqlite::Result<bool> {
    let found = on.execute(
        "UPDATE deliveries SET state = 'pending', attempt = 0, next_at = 0
         WHERE event_seq = ?1 AND webhook_id = ?2",
        params![seq, webhook],
    )?;
    spool::make_room(on, webhook, now)?;
    Ok(found > 0)
}

/// The beginning of a text, whole characters only.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(ANSWER)).unwrap_or(text)
}
