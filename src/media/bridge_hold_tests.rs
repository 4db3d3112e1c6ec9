//! Stories of a call on hold, and of the comfort noise that a PBX asks for.

use super::codec::{FarSpeaker, media};
use super::*;
use crate::media::hold::Clip;

const CODECS: [Codec; 3] = [Codec::Pcma, Codec::G722, Codec::Opus];

fn level(sound: &[i16]) -> f64 {
    decibel(rms(sound) / 32_768.0)
}

/// A tone of 600 Hz.
fn clip() -> Arc<Clip> {
    Arc::new(Clip::new((0..16_000).map(|at| tone(600.0, 8_000.0, at, 8_000)).collect()).unwrap())
}

/// What WhatsApp hears in these ticks, at 48 kHz; a decoder needs all that came before.
fn heard(story: &Story, ticks: std::ops::Range<usize>) -> Vec<i16> {
    story.heard_by_user()[ticks.start * 960..ticks.end * 960].to_vec()
}

/// Ticks in which the user talks, and the phone behind the PBX if there is one.
fn talk(story: &mut Story, user: &mut ToneSpeaker, far: Option<&mut FarSpeaker>, ticks: usize) {
    let mut far = far;
    for _ in 0..ticks {
        let packet = user.next(960);
        story.user_says(&packet, 960);
        if let Some(far) = &mut far {
            far.says(story, 20);
        }
        story.tick();
    }
}

#[test]
fn on_hold_whatsapp_hears_the_clip_or_an_open_line_and_the_pbx_hears_nothing_until_it_resumes() {
    for codec in CODECS {
        for with_clip in [false, true] {
            let what = format!("{codec:?}, clip: {with_clip}");
            let mut story = Story::new();
            story.bridge.set_far(media(codec)).unwrap();
            story.bridge.set_hold_clip(with_clip.then(clip));
            story.bridge.open_gate();
            let (mut user, mut far) = (ToneSpeaker::new(false, 1_000.0), FarSpeaker::tone(codec, 700.0));
            talk(&mut story, &mut user, Some(&mut far), 100);
            // a=inactive, or 0.0.0.0 of old.
            story.bridge.set_far(FarMedia { sends: false, speaks: false, ..media(codec) }).unwrap();
            story.far_datagrams.clear();
            talk(&mut story, &mut user, None, 300);
            assert!(story.far_datagrams.is_empty(), "{what}: a held PBX is sent nothing");
            story.assert_unbroken_towards_user();
            let sound = heard(&story, 150..400);
            if with_clip {
                // The seam of the clip, every two seconds, takes 20 ms.
                let pitch = frequency(&sound[..9_600], 48_000.0);
                assert!((pitch - 600.0).abs() < 6.0, "{what}: {pitch:.1} Hz");
                let quiet = sound.chunks(960).filter(|window| rms(window) < 4_000.0).count();
                assert!(quiet <= 6, "{what}: {quiet}");
            } else {
                assert!((-85.0..-60.0).contains(&level(&sound)), "{what}: {:.1} dBFS", level(&sound));
            }
            // The user is silent from here on: nothing of what was said during hold may come.
            story.bridge.set_far(media(codec)).unwrap();
            let resumed = story.user_frames.len();
            let mut far = FarSpeaker::tone(codec, 700.0);
            for _ in 0..100 {
                far.says(&mut story, 20);
                story.tick();
            }
            assert!(story.far_datagrams.len() >= 98, "{what}: {}", story.far_datagrams.len());
            let late: usize = match codec {
                Codec::Opus => {
                    let loud = |packet: &Packet<'_>| packet.payload.len() > 12;
                    story.far_packets().iter().skip(4).filter(|packet| loud(packet)).count()
                }
                Codec::G722 => {
                    let mut decoder = crate::media::g722::Decoder::new();
                    let mut pcm = [0; 320];
                    let loud = |packet: &Packet<'_>| {
                        decoder.decode(packet.payload, &mut pcm);
                        rms(&pcm) > 1_000.0
                    };
                    story.far_packets().iter().map(loud).skip(9).filter(|loud| *loud).count()
                }
                Codec::Pcma | Codec::Pcmu => {
                    let loud = |packet: &Packet<'_>| {
                        let pcm: Vec<i16> =
                            packet.payload.iter().map(|code| g711::from_pcma(*code)).collect();
                        rms(&pcm) > 1_000.0
                    };
                    story.far_packets().iter().map(loud).skip(9).filter(|loud| *loud).count()
                }
            };
            assert_eq!(late, 0, "{what}: a stale burst");
            story.assert_unbroken_towards_user();
            let back = heard(&story, resumed + 10..resumed + 95);
            let pitch = frequency(&back, 48_000.0);
            assert!((pitch - 700.0).abs() < 7.0, "{what}: {pitch:.1} Hz");
            assert!(back.chunks(960).all(|window| rms(window) > 4_000.0), "{what}: the PBX is back at once");
        }
    }
}

