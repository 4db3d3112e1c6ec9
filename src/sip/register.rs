//! REGISTER (RFC 3261 §10): binding our address, refreshing it, coming back after failures, leaving.

use std::time::Duration;

use crate::call::without_numbers;
use crate::clock::{Now, Tick};

use super::Core;
use super::auth::{Ask, By, Digest};
use super::chance::Chance;
use super::header::NameAddr;
use super::transaction::Owner;
use super::trunk::Trunk;
use super::wire::{Draft, Response};
use super::words::TrunkState;

/// The first pause after a refusal, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(4);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// The same where nobody answered: a PBX that is started again wants its trunks back soon.
const FIRST_SILENT_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_SILENT_PAUSE: Duration = Duration::from_secs(60);
/// The shortest time between two refreshes, whatever anybody says.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
/// The longest lifetime we agree to when the registrar says ours is too short.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

/// The registration of one trunk.
#[derive(Debug)]
pub(crate) struct Registration {
    call_id: String,
    tag: String,
    cseq: u32,
    digest: Digest,
    /// The lifetime we ask for.
    expires: Duration,
    due: Option<Tick>,
    sent: Option<Tick>,
    /// When the last attempt began.
    begun: Option<Tick>,
    /// The registrar may hold a binding of ours.
    bound: bool,
    /// The lifetime that was granted last.
    granted: Option<Duration>,
    leaving: bool,
    failures: u32,
    /// 423 has been obeyed in this attempt.
    prolonged: bool,
}

impl Registration {
    pub fn new(chance: &mut Chance, expires: Duration) -> Registration {
        Registration {
            call_id: chance.token(),
            tag: chance.token(),
            cseq: 0,
            digest: Digest::default(),
            expires,
            due: None,
            sent: None,
            begun: None,
            bound: false,
            granted: None,
            leaving: false,
            failures: 0,
            prolonged: false,
        }
    }

    pub fn due(&self) -> Option<Tick> {
        self.due
    }

    /// The next attempt is to come at once.
    pub fn now(&mut self, now: Now) {
        self.due = Some(now.tick);
    }

    /// The next attempt is to come then, if not before.
    pub fn at(&mut self, at: Tick) {
        if self.sent.is_none() {
            self.due = Some(at);
        }
    }

    /// The connection broke: at once, unless that is what happens all the time.
    pub fn again(&mut self, chance: &mut Chance, now: Now) {
        if self.sent.is_some() {
            return;
        }
        let calm = self.begun.is_none_or(|begun| now.tick.since(begun) >= LONGEST_SILENT_PAUSE);
        self.due = Some(if calm { now.tick } else { now.tick + self.pause(chance, false) });
    }

    /// Account or wishes changed: what has been learnt about the old ones is forgotten.
    pub fn begin_anew(&mut self, expires: Duration) {
        self.digest = Digest::default();
        self.expires = expires;
        self.failures = 0;
    }

    /// The lifetime that was granted, as long as it may last.
    pub fn granted(&self) -> Option<Duration> {
        self.granted.filter(|_| self.bound)
    }

    pub fn bound(&self) -> bool {
        self.bound
    }

    /// Whether an attempt waits for its answer.
    pub fn under_way(&self) -> bool {
        self.sent.is_some()
    }

    pub fn leaving(&self) -> bool {
        self.leaving
    }

    pub fn leave(&mut self) {
        self.leaving = true;
        self.due = None;
    }

    pub fn cancel(&mut self) {
        self.due = None;
    }

    /// Doubling, within bounds, with jitter so that many boxes do not come back at once.
    fn pause(&mut self, chance: &mut Chance, refused: bool) -> Duration {
        let (first, longest) =
            if refused { (FIRST_PAUSE, LONGEST_PAUSE) } else { (FIRST_SILENT_PAUSE, LONGEST_SILENT_PAUSE) };
        let doubled = first * 2u32.pow(self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        chance.part_of(doubled.min(longest), 50, 100)
    }
}

impl Trunk {
    /// A new attempt.
    pub(crate) fn register(&mut self, core: &mut Core, now: Now) {
        self.registration.digest.begin();
        self.registration.prolonged = false;
        self.registration.begun = Some(now.tick);
        self.send_register(core, now);
    }

    fn send_register(&mut self, core: &mut Core, now: Now) {
        let Some(peer) = self.peer() else { return };
        let (uri, account, contact) = (self.uri("", None), self.account(), self.contact(peer));
        let cnonce = core.chance.token();
        let registration = &mut self.registration;
        registration.due = None;
        registration.cseq = registration.cseq.saturating_add(1);
        let seconds = if registration.leaving { 0 } else { registration.expires.as_secs().max(1) };
        let mut draft = Draft::request("REGISTER", &uri);
        draft.push("Max-Forwards", "70");
        draft.push("From", format!("{account};tag={}", registration.tag));
        draft.push("To", account);
        draft.push("Call-ID", registration.call_id.clone());
        draft.push("CSeq", format!("{} REGISTER", registration.cseq));
        draft.push("Contact", format!("{contact};expires={seconds}"));
        draft.push("Expires", seconds.to_string());
        draft.push("Allow", super::ALLOW);
        let ask = Ask { method: "REGISTER", uri: &uri, body: b"" };
        for (name, value) in registration.digest.authorize(&ask, self.credentials.as_ref(), &cnonce) {
            draft.push(name, value);
        }
        registration.sent = Some(now.tick);
        // What comes in for an older attempt must not be taken for an answer to this one.
        let owner = Owner::Register(self.index);
        core.transactions.forget(owner);
        self.send("REGISTER", draft, peer, owner, core, now);
        self.or_elsewhere(owner, core, now);
    }

