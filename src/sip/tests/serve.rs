//! Stories of what the PBX, and anybody else, may ask of us.

use super::*;

fn request(method: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} sip:gw@192.0.2.7 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK{method}x\r\n\
         Max-Forwards: 70\r\nFrom: <sip:pbx@192.0.2.1>;tag=p\r\nTo: <sip:gw@192.0.2.7>\r\nCall-ID: {method}@pbx\r\n\
         CSeq: 1 {method}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn asked(method: &str, headers: &str, body: &str) -> Sent {
    let mut lab = Lab::up();
    lab.receive(&request(method, headers, body));
    assert_eq!(lab.sent.len(), 1, "{:#?}", lab.sent);
    lab.no_event();
    lab.sent.remove(0)
}

#[test]
fn a_pbx_that_asks_whether_we_live_is_told_what_we_can() {
    let answer = asked("OPTIONS", "", "");
    assert_eq!(answer.what(), "200");
    assert_eq!(answer.header("Allow"), ALLOW);
    assert_eq!(answer.header("Supported"), "timer, 100rel, replaces, norefersub");
    assert_eq!(answer.header("Accept"), "application/sdp");
    assert_eq!(answer.header("Server"), "watrunk");
    assert!(!answer.tag("To").is_empty());
    assert_eq!(
        answer.header("Via"),
        "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKOPTIONSx;received=192.0.2.1;rport=5060"
    );
}

#[test]
fn methods_we_do_not_take_are_named_as_such() {
    for (method, headers, status) in [
        ("MESSAGE", "", "405"),
        ("REGISTER", "", "405"),
        ("SUBSCRIBE", "Event: presence\r\n", "405"),
        ("PUBLISH", "Event: presence\r\n", "405"),
        ("REFER", "Refer-To: <sip:300@pbx.example>\r\n", "403"),
        ("PRACK", "RAck: 1 1 INVITE\r\n", "481"),
        ("PING", "", "501"),
        ("options", "", "501"),
        ("BYE", "", "481"),
        ("CANCEL", "", "481"),
        ("UPDATE", "", "481"),
        ("INFO", "", "481"),
        ("NOTIFY", "Event: message-summary\r\n", "200"),
        ("NOTIFY", "Event: presence\r\n", "489"),
        ("NOTIFY", "", "489"),
        ("OPTIONS", "Require: 100rel, x, timer, y\r\n", "420"),
    ] {
        let answer = asked(method, headers, "");
        assert_eq!(answer.what(), status, "{method} {headers}");
        if ["405", "501"].contains(&status) {
            assert_eq!(answer.header("Allow"), ALLOW);
        }
        if status == "420" {
            assert_eq!(answer.header("Unsupported"), "x, y");
        }
    }
}

#[test]
fn a_stranger_is_not_even_answered() {
    let mut lab = Lab::up();
    for from in ["203.0.113.9:5060", "[2001:db8::1]:5060", "192.0.2.80:5060"] {
        lab.receive_from(request("OPTIONS", "", "").as_bytes(), from);
    }
    assert!(lab.sent.is_empty());
    assert_eq!(lab.ua.counters().dropped_foreign, 3);
    lab.receive_from(request("OPTIONS", "", "").as_bytes(), "192.0.2.70:9999");
    assert_eq!(lab.take("200").to, udp("192.0.2.70:9999"), "an allowed address is, at the port it used");
}

#[test]
fn another_trunk_cannot_touch_a_call_that_is_not_its_own() {
    let mut lab = Lab::up();
    let other = TrunkSettings {
        name: "b".into(),
        found: vec![found("198.51.100.1:5060", US)],
        allow: vec![],
        ..trunk(false)
    };
    lab.ua.add_trunk(other, lab.now);
    lab.drain();
    lab.sent.clear();
    lab.events.clear();
    let (invite, _) = lab.talking();
    let bye = format!(
        "BYE sip:gw@{US} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.1;rport;branch=z9hG4bKb\r\nFrom: {};tag=pbx1\r\nTo: {}\r\n\
         Call-ID: {}\r\nCSeq: 1 BYE\r\n\r\n",
        invite.header("To"),
        invite.header("From"),
        invite.header("Call-ID")
    );
    lab.receive_from(bye.as_bytes(), "198.51.100.1:5060");
    lab.take("481");
    lab.no_event();
}

