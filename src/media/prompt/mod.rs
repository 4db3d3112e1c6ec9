//! Prompts: what a user hears before a call is recorded, built in or from the operator's own file.
//!
//! How the built-in ones were made, and what they say: `make.sh` beside this file.
mod country;
mod opus_file;
#[cfg(test)]
mod tests;
mod wav;

use std::path::PathBuf;

use super::hold::Clip;
use crate::config::ConsentMode;
pub use country::language_of;

/// The rate of a clip, in Hz.
const RATE: u32 = 8_000;
/// The longest file that is taken, in seconds.
const LONGEST: usize = 60;
/// The only key that the built-in prompts ask for. With another one the operator's own prompt is needed.
pub const BUILTIN_KEY: char = '1';

/// The largest file that is worth reading, in bytes: a minute of stereo at 48 kHz in 32 bits, and its tags.
pub const MOST_BYTES: u64 = 24 * 1024 * 1024;

/// Which prompt is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptId {
    /// One that comes with the program.
    Builtin {
        /// One of [`LANGUAGES`].
        language: String,
        /// Told or asked.
        mode: ConsentMode,
    },
    /// A WAV or Ogg Opus file.
    File(PathBuf),
}

macro_rules! prompts {
    ($($language:literal),* $(,)?) => {
        /// The languages of the built-in prompts, as ISO 639-1 has them.
        pub const LANGUAGES: &[&str] = &[$($language),*];

        /// The file of this language: told, asked.
        fn files(language: &str) -> Option<(&'static [u8], &'static [u8])> {
            match language {
                $($language => Some((
                    include_bytes!(concat!($language, "-announce.opus")),
                    include_bytes!(concat!($language, "-ask.opus")),
                )),)*
                _ => None,
            }
        }
    };
}

prompts!("ar", "de", "en", "es", "fr", "hi", "id", "it", "nl", "pt", "ru", "tr");

/// The built-in prompt in one of [`LANGUAGES`].
///
/// # Errors
/// There is none in this language; the text names those there are.
pub fn builtin(language: &str, mode: ConsentMode) -> Result<Clip, String> {
    let Some((announce, ask)) = files(language) else {
        return Err(format!(
            "there is no built-in prompt in \"{language}\", only in {}: name a file of your own",
            LANGUAGES.join(", ")
        ));
    };
    read_clip(match mode {
        ConsentMode::Announce => announce,
        ConsentMode::Ask => ask,
    })
}

/// The sound of a file of at most 60 s: WAV (linear of 8 to 32 bits, floating point, G.711; 8 to 48 kHz; mono or
/// stereo, whose channels are mixed) or Ogg Opus (mono or stereo).
///
/// # Errors
/// What is wrong with it, and how to make one that is right.
pub fn read_clip(bytes: &[u8]) -> Result<Clip, String> {
    let samples = if bytes.starts_with(b"OggS") {
        opus_file::read(bytes)
    } else if bytes.starts_with(b"RIFF") {
        wav::read(bytes)
    } else if bytes.is_empty() {
        Err("the file is empty".to_owned())
    } else {
        Err("it is neither WAV nor Ogg Opus".to_owned())
    };
    samples
        .and_then(|samples| Clip::new(samples).map_err(|error| error.to_string()))
        .map_err(|what| format!("{what} (make one with: ffmpeg -i IN -t 60 -ar 8000 -ac 1 OUT.wav)"))
}
