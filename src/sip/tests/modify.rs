//! Stories of calls that the PBX changes: hold, resume, refresh, digits.

use super::*;

const HOLD: &str = "v=0\r\no=- 5 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=audio 10000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendonly\r\n";
const CONTACT: &str = "Contact: <sip:200@192.0.2.65:5099>\r\n";

#[test]
fn a_hold_is_answered_with_its_mirror_and_told_and_so_is_the_resume() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INVITE", 1, CONTACT, HOLD);
    let answer = lab.take("200");
    assert!(answer.body().contains("a=recvonly\r\n"), "{}", answer.text);
    assert!(answer.body().contains("o=watrunk 42 2 IN IP4 192.0.2.7\r\n"), "a new version: {}", answer.text);
    assert!(answer.body().contains("m=audio 20000 RTP/AVP 8 101\r\n"));
    assert_eq!(answer.header("Contact"), "<sip:gw@192.0.2.7:5060>");
    assert_eq!(
        lab.take_events(),
        [Event::Changed { leg: LegId(1), ours: answer.body().into(), theirs: HOLD.into() }]
    );
    lab.ask(&invite, "ACK", 1, "", "");
    lab.pass(Duration::from_secs(10));
    assert!(lab.sent.is_empty(), "acknowledged: no repeats");

    lab.ask(&invite, "INVITE", 2, "", THEIRS);
    let answer = lab.take("200");
    assert!(answer.body().contains("a=sendrecv\r\n") && answer.body().contains("o=watrunk 42 3 "));
    assert_eq!(
        lab.take_events(),
        [Event::Changed { leg: LegId(1), ours: answer.body().into(), theirs: THEIRS.into() }]
    );
    lab.ask(&invite, "ACK", 2, "", "");

    lab.ua.hang_up(LegId(1), Cause::default(), lab.now);
    lab.drain();
    let bye = lab.take("BYE");
    assert_eq!(bye.to, udp("192.0.2.65:5099"), "the re-INVITE moved the target");
    assert!(!bye.has("Reason"));
}

#[test]
fn an_inactive_stream_stays_inactive() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "UPDATE", 1, "", &HOLD.replace("sendonly", "inactive"));
    assert!(lab.take("200").body().contains("a=inactive\r\n"));
    assert!(matches!(lab.take_events().as_slice(), [Event::Changed { .. }]));
    lab.pass(Duration::from_secs(40));
    assert!(lab.sent.iter().all(|sent| sent.what() == "OPTIONS"), "UPDATE has no ACK to wait for");
}

#[test]
fn an_answer_to_a_change_is_repeated_until_its_ack_comes() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INVITE", 1, "", HOLD);
    lab.take("200");
    lab.pass(millis(8_000));
    let times = [500, 1_500, 3_500, 7_500].map(|at| (at, "200".to_owned()));
    assert_eq!(lab.sent_kinds(), times);
    lab.ask(&invite, "ACK", 1, "", "");
    lab.pass(millis(8_000));
    assert!(lab.sent.is_empty());
}

#[test]
fn a_change_that_is_never_acknowledged_ends_the_call() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INVITE", 1, "", HOLD);
    lab.take_events();
    lab.sent.clear();
    lab.pass(millis(32_000));
    assert!(lab.sent.iter().any(|sent| sent.what() == "BYE"));
    assert_eq!(lab.ending().by, EndedBy::Timeout);
}

#[test]
fn a_refresh_that_changes_nothing_is_answered_with_the_same_version_and_not_told() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INVITE", 1, "", HOLD);
    let first = lab.take("200").body().to_owned();
    lab.ask(&invite, "ACK", 1, "", "");
    lab.take_events();
    lab.ask(&invite, "INVITE", 2, "", HOLD);
    assert_eq!(lab.take("200").body(), first);
    lab.ask(&invite, "ACK", 2, "", "");
    lab.ask(&invite, "UPDATE", 3, "", "");
    let answer = lab.take("200");
    assert_eq!(answer.body(), "");
    lab.no_event();
}

#[test]
fn a_change_without_an_offer_gets_ours_and_brings_its_answer_in_the_ack() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INVITE", 1, "", "");
    let answer = lab.take("200");
    assert_eq!(answer.body(), offer().replace("o=watrunk 42 1 ", "o=watrunk 42 2 "));
    lab.ask(&invite, "UPDATE", 2, "", HOLD);
    lab.take("491");
    lab.no_event();
    lab.ask(&invite, "ACK", 1, "", HOLD);
    assert_eq!(
        lab.take_events(),
        [Event::Changed { leg: LegId(1), ours: answer.body().into(), theirs: HOLD.into() }]
    );
}

