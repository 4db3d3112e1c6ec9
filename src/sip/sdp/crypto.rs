//! Keys in the description (SDES, RFC 4568): suites, a=crypto lines, and our keys out of one secret.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What a trunk wants of SRTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SrtpPolicy {
    /// Plain RTP only.
    #[default]
    Off,
    /// SRTP if the PBX takes it.
    Optional,
    /// SRTP or no call.
    Required,
}

/// An SRTP crypto suite (RFC 4568 §6.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`
    AesCm128HmacSha1_80,
    /// `AES_CM_128_HMAC_SHA1_32`
    AesCm128HmacSha1_32,
    /// `AEAD_AES_128_GCM`
    AeadAes128Gcm,
    /// `AEAD_AES_256_GCM`
    AeadAes256Gcm,
}

impl Suite {
    /// In the order that we offer them.
    pub const ALL: [Suite; 4] =
        [Suite::AeadAes256Gcm, Suite::AeadAes128Gcm, Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32];

    /// Its name in a=crypto.
    pub fn name(self) -> &'static str {
        match self {
            Suite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Suite::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Suite::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// Bytes of the master key.
    pub fn key_len(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 | Suite::AeadAes128Gcm => 16,
            Suite::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of the master salt.
    pub fn salt_len(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => 14,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 12,
        }
    }

    /// Bytes of key and salt together: what a=crypto carries.
    pub fn inline_len(self) -> usize {
        self.key_len() + self.salt_len()
    }

    fn of_name(name: &str) -> Option<Suite> {
        Suite::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The longest key and salt: AES-256 and 12 bytes.
const LONGEST: usize = 44;

/// A master key followed by its salt. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(heapless::Vec<u8, LONGEST>);

impl Key {
    /// `None` if there are more than 44 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Key> {
        heapless::Vec::from_slice(bytes).ok().map(Key)
    }

    /// Key, then salt: [`Suite::key_len`] says where the one ends.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a=crypto carries it, with padding.
    pub fn to_base64(&self) -> String {
        general_purpose::STANDARD.encode(&self.0)
    }

    /// Some leave out the padding.
    fn from_base64(text: &str) -> Option<Key> {
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        if text.len() > LONGEST.div_ceil(3) * 4 {
            return None;
        }
        Key::from_bytes(&LENIENT.decode(text).ok()?)
    }

    /// Our key for a suite: HKDF-Expand (RFC 5869 §2.3) of the call's secret.
    pub(super) fn derived(secret: &[u8; 32], suite: Suite) -> Key {
        // A key shorter than SHA-256's block is filled up with zeros (RFC 2104 §2).
        let mut block = [0_u8; 64];
        block.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        let mut key = heapless::Vec::new();
        let mut last: Option<[u8; 32]> = None;
        for count in 1_u8..=2 {
            let mut mac = <Hmac<Sha256> as Mac>::new(&block.into());
            if let Some(last) = last {
                mac.update(&last);
            }
            mac.update(b"watrunk srtp ");
            mac.update(suite.name().as_bytes());
            mac.update(&[count]);
            let bytes: [u8; 32] = mac.finalize().into_bytes().into();
            let missing = suite.inline_len().saturating_sub(key.len());
            key.extend(bytes.into_iter().take(missing));
            last = Some(bytes);
        }
        Key(key)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// What SRTP needs: [`Suite::inline_len`] bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The suite, both ways.
    pub suite: Suite,
    /// What we encrypt with.
    pub ours: Key,
    /// What the PBX encrypts with.
    pub theirs: Key,
}

/// An a=crypto line that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crypto {
    pub tag: u32,
    pub suite: Suite,
    pub key: Key,
}

impl Crypto {
    /// The lines of an offer of ours.
    pub fn offered(secret: &[u8; 32]) -> Vec<Crypto> {
        let line = |(tag, suite)| Crypto { tag, suite, key: Key::derived(secret, suite) };
        (1..).zip(Suite::ALL).map(line).collect()
    }

    /// The value of a=crypto (RFC 4568 §9.1).
    pub fn line(&self) -> String {
        format!("{} {} inline:{}", self.tag, self.suite, self.key.to_base64())
    }

    /// `1 AES_CM_128_HMAC_SHA1_80 inline:base64|2^31|1:4 WSH=64`
    ///
    /// The lifetime is not counted: none of ours is near.
    pub fn read(value: &str) -> Result<Crypto, Unusable> {
        let mut words = value.split_whitespace();
        let tag = words.next().filter(|tag| tag.len() <= 9).and_then(|tag| tag.parse().ok());
        let (Some(tag), Some(name), Some(params)) = (tag, words.next(), words.next()) else {
            return Err(Unusable::Syntax);
        };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Unusable::Syntax);
        }
        let suite = Suite::of_name(name).ok_or_else(|| Unusable::Suite(name.chars().take(40).collect()))?;
        // More than one key needs MKIs to tell them apart.
        if params.contains(';') {
            return Err(Unusable::Mki(tag));
        }
        let mut parts = params.split('|');
        let key = parts.next().unwrap_or_default().split_once(':');
        let Some((_, key)) = key.filter(|(method, _)| method.eq_ignore_ascii_case("inline")) else {
            return Err(Unusable::Syntax);
        };
        if parts.any(|part| part.contains(':')) {
            return Err(Unusable::Mki(tag));
        }
        let key = Key::from_base64(key).filter(|key| key.as_bytes().len() == suite.inline_len());
        let key = key.ok_or(Unusable::Key(tag, suite))?;
        match words.find(|word| !harmless(word)) {
            // FEC_KEY=inline:… is a key too.
            Some(word) => {
                Err(Unusable::Parameter(tag, word.chars().take_while(|c| *c != '=').take(40).collect()))
            }
            None => Ok(Crypto { tag, suite, key }),
        }
    }
}

/// Session parameters that change nothing for us: a hint at the sender's replay window, and those marked
/// as optional (RFC 4568 §6.3.7, §6.3.8). A line with any other must not be used.
fn harmless(parameter: &str) -> bool {
    parameter.starts_with('-') || parameter.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("WSH="))
}

/// Why an a=crypto line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    Syntax,
    Suite(String),
    /// Tags.
    Mki(u32),
    Key(u32, Suite),
    Parameter(u32, String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Syntax => write!(f, "a=crypto is not \"tag suite inline:key\""),
            Unusable::Suite(name) => write!(f, "suite {name} is not known"),
            Unusable::Mki(tag) => write!(f, "a=crypto:{tag} has an MKI"),
            Unusable::Key(tag, suite) => {
                let bytes = suite.inline_len();
                write!(f, "the key of a=crypto:{tag} is not {bytes} bytes in base64, as {suite} needs")
            }
            Unusable::Parameter(tag, name) => write!(f, "a=crypto:{tag} wants {name}"),
        }
    }
}
