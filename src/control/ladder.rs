//! The trace of a call's signalling as people and tools read it: a ladder, JSON, or a capture file for Wireshark.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use super::{Packet, stamp};
use crate::clock::Wall;
use crate::gateway::Traced;

/// What is made unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Nothing.
    Nothing,
    /// What proves who somebody is, and the keys of SRTP.
    Credentials,
    /// Numbers and names too.
    All,
}

/// A message without what is not to be seen. Its length may change.
pub fn masked(bytes: &[u8], mask: Mask) -> String {
    let text = String::from_utf8_lossy(bytes);
    if mask == Mask::Nothing {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len());
    for (nth, line) in text.split_inclusive('\n').enumerate() {
        let (body, end) = match line.find(['\r', '\n']) {
            Some(at) => line.split_at(at),
            None => (line, ""),
        };
        out.push_str(&masked_line(body, nth == 0, mask));
        out.push_str(end);
    }
    out
}

fn masked_line(line: &str, first: bool, mask: Mask) -> String {
    let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !first && name.ends_with("authorization") {
        let scheme =
            line.split_once(':').map_or("", |(_, value)| value.trim()).split(' ').next().unwrap_or_default();
        return format!("{}: {scheme} ***", line.split(':').next().unwrap_or_default());
    }
    if let Some(at) = line.find("inline:").filter(|_| line.starts_with("a=crypto:")) {
        return format!("{}inline:***", &line[..at]);
    }
    if mask != Mask::All {
        return line.to_owned();
    }
    if !first && name.starts_with("x-whatsapp-") {
        return format!("{}: ***", line.split(':').next().unwrap_or_default());
    }
    // A name that stands without quotes before an address.
    match (line.split_once(':'), line.find('<')) {
        (Some((header, value)), Some(at)) if !first && PARTIES.contains(&name.as_str()) => {
            let named = value.find('<').is_some_and(|end| !value[..end].trim().is_empty());
            unnamed(&format!("{header}: {}{}", if named { "*** " } else { "" }, &line[at..]))
        }
        (Some(_) | None, _) => unnamed(line),
    }
}

/// Headers that name somebody, compact forms too.
const PARTIES: [&str; 13] = [
    "from",
    "f",
    "to",
    "t",
    "contact",
    "m",
    "p-asserted-identity",
    "p-preferred-identity",
    "remote-party-id",
    "diversion",
    "history-info",
    "referred-by",
    "reply-to",
];

/// Without names in quotes, without the users of URIs, and without long runs of digits.
fn unnamed(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((at, word)) = ["sip:", "sips:", "tel:", "\""]
        .into_iter()
        .filter_map(|word| rest.find(word).map(|at| (at, word)))
        .min_by_key(|(at, word)| (*at, std::cmp::Reverse(word.len())))
    {
        let (before, after) = rest.split_at(at + word.len());
        out.push_str(before);
        if word == "\"" {
            let end = after.find('"').unwrap_or(after.len());
            out.push_str("***");
            rest = &after[end..];
            // The closing quote is not another opening one.
            if !rest.is_empty() {
                out.push('"');
                rest = &rest[1..];
            }
            continue;
        }
        let end = after.find(['>', ' ', ';', ',', '?']).unwrap_or(after.len());
        let user = match (after[..end].find('@'), word) {
            (Some(user), _) => user,
            (None, "tel:") => end,
            (None, _) => 0,
        };
        if user > 0 {
            out.push_str("***");
        }
        rest = &after[user..];
    }
    out.push_str(rest);
    digits_hidden(&out)
}

/// Runs of seven and more digits are somebody's number, unless they stand in a word such as a branch.
fn digits_hidden(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut run = String::new();
    let mut before = ' ';
    for letter in line.chars().chain(['\n']) {
        if letter.is_ascii_digit() && (!run.is_empty() || !(before.is_alphanumeric() || before == '=')) {
            run.push(letter);
        } else {
            let number = run.len() >= 7 && !letter.is_alphanumeric();
            out.push_str(if number { "***" } else { &run });
            run.clear();
            if letter != '\n' {
                out.push(letter);
            }
        }
        before = letter;
    }
    out
}

/// The first words of a message: what it is.
fn said(text: &str) -> (String, Option<String>) {
    let first = text.lines().next().unwrap_or_default();
    let mut words = first.split(' ');
    let what = match words.next().unwrap_or_default() {
        "SIP/2.0" => words.collect::<Vec<_>>().join(" "),
        method => method.to_owned(),
    };
    let cseq = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("cseq").then(|| value.trim().to_owned())
    });
    (what, cseq)
}

fn has_sdp(bytes: &[u8]) -> bool {
    bytes.windows(6).any(|window| window == b"\nm=aud")
}

