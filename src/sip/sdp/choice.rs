//! What is taken of the PBX's description: codec, digits, comfort noise, keys.

use super::crypto::{Crypto, Key, Keys, SrtpPolicy};
use super::error::cut;
use super::ours::Own;
use super::theirs::{Description, Format, Medium, Profile};
use super::{Codec, Direction, OpusFormat, RemoteMedia, SdpError, Telephone};

/// What our answer says about one medium of the PBX's offer.
pub(super) struct Choice {
    pub profile: String,
    pub codec: Codec,
    /// Payload types are the PBX's.
    pub pt: u8,
    pub event: Option<Telephone>,
    pub noise: Option<u8>,
    /// Its tag, our key.
    pub crypto: Option<Crypto>,
    pub mux: bool,
    /// As the PBX sees it.
    pub direction: Direction,
}

impl Choice {
    /// The first of our codecs that it offers.
    pub fn answering(own: &Own, offered: &Description, medium: &Medium) -> Result<Choice, SdpError> {
        let profile = medium.rtp_profile()?;
        let (rtp, _) = offered.addresses(medium)?;
        let crypto = crypto_to_answer(own, offered, medium, profile)?;
        let theirs = codecs(medium);
        let wanted = |codec: Codec| theirs.iter().find(|(_, offered)| *offered == codec);
        let (pt, codec) = own
            .codecs
            .iter()
            .find_map(|(_, codec)| wanted(*codec))
            .copied()
            .ok_or_else(|| no_codec(own, medium))?;
        Ok(Choice {
            profile: medium.profile.clone(),
            codec,
            pt,
            event: event(medium, codec, |_| !own.events.is_empty()),
            noise: noise(medium, codec),
            crypto,
            mux: medium.rtcp_mux,
            direction: offered.direction(medium, rtp),
        })
    }
}

/// What two descriptions have agreed on, whichever was the offer. Of several codecs it is the first that
/// the PBX lists: where it offered, our answer has but one.
pub(super) fn agreed(own: &Own, read: &Description, medium: &Medium) -> Result<RemoteMedia, SdpError> {
    let profile = medium.rtp_profile()?;
    let (rtp, rtcp) = read.addresses(medium)?;
    let keys = keys_agreed(own, read, medium, profile)?;
    let of_ours = |codec: Codec| own.codecs.iter().find(|(_, listed)| *listed == codec).map(|(pt, _)| *pt);
    let both = codecs(medium).into_iter().find_map(|(pt, codec)| Some((pt, codec, of_ours(codec)?)));
    let (pt, codec, heard_pt) = both.ok_or_else(|| no_codec(own, medium))?;
    let rtcp_mux = own.mux && medium.rtcp_mux;
    Ok(RemoteMedia {
        rtp,
        rtcp: if rtcp_mux { rtp } else { rtcp },
        rtcp_mux,
        codec,
        pt,
        heard_pt,
        dtmf: event(medium, codec, |clock| own.events.iter().any(|ours| ours.clock == clock)),
        comfort_noise: noise(medium, codec).filter(|_| own.noise.is_some()),
        ptime_ms: medium.ptime_ms,
        direction: read.direction(medium, rtp),
        keys,
        opus: if codec == Codec::Opus { medium.opus(pt) } else { OpusFormat::default() },
    })
}

fn codecs(medium: &Medium) -> Vec<(u8, Codec)> {
    let codec = |(pt, format)| match format {
        Format::Codec(codec) => Some((pt, codec)),
        Format::Event { .. } | Format::Noise => None,
    };
    medium.known().filter_map(codec).collect()
}

/// telephone-event with the codec's own clock, as RFC 4733 §2.1 wants it; else what most use; else any.
fn event(medium: &Medium, codec: Codec, wanted: impl Fn(u32) -> bool) -> Option<Telephone> {
    let event = |(pt, format)| match format {
        Format::Event { clock } => Some(Telephone { pt, clock }),
        Format::Codec(_) | Format::Noise => None,
    };
    let offered = medium.known().filter_map(event).filter(|event| wanted(event.clock));
    offered.min_by_key(|event| (event.clock != codec.clock(), event.clock != 8_000))
}

