//! The WhatsApp leg of a call: orders in, Graph actions and events out.
//!
//! ```text
//!   Offered ──Prepare──> PreAccepting ──200──> Prepared ──Answer──> Accepting ──200──> Talking
//!      │  └──────────────────Answer (without Prepare)──────────────────^                  │
//!      │                        │                 │                       │               │
//!      └─ End: reject           └ End: after the  └ End: terminate        └ End: after    └ End: terminate
//!                                 reply, terminate                          the reply, terminate
//! ```
//! From everywhere: Meta's terminate webhook ends it at once, with nothing more to tell Graph.
//! `Over` absorbs whatever comes late, so `Ended` is told exactly once.

use heapless::Deque;

use super::graph::{Action, Verdict, VerdictKind};
use crate::call::leg::{Event, Order, Why};

/// What the leg wants done. To be drained with [`Leg::poll`] after every input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegOutput {
    /// Have Graph do this, and report the end of its tries with [`Leg::graph_replied`].
    Graph(Action),
    /// Tell the call.
    Event(Event),
    /// Sound may flow to WhatsApp from now on: earlier sound would start the caller's timer.
    OpenGate,
}

/// Everything that one leg can ever say: pre_accept, Ready, accept, OpenGate, Answered, terminate, Ended.
const MOST_OUTPUTS: usize = 8;

/// Where the leg is. Each state holds what only it needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The user rings; Graph was told nothing.
    Offered,
    /// `pre_accept` is under way.
    PreAccepting { answer: bool, end: Option<Why> },
    /// `pre_accept` was taken.
    Prepared,
    /// `accept` is under way.
    Accepting { end: Option<Why> },
    /// `accept` was taken.
    Talking,
    /// `reject` or `terminate` is under way.
    Ending(Why),
    /// `Ended` was told.
    Over,
}

/// One WhatsApp leg, from the ringing to [`Event::Ended`].
#[derive(Debug, Clone)]
pub struct Leg {
    wacid: String,
    answer: String,
    state: State,
    outputs: Deque<LegOutput, MOST_OUTPUTS>,
}

impl Leg {
    /// A user rings: `answer_sdp` is what both `pre_accept` and `accept` will carry.
    pub fn inbound(wacid: impl Into<String>, answer_sdp: String) -> Leg {
        Leg { wacid: wacid.into(), answer: answer_sdp, state: State::Offered, outputs: Deque::new() }
    }

    /// Meta's id of the call.
    pub fn wacid(&self) -> &str {
        &self.wacid
    }

    /// `Ended` was told: pending tries of any action may be dropped.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The next thing to do, oldest first.
    pub fn poll(&mut self) -> Option<LegOutput> {
        self.outputs.pop_front()
    }

    /// The call tells the leg something. Orders that come twice or too late change nothing.
    pub fn order(&mut self, order: Order) {
        match order {
            Order::Prepare => self.prepare(),
            Order::Answer => self.answer(),
            Order::End(why) => self.end(why),
            // The user rings us and hears ringing already: Meta has no action for either.
            Order::Dial | Order::Ring => {}
        }
    }

    fn prepare(&mut self) {
        match self.state {
            State::Offered => {
                self.state = State::PreAccepting { answer: false, end: None };
                let action = Action::PreAccept { wacid: self.wacid.clone(), sdp: self.answer.clone() };
                self.say(LegOutput::Graph(action));
            }
            State::PreAccepting { .. }
            | State::Prepared
            | State::Accepting { .. }
            | State::Talking
            | State::Ending(_)
            | State::Over => {}
        }
    }

    fn answer(&mut self) {
        match self.state {
            State::Offered | State::Prepared => self.accept(),
            // Two actions of one call at a time would race at Meta.
            State::PreAccepting { end, .. } => self.state = State::PreAccepting { answer: true, end },
            State::Accepting { .. } | State::Talking | State::Ending(_) | State::Over => {}
        }
    }

    fn end(&mut self, why: Why) {
        match self.state {
            State::Offered => self.reject(why),
            State::Prepared | State::Talking => self.terminate(why),
            State::PreAccepting { answer, end } => {
                self.state = State::PreAccepting { answer, end: end.or(Some(why)) };
            }
            State::Accepting { end } => self.state = State::Accepting { end: end.or(Some(why)) },
            State::Ending(_) | State::Over => {}
        }
    }

