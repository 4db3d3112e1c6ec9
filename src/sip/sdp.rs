//! Session descriptions (RFC 4566, RFC 3264): our offer to the PBX, and what it says back.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The two laws of G.711 (RFC 3551: payload types 0 and 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// µ-law: PCMU, payload type 0.
    Pcmu,
    /// A-law: PCMA, payload type 8.
    Pcma,
}

impl Law {
    /// The static payload type.
    pub fn payload_type(self) -> u8 {
        match self {
            Law::Pcmu => 0,
            Law::Pcma => 8,
        }
    }

    fn encoding(self) -> &'static str {
        match self {
            Law::Pcmu => "PCMU",
            Law::Pcma => "PCMA",
        }
    }

    fn of_encoding(name: &str) -> Option<Law> {
        [Law::Pcmu, Law::Pcma].into_iter().find(|law| law.encoding().eq_ignore_ascii_case(name))
    }
}

/// Our side of the sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalMedia {
    /// Where we want RTP.
    pub rtp: SocketAddr,
    /// The session id of the o= line: one number for the whole call.
    pub session: u64,
    /// The version of the o= line: grows with every change.
    pub version: u64,
    /// The laws we offer, in order of preference.
    pub laws: Vec<Law>,
    /// The payload type of telephone-event (RFC 4733), usually 101.
    pub dtmf_pt: u8,
}

/// The PBX's side of the sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteMedia {
    /// Where it wants RTP.
    pub rtp: SocketAddr,
    /// Where it wants RTCP (RFC 3605, else the next port).
    pub rtcp: SocketAddr,
    /// The law to send.
    pub law: Law,
    /// The payload type to send it with.
    pub pt: u8,
    /// The payload type of telephone-event at 8 kHz, if it takes it.
    pub dtmf_pt: Option<u8>,
    /// The packet length it asks for, in milliseconds.
    pub ptime_ms: Option<u32>,
    /// As the PBX sees it: `SendOnly` means that it sends and does not listen.
    pub direction: Direction,
}

/// Who sends, as the writer of the description sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    SendRecv,
    /// The writer only sends: we are on hold, perhaps with music.
    SendOnly,
    /// The writer only listens.
    RecvOnly,
    /// Nobody.
    Inactive,
}

impl Direction {
    /// What the other side answers (RFC 3264 §6.1).
    pub fn mirrored(self) -> Direction {
        match self {
            Direction::SendRecv => Direction::SendRecv,
            Direction::SendOnly => Direction::RecvOnly,
            Direction::RecvOnly => Direction::SendOnly,
            Direction::Inactive => Direction::Inactive,
        }
    }

    fn attribute(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    fn of_attribute(name: &str) -> Option<Direction> {
        [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive]
            .into_iter()
            .find(|direction| direction.attribute() == name)
    }

    /// A connection address of zero is how RFC 2543 said hold: its writer cannot listen.
    fn deaf(self) -> Direction {
        match self {
            Direction::SendRecv | Direction::SendOnly => Direction::SendOnly,
            Direction::RecvOnly | Direction::Inactive => Direction::Inactive,
        }
    }
}

/// Why a description cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SdpError {
    /// There is no body at all.
    Empty,
    /// A line is not `x=value`, or its value makes no sense.
    Malformed {
        /// The line, cut to 80 characters.
        line: String,
    },
    /// There is no m=audio.
    NoAudio,
    /// Audio was refused: its port is 0.
    Refused,
    /// The profile is not plain RTP, such as `RTP/SAVP`.
    Profile(String),
    /// Neither PCMU nor PCMA is in it; these are.
    NoCommonCodec(String),
    /// The connection address is missing or is a name.
    Address(String),
}

impl fmt::Display for SdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SdpError::Empty => write!(f, "no session description"),
            SdpError::Malformed { line } => write!(f, "session description: bad line \"{line}\""),
            SdpError::NoAudio => write!(f, "session description without audio"),
            SdpError::Refused => write!(f, "audio refused (port 0)"),
            SdpError::Profile(profile) => write!(f, "audio profile {profile} is not RTP/AVP"),
            SdpError::NoCommonCodec(formats) => write!(f, "neither PCMU nor PCMA among \"{formats}\""),
            SdpError::Address(address) => write!(f, "connection address \"{address}\" is not an IP address"),
        }
    }
}

impl std::error::Error for SdpError {}

