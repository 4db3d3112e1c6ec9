//! Stories under a virtual clock: the user agent on one side, a PBX played by hand on the other.

mod described;
mod digits;
mod duo;
mod fuzz;
mod identity;
mod invite;
mod modify;
mod places;
mod proof;
mod redirect;
mod refer;
mod register;
mod reliable;
mod reload;
mod serve;
mod strict;
mod table;
mod take;
mod taken;
mod tcp;
mod timer;
mod torture;

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::clock::Wall;

pub(super) const PBX: &str = "192.0.2.1:5060";
pub(super) const US: &str = "192.0.2.7:5060";

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn found(peer: &str, local: &str) -> Found {
    Found { way: udp(peer), local: addr(local) }
}

pub(super) fn udp(text: &str) -> Way {
    Way::udp(addr(text))
}

pub(super) fn tcp(text: &str) -> Way {
    Way { transport: Transport::Tcp, address: addr(text) }
}

pub(super) fn tls(text: &str) -> Way {
    Way { transport: Transport::Tls, address: addr(text) }
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A message that left, when and where to.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub at: u64,
    pub to: Way,
    pub text: String,
}

impl Sent {
    /// The first word of the first line; for answers the status.
    pub fn what(&self) -> &str {
        let mut words = self.text.split(' ');
        match words.next().unwrap() {
            "SIP/2.0" => words.next().unwrap(),
            method => method,
        }
    }

    pub fn has(&self, part: &str) -> bool {
        self.text.contains(part)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        self.text
            .split("\r\n")
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    pub fn tag(&self, name: &str) -> String {
        self.header(name).split(";tag=").nth(1).unwrap_or_default().to_owned()
    }

    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").unwrap().1
    }

    pub fn branch(&self) -> &str {
        self.header("Via").split("branch=").nth(1).unwrap().split(';').next().unwrap()
    }
}

/// The user agent, its clock, and what it said.
pub(super) struct Lab {
    pub ua: UserAgent,
    pub now: Now,
    pub sent: Vec<Sent>,
    pub events: Vec<Event>,
    /// The PBX answers our OPTIONS by itself, and nobody sees them.
    pub alive: bool,
}

pub(super) fn trunk(register: bool) -> TrunkSettings {
    TrunkSettings {
        name: "pbx".into(),
        server_uri: "sip:pbx.example:5060".into(),
        username: "gw".into(),
        password: Some("gw-secret".into()),
        register,
        expires: Duration::from_secs(300),
        found: vec![found(PBX, US)],
        allow: vec!["192.0.2.64/28".parse().unwrap()],
        ..TrunkSettings::default()
    }
}

pub(super) fn offer() -> String {
    sdp::offer(&sdp::LocalMedia {
        rtp: addr("192.0.2.7:20000"),
        session: 42,
        version: 1,
        codecs: vec![sdp::Codec::Pcma, sdp::Codec::Pcmu],
        dtmf: true,
        srtp: sdp::SrtpPolicy::Off,
        secret: [0; 32],
    })
}

pub(super) const THEIRS: &str = "v=0\r\no=- 5 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=audio 10000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

pub(super) fn dial() -> Dial {
    Dial {
        trunk: "pbx".into(),
        user: "200".into(),
        host: None,
        from_user: "+15550100".into(),
        from_name: Some("Ann \"A\" <x>\r\nEvil: 1".into()),
        asserted: true,
        headers: vec![
            ("X-WhatsApp-Call-ID".into(), "wacid.1\r\nEvil: 2".into()),
            ("Via".into(), "evil".into()),
        ],
        sdp: offer(),
        credentials: None,
        patience: None,
        replaces: None,
        referred_by: None,
        privacy: false,
    }
}

impl Lab {
    pub fn new(settings: Settings) -> Lab {
        let now = Now { tick: Tick::from_millis(1_000_000), wall: Wall(1_700_000_000_000) };
        Lab { ua: UserAgent::new(settings), now, sent: vec![], events: vec![], alive: false }
    }

    /// One trunk that registers; its first REGISTER is out.
    pub fn registering() -> Lab {
        let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
        lab.ua.add_trunk(trunk(true), lab.now);
        lab.drain();
        lab
    }

    /// One trunk by OPTIONS that is up.
    pub fn up() -> Lab {
        Lab::up_with(Settings { seed: 7, ..Settings::default() })
    }

