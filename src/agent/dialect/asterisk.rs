//! Asterisk's `chan_websocket`: binary frames are sound in the channel's codec, text frames are control.
//!
//! Two ends can be behind the socket. An application written for chan_websocket gets what Asterisk would send it:
//! we are the *channel*. A real Asterisk (`/media/<connection id>`) sends `MEDIA_START` itself, and from then on we
//! are the *application*, in its codec and in its way of writing control (JSON, or plain text before 20.18).

use serde_json::{Map, Value, json};

use super::wire::{self, Fate, Playout, Said, Wire};
use crate::agent::audio::{Coding, Format};
use crate::agent::queue::{Mark, MarkKind};
use crate::agent::{AgentEvent, Message, Session};

/// Asterisk's own levels: 900 and 800 frames of 20 ms.
const XOFF: u64 = 18_000;
const XON: u64 = 16_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Channel,
    Application,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Asterisk {
    channel: String,
    format: Format,
    role: Role,
    plain: bool,
    answered: bool,
    full: bool,
    /// Sound is sent in a batch: only told in `STATUS`, for nothing is ever dropped here.
    batch: bool,
    report_drained: bool,
}

impl Asterisk {
    pub(super) fn new(session: &Session) -> Asterisk {
        let format = session.parameter("format").or(session.parameter("codec")).and_then(codec);
        Asterisk {
            channel: session.call_id.clone(),
            format: format.unwrap_or(Format::l16(16_000)),
            role: Role::Channel,
            plain: session.parameter("control") == Some("plain-text"),
            answered: false,
            full: false,
            batch: false,
            report_drained: false,
        }
    }

    fn event(&self, name: &str, more: &[(&str, Value)]) -> Message {
        if self.plain {
            let mut line = name.to_owned();
            for (key, value) in more {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                match *key {
                    // The one value that stands without its name.
                    "correlation_id" if text.is_empty() => {}
                    "correlation_id" => line.push_str(&format!(" {text}")),
                    "channel_variables" => {}
                    key => line.push_str(&format!(" {key}:{text}")),
                }
            }
            return Message::Text(line);
        }
        let mut object = Map::new();
        object.insert("event".to_owned(), name.into());
        object.insert("channel_id".to_owned(), self.channel.as_str().into());
        object.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        wire::text(&Value::Object(object))
    }

    fn command(&self, name: &str) -> Message {
        if self.plain { Message::Text(name.to_owned()) } else { wire::text(&json!({"command": name})) }
    }

    fn told(&mut self, event: &str, fields: &Value, said: &mut Vec<Said>) {
        match event {
            "MEDIA_START" => {
                let Some(format) = codec(wire::word(fields, &["format"])) else {
                    let named = wire::word(fields, &["format"]);
                    let why = format!("Asterisk's codec {named:?} is not ulaw, alaw or slin");
                    said.push(Said::Event(AgentEvent::Failed(why.chars().take(120).collect())));
                    return;
                };
                self.role = Role::Application;
                self.format = format;
                if self.answered {
                    said.push(Said::Send(self.command("ANSWER")));
                }
            }
            "ERROR" => {
                said.push(Said::Note("error".to_owned(), wire::word(fields, &["error_text"]).to_owned()))
            }
            _ => said.push(Said::Nothing),
        }
    }

    fn asked(&mut self, command: &str, id: &Value, playout: Playout, said: &mut Vec<Said>) {
        let empty = Value::from("");
        let id = if id.is_string() { id } else { &empty };
        said.push(match command {
            "HANGUP" => Said::Event(AgentEvent::HungUp("the agent hung up".to_owned())),
            "START_MEDIA_BUFFERING" => {
                self.batch = true;
                Said::Nothing
            }
            "STOP_MEDIA_BUFFERING" => {
                self.batch = false;
                wire::mark(Some(id), MarkKind::Batch)
            }
            "FLUSH_MEDIA" => {
                self.batch = false;
                Said::Clear
            }
            "PAUSE_MEDIA" => Said::Pause(true),
            "CONTINUE_MEDIA" => Said::Pause(false),
            "MARK_MEDIA" => wire::mark(Some(id), MarkKind::Mark),
            "GET_STATUS" => Said::Send(self.event(
                "STATUS",
                &[
                    ("queue_length", (playout.queued_millis() / 20).into()),
                    ("xon_level", (XON / 20).into()),
                    ("xoff_level", (XOFF / 20).into()),
                    ("queue_full", self.full.into()),
                    ("bulk_media", self.batch.into()),
                    ("media_paused", playout.paused.into()),
                ],
            )),
            "REPORT_QUEUE_DRAINED" => {
                self.report_drained = true;
                Said::Nothing
            }
            // ANSWER: the call is answered when the session begins.
            _ => Said::Nothing,
        });
    }
}

