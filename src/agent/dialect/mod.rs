//! The dialects: what each kind of agent calls things, and in which sound it speaks.

use std::fmt;
use std::str::FromStr;

use super::Session;

/// How an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Twilio Media Streams: JSON, µ-law 8 kHz. What nearly every agent understands.
    Twilio,
    /// Telnyx Media Streaming: JSON, µ-law 8 kHz.
    Telnyx,
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
            "\"{}\" is no dialect: twilio, telnyx, vonage, plivo, exotel, jambonz, asterisk, pcm16, pcm16-<rate>, \
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
            Dialect::Vonage
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

    /// The `Sec-WebSocket-Protocol` to offer. An agent that does not echo it is accepted all the same.
    pub fn subprotocol(&self) -> Option<&'static str> {
        match self {
            Dialect::Jambonz => Some("audio.jambonz.org"),
            Dialect::Asterisk => Some("media"),
            _ => None,
        }
    }

    /// Headers of the upgrade request that the dialect demands; the destination's own come beside them.
    pub fn headers(&self, session: &Session) -> Vec<(String, String)> {
        let _ = session;
        Vec::new()
    }

    /// The request whose answer holds the WebSocket's URL, if the service mints one per call. `url` is the
    /// destination as configured (`wss://…`); [`Dialect::minted`] reads the answer.
    pub fn mint(&self, session: &Session, url: &str) -> Option<HttpRequest> {
        let _ = (session, url);
        None
    }

    /// The WebSocket's URL in the answer to [`Dialect::mint`]'s request. An error says what was wrong with it.
    pub fn minted(&self, status: u16, body: &[u8]) -> Result<String, String> {
        let _ = (status, body);
        Err(format!("{self} mints no URL"))
    }
}
