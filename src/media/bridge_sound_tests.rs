//! Stories of how a call sounds: pitch, level, gaps, loss, pauses and clocks.

use super::*;
use crate::media::opus::peer::voice;

#[test]
fn a_tone_from_the_pbx_is_heard_in_whatsapp_at_its_pitch_and_level_without_a_gap() {
    for law in [Codec::Pcmu, Codec::Pcma] {
        let mut story = Story::talking();
        for _ in 0..150 {
            story.far_says_tone(law, 440.0, 160);
            story.tick();
        }
        story.assert_unbroken_towards_user();
        let sound = &story.heard_by_user()[48_000..];
        let pitch = frequency(sound, 48_000.0);
        assert!((pitch - 440.0).abs() < 4.4, "{law:?}: {pitch:.1} Hz");
        let sent = 8_000.0 / 2f64.sqrt();
        for (n, window) in sound.chunks(960).enumerate() {
            let off = decibel(rms(window) / sent);
            assert!(off.abs() < 3.0, "{law:?}: {off:.1} dB in frame {n}");
        }
        assert_eq!(story.bridge.quality(HeardSide::Far).concealed, 0);
    }
}

#[test]
fn a_tone_from_whatsapp_is_heard_by_the_pbx_at_its_pitch_and_level_without_a_gap() {
    for stereo in [false, true] {
        let mut story = Story::talking();
        let mut speaker = ToneSpeaker::new(stereo, 440.0);
        for _ in 0..150 {
            let packet = speaker.next(960);
            story.user_says(&packet, 960);
            story.tick();
        }
        let sound = &story.heard_by_far()[8_000..];
        let pitch = frequency(sound, 8_000.0);
        assert!((pitch - 440.0).abs() < 4.4, "{pitch:.1} Hz");
        for (n, window) in sound.chunks(160).enumerate() {
            let off = decibel(rms(window) / (8_000.0 / 2f64.sqrt()));
            assert!(off.abs() < 3.0, "{off:.1} dB in frame {n}");
        }
    }
}

#[test]
fn opus_packets_of_every_length_are_played_without_a_gap() {
    // 2.5 ms to 100 ms, in samples at 48 kHz.
    for samples in [120u64, 240, 480, 1_920, 2_880, 4_800] {
        let mut story = Story::talking();
        let mut speaker = ToneSpeaker::new(false, 440.0);
        let mut said = 0u64;
        for n in 0..200u64 {
            while said < (n + 1) * 960 {
                let packet = speaker.next(samples);
                story.user_says(&packet, samples as u32);
                said += samples;
            }
            story.tick();
        }
        let sound = &story.heard_by_far()[8_000..];
        let pitch = frequency(sound, 8_000.0);
        assert!((pitch - 440.0).abs() < 4.4, "{samples}: {pitch:.1} Hz");
        assert!(sound.chunks(160).all(|window| rms(window) > 3_000.0), "{samples}: a gap");
        assert_eq!(story.bridge.quality(HeardSide::User).concealed, 0, "{samples}");
    }
}

#[test]
fn g711_packets_of_every_length_are_played_without_a_gap() {
    for samples in [80u64, 160, 240, 320, 480] {
        let mut story = Story::talking();
        let mut said = 0u64;
        for n in 0..200u64 {
            while said < (n + 1) * 160 {
                story.far_says_tone(Codec::Pcmu, 440.0, samples);
                said += samples;
            }
            story.tick();
        }
        let sound = &story.heard_by_user()[48_000..];
        let pitch = frequency(sound, 48_000.0);
        assert!((pitch - 440.0).abs() < 4.4, "{samples}: {pitch:.1} Hz");
        assert!(sound.chunks(960).all(|window| rms(window) > 3_000.0), "{samples}: a gap");
        assert_eq!(story.bridge.quality(HeardSide::Far).concealed, 0, "{samples}");
    }
}

#[test]
fn with_a_fifth_of_the_packets_lost_most_lone_losses_are_repaired() {
    let mut story = Story::talking();
    let mut phone = Phone::new(false);
    let mut dice = 12_345u32;
    let mut lost = 0;
    for n in 0..1_500u64 {
        let pcm: Vec<i16> = (n * 960..(n + 1) * 960).map(voice).collect();
        let packet = phone.say(&pcm);
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if (dice >> 16) % 100 < 20 {
            lost += 1;
            story.user_skips(960);
        } else {
            story.user_says(&packet, 960);
        }
        story.tick();
    }
    let quality = story.bridge.quality(HeardSide::User);
    println!("{lost} lost: {quality:?}");
    assert!(quality.lost <= lost && quality.lost + 2 >= lost, "{quality:?}");
    // 80 % of the losses have their successor, and the encoder repairs speech but not pauses.
    assert!(quality.repaired * 10 > lost * 4, "{quality:?}");
    let filled = quality.repaired + quality.concealed;
    assert!(filled + 5 >= lost && filled <= lost + 5, "{quality:?}");
    assert!(quality.mos > 1.0 && quality.mos < 4.2, "{quality:?}");
}

