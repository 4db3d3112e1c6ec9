//! The stand-in for a PBX: a registrar that asks for a password, and one telephone that is picked up or dials.

use std::net::SocketAddr;
use std::time::Duration;

use md5::{Digest, Md5};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::ladder::{Ladder, Lane};
use super::measure::{Ear, RATE, Track};
use super::message::{Message, parameter, request};
use super::tone::{Bursts, Mouth};
use super::{Event, Events, FRAME, FRAME_TIME, cloud, tell};
use crate::clock::Tick;
use crate::io::{clock, random};
use crate::media::{g711, rtp};

/// The account.
pub(super) const USER: &str = "watrunk";
const REALM: &str = "demo-pbx";
/// The telephone that is called, or that calls.
pub(super) const EXTENSION: &str = "200";

/// The telephone rings this long.
const RINGING: Duration = Duration::from_millis(1_000);
/// What is not confirmed is sent again (RFC 3261 T1).
const AGAIN: Duration = Duration::from_millis(500);

/// What the person at the PBX says: a while after picking up, so that nothing is cut off.
pub(super) const VOICE: Bursts =
    Bursts { hz: 1_000.0, dbfs: -15.0, lead_ms: 600, on_ms: 420, off_ms: 280, count: 4 };

/// Sockets that are bound, and what the gateway must be told about them.
pub(super) struct Pbx {
    sip: UdpSocket,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    address: SocketAddr,
    password: String,
    nonce: String,
    tag: String,
    ladder: Ladder,
    events: Events,
    /// The gateway's contact, as it has registered, and where that came from.
    gateway: Option<(String, SocketAddr)>,
    call: Option<Call>,
    heard: Heard,
}

/// What is left of the call.
pub(super) struct Heard {
    /// The sound that was said.
    pub said: Track,
    /// The sound that was heard.
    pub ear: Ear,
    /// The digits that were pressed.
    pub digits: String,
    last_digit: Option<u32>,
}

impl Heard {
    /// Nothing yet.
    pub fn new(said: Track, ear: Ear) -> Heard {
        Heard { said, ear, digits: String::new(), last_digit: None }
    }
}

/// What the person at the PBX is told to do.
pub(super) enum Order {
    /// To dial this.
    Dial(String),
    /// To hang up.
    HangUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Our INVITE is on its way; again until something comes back.
    Dialling {
        again_at: Option<Tick>,
    },
    Ringing {
        answer_at: Tick,
    },
    Answered {
        again_at: Option<Tick>,
    },
    HangingUp {
        again_at: Tick,
    },
    Over,
}

struct Call {
    dialog: Dialog,
    /// The INVITE that is to be answered.
    invite: Option<Message>,
    from: SocketAddr,
    state: State,
    last: Vec<u8>,
    /// What was agreed on; nothing before the answer to our own offer.
    media: Option<Media>,
    mouth: Mouth,
    sequence: u16,
    timestamp: u32,
}

/// Who talks with whom (RFC 3261 §12).
#[derive(Debug, Clone, Default)]
struct Dialog {
    /// Our From, with its tag, and the other side's To.
    local: String,
    remote: String,
    call_id: String,
    /// Where requests go.
    target: String,
}

/// What the offer or the answer says, as far as this PBX listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Media {
    to: SocketAddr,
    law: u8,
    dtmf: Option<u8>,
}

impl Pbx {
    /// Binds on the loopback. `origin`: when its sound begins to count.
    ///
    /// # Errors
    /// When a port can't be had.
    pub async fn bind(password: String, ladder: Ladder, origin: Tick, events: Events) -> Result<Pbx, String> {
        let bind = || async { UdpSocket::bind("127.0.0.1:0").await.map_err(|error| error.to_string()) };
        let sip = bind().await?;
        let address = sip.local_addr().map_err(|error| error.to_string())?;
        let (said, ear) = (Track::new(origin), Ear::new(origin));
        let heard = Heard::new(said, ear);
        Ok(Pbx {
            sip,
            rtp: bind().await?,
            rtcp: bind().await?,
            address,
            password,
            nonce: random::token(16),
            tag: random::token(8),
            ladder,
            events,
            gateway: None,
            call: None,
            heard,
        })
    }

