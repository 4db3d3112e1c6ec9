//! Stories of a call's sound under a virtual clock: WhatsApp at one end, a PBX at the other.

use super::super::opus::peer::Phone;
use super::*;
use crate::media::ports::{DtmfFormat, Seeds};
use crate::media::rtcp::{self, Report, Sent};
use crate::media::rtp::{self, NotRtp, Packet};
use crate::media::tap::{Said, Slice};
use crate::media::{FRAME, g711};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::vec::Vec;

#[path = "bridge_agent_tests.rs"]
mod agent;
#[path = "bridge_alone_tests.rs"]
mod alone;
#[path = "bridge_codec_tests.rs"]
mod codec;
#[path = "bridge_digit_tests.rs"]
mod digit;
#[path = "bridge_hold_tests.rs"]
mod hold;
#[path = "bridge_sound_tests.rs"]
mod sound;
#[path = "bridge_tape_tests.rs"]
mod tape;

const OPUS_PT: u8 = 111;
const DTMF_PT: u8 = 126;

fn settings() -> BridgeSettings {
    BridgeSettings {
        opus_pt: OPUS_PT,
        user_dtmf_pt: Some(DTMF_PT),
        jitter_ms: 60,
        complexity: 5,
        bitrate: 20_000,
        seeds: Seeds {
            user_ssrc: 0x1111_1111,
            user_seq: 65_500,
            user_timestamp: u32::MAX - 5_000,
            far_ssrc: 0x2222_2222,
            far_seq: 65_530,
            far_timestamp: u32::MAX - 1_000,
        },
    }
}

const PCMU: FarMedia = FarMedia {
    codec: Codec::Pcmu,
    pt: 0,
    dtmf: Some(EVENTS),
    comfort_noise: Some(13),
    sends: true,
    speaks: true,
    digits_told: false,
};
const EVENTS: DtmfFormat = DtmfFormat { pt: 101, clock: 8_000 };

/// A sine wave.
fn tone(hertz: f64, level: f64, at: u64, rate: u64) -> i16 {
    (level * (at as f64 * hertz * std::f64::consts::TAU / rate as f64).sin()) as i16
}

/// The frequency of a clean tone, from its rising zero crossings.
fn frequency(sound: &[i16], rate: f64) -> f64 {
    let mut crossings = Vec::new();
    for at in 1..sound.len() {
        let (before, after) = (f64::from(sound[at - 1]), f64::from(sound[at]));
        if before < 0.0 && after >= 0.0 {
            crossings.push(at as f64 - after / (after - before));
        }
    }
    let periods = crossings.len().saturating_sub(1) as f64;
    periods * rate / (crossings[crossings.len() - 1] - crossings[0])
}

fn rms(sound: &[i16]) -> f64 {
    (sound.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / sound.len() as f64).sqrt()
}

fn decibel(ratio: f64) -> f64 {
    20.0 * ratio.log10()
}

/// A call: the bridge, both ends, and all that left it.
struct Story {
    bridge: Box<Bridge>,
    now: Tick,
    out: Outgoing,
    user_frames: Vec<UserFrame>,
    far_datagrams: Vec<Vec<u8>>,
    slices: Vec<Slice>,
    user_sequence: u16,
    user_timestamp: u32,
    far_sequence: u16,
    far_timestamp: u32,
    far_ssrc: u32,
}

impl Story {
    fn new() -> Story {
        Story::with(settings())
    }

    fn with(settings: BridgeSettings) -> Story {
        Story {
            bridge: Box::new(Bridge::new(settings).unwrap()),
            now: Tick::from_millis(5_000),
            out: Outgoing::default(),
            user_frames: Vec::new(),
            far_datagrams: Vec::new(),
            slices: Vec::new(),
            user_sequence: 65_000,
            user_timestamp: 77,
            far_sequence: 3,
            far_timestamp: u32::MAX - 2_000,
            far_ssrc: 0xABCD,
        }
    }

    fn talking() -> Story {
        let mut story = Story::new();
        story.bridge.set_far(PCMU).unwrap();
        story.bridge.open_gate();
        story
    }

