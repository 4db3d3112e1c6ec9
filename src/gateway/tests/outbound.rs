//! Stories of calls that the business places: by an extension of the PBX, and by a program.

use super::*;
use crate::call::record::PlacedBy;
use crate::config::Destination;
use crate::gateway::desk::{Answer, Command, Place as PlaceCall, Refusal, Ticket};
use crate::gateway::{RequestId, WebRtc};
use crate::media::Alone;
use crate::whatsapp::callee::Callee;
use crate::whatsapp::graph::Method;

const STACK_OFFER: &str = "v=0\r\no=- 5 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=mid:0\r\n\
a=ice-ufrag:ourufrag\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
a=fingerprint:sha-256 AA:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:126 telephone-event/8000\r\na=ssrc:7 cname:watrunk\r\na=sendrecv\r\n";

const META_ANSWER: &str = "v=0\r\no=- 9 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-lite\r\n\
m=audio 3482 UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 198.51.100.9\r\n\
a=candidate:1 1 udp 2113937151 198.51.100.9 3482 typ host generation 0 network-cost 50\r\n\
a=ice-ufrag:RmDDkfzkwbexPfbC\r\na=ice-pwd:0123456789abcdef01234567\r\n\
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
a=setup:active\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
a=rtpmap:126 telephone-event/8000\r\na=ptime:20\r\na=ssrc:849255537 cname:WhatsAppAudioStream1\r\n";

const PERMITTED: &str = r#"{"messaging_product":"whatsapp","permission":{"status":"temporary","expiration_time":1900000000},
"actions":[{"action_name":"start_call","can_perform_action":true}]}"#;

const USER: &str = "4915112345678";
const ID: &str = "wacid.out1";

impl Story {
    /// An extension of the PBX dials.
    pub(super) fn pbx_calls(&mut self, dialled: &str, sdp: &str, call: &str) -> String {
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let invite = format!(
            "INVITE sip:{dialled}@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{call}\r\n\
             From: \"Alice\" <sip:101@192.0.2.10>;tag=pbx{call}\r\nTo: <sip:{dialled}@192.0.2.1>\r\n\
             Call-ID: {call}@192.0.2.10\r\nCSeq: 1 INVITE\r\nContact: <sip:101@192.0.2.10:5060>\r\n\
             Max-Forwards: 70\r\n{kind}Content-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        let from = Way::udp(self.pbx);
        self.tell(Input::Sip { from, bytes: invite.clone().into_bytes() });
        invite
    }

    /// The extension gives up.
    fn pbx_cancels(&mut self, invite: &str) {
        let cancel = invite
            .lines()
            .take_while(|line| !line.is_empty())
            .filter(|line| !line.starts_with("Content-") && !line.starts_with("Contact"))
            .map(|line| line.replace("INVITE", "CANCEL"))
            .collect::<Vec<String>>()
            .join("\r\n");
        let from = Way::udp(self.pbx);
        let bytes = format!("{cancel}\r\nContent-Length: 0\r\n\r\n").into_bytes();
        self.tell(Input::Sip { from, bytes });
    }

    /// A request of the PBX in the dialog of its call that we have answered.
    fn pbx_asks(&mut self, method: &str, ok: &str, cseq: u32, sdp: &str) {
        let header = |name: &str| {
            let prefix = format!("{name}: ");
            ok.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
        };
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let request = format!(
            "{method} sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{method}{cseq}\r\n\
             From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n{kind}Content-Length: {}\r\n\r\n{sdp}",
            header("From"),
            header("To"),
            header("Call-ID"),
            sdp.len()
        );
        let from = Way::udp(self.pbx);
        self.tell(Input::Sip { from, bytes: request.into_bytes() });
    }

    fn expect_question(&mut self) -> RequestId {
        let (id, request) = self.graph.pop_front().expect("a question about permission");
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.path, format!("1001/call_permissions?user_wa_id={USER}"));
        id
    }

    fn permitted(&mut self) {
        let id = self.expect_question();
        self.graph_says(id, 200, PERMITTED);
    }

    fn line_offers(&mut self) -> CallKey {
        let (call, order) = self.lines.pop_front().expect("a line order");
        let LineOrder::Open(setup) = order else { panic!("{order:?}") };
        assert!(matches!(setup.webrtc, WebRtc::Offer { .. }), "{setup:?}");
        let places = vec![Place { ip: "203.0.113.7".parse().unwrap(), port: 40_000, kind: Kind::Host }];
        let rtp = "192.0.2.1:20000".parse().unwrap();
        self.tell(Input::Line {
            call,
            event: LineEvent::Opened { described: STACK_OFFER.into(), places, rtp, secret: SECRET },
        });
        call
    }

