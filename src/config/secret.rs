//! Secrets: values that never print, and the ways they reach us (in place, from a file, from the environment).

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The largest secret file that is read, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// A value that must not be seen: it prints as `***`, whatever asks.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself: for a header, a hash or a comparison, never for a log line.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where `*_file` and `*_env` secrets come from: the system, or a map in tests.
pub trait SecretSource {
    /// The text of a file. The error is a short reason for people.
    fn file(&self, path: &Path) -> Result<String, String>;
    /// An environment variable; `None` if it is not set.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The real file system and environment.
#[derive(Debug, Clone)]
pub struct SystemSecrets {
    folder: PathBuf,
}

impl SystemSecrets {
    /// Relative paths are taken from `folder`: the one that holds the config file.
    pub fn beside(folder: impl Into<PathBuf>) -> SystemSecrets {
        SystemSecrets { folder: folder.into() }
    }
}

impl SecretSource for SystemSecrets {
    fn file(&self, path: &Path) -> Result<String, String> {
        let file = std::fs::File::open(self.folder.join(path)).map_err(|e| e.to_string())?;
        let mut text = String::new();
        let read = file.take(MAX_SECRET_FILE + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
        if read as u64 > MAX_SECRET_FILE {
            return Err(format!("larger than {MAX_SECRET_FILE} bytes"));
        }
        Ok(text)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Nothing is read: each secret is a stand-in of its own, since some must differ.
pub(super) struct Unread;

impl SecretSource for Unread {
    fn file(&self, path: &Path) -> Result<String, String> {
        Ok(format!("unread file {}", path.display()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        Some(format!("unread variable {name}"))
    }
}
