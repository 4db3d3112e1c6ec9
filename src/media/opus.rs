//! Opus in and out, at 8, 16 or 24 kHz and in mono: the only door of `audiopus` (RFC 6716, RFC 7587).
//!
//! libopus decodes and encodes at the far side's rate, so nothing is resampled here.

use super::OPUS_FRAME;
use super::playout::Voice;
use super::ports::MediaError;
use audiopus::coder::{Decoder as Decode, Encoder as Encode, GenericCtl};
use audiopus::packet::{Packet, nb_samples, samples_per_frame};
use audiopus::{Application, Bitrate, Channels, MutSignals, SampleRate, Signal};
use heapless::Vec;

/// The longest packet that Opus knows, in samples at 8 kHz: 120 ms.
pub const LONGEST: usize = 960;
/// The shortest Opus frame, 2.5 ms, is this part of 20 ms: libopus conceals in multiples of it.
const GRANULES: usize = 8;
/// RTP clock units of one sample at 8 kHz.
const UNITS: u32 = 6;
/// We always expect some loss: below this libopus leaves the repair data out.
const LEAST_LOSS: u8 = 5;
/// More than this and the repair data eats the speech.
const MOST_LOSS: u8 = 30;

/// A whole packet of 20 ms that holds nothing: the TOC byte of SILK, narrowband, mono.
pub const EMPTY_FRAME: u8 = 1 << 3;

/// How much sound one second is, on our side of Opus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    Narrow,
    Wide,
    SuperWide,
}

impl Rate {
    /// `None` if Opus is not spoken at this rate here.
    pub(super) fn of(hertz: u32) -> Option<Rate> {
        match hertz {
            8_000 => Some(Rate::Narrow),
            16_000 => Some(Rate::Wide),
            24_000 => Some(Rate::SuperWide),
            _ => None,
        }
    }

    /// Samples of 20 ms.
    pub(super) const fn frame(self) -> usize {
        match self {
            Rate::Narrow => 160,
            Rate::Wide => 320,
            Rate::SuperWide => 480,
        }
    }

    fn sampled(self) -> SampleRate {
        match self {
            Rate::Narrow => SampleRate::Hz8000,
            Rate::Wide => SampleRate::Hz16000,
            Rate::SuperWide => SampleRate::Hz24000,
        }
    }
}

fn refused(error: audiopus::Error) -> MediaError {
    match error {
        audiopus::Error::Opus(code) => MediaError::Opus { code: code as i32 },
        _ => MediaError::Opus { code: 0 },
    }
}

/// How long the packet sounds in RTP clock units (48 kHz); `None` if it is not Opus.
pub fn duration(payload: &[u8]) -> Option<u32> {
    let packet = Packet::try_from(payload).ok()?;
    let samples = nb_samples(packet, SampleRate::Hz8000).ok()?;
    (1..=LONGEST).contains(&samples).then_some(samples as u32 * UNITS)
}

/// Samples of each frame in the packet.
fn frame_samples(payload: &[u8], rate: Rate) -> Option<usize> {
    samples_per_frame(Packet::try_from(payload).ok()?, rate.sampled()).ok()
}

/// Whether the packet carries a second, coarser copy of the frame before it.
///
/// The flag is the bit after the voice-activity bits in the first byte of a SILK frame
/// (RFC 6716 §4.2.4). Only packets with a first frame right behind the TOC byte are looked at.
pub fn carries_repair(payload: &[u8]) -> bool {
    let (Some(toc), Some(first)) = (payload.first(), payload.get(1)) else { return false };
    let config = toc >> 3;
    if config >= 16 || toc & 3 > 1 {
        return false;
    }
    // Configurations 0..12 are SILK of 10, 20, 40, 60 ms; 12..16 hybrid of 10 or 20 ms.
    let voice_bits = match (config < 12, config & 3) {
        (true, 2) => 2,
        (true, 3) => 3,
        _ => 1,
    };
    let stereo = toc & 4 != 0;
    (first >> (7 - voice_bits)) & 1 == 1
        || (stereo && voice_bits < 3 && (first >> (6 - 2 * voice_bits)) & 1 == 1)
}

/// Opus heard from WhatsApp.
#[derive(Debug)]
pub(super) struct Decoder {
    decode: Decode,
    rate: Rate,
}

