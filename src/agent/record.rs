//! What is kept of an agent's call: how it went, and what was said. All of it is bounded.

use std::time::Duration;

use crate::clock::Tick;

/// Lines of a transcript.
const LINES: usize = 500;
/// Other things that are noted.
const NOTES: usize = 200;
/// Characters of a line or a detail.
const LONGEST: usize = 2_000;

/// One line of the transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `agent` or `user`.
    pub who: &'static str,
    /// The words, at most 2,000 characters.
    pub text: String,
    /// Since the call was answered; before that, zero.
    pub at: Duration,
}

/// Something an agent told that is kept on the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// What it was, in the dialect's word.
    pub name: String,
    /// What it said, at most 2,000 characters.
    pub detail: String,
    /// Since the call was answered; before that, zero.
    pub at: Duration,
}

/// What is kept of an agent's call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// How often the agent was cut off while it had something to say.
    pub barge_ins: u32,
    /// From the answer to the agent's first sound at the user's ear.
    pub first_audio: Option<Duration>,
    /// What was said, the first 500 lines.
    pub transcript: Vec<Line>,
    /// What else the agent told, the first 200.
    pub events: Vec<Noted>,
    /// Messages that could not be read and were ignored.
    pub unreadable: u32,
    /// Samples of the agent's that found no room.
    pub dropped_samples: u64,
    /// Messages to the agent that were dropped because the socket took none.
    pub unsent: u32,
}

/// The summary as it grows.
#[derive(Debug)]
pub(super) struct Record {
    since: Option<Tick>,
    summary: Summary,
}

impl Record {
    pub(super) fn new() -> Record {
        Record { since: None, summary: Summary::default() }
    }

    pub(super) fn answered(&mut self, now: Tick) {
        self.since = Some(now);
    }

    pub(super) fn sounded(&mut self, answered: Tick, now: Tick) {
        self.summary.first_audio.get_or_insert_with(|| now.since(answered));
    }

    pub(super) fn barged_in(&mut self, now: Tick) {
        self.summary.barge_ins = self.summary.barge_ins.saturating_add(1);
        self.note("interruption", "", now);
    }

    pub(super) fn overflowed(&mut self, samples: usize) {
        self.summary.dropped_samples = self.summary.dropped_samples.saturating_add(samples as u64);
    }

    pub(super) fn unsent(&mut self) {
        self.summary.unsent = self.summary.unsent.saturating_add(1);
    }

    /// How many there were.
    pub(super) fn unreadable(&mut self) -> u32 {
        self.summary.unreadable = self.summary.unreadable.saturating_add(1);
        self.summary.unreadable
    }

    pub(super) fn line(&mut self, agent: bool, text: &str, now: Tick) {
        if self.summary.transcript.len() < LINES {
            let who = if agent { "agent" } else { "user" };
            let at = self.at(now);
            self.summary.transcript.push(Line { who, text: cut(text), at });
        }
    }

    pub(super) fn note(&mut self, name: &str, detail: &str, now: Tick) {
        if self.summary.events.len() < NOTES {
            let at = self.at(now);
            self.summary.events.push(Noted { name: cut(name), detail: cut(detail), at });
        }
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary.clone()
    }

    fn at(&self, now: Tick) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
