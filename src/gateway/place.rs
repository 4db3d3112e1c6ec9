//! Calls that the business places: asked for by the PBX or by a program. Consent first, then the sound, then Meta.

use std::time::Duration;

use super::desk::{Answer, Place, Refusal, Ticket};
use super::live::{FarState, Live};
use super::{CallKey, Gateway, LineOrder, Output, Owner, WebRtc, route};
use crate::call::leg::{Direction, Side, Why};
use crate::call::record::{PlacedBy, TrunkPart};
use crate::call::{Limits, Step};
use crate::clock::Now;
use crate::config::NumberConfig;
use crate::sip::{self, Invite, LegId, sdp};
use crate::whatsapp::callee::Callee;
use crate::whatsapp::graph::{Action, Verdict, VerdictKind};
use crate::whatsapp::leg::Leg;
use crate::whatsapp::permit::{Denied, Permission};
use crate::whatsapp::sdp::{Answer as RemoteAnswer, Place as Candidate};

/// A call to be placed, whoever asked.
struct Wanted {
    number: NumberConfig,
    to: Callee,
    placed_by: PlacedBy,
    route: route::Route,
    destination: String,
    ticket: Option<Ticket>,
    invited: Option<LegId>,
    diverted_from: Option<String>,
    limits: Limits,
    record: bool,
}

impl Gateway {
    /// The PBX wants to call a WhatsApp user through us.
    pub(super) fn invited(&mut self, leg: LegId, invite: Invite, now: Now) {
        if let Some(old) = invite.replaces {
            return self.replaced(leg, old, &invite, now);
        }
        match self.wanted_by_pbx(leg, invite, now) {
            Ok(wanted) => self.place(wanted, now),
            Err((code, warning, retry_after)) => {
                let refusal = sip::Refusal { code, warning: Some(warning), retry_after };
                self.agent.refuse(leg, refusal, now);
            }
        }
    }

    fn wanted_by_pbx(
        &mut self,
        leg: LegId,
        invite: Invite,
        now: Now,
    ) -> Result<Wanted, (u16, String, Option<u32>)> {
        let refused = |(code, text): (u16, String)| (code, text, None);
        if self.drain_until.is_some() {
            return Err((503, "the gateway is shutting down".to_owned(), Some(10)));
        }
        let number = {
            // P-Asserted-Identity is the extension behind the PBX: From is what the operator chooses.
            let shown = [invite.shown_user.as_str(), &invite.from_user];
            route::number_of_trunk(&self.settings, &invite.trunk, &shown)
        };
        let Some(number) = number.cloned() else {
            let text = format!("no enabled [[number]] has trunk = \"{}\"", invite.trunk);
            return Err((403, text, None));
        };
        let to = route::dialled(&number, &invite.to_user).map_err(|fault| refused((404, fault)))?;
        if let Some(offer) = &invite.sdp {
            let (codecs, srtp) = self.spoken(&invite.trunk);
            sdp::answerable(&codecs, srtp, offer).map_err(|fault| refused((488, fault.to_string())))?;
        }
        self.may_place(&number, &to)
            .map_err(|refusal| match refusal {
                Refusal::Busy => (486, "this user is in a call with this number already".to_owned()),
                Refusal::ToItself => (404, "this is the business number itself".to_owned()),
                _ => (486, "max_calls is reached".to_owned()),
            })
            .map_err(refused)?;
        if let Some(trunk) = self.settings.trunk(&invite.trunk) {
            self.caps.admit(&invite.trunk, &trunk.dial, &to, now).map_err(|capped| {
                tracing::warn!(trunk = %invite.trunk, ?capped, "a call that the trunk may not make");
                let (code, text, retry_after) = capped.answer();
                (code, text.to_owned(), retry_after)
            })?;
        }
        let from = if invite.from_user.is_empty() { "anonymous" } else { &invite.from_user };
        Ok(Wanted {
            limits: self.outbound_limits(&number, crate::call::CONFIRMING),
            destination: format!("sip:{from}@{}", invite.trunk),
            route: route::Route::Sip { trunk: invite.trunk, user: invite.from_user },
            record: number.recording,
            number,
            to,
            placed_by: PlacedBy::Pbx,
            ticket: None,
            invited: Some(leg),
            diverted_from: invite.diversion,
        })
    }

    /// A program wants to call a WhatsApp user. An `Err` is the answer; else it comes later.
    pub(super) fn place_for(&mut self, ticket: Ticket, place: Place, now: Now) -> Result<(), Refusal> {
        if self.drain_until.is_some() {
            return Err(Refusal::Draining);
        }
        let number = self.settings.numbers.iter().find(|number| number.id == place.number);
        let number = number.cloned().ok_or(Refusal::NoSuchNumber)?;
        if !number.enabled {
            return Err(Refusal::NotEnabled);
        }
        let destination = place.destination.or_else(|| number.forward_to.clone());
        let destination = destination.ok_or(Refusal::NoDestination)?;
        let route = self.route_for(&number, &destination)?;
        self.may_place(&number, &place.to)?;
        self.place(
            Wanted {
                limits: self.outbound_limits(&number, self.settings.ring + Duration::from_secs(10)),
                destination: route::shown(&destination),
                route,
                record: place.record.unwrap_or(number.recording),
                number,
                to: place.to,
                placed_by: PlacedBy::Api,
                ticket: Some(ticket),
                invited: None,
                diverted_from: None,
            },
            now,
        );
        Ok(())
    }

