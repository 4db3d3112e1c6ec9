//! The thread that computes: slices of sound become blocks of bytes, once a second and recording.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::Duration;

use super::reel::{Block, End, Reel, Room};
use super::write::{Label, Opening};
use super::{Begin, Cause, MOST, Order, Shared, is_id, lock};
use crate::clock::Tick;
use crate::io::clock;
use crate::io::seal::Seal;
use crate::media::tap::Slice;
use crate::media::tape::Tape;

/// How often the queues are emptied. They hold 2 s.
pub const TURN: Duration = Duration::from_millis(100);

/// How often a recording's bytes go to the disk: with what the threads wait for each other, a power cut takes less than
/// a second.
const BLOCK: Duration = Duration::from_millis(700);

/// Ticks of silence that the tape gives at once where slices are missing: 10 s.
const PIECE: u64 = 500;

/// Slices of one recording in one turn at most: ten times what a turn brings.
const TAKEN: usize = 500;

/// How long a disk that does not come back is waited for after a call.
const PATIENCE: Duration = Duration::from_secs(30);

/// All recordings that are not over.
pub struct Drain {
    shared: Shared,
    openings: SyncSender<Opening>,
    tracks: Vec<Track>,
    /// Bytes of all recordings that wait for the disk.
    all: Arc<AtomicUsize>,
}

impl Drain {
    /// None yet.
    pub fn new(shared: Shared, openings: SyncSender<Opening>) -> Drain {
        Drain { shared, openings, tracks: Vec::new(), all: Arc::default() }
    }

    /// Until the process ends.
    pub fn run(mut self, orders: &Receiver<Order>) {
        let mut next = clock::tick() + TURN;
        loop {
            let order = if self.tracks.is_empty() {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(next.since(clock::tick()))
            };
            let now = clock::tick();
            match order {
                Ok(Order::Begin(begin)) => self.begin(*begin, now),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if now >= next {
                self.turn(now);
                next = now + TURN;
            }
            if self.shared.leaving() {
                break;
            }
        }
        while let Ok(Order::Begin(begin)) = orders.try_recv() {
            self.begin(*begin, clock::tick());
        }
        self.close();
    }

    /// A recording begins.
    pub fn begin(&mut self, begin: Begin, now: Tick) {
        let call = begin.call;
        if let Err((cause, why)) = self.open(begin, now) {
            self.shared.failed(call, cause, &why);
        }
    }

    fn open(&mut self, begin: Begin, now: Tick) -> Result<(), (Cause, String)> {
        if !is_id(&begin.id) {
            return Err((Cause::Name, "the call's id can't be a file's name".to_owned()));
        }
        let coder = |why: String| (Cause::Coder, why);
        let tape = Tape::new(&begin.form).map_err(|error| coder(error.to_string()))?;
        let seal = match begin.encrypt_to.is_empty() {
            true => None,
            false => Some(Seal::new(&begin.encrypt_to, &begin.id).map_err(coder)?),
        };
        if self.tracks.len() >= MOST {
            return Err((Cause::Many, format!("{MOST} calls are being recorded already")));
        }
        let id = begin.id.clone();
        if !lock(&self.shared.active).insert(id.clone()) {
            return Err((Cause::Name, "this call is being recorded already".to_owned()));
        }
        let reel = Arc::new(Reel::new(Arc::clone(&self.all)));
        let opening = Opening {
            call: begin.call,
            label: Label { id: begin.id, number: begin.number, form: begin.form, began: begin.began },
            account: begin.account,
            keep_days: begin.keep_days,
            upload: begin.upload,
            seal: seal.clone(),
            reel: Arc::clone(&reel),
        };
        if self.openings.try_send(opening).is_err() {
            lock(&self.shared.active).remove(&id);
            return Err((Cause::Many, "too many recordings wait for the disk".to_owned()));
        }
        self.tracks.push(Track {
            id,
            tape,
            seal,
            slices: begin.slices,
            reel,
            room: Room::default(),
            next: 0,
            newest: None,
            sealed: 0,
            blocked: 0,
            more: false,
            next_block: now + BLOCK,
            over: None,
        });
        Ok(())
    }

    /// Every queue is emptied; what is due goes to the disk.
    pub fn turn(&mut self, now: Tick) {
        let (shared, all) = (&self.shared, &self.all);
        self.tracks.retain_mut(|track| {
            if track.reel.is_refused() {
                return false;
            }
            let bytes = all.load(Ordering::Relaxed);
            match catch_unwind(AssertUnwindSafe(|| track.turn(now, bytes, shared))) {
                Ok(goes_on) => goes_on,
                Err(_) => {
                    tracing::error!(call = %track.id, "encoding a recording panicked: this is a bug, the call goes on");
                    track.reel.end(track.facts(false, Some("a bug has ended the recording".to_owned())));
                    false
                }
            }
        });
    }

    /// Whether nothing is recorded.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Ticks of the recording that has the most, and bytes of all, that wait for the disk.
    #[cfg(test)]
    pub fn waiting(&self) -> (u64, usize) {
        let most = self.tracks.iter().map(|track| track.reel.waiting()).max();
        (most.unwrap_or_default(), self.all.load(Ordering::Relaxed))
    }

    /// Everything is over: what is there is handed on.
    pub fn close(mut self) {
        for track in &mut self.tracks {
            let bytes = self.all.load(Ordering::Relaxed);
            let closed = catch_unwind(AssertUnwindSafe(|| {
                if track.turn(clock::tick(), bytes, &self.shared) {
                    track.finish(track.over.is_none());
                }
            }));
            if closed.is_err() {
                tracing::error!(call = %track.id, "encoding a recording panicked: this is a bug");
                track.reel.end(track.facts(true, Some("a bug has ended the recording".to_owned())));
            }
        }
    }
}

/// One recording that is not over.
struct Track {
    id: String,
    tape: Tape,
    seal: Option<Seal>,
    slices: Receiver<Slice>,
    reel: Arc<Reel>,
    room: Room,
    /// One more than the latest slice that the tape has.
    next: u32,
    /// The latest slice that found no room.
    newest: Option<Slice>,
    /// Blocks that were sealed.
    sealed: u32,
    /// Ticks of the tape that have gone to the disk.
    blocked: u64,
    /// The tape has more to give at once: a long hole comes in pieces.
    more: bool,
    next_block: Tick,
    /// When the call was over.
    over: Option<Tick>,
}

impl Track {
    /// False: it is finished.
    fn turn(&mut self, now: Tick, bytes: usize, shared: &Shared) -> bool {
        let takes = self.room.takes(self.reel.waiting(), bytes);
        if !takes && shared.may_say(Cause::Slow) {
            tracing::warn!(call = %self.id, "the disk does not keep up: recordings have gaps");
        }
        for _ in 0..TAKEN {
            match self.slices.try_recv() {
                Ok(slice) if takes => self.take(&slice),
                Ok(slice) => self.newest = Some(slice),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.over.get_or_insert(now);
                    break;
                }
            }
        }
        if let Some(over) = self.over {
            if takes {
                // The recording is as long as the call, also if its end has found no room.
                if let Some(newest) = self.newest.take() {
                    self.take(&newest);
                }
                self.block();
            }
            let done = takes && !self.more;
            if done || now.since(over) >= PATIENCE {
                self.finish(false);
            }
            return !done && now.since(over) < PATIENCE;
        }
        if takes && (self.more || now >= self.next_block) {
            self.next_block = now + BLOCK;
            self.block();
        }
        true
    }

