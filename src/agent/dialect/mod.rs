//! The dialects: what each kind of agent calls things, and in which sound it speaks.
//!
//! Parameters of a session that a dialect understands itself; all others are only handed on:
//!
//! | dialect | parameters |
//! |---|---|
//! | `jambonz` | `sampleRate`: 8000, 16000, 24000, 48000 |
//! | `asterisk` | `format`: `ulaw`, `alaw`, `slin`, `slin12` to `slin48`; `control`: `plain-text` |
//! | `elevenlabs` | `agent_id` |
//! | `vapi` | `assistantId` |
//! | `deepgram` | `prompt`, `greeting`, `voice`, `language`, `listen_model`, `think_provider`, `think_model` |
//! | `openai` | `instructions`, `greeting`, `voice` |
//!
//! For the last four, `settings` is JSON laid over what would be sent. `{from}`, `{to}`, `{direction}`, `{call_id}` and
//! `{any parameter}` are filled in where texts are spoken or thought. A tool named `transfer_call` with a `to`, and one
//! named `end_call`, do what they say once the agent has finished its sentence.

mod asterisk;
mod cloud;
mod deepgram;
mod elevenlabs;
mod exotel;
mod jambonz;
mod openai;
mod pcm16;
mod plivo;
mod telnyx;
mod twilio;
mod vapi;
mod vonage;
mod wire;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;

pub(super) use wire::{Fate, Playout, Said, Wire};

use super::Session;
use super::audio::Format;

/// How an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Twilio Media Streams: JSON, µ-law 8 kHz. What nearly every agent understands.
    Twilio,
    /// Telnyx Media Streaming: JSON, µ-law 8 kHz.
    Telnyx,
    /// The same with PCM16 at 16 kHz: its codec `L16`.
    TelnyxWide,
    /// Vonage Voice WebSocket: binary PCM16, 16 kHz.
    Vonage,
    /// Plivo Audio Streaming: JSON, µ-law 8 kHz.
    Plivo,
    /// Exotel Voicebot: JSON, PCM16 8 kHz, every 100 ms.
    Exotel,
    /// jambonz `listen`: binary PCM16.
    Jambonz,
    /// Asterisk `chan_websocket`: binary sound, text control.
    Asterisk,
    /// Raw PCM16, little-endian, mono; both ways binary.
    Pcm16 {
        /// Samples per second.
        rate: u32,
    },
    /// ElevenLabs Agents.
    ElevenLabs,
    /// Vapi: the call is minted by REST.
    Vapi,
    /// Deepgram Voice Agent.
    Deepgram,
    /// OpenAI Realtime.
    OpenAi,
}

/// A request over HTTPS that comes before the WebSocket.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The whole URL.
    pub url: String,
    /// Headers; one of them holds the key.
    pub headers: Vec<(String, String)>,
    /// The body; empty for `GET`.
    pub body: String,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The word names no dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownDialect(String);

impl fmt::Display for UnknownDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is no dialect: twilio, telnyx, telnyx-l16, vonage, plivo, exotel, jambonz, asterisk, pcm16, pcm16-<rate>, \
             elevenlabs, vapi, deepgram, openai",
            self.0
        )
    }
}

impl std::error::Error for UnknownDialect {}

/// The rates of raw PCM that are understood, in hertz.
const RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(word: &str) -> Result<Dialect, UnknownDialect> {
        Ok(match word {
            "twilio" => Dialect::Twilio,
            "telnyx" => Dialect::Telnyx,
            "telnyx-l16" => Dialect::TelnyxWide,
            "vonage" => Dialect::Vonage,
            "plivo" => Dialect::Plivo,
            "exotel" => Dialect::Exotel,
            "jambonz" => Dialect::Jambonz,
            "asterisk" => Dialect::Asterisk,
            "pcm16" => Dialect::Pcm16 { rate: 16_000 },
            "elevenlabs" => Dialect::ElevenLabs,
            "vapi" => Dialect::Vapi,
            "deepgram" => Dialect::Deepgram,
            "openai" => Dialect::OpenAi,
            other => {
                let rate = other.strip_prefix("pcm16-").and_then(|rate| rate.parse().ok());
                match rate {
                    Some(rate) if RATES.contains(&rate) => Dialect::Pcm16 { rate },
                    Some(_) | None => return Err(UnknownDialect(other.chars().take(40).collect())),
                }
            }
        })
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Twilio => "twilio",
            Dialect::Telnyx => "telnyx",
            Dialect::TelnyxWide => "telnyx-l16",
            Dialect::Vonage => "vonage",
            Dialect::Plivo => "plivo",
            Dialect::Exotel => "exotel",
            Dialect::Jambonz => "jambonz",
            Dialect::Asterisk => "asterisk",
            Dialect::Pcm16 { rate: 16_000 } => "pcm16",
            Dialect::Pcm16 { rate } => return write!(f, "pcm16-{rate}"),
            Dialect::ElevenLabs => "elevenlabs",
            Dialect::Vapi => "vapi",
            Dialect::Deepgram => "deepgram",
            Dialect::OpenAi => "openai",
        })
    }
}

impl Dialect {
    /// The rate of linear sound towards the bridge, in hertz: 8,000, 16,000 or 24,000. Wideband where the dialect
    /// allows it.
    pub fn rate(&self) -> u32 {
        match self {
            Dialect::Twilio | Dialect::Telnyx | Dialect::Plivo | Dialect::Exotel => 8_000,
            Dialect::TelnyxWide
            | Dialect::Vonage
            | Dialect::Jambonz
            | Dialect::Asterisk
            | Dialect::ElevenLabs
            | Dialect::Vapi
            | Dialect::Deepgram => 16_000,
            Dialect::OpenAi => 24_000,
            Dialect::Pcm16 { rate: 0..=8_000 } => 8_000,
            Dialect::Pcm16 { rate: 8_001..=16_000 } => 16_000,
            Dialect::Pcm16 { rate: 16_001.. } => 24_000,
        }
    }

