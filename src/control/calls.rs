//! The history: lists, and one call.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Backend;
use super::ask::Query;
use super::events::{hangup_cause, seconds};
use super::fault::Fault;
use super::links::Signer;
use super::recordings::{self, with_tape};
use super::refusal::forgotten;
use super::serve::{Ask, Outcome, Reply};
use super::stamp::{iso, maybe, money};
use crate::call::leg::Direction;
use crate::call::record::{AgentPart, ApiStatus, Quality, Record, TrunkPart, end_reason};
use crate::clock::Wall;
use crate::gateway::desk::{Answer, Command};
use crate::ledger::{Billing, CallQuery, CallRow, Channel, Ledger, LedgerError, TapeRow};

/// Calls on a page, unless more or fewer are asked for; and at most.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 200;
/// Longest search, in characters.
const MAX_SEARCH: usize = 32;

const STATUS: &[(&str, ApiStatus)] = &[
    ("ringing", ApiStatus::Ringing),
    ("answered", ApiStatus::Answered),
    ("ended", ApiStatus::Ended),
    ("failed", ApiStatus::Failed),
];
const DIRECTION: &[(&str, Direction)] = &[("inbound", Direction::Inbound), ("outbound", Direction::Outbound)];
/// What carries the user's end of a call.
pub const CHANNEL: &[(&str, Channel)] = &[("whatsapp", Channel::WhatsApp), ("pstn", Channel::Pstn)];

/// `GET /v1/whatsapp/calls`
pub async fn list_of_account<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let account = ask.query.required("accountId")?.to_owned();
    let known = ask.config.numbers.iter().any(|number| number.account_id == account);
    let query = CallQuery { account: Some(account), ..common(&ask.query)? };
    let (rows, next) = backend.read(move |ledger| page(ledger, &query)).await.map_err(|e| forgotten(&e))?;
    // A number that was taken out of the file has a history still.
    if rows.is_empty() && !known {
        return Err(Fault::not_found("no number is configured for this account").at("accountId"));
    }
    let signer = Signer::of(backend, ask);
    let calls: Vec<Value> = rows
        .iter()
        .map(|(row, tape)| {
            let mut call = facts(row);
            call.extend(recordings::facts(tape.as_ref(), &signer));
            Value::Object(call)
        })
        .collect();
    Ok(Reply::ok(json!({ "calls": calls, "nextCursor": maybe(next) })))
}

/// `GET /v1/calls`
pub async fn list<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let channel = ask.query.word("channel", CHANNEL)?;
    let search = ask.query.get("search").map(str::to_owned);
    if search.as_ref().is_some_and(|text| text.chars().count() > MAX_SEARCH) {
        return Err(Fault::invalid("search", format!("must have at most {MAX_SEARCH} characters")));
    }
    let query = CallQuery { number_phone: number(&ask.query), search_digits: search, ..common(&ask.query)? };
    let (rows, next) = match channel {
        Some(Channel::Pstn) => (Vec::new(), None),
        Some(Channel::WhatsApp) | None => {
            backend.read(move |ledger| page(ledger, &query)).await.map_err(|e| forgotten(&e))?
        }
    };
    let live = taping(backend, rows.iter().any(|(row, _)| may_tape(row))).await;
    let signer = Signer::of(backend, ask);
    let calls: Vec<Value> =
        rows.iter().map(|(row, tape)| Value::Object(record(row, tape.as_ref(), &live, &signer))).collect();
    Ok(Reply::ok(json!({ "calls": calls, "nextCursor": maybe(next) })))
}

/// Calls with their recordings.
type Page = (Vec<(CallRow, Option<TapeRow>)>, Option<Wall>);

fn page(ledger: &Ledger, query: &CallQuery) -> Result<Page, LedgerError> {
    let (rows, next) = ledger.calls(query)?;
    let rows = rows.into_iter().map(|row| with_tape(ledger, row)).collect::<Result<_, _>>()?;
    Ok((rows, next))
}

/// How the recordings of running calls go, by the calls' ids.
type Taping = BTreeMap<String, &'static str>;

/// Whether the hall may know how this call's recording goes.
fn may_tape(row: &CallRow) -> bool {
    row.end.is_none() && row.call.recording
}

/// What the hall knows, if it is to be asked.
async fn taping<B: Backend>(backend: &B, ask: bool) -> Taping {
    if !ask {
        return Taping::new();
    }
    match backend.command(Command::Calls).await {
        Ok(Answer::Calls(calls)) => {
            calls.into_iter().filter_map(|call| Some((call.id, call.recording?))).collect()
        }
        // It is shown as the history has it.
        Ok(_) | Err(_) => Taping::new(),
    }
}

