//! From one sampling rate to another: a windowed sinc, its phases in a table, its memory fixed.
//!
//! Used only where Opus, which decodes to 8, 16 and 24 kHz by itself, has no part: voice agents of other rates, linear
//! sound that is recorded at another rate, and clips.

/// Positions between two samples that the table holds; between those, coefficients are interpolated.
const PHASES: usize = 64;
/// Taps when the rate goes up. Going down they grow, so that nothing folds back into the band.
const TAPS: usize = 16;
/// The most taps there are: 48 kHz down to 8 kHz.
const MOST_TAPS: usize = 96;

/// One direction, from one rate to another.
#[derive(Debug)]
pub struct Resampler {
    /// Input samples per output sample, as 32.32 fixed point.
    step: u64,
    /// Where the next output lies in `line`, as 32.32 fixed point.
    at: u64,
    taps: usize,
    table: Vec<f32>,
    line: Vec<f32>,
}

impl Resampler {
    /// Rates in hertz; outside 1 kHz to 192 kHz they are moved to the nearer bound.
    pub fn new(from: u32, to: u32) -> Resampler {
        let from = from.clamp(1_000, 192_000);
        let to = to.clamp(1_000, 192_000);
        let ratio = (to as f32 / from as f32).min(1.0);
        let taps = (((TAPS as f32 / ratio).ceil() as usize).min(MOST_TAPS) + 1) & !1;
        let mut table = Vec::with_capacity((PHASES + 1) * taps);
        for phase in 0..=PHASES {
            let row = table.len();
            for tap in 0..taps {
                let distance = tap as f32 - (taps / 2 - 1) as f32 - phase as f32 / PHASES as f32;
                table.push(sinc(distance * ratio * 0.94) * window(distance / (taps / 2) as f32));
            }
            let sum: f32 = table[row..].iter().sum();
            for coefficient in &mut table[row..] {
                *coefficient /= sum;
            }
        }
        let mut fresh =
            Resampler { step: (u64::from(from) << 32) / u64::from(to), at: 0, taps, table, line: Vec::new() };
        fresh.reset();
        fresh
    }

    /// Forgets what was heard.
    pub fn reset(&mut self) {
        self.at = 0;
        self.line.clear();
        self.line.resize(self.taps / 2 - 1, 0.0);
    }

    /// Adds what `samples` become to `out`; the last few wait for the next call.
    pub fn run(&mut self, samples: &[i16], out: &mut Vec<i16>) {
        self.line.extend(samples.iter().map(|sample| f32::from(*sample)));
        loop {
            let first = (self.at >> 32) as usize;
            let Some(heard) = self.line.get(first..first + self.taps) else { break };
            let fine = (self.at & 0xFFFF_FFFF) as f32 / 4_294_967_296.0 * PHASES as f32;
            let phase = (fine as usize).min(PHASES - 1);
            let between = fine - phase as f32;
            let row = &self.table[phase * self.taps..(phase + 2) * self.taps];
            let (here, there) = row.split_at(self.taps);
            let mut sum = 0.0f32;
            for ((sample, a), b) in heard.iter().zip(here).zip(there) {
                sum += sample * (a + (b - a) * between);
            }
            out.push(sum.round().clamp(-32_768.0, 32_767.0) as i16);
            self.at += self.step;
        }
        let used = ((self.at >> 32) as usize).min(self.line.len());
        self.line.drain(..used);
        self.at -= (used as u64) << 32;
    }
}

fn sinc(x: f32) -> f32 {
    if x.abs() < 1e-4 {
        return 1.0;
    }
    let angle = std::f32::consts::PI * x;
    angle.sin() / angle
}

/// Hann's window over -1 to 1.
fn window(x: f32) -> f32 {
    if x.abs() >= 1.0 { 0.0 } else { 0.5 + 0.5 * (std::f32::consts::PI * x).cos() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hertz: f32, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|at| {
                let angle = 2.0 * std::f32::consts::PI * hertz * at as f32 / rate as f32;
                (8_000.0 * angle.sin()) as i16
            })
            .collect()
    }

    /// The amplitude of one frequency (Goertzel's sum, done plainly).
    fn strength(sound: &[i16], rate: u32, hertz: f32) -> f32 {
        let (mut re, mut im) = (0.0f32, 0.0f32);
        for (at, sample) in sound.iter().enumerate() {
            let angle = 2.0 * std::f32::consts::PI * hertz * at as f32 / rate as f32;
            re += f32::from(*sample) * angle.cos();
            im += f32::from(*sample) * angle.sin();
        }
        2.0 * (re * re + im * im).sqrt() / sound.len() as f32
    }

    #[test]
    fn a_tone_keeps_its_pitch_its_strength_and_its_length() {
        for (from, to) in
            [(44_100, 16_000), (48_000, 24_000), (8_000, 16_000), (22_050, 16_000), (16_000, 8_000)]
        {
            let mut out = Vec::new();
            Resampler::new(from, to).run(&tone(from, 1_000.0, from as usize), &mut out);
            let missing = to as i64 - out.len() as i64;
            assert!((0..200).contains(&missing), "{from} -> {to}: {} samples", out.len());
            let strong = strength(&out[200..], to, 1_000.0);
            assert!((7_600.0..8_400.0).contains(&strong), "{from} -> {to}: {strong}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_say_does_not_fold_back() {
        let mut out = Vec::new();
        Resampler::new(48_000, 8_000).run(&tone(48_000, 7_000.0, 48_000), &mut out);
        // 7 kHz would be heard at 1 kHz.
        assert!(strength(&out[200..], 8_000, 1_000.0) < 80.0);
    }

    #[test]
    fn chunks_of_any_size_make_the_same_sound() {
        let whole = tone(44_100, 440.0, 4_410);
        let mut at_once = Vec::new();
        Resampler::new(44_100, 16_000).run(&whole, &mut at_once);
        let mut in_pieces = Vec::new();
        let mut resampler = Resampler::new(44_100, 16_000);
        for piece in whole.chunks(7) {
            resampler.run(piece, &mut in_pieces);
        }
        assert_eq!(at_once, in_pieces);
    }
}
