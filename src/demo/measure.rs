//! What is measured: sound on a timeline, and how what was heard differs from what was said.
//!
//! Both stand-ins live in one process, so one clock stamps the sending and the hearing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Tick;

/// Everything is measured at this rate, in samples a second.
pub(super) const RATE: u32 = 8_000;
/// Samples of a millisecond.
const MS: usize = 8;
/// No demo is longer, in samples: a stamp from elsewhere must not eat the memory.
const LONGEST: usize = 60 * RATE as usize;
/// A listener's own jitter buffer: what comes later than this is a gap in what is heard.
const PLAYOUT: Duration = Duration::from_millis(60);

/// Loudness is looked at in windows of this many samples (5 ms), a millisecond apart.
const WINDOW: usize = 5 * MS;
/// Quiet for this many milliseconds ends a burst; less is a gap in it.
const PAUSE_MS: usize = 100;
/// What is quieter is nothing, in dBFS.
const NOTHING: f64 = -50.0;
/// A burst that is heard is heard within this time.
const PATIENCE: Duration = Duration::from_millis(600);

/// Sound, and the moments at which its frames passed the wire.
#[derive(Debug, Clone)]
pub(super) struct Track {
    origin: Tick,
    pcm: Vec<i16>,
    /// First sample of each frame, and its moment.
    frames: BTreeMap<usize, Tick>,
}

impl Track {
    /// An empty track; its first sample belongs to `origin`.
    pub fn new(origin: Tick) -> Track {
        Track { origin, pcm: Vec::new(), frames: BTreeMap::new() }
    }

    /// The samples since the origin.
    pub fn pcm(&self) -> &[i16] {
        &self.pcm
    }

    /// The place of a moment.
    fn place(&self, at: Tick) -> usize {
        usize::try_from(at.since(self.origin).as_micros() * u128::from(RATE) / 1_000_000).unwrap_or(LONGEST)
    }

    /// Puts a frame that passed at `at` to this place.
    fn put(&mut self, from: usize, at: Tick, frame: &[i16]) {
        let end = from.saturating_add(frame.len());
        if end > LONGEST {
            return;
        }
        if self.pcm.len() < end {
            self.pcm.resize(end, 0);
        }
        if let Some(place) = self.pcm.get_mut(from..end) {
            place.copy_from_slice(frame);
            self.frames.insert(from, at);
        }
    }

    /// A frame that is sent now, right behind the one before.
    pub fn append(&mut self, at: Tick, frame: &[i16]) {
        let from = if self.frames.is_empty() { self.place(at) } else { self.pcm.len() };
        self.put(from, at, frame);
    }

    /// When a sample passed: with its frame, and as much later as it lies in it.
    fn moment(&self, sample: usize) -> Option<Tick> {
        let (from, at) = self.frames.range(..=sample).next_back()?;
        Some(*at + Duration::from_micros((sample - from) as u64 * 1_000_000 / u64::from(RATE)))
    }
}

/// A listener: places frames by their RTP timestamps, through a jitter buffer, and counts what is missing.
#[derive(Debug, Clone)]
pub(super) struct Ear {
    /// What was heard.
    pub track: Track,
    /// The first frame's timestamp, and where on the track timestamp differences count from.
    begin: Option<(u32, usize)>,
    first: Option<u16>,
    highest: u64,
    seen: std::collections::BTreeSet<u64>,
}

impl Ear {
    /// Has heard nothing yet.
    pub fn new(origin: Tick) -> Ear {
        Ear { track: Track::new(origin), begin: None, first: None, highest: 0, seen: Default::default() }
    }

    /// Counts an RTP packet, of whatever payload.
    pub fn count(&mut self, sequence: u16) {
        let first = *self.first.get_or_insert(sequence);
        // The number of the packet since the first: the step from the highest so far, which may be backwards.
        let step = sequence.wrapping_sub(first).wrapping_sub(self.highest as u16) as i16;
        if let Some(number) = self.highest.checked_add_signed(i64::from(step)) {
            self.highest = self.highest.max(number);
            if self.seen.len() < LONGEST {
                self.seen.insert(number);
            }
        }
    }

