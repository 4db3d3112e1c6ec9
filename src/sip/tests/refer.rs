//! Stories of transfers: REFER and what is told of it, and calls that take the place of others.

use super::*;

const LEG: LegId = LegId(1);
const CONTACT: &str = "Contact: <sip:200@192.0.2.1:5062>\r\n";
const BLIND: &str = "Refer-To: <sip:300@pbx.example>\r\n";

/// A call of ours in which the PBX has asked for a transfer; the first NOTIFY.
fn referred(lab: &mut Lab, headers: &str) -> (Sent, Sent, Refer) {
    lab.alive = true;
    let (invite, _) = lab.talking();
    lab.ask(&invite, "REFER", 1, &format!("{CONTACT}{headers}"), "");
    let mut both = std::mem::take(&mut lab.sent);
    assert_eq!(both[0].what(), "202", "{both:#?}");
    assert_eq!(both[0].header("Contact"), "<sip:gw@192.0.2.7:5060>");
    let notify = both.pop().unwrap();
    let events = lab.take_events();
    let [Event::Referred { leg: LEG, refer }] = events.as_slice() else { panic!("{events:?}") };
    (invite, notify, refer.clone())
}

fn told(lab: &mut Lab, code: u16) {
    lab.ua.refer_told(LEG, code, lab.now);
    lab.drain();
}

#[test]
fn a_blind_transfer_is_accepted_told_and_its_course_reported() {
    let mut lab = Lab::up();
    let (invite, trying, refer) =
        referred(&mut lab, &format!("{BLIND}Referred-By: <sip:200@pbx.example>\r\n"));
    assert_eq!(
        refer,
        Refer {
            to_user: "300".into(),
            to_host: Some("pbx.example".into()),
            to_uri: "sip:300@pbx.example".into(),
            replaces: None,
            referred_by: Some("<sip:200@pbx.example>".into()),
        }
    );
    assert_eq!(
        (trying.what(), trying.body(), trying.to),
        ("NOTIFY", "SIP/2.0 100 Trying\r\n", udp("192.0.2.1:5062"))
    );
    assert_eq!(
        (trying.header("Event"), trying.header("Subscription-State")),
        ("refer", "active;expires=180")
    );
    assert_eq!(trying.header("Content-Type"), "message/sipfrag;version=2.0");
    assert_eq!(trying.header("CSeq"), "2 NOTIFY");
    told(&mut lab, 180);
    told(&mut lab, 180);
    told(&mut lab, 183);
    assert!(lab.sent.is_empty(), "one at a time");
    lab.answer(&trying, "200 OK", "", "");
    let progress = lab.take("NOTIFY");
    assert_eq!(progress.body(), "SIP/2.0 183 Session Progress\r\n", "the latest news");
    told(&mut lab, 200);
    lab.answer(&progress, "200 OK", "", "");
    let done = lab.take("NOTIFY");
    assert_eq!(
        (done.body(), done.header("Subscription-State")),
        ("SIP/2.0 200 OK\r\n", "terminated;reason=noresource")
    );
    told(&mut lab, 486);
    lab.answer(&done, "200 OK", "", "");
    told(&mut lab, 486);
    lab.pass(Duration::from_secs(400));
    assert!(lab.sent.is_empty(), "nothing after the end: {:#?}", lab.sent);
    lab.no_event();
    lab.ask(&invite, "BYE", 2, "", "");
    lab.take("200");
    assert_eq!(lab.ending().by, EndedBy::Peer, "the call itself ends when the PBX ends it");
}

#[test]
fn an_attended_transfer_brings_the_dialog_to_take_the_place_of() {
    let mut lab = Lab::up();
    let target = "Refer-To: Bob <sip:%2B49301@10.0.0.5:5070;transport=tcp?Require=replaces&\
                  Replaces=abc%40pbx%3Bto-tag%3D12%3Bfrom-tag%3D34>\r\n";
    let (.., refer) = referred(&mut lab, target);
    assert_eq!(refer.replaces.as_deref(), Some("abc@pbx;to-tag=12;from-tag=34"));
    assert_eq!((refer.to_user.as_str(), refer.to_host.as_deref()), ("+49301", Some("10.0.0.5:5070")));
    assert_eq!(refer.to_uri, "sip:%2B49301@10.0.0.5:5070;transport=tcp");
}

