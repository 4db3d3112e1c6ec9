//! `[recording]`: what is asked, what is written, how long it is kept, and where it is sent.

use std::fmt;
use std::path::PathBuf;

use rust_decimal::Decimal;

use super::secret::Secret;

mod age;
mod read;

pub(super) use read::{check, of_number, recording};

/// The languages of the built-in prompts (ISO 639-1).
pub const LANGUAGES: &[&str] = &["en", "es", "pt", "fr", "de", "it", "nl", "id", "hi", "ar", "tr", "ru"];

/// Whether the user is told or asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsentMode {
    /// Told: who stays agrees.
    #[default]
    Announce,
    /// Asked for a key: without it nothing is recorded, and the call goes on.
    Ask,
}

/// Who hears the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnnounceTo {
    /// The WhatsApp user.
    #[default]
    Caller,
    /// The destination too, unless it is a voice agent.
    Both,
}

/// What is played.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConsentPrompt {
    /// The prompts that come with the program, in the language of the user's country.
    #[default]
    Builtin,
    /// A WAV or Ogg Opus file.
    File(PathBuf),
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TapeFormat {
    /// WAV, linear 16-bit.
    #[default]
    WavPcm,
    /// WAV, G.711 A-law at 8 kHz.
    WavAlaw,
    /// WAV, G.711 µ-law at 8 kHz.
    WavUlaw,
    /// Ogg Opus.
    Ogg,
}

/// `[recording]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingConfig {
    /// `format` and `encoding`.
    pub format: TapeFormat,
    /// Samples per second and channel: 8,000 or 16,000. G.711 has 8,000 only.
    pub sample_rate: u32,
    /// Bits per second and channel of `ogg`, 6,000 to 64,000.
    pub bitrate: u32,
    /// Whether the user is told or asked.
    pub consent: ConsentMode,
    /// What is played.
    pub consent_prompt: ConsentPrompt,
    /// The language of the built-in prompt, for all; `None`: that of the user's country.
    pub consent_language: Option<String>,
    /// The key that means yes.
    pub consent_key: char,
    /// Seconds after the prompt in which it must be pressed, 1 to 60.
    pub consent_seconds: u64,
    /// Who hears the prompt.
    pub announce_to: AnnounceTo,
    /// The key of the destination's phone that pauses the recording and resumes it.
    pub pause_key: Option<char>,
    /// Seconds from one beep to the next, 5 to 300; `None`: no beep.
    pub beep_seconds: Option<u32>,
    /// Days after which a recording is deleted, 0 to 3650; 0: never.
    pub keep_days: u32,
    /// MiB that all recordings may take; above it the oldest go first. 0: no limit.
    pub max_mib: u64,
    /// MiB that must stay free on the disk: below it no recording begins.
    pub min_free_mib: u64,
    /// Public keys (`age1…`) that recordings are encrypted for; empty: not encrypted.
    pub encrypt_to: Vec<String>,
    /// Where finished recordings are sent.
    pub upload: Option<UploadConfig>,
    /// What a recorded minute costs, USD.
    pub per_minute_usd: Decimal,
}

impl Default for RecordingConfig {
    fn default() -> Self {
        RecordingConfig {
            format: TapeFormat::WavPcm,
            sample_rate: 8_000,
            bitrate: 16_000,
            consent: ConsentMode::Announce,
            consent_prompt: ConsentPrompt::Builtin,
            consent_language: None,
            consent_key: '1',
            consent_seconds: 8,
            announce_to: AnnounceTo::Caller,
            pause_key: None,
            beep_seconds: None,
            keep_days: 30,
            max_mib: 2_048,
            min_free_mib: 100,
            encrypt_to: Vec::new(),
            upload: None,
            per_minute_usd: Decimal::ZERO,
        }
    }
}

impl RecordingConfig {
    /// What holds for the calls of a number.
    pub fn for_number(&self, number: &NumberRecording) -> RecordingConfig {
        let NumberRecording { consent, prompt, language, announce_to, beep_seconds, keep_days } = number;
        RecordingConfig {
            consent: consent.unwrap_or(self.consent),
            consent_prompt: prompt.clone().unwrap_or_else(|| self.consent_prompt.clone()),
            consent_language: language.clone().or_else(|| self.consent_language.clone()),
            announce_to: announce_to.unwrap_or(self.announce_to),
            beep_seconds: match beep_seconds {
                Some(seconds) => Some(*seconds).filter(|seconds| *seconds > 0),
                None => self.beep_seconds,
            },
            keep_days: keep_days.unwrap_or(self.keep_days),
            ..self.clone()
        }
    }
}

/// What a number says otherwise than `[recording]`: its `recording_…` keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberRecording {
    /// `recording_consent`
    pub consent: Option<ConsentMode>,
    /// `recording_prompt`
    pub prompt: Option<ConsentPrompt>,
    /// `recording_language`
    pub language: Option<String>,
    /// `recording_announce_to`
    pub announce_to: Option<AnnounceTo>,
    /// `recording_beep_seconds`; 0 is none.
    pub beep_seconds: Option<u32>,
    /// `recording_keep_days`; 0 is for ever.
    pub keep_days: Option<u32>,
}

/// `[recording.upload]`
#[derive(Clone, PartialEq, Eq)]
pub struct UploadConfig {
    /// Where to.
    pub to: UploadTo,
    /// Whether the local copy stays when the other end has confirmed.
    pub keep_local: bool,
    /// Seconds after which a try has failed in which the other end took and answered nothing, 5 to 3600.
    pub timeout_seconds: u64,
    /// Tries before it is given up, 1 to 1000; the local copy stays then.
    pub max_tries: u32,
    /// Certificates (PEM) to believe beside the usual ones.
    pub ca_file: Option<PathBuf>,
}

/// Where finished recordings are sent.
#[derive(Clone, PartialEq, Eq)]
pub enum UploadTo {
    /// An S3-compatible store: `url = "s3://bucket/prefix"`.
    S3 {
        /// The store's address, `https://s3.eu-central-1.amazonaws.com`, `http://minio:9000`: the bucket goes into the
        /// path.
        endpoint: String,
        /// The region that is signed for.
        region: String,
        /// The bucket.
        bucket: String,
        /// What the object's name begins with; empty, or with `/` at its end.
        prefix: String,
        /// The access key's id.
        access_key: String,
        /// The secret key.
        secret_key: Secret,
    },
    /// `PUT url/<file>`: `url = "https://…"`.
    Http {
        /// The address without `/` at its end.
        url: String,
        /// Bearer token.
        token: Option<Secret>,
    },
}

/// Without the user info that an address may hold.
impl fmt::Debug for UploadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadConfig")
            .field("keep_local", &self.keep_local)
            .field("timeout_seconds", &self.timeout_seconds)
            .field("max_tries", &self.max_tries)
            .finish_non_exhaustive()
    }
}
