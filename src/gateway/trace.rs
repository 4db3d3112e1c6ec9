//! What SIP said, kept while somebody wants to see it: switched on and off at run time, bounded, the oldest goes first.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::Gateway;
use crate::clock::{Now, Wall};
use crate::sip::{Found, Way};

/// Messages and bytes that are kept at most.
const MESSAGES: usize = 10_000;
const BYTES: usize = 4 << 20;
/// Calls whose Call-IDs are remembered, and Call-IDs of one call: forks, transfers, trunks that were tried.
const CALLS: usize = 1_000;
const DIALOGS: usize = 16;
/// Ways whose near end is remembered.
const WAYS: usize = 256;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// When.
    pub at: Wall,
    /// By us; else it came in.
    pub sent: bool,
    /// The other end.
    pub way: Way,
    /// What we call ourselves towards it; `None`: not known.
    pub local: Option<SocketAddr>,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Trace {
    on: bool,
    kept: VecDeque<(String, Traced)>,
    size: usize,
    /// The Call-IDs of each call, the oldest call first.
    dialogs: VecDeque<(String, Vec<String>)>,
    near: BTreeMap<Way, SocketAddr>,
}

impl Trace {
    /// Whether messages are kept.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// From now on messages are kept, or not any more: then those that were are let go of.
    pub fn switch(&mut self, on: bool) {
        self.on = on;
        if !on {
            self.kept = VecDeque::new();
            self.size = 0;
        }
    }

    /// This Call-ID is one of this call's.
    pub fn belongs(&mut self, call: &str, call_id: &str) {
        let known = self.dialogs.iter_mut().rev().find(|(known, _)| known == call);
        let Some((_, ids)) = known else {
            if self.dialogs.len() >= CALLS {
                self.dialogs.pop_front();
            }
            return self.dialogs.push_back((call.to_owned(), vec![call_id.to_owned()]));
        };
        if ids.len() < DIALOGS && !ids.iter().any(|known| known == call_id) {
            ids.push(call_id.to_owned());
        }
    }

    /// What we call ourselves towards these places.
    pub fn found(&mut self, found: &[Found]) {
        for Found { way, local } in found {
            if self.near.len() < WAYS || self.near.contains_key(way) {
                self.near.insert(*way, *local);
            }
        }
    }

    /// A message went out or came in.
    pub fn keep(&mut self, sent: bool, way: Way, bytes: &[u8], now: Now) {
        if !self.on {
            return;
        }
        let Some(call_id) = call_id(bytes) else { return };
        let near = |way: &Way| self.near.get(way).copied();
        let same_host =
            || self.near.iter().find(|(known, _)| known.ip() == way.ip()).map(|(_, local)| *local);
        let local = near(&way).or_else(same_host);
        self.size += bytes.len();
        self.kept.push_back((call_id, Traced { at: now.wall, sent, way, local, bytes: bytes.to_vec() }));
        while self.kept.len() > MESSAGES || self.size > BYTES {
            let Some((_, gone)) = self.kept.pop_front() else { break };
            self.size = self.size.saturating_sub(gone.bytes.len());
        }
    }

    /// The messages of a call, the oldest first; `None`: nothing is known of such a call.
    pub fn of(&self, call: &str) -> Option<Vec<Traced>> {
        let (_, ids) = self.dialogs.iter().rev().find(|(known, _)| known == call)?;
        let its = |(id, _): &&(String, Traced)| ids.contains(id);
        Some(self.kept.iter().filter(its).map(|(_, traced)| traced.clone()).collect())
    }
}

/// The Call-ID of a message, however it is written (RFC 3261 §7.3.3 `i`).
fn call_id(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let head = text.lines().skip(1).take_while(|line| !line.trim().is_empty());
    head.filter_map(|line| line.split_once(':'))
        .find(|(name, _)| ["call-id", "i"].iter().any(|known| name.trim().eq_ignore_ascii_case(known)))
        .map(|(_, value)| value.trim().to_owned())
}

impl Gateway {
    /// The leg that was dialled or that came in is one of this call's.
    pub(super) fn trace_leg(&mut self, call: &str, leg: crate::sip::LegId) {
        if let Some(call_id) = self.agent.call_id(leg) {
            self.trace.belongs(call, call_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way() -> Way {
        Way::udp("192.0.2.10:5060".parse().unwrap())
    }

    fn message(call_id: &str, size: usize) -> Vec<u8> {
        let mut bytes = format!("OPTIONS sip:a SIP/2.0\r\n{call_id}\r\nCSeq: 1 OPTIONS\r\n\r\n").into_bytes();
        bytes.resize(bytes.len().max(size), b'x');
        bytes
    }

    #[test]
    fn the_messages_of_a_call_are_those_with_its_call_ids_in_their_order() {
        let mut trace = Trace::default();
        trace.switch(true);
        let local = "192.0.2.1:5060".parse().unwrap();
        trace.found(&[Found { way: way(), local }]);
        trace.belongs("call_1", "a@b");
        trace.belongs("call_1", "c@d");
        trace.belongs("call_2", "e@f");
        trace.keep(true, way(), &message("Call-ID: a@b", 0), Now::default());
        trace.keep(false, way(), &message("i : c@d", 0), Now::default());
        trace.keep(false, way(), &message("call-id:e@f", 0), Now::default());
        let seen = trace.of("call_1").unwrap();
        assert_eq!(seen.iter().map(|traced| traced.sent).collect::<Vec<_>>(), [true, false]);
        assert!(seen.iter().all(|traced| traced.local == Some(local)));
        assert_eq!(trace.of("call_2").unwrap().len(), 1);
        assert_eq!(trace.of("call_3"), None);
    }

    #[test]
    fn nothing_is_kept_while_it_is_off_and_what_was_kept_goes_when_it_is_switched_off() {
        let mut trace = Trace::default();
        trace.belongs("call_1", "a@b");
        trace.keep(true, way(), &message("Call-ID: a@b", 0), Now::default());
        assert_eq!(trace.of("call_1"), Some(vec![]));
        trace.switch(true);
        trace.keep(true, way(), &message("Call-ID: a@b", 0), Now::default());
        assert_eq!(trace.of("call_1").unwrap().len(), 1);
        trace.switch(false);
        assert_eq!(trace.of("call_1"), Some(vec![]));
    }

    #[test]
    fn a_flood_pushes_the_oldest_out_and_memory_has_an_end() {
        let mut trace = Trace::default();
        trace.switch(true);
        for nth in 0..20_000 {
            trace.belongs(&format!("call_{nth}"), &nth.to_string());
            trace.keep(false, way(), &message(&format!("Call-ID: {nth}"), 1_000), Now::default());
        }
        assert!(trace.size <= BYTES && trace.kept.len() <= MESSAGES);
        assert_eq!(trace.dialogs.len(), CALLS);
        assert_eq!(trace.of("call_19999").unwrap().len(), 1);
        assert_eq!(trace.of("call_0"), None);
    }
}
