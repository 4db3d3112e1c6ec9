//! From tables to sections: one function each, in the file's order, with the faults of single keys.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::board::{self, Board};
use super::fault::Fault;
use super::reader::{Reader, Section};
use super::secret::{KeySecret, Secret};
use super::sections::{
    Config, GatewayConfig, HttpConfig, HttpKey, MediaConfig, NumberConfig, WhatsAppConfig,
};
use super::units::{CallerId, Destination, DtlsRole, PortRange, Role, dialect, e164, url};
use super::{cross, hooks, known, money, pem, recording, sip, template};

const NOT_SUPPORTED: &str = "not supported by this version";
pub(super) const DAY: u64 = 86_400;

/// Reads the whole file. Keys with a fault get a stand-in: the result is thrown away then.
pub(super) fn config(r: &mut Reader<'_>, root: &Section<'_>, board: &Board) -> Config {
    let gateway = r.section(root, "gateway", known::GATEWAY);
    let http = r.section(root, "http", known::HTTP);
    let keys = r.sections(&http, "key", known::HTTP_KEY);
    let whatsapp = r.section(root, "whatsapp", known::WHATSAPP);
    let media = r.section(root, "media", known::MEDIA);
    let sip = r.section(root, "sip", known::SIP);
    let trunks = r.sections(root, "trunk", known::TRUNK);
    let numbers = r.sections(root, "number", known::NUMBER);
    let recording_at = r.section(root, "recording", known::RECORDING);
    let rates = r.sections(root, "rates", known::RATES);
    let webhooks = r.sections(root, "webhook", known::WEBHOOK);
    let agent = r.section(root, "agent", known::AGENT);

    let config = Config {
        gateway: read_gateway(r, &gateway, board.gateway()),
        http: HttpConfig { keys: keys.iter().map(|s| read_http_key(r, s)).collect(), ..read_http(r, &http) },
        whatsapp: read_whatsapp(r, &whatsapp),
        media: read_media(r, &media, board.media()),
        sip: sip::ours(r, &sip),
        trunks: trunks.iter().map(|s| sip::trunk(r, s)).collect(),
        numbers: numbers.iter().map(|s| read_number(r, s)).collect(),
        rates: rates.iter().map(|s| money::rate(r, s)).collect(),
        recording: recording::recording(r, &recording_at),
        webhooks: webhooks.iter().map(|s| hooks::webhook(r, s)).collect(),
        agent: hooks::agent(r, &agent),
        sounds: r.take_sounds(),
    };
    let in_force = board::in_force(r, board, (&config.gateway, &gateway), (&config.media, &media));
    r.keep(in_force);
    let root = root.place().clone();
    let sections =
        cross::Sections { root, gateway, http, keys, media, sip, trunks, numbers, rates, webhooks };
    cross::check(r, &config, &sections);
    recording::check(r, &config, &recording_at, &sections.numbers);
    config
}

fn read_gateway(r: &mut Reader<'_>, s: &Section<'_>, default: GatewayConfig) -> GatewayConfig {
    GatewayConfig {
        name: r.parsed(s, "name", token).unwrap_or(default.name),
        state_dir: r.parsed(s, "state_dir", folder).unwrap_or(default.state_dir),
        max_calls: board::max_calls(r, s).unwrap_or(default.max_calls),
        drain_seconds: r.whole(s, "drain_seconds", 0..=DAY, "seconds").unwrap_or(default.drain_seconds),
    }
}

fn read_http(r: &mut Reader<'_>, s: &Section<'_>) -> HttpConfig {
    let default = HttpConfig::default();
    for key in ["tls_cert", "tls_key"] {
        if s.has(key) {
            let at = r.at(s, key);
            r.fault(
                Fault::at(&at, NOT_SUPPORTED)
                    .hint("put a reverse proxy or a tunnel in front, which holds the certificate"),
            );
        }
    }
    HttpConfig {
        listen: r.parsed(s, "listen", socket).unwrap_or(default.listen),
        public_url: r.parsed(s, "public_url", |text| url(text, &["https", "http"])),
        allow_private: r.flag(s, "allow_private").unwrap_or(default.allow_private),
        rate_per_minute: r
            .whole(s, "rate_per_minute", 0..=1_000_000, "requests; 0 is no limit")
            .unwrap_or(default.rate_per_minute),
        ..default
    }
}

fn read_http_key(r: &mut Reader<'_>, s: &Section<'_>) -> HttpKey {
    for key in ["name", "role"] {
        r.need(s, key);
    }
    HttpKey {
        name: r.parsed(s, "name", token).unwrap_or_default(),
        key: key_secret(r, s).unwrap_or(KeySecret::Plain(Secret::default())),
        role: r.word(s, "role", Role::WORDS).unwrap_or(Role::Read),
    }
}

