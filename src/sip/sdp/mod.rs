//! Session descriptions towards a PBX (RFC 8866): offers and answers (RFC 3264), their codecs, their
//! SRTP keys (RFC 4568), and what the two sides have agreed.
//!
//! | file | what |
//! |---|---|
//! | `ours` | what we write, and read back from our own text |
//! | `theirs` | what the PBX writes |
//! | `choice` | what is taken of it |
//! | `crypto` | a=crypto lines, suites, keys |
//! | `error` | why a description cannot be used |
//!
//! Our first offer is all that need be kept of a call: codecs, policy and keys are in its text, and every
//! later description of ours is made from it.
//!
//! Our side about SRTP, as its text shows it:
//!
//! | policy | we offer | of an offer we take |
//! |---|---|---|
//! | off | RTP/AVP | RTP/AVP; keys in it are not read |
//! | optional | RTP/AVP with keys | RTP/SAVP, RTP/AVP with keys, RTP/AVP without |
//! | required | RTP/SAVP with keys | RTP/SAVP |

mod choice;
mod crypto;
mod error;
mod ours;
mod theirs;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

use choice::Choice;
use ours::{Own, Sound};
use theirs::{Description, Origin};

pub use crypto::{Key, Keys, SrtpPolicy, Suite};
pub use error::SdpError;

/// What a trunk can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// Opus (RFC 7587): its RTP clock runs at 48 kHz whatever it carries.
    Opus,
    /// G.722 at 64 kbit/s: 16,000 samples a second under an RTP clock of 8 kHz (RFC 3551 §4.5.2).
    G722,
    /// G.711, A-law.
    Pcma,
    /// G.711, µ-law.
    Pcmu,
}

impl Codec {
    /// All of them, best sound first.
    pub const ALL: [Codec; 4] = [Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu];

    /// The RTP clock in Hz.
    pub fn clock(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            Codec::G722 | Codec::Pcma | Codec::Pcmu => 8_000,
        }
    }

    /// The payload type that we offer it with: the static one of RFC 3551, 96 for Opus.
    pub fn payload_type(self) -> u8 {
        match self {
            Codec::Opus => 96,
            Codec::G722 => 9,
            Codec::Pcma => 8,
            Codec::Pcmu => 0,
        }
    }

    /// The encoding name of its a=rtpmap.
    pub fn encoding(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::G722 => "G722",
            Codec::Pcma => "PCMA",
            Codec::Pcmu => "PCMU",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encoding())
    }
}

/// Our side of the sound.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalMedia {
    /// Where we want RTP.
    pub rtp: SocketAddr,
    /// The session id of the o= line: one number for the whole call.
    pub session: u64,
    /// The version of the o= line: grows with every change.
    pub version: u64,
    /// The codecs we offer, in order of preference: at least one.
    pub codecs: Vec<Codec>,
    /// Whether we offer telephone-event (RFC 4733).
    pub dtmf: bool,
    /// Whether we offer SRTP, and insist on it.
    pub srtp: SrtpPolicy,
    /// Every key of ours is derived from this, so it must be random and of this call alone. Not read if
    /// SRTP is off. Never printed.
    pub secret: [u8; 32],
}

impl fmt::Debug for LocalMedia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalMedia")
            .field("rtp", &self.rtp)
            .field("session", &self.session)
            .field("version", &self.version)
            .field("codecs", &self.codecs)
            .field("dtmf", &self.dtmf)
            .field("srtp", &self.srtp)
            .finish_non_exhaustive()
    }
}

/// The PBX's side of the sound, and what was agreed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteMedia {
    /// Where it wants RTP. The address is 0.0.0.0 while it holds the call in the way of RFC 2543.
    pub rtp: SocketAddr,
    /// Where it wants RTCP: the same as RTP if they are multiplexed, else its a=rtcp (RFC 3605), else the
    /// next port.
    pub rtcp: SocketAddr,
    /// RTP and RTCP share a port, both ways (RFC 5761).
    pub rtcp_mux: bool,
    /// The codec to send.
    pub codec: Codec,
    /// The payload type to send it with.
    pub pt: u8,
    /// The payload type that the PBX should send it with: ours. Nearly always the same; RFC 3264 §5.1
    /// allows another, and then some PBXs send this one and some [`pt`](RemoteMedia::pt).
    pub heard_pt: u8,
    /// How digits go, if both sides take telephone-event.
    pub dtmf: Option<Telephone>,
    /// The payload type of comfort noise (RFC 3389), if both sides take it.
    pub comfort_noise: Option<u8>,
    /// The packet length it asks for, in milliseconds.
    pub ptime_ms: Option<u32>,
    /// As the PBX sees it: `SendOnly` means that it sends and does not listen.
    pub direction: Direction,
    /// The keys if the sound is SRTP.
    pub keys: Option<Keys>,
    /// How it wants Opus; the defaults of RFC 7587 for any other codec.
    pub opus: OpusFormat,
}