    fn take(&mut self, slice: &Slice) {
        self.tape.take(slice);
        self.next = self.next.max(slice.at.saturating_add(1));
    }

    /// What the tape has ready goes to the disk.
    fn block(&mut self) {
        let mut bytes = Vec::new();
        self.more = self.tape.drain(&mut bytes);
        self.put(bytes);
    }

    fn put(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        // A long hole comes in pieces, and how much sound was before it is known when all of it is there.
        let rest = self.tape.ticks().saturating_sub(self.blocked);
        let ticks = if self.more { rest.min(PIECE) } else { rest };
        self.blocked += ticks;
        let bytes = match &self.seal {
            None => bytes,
            Some(seal) => match seal.block(self.sealed + 1, &bytes, u32::try_from(ticks).unwrap_or(u32::MAX))
            {
                Ok(sealed) => sealed,
                Err(error) => {
                    // Nobody may hear it as it is: the file is as long as what could be sealed.
                    tracing::warn!(call = %self.id, %error, "a second of a recording can't be encrypted: it is left out");
                    return;
                }
            },
        };
        self.sealed += 1;
        let silent = (self.tape.paused_ticks(), self.tape.lost_ticks());
        self.reel.put(Block { bytes, ticks, silent });
    }

    /// Nothing more comes. What the disk has no room for is left out.
    fn finish(&mut self, interrupted: bool) {
        if !self.more && self.newest.is_none() {
            let mut bytes = Vec::new();
            self.tape.finish(&mut bytes);
            self.put(bytes);
        }
        self.reel.end(self.facts(interrupted, None));
    }

    fn facts(&self, interrupted: bool, error: Option<String>) -> End {
        let unseen =
            self.newest.as_ref().map_or(0, |newest| newest.at.saturating_add(1).saturating_sub(self.next));
        let full = self.tape.is_full().then(|| "the file can't be any larger".to_owned());
        End {
            ticks: self.tape.ticks() + u64::from(unseen),
            paused: self.tape.paused_ticks(),
            lost: self.tape.lost_ticks(),
            interrupted,
            error: error.or(full),
        }
    }
}
