//! The lines of a session description, cut into its session part and its media parts.

use std::net::IpAddr;

use super::MAX_SDP;

/// Most lines that are read.
const MAX_LINES: usize = 512;

/// One line: `letter=value`, and where it stood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub number: usize,
    pub letter: char,
    pub value: &'a str,
}

/// What is wrong with the text as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    TooLong,
    Line(usize, &'static str),
}

/// A description as lines: those before the first `m=`, then one list per `m=`, which is its first line.
pub(super) struct Lines<'a> {
    pub session: Vec<Line<'a>>,
    pub media: Vec<Vec<Line<'a>>>,
}

impl<'a> Lines<'a> {
    /// Takes CRLF, LF and a missing end of the last line; empty lines are passed over.
    pub fn cut(sdp: &'a str) -> Result<Lines<'a>, Broken> {
        if sdp.len() > MAX_SDP {
            return Err(Broken::TooLong);
        }
        let mut lines = Lines { session: Vec::new(), media: Vec::new() };
        for (index, text) in sdp.split('\n').enumerate() {
            let number = index + 1;
            if number > MAX_LINES {
                return Err(Broken::TooLong);
            }
            let text = text.trim_end_matches('\r').trim();
            if text.is_empty() {
                continue;
            }
            let line = match text.split_once('=') {
                Some((letter, value)) if letter.len() == 1 => {
                    Line { number, letter: letter.chars().next().unwrap_or(' '), value }
                }
                _ => return Err(Broken::Line(number, "is not of the form letter=value")),
            };
            if line.value.chars().any(char::is_control) {
                return Err(Broken::Line(number, "has control characters"));
            }
            if lines.session.is_empty() && line.letter != 'v' {
                return Err(Broken::Line(number, "should be v=0: this is not SDP"));
            }
            match (line.letter, lines.media.last_mut()) {
                ('m', _) => lines.media.push(vec![line]),
                (_, Some(media)) => media.push(line),
                (_, None) => lines.session.push(line),
            }
        }
        if lines.session.is_empty() {
            Err(Broken::Line(1, "is missing: the SDP is empty"))
        } else {
            Ok(lines)
        }
    }
}

/// The values of all `a=name:value` lines, in their order.
pub(super) fn attributes<'a>(part: &[Line<'a>], name: &str) -> impl Iterator<Item = &'a str> {
    part.iter().filter(|line| line.letter == 'a').filter_map(move |line| match line.value.split_once(':') {
        Some((key, value)) if key == name => Some(value.trim()),
        _ => None,
    })
}

/// The first value of an attribute, in the media part or else in the session part.
pub(super) fn attribute<'a>(media: &[Line<'a>], session: &[Line<'a>], name: &str) -> Option<&'a str> {
    attributes(media, name).next().or_else(|| attributes(session, name).next())
}

/// Whether `a=name` stands in that part.
pub(super) fn flag(part: &[Line<'_>], name: &str) -> bool {
    part.iter().any(|line| line.letter == 'a' && line.value.trim() == name)
}

/// The `m=` line of a media part: media, port, protocol, formats.
pub(super) struct Media<'a> {
    pub kind: &'a str,
    pub port: u16,
    pub formats: Vec<&'a str>,
}

pub(super) fn media<'a>(part: &[Line<'a>]) -> Result<Media<'a>, Broken> {
    let line = part.first().ok_or(Broken::Line(1, "has no m= line"))?;
    let broken = |what| Broken::Line(line.number, what);
    let mut words = line.value.split_ascii_whitespace();
    let kind = words.next().ok_or(broken("m= has no media"))?;
    let port = words.next().ok_or(broken("m= has no port"))?;
    let port = port
        .split('/')
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|_| broken("m= has a port that is none"))?;
    words.next().ok_or(broken("m= has no protocol"))?;
    Ok(Media { kind, port, formats: words.collect() })
}

/// The address of a `c=` line.
pub(super) fn connection(part: &[Line<'_>]) -> Option<IpAddr> {
    let line = part.iter().find(|line| line.letter == 'c')?;
    line.value.split_ascii_whitespace().nth(2)?.split('/').next()?.parse().ok()
}

/// The sha-256 among the fingerprints, upper case. Media part first.
pub(super) fn fingerprint(media: &[Line<'_>], session: &[Line<'_>]) -> Option<String> {
    attributes(media, "fingerprint").chain(attributes(session, "fingerprint")).find_map(|value| {
        let (hash, digits) = value.split_once(' ')?;
        let digits = digits.trim();
        let pairs = digits.split(':');
        let plain = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        let whole = pairs.clone().count() == 32 && pairs.clone().all(plain);
        if hash.eq_ignore_ascii_case("sha-256") && whole { Some(digits.to_ascii_uppercase()) } else { None }
    })
}

/// ICE user fragment and password, if both are there and look like it (RFC 8839: letters, digits, + and /).
pub(super) fn ice(media: &[Line<'_>], session: &[Line<'_>]) -> Option<(String, String)> {
    let ice_chars = |text: &&str| {
        // Some stacks write base64url or padding, which do no harm.
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte))
    };
    let ufrag = attribute(media, session, "ice-ufrag").filter(|text| (1..=256).contains(&text.len()))?;
    let pwd = attribute(media, session, "ice-pwd").filter(|text| (1..=256).contains(&text.len()))?;
    if ice_chars(&ufrag) && ice_chars(&pwd) { Some((ufrag.to_owned(), pwd.to_owned())) } else { None }
}

/// The first `a=ssrc:` line that has a `cname`, else the first of any kind: its number, and the cname.
pub(super) fn ssrc(media: &[Line<'_>]) -> Option<(u32, Option<String>)> {
    let named = |value: &str| {
        let (number, rest) = value.split_once(' ').unwrap_or((value, ""));
        let cname = rest.trim().strip_prefix("cname:").map(str::trim).filter(|cname| is_token(cname));
        Some((number.parse::<u32>().ok()?, cname.map(str::to_owned)))
    };
    let mut all = attributes(media, "ssrc").filter_map(named);
    let first = all.next()?;
    if first.1.is_some() {
        return Some(first);
    }
    let cname = all.filter(|(number, _)| *number == first.0).find_map(|(_, cname)| cname);
    Some((first.0, cname))
}

/// A word that can be written into a line: printable, no spaces, not long.
pub(super) fn is_token(word: &str) -> bool {
    (1..=128).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
}
