//! Sound from the operator's own files: the clip for held calls, and the prompts before recordings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{Config, Fault, SoundFile};
use crate::media::Clip;
use crate::media::prompt::{MOST_BYTES, read_clip};

/// Files that are kept decoded at most: one per number at the most usual.
const FILES: usize = 64;

/// What was read before, with the time of the last change: a file that is replaced is read anew.
#[derive(Default)]
pub struct Clips(BTreeMap<PathBuf, (Option<SystemTime>, Arc<Clip>)>);

impl Clips {
    /// The sound of this file.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn get(&mut self, path: &Path) -> Result<Arc<Clip>, String> {
        let changed = std::fs::metadata(path).and_then(|about| about.modified()).ok();
        if let Some((then, known)) = self.0.get(path)
            && *then == changed
        {
            return Ok(Arc::clone(known));
        }
        let clip = Arc::new(read(path)?);
        if self.0.len() >= FILES {
            self.0.pop_first();
        }
        self.0.insert(path.to_owned(), (changed, Arc::clone(&clip)));
        Ok(clip)
    }

    /// Reads all that are configured, before a call needs them: what is wrong with them, each at its key.
    pub fn load(&mut self, config: &Config) -> Vec<Fault> {
        let read = |sound: &SoundFile| self.get(&sound.path).err().map(|why| sound.fault(&why));
        config.sounds.iter().filter_map(read).collect()
    }
}

fn read(path: &Path) -> Result<Clip, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("it has more than {} MiB", MOST_BYTES / 1024 / 1024));
    }
    read_clip(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ogg_is_taken_and_what_is_no_sound_is_refused_with_the_reason() {
        let mut clips = Clips::default();
        let mut get = |name: &str| clips.get(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name));
        let clip = get("src/media/prompt/en-ask.opus").unwrap();
        assert!(clip.len_ticks() > 150);
        assert!(Arc::ptr_eq(&clip, &get("src/media/prompt/en-ask.opus").unwrap()), "it is decoded once");
        for (name, why) in [("Cargo.toml", "neither WAV nor Ogg Opus"), ("gone.wav", "No such file")] {
            let said = get(name).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_is_read_anew() {
        let path = std::env::temp_dir().join(format!("watrunk-clip-{}.opus", std::process::id()));
        let prompts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/media/prompt");
        let mut clips = Clips::default();
        let mut lengths = Vec::new();
        for (name, seconds) in [("en-ask.opus", 1), ("en-announce.opus", 2)] {
            std::fs::copy(prompts.join(name), &path).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
            lengths.push(clips.get(&path).unwrap().len_ticks());
        }
        std::fs::remove_file(&path).unwrap();
        assert_ne!(lengths[0], lengths[1]);
        assert!(clips.get(&path).is_err(), "and one that is gone is not played");
    }
}
