//! Stories of several trunks, of calls that are handed over by the PBX, and of what a trunk may not do.

use super::*;
use crate::gateway::FarSound;

const OTHER: &str = "192.0.2.11:5060";

pub(super) fn group() -> String {
    CONFIG
        .replace("register = false\n", "register = false\ngroup = \"all\"\npriority = 1\n")
        .replace("200@pbx", "200@all")
        + "[[trunk]]\nname = \"spare\"\nserver = \"sip:192.0.2.11:5060\"\nusername = \"gw\"\nregister = false\n\
           group = \"all\"\npriority = 2\n"
}

fn other() -> SocketAddr {
    OTHER.parse().unwrap()
}

impl Story {
    /// Two trunks of one group, both up; the spare one comes second.
    fn with_a_spare_trunk() -> Story {
        let mut story = Story::with(&group().replace("max_calls = 2", "max_calls = 9"));
        let local = "192.0.2.1:5060".parse().unwrap();
        let found = vec![Found { way: Way::udp(other()), local }];
        let options = story.expect_sip("OPTIONS");
        story.answers_options = true;
        story.pbx_says(&options, "200 OK", "");
        story.tell(Input::PeerResolved { trunk: "spare".into(), found });
        story
    }

    /// A user's call up to the first INVITE.
    fn invited(&mut self) -> (CallKey, String) {
        self.connect("wacid.1");
        let call = self.line_opens();
        self.graph_agrees("pre_accept");
        (call, self.expect_sip("INVITE"))
    }

    /// The PBX asks for something in the dialog of this INVITE of ours, or of this 200 to one of its own.
    fn pbx_requests(&mut self, message: &str, method: &str, cseq: u32, more: &str) {
        self.pbx_requests_with(message, method, cseq, more, "");
    }

    /// The same with a body.
    fn pbx_requests_with(&mut self, message: &str, method: &str, cseq: u32, more: &str, body: &str) {
        let find = |name: &str| {
            let prefix = format!("{name}: ");
            message.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
        };
        let (from, to) = match message.starts_with("INVITE") {
            true => (format!("{};tag=pbx1", find("To")), find("From")),
            false => (find("From"), find("To")),
        };
        let request = format!(
            "{method} sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{method}{cseq}\r\n\
             From: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
             Contact: <sip:200@192.0.2.10:5060>\r\n{more}Content-Length: {}\r\n\r\n{body}",
            find("Call-ID"),
            body.len()
        );
        let from = Way::udp(self.pbx);
        self.tell(Input::Sip { from, bytes: request.into_bytes() });
    }

    /// The next message of this kind; those before it are of no interest, but for NOTIFY.
    fn next_sip(&mut self, begins: &str) -> String {
        let at = self.sip.iter().position(|message| message.starts_with(begins));
        let at = at.unwrap_or_else(|| panic!("{begins} was expected"));
        let mut before = self.sip.drain(..=at).collect::<Vec<_>>();
        let found = before.pop().unwrap_or_default();
        before.retain(|message| message.starts_with("NOTIFY"));
        for notify in before.into_iter().rev() {
            self.sip.push_front(notify);
        }
        found
    }

    /// NOTIFY with this line of the transfer's progress; the PBX takes it.
    fn expect_notify(&mut self, line: &str) {
        let at = self.sip.iter().position(|message| message.starts_with("NOTIFY"));
        let notify = at.and_then(|at| self.sip.remove(at)).expect("a NOTIFY");
        assert!(notify.contains(line), "{line} was expected: {notify}");
        self.pbx_says(&notify, "200 OK", "");
    }
}