/// The `number` of a query: a phone number with its plus sign, or a BSUID as it is.
pub fn number(query: &Query) -> Option<String> {
    let text = query.get("number")?.trim();
    let digits = text.trim_start_matches('+');
    let phone = digits.bytes().all(|byte| byte.is_ascii_digit());
    Some(if phone { format!("+{digits}") } else { text.to_owned() })
}

fn common(query: &Query) -> Result<CallQuery, Fault> {
    let limit = query.integer("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    Ok(CallQuery {
        status: query.word("status", STATUS)?,
        direction: query.word("direction", DIRECTION)?,
        since: query.moment("since")?,
        until: query.moment("until")?,
        before: query.moment("before")?,
        limit: usize::try_from(limit).unwrap_or(1),
        ..CallQuery::default()
    })
}

/// One call, by our id, or by Meta's while it runs.
///
/// # Errors
/// 404 if there is none.
pub async fn found<B: Backend>(backend: &B, id: String) -> Result<CallRow, Fault> {
    let what = format!("no call has the id \"{id}\"");
    let row = backend.read(move |ledger| match ledger.call(&id)? {
        Some(row) => Ok(Some(row)),
        None => ledger.running(&id),
    });
    row.await.map_err(|e| forgotten(&e))?.ok_or_else(|| Fault::not_found(what).at("id"))
}

async fn found_of_account<B: Backend>(backend: &B, ask: &Ask) -> Result<CallRow, Fault> {
    let account = ask.query.required("accountId")?;
    let row = found(backend, ask.param("id").to_owned()).await?;
    if row.call.account == account {
        return Ok(row);
    }
    Err(Fault::not_found("this account has no call with this id").at("accountId"))
}

/// `GET /v1/whatsapp/calls/{id}`
pub async fn get_of_account<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let row = found_of_account(backend, ask).await?;
    shown(backend, ask, row).await
}

/// `GET /v1/calls/{id}`
pub async fn get<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let row = found(backend, ask.param("id").to_owned()).await?;
    shown(backend, ask, row).await
}

async fn shown<B: Backend>(backend: &B, ask: &Ask, row: CallRow) -> Outcome {
    let (row, tape) = backend.read(move |ledger| with_tape(ledger, row)).await.map_err(|e| forgotten(&e))?;
    let live = taping(backend, may_tape(&row)).await;
    Ok(Reply::ok(json!({ "call": detail(&row, tape.as_ref(), &live, &Signer::of(backend, ask)) })))
}

