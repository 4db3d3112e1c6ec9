//! Meta's offer and Meta's answer: read into facts, and written anew for our WebRTC stack.

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;

use super::lines::{self, Broken, Line, Lines, attribute, attributes, flag};

/// Most candidates that are kept. Meta sends two.
const MAX_CANDIDATES: usize = 16;

/// The `a=setup` role of the side that speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setup {
    /// The other side may choose.
    ActPass,
    /// The DTLS client.
    Active,
    /// The DTLS server.
    Passive,
}

impl Setup {
    /// The word in SDP (RFC 4145 §4).
    pub const fn as_str(self) -> &'static str {
        match self {
            Setup::ActPass => "actpass",
            Setup::Active => "active",
            Setup::Passive => "passive",
        }
    }
}

/// Why a description of Meta's can't be used: no call can come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferFault {
    /// More than 16 kB or 512 lines.
    TooLong,
    /// Not SDP.
    Malformed {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More than one media line: WhatsApp calls have one.
    SeveralMedia,
    /// The media line is not audio, or is switched off.
    NotAudio,
    /// No Opus at 48 kHz with two channels.
    NoOpus,
    /// No ICE user fragment, password or usable address.
    NoIce,
    /// No (well-formed) sha-256 fingerprint. The number may be set to SDES.
    NoFingerprint,
}

impl fmt::Display for OfferFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OfferFault::TooLong => f.write_str("the SDP is longer than any call needs"),
            OfferFault::Malformed { line, what } => write!(f, "SDP line {line} {what}"),
            OfferFault::SeveralMedia => f.write_str("the SDP has several m= lines, a WhatsApp call has one"),
            OfferFault::NotAudio => f.write_str("the SDP offers no audio"),
            OfferFault::NoOpus => f.write_str("the SDP offers no opus/48000/2"),
            OfferFault::NoIce => f.write_str("the SDP has no ICE user fragment, password or usable address"),
            OfferFault::NoFingerprint => f.write_str(
                "the SDP has no sha-256 fingerprint: is srtp_key_exchange_protocol of the number DTLS?",
            ),
        }
    }
}

impl std::error::Error for OfferFault {}

impl From<Broken> for OfferFault {
    fn from(broken: Broken) -> OfferFault {
        match broken {
            Broken::TooLong => OfferFault::TooLong,
            Broken::Line(line, what) => OfferFault::Malformed { line, what },
        }
    }
}

/// What Meta offers.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// Identification of the media line; `audio` where Meta gives none.
    pub mid: String,
    /// The mid is in a BUNDLE group.
    pub bundle: bool,
    /// Payload type of Opus.
    pub opus_pt: u8,
    /// What the offer says about Opus, such as `minptime=10;useinbandfec=1`; only keys that we can echo.
    pub opus_fmtp: Option<String>,
    /// Payload type of `telephone-event/8000`.
    pub dtmf_pt: Option<u8>,
    /// Where Meta's relay listens, IPv4 first.
    pub candidates: Vec<SocketAddr>,
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// sha-256 of the certificate, upper-case hex with colons.
    pub fingerprint: String,
    /// It says that it is ICE-lite.
    pub ice_lite: bool,
    /// Its DTLS role; a missing one means that we may choose.
    pub setup: Setup,
    /// The one synchronisation source that it will send.
    pub ssrc: Option<u32>,
    /// The canonical name of that source.
    pub cname: Option<String>,
    /// Stream and track of that source.
    pub msid: Option<(String, String)>,
    /// The mid was given.
    mid_given: bool,
}

/// Without the password.
impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("mid", &self.mid)
            .field("opus_pt", &self.opus_pt)
            .field("dtmf_pt", &self.dtmf_pt)
            .field("candidates", &self.candidates)
            .field("ufrag", &self.ufrag)
            .field("ice_lite", &self.ice_lite)
            .field("setup", &self.setup)
            .field("ssrc", &self.ssrc)
            .finish_non_exhaustive()
    }
}

