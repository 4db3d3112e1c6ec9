//! The hall's WhatsApp side: webhooks in, Graph actions out.

use super::live::{LineState, Live};
use super::{CallKey, Gateway, LineOrder, LineSetup, Output, Owner, REFUSALS, WebRtc, route};
use crate::call::leg::{Direction, Event, Order, Side, Why};
use crate::call::record::PlacedBy;
use crate::clock::Now;
use crate::whatsapp::leg::{Leg, LegOutput};
use crate::whatsapp::notice::{Connect, Notice, PermissionReply, Terminate};
use crate::whatsapp::sdp::{self, Offer, Place};
use crate::whatsapp::seen::Admit;

/// How long a call may last if its number can't say (it was refused before that mattered).
const REFUSED_CALL: std::time::Duration = std::time::Duration::from_secs(1);

impl Gateway {
    /// One notice of a webhook.
    pub(super) fn noticed(&mut self, notice: Notice, now: Now) {
        let (settings, calls) = (&self.settings, &self.calls);
        // A call goes on although a reload has taken its number out.
        let ours =
            |id: &str| settings.number(id).is_some() || calls.values().any(|live| live.phone_number_id == id);
        let admit = self.seen.admit(&notice, ours, now);
        match admit {
            Admit::New => {}
            Admit::Duplicate | Admit::Foreign | Admit::Tombstoned | Admit::Stale => {
                tracing::debug!(?admit, "a notice that changes nothing");
                return;
            }
        }
        match notice {
            Notice::Connect(connect) if connect.direction == Direction::Inbound => {
                self.connected(*connect, now);
            }
            Notice::Terminate(terminate) if self.by_wacid.contains_key(&terminate.wacid) => {
                self.terminated(&terminate, now);
            }
            notice @ (Notice::Connect(_) | Notice::Status(_) | Notice::Terminate(_)) => {
                self.placed_noticed(notice, now);
            }
            Notice::Permission(reply) => self.consent_given(reply),
            Notice::Settings(settings) => {
                tracing::warn!(?settings, "Meta has changed what this number may do");
            }
        }
    }

    /// About a call that we have placed, perhaps before Graph has told us its id.
    fn placed_noticed(&mut self, notice: Notice, now: Now) {
        let named = notice.opaque().and_then(|opaque| {
            let named = self.calls.iter().find(|(_, live)| live.id == opaque && live.callee.is_some());
            named.map(|(key, _)| *key)
        });
        let Some(wacid) = notice.wacid().map(str::to_owned) else { return };
        let key = self.by_wacid.get(&wacid).copied().or(named);
        match key {
            Some(key) => {
                self.adopted(key, &wacid, now);
                self.outbound_noticed(key, notice, now);
            }
            // Another program's call, most likely: the number may be shared.
            None if self.calls.values().all(|live| live.callee.is_none() || !live.wacid.is_empty()) => {
                tracing::debug!("a notice of a call that we did not place");
            }
            None => self.orphans.keep(notice, now),
        }
    }

    /// A step of a call that we have placed.
    pub(super) fn outbound_noticed(&mut self, key: CallKey, notice: Notice, now: Now) {
        match notice {
            Notice::Connect(connect) => {
                let Some(live) = self.calls.get_mut(&key) else { return };
                live.learn(&connect.user);
                if let Some(leg) = &mut live.leg {
                    leg.media_answered(connect.sdp);
                }
                self.drain_leg(key, now);
            }
            Notice::Status(status) => {
                let Some(live) = self.calls.get_mut(&key) else { return };
                tracing::debug!(call = %live.id, status = ?status.status, "a step of our call");
                if let Some(leg) = &mut live.leg {
                    leg.status(&status.status);
                }
                self.drain_leg(key, now);
                self.leave_with_leg(key, now);
            }
            Notice::Terminate(terminate) => self.terminated(&terminate, now),
            Notice::Permission(_) | Notice::Settings(_) => {}
        }
    }

    /// A leg that is on its way out takes the call with it: the PBX need not wait for Meta's word.
    pub(super) fn leave_with_leg(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get(&key).filter(|live| !live.call.ending()) else { return };
        if let Some(why) = live.leg.as_ref().and_then(Leg::ending) {
            self.end(key, why, why.as_str(), now);
        }
    }