/// Our offer.
pub fn offer(local: &LocalMedia) -> String {
    let mut formats: Vec<Format> =
        local.laws.iter().map(|law| Format { pt: law.payload_type(), law: Some(*law) }).collect();
    formats.push(Format { pt: local.dtmf_pt, law: None });
    let origin = Origin { session: local.session, version: local.version };
    let mut text = session_lines(origin, local.rtp.ip());
    text.push_str(&audio_lines(local.rtp.port(), "RTP/AVP", &formats, Direction::SendRecv));
    text
}

/// Reads an answer, or a new offer of the PBX.
pub fn answer(bytes: &[u8]) -> Result<RemoteMedia, SdpError> {
    Description::read(bytes)?.remote()
}

/// Our answer to the PBX's new offer `theirs`: the address and session of our own offer `ours`, a
/// higher version, the PBX's payload types, its direction mirrored, every other medium refused.
pub(crate) fn reply(ours: &str, theirs: &[u8], version: u64) -> Result<String, SdpError> {
    let own = Own::read(ours)?;
    let offered = Description::read(theirs)?;
    let remote = offered.remote()?;
    let chosen = offered.audio_index();
    let mut text = session_lines(Origin { session: own.session, version }, own.rtp.ip());
    for (index, medium) in offered.media.iter().enumerate() {
        if Some(index) == chosen {
            let mut formats = vec![Format { pt: remote.pt, law: Some(remote.law) }];
            formats.extend(remote.dtmf_pt.map(|pt| Format { pt, law: None }));
            let direction = remote.direction.mirrored();
            text.push_str(&audio_lines(own.rtp.port(), &medium.profile, &formats, direction));
        } else {
            let formats = if medium.formats.is_empty() { "0".to_owned() } else { medium.formats.join(" ") };
            text.push_str(&format!("m={} 0 {} {formats}\r\n", medium.kind, medium.profile));
        }
    }
    Ok(text)
}

/// Our own offer again with a higher version: the answer to a re-INVITE that carries no offer.
pub(crate) fn offer_again(ours: &str, version: u64) -> Result<String, SdpError> {
    let own = Own::read(ours)?;
    let mut text = session_lines(Origin { session: own.session, version }, own.rtp.ip());
    text.push_str(&audio_lines(own.rtp.port(), "RTP/AVP", &own.formats, Direction::SendRecv));
    Ok(text)
}

/// The version of our offer's o= line.
pub(crate) fn version_of(ours: &str) -> u64 {
    Description::read(ours.as_bytes()).ok().and_then(|own| own.origin).map_or(0, |origin| origin.version)
}

/// One payload type of ours: a law, or (without one) telephone-event.
#[derive(Debug, Clone, Copy)]
struct Format {
    pt: u8,
    law: Option<Law>,
}

#[derive(Debug, Clone, Copy)]
struct Origin {
    session: u64,
    version: u64,
}

fn session_lines(origin: Origin, address: IpAddr) -> String {
    let kind = if address.is_ipv4() { "IP4" } else { "IP6" };
    let Origin { session, version } = origin;
    format!(
        "v=0\r\no=watrunk {session} {version} IN {kind} {address}\r\ns=-\r\nc=IN {kind} {address}\r\nt=0 0\r\n"
    )
}

fn audio_lines(port: u16, profile: &str, formats: &[Format], direction: Direction) -> String {
    let list: Vec<String> = formats.iter().map(|format| format.pt.to_string()).collect();
    let mut text = format!("m=audio {port} {profile} {}\r\n", list.join(" "));
    for Format { pt, law } in formats {
        match law {
            Some(law) => text.push_str(&format!("a=rtpmap:{pt} {}/8000\r\n", law.encoding())),
            None => text.push_str(&format!("a=rtpmap:{pt} telephone-event/8000\r\na=fmtp:{pt} 0-16\r\n")),
        }
    }
    text.push_str("a=ptime:20\r\na=maxptime:60\r\n");
    // RFC 3550 wants RTP on an even port; where it is odd, some peers look for RTCP one below.
    if port % 2 == 1 {
        text.push_str(&format!("a=rtcp:{}\r\n", port.saturating_add(1)));
    }
    text.push_str(&format!("a={}\r\n", direction.attribute()));
    text
}

/// What we need back from our own offer.
struct Own {
    session: u64,
    rtp: SocketAddr,
    formats: Vec<Format>,
}