#[test]
fn the_music_of_the_pbx_comes_before_the_clip() {
    for codec in CODECS {
        let mut story = Story::new();
        story.bridge.set_far(media(codec)).unwrap();
        story.bridge.set_hold_clip(Some(clip()));
        story.bridge.open_gate();
        let (mut user, mut far) = (ToneSpeaker::new(false, 1_000.0), FarSpeaker::tone(codec, 700.0));
        talk(&mut story, &mut user, Some(&mut far), 50);
        // a=sendonly: music for five seconds, then none for five, then music again.
        story.bridge.set_far(FarMedia { sends: false, speaks: true, ..media(codec) }).unwrap();
        talk(&mut story, &mut user, Some(&mut far), 250);
        talk(&mut story, &mut user, None, 250);
        talk(&mut story, &mut user, Some(&mut far), 100);
        story.assert_unbroken_towards_user();
        for (ticks, hertz) in [(60..290, 700.0), (370..440, 600.0), (570..640, 700.0)] {
            let sound = heard(&story, ticks.clone());
            let pitch = frequency(&sound, 48_000.0);
            assert!((pitch - hertz).abs() < 10.0, "{codec:?}: {pitch:.1} Hz in {ticks:?}");
            assert!(sound.chunks(960).all(|window| rms(window) > 2_000.0), "{codec:?}: a gap in {ticks:?}");
        }
    }
}

#[test]
fn a_clip_is_not_played_to_who_is_not_held() {
    let mut story = Story::talking();
    story.bridge.set_hold_clip(Some(clip()));
    for _ in 0..200 {
        story.tick();
    }
    assert!(level(&story.heard_by_user()) < -60.0);
}

#[test]
fn comfort_noise_is_as_loud_as_the_pbx_says_and_no_loss() {
    // At a payload type of its own, and at the static one.
    for (pt, below) in [(13, 50), (97, 60), (13, 40)] {
        let mut story = Story::new();
        story.bridge.set_far(FarMedia { comfort_noise: Some(97), ..PCMU }).unwrap();
        story.bridge.open_gate();
        for n in 0..400 {
            match n {
                100 => story.far_says_for(pt, &[below, 20, 30], 160),
                101..300 => story.far_timestamp = story.far_timestamp.wrapping_add(160),
                _ => story.far_says_tone(Codec::Pcmu, 440.0, 160),
            }
            story.tick();
        }
        let sound = story.heard_by_user();
        let noise = level(&sound[115 * 960..295 * 960]);
        println!("{below}: {noise:.1} dBFS");
        assert!((noise + f64::from(below)).abs() < 4.0, "{below} dB below overload: {noise:.1} dBFS");
        let quality = story.bridge.quality(HeardSide::Far);
        assert_eq!((quality.concealed, quality.lost, quality.discarded), (0, 0, 0), "{quality:?}");
        assert!(sound[315 * 960..].chunks(960).all(|window| rms(window) > 3_000.0), "speech is back");
        story.assert_unbroken_towards_user();
    }
}

#[test]
fn a_first_word_after_comfort_noise_is_not_cut() {
    let mut story = Story::talking();
    for n in 0..200 {
        match n {
            50 => story.far_says_for(13, &[60], 160),
            51..120 => story.far_timestamp = story.far_timestamp.wrapping_add(160),
            _ => story.far_says_tone(Codec::Pcmu, 440.0, 160),
        }
        story.tick();
    }
    let loud = story.heard_by_user().chunks(960).filter(|window| rms(window) > 3_000.0).count();
    // 130 frames were said, and those of the last 40 ms are still on their way.
    assert!((126..=130).contains(&loud), "{loud}");
}
