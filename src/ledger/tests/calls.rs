//! A call's row from admission to the end, and the pages of the list.

use super::*;
use crate::call::record::{ApiStatus, end_reason, status_of};
use crate::ledger::cost::Billing;
use rust_decimal::Decimal;

const NONE: [u32; 0] = [];

fn bill() -> Billing {
    Billing::of(10, 56, 56, [Decimal::new(103, 4), Decimal::new(5, 3), Decimal::new(1_866_666, 9)])
}

fn answered(n: u32) -> Running {
    Running { answered_at: call(n).answered_at, ..ringing(n) }
}

fn event(n: u32) -> Spooled {
    Spooled {
        id: format!("evt_{n}"),
        call_id: call(n).id,
        name: "call.ended".into(),
        payload: "{}".into(),
        at: Wall(5),
        webhooks: vec!["hook".into()],
    }
}

/// Every page of this query, one after the other.
fn pages(ledger: &Ledger, query: &CallQuery) -> Vec<Vec<CallRow>> {
    let mut pages = Vec::new();
    let mut query = query.clone();
    loop {
        let (rows, next) = ledger.calls(&query).unwrap();
        pages.push(rows);
        let Some(next) = next else { return pages };
        assert!(pages.len() < 1_000, "the list has an end");
        query.before = Some(next);
    }
}

fn listed(ledger: &Ledger, query: CallQuery) -> Vec<String> {
    let (rows, _) = ledger.calls(&query).unwrap();
    rows.into_iter().map(|row| row.call.id).collect()
}

#[test]
fn a_call_is_listed_from_its_admission_on_and_its_row_follows_it() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let reader = Ledger::open_read_only(&folder.0).unwrap();
    let dialling = Running { wacid: String::new(), ringing: false, ..ringing(1) };
    ledger.note(&dialling).unwrap();
    let row = reader.call(&call(1).id).unwrap().unwrap();
    assert_eq!((row.status, row.end, row.billing), (ApiStatus::Ringing, None, None));
    assert_eq!((row.call, row.started_at), (dialling, call(1).offered_at));
    assert_eq!(reader.list(&Filter::default()).unwrap(), [], "it is not finished");

    ledger.note(&ringing(1)).unwrap();
    assert_eq!(reader.call(&call(1).id).unwrap().unwrap().call, ringing(1));
    assert_eq!(reader.running("wacid.1").unwrap().unwrap().call, ringing(1));

    let talking = Running { transferred_at: Some(Wall(9)), recording: true, ..answered(1) };
    ledger.note(&talking).unwrap();
    let row = reader.call(&call(1).id).unwrap().unwrap();
    assert_eq!((row.status, row.call), (ApiStatus::Answered, talking));

    ledger.close(&call(1), &bill(), &[]).unwrap();
    let row = reader.call(&call(1).id).unwrap().unwrap();
    assert_eq!((row.status, row.end, row.billing), (ApiStatus::Ended, Some(Box::new(call(1))), Some(bill())));
    assert_eq!(row.started_at, call(1).offered_at);
    assert_eq!(reader.running("wacid.1").unwrap(), None);
    assert_eq!(reader.list(&Filter::default()).unwrap(), [call(1)]);
    assert_eq!(reader.call("call_unknown").unwrap(), None);
}

#[test]
fn everything_in_a_record_comes_back_with_its_bill() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let full = Record {
        transferred_at: Some(Wall(1_700_000_010_000)),
        billed_seconds: 61.5,
        recording: true,
        placed_by: PlacedBy::Api,
        ..call(1)
    };
    ledger.close(&full, &bill(), &[]).unwrap();
    let row = ledger.call(&full.id).unwrap().unwrap();
    assert_eq!(row.end.as_deref(), Some(&full));
    let billing = row.billing.unwrap();
    assert_eq!(billing, bill());
    assert_eq!(billing.billable_cost.to_string(), "0.006866666");
    assert_eq!(billing.total_cost.to_string(), "0.017166666");
    assert_eq!(billing.currency(), "USD");
}

#[test]
fn a_record_keeps_its_first_eight_errors() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let errors: Vec<(i64, String)> = (0..20).map(|n| (n, format!("error {n}"))).collect();
    ledger.insert(&Record { errors: errors.clone(), ..call(1) }).unwrap();
    assert_eq!(ledger.call(&call(1).id).unwrap().unwrap().end.unwrap().errors, errors[..8]);
}