    fn meta_takes(&mut self, wacid: &str) -> String {
        let (id, body) = self.expect_graph("connect");
        self.graph_says(
            id,
            200,
            &format!(r#"{{"messaging_product":"whatsapp","calls":[{{"id":"{wacid}"}}]}}"#),
        );
        body
    }

    fn value(&mut self, field: &str, value: &str) {
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"{field}","value":{{
            "messaging_product":"whatsapp","metadata":{{"phone_number_id":"1001"}},{value}}}}}]}}]}}"#
        );
        let notices = webhook::read(body.as_bytes()).unwrap();
        self.tell(Input::Notices(notices));
    }

    fn meta_answers(&mut self, wacid: &str) {
        let sdp = serde_json::to_string(META_ANSWER).unwrap();
        let stamp = self.now.wall.unix_seconds();
        self.value(
            "calls",
            &format!(
                r#""calls":[{{"id":"{wacid}","event":"connect","direction":"BUSINESS_INITIATED","from":"15550100100",
                "to":"{USER}","timestamp":"{stamp}","session":{{"sdp_type":"answer","sdp":{sdp}}}}}]"#
            ),
        );
    }

    fn step(&mut self, wacid: &str, status: &str) {
        let stamp = self.now.wall.unix_seconds();
        self.value(
            "calls",
            &format!(
                r#""statuses":[{{"id":"{wacid}","type":"call","status":"{status}","timestamp":"{stamp}",
                "recipient_id":"{USER}"}}]"#
            ),
        );
    }

    fn ended_by_meta(&mut self, wacid: &str, answered: bool) {
        let times = if answered { r#","start_time":"1","end_time":"2","duration":1"# } else { "" };
        self.value(
            "calls",
            &format!(
                r#""calls":[{{"id":"{wacid}","event":"terminate","direction":"BUSINESS_INITIATED",
                "timestamp":"1","status":"COMPLETED"{times}}}]"#
            ),
        );
    }

    pub(super) fn expect_line(&mut self) -> LineOrder {
        self.lines.pop_front().expect("an order to the line").1
    }

    /// The PBX has dialled, Meta has taken the call, the user's phone rings.
    fn ringing_out() -> (Story, CallKey, String) {
        let mut story = Story::with_trunk_up();
        let invite = story.pbx_calls(&format!("+{USER}"), PBX_SDP, "a1");
        story.expect_sip("SIP/2.0 100");
        story.permitted();
        let call = story.line_offers();
        story.meta_takes(ID);
        story.meta_answers(ID);
        assert!(matches!(story.expect_line(), LineOrder::Remote { .. }));
        story.tell(Input::Line { call, event: LineEvent::Connected });
        assert!(matches!(story.expect_line(), LineOrder::OpenGate { early: true }));
        story.step(ID, "RINGING");
        story.expect_sip("SIP/2.0 180");
        (story, call, invite)
    }

    /// … and both talk. The text is our 200.
    pub(super) fn talking_out() -> (Story, CallKey, String) {
        let (mut story, call, _) = Story::ringing_out();
        story.wait(Duration::from_secs(5));
        story.step(ID, "ACCEPTED");
        assert!(matches!(story.expect_line(), LineOrder::OpenGate { early: false }));
        let ok = story.expect_sip("SIP/2.0 200");
        assert!(story.lines.is_empty(), "sound crosses when the PBX has confirmed");
        story.pbx_asks("ACK", &ok, 1, "");
        assert!(matches!(story.expect_line(), LineOrder::Far(_)));
        assert_eq!(story.gateway.view_calls()[0].state, "talking");
        (story, call, ok)
    }

    fn ask(&mut self, ticket: u64, command: Command) {
        self.tell(Input::Asked { ticket: Ticket(ticket), command });
    }

    fn call_user(&mut self, ticket: u64, destination: Option<Destination>) {
        let to = Callee::parse(USER).unwrap();
        let place = PlaceCall { number: "support".into(), to, destination, record: None };
        self.ask(ticket, Command::Call(Box::new(place)));
    }

    fn answer_to(&mut self, ticket: u64) -> Result<Answer, Refusal> {
        let (asked, answer) = self.told.pop_front().expect("an answer of the desk");
        assert_eq!(asked, Ticket(ticket));
        answer
    }

    /// A program has called the user, who rings.
    fn ringing_for_a_program() -> (Story, CallKey) {
        let mut story = Story::with_trunk_up();
        story.call_user(1, None);
        story.permitted();
        let call = story.line_offers();
        story.meta_takes(ID);
        let Ok(Answer::Placed { id, destination, .. }) = story.answer_to(1) else { panic!("not placed") };
        assert_eq!((id, destination.as_str()), (story.gateway.view_calls()[0].id.clone(), "sip:200@pbx"));
        story.meta_answers(ID);
        assert!(matches!(story.expect_line(), LineOrder::Remote { .. }));
        story.step(ID, "RINGING");
        assert!(story.sip.is_empty(), "nobody's phone rings before the user answers: {:?}", story.sip);
        (story, call)
    }

    /// … and talks to the destination.
    fn talking_for_a_program() -> (Story, CallKey, String) {
        let (mut story, call) = Story::ringing_for_a_program();
        story.step(ID, "ACCEPTED");
        assert!(matches!(story.expect_line(), LineOrder::Alone(Alone::RingBack)), "no dead air");
        assert!(matches!(story.expect_line(), LineOrder::OpenGate { early: false }));
        let invite = story.expect_sip("INVITE sip:200@192.0.2.10");
        story.pbx_says(&invite, "100 Trying", "");
        story.wait(Duration::from_secs(6));
        story.pbx_says(&invite, "200 OK", PBX_SDP);
        story.expect_sip("ACK");
        assert!(matches!(story.expect_line(), LineOrder::Far(_)));
        assert_eq!(story.gateway.view_calls()[0].state, "talking");
        (story, call, invite)
    }
}

