//! The host: priorities, memory, the watchdog, the LED. Whatever it does not permit is said once and done without.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::Pid;
use tokio::time::Instant;

/// Real-time priority of the sound threads: above everything ordinary, below the kernel's own threads (50).
const SOUND_PRIORITY: i32 = 20;

/// Puts the calling thread on one core and ahead of ordinary work (SCHED_FIFO), where the host permits.
pub fn prefer_this_thread(core: usize) {
    let mut cores = CpuSet::new();
    let pinned = cores.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
    if let Err(error) = pinned {
        static SAID: Once = Once::new();
        SAID.call_once(|| tracing::info!(%error, "sound threads are not pinned to cores"));
    }
    if let Err(error) = real_time(SOUND_PRIORITY) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::info!(%error, "sound threads have no real-time priority (LimitRTPRIO or CAP_SYS_NICE)");
        });
    }
}

/// SCHED_FIFO for the calling thread; its children start ordinary again.
#[allow(unsafe_code)]
fn real_time(priority: i32) -> std::io::Result<()> {
    // The kernel's sched_param is this one integer; musl's and glibc's structs differ in what follows it.
    let wanted: libc::c_int = priority;
    // SAFETY: the call reads one integer that lives until it returns, and concerns this thread only.
    // nix has no binding for it, and musl's own wrapper always fails: hence the system call itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            std::ptr::from_ref(&wanted),
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Puts the calling thread behind ordinary work: `nice` from 1 to 19. Its reading and writing of disks goes behind, too.
#[allow(unsafe_code)]
pub fn defer_this_thread(nice: i32) {
    let (this, nice): (libc::c_int, libc::c_int) = (0, nice);
    // SAFETY: the call takes three integers. On Linux, 0 is the calling thread alone, which POSIX does not promise
    // and nix has no binding for; the type of the first differs between musl and glibc, hence the system call itself.
    let result = unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, this, nice) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "a thread keeps its ordinary priority");
    }
}

/// Keeps the whole process in memory, so that sound never waits for a page: only if there is no limit to
/// it, because a limit that is met later would be an allocation that fails.
pub fn lock_memory() {
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    if !unlimited {
        tracing::info!("memory is not locked (LimitMEMLOCK=infinity permits it)");
        return;
    }
    // Pages are locked as they are touched: stacks and arenas that nobody uses cost nothing.
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault();
    if let Err(error) = mlockall(flags) {
        tracing::info!(%error, "memory is not locked");
    }
}

/// MCL_ONFAULT (Linux 4.4), which nix does not name.
fn on_fault() -> MlockAllFlags {
    const MCL_ONFAULT: libc::c_int = 4;
    MlockAllFlags::from_bits_retain(MCL_ONFAULT)
}

/// One thread's sign of life.
pub type Beat = Arc<AtomicU64>;

/// How often a thread gives one.
pub const BEAT: Duration = Duration::from_millis(500);

/// Counts up for as long as the calling thread's runtime turns.
pub async fn beat(beat: Beat) {
    let mut ticker = tokio::time::interval(BEAT);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        beat.fetch_add(1, Ordering::Relaxed);
    }
}

/// systemd's watchdog: fed only while every sound thread turns, by the signalling loop, which must turn for it.
pub struct Watchdog {
    period: Duration,
    next: Instant,
    beats: Vec<(Beat, u64)>,
}

impl Watchdog {
    /// The watchdog that systemd wants fed, if it wants that.
    pub fn asked_for(beats: &[Beat]) -> Option<Watchdog> {
        let mut micros = 0;
        if !sd_notify::watchdog_enabled(false, &mut micros) || micros == 0 {
            return None;
        }
        // Three feeds a period: one may be late without anybody being shot.
        let period = (Duration::from_micros(micros) / 3).max(BEAT * 2);
        Some(Watchdog {
            period,
            next: Instant::now() + period,
            beats: beats.iter().map(|beat| (Arc::clone(beat), 0)).collect(),
        })
    }

    /// Waits until the next feed is due.
    pub async fn due(watchdog: Option<&Watchdog>) {
        match watchdog {
            Some(watchdog) => tokio::time::sleep_until(watchdog.next).await,
            None => std::future::pending().await,
        }
    }

    /// Feeds it if every sound thread has turned since the last time.
    pub fn feed(&mut self) {
        self.next = Instant::now() + self.period;
        if self.all_turn() {
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
        } else {
            tracing::error!("a sound thread stands still: the watchdog is not fed");
        }
    }

    fn all_turn(&mut self) -> bool {
        let mut all = true;
        for (beat, last) in &mut self.beats {
            let now = beat.load(Ordering::Relaxed);
            all &= now != *last;
            *last = now;
        }
        all
    }
}

/// Where the kernel lists its LEDs.
const LEDS: &str = "/sys/class/leds";

/// How long a blinking LED is on, and then off.
const BLINK: Duration = Duration::from_secs(1);

/// The board's status LED: off while nothing runs, blinking slowly until calls can be taken, then on.
///
/// This process blinks it, not a trigger of the kernel's: an LED that blinks shows that the loop turns.
pub struct Led {
    brightness: PathBuf,
    full: String,
    /// The last thing that was asked for; nothing yet.
    ready: Option<bool>,
    lit: bool,
    /// When it changes by itself; `None`: it stays as it is.
    next: Option<Instant>,
}

