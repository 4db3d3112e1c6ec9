//! What runs now, on one screen: ours, not Zernio's.

use serde_json::{Value, json};

use super::refusal::{refused, strange};
use super::serve::{Outcome, Reply};
use super::{Backend, stamp};
use crate::gateway::desk::{Answer, Command, TrunkLine};
use crate::sip::{Counters, TrunkState};

/// `GET /v1/status`
pub async fn status<B: Backend>(backend: &B) -> Outcome {
    match backend.command(Command::Status).await {
        Ok(Answer::Status(view)) => Ok(Reply::ok(json!({
            "name": backend.config().gateway.name,
            "version": env!("CARGO_PKG_VERSION"),
            "ready": view.ready,
            "draining": view.draining,
            "calls": view.calls,
            "maxCalls": view.max_calls,
            "trunks": view.trunks.iter().map(trunk).collect::<Vec<_>>(),
            "sip": counted(&view.sip),
            "now": stamp::iso(backend.now().wall),
        }))),
        Ok(other) => Err(strange(&other)),
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// `GET /v1/trunks`
pub async fn trunks<B: Backend>(backend: &B) -> Outcome {
    match backend.command(Command::Trunks).await {
        Ok(Answer::Trunks(trunks)) => {
            Ok(Reply::ok(json!({ "trunks": trunks.iter().map(trunk).collect::<Vec<_>>() })))
        }
        Ok(other) => Err(strange(&other)),
        Err(refusal) => Err(refused(&refusal)),
    }
}

fn counted(counters: &Counters) -> Value {
    let Counters {
        received,
        sent,
        dropped_foreign,
        dropped_rate,
        not_sip,
        malformed,
        retransmissions,
        repeated_requests,
        stray_responses,
        refused_full,
        timeouts,
        evicted,
        challenged,
        denied,
        fallen_back,
    } = counters;
    json!({
        "received": received,
        "sent": sent,
        "droppedForeign": dropped_foreign,
        "droppedRate": dropped_rate,
        "notSip": not_sip,
        "malformed": malformed,
        "retransmissions": retransmissions,
        "repeatedRequests": repeated_requests,
        "strayResponses": stray_responses,
        "refusedFull": refused_full,
        "timeouts": timeouts,
        "evicted": evicted,
        "challenged": challenged,
        "denied": denied,
        "fallenBack": fallen_back,
    })
}

fn trunk(line: &TrunkLine) -> Value {
    let (state, why) = word(&line.state);
    json!({
        "name": line.name,
        "state": state,
        "up": line.state.is_up(),
        "why": why,
        "code": line.code,
        "roundTripMs": line.round_trip.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        "since": stamp::iso(line.since),
        "transport": line.peer.map(|peer| peer.transport.to_string()),
        "failedCalls": line.failures,
        "address": line.peer.map(|peer| peer.address.to_string()),
        "publicAddress": line.public.map(|public| public.to_string()),
    })
}

/// The state's word, and what an operator should read about it.
fn word(state: &TrunkState) -> (&'static str, Option<&str>) {
    match state {
        TrunkState::Unresolved => ("unresolved", None),
        TrunkState::Trying => ("trying", None),
        TrunkState::Registered { .. } => ("registered", None),
        TrunkState::Reachable { .. } => ("reachable", None),
        TrunkState::Silent => ("silent", Some("no answer to OPTIONS so far: calls are tried all the same")),
        TrunkState::Failed { why, .. } => ("failed", Some(why)),
        TrunkState::Stopped => ("stopped", None),
    }
}