    pub fn up_with(settings: Settings) -> Lab {
        let mut lab = Lab::new(settings);
        lab.ua.add_trunk(trunk(false), lab.now);
        lab.drain();
        let options = lab.take("OPTIONS");
        lab.answer(&options, "200 OK", "", "");
        lab.events.clear();
        lab
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.ua.poll() {
            match output {
                Output::Transmit { to, bytes } => self.sent.push(Sent {
                    at: self.now.tick.as_millis() - 1_000_000,
                    to,
                    text: String::from_utf8(bytes).unwrap(),
                }),
                Output::Event(event) => self.events.push(event),
            }
        }
        while let Some(at) = self.sent.iter().position(|sent| self.alive && sent.what() == "OPTIONS") {
            let ping = self.sent.remove(at);
            self.answer(&ping, "200 OK", "", "");
        }
    }

    /// Lets time pass, stopping wherever something is due.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        for _ in 0..100_000 {
            match self.ua.poll_timeout() {
                Some(due) if due <= end.tick => {
                    self.now = self.now.after(due.since(self.now.tick));
                    self.ua.handle_timeout(self.now);
                    self.drain();
                }
                Some(_) | None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("time stands still");
    }

    /// Lets time pass until the next thing is due.
    pub fn pass_on(&mut self) {
        self.pass(self.ua.poll_timeout().unwrap().since(self.now.tick));
    }

    /// Lets time pass until something is sent.
    pub fn wait(&mut self) {
        for _ in 0..1_000 {
            if !self.sent.is_empty() {
                return;
            }
            self.pass_on();
        }
        panic!("nothing is ever sent");
    }

    pub fn receive(&mut self, text: &str) {
        self.receive_from(text.as_bytes(), PBX);
    }

    pub fn receive_from(&mut self, bytes: &[u8], from: &str) {
        self.ua.receive(bytes, udp(from), self.now);
        self.drain();
    }

    /// Answers a request of ours as the PBX.
    pub fn answer(&mut self, request: &Sent, status: &str, headers: &str, body: &str) {
        let to = request.header("To");
        let to = if to.contains(";tag=") || status.starts_with("100") {
            to.into()
        } else {
            format!("{to};tag=pbx1")
        };
        self.answer_as(request, status, &to, headers, body);
    }

