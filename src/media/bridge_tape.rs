//! The bridge while a call is to be recorded: the prompt to parties that don't hear each other yet, the beep, and the
//! tap.

use super::pass::ToFar;
use super::{Bridge, Far, OPUS_PAYLOAD, WIDEST};
use crate::clock::Tick;
use crate::media::hold::Clip;
use crate::media::playout::Voice as _;
use crate::media::ports::{Codec, FarMedia, Outgoing};
use crate::media::tap::{Said, Slice};
use heapless::Vec;
use std::sync::Arc;

/// A beep is 200 ms of 1,400 Hz, as recorder warning tones are (FCC 47 CFR 64.501: 1,400 Hz ± 1.5 %, 260 ms ± 20 % at
/// the recorder; ITU-T E.180 says the same frequency).
const BEEP_HERTZ: u64 = 1_400;
const BEEP_TICKS: u32 = 12;
/// Its peak: -20 dBFS.
const BEEP_PEAK: f64 = 3_277.0;
/// What an Opus encoder holds back, in samples at 48 kHz.
const OPUS_AHEAD: i64 = 312;
/// Its ends come and go within this part of a frame: 5 ms.
const RAMP: usize = 4;

/// Whether the parties hear the prompt instead of each other, and what is taken down of them.
#[derive(Debug, Default)]
pub(super) struct Taping {
    prompt: Option<Prompt>,
    tap: Option<Tap>,
    beep: Option<Beep>,
}

#[derive(Debug)]
struct Prompt {
    clip: Arc<Clip>,
    /// Where in it; `None`: it is over, and nobody has said that the parties may hear each other.
    at: Option<usize>,
    both: bool,
    /// Whether a PBX has heard all that was played of it.
    shared: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tap {
    at: u32,
    paused: bool,
}

#[derive(Debug, Clone, Copy)]
struct Beep {
    every: u32,
    /// Ticks since the last one began.
    at: u32,
}

impl Taping {
    /// Ticks that were missed: in the recording they are missing too.
    pub(super) fn skip(&mut self, ticks: u32) {
        if let Some(tap) = &mut self.tap {
            tap.at = tap.at.saturating_add(ticks);
        }
    }

    /// This tick's slice, empty.
    pub(super) fn slice(&mut self) -> Option<Slice> {
        let tap = self.tap.as_mut()?;
        let slice = Slice { at: tap.at, paused: tap.paused, ..Slice::default() };
        tap.at = tap.at.saturating_add(1);
        Some(slice)
    }

    /// Whether the parties don't hear each other.
    pub(super) fn apart(&self) -> bool {
        self.prompt.is_some()
    }

    /// A beep is due or sounds in this tick: which of its ticks.
    pub(super) fn beeps(&mut self) -> Option<u32> {
        let sounding = self.tap.is_some_and(|tap| !tap.paused);
        let beep = self.beep.as_mut().filter(|_| sounding)?;
        let at = beep.at;
        beep.at = if at + 1 >= beep.every { 0 } else { at + 1 };
        (at < BEEP_TICKS).then_some(at)
    }
}

/// One side's part of a slice.
pub(super) fn linear(frame: &[i16]) -> Said {
    Vec::from_slice(frame).map_or(Said::Nothing, Said::Linear)
}

/// Likewise, of a packet that went through undecoded.
pub(super) fn opus(packet: &[u8]) -> Said {
    Vec::from_slice(packet).map_or(Said::Nothing, Said::Opus)
}

/// The beep's sound in the `nth` of its ticks is added to what is said.
pub(super) fn add_beep(nth: u32, frame: &mut [i16]) {
    let length = frame.len();
    let rate = length as u64 * 50;
    let ramp = (length / RAMP).max(1);
    for (at, sample) in frame.iter_mut().enumerate() {
        let edge = match nth {
            0 => at.min(ramp),
            last if last + 1 == BEEP_TICKS => (length - 1 - at).min(ramp),
            _ => ramp,
        };
        let turns = ((u64::from(nth) * length as u64 + at as u64) * BEEP_HERTZ % rate) as f64 / rate as f64;
        let tone = (turns * std::f64::consts::TAU).sin() * BEEP_PEAK * edge as f64 / ramp as f64;
        *sample = sample.saturating_add(tone as i16);
    }
}

impl Bridge {
    /// From the next tick on the user hears this once, and the parties don't hear each other until
    /// [`Bridge::connect`]. `both`: a PBX hears it too. What either side says meanwhile is lost, and an agent should not
    /// be asked to speak; keys of the user are told in [`Outgoing::digit`].
    /// What was pressed before the prompt is no answer to it: it is forgotten.
    pub fn announce(&mut self, clip: Arc<Clip>, both: bool) {
        self.taping.prompt = Some(Prompt { clip, at: Some(0), both, shared: both });
        self.digits.forget();
        self.seam.cut();
    }

    /// The prompt is over, also before its end: from the next tick on the user hears an open line, and the parties stay
    /// apart until [`Bridge::connect`].
    pub fn hush(&mut self) {
        if self.taping.prompt.as_mut().is_some_and(|prompt| prompt.at.take().is_some()) {
            self.seam.cut();
        }
    }

    /// The parties hear each other from now on. What was pressed before is not passed on.
    pub fn connect(&mut self) {
        if self.taping.prompt.take().is_some() {
            self.digits.forget();
            self.seam.cut();
        }
    }

    /// The parties don't hear each other yet.
    pub fn is_apart(&self) -> bool {
        self.taping.apart()
    }

