//! What is written is found again: after a restart, while others write, and after the file was damaged.

use std::sync::atomic::{AtomicU32, Ordering};

mod age;
mod calls;
mod consent;
mod events;
mod large;
mod price;
mod tape;

use super::*;
use crate::call::record::{AgentPart, Line, Noted, PlacedBy, Quality, Running, Speaker, TrunkPart};
use crate::call::recording::{Consent, Finished, Outcome, RecordingPart};

/// A folder of its own that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("watrunk-ledger-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }

    fn open(&self) -> Ledger {
        Ledger::open(&self.0, Wall(77)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn call(n: u32) -> Record {
    Record {
        id: format!("call_{n:024x}"),
        wacid: format!("wacid.{n}"),
        number: "support".into(),
        account: "acme".into(),
        phone_number_id: "106540352242922".into(),
        direction: Direction::Inbound,
        from: "+15550100200".into(),
        profile_name: Some("Zoë 'Z' O\"Neil".into()),
        user_id: Some("US.123".into()),
        to: "+15550100100".into(),
        destination: "sip:200@pbx".into(),
        offered_at: Wall(1_700_000_000_000 + i64::from(n)),
        answered_at: Some(Wall(1_700_000_004_000)),
        connected_at: Some(Wall(1_700_000_004_000)),
        transferred_at: None,
        ended_at: Wall(1_700_000_064_250),
        talk_seconds: 60.25,
        billed_seconds: 60.25,
        recording: false,
        placed_by: PlacedBy::User,
        why: Why::UserHungUp,
        detail: "terminate from Meta".into(),
        sip_code: Some(200),
        meta_code: Some(-138_006),
        errors: vec![(138_006, "Zoë's phone: \"no\"".into())],
        whatsapp: Quality {
            received: 1,
            sent: 2,
            lost: 3,
            discarded: 4,
            concealed: 5,
            repaired: 6,
            jitter_ms: 7.5,
            mos: 4.1,
        },
        far: Quality {
            received: 11,
            sent: 12,
            lost: 13,
            discarded: 14,
            concealed: 15,
            repaired: 16,
            jitter_ms: 17.5,
            mos: 3.9,
        },
        agent: Some(Box::new(AgentPart {
            name: "bot.example.com".into(),
            dialect: "twilio".into(),
            attempts: 2,
            first_audio_ms: Some(480),
            barge_ins: 3,
            unread: 4,
            unreadable: 5,
            failure: Some("it broke off".into()),
            transcript: vec![
                Line { who: Speaker::Agent, text: "Hello, \"Zoë\"".into(), at_ms: 500 },
                Line { who: Speaker::User, text: "hi".into(), at_ms: 1_900 },
            ],
            events: vec![Noted { name: "tool".into(), detail: "end_call".into(), at_ms: 2_000 }],
        })),
        trunk: Some(Box::new(TrunkPart {
            name: "pbx".into(),
            codec: Some("g722"),
            encrypted: true,
            cause: Some(16),
            early_media: true,
            diverted_from: Some("+49301234".into()),
        })),
        tape: Some(Box::new(RecordingPart {
            prompt: "builtin:en".into(),
            announced_to_both: true,
            prompted_at: Some(Wall(1_700_000_004_000)),
            consent: Consent::Agreed,
            began_at: Some(Wall(1_700_000_008_000)),
            format: "ogg",
            encrypted: true,
            file: Finished {
                outcome: Outcome::Gaps,
                millis: 56_250,
                paused_millis: 2_000,
                lost_millis: 40,
                bytes: 225_000,
                sha256: "00ff".into(),
                error: Some("the disk was \"slow\"".into()),
            },
        })),
    }
}

/// The same call while it rings.
fn ringing(n: u32) -> Running {
    let call = call(n);
    Running {
        id: call.id,
        wacid: call.wacid,
        number: call.number,
        account: call.account,
        phone_number_id: call.phone_number_id,
        direction: call.direction,
        from: call.from,
        profile_name: call.profile_name,
        user_id: call.user_id,
        to: call.to,
        destination: call.destination,
        offered_at: call.offered_at,
        ringing: true,
        answered_at: None,
        transferred_at: None,
        recording: call.recording,
        placed_by: call.placed_by,
    }
}

fn missed(n: u32) -> Record {
    Record {
        wacid: String::new(),
        direction: Direction::Outbound,
        profile_name: None,
        user_id: None,
        answered_at: None,
        connected_at: None,
        talk_seconds: 0.0,
        billed_seconds: 0.0,
        placed_by: PlacedBy::Pbx,
        why: Why::FarBusy,
        sip_code: Some(486),
        meta_code: None,
        ..call(n)
    }
}

/// What PBXs dialled in a span, in milliseconds from the first call of all.
fn dialled(ledger: &Ledger, since: i64, until: i64) -> Vec<(String, i64)> {
    let begin = call(0).offered_at.0;
    let mut found = Vec::new();
    let tell = |trunk: &str, at: Wall| found.push((trunk.to_owned(), at.0 - begin));
    ledger.dialled(Wall(begin + since), Wall(begin + until), tell).unwrap();
    found
}

#[test]
fn what_the_pbxs_dialled_is_told_by_trunk_whether_it_rings_or_is_over() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.insert(&missed(2)).unwrap();
    ledger.insert(&call(3)).unwrap();
    let rings = Running { destination: "sip:7@home@branch".into(), placed_by: PlacedBy::Pbx, ..ringing(4) };
    ledger.note(&rings).unwrap();
    ledger.insert(&Record { placed_by: PlacedBy::Api, ..missed(5) }).unwrap();
    ledger.insert(&missed(6)).unwrap();
    let pbx = |at| ("pbx".to_owned(), at);
    assert_eq!(dialled(&ledger, 0, 100), [pbx(2), ("branch".to_owned(), 4), pbx(6)]);
    assert_eq!(dialled(&ledger, 3, 6), [("branch".to_owned(), 4)], "from then on, and before");
    drop(ledger);
    assert_eq!(dialled(&folder.open(), 6, 7), [pbx(6)], "also after a restart");
}

fn ids(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.id.clone()).collect()
}