    /// Hears a frame that came at `at`. `timestamp` is in units of `clock` hertz.
    pub fn hear(&mut self, at: Tick, timestamp: u32, clock: u32, frame: &[i16]) {
        let due = self.track.place(at + PLAYOUT);
        let (began, base) = *self.begin.get_or_insert((timestamp, due));
        let since = i64::from(timestamp.wrapping_sub(began) as i32) * i64::from(RATE) / i64::from(clock);
        let Some(planned) = base.checked_add_signed(since as isize) else { return };
        let latest = self.track.place(at);
        let from = if planned < latest {
            // Too late for its place: everything from here on is played later.
            self.begin = Some((timestamp, latest));
            latest
        } else {
            planned
        };
        self.track.put(from, at, frame);
    }

    /// RTP packets that came.
    pub fn packets(&self) -> u64 {
        self.seen.len() as u64
    }

    /// RTP packets that never came (RFC 3550 §A.3).
    pub fn lost(&self) -> u64 {
        match self.first {
            Some(_) => (self.highest + 1).saturating_sub(self.packets()),
            None => 0,
        }
    }
}

/// What was found out about one direction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Finding {
    /// The strongest frequency, in hertz.
    pub frequency_hz: Option<f64>,
    /// Level of the bursts, in dBFS.
    pub level_dbfs: Option<f64>,
    /// From the sender's socket to the listener's, in milliseconds: the middle one of all bursts.
    pub delay_ms: Option<f64>,
    /// The longest silence inside a burst, in milliseconds.
    pub longest_gap_ms: Option<f64>,
    /// Bursts that were said.
    pub said: usize,
    /// Bursts of which at least the beginning was heard.
    pub heard: usize,
}

/// A stretch of sound: from this sample to that one.
type Stretch = (usize, usize);

/// Compares what was heard with what was said.
pub(super) fn compare(said: &Track, heard: &Track) -> Finding {
    let (said_bursts, heard_bursts) = (bursts(&said.pcm), bursts(&heard.pcm));
    let mut finding = Finding { said: said_bursts.len(), ..Finding::default() };
    let loud = loudness(&heard.pcm);
    let mut delays = Vec::new();
    let mut whole: Vec<&[i16]> = Vec::new();
    let mut longest_gap = 0;
    for (from, to) in &said_bursts {
        let Some(said_at) = said.moment(*from) else { continue };
        let found = heard_bursts.iter().find_map(|(begin, _)| {
            let heard_at = heard.moment(*begin)?;
            // The same threshold finds a slightly earlier sample in a sound that a codec has smeared.
            let delay = (heard_at + Duration::from_millis(5)).since(said_at).as_secs_f64() * 1_000.0 - 5.0;
            (delay > -5.0 && delay < PATIENCE.as_secs_f64() * 1_000.0).then_some((*begin, delay))
        });
        let Some((begin, delay)) = found else {
            longest_gap = longest_gap.max((to - from) / MS);
            continue;
        };
        finding.heard += 1;
        delays.push(delay);
        // The edges belong to the ramps.
        let end = (begin + (to - from)).min(heard.pcm.len());
        let inside = heard.pcm.get(begin + 2 * WINDOW..end.saturating_sub(4 * WINDOW)).unwrap_or_default();
        longest_gap = longest_gap.max(silence(inside, loud / 4.0));
        whole.push(inside);
    }
    delays.sort_by(f64::total_cmp);
    finding.delay_ms = delays.get(delays.len() / 2).copied();
    if !said_bursts.is_empty() && finding.heard > 0 {
        finding.longest_gap_ms = Some(longest_gap as f64);
        finding.frequency_hz =
            whole.iter().max_by_key(|burst| burst.len()).and_then(|burst| frequency(burst));
        finding.level_dbfs = Some(dbfs(rms(&whole.concat())));
    }
    finding
}

/// Level of a root mean square in dBFS: a full-scale sine is 0.
pub(super) fn dbfs(rms: f64) -> f64 {
    20.0 * (rms * std::f64::consts::SQRT_2 / 32_768.0).max(1e-9).log10()
}

