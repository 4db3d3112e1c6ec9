//! The sound of one call: the bridge, whom it listens to, and when silence has lasted too long.
//!
//! Driven by a sound thread, apart from signalling: packets in, a tick every 20 ms, packets out.

use std::net::SocketAddr;
use std::time::Duration;

use crate::call::record::Quality;
use crate::clock::Tick;
use crate::media::{Alone, Bridge, BridgeSettings, FarMedia, HeardSide, MediaError, Outgoing, UserPacket};

/// Meta cuts a leg that is silent for this long, and so do we.
const USER_SILENCE: Duration = Duration::from_secs(30);

/// What a tick found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Nothing from WhatsApp for 30 s.
    User,
    /// Nothing from the PBX for the configured time.
    Far,
}

/// Datagrams that were not for this call, or no sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// From a host that was not negotiated, or from a second port of it.
    pub strangers: u64,
    /// Neither RTP nor RTCP.
    pub not_rtp: u64,
}

/// Where the PBX's sound comes from and goes to.
#[derive(Debug, Clone, Copy)]
struct Far {
    negotiated: SocketAddr,
    /// The address that packets really come from: another port of the same host is believed once.
    learned: Option<SocketAddr>,
    rtcp: SocketAddr,
    /// Whether the PBX has said that it sends: only then is its silence a fault.
    speaks: bool,
}

/// One call's sound.
pub struct Line {
    bridge: Box<Bridge>,
    far: Option<Far>,
    /// Where the far end before this one sent from: what still comes from there is not heard.
    left: Option<Far>,
    far_silence: Option<Duration>,
    gate: Option<Tick>,
    user_alive: Tick,
    far_alive: Tick,
    silent: bool,
    dropped: Dropped,
}

impl Line {
    /// A line that hears but says nothing yet. `far_silence`: how long the PBX may be silent.
    ///
    /// # Errors
    /// When libopus refuses the settings.
    pub fn new(
        settings: BridgeSettings,
        far_silence: Option<Duration>,
        now: Tick,
    ) -> Result<Line, MediaError> {
        Ok(Line {
            bridge: Box::new(Bridge::new(settings)?),
            far: None,
            left: None,
            far_silence,
            gate: None,
            user_alive: now,
            far_alive: now,
            silent: false,
            dropped: Dropped::default(),
        })
    }

    /// The PBX has said where and how it talks; again on every re-INVITE. `speaks`: it sends at all.
    pub fn set_far(&mut self, media: FarMedia, speaks: bool, rtp: SocketAddr, rtcp: SocketAddr, now: Tick) {
        self.bridge.set_far(media);
        let learned = self.far.filter(|far| far.negotiated == rtp).and_then(|far| far.learned);
        self.left = self.left.filter(|left| left.negotiated != rtp);
        self.far = Some(Far { negotiated: rtp, learned, rtcp, speaks });
        self.far_alive = now;
    }

    /// There is no far end for now: the user hears this until the next [`Line::set_far`]. Nothing is sent to
    /// the PBX, nothing of it is heard, and its silence is no fault.
    pub fn alone(&mut self, heard: Alone, now: Tick) {
        self.bridge.alone(heard);
        self.left = self.far.take().or(self.left);
        self.far_alive = now;
    }

    /// The far end is an agent that speaks linear sound at this rate, in Hz: what it hears is in
    /// [`Outgoing::to_agent`] and [`Outgoing::digit`] after each tick. Nothing is sent to the PBX and nothing of it is
    /// heard; whether the agent is too silent is not judged here.
    ///
    /// # Errors
    /// When Opus is not spoken at that rate, or libopus refuses: the far end is as it was.
    pub fn set_agent(&mut self, rate: u32, now: Tick) -> Result<(), MediaError> {
        self.bridge.set_agent(rate)?;
        self.left = self.far.take().or(self.left);
        self.far_alive = now;
        Ok(())
    }

    /// What the agent says in the next tick: 20 ms at its rate. False if it was not taken.
    pub fn agent_says(&mut self, frame: &[i16]) -> bool {
        self.bridge.agent_says(frame)
    }

