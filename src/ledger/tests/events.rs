//! Events leave in order, at least once, and what became of them can be asked for.

use super::*;

fn event(id: &str, call: &str, webhooks: &[&str]) -> Spooled {
    Spooled {
        id: id.into(),
        call_id: call.into(),
        name: "call.received".into(),
        payload: format!("{{\"id\":\"{id}\"}}"),
        at: Wall(1_000),
        webhooks: webhooks.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn attempt(at: i64, status_code: Option<u16>) -> Attempt {
    Attempt {
        at: Wall(at),
        status_code,
        response_body: "ok".into(),
        error: None,
        response_time: Duration::from_millis(12),
    }
}

fn due(ledger: &Ledger, now: i64) -> Vec<(String, String)> {
    let due = ledger.due(Wall(now), 100).unwrap();
    due.into_iter().map(|due| (due.event_id, due.webhook_id)).collect()
}

fn is_due(ledger: &Ledger, now: i64, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(event, hook)| ((*event).into(), (*hook).into())).collect();
    assert_eq!(due(ledger, now), expected, "at {now}");
}

fn seq(ledger: &Ledger, event: &str) -> i64 {
    ledger.connection.query_row("SELECT seq FROM events WHERE id = ?1", [event], |row| row.get(0)).unwrap()
}

#[test]
fn an_event_waits_for_the_earlier_ones_of_its_call_and_for_nothing_else() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    assert_eq!(ledger.next_due().unwrap(), None);
    ledger
        .spool(&[
            event("a1", "A", &["x", "y"]),
            event("b1", "B", &["x"]),
            event("a2", "A", &["x", "y"]),
            event("free1", "", &["x"]),
            event("free2", "", &["x"]),
        ])
        .unwrap();
    drop(ledger);
    let mut ledger = folder.open();
    is_due(&ledger, 0, &[("a1", "x"), ("a1", "y"), ("b1", "x"), ("free1", "x"), ("free2", "x")]);
    let first = ledger.due(Wall(0), 1).unwrap().remove(0);
    assert_eq!((first.seq, first.attempt, first.call_id.as_str()), (seq(&ledger, "a1"), 1, "A"));
    assert_eq!((first.name.as_str(), first.payload.as_str()), ("call.received", "{\"id\":\"a1\"}"));

    let a1 = first.seq;
    assert!(!ledger.failed("x", a1, &attempt(2_000, Some(500)), Some(Wall(9_000))).unwrap());
    ledger.delivered("y", a1, &attempt(2_000, Some(200))).unwrap();
    is_due(&ledger, 8_999, &[("b1", "x"), ("a2", "y"), ("free1", "x"), ("free2", "x")]);
    for (webhook, event) in [("x", "b1"), ("y", "a2"), ("x", "free1"), ("x", "free2")] {
        let seq = seq(&ledger, event);
        ledger.delivered(webhook, seq, &attempt(3_000, Some(204))).unwrap();
    }
    is_due(&ledger, 8_999, &[]);
    assert_eq!(ledger.next_due().unwrap(), Some(Wall(9_000)), "a2 waits for a1 and is no reason to wake");
    is_due(&ledger, 9_000, &[("a1", "x")]);
    assert_eq!(ledger.due(Wall(9_000), 9).unwrap()[0].attempt, 2);

    assert!(!ledger.failed("x", a1, &attempt(9_000, None), None).unwrap());
    is_due(&ledger, 9_000, &[("a2", "x")]);
    let a2 = seq(&ledger, "a2");
    ledger.delivered("x", a2, &attempt(9_001, Some(200))).unwrap();
    assert_eq!(ledger.next_due().unwrap(), None);
}

#[test]
fn an_event_is_spooled_once_whoever_says_it_again() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.spool(&[event("a1", "A", &["x"])]).unwrap();
    ledger.spool(&[event("a1", "A", &["x"])]).unwrap();
    let a1 = seq(&ledger, "a1");
    ledger.delivered("x", a1, &attempt(1, Some(200))).unwrap();
    ledger.spool(&[event("a1", "A", &["x", "y"])]).unwrap();
    is_due(&ledger, 10, &[]);
}

#[test]
fn the_log_says_what_was_sent_and_what_came_back() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.spool(&[event("a1", "A", &["x", "y"])]).unwrap();
    let a1 = seq(&ledger, "a1");
    let refused = Attempt {
        response_body: "ö".repeat(2_000),
        error: Some("HTTP 500".into()),
        ..attempt(2_000, Some(500))
    };
    ledger.failed("x", a1, &refused, Some(Wall(3_000))).unwrap();
    ledger.delivered("x", a1, &attempt(3_000, Some(200))).unwrap();
    ledger.delivered("y", a1, &attempt(3_001, Some(201))).unwrap();

    let lines = ledger.log(None, 10, None).unwrap();
    let short: Vec<(&str, bool, Option<u16>, u32)> = lines
        .iter()
        .map(|line| (line.webhook_id.as_str(), line.success, line.status_code, line.attempt_number))
        .collect();
    let expected = [("y", true, Some(201), 1), ("x", true, Some(200), 2), ("x", false, Some(500), 1)];
    assert_eq!(short, expected);
    let oldest = &lines[2];
    assert_eq!((oldest.event_id.as_str(), oldest.name.as_str()), ("a1", "call.received"));
    assert_eq!(oldest.request_payload, "{\"id\":\"a1\"}");
    assert_eq!((oldest.at, oldest.response_time), (Wall(2_000), Duration::from_millis(12)));
    assert_eq!(oldest.error.as_deref(), Some("HTTP 500"));
    assert_eq!(oldest.response_body, "ö".repeat(1_024), "2 kB of it");

    let of_x = ledger.log(Some("x"), 1, None).unwrap();
    assert_eq!(of_x, lines[1..2]);
    assert_eq!(ledger.log(Some("x"), 9, Some(of_x[0].id)).unwrap(), lines[2..]);
    assert_eq!(ledger.log(Some("z"), 9, None).unwrap(), []);
}

