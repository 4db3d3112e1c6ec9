//! The recorder against disks that are slow, full, cut off or gone: its threads take turns under a virtual clock.

mod ages;
mod calls;
mod disks;
mod mending;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::drain::Drain;
use super::keep::Keeper;
use super::store::{Found, Sheet, Store};
use super::write::{Opening, Writer};
use super::{Begin, Books, Hall, RecorderSettings, Shared};
use crate::call::recording::{Finished, Outcome};
use crate::clock::{Now, Tick, Wall};
use crate::gateway::{CallKey, Input, TapeEvent};
use crate::ledger::{Ledger, TapeRow, TapeState, UploadState};
use crate::media::tap::{Said, Slice, WAITING};
use crate::media::tape::{Form, Kind};

/// 2026-11-23.
pub const TODAY: Wall = Wall(1_795_392_000_000);
pub const DAY: i64 = 86_400_000;

pub const PCM: Form = Form { kind: Kind::WavPcm, rate: 8_000, bitrate: 0 };
pub const ALAW: Form = Form { kind: Kind::WavAlaw, rate: 8_000, bitrate: 0 };
pub const OGG: Form = Form { kind: Kind::Ogg, rate: 16_000, bitrate: 16_000 };

/// Made for these tests.
pub const PUBLIC_KEY: &str = "age19967g3lpyspvd50c2ghtwfzpjt8amj2p64ar2ttnukxuagfuhejswvazcz";
pub const PRIVATE_KEY: &str = "AGE-SECRET-KEY-10ZRYA452MD2C0SUVGMZSJZRV3N57MRW04SE7EJ4S3G2FUQ8NRWEQAHU6Y7";

/// A recording that is kept.
pub fn row(call: &str) -> TapeRow {
    TapeRow {
        number: "shop".to_owned(),
        account: "acme".to_owned(),
        state: TapeState::Kept,
        finished: Finished { outcome: Outcome::Complete, bytes: 1_000, ..Finished::default() },
        ..TapeRow::begun(call, format!("{call}.wav"), "wav-pcm-8000".to_owned(), TODAY)
    }
}

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A memory card.
#[derive(Default)]
pub struct Card {
    files: Mutex<BTreeMap<String, (Bytes, Wall)>>,
    /// Bytes that it holds; 0: any number.
    size: AtomicU64,
    /// Every access fails.
    dead: AtomicBool,
    /// Syncs that were asked for.
    syncs: AtomicUsize,
}

impl Card {
    fn alive(&self) -> io::Result<()> {
        match self.dead.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.files.lock().unwrap().values().map(|(bytes, _)| bytes.lock().unwrap().len() as u64).sum()
    }

    /// It is full from now on.
    pub fn fill(&self) {
        self.size.store(self.used().max(1), Ordering::Relaxed);
    }

    /// There is room again.
    pub fn empty(&self) {
        self.size.store(0, Ordering::Relaxed);
    }

    pub fn die(&self, dead: bool) {
        self.dead.store(dead, Ordering::Relaxed);
    }

    pub fn names(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.files
            .lock()
            .unwrap()
            .get(name)
            .map(|(bytes, _)| bytes.lock().unwrap().clone())
            .unwrap_or_default()
    }

    pub fn put(&self, name: &str, bytes: &[u8], changed: Wall) {
        self.files.lock().unwrap().insert(name.to_owned(), (Arc::new(Mutex::new(bytes.to_vec())), changed));
    }

    pub fn lose(&self, name: &str) {
        self.files.lock().unwrap().remove(name);
    }
}

/// A file on a card.
struct Page {
    card: Arc<Card>,
    bytes: Bytes,
}

pub struct Slot(pub Arc<Card>);