#[test]
fn an_extension_dials_a_whatsapp_user_who_answers_and_they_talk() {
    let (mut story, call, ok) = Story::talking_out();
    assert!(ok.contains("m=audio 20000 RTP/AVP 0"), "{ok}");
    story.wait(Duration::from_secs(56));
    story.pbx_asks("BYE", &ok, 2, "");
    story.expect_sip("SIP/2.0 200");
    story.graph_agrees("terminate");
    story.ended_by_meta(ID, true);
    story.line_closes(call);
    let record = story.over(Why::FarHungUp);
    assert_eq!((record.talk_seconds, record.billed_seconds), (56.0, 56.0));
    assert_eq!((record.from.as_str(), record.to.as_str()), ("+15550100100", "+4915112345678"));
    assert_eq!((record.wacid.as_str(), record.placed_by), (ID, PlacedBy::Pbx));
    assert_eq!(record.destination, "sip:101@pbx");
    assert!(record.answered());
}

#[test]
fn the_offer_tells_meta_where_we_are_and_which_call_it_is() {
    let mut story = Story::with_trunk_up();
    story.pbx_calls(&format!("+{USER}"), PBX_SDP, "a1");
    story.permitted();
    story.line_offers();
    let body: serde_json::Value = serde_json::from_str(&story.meta_takes(ID)).unwrap();
    assert_eq!((body["to"].as_str(), body["session"]["sdp_type"].as_str()), (Some(USER), Some("offer")));
    assert_eq!(body["biz_opaque_callback_data"], story.gateway.view_calls()[0].id);
    let sdp = body["session"]["sdp"].as_str().unwrap();
    assert!(sdp.contains("203.0.113.7 40000") && sdp.contains("a=setup:actpass"), "{sdp}");
}

