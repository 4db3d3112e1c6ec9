//! The hall's WhatsApp side: webhooks in, Graph actions out.

use super::live::{FarState, LineState, Live};
use super::{CallKey, Gateway, LineOrder, LineSetup, Output, REFUSALS, Request, RequestId, route};
use crate::call::leg::{Direction, Order, Side, Why};
use crate::call::record::Quality;
use crate::clock::Now;
use crate::whatsapp::graph::{Action, Attempt, Next, Reply, VerdictKind, connected_wacid};
use crate::whatsapp::leg::{Leg, LegOutput};
use crate::whatsapp::notice::{CallStatus, Connect, Notice, Status, Terminate};
use crate::whatsapp::sdp::{self, Offer, Place};
use crate::whatsapp::seen::Admit;

/// How long a call may last if its number can't say (it was refused before that mattered).
const REFUSED_CALL: std::time::Duration = std::time::Duration::from_secs(1);

/// How long a call may last without a cap: a year, in seconds.
const NO_CAP: u64 = 365 * 24 * 3_600;

impl Gateway {
    /// One notice of a webhook.
    pub(super) fn noticed(&mut self, notice: Notice, now: Now) {
        let settings = &self.settings;
        let admit = self.seen.admit(&notice, |id| settings.number(id).is_some(), now);
        match admit {
            Admit::New => {}
            Admit::Duplicate | Admit::Foreign | Admit::Tombstoned | Admit::Stale => {
                tracing::debug!(?admit, "a notice that changes nothing");
                return;
            }
        }
        match notice {
            Notice::Connect(connect) => match connect.direction {
                Direction::Inbound => self.connected(*connect, now),
                Direction::Outbound => tracing::debug!("an answer to a call that we did not place"),
            },
            Notice::Terminate(terminate) => self.terminated(&terminate, now),
            Notice::Status(status) => Gateway::status(&status),
            Notice::Permission(_) | Notice::Settings(_) => {
                tracing::debug!("a notice that no call waits for");
            }
        }
    }

    /// Statuses belong to calls that the business places; an inbound call has none.
    fn status(status: &Status) {
        match &status.status {
            CallStatus::Ringing | CallStatus::Accepted | CallStatus::Rejected | CallStatus::Other(_) => {
                tracing::debug!("a status of a call that we did not place");
            }
        }
    }

    /// A user rings.
    fn connected(&mut self, connect: Connect, now: Now) {
        let Some(number) = self.settings.number(&connect.phone_number_id).cloned() else { return };
        let running = self.calls.values().filter(|live| !live.call.ending()).count();
        if self.calls.len() >= self.settings.max_calls.saturating_add(REFUSALS) {
            tracing::warn!(
                calls = self.calls.len(),
                "a call is left to time out: too many refusals under way"
            );
            return;
        }
        let offer = Offer::parse(&connect.sdp);
        let refusal = match (&offer, route::route(&number)) {
            _ if self.drain_until.is_some() => {
                Some((Why::Draining, "the gateway is shutting down".to_owned()))
            }
            _ if !number.enabled => Some((Why::NotRouted, "the number is not enabled".to_owned())),
            (_, None) => {
                Some((Why::NotRouted, "the number has no destination that can be called".to_owned()))
            }
            _ if running >= self.settings.max_calls => {
                Some((Why::OverLimit, format!("{running} calls are running, max_calls is reached")))
            }
            (Err(fault), _) => Some((Why::BadOffer, fault.to_string())),
            (Ok(_), Some(_)) => None,
        };
        let talking = match refusal {
            Some(_) => REFUSED_CALL,
            None => std::time::Duration::from_secs(number.max_call_seconds.unwrap_or(NO_CAP)),
        };
        let (call, steps) = self.new_call(Direction::Inbound, talking, now);
        let id = self.random.call_id();
        let key = self.admit(Live {
            id,
            wacid: connect.wacid.clone(),
            number: number.id.clone(),
            phone_number_id: connect.phone_number_id,
            from: connect.user.caller_user(),
            to: number.phone_number.clone(),
            destination: number.forward_to.as_ref().map(ToString::to_string).unwrap_or_default(),
            payload: connect.payload,
            user: connect.user,
            offer: offer.ok(),
            call,
            waiting: Vec::new(),
            leg: None,
            far: FarState::Idle,
            line: LineState::None,
            quality: (Quality::default(), Quality::default()),
            detail: None,
            sip_code: None,
            meta_code: None,
            recorded: false,
        });
        if let Some(live) = self.calls.get(&key) {
            tracing::info!(call = %live.id, number = %live.number, destination = %live.destination_class(),
                "a WhatsApp user calls");
        }
        match refusal {
            Some((why, detail)) => self.end(key, why, &detail, now),
            None => self.open_line(key, steps, now),
        }
    }