impl Led {
    /// Takes the LED of this name in `/sys/class/leds`. `None`, after one line, if the board has none of that
    /// name or does not let us have it.
    pub fn open(name: Option<&str>) -> Option<Led> {
        Led::below(Path::new(LEDS), name?)
    }

    fn below(leds: &Path, name: &str) -> Option<Led> {
        let folder = leds.join(name);
        let full = std::fs::read_to_string(folder.join("max_brightness"))
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .map_or_else(|| "1".to_owned(), |most| most.to_string());
        let mut led = Led { brightness: folder.join("brightness"), full, ready: None, lit: true, next: None };
        // Darkness also takes the LED away from whatever trigger of the kernel's drives it.
        led.light(false).then_some(led)
    }

    /// Shows whether calls can be taken. Cheap when nothing changed.
    pub fn show(&mut self, ready: bool) {
        if self.ready == Some(ready) {
            return;
        }
        self.ready = Some(ready);
        if self.light(true) {
            self.next = (!ready).then(|| Instant::now() + BLINK);
        }
    }

    /// Waits until a blinking LED is to change; for ever if it does not blink.
    pub async fn due(led: Option<&Led>) {
        match led.and_then(|led| led.next) {
            Some(next) => tokio::time::sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// The other half of a blink.
    pub fn blink(&mut self) {
        let Some(next) = self.next else { return };
        if self.light(!self.lit) {
            // A loop that was late does not catch up.
            self.next = Some(Instant::now().max(next) + BLINK);
        }
    }

    /// False if the board refused: then it is said, and never tried again by itself.
    fn light(&mut self, lit: bool) -> bool {
        let value = if lit { self.full.as_str() } else { "0" };
        let written = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&self.brightness)
            .and_then(|mut file| file.write_all(value.as_bytes()));
        if let Err(error) = written {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                let led = self.brightness.display();
                tracing::info!(%error, %led, "the LED is not driven (`board-setup overlay` permits it)");
            });
            self.next = None;
            return false;
        }
        self.lit = lit;
        true
    }
}

impl Drop for Led {
    /// Nothing runs any more.
    fn drop(&mut self) {
        if self.lit {
            self.light(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A board with one LED, as the kernel shows it.
    struct Board(PathBuf);

    impl Board {
        fn with_led(name: &str) -> Board {
            let root = std::env::temp_dir().join(format!("watrunk-led-{}-{name}", std::process::id()));
            std::fs::create_dir_all(root.join(name)).unwrap();
            std::fs::write(root.join(name).join("max_brightness"), "255\n").unwrap();
            std::fs::write(root.join(name).join("brightness"), "17\n").unwrap();
            Board(root)
        }

        fn brightness(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.join(name).join("brightness")).unwrap()
        }
    }

    impl Drop for Board {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_led_blinks_until_calls_can_be_taken_and_is_dark_when_nothing_runs() {
        let board = Board::with_led("ACT");
        let mut led = Led::below(&board.0, "ACT").unwrap();
        assert_eq!(board.brightness("ACT"), "0", "taken, nothing to show yet");
        led.show(false);
        assert_eq!(board.brightness("ACT"), "255");
        assert!(led.next.is_some());
        led.blink();
        assert_eq!(board.brightness("ACT"), "0");
        led.show(false);
        assert_eq!(board.brightness("ACT"), "0", "the same again does not disturb the blinking");
        led.show(true);
        assert_eq!((board.brightness("ACT").as_str(), led.next), ("255", None), "on, and it stays on");
        led.blink();
        assert_eq!(board.brightness("ACT"), "255");
        led.show(false);
        assert!(led.next.is_some(), "the trunk is gone");
        drop(led);
        assert_eq!(board.brightness("ACT"), "0");
    }

    #[test]
    fn a_board_without_that_led_is_no_reason_to_stop() {
        let board = Board::with_led("PWR");
        assert!(Led::below(&board.0, "ACT").is_none());
        assert!(!board.0.join("ACT").exists());
        assert!(Led::open(None).is_none());
    }

    #[test]
    fn an_led_that_is_taken_away_while_it_blinks_is_left_alone() {
        let board = Board::with_led("usr0");
        let mut led = Led::below(&board.0, "usr0").unwrap();
        led.show(false);
        std::fs::remove_dir_all(board.0.join("usr0")).unwrap();
        led.blink();
        assert_eq!(led.next, None);
        led.show(true);
        assert!(!board.0.join("usr0").exists());
    }

    #[test]
    fn the_watchdog_is_fed_only_while_every_sound_thread_turns() {
        let beats: Vec<Beat> = vec![Beat::default(), Beat::default()];
        let mut watchdog = Watchdog {
            period: BEAT,
            next: Instant::now(),
            beats: beats.iter().map(|beat| (Arc::clone(beat), 0)).collect(),
        };
        assert!(!watchdog.all_turn(), "nobody has turned yet");
        for beat in &beats {
            beat.fetch_add(1, Ordering::Relaxed);
        }
        assert!(watchdog.all_turn());
        beats[0].fetch_add(1, Ordering::Relaxed);
        assert!(!watchdog.all_turn(), "one stands still");
    }

    #[test]
    fn a_host_that_permits_nothing_is_no_reason_to_stop() {
        std::thread::spawn(|| prefer_this_thread(100_000)).join().unwrap();
    }
}
