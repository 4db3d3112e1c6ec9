//! Stories of whole calls through the hall: real rooms below, a virtual clock, stand-in wires on every side.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

mod agents;
mod carried;
mod outbound;
mod tapes;
mod trunks;

use super::desk::{Answer, Refusal, Ticket};
use super::{CallKey, Gateway, Input, LineEvent, LineOrder, Output, Settings, WebRtc};
use crate::call::leg::Why;
use crate::call::record::{Quality, Record, Running, Speaker};
use crate::clock::{Now, Wall};
use crate::config::{Config, SystemSecrets};
use crate::sip::{Found, Way};
use crate::whatsapp::graph::{Reply, Request};
use crate::whatsapp::sdp::{Kind, Place};
use crate::whatsapp::webhook;

const CONFIG: &str = r#"
[gateway]
state_dir = "/tmp"
max_calls = 2
drain_seconds = 10
[whatsapp]
app_secret = "s"
access_token = "t"
verify_token = "v"
[[trunk]]
name = "pbx"
server = "sip:192.0.2.10:5060"
username = "gw"
register = false
[[number]]
id = "support"
account_id = "acme"
phone_number_id = "1001"
phone_number = "+15550100100"
forward_to = "sip:200@pbx"
trunk = "pbx"
country_code = "49"
max_call_seconds = 3600
"#;

/// What the keys of SRTP are made of in stories.
const SECRET: super::Secret = super::Secret([7; 32]);

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE audio\r\na=ice-lite\r\n\
m=audio 3480 UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 198.51.100.7\r\n\
a=candidate:1 1 udp 2122260223 198.51.100.7 3480 typ host generation 0 network-cost 50\r\n\
a=ice-ufrag:RmDDkfzkwbexPfbC\r\na=ice-pwd:0123456789abcdef01234567\r\n\
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
a=setup:actpass\r\na=mid:audio\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
a=rtpmap:126 telephone-event/8000\r\na=ptime:20\r\na=ssrc:849255537 cname:WhatsAppAudioStream1\r\n";

const STACK_ANSWER: &str = "v=0\r\no=- 5 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE audio\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 0.0.0.0\r\na=setup:active\r\na=mid:audio\r\n\
a=ice-ufrag:ourufrag\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
a=fingerprint:sha-256 AA:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:7 cname:watrunk\r\na=sendrecv\r\n";

const PBX_SDP: &str = "v=0\r\no=pbx 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 12000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n";

/// The gateway between stand-in wires: what it said is kept until the story asks for it.
struct Story {
    gateway: Gateway,
    now: Now,
    /// Who speaks for the PBX.
    pbx: SocketAddr,
    /// Where each message of `sip` went, and those before.
    went: Vec<SocketAddr>,
    /// Who does not answer OPTIONS.
    dead: Vec<SocketAddr>,
    sip: VecDeque<String>,
    graph: VecDeque<(super::RequestId, Request)>,
    lines: VecDeque<(CallKey, LineOrder)>,
    records: Vec<Record>,
    told: VecDeque<(Ticket, Result<Answer, Refusal>)>,
    noted: Vec<Running>,
    received: usize,
    consents: usize,
    agreed: Vec<crate::call::recording::RecordingPart>,
    mints: Vec<(CallKey, crate::agent::Mint)>,
    spoken: Vec<(Speaker, String)>,
    sought: Vec<String>,
    forgotten: Vec<String>,
    finished: bool,
    write_records: bool,
    answers_options: bool,
}

impl Story {
    fn new() -> Story {
        Story::with(CONFIG)
    }

