//! Disks that are slow, full or broken: a recording suffers, as little as can be, and memory stays bounded.

use super::super::reel::{LARGEST, LONGEST};
use super::*;

fn record(story: &mut Story) -> usize {
    let call = story.record("call_1", PCM);
    story.talk(5);
    call
}

fn end(story: &mut Story, call: usize) -> Finished {
    story.hang_up(call);
    story.wait(40);
    story.finished()
}

#[test]
fn a_disk_that_hangs_for_ten_seconds_costs_nothing() {
    let mut story = Story::new();
    let call = record(&mut story);
    story.hangs = true;
    story.talk(10);
    story.hangs = false;
    story.talk(5);
    let finished = end(&mut story, call);
    assert_eq!((finished.outcome, finished.millis, finished.lost_millis), (Outcome::Complete, 20_000, 0));
}

#[test]
fn a_disk_that_hangs_for_minutes_costs_sound_but_the_length_is_true() {
    for form in [PCM, OGG] {
        let mut story = Story::new();
        let call = story.record("call_1", form);
        story.talk(5);
        story.hangs = true;
        story.talk(120);
        let waiting = story.drain.waiting();
        assert!(waiting <= (LONGEST + 100, LARGEST), "{waiting:?}");
        story.hangs = false;
        story.talk(20);
        let finished = end(&mut story, call);
        assert_eq!((finished.outcome, finished.millis), (Outcome::Gaps, 145_000));
        assert!((85_000..95_000).contains(&finished.lost_millis), "{}", finished.lost_millis);
        let file = story.card.bytes(&story.card.names()[0]);
        let whole = crate::media::tape::whole(&form, &mut file.as_slice()).unwrap();
        assert_eq!((whole.ticks * 20, whole.bytes), (145_000, file.len() as u64));
        if form == PCM {
            let (left, right) = sides(&file);
            for side in [(&left, 440.0), (&right, 1_000.0)] {
                assert!(strength(&side.0[130 * 8_000..140 * 8_000], side.1, 8_000.0) > 7_000.0, "it goes on");
                assert_eq!(
                    side.0[60 * 8_000..110 * 8_000].iter().filter(|sample| **sample != 0.0).count(),
                    0
                );
            }
        }
    }
}

