//! The tape: slices of a call become the bytes of a recording, two channels of the same length.
//!
//! ```text
//!  Slice ─┬─ user ─► Track ─► left  ─┐
//!         │         (Opus decoded,   ├─► Align ─► WAV samples, or two Opus streams in Ogg pages ─► drain
//!         └─ far ──► Track ─► right ─┘
//!                    resampled)
//! ```
//!
//! Left is the WhatsApp user, right is the destination, always. Both advance by 20 ms with each slice. Runs on the
//! recorder's thread, so memory may be allocated; how much is bounded by how seldom [`Tape::drain`] is called.
mod align;
mod ogg;
pub(super) mod page;
mod text;
mod track;
mod wav;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read};

use super::g711;
use super::opus::Rate;
use super::ports::MediaError;
use super::tap::{Said, Slice};
use crate::call::recording::Outcome;
use crate::config::{RecordingConfig, TapeFormat};
use align::Align;
use track::Track;

/// Ticks of 20 ms in a second.
const TICKS: u64 = 50;
/// A hole is filled with so many ticks of silence at most: 4 h. A longer one is a fault somewhere, and the disk's end.
const LONGEST_HOLE: u64 = 14_400 * TICKS;
/// A recording is at most so many ticks long: a day, the longest call that can be configured.
const LONGEST: u64 = 86_400 * TICKS;
/// One drain writes at most so many ticks of silence: 10 s.
const SILENCE_AT_ONCE: u64 = 10 * TICKS;

/// What a recording is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// WAV, linear 16-bit.
    WavPcm,
    /// WAV, G.711 A-law, always at 8 kHz.
    WavAlaw,
    /// WAV, G.711 µ-law, always at 8 kHz.
    WavUlaw,
    /// Ogg Opus (RFC 7845).
    Ogg,
}

/// How a recording is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// File and coding.
    pub kind: Kind,
    /// Samples per second and channel: 8,000 or 16,000.
    pub rate: u32,
    /// Ogg: bits per second and channel, 6,000 to 64,000. Otherwise 0.
    pub bitrate: u32,
}

impl Form {
    /// As it is configured.
    pub fn of(config: &RecordingConfig) -> Form {
        let kind = match config.format {
            TapeFormat::WavPcm => Kind::WavPcm,
            TapeFormat::WavAlaw => Kind::WavAlaw,
            TapeFormat::WavUlaw => Kind::WavUlaw,
            TapeFormat::Ogg => Kind::Ogg,
        };
        let bitrate = if kind == Kind::Ogg { config.bitrate } else { 0 };
        let form = Form { kind, rate: config.sample_rate, bitrate };
        Form { rate: form.hertz(), ..form }
    }

    /// What the file's name ends in, without the dot.
    pub fn extension(&self) -> &'static str {
        match self.kind {
            Kind::WavPcm | Kind::WavAlaw | Kind::WavUlaw => "wav",
            Kind::Ogg => "ogg",
        }
    }

    /// Its media type (RFC 7845 §9 for Ogg).
    pub fn mime(&self) -> &'static str {
        match self.kind {
            Kind::WavPcm | Kind::WavAlaw | Kind::WavUlaw => "audio/wav",
            Kind::Ogg => "audio/ogg; codecs=opus",
        }
    }

    /// A word that [`Form::parse`] reads: `wav-pcm-8000`, `wav-alaw-8000`, `ogg-16000-24000` (rate and bit rate).
    pub fn word(&self) -> String {
        match self.kind {
            Kind::WavPcm => format!("wav-pcm-{}", self.rate),
            Kind::WavAlaw => format!("wav-alaw-{}", self.rate),
            Kind::WavUlaw => format!("wav-ulaw-{}", self.rate),
            Kind::Ogg => format!("ogg-{}-{}", self.rate, self.bitrate),
        }
    }

    /// What [`Form::word`] wrote; `None` for anything else.
    pub fn parse(word: &str) -> Option<Form> {
        let number = |text: &str| text.parse::<u32>().ok();
        let mut parts = word.split('-');
        let (kind, rate, bitrate) = match (parts.next()?, parts.next()?, parts.next()?) {
            ("wav", "pcm", rate) => (Kind::WavPcm, number(rate)?, 0),
            ("wav", "alaw", rate) => (Kind::WavAlaw, number(rate)?, 0),
            ("wav", "ulaw", rate) => (Kind::WavUlaw, number(rate)?, 0),
            ("ogg", rate, bitrate) => (Kind::Ogg, number(rate)?, number(bitrate)?),
            _ => return None,
        };
        let form = Form { kind, rate, bitrate };
        let known = form.rate == form.hertz()
            && matches!(form.rate, 8_000 | 16_000)
            && (kind != Kind::Ogg || (6_000..=64_000).contains(&bitrate));
        (known && parts.next().is_none()).then_some(form)
    }

    /// The rate that is written: G.711 knows only one.
    fn hertz(&self) -> u32 {
        match self.kind {
            Kind::WavPcm | Kind::Ogg => self.rate,
            Kind::WavAlaw | Kind::WavUlaw => 8_000,
        }
    }

    /// Samples of one channel in 20 ms.
    fn frame(&self) -> usize {
        (self.hertz() / 50) as usize
    }

    /// Ticks that the file can hold: a WAV file's sizes have 32 bits.
    fn most(&self) -> u64 {
        match self.kind {
            Kind::WavPcm | Kind::WavAlaw | Kind::WavUlaw => LONGEST.min(wav::most_ticks(self)),
            Kind::Ogg => LONGEST,
        }
    }
}

