//! A user agent with one trunk, and a PBX that may say anything, while calls come and go and time passes.
//!
//! An input is a play (`rooms.rs`). An act is a message of the PBX, with `$` filled in: `$v $f $t $i $c` are Via, From,
//! To, Call-ID and CSeq of the last request of ours, `$V $F $T $I $C` those of our last answer, `$R` the RSeq of that
//! answer, `$n` an end of line, `$l` the length of the body. Or it is a stage direction:
//!
//! | act | what |
//! |---|---|
//! | `~s1` | at the beginning: the bits say registering, challenging, session timers, TCP, OPTIONS unanswered |
//! | `~d` `~r` `~a` `~x486` `~h200` | we dial, ring, answer, refuse, hang up |
//! | `~o` `~k5` `~j202` | we answer with an offer, press a key, tell how a transfer went |
//! | `~w500` `~p` `~u` `~q` | time passes, other port, the PBX's way is lost, we leave |
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use libfuzzer_sys::{Corpus, fuzz_target};
use watrunk::clock::{Now, Tick, Wall};
use watrunk::sip::sdp::{self, Codec, LocalMedia, SrtpPolicy};
use watrunk::sip::{
    Cause, Dial, Event, Found, LegId, Output, Refusal, Settings, Transport, TrunkSettings, UserAgent, Way,
};
use watrunk::{acts, direction};

const DIALOGS: usize = 4;

struct Play {
    ua: UserAgent,
    /// Reads what we send: its count of malformed messages says whether it could.
    reader: UserAgent,
    unread: u64,
    now: Now,
    pbx: Way,
    /// Answers what keeps a trunk up.
    kind: bool,
    /// Calls that have begun, and whether they have not ended.
    open: BTreeMap<LegId, bool>,
    latest: LegId,
    dialled: u64,
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn trunk(bits: u64, pbx: Way) -> TrunkSettings {
    TrunkSettings {
        name: "pbx".into(),
        server_uri: "sip:pbx.example:5060".into(),
        username: "gw".into(),
        password: Some("gw-secret".into()),
        register: bits & 1 != 0,
        challenge: bits & 2 != 0,
        session_expires: (bits & 4 != 0).then_some(Duration::from_secs(90)),
        found: vec![Found { way: pbx, local: ([192, 0, 2, 7], 5060).into() }],
        ..TrunkSettings::default()
    }
}

fn offer() -> String {
    sdp::offer(&LocalMedia {
        rtp: ([192, 0, 2, 7], 20_000).into(),
        session: 42,
        version: 1,
        codecs: vec![Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu],
        dtmf: true,
        srtp: SrtpPolicy::Optional,
        secret: [7; 32],
    })
}

fn dial() -> Dial {
    Dial {
        trunk: "pbx".into(),
        user: "200".into(),
        host: None,
        from_user: "+15550100".into(),
        from_name: Some("Ann \"A\" <x>".into()),
        asserted: true,
        headers: vec![("X-WhatsApp-Call-ID".into(), "wacid.1".into())],
        sdp: offer(),
        credentials: None,
        patience: None,
        replaces: None,
        referred_by: None,
        privacy: false,
    }
}

fn header<'a>(message: &'a [u8], name: &str) -> &'a [u8] {
    let lines = message.split(|octet| *octet == b'\n').take_while(|line| *line != b"\r");
    let value = |line: &'a [u8]| line.strip_prefix(name.as_bytes())?.strip_prefix(b": ");
    lines.filter_map(value).next().unwrap_or_default().trim_ascii()
}

