//! Clips: what WhatsApp hears over and over while the PBX holds the call and sends nothing, and prompts, heard once.

use super::FRAME;

/// The longest clip, in samples at 8 kHz: a minute.
const LONGEST: usize = 60 * 8_000;
/// The shortest: one that is all fade is none.
const SHORTEST: usize = 4 * FADE;
/// Its beginning and its end come and go within this many samples: 10 ms.
const FADE: usize = 80;

/// Mono sound at 8 kHz to be played while a call is held, or once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    samples: Box<[i16]>,
}

/// Why a sound can't be a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAClip {
    /// Shorter than 40 ms.
    TooShort,
    /// Longer than 60 s.
    TooLong,
}

impl std::fmt::Display for NotAClip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NotAClip::TooShort => "a clip must be at least 40 ms long",
            NotAClip::TooLong => "a clip must be at most 60 s long",
        })
    }
}

impl std::error::Error for NotAClip {}

impl Clip {
    /// A clip of these samples at 8 kHz. Its ends are faded, so that it can be played over and over.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn new(mut samples: Vec<i16>) -> Result<Clip, NotAClip> {
        if samples.len() < SHORTEST {
            return Err(NotAClip::TooShort);
        }
        if samples.len() > LONGEST {
            return Err(NotAClip::TooLong);
        }
        let faded =
            |sample: &mut i16, at: usize| *sample = (i32::from(*sample) * at as i32 / FADE as i32) as i16;
        for (at, sample) in samples.iter_mut().take(FADE).enumerate() {
            faded(sample, at);
        }
        for (at, sample) in samples.iter_mut().rev().take(FADE).enumerate() {
            faded(sample, at);
        }
        Ok(Clip { samples: samples.into_boxed_slice() })
    }

    /// How long it plays, in ticks of 20 ms; the last may be a part of one.
    pub fn len_ticks(&self) -> u64 {
        self.samples.len().div_ceil(FRAME) as u64
    }

    /// The next 20 ms from sample `at` (at 8 kHz) on, at any rate that is a multiple of 8 kHz, silence behind the end;
    /// where the one after begins. `None`: it is over, and `out` is left as it was.
    pub fn play_once(&self, at: usize, out: &mut [i16]) -> Option<usize> {
        if at >= self.samples.len() {
            return None;
        }
        let ratio = interpolate(at, out, |at| self.samples.get(at).copied().unwrap_or(0));
        Some(at + out.len() / ratio)
    }

    /// The next 20 ms from sample `at` on, over and over, at any rate that is a multiple of 8 kHz; where the one after begins.
    pub(super) fn play(&self, at: usize, out: &mut [i16]) -> usize {
        let ratio = interpolate(at, out, |at| self.samples[at % self.samples.len()]);
        (at + out.len() / ratio) % self.samples.len()
    }
}

/// Fills `out` from sample `at` on; says how many samples of it are one at 8 kHz.
fn interpolate(at: usize, out: &mut [i16], sample: impl Fn(usize) -> i16) -> usize {
    let ratio = (out.len() / FRAME).max(1);
    for (n, place) in out.iter_mut().enumerate() {
        let (whole, part) = (at + n / ratio, (n % ratio) as i32);
        let (here, next) = (i32::from(sample(whole)), i32::from(sample(whole + 1)));
        *place = (here + (next - here) * part / ratio as i32) as i16;
    }
    ratio
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_goes_on_over_its_end_without_a_click_at_both_rates() {
        // A tone that is loudest where the clip is cut.
        let tone = |at: usize| (9_000.0 * (at as f64 * 0.39).cos()) as i16;
        let clip = Clip::new((0..4_321).map(tone).collect()).unwrap();
        for ratio in [1, 2] {
            let (mut at, mut heard) = (0, Vec::new());
            for _ in 0..100 {
                let mut frame = vec![0; FRAME * ratio];
                at = clip.play(at, &mut frame);
                heard.extend(frame);
            }
            let largest = heard.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max();
            // The steepest place of the tone itself is 9000 * 0.39.
            assert!(largest < Some(3_600 / ratio as i32), "a click of {largest:?}");
            let loudest = heard.iter().map(|sample| sample.unsigned_abs()).max();
            assert!(loudest > Some(8_500), "{loudest:?}");
        }
    }

    #[test]
    fn a_clip_of_more_than_a_minute_or_of_nothing_is_refused() {
        assert_eq!(Clip::new(vec![0; 480_001]), Err(NotAClip::TooLong));
        assert!(Clip::new(vec![0; 480_000]).is_ok());
        assert_eq!(Clip::new(Vec::new()), Err(NotAClip::TooShort));
    }
}