#[test]
fn without_rport_the_answer_goes_to_the_port_of_the_via() {
    let mut lab = Lab::up();
    lab.receive_from(
        request("OPTIONS", "", "").replace(";rport", "").replace("5060;branch", "5091;branch").as_bytes(),
        "192.0.2.1:33333",
    );
    assert_eq!(lab.take("200").to, udp("192.0.2.1:5091"));
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_a_merged_one_482() {
    let mut lab = Lab::up();
    lab.receive(&request("OPTIONS", "", ""));
    let first = lab.take("200");
    lab.receive(&request("OPTIONS", "", ""));
    assert_eq!(lab.take("200").text, first.text);
    lab.receive(&request("OPTIONS", "", "").replace("OPTIONSx", "OPTIONSy"));
    lab.take("482");
}

#[test]
fn a_flood_of_requests_is_refused_at_the_cap_and_served_again_later() {
    let mut lab =
        Lab::up_with(Settings { seed: 1, max_dialogs: 1, max_per_second: 1_000, ..Settings::default() });
    let mut refused = 0;
    for count in 0..500 {
        let flood = request("OPTIONS", "", "")
            .replace("OPTIONSx", &format!("f{count}"))
            .replace("@pbx", &format!("@{count}"));
        lab.receive(&flood);
        let answer = lab.sent.pop().unwrap();
        if answer.what() == "503" {
            assert_eq!(answer.header("Retry-After"), "10");
            refused += 1;
        }
    }
    assert_eq!(refused, 500 - 68);
    assert_eq!(lab.ua.counters().refused_full, 432);
    lab.pass(Duration::from_secs(33));
    lab.sent.clear();
    lab.receive(&request("OPTIONS", "", ""));
    lab.take("200");
}

#[test]
fn keep_alives_are_counted_and_not_answered() {
    let mut lab = Lab::up();
    for bytes in [&b"\r\n\r\n"[..], b"\0", b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl"] {
        lab.receive_from(bytes, PBX);
    }
    assert!(lab.sent.is_empty());
    assert_eq!((lab.ua.counters().not_sip, lab.ua.counters().malformed), (3, 0));
}

const LATE: [(&str, &str); 7] = [
    ("INFO", "Content-Type: application/dtmf\r\n"),
    ("OPTIONS", ""),
    ("UPDATE", ""),
    ("INVITE", ""),
    ("PRACK", "RAck: 1 1 INVITE\r\n"),
    ("REFER", "Refer-To: <sip:300@pbx.example>\r\n"),
    ("NOTIFY", "Event: refer\r\n"),
];

#[test]
fn whatever_the_pbx_asks_in_a_call_after_its_bye_comes_too_late() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "BYE", 2, "", "");
    lab.take("200");
    lab.take_events();
    for (cseq, (method, headers)) in (3..).zip(LATE) {
        lab.ask(&invite, method, cseq, headers, if method == "INFO" { "5" } else { "" });
        assert_eq!(lab.sent_kinds()[0].1, "481", "{method}");
    }
    lab.ask(&invite, "BYE", 20, "", "");
    assert!(lab.find("481").has("CSeq: 20 BYE"), "a second one too");
    lab.no_event();
}

#[test]
fn after_our_own_bye_only_the_bye_that_crosses_it_is_agreed_to() {
    let mut lab = Lab::up();
    let answer = lab.taken();
    lab.ua.hang_up(LegId(1 << 63 | 1), Cause::default(), lab.now);
    lab.drain();
    lab.take("BYE");
    lab.take_events();
    for (cseq, (method, headers)) in (8..).zip(LATE) {
        lab.ask_in(&answer, method, cseq, headers, if method == "INFO" { "5" } else { "" });
        assert_eq!(lab.sent_kinds()[0].1, "481", "{method}");
    }
    lab.ask_in(&answer, "BYE", 20, "", "");
    assert!(lab.find("200").has("CSeq: 20 BYE"));
    lab.no_event();
}

#[test]
fn a_key_pressed_after_a_bye_that_came_before_the_answer_comes_too_late() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "", "");
    lab.ask(&invite, "BYE", 1, "", "");
    lab.take("200");
    lab.take_events();
    lab.ask(&invite, "INFO", 2, LATE[0].1, "5");
    lab.take("481");
    lab.no_event();
}
