//! A call, whoever began it: its phase, its hanging up, its end.
//!
//! ```text
//! we call                                    the PBX calls
//! Calling -- 2xx ----------> Talking         Called -- our 200 --> Answering -- ACK --> Talking
//!   | hang_up                                  | hang_up, refuse     | hang_up
//! Cancelling -- 4xx-6xx ---> Over            Over                  Answering, leaving -- ACK --> BYE, Over
//! ```
//! [`invite`](super::invite) is the left side, [`take`](super::take) the right one. From Talking on both
//! are the same.

use crate::clock::{Now, Tick};

use super::Core;
use super::auth::{Ask, By, Credentials, Digest};
use super::dialog::{Addressed, Dialog};
use super::header::{clean, parameter, quoted, split_outside_quotes};
use super::invite::Caller;
use super::modify::Unacknowledged;
use super::take::Called;
use super::transaction::{Owner, PATIENCE, Transactions};
use super::trunk::Trunk;
use super::wire::{Draft, Headers, Request, Response};
use super::words::{Cause, EndedBy, Ending, Event, LegId, Output};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// We call, no final answer yet; `heard`: a provisional one came.
    Calling {
        heard: bool,
    },
    /// We call and gave up; `sent`: the CANCEL is out.
    Cancelling {
        sent: bool,
    },
    /// We are called and have not answered.
    Called,
    /// Our 200 is out, its ACK is not here; `leaving`: BYE comes after it (§15).
    Answering {
        leaving: bool,
    },
    Talking,
    /// Nothing left but transactions that run out.
    Over,
}

/// Who began, and what only matters until the call stands.
#[derive(Debug)]
pub(crate) enum Role {
    Caller(Box<Caller>),
    Called(Box<Called>),
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub number: u64,
    pub leg: LegId,
    /// The index of its trunk.
    pub trunk: usize,
    /// Ended has not been told yet.
    live: bool,
    /// Answered has been told.
    answered: bool,
    /// The PBX was not reached.
    pub lost: bool,
    pub phase: Phase,
    pub role: Role,
    /// Credentials of this call alone.
    pub credentials: Option<Credentials>,
    pub digest: Digest,
    pub cause: Cause,
    pub deadline: Option<Tick>,
    /// There from the 2xx on, or if the PBX calls, from the INVITE on.
    pub dialog: Option<Dialog>,
    /// Our first description: every later one is made from it.
    pub first_sdp: String,
    /// Our present description, and the PBX's.
    pub local_sdp: String,
    pub remote_sdp: Vec<u8>,
    pub sdp_version: u64,
    /// Our 2xx to an INVITE, until its ACK comes.
    pub unacknowledged: Option<Unacknowledged>,
}

impl Call {
    /// A call about which nothing is known but who is who.
    pub fn new(number: u64, leg: LegId, trunk: usize, phase: Phase, role: Role) -> Call {
        Call {
            number,
            leg,
            trunk,
            live: true,
            answered: false,
            lost: false,
            phase,
            role,
            credentials: None,
            digest: Digest::default(),
            cause: Cause::default(),
            deadline: None,
            dialog: None,
            first_sdp: String::new(),
            local_sdp: String::new(),
            remote_sdp: Vec::new(),
            sdp_version: 0,
            unacknowledged: None,
        }
    }

    /// Whether Ended is still to come.
    pub fn live(&self) -> bool {
        self.live
    }

    pub fn talking(&self) -> bool {
        self.phase == Phase::Talking
    }

    /// Whether it may not be forgotten yet: its end has not been told, a 200 has no ACK, or a transaction
    /// of ours still works for it.
    pub fn needed(&self, transactions: &Transactions) -> bool {
        self.live || self.unacknowledged.is_some() || transactions.works_for(self.number)
    }

    /// The call stands.
    pub fn stands(&mut self, theirs: Vec<u8>, core: &mut Core) {
        self.phase = Phase::Talking;
        self.deadline = None;
        self.answered = true;
        self.remote_sdp.clone_from(&theirs);
        core.tell(Event::Answered { leg: self.leg, sdp: theirs });
    }

    /// We hang up. The leg's end is told at once; the rest happens on the wire.
    pub fn hang_up(&mut self, cause: Cause, trunk: &Trunk, core: &mut Core, now: Now) {
        self.leave(cause, trunk, core, now);
        let text = if cause.text.is_empty() { "hung up".to_owned() } else { cause.text.to_owned() };
        self.end(EndedBy::Us, None, None, text, core);
    }

    /// CANCEL, a refusal, BYE, or nothing: whatever fits.
    pub fn leave(&mut self, cause: Cause, trunk: &Trunk, core: &mut Core, now: Now) {
        self.cause = cause;
        match self.phase {
            Phase::Calling { heard: true } => self.cancel(trunk, core, now),
            Phase::Calling { heard: false } => {
                self.phase = Phase::Cancelling { sent: false };
                self.deadline = None;
            }
            Phase::Called => self.decline(cause, trunk, core, now),
            Phase::Answering { .. } => self.phase = Phase::Answering { leaving: true },
            Phase::Talking => self.bye(trunk, core, now),
            Phase::Cancelling { .. } | Phase::Over => {}
        }
    }