impl Decoder {
    pub(super) fn new(rate: Rate) -> Result<Decoder, MediaError> {
        let decode = Decode::new(rate.sampled(), Channels::Mono).map_err(refused)?;
        Ok(Decoder { decode, rate })
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Forgets what was heard, as if made anew; nothing is allocated.
    pub(super) fn reset(&mut self) {
        // It only writes zeroes into memory that is there: it can't fail.
        let _ = self.decode.reset_state();
    }

    /// So many of these samples as libopus can conceal at once.
    fn whole(&self, samples: usize) -> usize {
        samples - samples % (self.rate.frame() / GRANULES)
    }

    /// `None` in `packet` conceals. What libopus does not fill is left as it was.
    fn run(&mut self, packet: Option<&[u8]>, out: &mut [i16], fec: bool) -> Option<usize> {
        let packet = match packet {
            Some(bytes) => Some(Packet::try_from(bytes).ok()?),
            None => None,
        };
        self.decode.decode(packet, MutSignals::try_from(out).ok()?, fec).ok()
    }
}

impl Voice for Decoder {
    fn frame(&self) -> usize {
        self.rate.frame()
    }

    fn units(&self) -> u32 {
        OPUS_FRAME
    }

    fn decode(&mut self, _payload_type: u8, payload: &[u8], out: &mut [i16]) -> Option<usize> {
        self.run(Some(payload), out, false)
    }

    fn conceal(&mut self, out: &mut [i16]) {
        let whole = self.whole(out.len());
        let done = self.run(None, &mut out[..whole], false).unwrap_or(0);
        out[done..].fill(0);
    }

    fn repair(&mut self, _payload_type: u8, next: &[u8], out: &mut [i16]) -> bool {
        let whole = self.whole(out.len());
        // The copy is as long as a frame of the packet that holds it; libopus cannot give a part of it.
        let copy = frame_samples(next, self.rate).unwrap_or(usize::MAX);
        if !carries_repair(next) || copy > whole {
            self.conceal(out);
            return false;
        }
        match self.run(Some(next), &mut out[..whole], true) {
            Some(done) => {
                out[done..].fill(0);
                true
            }
            None => {
                self.conceal(out);
                false
            }
        }
    }
}

/// Opus said to WhatsApp: voice, in-band FEC, never DTX.
///
/// libopus weighs repair data against the bit rate: at 20 kbit/s it adds it from complexity 2 on
/// (below that it counts a bit as worth a fifth less, and leaves it out).
#[derive(Debug)]
pub(super) struct Encoder {
    encode: Encode,
    loss: u8,
}

impl Encoder {
    pub(super) fn new(rate: Rate, complexity: u8, bitrate: u32) -> Result<Encoder, MediaError> {
        let build = || -> audiopus::Result<Encode> {
            let mut encode = Encode::new(rate.sampled(), Channels::Mono, Application::Voip)?;
            encode.set_signal(Signal::Voice)?;
            encode.set_complexity(complexity.min(10))?;
            encode.set_bitrate(Bitrate::BitsPerSecond(bitrate.clamp(6_000, 64_000) as i32))?;
            encode.set_inband_fec(true)?;
            encode.set_packet_loss_perc(LEAST_LOSS)?;
            encode.set_dtx(false)?;
            Ok(encode)
        };
        build().map(|encode| Encoder { encode, loss: LEAST_LOSS }).map_err(refused)
    }

    /// For a file: nothing is lost on the way, so no repair data.
    pub(super) fn for_file(rate: Rate, complexity: u8, bitrate: u32) -> Result<Encoder, MediaError> {
        let mut encoder = Encoder::new(rate, complexity, bitrate)?;
        encoder.encode.set_inband_fec(false).map_err(refused)?;
        encoder.encode.set_packet_loss_perc(0).map_err(refused)?;
        encoder.loss = 0;
        Ok(encoder)
    }

    /// Forgets what was said, as if made anew; settings stay and nothing is allocated. The same is expected to be
    /// lost as by `before`, which speaks to the same listener.
    pub(super) fn succeed(&mut self, before: &Encoder) {
        // It only writes zeroes into memory that is there: it can't fail.
        let _ = self.encode.reset_state();
        if self.encode.set_packet_loss_perc(before.loss).is_ok() {
            self.loss = before.loss;
        }
    }

    /// Takes in what the other side reports as lost, in 1/256 (RFC 3550 §6.4.1).
    ///
    /// Rises at once and falls slowly: a report covers a few seconds, a bad radio link longer.
    pub(super) fn heard_of_loss(&mut self, fraction: u8) {
        let percent = (u32::from(fraction) * 100).div_ceil(256) as u8;
        let slower = self.loss - self.loss.div_ceil(4);
        let wanted = percent.max(slower).clamp(LEAST_LOSS, MOST_LOSS);
        if wanted != self.loss && self.encode.set_packet_loss_perc(wanted).is_ok() {
            self.loss = wanted;
        }
    }

    /// Begins anew, for a listener who has heard something else meanwhile; settings stay and nothing is allocated.
    pub(super) fn reset(&mut self) {
        // It only writes zeroes into memory that is there: it can't fail.
        let _ = self.encode.reset_state();
    }

