//! Our descriptions: written, and read back from their own text.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::choice::Choice;
use super::crypto::{Crypto, SrtpPolicy};
use super::theirs::{Description, Format, Medium, Origin, Profile};
use super::{Codec, Direction, LocalMedia, SdpError, Telephone};

/// The payload type that most PBXs use themselves.
const EVENT_8K: Telephone = Telephone { pt: 101, clock: 8_000 };
const EVENT_48K: Telephone = Telephone { pt: 100, clock: 48_000 };

/// How we want Opus: in-band FEC, and no more bits a second than speech in full band needs.
const OPUS: &str = "useinbandfec=1;maxaveragebitrate=32000";

/// The m=audio of a description of ours.
pub(super) struct Sound {
    profile: String,
    codecs: Vec<(u8, Codec)>,
    events: Vec<Telephone>,
    noise: Option<u8>,
    crypto: Vec<Crypto>,
    mux: bool,
    direction: Direction,
}

impl Sound {
    pub fn offered(local: &LocalMedia) -> Sound {
        let mut codecs: Vec<(u8, Codec)> = Vec::new();
        for codec in &local.codecs {
            if !codecs.iter().any(|(_, listed)| listed == codec) {
                codecs.push((codec.payload_type(), *codec));
            }
        }
        let opus = local.codecs.contains(&Codec::Opus);
        let events = [EVENT_8K].into_iter().chain(opus.then_some(EVENT_48K));
        let (profile, crypto) = match local.srtp {
            SrtpPolicy::Off => ("RTP/AVP", Vec::new()),
            SrtpPolicy::Optional => ("RTP/AVP", Crypto::offered(&local.secret)),
            SrtpPolicy::Required => ("RTP/SAVP", Crypto::offered(&local.secret)),
        };
        Sound {
            profile: profile.to_owned(),
            codecs,
            events: events.filter(|_| local.dtmf).collect(),
            noise: None,
            crypto,
            mux: true,
            direction: Direction::SendRecv,
        }
    }

    pub fn answered(own: &Own, choice: &Choice) -> Sound {
        Sound {
            profile: choice.profile.clone(),
            codecs: vec![(choice.pt, choice.codec)],
            events: choice.event.into_iter().collect(),
            noise: choice.noise,
            crypto: choice.crypto.iter().cloned().collect(),
            mux: own.mux && choice.mux,
            direction: choice.direction.mirrored(),
        }
    }

    pub fn again(own: &Own) -> Sound {
        Sound {
            profile: own.profile.clone(),
            codecs: own.codecs.clone(),
            events: own.events.clone(),
            noise: own.noise,
            crypto: own.crypto.clone(),
            mux: own.mux,
            direction: Direction::SendRecv,
        }
    }

    /// The whole description, with this as its only medium.
    pub fn text(&self, origin: Origin, rtp: SocketAddr) -> String {
        self.text_among(origin, rtp, 0, &[])
    }

    /// The whole description, with this as medium `index` of an answer; the others are refused.
    pub fn text_among(&self, origin: Origin, rtp: SocketAddr, index: usize, media: &[Medium]) -> String {
        let address = rtp.ip();
        let kind = if address.is_ipv4() { "IP4" } else { "IP6" };
        let Origin { session, version } = origin;
        let mut text = String::with_capacity(1_024);
        let _ = write!(text, "v=0\r\no=watrunk {session} {version} IN {kind} {address}\r\ns=-\r\n");
        let _ = write!(text, "c=IN {kind} {address}\r\nt=0 0\r\n");
        for refused in media.iter().take(index) {
            refuse(&mut text, refused);
        }
        self.audio(&mut text, rtp.port());
        for refused in media.iter().skip(index.saturating_add(1)) {
            refuse(&mut text, refused);
        }
        text
    }

    fn audio(&self, text: &mut String, port: u16) {
        let _ = write!(text, "m=audio {port} {}", self.profile);
        let events = self.events.iter().map(|event| event.pt);
        for pt in self.codecs.iter().map(|(pt, _)| *pt).chain(events).chain(self.noise) {
            let _ = write!(text, " {pt}");
        }
        text.push_str("\r\n");
        for crypto in &self.crypto {
            let _ = write!(text, "a=crypto:{}\r\n", crypto.line());
        }
        for (pt, codec) in &self.codecs {
            let channels = if *codec == Codec::Opus { "/2" } else { "" };
            let _ = write!(text, "a=rtpmap:{pt} {codec}/{}{channels}\r\n", codec.clock());
            if *codec == Codec::Opus {
                let _ = write!(text, "a=fmtp:{pt} {OPUS}\r\n");
            }
        }
        for Telephone { pt, clock } in &self.events {
            let _ = write!(text, "a=rtpmap:{pt} telephone-event/{clock}\r\na=fmtp:{pt} 0-16\r\n");
        }
        if let Some(pt) = self.noise {
            let _ = write!(text, "a=rtpmap:{pt} CN/8000\r\n");
        }
        text.push_str("a=ptime:20\r\na=maxptime:60\r\n");
        // RFC 3550 wants RTP on an even port; where it is odd, some peers look for RTCP one below.
        if port % 2 == 1 {
            let _ = write!(text, "a=rtcp:{}\r\n", port.saturating_add(1));
        }
        if self.mux {
            text.push_str("a=rtcp-mux\r\n");
        }
        let _ = write!(text, "a={}\r\n", self.direction.attribute());
    }
}

/// RFC 3264 §6: a refused medium keeps its place and its formats.
fn refuse(text: &mut String, medium: &Medium) {
    let formats = if medium.formats.is_empty() { "0".to_owned() } else { medium.formats.join(" ") };
    let _ = write!(text, "m={} 0 {} {formats}\r\n", medium.kind, medium.profile);
}

/// What we need back from a description of our own.
pub(super) struct Own {
    pub origin: Origin,
    pub rtp: SocketAddr,
    /// Which medium it is.
    pub index: usize,
    profile: String,
    pub policy: SrtpPolicy,
    pub codecs: Vec<(u8, Codec)>,
    pub events: Vec<Telephone>,
    pub noise: Option<u8>,
    pub crypto: Vec<Crypto>,
    pub mux: bool,
}

impl Own {
    pub fn read(ours: &str) -> Result<Own, SdpError> {
        let read = || {
            let own = Description::read(ours.as_bytes())?;
            let (index, read) = own.first_audio(None, |medium| Own::of(&own, medium))?;
            Ok(Own { index, ..read })
        };
        read().map_err(|fault| SdpError::Ours(Box::new(fault)))
    }

    fn of(own: &Description, medium: &Medium) -> Result<Own, SdpError> {
        let profile = medium.rtp_profile()?;
        let (rtp, _) = own.addresses(medium)?;
        let crypto: Vec<Crypto> = medium.crypto.iter().flatten().cloned().collect();
        let policy = match profile {
            Profile::Secure => SrtpPolicy::Required,
            Profile::Plain if crypto.is_empty() => SrtpPolicy::Off,
            Profile::Plain => SrtpPolicy::Optional,
        };
        let (mut codecs, mut events, mut noise) = (Vec::new(), Vec::new(), None);
        for (pt, format) in medium.known() {
            match format {
                Format::Codec(codec) => codecs.push((pt, codec)),
                Format::Event { clock } => events.push(Telephone { pt, clock }),
                Format::Noise => noise = Some(pt),
            }
        }
        let (origin, profile, mux) = (own.origin, medium.profile.clone(), medium.rtcp_mux);
        Ok(Own { origin, rtp, index: 0, profile, policy, codecs, events, noise, crypto, mux })
    }
}
