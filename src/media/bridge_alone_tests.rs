//! Stories of a user with nobody on the far side: before it is known, while it rings, between two of them.

use super::*;

/// Both sides talk, each with its tone, for so many ticks.
fn talk(story: &mut Story, speaker: &mut ToneSpeaker, ticks: usize) {
    for _ in 0..ticks {
        let packet = speaker.next(960);
        story.user_says(&packet, 960);
        story.far_says_tone(Codec::Pcmu, 440.0, 160);
        story.tick();
    }
}

/// Decibel below full scale.
fn level(sound: &[i16]) -> f64 {
    decibel(rms(sound) / 32_768.0)
}

#[test]
fn before_the_far_end_is_known_the_user_hears_comfort_noise_and_nothing_leaks() {
    let mut story = Story::new();
    let mut speaker = ToneSpeaker::new(false, 1_000.0);
    story.bridge.open_gate();
    // A key that is still down when the far end comes.
    talk(&mut story, &mut speaker, 90);
    let begun = story.user_timestamp;
    for n in 1..=10u16 {
        story.user_presses(Event { code: 5, end: false, volume: 7, duration: n * 160 }, n == 1, begun);
        story.far_says_tone(Codec::Pcmu, 440.0, 160);
        story.tick();
    }
    assert!(story.far_datagrams.is_empty(), "nothing of the user is heard");
    assert_eq!(story.user_frames.len(), 100, "a packet on every tick all the same");
    story.assert_unbroken_towards_user();
    let before = level(&story.heard_by_user()[9_600..]);
    assert!((-85.0..-60.0).contains(&before), "{before:.1} dBFS");
    assert!(!story.bridge.rtcp_due(story.now + Duration::from_secs(60), 0, &mut heapless::Vec::new()));

    story.bridge.set_far(PCMU).unwrap();
    for n in 11..=20u16 {
        story.user_presses(Event { code: 5, end: n == 20, volume: 7, duration: n * 160 }, false, begun);
        story.tick();
    }
    talk(&mut story, &mut speaker, 90);
    assert!(story.far_packets().iter().all(|packet| packet.payload_type == 0), "half a key is no key");
    assert_eq!(story.bridge.digits_heard(), 1);
    let far = story.heard_by_far();
    let begin = level(&far[..8 * FRAME]);
    assert!(begin < -60.0, "what was said before is not heard now: {begin:.1} dBFS");
    assert!((frequency(&far[40 * FRAME..], 8_000.0) - 1_000.0).abs() < 10.0);
    let user = story.heard_by_user();
    let now = level(&user[160 * 960..]);
    assert!((-18.0..-12.0).contains(&now), "the tone of -15.3 dBFS is heard now: {now:.1} dBFS");
    story.assert_unbroken_towards_user();
}

#[test]
fn while_it_rings_the_user_hears_the_ring_back_tone_and_then_the_far_end_without_a_jump() {
    let mut story = Story::new();
    story.bridge.alone(Alone::RingBack);
    let mut speaker = ToneSpeaker::new(false, 1_000.0);
    // A gate that opens later: the tone begins with it, not in the middle of its pause.
    for _ in 0..200 {
        story.tick();
    }
    story.bridge.open_gate();
    talk(&mut story, &mut speaker, 20);
    story.bridge.alone(Alone::RingBack);
    talk(&mut story, &mut speaker, 255);
    let sound = story.heard_by_user();
    let tone = &sound[4_800..46_000];
    assert!((frequency(tone, 48_000.0) - 425.0).abs() < 4.3, "{:.1} Hz", frequency(tone, 48_000.0));
    let heard = level(tone) + 3.01 + 3.17;
    assert!((-20.0..-16.0).contains(&heard), "{heard:.1} dBm0");
    assert!(level(&sound[60_000..240_000]) < -60.0, "then four seconds of an open line");
    assert!(level(&sound[245_000..]) > -30.0, "and it rings again");
    assert!(story.far_datagrams.is_empty());

    // The far end answers in the middle of the tone.
    story.bridge.set_far(PCMU).unwrap();
    talk(&mut story, &mut speaker, 100);
    story.assert_unbroken_towards_user();
    assert_eq!(story.user_frames.len(), 375);
    let sound = story.heard_by_user();
    assert!((frequency(&sound[280 * 960 + 9_600..], 48_000.0) - 440.0).abs() < 4.4);
}

#[test]
fn a_far_end_that_is_left_is_sent_nothing_more_and_not_heard_any_more() {
    let mut story = Story::talking();
    let mut speaker = ToneSpeaker::new(false, 1_000.0);
    talk(&mut story, &mut speaker, 100);
    let sent = story.far_datagrams.len();
    story.bridge.alone(Alone::Silence);
    talk(&mut story, &mut speaker, 300);
    assert_eq!(story.far_datagrams.len(), sent);
    assert!(!story.bridge.rtcp_due(story.now, 0, &mut heapless::Vec::new()));
    assert_eq!(story.user_frames.len(), 400);
    story.assert_unbroken_towards_user();
    let sound = story.heard_by_user();
    assert!(level(&sound[50 * 960..99 * 960]) > -18.0);
    // One frame of the codec's delay and the decay of what was cut.
    let after = level(&sound[103 * 960..]);
    assert!(after < -60.0, "comfort noise from the very next frame on: {after:.1} dBFS");
}

