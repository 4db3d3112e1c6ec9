//! What the agent has said and the user has not heard yet: a queue of samples, and marks between them.
//!
//! An agent sends a whole sentence at once, or 20 ms at a time, or 7 bytes at a time; what is played is the same.
//! Positions are counted in samples that were played, never in samples that arrived.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Tick;

/// From here on the socket is not read: 60 s.
pub(super) const FULL_MILLIS: u64 = 60_000;
/// More than this is never kept: one message of the largest size may still come when the queue is full.
const LIMIT_SECONDS: usize = 180;
/// After silence, so much is waited for before playing: an agent that sends every 20 ms is heard evenly.
const LEAD: Duration = Duration::from_millis(40);
/// One tick.
const FRAME: Duration = Duration::from_millis(20);
/// Marks that may wait.
const MARKS: usize = 1_000;
/// Ticks over which the depth is watched to find a clock that runs fast: 10 s.
const WATCH: u32 = 500;
/// A sample no louder than this (-54 dBFS) is silence.
const SILENT: u16 = 64;

/// What a mark is called back as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkKind {
    /// A mark.
    Mark,
    /// The end of a batch of sound (`MEDIA_BUFFERING_COMPLETED`, `playDone`).
    Batch,
}

/// A bookmark between two samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) kind: MarkKind,
    at: u64,
}

/// The queue.
#[derive(Debug)]
pub(super) struct PlayQueue {
    rate: usize,
    /// Blocks of at most one second, so that what was played is given back.
    blocks: VecDeque<Vec<i16>>,
    /// Samples of the first block that were played.
    taken: usize,
    queued: usize,
    spare: Option<Vec<i16>>,
    /// Samples that ever came, without those that were cleared.
    written: u64,
    played: u64,
    marks: VecDeque<Mark>,
    paused: bool,
    /// Something is being played: the lead has passed.
    running: bool,
    /// When the first sample after silence came.
    since: Option<Tick>,
    last_push: Tick,
    watch: Watch,
}

/// Watches for an agent whose clock is faster than ours: the queue is shallow, but never runs dry.
#[derive(Debug, Default)]
struct Watch {
    ticks: u32,
    least: usize,
    most: usize,
    /// A silent frame may be left out.
    excess: bool,
    was_silent: bool,
}

impl PlayQueue {
    /// An empty queue at `rate`.
    pub(super) fn new(rate: u32) -> PlayQueue {
        PlayQueue {
            rate: rate as usize,
            blocks: VecDeque::new(),
            taken: 0,
            queued: 0,
            spare: None,
            written: 0,
            played: 0,
            marks: VecDeque::new(),
            paused: false,
            running: false,
            since: None,
            last_push: Tick::ZERO,
            watch: Watch::default(),
        }
    }

    /// Milliseconds that wait to be played.
    pub(super) fn millis(&self) -> u64 {
        (self.queued * 1_000 / self.rate) as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// The position of the end and of what was played, in samples.
    pub(super) fn positions(&self) -> (u64, u64) {
        (self.written, self.played)
    }

    /// Adds sound; says how many samples found no room.
    pub(super) fn push(&mut self, samples: &[i16], now: Tick) -> usize {
        let room = (LIMIT_SECONDS * self.rate).saturating_sub(self.queued);
        let (mut rest, dropped) = samples.split_at(samples.len().min(room));
        if !rest.is_empty() {
            self.last_push = now;
            self.since = self.since.or(Some(now));
        }
        self.queued += rest.len();
        self.written += rest.len() as u64;
        while !rest.is_empty() {
            let full = self.blocks.back().is_none_or(|block| block.len() >= self.rate);
            if full {
                self.blocks.push_back(self.spare.take().unwrap_or_default());
            }
            let Some(block) = self.blocks.back_mut() else { break };
            let (now_in, later) = rest.split_at(rest.len().min(self.rate - block.len()));
            block.extend_from_slice(now_in);
            rest = later;
        }
        dropped.len()
    }

    /// Sets a mark behind everything that came so far; false if there are too many.
    pub(super) fn mark(&mut self, name: String, kind: MarkKind) -> bool {
        if self.marks.len() >= MARKS {
            return false;
        }
        self.marks.push_back(Mark { name, kind, at: self.written });
        true
    }

    /// The next mark that playback has reached.
    pub(super) fn reached(&mut self) -> Option<Mark> {
        if self.marks.front()?.at > self.played {
            return None;
        }
        self.marks.pop_front()
    }

    /// The next mark, reached or not: for marks that are told off.
    pub(super) fn pop_mark(&mut self) -> Option<Mark> {
        self.marks.pop_front()
    }

    /// Drops what waits. Marks stay, for the caller to echo.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.taken = 0;
        self.queued = 0;
        self.written = self.played;
        self.running = false;
        self.since = None;
        self.watch = Watch::default();
    }

