//! The bridge: two ports crossed on one tick.
//!
//! Its one law: from [`Bridge::open_gate`] to the end, something leaves towards WhatsApp on every
//! tick: what the PBX says, or comfort noise in real Opus frames when it is silent, held or not
//! there yet. One SSRC, one unbroken line of sequence numbers and timestamps; WhatsApp hangs up on
//! a leg that falls silent, and its relay garbles a stream that jumps.

use super::alone::{Alone, Seam, Waiting};
use super::dtmf::{Digits, Event};
use super::far_voice::FarVoice;
use super::hold::Clip;
use super::jitter::Incoming;
use super::opus::{self, Rate};
use super::playout::{Noise, Playout, Sounding, Voice};
use super::ports::{
    BridgeSettings, Codec, FarMedia, HeardSide, MediaError, OPUS_PAYLOAD, Outgoing, UserFrame, UserPacket,
};
use super::quality::{self, Quality, Reception};
use super::{OPUS_FRAME, WIDEST};
use crate::clock::Tick;
use heapless::Vec;
use std::sync::Arc;
use std::time::Duration;

#[path = "bridge_agent.rs"]
mod agent;
#[path = "bridge_far.rs"]
mod far;
#[path = "bridge_pass.rs"]
mod pass;
#[path = "bridge_tape.rs"]
mod tape;

/// The time between two ticks.
const TICK: Duration = Duration::from_millis(20);
/// A tick that comes later than this skips ahead; up to here the caller catches up tick by tick.
const STALL: Duration = Duration::from_millis(200);
/// The payload type of telephone-event in all of Meta's offers, used even where it was not offered.
const USUAL_DTMF_PT: u8 = 126;
/// Below this mean magnitude a frame of the PBX is digital silence, and comfort noise is sent.
const DEAD: u32 = 9;
/// An Opus packet of this length at most is the last one before a pause (DTX).
const DTX: usize = 2;
/// A PBX that holds us and has sent nothing for so many ticks does not play music: half a second.
const NO_MUSIC: u32 = 25;

/// Packets that wait from WhatsApp: more than a second of 20 ms.
const USER_RING: usize = 64;
/// Packets that wait from the PBX: 640 ms of 20 ms.
const FAR_RING: usize = 32;
/// The longest payload from the PBX that is kept: 60 ms of G.711 and G.722.
const FAR_PAYLOAD: usize = 480;
/// Samples that wait to be played: 160 ms at the highest rate of a side.
const USER_WAITING: usize = 8 * WIDEST;
const FAR_WAITING: usize = 8 * 320;

/// Who is on the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Far {
    Nobody,
    Pbx(FarMedia),
    Agent,
}

impl Far {
    fn pbx(self) -> Option<FarMedia> {
        match self {
            Far::Pbx(media) => Some(media),
            Far::Nobody | Far::Agent => None,
        }
    }
}

/// One call's sound, both ways. Large: box it. Nothing is allocated after [`Bridge::new`] but by
/// [`Bridge::set_agent`] and [`Bridge::set_far`], and there only for another codec or rate.
pub struct Bridge {
    settings: BridgeSettings,
    far: Far,
    /// What the user hears while there is no far end.
    waiting: Waiting,
    seam: Seam,
    open: bool,
    /// When the next tick should come.
    due: Option<Tick>,

    from_user: Playout<opus::Decoder, USER_RING, OPUS_PAYLOAD, USER_WAITING>,
    user_reception: Reception,
    user_heard: Option<Tick>,
    /// Packets from WhatsApp that were not understood.
    user_unknown: u64,
    digits: Digits,

    from_far: Playout<FarVoice, FAR_RING, FAR_PAYLOAD, FAR_WAITING>,
    far_reception: Reception,
    far_heard: Option<Tick>,
    /// Packets from the PBX that were not understood.
    far_unknown: u64,
    /// Keys that are pressed at the PBX's end.
    far_digits: Digits,
    /// Opus on its way through, to and from a PBX that speaks it.
    passing: pass::Passing,
    clip: Option<Arc<Clip>>,
    hold: Hold,

    /// The pair for 8 kHz, while the far end is spoken with at another rate.
    narrow: Option<agent::Coders>,
    speech: agent::Speech,

    encoder: opus::Encoder,
    noise: Noise,
    user_sequence: u16,
    user_timestamp: u32,
    user_sent: u64,

    sending: far::Sending,
    taping: tape::Taping,
}

/// How long the PBX has been holding us in silence, and where the clip is.
#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    silent: u32,
    at: Option<usize>,
}

