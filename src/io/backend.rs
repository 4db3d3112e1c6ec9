//! What the shell does for the doors of `control`: questions to the hall, to the disk and to the file.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use tokio::fs::File;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::capture::Capture;
use super::config_file::{ConfigFile, EditError};
use super::deliver::Post;
use super::disk::Disk;
use super::live::Newsroom;
use super::{clock, random};
use crate::call::leg::Why;
use crate::clock::Now;
use crate::config::edit::Edit;
use crate::config::{Config, WebhookConfig};
use crate::control::{Backend, EditFault, Fired, Live, Packet, events};
use crate::gateway::desk::{Answer, Command, Refusal, Ticket};
use crate::gateway::{Input, Settings};
use crate::ledger::{Ledger, LedgerError, RECORDINGS};

/// The hall answers at once, or when Meta has: Graph's own patience is shorter.
const PATIENCE: Duration = Duration::from_secs(19);

type Waiting = oneshot::Sender<Result<Answer, Refusal>>;

/// The desk of a running gateway.
pub struct Desk {
    to_gateway: mpsc::Sender<Input>,
    waiting: Mutex<BTreeMap<Ticket, Waiting>>,
    next: AtomicU64,
    disk: Disk,
    news: Arc<Newsroom>,
    post: Post,
    capture: Arc<Capture>,
    file: Option<PathBuf>,
    recordings: PathBuf,
    /// Whoever edits the file puts it into force before the next one edits: the last to write is the last to say.
    editing: tokio::sync::Mutex<()>,
}

impl Desk {
    /// A desk where nobody waits. Without a `file` nothing can be changed for good. Recordings are in `state_dir`.
    pub fn new(
        to_gateway: mpsc::Sender<Input>,
        disk: Disk,
        news: Arc<Newsroom>,
        post: Post,
        capture: Arc<Capture>,
        file: Option<PathBuf>,
        state_dir: &Path,
    ) -> Desk {
        Desk {
            to_gateway,
            waiting: Mutex::new(BTreeMap::new()),
            next: AtomicU64::new(1),
            disk,
            news,
            post,
            capture,
            file,
            recordings: state_dir.join(RECORDINGS),
            editing: tokio::sync::Mutex::new(()),
        }
    }

    /// The hall has answered.
    pub fn told(&self, ticket: Ticket, answer: Result<Answer, Refusal>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    fn forget(&self, ticket: Ticket) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
    }
}

/// Where a recording is. Its name comes from the ledger, and leads nowhere else whatever the ledger says.
fn inside(folder: &Path, file: &str) -> std::io::Result<PathBuf> {
    let mut parts = Path::new(file).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => Ok(folder.join(name)),
        _ => Err(Error::new(ErrorKind::InvalidInput, "the ledger names no file of the folder")),
    }
}

/// A question that is given up, by time or by a client that leaves, waits no longer.
struct Asked<'a>(&'a Desk, Ticket);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

impl Backend for Desk {
    fn now(&self) -> Now {
        clock::now()
    }

    fn config(&self) -> Arc<Config> {
        self.news.config()
    }

    async fn command(&self, command: Command) -> Result<Answer, Refusal> {
        let ticket = Ticket(self.next.fetch_add(1, Ordering::Relaxed));
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, tell);
        let asked = Asked(self, ticket);
        if self.to_gateway.try_send(Input::Asked { ticket, command }).is_err() {
            return Err(Refusal::Full);
        }
        let answer = tokio::time::timeout(PATIENCE, told).await;
        drop(asked);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Refusal::Failed {
                id: String::new(),
                why: Why::Fault,
                detail: "the gateway did not answer in time".to_owned(),
            }),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.disk.read(work).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let written = self.disk.write(work).await;
        // It may have been an event that is to be sent once more.
        self.news.wake();
        written
    }

    async fn edit(&self, edits: Vec<Edit>) -> Result<Arc<Config>, EditFault> {
        let Some(path) = self.file.clone() else {
            return Err(EditFault::Unwritable("this gateway was started without a file".to_owned()));
        };
        let _turn = self.editing.lock().await;
        let edited = tokio::task::spawn_blocking(move || ConfigFile::new(path).edit(&edits)).await;
        let config = match edited {
            Ok(Ok(config)) => config,
            Ok(Err(EditError::Edit(fault))) => return Err(fault.into()),
            Ok(Err(error)) => return Err(EditFault::Unwritable(error.to_string())),
            Err(error) => return Err(EditFault::Unwritable(error.to_string())),
        };
        let settings = Settings::from_config(&config);
        let config = self.news.replace(config);
        let _ = self.to_gateway.send(Input::Reload(Box::new(settings))).await;
        Ok(config)
    }

    fn live(&self) -> impl Stream<Item = Live> + Send + use<> {
        futures_util::stream::unfold(self.news.listen(), |mut heard| async move {
            loop {
                match heard.recv().await {
                    Ok(event) => return Some((event, heard)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    async fn fire(&self, webhook: WebhookConfig, event: events::Event) -> Fired {
        self.post.fire(&webhook, &event).await
    }

    fn capture(&self, on: Option<bool>) -> bool {
        if let Some(on) = on.filter(|on| *on != self.capture.is_on()) {
            tracing::info!(on, "tracing of sound");
            self.capture.switch(on);
        }
        self.capture.is_on()
    }

    fn captured(&self, call: &str) -> Vec<Packet> {
        self.capture.of(call)
    }

    fn link_key(&self) -> &[u8; 32] {
        random::link_key()
    }

    async fn open_recording(&self, file: &str) -> std::io::Result<(File, u64)> {
        let file = File::open(inside(&self.recordings, file)?).await?;
        let about = file.metadata().await?;
        if !about.is_file() {
            return Err(Error::new(ErrorKind::InvalidInput, "it is no file"));
        }
        Ok((file, about.len()))
    }

    async fn delete_recording(&self, file: &str) -> std::io::Result<()> {
        tokio::fs::remove_file(inside(&self.recordings, file)?).await?;
        // After a power cut it is not there again.
        File::open(&self.recordings).await?.sync_all().await
    }

    fn request_id(&self) -> String {
        random::uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_looked_for_in_its_folder_and_nowhere_else() {
        let folder = Path::new("/state/recordings");
        assert_eq!(inside(folder, "call_1.wav.age").unwrap(), folder.join("call_1.wav.age"));
        for bad in ["", ".", "..", "../calls.db", "/etc/passwd", "a/b", "a/../../calls.db", "./a/b"] {
            assert_eq!(inside(folder, bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }
}