    /// All tries of an action are through. `action_name` is [`Action::name`]; a reply to anything but
    /// what is under way changes nothing.
    pub fn graph_replied(&mut self, action_name: &str, result: Result<(), Verdict>) {
        match (self.state, action_name) {
            (State::PreAccepting { answer, end }, "pre_accept") => match (result, end) {
                (Ok(()), Some(why)) => self.terminate(why),
                (Ok(()), None) => {
                    self.state = State::Prepared;
                    self.say(LegOutput::Event(Event::Ready));
                    if answer {
                        self.accept();
                    }
                }
                (Err(verdict), end) => {
                    let why = end.unwrap_or(Why::GraphRefused);
                    match verdict.kind {
                        VerdictKind::AlreadyOver => self.over(end.unwrap_or(Why::UserGaveUp)),
                        // It may have been taken, and only the answer was lost.
                        VerdictKind::Unreachable => self.terminate(why),
                        VerdictKind::Refused | VerdictKind::Misconfigured | VerdictKind::Throttled => {
                            self.reject(why)
                        }
                    }
                }
            },
            (State::Accepting { end }, "accept") => match (result, end) {
                (Ok(()), Some(why)) => self.terminate(why),
                (Ok(()), None) => {
                    self.state = State::Talking;
                    self.say(LegOutput::OpenGate);
                    self.say(LegOutput::Event(Event::Answered));
                }
                (Err(verdict), end) => match verdict.kind {
                    VerdictKind::AlreadyOver => self.over(end.unwrap_or(Why::UserGaveUp)),
                    VerdictKind::Refused
                    | VerdictKind::Misconfigured
                    | VerdictKind::Throttled
                    | VerdictKind::Unreachable => self.terminate(end.unwrap_or(Why::GraphRefused)),
                },
            },
            // Refused or not, nothing more can be done about it.
            (State::Ending(why), "reject" | "terminate") => self.over(why),
            (
                State::Offered
                | State::PreAccepting { .. }
                | State::Prepared
                | State::Accepting { .. }
                | State::Talking
                | State::Ending(_)
                | State::Over,
                _,
            ) => {}
        }
    }

    /// Meta's terminate webhook. `answered`: it says that the call had been picked up.
    pub fn terminated(&mut self, answered: bool) {
        let by_user = if answered { Why::UserHungUp } else { Why::UserGaveUp };
        match self.state {
            State::Offered | State::Prepared => self.over(by_user),
            State::PreAccepting { end, .. } | State::Accepting { end } => self.over(end.unwrap_or(by_user)),
            // Our accept was taken, so it was answered, whatever the webhook leaves out.
            State::Talking => self.over(Why::UserHungUp),
            State::Ending(why) => self.over(why),
            State::Over => {}
        }
    }

    fn accept(&mut self) {
        self.state = State::Accepting { end: None };
        let action = Action::Accept { wacid: self.wacid.clone(), sdp: self.answer.clone() };
        self.say(LegOutput::Graph(action));
    }

    fn reject(&mut self, why: Why) {
        self.state = State::Ending(why);
        self.say(LegOutput::Graph(Action::Reject { wacid: self.wacid.clone() }));
    }

    fn terminate(&mut self, why: Why) {
        self.state = State::Ending(why);
        self.say(LegOutput::Graph(Action::Terminate { wacid: self.wacid.clone() }));
    }

    fn over(&mut self, why: Why) {
        self.state = State::Over;
        // What was not sent yet has become pointless.
        for _ in 0..self.outputs.len() {
            match self.outputs.pop_front() {
                Some(output @ (LegOutput::Event(_) | LegOutput::OpenGate)) => self.say(output),
                Some(LegOutput::Graph(_)) | None => {}
            }
        }
        self.say(LegOutput::Event(Event::Ended(why)));
    }

    fn say(&mut self, output: LegOutput) {
        // There is room for everything that the states allow, so this can only be a defect.
        if let Err(output) = self.outputs.push_back(output) {
            tracing::error!(wacid = %self.wacid, ?output, "a WhatsApp leg said more than it can");
        }
    }
}

#[cfg(test)]
mod tests;
