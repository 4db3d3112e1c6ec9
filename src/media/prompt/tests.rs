//! Prompts and clips as they are heard.

use std::f64::consts::TAU;

use super::*;
use crate::call::recording::Outcome;
use crate::media::FRAME;
use crate::media::tap::{Said, Slice};
use crate::media::tape::{Facts, Form, Kind, Tape, head};
use proptest::prelude::*;

/// Everything a clip says when it is played once at 8 kHz.
fn heard(clip: &Clip) -> Vec<i16> {
    let (mut at, mut heard) = (0, Vec::new());
    let mut frame = [0; FRAME];
    while let Some(next) = clip.play_once(at, &mut frame) {
        heard.extend_from_slice(&frame);
        at = next;
    }
    assert_eq!(heard.len() as u64, clip.len_ticks() * FRAME as u64);
    heard
}

fn decibels(sound: &[i16]) -> f64 {
    let power = sound.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / sound.len() as f64;
    10.0 * (power / 32_768f64.powi(2)).log10()
}

#[test]
fn every_language_has_both_prompts_short_loud_enough_and_without_silence_around_them() {
    assert_eq!(LANGUAGES.len(), 12);
    for language in LANGUAGES {
        let mut lengths = Vec::new();
        for mode in [ConsentMode::Announce, ConsentMode::Ask] {
            let sound = heard(&builtin(language, mode).unwrap());
            let level = decibels(&sound);
            assert!((-23.0..-18.0).contains(&level), "{language} {mode:?}: {level} dBFS");
            let loud = |sample: &i16| sample.unsigned_abs() > 300;
            let before = sound.iter().position(loud).unwrap() / 8;
            let after = sound.iter().rev().position(loud).unwrap() / 8;
            assert!(before <= 100 && after <= 100, "{language} {mode:?}: {before} and {after} ms");
            lengths.push(sound.len() / 8);
        }
        assert!((1_000..3_000).contains(&lengths[0]), "{language}: {lengths:?} ms");
        assert!((4_000..8_000).contains(&lengths[1]), "{language}: {lengths:?} ms");
    }
}

#[test]
fn the_prompts_take_little_of_the_program() {
    let all: usize =
        LANGUAGES.iter().filter_map(|l| files(l)).map(|(told, asked)| told.len() + asked.len()).sum();
    assert!(all < 90_000, "{all} bytes");
}

#[test]
fn a_language_that_is_not_built_in_is_refused_with_those_that_are() {
    let said = builtin("xx", ConsentMode::Ask).unwrap_err();
    assert!(said.contains("\"xx\"") && said.contains("de, en, es"), "{said}");
}

#[test]
fn the_language_is_that_of_the_users_country() {
    for (number, language) in [
        ("+5511987654321", "pt"),
        ("+351912345678", "pt"),
        ("+491701234567", "de"),
        ("+41791234567", "de"),
        ("+14155550123", "en"),
        ("+17875550123", "es"),
        ("+15145550123", "fr"),
        ("5215512345678", "es"),
        ("+919812345678", "hi"),
        ("+6281234567890", "id"),
        ("+971501234567", "ar"),
        ("+905321234567", "tr"),
        ("+79161234567", "ru"),
        ("+31612345678", "nl"),
        ("+393331234567", "it"),
        ("+33612345678", "fr"),
        ("+4673123456", "en"),
        ("", "en"),
        ("nobody", "en"),
    ] {
        assert_eq!(language_of(number), language, "{number}");
    }
    assert!(LANGUAGES.iter().all(|language| builtin(language, ConsentMode::Announce).is_ok()));
    assert!(country::COUNTRIES.iter().all(|(_, language)| LANGUAGES.contains(language)));
}

/// A second of 500 Hz at this rate.
fn tone(rate: u32) -> Vec<f64> {
    (0..rate).map(|at| 0.3 * (TAU * 500.0 * f64::from(at) / f64::from(rate)).sin()).collect()
}

