//! A number becomes a destination: which trunk, which user part, whose name.

use std::path::PathBuf;
use std::time::Duration;

use super::caps::DialLimits;
use crate::agent::Dialect;
use crate::config::RecordingConfig;
use crate::config::{
    self, AgentConfig, CallerId, Codec, Config, Destination, DtlsRole, Dtmf, HostPort, NumberConfig, Srtp,
};
use crate::sip;
use crate::sip::locate::Target;
use crate::sip::percent_decoded;
use crate::sip::sdp;
use crate::whatsapp::callee::{Callee, CalleeFault};
use crate::whatsapp::notice::User;
use crate::whatsapp::sdp::Setup;

/// A trunk as the gateway sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trunk {
    /// For the user agent.
    pub sip: sip::TrunkSettings,
    /// The name that it shares with others to share calls.
    pub group: Option<String>,
    /// Within a group the lowest number is tried first.
    pub priority: u16,
    /// How often it comes first among those of its priority.
    pub weight: u16,
    /// By what its certificate is believed: authorities, or the certificate itself. Only that it changes matters here.
    pub tls: (Option<PathBuf>, Option<[u8; 32]>),
    /// What it may dial out to WhatsApp users.
    pub dial: DialLimits,
    /// The codecs to offer, in order of preference.
    pub codecs: Vec<sdp::Codec>,
    /// SRTP by SDES.
    pub srtp: sdp::SrtpPolicy,
    /// The user's keys go as INFO instead of RFC 4733.
    pub digits_by_info: bool,
    /// Sound is believed even if it comes from another address than the PBX has named.
    pub learn_media: bool,
    /// Seconds without RTP from the PBX that end a call.
    pub silence: Option<u64>,
}

impl Trunk {
    /// Whether a destination or a number that names this means this trunk, alone or among others.
    pub fn answers_to(&self, name: &str) -> bool {
        self.sip.name == name || self.group.as_deref() == Some(name)
    }
}

/// What the gateway needs of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// User-Agent and Server header.
    pub user_agent: String,
    /// SIP messages that one address may send in a second.
    pub max_per_second: u32,
    /// Calls at once.
    pub max_calls: usize,
    /// How long running calls may go on after SIGTERM.
    pub drain: Duration,
    /// How long the PBX may ring.
    pub ring: Duration,
    /// The WhatsApp business numbers.
    pub numbers: Vec<NumberConfig>,
    /// The trunks, those that only a `forward_to` names included.
    pub trunks: Vec<Trunk>,
    /// The DTLS role that we offer.
    pub dtls_role: DtlsRole,
    /// What holds for voice agents.
    pub agent: AgentConfig,
    /// Whether an agent may be on this machine or in a private network.
    pub allow_private: bool,
    /// What holds for recordings.
    pub recording: RecordingConfig,
}

/// Seconds without anything from the PBX that end a call, if the trunk doesn't say.
const FAR_SILENCE: u64 = 120;