#[test]
fn what_whatsapp_reports_as_lost_makes_the_encoder_spend_on_repair() {
    let repairs = |fraction: u8| {
        // Just below the rate at which libopus repairs a loss of 5 %.
        let mut story = Story::with(BridgeSettings { bitrate: 16_500, ..settings() });
        story.bridge.set_far(PCMU).unwrap();
        story.bridge.open_gate();
        story.bridge.user_loss(fraction);
        for n in 0..200u64 {
            let pcm: Vec<i16> = (n * 160..(n + 1) * 160).map(|at| voice(at * 6)).collect();
            let mut payload = [0; 160];
            g711::encode(&pcm, &mut payload, g711::to_pcmu);
            story.far_says(0, &payload);
            story.tick();
        }
        story.user_frames.iter().filter(|frame| opus::carries_repair(&frame.payload)).count()
    };
    let (little, much) = (repairs(0), repairs(64));
    assert!(little < 10 && much > 80, "{little} and {much} of 200");
}

#[test]
fn dtx_from_the_phone_is_silence_and_not_loss() {
    let mut story = Story::talking();
    let mut phone = Phone::new(false).dtx();
    let mut unsent = 0;
    for n in 0..600u64 {
        let speaking = !(100..400).contains(&n);
        let pcm: Vec<i16> = (n * 960..(n + 1) * 960).map(|at| if speaking { voice(at) } else { 0 }).collect();
        let packet = phone.say(&pcm);
        if packet.len() > 2 {
            story.user_says(&packet, 960);
        } else {
            // As a phone does: what is empty is not sent, and takes no sequence number.
            unsent += 1;
            story.user_timestamp = story.user_timestamp.wrapping_add(960);
        }
        story.tick();
    }
    assert!(unsent > 100, "{unsent}");
    let quality = story.bridge.quality(HeardSide::User);
    assert_eq!((quality.lost, quality.discarded, quality.concealed), (0, 0, 0), "{quality:?}");
    let sound = story.heard_by_far();
    assert!(rms(&sound[420 * 160..]) > 2_000.0, "speech is back after the pause");
}

#[test]
fn loss_from_the_pbx_is_concealed_and_counted() {
    let mut story = Story::talking();
    for n in 0..500 {
        if n % 20 == 10 {
            story.far_sequence = story.far_sequence.wrapping_add(1);
            story.far_timestamp = story.far_timestamp.wrapping_add(160);
        } else {
            story.far_says_tone(Codec::Pcmu, 400.0, 160);
        }
        story.tick();
    }
    let quality = story.bridge.quality(HeardSide::Far);
    assert_eq!((quality.lost, quality.repaired), (25, 0), "{quality:?}");
    assert!((23..=27).contains(&quality.concealed), "{quality:?}");
    assert!(quality.mos > 3.0 && quality.mos < 4.4, "{quality:?}");
    let sound = story.heard_by_user();
    assert!(sound[48_000..].chunks(960).all(|window| rms(window) > 2_500.0), "no hole is heard");
}

#[test]
fn a_pbx_whose_clock_is_off_is_heard_without_a_gap_and_without_growing_delay() {
    for (every, drift) in [(20_000u64 - 40, "fast"), (20_000 + 40, "slow")] {
        let mut story = Story::talking();
        let mut next = story.now;
        for _ in 0..6_000 {
            while next <= story.now {
                // 400 Hz: whole periods in 20 ms, so a frame more or less keeps the phase.
                story.far_says_tone(Codec::Pcmu, 400.0, 160);
                next += Duration::from_micros(every);
            }
            story.tick();
        }
        let counts = story.bridge.from_far.jitter.counts();
        let corrected = if drift == "fast" { counts.dropped } else { counts.inserted };
        // 2,000 ppm of two minutes are twelve frames.
        assert!((10..=13).contains(&corrected), "{drift}: {counts:?}");
        assert!(counts.concealed <= 2 && counts.discarded() == 0, "{drift}: {counts:?}");
        let depth = story.bridge.from_far.jitter.depth() / 8;
        assert!((20..=100).contains(&depth), "{drift}: {depth} ms");
        let sound = story.heard_by_user();
        // Two periods each: a frame of silence could hide between windows of 20 ms.
        let weakest = sound[48_000..].chunks(240).map(rms).fold(f64::MAX, f64::min);
        assert!(weakest > 2_000.0, "{drift}: a hole of {weakest:.0}");
    }
}

