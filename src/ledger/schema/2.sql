-- Version 2: running calls have rows too; costs, permissions, repeated requests, and the events on their way out.

CREATE TABLE calls_2 (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    wacid TEXT NOT NULL,
    number TEXT NOT NULL,
    account TEXT NOT NULL,
    phone_number_id TEXT NOT NULL,
    direction TEXT NOT NULL,
    placed_by TEXT NOT NULL,
    "from" TEXT NOT NULL,
    profile_name TEXT,
    user_id TEXT,
    "to" TEXT NOT NULL,
    destination TEXT NOT NULL,
    -- ringing, answered, ended, failed
    status TEXT NOT NULL,
    offered_at INTEGER NOT NULL,
    -- offered_at, moved so that no two rows have the same: the cursor of lists.
    listed_at INTEGER NOT NULL UNIQUE,
    ringing INTEGER NOT NULL DEFAULT 0,
    answered_at INTEGER,
    connected_at INTEGER,
    transferred_at INTEGER,
    recording INTEGER NOT NULL DEFAULT 0,
    -- NULL while it runs, as is why.
    ended_at INTEGER,
    talk_seconds REAL NOT NULL DEFAULT 0,
    billed_seconds REAL NOT NULL DEFAULT 0,
    why TEXT,
    detail TEXT NOT NULL DEFAULT '',
    sip_code INTEGER,
    meta_code INTEGER,
    -- [[code, sentence], ...]
    errors TEXT NOT NULL DEFAULT '[]',
    -- NULL without a bill: running, or of version 1.
    meta_pulses INTEGER,
    carrier_seconds INTEGER,
    recording_seconds INTEGER,
    meta_nano INTEGER,
    carrier_nano INTEGER,
    recording_nano INTEGER,
    whatsapp_received INTEGER NOT NULL DEFAULT 0,
    whatsapp_sent INTEGER NOT NULL DEFAULT 0,
    whatsapp_lost INTEGER NOT NULL DEFAULT 0,
    whatsapp_discarded INTEGER NOT NULL DEFAULT 0,
    whatsapp_concealed INTEGER NOT NULL DEFAULT 0,
    whatsapp_repaired INTEGER NOT NULL DEFAULT 0,
    whatsapp_jitter_ms REAL NOT NULL DEFAULT 0,
    whatsapp_mos REAL NOT NULL DEFAULT 0,
    far_received INTEGER NOT NULL DEFAULT 0,
    far_sent INTEGER NOT NULL DEFAULT 0,
    far_lost INTEGER NOT NULL DEFAULT 0,
    far_discarded INTEGER NOT NULL DEFAULT 0,
    far_concealed INTEGER NOT NULL DEFAULT 0,
    far_repaired INTEGER NOT NULL DEFAULT 0,
    far_jitter_ms REAL NOT NULL DEFAULT 0,
    far_mos REAL NOT NULL DEFAULT 0,
    -- Taken from the columns above: the business number, and the digits of caller and callee with a space between.
    -- No generated columns: SQLite does not take those for covered by an index.
    business TEXT NOT NULL,
    digits TEXT NOT NULL
) STRICT;

INSERT INTO calls_2 (
    seq, id, wacid, number, account, phone_number_id, direction, placed_by, "from", profile_name, user_id, "to",
    destination, status, offered_at, listed_at, ringing, answered_at, connected_at, ended_at, talk_seconds,
    billed_seconds, why, detail, sip_code, meta_code,
    whatsapp_received, whatsapp_sent, whatsapp_lost, whatsapp_discarded, whatsapp_concealed, whatsapp_repaired,
    whatsapp_jitter_ms, whatsapp_mos,
    far_received, far_sent, far_lost, far_discarded, far_concealed, far_repaired, far_jitter_ms, far_mos,
    business, digits
)
SELECT
    seq, id, wacid, number, '', '', direction, iif(direction = 'inbound', 'user', 'pbx'), "from", profile_name,
    user_id, "to", destination,
    CASE
        WHEN why IN ('graph_refused', 'media_failed', 'bad_offer', 'fault') THEN 'failed'
        WHEN answered_at IS NULL AND why IN ('far_unreachable', 'trunk_down', 'not_routed') THEN 'failed'
        ELSE 'ended'
    END,
    -- In order of offering, each at least one millisecond after the one before.
    offered_at, place + max(offered_at - place) OVER (ORDER BY place), 0, answered_at, answered_at, ended_at,
    talk_seconds, talk_seconds, why, detail, sip_code, meta_code,
    whatsapp_received, whatsapp_sent, whatsapp_lost, whatsapp_discarded, whatsapp_concealed, whatsapp_repaired,
    whatsapp_jitter_ms, whatsapp_mos,
    far_received, far_sent, far_lost, far_discarded, far_concealed, far_repaired, far_jitter_ms, far_mos,
    iif(direction = 'inbound', "to", "from"), replace("from", '+', '') || ' ' || replace("to", '+', '')