#[test]
fn a_record_comes_back_as_it_was_written_also_after_a_restart() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.insert(&call(1)).unwrap();
    ledger.insert(&missed(2)).unwrap();
    let expected = vec![missed(2), call(1)];
    assert_eq!(ledger.list(&Filter::default()).unwrap(), expected);
    drop(ledger);
    assert_eq!(folder.open().list(&Filter::default()).unwrap(), expected);
}

#[test]
fn every_reason_and_direction_can_be_kept() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for (n, why) in (0..).zip(Why::ALL) {
        ledger.insert(&Record { why, ..call(n) }).unwrap();
    }
    let mut found: Vec<Why> =
        ledger.list(&Filter::default()).unwrap().into_iter().map(|record| record.why).collect();
    found.reverse();
    assert_eq!(found, Why::ALL);
}

#[test]
fn a_record_with_absurd_figures_is_kept_all_the_same() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let mut absurd = call(1);
    absurd.talk_seconds = f64::NAN;
    absurd.whatsapp.jitter_ms = f64::INFINITY;
    absurd.far.received = u64::MAX;
    absurd.detail = "a\0b'; DROP TABLE calls; --".into();
    ledger.insert(&absurd).unwrap();
    let found = ledger.list(&Filter::default()).unwrap().remove(0);
    assert_eq!((found.talk_seconds, found.whatsapp.jitter_ms), (0.0, 0.0));
    assert_eq!(found.far.received, i64::MAX as u64);
    assert_eq!(found.detail, absurd.detail);
}

#[test]
fn writing_a_record_twice_keeps_the_first() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.insert(&call(1)).unwrap();
    ledger.insert(&Record { detail: "again".into(), ..call(1) }).unwrap();
    assert_eq!(ledger.list(&Filter::default()).unwrap(), [call(1)]);
}

#[test]
fn the_latest_written_comes_first_whatever_the_clock_said() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.insert(&call(1)).unwrap();
    ledger.insert(&Record { offered_at: Wall(5), ended_at: Wall(9), ..call(2) }).unwrap();
    ledger.insert(&call(3)).unwrap();
    let listed = ledger.list(&Filter::default()).unwrap();
    assert_eq!(ids(&listed), [call(3).id, call(2).id, call(1).id]);
}

#[test]
fn a_filter_leaves_only_what_was_asked_for() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 0..6 {
        ledger.insert(&if n % 2 == 0 { call(n) } else { missed(n) }).unwrap();
    }
    ledger.insert(&Record { why: Why::FarNoAnswer, direction: Direction::Inbound, ..missed(6) }).unwrap();
    let found = |filter: Filter| ids(&ledger.list(&filter).unwrap());
    let any = Filter::default;
    let names = |numbers: &[u32]| numbers.iter().map(|n| call(*n).id).collect::<Vec<_>>();

    assert_eq!(found(Filter { direction: Some(Direction::Inbound), ..any() }), names(&[6, 4, 2, 0]));
    assert_eq!(found(Filter { direction: Some(Direction::Outbound), ..any() }), names(&[5, 3, 1]));
    assert_eq!(found(Filter { answered: Some(true), ..any() }), names(&[4, 2, 0]));
    assert_eq!(found(Filter { answered: Some(false), ..any() }), names(&[6, 5, 3, 1]));
    assert_eq!(found(Filter { why: Some(Why::FarNoAnswer), ..any() }), names(&[6]));
    assert_eq!(found(Filter { why: Some(Why::Fault), ..any() }), names(&[]));
    assert_eq!(
        found(Filter { direction: Some(Direction::Inbound), answered: Some(false), ..any() }),
        names(&[6])
    );
    assert_eq!(found(Filter { limit: 2, ..any() }), names(&[6, 5]));
    assert_eq!(found(Filter { limit: 0, ..any() }), names(&[]));
    assert_eq!(found(Filter { limit: usize::MAX, ..any() }).len(), 7);
    assert_eq!(found(Filter { limit: 2, before: Some(call(5).id), ..any() }), names(&[4, 3]));
    assert_eq!(found(Filter { before: Some(call(0).id), ..any() }), names(&[]));
    assert_eq!(found(Filter { before: Some("call_unknown".into()), ..any() }), names(&[]));
}

