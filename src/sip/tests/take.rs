//! Stories of being called: every way an INVITE of the PBX can go until the call stands or doesn't.

use super::*;

const CONTACT: &str = "Contact: <sip:200@192.0.2.1:5062>\r\n";
const TOP: u64 = 1 << 63;

fn refusal(code: u16) -> Refusal {
    Refusal { code, warning: None, retry_after: None }
}

fn invited(lab: &mut Lab) -> Invite {
    match lab.take_events().as_slice() {
        [Event::Invited { invite, .. }] => invite.clone(),
        other => panic!("not one Invited: {other:?}"),
    }
}

/// When our 200 goes out again after it was first sent, in milliseconds.
const REPEATS: [u64; 10] = [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];

#[test]
fn an_invite_is_told_with_who_calls_whom_and_the_pbx_hears_100_at_once() {
    let mut lab = Lab::up();
    lab.invite(1, CALLEE, CONTACT, THEIRS);
    let trying = lab.take("100");
    assert_eq!((trying.to, trying.tag("To").as_str()), (udp(PBX), ""));
    assert_eq!(trying.header("CSeq"), "7 INVITE");
    let leg = LegId(TOP | 1);
    let invite = Invite {
        trunk: "pbx".into(),
        to_user: "+4915112345678".into(),
        from_user: "200".into(),
        shown_user: "200".into(),
        from_name: Some("Bob".into()),
        call_id: "in1@pbx".into(),
        sdp: Some(THEIRS.into()),
        replaces: None,
        diversion: None,
        anonymous: false,
    };
    assert_eq!(lab.take_events(), [Event::Invited { leg, invite }]);
}

#[test]
fn the_called_number_is_read_out_of_any_uri_that_has_one() {
    for (uri, number) in [
        ("sip:%2B49151@gateway", "+49151"),
        ("sip:0151;phone-context=+49@gateway;user=phone", "0151"),
        ("sips:0151:secret@gateway:5070;transport=tcp", "0151"),
        ("tel:+49-151-1234;phone-context=x", "+491511234"),
        ("tel:0151", "0151"),
        ("sip:%C3%A9li@gateway", "éli"),
    ] {
        let mut lab = Lab::up();
        lab.invite(1, uri, CONTACT, THEIRS);
        lab.take("100");
        assert_eq!(invited(&mut lab).to_user, number, "{uri}");
    }
}

#[test]
fn the_caller_is_who_the_pbx_vouches_for_and_else_who_from_says() {
    let name = |text: &str| Some(text.to_owned());
    for (header, user, display) in [
        ("", "200", name("Bob")),
        ("P-Asserted-Identity: \"Zoë \\\"Z\\\"\" <sip:%2B15550100@pbx>\r\n", "+15550100", name("Zoë \"Z\"")),
        ("P-Asserted-Identity: <tel:+1-555-0100>\r\n", "+15550100", name("Bob")),
        ("P-Asserted-Identity: <sip:pbx.example>, <tel:+15550100>\r\n", "+15550100", name("Bob")),
        ("P-Asserted-Identity: nonsense\r\n", "200", name("Bob")),
        ("P-Asserted-Identity: \" \" <sip:a%0d%0aEvil:b@pbx>\r\n", "a  Evil", None),
    ] {
        let mut lab = Lab::up();
        lab.invite(1, CALLEE, header, THEIRS);
        lab.take("100");
        let invite = invited(&mut lab);
        assert_eq!((invite.from_user.as_str(), invite.from_name), (user, display), "{header}");
    }
}

#[test]
fn ringing_says_how_we_are_reached_and_is_repeated_every_minute() {
    let mut lab = Lab::up();
    lab.alive = true;
    // Not at the times of the OPTIONS.
    lab.pass(millis(7));
    let routes =
        "Record-Route: <sip:192.0.2.65;lr>, <sip:192.0.2.66;lr>\r\nRecord-Route: <sip:192.0.2.67;lr>\r\n";
    lab.invite(1, CALLEE, &format!("{routes}{CONTACT}"), THEIRS);
    assert!(!lab.take("100").has("Record-Route"));
    invited(&mut lab);
    let leg = LegId(TOP | 1);
    lab.ring(leg);
    let ringing = lab.take("180");
    assert!(!ringing.tag("To").is_empty());
    assert_eq!(ringing.header("Contact"), "<sip:gw@192.0.2.7:5060>");
    assert!(ringing.has(routes.trim_end()), "{}", ringing.text);
    lab.ring(leg);
    assert!(lab.sent.is_empty(), "it rings already");
    let start = lab.now.tick.as_millis() - 1_000_000;
    lab.pass(Duration::from_secs(130));
    assert!(lab.sent.iter().all(|sent| sent.text == ringing.text));
    assert_eq!(lab.sent_kinds(), [60_000, 120_000].map(|at| (start + at, "180".to_owned())));
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    assert_eq!(ok.tag("To"), ringing.tag("To"));
    assert!(ok.has(routes.trim_end()), "{}", ok.text);
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.pass(Duration::from_secs(130));
    lab.ring(leg);
    assert!(lab.sent.is_empty(), "too late to ring");
}

