//! Stories of every codec that a PBX may speak: tones in, measured out, both ways, and Opus that goes through.

use super::*;
use crate::media::g722;
use crate::media::opus::peer::voice;
use crate::media::packing;

const CODECS: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];
/// A payload type of Opus at the PBX that is not WhatsApp's.
const FAR_OPUS_PT: u8 = 107;

pub(super) fn media(codec: Codec) -> FarMedia {
    let (pt, clock) = match codec {
        Codec::Pcmu => (0, 8_000),
        Codec::Pcma => (8, 8_000),
        Codec::G722 => (9, 8_000),
        Codec::Opus => (FAR_OPUS_PT, 48_000),
    };
    FarMedia { codec, pt, dtmf: Some(DtmfFormat { pt: 101, clock }), ..PCMU }
}

fn talking(codec: Codec) -> Story {
    let mut story = Story::new();
    story.bridge.set_far(media(codec)).unwrap();
    story.bridge.open_gate();
    story
}

/// A phone behind the PBX that says something in packets of any length.
pub(super) struct FarSpeaker {
    codec: Codec,
    phone: Phone,
    wide: g722::Encoder,
    at: u64,
    sound: Box<dyn Fn(u64) -> i16>,
}

impl FarSpeaker {
    pub(super) fn new(codec: Codec, sound: impl Fn(u64) -> i16 + 'static) -> FarSpeaker {
        let (phone, wide) = (Phone::new(false), g722::Encoder::new());
        FarSpeaker { codec, phone, wide, at: 0, sound: Box::new(sound) }
    }

    pub(super) fn tone(codec: Codec, hertz: f64) -> FarSpeaker {
        FarSpeaker::new(codec, move |at| tone(hertz, 8_000.0, at, 48_000))
    }

    /// The next packet of so many ms, and its length on its clock.
    pub(super) fn packet(&mut self, ms: u64) -> (Vec<u8>, u32) {
        let begin = self.at;
        self.at += 48 * ms;
        let sampled =
            |every: usize| -> Vec<i16> { (begin..self.at).step_by(every).map(&self.sound).collect() };
        let mut coded = vec![0; 8 * ms as usize];
        match self.codec {
            Codec::Pcmu => g711::encode(&sampled(6), &mut coded, g711::to_pcmu),
            Codec::Pcma => g711::encode(&sampled(6), &mut coded, g711::to_pcma),
            Codec::G722 => {
                let sound = sampled(3);
                self.wide.encode(&sound, &mut coded);
            }
            // libopus makes no packet of 30 ms; three frames of 10 ms are one.
            Codec::Opus if ms == 30 => {
                let single: Vec<Vec<u8>> = sampled(1).chunks(480).map(|pcm| self.phone.say(pcm)).collect();
                assert!(single.iter().all(|packet| packet[0] == single[0][0]));
                let lengths = [(single[0].len() - 1) as u8, (single[1].len() - 1) as u8];
                coded = vec![single[0][0] | 3, 0x83, lengths[0], lengths[1]];
                single.iter().for_each(|packet| coded.extend(&packet[1..]));
            }
            Codec::Opus => coded = self.phone.say(&sampled(1)),
        }
        (coded, (u64::from(self.codec.clock()) * ms / 1_000) as u32)
    }

    pub(super) fn says(&mut self, story: &mut Story, ms: u64) {
        let (packet, units) = self.packet(ms);
        story.far_says_for(media(self.codec).pt, &packet, units);
    }
}

/// What the phone behind the PBX hears, and at which rate; a hole in the sequence is repaired or invented.
fn heard_by_far(story: &Story, codec: Codec) -> (Vec<i16>, u64) {
    let packets = story.far_packets().into_iter().filter(|packet| packet.payload_type == media(codec).pt);
    let (mut phone, mut wide) = (Phone::new(false), g722::Decoder::new());
    let mut sound = Vec::new();
    for packet in packets {
        match codec {
            Codec::Pcmu => sound.extend(packet.payload.iter().map(|code| g711::from_pcmu(*code))),
            Codec::Pcma => sound.extend(packet.payload.iter().map(|code| g711::from_pcma(*code))),
            Codec::G722 => {
                let mut pcm = [0; 320];
                assert_eq!(wide.decode(packet.payload, &mut pcm), 320);
                sound.extend(pcm);
            }
            Codec::Opus => sound.extend(phone.hear_all(packet.payload)),
        }
    }
    let rate = match codec {
        Codec::Pcmu | Codec::Pcma => 8_000,
        Codec::G722 => 16_000,
        Codec::Opus => 48_000,
    };
    (sound, rate)
}

