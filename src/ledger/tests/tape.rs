//! The life of a recording's file, its part in the call, and the audit log.

use super::*;
use crate::ledger::cost::Billing;

const DAY: i64 = 86_400_000;

/// Two cents a minute.
fn rate() -> Decimal {
    Decimal::new(2, 2)
}

/// A recording of this call that has just begun.
pub(super) fn running(n: u32) -> TapeRow {
    TapeRow {
        number: "support".into(),
        account: "acme".into(),
        ..TapeRow::begun(
            &call(n).id,
            format!("{}.ogg", call(n).id),
            "ogg-16000-16000".into(),
            Wall(1_700_000_008_000 + i64::from(n)),
        )
    }
}

/// 90.5 seconds, of which half a second was paused, in 1,000 bytes.
fn facts() -> Finished {
    Finished {
        outcome: Outcome::Complete,
        millis: 90_500,
        paused_millis: 500,
        lost_millis: 0,
        bytes: 1_000,
        sha256: "ab12".into(),
        error: None,
    }
}

/// A recording that is finished and kept.
fn kept(ledger: &mut Ledger, n: u32, expires_at: Option<Wall>, upload: bool) {
    ledger.tape_begun(&running(n)).unwrap();
    let id = call(n).id;
    assert!(ledger.tape_finished(&id, &facts(), TapeState::Kept, expires_at, upload, Wall(1_000)).unwrap());
}

fn calls(rows: &[TapeRow]) -> Vec<String> {
    rows.iter().map(|row| row.call.clone()).collect()
}

fn named(numbers: &[u32]) -> Vec<String> {
    numbers.iter().map(|n| call(*n).id).collect()
}

/// What the prompt's part of the record says while the file is still being written.
fn agreed() -> RecordingPart {
    RecordingPart {
        prompt: "builtin:pt".into(),
        announced_to_both: false,
        prompted_at: Some(Wall(1_700_000_004_500)),
        consent: Consent::Agreed,
        began_at: Some(Wall(1_700_000_008_000)),
        format: "ogg",
        encrypted: false,
        file: Finished { outcome: Outcome::Running, ..Finished::default() },
    }
}

fn over(n: u32, tape: Option<RecordingPart>) -> Record {
    Record { tape: tape.map(Box::new), recording: true, ..call(n) }
}

fn bill(recording_seconds: u64, recording: Decimal) -> Billing {
    Billing::of(10, 60, recording_seconds, [Decimal::new(1, 2), Decimal::new(5, 3), recording])
}

/// The tape, the recorded seconds and their cost of a call's row.
fn charged(ledger: &Ledger, n: u32) -> (Option<Box<RecordingPart>>, u64, Decimal) {
    let row = ledger.call(&call(n).id).unwrap().unwrap();
    let billing = row.billing.unwrap();
    (row.end.unwrap().tape, billing.recording_seconds, billing.recording_cost)
}

fn billable(ledger: &Ledger) -> Decimal {
    let all = UsageQuery {
        since: Wall(0),
        until: Wall(i64::MAX),
        channel: None,
        number: None,
        group: Some(Group::Day),
    };
    ledger.usage(&all).unwrap().totals.billable_usd
}

#[test]
fn a_recording_is_found_while_it_runs_and_when_it_is_kept_also_after_a_restart() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let id = call(1).id;
    assert_eq!(ledger.tape(&id).unwrap(), None);
    ledger.tape_begun(&running(1)).unwrap();
    ledger.tape_begun(&running(1)).unwrap();
    assert_eq!(ledger.tape(&id).unwrap(), Some(running(1)));
    assert_eq!(ledger.tapes_running().unwrap(), [running(1)]);
    drop(ledger);

    let mut ledger = folder.open();
    assert_eq!(ledger.tapes_running().unwrap(), [running(1)]);
    let expires_at = Some(Wall(30 * DAY));
    assert!(ledger.tape_finished(&id, &facts(), TapeState::Kept, expires_at, true, Wall(9)).unwrap());
    let expected = TapeRow {
        state: TapeState::Kept,
        finished: facts(),
        expires_at,
        upload: UploadState::Waiting,
        upload_next: Some(Wall(9)),
        ..running(1)
    };
    drop(ledger);
    let mut ledger = folder.open();
    assert_eq!(ledger.tape(&id).unwrap(), Some(expected.clone()));
    assert_eq!(ledger.tapes_running().unwrap(), []);

    // Repeating a step that was taken changes nothing.
    ledger.tape_begun(&running(1)).unwrap();
    let again = Finished { bytes: 5, ..facts() };
    assert!(!ledger.tape_finished(&id, &again, TapeState::Failed, None, false, Wall(10)).unwrap());
    assert_eq!(ledger.tape(&id).unwrap(), Some(expected));
    assert!(!ledger.tape_finished("call_none", &facts(), TapeState::Kept, None, false, Wall(9)).unwrap());
}

