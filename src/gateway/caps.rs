//! What a trunk may dial out to WhatsApp users: which numbers, and how many calls in a minute and in a day.
//!
//! A PBX that was broken into must not be able to call the world at the owner's cost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::{Now, Tick, Wall};
use crate::whatsapp::callee::Callee;

const MINUTE: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What the configuration allows a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DialLimits {
    /// What the numbers begin with, each with `+`; empty: all.
    pub allow: Vec<String>,
    /// Calls in any minute; 0: as many as it likes.
    pub per_minute: usize,
    /// Calls in a day (UTC); 0: as many as it likes.
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
    /// When each of the calls of the last minute no longer counts, the oldest first; never more than `per_minute`.
    minute: VecDeque<Tick>,
    day: i64,
    today: u64,
}

/// From when to when calls count that were dialled before: today's, and those of the last minute.
pub fn counted(now: Wall) -> (Wall, Wall) {
    let midnight = now.0 - now.0.rem_euclid(DAY_MS);
    (Wall(midnight.min(now.0 - MINUTE_MS)), Wall(midnight + DAY_MS))
}

/// What each trunk has dialled lately.
#[derive(Debug, Default)]
pub struct Caps(BTreeMap<String, Dialled>);

impl Caps {
    /// A call that this trunk has dialled before the process began, as the history has it; the oldest first.
    pub fn remember(&mut self, trunk: &str, limits: &DialLimits, at: Wall, now: Now) {
        let dialled = self.of(trunk, now);
        dialled.today += u64::from(at.0.div_euclid(DAY_MS) == dialled.day);
        let age = u64::try_from(now.wall.0 - at.0).map(Duration::from_millis);
        if let Some(left) = age.ok().and_then(|age| MINUTE.checked_sub(age))
            && limits.per_minute > 0
        {
            if dialled.minute.len() >= limits.per_minute {
                dialled.minute.pop_front();
            }
            dialled.minute.push_back(now.tick + left);
        }
    }

    /// What that trunk has dialled today.
    fn of(&mut self, trunk: &str, now: Now) -> &mut Dialled {
        let dialled = self.0.entry(trunk.to_owned()).or_default();
        let day = now.wall.0.div_euclid(DAY_MS);
        if dialled.day != day {
            dialled.day = day;
            dialled.today = 0;
        }
        dialled
    }

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
        let dialled = self.of(trunk, now);
        if limits.per_day > 0 && dialled.today >= limits.per_day {
            let left = DAY_MS - now.wall.0.rem_euclid(DAY_MS);
            let left = Duration::from_millis(left.unsigned_abs());
            return Err(Capped::Day { wait: whole_seconds(left) });
        }
        if limits.per_minute > 0 {
            while dialled.minute.front().is_some_and(|until| *until <= now.tick) {
                dialled.minute.pop_front();
            }
            if dialled.minute.len() >= limits.per_minute {
                let left = dialled.minute.front().map_or(MINUTE, |until| until.since(now.tick));
                return Err(Capped::Minute { wait: whole_seconds(left) });
            }
            dialled.minute.push_back(now.tick + MINUTE);
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
    fn what_was_dialled_before_a_restart_counts_for_the_rest_of_its_minute_and_of_its_day() {
        let limits = DialLimits { per_minute: 3, per_day: 5, ..DialLimits::default() };
        let mut caps = Caps::default();
        let user = phone("+4930123456");
        // The process has just begun, at 8 o'clock in the morning.
        let start = Now { tick: Tick::ZERO, ..at(0) };
        let ago = |seconds: i64| Wall(start.wall.0 - seconds * 1_000);
        for seconds in [9 * 3_600, 120, 40, 10] {
            caps.remember("a", &limits, ago(seconds), start);
        }
        caps.remember("a", &limits, ago(-5), start);
        let later = |seconds: u64| Now { tick: Tick::from_millis(seconds * 1_000), ..at(seconds) };
        assert_eq!(caps.admit("b", &limits, &user, start), Ok(()), "another trunk has done nothing");
        assert_eq!(
            caps.admit("a", &limits, &user, later(1)),
            Ok(()),
            "two of the last minute, four of today"
        );
        assert_eq!(caps.admit("a", &limits, &user, later(25)), Err(Capped::Day { wait: 16 * 3_600 - 25 }));
        let looser = DialLimits { per_day: 6, ..limits };
        assert_eq!(caps.admit("a", &looser, &user, later(15)), Err(Capped::Minute { wait: 5 }));
        assert_eq!(caps.admit("a", &looser, &user, later(20)), Ok(()), "forty seconds and twenty");
        assert_eq!(caps.admit("a", &looser, &user, later(17 * 3_600)), Ok(()), "the next day");

        let hour = |hours: i64| Wall(start.wall.0 + hours * 3_600_000);
        assert_eq!(counted(start.wall), (hour(-8), hour(16)));
        assert_eq!(
            counted(Wall(hour(16).0 + 5)),
            (Wall(hour(16).0 - 59_995), hour(40)),
            "just after midnight"
        );
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
