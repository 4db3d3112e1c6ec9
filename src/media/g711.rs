//! G.711: µ-law and A-law to 16-bit linear and back, and the concealment of a lost packet.
//!
//! Decoding is a table of 256 entries. Encoding is arithmetic: counting leading zeros finds the
//! segment in one instruction, and a table of 16,384 bytes would push the Opus encoder out of a
//! small core's first cache.

use super::FRAME;
use super::playout::Voice;

/// What µ-law sends for a sample of zero (RFC 3551 §4.5.14, G.711 table 2b).
pub const SILENCE_PCMU: u8 = 0xFF;
/// What A-law sends for a sample of zero (G.711 table 1b, even bits inverted).
pub const SILENCE_PCMA: u8 = 0xD5;

/// The static payload type of A-law (RFC 3551 §6); to the decoder every other one is µ-law.
const PCMA: u8 = 8;
/// Added to the magnitude before µ-law finds its segment.
const BIAS: i32 = 132;
/// The loudest magnitude that µ-law can say.
const CLIP: i32 = 32_635;

static FROM_PCMU: [i16; 256] = table_pcmu();
static FROM_PCMA: [i16; 256] = table_pcma();

const fn table_pcmu() -> [i16; 256] {
    let mut table = [0i16; 256];
    let mut code = 0usize;
    while code < 256 {
        let said = !(code as u8);
        let segment = (said >> 4) & 7;
        let step = (said & 15) as i32;
        let magnitude = (((step << 3) + BIAS) << segment) - BIAS;
        table[code] = if said & 0x80 != 0 { -magnitude as i16 } else { magnitude as i16 };
        code += 1;
    }
    table
}

const fn table_pcma() -> [i16; 256] {
    let mut table = [0i16; 256];
    let mut code = 0usize;
    while code < 256 {
        let said = (code as u8) ^ 0x55;
        let segment = (said >> 4) & 7;
        let step = ((said & 15) as i32) << 4;
        let magnitude = if segment == 0 { step + 8 } else { (step + 0x108) << (segment - 1) };
        table[code] = if said & 0x80 != 0 { magnitude as i16 } else { -magnitude as i16 };
        code += 1;
    }
    table
}

/// One 16-bit sample as a µ-law byte.
pub fn to_pcmu(sample: i16) -> u8 {
    let linear = i32::from(sample);
    let sign = if linear < 0 { 0x80u8 } else { 0 };
    let magnitude = linear.abs().min(CLIP) + BIAS;
    // 132..=32767: the highest set bit is bit 7 to 14.
    let segment = 24 - magnitude.leading_zeros();
    let step = (magnitude >> (segment + 3)) & 15;
    !(sign | ((segment as u8) << 4) | step as u8)
}

/// One 16-bit sample as an A-law byte.
pub fn to_pcma(sample: i16) -> u8 {
    let linear = i32::from(sample) >> 3;
    let (mask, magnitude) = if linear >= 0 { (0xD5u8, linear) } else { (0x55u8, -linear - 1) };
    // 0..=4095: segment 0 has five bits, each further segment one more.
    let segment = (32 - (magnitude as u32).leading_zeros()).saturating_sub(5);
    let step = (magnitude >> segment.max(1)) & 15;
    (((segment as u8) << 4) | step as u8) ^ mask
}

/// One µ-law byte as a 16-bit sample.
pub fn from_pcmu(code: u8) -> i16 {
    FROM_PCMU[usize::from(code)]
}

/// One A-law byte as a 16-bit sample.
pub fn from_pcma(code: u8) -> i16 {
    FROM_PCMA[usize::from(code)]
}

/// One frame, sample by sample.
pub fn encode(frame: &[i16], out: &mut [u8], law: impl Fn(i16) -> u8) {
    for (code, sample) in out.iter_mut().zip(frame) {
        *code = law(*sample);
    }
}

