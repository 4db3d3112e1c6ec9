//! RIFF WAVE as others write it, read into mono sound at 8 kHz.

use super::{LONGEST, RATE};
use crate::media::g711;
use crate::media::resample::Resampler;

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const ALAW: u16 = 6;
const ULAW: u16 = 7;
/// The tag is in a longer format, at byte 24.
const EXTENSIBLE: u16 = 0xFFFE;

/// How a sample is written.
#[derive(Debug, Clone, Copy)]
enum Coding {
    /// Unsigned.
    Pcm8,
    /// Little-endian, of so many bytes, the two highest of which are kept.
    Pcm(usize),
    Float,
    Alaw,
    Ulaw,
}

impl Coding {
    fn of(tag: u16, bits: u16) -> Option<Coding> {
        match (tag, bits) {
            (PCM, 8) => Some(Coding::Pcm8),
            (PCM, 16 | 24 | 32) => Some(Coding::Pcm(usize::from(bits / 8))),
            (FLOAT, 32) => Some(Coding::Float),
            (ALAW, 8) => Some(Coding::Alaw),
            (ULAW, 8) => Some(Coding::Ulaw),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Coding::Pcm8 | Coding::Alaw | Coding::Ulaw => 1,
            Coding::Pcm(bytes) => bytes,
            Coding::Float => 4,
        }
    }

    fn sample(self, bytes: &[u8]) -> i16 {
        match (self, bytes) {
            (Coding::Pcm8, [byte]) => (i16::from(*byte) - 128) << 8,
            (Coding::Alaw, [byte]) => g711::from_pcma(*byte),
            (Coding::Ulaw, [byte]) => g711::from_pcmu(*byte),
            (Coding::Float, [a, b, c, d]) => (f32::from_le_bytes([*a, *b, *c, *d]) * 32_768.0) as i16,
            (Coding::Pcm(_), [.., low, high]) => i16::from_le_bytes([*low, *high]),
            _ => 0,
        }
    }
}

struct Format {
    coding: Coding,
    channels: usize,
    rate: u32,
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn format(chunk: &[u8]) -> Result<Format, String> {
    let cut = "its format is cut off";
    let tag = short(chunk, 0).ok_or(cut)?;
    let channels = short(chunk, 2).ok_or(cut)?;
    let rate = long(chunk, 4).ok_or(cut)?;
    let bits = short(chunk, 14).ok_or(cut)?;
    let tag = if tag == EXTENSIBLE { short(chunk, 24).ok_or(cut)? } else { tag };
    let coding = Coding::of(tag, bits)
        .ok_or_else(|| format!("a WAV file of format {tag} with {bits} bits can't be played"))?;
    if !(1..=2).contains(&channels) {
        return Err(format!("it must be mono or stereo, and has {channels} channels"));
    }
    if !(8_000..=48_000).contains(&rate) {
        return Err(format!("it must have 8,000 to 48,000 Hz, and has {rate}"));
    }
    Ok(Format { coding, channels: usize::from(channels), rate })
}

/// Mono samples at 8 kHz.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<i16>, String> {
    if bytes.get(8..12) != Some(b"WAVE") {
        return Err("it is a RIFF file, but not WAVE".to_owned());
    }
    let mut rest = bytes.get(12..).unwrap_or_default();
    let mut known = None;
    while let (Some(name), Some(length)) = (rest.get(..4), long(rest, 4)) {
        let content = rest.get(8..).unwrap_or_default();
        // Whoever wrote it to a pipe did not know the length.
        let length = (length as usize).min(content.len());
        let (content, after) = content.split_at(length);
        match name {
            b"fmt " => known = Some(format(content)?),
            b"data" => return sound(&known.ok_or("its samples come before their format")?, content),
            _ => {}
        }
        rest = after.get(length % 2..).unwrap_or_default();
    }
    Err("it is WAV without samples".to_owned())
}

fn sound(format: &Format, data: &[u8]) -> Result<Vec<i16>, String> {
    let block = format.coding.bytes() * format.channels;
    if data.len() / block > LONGEST * format.rate as usize {
        return Err(format!("it must be at most {LONGEST} s long"));
    }
    let mono: Vec<i16> = data
        .chunks_exact(block)
        .map(|block| {
            let sum: i32 = block
                .chunks_exact(format.coding.bytes())
                .map(|sample| i32::from(format.coding.sample(sample)))
                .sum();
            (sum / format.channels as i32) as i16
        })
        .collect();
    if format.rate == RATE {
        return Ok(mono);
    }
    let mut out = Vec::with_capacity(mono.len() * RATE as usize / format.rate as usize + 1);
    let mut resampler = Resampler::new(format.rate, RATE);
    resampler.run(&mono, &mut out);
    // The last few samples come out behind as much silence.
    resampler.run(&[0; 64], &mut out);
    out.truncate(LONGEST * RATE as usize);
    Ok(out)
}
