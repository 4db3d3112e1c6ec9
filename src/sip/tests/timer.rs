//! Stories of sessions that are kept alive: by us, by the PBX, or by nobody any more.

use super::*;

const LEG: LegId = LegId(1 << 63 | 1);
const CONTACT: &str = "Contact: <sip:200@192.0.2.1:5062>\r\n";
const UPDATES: &str = "Allow: INVITE, ACK, BYE, UPDATE\r\n";
const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"a\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n";

/// A trunk that wants its sessions refreshed.
fn lab(seconds: u64) -> Lab {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    let session_expires = (seconds > 0).then(|| Duration::from_secs(seconds));
    lab.ua.add_trunk(TrunkSettings { session_expires, ..trunk(false) }, lab.now);
    lab.drain();
    let options = lab.take("OPTIONS");
    lab.answer(&options, "200 OK", "", "");
    lab.events.clear();
    lab.alive = true;
    lab
}

/// A call of ours whose 200 has these headers, too.
fn talking(lab: &mut Lab, headers: &str) -> Sent {
    let invite = lab.dialled();
    lab.answer(&invite, "200 OK", &format!("{CONTACT}{headers}"), THEIRS);
    lab.take("ACK");
    lab.take_events();
    invite
}

fn at(lab: &Lab, sent: &Sent, since: u64) -> u64 {
    assert!(sent.at >= since, "{lab:?}", lab = lab.now);
    (sent.at - since) / 1_000
}

fn now(lab: &Lab) -> u64 {
    lab.now.tick.as_millis() - 1_000_000
}

#[test]
fn we_ask_for_a_timer_only_where_the_trunk_wants_one() {
    let invite = lab(600).dialled();
    assert_eq!(
        (invite.header("Supported"), invite.header("Session-Expires"), invite.header("Min-SE")),
        ("timer, 100rel, replaces, norefersub", "600", "90")
    );
    let invite = lab(0).dialled();
    assert!(invite.header("Supported").contains("timer") && !invite.has("Session-Expires"));
    assert_eq!(lab(1).dialled().header("Session-Expires"), "90", "no less than the RFC allows");
}

#[test]
fn a_session_is_refreshed_by_update_at_half_of_its_interval_again_and_again() {
    let mut lab = lab(0);
    let headers = format!("{UPDATES}Require: timer\r\nSession-Expires: 1800;refresher=uac\r\n");
    talking(&mut lab, &headers);
    for cseq in 2..5 {
        let start = now(&lab);
        lab.pass(Duration::from_secs(899));
        assert!(lab.sent.is_empty());
        lab.pass(Duration::from_secs(1));
        let update = lab.take("UPDATE");
        assert_eq!((at(&lab, &update, start), update.body()), (900, ""));
        assert_eq!(update.header("CSeq"), format!("{cseq} UPDATE"));
        assert_eq!(update.header("Session-Expires"), "1800;refresher=uac");
        assert_eq!(update.header("Contact"), "<sip:gw@192.0.2.7:5060>");
        lab.answer(&update, "200 OK", "Require: timer\r\nSession-Expires: 1800;refresher=uac\r\n", "");
    }
    lab.no_event();
}

#[test]
fn without_update_a_re_invite_that_changes_nothing_refreshes_and_is_acknowledged_as_often_as_needed() {
    let mut lab = lab(0);
    talking(&mut lab, "Session-Expires: 90\r\n");
    lab.pass(Duration::from_secs(45));
    let invite = lab.take("INVITE");
    assert_eq!((invite.body(), invite.header("CSeq")), (offer().as_str(), "2 INVITE"));
    assert_eq!(invite.tag("To"), "pbx1");
    let ok = "Session-Expires: 90;refresher=uac\r\n";
    lab.answer(&invite, "100 Trying", "", "");
    lab.answer(&invite, "200 OK", &format!("Contact: <sip:200@192.0.2.65:5099>\r\n{ok}"), THEIRS);
    let ack = lab.take("ACK");
    assert_eq!((ack.header("CSeq"), ack.to), ("2 ACK", udp("192.0.2.65:5099")));
    lab.answer(&invite, "200 OK", ok, THEIRS);
    assert_eq!(lab.take("ACK").text, ack.text);
    lab.no_event();
    lab.pass(Duration::from_secs(45));
    let again = lab.take("INVITE");
    let moved = THEIRS.replace("10000", "10002");
    lab.answer(&again, "200 OK", ok, &moved);
    lab.take("ACK");
    let changed = Event::Changed { leg: LegId(1), ours: offer(), theirs: moved.into() };
    assert_eq!(lab.take_events(), [changed], "an answer to a refresh may move the sound");
}

