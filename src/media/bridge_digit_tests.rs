//! Stories of keys: to the PBX on both clocks, told instead of sent, and from the PBX.

use super::codec::media;
use super::*;

/// The user presses a key for so many packets of 20 ms; `at` is when, on the user's clock.
fn press(story: &mut Story, code: u8, packets: u16, arrives: impl Fn(u16) -> bool) {
    let begun = story.user_timestamp;
    for n in 1..=packets + 2 {
        // The last one is sent three times.
        let duration = n.min(packets).wrapping_mul(160);
        let event = Event { code, end: n >= packets, volume: 7, duration };
        if arrives(n) {
            story.user_presses(event, n == 1, begun);
        } else {
            story.user_skips(960);
        }
        story.tick();
    }
}

/// The presses that the PBX hears: code and duration on its clock, by their timestamps.
fn pressed(story: &Story) -> Vec<(u8, u32)> {
    let mut presses: Vec<(u32, u8, u32, usize)> = Vec::new();
    for packet in story.far_packets().iter().filter(|packet| packet.payload_type == 101) {
        let event = Event::read(packet.payload).unwrap();
        match presses.last_mut().filter(|press| press.0 == packet.timestamp && press.1 == event.code) {
            Some(press) => {
                assert!(!packet.marker);
                press.2 = press.2.max(u32::from(event.duration));
                press.3 += usize::from(event.end);
            }
            None => {
                presses.push((packet.timestamp, event.code, event.duration.into(), event.end.into()));
            }
        }
    }
    for press in &presses {
        assert_eq!(press.3, 3, "each is ended three times");
    }
    presses.into_iter().map(|press| (press.1, press.2)).collect()
}

#[test]
fn a_key_reaches_the_pbx_on_the_clock_of_its_format_whatever_the_codec() {
    for codec in [Codec::Pcma, Codec::G722, Codec::Opus] {
        for clock in [8_000, 48_000] {
            let mut story = Story::new();
            let far = FarMedia { dtmf: Some(DtmfFormat { pt: 101, clock }), ..media(codec) };
            story.bridge.set_far(far).unwrap();
            story.bridge.open_gate();
            for _ in 0..30 {
                story.tick();
            }
            press(&mut story, 5, 10, |_| true);
            for _ in 0..20 {
                story.tick();
            }
            let ratio = clock / 8_000;
            assert_eq!(pressed(&story), [(5, 1_600 * ratio)], "{codec:?} {clock}");
            let packets = story.far_packets();
            let at = packets.iter().position(|packet| packet.payload_type == 101).unwrap();
            // The tick in which it began, on the event's clock.
            let begun = (u32::MAX - 1_000).wrapping_add(160 * ratio * at as u32);
            assert_eq!(packets[at].timestamp, begun, "{codec:?} {clock}");
            for (n, packet) in packets.iter().enumerate() {
                assert_eq!(packet.sequence, 65_530u16.wrapping_add(n as u16), "{codec:?} {clock}");
            }
        }
    }
}

#[test]
fn a_press_of_many_seconds_is_cut_into_segments_on_a_clock_of_48_kilohertz() {
    let mut story = Story::new();
    story.bridge.set_far(media(Codec::Opus)).unwrap();
    story.bridge.open_gate();
    press(&mut story, 1, 200, |_| true);
    for _ in 0..20 {
        story.tick();
    }
    // Four seconds are 192,000 units: two full segments and a rest, ended once.
    let mut segments: Vec<(u32, u32, usize)> = Vec::new();
    for packet in story.far_packets().iter().filter(|packet| packet.payload_type == 101) {
        let event = Event::read(packet.payload).unwrap();
        match segments.last_mut().filter(|segment| segment.0 == packet.timestamp) {
            Some(segment) => {
                segment.1 = segment.1.max(event.duration.into());
                segment.2 += usize::from(event.end);
            }
            None => segments.push((packet.timestamp, event.duration.into(), event.end.into())),
        }
    }
    let durations: Vec<(u32, usize)> = segments.iter().map(|segment| (segment.1, segment.2)).collect();
    assert_eq!(durations, [(65_535, 0), (65_535, 0), (192_000 - 131_070, 3)]);
    assert!(segments.windows(2).all(|pair| pair[1].0.wrapping_sub(pair[0].0) == 65_535));
}

