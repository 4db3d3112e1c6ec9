//! One agent on one call: its messages, its sound, and when it speaks.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::audio::{Inlet, Outlet};
use super::dialect::{Fate, Playout, Said, Wire};
use super::queue::{PlayQueue, is_silent};
use super::record::{Record, Summary};
use super::{Message, Session};
use crate::call::Direction;
use crate::clock::Tick;

/// How long a session may take to begin once it may.
const BEGIN: Duration = Duration::from_secs(10);
/// Outputs that nobody fetched. More than there are marks: a clear sends all of them back at once.
const OUTPUTS: usize = 1_500;
/// Lines and hand-overs that the call is told at once, and in a second after that: no agent may keep the gateway from
/// everybody else's calls.
const TOLD: u32 = 50;
const TOLD_A_SECOND: u32 = 20;
/// Unreadable messages that are logged, one by one.
const LOGGED: u32 = 10;

/// What the agent means for the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// The agent is there: an inbound call may be accepted, an outbound one dialled. Once per leg.
    Ready,
    /// The agent has hung up, with its reason. The leg is over.
    HungUp(String),
    /// The session could not begin or has broken, with the reason. The leg is over.
    Failed(String),
    /// The agent hands the call over: a `tel:` or `sip:` URI. The leg goes on until [`Leg::end`].
    Transfer(String),
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
    /// Send this on the WebSocket, in order: it is the user's sound, and the oldest of it may be dropped if the agent
    /// does not read ([`Leg::skipped`]).
    Sound(Message),
    /// Tell the call.
    Event(AgentEvent),
    /// Close the WebSocket (1000) after what was sent before. Nothing follows.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The socket is being opened.
    Opening,
    /// It is open; the session has not begun.
    Open,
    /// Sound may cross.
    Begun,
    /// Nothing more is done.
    Over,
}

/// One call's agent.
pub struct Leg {
    session: Session,
    wire: Box<dyn Wire>,
    stage: Stage,
    ready: bool,
    answered: Option<Tick>,
    /// When the session's clock began to run.
    started: Tick,
    /// Milliseconds of the user's sound that were sent, on the session's clock.
    sent_until: Option<u64>,
    begin_by: Option<Tick>,
    alive_by: Option<Tick>,
    /// When it must have said something.
    speak_by: Option<Tick>,
    /// It has said something: silence does not count.
    spoken: bool,
    told: Told,
    queue: PlayQueue,
    inlet: Inlet,
    outlet: Outlet,
    /// What happens once everything was played.
    leaving: Option<AgentEvent>,
    record: Record,
    out: VecDeque<LegOutput>,
    /// Kept between calls, so that the 20 ms path allocates nothing of its own.
    outbox: Vec<Message>,
    said: Vec<Said>,
}

impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leg")
            .field("dialect", &self.session.dialect)
            .field("call_id", &self.session.call_id)
            .field("stage", &self.stage)
            .field("queued_ms", &self.queue.millis())
            .finish_non_exhaustive()
    }
}

impl Leg {
    /// A leg whose socket is being opened.
    pub fn new(session: Session, now: Tick) -> Leg {
        let wire = session.dialect.wire(&session);
        let rate = session.dialect.rate();
        Leg {
            stage: Stage::Opening,
            ready: false,
            answered: None,
            started: now,
            sent_until: None,
            begin_by: None,
            alive_by: None,
            speak_by: None,
            spoken: false,
            told: Told { left: TOLD, since: now },
            queue: PlayQueue::new(rate),
            inlet: Inlet::new(rate),
            outlet: Outlet::new(rate, wire.sends(), wire.packet()),
            leaving: None,
            record: Record::new(),
            out: VecDeque::new(),
            outbox: Vec::new(),
            said: Vec::new(),
            wire,
            session,
        }
    }

    /// The rate of [`Leg::heard`] and [`Leg::next`], in hertz.
    pub fn rate(&self) -> u32 {
        self.session.dialect.rate()
    }

    /// A connection is tried.
    pub fn tried(&mut self) {
        self.record.tried();
    }

    /// So many messages with the user's sound were dropped: the agent did not read them.
    pub fn skipped(&mut self, messages: u32) {
        self.record.unsent(messages);
    }

