//! The noes of the hall and of the ledger, as envelopes.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::fault::{Fault, Kind};
use crate::call::leg::Why;
use crate::gateway::desk::{Answer, Refusal};
use crate::ledger::LedgerError;
use crate::whatsapp::graph::{Verdict, VerdictKind};
use crate::whatsapp::permit::Denied;

/// The refusals of Meta that a program can act on have a status of their own; Meta's codes.
const NO_PERMISSION: i64 = 138_006;
const REQUEST_LIMIT: i64 = 138_009;
const NO_CONVERSATION: [i64; 2] = [138_011, 131_047];
const CALL_LIMIT: i64 = 138_012;
const COUNTRY: i64 = 138_013;
const PAUSED: i64 = 138_014;
const NOT_ENABLED: i64 = 138_000;
const DUPLICATE: i64 = 138_003;
const UNCALLABLE: [i64; 3] = [138_001, 131_026, 131_030];

/// Seconds after which it may go again, where Meta does not say.
const PAUSE: u64 = 60;
/// The same while the gateway restarts.
const RESTART: u64 = 30;

/// A no of the hall.
pub fn refused(refusal: &Refusal) -> Fault {
    match refusal {
        Refusal::NoSuchCall => Fault::not_found("no running call has this id: ask the history").at("id"),
        Refusal::NoSuchNumber => Fault::not_found("no number is configured with this id").at("id"),
        Refusal::NotEnabled => not_enabled(),
        Refusal::NoDestination => Fault::state(
            StatusCode::UNPROCESSABLE_ENTITY,
            "there is no destination that this version can call: set forwardTo to sip:user@trunk or tel:+number",
        )
        .at("forwardTo"),
        Refusal::ToItself => Fault::invalid("forwardTo", "is the business number itself"),
        Refusal::TrunkDown { trunk } => {
            let what = if trunk.is_empty() {
                "the destination's PBX is not a trunk of this gateway".to_owned()
            } else {
                format!("the trunk \"{trunk}\" is down: see /v1/trunks")
            };
            Fault::new(StatusCode::BAD_GATEWAY, Kind::Platform, "trunk_down", what).said_by("sip", None)
        }
        Refusal::NotNow { state } => Fault::state(
            StatusCode::CONFLICT,
            format!("the call is {state}: this can only be done while both ends talk"),
        )
        .with(json!({ "state": state })),
        Refusal::Busy => {
            Fault::state(StatusCode::CONFLICT, "there is a call with this user already: wait until it is over")
                .at("to")
        }
        Refusal::Denied(denied) => self::denied(denied),
        Refusal::Graph(verdict) => graph(verdict),
        Refusal::Full => {
            let mut fault = Fault::new(
                StatusCode::TOO_MANY_REQUESTS,
                Kind::RateLimit,
                "too_many_calls",
                "as many calls as gateway.max_calls allows run already, or Graph is too slow: try again soon",
            );
            fault.retry_after = Some(5);
            fault
        }
        Refusal::Draining => Fault::unavailable("shutting_down", "the gateway is shutting down", RESTART),
        Refusal::Failed { id, why, detail } => failed(id, *why, detail),
    }
}

/// 422: the number is off.
pub fn not_enabled() -> Fault {
    Fault::state(
        StatusCode::UNPROCESSABLE_ENTITY,
        "calling is not enabled on this number: enable it with POST /v1/phone-numbers/{id}/whatsapp/calling",
    )
}

/// A call that was never to be, or a question that Meta would refuse.
pub fn denied(denied: &Denied) -> Fault {
    let (status, kind, code, details) = match denied {
        Denied::NoPermission => {
            (StatusCode::CONFLICT, Kind::Permission, "call_permission_required", json!({}))
        }
        Denied::LimitReached { period, max, until } => (
            StatusCode::TOO_MANY_REQUESTS,
            Kind::RateLimit,
            "platform_limit_reached",
            json!({ "time_period": period, "max_allowed": max, "limit_expiration_time": until }),
        ),
        Denied::Unavailable => {
            (StatusCode::CONFLICT, Kind::Permission, "call_permission_required", json!({}))
        }
    };
    let cure = match denied {
        Denied::NoPermission => {
            ": send a permission request with action \"send_call_permission_request\" and wait for the answer"
        }
        Denied::LimitReached { .. } | Denied::Unavailable => "",
    };
    let fault = Fault::new(status, kind, code, format!("{denied}{cure}")).at("to").said_by("meta", None);
    if details.as_object().is_some_and(Map::is_empty) { fault } else { fault.with(details) }
}

/// What Graph said, in Meta's names.
fn payload(verdict: &Verdict) -> Value {
    let mut payload = Map::new();
    payload.insert("message".to_owned(), json!(verdict.text));
    for (name, value) in [
        ("code", verdict.code.map(Value::from)),
        ("fbtrace_id", verdict.trace.as_ref().map(|trace| json!(trace))),
        ("http_status", verdict.http.map(Value::from)),
    ] {
        if let Some(value) = value {
            payload.insert(name.to_owned(), value);
        }
    }
    Value::Object(payload)
}

