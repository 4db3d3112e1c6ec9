//! A description (RFC 8866), read as far as a telephone needs it: the PBX's, and our own again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::crypto::{Crypto, Unusable};
use super::error::cut;
use super::{Codec, Direction, OpusFormat, SdpError};

/// No telephone sends more than these. More bytes or media are refused, more of the rest is not read.
const LONGEST: usize = 32_768;
const MEDIA: usize = 16;
const MAPS: usize = 64;
const KEYS: usize = 16;

/// What telephones know about static payload types (RFC 3551 §6), to name them in an error.
const STATIC: [(u8, &str); 8] =
    [(0, "PCMU"), (3, "GSM"), (4, "G723"), (8, "PCMA"), (9, "G722"), (13, "CN"), (15, "G728"), (18, "G729")];

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Origin {
    pub session: u64,
    pub version: u64,
}

#[derive(Default)]
pub(super) struct Description {
    pub origin: Origin,
    address: Option<String>,
    direction: Option<Direction>,
    fingerprint: bool,
    pub media: Vec<Medium>,
}

#[derive(Default)]
pub(super) struct Medium {
    pub kind: String,
    port: u16,
    pub profile: String,
    pub formats: Vec<String>,
    address: Option<String>,
    direction: Option<Direction>,
    rtcp: Option<(u16, Option<String>)>,
    pub rtcp_mux: bool,
    pub ptime_ms: Option<u32>,
    maps: Vec<Map>,
    fmtps: Vec<(u8, String)>,
    pub crypto: Vec<Result<Crypto, Unusable>>,
    fingerprint: bool,
}

/// An a=rtpmap.
struct Map {
    pt: u8,
    encoding: String,
    clock: u32,
    channels: u32,
}

/// What a payload type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Codec(Codec),
    /// telephone-event.
    Event {
        clock: u32,
    },
    /// Comfort noise at 8 kHz.
    Noise,
}

/// How RTP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    Plain,
    Secure,
}

