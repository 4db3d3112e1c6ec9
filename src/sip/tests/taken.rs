//! Stories of calls that the PBX began, once they stand: changed, held, hung up, just as those we began.

use super::*;

const LEG: LegId = LegId(1 << 63 | 1);
const HOLD: &str = "v=0\r\no=- 5 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=audio 10000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendonly\r\n";

#[test]
fn the_pbx_holds_and_resumes_a_call_it_began() {
    let mut lab = Lab::up();
    let ok = lab.taken();
    lab.ask_in(&ok, "INVITE", 8, "Contact: <sip:200@192.0.2.65:5099>\r\n", HOLD);
    let held = lab.take("200");
    assert!(held.body().contains("a=recvonly\r\n") && held.body().contains("o=watrunk 42 2 "));
    assert_eq!(
        lab.take_events(),
        [Event::Changed { leg: LEG, ours: held.body().into(), theirs: HOLD.into() }]
    );
    lab.pass(millis(500));
    assert_eq!(lab.take("200").text, held.text);
    lab.ask_in(&ok, "ACK", 8, "", "");
    lab.ask_in(&ok, "UPDATE", 9, "", THEIRS);
    let resumed = lab.take("200");
    assert!(resumed.body().contains("a=sendrecv\r\n"));
    assert_eq!(
        lab.take_events(),
        [Event::Changed { leg: LEG, ours: resumed.body().into(), theirs: THEIRS.into() }]
    );
    lab.ask_in(&ok, "UPDATE", 8, "", HOLD);
    lab.take("500");
    lab.leave(LEG, None, "");
    assert_eq!(lab.take("BYE").to, udp("192.0.2.65:5099"), "the re-INVITE moved the target");
}

#[test]
fn a_refresh_that_changes_nothing_gets_our_answer_again_as_it_was() {
    let mut lab = Lab::up();
    let ok = lab.taken();
    lab.ask_in(&ok, "UPDATE", 8, "", THEIRS);
    assert_eq!(lab.take("200").body(), ok.body());
    lab.ask_in(&ok, "INVITE", 9, "", "");
    let offered = lab.take("200");
    assert!(offered.body().contains("o=watrunk 42 2 ") && offered.body().contains("a=sendrecv"));
    lab.ask_in(&ok, "ACK", 9, "", HOLD);
    assert_eq!(
        lab.take_events(),
        [Event::Changed { leg: LEG, ours: offered.body().into(), theirs: HOLD.into() }]
    );
}

#[test]
fn digits_by_info_are_told_until_the_call_is_over() {
    let mut lab = Lab::up();
    let ok = lab.taken();
    let relay = "Content-Type: application/dtmf-relay\r\n";
    lab.ask_in(&ok, "INFO", 8, relay, "Signal=5\r\nDuration=250\r\n");
    lab.take("200");
    assert_eq!(lab.take_events(), [Event::Digit { leg: LEG, digit: '5', millis: 250 }]);
    lab.ask_in(&ok, "OPTIONS", 9, "", "");
    lab.take("200");
    lab.leave(LEG, None, "");
    lab.take("BYE");
    lab.ending();
    lab.ask_in(&ok, "INFO", 10, relay, "Signal=5\r\n");
    lab.take("481");
    lab.no_event();
}

#[test]
fn a_change_never_acknowledged_ends_a_call_the_pbx_began() {
    let mut lab = Lab::up();
    lab.alive = true;
    let ok = lab.taken();
    lab.ask_in(&ok, "INVITE", 8, "", HOLD);
    lab.take_events();
    lab.pass(millis(32_000));
    assert!(lab.find("BYE").has("cause=408"));
    let ending = lab.ending();
    assert_eq!((ending.by, ending.answered), (EndedBy::Timeout, true));
    assert_eq!(ending.text, "the PBX never acknowledged a change");
}

#[test]
fn the_pbx_hangs_up_a_call_it_began() {
    let mut lab = Lab::up();
    let ok = lab.taken();
    lab.ask_in(&ok, "BYE", 8, "Reason: Q.850;cause=16;text=\"Normal clearing\"\r\n", "");
    lab.take("200");
    let text = "Normal clearing".to_owned();
    assert_eq!(
        lab.ending(),
        Ending { by: EndedBy::Peer, code: None, cause: Some(16), answered: true, lost: false, text }
    );
    lab.ask_in(&ok, "BYE", 9, "", "");
    lab.take("481");
    lab.leave(LEG, None, "");
    lab.no_event();
}

#[test]
fn byes_that_cross_end_a_call_once() {
    let mut lab = Lab::up();
    let ok = lab.taken();
    lab.leave(LEG, None, "");
    let bye = lab.take("BYE");
    lab.ask_in(&ok, "BYE", 8, "", "");
    lab.take("200");
    assert_eq!(lab.ending().by, EndedBy::Us);
    lab.answer(&bye, "481 Gone", "", "");
    lab.pass(Duration::from_secs(10));
    assert!(lab.ua.calls.is_empty() && lab.sent.is_empty());
    lab.no_event();
}