#[test]
fn an_answer_is_repeated_until_its_ack_and_only_then_does_the_call_stand() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    assert_eq!((ok.body(), ok.header("Content-Type")), (answer().as_str(), "application/sdp"));
    assert_eq!((ok.header("Contact"), ok.header("Allow")), ("<sip:gw@192.0.2.7:5060>", ALLOW));
    lab.no_event();
    let start = ok.at;
    lab.pass(millis(8_000));
    assert!(lab.sent.iter().all(|sent| sent.text == ok.text && sent.to == ok.to));
    let expected: Vec<(u64, String)> = REPEATS[..4].iter().map(|at| (start + at, "200".into())).collect();
    assert_eq!(lab.sent_kinds(), expected);
    lab.ask_in(&ok, "ACK", 7, "", "");
    assert_eq!(lab.take_events(), [Event::Answered { leg, ours: answer(), theirs: THEIRS.into() }]);
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.alive = true;
    lab.pass(Duration::from_secs(60));
    assert!(lab.sent.is_empty(), "acknowledged");
    lab.no_event();
}

#[test]
fn an_answer_that_is_never_acknowledged_is_hung_up_after_32_seconds() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let start = lab.take("200").at;
    lab.alive = true;
    lab.pass(millis(31_999));
    let mut expected: Vec<(u64, String)> = REPEATS.iter().map(|at| (start + at, "200".into())).collect();
    assert_eq!(lab.sent_kinds(), std::mem::take(&mut expected));
    lab.no_event();
    lab.pass(millis(1));
    let bye = lab.take("BYE");
    assert!(bye.has("Reason: SIP;cause=408") && bye.header("CSeq") == "1 BYE", "{}", bye.text);
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Timeout, None, false));
    assert_eq!(ending.text, "the PBX never acknowledged our answer");
    lab.answer(&bye, "200 OK", "", "");
    lab.pass(Duration::from_secs(40));
    assert!(lab.ua.calls.is_empty() && lab.sent.is_empty());
}

#[test]
fn an_invite_without_an_offer_gets_ours_and_brings_its_answer_in_the_ack() {
    let mut lab = Lab::up();
    lab.invite(1, CALLEE, CONTACT, "");
    lab.take("100");
    assert_eq!(invited(&mut lab).sdp, None);
    let leg = LegId(TOP | 1);
    lab.pick_up(leg, offer());
    let ok = lab.take("200");
    assert_eq!(ok.body(), offer());
    lab.ask_in(&ok, "ACK", 7, "", THEIRS);
    assert_eq!(lab.take_events(), [Event::Answered { leg, ours: offer(), theirs: THEIRS.into() }]);
    lab.ask_in(&ok, "INVITE", 8, "", THEIRS);
    let again = lab.take("200");
    assert!(again.body().contains("o=watrunk 42 2 "), "{}", again.text);
    lab.no_event();
}

#[test]
fn an_ack_that_owes_an_answer_and_brings_none_ends_the_call() {
    for (headers, body) in [("", ""), ("Content-Type: text/plain\r\n", "hello")] {
        let mut lab = Lab::up();
        let leg = lab.called(1, "");
        lab.pick_up(leg, offer());
        let ok = lab.take("200");
        lab.ask_in(&ok, "ACK", 7, headers, body);
        assert!(lab.take("BYE").has("Reason: SIP;cause=488"));
        let ending = lab.ending();
        assert_eq!((ending.by, ending.answered), (EndedBy::Transport, false));
        assert_eq!(ending.text, "the PBX's ACK brought no session description");
    }
}

