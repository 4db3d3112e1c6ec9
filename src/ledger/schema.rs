//! The layout of the database and how a call becomes a row and comes back.

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use super::cost::Billing;
use super::{agent, tape, trunk};
use crate::call::leg::{Direction, Why};
use crate::call::record::{ApiStatus, MAX_ERRORS, PlacedBy, Quality, Record, Running};
use crate::clock::Wall;

/// Each entry takes the database one version further (`PRAGMA user_version`). Entries are never changed, only
/// added: there are databases out there that have run them.
///
/// Stamps (`…_at`) are milliseconds since the Unix epoch, `…_ms` are milliseconds, `…_seconds` seconds, `…_nano`
/// billionths of a US dollar.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
];

/// The version this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// A column of a finished call: its name, the version that brought it, and what it is taken for in older files.
type Column = (&'static str, i64, &'static str);

/// The columns in the order of [`values`] and [`record`].
const COLUMNS: [Column; 45] = [
    ("id", 1, ""),
    ("wacid", 1, ""),
    ("number", 1, ""),
    ("direction", 1, ""),
    ("\"from\"", 1, ""),
    ("profile_name", 1, ""),
    ("user_id", 1, ""),
    ("\"to\"", 1, ""),
    ("destination", 1, ""),
    ("offered_at", 1, ""),
    ("answered_at", 1, ""),
    ("ended_at", 1, ""),
    ("talk_seconds", 1, ""),
    ("why", 1, ""),
    ("detail", 1, ""),
    ("sip_code", 1, ""),
    ("meta_code", 1, ""),
    ("whatsapp_received", 1, ""),
    ("whatsapp_sent", 1, ""),
    ("whatsapp_lost", 1, ""),
    ("whatsapp_discarded", 1, ""),
    ("whatsapp_concealed", 1, ""),
    ("whatsapp_repaired", 1, ""),
    ("whatsapp_jitter_ms", 1, ""),
    ("whatsapp_mos", 1, ""),
    ("far_received", 1, ""),
    ("far_sent", 1, ""),
    ("far_lost", 1, ""),
    ("far_discarded", 1, ""),
    ("far_concealed", 1, ""),
    ("far_repaired", 1, ""),
    ("far_jitter_ms", 1, ""),
    ("far_mos", 1, ""),
    ("account", 2, "''"),
    ("phone_number_id", 2, "''"),
    ("placed_by", 2, "iif(direction = 'inbound', 'user', 'pbx')"),
    ("connected_at", 2, "answered_at"),
    ("transferred_at", 2, "NULL"),
    ("recording", 2, "0"),
    ("billed_seconds", 2, "talk_seconds"),
    ("errors", 2, "'[]'"),
    ("agent", 3, "NULL"),
    ("agent_said", 3, "NULL"),
    ("trunk", 4, "NULL"),
    ("tape", 5, "NULL"),
];

/// The columns that a list leaves out: they are long.
const LONG: [&str; 1] = ["agent_said"];

/// Where [`ROW`] begins in a row.
const AFTER: usize = COLUMNS.len();

/// What else a row says, in the order of [`row`], after [`COLUMNS`].
const ROW: [&str; 9] = [
    "status",
    "listed_at",
    "ringing",
    "meta_pulses",
    "carrier_seconds",
    "recording_seconds",
    "meta_nano",
    "carrier_nano",
    "recording_nano",
];

/// The columns of a running call, in the order of [`running_values`].
const RUNNING: [&str; 18] = [
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
    "account",
    "phone_number_id",
    "placed_by",
    "transferred_at",
    "recording",
    "ringing",
    "status",
];

/// What is taken from other columns, in the order of [`derived`]: for the indexes, never read.
const DERIVED: [&str; 2] = ["business", "digits"];

/// One call of the history, running or closed.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRow {
    /// How far it has come.
    pub status: ApiStatus,
    /// When it was offered, moved by milliseconds where two calls would share one: no two rows have the same, so
    /// this is what a page's cursor is made of.
    pub started_at: Wall,
    /// What is known of a running call; of a closed one, its last state.
    pub call: Running,
    /// What remains of a closed call; `None` while it runs.
    pub end: Option<Box<Record>>,
    /// What it cost; `None` while it runs and for records of old versions.
    pub billing: Option<Billing>,
}

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

/// Closes a row or writes a closed one; a row that is closed already stays as it is. Parameters: those of
/// [`closing`].
pub(super) fn close() -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|column| column.0).chain(ROW).chain(DERIVED).collect();
    // Where a row is there already, it keeps its place in the list, and what only a running call has.
    let kept = ["id", "listed_at", "ringing"];
    upsert(&names, &kept)
}

