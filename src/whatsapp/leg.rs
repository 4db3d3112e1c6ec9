//! The WhatsApp leg of a call: orders in, Graph actions and events out. Who called whom is data.
//!
//! ```text
//! a user calls:
//!   Idle ──Prepare──> PreAccepting ──200──> Prepared ──Answer──> Accepting ──200──> Talking
//!     │  └──────────────────Answer (without Prepare)──────────────────^               │
//!     │                       │                 │                       │             │
//!     └ End: reject           └ End: after the  └ End: terminate        └ End: after  └ End: terminate
//!                               reply, terminate                          the reply, terminate
//! the business calls:
//!   Idle ──Dial──> Connecting ──200 or any webhook──> Dialled ──ACCEPTED──> Talking
//!     │                 │                               │                     │
//!     │                 │ End: once the wacid is known, └ End, REJECTED:      └ End: terminate
//!     │                 │ terminate                       terminate
//!     │                 └─no clear answer──> InDoubt ──a webhook tells the wacid──> terminate
//!     └ End: nothing
//! ```
//! From everywhere: Meta's terminate webhook ends it at once, with nothing more to tell Graph.
//! `Over` absorbs whatever comes late, so `Ended` is told exactly once.
//!
//! Meta's answer to our offer, the steps of the call and its end come by webhook, in any order and even
//! before Graph has answered `connect`. The one who knows the call by its opaque data tells the wacid
//! first ([`Leg::adopt`]), then the news.

use heapless::Deque;

use super::callee::Callee;
use super::graph::{Action, Verdict, VerdictKind};
use super::notice::CallStatus;
use crate::call::leg::{Direction, Event, Order, Why};

/// What the leg wants done. To be drained with [`Leg::poll`] after every input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegOutput {
    /// Have Graph do this, and report the end of its tries with [`Leg::graph_replied`].
    Graph(Action),
    /// Tell the call.
    Event(Event),
    /// Meta's SDP answer: for the WebRTC stack, now. The media path comes up while the user's phone
    /// rings; it is not the pickup.
    TakeAnswer(String),
    /// Sound may flow to WhatsApp from now on: earlier sound would start the caller's timer.
    OpenGate,
}

/// Everything that one leg can ever say: pre_accept, Ready, accept, OpenGate, Answered, terminate, Ended;
/// or connect, TakeAnswer, Ringing, OpenGate, Answered, terminate, Ended.
const MOST_OUTPUTS: usize = 8;

/// What the leg brings along: this is all that direction means.
#[derive(Debug, Clone)]
enum Role {
    /// The user calls: our answer.
    Called { answer: String },
    /// The business calls.
    Calling { to: Callee, offer: String, opaque: String },
}

/// Where the leg is. Each state holds what only it needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Graph was told nothing.
    Idle,
    /// `pre_accept` is under way.
    PreAccepting { answer: bool, end: Option<Why> },
    /// `pre_accept` was taken.
    Prepared,
    /// `accept` is under way.
    Accepting { end: Option<Why> },
    /// `connect` is under way.
    Connecting { end: Option<Why> },
    /// `connect` was taken: the user's phone rings or is about to.
    Dialled,
    /// The user has answered, or our answer was taken.
    Talking,
    /// Whether Meta has the call, or under which id, is not known; if a webhook tells, it has to end.
    InDoubt(Why),
    /// `reject` or `terminate` is under way.
    Ending(Why),
    /// `Ended` was told.
    Over,
}

/// One WhatsApp leg, from the first ringing to [`Event::Ended`].
#[derive(Debug, Clone)]
pub struct Leg {
    role: Role,
    /// Empty until Meta has told it.
    wacid: String,
    state: State,
    /// The user's phone rings: was told.
    rang: bool,
    /// Meta's answer was passed on.
    took_answer: bool,
    outputs: Deque<LegOutput, MOST_OUTPUTS>,
}

impl Leg {
    /// A user rings: `answer_sdp` is what both `pre_accept` and `accept` will carry.
    pub fn inbound(wacid: impl Into<String>, answer_sdp: String) -> Leg {
        Leg::new(Role::Called { answer: answer_sdp }, wacid.into())
    }

    /// A user is to be rung, with our offer. `opaque` comes back in every webhook of the call.
    pub fn outbound(offer_sdp: String, to: Callee, opaque: String) -> Leg {
        Leg::new(Role::Calling { to, offer: offer_sdp, opaque }, String::new())
    }

    fn new(role: Role, wacid: String) -> Leg {
        Leg { role, wacid, state: State::Idle, rang: false, took_answer: false, outputs: Deque::new() }
    }

    /// Who called whom.
    pub fn direction(&self) -> Direction {
        match self.role {
            Role::Called { .. } => Direction::Inbound,
            Role::Calling { .. } => Direction::Outbound,
        }
    }