#[test]
fn a_caller_who_gives_up_is_let_go() {
    for rings in [false, true] {
        let mut lab = Lab::up();
        let leg = lab.called(1, THEIRS);
        if rings {
            lab.ring(leg);
            lab.take("180");
        }
        lab.ask_hop(1, "CANCEL", "Reason: Q.850;cause=26;text=\"Answered elsewhere\"\r\n");
        let both = std::mem::take(&mut lab.sent);
        let [ok, gone] = both.as_slice() else { panic!("{both:#?}") };
        assert_eq!((ok.what(), ok.header("CSeq")), ("200", "7 CANCEL"));
        assert_eq!((gone.what(), gone.header("CSeq")), ("487", "7 INVITE"));
        assert_eq!(ok.tag("To"), gone.tag("To"), "§9.2");
        let text = "Answered elsewhere".to_owned();
        let ending = Ending {
            by: EndedBy::Peer,
            code: Some(487),
            cause: Some(26),
            answered: false,
            lost: false,
            text,
        };
        assert_eq!(lab.ending(), ending);
        lab.pass(millis(600));
        assert_eq!(lab.take("487").text, gone.text, "again until the ACK");
        lab.ask_hop(1, "ACK", "");
        lab.ask_hop(1, "CANCEL", "");
        lab.take("200");
        lab.pick_up(leg, answer());
        lab.leave(leg, None, "");
        lab.pass(Duration::from_secs(20));
        assert!(lab.sent.is_empty() && lab.ua.calls.is_empty());
        lab.no_event();
    }
}

#[test]
fn a_cancel_that_crosses_our_answer_changes_nothing() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    lab.ask_hop(1, "CANCEL", "");
    let accepted = lab.take("200");
    assert_eq!((accepted.header("CSeq"), accepted.tag("To")), ("7 CANCEL", ok.tag("To")));
    lab.no_event();
    lab.ask_in(&ok, "ACK", 7, "", "");
    assert_eq!(lab.take_events(), [Event::Answered { leg, ours: answer(), theirs: THEIRS.into() }]);
    lab.ask_in(&ok, "BYE", 8, "", "");
    lab.take("200");
    assert!(lab.ending().answered);
}

#[test]
fn a_cancel_of_nothing_or_from_another_trunk_is_refused() {
    let mut lab = Lab::up();
    lab.ask_hop(1, "CANCEL", "");
    lab.take("481");
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
    let leg = lab.called(2, THEIRS);
    let cancel = format!(
        "CANCEL {CALLEE} SIP/2.0\r\nVia: SIP/2.0/UDP {PBX};rport;branch=z9hG4bKin2\r\nFrom: <sip:200@pbx.example>;tag=pbx2\r\n\
         To: <{CALLEE}>\r\nCall-ID: in2@pbx\r\nCSeq: 7 CANCEL\r\n\r\n"
    );
    lab.receive_from(cancel.as_bytes(), "198.51.100.1:5060");
    lab.take("481");
    lab.no_event();
    lab.ring(leg);
    lab.take("180");
}

#[test]
fn a_refusal_says_why_and_is_repeated_until_its_ack() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    let warning = Some("no permission to call\r\n \"her\"".to_owned());
    lab.ua.refuse(leg, Refusal { code: 603, warning, retry_after: Some(3_600) }, lab.now);
    lab.drain();
    let refusal = lab.take("603");
    assert_eq!(refusal.header("Warning"), "399 watrunk \"no permission to call   \\\"her\\\"\"");
    assert_eq!(refusal.header("Retry-After"), "3600");
    assert!(!refusal.tag("To").is_empty() && !refusal.has("Contact"));
    let text = "603 no permission to call   \"her\"".to_owned();
    let ending = Ending { by: EndedBy::Us, code: Some(603), cause: None, answered: false, lost: false, text };
    assert_eq!(lab.ending(), ending);
    let start = refusal.at;
    lab.pass(millis(4_000));
    assert_eq!(lab.sent_kinds(), [500, 1_500, 3_500].map(|at| (start + at, "603".to_owned())));
    lab.ask_hop(1, "ACK", "");
    lab.pass(millis(4_000));
    lab.ua.refuse(leg, self::refusal(486), lab.now);
    lab.ring(leg);
    lab.pick_up(leg, answer());
    lab.leave(leg, Some(503), "");
    assert!(lab.sent.is_empty() && lab.ua.calls.is_empty());
    lab.no_event();
}

