//! The small types of the file: port ranges, addresses, destinations and the words with a fixed list of values.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::template;

/// UDP ports from `first` to `last`, both included. Written `40000-40099`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port; not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Reads `40000-40099`. The error completes the sentence "the key …".
    pub fn parse(text: &str) -> Result<PortRange, String> {
        let shape = || format!("must be two ports like \"40000-40099\", is \"{text}\"");
        let (first, last) = text.split_once('-').ok_or_else(shape)?;
        let first: u16 = first.trim().parse().map_err(|_| shape())?;
        let last: u16 = last.trim().parse().map_err(|_| shape())?;
        if first < 1024 {
            return Err(format!("must not begin below port 1024, begins at {first}"));
        }
        if last < first {
            return Err(format!("must not end ({last}) below its beginning ({first})"));
        }
        Ok(PortRange { first, last })
    }

    /// How many ports there are.
    pub fn count(self) -> usize {
        usize::from(self.last).saturating_sub(usize::from(self.first)) + 1
    }

    /// How many pairs of an even port and the next odd one there are (RFC 3550 §11).
    pub fn pairs(self) -> usize {
        let first_even = usize::from(self.first).next_multiple_of(2);
        (usize::from(self.last) + 1).saturating_sub(first_even) / 2
    }

    /// Whether the port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether both have a port in common.
    pub fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A host and, if one was written, a port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostPort {
    /// A DNS name or an IP address, the latter without brackets.
    pub host: String,
    /// The port; `None`: SIP's own rules decide (5060, or DNS SRV).
    pub port: Option<u16>,
}

impl HostPort {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`. The error completes the sentence "the key …".
    pub fn parse(text: &str) -> Result<HostPort, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) =
                    rest.split_once(']').ok_or_else(|| format!("lacks the closing bracket in \"{text}\""))?;
                if host.parse::<Ipv6Addr>().is_err() {
                    return Err(format!("has no IPv6 address in the brackets of \"{text}\""));
                }
                let port = match after.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if after.is_empty() => None,
                    None => return Err(format!("has something strange after the brackets of \"{text}\"")),
                };
                (host, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if !text.starts_with('[') && !is_host(host) {
            return Err(format!("has no valid host name or address in \"{text}\""));
        }
        let port = match port {
            None => None,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(format!("has no valid port (1 to 65535) in \"{text}\"")),
            },
        };
        Ok(HostPort { host: host.to_owned(), port })
    }

    /// The address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?
        } else {
            f.write_str(&self.host)?
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// A DNS name (RFC 1123, underscores tolerated) or an IPv4 address.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if numeric {
        return text.parse::<std::net::Ipv4Addr>().is_ok();
    }
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// A network: an address and how many of its leading bits count. Written `192.168.1.0/24`; a bare address
/// stands for itself alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Reads `address/bits` or `address`. The error completes the sentence "the key …".
    pub fn parse(text: &str) -> Result<Cidr, String> {
        let shape = || format!("must be a network like \"192.168.1.0/24\", is \"{text}\"");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| shape())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse::<u8>().map_err(|_| shape())?,
        };
        if bits > most {
            return Err(format!("must have a prefix of at most {most} bits, is \"{text}\""));
        }
        Ok(Cidr { address, bits })
    }

    /// Whether the address is in the network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(one)) => {
                let bits = if self.address.is_ipv4() { self.bits } else { self.bits.saturating_sub(96) };
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                u32::from(net) & mask == u32::from(one) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(one)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                u128::from(net) & mask == u128::from(one) & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The ways in which voice agents speak; `pcm16-` may be followed by a rate.
const DIALECTS: [&str; 13] = [
    "twilio",
    "telnyx",
    "telnyx-l16",
    "vonage",
    "plivo",
    "exotel",
    "jambonz",
    "asterisk",
    "pcm16",
    "elevenlabs",
    "vapi",
    "deepgram",
    "openai",
];

/// The sampling rates of `pcm16-…`, in Hz.
const RATES: [&str; 9] = ["8000", "11025", "12000", "16000", "22050", "24000", "32000", "44100", "48000"];

/// How a voice agent speaks. The error completes the sentence "the key …".
pub(super) fn dialect(text: &str) -> Result<String, String> {
    let rated = text.strip_prefix("pcm16-").is_some_and(|rate| RATES.contains(&rate));
    match DIALECTS.contains(&text) || rated {
        true => Ok(text.to_owned()),
        false => Err(format!("must be one of {} or pcm16-RATE, is \"{text}\"", DIALECTS.join(", "))),
    }
}

/// Where the calls of a number go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `tel:+E164`: a number, dialled through the number's trunk. Holds `+` and digits.
    Tel(String),
    /// `sip:user@host`
    Sip {
        /// The user part, maybe with placeholders.
        user: String,
        /// The name of a trunk or of a group, or else a host or address with or without a port ([`HostPort`] reads it).
        host: String,
    },
    /// `wss://…`: a voice agent; `ws://…` on private networks.
    Wss(String),
}

