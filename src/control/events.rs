//! What applications are told of: the payloads of webhooks and live screens, and the headers that sign them.
//!
//! The hall's shell builds an event once, spools its text, and sends the same text on every try: the id and the
//! stamp in it don't change.

use axum::http::StatusCode;
use hmac::{Hmac, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::Told;
use super::stamp::{iso, maybe, money};
use crate::call::leg::{Direction, Why};
use crate::call::record::{ApiStatus, Record, Running, Speaker, end_reason, status_of};
use crate::clock::Wall;
use crate::config::{NumberConfig, Secret};
use crate::ledger::cost::Billing;
use crate::whatsapp::notice::PermissionReply;

/// One thing that happened, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The payload's `id`: the same on every try. A UUID.
    pub id: String,
    /// The payload's `event`: `call.received`, …
    pub name: &'static str,
    /// The payload: what is signed, sent, shown.
    pub body: String,
}

/// One thing that happened, for a live screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The event's id.
    pub id: String,
    /// The event's name.
    pub event: String,
    /// The payload.
    pub data: String,
}

impl From<&Event> for Live {
    fn from(event: &Event) -> Live {
        Live { id: event.id.clone(), event: event.name.to_owned(), data: event.body.clone() }
    }
}

/// The name of the event that tests a webhook.
pub const TEST: &str = "webhook.test";

/// `call.received`: an inbound call has reached a number and was routed.
pub fn received(id: String, call: &Running, now: Wall) -> Event {
    let body = json!({
        "id": call.id,
        "metaCallId": call.wacid,
        "accountId": call.account,
        "phoneNumberId": call.phone_number_id,
        "direction": call.direction.as_str(),
        "from": call.from,
        "to": call.to,
        "forwardTo": call.destination,
        "contactId": null,
        "conversationId": null,
        "startedAt": iso(call.offered_at),
    });
    let business = business(call.direction, &call.from, &call.to);
    event(id, "call.received", "call", body, account(&call.account, business), now)
}

/// `call.updated`, for live screens only: how far a running call has come.
pub fn progress(id: String, call: &Running, now: Wall) -> Event {
    let body = json!({
        "id": call.id,
        "metaCallId": call.wacid,
        "accountId": call.account,
        "phoneNumberId": call.phone_number_id,
        "direction": call.direction.as_str(),
        "from": call.from,
        "to": call.to,
        "forwardTo": call.destination,
        "status": call.status().as_str(),
        "ringing": call.ringing,
        "startedAt": iso(call.offered_at),
        "answeredAt": maybe(call.answered_at),
        "transferredAt": maybe(call.transferred_at),
    });
    let business = business(call.direction, &call.from, &call.to);
    event(id, "call.updated", "call", body, account(&call.account, business), now)
}

/// `call.transcript`, for live screens only: what was said, as a voice agent understood it.
pub fn spoken(id: String, call: &Running, who: Speaker, text: &str, now: Wall) -> Event {
    let body = json!({
        "id": call.id,
        "metaCallId": call.wacid,
        "accountId": call.account,
        "phoneNumberId": call.phone_number_id,
        "role": who.as_str(),
        "text": text,
        "at": iso(now),
    });
    let business = business(call.direction, &call.from, &call.to);
    event(id, "call.transcript", "call", body, account(&call.account, business), now)
}

/// `call.ended`, or `call.failed` if a hard error ended it. The link in it is as old as the event: who is told late
/// asks for the call's recording.
pub fn over(id: String, record: &Record, billing: &Billing, recording: &Told, now: Wall) -> Event {
    let business = business(record.direction, &record.from, &record.to);
    let account = account(&record.account, business);
    let mut call = Map::new();
    let mut put = |name: &str, value: Value| call.insert(name.to_owned(), value);
    put("id", json!(record.id));
    put("metaCallId", json!(record.wacid));
    put("accountId", json!(record.account));
    put("phoneNumberId", json!(record.phone_number_id));
    put("direction", json!(record.direction.as_str()));
    put("from", json!(record.from));
    put("to", json!(record.to));
    match status_of(record.why, record.answered()) {
        ApiStatus::Failed => {
            put("failedAt", json!(iso(record.ended_at)));
            let (code, message) = failure(record);
            put("error", json!({ "code": code, "message": message }));
            event(id, "call.failed", "call", Value::Object(call), account, now)
        }
        ApiStatus::Ringing | ApiStatus::Answered | ApiStatus::Ended => {
            put("startedAt", json!(iso(record.offered_at)));
            put("answeredAt", maybe(record.answered_at));
            put("endedAt", json!(iso(record.ended_at)));
            put("durationSeconds", json!(seconds(record.talk_seconds)));
            put("endReason", json!(end_reason(record.why)));
            put("hangupCause", json!(hangup_cause(record.why)));
            put("sipHangupCause", json!(record.sip_code.map(|code| code.to_string())));
            put("recordingUrl", json!(recording.url));
            put("recordingExpiresAt", maybe(recording.expires_at));
            put(
                "billing",
                json!({
                    "metaCostUSD": money(billing.meta_cost),
                    "telnyxCostUSD": money(billing.carrier_cost),
                    "recordingCostUSD": money(billing.recording_cost),
                    "billableCostUSD": money(billing.billable_cost),
                    "totalCostUSD": money(billing.total_cost),
                }),
            );
            event(id, "call.ended", "call", Value::Object(call), account, now)
        }
    }
}

