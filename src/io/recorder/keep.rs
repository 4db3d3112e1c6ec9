//! The thread that has time: it mends what a power cut has left, closes the ledger's rows, and deletes what is due.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::repair::{self, DAMAGED, Mended, Part, Told};
use super::retain::{self, BATCH, Fate, Look, Trust};
use super::store::{Found, Store, is_plain};
use super::write::{PART, SEALED, expires};
use super::{Cause, RecorderSettings, Shared, lock};
use crate::call::recording::{Finished, Outcome};
use crate::clock::{Now, Tick, Wall};
use crate::gateway::{CallKey, TapeEvent};
use crate::io::clock;
use crate::ledger::{Ledger, LedgerError, MISSING, TapeRow, TapeState, UploadState};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// How often a ledger that is busy is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the folder is looked through.
const LOOKING: Duration = Duration::from_secs(3_600);

/// Recordings of this life whose end is moved when the clock jumps.
const REMEMBERED: usize = 4_096;

/// Names in a log line.
const NAMED: usize = 5;

/// A file that was closed, or never came to be.
#[derive(Clone)]
pub struct Kept {
    /// Who is told in the hall; `None`: the call is long over.
    pub call: Option<CallKey>,
    /// The row as it is, or was to be, while the recording runs.
    pub row: TapeRow,
    /// The file's facts.
    pub finished: Finished,
    /// What becomes of the row. [`TapeState::Running`]: nothing, the file is mended within an hour.
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
    /// Give this one its SHA-256.
    Read(Box<TapeRow>),
}

/// What is to be done with a file that no row knows as its own.
enum Stray {
    /// Nobody knows it, or its row says that there never was one.
    Unknown,
    /// It was deleted, or is elsewhere: a power cut has kept it.
    Deleted,
    /// It was missing.
    Found,
}