/// The call as a ladder: one line a message, then each message.
pub fn ladder(trace: &[Traced], mask: Mask) -> String {
    let mut out = String::new();
    let Some(first) = trace.first() else {
        return "nothing was traced of this call (watrunk trace on)\n".to_owned();
    };
    let mut ways: Vec<String> = Vec::new();
    for traced in trace {
        let way = traced.way.to_string();
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    for (nth, way) in ways.iter().enumerate() {
        let _ = writeln!(out, "peer {}: {way}", nth + 1);
    }
    let _ = writeln!(out, "\n  seconds  watrunk{:34}peer", "");
    for traced in trace {
        let (what, cseq) = said(&masked(&traced.bytes, mask));
        let nth = ways.iter().position(|way| *way == traced.way.to_string()).map_or(0, |at| at + 1);
        let sdp = if has_sdp(&traced.bytes) { " (SDP)" } else { "" };
        let what: String = format!("{what}{sdp}").chars().take(32).collect();
        let arrow = match traced.sent {
            true => format!("|── {what} {:─<1$}>| {nth}", "", 34_usize.saturating_sub(what.chars().count())),
            false => format!("|<─ {what} {:─<1$}─| {nth}", "", 34_usize.saturating_sub(what.chars().count())),
        };
        let seconds = since(traced.at, first.at);
        let _ = writeln!(out, "{seconds:>9.3}  {arrow}  {}", cseq.unwrap_or_default());
    }
    for traced in trace {
        let seconds = since(traced.at, first.at);
        let towards = if traced.sent { "to" } else { "from" };
        let _ = writeln!(
            out,
            "\n== {seconds:.3} {towards} {}\n{}",
            traced.way,
            masked(&traced.bytes, mask).trim_end()
        );
    }
    out
}

fn since(at: Wall, first: Wall) -> f64 {
    at.0.saturating_sub(first.0) as f64 / 1_000.0
}

/// The call for programs.
pub fn as_json(trace: &[Traced], mask: Mask) -> Value {
    let one = |traced: &Traced| {
        json!({
            "at": stamp::iso(traced.at),
            "sent": traced.sent,
            "transport": traced.way.transport.to_string(),
            "peer": traced.way.address.to_string(),
            "message": masked(&traced.bytes, mask),
        })
    };
    Value::Array(trace.iter().map(one).collect())
}

/// A capture file (pcap, LINKTYPE_RAW): every message as one UDP datagram between us and the peer, whatever carried it,
/// and the sound that was kept, so that Wireshark draws its own ladder and plays its own streams.
pub fn pcap(trace: &[Traced], sound: Vec<Packet>, mask: Mask) -> Vec<u8> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const RAW: u32 = 101;
    let mut packets: Vec<Packet> = trace.iter().map(|traced| said_by(traced, mask)).chain(sound).collect();
    packets.sort_by_key(|packet| packet.at);
    let mut out = Vec::new();
    for word in [MAGIC, 4 << 16 | 2, 0, 0, 65_535, RAW] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for Packet { at, from, to, bytes } in packets {
        let Some(packet) = datagram(from, to, &bytes) else { continue };
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let (seconds, micros) = (at.0 / 1_000, at.0 % 1_000 * 1_000);
        for word in [seconds as u32, micros as u32, length, length] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&packet);
    }
    out
}

fn said_by(traced: &Traced, mask: Mask) -> Packet {
    let there = traced.way.address;
    let nowhere = match there.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let here = traced.local.unwrap_or(SocketAddr::new(nowhere, 5060));
    let (from, to) = if traced.sent { (here, there) } else { (there, here) };
    Packet { at: traced.at, from, to, bytes: masked(&traced.bytes, mask).into_bytes() }
}