#[test]
fn whatever_form_the_target_has_it_is_understood() {
    for (target, user, host) in [
        ("r: <tel:+49-301>", "+49301", None),
        ("Refer-To: sip:300@pbx.example", "300", Some("pbx.example")),
        ("Refer-To: sip:300@pbx.example?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2", "300", Some("pbx.example")),
        ("Refer-To: <sips:300@[2001:db8::1]:5061;method=INVITE>", "300", Some("[2001:db8::1]:5061")),
        ("Refer-To: <sip:pbx.example>", "", Some("pbx.example")),
    ] {
        let mut lab = Lab::up();
        let (.., refer) = referred(&mut lab, &format!("{target}\r\n"));
        assert_eq!((refer.to_user.as_str(), refer.to_host.as_deref()), (user, host), "{target}");
    }
}

#[test]
fn a_transfer_that_cannot_be_is_refused_and_says_why() {
    for (headers, status, why) in [
        ("", "400", "exactly one"),
        ("Refer-To: <sip:1@x>, <sip:2@x>\r\n", "400", "exactly one"),
        ("Refer-To: <sip:1@x\r\n", "400", "malformed"),
        ("Refer-To: <http://x/>\r\n", "416", "not sip"),
        ("Refer-To: <mailto:a@x>\r\n", "416", "not sip"),
        ("Refer-To: <sip:1@x;method=BYE>\r\n", "501", "only calls"),
        ("Refer-To: <sip:1@x?Replaces=abc>\r\n", "400", "Replaces"),
    ] {
        let mut lab = Lab::up();
        let (invite, _) = lab.talking();
        lab.ask(&invite, "REFER", 1, headers, "");
        assert!(lab.take(status).header("Warning").contains(why), "{headers}");
        lab.no_event();
    }
    let mut lab = Lab::up();
    let (invite, ..) = referred(&mut lab, BLIND);
    lab.ask(&invite, "REFER", 2, BLIND, "");
    assert!(lab.take("491").header("Warning").contains("under way"));
    lab.no_event();
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.ring(leg);
    let ringing = lab.take("180");
    lab.ask_in(&ringing, "REFER", 8, BLIND, "");
    lab.take("491");
    lab.leave(leg, None, "");
    lab.sent.clear();
    lab.ask_in(&ringing, "REFER", 9, BLIND, "");
    lab.take("481");
}

#[test]
fn the_next_transfer_has_a_name_of_its_own() {
    let mut lab = Lab::up();
    let (invite, trying, _) = referred(&mut lab, BLIND);
    told(&mut lab, 603);
    lab.answer(&trying, "200 OK", "", "");
    let done = lab.take("NOTIFY");
    assert_eq!(done.body(), "SIP/2.0 603 Decline\r\n");
    lab.answer(&done, "200 OK", "", "");
    lab.ask(&invite, "REFER", 5, BLIND, "");
    assert_eq!(lab.find("NOTIFY").header("Event"), "refer;id=5");
    assert!(matches!(lab.take_events().as_slice(), [Event::Referred { .. }]));
}

#[test]
fn a_pbx_that_wants_to_hear_nothing_of_it_hears_nothing() {
    let mut lab = Lab::up();
    let (invite, accepted, _) =
        referred(&mut lab, &format!("Refer-Sub: false\r\nRequire: norefersub\r\n{BLIND}"));
    assert_eq!((accepted.what(), accepted.header("Refer-Sub")), ("202", "false"));
    told(&mut lab, 180);
    lab.ask(&invite, "REFER", 2, BLIND, "");
    lab.take("491");
    told(&mut lab, 200);
    assert!(lab.sent.is_empty());
    lab.ask(&invite, "REFER", 3, BLIND, "");
    lab.find("202");
}

#[test]
fn a_pbx_that_does_not_listen_is_not_told_more() {
    for status in ["481 Subscription Does Not Exist", "489 Bad Event"] {
        let mut lab = Lab::up();
        let (_, trying, _) = referred(&mut lab, BLIND);
        lab.answer(&trying, status, "", "");
        told(&mut lab, 180);
        told(&mut lab, 200);
        assert!(lab.sent.is_empty());
        lab.no_event();
    }
    let mut lab = Lab::up();
    let (_, trying, _) = referred(&mut lab, BLIND);
    let challenge = "WWW-Authenticate: Digest realm=\"a\", nonce=\"n\", algorithm=MD5, qop=\"auth\"\r\n";
    lab.answer(&trying, "401 Unauthorized", challenge, "");
    let again = lab.take("NOTIFY");
    assert!(again.has("\r\nAuthorization: ") && again.body() == trying.body());
    lab.pass(Duration::from_secs(40));
    lab.sent.clear();
    told(&mut lab, 200);
    assert!(lab.sent.is_empty(), "never answered");
}