impl Bridge {
    /// A bridge with its gate shut and nobody on the far side.
    ///
    /// # Errors
    /// libopus could not make a coder.
    pub fn new(settings: BridgeSettings) -> Result<Bridge, MediaError> {
        let seeds = &settings.seeds;
        Ok(Bridge {
            far: Far::Nobody,
            waiting: Waiting::new(),
            seam: Seam::new(),
            open: false,
            due: None,
            from_user: Playout::new(opus::Decoder::new(Rate::Narrow)?, settings.jitter_ms, seeds.far_ssrc),
            user_reception: Reception::new(48_000),
            user_heard: None,
            user_unknown: 0,
            digits: Digits::new(),
            from_far: Playout::new(FarVoice::g711(), settings.jitter_ms, seeds.user_ssrc),
            far_reception: Reception::new(8_000),
            far_heard: None,
            far_unknown: 0,
            far_digits: Digits::new(),
            passing: pass::Passing::new(),
            clip: None,
            hold: Hold::default(),
            narrow: None,
            speech: agent::Speech::new(),
            encoder: opus::Encoder::new(Rate::Narrow, settings.complexity, settings.bitrate)?,
            noise: Noise::new(seeds.user_ssrc.rotate_left(16)),
            user_sequence: seeds.user_seq,
            user_timestamp: seeds.user_timestamp,
            user_sent: 0,
            sending: far::Sending::new(seeds),
            taping: tape::Taping::default(),
            settings,
        })
    }

    /// What the PBX plays to nobody else: heard by WhatsApp while the PBX holds us and sends nothing, from the
    /// clip's beginning each time. Without one it is comfort noise.
    pub fn set_hold_clip(&mut self, clip: Option<Arc<Clip>>) {
        self.clip = clip;
        self.hold = Hold::default();
    }

    /// There is no far end, or not any more: until [`Bridge::set_far`] or [`Bridge::set_agent`] the user hears
    /// this, and nothing of what the user says or presses goes anywhere. A key that is down now is not heard by
    /// who comes next.
    ///
    /// The numbers of both streams run on. In [`Bridge::quality`] packets and frames are summed over all far
    /// ends; jitter is the last one's, and the round trip is measured anew.
    pub fn alone(&mut self, heard: Alone) {
        let left = self.far != Far::Nobody;
        if left {
            self.leave();
            self.speak_narrow();
        }
        if self.waiting.hear(heard) || left {
            self.seam.cut();
        }
    }

    /// Whoever was on the far side is there no more, and what the user has heard alone begins anew the next time.
    fn leave(&mut self) {
        self.waiting = Waiting::new();
        match std::mem::replace(&mut self.far, Far::Nobody) {
            Far::Nobody => return,
            Far::Pbx(far) => self.wake(far.codec),
            Far::Agent => {}
        }
        self.from_far.voice.reset();
        self.from_far.forget();
        self.far_reception.leave();
        self.digits.forget();
        self.far_digits = Digits::new();
        self.passing.clear();
        self.hold = Hold::default();
        self.sending.leave();
    }

    /// A far end of this codec is left: what WhatsApp said meanwhile may never have been decoded.
    fn wake(&mut self, before: Codec) {
        if before == Codec::Opus {
            self.from_user.voice.reset();
            self.from_user.wake();
        }
    }

    /// Meta's accept was answered with 200: from now on every tick emits one packet to WhatsApp.
    pub fn open_gate(&mut self) {
        self.open = true;
    }

    /// Takes one packet from WhatsApp. Before the gate opens it is counted and dropped, so that no
    /// old sound waits in the buffer.
    pub fn from_user(&mut self, packet: &UserPacket<'_>, now: Tick) {
        let digit = self.settings.opus_pt != packet.payload_type
            && self.settings.user_dtmf_pt.unwrap_or(USUAL_DTMF_PT) == packet.payload_type;
        let sound = self.settings.opus_pt == packet.payload_type;
        self.user_reception.heard(packet.ssrc, packet.sequence, packet.timestamp, sound, now);
        if sound || digit {
            self.user_heard = Some(now);
        }
        let duration = if sound { opus::duration(packet.payload) } else { None };
        let event = if digit { Event::read(packet.payload) } else { None };
        if duration.is_none() && event.is_none() {
            self.user_unknown += 1;
        }
        if !self.open {
            return;
        }
        match duration {
            Some(duration) => {
                let incoming = Incoming {
                    ssrc: packet.ssrc,
                    sequence: packet.sequence,
                    timestamp: packet.timestamp,
                    duration,
                    payload_type: packet.payload_type,
                    payload: packet.payload,
                    pauses: packet.payload.len() <= DTX,
                };
                self.from_user.jitter.push(&incoming, now);
            }
            // A broken Opus packet is a lost one; anything else was never sound.
            None if sound => {}
            None => self.from_user.jitter.note(packet.ssrc, packet.sequence),
        }
        if let Some(event) = event {
            self.digits.hear(event, packet.marker, packet.timestamp, now);
        }
    }