FROM (SELECT *, row_number() OVER (ORDER BY offered_at, seq) AS place FROM calls);

DROP TABLE calls;
ALTER TABLE calls_2 RENAME TO calls;

-- Lists, newest first: each is found by as many searches as there are statuses and directions to look at, so none
-- of them reads a row that is not wanted.
CREATE INDEX calls_by_status ON calls (status, direction, listed_at);
CREATE INDEX calls_by_account ON calls (account, status, direction, listed_at);
CREATE INDEX calls_by_from ON calls ("from", status, direction, listed_at, account);
CREATE INDEX calls_by_to ON calls ("to", status, direction, listed_at, account);
-- A search by digits has to look at every call: at this instead of the rows.
CREATE INDEX calls_by_digits ON calls (listed_at, digits, account, status, direction);
CREATE INDEX calls_running ON calls (seq) WHERE ended_at IS NULL;
-- Usage and volume tiers, answered from the index alone.
CREATE INDEX calls_usage
    ON calls (business, listed_at, answered_at, talk_seconds, carrier_nano, recording_nano, meta_nano);
CREATE INDEX calls_minutes ON calls (account, listed_at, meta_pulses) WHERE meta_pulses > 0;

-- A user is a number without its plus sign, or a BSUID.
CREATE TABLE permissions (
    phone_number_id TEXT NOT NULL,
    user TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    permanent INTEGER NOT NULL,
    expires_at INTEGER,
    source TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (phone_number_id, user)
) STRICT, WITHOUT ROWID;

CREATE TABLE permission_requests (
    phone_number_id TEXT NOT NULL,
    user TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (phone_number_id, user, at)
) STRICT, WITHOUT ROWID;

-- Requests with an Idempotency-Key; status is NULL while the first one is being answered.
CREATE TABLE requests (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    body_sha256 BLOB NOT NULL,
    begun_at INTEGER NOT NULL,
    status INTEGER,
    body TEXT,
    PRIMARY KEY (owner, key)
) STRICT;
CREATE INDEX requests_by_age ON requests (begun_at);

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    -- Empty: it belongs to no call and waits for no other event.
    call_id TEXT NOT NULL,
    name TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_age ON events (created_at);

CREATE TABLE deliveries (
    webhook_id TEXT NOT NULL,
    event_seq INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    -- Attempts made.
    attempt INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL DEFAULT 0,
    -- pending, done, gave_up
    state TEXT NOT NULL DEFAULT 'pending',
    PRIMARY KEY (event_seq, webhook_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (next_at, event_seq) WHERE state = 'pending';
CREATE INDEX deliveries_pending ON deliveries (webhook_id, call_id, event_seq) WHERE state = 'pending';

CREATE TABLE delivery_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id TEXT NOT NULL,
    event_seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    success INTEGER NOT NULL,
    status_code INTEGER,
    response_body TEXT NOT NULL,
    error TEXT,
    attempt INTEGER NOT NULL,
    response_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX delivery_log_by_webhook ON delivery_log (webhook_id, id);
CREATE INDEX delivery_log_by_event ON delivery_log (event_seq);
CREATE INDEX delivery_log_by_age ON delivery_log (at);

CREATE TABLE webhooks (
    webhook_id TEXT PRIMARY KEY,
    last_fired_at INTEGER,
    failure_count INTEGER NOT NULL DEFAULT 0,
    disabled_at INTEGER
) STRICT, WITHOUT ROWID;
