//! How much one address may say: a token bucket for each, asked after the question whether it is known at all and before
//! anything is read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Tick;

/// More sources than these are not remembered: whoever has been silent the longest is forgotten, and starts anew with a
/// full bucket.
const MOST_SOURCES: usize = 256;
/// A bucket holds as much as comes in in this time.
const BURST: Duration = Duration::from_secs(2);
/// What a message costs; a bucket gains `per_second` of these units in a microsecond.
const COST: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u64,
    at: Tick,
}

/// The buckets of all sources, in fixed memory.
#[derive(Debug)]
pub(crate) struct Guard {
    per_second: u64,
    sources: BTreeMap<IpAddr, Bucket>,
}

impl Guard {
    pub fn new(per_second: u32) -> Guard {
        Guard { per_second: u64::from(per_second.max(1)), sources: BTreeMap::new() }
    }

    /// What that much time brings.
    fn worth(&self, span: Duration) -> u64 {
        let micros = u64::try_from(span.min(BURST).as_micros()).unwrap_or(u64::MAX);
        micros.saturating_mul(self.per_second)
    }

    /// Whether a message from there may be looked at.
    pub fn passes(&mut self, source: IpAddr, now: Tick) -> bool {
        let source = source.to_canonical();
        let full = self.worth(BURST);
        let before = self.sources.get(&source).copied().unwrap_or_else(|| {
            self.make_room();
            Bucket { left: full, at: now }
        });
        let left = before.left.saturating_add(self.worth(now.since(before.at))).min(full);
        let passes = left >= COST;
        let left = if passes { left - COST } else { left };
        self.sources.insert(source, Bucket { left, at: now });
        passes
    }

    fn make_room(&mut self) {
        while self.sources.len() >= MOST_SOURCES {
            let longest_silent = self.sources.iter().min_by_key(|(_, bucket)| bucket.at).map(|(ip, _)| *ip);
            let Some(longest_silent) = longest_silent else { return };
            self.sources.remove(&longest_silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn passed(guard: &mut Guard, source: IpAddr, at: u64, messages: usize) -> usize {
        (0..messages).filter(|_| guard.passes(source, Tick::from_millis(at))).count()
    }

    #[test]
    fn twice_the_rate_passes_at_once_and_the_rate_in_the_long_run() {
        let mut guard = Guard::new(100);
        assert_eq!(passed(&mut guard, ip(1), 0, 1_000), 200);
        assert_eq!(passed(&mut guard, ip(1), 500, 1_000), 50);
        assert_eq!(passed(&mut guard, ip(1), 60_500, 1_000), 200, "no more is saved up than that");
        let slowly: usize = (0..10_000).map(|step| passed(&mut guard, ip(1), 70_000 + step * 5, 1)).sum();
        assert!((5_190..=5_201).contains(&slowly), "{slowly} of 10000 in 50 s and one burst");
    }

    #[test]
    fn one_source_does_not_pay_for_another() {
        let mut guard = Guard::new(10);
        assert_eq!(passed(&mut guard, ip(1), 0, 100), 20);
        assert_eq!(passed(&mut guard, ip(2), 0, 100), 20);
        assert_eq!(passed(&mut guard, "::ffff:0.0.0.1".parse().unwrap(), 0, 100), 0, "mapped, but the same");
    }

    #[test]
    fn however_many_sources_there_are_the_memory_is_fixed_and_the_liveliest_are_kept() {
        let mut guard = Guard::new(1);
        assert_eq!(passed(&mut guard, ip(7), 0, 9), 2);
        for number in 0..100_000u64 {
            guard.passes(ip(1_000 + u32::try_from(number).unwrap()), Tick(number));
            if number % 100 == 0 {
                assert!(!guard.passes(ip(7), Tick(number)), "{number}");
            }
        }
        assert_eq!(guard.sources.len(), MOST_SOURCES);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let mut guard = Guard::new(0);
        assert_eq!(
            passed(&mut guard, ip(1), u64::MAX / 2_000, 10),
            2,
            "a rate of zero would shut everybody out"
        );
    }
}