impl Settings {
    /// Everything that the gateway needs, out of the configuration.
    pub fn from_config(config: &Config) -> Settings {
        let mut trunks: Vec<Trunk> = config
            .trunks
            .iter()
            .map(|trunk| Trunk {
                sip: sip::TrunkSettings {
                    name: trunk.name.clone(),
                    server_uri: trunk.server.clone(),
                    challenge: trunk.challenge,
                    session_expires: trunk.session_expires.map(Duration::from_secs),
                    username: match trunk.username.as_str() {
                        "" => "watrunk".to_owned(),
                        name => name.to_owned(),
                    },
                    password: trunk.password.as_ref().map(|secret| secret.expose().to_owned()),
                    register: trunk.register,
                    expires: Duration::from_secs(trunk.expires),
                    found: Vec::new(),
                    allow: trunk.allow.iter().filter_map(|range| range.parse().ok()).collect(),
                },
                group: trunk.group.clone(),
                priority: trunk.priority,
                weight: trunk.weight,
                tls: (trunk.tls_ca.clone(), trunk.tls_pin),
                dial: DialLimits {
                    allow: trunk.dial_allow.clone(),
                    per_minute: trunk.dial_per_minute as usize,
                    per_day: u64::from(trunk.dial_per_day),
                },
                codecs: trunk.codecs.iter().copied().map(codec).collect(),
                srtp: match trunk.srtp {
                    Srtp::Off => sdp::SrtpPolicy::Off,
                    Srtp::Optional => sdp::SrtpPolicy::Optional,
                    Srtp::Required => sdp::SrtpPolicy::Required,
                },
                digits_by_info: trunk.dtmf == Dtmf::Info,
                learn_media: trunk.learn_media,
                silence: Some(trunk.silence_seconds.unwrap_or(FAR_SILENCE)),
            })
            .collect();
        for number in &config.numbers {
            let Some(Destination::Sip { host, .. }) = &number.forward_to else { continue };
            if !trunks.iter().any(|trunk| trunk.answers_to(host)) {
                trunks.push(Trunk {
                    sip: sip::TrunkSettings {
                        name: host.clone(),
                        server_uri: format!("sip:{host}"),
                        username: "watrunk".to_owned(),
                        ..sip::TrunkSettings::default()
                    },
                    group: None,
                    priority: 0,
                    weight: 0,
                    tls: (None, None),
                    dial: DialLimits::default(),
                    codecs: sdp::Codec::ALL.to_vec(),
                    srtp: sdp::SrtpPolicy::Off,
                    digits_by_info: false,
                    learn_media: false,
                    silence: Some(FAR_SILENCE),
                });
            }
        }
        Settings {
            user_agent: concat!("watrunk/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_per_second: config.sip.max_per_second,
            max_calls: config.gateway.max_calls,
            drain: Duration::from_secs(config.gateway.drain_seconds),
            ring: Duration::from_secs(config.sip.ring_seconds),
            numbers: config.numbers.clone(),
            trunks,
            dtls_role: config.whatsapp.dtls_role,
            agent: config.agent.clone(),
            allow_private: config.http.allow_private,
            recording: config.recording.clone(),
        }
    }

    /// The number with this Meta id.
    pub fn number(&self, phone_number_id: &str) -> Option<&NumberConfig> {
        self.numbers.iter().find(|number| number.phone_number_id == phone_number_id)
    }

    /// What is to be looked up for each trunk.
    pub fn targets(&self, config: &Config) -> Vec<(String, Target)> {
        self.trunks
            .iter()
            .filter_map(|trunk| {
                let name = trunk.sip.name.clone();
                let target = match config.trunk(&name) {
                    Some(trunk) => Target {
                        host: trunk.address.host.clone(),
                        port: trunk.address.port,
                        transport: trunk.transport.map(transport),
                        secure: trunk.server.trim_start().to_ascii_lowercase().starts_with("sips:"),
                    },
                    None => {
                        let HostPort { host, port } = HostPort::parse(&name).ok()?;
                        Target { host, port, transport: None, secure: false }
                    }
                };
                Some((name, target))
            })
            .collect()
    }

    /// The trunk of this name.
    pub fn trunk(&self, name: &str) -> Option<&Trunk> {
        self.trunks.iter().find(|trunk| trunk.sip.name == name)
    }
}

fn transport(transport: config::Transport) -> sip::Transport {
    match transport {
        config::Transport::Udp => sip::Transport::Udp,
        config::Transport::Tcp => sip::Transport::Tcp,
        config::Transport::Tls => sip::Transport::Tls,
    }
}

fn codec(codec: Codec) -> sdp::Codec {
    match codec {
        Codec::Opus => sdp::Codec::Opus,
        Codec::G722 => sdp::Codec::G722,
        Codec::Pcma => sdp::Codec::Pcma,
        Codec::Pcmu => sdp::Codec::Pcmu,
    }
}

/// Where one call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To a PBX.
    Sip {
        /// The name of a trunk, or of a group of trunks.
        trunk: String,
        /// The user part of the request URI.
        user: String,
    },
    /// To a voice agent.
    Agent(AgentRoute),
}

