//! Recordings: the life of each file, from its first second until it is deleted, and their part in a call.
//!
//! Every step of a file's life is one transaction, and asking for one that was taken already changes nothing. The order
//! in which a call's record and its recording's end are written does not matter: whichever comes second puts the
//! file's facts, the recorded seconds and what they cost into the call's row.

mod row;

use std::time::Duration;

use rusqlite::types::Value as Column;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params, params_from_iter};
use rust_decimal::Decimal;

use row::{COLUMNS, row, signed, unsigned, values};
pub(super) use row::{part, value};

use super::{Ledger, LedgerError, MAX_LIST, audit, cost, schema};
use crate::call::record::Record;
use crate::call::recording::{Consent, Finished, Outcome, RecordingPart};
use crate::clock::Wall;

/// The folder of recordings in the state folder.
pub const RECORDINGS: &str = "recordings";

/// Recordings that [`Ledger::tapes_beyond`] names at most: delete these and ask again.
const MOST_BEYOND: usize = 1_000;

/// An upload that is due later than this from now was put off by a clock that was wrong: it is due at once.
const FAR_AHEAD: i64 = 7 * 86_400_000;

/// What has become of a recording's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TapeState {
    /// It is being written or finished; after a crash it waits for its repair.
    Running,
    /// It is finished: on this disk, or uploaded and no longer here.
    Kept,
    /// There is none: the disk would not take it.
    Failed,
    /// It was deleted here: by somebody, for its age, or for want of room.
    Deleted,
}

impl TapeState {
    /// Every one there is.
    pub const ALL: [TapeState; 4] =
        [TapeState::Running, TapeState::Kept, TapeState::Failed, TapeState::Deleted];

    /// The word in the database and in the API: stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            TapeState::Running => "running",
            TapeState::Kept => "kept",
            TapeState::Failed => "failed",
            TapeState::Deleted => "deleted",
        }
    }
}

/// Whether a recording is sent elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum UploadState {
    /// It is not to be.
    #[default]
    None,
    /// It is to be, once it is finished.
    Waiting,
    /// The other end has confirmed it.
    Done,
    /// It was tried often enough, or the file was deleted before.
    GaveUp,
}

impl UploadState {
    /// Every one there is.
    pub const ALL: [UploadState; 4] =
        [UploadState::None, UploadState::Waiting, UploadState::Done, UploadState::GaveUp];

    /// The word in the database and in the API: stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            UploadState::None => "none",
            UploadState::Waiting => "waiting",
            UploadState::Done => "done",
            UploadState::GaveUp => "gave_up",
        }
    }
}

/// One recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapeRow {
    /// The call's id: a call has one recording.
    pub call: String,
    /// The configured number's `id`.
    pub number: String,
    /// The configured number's `account_id`.
    pub account: String,
    /// The file's name in the folder of recordings.
    pub file: String,
    /// What is written: `wav-pcm-8000`, `ogg-16000-16000`.
    pub form: String,
    /// Whether it lies encrypted.
    pub encrypted: bool,
    /// When its first second began.
    pub began_at: Wall,
    /// What has become of the file.
    pub state: TapeState,
    /// The file's facts, once it is finished.
    pub finished: Finished,
    /// When it is to be deleted; `None`: never.
    pub expires_at: Option<Wall>,
    /// Whether it is sent elsewhere.
    pub upload: UploadState,
    /// Tries that were made.
    pub upload_tries: u32,
    /// When the next one is due, while it waits.
    pub upload_next: Option<Wall>,
    /// How the last one failed.
    pub upload_error: Option<String>,
    /// When the other end had it.
    pub uploaded_at: Option<Wall>,
    /// Where it is there.
    pub uploaded_to: Option<String>,
    /// Whether the file is on this disk.
    pub local: bool,
    /// When it was deleted here.
    pub deleted_at: Option<Wall>,
    /// By whom.
    pub deleted_by: Option<String>,
}

