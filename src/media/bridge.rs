//! The bridge: two ports crossed on one tick.
//!
//! Its one law: from [`Bridge::open_gate`] to the end, something leaves towards WhatsApp on every
//! tick: what the PBX says, or comfort noise in real Opus frames when it is silent, held or not
//! there yet. One SSRC, one unbroken line of sequence numbers and timestamps; WhatsApp hangs up on
//! a leg that falls silent, and its relay garbles a stream that jumps.

use super::alone::{Alone, Seam, Waiting};
use super::dtmf::{Digits, Event};
use super::jitter::Incoming;
use super::playout::{Noise, Playout, Sounding};
use super::quality::{self, Quality, Reception};
use super::rtcp::{self, Report, Sent};
use super::rtp::{self, NotRtp, Packet};
use super::{FRAME, OPUS_FRAME, WIDEST, g711, opus};
use crate::clock::Tick;
use heapless::Vec;
use std::time::Duration;

#[path = "bridge_agent.rs"]
mod agent;

/// The time between two ticks.
const TICK: Duration = Duration::from_millis(20);
/// A tick that comes later than this skips ahead; up to here the caller catches up tick by tick.
const STALL: Duration = Duration::from_millis(200);
/// Between two reports to the PBX (RFC 3550 §6.2 for a session of two).
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// The payload type of telephone-event in all of Meta's offers, used even where it was not offered.
const USUAL_DTMF_PT: u8 = 126;
/// Comfort noise as a static payload type (RFC 3389).
const COMFORT_NOISE_PT: u8 = 13;
/// Static payload types of G.711 (RFC 3551 §6): understood even where another was agreed on.
const PCMU_PT: u8 = 0;
const PCMA_PT: u8 = 8;
/// Below this mean magnitude a frame of the PBX is digital silence, and comfort noise is sent.
const DEAD: u32 = 9;

/// Packets that wait from WhatsApp: more than a second of 20 ms.
const USER_RING: usize = 64;
/// The longest Opus payload that is kept; 20 kbit/s is about 50 bytes.
const USER_PAYLOAD: usize = 400;
/// Packets that wait from the PBX: 640 ms of 20 ms.
const FAR_RING: usize = 32;
/// The longest G.711 payload that is kept: 60 ms.
const FAR_PAYLOAD: usize = 480;
/// Samples that wait to be played: 160 ms at the highest rate of a side.
const USER_WAITING: usize = 8 * WIDEST;
const FAR_WAITING: usize = 8 * FRAME;

/// How to begin a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSettings {
    /// Payload type of Opus towards and from WhatsApp.
    pub opus_pt: u8,
    /// Payload type of telephone-event from WhatsApp; `None` if its SDP had none (126 is then
    /// still understood).
    pub user_dtmf_pt: Option<u8>,
    /// Sound that waits in each jitter buffer, 20 to 200 ms.
    pub jitter_ms: u32,
    /// Opus complexity, 0 to 10.
    pub complexity: u8,
    /// Opus bit rate in bit/s, 6,000 to 64,000; Meta asks for 20,000 at most.
    pub bitrate: u32,
    /// Where the numbers of both streams begin.
    pub seeds: Seeds,
}

/// Random numbers, drawn by the caller (RFC 3550 §5.1 wants unpredictable beginnings).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds {
    /// SSRC towards WhatsApp, as written in the SDP. The caller puts it into the packets.
    pub user_ssrc: u32,
    /// First sequence number towards WhatsApp.
    pub user_seq: u16,
    /// First timestamp towards WhatsApp.
    pub user_timestamp: u32,
    /// SSRC towards the PBX.
    pub far_ssrc: u32,
    /// First sequence number towards the PBX.
    pub far_seq: u16,
    /// First timestamp towards the PBX.
    pub far_timestamp: u32,
}

/// The two laws of G.711.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// µ-law.
    Pcmu,
    /// A-law.
    Pcma,
}