    /// Meta's id of the call; empty as long as it is not known.
    pub fn wacid(&self) -> &str {
        &self.wacid
    }

    /// Our SDP as Meta gets it: the answer to a call of the user's, the offer of ours.
    pub fn our_sdp(&self) -> &str {
        match &self.role {
            Role::Called { answer } => answer,
            Role::Calling { offer, .. } => offer,
        }
    }

    /// `Ended` was told: pending tries of any action may be dropped.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Why the leg is on its way out. The call need not wait for [`Event::Ended`] to let go of its other
    /// end: Graph is told, and perhaps told again, for half a minute; and one that is in doubt may never
    /// end by itself. `None` while it lives, and once `Ended` was told.
    pub fn ending(&self) -> Option<Why> {
        match self.state {
            State::PreAccepting { end, .. } | State::Accepting { end } | State::Connecting { end } => end,
            State::InDoubt(why) | State::Ending(why) => Some(why),
            State::Idle | State::Prepared | State::Dialled | State::Talking | State::Over => None,
        }
    }

    /// The next thing to do, oldest first.
    pub fn poll(&mut self) -> Option<LegOutput> {
        self.outputs.pop_front()
    }

    /// The call tells the leg something. Orders that come twice or too late change nothing.
    pub fn order(&mut self, order: Order) {
        match order {
            Order::Prepare => self.prepare(),
            Order::Dial => self.dial(),
            Order::Answer => self.answer(),
            Order::End(why) => self.end(why),
            // A user who calls hears ringing already: Meta has no action for it.
            Order::Ring => {}
        }
    }

    fn prepare(&mut self) {
        if let (State::Idle, Role::Called { answer }) = (self.state, &self.role) {
            let action = Action::PreAccept { wacid: self.wacid.clone(), sdp: answer.clone() };
            self.state = State::PreAccepting { answer: false, end: None };
            self.say(LegOutput::Graph(action));
        }
    }

    fn dial(&mut self) {
        if let (State::Idle, Role::Calling { to, offer, opaque }) = (self.state, &self.role) {
            let action = Action::Connect { to: to.clone(), sdp: offer.clone(), opaque: opaque.clone() };
            self.state = State::Connecting { end: None };
            self.say(LegOutput::Graph(action));
        }
    }

    fn answer(&mut self) {
        match self.state {
            State::Idle | State::Prepared => self.accept(),
            // Two actions of one call at a time would race at Meta.
            State::PreAccepting { end, .. } => self.state = State::PreAccepting { answer: true, end },
            State::Accepting { .. }
            | State::Connecting { .. }
            | State::Dialled
            | State::Talking
            | State::InDoubt(_)
            | State::Ending(_)
            | State::Over => {}
        }
    }

    fn end(&mut self, why: Why) {
        match self.state {
            State::Idle => match self.role {
                Role::Called { .. } => self.reject(why),
                Role::Calling { .. } => self.over(why),
            },
            State::Prepared | State::Dialled | State::Talking => self.terminate(why),
            State::PreAccepting { answer, end } => {
                self.state = State::PreAccepting { answer, end: end.or(Some(why)) };
            }
            State::Accepting { end } => self.state = State::Accepting { end: end.or(Some(why)) },
            State::Connecting { end } => self.state = State::Connecting { end: end.or(Some(why)) },
            State::InDoubt(_) | State::Ending(_) | State::Over => {}
        }
    }