impl Store for Slot {
    fn create(&self, name: &str) -> io::Result<Box<dyn Sheet>> {
        self.0.alive()?;
        let mut files = self.0.files.lock().unwrap();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Bytes::default();
        files.insert(name.to_owned(), (Arc::clone(&bytes), TODAY));
        Ok(Box::new(Page { card: Arc::clone(&self.0), bytes }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Sheet>> {
        self.0.alive()?;
        let files = self.0.files.lock().unwrap();
        let (bytes, _) = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Page { card: Arc::clone(&self.0), bytes: Arc::clone(bytes) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.alive()?;
        let mut files = self.0.files.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.alive()?;
        self.0.files.lock().unwrap().remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<Found>> {
        self.0.alive()?;
        let files = self.0.files.lock().unwrap();
        Ok(files.iter().map(|(name, (_, changed))| Found { name: name.clone(), changed: *changed }).collect())
    }

    fn free(&self) -> io::Result<u64> {
        self.0.alive()?;
        match self.0.size.load(Ordering::Relaxed) {
            0 => Ok(1 << 40),
            size => Ok(size.saturating_sub(self.0.used())),
        }
    }
}

impl Sheet for Page {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.card.alive()?;
        let bytes = self.bytes.lock().unwrap();
        let left = bytes.get(at as usize..).unwrap_or_default();
        let read = left.len().min(into.len());
        into[..read].copy_from_slice(&left[..read]);
        Ok(read)
    }

    fn write_at(&self, new: &[u8], at: u64) -> io::Result<()> {
        self.card.alive()?;
        let used = self.card.used();
        let size = self.card.size.load(Ordering::Relaxed);
        let mut bytes = self.bytes.lock().unwrap();
        let end = at as usize + new.len();
        let more = end.saturating_sub(bytes.len());
        // As a file system does: what fits is written, then it is full.
        let fits = if size == 0 { more } else { more.min(size.saturating_sub(used) as usize) };
        let length = bytes.len() + fits;
        bytes.resize(length, 0);
        for (offset, byte) in new.iter().enumerate() {
            if let Some(place) = bytes.get_mut(at as usize + offset) {
                *place = *byte;
            }
        }
        if fits < more { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.card.syncs.fetch_add(1, Ordering::Relaxed);
        self.card.alive()
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.card.alive()?;
        self.bytes.lock().unwrap().resize(bytes as usize, 0);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        self.card.alive()?;
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
}

/// A folder of this test alone.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new() -> Temp {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("watrunk-recorder-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A ledger that answers at once.
pub fn books(state_dir: &std::path::Path) -> (Books, Arc<Mutex<Ledger>>) {
    let ledger = Arc::new(Mutex::new(Ledger::open(state_dir, TODAY).unwrap()));
    let ours = Arc::clone(&ledger);
    let books = Books::new(move |work| {
        work(&mut ours.lock().unwrap());
        true
    });
    (books, ledger)
}

pub const SETTINGS: RecorderSettings =
    RecorderSettings { max_mib: 0, min_free_mib: 1, keep_days: 30, upload: false, numbers: BTreeMap::new() };

/// The three threads taking turns.
pub struct Story {
    pub now: Now,
    pub card: Arc<Card>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub uploads: Arc<Notify>,
    pub shared: Shared,
    drain: Drain,
    opened: Receiver<Opening>,
    writer: Writer,
    keeper: Keeper,
    hall: mpsc::Receiver<Input>,
    calls: Vec<Call>,
    /// The disk hangs: the thread that writes waits in the kernel.
    pub hangs: bool,
    /// Keys that recordings are encrypted for.
    pub encrypt_to: Vec<String>,
    _temp: Option<Temp>,
}

struct Call {
    slices: SyncSender<Slice>,
    at: u32,
}

impl Story {
    pub fn new() -> Story {
        let card = Arc::new(Card::default());
        let temp = Temp::new();
        let (books, ledger) = books(&temp.0);
        Story::with(Arc::new(Slot(Arc::clone(&card))), card, books, ledger, Some(temp))
    }

    /// The same disk and ledger after the process was killed.
    pub fn again(self) -> Story {
        let Story { card, ledger, now, _temp, .. } = self;
        let ours = Arc::clone(&ledger);
        let books = Books::new(move |work| {
            work(&mut ours.lock().unwrap());
            true
        });
        let mut story = Story::with(Arc::new(Slot(Arc::clone(&card))), card, books, ledger, _temp);
        story.now.wall = now.wall;
        story
    }

    pub fn with(
        store: Arc<dyn Store>,
        card: Arc<Card>,
        books: Books,
        ledger: Arc<Mutex<Ledger>>,
        temp: Option<Temp>,
    ) -> Story {
        let (to_hall, hall) = mpsc::channel(1_000);
        let uploads = Arc::new(Notify::new());
        let shared = Shared::new(SETTINGS, Hall(to_hall), books, Arc::clone(&uploads));
        let (openings, opened) = sync_channel(100);
        let (finished, kept) = sync_channel(100);
        Story {
            now: Now { tick: Tick::from_millis(1_000), wall: TODAY },
            card,
            ledger,
            uploads,
            drain: Drain::new(shared.clone(), openings),
            writer: Writer::new(shared.clone(), Arc::clone(&store), finished),
            keeper: Keeper::new(shared.clone(), store, kept),
            shared,
            opened,
            hall,
            calls: Vec::new(),
            hangs: false,
            encrypt_to: Vec::new(),
            _temp: temp,
        }
    }

    /// A call is recorded; its number.
    pub fn record(&mut self, id: &str, form: Form) -> usize {
        self.record_for(id, form, 30, false)
    }

    pub fn record_for(&mut self, id: &str, form: Form, keep_days: u32, upload: bool) -> usize {
        let (slices, taken) = sync_channel(WAITING);
        let begin = Begin {
            call: CallKey(self.calls.len() as u64),
            id: id.to_owned(),
            number: "shop".to_owned(),
            account: "acme".to_owned(),
            form,
            encrypt_to: self.encrypt_to.clone(),
            keep_days,
            upload,
            began: self.now.wall,
            slices: taken,
        };
        self.drain.begin(begin, self.now.tick);
        self.calls.push(Call { slices, at: 0 });
        self.calls.len() - 1
    }

    /// The call is over.
    pub fn hang_up(&mut self, call: usize) {
        let (slices, _) = sync_channel(1);
        self.calls[call].slices = slices;
    }

    /// Nobody listens to what the call says.
    pub fn is_refused(&self, call: usize) -> bool {
        use std::sync::mpsc::TrySendError;
        matches!(self.calls[call].slices.try_send(Slice::default()), Err(TrySendError::Disconnected(_)))
    }

    /// Everybody talks for so long: 440 Hz at the left, 1,000 Hz at the right.
    pub fn talk(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            for _ in 0..5 {
                for call in &mut self.calls {
                    let slice = Slice {
                        at: call.at,
                        user: Said::Linear(tone(440, call.at)),
                        far: Said::Linear(tone(1_000, call.at)),
                        ..Slice::default()
                    };
                    let _ = call.slices.try_send(slice);
                    call.at += 1;
                }
            }
            self.turn();
        }
    }

    /// Nobody says anything, and time passes.
    pub fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.now = self.now.after(Duration::from_millis(100));
        self.drain.turn(self.now.tick);
        if !self.hangs {
            while let Ok(opening) = self.opened.try_recv() {
                self.writer.begin(opening, self.now);
            }
            self.writer.turn(self.now);
        }
        while self.keeper.turn(self.now) {}
    }

    /// Hours pass in which nothing happens.
    pub fn sleep(&mut self, span: Duration) {
        for _ in 0..span.as_secs() / 300 {
            self.now = self.now.after(Duration::from_secs(300));
            while self.keeper.turn(self.now) {}
        }
    }

    /// The wall clock jumps.
    pub fn jump(&mut self, days: i64) {
        self.now.wall.0 += days * DAY;
    }

    /// What the hall has heard.
    pub fn heard(&mut self) -> Vec<(CallKey, TapeEvent)> {
        let mut heard = Vec::new();
        while let Ok(Input::Tape { call, event }) = self.hall.try_recv() {
            heard.push((call, event));
        }
        heard
    }

    /// The facts of the one recording that was finished.
    pub fn finished(&mut self) -> Finished {
        let mut all = self.heard().into_iter().filter_map(|(_, event)| match event {
            TapeEvent::Finished(finished) => Some(*finished),
            TapeEvent::Begun | TapeEvent::Failed(_) => None,
        });
        let finished = all.next().expect("nothing was finished");
        assert!(all.next().is_none(), "more than one");
        finished
    }

    /// Why a recording has failed to begin.
    pub fn failed(&mut self) -> String {
        let mut all = self.heard().into_iter().filter_map(|(_, event)| match event {
            TapeEvent::Failed(why) => Some(why),
            TapeEvent::Begun | TapeEvent::Finished(_) => None,
        });
        all.next().expect("nothing has failed")
    }

    pub fn row(&self, id: &str) -> TapeRow {
        self.ledger.lock().unwrap().tape(id).unwrap().expect("there is no row")
    }
}

/// 20 ms of a tone.
pub fn tone(hertz: u32, at: u32) -> heapless::Vec<i16, 480> {
    let sample = |n: u32| {
        let phase = f64::from(hertz) * f64::from(at * 160 + n) / 8_000.0;
        (8_000.0 * (phase * std::f64::consts::TAU).sin()) as i16
    };
    (0..160).map(sample).collect()
}

/// How strong a tone is in these samples, as an amplitude.
pub fn strength(samples: &[f64], hertz: f64, rate: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let phase = std::f64::consts::TAU * hertz * n as f64 / rate;
        re += sample * phase.cos();
        im += sample * phase.sin();
    }
    (re * re + im * im).sqrt() * 2.0 / samples.len() as f64
}

/// The samples of both sides of a WAV file.
pub fn sides(wav: &[u8]) -> (Vec<f64>, Vec<f64>) {
    let mut reader = hound::WavReader::new(std::io::Cursor::new(wav)).unwrap();
    let samples: Vec<f64> = reader.samples::<i16>().map(|sample| f64::from(sample.unwrap())).collect();
    let side = |first: usize| samples.iter().skip(first).step_by(2).copied().collect();
    (side(0), side(1))
}
