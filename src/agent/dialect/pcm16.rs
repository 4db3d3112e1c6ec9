//! Raw PCM16: binary frames are sound, little-endian and mono. Text frames are optional control, `{"type": …}`.
//!
//! An agent that knows nothing but sound works. One that wants more may send `clear`, `mark`, `ping`, `text`,
//! `audio`, `transfer` and `hangup`; it gets `mark`, `pong`, `dtmf` and, at the end, `hangup` (docs/agents.md).

use serde_json::{Value, json};

use super::wire::{self, Fate, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::queue::{Mark, MarkKind};
use crate::agent::{AgentEvent, Message, Session};

/// One connection.
#[derive(Debug)]
pub(super) struct Pcm16 {
    format: Format,
}

impl Pcm16 {
    pub(super) fn new(rate: u32) -> Pcm16 {
        Pcm16 { format: Format::l16(rate) }
    }
}

impl Wire for Pcm16 {
    fn sends(&self) -> Format {
        self.format
    }

    fn start(&mut self, _session: &Session, _out: &mut Vec<Message>) -> bool {
        true
    }

    fn audio(&mut self, bytes: &[u8], _at: u64, out: &mut Vec<Message>) {
        out.push(Message::Binary(bytes.to_vec()));
    }

    fn digit(&mut self, digit: char, millis: u32, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"type": "dtmf", "digit": digit.to_string(), "duration_ms": millis})));
    }

    fn mark(&mut self, mark: &Mark, _fate: Fate, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"type": "mark", "name": mark.name})));
    }

    fn stop(&mut self, _session: &Session, why: &str, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"type": "hangup", "reason": why})));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        if let Message::Binary(bytes) = message {
            said.push(Said::Audio { bytes, format: self.format });
            return;
        }
        let Some(value) = wire::object(&message, said) else { return };
        said.push(match wire::word(&value, &["type"]) {
            "audio" => wire::sound(value.get("audio"), self.format),
            "clear" => Said::Clear,
            "mark" => wire::mark(value.get("name"), MarkKind::Mark),
            "ping" => pong(&value),
            "text" => {
                let text = wire::word(&value, &["text"]).to_owned();
                Said::Event(AgentEvent::Transcript { agent: true, text })
            }
            "transfer" => match wire::target(wire::word(&value, &["to"])) {
                Some(target) => Said::Event(AgentEvent::Transfer(target)),
                None => Said::Unreadable,
            },
            "hangup" => Said::Event(AgentEvent::HungUp("the agent hung up".to_owned())),
            _ => Said::Nothing,
        });
    }
}

fn pong(value: &Value) -> Said {
    let id = value.get("event_id").cloned().unwrap_or(Value::Null);
    Said::Send(wire::text(&json!({"type": "pong", "event_id": id})))
}
