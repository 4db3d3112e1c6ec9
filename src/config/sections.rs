//! The sections of the file as values, one struct each, with the names and defaults of the file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use rust_decimal::Decimal;

use super::fault::{Fault, Place};
use super::recording::{NumberRecording, RecordingConfig};
use super::secret::{KeySecret, NamedTexts, Secret};
use super::units::{
    CallerId, Codec, Destination, DtlsRole, Dtmf, EventName, HostPort, PortRange, Role, Srtp, Transport,
};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[gateway]`
    pub gateway: GatewayConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[whatsapp]`
    pub whatsapp: WhatsAppConfig,
    /// `[media]`
    pub media: MediaConfig,
    /// `[sip]`
    pub sip: SipConfig,
    /// `[[trunk]]`, in the file's order.
    pub trunks: Vec<TrunkConfig>,
    /// `[[number]]`, in the file's order.
    pub numbers: Vec<NumberConfig>,
    /// `[[rates]]`, in the file's order.
    pub rates: Vec<RateConfig>,
    /// `[recording]`
    pub recording: RecordingConfig,
    /// `[[webhook]]`, in the file's order.
    pub webhooks: Vec<WebhookConfig>,
    /// `[agent]`
    pub agent: AgentConfig,
    /// Every sound file that the other keys name, in no order.
    pub sounds: Vec<SoundFile>,
}

/// A sound file, and the key that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundFile {
    /// The file.
    pub path: PathBuf,
    pub(super) at: Place,
}

impl SoundFile {
    /// What is wrong with it, at the key's place.
    pub fn fault(&self, what: &str) -> Fault {
        Fault::at(&self.at, format!("\"{}\" can't be played: {what}", self.path.display()))
    }
}

/// `[gateway]`: the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The name in logs, metrics and the SIP User-Agent.
    pub name: String,
    /// Where call history and recordings are kept.
    pub state_dir: PathBuf,
    /// Calls at one time; the next one is refused.
    pub max_calls: usize,
    /// Seconds that running calls get to finish after SIGTERM.
    pub drain_seconds: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        GatewayConfig {
            name: "watrunk".to_owned(),
            state_dir: PathBuf::from("/var/lib/watrunk"),
            max_calls: 50,
            drain_seconds: 30,
        }
    }
}

/// `[http]`: webhook, REST API, page, metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// TCP address to listen at.
    pub listen: SocketAddr,
    /// Certificate chain (PEM). This version has no TLS of its own: always `None`.
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM). This version has no TLS of its own: always `None`.
    pub tls_key: Option<PathBuf>,
    /// How the outside reaches `listen`, without a slash at the end.
    pub public_url: Option<String>,
    /// Whether webhooks may go to loopback, link-local and private addresses (see [`super::is_private`]).
    pub allow_private: bool,
    /// Requests that one key may make in a minute; 0: as many as it likes.
    pub rate_per_minute: u32,
    /// `[[http.key]]`
    pub keys: Vec<HttpKey>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tls_cert: None,
            tls_key: None,
            public_url: None,
            allow_private: false,
            rate_per_minute: 600,
            keys: Vec::new(),
        }
    }
}

/// `[[http.key]]`: a bearer key of the REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpKey {
    /// Who holds it; unique.
    pub name: String,
    /// The key itself, or its hash; unique.
    pub key: KeySecret,
    /// What it allows.
    pub role: Role,
}

impl HttpKey {
    /// Whether this is what was presented; takes as long for a wrong key as for the right one.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.key.matches(presented)
    }
}

/// `[whatsapp]`: Meta's Cloud API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatsAppConfig {
    /// Base of Graph API addresses, without a slash at the end.
    pub graph_url: String,
    /// Signs the webhooks.
    pub app_secret: Secret,
    /// Bearer token of the Graph API.
    pub access_token: Secret,
    /// Echoed in the webhook handshake.
    pub verify_token: Secret,
    /// DTLS role in our own offers.
    pub dtls_role: DtlsRole,
    /// The WhatsApp Business Account, digits: with it the app's subscription can be checked.
    pub waba_id: Option<String>,
}

