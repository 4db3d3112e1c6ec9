//! What a power cut has left behind is mended at the next start.

use super::*;
use crate::media::tape;

/// A file that was being written, and where its head ends.
fn part(form: Form) -> (Vec<u8>, usize) {
    let mut story = Story::new();
    story.record("call_1", form);
    story.wait(1);
    let name = format!("call_1.{}.part", form.extension());
    let head = story.card.bytes(&name).len();
    story.talk(20);
    (story.card.bytes(&name), head)
}

fn running(form: Form) -> TapeRow {
    TapeRow {
        state: TapeState::Running,
        file: format!("call_1.{}", form.extension()),
        form: form.word(),
        finished: Finished { outcome: Outcome::Running, ..Finished::default() },
        expires_at: Some(Wall(TODAY.0 + 7 * DAY)),
        upload: UploadState::Waiting,
        ..row("call_1")
    }
}

#[test]
fn a_file_that_was_cut_off_anywhere_plays_up_to_there() {
    for form in [PCM, ALAW, OGG] {
        let (bytes, head) = part(form);
        let mut random = 1_u64;
        for _ in 0..25 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let cut = head + (random >> 33) as usize % (bytes.len() - head);
            let mut story = Story::new();
            story.card.put(&format!("call_1.{}.part", form.extension()), &bytes[..cut], TODAY);
            story.ledger.lock().unwrap().tape_begun(&running(form)).unwrap();
            story.wait(1);
            let row = story.row("call_1");
            let about = tape::whole(&form, &mut &bytes[..cut]).unwrap();
            if about.ticks == 0 {
                assert_eq!((row.state, row.finished.outcome), (TapeState::Failed, Outcome::Nothing));
                assert_eq!(story.card.names(), Vec::<String>::new());
                continue;
            }
            assert_eq!((row.state, row.finished.outcome), (TapeState::Kept, Outcome::Interrupted));
            assert_eq!(story.card.names(), std::slice::from_ref(&row.file));
            assert_eq!(row.finished.millis, about.ticks * 20);
            assert_eq!((row.expires_at, row.upload), (Some(Wall(TODAY.0 + 7 * DAY)), UploadState::Waiting));
            let file = story.card.bytes(&row.file);
            assert_eq!((row.finished.bytes, row.finished.sha256.len()), (file.len() as u64, 64));
            let whole = tape::whole(&form, &mut file.as_slice()).unwrap();
            assert_eq!((whole.bytes, whole.ticks), (file.len() as u64, about.ticks), "cut at {cut}");
            assert!(whole.closing.is_empty(), "it is closed");
            assert!(file.windows(11).any(|bytes| bytes == b"interrupted"), "its head says what it is");
            if form == PCM {
                let (left, _) = sides(&file);
                assert_eq!(left.len() as u64, row.finished.millis * 8);
                assert!(left.len() < 800 || strength(&left, 440.0, 8_000.0) > 7_000.0);
            }
        }
    }
}

#[test]
fn what_was_paused_and_what_was_lost_before_a_power_cut_is_told_after_it() {
    for sealed in [false, true] {
        let mut story = Story::new();
        if sealed {
            story.encrypt_to = vec![PUBLIC_KEY.to_owned()];
        }
        let call = story.record("call_1", PCM);
        story.talk(3);
        // The sound of a second never comes.
        story.calls[call].at += 50;
        for n in 0..250 {
            if n % 5 == 0 {
                story.turn();
            }
            let at = story.calls[call].at + n;
            story.calls[call].slices.try_send(Slice { at, paused: true, ..Slice::default() }).unwrap();
        }
        story.calls[call].at += 250;
        story.talk(3);
        let mut story = story.again();
        story.wait(1);
        let row = story.row("call_1");
        assert_eq!(row.finished.outcome, Outcome::Interrupted);
        assert_eq!(
            (row.finished.paused_millis, row.finished.lost_millis),
            (5_000, 1_000),
            "sealed: {sealed}"
        );
        let file = story.card.bytes(&row.file);
        let says = b"paused: 5000 ms; lost: 1000 ms";
        assert!(sealed || file.windows(says.len()).any(|bytes| bytes == says), "and its head");
    }
}

