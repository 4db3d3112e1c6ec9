//! Webhooks that came before Graph's reply: about calls whose id we have not been told yet.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{Now, Tick};
use crate::whatsapp::notice::Notice;

/// Most of them. The oldest goes first: its reply is the least likely still to come.
const MOST: usize = 64;

/// Graph answers `connect` in less, or not at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// The waiting webhooks, oldest first.
#[derive(Debug, Default)]
pub struct Orphans {
    notices: VecDeque<(Tick, Notice)>,
}

impl Orphans {
    /// Keeps one for a while.
    pub fn keep(&mut self, notice: Notice, now: Now) {
        self.notices.retain(|(since, _)| now.tick.since(*since) <= PATIENCE);
        if self.notices.len() >= MOST {
            self.notices.pop_front();
        }
        self.notices.push_back((now.tick, notice));
    }

    /// Those about this call, in the order they came.
    pub fn take(&mut self, wacid: &str) -> Vec<Notice> {
        let (theirs, others) = std::mem::take(&mut self.notices)
            .into_iter()
            .partition(|(_, notice)| notice.wacid() == Some(wacid));
        self.notices = others;
        let theirs: VecDeque<(Tick, Notice)> = theirs;
        theirs.into_iter().map(|(_, notice)| notice).collect()
    }
}