    /// A user has given or taken back consent.
    fn consent_given(&mut self, reply: Box<PermissionReply>) {
        let Some(number) = self.settings.number(&reply.phone_number_id) else { return };
        let number = number.id.clone();
        self.permits.forget(&reply.phone_number_id, &reply.user);
        tracing::info!(%number, accepted = reply.accepted, "a user has answered about being called");
        self.outputs.push_back(Output::Consent { number, reply });
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
        let refusal = match (&offer, route::route(&self.settings, &number)) {
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
            None => route::longest(&number),
        };
        let (call, steps) = self.new_call(Direction::Inbound, talking, now);
        let id = self.random.call_id();
        let destination = number.forward_to.as_ref();
        let key = self.admit(Live {
            wacid: connect.wacid.clone(),
            number: number.id.clone(),
            account: number.account_id.clone(),
            phone_number_id: connect.phone_number_id,
            from: connect.user.caller_user(),
            to: number.phone_number.clone(),
            destination: destination.map(route::shown).unwrap_or_default(),
            route: route::route(&self.settings, &number),
            recording: number.recording,
            payload: connect.payload,
            user: connect.user,
            offer: offer.ok(),
            ..Live::new(id, call, PlacedBy::User)
        });
        self.note(key, refusal.is_none());
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
        let Some(live) = self.calls.get_mut(&key) else { return };
        let Some(offer) = &live.offer else { return };
        let webrtc = WebRtc::Answer {
            offer: offer.for_stack(),
            remotes: offer.candidates.clone(),
            opus_pt: offer.opus_pt,
            dtmf_pt: offer.dtmf_pt,
        };
        live.waiting = steps;
        self.open_sound(key, webrtc, now);
    }

    /// Ports towards both sides. A call to an agent gets some towards the number's PBX too: a human may take over.
    pub(super) fn open_sound(&mut self, key: CallKey, webrtc: WebRtc, now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        let number = self.settings.number(&live.phone_number_id);
        let wanted = live.route.as_ref().and_then(route::Route::trunk);
        let name = wanted.or_else(|| number.and_then(|number| number.trunk.as_deref()));
        let meant = |trunk: &&route::Trunk| name.is_some_and(|name| trunk.answers_to(name));
        let trunk = self.settings.trunks.iter().filter(meant).min_by_key(|trunk| trunk.priority);
        let view = |view: &crate::sip::TrunkView| Some(&view.name) == trunk.map(|trunk| &trunk.sip.name);
        let view = self.agent.trunks().into_iter().find(view);
        let far = view.and_then(|view| view.peer).map(|way| way.address);
        if wanted.is_some_and(|name| !self.can_carry(name)) {
            self.end(key, Why::TrunkDown, "the trunk is not up", now);
            return;
        }
        let setup = LineSetup { id: live.id.clone(), webrtc, far };
        if let Some(live) = self.calls.get_mut(&key) {
            live.line = LineState::Opening;
        }
        self.outputs.push_back(Output::Line { call: key, order: LineOrder::Open(Box::new(setup)) });
    }

    /// The ports are known: the answer can be written, and the waiting orders carried out.
    pub(super) fn line_opened(&mut self, key: CallKey, stack_answer: &str, places: &[Place], now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        if live.callee.is_some() {
            return self.outbound_opened(key, stack_answer, places, now);
        }
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
            live.went_wrong(fault.code, &fault.message);
        }
        if !live.call.ending() {
            let outbound = live.call.direction() == Direction::Outbound;
            live.explain(match (terminate.answered, outbound) {
                (true, _) => "the WhatsApp user hung up",
                (false, false) => "the WhatsApp user gave up",
                (false, true) => "the WhatsApp user did not answer",
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
        match (&mut live.leg, live.callee.is_some(), order) {
            (Some(leg), _, order) => leg.order(order),
            // A call that ends before there was an answer to send can still be rejected.
            (None, false, order) => {
                live.leg.insert(Leg::inbound(live.wacid.clone(), String::new())).order(order)
            }
            // Nothing was told to Meta yet, and nothing needs to be.
            (None, true, Order::End(why)) => {
                return self.heard(key, Side::WhatsApp, Event::Ended(why), now);
            }
            (None, true, _) => {}
        }
        self.drain_leg(key, now);
    }

    /// Carries out what the WhatsApp leg wants.
    pub(super) fn drain_leg(&mut self, key: CallKey, now: Now) {
        while let Some(output) = self.calls.get_mut(&key).and_then(|live| live.leg.as_mut()?.poll()) {
            match output {
                LegOutput::Graph(action) => {
                    let Some(live) = self.calls.get(&key) else { return };
                    let id = live.phone_number_id.clone();
                    self.ask_graph(Owner::Leg(key), id, action, now);
                }
                LegOutput::TakeAnswer(sdp) => self.take_answer(key, &sdp, now),
                LegOutput::OpenGate => {
                    if let Some(live) = self.calls.get(&key) {
                        tracing::info!(call = %live.id, "the WhatsApp user is connected");
                    }
                    self.keep_company(key);
                    let order = LineOrder::OpenGate { early: false };
                    self.outputs.push_back(Output::Line { call: key, order });
                }
                LegOutput::Event(event) => {
                    if let (Event::Ringing, Some(live)) = (event, self.calls.get_mut(&key)) {
                        live.rang = true;
                    }
                    self.heard(key, Side::WhatsApp, event, now);
                    if matches!(event, Event::Ringing | Event::Answered) {
                        self.note(key, false);
                    }
                }
            }
        }
    }
}
