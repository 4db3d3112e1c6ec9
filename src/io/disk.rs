//! The disk's two threads: one writes the ledger, one reads it. Neither signalling nor sound ever waits for them.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::clock;
use super::live::Newsroom;
use super::random;
use crate::call::leg::Direction;
use crate::call::record::{Record, Running};
use crate::clock::Wall;
use crate::config::Config;
use crate::control::{self, Signer, Told, events};
use crate::gateway::{CallKey, Input};
use crate::ledger::Spooled;
use crate::ledger::cost::{Billing, Priced};
use crate::ledger::{Keep, Ledger, LedgerError, Permission, recorded};
use crate::whatsapp::notice::PermissionReply;

/// Jobs that may wait for a slow disk.
const WAITING: usize = 1_024;

/// Work of threads that don't wait, beyond those.
const BACKLOG: usize = 4_096;

/// Questions that may wait for their turn.
const QUESTIONS: usize = 64;

/// Tries and pauses of one record: a disk that is busy for longer than this has lost it.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

type Work = Box<dyn FnOnce(&mut Ledger) + Send>;
/// `None`: no more of them.
type Question = Option<Box<dyn FnOnce(&Ledger) + Send>>;

enum Job {
    Note {
        running: Box<Running>,
        received: bool,
    },
    Record {
        call: CallKey,
        record: Box<Record>,
    },
    Consent {
        number: String,
        reply: Box<PermissionReply>,
    },
    Work(Work),
    /// Everything before is written; nothing after will be.
    Close,
}

/// What [`Disk::later`] was given while the queue was full, in its order; `None`: the thread has ended.
type Backlog = Arc<Mutex<Option<VecDeque<Work>>>>;

/// The handle to both threads: cheap to clone.
#[derive(Clone)]
pub struct Disk {
    jobs: SyncSender<Job>,
    backlog: Backlog,
    questions: SyncSender<Question>,
    to_gateway: mpsc::Sender<Input>,
}

/// The threads themselves, to be waited for.
pub struct Threads {
    disk: Disk,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Threads {
    /// Waits until everything is written and the history is closed: it is in its one file then. Handles that are still
    /// held by somebody, a client that has not hung up, have nobody to talk to from then on.
    pub fn close(self) {
        let _ = self.disk.jobs.send(Job::Close);
        let _ = self.disk.questions.send(None);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the disk panicked: this is a bug");
            }
        }
    }
}

impl Disk {
    /// Starts the threads.
    ///
    /// # Errors
    /// When one can't be started, or the history can't be read.
    pub fn start(
        writer: Ledger,
        reader: Ledger,
        news: Arc<Newsroom>,
        to_gateway: mpsc::Sender<Input>,
    ) -> Result<(Disk, Threads), String> {
        let said = |error: std::io::Error| format!("the disk's thread can't be started: {error}");
        let (jobs, waiting) = sync_channel(WAITING);
        let (questions, asked) = sync_channel::<Question>(QUESTIONS);
        let written = to_gateway.clone();
        let backlog: Backlog = Arc::new(Mutex::new(Some(VecDeque::new())));
        let rest = Arc::clone(&backlog);
        let write = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || write(writer, &waiting, &rest, &news, &written))
            .map_err(said)?;
        let read = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                while let Ok(Some(question)) = asked.recv() {
                    question(&reader);
                }
            })
            .map_err(said)?;
        let disk = Disk { jobs, backlog, questions, to_gateway };
        Ok((disk.clone(), Threads { disk, threads: vec![write, read] }))
    }

    /// Keeps what is known of a running call.
    pub fn note(&self, running: Box<Running>, received: bool) {
        self.send(Job::Note { running, received });
    }

    /// Keeps what a user has said about being called.
    pub fn consent(&self, number: String, reply: Box<PermissionReply>) {
        self.send(Job::Consent { number, reply });
    }

    fn send(&self, job: Job) {
        if let Err(error) = self.jobs.try_send(job) {
            tracing::warn!(%error, "not written down: the disk does not keep up");
        }
    }

    /// Writes a record; the gateway is told when it is on the disk or given up.
    pub fn record(&self, call: CallKey, record: Box<Record>) {
        if let Err(error) = self.jobs.try_send(Job::Record { call, record }) {
            tracing::warn!(%error, "a call's record is lost: the disk does not keep up");
            let _ = self.to_gateway.try_send(Input::Written { call });
        }
    }

    /// Has something written, and waits for it.
    ///
    /// # Errors
    /// What the ledger says; [`LedgerError::Disk`] if the queue is full.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (tell, told) = oneshot::channel();
        let job = Job::Work(Box::new(move |ledger| {
            let _ = tell.send(work(ledger));
        }));
        self.jobs.try_send(job).map_err(full)?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Has something written, and does not wait for it: for threads that can't, such as the recorder's. What is given
    /// by one thread is done in that order, also when the disk does not keep up for a while. False if it will not be
    /// done: far too much waits, or the disk's thread has ended.
    pub fn later(&self, work: impl FnOnce(&mut Ledger) + Send + 'static) -> bool {
        let mut guard = locked(&self.backlog);
        let Some(backlog) = guard.as_mut() else { return false };
        let work: Work = Box::new(work);
        let work = if backlog.is_empty() {
            match self.jobs.try_send(Job::Work(work)) {
                Ok(()) => return true,
                Err(TrySendError::Full(Job::Work(work))) => work,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
            }
        } else {
            work
        };
        // The lock is held since the queue was found full, and the thread looks here after each of its jobs: it will
        // look again.
        if backlog.len() >= BACKLOG {
            return false;
        }
        backlog.push_back(work);
        true
    }

    /// Has something read, and waits for it.
    ///
    /// # Errors
    /// What the ledger says; [`LedgerError::Disk`] if the queue is full.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (tell, told) = oneshot::channel();
        let question: Question = Some(Box::new(move |ledger| {
            let _ = tell.send(work(ledger));
        }));
        self.questions.try_send(question).map_err(full)?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn full<T>(error: TrySendError<T>) -> LedgerError {
    match error {
        TrySendError::Full(_) => LedgerError::Disk("too much waits for it".to_owned()),
        TrySendError::Disconnected(_) => gone(),
    }
}

