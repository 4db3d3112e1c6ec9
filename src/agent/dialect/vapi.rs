//! Vapi: one REST request mints the call, its answer holds the URL; then binary PCM16 at 16 kHz, and JSON beside it.

use serde_json::{Value, json};

use super::HttpRequest;
use super::cloud;
use super::wire::{self, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::{AgentEvent, Message, Session};

const FORMAT: Format = Format::l16(16_000);

/// One call.
#[derive(Debug)]
pub(super) struct Vapi;

impl Wire for Vapi {
    fn sends(&self) -> Format {
        FORMAT
    }

    /// Vapi paces what it sends, and documents no message that clears: what waits here would be heard too late.
    fn full(&self) -> u64 {
        200
    }

    fn start(&mut self, _session: &Session, _out: &mut Vec<Message>) -> bool {
        true
    }

    fn audio(&mut self, bytes: &[u8], _at: u64, out: &mut Vec<Message>) {
        out.push(Message::Binary(bytes.to_vec()));
    }

    fn stop(&mut self, _session: &Session, _why: &str, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"type": "hangup"})));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        if let Message::Binary(bytes) = message {
            said.push(Said::Audio { bytes, format: FORMAT });
            return;
        }
        let Some(value) = wire::object(&message, said) else { return };
        said.push(match wire::word(&value, &["type"]) {
            "transcript" if wire::word(&value, &["transcriptType"]) != "partial" => {
                cloud::line(wire::word(&value, &["role"]) != "user", wire::word(&value, &["transcript"]))
            }
            "user-interrupted" => Said::Clear,
            "hang" | "hangup" | "end-call" => hung_up(""),
            "status-update" if wire::word(&value, &["status"]) == "ended" => {
                hung_up(wire::word(&value, &["endedReason"]))
            }
            "transfer-update" => {
                let to = ["number", "sipUri"].map(|key| wire::word(&value, &["destination", key]));
                match to.into_iter().find_map(wire::target) {
                    Some(target) => Said::Event(AgentEvent::Transfer(target)),
                    None => Said::Nothing,
                }
            }
            _ => Said::Nothing,
        });
    }
}

fn hung_up(reason: &str) -> Said {
    let reason = if reason.is_empty() { "the agent ended the call" } else { reason };
    Said::Event(AgentEvent::HungUp(reason.chars().take(200).collect()))
}

/// The request that makes a call: the assistant, the transport, and what the assistant may know of the caller.
pub(super) fn mint(session: &Session, url: &str) -> Option<HttpRequest> {
    let assistant =
        ["assistantId", "assistant_id", "assistant"].iter().find_map(|name| session.parameter(name));
    let body = json!({
        "assistantId": assistant.map_or(Value::Null, Value::from),
        "assistantOverrides": {"variableValues": wire::facts(session)},
        "transport": {
            "provider": "vapi.websocket",
            "audioFormat": {"format": "pcm_s16le", "container": "raw", "sampleRate": 16000},
        },
    });
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    if let Some(key) = &session.key {
        headers.push(("authorization".to_owned(), format!("Bearer {}", key.expose())));
    }
    let body = cloud::settle(body, session).to_string();
    Some(HttpRequest { method: "POST", url: format!("{}/call", cloud::origin(url)?), headers, body })
}