pub(super) fn rms(pcm: &[i16]) -> f64 {
    let power: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (power / pcm.len().max(1) as f64).sqrt()
}

/// The loudness of each window, a millisecond apart.
fn windows(pcm: &[i16]) -> impl Iterator<Item = f64> {
    (0..pcm.len().saturating_sub(WINDOW) / MS)
        .map(|ms| rms(pcm.get(ms * MS..ms * MS + WINDOW).unwrap_or_default()))
}

/// How loud the loud parts are: a tenth of the windows that are not silent is louder.
fn loudness(pcm: &[i16]) -> f64 {
    let mut found: Vec<f64> = windows(pcm).filter(|loud| dbfs(*loud) > NOTHING).collect();
    found.sort_by(f64::total_cmp);
    found.get(found.len() * 9 / 10).copied().unwrap_or(0.0)
}

/// The stretches of sound: begun by half the full loudness, ended by a quarter of it for long enough.
fn bursts(pcm: &[i16]) -> Vec<Stretch> {
    let loud = loudness(pcm);
    let mut found: Vec<Stretch> = Vec::new();
    if loud <= 0.0 {
        return found;
    }
    let mut quiet = PAUSE_MS;
    for (ms, loudness) in windows(pcm).enumerate() {
        if loudness >= loud / 2.0 {
            match found.last_mut() {
                Some(burst) if quiet < PAUSE_MS => burst.1 = ms * MS + WINDOW,
                Some(_) | None => found.push((ms * MS, ms * MS + WINDOW)),
            }
            quiet = 0;
        } else if loudness < loud / 4.0 {
            quiet += 1;
        }
    }
    found
}