#[test]
fn the_folder_is_made_and_the_files_are_for_their_owner_alone() {
    let folder = Folder::new();
    let deep = folder.0.join("a/b");
    let mut ledger = Ledger::open(&deep, Wall(0)).unwrap();
    ledger.insert(&call(1)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&deep), 0o700);
    for name in ["calls.db", "calls.db-wal", "calls.db-shm"] {
        assert_eq!(mode(&deep.join(name)), 0o600, "{name}");
    }
    drop(ledger);
    fs::set_permissions(deep.join(FILE), Permissions::from_mode(0o644)).unwrap();
    drop(Ledger::open(&deep, Wall(0)).unwrap());
    assert_eq!(mode(&deep.join(FILE)), 0o600);
}

#[test]
fn an_empty_file_is_brought_to_this_version_and_a_second_opening_changes_nothing() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(folder.file(), b"").unwrap();
    let mut ledger = folder.open();
    assert_eq!(schema::version(&ledger.connection).unwrap(), schema::VERSION);
    let pragma = |name: &str| -> String {
        let value: rusqlite::types::Value =
            ledger.connection.pragma_query_value(None, name, |row| row.get(0)).unwrap();
        format!("{value:?}")
    };
    assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
    assert_eq!(pragma("synchronous"), "Integer(1)");
    ledger.insert(&call(1)).unwrap();
    drop(ledger);
    let ledger = folder.open();
    assert_eq!(schema::version(&ledger.connection).unwrap(), schema::VERSION);
    assert_eq!(ledger.list(&Filter::default()).unwrap().len(), 1);
    drop(ledger);
    assert_eq!(folder.names(), ["calls.db"]);
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let folder = Folder::new();
    let ledger = folder.open();
    ledger.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(ledger);
    let newer = LedgerError::Newer { found: 99, known: schema::VERSION };
    assert_eq!(Ledger::open(&folder.0, Wall(1)).unwrap_err(), newer);
    assert_eq!(Ledger::open_read_only(&folder.0).unwrap_err(), newer);
    assert!(!folder.names().iter().any(|name| name.contains("corrupt")), "{:?}", folder.names());
}

#[test]
fn a_reader_reads_while_the_gateway_writes() {
    let folder = Folder::new();
    let mut writer = folder.open();
    writer.insert(&call(1)).unwrap();
    let reader = Ledger::open_read_only(&folder.0).unwrap();
    assert_eq!(reader.list(&Filter::default()).unwrap().len(), 1);

    // In the middle of a transaction of the writer the reader sees what was there before, and doesn't wait.
    writer
        .write(Wall(0), |on| {
            running::end(on, &call(2), None, &[], Decimal::ZERO)?;
            assert_eq!(reader.list(&Filter::default()).unwrap(), [call(1)]);
            Ok(())
        })
        .unwrap();
    assert_eq!(reader.list(&Filter::default()).unwrap(), [call(2), call(1)]);

    let mut reader = reader;
    let refused = reader.insert(&call(3)).unwrap_err();
    assert!(matches!(refused, LedgerError::Refused(_)), "{refused}");
}

#[test]
fn without_a_history_a_reader_is_told_so_and_makes_none() {
    let folder = Folder::new();
    assert_eq!(Ledger::open_read_only(&folder.0).unwrap_err(), LedgerError::Missing(folder.file()));
    fs::create_dir_all(&folder.0).unwrap();
    assert_eq!(Ledger::open_read_only(&folder.0).unwrap_err(), LedgerError::Missing(folder.file()));
    assert_eq!(folder.names(), Vec::<String>::new());
    fs::write(folder.file(), b"").unwrap();
    assert_eq!(Ledger::open_read_only(&folder.0).unwrap_err(), LedgerError::Missing(folder.file()));
}

