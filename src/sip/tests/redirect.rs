//! Stories of calls that the PBX sends elsewhere (3xx).

use super::*;

const CONTACT: &str = "Contact: <sip:200@192.0.2.1:5062>\r\n";

fn redirect(lab: &mut Lab, invite: &Sent, contacts: &str) -> Sent {
    lab.answer(invite, "302 Moved Temporarily", &format!("Contact: {contacts}\r\n"), "");
    let both = std::mem::take(&mut lab.sent);
    let [ack, again] = both.as_slice() else { panic!("{both:#?}") };
    assert_eq!((ack.what(), again.what()), ("ACK", "INVITE"));
    again.clone()
}

fn uri(invite: &Sent) -> &str {
    invite.text.split(' ').nth(1).unwrap()
}

#[test]
fn a_call_sent_elsewhere_goes_there_through_the_trunk() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "181 Call Is Being Forwarded", "", "");
    let again =
        redirect(&mut lab, &invite, "\"Bob\" <sip:+49301@elsewhere.example;user=phone?Subject=x>;q=0.5");
    assert_eq!((uri(&again), again.to), ("sip:+49301@elsewhere.example;user=phone", udp(PBX)));
    assert_eq!((again.header("To"), again.header("CSeq")), (invite.header("To"), "2 INVITE"), "§8.1.3.4");
    assert_eq!(
        (again.header("Call-ID"), again.header("From")),
        (invite.header("Call-ID"), invite.header("From"))
    );
    assert_eq!(again.body(), invite.body());
    lab.answer(&again, "180 Ringing", "", "");
    lab.take_events();
    lab.leave(LegId(1), None, "");
    let cancel = lab.take("CANCEL");
    assert_eq!((uri(&cancel), cancel.header("CSeq")), (uri(&again), "2 CANCEL"));
    lab.answer(&again, "200 OK", CONTACT, THEIRS);
    assert_eq!(lab.find("ACK").header("CSeq"), "2 ACK");
}

#[test]
fn contacts_are_tried_by_their_preference_and_the_last_refusal_is_told() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    let contacts = "<sip:c@x>;q=0.25, <sip:a@x>, <mailto:z@x>, <sip:b@x>;q=0.9, sip:d@x;q=0.0";
    let mut next = redirect(&mut lab, &invite, contacts);
    let mut called = vec![];
    for _ in 0..3 {
        called.push(uri(&next).to_owned());
        lab.answer(&next, "480 Temporarily Unavailable", "", "");
        next = lab.find("INVITE");
    }
    called.push(uri(&next).to_owned());
    assert_eq!(called, ["sip:a@x", "sip:b@x", "sip:c@x", "sip:d@x"]);
    lab.no_event();
    lab.answer(&next, "486 Busy Here", "", "");
    assert_eq!(lab.ending().text, "486 Busy Here");
}

#[test]
fn a_refusal_for_everywhere_ends_the_search() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    let next = redirect(&mut lab, &invite, "<sip:a@x>, <sip:b@x>");
    lab.answer(&next, "603 Decline", "", "");
    lab.take("ACK");
    assert_eq!(lab.ending().code, Some(603));
}

#[test]
fn an_address_the_trunk_admits_is_spoken_to_directly_and_no_other() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    let next = redirect(&mut lab, &invite, "<sip:a@192.0.2.65:5070>, <sip:b@203.0.113.9:5070>");
    assert_eq!((uri(&next), next.to), ("sip:a@192.0.2.65:5070", udp("192.0.2.65:5070")));
    lab.answer(&next, "404 Not Found", "", "");
    let next = lab.find("INVITE");
    assert_eq!(
        (uri(&next), next.to),
        ("sip:b@203.0.113.9:5070", udp(PBX)),
        "nobody can point us at a third party"
    );
}

#[test]
fn a_proxy_is_used_if_it_is_the_trunks_and_an_alternative_service_is_none() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "305 Use Proxy", "Contact: <sip:192.0.2.66:5080>\r\n", "");
    let next = lab.find("INVITE");
    assert_eq!((uri(&next), next.to), (uri(&invite), udp("192.0.2.66:5080")));
    for (status, contact) in [
        ("305 Use Proxy", "<sip:203.0.113.9>"),
        ("380 Alternative Service", "<sip:911@x>"),
        ("302 Moved", "<mailto:a@x>"),
        ("302 Moved", "<sips:a@x>"),
        ("302 Moved", "<sip:x>"),
        ("300 Multiple Choices", "*"),
    ] {
        let mut lab = Lab::up();
        let invite = lab.dialled();
        lab.answer(&invite, status, &format!("Contact: {contact}\r\n"), "");
        lab.take("ACK");
        let ending = lab.ending();
        assert_eq!((ending.by, ending.text.as_str()), (EndedBy::Peer, status), "{contact}");
    }
}

#[test]
fn a_circle_is_noticed_and_a_long_way_is_not_gone_to_its_end() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    let next = redirect(&mut lab, &invite, "<sip:a@x>");
    lab.answer(&next, "302 Moved", &format!("Contact: <SIP:a@X>, <{}>\r\n", uri(&invite)), "");
    lab.take("ACK");
    let ending = lab.ending();
    assert_eq!(
        (ending.code, ending.text.as_str()),
        (Some(302), "302 Moved: the PBX redirects the call in a circle")
    );

    let mut lab = Lab::up();
    let mut next = lab.dialled();
    for hop in 0..5 {
        next = redirect(&mut lab, &next, &format!("<sip:{hop}@x>"));
    }
    lab.answer(&next, "302 Moved", "Contact: <sip:5@x>\r\n", "");
    lab.take("ACK");
    assert_eq!(lab.ending().text, "302 Moved: the PBX redirects the call too often");
}

#[test]
fn a_call_sent_elsewhere_gives_credentials_there_too() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    let challenge = |nonce: &str| {
        format!("WWW-Authenticate: Digest realm=\"a\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\"\r\n")
    };
    lab.answer(&invite, "401 Unauthorized", &challenge("n1"), "");
    let again = lab.find("INVITE");
    let next = redirect(&mut lab, &again, "<sip:a@x>");
    assert!(next.header("Authorization").contains("uri=\"sip:a@x\""));
    lab.answer(&next, "401 Unauthorized", &challenge("n2"), "");
    let last = lab.find("INVITE");
    assert!(last.header("Authorization").contains("nonce=\"n2\""));
    lab.answer(&last, "200 OK", CONTACT, THEIRS);
    assert!(lab.take("ACK").header("Authorization").contains("nonce=\"n2\""));
}

#[test]
fn nobody_is_called_elsewhere_once_the_call_was_given_up() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "", "");
    lab.take_events();
    lab.leave(LegId(1), None, "");
    lab.take("CANCEL");
    lab.ending();
    lab.answer(&invite, "302 Moved", "Contact: <sip:a@x>\r\n", "");
    lab.take("ACK");
    lab.no_event();
}