    /// The dialect on one call.
    pub(super) fn wire(self, session: &Session) -> Box<dyn Wire> {
        match self {
            Dialect::Twilio => Box::new(twilio::Twilio::new(session)),
            Dialect::Telnyx => Box::new(telnyx::Telnyx::new(session, Format::PCMU)),
            Dialect::TelnyxWide => Box::new(telnyx::Telnyx::new(session, Format::l16(16_000))),
            Dialect::Vonage => Box::new(vonage::Vonage),
            Dialect::Plivo => Box::new(plivo::Plivo::new(session)),
            Dialect::Exotel => Box::new(exotel::Exotel::new(session)),
            Dialect::Jambonz => Box::new(jambonz::Jambonz::new(session)),
            Dialect::Asterisk => Box::new(asterisk::Asterisk::new(session)),
            Dialect::Pcm16 { rate } => Box::new(pcm16::Pcm16::new(rate)),
            Dialect::ElevenLabs => Box::new(elevenlabs::ElevenLabs::new()),
            Dialect::Vapi => Box::new(vapi::Vapi),
            Dialect::Deepgram => Box::new(deepgram::Deepgram::default()),
            Dialect::OpenAi => Box::new(openai::OpenAi::default()),
        }
    }

    /// The `Sec-WebSocket-Protocol` to offer. An agent that does not echo it is accepted all the same.
    pub fn subprotocol(&self) -> Option<&'static str> {
        match self {
            Dialect::Jambonz => Some("audio.jambonz.org"),
            Dialect::Asterisk => Some("media"),
            Dialect::Twilio
            | Dialect::Telnyx
            | Dialect::TelnyxWide
            | Dialect::Vonage
            | Dialect::Plivo
            | Dialect::Exotel
            | Dialect::Pcm16 { .. }
            | Dialect::ElevenLabs
            | Dialect::Vapi
            | Dialect::Deepgram
            | Dialect::OpenAi => None,
        }
    }

    /// Headers of the upgrade request for `url` that the dialect demands; the destination's own come beside them. They
    /// may hold the key.
    pub fn headers(&self, session: &Session, url: &str) -> Vec<(String, String)> {
        let key = session.key.as_ref().map(super::Key::expose);
        let bearer = |word: &str| key.map(|key| ("authorization".to_owned(), format!("{word} {key}")));
        match self {
            Dialect::Deepgram => bearer("Token").into_iter().collect(),
            Dialect::OpenAi => bearer("Bearer").into_iter().collect(),
            // There is no first message that could tell who calls.
            Dialect::Pcm16 { .. } => [
                ("x-call-id", session.call_id.as_str()),
                ("x-call-from", &session.from),
                ("x-call-to", &session.to),
                ("x-call-direction", session.direction.as_str()),
            ]
            .map(|(name, value)| {
                (name.to_owned(), value.chars().filter(|letter| letter.is_ascii_graphic()).collect())
            })
            .into(),
            Dialect::Twilio => session
                .auth_token
                .iter()
                .map(|token| ("x-twilio-signature".to_owned(), signature(token.expose(), url)))
                .collect(),
            Dialect::Telnyx
            | Dialect::TelnyxWide
            | Dialect::Vonage
            | Dialect::Plivo
            | Dialect::Exotel
            | Dialect::Jambonz
            | Dialect::Asterisk
            | Dialect::ElevenLabs
            | Dialect::Vapi => Vec::new(),
        }
    }

    /// The request whose answer holds the WebSocket's URL, if the service mints one per call. `url` is the
    /// destination as configured (`wss://…`); [`Dialect::minted`] reads the answer. On an outbound call it is sent
    /// when the user has answered: a minted agent speaks at once.
    pub fn mint(&self, session: &Session, url: &str) -> Option<HttpRequest> {
        match self {
            Dialect::Vapi => vapi::mint(session, url),
            Dialect::ElevenLabs => elevenlabs::mint(session, url),
            Dialect::Twilio
            | Dialect::Telnyx
            | Dialect::TelnyxWide
            | Dialect::Vonage
            | Dialect::Plivo
            | Dialect::Exotel
            | Dialect::Jambonz
            | Dialect::Asterisk
            | Dialect::Pcm16 { .. }
            | Dialect::Deepgram
            | Dialect::OpenAi => None,
        }
    }

    /// The WebSocket's URL in the answer to [`Dialect::mint`]'s request. An error says what was wrong with it.
    pub fn minted(&self, status: u16, body: &[u8]) -> Result<String, String> {
        match self {
            Dialect::Vapi => cloud::url_in(status, body, &["transport", "websocketCallUrl"]),
            Dialect::ElevenLabs => cloud::url_in(status, body, &["signed_url"]),
            Dialect::Twilio
            | Dialect::Telnyx
            | Dialect::TelnyxWide
            | Dialect::Vonage
            | Dialect::Plivo
            | Dialect::Exotel
            | Dialect::Jambonz
            | Dialect::Asterisk
            | Dialect::Pcm16 { .. }
            | Dialect::Deepgram
            | Dialect::OpenAi => Err(format!("{self} mints no URL")),
        }
    }
}

/// Twilio's signature of a request without a body: HMAC-SHA1 of the whole URL, in base64.
fn signature(token: &str, url: &str) -> String {
    // A key of any length will do: this can't fail.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(token.as_bytes()) else { return String::new() };
    mac.update(url.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}