fn assert_tone(sound: &[i16], rate: u64, hertz: f64, what: &str) {
    let pitch = frequency(sound, rate as f64);
    assert!((pitch - hertz).abs() < hertz / 100.0, "{what}: {pitch:.1} Hz");
    for (n, window) in sound.chunks_exact(rate as usize / 50).enumerate() {
        let off = decibel(rms(window) / (8_000.0 / 2f64.sqrt()));
        assert!(off.abs() < 3.0, "{what}: {off:.1} dB in frame {n}");
    }
}

#[test]
fn every_codec_carries_a_tone_both_ways_in_packets_of_10_to_60_ms() {
    for codec in CODECS {
        for ms in [10, 20, 30, 40, 60] {
            let what = format!("{codec:?} at {ms} ms");
            let mut story = talking(codec);
            let (mut far, mut user) = (FarSpeaker::tone(codec, 700.0), ToneSpeaker::new(false, 1_000.0));
            let mut said = 0;
            for n in 0..180 {
                let packet = user.next(960);
                story.user_says(&packet, 960);
                while said < (n + 1) * 20 {
                    far.says(&mut story, ms);
                    said += ms;
                }
                story.tick();
            }
            story.assert_unbroken_towards_user();
            assert_tone(&story.heard_by_user()[48_000..], 48_000, 700.0, &what);
            let (sound, rate) = heard_by_far(&story, codec);
            assert_tone(&sound[rate as usize..], rate, 1_000.0, &what);
            let step = codec.clock() / 50;
            for (n, packet) in story.far_packets().iter().enumerate() {
                assert_eq!(packet.sequence, 65_530u16.wrapping_add(n as u16), "{what}");
                assert_eq!(packet.timestamp, (u32::MAX - 1_000).wrapping_add(step * n as u32), "{what}");
                assert_eq!((packet.payload_type, packet.marker), (media(codec).pt, n == 0), "{what}");
            }
            assert_eq!(story.far_datagrams.len(), 180, "{what}: 20 ms are sent");
            let quality = story.bridge.quality(HeardSide::Far);
            assert_eq!((quality.concealed, quality.discarded, quality.lost), (0, 0, 0), "{what}");
        }
    }
}

#[test]
fn five_kilohertz_pass_with_g722_and_opus_and_not_with_g711() {
    for codec in CODECS {
        let mut story = talking(codec);
        let (mut far, mut user) = (FarSpeaker::tone(codec, 5_000.0), ToneSpeaker::new(false, 5_000.0));
        if codec == Codec::Pcmu || codec == Codec::Pcma {
            // What a telephone does before it samples at 8 kHz.
            far.sound = Box::new(|_| 0);
        }
        for _ in 0..150 {
            let packet = user.next(960);
            story.user_says(&packet, 960);
            far.says(&mut story, 20);
            story.tick();
        }
        let (far, rate) = heard_by_far(&story, codec);
        let user = story.heard_by_user();
        let levels = [(&far[rate as usize..], rate), (&user[48_000..], 48_000)];
        for (sound, rate) in levels {
            let level = decibel(rms(sound) / (8_000.0 / 2f64.sqrt()));
            println!("{codec:?}: {level:.1} dB at {rate} Hz");
            if codec == Codec::G722 || codec == Codec::Opus {
                assert_tone(sound, rate, 5_000.0, &format!("{codec:?}"));
            } else {
                assert!(level < -30.0, "{codec:?}: {level:.1} dB");
            }
        }
    }
}