    /// A destination that can be called now.
    pub(super) fn route_for(
        &self,
        number: &NumberConfig,
        destination: &crate::config::Destination,
    ) -> Result<route::Route, Refusal> {
        if route::is_itself(number, destination) {
            return Err(Refusal::ToItself);
        }
        let route = route::towards(&self.settings, number, destination).ok_or(Refusal::NoDestination)?;
        let Some(trunk) = route.trunk() else { return Ok(route) };
        if !self.settings.trunks.iter().any(|known| known.answers_to(trunk)) {
            return Err(Refusal::NoDestination);
        }
        if !self.can_carry(trunk) {
            return Err(Refusal::TrunkDown { trunk: trunk.to_owned() });
        }
        Ok(route)
    }

    fn may_place(&self, number: &NumberConfig, to: &Callee) -> Result<(), Refusal> {
        let own = number.phone_number.trim_start_matches('+');
        if matches!(to, Callee::Phone(digits) if digits == own) {
            return Err(Refusal::ToItself);
        }
        let running = self.calls.values().filter(|live| !live.call.ending());
        if running.clone().count() >= self.settings.max_calls {
            return Err(Refusal::Full);
        }
        // Meta allows one call of a pair at a time (138003), whoever placed it.
        let same = |live: &&Live| live.number == number.id && route::is_user(&live.user, to);
        match running.clone().find(same) {
            Some(_) => Err(Refusal::Busy),
            None => Ok(()),
        }
    }

    fn outbound_limits(&self, number: &NumberConfig, answering: Duration) -> Limits {
        Limits { ringing: self.settings.ring, answering, talking: route::longest(number) }
    }

    fn place(&mut self, wanted: Wanted, now: Now) {
        let (call, steps) = crate::call::Call::new(Direction::Outbound, wanted.limits, now);
        let id = self.random.call_id();
        let far = wanted.invited.map_or(FarState::Idle, FarState::Invited);
        // Its trunk is known though the user may never answer.
        let placed_through = match (&wanted.route, wanted.invited) {
            (route::Route::Sip { trunk, .. }, Some(_)) => trunk.clone(),
            (route::Route::Sip { .. } | route::Route::Agent(_), _) => String::new(),
        };
        let key = self.admit(Live {
            number: wanted.number.id.clone(),
            account: wanted.number.account_id.clone(),
            phone_number_id: wanted.number.phone_number_id.clone(),
            from: wanted.number.phone_number.clone(),
            to: wanted.to.to_string(),
            user: route::user_of(&wanted.to),
            destination: wanted.destination,
            recording: wanted.record,
            route: Some(wanted.route),
            callee: Some(wanted.to),
            waiting: steps,
            far,
            ticket: wanted.ticket,
            trunk_part: TrunkPart {
                name: placed_through,
                diverted_from: wanted.diverted_from,
                ..TrunkPart::default()
            },
            ..Live::new(id, call, wanted.placed_by)
        });
        if let Some(leg) = wanted.invited {
            self.by_leg.insert(leg, key);
            let id = self.calls.get(&key).map(|live| live.id.clone()).unwrap_or_default();
            self.trace_leg(&id, leg);
        }
        if let Some(live) = self.calls.get(&key) {
            tracing::info!(call = %live.id, number = %live.number, by = ?live.placed_by, "calling a WhatsApp user");
        }
        self.note(key, false);
        self.ask_permission(key, now);
    }

    /// Consent comes first: a call without it would be refused by Meta, and counts against the number.
    fn ask_permission(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        let Some(callee) = live.callee.clone() else { return };
        match self.permits.get(&live.phone_number_id, &callee, now).cloned() {
            Some(permission) => self.permission_known(key, &permission, now),
            None => {
                let id = live.phone_number_id.clone();
                self.ask_graph(Owner::Permission(key), id, Action::Permissions { user: callee }, now);
            }
        }
    }

    /// Meta has said what may be done, or has not.
    pub(super) fn permission_told(&mut self, key: CallKey, result: Result<Permission, Verdict>, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        match result {
            Ok(permission) => {
                if let Some(callee) = &live.callee {
                    self.permits.put(&live.phone_number_id, callee.clone(), permission.clone(), now);
                }
                self.permission_known(key, &permission, now);
            }
            // An answer that can't be read, or a refusal of the question alone: `connect` will tell.
            Err(verdict) if verdict.kind == VerdictKind::Refused && verdict.code != Some(138001) => {
                tracing::debug!(call = %live.id, code = verdict.code, "Graph did not say who may be called");
                self.open_outbound(key, now);
            }
            Err(verdict) => {
                live.meta_code = verdict.code;
                let why = verdict.why();
                let detail = format!("Graph call_permissions: {}", verdict.text);
                live.verdict = Some(verdict);
                self.end(key, why, &detail, now);
            }
        }
    }

