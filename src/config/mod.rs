//! The TOML file: read whole, every fault reported at once, each with its line and key.
//!
//! [`Config::parse`] is pure: text in, values or faults out. [`Config::read`] does the same with a real file.

mod cross;
mod fault;
mod known;
mod read;
mod reader;
mod secret;
mod sections;
#[cfg(test)]
mod tests;
mod units;

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

pub use fault::{Fault, Note};
pub use secret::{Secret, SecretSource, SystemSecrets};
pub use sections::{
    Config, GatewayConfig, HttpConfig, HttpKey, MediaConfig, NumberConfig, SipConfig, TrunkConfig,
    WhatsAppConfig,
};
pub use units::{CallerId, Cidr, Codec, Destination, DtlsRole, Dtmf, HostPort, PortRange, Role, Srtp};

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
        Config::read_with(path, &SystemSecrets::beside(path.parent().unwrap_or(Path::new("."))))
    }

    /// Reads the file, but not the files and variables that hold its secrets: for those who only want to know
    /// where things are. Secrets given in another way than in place are meaningless then.
    pub fn read_without_secrets(path: &Path) -> Result<(Config, Vec<Note>), Vec<Fault>> {
        Config::read_with(path, &secret::Unread)
    }

    fn read_with(path: &Path, secrets: &dyn SecretSource) -> Result<(Config, Vec<Note>), Vec<Fault>> {
        let alone = |what: String| vec![Fault::of_file(what)];
        let file = std::fs::File::open(path).map_err(|e| alone(format!("can't be read: {e}")))?;
        let about = file.metadata().map_err(|e| alone(format!("can't be read: {e}")))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| alone(format!("can't be read: {e}")))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(alone(format!("is larger than {MAX_FILE} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let good = e.utf8_error().valid_up_to();
            let line = e.as_bytes().iter().take(good).filter(|b| **b == b'\n').count() + 1;
            alone(format!("is not UTF-8: the first bad byte is in line {line}"))
        })?;

        let outcome = parse(&text, secrets);
        let config = outcome.value?;
        let mut notes = outcome.notes;
        let mode = about.permissions().mode() & 0o777;
        if outcome.secrets_in_place && mode & 0o077 != 0 {
            let what = format!("holds secrets, but others may touch it (mode {mode:04o}): chmod 0600");
            notes.insert(0, Note { line: 0, column: 0, key: String::new(), what });
        }
        Ok((config, notes))
    }

    /// Reads a text. Secrets by `*_file` and `*_env` come from `secrets`. All faults are reported, in the
    /// text's order; the notes likewise.
    pub fn parse(text: &str, secrets: &dyn SecretSource) -> Result<(Config, Vec<Note>), Vec<Fault>> {
        let outcome = parse(text, secrets);
        outcome.value.map(|config| (config, outcome.notes))
    }
}

fn parse(text: &str, secrets: &dyn SecretSource) -> reader::Outcome<Config> {
    reader::Reader::new(text, secrets).document(read::config)
}
