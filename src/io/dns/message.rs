//! DNS messages (RFC 1035 §4): a question out; addresses, aliases, SRV (RFC 2782) and NAPTR (RFC 3403) in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::sip::locate::{Naptr, Srv};

/// Records of one answer that are looked at.
const MOST_RECORDS: usize = 128;
/// The longest name, as text.
const LONGEST_NAME: usize = 255;
/// Pointers within one name: more than any honest server needs.
const MOST_JUMPS: usize = 16;

/// What is asked for; the numbers are IANA's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
    /// Servers of a service.
    Srv = 33,
    /// Rules that lead to services.
    Naptr = 35,
}

/// An alias (CNAME), which stands beside what was asked for.
const ALIAS: u16 = 5;

/// One record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// CNAME.
    Alias(String),
    /// SRV.
    Srv(Srv),
    /// NAPTR.
    Naptr(Naptr),
}

/// One record. Names are in lower case, without the last dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub name: String,
    /// For how many seconds it holds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// It was too long for a datagram: to be asked again over TCP.
    pub truncated: bool,
    /// 0 no error, 3 no such name (RFC 1035 §4.1.1).
    pub code: u8,
    /// The answer section, without what we can't use.
    pub records: Vec<Record>,
}

/// The question for one name, recursion desired. `None`: that can't be a name.
pub fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(18 + name.len());
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST_NAME - 2 || !name.is_ascii() {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&(kind as u16).to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    Some(bytes)
}

/// Reads the answer to a [`question`]; `None`: it is not one, or it is broken.
pub fn reply(bytes: &[u8], question: &[u8]) -> Option<Reply> {
    let mut cursor = Cursor { bytes, at: 0 };
    let id = cursor.word()?;
    let flags = cursor.word()?;
    let (questions, answers) = (cursor.word()?, cursor.word()?);
    cursor.take(4)?;
    let (asked_id, asked) = (question.get(..2)?, question.get(12..)?);
    // The question comes back as it was asked: otherwise anybody could have sent this.
    if id.to_be_bytes() != asked_id || flags & 0x8000 == 0 || questions != 1 {
        return None;
    }
    if !cursor.take(asked.len())?.eq_ignore_ascii_case(asked) {
        return None;
    }
    let truncated = flags & 0x0200 != 0;
    let mut records = Vec::new();
    for _ in 0..usize::from(answers).min(MOST_RECORDS) {
        match cursor.record() {
            Some(Some(record)) => records.push(record),
            Some(None) => {}
            None if truncated => break,
            None => return None,
        }
    }
    Some(Reply { truncated, code: (flags & 0x0f) as u8, records })
}

