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
fn what_was_pressed_before_the_prompt_is_no_answer_to_it_and_neither_is_a_key_that_is_still_held() {
    for codec in CODECS {
        let (mut story, mut user, mut far) = talking(codec);
        talk(&mut story, &mut user, &mut far, 10);
        // One that waits to be said to the PBX, and one that is released two ticks after the prompt has begun.
        for (key, stamp, packets) in
            [(2, 5_000, 1..=5), (1, 50_000, 1..=3), (1, 50_000, 4..=5), (3, 90_000, 1..=5)]
        {
            if *packets.start() == 4 {
                story.bridge.announce(prompt(100), false);
            }
            for n in packets {
                story.user_presses(
                    Event { code: key, end: n == 5, volume: 7, duration: n * 160 },
                    n == 1,
                    stamp,
                );
                if story.bridge.is_apart() {
                    story.tick();
                    let told = story.out.digit.map(|(told, _)| told);
                    let expected = (key == 3 && n == 5).then_some('3');
                    assert_eq!(told, expected, "{codec:?}: only what was pressed during the prompt is told");
                }
            }
        }
        talk(&mut story, &mut user, &mut far, 20);
        assert!(story.out.digit.is_none(), "{codec:?}");
    }
}

#[test]
fn a_prompt_that_is_cut_short_leaves_an_open_line_to_both() {
    for codec in CODECS {
        let (mut story, mut user, mut far) = talking(codec);
        story.bridge.announce(prompt(100), true);
        talk(&mut story, &mut user, &mut far, 50);
        story.bridge.hush();
        let datagrams = story.far_datagrams.len();
        talk(&mut story, &mut user, &mut far, 50);
        assert!(story.bridge.prompt_over() && story.bridge.is_apart(), "{codec:?}");
        story.assert_unbroken_towards_user();
        assert!(
            rms(&story.heard_by_user()[55 * 960..]) < 60.0,
            "{codec:?}: the user hears neither prompt nor PBX"
        );
        story.far_datagrams.drain(..datagrams);
        let (sound, _) = heard_by_pbx(&story, codec);
        assert!(sound.is_empty() || rms(&sound) < 60.0, "{codec:?}: nor the PBX the user");
    }
}

#[test]
fn a_prompt_is_shared_only_with_a_pbx_that_was_there_from_its_beginning_to_its_end() {
    let held = FarMedia { sends: false, ..PCMU };
    type Change = fn(&mut Bridge);
    let changes: [(&str, bool, Change); 4] = [
        ("it stays", true, |_| {}),
        ("it is told again where it is", true, |bridge| bridge.set_far(PCMU).unwrap()),
        ("it holds the call meanwhile", false, |bridge| {
            bridge.set_far(FarMedia { sends: false, ..PCMU }).unwrap()
        }),
        ("it hands the call over", false, |bridge| bridge.alone(Alone::RingBack)),
    ];
    for (what, expected, change) in changes {
        for both in [false, true] {
            let (mut story, mut user, mut far) = talking(Codec::Pcmu);
            story.bridge.announce(prompt(100), both);
            talk(&mut story, &mut user, &mut far, 50);
            change(&mut story.bridge);
            story.tick();
            story.bridge.set_far(PCMU).unwrap();
            talk(&mut story, &mut user, &mut far, 60);
            assert!(story.bridge.prompt_over());
            assert_eq!(story.bridge.prompt_shared(), both && expected, "{what}, both: {both}");
        }
    }
    let mut story = Story::new();
    story.bridge.set_far(held).unwrap();
    story.bridge.open_gate();
    story.bridge.announce(prompt(10), true);
    (0..20).for_each(|_| story.tick());
    assert!(!story.bridge.prompt_shared(), "it holds the call from the beginning on");
}

