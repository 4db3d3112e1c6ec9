//! `[sip]` and `[[trunk]]`: our own SIP address, and the PBXs.

use super::fault::{Fault, Place};
use super::money;
use super::pem;
use super::read::{DAY, public_ip, sha256, sip_user, socket, token};
use super::reader::{Reader, Section};
use super::sections::{Config, SipConfig, SipTls, TrunkConfig};
use super::units::{Cidr, Codec, Dtmf, Srtp, Transport, sip_server};

/// The keys that only TLS needs.
const TLS: [&str; 3] = ["tls_listen", "tls_cert", "tls_key"];

/// Reads `[sip]`.
pub(super) fn ours(r: &mut Reader<'_>, s: &Section<'_>) -> SipConfig {
    let default = SipConfig::default();
    if let Some(given) = TLS.into_iter().find(|key| s.has(key)) {
        for missing in TLS.into_iter().filter(|key| !s.has(key)) {
            let at = r.at(s, missing);
            r.fault(Fault::at(&at, format!("is missing, but `{given}` is there")).hint(
                "TLS needs tls_listen, tls_cert and tls_key; trunks that we reach by TLS need none of them",
            ));
        }
    }
    let tls_listen = r.parsed(s, "tls_listen", socket);
    let cert = pem::certificates(r, s, "tls_cert");
    let key = pem::private_key(r, s, "tls_key");
    SipConfig {
        listen: r.parsed(s, "listen", socket).unwrap_or(default.listen),
        tls: match (tls_listen, cert, key) {
            (Some(listen), Some(cert), Some(key)) => Some(SipTls { listen, cert, key }),
            _ => None,
        },
        public_ip: r.parsed(s, "public_ip", public_ip),
        ring_seconds: r.whole(s, "ring_seconds", 5..=300, "seconds").unwrap_or(default.ring_seconds),
        max_per_second: r
            .whole(s, "max_per_second", 5..=1_000, "messages of one source")
            .unwrap_or(default.max_per_second),
    }
}

/// Reads `[[trunk]]`.
pub(super) fn trunk(r: &mut Reader<'_>, s: &Section<'_>) -> TrunkConfig {
    let default = TrunkConfig::default();
    for key in ["name", "server"] {
        r.need(s, key);
    }
    let server = r.parsed(s, "server", |text| sip_server(text).map(|server| (text.to_owned(), server)));
    let server_read = server.is_some();
    let (server, (address, transport)) = server.unwrap_or_default();
    let tls_ca = pem::certificates(r, s, "tls_ca");
    let tls_pin = r.parsed(s, "tls_pin", fingerprint);
    if server_read && transport != Some(Transport::Tls) {
        only_with_tls(r, s);
    }
    if s.has("tls_ca") && s.has("tls_pin") {
        let at = r.at(s, "tls_ca");
        r.note(&at, "of no use beside tls_pin, which alone decides");
    }
    let srtp = r.word(s, "srtp", Srtp::WORDS).unwrap_or(default.srtp);
    if srtp != Srtp::Off && server_read && transport != Some(Transport::Tls) {
        let at = r.at(s, "srtp");
        r.note(
            &at,
            "without TLS the keys cross in the clear: whoever sees the SIP messages can hear the call",
        );
    }
    let group = r.parsed(s, "group", trunk_name);
    for key in ["priority", "weight"] {
        if s.has(key) && !s.has("group") {
            let at = r.at(s, key);
            r.note(&at, "of no use without `group`: calls are shared only within one");
        }
    }
    TrunkConfig {
        name: r.parsed(s, "name", trunk_name).unwrap_or_default(),
        server,
        address,
        transport,
        tls_ca,
        tls_pin,
        group,
        priority: r.whole(s, "priority", 0..=65_535, "lower is first").unwrap_or(default.priority),
        weight: r.whole(s, "weight", 0..=65_535, "a share").unwrap_or(default.weight),
        username: r.parsed(s, "username", sip_user).unwrap_or_default(),
        password: r.secret(s, "password"),
        register: r.flag(s, "register").unwrap_or(default.register),
        expires: r.whole(s, "expires", 20..=DAY, "seconds").unwrap_or(default.expires),
        challenge: r.flag(s, "challenge").unwrap_or(default.challenge),
        codecs: codecs(r, s).unwrap_or(default.codecs),
        srtp,
        dtmf: r.word(s, "dtmf", Dtmf::WORDS).unwrap_or(default.dtmf),
        allow: allow(r, s),
        silence_seconds: r.whole(s, "silence_seconds", 5..=DAY, "seconds"),
        learn_media: r.flag(s, "learn_media").unwrap_or(default.learn_media),
        session_expires: session_expires(r, s),
        dial_allow: dial_allow(r, s),
        dial_per_minute: r
            .whole(s, "dial_per_minute", 0..=100_000, "calls; 0 is no limit")
            .unwrap_or(default.dial_per_minute),
        dial_per_day: r
            .whole(s, "dial_per_day", 0..=10_000_000, "calls; 0 is no limit")
            .unwrap_or(default.dial_per_day),
    }
}