/// What was agreed on with the PBX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarMedia {
    /// The codec, both ways.
    pub law: Law,
    /// Its payload type.
    pub pt: u8,
    /// Payload type of telephone-event, if the PBX takes it.
    pub dtmf_pt: Option<u8>,
    /// False while it holds us: it is sent nothing.
    pub sends: bool,
}

/// Why a bridge could not be made. The call must be refused; another one may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaError {
    /// libopus refused, most often for want of memory.
    Opus {
        /// Its error code (`opus_defines.h`: -7 is "no memory"); 0 if it was not even asked.
        code: i32,
    },
    /// An agent can be spoken with at 8,000, 16,000 and 24,000 Hz only.
    Rate {
        /// What was asked for, in Hz.
        rate: u32,
    },
}

impl std::fmt::Display for MediaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MediaError::Opus { code } => write!(f, "no Opus coder for this call: libopus error {code}"),
            MediaError::Rate { rate } => write!(f, "an agent can't be spoken with at {rate} Hz"),
        }
    }
}

impl std::error::Error for MediaError {}

/// One RTP packet from WhatsApp, decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserPacket<'a> {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, 48 kHz.
    pub timestamp: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

/// One RTP packet for WhatsApp; the SSRC is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFrame {
    /// Payload type of Opus.
    pub payload_type: u8,
    /// Set on the very first packet.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, 48 kHz.
    pub timestamp: u32,
    /// One Opus packet of 20 ms.
    pub payload: Vec<u8, USER_PAYLOAD>,
}

/// What one tick sends.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// To WhatsApp: always one packet once the gate is open.
    pub to_user: Option<UserFrame>,
    /// To the PBX's RTP port: complete datagrams.
    pub to_far: Vec<Vec<u8, 192>, 4>,
    /// To the agent: 20 ms of what the user says, at the agent's rate. Empty while there is none.
    pub to_agent: Vec<i16, WIDEST>,
    /// To the agent: a key that the user has released, and how long it was pressed, in ms. Told once.
    pub digit: Option<(char, u32)>,
}

/// Which side of the bridge was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeardSide {
    /// WhatsApp.
    User,
    /// The PBX.
    Far,
}

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

/// What a packet of the PBX holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FarKind {
    Sound(Law),
    ComfortNoise,
    Digit,
    Unknown,
}

/// One call's sound, both ways. Large: box it. Nothing is allocated after [`Bridge::new`] but by
/// [`Bridge::set_agent`].
pub struct Bridge {
    settings: BridgeSettings,
    far: Far,
    /// What the user hears while there is no far end.
    waiting: Waiting,
    seam: Seam,
    open: bool,
    /// When the next tick should come.
    due: Option<Tick>,

    from_user: Playout<opus::Decoder, USER_RING, USER_PAYLOAD, USER_WAITING>,
    user_reception: Reception,
    user_heard: Option<Tick>,
    /// Packets from WhatsApp that were not understood.
    user_unknown: u64,
    digits: Digits,

    from_far: Playout<g711::Decoder, FAR_RING, FAR_PAYLOAD, FAR_WAITING>,
    far_reception: Reception,
    far_heard: Option<Tick>,
    /// Packets from the PBX that were not understood.
    far_unknown: u64,

    /// The pair for 8 kHz, while an agent is spoken with at another rate.
    narrow: Option<agent::Coders>,
    speech: agent::Speech,

    encoder: opus::Encoder,
    noise: Noise,
    user_sequence: u16,
    user_timestamp: u32,
    user_sent: u64,

    far_sequence: u16,
    far_timestamp: u32,
    far_sent: u64,
    far_octets: u32,
    /// The next packet to the PBX begins a stretch of sound.
    far_marker: bool,

    cname: heapless::String<32>,
    next_report: Option<Tick>,
    /// Packets sent when the last report was made.
    reported_sent: u64,
    /// The stamp of our last sender report, and when it left.
    our_report: Option<(u32, Tick)>,
    /// The stamp of the PBX's last sender report, and when it came.
    far_report: Option<(u32, Tick)>,
    round_trip: Option<Duration>,
}

