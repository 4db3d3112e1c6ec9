//! The thread that waits for the disk: it makes the files, writes a second of each, and closes them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use super::keep::Kept;
use super::reel::{Block, End, Reel};
use super::store::{Reading, Sheet, Store};
use super::{Cause, Shared, lock, millis, stamp};
use crate::call::recording::{Finished, Outcome};
use crate::clock::{Now, Tick, Wall};
use crate::gateway::{CallKey, TapeEvent};
use crate::io::clock;
use crate::io::seal::{self, Seal};
use crate::ledger::{TapeRow, TapeState, UploadState};
use crate::media::tape::{self, Facts, Form, Kind};

/// How often the blocks are looked for.
const TURN: Duration = Duration::from_millis(100);

/// How often a disk that refuses is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// After the call, until it has refused for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same of a file that could not even be made: the call's record does not wait longer.
const UNMADE: Duration = Duration::from_secs(3);

/// How often the ledger hears of silence that goes on.
const NOTED: Duration = Duration::from_secs(10);

/// What a file that is not finished has at its end.
pub const PART: &str = ".part";

/// What an encrypted file has at its end.
pub const SEALED: &str = ".age";

/// What a recording's head says that does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The call's id.
    pub id: String,
    /// The configured number's `id`.
    pub number: String,
    /// What is written.
    pub form: Form,
    /// When it began.
    pub began: Wall,
}

impl Label {
    /// The head of a file: as long, whatever it says.
    pub fn head(&self, outcome: Outcome, ticks: u64, paused: u64, lost: u64) -> Vec<u8> {
        let began = stamp(self.began);
        let facts = Facts {
            call: &self.id,
            began: &began,
            number: &self.number,
            outcome,
            ticks,
            paused_ticks: paused,
            lost_ticks: lost,
        };
        tape::head(&self.form, &facts)
    }
}

/// A recording that is to have a file.
pub struct Opening {
    /// For the hall.
    pub call: CallKey,
    /// What its head says.
    pub label: Label,
    /// The configured number's `account_id`.
    pub account: String,
    /// Days after which it is deleted; 0: never.
    pub keep_days: u32,
    /// Whether it is sent elsewhere.
    pub upload: bool,
    /// For its head.
    pub seal: Option<Seal>,
    /// Where its blocks come from.
    pub reel: Arc<Reel>,
}

impl Opening {
    /// The file's name, once it is finished.
    fn name(&self) -> String {
        let sealed = if self.seal.is_some() { SEALED } else { "" };
        format!("{}.{}{sealed}", self.label.id, self.label.form.extension())
    }

    /// The file's first bytes. `blocks`: how many follow, once that is known.
    fn head(&self, outcome: Outcome, ticks: u64, paused: u64, lost: u64, blocks: u32) -> io::Result<Vec<u8>> {
        let head = self.label.head(outcome, ticks, paused, lost);
        let Some(seal) = &self.seal else { return Ok(head) };
        let mut bytes = seal::MAGIC.to_vec();
        bytes.extend(seal.head(&head, blocks).map_err(io::Error::other)?);
        Ok(bytes)
    }
}

/// When a recording is to be deleted that ends now.
pub fn expires(now: Wall, keep_days: u32) -> Option<Wall> {
    (keep_days > 0).then(|| Wall(now.0.saturating_add(i64::from(keep_days) * 86_400_000)))
}

/// All files that are not finished.
pub struct Writer {
    shared: Shared,
    store: Arc<dyn Store>,
    finished: SyncSender<Kept>,
    open: Vec<Open>,
}

/// One file.
struct Open {
    of: Opening,
    /// As the ledger has it.
    row: TapeRow,
    /// `None`: the disk has not let it be made yet.
    file: Option<Box<dyn Sheet>>,
    /// Its first bytes, as long as nothing else is known.
    head: Vec<u8>,
    /// Bytes that have been written and synced; 0: not even the head.
    bytes: u64,
    /// Ticks of them.
    ticks: u64,
    /// How many blocks they were.
    count: u32,
    /// How much of it is silent, and when the ledger is to hear of that although it still grows.
    silent: (u64, u64),
    next_note: Tick,
    /// What comes next.
    blocks: VecDeque<Block>,
    end: Option<End>,
    /// The disk refuses.
    trouble: Option<Trouble>,
    /// What waits for the next thread to have room.
    kept: Option<Kept>,
}