#[test]
fn closing_a_call_twice_changes_nothing_and_sends_nothing_twice() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.note(&answered(1)).unwrap();
    ledger.close(&call(1), &bill(), &[event(1)]).unwrap();
    ledger.close(&Record { detail: "again".into(), ..call(1) }, &Billing::default(), &[event(2)]).unwrap();
    ledger.note(&ringing(1)).unwrap();
    let row = ledger.call(&call(1).id).unwrap().unwrap();
    assert_eq!((row.status, row.end, row.billing), (ApiStatus::Ended, Some(Box::new(call(1))), Some(bill())));
    let due = ledger.due(Wall(10), 10).unwrap();
    assert_eq!(due.iter().map(|due| due.event_id.as_str()).collect::<Vec<_>>(), ["evt_1"]);
}

#[test]
fn calls_that_a_crash_has_interrupted_are_found_at_the_next_start() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.note(&ringing(1)).unwrap();
    ledger.note(&ringing(2)).unwrap();
    ledger.note(&answered(3)).unwrap();
    ledger.close(&call(2), &bill(), &[]).unwrap();
    // The process dies: nothing is closed, nothing is written any more.
    std::mem::forget(ledger);

    let mut ledger = folder.open();
    assert_eq!(ledger.interrupted().unwrap(), [ringing(1), answered(3)]);
    for (found, n) in ledger.interrupted().unwrap().into_iter().zip([1, 3]) {
        let record = Record::interrupted(found, Wall(1_700_000_099_000));
        ledger.close(&record, &Billing::default(), &[event(n)]).unwrap();
    }
    assert_eq!(ledger.interrupted().unwrap(), []);
    let row = ledger.call(&call(3).id).unwrap().unwrap();
    assert_eq!((row.status, row.call), (ApiStatus::Failed, answered(3)));
    let end = row.end.unwrap();
    assert_eq!((end.why, end.ended_at, end.answered()), (Why::Interrupted, Wall(1_700_000_099_000), true));
    assert_eq!(ledger.due(Wall(10), 10).unwrap().len(), 2);
}

#[test]
fn a_page_after_the_other_shows_every_call_once_the_latest_first() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    // Many calls in the same few milliseconds, and a clock that was set back between them.
    let mut started = Vec::new();
    for n in 0..60 {
        let offered_at = Wall(1_700_000_000_000 + i64::from(n % 7));
        ledger.note(&Running { offered_at, ..ringing(n) }).unwrap();
        if n % 2 == 0 {
            ledger.close(&Record { offered_at, ..call(n) }, &bill(), &[]).unwrap();
        }
        started.push(ledger.call(&call(n).id).unwrap().unwrap().started_at);
    }
    assert!(started.iter().all(|at| (0..100).contains(&(at.0 - 1_700_000_000_000))), "nobody is moved far");
    started.sort();
    started.reverse();

    for limit in [1, 7, 59, 60, 61] {
        let pages = pages(&ledger, &CallQuery { limit, ..CallQuery::default() });
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit), "pages are full but the last");
        let found: Vec<Wall> = pages.into_iter().flatten().map(|row| row.started_at).collect();
        assert_eq!(found, started, "limit {limit}");
    }
}

#[test]
fn a_new_call_between_two_pages_neither_repeats_nor_hides_one() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    for n in 1..=4 {
        ledger.insert(&call(n)).unwrap();
    }
    let first = CallQuery { limit: 2, ..CallQuery::default() };
    let (rows, next) = ledger.calls(&first).unwrap();
    assert_eq!(rows.iter().map(|row| row.call.id.clone()).collect::<Vec<_>>(), [call(4).id, call(3).id]);
    ledger.note(&ringing(5)).unwrap();
    assert_eq!(listed(&ledger, CallQuery { before: next, ..first }), [call(2).id, call(1).id]);
}

