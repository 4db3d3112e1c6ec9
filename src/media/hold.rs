//! What WhatsApp hears while the PBX holds the call and sends nothing: a clip, over and over.

use super::FRAME;

/// The longest clip, in samples at 8 kHz: a minute.
const LONGEST: usize = 60 * 8_000;
/// The shortest: one that is all fade is none.
const SHORTEST: usize = 4 * FADE;
/// Its beginning and its end come and go within this many samples: 10 ms.
const FADE: usize = 80;

/// Mono sound at 8 kHz to be played while a call is held.
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

    /// The next 20 ms from sample `at` on, played once: silence fills the last frame. `None`: it is over, and `out` is as
    /// it was.
    pub(super) fn play_once(&self, at: usize, out: &mut [i16]) -> Option<usize> {
        if at >= self.samples.len() {
            return None;
        }
        let ratio = (out.len() / FRAME).max(1);
        self.play(at, out);
        let left = (self.samples.len() - at) * ratio;
        if let Some(rest) = out.get_mut(left..) {
            rest.fill(0);
        }
        Some(at + out.len() / ratio)
    }

    /// The next 20 ms from sample `at` on, at any rate that is a multiple of 8 kHz; where the one after begins.
    pub(super) fn play(&self, at: usize, out: &mut [i16]) -> usize {
        let ratio = (out.len() / FRAME).max(1);
        let sample = |at: usize| i32::from(self.samples[at % self.samples.len()]);
        for (n, place) in out.iter_mut().enumerate() {
            let (whole, part) = (at + n / ratio, (n % ratio) as i32);
            let (here, next, ratio) = (sample(whole), sample(whole + 1), ratio as i32);
            *place = (here + (next - here) * part / ratio) as i16;
        }
        (at + out.len() / ratio) % self.samples.len()
    }
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