fn gone() -> LedgerError {
    LedgerError::Refused("the disk's thread is gone".to_owned())
}

/// A lock that is held for moves only, so nothing can have broken off under it.
fn locked(backlog: &Backlog) -> MutexGuard<'_, Option<VecDeque<Work>>> {
    backlog.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(
    mut ledger: Ledger,
    waiting: &Receiver<Job>,
    backlog: &Backlog,
    news: &Newsroom,
    written: &mpsc::Sender<Input>,
) {
    while let Ok(job) = waiting.recv() {
        let mut over = perform(&mut ledger, job, news, written);
        if !over && locked(backlog).as_ref().is_some_and(|backlog| !backlog.is_empty()) {
            // First what was in the queue before: while there is a backlog, no work goes past it into the queue.
            over = waiting.try_iter().take(WAITING).any(|job| perform(&mut ledger, job, news, written));
            for work in locked(backlog).replace(VecDeque::new()).into_iter().flatten() {
                work(&mut ledger);
            }
        }
        if over {
            for work in locked(backlog).take().into_iter().flatten() {
                work(&mut ledger);
            }
            return;
        }
    }
}

/// One job; true if it was the last.
fn perform(ledger: &mut Ledger, job: Job, news: &Newsroom, written: &mpsc::Sender<Input>) -> bool {
    // A recording that is finished after its call costs what recordings cost now.
    ledger.charge(news.config().recording.per_minute_usd);
    match job {
        Job::Close => return true,
        Job::Work(work) => work(ledger),
        Job::Note { running, received } => note(ledger, &running, received, news),
        Job::Consent { number, reply } => consent(ledger, &number, &reply, news),
        Job::Record { call, mut record } => {
            close(ledger, &mut record, news);
            if written.blocking_send(Input::Written { call }).is_err() {
                // The gateway has stopped: what is left is still written.
                tracing::debug!("nobody waits for a record any more");
            }
        }
    }
    false
}

fn note(ledger: &mut Ledger, running: &Running, received: bool, news: &Newsroom) {
    if let Err(error) = ledger.note(running) {
        tracing::warn!(call = %running.id, %error, "a running call can't be noted: a power cut would lose it");
    }
    let mut spooled = Vec::new();
    if received {
        let now = clock::now().wall;
        let event = events::received(random::uuid(), running, now);
        spooled.extend(news.spool(&event, &running.id, now));
        news.publish(&event);
    }
    news.publish_progress(running);
    spool(ledger, &spooled, news);
}

fn spool(ledger: &mut Ledger, spooled: &[Spooled], news: &Newsroom) {
    if spooled.is_empty() {
        return;
    }
    match ledger.spool(spooled) {
        Ok(()) => news.wake(),
        Err(error) => tracing::warn!(%error, "an event for webhooks is lost"),
    }
}

