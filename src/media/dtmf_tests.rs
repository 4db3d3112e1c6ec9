//! Stories of a key pressed in WhatsApp and heard by the PBX.

use super::*;
use proptest::prelude::*;

/// A thumb on the keypad of WhatsApp: makes the packets of one press, one every 20 ms.
struct Thumb {
    now: Tick,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    event: Event,
    marker: bool,
    timestamp: u32,
}

fn press(code: u8, timestamp: u32, length: u32) -> Vec<Heard> {
    let mut packets = Vec::new();
    let mut duration = 0;
    while duration + TICK < length {
        duration += TICK;
        let event = Event { code, end: false, volume: 10, duration: duration as u16 };
        packets.push(Heard { event, marker: duration == TICK, timestamp });
    }
    let end = Event { code, end: true, volume: 10, duration: length as u16 };
    packets.extend([Heard { event: end, marker: false, timestamp }; 3]);
    packets
}

/// Everything that was said to the PBX, and on which tick.
#[derive(Debug, Default)]
struct Line {
    said: Vec<(u32, Said)>,
    tick: u32,
}

impl Line {
    fn tick(&mut self, digits: &mut Digits, now: Tick) {
        digits.pass_time(now);
        if let Some(said) = digits.say(10_000 + 160 * self.tick, 1) {
            self.said.push((self.tick, said));
        }
        self.tick += 1;
    }

    /// The presses as a receiver hears them: code, total duration, number of end packets.
    fn presses(&self) -> Vec<(u8, u32, usize)> {
        let mut presses: Vec<(u8, u32, usize)> = Vec::new();
        let mut segment = (0u32, 0u32);
        let mut before = 0;
        for (_, said) in &self.said {
            if said.marker {
                presses.push((said.event.code, 0, 0));
                before = 0;
                segment = (said.timestamp, 0);
            } else if said.timestamp != segment.0 {
                before += said.timestamp.wrapping_sub(segment.0);
                segment = (said.timestamp, 0);
            }
            let last = presses.last_mut().expect("a press begins with the marker");
            assert_eq!(last.0, said.event.code, "one press, one key");
            let duration = u32::from(said.event.duration);
            assert!(duration >= segment.1, "durations never fall");
            segment.1 = duration;
            last.1 = before + duration;
            last.2 += usize::from(said.event.end);
        }
        presses
    }
}

impl Thumb {
    fn new() -> Thumb {
        Thumb { now: Tick::from_millis(1_000) }
    }

    /// One packet on each tick, then silence until all is said.
    fn play(&mut self, digits: &mut Digits, line: &mut Line, packets: &[Heard], quiet_ticks: u32) {
        for packet in packets {
            digits.hear(packet.event, packet.marker, packet.timestamp, self.now);
            self.tick(digits, line);
        }
        for _ in 0..quiet_ticks {
            self.tick(digits, line);
        }
    }

    fn tick(&mut self, digits: &mut Digits, line: &mut Line) {
        line.tick(digits, self.now);
        self.now += Duration::from_millis(20);
    }
}

fn played(packets: &[Heard]) -> (Digits, Line) {
    let (mut digits, mut line, mut thumb) = (Digits::new(), Line::default(), Thumb::new());
    thumb.play(&mut digits, &mut line, packets, 20);
    (digits, line)
}

#[test]
fn a_key_of_a_tenth_of_a_second_is_heard_for_a_tenth_of_a_second() {
    let (digits, line) = played(&press(5, 48_000, 800));
    assert_eq!(line.presses(), [(5, 800, 3)]);
    assert_eq!(digits.heard(), 1);
    let (first, last) = (line.said[0], line.said[line.said.len() - 1]);
    assert!(first.1.marker && line.said.iter().filter(|(_, said)| said.marker).count() == 1);
    // 8 kHz stamps: the audio's own at the tick it began on, the same in all packets.
    assert!(line.said.iter().all(|(_, said)| said.timestamp == 10_000 + 160 * first.0));
    assert_eq!(last.0 - first.0, 6, "five packets, the last of them three times: a tick each");
    assert_eq!(first.1.event.volume, 10);
}

#[test]
fn durations_are_not_scaled_although_the_stamps_are() {
    // 200 ms: 9,600 on WhatsApp's clock, 1,600 in its duration field and in ours.
    assert_eq!(played(&press(11, 0, 1_600)).1.presses(), [(11, 1_600, 3)]);
}

#[test]
fn a_lost_start_does_not_lose_the_digit() {
    let packets = press(7, 48_000, 800);
    assert_eq!(played(&packets[3..]).1.presses(), [(7, 800, 3)]);
    assert_eq!(played(&packets[packets.len() - 1..]).1.presses(), [(7, 800, 3)]);
}

#[test]
fn lost_ends_close_the_digit_after_a_while() {
    let packets = press(7, 48_000, 800);
    let (digits, line) = played(&packets[..packets.len() - 3]);
    assert_eq!(line.presses(), [(7, 640, 3)]);
    assert_eq!(digits.heard(), 1);
}

