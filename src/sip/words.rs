//! The words of the room: what a trunk is, what may be ordered, what is told.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use crate::clock::Wall;

/// A call with the PBX: numbered by whoever dials, or, for a call from the PBX, by the user agent with
/// the top bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u64);

/// What carries messages (RFC 3261 §18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Transport {
    /// Datagrams: what gets lost is sent again.
    #[default]
    Udp,
    /// A connection: nothing is sent twice.
    Tcp,
    /// A connection that nobody else reads.
    Tls,
}

impl Transport {
    /// Whether it repeats what gets lost by itself.
    pub fn is_reliable(self) -> bool {
        match self {
            Transport::Udp => false,
            Transport::Tcp | Transport::Tls => true,
        }
    }

    /// The port where nothing else is said (RFC 3261 §19.1.2).
    pub fn usual_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
        }
    }

    /// As Via has it (RFC 3261 §20.42).
    pub(crate) fn in_via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }

    /// The parameter of a URI (RFC 3261 §19.1.1); UDP goes without saying.
    pub(crate) fn in_uri(self) -> &'static str {
        match self {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        }
    }

    /// The value of a URI's `transport` parameter.
    pub fn of_word(word: &str) -> Option<Transport> {
        [Transport::Udp, Transport::Tcp, Transport::Tls]
            .into_iter()
            .find(|transport| transport.in_via().eq_ignore_ascii_case(word))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        })
    }
}

/// Where a message goes or came from. Over a connection, the address of its other end names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// What carries it.
    pub transport: Transport,
    /// The other end.
    pub address: SocketAddr,
}

impl Way {
    /// By datagrams.
    pub fn udp(address: SocketAddr) -> Way {
        Way { transport: Transport::Udp, address }
    }

    /// The address without its port.
    pub fn ip(self) -> IpAddr {
        self.address.ip()
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.address)
    }
}

/// A place where a trunk's server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The way there.
    pub way: Way,
    /// What we write into Via and Contact towards it.
    pub local: SocketAddr,
}

/// What holds for the whole user agent.
#[derive(Clone)]
pub struct Settings {
    /// The value of User-Agent and Server.
    pub user_agent: String,
    /// Where tags, branches, Call-IDs and jitter come from. Fresh and secret in life, fixed in tests.
    pub seed: u64,
    /// How long an INVITE may stay unanswered before it is cancelled.
    pub ring_timeout: Duration,
    /// How many calls may exist at once; the next one is refused.
    pub max_dialogs: usize,
    /// How many messages per second one address may send us in the long run; twice as many at once. What comes
    /// above that is dropped.
    pub max_per_second: u32,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("user_agent", &self.user_agent)
            .field("seed", &"(hidden)")
            .field("ring_timeout", &self.ring_timeout)
            .field("max_dialogs", &self.max_dialogs)
            .field("max_per_second", &self.max_per_second)
            .finish()
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            user_agent: "watrunk".to_owned(),
            seed: 0,
            ring_timeout: Duration::from_secs(120),
            max_dialogs: 200,
            max_per_second: 100,
        }
    }
}

/// One PBX.
#[derive(Clone, PartialEq)]
pub struct TrunkSettings {
    /// The name the operator gave it.
    pub name: String,
    /// `sip:192.168.1.10:5060`, as configured: its host is the domain of our From and To.
    pub server_uri: String,
    /// The account: the user part of From in REGISTER and of our Contact.
    pub username: String,
    /// For digest challenges. Never printed.
    pub password: Option<String>,
    /// Register there; if not, only ask by OPTIONS whether it is alive.
    pub register: bool,
    /// The lifetime we ask for.
    pub expires: Duration,
    /// Where it is, in the order in which the places are to be tried; empty until its name has been resolved.
    pub found: Vec<Found>,
    /// Who else may send us requests for this trunk. The peer itself always may.
    pub allow: Vec<Cidr>,
    /// Ask whoever calls through this trunk for `username` and `password` (RFC 3261 §22). Without a password nobody
    /// can prove anything, and every call is refused.
    pub challenge: bool,
    /// The session interval we ask for (RFC 4028); `None`: no session timer unless the PBX wants one.
    pub session_expires: Option<Duration>,
    /// Another trunk is at the same host: our Contact says which of them is meant.
    pub shares_host: bool,
}

impl Default for TrunkSettings {
    fn default() -> TrunkSettings {
        TrunkSettings {
            name: String::new(),
            server_uri: String::new(),
            username: String::new(),
            password: None,
            register: false,
            expires: Duration::from_secs(300),
            found: Vec::new(),
            allow: Vec::new(),
            challenge: false,
            session_expires: None,
            shares_host: false,
        }
    }
}

