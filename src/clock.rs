//! Time as a value: told to every machine, never asked for by one.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A monotonic instant, in microseconds since the process started (or the story began).
///
/// Deadlines, pacing and billed seconds use this. It never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The beginning.
    pub const ZERO: Tick = Tick(0);

    /// A tick this many milliseconds after the beginning.
    pub const fn from_millis(millis: u64) -> Tick {
        Tick(millis * 1_000)
    }

    /// Whole milliseconds since the beginning.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// This much earlier, but never before the beginning.
    pub fn before(self, span: Duration) -> Tick {
        Tick(self.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The time that has passed since `earlier`; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Tick {
    type Output = Tick;
    fn add(self, span: Duration) -> Tick {
        Tick(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Tick {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub for Tick {
    type Output = Duration;
    fn sub(self, earlier: Tick) -> Duration {
        self.since(earlier)
    }
}

/// Wall-clock time, in milliseconds since the Unix epoch.
///
/// Stamps only. A Raspberry Pi has no clock battery: this jumps when NTP answers, so nothing may
/// be timed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

impl Wall {
    /// Whole seconds since the Unix epoch.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000)
    }
}

/// The two clocks, read together at the edge and handed to every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For deadlines.
    pub tick: Tick,
    /// For stamps.
    pub wall: Wall,
}

impl Now {
    /// The same moment moved forward: for stories under a virtual clock.
    pub fn after(self, span: Duration) -> Now {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Now { tick: self.tick + span, wall: Wall(self.wall.0.saturating_add(millis)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_never_goes_below_zero_when_subtracted() {
        assert_eq!(Tick::ZERO - Tick::from_millis(5), Duration::ZERO);
        assert_eq!(Tick::from_millis(25) - Tick::from_millis(5), Duration::from_millis(20));
    }

    #[test]
    fn moving_forward_moves_both_clocks() {
        let later = Now::default().after(Duration::from_millis(1_500));
        assert_eq!(later.tick.as_millis(), 1_500);
        assert_eq!(later.wall.0, 1_500);
    }
}