#[test]
fn lost_ends_close_the_digit_when_the_next_one_begins() {
    let mut packets = press(1, 48_000, 800);
    packets.truncate(packets.len() - 3);
    packets.extend(press(2, 48_000 + 9_600, 800));
    assert_eq!(played(&packets).1.presses(), [(1, 640, 3), (2, 800, 3)]);
}

#[test]
fn end_packets_heard_ten_times_are_one_digit() {
    let mut packets = press(9, 48_000, 800);
    let end = packets[packets.len() - 1];
    packets.extend([end; 7]);
    let (digits, line) = played(&packets);
    assert_eq!((line.presses(), digits.heard()), (vec![(9, 800, 3)], 1));
}

#[test]
fn an_update_overtaken_by_the_end_does_not_press_again() {
    let mut packets = press(9, 48_000, 800);
    let update = packets.remove(2);
    packets.push(update);
    assert_eq!(played(&packets).1.presses(), [(9, 800, 3)]);
}

#[test]
fn the_same_key_twice_quickly_is_two_digits() {
    let mut packets = press(4, 48_000, 400);
    packets.extend(press(4, 48_000 + 5 * 960, 400));
    assert_eq!(played(&packets).1.presses(), [(4, 400, 3), (4, 400, 3)]);
}

#[test]
fn ten_digits_typed_faster_than_they_can_be_said_are_all_said_in_order() {
    let (mut digits, mut line, mut thumb) = (Digits::new(), Line::default(), Thumb::new());
    for code in 0..10u8 {
        for packet in press(code, 48_000 + u32::from(code) * 4_800, 320) {
            digits.hear(packet.event, packet.marker, packet.timestamp, thumb.now);
        }
        thumb.tick(&mut digits, &mut line);
    }
    for _ in 0..60 {
        thumb.tick(&mut digits, &mut line);
    }
    let expected: Vec<(u8, u32, usize)> = (0..10).map(|code| (code, 320, 3)).collect();
    assert_eq!(line.presses(), expected);
}

#[test]
fn more_than_sixteen_waiting_digits_are_counted_not_kept() {
    let mut digits = Digits::new();
    for code in 0..40u32 {
        let event = Event { code: (code % 10) as u8, end: true, volume: 0, duration: 800 };
        digits.hear(event, true, code * 9_600, Tick::ZERO);
    }
    assert_eq!((digits.heard(), digits.overflow()), (40, 24));
}

#[test]
fn a_press_of_twenty_seconds_is_cut_into_segments_and_has_its_whole_length() {
    let (mut digits, mut line, mut thumb) = (Digits::new(), Line::default(), Thumb::new());
    let (total, start) = (160_000u32, 4_000_000_000u32);
    let mut said = 0u32;
    while said < total {
        said += TICK;
        let segment = (said - 1) / SEGMENT;
        let event =
            Event { code: 3, end: said >= total, volume: 5, duration: (said - segment * SEGMENT) as u16 };
        let timestamp = start.wrapping_add(segment * SEGMENT * RATIO);
        thumb.play(&mut digits, &mut line, &[Heard { event, marker: said == TICK, timestamp }], 0);
    }
    thumb.play(&mut digits, &mut line, &[], 20);
    assert_eq!(line.presses(), [(3, total, 3)]);
    let stamps: std::collections::BTreeSet<u32> = line.said.iter().map(|(_, said)| said.timestamp).collect();
    let first = line.said[0].1.timestamp;
    assert_eq!(stamps.into_iter().collect::<Vec<_>>(), [first, first + SEGMENT, first + 2 * SEGMENT]);
    assert!(line.said.iter().any(|(_, said)| said.event.duration == 0xFFFF && !said.event.end));
}

#[test]
fn a_sender_that_lets_the_duration_wrap_instead_of_cutting_is_understood() {
    let (mut digits, mut line, mut thumb) = (Digits::new(), Line::default(), Thumb::new());
    let mut said = 0u32;
    while said < 100_000 {
        said += TICK;
        let event = Event { code: 3, end: said >= 100_000, volume: 5, duration: said as u16 };
        thumb.play(&mut digits, &mut line, &[Heard { event, marker: said == TICK, timestamp: 77 }], 0);
    }
    thumb.play(&mut digits, &mut line, &[], 20);
    assert_eq!(line.presses(), [(3, 100_000, 3)]);
}