impl fmt::Debug for TrunkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrunkSettings")
            .field("name", &self.name)
            .field("server_uri", &self.server_uri)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("register", &self.register)
            .field("expires", &self.expires)
            .field("found", &self.found)
            .field("allow", &self.allow)
            .field("challenge", &self.challenge)
            .field("session_expires", &self.session_expires)
            .field("shares_host", &self.shares_host)
            .finish()
    }
}

/// A range of addresses: `192.168.1.0/24`, `2001:db8::/32`, or one bare address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether `address` lies in the range. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits.min(32))).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits.min(128))).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Cidr {
        let base = address.to_canonical();
        Cidr { base, bits: if base.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// Why a text is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CidrError(String);

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not an address or a range such as 192.168.1.0/24", self.0)
    }
}

impl std::error::Error for CidrError {}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let fault = || CidrError(text.to_owned());
        let (address, bits) = match text.trim().split_once('/') {
            None => (text.trim(), None),
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| fault())?)),
        };
        let base: IpAddr = address.parse().map_err(|_| fault())?;
        let widest = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(widest);
        if bits > widest {
            return Err(fault());
        }
        Ok(Cidr { base, bits })
    }
}

/// A call to be made.
#[derive(Clone)]
pub struct Dial {
    /// Which trunk carries it.
    pub trunk: String,
    /// The user part of the request URI.
    pub user: String,
    /// The host of the request URI, if it is not the trunk's server.
    pub host: Option<String>,
    /// The user part of From: the caller.
    pub from_user: String,
    /// The display name of From.
    pub from_name: Option<String>,
    /// Add P-Asserted-Identity (RFC 3325) with the caller.
    pub asserted: bool,
    /// More headers. Names that the user agent writes itself are ignored.
    pub headers: Vec<(String, String)>,
    /// Our offer, as [`offer`](super::sdp::offer) made it.
    pub sdp: String,
    /// User name and password for the digest challenges of this call, in place of the trunk's. Never
    /// printed.
    pub credentials: Option<(String, String)>,
    /// How long to wait for any answer at all, were it 100; then the call is given up, so that another trunk may be
    /// tried. `None`: as long as RFC 3261 says (64 T1, 32 s).
    pub patience: Option<Duration>,
    /// The dialog that this call takes the place of, as the value of Replaces (RFC 3891) has it: what [`Refer::replaces`]
    /// brought.
    pub replaces: Option<String>,
    /// Who had us call, as the value of Referred-By (RFC 3892) has it.
    pub referred_by: Option<String>,
    /// The callee must not learn who calls: From is anonymous and Privacy asks for the rest (RFC 3323, RFC 3325).
    /// P-Asserted-Identity, meant for the trusted PBX, stays.
    pub privacy: bool,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial")
            .field("trunk", &self.trunk)
            .field("user", &self.user)
            .field("host", &self.host)
            .field("from_user", &self.from_user)
            .field("from_name", &self.from_name)
            .field("asserted", &self.asserted)
            .field("headers", &self.headers)
            .field("sdp", &self.sdp)
            .field("credentials", &self.credentials.as_ref().map(|_| "(hidden)"))
            .field("patience", &self.patience)
            .field("replaces", &self.replaces)
            .field("referred_by", &self.referred_by)
            .field("privacy", &self.privacy)
            .finish()
    }
}

/// A call that a PBX asks for: an INVITE to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The trunk it came from.
    pub trunk: String,
    /// Who is called: the user part of the request URI, decoded and without parameters; of a tel: URI the
    /// number without its separators.
    pub to_user: String,
    /// Who calls: the user part of P-Asserted-Identity (RFC 3325) or else of From, decoded. May be empty.
    pub from_user: String,
    /// The user part of From, decoded, whatever P-Asserted-Identity says. May be empty.
    pub shown_user: String,
    /// The caller's display name.
    pub from_name: Option<String>,
    /// The Call-ID.
    pub call_id: String,
    /// The PBX's offer. `None`: it wants ours in the answer and sends its own with the ACK.
    pub sdp: Option<Vec<u8>>,
    /// The call that this one takes the place of (RFC 3891). Whoever answers this one hangs that one up.
    pub replaces: Option<LegId>,
    /// Who was called before and had the call diverted to us: the user part of the latest Diversion (RFC 5806), or else of the
    /// last entry but one of History-Info (RFC 7044).
    pub diversion: Option<String>,
    /// The caller wishes not to be known to the callee (RFC 3323): `from_user` may be told to nobody but the operator.
    pub anonymous: bool,
}

