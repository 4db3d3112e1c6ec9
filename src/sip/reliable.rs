//! Provisional answers that do not get lost (RFC 3262): the PBX's acknowledged by PRACK, ours sent again until theirs comes; and
//! the early dialogs in which that happens.

use std::time::Duration;

use crate::clock::{Now, Tick};

use super::Core;
use super::call::{Asking, Call, Phase, Role, ask_in};
use super::dialog::Dialog;
use super::serve::{Asked, warning};
use super::transaction::{Owner, PATIENCE, T1, way_back};
use super::trunk::Trunk;
use super::wire::{Request, Response};
use super::words::{EndedBy, Way};

/// An early dialog of our INVITE.
#[derive(Debug)]
pub(crate) struct Fork {
    pub dialog: Dialog,
    /// The number of the last reliable answer that was acknowledged.
    rseq: Option<u32>,
    /// The value of our last RAck.
    rack: String,
    /// Our offer has been answered in this dialog, for good (§5).
    pub agreed: Option<Vec<u8>>,
    /// The session was changed afterwards by UPDATE.
    pub changed: bool,
}

impl Fork {
    pub fn new(dialog: Dialog) -> Fork {
        Fork { dialog, rseq: None, rack: String::new(), agreed: None, changed: false }
    }
}

/// What is to be done with a provisional answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It says something, and nobody waits for an acknowledgement.
    Plain,
    /// It says something and wants this number acknowledged.
    Reliable(u32),
    /// It came before, or before its turn: it is not looked at (§4).
    OutOfTurn,
}

impl Fork {
    /// Whether it is this answer's turn.
    pub fn hear(&self, response: &Response) -> Heard {
        let reliable = response.headers.list("Require").any(|tag| tag.eq_ignore_ascii_case("100rel"));
        let rseq = response.headers.get("RSeq").and_then(|rseq| rseq.trim().parse::<u32>().ok());
        match (rseq.filter(|_| reliable), self.rseq) {
            (None, _) => Heard::Plain,
            (Some(rseq), None) => Heard::Reliable(rseq),
            (Some(rseq), Some(last)) if last.checked_add(1) == Some(rseq) => Heard::Reliable(rseq),
            (Some(_), Some(_)) => Heard::OutOfTurn,
        }
    }
}

impl Call {
    /// PRACK for a reliable answer in the early dialog with that tag. Our offer was in the INVITE, so a description in the
    /// answer is the PBX's answer.
    pub(crate) fn acknowledge_provisional(
        &mut self,
        response: &Response,
        rseq: u32,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
    ) {
        let Role::Caller(caller) = &mut self.role else { return };
        let Some(fork) = caller.fork(response.to.tag().unwrap_or_default()) else { return };
        fork.rseq = Some(rseq);
        fork.rack = format!("{rseq} {} INVITE", response.cseq);
        if fork.agreed.is_none() {
            fork.agreed = response.sdp();
        }
        self.prack(response.to.tag().unwrap_or_default(), trunk, core, now);
    }

    fn prack(&mut self, tag: &str, trunk: &Trunk, core: &mut Core, now: Now) {
        let who = self.credentials.as_ref().or(trunk.credentials.as_ref());
        let Role::Caller(caller) = &mut self.role else { return };
        let Some(Fork { dialog, rack, .. }) = caller.fork(tag) else { return };
        let rack = rack.clone();
        let owner = Owner::Prack(self.number);
        let asking =
            Asking { method: "PRACK", owner, contact: false, headers: vec![("RAck", rack)], body: None };
        ask_in(dialog, (&mut self.digest, who), asking, trunk, core, now);
    }

    /// An answer to our PRACK: only a challenge needs anything more.
    pub(crate) fn prack_answered(&mut self, response: &Response, trunk: &Trunk, core: &mut Core, now: Now) {
        let early = matches!(self.phase, Phase::Calling { .. });
        if early && self.challenged(response, trunk) {
            self.prack(response.to.tag().unwrap_or_default(), trunk, core, now);
        }
    }

    /// UPDATE in an early dialog of our INVITE (RFC 3311 §5.2): it may move the target, and once our offer has been answered
    /// reliably it may change the session.
    pub(crate) fn updated_early(&mut self, asked: &Asked<'_>, trunk: &Trunk, core: &mut Core, now: Now) {
        let request = asked.request;
        let offers = !request.body.is_empty();
        let Role::Caller(caller) = &mut self.role else { return };
        let fork = caller.fork(request.from.tag().unwrap_or_default());
        let agreed = fork.as_ref().is_some_and(|fork| fork.agreed.is_some());
        if offers && !agreed {
            return asked.reply(491, core, now, |_| {});
        }
        if let Some(fork) = fork {
            if !fork.dialog.in_order(request) {
                return asked.reply(500, core, now, |draft| draft.push("Retry-After", "2"));
            }
            fork.dialog.refresh_target(&request.headers);
        }
        if !offers {
            return asked.reply(200, core, now, |draft| draft.push("Contact", trunk.contact(asked.from)));
        }
        let Some(theirs) = self.agree(asked, trunk, core, now) else { return };
        let Role::Caller(caller) = &mut self.role else { return };
        if let Some(fork) = caller.fork(request.from.tag().unwrap_or_default()) {
            fork.agreed = Some(theirs.clone());
            fork.changed = true;
        }
        caller.heard_early(183, Some(theirs), self.leg, core);
    }
}