impl Description {
    pub fn read(bytes: &[u8]) -> Result<Description, SdpError> {
        if bytes.len() > LONGEST {
            return Err(SdpError::TooMuch("32768 bytes"));
        }
        let text = String::from_utf8_lossy(bytes);
        let mut read = Description::default();
        let mut empty = true;
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            empty = false;
            let fault = || SdpError::Malformed { line: shown(line) };
            let (key, value) = line.split_once('=').ok_or_else(fault)?;
            match key {
                "o" => read.origin = origin(value),
                "c" => {
                    let address = value.split_whitespace().nth(2).ok_or_else(fault)?.to_owned();
                    match read.media.last_mut() {
                        Some(medium) => medium.address = Some(address),
                        None => read.address = Some(address),
                    }
                }
                "m" if read.media.len() >= MEDIA => return Err(SdpError::TooMuch("16 media")),
                "m" => read.media.push(medium(value).ok_or_else(fault)?),
                "a" => read.attribute(value),
                _ => {}
            }
        }
        if empty { Err(SdpError::Empty) } else { Ok(read) }
    }

    fn attribute(&mut self, value: &str) {
        let direction = Direction::of_attribute(value);
        let (name, value) = value.split_once(':').unwrap_or((value, ""));
        let Some(medium) = self.media.last_mut() else {
            self.direction = direction.or(self.direction);
            self.fingerprint |= name == "fingerprint";
            return;
        };
        medium.direction = direction.or(medium.direction);
        match name {
            "rtpmap" if medium.maps.len() < MAPS => medium.maps.extend(rtpmap(value)),
            "fmtp" if medium.fmtps.len() < MAPS => medium.fmtps.extend(fmtp(value)),
            "ptime" => medium.ptime_ms = value.trim().parse().ok().filter(|millis| *millis > 0),
            "rtcp-mux" => medium.rtcp_mux = true,
            "rtcp" => {
                let mut words = value.split_whitespace();
                let port = words.next().and_then(|port| port.parse().ok()).filter(|port| *port > 0);
                medium.rtcp = port.map(|port| (port, words.nth(2).map(str::to_owned)));
            }
            "crypto" if medium.crypto.len() < KEYS => medium.crypto.push(Crypto::read(value)),
            "fingerprint" => medium.fingerprint = true,
            _ => {}
        }
    }

    /// The first m=audio of which something can be made, `preferred` before the others; else what is
    /// wrong with the first.
    pub fn first_audio<T>(
        &self,
        preferred: Option<usize>,
        make: impl Fn(&Medium) -> Result<T, SdpError>,
    ) -> Result<(usize, T), SdpError> {
        let mut audio: Vec<(usize, &Medium)> = self
            .media
            .iter()
            .enumerate()
            .filter(|(_, medium)| medium.kind.eq_ignore_ascii_case("audio"))
            .collect();
        if audio.is_empty() {
            return Err(SdpError::NoAudio);
        }
        audio.retain(|(_, medium)| medium.port != 0);
        audio.sort_by_key(|(index, _)| Some(*index) != preferred);
        let mut first_fault = SdpError::Refused;
        for (nth, (index, medium)) in audio.into_iter().enumerate() {
            match make(medium) {
                Ok(made) => return Ok((index, made)),
                Err(fault) if nth == 0 => first_fault = fault,
                Err(_) => {}
            }
        }
        Err(first_fault)
    }

    /// Where it wants RTP and, unless they share a port, RTCP.
    pub fn addresses(&self, medium: &Medium) -> Result<(SocketAddr, SocketAddr), SdpError> {
        let address = medium.address.as_deref().or(self.address.as_deref()).unwrap_or_default();
        let ip = connection(address)?;
        let rtcp = match &medium.rtcp {
            Some((port, Some(address))) => SocketAddr::new(connection(address).unwrap_or(ip), *port),
            Some((port, None)) => SocketAddr::new(ip, *port),
            None => SocketAddr::new(ip, medium.port.saturating_add(1)),
        };
        Ok((SocketAddr::new(ip, medium.port), rtcp))
    }

    /// Who sends, as its writer sees it.
    pub fn direction(&self, medium: &Medium, rtp: SocketAddr) -> Direction {
        let direction = medium.direction.or(self.direction).unwrap_or(Direction::SendRecv);
        if rtp.ip().is_unspecified() { direction.deaf() } else { direction }
    }

    /// Whether it has the certificate's fingerprint that DTLS needs.
    pub fn fingerprint(&self, medium: &Medium) -> bool {
        self.fingerprint || medium.fingerprint
    }
}

impl Medium {
    pub fn rtp_profile(&self) -> Result<Profile, SdpError> {
        let upper = self.profile.to_ascii_uppercase();
        match upper.as_str() {
            "RTP/AVP" | "RTP/AVPF" => Ok(Profile::Plain),
            "RTP/SAVP" | "RTP/SAVPF" => Ok(Profile::Secure),
            _ if upper.contains("TLS") => Err(SdpError::Dtls(cut(&self.profile))),
            _ => Err(SdpError::Profile(cut(&self.profile))),
        }
    }

    /// The payload types that we know, in the writer's order.
    pub fn known(&self) -> impl Iterator<Item = (u8, Format)> {
        let types = self.formats.iter().filter_map(|text| text.parse::<u8>().ok()).filter(|pt| *pt < 128);
        types.filter_map(|pt| self.format(pt).map(|format| (pt, format)))
    }

    fn format(&self, pt: u8) -> Option<Format> {
        let Some(map) = self.maps.iter().find(|map| map.pt == pt) else {
            let codec = Codec::ALL.into_iter().filter(|codec| codec.payload_type() < 96);
            let codec = codec.map(Format::Codec).find(|format| match format {
                Format::Codec(codec) => codec.payload_type() == pt,
                Format::Event { .. } | Format::Noise => false,
            });
            return codec.or((pt == 13).then_some(Format::Noise));
        };
        let named = |name: &str| map.encoding.eq_ignore_ascii_case(name);
        if named("telephone-event") {
            return Some(Format::Event { clock: map.clock });
        }
        if named("CN") {
            return (map.clock == 8_000).then_some(Format::Noise);
        }
        let codec = Codec::ALL.into_iter().find(|codec| named(codec.encoding()))?;
        // RFC 7587 §4.1 always says two channels, but not everybody does.
        let mono = codec == Codec::Opus || map.channels == 1;
        (map.clock == codec.clock() && mono).then_some(Format::Codec(codec))
    }

