//! A voice agent that may send anything, in each dialect, while a call goes on.
//!
//! An input is a play (`rooms.rs`). The first act is the dialect's word, with a `+` for an outbound call. The others are
//! messages of the agent, `~b` and the octets of a binary one, or a stage direction:
//!
//! | act | what |
//! |---|---|
//! | `~c` `~a` `~x0` `~e` | the socket opens, the user answers, the socket is gone (well or not), we hang up |
//! | `~n50` `~k5` `~w500` | 50 frames cross, the user presses 5, time passes |
#![no_main]

use std::time::Duration;

use libfuzzer_sys::{Corpus, fuzz_target};
use watrunk::agent::{AgentEvent, Dialect, Key, Leg, LegOutput, Message, Session};
use watrunk::call::Direction;
use watrunk::clock::Tick;
use watrunk::{acts, direction};

struct Play {
    leg: Leg,
    dialect: Dialect,
    now: Tick,
    ready: bool,
    closed: bool,
    over: bool,
}

impl Play {
    fn drain(&mut self) {
        while let Some(output) = self.leg.poll() {
            assert!(!self.closed, "after Close: {output:?}");
            match output {
                LegOutput::Send(message) | LegOutput::Sound(message) => self.sent(&message),
                LegOutput::Event(event) => {
                    assert!(!self.over, "after the end: {event:?}");
                    match event {
                        AgentEvent::Ready => {
                            assert!(!std::mem::replace(&mut self.ready, true), "ready twice")
                        }
                        AgentEvent::HungUp(_) | AgentEvent::Failed(_) => self.over = true,
                        AgentEvent::Transfer(_) | AgentEvent::Transcript { .. } => {}
                    }
                }
                LegOutput::Close => self.closed = true,
            }
        }
    }

    fn sent(&self, message: &Message) {
        match (message, self.dialect) {
            (Message::Text(_), Dialect::Asterisk) => {}
            (Message::Text(text), _) => {
                assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "not JSON: {text}");
            }
            (Message::Binary(sound), _) => assert!(!sound.is_empty() && sound.len() <= 64 * 1024),
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..10_000 {
            match self.leg.poll_timeout() {
                Some(due) if due <= end => {
                    self.now = self.now.max(due);
                    self.leg.handle_timeout(self.now);
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

    fn cross(&mut self) {
        let mut frame = vec![0; self.leg.rate() as usize / 50];
        let _ = self.leg.next(&mut frame, self.now);
        self.leg.heard(&frame, self.now);
        self.drain();
        self.pass(Duration::from_millis(20));
    }

    fn act(&mut self, act: &[u8]) {
        if let Some(sound) = act.strip_prefix(b"~b") {
            self.leg.received(Message::Binary(sound.to_vec()), self.now);
            return self.drain();
        }
        let Some((letter, number)) = direction(act) else {
            self.leg.received(Message::Text(String::from_utf8_lossy(act).into_owned()), self.now);
            return self.drain();
        };
        match letter {
            b'c' => self.leg.connected(self.now),
            b'a' => self.leg.answered(self.now),
            b'x' => self.leg.closed(if number == 0 { "" } else { "it broke" }, self.now),
            b'e' => self.leg.end("enough", self.now),
            b'k' => self.leg.digit(char::from(b'0' + (number % 10) as u8), 100, self.now),
            b'n' => (0..number.min(100)).for_each(|_| self.cross()),
            b'w' => self.pass(Duration::from_millis(number.min(100_000))),
            _ => {}
        }
        self.drain();
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let acts = acts(data);
    let Some((word, acts)) = acts.split_first().filter(|(_, acts)| acts.len() <= 40) else {
        return Corpus::Reject;
    };
    let outbound = word.starts_with(b"+");
    let word = String::from_utf8_lossy(word.strip_prefix(b"+").unwrap_or(word));
    let Ok(dialect) = word.trim().parse::<Dialect>() else { return Corpus::Reject };
    let session = Session {
        dialect,
        call_id: "CA00000000000000000000000000000001".into(),
        wacid: "wacid.1".into(),
        from: "+15550100".into(),
        to: "+15550101".into(),
        direction: if outbound { Direction::Outbound } else { Direction::Inbound },
        account: "AC00000000000000000000000000000001".into(),
        parameters: vec![("name".into(), "Ann \"A\"".into())],
        key: Some(Key::new("key")),
        auth_token: None,
        silence: Some(Duration::from_secs(10)),
    };
    let now = Tick::from_millis(1_000_000);
    let leg = Leg::new(session, now);
    let mut play = Play { leg, dialect, now, ready: false, closed: false, over: false };
    for act in acts {
        play.act(act);
    }
    play.cross();
    play.leg.end("enough", play.now);
    play.drain();
    assert!(play.closed || play.over, "we have hung up, and it is not over");
    let _ = play.leg.summary();
    Corpus::Keep
});
