//! SIP tracing: switched on and off while the gateway runs, and read call by call.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::Backend;
use super::fault::{Fault, Kind};
use super::ladder::{self, Mask};
use super::refusal::{refused, strange};
use super::serve::{Ask, Outcome, Reply};
use crate::config::Role;
use crate::gateway::desk::{Answer, Command, Refusal};

const MASKS: &[(&str, Mask)] =
    &[("none", Mask::Nothing), ("credentials", Mask::Credentials), ("all", Mask::All)];
const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json), ("pcap", Format::Pcap)];

/// How a trace is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Pcap,
}

/// `GET /v1/trace`
pub async fn state<B: Backend>(backend: &B) -> Outcome {
    tell(backend, None, None).await
}

/// `PUT /v1/trace`
pub async fn switch<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let on = ask
        .fields
        .boolean("enabled")?
        .value()
        .ok_or_else(|| Fault::invalid("enabled", "is needed: true or false"))?;
    let sound = ask.fields.boolean("sound")?.never_null("sound", "must be true or false")?.unwrap_or(false);
    tell(backend, Some(on), Some(on && sound)).await
}

async fn tell<B: Backend>(backend: &B, on: Option<bool>, sound: Option<bool>) -> Outcome {
    match backend.command(Command::Tracing { on }).await {
        Ok(Answer::Tracing(on)) => Ok(Reply::ok(json!({ "enabled": on, "sound": backend.capture(sound) }))),
        Ok(other) => Err(strange(&other)),
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// `GET /v1/calls/{id}/trace`
pub async fn of_call<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let mask = ask.query.word("mask", MASKS)?.unwrap_or(Mask::Credentials);
    if mask == Mask::Nothing && ask.holder.role != Role::Admin {
        let what = "credentials are shown to admin keys only: leave mask away";
        return Err(Fault::new(StatusCode::FORBIDDEN, Kind::Permission, "insufficient_permissions", what));
    }
    let format = ask.query.word("format", FORMATS)?.unwrap_or(Format::Text);
    let trace = match backend.command(Command::Trace { id: ask.param("id").to_owned() }).await {
        Ok(Answer::Trace(trace)) => trace,
        Ok(other) => return Err(strange(&other)),
        Err(Refusal::NoSuchCall) => {
            let what = "no call of late has this id: signalling is remembered of the latest 1,000 calls";
            return Err(Fault::not_found(what));
        }
        Err(refusal) => return Err(refused(&refusal)),
    };
    Ok(match format {
        Format::Json => Reply::ok(json!({ "messages": ladder::as_json(&trace, mask) })),
        Format::Pcap => {
            let sound = backend.captured(ask.param("id"));
            raw("application/vnd.tcpdump.pcap", ladder::pcap(&trace, sound, mask))
        }
        Format::Text => raw("text/plain; charset=utf-8", ladder::ladder(&trace, mask).into_bytes()),
    })
}

fn raw(kind: &'static str, bytes: Vec<u8>) -> Reply {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Reply::Raw(response)
}
