//! Two sides, one time: what was said at the same moment stands at the same place of both channels.
//!
//! The jitter buffers of the two sides are never equally deep, and each is corrected by whole frames when it has
//! drifted too far. So the side that has waited less is held back here by the difference that comes with each slice.
//! Where it drifts, a frame is stretched or squeezed by a sample or two; where a jitter buffer has left out or put in
//! a frame, the opposite is done here, faded over.

use std::collections::VecDeque;

/// Ticks in a second.
const TICKS: u32 = 50;
/// What is held back at most, in ms.
const MOST: u32 = 200;
/// A difference of less than this, in ms, is left as it is.
const NEAR: u32 = 1;
/// From this difference on, in ms, it is made up for at once: the jitter buffers do so too.
const FAR: u32 = 6;
/// But only if it is told so often in a row.
const SURE: u32 = 5;
/// Otherwise a frame becomes longer or shorter by this part at most.
const BEND: usize = 160;

/// What one side has said and is not due yet, and what of it was due last.
#[derive(Debug, Default)]
struct Held {
    waiting: VecDeque<i16>,
    past: VecDeque<i16>,
    most: usize,
}

impl Held {
    /// `frame` goes in, and as much comes out of the front that `length` samples stay.
    fn pass(&mut self, frame: &mut [i16], length: usize) {
        let before = self.waiting.len();
        self.waiting.extend(frame.iter());
        if before.abs_diff(length) * BEND > frame.len() {
            self.jump(frame, length);
        } else {
            let due = self.waiting.len().saturating_sub(length).max(1);
            stretch(&mut self.waiting, due, frame);
        }
        self.past.extend(frame.iter());
        let old = self.past.len().saturating_sub(self.most);
        self.past.drain(..old);
    }

    /// From one place in the line to another, faded over within the frame: what was said is said again, or left out.
    fn jump(&mut self, frame: &mut [i16], length: usize) {
        let whole = frame.len();
        let held = self.waiting.len() - whole;
        let old: Vec<i16> = self.waiting.iter().take(whole).copied().collect();
        if length > held {
            for _ in held..length {
                self.waiting.push_front(self.past.pop_back().unwrap_or(0));
            }
        } else {
            self.waiting.drain(..held - length);
        }
        let new = self.waiting.drain(..whole);
        for (at, ((place, old), new)) in (0_i32..).zip(frame.iter_mut().zip(old).zip(new)) {
            let whole = whole as i32;
            *place = ((i32::from(old) * (whole - at) + i32::from(new) * at) / whole) as i16;
        }
    }

    fn forget(&mut self) {
        self.waiting.iter_mut().for_each(|sample| *sample = 0);
        self.past.clear();
    }
}

/// Takes `due` samples and makes `out` of them.
fn stretch(from: &mut VecDeque<i16>, due: usize, out: &mut [i16]) {
    if due == out.len() {
        for (place, sample) in out.iter_mut().zip(from.drain(..due)) {
            *place = sample;
        }
        return;
    }
    let sample = |at: usize| i32::from(from.get(at.min(due - 1)).copied().unwrap_or(0));
    let length = out.len();
    for (at, place) in out.iter_mut().enumerate() {
        let (whole, part) = (at * due / length, (at * due % length) as i32);
        let (here, next) = (sample(whole), sample(whole + 1));
        *place = (here + (next - here) * part / length as i32) as i16;
    }
    from.drain(..due.min(from.len()));
}

/// Holds one side back so that both are of the same age.
#[derive(Debug)]
pub(super) struct Align {
    rate: u32,
    left: Held,
    right: Held,
    /// By how many samples the right side is held back; less than zero: the left one.
    applied: i32,
    /// How often in a row it was told to be far off; nothing was told yet: sure at once.
    far_off: u32,
}

impl Align {
    /// For sound of so many samples a second.
    pub(super) fn new(rate: u32) -> Align {
        let held = || Held { most: (MOST * rate / 1_000) as usize, ..Held::default() };
        Align { rate, left: held(), right: held(), applied: 0, far_off: SURE }
    }

    /// 20 ms of both sides, in place. `offset`: by how many samples at 48 kHz the left one is older.
    pub(super) fn tick(&mut self, left: &mut [i16], right: &mut [i16], offset: Option<i16>) {
        if let Some(offset) = offset {
            self.turn(i32::from(offset), left.len());
        }
        let (older, younger) = (self.applied.min(0).unsigned_abs(), self.applied.max(0).unsigned_abs());
        self.left.pass(left, older as usize);
        self.right.pass(right, younger as usize);
    }

    fn turn(&mut self, offset: i32, frame: usize) {
        let most = (MOST * self.rate / 1_000) as i32;
        let wanted = (offset * self.rate as i32 / 48_000).clamp(-most, most);
        let off = (wanted - self.applied).unsigned_abs();
        if off >= FAR * self.rate / 1_000 {
            self.far_off += 1;
            if self.far_off > SURE {
                self.far_off = 0;
                self.applied = wanted;
            }
            return;
        }
        self.far_off = 0;
        if off > NEAR * self.rate / 1_000 {
            let step = (off as usize).min(frame / BEND) as i32;
            self.applied += if wanted > self.applied { step } else { -step };
        }
    }

