//! How long ago what is played was said, as well as that can be known at this end.
//!
//! Nobody tells when a packet was made; but the fastest ones of the last seconds were hardly held up, and by them the
//! sender's timestamps are laid against our clock (the difference of two clocks drifts slowly, RFC 3550 §6.4.1). What
//! is left is the wait in the jitter buffer. Between the two sides of one call only the difference matters: it says by
//! how much one side's sound is older than the other's in the same tick.

use crate::clock::Tick;

/// The fastest packet is looked for in the last one to two of these, in µs: 4 s.
const STRETCH: i64 = 4_000_000;
/// Beyond this, in µs, the numbers lie: a second.
const SANE: i64 = 1_000_000;

/// The clock of one sender, laid against ours.
#[derive(Debug, Clone)]
pub struct Lag {
    /// Units of the RTP clock in 20 ms.
    frame: u32,
    begun: Option<Begun>,
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    /// A timestamp, and where it lies on our clock if packets took no time, in µs; both move on with the stream.
    timestamp: u32,
    at: i64,
    /// The shortest transit of this stretch and of the one before, in µs, beside what `at` has already.
    shortest: i64,
    before: i64,
    /// When this stretch ends.
    until: i64,
}

fn micros(at: Tick) -> i64 {
    i64::try_from((at - Tick::ZERO).as_micros()).unwrap_or(i64::MAX / 4)
}

impl Lag {
    /// Nobody has been heard. `frame`: units of the RTP clock in 20 ms.
    pub fn new(frame: u32) -> Lag {
        Lag { frame: frame.max(1), begun: None }
    }

    fn span(&self, from: u32, to: u32) -> i64 {
        i64::from(to.wrapping_sub(from) as i32) * 20_000 / i64::from(self.frame)
    }

    /// A packet of sound came.
    pub fn heard(&mut self, timestamp: u32, now: Tick) {
        let now = micros(now);
        let fresh = Begun { timestamp, at: now, shortest: 0, before: 0, until: now + STRETCH };
        let Some(mut begun) = self.begun else {
            self.begun = Some(fresh);
            return;
        };
        let at = begun.at + self.span(begun.timestamp, timestamp);
        let transit = now - at;
        if transit.abs() > SANE {
            // Another clock, or a jump of this one.
            self.begun = Some(fresh);
            return;
        }
        if now >= begun.until {
            begun = Begun { timestamp, at, shortest: transit, before: begun.shortest, until: now + STRETCH };
        } else {
            begun.shortest = begun.shortest.min(transit);
        }
        self.begun = Some(begun);
    }

    /// How long ago the sound with this timestamp was said, in µs, if it begins to be played now.
    pub fn of(&self, timestamp: u32, now: Tick) -> Option<i64> {
        let begun = self.begun?;
        let said = begun.at + self.span(begun.timestamp, timestamp) + begun.shortest.min(begun.before);
        Some(micros(now) - said).filter(|lag| lag.abs() <= SANE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Packets of 20 ms at 8 kHz, each so many ms late; what the last one's lag is when it is played after 60 ms.
    fn played(drift: f64, late: impl Fn(u64) -> u64, count: u64, timestamp: u32) -> f64 {
        let mut lag = Lag::new(160);
        let mut last = (0, Tick::ZERO);
        for n in 0..count {
            let made = Tick::from_millis(5_000) + Duration::from_secs_f64(n as f64 * 0.02 * (1.0 + drift));
            let stamp = timestamp.wrapping_add(n as u32 * 160);
            lag.heard(stamp, made + Duration::from_millis(late(n)));
            last = (stamp, made + Duration::from_millis(60));
        }
        lag.of(last.0, last.1).unwrap() as f64 / 1_000.0
    }

    #[test]
    fn what_was_held_up_on_the_way_does_not_count_if_others_were_not() {
        assert!((played(0.0, |_| 0, 1_000, 7) - 60.0).abs() < 0.1);
        assert!((played(0.0, |n| (n * 7) % 30, 1_000, 7) - 60.0).abs() < 1.1);
        assert!((played(0.0, |n| 10 * (n % 5), 40, u32::MAX - 1_000) - 60.0).abs() < 0.1, "over the wrap");
    }

    #[test]
    fn a_sender_whose_clock_is_off_is_followed() {
        for drift in [300e-6, -300e-6, 20e-6] {
            let lag = played(drift, |n| n % 3, 100_000, 7);
            assert!((lag - 60.0).abs() < 3.0, "{drift}: {lag:.2} ms");
        }
    }

    #[test]
    fn before_anybody_was_heard_and_when_the_numbers_lie_nothing_is_said() {
        let mut lag = Lag::new(960);
        assert_eq!(lag.of(0, Tick::from_millis(100)), None);
        lag.heard(5_000, Tick::from_millis(100));
        assert_eq!(lag.of(5_000 + 48_000 * 10, Tick::from_millis(100)), None, "ten seconds ahead");
        // A sender that begins anew with other numbers.
        lag.heard(900_000_000, Tick::from_millis(120));
        assert_eq!(lag.of(900_000_000, Tick::from_millis(180)), Some(60_000));
    }
}
