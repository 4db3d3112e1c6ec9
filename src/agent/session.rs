//! What one call tells its agent, and the messages that pass between them.

use std::fmt;
use std::time::Duration;

use super::Dialect;
use crate::call::Direction;

/// A WebSocket message, in either direction. Pings, pongs and close frames are the socket's own business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text frame: UTF-8, JSON in nearly every dialect.
    Text(String),
    /// A binary frame: sound.
    Binary(Vec<u8>),
}

/// The key of a cloud service. It never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Wraps a key.
    pub fn new(value: impl Into<String>) -> Key {
        Key(value.into())
    }

    /// The key itself: for a header, never for a log line.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What one call tells its agent.
#[derive(Debug, Clone)]
pub struct Session {
    /// How the agent speaks.
    pub dialect: Dialect,
    /// Our id of the call: `callSid` and its kin. The REST hang-up names the call by it.
    pub call_id: String,
    /// Meta's id of the call.
    pub wacid: String,
    /// Who calls: E.164 with its plus, or a BSUID.
    pub from: String,
    /// Who is called.
    pub to: String,
    /// Who asked for the call.
    pub direction: Direction,
    /// The account the agent is told: `accountSid` and its kin.
    pub account: String,
    /// The user's own parameters, from the URL's query and the config, in order.
    pub parameters: Vec<(String, String)>,
    /// The key of the cloud service, if it is one.
    pub key: Option<Key>,
    /// What signs the request for the connection, in the dialect that has signatures.
    pub auth_token: Option<Key>,
    /// Within what time after the answer the agent must have said something; `None`: it needn't.
    pub silence: Option<Duration>,
}

impl Session {
    /// The value of one of the user's parameters.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