/// Writes the row of a running call; a closed row stays as it is. Parameters: those of [`running_values`], then
/// `listed_at`.
pub(super) fn note() -> String {
    let names: Vec<&str> = RUNNING.into_iter().chain(DERIVED).chain(["listed_at"]).collect();
    upsert(&names, &["id", "listed_at"])
}

fn upsert(names: &[&str], kept: &[&str]) -> String {
    let marks = vec!["?"; names.len()].join(", ");
    let set: Vec<String> = names
        .iter()
        .filter(|name| !kept.contains(name))
        .map(|name| match *name {
            // What was agreed is noted while the call runs: a record that knows nothing of it does not take it away.
            "tape" => "tape = coalesce(excluded.tape, calls.tape)".to_owned(),
            name => format!("{name} = excluded.{name}"),
        })
        .collect();
    format!(
        "INSERT INTO calls ({}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {} WHERE calls.ended_at IS NULL",
        names.join(", "),
        set.join(", ")
    )
}

/// Reads finished calls from a file of `version`, the latest first. Parameters: direction, answered, why, before,
/// limit.
pub(super) fn select(version: i64) -> String {
    let columns: Vec<&str> = COLUMNS
        .iter()
        .map(|(name, since, older)| if *since <= version { name } else { older })
        .copied()
        .collect();
    format!(
        "SELECT {} FROM calls
         WHERE ended_at IS NOT NULL
           AND (?1 IS NULL OR direction = ?1)
           AND (?2 IS NULL OR (answered_at IS NOT NULL) = ?2)
           AND (?3 IS NULL OR why = ?3)
           AND (?4 IS NULL OR seq < (SELECT seq FROM calls WHERE id = ?4))
         ORDER BY seq DESC LIMIT ?5",
        columns.join(", ")
    )
}

/// What [`row`] reads.
pub(super) fn row_columns() -> String {
    COLUMNS.iter().map(|column| column.0).chain(ROW).collect::<Vec<_>>().join(", ")
}

/// The same without what is long.
pub(super) fn list_columns() -> String {
    let short = |name: &'static str| if LONG.contains(&name) { "NULL" } else { name };
    COLUMNS.iter().map(|column| short(column.0)).chain(ROW).collect::<Vec<_>>().join(", ")
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn text_or_null(value: Option<&String>) -> Value {
    value.map_or(Value::Null, |value| text(value))
}

fn stamp_or_null(value: Option<Wall>) -> Value {
    value.map_or(Value::Null, |at| Value::Integer(at.0))
}

fn count(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// SQLite keeps NaN as NULL, which would cost the whole record: what isn't a number becomes zero.
fn real(value: f64) -> Value {
    Value::Real(if value.is_finite() { value } else { 0.0 })
}

/// A record as a row.
fn values(record: &Record) -> Vec<Value> {
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
        stamp_or_null(record.answered_at),
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
    let errors: Vec<&(i64, String)> = record.errors.iter().take(MAX_ERRORS).collect();
    row.extend([
        text(&record.account),
        text(&record.phone_number_id),
        text(record.placed_by.as_str()),
        stamp_or_null(record.connected_at),
        stamp_or_null(record.transferred_at),
        Value::Integer(i64::from(record.recording)),
        real(record.billed_seconds),
        text(&serde_json::to_string(&errors).unwrap_or_else(|_| "[]".to_owned())),
    ]);
    row.extend(agent::values(record.agent.as_deref()));
    row.push(trunk::value(record.trunk.as_deref()));
    row.push(tape::value(record.tape.as_deref()));
    row
}

/// A record as a closed row, for [`close`].
pub(super) fn closing(record: &Record, billing: Option<&Billing>, listed_at: i64) -> Vec<Value> {
    let status = crate::call::record::status_of(record.why, record.answered());
    let mut row = values(record);
    row.extend([text(status.as_str()), Value::Integer(listed_at), Value::Integer(0)]);
    match billing {
        Some(billing) => row.extend([
            count(billing.meta_pulses),
            count(billing.carrier_seconds),
            count(billing.recording_seconds),
            Value::Integer(super::cost::nano(billing.meta_cost)),
            Value::Integer(super::cost::nano(billing.carrier_cost)),
            Value::Integer(super::cost::nano(billing.recording_cost)),
        ]),
        None => row.extend(vec![Value::Null; 6]),
    }
    row.extend(derived(record.direction, &record.from, &record.to));
    row
}

/// The business number, and the digits of caller and callee.
fn derived(direction: Direction, from: &str, to: &str) -> [Value; 2] {
    let business = match direction {
        Direction::Inbound => to,
        Direction::Outbound => from,
    };
    let digits = |user: &str| user.chars().filter(char::is_ascii_digit).collect::<String>();
    [text(business), Value::Text(format!("{} {}", digits(from), digits(to)))]
}

/// A running call as a row, for [`note`].
pub(super) fn running_values(running: &Running) -> Vec<Value> {
    let mut row = vec![
        text(&running.id),
        text(&running.wacid),
        text(&running.number),
        text(running.direction.as_str()),
        text(&running.from),
        text_or_null(running.profile_name.as_ref()),
        text_or_null(running.user_id.as_ref()),
        text(&running.to),
        text(&running.destination),
        Value::Integer(running.offered_at.0),
        stamp_or_null(running.answered_at),
        text(&running.account),
        text(&running.phone_number_id),
        text(running.placed_by.as_str()),
        stamp_or_null(running.transferred_at),
        Value::Integer(i64::from(running.recording)),
        Value::Integer(i64::from(running.ringing)),
        text(running.status().as_str()),
    ];
    row.extend(derived(running.direction, &running.from, &running.to));
    row
}

/// A word of the file that this version doesn't know.
pub(super) type Unknown = String;

/// A word as one of our values.
fn word<T: Copy>(row: &Row<'_>, column: usize, all: &[T], name: fn(T) -> &'static str) -> Parsed<T> {
    let found: String = row.get(column)?;
    Ok(all.iter().copied().find(|value| name(*value) == found).ok_or(found))
}

type Parsed<T> = rusqlite::Result<Result<T, Unknown>>;

fn stamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Wall>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Wall))
}

