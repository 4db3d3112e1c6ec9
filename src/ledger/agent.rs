//! A voice agent's part in a call as two columns, and back: the figures, and what was said.

use rusqlite::types::Value as Column;
use serde_json::{Value, json};

use crate::call::record::{AgentPart, Line, Noted, Speaker};

/// The columns `agent` and `agent_said`.
pub(super) fn values(part: Option<&AgentPart>) -> [Column; 2] {
    let Some(part) = part else { return [Column::Null, Column::Null] };
    let AgentPart {
        name,
        dialect,
        attempts,
        first_audio_ms,
        barge_ins,
        unread,
        unreadable,
        failure,
        transcript,
        events,
    } = part;
    let figures = json!({
        "name": name,
        "dialect": dialect,
        "attempts": attempts,
        "first_audio_ms": first_audio_ms,
        "barge_ins": barge_ins,
        "unread": unread,
        "unreadable": unreadable,
        "failure": failure,
    });
    if transcript.is_empty() && events.is_empty() {
        return [Column::Text(figures.to_string()), Column::Null];
    }
    let lines: Vec<_> = transcript.iter().map(|line| (line.at_ms, line.who.as_str(), &line.text)).collect();
    let noted: Vec<_> = events.iter().map(|noted| (noted.at_ms, &noted.name, &noted.detail)).collect();
    let said = json!({ "transcript": lines, "events": noted });
    [Column::Text(figures.to_string()), Column::Text(said.to_string())]
}

/// The part that these columns hold; what can't be read in them is left out.
pub(super) fn part(figures: Option<String>, said: Option<String>) -> Option<Box<AgentPart>> {
    let figures: Value = serde_json::from_str(&figures?).ok()?;
    let said: Value = said.and_then(|said| serde_json::from_str(&said).ok()).unwrap_or_default();
    let text = |name: &str| figures[name].as_str().map(str::to_owned);
    let count = |name: &str| figures[name].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let rows = |name: &str| said[name].as_array().cloned().unwrap_or_default();
    Some(Box::new(AgentPart {
        name: text("name").unwrap_or_default(),
        dialect: text("dialect").unwrap_or_default(),
        attempts: count("attempts"),
        first_audio_ms: figures["first_audio_ms"].as_u64(),
        barge_ins: count("barge_ins"),
        unread: count("unread"),
        unreadable: count("unreadable"),
        failure: text("failure"),
        transcript: rows("transcript").iter().filter_map(line).collect(),
        events: rows("events").iter().filter_map(noted).collect(),
    }))
}

fn line(row: &Value) -> Option<Line> {
    let who = match row[1].as_str()? {
        "agent" => Speaker::Agent,
        "user" => Speaker::User,
        _ => return None,
    };
    Some(Line { at_ms: row[0].as_u64()?, who, text: row[2].as_str()?.to_owned() })
}

fn noted(row: &Value) -> Option<Noted> {
    Some(Noted {
        at_ms: row[0].as_u64()?,
        name: row[1].as_str()?.to_owned(),
        detail: row[2].as_str()?.to_owned(),
    })
}
