//! Recordings: who gets them, which part, what is said where there is none, and how they go.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::fake::{ADMIN, FILE, Got, House, OPERATOR, READER, START, record, request, running};
use crate::call::leg::{Direction, Why};
use crate::call::record::PlacedBy;
use crate::call::recording::{Consent, Finished, Outcome, RecordingPart};
use crate::clock::Wall;
use crate::control::links::Signer;
use crate::control::{Told, events};
use crate::gateway::desk::{Answer, CallView, Command, Refusal};
use crate::ledger::{Billing, TapeRow, TapeState};

const PATH: &str = "/v1/calls/call_1/recording";
const DAY: i64 = 86_400_000;

/// Two hundred thousand bytes, each telling where it is.
fn sound() -> Vec<u8> {
    (0..200_000_u32).map(|n| (n % 251) as u8).collect()
}

fn sum(bytes: &[u8]) -> String {
    crate::control::hex(&Sha256::digest(bytes))
}

fn finished(bytes: &[u8]) -> Finished {
    Finished {
        outcome: Outcome::Complete,
        millis: 55_980,
        paused_millis: 2_000,
        lost_millis: 20,
        bytes: bytes.len() as u64,
        sha256: sum(bytes),
        error: None,
    }
}

fn tape(call: &str) -> TapeRow {
    TapeRow {
        number: "support".to_owned(),
        account: "acme".to_owned(),
        finished: Finished::default(),
        ..TapeRow::begun(call, format!("{call}.wav"), "wav-pcm-8000".to_owned(), Wall(START.0 + 9_000))
    }
}

fn part() -> RecordingPart {
    RecordingPart {
        prompt: "builtin:de".to_owned(),
        announced_to_both: true,
        prompted_at: Some(Wall(START.0 + 5_000)),
        consent: Consent::Agreed,
        began_at: Some(Wall(START.0 + 9_000)),
        format: "wav",
        encrypted: false,
        file: Finished { outcome: Outcome::Running, ..Finished::default() },
    }
}

/// A call that is over, with this part of recording.
fn over(house: &House, id: &str, part: Option<RecordingPart>) {
    let mut record = record(id, START.0, Direction::Inbound, Why::UserHungUp, 56.0);
    record.recording = part.is_some();
    record.tape = part.map(Box::new);
    house.fake.ledger(|ledger| ledger.close(&record, &Billing::default(), &[])).unwrap();
}

/// The recording of a call that was over before the file was finished; it is kept for thirty days.
fn keep(house: &House, row: &TapeRow, bytes: &[u8]) {
    let expires = Some(Wall(START.0 + 30 * DAY));
    house.fake.lay(&row.file, bytes);
    house.fake.ledger(|ledger| {
        ledger.tape_begun(row).unwrap();
        assert!(
            ledger
                .tape_finished(&row.call, &finished(bytes), TapeState::Kept, expires, false, START)
                .unwrap()
        );
    });
}

/// `call_1`, recorded and kept.
fn house() -> House {
    let house = House::new();
    over(&house, "call_1", Some(part()));
    keep(&house, &tape("call_1"), &sound());
    house
}

async fn link(house: &House, id: &str) -> String {
    let got = house.get(&format!("/v1/calls/{id}/recording?as=json")).await;
    assert_eq!(got.status, 200, "{}", got.text);
    let url = got.json()["url"].as_str().unwrap().to_owned();
    url.strip_prefix("https://calls.example.com").unwrap().to_owned()
}

/// Without any key.
async fn fetch(house: &House, method: &str, link: &str, headers: &[(&str, &str)]) -> Got {
    let mut request = Request::builder().method(method).uri(link);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    house.send(request.body(Body::empty()).unwrap()).await
}

async fn log(house: &House) -> Vec<(String, String, String)> {
    let got = house.ask(ADMIN, "GET", "/v1/audit", None).await.json();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    let entries = got["entries"].as_array().unwrap().iter();
    entries.map(|e| (text(e, "who"), text(e, "action"), text(e, "subject"))).collect()
}