    /// The socket is open. On an inbound call the session begins, while the caller hears ringing.
    pub fn connected(&mut self, now: Tick) {
        if self.stage != Stage::Opening {
            return;
        }
        self.stage = Stage::Open;
        self.wire.opened(&self.session, &mut self.outbox);
        self.post(now);
        match self.session.direction {
            Direction::Outbound if self.answered.is_none() => self.be_ready(),
            Direction::Inbound | Direction::Outbound => self.start(now),
        }
    }

    /// The WhatsApp user is connected: an outbound session begins now, and what the agent said before is played.
    pub fn answered(&mut self, now: Tick) {
        if self.answered.is_some() || self.stage == Stage::Over {
            return;
        }
        self.answered = Some(now);
        self.record.answered(now);
        self.expect_speech(now);
        if self.stage == Stage::Open && self.session.direction == Direction::Outbound {
            self.start(now);
        }
        self.wire.answered(&mut self.outbox);
        self.post(now);
    }

    /// The agent sent a message.
    pub fn received(&mut self, message: Message, now: Tick) {
        if self.stage == Stage::Over {
            return;
        }
        let mut said = std::mem::take(&mut self.said);
        self.wire.read(message, &self.session, self.playout(), &mut said);
        for word in said.drain(..) {
            self.hear(word, now);
        }
        self.said = said;
        // It has hung up: nothing follows Close.
        if self.stage == Stage::Over {
            return;
        }
        self.outlet.suit(self.wire.sends(), self.wire.packet());
        self.echo();
        self.wire.depth(self.queue.millis(), &mut self.outbox);
        self.post(now);
        self.leave_if_played();
    }

    /// The socket is gone, or could not be opened. An empty `reason` is an ordinary goodbye of the agent's (1000,
    /// 1001 or no code): in an answered call, that is how it hangs up. Before, and anything else, is a failure.
    pub fn closed(&mut self, reason: &str, _now: Tick) {
        let event = match self.stage {
            Stage::Over => return,
            Stage::Opening => AgentEvent::Failed(format!("the agent could not be reached: {reason}")),
            Stage::Open if reason.is_empty() => {
                AgentEvent::Failed("the agent closed the connection before the session began".to_owned())
            }
            Stage::Open => AgentEvent::Failed(format!("before the session began: {reason}")),
            Stage::Begun if reason.is_empty() && self.answered.is_none() => {
                AgentEvent::Failed("the agent closed the connection before the call was answered".to_owned())
            }
            Stage::Begun if reason.is_empty() => {
                AgentEvent::HungUp("the agent closed the connection".to_owned())
            }
            Stage::Begun => AgentEvent::Failed(reason.to_owned()),
        };
        self.stage = Stage::Over;
        self.queue.clear();
        self.event(event);
    }

    /// 20 ms of the user, at [`Leg::rate`].
    pub fn heard(&mut self, frame: &[i16], now: Tick) {
        if self.stage != Stage::Begun || self.answered.is_none() {
            return;
        }
        let clock = now.since(self.started).as_millis() as u64;
        let step = u64::from(self.wire.packet());
        // Stamps run evenly, unless sound was missing for a while.
        let mut at = match self.sent_until {
            Some(at) if at.abs_diff(clock) <= 200 => at,
            Some(_) | None => clock / 20 * 20,
        };
        let (wire, outbox) = (&mut self.wire, &mut self.outbox);
        let first = self.sent_until.is_none();
        let mut sent = false;
        self.outlet.push(frame, |packet| {
            wire.audio(packet, at, outbox);
            at += step;
            sent = true;
        });
        if sent || first {
            self.sent_until = Some(at);
        }
        if sent {
            self.alive_by = self.alive_by.and_then(|_| self.next_alive(now));
        }
        for message in self.outbox.drain(..) {
            send(LegOutput::Sound(message), &mut self.out, &mut self.record);
        }
    }

    /// The user pressed a key for so many milliseconds.
    pub fn digit(&mut self, digit: char, millis: u32, now: Tick) {
        if self.stage == Stage::Begun && (digit.is_ascii_digit() || "*#ABCD".contains(digit)) {
            self.wire.digit(digit, millis, &mut self.outbox);
            self.post(now);
        }
    }

