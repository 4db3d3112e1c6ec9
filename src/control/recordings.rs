//! A call's recording: where it is, why there is none, how it goes on, and how it goes away.

use std::io::ErrorKind;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::Backend;
use super::fault::Fault;
use super::links::Signer;
use super::refusal::{forgotten, refused, strange};
use super::serve::{Ask, Outcome, Reply};
use super::stamp::{iso, maybe};
use crate::call::record::Record;
use crate::call::recording::{Consent, Finished, Outcome as End, RecordingPart};
use crate::clock::Wall;
use crate::gateway::desk::{Answer, Command, Refusal};
use crate::ledger::{CallRow, Ledger, LedgerError, TapeRow, TapeState, UploadState};

/// Seconds after which a recording that is being finished is asked for again.
const SOON: u64 = 2;
/// Entries of the audit log on a page, unless more or fewer are asked for; and at most.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;

const DAY: i64 = 86_400_000;

/// A call and its recording. Each may be forgotten before the other.
struct Found {
    id: String,
    call: Option<CallRow>,
    tape: Option<TapeRow>,
}

async fn found<B: Backend>(backend: &B, ask: &Ask) -> Result<Found, Fault> {
    let id = ask.param("id").to_owned();
    let what = format!("no call has the id \"{id}\"");
    let found = backend.read(move |ledger| {
        let call = match ledger.call(&id)? {
            Some(row) => Some(row),
            None => ledger.running(&id)?,
        };
        let id = call.as_ref().map_or(id, |row| row.call.id.clone());
        let tape = ledger.tape(&id)?;
        Ok(Found { id, call, tape })
    });
    let found = found.await.map_err(|e| forgotten(&e))?;
    if found.call.is_none() && found.tape.is_none() {
        return Err(Fault::not_found(what).at("id"));
    }
    Ok(found)
}

async fn found_of_account<B: Backend>(backend: &B, ask: &Ask) -> Result<Found, Fault> {
    let account = ask.query.required("accountId")?;
    let found = found(backend, ask).await?;
    let of_call = found.call.as_ref().map(|row| row.call.account.as_str());
    if of_call.or(found.tape.as_ref().map(|tape| tape.account.as_str())) == Some(account) {
        return Ok(found);
    }
    Err(Fault::not_found("this account has no call with this id").at("accountId"))
}

/// `GET /v1/whatsapp/calls/{id}/recording`
pub async fn get_of_account<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let found = found_of_account(backend, ask).await?;
    link(backend, ask, &found, 3)
}

/// `GET /v1/calls/{id}/recording`
pub async fn get<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let found = found(backend, ask).await?;
    link(backend, ask, &found, 2)
}

/// A fresh link. The operation is so many steps below `/v1`.
fn link<B: Backend>(backend: &B, ask: &Ask, found: &Found, steps: usize) -> Outcome {
    let as_json = ask.query.word("as", &[("json", true)])?.unwrap_or(false);
    there(found)?;
    let link = Signer::of(backend, ask).link(&found.id);
    if as_json {
        let url = link.address(&ask.config);
        return Ok(Reply::ok(json!({ "url": url, "expiresAt": iso(link.expires_at) })));
    }
    Ok(Reply::Found(link.relative(steps)))
}

/// `DELETE /v1/whatsapp/calls/{id}/recording`
pub async fn delete_of_account<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let found = found_of_account(backend, ask).await?;
    delete(backend, ask, found).await
}

/// `DELETE /v1/calls/{id}/recording`
pub async fn delete_any<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let found = found(backend, ask).await?;
    delete(backend, ask, found).await
}

/// The file goes first: a power cut in between leaves a row without a file, which may be deleted again, but never a
/// recording that nobody knows of.
async fn delete<B: Backend>(backend: &B, ask: &Ask, found: Found) -> Outcome {
    let tape = there(&found)?;
    let elsewhere = tape.uploaded_to.clone();
    match backend.delete_recording(&tape.file).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(call = %found.id, %error, "a recording can't be deleted");
            return Err(Fault::internal(format!("the recording can't be deleted: {error}")));
        }
    }
    let (id, who, now) = (found.id.clone(), ask.holder.name.clone(), backend.now().wall);
    let deleted = backend.write(move |ledger| ledger.tape_deleted(&id, &who, "by the API", now));
    if !deleted.await.map_err(|e| forgotten(&e))? {
        return Err(Fault::not_found("the recording was deleted meanwhile").at("id"));
    }
    tracing::info!(call = %found.id, by = %ask.holder.name, "a recording was deleted");
    Ok(Reply::ok(json!({ "id": found.id, "deleted": true, "uploadedTo": elsewhere })))
}

/// `PATCH /v1/whatsapp/calls/{id}/recording`
pub async fn pause_of_account<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let paused = wanted(ask)?;
    let found = found_of_account(backend, ask).await?;
    pause(backend, found, paused).await
}

/// `PATCH /v1/calls/{id}/recording`
pub async fn pause_any<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let paused = wanted(ask)?;
    let found = found(backend, ask).await?;
    pause(backend, found, paused).await
}