    /// Takes what WhatsApp reports as lost, in 1/256: the encoder repairs accordingly.
    pub fn user_loss(&mut self, fraction: u8) {
        self.encoder.heard_of_loss(fraction);
    }

    /// The next 20 ms, both ways. A caller that is late calls it once for each tick it missed;
    /// after more than 200 ms one call is enough, the timestamps skip what was missed.
    pub fn tick(&mut self, now: Tick, out: &mut Outgoing) {
        out.to_user = None;
        out.to_far.clear();
        out.to_agent.clear();
        out.digit = None;
        out.far_digit = None;
        out.tapped = None;
        if !self.open {
            return;
        }
        self.keep_time(now);
        out.tapped = self.taping.slice();
        self.digits.pass_time(now);
        self.far_digits.pass_time(now);
        let mut room = [0i16; WIDEST];
        let frame = &mut room[..self.from_user.voice.rate().frame()];
        let mut packet = Vec::new();
        if let Far::Pbx(far) = self.far {
            out.far_digit = self.far_digits.released(far.dtmf.map_or(1, |dtmf| dtmf.ratio()));
        }
        let beep = self.taping.beeps();
        // Who is heard by the PBX as well: the prompt, or a beep that can't be mixed into what goes through.
        let mut apart = self.taping.apart();
        let passes = match (self.far, beep) {
            _ if apart => {
                self.tick_apart(frame, out);
                false
            }
            (Far::Pbx(far), Some(nth)) if self.passing.goes_through(far.codec) => {
                self.tick_beep(nth, frame, out);
                apart = true;
                false
            }
            (Far::Pbx(far), beep) => {
                self.say_to_pbx(far, beep, frame, out);
                let passes = self.hear_pbx(far, frame, &mut packet);
                out.tap_far(|| if passes { tape::opus(&packet) } else { tape::linear(frame) });
                passes
            }
            (Far::Agent, _) => {
                self.from_user.next(frame);
                out.tap_user(|| tape::linear(frame));
                self.sending.skip(1);
                self.say_to_agent(frame, out);
                if !self.hear_agent(frame) || is_dead(frame) {
                    self.noise.fill(frame);
                }
                out.tap_far(|| tape::linear(frame));
                false
            }
            (Far::Nobody, _) => {
                self.from_user.next(frame);
                out.tap_user(|| tape::linear(frame));
                self.sending.skip(1);
                self.digits.forget();
                self.waiting.next(&mut self.noise, frame);
                false
            }
        };
        if let Some(nth) = beep.filter(|_| !apart && !passes) {
            tape::add_beep(nth, frame);
        }
        if passes {
            self.seam = Seam::new();
        } else {
            if self.passing.to_user {
                // The phone has heard another encoder meanwhile.
                self.encoder.reset();
            }
            self.seam.close(frame);
            self.encode(frame, &mut packet);
        }
        if let Far::Pbx(far) = self.far
            && apart
        {
            self.say_apart(far, frame, &packet, out);
        }
        self.passing.to_user = passes;
        if let Some(slice) = out.tapped.as_mut() {
            slice.offset = self.offset(now);
        }
        out.to_user = Some(self.say_to_user(packet));
    }

    fn keep_time(&mut self, now: Tick) {
        let mut due = self.due.unwrap_or(now);
        if now > due + STALL {
            let missed = ((now - due).as_micros() / TICK.as_micros()) as u64;
            self.user_timestamp = self.user_timestamp.wrapping_add((missed as u32).wrapping_mul(OPUS_FRAME));
            self.sending.skip(missed as u32);
            self.taping.skip(missed as u32);
            due += TICK * u32::try_from(missed).unwrap_or(u32::MAX);
        } else if due > now + STALL {
            due = now;
        }
        self.due = Some(due + TICK);
    }

