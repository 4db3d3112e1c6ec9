//! Sound: 20 ms at a time, in fixed memory, crossed between WhatsApp (Opus) and the PBX.
//!
//! ```text
//!  WhatsApp                                                                      PBX
//!  Opus, 48 kHz clock                                                    its codec and clock
//!     │  from_user                                                  from_far   │
//!     ▼                                                                        ▼
//!  jitter ─► Opus decoded ─► frame ─► G.711 at 8, G.722 at 16 kHz ─► RTP ─► to_far
//!  to_user ◄─ Opus encoded ◄─ frame ◄─ G.711, G.722 decoded ◄───────────── jitter
//!
//!  jitter ─► Opus packets cut and joined to 20 ms, never decoded ─► RTP ──► to_far     where the PBX
//!  to_user ◄───────────────────────── the same the other way ◄──────────── jitter     speaks Opus
//!
//!     digits: RFC 4733 in (48 kHz stamps) ─► RFC 4733 out (8 or 48 kHz), or told; and in from the PBX
//! ```
//!
//! In the place of the PBX there can be an agent that speaks linear sound: then Opus is decoded and encoded at
//! its 8, 16 or 24 kHz, frames of 20 ms come and go as they are, and a digit is told when its key is released.
//!
//! Nothing here reads a clock, opens a socket or draws a random number, and nothing is allocated after
//! [`Bridge::new`] but for new coders in [`Bridge::set_agent`] and [`Bridge::set_far`]. [`srtp`], around it, does
//! allocate per packet. [`tape`] and [`prompt`] are not on the sound's threads, and allocate as they need.
mod alone;
mod bridge;
mod conceal;
mod depth;
mod dtmf;
mod far_voice;
pub mod g711;
pub mod g722;
mod hold;
mod jitter;
mod lag;
mod opus;
mod packing;
mod playout;
mod ports;
pub mod prompt;
mod quality;
pub mod resample;
mod rtcp;
pub mod rtp;
pub mod srtp;
pub mod tap;
pub mod tape;

pub use alone::Alone;
pub use bridge::Bridge;
pub use hold::{Clip, NotAClip};
pub use ports::{
    BridgeSettings, Codec, DATAGRAM, DtmfFormat, FarMedia, HeardSide, MediaError, OPUS_PAYLOAD, Outgoing,
    Seeds, UserFrame, UserPacket,
};
pub use quality::Quality;
pub use rtp::NotRtp;

/// Samples in one tick of 20 ms at 8 kHz, the rate of a PBX.
pub const FRAME: usize = 160;
/// Samples in one tick at 24 kHz, the highest rate of an agent.
pub const WIDEST: usize = 480;
/// RTP clock units of one tick on the Opus side (RFC 7587 §4.1: always 48 kHz).
pub const OPUS_FRAME: u32 = 960;