    fn user_says(&mut self, payload: &[u8], units: u32) {
        let packet = UserPacket {
            ssrc: 9,
            payload_type: OPUS_PT,
            marker: false,
            sequence: self.user_sequence,
            timestamp: self.user_timestamp,
            payload,
        };
        self.bridge.from_user(&packet, self.now);
        self.user_skips(units);
    }

    fn user_skips(&mut self, units: u32) {
        self.user_sequence = self.user_sequence.wrapping_add(1);
        self.user_timestamp = self.user_timestamp.wrapping_add(units);
    }

    fn user_presses(&mut self, event: Event, marker: bool, timestamp: u32) {
        let payload = event.write();
        let packet = UserPacket {
            ssrc: 9,
            payload_type: DTMF_PT,
            marker,
            sequence: self.user_sequence,
            timestamp,
            payload: &payload,
        };
        self.bridge.from_user(&packet, self.now);
        self.user_skips(960);
    }

    fn far_says(&mut self, payload_type: u8, payload: &[u8]) {
        self.far_says_for(payload_type, payload, payload.len() as u32);
    }

    fn far_skips(&mut self, units: u32) {
        self.far_sequence = self.far_sequence.wrapping_add(1);
        self.far_timestamp = self.far_timestamp.wrapping_add(units);
    }

    fn far_says_for(&mut self, payload_type: u8, payload: &[u8], units: u32) {
        let packet = Packet {
            ssrc: self.far_ssrc,
            payload_type,
            marker: false,
            sequence: self.far_sequence,
            timestamp: self.far_timestamp,
            payload,
        };
        let datagram: heapless::Vec<u8, 600> = rtp::write(&packet).unwrap();
        self.bridge.from_far(&datagram, self.now).unwrap();
        self.far_skips(units);
    }

    fn far_says_tone(&mut self, law: Codec, hertz: f64, samples: u64) {
        let begin = u64::from(self.far_timestamp.wrapping_sub(u32::MAX - 2_000));
        let pcm: Vec<i16> = (begin..begin + samples).map(|at| tone(hertz, 8_000.0, at, 8_000)).collect();
        let mut payload = vec![0; pcm.len()];
        match law {
            Codec::Pcmu => g711::encode(&pcm, &mut payload, g711::to_pcmu),
            Codec::Pcma => g711::encode(&pcm, &mut payload, g711::to_pcma),
            Codec::G722 | Codec::Opus => panic!("no G.711"),
        }
        self.far_says(if law == Codec::Pcmu { 0 } else { 8 }, &payload);
    }

    fn tick(&mut self) {
        self.bridge.tick(self.now, &mut self.out);
        self.user_frames.extend(self.out.to_user.take());
        self.far_datagrams.extend(self.out.to_far.iter().map(|datagram| datagram.to_vec()));
        self.slices.extend(self.out.tapped.take());
        self.now += TICK;
    }

    fn far_packets(&self) -> Vec<Packet<'_>> {
        self.far_datagrams.iter().map(|datagram| rtp::read(datagram).unwrap()).collect()
    }

    /// What the phone hears, at 48 kHz.
    fn heard_by_user(&self) -> Vec<i16> {
        let mut phone = Phone::new(false);
        self.user_frames.iter().flat_map(|frame| phone.hear(&frame.payload)).collect()
    }

    /// What the PBX hears, at 8 kHz, from audio packets alone.
    fn heard_by_far(&self) -> Vec<i16> {
        let sounds = self.far_packets().into_iter().filter(|packet| packet.payload.len() == FRAME);
        sounds
            .flat_map(|packet| packet.payload.iter().map(|code| g711::from_pcmu(*code)).collect::<Vec<_>>())
            .collect()
    }

    /// The law of the bridge.
    fn assert_unbroken_towards_user(&self) {
        for (n, frame) in self.user_frames.iter().enumerate() {
            assert_eq!(frame.sequence, 65_500u16.wrapping_add(n as u16), "sequence of packet {n}");
            assert_eq!(frame.timestamp, (u32::MAX - 5_000).wrapping_add(960 * n as u32), "timestamp of {n}");
            assert_eq!(frame.payload_type, OPUS_PT);
            assert_eq!(frame.marker, n == 0);
            assert!(frame.payload.len() > 2, "packet {n} is DTX: {} bytes", frame.payload.len());
        }
    }
}

