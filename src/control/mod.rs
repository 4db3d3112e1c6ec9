//! THE DOORS: what people and programs may ask of a running gateway over HTTP, and what they are told.
//!
//! Paths, names, limits and codes are those of Zernio's API for WhatsApp calling, so that its SDKs work with
//! nothing changed but the base URL and the key; what is ours beside it is said in the description
//! (`/openapi.json`). Every answer of a running call comes from the hall's vocabulary ([`crate::gateway::desk`]),
//! every answer about the past from the ledger. This room holds no socket and no clock: the shell implements
//! [`Backend`] and serves [`router`].
//!
//! ```text
//! request ─▶ request id ─▶ key, role ─▶ limit ─▶ body, query ─▶ operation ─▶ Command / ledger / file ─▶ JSON
//!                 └───────────── whatever goes wrong on the way: one envelope (fault) ──────────────┘
//! ```

mod ask;
mod auth;
mod calls;
mod country;
mod description;
pub mod events;
mod fault;
mod ladder;
mod limit;
mod links;
mod numbers;
mod operations;
mod permissions;
mod place;
mod playback;
mod reach;
mod recordings;
mod refusal;
mod sample;
mod serve;
mod stamp;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod trace;
mod twilio;
mod usage;
mod webhooks;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::Stream;
use tokio::fs::File;

pub use events::Live;
pub use links::Signer;
pub use recordings::Told;
pub use serve::router;
pub use usage::rates;

use crate::clock::{Now, Wall};
use crate::config::edit::{self, Edit};
use crate::config::{Config, WebhookConfig};
use crate::gateway::desk::{Answer, Command, Refusal};
use crate::ledger::{Ledger, LedgerError};

/// What the shell does for the doors.
pub trait Backend: Send + Sync + 'static {
    /// Both clocks.
    fn now(&self) -> Now;

    /// The file in force.
    fn config(&self) -> Arc<Config>;

    /// Asks the hall.
    fn command(&self, command: Command) -> impl Future<Output = Result<Answer, Refusal>> + Send;

    /// Reads the ledger, away from the async threads.
    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> impl Future<Output = Result<T, LedgerError>> + Send;

    /// Writes the ledger, away from the async threads.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> impl Future<Output = Result<T, LedgerError>> + Send;

    /// Writes these edits into the TOML file, all or none, and reloads it.
    fn edit(&self, edits: Vec<Edit>) -> impl Future<Output = Result<Arc<Config>, EditFault>> + Send;

    /// What happens from now on. A reader that is too slow misses some.
    fn live(&self) -> impl Stream<Item = Live> + Send + use<Self>;

    /// Delivers one event to one webhook now, once, without the spool, and writes it into the log.
    fn fire(&self, webhook: WebhookConfig, event: events::Event) -> impl Future<Output = Fired> + Send;

    /// Keep the sound towards and from the PBX, or no more; `None`: only ask. Whether it is kept.
    fn capture(&self, on: Option<bool>) -> bool;

    /// What was kept of a call's sound, the oldest first.
    fn captured(&self, call: &str) -> Vec<Packet>;

    /// What signs links to recordings: random, and the same as long as the process lives.
    fn link_key(&self) -> &[u8; 32];

    /// Opens the file with this name ([`crate::ledger::TapeRow::file`]) in the folder of recordings, and says how many
    /// bytes it has.
    fn open_recording(&self, file: &str) -> impl Future<Output = io::Result<(File, u64)>> + Send;

    /// Deletes it from the disk. The ledger is told by whoever asks.
    fn delete_recording(&self, file: &str) -> impl Future<Output = io::Result<()>> + Send;

    /// A fresh random id of a request or an event: a UUID.
    fn request_id(&self) -> String;
}

/// A datagram as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// When it left or came.
    pub at: Wall,
    /// From where.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

/// Why the file was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditFault {
    /// The file would not be valid: the caller asked for something that can't be.
    Invalid(String),
    /// The file can't be read or written, or isn't valid as it is: somebody must look at it.
    Unwritable(String),
}

impl fmt::Display for EditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditFault::Invalid(what) | EditFault::Unwritable(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for EditFault {}

impl From<edit::EditFault> for EditFault {
    fn from(fault: edit::EditFault) -> EditFault {
        let what = fault.to_string();
        match fault {
            edit::EditFault::Before(_) => EditFault::Unwritable(what),
            edit::EditFault::NoNumber(_) | edit::EditFault::NoWebhook(_) | edit::EditFault::After(_) => {
                EditFault::Invalid(what)
            }
        }
    }
}

/// How a delivery went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What went wrong; `None`: it was taken (2xx).
    pub error: Option<String>,
}

/// Where a request comes from. The shell puts it into the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source(pub IpAddr);

/// Bytes in lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)]).collect()
}
