//! G.722 at 64 kbit/s: 7 kHz sound, 16,000 samples a second in 8,000 bytes (ITU-T G.722, RFC 3551 §4.5.2).
//!
//! Two bands by a quadrature mirror filter, each coded as the difference from a prediction:
//!
//! ```text
//!  16 kHz ─► QMF ─┬─ 0..4 kHz ─► ADPCM, 6 bits ─┐
//!                 └─ 4..8 kHz ─► ADPCM, 2 bits ─┴─► one byte, high band in the top bits
//! ```
//!
//! Its RTP clock says 8,000 Hz although it samples at 16,000: a mistake of RFC 1890 that stayed. All is integer
//! arithmetic as the recommendation gives it (its names are kept in the comments), so that both ends compute the
//! same predictions. Fixed memory, no allocation, no input that it cannot take.

/// Decision levels of the low band's quantiser (table 15/G.722, Q6).
const Q6: [i32; 30] = [
    0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121,
    1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
/// The low band's output of 4 bits (table 16, QM4) and of 6 bits (QM6).
const QM4: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360,
    -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688,
    -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856,
    7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136,
    -432, -136,
];
/// The high band's output (table 18, QM2).
const QM2: [i32; 4] = [-7408, -1616, 7408, 1616];
/// How the codes move the logarithmic scale factors (tables 17 and 19: WL by RL42, WH by RH2).
const LOW_STEP: [i32; 16] = {
    let wl = [-60, -30, 58, 172, 334, 538, 1198, 3042];
    let rl42 = [0, 7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1, 0];
    let mut steps = [0; 16];
    let mut at = 0;
    while at < 16 {
        steps[at] = wl[rl42[at]];
        at += 1;
    }
    steps
};
const HIGH_STEP: [i32; 4] = [798, -214, 798, -214];
/// Powers of two between one and two in 32 steps, times 2048 (table 20, ILB).
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896,
    2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];
/// Half of the 24 coefficients of the mirror filter (table 11); the other half is the same backwards.
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];
/// The length of the mirror filter.
const TAPS: usize = 24;

fn saturated(value: i32) -> i32 {
    value.clamp(-32_768, 32_767)
}

/// One band's adaptive prediction and step size; 16-bit quantities in 32-bit places.
#[derive(Debug, Clone)]
struct Band {
    /// Prediction of the next sample (S), and its part from the zeros (SZ).
    predicted: i32,
    from_zeros: i32,
    /// Reconstructed signals RLT1 and RLT2, partial ones PLT1 and PLT2.
    rebuilt: i32,
    partial: [i32; 2],
    /// Pole coefficients A1, A2 and zero coefficients B1..B6.
    poles: [i32; 2],
    zeros: [i32; 6],
    /// Quantised differences DLT1..DLT6, the newest first.
    differences: [i32; 6],
    /// The logarithmic scale factor (NB) and the linear one (DET).
    logarithm: i32,
    step: i32,
}

/// Which band: the scale factors have other limits and another shift.
#[derive(Debug, Clone, Copy)]
struct Scale {
    limit: i32,
    shift: i32,
}

const LOW: Scale = Scale { limit: 18_432, shift: 8 };
const HIGH: Scale = Scale { limit: 22_528, shift: 10 };

impl Band {
    const fn new(step: i32) -> Band {
        Band {
            predicted: 0,
            from_zeros: 0,
            rebuilt: 0,
            partial: [0; 2],
            poles: [0; 2],
            zeros: [0; 6],
            differences: [0; 6],
            logarithm: 0,
            step,
        }
    }

    /// Quantiser adaptation (LOGSCL and SCALEL, LOGSCH and SCALEH).
    fn rescale(&mut self, by: i32, scale: Scale) {
        self.logarithm = (((self.logarithm * 127) >> 7) + by).clamp(0, scale.limit);
        let mantissa = ILB[((self.logarithm >> 6) & 31) as usize];
        let exponent = scale.shift - (self.logarithm >> 11);
        let linear = if exponent < 0 { mantissa << -exponent } else { mantissa >> exponent };
        self.step = linear << 2;
    }

    /// Adaptive prediction: the quantised difference becomes the prediction of the next sample (block 4).
    fn adapt(&mut self, difference: i32) {
        let rebuilt = saturated(self.predicted + difference); // RECONS
        let partial = saturated(self.from_zeros + difference); // PARREC
        let same = |a: i32, b: i32| (a < 0) == (b < 0);

        // UPPOL2
        let [first, second] = self.poles;
        let steep = saturated(first << 2);
        let moved = if same(partial, self.partial[0]) { -steep } else { steep }.min(32_767);
        let toward = if same(partial, self.partial[1]) { 128 } else { -128 };
        let new_second = (toward + (moved >> 7) + ((second * 32_512) >> 15)).clamp(-12_288, 12_288);
        // UPPOL1
        let toward = if same(partial, self.partial[0]) { 192 } else { -192 };
        let bound = saturated(15_360 - new_second);
        let new_first = saturated(toward + ((first * 32_640) >> 15)).clamp(-bound, bound);
        // UPZERO
        let toward = if difference == 0 { 0 } else { 128 };
        for (zero, before) in self.zeros.iter_mut().zip(self.differences) {
            let step = if same(difference, before) { toward } else { -toward };
            *zero = saturated(step + ((*zero * 32_640) >> 15));
        }

        // DELAYA, FILTEP
        let poles = saturated(
            ((new_first * saturated(rebuilt + rebuilt)) >> 15)
                + ((new_second * saturated(self.rebuilt + self.rebuilt)) >> 15),
        );
        self.differences.copy_within(..5, 1);
        self.differences[0] = difference;
        self.poles = [new_first, new_second];
        self.partial = [partial, self.partial[0]];
        self.rebuilt = rebuilt;
        // FILTEZ
        let sum: i32 = self
            .zeros
            .iter()
            .zip(self.differences)
            .map(|(zero, difference)| (zero * saturated(difference + difference)) >> 15)
            .sum();
        self.from_zeros = saturated(sum);
        self.predicted = saturated(poles + self.from_zeros); // PREDIC
    }
}