    pub fn bye(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        self.over();
        let Some(dialog) = self.dialog.as_mut() else { return };
        let Addressed { mut draft, uri, hop } = dialog.request("BYE");
        let to = trunk.way_to(hop, dialog.seen);
        push_reason(&mut draft, self.cause);
        let cnonce = core.chance.token();
        let ask = Ask { method: "BYE", uri: &uri, body: b"" };
        let who = self.credentials.as_ref().or(trunk.credentials.as_ref());
        for (name, value) in self.digest.authorize(&ask, who, &cnonce) {
            draft.push(name, value);
        }
        trunk.send("BYE", draft, to, Owner::Bye(self.number), core, now);
    }

    /// An answer to our BYE: only a challenge needs anything more.
    pub fn bye_answered(&mut self, response: &Response, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(by) = By::status(response.code) else { return };
        let challenges = response.headers.all(by.challenge_header());
        let who = self.credentials.as_ref().or(trunk.credentials.as_ref());
        if self.digest.challenged(by, challenges, who).is_ok() {
            self.bye(trunk, core, now);
        }
    }

    /// The PBX hangs up.
    pub fn hung_up(&mut self, request: &Request, trunk: &Trunk, core: &mut Core, now: Now) {
        let mut code = None;
        match self.phase {
            // All its 200s were lost, so the INVITE is still open here: not for ever.
            Phase::Calling { .. } | Phase::Cancelling { .. } => {
                self.phase = Phase::Cancelling { sent: true };
                self.deadline = Some(now.tick + PATIENCE);
            }
            // §15.1.2: its INVITE still gets an answer.
            Phase::Called => {
                self.reject(487, trunk, core, now, |_| {});
                code = Some(487);
            }
            Phase::Answering { .. } | Phase::Talking | Phase::Over => self.over(),
        }
        let text = request.headers.list("Reason").find_map(reason_text);
        let text = text.unwrap_or_else(|| "the PBX hung up".to_owned());
        self.end(EndedBy::Peer, code, q850(&request.headers), text, core);
    }

    /// Whether the request belongs to this call, in an early dialog or a confirmed one.
    pub fn owns(&self, request: &Request) -> bool {
        match (&self.dialog, &self.role) {
            (Some(dialog), _) => dialog.owns(request),
            (None, Role::Caller(caller)) => caller.owns(request),
            (None, Role::Called(_)) => false,
        }
    }

    pub fn over(&mut self) {
        self.phase = Phase::Over;
        self.deadline = None;
        self.unacknowledged = None;
    }

    pub fn end(&mut self, by: EndedBy, code: Option<u16>, cause: Option<u16>, text: String, core: &mut Core) {
        if std::mem::replace(&mut self.live, false) {
            let ending = Ending { by, code, cause, answered: self.answered, lost: self.lost, text };
            core.out.queue.push_back(Output::Event(Event::Ended { leg: self.leg, ending }));
        }
    }

    pub fn next(&self) -> Option<Tick> {
        let unacknowledged = self.unacknowledged.as_ref().map(Unacknowledged::next);
        [self.deadline, unacknowledged, self.ring_again()].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        self.repeat_answer(trunk, core, now);
        self.repeat_ringing(trunk, core, now);
        if self.deadline.take_if(|at| *at <= now.tick).is_none() {
            return;
        }
        match self.phase {
            Phase::Calling { .. } => {
                self.leave(Cause { code: Some(408), text: "Request Timeout" }, trunk, core, now);
                self.end(EndedBy::Timeout, None, None, "nobody answered".to_owned(), core);
            }
            Phase::Cancelling { .. } => {
                core.transactions.forget(Owner::Invite(self.number));
                self.over();
            }
            Phase::Called => self.expire(trunk, core, now),
            Phase::Answering { .. } | Phase::Talking | Phase::Over => {}
        }
    }
}

/// Says why in a request that ends a call (RFC 3326).
pub(crate) fn push_reason(draft: &mut Draft, cause: Cause) {
    if let Some(code) = cause.code {
        draft.push("Reason", format!("SIP;cause={code};text={}", quoted(cause.text)));
    }
}

/// The parameter of an element of Reason (RFC 3326).
fn reason_param(element: &str, wanted: &str) -> Option<String> {
    split_outside_quotes(element, ';')?
        .into_iter()
        .skip(1)
        .map(parameter)
        .find(|(name, _)| name == wanted)
        .and_then(|(_, value)| value)
}

pub(crate) fn reason_text(element: &str) -> Option<String> {
    let text = clean(&reason_param(element, "text")?);
    (!text.is_empty()).then(|| text.chars().take(80).collect())
}

/// The Q.850 cause of a message's Reason header.
pub(crate) fn q850(headers: &Headers) -> Option<u16> {
    headers
        .list("Reason")
        .filter(|element| {
            element.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("Q.850"))
        })
        .find_map(|element| reason_param(element, "cause")?.parse().ok().filter(|cause| *cause > 0))
}