#[test]
fn what_is_said_is_heard_within_the_jitter_buffers_time() {
    for codec in CODECS {
        let mut story = talking(codec);
        // Silence, and from the 50th tick on a tone.
        let begins = 50 * 960;
        let mut far =
            FarSpeaker::new(codec, move |at| if at < begins { 0 } else { tone(700.0, 8_000.0, at, 48_000) });
        let mut phone = Phone::new(false);
        for n in 0..100u64 {
            let sound = |at| if at < begins { 0 } else { tone(900.0, 8_000.0, at, 48_000) };
            let packet = phone.say(&(n * 960..(n + 1) * 960).map(sound).collect::<Vec<_>>());
            story.user_says(&packet, 960);
            far.says(&mut story, 20);
            story.tick();
        }
        let (at_far, rate) = heard_by_far(&story, codec);
        for (what, sound, rate) in [("user", story.heard_by_user(), 48_000), ("far", at_far, rate)] {
            let first = sound.iter().position(|sample| sample.unsigned_abs() > 2_000).unwrap() as u64;
            let delay = first as f64 * 1_000.0 / rate as f64 - 1_000.0;
            println!("{codec:?} to {what}: {delay:.1} ms");
            // 60 ms wait in the buffer, of which a tick is played at once; codecs add up to 10 ms each.
            assert!((35.0..75.0).contains(&delay), "{codec:?} to {what}: {delay:.1} ms");
        }
    }
}

#[test]
fn opus_goes_through_bit_for_bit_both_ways() {
    let mut story = talking(Codec::Opus);
    let mut far = FarSpeaker::new(Codec::Opus, voice);
    let mut phone = Phone::new(false);
    let (mut from_far, mut from_user) = (Vec::new(), Vec::new());
    for n in 0..300u64 {
        let packet = phone.say(&(n * 960..(n + 1) * 960).map(|at| voice(at + 7_777)).collect::<Vec<_>>());
        story.user_says(&packet, 960);
        from_user.push(packet);
        let (packet, units) = far.packet(20);
        story.far_says_for(FAR_OPUS_PT, &packet, units);
        from_far.push(packet);
        story.tick();
    }
    let repairs = from_far.iter().filter(|packet| opus::carries_repair(packet)).count();
    assert!(repairs > 50, "{repairs} packets with repair data");
    let to_user: Vec<&[u8]> = story.user_frames.iter().map(|frame| frame.payload.as_slice()).collect();
    assert!(to_user[2..] == from_far[..298], "towards WhatsApp, 40 ms later");
    let packets = story.far_packets();
    assert!(packets[2..].iter().map(|packet| packet.payload).eq(&from_user[..298]), "towards the PBX");
    story.assert_unbroken_towards_user();
}

/// The largest step between two samples.
fn steepest(sound: &[i16]) -> i32 {
    sound.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max().unwrap_or(0)
}

#[test]
fn pauses_of_the_pbx_are_filled_without_a_click_and_without_a_jump_of_the_level() {
    // Its phone sends nothing while its user is silent, or says so with an empty packet; background noise all along.
    for sends_empty in [false, true] {
        let mut story = talking(Codec::Opus);
        let noise = |at: u64| {
            let mixed = at.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((mixed >> 40) % 121) as i16 - 60
        };
        let speaks = |at: u64| !(100 * 960..400 * 960).contains(&at);
        let mut far =
            FarSpeaker::new(Codec::Opus, move |at| if speaks(at) { voice(at) } else { 0 } + noise(at));
        far.phone = Phone::new(false).dtx();
        let mut unsent = 0;
        for _ in 0..600 {
            let (packet, units) = far.packet(20);
            if packet.len() > 2 || sends_empty {
                story.far_says_for(FAR_OPUS_PT, &packet, units);
            } else {
                unsent += 1;
                story.far_timestamp = story.far_timestamp.wrapping_add(units);
            }
            story.tick();
        }
        assert!(sends_empty || unsent > 150, "{unsent}");
        story.assert_unbroken_towards_user();
        let sound = story.heard_by_user();
        // The pause is heard three ticks later; the encoder itself waits 200 ms before it stops sending.
        let pause = &sound[120 * 960..400 * 960];
        let levels: Vec<f64> = pause.chunks(960).map(|window| decibel(rms(window) / 32_768.0)).collect();
        let (least, most) =
            levels.iter().fold((0f64, -99f64), |(a, b), level| (a.min(*level), b.max(*level)));
        println!("pause: {least:.1} to {most:.1} dBFS, steepest {}", steepest(pause));
        assert!(least > -75.0 && most < -50.0, "{least:.1} to {most:.1} dBFS");
        let jump = levels.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max);
        assert!(jump < 8.0, "the level jumps by {jump:.1} dB");
        assert!(steepest(pause) < 500, "a click of {}", steepest(pause));
        assert!(rms(&sound[430 * 960..]) > 2_000.0, "speech is back");
        let quality = story.bridge.quality(HeardSide::Far);
        assert_eq!((quality.lost, quality.concealed, quality.discarded), (0, 0, 0), "{quality:?}");
    }
}

