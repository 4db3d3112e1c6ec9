//! Ogg Opus (RFC 7845): each side a mono stream of its own, so that nothing of one is heard in the other.
//!
//! Channel mapping family 1 with two streams and none coupled: a packet of the file is one packet of each encoder, the
//! first with its length inside (RFC 6716 appendix B).

use std::io::{self, Read};

use super::page::{FIRST, LAST, Page};
use super::text::{CHANNELS, LONGEST, PROGRAM, cut, millis};
use super::{Facts, Form, Whole};
use crate::media::OPUS_FRAME;
use crate::media::opus::{EMPTY_FRAME, Encoder, Rate};
use crate::media::ports::MediaError;

/// Samples at 48 kHz that a player leaves out at the beginning: what libopus' encoder holds back, 6.5 ms at every rate.
pub(super) const PRE_SKIP: u16 = 312;
/// The stream's number; there is only one in a file.
const SERIAL: u32 = u32::from_be_bytes(*b"watr");
/// Bytes of the packet with the comments, of which most are padding (RFC 7845 §5.2).
const TAGS: usize = 768;
/// Packets of 20 ms on a page: a second (RFC 7845 §4 asks for no more).
const PAGE: usize = 50;
/// A page that holds half of it is closed when someone asks for it.
const ENOUGH: usize = PAGE / 2;
/// libopus fits a frame into this: four times the average at the highest bit rate.
const FRAME: usize = 640;
/// Complexity of the encoder, 0 to 10: the file may be a little larger, the recorder's thread not slower.
const COMPLEXITY: u8 = 3;

fn comments(facts: &Facts<'_>) -> Vec<u8> {
    let entries = [
        format!("TITLE={}", cut(facts.call, LONGEST)),
        format!("DATE={}", cut(facts.began, LONGEST)),
        format!("NUMBER={}", cut(facts.number, LONGEST)),
        format!("OUTCOME={}", facts.outcome.as_str()),
        format!("LENGTH_MS={}", millis(facts.ticks)),
        format!("PAUSED_MS={}", millis(facts.paused_ticks)),
        format!("LOST_MS={}", millis(facts.lost_ticks)),
        format!("CHANNELS={CHANNELS}"),
    ];
    let mut out = b"OpusTags".to_vec();
    let number = |number: usize| (number as u32).to_le_bytes();
    out.extend_from_slice(&number(PROGRAM.len()));
    out.extend_from_slice(PROGRAM.as_bytes());
    out.extend_from_slice(&number(entries.len()));
    for entry in &entries {
        out.extend_from_slice(&number(entry.len()));
        out.extend_from_slice(entry.as_bytes());
    }
    debug_assert!(out.len() <= TAGS);
    out.resize(TAGS, 0);
    out
}

pub(super) fn head(form: &Form, facts: &Facts<'_>) -> Vec<u8> {
    let mut opus = b"OpusHead".to_vec();
    // Version 1, two channels.
    opus.extend_from_slice(&[1, 2]);
    opus.extend_from_slice(&PRE_SKIP.to_le_bytes());
    opus.extend_from_slice(&form.hertz().to_le_bytes());
    // No gain; family 1, two streams, none coupled: left is the first, right the second.
    opus.extend_from_slice(&[0, 0, 1, 2, 0, 0, 1]);
    let mut out = Vec::with_capacity(TAGS + 100);
    for (number, flags, packet) in [(0, FIRST, opus), (1, 0, comments(facts))] {
        let mut page = Page::new(SERIAL, number);
        page.flags = flags;
        page.push(&packet);
        page.write(&mut out);
    }
    out
}

/// Two encoders and the page that is being filled.
#[derive(Debug)]
pub(super) struct Streams {
    left: Encoder,
    right: Encoder,
    page: Page,
    /// Packets in all pages so far.
    packets: u64,
    quiet: Vec<i16>,
}

impl Streams {
    pub(super) fn new(rate: Rate, bitrate: u32) -> Result<Streams, MediaError> {
        let encoder = || Encoder::for_file(rate, COMPLEXITY, bitrate);
        Ok(Streams {
            left: encoder()?,
            right: encoder()?,
            // The head has two.
            page: Page::new(SERIAL, 2),
            packets: 0,
            quiet: vec![0; rate.frame()],
        })
    }

