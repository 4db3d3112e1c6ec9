//! Stories of calling: every way a call can go.

use super::*;

const CONTACT: &str = "Contact: <sip:200@192.0.2.1:5062>\r\n";
const CHALLENGE: &str = "Digest realm=\"asterisk\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n";
const CAUSE: Cause = Cause { code: Some(487), text: "caller gave up" };

fn hang_up(lab: &mut Lab) {
    lab.ua.hang_up(LegId(1), CAUSE, lab.now);
    lab.drain();
}

#[test]
fn the_invite_says_who_calls_and_lets_nothing_be_slipped_in() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    assert_eq!(invite.to, udp(PBX));
    assert!(invite.text.starts_with(
        "INVITE sip:200@pbx.example:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;rport;branch=z9hG4bK"
    ));
    assert!(
        invite.header("From").starts_with("\"Ann \\\"A\\\" <x>Evil: 1\" <sip:+15550100@pbx.example>;tag=")
    );
    assert_eq!(invite.header("To"), "<sip:200@pbx.example:5060>");
    assert_eq!(invite.header("Contact"), "<sip:gw@192.0.2.7:5060>");
    let asserted = "\"Ann \\\"A\\\" <x>Evil: 1\" <sip:+15550100@pbx.example>";
    assert_eq!(invite.header("P-Asserted-Identity"), asserted);
    assert_eq!(invite.header("X-WhatsApp-Call-ID"), "wacid.1  Evil: 2");
    assert_eq!(invite.header("Max-Forwards"), "70");
    assert_eq!(invite.header("Content-Type"), "application/sdp");
    assert_eq!(invite.body(), offer());
    assert!(!invite.has("\r\nEvil") && invite.text.matches("Via:").count() == 1, "{}", invite.text);
}

#[test]
fn a_caller_without_a_name_and_with_odd_characters_is_encoded() {
    let mut lab = Lab::up();
    let odd = Dial {
        from_user: "a b@c".into(),
        from_name: Some("\u{1}\r\n".into()),
        user: "20>0".into(),
        host: Some("other.example".into()),
        asserted: false,
        ..dial()
    };
    lab.ua.dial(LegId(1), odd, lab.now).unwrap();
    lab.drain();
    let invite = lab.take("INVITE");
    assert!(invite.text.starts_with("INVITE sip:20%3E0@other.example SIP/2.0\r\n"));
    assert_eq!(invite.to, udp(PBX), "through the trunk, whatever host it names");
    assert!(invite.header("From").starts_with("<sip:a%20b%40c@pbx.example>;tag="));
    assert!(!invite.has("P-Asserted-Identity"));
}

#[test]
fn a_name_in_any_script_arrives_as_it_is() {
    let mut lab = Lab::up();
    lab.ua.dial(LegId(1), Dial { from_name: Some("Zoë 李".into()), ..dial() }, lab.now).unwrap();
    lab.drain();
    assert!(lab.take("INVITE").header("From").starts_with("\"Zoë 李\" <sip:"));
}

#[test]
fn a_call_rings_is_answered_and_is_hung_up_by_the_pbx() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "100 Trying", "", "");
    lab.answer(&invite, "100 Trying", "", "");
    lab.answer(&invite, "180 Ringing", "", "");
    lab.answer(&invite, "180 Ringing", "", "");
    lab.answer(&invite, "183 Session Progress", "", THEIRS);
    let leg = LegId(1);
    let early = Some(THEIRS.as_bytes().to_vec());
    assert_eq!(
        lab.take_events(),
        [
            Event::Trying { leg },
            Event::Ringing { leg, code: 180, sdp: None },
            Event::Ringing { leg, code: 183, sdp: early }
        ]
    );
    lab.answer(&invite, "200 OK", CONTACT, THEIRS);
    let ack = lab.take("ACK");
    assert!(ack.text.starts_with("ACK sip:200@192.0.2.1:5062 SIP/2.0\r\n"));
    assert_eq!(ack.to, udp("192.0.2.1:5062"));
    assert_eq!((ack.header("CSeq"), ack.tag("To").as_str()), ("1 ACK", "pbx1"));
    assert_ne!(ack.branch(), invite.branch());
    assert_eq!(lab.take_events(), [Event::Answered { leg, ours: offer(), theirs: THEIRS.into() }]);
    lab.ask(&invite, "BYE", 1, "Reason: Q.850;cause=16;text=\"Normal clearing\"\r\n", "");
    lab.take("200");
    let text = "Normal clearing".to_owned();
    assert_eq!(
        lab.ending(),
        Ending { by: EndedBy::Peer, code: None, cause: Some(16), answered: true, lost: false, text }
    );
    lab.ask(&invite, "BYE", 1, "", "");
    lab.take("200");
    lab.no_event();
}

