//! The places of a trunk (RFC 3263 §4.3): which one is spoken to, which ones failed and may rest, and what becomes of
//! the trunk and of a call when one fails.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::{Now, Tick};

use super::call::{Call, Phase, Role};
use super::transaction::{Failed, Owner, Told};
use super::trunk::Trunk;
use super::wire::Response;
use super::words::{Cause, EndedBy, Found, TrunkState, Way};
use super::{Core, UserAgent};

/// How long a place that failed is left alone, and how often one that is better than the present one is asked whether it
/// is back.
const REST: Duration = Duration::from_secs(60);
/// The longest Retry-After that is obeyed.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// After so many calls in a row that failed for the trunk's sake it is down.
const MOST_FAILURES: u32 = 2;
/// More places than these are not kept.
const MOST_PLACES: usize = 16;

/// One place.
#[derive(Debug, Clone, Copy)]
struct Place {
    found: Found,
    /// It failed: until when it is left alone.
    rests: Option<Tick>,
}

/// The places of a trunk, in the order in which they are tried.
#[derive(Debug, Default)]
pub(crate) struct Places {
    all: Vec<Place>,
    /// The one that is spoken to.
    at: usize,
    /// How many have failed one after the other since anything worked.
    failures: usize,
    /// The one that is being asked whether it is back.
    pub asked: Option<Way>,
}

impl Places {
    pub fn new(found: &[Found]) -> Places {
        let all = found.iter().take(MOST_PLACES).map(|found| Place { found: *found, rests: None }).collect();
        Places { all, at: 0, failures: 0, asked: None }
    }

    /// The one that is spoken to.
    pub fn current(&self) -> Option<Found> {
        self.all.get(self.at).map(|place| place.found)
    }

    pub fn iter(&self) -> impl Iterator<Item = Found> {
        self.all.iter().map(|place| place.found)
    }

    /// Whether these are the same places, in whatever order.
    fn same(&self, found: &[Found]) -> bool {
        found.len() == self.all.len() && self.iter().all(|place| found.contains(&place))
    }

    /// What is nearest to that way: itself, its host by the same transport, its host, whatever is of its family.
    pub fn nearest(&self, way: Way) -> Option<Found> {
        let distance = |found: &Found| {
            let same_host = found.way.ip().to_canonical() == way.ip().to_canonical();
            match (found.way == way, same_host, found.way.transport == way.transport) {
                (true, _, _) => 0,
                (_, true, true) => 1,
                (_, true, false) => 2,
                (_, false, _) if found.way.ip().is_ipv4() == way.ip().is_ipv4() => 3,
                (_, false, _) => 4,
            }
        };
        self.iter().min_by_key(distance)
    }

    /// The one that is spoken to if the present one fails now; none if each has failed since anything worked, or rests.
    fn next(&self, now: Now) -> Option<usize> {
        let free = |(index, place): (usize, &Place)| {
            index != self.at && place.rests.is_none_or(|until| until <= now.tick)
        };
        self.all.iter().enumerate().position(free).filter(|_| self.failures + 1 < self.all.len())
    }

    /// Whether there is another one to go on at: then silence is not waited for to its end.
    pub fn has_another(&self, now: Now) -> bool {
        self.next(now).is_some()
    }

    /// That place failed. True: another one is spoken to from now on.
    fn failed(&mut self, way: Way, rest: Duration, now: Now) -> bool {
        let Some(index) = self.all.iter().position(|place| place.found.way == way) else { return false };
        if let Some(place) = self.all.get_mut(index) {
            place.rests = Some(now.tick + rest);
        }
        if index != self.at {
            return false;
        }
        let next = self.next(now);
        self.failures = self.failures.saturating_add(1);
        match next {
            Some(next) => {
                self.at = next;
                true
            }
            None => {
                // All of them failed: the next attempt, whenever it is due, is made elsewhere all the same.
                self.at = (self.at + 1) % self.all.len().max(1);
                false
            }
        }
    }

    /// That place works.
    pub fn works(&mut self, way: Way) {
        self.failures = 0;
        if let Some(place) = self.all.iter_mut().find(|place| place.found.way == way) {
            place.rests = None;
        }
    }

    /// The next place for a request that has been tried at those.
    fn untried(&self, tried: &[Way]) -> Option<Way> {
        self.iter().map(|found| found.way).find(|way| !tried.contains(way))
    }

