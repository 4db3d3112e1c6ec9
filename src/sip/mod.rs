//! The PBX: a small SIP user agent (RFC 3261) without a socket.
//!
//! It is told datagrams, orders and the time, and says what to send and what happened:
//! [`receive`](UserAgent::receive), [`dial`](UserAgent::dial), [`hang_up`](UserAgent::hang_up),
//! [`handle_timeout`](UserAgent::handle_timeout); then [`poll`](UserAgent::poll) until it says `None`.
//!
//! | file | what |
//! |---|---|
//! | `wire`, `header` | bytes <-> message (the door of rsip); the values of headers |
//! | `transaction` | the four machines of §17 |
//! | `call`, `dialog` | a call, whoever began it; tags, numbers, routes |
//! | `invite`, `take`, `modify` | begun by us; begun by the PBX; changed by it |
//! | `change`, `timer` | changed by us; kept alive (RFC 4028) |
//! | `reliable`, `redirect` | provisional answers that do not get lost; 3xx followed |
//! | `refer`, `digits` | transfers; digits by INFO |
//! | `identity`, `reason` | who calls, by whom diverted, and who must not know; why it ended |
//! | `serve` | what else the PBX asks of us |
//! | `trunk`, `trunks`, `register`, `auth` | a PBX: alive, registered, believed |
//! | `place`, `guard`, `challenge` | where it is; who is heard, how often; whoever calls proves who he is |
//! | `sdp` | what the two say about sound |
//! | `words`, `chance` | the vocabulary; tags out of a seed |
//!
//! A law for the caller: every successful [`dial`](UserAgent::dial) and every [`Event::Invited`] ends in
//! exactly one [`Event::Ended`]. [`hang_up`](UserAgent::hang_up) and [`refuse`](UserAgent::refuse) tell it
//! at once; CANCEL, BYE and their repeats go on behind it.

mod auth;
mod call;
mod challenge;
mod chance;
mod change;
mod dialog;
mod digits;
mod guard;
mod header;
mod identity;
mod invite;
pub mod locate;
mod modify;
mod place;
mod reason;
mod redirect;
mod refer;
mod register;
mod reliable;
pub mod sdp;
mod serve;
pub mod stream;
mod take;
mod timer;
mod transaction;
mod trunk;
mod trunks;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::clock::{Now, Tick};

use call::Call;
use challenge::Challenger;
use chance::Chance;
use guard::Guard;
use transaction::{Out, Owner, Told, Transactions};
use trunk::Trunk;
use trunks::Trunks;
use wire::Read;

pub use words::{
    Cause, Cidr, CidrError, Counters, Dial, DialError, EndedBy, Ending, Event, Found, Invite, LegId, Output,
    Refer, Refusal, Settings, Transport, TrunkSettings, TrunkState, TrunkView, Way,
};

/// The methods we take.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, NOTIFY, PRACK, REFER";

/// The extensions we know: RFC 4028, RFC 3262, RFC 3891, RFC 4488.
const SUPPORTED: &str = "timer, 100rel, replaces, norefersub";

/// What every part of the room needs: settings, chance, transactions, the way out.
#[derive(Debug)]
pub(crate) struct Core {
    settings: Settings,
    chance: Chance,
    challenger: Challenger,
    transactions: Transactions,
    out: Out,
}

impl Core {
    fn tell(&mut self, event: Event) {
        self.out.queue.push_back(Output::Event(event));
    }
}

/// The user agent.
#[derive(Debug)]
pub struct UserAgent {
    core: Core,
    guard: Guard,
    trunks: Trunks,
    calls: BTreeMap<u64, Call>,
    numbered: u64,
}

impl UserAgent {
    /// A user agent without a trunk.
    pub fn new(settings: Settings) -> UserAgent {
        let chance = Chance::new(settings.seed);
        let transactions = Transactions::new(settings.max_dialogs.saturating_mul(4).saturating_add(64));
        let (guard, challenger) = (Guard::new(settings.max_per_second), Challenger::new(settings.seed));
        let core = Core { settings, chance, challenger, transactions, out: Out::default() };
        UserAgent { core, guard, trunks: Trunks::default(), calls: BTreeMap::new(), numbered: 0 }
    }