/// What a recording says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The call's id. What of it is longer than 120 bytes is left out, here and below.
    pub call: &'a str,
    /// When the recording began (RFC 3339).
    pub began: &'a str,
    /// The number's name in the configuration.
    pub number: &'a str,
    /// How it came out; `Running` while it is being written.
    pub outcome: Outcome,
    /// How long it plays, in ticks of 20 ms.
    pub ticks: u64,
    /// Of those, silence because it was paused.
    pub paused_ticks: u64,
    /// Of those, silence because slices were missing.
    pub lost_ticks: u64,
}

/// The file's head: for one form always of the same length, whatever the facts, so that it is rewritten in place.
///
/// While the outcome is `Running`, a WAV head says that the file has no known end, and players play what there is.
/// The lengths must never change: a newer program rewrites the heads of files that an older one began.
pub fn head(form: &Form, facts: &Facts<'_>) -> Vec<u8> {
    match form.kind {
        Kind::WavPcm | Kind::WavAlaw | Kind::WavUlaw => wav::head(form, facts),
        Kind::Ogg => ogg::head(form, facts),
    }
}

/// What of a file that was cut off can be kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whole {
    /// Bytes to keep, the head included; 0 if not even the head is whole.
    pub bytes: u64,
    /// How long they play together with `closing`, in ticks of 20 ms.
    pub ticks: u64,
    /// To be written behind them: the last Ogg page once more, now saying that it is the last. May be empty.
    pub closing: Vec<u8>,
}

/// Looks through a file that [`head`] and a [`Tape`] wrote, from its beginning to where it was cut off.
///
/// # Errors
/// What reading gave.
pub fn whole(form: &Form, file: &mut dyn Read) -> io::Result<Whole> {
    match form.kind {
        Kind::WavPcm | Kind::WavAlaw | Kind::WavUlaw => wav::whole(form, file),
        Kind::Ogg => ogg::whole(file),
    }
}

/// So many ticks of both channels: of silence, or as they stand in the two queues.
#[derive(Debug, Clone, Copy)]
struct Run {
    silent: bool,
    ticks: u64,
}

#[derive(Debug)]
enum Body {
    Pcm,
    Alaw,
    Ulaw,
    Ogg(Box<ogg::Streams>),
}

/// One recording in the making.
#[derive(Debug)]
pub struct Tape {
    form: Form,
    user: Track,
    far: Track,
    align: Align,
    left: Vec<i16>,
    right: Vec<i16>,
    /// What of the queues has not been written yet, the oldest first.
    runs: VecDeque<Run>,
    /// The number of the slice that comes next.
    next: u64,
    ticks: u64,
    paused: u64,
    lost: u64,
    body: Body,
}

impl Tape {
    /// An empty tape.
    ///
    /// # Errors
    /// libopus has no memory, or the form's rate is neither 8,000 nor 16,000 Hz.
    pub fn new(form: &Form) -> Result<Tape, MediaError> {
        let rate = match Rate::of(form.hertz()) {
            Some(rate @ (Rate::Narrow | Rate::Wide)) => rate,
            Some(Rate::SuperWide) | None => return Err(MediaError::Rate { rate: form.rate }),
        };
        let body = match form.kind {
            Kind::WavPcm => Body::Pcm,
            Kind::WavAlaw => Body::Alaw,
            Kind::WavUlaw => Body::Ulaw,
            Kind::Ogg => Body::Ogg(Box::new(ogg::Streams::new(rate, form.bitrate)?)),
        };
        Ok(Tape {
            form: *form,
            user: Track::new(rate)?,
            far: Track::new(rate)?,
            align: Align::new(form.hertz()),
            left: Vec::new(),
            right: Vec::new(),
            runs: VecDeque::new(),
            next: 0,
            ticks: 0,
            paused: 0,
            lost: 0,
            body,
        })
    }

    /// Takes down one tick of both sides. Where slices are missing before it, silence of their length is put in and
    /// counted as lost. A slice whose number has passed, and what comes when the tape [is full](Tape::is_full), is
    /// left out.
    pub fn take(&mut self, slice: &Slice) {
        let at = u64::from(slice.at);
        if at < self.next || self.is_full() {
            return;
        }
        let hole = (at - self.next).min(LONGEST_HOLE).min(self.form.most() - self.ticks);
        if hole > 0 {
            self.silence(hole);
            self.lost += hole;
        }
        self.next = at + 1;
        if self.is_full() {
            return;
        }
        if slice.paused {
            self.silence(1);
            self.paused += 1;
        } else if slice.user == Said::Nothing && slice.far == Said::Nothing {
            self.silence(1);
        } else {
            self.sound(&slice.user, &slice.far, slice.offset);
        }
    }