#[test]
fn a_recording_that_failed_takes_no_room_and_expires_never() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.tape_begun(&running(1)).unwrap();
    let failed = Finished {
        outcome: Outcome::Failed,
        millis: 700,
        error: Some("é".repeat(5_000)),
        ..Finished::default()
    };
    let id = call(1).id;
    ledger.tape_finished(&id, &failed, TapeState::Failed, Some(Wall(5)), true, Wall(1)).unwrap();
    let row = ledger.tape(&id).unwrap().unwrap();
    assert_eq!((row.state, row.local, row.expires_at), (TapeState::Failed, false, None));
    assert_eq!((row.upload, row.upload_next), (UploadState::None, None));
    assert_eq!(row.finished.error.unwrap(), "é".repeat(500), "no sentence fills the disk");
    assert_eq!(ledger.tape_bytes().unwrap(), (0, 0));
    assert_eq!(ledger.tapes_expired(Wall(i64::MAX), 10).unwrap(), []);
    assert!(!ledger.tape_deleted(&id, "cli", "asked", Wall(2)).unwrap());

    // The disk has room again: the same call may be recorded after all.
    ledger.tape_begun(&running(1)).unwrap();
    assert_eq!(ledger.tape(&id).unwrap(), Some(running(1)));
}

#[test]
fn a_recording_that_is_finished_after_the_call_gives_it_its_facts_seconds_and_cost() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.charge(rate());
    ledger.tape_begun(&running(1)).unwrap();
    ledger.close(&over(1, Some(agreed())), &bill(0, Decimal::ZERO), &[]).unwrap();
    let (tape, seconds, cost) = charged(&ledger, 1);
    assert_eq!((tape.unwrap().file.outcome, seconds, cost), (Outcome::Running, 0, Decimal::ZERO));
    let before = billable(&ledger);

    ledger.tape_finished(&call(1).id, &facts(), TapeState::Kept, None, false, Wall(9)).unwrap();
    let (tape, seconds, cost) = charged(&ledger, 1);
    assert_eq!(tape.map(|tape| *tape), Some(RecordingPart { file: facts(), ..agreed() }));
    // 90 seconds: the pause is not paid for.
    assert_eq!((seconds, cost), (90, Decimal::new(3, 2)));
    let billing = ledger.call(&call(1).id).unwrap().unwrap().billing.unwrap();
    assert_eq!((billing.billable_cost, billing.total_cost), (Decimal::new(35, 3), Decimal::new(45, 3)));
    assert_eq!((billing.meta_pulses, billing.carrier_seconds), (10, 60), "the rest of the bill stays");
    assert_eq!(billable(&ledger) - before, Decimal::new(3, 2), "sums know it too");
    let (rows, _) = ledger.calls(&CallQuery::default()).unwrap();
    assert_eq!(rows[0].billing, Some(billing), "and so do lists");
}

