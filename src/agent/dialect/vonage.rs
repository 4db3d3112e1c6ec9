//! Vonage Voice WebSocket: binary PCM16, 20 ms at 16 kHz; text for the first message, digits and notices.

use serde_json::{Value, json};

use super::wire::{self, Fate, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::queue::{Mark, MarkKind};
use crate::agent::{Message, Session};

const FORMAT: Format = Format::l16(16_000);

/// One connection.
#[derive(Debug)]
pub(super) struct Vonage;

impl Wire for Vonage {
    fn sends(&self) -> Format {
        FORMAT
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        // What the user wants told lies beside the two words of the dialect, which win.
        let mut first = wire::facts(session);
        first["event"] = "websocket:connected".into();
        first["content-type"] = "audio/l16;rate=16000".into();
        out.push(wire::text(&first));
        true
    }

    fn audio(&mut self, bytes: &[u8], _at: u64, out: &mut Vec<Message>) {
        out.push(Message::Binary(bytes.to_vec()));
    }

    fn digit(&mut self, digit: char, millis: u32, out: &mut Vec<Message>) {
        let digit = digit.to_string();
        out.push(wire::text(&json!({"event": "websocket:dtmf", "digit": digit, "duration": millis})));
    }

    fn mark(&mut self, mark: &Mark, _fate: Fate, out: &mut Vec<Message>) {
        // The payload was kept as its text.
        let payload = serde_json::from_str(&mark.name).unwrap_or(Value::Null);
        out.push(wire::text(&json!({"event": "websocket:notify", "payload": payload})));
    }

    fn cleared(&mut self, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"event": "websocket:cleared"})));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        if let Message::Binary(bytes) = message {
            said.push(Said::Audio { bytes, format: FORMAT });
            return;
        }
        let Some(value) = wire::object(&message, said) else { return };
        said.push(match (wire::word(&value, &["action"]), wire::word(&value, &["event"])) {
            // The second is how older Pipecat says it.
            ("clear", _) | (_, "clearAudio") => Said::Clear,
            ("notify", _) => {
                let payload = value.get("payload").unwrap_or(&Value::Null).to_string();
                wire::mark(Some(&payload.into()), MarkKind::Mark)
            }
            _ => Said::Nothing,
        });
    }
}
