//! Why a session description cannot be used, in words that an operator can act on.

use std::fmt;

/// Why a description cannot be used. Texts of the PBX in it are cut to 80 characters; keys are never in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SdpError {
    /// There is no body at all.
    Empty,
    /// It is longer, or has more media, than any telephone sends.
    TooMuch(&'static str),
    /// A line is not `x=value`, or its value makes no sense.
    Malformed {
        /// The line.
        line: String,
    },
    /// There is no m=audio.
    NoAudio,
    /// Audio was refused: its port is 0.
    Refused,
    /// The profile is not RTP: `udptl`, `TCP/MRCPv2` …
    Profile(String),
    /// The profile wants keys by DTLS, which trunks don't speak.
    Dtls(String),
    /// It insists on SRTP, and our policy is off.
    Encrypted {
        /// Its profile.
        profile: String,
    },
    /// It is not SRTP by its profile, and we require that: best effort is not enough.
    Plain {
        /// Its profile.
        profile: String,
    },
    /// It wants SRTP, but none of its keys can be used.
    NoKey {
        /// What is wrong with them.
        why: String,
    },
    /// Its answer takes a key that we did not offer.
    NotOffered {
        /// Tag and suite of what it took.
        taken: String,
        /// Tags and suites that we offered.
        ours: String,
    },
    /// No codec is in both.
    NoCommonCodec {
        /// What it has.
        theirs: String,
        /// What we have.
        ours: String,
    },
    /// The connection address is missing or is a name.
    Address(String),
    /// Our own description can't be read: a mistake of ours.
    Ours(Box<SdpError>),
}

impl fmt::Display for SdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SdpError::Empty => write!(f, "no session description"),
            SdpError::TooMuch(what) => write!(f, "session description: more than {what}"),
            SdpError::Malformed { line } => write!(f, "session description: bad line \"{line}\""),
            SdpError::NoAudio => write!(f, "session description without audio"),
            SdpError::Refused => write!(f, "audio refused (port 0)"),
            SdpError::Profile(profile) => {
                write!(f, "audio profile {profile} is none of RTP/AVP, RTP/AVPF, RTP/SAVP, RTP/SAVPF")
            }
            SdpError::Dtls(profile) => {
                write!(
                    f,
                    "audio profile {profile} wants SRTP keys by DTLS; this side takes SDES only (a=crypto)"
                )
            }
            SdpError::Encrypted { profile } => {
                write!(f, "audio profile {profile} is SRTP, and srtp is \"off\" for this trunk")
            }
            SdpError::Plain { profile } => {
                write!(f, "audio profile {profile} is not SRTP, and srtp is \"required\" for this trunk")
            }
            SdpError::NoKey { why } => write!(f, "SRTP without a key that can be used: {why}"),
            SdpError::NotOffered { taken, ours } => {
                write!(f, "SRTP answer takes {taken}, which was not offered: {ours}")
            }
            SdpError::NoCommonCodec { theirs, ours } => {
                write!(f, "no codec in common: the PBX has {theirs}; this trunk has {ours}")
            }
            SdpError::Address(address) => write!(f, "connection address \"{address}\" is not an IP address"),
            SdpError::Ours(fault) => write!(f, "our own description: {fault}"),
        }
    }
}

impl std::error::Error for SdpError {}

/// Text of the PBX, short enough for a log line or a header.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