impl Play {
    fn new(bits: u64) -> Play {
        let now = Now { tick: Tick::from_millis(1_000_000), wall: Wall(1_700_000_000_000) };
        let transport = if bits & 8 != 0 { Transport::Tcp } else { Transport::Udp };
        let pbx = Way { transport, address: ([192, 0, 2, 1], 5060).into() };
        let mut reader =
            UserAgent::new(Settings { max_dialogs: 0, max_per_second: u32::MAX, ..Settings::default() });
        let anyone = vec!["0.0.0.0/0".parse().unwrap()];
        reader.add_trunk(TrunkSettings { found: vec![], allow: anyone, ..trunk(0, pbx) }, now);
        let settings =
            Settings { seed: 7, max_dialogs: DIALOGS, max_per_second: u32::MAX, ..Settings::default() };
        let mut play = Play {
            ua: UserAgent::new(settings),
            reader,
            unread: 0,
            now,
            pbx,
            kind: bits & 16 == 0,
            open: BTreeMap::new(),
            latest: LegId(0),
            dialled: 0,
            request: vec![],
            answer: vec![],
        };
        play.ua.add_trunk(trunk(bits, pbx), now);
        play.drain();
        play
    }

    fn begin(&mut self, leg: LegId) {
        assert_ne!(self.open.insert(leg, true), Some(true), "{leg:?} begins twice");
        self.latest = leg;
    }

    fn alive(&self, leg: LegId, event: &Event) {
        assert_eq!(self.open.get(&leg), Some(&true), "no such call: {event:?}");
    }

    fn drain(&mut self) {
        while let Some(output) = self.ua.poll() {
            match output {
                Output::Transmit { bytes, .. } => self.sent(bytes),
                Output::Event(event) => self.told(&event),
            }
        }
        let [calls, ours, theirs] = self.ua.held();
        assert!(calls <= 4 * DIALOGS, "{calls} calls");
        assert!(ours <= 4 * DIALOGS * 12, "{ours} requests of ours");
        assert!(theirs <= 4 * DIALOGS + 64, "{theirs} requests of the PBX");
    }

    fn sent(&mut self, bytes: Vec<u8>) {
        // A keep-alive.
        if bytes.trim_ascii().is_empty() {
            return;
        }
        self.reader.receive(&bytes, self.pbx, self.now);
        while self.reader.poll().is_some() {}
        let counters = self.reader.counters();
        // A refusal repeats what it refuses, nonsense included.
        let refusal = [b"SIP/2.0 4", b"SIP/2.0 5"].iter().any(|start| bytes.starts_with(*start));
        let unread = counters.malformed + counters.not_sip;
        assert!(refusal || unread == self.unread, "nobody can read {}", String::from_utf8_lossy(&bytes));
        self.unread = unread;
        if bytes.starts_with(b"SIP/") {
            self.answer = bytes;
        } else if self.kind && (bytes.starts_with(b"OPTIONS ") || bytes.starts_with(b"REGISTER ")) {
            let contact = header(&bytes, "Contact");
            let contact = contact.split(|octet| *octet == b';').next().unwrap_or_default();
            let before = std::mem::replace(&mut self.request, bytes.clone());
            let text = b"SIP/2.0 200 OK$nVia: $v$nFrom: $f$nTo: $t;tag=k$nCall-ID: $i$nCSeq: $c$nContact: ";
            let text = [text.as_slice(), contact, b";expires=300$nContent-Length: 0$n$n"].concat();
            let text = self.filled(&text);
            self.ua.receive(&text, self.pbx, self.now);
            self.request = before;
        } else {
            self.request = bytes;
        }
    }

    fn told(&mut self, event: &Event) {
        match event {
            Event::Trunk { .. } => {}
            Event::Invited { leg, .. } => self.begin(*leg),
            Event::Trying { leg }
            | Event::Ringing { leg, .. }
            | Event::Answered { leg, .. }
            | Event::Changed { leg, .. }
            | Event::Referred { leg, .. }
            | Event::Digit { leg, .. } => self.alive(*leg, event),
            Event::Ended { leg, .. } => {
                self.alive(*leg, event);
                self.open.insert(*leg, false);
            }
        }
    }

