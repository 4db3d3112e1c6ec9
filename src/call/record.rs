//! What remains of a call: one row, written once, after which the call is closed.

use super::leg::{Direction, Why};
use crate::clock::Wall;

/// The sound of one leg as it was received, in plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    /// RTP packets that arrived.
    pub received: u64,
    /// RTP packets that were sent.
    pub sent: u64,
    /// RTP packets that never arrived (RFC 3550 §A.3).
    pub lost: u64,
    /// RTP packets that arrived too late to be played, or twice.
    pub discarded: u64,
    /// 20 ms frames that had to be invented (loss concealment), FEC repairs not counted.
    pub concealed: u64,
    /// 20 ms frames repaired from in-band FEC.
    pub repaired: u64,
    /// Interarrival jitter in milliseconds (RFC 3550 §6.4.1).
    pub jitter_ms: f64,
    /// Estimated mean opinion score, 1.0 to 4.5 (ITU-T G.107 simplified); 0.0 when nothing was heard.
    pub mos: f64,
}

/// One finished call.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Our own id, unique for ever: `call_` and 24 hex digits.
    pub id: String,
    /// Meta's id, `wacid.…`; empty if Meta never gave one.
    pub wacid: String,
    /// The configured number's `id`.
    pub number: String,
    /// Who asked for the call.
    pub direction: Direction,
    /// The caller: `+E164`, a BSUID, or the business number on outbound calls.
    pub from: String,
    /// The caller's or callee's WhatsApp profile name, if Meta gave one.
    pub profile_name: Option<String>,
    /// The business-scoped user id of the WhatsApp user, if Meta gave one.
    pub user_id: Option<String>,
    /// The callee.
    pub to: String,
    /// Where the call was sent: `sip:200@pbx`, `tel:+…`, `wss://…`.
    pub destination: String,
    /// When it was offered to us.
    pub offered_at: Wall,
    /// When both ends could hear each other; `None` if it was never answered.
    pub answered_at: Option<Wall>,
    /// When it was over.
    pub ended_at: Wall,
    /// Seconds of talking, by the monotonic clock.
    pub talk_seconds: f64,
    /// Why it ended.
    pub why: Why,
    /// One sentence for an operator: what was said on the wire.
    pub detail: String,
    /// The final SIP status or the cause of the BYE, if there was one.
    pub sip_code: Option<u16>,
    /// Meta's error code, if there was one.
    pub meta_code: Option<i64>,
    /// What came from WhatsApp.
    pub whatsapp: Quality,
    /// What came from the destination.
    pub far: Quality,
}

impl Record {
    /// Whether anyone ever talked.
    pub fn answered(&self) -> bool {
        self.answered_at.is_some()
    }
}