#[test]
fn a_pause_that_a_power_cut_ended_is_told_but_for_seconds() {
    let mut story = Story::new();
    let call = story.record("call_1", PCM);
    story.talk(12);
    for at in 600..2_000 {
        story.calls[call].slices.try_send(Slice { at, paused: true, ..Slice::default() }).unwrap();
        if at % 5 == 0 {
            story.turn();
        }
    }
    let mut story = story.again();
    story.wait(1);
    let finished = story.row("call_1").finished;
    assert!((18_000..=28_000).contains(&finished.paused_millis), "{finished:?}");
    assert!(finished.paused_millis + 12_000 <= finished.millis, "{finished:?}");
}

#[test]
fn an_encrypted_file_that_was_cut_off_opens_up_to_there() {
    let mut story = Story::new();
    story.encrypt_to = vec![PUBLIC_KEY.to_owned()];
    story.record("call_1", PCM);
    story.talk(20);
    let bytes = story.card.bytes("call_1.wav.age.part");
    story.card.put("call_1.wav.age.part", &bytes[..bytes.len() - 1_000], TODAY);
    let mut story = story.again();
    story.wait(1);
    let row = story.row("call_1");
    assert_eq!((row.state, row.finished.outcome), (TapeState::Kept, Outcome::Interrupted));
    assert!((17_000..20_000).contains(&row.finished.millis), "{}", row.finished.millis);
    let mut plain = Vec::new();
    let file = story.card.bytes("call_1.wav.age");
    let opened = crate::io::seal::open(PRIVATE_KEY, &mut file.as_slice(), &mut plain).unwrap();
    assert_eq!((opened.ticks * 20, opened.missing.is_some()), (row.finished.millis, true));
    let whole = tape::whole(&PCM, &mut plain.as_slice()).unwrap();
    assert_eq!(whole.ticks, opened.ticks);
}

#[test]
fn a_killed_process_loses_less_than_a_second() {
    let mut story = Story::new();
    story.record("call_1", PCM);
    story.record("call_2", OGG);
    story.talk(20);
    let mut story = story.again();
    story.wait(1);
    for call in ["call_1", "call_2"] {
        let row = story.row(call);
        assert_eq!((row.state, row.finished.outcome), (TapeState::Kept, Outcome::Interrupted));
        assert!(row.finished.millis > 19_000, "{}", row.finished.millis);
    }
    assert_eq!(story.card.names(), ["call_1.wav", "call_2.ogg"]);
}

#[test]
fn a_file_without_a_row_gets_one() {
    for form in [PCM, ALAW, OGG] {
        let (bytes, _) = part(form);
        let mut story = Story::new();
        story.card.put(&format!("call_7.{}.part", form.extension()), &bytes, Wall(TODAY.0 - DAY));
        story.wait(1);
        let row = story.row("call_7");
        assert_eq!((row.state, row.finished.outcome), (TapeState::Kept, Outcome::Interrupted));
        assert_eq!(
            Form::parse(&row.form).map(|found| (found.kind, found.rate)),
            Some((form.kind, form.rate))
        );
        assert_eq!(row.began_at, Wall(TODAY.0 - DAY));
        let expires = row.expires_at.unwrap().0 - TODAY.0;
        assert!((30 * DAY..30 * DAY + 2_000).contains(&expires));
    }
}

/// A finished file, as it lies on the card.
fn whole(form: Form, sealed: bool) -> (String, Vec<u8>) {
    let mut story = Story::new();
    if sealed {
        story.encrypt_to = vec![PUBLIC_KEY.to_owned()];
    }
    let call = story.record("call_7", form);
    story.talk(12);
    story.hang_up(call);
    story.wait(1);
    let name = story.card.names().remove(0);
    let bytes = story.card.bytes(&name);
    (name, bytes)
}