#[test]
fn the_answer_may_come_before_graphs_reply() {
    let mut story = Story::with_trunk_up();
    story.pbx_calls(&format!("+{USER}"), PBX_SDP, "a1");
    story.expect_sip("SIP/2.0 100");
    story.permitted();
    let call = story.line_offers();
    let (id, _) = story.expect_graph("connect");
    story.meta_answers(ID);
    story.step(ID, "RINGING");
    assert!(story.lines.is_empty() && story.sip.is_empty(), "it is not known yet whose call that is");
    story.graph_says(id, 200, &format!(r#"{{"calls":[{{"id":"{ID}"}}]}}"#));
    assert!(matches!(story.expect_line(), LineOrder::Remote { .. }));
    story.expect_sip("SIP/2.0 180");
    story.step(ID, "ACCEPTED");
    story.expect_sip("SIP/2.0 200");
    story.lines.clear();
    story.ended_by_meta(ID, true);
    // Our 200 was not acknowledged yet: the BYE waits for the ACK, or for its time.
    story.wait(Duration::from_secs(40));
    story.sip.clear();
    story.line_closes(call);
    story.over(Why::UserHungUp);
}

#[test]
fn a_webhook_that_names_our_call_is_believed_even_if_graphs_reply_is_lost() {
    let mut story = Story::with_trunk_up();
    story.pbx_calls(&format!("+{USER}"), PBX_SDP, "a1");
    story.expect_sip("SIP/2.0 100");
    story.permitted();
    let call = story.line_offers();
    let (request, _) = story.expect_graph("connect");
    let ours = story.gateway.view_calls()[0].id.clone();
    let sdp = serde_json::to_string(META_ANSWER).unwrap();
    story.value(
        "calls",
        &format!(
            r#""calls":[{{"id":"{ID}","event":"connect","direction":"BUSINESS_INITIATED","to":"{USER}",
            "biz_opaque_callback_data":"{ours}","session":{{"sdp_type":"answer","sdp":{sdp}}}}}]"#
        ),
    );
    assert!(matches!(story.expect_line(), LineOrder::Remote { .. }));
    story.tell(Input::GraphReplied { request, reply: Reply::Timeout });
    story.step(ID, "RINGING");
    story.expect_sip("SIP/2.0 180");
    story.ended_by_meta(ID, false);
    story.expect_sip("SIP/2.0 480");
    story.line_closes(call);
    assert_eq!(story.over(Why::UserNoAnswer).wacid, ID);
}

#[test]
fn a_user_who_declines_is_603_to_the_pbx() {
    let (mut story, call, _) = Story::ringing_out();
    story.step(ID, "REJECTED");
    story.ended_by_meta(ID, false);
    while story.graph.front().is_some() {
        story.graph_agrees("terminate");
    }
    story.expect_sip("SIP/2.0 603");
    story.line_closes(call);
    let record = story.over(Why::UserDeclined);
    assert_eq!(record.sip_code, Some(603));
    assert_eq!(record.billed_seconds, 0.0);
}

#[test]
fn a_user_who_does_not_answer_is_480_to_the_pbx_whether_meta_says_so_or_we_do() {
    let (mut story, call, _) = Story::ringing_out();
    story.ended_by_meta(ID, false);
    story.expect_sip("SIP/2.0 480");
    story.line_closes(call);
    story.over(Why::UserNoAnswer);

    let (mut story, call, _) = Story::ringing_out();
    story.wait(Duration::from_secs(59));
    story.sip.clear();
    story.wait(Duration::from_secs(2));
    story.sip.retain(|message| !message.starts_with("SIP/2.0 180"));
    story.expect_sip("SIP/2.0 480");
    story.graph_agrees("terminate");
    story.line_closes(call);
    story.over(Why::UserNoAnswer);
}