#[test]
fn a_recording_that_is_finished_before_the_call_is_closed_is_on_its_row_all_the_same() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.charge(rate());
    ledger.note(&ringing(1)).unwrap();
    kept(&mut ledger, 1, None, false);
    // The gateway made its record when it had not heard of the end yet, but asks before it makes the bill.
    let mut record = over(1, Some(agreed()));
    let tape = ledger.taped(&record).unwrap();
    let expected = RecordingPart { file: facts(), ..agreed() };
    assert_eq!(tape.as_deref(), Some(&expected));
    assert_eq!(recorded(&expected.file), Duration::from_secs(90));
    ledger.close(&record, &bill(0, Decimal::ZERO), &[]).unwrap();
    let (tape, seconds, cost) = charged(&ledger, 1);
    assert_eq!((tape.as_deref(), seconds, cost), (Some(&expected), 90, Decimal::new(3, 2)));

    // A price that was made for these seconds is not made again.
    kept(&mut ledger, 2, None, false);
    record = over(2, Some(expected.clone()));
    ledger.close(&record, &bill(90, Decimal::new(7, 2)), &[]).unwrap();
    let (_, seconds, cost) = charged(&ledger, 2);
    assert_eq!((seconds, cost), (90, Decimal::new(7, 2)));
}

#[test]
fn pauses_and_what_was_never_written_are_not_paid_for() {
    let seconds = |outcome: Outcome| recorded(&Finished { outcome, ..facts() }).as_secs_f64();
    for outcome in [Outcome::Complete, Outcome::Gaps, Outcome::Interrupted, Outcome::Running] {
        assert_eq!(seconds(outcome), 90.0, "{outcome:?}");
    }
    assert_eq!((seconds(Outcome::Failed), seconds(Outcome::Nothing)), (0.0, 0.0));
    let odd = Finished { paused_millis: u64::MAX, ..facts() };
    assert_eq!(recorded(&odd), Duration::ZERO);

    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.charge(rate());
    ledger.tape_begun(&running(1)).unwrap();
    ledger.close(&over(1, Some(agreed())), &bill(0, Decimal::ZERO), &[]).unwrap();
    let failed = Finished { outcome: Outcome::Failed, ..facts() };
    ledger.tape_finished(&call(1).id, &failed, TapeState::Failed, None, false, Wall(9)).unwrap();
    let (tape, seconds, cost) = charged(&ledger, 1);
    assert_eq!((tape.unwrap().file, seconds, cost), (failed, 0, Decimal::ZERO));
}

#[test]
fn a_call_that_a_crash_cut_off_says_what_was_kept_of_its_recording() {
    // Either may come first at the next start: the repair of the file, or the closing of the call.
    for repaired_first in [true, false] {
        let folder = Folder::new();
        let mut ledger = folder.open();
        ledger.charge(rate());
        let answered = Running { answered_at: call(1).answered_at, recording: true, ..ringing(1) };
        ledger.note(&answered).unwrap();
        ledger.tape_begun(&running(1)).unwrap();
        drop(ledger);

        let mut ledger = folder.open();
        ledger.charge(rate());
        let file = Finished { outcome: Outcome::Interrupted, ..facts() };
        let repair = |ledger: &mut Ledger| {
            let row = ledger.tapes_running().unwrap().remove(0);
            ledger.tape_finished(&row.call, &file, TapeState::Kept, None, false, Wall(9)).unwrap()
        };
        let close = |ledger: &mut Ledger| {
            let found = ledger.interrupted().unwrap().remove(0);
            let record = Record::interrupted(found, Wall(1_700_000_099_000));
            assert_eq!(record.tape, None, "the record itself knows nothing of it");
            ledger.close(&record, &bill(0, Decimal::ZERO), &[]).unwrap();
        };
        if repaired_first {
            assert!(repair(&mut ledger));
            close(&mut ledger);
        } else {
            close(&mut ledger);
            assert!(repair(&mut ledger));
        }
        let (tape, seconds, cost) = charged(&ledger, 1);
        let tape = tape.unwrap();
        assert_eq!((tape.began_at, tape.format), (Some(running(1).began_at), "ogg"));
        assert_eq!((tape.file, tape.encrypted), (file, false));
        assert_eq!(tape.consent, Consent::Unknown, "nobody has written down what was answered");
        assert_eq!((seconds, cost), (90, Decimal::new(3, 2)));
    }
}