    /// Stops or goes on.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(super) fn paused(&self) -> bool {
        self.paused
    }

    /// Fills the next 20 ms; false if there is nothing to play now.
    pub(super) fn next(&mut self, frame: &mut [i16], now: Tick) -> bool {
        if self.paused || self.queued == 0 || frame.is_empty() {
            return false;
        }
        if !self.running {
            let waited = self.since.is_none_or(|since| now.since(since) >= LEAD);
            if self.queued < 2 * frame.len() && !waited {
                return false;
            }
            self.running = true;
        }
        // A part of a frame whose rest may be on its way: padding now would tear a word apart.
        if self.queued < frame.len() && now.since(self.last_push) < FRAME {
            self.running = false;
            self.since = Some(self.last_push);
            return false;
        }
        self.take(frame);
        self.watch_depth(frame.len());
        let silent = is_silent(frame);
        if silent && self.watch.was_silent && self.watch.excess && self.queued >= 2 * frame.len() {
            // One silent frame less: the agent's clock is faster than ours.
            self.watch.excess = false;
            self.take(frame);
        }
        self.watch.was_silent = silent;
        if self.queued == 0 {
            self.running = false;
            self.since = None;
        }
        true
    }

    fn take(&mut self, frame: &mut [i16]) {
        let mut filled = 0;
        while filled < frame.len() {
            let Some(block) = self.blocks.front_mut() else { break };
            let ready = &block[self.taken.min(block.len())..];
            let count = ready.len().min(frame.len() - filled);
            frame[filled..filled + count].copy_from_slice(&ready[..count]);
            filled += count;
            self.taken += count;
            if self.taken >= block.len() {
                self.taken = 0;
                if let Some(mut done) = self.blocks.pop_front() {
                    done.clear();
                    self.spare = Some(done);
                }
            }
        }
        frame[filled..].fill(0);
        self.queued = self.queued.saturating_sub(filled);
        self.played += filled as u64;
    }

    fn watch_depth(&mut self, frame: usize) {
        let watch = &mut self.watch;
        watch.least = if watch.ticks == 0 { self.queued } else { watch.least.min(self.queued) };
        watch.most = watch.most.max(self.queued);
        watch.ticks += 1;
        if watch.ticks >= WATCH {
            watch.excess = watch.least >= 5 * frame && watch.most <= 30 * frame;
            watch.ticks = 0;
            watch.most = 0;
        }
    }
}

/// Whether nobody would hear this; nothing at all is silent too.
pub(super) fn is_silent(frame: &[i16]) -> bool {
    frame.iter().all(|sample| sample.unsigned_abs() <= SILENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays every 20 ms from `from` until nothing has come for 100 ms.
    fn play(queue: &mut PlayQueue, from: Tick) -> Vec<i16> {
        let (mut out, mut now, mut idle) = (Vec::new(), from, 0);
        let mut frame = [0i16; 160];
        while idle < 5 {
            if queue.next(&mut frame, now) {
                idle = 0;
                out.extend_from_slice(&frame);
            } else {
                idle += 1;
            }
            now += FRAME;
        }
        out
    }

    #[test]
    fn chunks_of_any_size_are_played_as_the_same_sound() {
        let sound: Vec<i16> = (0..16_000).map(|at| (at % 5_000 + 1) as i16).collect();
        for size in [7, 159, 160, 161, 16_000] {
            let mut queue = PlayQueue::new(8_000);
            for chunk in sound.chunks(size) {
                assert_eq!(queue.push(chunk, Tick::ZERO), 0);
            }
            assert_eq!(play(&mut queue, Tick::from_millis(20)), sound, "chunks of {size}");
        }
    }

    #[test]
    fn an_agent_that_sends_every_20_ms_and_trembles_is_heard_without_a_hole() {
        let mut queue = PlayQueue::new(8_000);
        let mut frame = [0i16; 160];
        let (mut holes, mut started) = (0, false);
        for tick in 0..500u64 {
            // Every 20 ms, but every third packet is 15 ms late: after this tick instead of before it.
            let late = tick % 3 == 2;
            if !late {
                queue.push(&[7; 160], Tick::from_millis(tick * 20));
                if tick % 3 == 0 && tick > 0 {
                    queue.push(&[7; 160], Tick::from_millis(tick * 20));
                }
            }
            if queue.next(&mut frame, Tick::from_millis(tick * 20 + 1)) {
                started = true;
            } else if started {
                holes += 1;
            }
        }
        assert!(started);
        assert!(holes <= 1, "{holes} holes");
    }

    #[test]
    fn a_fast_clock_is_corrected_in_silence_only() {
        let mut queue = PlayQueue::new(8_000);
        let mut frame = [0i16; 160];
        // 160 ms of silence wait, and as much comes as goes: 10 s later one frame has gone.
        queue.push(&[0; 160 * 8], Tick::ZERO);
        for tick in 0..520u64 {
            queue.push(&[0; 160], Tick::from_millis(tick * 20));
            queue.next(&mut frame, Tick::from_millis(tick * 20));
        }
        assert_eq!(queue.millis(), 140);
        // Speech is left alone.
        let mut queue = PlayQueue::new(8_000);
        queue.push(&[900; 160 * 8], Tick::ZERO);
        for tick in 0..2_000u64 {
            queue.push(&[900; 160], Tick::from_millis(tick * 20));
            queue.next(&mut frame, Tick::from_millis(tick * 20));
        }
        assert_eq!(queue.millis(), 160);
    }

    #[test]
    fn what_is_queued_has_a_bound() {
        let mut queue = PlayQueue::new(8_000);
        let minute = vec![1i16; 60 * 8_000];
        assert_eq!((0..4).map(|_| queue.push(&minute, Tick::ZERO)).sum::<usize>(), minute.len());
        assert_eq!(queue.millis(), 180_000);
        assert!((0..1_000).all(|_| queue.mark("m".into(), MarkKind::Mark)));
        assert!(!queue.mark("one more".into(), MarkKind::Mark));
    }
}
