//! The result: for people, for programs, and for ears.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::call::{Direction, Moments, Outcome};
use super::measure::RATE;
use super::phone;
use crate::call::leg::Direction as Way;

/// To a tenth: more would be noise.
fn tenth(value: Option<f64>) -> Option<f64> {
    value.map(|value| (value * 10.0).round() / 10.0)
}

/// A time between two steps: its key, its words and its milliseconds.
type Time = (&'static str, &'static str, Option<f64>);

/// The times between the steps of the call.
fn times(outcome: &Outcome) -> Vec<Time> {
    let Outcome { way, agent, moments, .. } = outcome;
    let Moments { webhook, pre_accepted, connected, invited, ringing, answered, accepted, .. } = *moments;
    let Moments { asked, dialled, rang, picked_up, .. } = *moments;
    let time = |key, words, from, to| (key, words, Moments::between(from, to));
    match way {
        Way::Inbound if *agent => vec![
            time("setup_ms", "webhook to accept's 200", webhook, accepted),
            time("pre_accept_ms", "webhook to pre_accept's 200", webhook, pre_accepted),
            time("media_ready_ms", "pre_accept's 200 to ICE and DTLS up", pre_accepted, connected),
            time("session_ms", "webhook to the agent's start", webhook, answered),
            time("accept_ms", "the agent's start to accept's 200", answered, accepted),
        ],
        Way::Inbound => vec![
            time("setup_ms", "webhook to accept's 200", webhook, accepted),
            time("pre_accept_ms", "webhook to pre_accept's 200", webhook, pre_accepted),
            time("media_ready_ms", "pre_accept's 200 to ICE and DTLS up", pre_accepted, connected),
            time("invite_ms", "webhook to INVITE", webhook, invited),
            time("ringing_ms", "INVITE to 180", invited, ringing),
            time("accept_ms", "PBX's answer to accept's 200", answered, accepted),
        ],
        Way::Outbound => vec![
            time("setup_ms", "INVITE to the PBX's 200", invited, answered),
            time("permission_ms", "INVITE to call_permissions", invited, asked),
            time("connect_ms", "INVITE to connect's 200", invited, dialled),
            time("media_ready_ms", "webhook connect to ICE and DTLS up", webhook, connected),
            time("ringing_ms", "webhook RINGING to 180", rang, ringing),
            time("answer_ms", "webhook ACCEPTED to the PBX's 200", picked_up, answered),
        ],
    }
}

/// One JSON object.
pub(super) fn json(outcome: &Outcome) -> Value {
    let mut result = json!({
        "ok": outcome.ok(),
        "call": outcome.way.as_str(),
        "to_whatsapp": direction(&outcome.to_whatsapp),
        "digits": outcome.digits,
        "expected_digits": phone::DIGITS,
        "record": outcome.record.as_ref().map(crate::cli::record_object),
        "faults": outcome.faults,
    });
    let far = if outcome.agent { "to_agent" } else { "to_pbx" };
    result[far] = direction(&outcome.to_pbx);
    for (key, _, millis) in times(outcome) {
        result[key] = json!(tenth(millis));
    }
    result
}

fn direction(direction: &Direction) -> Value {
    let found = &direction.found;
    json!({
        "ok": direction.ok(),
        "frequency_hz": tenth(found.frequency_hz),
        "expected_hz": direction.expected_hz,
        "level_dbfs": tenth(found.level_dbfs),
        "expected_dbfs": direction.expected_dbfs,
        "delay_ms": tenth(found.delay_ms),
        "longest_gap_ms": found.longest_gap_ms,
        "bursts_said": found.said,
        "bursts_heard": found.heard,
        "packets": direction.packets,
        "lost": direction.lost,
    })
}

/// Some lines for people.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut text = String::from("\n");
    let millis = |value: Option<f64>| value.map_or("never".to_owned(), |value| format!("{value:.0} ms"));
    for (_, what, value) in times(outcome) {
        let _ = writeln!(text, "{what:<36} {:>9}", millis(value));
    }
    text.push('\n');
    let far = outcome.far_end();
    let ways = [format!("user to {far}"), format!("{far} to user")];
    for (name, direction) in ways.iter().zip([&outcome.to_pbx, &outcome.to_whatsapp]) {
        let found = &direction.found;
        let heard = match (found.frequency_hz, found.level_dbfs) {
            (Some(hz), Some(level)) => format!("{hz:7.1} Hz at {level:5.1} dBFS"),
            _ => "nothing heard".to_owned(),
        };
        let _ = writeln!(
            text,
            "{name}  {heard} (sent {} Hz at {} dBFS), delay {}, longest gap {}, {} of {} packets lost{}",
            direction.expected_hz,
            direction.expected_dbfs,
            millis(found.delay_ms),
            millis(found.longest_gap_ms),
            direction.lost,
            direction.packets + direction.lost,
            if direction.ok() { "" } else { "  <- wrong" },
        );
    }
    let _ = writeln!(text, "digits       {} (pressed {})", outcome.digits, phone::DIGITS);
    if let Some(record) = &outcome.record {
        let (from, to) = match outcome.way {
            Way::Inbound => (&record.from, &record.destination),
            Way::Outbound => (&record.destination, &record.to),
        };
        let _ = writeln!(
            text,
            "record       {} {from} -> {to}: {:.1} s, {} ({}), MOS {:.1} from WhatsApp",
            record.id, record.talk_seconds, record.why, record.detail, record.whatsapp.mos
        );
        match record.agent.as_deref() {
            Some(agent) => {
                let first =
                    agent.first_audio_ms.map_or("never".to_owned(), |at| format!("{at} ms after the answer"));
                let _ =
                    writeln!(text, "agent        {} ({}), first sound {first}", agent.name, agent.dialect);
            }
            None => {
                let _ = writeln!(text, "             MOS {:.1} from the PBX", record.far.mos);
            }
        }
    }
    for fault in &outcome.faults {
        let _ = writeln!(text, "fault        {fault}");
    }
    let verdict = if outcome.ok() { "ok: sound arrived both ways" } else { "FAILED" };
    let _ = writeln!(text, "\n{verdict}");
    text
}

/// Both directions as one stereo file from the beginning of the call: left the user's ear, right the PBX's.
///
/// # Errors
/// When it can't be written.
pub(super) fn write_wav(path: &Path, outcome: &Outcome) -> Result<(), hound::Error> {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let (left, right) = (&outcome.to_whatsapp.pcm, &outcome.to_pbx.pcm);
    let mut file = hound::WavWriter::create(path, spec)?;
    for at in 0..left.len().max(right.len()) {
        for ear in [left, right] {
            file.write_sample(ear.get(at).copied().unwrap_or(0))?;
        }
    }
    file.finalize()
}
