//! Playout: a jitter buffer and a decoder become exactly one frame of 20 ms on every tick.
//!
//! Packets may sound 2.5 to 120 ms; what a tick does not use waits in a small line of samples.
//! When the buffer has drifted from its target, a frame is folded away or one is put in, if
//! possible while it is quiet.

use super::depth::Adjust;
use super::jitter::{Frame, Jitter};
use super::{FRAME, opus};

/// A decoder as the playout sees it. Sound is 8 kHz mono.
pub(super) trait Voice {
    /// RTP clock units of one sample at 8 kHz.
    const UNITS_PER_SAMPLE: u32;
    /// Decodes into `out` and says how many samples it made; `None` if the payload is not sound.
    fn decode(&mut self, payload_type: u8, payload: &[u8], out: &mut [i16]) -> Option<usize>;
    /// Invents what was lost, from what was heard before.
    fn conceal(&mut self, out: &mut [i16]);
    /// Restores what was lost from the packet after it; false if it had to be invented.
    fn repair(&mut self, payload_type: u8, next: &[u8], out: &mut [i16]) -> bool;
}

/// Comfort noise of about -70 dBFS: a line that is open, not dead.
#[derive(Debug, Clone)]
pub(super) struct Noise(u32);

impl Noise {
    pub(super) fn new(seed: u32) -> Noise {
        Noise(seed)
    }

    /// Uniform noise within ±18: an RMS of 10.4, which is -70 dB below full scale.
    pub(super) fn fill(&mut self, out: &mut [i16]) {
        for sample in out {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample = ((self.0 >> 16) % 37) as i16 - 18;
        }
    }
}

/// Below this mean magnitude (about -50 dBFS) nobody hears a frame come or go.
const QUIET: u32 = 80;
/// What is invented or repaired in one step is at most 60 ms.
const LONGEST_STEP: usize = 3 * FRAME;
/// The longest packet and what may wait in front of it.
const WAITING: usize = opus::LONGEST + 2 * FRAME;
/// A tick is filled by at most this many packets (8 of 2.5 ms); the rest is noise.
const PACKETS_PER_TICK: usize = 20;

/// What one tick has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sounding {
    /// Something was heard, repaired or concealed.
    Voice,
    /// Nothing came: the frame is comfort noise.
    Nothing,
}

/// One direction of a call, up to linear sound.
pub(super) struct Playout<V, const N: usize, const P: usize> {
    pub(super) jitter: Jitter<N, P>,
    pub(super) voice: V,
    waiting: [i16; WAITING],
    length: usize,
    quiet: bool,
    noise: Noise,
}

impl<V: Voice, const N: usize, const P: usize> Playout<V, N, P> {
    pub(super) fn new(voice: V, jitter_ms: u32, seed: u32) -> Self {
        Playout {
            jitter: Jitter::new(jitter_ms, FRAME as u32 * V::UNITS_PER_SAMPLE),
            voice,
            waiting: [0; WAITING],
            length: 0,
            quiet: true,
            noise: Noise::new(seed),
        }
    }

    /// Forgets what waits and what was heard: another sender is to come.
    pub(super) fn forget(&mut self, voice: V) {
        self.jitter.forget();
        self.voice = voice;
        self.length = 0;
        self.quiet = true;
    }

    /// The next 20 ms.
    pub(super) fn next(&mut self, out: &mut [i16; FRAME]) -> Sounding {
        let sounding = match self.jitter.adjust(self.quiet) {
            Adjust::Keep => self.take(out),
            Adjust::Drop => {
                let mut following = [0i16; FRAME];
                let first = self.take(out);
                let second = self.take(&mut following);
                fold(out, &following);
                if first == Sounding::Voice { first } else { second }
            }
            Adjust::Insert => {
                self.voice.conceal(out);
                Sounding::Voice
            }
        };
        let level: u32 =
            out.iter().map(|sample| u32::from(sample.unsigned_abs())).sum::<u32>() / FRAME as u32;
        self.quiet = level < QUIET;
        sounding
    }

    fn take(&mut self, out: &mut [i16; FRAME]) -> Sounding {
        let mut sounding = if self.length > 0 { Sounding::Voice } else { Sounding::Nothing };
        for _ in 0..PACKETS_PER_TICK {
            if self.length >= FRAME {
                break;
            }
            if self.refill() == Sounding::Voice {
                sounding = Sounding::Voice;
            }
        }
        if self.length < FRAME {
            self.noise.fill(&mut self.waiting[self.length..FRAME]);
            self.length = FRAME;
        }
        out.copy_from_slice(&self.waiting[..FRAME]);
        self.waiting.copy_within(FRAME..self.length, 0);
        self.length -= FRAME;
        sounding
    }

    /// One step of the jitter buffer becomes samples at the end of the line.
    fn refill(&mut self) -> Sounding {
        let room = &mut self.waiting[self.length..];
        let samples = |units: u32| ((units / V::UNITS_PER_SAMPLE) as usize).min(LONGEST_STEP);
        let (made, sounding) = match self.jitter.pop() {
            Frame::Audio { payload: [], duration, .. } => {
                let made = samples(duration).max(1);
                self.noise.fill(&mut room[..made]);
                (made, Sounding::Nothing)
            }
            Frame::Audio { payload_type, payload, duration } => {
                let made = match self.voice.decode(payload_type, payload, room) {
                    Some(made) => made,
                    None => {
                        let made = samples(duration);
                        self.voice.conceal(&mut room[..made]);
                        made
                    }
                };
                (made, Sounding::Voice)
            }
            Frame::Repair { payload_type, next, duration } => {
                let made = samples(duration);
                if !self.voice.repair(payload_type, next, &mut room[..made]) {
                    self.jitter.was_not_repaired();
                }
                (made, Sounding::Voice)
            }
            Frame::Conceal { duration } => {
                let made = samples(duration);
                self.voice.conceal(&mut room[..made]);
                (made, Sounding::Voice)
            }
            Frame::Silence { duration } => {
                let made = samples(duration);
                self.noise.fill(&mut room[..made]);
                (made, Sounding::Nothing)
            }
        };
        self.length += made.min(room.len());
        sounding
    }
}

/// Two frames become one: the first fades into the second, so both seams fit their neighbours.
fn fold(first: &mut [i16; FRAME], second: &[i16; FRAME]) {
    let whole = FRAME as i32;
    for (at, (a, b)) in (0i32..).zip(first.iter_mut().zip(second)) {
        *a = ((i32::from(*a) * (whole - at) + i32::from(*b) * at) / whole) as i16;
    }
}
