//! What goes into a jitter buffer and what comes out of it.

/// The name of comfort noise here, as a static payload type (RFC 3389 §3).
pub const COMFORT_NOISE_PT: u8 = 13;

/// One packet on its way in.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, in units of the payload's RTP clock.
    pub timestamp: u32,
    /// How long it sounds, in the same units.
    pub duration: u32,
    /// Payload type, handed back with the payload.
    pub payload_type: u8,
    /// The payload.
    pub payload: &'a [u8],
    /// The sender says that it is silent from here on (RFC 3389, or DTX of Opus): if nothing follows, nothing is
    /// missing.
    pub pauses: bool,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It will sound.
    Kept,
    /// It was here already.
    Duplicate,
    /// Its time has passed.
    Late,
    /// Its payload is longer than a place in the ring.
    Oversize,
    /// It does not continue the stream; if the next one follows it, the stream begins anew.
    Strange,
}

/// What is to sound next. Durations are in units of the RTP clock, at most one frame unless `Audio`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A packet, in time.
    Audio {
        /// Payload type.
        payload_type: u8,
        /// The payload.
        payload: &'a [u8],
        /// How long it sounds.
        duration: u32,
    },
    /// A packet is lost and the one after it is here: it may hold a copy (Opus in-band FEC).
    Repair {
        /// Payload type of the packet after the loss.
        payload_type: u8,
        /// Payload of the packet after the loss.
        next: &'a [u8],
        /// How much is missing.
        duration: u32,
    },
    /// Lost or late: invent something.
    Conceal {
        /// How much is missing.
        duration: u32,
    },
    /// The sender is silent, or nothing has come yet.
    Silence {
        /// For how long, this time.
        duration: u32,
    },
}

/// What the buffer has seen, in packets or frames since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Packets that were kept.
    pub kept: u64,
    /// Packets that were here already.
    pub duplicate: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Packets too long for the ring.
    pub oversize: u64,
    /// Packets that did not continue the stream.
    pub strange: u64,
    /// Packets thrown away because the buffer was far too full.
    pub cut: u64,
    /// New SSRCs, sequence and timestamp jumps.
    pub resync: u64,
    /// Packets that were played.
    pub played: u64,
    /// Frames that had to be invented.
    pub concealed: u64,
    /// Frames restored from the packet after.
    pub repaired: u64,
    /// Frames folded away to keep the target depth.
    pub dropped: u64,
    /// Frames put in to keep the target depth.
    pub inserted: u64,
}

impl Counts {
    /// Packets that arrived and were never played.
    pub fn discarded(&self) -> u64 {
        self.duplicate + self.late + self.oversize + self.strange + self.cut
    }
}
