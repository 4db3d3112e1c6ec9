//! Stories of a line: whom it listens to, where it sends, and when silence has lasted too long.

use super::*;
use crate::media::srtp::{MasterKey, Suite};
use crate::media::{Codec, DATAGRAM, DtmfFormat, Seeds};

#[path = "line_tape_tests.rs"]
mod tape;

const PBX: &str = "192.0.2.10:12000";

/// G.711 with digits.
fn pcmu(sends: bool, speaks: bool) -> FarMedia {
    FarMedia {
        codec: Codec::Pcmu,
        pt: 0,
        dtmf: Some(DtmfFormat { pt: 101, clock: 8_000 }),
        comfort_noise: None,
        sends,
        speaks,
        digits_told: false,
    }
}

/// Plain RTP to this address, RTCP on the port above.
fn path(rtp: &str) -> FarPath {
    let rtp = address(rtp);
    let rtcp = SocketAddr::new(rtp.ip(), rtp.port() + 1);
    FarPath {
        rtp,
        rtcp,
        rtcp_mux: false,
        learn_any: false,
        keys: None,
        silence: Some(Duration::from_secs(60)),
    }
}

fn seconds(seconds: u64) -> Tick {
    Tick::from_millis(seconds * 1_000)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn seeds() -> Seeds {
    Seeds { user_ssrc: 1, user_seq: 1, user_timestamp: 1, far_ssrc: 2, far_seq: 1, far_timestamp: 1 }
}

/// A line whose gate is open at zero and whose PBX may be silent for a minute.
fn line(sends: bool, speaks: bool) -> Line {
    let settings = BridgeSettings {
        opus_pt: 111,
        user_dtmf_pt: Some(126),
        jitter_ms: 60,
        complexity: 0,
        bitrate: 16_000,
        seeds: seeds(),
    };
    let mut line = Line::new(settings, Tick::ZERO).unwrap();
    line.set_far(pcmu(sends, speaks), &path(PBX), Tick::ZERO).unwrap();
    line.open_gate(Tick::ZERO);
    line
}

fn sound(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet.resize(172, 0xff);
    packet
}

/// Ticks up to a moment; what the ticks said, and when.
fn tick_until(line: &mut Line, from: Tick, to: Tick) -> Vec<(u64, Silence)> {
    let mut said = Vec::new();
    let mut out = Outgoing::default();
    let mut now = from;
    while now <= to {
        said.extend(line.tick(now, &mut out).map(|silence| (now.as_millis(), silence)));
        assert!(out.to_user.is_some(), "WhatsApp hears something on every tick");
        now += Duration::from_millis(20);
    }
    said
}

#[test]
fn thirty_seconds_without_anything_from_whatsapp_are_told_once() {
    let mut line = line(true, true);
    assert_eq!(tick_until(&mut line, Tick::ZERO, seconds(100)), [(30_000, Silence::User)]);
}

#[test]
fn rtcp_from_whatsapp_alone_keeps_a_muted_user_alive() {
    let mut line = line(true, true);
    for second in 0..55 {
        line.user_lives(seconds(second));
        assert_eq!(tick_until(&mut line, seconds(second), seconds(second + 1)), []);
    }
}

/// When the line said that the PBX pauses, in ms.
fn pauses(line: &mut Line, from: u64, to: u64) -> Vec<u64> {
    (from..to).step_by(20).filter(|at| line.far_pauses(Tick::from_millis(*at))).collect()
}

#[test]
fn a_pause_of_the_pbx_is_told_after_three_seconds_and_once() {
    let mut line = line(true, true);
    assert_eq!(pauses(&mut line, 0, 20_000), [3_000]);
    line.from_far(&sound(1), address(PBX), seconds(20));
    assert_eq!(pauses(&mut line, 20_000, 40_000), [23_000], "the next pause");
    line.set_far(pcmu(true, false), &path(PBX), seconds(40)).unwrap();
    assert!(pauses(&mut line, 40_000, 60_000).is_empty(), "who holds the call need not say anything");
}

#[test]
fn a_pbx_that_says_nothing_for_its_time_is_told_once() {
    let mut line = line(true, true);
    let mut said = Vec::new();
    for second in 0..100 {
        line.user_lives(seconds(second));
        said.extend(tick_until(&mut line, seconds(second), seconds(second + 1)));
    }
    assert_eq!(said, [(60_000, Silence::Far)]);
}

#[test]
fn a_pbx_that_has_put_us_on_hold_may_be_silent_for_ever() {
    // The second one says that it has music (RFC 3264 §8.4), and has none.
    for speaks in [false, true] {
        let mut line = line(false, speaks);
        for second in 0..100 {
            line.user_lives(seconds(second));
            assert_eq!(tick_until(&mut line, seconds(second), seconds(second + 1)), []);
        }
        line.set_far(pcmu(true, true), &path(PBX), seconds(100)).unwrap();
        let talk = tick_until(&mut line, seconds(100), seconds(131));
        assert_eq!(talk.first(), Some(&(129_000, Silence::User)), "{talk:?}");
    }
}

#[test]
fn whoever_talks_may_be_silent_for_as_long_as_its_own_trunk_says() {
    let mut line = line(true, true);
    let mut said = Vec::new();
    let limited = |limit: u64| FarPath { silence: Some(Duration::from_secs(limit)), ..path(PBX) };
    line.set_far(pcmu(true, true), &FarPath { silence: None, ..path(PBX) }, Tick::ZERO).unwrap();
    for second in 0..170 {
        line.user_lives(seconds(second));
        if second == 70 {
            line.set_far(pcmu(true, true), &limited(90), seconds(second)).unwrap();
        }
        said.extend(tick_until(&mut line, seconds(second), seconds(second + 1)));
    }
    assert_eq!(said, [(160_000, Silence::Far)]);
}

#[test]
fn before_the_gate_is_open_nobody_is_too_silent() {
    let mut line = line(true, true);
    line.gate = None;
    let mut out = Outgoing::default();
    assert_eq!(line.tick(seconds(1_000), &mut out), None);
}

#[test]
fn sound_goes_back_to_the_port_that_it_comes_from_and_no_second_port_takes_over() {
    let mut line = line(true, true);
    assert_eq!(line.far_address(), Some(address(PBX)));
    line.from_far(&sound(1), address("192.0.2.10:33000"), seconds(1));
    assert_eq!(line.far_address(), Some(address("192.0.2.10:33000")), "a PBX behind NAT");
    line.from_far(&sound(2), address("192.0.2.10:44000"), seconds(1));
    assert_eq!(line.far_address(), Some(address("192.0.2.10:33000")));
    assert_eq!(line.dropped(), Dropped { strangers: 1, not_rtp: 0, ..Dropped::default() });
}

#[test]
fn while_the_user_is_alone_nobody_else_is_heard_or_sent_to_and_the_silence_is_no_fault() {
    let mut line = line(true, true);
    line.from_far(&sound(1), address(PBX), Tick::ZERO);
    line.alone(Alone::RingBack, Tick::ZERO);
    assert_eq!(line.far_address(), None);
    let mut out = Outgoing::default();
    for second in 0..200 {
        line.user_lives(seconds(second));
        line.from_far(&sound(2), address(PBX), seconds(second));
        assert_eq!(tick_until(&mut line, seconds(second), seconds(second + 1)), []);
        assert_eq!(line.rtcp_due(seconds(second), 0, &mut heapless::Vec::new()), None);
        line.tick(seconds(second + 1), &mut out);
        assert!(out.to_far.is_empty());
    }
    assert_eq!(line.quality().1.received, 1);
}

#[test]
fn while_an_agent_is_the_far_end_nothing_of_the_pbx_is_heard_and_no_silence_but_the_users_is_judged() {
    let mut line = line(true, true);
    line.from_far(&sound(1), address(PBX), Tick::ZERO);
    assert!(!line.agent_says(&[900; 320]), "there is no agent yet");
    assert_eq!(line.set_agent(11_025, Tick::ZERO), Err(MediaError::Rate { rate: 11_025 }));
    assert_eq!(line.far_address(), Some(address(PBX)), "and the far end is as it was");
    assert_eq!(line.set_agent(16_000, Tick::ZERO), Ok(()));
    assert_eq!(line.far_address(), None);
    let mut out = Outgoing::default();
    for second in 0..70 {
        line.user_lives(seconds(second));
        line.from_far(&sound(2), address(PBX), seconds(second));
        assert_eq!(tick_until(&mut line, seconds(second), seconds(second + 1)), []);
        assert_eq!(line.rtcp_due(seconds(second), 0, &mut heapless::Vec::new()), None);
        assert!(line.agent_says(&[900; 320]));
        line.tick(seconds(second + 1), &mut out);
        assert!(out.to_user.is_some() && out.to_far.is_empty());
        assert_eq!(out.to_agent.len(), 320);
    }
    assert_eq!(line.quality().1.received, 1 + 70, "what the agent said counts, the PBX's packets don't");
    assert_eq!(tick_until(&mut line, seconds(70), seconds(110)), [(99_000, Silence::User)]);

    // From the agent to a human.
    line.set_far(pcmu(true, true), &path(PBX), seconds(110)).unwrap();
    line.from_far(&sound(3), address(PBX), seconds(110));
    assert_eq!(line.far_address(), Some(address(PBX)));
    line.tick(seconds(110), &mut out);
    assert_eq!((out.to_far.len(), out.to_agent.len()), (1, 0));
}

#[test]
fn what_the_far_end_that_was_left_still_sends_is_not_taken_for_the_next_one() {
    let mut line = line(true, true);
    let behind_nat = address("192.0.2.10:33000");
    line.from_far(&sound(1), behind_nat, seconds(1));
    line.alone(Alone::Silence, seconds(1));
    // The same PBX, another phone.
    line.set_far(pcmu(true, true), &path("192.0.2.10:12100"), seconds(2)).unwrap();
    line.from_far(&sound(2), behind_nat, seconds(2));
    assert_eq!(line.far_address(), Some(address("192.0.2.10:12100")));
    assert_eq!(line.dropped(), Dropped { strangers: 1, not_rtp: 0, ..Dropped::default() });
    // That one did not answer, and the first one takes the call back.
    line.alone(Alone::Silence, seconds(3));
    line.set_far(pcmu(true, true), &path(PBX), seconds(4)).unwrap();
    line.from_far(&sound(3), behind_nat, seconds(4));
    assert_eq!(line.far_address(), Some(behind_nat));
    assert_eq!(line.quality().1.received, 2);
}

#[test]
fn another_host_is_never_heard_and_noise_is_counted() {
    let mut line = line(true, true);
    line.from_far(&sound(1), address("192.0.2.66:12000"), seconds(1));
    line.far_rtcp(&sound(1), address("192.0.2.66:12001"), seconds(1));
    line.from_far(b"no RTP", address(PBX), seconds(1));
    line.far_rtcp(b"no RTCP", address("192.0.2.10:12001"), seconds(1));
    assert_eq!(line.dropped(), Dropped { strangers: 2, not_rtp: 2, ..Dropped::default() });
    assert_eq!(line.far_address(), Some(address(PBX)));
    assert_eq!(line.quality().1.received, 0);
}

/// What is agreed on with SRTP, seen from the line, and the PBX's own shield.
fn shielded(seed: u8) -> (SrtpKeys, Shield) {
    let key = |seed: u8| MasterKey::new(&[seed; 30]).unwrap();
    let (ours, theirs) = (key(seed), key(seed + 100));
    let suite = Suite::AesCm128HmacSha1_80;
    let pbx = SrtpKeys { suite, ours: theirs.clone(), theirs: ours.clone() };
    (SrtpKeys { suite, ours, theirs }, Shield::new(&pbx).unwrap())
}

#[test]
fn another_port_is_believed_again_in_the_first_seconds_after_a_re_invite_and_only_then() {
    let mut line = line(true, true);
    let (first, second, third) =
        (address("192.0.2.10:33000"), address("192.0.2.10:44000"), address("192.0.2.10:55000"));
    line.from_far(&sound(1), first, seconds(20));
    assert_eq!(
        line.far_address(),
        Some(first),
        "the first one may come late: a PBX behind NAT, silent so far"
    );
    line.from_far(&sound(2), second, seconds(21));
    assert_eq!(line.far_address(), Some(first));
    line.set_far(pcmu(true, true), &path(PBX), seconds(30)).unwrap();
    assert_eq!(line.far_address(), Some(first), "a re-INVITE alone changes nothing");
    line.from_far(&sound(3), first, seconds(31));
    line.from_far(&sound(4), second, seconds(32));
    assert_eq!(line.far_address(), Some(second));
    line.from_far(&sound(5), third, seconds(33));
    assert_eq!(line.far_address(), Some(second), "once for each re-INVITE");
    line.set_far(pcmu(true, true), &path(PBX), seconds(40)).unwrap();
    line.from_far(&sound(6), third, seconds(46));
    assert_eq!(line.far_address(), Some(second), "too late");
    line.set_far(pcmu(true, true), &path(PBX), seconds(50)).unwrap();
    line.from_far(&sound(7), address(PBX), seconds(51));
    line.from_far(&sound(8), third, seconds(52));
    assert_eq!(
        line.far_address(),
        Some(address(PBX)),
        "the negotiated address was heard: nothing is to be learned"
    );
    assert_eq!(line.dropped().strangers, 4);
}

#[test]
fn another_host_is_learned_only_where_it_is_allowed_by_the_right_payload_type_and_in_time() {
    let private = FarPath { learn_any: true, ..path("10.0.0.5:12000") };
    let (outside, hijacker) = (address("203.0.113.7:40000"), address("198.51.100.66:40000"));
    let mut line = line(true, true);
    line.set_far(pcmu(true, true), &path("10.0.0.5:12000"), seconds(1)).unwrap();
    line.from_far(&sound(1), outside, seconds(1));
    assert_eq!(line.far_address(), Some(address("10.0.0.5:12000")), "not allowed");
    line.set_far(pcmu(true, true), &private, seconds(2)).unwrap();
    let mut other = sound(2);
    other[1] = 96;
    line.from_far(&other, hijacker, seconds(3));
    line.from_far(b"not RTP at all", hijacker, seconds(3));
    assert_eq!(line.far_address(), Some(address("10.0.0.5:12000")));
    line.from_far(&sound(3), outside, seconds(3));
    assert_eq!(line.far_address(), Some(outside));
    line.from_far(&sound(4), hijacker, seconds(4));
    assert_eq!(line.far_address(), Some(outside), "nobody else, ever");
    line.set_far(pcmu(true, true), &private, seconds(5)).unwrap();
    line.from_far(&sound(4), hijacker, seconds(5));
    assert_eq!(line.far_address(), Some(outside), "nor after a session refresh");
    assert_eq!(line.dropped(), Dropped { strangers: 5, ..Dropped::default() });
    // Whoever comes after the window is a stranger, too.
    line.set_far(pcmu(true, true), &FarPath { learn_any: true, ..path("10.0.0.6:12000") }, seconds(10))
        .unwrap();
    line.from_far(&sound(5), hijacker, seconds(15));
    assert_eq!(line.far_address(), Some(address("10.0.0.6:12000")));
}

#[test]
fn a_hold_by_an_address_of_zero_is_sent_nothing_and_music_is_heard_all_the_same() {
    let mut line = line(true, true);
    line.from_far(&sound(1), address(PBX), seconds(1));
    line.set_far(pcmu(false, false), &path("0.0.0.0:12000"), seconds(2)).unwrap();
    let mut out = Outgoing::default();
    for n in 0..100u16 {
        let now = seconds(3) + Duration::from_millis(u64::from(n) * 20);
        line.from_far(&sound(2 + n), address(PBX), now);
        line.tick(now, &mut out);
        assert!(out.to_far.is_empty() && out.to_user.is_some());
    }
    assert_eq!(line.quality().1.received, 101);
    assert_eq!(line.dropped(), Dropped::default());
}

#[test]
fn under_srtp_only_what_is_authentic_is_heard_and_everything_that_leaves_is_protected() {
    let mut line = line(true, true);
    let (keys, mut pbx) = shielded(1);
    let protected = FarPath { keys: Some(keys), rtcp_mux: true, ..path(PBX) };
    line.set_far(pcmu(true, true), &protected, Tick::ZERO).unwrap();
    let sealed = |pbx: &mut Shield, sequence: u16| -> heapless::Vec<u8, DATAGRAM> {
        let mut datagram = heapless::Vec::from_slice(&sound(sequence)).unwrap();
        assert!(pbx.protect(&mut datagram));
        datagram
    };
    let first = sealed(&mut pbx, 1);
    line.from_far(&first, address(PBX), seconds(1));
    line.from_far(&first, address(PBX), seconds(1));
    line.from_far(&sound(2), address(PBX), seconds(1));
    let mut forged = sealed(&mut pbx, 3);
    forged[40] ^= 1;
    line.from_far(&forged, address(PBX), seconds(1));
    assert_eq!(line.dropped(), Dropped { forged: 2, replayed: 1, ..Dropped::default() });
    assert_eq!(line.quality().1.received, 1);
    // It moves, without a word.
    let moved = address("198.51.100.9:6000");
    line.from_far(&sealed(&mut pbx, 4), moved, seconds(60));
    assert_eq!(line.far_address(), Some(moved));
    line.from_far(&sound(5), address(PBX), seconds(60));
    assert_eq!(line.far_address(), Some(moved));

    let (mut out, mut report) = (Outgoing::default(), heapless::Vec::new());
    let mut reports = 0;
    for n in 0..500u64 {
        let now = seconds(61) + Duration::from_millis(n * 20);
        line.tick(now, &mut out);
        for datagram in &out.to_far {
            let plain = pbx.unprotect(datagram).unwrap();
            assert_eq!((plain.len(), datagram.len()), (172, 182));
        }
        if let Some(to) = line.rtcp_due(now, n, &mut report) {
            reports += 1;
            assert_eq!(to, ReportTo { address: moved, by_rtp_port: true });
            assert!(pbx.unprotect_rtcp(&report).is_some());
        }
    }
    assert_eq!(reports, 2);
    // A re-INVITE with the same keys, a transfer and back, and plain RTP in between: nothing begins at zero.
    line.set_far(pcmu(true, true), &protected, seconds(80)).unwrap();
    line.alone(Alone::RingBack, seconds(81));
    line.set_far(pcmu(true, true), &path(PBX), seconds(82)).unwrap();
    line.tick(seconds(82), &mut out);
    assert_eq!(out.to_far.first().map(|datagram| datagram.len()), Some(172), "plain");
    line.set_far(pcmu(true, true), &protected, seconds(83)).unwrap();
    line.from_far(&first, address(PBX), seconds(83));
    assert_eq!(line.dropped().replayed, 2, "what was heard under this key is known still");
    line.tick(seconds(83), &mut out);
    assert!(pbx.unprotect(&out.to_far[0]).is_some());
    // New keys.
    let (keys, mut pbx) = shielded(2);
    line.set_far(pcmu(true, true), &FarPath { keys: Some(keys), ..path(PBX) }, seconds(84)).unwrap();
    let before = rtp::read(&out.to_far[0]).unwrap().ssrc;
    line.tick(seconds(84), &mut out);
    assert!(pbx.unprotect(&out.to_far[0]).is_some());
    let after = rtp::read(&out.to_far[0]).unwrap().ssrc;
    assert_ne!(before, after, "no number is used twice under a key, even if the old one comes back");
    line.from_far(&sealed(&mut pbx, 900), address(PBX), seconds(84));
    assert_eq!(line.far_address(), Some(address(PBX)));
    let short = SrtpKeys { suite: Suite::AeadAes256Gcm, ..shielded(3).0 };
    let refused = line.set_far(pcmu(true, true), &FarPath { keys: Some(short), ..path(PBX) }, seconds(85));
    assert_eq!(refused, Err(MediaError::Keys));
}

#[test]
fn reports_on_the_rtp_port_are_heard_and_answered_there_and_elsewhere_on_the_port_above() {
    for mux in [true, false] {
        let mut line = line(true, true);
        line.set_far(pcmu(true, true), &FarPath { rtcp_mux: mux, ..path(PBX) }, Tick::ZERO).unwrap();
        let learned = address("192.0.2.10:33000");
        line.from_far(&sound(1), learned, Tick::ZERO);
        let (mut out, mut report) = (Outgoing::default(), heapless::Vec::new());
        let mut sent = Vec::new();
        for n in 0..400u64 {
            let now = Tick::from_millis(20 * n);
            line.tick(now, &mut out);
            sent.extend(line.rtcp_due(now, n, &mut report));
        }
        let expected = if mux {
            ReportTo { address: learned, by_rtp_port: true }
        } else {
            ReportTo { address: address("192.0.2.10:12001"), by_rtp_port: false }
        };
        assert_eq!(sent, [expected; 2]);
        // RR about our stream (SSRC 2): 40 lost in all; then SDES, and XR, which says nothing that we use.
        let receipt = [
            0x81, 201, 0, 7, 0, 0, 0, 9, 0, 0, 0, 2, 25, 0, 0, 40, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0x81, 202, 0, 2, 0, 0, 0, 9, 1, 1, b'a', 0, 0x80, 207, 0, 1, 0, 0, 0, 9,
        ];
        line.from_far(&receipt, learned, seconds(9));
        assert_eq!(line.far_reported_lost(), 40);
        assert_eq!(line.dropped(), Dropped::default());
    }
}