#[test]
fn no_seam_clicks() {
    let mut story = Story::talking();
    let mut speaker = ToneSpeaker::new(false, 1_000.0);
    talk(&mut story, &mut speaker, 50);
    story.bridge.alone(Alone::RingBack);
    talk(&mut story, &mut speaker, 33);
    // How the next far end begins is its own affair: this one says nothing.
    story.bridge.set_far(PCMU).unwrap();
    for _ in 0..50 {
        story.tick();
    }
    story.bridge.alone(Alone::RingBack);
    talk(&mut story, &mut speaker, 27);
    story.bridge.alone(Alone::Silence);
    talk(&mut story, &mut speaker, 50);
    // The steepest place of the far end's own tone at 48 kHz is 8000 * 2 pi * 440 / 48000 = 461.
    let sound = story.heard_by_user();
    let steps = sound.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs());
    let largest = steps.enumerate().max_by_key(|(_, step)| *step).unwrap();
    assert!(largest.1 < 600, "a click at frame {}: a step of {}", largest.0 / 960, largest.1);
}

#[test]
fn a_second_far_end_hears_one_stream_from_its_beginning_and_its_own_reports() {
    let mut story = Story::talking();
    let mut speaker = ToneSpeaker::new(false, 1_000.0);
    let mut out = heapless::Vec::new();
    // A tenth of the first far end's packets is lost.
    for n in 0..200 {
        talk(&mut story, &mut speaker, 1);
        if n % 10 == 9 {
            story.far_sequence = story.far_sequence.wrapping_add(1);
        }
        story.bridge.rtcp_due(story.now, 0, &mut out);
    }
    let first = story.bridge.quality(HeardSide::Far);
    let sent = story.far_datagrams.len();
    story.bridge.alone(Alone::RingBack);
    let left = story.bridge.quality(HeardSide::Far);
    assert_eq!((left.received, left.lost, left.sent), (200, first.lost, 200), "the books stay open");
    for _ in 0..100 {
        story.tick();
    }

    // The second one: other numbers, other codec.
    story.far_ssrc = 0x77;
    story.far_sequence = 40_000;
    story.bridge.set_far(FarMedia { codec: Codec::Pcma, pt: 8, dtmf: None, ..PCMU }).unwrap();
    let begun = story.now;
    let mut reports = Vec::new();
    for _ in 0..400 {
        let packet = speaker.next(960);
        story.user_says(&packet, 960);
        story.far_says_tone(Codec::Pcma, 440.0, 160);
        story.tick();
        if story.bridge.rtcp_due(story.now, 0, &mut out) {
            reports.push((story.now - begun, out.to_vec()));
        }
    }
    let packets = story.far_packets();
    let (last, new) = (packets[sent - 1], packets[sent]);
    assert_eq!((new.payload_type, new.marker), (8, true));
    assert_eq!((new.ssrc, new.sequence), (last.ssrc, last.sequence.wrapping_add(1)));
    assert_eq!(new.timestamp, last.timestamp.wrapping_add(101 * 160), "time went on");
    assert_eq!(reports[0].0.as_millis() / 100, 25, "the first report comes after half its time");
    for (_, report) in &reports {
        let said = rtcp::read(report).unwrap();
        let Some(Report::Receipt { about, fraction, .. }) = said.get(1) else { panic!("{said:?}") };
        assert_eq!((*about, *fraction), (0x77, 0), "about the second one alone");
    }
    let both = story.bridge.quality(HeardSide::Far);
    assert_eq!((both.received, both.lost), (600, first.lost), "summed");
    assert_eq!(both.concealed, first.concealed);
    let sound = story.heard_by_user();
    assert!((frequency(&sound[320 * 960..], 48_000.0) - 440.0).abs() < 4.4);
    story.assert_unbroken_towards_user();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_comes_and_goes_whatsapp_hears_one_packet_on_every_tick(
        steps in proptest::collection::vec((0u8..5, 0usize..30), 1..40),
    ) {
        let mut story = Story::talking();
        let mut speaker = ToneSpeaker::new(false, 1_000.0);
        let mut ticks = 0;
        for (step, length) in steps {
            let sent = story.far_datagrams.len();
            match step {
                0 => story.bridge.alone(Alone::RingBack),
                1 => story.bridge.alone(Alone::Silence),
                2 => story.bridge.set_far(PCMU).unwrap(),
                3 => story.bridge.set_far(FarMedia { sends: false, ..PCMU }).unwrap(),
                _ => story.far_ssrc = story.far_ssrc.wrapping_add(1),
            }
            talk(&mut story, &mut speaker, length);
            if step < 2 || step == 3 {
                prop_assert_eq!(story.far_datagrams.len(), sent);
            }
            ticks += length;
        }
        prop_assert_eq!(story.user_frames.len(), ticks);
        story.assert_unbroken_towards_user();
    }
}