impl Wire for Asterisk {
    fn sends(&self) -> Format {
        self.format
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        if self.role == Role::Application {
            return true;
        }
        out.push(self.event(
            "MEDIA_START",
            &[
                ("connection_id", wire::uuid("asterisk", &session.call_id).into()),
                ("channel", format!("WebSocket/{}", session.call_id).into()),
                ("channel_id", session.call_id.as_str().into()),
                ("format", name(self.format).into()),
                ("optimal_frame_size", self.format.bytes(20).into()),
                ("ptime", 20.into()),
                ("channel_variables", wire::facts(session)),
            ],
        ));
        true
    }

    fn answered(&mut self, out: &mut Vec<Message>) {
        self.answered = true;
        if self.role == Role::Application {
            out.push(self.command("ANSWER"));
        }
    }

    fn audio(&mut self, bytes: &[u8], _at: u64, out: &mut Vec<Message>) {
        out.push(Message::Binary(bytes.to_vec()));
    }

    fn digit(&mut self, digit: char, _millis: u32, out: &mut Vec<Message>) {
        // An application has no way to hand a digit to Asterisk.
        if self.role == Role::Channel {
            out.push(self.event("DTMF_END", &[("digit", digit.to_string().into())]));
        }
    }

    fn mark(&mut self, mark: &Mark, _fate: Fate, out: &mut Vec<Message>) {
        let event = match mark.kind {
            MarkKind::Mark => "MEDIA_MARK_PROCESSED",
            MarkKind::Batch => "MEDIA_BUFFERING_COMPLETED",
        };
        out.push(self.event(event, &[("correlation_id", mark.name.as_str().into())]));
    }

    fn depth(&mut self, queued: u64, out: &mut Vec<Message>) {
        if self.role == Role::Application {
            return;
        }
        if !self.full && queued >= XOFF {
            self.full = true;
            out.push(self.event("MEDIA_XOFF", &[]));
        } else if self.full && queued < XON {
            self.full = false;
            out.push(self.event("MEDIA_XON", &[]));
        }
        if self.report_drained && queued == 0 {
            self.report_drained = false;
            out.push(self.event("QUEUE_DRAINED", &[]));
        }
    }

    fn stop(&mut self, _session: &Session, _why: &str, out: &mut Vec<Message>) {
        // As the channel, closing is all that Asterisk does.
        if self.role == Role::Application {
            out.push(self.command("HANGUP"));
        }
    }

    fn read(&mut self, message: Message, _session: &Session, playout: Playout, said: &mut Vec<Said>) {
        let line = match message {
            Message::Binary(bytes) => {
                said.push(Said::Audio { bytes, format: self.format });
                return;
            }
            Message::Text(line) => line,
        };
        let line = line.trim();
        if !line.starts_with('{') {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
                said.push(Said::Unreadable);
            } else if EVENTS.contains(&word) {
                self.plain = true;
                self.told(word, &fields(rest), said);
            } else {
                self.asked(word, &rest.trim().into(), playout, said);
            }
            return;
        }
        match serde_json::from_str::<Value>(line) {
            Ok(value) => match (wire::word(&value, &["command"]), wire::word(&value, &["event"])) {
                ("", "") => said.push(Said::Nothing),
                ("", event) => {
                    if event == "MEDIA_START" {
                        self.plain = false;
                    }
                    self.told(event, &value, said);
                }
                (command, _) => {
                    self.asked(command, value.get("correlation_id").unwrap_or(&Value::Null), playout, said);
                }
            },
            Err(_) => said.push(Said::Unreadable),
        }
    }
}

/// What only Asterisk itself says.
const EVENTS: [&str; 9] = [
    "MEDIA_START",
    "DTMF_END",
    "MEDIA_XOFF",
    "MEDIA_XON",
    "STATUS",
    "MEDIA_BUFFERING_COMPLETED",
    "MEDIA_MARK_PROCESSED",
    "QUEUE_DRAINED",
    "ERROR",
];

/// `key:value key:value` as an object.
fn fields(line: &str) -> Value {
    let pairs = line.split_ascii_whitespace().take(32).filter_map(|pair| pair.split_once(':'));
    Value::Object(pairs.map(|(key, value)| (key.to_owned(), value.into())).collect())
}

/// Asterisk's name of a codec.
fn codec(name: &str) -> Option<Format> {
    Some(match name {
        "ulaw" => Format::PCMU,
        "alaw" => Format { coding: Coding::Pcma, rate: 8_000 },
        "slin" => Format::l16(8_000),
        "slin12" => Format::l16(12_000),
        "slin16" => Format::l16(16_000),
        "slin24" => Format::l16(24_000),
        "slin32" => Format::l16(32_000),
        "slin44" => Format::l16(44_100),
        "slin48" => Format::l16(48_000),
        _ => return None,
    })
}

/// The codec by Asterisk's name.
fn name(format: Format) -> String {
    match (format.coding, format.rate) {
        (Coding::Pcmu, _) => "ulaw".to_owned(),
        (Coding::Pcma, _) => "alaw".to_owned(),
        (Coding::L16, 8_000) => "slin".to_owned(),
        (Coding::L16, rate) => format!("slin{}", rate / 1_000),
    }
}
