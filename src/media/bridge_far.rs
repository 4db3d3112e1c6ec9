//! The PBX's half of the bridge: its RTP and RTCP, in and out.

use super::{Bridge, DTX, Far, TICK};
use crate::clock::Tick;
use crate::media::dtmf::{Digits, Event};
use crate::media::far_voice::{FarVoice, G722_PT, OPUS_PT, PCMA_PT, PCMU_PT};
use crate::media::jitter::{COMFORT_NOISE_PT, Incoming};
use crate::media::opus::{self, Rate};
use crate::media::ports::{Codec, FarMedia, MediaError, Outgoing, Seeds};
use crate::media::quality::Receipt;
use crate::media::rtcp::{self, Report, Sent};
use crate::media::rtp::{self, NotRtp, Packet};
use crate::media::{FRAME, OPUS_FRAME, g711, g722};
use heapless::Vec;
use std::time::Duration;

use super::pass::ToFar;
use super::tape;

/// Between two reports to the PBX (RFC 3550 §6.2 for a session of two).
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// From one SSRC to the next: odd, so that none comes twice.
const STRIDE: u32 = 0x9E37_79B1;

/// What a packet of the PBX holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sound(Codec),
    ComfortNoise,
    Digit,
    Unknown,
}

/// The stream to the PBX and its reports.
pub(super) struct Sending {
    ssrc: u32,
    clock: u32,
    sequence: u16,
    /// The time of the next tick on both clocks that a PBX may count on.
    narrow: u32,
    wide: u32,
    encoder: g722::Encoder,
    sent: u64,
    /// Packets sent before the present SSRC, and bytes with it.
    before: u64,
    octets: u32,
    /// The next packet begins a stretch of sound.
    marker: bool,
    cname: heapless::String<32>,
    next_report: Option<Tick>,
    /// Packets sent when the last report was made.
    reported_sent: u64,
    /// The stamp of our last sender report, and when it left.
    our_report: Option<(u32, Tick)>,
    /// The stamp of the PBX's last sender report, and when it came.
    far_report: Option<(u32, Tick)>,
    round_trip: Option<Duration>,
    /// What the PBX reports as lost of the present SSRC, and of those before it.
    lost: u64,
    lost_before: u64,
}

impl Sending {
    pub(super) fn new(seeds: &Seeds) -> Sending {
        let mut cname = heapless::String::new();
        // Unique for the session and telling nothing (RFC 7022); 32 places hold it always.
        let _ =
            std::fmt::write(&mut cname, format_args!("{:08x}{:08x}", seeds.far_ssrc, seeds.far_timestamp));
        Sending {
            ssrc: seeds.far_ssrc,
            clock: 8_000,
            sequence: seeds.far_seq,
            narrow: seeds.far_timestamp,
            wide: seeds.far_timestamp,
            encoder: g722::Encoder::new(),
            sent: 0,
            before: 0,
            octets: 0,
            marker: true,
            cname,
            next_report: None,
            reported_sent: 0,
            our_report: None,
            far_report: None,
            round_trip: None,
            lost: 0,
            lost_before: 0,
        }
    }

    /// The PBX is gone: reports begin anew with the next one.
    pub(super) fn leave(&mut self) {
        self.marker = true;
        self.next_report = None;
        self.our_report = None;
        self.far_report = None;
        self.round_trip = None;
    }

