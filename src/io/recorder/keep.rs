//! The thread that has time: it mends what a power cut has left, closes the ledger's rows, and deletes what is due.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::repair::{self, Mended, Part};
use super::retain::{self, BATCH, Fate, Look, Trust};
use super::store::{Found, Store, is_plain};
use super::write::{PART, SEALED, expires};
use super::{Cause, Shared, lock};
use crate::call::recording::{Finished, Outcome};
use crate::clock::{Now, Tick, Wall};
use crate::gateway::{CallKey, TapeEvent};
use crate::io::clock;
use crate::ledger::{Ledger, LedgerError, TapeRow, TapeState, UploadState};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// How often a ledger that is busy is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Recordings of this life whose end is moved when the clock jumps.
const REMEMBERED: usize = 4_096;

/// Names in a log line.
const NAMED: usize = 5;

/// A file that was closed, or never came to be.
pub struct Kept {
    /// Who is told in the hall; `None`: the call is long over.
    pub call: Option<CallKey>,
    /// The row as it is, or was to be, while the recording runs.
    pub row: TapeRow,
    /// The file's facts.
    pub finished: Finished,
    /// What becomes of the row. [`TapeState::Running`]: nothing, the file is mended at the next start.
    pub state: TapeState,
    /// When it is to be deleted.
    pub expires_at: Option<Wall>,
}

/// What is to be done when there is time.
enum Chore {
    /// Look for files that were being written.
    Look,
    /// Mend this one.
    Mend(Found),
    /// Close rows of which there is no such file.
    CloseRows,
    /// Compare the folder with the rows.
    Compare,
}

/// The files that are finished, and those that should be.
pub struct Keeper {
    shared: Shared,
    store: Arc<dyn Store>,
    finished: Receiver<Kept>,
    waiting: VecDeque<Kept>,
    chores: VecDeque<Chore>,
    trust: Trust,
    /// When to look for what is due.
    next: Tick,
    /// Recordings of this life, and when they are to go.
    recent: VecDeque<(String, Wall)>,
}

impl Keeper {
    /// The folder is not looked at yet.
    pub fn new(shared: Shared, store: Arc<dyn Store>, finished: Receiver<Kept>) -> Keeper {
        Keeper {
            shared,
            store,
            finished,
            waiting: VecDeque::new(),
            chores: VecDeque::from([Chore::Look]),
            trust: Trust::default(),
            next: Tick::ZERO,
            recent: VecDeque::new(),
        }
    }

