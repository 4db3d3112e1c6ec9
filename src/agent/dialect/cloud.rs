//! What the cloud services share: texts with the call's facts in them, settings laid over ours, and tools.

use serde_json::Value;

use super::wire::{self, Said};
use crate::agent::{AgentEvent, Session};

/// `{from}`, `{to}`, `{direction}`, `{call_id}` and the user's own `{parameter}` replaced by what they are.
pub(super) fn filled(text: &str, session: &Session) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let known = after.split_once('}').and_then(|(name, tail)| Some((fact(name, session)?, tail)));
        rest = match known {
            Some((value, tail)) => {
                out.push_str(value);
                tail
            }
            None => {
                out.push('{');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

fn fact<'a>(name: &str, session: &'a Session) -> Option<&'a str> {
    match name {
        "from" | "from_number" => Some(&session.from),
        "to" | "to_number" => Some(&session.to),
        "direction" => Some(session.direction.as_str()),
        "call_id" => Some(&session.call_id),
        name => session.parameter(name),
    }
}

/// A parameter with the facts filled in.
pub(super) fn said(name: &str, session: &Session) -> Option<String> {
    session.parameter(name).map(|text| filled(text, session))
}

/// The `settings` parameter (JSON) laid over `base`: objects are merged, everything else is replaced.
pub(super) fn settle(mut base: Value, session: &Session) -> Value {
    match session.parameter("settings").map(serde_json::from_str::<Value>) {
        Some(Ok(over)) => lay(&mut base, over),
        Some(Err(_)) => {
            tracing::warn!(dialect = %session.dialect, "the agent's settings are not JSON: not used")
        }
        None => {}
    }
    base
}

fn lay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                lay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// What a tool that the agent calls means for the call; `None` if it is not one of ours. Both end what the agent is
/// saying first: it says goodbye, then it calls the tool.
pub(super) fn tool(name: &str, arguments: &Value) -> Option<Said> {
    match name {
        "end_call" | "hang_up" | "hangup" => {
            Some(Said::WhenPlayed(AgentEvent::HungUp("the agent ended the call".to_owned())))
        }
        "transfer" | "transfer_call" | "transfer_to_number" | "transfer_to_human" => {
            let named = ["to", "destination", "number", "phone_number", "transfer_number", "uri"]
                .iter()
                .find_map(|key| arguments.get(*key).and_then(Value::as_str))?;
            Some(Said::WhenPlayed(AgentEvent::Transfer(wire::target(named)?)))
        }
        _ => None,
    }
}

/// Arguments as they come: an object, or the text of one.
pub(super) fn arguments(value: Option<&Value>) -> Value {
    match value {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
        Some(other) => other.clone(),
        None => Value::Null,
    }
}

/// A line of the transcript, if there is anything in it.
pub(super) fn line(agent: bool, text: &str) -> Said {
    match text.trim() {
        "" => Said::Nothing,
        text => Said::Event(AgentEvent::Transcript { agent, text: text.to_owned() }),
    }
}

/// `https://host` of a `wss://host/…`, and `http://` of `ws://`.
pub(super) fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = match (url.strip_prefix("wss://"), url.strip_prefix("ws://")) {
        (Some(rest), _) => ("https", rest),
        (None, Some(rest)) => ("http", rest),
        (None, None) => return None,
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    (!host.is_empty()).then(|| format!("{scheme}://{host}"))
}

/// The WebSocket's URL at `path` in an answer of `status`.
pub(super) fn url_in(status: u16, body: &[u8], path: &[&str]) -> Result<String, String> {
    let value = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
    if !(200..300).contains(&status) {
        let why = value.get("message").or(value.get("detail")).map(Value::to_string).unwrap_or_default();
        return Err(format!("answered {status} {}", why.chars().take(200).collect::<String>())
            .trim_end()
            .to_owned());
    }
    let url = wire::word(&value, path);
    if url.starts_with("wss://") || url.starts_with("ws://") {
        Ok(url.to_owned())
    } else {
        Err(format!("the answer holds no WebSocket URL at {}", path.join(".")))
    }
}