fn only_with_tls(r: &mut Reader<'_>, s: &Section<'_>) {
    for key in ["tls_ca", "tls_pin"].into_iter().filter(|key| s.has(key)) {
        let at = r.at(s, key);
        if r.sound(&at) {
            let fault = Fault::at(&at, "is for TLS, but `server` does not say that it is reached by TLS");
            r.fault(fault.hint("write server = \"sips:…\", or \";transport=tls\" behind it"));
        }
    }
}

/// A name that stands for a host in `sip:user@name`: with a dot it would be taken for a real one.
fn trunk_name(text: &str) -> Result<String, String> {
    if text.contains('.') {
        return Err(format!("must not hold a dot, is \"{text}\""));
    }
    token(text)
}

/// As `openssl x509 -fingerprint -sha256` prints it, with or without its colons.
fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    sha256(&text.replace(':', "")).map_err(|_| {
        "must be 64 hex digits, colons allowed, as openssl x509 -noout -fingerprint -sha256 -in FILE prints them"
            .to_owned()
    })
}

fn codecs(r: &mut Reader<'_>, s: &Section<'_>) -> Option<Vec<Codec>> {
    let codecs = r.words(s, "codecs", Codec::WORDS)?;
    let at = r.at(s, "codecs");
    // Words that were wrong have been told already: the list may be right without them.
    if codecs.is_empty() && r.sound_below(&at) {
        r.fault(Fault::at(&at, "is empty").hint("leave it out for opus, g722, pcma and pcmu"));
    }
    Some(codecs)
}

fn allow(r: &mut Reader<'_>, s: &Section<'_>) -> Vec<String> {
    let mut allow = Vec::new();
    for found in r.texts(s, "allow").unwrap_or_default() {
        match Cidr::parse(&found.value) {
            Ok(network) => allow.push(network.to_string()),
            Err(what) => r.fault(Fault::at(&found.at, what)),
        }
    }
    allow
}

/// 0 is no session timer at all. RFC 4028 §5 forbids less than 90.
fn session_expires(r: &mut Reader<'_>, s: &Section<'_>) -> Option<u64> {
    const KEY: &str = "session_expires";
    if !s.has(KEY) {
        return TrunkConfig::default().session_expires;
    }
    let seconds = r.whole(s, KEY, 0..=DAY, "seconds; 0 is off")?;
    if (1..90).contains(&seconds) {
        let at = r.at(s, KEY);
        r.fault(Fault::at(
            &at,
            format!("must be at least 90 seconds, or 0 for no session timer, is {seconds}"),
        ));
    }
    (seconds > 0).then_some(seconds)
}

fn dial_allow(r: &mut Reader<'_>, s: &Section<'_>) -> Vec<String> {
    let mut allow = Vec::new();
    for found in r.texts(s, "dial_allow").unwrap_or_default() {
        match money::prefix(&found.value) {
            Ok(prefix) if allow.contains(&prefix) => {
                r.fault(Fault::at(&found.at, format!("\"{prefix}\" is in the list twice")));
            }
            Ok(prefix) => allow.push(prefix),
            Err(what) => r.fault(Fault::at(&found.at, what)),
        }
    }
    allow
}