#[test]
fn every_refusal_is_acknowledged_and_told_once() {
    for (status, code) in [
        ("486 Busy Here", 486),
        ("603 Decline", 603),
        ("404 Not Found", 404),
        ("480 Away", 480),
        ("302 Moved", 302),
    ] {
        let mut lab = Lab::up();
        let invite = lab.dialled();
        lab.answer(&invite, "180 Ringing", "", "");
        lab.answer(&invite, status, "Reason: SIP;cause=1, Q.850;cause=17\r\n", "");
        let ack = lab.take("ACK");
        assert_eq!((ack.branch(), ack.to), (invite.branch(), udp(PBX)));
        let text = status.to_owned();
        let ending = Ending {
            by: EndedBy::Peer,
            code: Some(code),
            cause: Some(17),
            answered: false,
            lost: false,
            text,
        };
        assert_eq!(lab.ending(), ending);
        lab.answer(&invite, status, "", "");
        lab.take("ACK");
        hang_up(&mut lab);
        assert!(lab.sent.is_empty());
        lab.no_event();
    }
}

#[test]
fn a_pbx_that_says_nothing_ends_the_call_after_32_seconds() {
    let mut lab = Lab::up();
    lab.dialled();
    lab.pass(millis(31_999));
    assert!(!lab.events.iter().any(|event| matches!(event, Event::Ended { .. })));
    lab.pass(millis(1));
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Timeout, None, false));
    assert_eq!(lab.sent.iter().filter(|sent| sent.what() == "INVITE").count(), 6);
}

#[test]
fn a_telephone_nobody_picks_up_is_cancelled_after_the_ring_timeout() {
    let mut lab =
        Lab::up_with(Settings { seed: 1, ring_timeout: Duration::from_secs(20), ..Settings::default() });
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "", "");
    lab.pass(millis(19_999));
    assert!(lab.sent.is_empty());
    lab.pass(millis(1));
    let cancel = lab.take("CANCEL");
    assert!(cancel.has("Reason: SIP;cause=408"));
    let ending = lab.ending();
    assert_eq!((ending.by, ending.text.as_str()), (EndedBy::Timeout, "nobody answered"));
    lab.answer(&cancel, "200 OK", "", "");
    lab.answer(&invite, "487 Request Terminated", "", "");
    lab.take("ACK");
    lab.no_event();
}

#[test]
fn credentials_are_given_when_asked_for_and_repeated_in_the_ack() {
    for (status, challenge, answer) in [
        ("401 Unauthorized", "WWW-Authenticate", "Authorization"),
        ("407 Proxy", "Proxy-Authenticate", "Proxy-Authorization"),
    ] {
        let mut lab = Lab::up();
        let invite = lab.dialled();
        lab.answer(&invite, status, &format!("{challenge}: {CHALLENGE}"), "");
        let both = std::mem::take(&mut lab.sent);
        let [ack, again] = both.as_slice() else { panic!("{both:?}") };
        assert_eq!((ack.what(), ack.branch()), ("ACK", invite.branch()));
        assert_eq!((again.what(), again.header("CSeq")), ("INVITE", "2 INVITE"));
        assert_eq!(again.header("Call-ID"), invite.header("Call-ID"));
        assert_eq!(again.tag("From"), invite.tag("From"));
        assert_eq!(again.tag("To"), "", "the tag of a refusal is forgotten");
        assert!(again.header(answer).contains("uri=\"sip:200@pbx.example:5060\""));
        lab.answer(again, "200 OK", CONTACT, THEIRS);
        let ack = lab.take("ACK");
        assert_eq!(ack.header("CSeq"), "2 ACK");
        assert_eq!(ack.header(answer), again.header(answer));
        lab.no_event_but_answered();
    }
}