#[test]
fn what_the_user_agreed_to_outlives_a_crash() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.note(&ringing(1)).unwrap();
    ledger.tape_agreed(&call(1).id, &agreed(), Wall(5)).unwrap();
    ledger.tape_begun(&running(1)).unwrap();
    // A later note of the running call does not take it away.
    ledger.note(&Running { answered_at: call(1).answered_at, ..ringing(1) }).unwrap();
    drop(ledger);

    let mut ledger = folder.open();
    let file = Finished { outcome: Outcome::Interrupted, ..facts() };
    ledger.tape_finished(&call(1).id, &file, TapeState::Kept, None, false, Wall(9)).unwrap();
    let record = Record::interrupted(ledger.interrupted().unwrap().remove(0), Wall(10));
    let expected = RecordingPart { file, ..agreed() };
    assert_eq!(ledger.taped(&record).unwrap().as_deref(), Some(&expected));
    ledger.close(&record, &bill(0, Decimal::ZERO), &[]).unwrap();
    assert_eq!(charged(&ledger, 1).0.as_deref(), Some(&expected));

    // A closed call stays as it is.
    ledger.tape_agreed(&call(1).id, &RecordingPart::default(), Wall(11)).unwrap();
    assert_eq!(charged(&ledger, 1).0.as_deref(), Some(&expected));
}

#[test]
fn a_call_without_a_bill_gets_the_facts_and_no_bill() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.charge(rate());
    ledger.tape_begun(&running(1)).unwrap();
    ledger.insert(&over(1, Some(agreed()))).unwrap();
    ledger.tape_finished(&call(1).id, &facts(), TapeState::Kept, None, false, Wall(9)).unwrap();
    let row = ledger.call(&call(1).id).unwrap().unwrap();
    assert_eq!((row.end.unwrap().tape.unwrap().file, row.billing), (facts(), None));
}

#[test]
fn every_consent_and_outcome_comes_back_as_it_was_written() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let consents =
        [Consent::Unfinished, Consent::Announced, Consent::Agreed, Consent::Declined, Consent::Unknown];
    let outcomes = [
        Outcome::Nothing,
        Outcome::Running,
        Outcome::Complete,
        Outcome::Gaps,
        Outcome::Interrupted,
        Outcome::Failed,
    ];
    let mut n = 0;
    for consent in consents {
        for outcome in outcomes {
            n += 1;
            let file = Finished { outcome, bytes: u64::MAX, ..Finished::default() };
            let part = RecordingPart { consent, file, ..RecordingPart::default() };
            let record = over(n, Some(part));
            ledger.insert(&record).unwrap();
            assert_eq!(ledger.list(&Filter { limit: 1, ..Filter::default() }).unwrap(), [record]);
        }
    }
    ledger
        .connection
        .execute("UPDATE calls SET tape = '{\"prompt\": 7' WHERE id = ?1", [call(1).id])
        .unwrap();
    assert_eq!(ledger.call(&call(1).id).unwrap().unwrap().end.unwrap().tape, None, "the call is still shown");
}

#[test]
fn recordings_go_when_their_time_is_over_and_not_before() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    kept(&mut ledger, 1, Some(Wall(300)), false);
    kept(&mut ledger, 2, Some(Wall(100)), true);
    kept(&mut ledger, 3, Some(Wall(301)), false);
    kept(&mut ledger, 4, None, false);
    ledger.tape_begun(&TapeRow { expires_at: Some(Wall(1)), ..running(5) }).unwrap();
    assert_eq!(calls(&ledger.tapes_expired(Wall(99), 10).unwrap()), named(&[]));
    assert_eq!(calls(&ledger.tapes_expired(Wall(300), 10).unwrap()), named(&[2, 1]));
    assert_eq!(calls(&ledger.tapes_expired(Wall(300), 1).unwrap()), named(&[2]));
    assert!(ledger.tape_deleted(&call(2).id, "retention", "30 days are over", Wall(300)).unwrap());
    assert_eq!(calls(&ledger.tapes_expired(Wall(i64::MAX), 10).unwrap()), named(&[1, 3]));
}

