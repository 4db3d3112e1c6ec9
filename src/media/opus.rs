//! Opus in and out, at 8 kHz and in mono: the only door of `audiopus` (RFC 6716, RFC 7587).
//!
//! libopus decodes and encodes at the far side's rate, so nothing is resampled here.

use super::bridge::MediaError;
use super::playout::Voice;
use audiopus::coder::{Decoder as Decode, Encoder as Encode};
use audiopus::packet::{Packet, nb_samples};
use audiopus::{Application, Bitrate, Channels, MutSignals, SampleRate, Signal};
use heapless::Vec;

/// The longest packet that Opus knows, in samples at 8 kHz: 120 ms.
pub const LONGEST: usize = 960;
/// Samples of the shortest Opus frame at 8 kHz, 2.5 ms: libopus conceals in multiples of it.
const GRANULE: usize = 20;
/// RTP clock units of one sample at 8 kHz.
const UNITS: u32 = 6;
/// We always expect some loss: below this libopus leaves the repair data out.
const LEAST_LOSS: u8 = 5;
/// More than this and the repair data eats the speech.
const MOST_LOSS: u8 = 30;

/// A whole packet of 20 ms that holds nothing: the TOC byte of SILK, narrowband, mono.
pub const EMPTY_FRAME: u8 = 1 << 3;

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
pub(super) struct Decoder(Decode);

impl Decoder {
    pub(super) fn new() -> Result<Decoder, MediaError> {
        Decode::new(SampleRate::Hz8000, Channels::Mono).map(Decoder).map_err(refused)
    }

    /// `None` in `packet` conceals. What libopus does not fill is left as it was.
    fn run(&mut self, packet: Option<&[u8]>, out: &mut [i16], fec: bool) -> Option<usize> {
        let packet = match packet {
            Some(bytes) => Some(Packet::try_from(bytes).ok()?),
            None => None,
        };
        self.0.decode(packet, MutSignals::try_from(out).ok()?, fec).ok()
    }
}

impl Voice for Decoder {
    const UNITS_PER_SAMPLE: u32 = UNITS;

    fn decode(&mut self, _payload_type: u8, payload: &[u8], out: &mut [i16]) -> Option<usize> {
        self.run(Some(payload), out, false)
    }

    fn conceal(&mut self, out: &mut [i16]) {
        let whole = out.len() / GRANULE * GRANULE;
        let done = self.run(None, &mut out[..whole], false).unwrap_or(0);
        out[done..].fill(0);
    }

    fn repair(&mut self, _payload_type: u8, next: &[u8], out: &mut [i16]) -> bool {
        let whole = out.len() / GRANULE * GRANULE;
        if !carries_repair(next) {
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
#[derive(Debug)]
pub(super) struct Encoder {
    encode: Encode,
    loss: u8,
}

impl Encoder {
    pub(super) fn new(complexity: u8, bitrate: u32) -> Result<Encoder, MediaError> {
        let build = || -> audiopus::Result<Encode> {
            let mut encode = Encode::new(SampleRate::Hz8000, Channels::Mono, Application::Voip)?;
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

    /// Encodes one frame; `None` only if libopus itself fails.
    pub(super) fn encode<const N: usize>(&mut self, pcm: &[i16], out: &mut Vec<u8, N>) -> Option<()> {
        out.resize(N, 0).ok()?;
        let length = self.encode.encode(pcm, out).ok()?;
        out.truncate(length);
        Some(())
    }
}