impl Offer {
    /// Reads an offer in any of the shapes that Meta sends.
    ///
    /// # Errors
    /// [`OfferFault`]: the call can't be taken; trying again does not help.
    pub fn parse(sdp: &str) -> Result<Offer, OfferFault> {
        let lines = Lines::cut(sdp)?;
        let session = lines.session.as_slice();
        let media = match lines.media.as_slice() {
            [one] => one.as_slice(),
            [] => return Err(OfferFault::NotAudio),
            [_, _, ..] => return Err(OfferFault::SeveralMedia),
        };
        let head = lines::media(media)?;
        if head.kind != "audio" || head.port == 0 {
            return Err(OfferFault::NotAudio);
        }
        let (opus_pt, dtmf_pt) = codecs(media, &head.formats).ok_or(OfferFault::NoOpus)?;
        let (ufrag, pwd) = lines::ice(media, session).ok_or(OfferFault::NoIce)?;
        let fingerprint = lines::fingerprint(media, session).ok_or(OfferFault::NoFingerprint)?;
        let candidates = candidates(media, session, head.port);
        if candidates.is_empty() {
            return Err(OfferFault::NoIce);
        }
        let (ssrc, cname) = lines::ssrc(media).map_or((None, None), |(ssrc, cname)| (Some(ssrc), cname));
        let mid = mid(media);
        let bundle = mid.is_some_and(|mid| {
            attributes(session, "group").any(|group| {
                let mut words = group.split_ascii_whitespace();
                words.next() == Some("BUNDLE") && words.any(|word| word == mid)
            })
        });
        Ok(Offer {
            mid: mid.unwrap_or("audio").to_owned(),
            bundle,
            opus_pt,
            opus_fmtp: opus_fmtp(media, opus_pt),
            dtmf_pt,
            candidates,
            ufrag,
            pwd,
            fingerprint,
            ice_lite: flag(session, "ice-lite") || flag(media, "ice-lite"),
            setup: setup(media, session),
            ssrc,
            cname,
            msid: msid(media),
            mid_given: mid.is_some(),
        })
    }

    /// Whether the answer has to name the mid.
    pub(super) fn names_mid(&self) -> bool {
        self.mid_given
    }

    /// The offer as our WebRTC stack gets it.
    ///
    /// Always `ice-lite`, so that we are the controlling side even as the answerer: Meta is never, and
    /// two controlled sides wait for each other. Always `actpass`: we are the DTLS client. IPv4 has the
    /// higher priority, for Meta's own numbers prefer an IPv6 that many networks don't have. Opus
    /// without parameters: some stacks drop a codec whose parameters differ from their own.
    pub fn for_stack(&self) -> String {
        self.write(&self.mid, self.dtmf_pt, Setup::ActPass)
    }

    fn write(&self, mid: &str, dtmf_pt: Option<u8>, setup: Setup) -> String {
        let mut sdp = String::with_capacity(1_024);
        let formats = match dtmf_pt {
            Some(dtmf) => format!("{} {dtmf}", self.opus_pt),
            None => self.opus_pt.to_string(),
        };
        let fallback = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 9);
        let main = self.candidates.first().copied().unwrap_or(fallback);
        let mut line = |text: fmt::Arguments<'_>| {
            // Writing into a String can't fail.
            let _ = write!(sdp, "{text}\r\n");
        };
        line(format_args!("v=0"));
        line(format_args!("o=- {} 2 IN IP4 127.0.0.1", self.ssrc.unwrap_or(1)));
        line(format_args!("s=-"));
        line(format_args!("t=0 0"));
        line(format_args!("a=group:BUNDLE {mid}"));
        line(format_args!("a=ice-lite"));
        line(format_args!("m=audio {} UDP/TLS/RTP/SAVPF {formats}", main.port()));
        line(format_args!("c=IN {} {}", family(main.ip()), main.ip()));
        for (index, place) in self.candidates.iter().enumerate() {
            let priority = super::ours::priority(126, place.ip(), index);
            line(format_args!(
                "a=candidate:{} 1 udp {priority} {} {} typ host",
                index + 1,
                place.ip(),
                place.port()
            ));
        }
        line(format_args!("a=end-of-candidates"));
        line(format_args!("a=ice-ufrag:{}", self.ufrag));
        line(format_args!("a=ice-pwd:{}", self.pwd));
        line(format_args!("a=fingerprint:sha-256 {}", self.fingerprint));
        line(format_args!("a=setup:{}", setup.as_str()));
        line(format_args!("a=mid:{mid}"));
        line(format_args!("a=sendrecv"));
        if let Some((stream, track)) = &self.msid {
            line(format_args!("a=msid:{stream} {track}"));
        }
        line(format_args!("a=rtcp-mux"));
        line(format_args!("a=rtpmap:{} opus/48000/2", self.opus_pt));
        if let Some(dtmf) = dtmf_pt {
            line(format_args!("a=rtpmap:{dtmf} telephone-event/8000"));
        }
        line(format_args!("a=ptime:20"));
        if let Some(ssrc) = self.ssrc {
            line(format_args!("a=ssrc:{ssrc} cname:{}", self.cname.as_deref().unwrap_or("whatsapp")));
        }
        sdp
    }
}