/// Comfort noise at 8 kHz belongs to the codecs with that clock.
fn noise(medium: &Medium, codec: Codec) -> Option<u8> {
    let noise = medium.known().find(|(_, format)| *format == Format::Noise).map(|(pt, _)| pt);
    noise.filter(|_| codec.clock() == 8_000)
}

fn no_codec(own: &Own, medium: &Medium) -> SdpError {
    let ours: Vec<&str> = own.codecs.iter().map(|(_, codec)| codec.encoding()).collect();
    SdpError::NoCommonCodec { theirs: medium.named(), ours: ours.join(", ") }
}

/// The first key of the PBX's offer whose suite we know, answered with our own key for that suite.
fn crypto_to_answer(
    own: &Own,
    offered: &Description,
    medium: &Medium,
    profile: Profile,
) -> Result<Option<Crypto>, SdpError> {
    let key = |suite| own.crypto.iter().find(|ours| ours.suite == suite).map(|ours| ours.key.clone());
    let taken = medium.crypto.iter().flatten().find_map(|theirs| {
        let key: Key = key(theirs.suite)?;
        Some(Crypto { tag: theirs.tag, suite: theirs.suite, key })
    });
    match (own.policy, profile, taken) {
        (SrtpPolicy::Off, Profile::Secure, _) => Err(SdpError::Encrypted { profile: cut(&medium.profile) }),
        (SrtpPolicy::Off, Profile::Plain, _) => Ok(None),
        (SrtpPolicy::Optional, Profile::Plain, taken) => Ok(taken),
        (SrtpPolicy::Required, Profile::Plain, _) => Err(SdpError::Plain { profile: cut(&medium.profile) }),
        (SrtpPolicy::Optional | SrtpPolicy::Required, Profile::Secure, Some(taken)) => Ok(Some(taken)),
        (SrtpPolicy::Optional | SrtpPolicy::Required, Profile::Secure, None) => Err(no_key(offered, medium)),
    }
}

/// The line of the PBX that has tag and suite of a line of ours: one of the two answers the other.
fn keys_agreed(
    own: &Own,
    read: &Description,
    medium: &Medium,
    profile: Profile,
) -> Result<Option<Keys>, SdpError> {
    match (own.policy, profile) {
        (SrtpPolicy::Off, Profile::Plain) => return Ok(None),
        (SrtpPolicy::Off, Profile::Secure) => {
            return Err(SdpError::Encrypted { profile: cut(&medium.profile) });
        }
        (SrtpPolicy::Optional, Profile::Plain) if medium.crypto.is_empty() => return Ok(None),
        (SrtpPolicy::Required, Profile::Plain) => {
            return Err(SdpError::Plain { profile: cut(&medium.profile) });
        }
        (SrtpPolicy::Optional, _) | (SrtpPolicy::Required, Profile::Secure) => {}
    }
    let paired = medium.crypto.iter().flatten().find_map(|theirs| {
        let ours = own.crypto.iter().find(|ours| ours.tag == theirs.tag && ours.suite == theirs.suite)?;
        Some(Keys { suite: theirs.suite, ours: ours.key.clone(), theirs: theirs.key.clone() })
    });
    if paired.is_some() {
        return Ok(paired);
    }
    match medium.crypto.iter().flatten().next() {
        Some(taken) => {
            let ours: Vec<String> = own.crypto.iter().map(named).collect();
            Err(SdpError::NotOffered { taken: named(taken), ours: ours.join(", ") })
        }
        None => Err(no_key(read, medium)),
    }
}

fn named(crypto: &Crypto) -> String {
    format!("{} {}", crypto.tag, crypto.suite)
}

/// Nothing in its a=crypto can be used, or there is none.
fn no_key(read: &Description, medium: &Medium) -> SdpError {
    if medium.crypto.is_empty() && read.fingerprint(medium) {
        return SdpError::Dtls(cut(&medium.profile));
    }
    let reasons: Vec<String> = medium
        .crypto
        .iter()
        .map(|line| match line {
            Ok(crypto) => format!("{} is not ours", named(crypto)),
            Err(reason) => reason.to_string(),
        })
        .collect();
    let why = if reasons.is_empty() { "no a=crypto line".to_owned() } else { reasons.join("; ") };
    SdpError::NoKey { why: why.chars().take(240).collect() }
}
