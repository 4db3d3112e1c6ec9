//! Opus packets cut and joined to 20 ms without touching the sound in them (RFC 6716 §3).
//!
//! A packet is a byte that says what its frames are (TOC) and one to 48 frames of 2.5 to 60 ms. Frames are lifted
//! out of the packets they came in and packed anew, bit for bit, with the repair data in them:
//!
//! ```text
//!  in     10 ms ─┬─ 10 ms         40 ms = 2 × 20 ms        nothing came
//!                │                    │         │               │
//!  out     20 ms = 2 × 10 ms      20 ms      20 ms        20 ms, an empty frame
//! ```
//!
//! An empty frame is one that the receiver is to invent, as it does for a loss or a pause of the sender: it goes on
//! from what it heard and settles at the background noise that it has learned. It is padded, so that nobody takes
//! it for the last packet before a pause (DTX). A frame of 40 or 60 ms can't be cut.

use super::OPUS_FRAME;
use heapless::{Deque, Vec};

/// The most frames that one packet holds: 120 ms of 2.5 ms (RFC 6716 §3.2.5).
const MOST_FRAMES: usize = 48;
/// Frames that wait: those of the longest packet, and less than 20 ms before it.
const WAITING: usize = 64;
/// Their bytes.
const BYTES: usize = 1_024;
/// A padded empty packet: TOC, count, length of the padding, padding.
const EMPTY: [u8; 7] = [0, 0x41, 4, 0, 0, 0, 0];
/// The code of a packet that says its count of frames, and the flags of that count (RFC 6716 §3.2.5).
const COUNTED: u8 = 3;
const DIFFERENT_LENGTHS: u8 = 0x80;
const PADDED: u8 = 0x40;
/// SILK, narrowband, mono, 20 ms: what an empty frame is of before anything was heard.
const FIRST_KIND: u8 = 1 << 3;
/// From this length on a frame's length takes two bytes (RFC 6716 §3.2.1).
const TWO_BYTES: usize = 252;
/// Frames of 20 ms that are not longer than this are background noise or nothing.
const QUIET: usize = 12;

/// How long one frame sounds, by the TOC byte, in units of 48 kHz (RFC 6716 table 2).
pub fn frame_units(toc: u8) -> u32 {
    let config = toc >> 3;
    match config {
        0..=11 => [480, 960, 1_920, 2_880][usize::from(config & 3)],
        12..=15 => [480, 960][usize::from(config & 1)],
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    }
}

/// Whether frames of this packet are too long to be packed into 20 ms.
pub fn is_long(payload: &[u8]) -> bool {
    payload.first().is_some_and(|toc| frame_units(*toc) > OPUS_FRAME)
}

/// Reads a length of one or two bytes and says how long it is itself.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.first()?);
    if first < TWO_BYTES {
        return Some((first, 1));
    }
    Some((4 * usize::from(*bytes.get(1)?) + first, 2))
}

/// The frames of a packet; `None` if it breaks a rule of RFC 6716 §3.4.
pub fn frames(payload: &[u8]) -> Option<Vec<&[u8], MOST_FRAMES>> {
    let (toc, mut rest) = payload.split_first()?;
    let mut frames = Vec::new();
    match toc & 3 {
        0 => frames.push(rest).ok()?,
        1 => {
            if rest.len() % 2 != 0 {
                return None;
            }
            let (first, second) = rest.split_at(rest.len() / 2);
            frames.push(first).ok()?;
            frames.push(second).ok()?;
        }
        2 => {
            let (first, own) = length(rest)?;
            let (first, second) = rest.get(own..)?.split_at_checked(first)?;
            frames.push(first).ok()?;
            frames.push(second).ok()?;
        }
        _ => {
            let (count, after) = rest.split_first()?;
            rest = after;
            let most = usize::from(*count & 63);
            if most == 0 || most as u32 * frame_units(*toc) > 6 * OPUS_FRAME {
                return None;
            }
            if count & PADDED != 0 {
                let mut padding = 0;
                loop {
                    let (more, after) = rest.split_first()?;
                    rest = after;
                    if *more < 255 {
                        padding += usize::from(*more);
                        break;
                    }
                    padding += 254;
                }
                rest = rest.get(..rest.len().checked_sub(padding)?)?;
            }
            if count & DIFFERENT_LENGTHS == 0 {
                if rest.len() % most != 0 {
                    return None;
                }
                let each = rest.len() / most;
                for at in 0..most {
                    frames.push(rest.get(at * each..(at + 1) * each)?).ok()?;
                }
            } else {
                let mut lengths: Vec<usize, MOST_FRAMES> = Vec::new();
                for _ in 1..most {
                    let (one, own) = length(rest)?;
                    rest = rest.get(own..)?;
                    lengths.push(one).ok()?;
                }
                for one in lengths {
                    let (frame, after) = rest.split_at_checked(one)?;
                    frames.push(frame).ok()?;
                    rest = after;
                }
                frames.push(rest).ok()?;
            }
        }
    }
    // No frame is longer than this (RFC 6716 §3.2.1).
    frames.iter().all(|frame| frame.len() <= 1_275).then_some(frames)
}

/// One frame that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// The TOC byte without the code.
    kind: u8,
    length: u16,
    /// It was put in for what is missing.
    invented: bool,
}

/// What 20 ms were made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// How long the packet sounds, in units of 48 kHz: 20 ms, or more where a frame can't be cut.
    pub units: u32,
    /// Nobody would hear it come or go.
    pub quiet: bool,
    /// All of it is to be invented by the receiver.
    pub invented: bool,
}