    /// Ticks that were missed.
    pub(super) fn skip(&mut self, ticks: u32) {
        self.narrow = self.narrow.wrapping_add(ticks.wrapping_mul(FRAME as u32));
        self.wide = self.wide.wrapping_add(ticks.wrapping_mul(OPUS_FRAME));
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn reported_lost(&self) -> u64 {
        self.lost_before + self.lost
    }

    /// The time of the next tick on a clock of so many hertz.
    pub(super) fn stamp(&self, clock: u32) -> u32 {
        if clock > 8_000 { self.wide } else { self.narrow }
    }

    /// Another codec. Another clock needs an SSRC of its own (RFC 7160 §4.1), and one that was used is never used
    /// again: SRTP would count its wraps wrong.
    fn speak(&mut self, codec: Codec) {
        if codec.clock() != self.clock {
            self.clock = codec.clock();
            self.renumber();
        }
        self.encoder = g722::Encoder::new();
    }

    /// Another SSRC from here on.
    fn renumber(&mut self) {
        if self.sent > self.before {
            self.ssrc = self.ssrc.wrapping_add(STRIDE);
        }
        self.before = self.sent;
        self.reported_sent = self.sent;
        self.octets = 0;
        self.lost_before += std::mem::take(&mut self.lost);
        self.our_report = None;
        self.marker = true;
    }

    fn send(&mut self, payload_type: u8, marker: bool, timestamp: u32, payload: &[u8], out: &mut Outgoing) {
        let (ssrc, sequence) = (self.ssrc, self.sequence);
        let Some(datagram) = rtp::write(&Packet { ssrc, payload_type, marker, sequence, timestamp, payload })
        else {
            return;
        };
        if out.to_far.push(datagram).is_ok() {
            self.sequence = sequence.wrapping_add(1);
            self.sent += 1;
            self.octets = self.octets.wrapping_add(payload.len() as u32);
        }
    }

    /// 20 ms of sound in the PBX's codec: `frame`, or where that is Opus `packet`.
    pub(super) fn say(
        &mut self,
        far: FarMedia,
        timestamp: u32,
        frame: &[i16],
        packet: &[u8],
        out: &mut Outgoing,
    ) {
        let mut room = [0u8; FRAME];
        let coded: &[u8] = match far.codec {
            Codec::Opus => packet,
            Codec::G722 => {
                self.encoder.encode(frame, &mut room);
                &room
            }
            Codec::Pcma => {
                g711::encode(frame, &mut room, g711::to_pcma);
                &room
            }
            Codec::Pcmu => {
                g711::encode(frame, &mut room, g711::to_pcmu);
                &room
            }
        };
        let marker = self.marker;
        self.marker = false;
        self.send(far.pt, marker, timestamp, coded, out);
    }
}

impl Bridge {
    /// What the PBX's SDP agreed on: after its answer, and again after each re-INVITE. From here on sound
    /// crosses; what either side said before is not in it. The numbers of the stream to WhatsApp run on, whatever
    /// changes here.
    ///
    /// Coders are allocated here for G.722 and Opus, and kept until another codec is spoken.
    ///
    /// # Errors
    /// libopus could not make a coder: the far end is as it was.
    pub fn set_far(&mut self, far: FarMedia) -> Result<(), MediaError> {
        let rate = match far.codec {
            Codec::Opus | Codec::G722 => Rate::Wide,
            Codec::Pcma | Codec::Pcmu => Rate::Narrow,
        };
        let coders = self.coders(rate)?;
        let voice = if self.from_far.voice.hears(far.codec) { None } else { Some(FarVoice::new(far.codec)?) };
        let before = self.far.pbx();
        if before.is_none() {
            self.leave();
        }
        if before.is_none_or(|before| before.codec != far.codec) {
            self.seam.cut();
            self.passing.clear();
            self.sending.speak(far.codec);
            if let Some(before) = before {
                self.wake(before.codec);
            }
        }
        self.speak_at(rate, coders);
        if let Some(voice) = voice {
            self.from_far.voice = voice;
            self.from_far.forget();
            self.far_reception.retime(far.codec.clock());
        }
        if !before.is_some_and(|before| before.sends) {
            self.sending.marker = true;
        }
        if !far.digits_told && (!far.sends || far.dtmf.is_none()) {
            self.digits.forget();
        }
        if before.is_some_and(|before| before.dtmf != far.dtmf) {
            self.far_digits = Digits::new();
        }
        if far.sends {
            self.hold.silent = 0;
        }
        self.far = Far::Pbx(far);
        Ok(())
    }