#[test]
fn a_call_goes_to_the_next_trunk_of_its_group_when_the_first_fails() {
    let mut story = Story::with_a_spare_trunk();
    let (call, invite) = story.invited();
    assert_eq!(story.went.last(), Some(&story.pbx));
    story.pbx_says(&invite, "500 Server Internal Error", "");
    story.next_sip("ACK");
    let invite = story.expect_sip("INVITE");
    assert_eq!(story.went.last(), Some(&other()));
    story.pbx = other();
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    story.expect_sip("ACK");
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Far(_)))));
    story.graph_agrees("accept");
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::OpenGate { early: false }))));
    story.pbx_hangs_up(&invite);
    story.graph_agrees("terminate");
    story.terminate("wacid.1", true);
    story.line_closes(call);
    let record = story.over(Why::FarHungUp);
    assert!(record.answered());
    assert_eq!(record.errors.len(), 1, "what the first trunk said is on the record: {record:?}");
    assert_eq!(record.trunk.map(|part| part.name).as_deref(), Some("spare"));
    assert_eq!(record.sip_code, None, "the call did not fail");
}

#[test]
fn a_trunk_that_says_nothing_at_all_is_given_up_after_four_seconds() {
    let mut story = Story::with_a_spare_trunk();
    let (_, _) = story.invited();
    story.wait(Duration::from_millis(3_900));
    assert!(story.sip.iter().all(|message| message.starts_with("INVITE")), "repeats only");
    assert!(story.went.iter().all(|to| *to == story.pbx));
    story.sip.clear();
    story.wait(Duration::from_millis(200));
    assert!(story.next_sip("INVITE").contains("sip:200@"));
    assert_eq!(story.went.last(), Some(&other()));
}

#[test]
fn what_a_working_pbx_says_about_whom_we_called_is_final() {
    for status in ["486 Busy Here", "404 Not Found", "603 Decline"] {
        let mut story = Story::with_a_spare_trunk();
        let (_, invite) = story.invited();
        story.pbx_says(&invite, status, "");
        assert!(story.went.iter().all(|to| *to == story.pbx), "{status}: nobody else is called");
        story.graph_agrees("terminate");
    }
}

#[test]
fn a_trunk_that_dies_while_it_rings_loses_the_call_to_the_next_within_seconds() {
    let mut story = Story::with_a_spare_trunk();
    let (_, invite) = story.invited();
    story.pbx_says(&invite, "180 Ringing", "");
    story.dead.push(story.pbx);
    let begun = story.now;
    while !story.went.contains(&other()) {
        story.wait(Duration::from_millis(500));
        assert!(story.now.tick - begun.tick <= Duration::from_secs(12), "the other trunk was never tried");
    }
    let invite = story.next_sip("INVITE");
    story.pbx = other();
    story.pbx_says(&invite, "180 Ringing", "");
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    story.graph_agrees("accept");
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
}

#[test]
fn calls_that_ring_where_the_connection_breaks_are_each_called_once_at_the_next_trunk() {
    let mut story = Story::with_a_spare_trunk();
    for count in 1..=6 {
        story.connect(&format!("wacid.{count}"));
        story.line_opens();
        story.graph_agrees("pre_accept");
        let invite = story.next_sip("INVITE");
        story.pbx_says(&invite, "180 Ringing", "");
    }
    story.went.clear();
    let way = Way::udp(story.pbx);
    story.tell(Input::SipUnreachable { way, why: "the connection broke".into() });
    let invites = story.sip.iter().filter(|message| message.starts_with("INVITE"));
    assert_eq!((invites.count(), story.gateway.view_calls().len()), (6, 6));
    assert!(story.gateway.view_calls().iter().all(|call| call.state == "ringing"));
}

#[test]
fn when_no_trunk_takes_a_call_the_last_word_is_on_the_record() {
    let mut story = Story::with_a_spare_trunk();
    let (call, invite) = story.invited();
    story.pbx_says(&invite, "503 Service Unavailable", "");
    story.next_sip("ACK");
    let invite = story.expect_sip("INVITE");
    story.pbx = other();
    story.pbx_says(&invite, "500 Oops", "");
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::FarUnreachable);
    assert_eq!((record.sip_code, record.errors.len()), (Some(500), 2), "{record:?}");
}

const BLIND: &str = "Refer-To: <sip:300@192.0.2.10>\r\nReferred-By: <sip:200@192.0.2.10>\r\n";

