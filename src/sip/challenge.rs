//! Whoever calls us proves who he is (RFC 3261 §22.1, RFC 7616, RFC 8760): the server's side of digest authentication.
//!
//! A nonce needs no memory: it is its own time under a seal that only we can make, and is good for a minute and for the
//! address that asked. What is remembered is how often a nonce has been used, so that nobody can use what he overheard.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::clock::{Now, Tick};

use super::Core;
use super::auth::{Ask, Challenge, Credentials, Hash, Parameters, Qop};
use super::chance::hex;
use super::header::Uri;
use super::serve::{Asked, warning};
use super::trunk::Trunk;
use super::wire::Request;

/// How long a nonce is good.
const LIFE: Duration = Duration::from_secs(60);
/// So many nonces in use are remembered.
const MOST_USED: usize = 1_024;
/// What the password is for.
const REALM: &str = "watrunk";

/// What a request proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Its sender knows the password.
    Good,
    /// Nothing yet; `stale`: he knew it, but the nonce is too old or has been used.
    Missing { stale: bool },
    /// He does not know it.
    Wrong,
}

/// Makes nonces and knows its own.
pub(crate) struct Challenger {
    secret: [u8; 32],
    serial: u32,
    /// When it was made and how often it was used, by nonce.
    used: BTreeMap<String, (Tick, u32)>,
    /// Nonces that are not newer than this may have been forgotten.
    forgotten: Option<Tick>,
}

impl fmt::Debug for Challenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenger").field("used", &self.used.len()).finish_non_exhaustive()
    }
}

/// HMAC (RFC 2104) with SHA-256. It takes keys of any length, so there is always a seal.
fn seal(secret: &[u8], text: &[u8]) -> String {
    let seal =
        Hmac::<Sha256>::new_from_slice(secret).map(|mac| mac.chain_update(text).finalize().into_bytes());
    seal.map(|seal| hex(&seal)).unwrap_or_default()
}

/// Compares without telling by the time it takes how much was right.
fn same(ours: &str, theirs: &str) -> bool {
    !ours.is_empty() && ours.as_bytes().ct_eq(theirs.as_bytes()).into()
}

impl Challenger {
    pub fn new(seed: u64) -> Challenger {
        let secret = Sha256::new().chain_update(b"watrunk nonce").chain_update(seed.to_be_bytes()).finalize();
        Challenger { secret: secret.into(), serial: 0, used: BTreeMap::new(), forgotten: None }
    }

    fn nonce(&self, at: Tick, serial: u32, source: IpAddr) -> String {
        let text = format!("{:016x}{serial:08x}", at.0);
        let sealed = seal(&self.secret, format!("{text} {}", source.to_canonical()).as_bytes());
        format!("{text}{}", sealed.get(..32).unwrap_or_default())
    }

    /// The values of WWW-Authenticate, the one we like best first (RFC 8760 §2.4).
    fn challenges(&mut self, source: IpAddr, stale: bool, now: Now) -> [String; 2] {
        self.serial = self.serial.wrapping_add(1);
        let nonce = self.nonce(now.tick, self.serial, source);
        let stale = if stale { ", stale=true" } else { "" };
        ["SHA-256", "MD5"].map(|algorithm| {
            format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\", algorithm={algorithm}, qop=\"auth\"{stale}")
        })
    }

    /// When that nonce of ours was made; `None`: it is none of ours.
    fn made(&self, nonce: &str, source: IpAddr) -> Option<Tick> {
        let at = Tick(u64::from_str_radix(nonce.get(..16)?, 16).ok()?);
        let serial = u32::from_str_radix(nonce.get(16..24)?, 16).ok()?;
        same(&self.nonce(at, serial, source), nonce).then_some(at)
    }

    /// Whether that nonce may be used for the `count`th time now. Notes it.
    fn fresh(&mut self, nonce: &str, made: Tick, count: u32, now: Now) -> bool {
        self.used.retain(|_, (made, _)| now.tick.since(*made) <= LIFE);
        if now.tick.since(made) > LIFE {
            return false;
        }
        if let Some((_, last)) = self.used.get_mut(nonce) {
            let later = count > *last;
            *last = count.max(*last);
            return later;
        }
        if self.forgotten.is_some_and(|forgotten| made <= forgotten) {
            return false;
        }
        while self.used.len() >= MOST_USED {
            let oldest = self.used.iter().min_by_key(|(_, (made, _))| *made);
            let Some((oldest, made)) = oldest.map(|(nonce, (made, _))| (nonce.clone(), *made)) else { break };
            self.used.remove(&oldest);
            self.forgotten = self.forgotten.max(Some(made));
        }
        self.used.insert(nonce.to_owned(), (made, count));
        true
    }

    /// What the request proves about its sender.
    fn proof(&mut self, request: &Request, source: IpAddr, who: &Credentials, now: Now) -> Proof {
        let answers = request.headers.all("Authorization").take(8).filter_map(Answer::read);
        let Some(answer) = answers.into_iter().find(|answer| answer.realm == REALM) else {
            return Proof::Missing { stale: false };
        };
        // Proxies may rewrite the host of a request URI. Whom he calls he must have meant.
        let meant = Uri::read(&answer.uri).is_some_and(|uri| uri.person() == request.uri.person());
        let right = meant
            && answer.username == who.username
            && same(&answer.expected(request, who), &answer.response.to_ascii_lowercase());
        match (self.made(&answer.nonce, source), right) {
            (Some(made), true) if self.fresh(&answer.nonce, made, answer.count, now) => Proof::Good,
            (_, true) => Proof::Missing { stale: true },
            (Some(made), false) if now.tick.since(made) <= LIFE => Proof::Wrong,
            (_, false) => Proof::Missing { stale: false },
        }
    }
}

