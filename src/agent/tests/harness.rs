//! An agent's end of the socket, and a clock that only moves when told.

use std::time::Duration;

use serde_json::Value;

use crate::agent::{AgentEvent, Dialect, Leg, LegOutput, Message, Session};
use crate::call::Direction;
use crate::clock::Tick;

pub fn session(dialect: &str, direction: Direction) -> Session {
    Session {
        dialect: dialect.parse().unwrap(),
        call_id: "CAff00ff00ff00ff00ff00ff00ff00ff00".into(),
        wacid: "wacid.HBgL".into(),
        from: "+15550100200".into(),
        to: "+15550100100".into(),
        direction,
        account: "AC00000000000000000000000000000001".into(),
        parameters: vec![("shop".into(), "Nord \"7\"".into())],
        key: None,
        auth_token: None,
        silence: None,
    }
}

/// A leg with its clock and everything it has asked for.
pub struct Call {
    pub leg: Leg,
    pub now: Tick,
    pub sent: Vec<Message>,
    pub events: Vec<AgentEvent>,
    pub closed: bool,
}

impl Call {
    pub fn of(session: Session) -> Call {
        let now = Tick::from_millis(5_000);
        Call { leg: Leg::new(session, now), now, sent: vec![], events: vec![], closed: false }
    }

    pub fn new(dialect: &str, direction: Direction) -> Call {
        Call::of(session(dialect, direction))
    }

    /// An inbound call that was connected and answered; what was sent for that is forgotten.
    pub fn talking(dialect: &str) -> Call {
        let mut call = Call::new(dialect, Direction::Inbound);
        call.connected();
        call.answered();
        call.sent.clear();
        call.events.clear();
        call
    }

    pub fn connected(&mut self) {
        self.leg.connected(self.now);
        self.drain();
    }

    pub fn answered(&mut self) {
        self.leg.answered(self.now);
        self.drain();
    }

    pub fn text(&mut self, line: &str) {
        self.leg.received(Message::Text(line.into()), self.now);
        self.drain();
    }

    pub fn say(&mut self, value: Value) {
        self.text(&value.to_string());
    }

    pub fn binary(&mut self, bytes: &[u8]) {
        self.leg.received(Message::Binary(bytes.to_vec()), self.now);
        self.drain();
    }

    pub fn heard(&mut self, frame: &[i16]) {
        self.leg.heard(frame, self.now);
        self.drain();
    }

    pub fn digit(&mut self, digit: char, millis: u32) {
        self.leg.digit(digit, millis, self.now);
        self.drain();
    }

    pub fn end(&mut self) {
        self.leg.end("the user hung up", self.now);
        self.drain();
    }

    pub fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// The next 20 ms as they are played, and the clock moves on by them.
    pub fn tick(&mut self) -> Option<Vec<i16>> {
        let mut frame = vec![0i16; self.leg.rate() as usize / 50];
        let playing = self.leg.next(&mut frame, self.now);
        self.drain();
        self.pass(20);
        playing.then_some(frame)
    }

    /// Everything that is played until nothing has come for 200 ms.
    pub fn play(&mut self) -> Vec<i16> {
        let (mut all, mut idle) = (vec![], 0);
        while idle < 10 {
            match self.tick() {
                Some(frame) => {
                    all.extend(frame);
                    idle = 0;
                }
                None => idle += 1,
            }
        }
        all
    }

    fn drain(&mut self) {
        while let Some(output) = self.leg.poll() {
            assert!(!self.closed, "something after Close: {output:?}");
            match output {
                LegOutput::Send(message) | LegOutput::Sound(message) => self.sent.push(message),
                LegOutput::Event(event) => self.events.push(event),
                LegOutput::Close => self.closed = true,
            }
        }
    }

    /// What was sent as text since the last time, read as JSON.
    pub fn told(&mut self) -> Vec<Value> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter()
            .filter_map(|message| match message {
                Message::Text(line) => Some(serde_json::from_str(&line).unwrap()),
                Message::Binary(_) => None,
            })
            .collect()
    }

    /// What was sent as binary since the last time.
    pub fn bytes(&mut self) -> Vec<Vec<u8>> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter()
            .filter_map(|message| match message {
                Message::Text(_) => None,
                Message::Binary(bytes) => Some(bytes),
            })
            .collect()
    }
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub fn unbase64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// Samples as little-endian bytes.
pub fn l16(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// Every dialect there is, by its word.
pub const ALL: [&str; 15] = [
    "twilio",
    "telnyx",
    "telnyx-l16",
    "vonage",
    "plivo",
    "exotel",
    "jambonz",
    "asterisk",
    "pcm16",
    "pcm16-8000",
    "pcm16-44100",
    "elevenlabs",
    "vapi",
    "deepgram",
    "openai",
];

#[test]
fn every_dialect_has_a_word_that_reads_back() {
    for word in ALL {
        let dialect: Dialect = word.parse().unwrap();
        assert_eq!(dialect.to_string(), word);
        assert!([8_000, 16_000, 24_000].contains(&dialect.rate()), "{word}");
    }
    assert!("pcm16-8001".parse::<Dialect>().is_err());
    let wrong = "twillio".parse::<Dialect>().unwrap_err().to_string();
    assert!(wrong.starts_with("\"twillio\" is no dialect: twilio, telnyx,"), "{wrong}");
}
