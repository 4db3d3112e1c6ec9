//! DNS messages by hand (RFC 1035 §4), for the tests: a server that shared its library with what it tests would share
//! its mistakes too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::message::{Data, Kind};

/// The flag of an answer that was cut (TC).
pub const CUT: u16 = 0x0200;
/// IANA's numbers of what can be asked for.
pub const NUMBERS: [(Kind, u16); 4] = [(Kind::A, 1), (Kind::Aaaa, 28), (Kind::Srv, 33), (Kind::Naptr, 35)];
/// IANA's number of an alias.
pub const ALIAS: u16 = 5;

/// The number of a record's kind.
pub fn number(data: &Data) -> u16 {
    match data {
        Data::Address(IpAddr::V4(_)) => 1,
        Data::Address(IpAddr::V6(_)) => 28,
        Data::Alias(_) => ALIAS,
        Data::Srv(_) => 33,
        Data::Naptr(_) => 35,
    }
}

/// The name and the number that a question is about. Panics if it is not what a question should be.
pub fn asked(question: &[u8]) -> (String, u16) {
    assert_eq!(question[2..12], [1, 0, 0, 1, 0, 0, 0, 0, 0, 0], "a question, recursion desired, and no more");
    let mut rest = &question[12..];
    let mut labels = Vec::new();
    while rest[0] != 0 {
        let (label, after) = rest[1..].split_at(usize::from(rest[0]));
        labels.push(std::str::from_utf8(label).unwrap());
        rest = after;
    }
    assert_eq!((rest.len(), &rest[3..]), (5, [0, 1].as_slice()), "the class is IN, and nothing follows");
    (labels.join("."), u16::from_be_bytes([rest[1], rest[2]]))
}

/// The answer to a question: its flags beside QR and RA, its code, and the records of its answer section. Names are
/// compressed wherever that is possible.
pub fn reply(question: &[u8], flags: u16, code: u8, records: &[(&str, u32, Data)]) -> Vec<u8> {
    let mut message = Message { bytes: question[..2].to_vec(), names: BTreeMap::new() };
    message.word(0x8080 | flags | u16::from(code));
    message.word(1);
    message.word(u16::try_from(records.len()).unwrap());
    message.bytes.extend_from_slice(&[0; 4]);
    let (name, number) = asked(question);
    message.name(&name);
    message.word(number);
    message.word(1);
    for (name, ttl, data) in records {
        message.record(name, *ttl, data);
    }
    message.bytes
}

/// A message that grows.
struct Message {
    bytes: Vec<u8>,
    /// Where names stand already.
    names: BTreeMap<String, u16>,
}

impl Message {
    fn word(&mut self, word: u16) {
        self.bytes.extend_from_slice(&word.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn name(&mut self, name: &str) {
        let mut rest = name;
        while !rest.is_empty() {
            if let Some(at) = self.names.get(rest) {
                return self.word(0xc000 | *at);
            }
            if self.bytes.len() < 0x4000 {
                self.names.insert(rest.to_owned(), u16::try_from(self.bytes.len()).unwrap());
            }
            let (label, after) = rest.split_once('.').unwrap_or((rest, ""));
            self.text(label);
            rest = after;
        }
        self.bytes.push(0);
    }

    fn record(&mut self, name: &str, ttl: u32, data: &Data) {
        self.name(name);
        self.word(number(data));
        self.word(1);
        self.bytes.extend_from_slice(&ttl.to_be_bytes());
        self.word(0);
        let start = self.bytes.len();
        match data {
            Data::Address(IpAddr::V4(ip)) => self.bytes.extend_from_slice(&ip.octets()),
            Data::Address(IpAddr::V6(ip)) => self.bytes.extend_from_slice(&ip.octets()),
            Data::Alias(to) => self.name(to),
            Data::Srv(srv) => {
                self.word(srv.priority);
                self.word(srv.weight);
                self.word(srv.port);
                self.name(&srv.target);
            }
            Data::Naptr(naptr) => {
                self.word(naptr.order);
                self.word(naptr.preference);
                self.text(&naptr.flags);
                self.text(&naptr.services);
                self.text("");
                self.name(&naptr.replacement);
            }
        }
        let length = u16::try_from(self.bytes.len() - start).unwrap();
        self.bytes[start - 2..start].copy_from_slice(&length.to_be_bytes());
    }
}