/// The files that are finished, and those that should be.
pub struct Keeper {
    shared: Shared,
    store: Arc<dyn Store>,
    finished: Receiver<Kept>,
    waiting: VecDeque<Kept>,
    chores: VecDeque<Chore>,
    trust: Trust,
    /// Whether age counts, as the last look said.
    trusted: bool,
    /// When to look for what is due.
    next: Tick,
    /// When to look through the folder again.
    next_look: Tick,
    /// When a ledger that would not take something is asked again.
    again: Tick,
    /// Whether rows were compared with the folder, and how many files in it were nobody's.
    compared: Option<usize>,
    /// Whether what waits for its upload takes more than all recordings may.
    crammed: bool,
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
            chores: VecDeque::new(),
            trust: Trust::default(),
            trusted: false,
            next: Tick::ZERO,
            next_look: Tick::ZERO,
            again: Tick::ZERO,
            compared: None,
            crammed: false,
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
        // While the ledger takes nothing, what is due is deleted all the same: a full disk gets room by that.
        if !self.waiting.is_empty() && now.tick >= self.again {
            if self.finish_next(now) {
                return true;
            }
            self.again = now.tick + AGAIN;
        }
        if self.shared.leaving() {
            return false;
        }
        if let Some(chore) = self.chores.pop_front() {
            self.work(chore, now);
            return true;
        }
        if now.tick >= self.next_look {
            self.next_look = now.tick + LOOKING;
            self.chores.push_back(Chore::Look);
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
        let ours = kept.clone();
        let closed = self.shared.books.ask(move |ledger| Ok(close_row(ledger, &ours, now.wall)));
        let error = match closed {
            Ok(Ok(())) => None,
            Ok(Err(error)) if !error.retry() => {
                tracing::warn!(call = %kept.row.call, %error, "a recording's row can't be closed now");
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            if self.shared.may_say(Cause::Ledger) {
                tracing::warn!(call = %kept.row.call, %error, "a recording's row waits for the ledger");
            }
            return Err(Box::new(kept));
        }
        if let Some(expires_at) = kept.expires_at {
            if self.recent.len() >= REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back((kept.row.call.clone(), expires_at));
        }
        // The hall closes the call when it has heard of this: the row is there by now.
        self.tell(&kept);
        if kept.state == TapeState::Kept && kept.row.upload == UploadState::Waiting {
            self.shared.uploads.notify_one();
        }
        Ok(())
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
            Chore::Read(row) => self.read(&row, now),
        };
        if let Err(error) = done
            && self.shared.may_say(Cause::Read)
        {
            tracing::warn!(%error, "recordings that were cut off are not mended now, but in an hour");
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
        let unread = self.shared.books.ask(|ledger| ledger.tapes_unread())?;
        self.chores.extend(unread.into_iter().map(|row| Chore::Read(Box::new(row))));
        Ok(())
    }

    /// What the last life had no time for.
    fn read(&mut self, row: &TapeRow, now: Now) -> Result<(), String> {
        let digest = self.digest(&row.file).map_err(|error| format!("{}: {error}", row.file))?;
        let Some((bytes, sha256)) = digest else { return Ok(()) };
        let call = row.call.clone();
        self.shared.books.ask(move |ledger| ledger.tape_read(&call, bytes, &sha256, now.wall)).map(|_| ())
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
                let told = self.told(&part, &found.name)?;
                repair::unknown(&part, told, found.changed, now.wall, &settings)
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

    /// What a file's head says, where that can be read.
    fn told(&self, part: &Part, file: &str) -> Result<Told, String> {
        match part.sealed {
            true => Ok(Told::default()),
            false => Told::read(&*self.store, file).map_err(|error| format!("{file}: {error}")),
        }
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
        let known = Finished {
            outcome: Outcome::Interrupted,
            millis: super::millis(ticks.unwrap_or_default()),
            bytes,
            sha256: String::new(),
            error: Some("the process was cut off when the file was finished".to_owned()),
            ..row.finished.clone()
        };
        let told = Told::read(&*self.store, &row.file).unwrap_or_default();
        match told.end.filter(|_| !row.encrypted) {
            // It was closed in order: why it has gaps was in the row that is not there.
            Some((outcome, paused_millis, lost_millis)) => {
                let error = known.error.filter(|_| outcome == Outcome::Interrupted);
                Finished { outcome, paused_millis, lost_millis, error, ..known }
            }
            None => known,
        }
    }

    /// Files that no row knows are taken in, or go as their row says; rows without a file are closed.
    fn compare(&mut self, now: Now) -> Result<(), String> {
        let found = self.store.list().map_err(|error| error.to_string())?;
        let mut strange = Vec::new();
        for some in found.chunks(BATCH) {
            // What is being written is not looked at: its row may be on its way.
            let active = lock(&self.shared.active).clone();
            let ours = some.iter().filter(|found| !active.contains(id_of(&found.name)));
            let ours: Vec<Found> = ours.cloned().collect();
            for (found, stray) in self.shared.books.ask(move |ledger| strays(ledger, ours))? {
                if !self.take_in(&found, stray, now) {
                    strange.push(found.name);
                }
            }
        }
        if !strange.is_empty() && self.compared != Some(strange.len()) {
            let some = strange.iter().take(NAMED).cloned().collect::<Vec<String>>().join(", ");
            tracing::warn!(
                files = strange.len(),
                some,
                "files in the folder of recordings belong to no recording: they stay, and nothing deletes them"
            );
        }
        // A file that somebody deletes now goes before its row: only at the start is nobody there who could.
        let first = self.compared.replace(strange.len()).is_none();
        let rows = self.shared.books.ask(|ledger| ledger.tapes_beyond(1))?;
        let names: Vec<String> = found.into_iter().map(|found| found.name).collect();
        if !first || names.len() >= super::store::MOST_LISTED {
            return Ok(());
        }
        let gone = match retain::missing(&rows, &names) {
            Ok(gone) => gone,
            Err(gone) => {
                tracing::warn!(gone, "most of the recordings' files are not there: is their disk mounted?");
                return Ok(());
            }
        };
        for row in gone {
            if self.shared.may_say(Cause::Delete) {
                tracing::warn!(call = %row.call, "a recording's file is gone");
            }
            self.forget(row, MISSING, "the file was not there any more", now);
        }
        Ok(())
    }

    /// A file that is no row's: false if nothing is known of it either, and it stays.
    fn take_in(&mut self, found: &Found, stray: Stray, now: Now) -> bool {
        let damaged = found.name.strip_suffix(DAMAGED).and_then(Part::whole);
        if damaged.is_some_and(|part| part.id.starts_with(CALL)) {
            // Nobody can play it, but somebody may be heard in it.
            let due = expires(found.changed, self.shared.settings().keep_days);
            if self.trusted && due.is_some_and(|due| due <= now.wall) {
                self.clear(&found.name, "a damaged recording is deleted: its time is over");
            }
            return true;
        }
        match stray {
            Stray::Deleted => self.clear(&found.name, "a file that was deleted before is deleted again"),
            Stray::Found => {
                let call = id_of(&found.name).to_owned();
                tracing::info!(%call, "a recording's file is there again");
                self.shared.books.later(move |ledger| {
                    if let Err(error) = ledger.tape_found(&call, now.wall) {
                        tracing::warn!(%call, %error, "a recording that was found again has no row yet");
                    }
                });
            }
            Stray::Unknown => {
                let Some(part) = Part::whole(&found.name).filter(|part| part.id.starts_with(CALL)) else {
                    // An unfinished one is mended, not taken in.
                    return found.name.ends_with(PART) && Part::read(&found.name).is_some();
                };
                let Ok(told) = self.told(&part, &found.name) else { return false };
                let row = repair::unknown(&part, told, found.changed, found.changed, &self.shared.settings());
                let Ok(bytes) = self.store.open(&found.name).and_then(|file| file.bytes()) else {
                    return false;
                };
                let finished = self.late(&row, bytes);
                if finished.millis == 0 {
                    return false;
                }
                tracing::info!(call = %row.call, "a recording without a row gets one");
                let expires_at = row.expires_at;
                self.waiting.push_back(Kept {
                    call: None,
                    row,
                    finished,
                    state: TapeState::Kept,
                    expires_at,
                });
            }
        }
        true
    }

    fn clear(&self, file: &str, why: &str) {
        match self.store.remove(file) {
            Ok(()) => tracing::info!(file, "{why}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if self.shared.may_say(Cause::Delete) => {
                tracing::warn!(file, %error, "a recording can't be deleted");
            }
            Err(_) => {}
        }
    }

    /// Deletes what is due: what is too old only if the clock can be believed, what is too much in any case.
    pub fn sweep(&mut self, now: Now) {
        let look = self.trust.look(now);
        self.trusted = look == Look::Trusted;
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
        let RecorderSettings { max_mib: most, upload, .. } = self.shared.settings();
        if most == 0 {
            return Ok(());
        }
        let most_bytes = most.saturating_mul(1 << 20);
        let rows = self.shared.books.ask(move |ledger| ledger.tapes_beyond(most_bytes))?;
        for row in rows.iter().filter(|row| row.state == TapeState::Kept && row.local) {
            if self.shared.leaving() {
                break;
            }
            // They come last: what could go has gone. There is no other copy, and `min_free_mib` is the bound.
            if row.upload == UploadState::Waiting && upload {
                if !self.crammed {
                    tracing::warn!(
                        "all recordings together take more than max_mib, and what is left waits for its upload: it stays"
                    );
                }
                self.crammed = true;
                return Ok(());
            }
            if row.finished.bytes > most_bytes {
                tracing::warn!(call = %row.call, bytes = row.finished.bytes, "a recording is larger than max_mib");
            }
            self.delete(row, "quota", &format!("all recordings together took more than {most} MiB"), now);
        }
        self.crammed = false;
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
    // What was found again may have been taken for lost before.
    let found = |row: TapeRow| row.state == TapeState::Failed && kept.state == TapeState::Kept;
    if ledger.tape(call)?.is_none_or(found) {
        ledger.tape_begun(&kept.row)?;
        ledger.tape_finished(call, &kept.finished, kept.state, kept.expires_at, upload, now)?;
    }
    Ok(())
}

/// What the ids of calls begin with.
const CALL: &str = "call_";

/// The id of the call that a file's name tells.
fn id_of(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// Which of these files are no row's, and what is to be done with them.
fn strays(ledger: &Ledger, found: Vec<Found>) -> Result<Vec<(Found, Stray)>, LedgerError> {
    let mut strays = Vec::new();
    for found in found {
        let row = ledger.tape(id_of(&found.name))?.filter(|row| row.file == found.name);
        let stray = match row.map(|row| (row.state, row.local, row.deleted_by)) {
            // Rows that run are closed by what is there.
            Some((TapeState::Running, _, _) | (TapeState::Kept, true, _)) => continue,
            Some((TapeState::Deleted, _, Some(by))) if by == MISSING => Stray::Found,
            Some((TapeState::Kept | TapeState::Deleted, _, _)) => Stray::Deleted,
            Some((TapeState::Failed, _, _)) | None => Stray::Unknown,
        };
        strays.push((found, stray));
    }
    Ok(strays)
}
