//! Recordings go when their time has come, and not a day earlier, whatever the clock says.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// A finished recording that is to go then.
fn keep(story: &Story, call: &str, began: Wall, expires: Option<Wall>, bytes: u64) {
    let file = format!("{call}.wav");
    story.card.put(&file, &vec![1; bytes as usize], began);
    let mut ledger = story.ledger.lock().unwrap();
    let running = TapeRow { state: TapeState::Running, began_at: began, ..row(call) };
    ledger.tape_begun(&running).unwrap();
    let finished = Finished { outcome: Outcome::Complete, millis: 1_000, bytes, ..Finished::default() };
    assert!(ledger.tape_finished(call, &finished, TapeState::Kept, expires, false, began).unwrap());
}

fn in_days(days: i64) -> Option<Wall> {
    Some(Wall(TODAY.0 + days * DAY))
}

#[test]
fn a_recording_goes_when_it_is_old_and_the_audit_says_so() {
    let mut story = Story::new();
    keep(&story, "call_1", TODAY, in_days(1), 100);
    keep(&story, "call_2", TODAY, in_days(3), 100);
    keep(&story, "call_3", TODAY, None, 100);
    story.sleep(HOUR * 23);
    assert_eq!(story.card.names(), ["call_1.wav", "call_2.wav", "call_3.wav"]);
    story.sleep(HOUR * 2);
    assert_eq!(story.card.names(), ["call_2.wav", "call_3.wav"]);
    let row = story.row("call_1");
    assert_eq!(
        (row.state, row.local, row.deleted_by.as_deref()),
        (TapeState::Deleted, false, Some("retention"))
    );
    story.sleep(HOUR * 48);
    assert_eq!(story.card.names(), ["call_3.wav"], "0 days: for ever");
    let audits = story.ledger.lock().unwrap().audits(10, None).unwrap();
    assert_eq!(audits.len(), 2);
    assert!(audits.iter().all(|audit| audit.who == "retention" && audit.action == "recording.deleted"));
}

#[test]
fn more_than_one_batch_goes_at_once() {
    let mut story = Story::new();
    for n in 0..250 {
        keep(&story, &format!("call_{n}"), TODAY, in_days(0), 1);
    }
    story.sleep(Duration::from_secs(900));
    assert_eq!(story.card.names(), Vec::<String>::new());
}

#[test]
fn above_the_quota_the_oldest_go_first() {
    let mut story = Story::new();
    story.shared.settings.lock().unwrap().max_mib = 2;
    for (n, days) in [(1, -1), (2, -3), (3, -2)] {
        keep(&story, &format!("call_{n}"), in_days(days).unwrap(), in_days(30), 900_000);
    }
    story.sleep(HOUR);
    assert_eq!(story.card.names(), ["call_1.wav", "call_3.wav"]);
    assert_eq!(story.row("call_2").deleted_by.as_deref(), Some("quota"));
    story.shared.settings.lock().unwrap().max_mib = 1;
    story.sleep(HOUR);
    assert_eq!(story.card.names(), ["call_1.wav"], "a reload has made the quota smaller");
}

#[test]
fn the_quota_holds_also_while_the_clock_is_not_believed() {
    let mut story = Story::new();
    story.shared.settings.lock().unwrap().max_mib = 1;
    keep(&story, "call_1", in_days(-9).unwrap(), in_days(-1), 600_000);
    keep(&story, "call_2", in_days(-2).unwrap(), in_days(-1), 600_000);
    story.sleep(Duration::from_secs(300));
    assert_eq!(story.card.names(), ["call_2.wav"], "too much is too much; of age nothing goes yet");
    assert_eq!(story.row("call_1").deleted_by.as_deref(), Some("quota"));
}

#[test]
fn a_clock_that_jumps_ahead_deletes_nothing_and_back_again_neither() {
    let mut story = Story::new();
    keep(&story, "call_1", TODAY, in_days(30), 100);
    story.sleep(HOUR);
    story.jump(3_650);
    story.sleep(Duration::from_secs(1_800));
    assert_eq!(story.card.names(), ["call_1.wav"]);
    story.jump(-3_650);
    story.sleep(HOUR * 24 * 20);
    assert_eq!(story.card.names(), ["call_1.wav"]);
    story.sleep(HOUR * 24 * 11);
    assert_eq!(story.card.names(), Vec::<String>::new());
}

#[test]
fn a_recording_of_1970_is_kept_as_long_as_was_promised_once_the_clock_is_right() {
    let mut story = Story::new();
    story.now.wall = Wall(1_000_000);
    let call = story.record("call_1", PCM);
    story.talk(2);
    story.hang_up(call);
    story.wait(1);
    assert!(story.row("call_1").expires_at.unwrap().0 < 31 * DAY);
    story.sleep(HOUR);
    story.now.wall = TODAY;
    story.sleep(HOUR * 24 * 29);
    assert_eq!(story.card.names(), ["call_1.wav"]);
    story.sleep(HOUR * 24 * 2);
    assert_eq!(story.card.names(), Vec::<String>::new());
}

#[test]
fn a_recording_of_1970_survives_a_restart_with_the_right_clock() {
    let mut story = Story::new();
    keep(&story, "call_1", Wall(1_000_000), Some(Wall(1_000_000 + 30 * DAY)), 100);
    story.sleep(HOUR * 24 * 29);
    assert_eq!(story.card.names(), ["call_1.wav"]);
    story.sleep(HOUR * 24 * 2);
    assert_eq!(story.card.names(), Vec::<String>::new());
}

