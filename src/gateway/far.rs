//! The hall's far side: the PBX is dialled, heard and hung up on.

use super::live::{FarState, LineState};
use super::route::Route;
use super::{CallKey, Gateway, LineOrder, Output, route};
use crate::call::leg::{Event, Order, Side, Why};
use crate::call::record::PlacedBy;
use crate::clock::Now;
use crate::media::{FarMedia, Law};
use crate::sip::{self, Cause, Dial, DialError, EndedBy, Ending, LegId, sdp};
use crate::whatsapp::verdict;
use std::net::SocketAddr;

/// The payload type that we offer telephone-event with, the one that most PBXs use themselves.
const DTMF_PT: u8 = 101;

impl Gateway {
    pub(super) fn order_far(&mut self, key: CallKey, order: Order, now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        match (order, live.invited()) {
            (Order::Dial, _) | (Order::Answer, None) => self.dial_far(key, now),
            (Order::Answer, Some(leg)) => self.answer_far(key, leg, now),
            (Order::Ring, Some(leg)) => {
                self.agent.ring(leg, now);
                self.drain_agent(now);
            }
            (Order::End(why), _) => self.end_far(key, why, now),
            // A far end that is only fetched when the user has answered hears of nothing before.
            (Order::Prepare, _) | (Order::Ring, None) => {}
        }
    }

    /// Our side of the sound towards a trunk.
    fn local_media(&mut self, trunk: &str, rtp: SocketAddr) -> sdp::LocalMedia {
        let laws = self.settings.trunk(trunk).map(|trunk| trunk.laws.clone()).unwrap_or_default();
        sdp::LocalMedia { rtp, session: self.random.next() >> 2, version: 1, laws, dtmf_pt: DTMF_PT }
    }

    /// 200: the user has answered the PBX's call.
    fn answer_far(&mut self, key: CallKey, leg: LegId, now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        let (LineState::Open { rtp }, Some(Route::Sip { trunk, .. })) = (live.line, live.route.clone())
        else {
            return;
        };
        let theirs = live.far_offer.clone();
        let ours = sdp::offer(&self.local_media(&trunk, rtp));
        let described = match &theirs {
            Some(theirs) => sdp::reply(&ours, theirs, 1),
            None => Ok(ours),
        };
        match described {
            Ok(described) => {
                if let Some(live) = self.calls.get_mut(&key) {
                    live.far = FarState::Up(leg);
                }
                self.agent.answer(leg, described, now);
                self.drain_agent(now);
            }
            Err(fault) => {
                let detail = format!("the PBX's offer can't be answered: {fault}");
                self.end(key, Why::FarUnreachable, &detail, now);
            }
        }
    }

    /// The INVITE.
    pub(super) fn dial_far(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        let LineState::Open { rtp } = live.line else { return };
        let (trunk, user) = match live.route.clone() {
            Some(Route::Sip { trunk, user }) => (trunk, user),
            Some(Route::Agent(agent)) => return self.dial_agent(key, agent, now),
            None => return self.far_ended(key, Why::NotRouted, now),
        };
        let Some(user) = self.user_for(key, user, now) else { return };
        let local = self.local_media(&trunk, rtp);
        self.legs += 1;
        let leg = LegId(self.legs);
        let Some(live) = self.calls.get_mut(&key) else { return };
        let Some(number) = self.settings.number(&live.phone_number_id) else {
            self.far_ended(key, Why::NotRouted, now);
            return;
        };
        let (from_user, from_name) = route::caller(number, &live.user);
        let dial = Dial {
            trunk,
            user,
            host: None,
            from_user,
            from_name,
            asserted: true,
            headers: route::headers(&live.wacid, &live.user, live.payload.as_deref())
                .into_iter()
                .chain(live.sip_headers(number))
                .collect(),
            sdp: sdp::offer(&local),
            credentials: route::credentials(number),
        };
        match self.agent.dial(leg, dial, now) {
            Ok(()) => {
                live.far = FarState::Up(leg);
                self.by_leg.insert(leg, key);
                self.drain_agent(now);
            }
            Err(error) => {
                live.explain(&error.to_string());
                let why = match error {
                    DialError::TrunkDown { .. } => Why::TrunkDown,
                    DialError::UnknownTrunk => Why::NotRouted,
                    DialError::Full => Why::OverLimit,
                    DialError::LegInUse => Why::Fault,
                };
                self.far_ended(key, why, now);
            }
        }
    }

