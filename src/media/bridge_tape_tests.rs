//! Stories of a call that is recorded: the prompt, what is taken down, pauses and beeps, with every codec of the PBX.

use super::codec::{FarSpeaker, media};
use super::*;
use crate::media::hold::Clip;

const CODECS: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];

/// A prompt of so many ticks: 600 Hz.
fn prompt(ticks: usize) -> Arc<Clip> {
    Arc::new(Clip::new((0..ticks as u64 * 160).map(|at| tone(600.0, 8_000.0, at, 8_000)).collect()).unwrap())
}

fn talking(codec: Codec) -> (Story, ToneSpeaker, FarSpeaker) {
    let mut story = Story::new();
    story.bridge.set_far(media(codec)).unwrap();
    story.bridge.open_gate();
    (story, ToneSpeaker::new(false, 1_000.0), FarSpeaker::tone(codec, 700.0))
}

fn talk(story: &mut Story, user: &mut ToneSpeaker, far: &mut FarSpeaker, ticks: usize) {
    for _ in 0..ticks {
        let packet = user.next(960);
        story.user_says(&packet, 960);
        far.says(story, 20);
        story.tick();
    }
}

/// What the PBX was sent, decoded, at 8, 16 or 48 kHz.
fn heard_by_pbx(story: &Story, codec: Codec) -> (Vec<i16>, f64) {
    let (mut phone, mut wide) = (Phone::new(false), crate::media::g722::Decoder::new());
    let mut sound = Vec::new();
    for packet in story.far_packets() {
        match codec {
            Codec::Pcmu => sound.extend(packet.payload.iter().map(|code| g711::from_pcmu(*code))),
            Codec::Pcma => sound.extend(packet.payload.iter().map(|code| g711::from_pcma(*code))),
            Codec::G722 => {
                let mut pcm = [0; 320];
                wide.decode(packet.payload, &mut pcm);
                sound.extend(pcm);
            }
            Codec::Opus => sound.extend(phone.hear(packet.payload)),
        }
    }
    let rate = match codec {
        Codec::Pcmu | Codec::Pcma => 8_000.0,
        Codec::G722 => 16_000.0,
        Codec::Opus => 48_000.0,
    };
    (sound, rate)
}

/// What was taken down of one side, decoded: sound and rate.
fn taken<'a>(said: impl Iterator<Item = &'a Said>) -> (Vec<i16>, f64) {
    let (mut sound, mut rate, mut phone) = (Vec::new(), 0.0, Phone::new(false));
    for said in said {
        match said {
            Said::Linear(frame) => {
                rate = frame.len() as f64 * 50.0;
                sound.extend_from_slice(frame);
            }
            Said::Opus(packet) => {
                rate = 48_000.0;
                sound.extend(phone.hear(packet));
            }
            Said::Nothing | Said::Lost | Said::Lasts => {}
        }
    }
    (sound, rate)
}

#[test]
fn while_the_prompt_plays_the_parties_hear_it_and_not_each_other() {
    for codec in CODECS {
        for both in [false, true] {
            let what = format!("{codec:?}, both: {both}");
            let (mut story, mut user, mut far) = talking(codec);
            story.bridge.announce(prompt(100), both);
            let mut over = None;
            for tick in 0..150 {
                talk(&mut story, &mut user, &mut far, 1);
                if story.bridge.prompt_over() && over.is_none() {
                    over = Some(tick);
                }
            }
            assert_eq!(over, Some(100), "{what}: the prompt is over one tick after its last sound");
            assert!(story.slices.is_empty(), "{what}: nothing is taken down before the prompt is over");
            story.assert_unbroken_towards_user();
            let heard = story.heard_by_user();
            let pitch = frequency(&heard[10 * 960..90 * 960], 48_000.0);
            assert!((pitch - 600.0).abs() < 4.0, "{what}: the user hears the prompt, {pitch:.1} Hz");
            assert!(rms(&heard[105 * 960..145 * 960]) < 60.0, "{what}: and then an open line");
            let (sound, rate) = heard_by_pbx(&story, codec);
            if both {
                let at = |tick: usize| tick * rate as usize / 50;
                let pitch = frequency(&sound[at(10)..at(90)], rate);
                assert!((pitch - 600.0).abs() < 6.0, "{what}: so does the PBX, {pitch:.1} Hz");
            } else {
                assert!(sound.is_empty() || rms(&sound) < 60.0, "{what}: the PBX hears nothing of the user");
            }
            story.bridge.connect();
            let (frames, datagrams) = (story.user_frames.len(), story.far_datagrams.len());
            talk(&mut story, &mut user, &mut far, 100);
            story.assert_unbroken_towards_user();
            let heard = story.heard_by_user()[(frames + 10) * 960..].to_vec();
            let pitch = frequency(&heard, 48_000.0);
            assert!((pitch - 700.0).abs() < 5.0, "{what}: now the user hears the PBX, {pitch:.1} Hz");
            story.far_datagrams.drain(..datagrams);
            let (sound, rate) = heard_by_pbx(&story, codec);
            let pitch = frequency(&sound[10 * rate as usize / 50..], rate);
            assert!((pitch - 1_000.0).abs() < 8.0, "{what}: and the PBX the user, {pitch:.1} Hz");
        }
    }
}