/// A WAV file with the fields that matter.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let mut format = Vec::new();
    format.extend_from_slice(&tag.to_le_bytes());
    format.extend_from_slice(&channels.to_le_bytes());
    format.extend_from_slice(&rate.to_le_bytes());
    format.extend_from_slice(&(rate * u32::from(channels) * u32::from(bits / 8)).to_le_bytes());
    format.extend_from_slice(&(channels * bits / 8).to_le_bytes());
    format.extend_from_slice(&bits.to_le_bytes());
    if tag == 0xFFFE {
        // Valid bits, speakers, and the identifier that begins with the tag: linear.
        format.extend_from_slice(&[22, 0, bits as u8, 0, 0, 0, 0, 0, 1, 0]);
        format.extend_from_slice(&[0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]);
    }
    let mut out = b"RIFF\xFF\xFF\xFF\xFFWAVE".to_vec();
    // A chunk of odd length that nobody knows, and what pads it.
    out.extend_from_slice(b"odd \x03\0\0\0abc\0fmt ");
    out.extend_from_slice(&(format.len() as u32).to_le_bytes());
    out.extend_from_slice(&format);
    out.extend_from_slice(b"data");
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(data);
    out
}

/// The amplitude of 500 Hz, and the length in ms.
fn measured(clip: &Clip) -> (f64, usize) {
    let sound = heard(clip);
    let (re, im) = sound.iter().enumerate().fold((0.0, 0.0), |(re, im), (at, sample)| {
        let angle = TAU * 500.0 * at as f64 / 8_000.0;
        (re + f64::from(*sample) * angle.cos(), im + f64::from(*sample) * angle.sin())
    });
    (2.0 * f64::hypot(re, im) / sound.len() as f64 / 32_768.0, sound.len() / 8)
}

#[test]
fn wav_of_every_common_coding_rate_and_number_of_channels_becomes_the_same_clip() {
    type Write = fn(f64) -> Vec<u8>;
    let sixteen = |sample: f64| (sample * 32_768.0) as i16;
    let codings: [(u16, u16, Write); 8] = [
        (1, 8, |sample| vec![(sample * 128.0 + 128.0) as u8]),
        (1, 16, |sample| ((sample * 32_768.0) as i16).to_le_bytes().to_vec()),
        (1, 24, |sample| ((sample * 8_388_608.0) as i32).to_le_bytes()[..3].to_vec()),
        (1, 32, |sample| ((sample * 2_147_483_648.0) as i32).to_le_bytes().to_vec()),
        (3, 32, |sample| (sample as f32).to_le_bytes().to_vec()),
        (0xFFFE, 16, |sample| ((sample * 32_768.0) as i16).to_le_bytes().to_vec()),
        (6, 8, |sample| vec![crate::media::g711::to_pcma((sample * 32_768.0) as i16)]),
        (7, 8, |sample| vec![crate::media::g711::to_pcmu((sample * 32_768.0) as i16)]),
    ];
    assert_eq!(sixteen(0.5), 16_384);
    for (tag, bits, write) in codings {
        for rate in [8_000, 11_025, 16_000, 22_050, 44_100, 48_000] {
            for channels in [1, 2] {
                let data: Vec<u8> = tone(rate).into_iter().flat_map(|s| write(s).repeat(channels)).collect();
                let clip = read_clip(&wav(tag, channels as u16, rate, bits, &data)).unwrap();
                let (strength, millis) = measured(&clip);
                let name = format!("format {tag}, {bits} bits, {rate} Hz, {channels} channels");
                assert!((0.28..0.305).contains(&strength), "{name}: {strength}");
                assert!((990..=1_020).contains(&millis), "{name}: {millis} ms");
            }
        }
    }
}

#[test]
fn what_cannot_be_a_clip_is_refused_with_the_reason_and_a_way_out() {
    let second = |rate: usize| vec![0u8; rate * 2];
    let ours = head(
        &Form { kind: Kind::Ogg, rate: 8_000, bitrate: 16_000 },
        &Facts {
            call: "",
            began: "",
            number: "",
            outcome: Outcome::Running,
            ticks: 0,
            paused_ticks: 0,
            lost_ticks: 0,
        },
    );
    for (file, why) in [
        (b"".to_vec(), "empty"),
        (b"ID3\x04 an MP3".to_vec(), "neither WAV nor Ogg Opus"),
        (wav(1, 3, 8_000, 16, &second(8_000)), "3 channels"),
        (wav(1, 1, 96_000, 16, &second(8_000)), "96000"),
        (wav(17, 1, 8_000, 4, &second(8_000)), "format 17 with 4 bits"),
        (wav(1, 1, 8_000, 16, &second(8_000 * 61)), "at most 60 s"),
        (wav(1, 1, 8_000, 16, &[0; 100]), "at least 40 ms"),
        (b"RIFF\0\0\0\0WAVE".to_vec(), "without samples"),
        (b"RIFF\0\0\0\0AVI ".to_vec(), "not WAVE"),
        (b"OggS and no more".to_vec(), "damaged"),
        (ours, "2 channels of mapping family 1"),
    ] {
        let said = read_clip(&file).unwrap_err();
        assert!(said.contains(why) && said.contains("ffmpeg -i IN"), "{why}: {said}");
    }
}

