//! Two sides, one time: what was said at the same moment stands at the same place of both channels.
//!
//! The jitter buffers of the two sides are never equally deep, and each is corrected by whole frames when it has
//! drifted too far. So the side that has waited less is held back here by the difference that comes with each slice.
//! A change of it is made up for slowly, by stretching or squeezing a frame a little; only a large one at once.

use std::collections::VecDeque;

/// Ticks in a second.
const TICKS: u32 = 50;
/// What is held back at most, in ms.
const MOST: u32 = 200;
/// A difference of less than this, in ms, is left as it is.
const NEAR: u32 = 1;
/// From this difference on, in ms, it is made up for at once.
const FAR: u32 = 30;
/// And one that large must be told so often in a row.
const SURE: u32 = 10;
/// A frame becomes longer or shorter by this part at most: 3 %.
const BEND: usize = 32;

/// What one side has said and is not due yet.
#[derive(Debug, Default)]
struct Held(VecDeque<i16>);

impl Held {
    /// `frame` goes in, and as much comes out of the front that `length` samples stay.
    fn pass(&mut self, frame: &mut [i16], length: usize) {
        self.0.extend(frame.iter());
        let due = self.0.len().saturating_sub(length).max(1);
        stretch(&mut self.0, due, frame);
    }

    /// At once: silence, or nothing.
    fn jump(&mut self, length: usize) {
        while self.0.len() > length {
            self.0.pop_front();
        }
        while self.0.len() < length {
            self.0.push_front(0);
        }
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
        Align { rate, left: Held::default(), right: Held::default(), applied: 0, far_off: SURE }
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
        if off >= FAR * self.rate / 1_000 || self.far_off >= SURE {
            self.far_off += 1;
            if self.far_off > SURE {
                self.far_off = 0;
                self.applied = wanted;
                self.left.jump(wanted.min(0).unsigned_abs() as usize);
                self.right.jump(wanted.max(0).unsigned_abs() as usize);
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
        self.left.0.iter_mut().for_each(|sample| *sample = 0);
        self.right.0.iter_mut().for_each(|sample| *sample = 0);
    }

    /// Ticks of 20 ms that are still held back.
    pub(super) fn held(&self) -> u64 {
        let samples = self.left.0.len().max(self.right.0.len()) as u32;
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
        assert_eq!((left, right), ([100; 160], [0; 160]));
        let (mut left, mut right) = ([0; 160], [0; 160]);
        align.tick(&mut left, &mut right, None);
        assert_eq!((right[39], right[40]), (0, 200), "25 ms later");
        align.forget();
        align.tick(&mut left, &mut right, None);
        assert_eq!(right, [0; 160]);
    }
}