#[test]
fn an_extension_that_gives_up_is_heard_in_every_state() {
    for stage in 0..5 {
        let mut story = Story::with_trunk_up();
        let invite = story.pbx_calls(&format!("+{USER}"), PBX_SDP, "a1");
        story.expect_sip("SIP/2.0 100");
        let mut question = None;
        let mut call = None;
        let mut connect = None;
        if stage == 0 {
            question = Some(story.expect_question());
        } else {
            story.permitted();
        }
        if stage >= 2 {
            call = Some(story.line_offers());
        }
        if stage == 2 {
            connect = Some(story.expect_graph("connect").0);
        }
        if stage >= 3 {
            story.meta_takes(ID);
        }
        if stage >= 4 {
            story.step(ID, "RINGING");
            story.expect_sip("SIP/2.0 180");
        }
        story.pbx_cancels(&invite);
        story.expect_sip("SIP/2.0 200");
        story.expect_sip("SIP/2.0 487");
        if let Some(question) = question {
            story.graph_says(question, 200, PERMITTED);
        }
        if stage == 1 {
            // The line was opening: it is told to close before it said a word.
            let (call, order) = story.lines.pop_front().expect("an order");
            assert!(matches!(order, LineOrder::Open(_)));
            story.line_closes(call);
        }
        if let Some(connect) = connect {
            story.graph_says(connect, 200, &format!(r#"{{"calls":[{{"id":"{ID}"}}]}}"#));
        }
        if stage >= 2 {
            story.graph_agrees("terminate");
        }
        if let Some(call) = call {
            story.line_closes(call);
        }
        let record = story.over(Why::FarGaveUp);
        assert!(!record.answered(), "stage {stage}");
    }
}

#[test]
fn without_permission_the_pbx_hears_403_and_why() {
    let mut story = Story::with_trunk_up();
    story.pbx_calls(&format!("+{USER}"), PBX_SDP, "a1");
    story.expect_sip("SIP/2.0 100");
    let id = story.expect_question();
    story.graph_says(
        id,
        200,
        r#"{"permission":{"status":"no_permission"},"actions":[{"action_name":"start_call","can_perform_action":false}]}"#,
    );
    let refusal = story.expect_sip("SIP/2.0 403");
    assert!(refusal.contains("Warning: 399 ") && refusal.contains("has not allowed calls"), "{refusal}");
    assert!(story.lines.is_empty(), "no port is taken for a call that may not be");
    story.over(Why::NoPermission);
}

#[test]
fn a_call_limit_that_meta_tells_is_respected_before_meta_refuses() {
    let mut story = Story::with_trunk_up();
    story.call_user(1, None);
    let id = story.expect_question();
    story.graph_says(
        id,
        200,
        r#"{"permission":{"status":"permanent"},"actions":[{"action_name":"start_call","can_perform_action":false,
        "limits":[{"time_period":"PT24H","max_allowed":100,"current_usage":100,"limit_expiration_time":1900000000}]}]}"#,
    );
    let Err(Refusal::Denied(denied)) = story.answer_to(1) else { panic!("not denied") };
    assert!(denied.to_string().contains("100"), "{denied}");
    story.over(Why::Throttled);
}

#[test]
fn metas_refusals_become_the_codes_that_a_pbx_understands() {
    for (status, code, sip, why) in [
        (401, 138006, "403", Why::NoPermission),
        (400, 138001, "404", Why::NotOnWhatsApp),
        (400, 138003, "486", Why::UserBusy),
        (429, 138005, "503", Why::Throttled),
        (400, 138012, "486", Why::Throttled),
        (400, 131055, "503", Why::GraphRefused),
    ] {
        let mut story = Story::with_trunk_up();
        story.pbx_calls(&format!("+{USER}"), PBX_SDP, "a1");
        story.expect_sip("SIP/2.0 100");
        story.permitted();
        let call = story.line_offers();
        let fault = format!(
            r#"{{"error":{{"message":"no","type":"OAuthException","code":{code},"fbtrace_id":"x"}}}}"#
        );
        for _ in 0..8 {
            let Some((id, _)) = story.graph.pop_front() else { break };
            story.graph_says(id, status, &fault);
            if story.graph.is_empty() && !story.sip.iter().any(|message| message.contains(" 4")) {
                story.wait(Duration::from_secs(3));
            }
        }
        let refusal = story.expect_sip("SIP/2.0 ");
        assert!(refusal.starts_with(&format!("SIP/2.0 {sip}")), "{code}: {refusal}");
        assert_eq!(
            refusal.contains("Retry-After"),
            sip == "503" && why == Why::Throttled,
            "{code}: {refusal}"
        );
        story.line_closes(call);
        assert_eq!(story.over(why).meta_code, Some(code));
    }
}

#[test]
fn an_unreachable_graph_is_503_with_retry_after() {
    let mut story = Story::with_trunk_up();
    story.pbx_calls(&format!("+{USER}"), PBX_SDP, "a1");
    story.expect_sip("SIP/2.0 100");
    let mut tries = 0;
    for _ in 0..20 {
        while let Some((request, _)) = story.graph.pop_front() {
            tries += 1;
            story.tell(Input::GraphReplied {
                request,
                reply: Reply::Unreachable("connection refused".into()),
            });
        }
        story.wait(Duration::from_millis(500));
    }
    assert!((2..10).contains(&tries), "{tries} tries");
    let refusal = story.expect_sip("SIP/2.0 503");
    assert!(refusal.contains("Retry-After"), "{refusal}");
    story.over(Why::GraphUnreachable);
}

#[test]
fn connect_is_never_sent_twice_in_doubt() {
    let mut story = Story::with_trunk_up();
    story.call_user(1, None);
    story.permitted();
    let call = story.line_offers();
    let (request, _) = story.expect_graph("connect");
    story.tell(Input::GraphReplied { request, reply: Reply::Timeout });
    story.wait(Duration::from_secs(60));
    assert!(story.graph.is_empty(), "the user would ring twice: {:?}", story.graph);
    assert!(story.answer_to(1).is_err());
    story.line_closes(call);
    story.over(Why::GraphUnreachable);
}

