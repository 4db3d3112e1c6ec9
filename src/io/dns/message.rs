//! DNS messages (RFC 1035 §4): a question out; addresses, aliases, SRV (RFC 2782) and NAPTR (RFC 3403) in.
//!
//! `simple-dns` reads and writes them. What is here: which answers count, how much of one is looked at, and what of
//! it is taken over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE, header_buffer};

use crate::sip::locate::{Naptr, Srv};

/// Records of one answer that are looked at. It also bounds the time that a hostile answer takes: the library follows
/// pointers backwards only, but does not count them.
const MOST_RECORDS: u16 = 128;
/// Bytes before the question.
const HEADER: usize = 12;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Servers of a service.
    Srv,
    /// Rules that lead to services.
    Naptr,
}

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
    let name = name.strip_suffix('.').unwrap_or(name);
    // The library would leave out what is empty, and take a backslash for the start of an escape.
    if !name.is_ascii() || name.contains('\\') || name.split('.').any(str::is_empty) {
        return None;
    }
    let kind = match kind {
        Kind::A => TYPE::A,
        Kind::Aaaa => TYPE::AAAA,
        Kind::Srv => TYPE::SRV,
        Kind::Naptr => TYPE::NAPTR,
    };
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).ok()?, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().ok()
}

/// Reads the answer to a [`question`]; `None`: it is not one, or it is broken.
pub fn reply(bytes: &[u8], question: &[u8]) -> Option<Reply> {
    let response = header_buffer::has_flags(bytes, PacketFlag::RESPONSE).ok()?;
    let truncated = header_buffer::has_flags(bytes, PacketFlag::TRUNCATION).ok()?;
    if !response
        || header_buffer::id(bytes).ok()? != header_buffer::id(question).ok()?
        || header_buffer::questions(bytes).ok()? != 1
    {
        return None;
    }
    // The question comes back as it was asked: otherwise anybody could have sent this.
    let asked = question.get(HEADER..)?;
    if !bytes.get(HEADER..)?.get(..asked.len())?.eq_ignore_ascii_case(asked) {
        return None;
    }
    let code = bytes.get(3)? & 0x0f;
    let records = match Packet::parse(&answers_of(bytes)?) {
        Ok(packet) => packet.answers.iter().filter_map(record).collect(),
        Err(_) if truncated => Vec::new(),
        Err(_) => return None,
    };
    Some(Reply { truncated, code, records })
}

/// The message without what follows its answers, and without answers beyond the limit: none of that is read, and the
/// room for it not set aside. The bit that means nothing (Z, RFC 1035 §4.1.1) is cleared: the library rejects it.
fn answers_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let answers = header_buffer::answers(bytes).ok()?.min(MOST_RECORDS);
    let mut bytes = bytes.to_vec();
    *bytes.get_mut(3)? &= !0x40;
    bytes.get_mut(6..8)?.copy_from_slice(&answers.to_be_bytes());
    bytes.get_mut(8..HEADER)?.fill(0);
    Some(bytes)
}

/// `None`: of a kind that is not used, or a name in it is not one.
fn record(record: &simple_dns::ResourceRecord<'_>) -> Option<Record> {
    if record.class != CLASS::IN || record.cache_flush {
        return None;
    }
    let data = match &record.rdata {
        RData::A(a) => Data::Address(Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Data::Address(Ipv6Addr::from(aaaa.address).into()),
        RData::CNAME(alias) => Data::Alias(text(&alias.0)?),
        RData::SRV(srv) => Data::Srv(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: text(&srv.target)?,
        }),
        RData::NAPTR(naptr) => Data::Naptr(Naptr {
            order: naptr.order,
            preference: naptr.preference,
            flags: naptr.flags.to_string(),
            services: naptr.services.to_string(),
            replacement: text(&naptr.replacement)?,
        }),
        _ => return None,
    };
    // A first bit that is set makes it zero (RFC 2181 §8).
    let ttl = if record.ttl > 0x7fff_ffff { 0 } else { record.ttl };
    Some(Record { name: text(&record.name)?, ttl, data })
}

