//! Our answer and our offer to Meta: the stack's secrets in a description that we write.

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};

use super::lines::{self, Broken, Lines, attribute};
use super::theirs::{self, Offer, Setup, family};

/// Most candidates that are written.
const MAX_PLACES: usize = 16;
/// What is said about Opus where the offer says nothing: Meta's own words in its offers.
const OPUS_FMTP: &str =
    "minptime=20;useinbandfec=1;maxaveragebitrate=20000;maxplaybackrate=16000;sprop-maxcapturerate=16000";

/// How an address of ours came to be known (RFC 8445 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Of an interface of this box.
    Host,
    /// Of the NAT before it, told by STUN or by the configuration.
    ServerReflexive {
        /// The address behind the NAT.
        related: SocketAddr,
    },
}

/// Where we can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The address.
    pub ip: IpAddr,
    /// The UDP port.
    pub port: u16,
    /// How it is known.
    pub kind: Kind,
}

/// Why our own stack's description can't be used: a defect, or a stack that is set up wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackFault {
    /// More than 16 kB or 512 lines.
    TooLong,
    /// Not SDP.
    Malformed {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is not exactly one audio line, or it is switched off.
    NoAudio,
    /// It does not offer Opus, or did not take the one that was offered.
    NoOpus,
    /// No ICE user fragment and password.
    NoIce,
    /// No sha-256 fingerprint.
    NoFingerprint,
    /// No `a=ssrc`: the stack would not send.
    NoSsrc,
    /// The stack wants to be the DTLS server, as many do when they see `ice-lite`: it has to be told
    /// to answer as client. Meta never starts DTLS on an inbound call.
    Passive,
}

impl fmt::Display for StackFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StackFault::TooLong => f.write_str("the stack's SDP is longer than any call needs"),
            StackFault::Malformed { line, what } => write!(f, "the stack's SDP line {line} {what}"),
            StackFault::NoAudio => f.write_str("the stack's SDP does not have exactly one audio line"),
            StackFault::NoOpus => f.write_str("the stack's SDP does not have the Opus that was agreed on"),
            StackFault::NoIce => f.write_str("the stack's SDP has no ICE user fragment and password"),
            StackFault::NoFingerprint => f.write_str("the stack's SDP has no sha-256 fingerprint"),
            StackFault::NoSsrc => f.write_str("the stack's SDP has no ssrc: it would not send"),
            StackFault::Passive => f.write_str("the stack wants to be the DTLS server, Meta wants a client"),
        }
    }
}

impl std::error::Error for StackFault {}

impl From<Broken> for StackFault {
    fn from(broken: Broken) -> StackFault {
        match broken {
            Broken::TooLong => StackFault::TooLong,
            Broken::Line(line, what) => StackFault::Malformed { line, what },
        }
    }
}

/// The answer that Meta gets, the same in `pre_accept` and in `accept`.
///
/// Of the stack's answer only the ICE user fragment and password, the sha-256 fingerprint, the SSRC and
/// its cname are used. `places` are all addresses that are known by now: there is no way to send more
/// later. None at all is fine behind a NAT: Meta learns the address from our checks.
///
/// # Errors
/// [`StackFault`]: our stack gave no usable answer.
pub fn answer(stack_answer: &str, offer: &Offer, places: &[Place]) -> Result<String, StackFault> {
    let stack = Stack::read(stack_answer)?;
    if stack.opus_pt != offer.opus_pt {
        return Err(StackFault::NoOpus);
    }
    if stack.passive {
        return Err(StackFault::Passive);
    }
    Ok(stack.write(&Terms {
        group: if offer.bundle { Some(&offer.mid) } else { None },
        mid: if offer.names_mid() { Some(&offer.mid) } else { None },
        opus_pt: offer.opus_pt,
        opus_fmtp: offer.opus_fmtp.as_deref().unwrap_or(OPUS_FMTP),
        dtmf_pt: offer.dtmf_pt,
        setup: Setup::Active,
        places,
    }))
}

/// The offer that Meta gets in `connect`.
///
/// Of the stack's offer only what [`answer`] uses, its mid and its payload types for Opus and
/// telephone-event are used. `role` is what we propose: [`Setup::ActPass`] lets Meta choose (it is known
/// to take the client's part), [`Setup::Active`] makes us the client. `places`: as for [`answer`].
///
/// # Errors
/// [`StackFault`]: our stack gave no usable offer.
pub fn offer(stack_offer: &str, places: &[Place], role: Setup) -> Result<String, StackFault> {
    let stack = Stack::read(stack_offer)?;
    Ok(stack.write(&Terms {
        group: Some(&stack.mid),
        mid: Some(&stack.mid),
        opus_pt: stack.opus_pt,
        opus_fmtp: OPUS_FMTP,
        dtmf_pt: stack.dtmf_pt,
        setup: role,
        places,
    }))
}

/// What our stack says that nobody else can say.
struct Stack {
    mid: String,
    opus_pt: u8,
    dtmf_pt: Option<u8>,
    ufrag: String,
    pwd: String,
    fingerprint: String,
    ssrc: u32,
    cname: Option<String>,
    passive: bool,
}

/// What was agreed on with Meta, or is proposed to it.
struct Terms<'a> {
    group: Option<&'a str>,
    mid: Option<&'a str>,
    opus_pt: u8,
    opus_fmtp: &'a str,
    dtmf_pt: Option<u8>,
    setup: Setup,
    places: &'a [Place],
}

