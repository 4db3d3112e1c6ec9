//! One recording between the thread that encodes it and the one that writes it: bounded in seconds and in bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;

/// Ticks of one recording that may wait for the disk: 30 s.
pub const LONGEST: u64 = 1_500;

/// Bytes of all recordings that may wait for the disk.
pub const LARGEST: usize = 32 << 20;

/// Some encoded sound: written whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    /// As they are to lie in the file.
    pub bytes: Vec<u8>,
    /// How long they play, in ticks of 20 ms.
    pub ticks: u64,
    /// Of the recording up to here, silence because it was paused, and because something was missing.
    pub silent: (u64, u64),
}

/// There is no more, and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct End {
    /// How long it would be if all of it had found room.
    pub ticks: u64,
    /// Of those, silence because it was paused.
    pub paused: u64,
    /// Of those, silence because something was missing.
    pub lost: u64,
    /// The call was not over: the process ends.
    pub interrupted: bool,
    /// What else went wrong.
    pub error: Option<String>,
}

/// One recording between the two threads.
pub struct Reel {
    waiting: Mutex<Waiting>,
    refused: AtomicBool,
    all: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Waiting {
    blocks: VecDeque<Block>,
    /// Of those, and of those that are being written.
    ticks: u64,
    bytes: usize,
    end: Option<End>,
}

impl Reel {
    /// An empty one; `all` counts the bytes of all.
    pub fn new(all: Arc<AtomicUsize>) -> Reel {
        Reel { waiting: Mutex::default(), refused: AtomicBool::new(false), all }
    }

    /// Something is to be written. [`Room`] says beforehand whether it may be.
    pub fn put(&self, block: Block) {
        let mut waiting = lock(&self.waiting);
        waiting.ticks += block.ticks;
        waiting.bytes += block.bytes.len();
        self.all.fetch_add(block.bytes.len(), Ordering::Relaxed);
        waiting.blocks.push_back(block);
    }

    /// Nothing more comes.
    pub fn end(&self, end: End) {
        lock(&self.waiting).end = Some(end);
    }

    /// What is to be written, and whether that is all. It counts as waiting until [`Reel::written`].
    pub fn take(&self) -> (VecDeque<Block>, Option<End>) {
        let mut waiting = lock(&self.waiting);
        (std::mem::take(&mut waiting.blocks), waiting.end.clone())
    }

    /// This much is on the disk.
    pub fn written(&self, ticks: u64, bytes: usize) {
        let mut waiting = lock(&self.waiting);
        waiting.ticks = waiting.ticks.saturating_sub(ticks);
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Ticks that are not on the disk yet.
    pub fn waiting(&self) -> u64 {
        lock(&self.waiting).ticks
    }

    /// There is no file: nobody takes what is put here.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether there is no file.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Reel {
    fn drop(&mut self) {
        self.all.fetch_sub(lock(&self.waiting).bytes, Ordering::Relaxed);
    }
}

/// Whether more sound may be encoded. Once it may not, half of what waits must go first: a recording has one hole of
/// seconds then, not one in every second.
#[derive(Debug, Default)]
pub struct Room {
    shut: bool,
}

impl Room {
    /// `ticks`: of this recording; `bytes`: of all recordings.
    pub fn takes(&mut self, ticks: u64, bytes: usize) -> bool {
        let (longest, largest) = if self.shut { (LONGEST / 2, LARGEST / 2) } else { (LONGEST, LARGEST) };
        self.shut = ticks >= longest || bytes >= largest;
        !self.shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_makes_one_long_hole_and_not_many_short_ones() {
        let mut room = Room::default();
        assert!(room.takes(LONGEST - 1, 0));
        assert!(!room.takes(LONGEST, 0));
        assert!(!room.takes(LONGEST - 50, 0), "a second was written, and the next one would be lost again");
        assert!(room.takes(LONGEST / 2 - 1, 0));
        assert!(room.takes(LONGEST - 1, 0));
    }

    #[test]
    fn many_recordings_share_what_may_wait() {
        let mut room = Room::default();
        assert!(!room.takes(1, LARGEST));
        assert!(!room.takes(0, LARGEST / 2));
        assert!(room.takes(0, LARGEST / 2 - 1));
    }

    #[test]
    fn what_waits_is_counted_until_it_is_written_or_given_up() {
        let all = Arc::new(AtomicUsize::new(0));
        let (one, two) = (Reel::new(Arc::clone(&all)), Reel::new(Arc::clone(&all)));
        one.put(Block { bytes: vec![0; 1_000], ticks: 50, ..Block::default() });
        one.put(Block { bytes: vec![0; 500], ticks: 25, ..Block::default() });
        two.put(Block { bytes: vec![0; 10], ticks: 1, ..Block::default() });
        assert_eq!((one.waiting(), all.load(Ordering::Relaxed)), (75, 1_510));
        let (blocks, end) = one.take();
        assert_eq!((blocks.len(), end), (2, None));
        assert_eq!(one.waiting(), 75, "it is not written yet");
        one.written(50, 1_000);
        assert_eq!((one.waiting(), all.load(Ordering::Relaxed)), (25, 510));
        drop(one);
        assert_eq!(all.load(Ordering::Relaxed), 10, "what nobody will ever write does not wait");
    }
}