#[test]
fn a_refusal_that_is_none_becomes_480() {
    for (code, sent, text) in [
        (200, "480", "480 Temporarily Unavailable"),
        (302, "480", "480 Temporarily Unavailable"),
        (700, "480", "480 Temporarily Unavailable"),
        (0, "480", "480 Temporarily Unavailable"),
        (486, "486", "486 Busy Here"),
        (699, "699", "699 Unknown"),
        (400, "400", "400 Bad Request"),
    ] {
        let mut lab = Lab::up();
        let leg = lab.called(1, THEIRS);
        lab.ua.refuse(leg, refusal(code), lab.now);
        lab.drain();
        assert!(!lab.take(sent).has("Warning"));
        assert_eq!(lab.ending().text, text);
    }
}

#[test]
fn a_refusal_that_comes_too_late_hangs_up() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    lab.ua.refuse(leg, refusal(486), lab.now);
    lab.drain();
    assert_eq!((lab.ending().code, lab.sent.len()), (None, 0));
    lab.ask_in(&ok, "ACK", 7, "", "");
    assert_eq!(lab.take("BYE").header("Reason"), "SIP;cause=486;text=\"Busy Here\"");

    let mut lab = Lab::up();
    lab.dialled();
    lab.ua.refuse(LegId(1), refusal(486), lab.now);
    lab.drain();
    assert_eq!(lab.ending().by, EndedBy::Us);
}

#[test]
fn hanging_up_fits_whatever_the_call_has_come_to() {
    for (code, sent) in
        [(None, "480"), (Some(486), "486"), (Some(603), "603"), (Some(503), "503"), (Some(16), "480")]
    {
        for rings in [false, true] {
            let mut lab = Lab::up();
            let leg = lab.called(1, THEIRS);
            if rings {
                lab.ring(leg);
                lab.take("180");
            }
            lab.leave(leg, code, "the callee is out");
            assert_eq!(lab.take(sent).header("Warning"), "399 watrunk \"the callee is out\"");
            let ending = lab.ending();
            assert_eq!((ending.by, ending.answered), (EndedBy::Us, false));
            assert_eq!(ending.code, Some(sent.parse().unwrap()));
            lab.leave(leg, code, "");
            assert!(lab.sent.is_empty());
            lab.no_event();
        }
    }
    let mut lab = Lab::up();
    let ok = lab.taken();
    lab.leave(LegId(TOP | 1), Some(486), "enough");
    let bye = lab.take("BYE");
    assert_eq!((bye.to, bye.header("CSeq")), (udp("192.0.2.1:5062"), "1 BYE"));
    assert!(bye.text.starts_with("BYE sip:200@192.0.2.1:5062 SIP/2.0\r\n"));
    assert_eq!((bye.header("From"), bye.header("To")), (ok.header("To"), ok.header("From")));
    assert_eq!(bye.header("Reason"), "SIP;cause=486;text=\"enough\"");
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Us, None, true));
}

#[test]
fn a_call_hung_up_before_its_ack_gets_its_bye_after_it() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    lab.leave(leg, Some(480), "gone again");
    assert!(lab.sent.is_empty(), "§15: no BYE before the ACK");
    let ending = lab.ending();
    assert_eq!((ending.by, ending.answered, ending.text.as_str()), (EndedBy::Us, false, "gone again"));
    lab.pass(millis(500));
    lab.take("200");
    lab.ask_in(&ok, "UPDATE", 8, "", THEIRS);
    lab.take("491");
    lab.ask_in(&ok, "ACK", 7, "", "");
    let bye = lab.take("BYE");
    assert!(bye.has("cause=480"), "{}", bye.text);
    lab.answer(&bye, "200 OK", "", "");
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.pass(Duration::from_secs(20));
    assert!(lab.sent.is_empty() && lab.ua.calls.is_empty());
    lab.no_event();
}

#[test]
fn a_call_hung_up_whose_ack_never_comes_gets_its_bye_after_32_seconds() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    lab.pass(millis(10_000));
    lab.leave(leg, Some(480), "gone again");
    assert_eq!(lab.ending().by, EndedBy::Us);
    lab.pass(millis(21_999));
    assert!(lab.sent.iter().all(|sent| ["200", "OPTIONS"].contains(&sent.what())));
    lab.sent.clear();
    lab.pass(millis(1));
    assert!(lab.take("BYE").has("cause=480"));
    lab.alive = true;
    lab.pass(Duration::from_secs(40));
    assert!(lab.ua.calls.is_empty());
    lab.no_event();
}