/// Since when the disk refuses, when it is asked again, and what it has said.
struct Trouble {
    since: Tick,
    again: Tick,
    said: String,
}

impl Writer {
    /// None yet.
    pub fn new(shared: Shared, store: Arc<dyn Store>, finished: SyncSender<Kept>) -> Writer {
        Writer { shared, store, finished, open: Vec::new() }
    }

    /// Until nothing more can come and everything is closed.
    pub fn run(mut self, openings: &Receiver<Opening>) {
        let mut more = true;
        while more || !self.open.is_empty() {
            let opening = match (more, self.open.is_empty()) {
                (true, true) => openings.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (true, false) => openings.recv_timeout(TURN),
                (false, _) => {
                    std::thread::sleep(TURN / 10);
                    Err(RecvTimeoutError::Timeout)
                }
            };
            match opening {
                Ok(opening) => self.begin(opening, clock::now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => more = false,
            }
            self.turn(clock::now());
        }
    }

    /// A file is to be made, now or as soon as the disk lets it be.
    pub fn begin(&mut self, of: Opening, now: Now) {
        let head = match self.head(&of) {
            Ok(head) => head,
            Err((cause, why)) => return self.refuse(&of, cause, &why),
        };
        let row = TapeRow {
            number: of.label.number.clone(),
            account: of.account.clone(),
            encrypted: of.seal.is_some(),
            // Should this process die, this is what was promised.
            expires_at: expires(now.wall, of.keep_days),
            upload: if of.upload { UploadState::Waiting } else { UploadState::None },
            ..TapeRow::begun(&of.label.id, of.name(), of.label.form.word(), of.label.began)
        };
        self.open.push(Open {
            of,
            row,
            file: None,
            head,
            bytes: 0,
            ticks: 0,
            count: 0,
            silent: (0, 0),
            next_note: now.tick + NOTED,
            blocks: VecDeque::new(),
            end: None,
            trouble: None,
            kept: None,
        });
    }

    /// The file's first bytes, if there may be one. A disk that does not say how much is free is asked for the file.
    fn head(&self, of: &Opening) -> Result<Vec<u8>, (Cause, String)> {
        let least = self.shared.settings().min_free_mib;
        match self.store.free().map(|bytes| bytes >> 20) {
            Ok(free) if free < least => {
                Err((Cause::Room, format!("{free} MiB are free on the disk, {least} must stay free")))
            }
            Ok(_) | Err(_) => of
                .head(Outcome::Running, 0, 0, 0, 0)
                .map_err(|error| (Cause::Coder, format!("it can't be encrypted: {error}"))),
        }
    }

    /// There is no file, and none to come.
    fn refuse(&self, of: &Opening, cause: Cause, why: &str) {
        of.reel.refuse();
        lock(&self.shared.active).remove(&of.label.id);
        self.shared.failed(of.call, cause, why);
    }

    /// The file is made, with its head on the disk, if it isn't yet.
    fn make(&self, open: &mut Open) -> io::Result<()> {
        if open.file.is_none() {
            open.file = Some(self.store.create(&format!("{}{PART}", open.of.name()))?);
        }
        if open.bytes == 0 {
            let file = open.sheet()?;
            file.write_at(&open.head, 0)?;
            file.sync()?;
            open.bytes = open.head.len() as u64;
            self.note(&open.row);
            self.shared.hall.tell(open.of.call, TapeEvent::Begun);
        }
        Ok(())
    }

    /// What was paused and what was lost up to here outlives a power cut too: the ledger hears of it as soon as it grows
    /// no more.
    fn count(&self, open: &mut Open, silent: (u64, u64), now: Now) {
        let steady = std::mem::replace(&mut open.silent, silent) == silent;
        let finished = &mut open.row.finished;
        let (paused, lost) = (millis(silent.0), millis(silent.1));
        if (finished.paused_millis, finished.lost_millis) != (paused, lost)
            && (steady || now.tick >= open.next_note)
        {
            (finished.paused_millis, finished.lost_millis) = (paused, lost);
            open.next_note = now.tick + NOTED;
            self.note(&open.row);
        }
    }

    /// The ledger hears of it: what is found after a power cut is as it says.
    fn note(&self, row: &TapeRow) {
        let (shared, noted) = (self.shared.clone(), row.clone());
        let noted = self.shared.books.later(move |ledger| {
            if let Err(error) = ledger.tape_begun(&noted)
                && shared.may_say(Cause::Ledger)
            {
                tracing::warn!(%error, "a recording's row can't be written: it is made when it is finished");
            }
        });
        if !noted && self.shared.may_say(Cause::Ledger) {
            tracing::warn!("a recording's row is not written: too much waits for the ledger");
        }
    }

    /// What waits is written, one file after the other; what is over is closed.
    pub fn turn(&mut self, now: Now) {
        let mut open = std::mem::take(&mut self.open);
        open.retain_mut(|file| self.step(file, now));
        self.open.append(&mut open);
    }

    /// False: there is nothing more to do for this file.
    fn step(&self, open: &mut Open, now: Now) -> bool {
        if open.kept.is_some() {
            return self.hand_on(open);
        }
        let (blocks, end) = open.of.reel.take();
        open.blocks.extend(blocks);
        open.end = end;
        if open.trouble.as_ref().is_some_and(|trouble| now.tick < trouble.again) && !self.shared.leaving() {
            return true;
        }
        match self.advance(open, now) {
            Ok(()) => {
                if open.trouble.take().is_some() {
                    tracing::info!(call = %open.of.label.id, "a recording can be written again");
                }
            }
            Err(error) => {
                if open.trouble.is_none() && self.shared.may_say(Cause::Write) {
                    let call = &open.of.label.id;
                    tracing::warn!(%call, %error, "a recording can't be written, trying again each second");
                }
                let since = open.trouble.as_ref().map_or(now.tick, |trouble| trouble.since);
                open.trouble = Some(Trouble { since, again: now.tick + AGAIN, said: error.to_string() });
                let unmade = open.bytes == 0;
                let patience = if unmade { UNMADE } else { PATIENCE };
                if open.end.is_some() && (now.tick.since(since) >= patience || self.shared.leaving()) {
                    if unmade { self.give_up_unmade(open, &error, now) } else { self.give_up(open, now) }
                }
            }
        }
        open.kept.is_none() || self.hand_on(open)
    }

    /// Writes what waits, and closes the file if that was all.
    fn advance(&self, open: &mut Open, now: Now) -> io::Result<()> {
        self.make(open)?;
        let blocks = open.blocks.len();
        if blocks > 0 {
            // What a failed sync has left in the disk's cache may be gone: all of it is written again then.
            let (mut at, mut ticks) = (open.bytes, 0);
            let file = open.sheet()?;
            for block in &open.blocks {
                file.write_at(&block.bytes, at)?;
                at += block.bytes.len() as u64;
                ticks += block.ticks;
            }
            file.sync()?;
            let written = usize::try_from(at - open.bytes).unwrap_or(usize::MAX);
            open.of.reel.written(ticks, written);
            open.count = open.count.saturating_add(u32::try_from(blocks).unwrap_or(u32::MAX));
            let silent = open.blocks.back().map_or(open.silent, |last| last.silent);
            open.blocks.clear();
            open.bytes = at;
            open.ticks += ticks;
            self.count(open, silent, now);
        }
        match open.end.clone() {
            Some(end) => self.close(open, &end, now),
            None => Ok(()),
        }
    }

    /// The file is complete but for its head and its name. Every step may be taken again.
    fn close(&self, open: &mut Open, end: &End, now: Now) -> io::Result<()> {
        let name = open.of.name();
        let part = format!("{name}{PART}");
        if open.ticks == 0 {
            match self.store.remove(&part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let finished = match end.ticks {
                0 => Finished::default(),
                _ => {
                    Finished { outcome: Outcome::Failed, error: open.said(end, None), ..Finished::default() }
                }
            };
            open.kept = Some(open.kept(finished, TapeState::Failed, now));
            return Ok(());
        }
        let missing = end.ticks.saturating_sub(open.ticks);
        let outcome = match () {
            () if end.interrupted => Outcome::Interrupted,
            () if end.lost > 0 || missing > 0 || end.error.is_some() => Outcome::Gaps,
            () => Outcome::Complete,
        };
        let (paused, lost) = (end.paused.min(open.ticks), end.lost.min(open.ticks));
        let head = open.of.head(outcome, open.ticks, paused, lost, open.count)?;
        if head.len() == open.head.len() {
            open.sheet()?.write_at(&head, 0)?;
        } else {
            tracing::error!(call = %open.of.label.id, "a recording's head has another length: this is a bug, the old one stays");
        }
        open.sheet()?.sync()?;
        self.store.rename(&part, &name)?;
        let cut_off = (missing > 0).then(|| format!("its last {} ms are missing", millis(missing)));
        let finished = Finished {
            outcome,
            millis: millis(open.ticks),
            paused_millis: millis(paused),
            lost_millis: millis(lost),
            bytes: open.bytes,
            sha256: String::new(),
            error: open.said(end, cut_off).filter(|_| outcome != Outcome::Complete),
        };
        open.kept = Some(open.kept(finished, TapeState::Kept, now));
        Ok(())
    }

    /// There was never a file. The record may be closed already: the ledger puts it there.
    fn give_up_unmade(&self, open: &mut Open, error: &io::Error, now: Now) {
        if open.file.take().is_some() {
            // It says nothing.
            let _ = self.store.remove(&format!("{}{PART}", open.of.name()));
        }
        let why = format!("the file can't be made: {error}");
        self.shared.failed(open.of.call, Cause::Create, &why);
        let finished = Finished { outcome: Outcome::Failed, error: Some(why), ..Finished::default() };
        open.kept = Some(Kept { call: None, ..open.kept(finished, TapeState::Failed, now) });
    }

    /// The disk does not take the rest: what is there is closed as well as can be.
    fn give_up(&self, open: &mut Open, now: Now) {
        let waiting: usize = open.blocks.iter().map(|block| block.bytes.len()).sum();
        open.of.reel.written(open.blocks.iter().map(|block| block.ticks).sum(), waiting);
        open.blocks.clear();
        let end = open.end.clone().unwrap_or_default();
        let closed = self.shorten(open).and_then(|()| self.close(open, &end, now));
        if let Err(error) = closed {
            if self.shared.may_say(Cause::Finish) {
                let call = &open.of.label.id;
                tracing::warn!(%call, %error, "a recording can't be finished: it is mended at the next start");
            }
            let error =
                format!("the disk does not take it, what it has is mended at the next start: {error}");
            let finished = Finished { outcome: Outcome::Failed, error: Some(error), ..Finished::default() };
            open.kept = Some(open.kept(finished, TapeState::Running, now));
        }
    }

    /// Cuts off what was written by halves.
    fn shorten(&self, open: &mut Open) -> io::Result<()> {
        let file = open.sheet()?;
        file.cut(open.bytes)?;
        if open.of.label.form.kind == Kind::Ogg && open.of.seal.is_none() && open.ticks > 0 {
            let mut reading = Reading::new(file, open.bytes);
            let whole = tape::whole(&open.of.label.form, &mut reading)?;
            // In the last block that the disk has given us there is mostly room for it. If not, players do without.
            if file.write_at(&whole.closing, whole.bytes).is_ok() {
                open.bytes = whole.bytes + whole.closing.len() as u64;
            } else {
                file.cut(open.bytes)?;
            }
        }
        Ok(())
    }

    /// On to the next thread; true if it has no room.
    fn hand_on(&self, open: &mut Open) -> bool {
        let Some(kept) = open.kept.take() else { return false };
        match self.finished.try_send(kept) {
            Ok(()) => false,
            Err(TrySendError::Full(kept)) => {
                open.kept = Some(kept);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Open {
    fn sheet(&self) -> io::Result<&dyn Sheet> {
        self.file.as_deref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// All that went wrong, in words.
    fn said(&self, end: &End, more: Option<String>) -> Option<String> {
        let trouble = self.trouble.as_ref().map(|trouble| trouble.said.clone());
        let all: Vec<String> = [end.error.clone(), trouble, more].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn kept(&self, finished: Finished, state: TapeState, now: Now) -> Kept {
        let expires_at = expires(now.wall, self.of.keep_days);
        Kept { call: Some(self.of.call), row: self.row.clone(), finished, state, expires_at }
    }
}