    /// The PBX hears another source from here on, one that was never used in this call; its numbers run on.
    pub fn change_source(&mut self) {
        self.sending.renumber();
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
        let timed = matches!(kind, Kind::Sound(_) | Kind::ComfortNoise);
        self.far_reception.heard(packet.ssrc, packet.sequence, packet.timestamp, timed, now);
        let bytes = packet.payload.len() as u32;
        let (payload_type, duration, payload, pauses) = match kind {
            Kind::Sound(Codec::Pcmu) => (PCMU_PT, bytes, packet.payload, false),
            Kind::Sound(Codec::Pcma) => (PCMA_PT, bytes, packet.payload, false),
            Kind::Sound(Codec::G722) => (G722_PT, bytes, packet.payload, false),
            Kind::Sound(Codec::Opus) => {
                let duration = opus::duration(packet.payload).unwrap_or(OPUS_FRAME);
                (OPUS_PT, duration, packet.payload, packet.payload.len() <= DTX)
            }
            // Of the description only the level is used; a packet without one is an open line.
            Kind::ComfortNoise => {
                (COMFORT_NOISE_PT, FRAME as u32, packet.payload.get(..1).unwrap_or_default(), true)
            }
            Kind::Digit => {
                self.far_heard = Some(now);
                if self.open {
                    self.from_far.jitter.note(packet.ssrc, packet.sequence);
                    match Event::read(packet.payload) {
                        Some(event) => self.far_digits.hear(event, packet.marker, packet.timestamp, now),
                        None => self.far_unknown += 1,
                    }
                }
                return Ok(());
            }
            Kind::Unknown => {
                self.far_unknown += 1;
                if self.open {
                    self.from_far.jitter.note(packet.ssrc, packet.sequence);
                }
                return Ok(());
            }
        };
        self.far_heard = Some(now);
        if self.open && self.far.pbx().is_some() {
            if payload_type == OPUS_PT {
                self.passing.look_at(payload);
            }
            let Packet { ssrc, sequence, timestamp, .. } = packet;
            let incoming = Incoming { ssrc, sequence, timestamp, duration, payload_type, payload, pauses };
            self.from_far.jitter.push(&incoming, now);
        }
        Ok(())
    }

    /// Whether a datagram is RTP of a payload type that was agreed on with the PBX.
    pub fn is_agreed(&self, datagram: &[u8]) -> bool {
        !rtp::is_rtcp(datagram)
            && rtp::read(datagram).is_ok_and(|packet| match self.far.pbx() {
                Some(far) => {
                    packet.payload_type == far.pt
                        || far.dtmf.is_some_and(|dtmf| dtmf.pt == packet.payload_type)
                        || far.comfort_noise == Some(packet.payload_type)
                }
                None => false,
            })
    }

    fn far_kind(&self, packet: &Packet<'_>) -> Kind {
        let Some(far) = self.far.pbx() else {
            return match packet.payload_type {
                PCMU_PT => Kind::Sound(Codec::Pcmu),
                PCMA_PT => Kind::Sound(Codec::Pcma),
                COMFORT_NOISE_PT => Kind::ComfortNoise,
                _ => Kind::Unknown,
            };
        };
        // A PBX that falls back to G.711 in mid-stream is understood; what counts on another clock is not.
        let narrow = far.codec.clock() == 8_000;
        let kind = match packet.payload_type {
            pt if pt == far.pt => Kind::Sound(far.codec),
            pt if far.comfort_noise == Some(pt) => Kind::ComfortNoise,
            pt if far.dtmf.is_some_and(|dtmf| dtmf.pt == pt) => Kind::Digit,
            PCMU_PT if narrow => Kind::Sound(Codec::Pcmu),
            PCMA_PT if narrow => Kind::Sound(Codec::Pcma),
            COMFORT_NOISE_PT if narrow => Kind::ComfortNoise,
            _ => Kind::Unknown,
        };
        let empty = packet.payload.is_empty()
            || (kind == Kind::Sound(Codec::Opus) && opus::duration(packet.payload).is_none());
        match kind {
            Kind::Sound(_) if empty => Kind::Unknown,
            kind => kind,
        }
    }

