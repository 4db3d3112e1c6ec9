//! The recorder: what the sound threads hand over becomes files, outlives a power cut, and goes again in time.
//!
//! ```text
//!  sound ──slices──▶ drain ──blocks──▶ write ──finished files──▶ keep ──▶ ledger, hall, uploads
//!                    (sound to bytes)  (create, write, sync)     (repair, SHA-256, retention)
//! ```
//! Three threads of low priority for all recordings together, because each waits for something else:
//!
//! * `drain` only computes. It empties every queue each 100 ms, whatever the disk does: a queue of a sound thread holds
//!   2 s, and a memory card may well take longer than that for one `fdatasync`.
//! * `write` waits for the disk. What it has not written yet lies in memory, at most 30 s of a recording and 32 MiB of
//!   all. Beyond that sound is dropped before it is encoded, and the tape fills the hole with silence when the disk is
//!   back: a recording is as long as what it recorded. All recordings lie in one folder, on one device: a second
//!   writer would only wait beside the first.
//! * `keep` has time: it reads whole files again, for their SHA-256 and to mend what a power cut has left behind, asks
//!   the ledger, and deletes what is due. None of that may hold up the second of sound that wants to be written.
//!
//! A full disk ends nothing: what is to be written is tried again each second, and after the call for half a minute. So
//! is the making of a file, but after the call for seconds only: the call's record waits for it.
//! Nothing is deleted to make room, for a recording is kept as long as was promised; what could be written is closed
//! properly, for a file's head is rewritten where it is.
//!
//! A sealed file's key is not here: its head stays as it was after a power cut, and whoever opens it gets it mended.

mod drain;
mod keep;
mod reel;
mod repair;
mod retain;
mod store;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::disk::Disk;
use super::{clock, host};
use crate::clock::{Tick, Wall};
use crate::config::RecordingConfig;
use crate::gateway::{CallKey, Input, TapeEvent};
use crate::ledger::{Ledger, LedgerError, RECORDINGS};
use crate::media::tap::Slice;
use crate::media::tape::Form;

use drain::Drain;
use keep::Keeper;
use store::{Folder, Store};
use write::Writer;

/// Recordings at once.
const MOST: usize = 512;

/// Orders to begin that may wait for their thread.
const BEGINS: usize = 64;

/// Finished files that may wait for what comes after.
const FINISHED: usize = 1_024;

/// Time for everything to be finished when the process ends.
const LEAVING: Duration = Duration::from_secs(5);

/// Of that, the part in which files are still read again for their SHA-256.
const READING: Duration = Duration::from_secs(3);

/// How much less than ordinary work the recorder's threads are worth.
const NICE: i32 = 10;

/// A recording that is to begin. It ends when whoever has the other end of `slices` lets go of it.
pub struct Begin {
    /// For the hall.
    pub call: CallKey,
    /// The call's id, `call_` and 24 hexadecimal digits: the file's name.
    pub id: String,
    /// The configured number's `id`.
    pub number: String,
    /// The configured number's `account_id`.
    pub account: String,
    /// What is written.
    pub form: Form,
    /// Whom it is encrypted for; empty: nobody.
    pub encrypt_to: Vec<String>,
    /// Days after which it is deleted; 0: never.
    pub keep_days: u32,
    /// Whether it is sent elsewhere once it is finished.
    pub upload: bool,
    /// When.
    pub began: Wall,
    /// The sound.
    pub slices: Receiver<Slice>,
}

/// What holds for all recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecorderSettings {
    /// MiB that all recordings may take; 0: no limit.
    pub max_mib: u64,
    /// MiB that must stay free: below it no recording begins.
    pub min_free_mib: u64,
    /// Days after which a recording is deleted that is found without a row; 0: never.
    pub keep_days: u32,
    /// Whether recordings that are found after a power cut are sent elsewhere.
    pub upload: bool,
}