impl Route {
    /// The trunk that carries it, or the group of trunks, if one does.
    pub fn trunk(&self) -> Option<&str> {
        match self {
            Route::Sip { trunk, .. } => Some(trunk),
            Route::Agent(_) => None,
        }
    }
}

/// A voice agent, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRoute {
    /// `wss://…`, without the parameters that are ours.
    pub url: String,
    /// How it speaks.
    pub dialect: Dialect,
    /// The rest of the URL's parameters, for agents that want them in a message.
    pub parameters: Vec<(String, String)>,
}

/// Where calls for this number go; `None` if it has no destination that can be called.
pub fn route(settings: &Settings, number: &NumberConfig) -> Option<Route> {
    towards(settings, number, number.forward_to.as_ref()?)
}

/// The way to a destination of this number's calls; `None` if there is none.
pub fn towards(settings: &Settings, number: &NumberConfig, destination: &Destination) -> Option<Route> {
    match destination {
        Destination::Sip { user, host } => Some(Route::Sip { trunk: host.clone(), user: user.clone() }),
        Destination::Tel(digits) => Some(Route::Sip { trunk: number.trunk.clone()?, user: digits.clone() }),
        Destination::Wss(url) => agent(settings, number, url).map(Route::Agent),
    }
}

/// A voice agent's address, with `dialect=` taken out of it: that one is for us.
fn agent(settings: &Settings, number: &NumberConfig, url: &str) -> Option<AgentRoute> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let (ours, theirs): (Vec<&str>, Vec<&str>) = pairs.partition(|pair| pair.starts_with("dialect="));
    let said = ours.first().and_then(|pair| pair.strip_prefix("dialect="));
    let word = said.or(number.dialect.as_deref()).unwrap_or(&settings.agent.dialect);
    let parameters = theirs.iter().filter_map(|pair| pair.split_once('='));
    // What is dialled stays as it is; what the agent is told is what was meant.
    let meant = |text: &str| percent_decoded(text);
    Some(AgentRoute {
        url: if theirs.is_empty() { place.to_owned() } else { format!("{place}?{}", theirs.join("&")) },
        dialect: word.parse().ok()?,
        parameters: parameters.map(|(name, value)| (meant(name), meant(value))).collect(),
    })
}

/// A destination as people and records may see it: an agent's address without its query, which often holds a key.
pub fn shown(destination: &Destination) -> String {
    let whole = destination.to_string();
    match destination {
        Destination::Wss(_) => whole.split('?').next().unwrap_or_default().to_owned(),
        Destination::Tel(_) | Destination::Sip { .. } => whole,
    }
}

/// Whether a destination is the business number itself: the call would come back for ever.
pub fn is_itself(number: &NumberConfig, destination: &Destination) -> bool {
    matches!(destination, Destination::Tel(digits) if *digits == number.phone_number)
}

/// The number that a trunk calls out from: the one that the caller shows, else the first that is enabled.
pub fn number_of_trunk<'a>(settings: &'a Settings, trunk: &str, from_user: &str) -> Option<&'a NumberConfig> {
    let group = settings.trunk(trunk).and_then(|known| known.group.as_deref());
    let carries = |number: &&NumberConfig| {
        number.trunk.as_deref().is_some_and(|named| named == trunk || Some(named) == group)
    };
    let mut numbers = settings.numbers.iter().filter(|number| number.enabled).filter(carries);
    let digits = |text: &str| text.trim_start_matches('+').to_owned();
    let shown = digits(from_user);
    numbers
        .clone()
        .find(|number| digits(&number.phone_number) == shown || number.id == from_user)
        .or_else(|| numbers.next())
}