impl TapeRow {
    /// One that begins: what is not said is nothing, and the file is here.
    pub fn begun(call: &str, file: String, form: String, began_at: Wall) -> TapeRow {
        TapeRow {
            call: call.to_owned(),
            number: String::new(),
            account: String::new(),
            file,
            form,
            encrypted: false,
            began_at,
            state: TapeState::Running,
            finished: Finished { outcome: Outcome::Running, ..Finished::default() },
            expires_at: None,
            upload: UploadState::None,
            upload_tries: 0,
            upload_next: None,
            upload_error: None,
            uploaded_at: None,
            uploaded_to: None,
            local: true,
            deleted_at: None,
            deleted_by: None,
        }
    }

    /// `wav` or `ogg`.
    pub fn format(&self) -> &'static str {
        if self.form.starts_with("ogg") { "ogg" } else { "wav" }
    }

    /// What is known of the recording where the call's own record says nothing of it: that there is one.
    fn alone(&self) -> RecordingPart {
        RecordingPart { consent: Consent::Unknown, ..RecordingPart::default() }
    }

    /// Puts the file's facts into the recording's part in the call.
    fn fill(&self, part: &mut RecordingPart) {
        part.began_at = part.began_at.or(Some(self.began_at));
        part.format = self.format();
        part.encrypted = self.encrypted;
        part.file = self.finished.clone();
    }
}

/// How long a recording is that is paid for: as long as it plays, without the pauses. Gaps that the disk has left are
/// silence of the recording and count; where there is no file, nothing does.
pub fn recorded(file: &Finished) -> Duration {
    match file.outcome {
        Outcome::Nothing | Outcome::Failed => Duration::ZERO,
        Outcome::Running | Outcome::Complete | Outcome::Gaps | Outcome::Interrupted => {
            Duration::from_millis(file.millis.saturating_sub(file.paused_millis))
        }
    }
}

impl Ledger {
    /// What a recorded minute costs from now on, in US dollars: for recordings that are finished after their call's
    /// record was written.
    pub fn charge(&mut self, recording_per_minute: Decimal) {
        self.recording_per_minute = recording_per_minute;
    }