/// The longest run of windows below `floor`, in milliseconds.
fn silence(pcm: &[i16], floor: f64) -> usize {
    let (mut longest, mut run) = (0, 0);
    for loudness in windows(pcm) {
        run = if loudness < floor { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    match longest {
        0 => 0,
        windows => windows + WINDOW / MS - 1,
    }
}

/// The strongest frequency between 100 Hz and 3900 Hz: a bank of Goertzel filters, coarse and then fine.
fn frequency(pcm: &[i16]) -> Option<f64> {
    /// Enough for half a hertz.
    const MOST: usize = 4_096;
    /// Fewer can't tell neighbours apart.
    const LEAST: usize = 800;
    let pcm = pcm.get(..pcm.len().min(MOST)).filter(|pcm| pcm.len() >= LEAST)?;
    let windowed: Vec<f64> = pcm
        .iter()
        .enumerate()
        .map(|(at, sample)| {
            let turn = at as f64 / pcm.len() as f64;
            f64::from(*sample) * (0.5 - 0.5 * (turn * std::f64::consts::TAU).cos())
        })
        .collect();
    let strongest = |from: f64, step: f64, count: u32| {
        (0..count)
            .map(|n| from + f64::from(n) * step)
            .map(|hz| (hz, goertzel(&windowed, hz)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(hz, _)| hz)
    };
    let coarse = strongest(100.0, 2.0, 1_901)?;
    strongest(coarse - 2.0, 0.05, 81)
}

/// The power at one frequency (Goertzel).
fn goertzel(pcm: &[f64], hz: f64) -> f64 {
    let factor = 2.0 * (hz / f64::from(RATE) * std::f64::consts::TAU).cos();
    let (mut one, mut two) = (0.0, 0.0);
    for sample in pcm {
        (one, two) = (sample + factor * one - two, one);
    }
    one * one + two * two - factor * one * two
}

#[cfg(test)]
mod tests {
    use super::super::tone::{Bursts, Mouth};
    use super::*;

    const FRAME: usize = 160;

    fn bursts_of(hz: f64) -> Bursts {
        Bursts { hz, dbfs: -18.0, lead_ms: 200, on_ms: 400, off_ms: 300, count: 3 }
    }

    /// Says it frame by frame; `wire` may let a frame through to the ear, later, changed or not at all.
    fn over(hz: f64, mut wire: impl FnMut(usize, &[i16]) -> Option<(u64, Vec<i16>)>) -> (Track, Ear) {
        let origin = Tick::from_millis(1_000);
        let (mut said, mut ear) = (Track::new(origin), Ear::new(origin));
        let mut mouth = Mouth::new(bursts_of(hz), RATE);
        for number in 0..120_usize {
            let at = Tick::from_millis(1_500 + number as u64 * 20);
            let mut frame = [0; FRAME];
            mouth.say(&mut frame);
            said.append(at, &frame);
            if let Some((late_ms, heard)) = wire(number, &frame) {
                ear.count(65_500_u16.wrapping_add(number as u16));
                let timestamp = 4_294_960_000_u32.wrapping_add((number * FRAME * 6) as u32);
                ear.hear(at + Duration::from_millis(late_ms), timestamp, 48_000, &heard);
            }
        }
        (said, ear)
    }

    #[test]
    fn a_tone_that_crosses_unharmed_is_found_with_its_frequency_level_and_delay() {
        for hz in [440.0, 1_000.0, 2_713.4] {
            let (said, ear) = over(hz, |_, frame| Some((47, frame.to_vec())));
            let found = compare(&said, &ear.track);
            assert!((found.frequency_hz.unwrap() - hz).abs() < 0.3, "{found:?}");
            assert!((found.level_dbfs.unwrap() + 18.0).abs() < 0.3, "{found:?}");
            assert!((found.delay_ms.unwrap() - 47.0).abs() < 1.0, "{found:?}");
            assert_eq!((found.longest_gap_ms, found.said, found.heard), (Some(0.0), 3, 3));
            assert_eq!((ear.packets(), ear.lost()), (120, 0));
        }
    }

    #[test]
    fn a_lost_frame_is_counted_and_is_a_gap() {
        let (said, ear) = over(440.0, |number, frame| (number != 20).then(|| (10, frame.to_vec())));
        let found = compare(&said, &ear.track);
        let gap = found.longest_gap_ms.unwrap();
        assert!((15.0..=21.0).contains(&gap), "{found:?}");
        assert_eq!((ear.packets(), ear.lost()), (119, 1));
    }

    #[test]
    fn a_frame_that_comes_too_late_to_be_played_is_a_gap() {
        let (said, ear) =
            over(440.0, |number, frame| Some((if number < 20 { 10 } else { 150 }, frame.to_vec())));
        let found = compare(&said, &ear.track);
        let gap = found.longest_gap_ms.unwrap();
        assert!((75.0..=85.0).contains(&gap), "140 ms later, 60 ms of them buffered: {found:?}");
    }

    #[test]
    fn frames_that_jitter_within_the_buffer_are_no_gap() {
        let (said, ear) = over(440.0, |number, frame| Some((10 + (number as u64 * 37) % 50, frame.to_vec())));
        assert_eq!(compare(&said, &ear.track).longest_gap_ms, Some(0.0));
    }

    #[test]
    fn a_burst_that_never_comes_is_a_gap_of_its_length() {
        let second = 20 + 500 / 20..20 + 900 / 20;
        let (said, ear) = over(440.0, |number, frame| {
            Some((10, if second.contains(&number) { vec![0; FRAME] } else { frame.to_vec() }))
        });
        let found = compare(&said, &ear.track);
        assert_eq!((found.said, found.heard), (3, 2));
        assert!((390.0..=410.0).contains(&found.longest_gap_ms.unwrap()), "{found:?}");
    }

    #[test]
    fn silence_has_no_frequency() {
        let (said, ear) = over(440.0, |_, _| Some((10, vec![8; FRAME])));
        let found = compare(&said, &ear.track);
        assert_eq!(found, Finding { said: 3, ..Finding::default() });
    }

    #[test]
    fn another_tone_is_not_taken_for_the_one_that_was_said() {
        let mut other = Mouth::new(bursts_of(900.0), RATE);
        let (said, ear) = over(440.0, |_, _| {
            let mut frame = vec![0; FRAME];
            other.say(&mut frame);
            Some((10, frame))
        });
        let found = compare(&said, &ear.track).frequency_hz.unwrap();
        assert!((found - 900.0).abs() < 0.3, "{found}");
    }
}
