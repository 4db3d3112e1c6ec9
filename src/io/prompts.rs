//! The prompts that are played before a call is recorded: decoded once each, away from the sound threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::clip::Clips;
use crate::config::{ConsentMode, ConsentPrompt};
use crate::gateway::TapeSetup;
use crate::media::{Clip, prompt};

/// Prompts that were played before, and those of the operator that were read at the start.
#[derive(Default)]
pub struct Prompts {
    builtin: BTreeMap<(String, bool), Arc<Clip>>,
    /// The operator's own.
    pub files: Clips,
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
                self.files.get(path).map_err(|why| format!("the prompt {}: {why}", path.display()))
            }
        }
    }
}