impl Lab {
    fn no_event_but_answered(&mut self) {
        assert!(matches!(self.take_events().as_slice(), [Event::Answered { .. }]));
    }
}

#[test]
fn a_password_refused_twice_ends_the_call() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "401 Unauthorized", &format!("WWW-Authenticate: {CHALLENGE}"), "");
    let again = lab.find("INVITE");
    lab.answer(
        &again,
        "401 Unauthorized",
        &format!("WWW-Authenticate: {}", CHALLENGE.replace("n1", "n2")),
        "",
    );
    lab.take("ACK");
    let ending = lab.ending();
    assert_eq!(
        (ending.code, ending.text.as_str()),
        (Some(401), "401 Unauthorized: wrong user name or password")
    );
}

#[test]
fn a_call_with_its_own_credentials_uses_these_and_never_prints_them() {
    let mut lab = Lab::up();
    let dial = Dial { credentials: Some(("ext-77".into(), "ext-secret".into())), ..dial() };
    assert!(!format!("{dial:?}").contains("ext-"));
    lab.ua.dial(LegId(1), dial, lab.now).unwrap();
    lab.drain();
    assert!(!format!("{:?}", lab.ua).contains("ext-secret"));
    let invite = lab.take("INVITE");
    assert!(!invite.has("uthorization") && !invite.has("ext-"));
    let challenge = |nonce: &str| format!("WWW-Authenticate: {}", CHALLENGE.replace("n1", nonce));
    lab.answer(&invite, "401 Unauthorized", &challenge("n1"), "");
    let again = lab.find("INVITE");
    assert!(again.header("Authorization").contains("username=\"ext-77\""));
    lab.answer(&again, "200 OK", CONTACT, THEIRS);
    assert!(lab.take("ACK").header("Authorization").contains("username=\"ext-77\""));
    hang_up(&mut lab);
    let bye = lab.take("BYE");
    assert!(bye.header("Authorization").contains("username=\"ext-77\""), "a nonce that did is used again");
    lab.answer(&bye, "407 Proxy", &challenge("n2").replace("WWW", "Proxy"), "");
    assert!(lab.take("BYE").header("Proxy-Authorization").contains("username=\"ext-77\""));
}

#[test]
fn a_call_may_have_credentials_where_its_trunk_has_none() {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    lab.ua.add_trunk(TrunkSettings { password: None, ..trunk(false) }, lab.now);
    lab.drain();
    let options = lab.take("OPTIONS");
    lab.answer(&options, "200 OK", "", "");
    lab.ua.dial(LegId(1), dial(), lab.now).unwrap();
    let credentials = Some(("ext-77".to_owned(), "ext-secret".to_owned()));
    lab.ua.dial(LegId(2), Dial { credentials, ..dial() }, lab.now).unwrap();
    lab.drain();
    lab.events.clear();
    for invite in std::mem::take(&mut lab.sent) {
        lab.answer(&invite, "401 Unauthorized", &format!("WWW-Authenticate: {CHALLENGE}"), "");
    }
    let again = lab.find("INVITE");
    assert!(again.header("Authorization").contains("ext-77"));
    assert!(matches!(lab.take_events().as_slice(), [Event::Ended { leg: LegId(1), .. }]));
    lab.answer(&again, "200 OK", CONTACT, THEIRS);
    lab.take("ACK");
    lab.ua.hang_up(LegId(2), CAUSE, lab.now);
    lab.drain();
    let bye = lab.take("BYE");
    lab.answer(&bye, "407 Proxy", &format!("Proxy-Authenticate: {CHALLENGE}"), "");
    assert!(lab.take("BYE").header("Proxy-Authorization").contains("ext-77"));
}

