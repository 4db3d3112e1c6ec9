//! Every code of Meta's list has a meaning, a cure and a word for the PBX.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Code, HTTP status that it comes with, kind, whether it may be tried again, what the PBX hears.
type Expected = (i64, u16, VerdictKind, Again, u16);

fn expected() -> Vec<Expected> {
    use Again::{BackOff, Never, Once};
    use VerdictKind::{AlreadyOver, Misconfigured, Refused, Throttled, Unreachable};
    vec![
        (0, 401, Misconfigured, Never, 503),
        (190, 401, Misconfigured, Never, 503),
        (3, 500, Misconfigured, Never, 503),
        (10, 403, Misconfigured, Never, 503),
        (200, 403, Misconfigured, Never, 503),
        (299, 403, Misconfigured, Never, 503),
        (4, 400, Throttled, BackOff, 503),
        (80_007, 400, Throttled, BackOff, 503),
        (130_429, 429, Throttled, BackOff, 503),
        (100, 400, Refused, Never, 500),
        (368, 403, Refused, Never, 403),
        (613, 429, Throttled, BackOff, 503),
        (131_009, 400, Refused, Never, 403),
        (131_026, 400, Refused, Never, 404),
        (131_030, 400, Refused, Never, 403),
        (131_042, 400, Misconfigured, Never, 503),
        (131_044, 400, Misconfigured, Never, 503),
        (131_047, 400, Refused, Never, 403),
        (131_055, 400, Misconfigured, Never, 503),
        (138_000, 401, Misconfigured, Never, 503),
        (138_001, 400, Refused, Never, 404),
        (138_002, 429, Throttled, Never, 486),
        (138_003, 400, Refused, Never, 486),
        (138_004, 500, Unreachable, Once, 503),
        (138_005, 429, Throttled, Never, 503),
        (138_006, 401, Refused, Never, 403),
        (138_007, 500, Refused, Never, 503),
        (138_008, 400, Refused, Never, 500),
        (138_009, 400, Throttled, Never, 403),
        (138_010, 400, Refused, Never, 503),
        (138_011, 400, Refused, Never, 403),
        (138_012, 400, Refused, Never, 486),
        (138_013, 400, Refused, Never, 403),
        (138_014, 400, Refused, Never, 403),
        (138_015, 400, Misconfigured, Never, 503),
        (138_016, 400, Refused, Never, 503),
        (138_017, 400, AlreadyOver, Never, 480),
        (138_018, 400, Misconfigured, Never, 503),
        (138_019, 400, Refused, Never, 480),
        (138_020, 400, Refused, Never, 480),
        (138_021, 400, Refused, Never, 480),
        (138_022, 400, Refused, Never, 480),
        (138_023, 400, Refused, Never, 480),
    ]
}

fn judge(status: u16, error: Value) -> Verdict {
    Verdict::of_http(status, json!({ "error": error }).to_string().as_bytes()).unwrap()
}

#[test]
fn every_code_of_the_list_has_its_verdict() {
    for (code, http, kind, again, sip) in expected() {
        let verdict = judge(http, json!({"message": "No.", "type": "OAuthException", "code": code}));
        assert_eq!((verdict.kind, verdict.again, verdict.sip_code), (kind, again, sip), "code {code}");
        assert_eq!((verdict.code, verdict.http), (Some(code), Some(http)));
        assert!(verdict.cure.len() > 10, "code {code} has no cure");
    }
}

#[test]
fn the_http_status_never_overrules_a_known_code() {
    for (code, _, kind, again, sip) in expected() {
        let verdict = judge(500, json!({"message": "No.", "code": code, "is_transient": true}));
        assert_eq!((verdict.kind, verdict.again, verdict.sip_code), (kind, again, sip), "code {code}");
    }
}

#[test]
fn the_codes_of_a_terminate_webhook_are_judged_alike() {
    for (code, _, kind, _, sip) in expected() {
        let verdict = Verdict::of_call_fault(&CallFault { code, message: String::from("No.") });
        assert_eq!((verdict.kind, verdict.sip_code, verdict.http), (kind, sip, None), "code {code}");
    }
    let newer = Verdict::of_call_fault(&CallFault { code: 138_099, message: String::new() });
    assert_eq!((newer.kind, newer.text.as_str()), (VerdictKind::Refused, "no reason given"));
}