/// A phone that says a tone in packets of any length.
struct ToneSpeaker {
    phone: Phone,
    at: u64,
    hertz: f64,
}

impl ToneSpeaker {
    fn new(stereo: bool, hertz: f64) -> ToneSpeaker {
        ToneSpeaker { phone: Phone::new(stereo), at: 0, hertz }
    }

    fn next(&mut self, samples: u64) -> Vec<u8> {
        let pcm: Vec<i16> =
            (self.at..self.at + samples).map(|at| tone(self.hertz, 8_000.0, at, 48_000)).collect();
        self.at += samples;
        self.phone.say(&pcm)
    }
}

#[test]
fn the_sound_of_a_call_takes_less_than_seventy_kilobytes_beside_libopus() {
    let size = std::mem::size_of::<Bridge>();
    println!("{size} bytes");
    assert!(size < 70_000, "{size} bytes");
}

#[test]
fn before_the_gate_opens_nothing_leaves_and_nothing_waits() {
    let mut story = Story::new();
    story.bridge.set_far(PCMU).unwrap();
    let mut speaker = ToneSpeaker::new(false, 440.0);
    for _ in 0..100 {
        let packet = speaker.next(960);
        story.user_says(&packet, 960);
        story.far_says_tone(Codec::Pcmu, 440.0, 160);
        story.tick();
    }
    assert!(story.user_frames.is_empty() && story.far_datagrams.is_empty());
    assert_eq!(story.bridge.quality(HeardSide::User).received, 100);
    assert_eq!(story.bridge.quality(HeardSide::Far).received, 100);
    assert_eq!(story.bridge.last_heard(HeardSide::Far), Some(Tick::from_millis(5_000 + 99 * 20)));
    story.bridge.open_gate();
    for _ in 0..3 {
        story.tick();
    }
    // All of what was said before is gone: there is only comfort noise.
    assert!(rms(&story.heard_by_far()) < 20.0);
    assert!(rms(&story.heard_by_user()) < 40.0);
}

#[test]
fn with_nobody_there_whatsapp_hears_an_open_line_on_every_tick() {
    let mut story = Story::new();
    story.bridge.open_gate();
    for _ in 0..500 {
        story.tick();
    }
    assert_eq!(story.user_frames.len(), 500);
    assert!(story.far_datagrams.is_empty(), "nobody to send to");
    story.assert_unbroken_towards_user();
    let sound = story.heard_by_user();
    let level = decibel(rms(&sound[48_000..]) / 32_768.0);
    assert!((-85.0..-60.0).contains(&level), "{level:.1} dBFS");
}

#[test]
fn the_pbx_gets_a_stream_before_whatsapp_has_said_anything() {
    let mut story = Story::talking();
    for _ in 0..50 {
        story.tick();
    }
    let packets = story.far_packets();
    assert_eq!(packets.len(), 50);
    for (n, packet) in packets.iter().enumerate() {
        assert_eq!(packet.sequence, 65_530u16.wrapping_add(n as u16));
        assert_eq!(packet.timestamp, (u32::MAX - 1_000).wrapping_add(160 * n as u32));
        assert_eq!((packet.ssrc, packet.payload_type, packet.payload.len()), (0x2222_2222, 0, 160));
        assert_eq!(packet.marker, n == 0);
    }
}