    /// Meta has confirmed the answer: from now on something leaves for WhatsApp on every tick.
    pub fn open_gate(&mut self, now: Tick) {
        if self.gate.is_none() {
            self.gate = Some(now);
            self.user_alive = now;
            self.far_alive = now;
            self.bridge.open_gate();
        }
    }

    /// A user who is being called has not answered yet: comfort noise keeps the path warm, and nobody's silence
    /// is judged.
    pub fn warm(&mut self) {
        self.bridge.open_gate();
    }

    /// One packet from WhatsApp, decrypted.
    pub fn from_user(&mut self, packet: &UserPacket<'_>, now: Tick) {
        self.user_alive = now;
        self.bridge.from_user(packet, now);
    }

    /// RTP or RTCP came from WhatsApp, whatever it was.
    pub fn user_lives(&mut self, now: Tick) {
        self.user_alive = now;
    }

    /// One datagram on the RTP port. Only the negotiated host is heard (symmetric RTP, RFC 4961); anything
    /// else is counted.
    pub fn from_far(&mut self, datagram: &[u8], from: SocketAddr, now: Tick) {
        let Some(far) = &mut self.far else { return };
        let other_port = from != far.negotiated && far.learned.is_some_and(|learned| learned != from);
        let left = self.left.is_some_and(|left| from == left.learned.unwrap_or(left.negotiated));
        if from.ip() != far.negotiated.ip() || other_port || left {
            self.dropped.strangers += 1;
            return;
        }
        match self.bridge.from_far(datagram, now) {
            Ok(()) => {
                far.learned = Some(from);
                self.far_alive = now;
            }
            Err(_) => self.dropped.not_rtp += 1,
        }
    }

    /// One datagram on the RTCP port.
    pub fn far_rtcp(&mut self, datagram: &[u8], from: SocketAddr, now: Tick) {
        let Some(far) = &self.far else { return };
        if from.ip() != far.rtcp.ip() {
            self.dropped.strangers += 1;
            return;
        }
        match self.bridge.far_rtcp(datagram, now) {
            Ok(()) => self.far_alive = now,
            Err(_) => self.dropped.not_rtp += 1,
        }
    }

    /// What was not let in.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// The loss that WhatsApp reports, in 1/256.
    pub fn user_loss(&mut self, fraction: u8) {
        self.bridge.user_loss(fraction);
    }

    /// Every 20 ms. What is to be sent is in `out`; a silence that has lasted too long is told once.
    pub fn tick(&mut self, now: Tick, out: &mut Outgoing) -> Option<Silence> {
        self.bridge.tick(now, out);
        self.gate?;
        if self.silent {
            return None;
        }
        let silence = if now - self.user_alive >= USER_SILENCE {
            Silence::User
        } else if self.far.is_some_and(|far| far.speaks)
            && self.far_silence.is_some_and(|limit| now - self.far_alive >= limit)
        {
            Silence::Far
        } else {
            return None;
        };
        self.silent = true;
        Some(silence)
    }

    /// Whether a report for the PBX is due; it is in `out` then.
    pub fn rtcp_due(&mut self, now: Tick, ntp: u64, out: &mut heapless::Vec<u8, 256>) -> Option<SocketAddr> {
        let far = self.far?;
        self.gate?;
        self.bridge.rtcp_due(now, ntp, out).then_some(far.rtcp)
    }

    /// Where sound for the PBX goes: where its own comes from, else where it said.
    pub fn far_address(&self) -> Option<SocketAddr> {
        self.far.map(|far| far.learned.unwrap_or(far.negotiated))
    }

    /// What was heard from each side.
    pub fn quality(&self) -> (Quality, Quality) {
        let of = |side| {
            let heard = self.bridge.quality(side);
            Quality {
                received: heard.received,
                sent: heard.sent,
                lost: heard.lost,
                discarded: heard.discarded,
                concealed: heard.concealed,
                repaired: heard.repaired,
                jitter_ms: heard.jitter_ms,
                mos: heard.mos,
            }
        };
        (of(HeardSide::User), of(HeardSide::Far))
    }
}

#[cfg(test)]
mod tests {
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
        let (media, rtcp) = (
            FarMedia { law: Law::Pcmu, pt: 0, dtmf_pt: Some(101), sends: true },
            address("192.0.2.10:12101"),
        );
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
}
