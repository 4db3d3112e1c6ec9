//! The config file as programs change it: read anew, checked, and replaced in one step. Whoever looks sees the
//! old file or the new one, even if the power goes.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::edit::{Edit, EditFault, apply};
use crate::config::{Config, Fault, read_text};

/// How often a lock that somebody else has is tried for, and how long apart: 5 s together.
const LOCK_TRIES: u32 = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How often an edit begins anew because the file was changed by hand meanwhile.
const BEGINNINGS: u32 = 5;

/// The one config file of the gateway.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
}

/// Why the file is as it was.
#[derive(Debug)]
pub enum EditError {
    /// The edit itself: what it asks for can't be so.
    Edit(EditFault),
    /// The file can't be read.
    Unreadable(Fault),
    /// The file can't be written; what is said tells what to do about it.
    Unwritable(String),
    /// Somebody else is changing it all the time: try again.
    Busy,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditError::Edit(fault) => fault.fmt(f),
            EditError::Unreadable(fault) => write!(f, "the config file {}", fault.what),
            EditError::Unwritable(why) => f.write_str(why),
            EditError::Busy => f.write_str("the config file is being changed by somebody else: try again"),
        }
    }
}

impl std::error::Error for EditError {}

impl ConfigFile {
    /// The file at this path. It is not looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> ConfigFile {
        ConfigFile { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Carries out the edits on the file as it is now, and gives back what it says then. May wait for the disk and
    /// for others who edit: not for an async task's own thread.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn edit(&self, edits: &[Edit]) -> Result<Config, EditError> {
        // Through symbolic links: replaced is the file, not the link.
        let path = fs::canonicalize(&self.path).map_err(|error| unreadable(&error))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let folder_file = File::open(folder).map_err(|error| unreadable(&error))?;
        lock(&folder_file)?;
        for _ in 0..BEGINNINGS {
            let (before, about) = read_text(&path).map_err(EditError::Unreadable)?;
            let after = apply(&before, edits).map_err(EditError::Edit)?;
            let config = Config::parse_as(&after, &path).map_err(|faults| {
                // With the secrets read: what was wrong before is no fault of the edit.
                EditError::Edit(match Config::parse_as(&before, &path) {
                    Ok(_) => EditFault::After(faults),
                    Err(faults) => EditFault::Before(faults),
                })
            })?;
            if after == before {
                return Ok(config);
            }
            let new = NewFile::write(&path, &after, &about).map_err(|error| unwritable(&path, &error))?;
            // An editor knows no locks. What it has saved meanwhile is edited in the next round.
            if read_text(&path).is_ok_and(|(now, _)| now == before) {
                new.take_the_place_of(&path).map_err(|error| unwritable(&path, &error))?;
                folder_file.sync_all().map_err(|error| unwritable(&path, &error))?;
                return Ok(config);
            }
        }
        Err(EditError::Busy)
    }
}

/// Given up when the folder is closed.
fn lock(folder: &File) -> Result<(), EditError> {
    for _ in 0..LOCK_TRIES {
        match folder.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            // A file system without locks: there is one gateway, and that edits one after the other.
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, "the config folder can't be locked");
                return Ok(());
            }
        }
    }
    Err(EditError::Busy)
}

/// A file beside the real one, on the disk, with its mode and owner; gone again unless it takes its place.
struct NewFile {
    path: PathBuf,
    placed: bool,
}

impl NewFile {
    fn write(beside: &Path, text: &str, like: &fs::Metadata) -> io::Result<NewFile> {
        let path = NewFile::path(beside);
        // One that a lost process has left behind: nobody else uses the name while we have the lock.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let new = NewFile { path, placed: false };
        let (uid, gid) = (like.uid(), like.gid());
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (uid, gid) && fchown(&file, Some(uid), Some(gid)).is_err() {
            // Only root may give files away. The group decides who else reads it.
            tracing::info!("the config file belongs to the gateway's own user now");
            if made.gid() != gid {
                fchown(&file, None, Some(gid))?;
            }
        }
        // After the owner: a change of that may take bits away.
        file.set_permissions(fs::Permissions::from_mode(like.permissions().mode() & 0o777))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(new)
    }

