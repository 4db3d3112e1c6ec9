//! Old files, old rows, and disks without room.

use super::*;
use crate::call::record::ApiStatus;
use crate::ledger::cost::Billing;

/// A file as the first version wrote it, with these calls: id, offering, answer, reason.
fn version_1(folder: &Folder, calls: &[(u32, i64, Option<i64>, &str)]) {
    fs::create_dir_all(&folder.0).unwrap();
    let old = Connection::open(folder.file()).unwrap();
    old.execute_batch(include_str!("../schema/1.sql")).unwrap();
    for (n, offered_at, answered_at, why) in calls {
        old.execute(
            "INSERT INTO calls VALUES (NULL, ?1, ?2, 'support', 'inbound', '+15550100200', NULL, NULL,
                 '+15550100100', 'sip:200@pbx', ?3, ?4, ?5, 7.5, ?6, 'said', 486, NULL,
                 1, 2, 3, 4, 5, 6, 7.5, 4.1, 11, 12, 13, 14, 15, 16, 17.5, 3.9)",
            params![call(*n).id, format!("wacid.{n}"), offered_at, answered_at, offered_at + 9, why],
        )
        .unwrap();
    }
    old.pragma_update(None, "user_version", 1).unwrap();
    old.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
}

#[test]
fn the_calls_of_an_older_version_are_all_there_afterwards() {
    let folder = Folder::new();
    // Two at once, one before them in time though written later, as after a jump of the clock.
    version_1(
        &folder,
        &[
            (1, 5_000, Some(6_000), "far_hung_up"),
            (2, 5_000, None, "trunk_down"),
            (3, 4_000, None, "far_busy"),
            (4, 5_001, Some(6_000), "fault"),
            (5, 9_000, Some(9_500), "far_unreachable"),
        ],
    );
    // The gateway has not run yet: the old file is read as it is.
    let order = [5, 4, 3, 2, 1].map(|n| call(n).id);
    assert_eq!(ids(&Ledger::open_read_only(&folder.0).unwrap().list(&Filter::default()).unwrap()), order);

    let mut ledger = folder.open();
    let kept = ledger.list(&Filter::default()).unwrap();
    assert_eq!(ids(&kept), order);
    let first = &kept[4];
    assert_eq!((first.why, first.talk_seconds, first.sip_code), (Why::FarHungUp, 7.5, Some(486)));
    assert_eq!((first.far.repaired, first.whatsapp.mos), (16, 4.1));
    assert_eq!((first.account.as_str(), first.billed_seconds, first.placed_by), ("", 7.5, PlacedBy::User));

    let (rows, next) = ledger.calls(&CallQuery::default()).unwrap();
    let listed: Vec<(String, i64, ApiStatus)> =
        rows.into_iter().map(|row| (row.call.id, row.started_at.0, row.status)).collect();
    assert_eq!(next, None);
    let expected = [
        (call(5).id, 9_000, ApiStatus::Ended),
        (call(4).id, 5_002, ApiStatus::Failed),
        (call(2).id, 5_001, ApiStatus::Failed),
        (call(1).id, 5_000, ApiStatus::Ended),
        (call(3).id, 4_000, ApiStatus::Ended),
    ];
    assert_eq!(listed, expected);
    assert_eq!(ledger.call(&call(1).id).unwrap().unwrap().billing, None);
    assert_eq!(ledger.interrupted().unwrap(), []);

    ledger.note(&ringing(6)).unwrap();
    ledger.close(&call(6), &Billing::default(), &[]).unwrap();
    assert_eq!(ledger.list(&Filter { limit: 1, ..Filter::default() }).unwrap(), [call(6)]);
    drop(ledger);
    assert_eq!(folder.open().list(&Filter::default()).unwrap().len(), 6);
    assert!(!folder.names().iter().any(|name| name.contains("corrupt")), "{:?}", folder.names());
}

