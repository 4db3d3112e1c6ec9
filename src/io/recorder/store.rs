//! The folder of recordings, as little of it as is needed: so that a slow, full or failing disk can be tried.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use crate::clock::Wall;

/// Files that are looked at in one go.
pub const MOST_LISTED: usize = 20_000;

/// A folder. Names are plain: [`is_plain`].
pub trait Store: Send + Sync {
    /// A new file, in a folder that is made if it isn't there.
    fn create(&self, name: &str) -> io::Result<Box<dyn Sheet>>;
    /// One that is there, to be read and changed.
    fn open(&self, name: &str) -> io::Result<Box<dyn Sheet>>;
    /// Another name, for good: a power cut does not take it back.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// It goes.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// What is there, up to [`MOST_LISTED`], in no order; nothing if there is no folder.
    fn list(&self) -> io::Result<Vec<Found>>;
    /// Bytes that can still be written.
    fn free(&self) -> io::Result<u64>;
}

/// A file. Everything is done at a place that is named, so that it can be done again.
pub trait Sheet: Send {
    /// Reads what is there; 0: nothing more.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of it.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// What was written survives a power cut.
    fn sync(&self) -> io::Result<()>;
    /// Makes it this long.
    fn cut(&self, bytes: u64) -> io::Result<()>;
    /// How long it is, in bytes.
    fn bytes(&self) -> io::Result<u64>;
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// When it was last written.
    pub changed: Wall,
}

/// Whether this is a name, and not a way out of the folder.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// The real one.
pub struct Folder(PathBuf);

impl Folder {
    /// It need not be there yet.
    pub fn new(path: PathBuf) -> Folder {
        Folder(path)
    }

    fn at(&self, name: &str) -> io::Result<PathBuf> {
        match is_plain(name) {
            true => Ok(self.0.join(name)),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no file's name")),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl Store for Folder {
    fn create(&self, name: &str) -> io::Result<Box<dyn Sheet>> {
        let path = self.at(name)?;
        // Someone may have put a link to another disk here: that is as good as a folder.
        if !self.0.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        }
        // Voices are in it, and umask is not to be asked.
        if fs::metadata(&self.0)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        if let Err(error) = self.sync() {
            // It is tried again, and must not be there then.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Sheet>> {
        let path = self.at(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        match file.metadata()?.is_file() {
            true => Ok(Box::new(file)),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file")),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from)?, self.at(to)?)?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name)?)
    }

    fn list(&self) -> io::Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries.take(MOST_LISTED) {
            let entry = entry?;
            let (Ok(name), Ok(about)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if !about.is_file() || !is_plain(&name) {
                continue;
            }
            let changed = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let changed = changed.and_then(|since| i64::try_from(since.as_millis()).ok());
            found.push(Found { name, changed: Wall(changed.unwrap_or_default()) });
        }
        Ok(found)
    }

    fn free(&self) -> io::Result<u64> {
        // Before the first recording there is only the folder above.
        let there = if self.0.is_dir() { Some(self.0.as_path()) } else { self.0.parent() };
        let there = there.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let about = nix::sys::statvfs::statvfs(there)?;
        // These are 32 bits wide on some hosts.
        #[allow(clippy::useless_conversion)]
        let (blocks, size) = (u64::from(about.blocks_available()), u64::from(about.fragment_size()));
        Ok(blocks.saturating_mul(size))
    }
}

impl Sheet for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// A file from its beginning to its end.
pub struct Reading<'a> {
    sheet: &'a dyn Sheet,
    at: u64,
    until: u64,
}

impl<'a> Reading<'a> {
    /// From the beginning, `until` this byte at most.
    pub fn new(sheet: &'a dyn Sheet, until: u64) -> Reading<'a> {
        Reading { sheet, at: 0, until }
    }
}

impl io::Read for Reading<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.until.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let read = self.sheet.read_at(&mut into[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for bad in ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b"] {
            assert!(!is_plain(bad), "{bad:?}");
        }
        assert!(is_plain("call_0123456789abcdef01234567.wav.age.part"));
    }
}