#[test]
fn the_pbx_hands_a_talking_call_over_and_the_user_talks_on_with_the_target() {
    let (mut story, call, first) = Story::talking("wacid.1");
    story.pbx_requests(&first, "REFER", 7, BLIND);
    assert!(story.next_sip("SIP/2.0").starts_with("SIP/2.0 202"));
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Alone(_)))), "the user hears ring-back");
    let second = story.next_sip("INVITE");
    story.expect_notify("SIP/2.0 100");
    assert!(
        second.starts_with("INVITE sip:300@192.0.2.10")
            && second.contains("Referred-By: <sip:200@192.0.2.10>")
    );
    story.pbx_says(&second, "180 Ringing", "");
    story.expect_notify("SIP/2.0 180");
    story.pbx_says(&second, "200 OK", PBX_SDP);
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Far(_)))));
    story.expect_notify("SIP/2.0 200");
    let left = story.sip.iter().any(|message| message.starts_with("BYE"));
    assert!(!left, "whoever handed over may hang up by itself");
    story.wait(Duration::from_secs(2));
    let bye = story.next_sip("BYE");
    assert!(
        bye.contains(first.lines().find(|line| line.starts_with("Call-ID")).unwrap()),
        "the old far end leaves"
    );
    story.pbx_says(&bye, "200 OK", "");
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
    assert_eq!(story.gateway.view_calls()[0].destination, "sip:300@pbx");
    story.wait(Duration::from_secs(30));
    story.terminate("wacid.1", true);
    let bye = story.next_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.line_closes(call);
    let record = story.over(Why::UserHungUp);
    assert!(record.transferred_at.is_some());
}

#[test]
fn a_transfer_that_is_asked_for_before_meta_has_confirmed_the_answer_begins_when_it_has() {
    let (mut story, _, first) = Story::ringing("wacid.1");
    story.pbx_says(&first, "200 OK", PBX_SDP);
    story.pbx_requests(&first, "REFER", 7, BLIND);
    assert!(!story.sip.iter().any(|message| message.starts_with("INVITE")), "nobody talks yet");
    story.graph_agrees("accept");
    assert!(story.next_sip("INVITE").starts_with("INVITE sip:300@"));
    assert_eq!(story.gateway.view_calls()[0].state, "transferring");
}

#[test]
fn a_target_that_does_not_come_gives_the_call_back_to_whoever_handed_it_over() {
    let (mut story, call, first) = Story::talking("wacid.1");
    story.pbx_requests(&first, "REFER", 7, BLIND);
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Alone(_)))));
    let second = story.next_sip("INVITE");
    story.expect_notify("SIP/2.0 100");
    story.pbx_says(&second, "486 Busy Here", "");
    story.expect_notify("SIP/2.0 486");
    assert!(
        matches!(story.lines.pop_front(), Some((_, LineOrder::Far(_)))),
        "the old far end is heard again"
    );
    let view = &story.gateway.view_calls()[0];
    assert_eq!((view.state, view.destination.as_str()), ("talking", "sip:200@pbx"));
    story.pbx_requests(&first, "BYE", 8, "");
    story.graph_agrees("terminate");
    story.terminate("wacid.1", true);
    story.line_closes(call);
    let record = story.over(Why::FarHungUp);
    assert!(
        record.errors.iter().any(|(code, said)| *code == 486 && said.starts_with("transfer")),
        "{record:?}"
    );
    assert_eq!(record.transferred_at, None, "nobody else ever had it");
}

/// The header that tells the dialogs of a story apart.
fn call_id(message: &str) -> String {
    message.lines().find(|line| line.starts_with("Call-ID")).unwrap_or_default().to_owned()
}

impl Story {
    /// A BYE in the dialog of this message; the PBX agrees.
    fn expect_bye(&mut self, message: &str) -> String {
        let is_it = |sent: &String| sent.starts_with("BYE") && sent.contains(&call_id(message));
        let at = self.sip.iter().position(is_it).expect("a BYE of that dialog");
        let bye = self.sip.remove(at).unwrap_or_default();
        self.pbx_says(&bye, "200 OK", "");
        bye
    }