    /// What it asks for with the a=fmtp of Opus under `pt`.
    pub fn opus(&self, pt: u8) -> OpusFormat {
        let mut asked = OpusFormat::default();
        let parameters = self.fmtps.iter().find(|(of, _)| *of == pt).map_or("", |(_, parameters)| parameters);
        for (name, value) in parameters.split(';').filter_map(|parameter| parameter.split_once('=')) {
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "useinbandfec" => asked.fec = value == "1",
                "usedtx" => asked.dtx = value == "1",
                "stereo" => asked.stereo = value == "1",
                "maxaveragebitrate" => asked.max_bitrate = value.parse().ok().filter(|bits| *bits > 0),
                _ => {}
            }
        }
        asked
    }

    /// Its codecs by name, for an error.
    pub fn named(&self) -> String {
        let names = self.formats.iter().map(|text| {
            let pt = text.parse::<u8>().ok();
            if let Some(map) = self.maps.iter().find(|map| Some(map.pt) == pt) {
                return format!("{}/{}", map.encoding, map.clock);
            }
            let known = STATIC.iter().find(|(known, _)| Some(*known) == pt);
            known.map_or_else(|| format!("payload type {text}"), |(_, name)| (*name).to_owned())
        });
        let names: Vec<String> = names.take(MAPS).collect();
        if names.is_empty() { "none".to_owned() } else { cut(&names.join(", ")) }
    }
}

/// A line for an error, unless a key might be in it.
fn shown(line: &str) -> String {
    if line.to_ascii_lowercase().contains("inline") { "(hidden)".to_owned() } else { cut(line) }
}

fn origin(value: &str) -> Origin {
    let mut words = value.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0));
    Origin { session: words.next().unwrap_or(0), version: words.next().unwrap_or(0) }
}

/// `audio 49170/2 RTP/AVP 0 8`. Refused media go back to the PBX as they came, so only clean words pass.
fn medium(value: &str) -> Option<Medium> {
    let clean = |word: &str| word.bytes().all(|byte| byte.is_ascii_graphic());
    let mut words = value.split_whitespace();
    let kind = words.next()?.to_owned();
    let port = words.next()?.split('/').next()?.parse().ok()?;
    let profile = words.next()?.to_owned();
    let formats: Vec<String> = words.take(MAPS).map(str::to_owned).collect();
    if !clean(&kind) || !clean(&profile) || !formats.iter().all(|format| clean(format)) {
        return None;
    }
    Some(Medium { kind, port, profile, formats, ..Medium::default() })
}

/// `101 telephone-event/8000/1`
fn rtpmap(value: &str) -> Option<Map> {
    let (pt, rest) = value.trim().split_once(char::is_whitespace)?;
    let mut parts = rest.trim().split('/').map(str::trim);
    let encoding = parts.next()?.to_owned();
    let clock = parts.next()?.parse().ok()?;
    let channels = parts.next().and_then(|channels| channels.parse().ok()).unwrap_or(1);
    Some(Map { pt: pt.parse().ok()?, encoding, clock, channels })
}

/// `96 useinbandfec=1;maxaveragebitrate=32000`
fn fmtp(value: &str) -> Option<(u8, String)> {
    let (pt, parameters) = value.trim().split_once(char::is_whitespace)?;
    Some((pt.parse().ok()?, parameters.to_owned()))
}

/// The address of a c= line, without the time to live of multicast.
fn connection(text: &str) -> Result<IpAddr, SdpError> {
    let address = text.split('/').next().unwrap_or_default();
    let ip: IpAddr = address.parse().map_err(|_| SdpError::Address(cut(text)))?;
    Ok(if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { ip })
}