/// An IP packet with a UDP datagram (RFC 791, RFC 8200, RFC 768). `None`: too long, or two families.
fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len() + 8).ok()?;
    let mut out = Vec::with_capacity(payload.len() + 48);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = length.checked_add(20)?;
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&total.to_be_bytes());
            out.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
            let sum = checksum(&out);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[17, 64]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    for word in [from.port(), to.port(), length, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(payload);
    Some(out)
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Way;

    const INVITE: &str = "INVITE sip:+4915112345678@192.0.2.10 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1234567890\r\n\
        From: \"Ada Lovelace\" <sip:+4915112345678@pbx>;tag=1\r\nTo: <sip:200@pbx>\r\nCall-ID: a@b\r\nCSeq: 1 INVITE\r\n\
        Authorization: Digest username=\"gw\", response=\"0123456789abcdef\"\r\nContent-Length: 0\r\n\r\n\
        v=0\r\nm=audio 20000 RTP/SAVP 8\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0c2VjcmV0\r\n";

    fn trace() -> Vec<Traced> {
        let way = Way::udp("192.0.2.10:5060".parse().unwrap());
        let local = Some("192.0.2.1:5060".parse().unwrap());
        let one =
            |at, sent, text: &str| Traced { at: Wall(at), sent, way, local, bytes: text.as_bytes().to_vec() };
        vec![
            one(1_800_000_000_000, true, INVITE),
            one(1_800_000_000_250, false, "SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE\r\n\r\n"),
        ]
    }

    #[test]
    fn credentials_and_keys_are_masked_unless_they_are_asked_for() {
        let seen = masked(INVITE.as_bytes(), Mask::Credentials);
        assert!(seen.contains("Authorization: Digest ***\r\n") && seen.contains("inline:***\r\n"), "{seen}");
        assert!(seen.contains("+4915112345678") && !seen.contains("c2Vjc"), "{seen}");
        assert_eq!(masked(INVITE.as_bytes(), Mask::Nothing), INVITE);
    }

    #[test]
    fn numbers_and_names_are_masked_on_wish_and_what_helps_to_find_a_fault_stays() {
        let seen = masked(INVITE.as_bytes(), Mask::All);
        for gone in ["15112345678", "Ada", "0123456789abcdef"] {
            assert!(!seen.contains(gone), "{gone} in {seen}");
        }
        for left in [
            "INVITE sip:***@192.0.2.10 SIP/2.0",
            "branch=z9hG4bK1234567890",
            "<sip:***@pbx>;tag=1",
            "m=audio 20000",
        ] {
            assert!(seen.contains(left), "{left} in {seen}");
        }
        assert_eq!(masked(b"\r\nTo: <tel:+4930123456>\r\n", Mask::All), "\r\nTo: <tel:***>\r\n");
        for (line, shown) in [
            ("From: Ada Lovelace <sip:ada@pbx>;tag=1", "From: *** <sip:***@pbx>;tag=1"),
            ("f: <sip:ada@pbx>", "f: <sip:***@pbx>"),
            ("X-WhatsApp-Payload: shoes", "X-WhatsApp-Payload: ***"),
        ] {
            assert_eq!(masked(format!("\r\n{line}").as_bytes(), Mask::All), format!("\r\n{shown}"));
        }
    }

    #[test]
    fn the_ladder_shows_who_said_what_and_when() {
        let seen = ladder(&trace(), Mask::Credentials);
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines[0], "peer 1: udp:192.0.2.10:5060");
        assert!(
            lines[3].contains("0.000  |── INVITE (SDP) ─") && lines[3].ends_with(">| 1  1 INVITE"),
            "{seen}"
        );
        assert!(
            lines[4].contains("0.250  |<─ 180 Ringing ─") && lines[4].ends_with("| 1  1 INVITE"),
            "{seen}"
        );
        assert!(seen.contains("== 0.250 from udp:192.0.2.10:5060\nSIP/2.0 180 Ringing"), "{seen}");
    }

    #[test]
    fn the_ladders_own_lines_name_nobody_either() {
        let mut trace = trace();
        let busy = "SIP/2.0 486 +4930123456 busy\r\nCSeq: 1 INVITE\r\n\r\n";
        trace[1].bytes = busy.as_bytes().to_vec();
        let seen = ladder(&trace, Mask::All);
        assert!(seen.contains("|<─ 486 +*** busy ─") && !seen.contains("30123456"), "{seen}");
        assert!(ladder(&trace, Mask::Credentials).contains("|<─ 486 +4930123456 busy ─"));
    }

    #[test]
    fn a_capture_holds_each_message_between_the_right_addresses() {
        let (here, there) = ("192.0.2.1:20000".parse().unwrap(), "192.0.2.10:12000".parse().unwrap());
        let sound =
            Packet { at: Wall(1_800_000_000_100), from: here, to: there, bytes: b"\x80sound".to_vec() };
        let bytes = pcap(&trace(), vec![sound], Mask::Nothing);
        assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_le_bytes());
        let packet = &bytes[24 + 16..];
        assert_eq!((packet[0], packet[9]), (0x45, 17));
        assert_eq!((&packet[12..16], &packet[16..20]), (&[192, 0, 2, 1][..], &[192, 0, 2, 10][..]));
        assert_eq!(checksum(&packet[..20]), 0, "the header's own sum");
        assert!(packet[28..].starts_with(b"INVITE sip:"));
        let length = u32::from_le_bytes(bytes[24 + 8..24 + 12].try_into().unwrap()) as usize;
        assert_eq!(length, 28 + INVITE.len());
        let sound = &bytes[24 + 16 + length + 16..];
        assert_eq!(
            &sound[20..24],
            [20_000_u16.to_be_bytes(), 12_000_u16.to_be_bytes()].concat(),
            "in its time"
        );
        assert!(sound[28..].starts_with(b"\x80sound"));
        let second = &sound[28 + 6 + 16..];
        assert_eq!((&second[12..16], &second[16..20]), (&[192, 0, 2, 10][..], &[192, 0, 2, 1][..]));
    }

    proptest::proptest! {
        #[test]
        fn whatever_was_on_the_wire_it_can_be_shown(bytes: Vec<u8>, text in "(?s).{0,200}") {
            for mask in [Mask::Nothing, Mask::Credentials, Mask::All] {
                masked(&bytes, mask);
                masked(text.as_bytes(), mask);
                masked(format!("a=crypto:1 x inline:{text}\r\nFrom: \"{text}").as_bytes(), mask);
            }
        }
    }
}
