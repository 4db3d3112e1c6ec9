//! Opus packets, cut and joined: every kind of packet in, 20 ms out, the sound untouched.

use super::super::opus::peer::{Phone, voice};
use super::*;
use proptest::prelude::*;

type Out = Vec<u8, 480>;

/// Speech in packets of so many samples at 48 kHz.
fn spoken(samples: u64, packets: u64, stereo: bool) -> std::vec::Vec<std::vec::Vec<u8>> {
    let mut phone = Phone::new(stereo);
    (0..packets)
        .map(|n| phone.say(&(n * samples..(n + 1) * samples).map(voice).collect::<std::vec::Vec<_>>()))
        .collect()
}

#[test]
fn a_packet_of_20_ms_leaves_as_it_came() {
    for stereo in [false, true] {
        let mut packing = Packing::new();
        for packet in spoken(960, 50, stereo) {
            assert!(packing.push(&packet));
            let mut out = Out::new();
            let packed = packing.take(&mut out).unwrap();
            assert_eq!(out.as_slice(), packet);
            assert_eq!((packed.units, packed.invented), (960, false));
            assert_eq!(packing.take(&mut out), None);
        }
    }
}

#[test]
fn short_packets_are_joined_and_sound_the_same_as_one_by_one() {
    for samples in [120u64, 240, 480] {
        let all = spoken(samples, 60 * 960 / samples, false);
        // An encoder chooses the bandwidth within its first frames; after that all are of one kind.
        let settled =
            all.iter().rposition(|packet| packet[0] != all[all.len() - 1][0]).map_or(0, |at| at + 1);
        let packets = &all[settled..settled + (40 * 960 / samples) as usize];
        let mut packing = Packing::new();
        let mut together = std::vec::Vec::new();
        let mut phone = Phone::new(false);
        for packet in packets {
            assert!(packing.push(packet));
            let mut out = Out::new();
            if let Some(packed) = packing.take(&mut out) {
                assert_eq!(packed.units, 960);
                together.extend(phone.hear(&out));
            }
        }
        let mut phone = Phone::new(false);
        let alone: std::vec::Vec<i16> = packets.iter().flat_map(|packet| phone.hear_all(packet)).collect();
        assert_eq!(together.len(), 40 * 960, "{samples}");
        assert!(together == alone, "{samples}: the decoder heard something else");
    }
}

#[test]
fn what_was_joined_can_be_cut_again() {
    // Two frames of 20 ms in one packet, as an encoder of 40 ms makes it in CELT.
    let single = spoken(960, 2, false);
    let mut joined = std::vec![(single[0][0] & !3) | 3, 0x82, (single[0].len() - 1) as u8];
    joined.extend(&single[0][1..]);
    joined.extend(&single[1][1..]);
    let mut packing = Packing::new();
    assert!(packing.push(&joined));
    for packet in &single {
        let mut out = Out::new();
        packing.take(&mut out).unwrap();
        assert_eq!(out.as_slice(), packet.as_slice());
    }
    assert_eq!(packing.units(), 0);
}

#[test]
fn a_frame_of_sixty_milliseconds_is_kept_whole() {
    for (samples, units) in [(1_920u64, 1_920), (2_880, 2_880)] {
        let packet = &spoken(samples, 1, false)[0];
        assert!(is_long(packet));
        let mut packing = Packing::new();
        assert!(packing.push(packet));
        let mut out = Out::new();
        assert_eq!(packing.take(&mut out).unwrap().units, units);
        assert_eq!(out.as_slice(), packet.as_slice());
        packing.invent(960);
        assert_eq!(packing.take(&mut out).unwrap().units, 960, "what is missing is of 20 ms all the same");
        assert_eq!(Phone::new(false).hear_all(&out).len(), 960);
    }
}

#[test]
fn what_is_missing_becomes_frames_that_a_decoder_fills_and_nobody_takes_for_a_pause() {
    for samples in [120u64, 480, 960] {
        let mut packing = Packing::new();
        let mut phone = Phone::new(false);
        let mut out = Out::new();
        let mut took = 0;
        for (n, packet) in spoken(samples, 60 * 960 / samples, false).iter().enumerate() {
            if n % 7 == 3 {
                packing.invent(samples as u32);
            } else {
                assert!(packing.push(packet));
            }
            while let Some(packed) = packing.take(&mut out) {
                took += 1;
                assert!(out.len() > 2, "{} bytes", out.len());
                assert_eq!((packed.units, phone.hear_all(&out).len()), (960, 960));
            }
        }
        assert_eq!(took, 60);
    }
    // Before anything was heard.
    let mut packing = Packing::new();
    let mut out = Out::new();
    packing.invent(960);
    assert!(packing.take(&mut out).unwrap().invented);
    assert_eq!(Phone::new(false).hear_all(&out), [0; 960]);
}

