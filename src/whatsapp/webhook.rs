//! The door for Meta's webhooks: is it Meta, and what does it say?
//!
//! Order matters: [`authentic`] over the raw bytes first, [`read`] only then. Whatever `read` says, a
//! genuine delivery is answered 200, else Meta sends it again for days.

use std::fmt;

use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::notice::{self, Around, CallFault, Notice, Skipped};
use super::settings;

/// Largest body that Meta sends, in bytes (its own limit).
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// Most notices in one body (Meta batches up to 1000 updates).
pub const MAX_NOTICES: usize = 1_000;
/// Most JSON values in one body: 1000 updates with all their fields have a tenth of it. Bounds the
/// memory that a body can take once it is parsed.
const MAX_VALUES: usize = 250_000;
/// Deepest nesting; the envelope needs 9.
const MAX_DEPTH: usize = 32;
/// Longest challenge that is echoed, in bytes.
const MAX_CHALLENGE: usize = 1_024;

/// Why the verification handshake is refused. All of them are HTTP 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `hub.mode` is missing or not `subscribe`.
    NotSubscribe,
    /// `hub.verify_token` is missing or not ours.
    WrongToken,
    /// `hub.challenge` is missing, empty or too long.
    NoChallenge,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NotSubscribe => "hub.mode is not \"subscribe\"",
            Refusal::WrongToken => "hub.verify_token is not the configured verify_token",
            Refusal::NoChallenge => "hub.challenge is missing, empty or too long",
        })
    }
}

impl std::error::Error for Refusal {}

/// Meta's handshake when the callback address is saved: the body to answer with, as plain text.
///
/// # Errors
/// [`Refusal`], to be answered with 403. An empty `verify_token` refuses everybody.
pub fn challenge(query: &[(String, String)], verify_token: &str) -> Result<String, Refusal> {
    let get = |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    if get("hub.mode") != Some("subscribe") {
        return Err(Refusal::NotSubscribe);
    }
    let given = get("hub.verify_token").unwrap_or_default();
    // Hashes have one length, so not even the length of the token shows in the time.
    let same = Sha256::digest(given).ct_eq(&Sha256::digest(verify_token));
    if verify_token.is_empty() || !bool::from(same) {
        return Err(Refusal::WrongToken);
    }
    match get("hub.challenge") {
        Some(challenge) if !challenge.is_empty() && challenge.len() <= MAX_CHALLENGE => {
            Ok(challenge.to_owned())
        }
        _ => Err(Refusal::NoChallenge),
    }
}

/// Whether `X-Hub-Signature-256` (`sha256=` and the HMAC-SHA256 of the raw body in hex) was made with
/// the app secret. An empty secret makes everything false.
pub fn authentic(app_secret: &[u8], signature_header: Option<&str>, body: &[u8]) -> bool {
    if app_secret.is_empty() {
        return false;
    }
    let Some((method, hex)) = signature_header.and_then(|header| header.trim().split_once('=')) else {
        return false;
    };
    let Some(given) = digest(hex).filter(|_| method.eq_ignore_ascii_case("sha256")) else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(app_secret) else { return false };
    mac.update(body);
    mac.finalize().into_bytes().ct_eq(&given).into()
}

/// Exactly 64 hex digits as 32 bytes.
fn digest(hex: &str) -> Option<[u8; 32]> {
    let hex = hex.as_bytes();
    if hex.len() != 64 {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Why a whole body is left unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadBody {
    /// More bytes than Meta ever sends.
    TooLarge {
        /// How many there were.
        bytes: usize,
    },
    /// More JSON values than any batch of 1000 updates has.
    TooManyValues,
    /// Nested deeper than any envelope.
    TooDeep,
    /// Not JSON.
    NotJson {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// JSON, but not an object.
    NotAnObject,
    /// More notices than Meta batches.
    TooManyNotices,
}

impl fmt::Display for BadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadBody::TooLarge { bytes } => {
                write!(f, "{bytes} bytes, more than the {MAX_BODY} that Meta sends")
            }
            BadBody::TooManyValues => write!(f, "more than {MAX_VALUES} JSON values"),
            BadBody::TooDeep => write!(f, "JSON nested deeper than {MAX_DEPTH}"),
            BadBody::NotJson { line, column } => write!(f, "not JSON at line {line}, column {column}"),
            BadBody::NotAnObject => f.write_str("the JSON is not an object"),
            BadBody::TooManyNotices => write!(f, "more than {MAX_NOTICES} calls and statuses"),
        }
    }
}

impl std::error::Error for BadBody {}

