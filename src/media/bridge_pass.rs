//! Opus passed through between WhatsApp and a PBX that speaks it: paced, cut to 20 ms, never decoded.
//!
//! What is lost or not sent becomes empty frames for a while: the receiver goes on from what it heard, as it would
//! have without us. Towards WhatsApp this lasts 600 ms, longer than any encoder pauses (400 ms); then it is the
//! caller's turn to say something of its own. Towards the PBX a loss whose repair is in the next packet stays a hole
//! in the sequence numbers, so that the PBX makes use of it.

use super::{FAR_PAYLOAD, FAR_RING, OPUS_PAYLOAD, USER_RING};
use crate::clock::Tick;
use crate::media::OPUS_FRAME;
use crate::media::depth::Adjust;
use crate::media::jitter::{Frame, Jitter};
use crate::media::opus;
use crate::media::packing::{self, Packing};
use crate::media::ports::Codec;
use heapless::Vec;

/// Empty frames in a row towards WhatsApp: 600 ms.
const MOST_INVENTED: u32 = 30;
/// After a packet that can't be cut, so many that can be until packets go through again.
const WHOLE_LASTS: u32 = 50;
/// A tick is filled by at most this many packets (8 of 2.5 ms).
const PACKETS_PER_TICK: usize = 20;

/// One direction.
struct Way {
    packing: Packing,
    /// Whether anything was heard on it.
    begun: bool,
    /// Ticks in a row of which nothing was said by the sender.
    invented: u32,
    /// The last tick was one that nobody would have missed.
    quiet: bool,
    /// How much longer than 20 ms the last packet was, in ticks.
    owed: u32,
}

/// Both directions.
pub(super) struct Passing {
    user: Way,
    far: Way,
    /// The PBX sends packets that can't be cut: for so many packets more they are decoded and encoded.
    whole: u32,
    /// The last packet to WhatsApp came from the PBX.
    pub(super) to_user: bool,
}

/// What is to be sent to the PBX on this tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToFar {
    /// The packet.
    Packet,
    /// Nothing, and a number is left out: it was lost, and the next packet repairs it.
    Hole,
    /// Nothing: the packet before lasts until now.
    Wait,
}

impl Way {
    fn new() -> Way {
        Way { packing: Packing::new(), begun: false, invented: 0, quiet: true, owed: 0 }
    }

    /// Fills up to 20 ms from the buffer. True if a packet is lost that the one after it repairs: towards the PBX that
    /// may stay a hole. Only there long packets may pass, too.
    fn fill<const N: usize, const P: usize>(&mut self, jitter: &mut Jitter<N, P>, to_pbx: bool) -> bool {
        for _ in 0..PACKETS_PER_TICK {
            if self.packing.units() >= OPUS_FRAME {
                break;
            }
            let repaired = match jitter.pop() {
                Frame::Audio { payload, duration, .. } => {
                    self.begun = true;
                    if (!to_pbx && packing::is_long(payload)) || !self.packing.push(payload) {
                        self.packing.invent(duration);
                    }
                    continue;
                }
                Frame::Repair { next, duration, .. } => {
                    if to_pbx
                        && duration == OPUS_FRAME
                        && self.packing.units() == 0
                        && opus::carries_repair(next)
                    {
                        return true;
                    }
                    self.packing.invent(duration);
                    true
                }
                Frame::Conceal { duration } | Frame::Silence { duration } => {
                    self.packing.invent(duration);
                    false
                }
            };
            if repaired {
                jitter.was_not_repaired();
            }
        }
        false
    }

    /// The next packet; how long it sounds, in units of 48 kHz.
    fn take(&mut self, packet: &mut Vec<u8, OPUS_PAYLOAD>) -> Option<u32> {
        let packed = self.packing.take(packet)?;
        self.quiet = packed.quiet;
        self.invented = if packed.invented { self.invented.saturating_add(1) } else { 0 };
        Some(packed.units)
    }

    /// How long ago what was last taken was said, in µs.
    fn lag<const N: usize, const P: usize>(&self, jitter: &Jitter<N, P>, now: Tick) -> Option<i64> {
        jitter.lag(self.packing.units() + (self.owed + 1) * OPUS_FRAME, now)
    }

    /// One tick's worth is left out, or put in.
    fn adjust<const N: usize, const P: usize>(&mut self, jitter: &mut Jitter<N, P>, to_pbx: bool) {
        match jitter.adjust(self.quiet) {
            Adjust::Keep => {}
            Adjust::Drop => {
                if !self.fill(jitter, to_pbx) {
                    let _ = self.take(&mut Vec::new());
                }
            }
            Adjust::Insert => self.packing.invent_first(),
        }
    }
}

impl Passing {
    pub(super) fn new() -> Passing {
        Passing { user: Way::new(), far: Way::new(), whole: 0, to_user: false }
    }

    /// Another far end, or another codec: nothing of before is said any more.
    pub(super) fn clear(&mut self) {
        self.user = Way::new();
        self.far = Way::new();
        self.whole = 0;
    }

    /// Looks at a packet of the PBX: one that can't be cut is to be decoded, and so are the next ones.
    pub(super) fn look_at(&mut self, payload: &[u8]) {
        if packing::is_long(payload) {
            if self.whole == 0 {
                self.far.packing.clear();
            }
            self.whole = WHOLE_LASTS;
        } else {
            self.whole = self.whole.saturating_sub(1);
        }
    }

    /// Whether what the PBX says goes to WhatsApp as it is.
    pub(super) fn goes_through(&self, codec: Codec) -> bool {
        codec == Codec::Opus && self.whole == 0
    }

    /// How long ago what each side said last was said, the user first, in µs.
    pub(super) fn lags(
        &self,
        user: &Jitter<USER_RING, OPUS_PAYLOAD>,
        far: &Jitter<FAR_RING, FAR_PAYLOAD>,
        now: Tick,
    ) -> (Option<i64>, Option<i64>) {
        (self.user.lag(user, now), self.far.lag(far, now))
    }

    /// What WhatsApp hears of the PBX in this tick; false if the PBX has been silent for long.
    pub(super) fn hear_far(
        &mut self,
        jitter: &mut Jitter<FAR_RING, FAR_PAYLOAD>,
        packet: &mut Vec<u8, OPUS_PAYLOAD>,
    ) -> bool {
        let way = &mut self.far;
        way.adjust(jitter, false);
        way.fill(jitter, false);
        way.take(packet).is_some() && way.begun && way.invented <= MOST_INVENTED
    }

    /// What the PBX hears of WhatsApp in this tick. Something is there on every tick: before the user has said
    /// anything, silence.
    pub(super) fn hear_user(
        &mut self,
        jitter: &mut Jitter<USER_RING, OPUS_PAYLOAD>,
        packet: &mut Vec<u8, OPUS_PAYLOAD>,
    ) -> ToFar {
        let way = &mut self.user;
        if way.owed > 0 {
            way.owed -= 1;
            return ToFar::Wait;
        }
        way.adjust(jitter, true);
        if way.fill(jitter, true) {
            return ToFar::Hole;
        }
        match way.take(packet) {
            Some(units) => {
                way.owed = (units / OPUS_FRAME).saturating_sub(1);
                ToFar::Packet
            }
            None => ToFar::Wait,
        }
    }
}
