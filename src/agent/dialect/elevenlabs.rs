//! ElevenLabs Agents: JSON both ways, sound as base64 in the formats that the service names when it begins.

use serde_json::{Value, json};

use super::HttpRequest;
use super::cloud;
use super::wire::{self, Playout, Said, Wire};
use crate::agent::audio::Format;
use crate::agent::{AgentEvent, Message, Session};

/// One conversation.
#[derive(Debug)]
pub(super) struct ElevenLabs {
    sends: Format,
    plays: Format,
    /// Sound up to this event was interrupted.
    cut: i64,
}

impl ElevenLabs {
    pub(super) fn new() -> ElevenLabs {
        ElevenLabs { sends: Format::l16(16_000), plays: Format::l16(16_000), cut: i64::MIN }
    }

    fn begin(&mut self, metadata: &Value) -> Said {
        let named = |key: &str| match wire::word(metadata, &[key]) {
            "" => Ok(Format::l16(16_000)),
            name => format(name).ok_or_else(|| name.chars().take(40).collect::<String>()),
        };
        match (named("user_input_audio_format"), named("agent_output_audio_format")) {
            (Ok(sends), Ok(plays)) => {
                self.sends = sends;
                self.plays = plays;
                Said::Begun
            }
            (Err(name), _) | (_, Err(name)) => {
                let why = format!("the agent's audio format \"{name}\" is not pcm_<rate> or ulaw_8000");
                Said::Event(AgentEvent::Failed(why))
            }
        }
    }
}

impl Wire for ElevenLabs {
    fn sends(&self) -> Format {
        self.sends
    }

    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool {
        let first = json!({
            "type": "conversation_initiation_client_data",
            "conversation_config_override": {},
            "custom_llm_extra_body": {},
            "dynamic_variables": wire::facts(session),
        });
        out.push(wire::text(&cloud::settle(first, session)));
        false
    }

    fn audio(&mut self, bytes: &[u8], _at: u64, out: &mut Vec<Message>) {
        out.push(wire::framed(format_args!(r#"{{"user_audio_chunk":""#), bytes, "\"}"));
    }

    fn digit(&mut self, digit: char, _millis: u32, out: &mut Vec<Message>) {
        // There is no message for a digit: the agent is told in words.
        let text = format!("The user pressed the key {digit}.");
        out.push(wire::text(&json!({"type": "contextual_update", "text": text})));
    }

    fn read(&mut self, message: Message, _session: &Session, _playout: Playout, said: &mut Vec<Said>) {
        let Some(value) = wire::object(&message, said) else { return };
        let means = match wire::word(&value, &["type"]) {
            "conversation_initiation_metadata" => {
                self.begin(value.get("conversation_initiation_metadata_event").unwrap_or(&Value::Null))
            }
            "audio" => {
                let id = wire::at(&value, &["audio_event", "event_id"]).and_then(Value::as_i64);
                if id.is_some_and(|id| id <= self.cut) {
                    Said::Nothing
                } else {
                    wire::sound(wire::at(&value, &["audio_event", "audio_base_64"]), self.plays)
                }
            }
            "interruption" => {
                let id = wire::at(&value, &["interruption_event", "event_id"]).and_then(Value::as_i64);
                self.cut = id.unwrap_or(self.cut).max(self.cut);
                Said::Clear
            }
            "ping" => {
                let id = wire::at(&value, &["ping_event", "event_id"]).cloned().unwrap_or(Value::Null);
                Said::Send(wire::text(&json!({"type": "pong", "event_id": id})))
            }
            "user_transcript" => {
                cloud::line(false, wire::word(&value, &["user_transcription_event", "user_transcript"]))
            }
            "agent_response" => {
                cloud::line(true, wire::word(&value, &["agent_response_event", "agent_response"]))
            }
            name @ "agent_response_correction" => Said::Note(
                name.to_owned(),
                wire::word(&value, &["agent_response_correction_event", "corrected_agent_response"])
                    .to_owned(),
            ),
            "client_tool_call" => {
                let call = value.get("client_tool_call").unwrap_or(&Value::Null);
                let name = wire::word(call, &["tool_name"]);
                let meant = cloud::tool(name, &cloud::arguments(call.get("parameters")));
                let result = if meant.is_some() { "done" } else { "this call has no such tool" };
                said.push(Said::Note("tool".to_owned(), name.to_owned()));
                said.push(Said::Send(wire::text(&json!({
                    "type": "client_tool_result",
                    "tool_call_id": call.get("tool_call_id").unwrap_or(&Value::Null),
                    "result": result,
                    "is_error": meant.is_none(),
                }))));
                meant.unwrap_or(Said::Nothing)
            }
            _ => Said::Nothing,
        };
        said.push(means);
    }
}

/// With a key, the URL is signed by the service: only public agents can be reached without.
pub(super) fn mint(session: &Session, url: &str) -> Option<HttpRequest> {
    let key = session.key.as_ref()?;
    let agent = session.parameter("agent_id")?;
    let agent: String = agent.bytes().map(percent).collect();
    Some(HttpRequest {
        method: "GET",
        url: format!("{}/v1/convai/conversation/get-signed-url?agent_id={agent}", cloud::origin(url)?),
        headers: vec![("xi-api-key".to_owned(), key.expose().to_owned())],
        body: String::new(),
    })
}

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// `pcm_16000`, `ulaw_8000`.
fn format(name: &str) -> Option<Format> {
    let (coding, rate) = name.split_once('_')?;
    match (coding, rate.parse().ok()?) {
        ("ulaw", 8_000) => Some(Format::PCMU),
        ("pcm", rate @ 8_000..=48_000) => Some(Format::l16(rate)),
        _ => None,
    }
}