    /// Where it listens for SIP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Until `orders` ends.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Heard {
        let mut ticker = interval(FRAME_TIME);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut message, mut packet, mut report) = ([0; 8_192], [0; 1_500], [0; 1_500]);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Dial(number)) => self.dial(&number),
                    Some(Order::HangUp) => self.hang_up(),
                    None => return self.heard,
                },
                received = self.sip.recv_from(&mut message) => if let Ok((length, from)) = received
                    && let Some(message) = Message::read(&message[..length])
                {
                    self.receive(&message, from);
                },
                received = self.rtp.recv_from(&mut packet) => if let Ok((length, _)) = received {
                    self.hear(&packet[..length]);
                },
                // Reports are taken in, as a PBX does, and not looked at.
                _ = self.rtcp.recv_from(&mut report) => {}
                _ = ticker.tick() => self.tick(),
            }
        }
    }

    fn send(&self, bytes: &[u8], to: SocketAddr, label: &str) {
        self.ladder.arrow(Lane::Far, Lane::Watrunk, label);
        let _ = self.sip.try_send_to(bytes, to);
    }

    fn receive(&mut self, message: &Message, from: SocketAddr) {
        if let Some(status) = message.status() {
            let about = |method| message.header("CSeq").is_some_and(|cseq| cseq.ends_with(method));
            let sdp = if message.body.is_empty() { "" } else { " (SDP)" };
            self.ladder.arrow(Lane::Watrunk, Lane::Far, &format!("{}{sdp}", message.reason()));
            if about("INVITE") {
                self.told(message, status, from);
            } else if about("BYE") && status >= 200 && self.over() {
                tell(&self.events, Event::HungUp);
            }
            return;
        }
        let method = message.method().unwrap_or_default().to_owned();
        let gone = method == "REGISTER" && message.header("Expires") == Some("0");
        self.ladder.arrow(Lane::Watrunk, Lane::Far, if gone { "REGISTER expires 0" } else { &method });
        match method.as_str() {
            "REGISTER" => self.register(message, from, gone),
            "OPTIONS" => self.send(&message.answer("200 OK", &self.tag, &[], None), from, "200 OK"),
            "INVITE" => self.invite(message, from),
            "ACK" => {
                if let Some(Call { state: State::Answered { again_at }, .. }) = &mut self.call
                    && again_at.take().is_some()
                {
                    tell(&self.events, Event::Acknowledged);
                }
            }
            "BYE" | "CANCEL" => {
                self.send(&message.answer("200 OK", &self.tag, &[], None), from, "200 OK");
                if self.over() {
                    tell(&self.events, Event::Fault(format!("the gateway sent {method}")));
                }
            }
            _ => self.send(&message.answer("405 Method Not Allowed", &self.tag, &[], None), from, "405"),
        }
    }

    /// Ends the call; false if it was over before.
    fn over(&mut self) -> bool {
        match &mut self.call {
            Some(call) => std::mem::replace(&mut call.state, State::Over) != State::Over,
            None => false,
        }
    }

    fn register(&mut self, message: &Message, from: SocketAddr, gone: bool) {
        if !self.authentic(message) {
            let challenge = format!("Digest realm=\"{REALM}\", nonce=\"{}\", qop=\"auth\"", self.nonce);
            let headers = [("WWW-Authenticate", challenge.as_str())];
            self.send(
                &message.answer("401 Unauthorized", &self.tag, &headers, None),
                from,
                "401 Unauthorized",
            );
            return;
        }
        let contact = format!("{};expires=300", message.header("Contact").unwrap_or_default());
        let headers = [("Contact", contact.as_str())];
        let headers = if gone { &[][..] } else { &headers[..] };
        self.send(&message.answer("200 OK", &self.tag, headers, None), from, "200 OK");
        self.gateway = message.address("Contact").filter(|_| !gone).map(|uri| (uri.to_owned(), from));
        tell(&self.events, if gone { Event::Unregistered } else { Event::Registered });
    }

    /// RFC 7616 with MD5 and `qop=auth`.
    fn authentic(&self, message: &Message) -> bool {
        let hash = |text: String| cloud::hex(&Md5::digest(text));
        let Some(header) = message.header("Authorization") else { return false };
        let given = |name: &str| parameter(header, name).unwrap_or_default();
        let secret = hash(format!("{USER}:{REALM}:{}", self.password));
        let what = hash(format!("REGISTER:{}", given("uri")));
        let (nc, cnonce) = (given("nc"), given("cnonce"));
        given("username") == USER
            && given("nonce") == self.nonce
            && given("response") == hash(format!("{secret}:{}:{nc}:{cnonce}:auth:{what}", self.nonce))
    }

    fn invite(&mut self, invite: &Message, from: SocketAddr) {
        if let Some(call) = &self.call {
            // The same INVITE again, or a change of the session, which nobody here asks for.
            self.send(&call.last, from, "the same again");
            return;
        }
        let header = |name| invite.header(name).unwrap_or_default().to_owned();
        let invited = Event::Invited {
            uri: invite.uri().to_owned(),
            from: header("From"),
            wacid: header("X-WhatsApp-Call-ID"),
            payload: header("X-WhatsApp-Payload"),
        };
        tell(&self.events, invited);
        self.send(&invite.answer("100 Trying", "", &[], None), from, "100 Trying");
        let Some(media) = Media::read(&invite.body) else {
            self.send(&invite.answer("488 Not Acceptable Here", &self.tag, &[], None), from, "488");
            tell(&self.events, Event::Fault("the PBX can't use the INVITE's SDP".to_owned()));
            return;
        };
        let contact = self.contact();
        let ringing = invite.answer("180 Ringing", &self.tag, &[("Contact", contact.as_str())], None);
        self.send(&ringing, from, "180 Ringing");
        tell(&self.events, Event::Ringing);
        let dialog = Dialog {
            local: format!("{};tag={}", header("To"), self.tag),
            remote: header("From"),
            call_id: header("Call-ID"),
            target: invite.address("Contact").unwrap_or_default().to_owned(),
        };
        let state = State::Ringing { answer_at: clock::tick() + RINGING };
        self.call = Some(Call::new(dialog, from, state, ringing));
        if let Some(call) = &mut self.call {
            (call.invite, call.media) = (Some(invite.clone()), Some(media));
        }
    }

    /// The person at the PBX dials a number through the gateway, as a PBX does: to the contact that has
    /// registered.
    fn dial(&mut self, number: &str) {
        let Some((contact, to)) = self.gateway.clone() else {
            tell(&self.events, Event::Fault("the PBX has no registration to dial through".to_owned()));
            return;
        };
        let place = contact.split('@').next_back().unwrap_or_default().split(';').next().unwrap_or_default();
        let target = format!("sip:{number}@{place}");
        let dialog = Dialog {
            local: format!("\"Reception\" <sip:{EXTENSION}@{}>;tag={}", self.address, self.tag),
            remote: format!("<{target}>"),
            call_id: random::token(20),
            target,
        };
        let state = State::Dialling { again_at: Some(clock::tick() + AGAIN) };
        let contact = self.contact();
        let sdp = self.sdp(&[8, 0], Some(101));
        let headers = [("Contact", contact.as_str()), ("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS")];
        let mut call = Call::new(dialog, to, state, Vec::new());
        call.last = call.request("INVITE", "1 INVITE", self.address, &headers, Some(&sdp));
        self.send(&call.last, to, "INVITE (SDP)");
        self.call = Some(call);
    }

    /// What the gateway says to our INVITE.
    fn told(&mut self, message: &Message, status: u16, from: SocketAddr) {
        let address = self.address;
        let Some(call) = &mut self.call else { return };
        let ours = message.header("Call-ID") == Some(call.dialog.call_id.as_str());
        if !ours || call.invite.is_some() {
            return;
        }
        let dialling = matches!(call.state, State::Dialling { .. });
        if status < 200 {
            if dialling {
                call.state = State::Dialling { again_at: None };
            }
            if status > 100 && dialling {
                tell(&self.events, Event::Ringing);
            }
            return;
        }
        call.dialog.remote = message.header("To").unwrap_or_default().to_owned();
        if let (200..300, Some(target)) = (status, message.address("Contact")) {
            call.dialog.target = target.to_owned();
        }
        // Every final answer is confirmed as often as it comes (RFC 3261 §13.2.2.4, §17.1.1.3). The
        // confirmation of a refusal belongs to the INVITE's transaction: it bears its branch.
        let mut ack = call.request("ACK", "1 ACK", address, &[], None);
        if status >= 300 {
            ack = with_via_of(&ack, &call.last);
        }
        self.send(&ack, from, "ACK");
        let Some(call) = self.call.as_mut().filter(|_| dialling) else { return };
        if status >= 300 {
            call.state = State::Over;
            let why = message.header("Warning").map_or(String::new(), |warning| format!(" ({warning})"));
            tell(&self.events, Event::Refused(format!("{}{why}", message.reason())));
            return;
        }
        call.state = State::Answered { again_at: None };
        call.media = Media::read(&message.body);
        if call.media.is_none() {
            tell(&self.events, Event::Fault("the PBX can't use the 200's SDP".to_owned()));
        }
        tell(&self.events, Event::Answered);
        tell(&self.events, Event::Acknowledged);
    }

    fn contact(&self) -> String {
        format!("<sip:{EXTENSION}@{}>", self.address)
    }

    /// Every 20 ms: what is due, and sound.
    fn tick(&mut self) {
        let now = clock::tick();
        let contact = self.contact();
        let agreed = self.call.as_ref().and_then(|call| call.media);
        let sdp = agreed.map_or(String::new(), |media| self.sdp(&[media.law], media.dtmf));
        let Some(call) = &mut self.call else { return };
        let mut send: Option<&str> = None;
        match &mut call.state {
            State::Ringing { answer_at } if *answer_at <= now => {
                let contact = [("Contact", contact.as_str())];
                if let Some(invite) = &call.invite {
                    call.last = invite.answer("200 OK", &self.tag, &contact, Some(&sdp));
                }
                call.state = State::Answered { again_at: Some(now + AGAIN) };
                send = Some("200 OK (SDP)");
                tell(&self.events, Event::Answered);
            }
            State::Dialling { again_at: Some(at) }
            | State::Answered { again_at: Some(at) }
            | State::HangingUp { again_at: at }
                if *at <= now =>
            {
                *at = now + AGAIN;
                send = Some("the same again");
            }
            State::Dialling { .. }
            | State::Ringing { .. }
            | State::Answered { .. }
            | State::HangingUp { .. }
            | State::Over => {}
        }
        if let (State::Answered { .. }, Some(media)) = (call.state, call.media) {
            let (datagram, frame) = call.speak(media.law);
            self.heard.said.append(now, &frame);
            let _ = self.rtp.try_send_to(&datagram, media.to);
        }
        if let (Some(label), Some(call)) = (send, &self.call) {
            self.send(&call.last, call.from, label);
        }
    }

    /// These laws of G.711, and telephone-event.
    fn sdp(&self, laws: &[u8], dtmf: Option<u8>) -> String {
        let port = |socket: &UdpSocket| socket.local_addr().map_or(0, |address| address.port());
        let (mut list, mut map) = (String::new(), String::new());
        for law in laws {
            let name = if *law == 0 { "PCMU" } else { "PCMA" };
            list.push_str(&format!(" {law}"));
            map.push_str(&format!("a=rtpmap:{law} {name}/8000\r\n"));
        }
        if let Some(pt) = dtmf {
            list.push_str(&format!(" {pt}"));
            map.push_str(&format!("a=rtpmap:{pt} telephone-event/8000\r\na=fmtp:{pt} 0-16\r\n"));
        }
        format!(
            "v=0\r\no=pbx 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {} RTP/AVP{list}\r\na=rtcp:{}\r\n{map}a=ptime:20\r\na=sendrecv\r\n",
            port(&self.rtp),
            port(&self.rtcp)
        )
    }

    /// The person at the PBX hangs up.
    fn hang_up(&mut self) {
        let Some(call) = &mut self.call else { return };
        if !matches!(call.state, State::Answered { .. }) {
            return;
        }
        call.last = call.request("BYE", "2 BYE", self.address, &[], None);
        call.state = State::HangingUp { again_at: clock::tick() + AGAIN };
        if let Some(call) = &self.call {
            self.send(&call.last, call.from, "BYE");
        }
    }

    fn hear(&mut self, datagram: &[u8]) {
        let Ok(packet) = rtp::read(datagram) else { return };
        let Some(media) = self.call.as_ref().and_then(|call| call.media) else { return };
        self.heard.ear.count(packet.sequence);
        if packet.payload_type == media.law {
            let decode = if packet.payload_type == 0 { g711::from_pcmu } else { g711::from_pcma };
            let pcm: Vec<i16> = packet.payload.iter().map(|code| decode(*code)).collect();
            self.heard.ear.hear(clock::tick(), packet.timestamp, RATE, &pcm);
        } else if Some(packet.payload_type) == media.dtmf
            && let Some(code) = packet.payload.first()
            && self.heard.last_digit != Some(packet.timestamp)
        {
            // All packets of one press have the same timestamp (RFC 4733 §2.5.1.2).
            self.heard.last_digit = Some(packet.timestamp);
            let digit = b"0123456789*#ABCD".get(usize::from(*code)).map_or('?', |digit| char::from(*digit));
            self.heard.digits.push(digit);
            self.ladder.arrow(Lane::Watrunk, Lane::Far, &format!("digit {digit} (RFC 4733)"));
        }
    }
}

