//! The jitter buffer: packets come when they like, frames leave when the clock asks.
//!
//! A ring of fixed size, indexed by sequence number, with the payloads inside: nothing is allocated.
//! The buffer keeps a cursor, the sequence number and the timestamp that are to sound next.
//!
//! ```text
//!              cursor (next_seq, next_ts)            newest
//!                │                                      │
//!   played ──────┤  41   42   ( )   44   ( )   46   47  │      ( ) missing
//!                │             │          │
//!                │             │          └ pop: the gap is one packet long: Repair from 46
//!                │             └ pop: Repair from 44
//!                └ pop: Audio 41
//!
//!   sequence numbers missing            -> lost: Repair or Conceal
//!   timestamp ahead, none missing       -> the sender was silent (DTX): Silence, not counted
//!   ring empty                          -> late or silent, not known yet: Conceal for 100 ms, then
//!                                          Silence; the cursor runs on, and is wound back if what
//!                                          comes then turns out to be late
//!   new SSRC, sequence or timestamp jump -> the new numbers are shifted so that they continue the
//!                                          old ones: the cursor never sees a jump
//! ```
//!
//! What the clocks differ by is taken out by dropping or putting in a frame: see `depth`.

use super::depth::{Adjust, Steering};
use super::lag::Lag;
use crate::clock::Tick;
use heapless::Vec;
use std::time::Duration;

#[path = "jitter_frames.rs"]
mod frames;

pub use frames::{COMFORT_NOISE_PT, Counts, Frame, Incoming, Pushed};

/// A packet that does not continue the sequence by less than this begins a new one
/// (RFC 3550 §A.1: MAX_DROPOUT), once the next one follows it.
const MAX_DROPOUT: i16 = 3_000;
/// Packets may come this much too late in sequence (RFC 3550 §A.1: MAX_MISORDER).
const MAX_MISORDER: i16 = 100;
/// A pause in timestamps may be this much longer than the pause in arrival, else it is a jump.
const JUMP_MS: u64 = 500;
/// After a change of SSRC, what still arrives of the old one is ignored for this long.
const OLD_SSRC: Duration = Duration::from_millis(200);
/// So many frames of running on while nothing came are remembered: a second.
const MOST_STALLED: u32 = 50;
/// So many frames in a row are invented; then it is silence.
const MOST_CONCEALED: u32 = 5;
/// So many frames deeper than the target are cut off at once: 300 ms.
const MOST_FRAMES: u32 = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Empty,
    /// A packet of the same sequence that is not sound: a digit's event.
    Note,
    Sound,
}

#[derive(Debug, Clone)]
struct Slot<const P: usize> {
    content: Content,
    sequence: u16,
    timestamp: u32,
    duration: u32,
    payload_type: u8,
    pauses: bool,
    payload: Vec<u8, P>,
}

/// The stream that is being received, and how its numbers are shifted into ours.
#[derive(Debug, Clone)]
struct Stream {
    ssrc: u32,
    sequence_shift: u16,
    timestamp_shift: u32,
    newest_seq: u16,
    newest_ts: u32,
    newest_at: Tick,
    /// How long the newest packet sounds.
    duration: u32,
    /// The sequence number (as sent) that would confirm a jump.
    suspect: Option<u16>,
    /// The SSRC before this one, and when it was left.
    previous: Option<(u32, Tick)>,
}

/// A jitter buffer of `N` packets of at most `P` bytes. `N` must be a power of two, so that the
/// ring stays whole where sequence numbers wrap.
#[derive(Debug, Clone)]
pub struct Jitter<const N: usize, const P: usize = 400> {
    ring: [Slot<P>; N],
    /// Sounds in the ring.
    held: usize,
    stream: Option<Stream>,
    next_seq: u16,
    next_ts: u32,
    /// Whether anything was played since the beginning.
    begun: bool,
    /// How far the cursor ran on while the ring was empty, and what was invented meanwhile.
    stalled: u32,
    stall_concealed: u64,
    concealed_in_a_row: u32,
    /// The sender said with its last packet that it pauses.
    paused: bool,
    jitter_ms: u32,
    frame: u32,
    target: u32,
    steering: Steering,
    counts: Counts,
    lag: Lag,
}

