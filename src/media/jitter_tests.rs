//! Stories of a jitter buffer under a virtual clock.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

type Buffer = Jitter<64, 400>;

/// One 20 ms frame of Opus on its clock.
const OPUS: u32 = 960;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Audio(u32),
    Repair(u32),
    Conceal,
    Silence,
}

/// A packet on its way: when it arrives (microseconds), and its numbers. The payload is `id`.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: u64,
    id: u32,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    duration: u32,
}

fn stream(count: u32, sequence: u16, timestamp: u32) -> Vec<Sent> {
    (0..count)
        .map(|n| Sent {
            at: u64::from(n) * 20_000,
            id: n,
            ssrc: 1,
            sequence: sequence.wrapping_add(n as u16),
            timestamp: timestamp.wrapping_add(n * OPUS),
            duration: OPUS,
        })
        .collect()
}

fn push<const N: usize, const P: usize>(jitter: &mut Jitter<N, P>, sent: &Sent) -> Pushed {
    let payload = sent.id.to_be_bytes();
    let packet = Incoming {
        ssrc: sent.ssrc,
        sequence: sent.sequence,
        timestamp: sent.timestamp,
        duration: sent.duration,
        payload_type: 111,
        payload: &payload,
        pauses: false,
    };
    jitter.push(&packet, Tick(sent.at))
}

fn id(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().expect("four bytes"))
}

fn pop<const N: usize, const P: usize>(jitter: &mut Jitter<N, P>) -> Got {
    match jitter.pop() {
        Frame::Audio { payload, .. } => Got::Audio(id(payload)),
        Frame::Repair { next, .. } => Got::Repair(id(next)),
        Frame::Conceal { .. } => Got::Conceal,
        Frame::Silence { .. } => Got::Silence,
    }
}

/// Plays the packets in order of arrival, one pop every 20 ms (from `phase` on), and goes on until
/// all of them must have been played. `steer` lets the buffer correct its depth.
fn play(jitter: &mut Buffer, mut sent: Vec<Sent>, phase: u64, steer: bool) -> Vec<(u64, Got)> {
    sent.sort_by_key(|packet| packet.at);
    let end = sent.last().map_or(0, |packet| packet.at) + 1_000_000;
    let mut waiting = sent.into_iter().peekable();
    let mut got = Vec::new();
    let mut now = phase;
    while now < end {
        while let Some(packet) = waiting.next_if(|packet| packet.at <= now) {
            push(jitter, &packet);
        }
        let adjust = if steer { jitter.adjust(true) } else { Adjust::Keep };
        match adjust {
            Adjust::Keep => got.push((now, pop(jitter))),
            Adjust::Insert => got.push((now, Got::Silence)),
            Adjust::Drop => {
                pop(jitter);
                got.push((now, pop(jitter)));
            }
        }
        assert!(jitter.held <= 64);
        now += 20_000;
    }
    got
}

fn audio(got: &[(u64, Got)]) -> Vec<u32> {
    got.iter().filter_map(|(_, got)| if let Got::Audio(id) = got { Some(*id) } else { None }).collect()
}

fn ids(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

/// A small generator for stories that need many draws.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn a_steady_stream_is_played_whole_and_one_target_late() {
    let mut jitter = Buffer::new(60, OPUS);
    let got = play(&mut jitter, stream(100, 5, 777), 1_000, true);
    assert_eq!(audio(&got), ids(0..100));
    let first = got.iter().position(|(_, got)| *got == Got::Audio(0)).unwrap();
    assert_eq!(first, 2, "two frames of silence, then the first with two more behind it: 60 ms deep");
    assert!(got[first..first + 100].iter().all(|(_, got)| matches!(got, Got::Audio(_))), "no gap");
    let counts = jitter.counts();
    assert_eq!((counts.concealed - 5, counts.dropped, counts.inserted), (0, 0, 0));
}

#[test]
fn a_lost_packet_is_repaired_from_the_one_after_it() {
    let mut jitter = Buffer::new(60, OPUS);
    let mut sent = stream(20, 65_530, 0);
    sent.remove(10);
    let got = play(&mut jitter, sent, 1_000, true);
    let at = got.iter().position(|(_, got)| *got == Got::Repair(11)).unwrap();
    assert_eq!(got[at - 1].1, Got::Audio(9));
    assert_eq!(got[at + 1].1, Got::Audio(11));
    assert_eq!(jitter.counts().repaired, 1);
}