#[test]
fn every_tick_is_taken_down_once_the_user_on_one_side_and_the_destination_on_the_other() {
    for codec in CODECS {
        let (mut story, mut user, mut far) = talking(codec);
        talk(&mut story, &mut user, &mut far, 50);
        story.bridge.open_tap(None);
        talk(&mut story, &mut user, &mut far, 100);
        assert_eq!(story.slices.len(), 100, "{codec:?}");
        assert!((0..).zip(&story.slices).all(|(at, slice)| slice.at == at && !slice.paused));
        for (side, hertz) in [(0, 1_000.0), (1, 700.0)] {
            let said = |slice: &'_ Slice| if side == 0 { slice.user.clone() } else { slice.far.clone() };
            let all: Vec<Said> = story.slices.iter().map(said).collect();
            let (sound, rate) = taken(all.iter());
            let pitch = frequency(&sound[rate as usize / 5..], rate);
            assert!((pitch - hertz).abs() < 8.0, "{codec:?}, side {side}: {pitch:.1} Hz");
            assert_eq!(sound.len(), (rate * 2.0) as usize, "{codec:?}, side {side}: two seconds");
        }
        let undecoded = matches!(story.slices[50].user, Said::Opus(_));
        assert_eq!(undecoded, codec == Codec::Opus, "what goes through is not decoded for the tap");
    }
}

#[test]
fn ticks_that_were_missed_are_missing_in_the_numbers_too() {
    let (mut story, mut user, mut far) = talking(Codec::Pcmu);
    story.bridge.open_tap(None);
    talk(&mut story, &mut user, &mut far, 10);
    story.now += Duration::from_secs(1);
    talk(&mut story, &mut user, &mut far, 10);
    let numbers: Vec<u32> = story.slices.iter().map(|slice| slice.at).collect();
    assert_eq!(numbers, (0..10).chain(60..70).collect::<Vec<u32>>());
}

#[test]
fn a_pause_takes_silence_down_and_time_goes_on() {
    for codec in CODECS {
        let (mut story, mut user, mut far) = talking(codec);
        assert!(!story.bridge.pause_tap(true), "nothing is being taken down yet");
        story.bridge.open_tap(None);
        talk(&mut story, &mut user, &mut far, 20);
        assert!(story.bridge.pause_tap(true));
        talk(&mut story, &mut user, &mut far, 20);
        story.bridge.pause_tap(false);
        talk(&mut story, &mut user, &mut far, 20);
        for (at, slice) in story.slices.iter().enumerate() {
            let paused = (20..40).contains(&at);
            assert_eq!((slice.at as usize, slice.paused), (at, paused), "{codec:?}");
            let silent = slice.user == Said::Nothing && slice.far == Said::Nothing;
            assert_eq!(silent, paused, "{codec:?}, slice {at}");
        }
    }
}

