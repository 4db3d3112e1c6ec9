//! Telnyx Media Streaming: Twilio's shape in snake case, PCMU 8 kHz or L16 16 kHz (little-endian) as base64.

use serde_json::json;

use super::twilio::media_mark_clear;
use super::wire::{self, Fate, Playout, Said, Wire};
use crate::agent::audio::{Coding, Format};
use crate::agent::queue::Mark;
use crate::agent::{Message, Session};

/// One stream.
#[derive(Debug)]
pub(super) struct Telnyx {
    stream: String,
    format: Format,
    sequence: u64,
    chunk: u64,
}

impl Telnyx {
    pub(super) fn new(session: &Session, format: Format) -> Telnyx {
        Telnyx { stream: wire::uuid("telnyx", &session.call_id), format, sequence: 0, chunk: 0 }
    }

    fn sequence(&mut self) -> String {
        self.sequence += 1;
        self.sequence.to_string()
    }
}

impl Wire for Telnyx {
    fn sends(&self) -> Format {
        self.format
    }

    fn opened(&mut self, _session: &Session, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"event": "connected", "version": "1.0.0"})));
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        let encoding = match self.format.coding {
            Coding::Pcmu => "PCMU",
            Coding::Pcma => "PCMA",
            Coding::L16 => "L16",
        };
        out.push(wire::text(&json!({
            "event": "start",
            "sequence_number": self.sequence(),
            "stream_id": self.stream,
            "start": {
                "user_id": session.account,
                "call_control_id": session.call_id,
                "call_session_id": wire::uuid("telnyx session", &session.call_id),
                "from": session.from,
                "to": session.to,
                "tags": [],
                "client_state": "",
                "custom_parameters": wire::facts(session),
                "media_format": {"encoding": encoding, "sample_rate": self.format.rate, "channels": 1},
            },
        })));
        true
    }

    fn audio(&mut self, bytes: &[u8], at: u64, out: &mut Vec<Message>) {
        self.sequence += 1;
        self.chunk += 1;
        out.push(wire::framed(
            format_args!(
                r#"{{"event":"media","sequence_number":"{}","stream_id":"{}","media":{{"track":"inbound","chunk":"{}","timestamp":"{at}","payload":""#,
                self.sequence, self.stream, self.chunk
            ),
            bytes,
            "\"}}",
        ));
    }

    fn digit(&mut self, digit: char, _millis: u32, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "dtmf",
            "stream_id": self.stream,
            "sequence_number": self.sequence(),
            "dtmf": {"digit": digit.to_string()},
        })));
    }

    fn mark(&mut self, mark: &Mark, _fate: Fate, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "mark",
            "sequence_number": self.sequence(),
            "stream_id": self.stream,
            "mark": {"name": mark.name},
        })));
    }

    fn stop(&mut self, session: &Session, _why: &str, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "stop",
            "sequence_number": self.sequence(),
            "stream_id": self.stream,
            "stop": {"user_id": session.account, "call_control_id": session.call_id},
        })));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        let Some(value) = wire::object(&message, said) else { return };
        said.push(media_mark_clear(&value, self.format));
    }
}