#[test]
fn a_pbx_that_stops_sending_opus_becomes_an_open_line_and_comes_back_without_a_click() {
    let mut story = talking(Codec::Opus);
    let mut far = FarSpeaker::tone(Codec::Opus, 400.0);
    for n in 0..400 {
        let (packet, units) = far.packet(20);
        if !(100..300).contains(&n) {
            story.far_says_for(FAR_OPUS_PT, &packet, units);
        } else {
            story.far_timestamp = story.far_timestamp.wrapping_add(units);
        }
        story.tick();
    }
    story.assert_unbroken_towards_user();
    let sound = story.heard_by_user();
    // A tone of 400 Hz and 8,000 has steps of 420 by itself.
    let clicks = steepest(&sound[48_000..]);
    println!("steepest {clicks}");
    assert!(clicks < 1_800, "a click of {clicks}");
    let level = |from: usize, to: usize| decibel(rms(&sound[from * 960..to * 960]) / 32_768.0);
    println!("{:.1} {:.1} {:.1}", level(115, 130), level(140, 290), level(310, 400));
    assert!((-85.0..-60.0).contains(&level(140, 290)), "an open line: {:.1} dBFS", level(140, 290));
    assert!((-18.0..-12.0).contains(&level(310, 400)), "{:.1} dBFS", level(310, 400));
}

#[test]
fn before_whatsapp_has_said_anything_and_while_it_is_silent_the_pbx_gets_a_stream_of_opus() {
    let mut story = talking(Codec::Opus);
    let mut user = ToneSpeaker::new(false, 440.0);
    for n in 0..300 {
        if (50..100).contains(&n) {
            let packet = user.next(960);
            story.user_says(&packet, 960);
        }
        story.tick();
    }
    assert_eq!(story.far_datagrams.len(), 300);
    let (sound, _) = heard_by_far(&story, Codec::Opus);
    assert_eq!(sound.len(), 300 * 960);
    assert!(rms(&sound[..50 * 960]) < 20.0);
    assert!(rms(&sound[60 * 960..100 * 960]) > 4_000.0);
    assert!(rms(&sound[150 * 960..]) < 60.0, "{}", rms(&sound[150 * 960..]));
}

#[test]
fn a_lost_packet_of_whatsapp_is_repaired_by_the_pbx_from_the_one_after_it() {
    let mut story = talking(Codec::Opus);
    let mut phone = Phone::new(false);
    let (mut repairable, mut lost) = (0, 0);
    let packets: Vec<Vec<u8>> =
        (0..500u64).map(|n| phone.say(&(n * 960..(n + 1) * 960).map(voice).collect::<Vec<_>>())).collect();
    for n in 0..500 {
        if n % 10 == 7 && n < 490 {
            lost += 1;
            repairable += usize::from(opus::carries_repair(&packets[n + 1]));
            story.user_skips(960);
        } else {
            story.user_says(&packets[n], 960);
        }
        story.tick();
    }
    let holes = |story: &Story| {
        let packets = story.far_packets();
        packets.windows(2).filter(|pair| pair[1].sequence.wrapping_sub(pair[0].sequence) == 2).count()
    };
    assert!(lost == 49 && repairable > 20, "{repairable} of {lost}");
    assert_eq!(holes(&story), repairable, "the others are frames that the PBX invents");
    for pair in story.far_packets().windows(2) {
        let (numbers, time) = (
            pair[1].sequence.wrapping_sub(pair[0].sequence),
            pair[1].timestamp.wrapping_sub(pair[0].timestamp),
        );
        assert_eq!(time, 960 * u32::from(numbers), "a hole is as long as what is missing");
        if numbers == 2 {
            assert!(opus::carries_repair(pair[1].payload));
        }
    }
    let quality = story.bridge.quality(HeardSide::User);
    assert_eq!(
        (quality.lost, quality.repaired, quality.concealed),
        (49, repairable as u64, 49 - repairable as u64)
    );
}