fn wanted(ask: &Ask) -> Result<bool, Fault> {
    ask.fields.boolean("paused")?.value().ok_or_else(|| Fault::missing("paused"))
}

async fn pause<B: Backend>(backend: &B, found: Found, paused: bool) -> Outcome {
    match backend.command(Command::Record { id: found.id, on: !paused }).await {
        Ok(Answer::Recording { id, paused }) => Ok(Reply::ok(json!({ "id": id, "paused": paused }))),
        Ok(other) => Err(strange(&other)),
        Err(Refusal::NoSuchCall) => Err(Fault::state(StatusCode::CONFLICT, "the call is over")),
        Err(Refusal::NotNow { state }) => {
            let what = "this call is not being recorded now: there is nothing to pause or to go on with";
            Err(Fault::state(StatusCode::CONFLICT, what).with(json!({ "state": state })))
        }
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// The recording, if it can be heard.
fn there(found: &Found) -> Result<&TapeRow, Fault> {
    match (&found.tape, &found.call) {
        (Some(tape), call) => {
            let over = call.as_ref().is_none_or(|row| row.end.is_some());
            ready(tape, over).map(|()| tape)
        }
        (None, Some(row)) => Err(none(row)),
        (None, None) => Err(Fault::not_found("this call was not recorded").at("id")),
    }
}

/// Whether the file is here and whole.
///
/// # Errors
/// 409 if it is being written, else 404 with what has become of it.
pub(super) fn ready(tape: &TapeRow, over: bool) -> Result<(), Fault> {
    let gone = |what: String, details: Value| Err(Fault::not_found(what).at("id").with(details));
    match tape.state {
        TapeState::Running if over => {
            let what = "the recording is being finished: ask again in a moment";
            let mut fault = Fault::state(StatusCode::CONFLICT, what).at("id");
            fault.retry_after = Some(SOON);
            Err(fault)
        }
        TapeState::Running => {
            let what = "the recording is being written: it can be had once the call is over";
            Err(Fault::state(StatusCode::CONFLICT, what).at("id"))
        }
        TapeState::Kept if tape.local => Ok(()),
        TapeState::Kept => {
            let to = tape.uploaded_to.as_deref().unwrap_or("elsewhere");
            gone(
                format!("the recording is not here any more, it was moved to {to}"),
                json!({ "uploadedTo": tape.uploaded_to, "uploadedAt": maybe(tape.uploaded_at) }),
            )
        }
        TapeState::Failed => {
            let why = tape.finished.error.as_deref().unwrap_or("the disk would not take it");
            gone(
                format!("there is no recording: {why}"),
                json!({ "outcome": tape.finished.outcome.as_str() }),
            )
        }
        TapeState::Deleted => {
            let at = tape.deleted_at.map_or_else(|| "before".to_owned(), |at| format!("at {}", iso(at)));
            let by = tape.deleted_by.as_deref().unwrap_or("nobody knows whom");
            gone(
                format!("the recording was deleted {at} by {by}"),
                json!({
                    "deletedAt": maybe(tape.deleted_at),
                    "deletedBy": tape.deleted_by,
                    "uploadedTo": tape.uploaded_to,
                }),
            )
        }
    }
}

/// Why there is no recording of this call.
fn none(row: &CallRow) -> Fault {
    let no = |what: &str| Fault::not_found(what).at("id");
    let Some(end) = row.end.as_deref() else {
        if !row.call.recording {
            return no("this call is not recorded");
        }
        let what = "nothing has been recorded yet: a recording can be had once the call is over";
        return Fault::state(StatusCode::CONFLICT, what).at("id");
    };
    let Some(part) = end.tape.as_deref() else { return no("this call was not recorded") };
    match (&part.file.error, part.consent) {
        // Also where nobody was asked, because nobody could be.
        (Some(error), _) => no(&format!("there is no recording: {error}")),
        (None, Consent::Declined) => no("nothing was recorded: the user did not agree"),
        (None, Consent::Unfinished) => no("nothing was recorded: the call ended before the prompt did"),
        (None, Consent::Announced | Consent::Agreed) => {
            no("there is no recording: nothing was said after the prompt")
        }
    }
    .with(json!({ "consent": part.consent.as_str() }))
}

/// A call's row with its recording.
///
/// # Errors
/// When the ledger can't be read.
pub(super) fn with_tape(ledger: &Ledger, row: CallRow) -> Result<(CallRow, Option<TapeRow>), LedgerError> {
    let told = row.end.as_deref().is_some_and(|end| end.tape.is_some());
    // Most calls have none: those cost no search.
    let tape = if row.call.recording || told { ledger.tape(&row.call.id)? } else { None };
    Ok((row, tape))
}

/// `recordingUrl` and `recordingExpiresAt` of a call.
pub(super) fn facts(tape: Option<&TapeRow>, signer: &Signer<'_>) -> Map<String, Value> {
    let there = tape.filter(|tape| ready(tape, true).is_ok());
    let facts = [
        ("recordingUrl", json!(there.map(|tape| signer.address(&tape.call)))),
        ("recordingExpiresAt", maybe(there.and_then(|tape| tape.expires_at))),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `recording` of a call: what was asked, what was answered, and what was kept. `live`: how it goes, while it does.
pub(super) fn part(row: &CallRow, tape: Option<&TapeRow>, live: Option<&str>) -> Value {
    let told: Option<&RecordingPart> = row.end.as_deref().and_then(|end| end.tape.as_deref());
    if told.is_none() && tape.is_none() && live.is_none() {
        return Value::Null;
    }
    let none = Finished::default();
    let file = tape.map(|tape| &tape.finished).or(told.map(|part| &part.file)).unwrap_or(&none);
    let state = match (tape, file.outcome) {
        (Some(tape), _) if tape.state == TapeState::Kept && !tape.local => "moved",
        (Some(tape), _) => tape.state.as_str(),
        (None, End::Failed) => TapeState::Failed.as_str(),
        (None, End::Nothing | End::Running | End::Complete | End::Gaps | End::Interrupted) => "none",
    };
    let outcome = match tape.map(|tape| tape.state) {
        Some(TapeState::Running) => End::Running,
        Some(TapeState::Kept | TapeState::Failed | TapeState::Deleted) | None => file.outcome,
    };
    let format = tape.map(TapeRow::format).or(told.map(|part| part.format)).filter(|word| !word.is_empty());
    let upload = tape.map_or(UploadState::None, |tape| tape.upload);
    let seconds = |millis: u64| millis as f64 / 1_000.0;
    json!({
        "consent": told.map(|part| part.consent.as_str()),
        "prompt": told.map(|part| part.prompt.as_str()).filter(|prompt| !prompt.is_empty()),
        "promptedAt": maybe(told.and_then(|part| part.prompted_at)),
        "announcedToBoth": told.map(|part| part.announced_to_both),
        "state": live.unwrap_or(state),
        "outcome": outcome.as_str(),
        "error": file.error,
        "beganAt": maybe(tape.map(|tape| tape.began_at).or(told.and_then(|part| part.began_at))),
        "seconds": seconds(file.millis),
        "pausedSeconds": seconds(file.paused_millis),
        "lostSeconds": seconds(file.lost_millis),
        "bytes": file.bytes,
        "sha256": Some(&file.sha256).filter(|sum| !sum.is_empty()),
        "format": format,
        "encrypted": tape.map_or_else(|| told.is_some_and(|part| part.encrypted), |tape| tape.encrypted),
        "expiresAt": maybe(tape.filter(|tape| tape.local).and_then(|tape| tape.expires_at)),
        "upload": upload.as_str(),
        "uploadedAt": maybe(tape.and_then(|tape| tape.uploaded_at)),
        "uploadedTo": tape.and_then(|tape| tape.uploaded_to.as_deref()),
        "uploadError": tape.and_then(|tape| tape.upload_error.as_deref()),
        "deletedAt": maybe(tape.and_then(|tape| tape.deleted_at)),
        "deletedBy": tape.and_then(|tape| tape.deleted_by.as_deref()),
    })
}

/// What `call.ended` tells of the call's recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// A fresh link, if there is a file or will be in a moment.
    pub url: Option<String>,
    /// When the recording will be deleted; `None`: never, or there is none.
    pub expires_at: Option<Wall>,
}

impl Told {
    /// Of a call that is over. `tape` may be finished already or not.
    pub fn of(record: &Record, tape: Option<&TapeRow>, signer: &Signer<'_>) -> Told {
        let keep = signer.config.number(&record.number).and_then(|number| number.recording_as.keep_days);
        let keep_days = keep.unwrap_or(signer.config.recording.keep_days);
        let from_now = (keep_days > 0)
            .then(|| Wall(record.ended_at.0.saturating_add(i64::from(keep_days).saturating_mul(DAY))));
        let expires_at = match tape.map(|tape| (tape.state, tape.local, tape.expires_at)) {
            // It is kept from when it is finished on: that is now.
            Some((TapeState::Running, _, known)) => known.or(from_now),
            Some((TapeState::Kept, true, known)) => known,
            Some((TapeState::Kept | TapeState::Failed | TapeState::Deleted, _, _)) | None => {
                return Told::default();
            }
        };
        Told { url: Some(signer.address(&record.id)), expires_at }
    }
}

/// `GET /v1/audit`
pub async fn audit<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let limit = ask.query.integer("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).unwrap_or(1);
    let before = match ask.query.get("before") {
        None => None,
        Some(text) => {
            let id = text.parse::<i64>().ok().filter(|id| *id > 0);
            Some(id.ok_or_else(|| Fault::invalid("before", "must be the nextCursor of a page"))?)
        }
    };
    // One more than asked for tells whether there is another page.
    let entries = backend.read(move |ledger| ledger.audits(limit.saturating_add(1), before));
    let mut entries = entries.await.map_err(|e| forgotten(&e))?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|entry| entry.id.to_string());
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "id": entry.id,
                "at": iso(entry.at),
                "who": entry.who,
                "action": entry.action,
                "subject": entry.subject,
                "detail": entry.detail,
            })
        })
        .collect();
    Ok(Reply::ok(json!({ "entries": entries, "nextCursor": next })))
}