#[test]
fn a_yes_is_a_yes_in_every_form() {
    for body in [
        &br#"{"messaging_product":"whatsapp","success":true}"#[..],
        br#"{"success":true}"#,
        br#"{"messaging_product":"whatsapp","calls":[{"id":"wacid.1"}]}"#,
        b"",
        b"<html>ok</html>",
    ] {
        assert_eq!(Verdict::of_http(200, body), None, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_200_that_says_no_is_a_no() {
    assert!(Verdict::of_http(200, br#"{"success":false}"#).is_some());
    assert_eq!(Verdict::of_http(200, br#"{"error":{"code":190,"message":"x"}}"#).unwrap().code, Some(190));
}

#[test]
fn the_text_holds_message_and_details_but_no_number_token_or_line_break() {
    let verdict = judge(
        400,
        json!({"message": "(#100) Invalid parameter", "code": 100, "fbtrace_id": "AbC123xyz",
               "error_user_msg": "Call +1 (631) 555-3602",
               "error_data": {"messaging_product": "whatsapp",
                              "details": "SDP Validation error\r\nuser 16315553602 EAAGm0PX4ZCpsBAKZCo5tZBxyz"}}),
    );
    let hidden = "(#100) Invalid parameter: SDP Validation error user [hidden] [hidden]: Call [hidden]";
    assert_eq!(verdict.text, hidden);
    assert_eq!(verdict.trace.as_deref(), Some("AbC123xyz"));
    assert_eq!(verdict.to_string(), format!("{hidden} (code 100, HTTP 400)"));
}

#[test]
fn details_may_be_plain_text_and_the_error_too() {
    let verdict = judge(400, json!({"message": "No", "code": "138008", "error_data": "ptime"}));
    assert_eq!((verdict.code, verdict.text.as_str()), (Some(138_008), "No: ptime"));
    let verdict = judge(400, json!("because"));
    assert_eq!((verdict.code, verdict.text.as_str()), (None, "because"));
}

#[test]
fn a_call_that_is_over_is_nobodys_fault() {
    for text in [
        "Call has already been terminated",
        "User already terminated the call",
        "Accept already in progress",
        "The call is no longer active",
        "Call not found",
    ] {
        let verdict = judge(400, json!({"message": text, "code": 100}));
        assert_eq!((verdict.kind, verdict.again), (VerdictKind::AlreadyOver, Again::Never), "{text}");
        let verdict =
            judge(500, json!({"message": "Error", "code": 138_777, "error_data": {"details": text}}));
        assert_eq!((verdict.kind, verdict.again), (VerdictKind::AlreadyOver, Again::Never), "{text}");
    }
}

#[test]
fn a_code_with_a_meaning_of_its_own_is_not_taken_for_an_ended_call() {
    let duplicate =
        judge(400, json!({"message": "A call is already in progress with this user", "code": 138_003}));
    assert_eq!((duplicate.kind, duplicate.sip_code), (VerdictKind::Refused, 486));
    let token = judge(401, json!({"message": "The session has already ended", "code": 190}));
    assert_eq!(token.kind, VerdictKind::Misconfigured);
    let number = judge(
        400,
        json!({"message": "Unsupported post request. Object with ID '1' does not exist, so no call", "code": 100, "error_subcode": 33}),
    );
    assert_eq!(number.kind, VerdictKind::Misconfigured);
    assert!(number.cure.contains("phone_number_id"));
}

#[test]
fn without_a_known_code_the_status_decides() {
    use Again::{BackOff, Never};
    use VerdictKind::{Misconfigured, Refused, Throttled, Unreachable};
    for (status, kind, again) in [
        (302, Misconfigured, Never),
        (400, Refused, Never),
        (401, Misconfigured, Never),
        (403, Misconfigured, Never),
        (404, Misconfigured, Never),
        (408, Unreachable, BackOff),
        (429, Throttled, BackOff),
        (500, Unreachable, BackOff),
        (502, Unreachable, BackOff),
        (503, Unreachable, BackOff),
    ] {
        let plain = Verdict::of_http(status, b"<html>Bad Gateway</html>").unwrap();
        assert_eq!((plain.kind, plain.again), (kind, again), "HTTP {status}");
        let unknown = judge(status, json!({"message": "x", "code": 999_999}));
        assert_eq!((unknown.kind, unknown.again), (kind, again), "HTTP {status}, unknown code");
    }
    let transient =
        judge(400, json!({"message": "Service temporarily unavailable", "code": 2, "is_transient": true}));
    assert_eq!((transient.kind, transient.again, transient.sip_code), (Unreachable, BackOff, 503));
}

#[test]
fn an_endless_page_is_not_parsed() {
    let page = format!("{{\"error\":{{\"code\":190,\"message\":\"{}\"}}}}", "x".repeat(100_000));
    assert_eq!(Verdict::of_http(500, page.as_bytes()).unwrap().code, None);
}

#[test]
fn a_call_that_graph_refused_ends_for_the_reason_of_its_code() {
    for (code, http, _, _, _) in expected() {
        let why = judge(http, json!({"message": "No.", "code": code})).why();
        let wanted = match code {
            138_006 => Why::NoPermission,
            138_001 | 131_026 | 131_030 => Why::NotOnWhatsApp,
            138_003 => Why::UserBusy,
            4 | 80_007 | 130_429 | 613 | 138_002 | 138_005 | 138_009 | 138_012 => Why::Throttled,
            138_004 => Why::GraphUnreachable,
            _ => Why::GraphRefused,
        };
        assert_eq!(why, wanted, "code {code}");
    }
    assert_eq!(Verdict::of_timeout().why(), Why::GraphUnreachable);
    assert_eq!(Verdict::of_broken_off("reset").why(), Why::GraphUnreachable);
    assert_eq!(Verdict::of_http(429, b"").unwrap().why(), Why::Throttled);
    assert_eq!(Verdict::of_http(502, b"").unwrap().why(), Why::GraphUnreachable);
}

#[test]
fn only_a_clear_answer_leaves_no_doubt() {
    for doubtful in [Verdict::of_timeout(), Verdict::of_broken_off("reset")] {
        assert!(doubtful.in_doubt, "{doubtful}");
    }
    assert!(!Verdict::of_unreachable("connection refused").in_doubt);
    for (code, http, _, _, _) in expected() {
        assert!(!judge(http, json!({"message": "No.", "code": code})).in_doubt, "code {code}");
    }
    for (status, doubt) in
        [(400, false), (401, false), (404, false), (429, false), (408, true), (500, true), (503, true)]
    {
        assert_eq!(Verdict::of_http(status, b"").unwrap().in_doubt, doubt, "HTTP {status}");
        let unknown = judge(status, json!({"message": "x", "code": 999_999}));
        assert_eq!(unknown.in_doubt, doubt, "HTTP {status}, unknown code");
    }
}

#[test]
fn the_pbx_hears_the_code_of_each_refusal() {
    for (code, http, _, _, sip) in expected() {
        let verdict = judge(http, json!({"message": "No.", "code": code}));
        let (status, warning, pause) = sip_refusal(verdict.why(), Some(&verdict));
        assert_eq!(status, sip, "code {code}");
        assert!(warning.contains(&verdict.cure[..20]), "an admin reads the cure: {warning}");
        let later = matches!(verdict.why(), Why::Throttled | Why::GraphUnreachable) && sip == 503;
        assert_eq!(pause.is_some(), later, "code {code}");
    }
}

#[test]
fn the_pbx_hears_why_nobody_answered() {
    for (why, status) in [
        (Why::UserDeclined, 603),
        (Why::UserNoAnswer, 480),
        (Why::UserBusy, 486),
        (Why::OverLimit, 486),
        (Why::NoPermission, 403),
        (Why::NotOnWhatsApp, 404),
        (Why::NotRouted, 404),
        (Why::BadOffer, 488),
        (Why::GraphRefused, 503),
        (Why::Throttled, 503),
        (Why::GraphUnreachable, 503),
        (Why::Draining, 503),
        (Why::MediaFailed, 503),
        (Why::Fault, 500),
    ] {
        assert_eq!(sip_refusal(why, None).0, status, "{why}");
    }
}

#[test]
fn every_ending_has_a_final_code_and_words_that_fit_a_warning() {
    let endless = format!("\"quoted\" \\ {}", "word ".repeat(200));
    let verdict = judge(400, json!({"message": endless, "code": 138_006}));
    for why in Why::ALL {
        for said in [None, Some(&verdict)] {
            let (status, warning, pause) = sip_refusal(why, said);
            assert!((400..700).contains(&status), "{why}: {status}");
            assert!((10..=240).contains(&warning.chars().count()), "{why}: {warning}");
            assert!(!warning.contains(['"', '\\', '\r', '\n']), "{why}: {warning}");
            assert!(pause.is_none() || status == 503, "{why}: Retry-After with {status}");
        }
    }
}

#[test]
fn a_verdict_on_something_else_does_not_overrule_the_ending() {
    let verdict = judge(401, json!({"message": "No.", "code": 138_006}));
    assert_eq!(sip_refusal(Why::UserDeclined, Some(&verdict)).0, 603);
}

#[test]
fn a_pbx_is_sent_away_for_as_long_as_meta_says_but_not_for_hours() {
    let after = |retry_after| {
        let verdict = Verdict { retry_after, ..judge(429, json!({"message": "No.", "code": 130_429})) };
        sip_refusal(Why::Throttled, Some(&verdict)).2
    };
    assert_eq!(after(None), Some(60));
    assert_eq!(after(Some(0)), Some(60));
    assert_eq!(after(Some(12)), Some(12));
    assert_eq!(after(Some(86_400)), Some(600));
    assert_eq!(sip_refusal(Why::GraphUnreachable, None).2, Some(30));
}

#[test]
fn what_stops_calling_from_being_enabled_is_explained_with_its_cure() {
    for (code, words) in [(138_015, ["2000", "verify"]), (138_018, ["subscribed_apps", "field \"calls\""])] {
        let cure = judge(400, json!({"message": "No.", "code": code})).cure;
        assert!(words.iter().all(|word| cure.contains(word)), "{cure}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Verdict::of_http(status, &body);
    }

    #[test]
    fn no_text_gets_through_with_a_phone_number(before in ".{0,40}", number in "[0-9]{7,15}", after in ".{0,40}") {
        let verdict = judge(400, json!({"message": format!("{before} +{number} {number}{after}"), "code": 1}));
        prop_assert!(!verdict.text.contains(&number), "{}", verdict.text);
        prop_assert!(verdict.text.chars().count() <= 300);
        prop_assert!(!verdict.text.chars().any(char::is_control));
    }
}