impl Own {
    fn read(ours: &str) -> Result<Own, SdpError> {
        let own = Description::read(ours.as_bytes())?;
        let remote = own.remote()?;
        let audio = own.audio_index().and_then(|index| own.media.get(index)).ok_or(SdpError::NoAudio)?;
        let formats = audio
            .formats
            .iter()
            .filter_map(|text| text.parse::<u8>().ok())
            .filter_map(|pt| match audio.law_of(pt) {
                Some(law) => Some(Format { pt, law: Some(law) }),
                None if Some(pt) == remote.dtmf_pt => Some(Format { pt, law: None }),
                None => None,
            })
            .collect();
        let session = own.origin.map_or(0, |origin| origin.session);
        Ok(Own { session, rtp: remote.rtp, formats })
    }
}

/// A description, read as far as a telephone needs it.
#[derive(Default)]
struct Description {
    origin: Option<Origin>,
    address: Option<String>,
    direction: Option<Direction>,
    media: Vec<Medium>,
}

#[derive(Default)]
struct Medium {
    kind: String,
    port: u16,
    profile: String,
    formats: Vec<String>,
    address: Option<String>,
    direction: Option<Direction>,
    rtcp: Option<(u16, Option<String>)>,
    ptime_ms: Option<u32>,
    /// Payload type, encoding, clock rate in Hz.
    maps: Vec<(u8, String, u32)>,
}

/// More media or more maps than these are not read: no telephone sends them.
const MEDIA: usize = 16;
const MAPS: usize = 64;

impl Description {
    fn read(bytes: &[u8]) -> Result<Description, SdpError> {
        let text = String::from_utf8_lossy(bytes);
        let mut read = Description::default();
        let mut lines = 0usize;
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            lines += 1;
            let fault = || SdpError::Malformed { line: line.chars().take(80).collect() };
            let (key, value) = line.split_once('=').ok_or_else(fault)?;
            match key {
                "o" => read.origin = Some(origin_line(value)),
                "c" => {
                    let address = value.split_whitespace().nth(2).ok_or_else(fault)?.to_owned();
                    match read.media.last_mut() {
                        Some(medium) => medium.address = Some(address),
                        None => read.address = Some(address),
                    }
                }
                "m" if read.media.len() < MEDIA => read.media.push(media_line(value).ok_or_else(fault)?),
                "a" => read.attribute(value),
                _ => {}
            }
        }
        if lines == 0 { Err(SdpError::Empty) } else { Ok(read) }
    }

    fn attribute(&mut self, value: &str) {
        let direction = Direction::of_attribute(value);
        let Some(medium) = self.media.last_mut() else {
            self.direction = direction.or(self.direction);
            return;
        };
        medium.direction = direction.or(medium.direction);
        match value.split_once(':') {
            Some(("rtpmap", map)) if medium.maps.len() < MAPS => medium.maps.extend(rtpmap(map)),
            Some(("ptime", millis)) => medium.ptime_ms = millis.trim().parse().ok().filter(|ms| *ms > 0),
            Some(("rtcp", rest)) => {
                let mut words = rest.split_whitespace();
                let port = words.next().and_then(|port| port.parse().ok());
                medium.rtcp = port.map(|port| (port, words.nth(2).map(str::to_owned)));
            }
            Some(_) | None => {}
        }
    }

    /// Which medium is the call: the first audio that is not refused.
    fn audio_index(&self) -> Option<usize> {
        let audio = |medium: &Medium| medium.kind.eq_ignore_ascii_case("audio");
        self.media
            .iter()
            .position(|medium| audio(medium) && medium.port != 0)
            .or_else(|| self.media.iter().position(audio))
    }

    fn remote(&self) -> Result<RemoteMedia, SdpError> {
        let medium = self.audio_index().and_then(|index| self.media.get(index)).ok_or(SdpError::NoAudio)?;
        if medium.port == 0 {
            return Err(SdpError::Refused);
        }
        if !["RTP/AVP", "RTP/AVPF"].iter().any(|known| medium.profile.eq_ignore_ascii_case(known)) {
            return Err(SdpError::Profile(medium.profile.chars().take(40).collect()));
        }
        let address = medium.address.as_deref().or(self.address.as_deref()).unwrap_or_default();
        let ip = connection(address)?;
        let (pt, law) = medium
            .formats
            .iter()
            .filter_map(|format| format.parse::<u8>().ok())
            .find_map(|pt| medium.law_of(pt).map(|law| (pt, law)))
            .ok_or_else(|| SdpError::NoCommonCodec(medium.formats.join(" ").chars().take(80).collect()))?;
        let dtmf_pt = medium
            .formats
            .iter()
            .filter_map(|format| format.parse::<u8>().ok())
            .find(|pt| medium.is_event(*pt));
        let rtcp = match &medium.rtcp {
            Some((port, Some(address))) => SocketAddr::new(connection(address).unwrap_or(ip), *port),
            Some((port, None)) => SocketAddr::new(ip, *port),
            None => SocketAddr::new(ip, medium.port.saturating_add(1)),
        };
        let direction = medium.direction.or(self.direction).unwrap_or(Direction::SendRecv);
        let direction = if ip.is_unspecified() { direction.deaf() } else { direction };
        let rtp = SocketAddr::new(ip, medium.port);
        Ok(RemoteMedia { rtp, rtcp, law, pt, dtmf_pt, ptime_ms: medium.ptime_ms, direction })
    }
}

