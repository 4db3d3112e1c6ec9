//! Requests word for word, and tries that come to an end.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const SDP: &str = "v=0\r\ns=-\r\n";

fn accept() -> Action {
    Action::Accept { wacid: String::from("wacid.A=="), sdp: String::from(SDP) }
}

fn pre_accept() -> Action {
    Action::PreAccept { wacid: String::from("wacid.A=="), sdp: String::from(SDP) }
}

fn reject() -> Action {
    Action::Reject { wacid: String::from("wacid.A==") }
}

fn terminate() -> Action {
    Action::Terminate { wacid: String::from("wacid.A==") }
}

fn http(status: u16, body: &str) -> Reply {
    Reply::Http { status, retry_after: None, body: body.as_bytes().to_vec() }
}

fn error(status: u16, code: i64, message: &str) -> Reply {
    http(status, &json!({"error": {"message": message, "code": code}}).to_string())
}

/// Plays an attempt to its end against one and the same reply, each taking the time that it may take.
/// Gives how many tries were made, how long it took, and what the end was.
fn play(action: Action, reply: &Reply, jitter: u64) -> (u32, Duration, Next) {
    let start = Now { tick: Tick::from_millis(77), ..Now::default() };
    let mut now = start;
    let mut attempt = Attempt::new(action, now);
    for tries in 1..100 {
        let waits = attempt.timeout(now);
        now = now.after(if *reply == Reply::Timeout { waits } else { Duration::from_millis(120) });
        match attempt.replied(reply, now, jitter) {
            Next::Retry { at } => {
                assert!(at > now.tick, "a pause is a pause");
                now = now.after(at.since(now.tick));
            }
            end => return (tries, now.tick.since(start.tick), end),
        }
    }
    panic!("it never ends");
}

#[test]
fn each_action_is_worded_as_meta_wants_it() {
    for (action, name) in
        [(pre_accept(), "pre_accept"), (accept(), "accept"), (reject(), "reject"), (terminate(), "terminate")]
    {
        let request = action.request("106540352242922");
        assert_eq!(request.path, "106540352242922/calls");
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let mut wanted = json!({"messaging_product": "whatsapp", "call_id": "wacid.A==", "action": name});
        if name.ends_with("accept") {
            wanted["session"] = json!({"sdp_type": "answer", "sdp": SDP});
        }
        assert_eq!(body, wanted);
        assert_eq!(action.name(), name);
    }
}