    /// The prompt has been played to its end, and the parties are still apart.
    pub fn prompt_over(&self) -> bool {
        self.taping.prompt.as_ref().is_some_and(|prompt| prompt.at.is_none())
    }

    /// Whether one and the same PBX has heard all that was played of the prompt: neither held nor left meanwhile.
    pub fn prompt_shared(&self) -> bool {
        self.taping.prompt.as_ref().is_some_and(|prompt| prompt.shared)
    }

    /// From the next tick on what both sides say is in [`Outgoing::tapped`]. `beep`: ticks from one beep to the next,
    /// which both hear (but no agent); the first comes at once.
    pub fn open_tap(&mut self, beep: Option<u32>) {
        self.taping.tap = Some(Tap::default());
        self.taping.beep = beep.map(|every| Beep { every: every.max(BEEP_TICKS * 2), at: 0 });
    }

    /// Nothing is taken down any more, and nothing beeps.
    pub fn shut_tap(&mut self) {
        self.taping.tap = None;
        self.taping.beep = None;
    }

    /// Silence is taken down instead of what is said, or no more. False if nothing is being taken down.
    pub fn pause_tap(&mut self, paused: bool) -> bool {
        match &mut self.taping.tap {
            Some(tap) => {
                tap.paused = paused;
                true
            }
            None => false,
        }
    }

    /// The parties hear the prompt, or after it an open line; what they say goes nowhere. In `frame`: what the user
    /// hears.
    pub(super) fn tick_apart(&mut self, frame: &mut [i16], out: &mut Outgoing) {
        self.drop_both(frame);
        out.digit = self.digits.released(1);
        let heard_by_pbx = self.far.pbx().is_some_and(|far| far.sends);
        let Some(prompt) = &mut self.taping.prompt else { return };
        let at = prompt.at.and_then(|at| prompt.clip.play_once(at, frame));
        match at {
            Some(_) => prompt.shared &= heard_by_pbx,
            None => {
                if prompt.at.is_some() {
                    self.seam.cut();
                }
                self.noise.fill(frame);
            }
        }
        prompt.at = at;
    }

    /// What a PBX hears while the parties are apart: `packet` is what the user hears. Without Opus the PBX may hear
    /// noise; Opus that it may not hear leaves a gap, as in any pause (RFC 7587 §3.1.3).
    pub(super) fn say_apart(
        &mut self,
        far: FarMedia,
        frame: &mut [i16],
        packet: &Vec<u8, OPUS_PAYLOAD>,
        out: &mut Outgoing,
    ) {
        let both = self.taping.prompt.as_ref().is_none_or(|prompt| prompt.both && prompt.at.is_some());
        let timestamp = self.sending.stamp(far.codec.clock());
        self.sending.skip(1);
        if !far.sends || (!both && far.codec == Codec::Opus) {
            return;
        }
        if !both {
            self.noise.fill(frame);
        }
        self.sending.say(far, timestamp, frame, packet, out);
    }

    /// The beep in place of what is said, where sound goes through undecoded. In `frame`: what both hear.
    pub(super) fn tick_beep(&mut self, nth: u32, frame: &mut [i16], out: &mut Outgoing) {
        let mut packet = Vec::new();
        let heard = self.passing.hear_user(&mut self.from_user.jitter, &mut packet);
        let user = said_by_user(heard, &packet);
        packet.clear();
        let spoke = self.passing.hear_far(&mut self.from_far.jitter, &mut packet);
        if let Some(slice) = out.tapped.as_mut().filter(|slice| !slice.paused) {
            slice.user = user;
            slice.far = if spoke { opus(&packet) } else { Said::Nothing };
        }
        frame.fill(0);
        add_beep(nth, frame);
    }

    /// By how many samples at 48 kHz what the user said in this tick is older than what the PBX said.
    pub(super) fn offset(&self, now: Tick) -> Option<i16> {
        let far = self.far.pbx()?;
        let (user, theirs) = if self.passing.goes_through(far.codec) {
            self.passing.lags(&self.from_user.jitter, &self.from_far.jitter, now)
        } else {
            (self.from_user.lag(now), self.from_far.lag(now))
        };
        // An Opus encoder looks ahead before it speaks (RFC 6716 §4.2.5 and libopus: 6.5 ms).
        let ahead = if far.codec == Codec::Opus { 0 } else { OPUS_AHEAD };
        i16::try_from((user? - theirs?) * 48 / 1_000 + ahead).ok()
    }

    /// What both sides say is let go of.
    fn drop_both(&mut self, frame: &mut [i16]) {
        match self.far {
            Far::Pbx(far) => {
                let mut scrap = Vec::new();
                match far.codec {
                    Codec::Opus => {
                        self.passing.hear_user(&mut self.from_user.jitter, &mut scrap);
                    }
                    Codec::G722 | Codec::Pcma | Codec::Pcmu => {
                        self.from_user.next(frame);
                    }
                }
                if self.passing.goes_through(far.codec) {
                    self.passing.hear_far(&mut self.from_far.jitter, &mut scrap);
                } else if frame.len() == self.from_far.voice.frame() {
                    let mut room = [0i16; WIDEST];
                    self.from_far.next(&mut room[..frame.len()]);
                }
            }
            Far::Agent | Far::Nobody => {
                self.from_user.next(frame);
                self.sending.skip(1);
            }
        }
    }
}

/// What the user said in this tick, where it goes through undecoded.
pub(super) fn said_by_user(heard: ToFar, packet: &[u8]) -> Said {
    match heard {
        ToFar::Packet => opus(packet),
        ToFar::Hole => Said::Lost,
        ToFar::Wait => Said::Lasts,
    }
}