/// How much of what was heard is kept to conceal a loss from: 40 ms.
const HISTORY: usize = 320;
/// The shortest and longest pitch period that is looked for: 200 Hz to 66 Hz.
const PERIODS: std::ops::RangeInclusive<usize> = 40..=120;
/// A concealed stretch fades to nothing within 60 ms.
const FADE: usize = 480;

/// G.711 heard from the PBX: no state but the last 40 ms, kept to conceal a loss.
///
/// Concealment repeats the last pitch period and fades out: the idea of G.711 Appendix I, without
/// its overlap bookkeeping.
pub(super) struct Decoder {
    history: [i16; HISTORY],
    /// Samples invented since the last real one, and the period they repeat.
    invented: usize,
    period: usize,
}

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder { history: [0; HISTORY], invented: 0, period: *PERIODS.end() }
    }

    fn remember(&mut self, heard: &[i16]) {
        let fresh = heard.len().min(HISTORY);
        self.history.copy_within(fresh.., 0);
        let tail = &heard[heard.len() - fresh..];
        self.history[HISTORY - fresh..].copy_from_slice(tail);
    }

    /// The lag at which the last 20 ms look most like what came before them.
    fn pitch(&self) -> usize {
        let recent = &self.history[HISTORY - FRAME..];
        let mut best = (i64::MAX, *PERIODS.end());
        for lag in PERIODS {
            let before = &self.history[HISTORY - FRAME - lag..HISTORY - lag];
            let difference: i64 = recent
                .iter()
                .zip(before)
                .map(|(a, b)| i64::from((i32::from(*a) - i32::from(*b)).abs()))
                .sum();
            if difference < best.0 {
                best = (difference, lag);
            }
        }
        best.1
    }
}

impl Voice for Decoder {
    fn frame(&self) -> usize {
        FRAME
    }

    fn units_per_sample(&self) -> u32 {
        1
    }

    fn decode(&mut self, payload_type: u8, payload: &[u8], out: &mut [i16]) -> Option<usize> {
        let table = if payload_type == PCMA { &FROM_PCMA } else { &FROM_PCMU };
        let length = payload.len().min(out.len());
        for (sample, code) in out.iter_mut().zip(payload) {
            *sample = table[usize::from(*code)];
        }
        if self.invented > 0 {
            // From the invented sound to the real one in 5 ms, or the seam is heard as a click.
            let mut bridge = [0i16; 40];
            self.invent(&mut bridge);
            for (at, (real, made)) in out[..length].iter_mut().zip(bridge).enumerate() {
                *real = ((i32::from(*real) * at as i32 + i32::from(made) * (40 - at as i32)) / 40) as i16;
            }
            self.invented = 0;
        }
        self.remember(&out[..length]);
        Some(length)
    }

    fn conceal(&mut self, out: &mut [i16]) {
        self.invent(out);
    }

    fn repair(&mut self, _payload_type: u8, _next: &[u8], out: &mut [i16]) -> bool {
        // G.711 carries nothing of the packet before.
        self.invent(out);
        false
    }
}

