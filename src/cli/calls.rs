//! `watrunk calls`: calls as a table for people or as JSON for programs, from the gateway or from the history file.

use std::io::Write;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::call::record::{AgentPart, ApiStatus, Line, Quality, Record, TrunkPart, status_of};
use crate::clock::Wall;
use crate::config::Config;
use crate::ledger::{Filter, Ledger, LedgerError, MAX_LIST};

use super::api::{self, Api, No};
use super::args::{CallsArgs, Status};
use super::table::{table, talk};
use super::{Failed, fail, read, say};

/// Most calls that the API puts on a page.
const PAGE: usize = 200;

/// `watrunk calls`
pub(super) fn list(args: &CallsArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    let elsewhere = args.api.base().is_some() && !args.offline;
    let in_file_only = matches!(args.status, Some(Status::Unanswered | Status::Ended(_)));
    if in_file_only && elsewhere {
        return Err(fail(
            "the API doesn't know this --status: only the history file does, on the gateway's machine",
            err,
        ));
    }
    if !args.offline && !in_file_only {
        let why = match Api::of(&args.api, err)? {
            Err(why) => why,
            Ok(api) => match of_gateway(&api, args) {
                Ok(text) => return say(&text, out, err),
                Err(No::Absent(why)) => why,
                Err(no) => return Err(no.tell(args.api.json, out, err)),
            },
        };
        if elsewhere {
            return Err(fail(&why, err));
        }
        let _ = writeln!(err, "watrunk: {why}; this is from the history file");
    }
    of_file(args, out, err)
}

/// What the gateway says, page by page.
fn of_gateway(api: &Api, args: &CallsArgs) -> Result<String, No> {
    let number = match args.number.as_deref() {
        Some(phone) if phone.starts_with('+') => Some(phone.to_owned()),
        Some(id) => Some(api::number(api, Some(id))?.phone),
        None => None,
    };
    let status = match args.status {
        Some(Status::Api(status)) => Some(status.as_str()),
        Some(Status::Unanswered | Status::Ended(_)) | None => None,
    };
    let text = |at: Wall| stamp(at).as_str().unwrap_or_default().to_owned();
    let (since, until) = (args.since.map(text), args.until.map(text));
    let given = [
        ("direction", args.direction.map(|direction| direction.as_str())),
        ("status", status),
        ("number", number.as_deref()),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
    ];
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut calls: Vec<Value> = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let limit = most.saturating_sub(calls.len()).min(PAGE).to_string();
        let mut query: Vec<(&str, &str)> =
            given.iter().filter_map(|(name, text)| Some((*name, (*text)?))).collect();
        query.push(("limit", &limit));
        if let Some(before) = &before {
            query.push(("before", before));
        }
        let said = api.get("/v1/calls", &query)?;
        let page = said.value["calls"].as_array().cloned().unwrap_or_default();
        let next = said.value["nextCursor"].as_str().map(str::to_owned);
        let last = page.is_empty() || next.is_none() || calls.len() + page.len() >= most;
        if last && calls.is_empty() && args.api.json {
            return Ok(format!("{}\n", said.text.trim_end()));
        }
        calls.extend(page);
        if last {
            let whole = json!({ "calls": calls, "nextCursor": next });
            return Ok(if args.api.json { format!("{whole:#}\n") } else { rows(&calls) });
        }
        before = next;
    }
}

/// The API's rows for people.
fn rows(calls: &[Value]) -> String {
    const HEAD: [&str; 9] =
        ["TIME (UTC)", "ID", "DIRECTION", "FROM", "TO", "DESTINATION", "STATUS", "TALK", "COST (USD)"];
    let row = |call: &Value| {
        let text = |key: &str| call[key].as_str().unwrap_or("").to_owned();
        let time = text("startedAt").chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect();
        let mut status = text("status");
        if let Some(why) = call["endReason"].as_str().filter(|why| *why != "hangup") {
            status.push_str(&format!(" ({why})"));
        }
        if call["endedAt"].is_null() {
            status.push_str(match call["recording"]["state"].as_str() {
                Some("asking") => ", asked to record",
                Some("running") => ", recorded",
                Some("paused") => ", recording paused",
                Some(_) | None => "",
            });
        }
        let talked = call["durationSeconds"].as_f64().filter(|_| !call["answeredAt"].is_null());
        let cost = call["billing"]["totalCostUSD"].as_f64();
        [
            time,
            text("_id"),
            text("direction"),
            text("from"),
            text("to"),
            text("forwardTo"),
            status,
            talked.map(talk).unwrap_or_default(),
            cost.map(|cost| format!("{cost:.4}")).unwrap_or_default(),
        ]
    };
    table(HEAD, &calls.iter().map(row).collect::<Vec<_>>(), "no calls")
}

