//! The tap: what both sides of a call said in one tick, copied for the recorder.
//!
//! The sound threads decode nothing for it: what went through undecoded is copied undecoded.

use super::WIDEST;
use super::ports::OPUS_PAYLOAD;
use heapless::Vec;

/// Ticks that may wait for the recorder: 4 s. What does not fit is missing in the recording, never in the call.
pub const WAITING: usize = 200;

/// What one side said in 20 ms.
// On the sound threads nothing may be allocated, so the largest one sets the size of all.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Said {
    /// Nothing: it is not there.
    #[default]
    Nothing,
    /// Linear sound of 20 ms: 160, 320 or 480 samples at 8,000, 16,000 or 24,000 Hz.
    Linear(Vec<i16, WIDEST>),
    /// An Opus packet as it came, of 20 ms or more: the next ticks are [`Said::Lasts`] as long as it sounds.
    Opus(Vec<u8, OPUS_PAYLOAD>),
    /// An Opus packet of 20 ms was lost.
    Lost,
    /// The packet before lasts.
    Lasts,
}

/// One tick of both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    /// Ticks of 20 ms since the tap was opened. Where numbers are missing, nothing was taken down.
    pub at: u32,
    /// The recording is paused: both sides are [`Said::Nothing`].
    pub paused: bool,
    /// By how many samples at 48 kHz what the user says here is older than what the destination says here: it has
    /// waited longer for its turn. `None`: nobody knows.
    pub offset: Option<i16>,
    /// The WhatsApp user: the left channel.
    pub user: Said,
    /// The destination: the right channel.
    pub far: Said,
}