#[test]
fn giving_up_before_anything_is_heard_waits_with_the_cancel() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    hang_up(&mut lab);
    assert!(lab.sent.is_empty(), "§9.1: no CANCEL before a provisional answer");
    let ending = lab.ending();
    assert_eq!((ending.by, ending.answered, ending.text.as_str()), (EndedBy::Us, false, "caller gave up"));
    lab.answer(&invite, "100 Trying", "", "");
    let cancel = lab.take("CANCEL");
    assert!(cancel.text.starts_with("CANCEL sip:200@pbx.example:5060 SIP/2.0\r\n"));
    assert_eq!(cancel.header("Via"), invite.header("Via"));
    assert_eq!((cancel.header("To"), cancel.header("From")), (invite.header("To"), invite.header("From")));
    assert_eq!(cancel.header("CSeq"), "1 CANCEL");
    assert_eq!(cancel.header("Reason"), "SIP;cause=487;text=\"caller gave up\"");
    lab.answer(&cancel, "200 OK", "", "");
    lab.answer(&invite, "487 Request Terminated", "", "");
    assert_eq!(lab.take("ACK").branch(), invite.branch());
    lab.no_event();
}

#[test]
fn giving_up_while_it_rings_cancels_at_once() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "", "");
    lab.take_events();
    hang_up(&mut lab);
    let cancel = lab.take("CANCEL");
    assert_eq!(lab.ending().by, EndedBy::Us);
    lab.pass(millis(600));
    lab.take("CANCEL");
    lab.answer(&cancel, "200 OK", "", "");
    lab.answer(&invite, "180 Ringing", "", "");
    assert!(lab.sent.is_empty(), "one CANCEL is enough");
    lab.answer(&invite, "487 Request Terminated", "", "");
    lab.take("ACK");
    lab.pass(Duration::from_secs(40));
    lab.no_event();
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_hung_up() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "", "");
    lab.take_events();
    hang_up(&mut lab);
    lab.take("CANCEL");
    lab.ending();
    lab.answer(&invite, "200 OK", CONTACT, THEIRS);
    let both = std::mem::take(&mut lab.sent);
    let [ack, bye] = both.as_slice() else { panic!("{both:?}") };
    assert_eq!((ack.what(), bye.what()), ("ACK", "BYE"));
    assert_eq!((bye.header("CSeq"), bye.tag("To").as_str()), ("2 BYE", "pbx1"));
    assert!(bye.text.starts_with("BYE sip:200@192.0.2.1:5062 SIP/2.0\r\n"));
    lab.answer(&invite, "200 OK", CONTACT, THEIRS);
    assert_eq!(lab.take("ACK").text, ack.text, "the ACK again, but no second BYE");
    lab.answer(bye, "200 OK", "", "");
    lab.no_event();
}

#[test]
fn a_cancel_without_consequence_is_not_waited_for_longer_than_32_seconds() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "", "");
    hang_up(&mut lab);
    let cancel = lab.find("CANCEL");
    lab.answer(&cancel, "200 OK", "", "");
    lab.pass(millis(32_000));
    lab.sent.clear();
    lab.answer(&invite, "487 Request Terminated", "", "");
    assert!(lab.sent.is_empty() && lab.ua.calls.is_empty(), "it is forgotten");
    assert_eq!(lab.ua.counters().stray_responses, 1);
}

#[test]
fn a_second_telephone_that_answers_too_is_hung_up() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    let other = format!("{};tag=pbx2", invite.header("To"));
    lab.answer_as(&invite, "200 OK", &other, "Contact: <sip:201@192.0.2.1:5063>\r\n", THEIRS);
    let both = std::mem::take(&mut lab.sent);
    let [ack, bye] = both.as_slice() else { panic!("{both:?}") };
    assert_eq!((ack.what(), ack.tag("To").as_str()), ("ACK", "pbx2"));
    assert_eq!((bye.what(), bye.tag("To").as_str(), bye.to), ("BYE", "pbx2", udp("192.0.2.1:5063")));
    lab.answer_as(&invite, "200 OK", &other, "", THEIRS);
    assert_eq!(lab.take("ACK").text, ack.text);
    lab.no_event();
    lab.ask(&invite, "OPTIONS", 5, "", "");
    lab.take("200");
    hang_up(&mut lab);
    assert_eq!(lab.take("BYE").tag("To"), "pbx1", "the first call goes on until we hang up");
}