    /// All tries of an action are through. `action_name` is [`Action::name`]; for `connect`, the wacid is
    /// [`super::graph::connected_wacid`] of the answer. A reply to anything but what is under way changes
    /// nothing.
    pub fn graph_replied(&mut self, action_name: &str, result: Result<Option<String>, Verdict>) {
        match (self.state, action_name) {
            (State::PreAccepting { answer, end }, "pre_accept") => match (result, end) {
                (Ok(_), Some(why)) => self.terminate(why),
                (Ok(_), None) => {
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
                (Ok(_), Some(why)) => self.terminate(why),
                (Ok(_), None) => self.talk(),
                (Err(verdict), end) => match verdict.kind {
                    VerdictKind::AlreadyOver => self.over(end.unwrap_or(Why::UserGaveUp)),
                    VerdictKind::Refused
                    | VerdictKind::Misconfigured
                    | VerdictKind::Throttled
                    | VerdictKind::Unreachable => self.terminate(end.unwrap_or(Why::GraphRefused)),
                },
            },
            (State::Connecting { end }, "connect") => match (result, end) {
                (Ok(Some(wacid)), _) => self.adopt(&wacid),
                // Taken, but under which id only the webhooks will tell.
                (Ok(None), None) => self.state = State::Dialled,
                (Ok(None), Some(why)) => self.state = State::InDoubt(why),
                (Err(verdict), end) => {
                    let why = end.unwrap_or(verdict.why());
                    if verdict.in_doubt {
                        self.state = State::InDoubt(why);
                    } else {
                        self.over(why);
                    }
                }
            },
            // A webhook was faster, but did not say who.
            (State::Dialled | State::Talking, "connect") => {
                if let Ok(Some(wacid)) = result {
                    self.adopt(&wacid);
                }
            }
            // It had to end before Graph had answered.
            (State::InDoubt(why), "connect") => match result {
                Ok(Some(wacid)) => self.adopt(&wacid),
                Err(verdict) if !verdict.in_doubt => self.over(why),
                Ok(None) | Err(_) => {}
            },
            // Refused or not, nothing more can be done about it.
            (State::Ending(why), "reject" | "terminate") => self.over(why),
            (
                State::Idle
                | State::PreAccepting { .. }
                | State::Prepared
                | State::Accepting { .. }
                | State::Connecting { .. }
                | State::Dialled
                | State::Talking
                | State::InDoubt(_)
                | State::Ending(_)
                | State::Over,
                _,
            ) => {}
        }
    }

    /// Meta has named the call: in a webhook with our opaque data, or in its reply. The first name stays.
    pub fn adopt(&mut self, wacid: &str) {
        if self.wacid.is_empty() && self.state != State::Idle {
            wacid.clone_into(&mut self.wacid);
        }
        match self.state {
            State::Connecting { end: None } => self.state = State::Dialled,
            State::Connecting { end: Some(why) } | State::InDoubt(why) => self.terminate(why),
            State::Idle
            | State::PreAccepting { .. }
            | State::Prepared
            | State::Accepting { .. }
            | State::Dialled
            | State::Talking
            | State::Ending(_)
            | State::Over => {}
        }
    }

    /// The `connect` webhook of a call that we placed: Meta's media relay is ready.
    pub fn media_answered(&mut self, sdp: String) {
        let (State::Connecting { end: None } | State::Dialled | State::Talking) = self.state else { return };
        if self.direction() == Direction::Outbound && !self.took_answer {
            self.took_answer = true;
            self.say(LegOutput::TakeAnswer(sdp));
        }
    }

    /// A step of a call that we placed.
    pub fn status(&mut self, status: &CallStatus) {
        let (State::Connecting { end: None } | State::Dialled) = self.state else { return };
        match status {
            CallStatus::Ringing => {
                if !self.rang {
                    self.rang = true;
                    self.say(LegOutput::Event(Event::Ringing));
                }
            }
            CallStatus::Accepted => self.talk(),
            // Meta's terminate follows; if it does not, ours is answered.
            CallStatus::Rejected => self.terminate(Why::UserDeclined),
            CallStatus::Other(_) => {}
        }
    }

    /// Meta's terminate webhook. `answered`: it says that the call had been picked up.
    pub fn terminated(&mut self, answered: bool) {
        let by_user = match (answered, &self.role) {
            (true, _) => Why::UserHungUp,
            (false, Role::Called { .. }) => Why::UserGaveUp,
            (false, Role::Calling { .. }) => Why::UserNoAnswer,
        };
        match self.state {
            State::Idle | State::Prepared | State::Dialled => self.over(by_user),
            State::PreAccepting { end, .. } | State::Accepting { end } | State::Connecting { end } => {
                self.over(end.unwrap_or(by_user));
            }
            // It was answered, whatever the webhook leaves out.
            State::Talking => self.over(Why::UserHungUp),
            State::InDoubt(why) | State::Ending(why) => self.over(why),
            State::Over => {}
        }
    }

    fn accept(&mut self) {
        if let Role::Called { answer } = &self.role {
            let action = Action::Accept { wacid: self.wacid.clone(), sdp: answer.clone() };
            self.state = State::Accepting { end: None };
            self.say(LegOutput::Graph(action));
        }
    }

    fn talk(&mut self) {
        self.state = State::Talking;
        self.say(LegOutput::OpenGate);
        self.say(LegOutput::Event(Event::Answered));
    }

    fn reject(&mut self, why: Why) {
        self.state = State::Ending(why);
        self.say(LegOutput::Graph(Action::Reject { wacid: self.wacid.clone() }));
    }

    fn terminate(&mut self, why: Why) {
        if self.wacid.is_empty() {
            self.state = State::InDoubt(why);
            return;
        }
        self.state = State::Ending(why);
        self.say(LegOutput::Graph(Action::Terminate { wacid: self.wacid.clone() }));
    }

    fn over(&mut self, why: Why) {
        self.state = State::Over;
        // What was not sent yet has become pointless.
        for _ in 0..self.outputs.len() {
            match self.outputs.pop_front() {
                Some(output @ (LegOutput::Event(_) | LegOutput::OpenGate)) => self.say(output),
                Some(LegOutput::Graph(_) | LegOutput::TakeAnswer(_)) | None => {}
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
mod outbound_tests;
#[cfg(test)]
mod tests;
