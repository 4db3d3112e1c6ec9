//! A prompt of the operator's own, who may have got it from anywhere: WAV or Ogg Opus.
//!
//! The checksums of an Ogg file's pages are put right first: no mutation finds them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watrunk::media::prompt::read_clip;

/// The length of the page at the beginning (RFC 3533 §6), if there is a whole one.
fn page(bytes: &[u8]) -> Option<usize> {
    let segments = usize::from(*bytes.get(26)?);
    let table = bytes.get(27..27 + segments)?;
    let length = 27 + segments + table.iter().map(|length| usize::from(*length)).sum::<usize>();
    (bytes.starts_with(b"OggS") && bytes.len() >= length).then_some(length)
}

fn put_right(mut bytes: &mut [u8]) {
    while let Some(length) = page(bytes) {
        let (page, rest) = bytes.split_at_mut(length);
        page[22..26].fill(0);
        let sum = page.iter().fold(0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| {
                if sum >> 31 == 1 { sum << 1 ^ 0x04c1_1db7 } else { sum << 1 }
            })
        });
        page[22..26].copy_from_slice(&sum.to_le_bytes());
        bytes = rest;
    }
}

fuzz_target!(|data: &[u8]| {
    let mut file = data.to_vec();
    put_right(&mut file);
    match read_clip(&file) {
        // A minute, and what of a frame is more.
        Ok(clip) => assert!((1..=61 * 50).contains(&clip.len_ticks()), "{} ticks", clip.len_ticks()),
        Err(why) => assert!(why.len() < 300, "{why}"),
    }
});