#[test]
fn a_lost_ack_is_sent_again_when_the_answer_comes_again() {
    let mut lab = Lab::up();
    let (invite, ack) = lab.talking();
    for _ in 0..4 {
        lab.pass(millis(4_000));
        lab.answer(&invite, "200 OK", CONTACT, THEIRS);
        assert_eq!(lab.take("ACK").text, ack.text);
    }
    lab.no_event();
}

#[test]
fn a_bye_of_ours_is_repeated_until_it_is_answered() {
    let mut lab = Lab::up();
    let (_, _) = lab.talking();
    hang_up(&mut lab);
    let bye = lab.take("BYE");
    assert_eq!((bye.to, bye.header("CSeq")), (udp("192.0.2.1:5062"), "2 BYE"));
    assert_eq!(
        lab.ending(),
        Ending {
            by: EndedBy::Us,
            code: None,
            cause: None,
            answered: true,
            lost: false,
            text: CAUSE.text.into()
        }
    );
    lab.pass(millis(1_600));
    assert_eq!(lab.sent_kinds(), [(500, "BYE".into()), (1_500, "BYE".into())]);
    lab.answer(&bye, "200 OK", "", "");
    lab.pass(Duration::from_secs(20));
    assert!(lab.sent.is_empty());
    lab.pass(Duration::from_secs(20));
    assert!(lab.ua.calls.is_empty(), "and the call is forgotten");
    lab.no_event();
}

#[test]
fn a_bye_that_is_challenged_is_sent_with_credentials() {
    let mut lab = Lab::up();
    lab.talking();
    hang_up(&mut lab);
    let bye = lab.take("BYE");
    lab.answer(&bye, "401 Unauthorized", &format!("WWW-Authenticate: {CHALLENGE}"), "");
    let again = lab.take("BYE");
    assert_eq!(again.header("CSeq"), "3 BYE");
    assert!(again.header("Authorization").contains("uri=\"sip:200@192.0.2.1:5062\""));
    lab.answer(&again, "401 Unauthorized", &format!("WWW-Authenticate: {CHALLENGE}"), "");
    assert!(lab.sent.is_empty(), "only once");
}

#[test]
fn byes_that_cross_end_the_call_once() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    hang_up(&mut lab);
    lab.take("BYE");
    lab.ask(&invite, "BYE", 1, "", "");
    lab.take("200");
    assert_eq!(lab.ending().by, EndedBy::Us);
}

#[test]
fn the_route_set_is_followed_to_addresses_of_the_trunk_only() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    let routes = "Record-Route: <sip:192.0.2.65:5070;lr>\r\nRecord-Route: <sip:203.0.113.66;lr>\r\n";
    lab.answer(&invite, "200 OK", &format!("{routes}{CONTACT}"), THEIRS);
    let ack = lab.take("ACK");
    assert_eq!(ack.to, udp(PBX), "a foreign first hop: back where the answer came from");
    let lines: Vec<&str> = ack.text.split("\r\n").filter(|line| line.starts_with("Route")).collect();
    assert_eq!(lines, ["Route: <sip:203.0.113.66;lr>", "Route: <sip:192.0.2.65:5070;lr>"]);

    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "200 OK", &format!("Record-Route: <sip:192.0.2.65:5070;lr>\r\n{CONTACT}"), THEIRS);
    assert_eq!(lab.take("ACK").to, udp("192.0.2.65:5070"), "an allowed first hop is used");
}

