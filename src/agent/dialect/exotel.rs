//! Exotel Voicebot: Twilio's shape in snake case, but PCM16 at 8 kHz, in packets of 100 ms.

use serde_json::json;

use super::twilio::media_mark_clear;
use super::wire::{self, Fate, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::queue::Mark;
use crate::agent::{Message, Session};

const FORMAT: Format = Format::l16(8_000);

/// One stream.
#[derive(Debug)]
pub(super) struct Exotel {
    stream: String,
    sequence: u64,
    chunk: u64,
}

impl Exotel {
    pub(super) fn new(session: &Session) -> Exotel {
        Exotel { stream: wire::hex("exotel", &session.call_id), sequence: 0, chunk: 0 }
    }

    fn sequence(&mut self) -> String {
        self.sequence += 1;
        self.sequence.to_string()
    }
}

impl Wire for Exotel {
    fn sends(&self) -> Format {
        FORMAT
    }

    fn packet(&self) -> u32 {
        100
    }

    fn opened(&mut self, _session: &Session, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"event": "connected"})));
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        out.push(wire::text(&json!({
            "event": "start",
            "sequence_number": self.sequence(),
            "stream_sid": self.stream,
            "start": {
                "stream_sid": self.stream,
                "call_sid": session.call_id,
                "account_sid": session.account,
                "from": session.from,
                "to": session.to,
                "custom_parameters": wire::facts(session),
                "media_format": {"encoding": "audio/x-raw", "sample_rate": "8000", "bit_rate": "16"},
            },
        })));
        true
    }

    fn audio(&mut self, bytes: &[u8], at: u64, out: &mut Vec<Message>) {
        self.sequence += 1;
        self.chunk += 1;
        out.push(wire::framed(
            format_args!(
                r#"{{"event":"media","sequence_number":"{}","stream_sid":"{}","media":{{"chunk":"{}","timestamp":"{at}","payload":""#,
                self.sequence, self.stream, self.chunk
            ),
            bytes,
            "\"}}",
        ));
    }

    fn digit(&mut self, digit: char, millis: u32, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "dtmf",
            "sequence_number": self.sequence(),
            "stream_sid": self.stream,
            "dtmf": {"digit": digit.to_string(), "duration": millis.to_string()},
        })));
    }

    fn mark(&mut self, mark: &Mark, _fate: Fate, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "mark",
            "sequence_number": self.sequence(),
            "stream_sid": self.stream,
            "mark": {"name": mark.name},
        })));
    }

    fn stop(&mut self, session: &Session, why: &str, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({
            "event": "stop",
            "sequence_number": self.sequence(),
            "stream_sid": self.stream,
            "stop": {"call_sid": session.call_id, "account_sid": session.account, "reason": why},
        })));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        let Some(value) = wire::object(&message, said) else { return };
        said.push(media_mark_clear(&value, FORMAT));
    }
}
