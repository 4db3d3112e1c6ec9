//! SIP on a stream: however it is cut, the same messages come out, and what is held back is bounded.
//!
//! The first octet of an input says how the rest is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watrunk::sip::stream::{Framer, Garbage, Piece};

fn cut(stream: &[u8], sizes: &[usize]) -> (Vec<Piece>, Option<Garbage>) {
    let mut framer = Framer::new();
    let (mut pieces, mut rest) = (Vec::new(), stream);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(rest.len().min(*size));
        framer.push(now);
        rest = later;
        loop {
            match framer.piece() {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => break,
                Err(garbage) => {
                    assert_eq!(framer.piece(), Err(garbage), "a lost stream stays lost");
                    return (pieces, Some(garbage));
                }
            }
        }
    }
    (pieces, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((size, stream)) = data.split_first() else { return };
    let whole = cut(stream, &[usize::MAX]);
    for piece in &whole.0 {
        match piece {
            Piece::Message(message) => assert!(!message.is_empty() && message.len() <= 16 * 1024),
            Piece::Ping => {}
        }
    }
    let (one, other) = (usize::from(size & 15) + 1, usize::from(size >> 4) + 1);
    assert_eq!(cut(stream, &[one, other]), whole, "it depends on how it was cut");
});
