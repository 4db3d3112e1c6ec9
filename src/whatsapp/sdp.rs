//! SDP with Meta: its offer in, our answer out. What a WhatsApp call needs and no more.
//!
//! Neither side's SDP passes through: Meta's offer is read into facts and written anew for our WebRTC
//! stack, the stack's answer is read for its secrets and written anew for Meta. So what Meta refuses
//! (several fingerprints, foreign codecs and extensions) can't leak out of a stack, and what a stack
//! stumbles over can't leak in.
//!
//! RFC 8866 (SDP), RFC 8839 (ICE in SDP), RFC 8122 (fingerprint), RFC 5576 (ssrc), RFC 7587 (Opus).

mod answer;
mod lines;
mod offer;

pub use answer::{AnswerFault, Kind, Place, answer};
pub use offer::{Offer, OfferFault, Setup};

/// Longest description that is read, in bytes. Meta's have about 1000.
pub const MAX_SDP: usize = 16 * 1024;

#[cfg(test)]
mod tests;
