//! The one call of Twilio's REST API that voice agents make: ending a call.
//!
//! `POST /2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}.json` with `Status=completed`; the key is the password
//! of Basic authentication, the user may be anything.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::ask::Query;
use super::fault::{Fault, Kind};
use super::refusal::{forgotten, refused, strange};
use super::serve::{Ask, Outcome, Reply, pairs};
use super::{Backend, calls};
use crate::gateway::desk::{Answer, Command, Refusal};

/// `POST …/Calls/{CallSid}.json`
pub async fn update<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let Some(sid) = ask.param("CallSid").strip_suffix(".json") else {
        return Err(Fault::not_found("a call's address ends in .json here"));
    };
    let text = std::str::from_utf8(&ask.body).map_err(|_| Fault::invalid("body", "is not UTF-8"))?;
    let form = Query(pairs(text)?);
    if form.get("Twiml").is_some() || form.get("Url").is_some() {
        return Err(Fault::not_available("Twiml", "a running call can only be ended here"));
    }
    match form.required("Status")? {
        "completed" | "canceled" => {}
        _ => return Err(Fault::invalid("Status", "must be completed or canceled")),
    }
    // Ours, or the one in Twilio's shape that agents are told: that is known as long as the call runs.
    let (running, wanted) = match backend.command(Command::HangUp { id: sid.to_owned() }).await {
        Ok(Answer::Ending { id }) => (true, id),
        Ok(other) => return Err(strange(&other)),
        Err(Refusal::NoSuchCall) => (false, sid.to_owned()),
        Err(refusal) => return Err(refused(&refusal)),
    };
    let call = backend.read(move |ledger| ledger.call(&wanted)).await.map_err(|e| forgotten(&e))?;
    if call.is_none() && !running {
        return Err(Fault::not_found(format!("no call has the id {sid}")));
    }
    let facts = call.as_ref().map(calls::facts);
    let fact = |name: &str| facts.as_ref().and_then(|facts| facts.get(name)).cloned().unwrap_or(Value::Null);
    let direction = match fact("direction").as_str() {
        Some("outbound") => "outbound-api",
        Some(_) | None => "inbound",
    };
    let account = ask.param("AccountSid");
    Ok(Reply::ok(json!({
        "sid": sid,
        "account_sid": account,
        "api_version": "2010-04-01",
        "status": "completed",
        "direction": direction,
        "from": fact("from"),
        "to": fact("to"),
        "start_time": fact("startedAt"),
        "end_time": fact("endedAt"),
        "duration": fact("durationSeconds").as_u64().map(|seconds| seconds.to_string()),
        "price": null,
        "price_unit": "USD",
        "uri": format!("/2010-04-01/Accounts/{account}/Calls/{sid}.json"),
    })))
}

/// The envelope with Twilio's names beside ours: `message`, `status`, and `code` as a number.
pub fn shape(mut fault: Fault) -> Fault {
    let code = match fault.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => 20_003,
        StatusCode::NOT_FOUND => 20_404,
        StatusCode::TOO_MANY_REQUESTS => 20_429,
        _ if fault.kind == Kind::InvalidRequest => 21_220,
        _ => 20_500,
    };
    fault.twilio = Some(code);
    fault
}
