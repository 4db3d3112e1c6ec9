//! The sound of a call, both sides sending anything: whatever happens, one packet leaves for WhatsApp on every tick.
//!
//! An input is a list of steps: one octet that says what, then its arguments, and where there are octets to be carried,
//! their number before them. The first octet says which codec and which SRTP.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use watrunk::clock::Tick;
use watrunk::media::rtp;
use watrunk::media::srtp::{MasterKey, Shield, SrtpKeys, Suite};
use watrunk::media::{
    Alone, Bridge, BridgeSettings, Codec, DATAGRAM, DtmfFormat, FarMedia, HeardSide, Outgoing, Seeds,
    UserPacket,
};

const CODECS: [(Codec, u8); 4] = [(Codec::Pcma, 8), (Codec::Pcmu, 0), (Codec::G722, 9), (Codec::Opus, 96)];
const SUITES: [Suite; 4] =
    [Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm];
/// Steps of the longest input.
const STEPS: usize = 120;

struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn octets(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet()).min(self.0.len());
        let (octets, rest) = self.0.split_at(length);
        self.0 = rest;
        octets
    }
}

struct Play {
    bridge: Bridge,
    /// Ours and the PBX's, if the sound is encrypted.
    shields: Option<(Shield, Shield)>,
    now: Tick,
    out: Outgoing,
    /// Sequence number and timestamp of the last packet to WhatsApp.
    last: Option<(u16, u32)>,
    far: (u16, u32),
    user: (u16, u32),
}

fn far(choice: u8) -> FarMedia {
    let (codec, pt) = CODECS[usize::from(choice & 3)];
    FarMedia {
        codec,
        pt,
        dtmf: (choice & 4 == 0)
            .then_some(DtmfFormat { pt: 101, clock: if choice & 8 == 0 { 8_000 } else { codec.clock() } }),
        comfort_noise: (choice & 16 != 0).then_some(13),
        sends: choice & 32 == 0,
        speaks: choice & 64 == 0,
        digits_told: choice & 128 != 0,
    }
}

fn shields(choice: u8) -> Option<(Shield, Shield)> {
    let suite = *SUITES.get(usize::from(choice).checked_sub(1)?)?;
    let (key, salt) = suite.lengths();
    let ours = MasterKey::new(&[1; 46][..key + salt])?;
    let theirs = MasterKey::new(&[2; 46][..key + salt])?;
    let shield = Shield::new(&SrtpKeys { suite, ours: ours.clone(), theirs: theirs.clone() }).ok()?;
    Some((shield, Shield::new(&SrtpKeys { suite, ours: theirs, theirs: ours }).ok()?))
}

fn moved((sequence, timestamp): (u16, u32), steps: &mut Steps<'_>, frame: u32) -> (u16, u32) {
    // One packet on, or wherever the input wants to go.
    let by = steps.octet();
    let jump = if by >= 0xF0 {
        i16::from_be_bytes([steps.octet(), steps.octet()])
    } else {
        i16::from((by ^ 1) as i8)
    };
    let time = i32::from(jump).wrapping_mul(frame as i32);
    (sequence.wrapping_add(jump as u16), timestamp.wrapping_add(time as u32))
}

impl Play {
    fn new(choice: u8, srtp: u8) -> Option<Play> {
        let seeds = Seeds {
            user_ssrc: 1,
            user_seq: 65_530,
            user_timestamp: 4_294_960_000,
            far_ssrc: 2,
            far_seq: 32_760,
            far_timestamp: 4_294_960_000,
        };
        let settings = BridgeSettings {
            opus_pt: 111,
            user_dtmf_pt: (choice & 4 == 0).then_some(126),
            jitter_ms: 60,
            complexity: 0,
            bitrate: 20_000,
            seeds,
        };
        let mut bridge = Bridge::new(settings).ok()?;
        bridge.set_far(far(choice)).ok()?;
        bridge.open_gate();
        let now = Tick::from_millis(1_000_000);
        let out = Outgoing::default();
        let (far, user) = ((65_533, 4_294_966_000), (65_533, 4_294_966_000));
        Some(Play { bridge, shields: shields(srtp), now, out, last: None, far, user })
    }