#[test]
fn of_two_lost_packets_the_first_is_invented_and_the_second_repaired() {
    let mut jitter = Buffer::new(80, OPUS);
    let mut sent = stream(20, 0, 0);
    sent.drain(10..12);
    let got = play(&mut jitter, sent, 1_000, true);
    let at = got.iter().position(|(_, got)| *got == Got::Audio(9)).unwrap();
    let after: Vec<Got> = got[at + 1..at + 4].iter().map(|(_, got)| got.clone()).collect();
    assert_eq!(after, [Got::Conceal, Got::Repair(12), Got::Audio(12)]);
}

#[test]
fn packets_in_the_wrong_order_are_played_in_the_right_one() {
    let mut jitter = Buffer::new(60, OPUS);
    let mut sent = stream(50, 65_500, 4_294_960_000);
    for pair in (0..50).step_by(2) {
        sent[pair].at += 25_000;
    }
    let got = play(&mut jitter, sent, 1_000, true);
    assert_eq!(audio(&got), ids(0..50));
    assert_eq!(jitter.counts().concealed, 5, "only the end of the stream");
}

#[test]
fn every_packet_twice_is_played_once() {
    let mut jitter = Buffer::new(60, OPUS);
    let mut sent = stream(50, 0, 0);
    sent.extend(sent.clone().iter().map(|packet| Sent { at: packet.at + 3_000, ..*packet }));
    let got = play(&mut jitter, sent, 1_000, true);
    assert_eq!(audio(&got), ids(0..50));
    let counts = jitter.counts();
    assert_eq!(counts.duplicate + counts.late, 50);
}

#[test]
fn five_percent_loss_and_thirty_milliseconds_of_jitter_conceal_only_what_is_lost() {
    let mut jitter = Buffer::new(60, OPUS);
    let mut dice = Dice(7);
    let mut lost = 0;
    let sent: Vec<Sent> = stream(3_000, 60_000, 0)
        .into_iter()
        .filter_map(|packet| {
            let keep = dice.below(100) >= 5;
            lost += u64::from(!keep);
            keep.then(|| Sent { at: packet.at + dice.below(30_000), ..packet })
        })
        .collect();
    let arrived = sent.len();
    let got = play(&mut jitter, sent, 1_000, true);
    let counts = jitter.counts();
    assert!(audio(&got).len() + counts.dropped as usize >= arrived - counts.late as usize);
    assert!(counts.late <= 5, "{counts:?}");
    let invented = counts.concealed + counts.repaired;
    assert!(invented <= lost + 20, "{invented} for {lost} lost: {counts:?}");
    assert!(counts.repaired * 10 > lost * 8, "most losses stand alone: {counts:?}");
}

#[test]
fn a_burst_of_ten_after_a_stall_is_played_and_the_delay_comes_back() {
    let mut jitter = Buffer::new(60, OPUS);
    let sent: Vec<Sent> = stream(500, 0, 0)
        .into_iter()
        .map(
            |packet| {
                if (100..110).contains(&packet.id) { Sent { at: 110 * 20_000, ..packet } } else { packet }
            },
        )
        .collect();
    let got = play(&mut jitter, sent, 1_000, true);
    let heard = audio(&got);
    assert!(heard.is_sorted());
    assert!(heard.contains(&100) && heard.contains(&109), "late speech is better than none: {heard:?}");
    let counts = jitter.counts();
    assert!(counts.concealed <= 5 + 8, "{counts:?}");
    let delay = |number: u32| {
        let (now, _) = got.iter().find(|(_, got)| *got == Got::Audio(number)).unwrap();
        now / 1_000 - u64::from(number) * 20
    };
    let (before, after) = (delay(90), delay(499));
    assert!(after <= before + 20, "the delay was {before} ms and is {after} ms");
}

