//! RIFF WAVE: a head of constant length, then samples to the end of the file (Microsoft's and IBM's Multimedia
//! Programming Interface, 1991; `docs/decisions/0013-recording-files.md`).

use std::io::{self, Read};

use super::text::{CHANNELS, LONGEST, PROGRAM, cut, remark};
use super::{Facts, Form, Kind};
use crate::call::recording::Outcome;

/// Linear, 16 bits.
const PCM: u16 = 1;
const ALAW: u16 = 6;
const ULAW: u16 = 7;
/// Both sides.
const CHANNEL_COUNT: u16 = 2;
/// A size that is not known: what writers to a pipe leave there, and players take as "to the end".
const ENDLESS: u32 = u32::MAX;

/// The texts, each padded with zero bytes to this length; even, as RIFF wants it.
const NAME: usize = 128;
const DATE: usize = 48;
const SOURCE: usize = 128;
const REMARK: usize = 224;

/// Format tag and bits of a sample.
fn coding(form: &Form) -> (u16, u16) {
    match form.kind {
        Kind::WavAlaw => (ALAW, 8),
        Kind::WavUlaw => (ULAW, 8),
        Kind::WavPcm | Kind::Ogg => (PCM, 16),
    }
}

/// Bytes of one sample of both channels.
fn block(form: &Form) -> u64 {
    u64::from(coding(form).1 / 8 * CHANNEL_COUNT)
}

/// Bytes of 20 ms.
fn tick(form: &Form) -> u64 {
    block(form) * form.frame() as u64
}

/// Ticks after which the sizes in the head would have more than 32 bits.
pub(super) fn most_ticks(form: &Form) -> u64 {
    // Generous for the head; one below what means "unknown".
    (u64::from(u32::MAX) - 4_096) / tick(form).max(1)
}

fn chunk(name: &[u8; 4], content: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.extend_from_slice(content);
}

fn text(name: &[u8; 4], value: &str, length: usize, out: &mut Vec<u8>) {
    let mut padded = cut(value, length - 1).into_bytes();
    padded.resize(length, 0);
    chunk(name, &padded, out);
}

pub(super) fn head(form: &Form, facts: &Facts<'_>) -> Vec<u8> {
    let (tag, bits) = coding(form);
    let ticks = facts.ticks.min(most_ticks(form));
    let running = facts.outcome == Outcome::Running;
    let size = |bytes: u64| if running { ENDLESS } else { u32::try_from(bytes).unwrap_or(ENDLESS) };

    let mut format = Vec::with_capacity(18);
    format.extend_from_slice(&tag.to_le_bytes());
    format.extend_from_slice(&CHANNEL_COUNT.to_le_bytes());
    format.extend_from_slice(&form.hertz().to_le_bytes());
    format.extend_from_slice(&(form.hertz() * block(form) as u32).to_le_bytes());
    format.extend_from_slice(&(block(form) as u16).to_le_bytes());
    format.extend_from_slice(&bits.to_le_bytes());

    let mut out = Vec::with_capacity(700);
    out.extend_from_slice(b"RIFF\0\0\0\0WAVE");
    if tag == PCM {
        chunk(b"fmt ", &format, &mut out);
    } else {
        // Whatever is not linear says how long the rest of its format is (it has none), and how many samples there
        // are.
        format.extend_from_slice(&0u16.to_le_bytes());
        chunk(b"fmt ", &format, &mut out);
        chunk(b"fact", &size(ticks * form.frame() as u64).to_le_bytes(), &mut out);
    }
    let mut list = b"INFO".to_vec();
    text(b"ISFT", PROGRAM, 8, &mut list);
    text(b"INAM", &cut(facts.call, LONGEST), NAME, &mut list);
    text(b"ICRD", facts.began, DATE, &mut list);
    text(b"ISRC", &cut(facts.number, LONGEST), SOURCE, &mut list);
    text(b"ICMT", &remark(facts), REMARK, &mut list);
    debug_assert!(remark(facts).len() < REMARK && CHANNELS.len() < REMARK);
    chunk(b"LIST", &list, &mut out);
    out.extend_from_slice(b"data");
    out.extend_from_slice(&size(ticks * tick(form)).to_le_bytes());
    // All that follows the size itself.
    let riff = size(out.len() as u64 - 8 + ticks * tick(form));
    out[4..8].copy_from_slice(&riff.to_le_bytes());
    out
}

/// The length of every head of this form.
fn head_length(form: &Form) -> u64 {
    let facts = Facts {
        call: "",
        began: "",
        number: "",
        outcome: Outcome::Running,
        ticks: 0,
        paused_ticks: 0,
        lost_ticks: 0,
    };
    head(form, &facts).len() as u64
}

/// Whole ticks.
pub(super) fn whole(form: &Form, file: &mut dyn Read) -> io::Result<super::Whole> {
    let length = io::copy(file, &mut io::sink())?;
    let Some(body) = length.checked_sub(head_length(form)) else { return Ok(super::Whole::default()) };
    let ticks = (body / tick(form)).min(most_ticks(form));
    Ok(super::Whole { bytes: head_length(form) + ticks * tick(form), ticks, closing: Vec::new() })
}