/// Takes the value, or leaves with the unknown word.
macro_rules! known {
    ($parsed:expr) => {
        match $parsed? {
            Ok(value) => value,
            Err(unknown) => return Ok(Err(unknown)),
        }
    };
}

/// A row as a record.
pub(super) fn record(row: &Row<'_>) -> Parsed<Record> {
    let direction = known!(word(row, 3, &[Direction::Inbound, Direction::Outbound], Direction::as_str));
    let why = known!(word(row, 13, &Why::ALL, Why::as_str));
    let placed_by = known!(word(row, 35, &PlacedBy::ALL, PlacedBy::as_str));
    let errors: String = row.get(40)?;
    Ok(Ok(Record {
        id: row.get(0)?,
        wacid: row.get(1)?,
        number: row.get(2)?,
        account: row.get(33)?,
        phone_number_id: row.get(34)?,
        direction,
        from: row.get(4)?,
        profile_name: row.get(5)?,
        user_id: row.get(6)?,
        to: row.get(7)?,
        destination: row.get(8)?,
        offered_at: Wall(row.get(9)?),
        answered_at: stamp(row, 10)?,
        connected_at: stamp(row, 36)?,
        transferred_at: stamp(row, 37)?,
        ended_at: Wall(row.get(11)?),
        talk_seconds: row.get(12)?,
        billed_seconds: row.get(39)?,
        recording: row.get(38)?,
        placed_by,
        why,
        detail: row.get(14)?,
        sip_code: row.get(15)?,
        meta_code: row.get(16)?,
        errors: serde_json::from_str(&errors).unwrap_or_default(),
        whatsapp: quality(row, 17)?,
        far: quality(row, 25)?,
        agent: agent::part(row.get(41)?, row.get(42)?),
        trunk: trunk::part(row.get(43)?),
        tape: tape::part(row.get(44)?),
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

/// A row of [`row_columns`].
pub(super) fn row(row: &Row<'_>) -> Parsed<CallRow> {
    let status = known!(word(row, AFTER, &ApiStatus::ALL, ApiStatus::as_str));
    let call = Running {
        id: row.get(0)?,
        wacid: row.get(1)?,
        number: row.get(2)?,
        account: row.get(33)?,
        phone_number_id: row.get(34)?,
        direction: known!(word(row, 3, &[Direction::Inbound, Direction::Outbound], Direction::as_str)),
        from: row.get(4)?,
        profile_name: row.get(5)?,
        user_id: row.get(6)?,
        to: row.get(7)?,
        destination: row.get(8)?,
        offered_at: Wall(row.get(9)?),
        ringing: row.get(AFTER + 2)?,
        answered_at: stamp(row, 10)?,
        transferred_at: stamp(row, 37)?,
        recording: row.get(38)?,
        placed_by: known!(word(row, 35, &PlacedBy::ALL, PlacedBy::as_str)),
    };
    let end = match stamp(row, 11)? {
        Some(_) => Some(Box::new(known!(record(row)))),
        None => None,
    };
    let count = |column: usize| row.get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0));
    let billing = match row.get::<_, Option<i64>>(AFTER + 3)? {
        Some(pulses) => Some(Billing::of(
            u64::try_from(pulses).unwrap_or(0),
            count(AFTER + 4)?,
            count(AFTER + 5)?,
            [row.get(AFTER + 6)?, row.get(AFTER + 7)?, row.get(AFTER + 8)?].map(super::cost::dollars),
        )),
        None => None,
    };
    Ok(Ok(CallRow { status, started_at: Wall(row.get(AFTER + 1)?), call, end, billing }))
}