#[test]
fn a_call_that_is_being_recorded_is_never_deleted() {
    let mut story = Story::new();
    story.shared.settings.lock().unwrap().max_mib = 1;
    let call = story.record_for("call_1", PCM, 1, false);
    story.talk(60);
    story.sleep(HOUR * 49);
    assert_eq!(story.card.names(), ["call_1.wav.part"]);
    story.hang_up(call);
    story.wait(2);
    assert_eq!(story.finished().outcome, Outcome::Complete);
}

#[test]
fn a_row_whose_file_is_gone_says_so_unless_all_are() {
    let mut story = Story::new();
    for n in 1..4 {
        keep(&story, &format!("call_{n}"), TODAY, None, 100);
    }
    story.card.lose("call_2.wav");
    story.wait(1);
    let row = story.row("call_2");
    assert_eq!((row.state, row.deleted_by.as_deref()), (TapeState::Deleted, Some("missing")));
    for call in ["call_1.wav", "call_3.wav"] {
        story.card.lose(call);
    }
    let mut story = story.again();
    story.wait(1);
    for call in ["call_1", "call_3"] {
        assert_eq!(story.row(call).state, TapeState::Kept, "the disk is not mounted");
    }
}

#[test]
fn a_file_that_was_missing_and_is_there_again_is_kept_as_long_as_was_promised() {
    let mut story = Story::new();
    for n in 1..4 {
        keep(&story, &format!("call_{n}"), TODAY, in_days(2), 100);
    }
    let bytes = story.card.bytes("call_2.wav");
    story.card.lose("call_2.wav");
    story.wait(1);
    assert_eq!(story.row("call_2").state, TapeState::Deleted);
    story.card.put("call_2.wav", &bytes, TODAY);
    story.sleep(HOUR * 2);
    let row = story.row("call_2");
    assert_eq!(
        (row.state, row.local, row.deleted_by, row.expires_at),
        (TapeState::Kept, true, None, in_days(2))
    );
    assert_eq!(story.card.bytes("call_2.wav"), bytes);
    story.sleep(HOUR * 48);
    assert_eq!(story.card.names(), Vec::<String>::new());
    assert_eq!(story.row("call_2").deleted_by.as_deref(), Some("retention"));
}

#[test]
fn a_file_that_was_deleted_or_moved_and_is_still_there_goes() {
    let mut story = Story::new();
    for n in 1..4 {
        keep(&story, &format!("call_{n}"), TODAY, None, 100);
    }
    {
        // A power cut between the row and the file.
        let mut ledger = story.ledger.lock().unwrap();
        ledger.tape_deleted("call_1", "key:billing", "by the API", TODAY).unwrap();
        let again = TapeRow { state: TapeState::Running, ..row("call_4") };
        ledger.tape_begun(&again).unwrap();
        let finished = Finished { outcome: Outcome::Complete, bytes: 100, ..Finished::default() };
        ledger.tape_finished("call_4", &finished, TapeState::Kept, None, true, TODAY).unwrap();
        ledger.upload_done("call_4", "s3://b/call_4.wav", false, TODAY).unwrap();
    }
    story.card.put("call_4.wav", &[1; 100], TODAY);
    story.wait(1);
    assert_eq!(story.card.names(), ["call_2.wav", "call_3.wav"]);
    assert_eq!(story.row("call_1").deleted_by.as_deref(), Some("key:billing"));
}

#[test]
fn what_waits_for_its_upload_is_never_too_much_unless_nothing_is_uploaded() {
    let mut story = Story::new();
    {
        let mut settings = story.shared.settings.lock().unwrap();
        (settings.max_mib, settings.upload) = (1, true);
    }
    for (n, upload) in [(1, true), (2, false), (3, true)] {
        let call = format!("call_{n}");
        story.card.put(&format!("{call}.wav"), &[1; 900_000], TODAY);
        let mut ledger = story.ledger.lock().unwrap();
        ledger.tape_begun(&TapeRow { state: TapeState::Running, ..row(&call) }).unwrap();
        let finished = Finished { outcome: Outcome::Complete, bytes: 900_000, ..Finished::default() };
        ledger.tape_finished(&call, &finished, TapeState::Kept, in_days(1), upload, TODAY).unwrap();
    }
    story.sleep(HOUR * 3);
    assert_eq!(story.card.names(), ["call_1.wav", "call_3.wav"], "there is no other copy");
    assert_eq!(story.row("call_1").upload, UploadState::Waiting);
    story.shared.settings.lock().unwrap().upload = false;
    story.sleep(HOUR);
    assert_eq!(story.card.names(), ["call_3.wav"], "nobody will send them");
    story.sleep(HOUR * 24);
    assert_eq!(story.card.names(), Vec::<String>::new(), "age counts in any case");
}

#[test]
fn a_damaged_file_goes_when_it_is_as_old_as_a_recording_may_be() {
    let mut story = Story::new();
    story.card.put("call_1.wav.damaged", &[0x5A; 10_000], TODAY);
    story.card.put("holiday.damaged", b"film", TODAY);
    story.sleep(HOUR * 24 * 29);
    assert_eq!(story.card.names(), ["call_1.wav.damaged", "holiday.damaged"]);
    story.sleep(HOUR * 24 * 2);
    assert_eq!(story.card.names(), ["holiday.damaged"], "that is none of ours");
}

#[test]
fn a_file_that_can_not_be_deleted_is_tried_again() {
    let mut story = Story::new();
    keep(&story, "call_1", TODAY, in_days(0), 100);
    story.wait(1);
    story.card.die(true);
    story.sleep(HOUR);
    assert_eq!(story.row("call_1").state, TapeState::Kept);
    story.card.die(false);
    story.sleep(HOUR);
    assert_eq!((story.row("call_1").state, story.card.names().len()), (TapeState::Deleted, 0));
}