/// `a - b` where both may have wrapped.
fn apart(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// `a - b` where both may have wrapped.
fn ahead(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b) as i16
}

impl<const N: usize, const P: usize> Jitter<N, P> {
    const POWER_OF_TWO: () = assert!(N.is_power_of_two() && N <= 1024);

    /// A buffer that aims at `jitter_ms` (20 to 200) of sound before each frame; `frame` is 20 ms
    /// in units of the RTP clock.
    pub fn new(jitter_ms: u32, frame: u32) -> Self {
        let () = Self::POWER_OF_TWO;
        let frame = frame.max(8);
        let target = jitter_ms.clamp(20, 200) * frame / 20;
        Jitter {
            ring: std::array::from_fn(|_| Slot {
                content: Content::Empty,
                sequence: 0,
                timestamp: 0,
                duration: 0,
                payload_type: 0,
                pauses: false,
                payload: Vec::new(),
            }),
            held: 0,
            stream: None,
            next_seq: 0,
            next_ts: 0,
            begun: false,
            stalled: 0,
            stall_concealed: 0,
            concealed_in_a_row: 0,
            paused: false,
            jitter_ms,
            frame,
            target,
            steering: Steering::new(target, frame),
            counts: Counts::default(),
            lag: Lag::new(frame),
        }
    }

    /// Empties the buffer for a sender that is to come; what was counted stays.
    pub fn forget(&mut self) {
        for slot in &mut self.ring {
            slot.content = Content::Empty;
        }
        self.held = 0;
        self.stream = None;
        self.begun = false;
        self.end_stall();
        self.concealed_in_a_row = 0;
        self.paused = false;
        self.steering = Steering::new(self.target, self.frame);
        self.lag = Lag::new(self.frame);
    }

    /// As [`Jitter::forget`], for a sender whose clock makes so many units in 20 ms.
    pub fn retime(&mut self, frame: u32) {
        self.frame = frame.max(8);
        self.target = self.jitter_ms.clamp(20, 200) * self.frame / 20;
        self.forget();
    }

    /// What has been seen so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How much sound waits between the cursor and the end of the newest packet, in units of the
    /// RTP clock.
    pub fn depth(&self) -> u32 {
        match &self.stream {
            Some(stream) if self.held > 0 => {
                let end = stream.newest_ts.wrapping_add(stream.duration);
                apart(end, self.next_ts).max(0) as u32
            }
            _ => 0,
        }
    }

    /// How long ago was said what is so many units before the next frame, in µs, if it begins to be played now.
    pub fn lag(&self, before: u32, now: Tick) -> Option<i64> {
        self.lag.of(self.next_ts.wrapping_sub(before), now)
    }

    /// Takes one packet in.
    pub fn push(&mut self, packet: &Incoming<'_>, now: Tick) -> Pushed {
        let pushed = self.place(packet, now);
        match pushed {
            Pushed::Kept => self.counts.kept += 1,
            Pushed::Duplicate => self.counts.duplicate += 1,
            Pushed::Late => self.counts.late += 1,
            Pushed::Oversize => self.counts.oversize += 1,
            Pushed::Strange => self.counts.strange += 1,
        }
        pushed
    }