    /// What the PBX says in this tick: in `packet` if it is Opus that goes through (true), else in `frame`.
    fn hear_pbx(&mut self, far: FarMedia, frame: &mut [i16], packet: &mut Vec<u8, OPUS_PAYLOAD>) -> bool {
        let mut sounding = Sounding::Nothing;
        if self.passing.goes_through(far.codec) {
            if self.passing.hear_far(&mut self.from_far.jitter, packet) {
                self.hold = Hold::default();
                return true;
            }
            self.noise.fill(frame);
        } else if frame.len() == self.from_far.voice.frame() {
            sounding = self.from_far.next(frame);
        } else {
            // Both are set together.
            self.noise.fill(frame);
        }
        if sounding == Sounding::Voice {
            if std::mem::take(&mut self.hold).at.is_some() {
                self.seam.cut();
            }
            if is_dead(frame) {
                self.noise.fill(frame);
            }
            return false;
        }
        self.hold.silent = self.hold.silent.saturating_add(1);
        let holds = !far.sends && (!far.speaks || self.hold.silent > NO_MUSIC);
        match self.clip.as_ref().filter(|_| holds) {
            Some(clip) => self.hold.at = Some(clip.play(self.hold.at.unwrap_or(0), frame)),
            None if self.hold.at.take().is_some() => self.seam.cut(),
            None => {}
        }
        false
    }

    /// A frame as Opus. If libopus fails, the law holds all the same: a packet of a TOC byte alone is a legal empty
    /// frame, which the receiver conceals.
    fn encode(&mut self, frame: &[i16], packet: &mut Vec<u8, OPUS_PAYLOAD>) {
        if self.encoder.encode(frame, packet).is_none() {
            packet.clear();
            let _ = packet.push(opus::EMPTY_FRAME);
        }
    }

    fn say_to_user(&mut self, payload: Vec<u8, OPUS_PAYLOAD>) -> UserFrame {
        let said = UserFrame {
            payload_type: self.settings.opus_pt,
            marker: self.user_sent == 0,
            sequence: self.user_sequence,
            timestamp: self.user_timestamp,
            payload,
        };
        self.user_sequence = self.user_sequence.wrapping_add(1);
        self.user_timestamp = self.user_timestamp.wrapping_add(OPUS_FRAME);
        self.user_sent += 1;
        said
    }

    /// When the last sound or digit came from a side.
    pub fn last_heard(&self, side: HeardSide) -> Option<Tick> {
        match side {
            HeardSide::User => self.user_heard,
            HeardSide::Far => self.far_heard,
        }
    }

    /// How a side was heard so far. An agent's frames of 20 ms count as packets, without jitter, loss and opinion
    /// score: they come by TCP.
    pub fn quality(&self, side: HeardSide) -> Quality {
        let (reception, counts, unknown, sent, by_agent, codec) = match side {
            HeardSide::User => {
                let counts = self.from_user.jitter.counts();
                let unknown = self.user_unknown + u64::from(self.digits.overflow());
                (&self.user_reception, counts, unknown, self.user_sent, 0, quality::OPUS)
            }
            HeardSide::Far => {
                let counts = self.from_far.jitter.counts();
                let unknown = self.far_unknown + u64::from(self.far_digits.overflow());
                let sent = self.sending.sent() + self.speech.heard();
                let codec = match self.far.pbx().map(|far| far.codec) {
                    Some(Codec::Opus) => quality::OPUS,
                    Some(Codec::G722) => quality::G722,
                    Some(Codec::Pcma | Codec::Pcmu) | None => quality::G711,
                };
                (&self.far_reception, counts, unknown, sent, self.speech.said(), codec)
            }
        };
        let frames = counts.played + counts.concealed + counts.repaired;
        let mos = if counts.played == 0 {
            0.0
        } else {
            let way = match side {
                HeardSide::User => Duration::ZERO,
                HeardSide::Far => self.sending.round_trip().unwrap_or_default() / 2,
            };
            let delay = f64::from(self.settings.jitter_ms) + 20.0 + way.as_secs_f64() * 1_000.0;
            quality::mos(codec, counts.concealed as f64 / frames as f64, delay)
        };
        Quality {
            received: reception.received() + by_agent,
            sent,
            lost: reception.lost(),
            discarded: counts.discarded() + unknown,
            concealed: counts.concealed,
            repaired: counts.repaired,
            jitter_ms: reception.jitter_ms(),
            reported_lost: match side {
                HeardSide::User => 0,
                HeardSide::Far => self.sending.reported_lost(),
            },
            mos,
        }
    }

    /// Keys pressed by the WhatsApp user since the gate opened.
    pub fn digits_heard(&self) -> u32 {
        self.digits.heard()
    }
}

/// Digital silence: what a muted or held PBX sends.
fn is_dead(frame: &[i16]) -> bool {
    frame.iter().map(|sample| u32::from(sample.unsigned_abs())).sum::<u32>() < DEAD * frame.len() as u32
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