#[test]
fn when_room_is_short_the_oldest_go_first_and_those_that_wait_for_their_upload_last() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 1..=5 {
        // 1 and 3 wait for an upload.
        kept(&mut ledger, n, None, n % 2 == 1 && n < 5);
    }
    ledger.tape_begun(&running(6)).unwrap();
    assert_eq!(ledger.tape_bytes().unwrap(), (6, 5_000));
    let beyond = |ledger: &Ledger, max: u64| calls(&ledger.tapes_beyond(max).unwrap());
    assert_eq!(beyond(&ledger, 5_000), named(&[]));
    assert_eq!(beyond(&ledger, 4_999), named(&[2]));
    assert_eq!(beyond(&ledger, 3_000), named(&[2, 4]));
    assert_eq!(beyond(&ledger, 1_500), named(&[2, 4, 5, 1]));
    assert_eq!(beyond(&ledger, 1), named(&[2, 4, 5, 1, 3]), "never one that runs");
    assert_eq!(beyond(&ledger, 0), named(&[]), "no limit");

    // What was uploaded and is not here any more takes no room, and neither does what was deleted.
    ledger.upload_done(&call(1).id, "s3://b/1", false, Wall(9)).unwrap();
    ledger.tape_deleted(&call(2).id, "quota", "no room", Wall(9)).unwrap();
    assert_eq!(ledger.tape_bytes().unwrap(), (4, 3_000));
    assert_eq!(beyond(&ledger, 1_000), named(&[4, 5]));
}

#[test]
fn a_deletion_is_told_with_who_and_why_once() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    kept(&mut ledger, 1, Some(Wall(DAY)), false);
    let id = call(1).id;
    assert!(ledger.tape_deleted(&id, "key:billing", "DELETE from 192.0.2.7", Wall(50)).unwrap());
    assert!(!ledger.tape_deleted(&id, "retention", "its time is over", Wall(60)).unwrap());
    assert!(!ledger.tape_deleted("call_none", "cli", "", Wall(60)).unwrap());
    let row = ledger.tape(&id).unwrap().unwrap();
    assert_eq!((row.state, row.local), (TapeState::Deleted, false));
    assert_eq!((row.deleted_at, row.deleted_by.as_deref()), (Some(Wall(50)), Some("key:billing")));
    assert_eq!(row.finished, facts(), "what it was stays known");
    let entry = Audit {
        id: 1,
        at: Wall(50),
        who: "key:billing".into(),
        action: "recording.deleted".into(),
        subject: id.clone(),
        detail: "DELETE from 192.0.2.7".into(),
    };
    assert_eq!(ledger.audits(10, None).unwrap(), [entry]);

    // One that still runs can't be deleted, and one that is deleted does not come back.
    ledger.tape_begun(&running(2)).unwrap();
    assert!(!ledger.tape_deleted(&call(2).id, "cli", "asked", Wall(60)).unwrap());
    ledger.tape_begun(&running(1)).unwrap();
    assert!(!ledger.tape_finished(&id, &facts(), TapeState::Kept, None, true, Wall(70)).unwrap());
    assert_eq!(ledger.tape(&id).unwrap().unwrap().state, TapeState::Deleted);
    assert_eq!(ledger.audits(10, None).unwrap().len(), 1);
}

#[test]
fn a_recording_that_goes_before_its_upload_is_told_so() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    kept(&mut ledger, 1, None, true);
    kept(&mut ledger, 2, None, true);
    ledger.upload_done(&call(2).id, "s3://b/2.ogg", true, Wall(1_500)).unwrap();
    for n in [1, 2] {
        assert!(ledger.tape_deleted(&call(n).id, "quota", "no room", Wall(2_000)).unwrap());
    }
    let details: Vec<String> =
        ledger.audits(2, None).unwrap().into_iter().map(|entry| entry.detail).collect();
    assert_eq!(details, ["no room; uploaded before to s3://b/2.ogg", "no room; it had not been uploaded"]);
    assert_eq!(ledger.uploads_due(Wall(i64::MAX), 10).unwrap(), []);
    let row = ledger.tape(&call(1).id).unwrap().unwrap();
    assert_eq!((row.upload, row.upload_next), (UploadState::GaveUp, None));
    assert!(!ledger.upload_failed(&call(1).id, "no file", Some(Wall(3_000)), Wall(2_001)).unwrap());

    // The upload was under way and the other end has it after all: that must not be forgotten.
    assert!(ledger.upload_done(&call(1).id, "s3://b/1.ogg", true, Wall(2_002)).unwrap());
    let row = ledger.tape(&call(1).id).unwrap().unwrap();
    assert_eq!((row.state, row.local), (TapeState::Deleted, false));
    assert_eq!((row.upload, row.uploaded_to.as_deref()), (UploadState::Done, Some("s3://b/1.ogg")));
}