#[test]
fn an_invite_that_expires_is_let_go() {
    let mut lab = Lab::up();
    lab.invite(1, CALLEE, &format!("Expires: 20\r\n{CONTACT}"), THEIRS);
    lab.take("100");
    invited(&mut lab);
    lab.pass(millis(19_999));
    assert!(lab.sent.is_empty());
    lab.pass(millis(1));
    lab.take("487");
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Timeout, Some(487), false));
    assert!(ending.text.contains("expired"), "{}", ending.text);

    let mut lab = Lab::up();
    lab.invite(1, CALLEE, &format!("Expires: 20\r\n{CONTACT}"), THEIRS);
    lab.take("100");
    invited(&mut lab);
    lab.pick_up(LegId(TOP | 1), answer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.take_events();
    lab.pass(millis(25_000));
    lab.no_event();
}

#[test]
fn a_call_that_nobody_decides_about_ends_after_five_minutes() {
    for expires in ["", "Expires: 4000000000\r\n", "Expires: never\r\n"] {
        let mut lab = Lab::up();
        lab.alive = true;
        lab.invite(1, CALLEE, expires, THEIRS);
        lab.take("100");
        invited(&mut lab);
        lab.pass(millis(299_999));
        lab.no_event();
        assert!(lab.sent.is_empty());
        lab.pass(millis(1));
        lab.take("480");
        assert_eq!((lab.ending().by, lab.ua.calls.len()), (EndedBy::Timeout, 0));
        lab.pass(millis(40_000));
        assert_eq!(lab.ua.core.transactions.sizes().1, 0);
    }
}

#[test]
fn a_repeated_invite_gets_the_last_answer_again_and_is_told_once() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    let again = |lab: &mut Lab| lab.invite(1, CALLEE, CONTACT, THEIRS);
    again(&mut lab);
    lab.take("100");
    lab.ring(leg);
    let ringing = lab.take("180");
    again(&mut lab);
    assert_eq!(lab.take("180").text, ringing.text);
    lab.pick_up(leg, answer());
    lab.take("200");
    again(&mut lab);
    assert!(lab.sent.is_empty(), "the 200 is repeated by the clock alone (RFC 6026 §7.1)");
    lab.no_event();

    let leg = lab.called(2, THEIRS);
    lab.ua.refuse(leg, refusal(486), lab.now);
    lab.drain();
    let refused = lab.take("486");
    lab.invite(2, CALLEE, CONTACT, THEIRS);
    assert_eq!(lab.take("486").text, refused.text);
    assert!(matches!(lab.take_events().as_slice(), [Event::Ended { .. }]));
    lab.receive(
        &format!(
            "INVITE {CALLEE} SIP/2.0\r\nVia: SIP/2.0/UDP {PBX};rport;branch=z9hG4bKother\r\n\
             From: <sip:200@pbx.example>;tag=pbx2\r\nTo: <{CALLEE}>\r\nCall-ID: in2@pbx\r\nCSeq: 7 INVITE\r\n\r\n"
        )
        .replace("CSeq", "Max-Forwards: 69\r\nCSeq"),
    );
    lab.take("482");
    lab.no_event();
}

#[test]
fn two_calls_at_once_do_not_touch_each_other() {
    let mut lab = Lab::up();
    let (one, other) = (lab.called(1, THEIRS), lab.called(2, THEIRS));
    assert_ne!(one, other);
    lab.ring(one);
    let ringing = lab.take("180");
    lab.pick_up(other, answer());
    let ok = lab.take("200");
    assert_eq!((ringing.header("Call-ID"), ok.header("Call-ID")), ("in1@pbx", "in2@pbx"));
    assert_ne!(ringing.tag("To"), ok.tag("To"));
    lab.ask_hop(1, "CANCEL", "");
    let kinds: Vec<String> = lab.sent_kinds().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["200", "487"]);
    assert!(matches!(lab.take_events().as_slice(), [Event::Ended { leg, .. }] if *leg == one));
    lab.ask_hop(1, "ACK", "");
    lab.ask_in(&ok, "ACK", 7, "", "");
    assert!(matches!(lab.take_events().as_slice(), [Event::Answered { leg, .. }] if *leg == other));
    let dialled = lab.dialled();
    lab.answer(&dialled, "180 Ringing", "", "");
    assert!(matches!(lab.take_events().as_slice(), [Event::Ringing { leg: LegId(1), .. }]));
    lab.leave(other, None, "");
    assert_eq!(lab.take("BYE").header("Call-ID"), "in2@pbx");
}