    /// Until the other threads have ended.
    pub fn run(mut self) {
        loop {
            let now = clock::now();
            if self.turn(now) {
                continue;
            }
            let until = if self.waiting.is_empty() { self.next } else { self.next.min(now.tick + AGAIN) };
            match self.finished.recv_timeout(until.since(now.tick)) {
                Ok(kept) => self.waiting.push_back(kept),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    while !self.waiting.is_empty() && self.finish_next(clock::now()) {}
                    return;
                }
            }
        }
    }

    /// One piece of work; true if there is more at once. What calls wait for goes first.
    pub fn turn(&mut self, now: Now) -> bool {
        while let Ok(kept) = self.finished.try_recv() {
            self.waiting.push_back(kept);
        }
        if !self.waiting.is_empty() {
            return self.finish_next(now);
        }
        if self.shared.leaving() {
            return false;
        }
        if let Some(chore) = self.chores.pop_front() {
            self.work(chore, now);
            return true;
        }
        if now.tick < self.next {
            return false;
        }
        self.next = now.tick + retain::EVERY;
        self.sweep(now);
        false
    }

    /// The next of the finished files gets its SHA-256 and its row; false if the ledger is too busy.
    fn finish_next(&mut self, now: Now) -> bool {
        let Some(kept) = self.waiting.pop_front() else { return false };
        if kept.state == TapeState::Running {
            self.tell(&kept);
            return true;
        }
        match self.finish(kept, now) {
            Ok(()) => true,
            Err(kept) => {
                if self.shared.may_say(Cause::Ledger) {
                    tracing::warn!("a recording's row waits: too much waits for the ledger");
                }
                self.waiting.push_front(*kept);
                false
            }
        }
    }

    fn tell(&self, kept: &Kept) {
        lock(&self.shared.active).remove(&kept.row.call);
        if let Some(call) = kept.call {
            self.shared.hall.tell(call, TapeEvent::Finished(Box::new(kept.finished.clone())));
        }
    }

    fn finish(&mut self, mut kept: Kept, now: Now) -> Result<(), Box<Kept>> {
        if kept.state == TapeState::Kept && kept.finished.sha256.is_empty() {
            match self.digest(&kept.row.file) {
                Ok(Some((bytes, sha256))) => {
                    kept.finished.bytes = bytes;
                    kept.finished.sha256 = sha256;
                }
                // The process ends: there is no time for it.
                Ok(None) => {}
                Err(error) => {
                    if self.shared.may_say(Cause::Read) {
                        tracing::warn!(call = %kept.row.call, %error, "a recording can't be read again");
                    }
                }
            }
        }
        if kept.state == TapeState::Kept {
            // There may be too much now.
            self.next = now.tick;
        }
        if let Some(expires_at) = kept.expires_at {
            if self.recent.len() >= REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back((kept.row.call.clone(), expires_at));
        }
        let kept = Arc::new(kept);
        let (shared, ours) = (self.shared.clone(), Arc::clone(&kept));
        let written = self.shared.books.later(move |ledger| {
            if let Err(error) = close_row(ledger, &ours, now.wall) {
                tracing::warn!(call = %ours.row.call, %error, "a recording's row can't be closed");
            }
            // The hall closes the call when it has heard of this: the row is to be there by then.
            lock(&shared.active).remove(&ours.row.call);
            if let Some(call) = ours.call {
                shared.hall.tell(call, TapeEvent::Finished(Box::new(ours.finished.clone())));
            }
            if ours.state == TapeState::Kept && ours.row.upload == UploadState::Waiting {
                shared.uploads.notify_one();
            }
        });
        if written {
            return Ok(());
        }
        match Arc::try_unwrap(kept) {
            Ok(kept) => Err(Box::new(kept)),
            // It can't be taken back: whoever has it, writes it.
            Err(_) => Ok(()),
        }
    }

    /// How long a file is, and its SHA-256; `None` if the process ends meanwhile.
    fn digest(&self, name: &str) -> io::Result<Option<(u64, String)>> {
        let file = self.store.open(name)?;
        let (mut hasher, mut at, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
        loop {
            let read = file.read_at(&mut piece, at)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
            at += read as u64;
            if self.shared.hurries() {
                return Ok(None);
            }
        }
        let digits = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some((at, digits)))
    }

    fn work(&mut self, chore: Chore, now: Now) {
        let done = match chore {
            Chore::Look => self.look(),
            Chore::Mend(found) => self.mend(&found, now),
            Chore::CloseRows => self.close_rows(now),
            Chore::Compare => self.compare(now),
        };
        if let Err(error) = done
            && self.shared.may_say(Cause::Read)
        {
            tracing::warn!(%error, "recordings that were cut off are not mended now, but at the next start");
        }
    }

    fn look(&mut self) -> Result<(), String> {
        self.chores.extend([Chore::CloseRows, Chore::Compare]);
        let mut found = self.store.list().map_err(|error| error.to_string())?;
        found.retain(|found| found.name.ends_with(PART));
        found.sort_by(|one, other| other.name.cmp(&one.name));
        for found in found {
            self.chores.push_front(Chore::Mend(found));
        }
        Ok(())
    }

    fn mend(&mut self, found: &Found, now: Now) -> Result<(), String> {
        let Some(part) = Part::read(&found.name) else { return Ok(()) };
        // One of this life.
        if lock(&self.shared.active).contains(&part.id) {
            return Ok(());
        }
        let id = part.id.clone();
        let known = self.shared.books.ask(move |ledger| ledger.tape(&id))?;
        let settings = self.shared.settings();
        let row = match known.filter(|row| row.state == TapeState::Running) {
            Some(row) => row,
            None => {
                let form = part.form(&*self.store).map_err(|error| format!("{}: {error}", found.name))?;
                let expires_at = expires(now.wall, settings.keep_days);
                repair::unknown(&part, form, found.changed, expires_at, settings.upload)
            }
        };
        let mended =
            repair::mend(&*self.store, &part, &row).map_err(|error| format!("{}: {error}", found.name))?;
        let (finished, state) = match mended {
            Mended::Kept(finished) => {
                tracing::info!(call = %part.id, millis = finished.millis, "a recording that was cut off is mended");
                (finished, TapeState::Kept)
            }
            Mended::Nothing => {
                (Finished { outcome: Outcome::Nothing, ..Finished::default() }, TapeState::Failed)
            }
            Mended::Damaged(why) => {
                tracing::warn!(file = %part.name, why, "a recording that was cut off can't be read: it is kept as .damaged");
                let error = Some(format!("the process was cut off, and the file can't be read: {why}"));
                (Finished { outcome: Outcome::Failed, error, ..Finished::default() }, TapeState::Failed)
            }
        };
        let expires_at = row.expires_at;
        self.waiting.push_back(Kept { call: None, row, finished, state, expires_at });
        Ok(())
    }

    /// Rows that still say that their recording runs: its file has its name already, or there is none.
    fn close_rows(&mut self, _now: Now) -> Result<(), String> {
        let rows = self.shared.books.ask(|ledger| ledger.tapes_running())?;
        for row in rows {
            if lock(&self.shared.active).contains(&row.call) {
                continue;
            }
            let long = |name: &str| self.store.open(name).and_then(|file| file.bytes());
            let (finished, state) = match long(&row.file) {
                Ok(bytes) => (self.late(&row, bytes), TapeState::Kept),
                // It could not be mended just now.
                Err(_) if long(&format!("{}{PART}", row.file)).is_ok() => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let error = Some("the process was cut off, and there is no file".to_owned());
                    (Finished { outcome: Outcome::Failed, error, ..Finished::default() }, TapeState::Failed)
                }
                Err(error) => return Err(format!("{}: {error}", row.file)),
            };
            let expires_at = row.expires_at;
            self.waiting.push_back(Kept { call: None, row, finished, state, expires_at });
        }
        Ok(())
    }

    /// The facts of a file that was finished when the process died, but not its row.
    fn late(&self, row: &TapeRow, bytes: u64) -> Finished {
        use crate::io::seal;
        use crate::media::tape::{self, Form};
        let file = self.store.open(&row.file);
        let ticks = file.ok().and_then(|file| {
            let mut reading = super::store::Reading::new(&*file, bytes);
            if row.file.ends_with(SEALED) {
                return seal::whole(&mut reading).ok().map(|whole| whole.ticks);
            }
            tape::whole(&Form::parse(&row.form)?, &mut reading).ok().map(|whole| whole.ticks)
        });
        Finished {
            outcome: Outcome::Interrupted,
            millis: super::millis(ticks.unwrap_or_default()),
            bytes,
            sha256: String::new(),
            error: Some("the process was cut off when the file was finished".to_owned()),
            ..row.finished.clone()
        }
    }

    /// Files without a row are told of, once and never deleted; rows without a file are closed.
    fn compare(&mut self, now: Now) -> Result<(), String> {
        let found = self.store.list().map_err(|error| error.to_string())?;
        let mut strange = Vec::new();
        for some in found.chunks(BATCH) {
            let old = some.iter().filter(|found| now.wall.0.saturating_sub(found.changed.0) > 86_400_000);
            let names: Vec<String> = old.map(|found| found.name.clone()).collect();
            strange.extend(self.shared.books.ask(move |ledger| unknown(ledger, names))?);
        }
        if !strange.is_empty() {
            let some = strange.iter().take(NAMED).cloned().collect::<Vec<String>>().join(", ");
            tracing::warn!(
                files = strange.len(),
                some,
                "files in the folder of recordings belong to no recording: they stay, and nothing deletes them"
            );
        }
        let rows = self.shared.books.ask(|ledger| ledger.tapes_beyond(1))?;
        let names: Vec<String> = found.into_iter().map(|found| found.name).collect();
        if names.len() >= super::store::MOST_LISTED {
            return Ok(());
        }
        let gone = retain::missing(&rows, &names);
        if gone.is_empty() && rows.len() > 1 && names.is_empty() {
            tracing::warn!("the folder of recordings is empty, but it should not be: is its disk mounted?");
        }
        for row in gone {
            if self.shared.may_say(Cause::Delete) {
                tracing::warn!(call = %row.call, "a recording's file is gone");
            }
            self.forget(row, "missing", "the file was not there any more", now);
        }
        Ok(())
    }

    /// Deletes what is due: what is too old only if the clock can be believed, what is too much in any case.
    pub fn sweep(&mut self, now: Now) {
        let look = self.trust.look(now);
        if let Look::Jumped(by) = look {
            if self.shared.may_say(Cause::Clock) {
                tracing::info!(
                    hours = by / 3_600_000,
                    "the clock has jumped: no recording is too old for an hour"
                );
            }
            self.move_ends(by);
        }
        let aged = match look {
            Look::Trusted => self.expire(now),
            Look::Doubtful | Look::Jumped(_) => Ok(()),
        };
        if let Err(error) = aged.and_then(|()| self.shrink(now))
            && self.shared.may_say(Cause::Ledger)
        {
            tracing::warn!(%error, "recordings that are due are not deleted");
        }
    }

    /// The clock has jumped: what was recorded before is kept as long after as was promised.
    fn move_ends(&mut self, by: i64) {
        let mut moved = Vec::new();
        for (call, expires_at) in &mut self.recent {
            expires_at.0 = expires_at.0.saturating_add(by);
            moved.push((call.clone(), *expires_at));
        }
        self.shared.books.later(move |ledger| {
            for (call, expires_at) in moved {
                if let Err(error) = ledger.tape_expires(&call, Some(expires_at), expires_at) {
                    tracing::warn!(%error, "a recording's end can't be moved");
                    return;
                }
            }
        });
    }

    fn expire(&mut self, now: Now) -> Result<(), String> {
        loop {
            let rows = self.shared.books.ask(move |ledger| ledger.tapes_expired(now.wall, BATCH))?;
            let mut all = rows.len() >= BATCH;
            for row in &rows {
                match retain::fate(row, now.wall) {
                    Fate::Goes => {
                        all &= self.delete(row, "retention", "it was kept as long as was configured", now)
                    }
                    Fate::Stays(until) => {
                        let call = row.call.clone();
                        all &= self.shared.books.later(move |ledger| {
                            if let Err(error) = ledger.tape_expires(&call, Some(until), now.wall) {
                                tracing::warn!(%error, "a recording's end can't be moved");
                            }
                        });
                    }
                    Fate::Untouched => all = false,
                }
            }
            if !all || self.shared.leaving() {
                return Ok(());
            }
        }
    }

    fn shrink(&mut self, now: Now) -> Result<(), String> {
        let most = self.shared.settings().max_mib;
        if most == 0 {
            return Ok(());
        }
        let rows = self.shared.books.ask(move |ledger| ledger.tapes_beyond(most.saturating_mul(1 << 20)))?;
        for row in rows.iter().filter(|row| row.state == TapeState::Kept && row.local) {
            self.delete(row, "quota", &format!("all recordings together took more than {most} MiB"), now);
            if self.shared.leaving() {
                break;
            }
        }
        Ok(())
    }

    fn delete(&self, row: &TapeRow, by: &'static str, why: &str, now: Now) -> bool {
        if !is_plain(&row.file) {
            tracing::error!(call = %row.call, "a recording's row has no file's name: this is a bug");
            return false;
        }
        match self.store.remove(&row.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                if self.shared.may_say(Cause::Delete) {
                    tracing::warn!(call = %row.call, %error, "a recording can't be deleted");
                }
                return false;
            }
            _ => {}
        }
        if row.upload == UploadState::Waiting {
            tracing::warn!(call = %row.call, by, "a recording is deleted before it could be sent");
        } else {
            tracing::info!(call = %row.call, by, "a recording is deleted");
        }
        self.forget(row, by, why, now)
    }

    fn forget(&self, row: &TapeRow, by: &'static str, why: &str, now: Now) -> bool {
        let (call, why) = (row.call.clone(), why.to_owned());
        self.shared.books.later(move |ledger| {
            if let Err(error) = ledger.tape_deleted(&call, by, &why, now.wall) {
                tracing::warn!(%call, %error, "a recording was deleted, its row does not say so yet");
            }
        })
    }
}

/// Closes a row; makes it if there is none.
fn close_row(ledger: &mut Ledger, kept: &Kept, now: Wall) -> Result<(), LedgerError> {
    let (call, upload) = (&kept.row.call, kept.row.upload == UploadState::Waiting);
    if ledger.tape_finished(call, &kept.finished, kept.state, kept.expires_at, upload, now)? {
        return Ok(());
    }
    if ledger.tape(call)?.is_none() {
        ledger.tape_begun(&kept.row)?;
        ledger.tape_finished(call, &kept.finished, kept.state, kept.expires_at, upload, now)?;
    }
    Ok(())
}

/// Which of these files belong to no row.
fn unknown(ledger: &Ledger, names: Vec<String>) -> Result<Vec<String>, LedgerError> {
    let mut strange = Vec::new();
    for name in names {
        let id = name.split('.').next().unwrap_or_default();
        if ledger.tape(id)?.is_none_or(|row| !row.local || row.file != name) {
            strange.push(name);
        }
    }
    Ok(strange)
}