    /// First the sound: neither Meta nor the PBX can be told anything before our ports are known.
    fn open_line(&mut self, key: CallKey, steps: Vec<crate::call::Step>, now: Now) {
        let trunk = self.calls.get(&key).and_then(|live| self.settings.number(&live.phone_number_id));
        let trunk = trunk.and_then(route::route).and_then(|route| self.settings.trunk(&route.trunk));
        let silence = trunk.and_then(|trunk| trunk.silence);
        let name = trunk.map(|trunk| trunk.sip.name.clone());
        let peer = self.agent.trunks().into_iter().find(|view| Some(&view.name) == name.as_ref());
        let Some(view) = peer.filter(|view| view.peer.is_some() && view.state.is_up()) else {
            self.end(key, Why::TrunkDown, "the trunk is not up", now);
            return;
        };
        let Some(live) = self.calls.get_mut(&key) else { return };
        let (Some(offer), Some(far)) = (&live.offer, view.peer) else { return };
        let setup = LineSetup {
            offer: offer.for_stack(),
            remotes: offer.candidates.clone(),
            opus_pt: offer.opus_pt,
            dtmf_pt: offer.dtmf_pt,
            far,
            far_silence: silence,
        };
        live.line = LineState::Opening;
        live.waiting = steps;
        self.outputs.push_back(Output::Line { call: key, order: LineOrder::Open(Box::new(setup)) });
    }

    /// The ports are known: the answer can be written, and the waiting orders carried out.
    pub(super) fn line_opened(&mut self, key: CallKey, stack_answer: &str, places: &[Place], now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let Some(offer) = &live.offer else { return };
        match sdp::answer(stack_answer, offer, places) {
            Ok(answer) => live.leg = Some(Leg::inbound(live.wacid.clone(), answer)),
            Err(fault) => {
                let detail = format!("our answer can't be written: {fault}");
                self.end(key, Why::MediaFailed, &detail, now);
                return;
            }
        }
        let steps = std::mem::take(&mut live.waiting);
        self.follow(key, steps, now);
    }

    /// Meta says that a call is over.
    fn terminated(&mut self, terminate: &Terminate, now: Now) {
        let Some(key) = self.by_wacid.get(&terminate.wacid).copied() else { return };
        let Some(live) = self.calls.get_mut(&key) else { return };
        if let Some(fault) = &terminate.error {
            live.meta_code = Some(fault.code);
            live.explain(&format!("Meta: {} {}", fault.code, fault.message));
        }
        if !live.call.ending() {
            live.explain(if terminate.answered {
                "the WhatsApp user hung up"
            } else {
                "the WhatsApp user gave up"
            });
        }
        match &mut live.leg {
            Some(leg) => {
                leg.terminated(terminate.answered);
                self.drain_leg(key, now);
            }
            // The line was still opening: nothing has been told to Meta, and nothing needs to be.
            None => {
                let why = if terminate.answered { Why::UserHungUp } else { Why::UserGaveUp };
                self.heard(key, Side::WhatsApp, crate::call::leg::Event::Ended(why), now);
            }
        }
    }

