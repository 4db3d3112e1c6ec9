//! The hall's far side: the PBX is dialled, heard and hung up on.

use super::hunt::Standing;
use super::line::FarPath;
use super::live::{FarState, LineState};
use super::port::{FarSound, Secret};
use super::route::Route;
use super::{CallKey, Gateway, LineOrder, Output, route};
use crate::call::leg::{Event, Order, Side, Why};
use crate::call::record::PlacedBy;
use crate::call::without_numbers;
use crate::clock::Now;
use crate::media::srtp::{MasterKey, SrtpKeys, Suite};
use crate::media::{Codec, DtmfFormat, FarMedia};
use crate::sip::{self, Cause, Dial, EndedBy, Ending, LegId, sdp};
use crate::whatsapp::verdict;
use std::net::SocketAddr;
use std::time::Duration;

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
    pub(super) fn local_media(&mut self, trunk: &str, rtp: SocketAddr, secret: Secret) -> sdp::LocalMedia {
        // Sound goes where signalling goes, unless it listens at an address of its own.
        let named = self.agent.local(trunk).map(|local| local.ip());
        let named = named.filter(|ip| rtp.ip().is_unspecified() || self.settings.public_ip == Some(*ip));
        let rtp = SocketAddr::new(named.unwrap_or(rtp.ip()), rtp.port());
        let session = self.random.next() >> 2;
        let (codecs, srtp) = self.spoken(trunk);
        let dtmf = !self.settings.trunk(trunk).is_some_and(|trunk| trunk.digits_by_info);
        sdp::LocalMedia { rtp, session, version: 1, codecs, dtmf, srtp, secret: secret.0 }
    }

    /// What may be spoken on a trunk, and whether under SRTP.
    pub(super) fn spoken(&self, trunk: &str) -> (Vec<sdp::Codec>, sdp::SrtpPolicy) {
        match self.settings.trunk(trunk) {
            Some(trunk) => (trunk.codecs.clone(), trunk.srtp),
            None => (sdp::Codec::ALL.to_vec(), sdp::SrtpPolicy::Off),
        }
    }

    /// 200: the user has answered the PBX's call.
    fn answer_far(&mut self, key: CallKey, leg: LegId, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let (LineState::Open { rtp, secret }, Some(Route::Sip { trunk, .. })) =
            (live.line, live.route.clone())
        else {
            return;
        };
        live.far = FarState::Up(leg);
        live.trunk_part.name.clone_from(&trunk);
        live.trunk = Some(trunk.clone());
        let ours = sdp::offer(&self.local_media(&trunk, rtp, secret));
        self.agent.answer(leg, ours, now);
        self.drain_agent(now);
    }

    /// The INVITE: to the first trunk that takes it.
    pub(super) fn dial_far(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        let LineState::Open { rtp, secret } = live.line else { return };
        let (named, user) = match live.route.clone() {
            Some(Route::Sip { trunk, user }) => (trunk, user),
            Some(Route::Agent(agent)) => return self.dial_agent(key, agent, now),
            None => return self.far_ended(key, Why::NotRouted, now),
        };
        if self.settings.number(&live.phone_number_id).is_none() {
            let said = "the number is not in the configuration any more";
            self.unroutable(key, said);
            return self.nobody_carries(key, now);
        }
        // Whom the PBX names is no template.
        let user = match live.refer {
            Some(_) => Some(user),
            None => self.user_for(key, user, now),
        };
        let Some(user) = user else { return };
        while let Some((trunk, patience)) = self.next_trunk(key, &named) {
            let local = self.local_media(&trunk, rtp, secret);
            self.legs += 1;
            let leg = LegId(self.legs);
            let Some(live) = self.calls.get_mut(&key) else { return };
            let Some(number) = self.settings.number(&live.phone_number_id) else { break };
            let (from_user, from_name) = route::caller(number, &live.user);
            let dial = Dial {
                trunk: trunk.clone(),
                user: user.clone(),
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
                patience,
                replaces: live.refer.as_ref().and_then(|refer| refer.replaces.clone()),
                referred_by: live.refer.as_ref().and_then(|refer| refer.referred_by.clone()),
                privacy: false,
            };
            match self.agent.dial(leg, dial, now) {
                Ok(()) => {
                    live.far = FarState::Up(leg);
                    live.far_answered = false;
                    live.trunk_part.name.clone_from(&trunk);
                    live.trunk = Some(trunk);
                    let id = live.id.clone();
                    self.by_leg.insert(leg, key);
                    self.trace_leg(&id, leg);
                    return self.drain_agent(now);
                }
                Err(error) => self.not_carried(key, &trunk, &error),
            }
        }
        self.nobody_carries(key, now);
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
                sip::Output::Transmit { to, bytes } => {
                    self.trace.keep(true, to, &bytes, now);
                    self.outputs.push_back(Output::Sip { to, bytes });
                }
                sip::Output::Event(event) => self.agent_said(event, now),
            }
        }
    }

    fn agent_said(&mut self, event: sip::Event, now: Now) {
        match event {
            sip::Event::Trunk { trunk, state } => self.trunk_said(trunk, &state, now),
            sip::Event::Invited { leg, invite } => self.invited(leg, invite, now),
            sip::Event::Trying { .. } => {}
            sip::Event::Ringing { leg, code, sdp } => {
                let Some(key) = self.by_leg.get(&leg).copied() else { return };
                if let Some(live) = self.calls.get_mut(&key) {
                    tracing::debug!(call = %live.id, code, early_media = sdp.is_some(), "the PBX rings");
                    live.rang = true;
                    live.trunk_part.early_media |= sdp.is_some();
                }
                self.tell_referrer(key, code, now);
                self.heard(key, Side::Far, Event::Ringing, now);
            }
            sip::Event::Answered { leg, ours, theirs } => {
                let Some(key) = self.by_leg.get(&leg).copied() else { return };
                match sdp::agreed(&ours, &theirs) {
                    Ok(media) => {
                        if let Some(live) = self.calls.get_mut(&key) {
                            live.far_answered = true;
                        }
                        self.point_line(key, &media);
                        self.tell_referrer(key, 200, now);
                        self.heard(key, Side::Far, Event::Answered, now);
                        self.note(key, false);
                    }
                    Err(error) => {
                        let detail = format!("the PBX's answer can't be used: {error}");
                        if !self.take_back(key, leg, &detail, now) {
                            self.end(key, Why::FarUnreachable, &detail, now);
                        }
                    }
                }
            }
            sip::Event::Changed { leg, ours, theirs } => {
                let Some(key) = self.by_leg.get(&leg).copied() else { return };
                match sdp::agreed(&ours, &theirs) {
                    Ok(media) => self.far_changed(key, leg, &media),
                    Err(error) => {
                        tracing::warn!(%error, "the PBX changed a call in a way that can't be followed");
                    }
                }
            }
            sip::Event::Referred { leg, refer } => self.referred(leg, refer, now),
            // WhatsApp takes no digits from a business: those of the PBX are for us.
            sip::Event::Digit { leg, digit, .. } => {
                let Some(key) = self.by_leg.get(&leg).copied() else { return };
                if self.calls.get(&key).is_some_and(|live| live.far == FarState::Up(leg)) {
                    self.far_digit(key, digit, now);
                }
            }
            sip::Event::Ended { leg, ending } => {
                // A far end that was transferred away is nobody's any more.
                let Some(key) = self.by_leg.remove(&leg) else { return };
                if self.referrer_left(key, leg)
                    || self.hunt_on(key, &ending, now)
                    || self.give_back(key, &ending, now)
                {
                    return;
                }
                let Some(live) = self.calls.get_mut(&key) else { return };
                live.sip_code = live.sip_code.or(ending.code);
                live.trunk_part.cause = ending.cause.or(live.trunk_part.cause);
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

    fn trunk_said(&mut self, trunk: String, state: &sip::TrunkState, now: Now) {
        let up = state.is_up();
        let before = self.heard_of.get(&trunk).copied();
        let turned = before.is_none_or(|before| before.up != up);
        // A trunk that has never been up is told of too, once.
        let told = before.is_some_and(|before| before.told);
        let fails = matches!(state, sip::TrunkState::Failed { .. });
        let news = if fails { !told } else { turned };
        // One that is out of the configuration has its last word, and is not remembered.
        if self.settings.trunk(&trunk).is_some() {
            self.heard_of.insert(trunk.clone(), Standing { up, told: !up && (told || fails) });
        }
        if news {
            match state {
                sip::TrunkState::Registered { .. } | sip::TrunkState::Reachable { .. } => {
                    tracing::info!(%trunk, "the trunk is up");
                }
                sip::TrunkState::Silent => {
                    tracing::warn!(%trunk, "the trunk does not answer OPTIONS: calls are tried all the same");
                }
                sip::TrunkState::Failed { code, why } => {
                    tracing::warn!(%trunk, code, why = %without_numbers(why), "the trunk is down");
                }
                sip::TrunkState::Unresolved | sip::TrunkState::Trying | sip::TrunkState::Stopped => {}
            }
        }
        if turned && !up {
            self.trunk_lost(&trunk, now);
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

    fn point_line(&mut self, key: CallKey, remote: &sdp::RemoteMedia) {
        let Some(live) = self.calls.get(&key) else { return };
        let trunk = live.trunk.as_deref().and_then(|trunk| self.settings.trunk(trunk));
        let sound = far_sound(remote, trunk);
        let told = |sound: &FarSound| sound.media.digits_told;
        let asked_for = trunk.is_some_and(|trunk| trunk.digits_by_info);
        if told(&sound) && !asked_for && !live.far_sound.as_ref().is_some_and(told) {
            tracing::info!(call = %live.id, "the PBX takes no telephone-event: the user's keys go to it by INFO");
        }
        self.point(key, sound);
    }

    /// The far end has put its sound elsewhere, or holds. Of one that has handed the call over it is noted, in case that
    /// it gets the call back.
    fn far_changed(&mut self, key: CallKey, leg: LegId, remote: &sdp::RemoteMedia) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        if live.far == FarState::Up(leg) {
            self.point_line(key, remote);
        } else if let Some(referrer) = live.referrer.as_mut().filter(|referrer| referrer.leg == leg) {
            let trunk = referrer.trunk.as_deref().and_then(|trunk| self.settings.trunk(trunk));
            referrer.sound = Some(far_sound(remote, trunk));
        }
    }

    /// From now on the sound goes there.
    pub(super) fn point(&mut self, key: CallKey, sound: FarSound) {
        if let Some(live) = self.calls.get_mut(&key) {
            live.trunk_part.codec = Some(sound.media.codec.word());
            live.trunk_part.encrypted = sound.path.keys.is_some();
            live.far_sound = Some(sound.clone());
            self.outputs.push_back(Output::Line { call: key, order: LineOrder::Far(sound) });
        }
    }
}

/// What was agreed on, in the words of the sound.
fn far_sound(remote: &sdp::RemoteMedia, trunk: Option<&route::Trunk>) -> FarSound {
    let (sends, speaks) = match remote.direction {
        sdp::Direction::SendRecv => (true, true),
        sdp::Direction::RecvOnly => (true, false),
        sdp::Direction::SendOnly => (false, true),
        sdp::Direction::Inactive => (false, false),
    };
    let media = FarMedia {
        codec: match remote.codec {
            sdp::Codec::Opus => Codec::Opus,
            sdp::Codec::G722 => Codec::G722,
            sdp::Codec::Pcma => Codec::Pcma,
            sdp::Codec::Pcmu => Codec::Pcmu,
        },
        pt: remote.pt,
        dtmf: remote.dtmf.map(|dtmf| DtmfFormat { pt: dtmf.pt, clock: dtmf.clock }),
        comfort_noise: remote.comfort_noise,
        sends,
        speaks,
        digits_told: remote.dtmf.is_none() || trunk.is_some_and(|trunk| trunk.digits_by_info),
    };
    let path = FarPath {
        rtp: remote.rtp,
        rtcp: remote.rtcp,
        rtcp_mux: remote.rtcp_mux,
        learn_any: trunk.is_some_and(|trunk| trunk.learn_media),
        keys: remote.keys.as_ref().and_then(srtp_keys),
        silence: trunk.and_then(|trunk| trunk.silence).map(Duration::from_secs),
    };
    FarSound { media, path: Box::new(path) }
}

/// A suite's keys always fit: else the description would not have been agreed on.
fn srtp_keys(keys: &sdp::Keys) -> Option<SrtpKeys> {
    Some(SrtpKeys {
        suite: match keys.suite {
            sdp::Suite::AesCm128HmacSha1_80 => Suite::AesCm128HmacSha1_80,
            sdp::Suite::AesCm128HmacSha1_32 => Suite::AesCm128HmacSha1_32,
            sdp::Suite::AeadAes128Gcm => Suite::AeadAes128Gcm,
            sdp::Suite::AeadAes256Gcm => Suite::AeadAes256Gcm,
        },
        ours: MasterKey::new(keys.ours.as_bytes())?,
        theirs: MasterKey::new(keys.theirs.as_bytes())?,
    })
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
