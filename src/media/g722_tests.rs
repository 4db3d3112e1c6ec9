//! G.722 against the levels that it must keep, and against vectors of another implementation.

use super::*;
use proptest::prelude::*;

/// Ten seconds of what is hard to code: noise, quiet noise, full-scale steps, a wild sweep, near silence.
fn signal() -> Vec<i16> {
    let mut dice = 12_345u32;
    (0..160_000i64)
        .map(|at| {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (dice >> 16) as i16;
            match at / 8_000 % 5 {
                0 => noise,
                1 => noise >> 4,
                2 if at / 40 % 2 == 0 => i16::MAX,
                2 => i16::MIN,
                3 => (at * at / 64 % 40_000 - 20_000) as i16,
                _ => noise >> 9,
            }
        })
        .collect()
}

/// FNV-1a.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn coded(sound: &[i16]) -> Vec<u8> {
    let mut bytes = vec![0; sound.len() / 2];
    Encoder::new().encode(sound, &mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Vec<i16> {
    let mut sound = vec![0; 2 * bytes.len()];
    assert_eq!(Decoder::new().decode(bytes, &mut sound), sound.len());
    sound
}

/// The hashes are of what libg722 (the C library, by way of its Python package 1.2.8) made of the same.
#[test]
fn every_bit_is_that_of_another_implementation() {
    let bytes = coded(&signal());
    assert_eq!(hash(bytes.iter().copied()), 0x427c_afed_caf4_329f);
    let samples = |bytes: &[u8]| hash(decoded(bytes).into_iter().flat_map(i16::to_le_bytes));
    assert_eq!(samples(&bytes), 0x27ea_26e7_089c_6c14);
    let mut dice = 99u32;
    let random: Vec<u8> = (0..80_000)
        .map(|_| {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (dice >> 24) as u8
        })
        .collect();
    assert_eq!(samples(&random), 0xc6db_6582_bc5d_6cff);
}

/// How far the noise is below a tone of this many hertz and -12 dBFS, in dB, once it has settled; and its gain.
fn quality_at(hertz: f64) -> (f64, f64) {
    let turn = hertz * std::f64::consts::TAU / 16_000.0;
    let sound: Vec<i16> = (0..32_000).map(|at| (8_192.0 * (f64::from(at) * turn).sin()) as i16).collect();
    let heard = &decoded(&coded(&sound))[16_000..];
    // The filters delay the tone: its own part is found by projection, whatever its phase.
    let (mut sine, mut cosine, mut all) = (0.0, 0.0, 0.0);
    for (at, sample) in heard.iter().enumerate() {
        let (s, c) = (at as f64 * turn).sin_cos();
        sine += f64::from(*sample) * s;
        cosine += f64::from(*sample) * c;
        all += f64::from(*sample).powi(2);
    }
    let length = heard.len() as f64;
    let (sine, cosine) = (2.0 * sine / length, 2.0 * cosine / length);
    let tone = (sine * sine + cosine * cosine) / 2.0;
    let noise = (all / length - tone).max(1e-9);
    (10.0 * (tone / noise).log10(), 10.0 * (2.0 * tone).log10() - 20.0 * 8_192f64.log10())
}

#[test]
fn tones_from_50_to_7000_hertz_keep_their_level_and_stand_out_of_the_noise() {
    // The high band has two bits: less, as in the recommendation's own mask (G.722 §2.4.3).
    for (hertz, least) in [
        (50.0, 30.0),
        (300.0, 30.0),
        (1_000.0, 30.0),
        (2_000.0, 30.0),
        (3_400.0, 25.0),
        (5_000.0, 10.0),
        (6_000.0, 10.0),
        (7_000.0, 10.0),
    ] {
        let (snr, gain) = quality_at(hertz);
        println!("{hertz} Hz: {snr:.1} dB over the noise, gain {gain:.2} dB");
        assert!(snr > least, "{hertz} Hz: {snr:.1} dB");
        assert!(gain.abs() < 1.0, "{hertz} Hz: {gain:.2} dB");
    }
}

#[test]
fn silence_stays_silence_and_what_is_half_a_pair_is_left_alone() {
    assert!(decoded(&coded(&[0; 3_200])).iter().all(|sample| sample.abs() < 4));
    let mut bytes = [7; 4];
    Encoder::new().encode(&[100, 200, 300], &mut bytes);
    assert_eq!(&bytes[1..], [7; 3], "one pair, one byte");
    assert_eq!(Decoder::new().decode(&[1, 2, 3], &mut [0; 4]), 4, "no more than there is room for");
}

proptest! {
    #[test]
    fn no_sound_and_no_bytes_make_it_panic(sound in proptest::collection::vec(any::<i16>(), 0..800),
        bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(coded(&sound).len(), sound.len() / 2);
        prop_assert_eq!(decoded(&bytes).len(), 2 * bytes.len());
    }
}