#[test]
fn every_older_version_takes_up_recordings() {
    let steps =
        [include_str!("../schema/2.sql"), include_str!("../schema/3.sql"), include_str!("../schema/4.sql")];
    for version in 1..=4 {
        let folder = Folder::new();
        version_1(&folder, &[(1, 5_000, Some(6_000), "far_hung_up")]);
        let old = Connection::open(folder.file()).unwrap();
        for step in &steps[..version - 1] {
            old.execute_batch(step).unwrap();
        }
        old.pragma_update(None, "user_version", version as i64).unwrap();
        drop(old);

        // The gateway has not run yet: there are no recordings, and that is no error.
        let reader = Ledger::open_read_only(&folder.0).unwrap();
        assert_eq!(reader.tape(&call(1).id).unwrap(), None, "version {version}");
        assert_eq!(reader.tapes_running().unwrap(), []);
        assert_eq!(reader.audits(10, None).unwrap(), []);
        assert_eq!(reader.list(&Filter::default()).unwrap()[0].tape, None);
        drop(reader);

        let mut ledger = folder.open();
        assert_eq!(schema::version(&ledger.connection).unwrap(), schema::VERSION);
        assert_eq!(ledger.list(&Filter::default()).unwrap()[0].tape, None, "version {version}");
        ledger.insert(&call(2)).unwrap();
        assert_eq!(ledger.list(&Filter { limit: 1, ..Filter::default() }).unwrap(), [call(2)]);
        let row = super::tape::running(3);
        ledger.tape_begun(&row).unwrap();
        assert_eq!(ledger.tapes_running().unwrap(), [row]);
    }
}

#[test]
fn an_empty_history_of_an_older_version_is_taken_over_too() {
    let folder = Folder::new();
    version_1(&folder, &[]);
    let mut ledger = folder.open();
    ledger.insert(&call(1)).unwrap();
    assert_eq!(ledger.list(&Filter::default()).unwrap(), [call(1)]);
}

const DAY: i64 = 86_400_000;

#[test]
fn what_is_too_old_goes_a_little_at_a_time_and_running_calls_stay() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let now = Wall(2_000 * DAY);
    let old = |n: u32| Record { offered_at: Wall(i64::from(n)), ..call(n) };
    ledger.note(&Running { offered_at: Wall(0), ..ringing(9_999) }).unwrap();
    ledger
        .write(Wall(0), |on| {
            (1..=1_200).try_for_each(|n| running::end(on, &old(n), None, &[], Decimal::ZERO))
        })
        .unwrap();
    let fresh = Record { offered_at: Wall(now.0 - 730 * DAY), ..call(5_000) };
    ledger.insert(&fresh).unwrap();

    let keep = Keep::default();
    let mut gone = Vec::new();
    loop {
        let pruned = ledger.prune(now, keep).unwrap();
        gone.push(pruned.calls);
        if !pruned.more {
            break;
        }
    }
    assert_eq!(gone, [500, 500, 200]);
    let (rows, _) = ledger.calls(&CallQuery::default()).unwrap();
    let left: Vec<String> = rows.into_iter().map(|row| row.call.id).collect();
    assert_eq!(left, [fresh.id, call(9_999).id]);
    assert_eq!(ledger.prune(now, keep).unwrap(), Pruned::default());
}

#[test]
fn deliveries_are_remembered_for_thirty_days() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let event = |id: &str, at: i64| Spooled {
        id: id.into(),
        call_id: "A".into(),
        name: "call.ended".into(),
        payload: "{}".into(),
        at: Wall(at),
        webhooks: vec!["x".into()],
    };
    ledger.spool(&[event("old", 0), event("new", 20 * DAY)]).unwrap();
    let attempt = |at: i64| Attempt {
        at: Wall(at),
        status_code: Some(200),
        response_body: String::new(),
        error: None,
        response_time: Duration::ZERO,
    };
    ledger.delivered("x", 1, &attempt(1)).unwrap();
    let pruned = ledger.prune(Wall(30 * DAY), Keep::default()).unwrap();
    assert_eq!((pruned.logs, pruned.events), (0, 0));
    let pruned = ledger.prune(Wall(30 * DAY + 2), Keep::default()).unwrap();
    assert_eq!((pruned.logs, pruned.events, pruned.more), (1, 1, false));
    assert_eq!(ledger.log(None, 10, None).unwrap(), []);
    assert_eq!(ledger.due(Wall(DAY), 10).unwrap().len(), 1, "the new one still waits");
    let left: i64 =
        ledger.connection.query_row("SELECT count(*) FROM deliveries", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
}