impl Default for WhatsAppConfig {
    /// Empty secrets: no file loads like this.
    fn default() -> Self {
        WhatsAppConfig {
            graph_url: "https://graph.facebook.com/v25.0".to_owned(),
            app_secret: Secret::default(),
            access_token: Secret::default(),
            verify_token: Secret::default(),
            dtls_role: DtlsRole::Auto,
            waba_id: None,
        }
    }
}

/// `[media]`: the sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaConfig {
    /// Address that media sockets are bound to.
    pub listen_ip: IpAddr,
    /// Address put in SDP behind a 1:1 NAT.
    pub public_ip: Option<IpAddr>,
    /// STUN servers, `stun:host:port`. Not asked by this version.
    pub stun: Vec<String>,
    /// UDP ports towards WhatsApp: one a call.
    pub webrtc_ports: PortRange,
    /// UDP ports towards the PBX: two a call (RTP even, RTCP the next odd one).
    pub rtp_ports: PortRange,
    /// Depth of the jitter buffer in milliseconds, 20 to 200.
    pub jitter_ms: u32,
    /// Opus encoder complexity, 0 to 10.
    pub opus_complexity: u8,
    /// Opus bit rate in bit/s, 6000 to 64000.
    pub opus_bitrate: u32,
    /// DSCP of outgoing sound, 0 to 63 (46: expedited forwarding, RFC 3246).
    pub dscp: u8,
    /// Sound threads, 1 to 256; `None`: one per core.
    pub threads: Option<usize>,
    /// A WAV file that is played to WhatsApp while the PBX holds a call; `None`: comfort noise. Only its name and
    /// that it can be read have been checked.
    pub hold_clip: Option<PathBuf>,
}

impl Default for MediaConfig {
    fn default() -> Self {
        MediaConfig {
            listen_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            public_ip: None,
            stun: Vec::new(),
            webrtc_ports: PortRange { first: 40000, last: 40099 },
            rtp_ports: PortRange { first: 20000, last: 20199 },
            jitter_ms: 60,
            opus_complexity: 5,
            opus_bitrate: 20_000,
            dscp: 46,
            threads: None,
            hold_clip: None,
        }
    }
}

/// `[sip]`: our own SIP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipConfig {
    /// Address to listen at, by UDP and by TCP.
    pub listen: SocketAddr,
    /// `tls_listen`, `tls_cert` and `tls_key`; `None`: nobody can come in by TLS.
    pub tls: Option<SipTls>,
    /// Address put in Via, Contact and SDP towards the PBX, if it isn't the bound one.
    pub public_ip: Option<IpAddr>,
    /// Seconds a destination may ring, 5 to 300.
    pub ring_seconds: u64,
    /// Messages that one source may send in a second, 5 to 1000; more are dropped unanswered.
    pub max_per_second: u32,
}

impl Default for SipConfig {
    fn default() -> Self {
        SipConfig {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5060)),
            tls: None,
            public_ip: None,
            ring_seconds: 60,
            max_per_second: 100,
        }
    }
}

