//! `[[webhook]]` and `[agent]`: the applications that want to hear of calls, or to take part in them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use super::pem;
use super::private::{host_of, is_private_host};
use super::read::token;
use super::reader::{Reader, Section};
use super::secret::NamedTexts;
use super::sections::{AgentConfig, Config, WebhookConfig};
use super::units::{EventName, HostPort, dialect};

/// Webhooks that a file may have.
const WEBHOOKS: usize = 50;

/// Headers that a webhook may have.
const HEADERS: usize = 20;

/// Longest name of a webhook, in characters.
const NAME: usize = 50;

/// Longest address, and longest value of a header, in bytes.
const LONGEST: usize = 2_048;

/// Parameters that an agent may have.
const PARAMETERS: usize = 50;

/// Longest parameter of an agent, in bytes: what it is to think and say may take pages.
const PARAMETER: usize = 32 * 1024;

/// Reads `[[webhook]]`.
pub(super) fn webhook(r: &mut Reader<'_>, s: &Section<'_>) -> WebhookConfig {
    r.need(s, "url");
    let url = r.parsed(s, "url", address).unwrap_or_default();
    if url.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("http:")) {
        let at = r.at(s, "url");
        r.note(&at, "is not encrypted");
    }
    let events = r.words(s, "events", EventName::WORDS);
    if events.as_ref().is_some_and(Vec::is_empty) {
        let at = r.at(s, "events");
        if r.sound_below(&at) {
            r.fault(Fault::at(&at, "is empty").hint("leave it out for all, or set active = false for none"));
        }
    }
    let name = r.parsed(s, "name", name);
    let id = r.parsed(s, "id", token);
    WebhookConfig {
        id: identity(id.as_deref(), name.as_deref(), &url),
        name: name.unwrap_or_else(|| default_name(&url)),
        url,
        secret: r.secret(s, "secret"),
        events: events.unwrap_or_else(|| EventName::WORDS.iter().map(|(_, event)| *event).collect()),
        active: r.flag(s, "active").unwrap_or(true),
        headers: headers(r, s, "headers", header),
    }
}

fn default_name(url: &str) -> String {
    host_of(url).chars().take(NAME).collect()
}

/// The id of a webhook with these keys. One that is given none has the same as long as name and address are.
pub(super) fn identity(id: Option<&str>, name: Option<&str>, url: &str) -> String {
    if let Some(id) = id {
        return id.to_owned();
    }
    let name = name.map_or_else(|| default_name(url), str::to_owned);
    let digest = Sha256::new().chain_update(name).chain_update([0]).chain_update(url).finalize();
    digest.iter().take(12).fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// What one webhook can't tell. No two have the same id: that is told elsewhere.
pub(super) fn check(r: &mut Reader<'_>, config: &Config, sections: &[Section<'_>]) {
    for (webhook, section) in config.webhooks.iter().zip(sections) {
        let at = r.at(section, "url");
        if !config.http.allow_private && r.sound(&at) && is_private_host(host_of(&webhook.url)) {
            let what = "leads to this machine or a private network";
            r.fault(Fault::at(&at, what).hint("set http.allow_private = true if that is meant"));
        }
    }
    if let Some(first) = sections.get(WEBHOOKS) {
        let at = first.place().clone();
        r.fault(Fault::at(&at, format!("is one too many: at most {WEBHOOKS} [[webhook]]")));
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.chars().count() <= NAME && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("must have at most {NAME} characters, none of them a control character"))
}

/// An address as it is, a query included. What it holds may be a secret: faults don't tell it.
pub(super) fn address(text: &str) -> Result<String, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("must be an address that begins with https:// or http://".to_owned());
    };
    if !["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err("must be an address that begins with https:// or http://".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!("must have at most {LONGEST} bytes"));
    }
    if text.bytes().any(|b| !b.is_ascii_graphic() || b"\"<>\\^`{|}#".contains(&b)) {
        return Err("must hold neither blanks, #, quotes nor letters outside ASCII".to_owned());
    }
    let authority = rest.split(['/', '?']).next().unwrap_or("");
    if authority.contains('@') {
        return Err("must not hold a user or a password: put a header into `headers`".to_owned());
    }
    HostPort::parse(authority)?;
    Ok(text.to_owned())
}