#[test]
fn a_private_contact_behind_nat_does_not_lead_astray() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "200 OK", "Contact: <sip:200@10.0.0.5:5060>\r\n", THEIRS);
    let ack = lab.take("ACK");
    assert!(ack.text.starts_with("ACK sip:200@10.0.0.5:5060 SIP/2.0\r\n"));
    assert_eq!(ack.to, udp(PBX));
}

#[test]
fn early_media_stands_in_for_an_answer_without_sound() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "183 Session Progress", "", THEIRS);
    lab.take_events();
    lab.answer(&invite, "200 OK", CONTACT, "");
    assert_eq!(lab.take_events(), [Event::Answered { leg: LegId(1), ours: offer(), theirs: THEIRS.into() }]);
}

#[test]
fn an_answer_without_any_sound_is_hung_up() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "200 OK", CONTACT, "");
    let kinds: Vec<String> = lab.sent_kinds().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["ACK", "BYE"]);
    let ending = lab.ending();
    assert_eq!(
        (ending.by, ending.text.as_str()),
        (EndedBy::Transport, "200 OK without a session description")
    );
}

#[test]
fn calls_that_cannot_be_made_say_why() {
    let mut lab = Lab::up_with(Settings { seed: 1, max_dialogs: 2, ..Settings::default() });
    let mut call = |leg, trunk: &str| {
        let result = lab.ua.dial(LegId(leg), Dial { trunk: trunk.into(), ..dial() }, lab.now);
        lab.drain();
        result
    };
    assert_eq!(call(1, "other"), Err(DialError::UnknownTrunk));
    assert_eq!(call(1, "pbx"), Ok(()));
    assert_eq!(call(1, "pbx"), Err(DialError::LegInUse));
    assert_eq!(call(2, "pbx"), Ok(()));
    assert_eq!(call(3, "pbx"), Err(DialError::Full));
    lab.ua.hang_up(LegId(2), CAUSE, lab.now);
    assert_eq!(lab.ua.dial(LegId(3), dial(), lab.now), Ok(()), "a call that is over makes room");
}

#[test]
fn calls_ended_faster_than_they_can_be_forgotten_do_not_pile_up() {
    let mut lab = Lab::up_with(Settings { seed: 1, max_dialogs: 2, ..Settings::default() });
    let mut made = 0;
    for leg in 0..50 {
        made += usize::from(lab.ua.dial(LegId(leg), dial(), lab.now).is_ok());
        lab.ua.hang_up(LegId(leg), CAUSE, lab.now);
    }
    assert_eq!((made, lab.ua.calls.len()), (8, 8));
    lab.pass(Duration::from_secs(33));
    assert!(lab.ua.calls.is_empty());
    let endings = lab.events.iter().filter(|event| matches!(event, Event::Ended { .. })).count();
    assert_eq!(endings, 8, "one for each that was made");
}

#[test]
fn a_bye_before_the_answer_was_heard_ends_the_call_and_leaves_nothing_behind() {
    let mut lab = Lab::up();
    lab.alive = true;
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "", "");
    lab.take_events();
    lab.ask(&invite, "BYE", 1, "", "");
    lab.take("200");
    assert_eq!(lab.ending().by, EndedBy::Peer);
    lab.answer(&invite, "200 OK", CONTACT, THEIRS);
    let kinds: Vec<String> = lab.sent_kinds().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["ACK", "BYE"], "an answer that was overtaken by its own BYE");
    lab.pass(Duration::from_secs(70));
    assert!(lab.ua.calls.is_empty());
}

#[test]
fn a_bye_while_we_wait_to_cancel_leaves_nothing_behind_either() {
    let mut lab = Lab::up();
    lab.alive = true;
    let invite = lab.dialled();
    hang_up(&mut lab);
    lab.ask(&invite, "BYE", 1, "", "");
    lab.take("200");
    assert_eq!(lab.ending().by, EndedBy::Us);
    lab.answer(&invite, "180 Ringing", "", "");
    lab.pass(Duration::from_secs(70));
    assert!(lab.ua.calls.is_empty(), "an INVITE that rings for ever is forgotten");
}
