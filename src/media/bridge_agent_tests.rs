//! Stories of an agent on the far side: how it is heard at its own rate, and calls that come from it and go to it.

use super::*;
use crate::media::opus::peer::voice;

const RATES: [u32; 3] = [8_000, 16_000, 24_000];

/// An agent that says a tone, and keeps what it hears.
struct Agent {
    rate: u32,
    hertz: f64,
    at: u64,
    heard: Vec<i16>,
    digits: Vec<(char, u32)>,
}

impl Agent {
    fn new(rate: u32, hertz: f64) -> Agent {
        Agent { rate, hertz, at: 0, heard: Vec::new(), digits: Vec::new() }
    }

    fn frame(&self) -> u64 {
        u64::from(self.rate) / 50
    }

    fn says(&mut self, story: &mut Story) {
        let samples = self.at..self.at + self.frame();
        let frame: Vec<i16> = samples.map(|at| tone(self.hertz, 8_000.0, at, u64::from(self.rate))).collect();
        assert!(story.bridge.agent_says(&frame));
        self.at += self.frame();
    }

    fn hears(&mut self, story: &Story) {
        assert_eq!(story.out.to_agent.len() as u64, self.frame(), "20 ms on every tick");
        self.heard.extend(&story.out.to_agent);
        self.digits.extend(story.out.digit);
    }
}

fn with_agent(rate: u32) -> Story {
    let mut story = Story::new();
    story.bridge.set_agent(rate).unwrap();
    story.bridge.open_gate();
    story
}

/// User, PBX and agent talk, each with its tone, for so many ticks.
fn talk(story: &mut Story, speaker: &mut ToneSpeaker, agent: Option<&mut Agent>, ticks: usize) {
    let mut agent = agent;
    for _ in 0..ticks {
        let packet = speaker.next(960);
        story.user_says(&packet, 960);
        match &mut agent {
            Some(agent) => {
                agent.says(story);
                story.tick();
                agent.hears(story);
            }
            None => {
                story.far_says_tone(Codec::Pcmu, 440.0, 160);
                story.tick();
                assert!(story.out.to_agent.is_empty() && story.out.digit.is_none());
            }
        }
    }
}

fn level(sound: &[i16]) -> f64 {
    decibel(rms(sound) / 32_768.0)
}

/// Every window of 20 ms sounds as loud as it was said, and all of it at one pitch.
fn assert_tone(sound: &[i16], rate: u32, hertz: f64, within: f64, what: &str) {
    let pitch = frequency(sound, f64::from(rate));
    assert!((pitch - hertz).abs() < hertz / 100.0, "{what}: {pitch:.1} Hz instead of {hertz}");
    let said = 8_000.0 / 2f64.sqrt();
    let offs: Vec<f64> =
        sound.chunks_exact(rate as usize / 50).map(|window| decibel(rms(window) / said)).collect();
    let (least, most) = offs.iter().fold((f64::MAX, f64::MIN), |(a, b), off| (a.min(*off), b.max(*off)));
    println!("{what}: {pitch:.2} Hz, {least:.2} to {most:.2} dB in {} windows", offs.len());
    assert!(least > -within && most < within, "{what}: {least:.1} to {most:.1} dB");
}

#[test]
fn an_agents_tone_is_heard_in_whatsapp_at_its_pitch_and_level_without_a_gap() {
    for rate in RATES {
        // A tone that narrow band can't carry, where there is more.
        for hertz in [440.0, 5_000.0].into_iter().filter(|hertz| *hertz < f64::from(rate) / 2.0) {
            let mut story = with_agent(rate);
            let mut agent = Agent::new(rate, hertz);
            for _ in 0..150 {
                agent.says(&mut story);
                story.tick();
            }
            story.assert_unbroken_towards_user();
            assert_eq!(story.user_frames.len(), 150);
            let sound = &story.heard_by_user()[48_000..];
            assert_tone(sound, 48_000, hertz, 3.0, &format!("{rate} said, {hertz} Hz"));
            assert_eq!(story.bridge.quality(HeardSide::Far).received, 150);
        }
    }
}

#[test]
fn a_tone_from_whatsapp_is_heard_by_the_agent_at_its_pitch_and_level_without_a_gap() {
    for rate in RATES {
        for hertz in [440.0, 5_000.0].into_iter().filter(|hertz| *hertz < f64::from(rate) / 2.0) {
            let mut story = with_agent(rate);
            let (mut speaker, mut agent) = (ToneSpeaker::new(false, hertz), Agent::new(rate, 300.0));
            talk(&mut story, &mut speaker, Some(&mut agent), 150);
            let sound = &agent.heard[rate as usize..];
            assert_tone(sound, rate, hertz, 3.0, &format!("{rate} heard, {hertz} Hz"));
            assert!(story.far_datagrams.is_empty(), "nothing for a PBX");
            assert!(!story.bridge.rtcp_due(
                story.now + Duration::from_secs(60),
                0,
                &mut heapless::Vec::new()
            ));
            assert_eq!(story.bridge.quality(HeardSide::Far).sent, 150);
            assert_eq!(story.bridge.quality(HeardSide::User).concealed, 0);
        }
    }
}