    /// The two who talked before talk again: the PBX hears it, and the sound goes there.
    fn given_back(&mut self, status: &str) -> FarSound {
        self.expect_notify(status);
        let Some((_, LineOrder::Far(sound))) = self.lines.pop_front() else { panic!("no sound") };
        let view = &self.gateway.view_calls()[0];
        assert_eq!((view.state, view.destination.as_str()), ("talking", "sip:200@pbx"));
        sound
    }
}

#[test]
fn a_user_who_hangs_up_while_a_call_is_handed_over_is_gone_for_both_ends_at_the_pbx() {
    let (mut story, call, first) = Story::talking("wacid.1");
    story.pbx_requests(&first, "REFER", 7, BLIND);
    assert!(matches!(story.expect_line(), LineOrder::Alone(_)));
    let second = story.next_sip("INVITE");
    story.expect_notify("SIP/2.0 100");
    story.pbx_says(&second, "180 Ringing", "");
    story.expect_notify("SIP/2.0 180");
    story.terminate("wacid.1", true);
    story.expect_notify("SIP/2.0 487");
    story.expect_bye(&first);
    let cancel = story.next_sip("CANCEL");
    story.pbx_says(&cancel, "200 OK", "");
    story.pbx_says(&second, "487 Request Terminated", "");
    story.line_closes(call);
    story.over(Why::UserHungUp);
}

#[test]
fn a_call_that_no_trunk_takes_to_its_target_goes_back_to_whoever_handed_it_over() {
    let (mut story, call, first) = Story::talking("wacid.1");
    story.dead.push(story.pbx);
    story.wait(Duration::from_secs(180));
    assert!(!story.gateway.ready(), "the trunk does not answer any more");
    story.sip.clear();
    story.pbx_requests(&first, "REFER", 7, BLIND);
    assert!(matches!(story.expect_line(), LineOrder::Alone(_)));
    assert!(!story.sip.iter().any(|message| message.starts_with("INVITE")), "{:?}", story.sip);
    story.expect_notify("SIP/2.0 100");
    story.given_back("SIP/2.0 503");
    story.pbx_requests(&first, "BYE", 8, "");
    story.graph_agrees("terminate");
    story.terminate("wacid.1", true);
    story.line_closes(call);
    story.over(Why::FarHungUp);
}

#[test]
fn a_target_that_rings_in_vain_gives_the_call_back_in_a_call_that_the_pbx_began_too() {
    let (mut story, _, ok) = Story::talking_out();
    story.pbx_requests(&ok, "REFER", 2, BLIND);
    assert!(matches!(story.expect_line(), LineOrder::Alone(_)));
    let second = story.next_sip("INVITE");
    story.expect_notify("SIP/2.0 100");
    story.pbx_says(&second, "180 Ringing", "");
    story.expect_notify("SIP/2.0 180");
    story.wait(Duration::from_secs(60));
    story.next_sip("CANCEL");
    story.expect_notify("SIP/2.0 408");
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
}

#[test]
fn a_target_whose_answer_cannot_be_used_gives_the_call_back() {
    let (mut story, _, first) = Story::talking("wacid.1");
    story.pbx_requests(&first, "REFER", 7, BLIND);
    assert!(matches!(story.expect_line(), LineOrder::Alone(_)));
    let second = story.next_sip("INVITE");
    story.expect_notify("SIP/2.0 100");
    story.pbx_says(
        &second,
        "200 OK",
        &PBX_SDP.replace("RTP/AVP 0 101", "RTP/AVP 97").replace(":0 PCMU", ":97 X"),
    );
    let bye = story.expect_bye(&second);
    assert!(bye.contains("cause=488"), "{bye}");
    story.given_back("SIP/2.0 488");
    story.terminate("wacid.1", true);
    story.expect_bye(&first);
}