#[test]
fn finished_files_whose_rows_were_lost_get_them_again_and_are_kept_no_longer_than_promised() {
    for (form, sealed) in [(PCM, false), (ALAW, false), (OGG, false), (PCM, true)] {
        let (name, bytes) = whole(form, sealed);
        let mut story = Story::new();
        let of_number = ("shop".to_owned(), ("acme".to_owned(), 10));
        story.shared.settings.lock().unwrap().numbers = BTreeMap::from([of_number]);
        story.card.put(&name, &bytes, Wall(TODAY.0 - 2 * DAY));
        story.card.put("notes.wav", &bytes, Wall(TODAY.0 - 2 * DAY));
        story.wait(1);
        let row = story.row("call_7");
        assert_eq!((row.state, row.local, row.encrypted), (TapeState::Kept, true, sealed));
        assert_eq!((row.finished.millis, row.finished.bytes), (12_000, bytes.len() as u64));
        assert_eq!(row.finished.sha256.len(), 64);
        // Of a sealed one nobody here knows whose it is, nor how it ended.
        let (number, account, days, outcome) = match sealed {
            false => ("shop", "acme", 10, Outcome::Complete),
            true => ("", "", 30, Outcome::Interrupted),
        };
        assert_eq!((row.number.as_str(), row.account.as_str()), (number, account), "{name}");
        assert_eq!((row.finished.outcome, row.finished.error.is_some()), (outcome, sealed));
        assert_eq!(row.expires_at, Some(Wall(TODAY.0 + (days - 2) * DAY)));
        story.sleep(Duration::from_secs(86_400) * 31);
        assert_eq!(story.card.names(), ["notes.wav"], "that is none of ours");
    }
}

#[test]
fn a_file_that_was_whole_when_the_process_died_is_told_as_it_came_out() {
    let (name, bytes) = whole(PCM, false);
    let mut story = Story::new();
    story.card.put(&name, &bytes, TODAY);
    let row = TapeRow { call: "call_7".to_owned(), file: name, ..running(PCM) };
    story.ledger.lock().unwrap().tape_begun(&row).unwrap();
    story.wait(1);
    let finished = story.row("call_7").finished;
    assert_eq!((finished.outcome, finished.millis, finished.error), (Outcome::Complete, 12_000, None));
}

#[test]
fn a_recording_that_the_process_had_no_time_to_read_gets_its_sum_at_the_next_start() {
    let (name, bytes) = whole(PCM, false);
    let mut story = Story::new();
    story.card.put(&name, &bytes, TODAY);
    {
        let mut ledger = story.ledger.lock().unwrap();
        let row = TapeRow { call: "call_7".to_owned(), file: name, ..running(PCM) };
        ledger.tape_begun(&row).unwrap();
        let finished = Finished { outcome: Outcome::Complete, millis: 12_000, ..Finished::default() };
        ledger.tape_finished("call_7", &finished, TapeState::Kept, None, false, TODAY).unwrap();
    }
    story.wait(1);
    let finished = story.row("call_7").finished;
    assert_eq!((finished.bytes, finished.sha256.len()), (bytes.len() as u64, 64));
    assert_eq!((finished.outcome, finished.millis), (Outcome::Complete, 12_000));
}

#[test]
fn a_recording_that_was_given_up_while_its_disk_was_away_is_taken_in_when_it_is_back() {
    let (name, bytes) = whole(PCM, false);
    let mut story = Story::new();
    let row = TapeRow { call: "call_7".to_owned(), file: name.clone(), ..running(PCM) };
    story.ledger.lock().unwrap().tape_begun(&row).unwrap();
    story.wait(1);
    assert_eq!(story.row("call_7").state, TapeState::Failed);
    story.card.put(&name, &bytes, TODAY);
    story.sleep(Duration::from_secs(3_900));
    let row = story.row("call_7");
    assert_eq!((row.state, row.local, row.finished.outcome), (TapeState::Kept, true, Outcome::Complete));
}

