//! Asking to record: the prompt, then the tap opens, or doesn't.
//!
//! ```text
//!   Prompt ──played, announced──────────▶ Quiet ──240 ms──▶ Announced or Agreed: the tap opens, the parties hear
//!     │ └───played, asked──▶ Key ──key──▶ Quiet              each other
//!     └──────────key────────────────────▶ Quiet
//!                            └─another key, or none in time─▶ Declined: the parties hear each other
//! ```

use std::time::Duration;

use super::recording::Consent;
use crate::clock::Tick;
use crate::config::ConsentMode;

/// From the yes until it counts, nobody is heard and nothing kept. The prompt's end, or the answer to the key, reaches
/// the user's ear only through the network and a jitter buffer, and what is said then comes back through ours: without
/// this quiet a recording would begin with what was said before.
pub const QUIET: Duration = Duration::from_millis(240);

/// How a user is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Told, or asked for a key.
    pub mode: ConsentMode,
    /// The key that means yes.
    pub key: char,
    /// How long it is waited for once the prompt is over.
    pub patience: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Prompt,
    Key { until: Tick },
    Quiet { until: Tick, yes: Consent },
    Over,
}

/// One user being asked. What it returns is the answer; it comes once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    terms: Terms,
    state: State,
}

impl Request {
    /// The prompt begins.
    pub fn new(terms: Terms) -> Request {
        Request { terms, state: State::Prompt }
    }

    /// The prompt has been played to its end.
    pub fn played(&mut self, now: Tick) -> Option<Consent> {
        match (self.state, self.terms.mode) {
            (State::Prompt, ConsentMode::Announce) => self.yes(Consent::Announced, now),
            (State::Prompt, ConsentMode::Ask) => {
                self.state = State::Key { until: now + self.terms.patience };
                None
            }
            (State::Key { .. } | State::Quiet { .. } | State::Over, _) => None,
        }
    }

    /// The user has pressed a key. Where none was asked for it means nothing; during the prompt another one than the
    /// right one may have been pressed by mistake, after it it is a no.
    pub fn pressed(&mut self, key: char, now: Tick) -> Option<Consent> {
        match (self.state, self.terms.mode) {
            (State::Prompt | State::Key { .. }, ConsentMode::Ask) if key == self.terms.key => {
                self.yes(Consent::Agreed, now)
            }
            (State::Key { .. }, _) => self.over(Consent::Declined),
            (State::Prompt | State::Quiet { .. } | State::Over, _) => None,
        }
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Tick) -> Option<Consent> {
        match self.state {
            State::Key { until } if now >= until => self.over(Consent::Declined),
            State::Quiet { until, yes } if now >= until => self.over(yes),
            State::Prompt | State::Key { .. } | State::Quiet { .. } | State::Over => None,
        }
    }

    /// It is a yes, which counts in a moment: the prompt plays no more.
    pub fn agreed(&self) -> bool {
        matches!(self.state, State::Quiet { .. })
    }

    fn yes(&mut self, yes: Consent, now: Tick) -> Option<Consent> {
        self.state = State::Quiet { until: now + QUIET, yes };
        None
    }

    fn over(&mut self, consent: Consent) -> Option<Consent> {
        self.state = State::Over;
        Some(consent)
    }
}

impl Consent {
    /// Whether what is said from now on may be recorded.
    pub const fn given(self) -> bool {
        match self {
            Consent::Announced | Consent::Agreed => true,
            Consent::Unfinished | Consent::Declined | Consent::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(8);

    fn asked(mode: ConsentMode) -> Request {
        Request::new(Terms { mode, key: '1', patience: PATIENCE })
    }

    fn at(seconds: u64) -> Tick {
        Tick::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn who_is_told_agrees_by_staying_to_the_end_of_the_prompt_and_of_the_quiet_after_it() {
        let mut request = asked(ConsentMode::Announce);
        assert_eq!(request.pressed('1', at(1)), None);
        assert_eq!(request.timeout(at(100)), None);
        assert_eq!((request.played(at(4)), request.timeout(at(4))), (None, None));
        assert!(request.agreed());
        assert_eq!(request.timeout(at(4) + QUIET), Some(Consent::Announced));
        let again = (request.played(at(5)), request.pressed('1', at(5)), request.timeout(at(5)));
        assert_eq!(again, (None, None, None), "it is answered once");
    }

    #[test]
    fn the_right_key_agrees_also_while_the_prompt_still_plays() {
        let mut request = asked(ConsentMode::Ask);
        assert_eq!(request.pressed('5', at(1)), None);
        assert!(!request.agreed(), "a slip during the prompt is forgiven");
        assert_eq!(request.pressed('1', at(2)), None);
        assert!(request.agreed(), "the prompt plays no more");
        assert_eq!(request.timeout(at(2) + QUIET), Some(Consent::Agreed));
        let mut request = asked(ConsentMode::Ask);
        assert_eq!(request.played(at(4)), None);
        assert_eq!(request.pressed('1', at(11)), None);
        assert_eq!(request.pressed('5', at(11)), None, "a yes stays a yes");
        assert_eq!(request.timeout(at(12)), Some(Consent::Agreed));
    }

    #[test]
    fn no_key_in_time_and_another_key_are_a_no_at_once() {
        let mut request = asked(ConsentMode::Ask);
        request.played(at(4));
        assert_eq!(request.timeout(at(11)), None);
        assert_eq!(request.timeout(at(12)), Some(Consent::Declined));
        let mut request = asked(ConsentMode::Ask);
        request.played(at(4));
        assert_eq!(request.pressed('2', at(5)), Some(Consent::Declined));
        assert_eq!(request.pressed('1', at(5)), None, "a no stays a no");
        assert_eq!(request.timeout(at(20)), None);
    }

    #[test]
    fn only_a_yes_opens_the_tap() {
        let given: Vec<Consent> =
            [Consent::Unfinished, Consent::Announced, Consent::Agreed, Consent::Declined, Consent::Unknown]
                .into_iter()
                .filter(|consent| consent.given())
                .collect();
        assert_eq!(given, [Consent::Announced, Consent::Agreed]);
    }
}