    /// What the encoder holds back, in samples at its rate.
    #[cfg(test)]
    pub(super) fn lookahead(&self) -> u32 {
        self.encode.lookahead().unwrap()
    }

    /// Encodes one frame; `None` only if libopus itself fails.
    pub(super) fn encode<const N: usize>(&mut self, pcm: &[i16], out: &mut Vec<u8, N>) -> Option<()> {
        out.resize(N, 0).ok()?;
        let length = self.encode.encode(pcm, out).ok()?;
        out.truncate(length);
        Some(())
    }
}

/// The other end, for stories: WhatsApp's own encoder and decoder, at 48 kHz.
#[cfg(test)]
pub(super) mod peer {
    use super::*;

    /// Something like speech at 48 kHz: three syllables a second of a gliding voice.
    pub(in crate::media) fn voice(at: impl TryInto<u64, Error: std::fmt::Debug>) -> i16 {
        let time = at.try_into().unwrap() as f64 / 48_000.0;
        let syllable = (time * 3.0 * std::f64::consts::PI).sin().powi(2);
        let phase = time * 140.0 + 3.0 * (time * 1.3 * std::f64::consts::TAU).sin();
        let voice: f64 =
            (1..12).map(|n| (phase * f64::from(n) * std::f64::consts::TAU).sin() / f64::from(n)).sum();
        (voice * syllable * 7_000.0) as i16
    }

    /// A phone.
    pub(in crate::media) struct Phone {
        encode: Encode,
        decode: Decode,
        channels: usize,
    }

    impl Phone {
        pub(in crate::media) fn new(stereo: bool) -> Phone {
            let channels = if stereo { Channels::Stereo } else { Channels::Mono };
            let mut encode = Encode::new(SampleRate::Hz48000, channels, Application::Voip).unwrap();
            encode.set_bitrate(Bitrate::BitsPerSecond(20_000)).unwrap();
            encode.set_inband_fec(true).unwrap();
            encode.set_packet_loss_perc(20).unwrap();
            encode.set_max_bandwidth(audiopus::Bandwidth::Wideband).unwrap();
            let decode = Decode::new(SampleRate::Hz48000, Channels::Mono).unwrap();
            Phone { encode, decode, channels: if stereo { 2 } else { 1 } }
        }

        pub(in crate::media) fn dtx(mut self) -> Phone {
            self.encode.set_dtx(true).unwrap();
            self
        }

        /// Encodes mono samples at 48 kHz.
        pub(in crate::media) fn say(&mut self, mono: &[i16]) -> std::vec::Vec<u8> {
            let all: std::vec::Vec<i16> =
                mono.iter().flat_map(|sample| std::iter::repeat_n(*sample, self.channels)).collect();
            // What the bridge keeps at most; libopus fits a long packet into it.
            let mut out = [0u8; 400];
            let length = self.encode.encode(&all, &mut out).unwrap();
            out[..length].to_vec()
        }

        /// Decodes a packet of any length at 48 kHz.
        pub(in crate::media) fn hear_all(&mut self, payload: &[u8]) -> std::vec::Vec<i16> {
            let mut out = [0i16; 5_760];
            let packet = Packet::try_from(payload).unwrap();
            let made = self.decode.decode(Some(packet), MutSignals::try_from(&mut out[..]).unwrap(), false);
            out[..made.unwrap()].to_vec()
        }