    fn with(config: &str) -> Story {
        let (config, _) = Config::parse(config, &SystemSecrets::beside("/tmp")).unwrap();
        let now = Now { wall: Wall(1_800_000_000_000), ..Now::default() };
        let pbx: SocketAddr = "192.0.2.10:5060".parse().unwrap();
        let mut story = Story {
            gateway: Gateway::new(Settings::from_config(&config), 42, now),
            now,
            pbx,
            went: Vec::new(),
            dead: Vec::new(),
            sip: VecDeque::new(),
            graph: VecDeque::new(),
            lines: VecDeque::new(),
            records: Vec::new(),
            told: VecDeque::new(),
            noted: Vec::new(),
            received: 0,
            consents: 0,
            agreed: Vec::new(),
            mints: Vec::new(),
            spoken: Vec::new(),
            sought: Vec::new(),
            forgotten: Vec::new(),
            finished: false,
            write_records: true,
            answers_options: false,
        };
        let local = "192.0.2.1:5060".parse().unwrap();
        story.tell(Input::PeerResolved {
            trunk: "pbx".into(),
            found: vec![Found { way: Way::udp(pbx), local }],
        });
        story
    }

    /// A gateway whose trunk answers OPTIONS.
    fn with_trunk_up() -> Story {
        let mut story = Story::new();
        let options = story.expect_sip("OPTIONS");
        story.answers_options = true;
        story.pbx_says(&options, "200 OK", "");
        assert!(story.gateway.ready());
        story
    }