/// A row of the account's list, but for its recording.
pub fn facts(row: &CallRow) -> Map<String, Value> {
    let end = row.end.as_deref();
    let facts = [
        ("_id", json!(row.call.id)),
        ("direction", json!(row.call.direction.as_str())),
        ("from", json!(row.call.from)),
        ("to", json!(row.call.to)),
        ("status", json!(row.status.as_str())),
        ("startedAt", json!(iso(row.started_at))),
        ("endedAt", maybe(end.map(|end| end.ended_at))),
        ("durationSeconds", json!(end.map(|end| seconds(end.talk_seconds)))),
        ("endReason", json!(end.map(|end| end_reason(end.why)))),
        ("billing", row.billing.as_ref().map_or(Value::Null, |billing| Value::Object(costs(billing)))),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a call cost.
pub fn costs(billing: &Billing) -> Map<String, Value> {
    let costs = [
        ("metaCostUSD", money(billing.meta_cost)),
        ("telnyxCostUSD", money(billing.carrier_cost)),
        ("recordingCostUSD", money(billing.recording_cost)),
        ("billableCostUSD", money(billing.billable_cost)),
        ("totalCostUSD", money(billing.total_cost)),
        ("currency", json!(billing.currency())),
    ];
    costs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The whole record of a call.
fn record(row: &CallRow, tape: Option<&TapeRow>, live: &Taping, signer: &Signer<'_>) -> Map<String, Value> {
    let mut record = facts(row);
    record.extend(recordings::facts(tape, signer));
    let (call, end) = (&row.call, row.end.as_deref());
    let number = signer.config.number(&call.number);
    let errors = end.map(|end| end.errors.as_slice()).unwrap_or_default();
    let errors: Vec<Value> =
        errors.iter().map(|(code, message)| json!({ "code": code, "message": message })).collect();
    let updated = end.map(|end| end.ended_at).or(call.transferred_at).or(call.answered_at);
    let billing = row.billing.as_ref().map_or(Value::Null, |billing| {
        let mut whole = costs(billing);
        whole.insert("metaMinutes".to_owned(), money(billing.meta_minutes));
        whole.insert("telnyxSeconds".to_owned(), json!(billing.carrier_seconds));
        whole.insert("transcriptionSeconds".to_owned(), json!(0));
        whole.insert("transcriptionCostUSD".to_owned(), json!(0));
        Value::Object(whole)
    });
    let more = [
        ("accountId", json!(call.account)),
        ("phoneNumberId", json!(call.phone_number_id)),
        ("metaCallId", json!(call.wacid)),
        ("conversationId", Value::Null),
        ("contactId", json!(call.user_id)),
        ("contactName", json!(call.profile_name)),
        ("channel", json!(Channel::WhatsApp.as_str())),
        ("forwardTo", json!(call.destination)),
        ("isVoicemail", json!(false)),
        ("amd", json!(false)),
        ("answeredMachine", json!(false)),
        ("forwardCallerId", json!(number.map(|number| number.caller_id.as_str()))),
        ("recordingEnabled", json!(call.recording)),
        ("recording", recordings::part(row, tape, live.get(&call.id).copied().filter(|_| end.is_none()))),
        ("transcriptionEnabled", json!(false)),
        ("transcriptionLanguage", Value::Null),
        ("placedBy", json!(call.placed_by.as_str())),
        ("answeredAt", maybe(call.answered_at)),
        ("transferStartedAt", maybe(end.and_then(|end| end.connected_at))),
        ("transferredAt", maybe(call.transferred_at)),
        ("createdAt", json!(iso(row.started_at))),
        ("updatedAt", json!(iso(updated.unwrap_or(row.started_at)))),
        ("hangupCause", json!(end.map(|end| hangup_cause(end.why)))),
        ("sipHangupCause", json!(end.and_then(|end| end.sip_code).map(|code| code.to_string()))),
        ("callErrors", json!(errors)),
        ("lastTranscriptSnippet", Value::Null),
        ("trunk", end.and_then(|end| end.trunk.as_deref()).map_or(Value::Null, trunk)),
        ("agent", end.and_then(|end| end.agent.as_deref()).map_or(Value::Null, agent)),
        ("billing", billing),
    ];
    record.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    record
}

/// The same with what only one call shows: why it ended in full, and how it sounded.
fn detail(row: &CallRow, tape: Option<&TapeRow>, live: &Taping, signer: &Signer<'_>) -> Map<String, Value> {
    let mut record = record(row, tape, live, signer);
    let end = row.end.as_deref();
    let sound =
        end.map(|end| json!({ "whatsapp": quality(&end.whatsapp), "destination": quality(&end.far) }));
    record.remove("lastTranscriptSnippet");
    let more = [
        ("transcript", end.map_or_else(|| json!([]), transcript)),
        ("agentEvents", end.map_or_else(|| json!([]), noted)),
        ("why", json!(end.map(|end| end.why.as_str()))),
        ("detail", json!(end.map(|end| &end.detail))),
        ("metaErrorCode", json!(end.and_then(|end| end.meta_code))),
        ("quality", sound.unwrap_or(Value::Null)),
    ];
    record.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    record
}

/// The PBX's part in a call.
fn trunk(part: &TrunkPart) -> Value {
    json!({
        "name": part.name,
        "codec": part.codec,
        "encrypted": part.encrypted,
        "cause": part.cause,
        "earlyMedia": part.early_media,
        "divertedFrom": part.diverted_from,
    })
}

/// A voice agent's part in a call.
fn agent(part: &AgentPart) -> Value {
    json!({
        "name": part.name,
        "dialect": part.dialect,
        "attempts": part.attempts,
        "firstAudioMs": part.first_audio_ms,
        "bargeIns": part.barge_ins,
        "unreadMessages": part.unread,
        "unreadableMessages": part.unreadable,
        "failure": part.failure,
    })
}

/// What was said, as the voice agent understood it.
fn transcript(end: &Record) -> Value {
    let lines = end.agent.iter().flat_map(|part| &part.transcript).map(|line| {
        json!({
            "text": line.text,
            "confidence": null,
            "at": said_at(end, line.at_ms),
            "role": line.who.as_str(),
        })
    });
    lines.collect()
}

/// What else a voice agent told.
fn noted(end: &Record) -> Value {
    let events =
        end.agent.iter().flat_map(|part| &part.events).map(
            |noted| json!({ "name": noted.name, "detail": noted.detail, "at": said_at(end, noted.at_ms) }),
        );
    events.collect()
}

/// The moment so many milliseconds after WhatsApp's side was up.
fn said_at(end: &Record, millis: u64) -> String {
    let from = end.connected_at.or(end.answered_at).unwrap_or(end.offered_at);
    iso(Wall(from.0.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX))))
}

fn quality(quality: &Quality) -> Value {
    json!({
        "received": quality.received,
        "sent": quality.sent,
        "lost": quality.lost,
        "discarded": quality.discarded,
        "concealed": quality.concealed,
        "repaired": quality.repaired,
        "jitterMs": quality.jitter_ms,
        "mos": quality.mos,
    })
}
