//! Calls on a disk that does what it should.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc};

use super::super::store::Folder;
use super::super::{Begin, Hall, RECORDINGS, Recorder, Shared};
use super::*;
use crate::io::seal;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn both_voices_lie_in_the_file_and_the_ledger_knows_it() {
    let mut story = Story::new();
    let call = story.record("call_1", PCM);
    story.talk(5);
    assert_eq!(story.card.names(), ["call_1.wav.part"]);
    assert_eq!(story.row("call_1").state, TapeState::Running);
    story.hang_up(call);
    story.wait(1);
    let finished = story.finished();
    assert_eq!(story.card.names(), ["call_1.wav"]);
    let file = story.card.bytes("call_1.wav");
    assert_eq!((finished.outcome, finished.millis, finished.error), (Outcome::Complete, 5_000, None));
    assert_eq!((finished.paused_millis, finished.lost_millis), (0, 0));
    assert_eq!((finished.bytes, finished.sha256), (file.len() as u64, digest(&file)));
    let (left, right) = sides(&file);
    assert_eq!((left.len(), right.len()), (40_000, 40_000));
    assert!(strength(&left, 440.0, 8_000.0) > 7_000.0 && strength(&left, 1_000.0, 8_000.0) < 100.0);
    assert!(strength(&right, 1_000.0, 8_000.0) > 7_000.0 && strength(&right, 440.0, 8_000.0) < 100.0);
    let row = story.row("call_1");
    assert_eq!(
        (row.state, row.file.as_str(), row.form.as_str()),
        (TapeState::Kept, "call_1.wav", "wav-pcm-8000")
    );
    assert_eq!(row.finished.sha256, digest(&file));
    let kept = row.expires_at.unwrap().0 - story.now.wall.0;
    assert!((30 * DAY - 2_000..=30 * DAY).contains(&kept), "{kept}");
}

#[test]
fn every_format_is_as_long_as_the_call() {
    for (form, name) in [(ALAW, "call_1.wav"), (OGG, "call_1.ogg")] {
        let mut story = Story::new();
        let call = story.record("call_1", form);
        story.talk(7);
        story.hang_up(call);
        story.wait(1);
        let finished = story.finished();
        assert_eq!((finished.outcome, finished.millis), (Outcome::Complete, 7_000), "{name}");
        let file = story.card.bytes(name);
        let whole = crate::media::tape::whole(&form, &mut file.as_slice()).unwrap();
        assert_eq!((whole.bytes, whole.ticks), (file.len() as u64, 350), "{name}");
        assert!(whole.closing.is_empty(), "{name} is closed already");
    }
}

#[test]
fn an_encrypted_recording_opens_with_its_key_and_is_as_long() {
    for (form, name) in [(PCM, "call_1.wav.age"), (OGG, "call_1.ogg.age")] {
        let mut story = Story::new();
        story.encrypt_to = vec![PUBLIC_KEY.to_owned()];
        let call = story.record("call_1", form);
        story.talk(5);
        story.hang_up(call);
        story.wait(1);
        let finished = story.finished();
        assert_eq!((finished.outcome, finished.millis), (Outcome::Complete, 5_000));
        assert!(story.row("call_1").encrypted);
        assert_eq!(story.card.names(), [name]);
        let mut plain = Vec::new();
        let opened = seal::open(PRIVATE_KEY, &mut story.card.bytes(name).as_slice(), &mut plain).unwrap();
        assert_eq!((opened.call.as_str(), opened.ticks, opened.missing), ("call_1", 250, None));
        assert_eq!(crate::media::tape::whole(&form, &mut plain.as_slice()).unwrap().ticks, 250);
        if form == PCM {
            let (left, right) = sides(&plain);
            assert!(
                strength(&left, 440.0, 8_000.0) > 7_000.0 && strength(&right, 1_000.0, 8_000.0) > 7_000.0
            );
        }
    }
}

#[test]
fn a_key_that_is_none_is_told_and_nothing_is_written() {
    let mut story = Story::new();
    story.encrypt_to = vec!["age1nonsense".to_owned()];
    let call = story.record("call_1", PCM);
    story.talk(1);
    assert!(story.failed().contains("public key"));
    assert!(story.is_refused(call) && story.card.names().is_empty());
}

#[test]
fn a_pause_is_silence_and_told_of() {
    let mut story = Story::new();
    let call = story.record("call_1", PCM);
    story.talk(1);
    for at in 50..100 {
        let paused = Slice { at, paused: true, ..Slice::default() };
        story.calls[call].slices.try_send(paused).unwrap();
    }
    story.wait(1);
    story.calls[call].at = 100;
    story.talk(1);
    story.hang_up(call);
    story.wait(1);
    let finished = story.finished();
    assert_eq!(
        (finished.outcome, finished.millis, finished.paused_millis),
        (Outcome::Complete, 3_000, 1_000)
    );
    let (left, _) = sides(&story.card.bytes("call_1.wav"));
    assert!(left[8_200..15_900].iter().all(|sample| *sample == 0.0));
}

#[test]
fn a_call_without_a_word_leaves_no_file() {
    let mut story = Story::new();
    let call = story.record("call_1", OGG);
    story.wait(1);
    story.hang_up(call);
    story.wait(1);
    assert_eq!(story.finished().outcome, Outcome::Nothing);
    assert_eq!(story.card.names(), Vec::<String>::new());
    let row = story.row("call_1");
    assert_eq!((row.state, row.local), (TapeState::Failed, false));
}

