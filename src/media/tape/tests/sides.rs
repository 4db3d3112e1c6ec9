//! Who is heard where, when, and how well.

use super::*;
use crate::media::opus::peer::{Phone, voice};

/// Packets of a phone, each of `millis`.
fn spoken(millis: usize, packets: usize) -> Vec<heapless::Vec<u8, 480>> {
    let mut phone = Phone::new(false);
    let samples = 48 * millis;
    (0..packets)
        .map(|n| {
            let said = phone.say(&(n * samples..(n + 1) * samples).map(voice).collect::<Vec<_>>());
            heapless::Vec::from_slice(&said).unwrap()
        })
        .collect()
}

#[test]
fn each_side_is_heard_at_its_pitch_and_strength_on_its_own_channel_only() {
    for form in ALL {
        for source in [8_000, 16_000, 24_000] {
            for swapped in [false, true] {
                let said = |at| {
                    let (said, quiet) = (tone(1_000.0, source, at), Said::Nothing);
                    if swapped { slice(at, quiet, said) } else { slice(at, said, quiet) }
                };
                let (file, _) = recorded(&form, (0..150).map(said));
                let (left, right) = heard(&form, &file);
                let (talks, quiet) = if swapped { (&right, &left) } else { (&left, &right) };
                let talks = &talks[form.hertz() as usize / 2..];
                let strong = strength(talks, form.hertz(), 1_000.0);
                let name = format!("{} from {source}, swapped {swapped}", form.word());
                // G.711 and PCM are exact; Opus at these rates is not a tone's best friend.
                let band = if form.kind == Kind::Ogg { 6_500.0..10_500.0 } else { 8_700.0..9_300.0 };
                assert!(band.contains(&strong), "{name}: {strong}");
                // A sine of 9,000 is 6,364 RMS: -60 dB of it are 6.4. A-law's silence is 8.
                let leaked = loudness(quiet);
                assert!(
                    leaked < if form.kind == Kind::WavAlaw { 8.1 } else { 6.4 },
                    "{name}: leaked {leaked}"
                );
                assert!(strength(quiet, form.hertz(), 1_000.0) < 1.0, "{name}");
            }
        }
    }
}

#[test]
fn two_tones_at_once_stay_apart() {
    for form in ALL {
        let (file, _) =
            recorded(&form, (0..200).map(|at| slice(at, tone(440.0, 8_000, at), tone(1_500.0, 8_000, at))));
        let (left, right) = heard(&form, &file);
        for (side, own, other) in [(left, 440.0, 1_500.0), (right, 1_500.0, 440.0)] {
            let side = &side[form.hertz() as usize..3 * form.hertz() as usize];
            let (own, other) = (strength(side, form.hertz(), own), strength(side, form.hertz(), other));
            assert!(own > 6_000.0, "{}: {own}", form.word());
            // -60 dB; an Opus encoder makes some noise of its own at every frequency.
            let allowed = if form.kind == Kind::Ogg { own / 100.0 } else { own / 1_000.0 };
            assert!(other < allowed, "{}: {other} of {own}", form.word());
        }
    }
}

/// Where the loudest sample is.
fn loudest(sound: &[i16]) -> usize {
    sound.iter().enumerate().max_by_key(|(_, sample)| sample.unsigned_abs()).unwrap().0
}

/// 20 ms with a click of half a millisecond in their middle, if `on`.
fn click(rate: usize, on: bool) -> Said {
    let frame = rate / 50;
    let inside = frame / 2..frame / 2 + rate / 2_000;
    Said::Linear((0..frame).map(|at| if on && inside.contains(&at) { 20_000 } else { 0 }).collect())
}

#[test]
fn a_click_on_both_sides_is_at_the_same_place_whatever_came_before() {
    for form in ALL {
        for (user, far) in [(8_000, 8_000), (16_000, 16_000), (8_000, 24_000), (24_000, 16_000)] {
            // Before it: a hole, a pause, nothing, and other rates.
            let slices = (0..200).filter(|at| !(30..41).contains(at)).map(|at| Slice {
                at,
                paused: (60..67).contains(&at),
                offset: (at % 3 == 0).then_some(0),
                user: if at % 7 == 4 { Said::Nothing } else { click(user, at == 150) },
                far: if at < 100 { click(24_000, false) } else { click(far, at == 150) },
            });
            let (file, tape) = recorded(&form, slices);
            assert_eq!((tape.ticks(), tape.lost_ticks(), tape.paused_ticks()), (200, 11, 7));
            let (left, right) = heard(&form, &file);
            let millis = |at: usize| at as f64 * 1_000.0 / f64::from(form.hertz());
            let (left, right) = (millis(loudest(&left)), millis(loudest(&right)));
            let name = format!("{} from {user} and {far}: {left} and {right} ms", form.word());
            // Equal rates are equal to the sample; resampling holds up to a millisecond back.
            assert!((left - right).abs() <= if user == far { 0.13 } else { 1.5 }, "{name}");
            assert!((left - 3_010.0).abs() < 4.0, "{name}");
        }
    }
}