/// A no of Graph.
pub fn graph(verdict: &Verdict) -> Fault {
    const BAD: StatusCode = StatusCode::BAD_GATEWAY;
    const CONFLICT: StatusCode = StatusCode::CONFLICT;
    const UNFIT: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
    let (status, kind, code) = match verdict.code {
        Some(NO_PERMISSION) => (CONFLICT, Kind::Permission, "call_permission_required"),
        Some(code) if NO_CONVERSATION.contains(&code) => {
            (CONFLICT, Kind::Permission, "conversation_required")
        }
        Some(DUPLICATE) => (CONFLICT, Kind::InvalidRequest, "invalid_resource_state"),
        Some(NOT_ENABLED | COUNTRY | PAUSED) => (UNFIT, Kind::Platform, "platform_api_error"),
        Some(code) if UNCALLABLE.contains(&code) => (UNFIT, Kind::Platform, "platform_api_error"),
        Some(CALL_LIMIT | REQUEST_LIMIT) => {
            (StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "platform_limit_reached")
        }
        Some(_) | None => match verdict.kind {
            VerdictKind::Throttled => {
                (StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "platform_rate_limited")
            }
            VerdictKind::AlreadyOver
            | VerdictKind::Refused
            | VerdictKind::Misconfigured
            | VerdictKind::Unreachable => (BAD, Kind::Platform, "platform_api_error"),
        },
    };
    let mut fault = Fault::new(status, kind, code, format!("Meta: {verdict}"))
        .said_by("meta", Some(payload(verdict)))
        .with(json!({ "cure": verdict.cure }));
    fault.done = verdict.in_doubt;
    if status == StatusCode::TOO_MANY_REQUESTS {
        fault.retry_after = Some(verdict.retry_after.map_or(PAUSE, u64::from));
    }
    fault
}

/// A call that could not be set up after it had got an id.
fn failed(id: &str, why: Why, detail: &str) -> Fault {
    const BAD: StatusCode = StatusCode::BAD_GATEWAY;
    if id.is_empty() {
        // Not a call, but a question that nobody has answered; what it asked for may happen all the same.
        let mut fault = Fault::unavailable("no_answer", detail, 5);
        fault.done = true;
        return fault;
    }
    let meta = Some("meta");
    let (status, kind, code, platform) = match why {
        Why::NoPermission => (StatusCode::CONFLICT, Kind::Permission, "call_permission_required", meta),
        Why::UserBusy => (StatusCode::CONFLICT, Kind::InvalidRequest, "invalid_resource_state", meta),
        Why::NotOnWhatsApp => (StatusCode::UNPROCESSABLE_ENTITY, Kind::Platform, "platform_api_error", meta),
        Why::Throttled => (StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "platform_rate_limited", meta),
        Why::GraphRefused | Why::GraphUnreachable => (BAD, Kind::Platform, "platform_api_error", meta),
        Why::TrunkDown => (BAD, Kind::Platform, "trunk_down", Some("sip")),
        Why::FarHungUp
        | Why::FarGaveUp
        | Why::FarBusy
        | Why::FarDeclined
        | Why::FarNoAnswer
        | Why::FarUnreachable
        | Why::FarSilent
        | Why::AgentFailed => (BAD, Kind::Platform, "call_failed", Some("sip")),
        Why::UserDeclined
        | Why::UserNoAnswer
        | Why::UserHungUp
        | Why::UserGaveUp
        | Why::UserSilent
        | Why::MediaFailed
        | Why::OverLimit
        | Why::TooLong
        | Why::Draining
        | Why::Interrupted
        | Why::BadOffer
        | Why::NotRouted
        | Why::Operator
        | Why::Fault => (BAD, Kind::Platform, "call_failed", None),
    };
    let mut fault = Fault::new(status, kind, code, detail).with(json!({ "callId": id, "why": why.as_str() }));
    fault.platform = platform;
    // The call has a record: doing it again would be a second call.
    fault.done = true;
    if status == StatusCode::TOO_MANY_REQUESTS {
        fault.retry_after = Some(PAUSE);
    }
    fault
}

/// The hall has answered another question than was asked.
pub fn strange(answer: &Answer) -> Fault {
    tracing::error!(?answer, "the hall answers another question: this is a bug");
    Fault::internal("the gateway gave a strange answer: this is a bug, see the log")
}

/// The ledger says no.
pub fn forgotten(error: &LedgerError) -> Fault {
    tracing::warn!(%error, "the history can't be read or written");
    Fault::unavailable("history_unavailable", "the history can't be read or written: see the log", 5)
}
