//! Duplicates, strangers, ends before beginnings, and clocks that are wrong.

use super::*;
use crate::clock::Wall;
use crate::whatsapp::notice::{Connect, Direction, PermissionReply, Status, Terminate, User};
use crate::whatsapp::settings::{AccountChange, SettingsNotice};

const NUMBER: &str = "106540352242922";
/// 2026-06-01 12:00:00 UTC.
const NOON: i64 = 1_780_315_200;

fn now() -> Now {
    Now { tick: Tick::from_millis(5_000), wall: Wall(NOON * 1_000) }
}

fn ours(number: &str) -> bool {
    number == NUMBER
}

fn connect_at(wacid: &str, timestamp: Option<i64>) -> Notice {
    Notice::Connect(Box::new(Connect {
        wacid: wacid.to_owned(),
        phone_number_id: NUMBER.to_owned(),
        direction: Direction::Inbound,
        user: User::default(),
        timestamp,
        sdp_type: String::from("offer"),
        sdp: String::new(),
        payload: None,
        opaque: None,
    }))
}

fn connect(wacid: &str) -> Notice {
    connect_at(wacid, Some(NOON))
}

fn terminate(wacid: &str) -> Notice {
    Notice::Terminate(Box::new(Terminate {
        wacid: wacid.to_owned(),
        phone_number_id: NUMBER.to_owned(),
        direction: None,
        user: User::default(),
        timestamp: Some(NOON),
        answered: false,
        status: None,
        start_time: None,
        end_time: None,
        duration: None,
        reason: None,
        error: None,
        opaque: None,
    }))
}

fn step(wacid: &str, status: CallStatus) -> Notice {
    Notice::Status(Status {
        wacid: wacid.to_owned(),
        phone_number_id: NUMBER.to_owned(),
        status,
        timestamp: Some(NOON),
        opaque: None,
    })
}

fn answer_at(wacid: &str, timestamp: Option<i64>) -> Notice {
    let Notice::Connect(mut connect) = connect_at(wacid, timestamp) else { panic!("a connect") };
    connect.direction = Direction::Outbound;
    connect.sdp_type = String::from("answer");
    Notice::Connect(connect)
}

fn reply(phone: &str, accepted: bool, context: Option<&str>, timestamp: i64) -> Notice {
    Notice::Permission(Box::new(PermissionReply {
        phone_number_id: NUMBER.to_owned(),
        user: User { phone: Some(phone.to_owned()), ..User::default() },
        accepted,
        permanent: false,
        expires_at: None,
        source: None,
        context_id: context.map(str::to_owned),
        timestamp: Some(timestamp),
    }))
}

fn warning(number: &str, word: &str, timestamp: Option<i64>) -> Notice {
    let change = AccountChange::Warned(word.to_owned());
    Notice::Settings(Box::new(SettingsNotice { phone_number_id: number.to_owned(), timestamp, change }))
}

#[test]
fn a_copy_of_each_notice_is_seen_as_one() {
    let mut seen = Seen::new();
    for notice in
        [connect("a"), step("a", CallStatus::Ringing), step("a", CallStatus::Accepted), terminate("a")]
    {
        assert_eq!(seen.admit(&notice, ours, now()), Admit::New, "{notice:?}");
        assert_eq!(seen.admit(&notice, ours, now()), Admit::Duplicate, "{notice:?}");
    }
    assert_eq!(seen.admit(&connect("a"), ours, now()), Admit::Duplicate);
    assert_eq!(seen.admit(&connect("b"), ours, now()), Admit::New, "another call is another matter");
}

#[test]
fn a_connect_after_its_terminate_does_not_ring() {
    let mut seen = Seen::new();
    assert!(!seen.has_ended("a"));
    assert_eq!(seen.admit(&terminate("a"), ours, now()), Admit::New);
    assert!(seen.has_ended("a"));
    let later = now().after(Duration::from_secs(599));
    assert_eq!(seen.admit(&connect_at("a", None), ours, later), Admit::Tombstoned);
    assert_eq!(seen.admit(&connect_at("a", None), ours, later), Admit::Duplicate);
    assert_eq!(seen.admit(&step("a", CallStatus::Ringing), ours, later), Admit::Tombstoned);
}

#[test]
fn another_number_of_the_account_is_foreign_and_takes_no_memory() {
    let mut seen = Seen::new();
    for notice in [connect("a"), terminate("a"), step("a", CallStatus::Ringing)] {
        assert_eq!(seen.admit(&notice, |number| number == "1", now()), Admit::Foreign);
    }
    assert!(seen.is_empty());
    assert_eq!(seen.admit(&connect("a"), ours, now()), Admit::New);
}

#[test]
fn a_ringing_older_than_a_minute_is_stale() {
    let mut seen = Seen::new();
    assert_eq!(seen.admit(&connect_at("a", Some(NOON - 61)), ours, now()), Admit::Stale);
    assert_eq!(seen.admit(&connect_at("a", Some(NOON - 61)), ours, now()), Admit::Stale);
    assert_eq!(seen.admit(&connect_at("b", Some(NOON - 60)), ours, now()), Admit::New);
    assert_eq!(seen.admit(&connect_at("c", None), ours, now()), Admit::New);
}

#[test]
fn only_ringing_gets_stale_the_end_of_a_call_never_does() {
    let mut seen = Seen::new();
    let much_later = now().after(Duration::from_secs(3_000));
    assert_eq!(seen.admit(&terminate("a"), ours, much_later), Admit::New);
    assert_eq!(seen.admit(&step("b", CallStatus::Accepted), ours, much_later), Admit::New);
}