#[test]
fn a_yes_is_done_at_once() {
    let (tries, _, end) = play(accept(), &http(200, r#"{"success":true}"#), 0);
    assert_eq!((tries, end), (1, Next::Done(br#"{"success":true}"#.to_vec())));
}

#[test]
fn silence_and_broken_servers_are_tried_again_and_given_up_in_time() {
    let replies =
        [Reply::Timeout, Reply::Unreachable(String::from("dns")), http(502, ""), error(500, 2, "x")];
    for reply in &replies {
        for (action, limit) in [(pre_accept(), 8), (accept(), 8), (reject(), 30), (terminate(), 30)] {
            for jitter in [0, 1, 123_456_789, u64::MAX] {
                let (tries, took, end) = play(action.clone(), reply, jitter);
                assert!(tries >= 2, "{action:?} was not tried again after {reply:?}");
                assert!(tries <= 8);
                assert!(took <= Duration::from_secs(limit), "{action:?} took {took:?} of {limit} s");
                let Next::Failed(verdict) = end else { panic!("{end:?}") };
                assert_eq!((verdict.kind, verdict.sip_code), (VerdictKind::Unreachable, 503));
            }
        }
    }
}

#[test]
fn the_end_of_a_call_is_tried_for_longer_than_its_beginning() {
    let (_, begin, _) = play(accept(), &Reply::Timeout, 0);
    let (_, end, _) = play(terminate(), &Reply::Timeout, 0);
    assert!(end > Duration::from_secs(20) && begin < Duration::from_secs(9), "{begin:?} {end:?}");
}

#[test]
fn pauses_grow_and_chance_spreads_them() {
    let pauses = |jitter: u64| -> Vec<u64> {
        let mut now = Now::default();
        let mut attempt = Attempt::new(terminate(), now);
        let mut pauses = Vec::new();
        while let Next::Retry { at } = attempt.replied(&http(503, ""), now, jitter) {
            pauses.push(at.since(now.tick).as_micros() as u64);
            now = now.after(at.since(now.tick));
        }
        pauses
    };
    assert_eq!(pauses(0)[..5], [200_000, 400_000, 800_000, 1_600_000, 3_000_000]);
    assert_eq!(pauses(150_000)[..3], [350_000, 550_000, 950_000]);
}

#[test]
fn a_refusal_for_good_is_not_tried_again() {
    for (status, code) in [
        (401, 0),
        (401, 190),
        (500, 3),
        (403, 10),
        (403, 200),
        (400, 100),
        (403, 368),
        (400, 131_009),
        (400, 131_030),
        (400, 131_042),
        (400, 131_044),
        (400, 131_055),
        (401, 138_000),
        (400, 138_001),
        (429, 138_002),
        (400, 138_003),
        (429, 138_005),
        (401, 138_006),
        (500, 138_007),
        (400, 138_008),
        (400, 138_009),
        (400, 138_012),
        (400, 138_013),
        (400, 138_014),
        (400, 138_015),
        (400, 138_018),
    ] {
        let (tries, _, end) = play(accept(), &error(status, code, "no"), 0);
        assert_eq!(tries, 1, "code {code}");
        assert!(
            matches!(end, Next::Failed(Verdict { code: Some(found), .. }) if found == code),
            "code {code}"
        );
    }
}

#[test]
fn throttling_is_tried_again_with_pauses() {
    for (status, code) in [(400, 4), (400, 80_007), (429, 130_429), (429, 613)] {
        let (tries, took, end) = play(terminate(), &error(status, code, "slow down"), 7);
        assert!(tries > 3 && took <= Duration::from_secs(30), "code {code}: {tries} tries in {took:?}");
        let Next::Failed(verdict) = end else { panic!("{end:?}") };
        assert_eq!((verdict.kind, verdict.sip_code), (VerdictKind::Throttled, 503));
    }
}

#[test]
fn a_connection_error_is_tried_once_more() {
    let (tries, _, end) = play(accept(), &error(500, 138_004, "connection"), 0);
    assert_eq!(tries, 2);
    assert!(matches!(end, Next::Failed(_)));
}

#[test]
fn retry_after_is_obeyed_where_there_is_time_for_it() {
    let reply = |seconds| Reply::Http { status: 429, retry_after: Some(seconds), body: Vec::new() };
    let now = Now::default();
    assert_eq!(
        Attempt::new(terminate(), now).replied(&reply(10), now, 0),
        Next::Retry { at: Tick::from_millis(10_000) }
    );
    for seconds in [8, 3_600, u32::MAX] {
        let end = Attempt::new(accept(), now).replied(&reply(seconds), now, 0);
        let Next::Failed(verdict) = end else { panic!("no caller waits {seconds} s: {end:?}") };
        assert_eq!(verdict.kind, VerdictKind::Throttled);
    }
}

#[test]
fn an_accept_that_got_through_without_its_answer_counts_when_it_is_tried_again() {
    let now = Now::default();
    let taken = error(400, 100, "Call was already accepted");
    let mut attempt = Attempt::new(accept(), now);
    let Next::Retry { at } = attempt.replied(&Reply::Timeout, now, 0) else { panic!("no second try") };
    assert_eq!(attempt.replied(&taken, Now { tick: at, ..now }, 0), Next::Done(Vec::new()));

    let mut first = Attempt::new(accept(), now);
    let Next::Failed(verdict) = first.replied(&taken, now, 0) else { panic!("somebody else took it") };
    assert_eq!(verdict.kind, VerdictKind::AlreadyOver);
}

#[test]
fn a_user_who_gave_up_meanwhile_is_not_taken_for_a_success() {
    let now = Now::default();
    let mut attempt = Attempt::new(accept(), now);
    let Next::Retry { at } = attempt.replied(&Reply::Timeout, now, 0) else { panic!("no second try") };
    let gone = error(400, 100, "User already terminated the call");
    let Next::Failed(verdict) = attempt.replied(&gone, Now { tick: at, ..now }, 0) else {
        panic!("it is over")
    };
    assert_eq!(verdict.kind, VerdictKind::AlreadyOver);
}

#[test]
fn a_call_that_was_never_reached_can_not_have_been_taken_by_us() {
    let now = Now::default();
    let mut attempt = Attempt::new(accept(), now);
    let Next::Retry { at } = attempt.replied(&error(429, 4, "slow down"), now, 0) else {
        panic!("no second try")
    };
    let taken = error(400, 100, "Accept already in progress");
    let Next::Failed(verdict) = attempt.replied(&taken, Now { tick: at, ..now }, 0) else {
        panic!("not ours")
    };
    assert_eq!(verdict.kind, VerdictKind::AlreadyOver);
}

proptest! {
    #[test]
    fn whatever_comes_back_every_attempt_ends_in_its_time(
        replies in prop::collection::vec((0_u8..5, any::<u16>(), prop::option::of(any::<u32>()), any::<u64>()), 120),
        ends in any::<bool>(),
    ) {
        let (action, limit) = if ends { (terminate(), 30) } else { (accept(), 8) };
        let mut now = Now::default();
        let mut attempt = Attempt::new(action, now);
        let mut ended = false;
        for (kind, status, retry_after, jitter) in replies {
            let (reply, took) = match kind {
                0 => (Reply::Timeout, attempt.timeout(now)),
                1 => (Reply::Unreachable(String::from("refused")), Duration::from_millis(3)),
                2 => (Reply::Http { status, retry_after, body: Vec::new() }, Duration::from_millis(90)),
                3 => (error(400, i64::from(status), "x"), Duration::from_millis(90)),
                _ => (Reply::Http { status: 503, retry_after, body: Vec::new() }, Duration::from_millis(900)),
            };
            now = now.after(took);
            match attempt.replied(&reply, now, jitter) {
                Next::Retry { at } => {
                    prop_assert!(at >= now.tick);
                    now = now.after(at.since(now.tick));
                }
                Next::Done(_) | Next::Failed(_) => {
                    ended = true;
                    break;
                }
            }
        }
        prop_assert!(ended);
        prop_assert!(now.tick.as_millis() <= limit * 1_000 + 900, "{} ms", now.tick.as_millis());
    }
}

fn ada() -> Callee {
    Callee::parse("+4915112345678").unwrap()
}

fn named() -> Callee {
    Callee::parse("US.13491208655302741918").unwrap()
}

fn connect() -> Action {
    Action::Connect { to: ada(), sdp: String::from(SDP), opaque: String::from("call-1") }
}

fn ask() -> Action {
    Action::RequestPermission { to: ada(), text: None }
}

fn body(action: &Action) -> Value {
    let request = action.request("106540352242922");
    assert_eq!(request.method, Method::Post);
    serde_json::from_str(&request.body).unwrap()
}

#[test]
fn connect_carries_our_offer_and_what_its_webhooks_are_known_by() {
    let mut wanted = json!({
        "messaging_product": "whatsapp",
        "to": "4915112345678",
        "action": "connect",
        "session": { "sdp_type": "offer", "sdp": SDP },
        "biz_opaque_callback_data": "call-1",
    });
    assert_eq!(body(&connect()), wanted);
    assert_eq!(connect().request("106540352242922").path, "106540352242922/calls");
    let to_bsuid = Action::Connect { to: named(), sdp: String::from(SDP), opaque: String::from("call-1") };
    wanted.as_object_mut().unwrap().remove("to");
    wanted["recipient"] = json!("US.13491208655302741918");
    assert_eq!(body(&to_bsuid), wanted);
}

#[test]
fn permissions_are_asked_for_by_number_and_by_bsuid() {
    for (user, path) in [
        (ada(), "1/call_permissions?user_wa_id=4915112345678"),
        (named(), "1/call_permissions?recipient=US.13491208655302741918"),
    ] {
        let request = Action::Permissions { user }.request("1");
        assert_eq!(request, Request { method: Method::Get, path: path.to_owned(), body: String::new() });
    }
}

#[test]
fn a_permission_request_is_an_interactive_message() {
    let mut wanted = json!({
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "4915112345678",
        "type": "interactive",
        "interactive": {
            "type": "call_permission_request",
            "action": { "name": "call_permission_request" },
        },
    });
    assert_eq!(body(&ask()), wanted);
    assert_eq!(ask().request("1").path, "1/messages");
    wanted["interactive"]["body"] = json!({ "text": "May we \"call\"?" });
    let text = Some(String::from("May we \"call\"?"));
    assert_eq!(body(&Action::RequestPermission { to: ada(), text }), wanted);
    let endless = Action::RequestPermission { to: ada(), text: Some("\u{e4}".repeat(9_000)) };
    let text = body(&endless)["interactive"]["body"]["text"].as_str().unwrap().to_owned();
    assert_eq!(text.chars().count(), 1_024);
}

#[test]
fn settings_and_subscriptions_have_their_own_paths() {
    let read = Action::ReadSettings.request("1");
    assert_eq!((read.method, read.path.as_str(), read.body.as_str()), (Method::Get, "1/settings", ""));
    let change = SettingsChange { enabled: Some(true), ..SettingsChange::default() };
    let write = Action::WriteSettings { body: change };
    assert_eq!(write.request("1").path, "1/settings");
    assert_eq!(body(&write), json!({ "calling": { "status": "ENABLED" } }));
    let apps = Action::SubscribedApps { waba: String::from("2") }.request("1");
    assert_eq!((apps.method, apps.path.as_str()), (Method::Get, "2/subscribed_apps"));
}

#[test]
fn only_actions_on_a_call_of_metas_have_its_id() {
    assert_eq!(accept().wacid(), Some("wacid.A=="));
    assert_eq!(terminate().wacid(), Some("wacid.A=="));
    assert_eq!((connect().wacid(), Action::ReadSettings.wacid()), (None, None));
}

#[test]
fn a_log_line_of_an_action_does_not_say_who_is_called() {
    for action in [connect(), ask(), Action::Permissions { user: ada() }] {
        assert!(!format!("{action:?}").contains("4915112345678"), "{action:?}");
    }
}

#[test]
fn nobody_is_rung_twice_because_a_reply_got_lost() {
    let lost = [
        Reply::Timeout,
        Reply::BrokenOff(String::from("connection reset")),
        http(500, ""),
        http(502, "<html>"),
        http(408, ""),
        error(500, 1, "unknown"),
        error(400, 2, "Service temporarily unavailable"),
        Reply::Http { status: 503, retry_after: Some(1), body: Vec::new() },
    ];
    for reply in &lost {
        for action in [connect(), ask()] {
            let (tries, took, end) = play(action.clone(), reply, 5);
            assert_eq!(tries, 1, "{action:?} after {reply:?}");
            assert!(took <= Duration::from_secs(10));
            let Next::Failed(verdict) = end else { panic!("{end:?}") };
            let known = verdict.code.is_some() && !verdict.in_doubt;
            assert!(verdict.in_doubt || known, "{reply:?} may have got through: {verdict:?}");
        }
    }
}

#[test]
fn a_connect_waits_for_its_one_answer_as_long_as_a_caller_would() {
    assert_eq!(Attempt::new(connect(), Now::default()).timeout(Now::default()), Duration::from_secs(10));
}

#[test]
fn a_connect_that_meta_surely_did_not_get_is_tried_again() {
    let refused = Reply::Unreachable(String::from("connection refused"));
    let (tries, took, end) = play(connect(), &refused, 0);
    assert!((2..=4).contains(&tries) && took < Duration::from_secs(10), "{tries} in {took:?}");
    let Next::Failed(verdict) = end else { panic!("{end:?}") };
    assert!(!verdict.in_doubt);
    for (status, code) in [(429, 130_429), (400, 80_007), (400, 4)] {
        let (tries, _, end) = play(connect(), &error(status, code, "slow down"), 0);
        assert!(tries >= 2, "code {code}");
        assert!(matches!(end, Next::Failed(Verdict { in_doubt: false, .. })), "{end:?}");
    }
}

#[test]
fn a_connect_obeys_retry_after_only_within_its_time() {
    let throttled = |seconds| Reply::Http {
        status: 429,
        retry_after: Some(seconds),
        body: br#"{"error":{"code":130429,"message":"slow down"}}"#.to_vec(),
    };
    let now = Now::default();
    assert_eq!(
        Attempt::new(connect(), now).replied(&throttled(3), now, 0),
        Next::Retry { at: Tick::from_millis(3_000) }
    );
    let Next::Failed(verdict) = Attempt::new(connect(), now).replied(&throttled(60), now, 0) else {
        panic!("no caller waits a minute")
    };
    assert_eq!((verdict.retry_after, verdict.in_doubt), (Some(60), false));
}

#[test]
fn a_connect_in_doubt_stays_in_doubt_whatever_came_before() {
    let now = Now::default();
    let mut attempt = Attempt::new(connect(), now);
    let refused = Reply::Unreachable(String::from("connection refused"));
    let Next::Retry { at } = attempt.replied(&refused, now, 0) else { panic!("no second try") };
    let later = Now { tick: at, ..now };
    let Next::Failed(verdict) = attempt.replied(&Reply::Timeout, later, 0) else { panic!("tried again") };
    assert!(verdict.in_doubt);
}

#[test]
fn a_refusal_after_a_try_that_got_lost_leaves_the_doubt() {
    let now = Now::default();
    let change = SettingsChange { enabled: Some(true), ..SettingsChange::default() };
    let mut attempt = Attempt::new(Action::WriteSettings { body: change }, now);
    let Next::Retry { at } = attempt.replied(&Reply::Timeout, now, 0) else { panic!("no second try") };
    let refused = error(400, 100, "Invalid parameter");
    let Next::Failed(verdict) = attempt.replied(&refused, Now { tick: at, ..now }, 0) else {
        panic!("refused")
    };
    assert!(verdict.in_doubt, "the first try may have changed something");
}

#[test]
fn a_limit_of_metas_is_not_knocked_at_again() {
    for (status, code) in [(429, 138_002), (429, 138_005), (400, 138_012), (400, 138_003), (401, 138_006)] {
        let (tries, _, _) = play(connect(), &error(status, code, "no"), 0);
        assert_eq!(tries, 1, "code {code}");
    }
}

#[test]
fn a_question_is_asked_at_most_three_times_in_five_seconds() {
    let questions = [
        Action::Permissions { user: ada() },
        Action::ReadSettings,
        Action::SubscribedApps { waba: "2".into() },
    ];
    for action in questions {
        for reply in [Reply::Timeout, http(500, ""), error(429, 613, "x"), Reply::BrokenOff("x".into())] {
            let (tries, took, _) = play(action.clone(), &reply, 1);
            assert!((2..=3).contains(&tries), "{action:?} after {reply:?}: {tries}");
            assert!(took <= Duration::from_secs(6), "{took:?}");
        }
    }
}

#[test]
fn the_id_of_a_call_is_found_in_the_reply() {
    let body = br#"{"messaging_product":"whatsapp","calls":[{"id":"wacid.HBgLMTIx=="}]}"#;
    assert_eq!(connected_wacid(body).as_deref(), Some("wacid.HBgLMTIx=="));
    for none in [
        "",
        "[]",
        r#"{"success":true}"#,
        r#"{"calls":[]}"#,
        r#"{"calls":[{}]}"#,
        r#"{"calls":{"id":"x"}}"#,
        r#"{"calls":[{"id":""}]}"#,
        "{\"calls\":[{\"id\":\"a\\r\\nEvil: yes\"}]}",
    ] {
        assert_eq!(connected_wacid(none.as_bytes()), None, "{none}");
    }
    let (_, _, end) = play(connect(), &http(200, std::str::from_utf8(body).unwrap()), 0);
    assert_eq!(end, Next::Done(body.to_vec()));
}

proptest! {
    /// However Meta and the net behave: once a try may have got through, `connect` is not sent again.
    #[test]
    fn a_connect_is_never_sent_after_a_try_that_may_have_got_through(
        replies in prop::collection::vec((0_u8..6, any::<u64>()), 1..10),
    ) {
        let mut now = Now::default();
        let mut attempt = Attempt::new(connect(), now);
        for (kind, jitter) in replies {
            let (reply, sure) = match kind {
                0 => (Reply::Timeout, false),
                1 => (Reply::BrokenOff(String::from("reset")), false),
                2 => (http(502, ""), false),
                3 => (error(429, 130_429, "slow down"), true),
                4 => (error(400, 4, "slow down"), true),
                _ => (Reply::Unreachable(String::from("refused")), true),
            };
            match attempt.replied(&reply, now, jitter) {
                Next::Retry { at } => {
                    prop_assert!(sure, "sent again after {:?}", reply);
                    now = now.after(at.since(now.tick));
                    prop_assert!(now.tick <= Tick::from_millis(10_000));
                }
                Next::Failed(verdict) => {
                    prop_assert_eq!(verdict.in_doubt, !sure);
                    break;
                }
                Next::Done(_) => prop_assert!(false, "nobody said yes"),
            }
        }
    }
}