    /// Fills the 20 ms to be played to the user, at [`Leg::rate`]; false if there is nothing to play.
    pub fn next(&mut self, frame: &mut [i16], now: Tick) -> bool {
        let Some(answered) = self.answered else { return false };
        if self.stage == Stage::Over {
            return false;
        }
        let playing = self.queue.next(frame, now);
        if playing {
            if !is_silent(frame) {
                self.record.sounded(answered, now);
            }
            self.echo();
            self.wire.depth(self.queue.millis(), &mut self.outbox);
            self.post(now);
        }
        self.leave_if_played();
        playing
    }

    /// We hang up: the dialect's stop message, then [`LegOutput::Close`]. Once only, and never after the agent's own
    /// end.
    pub fn end(&mut self, why: &str, now: Tick) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        match stage {
            Stage::Over => return,
            Stage::Opening | Stage::Open => {}
            Stage::Begun => {
                self.wire.stop(&self.session, why, &mut self.outbox);
                self.post(now);
            }
        }
        self.queue.clear();
        self.out.push_back(LegOutput::Close);
    }

    /// What is to be done next; `None` when there is nothing.
    pub fn poll(&mut self) -> Option<LegOutput> {
        self.out.pop_front()
    }

    /// When [`Leg::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Tick> {
        match self.stage {
            Stage::Opening | Stage::Over => None,
            Stage::Open | Stage::Begun => {
                [self.begin_by, self.alive_by, self.speak_by].into_iter().flatten().min()
            }
        }
    }

    /// The time from [`Leg::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Tick) {
        if matches!(self.stage, Stage::Opening | Stage::Over) {
            return;
        }
        if self.begin_by.is_some_and(|by| by <= now) {
            let seconds = BEGIN.as_secs();
            self.finish(AgentEvent::Failed(format!("the session did not begin within {seconds} s")));
            return;
        }
        if self.speak_by.is_some_and(|by| by <= now) {
            let seconds = self.session.silence.unwrap_or_default().as_secs();
            self.finish(AgentEvent::Failed(format!("it has said nothing within {seconds} s")));
            return;
        }
        if self.alive_by.is_some_and(|by| by <= now) {
            self.wire.alive(&mut self.outbox);
            self.alive_by = self.next_alive(now);
            self.post(now);
        }
    }

    /// Whether the socket may be read: no while 60 s of sound wait to be played.
    pub fn wants_input(&self) -> bool {
        self.stage != Stage::Over && self.queue.millis() < self.wire.full()
    }

    /// What is kept of this call.
    pub fn summary(&self) -> Summary {
        self.record.summary()
    }

    fn playout(&self) -> Playout {
        let (written, played) = self.queue.positions();
        Playout { written, played, rate: self.rate(), paused: self.queue.paused() }
    }

    fn start(&mut self, now: Tick) {
        self.started = now;
        let begun = self.wire.start(&self.session, &mut self.outbox);
        self.post(now);
        if begun {
            self.begin(now);
        } else if self.stage == Stage::Open {
            self.begin_by = Some(now + BEGIN);
        }
    }

    fn begin(&mut self, now: Tick) {
        if self.stage == Stage::Open {
            self.stage = Stage::Begun;
            self.begin_by = None;
            self.alive_by = self.next_alive(now);
            self.be_ready();
            self.expect_speech(now);
        }
    }

    /// From here on the user waits for it to speak.
    fn expect_speech(&mut self, now: Tick) {
        if self.stage == Stage::Begun && self.answered.is_some() && !self.spoken {
            self.speak_by = self.session.silence.map(|silence| now + silence);
        }
    }

    fn be_ready(&mut self) {
        if !self.ready {
            self.ready = true;
            self.event(AgentEvent::Ready);
        }
    }

    fn next_alive(&self, now: Tick) -> Option<Tick> {
        Some(now + Duration::from_secs(self.wire.keep_alive()?))
    }

    fn hear(&mut self, said: Said, now: Tick) {
        if self.stage == Stage::Over {
            return;
        }
        match said {
            Said::Begun => self.begin(now),
            Said::Audio { bytes, format } => {
                let samples = self.inlet.decode(&bytes, format);
                if !is_silent(samples) {
                    self.spoken = true;
                    self.speak_by = None;
                }
                let dropped = self.queue.push(samples, now);
                if self.record.overflowed(dropped) {
                    self.record.note(
                        "overflow",
                        "more sound at once than is kept: the rest is not played",
                        now,
                    );
                }
            }
            Said::Mark(name, kind) => {
                if !self.queue.mark(name, kind) {
                    self.unreadable("too many marks");
                }
            }
            Said::Clear => {
                if !self.queue.is_empty() && self.answered.is_some() {
                    self.record.barged_in(now);
                }
                self.clear();
            }
            Said::Replace => self.clear(),
            Said::ClearMarks => self.tell_marks(),
            Said::Pause(paused) => self.queue.pause(paused),
            Said::Send(message) => self.outbox.push(message),
            Said::Event(AgentEvent::HungUp(why)) => self.finish(AgentEvent::HungUp(why)),
            Said::Event(AgentEvent::Failed(why)) => self.finish(AgentEvent::Failed(why)),
            Said::Event(event) => {
                if let AgentEvent::Transcript { agent, text } = &event {
                    self.record.line(*agent, text, now);
                }
                if self.told.may(now) {
                    self.event(event);
                }
            }
            Said::WhenPlayed(event) => self.leaving = Some(event),
            Said::Note(name, detail) => self.record.note(&name, &detail, now),
            Said::Nothing => {}
            Said::Unreadable => self.unreadable("not of this dialect"),
        }
    }

    fn clear(&mut self) {
        self.inlet.reset();
        self.queue.clear();
        self.tell_marks();
        self.wire.cleared(&mut self.outbox);
    }

    fn tell_marks(&mut self) {
        while let Some(mark) = self.queue.pop_mark() {
            self.wire.mark(&mark, Fate::Cleared, &mut self.outbox);
        }
    }

    fn echo(&mut self) {
        while let Some(mark) = self.queue.reached() {
            self.wire.mark(&mark, Fate::Played, &mut self.outbox);
        }
    }

    fn leave_if_played(&mut self) {
        if self.stage != Stage::Begun || (self.answered.is_some() && !self.queue.is_empty()) {
            return;
        }
        match self.leaving.take() {
            None => {}
            Some(event @ (AgentEvent::HungUp(_) | AgentEvent::Failed(_))) => self.finish(event),
            Some(event) => self.event(event),
        }
    }

    /// The agent is done: nothing more is read or played.
    fn finish(&mut self, event: AgentEvent) {
        self.stage = Stage::Over;
        self.queue.clear();
        self.send_outbox();
        self.event(event);
        self.out.push_back(LegOutput::Close);
    }

    fn unreadable(&mut self, why: &str) {
        let count = self.record.unreadable();
        if count <= LOGGED {
            tracing::debug!(dialect = %self.session.dialect, call = %self.session.call_id, why, "agent message ignored");
        }
    }

    fn event(&mut self, event: AgentEvent) {
        self.out.push_back(LegOutput::Event(event));
    }

    fn post(&mut self, now: Tick) {
        if !self.outbox.is_empty() {
            self.alive_by = self.alive_by.and_then(|_| self.next_alive(now));
            self.send_outbox();
        }
    }

    fn send_outbox(&mut self) {
        for message in self.outbox.drain(..) {
            send(LegOutput::Send(message), &mut self.out, &mut self.record);
        }
    }
}

/// How much of what an agent tells may still be handed on.
#[derive(Debug)]
struct Told {
    left: u32,
    since: Tick,
}

impl Told {
    fn may(&mut self, now: Tick) -> bool {
        let seconds = u32::try_from(now.since(self.since).as_secs()).unwrap_or(TOLD);
        if seconds > 0 {
            self.left = self.left.saturating_add(seconds.saturating_mul(TOLD_A_SECOND)).min(TOLD);
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// Outputs that nobody fetches: the oldest sound is worth least, but only the socket's owner can drop that.
fn send(output: LegOutput, out: &mut VecDeque<LegOutput>, record: &mut Record) {
    if out.len() < OUTPUTS {
        out.push_back(output);
    } else {
        record.unsent(1);
    }
}