#[test]
fn loss_and_disorder_from_a_pbx_are_bridged_with_every_codec() {
    for codec in CODECS {
        let mut story = talking(codec);
        let mut far = FarSpeaker::tone(codec, 400.0);
        let mut late: Option<(Vec<u8>, u32, u16, u32)> = None;
        for n in 0..500 {
            let (packet, units) = far.packet(20);
            match n % 20 {
                10 => story.far_skips(units),
                // This one comes after the next one.
                15 => {
                    late = Some((packet, units, story.far_sequence, story.far_timestamp));
                    story.far_skips(units);
                }
                _ => story.far_says_for(media(codec).pt, &packet, units),
            }
            if n % 20 == 16
                && let Some((packet, units, sequence, timestamp)) = late.take()
            {
                let now = (story.far_sequence, story.far_timestamp);
                (story.far_sequence, story.far_timestamp) = (sequence, timestamp);
                story.far_says_for(media(codec).pt, &packet, units);
                (story.far_sequence, story.far_timestamp) = now;
            }
            story.tick();
        }
        story.assert_unbroken_towards_user();
        let quality = story.bridge.quality(HeardSide::Far);
        assert_eq!((quality.lost, quality.discarded), (25, 0), "{codec:?}: {quality:?}");
        let filled = quality.concealed + quality.repaired;
        assert!((23..=27).contains(&filled), "{codec:?}: {quality:?}");
        let sound = story.heard_by_user();
        let weakest = sound[48_000..].chunks(960).map(rms).fold(f64::MAX, f64::min);
        // In Opus the phone invents: 11 dB below the tone at worst.
        assert!(weakest > 1_500.0, "{codec:?}: a hole of {weakest:.0}");
    }
}

#[test]
fn a_pbx_whose_clock_is_off_is_followed_in_g722_and_opus() {
    for codec in [Codec::G722, Codec::Opus] {
        for (every, drift) in [(20_000u64 - 40, "fast"), (20_000 + 40, "slow")] {
            let mut story = talking(codec);
            let mut far = FarSpeaker::tone(codec, 400.0);
            let mut next = story.now;
            for _ in 0..3_000 {
                while next <= story.now {
                    far.says(&mut story, 20);
                    next += Duration::from_micros(every);
                }
                story.tick();
            }
            let counts = story.bridge.from_far.jitter.counts();
            let corrected = if drift == "fast" { counts.dropped } else { counts.inserted };
            // 2,000 ppm of a minute are six frames.
            assert!((4..=7).contains(&corrected), "{codec:?} {drift}: {counts:?}");
            assert!(counts.concealed <= 2 && counts.discarded() == 0, "{codec:?} {drift}: {counts:?}");
            let depth = story.bridge.from_far.jitter.depth() * 20 / (codec.clock() / 50);
            assert!((20..=100).contains(&depth), "{codec:?} {drift}: {depth} ms");
            story.assert_unbroken_towards_user();
        }
    }
}

#[test]
fn codecs_change_in_mid_call_and_whatsapp_hears_one_line() {
    let mut story = talking(Codec::Opus);
    let mut user = ToneSpeaker::new(false, 1_000.0);
    let order = [Codec::Opus, Codec::Pcma, Codec::Opus, Codec::G722, Codec::Pcmu, Codec::G722, Codec::Opus];
    let mut ssrcs = Vec::new();
    for (part, codec) in order.into_iter().enumerate() {
        story.bridge.set_far(media(codec)).unwrap();
        // The PBX begins another stream.
        story.far_ssrc = 100 + part as u32;
        story.far_sequence = story.far_sequence.wrapping_mul(31);
        let mut far = FarSpeaker::tone(codec, 700.0);
        story.far_datagrams.clear();
        for _ in 0..100 {
            let packet = user.next(960);
            story.user_says(&packet, 960);
            far.says(&mut story, 20);
            story.tick();
        }
        let (sound, rate) = heard_by_far(&story, codec);
        assert_eq!(story.far_datagrams.len(), 100, "{codec:?}");
        assert_tone(&sound[rate as usize / 5..], rate, 1_000.0, &format!("to the PBX in {codec:?}"));
        let packets = story.far_packets();
        ssrcs.push(packets[0].ssrc);
        for pair in packets.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
            assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(codec.clock() / 50));
        }
    }
    story.assert_unbroken_towards_user();
    let sound = story.heard_by_user();
    for part in 0..order.len() {
        let settled = &sound[(part * 100 + 12) * 960..(part * 100 + 100) * 960];
        assert_tone(settled, 48_000, 700.0, &format!("to WhatsApp in part {part}"));
    }
    // One SSRC for each clock, and none twice (RFC 7160): Opus, PCMA, Opus, three at 8 kHz, Opus.
    assert_eq!((ssrcs[3], ssrcs[4]), (ssrcs[5], ssrcs[5]));
    let mut distinct = ssrcs.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 5, "{ssrcs:x?}");
    let received = story.bridge.quality(HeardSide::Far);
    assert_eq!((received.received, received.lost), (700, 0), "{received:?}");
}