#[test]
fn a_full_house_and_one_that_closes_ask_to_try_later() {
    let mut lab = Lab::up_with(Settings { seed: 1, max_dialogs: 2, ..Settings::default() });
    lab.called(1, THEIRS);
    lab.dialled();
    lab.invite(2, CALLEE, CONTACT, THEIRS);
    assert_eq!(lab.take("503").header("Retry-After"), "10");
    lab.no_event();
    assert_eq!(lab.ua.counters().refused_full, 1);
    lab.leave(LegId(TOP | 1), None, "");
    lab.take("480");
    lab.ending();
    lab.called(3, THEIRS);
    assert_eq!(lab.ua.dial(LegId(9), dial(), lab.now), Err(DialError::Full));

    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.ua.shutdown(lab.now);
    lab.drain();
    lab.events.clear();
    lab.invite(2, CALLEE, CONTACT, THEIRS);
    assert_eq!(lab.take("503").header("Retry-After"), "10");
    lab.no_event();
    lab.pick_up(leg, answer());
    lab.take("200");
}

#[test]
fn calls_that_come_and_go_faster_than_they_are_forgotten_do_not_pile_up() {
    let mut lab = Lab::up_with(Settings { seed: 1, max_dialogs: 2, ..Settings::default() });
    let mut told = 0;
    for count in 0..100 {
        lab.invite(count, CALLEE, CONTACT, THEIRS);
        for event in lab.take_events() {
            let Event::Invited { leg, .. } = event else { panic!("{event:?}") };
            told += 1;
            lab.pick_up(leg, answer());
            lab.leave(leg, None, "");
            lab.ending();
        }
    }
    assert_eq!((told, lab.ua.calls.len()), (8, 8), "each waits for its ACK");
    lab.alive = true;
    lab.pass(Duration::from_secs(70));
    assert!(lab.ua.calls.is_empty());
    assert_eq!(lab.ua.core.transactions.sizes(), (0, 0));
}

#[test]
fn refused_calls_take_no_room() {
    let mut lab = Lab::up_with(Settings { seed: 1, max_dialogs: 2, ..Settings::default() });
    for count in 0..60 {
        lab.invite(count, CALLEE, CONTACT, THEIRS);
        lab.take("100");
        lab.refuse_all(403);
        lab.take("403");
    }
}

#[test]
fn what_cannot_be_a_call_is_refused_and_not_told() {
    let long = format!("sip:{}@gateway", "1".repeat(129));
    for (uri, headers, body, status) in [
        ("sip:gateway.example", "", THEIRS, "404"),
        ("sip:a%0db@gateway.example", "", THEIRS, "404"),
        ("sip:;phone-context=x@gateway.example", "", THEIRS, "404"),
        ("tel:;x", "", THEIRS, "404"),
        (long.as_str(), "", THEIRS, "404"),
        (CALLEE, "Content-Type: text/plain\r\n", "hello", "415"),
        (CALLEE, "Content-Type: multipart/mixed;boundary=x\r\n", "--x--", "415"),
        (CALLEE, "Accept: text/plain\r\n", THEIRS, "406"),
        (CALLEE, "Require: precondition\r\n", THEIRS, "420"),
        (CALLEE, "Require: timer, precondition, 100rel\r\n", THEIRS, "420"),
        ("http://gateway.example", "", THEIRS, "416"),
    ] {
        let mut lab = Lab::up();
        lab.invite(1, uri, headers, body);
        let answer = lab.take(status);
        match status {
            "404" => assert!(answer.header("Warning").contains("whom to call")),
            "415" => assert_eq!(answer.header("Accept"), "application/sdp"),
            "420" => assert_eq!(answer.header("Unsupported"), "precondition"),
            _ => {}
        }
        lab.no_event();
        assert!(lab.ua.calls.is_empty());
    }
}