    /// The first of the places that come before the present one, and when it may be asked whether it is back.
    fn better(&self) -> Option<(Way, Tick)> {
        let better = self.all.iter().take(self.at);
        better.map(|place| (place.found.way, place.rests.unwrap_or_default())).min_by_key(|(_, at)| *at)
    }

    /// When the next such question is due.
    pub fn due(&self) -> Option<Tick> {
        self.better().filter(|_| self.asked.is_none()).map(|(_, at)| at)
    }

    /// The place to be asked now.
    pub fn ask(&mut self, now: Now) -> Option<Way> {
        let (way, _) = self.better().filter(|(_, at)| self.asked.is_none() && *at <= now.tick)?;
        self.asked = Some(way);
        Some(way)
    }

    /// It answered, or it did not. True: it is the one that is spoken to now.
    fn told(&mut self, works: bool, now: Now) -> bool {
        let Some(way) = self.asked.take() else { return false };
        let Some(index) = self.all.iter().position(|place| place.found.way == way) else { return false };
        if let Some(place) = self.all.get_mut(index) {
            place.rests = (!works).then_some(now.tick + REST);
        }
        let back = works && index < self.at;
        if back {
            self.at = index;
        }
        back
    }
}

impl Trunk {
    /// Its name was resolved.
    pub(crate) fn moved(&mut self, found: Vec<Found>, core: &mut Core, now: Now) {
        if found.is_empty() || self.places.same(&found) {
            return;
        }
        let before = self.places.current();
        let old = std::mem::replace(&mut self.places, Places::new(&found));
        for left in old.iter().map(|found| found.way.ip().to_canonical()) {
            if self.former.len() < MOST_PLACES && !self.admits(left) {
                self.former.push(left);
            }
        }
        self.settings.found = found;
        for place in &mut self.places.all {
            let known = old.all.iter().find(|known| known.found.way == place.found.way);
            place.rests = known.and_then(|known| known.rests);
        }
        core.transactions.forget(Owner::Probe(self.index));
        let index = self.places.iter().position(|place| Some(place) == before);
        match index {
            Some(index) => self.places.at = index,
            None => self.start(core, now),
        }
    }

    /// A place did not serve. True: the trunk goes on at another one, which is spoken to at once.
    pub(crate) fn place_failed(
        &mut self,
        way: Way,
        rest: Option<Duration>,
        core: &mut Core,
        now: Now,
    ) -> bool {
        let moved = self.places.failed(way, rest.unwrap_or(REST), now);
        if moved && !self.stopped() {
            tracing::info!(trunk = %self.settings.name, from = %way, to = ?self.peer(), "the next place is tried");
            self.settle(core, now);
        }
        moved
    }

    /// Another place is spoken to: it is told who we are, or asked whether it lives.
    fn settle(&mut self, core: &mut Core, now: Now) {
        core.transactions.forget(Owner::Options(self.index));
        self.ping_sent = None;
        self.ping_due = None;
        self.answers_pings = false;
        if self.settings.register {
            self.registration.now(now);
        } else {
            self.ping_due = Some(now.tick);
        }
        self.handle_timeout(core, now);
    }

    /// A better place answered when it was asked whether it is back, or did not.
    pub(crate) fn probed(&mut self, code: Option<u16>, core: &mut Core, now: Now) {
        let works = code.is_some_and(|code| code != 503);
        if self.places.told(works, now) && !self.stopped() {
            tracing::info!(trunk = %self.settings.name, to = ?self.peer(), "back at a better place");
            self.settle(core, now);
        }
    }

    /// A connection broke, or could not be made, while nothing of ours may have been waiting there.
    pub(crate) fn broken(&mut self, way: Way, core: &mut Core, now: Now) {
        if self.peer() != Some(way) || self.stopped() || !self.state().is_up() {
            return;
        }
        if self.settings.register {
            self.registration.again(&mut core.chance, now);
        } else if self.ping_sent.is_none() {
            self.ping_due = Some(now.tick);
        }
    }