#[test]
fn permissions_that_hold_are_never_forgotten() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let said = |accepted: bool, expires_at: Option<i64>| Permission {
        accepted,
        permanent: expires_at.is_none(),
        expires_at: expires_at.map(Wall),
        source: "user_action".into(),
        updated_at: Wall(0),
    };
    ledger.note_permission("n", "permanent", &said(true, None)).unwrap();
    ledger.note_permission("n", "expired", &said(true, Some(7 * DAY))).unwrap();
    ledger.note_permission("n", "refused", &said(false, None)).unwrap();
    ledger.note_request("n", "permanent", Wall(0)).unwrap();
    ledger.prune(Wall(729 * DAY), Keep::default()).unwrap();
    assert!(ledger.permission("n", "refused").unwrap().is_some());
    ledger.prune(Wall(731 * DAY), Keep::default()).unwrap();
    let kept = |user: &str| ledger.permission("n", user).unwrap().is_some();
    assert_eq!((kept("permanent"), kept("expired"), kept("refused")), (true, false, false));
}

#[test]
fn on_a_full_disk_a_call_is_closed_with_its_events_or_not_at_all() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.note(&ringing(1)).unwrap();
    let pages: i64 = ledger.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let room = |ledger: &Ledger, pages: i64| {
        let set = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        ledger.connection.pragma_update_and_check(None, "max_page_count", pages, set).unwrap();
    };
    room(&ledger, pages);
    let event = |id: &str| Spooled {
        id: id.into(),
        call_id: call(1).id,
        name: "call.ended".into(),
        payload: "x".repeat(20_000),
        at: Wall(0),
        webhooks: vec!["hook".into()],
    };
    let full = LedgerError::Full(folder.file());
    let events = [event("e1"), event("e2")];
    assert_eq!(ledger.close(&call(1), &Billing::default(), &events), Err(full.clone()));
    assert_eq!(ledger.spool(&events), Err(full.clone()));
    assert_eq!(ledger.interrupted().unwrap(), [ringing(1)], "it is still open");
    assert_eq!(ledger.next_due().unwrap(), None);
    let reader = Ledger::open_read_only(&folder.0).unwrap();
    assert_eq!(reader.call(&call(1).id).unwrap().unwrap().status, ApiStatus::Ringing, "reading works");
    let verdict: String =
        ledger.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");

    room(&ledger, 1_000_000);
    ledger.close(&call(1), &Billing::default(), &events).unwrap();
    assert_eq!(reader.call(&call(1).id).unwrap().unwrap().status, ApiStatus::Ended);
    assert_eq!(ledger.due(Wall(0), 9).unwrap().len(), 1, "the second waits for the first");
    let verdict: String =
        ledger.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    assert_eq!(folder.names().iter().filter(|name| name.contains("corrupt")).count(), 0);
}

#[test]
fn a_table_damaged_while_the_gateway_runs_costs_no_event() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 0..50 {
        ledger.insert(&call(n)).unwrap();
    }
    ledger.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA cache_size = 0").unwrap();
    damage(&folder.file());
    ledger.connection.execute_batch("PRAGMA shrink_memory").unwrap();
    let event = Spooled {
        id: "e".into(),
        call_id: call(60).id,
        name: "call.ended".into(),
        payload: "{}".into(),
        at: Wall(0),
        webhooks: vec!["hook".into()],
    };
    ledger.close(&call(60), &Billing::default(), &[event]).unwrap();
    assert_eq!(ledger.call(&call(60).id).unwrap().unwrap().status, ApiStatus::Ended);
    assert_eq!(ledger.due(Wall(0), 9).unwrap().len(), 1);
}