    /// A recording begins, or one is found that has no row. Of one that is kept or deleted already nothing changes.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn tape_begun(&mut self, row: &TapeRow) -> Result<(), LedgerError> {
        self.write_for_good(row.began_at, |on| {
            let marks = vec!["?"; COLUMNS.len()].join(", ");
            let set: Vec<String> = COLUMNS.iter().map(|name| format!("{name} = excluded.{name}")).collect();
            let sql = format!(
                "INSERT INTO recordings ({}) VALUES ({marks})
                 ON CONFLICT (call) DO UPDATE SET {} WHERE recordings.state IN ('running', 'failed')",
                COLUMNS.join(", "),
                set.join(", ")
            );
            on.execute(&sql, params_from_iter(values(row))).map(|_| ())
        })
    }

    /// What was played to the user and answered, before the call is over: so that a crash does not lose it. A closed
    /// call stays as it is.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn tape_agreed(&mut self, call: &str, part: &RecordingPart, now: Wall) -> Result<(), LedgerError> {
        self.write_for_good(now, |on| {
            on.execute(
                "UPDATE calls SET tape = ?2 WHERE id = ?1 AND ended_at IS NULL",
                params![call, value(Some(part))],
            )
            .map(|_| ())
        })
    }

    /// A recording that ran is over: `state` says whether there is a file ([`TapeState::Kept`]) or none
    /// ([`TapeState::Failed`]). A kept one waits for its upload from now on if there is to be one. The call's row gets
    /// the file's facts, the recorded seconds and their cost ([`Ledger::charge`]), now or when it is closed.
    ///
    /// False if no such recording runs: nothing is changed then.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn tape_finished(
        &mut self,
        call: &str,
        finished: &Finished,
        state: TapeState,
        expires_at: Option<Wall>,
        upload: bool,
        now: Wall,
    ) -> Result<bool, LedgerError> {
        let per_minute = self.recording_per_minute;
        let kept = state == TapeState::Kept;
        let upload = if kept && upload { UploadState::Waiting } else { UploadState::None };
        self.write(now, |on| {
            let Some(mut row) = find(on, call)?.filter(|row| row.state == TapeState::Running) else {
                return Ok(false);
            };
            row.state = state;
            row.finished = finished.clone();
            row.finished.error = finished.error.as_deref().map(|error| audit::cut(error).to_owned());
            row.expires_at = expires_at.filter(|_| kept);
            row.upload = upload;
            row.upload_next = (upload == UploadState::Waiting).then_some(now);
            row.local = kept;
            store(on, &row)?;
            settle(on, &row, per_minute)?;
            Ok(true)
        })
    }

    /// One recording, by its call's id; none in a file that an older version has written.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn tape(&self, call: &str) -> Result<Option<TapeRow>, LedgerError> {
        self.read(|on| if older(on)? { Ok(None) } else { find(on, call) })
    }

    /// The recordings that were never finished, the oldest first: at the start, those that a crash has cut off.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn tapes_running(&self) -> Result<Vec<TapeRow>, LedgerError> {
        self.tapes(
            "INDEXED BY recordings_running WHERE state = 'running' ORDER BY began_at, call LIMIT ?1",
            &[Column::Integer(MAX_LIST as i64)],
        )
    }

    /// The recordings on this disk whose time is over, the longest overdue first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn tapes_expired(&self, now: Wall, limit: usize) -> Result<Vec<TapeRow>, LedgerError> {
        self.tapes(
            "INDEXED BY recordings_by_expiry WHERE local = 1 AND state = 'kept' AND expires_at <= ?2
             ORDER BY expires_at, call LIMIT ?1",
            &[
                Column::Integer(i64::try_from(limit.min(MAX_LIST)).unwrap_or(i64::MAX)),
                Column::Integer(now.0),
            ],
        )
    }

    /// The recordings that must go from this disk so that what is left takes `max_bytes` at most: the oldest first,
    /// and those that still wait for their upload last. 0 is no limit. Running ones are never named, and their bytes
    /// are not known yet. 1,000 at most: delete these and ask again.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn tapes_beyond(&self, max_bytes: u64) -> Result<Vec<TapeRow>, LedgerError> {
        let (_, mut bytes) = self.tape_bytes()?;
        if max_bytes == 0 || bytes <= max_bytes {
            return Ok(Vec::new());
        }
        let mut go = Vec::new();
        for upload in ["<>", "="] {
            let tail = format!(
                "INDEXED BY recordings_by_age WHERE local = 1 AND state = 'kept' AND upload {upload} 'waiting'
                 ORDER BY began_at, call LIMIT ?1"
            );
            for row in self.tapes(&tail, &[Column::Integer(MOST_BEYOND as i64)])? {
                if bytes <= max_bytes || go.len() >= MOST_BEYOND {
                    return Ok(go);
                }
                bytes = bytes.saturating_sub(row.finished.bytes);
                go.push(row);
            }
        }
        Ok(go)
    }

    /// A recording's file is deleted here, by whom and why; the audit log gets its entry in the same transaction. One
    /// that waited for its upload is not uploaded any more, and the entry says so. Delete the file afterwards: a file
    /// whose row says that it is gone is deleted at the next start.
    ///
    /// False if there is no such recording, or one that still runs, failed or was deleted before.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn tape_deleted(&mut self, call: &str, by: &str, why: &str, now: Wall) -> Result<bool, LedgerError> {
        self.write(now, |on| {
            let Some(mut row) = find(on, call)?.filter(|row| row.state == TapeState::Kept) else {
                return Ok(false);
            };
            let mut detail = audit::cut(why).to_owned();
            match (row.upload, &row.uploaded_to) {
                (UploadState::Waiting, _) => {
                    row.upload = UploadState::GaveUp;
                    row.upload_next = None;
                    row.upload_error = Some("it was deleted before it was uploaded".to_owned());
                    detail.push_str("; it had not been uploaded");
                }
                (UploadState::Done, Some(to)) => detail.push_str(&format!("; uploaded before to {to}")),
                (UploadState::None | UploadState::Done | UploadState::GaveUp, _) => {}
            }
            row.state = TapeState::Deleted;
            row.local = false;
            row.deleted_at = Some(now);
            row.deleted_by = Some(audit::cut(by).to_owned());
            store(on, &row)?;
            audit::put(on, now, by, "recording.deleted", call, &detail)?;
            Ok(true)
        })
    }

    /// The recordings that are to be uploaded now, the longest due first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn uploads_due(&self, now: Wall, limit: usize) -> Result<Vec<TapeRow>, LedgerError> {
        self.tapes(
            "INDEXED BY recordings_due
             WHERE upload = 'waiting' AND local = 1 AND state = 'kept' AND (upload_next <= ?2 OR upload_next > ?3)
             ORDER BY upload_next, call LIMIT ?1",
            &[
                Column::Integer(i64::try_from(limit.min(MAX_LIST)).unwrap_or(i64::MAX)),
                Column::Integer(now.0),
                Column::Integer(now.0.saturating_add(FAR_AHEAD)),
            ],
        )
    }

    /// The other end has confirmed the upload; without `keep_local` the file is to be deleted here now. The audit log
    /// gets its entry. Also of a recording that was deleted meanwhile: the copy is there all the same.
    ///
    /// False if there is no such recording, or the upload was confirmed before.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn upload_done(
        &mut self,
        call: &str,
        to: &str,
        keep_local: bool,
        now: Wall,
    ) -> Result<bool, LedgerError> {
        self.write(now, |on| {
            let Some(mut row) = find(on, call)?
                .filter(|row| matches!(row.upload, UploadState::Waiting | UploadState::GaveUp))
            else {
                return Ok(false);
            };
            row.upload = UploadState::Done;
            row.upload_tries = row.upload_tries.saturating_add(1);
            row.upload_next = None;
            row.upload_error = None;
            row.uploaded_at = Some(now);
            row.uploaded_to = Some(audit::cut(to).to_owned());
            row.local = row.local && keep_local;
            store(on, &row)?;
            audit::put(on, now, "upload", "recording.uploaded", call, to)?;
            Ok(true)
        })
    }

    /// An upload failed: it is tried again at `next`, or given up; the file stays for its time.
    ///
    /// False if the recording does not wait for an upload any more: it was deleted meanwhile.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn upload_failed(
        &mut self,
        call: &str,
        error: &str,
        next: Option<Wall>,
        now: Wall,
    ) -> Result<bool, LedgerError> {
        self.write(now, |on| {
            let Some(mut row) = find(on, call)?.filter(|row| row.upload == UploadState::Waiting) else {
                return Ok(false);
            };
            row.upload = if next.is_some() { UploadState::Waiting } else { UploadState::GaveUp };
            row.upload_tries = row.upload_tries.saturating_add(1);
            row.upload_next = next;
            row.upload_error = Some(audit::cut(error).to_owned());
            store(on, &row)?;
            Ok(true)
        })
    }

    /// How many recordings are on this disk, and their bytes; those of running ones are not known yet.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn tape_bytes(&self) -> Result<(u64, u64), LedgerError> {
        self.read(|on| {
            on.query_row(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM recordings INDEXED BY recordings_by_age
                 WHERE local = 1",
                [],
                |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))),
            )
        })
    }

    /// The recording's part in a call that is to be closed now: what the record says, with the file's facts if the
    /// file was finished before, or what the ledger itself knows.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn taped(&self, record: &Record) -> Result<Option<Box<RecordingPart>>, LedgerError> {
        self.read(|on| {
            let told: Option<Option<String>> = on
                .query_row("SELECT tape FROM calls WHERE id = ?1", [&record.id], |row| row.get(0))
                .optional()?;
            let noted = record.tape.clone().or_else(|| part(told.flatten()));
            let Some(row) = find(on, &record.id)?.filter(|row| row.state != TapeState::Running) else {
                return Ok(noted);
            };
            let mut part = noted.unwrap_or_else(|| Box::new(row.alone()));
            row.fill(&mut part);
            Ok(Some(part))
        })
    }

    pub(super) fn tapes(&self, tail: &str, values: &[Column]) -> Result<Vec<TapeRow>, LedgerError> {
        let sql = format!("SELECT {} FROM recordings {tail}", COLUMNS.join(", "));
        self.read(|on| {
            if older(on)? {
                return Ok(Vec::new());
            }
            let mut statement = on.prepare(&sql)?;
            let rows = statement.query_map(params_from_iter(values), row)?;
            rows.collect()
        })
    }
}