/// A key, in one of the ways of a secret or as its hash.
fn key_secret(r: &mut Reader<'_>, s: &Section<'_>) -> Option<KeySecret> {
    const WAYS: [&str; 4] = ["key", "key_file", "key_env", "key_sha256"];
    if !s.has("key_sha256") {
        if !WAYS.into_iter().any(|way| s.has(way)) {
            let at = r.at(s, "key");
            r.fault(
                Fault::at(&at, "is missing").hint("give it as `key`, `key_file`, `key_env` or `key_sha256`"),
            );
        }
        let key = r.secret(s, "key")?;
        if key.expose().chars().count() < 16 {
            r.note(s.place(), "the key has fewer than 16 characters: it can be guessed");
        }
        return Some(KeySecret::Plain(key));
    }
    if let Some(other) = WAYS.into_iter().find(|way| *way != "key_sha256" && s.has(way)) {
        let at = r.at(s, "key_sha256");
        r.fault(Fault::at(&at, format!("is given as `{other}` too")).hint("keep one of them"));
        return None;
    }
    r.parsed(s, "key_sha256", sha256).map(KeySecret::Sha256)
}

fn read_whatsapp(r: &mut Reader<'_>, s: &Section<'_>) -> WhatsAppConfig {
    let default = WhatsAppConfig::default();
    let graph_url = r.parsed(s, "graph_url", |text| url(text, &["https", "http"]));
    if graph_url
        .as_ref()
        .is_some_and(|url| url.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("http:")))
    {
        let at = r.at(s, "graph_url");
        r.note(&at, "is not encrypted: for tests only");
    }
    WhatsAppConfig {
        graph_url: graph_url.unwrap_or(default.graph_url),
        app_secret: r.need_secret(s, "app_secret").unwrap_or_default(),
        access_token: r.need_secret(s, "access_token").unwrap_or_default(),
        verify_token: r.need_secret(s, "verify_token").unwrap_or_default(),
        dtls_role: r.word(s, "dtls_role", DtlsRole::WORDS).unwrap_or(default.dtls_role),
        waba_id: r.parsed(s, "waba_id", digits),
    }
}

fn read_media(r: &mut Reader<'_>, s: &Section<'_>, default: MediaConfig) -> MediaConfig {
    let mut stun = Vec::new();
    for found in r.texts(s, "stun").unwrap_or_default() {
        let server = found.value.strip_prefix("stun:").unwrap_or("");
        match super::units::HostPort::parse(server) {
            Ok(_) => stun.push(found.value),
            Err(_) => r.fault(Fault::at(
                &found.at,
                format!("must be like \"stun:stun.example.com:3478\", is \"{}\"", found.value),
            )),
        }
    }
    if !stun.is_empty() {
        let at = r.at(s, "stun");
        r.note(&at, "not in force in this version: behind a NAT, set public_ip");
    }
    MediaConfig {
        listen_ip: r.parsed(s, "listen_ip", ip).unwrap_or(default.listen_ip),
        public_ip: r.parsed(s, "public_ip", public_ip),
        stun,
        webrtc_ports: r.parsed(s, "webrtc_ports", PortRange::parse).unwrap_or(default.webrtc_ports),
        rtp_ports: r.parsed(s, "rtp_ports", PortRange::parse).unwrap_or(default.rtp_ports),
        jitter_ms: r.whole(s, "jitter_ms", 20..=200, "milliseconds").unwrap_or(default.jitter_ms),
        opus_complexity: board::opus_complexity(r, s).unwrap_or(default.opus_complexity),
        opus_bitrate: r.whole(s, "opus_bitrate", 6_000..=64_000, "bit/s").unwrap_or(default.opus_bitrate),
        dscp: r.whole(s, "dscp", 0..=63, "46 is expedited forwarding").unwrap_or(default.dscp),
        threads: board::threads(r, s).or(default.threads),
        hold_clip: pem::clip(r, s, "hold_clip", &["wav"]),
    }
}

