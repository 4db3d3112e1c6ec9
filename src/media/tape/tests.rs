//! Recordings as they are heard: taken down slice by slice, read back channel by channel.

mod cut;
mod sides;

use std::f64::consts::TAU;

use super::page::{LAST, Page};
use super::*;
use crate::media::opus::{Decoder, Encoder};
use crate::media::playout::Voice as _;
use proptest::prelude::*;

const PCM_8: Form = Form { kind: Kind::WavPcm, rate: 8_000, bitrate: 0 };
const PCM_16: Form = Form { kind: Kind::WavPcm, rate: 16_000, bitrate: 0 };
const ALAW: Form = Form { kind: Kind::WavAlaw, rate: 8_000, bitrate: 0 };
const ULAW: Form = Form { kind: Kind::WavUlaw, rate: 8_000, bitrate: 0 };
const OGG_8: Form = Form { kind: Kind::Ogg, rate: 8_000, bitrate: 16_000 };
const OGG_16: Form = Form { kind: Kind::Ogg, rate: 16_000, bitrate: 24_000 };
const ALL: [Form; 6] = [PCM_8, PCM_16, ALAW, ULAW, OGG_8, OGG_16];

fn facts(outcome: Outcome, ticks: u64) -> Facts<'static> {
    Facts {
        call: "wacid.ABGGFjFVU2AfAgo6V",
        began: "2026-11-23T05:41:07Z",
        number: "reception",
        outcome,
        ticks,
        paused_ticks: 7,
        lost_ticks: 12,
    }
}

/// 20 ms of a tone at this rate, from tick `at` on.
fn tone(hertz: f64, rate: usize, at: u32) -> Said {
    let frame = rate / 50;
    let sample = |n: usize| (9_000.0 * (TAU * hertz * n as f64 / rate as f64).sin()) as i16;
    let begin = at as usize * frame;
    Said::Linear((begin..begin + frame).map(sample).collect())
}

fn slice(at: u32, user: Said, far: Said) -> Slice {
    Slice { at, user, far, ..Slice::default() }
}

/// A finished file of these slices, drained once a second.
fn recorded(form: &Form, slices: impl IntoIterator<Item = Slice>) -> (Vec<u8>, Tape) {
    let mut tape = Tape::new(form).unwrap();
    let mut body = Vec::new();
    for (n, slice) in slices.into_iter().enumerate() {
        tape.take(&slice);
        if n % 50 == 49 {
            while tape.drain(&mut body) {}
        }
    }
    tape.finish(&mut body);
    let mut file = head(form, &facts(Outcome::Complete, tape.ticks()));
    file.extend(body);
    (file, tape)
}

/// Both channels of a file, at the form's rate.
fn heard(form: &Form, file: &[u8]) -> (Vec<i16>, Vec<i16>) {
    let begin = head(form, &facts(Outcome::Running, 0)).len();
    let body = &file[begin..];
    let pairs = |bytes: &[i16]| bytes.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip();
    match form.kind {
        Kind::WavPcm => {
            let samples: Vec<i16> =
                body.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect();
            pairs(&samples)
        }
        Kind::WavAlaw => pairs(&body.iter().map(|code| g711::from_pcma(*code)).collect::<Vec<_>>()),
        Kind::WavUlaw => pairs(&body.iter().map(|code| g711::from_pcmu(*code)).collect::<Vec<_>>()),
        Kind::Ogg => {
            let rate = Rate::of(form.rate).unwrap();
            let (mut left, mut right) = (Decoder::new(rate).unwrap(), Decoder::new(rate).unwrap());
            let (mut user, mut far) = (Vec::new(), Vec::new());
            let (mut from, mut end, mut packet) = (body, None, Vec::new());
            while let Some(page) = Page::read(&mut from).unwrap() {
                for (part, ends) in page.parts() {
                    packet.extend_from_slice(part);
                    if ends {
                        let (first, second) = parted(&packet);
                        let mut out = [0; 960];
                        let made = left.decode(0, &first, &mut out).unwrap();
                        user.extend_from_slice(&out[..made]);
                        let made = right.decode(0, second, &mut out).unwrap();
                        far.extend_from_slice(&out[..made]);
                        packet.clear();
                    }
                }
                assert!(end.is_none(), "a page behind the last");
                end = (page.flags & LAST != 0).then_some(page.granule);
            }
            let unit = 48_000 / form.rate as usize;
            let skip = usize::from(ogg::PRE_SKIP) / unit;
            for channel in [&mut user, &mut far] {
                channel.truncate(end.unwrap_or(u64::MAX) as usize / unit);
                channel.drain(..skip);
            }
            (user, far)
        }
    }
}