    fn tell(&mut self, input: Input) {
        self.gateway.handle(input, self.now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.gateway.poll() {
            match output {
                Output::Sip { to, bytes } => {
                    let message = String::from_utf8(bytes).unwrap();
                    if message.starts_with("OPTIONS") && self.dead.contains(&to.address) {
                        continue;
                    }
                    if self.answers_options && message.starts_with("OPTIONS") {
                        let spoke = std::mem::replace(&mut self.pbx, to.address);
                        self.pbx_says(&message, "200 OK", "");
                        self.pbx = spoke;
                    } else {
                        self.went.push(to.address);
                        self.sip.push_back(message);
                    }
                }
                Output::Graph { id, request, patience } => {
                    assert!(patience <= Duration::from_secs(30), "a request that waits for ever");
                    self.graph.push_back((id, request));
                }
                Output::Line { call, order } => self.lines.push_back((call, order)),
                Output::Record { call, record } => {
                    self.records.push(*record);
                    if self.write_records {
                        self.gateway.handle(Input::Written { call }, self.now);
                    }
                }
                Output::Find { trunk } => self.sought.push(trunk),
                Output::Forget { trunk } => self.forgotten.push(trunk),
                Output::Told { ticket, answer } => self.told.push_back((ticket, answer)),
                Output::Note { running, received } => {
                    self.received += usize::from(received);
                    self.noted.push(*running);
                }
                Output::Consent { .. } => self.consents += 1,
                Output::Agreed { part, .. } => self.agreed.push(*part),
                Output::Mint { call, mint, .. } => self.mints.push((call, *mint)),
                Output::Spoken { who, text, .. } => self.spoken.push((who, text)),
                Output::Finished => self.finished = true,
            }
        }
    }

    /// Time passes, every deadline on the way is kept.
    fn wait(&mut self, span: Duration) {
        let end = self.now.after(span);
        while let Some(at) = self.gateway.poll_timeout().filter(|at| *at <= end.tick) {
            if at > self.now.tick {
                self.now = self.now.after(at - self.now.tick);
            }
            self.gateway.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
    }

    fn webhook(&mut self, calls: &str) {
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"calls","value":{{
            "messaging_product":"whatsapp","metadata":{{"phone_number_id":"1001"}},
            "contacts":[{{"wa_id":"4915112345678","profile":{{"name":"Ada"}},"user_id":"DE.99"}}],
            "calls":[{calls}]}}}}]}}]}}"#
        );
        let notices = webhook::read(body.as_bytes()).unwrap();
        self.tell(Input::Notices(notices));
    }

    fn connect(&mut self, wacid: &str) {
        self.connect_with(wacid, OFFER);
    }

    fn connect_with(&mut self, wacid: &str, sdp: &str) {
        let sdp = serde_json::to_string(sdp).unwrap();
        let stamp = self.now.wall.unix_seconds();
        self.webhook(&format!(
            r#"{{"id":"{wacid}","event":"connect","direction":"USER_INITIATED","from":"4915112345678",
            "from_user_id":"DE.99","to":"15550100100","timestamp":"{stamp}","deeplink_payload":"shoes",
            "session":{{"sdp_type":"offer","sdp":{sdp}}}}}"#
        ));
    }

    fn terminate(&mut self, wacid: &str, answered: bool) {
        let stamp = self.now.wall.unix_seconds();
        let times = if answered { r#","start_time":"1","end_time":"2","duration":1"# } else { "" };
        self.webhook(&format!(
            r#"{{"id":"{wacid}","event":"terminate","direction":"USER_INITIATED","timestamp":"{stamp}",
            "status":"COMPLETED"{times}}}"#
        ));
    }

    fn line_opens(&mut self) -> CallKey {
        self.line_opens_at("192.0.2.1:20000")
    }

    fn line_opens_at(&mut self, rtp: &str) -> CallKey {
        let (call, order) = self.lines.pop_front().expect("a line order");
        let LineOrder::Open(setup) = order else { panic!("{order:?}") };
        let WebRtc::Answer { offer, opus_pt, dtmf_pt, .. } = &setup.webrtc else { panic!("{setup:?}") };
        assert_eq!((*opus_pt, *dtmf_pt), (111, Some(126)));
        assert!(offer.contains("a=ice-lite"));
        let places = vec![Place { ip: "203.0.113.7".parse().unwrap(), port: 40_000, kind: Kind::Host }];
        let rtp = rtp.parse().unwrap();
        let event = LineEvent::Opened { described: STACK_ANSWER.into(), places, rtp, secret: SECRET };
        self.tell(Input::Line { call, event });
        call
    }

    fn line_closes(&mut self, call: CallKey) {
        let order = self.lines.pop_front().expect("an order to close the line");
        assert!(matches!(order, (key, LineOrder::Close) if key == call), "{order:?}");
        let quality = Quality { received: 100, sent: 90, mos: 4.1, ..Quality::default() };
        let event = LineEvent::Closed { whatsapp: quality, far: quality };
        self.tell(Input::Line { call, event });
    }

    fn expect_sip(&mut self, method: &str) -> String {
        let message = self.sip.pop_front().unwrap_or_else(|| panic!("{method} was expected"));
        assert!(message.starts_with(method), "{method} was expected, not {message}");
        message
    }

    fn expect_graph(&mut self, action: &str) -> (super::RequestId, String) {
        let (id, request) = self.graph.pop_front().unwrap_or_else(|| panic!("{action} was expected"));
        assert_eq!(request.path, "1001/calls");
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(body["action"], action, "{}", request.body);
        (id, request.body)
    }

    fn graph_says(&mut self, request: super::RequestId, status: u16, body: &str) {
        let reply = Reply::Http { status, retry_after: None, body: body.as_bytes().to_vec() };
        self.tell(Input::GraphReplied { request, reply });
    }

    fn graph_agrees(&mut self, action: &str) -> String {
        let (id, body) = self.expect_graph(action);
        self.graph_says(id, 200, r#"{"messaging_product":"whatsapp","success":true}"#);
        body
    }

    /// The PBX answers a request: the headers that an answer repeats are copied.
    fn pbx_says(&mut self, request: &str, status: &str, sdp: &str) {
        let mut answer = format!("SIP/2.0 {status}\r\n");
        for line in request.lines().take_while(|line| !line.is_empty()) {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            match name.as_str() {
                "via" | "from" | "call-id" | "cseq" => answer += &format!("{line}\r\n"),
                "to" if line.contains(";tag=") || status.starts_with("100") => {
                    answer += &format!("{line}\r\n")
                }
                "to" => answer += &format!("{line};tag=pbx1\r\n"),
                _ => {}
            }
        }
        answer += "Contact: <sip:200@192.0.2.10:5060>\r\n";
        if !sdp.is_empty() {
            answer += "Content-Type: application/sdp\r\n";
        }
        answer += &format!("Content-Length: {}\r\n\r\n{sdp}", sdp.len());
        let from = Way::udp(self.pbx);
        self.tell(Input::Sip { from, bytes: answer.into_bytes() });
    }

    /// The PBX hangs up: a BYE in the dialog of this INVITE.
    fn pbx_hangs_up(&mut self, invite: &str) {
        let find = |name: &str| {
            let prefix = format!("{name}: ");
            invite.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
        };
        let bye = format!(
            "BYE sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKbye1\r\n\
             From: {};tag=pbx1\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 7 BYE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            find("To"),
            find("From"),
            find("Call-ID")
        );
        let from = Way::udp(self.pbx);
        self.tell(Input::Sip { from, bytes: bye.into_bytes() });
        assert!(self.sip.pop_front().expect("an answer to BYE").starts_with("SIP/2.0 200"));
    }

    /// A call up to the ringing of the PBX: pre_accept taken, INVITE out.
    fn ringing(wacid: &str) -> (Story, CallKey, String) {
        let mut story = Story::with_trunk_up();
        story.connect(wacid);
        let call = story.line_opens();
        story.graph_agrees("pre_accept");
        let invite = story.expect_sip("INVITE");
        story.pbx_says(&invite, "100 Trying", "");
        story.pbx_says(&invite, "180 Ringing", "");
        (story, call, invite)
    }

    /// A call up to both talking.
    fn talking(wacid: &str) -> (Story, CallKey, String) {
        let (mut story, call, invite) = Story::ringing(wacid);
        story.wait(Duration::from_secs(5));
        story.pbx_says(&invite, "200 OK", PBX_SDP);
        story.expect_sip("ACK");
        let far = story.lines.pop_front().unwrap();
        assert!(matches!(far.1, LineOrder::Far(_)), "{far:?}");
        assert!(story.lines.is_empty(), "the gate stays shut until Meta has confirmed");
        story.graph_agrees("accept");
        assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::OpenGate { early: false }))));
        assert_eq!(story.gateway.view_calls()[0].state, "talking");
        (story, call, invite)
    }

    /// Everything is over: one record, nothing left.
    fn over(mut self, why: Why) -> Record {
        // Late repeats and transactions run out without another word to anybody.
        self.wait(Duration::from_secs(70));
        assert_eq!(self.gateway.view_calls(), [], "a call is left");
        assert!(self.graph.is_empty(), "{:?}", self.graph);
        assert!(self.lines.is_empty(), "{:?}", self.lines);
        assert_eq!(self.records.len(), 1, "{:?}", self.records);
        let record = self.records.remove(0);
        assert_eq!(record.why, why, "{record:?}");
        record
    }
}