/// Both bands, as encoder and decoder begin.
#[derive(Debug, Clone)]
struct Bands {
    low: Band,
    high: Band,
    /// The mirror filter's line of samples, the oldest first.
    line: [i32; TAPS],
}

impl Bands {
    const fn new() -> Bands {
        Bands { low: Band::new(32), high: Band::new(8), line: [0; TAPS] }
    }

    /// Two more samples go into the line; what the filter makes of its even and its odd places.
    fn filter(&mut self, first: i32, second: i32) -> (i32, i32) {
        self.line.copy_within(2.., 0);
        self.line[TAPS - 2] = first;
        self.line[TAPS - 1] = second;
        let (mut even, mut odd) = (0, 0);
        for (at, pair) in self.line.chunks_exact(2).enumerate() {
            even += pair[0] * QMF[at];
            odd += pair[1] * QMF[11 - at];
        }
        (even, odd)
    }

    /// What both ends do with a code of the low band, and of the high band.
    fn follow(&mut self, low: usize, high: usize) {
        let difference = (self.low.step * QM4[low >> 2]) >> 15;
        self.low.rescale(LOW_STEP[low >> 2], LOW);
        self.low.adapt(difference);
        let difference = (self.high.step * QM2[high]) >> 15;
        self.high.rescale(HIGH_STEP[high], HIGH);
        self.high.adapt(difference);
    }
}

/// The magnitude that is compared with the decision levels: negative values mirror to one less.
fn magnitude(difference: i32) -> i32 {
    if difference < 0 { !difference } else { difference }
}

/// Sound at 16 kHz into G.722.
#[derive(Debug, Clone)]
pub struct Encoder(Bands);

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder::new()
    }
}

impl Encoder {
    /// One that has heard nothing yet.
    pub const fn new() -> Encoder {
        Encoder(Bands::new())
    }

    /// Two samples become one byte. Encodes as many pairs as there are, and as fit into `out`.
    pub fn encode(&mut self, sound: &[i16], out: &mut [u8]) {
        for (code, pair) in out.iter_mut().zip(sound.chunks_exact(2)) {
            let (even, odd) = self.0.filter(pair[0].into(), pair[1].into());
            let (low, high) = ((odd + even) >> 14, (odd - even) >> 14);
            let (low, high) = (self.code_low(low), self.code_high(high));
            self.0.follow(low, high);
            *code = ((high << 6) | low) as u8;
        }
    }

    /// QUANTL: which of the 60 intervals the difference is in.
    fn code_low(&self, sample: i32) -> usize {
        let difference = saturated(sample - self.0.low.predicted);
        let size = magnitude(difference);
        let interval =
            Q6[1..].iter().position(|level| size < (level * self.0.low.step) >> 12).map_or(30, |at| at + 1);
        match (difference < 0, interval) {
            (true, 1 | 2) => 64 - interval,
            (true, _) => 34 - interval,
            (false, _) => 62 - interval,
        }
    }

    /// QUANTH: one of four.
    fn code_high(&self, sample: i32) -> usize {
        let difference = saturated(sample - self.0.high.predicted);
        let outer = magnitude(difference) >= (564 * self.0.high.step) >> 12;
        match (difference < 0, outer) {
            (true, false) => 1,
            (true, true) => 0,
            (false, false) => 3,
            (false, true) => 2,
        }
    }
}

/// G.722 into sound at 16 kHz.
#[derive(Debug, Clone)]
pub struct Decoder(Bands);

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// One that has heard nothing yet.
    pub const fn new() -> Decoder {
        Decoder(Bands::new())
    }

    /// One byte becomes two samples; decodes as many bytes as there are and as fit into `out`, and says how many
    /// samples they became.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> usize {
        let mut made = 0;
        for (pair, code) in out.chunks_exact_mut(2).zip(payload) {
            let (low, high) = (usize::from(code & 63), usize::from(code >> 6));
            let bands = &mut self.0;
            let limited = |band: &Band, code: i32| {
                (band.predicted + ((band.step * code) >> 15)).clamp(-16_384, 16_383) // LIMIT
            };
            let heard_low = limited(&bands.low, QM6[low]);
            let heard_high = limited(&bands.high, QM2[high]);
            bands.follow(low, high);
            let (even, odd) = bands.filter(heard_low + heard_high, heard_low - heard_high);
            pair[0] = saturated(odd >> 11) as i16;
            pair[1] = saturated(even >> 11) as i16;
            made += 2;
        }
        made
    }
}

#[cfg(test)]
#[path = "g722_tests.rs"]
mod tests;