#[test]
fn webhooks_that_come_twice_change_nothing() {
    let (mut story, call, _) = Story::ringing_out();
    for _ in 0..3 {
        story.meta_answers(ID);
        story.step(ID, "RINGING");
    }
    assert!(story.lines.is_empty() && story.sip.is_empty(), "{:?} {:?}", story.lines, story.sip);
    story.step(ID, "ACCEPTED");
    story.step(ID, "ACCEPTED");
    let ok = story.expect_sip("SIP/2.0 200");
    story.pbx_asks("ACK", &ok, 1, "");
    assert!(story.sip.is_empty());
    story.lines.clear();
    story.ended_by_meta(ID, true);
    story.ended_by_meta(ID, true);
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.line_closes(call);
    story.over(Why::UserHungUp);
}

#[test]
fn one_user_is_not_called_twice_at_once() {
    let (mut story, call, _) = Story::ringing_out();
    story.pbx_calls(&format!("00{USER}"), PBX_SDP, "b2");
    story.sip.retain(|message| !message.starts_with("SIP/2.0 100"));
    let refusal = story.expect_sip("SIP/2.0 486");
    assert!(refusal.contains("already"), "{refusal}");
    story.call_user(7, None);
    assert_eq!(story.answer_to(7), Err(Refusal::Busy));
    story.ended_by_meta(ID, false);
    story.expect_sip("SIP/2.0 480");
    story.line_closes(call);
    story.over(Why::UserNoAnswer);
}

#[test]
fn numbers_are_understood_however_the_pbx_writes_them() {
    for dialled in ["+4915112345678", "004915112345678", "015112345678", "4915112345678", "+49-151-12345678"]
    {
        let mut story = Story::with_trunk_up();
        story.pbx_calls(dialled, PBX_SDP, "a1");
        story.expect_sip("SIP/2.0 100");
        story.expect_question();
    }
    let mut story = Story::with_trunk_up();
    story.pbx_calls("DE.1349abc", PBX_SDP, "a1");
    story.expect_sip("SIP/2.0 100");
    let (_, request) = story.graph.pop_front().expect("a question");
    assert_eq!(request.path, "1001/call_permissions?recipient=DE.1349abc");
}

#[test]
fn what_is_no_number_and_whom_nobody_may_call_is_refused_with_a_reason() {
    let mut story = Story::with_trunk_up();
    for (dialled, code) in [("alice", "404"), ("112", "404"), ("+15550100100", "404")] {
        story.pbx_calls(dialled, PBX_SDP, dialled.trim_start_matches('+'));
        story.sip.retain(|message| !message.starts_with("SIP/2.0 100"));
        let refusal = story.expect_sip(&format!("SIP/2.0 {code}"));
        assert!(refusal.contains("Warning: 399 "), "{refusal}");
    }
    let no_codec = PBX_SDP.replace("RTP/AVP 0 101", "RTP/AVP 18 101").replace("0 PCMU", "18 G729");
    story.pbx_calls(&format!("+{USER}"), &no_codec, "c3");
    story.sip.retain(|message| !message.starts_with("SIP/2.0 100"));
    story.expect_sip("SIP/2.0 488");
    assert!(story.graph.is_empty() && story.records.is_empty());
}

#[test]
fn a_pbx_that_wants_our_offer_first_gets_it_with_the_200() {
    let mut story = Story::with_trunk_up();
    story.pbx_calls(&format!("+{USER}"), "", "a1");
    story.expect_sip("SIP/2.0 100");
    story.permitted();
    let call = story.line_offers();
    story.meta_takes(ID);
    story.step(ID, "ACCEPTED");
    while story.sip.front().is_some_and(|message| message.starts_with("SIP/2.0 180")) {
        story.sip.pop_front();
    }
    let ok = story.expect_sip("SIP/2.0 200");
    assert!(ok.contains("m=audio 20000 RTP/AVP"), "{ok}");
    story.lines.clear();
    story.pbx_asks("ACK", &ok, 1, PBX_SDP);
    assert!(matches!(story.expect_line(), LineOrder::Far(_)), "the ACK's answer points the line");
    story.pbx_asks("BYE", &ok, 2, "");
    story.expect_sip("SIP/2.0 200");
    story.graph_agrees("terminate");
    story.line_closes(call);
    story.over(Why::FarHungUp);
}