/// `[agent]`
pub(super) fn agent(r: &mut Reader<'_>, s: &Section<'_>) -> AgentConfig {
    let default = AgentConfig::default();
    let connect_seconds = r.whole(s, "connect_seconds", 1..=60, "seconds").unwrap_or(default.connect_seconds);
    let retry_seconds = r.whole(s, "retry_seconds", 0..=30, "seconds; 0 is never");
    if let Some(seconds) = retry_seconds.filter(|seconds| *seconds > connect_seconds) {
        let at = r.at(s, "retry_seconds");
        let what = format!("must not be above connect_seconds ({connect_seconds}), is {seconds}");
        r.fault(Fault::at(&at, what));
    }
    AgentConfig {
        dialect: r.parsed(s, "dialect", dialect).unwrap_or(default.dialect),
        key: r.secret(s, "key"),
        auth_token: r.secret(s, "auth_token"),
        parameters: parameters(r, s, "parameters"),
        headers: agent_headers(r, s, "headers"),
        connect_seconds,
        retry_seconds: retry_seconds.unwrap_or(default.retry_seconds.min(connect_seconds)),
        silence_seconds: r
            .whole(s, "silence_seconds", 0..=3_600, "seconds; 0 is never")
            .filter(|seconds| *seconds > 0),
        ca_file: pem::certificates(r, s, "ca_file"),
    }
}

/// The parameters that an agent is told or set up with.
pub(super) fn parameters(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> NamedTexts {
    let mut parameters = BTreeMap::new();
    for (name, value) in r.named_texts(s, key).unwrap_or_default() {
        let fault = match token(&name) {
            Err(_) => Some(
                "is no name of a parameter (letters, digits, \"-\", \"_\", \".\", at most 64)".to_owned(),
            ),
            Ok(_) if value.value.len() > PARAMETER => Some(format!("must have at most {PARAMETER} bytes")),
            Ok(_) if parameters.len() >= PARAMETERS => {
                Some(format!("is one too many: at most {PARAMETERS} parameters"))
            }
            Ok(_) => None,
        };
        match fault {
            Some(what) => r.fault(Fault::at(&value.at, what)),
            None => {
                parameters.insert(name, value.value);
            }
        }
    }
    parameters.into()
}

/// The headers of requests for a voice agent's connection.
pub(super) fn agent_headers(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> BTreeMap<String, String> {
    headers(r, s, key, |name, value| {
        // RFC 6455 §4.1: these are the handshake itself.
        match name.to_ascii_lowercase().starts_with("sec-websocket-") {
            true => Err("is a header that is set by the gateway itself"),
            false => header(name, value),
        }
    })
}

/// The headers of its own that a number's INVITEs have.
pub(super) fn sip_headers(r: &mut Reader<'_>, s: &Section<'_>) -> NamedTexts {
    headers(r, s, "sip_headers", sip_header).into()
}

fn sip_header(name: &str, value: &str) -> Result<(), &'static str> {
    let lower = name.to_ascii_lowercase();
    if !lower.starts_with("x-") || lower.len() < 3 {
        return Err("must have a name that begins with \"X-\"");
    }
    if lower.starts_with("x-whatsapp-") {
        return Err("is a header that is set by the gateway itself");
    }
    header(name, value)
}

/// Headers of one's own: those of a webhook, an agent or an INVITE.
fn headers(
    r: &mut Reader<'_>,
    s: &Section<'_>,
    key: &str,
    header: impl Fn(&str, &str) -> Result<(), &'static str>,
) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in r.named_texts(s, key).unwrap_or_default() {
        let twice = headers.keys().any(|other| other.eq_ignore_ascii_case(&name));
        let fault = match header(&name, &value.value) {
            Err(what) => Some(what.to_owned()),
            Ok(()) if twice => Some("is there twice".to_owned()),
            Ok(()) if headers.len() >= HEADERS => Some(format!("is one too many: at most {HEADERS} headers")),
            Ok(()) => None,
        };
        match fault {
            Some(what) => r.fault(Fault::at(&value.at, what)),
            None => {
                headers.insert(name, value.value);
            }
        }
    }
    headers
}

/// Headers that say how the request itself is sent (RFC 9110 §7.6.1 and others).
const OURS: &[&str] =
    &["host", "connection", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// Whether a webhook may have this header. The error completes the sentence "the key …".
fn header(name: &str, value: &str) -> Result<(), &'static str> {
    let lower = name.to_ascii_lowercase();
    let ours = OURS.contains(&lower.as_str())
        || ["content-", "proxy-", "x-zernio-", "x-late-"].iter().any(|head| lower.starts_with(head));
    // RFC 9110 §5.6.2, token; §5.5, field-content without obs-text.
    let name_fits = (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let value_fits = value.len() <= LONGEST
        && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        && value.trim() == value;
    match (ours, name_fits, value_fits) {
        (true, _, _) => Err("is a header that is set by the gateway itself"),
        (false, false, _) => Err("is no name of a header (letters, digits, \"-\", at most 64)"),
        (false, true, false) => Err("must have a value of printable ASCII, at most 2048 bytes"),
        (false, true, true) => Ok(()),
    }
}