    fn sound(&mut self, user: &Said, far: &Said, offset: Option<i16>) {
        let (left, right) = (self.left.len(), self.right.len());
        self.user.take(user, &mut self.left);
        self.far.take(far, &mut self.right);
        if let (Some(left), Some(right)) = (self.left.get_mut(left..), self.right.get_mut(right..)) {
            self.align.tick(left, right, offset);
        }
        self.run(false, 1);
    }

    /// Both sides are silent for so long; what still sounded is cut off.
    fn silence(&mut self, ticks: u64) {
        self.user.forget();
        self.far.forget();
        self.align.forget();
        self.run(true, ticks);
    }

    fn run(&mut self, silent: bool, ticks: u64) {
        self.ticks += ticks;
        match self.runs.back_mut() {
            Some(run) if run.silent == silent => run.ticks += ticks,
            Some(_) | None => self.runs.push_back(Run { silent, ticks }),
        }
    }

    /// Adds the bytes that are complete to `out`: WAV all, Ogg whole pages. Meant to be called once a second, and
    /// again at once for as long as it says true: hours of missing slices come in pieces of 10 s.
    ///
    /// A page of Ogg is closed after a second of sound, and here if it holds half a second.
    pub fn drain(&mut self, out: &mut Vec<u8>) -> bool {
        let more = self.write(out);
        if let Body::Ogg(streams) = &mut self.body
            && !more
        {
            streams.turn_page(out);
        }
        more
    }

    /// Says whether there is more.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let mut silence = SILENCE_AT_ONCE;
        let mut from = 0;
        while let Some(run) = self.runs.front_mut() {
            let ticks = if run.silent { run.ticks.min(silence) } else { run.ticks };
            if ticks == 0 {
                break;
            }
            run.ticks -= ticks;
            let silent = run.silent;
            if run.ticks == 0 {
                self.runs.pop_front();
            }
            if silent {
                silence -= ticks;
                self.body.silence(ticks, self.form.frame(), out);
            } else {
                let to = from + ticks as usize * self.form.frame();
                if let (Some(left), Some(right)) = (self.left.get(from..to), self.right.get(from..to)) {
                    self.body.sound(left, right, self.form.frame(), out);
                }
                from = to;
            }
        }
        self.left.drain(..from.min(self.left.len()));
        self.right.drain(..from.min(self.right.len()));
        !self.runs.is_empty()
    }

    /// Adds all that remains to `out`, and what closes the file's body. Nothing may be taken down after it.
    ///
    /// It makes as much as there is: call [`Tape::drain`] before until it says false.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        // What one side was held back for the other's sake.
        for _ in 0..self.align.held() {
            if !self.is_full() {
                self.sound(&Said::Nothing, &Said::Nothing, None);
            }
        }
        while self.write(out) {}
        if let Body::Ogg(streams) = &mut self.body {
            streams.finish(self.ticks, out);
        }
    }

    /// How long it plays so far, in ticks of 20 ms.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Of those, silence because it was paused.
    pub fn paused_ticks(&self) -> u64 {
        self.paused
    }

    /// Of those, silence because slices were missing.
    pub fn lost_ticks(&self) -> u64 {
        self.lost
    }

    /// Nothing more is taken down: a WAV file can't be larger (4 GiB: 18 h at 16 kHz in linear), or a day is over.
    pub fn is_full(&self) -> bool {
        self.ticks >= self.form.most()
    }
}

impl Body {
    fn silence(&mut self, ticks: u64, frame: usize, out: &mut Vec<u8>) {
        let samples = ticks as usize * frame * 2;
        let mut fill = |length: usize, byte: u8| out.resize(out.len() + length, byte);
        match self {
            Body::Pcm => fill(samples * 2, 0),
            Body::Alaw => fill(samples, g711::SILENCE_PCMA),
            Body::Ulaw => fill(samples, g711::SILENCE_PCMU),
            Body::Ogg(streams) => {
                for _ in 0..ticks {
                    streams.silence(out);
                }
            }
        }
    }

    fn sound(&mut self, left: &[i16], right: &[i16], frame: usize, out: &mut Vec<u8>) {
        let pairs = left.iter().zip(right);
        match self {
            Body::Pcm => {
                out.extend(pairs.flat_map(|(l, r)| {
                    let ([a, b], [c, d]) = (l.to_le_bytes(), r.to_le_bytes());
                    [a, b, c, d]
                }));
            }
            Body::Alaw => out.extend(pairs.flat_map(|(l, r)| [g711::to_pcma(*l), g711::to_pcma(*r)])),
            Body::Ulaw => out.extend(pairs.flat_map(|(l, r)| [g711::to_pcmu(*l), g711::to_pcmu(*r)])),
            Body::Ogg(streams) => {
                for (left, right) in left.chunks_exact(frame).zip(right.chunks_exact(frame)) {
                    streams.frame(left, right, out);
                }
            }
        }
    }
}