#[test]
fn a_session_that_the_pbx_forgets_to_refresh_is_over_in_good_time_before_its_end() {
    for (interval, end) in [(90, 60), (1_800, 1_768)] {
        let mut lab = lab(0);
        talking(&mut lab, &format!("{UPDATES}Session-Expires: {interval};refresher=uas\r\n"));
        lab.pass(Duration::from_secs(end - 1));
        assert!(lab.sent.is_empty());
        lab.no_event();
        lab.pass(Duration::from_secs(1));
        assert_eq!(lab.take("BYE").header("Reason"), "SIP;cause=408;text=\"session expired\"");
        let ending = lab.ending();
        assert_eq!((ending.by, ending.answered), (EndedBy::Timeout, true));
        let text = format!("the session expired: the PBX did not refresh it within its {interval} s");
        assert_eq!(ending.text, text);
    }
}

#[test]
fn a_session_that_the_pbx_refreshes_goes_on_and_so_do_its_terms() {
    for method in ["UPDATE", "INVITE"] {
        let mut lab = lab(0);
        let invite = talking(&mut lab, "Session-Expires: 90;refresher=uas\r\n");
        for cseq in 1..20 {
            lab.pass(Duration::from_secs(45));
            let body = if method == "INVITE" { THEIRS } else { "" };
            lab.ask(&invite, method, cseq, "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n", body);
            let ok = lab.take("200");
            assert_eq!((ok.header("Session-Expires"), ok.header("Require")), ("90;refresher=uac", "timer"));
            if method == "INVITE" {
                lab.ask(&invite, "ACK", cseq, "", "");
            }
        }
        // The first re-INVITE is an offer of what was an answer: that it means the same, nobody is told.
        lab.no_event();
        lab.pass(Duration::from_secs(60));
        lab.take("BYE");
    }
}

#[test]
fn an_interval_that_is_too_short_for_the_pbx_is_raised() {
    let mut lab = lab(100);
    let invite = lab.dialled();
    lab.answer(&invite, "422 Session Interval Too Small", "Min-SE: 600\r\n", "");
    let both = std::mem::take(&mut lab.sent);
    let [ack, again] = both.as_slice() else { panic!("{both:#?}") };
    assert_eq!((ack.what(), again.header("CSeq")), ("ACK", "2 INVITE"));
    assert_eq!((again.header("Session-Expires"), again.header("Min-SE")), ("600", "600"));
    lab.answer(again, "422 Session Interval Too Small", "Min-SE: 600\r\n", "");
    lab.take("ACK");
    let ending = lab.ending();
    assert_eq!((ending.code, ending.text.as_str()), (Some(422), "422 Session Interval Too Small"));
}

#[test]
fn a_refresh_refused_as_too_short_is_made_again_with_a_longer_interval() {
    let mut lab = lab(0);
    talking(&mut lab, &format!("{UPDATES}Session-Expires: 90;refresher=uac\r\n"));
    lab.pass(Duration::from_secs(45));
    let update = lab.take("UPDATE");
    lab.answer(&update, "422 Too Small", "Min-SE: 300\r\n", "");
    let again = lab.take("UPDATE");
    assert_eq!((again.header("Session-Expires"), again.header("Min-SE")), ("300;refresher=uac", "300"));
    lab.answer(&again, "200 OK", "Session-Expires: 300;refresher=uac\r\n", "");
    let start = now(&lab);
    lab.pass(Duration::from_secs(150));
    assert_eq!(at(&lab, &lab.sent[0].clone(), start), 150);
}