#[test]
fn a_file_that_is_no_database_is_set_aside_and_a_new_one_begun() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    let rubbish = "this is not a database ".repeat(500);
    fs::write(folder.file(), &rubbish).unwrap();
    fs::write(folder.0.join("calls.db-wal"), "old log").unwrap();
    let told = Ledger::open_read_only(&folder.0).unwrap_err();
    assert!(matches!(told, LedgerError::Corrupt(_)), "{told}");

    let mut ledger = Ledger::open(&folder.0, Wall(1_700_000_000_123)).unwrap();
    ledger.insert(&call(1)).unwrap();
    assert_eq!(ledger.list(&Filter::default()).unwrap(), [call(1)]);
    drop(ledger);
    assert_eq!(fs::read_to_string(folder.0.join("calls.db.corrupt-1700000000123")).unwrap(), rubbish);
    assert!(folder.names().contains(&"calls.db".to_owned()));

    // The same stamp again: what was set aside first is still there.
    fs::write(folder.file(), "more rubbish, which is longer than the header of a database ".repeat(9))
        .unwrap();
    drop(Ledger::open(&folder.0, Wall(1_700_000_000_123)).unwrap());
    assert_eq!(fs::read_to_string(folder.0.join("calls.db.corrupt-1700000000123")).unwrap(), rubbish);
    assert!(folder.0.join("calls.db.corrupt-1700000000123-1").exists());
}

/// Writes over everything behind the first page: the header is fine, the tables are not.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    assert!(bytes.len() > 8_192, "there is more than the first page");
    bytes[4_096..].fill(0xA5);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_table_is_found_when_the_gateway_starts() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 0..50 {
        ledger.insert(&call(n)).unwrap();
    }
    drop(ledger);
    damage(&folder.file());
    let mut ledger = folder.open();
    assert_eq!(ledger.list(&Filter::default()).unwrap(), []);
    ledger.insert(&call(1)).unwrap();
    assert!(folder.0.join("calls.db.corrupt-77").exists());
}

#[test]
fn a_table_damaged_while_the_gateway_runs_costs_no_new_record() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 0..50 {
        ledger.insert(&call(n)).unwrap();
    }
    ledger.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA cache_size = 0").unwrap();
    damage(&folder.file());
    ledger.connection.execute_batch("PRAGMA shrink_memory").unwrap();
    ledger.insert(&call(1_000)).unwrap();
    assert_eq!(ledger.list(&Filter::default()).unwrap(), [call(1_000)]);
    assert!(folder.0.join(format!("calls.db.corrupt-{}", call(1_000).ended_at.0)).exists());
}

#[test]
fn a_database_of_another_program_is_set_aside() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("CREATE TABLE calls (what TEXT); PRAGMA user_version = 1").unwrap();
    drop(other);
    folder.open().insert(&call(1)).unwrap();
    assert!(folder.0.join("calls.db.corrupt-77").exists());
}

#[test]
fn a_full_disk_is_told_and_the_same_record_can_be_written_later() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.insert(&call(0)).unwrap();
    let pages: i64 = ledger.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit = |ledger: &Ledger, pages: i64| {
        ledger
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
            .unwrap()
    };
    limit(&ledger, pages);
    let large = |n: u32| Record { detail: "x".repeat(5_000), ..call(n) };
    let (n, full) = (1..100)
        .find_map(|n| ledger.insert(&large(n)).err().map(|error| (n, error)))
        .expect("the disk is full at some time");
    assert_eq!(full, LedgerError::Full(folder.file()));
    assert!(full.retry());
    assert!(full.to_string().ends_with("calls.db: the disk is full"));

    limit(&ledger, 1_000_000);
    ledger.insert(&large(n)).unwrap();
    assert_eq!(ledger.list(&Filter::default()).unwrap()[0], large(n));
    assert_eq!(folder.names().iter().filter(|name| name.contains("corrupt")).count(), 0);
}

#[test]
fn a_folder_that_can_not_be_made_is_told_by_name() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(folder.0.join("file"), "").unwrap();
    let told = Ledger::open(&folder.0.join("file/state"), Wall(0)).unwrap_err();
    assert!(!told.retry());
    assert!(told.to_string().contains("file/state"), "{told}");
    // A folder where the file should be is no damaged file: nothing is moved.
    fs::create_dir_all(folder.0.join("state/calls.db")).unwrap();
    let told = Ledger::open(&folder.0.join("state"), Wall(0)).unwrap_err();
    assert!(matches!(told, LedgerError::Refused(_)), "{told}");
    assert!(folder.0.join("state/calls.db").is_dir());
}

#[test]
fn a_row_of_another_version_does_not_hide_the_others() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 1..=3 {
        ledger.insert(&call(n)).unwrap();
    }
    let changed = ledger.connection.execute("UPDATE calls SET why = 'comet' WHERE id = ?1", [call(2).id]);
    assert_eq!(changed, Ok(1));
    assert_eq!(ids(&ledger.list(&Filter::default()).unwrap()), [call(3).id, call(1).id]);
}