/// What a REFER of the PBX asks for (RFC 3515): whom to call in the place of the call that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refer {
    /// The user part of Refer-To, decoded; of a tel: URI the number without its separators. Empty if it has none.
    pub to_user: String,
    /// The host of Refer-To, with its port if it has one. `None`: a tel: URI.
    pub to_host: Option<String>,
    /// The URI of Refer-To as it came, without its headers.
    pub to_uri: String,
    /// An attended transfer: the value of Replaces (RFC 3891) that came within Refer-To, unescaped, for [`Dial::replaces`].
    pub replaces: Option<String>,
    /// Who refers: the value of Referred-By (RFC 3892).
    pub referred_by: Option<String>,
}

/// How a call from the PBX is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The final status, 400 to 699. Anything else becomes 480.
    pub code: u16,
    /// Words for the person behind the PBX: a Warning with code 399 (RFC 3261 §20.43).
    pub warning: Option<String>,
    /// When to try again, in seconds: Retry-After.
    pub retry_after: Option<u32>,
}

/// Why a call could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialError {
    /// No trunk has that name.
    UnknownTrunk,
    /// The trunk is not registered or does not answer; `code` is what it said last.
    TrunkDown {
        /// The last final status of REGISTER or OPTIONS; `None` if there was no answer.
        code: Option<u16>,
    },
    /// As many calls as allowed exist already.
    Full,
    /// This leg has a call already: a fault of the caller.
    LegInUse,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::UnknownTrunk => write!(f, "no trunk of that name"),
            DialError::TrunkDown { code: Some(code) } => write!(f, "the trunk is down, it last said {code}"),
            DialError::TrunkDown { code: None } => write!(f, "the trunk is down, it does not answer"),
            DialError::Full => write!(f, "too many calls at once"),
            DialError::LegInUse => write!(f, "this leg has a call already"),
        }
    }
}

impl std::error::Error for DialError {}

/// Why we hang up, for the Reason header (RFC 3326) of CANCEL or BYE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cause {
    /// A SIP status: `Reason: SIP;cause=…`.
    pub code: Option<u16>,
    /// Its words.
    pub text: &'static str,
}

/// What the user agent wants done or wants known. Drained after every call.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a message.
    Transmit {
        /// Where to.
        to: Way,
        /// What.
        bytes: Vec<u8>,
    },
    /// Something happened.
    Event(Event),
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A trunk came up, went down, or was given an address.
    Trunk {
        /// Its name.
        trunk: String,
        /// How it is now.
        state: TrunkState,
    },
    /// 100: the PBX has the INVITE.
    Trying {
        /// Which call.
        leg: LegId,
    },
    /// A provisional answer above 100.
    Ringing {
        /// Which call.
        leg: LegId,
        /// 180, 181, 182, 183 …
        code: u16,
        /// Early media, if the answer carried a session description.
        sdp: Option<Vec<u8>>,
    },
    /// The PBX calls. 100 has been sent; [`ring`](super::UserAgent::ring),
    /// [`answer`](super::UserAgent::answer) or [`refuse`](super::UserAgent::refuse) it.
    Invited {
        /// The new call.
        leg: LegId,
        /// Who calls whom.
        invite: Invite,
    },
    /// The call stands: a 2xx of the PBX, already acknowledged, or the PBX's ACK of ours.
    Answered {
        /// Which call.
        leg: LegId,
        /// Our present description.
        ours: String,
        /// The PBX's answer, or the offer that we answered: for [`agreed`](super::sdp::agreed).
        theirs: Vec<u8>,
    },
    /// The session changed: by re-INVITE or UPDATE of the PBX, already answered, or by its answer to a refresh of ours.
    Changed {
        /// Which call.
        leg: LegId,
        /// Our present description.
        ours: String,
        /// The PBX's new description.
        theirs: Vec<u8>,
    },
    /// The PBX wants the call transferred (RFC 3515). It has been told 202 and 100; what comes of it is told with
    /// [`refer_told`](super::UserAgent::refer_told). The call itself goes on until the PBX, or we, hang it up.
    Referred {
        /// Which call.
        leg: LegId,
        /// Whom to call instead.
        refer: Refer,
    },
    /// A digit that came by INFO instead of RFC 4733.
    Digit {
        /// Which call.
        leg: LegId,
        /// `0`–`9`, `*`, `#`, `A`–`D`.
        digit: char,
        /// How long it was pressed, in milliseconds.
        millis: u32,
    },
    /// The call is over. Exactly once per successful dial and per [`Invited`](Event::Invited).
    Ended {
        /// Which call.
        leg: LegId,
        /// How.
        ending: Ending,
    },
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Who ended it.
    pub by: EndedBy,
    /// The final status of the INVITE, if it was a refusal: received, or for a call from the PBX, given.
    pub code: Option<u16>,
    /// The Q.850 cause from the PBX's Reason header.
    pub cause: Option<u16>,
    /// Whether [`Answered`](Event::Answered) had been told.
    pub answered: bool,
    /// The PBX was not reached: no answer of any kind came in time, or the connection could not be made or broke.
    pub lost: bool,
    /// In words, such as `486 Busy Here`.
    pub text: String,
}