#[test]
fn what_is_to_be_sent_is_told_to_whoever_sends() {
    let mut story = Story::new();
    let call = story.record_for("call_1", PCM, 0, true);
    story.talk(1);
    story.hang_up(call);
    story.wait(1);
    let row = story.row("call_1");
    assert_eq!((row.upload, row.expires_at), (UploadState::Waiting, None));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // It would wait for ever if nobody had told it.
    runtime.block_on(story.uploads.notified());
}

#[test]
fn an_id_of_a_stranger_does_not_leave_the_folder() {
    for id in ["", "../../etc/passwd", "a/b", ".", "call_1\n", "call_1.wav"] {
        let mut story = Story::new();
        let call = story.record(id, PCM);
        story.talk(1);
        assert!(story.failed().contains("id"), "{id:?}");
        assert!(story.is_refused(call));
        assert_eq!(story.card.names(), Vec::<String>::new(), "{id:?}");
    }
}

#[test]
fn fifty_calls_at_once_are_fifty_files() {
    let mut story = Story::new();
    let calls: Vec<usize> = (0..50).map(|n| story.record(&format!("call_{n}"), PCM)).collect();
    story.talk(3);
    for call in calls {
        story.hang_up(call);
    }
    story.wait(2);
    let outcomes: Vec<(Outcome, u64)> = story
        .heard()
        .into_iter()
        .filter_map(|(_, event)| match event {
            TapeEvent::Finished(finished) => Some((finished.outcome, finished.millis)),
            TapeEvent::Begun | TapeEvent::Failed(_) => None,
        })
        .collect();
    assert_eq!(outcomes, vec![(Outcome::Complete, 3_000); 50]);
    assert_eq!(story.card.names().len(), 50);
    assert!(story.drain.is_idle());
    assert_eq!(story.shared.active.lock().unwrap().len(), 0);
}

/// The threads themselves, on the disk that is there.
#[test]
fn the_threads_finish_every_recording_when_the_process_ends() {
    let temp = Temp::new();
    let (books, ledger) = books(&temp.0);
    let (to_hall, mut hall) = mpsc::channel(100);
    let shared = Shared::new(SETTINGS, Hall(to_hall), books, Arc::new(Notify::new()));
    let store = Arc::new(Folder::new(temp.0.join(RECORDINGS)));
    let (recorder, threads) = Recorder::with(store, shared).unwrap();
    let mut senders = Vec::new();
    for (call, form) in [PCM, ALAW, OGG].into_iter().enumerate() {
        let (slices, taken) = sync_channel(150);
        for at in 0..150 {
            let user = Said::Linear(tone(440, at));
            let far = Said::Linear(tone(1_000, at));
            slices.try_send(Slice { at, user, far, ..Slice::default() }).unwrap();
        }
        recorder.begin(Begin {
            call: CallKey(call as u64),
            id: format!("call_{call}"),
            number: "shop".to_owned(),
            account: "acme".to_owned(),
            form,
            encrypt_to: Vec::new(),
            keep_days: 30,
            upload: false,
            began: TODAY,
            slices: taken,
        });
        // The last of them still talks.
        if form != OGG {
            drop(slices);
        } else {
            senders.push(slices);
        }
    }
    threads.close();
    let mut outcomes = BTreeMap::new();
    while let Ok(Input::Tape { call, event }) = hall.try_recv() {
        if let TapeEvent::Finished(finished) = event {
            outcomes.insert(call.0, (finished.outcome, finished.millis));
        }
    }
    let expected = [
        (0, (Outcome::Complete, 3_000)),
        (1, (Outcome::Complete, 3_000)),
        (2, (Outcome::Interrupted, 3_000)),
    ];
    assert_eq!(outcomes, BTreeMap::from(expected));
    let folder = temp.0.join(RECORDINGS);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let wav = folder.join("call_0.wav");
    assert_eq!(mode(&wav), 0o600);
    let (left, right) = sides(&std::fs::read(wav).unwrap());
    assert!(strength(&left, 440.0, 8_000.0) > 7_000.0 && strength(&right, 1_000.0, 8_000.0) > 7_000.0);
    for (call, form, name) in [("call_1", ALAW, "call_1.wav"), ("call_2", OGG, "call_2.ogg")] {
        let file = std::fs::read(folder.join(name)).unwrap();
        assert_eq!(crate::media::tape::whole(&form, &mut file.as_slice()).unwrap().ticks, 150);
        let row = ledger.lock().unwrap().tape(call).unwrap().unwrap();
        assert_eq!((row.state, row.finished.bytes), (TapeState::Kept, file.len() as u64));
    }
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let temp = Temp::new();
    let (books, ledger) = books(&temp.0);
    let folder = temp.0.join(RECORDINGS);
    std::fs::create_dir(&folder).unwrap();
    let elsewhere = temp.0.join("elsewhere");
    std::fs::write(&elsewhere, b"precious").unwrap();
    std::os::unix::fs::symlink(&elsewhere, folder.join("call_1.wav.part")).unwrap();
    let store = Arc::new(Folder::new(folder));
    let mut story = Story::with(store, Arc::default(), books, ledger, Some(temp));
    let call = story.record("call_1", PCM);
    story.hang_up(call);
    story.wait(40);
    assert!(story.failed().contains("can't be made"));
    assert_eq!(std::fs::read(elsewhere).unwrap(), b"precious");
}