#[test]
fn whoever_gets_a_call_back_is_heard_where_it_wanted_to_be_in_the_meantime() {
    let (mut story, _, first) = Story::talking("wacid.1");
    let describe = |direction: &str| format!("{PBX_SDP}a={direction}\r\n");
    let kind = "Content-Type: application/sdp\r\n";
    story.pbx_requests_with(&first, "UPDATE", 7, kind, &describe("sendonly"));
    let LineOrder::Far(held) = story.expect_line() else { panic!("on hold") };
    assert!(!held.media.sends);
    story.pbx_requests(&first, "REFER", 8, BLIND);
    assert!(matches!(story.expect_line(), LineOrder::Alone(_)));
    let second = story.next_sip("INVITE");
    story.expect_notify("SIP/2.0 100");
    story.pbx_requests_with(&first, "UPDATE", 9, kind, &describe("sendrecv"));
    assert!(story.lines.is_empty(), "the user goes on hearing ring-back");
    story.pbx_says(&second, "486 Busy Here", "");
    assert!(story.given_back("SIP/2.0 486").media.sends, "it took the call from hold");
}

#[test]
fn two_who_hand_a_call_over_one_after_the_other_are_both_let_go() {
    let (mut story, call, first) = Story::talking("wacid.1");
    let mut at = first.clone();
    let mut was = Vec::new();
    for cseq in [7, 8] {
        story.pbx_requests(&at, "REFER", cseq, BLIND);
        let next = story.next_sip("INVITE");
        story.expect_notify("SIP/2.0 100");
        story.pbx_says(&next, "200 OK", PBX_SDP);
        story.expect_notify("SIP/2.0 200");
        was.push(std::mem::replace(&mut at, next));
        story.wait(Duration::from_secs(1));
    }
    story.wait(Duration::from_secs(5));
    for gone in &was {
        story.expect_bye(gone);
    }
    story.lines.clear();
    story.terminate("wacid.1", true);
    story.expect_bye(&at);
    story.line_closes(call);
    story.over(Why::UserHungUp);
}

#[test]
fn a_target_is_called_by_its_very_name_even_if_that_looks_like_a_template() {
    let (mut story, _, first) = Story::talking("wacid.1");
    story.pbx_requests(&first, "REFER", 7, "Refer-To: <sip:%7Bminted%7D@192.0.2.10>\r\n");
    let second = story.next_sip("INVITE");
    assert!(second.starts_with("INVITE sip:%7Bminted%7D@192.0.2.10"), "{second}");
}

#[test]
fn a_number_that_is_taken_out_while_its_call_is_set_up_leaves_nobody_waiting() {
    let mut story = Story::with_trunk_up();
    story.connect("wacid.1");
    let text = CONFIG.replace("phone_number_id = \"1001\"", "phone_number_id = \"1002\"");
    let (config, _) = Config::parse(&text, &SystemSecrets::beside("/tmp")).unwrap();
    story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
    let call = story.line_opens();
    story.graph_agrees("pre_accept");
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::NotRouted);
    assert!(record.detail.contains("not in the configuration"), "{}", record.detail);
}

#[test]
fn the_user_of_a_number_that_was_taken_out_in_mid_call_may_hang_up() {
    let (mut story, call, _) = Story::talking("wacid.1");
    let text = CONFIG.replace("phone_number_id = \"1001\"", "phone_number_id = \"1002\"");
    let (config, _) = Config::parse(&text, &SystemSecrets::beside("/tmp")).unwrap();
    story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
    story.terminate("wacid.1", true);
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.line_closes(call);
    story.over(Why::UserHungUp);
}

#[test]
fn nothing_is_remembered_of_a_trunk_that_is_taken_out() {
    let mut story = Story::with_a_spare_trunk();
    assert_eq!(story.gateway.heard_of.len(), 2);
    let (config, _) = Config::parse(CONFIG, &SystemSecrets::beside("/tmp")).unwrap();
    story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
    assert_eq!(story.gateway.heard_of.keys().collect::<Vec<_>>(), ["pbx"]);
    assert!(story.gateway.ready());
}