impl Bridge {
    /// A bridge with its gate shut and nobody on the far side.
    ///
    /// # Errors
    /// libopus could not make a coder.
    pub fn new(settings: BridgeSettings) -> Result<Bridge, MediaError> {
        let seeds = &settings.seeds;
        let mut cname = heapless::String::new();
        // Unique for the session and telling nothing (RFC 7022); 32 places hold it always.
        let _ =
            std::fmt::write(&mut cname, format_args!("{:08x}{:08x}", seeds.far_ssrc, seeds.far_timestamp));
        Ok(Bridge {
            far: Far::Nobody,
            waiting: Waiting::new(),
            seam: Seam::new(),
            open: false,
            due: None,
            from_user: Playout::new(
                opus::Decoder::new(opus::Rate::Narrow)?,
                settings.jitter_ms,
                seeds.far_ssrc,
            ),
            user_reception: Reception::new(48_000),
            user_heard: None,
            user_unknown: 0,
            digits: Digits::new(),
            from_far: Playout::new(g711::Decoder::new(), settings.jitter_ms, seeds.user_ssrc),
            far_reception: Reception::new(8_000),
            far_heard: None,
            far_unknown: 0,
            narrow: None,
            speech: agent::Speech::new(),
            encoder: opus::Encoder::new(opus::Rate::Narrow, settings.complexity, settings.bitrate)?,
            noise: Noise::new(seeds.user_ssrc.rotate_left(16)),
            user_sequence: seeds.user_seq,
            user_timestamp: seeds.user_timestamp,
            user_sent: 0,
            far_sequence: seeds.far_seq,
            far_timestamp: seeds.far_timestamp,
            far_sent: 0,
            far_octets: 0,
            far_marker: true,
            cname,
            next_report: None,
            reported_sent: 0,
            our_report: None,
            far_report: None,
            round_trip: None,
            settings,
        })
    }

