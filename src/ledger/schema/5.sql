-- Version 5: recordings, and who did what with them.

-- The recording's part in a call. NULL: it was not to be recorded, or the process died before anybody knew.
-- {"prompt", "announced_to_both", "prompted_at", "consent", "began_at", "format", "encrypted",
--  "file": {"outcome", "millis", "paused_millis", "lost_millis", "bytes", "sha256", "error"}}
ALTER TABLE calls ADD COLUMN tape TEXT;

-- The life of each recording's file. No row goes while its file is on the disk, even if its call is forgotten.
CREATE TABLE recordings (
    call TEXT PRIMARY KEY,
    number TEXT NOT NULL,
    account TEXT NOT NULL,
    -- The file's name in the folder of recordings.
    file TEXT NOT NULL,
    form TEXT NOT NULL,
    encrypted INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    -- running, kept, failed, deleted
    state TEXT NOT NULL,
    outcome TEXT NOT NULL,
    millis INTEGER NOT NULL,
    paused_millis INTEGER NOT NULL,
    lost_millis INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    error TEXT,
    expires_at INTEGER,
    -- none, waiting, done, gave_up
    upload TEXT NOT NULL,
    upload_tries INTEGER NOT NULL,
    upload_next INTEGER,
    upload_error TEXT,
    uploaded_at INTEGER,
    uploaded_to TEXT,
    -- Whether the file is on this disk.
    local INTEGER NOT NULL,
    deleted_at INTEGER,
    deleted_by TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX recordings_running ON recordings (began_at) WHERE state = 'running';
CREATE INDEX recordings_by_expiry ON recordings (expires_at) WHERE local = 1 AND state = 'kept';
CREATE INDEX recordings_by_age ON recordings (began_at, upload, bytes) WHERE local = 1;
CREATE INDEX recordings_due ON recordings (upload_next) WHERE upload = 'waiting';
CREATE INDEX recordings_gone ON recordings (began_at) WHERE local = 0;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_age ON audit (at);