#[test]
fn whoever_hands_a_call_over_may_leave_at_once_and_the_call_ends_if_the_target_does_not_come() {
    let (mut story, call, first) = Story::talking("wacid.1");
    story.pbx_requests(&first, "REFER", 7, BLIND);
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Alone(_)))));
    let second = story.next_sip("INVITE");
    story.pbx_requests(&first, "BYE", 8, "");
    assert_eq!(story.gateway.view_calls()[0].state, "transferring", "the user is not cut off");
    story.pbx_says(&second, "486 Busy Here", "");
    story.graph_agrees("terminate");
    story.terminate("wacid.1", true);
    story.line_closes(call);
    story.over(Why::FarBusy);
}

#[test]
fn an_attended_transfer_calls_the_target_in_the_place_of_the_dialog_that_is_named() {
    let (mut story, _, first) = Story::talking("wacid.1");
    let refer = "Refer-To: <sip:300@192.0.2.10?Replaces=abc%40pbx%3Bto-tag%3Dt1%3Bfrom-tag%3Df1>\r\n";
    story.pbx_requests(&first, "REFER", 7, refer);
    let second = story.next_sip("INVITE");
    assert!(second.contains("Replaces: abc@pbx;to-tag=t1;from-tag=f1\r\n"), "{second}");
}

#[test]
fn a_telephone_that_replaces_another_has_the_user_and_the_other_is_let_go() {
    let (mut story, call, first) = Story::talking("wacid.1");
    let command = crate::gateway::desk::Command::Tracing { on: Some(true) };
    story.tell(Input::Asked { ticket: Ticket(1), command });
    let find = |name: &str| {
        let prefix = format!("{name}: ");
        first.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
    };
    let our_tag = find("From").split("tag=").nth(1).unwrap().to_owned();
    let replaces = format!("{};to-tag={our_tag};from-tag=pbx1", find("Call-ID"));
    let invite = format!(
        "INVITE sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKnew\r\n\
         From: <sip:301@192.0.2.10>;tag=new1\r\nTo: <sip:gw@192.0.2.1>\r\nCall-ID: new@pbx\r\nCSeq: 1 INVITE\r\n\
         Replaces: {replaces}\r\nContact: <sip:301@192.0.2.10:5060>\r\nMax-Forwards: 70\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{PBX_SDP}",
        PBX_SDP.len()
    );
    let from = Way::udp(story.pbx);
    story.tell(Input::Sip { from, bytes: invite.into_bytes() });
    let answer = story.next_sip("SIP/2.0 200");
    assert!(answer.contains("m=audio 20000"), "{answer}");
    let bye = story.next_sip("BYE");
    assert!(bye.contains(&find("Call-ID")));
    story.pbx_says(&bye, "200 OK", "");
    let tag =
        answer.lines().find(|line| line.starts_with("To:")).unwrap().split("tag=").nth(1).unwrap().to_owned();
    let ack = format!(
        "ACK sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKack\r\n\
         From: <sip:301@192.0.2.10>;tag=new1\r\nTo: <sip:gw@192.0.2.1>;tag={tag}\r\nCall-ID: new@pbx\r\n\
         CSeq: 1 ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    story.tell(Input::Sip { from, bytes: ack.into_bytes() });
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Far(_)))));
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
    let id = story.gateway.view_calls()[0].id.clone();
    let command = crate::gateway::desk::Command::Trace { id };
    story.tell(Input::Asked { ticket: Ticket(2), command });
    let Some((_, Ok(Answer::Trace(trace)))) = story.told.pop_back() else { panic!("a trace") };
    let new = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("Call-ID: new@pbx");
    assert!(trace.iter().any(|traced| new(&traced.bytes)), "what the new one says can be seen");
    story.terminate("wacid.1", true);
    let bye = story.next_sip("BYE");
    assert!(bye.contains("Call-ID: new@pbx"), "{bye}");
    story.pbx_says(&bye, "200 OK", "");
    story.line_closes(call);
    story.over(Why::UserHungUp);
}

