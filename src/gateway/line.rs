//! The sound of one call: the bridge, whom it listens to, and when silence has lasted too long.
//!
//! Driven by a sound thread, apart from signalling: packets in, a tick every 20 ms, packets out.

use std::net::SocketAddr;
use std::time::Duration;

use crate::call::record::Quality;
use crate::clock::Tick;
use crate::media::{Bridge, BridgeSettings, FarMedia, HeardSide, MediaError, NotRtp, Outgoing, UserPacket};

/// Meta cuts a leg that is silent for this long, and so do we.
const USER_SILENCE: Duration = Duration::from_secs(30);

/// What a tick found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Nothing from WhatsApp for 30 s.
    User,
    /// Nothing from the PBX for the configured time.
    Far,
}

/// Where the PBX's sound comes from and goes to.
#[derive(Debug, Clone, Copy)]
struct Far {
    negotiated: SocketAddr,
    /// The address that packets really come from: another port of the same host is believed once.
    learned: Option<SocketAddr>,
    rtcp: SocketAddr,
    /// Whether the PBX has said that it sends: only then is its silence a fault.
    speaks: bool,
}

/// One call's sound.
pub struct Line {
    bridge: Box<Bridge>,
    far: Option<Far>,
    far_silence: Option<Duration>,
    gate: Option<Tick>,
    user_alive: Tick,
    far_alive: Tick,
    silent: bool,
    strangers: u64,
}

impl Line {
    /// A line that hears but says nothing yet. `far_silence`: how long the PBX may be silent.
    ///
    /// # Errors
    /// When libopus refuses the settings.
    pub fn new(
        settings: BridgeSettings,
        far_silence: Option<Duration>,
        now: Tick,
    ) -> Result<Line, MediaError> {
        Ok(Line {
            bridge: Box::new(Bridge::new(settings)?),
            far: None,
            far_silence,
            gate: None,
            user_alive: now,
            far_alive: now,
            silent: false,
            strangers: 0,
        })
    }

    /// The PBX has said where and how it talks; again on every re-INVITE. `speaks`: it sends at all.
    pub fn set_far(&mut self, media: FarMedia, speaks: bool, rtp: SocketAddr, rtcp: SocketAddr, now: Tick) {
        self.bridge.set_far(media);
        let learned = self.far.filter(|far| far.negotiated == rtp).and_then(|far| far.learned);
        self.far = Some(Far { negotiated: rtp, learned, rtcp, speaks });
        self.far_alive = now;
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

    /// One packet from WhatsApp, decrypted.
    pub fn from_user(&mut self, packet: &UserPacket<'_>, now: Tick) {
        self.user_alive = now;
        self.bridge.from_user(packet, now);
    }

    /// RTP or RTCP came from WhatsApp, whatever it was.
    pub fn user_lives(&mut self, now: Tick) {
        self.user_alive = now;
    }

    /// One datagram on the RTP port. Only the negotiated host is heard (symmetric RTP, RFC 4961).
    ///
    /// # Errors
    /// When it is not RTP, or comes from somebody else.
    pub fn from_far(&mut self, datagram: &[u8], from: SocketAddr, now: Tick) -> Result<(), NotRtp> {
        let Some(far) = &mut self.far else { return Ok(()) };
        if from.ip() != far.negotiated.ip() {
            self.strangers += 1;
            return Ok(());
        }
        if from != far.negotiated && far.learned.is_some_and(|learned| learned != from) {
            self.strangers += 1;
            return Ok(());
        }
        self.bridge.from_far(datagram, now)?;
        far.learned = Some(from);
        self.far_alive = now;
        Ok(())
    }

    /// One datagram on the RTCP port.
    ///
    /// # Errors
    /// When it is not RTCP.
    pub fn far_rtcp(&mut self, datagram: &[u8], from: SocketAddr, now: Tick) -> Result<(), NotRtp> {
        let Some(far) = &self.far else { return Ok(()) };
        if from.ip() != far.rtcp.ip() {
            self.strangers += 1;
            return Ok(());
        }
        self.bridge.far_rtcp(datagram, now)?;
        self.far_alive = now;
        Ok(())
    }

    /// The loss that WhatsApp reports, in 1/256.
    pub fn user_loss(&mut self, fraction: u8) {
        self.bridge.user_loss(fraction);
    }

    /// Every 20 ms. What is to be sent is in `out`; a silence that has lasted too long is told once.
    pub fn tick(&mut self, now: Tick, out: &mut Outgoing) -> Option<Silence> {
        self.bridge.tick(now, out);
        self.gate?;
        if self.silent {
            return None;
        }
        let silence = if now - self.user_alive >= USER_SILENCE {
            Silence::User
        } else if self.far.is_some_and(|far| far.speaks)
            && self.far_silence.is_some_and(|limit| now - self.far_alive >= limit)
        {
            Silence::Far
        } else {
            return None;
        };
        self.silent = true;
        Some(silence)
    }

    /// Whether a report for the PBX is due; it is in `out` then.
    pub fn rtcp_due(&mut self, now: Tick, ntp: u64, out: &mut heapless::Vec<u8, 256>) -> Option<SocketAddr> {
        let far = self.far?;
        self.gate?;
        self.bridge.rtcp_due(now, ntp, out).then_some(far.rtcp)
    }

    /// Where sound for the PBX goes: where its own comes from, else where it said.
    pub fn far_address(&self) -> Option<SocketAddr> {
        self.far.map(|far| far.learned.unwrap_or(far.negotiated))
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
