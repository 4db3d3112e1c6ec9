//! Every key there is, section by section: what unknown keys are compared with.

/// The keys of the file itself.
pub(super) const ROOT: &[&str] = &[
    "gateway",
    "http",
    "whatsapp",
    "media",
    "sip",
    "trunk",
    "number",
    "recording",
    "rates",
    "webhook",
    "agent",
];

pub(super) const GATEWAY: &[&str] = &["name", "state_dir", "max_calls", "drain_seconds"];

pub(super) const HTTP: &[&str] =
    &["listen", "tls_cert", "tls_key", "public_url", "allow_private", "rate_per_minute", "key"];

pub(super) const HTTP_KEY: &[&str] = &["name", "key", "key_file", "key_env", "key_sha256", "role"];

pub(super) const WHATSAPP: &[&str] = &[
    "graph_url",
    "app_secret",
    "app_secret_file",
    "app_secret_env",
    "access_token",
    "access_token_file",
    "access_token_env",
    "verify_token",
    "verify_token_file",
    "verify_token_env",
    "dtls_role",
    "waba_id",
];

pub(super) const MEDIA: &[&str] = &[
    "listen_ip",
    "public_ip",
    "stun",
    "webrtc_ports",
    "rtp_ports",
    "jitter_ms",
    "opus_complexity",
    "opus_bitrate",
    "dscp",
    "threads",
    "hold_clip",
];

pub(super) const SIP: &[&str] =
    &["listen", "tls_listen", "tls_cert", "tls_key", "public_ip", "ring_seconds", "max_per_second"];

pub(super) const TRUNK: &[&str] = &[
    "name",
    "server",
    "tls_ca",
    "tls_pin",
    "group",
    "priority",
    "weight",
    "username",
    "password",
    "password_file",
    "password_env",
    "register",
    "expires",
    "challenge",
    "codecs",
    "srtp",
    "dtmf",
    "allow",
    "silence_seconds",
    "learn_media",
    "session_expires",
    "dial_allow",
    "dial_per_minute",
    "dial_per_day",
];

pub(super) const NUMBER: &[&str] = &[
    "id",
    "account_id",
    "phone_number_id",
    "phone_number",
    "enabled",
    "forward_to",
    "fallback_to",
    "trunk",
    "caller_id",
    "recording",
    "recording_consent",
    "recording_prompt",
    "recording_language",
    "recording_announce_to",
    "recording_beep_seconds",
    "recording_keep_days",
    "max_call_seconds",
    "dialect",
    "agent_parameters",
    "agent_key",
    "agent_key_file",
    "agent_key_env",
    "agent_auth_token",
    "agent_auth_token_file",
    "agent_auth_token_env",
    "agent_headers",
    "mint_url",
    "mint_body",
    "mint_key",
    "mint_key_file",
    "mint_key_env",
    "mint_field",
    "sip_headers",
    "country_code",
    "national_prefix",
    "international_prefix",
    "sip_auth_username",
    "sip_auth_password",
    "sip_auth_password_file",
    "sip_auth_password_env",
    "call_icon_countries",
];

pub(super) const RECORDING: &[&str] = &[
    "format",
    "encoding",
    "sample_rate",
    "bitrate",
    "consent",
    "consent_prompt",
    "consent_language",
    "consent_key",
    "consent_seconds",
    "announce_to",
    "pause_key",
    "beep_seconds",
    "keep_days",
    "max_mib",
    "min_free_mib",
    "encrypt_to",
    "upload",
    "per_minute_usd",
];

pub(super) const RECORDING_UPLOAD: &[&str] = &[
    "url",
    "endpoint",
    "region",
    "access_key",
    "access_key_file",
    "access_key_env",
    "secret_key",
    "secret_key_file",
    "secret_key_env",
    "token",
    "token_file",
    "token_env",
    "keep_local",
    "timeout_seconds",
    "max_tries",
    "ca_file",
];

pub(super) const RATES: &[&str] = &["prefix", "meta_per_minute_usd", "carrier_per_minute_usd", "tiers"];

pub(super) const TIER: &[&str] = &["from_minutes", "meta_per_minute_usd"];

pub(super) const WEBHOOK: &[&str] =
    &["id", "name", "url", "secret", "secret_file", "secret_env", "events", "active", "headers"];

pub(super) const AGENT: &[&str] = &[
    "dialect",
    "key",
    "key_file",
    "key_env",
    "auth_token",
    "auth_token_file",
    "auth_token_env",
    "parameters",
    "headers",
    "connect_seconds",
    "retry_seconds",
    "silence_seconds",
    "ca_file",
];

/// The keys of a board file, and of the sections in it.
pub(super) const BOARD: &[&str] =
    &["name", "description", "target", "watchdog_seconds", "led", "gateway", "media"];

pub(super) const BOARD_GATEWAY: &[&str] = &["max_calls"];

pub(super) const BOARD_MEDIA: &[&str] = &["opus_complexity", "threads"];

/// As [`SECTIONS`], of a board file.
pub(super) const BOARD_SECTIONS: &[(&str, &[&str])] =
    &[("[gateway]", BOARD_GATEWAY), ("[media]", BOARD_MEDIA)];

/// The sections by the way they are written, with their keys.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    ("[gateway]", GATEWAY),
    ("[http]", HTTP),
    ("[[http.key]]", HTTP_KEY),
    ("[whatsapp]", WHATSAPP),
    ("[media]", MEDIA),
    ("[sip]", SIP),
    ("[[trunk]]", TRUNK),
    ("[[number]]", NUMBER),
    ("[recording]", RECORDING),
    ("[recording.upload]", RECORDING_UPLOAD),
    ("[[rates]]", RATES),
    ("tiers", TIER),
    ("[[webhook]]", WEBHOOK),
    ("[agent]", AGENT),
];