/// What single keys of trunks can't tell. No two have the same name: that is told elsewhere.
pub(super) fn check(r: &mut Reader<'_>, config: &Config, sections: &[Section<'_>]) {
    for (trunk, section) in config.trunks.iter().zip(sections) {
        credentials(r, trunk, section);
        not_ourselves(r, config, trunk, section);
        not_alone(r, config, trunk, section, sections);
        group(r, config, trunk, section, sections);
    }
}

fn credentials(r: &mut Reader<'_>, trunk: &TrunkConfig, section: &Section<'_>) {
    let user_at = r.at(section, "username");
    if trunk.register && trunk.username.is_empty() && r.sound(&user_at) && r.sound(&r.at(section, "register"))
    {
        r.fault(
            Fault::at(&user_at, "is missing, but the trunk registers")
                .hint("set it, or register = false for a peer by address"),
        );
    }
    let password_given =
        ["password", "password_file", "password_env"].into_iter().any(|key| section.has(key));
    if trunk.challenge && !(section.has("username") && password_given) {
        let at = r.at(section, "challenge");
        r.fault(
            Fault::at(&at, "needs `username` and `password`: the PBX must answer with them")
                .hint("set both, or challenge = false"),
        );
    } else if trunk.register && !password_given {
        let at = r.at(section, "password");
        r.note(&at, "there is none: works only with a PBX that doesn't ask for one");
    }
}

fn not_ourselves(r: &mut Reader<'_>, config: &Config, trunk: &TrunkConfig, section: &Section<'_>) {
    let server_at = r.at(section, "server");
    let (key, listen) = match (trunk.transport, &config.sip.tls) {
        (Some(Transport::Tls), Some(tls)) => ("sip.tls_listen", tls.listen),
        (Some(Transport::Tls), None) => return,
        (Some(Transport::Udp | Transport::Tcp) | None, _) => ("sip.listen", config.sip.listen),
    };
    let itself = trunk.address.ip().is_some_and(|ip| {
        ip == listen.ip()
            || (ip.is_loopback() && listen.ip().is_unspecified())
            || Some(ip) == config.sip.public_ip
    });
    if itself && trunk.port() == listen.port() && r.sound(&server_at) {
        r.fault(
            Fault::at(&server_at, format!("is this gateway's own address ({key} is {listen})"))
                .hint("give one of the two another port"),
        );
    }
}

/// What the PBX calls is told apart by the Contact of each, which only whoever registers has left there.
fn not_alone(
    r: &mut Reader<'_>,
    config: &Config,
    trunk: &TrunkConfig,
    section: &Section<'_>,
    sections: &[Section<'_>],
) {
    let server_at = r.at(section, "server");
    if !r.sound(&server_at) {
        return;
    }
    let mut before = config.trunks.iter().zip(sections).take_while(|(other, _)| other.name != trunk.name);
    let same = |other: &TrunkConfig| {
        other.address.host.eq_ignore_ascii_case(&trunk.address.host) && other.port() == trunk.port()
    };
    if let Some((other, theirs)) =
        before.find(|(other, _)| same(other) && !(other.register && trunk.register))
    {
        let line = r.at(theirs, "server").line;
        let what = format!(
            "is that of \"{}\" in line {line} too: calls from there are taken for that one's, unless both register",
            other.name
        );
        r.note(&server_at, &what);
    }
}

/// A name must not mean one trunk here and several there.
fn group(
    r: &mut Reader<'_>,
    config: &Config,
    trunk: &TrunkConfig,
    section: &Section<'_>,
    sections: &[Section<'_>],
) {
    let Some(group) = trunk.group.as_deref().filter(|group| *group != trunk.name) else { return };
    let other: Option<Place> = config
        .trunks
        .iter()
        .zip(sections)
        .find(|(other, _)| other.name == group)
        .map(|(_, other)| r.at(other, "name"));
    if let Some(other) = other {
        let at = r.at(section, "group");
        let what = format!("\"{group}\" is a trunk's own name ({} in line {})", other.key, other.line);
        r.fault(Fault::at(&at, what).hint("give the group a name of its own"));
    }
}
