//! The sound of one call: the bridge, whom it listens to, and when silence has lasted too long.
//!
//! Driven by a sound thread, apart from signalling: packets in, a tick every 20 ms, packets out.

use std::net::SocketAddr;
use std::time::Duration;

use crate::call::record::Quality;
use crate::clock::Tick;
use crate::media::srtp::{Shield, SrtpKeys};
use crate::media::{
    Alone, Bridge, BridgeSettings, Clip, FarMedia, HeardSide, MediaError, Outgoing, UserPacket, rtp,
};
use std::sync::Arc;

#[path = "line_tape.rs"]
mod tape;

pub use tape::{TapeNews, TapeTerms};

/// For so long after an answer or a re-INVITE another address of the PBX may be learned.
const LEARNING: Duration = Duration::from_secs(5);
/// Meta cuts a leg that is silent for this long, and so do we.
const USER_SILENCE: Duration = Duration::from_secs(30);
/// A PBX that sends nothing for this long, though it said that it sends, may be dead, or nobody speaks there.
const FAR_PAUSE: Duration = Duration::from_secs(3);

/// What a tick found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Nothing from WhatsApp for 30 s.
    User,
    /// Nothing from the PBX for the configured time.
    Far,
}

/// Datagrams that were not for this call, or no sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// From a host that was not negotiated, or from a second port of it.
    pub strangers: u64,
    /// Neither RTP nor RTCP.
    pub not_rtp: u64,
    /// Not authentic, under SRTP.
    pub forged: u64,
    /// Heard before, under SRTP.
    pub replayed: u64,
}

/// Where the PBX has said that it listens, and how its packets are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarPath {
    /// Its RTP address; a port or address of zero (RFC 3264 §8.4, the hold of old) is never sent to.
    pub rtp: SocketAddr,
    /// Its RTCP address.
    pub rtcp: SocketAddr,
    /// RTCP goes to the RTP address and comes from it (RFC 5761).
    pub rtcp_mux: bool,
    /// Sound of an agreed payload type may come from any address at first: the negotiated one can't be reached, and
    /// the trunk allows it.
    pub learn_any: bool,
    /// SRTP; `None` is plain RTP.
    pub keys: Option<SrtpKeys>,
    /// How long it may be silent while sound is to flow both ways; `None`: for ever.
    pub silence: Option<Duration>,
}

/// Where a report for the PBX goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportTo {
    /// The address.
    pub address: SocketAddr,
    /// Whether it leaves from the RTP port (RFC 5761) instead of the RTCP port.
    pub by_rtp_port: bool,
}

/// Where the PBX's sound comes from and goes to.
#[derive(Debug, Clone, Copy)]
struct Far {
    negotiated: SocketAddr,
    /// The address that packets really come from.
    learned: Option<SocketAddr>,
    rtcp: SocketAddr,
    rtcp_mux: bool,
    /// Until when another address may be learned; `None` once one was, or the negotiated one was heard.
    learning: Option<Tick>,
    learn_any: bool,
    /// Whether sound is to flow both ways: only then is its silence a fault. Who holds us says that it sends
    /// (RFC 3264 §8.4), and has music or has none.
    speaks: bool,
    /// How long it may be silent then; `None`: for ever.
    silence: Option<Duration>,
}

impl Far {
    /// Whether a packet from there is let in without being authentic. What it holds has to be looked at before its
    /// address is learned.
    fn hears(&self, from: SocketAddr, agreed: impl Fn() -> bool, now: Tick) -> bool {
        let learning = self.learning.is_some_and(|until| now < until);
        if from == self.negotiated || self.learned == Some(from) {
            true
        } else if from.ip() == self.negotiated.ip() {
            // A PBX behind NAT may be silent for long before its first packet.
            self.learned.is_none() || learning
        } else {
            // Only the first one: a re-INVITE to the same address opens nothing to strangers.
            learning && self.learn_any && self.learned.is_none() && agreed()
        }
    }
}

/// One call's sound.
pub struct Line {
    bridge: Box<Bridge>,
    far: Option<Far>,
    /// Where the far end before this one sent from: what still comes from there is not heard.
    left: Option<Far>,
    gate: Option<Tick>,
    user_alive: Tick,
    far_alive: Tick,
    /// When the PBX was last heard before the pause that was told of.
    paused: Option<Tick>,
    silent: bool,
    /// SRTP, if it was ever agreed on: kept while there is no far end or a plain one, because a key that comes back
    /// must go on where it was.
    shield: Option<Box<Shield>>,
    shielded: bool,
    dropped: Dropped,
    taping: tape::Taping,
}

impl Line {
    /// A line that hears but says nothing yet.
    ///
    /// # Errors
    /// When libopus refuses the settings.
    pub fn new(settings: BridgeSettings, now: Tick) -> Result<Line, MediaError> {
        Ok(Line {
            bridge: Box::new(Bridge::new(settings)?),
            far: None,
            left: None,
            gate: None,
            user_alive: now,
            far_alive: now,
            paused: None,
            silent: false,
            shield: None,
            shielded: false,
            dropped: Dropped::default(),
            taping: tape::Taping::default(),
        })
    }