/// What it takes to be reached by TLS. Both files were there and were PEM when the config was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipTls {
    /// Address to listen at.
    pub listen: SocketAddr,
    /// Certificate chain, our own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[[trunk]]`: a PBX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkConfig {
    /// Unique; stands for the host in `forward_to`.
    pub name: String,
    /// The server as it was written: a valid `sip:` or `sips:` URI without a user.
    pub server: String,
    /// Host and port out of `server`.
    pub address: HostPort,
    /// What `server` says by its scheme or by `transport=`; `None`: nothing. Then DNS decides (NAPTR and SRV,
    /// RFC 3263 §4.1), or it is UDP if there is a port or an address.
    pub transport: Option<Transport>,
    /// Certificates (PEM) that the server's own is believed by, beside the authorities of the system and of browsers.
    pub tls_ca: Option<PathBuf>,
    /// SHA-256 of the certificate (DER) that the server must have: then nothing else of it is looked at.
    pub tls_pin: Option<[u8; 32]>,
    /// A name that trunks share to share calls. It stands for all of them where a trunk's name can stand.
    pub group: Option<String>,
    /// Within a group those with the lowest number are tried first.
    pub priority: u16,
    /// How often it comes first among those of the same priority, next to theirs.
    pub weight: u16,
    /// User for REGISTER and digest; empty if there is none.
    pub username: String,
    /// Password for digest.
    pub password: Option<Secret>,
    /// Whether we register; if not, the server is watched with OPTIONS.
    pub register: bool,
    /// Seconds asked for in REGISTER, 20 to 86400.
    pub expires: u64,
    /// Whether the server's INVITEs are asked for digest, by `username` and `password`; both are there then.
    pub challenge: bool,
    /// In order of preference; never empty, none twice.
    pub codecs: Vec<Codec>,
    /// SRTP by SDES.
    pub srtp: Srtp,
    /// How digits cross.
    pub dtmf: Dtmf,
    /// Networks that may send us INVITEs, each as `address/bits` (see [`super::Cidr`]). Empty: the server's own
    /// addresses only.
    pub allow: Vec<String>,
    /// Seconds without sound from the PBX after which a call ends, 5 to 86400; `None`: the gateway's own rule.
    pub silence_seconds: Option<u64>,
    /// Whether the first sound is believed even if it comes from another address than SDP names: the PBX is behind
    /// a NAT.
    pub learn_media: bool,
    /// Seconds of a session without a refresh (RFC 4028), 90 to 86400; `None`: sessions need none. In the file 0.
    pub session_expires: Option<u64>,
    /// What the numbers begin with that this trunk may dial, each with `+`; empty: all.
    pub dial_allow: Vec<String>,
    /// Calls to WhatsApp users that this trunk may make in a minute; 0: as many as it likes.
    pub dial_per_minute: u32,
    /// Calls to WhatsApp users that this trunk may make in a day; 0: as many as it likes.
    pub dial_per_day: u32,
}

impl Default for TrunkConfig {
    /// No name and no server: no file loads like this.
    fn default() -> Self {
        TrunkConfig {
            name: String::new(),
            server: String::new(),
            address: HostPort::default(),
            transport: None,
            tls_ca: None,
            tls_pin: None,
            group: None,
            priority: 10,
            weight: 10,
            username: String::new(),
            password: None,
            register: true,
            expires: 300,
            challenge: false,
            codecs: vec![Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu],
            srtp: Srtp::Off,
            dtmf: Dtmf::Rfc4733,
            allow: Vec::new(),
            silence_seconds: None,
            learn_media: false,
            session_expires: Some(1_800),
            dial_allow: Vec::new(),
            dial_per_minute: 60,
            dial_per_day: 0,
        }
    }
}

