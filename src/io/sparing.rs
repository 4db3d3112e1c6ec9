//! Log lines that anybody could cause: written now and then, with a count of what was left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Tick;

/// Says when a line may be written again.
#[derive(Debug)]
pub struct Sparing {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: Option<Tick>,
    left_out: u64,
}

impl Sparing {
    /// At most one line in this time.
    pub fn every(every: Duration) -> Sparing {
        Sparing { every, state: Mutex::default() }
    }

    /// Whether a line may be written now, and how many were left out since the last one.
    pub fn now(&self, now: Tick) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.next.is_some_and(|next| now < next) {
            state.left_out += 1;
            return None;
        }
        state.next = Some(now + self.every);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_number() {
        let sparing = Sparing::every(Duration::from_secs(10));
        assert_eq!(sparing.now(Tick::ZERO), Some(0));
        for millis in 1..100 {
            assert_eq!(sparing.now(Tick::from_millis(millis)), None);
        }
        assert_eq!(sparing.now(Tick::from_millis(10_000)), Some(99));
    }
}