#[test]
fn a_whatsapp_user_calls_the_pbx_answers_they_talk_and_the_user_hangs_up() {
    let (mut story, call, invite) = Story::talking("wacid.1");
    for expected in [
        "INVITE sip:200@192.0.2.10",
        "\"Ada\" <sip:+4915112345678@",
        "X-WhatsApp-Call-ID: wacid.1\r\n",
        "X-WhatsApp-User-ID: DE.99\r\n",
        "X-WhatsApp-Payload: shoes\r\n",
        "P-Asserted-Identity: ",
        "c=IN IP4 192.0.2.1\r\n",
        "m=audio 20000 RTP/AVP ",
    ] {
        assert!(invite.contains(expected), "{expected} is missing in {invite}");
    }
    story.wait(Duration::from_secs(60));
    story.terminate("wacid.1", true);
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.line_closes(call);
    let record = story.over(Why::UserHungUp);
    assert_eq!(record.talk_seconds, 60.0);
    assert!(record.answered());
    assert_eq!(record.from, "+4915112345678");
    assert_eq!(record.to, "+15550100100");
    assert_eq!(record.destination, "sip:200@pbx");
    assert_eq!(record.profile_name.as_deref(), Some("Ada"));
    assert_eq!(record.whatsapp.received, 100);
}