    /// Lets time pass, stopping wherever something is due.
    fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        for _ in 0..20_000 {
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

    fn filled(&self, act: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(act.len() + 400);
        let mut octets = act.iter();
        while let Some(octet) = octets.next() {
            if *octet != b'$' {
                message.push(*octet);
                continue;
            }
            match octets.next() {
                Some(b'n') => message.extend(b"\r\n"),
                Some(b'v') => message.extend(header(&self.request, "Via")),
                Some(b'f') => message.extend(header(&self.request, "From")),
                Some(b't') => message.extend(header(&self.request, "To")),
                Some(b'i') => message.extend(header(&self.request, "Call-ID")),
                Some(b'c') => message.extend(header(&self.request, "CSeq")),
                Some(b'V') => message.extend(header(&self.answer, "Via")),
                Some(b'F') => message.extend(header(&self.answer, "From")),
                Some(b'T') => message.extend(header(&self.answer, "To")),
                Some(b'I') => message.extend(header(&self.answer, "Call-ID")),
                Some(b'C') => message.extend(header(&self.answer, "CSeq")),
                Some(b'R') => message.extend(header(&self.answer, "RSeq")),
                Some(b'l') => message.extend(length(act).to_string().bytes()),
                Some(_) | None => {}
            }
        }
        message
    }

    fn act(&mut self, act: &[u8]) {
        let (leg, now) = (self.latest, self.now);
        let Some((letter, number)) = direction(act) else {
            let message = self.filled(act);
            self.ua.receive(&message, self.pbx, now);
            self.drain();
            return self.pass(Duration::from_millis(20));
        };
        let code = u16::try_from(number % 1_000).unwrap_or_default();
        match letter {
            b'd' => {
                self.dialled += 1;
                let leg = LegId(self.dialled);
                if self.ua.dial(leg, dial(), now).is_ok() {
                    self.begin(leg);
                }
            }
            b'r' => self.ua.ring(leg, now),
            b'a' | b'o' => self.ua.answer(leg, offer(), now),
            b'x' => {
                let warning = (number > 1_000).then(|| "because".to_owned());
                self.ua.refuse(leg, Refusal { code, warning, retry_after: Some(1) }, now);
            }
            b'h' => {
                self.ua.hang_up(leg, Cause { code: Some(code).filter(|code| *code > 0), text: "enough" }, now)
            }
            b'k' => self.ua.send_digit(leg, char::from(b'0' + (code % 10) as u8), 100, now),
            b'j' => self.ua.refer_told(leg, code, now),
            b'p' => self.pbx.address.set_port(5060 + code),
            b'u' => self.ua.unreachable(self.pbx, "it broke", now),
            b'q' => self.ua.shutdown(now),
            b'w' => self.pass(Duration::from_millis(number.min(200_000))),
            _ => {}
        }
        self.drain();
    }

    fn finish(mut self) {
        let open: Vec<LegId> = self.open.iter().filter(|(_, open)| **open).map(|(leg, _)| *leg).collect();
        for leg in open {
            self.ua.hang_up(leg, Cause::default(), self.now);
            self.drain();
            assert_eq!(self.open.get(&leg), Some(&false), "{leg:?} was hung up and has not ended");
        }
        self.ua.shutdown(self.now);
        self.drain();
        self.pass(Duration::from_secs(400));
        assert!(self.open.values().all(|open| !open), "a call has not ended");
        let [calls, ours, theirs] = self.ua.held();
        assert!(calls == 0 && ours == 0 && theirs == 0, "{calls} {ours} {theirs} are left");
    }
}

/// The octets behind the first empty line, with `$` and its letter as they stand.
fn length(act: &[u8]) -> usize {
    let end = [b"\r\n\r\n".as_slice(), b"$n$n"];
    let found = end.iter().find_map(|end| act.windows(4).position(|four| four == *end));
    let body = found.map_or(&[][..], |at| &act[at + 4..]);
    // `$n` is two octets before and after.
    body.len()
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let acts = acts(data);
    if acts.len() > 24 {
        return Corpus::Reject;
    }
    let bits = acts.first().and_then(|act| direction(act)).filter(|(letter, _)| *letter == b's');
    let mut play = Play::new(bits.map_or(0, |(_, bits)| bits));
    for act in acts {
        play.act(act);
    }
    play.finish();
    Corpus::Keep
});
