//! 3xx to our INVITE: who else is to be called, in which order, and how often (RFC 3261 §8.1.3.4).
//!
//! The INVITE still goes to the trunk's server, with the contact as its request URI: a PBX may say whom to call, not make us
//! speak to anybody. Only a contact whose address the trunk admits anyway is spoken to directly.

use std::collections::VecDeque;

use super::header::{NameAddr, Uri, without_headers};
use super::trunk::Trunk;
use super::wire::Response;
use super::words::{Transport, Way};

/// More targets than these are not called, in all.
const MOST: usize = 5;

/// Somebody to be called instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The request URI.
    pub uri: String,
    /// Where the INVITE goes, if not to the trunk's server.
    pub hop: Option<Way>,
}

/// Where a call was sent, and where it may still be sent.
#[derive(Debug, Default)]
pub(crate) struct Redirects {
    waiting: VecDeque<Target>,
    /// Every URI and hop that was called or is to be called.
    known: Vec<Target>,
    followed: usize,
}

/// What became of a 3xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// It names nobody that can be called.
    Nothing,
    /// It names only those that were called before.
    Circle,
    /// It names somebody new.
    Somebody,
}

impl Redirects {
    /// Takes the contacts of a 3xx. `uri` and `hop` are what was just called.
    pub fn learn(&mut self, response: &Response, uri: &str, hop: Way, trunk: &Trunk) -> Learnt {
        let present =
            Target { uri: uri.to_owned(), hop: trunk.peer().filter(|peer| *peer != hop).map(|_| hop) };
        if !self.known.contains(&present) {
            self.known.push(present);
        }
        // 380 means something else than a call, in its body (§21.3.5).
        if response.code == 380 {
            return Learnt::Nothing;
        }
        let mut contacts: Vec<(u16, NameAddr)> = response
            .headers
            .list("Contact")
            .filter_map(NameAddr::read)
            .map(|contact| (preference(&contact), contact))
            .collect();
        contacts.sort_by_key(|(preference, _)| std::cmp::Reverse(*preference));
        let (mut learnt, mut new) = (Learnt::Nothing, Vec::new());
        for (_, contact) in contacts {
            let Some(target) = target(&contact, response.code, uri, hop, trunk) else { continue };
            if self.known.iter().any(|known| same(known, &target)) {
                if learnt == Learnt::Nothing {
                    learnt = Learnt::Circle;
                }
            } else {
                learnt = Learnt::Somebody;
                if self.known.len() <= MOST {
                    self.known.push(target.clone());
                    new.push(target);
                }
            }
        }
        // What the latest answer says comes before what earlier ones said.
        for target in new.into_iter().rev() {
            self.waiting.push_front(target);
        }
        learnt
    }

    /// Whom to call next.
    pub fn next(&mut self) -> Option<Target> {
        let target = self.waiting.pop_front().filter(|_| self.followed < MOST)?;
        self.followed += 1;
        Some(target)
    }
}

/// The q-value in thousandths: 1 if there is none (RFC 3261 §20.10).
fn preference(contact: &NameAddr) -> u16 {
    let Some(text) = contact.param("q") else { return 1_000 };
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if whole == "1" {
        return 1_000;
    }
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    digits.parse().unwrap_or(0)
}

fn target(contact: &NameAddr, code: u16, called: &str, seen: Way, trunk: &Trunk) -> Option<Target> {
    let uri = &contact.uri;
    if !uri.is_sip() && uri.scheme != "tel" {
        return None;
    }
    // A call that must be encrypted all the way is not one that we could make otherwise.
    if uri.scheme == "sips" && seen.transport != Transport::Tls {
        return None;
    }
    let hop = uri.way(seen).filter(|way| trunk.admits(way.ip()) && trunk.peer() != Some(*way));
    // §21.3.4: the same call through a proxy, which must be one of the trunk's.
    if code == 305 {
        return Some(Target { uri: called.to_owned(), hop: Some(hop?) });
    }
    let (text, _) = without_headers(&contact.uri_text);
    let (head, params) = text.split_once(';').map_or((text, None), |(head, params)| (head, Some(params)));
    let mut kept = head.to_owned();
    for param in params.into_iter().flat_map(|params| params.split(';')) {
        // What only a URI outside a message may have (§19.1.1).
        if !param.get(..7).is_some_and(|name| name.eq_ignore_ascii_case("method=")) {
            kept.push(';');
            kept.push_str(param);
        }
    }
    uri.person()?;
    Some(Target { uri: kept, hop })
}

/// Whether the two mean the same: scheme and host without regard to case.
fn same(one: &Target, other: &Target) -> bool {
    let plain = |text: &str| {
        Uri::read(text)
            .map(|uri| (uri.scheme.clone(), uri.user.clone(), uri.host.clone(), uri.port, uri.params))
    };
    one.hop == other.hop && (one.uri == other.uri || plain(&one.uri) == plain(&other.uri))
}