    /// Takes note of a packet of the same stream that is not sound, so that its sequence number is
    /// not taken for a loss.
    pub fn note(&mut self, ssrc: u32, sequence: u16) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.ssrc == ssrc) else { return };
        let sequence = sequence.wrapping_add(stream.sequence_shift);
        let from_cursor = ahead(sequence, self.next_seq);
        if from_cursor < 0 || usize::from(from_cursor.unsigned_abs()) >= N {
            return;
        }
        let slot = &mut self.ring[usize::from(sequence) % N];
        if slot.content == Content::Sound {
            return;
        }
        slot.content = Content::Note;
        slot.sequence = sequence;
        if ahead(sequence, stream.newest_seq) > 0 {
            stream.newest_seq = sequence;
        }
    }

    fn place(&mut self, packet: &Incoming<'_>, now: Tick) -> Pushed {
        if packet.payload.len() > P {
            return Pushed::Oversize;
        }
        if self.stream.is_none() {
            self.begin(packet, now);
        }
        let Some((sequence, timestamp)) = self.translate(packet, now) else {
            return if self.is_old(packet, now) { Pushed::Late } else { Pushed::Strange };
        };
        if self.is_held(sequence) {
            return Pushed::Duplicate;
        }
        self.lag.heard(timestamp, now);
        if ahead(sequence, self.next_seq) < 0 {
            // Before the first packet has sounded, an earlier one may still take its place.
            if self.begun || apart(timestamp, self.next_ts) < 0 || self.held >= N / 2 {
                return Pushed::Late;
            }
            self.next_seq = sequence;
        }
        if !self.in_time(sequence, timestamp, packet.duration) {
            return Pushed::Late;
        }
        self.make_room(sequence, timestamp);
        let slot = &mut self.ring[usize::from(sequence) % N];
        if slot.content == Content::Sound {
            // Unreachable while the cursor is within N of every sound; counted right all the same.
            self.held = self.held.saturating_sub(1);
        }
        slot.content = Content::Sound;
        slot.sequence = sequence;
        slot.timestamp = timestamp;
        slot.duration = packet.duration.max(1);
        slot.payload_type = packet.payload_type;
        slot.pauses = packet.pauses;
        slot.payload.clear();
        // Cannot fail: the length was compared with P above.
        let _ = slot.payload.extend_from_slice(packet.payload);
        self.held += 1;
        if let Some(stream) = &mut self.stream
            && ahead(sequence, stream.newest_seq) > 0
        {
            stream.newest_seq = sequence;
            stream.newest_ts = timestamp;
            stream.newest_at = now;
            stream.duration = packet.duration.max(1);
        }
        Pushed::Kept
    }

    fn begin(&mut self, packet: &Incoming<'_>, now: Tick) {
        self.stream = Some(Stream {
            ssrc: packet.ssrc,
            sequence_shift: 0,
            timestamp_shift: 0,
            newest_seq: packet.sequence.wrapping_sub(1),
            newest_ts: packet.timestamp.wrapping_sub(packet.duration),
            newest_at: now,
            duration: packet.duration.max(1),
            suspect: None,
            previous: None,
        });
        self.next_seq = packet.sequence;
        self.next_ts = packet.timestamp.wrapping_sub(self.lead());
    }

    /// How long after the cursor a stream begins, so that it is one target deep when it sounds.
    fn lead(&self) -> u32 {
        self.target.saturating_sub(self.frame)
    }

    fn is_old(&self, packet: &Incoming<'_>, now: Tick) -> bool {
        self.stream
            .as_ref()
            .and_then(|stream| stream.previous)
            .is_some_and(|(ssrc, left)| ssrc == packet.ssrc && now - left < OLD_SSRC)
    }

    /// The packet's numbers as the cursor counts them; `None` if it does not belong here.
    fn translate(&mut self, packet: &Incoming<'_>, now: Tick) -> Option<(u16, u32)> {
        if self.is_old(packet, now) {
            return None;
        }
        let changed = self.stream.as_ref().is_some_and(|stream| stream.ssrc != packet.ssrc);
        if changed {
            return Some(self.restart(packet, now));
        }
        let stream = self.stream.as_mut()?;
        let sequence = packet.sequence.wrapping_add(stream.sequence_shift);
        let step = ahead(sequence, stream.newest_seq);
        if !(-MAX_MISORDER..=MAX_DROPOUT).contains(&step) {
            if stream.suspect == Some(packet.sequence) {
                return Some(self.restart(packet, now));
            }
            stream.suspect = Some(packet.sequence.wrapping_add(1));
            return None;
        }
        stream.suspect = None;
        let timestamp = packet.timestamp.wrapping_add(stream.timestamp_shift);
        if step <= 0 {
            return Some((sequence, timestamp));
        }
        let passed = apart(timestamp, stream.newest_ts);
        let expected = i64::from(step) * i64::from(stream.duration);
        let waited_ms = (now - stream.newest_at).as_millis() as u64;
        let allowed = (waited_ms + JUMP_MS) * u64::from(self.frame) / 20;
        // The other way round: a sender whose clock stood still while it said nothing, longer than is remembered.
        let waited = (waited_ms * u64::from(self.frame) / 20) as i64;
        let stood = self.held == 0 && waited - i64::from(passed) > i64::from(MOST_STALLED * self.frame);
        let jumped =
            passed <= 0 || stood || (i64::from(passed) > expected && i64::from(passed) > allowed as i64);
        if !jumped {
            return Some((sequence, timestamp));
        }
        self.counts.resync += 1;
        let continued = self.continued();
        let stream = self.stream.as_mut()?;
        stream.timestamp_shift = continued.wrapping_sub(packet.timestamp);
        Some((sequence, continued))
    }

    /// Where a stream goes on that does not continue the timestamps: after the newest sound that
    /// still waits, or one target after the cursor.
    fn continued(&self) -> u32 {
        match &self.stream {
            Some(stream) if self.held > 0 => stream.newest_ts.wrapping_add(stream.duration),
            _ => self.next_ts.wrapping_add(self.lead()),
        }
    }

    fn restart(&mut self, packet: &Incoming<'_>, now: Tick) -> (u16, u32) {
        self.counts.resync += 1;
        let timestamp = self.continued();
        let mut sequence = self.next_seq;
        if let Some(stream) = &mut self.stream {
            sequence = stream.newest_seq.wrapping_add(1);
            stream.sequence_shift = sequence.wrapping_sub(packet.sequence);
            stream.timestamp_shift = timestamp.wrapping_sub(packet.timestamp);
            stream.suspect = None;
            if stream.ssrc != packet.ssrc {
                stream.previous = Some((stream.ssrc, now));
                stream.ssrc = packet.ssrc;
            }
        }
        if self.held == 0 {
            self.next_seq = sequence;
            self.end_stall();
        }
        (sequence, timestamp)
    }

    fn is_held(&self, sequence: u16) -> bool {
        let slot = &self.ring[usize::from(sequence) % N];
        slot.content == Content::Sound && slot.sequence == sequence
    }

    /// Whether the sound can still be played; winds the cursor back after a stall.
    fn in_time(&mut self, sequence: u16, timestamp: u32, duration: u32) -> bool {
        let lateness = apart(self.next_ts, timestamp);
        if lateness <= 0 {
            if self.stalled > 0 && sequence == self.next_seq {
                // Nothing is missing and it is not late: the sender was silent, nothing was lost.
                self.counts.concealed = self.counts.concealed.saturating_sub(self.stall_concealed);
                self.stall_concealed = 0;
            }
            return true;
        }
        if self.stalled > 0 {
            let back = (lateness as u32).min(self.stalled);
            self.next_ts = self.next_ts.wrapping_sub(back);
            self.stalled -= back;
        }
        apart(timestamp.wrapping_add(duration), self.next_ts) > 0
    }

    /// Moves the cursor so that `sequence` has a place in the ring.
    fn make_room(&mut self, sequence: u16, timestamp: u32) {
        let distance = usize::from(sequence.wrapping_sub(self.next_seq));
        if distance < N {
            return;
        }
        let keep_from = sequence.wrapping_sub(N as u16 - 1);
        for slot in &mut self.ring {
            if slot.content != Content::Empty && ahead(slot.sequence, keep_from) < 0 {
                if slot.content == Content::Sound {
                    self.held = self.held.saturating_sub(1);
                    self.counts.cut += 1;
                }
                slot.content = Content::Empty;
            }
        }
        match self.first() {
            Some(at) => {
                self.next_seq = self.ring[at].sequence;
                self.next_ts = self.ring[at].timestamp;
            }
            None => {
                self.next_seq = sequence;
                let begins = timestamp.wrapping_sub(self.lead());
                if apart(begins, self.next_ts) > 0 {
                    self.next_ts = begins;
                }
            }
        }
    }

    /// The place of the sound nearest to the cursor.
    fn first(&self) -> Option<usize> {
        let here = usize::from(self.next_seq) % N;
        let sounds = |at: usize| {
            let slot = &self.ring[at];
            slot.content == Content::Sound
        };
        if sounds(here) && self.ring[here].sequence == self.next_seq {
            return Some(here);
        }
        (0..N).filter(|at| sounds(*at)).min_by_key(|at| self.ring[*at].sequence.wrapping_sub(self.next_seq))
    }

    /// Takes what is to sound next and moves the cursor over it.
    pub fn pop(&mut self) -> Frame<'_> {
        self.cut();
        self.pass_notes();
        if self.stream.is_none() {
            return Frame::Silence { duration: self.frame };
        }
        let Some(at) = self.first() else { return self.starve() };
        let (sequence, timestamp, duration) = {
            let slot = &self.ring[at];
            (slot.sequence, slot.timestamp, slot.duration)
        };
        let mut gap = apart(timestamp, self.next_ts);
        if gap > 50 * self.frame as i32 {
            // Only numbers that lie come here: a pause is played while it lasts, not after it.
            self.counts.resync += 1;
            gap = 0;
        }
        // Opus counts in 2.5 ms: less than that is no gap.
        let gap = gap.max(0) as u32 / (self.frame / 8) * (self.frame / 8);
        if gap > 0 {
            return self.bridge_gap(at, gap, sequence, duration);
        }
        let depth = self.stream.as_ref().map_or(0, |stream| {
            apart(stream.newest_ts.wrapping_add(stream.duration), timestamp).max(duration as i32)
        });
        // A packet longer than the target cannot be waited for more shallowly than it is long.
        self.steering.watch(depth - (duration as i32).saturating_sub(self.target as i32).max(0));
        self.forget_before(sequence);
        self.next_seq = sequence.wrapping_add(1);
        self.next_ts = timestamp.wrapping_add(duration);
        self.held = self.held.saturating_sub(1);
        self.begun = true;
        self.concealed_in_a_row = 0;
        self.end_stall();
        self.counts.played += 1;
        let slot = &mut self.ring[at];
        slot.content = Content::Empty;
        self.paused = slot.pauses;
        Frame::Audio { payload_type: slot.payload_type, payload: &slot.payload, duration }
    }

    /// Nothing is here: late, lost or silent, which only the next packet will tell.
    fn starve(&mut self) -> Frame<'_> {
        let duration = self.frame;
        self.next_ts = self.next_ts.wrapping_add(duration);
        if !self.begun {
            return Frame::Silence { duration };
        }
        // A second of running on is remembered; after that, what comes begins a new stretch.
        self.stalled = (self.stalled + duration).min(MOST_STALLED * self.frame);
        if self.concealed_in_a_row < MOST_CONCEALED && !self.paused {
            self.stall_concealed += 1;
            return self.conceal(duration);
        }
        Frame::Silence { duration }
    }

    /// There is a gap before the packet in place `at`: lost, silent, or some of both.
    fn bridge_gap(&mut self, at: usize, gap: u32, sequence: u16, duration: u32) -> Frame<'_> {
        let missing = self.missing_before(sequence);
        let lost = missing.saturating_mul(duration);
        if lost == 0 || gap > lost.saturating_add(self.frame) {
            let duration = gap.saturating_sub(lost).clamp(1, self.frame);
            self.next_ts = self.next_ts.wrapping_add(duration);
            return Frame::Silence { duration };
        }
        // 60 ms is the longest frame that can hold a copy of the one before it (RFC 6716 §2.1.7).
        if gap <= duration.min(3 * self.frame) {
            self.next_ts = self.next_ts.wrapping_add(gap);
            self.counts.repaired += 1;
            self.concealed_in_a_row = 0;
            let slot = &self.ring[at];
            return Frame::Repair { payload_type: slot.payload_type, next: &slot.payload, duration: gap };
        }
        let step = if gap > duration { (gap - duration).min(self.frame) } else { gap.min(self.frame) };
        self.next_ts = self.next_ts.wrapping_add(step);
        if self.concealed_in_a_row < MOST_CONCEALED {
            return self.conceal(step);
        }
        Frame::Silence { duration: step }
    }

    fn conceal(&mut self, duration: u32) -> Frame<'_> {
        self.concealed_in_a_row += 1;
        self.counts.concealed += 1;
        Frame::Conceal { duration }
    }

    /// The last `Repair` found no copy and the frame had to be invented.
    pub fn was_not_repaired(&mut self) {
        self.counts.repaired = self.counts.repaired.saturating_sub(1);
        self.counts.concealed += 1;
    }

    /// Sequence numbers between the cursor and `sequence` that never came.
    fn missing_before(&self, sequence: u16) -> u32 {
        let between = sequence.wrapping_sub(self.next_seq);
        let notes = self
            .ring
            .iter()
            .filter(|slot| {
                slot.content == Content::Note && slot.sequence.wrapping_sub(self.next_seq) < between
            })
            .count();
        u32::from(between).saturating_sub(notes as u32)
    }

    fn pass_notes(&mut self) {
        for _ in 0..N {
            let slot = &mut self.ring[usize::from(self.next_seq) % N];
            if slot.content != Content::Note || slot.sequence != self.next_seq {
                return;
            }
            slot.content = Content::Empty;
            self.next_seq = self.next_seq.wrapping_add(1);
        }
    }

    /// Old notes must not be taken for packets when their numbers come round again.
    fn forget_before(&mut self, sequence: u16) {
        if sequence == self.next_seq {
            return;
        }
        for slot in &mut self.ring {
            if slot.content == Content::Note && ahead(slot.sequence, sequence) < 0 {
                slot.content = Content::Empty;
            }
        }
    }

    fn end_stall(&mut self) {
        self.stalled = 0;
        self.stall_concealed = 0;
    }

    /// Far too full (a stall of the network or of ourselves): back to the target at once.
    fn cut(&mut self) {
        let target = self.target;
        if self.depth() <= target + MOST_FRAMES * self.frame {
            return;
        }
        while self.held > 1
            && self.depth() > target
            && let Some(at) = self.first()
        {
            let slot = &mut self.ring[at];
            slot.content = Content::Empty;
            let (sequence, end) = (slot.sequence, slot.timestamp.wrapping_add(slot.duration));
            self.held -= 1;
            self.counts.cut += 1;
            self.forget_before(sequence);
            self.next_seq = sequence.wrapping_add(1);
            self.next_ts = end;
        }
        self.end_stall();
        self.steering.settle();
    }

    /// Asked before each frame: is this one to be dropped, or one to be put in before it?
    /// `quiet` says that nobody would hear it.
    pub fn adjust(&mut self, quiet: bool) -> Adjust {
        if self.held == 0 {
            return Adjust::Keep;
        }
        let adjust = self.steering.adjust(quiet);
        match adjust {
            Adjust::Keep => {}
            Adjust::Drop => self.counts.dropped += 1,
            Adjust::Insert => self.counts.inserted += 1,
        }
        adjust
    }
}

#[cfg(test)]
#[path = "jitter_tests.rs"]
mod tests;