/// A name of at most 253 characters (the library's limit). The root is "."; `None` for labels that no host name of
/// ours could hold.
fn text(name: &Name<'_>) -> Option<String> {
    let mut text = String::new();
    for label in name.get_labels() {
        let label = label.as_ref();
        if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    Some(if text.is_empty() { ".".to_owned() } else { text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::by_hand::{self, CUT, NUMBERS};
    use super::*;

    fn address(ip: &str) -> Data {
        Data::Address(ip.parse().unwrap())
    }

    fn srv() -> Data {
        Data::Srv(Srv { priority: 1, weight: 2, port: 5070, target: "one.pbx.test".to_owned() })
    }

    fn naptr() -> Data {
        Data::Naptr(Naptr {
            order: 10,
            preference: 20,
            flags: "s".to_owned(),
            services: "SIP+D2T".to_owned(),
            replacement: "_sip._tcp.pbx.test".to_owned(),
        })
    }

    /// A reply to `asked`, by hand.
    fn written(asked: &[u8], records: &[(&str, u32, Data)]) -> Vec<u8> {
        by_hand::reply(asked, 0, 0, records)
    }

    #[test]
    fn a_question_is_as_the_rfc_says() {
        let bytes = question(0x1234, "_sip._udp.pbx.test.", Kind::Srv).unwrap();
        let expected =
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04_sip\x04_udp\x03pbx\x04test\0\0\x21\0\x01".as_slice();
        assert_eq!(bytes, expected);
        for (kind, number) in NUMBERS {
            let bytes = question(1, "pbx.test", kind).unwrap();
            assert_eq!(by_hand::asked(&bytes), ("pbx.test".to_owned(), number), "{kind:?}");
        }
    }

    #[test]
    fn what_can_not_be_a_name_is_not_asked_for() {
        let long = ["a"; 150].join(".");
        for name in ["", ".", "a..b", ".a", "a..", "a\\.b", &"x".repeat(64), &long, "b\u{fc}ro.test"] {
            assert_eq!(question(1, name, Kind::A), None, "{name}");
        }
        assert!(question(1, &"x".repeat(63), Kind::A).is_some());
        assert!(question(1, &["a"; 127].join("."), Kind::A).is_some(), "253 characters");
        assert_eq!(question(1, &["a"; 128].join("."), Kind::A), None);
    }

    #[test]
    fn every_kind_of_record_is_read() {
        let asked = question(7, "pbx.test", Kind::Naptr).unwrap();
        let records = [
            ("pbx.test", 60, Data::Alias("other.pbx.test".to_owned())),
            ("other.pbx.test", 61, naptr()),
            ("_sip._tcp.pbx.test", 62, srv()),
            ("one.pbx.test", 63, address("192.0.2.1")),
            ("one.pbx.test", 64, address("::1")),
            ("one.pbx.test", 0x8000_0000, address("192.0.2.2")),
        ];
        let reply = reply(&written(&asked, &records), &asked).unwrap();
        assert_eq!((reply.truncated, reply.code), (false, 0));
        let mut expected = records.map(|(name, ttl, data)| Record { name: name.to_owned(), ttl, data });
        expected[5].ttl = 0;
        assert_eq!(reply.records, expected);
    }

    #[test]
    fn an_answer_in_bytes_is_read_as_the_rfc_says() {
        let asked = question(7, "pbx.test", Kind::Srv).unwrap();
        // QR, AA, RA, the bit that means nothing, and NXDOMAIN; three answers, and a record behind them that breaks off.
        let mut bytes = b"\0\x07\x84\xc3\0\x01\0\x03\0\0\0\x01\x03PBX\x04Test\0\0\x21\0\x01".to_vec();
        bytes.extend_from_slice(b"\xc0\x0c\xfe\x01\0\x01\0\0\0\x3c\0\x03\xff\xff\xff");
        bytes.extend_from_slice(b"\xc0\x0c\0\x01\0\x03\0\0\0\x3c\0\x04\x7f\0\0\x01");
        bytes.extend_from_slice(b"\xc0\x0c\0\x21\0\x01\0\0\x01\x2c\0\x0c\0\x01\0\x02\x13\xc4\x03One\xc0\x0c");
        bytes.extend_from_slice(b"\xc0\x0c\0\x01");
        let reply = reply(&bytes, &asked).unwrap();
        assert_eq!((reply.truncated, reply.code), (false, 3));
        let srv = Srv { priority: 1, weight: 2, port: 5060, target: "one.pbx.test".to_owned() };
        let record = Record { name: "pbx.test".to_owned(), ttl: 300, data: Data::Srv(srv) };
        assert_eq!(reply.records, [record], "an unknown kind and another class are left out");
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let asked = question(7, "pbx.test", Kind::A).unwrap();
        let bytes = written(&asked, &[("pbx.test", 60, address("192.0.2.1"))]);
        assert!(reply(&bytes, &asked).is_some());
        for other in [
            question(8, "pbx.test", Kind::A),
            question(7, "pby.test", Kind::A),
            question(7, "pbx.test", Kind::Aaaa),
        ] {
            assert_eq!(reply(&bytes, &other.unwrap()), None);
        }
        assert_eq!(reply(&asked, &asked), None, "a question is no answer");
        for length in 0..bytes.len() {
            assert_eq!(reply(&bytes[..length], &asked), None, "{length} bytes of it");
        }
    }

    #[test]
    fn an_answer_that_was_cut_says_so_even_if_a_record_breaks_off() {
        let asked = question(7, "pbx.test", Kind::A).unwrap();
        let bytes = by_hand::reply(&asked, CUT, 0, &[("pbx.test", 60, address("192.0.2.1"))]);
        assert_eq!(reply(&bytes, &asked).unwrap().records.len(), 1);
        let cut = reply(&bytes[..bytes.len() - 1], &asked).unwrap();
        assert_eq!((cut.truncated, cut.records.len()), (true, 0));
    }

    #[test]
    fn a_name_that_points_at_itself_or_ahead_is_not_followed() {
        let asked = question(7, "pbx.test", Kind::A).unwrap();
        let mut bytes = written(&asked, &[]);
        bytes[7] = 1;
        let at = u8::try_from(bytes.len()).unwrap();
        for target in [at, at + 2] {
            let mut bytes = bytes.clone();
            bytes.extend_from_slice(&[0xc0, target, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            assert_eq!(reply(&bytes, &asked), None);
        }
    }

    #[test]
    fn no_more_records_are_looked_at_than_the_limit_and_none_that_are_only_announced() {
        let asked = question(7, "pbx.test", Kind::A).unwrap();
        let records = vec![("pbx.test", 60, address("192.0.2.1")); 300];
        let mut bytes = written(&asked, &records);
        assert_eq!(reply(&bytes, &asked).unwrap().records.len(), usize::from(MOST_RECORDS));
        bytes[8..12].fill(0xff);
        assert_eq!(reply(&bytes, &asked).unwrap().records.len(), usize::from(MOST_RECORDS));
        let mut empty = written(&asked, &[]);
        empty[6..12].fill(0xff);
        assert_eq!(reply(&empty, &asked), None);
    }

    #[test]
    fn a_record_with_a_name_that_can_not_be_one_is_left_out() {
        let asked = question(7, "pbx.test", Kind::A).unwrap();
        let bad = Data::Alias("b d.test".to_owned());
        let bytes = written(&asked, &[("pbx.test", 60, bad), ("pbx.test", 60, address("192.0.2.1"))]);
        let reply = reply(&bytes, &asked).unwrap();
        assert_eq!(reply.records.len(), 1);
        assert_eq!(reply.records[0].data, address("192.0.2.1"));
    }

    /// What one record may be made of: pointers, lengths and kinds are likelier than chance would have it.
    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![any::<u8>(), 0_u8..70, Just(0xc0), Just(0), Just(12)];
        proptest::collection::vec(byte, 0..most)
    }

    fn is_bounded(reply: &Reply) -> bool {
        let short = |name: &String| name.len() <= 253;
        reply.records.len() <= usize::from(MOST_RECORDS)
            && reply.records.iter().all(|record| {
                short(&record.name)
                    && match &record.data {
                        Data::Address(_) => true,
                        Data::Alias(to) => short(to),
                        Data::Srv(srv) => short(&srv.target),
                        Data::Naptr(naptr) => short(&naptr.replacement) && naptr.services.len() <= 3 * 255,
                    }
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        #[test]
        fn no_answer_makes_it_panic(
            tail in bytes(200),
            flips in proptest::collection::vec((0_usize..200, any::<u8>()), 0..6),
            cut in 0_usize..400,
        ) {
            let asked = question(7, "pbx.test", Kind::Srv).unwrap();
            let records =
                [("pbx.test", 60, srv()), ("pbx.test", 60, naptr()), ("one.pbx.test", 60, address("::1"))];
            let mut bytes = written(&asked, &records);
            bytes.extend_from_slice(&tail);
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut);
            prop_assert!(reply(&bytes, &asked).is_none_or(|reply| is_bounded(&reply)));
        }

        #[test]
        fn no_record_of_any_kind_makes_it_panic(
            records in proptest::collection::vec((0_u16..300, bytes(60), 0_usize..4), 1..6),
        ) {
            let asked = question(7, "pbx.test", Kind::Srv).unwrap();
            let mut bytes = written(&asked, &[]);
            bytes[7] = u8::try_from(records.len()).unwrap();
            for (kind, data, more) in records {
                bytes.extend_from_slice(&[0xc0, 12]);
                bytes.extend_from_slice(&kind.to_be_bytes());
                bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
                bytes.extend_from_slice(&u16::try_from(data.len() + more / 3).unwrap().to_be_bytes());
                bytes.extend_from_slice(&data);
            }
            prop_assert!(reply(&bytes, &asked).is_none_or(|reply| is_bounded(&reply)));
        }

        #[test]
        fn what_was_written_is_read(
            names in proptest::collection::vec("[a-z0-9_-]{1,20}(\\.[a-z0-9-]{1,20}){0,4}", 1..12),
        ) {
            let asked = question(7, &names[0], Kind::A).unwrap();
            let records: Vec<(&str, u32, Data)> = names
                .iter()
                .zip(names.iter().rev())
                .map(|(name, other)| (name.as_str(), 60, Data::Alias(other.clone())))
                .collect();
            let read = reply(&written(&asked, &records), &asked).unwrap().records;
            let read: Vec<(&str, u32, Data)> =
                read.iter().map(|record| (record.name.as_str(), record.ttl, record.data.clone())).collect();
            prop_assert_eq!(read, records);
        }
    }
}