/// A packet of two streams: the first as it was before its length was put in, and the second (RFC 6716 appendix B).
fn parted(packet: &[u8]) -> (Vec<u8>, &[u8]) {
    let (length, begin) = match packet[1] {
        small @ 0..252 => (usize::from(small), 2),
        low => (usize::from(packet[2]) * 4 + usize::from(low), 3),
    };
    let mut first = vec![packet[0]];
    first.extend_from_slice(&packet[begin..begin + length]);
    (first, &packet[begin + length..])
}

/// The amplitude of one frequency.
fn strength(sound: &[i16], rate: u32, hertz: f64) -> f64 {
    let (re, im) = sound.iter().enumerate().fold((0.0, 0.0), |(re, im), (at, sample)| {
        let angle = TAU * hertz * at as f64 / f64::from(rate);
        (re + f64::from(*sample) * angle.cos(), im + f64::from(*sample) * angle.sin())
    });
    2.0 * f64::hypot(re, im) / sound.len() as f64
}

/// Root mean square.
fn loudness(sound: &[i16]) -> f64 {
    (sound.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / sound.len().max(1) as f64).sqrt()
}

#[test]
fn every_form_has_a_word_that_is_read_again() {
    for form in ALL {
        assert_eq!(Form::parse(&form.word()), Some(form), "{}", form.word());
    }
    assert_eq!(OGG_16.word(), "ogg-16000-24000");
    for wrong in
        ["", "wav", "wav-pcm", "wav-pcm-44100", "wav-alaw-16000", "wav-pcm-8000-1", "ogg-8000", "ogg-8000-5"]
    {
        assert_eq!(Form::parse(wrong), None, "{wrong}");
    }
    let config =
        RecordingConfig { format: TapeFormat::WavUlaw, sample_rate: 16_000, ..RecordingConfig::default() };
    assert_eq!(Form::of(&config), ULAW, "G.711 has no other rate");
}