/// Puts the facts of a finished recording into its call's row, if there is one: what it is, and if the call is billed,
/// the recorded seconds and their cost. A price that was made for as many seconds stays.
pub(super) fn settle(on: &Transaction<'_>, row: &TapeRow, per_minute: Decimal) -> rusqlite::Result<()> {
    let told: Option<Option<String>> =
        on.query_row("SELECT tape FROM calls WHERE id = ?1", [&row.call], |row| row.get(0)).optional()?;
    let Some(told) = told else { return Ok(()) };
    let mut part = part(told).unwrap_or_else(|| Box::new(row.alone()));
    row.fill(&mut part);
    on.execute("UPDATE calls SET tape = ?2 WHERE id = ?1", params![row.call, value(Some(&part))])?;
    let (seconds, cost) = cost::recording(recorded(&row.finished), per_minute);
    on.execute(
        "UPDATE calls SET recording_seconds = ?2, recording_nano = ?3
         WHERE id = ?1 AND meta_pulses IS NOT NULL AND recording_seconds IS NOT ?2",
        params![row.call, signed(seconds), cost::nano(cost)],
    )
    .map(|_| ())
}

/// The same for a call whose row has just been closed.
pub(super) fn settle_closed(on: &Transaction<'_>, call: &str, per_minute: Decimal) -> rusqlite::Result<()> {
    match find(on, call)?.filter(|row| row.state != TapeState::Running) {
        Some(row) => settle(on, &row, per_minute),
        None => Ok(()),
    }
}