impl RecorderSettings {
    /// What `[recording]` says.
    pub fn of(config: &RecordingConfig) -> RecorderSettings {
        RecorderSettings {
            max_mib: config.max_mib,
            min_free_mib: config.min_free_mib,
            keep_days: config.keep_days,
            upload: config.upload.is_some(),
        }
    }
}

/// The handle: cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    begins: SyncSender<Order>,
    shared: Shared,
}

/// The threads, to be waited for.
pub struct Threads {
    begins: SyncSender<Order>,
    shared: Shared,
    /// Nothing ever comes: it is let go of when the last thread has ended.
    ended: Receiver<()>,
}

enum Order {
    Begin(Box<Begin>),
    Close,
}

impl Recorder {
    /// Starts the threads. What a power cut has left in the folder is mended by them, meanwhile calls may come.
    ///
    /// `uploads` is told when a file is ready to be sent.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(
        state_dir: &Path,
        settings: RecorderSettings,
        disk: Disk,
        to_gateway: mpsc::Sender<Input>,
        uploads: Arc<Notify>,
    ) -> Result<(Recorder, Threads), String> {
        let books = Books::new(move |work| disk.later(work));
        let store = Arc::new(Folder::new(state_dir.join(RECORDINGS)));
        Recorder::with(store, Shared::new(settings, Hall(to_gateway), books, uploads))
    }

    fn with(store: Arc<dyn Store>, shared: Shared) -> Result<(Recorder, Threads), String> {
        let (begins, orders) = sync_channel(BEGINS);
        let (openings, opened) = sync_channel(MOST);
        let (finished, kept) = sync_channel(FINISHED);
        let (alive, ended) = sync_channel(1);
        let drain = Drain::new(shared.clone(), openings);
        let writer = Writer::new(shared.clone(), Arc::clone(&store), finished);
        let keeper = Keeper::new(shared.clone(), store, kept);
        let last = alive.clone();
        spawn("rec-drain", move || drain.run(&orders))?;
        spawn("rec-write", move || {
            writer.run(&opened);
            drop(alive);
        })?;
        spawn("rec-keep", move || {
            keeper.run();
            drop(last);
        })?;
        Ok((Recorder { begins: begins.clone(), shared: shared.clone() }, Threads { begins, shared, ended }))
    }

    /// Begins a recording. What comes of it is told to the hall, and is nothing to wait for.
    pub fn begin(&self, begin: Begin) {
        let call = begin.call;
        if self.begins.try_send(Order::Begin(Box::new(begin))).is_err() {
            self.shared.failed(call, Cause::Many, "too many recordings begin at once");
        }
    }

    /// Other settings hold from now on.
    pub fn set(&self, settings: RecorderSettings) {
        *lock(&self.shared.settings) = settings;
    }
}

impl Threads {
    /// Finishes every recording: to be called when no line is left and the ledger still takes what is written. Five
    /// seconds at most: what is not done then is mended at the next start.
    pub fn close(self) {
        // A full queue is one that nobody empties any more.
        let _ = self.begins.try_send(Order::Close);
        self.shared.leave(clock::tick());
        if self.ended.recv_timeout(LEAVING) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the disk has not taken all of the recordings: they are mended at the next start");
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let work = move || {
        host::defer_this_thread(NICE);
        work();
    };
    thread.spawn(work).map(|_| ()).map_err(|error| format!("the recorder's thread can't be started: {error}"))
}

/// What all three threads have in common.
#[derive(Clone)]
struct Shared {
    settings: Arc<Mutex<RecorderSettings>>,
    /// The ids of the recordings that have a file which is not finished.
    active: Arc<Mutex<BTreeSet<String>>>,
    hall: Hall,
    books: Books,
    uploads: Arc<Notify>,
    said: Arc<Mutex<BTreeMap<Cause, Tick>>>,
    /// Microseconds at which the process began to end; 0: it does not.
    leaving: Arc<AtomicU64>,
}

impl Shared {
    fn new(settings: RecorderSettings, hall: Hall, books: Books, uploads: Arc<Notify>) -> Shared {
        Shared {
            settings: Arc::new(Mutex::new(settings)),
            active: Arc::default(),
            hall,
            books,
            uploads,
            said: Arc::default(),
            leaving: Arc::default(),
        }
    }

