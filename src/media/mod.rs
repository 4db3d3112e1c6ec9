//! Sound: 20 ms at a time, in fixed memory, crossed between WhatsApp (Opus) and the PBX (G.711).
//!
//! ```text
//!  WhatsApp                                                                      PBX
//!  Opus, 48 kHz clock                                              G.711, 8 kHz clock
//!     │  from_user                                                  from_far   │
//!     ▼                                                                        ▼
//!  jitter ─► Opus decoded at 8 kHz ─► frame ─► G.711 ─► RTP ──────────────► to_far
//!  to_user ◄── Opus encoded at 8 kHz ◄─ frame ◄─ G.711 decoded ◄─────────── jitter
//!     digits: RFC 4733 in (48 kHz stamps) ─► RFC 4733 out (8 kHz stamps)
//! ```
//!
//! In the place of the PBX there can be an agent that speaks linear sound: then Opus is decoded and encoded at
//! its 8, 16 or 24 kHz, frames of 20 ms come and go as they are, and a digit is told when its key is released.
//!
//! Nothing here reads a clock, opens a socket or draws a random number, and nothing is allocated after
//! [`Bridge::new`] but for a new pair of coders in [`Bridge::set_agent`].
mod alone;
mod bridge;
mod depth;
mod dtmf;
pub mod g711;
mod jitter;
mod opus;
mod playout;
mod quality;
mod rtcp;
pub mod rtp;

pub use alone::Alone;
pub use bridge::{
    Bridge, BridgeSettings, FarMedia, HeardSide, Law, MediaError, Outgoing, Seeds, UserFrame, UserPacket,
};
pub use quality::Quality;
pub use rtp::NotRtp;

/// Samples in one tick of 20 ms at 8 kHz, the rate of a PBX.
pub const FRAME: usize = 160;
/// Samples in one tick at 24 kHz, the highest rate of an agent.
pub const WIDEST: usize = 480;
/// RTP clock units of one tick on the Opus side (RFC 7587 §4.1: always 48 kHz).
pub const OPUS_FRAME: u32 = 960;