#[test]
fn a_wav_head_says_what_follows_and_while_it_runs_that_nobody_knows() {
    for (form, tag, bits, begin) in [(PCM_16, 1, 16, 20), (ALAW, 6, 8, 20), (ULAW, 7, 8, 20)] {
        let (file, tape) =
            recorded(&form, (0..100).map(|at| slice(at, tone(500.0, 8_000, at), Said::Nothing)));
        assert_eq!(tape.ticks(), 100);
        let short = |at: usize| u32::from(u16::from_le_bytes([file[at], file[at + 1]]));
        let long = |at: usize| short(at) | short(at + 2) << 16;
        assert_eq!((&file[..4], &file[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
        assert_eq!(long(4) as usize, file.len() - 8);
        assert_eq!((short(begin), short(begin + 2), long(begin + 4)), (tag, 2, form.hertz()));
        let block = 2 * bits / 8;
        assert_eq!(
            (long(begin + 8), short(begin + 12), short(begin + 14)),
            (form.hertz() * block, block, bits)
        );
        let data = head(&form, &facts(Outcome::Complete, 100)).len();
        assert_eq!(&file[data - 8..data - 4], b"data");
        assert_eq!(long(data - 4) as usize, file.len() - data);
        assert_eq!(file.len() - data, 2 * form.hertz() as usize * block as usize);
        if tag != 1 {
            let fact = file.windows(4).position(|four| four == b"fact").unwrap();
            assert_eq!(long(fact + 8), 2 * form.hertz(), "samples of one channel");
        }
        let running = head(&form, &facts(Outcome::Running, 0));
        assert_eq!(running.len(), data);
        assert_eq!((&running[4..8], &running[data - 4..]), (&[255; 4][..], &[255; 4][..]));
    }
}

#[test]
fn the_file_tells_its_call_its_outcome_what_was_left_out_and_who_is_where() {
    for form in ALL {
        let head = head(&form, &facts(Outcome::Gaps, 500));
        let text = String::from_utf8_lossy(&head);
        for word in
            ["wacid.ABGGFjFVU2AfAgo6V", "2026-11-23T05:41:07Z", "reception", "gaps", "10000", "140", "240"]
        {
            assert!(text.contains(word), "{}: {word}", form.word());
        }
        assert!(text.contains("left: WhatsApp user, right: destination"), "{}", form.word());
    }
}

proptest! {
    #[test]
    fn a_head_is_as_long_for_any_facts(
        call in "\\PC{0,300}", began in "\\PC{0,80}", number in any::<String>(),
        ticks in any::<u64>(), paused_ticks in any::<u64>(), lost_ticks in any::<u64>(), outcome in 0..6usize,
    ) {
        let outcome = [Outcome::Nothing, Outcome::Running, Outcome::Complete, Outcome::Gaps,
            Outcome::Interrupted, Outcome::Failed][outcome];
        for form in ALL {
            let usual = head(&form, &facts(Outcome::Running, 0));
            let facts = Facts { call: &call, began: &began, number: &number, outcome, ticks, paused_ticks, lost_ticks };
            prop_assert_eq!(head(&form, &facts).len(), usual.len());
        }
    }

    #[test]
    fn any_slices_in_any_order_make_two_sides_of_the_same_length_and_the_right_counts(
        said in proptest::collection::vec((0..60u32, 0..7u8, 0..7u8, any::<bool>()), 1..60), form in 0..6usize,
    ) {
        let form = ALL[form];
        let mut encode = Encoder::new(Rate::Wide, 0, 20_000).unwrap();
        let mut said_of = |kind: u8| match kind {
            0 => Said::Nothing,
            1 => tone(700.0, 8_000, 0),
            2 => tone(700.0, 16_000, 0),
            3 => tone(700.0, 24_000, 0),
            4 => {
                let mut packet = heapless::Vec::new();
                encode.encode(&[99; 320], &mut packet).unwrap();
                Said::Opus(packet)
            }
            5 => Said::Lost,
            _ => Said::Lasts,
        };
        let mut tape = Tape::new(&form).unwrap();
        let mut body = Vec::new();
        let (mut next, mut ticks, mut lost, mut paused) = (0, 0, 0, 0);
        for (at, user, far, pause) in said {
            if at >= next {
                lost += u64::from(at - next);
                ticks += u64::from(at - next) + 1;
                paused += u64::from(pause);
                next = at + 1;
            }
            tape.take(&Slice { at, paused: pause, offset: None, user: said_of(user), far: said_of(far) });
            if far == 3 {
                while tape.drain(&mut body) {}
            }
        }
        tape.finish(&mut body);
        prop_assert_eq!((tape.ticks(), tape.lost_ticks(), tape.paused_ticks()), (ticks, lost, paused));
        let mut file = head(&form, &facts(Outcome::Complete, ticks));
        file.extend(body);
        let (left, right) = heard(&form, &file);
        prop_assert_eq!((left.len(), right.len()), (ticks as usize * form.frame(), ticks as usize * form.frame()));
    }
}

#[test]
fn what_one_side_was_held_back_for_the_others_sake_is_still_written_at_the_end() {
    for form in ALL {
        for offset in [30 * 48, -30 * 48] {
            let said = (0..100).map(|at| {
                let both = tone(700.0, 8_000, at);
                Slice { at, offset: Some(offset), user: both.clone(), far: both, ..Slice::default() }
            });
            let (file, tape) = recorded(&form, said);
            assert_eq!((tape.ticks(), tape.lost_ticks()), (102, 0), "30 ms are two ticks more");
            let (left, right) = heard(&form, &file);
            assert_eq!((left.len(), right.len()), (102 * form.frame(), 102 * form.frame()));
            let (early, late) = if offset > 0 { (left, right) } else { (right, left) };
            let at_the_end = |side: &[i16]| loudness(&side[100 * form.frame() + 20..101 * form.frame()]);
            assert!(at_the_end(&late) > 4_000.0 && at_the_end(&early) < 1_500.0, "{}", form.word());
        }
    }
}

#[test]
fn what_libopus_holds_back_is_what_players_leave_out() {
    for rate in [Rate::Narrow, Rate::Wide] {
        let encoder = Encoder::for_file(rate, 3, 16_000).unwrap();
        let unit = 960 / rate.frame() as u32;
        assert_eq!(encoder.lookahead() * unit, u32::from(ogg::PRE_SKIP), "{rate:?}");
    }
}

#[test]
fn another_reader_of_ogg_finds_every_packet_a_page_a_second_and_the_end() {
    let (file, tape) =
        recorded(&OGG_16, (0..260).map(|at| slice(at, tone(440.0, 16_000, at), tone(1_100.0, 8_000, at))));
    let mut reader = ::ogg::PacketReader::new(std::io::Cursor::new(&file));
    let (mut packets, mut pages, mut ended) = (0, Vec::new(), false);
    while let Some(packet) = reader.read_packet().unwrap() {
        packets += 1;
        if packet.last_in_page() {
            pages.push(packet.absgp_page());
        }
        ended = packet.last_in_stream();
    }
    assert!(ended);
    // The two of the head, 260 of sound, and one in which libopus says what it held back.
    assert_eq!(packets, 2 + 260 + 1);
    let end = tape.ticks() * 960 + 312;
    assert_eq!(pages, [0, 0, 48_000, 96_000, 144_000, 192_000, 240_000, end]);
}

#[test]
fn a_hole_of_hours_comes_in_pieces_and_one_of_days_is_cut() {
    let mut tape = Tape::new(&PCM_16).unwrap();
    tape.take(&slice(0, tone(440.0, 16_000, 0), Said::Nothing));
    tape.take(&slice(u32::MAX, tone(440.0, 16_000, 0), Said::Nothing));
    assert_eq!((tape.ticks(), tape.lost_ticks()), (LONGEST_HOLE + 2, LONGEST_HOLE));
    let (mut bytes, mut out) = (0u64, Vec::new());
    loop {
        let more = tape.drain(&mut out);
        assert!(out.len() as u64 <= (SILENCE_AT_ONCE + 2) * 1_280, "{} bytes at once", out.len());
        bytes += out.len() as u64;
        out.clear();
        if !more {
            break;
        }
    }
    assert_eq!(bytes, tape.ticks() * 1_280);
}

#[test]
fn a_wav_file_stays_below_4_gib_and_any_file_below_a_day() {
    assert_eq!(PCM_8.most(), LONGEST, "a day at 8 kHz fits");
    let most = PCM_16.most();
    assert!((67_000 * 50..67_200 * 50).contains(&most), "18 hours: {most}");
    let head = head(&PCM_16, &facts(Outcome::Complete, most));
    assert!(most * 1_280 + head.len() as u64 <= u64::from(u32::MAX));
    let mut tape = Tape::new(&PCM_16).unwrap();
    let mut at = 0u32;
    while !tape.is_full() {
        tape.take(&slice(at, Said::Nothing, Said::Nothing));
        at += LONGEST_HOLE as u32;
    }
    tape.take(&slice(at, Said::Nothing, Said::Nothing));
    assert_eq!(tape.ticks(), most);
}
