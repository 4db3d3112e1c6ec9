//! SRTP: what is protected is opened, what is forged or replayed is not.

use super::*;
use crate::media::{rtcp, rtp};
use proptest::prelude::*;

const SUITES: [Suite; 4] =
    [Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm];

type Datagram = Vec<u8, DATAGRAM>;

fn key(suite: Suite, seed: u8) -> MasterKey {
    let (key, salt) = suite.lengths();
    let bytes: std::vec::Vec<u8> =
        (0..key + salt).map(|at| seed.wrapping_add((at as u8).wrapping_mul(7))).collect();
    MasterKey::new(&bytes).unwrap()
}

/// The two ends of a call.
fn ends(suite: Suite) -> (Shield, Shield) {
    let (a, b) = (key(suite, 1), key(suite, 99));
    let ours = SrtpKeys { suite, ours: a.clone(), theirs: b.clone() };
    let theirs = SrtpKeys { suite, ours: b, theirs: a };
    (Shield::new(&ours).unwrap(), Shield::new(&theirs).unwrap())
}

fn packet(ssrc: u32, sequence: u16) -> Datagram {
    let payload = [sequence as u8; 160];
    let timestamp = u32::from(sequence) * 160;
    let packet = rtp::Packet { ssrc, payload_type: 8, marker: false, sequence, timestamp, payload: &payload };
    rtp::write(&packet).unwrap()
}

fn protected(shield: &mut Shield, ssrc: u32, sequence: u16) -> Datagram {
    let mut datagram = packet(ssrc, sequence);
    assert!(shield.protect(&mut datagram));
    datagram
}

#[test]
fn what_one_end_protects_the_other_opens_over_many_wraps_of_the_sequence() {
    for suite in SUITES {
        let (mut us, mut them) = ends(suite);
        for n in 0..200_000u32 {
            // Every tenth of the packets around the wraps, every hundredth elsewhere.
            let near = (n % 65_536).min(65_536 - n % 65_536) < 300;
            if n % if near { 10 } else { 100 } != 0 {
                continue;
            }
            let sent = protected(&mut us, 5, n as u16);
            assert_ne!(sent[12..172], packet(5, n as u16)[12..172], "the sound is not readable");
            assert_eq!(them.unprotect(&sent).unwrap(), packet(5, n as u16), "{suite:?} {n}");
        }
        assert_eq!(them.refused(), Refused::default());
    }
}

/// RFC 3711 has no packet vectors; this packet was made by libsrtp's own test driver.
#[test]
fn a_packet_of_libsrtp_is_opened() {
    let keys: [u8; 30] = [
        0xe1, 0xf9, 0x7a, 0x0d, 0x3e, 0x01, 0x8b, 0xe0, 0xd6, 0x4f, 0xa3, 0x2c, 0x06, 0xde, 0x41, 0x39, 0x0e,
        0xc6, 0x75, 0xad, 0x49, 0x8a, 0xfe, 0xeb, 0xb6, 0x96, 0x0b, 0x3a, 0xab, 0xe6,
    ];
    let sealed: [u8; 38] = [
        0x80, 0x0f, 0x12, 0x34, 0xde, 0xca, 0xfb, 0xad, 0xca, 0xfe, 0xba, 0xbe, 0x4e, 0x55, 0xdc, 0x4c, 0xe7,
        0x99, 0x78, 0xd8, 0x8c, 0xa4, 0xd2, 0x15, 0x94, 0x9d, 0x24, 0x02, 0xb7, 0x8d, 0x6a, 0xcc, 0x99, 0xea,
        0x17, 0x9b, 0x8d, 0xbb,
    ];
    let suite = Suite::AesCm128HmacSha1_80;
    let theirs = MasterKey::new(&keys).unwrap();
    let mut shield = Shield::new(&SrtpKeys { suite, ours: key(suite, 1), theirs }).unwrap();
    let plain = shield.unprotect(&sealed).unwrap();
    assert_eq!(&plain[12..], [0xab; 16]);
}

#[test]
fn replays_and_forgeries_are_dropped_and_counted() {
    for suite in SUITES {
        let (mut us, mut them) = ends(suite);
        let packets: std::vec::Vec<_> = (100..160).map(|n| protected(&mut us, 5, n)).collect();
        for sent in packets.iter().rev() {
            assert!(them.unprotect(sent).is_some(), "disorder is no replay");
        }
        for sent in &packets {
            assert_eq!(them.unprotect(sent), None);
        }
        assert_eq!(them.refused(), Refused { forged: 0, replayed: 60 });
        for at in [1, 3, 20, 172] {
            let mut forged = protected(&mut us, 5, 300 + at as u16);
            forged[at] ^= 1;
            assert_eq!(them.unprotect(&forged), None, "{suite:?}: byte {at}");
        }
        assert_eq!(them.unprotect(&packet(5, 400)), None, "plain RTP");
        assert_eq!(them.unprotect(&[0x80, 8]), None);
        assert_eq!(them.refused().forged, 6);
        assert!(them.unprotect(&protected(&mut us, 5, 500)).is_some(), "the call goes on");
    }
}