/// Everything that a (genuine) webhook body says about calls, permissions to call and the number's
/// settings, in the order in which it says it. The fields to subscribe to are `calls`, `messages` (only
/// replies to permission requests are read), `account_settings_update` and `account_update`.
///
/// Fields, events and objects that are not used are passed over; an element that can't be read is
/// left out and counted in one log line, its neighbours are not harmed.
///
/// # Errors
/// [`BadBody`] if the body as a whole can't be read. Sending it again would not help: answer 200.
pub fn read(body: &[u8]) -> Result<Vec<Notice>, BadBody> {
    if body.len() > MAX_BODY {
        return Err(BadBody::TooLarge { bytes: body.len() });
    }
    weigh(body)?;
    let envelope: Value = serde_json::from_slice(body)
        .map_err(|error| BadBody::NotJson { line: error.line(), column: error.column() })?;
    let envelope = envelope.as_object().ok_or(BadBody::NotAnObject)?;
    if envelope
        .get("object")
        .and_then(Value::as_str)
        .is_some_and(|object| object != "whatsapp_business_account")
    {
        return Ok(Vec::new());
    }
    let mut reading = Reading::default();
    for entry in list(envelope.get("entry")) {
        for change in list(entry.get("changes")) {
            let field = change.get("field").and_then(Value::as_str).unwrap_or_default();
            if let Some(value) = change.get("value") {
                reading.change(field, value)?;
            }
        }
    }
    if reading.bad > 0 {
        tracing::debug!(
            bad = reading.bad,
            read = reading.notices.len(),
            "webhook elements that can't be read"
        );
    }
    // An error without a call has no other way to be heard, and an operator has to (131044: payment).
    if let Some(fault) = reading.lone_fault {
        tracing::warn!(code = fault.code, text = fault.message, "Meta reports an error on the number");
    }
    Ok(reading.notices)
}

/// What one body has told so far.
#[derive(Default)]
struct Reading {
    notices: Vec<Notice>,
    /// Elements that could not be read.
    bad: usize,
    /// The first error that came without a call.
    lone_fault: Option<CallFault>,
}

impl Reading {
    /// Reads the `value` of one change. Fields that have nothing to do with calls are passed over.
    fn change(&mut self, field: &str, value: &Value) -> Result<(), BadBody> {
        match field {
            "calls" => self.calls(value),
            "messages" => {
                let around = around(value);
                list(value.get("messages"))
                    .iter()
                    .try_for_each(|element| self.take(notice::message(element, &around)))
            }
            "account_settings_update" | "account_update" => self.take(settings::notice(value)),
            _ => Ok(()),
        }
    }

    fn calls(&mut self, value: &Value) -> Result<(), BadBody> {
        let around = around(value);
        let calls = list(value.get("calls"));
        let statuses = list(value.get("statuses"));
        calls.iter().try_for_each(|element| self.take(notice::call(element, &around)))?;
        statuses.iter().try_for_each(|element| self.take(notice::status(element, &around)))?;
        if calls.is_empty() && statuses.is_empty() && self.lone_fault.is_none() {
            self.lone_fault = around.errors.iter().find_map(notice::fault);
        }
        Ok(())
    }

    /// Keeps what could be read of one element.
    fn take(&mut self, outcome: Result<Notice, Skipped>) -> Result<(), BadBody> {
        match outcome {
            Ok(_) if self.notices.len() >= MAX_NOTICES => return Err(BadBody::TooManyNotices),
            Ok(notice) => self.notices.push(notice),
            Err(Skipped::NotUsed) => {}
            Err(Skipped::Bad(what)) => {
                tracing::trace!(what, "webhook element left out");
                self.bad = self.bad.saturating_add(1);
            }
        }
        Ok(())
    }
}

/// What stands beside the elements of one change.
fn around(value: &Value) -> Around<'_> {
    let metadata = value.get("metadata");
    let field = |key| metadata.and_then(|metadata| metadata.get(key));
    let contacts = list(value.get("contacts"));
    Around {
        phone_number_id: notice::word(field("phone_number_id")).unwrap_or_default(),
        business_phone: notice::phone(field("display_phone_number")),
        contacts: contacts.get(..MAX_NOTICES).unwrap_or(contacts),
        errors: list(value.get("errors")),
        calls: list(value.get("calls")).len(),
    }
}

/// The elements of an array; a missing or foreign value has none.
fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// One pass over the bytes that bounds what parsing may cost, before anything is allocated.
fn weigh(body: &[u8]) -> Result<(), BadBody> {
    let (mut values, mut depth) = (1_usize, 0_usize);
    let (mut quoted, mut escaped) = (false, false);
    for &byte in body {
        if quoted {
            (quoted, escaped) = match byte {
                _ if escaped => (true, false),
                b'\\' => (true, true),
                b'"' => (false, false),
                _ => (true, false),
            };
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(BadBody::TooDeep);
        }
        if values > MAX_VALUES {
            return Err(BadBody::TooManyValues);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