/// What the history file says of finished calls.
fn of_file(args: &CallsArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    // The history needs no secrets, and the operator who asks may not be allowed to read them.
    let path = &args.api.config;
    let (config, _) = read(Config::read_without_secrets(path), path, err)?;
    let records = match Ledger::open_read_only(&config.gateway.state_dir) {
        Ok(ledger) => finished(&ledger, args).map_err(|error| fail(&error.to_string(), err))?,
        Err(LedgerError::Missing(_)) => Vec::new(),
        Err(error) => return Err(fail(&error.to_string(), err)),
    };
    let text = if args.api.json { object(&records) } else { records_table(&records) };
    say(&text, out, err)
}

fn finished(ledger: &Ledger, args: &CallsArgs) -> Result<Vec<Record>, LedgerError> {
    let (answered, why) = match args.status {
        Some(Status::Api(ApiStatus::Answered)) => (Some(true), None),
        Some(Status::Unanswered) => (Some(false), None),
        Some(Status::Ended(why)) => (None, Some(why)),
        Some(Status::Api(_)) | None => (None, None),
    };
    let fits = |record: &Record| {
        let status = match args.status {
            Some(Status::Api(wanted @ (ApiStatus::Ended | ApiStatus::Failed))) => {
                status_of(record.why, record.answered()) == wanted
            }
            Some(Status::Api(ApiStatus::Ringing)) => false,
            Some(Status::Api(ApiStatus::Answered) | Status::Unanswered | Status::Ended(_)) | None => true,
        };
        let is = |number: &String| [&record.number, &record.from, &record.to].contains(&number);
        status
            && args.number.as_ref().is_none_or(is)
            && args.since.is_none_or(|since| record.offered_at >= since)
            && args.until.is_none_or(|until| record.offered_at <= until)
    };
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut records: Vec<Record> = Vec::new();
    // A page is as long as the answer, unless some of it is left out here.
    let all_fit =
        !matches!(args.status, Some(Status::Api(ApiStatus::Ended | ApiStatus::Failed | ApiStatus::Ringing)))
            && args.number.is_none()
            && args.since.is_none()
            && args.until.is_none();
    let limit = if all_fit { most } else { MAX_LIST };
    let mut filter = Filter { direction: args.direction, answered, why, limit, before: None };
    loop {
        let page = ledger.list(&filter)?;
        let last = page.last().map(|record| record.id.clone()).filter(|_| page.len() == filter.limit);
        records.extend(page.into_iter().filter(fits));
        records.truncate(most);
        if last.is_none() || records.len() >= most {
            return Ok(records);
        }
        filter.before = last;
    }
}

/// One line per record under a line of headings.
pub(super) fn records_table(records: &[Record]) -> String {
    const HEAD: [&str; 8] =
        ["TIME (UTC)", "DIRECTION", "FROM", "TO", "DESTINATION", "ANSWERED", "TALK", "WHY"];
    table(HEAD, &records.iter().map(row).collect::<Vec<_>>(), "no calls")
}

fn row(record: &Record) -> [String; 8] {
    let mut why = record.why.as_str().to_owned();
    if let Some(code) = record.sip_code.filter(|_| !record.answered()) {
        why.push_str(&format!(" (SIP {code})"));
    }
    if let Some(code) = record.meta_code {
        why.push_str(&format!(" (Meta {code})"));
    }
    [
        seconds(record.offered_at),
        record.direction.as_str().to_owned(),
        record.from.clone(),
        record.to.clone(),
        record.destination.clone(),
        if record.answered() { "yes" } else { "no" }.to_owned(),
        if record.answered() { talk(record.talk_seconds) } else { "-".to_owned() },
        why,
    ]
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
        "transferred_at": record.transferred_at.map(stamp),
        "ended_at": stamp(record.ended_at),
        "talk_seconds": record.talk_seconds,
        "why": record.why.as_str(),
        "detail": record.detail,
        "sip_code": record.sip_code,
        "meta_code": record.meta_code,
        "whatsapp": quality(&record.whatsapp),
        "far": quality(&record.far),
        "trunk": record.trunk.as_deref().map(trunk),
        "agent": record.agent.as_deref().map(agent),
    })
}

fn trunk(part: &TrunkPart) -> Value {
    json!({
        "name": part.name,
        "codec": part.codec,
        "encrypted": part.encrypted,
        "cause": part.cause,
        "early_media": part.early_media,
        "diverted_from": part.diverted_from,
    })
}

fn agent(part: &AgentPart) -> Value {
    let line = |line: &Line| json!({ "at_ms": line.at_ms, "who": line.who.as_str(), "text": line.text });
    json!({
        "name": part.name,
        "dialect": part.dialect,
        "attempts": part.attempts,
        "first_audio_ms": part.first_audio_ms,
        "barge_ins": part.barge_ins,
        "unread": part.unread,
        "unreadable": part.unreadable,
        "failure": part.failure,
        "transcript": part.transcript.iter().map(line).collect::<Vec<_>>(),
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
