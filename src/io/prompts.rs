//! The prompts that are played before a call is recorded: decoded once each, away from the sound threads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::clip;
use crate::config::{ConsentMode, ConsentPrompt};
use crate::gateway::TapeSetup;
use crate::media::{Clip, prompt};

/// Files that are kept decoded at most: one per number at the most usual.
const FILES: usize = 64;

/// Prompts that were played before.
#[derive(Default)]
pub struct Prompts {
    builtin: BTreeMap<(String, bool), Arc<Clip>>,
    /// With the time of the last change: a file that is replaced is read anew.
    files: BTreeMap<PathBuf, (Option<SystemTime>, Arc<Clip>)>,
}

impl Prompts {
    /// What is to be played.
    ///
    /// # Errors
    /// Why it can't be, in words.
    pub fn get(&mut self, setup: &TapeSetup) -> Result<Arc<Clip>, String> {
        let mode = setup.terms.ask.mode;
        match &setup.config.consent_prompt {
            ConsentPrompt::Builtin => {
                let key = (setup.language.clone(), mode == ConsentMode::Ask);
                if let Some(known) = self.builtin.get(&key) {
                    return Ok(Arc::clone(known));
                }
                let clip = prompt::builtin(&setup.language, mode)
                    .map_err(|error| format!("the built-in prompt {}: {error}", setup.language))?;
                let clip = Arc::new(clip);
                self.builtin.insert(key, Arc::clone(&clip));
                Ok(clip)
            }
            ConsentPrompt::File(path) => {
                let changed = std::fs::metadata(path).and_then(|about| about.modified()).ok();
                if let Some((then, known)) = self.files.get(path)
                    && *then == changed
                {
                    return Ok(Arc::clone(known));
                }
                let clip = Arc::new(clip::read_for("the prompt", path)?);
                if self.files.len() >= FILES {
                    self.files.pop_first();
                }
                self.files.insert(path.clone(), (changed, Arc::clone(&clip)));
                Ok(clip)
            }
        }
    }
}