#[test]
fn a_digit_takes_the_place_of_sound_on_the_same_line_of_sequence_numbers() {
    let mut story = Story::talking();
    let mut speaker = ToneSpeaker::new(false, 440.0);
    let mut say = |story: &mut Story, frames: usize| {
        for _ in 0..frames {
            let packet = speaker.next(960);
            story.user_says(&packet, 960);
            story.tick();
        }
    };
    say(&mut story, 50);
    let begun = story.user_timestamp;
    for n in 1..=10u16 {
        let event = Event { code: 8, end: n == 10, volume: 7, duration: n * 160 };
        story.user_presses(event, n == 1, begun);
        story.tick();
    }
    say(&mut story, 50);
    let packets = story.far_packets();
    for (n, packet) in packets.iter().enumerate() {
        assert_eq!(packet.sequence, 65_530u16.wrapping_add(n as u16), "one line, no hole");
        assert_eq!(packet.ssrc, 0x2222_2222);
    }
    assert_eq!(packets.len(), 110, "one packet on each tick");
    let events: Vec<&Packet<'_>> = packets.iter().filter(|packet| packet.payload_type == 101).collect();
    assert_eq!(events.len(), 12, "nine updates and three ends");
    assert!(events[0].marker && events[1..].iter().all(|packet| !packet.marker));
    let first = packets.iter().position(|packet| packet.payload_type == 101).unwrap();
    assert!(events.iter().all(|event| event.timestamp == packets[first - 1].timestamp.wrapping_add(160)));
    let last = Event::read(events[11].payload).unwrap();
    assert_eq!(last, Event { code: 8, end: true, volume: 7, duration: 1_600 });
    let resumed = packets[first + 12];
    assert_eq!((resumed.payload_type, resumed.marker), (0, false));
    assert_eq!(resumed.timestamp, events[0].timestamp.wrapping_add(12 * 160), "time went on");
    assert_eq!(story.bridge.digits_heard(), 1);
    assert_eq!(story.bridge.quality(HeardSide::User).lost, 0);
    assert_eq!(story.bridge.quality(HeardSide::User).concealed, 0, "a digit is not a loss");
}

#[test]
fn a_pbx_without_telephone_events_is_sent_sound_only() {
    let mut story = Story::talking();
    story.bridge.set_far(FarMedia { dtmf: None, ..PCMU }).unwrap();
    story.user_presses(Event { code: 1, end: true, volume: 0, duration: 800 }, true, 0);
    story.tick();
    assert_eq!(story.far_packets()[0].payload_type, 0);
    assert_eq!(story.bridge.digits_heard(), 1);
}

#[test]
fn on_hold_the_pbx_hears_nothing_and_whatsapp_an_open_line() {
    let mut story = Story::talking();
    for _ in 0..50 {
        story.far_says_tone(Codec::Pcmu, 440.0, 160);
        story.tick();
    }
    story.bridge.set_far(FarMedia { sends: false, ..PCMU }).unwrap();
    for _ in 0..2_000 {
        story.tick();
    }
    assert_eq!(story.far_datagrams.len(), 50);
    story.bridge.set_far(PCMU).unwrap();
    for _ in 0..50 {
        story.far_says_tone(Codec::Pcmu, 440.0, 160);
        story.tick();
    }
    story.assert_unbroken_towards_user();
    assert_eq!(story.user_frames.len(), 2_100);
    let packets = story.far_packets();
    assert_eq!(packets[50].sequence, packets[49].sequence.wrapping_add(1));
    assert_eq!(packets[50].timestamp, packets[49].timestamp.wrapping_add(2_001 * 160), "time went on");
    assert!(packets[50].marker);
}

#[test]
fn a_muted_pbx_is_an_open_line_not_a_dead_one() {
    for (payload_type, code) in [(0, g711::SILENCE_PCMU), (8, g711::SILENCE_PCMA), (13, 60)] {
        let mut story = Story::talking();
        for _ in 0..200 {
            if payload_type == 13 {
                story.far_says(13, &[code]);
                story.far_timestamp = story.far_timestamp.wrapping_add(159);
            } else {
                story.far_says(payload_type, &[code; 160]);
            }
            story.tick();
        }
        story.assert_unbroken_towards_user();
        let level = decibel(rms(&story.heard_by_user()[48_000..]) / 32_768.0);
        assert!((-85.0..-60.0).contains(&level), "payload type {payload_type}: {level:.1} dBFS");
    }
}

