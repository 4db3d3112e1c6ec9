//! SDP with Meta, both ways: what a WhatsApp call needs and no more.
//!
//! Neither side's SDP passes through: Meta's description is read into facts and written anew for our
//! WebRTC stack, the stack's is read for its secrets and written anew for Meta. So what Meta refuses
//! (several fingerprints, foreign codecs and extensions) can't leak out of a stack, and what a stack
//! stumbles over can't leak in.
//!
//! * A user calls: [`Offer`] in, [`answer`] out.
//! * The business calls: [`offer`] out, [`Answer`] in.
//!
//! RFC 8866 (SDP), RFC 3264 (offer and answer), RFC 8839 (ICE in SDP), RFC 8842 (DTLS roles), RFC 8122
//! (fingerprint), RFC 5576 (ssrc), RFC 7587 (Opus).

mod lines;
mod ours;
mod theirs;

pub use ours::{Kind, Place, StackFault, answer, offer};
pub use theirs::{Answer, Offer, OfferFault, Setup};

/// Longest description that is read, in bytes. Meta's have about 1000.
pub const MAX_SDP: usize = 16 * 1024;

#[cfg(test)]
mod tests;