#[test]
fn a_flood_of_forged_sources_changes_nothing_and_takes_no_room() {
    let (mut us, mut them) = ends(Suite::AesCm128HmacSha1_80);
    assert!(them.unprotect(&protected(&mut us, 5, 1)).is_some());
    for n in 0..5_000u32 {
        let mut forged = protected(&mut us, 1_000 + n, 7);
        forged[100] ^= 1;
        assert_eq!(them.unprotect(&forged), None);
    }
    assert!(them.theirs.sources.len() == 1 && them.theirs.probed < MOST_PROBED);
    assert!(them.unprotect(&protected(&mut us, 5, 2)).is_some());
    assert_eq!(them.unprotect(&protected(&mut us, 5, 2)).map(|_| ()), None, "and replays are known still");
    // Authentic sources come and go, without end.
    for ssrc in 20_000..20_100 {
        assert!(them.unprotect(&protected(&mut us, ssrc, 1)).is_some());
    }
    assert_eq!(them.theirs.sources.len(), MOST_SOURCES);
}

#[test]
fn reports_are_protected_too_and_one_that_says_it_is_not_encrypted_is_refused() {
    for suite in SUITES {
        let (mut us, mut them) = ends(suite);
        let mut plain: Vec<u8, 256> = Vec::new();
        rtcp::write(5, None, None, None, "name", &mut plain).unwrap();
        let mut sent = plain.clone();
        assert!(us.protect_rtcp(&mut sent));
        let opened = them.unprotect_rtcp(&sent).unwrap();
        assert_eq!(opened.as_slice(), plain.as_slice());
        assert_eq!(them.unprotect_rtcp(&sent), None, "a replay");
        let tag = match suite {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => 10,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 0,
        };
        let mut open = plain.clone();
        open.extend_from_slice(&[0, 0, 0, 9]).unwrap();
        open.extend_from_slice(&[0; 16][..tag.max(4)]).unwrap();
        assert_eq!(them.unprotect_rtcp(&open), None, "{suite:?}");
        assert_eq!(them.refused(), Refused { forged: 1, replayed: 1 });
    }
}

#[test]
fn a_direction_whose_key_is_the_same_goes_on_and_one_with_a_new_key_begins_anew() {
    let suite = Suite::AeadAes128Gcm;
    let (mut us, mut them) = ends(suite);
    for n in (0..70_000u32).step_by(500) {
        assert!(them.unprotect(&protected(&mut us, 5, n as u16)).is_some());
    }
    let same = SrtpKeys { suite, ours: key(suite, 1), theirs: key(suite, 99) };
    us.rekey(&same).unwrap();
    let next = protected(&mut us, 5, 4_500);
    assert!(them.unprotect(&next).is_some(), "the count of wraps is kept");
    assert_eq!(them.unprotect(&next), None);
    us.rekey(&SrtpKeys { ours: key(suite, 50), ..same.clone() }).unwrap();
    let new = protected(&mut us, 5, 4_501);
    assert_eq!(them.unprotect(&new), None, "the PBX does not know this key yet");
    them.rekey(&SrtpKeys { suite, ours: key(suite, 99), theirs: key(suite, 50) }).unwrap();
    assert!(them.unprotect(&new).is_some());
    let back = protected(&mut them, 9, 3);
    assert!(us.unprotect(&back).is_some(), "the other direction was not touched");
}

#[test]
fn keys_of_another_length_are_refused_and_never_printed() {
    let suite = Suite::AeadAes256Gcm;
    let short = SrtpKeys { suite, ours: key(Suite::AesCm128HmacSha1_80, 1), theirs: key(suite, 2) };
    assert_eq!(Shield::new(&short).err(), Some(MediaError::Keys));
    assert_eq!(ends(suite).0.rekey(&short), Err(MediaError::Keys));
    assert!(MasterKey::new(&[0; 45]).is_none());
    let printed = format!("{short:?}");
    assert!(!printed.contains('['), "{printed}");
}

#[test]
fn a_datagram_without_room_for_its_tag_is_not_sent() {
    let (mut us, _) = ends(Suite::AeadAes128Gcm);
    let mut full: Vec<u8, 180> = Vec::from_slice(&packet(5, 1)).unwrap();
    assert!(!us.protect(&mut full));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        for suite in [Suite::AesCm128HmacSha1_32, Suite::AeadAes256Gcm] {
            let (mut shield, _) = ends(suite);
            prop_assert!(shield.unprotect(&bytes).is_none());
            prop_assert!(shield.unprotect_rtcp(&bytes).is_none());
            let mut looks_right = bytes.clone();
            if let Some(first) = looks_right.first_mut() {
                *first = (*first & 0x3F) | 0x80;
            }
            prop_assert!(shield.unprotect(&looks_right).is_none());
            if let Some(last) = looks_right.iter_mut().rev().nth(13) {
                *last |= 0x80;
            }
            prop_assert!(shield.unprotect_rtcp(&looks_right).is_none());
        }
    }
}