#[test]
fn refreshes_that_meet_are_both_refused_and_made_again_at_different_times() {
    let headers = "Session-Expires: 90;refresher=uac\r\n";
    let mut lab = self::lab(0);
    let invite = talking(&mut lab, headers);
    lab.pass(Duration::from_secs(45));
    let ours = lab.take("INVITE");
    lab.ask(&invite, "INVITE", 1, "", THEIRS);
    lab.take("491");
    lab.ask(&invite, "ACK", 1, "", "");
    lab.ask(&invite, "UPDATE", 2, "", THEIRS);
    lab.take("491");
    lab.ask(&invite, "UPDATE", 3, "", "");
    lab.take("200");
    lab.answer(&ours, "491 Request Pending", "", "");
    lab.take("ACK");
    let start = now(&lab);
    lab.pass(Duration::from_secs(5));
    let again = lab.find("INVITE");
    assert!((2_100..=4_000).contains(&(again.at - start)), "§14.1: {}", again.at - start);

    let mut lab = self::lab(0);
    lab.invite(
        1,
        CALLEE,
        &format!("{CONTACT}Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n"),
        THEIRS,
    );
    lab.pick_up(LEG, offer());
    let ok = lab.find("200");
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.pass(Duration::from_secs(45));
    let ours = lab.take("INVITE");
    assert_eq!((ours.body(), ours.header("CSeq")), (answer().as_str(), "1 INVITE"));
    lab.answer(&ours, "491 Request Pending", "", "");
    lab.take("ACK");
    let start = now(&lab);
    lab.pass(Duration::from_secs(3));
    let again = lab.find("INVITE");
    assert!(again.at - start <= 2_000, "the PBX chose the Call-ID: {}", again.at - start);
    lab.answer(&again, "200 OK", headers, THEIRS);
    lab.take("ACK");
    lab.pass(Duration::from_secs(45));
    lab.take("INVITE");
}

#[test]
fn a_change_of_the_pbx_after_our_refresh_was_refused_stands_in_for_it() {
    let mut lab = lab(0);
    let invite = talking(&mut lab, "Session-Expires: 90;refresher=uac\r\n");
    lab.pass(Duration::from_secs(45));
    let ours = lab.take("INVITE");
    lab.answer(&ours, "491 Request Pending", "", "");
    lab.take("ACK");
    lab.ask(&invite, "INVITE", 1, "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n", THEIRS);
    assert_eq!(lab.take("200").header("Session-Expires"), "90;refresher=uas");
    lab.ask(&invite, "ACK", 1, "", "");
    lab.pass(Duration::from_secs(44));
    assert!(lab.sent.is_empty(), "refreshed already: {:#?}", lab.sent);
    lab.pass(Duration::from_secs(1));
    lab.take("INVITE");
}

#[test]
fn a_pbx_that_does_not_know_the_call_any_more_or_is_gone_ends_it() {
    for status in ["481 Call Does Not Exist", "408 Request Timeout"] {
        let mut lab = lab(0);
        talking(&mut lab, &format!("{UPDATES}Session-Expires: 90;refresher=uac\r\n"));
        lab.pass(Duration::from_secs(45));
        let update = lab.take("UPDATE");
        lab.answer(&update, status, "Reason: Q.850;cause=102\r\n", "");
        lab.take("BYE");
        let ending = lab.ending();
        assert_eq!((ending.by, ending.cause, ending.answered), (EndedBy::Peer, Some(102), true));
        assert_eq!(ending.text, format!("the PBX does not know the call any more: {status}"));
    }
    let mut lab = lab(0);
    talking(&mut lab, &format!("{UPDATES}Session-Expires: 90;refresher=uac\r\n"));
    lab.pass(Duration::from_secs(45 + 31));
    lab.no_event();
    lab.sent.clear();
    lab.pass(Duration::from_secs(1));
    lab.find("BYE");
    let ending = lab.ending();
    assert_eq!(ending.by, EndedBy::Timeout);
    assert_eq!(ending.text, "the PBX did not answer when the session was to be refreshed");
    lab.pass(Duration::from_secs(70));
    assert!(lab.ua.calls.is_empty());
}

#[test]
fn a_refresh_that_rings_for_ever_ends_with_the_session_and_leaves_nothing_behind() {
    let mut lab = lab(0);
    talking(&mut lab, "Session-Expires: 90;refresher=uac\r\n");
    lab.pass(Duration::from_secs(45));
    let invite = lab.take("INVITE");
    lab.answer(&invite, "100 Trying", "", "");
    lab.pass(Duration::from_secs(45));
    let bye = lab.take("BYE");
    assert_eq!(lab.ending().text, "the session expired: it could not be refreshed within its 90 s");
    lab.answer(&bye, "200 OK", "", "");
    lab.answer(&invite, "200 OK", "", THEIRS);
    lab.take("ACK");
    lab.pass(Duration::from_secs(40));
    assert!(lab.ua.calls.is_empty() && lab.sent.is_empty());
    assert_eq!(lab.ua.core.transactions.sizes().1, 0);
}