fn read_number(r: &mut Reader<'_>, s: &Section<'_>) -> NumberConfig {
    for key in ["id", "phone_number_id", "phone_number"] {
        r.need(s, key);
    }
    let enabled = r.flag(s, "enabled").unwrap_or(true);
    if enabled && !s.has("forward_to") {
        let at = r.at(s, "forward_to");
        r.fault(Fault::at(&at, "is missing").hint("set it, or enabled = false"));
    }
    let id: String = r.parsed(s, "id", token).unwrap_or_default();
    let forward_to = r.parsed(s, "forward_to", Destination::parse);
    let fallback_to = r.parsed(s, "fallback_to", Destination::parse);
    NumberConfig {
        account_id: r.parsed(s, "account_id", token).unwrap_or_else(|| id.clone()),
        id,
        phone_number_id: r.parsed(s, "phone_number_id", digits).unwrap_or_default(),
        phone_number: r.parsed(s, "phone_number", e164).unwrap_or_default(),
        enabled,
        forward_to,
        fallback_to,
        trunk: r.text(s, "trunk").map(|found| found.value),
        caller_id: r.word(s, "caller_id", CallerId::WORDS).unwrap_or(CallerId::Caller),
        recording: r.flag(s, "recording").unwrap_or(false),
        recording_as: recording::of_number(r, s),
        max_call_seconds: max_call_seconds(r, s),
        dialect: r.parsed(s, "dialect", dialect),
        agent_parameters: hooks::parameters(r, s, "agent_parameters"),
        mint: template::mint(r, s),
        sip_headers: hooks::sip_headers(r, s),
        country_code: r.parsed(s, "country_code", country_code),
        national_prefix: r
            .parsed_or_empty(s, "national_prefix", dialled_prefix)
            .unwrap_or_else(|| "0".to_owned()),
        international_prefix: r
            .parsed(s, "international_prefix", dialled_prefix)
            .unwrap_or_else(|| "00".to_owned()),
        sip_auth_username: r.parsed(s, "sip_auth_username", sip_user),
        sip_auth_password: r.secret(s, "sip_auth_password"),
        call_icon_countries: countries(r, s, "call_icon_countries"),
    }
}

/// 0 is no cap at all.
fn max_call_seconds(r: &mut Reader<'_>, s: &Section<'_>) -> Option<u64> {
    const KEY: &str = "max_call_seconds";
    if !s.has(KEY) {
        return Some(14_400);
    }
    let seconds = r.whole(s, KEY, 0..=DAY, "seconds; 0 is no cap")?;
    if (1..10).contains(&seconds) {
        let at = r.at(s, KEY);
        r.fault(Fault::at(&at, format!("must be at least 10 seconds, or 0 for no cap, is {seconds}")));
    }
    (seconds > 0).then_some(seconds)
}

/// Two letters each, put into upper case.
fn countries(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> Option<Vec<String>> {
    let found = r.texts(s, key)?;
    let mut countries = Vec::new();
    for country in &found {
        let code = country.value.to_ascii_uppercase();
        if code.len() != 2 || !code.bytes().all(|b| b.is_ascii_uppercase()) {
            let what = format!("must be a country of two letters like \"DE\", is \"{}\"", country.value);
            r.fault(Fault::at(&country.at, what));
        } else if countries.contains(&code) {
            r.fault(Fault::at(&country.at, format!("\"{code}\" is in the list twice")));
        } else {
            countries.push(code);
        }
    }
    let at = r.at(s, key);
    if found.is_empty() && r.sound_below(&at) {
        r.fault(Fault::at(&at, "is empty").hint("leave it out: then users of all countries see the button"));
    }
    Some(countries)
}

/// A name that may stand in a path, a header or a log line.
pub(super) fn token(text: &str) -> Result<String, String> {
    let fits = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("must be letters, digits, \"-\", \"_\" and \".\", at most 64, is \"{text}\""))
}

/// RFC 3261 §25.1 `user`, without escapes.
pub(super) fn sip_user(text: &str) -> Result<String, String> {
    let fits = text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b));
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("must be a SIP user without \"@\" and blanks, at most 128 characters, is \"{text}\""))
}

/// Digits only, at most 32.
fn digits(text: &str) -> Result<String, String> {
    if text.len() <= 32 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(format!("must be digits only, is \"{text}\""))
}

/// An E.164 country code: 1 to 3 digits, the first not 0.
fn country_code(text: &str) -> Result<String, String> {
    if text.len() <= 3 && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(format!("must be a country code like \"49\", without \"+\" and zeros before it, is \"{text}\""))
}

/// What is dialled before a number.
fn dialled_prefix(text: &str) -> Result<String, String> {
    if text.len() <= 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(format!("must be at most 8 digits, is \"{text}\""))
}

/// 64 hex digits. What is wrong with them is told without telling them.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], String> {
    let mut digest = [0; 32];
    let mut pairs = text.as_bytes().chunks_exact(2);
    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let fits = text.len() == 64
        && digest.iter_mut().all(|byte| match pairs.next() {
            Some([high, low]) => match (nibble(*high), nibble(*low)) {
                (Some(high), Some(low)) => {
                    *byte = high << 4 | low;
                    true
                }
                (Some(_) | None, _) => false,
            },
            Some(_) | None => false,
        });
    if fits { Ok(digest) } else { Err("must be 64 hex digits, as sha256sum prints them".to_owned()) }
}

pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        return Err("must not hold a zero byte".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("must be an address and a port like \"127.0.0.1:8080\", is \"{text}\""))
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("must be an IP address, is \"{text}\""))
}

pub(super) fn public_ip(text: &str) -> Result<IpAddr, String> {
    let address = ip(text)?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("must be an address that others can send to, is \"{text}\""));
    }
    Ok(address)
}