#[test]
fn a_program_calls_a_user_and_the_destination_is_fetched_once_the_user_has_answered() {
    let (mut story, call, invite) = Story::talking_for_a_program();
    assert!(invite.contains("<sip:+4915112345678@"), "the agent sees who it is: {invite}");
    story.wait(Duration::from_secs(50));
    story.pbx_hangs_up(&invite);
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::FarHungUp);
    assert_eq!(
        (record.talk_seconds, record.billed_seconds),
        (50.0, 56.0),
        "Meta counts from the user's answer"
    );
    assert_eq!(record.placed_by, PlacedBy::Api);
}

#[test]
fn a_destination_that_is_busy_ends_the_call_at_meta_too() {
    let (mut story, call) = Story::ringing_for_a_program();
    story.step(ID, "ACCEPTED");
    let invite = story.expect_sip("INVITE");
    story.pbx_says(&invite, "486 Busy Here", "");
    story.expect_sip("ACK");
    story.graph_agrees("terminate");
    story.lines.clear();
    story.tell(Input::Line {
        call,
        event: LineEvent::Closed { whatsapp: Quality::default(), far: Quality::default() },
    });
    let record = story.over(Why::FarBusy);
    assert!(!record.answered() && record.connected_at.is_some());
}

#[test]
fn a_user_who_hangs_up_before_the_destination_answers_ends_it_there_too() {
    let (mut story, call) = Story::ringing_for_a_program();
    story.step(ID, "ACCEPTED");
    let invite = story.expect_sip("INVITE");
    story.pbx_says(&invite, "180 Ringing", "");
    story.ended_by_meta(ID, true);
    let cancel = story.expect_sip("CANCEL");
    story.pbx_says(&cancel, "200 OK", "");
    story.pbx_says(&invite, "487 Request Terminated", "");
    story.expect_sip("ACK");
    story.lines.retain(|(_, order)| matches!(order, LineOrder::Close));
    story.line_closes(call);
    story.over(Why::UserHungUp);
}

