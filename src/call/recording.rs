//! What remains of a call's recording: what was asked, what was answered, and what was kept.

use crate::clock::Wall;

/// How the user was told, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Consent {
    /// The call ended before there was an answer: nothing was recorded.
    #[default]
    Unfinished,
    /// The user heard that the call is recorded, and stayed.
    Announced,
    /// The user pressed the key that means yes.
    Agreed,
    /// The user did not press it: nothing was recorded, and the call went on.
    Declined,
    /// There is a recording, but nobody has written down what was answered: the process was cut off.
    Unknown,
}

impl Consent {
    /// The word in the record and in the API: stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Consent::Unfinished => "unfinished",
            Consent::Announced => "announced",
            Consent::Agreed => "agreed",
            Consent::Declined => "declined",
            Consent::Unknown => "unknown",
        }
    }
}

/// How the recording itself came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Outcome {
    /// Nothing was recorded.
    #[default]
    Nothing,
    /// The file is being written or finished.
    Running,
    /// From the prompt's end to the call's.
    Complete,
    /// Parts are missing: the disk was too slow or full.
    Gaps,
    /// The process was cut off: up to then.
    Interrupted,
    /// There is no file: the disk would not take it.
    Failed,
}

impl Outcome {
    /// The word in the record, in the file's own description and in the API: stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Nothing => "nothing",
            Outcome::Running => "running",
            Outcome::Complete => "complete",
            Outcome::Gaps => "gaps",
            Outcome::Interrupted => "interrupted",
            Outcome::Failed => "failed",
        }
    }
}

/// The file's facts, once it is finished.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Finished {
    /// How it came out.
    pub outcome: Outcome,
    /// How long it plays, in milliseconds.
    pub millis: u64,
    /// Of those, silence because it was paused.
    pub paused_millis: u64,
    /// Of those, silence because the disk did not keep up.
    pub lost_millis: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file as it lies on the disk, lower-case hexadecimal; empty if it could not be read again.
    pub sha256: String,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

/// Recording's part in a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordingPart {
    /// What was played: `builtin:pt`, or the file's name.
    pub prompt: String,
    /// Whether a PBX heard it too, from its beginning until it was answered.
    pub announced_to_both: bool,
    /// When it began to play; `None`: the call ended before.
    pub prompted_at: Option<Wall>,
    /// What came of it.
    pub consent: Consent,
    /// When the recording began.
    pub began_at: Option<Wall>,
    /// `wav` or `ogg`; empty if there is none.
    pub format: &'static str,
    /// Whether it lies encrypted.
    pub encrypted: bool,
    /// The file's facts.
    pub file: Finished,
}