/// What Meta answers to our offer: the same facts as in an offer of its own, read by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(Offer);

impl Deref for Answer {
    type Target = Offer;

    fn deref(&self) -> &Offer {
        &self.0
    }
}

impl Answer {
    /// Reads an answer in any of the shapes that Meta sends. Codecs that it mirrors and that we did not
    /// offer are passed over.
    ///
    /// # Errors
    /// [`OfferFault`]: no call can come of it; trying again does not help.
    pub fn parse(sdp: &str) -> Result<Answer, OfferFault> {
        Offer::parse(sdp).map(Answer)
    }

    /// The answer as our WebRTC stack gets it, fit for the offer that Meta got (what [`super::offer`]
    /// wrote).
    ///
    /// As in [`Offer::for_stack`]: always `ice-lite`, IPv4 first, Opus without parameters. Beyond that:
    ///
    /// * The DTLS role is Meta's word if it is `active` (we are the server) or `passive` (we are the
    ///   client). `actpass` is illegal in an answer (RFC 8842 §5.3) and seen all the same: Meta leaves
    ///   the choice to an offerer who has left it to Meta. Then Meta is taken as the client, as its
    ///   documented answers say, unless we had offered to be the client ourselves.
    /// * The mid is the one of our offer, whatever Meta calls it: a stack knows no other.
    /// * telephone-event is what we offered where Meta's answer lacks it: its users' digits come with
    ///   that payload type even then.
    pub fn for_stack(&self, our_offer: &str) -> String {
        let ours = Proposed::read(our_offer);
        let mid = ours.as_ref().map_or(self.mid.as_str(), |ours| ours.mid.as_str());
        let dtmf_pt = self.dtmf_pt.or(ours.as_ref().and_then(|ours| ours.dtmf_pt));
        let setup = match (self.setup, ours.as_ref().map(|ours| ours.setup)) {
            (Setup::Active, _) => Setup::Active,
            (Setup::Passive, _) | (Setup::ActPass, Some(Setup::Active)) => Setup::Passive,
            (Setup::ActPass, Some(Setup::ActPass | Setup::Passive) | None) => Setup::Active,
        };
        self.write(mid, dtmf_pt, setup)
    }
}

/// What of our own offer decides how the answer to it is read.
struct Proposed {
    mid: String,
    dtmf_pt: Option<u8>,
    setup: Setup,
}

impl Proposed {
    fn read(our_offer: &str) -> Option<Proposed> {
        let lines = Lines::cut(our_offer).ok()?;
        let media = lines.media.first()?;
        let (_, dtmf_pt) = codecs(media, &lines::media(media).ok()?.formats)?;
        let setup = setup(media, &lines.session);
        Some(Proposed { mid: mid(media)?.to_owned(), dtmf_pt, setup })
    }
}

/// The `a=setup` of a description; a missing one leaves the choice to the other side.
fn setup(media: &[Line<'_>], session: &[Line<'_>]) -> Setup {
    match attribute(media, session, "setup") {
        Some("active") => Setup::Active,
        Some("passive") => Setup::Passive,
        _ => Setup::ActPass,
    }
}

/// The identification of a media line, if it has one that can be repeated.
pub(super) fn mid<'a>(media: &[Line<'a>]) -> Option<&'a str> {
    attributes(media, "mid").next().filter(|mid| lines::is_token(mid))
}

