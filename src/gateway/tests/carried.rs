//! Stories of what depends on the trunk that carries a call: addresses, patience, keys, and the number that calls out.

use super::*;
use crate::gateway::FarSound;

impl Story {
    fn expect_far(&mut self) -> FarSound {
        match self.expect_line() {
            LineOrder::Far(sound) => sound,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn keys_go_by_info_to_a_pbx_that_takes_no_telephone_event() {
    let (mut story, call, invite) = Story::ringing("wacid.1");
    let plain =
        PBX_SDP.replace("RTP/AVP 0 101", "RTP/AVP 0").replace("a=rtpmap:101 telephone-event/8000\r\n", "");
    story.pbx_says(&invite, "200 OK", &plain);
    story.expect_sip("ACK");
    assert!(story.expect_far().media.digits_told);
    story.graph_agrees("accept");
    assert!(matches!(story.expect_line(), LineOrder::OpenGate { early: false }));
    story.tell(Input::Line { call, event: LineEvent::Digit('7', 160) });
    let info = story.expect_sip("INFO");
    assert!(info.ends_with("\r\n\r\nSignal=7\r\nDuration=160\r\n"), "{info}");
}

#[test]
fn a_call_that_another_trunk_carries_names_our_address_towards_that_one_and_has_its_patience() {
    let config = super::trunks::group().replace("priority = 2\n", "priority = 2\nsilence_seconds = 7\n");
    let mut story = Story::with(&config);
    let options = story.expect_sip("OPTIONS");
    story.answers_options = true;
    story.pbx_says(&options, "200 OK", "");
    let (other, local) = ("192.0.2.11:5060".parse().unwrap(), "198.51.100.1:5060".parse().unwrap());
    story.tell(Input::PeerResolved {
        trunk: "spare".into(),
        found: vec![Found { way: Way::udp(other), local }],
    });
    story.connect("wacid.1");
    story.line_opens_at("0.0.0.0:20000");
    story.graph_agrees("pre_accept");
    let invite = story.expect_sip("INVITE");
    assert!(invite.contains("\r\nc=IN IP4 192.0.2.1\r\n"), "{invite}");
    story.pbx_says(&invite, "500 Server Internal Error", "");
    story.expect_sip("ACK");
    let invite = story.expect_sip("INVITE");
    assert!(invite.contains("\r\nc=IN IP4 198.51.100.1\r\n"), "{invite}");
    story.pbx = other;
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    story.expect_sip("ACK");
    assert_eq!(story.expect_far().path.silence, Some(Duration::from_secs(7)));
}

#[test]
fn sound_that_listens_at_an_address_of_its_own_is_asked_for_there() {
    let mut story = Story::with_trunk_up();
    story.connect("wacid.1");
    story.line_opens_at("192.0.2.99:20000");
    story.graph_agrees("pre_accept");
    let invite = story.expect_sip("INVITE");
    assert!(invite.contains("\r\nc=IN IP4 192.0.2.99\r\n"), "{invite}");
}

#[test]
fn the_number_that_calls_out_is_the_one_that_from_names_whatever_the_pbx_asserts() {
    let second = "[[number]]\nid = \"sales\"\naccount_id = \"acme\"\nphone_number_id = \"1002\"\n\
                  phone_number = \"+15550100200\"\nforward_to = \"sip:200@pbx\"\ntrunk = \"pbx\"\n";
    for (from, asserted, number) in [
        ("+15550100200", "", "1002"),
        ("+15550100200", "101", "1002"),
        ("sales", "+15550100100", "1002"),
        ("101", "+15550100200", "1002"),
        ("101", "102", "1001"),
    ] {
        let mut story = Story::with(&format!("{CONFIG}{second}"));
        let options = story.expect_sip("OPTIONS");
        story.answers_options = true;
        story.pbx_says(&options, "200 OK", "");
        let asserted = match asserted {
            "" => String::new(),
            user => format!("P-Asserted-Identity: <sip:{user}@192.0.2.10>\r\n"),
        };
        let invite = format!(
            "INVITE sip:+4915112345678@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKa\r\n\
             From: <sip:{from}@192.0.2.10>;tag=pbxa\r\nTo: <sip:+4915112345678@192.0.2.1>\r\nCall-ID: a@192.0.2.10\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:101@192.0.2.10:5060>\r\n{asserted}Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        story.tell(Input::Sip { from: Way::udp(story.pbx), bytes: invite.into_bytes() });
        let (_, question) = story.graph.pop_front().expect("a question about permission");
        assert!(question.path.starts_with(&format!("{number}/")), "{from} {asserted}: {}", question.path);
    }
}

#[test]
fn a_call_goes_on_at_the_next_server_of_its_trunk_when_the_first_says_nothing() {
    let mut story = Story::new();
    let options = story.expect_sip("OPTIONS");
    story.answers_options = true;
    story.pbx_says(&options, "200 OK", "");
    let (first, second) = (story.pbx, "192.0.2.11:5060".parse().unwrap());
    let local = "192.0.2.1:5060".parse().unwrap();
    let found = |address| Found { way: Way::udp(address), local };
    story.tell(Input::PeerResolved { trunk: "pbx".into(), found: vec![found(first), found(second)] });
    story.connect("wacid.1");
    let call = story.line_opens();
    story.graph_agrees("pre_accept");
    story.expect_sip("INVITE");
    assert_eq!(story.went.last(), Some(&first));
    story.wait(Duration::from_millis(3_900));
    story.sip.clear();
    story.wait(Duration::from_millis(200));
    let invite = story.expect_sip("INVITE");
    assert_eq!(story.went.last(), Some(&second), "four seconds are enough");
    story.pbx = second;
    story.pbx_says(&invite, "486 Busy Here", "");
    story.expect_sip("ACK");
    assert!(story.sip.is_empty(), "nobody else is asked: {:?}", story.sip);
    story.graph_agrees("terminate");
    story.terminate("wacid.1", false);
    story.line_closes(call);
    assert_eq!(story.over(Why::FarBusy).errors.len(), 2);
}

#[test]
fn a_call_that_only_rings_can_be_picked_up_at_another_telephone() {
    let (mut story, _, first) = Story::ringing("wacid.1");
    let find = |name: &str| {
        let prefix = format!("{name}: ");
        first.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
    };
    let our_tag = find("From").split("tag=").nth(1).unwrap().to_owned();
    let picks_up = format!(
        "INVITE sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKnew\r\n\
         From: <sip:301@192.0.2.10>;tag=new1\r\nTo: <sip:gw@192.0.2.1>\r\nCall-ID: new@pbx\r\nCSeq: 1 INVITE\r\n\
         Replaces: {};to-tag={our_tag};from-tag=pbx1;early-only\r\nContact: <sip:301@192.0.2.10:5060>\r\n\
         Max-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{PBX_SDP}",
        find("Call-ID"),
        PBX_SDP.len()
    );
    story.tell(Input::Sip { from: Way::udp(story.pbx), bytes: picks_up.into_bytes() });
    story.expect_sip("SIP/2.0 100");
    let ok = story.expect_sip("SIP/2.0 200");
    let cancel = story.expect_sip("CANCEL");
    assert!(cancel.contains(&find("Call-ID")));
    story.pbx_says(&cancel, "200 OK", "");
    story.pbx_says(&first, "487 Request Terminated", "");
    story.expect_sip("ACK");
    let to = ok.lines().find(|line| line.starts_with("To:")).unwrap();
    let ack = format!(
        "ACK sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKack\r\n\
         From: <sip:301@192.0.2.10>;tag=new1\r\n{to}\r\nCall-ID: new@pbx\r\n\
         CSeq: 1 ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    story.tell(Input::Sip { from: Way::udp(story.pbx), bytes: ack.into_bytes() });
    story.expect_far();
    story.graph_agrees("accept");
    assert!(matches!(story.expect_line(), LineOrder::OpenGate { early: false }));
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
}