impl Call {
    /// The connection by which early dialogs are spoken in is gone.
    pub(crate) fn early_cut_off(&mut self, gone: Way, instead: Way) {
        match &mut self.role {
            Role::Caller(caller) => {
                for fork in caller.forks.iter_mut().filter(|fork| fork.dialog.seen == gone) {
                    fork.dialog.seen = instead;
                }
            }
            Role::Called(called) => {
                if let Some(reliable) = called.reliable.as_mut().filter(|reliable| reliable.to == gone) {
                    reliable.to = instead;
                }
            }
        }
    }
}

/// Our reliable 180, until its PRACK comes.
#[derive(Debug)]
pub(crate) struct Reliable {
    rseq: u32,
    to: Way,
    bytes: Vec<u8>,
    pause: Duration,
    /// When it goes out again, and when nobody waits any longer; `None` once it has been acknowledged or overtaken.
    repeat: Option<(Tick, Tick)>,
    acknowledged: bool,
}

impl Reliable {
    pub fn new(rseq: u32, invite: &Request, from: Way, bytes: Vec<u8>, now: Now) -> Reliable {
        let repeat = Some((now.tick + T1, now.tick + PATIENCE));
        Reliable { rseq, to: way_back(invite, from), bytes, pause: T1, repeat, acknowledged: false }
    }

    pub fn rseq(&self) -> u32 {
        self.rseq
    }

    /// The final answer is out: nothing is sent again, but a PRACK is still welcome.
    pub fn overtaken(&mut self) {
        self.repeat = None;
    }

    pub fn next(&self) -> Option<Tick> {
        self.repeat.map(|(again, give_up)| again.min(give_up))
    }
}

/// Whether an INVITE insists on reliable provisional answers.
pub(crate) fn insists(invite: &Request) -> bool {
    invite.headers.list("Require").any(|tag| tag.eq_ignore_ascii_case("100rel"))
}

impl Call {
    /// PRACK of the PBX.
    pub(crate) fn acknowledged_provisional(&mut self, asked: &Asked<'_>, core: &mut Core, now: Now) {
        let request = asked.request;
        let Some((rseq, cseq, method)) = request.headers.get("RAck").and_then(rack) else {
            return asked.reply(400, core, now, |draft| {
                draft.push("Warning", warning("RAck is missing or malformed"));
            });
        };
        let Role::Called(called) = &mut self.role else { return asked.reply(481, core, now, |_| {}) };
        let ours = called.cseq() == cseq && method == "INVITE";
        let waits = |reliable: &&mut Reliable| ours && reliable.rseq == rseq && !reliable.acknowledged;
        let Some(reliable) = called.reliable.as_mut().filter(waits) else {
            return asked.reply(481, core, now, |_| {});
        };
        // Our 180 brought no description, so there is nothing yet that a new offer could follow (§5).
        if !request.body.is_empty() {
            return asked.reply(488, core, now, |draft| {
                draft.push("Warning", warning("an offer before the first one was answered"));
            });
        }
        reliable.acknowledged = true;
        reliable.repeat = None;
        if let Some(dialog) = self.dialog.as_mut() {
            dialog.in_order(request);
        }
        asked.reply(200, core, now, |_| {});
    }

    /// Sends our reliable 180 again, ever less often; gives the call up if its PRACK never comes (§3).
    pub(crate) fn repeat_reliable(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Role::Called(called) = &mut self.role else { return };
        let Some(reliable) = called.reliable.as_mut() else { return };
        let Some((again, give_up)) = reliable.repeat else { return };
        if give_up <= now.tick {
            reliable.repeat = None;
            core.out.counters.timeouts += 1;
            let text = "the PBX never acknowledged that it rings here (PRACK)";
            self.reject(504, trunk, core, now, |draft| draft.push("Warning", warning(text)));
            return self.end(EndedBy::Timeout, Some(504), None, text.to_owned(), core);
        }
        if again <= now.tick {
            reliable.pause *= 2;
            reliable.repeat = Some((now.tick + reliable.pause, give_up));
            core.out.counters.retransmissions += 1;
            core.out.send(reliable.to, reliable.bytes.clone());
        }
    }
}

/// `776656 1 INVITE`
fn rack(value: &str) -> Option<(u32, u32, &str)> {
    let mut words = value.split_whitespace();
    let read = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    words.next().is_none().then_some(read)
}
