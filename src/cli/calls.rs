//! `watrunk calls`: finished calls as a table for people or as JSON for programs.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::call::record::{Quality, Record};
use crate::clock::Wall;

const HEAD: [&str; 8] = ["TIME (UTC)", "DIRECTION", "FROM", "TO", "DESTINATION", "ANSWERED", "TALK", "WHY"];

/// Widest a column gets, in characters: a table of longer ones can't be read.
const WIDEST: usize = 48;

/// One line per call under a line of headings.
pub(super) fn table(records: &[Record]) -> String {
    if records.is_empty() {
        return "no calls\n".to_owned();
    }
    let rows: Vec<[String; 8]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(records.iter().map(row)).collect();
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(record: &Record) -> [String; 8] {
    let mut why = record.why.as_str().to_owned();
    if let Some(code) = record.sip_code.filter(|_| !record.answered()) {
        why.push_str(&format!(" (SIP {code})"));
    }
    if let Some(code) = record.meta_code {
        why.push_str(&format!(" (Meta {code})"));
    }
    let cells = [
        seconds(record.offered_at),
        record.direction.as_str().to_owned(),
        record.from.clone(),
        record.to.clone(),
        record.destination.clone(),
        if record.answered() { "yes" } else { "no" }.to_owned(),
        if record.answered() { talk(record.talk_seconds) } else { "-".to_owned() },
        why,
    ];
    cells.map(|cell| plain(&cell))
}

/// Much of a record was said by strangers: it must neither break the table nor steer the terminal.
fn plain(text: &str) -> String {
    let mut cell: String = text.chars().take(WIDEST).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(WIDEST).is_some() {
        cell.pop();
        cell.push('…');
    }
    if cell.is_empty() { "-".to_owned() } else { cell }
}

/// `0:07`, `12:30`, `1:02:03`; whole seconds, rounded.
fn talk(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn moment(at: Wall) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000).ok()
}

fn seconds(at: Wall) -> String {
    moment(at)
        .and_then(|t| t.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]")).ok())
        .unwrap_or_else(|| at.0.to_string())
}

/// RFC 3339 in UTC with milliseconds.
fn stamp(at: Wall) -> Value {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    moment(at).and_then(|t| t.format(format).ok()).map_or(Value::Null, Value::String)
}

/// One object with the list `calls`, with the names of the record's fields. Ends with a line break.
pub(super) fn object(records: &[Record]) -> String {
    let calls: Vec<Value> = records.iter().map(call).collect();
    format!("{:#}\n", json!({ "calls": calls }))
}

pub(super) fn call(record: &Record) -> Value {
    json!({
        "id": record.id,
        "wacid": record.wacid,
        "number": record.number,
        "direction": record.direction.as_str(),
        "from": record.from,
        "profile_name": record.profile_name,
        "user_id": record.user_id,
        "to": record.to,
        "destination": record.destination,
        "offered_at": stamp(record.offered_at),
        "answered": record.answered(),
        "answered_at": record.answered_at.map(stamp),
        "ended_at": stamp(record.ended_at),
        "talk_seconds": record.talk_seconds,
        "why": record.why.as_str(),
        "detail": record.detail,
        "sip_code": record.sip_code,
        "meta_code": record.meta_code,
        "whatsapp": quality(&record.whatsapp),
        "far": quality(&record.far),
    })
}

fn quality(quality: &Quality) -> Value {
    json!({
        "received": quality.received,
        "sent": quality.sent,
        "lost": quality.lost,
        "discarded": quality.discarded,
        "concealed": quality.concealed,
        "repaired": quality.repaired,
        "jitter_ms": quality.jitter_ms,
        "mos": quality.mos,
    })
}