    /// The same with another To: another fork.
    pub fn answer_as(&mut self, request: &Sent, status: &str, to: &str, headers: &str, body: &str) {
        let via = request.header("Via").replace(";rport", ";rport=1024;received=198.51.100.7");
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "SIP/2.0 {status}\r\nVia: {via}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n{headers}{kind}\
             Content-Length: {}\r\n\r\n{body}",
            request.header("From"),
            request.header("Call-ID"),
            request.header("CSeq"),
            body.len()
        );
        self.ua.receive(text.as_bytes(), request.to, self.now);
        self.drain();
    }

    /// The only message that was sent since the last look; it must be of that kind.
    pub fn take(&mut self, what: &str) -> Sent {
        let all = std::mem::take(&mut self.sent);
        let [one] = all.as_slice() else { panic!("not one {what} but {all:#?}") };
        assert_eq!(one.what(), what, "{}", one.text);
        one.clone()
    }

    /// The first of that kind among those that were sent; the others are forgotten.
    pub fn find(&mut self, what: &str) -> Sent {
        let all = std::mem::take(&mut self.sent);
        all.iter()
            .find(|sent| sent.what() == what)
            .cloned()
            .unwrap_or_else(|| panic!("no {what} in {all:#?}"))
    }

    pub fn sent_kinds(&mut self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.sent).iter().map(|sent| (sent.at, sent.what().to_owned())).collect()
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The one ending that was told.
    pub fn ending(&mut self) -> Ending {
        let events = self.take_events();
        let endings: Vec<&Ending> = events
            .iter()
            .filter_map(|event| match event {
                Event::Ended { ending, .. } => Some(ending),
                _ => None,
            })
            .collect();
        let [one] = endings.as_slice() else { panic!("not one ending: {events:?}") };
        (*one).clone()
    }

    pub fn no_event(&mut self) {
        assert_eq!(self.take_events(), vec![]);
    }

    /// Dials and gives the INVITE.
    pub fn dialled(&mut self) -> Sent {
        self.ua.dial(LegId(1), dial(), self.now).unwrap();
        self.drain();
        self.take("INVITE")
    }

    /// A call that was answered: the INVITE and its ACK.
    pub fn talking(&mut self) -> (Sent, Sent) {
        let invite = self.dialled();
        self.answer(&invite, "200 OK", "Contact: <sip:200@192.0.2.1:5062>\r\n", THEIRS);
        let ack = self.take("ACK");
        assert!(matches!(self.take_events().as_slice(), [Event::Answered { leg: LegId(1), .. }]));
        (invite, ack)
    }

    /// A request of the PBX in that call.
    pub fn ask(&mut self, invite: &Sent, method: &str, cseq: u32, headers: &str, body: &str) {
        let kind = if body.is_empty() || headers.contains("Content-Type") {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        let text = format!(
            "{method} sip:gw@{US} SIP/2.0\r\nVia: SIP/2.0/UDP {PBX};rport;branch=z9hG4bKpbx{method}{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: {};tag=pbx1\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n{headers}{kind}\
             Content-Length: {}\r\n\r\n{body}",
            invite.header("To"),
            invite.header("From"),
            invite.header("Call-ID"),
            body.len()
        );
        self.receive(&text);
    }
    /// The PBX calls for the `count`th time, with that request URI.
    pub fn invite(&mut self, count: u32, uri: &str, headers: &str, body: &str) {
        let text = format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {PBX};rport;branch=z9hG4bKin{count}\r\nMax-Forwards: 70\r\n\
             From: \"Bob\" <sip:200@pbx.example>;tag=pbx{count}\r\nTo: <{uri}>\r\nCall-ID: in{count}@pbx\r\n\
             CSeq: 7 INVITE\r\n{headers}{}Content-Length: {}\r\n\r\n{body}",
            kind(headers, body),
            body.len()
        );
        self.receive(&text);
    }

    /// The PBX calls for the `count`th time; gives the leg.
    pub fn called(&mut self, count: u32, body: &str) -> LegId {
        self.invite(count, CALLEE, "Contact: <sip:200@192.0.2.1:5062>\r\n", body);
        assert_eq!(self.take("100").tag("To"), "");
        match self.take_events().as_slice() {
            [Event::Invited { leg, .. }] => *leg,
            other => panic!("not one Invited: {other:?}"),
        }
    }

    /// A call of the PBX that stands; gives our 200.
    pub fn taken(&mut self) -> Sent {
        let leg = self.called(1, THEIRS);
        self.ua.answer(leg, answer(), self.now);
        self.drain();
        let answer = self.take("200");
        self.ask_in(&answer, "ACK", 7, "", "");
        assert_eq!(
            self.take_events(),
            [Event::Answered { leg, ours: answer.body().into(), theirs: THEIRS.into() }]
        );
        answer
    }

    /// A request of the PBX in the call that `answer` of ours belongs to.
    pub fn ask_in(&mut self, answer: &Sent, method: &str, cseq: u32, headers: &str, body: &str) {
        let call_id = answer.header("Call-ID");
        let text = format!(
            "{method} sip:gw@{US} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {PBX};rport;branch=z9hG4bK{}{method}{cseq}\r\nMax-Forwards: 70\r\n\
             From: {}\r\nTo: {}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{headers}{}\
             Content-Length: {}\r\n\r\n{body}",
            call_id.replace('@', "."),
            answer.header("From"),
            answer.header("To"),
            kind(headers, body),
            body.len()
        );
        self.receive(&text);
    }

    /// CANCEL of the PBX's `count`th call, or ACK of its refusal: with the INVITE's own branch.
    pub fn ask_hop(&mut self, count: u32, method: &str, headers: &str) {
        let text = format!(
            "{method} {CALLEE} SIP/2.0\r\nVia: SIP/2.0/UDP {PBX};rport;branch=z9hG4bKin{count}\r\nMax-Forwards: 70\r\n\
             From: \"Bob\" <sip:200@pbx.example>;tag=pbx{count}\r\nTo: <{CALLEE}>\r\nCall-ID: in{count}@pbx\r\n\
             CSeq: 7 {method}\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        self.receive(&text);
    }

    /// Refuses every call of the PBX that has been told; none of these events is left.
    pub fn refuse_all(&mut self, code: u16) {
        for event in self.take_events() {
            let Event::Invited { leg, .. } = event else { panic!("{event:?}") };
            self.ua.refuse(leg, Refusal { code, warning: None, retry_after: None }, self.now);
            self.drain();
            assert_eq!(self.ending().code, Some(code));
        }
    }

    pub fn ring(&mut self, leg: LegId) {
        self.ua.ring(leg, self.now);
        self.drain();
    }

    pub fn pick_up(&mut self, leg: LegId, sdp: String) {
        self.ua.answer(leg, sdp, self.now);
        self.drain();
    }

    pub fn leave(&mut self, leg: LegId, code: Option<u16>, text: &'static str) {
        self.ua.hang_up(leg, Cause { code, text }, self.now);
        self.drain();
    }
}

/// Whom the PBX calls.
pub(super) const CALLEE: &str = "sip:+4915112345678@gateway.example";

/// Our answer to `THEIRS`.
pub(super) fn answer() -> String {
    sdp::reply(&offer(), THEIRS.as_bytes(), 1).unwrap()
}

fn kind(headers: &str, body: &str) -> &'static str {
    if body.is_empty() || headers.contains("Content-Type") { "" } else { "Content-Type: application/sdp\r\n" }
}