#[test]
fn accept_repeats_the_very_answer_of_pre_accept() {
    let mut story = Story::with_trunk_up();
    story.connect("wacid.1");
    story.line_opens();
    let pre_accept = story.graph_agrees("pre_accept");
    let invite = story.expect_sip("INVITE");
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    let accept = story.graph_agrees("accept");
    let sdp = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap()["session"].clone();
    assert_eq!(sdp(&pre_accept), sdp(&accept));
    let text = sdp(&accept)["sdp"].as_str().unwrap().to_owned();
    assert!(text.contains("203.0.113.7 40000"), "the public address is in the candidates: {text}");
    assert_eq!(sdp(&accept)["sdp_type"], "answer");
}

#[test]
fn the_agent_hangs_up_and_meta_is_told_to_terminate() {
    let (mut story, call, invite) = Story::talking("wacid.1");
    story.pbx_hangs_up(&invite);
    story.graph_agrees("terminate");
    story.terminate("wacid.1", true);
    story.line_closes(call);
    assert_eq!(story.over(Why::FarHungUp).meta_code, None);
}

#[test]
fn the_pbx_refuses_and_meta_is_told_to_terminate_because_it_was_pre_accepted() {
    for (status, why) in [
        ("486 Busy Here", Why::FarBusy),
        ("600 Busy Everywhere", Why::FarBusy),
        ("603 Decline", Why::FarDeclined),
        ("480 Temporarily Unavailable", Why::FarNoAnswer),
        ("404 Not Found", Why::FarUnreachable),
        ("503 Service Unavailable", Why::FarUnreachable),
    ] {
        let (mut story, call, invite) = Story::ringing("wacid.1");
        story.pbx_says(&invite, status, "");
        story.expect_sip("ACK");
        story.graph_agrees("terminate");
        story.line_closes(call);
        let record = story.over(why);
        assert_eq!(record.sip_code, status[..3].parse().ok(), "{record:?}");
        assert!(!record.answered());
        assert!(record.detail.contains(&status[..3]), "{}", record.detail);
    }
}

#[test]
fn nobody_answers_at_the_pbx_and_the_invite_is_cancelled() {
    let (mut story, call, invite) = Story::ringing("wacid.1");
    story.wait(Duration::from_secs(60));
    let cancel = story.expect_sip("CANCEL");
    story.pbx_says(&cancel, "200 OK", "");
    story.pbx_says(&invite, "487 Request Terminated", "");
    story.expect_sip("ACK");
    story.graph_agrees("terminate");
    story.line_closes(call);
    story.over(Why::FarNoAnswer);
}