#[test]
fn opus_packets_of_every_length_are_heard_by_an_agent_without_a_gap() {
    for (rate, samples) in
        [120u64, 480, 1_920, 2_880, 4_800].into_iter().flat_map(|n| [(16_000, n), (24_000, n)])
    {
        let mut story = with_agent(rate);
        let (mut speaker, mut agent) = (ToneSpeaker::new(false, 440.0), Agent::new(rate, 300.0));
        let mut said = 0u64;
        for n in 0..200u64 {
            while said < (n + 1) * 960 {
                let packet = speaker.next(samples);
                story.user_says(&packet, samples as u32);
                said += samples;
            }
            story.tick();
            agent.hears(&story);
        }
        let sound = &agent.heard[rate as usize..];
        assert_tone(sound, rate, 440.0, 4.0, &format!("{rate}, packets of {samples}"));
        assert_eq!(story.bridge.quality(HeardSide::User).concealed, 0, "{samples}");
    }
}

#[test]
fn an_agent_hears_lone_losses_repaired_as_a_pbx_does() {
    for rate in [16_000, 24_000] {
        let mut story = with_agent(rate);
        let (mut phone, mut agent) = (Phone::new(false), Agent::new(rate, 300.0));
        let mut lost = 0;
        for n in 0..1_000u64 {
            let pcm: Vec<i16> = (n * 960..(n + 1) * 960).map(voice).collect();
            let packet = phone.say(&pcm);
            if n % 5 == 3 {
                lost += 1;
                story.user_skips(960);
            } else {
                story.user_says(&packet, 960);
            }
            story.tick();
            agent.hears(&story);
        }
        let quality = story.bridge.quality(HeardSide::User);
        println!("{rate}: {lost} lost: {quality:?}");
        assert!(quality.repaired * 10 > lost * 4, "{quality:?}");
        let filled = quality.repaired + quality.concealed;
        assert!(filled + 5 >= lost && filled <= lost + 5, "{quality:?}");
    }
}

#[test]
fn a_call_goes_from_the_pbx_to_an_agent_and_back_and_whatsapp_hears_one_line() {
    for rate in RATES {
        let mut story = Story::talking();
        let mut speaker = ToneSpeaker::new(false, 1_000.0);
        talk(&mut story, &mut speaker, None, 100);
        let sent = story.far_datagrams.len();
        assert_eq!(sent, 100);

        let mut agent = Agent::new(rate, 700.0);
        story.bridge.set_agent(rate).unwrap();
        talk(&mut story, &mut speaker, Some(&mut agent), 100);
        assert_eq!(story.far_datagrams.len(), sent, "nothing for the PBX meanwhile");
        let heard = &agent.heard[rate as usize / 5..];
        assert_tone(heard, rate, 1_000.0, 3.0, &format!("{rate}: the agent hears"));

        // While the human's phone rings, and then the human.
        story.bridge.alone(Alone::RingBack);
        assert!(!story.bridge.agent_says(&vec![0; rate as usize / 50]), "the agent has left");
        talk(&mut story, &mut speaker, None, 50);
        assert_eq!(story.far_datagrams.len(), sent);
        story.bridge.set_far(PCMU).unwrap();
        talk(&mut story, &mut speaker, None, 100);

        story.assert_unbroken_towards_user();
        assert_eq!(story.user_frames.len(), 350);
        let packets = story.far_packets();
        assert_eq!(packets.len(), sent + 100);
        let (last, first) = (packets[sent - 1], packets[sent]);
        assert_eq!((first.ssrc, first.sequence), (last.ssrc, last.sequence.wrapping_add(1)));
        assert_eq!(first.timestamp, last.timestamp.wrapping_add(151 * 160), "time went on");
        assert!(first.marker);
        let far = &story.heard_by_far()[120 * 160..];
        assert_tone(far, 8_000, 1_000.0, 3.0, &format!("{rate}: then the PBX hears"));
        let sound = story.heard_by_user();
        let part = |from: usize, to: usize| &sound[from * 960..to * 960];
        assert_tone(part(20, 99), 48_000, 440.0, 3.0, &format!("{rate}: the user hears the PBX"));
        assert_tone(part(110, 199), 48_000, 700.0, 3.0, &format!("{rate}: the user hears the agent"));
        let ringing = frequency(part(210, 249), 48_000.0);
        assert!((ringing - 425.0).abs() < 4.3, "{ringing:.1} Hz");
        assert_tone(part(270, 350), 48_000, 440.0, 3.0, &format!("{rate}: the user hears the human"));
    }
}