impl Decoder {
    fn invent(&mut self, out: &mut [i16]) {
        if self.invented == 0 {
            self.period = self.pitch();
        }
        for sample in out.iter_mut() {
            let from = HISTORY - self.period + self.invented % self.period;
            let left = FADE.saturating_sub(self.invented) as i32;
            *sample = (i32::from(self.history[from]) * left / FADE as i32) as i16;
            self.invented += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn silence_is_the_byte_the_standard_names() {
        assert_eq!(to_pcmu(0), SILENCE_PCMU);
        assert_eq!(to_pcma(0), SILENCE_PCMA);
        assert_eq!(from_pcmu(SILENCE_PCMU), 0);
        assert_eq!(from_pcma(SILENCE_PCMA), 8);
    }

    #[test]
    fn the_loudest_codes_have_the_values_of_the_standard() {
        // G.711: the outermost decision values, scaled to 16 bits.
        assert_eq!((from_pcmu(0x80), from_pcmu(0x00)), (32_124, -32_124));
        assert_eq!((from_pcma(0xAA), from_pcma(0x2A)), (32_256, -32_256));
        assert_eq!((to_pcmu(i16::MAX), to_pcmu(i16::MIN)), (0x80, 0x00));
        assert_eq!((to_pcma(i16::MAX), to_pcma(i16::MIN)), (0xAA, 0x2A));
    }

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in 0..=255u8 {
            assert_eq!(to_pcma(from_pcma(code)), code, "A-law {code:#x}");
            // 0x7F is µ-law's negative zero: it decodes to 0, which is said as 0xFF.
            let expected = if code == 0x7F { 0xFF } else { code };
            assert_eq!(to_pcmu(from_pcmu(code)), expected, "µ-law {code:#x}");
        }
    }

    proptest! {
        #[test]
        fn a_sample_comes_back_within_half_a_step(sample in any::<i16>()) {
            let linear = i32::from(sample);
            let loud = linear.abs();
            if loud <= CLIP {
                let mu = (i32::from(from_pcmu(to_pcmu(sample))) - linear).abs();
                // Half a step is 4 in the first segment and doubles with each.
                prop_assert!(mu <= 4.max((loud + BIAS) / 32), "µ-law {sample}: off by {mu}");
            }
            let a = (i32::from(from_pcma(to_pcma(sample))) - linear).abs();
            prop_assert!(a <= 16.max(loud / 32 + 8), "A-law {sample}: off by {a}");
        }
    }

    #[test]
    fn a_lost_frame_of_a_steady_tone_is_hardly_heard() {
        let mut decoder = Decoder::new();
        let tone = |at: usize| (8_000.0 * (at as f64 * 200.0 * std::f64::consts::TAU / 8_000.0).sin()) as i16;
        let mut out = [0i16; FRAME];
        for frame in 0..5 {
            let coded: Vec<u8> = (0..FRAME).map(|i| to_pcmu(tone(frame * FRAME + i))).collect();
            decoder.decode(0, &coded, &mut out);
        }
        decoder.conceal(&mut out);
        let wrong: i64 =
            (0..FRAME).map(|i| i64::from((out[i] - tone(5 * FRAME + i)).abs())).sum::<i64>() / 160;
        // A gap of silence would be wrong by the tone's mean level, about 5,100.
        assert!(wrong < 1_400, "off by {wrong} on average");
        for _ in 0..4 {
            decoder.conceal(&mut out);
        }
        assert!(out.iter().all(|sample| *sample == 0), "it must fade out, not hum");
    }

    #[test]
    fn sound_after_a_loss_begins_without_a_click() {
        // The real sound goes on at the top of its swing while the invented one is at its bottom.
        let mut decoder = Decoder::new();
        let tone = |at: usize| (8_000.0 * (at as f64 * 200.0 * std::f64::consts::TAU / 8_000.0).sin()) as i16;
        let code = |from: usize| -> Vec<u8> { (from..from + FRAME).map(|at| to_pcmu(tone(at))).collect() };
        let mut out = [0i16; FRAME];
        for frame in 0..3 {
            decoder.decode(0, &code(frame * FRAME), &mut out);
        }
        let mut gap = [0i16; 30];
        decoder.conceal(&mut gap);
        decoder.decode(0, &code(3 * FRAME + 10), &mut out);
        let seam = (i32::from(out[0]) - i32::from(gap[29])).abs();
        let apart = (i32::from(tone(3 * FRAME + 10)) - i32::from(gap[29])).abs();
        assert!(apart > 10_000, "the story has no seam: {apart}");
        assert!(seam < 2_500, "a step of {seam}");
        assert!((i32::from(out[FRAME - 1]) - i32::from(tone(3 * FRAME + 10 + FRAME - 1))).abs() < 300);
    }
}