    fn path(beside: &Path) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(beside.file_name().unwrap_or_default());
        name.push(".new");
        beside.with_file_name(name)
    }

    fn take_the_place_of(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn unreadable(error: &io::Error) -> EditError {
    EditError::Unreadable(Fault::of_file(format!("can't be read: {error}")))
}

/// What went wrong, and what an admin can do about it.
fn unwritable(path: &Path, error: &io::Error) -> EditError {
    let folder = path.parent().unwrap_or(Path::new("/")).display();
    let cure = match error.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            format!("{folder} is read-only here: give the systemd unit ReadWritePaths={folder}")
        }
        ErrorKind::PermissionDenied => format!(
            "{folder} must belong to the user of the gateway, and the systemd unit needs ReadWritePaths={folder}"
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "the disk is full: make room".to_owned(),
        ErrorKind::ResourceBusy => {
            format!(
                "the file is mounted by itself: mount its folder {folder} instead, so that it can be replaced"
            )
        }
        _ => format!("see whether files can be made in {folder}"),
    };
    EditError::Unwritable(format!("the config file {} can't be changed ({error}); {cure}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::config::edit::{EditValue, WebhookEdit};

    const TEXT: &str = r#"# by hand
[whatsapp]
app_secret = "app-s3cret"
access_token_file = "token"
verify_token = "verify-s3cret"

[[trunk]]
name = "pbx"
server = "sip:192.168.1.10"
register = false

[[number]]
id = "support"
phone_number_id = "106540352242922"
phone_number = "+15550100100"
forward_to = "sip:200@pbx" # the desk
"#;

    /// A folder with the file and its secret, gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("watrunk-edit-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("token"), "token-s3cret\n").unwrap();
            fs::write(folder.join("watrunk.toml"), TEXT).unwrap();
            fs::set_permissions(folder.join("watrunk.toml"), fs::Permissions::from_mode(0o640)).unwrap();
            Folder(folder)
        }

        fn path(&self) -> PathBuf {
            self.0.join("watrunk.toml")
        }

        fn text(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> =
                names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn cap(seconds: u64) -> [Edit; 1] {
        let set = vec![("max_call_seconds", Some(EditValue::Whole(seconds)))];
        [Edit::Number { id: "support".into(), set }]
    }

    #[test]
    fn an_edit_is_in_the_file_with_its_mode_and_owner_and_nothing_is_left_beside_it() {
        let folder = Folder::new("plain");
        let before = fs::metadata(folder.path()).unwrap();
        fs::write(folder.0.join(".watrunk.toml.new"), "left behind by a lost process").unwrap();
        let config = ConfigFile::new(folder.path()).edit(&cap(60)).unwrap();
        assert_eq!(config.numbers[0].max_call_seconds, Some(60));
        assert_eq!(config.whatsapp.access_token.expose(), "token-s3cret", "secrets are read as ever");
        assert_eq!(folder.text(), format!("{TEXT}max_call_seconds = 60\n"));
        let after = fs::metadata(folder.path()).unwrap();
        assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino(), "it was replaced, not written over");
        assert_eq!(folder.names(), ["token", "watrunk.toml"]);
        // The same again says nothing new: the file is not touched.
        ConfigFile::new(folder.path()).edit(&cap(60)).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().ino(), after.ino());
        assert_eq!(Config::load(&folder.path()).unwrap(), config);
    }

    #[test]
    fn what_was_changed_by_hand_meanwhile_is_kept() {
        let folder = Folder::new("hand");
        let file = ConfigFile::new(folder.path());
        file.edit(&cap(60)).unwrap();
        fs::write(folder.path(), folder.text().replace("sip:200", "sip:201").replace("# by hand", "# again"))
            .unwrap();
        let config = file.edit(&cap(70)).unwrap();
        assert_eq!(config.numbers[0].forward_to.as_ref().unwrap().to_string(), "sip:201@pbx");
        assert!(folder.text().starts_with("# again\n"));
        assert!(folder.text().ends_with("max_call_seconds = 70\n"));
    }

    #[test]
    fn a_symbolic_link_stays_one_and_its_file_is_changed() {
        let folder = Folder::new("link");
        let real = folder.0.join("real");
        fs::create_dir(&real).unwrap();
        fs::rename(folder.path(), real.join("box.toml")).unwrap();
        fs::rename(folder.0.join("token"), real.join("token")).unwrap();
        std::os::unix::fs::symlink("real/box.toml", folder.path()).unwrap();
        ConfigFile::new(folder.path()).edit(&cap(60)).unwrap();
        assert!(fs::symlink_metadata(folder.path()).unwrap().is_symlink());
        assert!(fs::read_to_string(real.join("box.toml")).unwrap().ends_with("max_call_seconds = 60\n"));
    }

    #[test]
    fn what_would_not_load_is_refused_and_the_file_stays() {
        let folder = Folder::new("refused");
        let file = ConfigFile::new(folder.path());
        let error = file.edit(&cap(5)).unwrap_err();
        assert!(matches!(&error, EditError::Edit(EditFault::After(_))), "{error}");
        assert!(error.to_string().contains("number.max_call_seconds: must be at least 10"), "{error}");
        fs::remove_file(folder.0.join("token")).unwrap();
        let error = file.edit(&cap(60)).unwrap_err();
        assert!(matches!(&error, EditError::Edit(EditFault::Before(_))), "{error}");
        assert!(error.to_string().contains("whatsapp.access_token_file: can't read"), "{error}");
        assert_eq!((folder.text().as_str(), folder.names()), (TEXT, vec!["watrunk.toml".to_owned()]));
        fs::remove_file(folder.path()).unwrap();
        let error = file.edit(&cap(60)).unwrap_err();
        assert!(error.to_string().starts_with("the config file can't be read: No such file"), "{error}");
    }

    #[test]
    fn a_folder_where_nothing_can_be_made_is_told_with_what_to_do() {
        let folder = Folder::new("unwritable");
        // A folder has taken the name that is needed.
        fs::create_dir(folder.0.join(".watrunk.toml.new")).unwrap();
        let error = ConfigFile::new(folder.path()).edit(&cap(60)).unwrap_err();
        assert!(matches!(error, EditError::Unwritable(_)), "{error}");
        assert_eq!(folder.text(), TEXT);
        let said = |kind: ErrorKind| unwritable(Path::new("/etc/watrunk/w.toml"), &kind.into()).to_string();
        for kind in [ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied] {
            let said = said(kind);
            assert!(said.starts_with("the config file /etc/watrunk/w.toml can't be changed ("), "{said}");
            assert!(said.ends_with("ReadWritePaths=/etc/watrunk"), "{said}");
        }
        assert!(said(ErrorKind::StorageFull).ends_with("the disk is full: make room"));
        assert!(said(ErrorKind::ResourceBusy).contains("mount its folder /etc/watrunk instead"));
    }

    struct Finished<'a>(&'a AtomicBool);

    impl Drop for Finished<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn edits_at_the_same_time_are_all_there_and_nobody_sees_half_a_file() {
        let folder = Folder::new("many");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Whatever becomes of a writer, the reader ends.
            let finished = Finished(&done);
            let reader = scope.spawn(|| {
                let mut seen = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    let config = Config::load(&folder.path()).unwrap();
                    assert_eq!(config.numbers.len(), 1);
                    seen += 1;
                }
                seen
            });
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let file = ConfigFile::new(folder.path());
                    scope.spawn(move || {
                        for n in 0..5 {
                            let id = format!("w{writer}-{n}");
                            let url = Some(format!("https://a.example/{id}"));
                            let put = WebhookEdit { id, url, ..WebhookEdit::default() };
                            // A slow disk makes others wait for longer than an edit does: told, and done again.
                            while let Err(error) = file.edit(&[Edit::PutWebhook(put.clone())]) {
                                assert!(matches!(error, EditError::Busy), "{error:?}");
                            }
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
            drop(finished);
            assert!(reader.join().unwrap() > 0);
        });
        assert_eq!(Config::load(&folder.path()).unwrap().webhooks.len(), 20);
        assert_eq!(folder.names(), ["token", "watrunk.toml"]);
    }

    const CHILD: &str = "WATRUNK_TEST_EDITS_OF";

    /// Nothing unless it runs as the child of the next test: then it edits until it is killed.
    #[test]
    fn edits_until_killed() {
        let Some(path) = std::env::var_os(CHILD) else { return };
        let file = ConfigFile::new(PathBuf::from(path));
        let mut out = io::stdout();
        for n in 0_u64.. {
            let seconds = 60 + n % 1_000;
            file.edit(&cap(seconds)).unwrap();
            writeln!(out, "\nedited {seconds}").unwrap();
        }
    }

    #[test]
    fn a_process_killed_at_any_point_leaves_the_old_file_or_the_new_one() {
        let folder = Folder::new("killed");
        for round in 0..12_usize {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "io::config_file::tests::edits_until_killed"])
                .env(CHILD, folder.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            let edited = lines.filter_map(|l| l.strip_prefix("edited ")?.parse::<u64>().ok());
            // At least one is done, and the next is under way or done too.
            let last = edited.take(1 + round % 4).last().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            let config = Config::load(&folder.path()).unwrap();
            let found = config.numbers[0].max_call_seconds.unwrap();
            assert!(found >= last, "{found} is older than {last}, which was done");
            assert!(folder.text().starts_with(TEXT), "something else was changed");
        }
        // Whatever the last one has left behind is in nobody's way.
        ConfigFile::new(folder.path()).edit(&cap(50)).unwrap();
        assert_eq!(folder.names(), ["token", "watrunk.toml"]);
    }
}