#[test]
fn all_recordings_together_have_a_bound_in_memory() {
    let wide = Form { kind: Kind::WavPcm, rate: 16_000, bitrate: 0 };
    let mut story = Story::new();
    for n in 0..30 {
        story.record(&format!("call_{n}"), wide);
    }
    story.hangs = true;
    story.talk(29);
    let (_, bytes) = story.drain.waiting();
    // One second of thirty recordings may be on top.
    assert!((LARGEST..LARGEST + 30 * 65_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_nothing_but_patience() {
    let mut story = Story::new();
    let call = record(&mut story);
    story.card.fill();
    story.talk(20);
    story.card.empty();
    story.talk(5);
    let finished = end(&mut story, call);
    assert_eq!((finished.outcome, finished.millis, finished.error), (Outcome::Complete, 30_000, None));
    let (left, right) = sides(&story.card.bytes("call_1.wav"));
    assert_eq!(left.len(), 240_000);
    assert!(strength(&left, 440.0, 8_000.0) > 7_900.0, "no second is torn");
    assert!(strength(&right, 1_000.0, 8_000.0) > 7_900.0);
}

#[test]
fn a_disk_that_stays_full_leaves_a_file_that_plays() {
    for form in [PCM, ALAW, OGG] {
        let mut story = Story::new();
        let call = story.record("call_1", form);
        story.talk(10);
        story.card.fill();
        story.talk(60);
        let finished = end(&mut story, call);
        assert_eq!(finished.outcome, Outcome::Gaps);
        assert!((8_000..=10_000).contains(&finished.millis), "{}", finished.millis);
        let said = finished.error.unwrap_or_default();
        assert!(said.contains("No space left") && said.contains("last"), "{said}");
        let name = format!("call_1.{}", form.extension());
        assert_eq!(story.card.names(), std::slice::from_ref(&name));
        let file = story.card.bytes(&name);
        let whole = crate::media::tape::whole(&form, &mut file.as_slice()).unwrap();
        assert_eq!((whole.ticks * 20, whole.bytes), (finished.millis, file.len() as u64), "{name}");
        if form == PCM {
            assert_eq!(sides(&file).0.len() as u64, finished.millis * 8, "the head is right");
        }
        assert_eq!(story.row("call_1").state, TapeState::Kept);
        assert_eq!(story.drain.waiting().1, 0, "nothing waits any more");
    }
}

#[test]
fn a_disk_that_was_full_from_the_first_second_leaves_nothing() {
    let mut story = Story::new();
    let call = story.record("call_1", PCM);
    story.wait(1);
    story.card.fill();
    story.talk(5);
    let finished = end(&mut story, call);
    assert_eq!((finished.outcome, finished.millis), (Outcome::Failed, 0));
    assert!(finished.error.unwrap_or_default().contains("No space left"));
    assert_eq!(story.card.names(), Vec::<String>::new());
}

#[test]
fn a_disk_that_dies_ends_no_other_work() {
    let mut story = Story::new();
    let call = record(&mut story);
    story.card.die(true);
    story.talk(60);
    let finished = end(&mut story, call);
    assert_eq!(finished.outcome, Outcome::Failed);
    assert!(finished.error.unwrap_or_default().contains("next start"));
    // A cable that was put back, and the next start.
    story.card.die(false);
    let mut story = story.again();
    story.wait(1);
    let row = story.row("call_1");
    assert_eq!((row.state, row.finished.outcome), (TapeState::Kept, Outcome::Interrupted));
    assert!(row.finished.millis >= 4_000, "{}", row.finished.millis);
    assert_eq!(story.card.names(), ["call_1.wav"]);
}

#[test]
fn without_room_no_recording_begins_and_the_line_is_told() {
    let mut story = Story::new();
    story.card.put("movie", &[0; 1_000], TODAY);
    story.card.fill();
    let call = story.record("call_1", PCM);
    story.talk(1);
    assert_eq!(story.failed(), "0 MiB are free on the disk, 1 must stay free");
    assert!(story.is_refused(call));
    story.card.empty();
    story.record("call_2", PCM);
    story.talk(1);
    assert!(matches!(story.heard().as_slice(), [(_, TapeEvent::Begun)]));
}

#[test]
fn a_disk_that_lets_no_file_be_made_just_now_is_asked_again() {
    for (seconds, outcome, lost) in [(20, Outcome::Complete, 0..1), (120, Outcome::Gaps, 85_000..95_000)] {
        let mut story = Story::new();
        story.card.die(true);
        let call = story.record("call_1", PCM);
        story.talk(seconds);
        assert!(!story.is_refused(call) && story.heard().is_empty());
        let waiting = story.drain.waiting();
        assert!(waiting <= (LONGEST + 100, LARGEST), "{waiting:?}");
        story.card.die(false);
        story.talk(20);
        assert!(matches!(story.heard().as_slice(), [(_, TapeEvent::Begun)]));
        let finished = end(&mut story, call);
        assert_eq!((finished.outcome, finished.millis), (outcome, (seconds + 20) * 1_000));
        assert!(lost.contains(&finished.lost_millis), "{}", finished.lost_millis);
        assert_eq!(story.row("call_1").state, TapeState::Kept);
        let (left, _) = sides(&story.card.bytes("call_1.wav"));
        assert_eq!(left.len() as u64, finished.millis * 8);
        assert!(strength(&left[..80_000], 440.0, 8_000.0) > 7_900.0, "it has its beginning");
    }
}

#[test]
fn a_folder_that_can_not_be_written_is_told_in_words_after_the_call() {
    let mut story = Story::new();
    story.card.die(true);
    let call = story.record("call_1", PCM);
    story.talk(60);
    story.hang_up(call);
    story.wait(40);
    let why = story.failed();
    assert!(why.contains("can't be made") && why.contains("Input/output error"), "{why}");
    assert_eq!(story.drain.waiting().1, 0, "nothing waits any more");
    assert!(story.shared.active.lock().unwrap().is_empty());
    let row = story.row("call_1");
    assert_eq!(
        (row.state, row.finished.outcome, row.finished.error),
        (TapeState::Failed, Outcome::Failed, Some(why))
    );
}

#[test]
fn a_file_that_got_no_head_leaves_nothing() {
    let mut story = Story::new();
    story.shared.settings.lock().unwrap().min_free_mib = 0;
    story.card.put("movie", &[0; 1_000], TODAY);
    story.card.fill();
    let call = story.record("call_1", PCM);
    story.talk(5);
    story.hang_up(call);
    story.wait(1);
    assert!(story.failed().contains("No space left"), "while the record is still waited for");
    assert_eq!(story.card.names(), ["movie"]);
}

#[test]
fn two_seconds_are_synced_three_times() {
    let mut story = Story::new();
    story.record("call_1", PCM);
    story.talk(10);
    let syncs = story.card.syncs.load(Ordering::Relaxed);
    assert!((13..=16).contains(&syncs), "{syncs} syncs in ten seconds, with that of the head");
}
