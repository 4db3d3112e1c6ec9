//! Permissions, how often users were asked, and requests that must not be done twice.

use super::*;

const NUMBER: &str = "106540352242922";
const USER: &str = "+15550100200";
const HOUR: i64 = 3_600_000;

fn yes(at: i64) -> Permission {
    Permission {
        accepted: true,
        permanent: false,
        expires_at: Some(Wall(at + 168 * HOUR)),
        source: "user_action".into(),
        updated_at: Wall(at),
    }
}

#[test]
fn a_users_last_answer_is_remembered_per_number() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    assert_eq!(ledger.permission(NUMBER, USER).unwrap(), None);
    ledger.note_permission(NUMBER, USER, &yes(1_000)).unwrap();
    drop(ledger);
    let mut ledger = folder.open();
    assert_eq!(ledger.permission(NUMBER, USER).unwrap(), Some(yes(1_000)));
    assert_eq!(ledger.permission(NUMBER, "15550100200").unwrap(), Some(yes(1_000)), "the same user");
    assert_eq!(ledger.permission("another", USER).unwrap(), None);

    let revoked = Permission { accepted: false, expires_at: None, source: "automatic".into(), ..yes(2_000) };
    ledger.note_permission(NUMBER, "15550100200", &revoked).unwrap();
    ledger.note_permission(NUMBER, USER, &yes(1_500)).unwrap();
    assert_eq!(ledger.permission(NUMBER, USER).unwrap(), Some(revoked), "an older answer came late");
    let permanent = Permission { permanent: true, expires_at: None, ..yes(3_000) };
    ledger.note_permission(NUMBER, USER, &permanent).unwrap();
    assert_eq!(ledger.permission(NUMBER, USER).unwrap(), Some(permanent));
}

#[test]
fn requests_count_for_a_day_and_for_a_week() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let asked = |ledger: &Ledger, at: i64| ledger.requests_since(NUMBER, USER, Wall(at)).unwrap();
    assert_eq!(asked(&ledger, 0), Requests::default());
    ledger.note_request(NUMBER, USER, Wall(0)).unwrap();
    ledger.note_request(NUMBER, "15550100200", Wall(30 * HOUR)).unwrap();
    ledger.note_request("another", USER, Wall(30 * HOUR)).unwrap();
    let counts = |at: i64| {
        let requests = asked(&ledger, at);
        (requests.in_day, requests.in_week)
    };
    assert_eq!(counts(1), (2, 2), "a clock that was set back counts too much rather than too little");
    assert_eq!(counts(30 * HOUR), (1, 2));
    assert_eq!(counts(54 * HOUR - 1), (1, 2));
    assert_eq!(counts(54 * HOUR), (0, 2));
    assert_eq!(counts(168 * HOUR), (0, 1));
    assert_eq!(counts(198 * HOUR), (0, 0));
    let now = asked(&ledger, 31 * HOUR);
    assert_eq!((now.day_until, now.week_until), (Some(Wall(54 * HOUR)), Some(Wall(168 * HOUR))));
}

#[test]
fn a_connected_call_begins_the_count_anew() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let count = |ledger: &Ledger| ledger.requests_since(NUMBER, USER, Wall(10)).unwrap().in_week;
    let outbound =
        Running { direction: Direction::Outbound, from: call(1).to, to: USER.into(), ..ringing(1) };
    ledger.note_request(NUMBER, USER, Wall(1)).unwrap();
    ledger.note(&outbound).unwrap();
    assert_eq!(count(&ledger), 1, "it only rings");
    ledger.insert(&missed(9)).unwrap();
    assert_eq!(count(&ledger), 1, "it was not answered");
    ledger.note(&Running { answered_at: Some(Wall(5)), ..outbound }).unwrap();
    assert_eq!(count(&ledger), 0);

    // By the user's id, too, and when the call is only heard of at its end.
    ledger.note_request(NUMBER, "US.123", Wall(1)).unwrap();
    ledger.insert(&call(2)).unwrap();
    assert_eq!(ledger.requests_since(NUMBER, "US.123", Wall(10)).unwrap().in_week, 0);
    ledger.note_request(NUMBER, USER, Wall(20)).unwrap();
    ledger.insert(&Record { phone_number_id: "another".into(), ..call(3) }).unwrap();
    assert_eq!(ledger.requests_since(NUMBER, USER, Wall(20)).unwrap().in_week, 1, "another number's call");
}

const A: [u8; 32] = [1; 32];
const B: [u8; 32] = [2; 32];

#[test]
fn the_same_request_is_done_once_and_answered_the_same() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    assert_eq!(ledger.begin("k", "ops", &A, Wall(0)).unwrap(), Begun::New);
    assert_eq!(ledger.begin("k", "ops", &A, Wall(1)).unwrap(), Begun::Running);
    assert_eq!(ledger.begin("k", "ops", &B, Wall(1)).unwrap(), Begun::Mismatch);
    assert_eq!(ledger.begin("k", "other", &A, Wall(1)).unwrap(), Begun::New, "another owner's key");
    ledger.finish("k", "ops", 200, "{\"callId\":\"1\"}", Wall(2)).unwrap();
    let answer = Begun::Replay { status: 200, body: "{\"callId\":\"1\"}".into() };
    assert_eq!(ledger.begin("k", "ops", &A, Wall(3)).unwrap(), answer);
    assert_eq!(ledger.begin("k", "ops", &B, Wall(3)).unwrap(), Begun::Mismatch);
    ledger.finish("k", "ops", 500, "late", Wall(4)).unwrap();
    drop(ledger);
    let mut ledger = folder.open();
    assert_eq!(ledger.begin("k", "ops", &A, Wall(24 * HOUR - 1)).unwrap(), answer, "also after a restart");
    assert_eq!(ledger.begin("k", "ops", &B, Wall(24 * HOUR)).unwrap(), Begun::New, "a day later");
}

#[test]
fn a_request_that_died_with_its_process_can_be_done_after_a_minute() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.begin("k", "ops", &A, Wall(0)).unwrap();
    std::mem::forget(ledger);
    let mut ledger = folder.open();
    assert_eq!(ledger.begin("k", "ops", &A, Wall(59_999)).unwrap(), Begun::Running);
    assert_eq!(ledger.begin("k", "ops", &B, Wall(60_000)).unwrap(), Begun::New);
    assert_eq!(ledger.begin("k", "ops", &B, Wall(60_001)).unwrap(), Begun::Running);
    // The clock was an hour ahead when it began.
    assert_eq!(ledger.begin("k", "ops", &B, Wall(-HOUR)).unwrap(), Begun::New);
    ledger.forget("k", "ops", Wall(0)).unwrap();
    assert_eq!(ledger.begin("k", "ops", &A, Wall(-HOUR)).unwrap(), Begun::New, "it came to nothing");
}

#[test]
fn of_very_many_requests_the_oldest_are_forgotten() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger
        .write(Wall(0), |on| {
            on.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                 INSERT INTO requests (owner, key, body_sha256, begun_at, status, body)
                 SELECT 'ops', 'k' || i, zeroblob(32), i, 200, '' FROM n",
                [],
            )
        })
        .unwrap();
    assert_eq!(ledger.begin("new", "ops", &A, Wall(10_001)).unwrap(), Begun::New);
    let kept: i64 =
        ledger.connection.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 10_000);
    assert_eq!(ledger.begin("k1", "ops", &[0; 32], Wall(10_002)).unwrap(), Begun::New, "it was the oldest");
    assert_eq!(ledger.begin("new", "ops", &A, Wall(10_003)).unwrap(), Begun::Running);
}
