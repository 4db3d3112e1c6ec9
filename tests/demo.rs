//! `watrunk demo`: the real binary makes a whole call on loopback, and says what it measured.
#![cfg(all(feature = "demo", not(target_env = "musl")))]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// A file that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_call_between_a_whatsapp_user_and_a_pbx_carries_sound_both_ways_and_is_recorded_in_the_history() {
    let wav = Scratch(std::env::temp_dir().join(format!("watrunk-demo-{}.wav", std::process::id())));
    let output = Command::new(env!("CARGO_BIN_EXE_watrunk"))
        .args(["demo", "--json", "--record"])
        .arg(&wav.0)
        .env_remove("WATRUNK_LOG")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| {
        panic!("stdout is one JSON object and nothing else: {error}\n{stdout}\n{stderr}")
    });
    let number = |pointer: &str| {
        result.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {result:#}"))
    };

    assert_eq!(result["faults"], serde_json::json!([]), "{result:#}");
    assert_eq!((&result["ok"], output.status.code()), (&Value::Bool(true), Some(0)), "{result:#}\n{stderr}");
    for direction in ["to_pbx", "to_whatsapp"] {
        let of = |key: &str| number(&format!("/{direction}/{key}"));
        assert!((of("frequency_hz") / of("expected_hz") - 1.0).abs() < 0.01, "{result:#}");
        assert!((of("level_dbfs") - of("expected_dbfs")).abs() < 6.0, "{result:#}");
        assert!(of("longest_gap_ms") < 60.0, "{result:#}");
        assert!((0.0..300.0).contains(&of("delay_ms")), "{result:#}");
        assert!(of("packets") > 150.0, "{result:#}");
    }
    assert!(number("/to_pbx/expected_hz") != number("/to_whatsapp/expected_hz"), "no one heard themselves");
    assert_eq!(result["digits"], "42#");
    assert!((900.0..5_000.0).contains(&number("/setup_ms")), "the PBX rings for a second: {result:#}");
    assert_eq!(result["record"]["why"], "far_hung_up", "{result:#}");
    assert_eq!(result["record"]["answered"], true, "{result:#}");
    assert!((3.0..8.0).contains(&number("/record/talk_seconds")), "{result:#}");

    let bytes = std::fs::read(&wav.0).unwrap();
    assert_eq!((&bytes[..4], &bytes[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
    assert!(bytes.len() > 8_000 * 4 * 3, "some seconds of two channels: {} bytes", bytes.len());
}