#[test]
fn a_change_we_cannot_follow_is_refused_and_the_call_goes_on() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INVITE", 1, "", &HOLD.replace("RTP/AVP 8", "RTP/AVP 18"));
    let refusal = lab.take("488");
    assert!(refusal.header("Warning").contains("the PBX has G729"), "{}", refusal.text);
    lab.ask(&invite, "ACK", 1, "", "");
    lab.ask(&invite, "INVITE", 2, "Content-Type: text/plain\r\n", "hello");
    assert_eq!(lab.take("415").header("Accept"), "application/sdp");
    lab.no_event();
    lab.ask(&invite, "OPTIONS", 3, "", "");
    lab.take("200");
}

#[test]
fn a_change_while_our_invite_is_pending_has_to_wait() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "183 Session Progress", "", THEIRS);
    lab.take_events();
    lab.ask(&invite, "UPDATE", 1, "", HOLD);
    lab.take("491");
    lab.ask(&invite, "INVITE", 2, "", HOLD);
    lab.take("491");
    lab.ask(&invite, "UPDATE", 3, "", "");
    lab.take("200");
    lab.no_event();
}

#[test]
fn a_request_out_of_order_is_refused() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INVITE", 10, "", HOLD);
    lab.take("200");
    lab.ask(&invite, "ACK", 10, "", "");
    lab.take_events();
    lab.ask(&invite, "UPDATE", 9, "", THEIRS);
    lab.take("500");
    lab.no_event();
}

#[test]
fn digits_by_info_are_told() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    let relay = "Content-Type: application/dtmf-relay\r\n";
    lab.ask(&invite, "INFO", 1, relay, "Signal=5\r\nDuration=250\r\n");
    lab.ask(&invite, "INFO", 2, relay, "Signal= *\r\n");
    lab.ask(&invite, "INFO", 3, "Content-Type: application/dtmf\r\n", "11");
    lab.ask(&invite, "INFO", 4, "", "");
    assert_eq!(lab.sent_kinds().len(), 4);
    let digit = |digit, millis| Event::Digit { leg: LegId(1), digit, millis };
    assert_eq!(lab.take_events(), [digit('5', 250), digit('*', 160), digit('#', 160)]);
    for (cseq, kind, body) in
        [(5, relay, "Signal=55\r\n"), (6, relay, "Duration=1"), (7, "Content-Type: application/x\r\n", "5")]
    {
        lab.ask(&invite, "INFO", cseq, kind, body);
        lab.take("415");
    }
    lab.no_event();
    let plain = "Content-Type: application/dtmf\r\n";
    for (cseq, body, pressed) in [(8, "d\r\n", 'D'), (9, "13", 'B'), (10, "Signal=0\r\n", '0')] {
        lab.ask(&invite, "INFO", cseq, plain, body);
        lab.take("200");
        lab.ask(&invite, "INFO", cseq, plain, body);
        assert!(lab.sent_kinds().iter().all(|(_, kind)| kind == "200"), "a repeat");
        assert_eq!(lab.take_events(), [digit(pressed, 160)], "one key, one digit");
    }
}

#[test]
fn a_repeated_change_is_answered_once_more_only_by_the_dialog() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INVITE", 1, "", HOLD);
    lab.take("200");
    lab.ask(&invite, "INVITE", 1, "", HOLD);
    assert!(lab.sent.is_empty());
    assert!(matches!(lab.take_events().as_slice(), [Event::Changed { .. }]));
    assert_eq!(lab.ua.counters().repeated_requests, 1);
}

#[test]
fn every_way_to_say_hold_is_understood_and_mirrored() {
    let zero = |line: &str| THEIRS.replace("c=IN IP4 192.0.2.1", line);
    let session = THEIRS.replace("a=sendrecv\r\n", "").replace("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n");
    for (description, ours, theirs) in [
        (HOLD.to_owned(), "recvonly", sdp::Direction::SendOnly),
        (session, "recvonly", sdp::Direction::SendOnly),
        (THEIRS.replace("sendrecv", "inactive"), "inactive", sdp::Direction::Inactive),
        (THEIRS.replace("sendrecv", "recvonly"), "sendonly", sdp::Direction::RecvOnly),
        (zero("c=IN IP4 0.0.0.0"), "recvonly", sdp::Direction::SendOnly),
        (zero("c=IN IP6 ::"), "recvonly", sdp::Direction::SendOnly),
        (zero("c=IN IP4 0.0.0.0").replace("sendrecv", "inactive"), "inactive", sdp::Direction::Inactive),
    ] {
        for method in ["INVITE", "UPDATE"] {
            let mut lab = Lab::up();
            let (invite, _) = lab.talking();
            lab.ask(&invite, method, 1, "", &description);
            let answer = lab.take("200");
            assert!(answer.body().contains(&format!("a={ours}\r\n")), "{description}: {}", answer.text);
            let events = lab.take_events();
            let [Event::Changed { ours, theirs: told, .. }] = events.as_slice() else { panic!("{events:?}") };
            assert_eq!((ours.as_str(), told.as_slice()), (answer.body(), description.as_bytes()));
            assert_eq!(sdp::agreed(ours, told).unwrap().direction, theirs, "{description}");
        }
    }
}
