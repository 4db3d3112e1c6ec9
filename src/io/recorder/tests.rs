//! The recorder against disks that are slow, full, cut off or gone.

use crate::call::recording::{Finished, Outcome};
use crate::clock::Wall;
use crate::ledger::{TapeRow, TapeState, UploadState};

/// A recording that is kept.
pub fn row(call: &str) -> TapeRow {
    TapeRow {
        call: call.to_owned(),
        number: "shop".to_owned(),
        account: "acme".to_owned(),
        file: format!("{call}.wav"),
        form: "wav-pcm-8000".to_owned(),
        encrypted: false,
        began_at: Wall(1_795_392_000_000),
        state: TapeState::Kept,
        finished: Finished { outcome: Outcome::Complete, bytes: 1_000, ..Finished::default() },
        expires_at: None,
        upload: UploadState::None,
        upload_tries: 0,
        upload_next: None,
        upload_error: None,
        uploaded_at: None,
        uploaded_to: None,
        local: true,
        deleted_at: None,
        deleted_by: None,
    }
}