fn consent(ledger: &mut Ledger, number: &str, reply: &PermissionReply, news: &Newsroom) {
    let config = news.config();
    let Some(number) = config.number(number) else { return };
    let now = clock::now().wall;
    let seconds = |seconds: i64| Wall(seconds.saturating_mul(1_000));
    let permission = Permission {
        accepted: reply.accepted,
        permanent: reply.permanent,
        expires_at: reply.expires_at.map(seconds),
        source: reply.source.clone().unwrap_or_default(),
        updated_at: reply.timestamp.map_or(now, seconds),
    };
    let ids = [reply.user.phone.clone(), reply.user.bsuid.clone()];
    for user in ids.into_iter().flatten() {
        if let Err(error) = ledger.note_permission(&number.phone_number_id, &user, &permission) {
            tracing::warn!(%error, "a user's consent can't be written down");
        }
    }
    let event = events::permission(random::uuid(), reply, number, now);
    let spooled = news.spool(&event, "", now);
    news.publish(&event);
    spool(ledger, &spooled, news);
}

/// Closes a call: its price, its row and its event, at once or not at all.
fn close(ledger: &mut Ledger, record: &mut Record, news: &Newsroom) {
    let config = news.config();
    // The recording may have been finished before the record was made.
    match ledger.taped(record) {
        Ok(tape) => record.tape = tape,
        Err(error) => tracing::warn!(call = %record.id, %error, "what is known of a recording can't be read"),
    }
    let billing = price(ledger, record, &config);
    let now = clock::now().wall;
    let told = told(ledger, record, &config, now);
    let event = events::over(random::uuid(), record, &billing, &told, now);
    let spooled = news.spool(&event, &record.id, now);
    for left in (0..TRIES).rev() {
        match ledger.close(record, &billing, &spooled) {
            Ok(()) => break,
            Err(error) if left > 0 => {
                tracing::warn!(call = %record.id, %error, "a call's record can't be written, trying again");
                std::thread::sleep(PAUSE);
            }
            Err(error) => tracing::warn!(call = %record.id, %error, "a call's record is lost"),
        }
    }
    news.publish(&event);
    if !spooled.is_empty() {
        news.wake();
    }
}

/// What the end of a call tells of its recording.
fn told(ledger: &Ledger, record: &Record, config: &Config, now: Wall) -> Told {
    match ledger.tape(&record.id) {
        Ok(tape) => {
            let signer = Signer { key: random::link_key(), config, holder: "call.ended", now };
            Told::of(record, tape.as_ref(), &signer)
        }
        Err(error) => {
            tracing::warn!(call = %record.id, %error, "what is known of a recording can't be read");
            Told::default()
        }
    }
}

fn price(ledger: &Ledger, record: &Record, config: &Config) -> Billing {
    let month = ledger.month_to_date(&record.account, record.ended_at).unwrap_or_else(|error| {
        tracing::warn!(%error, "the minutes of this month can't be read: the first tier is taken");
        Default::default()
    });
    // Carrier minutes of an inbound call are those to its destination.
    let to = match record.direction {
        Direction::Outbound => record.to.as_str(),
        Direction::Inbound => record.destination.strip_prefix("tel:").unwrap_or_default(),
    };
    let billed = Duration::try_from_secs_f64(record.billed_seconds).unwrap_or_default();
    control::rates(config).price(&Priced {
        direction: record.direction,
        answered: record.connected_at.is_some(),
        billed,
        to,
        recorded: record.tape.as_ref().map_or(Duration::ZERO, |tape| recorded(&tape.file)),
        month_to_date_minutes: month,
    })
}

/// How often what is old is forgotten, and how many batches at a time.
const FORGETTING: Duration = Duration::from_secs(3_600);
const BATCHES: u32 = 200;