#[test]
fn an_upload_is_tried_until_it_is_confirmed_or_given_up() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 1..=3 {
        kept(&mut ledger, n, None, true);
    }
    kept(&mut ledger, 4, None, false);
    assert_eq!(ledger.uploads_due(Wall(999), 10).unwrap(), []);
    assert_eq!(calls(&ledger.uploads_due(Wall(1_000), 10).unwrap()), named(&[1, 2, 3]));
    assert_eq!(calls(&ledger.uploads_due(Wall(1_000), 2).unwrap()), named(&[1, 2]));

    assert!(ledger.upload_failed(&call(1).id, "503", Some(Wall(5_000)), Wall(1_001)).unwrap());
    assert!(ledger.upload_failed(&call(2).id, "403", None, Wall(1_001)).unwrap());
    assert!(ledger.upload_done(&call(3).id, "s3://b/3.ogg", true, Wall(1_002)).unwrap());
    assert!(!ledger.upload_done(&call(3).id, "elsewhere", false, Wall(1_003)).unwrap(), "once");
    assert!(!ledger.upload_done(&call(4).id, "elsewhere", false, Wall(1_003)).unwrap(), "nobody asked");
    assert_eq!(ledger.uploads_due(Wall(4_999), 10).unwrap(), []);
    let due = ledger.uploads_due(Wall(5_000), 10).unwrap();
    assert_eq!(calls(&due), named(&[1]));
    assert_eq!((due[0].upload_tries, due[0].upload_error.as_deref()), (1, Some("503")));
    let gone = ledger.tape(&call(2).id).unwrap().unwrap();
    assert_eq!((gone.upload, gone.upload_tries, gone.local), (UploadState::GaveUp, 1, true));
    let done = ledger.tape(&call(3).id).unwrap().unwrap();
    assert_eq!((done.uploaded_at, done.uploaded_to.as_deref()), (Some(Wall(1_002)), Some("s3://b/3.ogg")));
    assert_eq!((done.state, done.local, done.upload_error), (TapeState::Kept, true, None));
    let entry = ledger.audits(1, None).unwrap().remove(0);
    assert_eq!((entry.action.as_str(), entry.detail.as_str()), ("recording.uploaded", "s3://b/3.ogg"));

    assert!(ledger.upload_done(&call(1).id, "s3://b/1.ogg", false, Wall(5_001)).unwrap());
    let moved = ledger.tape(&call(1).id).unwrap().unwrap();
    assert_eq!((moved.state, moved.local, moved.upload_tries), (TapeState::Kept, false, 2));
}

#[test]
fn an_upload_put_off_by_a_wrong_clock_is_tried_again_when_the_clock_is_right() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    kept(&mut ledger, 1, None, true);
    let wrong = Wall(4_000_000_000_000);
    ledger.upload_failed(&call(1).id, "503", Some(wrong), wrong).unwrap();
    let right = Wall(1_700_000_000_000);
    assert_eq!(calls(&ledger.uploads_due(right, 10).unwrap()), named(&[1]));
    // An hour or a day ahead is as it was meant.
    ledger.upload_failed(&call(1).id, "503", Some(Wall(right.0 + DAY)), right).unwrap();
    assert_eq!(ledger.uploads_due(right, 10).unwrap(), []);
}

