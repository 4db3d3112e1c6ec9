//! Twilio Media Streams, bidirectional: JSON in text frames, µ-law 8 kHz as base64. Nearly all numbers are text.

use serde_json::{Value, json};

use super::wire::{self, Fate, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::queue::{Mark, MarkKind};
use crate::agent::{Message, Session, account_sid, call_sid};

/// One stream.
#[derive(Debug)]
pub(super) struct Twilio {
    stream: String,
    call: String,
    account: String,
    sequence: u64,
    chunk: u64,
}

impl Twilio {
    pub(super) fn new(session: &Session) -> Twilio {
        Twilio {
            stream: format!("MZ{}", wire::hex("twilio", &session.call_id)),
            call: call_sid(&session.call_id),
            account: account_sid(&session.account),
            sequence: 0,
            chunk: 0,
        }
    }

    fn sequence(&mut self) -> String {
        self.sequence += 1;
        self.sequence.to_string()
    }
}

impl Wire for Twilio {
    fn sends(&self) -> Format {
        Format::PCMU
    }

    fn opened(&mut self, _session: &Session, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})));
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        out.push(wire::text(&json!({
            "event": "start",
            "sequenceNumber": self.sequence(),
            "streamSid": self.stream,
            "start": {
                "accountSid": self.account,
                "streamSid": self.stream,
                "callSid": self.call,
                "tracks": ["inbound"],
                "customParameters": wire::facts(session),
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            },
        })));
        true
    }

    fn audio(&mut self, bytes: &[u8], at: u64, out: &mut Vec<Message>) {
        self.sequence += 1;
        self.chunk += 1;
        out.push(wire::framed(
            format_args!(
                r#"{{"event":"media","sequenceNumber":"{}","streamSid":"{}","media":{{"track":"inbound","chunk":"{}","timestamp":"{at}","payload":""#,
                self.sequence, self.stream, self.chunk
            ),
            bytes,
            "\"}}",
        ));
    }

    fn digit(&mut self, digit: char, _millis: u32, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "dtmf",
            "streamSid": self.stream,
            "sequenceNumber": self.sequence(),
            "dtmf": {"track": "inbound_track", "digit": digit.to_string()},
        })));
    }

    fn mark(&mut self, mark: &Mark, _fate: Fate, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "mark",
            "sequenceNumber": self.sequence(),
            "streamSid": self.stream,
            "mark": {"name": mark.name},
        })));
    }

    fn stop(&mut self, _session: &Session, _why: &str, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "stop",
            "sequenceNumber": self.sequence(),
            "streamSid": self.stream,
            "stop": {"accountSid": self.account, "callSid": self.call},
        })));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        let Some(value) = wire::object(&message, said) else { return };
        said.push(media_mark_clear(&value, Format::PCMU));
    }
}

/// The three messages that an agent sends in Twilio's shape, whatever stream it names: agents get that wrong.
pub(super) fn media_mark_clear(value: &Value, format: Format) -> Said {
    match wire::word(value, &["event"]) {
        "media" => wire::sound(wire::at(value, &["media", "payload"]), format),
        "mark" => wire::mark(wire::at(value, &["mark", "name"]), MarkKind::Mark),
        "clear" => Said::Clear,
        _ => Said::Nothing,
    }
}