#[test]
fn a_stall_of_a_second_does_not_become_a_second_of_delay() {
    let mut jitter = Buffer::new(60, OPUS);
    let sent: Vec<Sent> = stream(300, 0, 0)
        .into_iter()
        .map(|packet| if (100..150).contains(&packet.id) { Sent { at: 3_000_000, ..packet } } else { packet })
        .collect();
    let got = play(&mut jitter, sent, 1_000, false);
    let (now, _) = got.iter().find(|(_, got)| *got == Got::Audio(160)).unwrap();
    assert!(now / 1_000 - 160 * 20 <= 100, "delay {} ms", now / 1_000 - 160 * 20);
    assert!(jitter.counts().cut > 20);
}

#[test]
fn a_pause_of_the_sender_is_silence_and_not_loss() {
    let mut jitter = Buffer::new(60, OPUS);
    let sent: Vec<Sent> = stream(100, 0, 0)
        .into_iter()
        .map(|packet| {
            // Two seconds of nothing after packet 49; the sequence goes on, the clock has moved.
            let pause = if packet.id >= 50 { 100 } else { 0 };
            Sent {
                at: packet.at + pause * 20_000,
                timestamp: packet.timestamp + pause as u32 * OPUS,
                ..packet
            }
        })
        .collect();
    let got = play(&mut jitter, sent, 1_000, true);
    assert_eq!(audio(&got), ids(0..100));
    let at = |number: u32| got.iter().position(|(_, got)| *got == Got::Audio(number)).unwrap();
    assert_eq!(at(50) - at(49), 101, "the pause is as long as it was");
    let counts = jitter.counts();
    assert_eq!((counts.concealed, counts.repaired), (5, 0), "only the end of the stream: {counts:?}");
}

#[test]
fn a_jump_of_the_timestamps_is_heard_as_no_gap() {
    for jump in [1_000_000_000u32, u32::MAX - 1_000_000, 96_000] {
        let mut jitter = Buffer::new(60, OPUS);
        let sent: Vec<Sent> = stream(100, 0, 5_000_000)
            .into_iter()
            .map(|packet| {
                let by = if packet.id >= 50 { jump } else { 0 };
                Sent { timestamp: packet.timestamp.wrapping_add(by), ..packet }
            })
            .collect();
        let got = play(&mut jitter, sent, 1_000, true);
        assert_eq!(audio(&got), ids(0..100), "jump {jump}");
        let at = |number: u32| got.iter().position(|(_, got)| *got == Got::Audio(number)).unwrap();
        assert_eq!(at(99) - at(0), 99, "jump {jump}");
        assert_eq!(jitter.counts().resync, 1);
    }
}

#[test]
fn a_new_ssrc_goes_on_where_the_old_one_ended() {
    let mut jitter = Buffer::new(60, OPUS);
    let mut sent = stream(50, 0, 0);
    sent.extend(stream(50, 40_000, 123_456_789).into_iter().map(|packet| Sent {
        at: packet.at + 50 * 20_000,
        id: packet.id + 50,
        ssrc: 2,
        ..packet
    }));
    // A straggler of the old one must not turn it back.
    sent.push(Sent {
        at: 52 * 20_000 + 1,
        id: 999,
        ssrc: 1,
        sequence: 50,
        timestamp: 50 * OPUS,
        duration: OPUS,
    });
    let got = play(&mut jitter, sent, 1_000, true);
    assert_eq!(audio(&got), ids(0..100));
    let counts = jitter.counts();
    assert_eq!((counts.resync, counts.late, counts.repaired), (1, 1, 0));
}

#[test]
fn a_jump_of_the_sequence_is_believed_once_a_second_packet_follows() {
    let mut jitter = Buffer::new(60, OPUS);
    let mut sent = stream(50, 0, 0);
    sent.extend(stream(50, 30_000, 50 * OPUS).into_iter().map(|packet| Sent {
        at: packet.at + 50 * 20_000,
        id: packet.id + 50,
        ..packet
    }));
    let got = play(&mut jitter, sent, 1_000, true);
    let mut expected = ids(0..100);
    expected.remove(50);
    assert_eq!(audio(&got), expected);
    assert_eq!(jitter.counts().strange, 1);
}