    /// CANCEL, BYE, or nothing if the PBX was never called.
    fn end_far(&mut self, key: CallKey, why: Why, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        match live.far {
            FarState::Up(leg) => {
                self.agent.hang_up(leg, cause(why), now);
                self.drain_agent(now);
            }
            FarState::Invited(leg) => {
                let (code, warning, retry_after) = verdict::sip_refusal(why, live.verdict.as_ref());
                live.sip_code = live.sip_code.or(Some(code));
                self.agent.refuse(leg, sip::Refusal { code, warning: Some(warning), retry_after }, now);
                self.drain_agent(now);
            }
            FarState::Agent { .. } => {
                self.outputs.push_back(Output::Line { call: key, order: LineOrder::AgentEnd(why) });
                self.far_ended(key, why, now);
            }
            FarState::Idle | FarState::Ended => self.far_ended(key, why, now),
        }
    }

    pub(super) fn far_ended(&mut self, key: CallKey, why: Why, now: Now) {
        if let Some(live) = self.calls.get_mut(&key) {
            live.far = FarState::Ended;
        }
        self.heard(key, Side::Far, Event::Ended(why), now);
    }

    /// Carries out what the user agent wants.
    pub(super) fn drain_agent(&mut self, now: Now) {
        while let Some(output) = self.agent.poll() {
            match output {
                sip::Output::Transmit { to, bytes } => self.outputs.push_back(Output::Sip { to, bytes }),
                sip::Output::Event(event) => self.agent_said(event, now),
            }
        }
    }

    fn agent_said(&mut self, event: sip::Event, now: Now) {
        match event {
            sip::Event::Trunk { trunk, state } => self.trunk_said(trunk, &state),
            sip::Event::Invited { leg, invite } => self.invited(leg, invite, now),
            sip::Event::Trying { .. } => {}
            sip::Event::Ringing { leg, code, sdp } => {
                let Some(key) = self.by_leg.get(&leg).copied() else { return };
                if let Some(live) = self.calls.get_mut(&key) {
                    tracing::debug!(call = %live.id, code, early_media = sdp.is_some(), "the PBX rings");
                    live.rang = true;
                }
                self.heard(key, Side::Far, Event::Ringing, now);
            }
            sip::Event::Answered { leg, sdp } => {
                let Some(key) = self.by_leg.get(&leg).copied() else { return };
                match sdp::answer(&sdp) {
                    Ok(media) => {
                        self.point_line(key, &media);
                        self.heard(key, Side::Far, Event::Answered, now);
                        self.note(key, false);
                    }
                    Err(error) => {
                        let detail = format!("the PBX's answer can't be used: {error}");
                        self.end(key, Why::FarUnreachable, &detail, now);
                    }
                }
            }
            sip::Event::Changed { leg, sdp } => match (self.by_leg.get(&leg).copied(), sdp::answer(&sdp)) {
                (Some(key), Ok(media)) => self.point_line(key, &media),
                (None, _) => {}
                (Some(_), Err(error)) => {
                    tracing::warn!(%error, "the PBX changed a call in a way that can't be followed")
                }
            },
            // Digits of the PBX have nowhere to go: WhatsApp takes none from a business.
            sip::Event::Digit { .. } => {}
            sip::Event::Ended { leg, ending } => {
                // A far end that was transferred away is nobody's any more.
                let Some(key) = self.by_leg.remove(&leg) else { return };
                let Some(live) = self.calls.get_mut(&key) else { return };
                live.sip_code = live.sip_code.or(ending.code);
                if ending.by != EndedBy::Us && !live.call.ending() {
                    live.explain(&ending.text);
                    if let Some(code) = ending.code.filter(|code| *code >= 400) {
                        live.went_wrong(i64::from(code), &ending.text);
                    }
                }
                let caller = live.placed_by == PlacedBy::Pbx && live.transferred.is_none();
                let gave_up = caller && !ending.answered && ending.by == EndedBy::Peer;
                let why = if gave_up { Why::FarGaveUp } else { why(&ending) };
                self.far_ended(key, why, now);
            }
        }
    }

    fn trunk_said(&mut self, trunk: String, state: &sip::TrunkState) {
        let up = state.is_up();
        if self.trunks_up.insert(trunk.clone(), up) != Some(up) {
            match state {
                sip::TrunkState::Registered { .. } | sip::TrunkState::Reachable { .. } => {
                    tracing::info!(%trunk, "the trunk is up");
                }
                sip::TrunkState::Failed { code, why } => {
                    tracing::warn!(%trunk, code, %why, "the trunk is down");
                }
                sip::TrunkState::Unresolved | sip::TrunkState::Trying | sip::TrunkState::Stopped => {}
            }
            self.outputs.push_back(Output::TrunkUp { trunk, up });
        }
    }

