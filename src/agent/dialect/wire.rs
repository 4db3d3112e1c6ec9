//! What the leg and a dialect say to each other.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::agent::audio::Format;
pub(super) use crate::agent::ids::{hex, uuid};
use crate::agent::queue::{FULL_MILLIS, Mark, MarkKind};
use crate::agent::{AgentEvent, Message, Session};

/// Agents pad, or don't.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The longest name of a mark, in bytes.
const LONGEST_NAME: usize = 1_024;

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Fate {
    /// What stood before it was played.
    Played,
    /// What stood before it was dropped.
    Cleared,
}

/// Where playback is, in samples at the leg's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct Playout {
    pub(in crate::agent) written: u64,
    pub(in crate::agent) played: u64,
    pub(in crate::agent) rate: u32,
    pub(in crate::agent) paused: bool,
}

impl Playout {
    /// Milliseconds that wait.
    pub(in crate::agent) fn queued_millis(&self) -> u64 {
        self.written.saturating_sub(self.played) * 1_000 / u64::from(self.rate.max(1))
    }
}

/// What a message of the agent's means.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::agent) enum Said {
    /// The session has begun.
    Begun,
    /// Sound to be played.
    Audio {
        /// As it came.
        bytes: Vec<u8>,
        /// How it is written.
        format: Format,
    },
    /// Echo this when all sound so far was played.
    Mark(String, MarkKind),
    /// Drop what was not played: somebody has spoken.
    Clear,
    /// Drop what was not played: something else follows, and nobody was interrupted.
    Replace,
    /// Tell the marks off, but go on playing.
    ClearMarks,
    /// Stop playing, or go on.
    Pause(bool),
    /// Answer with this.
    Send(Message),
    /// Something for the call, now.
    Event(AgentEvent),
    /// Something for the call, once everything was played.
    WhenPlayed(AgentEvent),
    /// Something for the record.
    Note(String, String),
    /// Nothing that concerns us.
    Nothing,
    /// Can't be read.
    Unreadable,
}

/// A dialect on one call. It knows names and numbers, and nothing of time and sound.
pub(in crate::agent) trait Wire: Send {
    /// The sound it is given in [`Wire::audio`].
    fn sends(&self) -> Format;

    /// Milliseconds of one packet; whole frames of 20 ms.
    fn packet(&self) -> u32 {
        20
    }

    /// Queued milliseconds from which on the socket is not read.
    fn full(&self) -> u64 {
        FULL_MILLIS
    }

    /// Seconds between messages that keep an idle session alive.
    fn keep_alive(&self) -> Option<u64> {
        None
    }

    /// The message that keeps it alive.
    fn alive(&mut self, _out: &mut Vec<Message>) {}

    /// The socket is open: what does not need an answered call.
    fn opened(&mut self, _session: &Session, _out: &mut Vec<Message>) {}

    /// The session may begin. True if it has with this; else [`Said::Begun`] comes.
    fn start(&mut self, session: &Session, out: &mut Vec<Message>) -> bool;

    /// The user is there.
    fn answered(&mut self, _out: &mut Vec<Message>) {}

    /// One packet of the user's sound, so many milliseconds after the start.
    fn audio(&mut self, bytes: &[u8], at: u64, out: &mut Vec<Message>);

    /// The user pressed a key.
    fn digit(&mut self, _digit: char, _millis: u32, _out: &mut Vec<Message>) {}

    /// A mark was reached or dropped.
    fn mark(&mut self, _mark: &Mark, _fate: Fate, _out: &mut Vec<Message>) {}

    /// The queue was cleared.
    fn cleared(&mut self, _out: &mut Vec<Message>) {}

    /// So much waits now, in milliseconds.
    fn depth(&mut self, _queued: u64, _out: &mut Vec<Message>) {}

    /// We hang up.
    fn stop(&mut self, _session: &Session, _why: &str, _out: &mut Vec<Message>) {}

    /// What a message means, in order.
    fn read(&mut self, message: Message, session: &Session, playout: Playout, said: &mut Vec<Said>);
}

/// A text frame.
pub(super) fn text(value: &Value) -> Message {
    Message::Text(value.to_string())
}

/// Bytes as base64, at the end of `out`.
pub(super) fn push_base64(bytes: &[u8], out: &mut String) {
    BASE64.encode_string(bytes, out);
}

/// A text frame of a head, sound as base64, and a tail: for the message that is sent 50 times a second.
pub(super) fn framed(head: std::fmt::Arguments<'_>, bytes: &[u8], tail: &str) -> Message {
    let mut line = String::with_capacity(192 + bytes.len() * 4 / 3 + tail.len());
    // Writing into a String can't fail.
    let _ = line.write_fmt(head);
    push_base64(bytes, &mut line);
    line.push_str(tail);
    Message::Text(line)
}

/// Sound in a text frame.
pub(super) fn sound(payload: Option<&Value>, format: Format) -> Said {
    match payload.and_then(Value::as_str).map(|text| BASE64.decode(text.trim_ascii())) {
        Some(Ok(bytes)) => Said::Audio { bytes, format },
        Some(Err(_)) | None => Said::Unreadable,
    }
}

/// A mark's name, if it is one.
pub(super) fn mark(name: Option<&Value>, kind: MarkKind) -> Said {
    match name.and_then(Value::as_str) {
        Some(name) if name.len() <= LONGEST_NAME => Said::Mark(name.to_owned(), kind),
        Some(_) | None => Said::Unreadable,
    }
}

/// The object in a text frame; tells `said` if there is none.
pub(super) fn object(message: &Message, said: &mut Vec<Said>) -> Option<Value> {
    let Message::Text(line) = message else {
        said.push(Said::Unreadable);
        return None;
    };
    match serde_json::from_str::<Value>(line) {
        Ok(value) if value.is_object() => Some(value),
        Ok(_) | Err(_) => {
            said.push(Said::Unreadable);
            None
        }
    }
}

/// The text at a path of keys.
pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The text at a path of keys; empty if there is none.
pub(super) fn word<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// What every agent is told about a call, then the user's own parameters. Values are text.
pub(super) fn facts(session: &Session) -> Value {
    let mut facts = serde_json::Map::new();
    for (name, value) in [
        ("from_number", session.from.as_str()),
        ("to_number", session.to.as_str()),
        ("direction", session.direction.as_str()),
        ("call_id", session.call_id.as_str()),
        ("wacid", session.wacid.as_str()),
        ("channel", "whatsapp"),
    ] {
        facts.insert(name.to_owned(), Value::from(value));
    }
    for (name, value) in session.parameters.iter().filter(|(name, _)| name != "settings" && name != "dialect")
    {
        facts.insert(name.clone(), Value::from(value.as_str()));
    }
    Value::Object(facts)
}

/// The number or address an agent names, as a URI; `None` if it is neither.
pub(super) fn target(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"\\`{}|^".contains(&byte));
    if text.is_empty() || text.len() > 256 || !plain {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    if ["sip:", "sips:", "tel:"].iter().any(|scheme| lower.starts_with(scheme) && lower.len() > scheme.len())
    {
        return Some(text.to_owned());
    }
    let digits = text.strip_prefix('+').unwrap_or(text);
    let number = (1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| format!("tel:{text}"))
}

/// A number, or the text of one.
pub(super) fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).or_else(|| value.as_str()?.parse().ok())
}