/// One telephone-event format (RFC 4733).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telephone {
    /// The payload type to send it with.
    pub pt: u8,
    /// The clock of its durations and timestamps, in Hz. Usually the codec's, but a PBX may offer 8 kHz
    /// beside Opus.
    pub clock: u32,
}

/// What a receiver of Opus asks for (RFC 7587 §6.1). The default is the RFC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpusFormat {
    /// It makes use of in-band FEC.
    pub fec: bool,
    /// It likes discontinuous transmission.
    pub dtx: bool,
    /// It prefers stereo.
    pub stereo: bool,
    /// The highest mean bit rate it wants, in bits a second.
    pub max_bitrate: Option<u32>,
}

/// Who sends, as the writer of the description sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    SendRecv,
    /// The writer only sends: we are on hold, perhaps with music.
    SendOnly,
    /// The writer only listens.
    RecvOnly,
    /// Nobody.
    Inactive,
}

impl Direction {
    const ALL: [Direction; 4] =
        [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];

    /// What the other side answers (RFC 3264 §6.1).
    pub fn mirrored(self) -> Direction {
        match self {
            Direction::SendRecv => Direction::SendRecv,
            Direction::SendOnly => Direction::RecvOnly,
            Direction::RecvOnly => Direction::SendOnly,
            Direction::Inactive => Direction::Inactive,
        }
    }

    fn attribute(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    fn of_attribute(name: &str) -> Option<Direction> {
        Direction::ALL.into_iter().find(|direction| direction.attribute() == name)
    }

    /// A connection address of zero is how RFC 2543 said hold: its writer cannot listen.
    fn deaf(self) -> Direction {
        match self {
            Direction::SendRecv | Direction::SendOnly => Direction::SendOnly,
            Direction::RecvOnly | Direction::Inactive => Direction::Inactive,
        }
    }
}

/// Our offer.
pub fn offer(local: &LocalMedia) -> String {
    Sound::offered(local).text(Origin { session: local.session, version: local.version }, local.rtp)
}

/// Our answer to the PBX's offer `theirs`, made from our own first offer `ours`: its address and session,
/// the first of its codecs that the PBX offers, under the PBX's payload types; the direction mirrored,
/// every other medium refused in its place.
///
/// An answer of ours in place of `ours` is understood too, but then nothing else than it says can be
/// agreed on.
///
/// # Errors
/// The PBX's offer has nothing that we can take: 488 is the answer. [`SdpError::Ours`] is our own mistake.
pub fn reply(ours: &str, theirs: &[u8], version: u64) -> Result<String, SdpError> {
    let own = Own::read(ours)?;
    let offered = Description::read(theirs)?;
    let (index, choice) = offered.first_audio(None, |medium| Choice::answering(&own, &offered, medium))?;
    let origin = Origin { session: own.origin.session, version };
    Ok(Sound::answered(&own, &choice).text_among(origin, own.rtp, index, &offered.media))
}

/// Whether an offer of the PBX can be answered, before anything is known of our own address.
///
/// # Errors
/// As [`reply`].
pub fn answerable(codecs: &[Codec], srtp: SrtpPolicy, theirs: &[u8]) -> Result<(), SdpError> {
    let local = LocalMedia {
        // The discard port: nothing is sent there.
        rtp: SocketAddr::from(([127, 0, 0, 1], 9)),
        session: 0,
        version: 0,
        codecs: codecs.to_vec(),
        dtmf: false,
        srtp,
        // No key leaves from here.
        secret: [0; 32],
    };
    reply(&offer(&local), theirs, 0).map(drop)
}

/// Our own first offer again with a higher version: the answer to a re-INVITE that carries no offer.
///
/// # Errors
/// [`SdpError::Ours`]: `ours` is no description of ours.
pub fn offer_again(ours: &str, version: u64) -> Result<String, SdpError> {
    let own = Own::read(ours)?;
    Ok(Sound::again(&own).text(Origin { session: own.origin.session, version }, own.rtp))
}

/// What was negotiated between our present description `ours` and the PBX's `theirs`, whichever of the two
/// was the offer: where and how to send, keys included.
///
/// # Errors
/// The PBX's description can't be used, or answers something that we did not offer.
pub fn agreed(ours: &str, theirs: &[u8]) -> Result<RemoteMedia, SdpError> {
    let own = Own::read(ours)?;
    let read = Description::read(theirs)?;
    let (_, media) = read.first_audio(Some(own.index), |medium| choice::agreed(&own, &read, medium))?;
    Ok(media)
}

/// The version of our description's o= line.
pub(crate) fn version_of(ours: &str) -> u64 {
    Own::read(ours).map_or(0, |own| own.origin.version)
}