/// The payload types of Opus, which has to be there, and of `telephone-event/8000`.
pub(super) fn codecs(media: &[Line<'_>], formats: &[&str]) -> Option<(u8, Option<u8>)> {
    let named = |codec: &str, names: &[&str]| names.iter().any(|name| codec.eq_ignore_ascii_case(name));
    let opus = payload_type(media, formats, |codec| named(codec, &["opus/48000/2"]))?;
    let dtmf = payload_type(media, formats, |codec| {
        named(codec, &["telephone-event/8000", "telephone-event/8000/1"])
    });
    Some((opus, dtmf))
}

/// `IP4` or `IP6`.
pub(super) fn family(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    }
}

/// The first format of the media line whose `rtpmap` is wanted.
fn payload_type(media: &[Line<'_>], formats: &[&str], wanted: impl Fn(&str) -> bool) -> Option<u8> {
    formats.iter().find_map(|format| {
        let number = format.parse::<u8>().ok().filter(|number| *number < 128)?;
        let codec = attributes(media, "rtpmap").find_map(|value| {
            let (payload, codec) = value.split_once(' ')?;
            if payload == *format { Some(codec.trim()) } else { None }
        })?;
        if wanted(codec) { Some(number) } else { None }
    })
}

/// Those parameters of Opus that we can echo: they say what Meta wants to hear and how it sends.
fn opus_fmtp(media: &[Line<'_>], opus_pt: u8) -> Option<String> {
    const ECHOED: [&str; 5] =
        ["maxaveragebitrate", "maxplaybackrate", "minptime", "sprop-maxcapturerate", "useinbandfec"];
    let parameters = attributes(media, "fmtp").find_map(|value| {
        let (payload, parameters) = value.split_once(' ')?;
        if payload.parse() == Ok(opus_pt) { Some(parameters) } else { None }
    })?;
    let echoed: Vec<String> = parameters
        .split(';')
        .filter_map(|parameter| {
            let (key, value) = parameter.trim().split_once('=')?;
            let value = value.trim().parse::<u32>().ok()?;
            if ECHOED.contains(&key.trim()) { Some(format!("{}={value}", key.trim())) } else { None }
        })
        .take(ECHOED.len())
        .collect();
    if echoed.is_empty() { None } else { Some(echoed.join(";")) }
}

/// UDP candidates of component 1, IPv4 first, each once; where there are none, the `c=` address.
fn candidates(media: &[Line<'_>], session: &[Line<'_>], port: u16) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let reachable =
        |place: &SocketAddr| place.port() != 0 && !place.ip().is_unspecified() && !place.ip().is_multicast();
    for place in attributes(media, "candidate").filter_map(candidate).filter(reachable) {
        if found.len() < MAX_CANDIDATES && !found.contains(&place) {
            found.push(place);
        }
    }
    if found.is_empty() {
        let address = lines::connection(media).or_else(|| lines::connection(session));
        found.extend(
            address.map(|ip| SocketAddr::new(ip, port)).filter(reachable).filter(|place| place.port() != 9),
        );
    }
    found.sort_by_key(SocketAddr::is_ipv6);
    found
}

/// `foundation component transport priority address port typ type …` (RFC 8839 §5.1).
fn candidate(value: &str) -> Option<SocketAddr> {
    let mut words = value.split_ascii_whitespace();
    let _foundation = words.next()?;
    let component = words.next()?;
    let transport = words.next()?;
    let _priority = words.next()?.parse::<u32>().ok()?;
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port: u16 = words.next()?.parse().ok()?;
    let typ = words.next()?;
    let usable = component == "1" && transport.eq_ignore_ascii_case("udp") && typ == "typ";
    if usable { Some(SocketAddr::new(ip, port)) } else { None }
}

fn msid(media: &[Line<'_>]) -> Option<(String, String)> {
    let value = attributes(media, "msid").next()?;
    let (stream, track) = value.split_once(' ')?;
    let track = track.trim();
    if lines::is_token(stream) && lines::is_token(track) {
        Some((stream.to_owned(), track.to_owned()))
    } else {
        None
    }
}