    /// Both sides are silent from here on: what is held back is not said any more.
    pub(super) fn forget(&mut self) {
        self.left.forget();
        self.right.forget();
    }

    /// Ticks of 20 ms that are still held back.
    pub(super) fn held(&self) -> u64 {
        let samples = self.left.waiting.len().max(self.right.waiting.len()) as u32;
        u64::from(samples.div_ceil(self.rate / TICKS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 8_000;

    fn sine(at: f64) -> i16 {
        (9_000.0 * (at * 400.0 * std::f64::consts::TAU / f64::from(RATE)).sin()) as i16
    }

    /// Both sides say the same tone, the left one so many ms later; the offset is told as it is. What comes out.
    fn passed(
        late: impl Fn(u32) -> f64,
        told: impl Fn(u32) -> Option<i16>,
        ticks: u32,
    ) -> (Vec<i16>, Vec<i16>) {
        let (mut align, mut left, mut right) = (Align::new(RATE), Vec::new(), Vec::new());
        for n in 0..ticks {
            let at = |i: u32, late: f64| f64::from(n * 160 + i) - late * f64::from(RATE) / 1_000.0;
            let mut one: Vec<i16> = (0..160).map(|i| sine(at(i, late(n)))).collect();
            let mut two: Vec<i16> = (0..160).map(|i| sine(at(i, 0.0))).collect();
            align.tick(&mut one, &mut two, told(n));
            left.extend(one);
            right.extend(two);
        }
        (left, right)
    }

    fn differs(left: &[i16], right: &[i16]) -> i32 {
        left.iter().zip(right).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).max().unwrap_or(0)
    }

    #[test]
    fn the_side_that_is_younger_waits_for_the_other_one_whichever_it_is() {
        for (late, offset) in [(21.0, 21 * 48), (-14.0, -14 * 48), (0.0, 0)] {
            let (left, right) = passed(|_| late, |_| Some(offset), 50);
            assert_eq!((left.len(), right.len()), (8_000, 8_000));
            assert!(differs(&left[400..], &right[400..]) < 30, "{late} ms");
        }
    }

    #[test]
    fn a_drift_is_followed_without_a_click() {
        // 200 ppm: 12 ms in a minute.
        let late = |n: u32| f64::from(n) * 0.02 * 200e-6 * 1_000.0;
        let (left, right) = passed(late, |n| Some((late(n) * 48.0) as i16), 3_000);
        for sound in [&left, &right] {
            let steepest = sound.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max();
            assert!(steepest < Some(3_100), "{steepest:?}, and the tone itself has 2,827");
        }
        // Within a millisecond, and the tone's slope is 2,827 a sample.
        assert!(differs(&left[470_000..], &right[470_000..]) < 9 * 2_827);
        let shift = |by: usize| differs(&left[471_000..471_400], &right[471_000 + by - 8..471_400 + by - 8]);
        let best = (0..=16).min_by_key(|by| shift(*by)).unwrap_or(0) as i32 - 8;
        assert!(best.abs() <= 8, "{best} samples");
    }

    #[test]
    fn a_frame_that_a_jitter_buffer_has_left_out_is_made_up_for_within_a_second() {
        let late = |n: u32| if n < 100 { 12.0 } else { -8.0 };
        let (left, right) = passed(late, |n| Some((late(n) * 48.0) as i16), 200);
        assert!(differs(&left[1_000..15_900], &right[1_000..15_900]) < 30);
        let shift = |by: usize| differs(&left[24_000..24_400], &right[24_000 + by - 10..24_400 + by - 10]);
        let best = (0..=20).min_by_key(|by| shift(*by)).unwrap_or(0) as i32 - 10;
        assert!(best.abs() <= 8, "a millisecond: {best} samples");
    }

    #[test]
    fn what_is_told_once_and_cannot_be_is_not_believed_at_once() {
        let told = |n: u32| Some(if (50..55).contains(&n) { 9_000 } else { 0 });
        let (left, right) = passed(|_| 0.0, told, 100);
        assert_eq!(differs(&left, &right), 0);
        let (left, right) = passed(|_| 0.0, |_| None, 100);
        assert_eq!(differs(&left, &right), 0, "nothing is known");
    }

    #[test]
    fn nothing_is_lost_at_the_end_and_a_silence_is_silent() {
        let mut align = Align::new(RATE);
        let (mut left, mut right) = ([100_i16; 160], [200_i16; 160]);
        align.tick(&mut left, &mut right, Some(25 * 48));
        assert_eq!(align.held(), 2);
        assert_eq!(left, [100; 160]);
        assert_eq!((right[0], right[159]), (200, 1), "it fades out: it is said again later");
        let (mut left, mut right) = ([0; 160], [0; 160]);
        align.tick(&mut left, &mut right, None);
        assert_eq!((right[39], right[40]), (0, 200), "25 ms later");
        align.forget();
        align.tick(&mut left, &mut right, None);
        assert_eq!(right, [0; 160]);
    }
}
