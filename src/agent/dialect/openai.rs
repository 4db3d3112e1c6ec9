//! OpenAI Realtime: JSON both ways, PCM16 at 24 kHz as base64. An interruption tells how much was really played.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::cloud;
use super::wire::{self, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::{AgentEvent, Message, Session};

const FORMAT: Format = Format::l16(24_000);
/// Items whose sound is waiting: one is spoken at a time, so a few are plenty.
const ITEMS: usize = 64;

/// One thing the agent says, and where in the queue it begins.
#[derive(Debug)]
struct Item {
    id: String,
    content: u64,
    from: u64,
}

/// One session.
#[derive(Debug, Default)]
pub(super) struct OpenAi {
    wanted: bool,
    updated: bool,
    begun: bool,
    items: VecDeque<Item>,
    /// What was cut off: sound of it that is still on its way is not played.
    cut: Option<String>,
}

impl OpenAi {
    fn begin(&mut self, session: &Session) -> Option<Message> {
        self.begun = true;
        let greeting = cloud::said("greeting", session)?;
        Some(wire::text(&json!({"type": "response.create", "response": {"instructions": greeting}})))
    }

    fn sound(&mut self, value: &Value, playout: Playout) -> Said {
        let id = wire::word(value, &["item_id"]);
        if self.cut.as_deref() == Some(id) {
            return Said::Nothing;
        }
        let sound = wire::sound(value.get("delta"), FORMAT);
        if sound != Said::Unreadable && self.items.back().is_none_or(|last| last.id != id) {
            // What was played to its end is of no more interest.
            while self.items.len() >= ITEMS
                || self.items.get(1).is_some_and(|next| next.from <= playout.played)
            {
                self.items.pop_front();
            }
            let content = value.get("content_index").and_then(Value::as_u64).unwrap_or(0);
            self.items.push_back(Item { id: id.to_owned(), content, from: playout.written });
        }
        sound
    }

    /// The user speaks: what is not played is dropped, and the service learns how far it came.
    fn interrupt(&mut self, playout: Playout, said: &mut Vec<Said>) {
        said.push(Said::Clear);
        let waiting = playout.written > playout.played;
        let playing = self.items.iter().rev().find(|item| item.from <= playout.played);
        if let (true, Some(item)) = (waiting, playing) {
            let millis = (playout.played - item.from) * 1_000 / u64::from(playout.rate.max(1));
            said.push(Said::Send(wire::text(&json!({
                "type": "conversation.item.truncate",
                "item_id": item.id,
                "content_index": item.content,
                "audio_end_ms": millis,
            }))));
        }
        if let Some(last) = self.items.pop_back() {
            self.cut = Some(last.id);
        }
        self.items.clear();
    }
}

impl Wire for OpenAi {
    fn sends(&self) -> Format {
        FORMAT
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        self.wanted = true;
        if self.updated {
            out.extend(self.begin(session));
        }
        self.updated
    }

    fn audio(&mut self, bytes: &[u8], _at: u64, out: &mut Vec<Message>) {
        out.push(wire::framed(
            format_args!(r#"{{"type":"input_audio_buffer.append","audio":""#),
            bytes,
            "\"}",
        ));
    }

    fn digit(&mut self, digit: char, _millis: u32, out: &mut Vec<Message>) {
        // There is no message for a digit: the agent is told in words.
        let text = format!("The user pressed the key {digit}.");
        let content = json!([{"type": "input_text", "text": text}]);
        let item = json!({"type": "message", "role": "user", "content": content});
        out.push(wire::text(&json!({"type": "conversation.item.create", "item": item})));
    }

    fn read(&mut self, message: Message, session: &Session, playout: Playout, said: &mut Vec<Said>) {
        let Some(value) = wire::object(&message, said) else { return };
        match wire::word(&value, &["type"]) {
            "session.created" => said.push(Said::Send(update(session))),
            "session.updated" => {
                let first = !std::mem::replace(&mut self.updated, true);
                if first && self.wanted {
                    said.push(Said::Begun);
                    said.extend(self.begin(session).map(Said::Send));
                }
            }
            // The second is the name of the beta.
            "response.output_audio.delta" | "response.audio.delta" => {
                let sound = self.sound(&value, playout);
                said.push(sound);
            }
            "input_audio_buffer.speech_started" => self.interrupt(playout, said),
            "response.output_audio_transcript.done" | "response.audio_transcript.done" => {
                said.push(cloud::line(true, wire::word(&value, &["transcript"])));
            }
            "conversation.item.input_audio_transcription.completed" => {
                said.push(cloud::line(false, wire::word(&value, &["transcript"])));
            }
            "response.output_item.done" if wire::word(&value, &["item", "type"]) == "function_call" => {
                function(&value["item"], said);
            }
            "response.done" if wire::word(&value, &["response", "status"]) == "failed" => {
                let why = wire::word(&value, &["response", "status_details", "error", "message"]);
                said.push(Said::Note("error".to_owned(), why.to_owned()));
            }
            "error" => {
                let why: String = wire::word(&value, &["error", "message"]).chars().take(200).collect();
                said.push(if self.begun {
                    Said::Note("error".to_owned(), why)
                } else {
                    Said::Event(AgentEvent::Failed(why))
                });
            }
            _ => said.push(Said::Nothing),
        }
    }
}

/// What the session is to be.
fn update(session: &Session) -> Message {
    let format = json!({"type": "audio/pcm", "rate": 24000});
    let mut wanted = json!({
        "type": "realtime",
        "audio": {
            "input": {"format": format, "turn_detection": {"type": "server_vad"}},
            "output": {"format": format},
        },
    });
    if let Some(instructions) = cloud::said("instructions", session) {
        wanted["instructions"] = instructions.into();
    }
    if let Some(voice) = session.parameter("voice") {
        wanted["audio"]["output"]["voice"] = voice.into();
    }
    wire::text(&json!({"type": "session.update", "session": cloud::settle(wanted, session)}))
}

fn function(item: &Value, said: &mut Vec<Said>) {
    let name = wire::word(item, &["name"]);
    said.push(Said::Note("tool".to_owned(), name.to_owned()));
    let meant = cloud::tool(name, &cloud::arguments(item.get("arguments")));
    let output = if meant.is_some() { "done" } else { "this call has no such function" };
    said.push(Said::Send(wire::text(&json!({
        "type": "conversation.item.create",
        "item": {
            "type": "function_call_output",
            "call_id": item.get("call_id").unwrap_or(&Value::Null),
            "output": output,
        },
    }))));
    match meant {
        Some(meant) => said.push(meant),
        None => said.push(Said::Send(wire::text(&json!({"type": "response.create"})))),
    }
}