    /// 20 ms of both sides; a page that is full goes to `out`.
    pub(super) fn frame(&mut self, left: &[i16], right: &[i16], out: &mut Vec<u8>) {
        self.add(left, right, out);
        if self.page.packets() >= PAGE {
            self.close_page(0, out);
        }
    }

    pub(super) fn silence(&mut self, out: &mut Vec<u8>) {
        let quiet = std::mem::take(&mut self.quiet);
        self.frame(&quiet, &quiet, out);
        self.quiet = quiet;
    }

    /// Closes the page if it is worth it.
    pub(super) fn turn_page(&mut self, out: &mut Vec<u8>) {
        if self.page.packets() >= ENOUGH {
            self.close_page(0, out);
        }
    }

    /// What the encoders hold back comes out with one more frame; the last page says where the sound ends
    /// (RFC 7845 §4.4).
    pub(super) fn finish(&mut self, ticks: u64, out: &mut Vec<u8>) {
        let quiet = std::mem::take(&mut self.quiet);
        self.add(&quiet, &quiet, out);
        self.page.granule = ticks * u64::from(OPUS_FRAME) + u64::from(PRE_SKIP);
        self.close_page(LAST, out);
        self.quiet = quiet;
    }

    fn add(&mut self, left: &[i16], right: &[i16], out: &mut Vec<u8>) {
        let mut packet = Vec::with_capacity(2 * FRAME);
        delimited(&coded(&mut self.left, left), &mut packet);
        packet.extend_from_slice(&coded(&mut self.right, right));
        if !self.page.push(&packet) {
            self.close_page(0, out);
            self.page.push(&packet);
        }
        self.packets += 1;
        self.page.granule = self.packets * u64::from(OPUS_FRAME);
    }

    fn close_page(&mut self, flags: u8, out: &mut Vec<u8>) {
        self.page.flags = flags;
        self.page.write(out);
        self.page = Page::new(SERIAL, self.page.number.wrapping_add(1));
    }
}

/// One packet of 20 ms in a single frame, which is all that libopus makes of 20 ms (RFC 6716 §3.2.2, code 0); if not,
/// an empty one, which sounds like a lost one.
fn coded(encoder: &mut Encoder, pcm: &[i16]) -> heapless::Vec<u8, FRAME> {
    let mut packet = heapless::Vec::new();
    if encoder.encode(pcm, &mut packet).is_none() || packet.first().is_none_or(|toc| toc & 3 != 0) {
        packet.clear();
        let _ = packet.push(EMPTY_FRAME);
    }
    packet
}

/// Adds a packet of one frame with its length behind the TOC byte (RFC 6716 §3.2.1 and appendix B).
fn delimited(packet: &[u8], out: &mut Vec<u8>) {
    let Some((toc, frame)) = packet.split_first() else { return };
    out.push(*toc);
    let length = frame.len();
    if length < 252 {
        out.push(length as u8);
    } else {
        let low = 252 + (length & 3);
        out.push(low as u8);
        out.push(((length - low) >> 2) as u8);
    }
    out.extend_from_slice(frame);
}

/// Whole pages up to the first that is not one of ours, or is not the next.
pub(super) fn whole(file: &mut dyn Read) -> io::Result<Whole> {
    let mut bytes = 0;
    let mut last: Option<Page> = None;
    for number in 0u32.. {
        let Some(page) = Page::read(file)? else { break };
        if page.serial != SERIAL || page.number != number || (number == 0) != (page.flags & FIRST != 0) {
            break;
        }
        bytes += page.size();
        let ends = page.flags & LAST != 0;
        last = Some(page);
        if ends {
            break;
        }
    }
    let Some(mut last) = last.filter(|last| last.number > 0) else { return Ok(Whole::default()) };
    if last.number == 1 {
        return Ok(Whole { bytes, ..Whole::default() });
    }
    let samples = last.granule.saturating_sub(u64::from(PRE_SKIP));
    let ticks = samples.div_ceil(u64::from(OPUS_FRAME));
    let mut closing = Vec::new();
    if last.flags & LAST == 0 {
        bytes -= last.size();
        last.flags |= LAST;
        last.write(&mut closing);
    }
    Ok(Whole { bytes, ticks, closing })
}