    /// The far end is let go of, and its end is no longer this call's: another one takes its place.
    pub(super) fn let_go_of_far(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        match std::mem::replace(&mut live.far, FarState::Idle) {
            FarState::Up(leg) | FarState::Invited(leg) => {
                self.by_leg.remove(&leg);
                self.agent.hang_up(leg, Cause { code: None, text: "" }, now);
                self.drain_agent(now);
            }
            FarState::Agent { .. } => {
                let order = LineOrder::AgentEnd(Why::Operator);
                self.outputs.push_back(Output::Line { call: key, order });
            }
            FarState::Idle | FarState::Ended => {}
        }
    }

    fn point_line(&mut self, key: CallKey, media: &sdp::RemoteMedia) {
        let law = match media.law {
            sdp::Law::Pcma => Law::Pcma,
            sdp::Law::Pcmu => Law::Pcmu,
        };
        let (sends, speaks) = match media.direction {
            sdp::Direction::SendRecv => (true, true),
            sdp::Direction::RecvOnly => (true, false),
            sdp::Direction::SendOnly => (false, true),
            sdp::Direction::Inactive => (false, false),
        };
        let order = LineOrder::Far {
            media: FarMedia { law, pt: media.pt, dtmf_pt: media.dtmf_pt, sends },
            speaks,
            rtp: media.rtp,
            rtcp: media.rtcp,
        };
        self.outputs.push_back(Output::Line { call: key, order });
    }
}

/// What we tell the PBX about our hanging up (RFC 3326).
fn cause(why: Why) -> Cause {
    match why {
        // Ordinary endings need no reason. A caller who gave up has none either: Asterisk takes a Reason of
        // 487 for interworking trouble.
        Why::UserHungUp
        | Why::FarHungUp
        | Why::TooLong
        | Why::Operator
        | Why::UserGaveUp
        | Why::UserDeclined
        | Why::UserNoAnswer
        | Why::UserBusy
        | Why::NoPermission
        | Why::NotOnWhatsApp
        | Why::FarNoAnswer
        | Why::FarBusy
        | Why::FarGaveUp
        | Why::FarDeclined
        | Why::FarUnreachable
        | Why::TrunkDown
        | Why::NotRouted => Cause { code: None, text: "" },
        Why::GraphRefused => Cause { code: Some(503), text: "WhatsApp refused the answer" },
        Why::Throttled => Cause { code: Some(503), text: "WhatsApp allows no more calls now" },
        Why::GraphUnreachable => Cause { code: Some(503), text: "WhatsApp can't be reached" },
        Why::MediaFailed => Cause { code: Some(503), text: "No media path to WhatsApp" },
        Why::UserSilent => Cause { code: Some(408), text: "No media from WhatsApp" },
        Why::FarSilent => Cause { code: Some(408), text: "No media from the PBX" },
        Why::AgentFailed => Cause { code: Some(503), text: "The voice agent failed" },
        Why::OverLimit => Cause { code: Some(486), text: "Too many calls" },
        Why::Draining | Why::Interrupted => Cause { code: Some(503), text: "Shutting down" },
        Why::BadOffer => Cause { code: Some(488), text: "Unusable offer" },
        Why::Fault => Cause { code: Some(500), text: "Internal error" },
    }
}

/// What the PBX's ending means for the call: the status first, and the Q.850 cause where the status is vague.
fn why(ending: &Ending) -> Why {
    const BUSY: u16 = 17;
    const NO_ANSWER: [u16; 2] = [18, 19];
    const REJECTED: u16 = 21;
    if ending.answered {
        return Why::FarHungUp;
    }
    match (ending.by, ending.code) {
        (_, Some(486 | 600)) => Why::FarBusy,
        (_, Some(403 | 603 | 607 | 608)) => Why::FarDeclined,
        (_, Some(408 | 480 | 487)) => match ending.cause {
            Some(BUSY) => Why::FarBusy,
            Some(REJECTED) => Why::FarDeclined,
            _ => Why::FarNoAnswer,
        },
        (_, Some(_)) => match ending.cause {
            Some(BUSY) => Why::FarBusy,
            Some(REJECTED) => Why::FarDeclined,
            Some(cause) if NO_ANSWER.contains(&cause) => Why::FarNoAnswer,
            _ => Why::FarUnreachable,
        },
        (EndedBy::Timeout, None) => Why::FarNoAnswer,
        (EndedBy::Us | EndedBy::Peer | EndedBy::Transport, None) => Why::FarUnreachable,
    }
}
