//! What is kept of an agent's call: how it went, and what was said. All of it is bounded.

use std::time::Duration;

use crate::call::record::Speaker;
use crate::clock::Tick;

/// Lines and events together.
const ENTRIES: usize = 200;
/// Bytes of all of them together.
const BYTES: usize = 32 * 1024;
/// Characters of a line or a detail.
const LONGEST: usize = 2_000;
/// Characters of an event's name.
const LONGEST_NAME: usize = 64;

/// One line of the transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who said it.
    pub who: Speaker,
    /// The words, at most 2,000 characters.
    pub text: String,
    /// Since the call was answered; before that, zero.
    pub at: Duration,
}

/// Something an agent told that is kept on the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// What it was, in the dialect's word, at most 64 characters.
    pub name: String,
    /// What it said, at most 2,000 characters.
    pub detail: String,
    /// Since the call was answered; before that, zero.
    pub at: Duration,
}

/// What is kept of an agent's call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// How often a connection was tried.
    pub attempts: u32,
    /// How often the agent was cut off while it had something to say.
    pub barge_ins: u32,
    /// From the answer to the agent's first sound at the user's ear.
    pub first_audio: Option<Duration>,
    /// What was said: with the events the first 200, or the first 32 KiB.
    pub transcript: Vec<Line>,
    /// What else the agent told.
    pub events: Vec<Noted>,
    /// Messages that could not be read and were ignored.
    pub unreadable: u32,
    /// Samples of the agent's that found no room.
    pub dropped_samples: u64,
    /// Messages with the user's sound that were dropped because the agent did not read them in time.
    pub unsent: u32,
}

/// The summary as it grows.
#[derive(Debug, Default)]
pub(super) struct Record {
    since: Option<Tick>,
    bytes: usize,
    summary: Summary,
}

impl Record {
    pub(super) fn new() -> Record {
        Record::default()
    }

    pub(super) fn tried(&mut self) {
        self.summary.attempts = self.summary.attempts.saturating_add(1);
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

    /// True when it is the first time.
    pub(super) fn overflowed(&mut self, samples: usize) -> bool {
        let first = self.summary.dropped_samples == 0 && samples > 0;
        self.summary.dropped_samples = self.summary.dropped_samples.saturating_add(samples as u64);
        first
    }

    pub(super) fn unsent(&mut self, messages: u32) {
        self.summary.unsent = self.summary.unsent.saturating_add(messages);
    }

    /// How many there were.
    pub(super) fn unreadable(&mut self) -> u32 {
        self.summary.unreadable = self.summary.unreadable.saturating_add(1);
        self.summary.unreadable
    }

    pub(super) fn line(&mut self, agent: bool, text: &str, now: Tick) {
        let text = cut(text, LONGEST);
        if self.has_room(text.len()) {
            let who = if agent { Speaker::Agent } else { Speaker::User };
            let at = self.at(now);
            self.summary.transcript.push(Line { who, text, at });
        }
    }

    pub(super) fn note(&mut self, name: &str, detail: &str, now: Tick) {
        let (name, detail) = (cut(name, LONGEST_NAME), cut(detail, LONGEST));
        if self.has_room(name.len() + detail.len()) {
            let at = self.at(now);
            self.summary.events.push(Noted { name, detail, at });
        }
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary.clone()
    }

    /// Whether there is room for so many bytes more, which are taken then.
    fn has_room(&mut self, bytes: usize) -> bool {
        let summary = &self.summary;
        let fits = summary.transcript.len() + summary.events.len() < ENTRIES && self.bytes + bytes <= BYTES;
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    fn at(&self, now: Tick) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}