    /// The PBX has said where and how it talks; again on every re-INVITE. Under keys that are the same SRTP goes on
    /// where it is.
    ///
    /// # Errors
    /// When libopus refuses, or the keys don't fit their suite: the far end is as it was.
    pub fn set_far(&mut self, media: FarMedia, path: &FarPath, now: Tick) -> Result<(), MediaError> {
        match (&path.keys, &mut self.shield) {
            (Some(keys), Some(shield)) => {
                if shield.rekey(keys)? {
                    self.bridge.change_source();
                }
            }
            (Some(keys), None) => self.shield = Some(Box::new(Shield::new(keys)?)),
            (None, _) => {}
        }
        self.bridge.set_far(media)?;
        self.shielded = path.keys.is_some();
        // Held by an address of zero: what still comes, comes from where it came.
        let before = self.far.map(|far| far.negotiated).filter(|_| path.rtp.ip().is_unspecified());
        let negotiated = before.unwrap_or(path.rtp);
        let learned = self.far.filter(|far| far.negotiated == negotiated).and_then(|far| far.learned);
        self.left = self.left.filter(|left| left.negotiated != negotiated);
        self.far = Some(Far {
            negotiated,
            learned,
            rtcp: path.rtcp,
            rtcp_mux: path.rtcp_mux,
            learning: Some(now + LEARNING),
            learn_any: path.learn_any,
            speaks: media.speaks && media.sends,
            silence: path.silence,
        });
        self.far_alive = now;
        Ok(())
    }

    /// Heard by WhatsApp while the PBX holds the call and sends nothing; without one it is comfort noise.
    pub fn set_hold_clip(&mut self, clip: Option<Arc<Clip>>) {
        self.bridge.set_hold_clip(clip);
    }

    /// There is no far end for now: the user hears this until the next [`Line::set_far`]. Nothing is sent to
    /// the PBX, nothing of it is heard, and its silence is no fault.
    pub fn alone(&mut self, heard: Alone, now: Tick) {
        self.bridge.alone(heard);
        self.left = self.far.take().or(self.left);
        self.far_alive = now;
    }

    /// The far end is an agent that speaks linear sound at this rate, in Hz: what it hears is in
    /// [`Outgoing::to_agent`] and [`Outgoing::digit`] after each tick. Nothing is sent to the PBX and nothing of it is
    /// heard; whether the agent is too silent is not judged here.
    ///
    /// # Errors
    /// When Opus is not spoken at that rate, or libopus refuses: the far end is as it was.
    pub fn set_agent(&mut self, rate: u32, now: Tick) -> Result<(), MediaError> {
        self.bridge.set_agent(rate)?;
        self.left = self.far.take().or(self.left);
        self.far_alive = now;
        Ok(())
    }

    /// What the agent says in the next tick: 20 ms at its rate. False if it was not taken.
    pub fn agent_says(&mut self, frame: &[i16]) -> bool {
        self.bridge.agent_says(frame)
    }

    /// Meta has confirmed the answer: from now on something leaves for WhatsApp on every tick.
    pub fn open_gate(&mut self, now: Tick) {
        if self.gate.is_none() {
            self.gate = Some(now);
            self.user_alive = now;
            self.far_alive = now;
            self.bridge.open_gate();
        }
    }

    /// A user who is being called has not answered yet: comfort noise keeps the path warm, and nobody's silence
    /// is judged.
    pub fn warm(&mut self) {
        self.bridge.open_gate();
    }

    /// One packet from WhatsApp, decrypted.
    pub fn from_user(&mut self, packet: &UserPacket<'_>, now: Tick) {
        self.user_alive = now;
        self.bridge.from_user(packet, now);
    }

    /// RTP or RTCP came from WhatsApp, whatever it was.
    pub fn user_lives(&mut self, now: Tick) {
        self.user_alive = now;
    }

    /// One datagram on the RTP port; RTCP may be among them (RFC 5761).
    ///
    /// Without SRTP only the negotiated host is heard (symmetric RTP, RFC 4961): from the negotiated address, or from
    /// another port, which is believed if nothing was heard yet, or in the first seconds after a re-INVITE; and with
    /// [`FarPath::learn_any`] from anywhere in those seconds. Once one was believed or the negotiated one was heard,
    /// it stays. What is authentic under SRTP is believed wherever it comes from. Anything else is counted.
    pub fn from_far(&mut self, datagram: &[u8], from: SocketAddr, now: Tick) {
        let Some(far) = &mut self.far else { return };
        if rtp::is_rtcp(datagram) {
            return self.far_rtcp(datagram, from, now);
        }
        let plain;
        let datagram = match self.shield.as_mut().filter(|_| self.shielded) {
            Some(shield) => match shield.unprotect(datagram) {
                Some(opened) => {
                    plain = opened;
                    &plain[..]
                }
                None => return,
            },
            None => {
                let left = self.left.is_some_and(|left| from == left.learned.unwrap_or(left.negotiated));
                if left || !far.hears(from, || self.bridge.is_agreed(datagram), now) {
                    self.dropped.strangers += 1;
                    return;
                }
                datagram
            }
        };
        match self.bridge.from_far(datagram, now) {
            Ok(()) => {
                if from == far.negotiated || far.learned != Some(from) {
                    far.learning = None;
                }
                far.learned = Some(from);
                self.far_alive = now;
            }
            Err(_) => self.dropped.not_rtp += 1,
        }
    }