#[test]
fn no_key_is_lost_or_doubled_while_a_third_of_the_packets_is() {
    let mut story = Story::talking();
    let mut dice = 7u32;
    let mut keys = Vec::new();
    for n in 0..200u32 {
        // Every third key is the one before it again.
        let code = ((n - n % 3 / 2) * 7 % 12) as u8;
        keys.push(code);
        let seed = dice;
        // Of nine packets something arrives, and never all.
        let arrives = move |packet: u16| {
            let mixed = seed.wrapping_add(u32::from(packet)).wrapping_mul(0x9E37_79B1);
            (mixed >> 16) % 3 != 0 || packet == 4
        };
        press(&mut story, code, 7, arrives);
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Some follow at once, some after a while.
        for _ in 0..n % 4 * 2 {
            story.user_timestamp = story.user_timestamp.wrapping_add(960);
            story.tick();
        }
    }
    for _ in 0..100 {
        story.tick();
    }
    let heard: Vec<u8> = pressed(&story).into_iter().map(|(code, _)| code).collect();
    assert_eq!(heard, keys);
    assert_eq!(story.bridge.digits_heard(), 200);
}

#[test]
fn keys_are_told_instead_of_sent_where_the_trunk_wants_info() {
    for sends in [true, false] {
        let mut story = Story::new();
        let far = FarMedia { digits_told: true, sends, ..PCMU };
        story.bridge.set_far(far).unwrap();
        story.bridge.open_gate();
        let mut told = Vec::new();
        for (n, code) in [4u8, 4, 11].into_iter().enumerate() {
            let begun = story.user_timestamp;
            for packet in 1..=8u16 {
                let event = Event { code, end: packet >= 6, volume: 7, duration: packet.min(6) * 160 };
                story.user_presses(event, packet == 1, begun);
                story.tick();
                told.extend(story.out.digit.map(|(key, ms)| (n, key, ms)));
            }
        }
        assert_eq!(told, [(0, '4', 120), (1, '4', 120), (2, '#', 120)]);
        assert!(story.far_packets().iter().all(|packet| packet.payload_type == 0));
        assert_eq!(story.far_datagrams.len(), if sends { 24 } else { 0 });
    }
}

#[test]
fn keys_of_the_pbx_are_told_once_whatever_is_lost() {
    for (codec, clock) in [(Codec::Pcma, 8_000u32), (Codec::Opus, 48_000), (Codec::Opus, 8_000)] {
        let mut story = Story::new();
        let far = FarMedia { dtmf: Some(DtmfFormat { pt: 101, clock }), ..media(codec) };
        story.bridge.set_far(far).unwrap();
        story.bridge.open_gate();
        let tick = clock / 50;
        let mut told = Vec::new();
        for (key, lost) in [(1u8, 0u32), (1, 0b0001), (9, 0b1100_0000_0000), (10, 0b1111_1111_1110), (0, 0)] {
            let stamp = story.far_timestamp;
            for n in 0..12u32 {
                let duration = ((n + 1).min(10) * tick) as u16;
                let event = Event { code: key, end: n >= 9, volume: 10, duration };
                if lost >> n & 1 == 0 {
                    let after = story.far_timestamp;
                    story.far_timestamp = stamp;
                    story.far_says_for(101, &event.write(), 0);
                    story.far_timestamp = after;
                } else {
                    story.far_skips(0);
                }
                story.far_timestamp = story.far_timestamp.wrapping_add(tick);
                story.tick();
                told.extend(story.out.far_digit);
            }
            for _ in 0..15 {
                story.far_timestamp = story.far_timestamp.wrapping_add(tick);
                story.tick();
                told.extend(story.out.far_digit);
            }
        }
        let expected = [('1', 200), ('1', 200), ('9', 200), ('*', 20), ('0', 200)];
        assert_eq!(told, expected, "{codec:?} at {clock}");
        let quality = story.bridge.quality(HeardSide::Far);
        assert_eq!(quality.discarded, 0, "{quality:?}");
    }
}