    /// A call of ours failed there, for the trunk's sake and not for anything about whom we called.
    pub(crate) fn call_failed(&mut self, way: Way, failure: &Failure, core: &mut Core, now: Now) {
        if self.stopped() {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.place_failed(way, failure.rest, core, now) {
            return;
        }
        if let Some(rest) = failure.rest {
            self.quiet = Some(now.tick + rest);
        }
        if self.failures >= MOST_FAILURES || failure.rest.is_some() {
            self.bad_for_calls = true;
            let why = if failure.rest.is_some() {
                format!("{}: it wants to be left alone", failure.why)
            } else {
                format!("{} calls in a row failed: {}", self.failures, failure.why)
            };
            self.code = failure.code;
            self.enter(TrunkState::Failed { code: failure.code, why }, core, now);
        }
        // Whoever wants to be left alone is.
        let ask = now.tick + failure.rest.unwrap_or_default();
        if self.settings.register && self.bad_for_calls && !self.answers_pings {
            self.registration.at(ask);
        }
        if self.ping_sent.is_none() {
            self.ping_due = Some(ask);
        }
        self.handle_timeout(core, now);
    }

    /// The PBX has served there.
    pub(crate) fn served(&mut self, way: Way, core: &mut Core, now: Now) {
        self.places.works(way);
        self.failures = 0;
        if std::mem::take(&mut self.bad_for_calls) {
            self.quiet = None;
            let state = match (self.settings.register, self.registration.granted()) {
                (true, Some(expires)) => TrunkState::Registered { expires },
                (true, None) => return,
                (false, _) => TrunkState::Reachable { round_trip: self.round_trip.unwrap_or_default() },
            };
            self.enter(state, core, now);
        }
    }

    /// Whether it asked to be left alone and that time is not over.
    pub(crate) fn wants_quiet(&mut self, now: Now) -> bool {
        if self.quiet.is_some_and(|until| until <= now.tick) {
            self.quiet = None;
        }
        self.quiet.is_some()
    }
}

/// What a failed call says about its trunk.
#[derive(Debug)]
pub(crate) struct Failure {
    pub code: Option<u16>,
    pub why: String,
    /// How long we are asked to stay away.
    pub rest: Option<Duration>,
}

impl Call {
    /// Our INVITE, as long as nobody has answered it for good and nobody has given it up.
    fn calling(&self) -> Option<(Way, &[Way])> {
        match (&self.phase, &self.role) {
            (Phase::Calling { .. }, Role::Caller(caller)) => Some((caller.peer, &caller.tried)),
            _ => None,
        }
    }

    /// The INVITE goes to another place.
    fn try_at(&mut self, way: Way, trunk: &Trunk, core: &mut Core, now: Now) {
        let Role::Caller(caller) = &mut self.role else { return };
        caller.peer = way;
        self.phase = Phase::Calling { heard: false };
        self.invite(trunk, core, now);
    }

    /// Whether the PBX speaks from there in this call.
    pub(crate) fn is_with(&self, address: IpAddr) -> bool {
        let ours = match &self.role {
            Role::Caller(caller) => Some(caller.peer),
            Role::Called(_) => None,
        };
        let seen = self.dialog.as_ref().map(|dialog| dialog.seen);
        ours.into_iter().chain(seen).any(|way| way.ip().to_canonical() == address)
    }

    /// The connection that the call's messages came by is gone: the next one goes to the trunk's own place.
    pub(crate) fn cut_off(&mut self, way: Way, trunk: &Trunk) {
        let known = trunk.places.nearest(way).map(|found| found.way);
        let known = known.filter(|known| known.transport == way.transport && known.ip() == way.ip());
        let Some(known) = known.filter(|_| way.transport.is_reliable()) else { return };
        if let Some(dialog) = self.dialog.as_mut().filter(|dialog| dialog.seen == way) {
            dialog.seen = known;
        }
        if let Some(answer) = self.unacknowledged.as_mut() {
            answer.cut_off(way, known);
        }
        self.early_cut_off(way, known);
    }
}

impl UserAgent {
    /// What an answer to an INVITE says about its trunk. True: the call goes on at another place, and the answer is done
    /// with.
    pub(crate) fn weigh_answer(&mut self, number: u64, response: &Response, now: Now) -> bool {
        let Some(call) = self.calls.get_mut(&number) else { return false };
        let Some(trunk) = self.trunks.get_mut(call.trunk) else { return false };
        let Some((way, tried)) = call.calling() else { return false };
        let next = trunk.places.untried(tried);
        match response.code {
            // It has arrived, but whether it will be served nobody knows.
            ..=100 => false,
            503 => {
                let wait = response.headers.get("Retry-After").and_then(super::register::leading_seconds);
                let rest = wait.filter(|wait| !wait.is_zero()).map(|wait| wait.min(LONGEST_REST));
                let failure = Failure { code: Some(503), why: response.text(), rest };
                trunk.call_failed(way, &failure, &mut self.core, now);
                self.elsewhere(number, next, now)
            }
            _ => {
                trunk.served(way, &mut self.core, now);
                false
            }
        }
    }