#[test]
fn what_nobody_can_read_is_kept_under_another_name() {
    let mut story = Story::new();
    story.card.put("call_1.wav.part", &[0x5A; 100_000], TODAY);
    story.ledger.lock().unwrap().tape_begun(&running(PCM)).unwrap();
    story.wait(1);
    assert_eq!(story.card.names(), ["call_1.wav.damaged"]);
    assert_eq!(story.card.bytes("call_1.wav.damaged"), [0x5A; 100_000]);
    let row = story.row("call_1");
    assert_eq!((row.state, row.finished.outcome), (TapeState::Failed, Outcome::Failed));
    assert!(row.finished.error.unwrap_or_default().contains("can't be read"));
}

#[test]
fn a_row_whose_file_was_finished_or_never_made_is_closed() {
    let (bytes, _) = part(PCM);
    let mut story = Story::new();
    story.card.put("call_1.wav", &bytes, TODAY);
    let gone = TapeRow { call: "call_2".to_owned(), file: "call_2.wav".to_owned(), ..running(PCM) };
    for row in [&running(PCM), &gone] {
        story.ledger.lock().unwrap().tape_begun(row).unwrap();
    }
    story.wait(1);
    let row = story.row("call_1");
    assert_eq!((row.state, row.finished.outcome), (TapeState::Kept, Outcome::Interrupted));
    assert_eq!((row.finished.bytes, row.finished.sha256.len()), (bytes.len() as u64, 64));
    assert!(row.finished.millis >= 18_000);
    let row = story.row("call_2");
    assert_eq!((row.state, row.finished.outcome), (TapeState::Failed, Outcome::Failed));
}

#[test]
fn a_recording_of_this_life_is_not_taken_for_one_that_was_cut_off() {
    let mut story = Story::new();
    story.drain.turn(story.now.tick);
    let call = story.record("call_1", PCM);
    // The file is there before the folder is looked at.
    while let Ok(opening) = story.opened.try_recv() {
        story.writer.begin(opening, story.now);
    }
    story.writer.turn(story.now);
    assert_eq!(story.card.names(), ["call_1.wav.part"]);
    story.talk(3);
    assert_eq!(story.card.names(), ["call_1.wav.part"]);
    story.hang_up(call);
    story.wait(1);
    assert_eq!(story.finished().outcome, Outcome::Complete);
}

#[test]
fn a_file_that_is_none_of_ours_is_left_alone() {
    let mut story = Story::new();
    story.card.put("holiday.mp4.part", b"film", TODAY);
    story.card.put("notes.txt", b"text", Wall(TODAY.0 - 3 * DAY));
    story.wait(1);
    assert_eq!(story.card.names(), ["holiday.mp4.part", "notes.txt"]);
    assert_eq!(story.card.bytes("holiday.mp4.part"), b"film");
}

#[test]
fn a_disk_that_fails_while_it_is_mended_leaves_the_file_for_the_next_start() {
    let (bytes, _) = part(OGG);
    let mut story = Story::new();
    story.card.put("call_1.ogg.part", &bytes[..bytes.len() - 7], TODAY);
    story.ledger.lock().unwrap().tape_begun(&running(OGG)).unwrap();
    story.card.die(true);
    story.wait(1);
    assert_eq!(story.card.names(), ["call_1.ogg.part"]);
    assert_eq!(story.row("call_1").state, TapeState::Running);
    story.card.die(false);
    let mut story = story.again();
    story.wait(1);
    assert_eq!(story.card.names(), ["call_1.ogg"]);
    assert_eq!(story.row("call_1").state, TapeState::Kept);
}