#[test]
fn a_caller_who_is_late_catches_up_tick_by_tick() {
    let mut story = Story::talking();
    for _ in 0..20 {
        story.tick();
    }
    let late = story.now + Duration::from_millis(100);
    for _ in 0..6 {
        story.now = late;
        story.tick();
    }
    story.assert_unbroken_towards_user();
    assert_eq!(story.user_frames.len(), 26);
}

#[test]
fn after_a_stall_the_timestamps_tell_the_time_that_passed() {
    let mut story = Story::talking();
    for _ in 0..20 {
        story.tick();
    }
    story.now += Duration::from_millis(1_000);
    for _ in 0..20 {
        story.tick();
    }
    let (before, after) = (&story.user_frames[19], &story.user_frames[20]);
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(after.timestamp, before.timestamp.wrapping_add(960 * 51));
    assert_eq!(story.user_frames[39].timestamp, after.timestamp.wrapping_add(960 * 19));
    let packets = story.far_packets();
    assert_eq!(packets[20].timestamp, packets[19].timestamp.wrapping_add(160 * 51));
}

#[test]
fn a_change_of_codec_by_re_invite_changes_what_is_sent() {
    let mut story = Story::talking();
    story.tick();
    story.bridge.set_far(FarMedia { codec: Codec::Pcma, pt: 8, dtmf: None, ..PCMU }).unwrap();
    for _ in 0..50 {
        story.far_says_tone(Codec::Pcma, 440.0, 160);
        story.tick();
    }
    let packets = story.far_packets();
    assert_eq!((packets[0].payload_type, packets[1].payload_type), (0, 8));
    assert!(!packets[1].marker);
    assert!((frequency(&story.heard_by_user()[9_600..], 48_000.0) - 440.0).abs() < 4.4);
}

#[test]
fn a_report_goes_to_the_pbx_every_five_seconds() {
    let mut story = Story::talking();
    let mut reports: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
    let mut out = heapless::Vec::new();
    for n in 0..1_000u64 {
        if n % 10 != 9 {
            story.far_says_tone(Codec::Pcmu, 440.0, 160);
        } else {
            story.far_sequence = story.far_sequence.wrapping_add(1);
            story.far_timestamp = story.far_timestamp.wrapping_add(160);
        }
        story.tick();
        if story.bridge.rtcp_due(story.now, story.now.0 << 12, &mut out) {
            reports.push_back((n * 20, out.to_vec()));
        }
    }
    let at: Vec<u64> = reports.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [2_500, 7_500, 12_500, 17_500]);
    let (_, report) = &reports[1];
    let said = rtcp::read(report).unwrap();
    assert!(matches!(said[0], Report::Sender { ssrc: 0x2222_2222, .. }));
    let Report::Receipt { about, fraction, .. } = said[1] else { panic!("{said:?}") };
    assert_eq!((about, fraction), (0xABCD, 25), "a tenth is lost");
    let packets = u32::from_be_bytes(report[20..24].try_into().unwrap());
    let octets = u32::from_be_bytes(report[24..28].try_into().unwrap());
    assert_eq!((packets, octets), (376, 376 * 160));
    // On hold nothing is sent: a receiver report says so.
    story.bridge.set_far(FarMedia { sends: false, ..PCMU }).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..600 {
        story.tick();
        if story.bridge.rtcp_due(story.now, 0, &mut out) {
            kinds.push(out[1]);
        }
    }
    assert_eq!(kinds, [200, 201]);
}

