//! jambonz `listen`: metadata as the first text, then binary L16 both ways; `type` names what the agent wants.

use serde_json::{Value, json};

use super::wire::{self, Fate, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::queue::{Mark, MarkKind};
use crate::agent::{AgentEvent, Message, Session};

/// One connection.
#[derive(Debug)]
pub(super) struct Jambonz {
    format: Format,
}

impl Jambonz {
    pub(super) fn new(session: &Session) -> Jambonz {
        let wanted = session.parameter("sampleRate").and_then(|rate| rate.parse().ok());
        let rate = wanted.filter(|rate| [8_000, 16_000, 24_000, 48_000].contains(rate)).unwrap_or(16_000);
        Jambonz { format: Format::l16(rate) }
    }
}

impl Wire for Jambonz {
    fn sends(&self) -> Format {
        self.format
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        let mut first = wire::facts(session);
        first["sampleRate"] = self.format.rate.into();
        first["mixType"] = "mono".into();
        first["callSid"] = session.call_id.as_str().into();
        first["callId"] = session.wacid.as_str().into();
        first["accountSid"] = session.account.as_str().into();
        first["from"] = session.from.as_str().into();
        first["to"] = session.to.as_str().into();
        first["direction"] = session.direction.as_str().into();
        out.push(wire::text(&first));
        true
    }

    fn audio(&mut self, bytes: &[u8], _at: u64, out: &mut Vec<Message>) {
        out.push(Message::Binary(bytes.to_vec()));
    }

    fn digit(&mut self, digit: char, millis: u32, out: &mut Vec<Message>) {
        // In units of 8 kHz, as FreeSWITCH counts a digit.
        let duration = millis.saturating_mul(8).to_string();
        out.push(wire::text(&json!({"event": "dtmf", "dtmf": digit.to_string(), "duration": duration})));
    }

    fn mark(&mut self, mark: &Mark, fate: Fate, out: &mut Vec<Message>) {
        let event = match fate {
            Fate::Played => "playout",
            Fate::Cleared => "cleared",
        };
        out.push(wire::text(&match mark.kind {
            MarkKind::Mark => json!({"type": "mark", "data": {"name": mark.name, "event": event}}),
            MarkKind::Batch => json!({"type": "playDone", "data": {"id": mark.name}}),
        }));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        if let Message::Binary(bytes) = message {
            said.push(Said::Audio { bytes, format: self.format });
            return;
        }
        let Some(value) = wire::object(&message, said) else { return };
        let data = value.get("data").unwrap_or(&Value::Null);
        match wire::word(&value, &["type"]) {
            "playAudio" => play(data, self.format.rate, said),
            "killAudio" => said.push(Said::Clear),
            "mark" => said.push(wire::mark(data.get("name"), MarkKind::Mark)),
            "clearMarks" => said.push(Said::ClearMarks),
            "disconnect" => said.push(Said::Event(AgentEvent::HungUp("the agent hung up".to_owned()))),
            "transfer" => said.push(transfer(data)),
            "transcription" => {
                // What the agent's own recogniser heard of the user.
                let text = data.as_str().unwrap_or_else(|| wire::word(data, &["text"])).to_owned();
                said.push(Said::Event(AgentEvent::Transcript { agent: false, text }));
            }
            name @ ("error" | "json") => said.push(Said::Note(name.to_owned(), data.to_string())),
            _ => said.push(Said::Nothing),
        }
    }
}

/// One piece of sound as base64, raw or with a WAV header; unless `queuePlay`, it replaces what plays.
fn play(data: &Value, rate: u32, said: &mut Vec<Said>) {
    let named = data.get("sampleRate").and_then(wire::number).unwrap_or(rate);
    let format = Format::l16(named.clamp(8_000, 64_000));
    let mut sound = wire::sound(data.get("audioContent"), format);
    if let (Said::Audio { bytes, .. }, "wave" | "wav") = (&sound, wire::word(data, &["audioContentType"])) {
        sound = wav(bytes).unwrap_or(Said::Unreadable);
    }
    if sound == Said::Unreadable {
        said.push(sound);
        return;
    }
    if data.get("queuePlay").and_then(Value::as_bool) != Some(true) {
        said.push(Said::Replace);
    }
    said.push(sound);
    if data.get("id").is_some_and(Value::is_string) {
        said.push(wire::mark(data.get("id"), MarkKind::Batch));
    }
}

/// The samples of a WAV file: PCM, 16 bits, mono.
fn wav(file: &[u8]) -> Option<Said> {
    if file.get(..4)? != b"RIFF" || file.get(8..12)? != b"WAVE" {
        return None;
    }
    let mut rest = file.get(12..)?;
    let mut rate = None;
    loop {
        let (name, size) = (rest.get(..4)?, rest.get(4..8)?);
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        let body = rest.get(8..)?;
        match name {
            b"fmt " => {
                let head = body.get(..16)?;
                if head[..4] != [1, 0, 1, 0] || head[14..] != [16, 0] {
                    return None;
                }
                rate = Some(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            }
            b"data" => {
                // A size that was never filled in means all there is.
                let bytes = body.get(..size).unwrap_or(body).to_vec();
                return Some(Said::Audio { bytes, format: Format::l16(rate?.clamp(8_000, 64_000)) });
            }
            _ => {}
        }
        rest = body.get(size.checked_add(size & 1)?..)?;
    }
}

fn transfer(data: &Value) -> Said {
    let named = data.as_str().or_else(|| {
        ["to", "target", "uri", "number"].iter().find_map(|key| data.get(*key).and_then(Value::as_str))
    });
    match named.and_then(wire::target) {
        Some(target) => Said::Event(AgentEvent::Transfer(target)),
        None => Said::Unreadable,
    }
}
