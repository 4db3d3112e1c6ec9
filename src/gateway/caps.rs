//! What a trunk may dial out to WhatsApp users: which numbers, and how many calls in a minute and in a day.
//!
//! A PBX that was broken into must not be able to call the world at the owner's cost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::{Now, Tick};
use crate::whatsapp::callee::Callee;

const MINUTE: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What the configuration allows a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DialLimits {
    /// What the numbers begin with, each with `+`; empty: all.
    pub allow: Vec<String>,
    /// Calls in any minute; 0: as many as it likes.
    pub per_minute: usize,
    /// Calls in a day (UTC); 0: as many as it likes. A restart begins the day anew.
    pub per_day: u64,
}

/// Why a trunk may not dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capped {
    /// Not this number.
    Number,
    /// Not so many in a minute; how many seconds until the next.
    Minute {
        /// At least one.
        wait: u32,
    },
    /// Not so many in a day; how many seconds until the next (UTC) begins.
    Day {
        /// At least one.
        wait: u32,
    },
}

impl Capped {
    /// The SIP status, a sentence for the person behind the PBX, and when to try again.
    pub fn answer(self) -> (u16, &'static str, Option<u32>) {
        match self {
            Capped::Number => (403, "this trunk may not dial this number (dial_allow)", None),
            Capped::Minute { wait } => (486, "too many calls in a minute (dial_per_minute)", Some(wait)),
            Capped::Day { wait } => (486, "too many calls today (dial_per_day)", Some(wait)),
        }
    }
}

#[derive(Debug, Default)]
struct Dialled {
    /// The calls of the last minute, the oldest first; never more than `per_minute`.
    minute: VecDeque<Tick>,
    day: i64,
    today: u64,
}

/// What each trunk has dialled lately.
#[derive(Debug, Default)]
pub struct Caps(BTreeMap<String, Dialled>);

impl Caps {
    /// Whether this trunk may dial this user now; if so, the call counts.
    ///
    /// # Errors
    /// What forbids it.
    pub fn admit(
        &mut self,
        trunk: &str,
        limits: &DialLimits,
        callee: &Callee,
        now: Now,
    ) -> Result<(), Capped> {
        let allowed = |prefix: &String| match callee {
            Callee::Phone(digits) => digits.starts_with(prefix.trim_start_matches('+')),
            Callee::Bsuid(_) => false,
        };
        if !limits.allow.is_empty() && !limits.allow.iter().any(allowed) {
            return Err(Capped::Number);
        }
        let dialled = self.0.entry(trunk.to_owned()).or_default();
        let day = now.wall.0.div_euclid(DAY_MS);
        if dialled.day != day {
            dialled.day = day;
            dialled.today = 0;
        }
        if limits.per_day > 0 && dialled.today >= limits.per_day {
            let left = DAY_MS - now.wall.0.rem_euclid(DAY_MS);
            let left = Duration::from_millis(left.unsigned_abs());
            return Err(Capped::Day { wait: whole_seconds(left) });
        }
        if limits.per_minute > 0 {
            while dialled.minute.front().is_some_and(|at| now.tick - *at >= MINUTE) {
                dialled.minute.pop_front();
            }
            if dialled.minute.len() >= limits.per_minute {
                let left = dialled.minute.front().map_or(MINUTE, |at| MINUTE.saturating_sub(now.tick - *at));
                return Err(Capped::Minute { wait: whole_seconds(left) });
            }
            dialled.minute.push_back(now.tick);
        }
        dialled.today += 1;
        Ok(())
    }
}

/// Rounded up: whoever tries again then is not a moment too early.
fn whole_seconds(left: Duration) -> u32 {
    u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;

    fn at(seconds: u64) -> Now {
        Now {
            tick: Tick::from_millis(seconds * 1_000),
            wall: Wall(1_800_000_000_000 + seconds as i64 * 1_000),
        }
    }

    fn phone(digits: &str) -> Callee {
        Callee::parse(digits).unwrap()
    }

    #[test]
    fn only_numbers_that_begin_as_allowed_can_be_dialled() {
        let limits = DialLimits { allow: vec!["+49".into(), "+4319".into()], ..DialLimits::default() };
        let mut caps = Caps::default();
        assert_eq!(caps.admit("pbx", &limits, &phone("+4930123456"), at(0)), Ok(()));
        assert_eq!(caps.admit("pbx", &limits, &phone("+4319123456"), at(0)), Ok(()));
        assert_eq!(caps.admit("pbx", &limits, &phone("+4318123456"), at(0)), Err(Capped::Number));
        assert_eq!(caps.admit("pbx", &limits, &phone("+882161234567"), at(0)), Err(Capped::Number));
        let all = DialLimits::default();
        assert_eq!(caps.admit("pbx", &all, &phone("+882161234567"), at(0)), Ok(()));
    }

    #[test]
    fn the_calls_of_any_minute_are_counted_and_each_trunk_has_its_own() {
        let limits = DialLimits { per_minute: 2, ..DialLimits::default() };
        let mut caps = Caps::default();
        let user = phone("+4930123456");
        assert_eq!(caps.admit("a", &limits, &user, at(0)), Ok(()));
        assert_eq!(caps.admit("a", &limits, &user, at(30)), Ok(()));
        assert_eq!(caps.admit("a", &limits, &user, at(50)), Err(Capped::Minute { wait: 10 }));
        let nearly = Now { tick: Tick::from_millis(59_500), ..at(59) };
        assert_eq!(
            caps.admit("a", &limits, &user, nearly),
            Err(Capped::Minute { wait: 1 }),
            "never too early"
        );
        let nearly = Now { tick: Tick::from_millis(50_500), ..at(50) };
        assert_eq!(caps.admit("a", &limits, &user, nearly), Err(Capped::Minute { wait: 10 }));
        assert_eq!(caps.admit("b", &limits, &user, at(50)), Ok(()));
        assert_eq!(caps.admit("a", &limits, &user, at(60)), Ok(()), "the first is a minute ago");
        assert_eq!(caps.admit("a", &limits, &user, at(61)), Err(Capped::Minute { wait: 29 }));
    }

    #[test]
    fn the_calls_of_a_day_begin_anew_at_midnight() {
        let limits = DialLimits { per_day: 1, ..DialLimits::default() };
        let mut caps = Caps::default();
        let user = phone("+4930123456");
        assert_eq!(caps.admit("a", &limits, &user, at(0)), Ok(()));
        // 1 800 000 000 is 8 o'clock in the morning.
        assert_eq!(caps.admit("a", &limits, &user, at(3_600)), Err(Capped::Day { wait: 15 * 3_600 }));
        let moment = |mut now: Now, millis: i64| {
            now.wall.0 += millis;
            now
        };
        let midnight = at(16 * 3_600);
        let last = moment(midnight, -1);
        assert_eq!(caps.admit("a", &limits, &user, last), Err(Capped::Day { wait: 1 }));
        assert_eq!(Capped::Day { wait: 7 }.answer().2, Some(7), "the PBX is told when to try again");
        assert_eq!(caps.admit("a", &limits, &user, midnight), Ok(()));
        assert_eq!(caps.admit("a", &limits, &user, at(40 * 3_600)), Ok(()), "the next midnight");
    }
}