#[test]
fn opus_on_both_sides_is_decoded_as_a_phone_would_and_stays_beside_linear_sound() {
    for form in [PCM_8, PCM_16, OGG_16] {
        let packets = spoken(20, 150);
        let rate = Rate::of(form.rate).unwrap();
        let mut decoder = Decoder::new(rate).unwrap();
        let decoded: Vec<Said> = packets
            .iter()
            .map(|packet| {
                let mut out = vec![0; rate.frame()];
                decoder.decode(0, packet, &mut out).unwrap();
                Said::Linear(heapless::Vec::from_slice(&out).unwrap())
            })
            .collect();
        let slices = (0..150)
            .map(|at| slice(at, Said::Opus(packets[at as usize].clone()), decoded[at as usize].clone()));
        let (file, tape) = recorded(&form, slices);
        assert_eq!(tape.ticks(), 150);
        let (left, right) = heard(&form, &file);
        assert_eq!(left, right, "{}: two ways of the same sound", form.word());
        assert!(loudness(&left) > 500.0);
    }
}

#[test]
fn long_packets_sound_to_their_end_and_nothing_moves() {
    let (short, long) = (spoken(20, 150), spoken(60, 50));
    let said = |at: u32| match at % 3 {
        0 => Said::Opus(long[at as usize / 3].clone()),
        _ => Said::Lasts,
    };
    let slices = (0..150).map(|at| slice(at, said(at), Said::Opus(short[at as usize].clone())));
    let (file, _) = recorded(&PCM_8, slices);
    let (left, right) = heard(&PCM_8, &file);
    // The same voice, coded twice: alike where it is, not where it is shifted by 20 ms.
    let alike = |shift: usize| {
        let product: f64 = left[shift..].iter().zip(&right).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        product / (loudness(&left) * loudness(&right) * left.len() as f64)
    };
    assert!(alike(0) > 0.8, "{}", alike(0));
    assert!(alike(0) > alike(160) + 0.2, "{} {}", alike(0), alike(160));
    // Silence cuts off what would still have sounded.
    let cut = [slice(0, said(0), Said::Nothing), slice(1, Said::Nothing, Said::Nothing)];
    let (file, _) = recorded(&PCM_8, cut);
    assert!(heard(&PCM_8, &file).0[160..].iter().all(|sample| *sample == 0));
}

#[test]
fn a_lost_packet_is_invented_and_many_fade() {
    let packets = spoken(20, 150);
    let lost = |at: u32| at == 60 || at >= 100;
    let slices = (0..150).map(|at| {
        let said = if lost(at) { Said::Lost } else { Said::Opus(packets[at as usize].clone()) };
        slice(at, said, Said::Nothing)
    });
    let (file, tape) = recorded(&PCM_8, slices);
    assert_eq!(
        (tape.ticks(), tape.lost_ticks()),
        (150, 0),
        "what the network lost is not what the tape lost"
    );
    let (left, _) = heard(&PCM_8, &file);
    let tick = |at: usize| loudness(&left[at * 160..(at + 1) * 160]);
    assert!(tick(60) > 0.3 * tick(59), "{} after {}", tick(60), tick(59));
    assert!(tick(149) < 0.05 * loudness(&left), "{} of {}", tick(149), loudness(&left));
}

#[test]
fn holes_and_pauses_are_silent_on_both_sides_and_of_the_right_length() {
    for form in ALL {
        let slices = (0..200).filter(|at| !(50..75).contains(at)).map(|at| {
            let paused = (100..130).contains(&at);
            let said = |hertz| if paused { Said::Nothing } else { tone(hertz, 8_000, at) };
            Slice { at, paused, offset: None, user: said(500.0), far: said(800.0) }
        });
        let (file, tape) = recorded(&form, slices);
        assert_eq!((tape.ticks(), tape.lost_ticks(), tape.paused_ticks()), (200, 25, 30));
        let (left, right) = heard(&form, &file);
        for side in [left, right] {
            assert_eq!(side.len(), 200 * form.frame());
            let part = |from: usize, to: usize| loudness(&side[from * form.frame()..to * form.frame()]);
            // An encoder needs a moment to fall silent.
            let quiet = if form.kind == Kind::Ogg { 60.0 } else { 8.1 };
            for (from, to) in [(53, 75), (103, 130)] {
                assert!(part(from, to) < quiet, "{}: {}", form.word(), part(from, to));
            }
            for (from, to) in [(10, 50), (76, 100), (131, 199)] {
                assert!(part(from, to) > 4_000.0, "{}: {}", form.word(), part(from, to));
            }
        }
    }
}

#[test]
fn an_agent_at_24_khz_loses_nothing_below_the_band_and_folds_nothing_back() {
    for (form, hertz, folded) in [(PCM_8, 5_000.0, 3_000.0), (PCM_16, 10_000.0, 6_000.0)] {
        let slices = (0..100).map(|at| slice(at, tone(hertz, 24_000, at), tone(3_000.0, 24_000, at)));
        let (file, _) = recorded(&form, slices);
        let (left, right) = heard(&form, &file);
        assert!(strength(&left, form.rate, folded) < 90.0, "{}", strength(&left, form.rate, folded));
        assert!(strength(&right, form.rate, 3_000.0) > 7_500.0, "{}", strength(&right, form.rate, 3_000.0));
    }
}