/// `[[number]]`: a WhatsApp business number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberConfig {
    /// `{id}` in REST paths; unique.
    pub id: String,
    /// `accountId` in REST calls; the `id` unless given.
    pub account_id: String,
    /// Meta's id of the number; unique.
    pub phone_number_id: String,
    /// The number itself, `+E164`; unique.
    pub phone_number: String,
    /// Whether calls are taken.
    pub enabled: bool,
    /// Where its calls go; there is one if `enabled`.
    pub forward_to: Option<Destination>,
    /// Where a call goes when the voice agent of `forward_to` fails.
    pub fallback_to: Option<Destination>,
    /// The trunk, or the group of trunks, that carries `tel:` and may dial out through this number.
    pub trunk: Option<String>,
    /// What the destination sees as the caller.
    pub caller_id: CallerId,
    /// Whether calls are recorded.
    pub recording: bool,
    /// What holds for this number's recordings otherwise than `[recording]` says.
    pub recording_as: NumberRecording,
    /// Seconds after which a call is ended, 10 to 86400; `None`: never. Not given: 14400. In the file 0 is never.
    pub max_call_seconds: Option<u64>,
    /// How the voice agent of a `wss:` destination speaks, if not as `[agent]` says.
    pub dialect: Option<String>,
    /// What the voice agent of a `wss:` destination is told, over what `[agent]` says.
    pub agent_parameters: NamedTexts,
    /// How the `{minted}` of a `sip:` destination is come by.
    pub mint: Option<MintConfig>,
    /// Headers of our own INVITEs to a `sip:` destination; each begins with `X-`.
    pub sip_headers: NamedTexts,
    /// E.164 country code, digits: what a national number dialled by the PBX is completed with. `None`: national
    /// numbers can't be dialled.
    pub country_code: Option<String>,
    /// What a national number begins with at the PBX, taken off before `country_code` is put on. May be empty.
    pub national_prefix: String,
    /// What an international number begins with at the PBX if not with `+`.
    pub international_prefix: String,
    /// User for the digest of a `sip:` destination, if not the trunk's.
    pub sip_auth_username: Option<String>,
    /// Password for the digest of a `sip:` destination.
    pub sip_auth_password: Option<Secret>,
    /// Countries (ISO 3166-1 alpha-2, upper case) whose users see the call button; `None`: all.
    pub call_icon_countries: Option<Vec<String>>,
}

/// The `mint_…` keys of a number: one request before the INVITE, whose answer holds what the user part is filled with.
#[derive(Clone, PartialEq, Eq)]
pub struct MintConfig {
    /// Where the request (POST) goes: https, or http.
    pub url: String,
    /// Its body, with placeholders (see [`super::Placeholder`]).
    pub body: String,
    /// Bearer token of the request.
    pub key: Secret,
    /// Where the answer has it: a JSON pointer (RFC 6901) to a string.
    pub field: String,
}

/// Neither the address nor the body: both may hold keys.
impl fmt::Debug for MintConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MintConfig { url: _, body: _, key, field } = self;
        f.debug_struct("MintConfig").field("key", key).field("field", field).finish_non_exhaustive()
    }
}

/// `[[rates]]`: what a minute costs to numbers with this prefix. The longest prefix that fits counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateConfig {
    /// `+` and digits; unique.
    pub prefix: String,
    /// What Meta takes for a minute, USD.
    pub meta_per_minute_usd: Decimal,
    /// What the carrier behind the PBX takes for a minute, USD.
    pub carrier_per_minute_usd: Decimal,
    /// What Meta takes for the minutes beyond a monthly volume, by ascending volume.
    pub tiers: Vec<RateTier>,
}

/// A volume tier of [`RateConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateTier {
    /// Minutes in a month: the tier is for those beyond.
    pub from_minutes: u64,
    /// What Meta takes for one of them, USD.
    pub meta_per_minute_usd: Decimal,
}

/// `[[webhook]]`: an application that wants to hear of calls.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Its id in REST paths; unique. Unless given, 24 hex digits made of `name` and `url`.
    pub id: String,
    /// For people, 1 to 50 characters; the host of `url` unless given.
    pub name: String,
    /// Where events are sent: https or http.
    pub url: String,
    /// Signs the events.
    pub secret: Option<Secret>,
    /// Those that it wants; never empty, none twice.
    pub events: Vec<EventName>,
    /// Whether events are sent.
    pub active: bool,
    /// Put into each request. The names are unlike each other even if case is ignored.
    pub headers: BTreeMap<String, String>,
}

