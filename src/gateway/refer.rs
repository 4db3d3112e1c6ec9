//! The PBX hands a talking call over: REFER (RFC 3515, RFC 5589), blind or attended, and INVITE with Replaces (RFC 3891).
//!
//! ```text
//! blind, attended:  REFER ─▶ 202, INVITE to the target ─▶ 18x ─▶ NOTIFY   ─▶ 2xx ─▶ NOTIFY 200, BYE to the old far end
//!                                                                     └▶ 4xx-6xx ─▶ NOTIFY, and the two talk on
//! replaced:         INVITE with Replaces ─▶ 200 ─▶ ACK ─▶ BYE to the old far end
//! ```
//! WhatsApp is not told: it stays on its one SSRC, and hears ring-back while nobody is there.

use std::time::Duration;

use super::live::{FarState, LineState};
use super::port::FarSound;
use super::route::Route;
use super::{CallKey, Gateway, LineOrder, Output};
use crate::call::without_numbers;
use crate::clock::{Now, Wall};
use crate::media::Alone;
use crate::sip::{Cause, EndedBy, Ending, Invite, LegId, Refer, Refusal, sdp};

/// How long whoever has handed a call over may take to hang up by itself (RFC 5589 §6.1).
const PARTING: Duration = Duration::from_secs(2);

/// The far end that has handed its call over, until it is gone.
#[derive(Debug)]
pub struct Referrer {
    /// Its leg.
    pub leg: LegId,
    /// How its sound was carried, for the case that it gets the call back.
    pub sound: Option<FarSound>,
    /// Its trunk.
    pub trunk: Option<String>,
    /// Where the call went before.
    pub route: Option<Route>,
    pub destination: String,
    /// When the call had been handed over before.
    pub transferred: Option<Wall>,
}

impl Gateway {
    /// The PBX wants the user connected to somebody else.
    pub(super) fn referred(&mut self, leg: LegId, refer: Refer, now: Now) {
        // Whoever is on its way out has nothing to hand over.
        let Some(key) = self.by_leg.get(&leg).copied() else { return self.agent.refer_told(leg, 603, now) };
        let Some(live) = self.calls.get_mut(&key) else { return };
        // Meta has not confirmed the answer yet: it takes a moment.
        if live.call.answering() && live.refer_waits.is_none() {
            live.refer_waits = Some((leg, Box::new(refer)));
            return;
        }
        let trunk =
            live.trunk.clone().or_else(|| live.route.as_ref().and_then(Route::trunk).map(str::to_owned));
        let (FarState::Up(held), Some(trunk)) = (live.far, trunk) else {
            return self.agent.refer_told(leg, 603, now);
        };
        let steps = if held == leg && live.referrer.is_none() { live.call.transfer(now) } else { None };
        let Some(steps) = steps else { return self.agent.refer_told(leg, 486, now) };
        tracing::info!(call = %live.id, attended = refer.replaces.is_some(), "the PBX hands the call over");
        live.referrer = Some(Referrer {
            leg,
            sound: live.far_sound.take(),
            trunk: live.trunk.take(),
            route: live.route.take(),
            destination: std::mem::take(&mut live.destination),
            transferred: live.transferred,
        });
        live.destination = format!("sip:{}@{trunk}", refer.to_user);
        live.route = Some(Route::Sip { trunk: trunk.clone(), user: refer.to_user.clone() });
        live.hunt = Some(vec![trunk]);
        live.unheard = None;
        live.far = FarState::Idle;
        live.far_answered = false;
        live.refer = Some(refer);
        live.transferred = Some(now.wall);
        self.outputs.push_back(Output::Line { call: key, order: LineOrder::Alone(Alone::RingBack) });
        self.note(key, false);
        self.follow(key, steps, now);
    }

    /// The two talk now: a transfer that was asked for in between can begin.
    pub(super) fn refer_at_last(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        if !live.call.talking() {
            return;
        }
        if let Some((leg, refer)) = live.refer_waits.take() {
            self.referred(leg, *refer, now);
        }
    }

    /// The target rings, or is there: whoever handed the call over hears of it.
    pub(super) fn tell_referrer(&mut self, key: CallKey, code: u16, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let Some(leg) = live.referrer.as_ref().map(|referrer| referrer.leg) else { return };
        if code >= 200 {
            live.referrer = None;
            live.refer = None;
            let before = live.parting.replace((leg, now.tick + PARTING));
            self.by_leg.remove(&leg);
            // Two that hand over one after the other within these seconds: the first has had its time.
            if let Some((before, _)) = before {
                self.agent.hang_up(before, Cause::default(), now);
            }
        }
        self.agent.refer_told(leg, code, now);
    }

