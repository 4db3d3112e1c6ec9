//! Sound from the operator's own files: the clip for held calls, and the prompt before a recording. Read once at start.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::media::Clip;
use crate::media::prompt::{MOST_BYTES, read_clip};

/// The sound that `media.hold_clip` names.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn read(path: &Path) -> Result<Clip, String> {
    read_for("media.hold_clip", path)
}

/// The sound that this key of the configuration names.
///
/// # Errors
/// What is wrong with the file, in words that begin with the key and the path.
pub fn read_for(key: &str, path: &Path) -> Result<Clip, String> {
    let said = |what: String| format!("{key} {}: {what}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| said(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(said(format!("it has more than {} MiB", MOST_BYTES / 1024 / 1024)));
    }
    read_clip(&bytes).map_err(said)
}