    /// A connection could not be made, or broke: what waits for an answer by that way need not wait any longer
    /// (RFC 3261 §18.4).
    pub fn unreachable(&mut self, way: Way, why: &str, now: Now) {
        tracing::debug!(%way, why, "not reachable");
        for trunk in self.trunks.iter_mut().filter(|trunk| trunk.peer() == Some(way)) {
            trunk.unreached = Some(why.to_owned());
        }
        self.core.transactions.unreachable(way, now, &mut self.core.out);
        for call in self.calls.values_mut() {
            if let Some(trunk) = self.trunks.get(call.trunk) {
                call.cut_off(way, trunk);
            }
        }
        for trunk in self.trunks.iter_mut() {
            trunk.broken(way, &mut self.core, now);
        }
        self.handle_timeout(now);
    }

    /// A message came in.
    pub fn receive(&mut self, datagram: &[u8], from: Way, now: Now) {
        self.core.out.counters.received += 1;
        if !self.trunks.iter().any(|trunk| trunk.admits(from.ip())) {
            self.core.out.counters.dropped_foreign += 1;
            tracing::trace!(%from, "dropped: belongs to no trunk");
            return;
        }
        let too_much = !self.guard.passes(from.ip(), now.tick);
        let read = (!too_much || from.transport.is_reliable()).then(|| wire::read(datagram));
        let Some(read) = read.filter(|read| !too_much || self.comes_once(read)) else {
            self.core.out.counters.dropped_rate += 1;
            tracing::trace!(%from, "dropped: too much");
            return;
        };
        match read {
            Read::NotSip => self.core.out.counters.not_sip += 1,
            Read::Bad(bad) => self.bad(bad, from),
            Read::Request(request) => {
                tracing::trace!(%from, method = %request.method, "request");
                self.request(&request, from, now);
            }
            Read::Response(response) => {
                tracing::trace!(%from, code = response.code, method = %response.method, "answer");
                self.response(&response, from, now);
                self.watch(now);
            }
        }
    }

    /// What nobody sends again over a reliable transport (RFC 3261 §17.1.2.2), and a call of ours would miss.
    fn comes_once(&self, read: &Read) -> bool {
        match read {
            Read::Response(_) => true,
            Read::Request(request) => {
                ["ACK", "BYE", "CANCEL"].contains(&request.method.as_str())
                    && self.calls.values().any(|call| call.call_id() == request.call_id)
            }
            Read::NotSip | Read::Bad(_) => false,
        }
    }