#[test]
fn a_pbx_whose_stamps_stand_still_while_it_sends_nothing_is_heard_again_at_once() {
    for silent in [30, 80, 500] {
        let mut story = Story::talking();
        for n in 0..200 + silent {
            if !(100..100 + silent).contains(&n) {
                story.far_says_tone(Codec::Pcmu, 440.0, 160);
            }
            story.tick();
        }
        story.assert_unbroken_towards_user();
        let sound = story.heard_by_user();
        let back = &sound[(100 + silent + 5) * 960..];
        assert!(back.chunks(960).all(|window| rms(window) > 3_000.0), "after {silent} ticks");
        assert_eq!(story.bridge.quality(HeardSide::Far).discarded, 0);
    }
}

#[test]
fn music_on_hold_from_another_source_is_heard_and_the_line_to_whatsapp_stays_one() {
    let mut story = Story::talking();
    for part in 0..4u32 {
        story.far_ssrc = 100 + part % 2;
        story.far_sequence = story.far_sequence.wrapping_mul(31);
        for _ in 0..100 {
            story.far_says_tone(Codec::Pcmu, 440.0, 160);
            story.tick();
        }
        story.far_timestamp = story.far_timestamp.wrapping_add(1_000_000_000);
    }
    story.assert_unbroken_towards_user();
    let sound = story.heard_by_user();
    let silent = sound[9_600..].chunks(960).filter(|window| rms(window) < 1_000.0).count();
    assert_eq!(silent, 0);
}

#[test]
fn a_lost_packet_of_sixty_milliseconds_is_repaired_whole() {
    // The packet after the loss must be here when the lost one is due.
    let mut story = Story::with(BridgeSettings { jitter_ms: 120, ..settings() });
    story.bridge.set_far(PCMU).unwrap();
    story.bridge.open_gate();
    let mut phone = Phone::new(false);
    let mut lost = 0;
    for n in 0..200u64 {
        let pcm: Vec<i16> = (n * 2_880..(n + 1) * 2_880).map(voice).collect();
        let packet = phone.say(&pcm);
        if n % 10 == 7 {
            lost += 1;
            story.user_skips(2_880);
        } else {
            story.user_says(&packet, 2_880);
        }
        for _ in 0..3 {
            story.tick();
        }
    }
    let quality = story.bridge.quality(HeardSide::User);
    assert_eq!((lost, quality.lost), (20, 20));
    assert!(quality.repaired >= 8, "{quality:?}");
    let counts = story.bridge.from_user.jitter.counts();
    assert_eq!((counts.dropped, counts.inserted, quality.discarded), (0, 0, 0), "the delay is left alone");
}

#[test]
fn packets_of_a_tenth_of_a_second_are_not_taken_for_delay() {
    let mut story = Story::talking();
    let mut speaker = ToneSpeaker::new(false, 440.0);
    for _ in 0..200 {
        let packet = speaker.next(4_800);
        story.user_says(&packet, 4_800);
        for _ in 0..5 {
            story.tick();
        }
    }
    let counts = story.bridge.from_user.jitter.counts();
    assert_eq!((counts.dropped, counts.inserted, counts.concealed), (0, 0, 0), "{counts:?}");
}

#[test]
fn a_phone_that_sends_empty_packets_while_silent_is_played_and_not_lost() {
    let mut story = Story::talking();
    let mut phone = Phone::new(false).dtx();
    let mut empty = 0;
    for n in 0..600u64 {
        let speaking = !(100..400).contains(&n);
        let pcm: Vec<i16> = (n * 960..(n + 1) * 960).map(|at| if speaking { voice(at) } else { 0 }).collect();
        let packet = phone.say(&pcm);
        empty += u64::from(packet.len() <= 2);
        story.user_says(&packet, 960);
        story.tick();
    }
    assert!(empty > 100, "{empty}");
    let quality = story.bridge.quality(HeardSide::User);
    assert_eq!((quality.lost, quality.discarded, quality.concealed), (0, 0, 0), "{quality:?}");
    let sound = story.heard_by_far();
    assert!(rms(&sound[200 * 160..390 * 160]) < 30.0, "a pause is quiet");
    assert!(rms(&sound[420 * 160..]) > 2_000.0);
}