    /// An answer to REGISTER.
    pub(crate) fn registered(&mut self, response: &Response, core: &mut Core, now: Now) {
        if response.code < 200 {
            return;
        }
        self.code = Some(response.code);
        if let Some(sent) = self.registration.sent.take() {
            self.round_trip = Some(now.tick.since(sent));
        }
        if let Some(by) = By::status(response.code) {
            let challenges = response.headers.all(by.challenge_header());
            match self.registration.digest.challenged(by, challenges, self.credentials.as_ref()) {
                Ok(()) => self.send_register(core, now),
                Err(given_up) => {
                    let why = format!("{}: {}", response.text(), given_up.text());
                    self.register_failed(Some(response.code), why, None, core, now);
                }
            }
            return;
        }
        match response.code {
            200..=299 if self.registration.leaving => self.left(core, now),
            200..=299 => self.bound(response, core, now),
            423 if !self.registration.prolonged => {
                let least =
                    response.headers.get("Min-Expires").and_then(|text| text.trim().parse::<u64>().ok());
                let least = least.map(Duration::from_secs).filter(|least| *least <= LONGEST_LIFE);
                match least {
                    Some(least) if least > self.registration.expires => {
                        self.registration.prolonged = true;
                        self.registration.expires = least;
                        self.send_register(core, now);
                    }
                    Some(_) | None => self.register_failed(Some(423), response.text(), None, core, now),
                }
            }
            code => {
                let wait = response.headers.get("Retry-After").and_then(leading_seconds);
                self.register_failed(Some(code), response.text(), wait, core, now);
            }
        }
    }

    /// REGISTER was never answered.
    pub(crate) fn register_lost(&mut self, core: &mut Core, now: Now) {
        self.code = None;
        self.round_trip = None;
        self.registration.sent = None;
        let why = self.unreached.take().unwrap_or_else(|| "no answer to REGISTER".to_owned());
        self.register_failed(None, why, None, core, now);
    }

    fn bound(&mut self, response: &Response, core: &mut Core, now: Now) {
        let Some(way) = self.peer() else { return };
        let expires = granted(response, &self.contact(way), self.registration.expires);
        self.unreached = None;
        self.registration.failures = 0;
        self.registration.bound = true;
        self.registration.granted = Some(expires);
        self.registration.due = Some(now.tick + core.chance.part_of(expires, 75, 85).max(SHORTEST_PAUSE));
        self.ping_later(core, now);
        if self.wants_quiet(now) {
            return;
        }
        self.served(way, core, now);
        self.enter(TrunkState::Registered { expires }, core, now);
    }

    fn register_failed(
        &mut self,
        code: Option<u16>,
        why: String,
        wait: Option<Duration>,
        core: &mut Core,
        now: Now,
    ) {
        if self.registration.leaving {
            return self.left(core, now);
        }
        if code.is_none_or(|code| code == 503) && wait.is_none() && self.leaves_here(core, now) {
            return;
        }
        let pause = self.registration.pause(&mut core.chance, code.is_some());
        let pause = wait.map_or(pause, |wait| wait.clamp(pause, LONGEST_PAUSE));
        self.registration.due = Some(now.tick + pause);
        if self.registration.failures == 1 {
            let why = without_numbers(&why);
            tracing::warn!(trunk = %self.settings.name, %why, "not registered");
        }
        self.enter(TrunkState::Failed { code, why }, core, now);
    }

    fn left(&mut self, core: &mut Core, now: Now) {
        self.registration.bound = false;
        self.registration.due = None;
        self.enter(TrunkState::Stopped, core, now);
    }
}

/// `120 (I'm in a meeting);duration=3600`
pub(super) fn leading_seconds(value: &str) -> Option<Duration> {
    let digits: String = value.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().map(Duration::from_secs)
}

/// The lifetime granted (§10.2.4): of our own Contact, or of the one that bears our user name (a
/// registrar that saw us through NAT may have rewritten the rest), or of the only one; else of the
/// Expires header; else what we asked for.
fn granted(response: &Response, ours: &str, asked: Duration) -> Duration {
    let contacts: Vec<NameAddr> = response.headers.list("Contact").filter_map(NameAddr::read).collect();
    let own = NameAddr::read(ours).map(|own| own.uri);
    let place = |contact: &NameAddr| {
        own.as_ref().map(|own| (contact.uri.user == own.user, contact.uri.address() == own.address()))
    };
    let ours = contacts
        .iter()
        .find(|contact| place(contact) == Some((true, true)))
        .or_else(|| contacts.iter().find(|contact| matches!(place(contact), Some((true, _)))))
        .or(if let [only] = contacts.as_slice() { Some(only) } else { None });
    ours.and_then(|contact| contact.param("expires"))
        .or_else(|| response.headers.get("Expires"))
        .and_then(leading_seconds)
        .filter(|granted| !granted.is_zero())
        .unwrap_or(asked)
        .min(LONGEST_LIFE)
}
