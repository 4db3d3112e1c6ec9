//! The only place that asks what time it is.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clock::{Now, Tick, Wall};

/// Seconds between 1900 (NTP, RFC 5905) and 1970 (Unix).
const NTP_OFFSET: u64 = 2_208_988_800;

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Now, by both clocks.
pub fn now() -> Now {
    Now { tick: tick(), wall: wall() }
}

/// Microseconds since the process first asked.
pub fn tick() -> Tick {
    Tick(u64::try_from(start().elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// The `Instant` of a tick, for timers.
pub fn instant(tick: Tick) -> Instant {
    start() + Duration::from_micros(tick.0)
}

/// Wall-clock time since 1970.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn wall() -> Wall {
    Wall(i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX))
}

/// Wall-clock time as an NTP timestamp (32.32 fixed point), for RTCP sender reports.
pub fn ntp() -> u64 {
    let since = since_epoch();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    ((since.as_secs() + NTP_OFFSET) << 32) | fraction
}
