//! Calls that a program places, ends and hands over; and the message that asks a user for consent.

use axum::http::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::ask::Given;
use super::fault::{Fault, Kind};
use super::numbers::{self, MAX_DESTINATION, MAX_ID, pick_of};
use super::permissions::{asked, callee};
use super::refusal::{denied, forgotten, not_enabled, refused, strange};
use super::serve::{Ask, Outcome, Reply};
use super::{Backend, calls};
use crate::clock::Wall;
use crate::config::{Destination, NumberConfig};
use crate::gateway::desk::{Answer, Command, Place, Refusal};
use crate::ledger::{Begun, Requests};
use crate::whatsapp::callee::Callee;
use crate::whatsapp::permit::{Denied, Permission};

/// The action that sends a message instead of calling.
const REQUEST: &str = "send_call_permission_request";
/// Longest words above the button, in characters.
const MAX_TEXT: usize = 1_024;
/// Longest opaque data, in characters.
const MAX_OPAQUE: usize = 512;
/// Longest `Idempotency-Key`, in bytes.
const MAX_KEY: usize = 255;

/// What the body asks for, once it has been found sound.
struct Wanted<'a> {
    number: &'a NumberConfig,
    to: Callee,
    request: bool,
    text: Option<String>,
    destination: Option<Destination>,
    record: Option<bool>,
}

/// `POST /v1/whatsapp/calls`
pub async fn place<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let wanted = wanted(ask)?;
    match key(ask)? {
        Some(key) => once(backend, ask, key, wanted).await,
        None => perform(backend, ask, wanted).await,
    }
}

/// The client's name of this request.
fn key(ask: &Ask) -> Result<Option<String>, Fault> {
    let Some(value) = ask.headers.get("idempotency-key") else { return Ok(None) };
    let plain = value
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
    match plain {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Fault::invalid(
            "Idempotency-Key",
            format!("must have 1 to {MAX_KEY} printable characters, no blanks"),
        )),
    }
}

/// The same request with the same key is done once, and its answer given again.
async fn once<B: Backend>(backend: &B, ask: &Ask, key: String, wanted: Wanted<'_>) -> Outcome {
    let digest: [u8; 32] = Sha256::digest(&ask.body).into();
    let (name, owner, now) = (key.clone(), ask.holder.name.clone(), ask.now.wall);
    let begun = backend.write(move |ledger| ledger.begin(&name, &owner, &digest, now));
    match begun.await.map_err(|e| forgotten(&e))? {
        Begun::New => {}
        Begun::Running => {
            let what = "a request with this Idempotency-Key is being done: ask again in a moment";
            let mut fault = Fault::new(
                StatusCode::CONFLICT,
                Kind::InvalidRequest,
                "idempotency_request_in_progress",
                what,
            );
            fault.retry_after = Some(1);
            return Err(fault.at("Idempotency-Key"));
        }
        Begun::Replay { status, body } => {
            return Ok(Reply::Again(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), body));
        }
        Begun::Mismatch => {
            let what = "this Idempotency-Key was used with another body";
            return Err(Fault::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                Kind::InvalidRequest,
                "idempotency_key_reused",
                what,
            )
            .at("Idempotency-Key"));
        }
    }
    let outcome = perform(backend, ask, wanted).await;
    let answer = match &outcome {
        Ok(Reply::Json(status, body)) => Some((status.as_u16(), body.to_string())),
        Err(fault) if fault.done => Some((fault.status.as_u16(), fault.body().to_string())),
        // Nothing was done: the same key may try again.
        Ok(_) | Err(_) => None,
    };
    let (owner, now) = (ask.holder.name.clone(), backend.now().wall);
    let kept = backend.write(move |ledger| match answer {
        Some((status, body)) => ledger.finish(&key, &owner, status, &body, now),
        None => ledger.forget(&key, &owner, now),
    });
    if let Err(error) = kept.await {
        tracing::warn!(%error, "an answer could not be kept for its Idempotency-Key");
    }
    outcome
}

fn wanted(ask: &Ask) -> Result<Wanted<'_>, Fault> {
    let fields = &ask.fields;
    let account = fields.required("accountId", MAX_ID)?;
    let number = numbers::of_account(&ask.config, &account, pick_of(fields)?)?;
    let to = callee("to", &fields.required("to", MAX_ID)?)?;
    let request = match fields.text("action", 64)? {
        Given::Absent | Given::Null => false,
        Given::Value(action) if action == REQUEST => true,
        Given::Value(_) => {
            return Err(Fault::invalid("action", format!("must be {REQUEST}, or be left out to call")));
        }
    };
    let text = fields.text("bodyText", MAX_TEXT)?.value().filter(|text| !text.trim().is_empty());
    // Taken so that programs written against the other service go on working; nobody reads it.
    fields.text("biz_opaque_callback_data", MAX_OPAQUE)?;
    if to.to_string() == number.phone_number {
        return Err(Fault::invalid("to", "is the business number itself"));
    }
    let destination = match fields.text("forwardTo", MAX_DESTINATION)? {
        Given::Absent | Given::Null => None,
        Given::Value(text) => Some(numbers::destination(&ask.config, number, "forwardTo", &text)?),
    };
    let record = fields.boolean("recordOverride")?.value();
    if !number.enabled {
        return Err(not_enabled());
    }
    Ok(Wanted { number, to, request, text, destination, record })
}

