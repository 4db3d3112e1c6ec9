//! The hall's far side: the PBX is dialled, heard and hung up on.

use super::live::{FarState, LineState};
use super::{CallKey, Gateway, LineOrder, Output, route};
use crate::call::leg::{Event, Side, Why};
use crate::clock::Now;
use crate::media::{FarMedia, Law};
use crate::sip::{self, Cause, Dial, DialError, EndedBy, Ending, LegId, sdp};

/// The payload type that we offer telephone-event with, the one that most PBXs use themselves.
const DTMF_PT: u8 = 101;

impl Gateway {
    /// The INVITE.
    pub(super) fn dial_far(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let LineState::Open { rtp } = live.line else { return };
        let number = self.settings.number(&live.phone_number_id);
        let Some((number, route)) = number.and_then(|number| Some((number, route::route(number)?))) else {
            self.far_ended(key, Why::NotRouted, now);
            return;
        };
        let laws = self.settings.trunk(&route.trunk).map(|trunk| trunk.laws.clone()).unwrap_or_default();
        let local =
            sdp::LocalMedia { rtp, session: self.random.next() >> 2, version: 1, laws, dtmf_pt: DTMF_PT };
        let (from_user, from_name) = route::caller(number, &live.user);
        let dial = Dial {
            trunk: route.trunk,
            user: route.user,
            host: None,
            from_user,
            from_name,
            asserted: true,
            headers: route::headers(&live.wacid, &live.user, live.payload.as_deref()),
            sdp: sdp::offer(&local),
            credentials: None,
        };
        match self.agent.dial(LegId(key.0), dial, now) {
            Ok(()) => {
                live.far = FarState::Dialled;
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
    pub(super) fn end_far(&mut self, key: CallKey, why: Why, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        match live.far {
            FarState::Dialled => {
                self.agent.hang_up(LegId(key.0), cause(why), now);
                self.drain_agent(now);
            }
            FarState::Idle | FarState::Ended => self.far_ended(key, why, now),
        }
    }

    fn far_ended(&mut self, key: CallKey, why: Why, now: Now) {
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
            sip::Event::Trying { .. } => {}
            sip::Event::Invited { leg, .. } => self.agent.refuse(
                leg,
                sip::Refusal {
                    code: 403,
                    warning: Some("dialling out to WhatsApp is not enabled".to_owned()),
                    retry_after: None,
                },
                now,
            ),
            sip::Event::Ringing { leg, code, sdp } => {
                if let Some(live) = self.calls.get(&CallKey(leg.0)) {
                    tracing::debug!(call = %live.id, code, early_media = sdp.is_some(), "the PBX rings");
                }
                self.heard(CallKey(leg.0), Side::Far, Event::Ringing, now);
            }
            sip::Event::Answered { leg, sdp } => {
                let key = CallKey(leg.0);
                match sdp::answer(&sdp) {
                    Ok(media) => {
                        self.point_line(key, &media);
                        self.heard(key, Side::Far, Event::Answered, now);
                    }
                    Err(error) => {
                        let detail = format!("the PBX's answer can't be used: {error}");
                        self.end(key, Why::FarUnreachable, &detail, now);
                    }
                }
            }
            sip::Event::Changed { leg, sdp } => match sdp::answer(&sdp) {
                Ok(media) => self.point_line(CallKey(leg.0), &media),
                Err(error) => {
                    tracing::warn!(%error, "the PBX changed a call in a way that can't be followed")
                }
            },
            // Digits of the PBX have nowhere to go: WhatsApp takes none from a business.
            sip::Event::Digit { .. } => {}
            sip::Event::Ended { leg, ending } => {
                let key = CallKey(leg.0);
                let Some(live) = self.calls.get_mut(&key) else { return };
                live.sip_code = live.sip_code.or(ending.code);
                if ending.by != EndedBy::Us && !live.call.ending() {
                    live.explain(&ending.text);
                }
                self.far_ended(key, why(&ending), now);
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