#[test]
fn a_call_is_not_forgotten_while_its_recording_is_here() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let age = |row: TapeRow, n: u32| TapeRow { began_at: Wall(i64::from(n)), ..row };
    for n in 1..=4 {
        ledger.insert(&Record { offered_at: Wall(i64::from(n)), ..call(n) }).unwrap();
        ledger.tape_begun(&age(running(n), n)).unwrap();
        if n != 4 {
            let id = call(n).id;
            ledger
                .tape_finished(&id, &facts(), TapeState::Kept, Some(Wall(900 * DAY)), true, Wall(5))
                .unwrap();
        }
    }
    ledger.tape_deleted(&call(1).id, "cli", "asked", Wall(6)).unwrap();
    ledger.upload_done(&call(2).id, "s3://b/2", false, Wall(7)).unwrap();
    let pruned = ledger.prune(Wall(800 * DAY), Keep::default()).unwrap();
    assert_eq!((pruned.calls, pruned.recordings, pruned.audits, pruned.more), (2, 2, 0, false));
    let known = |ledger: &Ledger, n: u32| ledger.call(&call(n).id).unwrap().is_some();
    assert_eq!([1, 2, 3, 4].map(|n| known(&ledger, n)), [false, false, true, true]);
    assert_eq!(ledger.tape(&call(1).id).unwrap(), None);
    assert_eq!(ledger.tape(&call(2).id).unwrap(), None);
    assert_eq!(calls(&ledger.tapes_running().unwrap()), named(&[4]), "its file waits for its repair");
    assert_eq!(calls(&ledger.tapes_expired(Wall(900 * DAY), 10).unwrap()), named(&[3]));
    assert!(ledger.tape_deleted(&call(3).id, "retention", "its time is over", Wall(900 * DAY)).unwrap());
    let pruned = ledger.prune(Wall(900 * DAY), Keep::default()).unwrap();
    assert_eq!((pruned.calls, pruned.recordings), (1, 1));
    assert_eq!(ledger.audits(10, None).unwrap().len(), 3, "who deleted it is known for longer");
}

#[test]
fn the_audit_log_is_read_a_page_at_a_time_and_kept_for_ten_years() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 1..=5 {
        let who = format!("{n}{}", "é".repeat(4_000));
        ledger.audit(Wall(n * DAY), &who, "recording.read", "call_1", "").unwrap();
    }
    let page = |ledger: &Ledger, limit, before| -> Vec<i64> {
        ledger.audits(limit, before).unwrap().into_iter().map(|entry| entry.id).collect()
    };
    assert_eq!(page(&ledger, 2, None), [5, 4]);
    assert_eq!(page(&ledger, 2, Some(4)), [3, 2]);
    assert_eq!(page(&ledger, 2, Some(2)), [1]);
    assert_eq!(ledger.audits(1, None).unwrap()[0].who.len(), 999, "whole characters, and no novel");

    assert_eq!(ledger.prune(Wall(3_653 * DAY), Keep::default()).unwrap().audits, 0);
    assert_eq!(ledger.prune(Wall(3_656 * DAY), Keep::default()).unwrap().audits, 2);
    assert_eq!(page(&ledger, 10, None), [5, 4, 3]);
    // The last hundred thousand, however busy the day.
    let busy = "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'audit'";
    ledger.connection.execute(busy, [100_003]).unwrap();
    ledger.audit(Wall(6 * DAY), "cli", "recording.read", "call_1", "").unwrap();
    assert_eq!(page(&ledger, 10, None), [100_004, 5]);
}

#[test]
fn on_a_full_disk_a_recording_is_deleted_with_its_entry_or_not_at_all() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    kept(&mut ledger, 1, None, false);
    let set = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let pages: i64 = ledger.connection.pragma_query_value(None, "page_count", set).unwrap();
    // The last page of the audit log is filled up, so that the entry needs one that is not there.
    while ledger.connection.pragma_query_value(None, "page_count", set).unwrap() == pages {
        ledger.audit(Wall(1), "a", "b", "c", &"x".repeat(900)).unwrap();
    }
    let entries = ledger.audits(100, None).unwrap().len();
    ledger.connection.pragma_update_and_check(None, "max_page_count", pages + 1, set).unwrap();
    let id = call(1).id;
    let mut tries = 0;
    let refused = loop {
        match ledger.audit(Wall(1), "a", "b", "c", &"x".repeat(900)) {
            Ok(()) => tries += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, LedgerError::Full(folder.file()));
    let why = "y".repeat(900);
    assert_eq!(ledger.tape_deleted(&id, "cli", &why, Wall(2)), Err(LedgerError::Full(folder.file())));
    assert_eq!(ledger.tape(&id).unwrap().unwrap().state, TapeState::Kept);
    assert_eq!(ledger.audits(100, None).unwrap().len(), entries + tries);

    ledger.connection.pragma_update_and_check(None, "max_page_count", 100_000, set).unwrap();
    assert!(ledger.tape_deleted(&id, "cli", &why, Wall(2)).unwrap());
    assert_eq!(ledger.audits(1, None).unwrap()[0].subject, id);
}

