//! The TOML file: read whole, every fault reported at once, each with its line and key.
//!
//! [`Config::parse`] is pure: text in, values or faults out. [`Config::read`] does the same with a real file.

mod board;
mod cross;
pub mod edit;
mod fault;
mod hooks;
mod known;
mod money;
mod pem;
mod private;
mod read;
mod reader;
pub mod recording;
mod secret;
mod sections;
mod sip;
mod template;
#[cfg(test)]
mod tests;
mod units;

use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

pub use board::{BOARD_PATH, Board, InForce, Origin};
pub use fault::{Fault, Note};
pub use private::{is_private, is_private_host};
pub use recording::{
    AnnounceTo, ConsentMode, ConsentPrompt, LANGUAGES, NumberRecording, RecordingConfig, TapeFormat,
    UploadConfig, UploadTo,
};
pub use secret::{FileBeside, KeySecret, NamedTexts, Secret, SecretSource, SystemSecrets};
pub use sections::{
    AgentConfig, Config, GatewayConfig, HttpConfig, HttpKey, MediaConfig, MintConfig, NumberConfig,
    RateConfig, RateTier, SipConfig, SipTls, SoundFile, TrunkConfig, WebhookConfig, WhatsAppConfig,
};
pub use template::{Placeholder, filled, filled_json, placeholders};
pub use units::{
    CallerId, Cidr, Codec, Destination, DtlsRole, Dtmf, EventName, HostPort, PortRange, Role, Srtp, Transport,
};

/// Where the file is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/watrunk/watrunk.toml";

/// A file with every key, explained. It loads as it is.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

impl Config {
    /// Reads the file; notes go to the log. All faults are reported, in the file's order.
    pub fn load(path: &Path) -> Result<Config, Vec<Fault>> {
        let (config, notes) = Config::read(path)?;
        for note in notes {
            tracing::info!("{}", note.in_file(path));
        }
        Ok(config)
    }

    /// Reads the file. All faults are reported, in the file's order; the notes likewise.
    pub fn read(path: &Path) -> Result<(Config, Vec<Note>), Vec<Fault>> {
        Config::inspect(path).map(|found| (found.config, found.notes))
    }

    /// Reads the file, but not the files and variables that hold its secrets: for those who only want to know
    /// where things are. Secrets given in another way than in place are meaningless then.
    pub fn read_without_secrets(path: &Path) -> Result<(Config, Vec<Note>), Vec<Fault>> {
        Inspected::read(path, &secret::Unread).map(|found| (found.config, found.notes))
    }

    /// Reads the file, and those of its secrets that may be read; the others are stand-ins
    /// ([`Secret::is_stand_in`]).
    pub fn read_what_may_be_read(path: &Path) -> Result<Config, Vec<Fault>> {
        let secrets = SystemSecrets::beside(path.parent().unwrap_or(Path::new(".")));
        Inspected::read(path, &secret::Readable(secrets)).map(|found| found.config)
    }

    /// Reads the file, and tells where its values came from.
    pub fn inspect(path: &Path) -> Result<Inspected, Vec<Fault>> {
        Inspected::read(path, &SystemSecrets::beside(path.parent().unwrap_or(Path::new("."))))
    }

    /// Reads a text as if it were that file's: with the secrets beside it and on this machine's board.
    ///
    /// # Errors
    /// All faults, in the text's order.
    pub fn parse_as(text: &str, path: &Path) -> Result<Config, Vec<Fault>> {
        let board = Board::of_machine(std::env::var_os("WATRUNK_BOARD").as_deref())?;
        parse(text, &SystemSecrets::beside(path.parent().unwrap_or(Path::new("."))), &board).value
    }

    /// Reads a text, on no board in particular. Secrets by `*_file` and `*_env` come from `secrets`. All faults
    /// are reported, in the text's order; the notes likewise.
    pub fn parse(text: &str, secrets: &dyn SecretSource) -> Result<(Config, Vec<Note>), Vec<Fault>> {
        let outcome = parse(text, secrets, &Board::default());
        outcome.value.map(|config| (config, outcome.notes))
    }
}

/// The text of a config file and what is known about the file, unchecked.
///
/// # Errors
/// It can't be read, is too large or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<(String, std::fs::Metadata), Fault> {
    text_of(path).map_err(|(fault, _)| fault)
}

/// A config file that could be read, and what there is to say about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its values.
    pub config: Config,
    /// In the file's order.
    pub notes: Vec<Note>,
    /// What lay under the file.
    pub board: Board,
    /// The settings that a board can make, and who made them.
    pub in_force: Vec<InForce>,
}

impl Inspected {
    fn read(path: &Path, secrets: &dyn SecretSource) -> Result<Inspected, Vec<Fault>> {
        let board = Board::of_machine(std::env::var_os("WATRUNK_BOARD").as_deref())?;
        let (text, about) = text_of(path).map_err(|(fault, _)| vec![fault])?;
        let outcome = parse(&text, secrets, &board);
        let config = outcome.value?;
        let mut notes = outcome.notes;
        let mode = about.permissions().mode() & 0o777;
        // root's file, readable by a group: so a service may read what it may not write.
        let others = if about.uid() == 0 { 0o037 } else { 0o077 };
        if outcome.secrets_in_place && mode & others != 0 {
            let what = format!("holds secrets, but others may touch it (mode {mode:04o}): chmod 0600");
            notes.insert(0, Note { line: 0, column: 0, key: String::new(), what });
        }
        Ok(Inspected { config, notes, board, in_force: outcome.in_force })
    }
}

fn parse(text: &str, secrets: &dyn SecretSource, board: &Board) -> reader::Outcome<Config> {
    reader::Reader::new(text, secrets).document(known::ROOT, |r, root| read::config(r, root, board))
}

/// A file's text, and what is known about the file. The kind is that of the system's error, if it was one.
fn text_of(path: &Path) -> Result<(String, std::fs::Metadata), (Fault, Option<ErrorKind>)> {
    let unread = |e: std::io::Error| (Fault::of_file(format!("can't be read: {e}")), Some(e.kind()));
    let file = std::fs::File::open(path).map_err(unread)?;
    let about = file.metadata().map_err(unread)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err((Fault::of_file(format!("is larger than {MAX_FILE} bytes")), None));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = e.as_bytes().iter().take(good).filter(|b| **b == b'\n').count() + 1;
        (Fault::of_file(format!("is not UTF-8: the first bad byte is in line {line}")), None)
    })?;
    Ok((text, about))
}
