//! SRTP with keys from SDES: the only door of `rtc::srtp` (RFC 3711, RFC 4568, RFC 7714).
//!
//! One [`Shield`] is both directions of a call. `rtc-srtp` allocates one buffer for each packet and keeps a state for
//! each SSRC that it has seen, even of a packet that turns out to be forged. So that strangers can't make it grow,
//! the states are kept here, one context for each SSRC that was authentic, [`MOST_SOURCES`] at most; what comes with
//! an SSRC not heard before is tried in a context that is thrown away after [`MOST_PROBED`] forgeries.

use super::ports::{DATAGRAM, MediaError};
use bytes::BytesMut;
use heapless::Vec;
use rtc::shared::error::Error;
use rtc::srtp::context::Context;
use rtc::srtp::crypto;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;

/// The longest master key with its salt: AES-256 in GCM.
pub const LONGEST_KEY: usize = 44;
/// Sources whose state is kept for each direction; a call has one or two, and music on hold another.
pub const MOST_SOURCES: usize = 6;
/// Forged packets with SSRCs not heard before, until the state that they left is thrown away.
pub const MOST_PROBED: u32 = 64;
/// How far behind the newest packet one may come and be told from a replay (RFC 3711 §3.3.2: at least 64).
const WINDOW: usize = 128;
/// The first byte of the four behind SRTCP's payload: the packet is encrypted.
const ENCRYPTED: u8 = 0x80;

/// What protects the sound (RFC 4568 §6.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// AES-128 in counter mode, HMAC-SHA1 of 80 bits.
    AesCm128HmacSha1_80,
    /// The same with 32 bits for RTP; RTCP has 80.
    AesCm128HmacSha1_32,
    /// AES-128 in GCM.
    AeadAes128Gcm,
    /// AES-256 in GCM.
    AeadAes256Gcm,
}

impl Suite {
    fn profile(self) -> ProtectionProfile {
        match self {
            Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
            Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        }
    }

    /// Bytes of the master key, and of the salt behind it.
    pub const fn lengths(self) -> (usize, usize) {
        match self {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => (16, 14),
            Suite::AeadAes128Gcm => (16, 12),
            Suite::AeadAes256Gcm => (32, 12),
        }
    }
}

/// A master key with its salt behind it, as in `inline:` of SDES, decoded. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(Vec<u8, LONGEST_KEY>);

impl MasterKey {
    /// Key and salt in one; `None` if it is longer than any suite's.
    pub fn new(key_and_salt: &[u8]) -> Option<MasterKey> {
        Vec::from_slice(key_and_salt).ok().map(MasterKey)
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

/// What was agreed on: both directions have keys of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrtpKeys {
    /// How it is protected, both ways.
    pub suite: Suite,
    /// What we protect with: from our SDP.
    pub ours: MasterKey,
    /// What the PBX protects with: from its SDP.
    pub theirs: MasterKey,
}

/// Packets that were not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Not authentic, or not SRTP at all.
    pub forged: u64,
    /// Heard before, or too old to know.
    pub replayed: u64,
}

/// One direction's key and what is known of each source.
struct Direction {
    suite: Suite,
    key: MasterKey,
    sources: Vec<(u32, Context), MOST_SOURCES>,
    probe: Context,
    probed: u32,
}

fn context(suite: Suite, key: &MasterKey) -> Result<Context, MediaError> {
    let (length, salt) = suite.lengths();
    let (key, salt) =
        key.0.split_at_checked(length).filter(|(_, rest)| rest.len() == salt).ok_or(MediaError::Keys)?;
    let provider = crypto::default_provider().map_err(|_| MediaError::Keys)?;
    let replays = (srtp_replay_protection(WINDOW), srtcp_replay_protection(WINDOW));
    Context::new(key, salt, suite.profile(), Some(replays.0), Some(replays.1), provider.crypto())
        .map_err(|_| MediaError::Keys)
}

impl Direction {
    fn new(suite: Suite, key: &MasterKey) -> Result<Direction, MediaError> {
        let probe = context(suite, key)?;
        Ok(Direction { suite, key: key.clone(), sources: Vec::new(), probe, probed: 0 })
    }

    fn is(&self, suite: Suite, key: &MasterKey) -> bool {
        self.suite == suite && self.key == *key
    }

    /// Does it in the source's own context. `None` if the context refused, or none could be made.
    fn with<T, E>(&mut self, ssrc: u32, act: impl FnOnce(&mut Context) -> Result<T, E>) -> Option<T> {
        if let Some((_, known)) = self.sources.iter_mut().find(|(known, _)| *known == ssrc) {
            return act(known).ok();
        }
        match act(&mut self.probe) {
            Ok(done) => {
                // An authentic source: what it was tried in is its own from now on.
                if let Ok(fresh) = context(self.suite, &self.key) {
                    let own = std::mem::replace(&mut self.probe, fresh);
                    self.probed = 0;
                    if self.sources.is_full() {
                        self.sources.remove(0);
                    }
                    // There is room now.
                    let _ = self.sources.push((ssrc, own));
                }
                Some(done)
            }
            Err(_) => {
                self.probed += 1;
                if self.probed >= MOST_PROBED
                    && let Ok(fresh) = context(self.suite, &self.key)
                {
                    self.probe = fresh;
                    self.probed = 0;
                }
                None
            }
        }
    }
}