#[test]
fn the_caller_gives_up_while_it_rings_and_the_pbx_hears_cancel() {
    let (mut story, call, invite) = Story::ringing("wacid.1");
    story.terminate("wacid.1", false);
    let cancel = story.expect_sip("CANCEL");
    story.pbx_says(&cancel, "200 OK", "");
    story.pbx_says(&invite, "487 Request Terminated", "");
    story.expect_sip("ACK");
    story.line_closes(call);
    let record = story.over(Why::UserGaveUp);
    assert_eq!(record.talk_seconds, 0.0);
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_hung_up() {
    let (mut story, call, invite) = Story::ringing("wacid.1");
    story.terminate("wacid.1", false);
    let cancel = story.expect_sip("CANCEL");
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    story.pbx_says(&cancel, "481 Call/Transaction Does Not Exist", "");
    story.expect_sip("ACK");
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.line_closes(call);
    story.over(Why::UserGaveUp);
}

#[test]
fn a_trunk_that_is_down_rejects_the_call_at_once() {
    let mut story = Story::new();
    story.sip.clear();
    story.connect("wacid.1");
    story.graph_agrees("reject");
    let record = story.over(Why::TrunkDown);
    assert!(!record.answered());
}

#[test]
fn graph_refusing_pre_accept_cancels_the_pbx() {
    let mut story = Story::with_trunk_up();
    story.connect("wacid.1");
    let call = story.line_opens();
    let invite = story.expect_sip("INVITE");
    story.pbx_says(&invite, "180 Ringing", "");
    let (id, _) = story.expect_graph("pre_accept");
    story.graph_says(
        id,
        400,
        r#"{"error":{"message":"SDP Validation error","type":"x","code":138008,"fbtrace_id":"f"}}"#,
    );
    let cancel = story.expect_sip("CANCEL");
    story.pbx_says(&cancel, "200 OK", "");
    story.pbx_says(&invite, "487 Request Terminated", "");
    story.expect_sip("ACK");
    story.wait(Duration::from_millis(100));
    let (id, body) = story.graph.pop_front().map(|(id, request)| (id, request.body)).expect("Meta is told");
    assert!(body.contains("reject") || body.contains("terminate"), "{body}");
    story.graph_says(id, 200, r#"{"success":true}"#);
    story.line_closes(call);
    let record = story.over(Why::GraphRefused);
    assert_eq!(record.meta_code, Some(138_008));
    assert!(record.detail.contains("SDP Validation"), "{}", record.detail);
}

#[test]
fn graph_refusing_accept_hangs_up_at_the_pbx() {
    let (mut story, call, invite) = Story::ringing("wacid.1");
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    story.expect_sip("ACK");
    story.lines.pop_front();
    let (id, _) = story.expect_graph("accept");
    story.graph_says(id, 400, r#"{"error":{"message":"no","type":"x","code":100,"fbtrace_id":"f"}}"#);
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::GraphRefused);
    assert!(!record.answered(), "nobody ever talked");
}

#[test]
fn silence_and_lost_media_end_the_call_on_both_legs() {
    for (event, why) in [
        (LineEvent::UserSilent, Why::UserSilent),
        (LineEvent::FarSilent, Why::FarSilent),
        (LineEvent::Lost("ICE failed"), Why::MediaFailed),
    ] {
        let (mut story, call, _) = Story::talking("wacid.1");
        story.tell(Input::Line { call, event });
        let bye = story.expect_sip("BYE");
        story.pbx_says(&bye, "200 OK", "");
        story.graph_agrees("terminate");
        story.line_closes(call);
        story.over(why);
    }
}

#[test]
fn a_pause_of_the_pbx_ends_nothing_but_has_the_trunk_asked() {
    let (mut story, call, _) = Story::talking("wacid.1");
    story.wait(Duration::from_secs(10));
    story.sip.clear();
    story.answers_options = false;
    story.tell(Input::Line { call, event: LineEvent::FarPauses });
    story.expect_sip("OPTIONS");
    story.wait(Duration::from_secs(4));
    assert!(!story.gateway.ready(), "no answer: the trunk is down");
    assert_eq!(story.gateway.view_calls().len(), 1, "the call may live all the same");
}

#[test]
fn a_line_that_dies_of_a_bug_ends_its_call_and_no_other() {
    let (mut story, call, _) = Story::talking("wacid.1");
    story.connect("wacid.2");
    let other = story.line_opens();
    assert_ne!(call, other);
    story.graph_agrees("pre_accept");
    story.expect_sip("INVITE");
    story.tell(Input::Line { call, event: LineEvent::Fault("panicked".into()) });
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.graph_agrees("terminate");
    assert_eq!(story.records.len(), 1);
    assert_eq!(story.records[0].why, Why::Fault);
    assert_eq!(story.gateway.view_calls().len(), 1, "the other call lives");
}

#[test]
fn a_call_above_max_calls_is_rejected_and_the_running_ones_go_on() {
    let (mut story, _, _) = Story::talking("wacid.1");
    story.connect("wacid.2");
    story.line_opens();
    story.graph_agrees("pre_accept");
    story.expect_sip("INVITE");
    story.connect("wacid.3");
    story.graph_agrees("reject");
    assert_eq!(story.records.len(), 1);
    assert_eq!(story.records[0].why, Why::OverLimit);
    assert_eq!(story.gateway.view_calls().len(), 2);
}

#[test]
fn a_call_ends_at_max_call_seconds() {
    let (mut story, call, _) = Story::talking("wacid.1");
    story.wait(Duration::from_secs(3_599));
    assert!(story.sip.is_empty(), "{:?}", story.sip);
    story.wait(Duration::from_secs(2));
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::TooLong);
    assert_eq!(record.talk_seconds, 3_600.0);
}

#[test]
fn draining_lets_a_call_finish_refuses_new_ones_and_then_hangs_up() {
    let (mut story, call, _) = Story::talking("wacid.1");
    story.tell(Input::Drain);
    assert!(!story.gateway.ready());
    story.connect("wacid.2");
    story.graph_agrees("reject");
    story.wait(Duration::from_secs(9));
    assert_eq!(story.gateway.view_calls().len(), 1, "the running call may go on");
    story.wait(Duration::from_secs(1));
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.graph_agrees("terminate");
    story.line_closes(call);
    story.wait(Duration::from_secs(5));
    assert!(story.finished);
    let reasons: Vec<Why> = story.records.iter().map(|record| record.why).collect();
    assert_eq!(reasons, [Why::Draining, Why::Draining]);
}

#[test]
fn draining_an_idle_gateway_finishes_at_once() {
    let mut story = Story::with_trunk_up();
    story.tell(Input::Drain);
    story.wait(Duration::from_secs(3));
    assert!(story.finished);
}

#[test]
fn a_terminate_that_comes_before_its_connect_rings_nobody() {
    let mut story = Story::with_trunk_up();
    story.terminate("wacid.1", false);
    story.connect("wacid.1");
    assert!(story.lines.is_empty() && story.graph.is_empty() && story.sip.is_empty());
    assert_eq!(story.gateway.view_calls(), []);
}

#[test]
fn a_connect_that_is_delivered_twice_rings_once() {
    let mut story = Story::with_trunk_up();
    story.connect("wacid.1");
    story.connect("wacid.1");
    assert_eq!(story.lines.len(), 1);
    assert_eq!(story.gateway.view_calls().len(), 1);
}

#[test]
fn a_caller_who_gives_up_before_the_line_is_open_leaves_a_record_and_no_ringing() {
    let mut story = Story::with_trunk_up();
    story.connect("wacid.1");
    let (call, _) = story.lines.pop_front().unwrap();
    story.terminate("wacid.1", false);
    assert!(story.graph.is_empty(), "{:?}", story.graph);
    story.line_closes(call);
    assert!(story.sip.is_empty());
    story.over(Why::UserGaveUp);
}

#[test]
fn an_offer_that_cannot_be_answered_is_rejected_with_a_reason() {
    for (offer, word) in [
        (OFFER.replace("opus/48000/2", "PCMA/8000"), "Opus"),
        (OFFER.replace("a=fingerprint:sha-256", "a=x"), "fingerprint"),
        (format!("{OFFER}m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"), "several m= lines"),
        ("not SDP at all".to_owned(), ""),
    ] {
        let mut story = Story::with_trunk_up();
        story.connect_with("wacid.1", &offer);
        story.graph_agrees("reject");
        let record = story.over(Why::BadOffer);
        assert!(record.detail.to_lowercase().contains(&word.to_lowercase()), "{}", record.detail);
    }
}

#[test]
fn a_line_that_cannot_open_rejects_the_call() {
    let mut story = Story::with_trunk_up();
    story.connect("wacid.1");
    let (call, _) = story.lines.pop_front().unwrap();
    let event = LineEvent::OpenFailed("no free pair of ports in rtp_ports".into());
    story.tell(Input::Line { call, event });
    story.graph_agrees("reject");
    let record = story.over(Why::MediaFailed);
    assert!(record.detail.contains("rtp_ports"));
}

#[test]
fn a_silent_graph_is_asked_again_and_the_call_still_ends() {
    let (mut story, call, invite) = Story::talking("wacid.1");
    story.pbx_hangs_up(&invite);
    story.line_closes(call);
    let mut asked = 0;
    for _ in 0..200 {
        while let Some((request, _)) = story.graph.pop_front() {
            asked += 1;
            story.tell(Input::GraphReplied { request, reply: Reply::Timeout });
        }
        story.wait(Duration::from_millis(500));
    }
    assert!((2..=10).contains(&asked), "asked {asked} times");
    story.over(Why::FarHungUp);
}

#[test]
fn a_call_is_not_forgotten_before_its_record_is_written() {
    let (mut story, call, invite) = Story::talking("wacid.1");
    story.write_records = false;
    story.pbx_hangs_up(&invite);
    story.graph_agrees("terminate");
    story.line_closes(call);
    assert_eq!(story.records.len(), 1);
    assert_eq!(story.gateway.view_calls()[0].state, "over");
    story.tell(Input::Written { call });
    assert_eq!(story.gateway.view_calls(), []);
}

#[test]
fn a_sound_thread_that_never_says_goodbye_does_not_keep_the_call() {
    let (mut story, _, invite) = Story::talking("wacid.1");
    story.pbx_hangs_up(&invite);
    story.graph_agrees("terminate");
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Close))));
    story.over(Why::FarHungUp);
}

