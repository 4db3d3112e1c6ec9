//! Stories of a line: whom it listens to, where it sends, and when silence has lasted too long.

use super::*;
use crate::media::{Law, Seeds};

const PBX: &str = "192.0.2.10:12000";

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
    let mut line = Line::new(settings, Some(Duration::from_secs(60)), Tick::ZERO).unwrap();
    let media = FarMedia { law: Law::Pcmu, pt: 0, dtmf_pt: Some(101), sends };
    line.set_far(media, speaks, address(PBX), address("192.0.2.10:12001"), Tick::ZERO);
    line.open_gate(Tick::ZERO);
    line
}

fn rtp(sequence: u16) -> Vec<u8> {
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
    let mut line = line(false, false);
    for second in 0..300 {
        line.user_lives(seconds(second));
        assert_eq!(tick_until(&mut line, seconds(second), seconds(second + 1)), []);
    }
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
    line.from_far(&rtp(1), address("192.0.2.10:33000"), seconds(1));
    assert_eq!(line.far_address(), Some(address("192.0.2.10:33000")), "a PBX behind NAT");
    line.from_far(&rtp(2), address("192.0.2.10:44000"), seconds(1));
    assert_eq!(line.far_address(), Some(address("192.0.2.10:33000")));
    assert_eq!(line.dropped(), Dropped { strangers: 1, not_rtp: 0 });
}

#[test]
fn while_the_user_is_alone_nobody_else_is_heard_or_sent_to_and_the_silence_is_no_fault() {
    let mut line = line(true, true);
    line.from_far(&rtp(1), address(PBX), Tick::ZERO);
    line.alone(Alone::RingBack, Tick::ZERO);
    assert_eq!(line.far_address(), None);
    let mut out = Outgoing::default();
    for second in 0..200 {
        line.user_lives(seconds(second));
        line.from_far(&rtp(2), address(PBX), seconds(second));
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
    line.from_far(&rtp(1), address(PBX), Tick::ZERO);
    assert!(!line.agent_says(&[900; 320]), "there is no agent yet");
    assert_eq!(line.set_agent(11_025, Tick::ZERO), Err(MediaError::Rate { rate: 11_025 }));
    assert_eq!(line.far_address(), Some(address(PBX)), "and the far end is as it was");
    assert_eq!(line.set_agent(16_000, Tick::ZERO), Ok(()));
    assert_eq!(line.far_address(), None);
    let mut out = Outgoing::default();
    for second in 0..70 {
        line.user_lives(seconds(second));
        line.from_far(&rtp(2), address(PBX), seconds(second));
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
    let media = FarMedia { law: Law::Pcmu, pt: 0, dtmf_pt: Some(101), sends: true };
    line.set_far(media, true, address(PBX), address("192.0.2.10:12001"), seconds(110));
    line.from_far(&rtp(3), address(PBX), seconds(110));
    assert_eq!(line.far_address(), Some(address(PBX)));
    line.tick(seconds(110), &mut out);
    assert_eq!((out.to_far.len(), out.to_agent.len()), (1, 0));
}

#[test]
fn what_the_far_end_that_was_left_still_sends_is_not_taken_for_the_next_one() {
    let mut line = line(true, true);
    let (media, rtcp) =
        (FarMedia { law: Law::Pcmu, pt: 0, dtmf_pt: Some(101), sends: true }, address("192.0.2.10:12101"));
    let behind_nat = address("192.0.2.10:33000");
    line.from_far(&rtp(1), behind_nat, seconds(1));
    line.alone(Alone::Silence, seconds(1));
    // The same PBX, another phone.
    line.set_far(media, true, address("192.0.2.10:12100"), rtcp, seconds(2));
    line.from_far(&rtp(2), behind_nat, seconds(2));
    assert_eq!(line.far_address(), Some(address("192.0.2.10:12100")));
    assert_eq!(line.dropped(), Dropped { strangers: 1, not_rtp: 0 });
    // That one did not answer, and the first one takes the call back.
    line.alone(Alone::Silence, seconds(3));
    line.set_far(media, true, address(PBX), rtcp, seconds(4));
    line.from_far(&rtp(3), behind_nat, seconds(4));
    assert_eq!(line.far_address(), Some(behind_nat));
    assert_eq!(line.quality().1.received, 2);
}

#[test]
fn another_host_is_never_heard_and_noise_is_counted() {
    let mut line = line(true, true);
    line.from_far(&rtp(1), address("192.0.2.66:12000"), seconds(1));
    line.far_rtcp(&rtp(1), address("192.0.2.66:12001"), seconds(1));
    line.from_far(b"no RTP", address(PBX), seconds(1));
    line.far_rtcp(b"no RTCP", address("192.0.2.10:12001"), seconds(1));
    assert_eq!(line.dropped(), Dropped { strangers: 2, not_rtp: 2 });
    assert_eq!(line.far_address(), Some(address(PBX)));
    assert_eq!(line.quality().1.received, 0);
}