    /// One datagram on the RTCP port.
    pub fn far_rtcp(&mut self, datagram: &[u8], from: SocketAddr, now: Tick) {
        let Some(far) = &self.far else { return };
        let plain;
        let datagram = match self.shield.as_mut().filter(|_| self.shielded) {
            Some(shield) => match shield.unprotect_rtcp(datagram) {
                Some(opened) => {
                    plain = opened;
                    &plain[..]
                }
                None => return,
            },
            None => {
                let known = [Some(far.rtcp), Some(far.negotiated), far.learned];
                if !known.iter().flatten().any(|known| known.ip() == from.ip()) {
                    self.dropped.strangers += 1;
                    return;
                }
                datagram
            }
        };
        match self.bridge.far_rtcp(datagram, now) {
            Ok(()) => self.far_alive = now,
            Err(_) => self.dropped.not_rtp += 1,
        }
    }

    /// What was not let in.
    pub fn dropped(&self) -> Dropped {
        let refused = self.shield.as_ref().map(|shield| shield.refused()).unwrap_or_default();
        Dropped { forged: refused.forged, replayed: refused.replayed, ..self.dropped }
    }

    /// The loss that WhatsApp reports, in 1/256.
    pub fn user_loss(&mut self, fraction: u8) {
        self.bridge.user_loss(fraction);
    }

    /// Every 20 ms. What is to be sent is in `out`; a silence that has lasted too long is told once.
    pub fn tick(&mut self, now: Tick, out: &mut Outgoing) -> Option<Silence> {
        self.bridge.tick(now, out);
        self.tape_tick(now, out);
        if let Some(shield) = self.shield.as_mut().filter(|_| self.shielded) {
            out.to_far.retain_mut(|datagram| shield.protect(datagram));
        }
        self.gate?;
        if self.silent {
            return None;
        }
        let silence = if now - self.user_alive >= USER_SILENCE {
            Silence::User
        } else if self
            .far
            .filter(|far| far.speaks)
            .and_then(|far| far.silence)
            .is_some_and(|limit| now - self.far_alive >= limit)
        {
            Silence::Far
        } else {
            return None;
        };
        self.silent = true;
        Some(silence)
    }

    /// Whether the PBX has just been silent for three seconds, though it said that it sends: told once in each pause.
    pub fn far_pauses(&mut self, now: Tick) -> bool {
        let pauses = self.gate.is_some()
            && self.far.is_some_and(|far| far.speaks)
            && self.paused != Some(self.far_alive)
            && now - self.far_alive >= FAR_PAUSE;
        if pauses {
            self.paused = Some(self.far_alive);
        }
        pauses
    }

    /// Whether a report for the PBX is due; it is in `out` then, protected if need be.
    pub fn rtcp_due(&mut self, now: Tick, ntp: u64, out: &mut heapless::Vec<u8, 256>) -> Option<ReportTo> {
        let far = self.far?;
        self.gate?;
        let to = if far.rtcp_mux {
            ReportTo { address: self.far_address()?, by_rtp_port: true }
        } else {
            ReportTo { address: reachable(far.rtcp)?, by_rtp_port: false }
        };
        if !self.bridge.rtcp_due(now, ntp, out) {
            return None;
        }
        self.shield
            .as_mut()
            .filter(|_| self.shielded)
            .is_none_or(|shield| shield.protect_rtcp(out))
            .then_some(to)
    }

    /// Where sound for the PBX goes: where its own comes from, else where it said.
    pub fn far_address(&self) -> Option<SocketAddr> {
        self.far.and_then(|far| reachable(far.learned.unwrap_or(far.negotiated)))
    }

    /// Packets to the PBX that it reports as lost.
    pub fn far_reported_lost(&self) -> u64 {
        self.bridge.quality(HeardSide::Far).reported_lost
    }

    /// What was heard from each side.
    pub fn quality(&self) -> (Quality, Quality) {
        let of = |side| {
            let heard = self.bridge.quality(side);
            Quality {
                received: heard.received,
                sent: heard.sent,
                lost: heard.lost,
                discarded: heard.discarded,
                concealed: heard.concealed,
                repaired: heard.repaired,
                jitter_ms: heard.jitter_ms,
                mos: heard.mos,
            }
        };
        (of(HeardSide::User), of(HeardSide::Far))
    }
}

/// An address of zero is no place to send to.
fn reachable(address: SocketAddr) -> Option<SocketAddr> {
    (!address.ip().is_unspecified() && address.port() != 0).then_some(address)
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