/// The address of a voice agent, a query and all. The error completes the sentence "the key …".
fn agent(text: &str) -> Result<String, String> {
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    url(place, &["wss", "ws"])?;
    if query.bytes().any(|b| !b.is_ascii_graphic() || b == b'"' || b == b'#') {
        return Err(format!("must hold neither blanks nor #, is \"{text}\""));
    }
    for said in query.split('&').filter_map(|pair| pair.strip_prefix("dialect=")) {
        dialect(said).map_err(|what| format!("has a `dialect` that {what}"))?;
    }
    Ok(text.to_owned())
}

impl Destination {
    const AS_TRUNK: &'static str = "make the host a [[trunk]], whose server says so, and name that";

    /// Reads one of the three. The error completes the sentence "the key …".
    pub fn parse(text: &str) -> Result<Destination, String> {
        if let Some(number) = strip_scheme(text, "tel:") {
            return Ok(Destination::Tel(e164(number)?));
        }
        if strip_scheme(text, "wss://").is_some() || strip_scheme(text, "ws://").is_some() {
            return agent(text).map(Destination::Wss);
        }
        if strip_scheme(text, "sips:").is_some() {
            return Err(format!(
                "sips: is not supported by this version in a destination: {}",
                Self::AS_TRUNK
            ));
        }
        let Some(rest) = strip_scheme(text, "sip:") else {
            return Err(format!("must be tel:+number, sip:user@trunk or wss://host, is \"{text}\""));
        };
        let (rest, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        match transport(parameters)? {
            None | Some(Transport::Udp) => {}
            Some(other) => {
                let why = Self::AS_TRUNK;
                return Err(format!(
                    "transport={other} is not supported by this version in a destination: {why}"
                ));
            }
        }
        let Some((user, host)) = rest.rsplit_once('@') else {
            return Err(format!("needs a user, like \"sip:200@pbx\", is \"{text}\""));
        };
        // RFC 3261 §25.1, user: unreserved, escaped, user-unreserved. A placeholder counts as a digit.
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/%".contains(&b);
        let plain = template::filled(user, |_| "0".to_owned());
        if let Some((name, _)) = plain.split_once('{').and_then(|(_, rest)| rest.split_once('}')) {
            return Err(template::unknown(name));
        }
        if plain.is_empty() || !plain.bytes().all(fits) {
            return Err(format!("has no valid user in \"{text}\""));
        }
        HostPort::parse(host)?;
        Ok(Destination::Sip { user: user.to_owned(), host: host.to_owned() })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Tel(number) => write!(f, "tel:{number}"),
            Destination::Sip { user, host } => write!(f, "sip:{user}@{host}"),
            Destination::Wss(url) => f.write_str(url),
        }
    }
}

