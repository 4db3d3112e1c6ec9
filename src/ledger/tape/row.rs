//! A recording as a row and its part in a call as a column, and back.

use rusqlite::Row;
use rusqlite::types::Value as Column;
use serde_json::{Value, json};

use super::{TapeRow, TapeState, UploadState};
use crate::call::recording::{Consent, Finished, Outcome, RecordingPart};
use crate::clock::Wall;

/// The columns of a recording in the order of [`values`] and [`row`].
pub(super) const COLUMNS: [&str; 25] = [
    "call",
    "number",
    "account",
    "file",
    "form",
    "encrypted",
    "began_at",
    "state",
    "outcome",
    "millis",
    "paused_millis",
    "lost_millis",
    "bytes",
    "sha256",
    "error",
    "expires_at",
    "upload",
    "upload_tries",
    "upload_next",
    "upload_error",
    "uploaded_at",
    "uploaded_to",
    "local",
    "deleted_at",
    "deleted_by",
];

pub(super) fn values(row: &TapeRow) -> Vec<Column> {
    let text = |text: &str| Column::Text(text.to_owned());
    let text_or_null = |value: &Option<String>| value.as_deref().map_or(Column::Null, text);
    let stamp = |at: Option<Wall>| at.map_or(Column::Null, |at| Column::Integer(at.0));
    let count = |value: u64| Column::Integer(signed(value));
    let Finished { outcome, millis, paused_millis, lost_millis, bytes, sha256, error } = &row.finished;
    vec![
        text(&row.call),
        text(&row.number),
        text(&row.account),
        text(&row.file),
        text(&row.form),
        Column::Integer(i64::from(row.encrypted)),
        Column::Integer(row.began_at.0),
        text(row.state.as_str()),
        text(outcome.as_str()),
        count(*millis),
        count(*paused_millis),
        count(*lost_millis),
        count(*bytes),
        text(sha256),
        text_or_null(error),
        stamp(row.expires_at),
        text(row.upload.as_str()),
        Column::Integer(i64::from(row.upload_tries)),
        stamp(row.upload_next),
        text_or_null(&row.upload_error),
        stamp(row.uploaded_at),
        text_or_null(&row.uploaded_to),
        Column::Integer(i64::from(row.local)),
        stamp(row.deleted_at),
        text_or_null(&row.deleted_by),
    ]
}

/// A row of [`COLUMNS`]. A word that this version does not know hides neither the file nor the row: it is taken for
/// one that is kept, and not to be uploaded.
pub(super) fn row(row: &Row<'_>) -> rusqlite::Result<TapeRow> {
    let stamp = |column: usize| row.get::<_, Option<i64>>(column).map(|at| at.map(Wall));
    let count = |column: usize| row.get::<_, i64>(column).map(unsigned);
    let state: String = row.get(7)?;
    let result: String = row.get(8)?;
    let upload: String = row.get(16)?;
    Ok(TapeRow {
        call: row.get(0)?,
        number: row.get(1)?,
        account: row.get(2)?,
        file: row.get(3)?,
        form: row.get(4)?,
        encrypted: row.get(5)?,
        began_at: Wall(row.get(6)?),
        state: TapeState::ALL.into_iter().find(|known| known.as_str() == state).unwrap_or(TapeState::Kept),
        finished: Finished {
            outcome: outcome(&result),
            millis: count(9)?,
            paused_millis: count(10)?,
            lost_millis: count(11)?,
            bytes: count(12)?,
            sha256: row.get(13)?,
            error: row.get(14)?,
        },
        expires_at: stamp(15)?,
        upload: UploadState::ALL.into_iter().find(|known| known.as_str() == upload).unwrap_or_default(),
        upload_tries: u32::try_from(row.get::<_, i64>(17)?).unwrap_or(0),
        upload_next: stamp(18)?,
        upload_error: row.get(19)?,
        uploaded_at: stamp(20)?,
        uploaded_to: row.get(21)?,
        local: row.get(22)?,
        deleted_at: stamp(23)?,
        deleted_by: row.get(24)?,
    })
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

const CONSENTS: [Consent; 5] =
    [Consent::Unfinished, Consent::Announced, Consent::Agreed, Consent::Declined, Consent::Unknown];

const OUTCOMES: [Outcome; 6] = [
    Outcome::Nothing,
    Outcome::Running,
    Outcome::Complete,
    Outcome::Gaps,
    Outcome::Interrupted,
    Outcome::Failed,
];

fn outcome(word: &str) -> Outcome {
    OUTCOMES.into_iter().find(|known| known.as_str() == word).unwrap_or_default()
}

/// The column `tape` of a call.
pub(in crate::ledger) fn value(part: Option<&RecordingPart>) -> Column {
    let Some(part) = part else { return Column::Null };
    let RecordingPart { prompt, announced_to_both, prompted_at, consent, began_at, format, encrypted, file } =
        part;
    let Finished { outcome, millis, paused_millis, lost_millis, bytes, sha256, error } = file;
    let text = json!({
        "prompt": prompt,
        "announced_to_both": announced_to_both,
        "prompted_at": prompted_at.map(|at| at.0),
        "consent": consent.as_str(),
        "began_at": began_at.map(|at| at.0),
        "format": format,
        "encrypted": encrypted,
        "file": {
            "outcome": outcome.as_str(),
            "millis": millis,
            "paused_millis": paused_millis,
            "lost_millis": lost_millis,
            "bytes": bytes,
            "sha256": sha256,
            "error": error,
        },
    });
    Column::Text(text.to_string())
}

/// The part that this column holds; what can't be read in it is left out.
pub(in crate::ledger) fn part(text: Option<String>) -> Option<Box<RecordingPart>> {
    let read: Value = serde_json::from_str(&text?).ok()?;
    let file = &read["file"];
    let count = |name: &str| file[name].as_u64().unwrap_or_default();
    let stamp = |name: &str| read[name].as_i64().map(Wall);
    let consent = read["consent"].as_str().unwrap_or_default();
    Some(Box::new(RecordingPart {
        prompt: read["prompt"].as_str()?.to_owned(),
        announced_to_both: read["announced_to_both"] == true,
        prompted_at: stamp("prompted_at"),
        consent: CONSENTS.into_iter().find(|known| known.as_str() == consent).unwrap_or(Consent::Unknown),
        began_at: stamp("began_at"),
        format: ["wav", "ogg"].into_iter().find(|known| read["format"] == *known).unwrap_or_default(),
        encrypted: read["encrypted"] == true,
        file: Finished {
            outcome: outcome(file["outcome"].as_str().unwrap_or_default()),
            millis: count("millis"),
            paused_millis: count("paused_millis"),
            lost_millis: count("lost_millis"),
            bytes: count("bytes"),
            sha256: file["sha256"].as_str().unwrap_or_default().to_owned(),
            error: file["error"].as_str().map(str::to_owned),
        },
    }))
}
