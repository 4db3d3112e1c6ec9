//! What the WhatsApp user hears while nobody is on the far side, and the seams to what comes after.
//!
//! ```text
//!  far leaves       ring-back: 1 s on, 4 s off                        far is there
//!  ───voice──┐ ╭────────╮                                ╭──────┐
//!            └─╯  425 Hz╰──── open line (noise) ──────────╯     └─ noise ─ voice
//!            seam                                               seam
//! ```
//!
//! The tone has ramps of its own; a sound that is cut anywhere else decays within 5 ms. Nothing clicks.

use super::FRAME;
use super::playout::Noise;

/// What the user hears while there is no far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alone {
    /// An open line: comfort noise.
    Silence,
    /// The ring-back tone that is in use in most countries: 425 Hz, 1 s on, 4 s off (ITU-T E.180 §5.2).
    RingBack,
}

/// Hertz of the ring-back tone.
const HERTZ: u64 = 425;
/// Samples at 8 kHz of the tone, and of the tone with the pause after it.
const TONE: u64 = 8_000;
const CADENCE: u64 = 40_000;
/// Samples in which the tone comes and goes: 5 ms.
const RAMP: usize = 40;
/// What was cut decays within this part of a frame: 5 ms.
const DECAY: usize = 4;
/// Peak of a sine of -18 dBm0: in G.711, 3.14 dBm0 is full scale (ITU-T G.711 tables 1 and 2).
const PEAK: f64 = 2_873.0;

/// Plays what is heard alone; silence until it is told otherwise.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    heard: Alone,
    /// Samples since the tone was asked for.
    at: u64,
}

impl Waiting {
    pub(super) fn new() -> Waiting {
        Waiting { heard: Alone::Silence, at: 0 }
    }

    /// From here on this is heard. A tone that is heard already goes on in its cadence: `false`.
    pub(super) fn hear(&mut self, heard: Alone) -> bool {
        let other = self.heard != heard;
        if other {
            *self = Waiting { heard, at: 0 };
        }
        other
    }

    /// The next 20 ms.
    pub(super) fn next(&mut self, noise: &mut Noise, out: &mut [i16]) {
        match self.heard {
            Alone::Silence => noise.fill(out),
            Alone::RingBack => {
                // Cadence and frame are whole multiples: a frame is all tone or all pause.
                if self.at % CADENCE < TONE {
                    for (sample, at) in out.iter_mut().zip(self.at % CADENCE..) {
                        *sample = tone(at);
                    }
                } else {
                    noise.fill(out);
                }
                self.at += FRAME as u64;
            }
        }
    }
}

/// The tone's sample at this place in its burst.
fn tone(at: u64) -> i16 {
    let ramp = RAMP as f64;
    let gate = ((at.min(TONE.saturating_sub(at)) as f64) / ramp).min(1.0);
    // 425 Hz are whole periods in a second: the phase is taken from within it, and stays exact.
    let turns = (at * HERTZ % 8_000) as f64 / 8_000.0;
    ((turns * std::f64::consts::TAU).sin() * PEAK * gate) as i16
}

/// Where one source of sound ends and another begins: what was cut decays instead of stopping.
#[derive(Debug, Clone)]
pub(super) struct Seam {
    /// The last sample that was said.
    last: i16,
    /// What is still to decay in the next frame.
    rest: i16,
}

impl Seam {
    pub(super) fn new() -> Seam {
        Seam { last: 0, rest: 0 }
    }

    /// The next frame comes from another source.
    pub(super) fn cut(&mut self) {
        self.rest = self.last;
    }

    /// Every frame that is said passes here.
    pub(super) fn close(&mut self, frame: &mut [i16]) {
        let rest = i32::from(std::mem::take(&mut self.rest));
        if rest != 0 {
            let decay = (frame.len() / DECAY) as i32;
            for (left, sample) in (0..decay).rev().zip(frame.iter_mut()) {
                let decayed = (rest * left / decay) as i16;
                *sample = sample.saturating_add(decayed);
            }
        }
        self.last = frame.last().copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(waiting: &mut Waiting, frames: usize) -> Vec<i16> {
        let (mut noise, mut frame, mut all) = (Noise::new(7), [0; FRAME], Vec::new());
        for _ in 0..frames {
            waiting.next(&mut noise, &mut frame);
            all.extend(frame);
        }
        all
    }

    fn rms(sound: &[i16]) -> f64 {
        (sound.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / sound.len() as f64).sqrt()
    }

    #[test]
    fn the_ring_back_tone_is_one_second_in_five_at_425_hertz_and_18_decibel_below_zero() {
        let mut waiting = Waiting::new();
        assert!(waiting.hear(Alone::RingBack));
        let sound = played(&mut waiting, 500);
        for burst in [0, 40_000] {
            let tone = &sound[burst + 80..burst + 7_920];
            // A full-scale sine has 3.14 dBm0 in A-law and 3.17 in µ-law.
            let dbm0 = 20.0 * (rms(tone) / (32_767.0 / 2f64.sqrt())).log10() + 3.17;
            assert!((-18.2..-17.8).contains(&dbm0), "{dbm0:.2} dBm0");
            let rising = tone.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
            let hertz = rising as f64 * 8_000.0 / tone.len() as f64;
            assert!((hertz - 425.0).abs() < 1.5, "{hertz:.1} Hz");
            let pause = &sound[burst + 8_000..burst + 40_000];
            assert!(rms(pause) < 20.0 && rms(pause) > 5.0, "an open line: {:.1}", rms(pause));
        }
        let largest = sound.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max();
        // The steepest place of the sine itself is 2873 * 2 pi * 425 / 8000.
        assert!(largest < Some(970), "a click of {largest:?}");
    }

    #[test]
    fn asking_for_the_tone_again_does_not_begin_it_anew_and_after_silence_it_begins_with_sound() {
        let (mut once, mut twice) = (Waiting::new(), Waiting::new());
        assert!(once.hear(Alone::RingBack));
        twice.hear(Alone::RingBack);
        assert_eq!(played(&mut once, 20), played(&mut twice, 20));
        twice.hear(Alone::RingBack);
        assert_eq!(played(&mut once, 20), played(&mut twice, 20));
        played(&mut twice, 60);
        twice.hear(Alone::Silence);
        assert!(rms(&played(&mut twice, 10)) < 20.0);
        twice.hear(Alone::RingBack);
        assert!(rms(&played(&mut twice, 10)) > 1_500.0);
    }

    #[test]
    fn what_is_cut_at_its_loudest_decays_without_a_step() {
        let mut seam = Seam::new();
        for loudest in [i16::MAX, i16::MIN, 8_000] {
            let mut before = [loudest; FRAME];
            seam.close(&mut before);
            assert_eq!(before, [loudest; FRAME], "nothing is cut yet");
            seam.cut();
            let mut after = [0; FRAME];
            seam.close(&mut after);
            let mut last = loudest;
            for sample in after {
                let step = (i32::from(sample) - i32::from(last)).abs();
                assert!(step <= 32_768 / RAMP as i32 + 1, "a step of {step}");
                last = sample;
            }
            assert_eq!(&after[RAMP..], &[0; FRAME - RAMP]);
        }
    }
}