    /// Whoever has handed a call over, was told so and still doesn't hang up: we do. And if the call ends, whoever still
    /// waits for its target leaves too.
    pub(super) fn part(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let over = live.call.ending();
        if let Some((leg, _)) = live.parting.take_if(|(_, until)| over || *until <= now.tick) {
            self.agent.hang_up(leg, Cause::default(), now);
        }
        if let Some(Referrer { leg, .. }) = live.referrer.take_if(|_| over) {
            self.by_leg.remove(&leg);
            self.agent.refer_told(leg, 487, now);
            self.agent.hang_up(leg, Cause::default(), now);
        }
    }

    /// The leg of a far end that has handed its call over is gone: that is how it should be.
    pub(super) fn referrer_left(&mut self, key: CallKey, leg: LegId) -> bool {
        let Some(live) = self.calls.get_mut(&key) else { return false };
        let left = live.referrer.as_ref().is_some_and(|referrer| referrer.leg == leg);
        if left {
            live.referrer = None;
        }
        left
    }

    /// The target did not come. If whoever handed the call over is still there, it has the call again.
    pub(super) fn give_back(&mut self, key: CallKey, ending: &Ending, now: Now) -> bool {
        let Some(live) = self.calls.get_mut(&key) else { return false };
        if live.referrer.is_none() || !live.call.transfer_failed() {
            return false;
        }
        let Some(referrer) = live.referrer.take() else { return false };
        tracing::info!(call = %live.id, said = %without_numbers(&ending.text),
            "the target did not come, the two talk on");
        live.went_wrong(i64::from(ending.code.unwrap_or(0)), &format!("transfer: {}", ending.text));
        live.far = FarState::Up(referrer.leg);
        live.far_answered = true;
        live.trunk = referrer.trunk;
        live.route = referrer.route;
        live.destination = referrer.destination;
        live.refer = None;
        live.transferred = referrer.transferred;
        live.far_sound = None;
        if let Some(sound) = referrer.sound {
            self.point(key, sound);
        }
        let code = ending.code.unwrap_or(if ending.by == EndedBy::Timeout { 408 } else { 503 });
        self.agent.refer_told(referrer.leg, code, now);
        self.note(key, false);
        true
    }

    /// The target came, and can't be understood: it is let go of, and whoever handed the call over has it again. False if
    /// nobody is there who did.
    pub(super) fn take_back(&mut self, key: CallKey, target: LegId, why: &str, now: Now) -> bool {
        let text = why.to_owned();
        let ending =
            Ending { by: EndedBy::Us, code: Some(488), cause: None, answered: false, lost: false, text };
        if !self.give_back(key, &ending, now) {
            return false;
        }
        self.by_leg.remove(&target);
        self.agent.hang_up(target, Cause { code: Some(488), text: "Not Acceptable Here" }, now);
        true
    }

    /// The PBX puts another telephone in the place of the one that talks.
    pub(super) fn replaced(&mut self, leg: LegId, old: LegId, invite: &Invite, now: Now) {
        match self.take_over(leg, old, invite) {
            Ok((key, ours)) => {
                self.agent.answer(leg, ours, now);
                if self.by_leg.remove(&old).is_some() {
                    self.agent.hang_up(old, Cause::default(), now);
                }
                if let Some(id) = self.calls.get(&key).map(|live| live.id.clone()) {
                    self.trace_leg(&id, leg);
                }
                self.note(key, false);
            }
            Err((code, warning)) => {
                let refusal = Refusal { code, warning: Some(warning), retry_after: None };
                self.agent.refuse(leg, refusal, now);
            }
        }
    }

    fn take_over(
        &mut self,
        leg: LegId,
        old: LegId,
        invite: &Invite,
    ) -> Result<(CallKey, String), (u16, String)> {
        let gone = || (481, "the call to be replaced is not there any more".to_owned());
        let key = self.by_leg.get(&old).copied().ok_or_else(gone)?;
        let live = self.calls.get(&key).ok_or_else(gone)?;
        let LineState::Open { rtp, secret } = live.line else { return Err(gone()) };
        let there = live.far == FarState::Up(old) && !live.call.ending();
        if !there || live.referrer.is_some() {
            return Err(gone());
        }
        let ours = sdp::offer(&self.local_media(&invite.trunk, rtp, secret));
        if let Some(theirs) = &invite.sdp {
            sdp::reply(&ours, theirs, 1).map_err(|fault| (488, fault.to_string()))?;
        }
        let live = self.calls.get_mut(&key).ok_or_else(gone)?;
        tracing::info!(call = %live.id, "the PBX puts another far end into the call");
        live.far = FarState::Up(leg);
        // Somebody has picked up, be it on behalf of a phone that only rang (RFC 3891 §3).
        live.hunt = Some(Vec::new());
        live.trunk = Some(invite.trunk.clone());
        live.destination = format!("sip:{}@{}", invite.from_user, invite.trunk);
        self.by_leg.insert(leg, key);
        Ok((key, ours))
    }
}
