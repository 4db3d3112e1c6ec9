//! The disk's thread: records are written here, one after the other, away from signalling and sound.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::call::record::Record;
use crate::gateway::{CallKey, Input};
use crate::ledger::Ledger;

/// Records that may wait for a slow disk.
const WAITING: usize = 1_024;

/// Tries and pauses of one record: a disk that is busy for longer than this has lost it.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// The handle to the thread.
pub struct Disk {
    records: SyncSender<(CallKey, Box<Record>)>,
    thread: std::thread::JoinHandle<()>,
    to_gateway: mpsc::Sender<Input>,
}

impl Disk {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(ledger: Ledger, to_gateway: mpsc::Sender<Input>) -> Result<Disk, String> {
        let (records, waiting) = sync_channel(WAITING);
        let written = to_gateway.clone();
        let thread = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || write(ledger, &waiting, &written))
            .map_err(|error| format!("the disk's thread can't be started: {error}"))?;
        Ok(Disk { records, thread, to_gateway })
    }

    /// Closes the history: everything is in its one file then.
    pub fn close(self) {
        let Disk { records, thread, .. } = self;
        drop(records);
        if thread.join().is_err() {
            tracing::error!("the disk's thread panicked: this is a bug");
        }
    }

    /// Writes a record; the gateway is told when it is on the disk or given up.
    pub fn record(&self, call: CallKey, record: Box<Record>) {
        if let Err(error) = self.records.try_send((call, record)) {
            tracing::warn!(%error, "a call's record is lost: the disk does not keep up");
            let _ = self.to_gateway.try_send(Input::Written { call });
        }
    }
}

fn write(mut ledger: Ledger, waiting: &Receiver<(CallKey, Box<Record>)>, written: &mpsc::Sender<Input>) {
    while let Ok((call, record)) = waiting.recv() {
        for left in (0..TRIES).rev() {
            match ledger.insert(&record) {
                Ok(()) => break,
                Err(error) if left > 0 => {
                    tracing::warn!(call = %record.id, %error, "a call's record can't be written, trying again");
                    std::thread::sleep(PAUSE);
                }
                Err(error) => tracing::warn!(call = %record.id, %error, "a call's record is lost"),
            }
        }
        if written.blocking_send(Input::Written { call }).is_err() {
            return;
        }
    }
}
