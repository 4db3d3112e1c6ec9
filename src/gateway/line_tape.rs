//! A line that is to be recorded: who is asked, when the tap opens, and what pauses it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Line;
use crate::call::consent::{Request, Terms};
use crate::call::recording::Consent;
use crate::clock::Tick;
use crate::media::{Clip, Outgoing};

/// How a call is to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapeTerms {
    /// How the user is asked.
    pub ask: Terms,
    /// Whether a PBX hears the prompt too.
    pub both: bool,
    /// From one beep to the next.
    pub beep: Option<Duration>,
    /// The key of the destination's phone that pauses the recording, and goes on with it.
    pub pause_key: Option<char>,
}

/// What a line tells of its recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapeNews {
    /// The prompt begins.
    Prompted,
    /// The PBX has heard all that was played of the prompt.
    Shared,
    /// The user's answer; if it is a yes the tap is open from the next tick on.
    Answered(Consent),
    /// It was paused, or goes on.
    Paused(bool),
}

/// Where the recording of a line is.
#[derive(Debug, Default)]
pub(super) struct Taping {
    terms: Option<TapeTerms>,
    request: Option<Request>,
    open: bool,
    paused: bool,
    news: VecDeque<TapeNews>,
}

impl Line {
    /// The user is told or asked, from the next tick on; then the tap opens. Said again it changes nothing.
    pub fn record(&mut self, terms: TapeTerms, prompt: Arc<Clip>) {
        if self.taping.terms.is_none() {
            self.taping.terms = Some(terms);
            self.taping.request = Some(Request::new(terms.ask));
            self.taping.news.push_back(TapeNews::Prompted);
            self.bridge.announce(prompt, terms.both);
        }
    }

    /// Silence is taken down from now on, or no more.
    pub fn pause(&mut self, paused: bool) {
        if self.taping.open && self.taping.paused != paused && self.bridge.pause_tap(paused) {
            self.taping.paused = paused;
            self.taping.news.push_back(TapeNews::Paused(paused));
        }
    }

    /// Nothing is taken down any more: there is no recorder.
    pub fn stop_recording(&mut self) {
        if std::mem::take(&mut self.taping.open) {
            self.bridge.shut_tap();
        }
    }

    /// A key was pressed on the destination's phone, in whatever way it was told.
    pub fn far_pressed(&mut self, key: char) {
        if self.taping.terms.is_some_and(|terms| terms.pause_key == Some(key)) {
            self.pause(!self.taping.paused);
        }
    }

    /// Whether the parties don't hear each other yet.
    pub fn is_apart(&self) -> bool {
        self.bridge.is_apart()
    }

    /// What there is to be told of the recording.
    pub fn tape_news(&mut self) -> Option<TapeNews> {
        self.taping.news.pop_front()
    }

    /// After each tick of the bridge: what the user pressed while being asked goes nowhere else.
    pub(super) fn tape_tick(&mut self, now: Tick, out: &mut Outgoing) {
        if let Some((key, _)) = out.far_digit {
            self.far_pressed(key);
        }
        let Some(request) = &mut self.taping.request else { return };
        let pressed = out.digit.take().and_then(|(key, _)| request.pressed(key, now));
        let played = || if self.bridge.prompt_over() { request.played(now) } else { None };
        let Some(consent) = pressed.or_else(played).or_else(|| request.timeout(now)) else {
            if request.agreed() {
                self.bridge.hush();
            }
            return;
        };
        if self.bridge.prompt_shared() {
            self.taping.news.push_back(TapeNews::Shared);
        }
        self.taping.request = None;
        self.bridge.connect();
        if consent.given() {
            let beep = self.taping.terms.and_then(|terms| terms.beep);
            self.bridge.open_tap(beep.map(|every| u32::try_from(every.as_millis() / 20).unwrap_or(u32::MAX)));
            self.taping.open = true;
        }
        self.taping.news.push_back(TapeNews::Answered(consent));
    }
}