/// The request with the Via of another one.
fn with_via_of(request: &[u8], other: &[u8]) -> Vec<u8> {
    let via = |text: &str| text.lines().find(|line| line.starts_with("Via: ")).map(str::to_owned);
    let (request, other) = (String::from_utf8_lossy(request), String::from_utf8_lossy(other));
    match (via(&request), via(&other)) {
        (Some(mine), Some(theirs)) => request.replacen(&mine, &theirs, 1).into_bytes(),
        _ => request.into_owned().into_bytes(),
    }
}

impl Call {
    fn new(dialog: Dialog, from: SocketAddr, state: State, last: Vec<u8>) -> Call {
        Call {
            dialog,
            invite: None,
            from,
            state,
            last,
            media: None,
            mouth: Mouth::new(VOICE, RATE),
            sequence: random::word() as u16,
            timestamp: random::word(),
        }
    }

    /// A request of ours, of this call.
    fn request(
        &self,
        method: &str,
        cseq: &str,
        address: SocketAddr,
        more: &[(&str, &str)],
        sdp: Option<&str>,
    ) -> Vec<u8> {
        let Dialog { local, remote, call_id, target } = &self.dialog;
        let via = format!("SIP/2.0/UDP {address};branch=z9hG4bK{}", random::token(12));
        let mut headers = vec![
            ("Via", via.as_str()),
            ("Max-Forwards", "70"),
            ("From", local),
            ("To", remote),
            ("Call-ID", call_id),
            ("CSeq", cseq),
        ];
        headers.extend(more);
        request(&format!("{method} {target}"), &headers, sdp)
    }

