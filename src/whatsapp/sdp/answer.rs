//! Our answer to Meta: the stack's secrets in a description that we write.

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};

use super::lines::{self, Broken, Lines, attribute};
use super::offer::{Offer, family, payload_type};

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

/// Why our own stack's answer can't be used: a defect, or a stack that is set up wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFault {
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
    /// The offered Opus was not taken.
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

impl fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerFault::TooLong => f.write_str("the stack's SDP is longer than any call needs"),
            AnswerFault::Malformed { line, what } => write!(f, "the stack's SDP line {line} {what}"),
            AnswerFault::NoAudio => f.write_str("the stack's SDP does not have exactly one audio line"),
            AnswerFault::NoOpus => f.write_str("the stack did not take Opus"),
            AnswerFault::NoIce => f.write_str("the stack's SDP has no ICE user fragment and password"),
            AnswerFault::NoFingerprint => f.write_str("the stack's SDP has no sha-256 fingerprint"),
            AnswerFault::NoSsrc => f.write_str("the stack's SDP has no ssrc: it would not send"),
            AnswerFault::Passive => f.write_str("the stack wants to be the DTLS server, Meta wants a client"),
        }
    }
}

impl std::error::Error for AnswerFault {}

impl From<Broken> for AnswerFault {
    fn from(broken: Broken) -> AnswerFault {
        match broken {
            Broken::TooLong => AnswerFault::TooLong,
            Broken::Line(line, what) => AnswerFault::Malformed { line, what },
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
/// [`AnswerFault`]: our stack gave no usable answer.
pub fn answer(stack_answer: &str, offer: &Offer, places: &[Place]) -> Result<String, AnswerFault> {
    let lines = Lines::cut(stack_answer)?;
    let session = lines.session.as_slice();
    let [media] = lines.media.as_slice() else { return Err(AnswerFault::NoAudio) };
    let head = lines::media(media)?;
    if head.kind != "audio" || head.port == 0 {
        return Err(AnswerFault::NoAudio);
    }
    let opus = payload_type(media, &head.formats, |codec| codec.eq_ignore_ascii_case("opus/48000/2"));
    if opus != Some(offer.opus_pt) {
        return Err(AnswerFault::NoOpus);
    }
    let (ufrag, pwd) = lines::ice(media, session).ok_or(AnswerFault::NoIce)?;
    let fingerprint = lines::fingerprint(media, session).ok_or(AnswerFault::NoFingerprint)?;
    let (ssrc, cname) = lines::ssrc(media).ok_or(AnswerFault::NoSsrc)?;
    if attribute(media, session, "setup") == Some("passive") {
        return Err(AnswerFault::Passive);
    }

    let places = usable(places);
    let main = default_place(&places);
    let formats = match offer.dtmf_pt {
        Some(dtmf) => format!("{} {dtmf}", offer.opus_pt),
        None => offer.opus_pt.to_string(),
    };
    let mut sdp = String::with_capacity(1_024);
    let mut line = |text: fmt::Arguments<'_>| {
        // Writing into a String can't fail.
        let _ = write!(sdp, "{text}\r\n");
    };
    line(format_args!("v=0"));
    line(format_args!("o=- {} 2 IN IP4 127.0.0.1", session_id(&ufrag, ssrc)));
    line(format_args!("s=-"));
    line(format_args!("t=0 0"));
    if offer.bundle {
        line(format_args!("a=group:BUNDLE {}", offer.mid));
    }
    line(format_args!("m=audio {} UDP/TLS/RTP/SAVPF {formats}", main.port()));
    line(format_args!("c=IN {} {}", family(main.ip()), main.ip()));
    line(format_args!("a=rtcp:9 IN IP4 0.0.0.0"));
    for (index, place) in places.iter().enumerate() {
        let foundation = index + 1;
        match place.kind {
            Kind::Host => {
                let priority = priority(126, place.ip, index);
                line(format_args!(
                    "a=candidate:{foundation} 1 udp {priority} {} {} typ host",
                    place.ip, place.port
                ));
            }
            Kind::ServerReflexive { related } => {
                let priority = priority(100, place.ip, index);
                line(format_args!(
                    "a=candidate:{foundation} 1 udp {priority} {} {} typ srflx raddr {} rport {}",
                    place.ip,
                    place.port,
                    related.ip(),
                    related.port()
                ));
            }
        }
    }
    if !places.is_empty() {
        line(format_args!("a=end-of-candidates"));
    }
    line(format_args!("a=ice-ufrag:{ufrag}"));
    line(format_args!("a=ice-pwd:{pwd}"));
    line(format_args!("a=fingerprint:sha-256 {fingerprint}"));
    line(format_args!("a=setup:active"));
    if offer.names_mid() {
        line(format_args!("a=mid:{}", offer.mid));
    }
    line(format_args!("a=sendrecv"));
    line(format_args!("a=rtcp-mux"));
    line(format_args!("a=rtpmap:{} opus/48000/2", offer.opus_pt));
    line(format_args!("a=fmtp:{} {}", offer.opus_pt, offer.opus_fmtp.as_deref().unwrap_or(OPUS_FMTP)));
    if let Some(dtmf) = offer.dtmf_pt {
        line(format_args!("a=rtpmap:{dtmf} telephone-event/8000"));
        line(format_args!("a=fmtp:{dtmf} 0-16"));
    }
    line(format_args!("a=ptime:20"));
    line(format_args!("a=maxptime:20"));
    line(format_args!("a=ssrc:{ssrc} cname:{}", cname.as_deref().unwrap_or("watrunk")));
    Ok(sdp)
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