#[test]
fn another_agent_at_another_rate_takes_over_at_once_and_the_pbx_comes_back_at_its_own() {
    let mut story = with_agent(24_000);
    let mut speaker = ToneSpeaker::new(false, 1_000.0);
    for rate in [24_000, 16_000, 8_000, 16_000, 24_000, 24_000] {
        let mut agent = Agent::new(rate, 700.0);
        story.bridge.set_agent(rate).unwrap();
        talk(&mut story, &mut speaker, Some(&mut agent), 60);
        assert_tone(&agent.heard[rate as usize / 2..], rate, 1_000.0, 3.0, &format!("{rate}"));
    }
    story.bridge.set_far(PCMU).unwrap();
    talk(&mut story, &mut speaker, None, 60);
    let far = story.heard_by_far();
    assert_tone(&far[30 * 160..], 8_000, 1_000.0, 3.0, "the PBX");
    story.assert_unbroken_towards_user();
}

#[test]
fn an_agent_that_says_nothing_or_digital_silence_is_an_open_line() {
    for rate in RATES {
        let mut story = with_agent(rate);
        for n in 0..200 {
            if n >= 100 {
                assert!(story.bridge.agent_says(&vec![0; rate as usize / 50]));
            }
            story.tick();
        }
        story.assert_unbroken_towards_user();
        let sound = story.heard_by_user();
        for part in [&sound[9_600..96_000], &sound[105_600..]] {
            let heard = level(part);
            assert!((-85.0..-60.0).contains(&heard), "{rate}: {heard:.1} dBFS");
        }
    }
}

#[test]
fn an_agent_that_stops_is_silent_from_the_next_frame_on_and_does_not_click() {
    for rate in RATES {
        let mut story = with_agent(rate);
        let mut agent = Agent::new(rate, 440.0);
        // Stopped at every part of the tone's swing.
        for burst in 0..11 {
            for _ in 0..20 {
                agent.says(&mut story);
                story.tick();
            }
            agent.at += burst * 7;
            for _ in 0..20 {
                story.tick();
            }
        }
        let sound = story.heard_by_user();
        for burst in 0..11 {
            // Of the frame after the last one, and of the codec's delay, something is heard still.
            let after = level(&sound[(burst * 40 + 23) * 960..(burst * 40 + 40) * 960]);
            assert!(after < -60.0, "{rate}: {after:.1} dBFS after burst {burst}");
            let steps = sound[(burst * 40 + 19) * 960..(burst * 40 + 24) * 960].windows(2);
            let largest = steps.map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max().unwrap();
            // The steepest place of the tone itself is 461.
            assert!(largest < 700, "{rate}: a step of {largest} after burst {burst}");
        }
    }
}

#[test]
fn what_is_not_exactly_twenty_milliseconds_or_too_early_is_not_taken() {
    let mut story = Story::new();
    story.bridge.set_agent(16_000).unwrap();
    assert!(!story.bridge.agent_says(&[9_000; 320]), "the gate is shut");
    story.bridge.open_gate();
    for length in [0, 1, 160, 319, 321, 480, 1_000] {
        assert!(!story.bridge.agent_says(&vec![9_000; length]), "{length}");
    }
    story.tick();
    let quiet = story.heard_by_user();
    assert!(rms(&quiet) < 40.0);
    // The later one of two is heard, and only once.
    assert!(story.bridge.agent_says(&[0; 320]));
    assert!(story.bridge.agent_says(&[9_000; 320]));
    story.tick();
    story.tick();
    assert_eq!(story.bridge.quality(HeardSide::Far).received, 1);
}

#[test]
fn a_rate_that_opus_does_not_have_leaves_the_far_end_as_it_was() {
    let mut story = Story::talking();
    let mut speaker = ToneSpeaker::new(false, 1_000.0);
    for rate in [0, 8_001, 11_025, 12_000, 44_100, 48_000] {
        assert_eq!(story.bridge.set_agent(rate), Err(MediaError::Rate { rate }));
    }
    talk(&mut story, &mut speaker, None, 100);
    assert_eq!(story.far_datagrams.len(), 100);
    assert_tone(&story.heard_by_far()[8_000..], 8_000, 1_000.0, 3.0, "the PBX");
}