impl Stack {
    fn read(sdp: &str) -> Result<Stack, StackFault> {
        let lines = Lines::cut(sdp)?;
        let session = lines.session.as_slice();
        let [media] = lines.media.as_slice() else { return Err(StackFault::NoAudio) };
        let head = lines::media(media)?;
        if head.kind != "audio" || head.port == 0 {
            return Err(StackFault::NoAudio);
        }
        let (opus_pt, dtmf_pt) = theirs::codecs(media, &head.formats).ok_or(StackFault::NoOpus)?;
        let (ufrag, pwd) = lines::ice(media, session).ok_or(StackFault::NoIce)?;
        let fingerprint = lines::fingerprint(media, session).ok_or(StackFault::NoFingerprint)?;
        let (ssrc, cname) = lines::ssrc(media).ok_or(StackFault::NoSsrc)?;
        Ok(Stack {
            mid: theirs::mid(media).unwrap_or("0").to_owned(),
            opus_pt,
            dtmf_pt,
            ufrag,
            pwd,
            fingerprint,
            ssrc,
            cname,
            passive: attribute(media, session, "setup") == Some("passive"),
        })
    }

    fn write(&self, terms: &Terms<'_>) -> String {
        let places = usable(terms.places);
        let main = default_place(&places);
        let opus = terms.opus_pt;
        let formats = match terms.dtmf_pt {
            Some(dtmf) => format!("{opus} {dtmf}"),
            None => opus.to_string(),
        };
        let mut sdp = String::with_capacity(1_024);
        let mut line = |text: fmt::Arguments<'_>| {
            // Writing into a String can't fail.
            let _ = write!(sdp, "{text}\r\n");
        };
        line(format_args!("v=0"));
        line(format_args!("o=- {} 2 IN IP4 127.0.0.1", session_id(&self.ufrag, self.ssrc)));
        line(format_args!("s=-"));
        line(format_args!("t=0 0"));
        if let Some(mid) = terms.group {
            line(format_args!("a=group:BUNDLE {mid}"));
        }
        line(format_args!("m=audio {} UDP/TLS/RTP/SAVPF {formats}", main.port()));
        line(format_args!("c=IN {} {}", family(main.ip()), main.ip()));
        line(format_args!("a=rtcp:9 IN IP4 0.0.0.0"));
        for (index, place) in places.iter().enumerate() {
            line(format_args!("a=candidate:{}", Candidate { index, place }));
        }
        if !places.is_empty() {
            line(format_args!("a=end-of-candidates"));
        }
        line(format_args!("a=ice-ufrag:{}", self.ufrag));
        line(format_args!("a=ice-pwd:{}", self.pwd));
        line(format_args!("a=fingerprint:sha-256 {}", self.fingerprint));
        line(format_args!("a=setup:{}", terms.setup.as_str()));
        if let Some(mid) = terms.mid {
            line(format_args!("a=mid:{mid}"));
        }
        line(format_args!("a=sendrecv"));
        line(format_args!("a=rtcp-mux"));
        line(format_args!("a=rtpmap:{opus} opus/48000/2"));
        line(format_args!("a=fmtp:{opus} {}", terms.opus_fmtp));
        if let Some(dtmf) = terms.dtmf_pt {
            line(format_args!("a=rtpmap:{dtmf} telephone-event/8000"));
            line(format_args!("a=fmtp:{dtmf} 0-16"));
        }
        line(format_args!("a=ptime:20"));
        line(format_args!("a=maxptime:20"));
        line(format_args!("a=ssrc:{} cname:{}", self.ssrc, self.cname.as_deref().unwrap_or("watrunk")));
        sdp
    }
}

/// One `a=candidate` (RFC 8839 §5.1).
struct Candidate<'a> {
    index: usize,
    place: &'a Place,
}

impl fmt::Display for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { ip, port, kind } = self.place;
        let foundation = self.index + 1;
        match kind {
            Kind::Host => {
                let priority = priority(126, *ip, self.index);
                write!(f, "{foundation} 1 udp {priority} {ip} {port} typ host")
            }
            Kind::ServerReflexive { related } => {
                let priority = priority(100, *ip, self.index);
                let (base, base_port) = (related.ip(), related.port());
                write!(
                    f,
                    "{foundation} 1 udp {priority} {ip} {port} typ srflx raddr {base} rport {base_port}"
                )
            }
        }
    }
}

/// The priority of a candidate (RFC 8445 §5.1.2.1, component 1), IPv4 before IPv6, earlier before later.
pub(super) fn priority(type_preference: u32, ip: IpAddr, index: usize) -> u32 {
    let rank = u32::try_from(index).unwrap_or(u32::MAX).min(1_000);
    let local = match ip {
        IpAddr::V4(_) => 65_535 - rank,
        IpAddr::V6(_) => 32_767 - rank,
    };
    (type_preference << 24) | (local << 8) | 255
}

/// Addresses that another host can send to, each once: IPv4 first, then the order in which they came.
fn usable(places: &[Place]) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    for place in places {
        let reachable = place.port != 0 && !place.ip.is_unspecified() && !place.ip.is_multicast();
        let known = found.iter().any(|other| (other.ip, other.port) == (place.ip, place.port));
        if reachable && !known && found.len() < MAX_PLACES {
            found.push(*place);
        }
    }
    found.sort_by_key(|place| place.ip.is_ipv6());
    found
}

/// What stands in `m=` and `c=`: the address most likely to work from outside (RFC 8839 §4.2.1.2).
fn default_place(places: &[Place]) -> SocketAddr {
    let outside = places.iter().find(|place| place.kind != Kind::Host && place.ip.is_ipv4());
    match outside.or(places.first()) {
        Some(place) => SocketAddr::new(place.ip, place.port),
        None => SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 9),
    }
}

/// A number for the `o=` line: the same for the same answer, another for another call, below 2^63.
fn session_id(ufrag: &str, ssrc: u32) -> u64 {
    let hash = Sha256::new().chain_update(ufrag).chain_update(ssrc.to_be_bytes()).finalize();
    let start = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    start >> 1
}