#[test]
fn stereo_and_what_is_no_opus_do_not_break_the_line() {
    let mut story = talking(Codec::Opus);
    let mut far = FarSpeaker::tone(Codec::Opus, 700.0);
    far.phone = Phone::new(true);
    for n in 0..300 {
        let (packet, units) = far.packet(20);
        match n % 50 {
            20 => story.far_says_for(FAR_OPUS_PT, &[0x0B, 0], units),
            21 => story.far_says_for(FAR_OPUS_PT, &[], units),
            _ => story.far_says_for(FAR_OPUS_PT, &packet, units),
        }
        story.tick();
    }
    story.assert_unbroken_towards_user();
    let sound = story.heard_by_user();
    let quiet = sound[48_000..].chunks(960).filter(|window| rms(window) < 2_000.0).count();
    assert!(quiet <= 10, "{quiet} frames");
    assert!((frequency(&sound[60 * 960..69 * 960], 48_000.0) - 700.0).abs() < 7.0);
}

#[test]
fn a_phone_that_joins_sixty_milliseconds_reaches_the_pbx_whole() {
    // One frame of 60 ms can't be cut; three of 20 ms can.
    let mut story = talking(Codec::Opus);
    let mut user = ToneSpeaker::new(false, 700.0);
    for _ in 0..50 {
        let packet = user.next(2_880);
        assert!(packing::is_long(&packet));
        story.user_says(&packet, 2_880);
        for _ in 0..3 {
            story.tick();
        }
    }
    let packets = story.far_packets();
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
    let long = packets.iter().filter(|packet| packing::is_long(packet.payload)).count();
    assert!((47..=50).contains(&long), "{long}");
    let (sound, rate) = heard_by_far(&story, Codec::Opus);
    assert_tone(&sound[rate as usize..], rate, 700.0, "60 ms");
}

#[test]
fn a_pbx_that_falls_back_to_g711_in_the_middle_of_g722_is_heard() {
    let mut story = talking(Codec::G722);
    let (mut wide, mut narrow) = (FarSpeaker::tone(Codec::G722, 700.0), FarSpeaker::tone(Codec::Pcma, 700.0));
    for n in 0..300 {
        let (a, b) = (wide.packet(20), narrow.packet(20));
        let (pt, (packet, units)) = if n / 50 % 2 == 0 { (9, a) } else { (8, b) };
        story.far_says_for(pt, &packet, units);
        story.tick();
    }
    let sound = story.heard_by_user();
    assert!(sound[48_000..].chunks(960).all(|window| rms(window) > 4_000.0));
    assert_eq!(story.bridge.quality(HeardSide::Far).discarded, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_a_pbx_sends_whatsapp_hears_one_line_and_one_packet_a_tick(
        events in proptest::collection::vec(
            (0u8..8, any::<u16>(), proptest::collection::vec(any::<u8>(), 0..90), any::<bool>()), 20..120),
    ) {
        let mut story = Story::new();
        story.bridge.open_gate();
        for (what, number, payload, held) in events {
            match what {
                0 => {
                    let far = media(CODECS[usize::from(number) % 4]);
                    story.bridge.set_far(FarMedia { sends: !held, speaks: number % 3 > 0, ..far }).unwrap();
                }
                1 => story.bridge.alone(Alone::RingBack),
                2 => story.far_timestamp = story.far_timestamp.wrapping_add(u32::from(number) * 77),
                3 => story.far_sequence = story.far_sequence.wrapping_add(number),
                4 => story.user_says(&payload, 960),
                _ => story.far_says_for([0, 8, 9, FAR_OPUS_PT, 13, 101][usize::from(number) % 6], &payload, 960),
            }
            story.tick();
            prop_assert!(story.out.to_far.len() <= 1);
        }
        for (n, frame) in story.user_frames.iter().enumerate() {
            prop_assert_eq!(frame.sequence, 65_500u16.wrapping_add(n as u16));
            prop_assert_eq!(frame.timestamp, (u32::MAX - 5_000).wrapping_add(960 * n as u32));
            prop_assert_eq!(opus::duration(&frame.payload), Some(960));
        }
    }
}