#[test]
fn a_call_belongs_to_the_trunk_whose_address_it_comes_from() {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    let wide = vec!["192.0.2.0/24".parse().unwrap()];
    for (name, peer, allow) in [
        ("wide", "198.51.100.1:5060", wide),
        ("port", "192.0.2.1:5070", vec![]),
        ("peer", "192.0.2.1:5060", vec![]),
    ] {
        lab.ua.add_trunk(
            TrunkSettings { name: name.into(), found: vec![found(peer, US)], allow, ..trunk(false) },
            lab.now,
        );
    }
    lab.drain();
    lab.events.clear();
    for (from, name) in [
        ("192.0.2.1:5060", "peer"),
        ("192.0.2.1:5070", "port"),
        ("192.0.2.1:9999", "port"),
        ("192.0.2.2:5060", "wide"),
        ("198.51.100.1:5060", "wide"),
    ] {
        let count = lab.now.tick.0;
        lab.pass(millis(1));
        let text = format!(
            "INVITE {CALLEE} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bK{count}\r\n\
             From: <sip:200@pbx>;tag=1\r\nTo: <{CALLEE}>\r\nCall-ID: {count}\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        lab.receive_from(text.as_bytes(), from);
        assert_eq!(invited(&mut lab).trunk, name, "{from}");
    }
}

#[test]
fn a_caller_who_hangs_up_before_the_answer_gets_an_answer_to_both() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.ring(leg);
    let ringing = lab.take("180");
    lab.ask_in(&ringing, "BYE", 8, "", "");
    let kinds: Vec<String> =
        lab.sent.iter().map(|sent| format!("{} {}", sent.what(), sent.header("CSeq"))).collect();
    assert_eq!(kinds, ["200 8 BYE", "487 7 INVITE"]);
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Peer, Some(487), false));
}

#[test]
fn a_bye_that_overtakes_the_ack_ends_the_call_and_the_repeats() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "BYE", 8, "", "");
    lab.take("200");
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Peer, None, false));
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.pass(Duration::from_secs(20));
    assert!(lab.sent.is_empty() && lab.ua.calls.is_empty());
    lab.no_event();
}

#[test]
fn a_bye_that_crosses_our_unsent_bye_makes_it_needless() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    lab.leave(leg, None, "");
    assert_eq!(lab.ending().by, EndedBy::Us);
    lab.ask_in(&ok, "BYE", 8, "", "");
    lab.take("200");
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.alive = true;
    lab.pass(Duration::from_secs(70));
    assert!(lab.sent.is_empty() && lab.ua.calls.is_empty());
    lab.no_event();
}

#[test]
fn a_pbx_from_before_rfc_3261_may_call() {
    let mut lab = Lab::up();
    let text = format!(
        "INVITE {CALLEE} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:200@192.0.2.1>\r\nTo: <{CALLEE}>\r\n\
         Call-ID: old\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n\r\n{THEIRS}"
    );
    lab.receive(&text);
    lab.take("100");
    invited(&mut lab);
    lab.pick_up(LegId(TOP | 1), answer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "ACK", 1, "", "");
    assert!(matches!(lab.take_events().as_slice(), [Event::Answered { .. }]));
    lab.leave(LegId(TOP | 1), None, "");
    let bye = lab.take("BYE");
    assert!(bye.text.starts_with("BYE sip:200@192.0.2.1 SIP/2.0\r\n"), "From stands in for Contact");
    assert_eq!(bye.to, udp(PBX));
}

#[test]
fn of_two_trunks_at_one_host_the_one_that_our_contact_named_is_called() {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    let mut contacts = Vec::new();
    for name in ["one", "two"] {
        let settings = TrunkSettings { name: name.into(), shares_host: true, ..trunk(true) };
        lab.ua.add_trunk(settings, lab.now);
        lab.drain();
        let register = lab.take("REGISTER");
        contacts.push(register.header("Contact").split('>').next().unwrap().to_owned());
        lab.answer(&register, "200 OK", "Expires: 300\r\n", "");
    }
    lab.events.clear();
    assert_eq!(contacts, ["<sip:gw@192.0.2.7:5060;trunk=one", "<sip:gw@192.0.2.7:5060;trunk=two"]);
    let callee = "sip:+4915112345678@192.0.2.7:5060";
    for (count, uri, called) in [
        (1, format!("{callee};trunk=two"), "two"),
        (2, format!("{callee};transport=udp;trunk=one"), "one"),
        (3, callee.to_owned(), "one"),
        (4, format!("{callee};trunk=three"), "one"),
    ] {
        lab.invite(count, &uri, "Contact: <sip:200@192.0.2.1:5062>\r\n", THEIRS);
        let events = lab.take_events();
        let [Event::Invited { invite, .. }] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((invite.trunk.as_str(), invite.to_user.as_str()), (called, "+4915112345678"), "{uri}");
    }
}
