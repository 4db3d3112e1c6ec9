//! Playout: a jitter buffer and a decoder become exactly one frame of 20 ms on every tick.
//!
//! Packets may sound 2.5 to 120 ms; what a tick does not use waits in a small line of samples.
//! When the buffer has drifted from its target, a frame is folded away or one is put in, if
//! possible while it is quiet.

use super::WIDEST;
use super::depth::Adjust;
use super::jitter::{COMFORT_NOISE_PT, Frame, Jitter};
use crate::clock::Tick;

/// A decoder as the playout sees it. Sound is mono, at the decoder's own rate.
pub(super) trait Voice {
    /// Samples of 20 ms; at most [`WIDEST`].
    fn frame(&self) -> usize;
    /// RTP clock units of 20 ms.
    fn units(&self) -> u32;
    /// Decodes into `out` and says how many samples it made; `None` if the payload is not sound.
    fn decode(&mut self, payload_type: u8, payload: &[u8], out: &mut [i16]) -> Option<usize>;
    /// Invents what was lost, from what was heard before.
    fn conceal(&mut self, out: &mut [i16]);
    /// Restores what was lost from the packet after it; false if it had to be invented.
    fn repair(&mut self, payload_type: u8, next: &[u8], out: &mut [i16]) -> bool;
}

/// Comfort noise: a line that is open, not dead. About -70 dBFS unless the other side has said how loud.
#[derive(Debug, Clone)]
pub(super) struct Noise {
    state: u32,
    /// Samples are within this, evenly spread.
    peak: u32,
}

/// The peak of an RMS of 10.4, which is -70 dB below full scale.
const OPEN_LINE: u32 = 18;
/// Louder than this nobody's background is, in -dBov, whatever a packet says.
const LOUDEST: u8 = 30;

impl Noise {
    pub(super) fn new(seed: u32) -> Noise {
        Noise { state: seed, peak: OPEN_LINE }
    }

    pub(super) fn fill(&mut self, out: &mut [i16]) {
        for sample in out {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample = ((self.state >> 16) % (2 * self.peak + 1)) as i16 - self.peak as i16;
        }
    }

    /// From here on as loud as this many dB below overload (RFC 3389 §3); `None`: an open line.
    fn level(&mut self, below: Option<u8>) {
        self.peak = match below {
            Some(below) => {
                let rms = 32_768.0 * 10f64.powf(-f64::from(below.max(LOUDEST)) / 20.0);
                // Evenly spread noise has its peak at the square root of three times its RMS.
                ((rms * 3f64.sqrt()).round() as u32).max(1)
            }
            None => OPEN_LINE,
        };
    }
}

/// Below this mean magnitude (about -50 dBFS) nobody hears a frame come or go.
const QUIET: u32 = 80;
/// What is invented or repaired in one step is at most 60 ms, in frames.
const LONGEST_STEP: usize = 3;
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

/// One direction of a call, up to linear sound. `W` samples wait: the longest packet and 40 ms in front of it.
pub(super) struct Playout<V, const N: usize, const P: usize, const W: usize> {
    pub(super) jitter: Jitter<N, P>,
    pub(super) voice: V,
    waiting: [i16; W],
    length: usize,
    quiet: bool,
    noise: Noise,
}

impl<V: Voice, const N: usize, const P: usize, const W: usize> Playout<V, N, P, W> {
    pub(super) fn new(voice: V, jitter_ms: u32, seed: u32) -> Self {
        Playout {
            jitter: Jitter::new(jitter_ms, voice.units()),
            voice,
            waiting: [0; W],
            length: 0,
            quiet: true,
            noise: Noise::new(seed),
        }
    }

    /// Forgets what waits and what was heard: another sender is to come, heard by this decoder, which may count
    /// on another clock.
    pub(super) fn forget(&mut self) {
        self.jitter.retime(self.voice.units());
        self.length = 0;
        self.quiet = true;
        self.noise.level(None);
    }

    /// The same sender, heard from here on at another rate; the decoder so far is handed back.
    ///
    /// What is decoded and not played yet, less than a packet, becomes noise of the same length: the timing is
    /// left as it was.
    pub(super) fn change(&mut self, voice: V) -> V {
        self.length = (self.length * voice.frame() / self.voice.frame()).min(W);
        self.noise.fill(&mut self.waiting[..self.length]);
        std::mem::replace(&mut self.voice, voice)
    }

    /// What waits was decoded long ago: it becomes noise of the same length.
    pub(super) fn wake(&mut self) {
        self.noise.fill(&mut self.waiting[..self.length]);
    }

    /// How long ago what was last played was said, in µs.
    pub(super) fn lag(&self, now: Tick) -> Option<i64> {
        let waits = (self.length + self.voice.frame()) * self.voice.units() as usize / self.voice.frame();
        self.jitter.lag(waits as u32, now)
    }

    /// The next 20 ms: `out` is as long as the decoder's frame.
    pub(super) fn next(&mut self, out: &mut [i16]) -> Sounding {
        let sounding = match self.jitter.adjust(self.quiet) {
            Adjust::Keep => self.take(out),
            Adjust::Drop => {
                let mut following = [0i16; WIDEST];
                let following = &mut following[..out.len()];
                let first = self.take(out);
                let second = self.take(following);
                fold(out, following);
                if first == Sounding::Voice { first } else { second }
            }
            Adjust::Insert => {
                self.voice.conceal(out);
                Sounding::Voice
            }
        };
        let level: u32 = out.iter().map(|sample| u32::from(sample.unsigned_abs())).sum();
        self.quiet = level < QUIET * out.len() as u32;
        sounding
    }

    fn take(&mut self, out: &mut [i16]) -> Sounding {
        let frame = out.len();
        let mut sounding = if self.length > 0 { Sounding::Voice } else { Sounding::Nothing };
        for _ in 0..PACKETS_PER_TICK {
            if self.length >= frame {
                break;
            }
            if self.refill() == Sounding::Voice {
                sounding = Sounding::Voice;
            }
        }
        if self.length < frame {
            self.noise.fill(&mut self.waiting[self.length..frame]);
            self.length = frame;
        }
        out.copy_from_slice(&self.waiting[..frame]);
        self.waiting.copy_within(frame..self.length, 0);
        self.length -= frame;
        sounding
    }

    /// One step of the jitter buffer becomes samples at the end of the line.
    fn refill(&mut self) -> Sounding {
        let room = &mut self.waiting[self.length..];
        let (whole, frame) = (self.voice.units() as usize, self.voice.frame());
        let samples = |units: u32| (units as usize * frame / whole).min(LONGEST_STEP * frame);
        let (made, sounding) = match self.jitter.pop() {
            Frame::Audio { payload_type: COMFORT_NOISE_PT, payload, duration } => {
                let made = samples(duration).max(1);
                self.noise.level(payload.first().map(|level| level & 0x7F));
                self.noise.fill(&mut room[..made]);
                (made, Sounding::Nothing)
            }
            Frame::Audio { payload_type, payload, duration } => {
                self.noise.level(None);
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
fn fold(first: &mut [i16], second: &[i16]) {
    let whole = first.len() as i32;
    for (at, (a, b)) in (0i32..).zip(first.iter_mut().zip(second)) {
        *a = ((i32::from(*a) * (whole - at) + i32::from(*b) * at) / whole) as i16;
    }
}
