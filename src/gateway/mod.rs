//! THE HALL: every call, and who is told what. It knows each room below and holds no socket.
//!
//! ```text
//!   Input ──▶ handle() ──▶ call machine ──▶ orders ──▶ WhatsApp leg ──▶ Output::Graph
//!                                             │          SIP user agent ──▶ Output::Sip
//!                                             └────────▶ Output::Line
//! ```
//! `handle(input, now)`, then `poll()` until it is empty, then wait until `poll_timeout()` or the next input.

mod agent;
mod caps;
pub mod desk;
mod far;
mod hunt;
pub mod line;
mod live;
mod orphans;
mod place;
mod port;
mod refer;
mod requests;
mod route;
mod taping;
#[cfg(test)]
mod tests;
mod trace;
mod whatsapp;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use caps::counted;
pub use live::CallKey;
pub use port::{
    AgentSetup, FarSound, Input, LineEvent, LineOrder, LineSetup, Output, RequestId, Secret, TapeEvent,
    TapeSetup, WebRtc,
};
pub use route::Settings;
pub use trace::Traced;

use crate::call::leg::{Side, Why};
use crate::call::{Call, Step, without_numbers};
use crate::clock::{Now, Tick, Wall};
use crate::sip;
use crate::whatsapp::permit::Permits;
use crate::whatsapp::seen::Seen;
use live::{LineState, Live};
use orphans::Orphans;
use requests::{Owner, Request};

/// Refusals that may be on their way to Meta at once, beside the calls: what comes above that is dropped,
/// and Meta times it out.
const REFUSALS: usize = 64;

/// A sound thread that doesn't say goodbye within this time is not waited for.
const CLOSING: Duration = Duration::from_secs(5);

/// Time for the trunks to answer our un-REGISTER, and for a lost BYE to be sent again.
const LEAVING: Duration = Duration::from_secs(2);

/// With every trunk gone, the wait is this short: one repeat (RFC 3261 T1).
const LEFT: Duration = Duration::from_millis(500);

/// Every call of this gateway.
pub struct Gateway {
    settings: Settings,
    random: route::Random,
    agent: sip::UserAgent,
    seen: Seen,
    calls: BTreeMap<CallKey, Live>,
    by_wacid: BTreeMap<String, CallKey>,
    /// The far legs that are some call's.
    by_leg: BTreeMap<sip::LegId, CallKey>,
    legs: u64,
    permits: Permits,
    caps: caps::Caps,
    orphans: Orphans,
    requests: BTreeMap<RequestId, Request>,
    next: u64,
    outputs: VecDeque<Output>,
    drain_until: Option<Tick>,
    leaving: Option<Tick>,
    finished: bool,
    /// The trunks that have said how they are.
    heard_of: BTreeMap<String, hunt::Standing>,
    trace: trace::Trace,
}

impl Gateway {
    /// A gateway without calls. `seed` makes ids, tags and branches: never the same twice.
    pub fn new(settings: Settings, seed: u64, now: Now) -> Gateway {
        let mut agent = sip::UserAgent::new(sip::Settings {
            user_agent: settings.user_agent.clone(),
            seed,
            ring_timeout: settings.ring,
            max_per_second: settings.max_per_second,
            max_dialogs: settings.max_calls.saturating_mul(2) + REFUSALS,
        });
        for trunk in &settings.trunks {
            agent.add_trunk(trunk.sip.clone(), now);
        }
        let mut gateway = Gateway {
            settings,
            random: route::Random::new(seed),
            agent,
            seen: Seen::new(),
            calls: BTreeMap::new(),
            by_wacid: BTreeMap::new(),
            by_leg: BTreeMap::new(),
            legs: 0,
            permits: Permits::new(),
            caps: caps::Caps::default(),
            orphans: Orphans::default(),
            requests: BTreeMap::new(),
            next: 0,
            outputs: VecDeque::new(),
            drain_until: None,
            leaving: None,
            finished: false,
            heard_of: BTreeMap::new(),
            trace: trace::Trace::default(),
        };
        gateway.settle(now);
        gateway
    }