    fn tick(&mut self) {
        self.now += Duration::from_millis(20);
        self.bridge.tick(self.now, &mut self.out);
        let frame = self.out.to_user.as_ref().expect("one packet leaves for WhatsApp on every tick");
        assert_eq!(frame.payload_type, 111);
        assert!(!frame.payload.is_empty(), "an empty packet");
        if let Some((sequence, timestamp)) = self.last {
            assert_eq!(frame.sequence, sequence.wrapping_add(1), "the numbers have a gap");
            assert_eq!(frame.timestamp, timestamp.wrapping_add(960), "the timestamps have a gap");
        }
        self.last = Some((frame.sequence, frame.timestamp));
        for datagram in &mut self.out.to_far {
            rtp::read(datagram).expect("what the PBX gets is RTP");
            if let Some((ours, theirs)) = &mut self.shields {
                assert!(ours.protect(datagram), "no room for the tag");
                theirs.unprotect(datagram).expect("the PBX can read it");
            }
        }
    }

    fn from_far(&mut self, datagram: &[u8]) {
        match &mut self.shields {
            None => drop(self.bridge.from_far(datagram, self.now)),
            Some((ours, _)) => {
                if let Some(clear) = ours.unprotect(datagram) {
                    let _ = self.bridge.from_far(&clear, self.now);
                }
            }
        }
    }

    fn far_rtcp(&mut self, datagram: &[u8]) {
        match &mut self.shields {
            None => drop(self.bridge.far_rtcp(datagram, self.now)),
            Some((ours, _)) => {
                if let Some(clear) = ours.unprotect_rtcp(datagram) {
                    let _ = self.bridge.far_rtcp(&clear, self.now);
                }
            }
        }
    }

    fn step(&mut self, steps: &mut Steps<'_>) {
        match steps.octet() % 16 {
            0 | 1 => (0..=steps.octet() % 8).for_each(|_| self.tick()),
            2 => self.from_far(steps.octets()),
            3..=5 => {
                let pt = steps.octet();
                let payload_type = [8, 0, 9, 96, 101, 13, 126, pt & 0x7F][usize::from(pt >> 5)];
                self.far = moved(self.far, steps, 160);
                let ((sequence_number, timestamp), payload) = (self.far, steps.octets());
                let mut datagram = heapless::Vec::<u8, DATAGRAM>::new();
                let first = [0x80, payload_type | (pt & 16) << 3];
                let _ = datagram.extend_from_slice(&first);
                let _ = datagram.extend_from_slice(&sequence_number.to_be_bytes());
                let _ = datagram.extend_from_slice(&timestamp.to_be_bytes());
                let _ = datagram.extend_from_slice(&u32::from(pt & 3).to_be_bytes());
                let _ = datagram.extend_from_slice(payload);
                if let Some((_, theirs)) = &mut self.shields {
                    let _ = theirs.protect(&mut datagram);
                }
                self.from_far(&datagram);
            }
            6 => {
                let mut datagram =
                    heapless::Vec::<u8, DATAGRAM>::from_slice(steps.octets()).unwrap_or_default();
                if let Some((_, theirs)) = self.shields.as_mut().filter(|_| datagram.len() >= 8) {
                    let _ = theirs.protect_rtcp(&mut datagram);
                }
                self.far_rtcp(&datagram);
            }
            7 => self.far_rtcp(steps.octets()),
            8..=10 => {
                let pt = steps.octet();
                self.user = moved(self.user, steps, 960);
                let packet = UserPacket {
                    ssrc: u32::from(pt & 3),
                    payload_type: [111, 126, 13, pt & 0x7F][usize::from(pt >> 6)],
                    marker: pt & 16 != 0,
                    sequence: self.user.0,
                    timestamp: self.user.1,
                    payload: steps.octets(),
                };
                self.bridge.from_user(&packet, self.now);
            }
            11 => self.bridge.user_loss(steps.octet()),
            12 => drop(self.bridge.set_far(far(steps.octet()))),
            13 => self.bridge.alone(if steps.octet() & 1 == 0 { Alone::Silence } else { Alone::RingBack }),
            14 => {
                let rate = [8_000, 16_000, 24_000, 48_000][usize::from(steps.octet() & 3)];
                let _ = self.bridge.set_agent(rate);
                let _ = self.bridge.agent_says(&vec![1_000; rate as usize / 50]);
            }
            _ => {
                let mut report = heapless::Vec::new();
                if self.bridge.rtcp_due(self.now, self.now.0 << 20, &mut report) {
                    assert!(rtp::is_rtcp(&report), "a report is RTCP");
                }
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut steps = Steps(data);
    let Some(mut play) = Play::new(steps.octet(), steps.octet() % 8) else { return };
    for _ in 0..STEPS {
        if steps.0.is_empty() {
            break;
        }
        play.step(&mut steps);
    }
    (0..4).for_each(|_| play.tick());
    for side in [HeardSide::User, HeardSide::Far] {
        let _ = (play.bridge.quality(side), play.bridge.last_heard(side));
    }
    let _ = play.bridge.digits_heard();
});
