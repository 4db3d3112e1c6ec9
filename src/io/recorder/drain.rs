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
use crate::media::tap::{Said, Slice};
use crate::media::tape::Tape;

/// How often the queues are emptied. They hold 4 s.
pub const TURN: Duration = Duration::from_millis(100);

/// How often a recording's bytes go to the disk.
const BLOCK: Duration = Duration::from_secs(1);

/// Ticks of silence that fill a hole at most in one turn (5 s): a long one does not come all at once.
const FILLED: u32 = 250;

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
        let seal = || match begin.encrypt_to.is_empty() {
            true => Ok(None),
            false => Seal::new(&begin.encrypt_to).map(Some),
        };
        let tape = Tape::new(&begin.form).map_err(|error| coder(error.to_string()))?;
        let (ours, theirs) = (seal().map_err(coder)?, seal().map_err(coder)?);
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
            seal: theirs,
            reel: Arc::clone(&reel),
        };
        if self.openings.try_send(opening).is_err() {
            lock(&self.shared.active).remove(&id);
            return Err((Cause::Many, "too many recordings wait for the disk".to_owned()));
        }
        self.tracks.push(Track {
            id,
            tape,
            seal: ours,
            slices: begin.slices,
            reel,
            room: Room::default(),
            next: 0,
            newest: None,
            filled: 0,
            blocked: 0,
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
    /// The slice that comes next, if none is missing.
    next: u32,
    /// The latest slice that found no room, or that has a long hole before it: up to it there is silence to be filled in.
    newest: Option<Slice>,
    /// Slices that we have made up to cut a long hole into pieces.
    filled: u64,
    /// Ticks of the tape that have gone to the disk.
    blocked: u64,
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
                Ok(slice) => self.take(slice, takes),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.over.get_or_insert(now);
                    break;
                }
            }
        }
        if takes {
            self.fill();
        }
        let over = self.over.filter(|_| self.newest.is_none());
        if over.is_some() || self.over.is_some_and(|at| now.since(at) >= PATIENCE) {
            self.finish(false);
            return false;
        }
        if now >= self.next_block || self.newest.is_some() && takes {
            self.next_block = now + BLOCK;
            self.block(false);
        }
        true
    }

    fn take(&mut self, slice: Slice, takes: bool) {
        if slice.at < self.next {
            return;
        }
        if takes && self.newest.is_none() && slice.at - self.next <= FILLED {
            self.next = slice.at.saturating_add(1);
            self.tape.take(&slice);
        } else {
            self.newest = Some(slice);
        }
    }

    /// Some of what is missing becomes silence.
    fn fill(&mut self) {
        let Some(newest) = self.newest.take() else { return };
        if newest.at - self.next <= FILLED {
            self.next = newest.at.saturating_add(1);
            self.tape.take(&newest);
            return;
        }
        let at = self.next.saturating_add(FILLED - 1);
        self.tape.take(&Slice { at, paused: false, user: Said::Nothing, far: Said::Nothing });
        // The tape counts what is missing before a slice; this one is missing, too.
        self.filled += 1;
        self.next = at.saturating_add(1);
        self.newest = Some(newest);
    }

    /// What the tape has ready goes to the disk.
    fn block(&mut self, last: bool) {
        let mut bytes = Vec::new();
        self.tape.drain(&mut bytes);
        if last {
            self.tape.finish(&mut bytes);
        }
        if bytes.is_empty() {
            return;
        }
        let ticks = self.tape.ticks().saturating_sub(self.blocked);
        let bytes = match &self.seal {
            None => bytes,
            Some(seal) => match seal.block(&bytes, u32::try_from(ticks).unwrap_or(u32::MAX)) {
                Ok(sealed) => sealed,
                Err(error) => {
                    // The file is as long as what could be sealed.
                    tracing::warn!(call = %self.id, %error, "a second of a recording can't be encrypted: it is left out");
                    self.blocked += ticks;
                    return;
                }
            },
        };
        self.blocked += ticks;
        self.reel.put(Block { bytes, ticks });
    }

    /// Nothing more comes.
    fn finish(&mut self, interrupted: bool) {
        self.block(true);
        self.reel.end(self.facts(interrupted, None));
    }

    fn facts(&self, interrupted: bool, error: Option<String>) -> End {
        let cut_off = self.newest.as_ref().map_or(0, |newest| newest.at.saturating_sub(self.next) + 1);
        End {
            ticks: self.tape.ticks(),
            paused: self.tape.paused_ticks(),
            lost: self.tape.lost_ticks() + self.filled,
            cut_off: cut_off.into(),
            interrupted,
            error,
        }
    }
}