/// `[agent]`: what holds for voice agents, the `wss:` destinations.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// How they speak: `twilio`, `pcm16-24000`, …
    pub dialect: String,
    /// The key of a cloud service.
    pub key: Option<Secret>,
    /// Signs the request for a connection (`X-Twilio-Signature`) of the `twilio` dialect. Nothing else: the keys of
    /// the REST hang-up are `[[http.key]]`.
    pub auth_token: Option<Secret>,
    /// What agents are told or set up with; a number's own and those of an address come over them.
    pub parameters: NamedTexts,
    /// Put into each request for a connection.
    pub headers: BTreeMap<String, String>,
    /// Seconds until an agent must be there, 1 to 60.
    pub connect_seconds: u64,
    /// Seconds of those in which a connection that failed is tried again; 0: never.
    pub retry_seconds: u64,
    /// Seconds after the start in which an agent must have said something, 1 to 3600; `None`: it needn't.
    pub silence_seconds: Option<u64>,
    /// Certificates (PEM) that agents' own are believed by, beside those that browsers trust.
    pub ca_file: Option<PathBuf>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            dialect: "twilio".to_owned(),
            key: None,
            auth_token: None,
            parameters: NamedTexts::default(),
            headers: BTreeMap::new(),
            connect_seconds: 10,
            retry_seconds: 5,
            silence_seconds: None,
            ca_file: None,
        }
    }
}

/// The values of headers often hold keys.
impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AgentConfig {
            dialect,
            key,
            auth_token,
            parameters,
            headers,
            connect_seconds,
            retry_seconds,
            silence_seconds,
            ca_file,
        } = self;
        f.debug_struct("AgentConfig")
            .field("dialect", dialect)
            .field("key", key)
            .field("auth_token", auth_token)
            .field("parameters", parameters)
            .field("headers", &headers.keys())
            .field("connect_seconds", connect_seconds)
            .field("retry_seconds", retry_seconds)
            .field("silence_seconds", silence_seconds)
            .field("ca_file", ca_file)
            .finish()
    }
}

/// Neither the values of headers nor the address: both often hold keys.
impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WebhookConfig { id, name, url: _, secret, events, active, headers } = self;
        f.debug_struct("WebhookConfig")
            .field("id", id)
            .field("name", name)
            .field("secret", secret)
            .field("events", events)
            .field("active", active)
            .field("headers", &headers.keys())
            .finish_non_exhaustive()
    }
}

impl TrunkConfig {
    /// The port that `server` names, or that of its transport (RFC 3261 §19.1.2).
    pub fn port(&self) -> u16 {
        self.address.port.unwrap_or(match self.transport {
            Some(Transport::Tls) => 5061,
            Some(Transport::Udp | Transport::Tcp) | None => 5060,
        })
    }

    /// Whether DNS tells transport and port (NAPTR and SRV, RFC 3263 §4.1, §4.2): `server` is a name with neither.
    pub fn located_by_dns(&self) -> bool {
        self.transport.is_none() && self.address.port.is_none() && self.address.ip().is_none()
    }

    /// Whether it goes by this name or is in the group of this name.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.group.as_deref() == Some(name)
    }
}

impl Config {
    /// The trunk of this name.
    pub fn trunk(&self, name: &str) -> Option<&TrunkConfig> {
        self.trunks.iter().find(|trunk| trunk.name == name)
    }

    /// The trunks that a destination or a number means by this name: the one of this name, or those of the group,
    /// lowest priority number first, then in the file's order. Empty if there is none.
    pub fn trunks_named(&self, name: &str) -> Vec<&TrunkConfig> {
        let mut named: Vec<&TrunkConfig> =
            self.trunks.iter().filter(|trunk| trunk.group.as_deref() == Some(name)).collect();
        if named.is_empty() {
            named.extend(self.trunk(name));
        }
        named.sort_by_key(|trunk| trunk.priority);
        named
    }

    /// The number with this `id`.
    pub fn number(&self, id: &str) -> Option<&NumberConfig> {
        self.numbers.iter().find(|number| number.id == id)
    }
}