#[test]
fn what_was_delivered_or_given_up_can_be_sent_again() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.spool(&[event("a1", "A", &["x", "y"]), event("a2", "A", &["x"])]).unwrap();
    let (a1, a2) = (seq(&ledger, "a1"), seq(&ledger, "a2"));
    ledger.delivered("x", a1, &attempt(1, Some(200))).unwrap();
    ledger.failed("y", a1, &attempt(2, None), None).unwrap();
    ledger.delivered("x", a2, &attempt(3, Some(200))).unwrap();
    is_due(&ledger, 9, &[]);

    let line = ledger.log(Some("y"), 1, None).unwrap().remove(0);
    assert!(ledger.redeliver_log(line.id, Wall(10)).unwrap());
    is_due(&ledger, 10, &[("a1", "y")]);
    assert_eq!(ledger.due(Wall(10), 1).unwrap()[0].attempt, 1, "from the beginning");
    assert_eq!(ledger.redeliver_event("a1", None, Wall(10)).unwrap(), 2);
    is_due(&ledger, 10, &[("a1", "x"), ("a1", "y")]);
    assert_eq!(ledger.redeliver_event("a2", Some("x"), Wall(10)).unwrap(), 1);
    assert!(!ledger.redeliver_log(999, Wall(10)).unwrap());
    assert_eq!(ledger.redeliver_event("unknown", None, Wall(10)).unwrap(), 0);
    assert_eq!(ledger.redeliver_event("a2", Some("y"), Wall(10)).unwrap(), 0);
}

#[test]
fn ten_failures_in_a_row_disable_a_webhook_until_it_is_enabled_again() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.spool(&[event("a1", "A", &["x", "y"]), event("b1", "B", &["x"])]).unwrap();
    let (a1, b1) = (seq(&ledger, "a1"), seq(&ledger, "b1"));
    assert_eq!(ledger.webhook("x").unwrap(), WebhookState { pending: 2, ..WebhookState::default() });
    let fails = |ledger: &mut Ledger, times: i64| -> Vec<bool> {
        (0..times).map(|n| ledger.failed("x", a1, &attempt(n, None), Some(Wall(n))).unwrap()).collect()
    };
    assert_eq!(fails(&mut ledger, 9), [false; 9]);
    assert_eq!(ledger.webhook("x").unwrap().failure_count, 9);
    ledger.delivered("x", b1, &attempt(50, Some(200))).unwrap();
    let state = ledger.webhook("x").unwrap();
    assert_eq!((state.failure_count, state.last_fired_at), (0, Some(Wall(50))), "in a row");

    assert_eq!(fails(&mut ledger, 9), [false; 9]);
    assert_eq!(fails(&mut ledger, 2), [true, false], "it is said once");
    let state = ledger.webhook("x").unwrap();
    assert_eq!((state.failure_count, state.disabled_at, state.pending), (11, Some(Wall(0)), 1));
    is_due(&ledger, 99, &[("a1", "y")]);
    ledger.delivered("y", a1, &attempt(60, Some(200))).unwrap();
    assert_eq!(ledger.next_due().unwrap(), None, "nothing to wake for");

    ledger.reset_webhook("x", Wall(100)).unwrap();
    is_due(&ledger, 99, &[("a1", "x")]);
    let state = ledger.webhook("x").unwrap();
    assert_eq!((state.failure_count, state.disabled_at), (0, None));
    ledger.forget_webhook("x", Wall(101)).unwrap();
    is_due(&ledger, 99, &[]);
    assert_eq!(ledger.webhook("x").unwrap(), WebhookState::default());
}

#[test]
fn a_webhook_that_takes_nothing_keeps_the_latest_ten_thousand_and_the_log_says_so() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let many: Vec<Spooled> = (0..10_000).map(|n| event(&format!("e{n}"), "", &[])).collect();
    ledger.spool(&many).unwrap();
    ledger
        .connection
        .execute(
            "INSERT INTO deliveries (webhook_id, event_seq, call_id) SELECT 'x', seq, '' FROM events",
            [],
        )
        .unwrap();
    ledger.spool(&[event("one more", "", &["x", "y"]), event("two more", "", &["x"])]).unwrap();
    assert_eq!(ledger.webhook("x").unwrap().pending, 10_000);
    assert_eq!(ledger.webhook("y").unwrap().pending, 1);
    let lines = ledger.log(None, 10, None).unwrap();
    let lost: Vec<(&str, u32)> =
        lines.iter().map(|line| (line.event_id.as_str(), line.attempt_number)).collect();
    assert_eq!(lost, [("e1", 0), ("e0", 0)], "the oldest");
    assert!(lines[0].error.as_deref().unwrap().contains("too many events"));
    assert!(!lines[0].success);
    // It arrives after all, because it was on its way.
    let e0 = seq(&ledger, "e0");
    assert!(!ledger.failed("x", e0, &attempt(1, None), Some(Wall(5))).unwrap());
    assert_eq!(ledger.webhook("x").unwrap().pending, 10_000, "what was given up stays so");
}