#[test]
fn a_refresh_is_made_again_with_credentials_or_later_or_by_re_invite() {
    let start = |lab: &mut Lab| {
        talking(lab, &format!("{UPDATES}Session-Expires: 90;refresher=uac\r\n"));
        lab.pass(Duration::from_secs(45));
        lab.take("UPDATE")
    };
    let mut lab = self::lab(0);
    let update = start(&mut lab);
    lab.answer(&update, "401 Unauthorized", CHALLENGE, "");
    let again = lab.take("UPDATE");
    assert!(again.header("Authorization").contains("username=\"gw\""));
    lab.answer(&again, "500 Later", "Retry-After: 7 (busy)\r\n", "");
    let since = now(&lab);
    lab.pass(Duration::from_secs(8));
    let later = lab.find("UPDATE");
    assert_eq!(at(&lab, &later, since), 7);
    lab.answer(&later, "501 Not Implemented", "", "");
    lab.pass(millis(1));
    assert_eq!(lab.take("INVITE").body(), offer());
}

#[test]
fn without_an_interval_in_the_answer_nobody_refreshes_and_nothing_expires() {
    let mut lab = lab(90);
    talking(&mut lab, UPDATES);
    lab.pass(Duration::from_secs(7_200));
    assert!(lab.sent.is_empty());
    lab.no_event();
}

#[test]
fn a_call_of_the_pbx_gets_the_timer_that_both_sides_want() {
    // What the trunk wants, what the PBX says, what we answer, and whether we say that it is needed.
    for (wants, says, answers, required) in [
        (0, "", "", false),
        (0, "Supported: timer\r\n", "", false),
        (0, "Supported: timer\r\nSession-Expires: 1800\r\n", "1800;refresher=uac", true),
        (
            0,
            "Supported: timer\r\nSession-Expires: 1800;refresher=uas\r\nMin-SE: 90\r\n",
            "1800;refresher=uas",
            true,
        ),
        (0, "Session-Expires: 1800\r\n", "1800;refresher=uas", false),
        (0, "k: timer\r\nx: 1800;refresher=UAC\r\n", "1800;refresher=uac", true),
        (0, "Supported: timer\r\nSession-Expires: soon\r\n", "", false),
        (0, "Session-Expires: 60\r\n", "", false),
        (600, "Supported: timer\r\n", "600;refresher=uac", true),
        (600, "Supported: timer\r\nMin-SE: 900\r\n", "900;refresher=uac", true),
        (600, "", "600;refresher=uas", false),
        (600, "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n", "600;refresher=uac", true),
        (600, "Supported: timer\r\nSession-Expires: 1800\r\nMin-SE: 1200\r\n", "1200;refresher=uac", true),
        (600, "Supported: timer\r\nSession-Expires: 120\r\n", "120;refresher=uac", true),
    ] {
        let mut lab = lab(wants);
        lab.invite(1, CALLEE, &format!("{CONTACT}{says}"), THEIRS);
        lab.pick_up(LEG, offer());
        let ok = lab.find("200");
        assert_eq!(ok.has("Require: timer"), required, "{says}");
        if answers.is_empty() {
            assert!(!ok.has("Session-Expires"), "{says}: {}", ok.text);
        } else {
            assert_eq!(ok.header("Session-Expires"), answers, "{says}");
        }
    }
}

#[test]
fn a_call_or_change_with_too_short_an_interval_is_told_the_least() {
    let mut lab = lab(0);
    let short = "Supported: timer\r\nSession-Expires: 89\r\n";
    lab.invite(1, CALLEE, &format!("{CONTACT}{short}"), THEIRS);
    assert_eq!(lab.take("422").header("Min-SE"), "90");
    lab.no_event();
    let mut lab = self::lab(0);
    let ok = lab.taken();
    lab.ask_in(&ok, "UPDATE", 8, short, "");
    assert_eq!(lab.take("422").header("Min-SE"), "90");
}

#[test]
fn we_refresh_a_call_of_the_pbx_by_update_if_its_invite_said_that_it_takes_it() {
    let mut lab = lab(0);
    let headers = format!("{CONTACT}{UPDATES}Supported: timer\r\nSession-Expires: 200;refresher=uas\r\n");
    lab.invite(1, CALLEE, &headers, THEIRS);
    lab.pick_up(LEG, offer());
    let ok = lab.find("200");
    lab.pass(Duration::from_secs(2));
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.sent.clear();
    lab.pass(Duration::from_secs(98));
    let update = lab.take("UPDATE");
    assert_eq!((update.header("CSeq"), update.header("Session-Expires")), ("1 UPDATE", "200;refresher=uac"));
    lab.answer(&update, "200 OK", "Session-Expires: 200;refresher=uas\r\n", "");
    lab.take_events();
    lab.pass(Duration::from_secs(168));
    lab.take("BYE");
    assert!(lab.ending().text.contains("the PBX did not refresh it"), "it took the refreshing over");
}
