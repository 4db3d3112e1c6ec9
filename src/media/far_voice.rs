//! The PBX heard: one decoder for all that it may speak.

use super::conceal::Concealment;
use super::opus::{self, Rate};
use super::playout::Voice;
use super::ports::{Codec, MediaError};
use super::{FRAME, g711, g722};

/// How payloads are named from here to the decoder: the static payload types (RFC 3551 §6, RFC 3389), and 127 for
/// Opus, whatever was agreed on.
pub(super) const PCMU_PT: u8 = 0;
pub(super) const PCMA_PT: u8 = 8;
pub(super) const G722_PT: u8 = 9;
pub(super) const OPUS_PT: u8 = 127;

/// A decoder of what the PBX says, at the rate in which the call is spoken.
#[expect(
    clippy::large_enum_variant,
    reason = "it lies in a bridge, which is boxed, and changes with re-INVITEs"
)]
pub(super) enum FarVoice {
    /// At 8 kHz: both laws, whichever comes.
    G711(Concealment<320>),
    /// At 16 kHz: G.722, and both laws where the PBX falls back to them in mid-stream.
    G722(Box<Wideband>),
    /// At 16 kHz: for packets that can't be passed through.
    Opus(opus::Decoder),
}

/// G.722 with its memory.
pub(super) struct Wideband {
    decoder: g722::Decoder,
    concealment: Concealment<640>,
    /// The last sample of G.711.
    last: i16,
}

impl FarVoice {
    pub(super) fn g711() -> FarVoice {
        FarVoice::G711(Concealment::new())
    }

    /// What hears this codec.
    pub(super) fn new(codec: Codec) -> Result<FarVoice, MediaError> {
        Ok(match codec {
            Codec::Pcma | Codec::Pcmu => FarVoice::g711(),
            Codec::G722 => FarVoice::G722(Box::new(Wideband {
                decoder: g722::Decoder::new(),
                concealment: Concealment::new(),
                last: 0,
            })),
            Codec::Opus => FarVoice::Opus(opus::Decoder::new(Rate::Wide)?),
        })
    }

    /// Whether this is a decoder for the codec.
    pub(super) fn hears(&self, codec: Codec) -> bool {
        matches!(
            (self, codec),
            (FarVoice::G711(_), Codec::Pcma | Codec::Pcmu)
                | (FarVoice::G722(_), Codec::G722)
                | (FarVoice::Opus(_), Codec::Opus)
        )
    }

    /// Forgets what was heard, as if made anew; nothing is allocated.
    pub(super) fn reset(&mut self) {
        match self {
            FarVoice::G711(concealment) => *concealment = Concealment::new(),
            FarVoice::G722(wideband) => {
                wideband.decoder = g722::Decoder::new();
                wideband.concealment = Concealment::new();
                wideband.last = 0;
            }
            FarVoice::Opus(decoder) => decoder.reset(),
        }
    }
}

impl Wideband {
    /// G.711 at twice its rate: between two samples there is their mean.
    fn doubled(&mut self, payload: &[u8], from: impl Fn(u8) -> i16, out: &mut [i16]) -> usize {
        let mut made = 0;
        for (pair, code) in out.chunks_exact_mut(2).zip(payload) {
            let sample = from(*code);
            pair[0] = ((i32::from(self.last) + i32::from(sample)) / 2) as i16;
            pair[1] = sample;
            self.last = sample;
            made += 2;
        }
        made
    }
}

impl Voice for FarVoice {
    fn frame(&self) -> usize {
        match self {
            FarVoice::G711(_) => FRAME,
            FarVoice::G722(_) | FarVoice::Opus(_) => Rate::Wide.frame(),
        }
    }

    fn units(&self) -> u32 {
        match self {
            FarVoice::G711(_) | FarVoice::G722(_) => FRAME as u32,
            FarVoice::Opus(decoder) => decoder.units(),
        }
    }

