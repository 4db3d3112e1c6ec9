//! The words in which a recording describes itself, of bounded length.

use super::Facts;

/// The longest word from outside, in bytes.
pub(super) const LONGEST: usize = 120;
/// Which channel is who: the same words in every file.
pub(super) const CHANNELS: &str = "left: WhatsApp user, right: destination";
/// The program that wrote it. Without its version, whose length changes.
pub(super) const PROGRAM: &str = "watrunk";

/// At most `most` bytes of `text`, no control characters in it.
pub(super) fn cut(text: &str, most: usize) -> String {
    let mut kept = String::new();
    for char in text.chars() {
        if kept.len() + char.len_utf8() > most {
            break;
        }
        kept.push(if char.is_control() { ' ' } else { char });
    }
    kept
}

/// Milliseconds of so many ticks.
pub(super) fn millis(ticks: u64) -> u64 {
    ticks.saturating_mul(20)
}

/// Everything that is not the call's id, its time or its number, in one line of at most 200 bytes.
pub(super) fn remark(facts: &Facts<'_>) -> String {
    format!(
        "{CHANNELS}; outcome: {}; length: {} ms; paused: {} ms; lost: {} ms",
        facts.outcome.as_str(),
        millis(facts.ticks),
        millis(facts.paused_ticks),
        millis(facts.lost_ticks)
    )
}