#[test]
fn a_beep_is_heard_by_both_and_is_not_in_the_recording() {
    for codec in CODECS {
        let mut story = Story::new();
        story.bridge.set_far(media(codec)).unwrap();
        story.bridge.open_gate();
        let (mut phone, mut far) = (Phone::new(false), FarSpeaker::new(codec, |_| 0));
        let mut say = |story: &mut Story, ticks: usize| {
            for _ in 0..ticks {
                let packet = phone.say(&[0; 960]);
                story.user_says(&packet, 960);
                far.says(story, 20);
                story.tick();
            }
        };
        say(&mut story, 50);
        let (frames, datagrams) = (story.user_frames.len(), story.far_datagrams.len());
        story.bridge.open_tap(Some(250));
        say(&mut story, 400);
        story.assert_unbroken_towards_user();
        let heard = story.heard_by_user()[frames * 960..].to_vec();
        let loud = |sound: &[i16], frame: usize| -> Vec<usize> {
            let loud = |window: &&[i16]| rms(window) > 1_200.0;
            sound.chunks(frame).enumerate().filter(|(_, window)| loud(window)).map(|(at, _)| at).collect()
        };
        let beeps = loud(&heard, 960);
        assert!((20..=28).contains(&beeps.len()), "{codec:?}: two beeps of 240 ms, {beeps:?}");
        let second = beeps.iter().find(|at| **at > 100);
        assert!(beeps[0] <= 2 && second.is_some_and(|at| (249..=252).contains(at)), "{codec:?}: {beeps:?}");
        let pitch = frequency(&heard[3 * 960..10 * 960], 48_000.0);
        assert!((pitch - 1_400.0).abs() < 15.0, "{codec:?}: {pitch:.1} Hz");
        story.far_datagrams.drain(..datagrams);
        let (sound, rate) = heard_by_pbx(&story, codec);
        let beeps = loud(&sound, rate as usize / 50);
        assert!((20..=28).contains(&beeps.len()), "{codec:?}: the PBX hears two as well, {beeps:?}");
        for side in 0..2 {
            let said = |slice: &'_ Slice| if side == 0 { slice.user.clone() } else { slice.far.clone() };
            let all: Vec<Said> = story.slices.iter().map(said).collect();
            let (sound, rate) = taken(all.iter());
            assert!(loud(&sound, rate as usize / 50).is_empty(), "{codec:?}, side {side}");
        }
        assert_eq!(story.slices.len(), 400, "{codec:?}");
    }
}

#[test]
fn a_key_that_is_pressed_during_the_prompt_is_told_and_the_pbx_never_hears_it() {
    for codec in CODECS {
        let (mut story, mut user, mut far) = talking(codec);
        story.bridge.announce(prompt(100), false);
        let mut told = Vec::new();
        for tick in 0..120u16 {
            if (30..36).contains(&tick) {
                let event = Event { code: 1, end: tick >= 33, volume: 7, duration: (tick - 29).min(5) * 160 };
                story.user_presses(event, tick == 30, 5_000);
            }
            let packet = user.next(960);
            story.user_says(&packet, 960);
            far.says(&mut story, 20);
            story.tick();
            told.extend(story.out.digit.take());
        }
        story.bridge.connect();
        talk(&mut story, &mut user, &mut far, 100);
        assert_eq!(told.iter().map(|(key, _)| *key).collect::<String>(), "1", "{codec:?}");
        assert!(story.far_packets().iter().all(|packet| packet.payload_type != 101), "{codec:?}");
    }
}

#[test]
fn the_user_is_taken_down_through_a_transfer_and_the_other_side_is_silent_meanwhile() {
    let (mut story, mut user, mut far) = talking(Codec::Pcmu);
    story.bridge.open_tap(None);
    talk(&mut story, &mut user, &mut far, 50);
    story.bridge.alone(Alone::RingBack);
    talk(&mut story, &mut user, &mut far, 50);
    story.bridge.set_far(media(Codec::Opus)).unwrap();
    let mut far = FarSpeaker::tone(Codec::Opus, 400.0);
    talk(&mut story, &mut user, &mut far, 50);
    assert_eq!(story.slices.len(), 150);
    assert!(story.slices[50..100].iter().all(|slice| slice.far == Said::Nothing));
    assert!(story.slices[50..100].iter().all(|slice| matches!(slice.user, Said::Linear(_))));
    assert!(story.slices[120..].iter().all(|slice| matches!(slice.far, Said::Opus(_))));
    let sound = story.slices[60..100].iter().map(|slice| &slice.user);
    let (sound, rate) = taken(sound);
    assert!((frequency(&sound, rate) - 1_000.0).abs() < 8.0);
}
