//! Sound from the operator's own files: the clip for held calls, and the prompt before a recording. Read once at start.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, ConsentPrompt};
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

/// What is wrong with the sounds that are configured, each by its key and path: all of it, before a call finds out.
pub fn unplayable(config: &Config) -> Vec<String> {
    let prompt = |prompt: &ConsentPrompt| match prompt {
        ConsentPrompt::Builtin => None,
        ConsentPrompt::File(path) => Some(path.clone()),
    };
    let clip = config.media.hold_clip.clone().map(|path| ("media.hold_clip", path));
    let all = prompt(&config.recording.consent_prompt).map(|path| ("recording.consent_prompt", path));
    let own = config.numbers.iter().filter_map(|number| number.recording_as.prompt.as_ref().and_then(prompt));
    let mut named: Vec<(&str, PathBuf)> = clip.into_iter().chain(all).collect();
    named.extend(own.map(|path| ("number.recording_prompt", path)));
    named.sort();
    named.dedup();
    named.iter().filter_map(|(key, path)| read_for(key, path).err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ogg_is_taken_and_what_is_no_sound_is_refused_by_key_path_and_reason() {
        let path = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let clip = read(&path("src/media/prompt/en-ask.opus")).unwrap();
        assert!(clip.len_ticks() > 150);
        for (name, why) in [("Cargo.toml", "neither WAV nor Ogg Opus"), ("gone.wav", "No such file")] {
            let said = read_for("recording.consent_prompt", &path(name)).unwrap_err();
            let begin = format!("recording.consent_prompt {}: ", path(name).display());
            assert!(said.starts_with(&begin) && said.contains(why), "{said}");
        }
    }
}