/// Frames on their way from packets into packets of 20 ms.
#[derive(Debug)]
pub struct Packing {
    frames: Deque<Waiting, WAITING>,
    bytes: Vec<u8, BYTES>,
    units: u32,
    /// Of what kind the last frame was.
    kind: u8,
}

impl Packing {
    /// Nothing waits.
    pub fn new() -> Packing {
        Packing { frames: Deque::new(), bytes: Vec::new(), units: 0, kind: FIRST_KIND }
    }

    /// Forgets what waits; the next stream is another one.
    pub fn clear(&mut self) {
        *self = Packing::new();
    }

    /// How much waits, in units of 48 kHz.
    pub fn units(&self) -> u32 {
        self.units
    }

    /// Takes in the frames of a packet; false if it is not Opus or does not fit, and nothing was taken.
    pub fn push(&mut self, payload: &[u8]) -> bool {
        let (Some(toc), Some(frames)) = (payload.first(), frames(payload)) else { return false };
        let bytes: usize = frames.iter().map(|frame| frame.len()).sum();
        if frames.len() > WAITING - self.frames.len() || bytes > BYTES - self.bytes.len() {
            return false;
        }
        let kind = toc & !3;
        for frame in frames {
            // One byte is a pause like none (libopus decodes neither): packed, it would look like DTX again.
            let frame = if frame.len() > 1 { frame } else { &[] };
            let waiting = Waiting { kind, length: frame.len() as u16, invented: false };
            // There is room: it was counted.
            if self.frames.push_back(waiting).is_ok() && self.bytes.extend_from_slice(frame).is_ok() {
                self.units += frame_units(kind);
            }
        }
        self.kind = kind;
        true
    }

    /// Something is to be put in before what waits: an empty frame.
    pub fn invent_first(&mut self) {
        let kind = self.empty_kind();
        let kind = if frame_units(kind) == OPUS_FRAME { kind } else { FIRST_KIND };
        if self.frames.push_front(Waiting { kind, length: 0, invented: true }).is_ok() {
            self.units += OPUS_FRAME;
        }
    }

    /// Of the kind heard last; of one that can't be cut, SILK's next shorter one of 20 ms.
    fn empty_kind(&self) -> u8 {
        if frame_units(self.kind) > OPUS_FRAME { (self.kind & 0b1110_0111) | 1 << 3 } else { self.kind }
    }

    /// Something is missing: empty frames in its place, of the kind heard last.
    pub fn invent(&mut self, units: u32) {
        let kind = self.empty_kind();
        let each = frame_units(kind);
        for _ in 0..units.div_ceil(each) {
            if self.frames.push_back(Waiting { kind, length: 0, invented: true }).is_ok() {
                self.units += each;
            }
        }
    }

    /// The next 20 ms as one packet in `out`; `None` if not so much waits, or it does not fit.
    ///
    /// Frames of another kind can't share a packet: what is short of 20 ms then is filled up with empty frames.
    pub fn take<const N: usize>(&mut self, out: &mut Vec<u8, N>) -> Option<Packed> {
        out.clear();
        let first = *self.frames.front()?;
        let each = frame_units(first.kind);
        if each <= OPUS_FRAME && self.units < OPUS_FRAME {
            return None;
        }
        let wanted = (OPUS_FRAME / each).max(1) as usize;
        let mut lengths: Vec<usize, 8> = Vec::new();
        let (mut invented, mut bytes) = (true, 0);
        while lengths.len() < wanted {
            let Some(frame) = self.frames.front().copied().filter(|frame| frame.kind == first.kind) else {
                break;
            };
            self.frames.pop_front();
            self.units = self.units.saturating_sub(each);
            invented &= frame.invented;
            bytes += usize::from(frame.length);
            let _ = lengths.push(frame.length.into());
        }
        while lengths.len() < wanted {
            let _ = lengths.push(0);
        }
        let written = self.write(first.kind, &lengths, bytes, out);
        self.bytes.copy_within(bytes.., 0);
        self.bytes.truncate(self.bytes.len() - bytes);
        written?;
        Some(Packed { units: each.max(OPUS_FRAME), quiet: bytes <= QUIET, invented })
    }

    fn write<const N: usize>(
        &self,
        kind: u8,
        lengths: &[usize],
        bytes: usize,
        out: &mut Vec<u8, N>,
    ) -> Option<()> {
        let sound = self.bytes.get(..bytes)?;
        let equal = lengths.iter().all(|length| Some(length) == lengths.first());
        if bytes == 0 {
            out.extend_from_slice(&EMPTY).ok()?;
            out[0] = kind | COUNTED;
            out[1] = PADDED | lengths.len() as u8;
            return Some(());
        }
        if lengths.len() == 1 {
            out.push(kind).ok()?;
        } else if equal {
            out.extend_from_slice(&[kind | COUNTED, lengths.len() as u8]).ok()?;
        } else {
            out.extend_from_slice(&[kind | COUNTED, DIFFERENT_LENGTHS | lengths.len() as u8]).ok()?;
            for length in lengths.split_last().map_or(&[][..], |(_, before)| before) {
                if *length < TWO_BYTES {
                    out.push(*length as u8).ok()?;
                } else {
                    let low = TWO_BYTES + length % 4;
                    out.extend_from_slice(&[low as u8, ((length - low) / 4) as u8]).ok()?;
                }
            }
        }
        out.extend_from_slice(sound).ok()
    }
}

#[cfg(test)]
#[path = "packing_tests.rs"]
mod tests;