/// A place in a message.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// A name (RFC 1035 §4.1.4). The root is "."; labels that no host name of ours could hold make it unreadable.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut back: Option<usize> = None;
        let mut jumps = 0;
        loop {
            let length = self.byte()?;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.take(usize::from(length))?;
                    let plain = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
                    if !plain || name.len() + label.len() >= LONGEST_NAME {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                }
                0xc0.. => {
                    let low = self.byte()?;
                    back.get_or_insert(self.at);
                    jumps += 1;
                    if jumps > MOST_JUMPS {
                        return None;
                    }
                    self.at = usize::from(length & 0x3f) << 8 | usize::from(low);
                }
                64..=0xbf => return None,
            }
        }
        if let Some(back) = back {
            self.at = back;
        }
        Some(if name.is_empty() { ".".to_owned() } else { name })
    }

    /// A character string (RFC 1035 §3.3).
    fn text(&mut self) -> Option<String> {
        let length = self.byte()?;
        Some(String::from_utf8_lossy(self.take(usize::from(length))?).into_owned())
    }

    /// `Some(None)`: a record of a kind that is not read, or of which one can't be made sense.
    fn record(&mut self) -> Option<Option<Record>> {
        let name = self.name()?;
        let (kind, class) = (self.word()?, self.word()?);
        let ttl = self.take(4)?.try_into().ok().map(u32::from_be_bytes)?;
        // A first bit that is set makes it zero (RFC 2181 §8).
        let ttl = if ttl > 0x7fff_ffff { 0 } else { ttl };
        let length = usize::from(self.word()?);
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        let data = if class == 1 { self.data(kind, length) } else { None };
        self.at = end;
        Some(data.map(|data| Record { name, ttl, data }))
    }

    fn data(&mut self, kind: u16, length: usize) -> Option<Data> {
        if kind == Kind::A as u16 {
            let octets: [u8; 4] = self.take(length)?.try_into().ok()?;
            return Some(Data::Address(IpAddr::V4(Ipv4Addr::from(octets))));
        }
        if kind == Kind::Aaaa as u16 {
            let octets: [u8; 16] = self.take(length)?.try_into().ok()?;
            return Some(Data::Address(IpAddr::V6(Ipv6Addr::from(octets))));
        }
        if kind == ALIAS {
            return Some(Data::Alias(self.name()?));
        }
        if kind == Kind::Srv as u16 {
            let (priority, weight, port) = (self.word()?, self.word()?, self.word()?);
            return Some(Data::Srv(Srv { priority, weight, port, target: self.name()? }));
        }
        if kind == Kind::Naptr as u16 {
            let (order, preference) = (self.word()?, self.word()?);
            let (flags, services, _regexp) = (self.text()?, self.text()?, self.text()?);
            let replacement = self.name()?;
            return Some(Data::Naptr(Naptr { order, preference, flags, services, replacement }));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::rdata::{A, AAAA, CNAME, NAPTR, RData, SRV};
    use simple_dns::{CLASS, CharacterString, Name, Packet, PacketFlag, QTYPE, ResourceRecord, TYPE};

    use super::*;

    /// A reply to `asked`, by another hand than ours.
    fn written(asked: &[u8], records: &[(&str, u32, RData<'_>)]) -> Vec<u8> {
        let asked = Packet::parse(asked).unwrap();
        let mut packet = Packet::new_reply(asked.id());
        packet.questions = asked.questions.clone();
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
        for (name, ttl, data) in records {
            let name = Name::new(name).unwrap();
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, *ttl, data.clone()));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn a_question_is_read_by_others_as_it_was_meant() {
        let bytes = question(0x1234, "_sip._udp.pbx.test", Kind::Srv).unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.id(), 0x1234);
        assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED));
        assert_eq!(packet.questions[0].qname.to_string(), "_sip._udp.pbx.test");
        assert_eq!(packet.questions[0].qtype, QTYPE::TYPE(TYPE::SRV));
    }

    #[test]
    fn what_can_not_be_a_name_is_not_asked_for() {
        let long = ["a"; 150].join(".");
        for name in ["", ".", "a..b", &"x".repeat(64), &long, "b\u{fc}ro.test"] {
            assert_eq!(question(1, name, Kind::A), None, "{name}");
        }
        assert!(question(1, "pbx.test.", Kind::A).is_some());
    }

    #[test]
    fn every_kind_of_record_that_another_wrote_is_read() {
        let asked = question(7, "pbx.test", Kind::Naptr).unwrap();
        let name = |text: &'static str| Name::new(text).unwrap();
        let text = |text: &'static str| CharacterString::new(text.as_bytes()).unwrap();
        let naptr = NAPTR {
            order: 10,
            preference: 20,
            flags: text("s"),
            services: text("SIP+D2T"),
            regexp: text(""),
            replacement: name("_sip._tcp.pbx.test"),
        };
        let srv = SRV { priority: 1, weight: 2, port: 5070, target: name("One.pbx.test") };
        let bytes = written(
            &asked,
            &[
                ("pbx.test", 60, RData::CNAME(CNAME(name("other.pbx.test")))),
                ("other.pbx.test", 61, RData::NAPTR(naptr)),
                ("_sip._tcp.pbx.test", 62, RData::SRV(srv)),
                ("one.pbx.test", 63, RData::A(A { address: 0xc000_0201 })),
                ("one.pbx.test", 64, RData::AAAA(AAAA { address: 1 })),
            ],
        );
        let reply = reply(&bytes, &asked).unwrap();
        assert_eq!((reply.truncated, reply.code), (false, 0));
        let data: Vec<(u32, Data)> = reply.records.into_iter().map(|each| (each.ttl, each.data)).collect();
        let expected = [
            (60, Data::Alias("other.pbx.test".to_owned())),
            (
                61,
                Data::Naptr(Naptr {
                    order: 10,
                    preference: 20,
                    flags: "s".to_owned(),
                    services: "SIP+D2T".to_owned(),
                    replacement: "_sip._tcp.pbx.test".to_owned(),
                }),
            ),
            (62, Data::Srv(Srv { priority: 1, weight: 2, port: 5070, target: "one.pbx.test".to_owned() })),
            (63, Data::Address("192.0.2.1".parse().unwrap())),
            (64, Data::Address("::1".parse().unwrap())),
        ];
        assert_eq!(data, expected);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let asked = question(7, "pbx.test", Kind::A).unwrap();
        let bytes = written(&asked, &[("pbx.test", 60, RData::A(A { address: 1 }))]);
        assert!(reply(&bytes, &asked).is_some());
        for other in [
            question(8, "pbx.test", Kind::A),
            question(7, "pby.test", Kind::A),
            question(7, "pbx.test", Kind::Aaaa),
        ] {
            assert_eq!(reply(&bytes, &other.unwrap()), None);
        }
        assert_eq!(reply(&asked, &asked), None, "a question is no answer");
    }

    #[test]
    fn a_name_that_points_at_itself_is_not_followed_for_ever() {
        let asked = question(7, "pbx.test", Kind::A).unwrap();
        let mut bytes = written(&asked, &[]);
        bytes[7] = 1;
        let at = u8::try_from(bytes.len()).unwrap();
        bytes.extend_from_slice(&[0xc0, at, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        assert_eq!(reply(&bytes, &asked), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            tail in proptest::collection::vec(any::<u8>(), 0..200),
            flips in proptest::collection::vec((0_usize..120, any::<u8>()), 0..6),
        ) {
            let asked = question(7, "pbx.test", Kind::Srv).unwrap();
            let srv = SRV { priority: 1, weight: 2, port: 5070, target: Name::new("one.pbx.test").unwrap() };
            let mut bytes = written(&asked, &[("pbx.test", 60, RData::SRV(srv))]);
            bytes.extend_from_slice(&tail);
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if let Some(reply) = reply(&bytes, &asked) {
                prop_assert!(reply.records.len() <= MOST_RECORDS);
            }
        }
    }
}