#[test]
fn a_clock_that_was_never_set_makes_nothing_stale() {
    let mut seen = Seen::new();
    let unset = Now { wall: Wall(1_000_000), ..now() };
    assert_eq!(seen.admit(&connect("a"), ours, unset), Admit::New);
    assert_eq!(seen.admit(&connect_at("b", Some(0)), ours, unset), Admit::New);
}

#[test]
fn a_clock_that_runs_behind_makes_nothing_stale() {
    let mut seen = Seen::new();
    assert_eq!(seen.admit(&connect_at("a", Some(NOON + 301)), ours, now()), Admit::New);
    assert_eq!(seen.admit(&connect_at("b", Some(i64::MAX)), ours, now()), Admit::New);
    assert_eq!(seen.admit(&connect_at("c", Some(i64::MIN)), ours, now()), Admit::Stale);
}

#[test]
fn a_call_is_remembered_for_an_hour_after_its_latest_notice() {
    let mut seen = Seen::new();
    seen.admit(&connect_at("a", None), ours, now());
    let half = now().after(Duration::from_secs(1_800));
    assert_eq!(seen.admit(&connect_at("a", None), ours, half), Admit::Duplicate);
    let hour = now().after(Duration::from_secs(5_000));
    assert_eq!(seen.admit(&connect_at("a", None), ours, hour), Admit::Duplicate);
    let next = now().after(Duration::from_secs(5_000 + 3_601));
    assert_eq!(seen.admit(&connect_at("b", None), ours, next), Admit::New);
    assert_eq!(seen.len(), 1, "the old one made room");
}

#[test]
fn a_flood_of_calls_forgets_the_oldest_and_stays_bounded() {
    let mut seen = Seen::with_capacity(3);
    for wacid in ["a", "b", "c"] {
        assert_eq!(seen.admit(&connect(wacid), ours, now()), Admit::New);
    }
    assert_eq!(seen.admit(&terminate("a"), ours, now()), Admit::New, "a is the latest again");
    assert_eq!(seen.admit(&connect("d"), ours, now()), Admit::New);
    assert_eq!(seen.len(), 3);
    assert_eq!(seen.admit(&connect("a"), ours, now()), Admit::Duplicate);
    assert_eq!(seen.admit(&connect("b"), ours, now()), Admit::New, "b was the oldest");
    for index in 0..1_000 {
        seen.admit(&connect(&format!("w{index}")), ours, now());
    }
    assert_eq!((seen.len(), seen.order.len()), (3, 3));
}

#[test]
fn steps_without_end_do_not_fill_the_memory() {
    let mut seen = Seen::new();
    for index in 0..100 {
        seen.admit(&step("a", CallStatus::Other(format!("NEW_{index}"))), ours, now());
    }
    assert_eq!(seen.calls.get("a").map(|trace| trace.steps.len()), Some(MAX_STEPS));
}

#[test]
fn an_answer_to_our_call_is_not_stale_while_the_call_may_wait_for_it() {
    let mut seen = Seen::new();
    assert_eq!(seen.admit(&answer_at("a", Some(NOON - 90)), ours, now()), Admit::New);
    assert_eq!(seen.admit(&answer_at("a", Some(NOON - 90)), ours, now()), Admit::Duplicate);
    seen.admit(&terminate("b"), ours, now());
    assert_eq!(seen.admit(&answer_at("b", Some(NOON)), ours, now()), Admit::Tombstoned);
}

#[test]
fn a_pickup_after_the_end_changes_nothing() {
    let mut seen = Seen::new();
    assert_eq!(seen.admit(&terminate("a"), ours, now()), Admit::New);
    assert_eq!(seen.admit(&step("a", CallStatus::Accepted), ours, now()), Admit::Tombstoned);
}

#[test]
fn a_copy_of_a_permission_reply_is_seen_as_one_and_a_change_of_mind_is_not() {
    let mut seen = Seen::new();
    let said = [
        reply("491511", true, Some("wamid.1"), NOON),
        reply("491512", true, Some("wamid.1"), NOON),
        reply("491511", false, Some("wamid.1"), NOON),
        reply("491511", true, Some("wamid.1"), NOON + 1),
        reply("491511", true, Some("wamid.2"), NOON),
        reply("491511", false, None, NOON),
    ];
    for notice in &said {
        assert_eq!(seen.admit(notice, ours, now()), Admit::New, "{notice:?}");
    }
    for notice in &said {
        assert_eq!(seen.admit(notice, ours, now()), Admit::Duplicate, "{notice:?}");
    }
    assert_eq!(seen.admit(&said[0], |_| false, now()), Admit::Foreign);
}

#[test]
fn a_permission_reply_is_never_too_old() {
    let mut seen = Seen::new();
    assert_eq!(seen.admit(&reply("491511", true, None, NOON - 9_000), ours, now()), Admit::New);
}

#[test]
fn what_is_told_of_the_whole_account_is_ours_and_told_once() {
    let mut seen = Seen::new();
    assert_eq!(seen.admit(&warning("", "LOW", Some(1)), ours, now()), Admit::New);
    assert_eq!(seen.admit(&warning("", "LOW", Some(1)), ours, now()), Admit::Duplicate);
    assert_eq!(seen.admit(&warning("", "LOWER", Some(1)), ours, now()), Admit::New);
    assert_eq!(seen.admit(&warning(NUMBER, "LOW", Some(1)), ours, now()), Admit::New);
    assert_eq!(seen.admit(&warning("7", "LOW", Some(1)), ours, now()), Admit::Foreign);
    assert_eq!(
        seen.admit(&terminate(""), |number| number == "7", now()),
        Admit::Foreign,
        "only of the account"
    );
}