    /// Takes one datagram from the PBX's RTCP port. Reports are taken in; descriptions, extended reports (RFC 3611)
    /// and whatever else is well formed are passed over.
    ///
    /// # Errors
    /// The datagram is not RTCP: drop it.
    pub fn far_rtcp(&mut self, datagram: &[u8], now: Tick) -> Result<(), NotRtp> {
        for report in &rtcp::read(datagram)? {
            match *report {
                Report::Sender { stamp, .. } => self.sending.far_report = Some((stamp, now)),
                Report::Receipt { about, lost, last_report, delay, .. } if about == self.sending.ssrc => {
                    // What was sent twice on the way makes it negative.
                    self.sending.lost = u64::try_from(lost).unwrap_or(0);
                    if let Some((stamp, left)) = self.sending.our_report
                        && stamp == last_report
                    {
                        let held = Duration::from_micros(u64::from(delay) * 1_000_000 / 65_536);
                        self.sending.round_trip = Some((now - left).saturating_sub(held));
                    }
                }
                // About somebody else's stream; and the BYE of the call is SIP's: a source that leaves is followed
                // by another or none.
                Report::Receipt { .. } | Report::Bye { .. } => {}
            }
        }
        Ok(())
    }

    /// The PBX's half of a tick that goes out to it. `frame` is room for what the user says.
    pub(super) fn say_to_pbx(
        &mut self,
        far: FarMedia,
        beep: Option<u32>,
        frame: &mut [i16],
        out: &mut Outgoing,
    ) {
        let mut packet = Vec::new();
        let passed = match far.codec {
            Codec::Opus => self.passing.hear_user(&mut self.from_user.jitter, &mut packet),
            Codec::G722 | Codec::Pcma | Codec::Pcmu => {
                self.from_user.next(frame);
                ToFar::Packet
            }
        };
        out.tap_user(|| match far.codec {
            Codec::Opus => tape::said_by_user(passed, &packet),
            Codec::G722 | Codec::Pcma | Codec::Pcmu => tape::linear(frame),
        });
        if let Some(nth) = beep {
            tape::add_beep(nth, frame);
        }
        let timestamp = self.sending.stamp(far.codec.clock());
        let event_at = far.dtmf.map(|dtmf| (dtmf, self.sending.stamp(dtmf.clock)));
        self.sending.skip(1);
        if far.digits_told {
            out.digit = self.digits.released(1);
        } else if let Some((dtmf, at)) = event_at.filter(|_| far.sends) {
            if let Some(event) = self.digits.say(at, dtmf.ratio()) {
                self.sending.marker = false;
                let payload = event.event.write();
                return self.sending.send(dtmf.pt, event.marker, event.timestamp, &payload, out);
            }
        } else {
            self.digits.forget();
        }
        if !far.sends {
            return;
        }
        match passed {
            ToFar::Packet => {}
            ToFar::Hole => {
                self.sending.sequence = self.sending.sequence.wrapping_add(1);
                return;
            }
            ToFar::Wait => return,
        }
        self.sending.say(far, timestamp, frame, &packet, out);
    }

    /// Writes a compound report to the PBX into `out` if one is due: every 5 s once the gate is
    /// open and the PBX is there. `ntp` is the present time as NTP (seconds since 1900, 32.32).
    pub fn rtcp_due(&mut self, now: Tick, ntp: u64, out: &mut Vec<u8, 256>) -> bool {
        let (true, Some(far)) = (self.open, self.far.pbx()) else { return false };
        let sending = &mut self.sending;
        let next = *sending.next_report.get_or_insert(now + REPORT_EVERY / 2);
        if now < next {
            return false;
        }
        sending.next_report = Some(now + REPORT_EVERY);
        let to_next = self.due.map_or(Duration::ZERO, |due| due - now).min(TICK);
        let units = to_next.as_micros() as u64 * u64::from(far.codec.clock()) / 1_000_000;
        let sent = (sending.sent > sending.reported_sent).then(|| Sent {
            ntp,
            timestamp: sending.stamp(far.codec.clock()).wrapping_sub(units as u32),
            packets: (sending.sent - sending.before) as u32,
            octets: sending.octets,
        });
        sending.reported_sent = sending.sent;
        if sent.is_some() {
            sending.our_report = Some(((ntp >> 16) as u32, now));
        }
        let ago = |since: Tick| ((now - since).as_micros() * 65_536 / 1_000_000) as u32;
        let last_report = sending.far_report.map(|(stamp, came)| (stamp, ago(came)));
        let receipt: Option<Receipt> = self.far_reception.report();
        rtcp::write(sending.ssrc, sent, receipt, last_report, &sending.cname, out).is_some()
    }
}
