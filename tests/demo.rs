//! `watrunk demo`: the real binary makes a whole call on loopback, and says what it measured.
#![cfg(all(feature = "demo", not(target_env = "musl")))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A file that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What the demo measures is time: one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// A machine that is later than this leaves a gap in the sound that is nobody's fault: the listeners buffer 60 ms.
const LATE: Duration = Duration::from_millis(30);
const TIMES: usize = 3;

/// Does something, and says how much longer than asked a thread slept meanwhile that sleeps 5 ms at a time, one for each
/// core: what these were kept waiting, the demo may have been too.
fn watched<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    const NAP: Duration = Duration::from_millis(5);
    let over = AtomicBool::new(false);
    let nap = || {
        let mut worst = Duration::ZERO;
        while !over.load(Ordering::Relaxed) {
            let begin = Instant::now();
            thread::sleep(NAP);
            worst = worst.max(begin.elapsed().saturating_sub(NAP));
        }
        worst
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let watchers: Vec<_> = (0..cores).map(|_| scope.spawn(nap)).collect();
        let done = work();
        over.store(true, Ordering::Relaxed);
        let late = watchers.into_iter().map(|watcher| watcher.join().unwrap()).max().unwrap_or_default();
        (done, late)
    })
}

/// Runs the demo and judges its result and the sound it kept. What fails while the machine was late proves nothing and is
/// done again, at most twice; what fails while it was on time has failed.
fn demo(options: &[&str], judge: impl Fn(&Value, &[u8])) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for attempt in 1..=TIMES {
        let ((result, status, stderr, wav), late) = watched(|| run(options));
        let judged = catch_unwind(AssertUnwindSafe(|| {
            assert_eq!(result["faults"], serde_json::json!([]), "{result:#}");
            assert_eq!((&result["ok"], status), (&Value::Bool(true), Some(0)), "{result:#}\n{stderr}");
            judge(&result, &wav);
        }));
        match judged {
            Ok(()) => return,
            Err(why) if attempt == TIMES || late <= LATE => resume_unwind(why),
            Err(_) => eprintln!("run {attempt} says nothing: the machine was {} ms late", late.as_millis()),
        }
    }
}

/// The demo's result, its exit code, what it complained of, and the bytes of the file with the sound.
fn run(options: &[&str]) -> (Value, Option<i32>, String, Vec<u8>) {
    let name = format!("watrunk-demo-{}{}.wav", std::process::id(), options.concat());
    let wav = Scratch(std::env::temp_dir().join(name));
    let output = Command::new(env!("CARGO_BIN_EXE_watrunk"))
        .arg("demo")
        .args(options)
        .args(["--json", "--record"])
        .arg(&wav.0)
        .env_remove("WATRUNK_LOG")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let result: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| {
        panic!("stdout is one JSON object and nothing else: {error}\n{stdout}\n{stderr}")
    });
    (result, output.status.code(), stderr, std::fs::read(&wav.0).unwrap_or_default())
}

fn number(result: &Value, pointer: &str) -> f64 {
    result.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {result:#}"))
}

/// Sound both ways, the digits, the record and the file: the same in every call.
fn assert_talked(result: &Value, wav: &[u8]) {
    for direction in ["to_pbx", "to_whatsapp"] {
        let of = |key: &str| number(result, &format!("/{direction}/{key}"));
        assert!((of("frequency_hz") / of("expected_hz") - 1.0).abs() < 0.01, "{result:#}");
        assert!((of("level_dbfs") - of("expected_dbfs")).abs() < 6.0, "{result:#}");
        assert!(of("longest_gap_ms") < 60.0, "{result:#}");
        assert!((0.0..300.0).contains(&of("delay_ms")), "{result:#}");
        assert!(of("packets") > 150.0, "{result:#}");
    }
    let (to_pbx, to_whatsapp) =
        (number(result, "/to_pbx/expected_hz"), number(result, "/to_whatsapp/expected_hz"));
    assert!(to_pbx != to_whatsapp, "no one heard themselves");
    assert_eq!(result["digits"], "42#");
    assert_eq!(result["record"]["why"], "far_hung_up", "{result:#}");
    assert_eq!(result["record"]["answered"], true, "{result:#}");
    assert!((3.0..8.0).contains(&number(result, "/record/talk_seconds")), "{result:#}");
    assert_eq!((&wav[..4], &wav[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
    assert!(wav.len() > 8_000 * 4 * 3, "some seconds of two channels: {} bytes", wav.len());
}

#[test]
fn a_call_between_a_whatsapp_user_and_a_pbx_carries_sound_both_ways_and_is_recorded_in_the_history() {
    demo(&[], |result, wav| {
        assert_talked(result, wav);
        let setup = number(result, "/setup_ms");
        assert!((900.0..5_000.0).contains(&setup), "the PBX rings for a second: {result:#}");
        assert_eq!(result["record"]["direction"], "inbound", "{result:#}");
    });
}

#[test]
fn a_pbx_calls_a_whatsapp_user_who_hears_nothing_before_picking_up_and_then_both_talk() {
    // That what came to the user while it rang was an open line is among the faults.
    demo(&["--outbound"], |result, wav| {
        assert_talked(result, wav);
        assert!((900.0..5_000.0).contains(&number(result, "/setup_ms")), "it rings for a second: {result:#}");
        for step in ["/permission_ms", "/connect_ms", "/media_ready_ms", "/ringing_ms", "/answer_ms"] {
            assert!((0.0..2_000.0).contains(&number(result, step)), "{result:#}");
        }
        let record = &result["record"];
        assert_eq!(record["direction"], "outbound", "{result:#}");
        assert_eq!(
            (&record["from"], &record["to"]),
            (&"+15550100100".into(), &"+15557654321".into()),
            "{result:#}"
        );
    });
}

#[test]
fn a_whatsapp_user_and_a_voice_agent_hear_each_other_over_a_websocket() {
    demo(&["--agent"], |result, wav| {
        for direction in ["to_agent", "to_whatsapp"] {
            let of = |key: &str| number(result, &format!("/{direction}/{key}"));
            assert!((of("frequency_hz") / of("expected_hz") - 1.0).abs() < 0.01, "{result:#}");
            assert!(of("longest_gap_ms") < 60.0, "{result:#}");
            assert!((0.0..300.0).contains(&of("delay_ms")), "{result:#}");
            assert!(of("packets") > 150.0, "{result:#}");
        }
        assert_eq!(result["digits"], "42#");
        let record = &result["record"];
        assert_eq!(
            (&record["why"], &record["answered"]),
            (&"far_hung_up".into(), &true.into()),
            "{result:#}"
        );
        assert_eq!(record["agent"]["dialect"], "twilio", "{result:#}");
        assert!((0.0..2_000.0).contains(&number(result, "/record/agent/first_audio_ms")), "{result:#}");
        assert!((0.0..3_000.0).contains(&number(result, "/session_ms")), "{result:#}");
        assert!(wav.len() > 8_000 * 4 * 3, "some seconds of two channels: {} bytes", wav.len());
    });
}
