//! The depth of a jitter buffer, kept near its target.
//!
//! The clock of a sender and ours differ by up to some hundred ppm, and after a burst the buffer is
//! deeper than it need be. The depth before each frame is averaged over a second; when the mean is
//! more than a frame away from the target, one frame is to be dropped or put in: a quiet one if
//! there is one within two seconds.
//!
//! ```text
//!   depth ─┬─ +3 frames, for 200 ms: at once, every 100 ms if need be
//!          ├─ +1 frame on average: drop one
//!          │   target
//!          ├─ -1 frame on average: put one in
//!          └─ empty: the jitter buffer's own matter
//! ```

/// Frames over which the depth is averaged: a second.
const WINDOW: u32 = 50;
/// A correction waits this many frames for a quiet one, or this many if the depth is far off.
const PATIENCE: u32 = 100;
const URGENT_PATIENCE: u32 = 5;
/// So many frames deeper than the target is far off, when it lasts for this many frames.
const SURGE_FRAMES: i32 = 3;
const SURGE_LASTS: u32 = 10;

/// How the depth is to be corrected with the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjust {
    /// Not at all.
    Keep,
    /// Take two frames and play one.
    Drop,
    /// Play one frame and take none.
    Insert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lean {
    Right,
    TooDeep { urgent: bool },
    TooShallow,
}

/// Watches the depth and says when to correct it. Depths are in units of the RTP clock.
#[derive(Debug, Clone)]
pub struct Steering {
    target: i32,
    frame: i32,
    lean: Lean,
    /// For how many frames the correction has been waiting for a quiet one.
    age: u32,
    sum: i64,
    samples: u32,
    surge: u32,
}

impl Steering {
    /// Keeps the depth near `target`; `frame` is 20 ms.
    pub fn new(target: u32, frame: u32) -> Steering {
        let (target, frame) = (target as i32, frame as i32);
        Steering { target, frame, lean: Lean::Right, age: 0, sum: 0, samples: 0, surge: 0 }
    }

    /// Takes in the depth at which a frame is taken.
    pub fn watch(&mut self, depth: i32) {
        self.sum += i64::from(depth);
        self.samples += 1;
        self.surge = if depth > self.target + SURGE_FRAMES * self.frame { self.surge + 1 } else { 0 };
        if self.surge >= SURGE_LASTS {
            self.lean_to(Lean::TooDeep { urgent: true });
        } else if self.samples >= WINDOW {
            let mean = (self.sum / i64::from(self.samples)) as i32;
            self.lean_to(if mean > self.target + self.frame {
                Lean::TooDeep { urgent: false }
            } else if mean < self.target - self.frame {
                Lean::TooShallow
            } else {
                Lean::Right
            });
            self.sum = 0;
            self.samples = 0;
        }
    }

    fn lean_to(&mut self, lean: Lean) {
        if lean != self.lean {
            self.age = 0;
        }
        self.lean = lean;
    }

    /// Begins the average anew: the depth was changed.
    pub fn settle(&mut self) {
        self.lean = Lean::Right;
        self.age = 0;
        self.sum = 0;
        self.samples = 0;
    }

    /// Asked before each frame; `quiet` says that nobody would hear a correction.
    pub fn adjust(&mut self, quiet: bool) -> Adjust {
        let (patience, adjust) = match self.lean {
            Lean::Right => return Adjust::Keep,
            Lean::TooDeep { urgent: true } => (URGENT_PATIENCE, Adjust::Drop),
            Lean::TooDeep { urgent: false } => (PATIENCE, Adjust::Drop),
            Lean::TooShallow => (PATIENCE, Adjust::Insert),
        };
        self.age += 1;
        if !quiet && self.age <= patience {
            return Adjust::Keep;
        }
        self.settle();
        adjust
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(depth: i32, frames: u32, quiet: bool) -> Vec<(u32, Adjust)> {
        let mut steering = Steering::new(480, 160);
        let mut adjustments = Vec::new();
        for frame in 0..frames {
            match steering.adjust(quiet) {
                Adjust::Keep => {}
                adjust => adjustments.push((frame, adjust)),
            }
            steering.watch(depth);
        }
        adjustments
    }

    #[test]
    fn within_a_frame_of_the_target_nothing_is_touched() {
        assert_eq!(after(480 + 160, 1_000, true), []);
        assert_eq!(after(480 - 160, 1_000, true), []);
    }

    #[test]
    fn a_quiet_frame_goes_at_once_and_a_loud_one_after_two_seconds() {
        assert_eq!(after(480 + 170, 60, true), [(50, Adjust::Drop)]);
        assert_eq!(after(480 + 170, 200, false), [(150, Adjust::Drop)]);
        assert_eq!(after(480 - 170, 60, true), [(50, Adjust::Insert)]);
    }

    #[test]
    fn far_too_deep_is_put_right_within_a_second_even_while_someone_speaks() {
        let drops = after(480 + 4 * 160, 60, false);
        assert_eq!(drops[0], (15, Adjust::Drop));
        assert!(drops.len() >= 6, "{drops:?}");
        assert!(after(480 + 4 * 160, 20, true).len() >= 8, "in silence with every frame");
    }
}