#[test]
fn a_digit_between_sounds_is_not_a_loss() {
    let mut jitter = Buffer::new(60, OPUS);
    let mut got = Vec::new();
    for (n, packet) in stream(60, 65_520, 0).into_iter().enumerate() {
        if (20..30).contains(&n) {
            jitter.note(1, packet.sequence);
        } else {
            push(&mut jitter, &packet);
        }
        got.push((packet.at, pop(&mut jitter)));
    }
    assert!(!got.iter().any(|(_, got)| matches!(got, Got::Repair(_))));
    assert_eq!(audio(&got).len(), 48, "all that was due: {got:?}");
    assert_eq!(jitter.counts().concealed, 0, "{:?}", jitter.counts());
}

#[test]
fn packets_of_other_lengths_keep_the_time() {
    for (millis, millis_each) in [(10u32, 10u64), (30, 30), (40, 40), (60, 60)] {
        let mut jitter = Jitter::<32, 480>::new(80, 160);
        let duration = millis * 8;
        let mut played = 0u64;
        let mut invented = 0u64;
        let mut sent = (0..200u32).peekable();
        for now in (5..4_000u64).step_by(20) {
            while let Some(n) = sent.next_if(|n| u64::from(*n) * millis_each <= now) {
                let (sequence, timestamp) = (n as u16, n * duration);
                push(&mut jitter, &Sent { at: now * 1_000, id: n, ssrc: 1, sequence, timestamp, duration });
            }
            // As the playout does: take until 20 ms are there.
            let due = (now + 15) * 8;
            while played + invented < due {
                match jitter.pop() {
                    Frame::Audio { duration, .. } => played += u64::from(duration),
                    Frame::Silence { duration } => invented += u64::from(duration),
                    other => panic!("{millis} ms: {other:?} at {now}"),
                }
            }
            if sent.peek().is_none() {
                break;
            }
        }
        assert!(invented <= 80 * 8, "{millis} ms: {invented} samples of silence");
        assert_eq!(jitter.counts().discarded(), 0);
    }
}

#[test]
fn an_hour_of_two_hundred_ppm_neither_grows_the_delay_nor_breaks_the_sound() {
    for ppm in [200i64, -200] {
        let mut jitter = Jitter::<64, 400>::new(60, OPUS);
        let (mut next, mut quiet) = (0u32, Dice(3));
        let (mut worst, mut least) = (0u64, u64::MAX);
        let ticks = 3_600 * 50u64;
        for tick in 0..ticks {
            let now = tick * 20_000 + 7_000;
            loop {
                // The sender's 20 ms are 20 ms and 4 us long, or short.
                let at = (i64::from(next) * (20_000 * 1_000_000 - 20_000 * ppm) / 1_000_000) as u64;
                if at > now {
                    break;
                }
                push(
                    &mut jitter,
                    &Sent {
                        at,
                        id: next,
                        ssrc: 1,
                        sequence: next as u16,
                        timestamp: next.wrapping_mul(OPUS),
                        duration: OPUS,
                    },
                );
                next += 1;
            }
            let got = match jitter.adjust(quiet.below(10) == 0) {
                Adjust::Keep => pop(&mut jitter),
                Adjust::Insert => continue,
                Adjust::Drop => {
                    pop(&mut jitter);
                    pop(&mut jitter)
                }
            };
            if let (Got::Audio(id), true) = (got, tick > 100) {
                let sent = (i64::from(id) * (20_000 * 1_000_000 - 20_000 * ppm) / 1_000_000) as u64;
                worst = worst.max(now - sent);
                least = least.min(now - sent);
            }
        }
        let counts = jitter.counts();
        println!("{ppm} ppm: delay {} to {} us, {counts:?}", least, worst);
        assert!(worst <= 100_000, "{ppm} ppm: delay rose to {worst} us");
        assert!(counts.concealed <= 2, "{ppm} ppm: {counts:?}");
        let corrections = if ppm > 0 { counts.dropped } else { counts.inserted };
        assert!((30..=40).contains(&corrections), "{ppm} ppm: 36 frames in an hour, but {counts:?}");
        assert_eq!(counts.discarded(), 0);
    }
}