impl Medium {
    fn law_of(&self, pt: u8) -> Option<Law> {
        match self.maps.iter().find(|(mapped, _, _)| *mapped == pt) {
            Some((_, encoding, 8_000)) => Law::of_encoding(encoding),
            Some(_) => None,
            None => [Law::Pcmu, Law::Pcma].into_iter().find(|law| law.payload_type() == pt),
        }
    }

    fn is_event(&self, pt: u8) -> bool {
        self.maps.iter().any(|(mapped, encoding, rate)| {
            *mapped == pt && *rate == 8_000 && encoding.eq_ignore_ascii_case("telephone-event")
        })
    }
}

fn origin_line(value: &str) -> Origin {
    let mut words = value.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0));
    Origin { session: words.next().unwrap_or(0), version: words.next().unwrap_or(0) }
}

/// `audio 49170/2 RTP/AVP 0 8`
fn media_line(value: &str) -> Option<Medium> {
    let mut words = value.split_whitespace();
    let kind = words.next()?.to_owned();
    let port = words.next()?.split('/').next()?.parse().ok()?;
    let profile = words.next()?.to_owned();
    let formats = words.take(MAPS).map(str::to_owned).collect();
    Some(Medium { kind, port, profile, formats, ..Medium::default() })
}

/// `101 telephone-event/8000/1`
fn rtpmap(value: &str) -> Option<(u8, String, u32)> {
    let (pt, rest) = value.trim().split_once(' ')?;
    let mut parts = rest.trim().split('/');
    let encoding = parts.next()?.to_owned();
    Some((pt.parse().ok()?, encoding, parts.next()?.trim().parse().ok()?))
}

