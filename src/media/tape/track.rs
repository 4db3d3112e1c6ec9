//! A track: what one side said becomes linear sound at the recording's rate, 20 ms with every tick.

use crate::media::opus::{Decoder, LONGEST, Rate};
use crate::media::playout::Voice as _;
use crate::media::ports::MediaError;
use crate::media::resample::Resampler;
use crate::media::tap::Said;

/// The longest Opus packet at 16 kHz.
const PACKET: usize = LONGEST * 2;

/// One side of the call.
#[derive(Debug)]
pub(super) struct Track {
    /// Samples of 20 ms.
    frame: usize,
    opus: Decoder,
    /// For linear sound of so many samples in 20 ms.
    resampler: Option<(usize, Resampler)>,
    /// What was said and is not due yet: the rest of a long Opus packet.
    waiting: Vec<i16>,
}

impl Track {
    /// At the recording's rate: Opus is decoded to it, linear sound is resampled if it must be.
    pub(super) fn new(rate: Rate) -> Result<Track, MediaError> {
        Ok(Track { frame: rate.frame(), opus: Decoder::new(rate)?, resampler: None, waiting: Vec::new() })
    }

    /// What still sounded is cut off.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.resampler = None;
    }

    /// Adds exactly 20 ms to `out`.
    pub(super) fn take(&mut self, said: &Said, out: &mut Vec<i16>) {
        match said {
            Said::Nothing => self.forget(),
            Said::Linear(samples) => self.linear(samples),
            Said::Opus(packet) => self.opus(Some(packet)),
            Said::Lost => self.opus(None),
            Said::Lasts => {}
        }
        let due = self.waiting.len().min(self.frame);
        // A resampler holds a millisecond back when it begins: from then on every tick is full.
        out.resize(out.len() + self.frame - due, 0);
        out.extend(self.waiting.drain(..due));
    }

    /// What of the packet before is due in a later tick than this will not be heard: something else is said now.
    fn interrupt(&mut self) {
        self.waiting.truncate(self.waiting.len() % self.frame);
    }

    fn linear(&mut self, samples: &[i16]) {
        self.interrupt();
        if samples.len() == self.frame {
            self.resampler = None;
            self.waiting.extend_from_slice(samples);
            return;
        }
        let length = samples.len();
        let kept = self.resampler.take().filter(|(before, _)| *before == length);
        let (_, resampler) = self
            .resampler
            .insert(kept.unwrap_or_else(|| (length, Resampler::new(hertz(length), hertz(self.frame)))));
        resampler.run(samples, &mut self.waiting);
    }

    /// `None`: a packet of 20 ms was lost.
    fn opus(&mut self, packet: Option<&[u8]>) {
        self.interrupt();
        self.resampler = None;
        let mut sound = [0i16; PACKET];
        let made = match packet.and_then(|packet| self.opus.decode(0, packet, &mut sound)) {
            Some(made) => made,
            None => {
                self.opus.conceal(&mut sound[..self.frame]);
                self.frame
            }
        };
        self.waiting.extend(sound.iter().take(made));
    }
}

/// The rate at which 20 ms have so many samples.
fn hertz(samples: usize) -> u32 {
    samples as u32 * 50
}
