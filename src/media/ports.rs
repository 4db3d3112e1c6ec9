//! What goes into a bridge and comes out of it: settings, what was agreed on, packets, errors.

use super::tap::{Said, Slice};
use super::{WIDEST, dtmf};
use heapless::Vec;

/// The longest Opus payload that is kept; 20 kbit/s is about 50 bytes for 20 ms.
pub const OPUS_PAYLOAD: usize = 480;
/// The longest datagram for the PBX: RTP header, Opus, and what SRTP adds.
pub const DATAGRAM: usize = 12 + OPUS_PAYLOAD + 20;

/// How to begin a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSettings {
    /// Payload type of Opus towards and from WhatsApp.
    pub opus_pt: u8,
    /// Payload type of telephone-event from WhatsApp; `None` if its SDP had none (126 is then
    /// still understood).
    pub user_dtmf_pt: Option<u8>,
    /// Sound that waits in each jitter buffer, 20 to 200 ms.
    pub jitter_ms: u32,
    /// Opus complexity, 0 to 10.
    pub complexity: u8,
    /// Opus bit rate in bit/s, 6,000 to 64,000; Meta asks for 20,000 at most.
    pub bitrate: u32,
    /// Where the numbers of both streams begin.
    pub seeds: Seeds,
}

/// Random numbers, drawn by the caller (RFC 3550 §5.1 wants unpredictable beginnings).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds {
    /// SSRC towards WhatsApp, as written in the SDP. The caller puts it into the packets.
    pub user_ssrc: u32,
    /// First sequence number towards WhatsApp.
    pub user_seq: u16,
    /// First timestamp towards WhatsApp.
    pub user_timestamp: u32,
    /// First SSRC towards the PBX; a change between clocks of 8 and 48 kHz takes another one (RFC 7160 §4.1).
    pub far_ssrc: u32,
    /// First sequence number towards the PBX; below 0x8000, so that SRTP's count of wraps is the same at both
    /// ends even if the first packets are lost.
    pub far_seq: u16,
    /// First timestamp towards the PBX.
    pub far_timestamp: u32,
}

/// What a PBX can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Opus, passed through as it is (RFC 7587).
    Opus,
    /// G.722 at 64 kbit/s: 16 kHz sound on a clock of 8 kHz (RFC 3551 §4.5.2).
    G722,
    /// G.711 A-law.
    Pcma,
    /// G.711 µ-law.
    Pcmu,
}

impl Codec {
    /// The clock of its RTP timestamps, in Hz.
    pub const fn clock(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            Codec::G722 | Codec::Pcma | Codec::Pcmu => 8_000,
        }
    }
}

/// telephone-event as it was agreed on (RFC 4733).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DtmfFormat {
    /// Its payload type.
    pub pt: u8,
    /// The clock of its timestamps and durations, in Hz: 8,000 or 48,000.
    pub clock: u32,
}

/// What was agreed on with the PBX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarMedia {
    /// The codec, both ways.
    pub codec: Codec,
    /// Its payload type.
    pub pt: u8,
    /// telephone-event, if the PBX takes it.
    pub dtmf: Option<DtmfFormat>,
    /// Payload type of comfort noise (RFC 3389), if agreed on; 13 is understood all the same.
    pub comfort_noise: Option<u8>,
    /// False while it holds us: it is sent nothing.
    pub sends: bool,
    /// Whether the PBX has said that it sends to us.
    pub speaks: bool,
    /// Keys of the user are told in [`Outgoing::digit`] instead of being sent as RTP.
    pub digits_told: bool,
}

/// Why a bridge could not be made or changed. The call must be refused; another one may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaError {
    /// libopus refused, most often for want of memory.
    Opus {
        /// Its error code (`opus_defines.h`: -7 is "no memory"); 0 if it was not even asked.
        code: i32,
    },
    /// An agent can be spoken with at 8,000, 16,000 and 24,000 Hz only.
    Rate {
        /// What was asked for, in Hz.
        rate: u32,
    },
    /// SRTP can't be spoken with these keys: the length does not fit the suite.
    Keys,
}

impl Codec {
    /// Its word in the configuration and on records.
    pub const fn word(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::G722 => "g722",
            Codec::Pcma => "pcma",
            Codec::Pcmu => "pcmu",
        }
    }
}

impl std::fmt::Display for MediaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MediaError::Opus { code } => write!(f, "no Opus coder for this call: libopus error {code}"),
            MediaError::Rate { rate } => write!(f, "an agent can't be spoken with at {rate} Hz"),
            MediaError::Keys => f.write_str("the SRTP keys don't fit their suite"),
        }
    }
}

impl std::error::Error for MediaError {}

/// One RTP packet from WhatsApp, decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserPacket<'a> {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, 48 kHz.
    pub timestamp: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

/// One RTP packet for WhatsApp; the SSRC is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFrame {
    /// Payload type of Opus.
    pub payload_type: u8,
    /// Set on the very first packet.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, 48 kHz.
    pub timestamp: u32,
    /// One Opus packet of 20 ms.
    pub payload: Vec<u8, OPUS_PAYLOAD>,
}

/// What one tick sends.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// To WhatsApp: always one packet once the gate is open.
    pub to_user: Option<UserFrame>,
    /// To the PBX's RTP port: complete datagrams.
    pub to_far: Vec<Vec<u8, DATAGRAM>, 4>,
    /// To the agent: 20 ms of what the user says, at the agent's rate. Empty while there is none.
    pub to_agent: Vec<i16, WIDEST>,
    /// To an agent, or to a PBX with [`FarMedia::digits_told`]: a key that the user has released, and how long it
    /// was pressed, in ms. Told once.
    pub digit: Option<(char, u32)>,
    /// A key that was released at the PBX's end (RFC 4733), and how long it was pressed, in ms. Told once.
    pub far_digit: Option<(char, u32)>,
    /// What both sides said, while the tap is open.
    pub tapped: Option<Slice>,
}

impl Outgoing {
    /// Takes down what the user says, unless the recording is paused.
    pub(super) fn tap_user(&mut self, said: impl FnOnce() -> Said) {
        if let Some(slice) = self.tapped.as_mut().filter(|slice| !slice.paused) {
            slice.user = said();
        }
    }

    /// Likewise the far end.
    pub(super) fn tap_far(&mut self, said: impl FnOnce() -> Said) {
        if let Some(slice) = self.tapped.as_mut().filter(|slice| !slice.paused) {
            slice.far = said();
        }
    }
}

/// Which side of the bridge was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeardSide {
    /// WhatsApp.
    User,
    /// The PBX.
    Far,
}

impl DtmfFormat {
    /// Clock units in one of 8 kHz.
    pub(super) fn ratio(self) -> u32 {
        (self.clock / 8_000).clamp(1, dtmf::MOST_RATIO)
    }
}