#[test]
fn a_history_without_its_recordings_is_set_aside_at_the_start_and_not_at_the_end_of_a_call() {
    let folder = Folder::new();
    let ledger = folder.open();
    ledger.connection.execute_batch("DROP TABLE recordings").unwrap();
    drop(ledger);
    let mut ledger = folder.open();
    assert!(folder.names().iter().any(|name| name == "calls.db.corrupt-77"), "{:?}", folder.names());
    // What is found on the disk without a row gets one.
    ledger.tape_begun(&running(1)).unwrap();
    assert!(ledger.tape_finished(&call(1).id, &facts(), TapeState::Kept, None, false, Wall(9)).unwrap());
    ledger.close(&call(2), &bill(0, Decimal::ZERO), &[]).unwrap();
    assert_eq!(ledger.tape_bytes().unwrap(), (1, 1_000));
}

#[test]
fn a_thousand_recordings_at_most_are_named_at_once() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 1..=1_001 {
        kept(&mut ledger, n, None, n == 1);
    }
    let first = ledger.tapes_beyond(1).unwrap();
    assert_eq!((first.len(), first[0].call.clone()), (1_000, call(2).id));
    for row in first {
        ledger.tape_deleted(&row.call, "quota", "no room", Wall(9)).unwrap();
    }
    assert_eq!(calls(&ledger.tapes_beyond(1).unwrap()), named(&[1]));
}

#[test]
fn an_upload_that_was_given_up_waits_again_with_all_its_tries_if_the_file_is_here() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 1..=4 {
        kept(&mut ledger, n, None, n < 4);
    }
    for n in [1, 2] {
        ledger.upload_failed(&call(n).id, "HTTP 503", Some(Wall(7)), Wall(7)).unwrap();
        ledger.upload_failed(&call(n).id, "HTTP 503", None, Wall(8)).unwrap();
    }
    ledger.tape_deleted(&call(2).id, "cli", "asked", Wall(9)).unwrap();
    assert_eq!(calls(&ledger.uploads_due(Wall(2_000), 10).unwrap()), named(&[3]));
    assert_eq!(ledger.uploads_again(Wall(10)).unwrap(), 1);
    let row = ledger.tape(&call(1).id).unwrap().unwrap();
    assert_eq!((row.upload, row.upload_tries, row.upload_next), (UploadState::Waiting, 0, Some(Wall(10))));
    assert_eq!(calls(&ledger.uploads_due(Wall(2_000), 10).unwrap()), named(&[1, 3]));
    assert_eq!(ledger.uploads_again(Wall(11)).unwrap(), 0);
}

#[test]
fn a_sum_that_there_was_no_time_for_is_put_into_the_row_and_the_call_once() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.charge(rate());
    ledger.tape_begun(&running(1)).unwrap();
    ledger.close(&over(1, Some(agreed())), &bill(0, Decimal::ZERO), &[]).unwrap();
    let hurried = Finished { sha256: String::new(), ..facts() };
    let id = call(1).id;
    ledger.tape_finished(&id, &hurried, TapeState::Kept, None, false, Wall(9)).unwrap();
    kept(&mut ledger, 2, None, false);
    assert_eq!(calls(&ledger.tapes_unread().unwrap()), named(&[1]));
    assert!(ledger.tape_read(&id, 1_000, "ab12", Wall(10)).unwrap());
    assert_eq!(ledger.tape(&id).unwrap().unwrap().finished, facts());
    let (tape, seconds, _) = charged(&ledger, 1);
    assert_eq!((tape.unwrap().file, seconds), (facts(), 90));
    assert!(!ledger.tape_read(&id, 1, "ff", Wall(11)).unwrap(), "it has one");
    assert_eq!(ledger.tapes_unread().unwrap(), []);
}