    /// What the PBX's SDP agreed on: after its answer, and again after each re-INVITE. From here on sound
    /// crosses, at 8 kHz; what either side said before is not in it.
    pub fn set_far(&mut self, far: FarMedia) {
        if self.far.pbx().is_none() {
            self.leave();
            self.speak_narrow();
            self.seam.cut();
        }
        if !self.far.pbx().is_some_and(|before| before.sends) {
            self.far_marker = true;
        }
        if !far.sends || far.dtmf_pt.is_none() {
            self.digits.forget();
        }
        self.far = Far::Pbx(far);
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
        if std::mem::replace(&mut self.far, Far::Nobody) == Far::Nobody {
            return;
        }
        self.from_far.forget(g711::Decoder::new());
        self.far_reception.leave();
        self.digits.forget();
        self.far_marker = true;
        self.next_report = None;
        self.our_report = None;
        self.far_report = None;
        self.round_trip = None;
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

    /// Takes one datagram from the PBX's RTP port; RTCP on the same port is understood
    /// (RFC 5761).
    ///
    /// # Errors
    /// The datagram is neither: drop it.
    pub fn from_far(&mut self, datagram: &[u8], now: Tick) -> Result<(), NotRtp> {
        if rtp::is_rtcp(datagram) {
            return self.far_rtcp(datagram, now);
        }
        let packet = rtp::read(datagram)?;
        let kind = self.far_kind(&packet);
        let timed = matches!(kind, FarKind::Sound(_) | FarKind::ComfortNoise);
        self.far_reception.heard(packet.ssrc, packet.sequence, packet.timestamp, timed, now);
        let (payload_type, duration, payload) = match kind {
            FarKind::Sound(Law::Pcmu) => (PCMU_PT, packet.payload.len() as u32, packet.payload),
            FarKind::Sound(Law::Pcma) => (PCMA_PT, packet.payload.len() as u32, packet.payload),
            FarKind::ComfortNoise => (COMFORT_NOISE_PT, FRAME as u32, &[][..]),
            FarKind::Digit | FarKind::Unknown => {
                if kind == FarKind::Digit {
                    self.far_heard = Some(now);
                } else {
                    self.far_unknown += 1;
                }
                if self.open {
                    self.from_far.jitter.note(packet.ssrc, packet.sequence);
                }
                return Ok(());
            }
        };
        self.far_heard = Some(now);
        if self.open && self.far.pbx().is_some() {
            let Packet { ssrc, sequence, timestamp, .. } = packet;
            let incoming = Incoming { ssrc, sequence, timestamp, duration, payload_type, payload };
            self.from_far.jitter.push(&incoming, now);
        }
        Ok(())
    }

    fn far_kind(&self, packet: &Packet<'_>) -> FarKind {
        let kind = match self.far.pbx() {
            Some(far) if packet.payload_type == far.pt => FarKind::Sound(far.law),
            Some(far) if Some(packet.payload_type) == far.dtmf_pt => FarKind::Digit,
            _ => match packet.payload_type {
                PCMU_PT => FarKind::Sound(Law::Pcmu),
                PCMA_PT => FarKind::Sound(Law::Pcma),
                COMFORT_NOISE_PT => FarKind::ComfortNoise,
                _ => FarKind::Unknown,
            },
        };
        match kind {
            FarKind::Sound(_) if packet.payload.is_empty() => FarKind::Unknown,
            kind => kind,
        }
    }

    /// Takes one datagram from the PBX's RTCP port.
    ///
    /// # Errors
    /// The datagram is not RTCP: drop it.
    pub fn far_rtcp(&mut self, datagram: &[u8], now: Tick) -> Result<(), NotRtp> {
        for report in &rtcp::read(datagram)? {
            match *report {
                Report::Sender { stamp, .. } => self.far_report = Some((stamp, now)),
                Report::Receipt { about, last_report, delay, .. } => {
                    if about == self.settings.seeds.far_ssrc
                        && let Some((stamp, left)) = self.our_report
                        && stamp == last_report
                    {
                        let held = Duration::from_micros(u64::from(delay) * 1_000_000 / 65_536);
                        self.round_trip = Some((now - left).saturating_sub(held));
                    }
                }
                // The BYE of the call is SIP's; a source that leaves is followed by another or none.
                Report::Bye { .. } => {}
            }
        }
        Ok(())
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
        if !self.open {
            return;
        }
        self.keep_time(now);
        self.digits.pass_time(now);
        let mut room = [0i16; WIDEST];
        let frame = &mut room[..self.from_user.voice.rate().frame()];
        self.from_user.next(frame);
        self.say_to_far(frame, out);
        match self.far {
            Far::Nobody => self.waiting.next(&mut self.noise, frame),
            Far::Pbx(_) => {
                if self.from_far.next(frame) == Sounding::Voice && is_dead(frame) {
                    self.noise.fill(frame);
                }
            }
            Far::Agent => {
                if !self.hear_agent(frame) || is_dead(frame) {
                    self.noise.fill(frame);
                }
            }
        }
        self.seam.close(frame);
        out.to_user = Some(self.say_to_user(frame));
    }

    fn keep_time(&mut self, now: Tick) {
        let mut due = self.due.unwrap_or(now);
        if now > due + STALL {
            let missed = ((now - due).as_micros() / TICK.as_micros()) as u64;
            self.user_timestamp = self.user_timestamp.wrapping_add((missed as u32).wrapping_mul(OPUS_FRAME));
            self.far_timestamp = self.far_timestamp.wrapping_add((missed as u32).wrapping_mul(FRAME as u32));
            due += TICK * u32::try_from(missed).unwrap_or(u32::MAX);
        } else if due > now + STALL {
            due = now;
        }
        self.due = Some(due + TICK);
    }

    fn say_to_far(&mut self, frame: &[i16], out: &mut Outgoing) {
        let timestamp = self.far_timestamp;
        self.far_timestamp = timestamp.wrapping_add(FRAME as u32);
        let far = match self.far {
            Far::Pbx(far) if far.sends => far,
            Far::Agent => return self.say_to_agent(frame, out),
            Far::Pbx(_) | Far::Nobody => return self.digits.forget(),
        };
        let said = match far.dtmf_pt {
            Some(payload_type) => self.digits.say(timestamp).map(|said| (payload_type, said)),
            None => {
                self.digits.forget();
                None
            }
        };
        match said {
            Some((payload_type, said)) => {
                self.far_marker = false;
                self.send_far(payload_type, said.marker, said.timestamp, &said.event.write(), out);
            }
            None => {
                let mut payload = [0u8; FRAME];
                match far.law {
                    Law::Pcmu => g711::encode(frame, &mut payload, g711::to_pcmu),
                    Law::Pcma => g711::encode(frame, &mut payload, g711::to_pcma),
                }
                let marker = std::mem::take(&mut self.far_marker);
                self.send_far(far.pt, marker, timestamp, &payload, out);
            }
        }
    }

    fn send_far(
        &mut self,
        payload_type: u8,
        marker: bool,
        timestamp: u32,
        payload: &[u8],
        out: &mut Outgoing,
    ) {
        let (ssrc, sequence) = (self.settings.seeds.far_ssrc, self.far_sequence);
        let Some(datagram) = rtp::write(&Packet { ssrc, payload_type, marker, sequence, timestamp, payload })
        else {
            return;
        };
        if out.to_far.push(datagram).is_ok() {
            self.far_sequence = sequence.wrapping_add(1);
            self.far_sent += 1;
            self.far_octets = self.far_octets.wrapping_add(payload.len() as u32);
        }
    }

    fn say_to_user(&mut self, frame: &[i16]) -> UserFrame {
        let mut said = UserFrame {
            payload_type: self.settings.opus_pt,
            marker: self.user_sent == 0,
            sequence: self.user_sequence,
            timestamp: self.user_timestamp,
            payload: Vec::new(),
        };
        if self.encoder.encode(frame, &mut said.payload).is_none() {
            // libopus failed: the law holds all the same. A packet of a TOC byte alone is a legal
            // empty frame, which the receiver conceals.
            said.payload.clear();
            let _ = said.payload.push(opus::EMPTY_FRAME);
        }
        self.user_sequence = self.user_sequence.wrapping_add(1);
        self.user_timestamp = self.user_timestamp.wrapping_add(OPUS_FRAME);
        self.user_sent += 1;
        said
    }

    /// Writes a compound report to the PBX into `out` if one is due: every 5 s once the gate is
    /// open and the PBX is there. `ntp` is the present time as NTP (seconds since 1900, 32.32).
    pub fn rtcp_due(&mut self, now: Tick, ntp: u64, out: &mut Vec<u8, 256>) -> bool {
        if !self.open || self.far.pbx().is_none() {
            return false;
        }
        let next = *self.next_report.get_or_insert(now + REPORT_EVERY / 2);
        if now < next {
            return false;
        }
        self.next_report = Some(now + REPORT_EVERY);
        let to_next = self.due.map_or(Duration::ZERO, |due| due - now);
        let units = (to_next.as_micros() / 125) as u32;
        let sent = (self.far_sent > self.reported_sent).then(|| Sent {
            ntp,
            timestamp: self.far_timestamp.wrapping_sub(units),
            packets: self.far_sent as u32,
            octets: self.far_octets,
        });
        self.reported_sent = self.far_sent;
        if sent.is_some() {
            self.our_report = Some(((ntp >> 16) as u32, now));
        }
        let ago = |since: Tick| ((now - since).as_micros() * 65_536 / 1_000_000) as u32;
        let last_report = self.far_report.map(|(stamp, came)| (stamp, ago(came)));
        let receipt = self.far_reception.report();
        rtcp::write(self.settings.seeds.far_ssrc, sent, receipt, last_report, &self.cname, out).is_some()
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
                let sent = self.far_sent + self.speech.heard();
                (&self.far_reception, counts, self.far_unknown, sent, self.speech.said(), quality::G711)
            }
        };
        let frames = counts.played + counts.concealed + counts.repaired;
        let mos = if counts.played == 0 {
            0.0
        } else {
            let way = match side {
                HeardSide::User => Duration::ZERO,
                HeardSide::Far => self.round_trip.unwrap_or_default() / 2,
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