#[test]
fn an_agent_is_told_each_key_once_when_it_is_released_and_for_how_long_it_was_pressed() {
    for rate in RATES {
        let mut story = with_agent(rate);
        let mut agent = Agent::new(rate, 300.0);
        let mut told = Vec::new();
        let mut press = |story: &mut Story, code: u8, frames: u16, ends: u16| {
            let begun = story.user_timestamp;
            for n in 1..=frames + ends - 1 {
                let event = Event { code, end: n >= frames, volume: 7, duration: n.min(frames) * 160 };
                story.user_presses(event, n == 1, begun);
                story.tick();
                agent.hears(story);
            }
            for _ in 0..20 {
                story.user_skips(960);
                story.tick();
                agent.hears(story);
            }
            told = agent.digits.clone();
        };
        press(&mut story, 8, 10, 3);
        press(&mut story, 8, 5, 1);
        press(&mut story, 10, 7, 3);
        press(&mut story, 11, 6, 10);
        press(&mut story, 15, 1, 1);
        // A flash is no key, and a key whose end is lost is told all the same.
        press(&mut story, 16, 5, 3);
        press(&mut story, 0, 400, 0);
        assert_eq!(told, [('8', 200), ('8', 100), ('*', 140), ('#', 120), ('D', 20), ('0', 7_980)], "{rate}");
        assert_eq!(story.bridge.digits_heard(), 6);
    }
}

#[test]
fn a_key_that_is_down_while_the_far_end_changes_is_heard_by_neither() {
    let mut story = Story::talking();
    let begun = story.user_timestamp;
    let mut agent = Agent::new(16_000, 300.0);
    for n in 1..=30u16 {
        match n {
            11 => story.bridge.set_agent(16_000).unwrap(),
            21 => story.bridge.set_far(PCMU).unwrap(),
            _ => {}
        }
        story.user_presses(Event { code: 5, end: n == 30, volume: 7, duration: n * 160 }, n == 1, begun);
        story.tick();
        if (11..=20).contains(&n) {
            agent.hears(&story);
        }
    }
    assert_eq!(agent.digits, []);
    let ends = |packet: &Packet<'_>| {
        packet.payload_type == 101 && Event::read(packet.payload).is_some_and(|event| event.end)
    };
    assert!(!story.far_packets().iter().any(ends), "the PBX was not told that it ended");
    // The next key is heard by who is there.
    let begun = story.user_timestamp;
    story.bridge.set_agent(24_000).unwrap();
    story.user_presses(Event { code: 6, end: true, volume: 7, duration: 800 }, true, begun);
    story.tick();
    assert_eq!(story.out.digit, Some(('6', 100)));
    story.tick();
    assert_eq!(story.out.digit, None);
}

#[test]
fn what_whatsapp_reported_as_lost_is_still_known_when_the_far_end_changes() {
    let repairs = |fraction: u8| {
        let mut story = Story::with(BridgeSettings { bitrate: 20_000, ..settings() });
        story.bridge.open_gate();
        story.bridge.user_loss(fraction);
        story.bridge.set_agent(16_000).unwrap();
        for n in 0..200u64 {
            let frame: Vec<i16> = (n * 320..(n + 1) * 320).map(|at| voice(at * 3)).collect();
            assert!(story.bridge.agent_says(&frame));
            story.tick();
        }
        story.user_frames.iter().filter(|frame| opus::carries_repair(&frame.payload)).count()
    };
    let (little, much) = (repairs(0), repairs(64));
    println!("{little} and {much} of 200");
    assert!(little + 50 < much, "{little} and {much} of 200");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whoever_comes_and_goes_whatsapp_hears_one_packet_on_every_tick(
        steps in proptest::collection::vec((0u8..7, 0usize..20), 1..30),
    ) {
        let mut story = Story::new();
        story.bridge.open_gate();
        let mut speaker = ToneSpeaker::new(false, 1_000.0);
        let (mut ticks, mut rate) = (0, None);
        for (step, length) in steps {
            match step {
                0 => story.bridge.alone(Alone::RingBack),
                1 => story.bridge.alone(Alone::Silence),
                2 => story.bridge.set_far(PCMU).unwrap(),
                3 => prop_assert!(story.bridge.set_agent(48_000).is_err()),
                _ => story.bridge.set_agent(RATES[usize::from(step) - 4]).unwrap(),
            }
            rate = match step {
                0..=2 => None,
                3 => rate,
                _ => Some(RATES[usize::from(step) - 4]),
            };
            for _ in 0..length {
                let packet = speaker.next(2_880);
                story.user_says(&packet, 2_880);
                story.far_says_tone(Codec::Pcmu, 440.0, 160);
                story.bridge.agent_says(&[500; 480][..rate.unwrap_or(8_000) as usize / 50]);
                let sent = story.far_datagrams.len();
                story.tick();
                prop_assert_eq!(story.out.to_agent.len(), rate.map_or(0, |rate| rate as usize / 50));
                if rate.is_some() {
                    prop_assert_eq!(story.far_datagrams.len(), sent);
                }
            }
            ticks += length;
        }
        prop_assert_eq!(story.user_frames.len(), ticks);
        story.assert_unbroken_towards_user();
    }
}
