//! Pages of Ogg (RFC 3533): written one by one, and read until one is not whole.

use std::io::{self, Read};

/// What a page begins with.
const CAPTURE: &[u8; 4] = b"OggS";
/// Bytes before the lacing values.
const FIXED: usize = 27;
/// Lacing values of one page.
const SEGMENTS: usize = 255;

/// It continues a packet of the page before.
pub const CONTINUED: u8 = 1;
/// The first page of a stream.
pub const FIRST: u8 = 2;
/// The last page of a stream.
pub const LAST: u8 = 4;
/// The granule position of a page on which no packet ends.
pub const NO_PACKET_ENDS: u64 = u64::MAX;

/// One page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// [`CONTINUED`], [`FIRST`], [`LAST`].
    pub flags: u8,
    /// Where the last packet that ends on it ends; what it counts is the codec's matter.
    pub granule: u64,
    /// The stream's number.
    pub serial: u32,
    /// The page's number in its stream, from 0.
    pub number: u32,
    lacing: Vec<u8>,
    body: Vec<u8>,
}

impl Page {
    /// An empty page.
    pub fn new(serial: u32, number: u32) -> Page {
        Page { serial, number, ..Page::default() }
    }

    /// Adds a whole packet; false if there is no room for it.
    pub fn push(&mut self, packet: &[u8]) -> bool {
        let full = packet.len() / SEGMENTS;
        if self.lacing.len() + full + 1 > SEGMENTS {
            return false;
        }
        self.lacing.resize(self.lacing.len() + full, 255);
        self.lacing.push((packet.len() % SEGMENTS) as u8);
        self.body.extend_from_slice(packet);
        true
    }

    /// Packets that end on it.
    pub fn packets(&self) -> usize {
        self.lacing.iter().filter(|length| **length < 255).count()
    }

    /// Its parts in their order: the bytes of a packet, and whether the packet ends with them.
    pub fn parts(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let mut rest = &self.body[..];
        self.lacing.split_inclusive(|length| *length < 255).map(move |lacing| {
            let length: usize = lacing.iter().map(|length| usize::from(*length)).sum();
            let (part, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after;
            (part, lacing.last().is_some_and(|length| *length < 255))
        })
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        (FIXED + self.lacing.len() + self.body.len()) as u64
    }

    /// Adds its bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(CAPTURE);
        out.extend_from_slice(&[0, self.flags]);
        out.extend_from_slice(&self.granule.to_le_bytes());
        out.extend_from_slice(&self.serial.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(self.lacing.len() as u8);
        out.extend_from_slice(&self.lacing);
        out.extend_from_slice(&self.body);
        let sum = checksum(0, &out[begin..]);
        out[begin + 22..begin + 26].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads the page that begins here; `None` if there is none, or not all of it, or it is damaged.
    ///
    /// # Errors
    /// What reading gave.
    pub fn read(from: &mut dyn Read) -> io::Result<Option<Page>> {
        let mut fixed = [0u8; FIXED];
        if !fill(from, &mut fixed)? || !fixed.starts_with(CAPTURE) || fixed[4] != 0 {
            return Ok(None);
        }
        let mut lacing = vec![0; usize::from(fixed[26])];
        if !fill(from, &mut lacing)? {
            return Ok(None);
        }
        let mut body = vec![0; lacing.iter().map(|length| usize::from(*length)).sum()];
        if !fill(from, &mut body)? {
            return Ok(None);
        }
        let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let granule = u64::from(number(6)) | u64::from(number(10)) << 32;
        let (serial, number, said) = (number(14), number(18), number(22));
        fixed[22..26].fill(0);
        if checksum(checksum(checksum(0, &fixed), &lacing), &body) != said {
            return Ok(None);
        }
        Ok(Some(Page { flags: fixed[5], granule, serial, number, lacing, body }))
    }
}

/// False if the file ends before.
fn fill(from: &mut dyn Read, into: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// CRC-32 with the polynomial 0x04C11DB7, bits not reflected, beginning at 0 (RFC 3533 §6).
static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut at = 0usize;
    while at < 256 {
        let mut sum = (at as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 0x8000_0000 != 0 { (sum << 1) ^ 0x04C1_1DB7 } else { sum << 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
}

fn checksum(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| (sum << 8) ^ TABLE[((sum >> 24) as u8 ^ byte) as usize])
}