    /// The call goes on at that place, if there is one.
    fn elsewhere(&mut self, number: u64, next: Option<Way>, now: Now) -> bool {
        let Some(next) = next else { return false };
        let Some((call, trunk)) = super::party(&mut self.calls, &self.trunks, number) else { return false };
        tracing::info!(trunk = %trunk.settings.name, to = %next, "the call goes on at another place");
        call.try_at(next, trunk, &mut self.core, now);
        true
    }

    /// What it says about trunks that requests of ours failed on their way. Gives what is left to be told to whoever sent
    /// them.
    pub(crate) fn weigh(&mut self, told: Vec<Told>, now: Now) -> Vec<Told> {
        let mut failed = self.core.transactions.failed();
        self.forget_tcp(now);
        told.into_iter()
            .filter(|told| match told {
                Told::TimedOut(owner) => {
                    let Some(failed) = failed.pop_front() else { return true };
                    self.weigh_failure(*owner, failed, now)
                }
                Told::Impatient(owner) => {
                    failed.pop_front();
                    self.impatient(*owner, now);
                    false
                }
                Told::Gone(_) => true,
            })
            .collect()
    }

    /// False: nobody needs to be told.
    fn weigh_failure(&mut self, owner: Owner, failed: Failed, now: Now) -> bool {
        let Owner::Invite(number) = owner else { return true };
        let Some(call) = self.calls.get_mut(&number) else { return true };
        let Some(trunk) = self.trunks.get_mut(call.trunk) else { return true };
        let Some((way, tried)) = call.calling() else { return true };
        let heard = call.phase == (Phase::Calling { heard: true });
        let next = trunk.places.untried(tried).filter(|_| failed.broken && !heard);
        let why = if failed.broken { "no connection to the PBX" } else { "no answer to INVITE" };
        call.lost = true;
        let failure = Failure { code: None, why: why.to_owned(), rest: None };
        trunk.call_failed(way, &failure, &mut self.core, now);
        if self.elsewhere(number, next, now) {
            if let Some(call) = self.calls.get_mut(&number) {
                call.lost = false;
            }
            return false;
        }
        if failed.broken
            && let Some(call) = self.calls.get_mut(&number)
        {
            call.over(now);
            let text = if heard { "the connection to the PBX broke" } else { why };
            call.end(EndedBy::Transport, None, None, text.to_owned(), &mut self.core);
        }
        true
    }

    /// An INVITE has gone without any answer for as long as its caller was willing to wait, OPTIONS while a telephone
    /// rings, or either of OPTIONS and REGISTER while another place has not been tried.
    fn impatient(&mut self, owner: Owner, now: Now) {
        if let Owner::Options(index) | Owner::Register(index) = owner {
            self.core.transactions.forget(owner);
            if let Some(trunk) = self.trunks.get_mut(index) {
                if owner == Owner::Register(index) {
                    trunk.register_lost(&mut self.core, now);
                } else {
                    trunk.ping_lost(&mut self.core, now);
                }
            }
        }
        let Owner::Invite(number) = owner else { return };
        let Some(call) = self.calls.get_mut(&number) else { return };
        let Some(trunk) = self.trunks.get_mut(call.trunk) else { return };
        let Some((way, _)) = call.calling() else { return };
        call.lost = true;
        call.leave(Cause { code: Some(408), text: "Request Timeout" }, trunk, &mut self.core, now);
        call.end(EndedBy::Timeout, None, None, "no answer from the PBX in time".to_owned(), &mut self.core);
        let failure = Failure { code: None, why: "no answer to INVITE".to_owned(), rest: None };
        trunk.call_failed(way, &failure, &mut self.core, now);
    }

    /// Trunks at addresses where there is no TCP do without it for a while.
    fn forget_tcp(&mut self, now: Now) {
        for address in self.core.transactions.without_tcp() {
            for trunk in self.trunks.iter_mut() {
                if trunk.places.iter().any(|found| found.way == Way::udp(address)) {
                    tracing::info!(trunk = %trunk.settings.name, "no TCP there: long requests go by UDP");
                    trunk.do_without_tcp(now);
                }
            }
        }
    }
}