#[test]
fn a_prompt_is_played_once_to_its_end_at_every_rate_and_then_no_more() {
    let clip = builtin("en", ConsentMode::Announce).unwrap();
    for ratio in [1, 2, 3] {
        let (mut at, mut ticks, mut last) = (0, 0, vec![0; FRAME * ratio]);
        while let Some(next) = clip.play_once(at, &mut last) {
            (at, ticks) = (next, ticks + 1);
        }
        assert_eq!(ticks, clip.len_ticks());
        assert_eq!(last[last.len() - ratio..], vec![0; ratio], "faded out");
    }
}

/// A recording of ours, as a file of whatever form.
fn recorded(form: &Form) -> Vec<u8> {
    let mut tape = Tape::new(form).unwrap();
    let mut body = Vec::new();
    for at in 0..100 {
        let user = Said::Linear((0..160).map(|n| if n % 16 < 8 { 5_000 } else { -5_000 }).collect());
        tape.take(&Slice { at, user: user.clone(), far: user, ..Slice::default() });
    }
    tape.finish(&mut body);
    let facts = Facts {
        call: "c",
        began: "",
        number: "",
        outcome: Outcome::Complete,
        ticks: tape.ticks(),
        paused_ticks: 0,
        lost_ticks: 0,
    };
    [head(form, &facts), body].concat()
}

#[test]
fn a_recording_of_ours_in_wav_is_a_clip_too() {
    for (kind, rate) in
        [(Kind::WavPcm, 8_000), (Kind::WavPcm, 16_000), (Kind::WavAlaw, 8_000), (Kind::WavUlaw, 8_000)]
    {
        let clip = read_clip(&recorded(&Form { kind, rate, bitrate: 0 })).unwrap();
        assert!((100..=101).contains(&clip.len_ticks()), "{}", clip.len_ticks());
        assert!(measured(&clip).0 > 0.1, "a square of 500 Hz");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        begin in 0..5usize, cut in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        rest in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = match begin {
            0 => Vec::new(),
            1 => wav(1, 2, 44_100, 24, &[7; 6_000]),
            2 => wav(0xFFFE, 1, 8_000, 16, &[7; 6_000]),
            3 => files("en").unwrap().0.to_vec(),
            _ => b"OggS\0\x02".to_vec(),
        };
        bytes.truncate(cut.index(bytes.len() + 1));
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes.extend_from_slice(&rest);
        let _ = read_clip(&bytes);
    }

    #[test]
    fn whatever_opus_packets_a_sound_ogg_file_carries_nothing_panics(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
        pre_skip in any::<u16>(), gain in any::<i16>(), granule in any::<u64>(), family in 0..2u8,
    ) {
        use crate::media::tape::page::{FIRST, LAST, Page};
        let mut file = Vec::new();
        let mut opus = b"OpusHead\x01\x01".to_vec();
        opus.extend_from_slice(&pre_skip.to_le_bytes());
        opus.extend_from_slice(&[0; 4]);
        opus.extend_from_slice(&gain.to_le_bytes());
        opus.push(family);
        let mut page = Page::new(9, 0);
        page.flags = FIRST;
        page.push(&opus);
        page.push(b"OpusTags");
        page.write(&mut file);
        let mut page = Page::new(9, 1);
        page.flags = LAST;
        page.granule = granule;
        for packet in &packets {
            page.push(packet);
        }
        page.write(&mut file);
        let _ = read_clip(&file);
    }
}