#[test]
fn a_query_leaves_only_what_was_asked_for() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.insert(&call(1)).unwrap();
    ledger.insert(&Record { account: "other".into(), from: "+4915112345678".into(), ..call(2) }).unwrap();
    ledger.insert(&Record { from: call(1).to, to: "US.998877".into(), ..missed(3) }).unwrap();
    ledger.insert(&Record { why: Why::GraphRefused, ..missed(4) }).unwrap();
    ledger.note(&ringing(5)).unwrap();
    ledger.note(&answered(6)).unwrap();
    let found = |query: CallQuery| {
        let ids = listed(&ledger, query);
        ids.iter().map(|id| id[5..].parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let all = CallQuery::default;
    let some = |text: &str| Some(text.to_owned());
    let at = |n: u32| Some(call(n).offered_at);

    assert_eq!(found(all()), [6, 5, 4, 3, 2, 1]);
    assert_eq!(found(CallQuery { account: some("acme"), ..all() }), [6, 5, 4, 3, 1]);
    assert_eq!(found(CallQuery { account: some("nobody"), ..all() }), NONE);
    for (status, ids) in [
        (ApiStatus::Ringing, vec![5]),
        (ApiStatus::Answered, vec![6]),
        (ApiStatus::Ended, vec![3, 2, 1]),
        (ApiStatus::Failed, vec![4]),
    ] {
        assert_eq!(found(CallQuery { status: Some(status), ..all() }), ids);
        let of_account = CallQuery { status: Some(status), account: some("acme"), ..all() };
        assert_eq!(found(of_account), ids.into_iter().filter(|n| *n != 2).collect::<Vec<_>>());
    }
    assert_eq!(found(CallQuery { direction: Some(Direction::Outbound), ..all() }), [4, 3]);
    assert_eq!(found(CallQuery { since: at(3), until: at(5), ..all() }), [5, 4, 3]);
    assert_eq!(found(CallQuery { before: at(3), ..all() }), [2, 1]);
    assert_eq!(found(CallQuery { limit: 2, ..all() }), [6, 5]);
    assert_eq!(found(CallQuery { limit: 0, ..all() }), NONE);

    assert_eq!(found(CallQuery { number_phone: some("+4915112345678"), ..all() }), [2]);
    assert_eq!(found(CallQuery { number_phone: some("+15550100100"), ..all() }), [6, 5, 4, 3, 2, 1]);
    assert_eq!(found(CallQuery { number_phone: some("+15550100100"), limit: 3, ..all() }), [6, 5, 4]);
    assert_eq!(found(CallQuery { number_phone: some("+1555010010"), ..all() }), NONE, "exactly");
    let own = CallQuery { number_phone: some("+15550100100"), account: some("other"), ..all() };
    assert_eq!(found(own), [2]);

    assert_eq!(found(CallQuery { search_digits: some("1511234"), ..all() }), [2]);
    assert_eq!(found(CallQuery { search_digits: some("+49 (151) 1234"), ..all() }), [2]);
    assert_eq!(found(CallQuery { search_digits: some("998877"), ..all() }), [3]);
    let both = CallQuery { search_digits: some("5550100100"), account: some("acme"), ..all() };
    assert_eq!(found(CallQuery { status: Some(ApiStatus::Ended), ..both }), [3, 1]);
    for nothing in ["", "%", "abc", "00000"] {
        assert_eq!(found(CallQuery { search_digits: some(nothing), ..all() }), NONE, "{nothing:?}");
    }
    for rude in ["' OR 1=1 --", "a\0b", "\u{663}"] {
        assert_eq!(found(CallQuery { number_phone: some(rude), ..all() }), NONE, "{rude:?}");
        assert_eq!(found(CallQuery { account: some(rude), ..all() }), NONE, "{rude:?}");
    }
}

#[test]
fn a_call_of_a_number_to_itself_is_listed_once() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    ledger.insert(&Record { from: call(1).to, ..call(1) }).unwrap();
    let query = CallQuery { number_phone: Some(call(1).to), ..CallQuery::default() };
    assert_eq!(listed(&ledger, query), [call(1).id]);
}