#[test]
fn a_packet_longer_than_its_place_is_counted_and_dropped() {
    let mut jitter = Jitter::<8, 16>::new(20, OPUS);
    let packet = Incoming {
        ssrc: 1,
        sequence: 1,
        timestamp: 1,
        duration: OPUS,
        payload_type: 111,
        payload: &[0; 17],
        pauses: false,
    };
    assert_eq!(jitter.push(&packet, Tick::ZERO), Pushed::Oversize);
    assert_eq!(jitter.counts().oversize, 1);
}

proptest! {
    /// What is there in time is played, once, in order; and only what is missing is invented.
    #[test]
    fn nothing_that_was_there_in_time_is_lost(
        first_seq: u16, first_ts: u32, target in 2u32..=10, phase in 0u64..20_000, calm: bool,
        draws in proptest::collection::vec((0u64..1_000, 0u8..100), 20..200),
    ) {
        let mut jitter = Buffer::new(target * 20, OPUS);
        // The first packet is the fastest: all others have one target minus a frame of room.
        let room = u64::from(target - 1) * 20_000;
        let mut lost = 0;
        let last = draws.len() - 1;
        let sent: Vec<Sent> = stream(draws.len() as u32, first_seq, first_ts)
            .into_iter()
            .zip(&draws)
            .filter_map(|(packet, (delay, luck))| {
                let n = packet.id as usize;
                let keep = n == 0 || n == last || *luck >= 10 || calm;
                lost += u64::from(!keep);
                let late = if n == 0 { 0 } else { room * delay / 1_000 };
                keep.then_some(Sent { at: packet.at + late, ..packet })
            })
            .collect();
        let arrived: Vec<u32> = sent.iter().map(|packet| packet.id).collect();
        let got = play(&mut jitter, sent, phase, false);
        prop_assert_eq!(audio(&got), arrived);
        let counts = jitter.counts();
        prop_assert_eq!(counts.discarded(), 0);
        // After the last packet the buffer invents for 100 ms, as it cannot know that it was the last.
        let filled = got.iter().filter(|(_, got)| matches!(got, Got::Repair(_) | Got::Conceal)).count() as u64;
        let silent_inside = got
            .iter()
            .skip_while(|(_, got)| *got == Got::Silence)
            .take_while(|(_, got)| *got != Got::Audio(last as u32))
            .filter(|(_, got)| *got == Got::Silence)
            .count() as u64;
        prop_assert_eq!(filled + silent_inside, lost + 5);
    }

    /// Whatever comes: no panic, order kept within a stream, and it never waits for ever.
    #[test]
    fn any_packets_at_all_leave_it_sane(
        packets in proptest::collection::vec(
            (0u64..60, 0u32..3, prop_oneof![0u16..200, any::<u16>()],
             prop_oneof![(0u32..300).prop_map(|n| n * 960), any::<u32>()], 1u32..6_000, any::<bool>()), 0..300),
    ) {
        let mut jitter = Buffer::new(60, OPUS);
        let mut now = 0;
        for (id, (wait, ssrc, sequence, timestamp, duration, note)) in (0u32..).zip(packets) {
            now += wait * 1_000;
            if note && wait % 5 == 0 {
                jitter.note(ssrc, sequence);
            } else {
                push(&mut jitter, &Sent { at: now, id, ssrc, sequence, timestamp, duration });
            }
            let _ = jitter.adjust(false);
            pop(&mut jitter);
            let sounds = jitter.ring.iter().filter(|slot| slot.content == Content::Sound).count();
            prop_assert_eq!(jitter.held, sounds);
        }
        // Left alone it empties, and a fresh stream is played again.
        for _ in 0..20_000 {
            pop(&mut jitter);
        }
        prop_assert_eq!(jitter.held, 0);
        now += 400_000_000;
        let fresh = stream(40, 7, 7).into_iter().map(|packet| Sent { at: packet.at + now, ssrc: 77, ..packet });
        let mut heard = Vec::new();
        for packet in fresh {
            push(&mut jitter, &packet);
            heard.push((packet.at, pop(&mut jitter)));
        }
        prop_assert!(audio(&heard).len() >= 36, "{:?}", heard);
        prop_assert!(audio(&heard).is_sorted());
    }
}