/// The value of an Authorization.
struct Answer {
    username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    hash: Hash,
    qop: Qop,
    cnonce: String,
    count: u32,
}

impl Answer {
    /// `None`: it answers no challenge that we make.
    fn read(value: &str) -> Option<Answer> {
        let params = Parameters::read(value)?;
        let get = |wanted: &str| params.get(wanted);
        let hash = match get("algorithm").unwrap_or_default().to_ascii_uppercase().as_str() {
            "" | "MD5" => Hash::Md5,
            "SHA-256" => Hash::Sha256,
            _ => return None,
        };
        // Senders from before RFC 2617 know no qop: what they send is good for one use.
        let (qop, count) = match get("qop") {
            None => (Qop::None, 1),
            Some(qop) if qop.eq_ignore_ascii_case("auth") => {
                (Qop::Auth, u32::from_str_radix(&get("nc")?, 16).ok().filter(|count| *count > 0)?)
            }
            Some(_) => return None,
        };
        Some(Answer {
            username: get("username")?,
            realm: get("realm")?,
            nonce: get("nonce")?,
            uri: get("uri")?,
            response: get("response")?,
            hash,
            qop,
            cnonce: get("cnonce").unwrap_or_default(),
            count,
        })
    }

    /// What its response has to be.
    fn expected(&self, request: &Request, who: &Credentials) -> String {
        let challenge = Challenge::asked(&self.realm, &self.nonce, self.hash, self.qop);
        let ask = Ask { method: &request.method, uri: &self.uri, body: b"" };
        challenge.response(who, &ask, &self.cnonce, self.count)
    }
}

/// Whether a call of that trunk's PBX need not be looked at, because its sender has not proven who he is; he has been
/// answered. Calls of trunks that don't ask for it always need to be.
pub(crate) fn unproven(trunk: &Trunk, asked: &Asked<'_>, core: &mut Core, now: Now) -> bool {
    if !trunk.settings.challenge {
        return false;
    }
    let source = asked.from.ip();
    let proof = match &trunk.credentials {
        Some(who) => core.challenger.proof(asked.request, source, who, now),
        None => Proof::Wrong,
    };
    match proof {
        Proof::Good => return false,
        Proof::Missing { stale } => {
            core.out.counters.challenged += 1;
            let challenges = core.challenger.challenges(source, stale, now);
            asked.reply(401, core, now, |draft| {
                for challenge in challenges {
                    draft.push("WWW-Authenticate", challenge);
                }
            });
        }
        Proof::Wrong => {
            core.out.counters.denied += 1;
            tracing::info!(trunk = %trunk.settings.name, "a call with a wrong user name or password");
            let why = if trunk.credentials.is_some() {
                "wrong user name or password"
            } else {
                "no password is configured here"
            };
            asked.reply(403, core, now, |draft| draft.push("Warning", warning(why)));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_known_by_its_seal_for_its_time_and_its_address() {
        let mut challenger = Challenger::new(7);
        let now = Now { tick: Tick::from_millis(5_000), ..Now::default() };
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let nonce = challenger.nonce(now.tick, 1, source);
        assert_eq!(challenger.made(&nonce, source), Some(now.tick));
        assert_eq!(challenger.made(&nonce, "::ffff:192.0.2.1".parse().unwrap()), Some(now.tick));
        assert_eq!(challenger.made(&nonce, "192.0.2.2".parse().unwrap()), None);
        assert_eq!(Challenger::new(8).made(&nonce, source), None, "another secret");
        for forged in ["", "ä", &nonce[..40], &nonce.replace("00000001", "00000002"), &format!("{nonce}0")] {
            assert_eq!(challenger.made(forged, source), None, "{forged}");
        }
        assert!(challenger.fresh(&nonce, now.tick, 1, now));
        assert!(!challenger.fresh(&nonce, now.tick, 1, now), "used");
        assert!(challenger.fresh(&nonce, now.tick, 5, now));
        assert!(!challenger.fresh(&nonce, now.tick, 4, now));
        let later = now.after(LIFE + Duration::from_millis(1));
        assert!(!challenger.fresh(&nonce, now.tick, 9, later), "too old");
        assert!(challenger.used.is_empty(), "and forgotten");
    }

    #[test]
    fn however_many_nonces_are_used_the_memory_is_fixed_and_none_is_good_twice() {
        let mut challenger = Challenger::new(7);
        let now = |count: u64| Now { tick: Tick(count), ..Now::default() };
        for count in 0..5_000u64 {
            assert!(challenger.fresh(&format!("{count}"), Tick(count), 1, now(count)));
            assert!(challenger.used.len() <= MOST_USED);
        }
        for count in 0..5_000u64 {
            assert!(!challenger.fresh(&format!("{count}"), Tick(count), 1, now(5_000)), "{count}");
        }
    }
}