#[test]
fn a_transfer_of_which_nothing_comes_is_told_as_failed_in_the_end() {
    let mut lab = Lab::up();
    let (invite, trying, _) = referred(&mut lab, BLIND);
    lab.answer(&trying, "200 OK", "", "");
    lab.pass(Duration::from_secs(180));
    let gone = lab.take("NOTIFY");
    assert_eq!(gone.body(), "SIP/2.0 408 Request Timeout\r\n");
    lab.answer(&gone, "200 OK", "", "");
    lab.ask(&invite, "REFER", 9, BLIND, "");
    lab.find("202");
}

fn replaces(dialog: &Sent, extra: &str) -> String {
    let (ours, theirs) = (dialog.tag("To"), dialog.tag("From"));
    format!(
        "{CONTACT}Require: replaces\r\nReplaces: {};to-tag={ours};from-tag={theirs}{extra}\r\n",
        dialog.header("Call-ID")
    )
}

#[test]
fn a_call_that_takes_the_place_of_another_says_which() {
    let mut lab = Lab::up();
    let ok = lab.taken();
    let first = LegId(1 << 63 | 1);
    lab.invite(2, CALLEE, &replaces(&ok, ""), THEIRS);
    let events = lab.take_events();
    let [Event::Invited { leg, invite }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(invite.replaces, Some(first));
    let leg = *leg;
    lab.sent.clear();
    lab.pick_up(leg, offer());
    let new = lab.take("200");
    lab.ask_in(&new, "ACK", 7, "", "");
    lab.leave(first, None, "");
    assert_eq!(lab.take("BYE").header("Call-ID"), "in1@pbx");

    let mut lab = Lab::up();
    let (dialled, _) = lab.talking();
    let (ours, call_id) = (dialled.tag("From"), dialled.header("Call-ID"));
    let header = format!("{CONTACT}Replaces: {call_id};from-tag=pbx1;to-tag={ours}\r\n");
    lab.invite(2, CALLEE, &header, THEIRS);
    let events = lab.take_events();
    assert!(matches!(events.as_slice(), [Event::Invited { invite: Invite { replaces: Some(LEG), .. }, .. }]));
}

#[test]
fn a_call_of_ours_that_only_rings_can_be_taken_over_too() {
    let mut lab = Lab::up();
    let dialled = lab.dialled();
    lab.answer(&dialled, "180 Ringing", "", "");
    lab.take_events();
    let (ours, call_id) = (dialled.tag("From"), dialled.header("Call-ID"));
    let header = format!("{CONTACT}Replaces: {call_id};from-tag=pbx1;to-tag={ours};early-only\r\n");
    lab.invite(2, CALLEE, &header, THEIRS);
    let events = lab.take_events();
    assert!(matches!(events.as_slice(), [Event::Invited { invite: Invite { replaces: Some(LEG), .. }, .. }]));
}

#[test]
fn a_call_that_cannot_take_the_place_of_another_is_refused() {
    let refused = |lab: &mut Lab, headers: &str, status: &str| {
        lab.invite(2, CALLEE, headers, THEIRS);
        assert!(!lab.take(status).header("Warning").is_empty());
        lab.no_event();
    };
    let mut lab = Lab::up();
    let ok = lab.taken();
    refused(&mut lab, &replaces(&ok, ";early-only"), "486");
    for (headers, status) in [
        ("Replaces: nobody@pbx;to-tag=1;from-tag=2\r\n".to_owned(), "481"),
        ("Replaces: in1@pbx;to-tag=1;from-tag=pbx1\r\n".to_owned(), "481"),
        ("Replaces: in1@pbx;to-tag=1\r\n".to_owned(), "400"),
        (format!("{}Replaces: x;to-tag=1;from-tag=2\r\n", replaces(&ok, "")), "400"),
    ] {
        let mut lab = Lab::up();
        lab.taken();
        refused(&mut lab, &headers, status);
    }
    let mut lab = Lab::up();
    let ok = lab.taken();
    lab.leave(LegId(1 << 63 | 1), None, "");
    lab.sent.clear();
    lab.take_events();
    refused(&mut lab, &replaces(&ok, ""), "603");
    // Somebody rings here: that is not for the PBX to take over.
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.ring(leg);
    let ringing = lab.take("180");
    refused(&mut lab, &replaces(&ringing, ""), "481");
}

#[test]
fn another_trunk_cannot_take_over_a_call_that_is_not_its_own() {
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
    let ok = lab.taken();
    let text = format!(
        "INVITE {CALLEE} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.1;rport;branch=z9hG4bKb\r\nFrom: <sip:a@b>;tag=x\r\n\
         To: <{CALLEE}>\r\nCall-ID: thief\r\nCSeq: 1 INVITE\r\n{}\r\n",
        replaces(&ok, "")
    );
    lab.receive_from(text.as_bytes(), "198.51.100.1:5060");
    lab.take("481");
    lab.no_event();
}