/// Whom a PBX means by what it has dialled: `+E164`, `00…`, a national form, plain digits, or a business-scoped id.
///
/// # Errors
/// A sentence for the person behind the PBX.
pub fn dialled(number: &NumberConfig, user: &str) -> Result<Callee, String> {
    let fault = |fault: CalleeFault| fault.to_string();
    // Separators that people and PBXs write into numbers (RFC 3966 §3).
    let compact: String = user.chars().filter(|letter| !"-. ()/".contains(*letter)).collect();
    let digits = |text: &str| !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit());
    if !digits(compact.trim_start_matches('+')) {
        return Callee::parse(user).map_err(fault);
    }
    if compact.starts_with('+') {
        return Callee::parse(&compact).map_err(fault);
    }
    let international = number.international_prefix.as_str();
    if let Some(rest) = compact.strip_prefix(international).filter(|_| !international.is_empty()) {
        return Callee::parse(rest).map_err(fault);
    }
    if let Some(country) = &number.country_code
        && let Some(rest) = compact.strip_prefix(number.national_prefix.as_str())
    {
        return Callee::parse(&format!("{country}{rest}")).map_err(fault);
    }
    Callee::parse(&compact).map_err(fault)
}

/// The user of a call that we place, as far as we know before Meta says more.
pub fn user_of(callee: &Callee) -> User {
    match callee {
        Callee::Phone(digits) => User { phone: Some(digits.clone()), ..User::default() },
        Callee::Bsuid(id) => User { bsuid: Some(id.clone()), ..User::default() },
    }
}

/// Whether a call's user is this one.
pub fn is_user(user: &User, callee: &Callee) -> bool {
    match callee {
        Callee::Phone(digits) => user.phone.as_ref() == Some(digits),
        Callee::Bsuid(id) => user.bsuid.as_ref() == Some(id) || user.parent_bsuid.as_ref() == Some(id),
    }
}

/// What we write as `a=setup` into an offer.
pub fn setup_of(role: DtlsRole) -> Setup {
    match role {
        DtlsRole::Auto => Setup::ActPass,
        DtlsRole::Client => Setup::Active,
        DtlsRole::Server => Setup::Passive,
    }
}

/// The longest that calls of this number may last: without a limit, longer than any call.
pub fn longest(number: &NumberConfig) -> Duration {
    const NEVER: u64 = 10 * 365 * 24 * 3_600;
    Duration::from_secs(number.max_call_seconds.unwrap_or(NEVER))
}

/// What a SIP destination of this number is to be told, if it asks who we are.
pub fn credentials(number: &NumberConfig) -> Option<(String, String)> {
    let user = number.sip_auth_username.clone()?;
    Some((user, number.sip_auth_password.as_ref()?.expose().to_owned()))
}

/// What the PBX sees of the caller: the user part of From, and the display name.
pub fn caller(number: &NumberConfig, user: &User) -> (String, Option<String>) {
    match number.caller_id {
        CallerId::Caller => (user.caller_user(), user.display().map(str::to_owned)),
        CallerId::Business => (number.phone_number.clone(), None),
    }
}

/// The headers of `interface.md` that tell the PBX which WhatsApp call this is.
pub fn headers(wacid: &str, user: &User, payload: Option<&str>) -> Vec<(String, String)> {
    let mut headers = vec![("X-WhatsApp-Call-ID".to_owned(), wacid.to_owned())];
    if let Some(bsuid) = &user.bsuid {
        headers.push(("X-WhatsApp-User-ID".to_owned(), bsuid.clone()));
    }
    if let Some(payload) = payload {
        headers.push(("X-WhatsApp-Payload".to_owned(), payload.to_owned()));
    }
    headers
}

/// Numbers that need not be secret but must never repeat: ids, jitter of retries (splitmix64).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A stream that depends on `seed` alone.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A new call id: `call_` and 24 hex digits.
    pub fn call_id(&mut self) -> String {
        format!("call_{:016x}{:08x}", self.next(), self.next() >> 32)
    }
}
