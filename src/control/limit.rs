//! How much one key may ask in a minute: a window that slides, in seconds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::clock::{Now, Tick};

/// The window's length in seconds.
const WINDOW: u64 = 60;
/// Sources whose failures are counted at a time; the one that was quiet for longest gives way.
const MAX_SOURCES: usize = 1_024;
/// Keys that are counted at a time: more than any file has.
const MAX_KEYS: usize = 1_024;
/// Failed authentications that one source may have in a window.
pub const FAILURES: u32 = 30;

/// What is left of a limit; the three headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// `X-RateLimit-Limit`
    pub limit: u32,
    /// `X-RateLimit-Remaining`
    pub remaining: u32,
    /// `X-RateLimit-Reset`, in seconds since the Unix epoch: when the next request that was counted is forgotten.
    pub reset: i64,
    /// The same in seconds from now, at least 1: for `Retry-After`.
    pub wait: u64,
}

/// The last minute, one counter for each second.
#[derive(Debug, Clone)]
struct Window {
    counts: [u32; WINDOW as usize],
    /// The second that was counted last.
    newest: u64,
    total: u32,
}

impl Window {
    fn new(second: u64) -> Window {
        Window { counts: [0; WINDOW as usize], newest: second, total: 0 }
    }

    fn slot(second: u64) -> usize {
        usize::try_from(second % WINDOW).unwrap_or(0)
    }

    /// Forgets what is older than the window.
    fn slide(&mut self, second: u64) {
        let passed = second.saturating_sub(self.newest).min(WINDOW);
        for step in 1..=passed {
            if let Some(count) = self.counts.get_mut(Window::slot(self.newest + step)) {
                self.total = self.total.saturating_sub(*count);
                *count = 0;
            }
        }
        self.newest = self.newest.max(second);
    }

    fn count(&mut self) {
        if let Some(count) = self.counts.get_mut(Window::slot(self.newest)) {
            *count = count.saturating_add(1);
            self.total = self.total.saturating_add(1);
        }
    }

    /// Seconds until the oldest that is counted is forgotten; a whole window if nothing is counted.
    fn wait(&self) -> u64 {
        (0..WINDOW)
            .find(|step| {
                let oldest = self.newest + 1 + step;
                self.counts.get(Window::slot(oldest)).is_some_and(|count| *count > 0)
            })
            .map_or(WINDOW, |step| step + 1)
    }

    fn left(&self, limit: u32, now: Now) -> Left {
        let wait = self.wait();
        let reset = now.wall.unix_seconds().saturating_add(i64::try_from(wait).unwrap_or(0));
        Left { limit, remaining: limit.saturating_sub(self.total), reset, wait }
    }
}

/// All windows of this process.
#[derive(Debug, Default)]
pub struct Limiter {
    keys: BTreeMap<String, Window>,
    sources: BTreeMap<IpAddr, Window>,
}

fn second(tick: Tick) -> u64 {
    tick.as_millis() / 1_000
}

/// The window of this name, and room for it.
fn window<K: Ord + Clone>(windows: &mut BTreeMap<K, Window>, of: K, most: usize, now: Now) -> &mut Window {
    let second = second(now.tick);
    if !windows.contains_key(&of) && windows.len() >= most {
        windows.retain(|_, window| window.newest + WINDOW > second);
        if windows.len() >= most
            && let Some(quiet) =
                windows.iter().min_by_key(|(_, window)| window.newest).map(|(k, _)| k.clone())
        {
            windows.remove(&quiet);
        }
    }
    let window = windows.entry(of).or_insert_with(|| Window::new(second));
    window.slide(second);
    window
}

impl Limiter {
    /// A request with this key: counted, unless there were too many. A `limit` of 0 is none: it is always `Ok`.
    ///
    /// # Errors
    /// When the window is full: nothing is counted then.
    pub fn request(&mut self, key: &str, limit: u32, now: Now) -> Result<Left, Left> {
        let limit = if limit == 0 { u32::MAX } else { limit };
        let window = window(&mut self.keys, key.to_owned(), MAX_KEYS, now);
        if window.total >= limit {
            return Err(window.left(limit, now));
        }
        window.count();
        Ok(window.left(limit, now))
    }

    /// What this source may still get wrong.
    ///
    /// # Errors
    /// When it has got too much wrong.
    pub fn source(&mut self, source: IpAddr, now: Now) -> Result<Left, Left> {
        let Some(window) = self.sources.get_mut(&source) else {
            return Ok(Window::new(second(now.tick)).left(FAILURES, now));
        };
        window.slide(second(now.tick));
        let left = window.left(FAILURES, now);
        if window.total >= FAILURES { Err(left) } else { Ok(left) }
    }

    /// This source has shown a key that is none.
    pub fn failed(&mut self, source: IpAddr, now: Now) -> Left {
        let window = window(&mut self.sources, source, MAX_SOURCES, now);
        window.count();
        window.left(FAILURES, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn at(seconds: u64) -> Now {
        Now::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn the_request_above_the_limit_is_refused_until_the_first_one_is_a_minute_old() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.request("ops", 2, at(100)).unwrap().remaining, 1);
        assert_eq!(limiter.request("ops", 2, at(110)).unwrap().remaining, 0);
        let refused = limiter.request("ops", 2, at(120)).unwrap_err();
        assert_eq!((refused.remaining, refused.wait, refused.reset), (0, 40, 160));
        assert!(limiter.request("ops", 2, at(159)).is_err());
        assert_eq!(limiter.request("ops", 2, at(160)).unwrap().remaining, 0);
        assert!(limiter.request("ops", 2, at(160)).is_err(), "the second one is still in the window");
        assert!(limiter.request("other", 2, at(160)).is_ok(), "keys don't share a limit");
    }

    #[test]
    fn a_limit_of_zero_is_no_limit() {
        let mut limiter = Limiter::default();
        for _ in 0..10_000 {
            assert!(limiter.request("ops", 0, at(0)).is_ok());
        }
    }

    #[test]
    fn a_source_with_too_many_wrong_keys_is_shut_out_for_a_minute() {
        let mut limiter = Limiter::default();
        let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        for _ in 0..FAILURES {
            assert!(limiter.source(source, at(5)).is_ok());
            limiter.failed(source, at(5));
        }
        assert_eq!(limiter.source(source, at(10)).unwrap_err().wait, 55);
        assert!(limiter.source(IpAddr::V4(Ipv4Addr::LOCALHOST), at(10)).is_ok());
        assert!(limiter.source(source, at(65)).is_ok());
    }

    #[test]
    fn a_flood_of_sources_takes_no_more_memory() {
        let mut limiter = Limiter::default();
        for n in 0..20_000_u32 {
            limiter.failed(IpAddr::V4(Ipv4Addr::from(n)), at(u64::from(n) / 1_000));
        }
        assert!(limiter.sources.len() <= MAX_SOURCES);
    }

    proptest! {
        #[test]
        fn no_minute_ever_holds_more_than_the_limit(steps in proptest::collection::vec(0_u64..20, 1..200)) {
            let mut limiter = Limiter::default();
            let mut taken: Vec<u64> = Vec::new();
            let mut now = 0;
            for step in steps {
                now += step;
                if limiter.request("ops", 5, at(now)).is_ok() {
                    taken.push(now);
                }
                let recent = taken.iter().filter(|at| **at + WINDOW > now).count();
                prop_assert!(recent <= 5);
            }
        }
    }
}
