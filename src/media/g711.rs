//! G.711: µ-law and A-law to 16-bit linear and back.
//!
//! Decoding is a table of 256 entries. Encoding is arithmetic: counting leading zeros finds the
//! segment in one instruction, and a table of 16,384 bytes would push the Opus encoder out of a
//! small core's first cache.

/// What µ-law sends for a sample of zero (RFC 3551 §4.5.14, G.711 table 2b).
pub const SILENCE_PCMU: u8 = 0xFF;
/// What A-law sends for a sample of zero (G.711 table 1b, even bits inverted).
pub const SILENCE_PCMA: u8 = 0xD5;

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
}