impl Ending {
    /// Whether another trunk may do better: the PBX was never reached or said 5xx, and nobody answered. What a PBX
    /// that works says about whom we called (4xx, 6xx) is final, and so is a telephone that rang in vain.
    pub fn failed_over(&self) -> bool {
        !self.answered && (self.lost || self.code.is_some_and(|code| (500..600).contains(&code)))
    }
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// We hung up.
    Us,
    /// The PBX refused or hung up.
    Peer,
    /// Nobody answered in time: the PBX's telephone, or the PBX itself.
    Timeout,
    /// The connection could not be made or broke, or the PBX's answer could not be used.
    Transport,
}

/// How a trunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrunkState {
    /// Its name has not been resolved yet.
    Unresolved,
    /// The first REGISTER or OPTIONS is under way.
    Trying,
    /// Registered.
    Registered {
        /// The lifetime that was granted.
        expires: Duration,
    },
    /// Not registered by choice, and it answers OPTIONS.
    Reachable {
        /// How long the answer took.
        round_trip: Duration,
    },
    /// Not registered by choice, and it has never answered OPTIONS: some PBXs don't, and take calls all the same.
    Silent,
    /// It refused us or does not answer. It is tried again.
    Failed {
        /// The final status; `None` if there was no answer.
        code: Option<u16>,
        /// What an operator should read.
        why: String,
    },
    /// We have left, by [`shutdown`](super::UserAgent::shutdown) or
    /// [`remove_trunk`](super::UserAgent::remove_trunk).
    Stopped,
}

impl TrunkState {
    /// Whether calls can be made.
    pub fn is_up(&self) -> bool {
        match self {
            TrunkState::Registered { .. } | TrunkState::Reachable { .. } | TrunkState::Silent => true,
            TrunkState::Unresolved | TrunkState::Trying | TrunkState::Failed { .. } | TrunkState::Stopped => {
                false
            }
        }
    }
}

/// A trunk as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkView {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: TrunkState,
    /// The last final status of REGISTER or OPTIONS.
    pub code: Option<u16>,
    /// How long the last answer took.
    pub round_trip: Option<Duration>,
    /// Since when it is in this state.
    pub since: Wall,
    /// Where it is spoken to now.
    pub peer: Option<Way>,
    /// All places where it is, in the order in which they are tried.
    pub places: Vec<Way>,
    /// How many calls in a row failed for the trunk's sake (no answer, no connection, 503): from the second on it is
    /// down until something succeeds.
    pub failures: u32,
    /// Our address as the PBX sees it (`received` and `rport` of RFC 3581).
    pub public: Option<SocketAddr>,
}

/// What has been counted since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams that went out.
    pub sent: u64,
    /// Datagrams from an address that belongs to no trunk.
    pub dropped_foreign: u64,
    /// Messages above what one address may send ([`Settings::max_per_second`]).
    pub dropped_rate: u64,
    /// Keep-alives and STUN.
    pub not_sip: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Messages sent again because no answer came.
    pub retransmissions: u64,
    /// Requests that came again and were answered again.
    pub repeated_requests: u64,
    /// Answers that belong to no request of ours.
    pub stray_responses: u64,
    /// Requests refused or calls not made because a cap was reached.
    pub refused_full: u64,
    /// Requests of ours that were never answered.
    pub timeouts: u64,
    /// Transactions of the PBX's forgotten early to make room for a call.
    pub evicted: u64,
    /// Calls of a PBX that were asked for a password.
    pub challenged: u64,
    /// Calls of a PBX refused because its password was wrong.
    pub denied: u64,
    /// Requests too long for a datagram that went by one all the same, because there was no TCP.
    pub fallen_back: u64,
}