#[test]
fn usage_adds_up_and_tells_apart_by_day_number_and_channel() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let noon = 1_700_006_400_000; // 2023-11-15T00:00:00Z
    let cheap = Billing::of(5, 30, 0, [Decimal::new(5, 3), Decimal::new(1, 9), Decimal::ZERO]);
    let on = |at: i64, n: u32| Record { offered_at: Wall(noon + at), ..call(n) };
    ledger.close(&on(-1, 1), &bill(), &[]).unwrap();
    ledger.close(&on(0, 2), &cheap, &[]).unwrap();
    ledger.close(&Record { from: "+4930123".into(), ..on(5, 3) }, &bill(), &[]).unwrap();
    let out = Record { from: "+4930999".into(), to: "+15550100100".into(), ..missed(4) };
    ledger.close(&Record { offered_at: Wall(noon + 6), ..out }, &Billing::default(), &[]).unwrap();
    ledger.note(&Running { offered_at: Wall(noon + 7), ..ringing(5) }).unwrap();

    let query = UsageQuery {
        since: Wall(noon - 1),
        until: Wall(noon + 8),
        channel: None,
        number: None,
        group: Some(Group::Day),
    };
    let used = ledger.usage(&query).unwrap();
    assert_eq!((used.totals.calls, used.totals.answered), (5, 3));
    assert_eq!(used.totals.minutes.to_string(), "3.013", "3 times 60.25 s");
    assert_eq!(used.totals.billable_usd.to_string(), "0.013733333", "exact, to the last billionth");
    assert_eq!(used.totals.meta_usd.to_string(), "0.0256");
    let keys: Vec<(&str, u64)> = used.groups.iter().map(|(key, part)| (key.as_str(), part.calls)).collect();
    assert_eq!(keys, [("2023-11-14", 1), ("2023-11-15", 4)]);
    assert_eq!(used.groups["2023-11-15"].meta_usd.to_string(), "0.0153");

    let by_number = ledger.usage(&UsageQuery { group: Some(Group::Number), ..query.clone() }).unwrap();
    let keys: Vec<(&str, u64)> =
        by_number.groups.iter().map(|(key, part)| (key.as_str(), part.calls)).collect();
    assert_eq!(keys, [("+15550100100", 4), ("+4930999", 1)], "the business numbers");
    assert_eq!(by_number.totals, used.totals);

    let by_channel = ledger.usage(&UsageQuery { group: Some(Group::Channel), ..query.clone() }).unwrap();
    assert_eq!(by_channel.groups["whatsapp"], used.totals);
    let whole = ledger.usage(&UsageQuery { group: None, ..query.clone() }).unwrap();
    assert_eq!((whole.totals, whole.groups.len()), (used.totals, 0));

    let one = UsageQuery { number: Some("+4930999".into()), ..query.clone() };
    assert_eq!(ledger.usage(&one).unwrap().totals.calls, 1);
    let pstn = UsageQuery { channel: Some(Channel::Pstn), ..query.clone() };
    assert_eq!(ledger.usage(&pstn).unwrap(), Usage::default());
    let before = UsageQuery { until: Wall(noon - 1), since: Wall(0), group: Some(Group::Channel), ..query };
    assert_eq!(ledger.usage(&before).unwrap(), Usage::default());
}

#[test]
fn the_minutes_of_a_month_are_those_of_the_account_in_the_calendar_month() {
    let folder = Folder::new();
    let mut ledger = folder.open();
    let november = 1_793_491_200_000; // 2026-11-01T00:00:00Z
    let mut place = |n: u32, at: i64, account: &str, pulses: u64| {
        let record = Record { offered_at: Wall(at), account: account.into(), ..call(n) };
        let billing = Billing::of(pulses, 0, 0, [Decimal::ZERO; 3]);
        ledger.close(&record, &billing, &[]).unwrap();
    };
    place(1, november - 1, "acme", 1_000);
    place(2, november, "acme", 10);
    place(3, november + 86_400_000, "acme", 5);
    place(4, november + 5, "other", 70);
    place(5, november + 6, "acme", 0);
    let minutes = |account: &str, at: i64| ledger.month_to_date(account, Wall(at)).unwrap().to_string();
    assert_eq!(minutes("acme", november + 20 * 86_400_000), "1.5");
    assert_eq!(minutes("acme", november - 1), "100");
    assert_eq!(minutes("other", november), "7");
    assert_eq!(minutes("nobody", november), "0");
}

#[test]
fn every_ending_has_a_coarse_word_and_a_status() {
    for why in Why::ALL {
        let failed = status_of(why, false) == ApiStatus::Failed;
        let word = end_reason(why);
        assert!(["hangup", "no_answer", "rejected", "error"].contains(&word), "{why}");
        assert!(!failed || word == "error", "{why} failed, so its word is error");
        assert!(status_of(why, true).over() && status_of(why, false).over());
    }
    assert_eq!(status_of(Why::FarUnreachable, false), ApiStatus::Failed);
    assert_eq!(status_of(Why::FarUnreachable, true), ApiStatus::Ended, "a transfer that reached nobody");
    assert_eq!(status_of(Why::Interrupted, true), ApiStatus::Failed);
    assert_eq!((end_reason(Why::FarBusy), end_reason(Why::UserNoAnswer)), ("rejected", "no_answer"));
}