    fn permission_known(&mut self, key: CallKey, permission: &Permission, now: Now) {
        match permission.may_call() {
            Ok(()) => self.open_outbound(key, now),
            Err(denied) => {
                let detail = denied.to_string();
                let why = match denied {
                    Denied::LimitReached { .. } => Why::Throttled,
                    Denied::NoPermission | Denied::Unavailable => Why::NoPermission,
                };
                if let Some(live) = self.calls.get_mut(&key) {
                    live.denied = Some(denied);
                }
                self.end(key, why, &detail, now);
            }
        }
    }

    /// The sound: our offer can only be written once our ports are known.
    fn open_outbound(&mut self, key: CallKey, now: Now) {
        if self.calls.get(&key).is_none_or(|live| live.call.ending()) {
            return;
        }
        let webrtc = WebRtc::Offer { role: self.settings.dtls_role };
        self.open_sound(key, webrtc, now);
    }

    /// The ports are known: the offer can be written, and Meta asked.
    pub(super) fn outbound_opened(
        &mut self,
        key: CallKey,
        stack_offer: &str,
        places: &[Candidate],
        now: Now,
    ) {
        let role = self.settings.dtls_role;
        let Some(live) = self.calls.get_mut(&key) else { return };
        let Some(callee) = live.callee.clone() else { return };
        match crate::whatsapp::sdp::offer(stack_offer, places, route::setup_of(role)) {
            Ok(offer) => live.leg = Some(Leg::outbound(offer, callee, live.id.clone())),
            Err(fault) => {
                let detail = format!("our offer can't be written: {fault}");
                self.end(key, Why::MediaFailed, &detail, now);
                return;
            }
        }
        let steps: Vec<Step> = std::mem::take(&mut live.waiting);
        self.follow(key, steps, now);
    }

    /// Meta's SDP answer: the media path can be set up while the user's phone rings.
    pub(super) fn take_answer(&mut self, key: CallKey, answer: &str, now: Now) {
        let Some(leg) = self.calls.get(&key).and_then(|live| live.leg.as_ref()) else { return };
        match RemoteAnswer::parse(answer) {
            Ok(answer) => {
                let order = LineOrder::Remote {
                    sdp: answer.for_stack(leg.our_sdp()),
                    remotes: answer.candidates.clone(),
                };
                self.outputs.push_back(Output::Line { call: key, order });
            }
            Err(fault) => {
                let detail = format!("Meta's answer can't be used: {fault}");
                self.end(key, Why::BadOffer, &detail, now);
            }
        }
    }

    /// Meta has given the call an id: webhooks find it by that from now on, and those that came early are heard.
    pub(super) fn adopted(&mut self, key: CallKey, wacid: &str, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        if live.wacid == wacid {
            return;
        }
        if !live.wacid.is_empty() {
            tracing::warn!(call = %live.id, "Meta has two ids for one call, the first stays");
            return;
        }
        wacid.clone_into(&mut live.wacid);
        self.by_wacid.insert(wacid.to_owned(), key);
        if let Some(leg) = &mut live.leg {
            leg.adopt(wacid);
        }
        self.drain_leg(key, now);
        if let Some(live) = self.calls.get_mut(&key)
            && let Some(ticket) = live.ticket.take()
        {
            let answer = Answer::Placed {
                id: live.id.clone(),
                destination: live.destination.clone(),
                recording: live.recording,
            };
            self.outputs.push_back(Output::Told { ticket, answer: Ok(answer) });
        }
        self.note(key, false);
        for notice in self.orphans.take(wacid) {
            self.outbound_noticed(key, notice, now);
        }
    }

    /// A call that a program asked for has come to nothing before Meta took it.
    pub(super) fn tell_failure(&mut self, key: CallKey) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let Some(ticket) = live.ticket.take() else { return };
        let refusal = match (live.denied.take(), live.verdict.take(), live.call.why()) {
            (Some(denied), _, _) => Refusal::Denied(denied),
            (None, Some(verdict), _) => Refusal::Graph(Box::new(verdict)),
            (None, None, Some(Why::Draining)) => Refusal::Draining,
            (None, None, why) => {
                let why = why.unwrap_or(Why::Fault);
                let detail = live.detail.clone().unwrap_or_else(|| why.as_str().to_owned());
                Refusal::Failed { id: live.id.clone(), why, detail }
            }
        };
        self.outputs.push_back(Output::Told { ticket, answer: Err(refusal) });
    }

    /// The user's side of a call that we placed has picked up, and its far end has still to be fetched.
    pub(super) fn keep_company(&mut self, key: CallKey) {
        let Some(live) = self.calls.get(&key) else { return };
        if live.call.target() == Side::WhatsApp && matches!(live.far, FarState::Idle) {
            let order = LineOrder::Alone(crate::media::Alone::RingBack);
            self.outputs.push_back(Output::Line { call: key, order });
        }
    }
}