/// Both directions of a call under SRTP.
pub struct Shield {
    ours: Direction,
    theirs: Direction,
    refused: Refused,
}

impl Shield {
    /// Under these keys, nothing sent or heard yet.
    ///
    /// # Errors
    /// [`MediaError::Keys`]: the keys don't fit the suite.
    pub fn new(keys: &SrtpKeys) -> Result<Shield, MediaError> {
        Ok(Shield {
            ours: Direction::new(keys.suite, &keys.ours)?,
            theirs: Direction::new(keys.suite, &keys.theirs)?,
            refused: Refused::default(),
        })
    }

    /// A new agreement. A direction whose key is the same goes on where it is, with its count of wraps and its
    /// memory of what was heard; one with a new key begins at zero. True if ours is a new one: then what is sent
    /// needs another SSRC, or a key that comes back later would be used twice for the same numbers.
    ///
    /// # Errors
    /// [`MediaError::Keys`]: the keys don't fit the suite. Those so far stay.
    pub fn rekey(&mut self, keys: &SrtpKeys) -> Result<bool, MediaError> {
        let renewed = |direction: &Direction, key: &MasterKey| {
            if direction.is(keys.suite, key) { Ok(None) } else { Direction::new(keys.suite, key).map(Some) }
        };
        let ours = renewed(&self.ours, &keys.ours)?;
        let theirs = renewed(&self.theirs, &keys.theirs)?;
        if let Some(theirs) = theirs {
            self.theirs = theirs;
        }
        let renewed = ours.is_some();
        if let Some(ours) = ours {
            self.ours = ours;
        }
        Ok(renewed)
    }

    /// Protects one RTP datagram in its place. False if it has no room for the tag, or the key is used up: it must
    /// not be sent.
    #[must_use]
    pub fn protect<const N: usize>(&mut self, datagram: &mut Vec<u8, N>) -> bool {
        let Some(ssrc) = word(datagram, 8) else { return false };
        let protected = self.ours.with(ssrc, |context| context.encrypt_rtp(datagram));
        replace(datagram, protected.as_deref())
    }

    /// Protects one compound RTCP packet in its place, as [`Shield::protect`].
    #[must_use]
    pub fn protect_rtcp<const N: usize>(&mut self, datagram: &mut Vec<u8, N>) -> bool {
        let Some(ssrc) = word(datagram, 4) else { return false };
        let protected = self.ours.with(ssrc, |context| context.encrypt_rtcp(datagram));
        replace(datagram, protected.as_deref())
    }

    /// The plain RTP packet in a datagram; `None` if it is forged, a replay, or too long, which is counted.
    pub fn unprotect(&mut self, datagram: &[u8]) -> Option<Vec<u8, DATAGRAM>> {
        let ssrc = word(datagram, 8);
        self.open(ssrc, |context| context.decrypt_rtp(datagram))
    }

    /// The plain RTCP packet in a datagram; `None` if it is forged, a replay, or too long, which is counted.
    ///
    /// One that claims not to be encrypted is refused: `rtc-srtp` would take it without looking at its tag.
    pub fn unprotect_rtcp(&mut self, datagram: &[u8]) -> Option<Vec<u8, DATAGRAM>> {
        let behind = match self.theirs.suite {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => 4 + 10,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 4,
        };
        let flags = datagram.len().checked_sub(behind).and_then(|at| datagram.get(at));
        if flags.is_none_or(|flags| flags & ENCRYPTED == 0) {
            self.refused.forged += 1;
            return None;
        }
        let ssrc = word(datagram, 4);
        self.open(ssrc, |context| context.decrypt_rtcp(datagram))
    }

    fn open(
        &mut self,
        ssrc: Option<u32>,
        act: impl FnOnce(&mut Context) -> Result<BytesMut, Error>,
    ) -> Option<Vec<u8, DATAGRAM>> {
        let mut replayed = false;
        let plain = ssrc.and_then(|ssrc| {
            self.theirs.with(ssrc, |context| {
                act(context).inspect_err(|error| {
                    replayed =
                        matches!(error, Error::SrtpSsrcDuplicated(..) | Error::SrtcpSsrcDuplicated(..));
                })
            })
        });
        let plain = plain.and_then(|plain| Vec::from_slice(&plain).ok());
        if plain.is_none() {
            *(if replayed { &mut self.refused.replayed } else { &mut self.refused.forged }) += 1;
        }
        plain
    }

    /// What was not let in so far.
    pub fn refused(&self) -> Refused {
        self.refused
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(four))
}

fn replace<const N: usize>(datagram: &mut Vec<u8, N>, protected: Option<&[u8]>) -> bool {
    let Some(protected) = protected.filter(|protected| protected.len() <= N) else { return false };
    datagram.clear();
    datagram.extend_from_slice(protected).is_ok()
}

#[cfg(test)]
#[path = "srtp_tests.rs"]
mod tests;