#[test]
fn a_trunk_dials_only_whom_it_may_and_not_too_often() {
    let limits = "register = false\ndial_allow = [\"+49\"]\ndial_per_minute = 2\n";
    let config = CONFIG.replace("register = false\n", limits).replace("max_calls = 2", "max_calls = 9");
    let mut story = Story::with(&config);
    let options = story.expect_sip("OPTIONS");
    story.answers_options = true;
    story.pbx_says(&options, "200 OK", "");
    let answer = |story: &mut Story, dialled: &str, call: &str| {
        story.pbx_calls(dialled, "", call);
        story.next_sip("SIP/2.0 100");
        story.sip.iter().find(|message| message.starts_with("SIP/2.0")).cloned()
    };
    let refused = answer(&mut story, "+882161234567", "a").unwrap();
    assert!(refused.starts_with("SIP/2.0 403") && refused.contains("dial_allow"), "{refused}");
    story.sip.clear();
    assert_eq!(answer(&mut story, "+4915112345678", "b"), None);
    story.sip.clear();
    assert_eq!(answer(&mut story, "+4915112345679", "c"), None);
    story.sip.clear();
    story.wait(Duration::from_secs(20));
    story.sip.clear();
    let refused = answer(&mut story, "+4915112345670", "d").unwrap();
    assert!(refused.contains("dial_per_minute") && refused.contains("\r\nRetry-After: 40\r\n"), "{refused}");
}

#[test]
fn a_trunk_that_has_dialled_enough_for_today_is_told_when_tomorrow_begins() {
    let mut story =
        Story::with(&CONFIG.replace("register = false\n", "register = false\ndial_per_day = 1\n"));
    let options = story.expect_sip("OPTIONS");
    story.pbx_says(&options, "200 OK", "");
    story.pbx_calls("+4915112345678", "", "a");
    story.expect_sip("SIP/2.0 100");
    story.pbx_calls("+4915112345679", "", "b");
    story.expect_sip("SIP/2.0 100");
    let refused = story.expect_sip("SIP/2.0 486");
    assert!(refused.contains("dial_per_day"), "{refused}");
    assert!(refused.contains("\r\nRetry-After: 57600\r\n"), "16 hours: {refused}");
}

#[test]
fn what_a_trunk_dialled_before_a_restart_counts() {
    let mut story =
        Story::with(&CONFIG.replace("register = false\n", "register = false\ndial_per_day = 1\n"));
    let options = story.expect_sip("OPTIONS");
    story.pbx_says(&options, "200 OK", "");
    let now = story.now;
    story.gateway.dialled_before("pbx", crate::clock::Wall(now.wall.0 - 7_200_000), now);
    story.gateway.dialled_before("a trunk that is no more", now.wall, now);
    story.pbx_calls("+4915112345678", "", "a");
    story.expect_sip("SIP/2.0 100");
    let refused = story.expect_sip("SIP/2.0 486");
    assert!(refused.contains("dial_per_day"), "{refused}");
}

#[test]
fn what_sip_said_in_a_call_can_be_seen_while_tracing_is_on() {
    let mut story = Story::with_trunk_up();
    let command = crate::gateway::desk::Command::Tracing { on: Some(true) };
    story.tell(Input::Asked { ticket: Ticket(1), command });
    assert_eq!(story.told.pop_front(), Some((Ticket(1), Ok(Answer::Tracing(true)))));
    let (_, invite) = story.invited();
    story.pbx_says(&invite, "180 Ringing", "");
    let id = story.gateway.view_calls()[0].id.clone();
    let command = crate::gateway::desk::Command::Trace { id };
    story.tell(Input::Asked { ticket: Ticket(2), command });
    let Some((_, Ok(Answer::Trace(trace)))) = story.told.pop_front() else { panic!("a trace") };
    let said: Vec<(bool, String)> = trace
        .iter()
        .map(|traced| {
            (traced.sent, String::from_utf8_lossy(&traced.bytes).lines().next().unwrap().to_owned())
        })
        .collect();
    assert_eq!(said[0], (true, invite.lines().next().unwrap().to_owned()));
    assert_eq!(said[1], (false, "SIP/2.0 180 Ringing".to_owned()));
    assert_eq!(said.len(), 2, "and OPTIONS are not of this call");
}