    fn response(&mut self, response: &wire::Response, from: Way, now: Now) {
        let core = &mut self.core;
        let Some(owner) = core.transactions.response(response, now, &mut core.out) else { return };
        match owner {
            Owner::Register(index) => {
                if let Some(trunk) = self.trunks.get_mut(index) {
                    trunk.learn(response);
                    trunk.registered(response, core, now);
                }
            }
            Owner::Options(index) => {
                if let Some(trunk) = self.trunks.get_mut(index) {
                    trunk.learn(response);
                    trunk.pinged(response, core, now);
                }
            }
            Owner::Probe(index) => {
                if let Some(trunk) = self.trunks.get_mut(index).filter(|_| response.code >= 200) {
                    trunk.probed(Some(response.code), core, now);
                }
            }
            Owner::Invite(number) => {
                if self.weigh_answer(number, response, now) {
                    return;
                }
                let core = &mut self.core;
                if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                    call.answered(response, from, trunk, core, now);
                }
            }
            Owner::Bye(number) => {
                if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                    call.bye_answered(response, trunk, core, now);
                }
            }
            Owner::Change(number) => {
                if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                    call.change_answered(response, from, trunk, core, now);
                }
            }
            Owner::Info(number) => {
                if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                    call.digit_answered(Some(response), trunk, core, now);
                }
            }
            Owner::Notify(number) => {
                if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                    call.notify_answered(response, trunk, core, now);
                }
            }
            Owner::Prack(number) => {
                if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                    call.prack_answered(response, trunk, core, now);
                }
            }
            Owner::Cancel(_) | Owner::StrayBye(_) => {}
        }
    }

    /// Calls somebody behind the PBX. The INVITE goes to the trunk's address, whatever host its request
    /// URI names.
    pub fn dial(&mut self, leg: LegId, dial: Dial, now: Now) -> Result<(), DialError> {
        self.sweep();
        let trunk = self.trunks.named(&dial.trunk).ok_or(DialError::UnknownTrunk)?;
        let down = DialError::TrunkDown { code: trunk.code };
        let peer = trunk.peer().filter(|_| trunk.state().is_up() && !trunk.stopped()).ok_or(down)?;
        if self.calls.values().any(|call| call.live() && call.leg == leg) {
            return Err(DialError::LegInUse);
        }
        if full(&self.calls, &mut self.core) {
            return Err(DialError::Full);
        }
        self.numbered += 1;
        let call = Call::dialled(self.numbered, leg, dial, trunk, peer, &mut self.core, now);
        self.calls.insert(self.numbered, call);
        Ok(())
    }

    /// Ends a call: CANCEL, a refusal (the cause's status or 480), BYE or nothing, whatever fits. [`Event::Ended`] follows at once, unless it
    /// was told before.
    pub fn hang_up(&mut self, leg: LegId, cause: Cause, now: Now) {
        if let Some((call, trunk, core)) = self.live(leg) {
            call.hang_up(cause, trunk, core, now);
        }
    }

    /// The called party's telephone rings: 180, and again every minute while the call is not answered
    /// (§13.3.1.1). Harmless if it comes too late.
    pub fn ring(&mut self, leg: LegId, now: Now) {
        if let Some((call, trunk, core)) = self.live(leg) {
            call.ring(trunk, core, now);
        }
    }

    /// The called party answers: 200 with our answer to the PBX's offer, made from our own offer `sdp`, or
    /// if the PBX made none, with `sdp` itself. Repeated until the ACK comes; then [`Event::Answered`] is
    /// told. An offer that cannot be answered is refused with 488 (see [`sdp::reply`]).
    pub fn answer(&mut self, leg: LegId, sdp: String, now: Now) {
        if let Some((call, trunk, core)) = self.live(leg) {
            call.answer(sdp, trunk, core, now);
        }
    }

    /// The Call-ID of the call of that leg, if there is one whose end is still to come.
    pub fn call_id(&self, leg: LegId) -> Option<&str> {
        self.calls.values().find(|call| call.live() && call.leg == leg).map(Call::call_id)
    }

    /// A call from the PBX is not taken. [`Event::Ended`] follows at once, unless it was told before.
    /// If it is too late for that, it is hung up with the refusal's status as the reason.
    pub fn refuse(&mut self, leg: LegId, refusal: Refusal, now: Now) {
        if let Some((call, trunk, core)) = self.live(leg) {
            call.refuse(refusal, trunk, core, now);
        }
    }

    /// Nothing is heard from the PBX of that leg, though it should be: it may be dead, and is asked by OPTIONS.
    pub fn doubt(&mut self, leg: LegId, now: Now) {
        let call = self.calls.values().find(|call| call.live() && call.leg == leg);
        if let Some(trunk) = call.and_then(|call| self.trunks.get_mut(call.trunk)) {
            trunk.doubt(&mut self.core, now);
        }
    }

    /// Sends a digit by INFO (application/dtmf-relay), for a trunk that takes them so: `0`–`9`, `*`, `#`, `A`–`D`, pressed for
    /// `millis` milliseconds. Digits wait for one another and keep their order. In a call that does not stand, and beyond 64 that
    /// wait, a digit is dropped.
    pub fn send_digit(&mut self, leg: LegId, digit: char, millis: u32, now: Now) {
        if let Some((call, trunk, core)) = self.live(leg) {
            call.send_digit(digit, millis, trunk, core, now);
        }
    }

    /// How the transfer goes that [`Event::Referred`] asked for: the status of the call to its target. Below 200 it goes on; 200 and
    /// above is the end of it. Harmless if there is no transfer.
    pub fn refer_told(&mut self, leg: LegId, code: u16, now: Now) {
        if let Some((call, trunk, core)) = self.live(leg) {
            call.refer_told(code, trunk, core, now);
        }
    }

    /// Leaves: unregisters everywhere and takes no more calls. Running calls are not touched.
    pub fn shutdown(&mut self, now: Now) {
        for trunk in self.trunks.iter_mut().filter(|trunk| !trunk.stopped()) {
            trunk.stop(&mut self.core, now);
        }
    }

    /// Trunks with calls that ring, and that another trunk could carry, are watched.
    fn watch(&mut self, now: Now) {
        for trunk in self.trunks.iter_mut() {
            let watched =
                self.calls.values().any(|call| call.trunk == trunk.index && call.could_ring_elsewhere());
            trunk.watch(watched, &mut self.core, now);
        }
    }

    /// The time of [`poll_timeout`](UserAgent::poll_timeout) has come. Earlier or later calls do no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        let core = &mut self.core;
        let told = core.transactions.handle_timeout(now, &mut core.out);
        let told = self.weigh(told, now);
        let core = &mut self.core;
        for told in told {
            match told {
                Told::Gone(_) | Told::Impatient(_) => {}
                Told::TimedOut(Owner::Probe(index)) => {
                    if let Some(trunk) = self.trunks.get_mut(index) {
                        trunk.probed(None, core, now);
                    }
                }
                Told::TimedOut(Owner::Register(index)) => {
                    if let Some(trunk) = self.trunks.get_mut(index) {
                        trunk.register_lost(core, now);
                    }
                }
                Told::TimedOut(Owner::Options(index)) => {
                    if let Some(trunk) = self.trunks.get_mut(index) {
                        trunk.ping_lost(core, now);
                    }
                }
                Told::TimedOut(Owner::Invite(number)) => {
                    if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                        call.lost(trunk, core, now);
                    }
                }
                Told::TimedOut(Owner::Change(number)) => {
                    if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                        call.change_lost(trunk, core, now);
                    }
                }
                Told::TimedOut(Owner::Info(number)) => {
                    if let Some((call, trunk)) = party(&mut self.calls, &self.trunks, number) {
                        call.digit_answered(None, trunk, core, now);
                    }
                }
                Told::TimedOut(Owner::Notify(number)) => {
                    if let Some(call) = self.calls.get_mut(&number) {
                        call.notify_lost();
                    }
                }
                Told::TimedOut(Owner::Cancel(_) | Owner::Bye(_) | Owner::StrayBye(_) | Owner::Prack(_)) => {}
            }
        }
        self.watch(now);
        let core = &mut self.core;
        for trunk in self.trunks.iter_mut() {
            trunk.handle_timeout(core, now);
        }
        for call in self.calls.values_mut() {
            if let Some(trunk) = self.trunks.get(call.trunk) {
                call.handle_timeout(trunk, core, now);
            }
        }
        self.sweep();
    }

    /// The call of that leg whose end is still to come.
    fn live(&mut self, leg: LegId) -> Option<(&mut Call, &Trunk, &mut Core)> {
        let call = self.calls.values_mut().find(|call| call.live() && call.leg == leg)?;
        let trunk = self.trunks.get(call.trunk)?;
        Some((call, trunk, &mut self.core))
    }

    /// Forgets calls that are over and whose transactions have run out.
    fn sweep(&mut self) {
        self.calls.retain(|_, call| call.needed(&self.core.transactions));
        self.sweep_trunks();
    }

    /// When to call [`handle_timeout`](UserAgent::handle_timeout), if ever.
    pub fn poll_timeout(&self) -> Option<Tick> {
        let trunks = self.trunks.iter().filter_map(Trunk::next);
        let calls = self.calls.values().filter_map(Call::next);
        trunks.chain(calls).chain(self.core.transactions.next()).min()
    }

    /// What to do next; `None` when everything has been said.
    pub fn poll(&mut self) -> Option<Output> {
        self.core.out.queue.pop_front()
    }

    /// How much is kept now: calls, requests of ours, requests of the PBXs'. All three have an upper bound.
    pub fn held(&self) -> [usize; 3] {
        let (ours, theirs) = self.core.transactions.sizes();
        [self.calls.len(), ours, theirs]
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        self.core.out.counters
    }
}

/// Whether as many calls exist as may. Calls that are over stay until their transactions have run out, so
/// these are capped too.
fn full(calls: &BTreeMap<u64, Call>, core: &mut Core) -> bool {
    let most = core.settings.max_dialogs;
    let live = calls.values().filter(|call| call.live()).count();
    let full = live >= most || calls.len() >= most.saturating_mul(4);
    core.out.counters.refused_full += u64::from(full);
    full
}

fn party<'a>(
    calls: &'a mut BTreeMap<u64, Call>,
    trunks: &'a Trunks,
    number: u64,
) -> Option<(&'a mut Call, &'a Trunk)> {
    let call = calls.get_mut(&number)?;
    let trunk = trunks.get(call.trunk)?;
    Some((call, trunk))
}