async fn perform<B: Backend>(backend: &B, ask: &Ask, wanted: Wanted<'_>) -> Outcome {
    if wanted.request { request(backend, ask, wanted).await } else { dial(backend, wanted).await }
}

/// Asks a user for consent, unless Meta would refuse that.
async fn request<B: Backend>(backend: &B, ask: &Ask, wanted: Wanted<'_>) -> Outcome {
    let Wanted { number, to, text, .. } = wanted;
    let permission = asked(backend, number, to.clone()).await?;
    permission.may_request().map_err(|no| denied(&no))?;
    let (id, user, now) = (number.phone_number_id.clone(), to.to_string(), ask.now.wall);
    let (log_id, log_user) = (id.clone(), user.clone());
    let log = backend.read(move |ledger| ledger.requests_since(&log_id, &log_user, now));
    let log = log.await.map_err(|e| forgotten(&e))?;
    within(&permission, &log).map_err(|no| denied(&no))?;
    let command = Command::RequestPermission { number: number.id.clone(), user: to, text };
    let message = match backend.command(command).await {
        Ok(Answer::Requested(message)) => message,
        Ok(other) => return Err(strange(&other)),
        Err(refusal) => return Err(refused(&refusal)),
    };
    let at = backend.now().wall;
    let noted_user = user.clone();
    if let Err(error) = backend.write(move |ledger| ledger.note_request(&id, &noted_user, at)).await {
        tracing::warn!(%error, "a permission request was sent, but could not be written down");
    }
    Ok(Reply::ok(json!({ "success": true, "action": REQUEST, "to": user, "messageId": message })))
}

/// Meta's limits against what we have sent ourselves: Meta's own count may be seconds old.
fn within(permission: &Permission, log: &Requests) -> Result<(), Denied> {
    let action = permission.actions.iter().find(|action| action.name == REQUEST);
    for (period, usual, sent, until) in
        [("PT24H", 1, log.in_day, log.day_until), ("P7D", 2, log.in_week, log.week_until)]
    {
        let said = action.and_then(|action| action.limits.iter().find(|limit| limit.period == period));
        let most = said.and_then(|limit| limit.max_allowed).unwrap_or(usual);
        if i64::from(sent) >= most {
            let until = until.map(Wall::unix_seconds);
            return Err(Denied::LimitReached { period: period.to_owned(), max: Some(most), until });
        }
    }
    Ok(())
}

async fn dial<B: Backend>(backend: &B, wanted: Wanted<'_>) -> Outcome {
    let Wanted { number, to, destination, record, .. } = wanted;
    let callee = to.to_string();
    let place = Place { number: number.id.clone(), to, destination, record };
    match backend.command(Command::Call(Box::new(place))).await {
        Ok(Answer::Placed { id, destination, recording }) => Ok(Reply::ok(json!({
            "success": true,
            "callId": id,
            "telnyxCallControlId": id,
            "status": "dialing",
            "direction": "outbound",
            "to": callee,
            "forwardTo": destination,
            "recordingEnabled": recording,
        }))),
        Ok(other) => Err(strange(&other)),
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// `POST /v1/voice/calls/{id}/end`
pub async fn end<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let id = ask.param("id").to_owned();
    match backend.command(Command::HangUp { id: id.clone() }).await {
        Ok(Answer::Ending { id }) => {
            Ok(Reply::ok(json!({ "success": true, "callId": id, "status": "ending" })))
        }
        Ok(other) => Err(strange(&other)),
        Err(Refusal::NoSuchCall) => {
            let call = calls::found(backend, id).await?;
            let status = call.status.as_str();
            Ok(Reply::ok(json!({ "success": true, "callId": call.call.id, "status": status })))
        }
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// `POST /v1/voice/calls/{id}/transfer`
pub async fn transfer<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let id = ask.param("id").to_owned();
    let text = ask.fields.required("to", MAX_DESTINATION)?;
    let call = calls::found(backend, id.clone()).await?;
    let number = numbers::by_id(&ask.config, &call.call.number)?;
    let to = numbers::destination(&ask.config, number, "to", &text)?;
    match backend.command(Command::Transfer { id, to }).await {
        Ok(Answer::Transferring { id, to }) => {
            Ok(Reply::ok(json!({ "success": true, "callId": id, "transferredTo": to })))
        }
        Ok(other) => Err(strange(&other)),
        Err(Refusal::NoSuchCall) => Err(Fault::state(StatusCode::CONFLICT, "the call is over")),
        Err(refusal) => Err(refused(&refusal)),
    }
}