/// The address of a c= line, without the time to live of multicast.
fn connection(text: &str) -> Result<IpAddr, SdpError> {
    let address = text.split('/').next().unwrap_or_default();
    let ip: IpAddr = address.parse().map_err(|_| SdpError::Address(text.chars().take(80).collect()))?;
    Ok(if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { ip })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> LocalMedia {
        LocalMedia {
            rtp: SocketAddr::new([203, 0, 113, 7].into(), port),
            session: 42,
            version: 1,
            laws: vec![Law::Pcma, Law::Pcmu],
            dtmf_pt: 101,
        }
    }

    #[test]
    fn the_offer_lists_the_laws_in_order_and_the_digits() {
        let text = offer(&local(20_000));
        assert!(text.contains("o=watrunk 42 1 IN IP4 203.0.113.7\r\n"), "{text}");
        assert!(text.contains("m=audio 20000 RTP/AVP 8 0 101\r\n"), "{text}");
        assert!(text.contains("a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"), "{text}");
        assert!(text.contains("a=ptime:20\r\n") && text.contains("a=sendrecv\r\n"), "{text}");
        assert!(!text.contains("a=rtcp:"), "an even port needs no a=rtcp: {text}");
        assert!(offer(&local(20_001)).contains("a=rtcp:20002\r\n"));
        assert!(text.lines().all(|line| !line.is_empty()) && text.ends_with("\r\n"));
    }

    #[test]
    fn our_own_offer_can_be_read_back() {
        let read = answer(offer(&local(20_000)).as_bytes()).unwrap();
        assert_eq!(read.rtp, "203.0.113.7:20000".parse::<std::net::SocketAddr>().unwrap());
        assert_eq!(read.rtcp.port(), 20_001);
        assert_eq!((read.law, read.pt, read.dtmf_pt), (Law::Pcma, 8, Some(101)));
        assert_eq!((read.ptime_ms, read.direction), (Some(20), Direction::SendRecv));
    }

    #[test]
    fn an_ipv6_offer_says_so() {
        let mut six = local(20_000);
        six.rtp = "[2001:db8::7]:20000".parse().unwrap();
        let text = offer(&six);
        assert!(text.contains("c=IN IP6 2001:db8::7\r\n"), "{text}");
        assert_eq!(answer(text.as_bytes()).unwrap().rtp, six.rtp);
    }

    const ASTERISK: &str = "v=0\r\no=- 42 3 IN IP4 127.0.0.10\r\ns=Asterisk\r\nc=IN IP4 127.0.0.10\r\n\
        t=0 0\r\nm=audio 10012 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
        a=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:140\r\na=sendrecv\r\n";

    #[test]
    fn what_asterisk_answers_is_understood() {
        let read = answer(ASTERISK.as_bytes()).unwrap();
        assert_eq!(read.rtp, "127.0.0.10:10012".parse::<std::net::SocketAddr>().unwrap());
        assert_eq!((read.law, read.pt, read.dtmf_pt), (Law::Pcmu, 0, Some(101)));
    }

    #[test]
    fn the_medium_speaks_before_the_session() {
        let text = "v=0\nc=IN IP4 192.0.2.1\na=inactive\nm=video 0 RTP/AVP 31\nm=audio 4000 RTP/AVP 97 98\n\
            c=IN IP4 192.0.2.2/127\na=rtpmap:97 opus/48000/2\na=rtpmap:98 pcma/8000/1\na=recvonly\n\
            a=rtcp:4100 IN IP4 192.0.2.3\n";
        let read = answer(text.as_bytes()).unwrap();
        assert_eq!(read.rtp, "192.0.2.2:4000".parse::<std::net::SocketAddr>().unwrap());
        assert_eq!(read.rtcp, "192.0.2.3:4100".parse::<std::net::SocketAddr>().unwrap());
        assert_eq!((read.law, read.pt, read.dtmf_pt), (Law::Pcma, 98, None));
        assert_eq!(read.direction, Direction::RecvOnly);
    }

    #[test]
    fn a_connection_of_zero_is_a_hold() {
        let held = ASTERISK.replace("c=IN IP4 127.0.0.10", "c=IN IP4 0.0.0.0");
        assert_eq!(answer(held.as_bytes()).unwrap().direction, Direction::SendOnly);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let swap = |from: &str, to: &str| answer(ASTERISK.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(answer(b""), Err(SdpError::Empty));
        assert_eq!(answer(b"v=0\r\n"), Err(SdpError::NoAudio));
        assert_eq!(swap("m=audio 10012", "m=audio 0"), SdpError::Refused);
        assert_eq!(swap("RTP/AVP", "RTP/SAVP"), SdpError::Profile("RTP/SAVP".into()));
        assert_eq!(swap("RTP/AVP 0 101", "RTP/AVP 18 101"), SdpError::NoCommonCodec("18 101".into()));
        assert_eq!(swap("c=IN IP4 127.0.0.10", "c=IN IP4 pbx.lan"), SdpError::Address("pbx.lan".into()));
        assert_eq!(
            swap("m=audio 10012", "m=audio 99999"),
            SdpError::Malformed { line: "m=audio 99999 RTP/AVP 0 101".into() }
        );
    }

    #[test]
    fn a_hold_is_answered_with_its_mirror_and_a_new_version() {
        let ours = offer(&local(20_000));
        for (theirs, mirror) in [
            ("sendonly", "recvonly"),
            ("inactive", "inactive"),
            ("recvonly", "sendonly"),
            ("sendrecv", "sendrecv"),
        ] {
            let offered = ASTERISK.replace("sendrecv", theirs).replace("101", "96");
            let text = reply(&ours, offered.as_bytes(), 2).unwrap();
            assert!(text.contains(&format!("a={mirror}\r\n")), "{text}");
            assert!(text.contains("o=watrunk 42 2 IN IP4 203.0.113.7\r\n"), "{text}");
            assert!(text.contains("m=audio 20000 RTP/AVP 0 96\r\n"), "the PBX's payload types: {text}");
        }
    }

    #[test]
    fn video_in_a_new_offer_is_refused_in_its_place() {
        let offered = format!("{ASTERISK}m=video 5000 RTP/AVP 31\r\n");
        let text = reply(&offer(&local(20_000)), offered.as_bytes(), 2).unwrap();
        assert!(text.ends_with("m=video 0 RTP/AVP 31\r\n"), "{text}");
    }

    #[test]
    fn an_offer_made_again_keeps_everything_but_the_version() {
        let ours = offer(&local(20_001));
        assert_eq!(offer_again(&ours, 2).unwrap(), ours.replace("o=watrunk 42 1 ", "o=watrunk 42 2 "));
        assert_eq!(version_of(&ours), 1);
    }
}