    pub(super) fn order_whatsapp(&mut self, key: CallKey, order: Order, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        // A call that ends before there was an answer to send can still be rejected.
        let leg = live.leg.get_or_insert_with(|| Leg::inbound(live.wacid.clone(), String::new()));
        leg.order(order);
        self.drain_leg(key, now);
    }

    /// Carries out what the WhatsApp leg wants.
    fn drain_leg(&mut self, key: CallKey, now: Now) {
        while let Some(output) = self.calls.get_mut(&key).and_then(|live| live.leg.as_mut()?.poll()) {
            match output {
                LegOutput::Graph(action) => self.ask_graph(key, action, now),
                LegOutput::OpenGate => {
                    if let Some(live) = self.calls.get(&key) {
                        tracing::info!(call = %live.id, "call answered");
                    }
                    self.outputs.push_back(Output::Line { call: key, order: LineOrder::OpenGate });
                }
                LegOutput::TakeAnswer(_) => tracing::error!("an answer to a call that we did not place"),
                LegOutput::Event(event) => self.heard(key, Side::WhatsApp, event, now),
            }
        }
    }

    fn ask_graph(&mut self, key: CallKey, action: Action, now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        self.next += 1;
        let id = RequestId(self.next);
        tracing::debug!(call = %live.id, action = action.name(), "asking Graph");
        let request = Request {
            call: key,
            phone_number_id: live.phone_number_id.clone(),
            name: action.name(),
            attempt: Attempt::new(action, now),
            retry_at: None,
        };
        self.requests.insert(id, request);
        self.send_request(id, now);
    }

    pub(super) fn send_request(&mut self, id: RequestId, now: Now) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.retry_at = None;
        let patience = request.attempt.timeout(now);
        let request = request.attempt.request(&request.phone_number_id);
        self.outputs.push_back(Output::Graph { id, request, patience });
    }

    pub(super) fn graph_replied(&mut self, id: RequestId, reply: &Reply, now: Now) {
        let jitter = self.random.next();
        let Some(request) = self.requests.get_mut(&id) else { return };
        let result = match request.attempt.replied(reply, now, jitter) {
            Next::Retry { at } => {
                tracing::debug!(action = request.name, "Graph is asked again");
                request.retry_at = Some(at);
                return;
            }
            Next::Done(body) => Ok(connected_wacid(&body)),
            Next::Failed(verdict) => Err(verdict),
        };
        let Some(request) = self.requests.remove(&id) else { return };
        let Some(live) = self.calls.get_mut(&request.call) else { return };
        if let Err(verdict) = &result {
            match verdict.kind {
                VerdictKind::AlreadyOver => {
                    tracing::debug!(call = %live.id, "Graph: the call is over already")
                }
                VerdictKind::Misconfigured => {
                    tracing::warn!(call = %live.id, action = request.name, code = verdict.code, text = %verdict.text,
                        cure = verdict.cure, "Graph refuses: this is a matter of configuration");
                }
                VerdictKind::Refused | VerdictKind::Throttled | VerdictKind::Unreachable => {
                    tracing::info!(call = %live.id, action = request.name, code = verdict.code, text = %verdict.text,
                        "Graph refuses");
                }
            }
            live.meta_code = live.meta_code.or(verdict.code);
            if verdict.kind != VerdictKind::AlreadyOver && !live.call.ending() {
                live.explain(&format!("Graph {}: {}", request.name, verdict.text));
            }
        }
        // The PBX need not ring on while Meta is told `reject` or `terminate`.
        let refused = matches!(&result, Err(verdict) if verdict.kind != VerdictKind::AlreadyOver);
        let takes_the_call =
            matches!(request.attempt.action(), Action::PreAccept { .. } | Action::Accept { .. });
        if let Some(leg) = &mut live.leg {
            leg.graph_replied(request.name, result);
        }
        self.drain_leg(request.call, now);
        if refused && takes_the_call {
            self.end(request.call, Why::GraphRefused, "Graph refused", now);
        }
    }
}