/// A trunk's server: `sip:host[:port][;transport=udp|tcp|tls]`, or `sips:`; what says nothing of its transport has
/// none. The error completes the sentence "the key …".
pub(super) fn sip_server(text: &str) -> Result<(HostPort, Option<Transport>), String> {
    let (rest, secure) = match (strip_scheme(text, "sips:"), strip_scheme(text, "sip:")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => {
            return Err(format!("must be like \"sip:192.168.1.10:5060;transport=udp\", is \"{text}\""));
        }
    };
    let (rest, parameters) = rest.split_once(';').unwrap_or((rest, ""));
    let transport = match (transport(parameters)?, secure) {
        // sips: is TLS over whatever connects (RFC 3261 §26.2.2).
        (None | Some(Transport::Tcp | Transport::Tls), true) => Some(Transport::Tls),
        (Some(Transport::Udp), true) => return Err("sips: means TLS, which is not over UDP".to_owned()),
        (said, false) => said,
    };
    if rest.contains('@') {
        return Err("must not have a user part: the user goes into `username`".to_owned());
    }
    Ok((HostPort::parse(rest)?, transport))
}

/// The only SIP URI parameter that means something here.
fn transport(parameters: &str) -> Result<Option<Transport>, String> {
    let mut said = None;
    for parameter in parameters.split(';').filter(|p| !p.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !name.eq_ignore_ascii_case("transport") {
            return Err(format!("has the URI parameter `{name}`, which is not supported by this version"));
        }
        let word = Transport::WORDS.iter().find(|(word, _)| value.eq_ignore_ascii_case(word));
        let Some((_, transport)) = word else {
            return Err(format!("has transport={value}: it must be udp, tcp or tls"));
        };
        if said.replace(*transport).is_some_and(|before| before != *transport) {
            return Err("names two transports".to_owned());
        }
    }
    Ok(said)
}

/// A number by E.164: `+`, then 7 to 15 digits, the first not 0. The error completes the sentence "the key …".
pub(super) fn e164(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix('+').unwrap_or("");
    let fits = (7..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0');
    if !fits {
        return Err(format!("must be a number like +15550100100 (E.164, digits only), is \"{text}\""));
    }
    Ok(text.to_owned())
}

/// An absolute address with one of these schemes, without a query; a slash at its end is taken off.
/// The error completes the sentence "the key …".
pub(super) fn url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let shape =
        || format!("must be an address that begins with {}://, is \"{text}\"", schemes.join(":// or "));
    let (scheme, rest) = text.split_once("://").ok_or_else(shape)?;
    if !schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(shape());
    }
    let host = rest.split('/').next().unwrap_or("");
    if host.contains('@') {
        return Err("must not hold a user or a password".to_owned());
    }
    HostPort::parse(host)?;
    if rest.bytes().any(|b| !b.is_ascii_graphic() || b == b'"' || b == b'#' || b == b'?') {
        return Err(format!("must hold neither blanks nor ?, #, is \"{text}\""));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// The rest after a scheme, in whatever case it is written.
fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let head = text.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| text.get(scheme.len()..).unwrap_or(""))
}

/// Makes an enum whose values are words in the file, with the list of all of them.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$each])* $variant,)+
        }

        impl $name {
            /// Every value with its word in the file.
            pub const WORDS: &'static [(&'static str, $name)] = &[$(($word, $name::$variant),)+];

            /// The word in the file.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a key of the REST API allows.
    Role {
        /// Everything.
        Admin = "admin",
        /// Calls, but not the settings.
        Operator = "operator",
        /// Looking only.
        Read = "read",
    }
}

words! {
    /// DTLS role in our own offers (RFC 5763 §5).
    DtlsRole {
        /// `a=setup:actpass`: the other end chooses.
        Auto = "auto",
        /// `a=setup:active`
        Client = "client",
        /// `a=setup:passive`
        Server = "server",
    }
}

words! {
    /// How SIP crosses to a PBX.
    Transport {
        /// Datagrams.
        Udp = "udp",
        /// A connection.
        Tcp = "tcp",
        /// A connection with TLS.
        Tls = "tls",
    }
}