    /// The next 20 ms: as a packet, and as samples.
    fn speak(&mut self, law: u8) -> (Vec<u8>, [i16; FRAME]) {
        let first = self.mouth.fresh();
        let mut frame = [0; FRAME];
        self.mouth.say(&mut frame);
        let mut payload = [0; FRAME];
        g711::encode(&frame, &mut payload, if law == 0 { g711::to_pcmu } else { g711::to_pcma });
        let mut datagram = vec![0x80, law | if first { 0x80 } else { 0 }];
        datagram.extend_from_slice(&self.sequence.to_be_bytes());
        datagram.extend_from_slice(&self.timestamp.to_be_bytes());
        datagram.extend_from_slice(&0x7062_7821_u32.to_be_bytes());
        datagram.extend_from_slice(&payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
        (datagram, frame)
    }
}

impl Media {
    /// The first law of G.711, and telephone-event.
    fn read(sdp: &str) -> Option<Media> {
        let value = |begin: &str| sdp.lines().find_map(|line| line.strip_prefix(begin));
        let ip = value("c=IN IP4 ")?.trim().parse().ok()?;
        let mut audio = value("m=audio ")?.split_whitespace();
        let port = audio.next()?.parse().ok()?;
        let law = audio.skip(1).find_map(|format| format.parse().ok().filter(|pt| [0, 8].contains(pt)))?;
        let dtmf = sdp.lines().find_map(|line| {
            let (pt, name) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
            name.eq_ignore_ascii_case("telephone-event/8000").then(|| pt.parse().ok())?
        });
        Some(Media { to: SocketAddr::new(ip, port), law, dtmf })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gateway's end of the wire, and what the PBX says about itself.
    struct Stage {
        gateway: UdpSocket,
        pbx: SocketAddr,
        orders: mpsc::Sender<Order>,
        told: mpsc::Receiver<(Tick, Event)>,
        running: tokio::task::JoinHandle<Heard>,
    }

    impl Stage {
        /// A PBX at which the gateway has registered, and that dials.
        async fn dialling() -> Stage {
            let gateway = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let at = gateway.local_addr().unwrap();
            let (events, told) = mpsc::channel(16);
            let mut pbx =
                Pbx::bind("secret".to_owned(), Ladder::new(true), clock::tick(), events).await.unwrap();
            pbx.gateway = Some((format!("sip:{USER}@{at};transport=udp"), at));
            let (orders, given) = mpsc::channel(4);
            let (pbx, running) = (pbx.address(), tokio::spawn(pbx.run(given)));
            orders.send(Order::Dial("+15557654321".to_owned())).await.unwrap();
            Stage { gateway, pbx, orders, told, running }
        }

        async fn next(&self) -> Message {
            let mut buffer = [0; 4_096];
            let waiting = self.gateway.recv_from(&mut buffer);
            let (length, _) = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
            Message::read(&buffer[..length]).unwrap()
        }

        async fn answer(&self, request: &Message, status: &str, headers: &[(&str, &str)], sdp: Option<&str>) {
            let answer = request.answer(status, "ours", headers, sdp);
            self.gateway.send_to(&answer, self.pbx).await.unwrap();
        }

        async fn event(&mut self) -> Event {
            let told = tokio::time::timeout(Duration::from_secs(10), self.told.recv());
            told.await.unwrap().unwrap().1
        }
    }

    #[tokio::test]
    async fn the_pbx_dials_through_the_contact_that_has_registered_and_hangs_up_in_the_same_dialog() {
        let mut stage = Stage::dialling().await;
        let (invite, place) = (stage.next().await, stage.gateway.local_addr().unwrap());
        assert_eq!(
            (invite.method(), invite.uri()),
            (Some("INVITE"), format!("sip:+15557654321@{place}").as_str())
        );
        assert!(invite.header("From").unwrap().contains(&format!("<sip:{EXTENSION}@")));
        assert!(invite.body.contains(" RTP/AVP 8 0 101\r\n"), "{}", invite.body);
        stage.answer(&invite, "180 Ringing", &[], None).await;
        assert!(matches!(stage.event().await, Event::Ringing));

        let sound = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sdp = format!(
            "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio {} RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n",
            sound.local_addr().unwrap().port()
        );
        let contact = [("Contact", "<sip:elsewhere@192.0.2.1>")];
        // Our 200 is repeated: its ACK was lost.
        for _ in 0..2 {
            stage.answer(&invite, "200 OK", &contact, Some(&sdp)).await;
            let ack = stage.next().await;
            assert_eq!((ack.method(), ack.uri()), (Some("ACK"), "sip:elsewhere@192.0.2.1"));
            assert_eq!(ack.header("CSeq"), Some("1 ACK"));
            assert!(ack.header("To").unwrap().ends_with(";tag=ours"));
            assert_ne!(ack.header("Via"), invite.header("Via"), "a transaction of its own");
        }
        let mut packet = [0; 200];
        let (length, _) = sound.recv_from(&mut packet).await.unwrap();
        assert_eq!((length, packet[1] & 0x7f), (172, 8), "sound, in the law of the answer");

        stage.orders.send(Order::HangUp).await.unwrap();
        let bye = stage.next().await;
        assert_eq!((bye.method(), bye.header("CSeq")), (Some("BYE"), Some("2 BYE")));
        assert_eq!(bye.header("Call-ID"), invite.header("Call-ID"));
        stage.answer(&bye, "200 OK", &[], None).await;
        let told = [stage.event().await, stage.event().await, stage.event().await];
        assert!(matches!(told, [Event::Answered, Event::Acknowledged, Event::HungUp]), "{told:?}");
        drop(stage.orders);
        assert!(
            stage.running.await.unwrap().said.pcm().iter().all(|sample| *sample == 0),
            "still the lead-in"
        );
    }

    #[tokio::test]
    async fn a_refusal_is_confirmed_in_its_transaction_and_told_with_the_gateways_words() {
        let mut stage = Stage::dialling().await;
        let invite = stage.next().await;
        let warning = [("Warning", "399 watrunk \"the user has not allowed calls\"")];
        stage.answer(&invite, "403 Forbidden", &warning, None).await;
        let ack = stage.next().await;
        assert_eq!((ack.method(), ack.uri()), (Some("ACK"), invite.uri()));
        assert_eq!(ack.header("Via"), invite.header("Via"));
        let Event::Refused(why) = stage.event().await else { panic!("not refused") };
        assert_eq!(why, "403 Forbidden (399 watrunk \"the user has not allowed calls\")");
    }

    #[tokio::test]
    async fn an_invite_that_nobody_answers_is_sent_again() {
        let stage = Stage::dialling().await;
        let (first, again) = (stage.next().await, stage.next().await);
        assert_eq!((again.method(), again.header("Via")), (Some("INVITE"), first.header("Via")));
    }
}