#[test]
fn a_report_answers_the_one_of_the_pbx_and_measures_the_way() {
    let mut story = Story::talking();
    let mut out = heapless::Vec::new();
    let mut ours = None;
    while ours.is_none() {
        story.far_says_tone(Codec::Pcmu, 440.0, 160);
        story.tick();
        if story.bridge.rtcp_due(story.now, 0xAAAA_BBBB_CCCC_DDDD, &mut out) {
            ours = Some(out.to_vec());
        }
    }
    // The PBX answers 100 ms later that it held our report for 40 ms.
    story.now += Duration::from_millis(100);
    let receipt = quality::Receipt { ssrc: 0x2222_2222, fraction: 0, lost: 0, highest: 0, jitter: 0 };
    let sent = Sent { ntp: 0x0000_1234_5678_0000, timestamp: 0, packets: 1, octets: 1 };
    let mut theirs: heapless::Vec<u8, 256> = heapless::Vec::new();
    let held = 40 * 65_536 / 1_000;
    rtcp::write(0xABCD, Some(sent), Some(receipt), Some((0xBBBB_CCCC, held)), "pbx", &mut theirs).unwrap();
    story.bridge.far_rtcp(&theirs, story.now).unwrap();
    let way = story.bridge.sending.round_trip().unwrap().as_millis();
    assert!((59..=61).contains(&way), "{way} ms");
    story.now += Duration::from_secs(5);
    assert!(story.bridge.rtcp_due(story.now, 0, &mut out));
    let report = rtcp::read(&out).unwrap();
    let Report::Receipt { last_report, delay, .. } = report[0] else { panic!("{report:?}") };
    assert_eq!((last_report, delay), (0x1234_5678, 5 * 65_536));
}

#[test]
fn rtcp_on_the_media_port_is_understood_and_noise_is_refused() {
    let mut story = Story::talking();
    assert_eq!(story.bridge.from_far(&[0x80, 201, 0, 1, 0, 0, 0, 9], story.now), Ok(()));
    assert_eq!(story.bridge.from_far(b"hello, this is not RTP", story.now), Err(NotRtp::Version(1)));
    assert_eq!(story.bridge.last_heard(HeardSide::Far), None);
    assert_eq!(story.bridge.quality(HeardSide::Far), Quality { mos: 0.0, ..Quality::default() });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_from_anywhere_never_breaks_the_law(
        packets in proptest::collection::vec(
            (0u8..8, proptest::collection::vec(any::<u8>(), 0..300),
             prop_oneof![0u16..40, any::<u16>()], prop_oneof![0u32..40_000, any::<u32>()], 0u32..2),
            1..120),
    ) {
        let mut story = Story::talking();
        for (kind, bytes, sequence, timestamp, ssrc) in packets {
            let payload_type = bytes.first().copied().unwrap_or(0) & 0x7F;
            let now = story.now;
            match kind {
                0..=2 => {
                    let payload_type = if kind == 0 { OPUS_PT } else if kind == 1 { DTMF_PT } else { payload_type };
                    let marker = bytes.len() % 2 == 0;
                    let packet = UserPacket { ssrc, payload_type, marker, sequence, timestamp, payload: &bytes };
                    story.bridge.from_user(&packet, now);
                }
                3 => { let _ = story.bridge.from_far(&bytes, now); }
                4..=5 => {
                    let payload_type = if kind == 4 { 0 } else { payload_type };
                    let packet = Packet { ssrc, payload_type, marker: false, sequence, timestamp, payload: &bytes };
                    if let Some(datagram) = rtp::write::<600>(&packet) {
                        let _ = story.bridge.from_far(&datagram, now);
                    }
                }
                6 => { let _ = story.bridge.far_rtcp(&bytes, now); }
                _ => {
                    story.bridge.user_loss(payload_type);
                    let mut report = bytes.clone();
                    if report.len() > 8 {
                        let words = (report.len() / 4 - 1) as u16;
                        report.truncate(report.len() / 4 * 4);
                        report[0] = 0x80 | (report[0] & 31);
                        report[1] = 200 + report[1] % 5;
                        report[2..4].copy_from_slice(&words.to_be_bytes());
                    }
                    let _ = story.bridge.far_rtcp(&report, now);
                }
            }
            story.tick();
        }
        let (user, far) = (story.user_frames.len(), story.far_datagrams.len());
        prop_assert_eq!(user, far, "one packet each way on every tick");
        story.assert_unbroken_towards_user();
        for side in [HeardSide::User, HeardSide::Far] {
            let quality = story.bridge.quality(side);
            prop_assert!(quality.mos <= 4.5 && quality.jitter_ms.is_finite());
        }
    }
}