#[test]
fn a_destination_that_is_new_in_the_file_is_looked_up_without_a_restart() {
    let mut story = Story::with_trunk_up();
    let text = CONFIG.replace("sip:200@pbx", "sip:agents@198.51.100.20");
    let (config, _) = Config::parse(&text, &SystemSecrets::beside("/tmp")).unwrap();
    story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
    assert_eq!(story.sought, ["198.51.100.20"]);
    assert_eq!(story.gateway.view_trunks().len(), 2, "the old one goes on");
    story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
    assert_eq!(story.sought.len(), 1, "once");
}

#[test]
fn an_operator_can_end_a_call_by_its_id() {
    let (mut story, call, _) = Story::talking("wacid.1");
    let id = story.gateway.view_calls()[0].id.clone();
    story.tell(Input::Asked { ticket: Ticket(1), command: super::desk::Command::HangUp { id } });
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.graph_agrees("terminate");
    story.line_closes(call);
    story.over(Why::Operator);
}

#[test]
fn a_hold_by_the_pbx_reaches_the_line_and_nothing_is_told_to_meta() {
    let (mut story, _, invite) = Story::talking("wacid.1");
    let find = |name: &str| {
        let prefix = format!("{name}: ");
        invite.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
    };
    let sdp = PBX_SDP.to_owned() + "a=sendonly\r\n";
    let reinvite = format!(
        "INVITE sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKre1\r\n\
         From: {};tag=pbx1\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 9 INVITE\r\nContact: <sip:200@192.0.2.10:5060>\r\n\
         Max-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        find("To"),
        find("From"),
        find("Call-ID"),
        sdp.len()
    );
    let from = Way::udp(story.pbx);
    story.tell(Input::Sip { from, bytes: reinvite.into_bytes() });
    let answer = story.sip.pop_front().expect("an answer to the re-INVITE");
    assert!(answer.starts_with("SIP/2.0 200") && answer.contains("a=recvonly"), "{answer}");
    match story.lines.pop_front() {
        Some((_, LineOrder::Far(super::FarSound { media, .. }))) => {
            assert!(!media.sends, "the PBX does not want our sound")
        }
        other => panic!("{other:?}"),
    }
    assert!(story.graph.is_empty());
}
