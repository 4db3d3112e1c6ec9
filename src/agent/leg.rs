//! One agent on one call: its messages, its sound, and when it speaks.

use std::time::Duration;

use super::{Message, Session};
use crate::clock::Tick;

/// What the agent means for the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// The agent is there: an inbound call may be accepted, an outbound one dialled.
    Ready,
    /// The agent has hung up, with its reason.
    HungUp(String),
    /// The session could not begin or has broken, with the reason.
    Failed(String),
    /// The agent hands the call over: a `tel:` or `sip:` URI.
    Transfer(String),
    /// The agent wants these digits played to the far side.
    Digits(String),
    /// Something was said, as the agent understood it.
    Transcript {
        /// The agent said it, not the user.
        agent: bool,
        /// The words.
        text: String,
    },
}

/// What the leg asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegOutput {
    /// Send this on the WebSocket, in order.
    Send(Message),
    /// Tell the call.
    Event(AgentEvent),
    /// Close the WebSocket (1000) after what was sent before.
    Close,
}

/// One line of the transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `agent` or `user`.
    pub who: &'static str,
    /// The words.
    pub text: String,
    /// Since the call was answered.
    pub at: Duration,
}

/// Something an agent told that is kept on the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// What it was, in the dialect's word.
    pub name: String,
    /// What it said, cut to a bounded length.
    pub detail: String,
    /// Since the call was answered.
    pub at: Duration,
}

/// What is kept of an agent's call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// How often the agent's speech was cut off by the user.
    pub barge_ins: u32,
    /// From the answer to the agent's first sound.
    pub first_audio: Option<Duration>,
    /// What was said; bounded.
    pub transcript: Vec<Line>,
    /// What else the agent told; bounded.
    pub events: Vec<Noted>,
    /// Messages that could not be read.
    pub unreadable: u32,
}

/// One call's agent.
#[derive(Debug)]
pub struct Leg {
    session: Session,
}

impl Leg {
    /// A leg whose socket is being opened.
    pub fn new(session: Session, now: Tick) -> Leg {
        let _ = now;
        Leg { session }
    }

    /// The rate of [`Leg::heard`] and [`Leg::next`], in hertz.
    pub fn rate(&self) -> u32 {
        self.session.dialect.rate()
    }

    /// The socket is open.
    pub fn connected(&mut self, _now: Tick) {}

    /// The WhatsApp user is connected: what the agent said before is played now.
    pub fn answered(&mut self, _now: Tick) {}

    /// The agent sent a message.
    pub fn received(&mut self, _message: Message, _now: Tick) {}

    /// The socket is gone.
    pub fn closed(&mut self, _reason: &str, _now: Tick) {}

    /// 20 ms of the user, at [`Leg::rate`].
    pub fn heard(&mut self, _frame: &[i16], _now: Tick) {}

    /// The user pressed a key for so many milliseconds.
    pub fn digit(&mut self, _digit: char, _millis: u32, _now: Tick) {}

    /// Fills the 20 ms to be played to the user; false if there is nothing to play.
    pub fn next(&mut self, _frame: &mut [i16], _now: Tick) -> bool {
        false
    }

    /// We hang up: the dialect's stop message, then [`LegOutput::Close`].
    pub fn end(&mut self, _why: &str, _now: Tick) {}

    /// What is to be done next; `None` when there is nothing.
    pub fn poll(&mut self) -> Option<LegOutput> {
        None
    }

    /// When [`Leg::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Tick> {
        None
    }

    /// The time from [`Leg::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, _now: Tick) {}

    /// Whether the socket may be read: no while 60 s of sound wait to be played.
    pub fn wants_input(&self) -> bool {
        true
    }

    /// What is kept of this call.
    pub fn summary(&self) -> Summary {
        Summary::default()
    }
}