fn entry(who: &str, action: &str, subject: &str) -> (String, String, String) {
    (who.to_owned(), action.to_owned(), subject.to_owned())
}

#[tokio::test]
async fn a_key_gets_a_link_and_the_link_gets_the_file() {
    let house = house();
    for (path, steps) in
        [(PATH, "../../"), ("/v1/whatsapp/calls/call_1/recording?accountId=acme", "../../../")]
    {
        let got = house.get(path).await;
        assert_eq!((got.status.as_u16(), got.header("cache-control")), (302, "private, no-store"));
        assert!(got.header("location").starts_with(&format!("{steps}recordings/call_1?expires=")), "{path}");
        let head = house.ask(READER, "HEAD", path, None).await;
        assert_eq!((head.status.as_u16(), head.header("location")), (302, got.header("location")));
    }
    let got = house.get(&format!("{PATH}?as=json")).await.json();
    assert_eq!(got["expiresAt"], "2026-11-22T10:10:00.000Z");
    let link = link(&house, "call_1").await;
    assert!(link.starts_with("/v1/recordings/call_1?expires=1795342200&for=screen&signature="), "{link}");

    let bytes = sound();
    for link in [link.clone(), format!("/api{link}")] {
        let got = fetch(&house, "GET", &link, &[]).await;
        assert_eq!((got.status.as_u16(), got.bytes == bytes), (200, true));
        let tag = format!("\"{}\"", sum(&bytes));
        for (name, value) in [
            ("content-type", "audio/wav"),
            ("content-length", "200000"),
            ("accept-ranges", "bytes"),
            ("content-disposition", "inline; filename=\"call_1.wav\""),
            ("etag", &tag),
            ("cache-control", "private, no-store"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(got.header(name), value, "{name}");
        }
        assert!(!got.header("x-request-id").is_empty());
        let head = fetch(&house, "HEAD", &link, &[]).await;
        assert_eq!(
            (head.status.as_u16(), head.header("content-length"), head.bytes.len()),
            (200, "200000", 0)
        );
    }
}

#[tokio::test]
async fn a_player_gets_the_part_that_it_asks_for() {
    let house = house();
    let (link, bytes) = (link(&house, "call_1").await, sound());
    for (range, from, to) in [
        ("bytes=0-1", 0, 2),
        ("bytes=0-", 0, 200_000),
        ("bytes=70000-139999", 70_000, 140_000),
        ("bytes=199990-", 199_990, 200_000),
        ("bytes=-44", 199_956, 200_000),
        ("bytes=199999-300000", 199_999, 200_000),
    ] {
        let got = fetch(&house, "GET", &link, &[("range", range)]).await;
        assert_eq!((got.status.as_u16(), got.bytes == bytes[from..to]), (206, true), "{range}");
        assert_eq!(got.header("content-range"), format!("bytes {from}-{}/200000", to - 1));
        assert_eq!(got.header("content-length"), (to - from).to_string());
        let head = fetch(&house, "HEAD", &link, &[("range", range)]).await;
        assert_eq!((head.status.as_u16(), head.bytes.len()), (206, 0));
    }
    for range in ["bytes=200000-", "bytes=-0"] {
        let got = fetch(&house, "GET", &link, &[("range", range)]).await;
        assert_eq!(got.fault().1, "range_not_satisfiable");
        assert_eq!((got.status.as_u16(), got.header("content-range")), (416, "bytes */200000"), "{range}");
    }
    for range in ["bytes=0-1,9-", "bytes=9-0", "lines=1-2"] {
        assert_eq!(fetch(&house, "GET", &link, &[("range", range)]).await.status, 200, "{range}");
    }
    let tag = format!("\"{}\"", sum(&bytes));
    for (said, status) in [(tag.as_str(), 206), ("\"other\"", 200), ("Sun, 22 Nov 2026 10:00:00 GMT", 200)] {
        let got = fetch(&house, "GET", &link, &[("range", "bytes=0-9"), ("if-range", said)]).await;
        assert_eq!(got.status, status, "{said}");
    }
}

#[tokio::test]
async fn a_link_that_is_old_or_touched_opens_nothing() {
    let house = house();
    over(&house, "call_2", Some(part()));
    keep(&house, &tape("call_2"), b"another");
    let link = link(&house, "call_1").await;
    for touched in [
        link.replace("call_1", "call_2"),
        link.replace("for=screen", "for=ops"),
        link.replace("expires=1", "expires=2"),
        link.split("&signature").next().unwrap().to_owned(),
        "/v1/recordings/call_1".to_owned(),
        "/v1/recordings/..%2Fcalls.db".to_owned(),
    ] {
        let got = fetch(&house, "GET", &touched, &[]).await;
        assert_eq!(got.fault(), (403, "link_invalid".to_owned(), String::new()), "{touched}");
    }
    house.fake.after(600);
    assert_eq!(fetch(&house, "GET", &link, &[]).await.status, 200, "as long as it says");
    house.fake.after(1);
    assert_eq!(fetch(&house, "GET", &link, &[]).await.fault().1, "link_expired");
    assert_eq!(log(&house).await.len(), 1, "only who has heard it is written down");
}

#[tokio::test]
async fn whoever_hears_or_deletes_a_recording_is_in_the_audit_log() {
    let house = house();
    let (screen, ops) = (link(&house, "call_1").await, house.ask(ADMIN, "GET", PATH, None).await);
    assert!(log(&house).await.is_empty(), "nobody has heard anything");
    fetch(&house, "HEAD", &screen, &[]).await;
    for range in ["bytes=0-1", "bytes=2-9", "bytes=10-"] {
        fetch(&house, "GET", &screen, &[("range", range)]).await;
    }
    assert_eq!(log(&house).await, [entry("screen", "recording.fetched", "call_1")], "once for a link");
    let ops = ops.header("location").replace("../../", "/v1/");
    assert_eq!(fetch(&house, "GET", &ops, &[]).await.status, 200);
    assert_eq!(house.ask(ADMIN, "DELETE", PATH, None).await.status, 200);
    assert_eq!(
        log(&house).await,
        [
            entry("ops", "recording.deleted", "call_1"),
            entry("ops", "recording.fetched", "call_1"),
            entry("screen", "recording.fetched", "call_1"),
        ]
    );
    let page = house.ask(ADMIN, "GET", "/v1/audit?limit=2", None).await.json();
    let next = format!("/v1/audit?limit=2&before={}", page["nextCursor"].as_str().unwrap());
    let last = house.ask(ADMIN, "GET", &next, None).await.json();
    assert_eq!((&last["entries"][0]["who"], &last["nextCursor"]), (&json!("screen"), &json!(null)));
    assert_eq!(last["entries"][0]["detail"], "call_1.wav");
    for key in [READER, OPERATOR] {
        assert_eq!(house.ask(key, "GET", "/v1/audit", None).await.status, 403);
    }
    for query in ["limit=0", "limit=501", "before=x", "before=-1"] {
        assert_eq!(house.ask(ADMIN, "GET", &format!("/v1/audit?{query}"), None).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_full_disk_keeps_no_recording_from_whoever_wants_to_save_it() {
    let house = house();
    let link = link(&house, "call_1").await;
    house.fake.full(true);
    assert_eq!(fetch(&house, "GET", &link, &[]).await.bytes, sound());
    house.fake.full(false);
    assert_eq!(fetch(&house, "GET", &link, &[]).await.status, 200);
    assert_eq!(log(&house).await.len(), 1, "written down as soon as it can be");
}

#[tokio::test]
async fn a_deleted_recording_is_gone_from_the_disk_and_its_absence_tells_who_did_it() {
    let house = house();
    let link = link(&house, "call_1").await;
    for key in [READER, OPERATOR] {
        assert_eq!(house.ask(key, "DELETE", PATH, None).await.status, 403);
    }
    let wrong = "/v1/whatsapp/calls/call_1/recording?accountId=fresh";
    assert_eq!(house.ask(ADMIN, "DELETE", wrong, None).await.fault().2, "accountId");
    assert!(house.fake.lies("call_1.wav"));
    house.fake.after(60);
    let got = house.ask(ADMIN, "DELETE", "/v1/whatsapp/calls/call_1/recording?accountId=acme", None).await;
    assert_eq!(got.json(), json!({"id": "call_1", "deleted": true, "uploadedTo": null}));
    assert!(!house.fake.lies("call_1.wav"));
    let told = "the recording was deleted at 2026-11-22T10:01:00.000Z by ops";
    for (method, path) in [("GET", PATH), ("DELETE", PATH), ("GET", link.as_str())] {
        let got = house.ask(ADMIN, method, path, None).await;
        assert_eq!((got.status.as_u16(), got.json()["error"].as_str()), (404, Some(told)), "{method} {path}");
        assert_eq!(got.json()["details"]["deletedBy"], "ops");
    }
    let call = house.get("/v1/calls/call_1").await.json()["call"].clone();
    assert_eq!((&call["recordingUrl"], &call["recordingExpiresAt"]), (&json!(null), &json!(null)));
    assert_eq!(
        (&call["recording"]["state"], &call["recording"]["deletedBy"], &call["recording"]["sha256"]),
        (&json!("deleted"), &json!("ops"), &json!(sum(&sound()))),
        "what it was is still known"
    );
}

#[tokio::test]
async fn a_recording_whose_file_has_vanished_can_be_deleted_still() {
    let house = house();
    let link = link(&house, "call_1").await;
    std::fs::remove_file(house.fake.path("call_1.wav")).unwrap();
    let got = fetch(&house, "GET", &link, &[]).await;
    assert_eq!(got.fault().0, 404);
    assert!(got.text.contains("gone from the disk"), "{}", got.text);
    assert_eq!(house.ask(ADMIN, "DELETE", PATH, None).await.status, 200);
    assert_eq!(house.ask(ADMIN, "DELETE", PATH, None).await.status, 404);
}

#[tokio::test]
async fn a_file_that_is_not_what_it_was_has_no_tag() {
    let house = house();
    house.fake.lay("call_1.wav", b"short");
    let got = fetch(&house, "GET", &link(&house, "call_1").await, &[]).await;
    assert_eq!((got.status.as_u16(), got.header("etag"), got.text.as_str()), (200, "", "short"));
}

#[tokio::test]
async fn an_encrypted_recording_is_a_file_to_save() {
    let house = House::new();
    let row = TapeRow {
        encrypted: true,
        file: "call_1.ogg.age".to_owned(),
        form: "ogg-16000-16000".to_owned(),
        ..tape("call_1")
    };
    over(&house, "call_1", Some(RecordingPart { encrypted: true, ..part() }));
    keep(&house, &row, b"sealed");
    let got = fetch(&house, "GET", &link(&house, "call_1").await, &[]).await;
    assert_eq!(got.header("content-type"), "application/octet-stream");
    assert_eq!(got.header("content-disposition"), "attachment; filename=\"call_1.ogg.age\"");
    let plain = TapeRow { call: "call_2".to_owned(), encrypted: false, file: "call_2.ogg".to_owned(), ..row };
    over(&house, "call_2", Some(part()));
    keep(&house, &plain, b"OggS");
    assert_eq!(
        fetch(&house, "GET", &link(&house, "call_2").await, &[]).await.header("content-type"),
        "audio/ogg"
    );
}

#[tokio::test]
async fn where_there_is_no_recording_it_is_said_why() {
    let house = House::new();
    let with = |change: &dyn Fn(&mut RecordingPart)| {
        let mut part = part();
        part.file = Finished::default();
        change(&mut part);
        Some(part)
    };
    over(&house, "plain", None);
    over(&house, "declined", with(&|part| part.consent = Consent::Declined));
    over(&house, "short", with(&|part| part.consent = Consent::Unfinished));
    over(
        &house,
        "promptless",
        with(&|part| {
            part.consent = Consent::Unfinished;
            part.file.error = Some("there is no prompt".to_owned());
        }),
    );
    over(&house, "silent", with(&|_| {}));
    over(&house, "full", with(&|part| part.file.error = Some("the disk is full".to_owned())));
    for id in ["finishing", "failed", "moved"] {
        over(&house, id, Some(part()));
    }
    let running = |id: &str, recording: bool| crate::call::record::Running {
        recording,
        ..running(id, START.0, Direction::Inbound)
    };
    house.fake.lay("moved.wav", b"x");
    house.fake.ledger(|ledger| {
        for id in ["finishing", "failed", "moved", "talking"] {
            ledger.tape_begun(&tape(id)).unwrap();
        }
        ledger.note(&running("talking", true)).unwrap();
        ledger.note(&running("prompting", true)).unwrap();
        ledger.note(&running("unrecorded", false)).unwrap();
        let failed = Finished {
            outcome: Outcome::Failed,
            error: Some("no space left".to_owned()),
            ..Finished::default()
        };
        ledger.tape_finished("failed", &failed, TapeState::Failed, None, false, START).unwrap();
        ledger.tape_finished("moved", &finished(b"x"), TapeState::Kept, None, true, START).unwrap();
        ledger.upload_done("moved", "s3://calls/moved.wav", false, START).unwrap();
    });
    for (id, status, words, state) in [
        ("plain", 404, "was not recorded", json!(null)),
        ("declined", 404, "did not agree", json!("none")),
        ("short", 404, "before the user had agreed", json!("none")),
        ("promptless", 404, "there is no prompt", json!("none")),
        ("silent", 404, "nothing was said", json!("none")),
        ("full", 404, "the disk is full", json!("none")),
        ("failed", 404, "no space left", json!("failed")),
        ("moved", 404, "moved to s3://calls/moved.wav", json!("moved")),
        ("finishing", 409, "ask again in a moment", json!("running")),
        ("talking", 409, "once the call is over", json!("running")),
        ("prompting", 409, "nothing has been recorded yet", json!(null)),
        ("unrecorded", 404, "is not recorded", json!(null)),
        ("nobody", 404, "no call has the id", json!(null)),
    ] {
        for method in ["GET", "DELETE"] {
            let got = house.ask(ADMIN, method, &format!("/v1/calls/{id}/recording"), None).await;
            assert_eq!((got.status.as_u16(), got.text.contains(words)), (status, true), "{id}: {}", got.text);
            assert_eq!(got.header("retry-after"), if id == "finishing" { "2" } else { "" });
        }
        if id != "nobody" {
            let call = house.get(&format!("/v1/calls/{id}")).await.json()["call"].clone();
            assert_eq!(call["recording"].get("state").unwrap_or(&json!(null)), &state, "{id}");
            assert_eq!(call["recordingUrl"], json!(null), "{id}");
        }
    }
}

#[tokio::test]
async fn a_call_and_its_row_tell_of_its_recording() {
    let house = house();
    house.closed("call_0", START.0 - DAY, Direction::Inbound, Why::UserHungUp, 5.0);
    let call = house.get("/v1/calls/call_1").await.json()["call"].clone();
    assert_eq!(
        call["recording"],
        json!({
            "consent": "agreed", "prompt": "builtin:de", "promptedAt": "2026-11-22T10:00:05.000Z",
            "announcedToBoth": true, "state": "kept", "outcome": "complete", "error": null,
            "beganAt": "2026-11-22T10:00:09.000Z", "seconds": 55.98, "pausedSeconds": 2.0, "lostSeconds": 0.02,
            "bytes": 200_000, "sha256": sum(&sound()), "format": "wav", "encrypted": false,
            "expiresAt": "2026-12-22T10:00:00.000Z", "upload": "none", "uploadedAt": null, "uploadedTo": null,
            "uploadError": null, "deletedAt": null, "deletedBy": null,
        })
    );
    for path in ["/v1/calls", "/v1/whatsapp/calls?accountId=acme"] {
        let calls = house.get(path).await.json()["calls"].clone();
        let (recorded, plain) = (&calls[0], &calls[1]);
        assert_eq!(recorded["recordingExpiresAt"], "2026-12-22T10:00:00.000Z", "{path}");
        let url = recorded["recordingUrl"].as_str().unwrap().replace("https://calls.example.com", "");
        assert_eq!(fetch(&house, "GET", &url, &[]).await.status, 200);
        assert_eq!((&plain["recordingUrl"], &plain["recordingExpiresAt"]), (&json!(null), &json!(null)));
    }
    assert_eq!(house.get("/v1/calls").await.json()["calls"][1]["recording"], json!(null));
}

#[tokio::test]
async fn without_a_public_address_a_link_is_a_path() {
    let house = House::with(&FILE.replace("public_url = \"https://calls.example.com\"\n", ""));
    over(&house, "call_1", Some(part()));
    keep(&house, &tape("call_1"), b"x");
    let got = house.get(&format!("{PATH}?as=json")).await.json();
    assert!(got["url"].as_str().unwrap().starts_with("/v1/recordings/call_1?"), "{got}");
}

#[tokio::test]
async fn a_recording_outlives_the_history_of_its_call() {
    let house = House::new();
    keep(&house, &tape("call_9"), b"old");
    assert_eq!(fetch(&house, "GET", &link(&house, "call_9").await, &[]).await.text, "old");
    assert_eq!(house.get("/v1/calls/call_9").await.status, 404);
    assert_eq!(house.get("/v1/whatsapp/calls/call_9/recording?accountId=fresh").await.status, 404);
    assert_eq!(house.ask(ADMIN, "DELETE", "/v1/calls/call_9/recording", None).await.status, 200);
}

#[tokio::test]
async fn a_running_call_tells_how_its_recording_goes() {
    let house = House::new();
    let row = |id: &str| crate::call::record::Running {
        recording: true,
        ..running(id, START.0, Direction::Inbound)
    };
    house.fake.ledger(|ledger| {
        ledger.note(&row("call_1")).unwrap();
        ledger.tape_begun(&tape("call_2")).unwrap();
        ledger.note(&row("call_2")).unwrap();
    });
    let view = |id: &str, recording| CallView {
        id: id.to_owned(),
        wacid: String::new(),
        number: "support".to_owned(),
        direction: Direction::Inbound,
        placed_by: PlacedBy::User,
        state: "talking",
        from: String::new(),
        to: String::new(),
        destination: String::new(),
        offered_at: START,
        answered_at: Some(START),
        recording,
    };
    for (one, other) in [(Some("asking"), Some("paused")), (None, Some("running")), (None, None)] {
        for path in ["/v1/calls/call_1", "/v1/calls/call_2", "/v1/calls"] {
            house.fake.says(Ok(Answer::Calls(vec![view("call_1", one), view("call_2", other)])));
            let got = house.get(path).await.json();
            let calls = got["calls"].as_array().cloned().unwrap_or_else(|| vec![got["call"].clone()]);
            for call in calls {
                let expected = match call["_id"] == "call_1" {
                    true => json!(one),
                    false => json!(other.unwrap_or("running")),
                };
                assert_eq!(call["recording"].get("state").unwrap_or(&json!(null)), &expected, "{call}");
            }
        }
    }
}

#[tokio::test]
async fn a_recording_is_paused_and_goes_on() {
    let house = House::new();
    house.fake.ledger(|ledger| ledger.note(&running("call_1", START.0, Direction::Inbound))).unwrap();
    let on = |paused: Value| Some(json!({ "paused": paused }));
    assert_eq!(house.ask(READER, "PATCH", PATH, on(json!(true))).await.status, 403);
    // Meta's id leads to the same call.
    for (path, paused) in [
        (PATH, true),
        ("/v1/whatsapp/calls/call_1/recording?accountId=acme", false),
        ("/v1/calls/wacid.call_1/recording", true),
    ] {
        let got = house.ask(OPERATOR, "PATCH", path, on(json!(paused))).await.json();
        assert_eq!(got, json!({ "id": "call_1", "paused": paused }));
    }
    let told: Vec<Command> =
        [false, true, false].map(|on| Command::Record { id: "call_1".to_owned(), on }).into();
    assert_eq!(house.fake.commands(), told);
    let audit = || async {
        house.ask(ADMIN, "GET", "/v1/audit", None).await.json()["entries"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let log = audit().await;
    let noted: Vec<_> = log.iter().map(|entry| (&entry["action"], &entry["subject"])).collect();
    let (paused, resumed) = (json!("recording.paused"), json!("recording.resumed"));
    let call = json!("call_1");
    assert_eq!(
        noted,
        [(&paused, &call), (&resumed, &call), (&paused, &call)],
        "who did it is in the audit log"
    );
    assert!(log.iter().all(|entry| entry["who"] == log[0]["who"] && entry["who"] != json!("")), "{log:?}");
    for (refusal, status, code) in [
        (Refusal::NotNow { state: "not recording" }, 409, "invalid_resource_state"),
        (Refusal::NoSuchCall, 409, "invalid_resource_state"),
        (Refusal::Full, 429, "too_many_calls"),
    ] {
        house.fake.says(Err(refusal));
        let got = house.ask(OPERATOR, "PATCH", PATH, on(json!(true))).await;
        assert_eq!((got.fault().0, got.fault().1.as_str()), (status, code));
    }
    house.fake.says(Ok(Answer::Recording { id: "call_1".to_owned(), paused: false }));
    assert_eq!(audit().await.len(), 3, "what was refused is not in it");
    assert_eq!(house.ask(OPERATOR, "PATCH", PATH, on(json!(true))).await.json()["paused"], false, "as it is");
    for body in [json!({}), json!({"paused": "yes"}), json!({"paused": null})] {
        assert_eq!(house.ask(OPERATOR, "PATCH", PATH, Some(body)).await.fault().2, "paused");
    }
    let nobody = "/v1/calls/nobody/recording";
    assert_eq!(house.ask(OPERATOR, "PATCH", nobody, on(json!(true))).await.status, 404);
    let wrong = "/v1/whatsapp/calls/call_1/recording?accountId=fresh";
    assert_eq!(house.ask(OPERATOR, "PATCH", wrong, on(json!(true))).await.fault().2, "accountId");
}

#[tokio::test]
async fn recordings_are_read_by_so_many_at_a_time() {
    let house = house();
    let link = link(&house, "call_1").await;
    let open = || house.open(request("", "GET", &link).body(Body::empty()).unwrap());
    let mut readers = Vec::new();
    for _ in 0..crate::control::playback::READERS {
        let answer = open().await;
        assert_eq!(answer.status(), 200);
        readers.push(answer);
    }
    let full = fetch(&house, "GET", &link, &[]).await;
    assert_eq!((full.fault().1.as_str(), full.header("retry-after")), ("too_many_streams", "30"));
    readers.pop();
    let room = || async {
        // Whoever has gone is noticed when the next piece is given.
        for _ in 0..1_000 {
            if open().await.status() == 200 {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    };
    assert!(room().await, "whoever leaves makes room");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_for_a_minute_makes_room() {
    let house = house();
    let link = link(&house, "call_1").await;
    let open = || house.open(request("", "GET", &link).body(Body::empty()).unwrap());
    let mut readers = Vec::new();
    for _ in 0..crate::control::playback::READERS {
        readers.push(open().await);
    }
    assert_eq!(open().await.status(), 429);
    // The clock is virtual: it runs as soon as everybody waits for it.
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(open().await.status(), 200);
    let rest = axum::body::to_bytes(readers.remove(0).into_body(), usize::MAX).await.unwrap();
    assert!(rest.len() < 200_000, "what was on its way is all that comes");
}

#[tokio::test]
async fn a_file_that_the_disk_did_not_take_is_not_waited_for() {
    let house = House::new();
    let why = "the disk does not take it";
    let file = Finished { outcome: Outcome::Failed, error: Some(why.to_owned()), ..Finished::default() };
    over(&house, "call_1", Some(RecordingPart { file, ..part() }));
    house.fake.ledger(|ledger| ledger.tape_begun(&tape("call_1"))).unwrap();
    let shown = house.get("/v1/calls/call_1").await.json()["call"]["recording"].clone();
    assert_eq!(
        (&shown["state"], &shown["outcome"], &shown["error"]),
        (&json!("failed"), &json!("failed"), &json!(why))
    );
    let got = house.get(PATH).await;
    assert_eq!(got.status, 404);
    assert!(got.json()["error"].as_str().unwrap().contains(why));
    // The disk is back, and the file was mended.
    keep(&house, &tape("call_1"), b"x");
    assert_eq!(house.get(PATH).await.status, 302);
}

#[tokio::test]
async fn the_end_of_a_call_tells_where_its_recording_is_and_until_when() {
    let house = House::new();
    use crate::control::Backend as _;
    let config = house.fake.config();
    let ended = record("call_1", START.0, Direction::Inbound, Why::UserHungUp, 56.0);
    let signer = Signer { key: house.fake.link_key(), config: &config, holder: "call.ended", now: START };
    let tell = |tape: Option<&TapeRow>| {
        let told = Told::of(&ended, tape, &signer);
        let event = events::over("id".to_owned(), &ended, &Billing::default(), &told, START);
        let body: Value = serde_json::from_str(&event.body).unwrap();
        (body["call"]["recordingUrl"].clone(), body["call"]["recordingExpiresAt"].clone())
    };
    let row = tape("call_1");
    let (url, expires) = tell(Some(&row));
    assert_eq!(expires, "2026-12-22T10:01:00.000Z", "thirty days, as the file says");
    let url = url.as_str().unwrap().strip_prefix("https://calls.example.com").unwrap().to_owned();
    over(&house, "call_1", Some(part()));
    house.fake.ledger(|ledger| ledger.tape_begun(&row)).unwrap();
    let early = fetch(&house, "GET", &url, &[]).await;
    assert_eq!((early.status.as_u16(), early.header("retry-after")), (409, "2"), "it is being finished");
    keep(&house, &row, b"x");
    assert_eq!(fetch(&house, "GET", &url, &[]).await.status, 200, "the same link");
    assert_eq!(log(&house).await, [entry("call.ended", "recording.fetched", "call_1")]);

    let kept = TapeRow { state: TapeState::Kept, expires_at: Some(START), ..row.clone() };
    assert_eq!(tell(Some(&kept)).1, "2026-11-22T10:00:00.000Z");
    for row in [
        None,
        Some(TapeRow { state: TapeState::Failed, local: false, ..row.clone() }),
        Some(TapeRow { state: TapeState::Kept, local: false, ..row }),
    ] {
        assert_eq!(tell(row.as_ref()), (json!(null), json!(null)));
    }
}