    fn decode(&mut self, payload_type: u8, payload: &[u8], out: &mut [i16]) -> Option<usize> {
        match self {
            FarVoice::G711(concealment) => {
                let from = if payload_type == PCMA_PT { g711::from_pcma } else { g711::from_pcmu };
                let made = payload.len().min(out.len());
                for (sample, code) in out.iter_mut().zip(payload) {
                    *sample = from(*code);
                }
                concealment.heard(&mut out[..made]);
                Some(made)
            }
            FarVoice::G722(wideband) => {
                let made = match payload_type {
                    PCMA_PT => wideband.doubled(payload, g711::from_pcma, out),
                    PCMU_PT => wideband.doubled(payload, g711::from_pcmu, out),
                    _ => wideband.decoder.decode(payload, out),
                };
                wideband.concealment.heard(&mut out[..made]);
                Some(made)
            }
            FarVoice::Opus(decoder) => decoder.decode(payload_type, payload, out),
        }
    }

    fn conceal(&mut self, out: &mut [i16]) {
        match self {
            FarVoice::G711(concealment) => concealment.invent(out),
            FarVoice::G722(wideband) => wideband.concealment.invent(out),
            FarVoice::Opus(decoder) => decoder.conceal(out),
        }
    }

    fn repair(&mut self, payload_type: u8, next: &[u8], out: &mut [i16]) -> bool {
        match self {
            // Neither carries anything of the packet before.
            FarVoice::G711(_) | FarVoice::G722(_) => {
                self.conceal(out);
                false
            }
            FarVoice::Opus(decoder) => decoder.repair(payload_type, next, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_frame_of_a_steady_tone_is_hardly_heard() {
        let mut decoder = FarVoice::g711();
        let tone = |at: usize| (8_000.0 * (at as f64 * 200.0 * std::f64::consts::TAU / 8_000.0).sin()) as i16;
        let mut out = [0i16; FRAME];
        for frame in 0..5 {
            let coded: Vec<u8> = (0..FRAME).map(|i| g711::to_pcmu(tone(frame * FRAME + i))).collect();
            decoder.decode(PCMU_PT, &coded, &mut out);
        }
        decoder.conceal(&mut out);
        let wrong: i64 =
            (0..FRAME).map(|i| i64::from((out[i] - tone(5 * FRAME + i)).abs())).sum::<i64>() / 160;
        // A gap of silence would be wrong by the tone's mean level, about 5,100.
        assert!(wrong < 1_400, "off by {wrong} on average");
        for _ in 0..4 {
            decoder.conceal(&mut out);
        }
        assert!(out.iter().all(|sample| *sample == 0), "it must fade out, not hum");
    }

    #[test]
    fn sound_after_a_loss_begins_without_a_click() {
        // The real sound goes on at the top of its swing while the invented one is at its bottom.
        let mut decoder = FarVoice::g711();
        let tone = |at: usize| (8_000.0 * (at as f64 * 200.0 * std::f64::consts::TAU / 8_000.0).sin()) as i16;
        let code =
            |from: usize| -> Vec<u8> { (from..from + FRAME).map(|at| g711::to_pcmu(tone(at))).collect() };
        let mut out = [0i16; FRAME];
        for frame in 0..3 {
            decoder.decode(PCMU_PT, &code(frame * FRAME), &mut out);
        }
        let mut gap = [0i16; 30];
        decoder.conceal(&mut gap);
        decoder.decode(PCMU_PT, &code(3 * FRAME + 10), &mut out);
        let seam = (i32::from(out[0]) - i32::from(gap[29])).abs();
        let apart = (i32::from(tone(3 * FRAME + 10)) - i32::from(gap[29])).abs();
        assert!(apart > 10_000, "the story has no seam: {apart}");
        assert!(seam < 2_500, "a step of {seam}");
        assert!((i32::from(out[FRAME - 1]) - i32::from(tone(3 * FRAME + 10 + FRAME - 1))).abs() < 300);
    }
}