    fn settings(&self) -> RecorderSettings {
        *lock(&self.settings)
    }

    /// The process ends.
    fn leave(&self, now: Tick) {
        self.leaving.store(now.0.max(1), Ordering::Relaxed);
    }

    /// Whether the process ends.
    fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) > 0
    }

    /// Whether it ends, and there is hardly any time left.
    fn hurries(&self) -> bool {
        let since = Tick(self.leaving.load(Ordering::Relaxed));
        since > Tick::ZERO && clock::tick().since(since) >= READING
    }

    /// Whether a warning of this cause may be written now: one a minute.
    fn may_say(&self, cause: Cause) -> bool {
        let now = clock::tick();
        let mut said = lock(&self.said);
        if said.get(&cause).is_some_and(|next| now < *next) {
            return false;
        }
        said.insert(cause, now + Duration::from_secs(60));
        true
    }

    /// There is no recording of this call, and why.
    fn failed(&self, call: CallKey, cause: Cause, why: &str) {
        if self.may_say(cause) {
            tracing::warn!(why, "a call is not recorded");
        }
        self.hall.tell(call, TapeEvent::Failed(why.to_owned()));
    }
}

/// What a warning is about: each has its own minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// Too many at once.
    Many,
    /// A call's id that is none.
    Name,
    /// The coders or the keys can't be had.
    Coder,
    /// Not enough room.
    Room,
    /// The file can't be made.
    Create,
    /// The file can't be written.
    Write,
    /// The disk is too slow.
    Slow,
    /// The file can't be finished.
    Finish,
    /// The file can't be read again.
    Read,
    /// The file can't be deleted.
    Delete,
    /// The ledger does not answer.
    Ledger,
    /// The clock can't be believed.
    Clock,
}

/// Who hears what becomes of a recording.
#[derive(Clone)]
struct Hall(mpsc::Sender<Input>);

impl Hall {
    /// Never waits: the hall has room for thousands, and at the end nobody is there.
    fn tell(&self, call: CallKey, event: TapeEvent) {
        if self.0.try_send(Input::Tape { call, event }).is_err() {
            tracing::debug!("the hall does not hear what became of a recording");
        }
    }
}

type Work = Box<dyn FnOnce(&mut Ledger) + Send>;

/// The ledger, which has a thread of its own.
#[derive(Clone)]
struct Books(Arc<dyn Fn(Work) -> bool + Send + Sync>);

/// How long an answer of the ledger is waited for.
const ANSWER: Duration = Duration::from_secs(10);

impl Books {
    fn new(later: impl Fn(Work) -> bool + Send + Sync + 'static) -> Books {
        Books(Arc::new(later))
    }

    /// Has something written, by and by; false if too much waits already.
    fn later(&self, work: impl FnOnce(&mut Ledger) + Send + 'static) -> bool {
        (self.0)(Box::new(work))
    }

    /// Asks, and waits for the answer.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, String> {
        let (tell, told) = sync_channel(1);
        let asked = self.later(move |ledger| {
            let _ = tell.send(question(ledger));
        });
        if !asked {
            return Err("too much waits for the ledger".to_owned());
        }
        match told.recv_timeout(ANSWER) {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("the ledger does not answer".to_owned()),
        }
    }
}

/// A lock that a panic elsewhere does not take away from the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this may be a file's name: the ids of calls are ours, but none may ever leave the folder.
fn is_id(id: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    !id.is_empty() && id.len() <= 64 && id.bytes().all(plain)
}

/// A moment as the files' heads have it (RFC 3339).
fn stamp(wall: Wall) -> String {
    use time::OffsetDateTime;
    use time::macros::format_description;
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    OffsetDateTime::from_unix_timestamp(wall.unix_seconds())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(format)
        .unwrap_or_default()
}

/// Ticks of 20 ms as milliseconds.
fn millis(ticks: u64) -> u64 {
    ticks.saturating_mul(20)
}