/// `call.permission_request`: a user has answered a request to be called, or changed the answer.
pub fn permission(id: String, reply: &PermissionReply, number: &NumberConfig, now: Wall) -> Event {
    let mut body = json!({
        "from": reply.user.caller_user(),
        "response": if reply.accepted { "accept" } else { "reject" },
        "isPermanent": reply.permanent,
        "responseSource": reply.source.as_deref().unwrap_or("user_action"),
    });
    if let Some(at) = reply.expires_at.filter(|_| reply.accepted && !reply.permanent) {
        body["expirationTimestamp"] = json!(at);
    }
    let account = account(&number.account_id, &number.phone_number);
    event(id, "call.permission_request", "permission", body, account, now)
}

/// `webhook.test`
pub fn test(id: String, now: Wall) -> Event {
    let body = json!({
        "id": id,
        "event": TEST,
        "message": "This is a test of your webhook.",
        "timestamp": iso(now),
    });
    Event { id, name: TEST, body: body.to_string() }
}

fn event(id: String, name: &'static str, object: &str, inner: Value, account: Value, now: Wall) -> Event {
    let mut body = Map::new();
    body.insert("id".to_owned(), json!(id));
    body.insert("event".to_owned(), json!(name));
    body.insert(object.to_owned(), inner);
    body.insert("account".to_owned(), account);
    body.insert("timestamp".to_owned(), json!(iso(now)));
    Event { id, name, body: Value::Object(body).to_string() }
}

/// The business number of a call.
fn business<'a>(direction: Direction, from: &'a str, to: &'a str) -> &'a str {
    match direction {
        Direction::Inbound => to,
        Direction::Outbound => from,
    }
}

fn account(account: &str, number: &str) -> Value {
    json!({ "id": account, "accountId": account, "platform": "whatsapp", "username": number })
}

/// Whole seconds of talking. Never negative, never absurd.
pub(super) fn seconds(talked: f64) -> u64 {
    if talked.is_finite() && talked > 0.0 { talked as u64 } else { 0 }
}

/// The error of a call that failed: Meta's code, else the PBX's, else a code of HTTP that says the same.
fn failure(record: &Record) -> (i64, &str) {
    let last = record.errors.last();
    let code = record
        .meta_code
        .or(last.map(|(code, _)| *code))
        .or(record.sip_code.map(i64::from))
        .unwrap_or(i64::from(StatusCode::INTERNAL_SERVER_ERROR.as_u16()));
    (code, &record.detail)
}

/// The cause of an ending in the carrier's words; what no carrier has a word for is in our own.
pub(super) fn hangup_cause(why: Why) -> &'static str {
    match why {
        Why::UserHungUp | Why::FarHungUp | Why::Operator | Why::Draining => "normal_clearing",
        Why::UserGaveUp | Why::FarGaveUp => "originator_cancel",
        Why::UserDeclined | Why::FarDeclined => "call_rejected",
        Why::UserBusy | Why::FarBusy => "user_busy",
        Why::UserNoAnswer | Why::FarNoAnswer => "timeout",
        Why::TooLong => "time_limit",
        Why::NotOnWhatsApp => "not_found",
        Why::UserSilent | Why::FarSilent => "media_timeout",
        Why::NoPermission
        | Why::FarUnreachable
        | Why::AgentFailed
        | Why::TrunkDown
        | Why::GraphRefused
        | Why::Throttled
        | Why::GraphUnreachable
        | Why::MediaFailed
        | Why::OverLimit
        | Why::Interrupted
        | Why::BadOffer
        | Why::NotRouted
        | Why::Fault => why.as_str(),
    }
}

/// The headers of a delivery: the names of this API, and the older copies of them. With a secret the body is signed:
/// HMAC-SHA256, lower-case hexadecimal, no prefix.
pub fn headers(id: &str, name: &str, body: &str, secret: Option<&Secret>) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("X-Zernio-Event", name.to_owned()),
        ("X-Zernio-Event-Id", id.to_owned()),
        ("X-Late-Event", name.to_owned()),
        ("X-Late-Event-Id", id.to_owned()),
    ];
    if let Some(secret) = secret {
        let signature = sign(secret.expose().as_bytes(), body.as_bytes());
        headers.push(("X-Zernio-Signature", signature.clone()));
        headers.push(("X-Late-Signature", signature));
    }
    headers
}

/// HMAC-SHA256 (RFC 2104) in lower-case hexadecimal.
fn sign(key: &[u8], body: &[u8]) -> String {
    // A key of any length will do: this can't fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(body);
    super::hex(&mac.finalize().into_bytes())
}