/// Forgets a batch of recordings that began before: those with a file on this disk stay, whatever their age.
pub(super) fn forget(on: &Transaction<'_>, began_before: i64, batch: i64) -> rusqlite::Result<u64> {
    let gone = on.execute(
        "DELETE FROM recordings WHERE call IN (
             SELECT call FROM recordings INDEXED BY recordings_gone
             WHERE local = 0 AND began_at < ?1 AND state <> 'running' ORDER BY began_at LIMIT ?2)",
        params![began_before, batch],
    )?;
    Ok(u64::try_from(gone).unwrap_or(u64::MAX))
}

/// The version of the database that brought recordings.
const SINCE: i64 = 5;

/// Whether the file has no recordings yet: an older version has written it, and no gateway has opened it since.
pub(super) fn older(on: &Connection) -> rusqlite::Result<bool> {
    Ok(schema::version(on)? < SINCE)
}

/// Reads one recording. Parameter: its call.
pub(super) fn select() -> String {
    format!("SELECT {} FROM recordings WHERE call = ?1", COLUMNS.join(", "))
}

pub(super) fn find(on: &Connection, call: &str) -> rusqlite::Result<Option<TapeRow>> {
    on.query_row(&select(), [call], row).optional()
}

pub(super) fn store(on: &Transaction<'_>, row: &TapeRow) -> rusqlite::Result<()> {
    let marks = vec!["?"; COLUMNS.len()].join(", ");
    let sql = format!("REPLACE INTO recordings ({}) VALUES ({marks})", COLUMNS.join(", "));
    on.execute(&sql, params_from_iter(values(row))).map(|_| ())
}
