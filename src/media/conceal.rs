//! The concealment of a lost packet for codecs that have none of their own.
//!
//! The last pitch period is repeated and fades out: the idea of G.711 Appendix I, without its overlap bookkeeping.
//! `H` samples of history are 40 ms: 320 at 8 kHz, 640 at 16 kHz.

/// The shortest and longest pitch period that is looked for, in samples at 8 kHz: 200 Hz to 66 Hz.
const SHORTEST: usize = 40;
const LONGEST: usize = 120;
/// A concealed stretch fades to nothing within this many histories: 60 ms.
const FADE: (usize, usize) = (3, 2);
/// The seam back to real sound is this part of a history: 5 ms.
const SEAM: usize = 8;

/// What was heard last, and what is invented from it.
#[derive(Debug, Clone)]
pub(super) struct Concealment<const H: usize> {
    history: [i16; H],
    /// Samples invented since the last real one, and the period they repeat.
    invented: usize,
    period: usize,
}

impl<const H: usize> Concealment<H> {
    /// Samples of one sample at 8 kHz.
    const RATIO: usize = H / 320;

    pub(super) fn new() -> Self {
        Concealment { history: [0; H], invented: 0, period: LONGEST * Self::RATIO }
    }

    /// Real sound passes here: it is remembered, and its beginning is joined to what was invented before it.
    pub(super) fn heard(&mut self, sound: &mut [i16]) {
        if self.invented > 0 {
            // From the invented sound to the real one in 5 ms, or the seam is heard as a click.
            let seam = (H / SEAM) as i32;
            for (at, real) in (0..seam).zip(sound.iter_mut()) {
                let made = i32::from(self.next());
                *real = ((i32::from(*real) * at + made * (seam - at)) / seam) as i16;
            }
            self.invented = 0;
        }
        let fresh = sound.len().min(H);
        self.history.copy_within(fresh.., 0);
        let tail = &sound[sound.len() - fresh..];
        self.history[H - fresh..].copy_from_slice(tail);
    }

    /// Something in the place of what was lost.
    pub(super) fn invent(&mut self, out: &mut [i16]) {
        if self.invented == 0 {
            self.period = self.pitch();
        }
        for sample in out {
            *sample = self.next();
        }
    }

    fn next(&mut self) -> i16 {
        let fade = H * FADE.0 / FADE.1;
        let from = H - self.period + self.invented % self.period;
        let left = fade.saturating_sub(self.invented) as i32;
        self.invented += 1;
        (i32::from(self.history[from]) * left / fade as i32) as i16
    }

    /// The lag at which the last 20 ms look most like what came before them. A higher rate is looked at as coarsely
    /// as 8 kHz.
    fn pitch(&self) -> usize {
        let recent = &self.history[H / 2..];
        let mut best = (i64::MAX, LONGEST);
        for lag in SHORTEST..=LONGEST {
            let before = &self.history[H / 2 - lag * Self::RATIO..];
            let difference: i64 = recent
                .iter()
                .zip(before)
                .step_by(Self::RATIO)
                .map(|(a, b)| i64::from((i32::from(*a) - i32::from(*b)).abs()))
                .sum();
            if difference < best.0 {
                best = (difference, lag);
            }
        }
        best.1 * Self::RATIO
    }
}