        /// Decodes to 20 ms at 48 kHz.
        pub(in crate::media) fn hear(&mut self, payload: &[u8]) -> [i16; 960] {
            let mut out = [0i16; 960];
            let packet = Packet::try_from(payload).unwrap();
            let made = self.decode.decode(Some(packet), MutSignals::try_from(&mut out[..]).unwrap(), false);
            assert_eq!(made.unwrap(), 960, "20 ms in each packet");
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::peer::{Phone, voice};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_length_of_every_kind_of_packet_is_known() {
        for (millis_x2, stereo) in [(5, false), (10, true), (20, false), (40, true), (80, false), (120, true)]
        {
            let mut phone = Phone::new(stereo);
            let samples = 24 * millis_x2;
            let packet = phone.say(&(0..samples).map(voice).collect::<std::vec::Vec<_>>());
            assert_eq!(duration(&packet), Some(samples as u32), "{} ms", millis_x2 as f64 / 2.0);
        }
        assert_eq!(duration(&[EMPTY_FRAME]), Some(960));
        assert_eq!(duration(&[]), None);
        assert_eq!(duration(&[0xFF, 63, 1, 2]), None, "63 frames of 20 ms are more than 120 ms");
    }

    fn spoken(frames: usize) -> std::vec::Vec<std::vec::Vec<u8>> {
        let mut phone = Phone::new(false);
        (0..frames)
            .map(|n| phone.say(&(n * 960..(n + 1) * 960).map(voice).collect::<std::vec::Vec<_>>()))
            .collect()
    }

    /// The frame before `at`, made from what came before it and by `how`.
    fn made(packets: &[std::vec::Vec<u8>], at: usize, how: impl Fn(&mut Decoder, &mut [i16])) -> [i16; 160] {
        let mut decoder = Decoder::new(Rate::Narrow).unwrap();
        let mut out = [0i16; 160];
        for packet in &packets[..at - 1] {
            decoder.decode(111, packet, &mut out);
        }
        how(&mut decoder, &mut out);
        out
    }

    #[test]
    fn the_flag_says_what_libopus_does_with_the_packet() {
        let packets = spoken(100);
        let mut carrying = 0;
        for at in 5..100 {
            let invented = made(&packets, at, |decoder, out| decoder.conceal(out));
            let asked = made(&packets, at, |decoder, out| {
                decoder.run(Some(&packets[at]), out, true).unwrap();
            });
            // Without repair data libopus falls back to concealment.
            assert_eq!(asked != invented, carries_repair(&packets[at]), "packet {at}");
            carrying += usize::from(carries_repair(&packets[at]));
        }
        assert!((30..95).contains(&carrying), "{carrying} of 95: both kinds must have been seen");
        // CELT (configuration 31) knows no repair data, whatever its bytes are.
        assert!(!carries_repair(&[31 << 3, 0xFF, 0xFF]));
    }

    #[test]
    fn a_repaired_frame_is_nearer_to_the_lost_one_than_an_invented_one() {
        let packets = spoken(100);
        let (mut invented, mut repaired) = (0i64, 0i64);
        for at in (5..100).filter(|at| carries_repair(&packets[*at])) {
            let real = made(&packets, at, |decoder, out| {
                decoder.decode(111, &packets[at - 1], out);
            });
            let far = |other: [i16; 160]| -> i64 {
                real.iter().zip(other).map(|(a, b)| (i64::from(*a) - i64::from(b)).pow(2)).sum()
            };
            invented += far(made(&packets, at, |decoder, out| decoder.conceal(out)));
            repaired +=
                far(made(&packets, at, |decoder, out| assert!(decoder.repair(111, &packets[at], out))));
        }
        assert!(repaired * 2 < invented, "repaired {repaired}, invented {invented}");
    }

    #[test]
    fn a_part_of_a_frame_is_invented_and_not_counted_as_repaired() {
        let packets = spoken(60);
        let at = (5..60).find(|at| carries_repair(&packets[*at])).unwrap();
        let mut decoder = Decoder::new(Rate::Narrow).unwrap();
        let mut out = [0i16; 160];
        assert!(!decoder.repair(111, &packets[at], &mut out[..80]), "10 ms of a frame of 20 ms");
        assert!(decoder.repair(111, &packets[at], &mut out));
    }

    #[test]
    fn expected_loss_rises_at_once_and_falls_slowly() {
        let mut encoder = Encoder::new(Rate::Narrow, 5, 20_000).unwrap();
        encoder.heard_of_loss(51);
        assert_eq!(encoder.encode.packet_loss_perc().unwrap(), 20);
        encoder.heard_of_loss(0);
        assert_eq!(encoder.encode.packet_loss_perc().unwrap(), 15);
        for _ in 0..20 {
            encoder.heard_of_loss(0);
        }
        assert_eq!(encoder.encode.packet_loss_perc().unwrap(), LEAST_LOSS);
        encoder.heard_of_loss(255);
        assert_eq!(encoder.encode.packet_loss_perc().unwrap(), MOST_LOSS);
    }

    #[test]
    fn the_bit_rate_is_what_was_asked_for() {
        let mut encoder = Encoder::new(Rate::Narrow, 5, 20_000).unwrap();
        let mut bytes = 0;
        for n in 0..250usize {
            let pcm: std::vec::Vec<i16> = (n * 160..(n + 1) * 160).map(|at| voice(at * 6)).collect();
            let mut out: Vec<u8, 400> = Vec::new();
            encoder.encode(&pcm, &mut out).unwrap();
            bytes += out.len();
        }
        let rate = bytes * 8 / 5;
        assert!((12_000..24_000).contains(&rate), "{rate} bit/s");
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_decoder_panic(packets in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..120), 1..20)
        ) {
            let mut decoder = Decoder::new(Rate::Narrow).unwrap();
            let mut out = [0i16; LONGEST];
            for packet in &packets {
                let known = duration(packet);
                let _ = carries_repair(packet);
                if let Some(made) = decoder.decode(111, packet, &mut out) {
                    prop_assert_eq!(Some(made as u32 * UNITS), known);
                }
                decoder.repair(111, packet, &mut out[..160]);
                decoder.conceal(&mut out[..153]);
            }
        }
    }
}