    /// A call out that came by this trunk and began before this process did, as the history has it, the oldest first: it
    /// counts for `dial_per_minute` and `dial_per_day`.
    pub fn dialled_before(&mut self, trunk: &str, at: Wall, now: Now) {
        if let Some(known) = self.settings.trunk(trunk) {
            self.caps.remember(trunk, &known.dial, at, now);
        }
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Notices(notices) => {
                for notice in notices {
                    self.noticed(notice, now);
                }
            }
            Input::Sip { from, bytes } => {
                self.trace.keep(false, from, &bytes, now);
                self.agent.receive(&bytes, from, now);
            }
            Input::SipUnreachable { way, why } => self.agent.unreachable(way, &why, now),
            Input::PeerResolved { trunk, found } => {
                self.trace.found(&found);
                self.agent.set_peers(&trunk, found, now);
            }
            Input::GraphReplied { request, reply } => self.graph_replied(request, &reply, now),
            Input::Line { call, event } => self.line_said(call, event, now),
            Input::Tape { call, event } => self.tape_event(call, event),
            Input::Minted { call, result } => self.minted(call, result, now),
            Input::Written { call } => self.written(call),
            Input::Asked { ticket, command } => self.asked(ticket, command, now),
            Input::Interrupted(calls) => self.close_interrupted(calls, now),
            Input::Reload(settings) => self.reload(*settings, now),
            Input::Drain => self.drain(now),
        }
        self.settle(now);
    }

    /// The time of [`Gateway::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.agent.handle_timeout(now);
        // What it has given up is heard before the calls' own deadlines: a transfer that comes to nothing is no end.
        self.drain_agent(now);
        let due: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| request.retry_at.is_some_and(|at| at <= now.tick))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.send_request(id, now);
        }
        let due: Vec<CallKey> = self
            .calls
            .iter()
            .filter(|(_, live)| live.deadline().is_some_and(|at| at <= now.tick))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let Some(live) = self.calls.get_mut(&key) else { continue };
            let steps = live.call.timeout(now);
            live.line_overdue(now);
            live.tape_overdue(now);
            self.part(key, now);
            self.follow(key, steps, now);
        }
        if self.drain_until.is_some_and(|at| at <= now.tick) {
            let keys: Vec<CallKey> = self.calls.keys().copied().collect();
            for key in keys {
                self.end(key, Why::Draining, "the gateway is shutting down", now);
            }
        }
        self.settle(now);
    }

    /// What to do next, until there is nothing.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Gateway::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Tick> {
        let requests = self.requests.values().filter_map(|request| request.retry_at);
        let calls = self.calls.values().filter_map(Live::deadline);
        // Once it has passed, the calls' own deadlines bring them to their end.
        let drain = self.drain_until.filter(|_| self.calls.values().any(|live| !live.call.ending()));
        requests.chain(calls).chain(drain).chain(self.leaving).chain(self.agent.poll_timeout()).min()
    }

    /// Everything is as the file says now. Calls that run on a trunk that was taken out go on to their end.
    fn reload(&mut self, settings: Settings, now: Now) {
        let before = std::mem::replace(&mut self.settings, settings).trunks;
        for gone in before.iter().filter(|trunk| self.settings.trunk(&trunk.sip.name).is_none()) {
            tracing::info!(trunk = %gone.sip.name, "reload: a trunk is gone");
            self.agent.remove_trunk(&gone.sip.name, now);
            self.heard_of.remove(&gone.sip.name);
            self.outputs.push_back(Output::Forget { trunk: gone.sip.name.clone() });
        }
        for trunk in &self.settings.trunks {
            let name = trunk.sip.name.clone();
            match before.iter().find(|known| known.sip.name == name) {
                Some(known) if known == trunk => continue,
                Some(_) => {
                    tracing::info!(trunk = %name, "reload: a changed trunk");
                    self.agent.change_trunk(trunk.sip.clone(), now);
                }
                None => {
                    tracing::info!(trunk = %name, "reload: a new trunk");
                    self.agent.add_trunk(trunk.sip.clone(), now);
                }
            }
            self.outputs.push_back(Output::Find { trunk: name });
        }
        tracing::info!(numbers = self.settings.numbers.len(), "reloaded");
    }

    fn drain(&mut self, now: Now) {
        if self.drain_until.is_none() {
            tracing::info!(calls = self.calls.len(), "draining: no new calls");
            self.drain_until = Some(now.tick + self.settings.drain);
        } else {
            // Asked twice: the operator does not want to wait.
            self.drain_until = Some(now.tick);
        }
    }

    /// Everything that follows from what was just said, until nothing follows any more.
    fn settle(&mut self, now: Now) {
        self.drain_agent(now);
        let over: Vec<CallKey> =
            self.calls.iter().filter(|(_, live)| live.ready_to_record()).map(|(key, _)| *key).collect();
        for key in over {
            if let Some(live) = self.calls.get_mut(&key) {
                if let Some(callee) = &live.callee {
                    self.permits.forget_callee(&live.phone_number_id, callee.clone());
                }
                let record = live.record(now);
                tracing::info!(call = %record.id, why = %record.why, seconds = record.talk_seconds as u64,
                    detail = %without_numbers(&record.detail), "call ended");
                self.outputs.push_back(Output::Record { call: key, record: Box::new(record) });
            }
        }
        if self.drain_until.is_some() && self.calls.is_empty() && !self.finished {
            match self.leaving {
                None => {
                    self.agent.shutdown(now);
                    self.leaving = Some(now.tick + LEAVING);
                    self.drain_agent(now);
                }
                Some(at) if at <= now.tick => {
                    self.leaving = None;
                    self.finished = true;
                    self.outputs.push_back(Output::Finished);
                }
                Some(at) => {
                    let gone = |trunk: &sip::TrunkView| trunk.state == sip::TrunkState::Stopped;
                    if self.agent.trunks().iter().all(gone) {
                        self.leaving = Some(at.min(now.tick + LEFT));
                    }
                }
            }
        }
    }

    /// The only place where a call is put in.
    fn admit(&mut self, live: Live) -> CallKey {
        self.next += 1;
        let key = CallKey(self.next);
        if !live.wacid.is_empty() {
            self.by_wacid.insert(live.wacid.clone(), key);
        }
        self.calls.insert(key, live);
        key
    }

    /// The only place where a call is taken out: its record is written.
    fn written(&mut self, key: CallKey) {
        if let Some(live) = self.calls.remove(&key) {
            self.by_wacid.remove(&live.wacid);
            self.by_leg.retain(|_, call| *call != key);
            self.requests.retain(|_, request| !request.is_of(key));
        }
    }

    /// A call is to end, and this is what an operator should know about it.
    fn end(&mut self, key: CallKey, why: Why, detail: &str, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        live.explain(detail);
        let steps = live.call.end(why, now);
        self.follow(key, steps, now);
    }

    /// A leg of a call has said something.
    fn heard(&mut self, key: CallKey, side: Side, event: crate::call::leg::Event, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let steps = live.call.heard(side, event, now);
        self.follow(key, steps, now);
        self.refer_at_last(key, now);
        self.ask_to_record(key);
    }

    /// Carries out what the call machine ordered.
    fn follow(&mut self, key: CallKey, steps: Vec<Step>, now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        if live.call.ending() {
            self.part(key, now);
            let Some(live) = self.calls.get_mut(&key) else { return };
            if live.close_line(now, CLOSING) {
                self.outputs.push_back(Output::Line { call: key, order: LineOrder::Close });
            }
            self.tell_failure(key);
        }
        for Step { side, order } in steps {
            match side {
                Side::WhatsApp => self.order_whatsapp(key, order, now),
                Side::Far => self.order_far(key, order, now),
            }
        }
    }

    /// A sound thread has said something.
    fn line_said(&mut self, key: CallKey, event: LineEvent, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        match event {
            LineEvent::Opened { described, places, rtp, secret } => {
                if let LineState::Opening = live.line {
                    live.line = LineState::Open { rtp, secret };
                    self.line_opened(key, &described, &places, now);
                }
            }
            LineEvent::OpenFailed(what) => {
                live.line = LineState::Closed;
                self.end(key, Why::MediaFailed, &what, now);
            }
            LineEvent::Connected => {
                tracing::debug!(call = %live.id, "ICE and DTLS are up");
                // A user who is being called hears nothing of it yet, and Meta wants an unbroken stream.
                if live.callee.is_some() && !live.call.ending() {
                    let order = LineOrder::OpenGate { early: true };
                    self.outputs.push_back(Output::Line { call: key, order });
                }
            }
            LineEvent::Lost(what) => self.end(key, Why::MediaFailed, what, now),
            LineEvent::UserSilent => {
                self.end(key, Why::UserSilent, "nothing came from WhatsApp for 30 s", now);
            }
            LineEvent::FarSilent => {
                self.end(key, Why::FarSilent, "nothing came from the PBX for too long", now);
            }
            LineEvent::FarPauses => {
                if let live::FarState::Up(leg) = live.far {
                    self.agent.doubt(leg, now);
                    self.drain_agent(now);
                }
            }
            LineEvent::Digit(digit, millis) => {
                if let live::FarState::Up(leg) = live.far {
                    self.agent.send_digit(leg, digit, millis, now);
                    self.drain_agent(now);
                }
            }
            LineEvent::Tape(news) => self.tape_said(key, news, now),
            LineEvent::Agent(event) => self.agent_event(key, event, now),
            LineEvent::AgentOver(summary) => self.agent_over(key, *summary),
            LineEvent::Fault(what) => {
                tracing::error!(call = %live.id, what, "the sound of a call stopped: this is a bug");
                live.line = LineState::Closed;
                live.tape_ends(now);
                self.end(key, Why::Fault, &what, now);
            }
            LineEvent::Closed { whatsapp, far } => {
                live.quality = (whatsapp, far);
                live.line = LineState::Closed;
                live.tape_ends(now);
            }
        }
    }

    /// What is known of a call goes where a power cut can't take it.
    fn note(&mut self, key: CallKey, received: bool) {
        let Some(live) = self.calls.get(&key) else { return };
        if !live.recorded {
            self.outputs.push_back(Output::Note { running: Box::new(live.running()), received });
        }
    }

    fn call_limits(&self, talking: Duration) -> crate::call::Limits {
        // The user agent's own ring timer ends the INVITE first, with a CANCEL and a code.
        crate::call::Limits {
            ringing: self.settings.ring + Duration::from_secs(10),
            answering: crate::call::CONFIRMING,
            talking,
        }
    }

    fn new_call(
        &mut self,
        direction: crate::call::leg::Direction,
        talking: Duration,
        now: Now,
    ) -> (Call, Vec<Step>) {
        Call::new(direction, self.call_limits(talking), now)
    }
}
