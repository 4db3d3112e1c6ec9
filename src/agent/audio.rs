//! Sound as a dialect carries it, and the two ends of the pipe: bytes to samples and back.

use crate::media::g711;
use crate::media::resample::Resampler;

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// G.711 µ-law, one byte.
    Pcmu,
    /// G.711 A-law, one byte.
    Pcma,
    /// Linear, 16 bits, little-endian.
    L16,
}

/// A coding at a rate in hertz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) coding: Coding,
    pub(super) rate: u32,
}

impl Format {
    /// µ-law at 8 kHz.
    pub(super) const PCMU: Format = Format { coding: Coding::Pcmu, rate: 8_000 };

    /// Linear at this rate.
    pub(super) const fn l16(rate: u32) -> Format {
        Format { coding: Coding::L16, rate }
    }

    /// Bytes in so many milliseconds.
    pub(super) fn bytes(self, millis: u32) -> usize {
        let samples = (self.rate / 100 * millis / 10) as usize;
        match self.coding {
            Coding::Pcmu | Coding::Pcma => samples,
            Coding::L16 => samples * 2,
        }
    }
}

/// What arrives: any chunk size, odd bytes carried over.
#[derive(Debug)]
pub(super) struct Inlet {
    rate: u32,
    format: Option<Format>,
    /// The first half of a 16-bit sample whose second half is in the next message.
    half: Option<u8>,
    resampler: Option<Resampler>,
    samples: Vec<i16>,
    resampled: Vec<i16>,
}

/// A buffer that grew beyond this many samples for one message is given back after it.
const KEPT: usize = 8_192;

impl Inlet {
    /// An inlet that makes samples at `rate`.
    pub(super) fn new(rate: u32) -> Inlet {
        Inlet { rate, format: None, half: None, resampler: None, samples: Vec::new(), resampled: Vec::new() }
    }

    /// What came before has nothing to do with what comes next.
    pub(super) fn reset(&mut self) {
        self.half = None;
        if let Some(resampler) = &mut self.resampler {
            resampler.reset();
        }
    }

    /// The samples in `bytes`.
    pub(super) fn decode(&mut self, bytes: &[u8], format: Format) -> &[i16] {
        if self.format != Some(format) {
            self.format = Some(format);
            self.half = None;
            self.resampler = (format.rate != self.rate).then(|| Resampler::new(format.rate, self.rate));
        }
        self.samples.clear();
        self.samples.shrink_to(KEPT);
        match format.coding {
            Coding::Pcmu => self.samples.extend(bytes.iter().map(|code| g711::from_pcmu(*code))),
            Coding::Pcma => self.samples.extend(bytes.iter().map(|code| g711::from_pcma(*code))),
            Coding::L16 => self.linear(bytes),
        }
        let Some(resampler) = &mut self.resampler else { return &self.samples };
        self.resampled.clear();
        self.resampled.shrink_to(KEPT);
        resampler.run(&self.samples, &mut self.resampled);
        &self.resampled
    }

    fn linear(&mut self, mut bytes: &[u8]) {
        if let (Some(low), Some((high, rest))) = (self.half, bytes.split_first()) {
            self.samples.push(i16::from_le_bytes([low, *high]));
            self.half = None;
            bytes = rest;
        }
        let pairs = bytes.chunks_exact(2);
        if let [low] = pairs.remainder() {
            self.half = Some(*low);
        }
        self.samples.extend(pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
    }
}

/// What leaves: frames of 20 ms become packets of the size that the dialect sends.
#[derive(Debug)]
pub(super) struct Outlet {
    rate: u32,
    format: Format,
    /// Bytes of one packet.
    packet: usize,
    resampler: Option<Resampler>,
    resampled: Vec<i16>,
    waiting: Vec<u8>,
}

impl Outlet {
    /// From samples at `rate` to packets of `millis` in `format`.
    pub(super) fn new(rate: u32, format: Format, millis: u32) -> Outlet {
        Outlet {
            rate,
            format,
            packet: format.bytes(millis).max(1),
            resampler: (format.rate != rate).then(|| Resampler::new(rate, format.rate)),
            resampled: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Starts anew if the dialect has changed its mind.
    pub(super) fn suit(&mut self, format: Format, millis: u32) {
        if self.format != format {
            *self = Outlet::new(self.rate, format, millis);
        }
    }

    /// Takes a frame; `each` gets every packet that is full now.
    pub(super) fn push(&mut self, frame: &[i16], mut each: impl FnMut(&[u8])) {
        let samples: &[i16] = match &mut self.resampler {
            None => frame,
            Some(resampler) => {
                self.resampled.clear();
                resampler.run(frame, &mut self.resampled);
                &self.resampled
            }
        };
        match self.format.coding {
            Coding::Pcmu => self.waiting.extend(samples.iter().map(|sample| g711::to_pcmu(*sample))),
            Coding::Pcma => self.waiting.extend(samples.iter().map(|sample| g711::to_pcma(*sample))),
            Coding::L16 => self.waiting.extend(samples.iter().flat_map(|sample| sample.to_le_bytes())),
        }
        let mut full = self.waiting.chunks_exact(self.packet);
        for packet in &mut full {
            each(packet);
        }
        let used = self.waiting.len() - full.remainder().len();
        self.waiting.drain(..used);
    }
}
