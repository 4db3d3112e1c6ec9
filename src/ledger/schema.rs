//! The layout of the database and how a record becomes a row and comes back.

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use crate::call::leg::{Direction, Why};
use crate::call::record::{Quality, Record};
use crate::clock::Wall;

/// Each entry takes the database one version further (`PRAGMA user_version`). Entries are never changed, only
/// added: there are databases out there that have run them.
///
/// Stamps (`…_at`) are milliseconds since the Unix epoch, `…_ms` are milliseconds, `talk_seconds` seconds.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE calls (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        wacid TEXT NOT NULL,
        number TEXT NOT NULL,
        direction TEXT NOT NULL,
        \"from\" TEXT NOT NULL,
        profile_name TEXT,
        user_id TEXT,
        \"to\" TEXT NOT NULL,
        destination TEXT NOT NULL,
        offered_at INTEGER NOT NULL,
        answered_at INTEGER,
        ended_at INTEGER NOT NULL,
        talk_seconds REAL NOT NULL,
        why TEXT NOT NULL,
        detail TEXT NOT NULL,
        sip_code INTEGER,
        meta_code INTEGER,
        whatsapp_received INTEGER NOT NULL,
        whatsapp_sent INTEGER NOT NULL,
        whatsapp_lost INTEGER NOT NULL,
        whatsapp_discarded INTEGER NOT NULL,
        whatsapp_concealed INTEGER NOT NULL,
        whatsapp_repaired INTEGER NOT NULL,
        whatsapp_jitter_ms REAL NOT NULL,
        whatsapp_mos REAL NOT NULL,
        far_received INTEGER NOT NULL,
        far_sent INTEGER NOT NULL,
        far_lost INTEGER NOT NULL,
        far_discarded INTEGER NOT NULL,
        far_concealed INTEGER NOT NULL,
        far_repaired INTEGER NOT NULL,
        far_jitter_ms REAL NOT NULL,
        far_mos REAL NOT NULL
    ) STRICT;
"];

/// The version this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// The columns in the order of [`values`] and [`record`].
const COLUMNS: [&str; 33] = [
    "id",
    "wacid",
    "number",
    "direction",
    "\"from\"",
    "profile_name",
    "user_id",
    "\"to\"",
    "destination",
    "offered_at",
    "answered_at",
    "ended_at",
    "talk_seconds",
    "why",
    "detail",
    "sip_code",
    "meta_code",
    "whatsapp_received",
    "whatsapp_sent",
    "whatsapp_lost",
    "whatsapp_discarded",
    "whatsapp_concealed",
    "whatsapp_repaired",
    "whatsapp_jitter_ms",
    "whatsapp_mos",
    "far_received",
    "far_sent",
    "far_lost",
    "far_discarded",
    "far_concealed",
    "far_repaired",
    "far_jitter_ms",
    "far_mos",
];

/// The version of a database; 0 if it is new.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a database to [`VERSION`], each step whole or not at all.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let from = usize::try_from(version(connection)?).unwrap_or(0);
    for (done, step) in MIGRATIONS.iter().enumerate().skip(from) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", (done + 1) as i64)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Writes one row; a second one with the same id changes nothing.
pub(super) fn insert() -> String {
    let marks = vec!["?"; COLUMNS.len()].join(", ");
    format!("INSERT INTO calls ({}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING", COLUMNS.join(", "))
}

/// Reads rows, the latest first. Parameters: direction, answered, why, before, limit.
pub(super) fn select() -> String {
    format!(
        "SELECT {} FROM calls
         WHERE (?1 IS NULL OR direction = ?1)
           AND (?2 IS NULL OR (answered_at IS NOT NULL) = ?2)
           AND (?3 IS NULL OR why = ?3)
           AND (?4 IS NULL OR seq < (SELECT seq FROM calls WHERE id = ?4))
         ORDER BY seq DESC LIMIT ?5",
        COLUMNS.join(", ")
    )
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn text_or_null(value: Option<&String>) -> Value {
    value.map_or(Value::Null, |value| text(value))
}

fn count(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// SQLite keeps NaN as NULL, which would cost the whole record: what isn't a number becomes zero.
fn real(value: f64) -> Value {
    Value::Real(if value.is_finite() { value } else { 0.0 })
}

/// A record as a row.
pub(super) fn values(record: &Record) -> Vec<Value> {
    let mut row = vec![
        text(&record.id),
        text(&record.wacid),
        text(&record.number),
        text(record.direction.as_str()),
        text(&record.from),
        text_or_null(record.profile_name.as_ref()),
        text_or_null(record.user_id.as_ref()),
        text(&record.to),
        text(&record.destination),
        Value::Integer(record.offered_at.0),
        record.answered_at.map_or(Value::Null, |at| Value::Integer(at.0)),
        Value::Integer(record.ended_at.0),
        real(record.talk_seconds),
        text(record.why.as_str()),
        text(&record.detail),
        record.sip_code.map_or(Value::Null, |code| Value::Integer(i64::from(code))),
        record.meta_code.map_or(Value::Null, Value::Integer),
    ];
    for quality in [&record.whatsapp, &record.far] {
        row.extend([
            count(quality.received),
            count(quality.sent),
            count(quality.lost),
            count(quality.discarded),
            count(quality.concealed),
            count(quality.repaired),
            real(quality.jitter_ms),
            real(quality.mos),
        ]);
    }
    row
}

/// A row as a record. `Err` holds a word that this version doesn't know.
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Result<Record, String>> {
    let direction: String = row.get(3)?;
    let why: String = row.get(13)?;
    let Some(known_direction) =
        [Direction::Inbound, Direction::Outbound].into_iter().find(|d| d.as_str() == direction)
    else {
        return Ok(Err(direction));
    };
    let Some(known_why) = Why::ALL.into_iter().find(|w| w.as_str() == why) else { return Ok(Err(why)) };
    Ok(Ok(Record {
        id: row.get(0)?,
        wacid: row.get(1)?,
        number: row.get(2)?,
        direction: known_direction,
        from: row.get(4)?,
        profile_name: row.get(5)?,
        user_id: row.get(6)?,
        to: row.get(7)?,
        destination: row.get(8)?,
        offered_at: Wall(row.get(9)?),
        answered_at: row.get::<_, Option<i64>>(10)?.map(Wall),
        ended_at: Wall(row.get(11)?),
        talk_seconds: row.get(12)?,
        why: known_why,
        detail: row.get(14)?,
        sip_code: row.get(15)?,
        meta_code: row.get(16)?,
        whatsapp: quality(row, 17)?,
        far: quality(row, 25)?,
    }))
}

fn quality(row: &Row<'_>, first: usize) -> rusqlite::Result<Quality> {
    let count = |offset: usize| row.get::<_, i64>(first + offset).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(Quality {
        received: count(0)?,
        sent: count(1)?,
        lost: count(2)?,
        discarded: count(3)?,
        concealed: count(4)?,
        repaired: count(5)?,
        jitter_ms: row.get(first + 6)?,
        mos: row.get(first + 7)?,
    })
}
