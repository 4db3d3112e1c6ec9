//! Files that were cut off.

use super::*;

/// A file as it lies on the disk while it is written: drained once a second, not finished.
fn running(form: &Form, ticks: u32) -> Vec<u8> {
    let mut tape = Tape::new(form).unwrap();
    let mut file = head(form, &facts(Outcome::Running, 0));
    for at in 0..ticks {
        tape.take(&slice(at, tone(440.0, 8_000, at), tone(880.0, 8_000, at)));
        if at % 50 == 49 {
            tape.drain(&mut file);
        }
    }
    file
}

fn mended(form: &Form, file: &[u8]) -> (Vec<u8>, u64) {
    let found = whole(form, &mut &file[..]).unwrap();
    assert!(found.bytes <= file.len() as u64);
    let mut kept = file[..found.bytes as usize].to_vec();
    kept.extend_from_slice(&found.closing);
    (kept, found.ticks)
}

#[test]
fn a_file_cut_at_any_byte_of_its_last_seconds_keeps_every_whole_part() {
    for form in ALL {
        let file = running(&form, 300);
        // Three seconds before its end.
        let begin = running(&form, 150).len();
        // Every byte of one form, and of the others bytes at every place within a tick or a page.
        let step = if form == OGG_8 { 1 } else { 23 };
        for length in (begin..=file.len()).step_by(step) {
            let (kept, ticks) = mended(&form, &file[..length]);
            let name = format!("{} of {length} bytes: {ticks} ticks", form.word());
            assert!((150..=300).contains(&ticks), "{name}");
            match form.kind {
                Kind::WavPcm | Kind::WavAlaw | Kind::WavUlaw => {
                    let tick = (file.len() - head(&form, &facts(Outcome::Running, 0)).len()) / 300;
                    assert!(length - kept.len() < tick, "{name}");
                    assert_eq!(file[..kept.len()], kept, "{name}");
                }
                Kind::Ogg => assert_eq!(ticks % 50, 0, "a page is a second: {name}"),
            }
            if length == file.len() || length % 97 == 0 {
                let (left, right) = heard(&form, &kept);
                assert_eq!(left.len(), right.len());
                // Nobody wrote what libopus still held back.
                let held = if form.kind == Kind::Ogg { 312 * form.rate as usize / 48_000 } else { 0 };
                assert_eq!(left.len(), ticks as usize * form.frame() - held, "{name}");
            }
        }
    }
}

#[test]
fn a_mended_file_is_whole_and_mending_it_again_changes_nothing() {
    for form in ALL {
        let file = running(&form, 300);
        let (once, ticks) = mended(&form, &file[..file.len() - 33]);
        assert_eq!(mended(&form, &once), (once.clone(), ticks));
        // What a finished file has is never touched either.
        let (finished, tape) =
            recorded(&form, (0..70).map(|at| slice(at, tone(440.0, 8_000, at), Said::Lost)));
        assert_eq!(mended(&form, &finished), (finished.clone(), tape.ticks()));
    }
}

#[test]
fn of_a_file_without_a_whole_head_or_without_sound_nothing_plays() {
    for form in ALL {
        let head = head(&form, &facts(Outcome::Running, 0));
        assert_eq!(whole(&form, &mut &head[..head.len() - 1]).unwrap(), Whole::default());
        assert_eq!(whole(&form, &mut &b""[..]).unwrap(), Whole::default());
        let found = whole(&form, &mut &head[..]).unwrap();
        assert_eq!((found.bytes, found.ticks), (head.len() as u64, 0));
    }
}

#[test]
fn a_damaged_page_ends_what_is_kept() {
    let mut file = running(&OGG_8, 300);
    let four = running(&OGG_8, 200).len();
    file[four + 100] ^= 1;
    let (kept, ticks) = mended(&OGG_8, &file);
    assert_eq!((kept.len(), ticks), (four, 200));
}

proptest! {
    #[test]
    fn no_bytes_make_the_search_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..4_000), at in 0..6_000usize, with_head in any::<bool>(),
    ) {
        for form in ALL {
            let mut file = if with_head { running(&form, 50) } else { Vec::new() };
            let at = at.min(file.len());
            file.truncate(at);
            file.extend_from_slice(&bytes);
            let found = whole(&form, &mut &file[..]).unwrap();
            prop_assert!(found.bytes <= file.len() as u64);
        }
    }
}