#[test]
fn a_tap_that_is_shut_takes_nothing_down_and_beeps_no_more() {
    let (mut story, mut user, mut far) = talking(Codec::Pcmu);
    story.bridge.open_tap(Some(50));
    talk(&mut story, &mut user, &mut far, 5);
    story.bridge.shut_tap();
    assert!(!story.bridge.pause_tap(true));
    let frames = story.user_frames.len();
    for _ in 0..150 {
        story.tick();
    }
    assert_eq!(story.slices.len(), 5);
    let heard = story.heard_by_user()[(frames + 20) * 960..].to_vec();
    assert!(rms(&heard) < 200.0, "{:.0}: no beep", rms(&heard));
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

/// A click every ten seconds of the true time: 20 ms of 1 kHz.
fn click(seconds: f64) -> i16 {
    let within = seconds % 10.0;
    if (5.0..5.02).contains(&within) {
        tone(1_000.0, 12_000.0, (within * 48_000.0) as u64, 48_000)
    } else {
        0
    }
}

/// When clicks begin, in seconds of the recording.
fn clicks(sound: &[i16], rate: f64) -> Vec<f64> {
    let mut found: Vec<f64> = Vec::new();
    for (at, sample) in sound.iter().enumerate() {
        let at = at as f64 / rate;
        if sample.unsigned_abs() > 3_000 && found.last().is_none_or(|last| at > last + 1.0) {
            found.push(at);
        }
    }
    found
}

#[test]
fn after_ten_minutes_with_drift_loss_and_jitter_it_is_still_known_by_how_much_one_side_is_older() {
    const MINUTES: u64 = 10;
    for (user_drift, far_drift) in [(100e-6, -100e-6), (-100e-6, 100e-6)] {
        let mut story = Story::with(BridgeSettings { complexity: 0, ..settings() });
        story.bridge.set_far(media(Codec::Pcmu)).unwrap();
        story.bridge.open_gate();
        story.bridge.open_tap(None);
        let begun = story.now;
        let mut phone = Phone::new(false);
        let mut chance = 12_345_u32;
        let mut dice = |sides: u32| {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (chance >> 16) % sides
        };
        // Packets that are on their way: when they arrive.
        let (mut user_sent, mut far_sent) = (0_u64, 0_u64);
        for n in 0..MINUTES * 60 * 50 {
            let tick = begun + TICK * n as u32;
            let now = n as f64 * 0.02;
            let length = |drift: f64| 0.02 * (1.0 + drift);
            while (user_sent + 1) as f64 * length(user_drift) <= now {
                let begin = user_sent as f64 * length(user_drift);
                let at = |i: u64| click(begin + i as f64 / 48_000.0 * (1.0 + user_drift));
                let packet = phone.say(&(0..960).map(at).collect::<Vec<i16>>());
                story.now = begun
                    + Duration::from_secs_f64(begin + length(user_drift) + f64::from(dice(8)) / 1_000.0);
                if dice(50) == 0 {
                    story.user_skips(960)
                } else {
                    story.user_says(&packet, 960)
                }
                user_sent += 1;
            }
            while (far_sent + 1) as f64 * length(far_drift) <= now {
                let begin = far_sent as f64 * length(far_drift);
                let at = |i: u64| g711::to_pcmu(click(begin + i as f64 / 8_000.0 * (1.0 + far_drift)));
                let packet: Vec<u8> = (0..160).map(at).collect();
                story.now =
                    begun + Duration::from_secs_f64(begin + length(far_drift) + f64::from(dice(8)) / 1_000.0);
                if dice(50) == 0 {
                    story.far_skips(160)
                } else {
                    story.far_says(0, &packet)
                }
                far_sent += 1;
            }
            story.now = tick;
            story.tick();
            story.user_frames.clear();
            story.far_datagrams.clear();
        }
        assert_eq!(story.slices.len() as u64, MINUTES * 60 * 50);
        let (left, rate) = taken(story.slices.iter().map(|slice| &slice.user));
        let (right, _) = taken(story.slices.iter().map(|slice| &slice.far));
        let (left, right) = (clicks(&left, rate), clicks(&right, rate));
        // A click that was lost on one side is no measure.
        let offsets: Vec<f64> = left
            .iter()
            .filter_map(|at| {
                let other = right.iter().find(|other| (*at - **other).abs() < 1.0)?;
                let told = f64::from(story.slices[(at * 50.0) as usize].offset?) / 48.0;
                Some((at - other) * 1_000.0 - told)
            })
            .collect();
        let mut sizes: Vec<f64> = offsets.iter().map(|offset| offset.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        println!("{} clicks, what is left of the offset: {offsets:.1?} ms", offsets.len());
        assert!(offsets.len() >= 50, "{}", offsets.len());
        // A click whose first packet was lost seems to begin later.
        let most = sizes[sizes.len() - 4];
        assert!(most < 3.0, "{most:.1} ms");
    }
}