#[test]
fn a_long_press_of_which_the_seam_is_lost_is_no_second_press() {
    let (mut digits, mut line, mut thumb) = (Digits::new(), Line::default(), Thumb::new());
    let mut said = 0u32;
    while said < 80_000 {
        said += TICK;
        let segment = (said - 1) / SEGMENT;
        let event =
            Event { code: 3, end: said >= 80_000, volume: 5, duration: (said - segment * SEGMENT) as u16 };
        let packet = Heard { event, marker: said == TICK, timestamp: 9 + segment * SEGMENT * RATIO };
        // A quarter of a second around the end of the first segment.
        let lost = said.abs_diff(SEGMENT) < 1_000;
        thumb.play(&mut digits, &mut line, if lost { &[] } else { std::slice::from_ref(&packet) }, 0);
        if lost {
            thumb.tick(&mut digits, &mut line);
        }
    }
    thumb.play(&mut digits, &mut line, &[], 20);
    let presses = line.presses();
    assert_eq!((presses.len(), presses[0].0, presses[0].2, digits.heard()), (1, 3, 3, 1), "{presses:?}");
    // And the same key again is another press.
    thumb.play(&mut digits, &mut line, &press(3, 9_000_000, 800), 20);
    assert_eq!(line.presses().len(), 2);
}

#[test]
fn updates_every_50_ms_give_the_same_digit() {
    let (mut digits, mut line, mut thumb) = (Digits::new(), Line::default(), Thumb::new());
    for (at, duration) in [(0u32, 0u16), (3, 400), (5, 800), (8, 1_200)] {
        while line.tick < at {
            thumb.tick(&mut digits, &mut line);
        }
        let event = Event { code: 6, end: duration == 1_200, volume: 0, duration };
        digits.hear(event, duration == 0, 77, thumb.now);
    }
    thumb.play(&mut digits, &mut line, &[], 20);
    assert_eq!(line.presses(), [(6, 1_200, 3)]);
}

#[test]
fn flash_is_passed_on_and_fax_tones_are_not() {
    let (digits, line) = played(&press(16, 0, 800));
    assert_eq!((line.presses(), digits.heard()), (vec![(16, 800, 3)], 0));
    assert_eq!(played(&press(36, 0, 800)).1.presses(), []);
}

#[test]
fn nothing_waits_for_a_far_side_that_was_held() {
    let (mut digits, mut line, mut thumb) = (Digits::new(), Line::default(), Thumb::new());
    thumb.play(&mut digits, &mut line, &press(1, 0, 800)[..2], 0);
    digits.forget();
    thumb.play(&mut digits, &mut line, &press(1, 0, 800)[2..], 5);
    assert_eq!(line.said.len(), 2, "what was begun before the hold is not taken up after it");
    thumb.play(&mut digits, &mut line, &press(2, 96_000, 800), 5);
    assert_eq!(digits.heard(), 2);
}

proptest! {
    /// A loss of any packets but one leaves each digit once, in order, never longer than pressed.
    #[test]
    fn digits_survive_any_loss_that_leaves_one_packet(
        codes in proptest::collection::vec(0u8..16, 1..6),
        lengths in proptest::collection::vec(320u32..2_400, 6),
        losses in proptest::collection::vec(any::<bool>(), 200),
    ) {
        let (mut digits, mut line, mut thumb) = (Digits::new(), Line::default(), Thumb::new());
        let mut losses = losses.into_iter().cycle();
        let mut expected = Vec::new();
        let mut timestamp = 4_294_900_000u32;
        for (code, length) in codes.iter().zip(&lengths) {
            let packets = press(*code, timestamp, *length);
            let mut arrived: Vec<Heard> =
                packets.iter().copied().filter(|_| !losses.next().unwrap_or(false)).collect();
            if arrived.is_empty() {
                arrived.push(packets[0]);
            }
            thumb.play(&mut digits, &mut line, &arrived, 15);
            expected.push((*code, *length));
            timestamp = timestamp.wrapping_add(length * RATIO + 9_600);
        }
        thumb.play(&mut digits, &mut line, &[], 60);
        let presses = line.presses();
        let codes_said: Vec<u8> = presses.iter().map(|press| press.0).collect();
        prop_assert_eq!(codes_said, codes);
        for (said, (_, length)) in presses.iter().zip(&expected) {
            prop_assert!(said.1 <= *length && said.1 >= TICK, "said {} of {}", said.1, length);
            prop_assert_eq!(said.2, 3);
        }
    }

    #[test]
    fn no_events_make_it_panic_or_talk_for_ever(
        events in proptest::collection::vec(
            (any::<[u8; 4]>(), any::<bool>(), prop_oneof![0u32..4, any::<u32>()], 0u64..100), 0..200)
    ) {
        let (mut digits, mut line) = (Digits::new(), Line::default());
        let mut now = Tick::ZERO;
        for (payload, marker, timestamp, wait) in events {
            now += Duration::from_millis(wait);
            if let Some(event) = Event::read(&payload) {
                digits.hear(event, marker, timestamp, now);
            }
            line.tick(&mut digits, now);
        }
        for _ in 0..60_000 {
            now += Duration::from_millis(20);
            line.tick(&mut digits, now);
        }
        let last = line.said.last().map_or(0, |(tick, _)| *tick);
        prop_assert!(last < line.tick - 100, "still talking");
        let _ = line.presses();
    }
}
