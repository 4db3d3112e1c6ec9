//! Links to recordings: good for ten minutes, and whoever has one needs no key.
//!
//! A link says which recording, until when, and for whom it was made; HMAC-SHA256 (RFC 2104) over the three keeps it
//! so. The key is made when the process starts: links of the one before are good no more.

use axum::http::StatusCode;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::ask::Query;
use super::fault::{Fault, Kind};
use super::serve::Ask;
use super::{Backend, hex};
use crate::clock::Wall;
use crate::config::Config;

/// How long a link is good, in seconds.
pub const GOOD_FOR: i64 = 600;

/// What a signature begins with: the key may one day sign something else.
const PURPOSE: &[u8] = b"watrunk recording 1\n";

/// Makes links for one reader.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// What signs: [`Backend::link_key`].
    pub key: &'a [u8; 32],
    /// Says how the outside reaches this gateway.
    pub config: &'a Config,
    /// For whom: the name of a key. It will stand in the audit log when the link is used.
    pub holder: &'a str,
    /// From when on.
    pub now: Wall,
}

impl<'a> Signer<'a> {
    /// For whoever asks.
    pub(super) fn of<B: Backend>(backend: &'a B, ask: &'a Ask) -> Signer<'a> {
        Signer { key: backend.link_key(), config: &ask.config, holder: &ask.holder.name, now: ask.now.wall }
    }

    /// A fresh link to this call's recording.
    pub fn link(&self, call: &str) -> Link {
        let expires = self.now.unix_seconds().saturating_add(GOOD_FOR);
        let signature = signed(self.key, call, expires, self.holder);
        let signature = signature.map(|mac| hex(&mac.finalize().into_bytes())).unwrap_or_default();
        let (call, holder) = (escaped(call), escaped(self.holder));
        Link {
            path: format!("recordings/{call}?expires={expires}&for={holder}&signature={signature}"),
            expires_at: Wall(expires.saturating_mul(1_000)),
        }
    }

    /// Its address: whole if `http.public_url` is set, else only a path.
    pub fn address(&self, call: &str) -> String {
        self.link(call).address(self.config)
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What comes after `/v1/`.
    path: String,
    /// Until when it is good.
    pub expires_at: Wall,
}

impl Link {
    /// See [`Signer::address`].
    pub fn address(&self, config: &Config) -> String {
        let base = config.http.public_url.as_deref().unwrap_or_default().trim_end_matches('/');
        format!("{base}/v1/{}", self.path)
    }

    /// The same as seen from an operation that is so many steps below `/v1`: it holds behind every proxy.
    pub fn from_below(&self, steps: usize) -> String {
        format!("{}{}", "../".repeat(steps), self.path)
    }
}

/// For whom the link was made by which this is asked.
///
/// # Errors
/// 403 if it was not made here, or is too old.
pub fn opened(key: &[u8; 32], call: &str, query: &Query, now: Wall) -> Result<String, Fault> {
    let refused = |code, what| Fault::new(StatusCode::FORBIDDEN, Kind::Permission, code, what);
    let wrong =
        || refused("link_invalid", "this link was not made by this gateway, or before its last start");
    let expires = query.get("expires").and_then(|text| text.parse::<i64>().ok()).ok_or_else(wrong)?;
    let holder = query.get("for").ok_or_else(wrong)?;
    let signature = query.get("signature").and_then(bytes).ok_or_else(wrong)?;
    // Compared in a time that tells nothing.
    let mac = signed(key, call, expires, holder).ok_or_else(wrong)?;
    mac.verify_slice(&signature).map_err(|_| wrong())?;
    if now.unix_seconds() > expires {
        return Err(refused("link_expired", "this link is too old: ask for the call's recording again"));
    }
    Ok(holder.to_owned())
}

/// A key of any length will do: there always is one.
fn signed(key: &[u8; 32], call: &str, expires: i64, holder: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(PURPOSE);
    // With its length nothing of a call's id can pass for the time.
    mac.update(format!("{}\n{call}\n{expires}\n{holder}", call.len()).as_bytes());
    Some(mac)
}

/// 32 bytes from 64 hexadecimal digits.
fn bytes(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |b, d| b << 4 | d)).collect();
    // An odd digit at the end would be left out.
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

/// Text as it may stand in a query or a path (RFC 3986 §2.3).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::serve::pairs;
    use crate::control::tests::fake::{FILE, config};

    const NOW: Wall = Wall(1_795_341_600_500);

    fn query(link: &str) -> Query {
        Query(pairs(link.split_once('?').unwrap().1).unwrap())
    }

    fn made(key: &[u8; 32], holder: &str) -> Link {
        let config = config(FILE).unwrap();
        Signer { key, config: &config, holder, now: NOW }.link("call_1")
    }

    #[test]
    fn a_link_opens_one_recording_for_ten_minutes_and_tells_for_whom_it_was_made() {
        let key = [7; 32];
        let link = made(&key, "ops & more\n+");
        assert!(
            link.path
                .starts_with("recordings/call_1?expires=1795342200&for=ops%20%26%20more%0A%2B&signature=")
        );
        let given = query(&link.path);
        assert_eq!(opened(&key, "call_1", &given, NOW).unwrap(), "ops & more\n+");
        let last = Wall(1_795_342_200_999);
        assert!(opened(&key, "call_1", &given, last).is_ok());
        assert_eq!(opened(&key, "call_1", &given, Wall(last.0 + 1)).unwrap_err().code, "link_expired");
        assert_eq!(opened(&key, "call_2", &given, NOW).unwrap_err().code, "link_invalid");
        assert_eq!(opened(&[8; 32], "call_1", &given, NOW).unwrap_err().code, "link_invalid");
    }

    #[test]
    fn a_link_that_was_touched_is_refused() {
        let key = [7; 32];
        let link = made(&key, "ops").path;
        let later = link.replace("1795342200", "1795349999");
        let other = link.replace("for=ops", "for=boss");
        let short = link[..link.len() - 1].to_owned();
        let long = format!("{link}0");
        let bare = "recordings/call_1?expires=1795342200&for=ops".to_owned();
        let strange = link.replace("signature=", "signature=%C3%A9");
        for touched in [later, other, short, long, bare, strange] {
            let fault = opened(&key, "call_1", &query(&touched), NOW).unwrap_err();
            assert_eq!((fault.status, fault.code), (StatusCode::FORBIDDEN, "link_invalid"), "{touched}");
        }
    }
}