#[test]
fn our_bye_follows_the_route_of_the_invite_and_gives_credentials_when_asked() {
    let mut lab = Lab::up();
    let routes = "Record-Route: <sip:192.0.2.65:5070;lr>\r\nRecord-Route: <sip:192.0.2.66;lr>\r\n\
                  Contact: <sip:200@10.0.0.5>\r\n";
    lab.invite(1, CALLEE, routes, THEIRS);
    lab.take("100");
    lab.take_events();
    lab.pick_up(LEG, answer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.leave(LEG, None, "");
    let bye = lab.take("BYE");
    assert!(bye.text.starts_with("BYE sip:200@10.0.0.5 SIP/2.0\r\n"));
    assert_eq!(bye.to, udp("192.0.2.65:5070"));
    let lines: Vec<&str> = bye.text.split("\r\n").filter(|line| line.starts_with("Route")).collect();
    assert_eq!(lines, ["Route: <sip:192.0.2.65:5070;lr>", "Route: <sip:192.0.2.66;lr>"]);
    let challenge = "WWW-Authenticate: Digest realm=\"a\", nonce=\"n\", algorithm=MD5, qop=\"auth\"\r\n";
    lab.answer(&bye, "401 Unauthorized", challenge, "");
    let again = lab.take("BYE");
    assert_eq!(again.header("CSeq"), "2 BYE");
    assert!(again.header("Authorization").contains("username=\"gw\""));
}

#[test]
fn a_change_before_the_ack_shows_that_our_answer_was_heard() {
    for method in ["INVITE", "UPDATE"] {
        let mut lab = Lab::up();
        let leg = lab.called(1, THEIRS);
        lab.pick_up(leg, answer());
        let ok = lab.take("200");
        lab.ask_in(&ok, method, 8, "", HOLD);
        let held = lab.take("200");
        assert_eq!(
            (held.header("CSeq"), held.body().contains("recvonly")),
            (format!("8 {method}").as_str(), true)
        );
        let expected = [
            Event::Answered { leg, ours: answer(), theirs: THEIRS.into() },
            Event::Changed { leg, ours: held.body().into(), theirs: HOLD.into() },
        ];
        assert_eq!(lab.take_events(), expected);
        lab.ask_in(&ok, "ACK", 7, "", "");
        lab.ask_in(&ok, "ACK", 8, "", "");
        lab.pass(millis(10_000));
        assert!(lab.sent.is_empty());
        lab.no_event();
    }
}

#[test]
fn only_its_own_ack_ends_the_repeats_of_an_answer() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "ACK", 6, "", "");
    lab.ask_in(&ok, "INVITE", 6, "", HOLD);
    lab.take("491");
    lab.no_event();
    lab.ask_in(&ok, "INVITE", 8, "", HOLD);
    let held = lab.take("200");
    lab.take_events();
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.pass(millis(500));
    assert!(lab.sent.iter().any(|sent| sent.text == held.text), "that was the ACK of the first INVITE");
    lab.sent.clear();
    lab.ask_in(&ok, "ACK", 8, "", "");
    lab.pass(millis(20_000));
    assert!(lab.sent.iter().all(|sent| sent.what() != "200"));
}

#[test]
fn a_description_that_nobody_asked_for_is_ignored_in_an_ack() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "ACK", 7, "", HOLD);
    assert_eq!(lab.take_events(), [Event::Answered { leg, ours: answer(), theirs: THEIRS.into() }]);
    lab.ask_in(&ok, "UPDATE", 7, "", HOLD);
    assert_eq!(lab.take("500").header("Retry-After"), "2", "no newer than the INVITE");
    lab.ask_in(&ok, "INVITE", 8, "", THEIRS);
    lab.take("200");
    lab.ask_in(&ok, "ACK", 8, "", HOLD);
    lab.no_event();
}

#[test]
fn a_change_while_our_offer_waits_for_its_answer_has_to_wait() {
    let mut lab = Lab::up();
    let leg = lab.called(1, "");
    lab.pick_up(leg, offer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "INVITE", 8, "", HOLD);
    lab.take("491");
    lab.ask_in(&ok, "UPDATE", 9, "", HOLD);
    lab.take("491");
    lab.no_event();
    lab.ask_in(&ok, "ACK", 7, "", THEIRS);
    assert_eq!(lab.take_events(), [Event::Answered { leg, ours: offer(), theirs: THEIRS.into() }]);
}

#[test]
fn a_change_before_our_answer_has_to_wait() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.ring(leg);
    let ringing = lab.take("180");
    for (cseq, method) in [(8, "INVITE"), (9, "UPDATE")] {
        lab.ask_in(&ringing, method, cseq, "", HOLD);
        assert_eq!(lab.take("500").header("Retry-After"), "2");
    }
    lab.ask_in(&ringing, "UPDATE", 10, "Contact: <sip:200@192.0.2.65:5099>\r\n", "");
    assert_eq!(lab.take("200").body(), "");
    lab.no_event();
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.take_events();
    lab.leave(leg, None, "");
    assert_eq!(lab.take("BYE").to, udp("192.0.2.65:5099"));
}