words! {
    /// A codec towards the PBX.
    Codec {
        /// Opus (RFC 7587).
        Opus = "opus",
        /// G.722 (RFC 3551 §4.5.2).
        G722 = "g722",
        /// G.711 A-law.
        Pcma = "pcma",
        /// G.711 mu-law.
        Pcmu = "pcmu",
    }
}

words! {
    /// SRTP towards the PBX by SDES (RFC 4568).
    Srtp {
        /// Plain RTP.
        Off = "off",
        /// If the PBX offers it or takes it.
        Optional = "optional",
        /// Or no call.
        Required = "required",
    }
}

words! {
    /// How digits cross to the PBX.
    Dtmf {
        /// As telephone events in RTP (RFC 4733).
        Rfc4733 = "rfc4733",
        /// As SIP INFO.
        Info = "info",
    }
}

words! {
    /// What applications are told.
    EventName {
        /// A WhatsApp user calls.
        CallReceived = "call.received",
        /// A call that was under way is over.
        CallEnded = "call.ended",
        /// A call could not be made or connected.
        CallFailed = "call.failed",
        /// A WhatsApp user has answered a request for permission to call.
        CallPermissionRequest = "call.permission_request",
    }
}

words! {
    /// What the destination sees as the caller.
    CallerId {
        /// The WhatsApp user.
        Caller = "caller",
        /// The business number.
        Business = "business",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_own_addresses_and_no_others() {
        let within = |net: &str, one: &str| Cidr::parse(net).unwrap().contains(one.parse().unwrap());
        assert!(within("192.168.1.0/24", "192.168.1.255"));
        assert!(!within("192.168.1.0/24", "192.168.2.0"));
        assert!(within("192.168.1.77/24", "192.168.1.1"), "bits behind the prefix don't count");
        assert!(within("10.0.0.1", "10.0.0.1"));
        assert!(!within("10.0.0.1", "10.0.0.2"));
        assert!(within("0.0.0.0/0", "8.8.8.8"));
        assert!(!within("0.0.0.0/0", "2001:db8::1"));
        assert!(within("::/0", "2001:db8::1"));
        assert!(within("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!within("2001:db8::/32", "2001:db9::1"));
        assert!(within("10.0.0.0/8", "::ffff:10.1.2.3"), "a socket for both families shows IPv4 like this");
        assert!(within("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(!within("::ffff:10.0.0.0/104", "11.1.2.3"));
    }

    #[test]
    fn pairs_of_ports_begin_at_an_even_one() {
        let pairs = |text: &str| PortRange::parse(text).unwrap().pairs();
        assert_eq!(pairs("20000-20199"), 100);
        assert_eq!(pairs("20001-20004"), 1);
        assert_eq!(pairs("20001-20001"), 0);
        assert_eq!(pairs("65534-65535"), 1);
        assert_eq!(PortRange::parse("1024-65535").unwrap().count(), 64_512);
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        let read = |text: &str| HostPort::parse(text).map(|h| (h.host, h.port));
        assert_eq!(read("pbx"), Ok(("pbx".to_owned(), None)));
        assert_eq!(read("[2001:db8::9]:5061"), Ok(("2001:db8::9".to_owned(), Some(5061))));
        assert_eq!(HostPort::parse("[2001:db8::9]:5061").unwrap().to_string(), "[2001:db8::9]:5061");
        for wrong in [
            "",
            ":5060",
            "a b",
            "pbx:",
            "pbx:0",
            "-a.b",
            "a..b",
            "1.2.3",
            "[1.2.3.4]",
            "[::1",
            "[::1]x",
            "::1",
        ] {
            assert!(HostPort::parse(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn an_address_must_be_plain() {
        assert_eq!(url("https://a.example/x/", &["https"]), Ok("https://a.example/x".to_owned()));
        for wrong in
            ["https://", "ftp://a", "https://a b", "https://u:p@a", "https://a/?q", "https://a#f", "a"]
        {
            assert!(url(wrong, &["https"]).is_err(), "{wrong:?} was taken");
        }
    }
}
