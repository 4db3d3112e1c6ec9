//! Deepgram Voice Agent: Welcome, Settings, SettingsApplied; then binary linear16 both ways, and JSON events.

use serde_json::{Value, json};

use super::cloud;
use super::wire::{self, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::{AgentEvent, Message, Session};

const FORMAT: Format = Format::l16(16_000);

/// One conversation.
#[derive(Debug, Default)]
pub(super) struct Deepgram {
    /// The session may begin: before that no settings, for the greeting follows at once.
    wanted: bool,
    welcome: bool,
    asked: bool,
    begun: bool,
}

impl Deepgram {
    fn settings(&mut self, session: &Session) -> Option<Message> {
        if !self.wanted || !self.welcome || self.asked {
            return None;
        }
        self.asked = true;
        let or = |name: &str, default: &str| session.parameter(name).unwrap_or(default).to_owned();
        let mut settings = json!({
            "type": "Settings",
            "audio": {
                "input": {"encoding": "linear16", "sample_rate": 16000},
                "output": {"encoding": "linear16", "sample_rate": 16000, "container": "none"},
            },
            "agent": {
                "language": or("language", "en"),
                "listen": {"provider": {"type": "deepgram", "model": or("listen_model", "nova-3")}},
                "think": {"provider": {
                    "type": or("think_provider", "open_ai"),
                    "model": or("think_model", "gpt-4o-mini"),
                }},
                "speak": {"provider": {"type": "deepgram", "model": or("voice", "aura-2-thalia-en")}},
            },
        });
        if let Some(prompt) = cloud::said("prompt", session) {
            settings["agent"]["think"]["prompt"] = prompt.into();
        }
        if let Some(greeting) = cloud::said("greeting", session) {
            settings["agent"]["greeting"] = greeting.into();
        }
        Some(wire::text(&cloud::settle(settings, session)))
    }
}

impl Wire for Deepgram {
    fn sends(&self) -> Format {
        FORMAT
    }

    fn keep_alive(&self) -> Option<u64> {
        Some(8)
    }

    fn alive(&mut self, out: &mut Vec<Message>) {
        out.push(wire::text(&json!({"type": "KeepAlive"})));
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        self.wanted = true;
        out.extend(self.settings(session));
        false
    }

    fn audio(&mut self, bytes: &[u8], _at: u64, out: &mut Vec<Message>) {
        out.push(Message::Binary(bytes.to_vec()));
    }

    fn digit(&mut self, digit: char, _millis: u32, out: &mut Vec<Message>) {
        // There is no message for a digit: the agent is told in words.
        let content = format!("The user pressed the key {digit}.");
        out.push(wire::text(&json!({"type": "InjectUserMessage", "content": content})));
    }

    fn read(&mut self, message: Message, session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        if let Message::Binary(bytes) = message {
            said.push(Said::Audio { bytes, format: FORMAT });
            return;
        }
        let Some(value) = wire::object(&message, said) else { return };
        let means = match wire::word(&value, &["type"]) {
            "Welcome" => {
                self.welcome = true;
                self.settings(session).map_or(Said::Nothing, Said::Send)
            }
            "SettingsApplied" => {
                self.begun = true;
                Said::Begun
            }
            "UserStartedSpeaking" => Said::Clear,
            "ConversationText" => {
                cloud::line(wire::word(&value, &["role"]) == "assistant", wire::word(&value, &["content"]))
            }
            "FunctionCallRequest" => {
                let calls = value.get("functions").and_then(Value::as_array);
                for call in calls.into_iter().flatten().take(16) {
                    if call.get("client_side") != Some(&Value::Bool(false)) {
                        function(call, said);
                    }
                }
                Said::Nothing
            }
            "Error" => {
                let why =
                    format!("{} {}", wire::word(&value, &["code"]), wire::word(&value, &["description"]));
                let why: String = why.trim().chars().take(200).collect();
                if self.begun {
                    Said::Note("error".to_owned(), why)
                } else {
                    Said::Event(AgentEvent::Failed(why))
                }
            }
            "Warning" => Said::Note("warning".to_owned(), wire::word(&value, &["description"]).to_owned()),
            _ => Said::Nothing,
        };
        said.push(means);
    }
}

fn function(call: &Value, said: &mut Vec<Said>) {
    let name = wire::word(call, &["name"]);
    let meant = cloud::tool(name, &cloud::arguments(call.get("arguments")));
    let content = if meant.is_some() { "done" } else { "this call has no such function" };
    said.push(Said::Note("tool".to_owned(), name.to_owned()));
    said.push(Said::Send(wire::text(&json!({
        "type": "FunctionCallResponse",
        "id": call.get("id").unwrap_or(&Value::Null),
        "name": name,
        "content": content,
    }))));
    said.extend(meant);
}