/// Forgets what is too old, an hour at a time, for as long as the process lives: a batch, then whoever waits, then
/// the next.
pub async fn forget(disk: Disk) {
    loop {
        tokio::time::sleep(FORGETTING).await;
        for _ in 0..BATCHES {
            let now = clock::now().wall;
            match disk.write(move |ledger| ledger.prune(now, Keep::default())).await {
                Ok(pruned) if pruned.more => tokio::time::sleep(Duration::from_millis(200)).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "what is old can't be forgotten");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::mpsc::channel;

    use super::*;
    use crate::call::record::PlacedBy;
    use crate::call::recording::{Finished, Outcome, RecordingPart};
    use crate::config::SystemSecrets;
    use crate::ledger::{TapeRow, TapeState};
    use rust_decimal::Decimal;

    /// A disk in a folder of its own, and how a recorded minute is priced there: two cents.
    struct Home(PathBuf);

    impl Home {
        fn new(name: &str) -> Home {
            let folder = std::env::temp_dir().join(format!("watrunk-disk-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&folder);
            Home(folder)
        }

        fn start(&self) -> (Disk, Threads, mpsc::Receiver<Input>) {
            let secrets = SystemSecrets::beside(Path::new("."));
            let (mut config, _) = Config::parse(crate::config::EXAMPLE, &secrets).unwrap();
            config.recording.per_minute_usd = Decimal::new(2, 2);
            let writer = Ledger::open(&self.0, Wall(0)).unwrap();
            let reader = Ledger::open_read_only(&self.0).unwrap();
            let (to_gateway, told) = mpsc::channel(4_096);
            let news = Arc::new(Newsroom::new(config));
            let (disk, threads) = Disk::start(writer, reader, news, to_gateway).unwrap();
            (disk, threads, told)
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Keeps the disk busy until what it returns is dropped.
    fn occupy(disk: &Disk) -> std::sync::mpsc::Sender<()> {
        let (go, wait) = channel::<()>();
        let (begin, begun) = channel();
        assert!(disk.later(move |_| {
            let _ = begin.send(());
            let _ = wait.recv();
        }));
        begun.recv().unwrap();
        go
    }

    #[test]
    fn what_nobody_waits_for_is_done_in_its_order_however_far_behind_the_disk_is() {
        let home = Home::new("order");
        let (disk, threads, _told) = home.start();
        let (note, noted) = channel();
        let busy = occupy(&disk);
        let all = WAITING + BACKLOG;
        for n in 0..all {
            let note = note.clone();
            assert!(disk.later(move |_| note.send(n).unwrap_or_default()), "{n}");
        }
        assert!(!disk.later(|_| ()), "there is an end to patience");
        drop(busy);
        // It keeps up again, and nothing overtakes what waited.
        for n in all..all + 10 {
            while !disk.later({
                let note = note.clone();
                move |_| note.send(n).unwrap_or_default()
            }) {
                std::thread::yield_now();
            }
        }
        let last = disk.clone();
        threads.close();
        drop(note);
        assert!(noted.into_iter().eq(0..all + 10));
        assert!(!last.later(|_| ()), "nobody is there any more");
    }

    fn ended(n: u32) -> Record {
        let running = Running {
            id: format!("call_{n:024x}"),
            wacid: String::new(),
            number: "support".to_owned(),
            account: "acme".to_owned(),
            phone_number_id: "106540352242922".to_owned(),
            direction: Direction::Inbound,
            from: "+15550100200".to_owned(),
            profile_name: None,
            user_id: None,
            to: "+15550100100".to_owned(),
            destination: "sip:200@pbx".to_owned(),
            offered_at: Wall(1_700_000_000_000 + i64::from(n)),
            ringing: false,
            answered_at: Some(Wall(1_700_000_004_000)),
            transferred_at: None,
            recording: true,
            placed_by: PlacedBy::User,
        };
        let file = Finished { outcome: Outcome::Running, ..Finished::default() };
        let tape = RecordingPart { prompt: "builtin:en".to_owned(), file, ..RecordingPart::default() };
        Record { tape: Some(Box::new(tape)), ..Record::interrupted(running, Wall(1_700_000_064_000)) }
    }

    fn begin(disk: &Disk, call: &Record) -> bool {
        let row = TapeRow {
            number: call.number.clone(),
            account: call.account.clone(),
            ..TapeRow::begun(&call.id, format!("{}.wav", call.id), "wav-pcm-8000".to_owned(), call.offered_at)
        };
        disk.later(move |ledger| ledger.tape_begun(&row).unwrap())
    }

    fn finish(disk: &Disk, call: &Record) -> bool {
        let id = call.id.clone();
        let facts = Finished { outcome: Outcome::Complete, millis: 45_000, ..Finished::default() };
        disk.later(move |ledger| {
            assert!(ledger.tape_finished(&id, &facts, TapeState::Kept, None, false, Wall(1)).unwrap());
        })
    }

    #[test]
    fn a_recording_is_on_the_bill_whether_its_end_is_written_before_the_calls_or_after() {
        let home = Home::new("bill");
        let (disk, threads, mut told) = home.start();
        let [early, late] = [ended(1), ended(2)];
        assert!(begin(&disk, &early) && begin(&disk, &late));
        assert!(finish(&disk, &early));
        disk.record(CallKey(1), Box::new(early.clone()));
        disk.record(CallKey(2), Box::new(late.clone()));
        assert!(finish(&disk, &late));
        threads.close();
        let written = |input| matches!(input, Input::Written { .. });
        assert!(told.blocking_recv().is_some_and(written) && told.blocking_recv().is_some_and(written));
        let ledger = Ledger::open_read_only(&home.0).unwrap();
        for record in [early, late] {
            let row = ledger.call(&record.id).unwrap().unwrap();
            let billing = row.billing.unwrap();
            assert_eq!((billing.recording_seconds, billing.recording_cost), (45, Decimal::new(15, 3)));
            let tape = row.end.unwrap().tape.unwrap();
            assert_eq!((tape.prompt.as_str(), tape.file.millis), ("builtin:en", 45_000));
        }
    }
}