#[test]
fn a_packet_that_begins_a_pause_becomes_one_that_does_not_look_like_it_and_sounds_the_same() {
    for pause in [&[0x48][..], &[0x48, 7], &[0x4B, 0x01], &[0x49, 1, 2]] {
        let (mut packing, mut out) = (Packing::new(), Out::new());
        let (mut ours, mut theirs) = (Phone::new(false), Phone::new(false));
        for packet in spoken(960, 30, false) {
            assert!(packing.push(&packet) && packing.take(&mut out).is_some());
            assert_eq!(ours.hear_all(&out), theirs.hear_all(&packet));
        }
        assert!(packing.push(pause));
        while packing.take(&mut out).is_some() {
            assert!(out.len() > 2, "{pause:?}: {out:?}");
            let heard = ours.hear_all(&out);
            assert_eq!(heard.len(), 960);
            assert!(pause.len() > 2 || heard == theirs.hear_all(pause), "{pause:?}");
        }
    }
}

#[test]
fn frames_of_two_kinds_never_share_a_packet_and_the_time_stays_whole() {
    let (speech, mut packing, mut out) = (spoken(480, 3, false), Packing::new(), Out::new());
    // CELT of 10 ms, 48 kHz, mono, behind SILK of 10 ms.
    let other = [30 << 3, 1, 2, 3, 4, 5];
    for packet in [&speech[0][..], &other, &other] {
        assert!(packing.push(packet));
    }
    for _ in 0..2 {
        packing.take(&mut out).unwrap();
        let kinds = frames(&out).unwrap();
        assert_eq!(kinds.len() as u32 * frame_units(out[0]), 960);
    }
    assert_eq!((packing.units(), packing.take(&mut out)), (0, None));
}

#[test]
fn what_breaks_the_rules_of_the_format_is_refused() {
    for broken in [
        &[][..],
        &[0x09, 1, 2, 3],            // two equal frames in three bytes
        &[0x0A, 9, 1],               // the first of two longer than all
        &[0x0B],                     // no count
        &[0x0B, 0],                  // no frames
        &[0x0B, 7],                  // 140 ms
        &[0x0B, 0x41, 200, 1, 2],    // padding longer than the packet
        &[0x0B, 0x02, 1, 2, 3],      // two equal frames in three bytes
        &[0x0B, 0x83, 1, 200, 1, 1], // the second longer than what is left
    ] {
        assert_eq!(frames(broken), None, "{broken:?}");
        assert!(!Packing::new().push(broken));
    }
    assert_eq!(frames(&[0x0B, 0x41, 2, 7, 0, 0]).unwrap().as_slice(), [&[7][..]], "padding is no sound");
}

proptest! {
    #[test]
    fn whatever_is_pushed_what_comes_out_is_20_ms_or_one_long_frame(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..40)
    ) {
        let (mut packing, mut out) = (Packing::new(), Out::new());
        for packet in packets {
            if !packing.push(&packet) {
                packing.invent(960);
            }
            while let Some(packed) = packing.take(&mut out) {
                let inside = frames(&out).unwrap();
                let units = inside.len() as u32 * frame_units(out[0]);
                prop_assert_eq!(units, packed.units);
                prop_assert!(units == 960 || inside.len() == 1);
            }
            prop_assert!(packing.units() < 960);
        }
    }

    #[test]
    fn the_library_reads_the_same_frames(mut packet in proptest::collection::vec(any::<u8>(), 1..200), code in 0u8..4) {
        packet[0] = (packet[0] & !3) | code;
        let theirs = super::super::opus::duration(&packet);
        let ours = frames(&packet).map(|frames| frames.len() as u32 * frame_units(packet[0]));
        // The library's quick look does not read the lengths: what it refuses must be refused here.
        if theirs.is_none() {
            prop_assert_eq!(ours, None);
        } else if let Some(ours) = ours {
            prop_assert_eq!(Some(ours), theirs);
        }
    }
}
