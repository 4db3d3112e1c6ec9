//! Secrets: values that never print, and the ways they reach us (in place, from a file, from the environment).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

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

    /// Whether it stands for a value that could not be read: see [`super::Config::read_what_may_be_read`].
    pub fn is_stand_in(&self) -> bool {
        self.0.starts_with(UNREAD)
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

/// Texts by name, such as headers, whose values often hold keys: they print without them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NamedTexts(BTreeMap<String, String>);

impl From<BTreeMap<String, String>> for NamedTexts {
    fn from(texts: BTreeMap<String, String>) -> Self {
        NamedTexts(texts)
    }
}

impl Deref for NamedTexts {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for NamedTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A key of the REST API, as the file has it.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySecret {
    /// The key itself.
    Plain(Secret),
    /// Its SHA-256: whoever reads the file can't use it.
    Sha256([u8; 32]),
}

impl KeySecret {
    /// Whether this is what was presented. The time it takes tells neither the key nor its length.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.digest().ct_eq(&<[u8; 32]>::from(Sha256::digest(presented))).into()
    }

    /// The key's SHA-256.
    pub(super) fn digest(&self) -> [u8; 32] {
        match self {
            KeySecret::Plain(key) => Sha256::digest(key.expose().as_bytes()).into(),
            KeySecret::Sha256(digest) => *digest,
        }
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySecret::Plain(_) => f.write_str("***"),
            KeySecret::Sha256(_) => f.write_str("sha256:***"),
        }
    }
}

/// Where `*_file` and `*_env` secrets come from, and what other files there are: the system, or a map in tests.
pub trait SecretSource {
    /// The text of a file. The error is a short reason for people.
    fn file(&self, path: &Path) -> Result<String, String>;
    /// An environment variable; `None` if it is not set.
    fn variable(&self, name: &str) -> Option<String>;
    /// A file that is opened by those who need it, each time they do: where it is, and its first `most` bytes. The
    /// error is a short reason for people.
    fn look_at(&self, path: &Path, most: u64) -> Result<FileBeside, String> {
        let bytes = self.file(path)?.into_bytes();
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
        Ok(FileBeside { path: path.to_owned(), begins: bytes.get(..most).map(<[u8]>::to_vec) })
    }
}

/// A file that the config names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBeside {
    /// Where it is.
    pub path: PathBuf,
    /// How it begins; `None`: it was not looked at.
    pub begins: Option<Vec<u8>>,
}

/// The real file system and environment.
#[derive(Debug, Clone)]
pub struct SystemSecrets {
    credentials: Option<PathBuf>,
    folder: PathBuf,
}

impl SystemSecrets {
    /// Relative paths are looked up among systemd's credentials first (`$CREDENTIALS_DIRECTORY`, systemd.exec(5)),
    /// then in `folder`: the one that holds the config file.
    pub fn beside(folder: impl Into<PathBuf>) -> SystemSecrets {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        SystemSecrets { credentials: credentials.filter(|path| path.is_absolute()), folder: folder.into() }
    }

    fn open(&self, path: &Path) -> io::Result<(File, PathBuf)> {
        let open = |path: PathBuf| File::open(&path).map(|file| (file, path));
        // Only a credential that isn't there gives way: one that can't be read must not be hidden by an old file.
        match self.credentials.as_ref().filter(|_| path.is_relative()).map(|at| open(at.join(path))) {
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Some(found) => return found,
            None => {}
        }
        open(self.folder.join(path))
    }
}

impl SecretSource for SystemSecrets {
    fn file(&self, path: &Path) -> Result<String, String> {
        let (file, _) = self.open(path).map_err(|e| e.to_string())?;
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

    fn look_at(&self, path: &Path, most: u64) -> Result<FileBeside, String> {
        let (file, path) = self.open(path).map_err(|e| e.to_string())?;
        let mut begins = Vec::new();
        file.take(most).read_to_end(&mut begins).map_err(|e| e.to_string())?;
        Ok(FileBeside { path, begins: Some(begins) })
    }
}

/// What a stand-in begins with. A real secret may do so too: then nobody but ourselves is told that it is none.
const UNREAD: &str = "(unread) ";

/// Nothing is read: each secret is a stand-in of its own, since some must differ.
pub(super) struct Unread;

impl SecretSource for Unread {
    fn file(&self, path: &Path) -> Result<String, String> {
        Ok(format!("{UNREAD}file {}", path.display()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        Some(format!("{UNREAD}variable {name}"))
    }

    fn look_at(&self, path: &Path, _most: u64) -> Result<FileBeside, String> {
        Ok(FileBeside { path: path.to_owned(), begins: None })
    }
}

/// What can't be read is a stand-in.
pub(super) struct Readable(pub SystemSecrets);

impl SecretSource for Readable {
    fn file(&self, path: &Path) -> Result<String, String> {
        self.0.file(path).or_else(|_| Unread.file(path))
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name).or_else(|| Unread.variable(name))
    }

    fn look_at(&self, path: &Path, most: u64) -> Result<FileBeside, String> {
        self.0.look_at(path, most).or_else(|_| Unread.look_at(path, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_of_the_service_comes_before_a_file_beside_the_config() {
        let root = std::env::temp_dir().join(format!("watrunk-credentials-{}", std::process::id()));
        let (credentials, folder) = (root.join("credentials"), root.join("etc"));
        for (at, name) in [(&credentials, "both"), (&folder, "both"), (&folder, "beside")] {
            std::fs::create_dir_all(at).unwrap();
            std::fs::write(at.join(name), at.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        let secrets = SystemSecrets { credentials: Some(credentials), folder: folder.clone() };
        assert_eq!(secrets.file(Path::new("both")).unwrap(), "credentials");
        assert_eq!(secrets.file(Path::new("beside")).unwrap(), "etc");
        assert_eq!(secrets.file(&folder.join("both")).unwrap(), "etc", "an absolute path is meant as it is");
        assert!(secrets.file(Path::new("neither")).is_err());
        let without = SystemSecrets { credentials: None, folder };
        assert_eq!(without.file(Path::new("both")).unwrap(), "etc");
        let found = secrets.look_at(Path::new("both"), 4).unwrap();
        assert_eq!(found.begins.unwrap(), b"cred");
        assert_eq!(std::fs::read(found.path).unwrap(), b"credentials", "it can be opened again where it was");
        assert_eq!(secrets.look_at(Path::new("beside"), 9).unwrap().begins.unwrap(), b"etc");
        assert!(secrets.look_at(&root, 1).is_err(), "a folder was taken for a file");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