#[test]
fn a_program_hears_what_meta_said_when_the_call_is_refused() {
    let mut story = Story::with_trunk_up();
    story.call_user(1, None);
    story.permitted();
    let call = story.line_offers();
    let (id, _) = story.expect_graph("connect");
    story.graph_says(id, 401, r#"{"error":{"message":"No permission","code":138006,"fbtrace_id":"x"}}"#);
    story.line_closes(call);
    let Err(Refusal::Graph(verdict)) = story.answer_to(1) else { panic!("not Graph's refusal") };
    assert_eq!(verdict.code, Some(138006));
    story.over(Why::NoPermission);
}

#[test]
fn what_a_program_can_not_ask_for_is_said_at_once() {
    let mut story = Story::with_trunk_up();
    let to = Callee::parse(USER).unwrap();
    let place = |number: &str, destination| {
        Command::Call(Box::new(PlaceCall {
            number: number.into(),
            to: to.clone(),
            destination,
            record: None,
        }))
    };
    story.ask(1, place("sales", None));
    assert_eq!(story.answer_to(1), Err(Refusal::NoSuchNumber));
    story.ask(2, place("support", Some(Destination::Tel("+15550100100".into()))));
    assert_eq!(story.answer_to(2), Err(Refusal::ToItself));
    story.ask(3, place("support", Some(Destination::Wss("wss://bot.example.com/?dialect=latin".into()))));
    assert_eq!(story.answer_to(3), Err(Refusal::NoDestination));
    story.ask(4, Command::HangUp { id: "call_nothing".into() });
    assert_eq!(story.answer_to(4), Err(Refusal::NoSuchCall));
    assert!(story.graph.is_empty() && story.records.is_empty());
}

#[test]
fn a_running_call_is_handed_over_and_the_user_hears_ringing_meanwhile() {
    let (mut story, call, invite) = Story::talking("wacid.1");
    let id = story.gateway.view_calls()[0].id.clone();
    let to = Destination::Sip { user: "300".into(), host: "pbx".into() };
    story.ask(9, Command::Transfer { id: id.clone(), to: to.clone() });
    assert_eq!(story.answer_to(9), Ok(Answer::Transferring { id: id.clone(), to: "sip:300@pbx".into() }));
    let bye = story.expect_sip("BYE");
    assert!(bye.contains(invite.lines().find(|line| line.starts_with("Call-ID")).unwrap()));
    assert!(matches!(story.expect_line(), LineOrder::Alone(Alone::RingBack)));
    let second = story.expect_sip("INVITE sip:300@192.0.2.10");
    story.pbx_says(&bye, "200 OK", "");
    assert_eq!(story.gateway.view_calls()[0].state, "transferring");
    story.ask(10, Command::Transfer { id, to });
    assert_eq!(story.answer_to(10), Err(Refusal::NotNow { state: "transferring" }));
    story.pbx_says(&second, "200 OK", PBX_SDP);
    story.expect_sip("ACK");
    assert!(matches!(story.expect_line(), LineOrder::Far(_)));
    assert!(story.graph.is_empty(), "Meta hears nothing of it");
    story.terminate("wacid.1", true);
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.line_closes(call);
    let record = story.over(Why::UserHungUp);
    assert_eq!(record.destination, "sip:300@pbx");
    assert!(record.transferred_at.is_some());
}

#[test]
fn an_extension_that_called_out_can_hand_the_user_over_too() {
    let (mut story, call, _) = Story::talking_out();
    let id = story.gateway.view_calls()[0].id.clone();
    story.ask(9, Command::Transfer { id, to: Destination::Sip { user: "300".into(), host: "pbx".into() } });
    assert!(story.answer_to(9).is_ok());
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    let second = story.expect_sip("INVITE sip:300@");
    story.pbx_says(&second, "486 Busy Here", "");
    story.expect_sip("ACK");
    story.graph_agrees("terminate");
    story.lines.retain(|(_, order)| matches!(order, LineOrder::Close));
    story.line_closes(call);
    story.over(Why::FarBusy);
}

#[test]
fn calls_that_a_power_cut_left_behind_are_closed_at_meta_and_in_the_history() {
    let (story, _, _) = Story::talking_out();
    let running: Vec<_> = story.noted.last().cloned().into_iter().collect();
    assert_eq!(running[0].wacid, ID);
    assert!(running[0].answered_at.is_some(), "the last note says how far it came");
    let mut next = Story::with_trunk_up();
    next.tell(Input::Interrupted(running));
    next.graph_agrees("terminate");
    // Meta's own repeat of an old webhook rings nobody.
    next.connect(ID);
    let record = next.over(Why::Interrupted);
    assert_eq!(record.wacid, ID);
}

#[test]
fn a_user_who_takes_consent_back_is_asked_about_again_before_the_next_call() {
    let (mut story, call, _) = Story::ringing_out();
    story.ended_by_meta(ID, false);
    story.expect_sip("SIP/2.0 480");
    story.line_closes(call);
    let user = Callee::parse(USER).unwrap();
    story.ask(1, Command::Permission { number: "support".into(), user: user.clone() });
    story.permitted();
    assert!(matches!(story.answer_to(1), Ok(Answer::Permission(_))));
    story.ask(2, Command::Permission { number: "support".into(), user: user.clone() });
    assert!(matches!(story.answer_to(2), Ok(Answer::Permission(_))), "known for some seconds");
    story.value(
        "messages",
        &format!(
            r#""messages":[{{"from":"{USER}","id":"wamid.1","timestamp":"1","type":"interactive","interactive":{{
            "type":"call_permission_reply","call_permission_reply":{{"response":"reject","response_source":"user_action"}}}}}}]"#
        ),
    );
    assert_eq!(story.consents, 1);
    story.ask(3, Command::Permission { number: "support".into(), user });
    story.expect_question();
}

#[test]
fn a_trunk_that_goes_down_while_meta_is_asked_ends_the_call_at_once_and_no_line_is_left_to_close() {
    let mut story = Story::with_trunk_up();
    story.call_user(1, None);
    let question = story.expect_question();
    story.answers_options = false;
    let local = "192.0.2.2:5060".parse().unwrap();
    story.tell(Input::PeerResolved {
        trunk: "pbx".into(),
        found: vec![Found { way: Way::udp(story.pbx), local }],
    });
    story.graph_says(question, 200, PERMITTED);
    let Err(Refusal::Failed { why, .. }) = story.answer_to(1) else { panic!("not refused") };
    assert_eq!(why, Why::TrunkDown);
    assert!(story.lines.is_empty(), "no line was opened, none is closed: {:?}", story.lines);
    assert_eq!(story.records.len(), 1, "the record does not wait for a line that never was");
    story.over(Why::TrunkDown);
}
