//! Plivo Audio Streaming: JSON, µ-law 8 kHz as base64; no `connected`, and other words for the same things.

use serde_json::json;

use super::wire::{self, Fate, Playout, Said, Wire};
use crate::agent::audio::{Coding, Format};
use crate::agent::queue::{Mark, MarkKind};
use crate::agent::{Message, Session};

/// One stream.
#[derive(Debug)]
pub(super) struct Plivo {
    stream: String,
    sequence: u64,
    chunk: u64,
}

impl Plivo {
    pub(super) fn new(session: &Session) -> Plivo {
        Plivo { stream: wire::uuid("plivo", &session.call_id), sequence: 0, chunk: 0 }
    }
}

impl Wire for Plivo {
    fn sends(&self) -> Format {
        Format::PCMU
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        out.push(wire::text(&json!({
            "event": "start",
            "sequenceNumber": self.sequence,
            "start": {
                "streamId": self.stream,
                "callId": session.call_id,
                "accountId": session.account,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
            },
            // An object, but as text.
            "extra_headers": wire::facts(session).to_string(),
        })));
        true
    }

    fn audio(&mut self, bytes: &[u8], at: u64, out: &mut Vec<Message>) {
        self.sequence += 1;
        self.chunk += 1;
        out.push(wire::framed(
            format_args!(
                r#"{{"event":"media","sequenceNumber":{},"streamId":"{}","media":{{"track":"inbound","timestamp":"{at}","chunk":{},"payload":""#,
                self.sequence, self.stream, self.chunk
            ),
            bytes,
            "\"}}",
        ));
    }

    fn digit(&mut self, digit: char, _millis: u32, out: &mut Vec<Message>) {
        self.sequence += 1;
        out.push(wire::text(&json!({
            "event": "dtmf",
            "sequenceNumber": self.sequence,
            "streamId": self.stream,
            "dtmf": {"track": "inbound", "digit": digit.to_string()},
        })));
    }

    fn mark(&mut self, mark: &Mark, _fate: Fate, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"event": "playedStream", "streamId": self.stream, "name": mark.name})));
    }

    fn stop(&mut self, session: &Session, _why: &str, out: &mut Vec<Message>) {
        self.sequence += 1;
        out.push(wire::text(&json!({
            "event": "stop",
            "sequenceNumber": self.sequence,
            "streamId": self.stream,
            "stop": {"callId": session.call_id, "accountId": session.account},
        })));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        let Some(value) = wire::object(&message, said) else { return };
        said.push(match wire::word(&value, &["event"]) {
            "playAudio" => {
                let rate = wire::at(&value, &["media", "sampleRate"]).and_then(wire::number).unwrap_or(8_000);
                let coding = match wire::word(&value, &["media", "contentType"]) {
                    "audio/x-l16" => Coding::L16,
                    _ => Coding::Pcmu,
                };
                let format = Format { coding, rate: rate.clamp(8_000, 48_000) };
                wire::sound(wire::at(&value, &["media", "payload"]), format)
            }
            "checkpoint" => wire::mark(value.get("name"), MarkKind::Mark),
            "clearAudio" => Said::Clear,
            _ => Said::Nothing,
        });
    }
}
