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
use super::auth::{Ask, Credentials, Digest};
use super::change::{Acknowledged, Change};
use super::dialog::{Addressed, Dialog};
use super::digits::Digits;
use super::invite::Caller;
use super::modify::Unacknowledged;
use super::reason::{self, reason_header};
use super::refer::Referring;
use super::sdp::{self, RemoteMedia};
use super::take::Called;
use super::timer::{self, Abilities, Session};
use super::transaction::{Owner, PATIENCE, Transactions};
use super::trunk::Trunk;
use super::wire::{Request, Response};
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
    /// The PBX has said BYE: the dialog is no more.
    gone: bool,
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
    /// What the two came to when they were last told.
    pub agreed: Option<RemoteMedia>,
    pub sdp_version: u64,
    /// Our 2xx to an INVITE, until its ACK comes.
    pub unacknowledged: Option<Unacknowledged>,
    /// Our re-INVITE or UPDATE, until its answer comes; and the ACK of the last one.
    pub change: Option<Change>,
    pub acknowledged: Option<Acknowledged>,
    /// The timer that keeps the session alive, if there is one.
    pub session: Option<Session>,
    /// The shortest interval of that timer that the PBX has asked for, in seconds.
    pub min_se: u32,
    pub abilities: Abilities,
    /// The transfer that the PBX wants, and whether there was one before.
    pub referring: Option<Referring>,
    pub referred_once: bool,
    pub digits: Digits,
}

/// A request of ours in a dialog.
pub(crate) struct Asking {
    pub method: &'static str,
    pub owner: Owner,
    /// It says how we are reached: a target refresh, or one that begins something.
    pub contact: bool,
    pub headers: Vec<(&'static str, String)>,
    /// Its type and itself.
    pub body: Option<(&'static str, Vec<u8>)>,
}

/// Sends a request in a dialog, with credentials as far as they have been asked for; gives these back.
pub(crate) fn ask_in(
    dialog: &mut Dialog,
    (digest, who): (&mut Digest, Option<&Credentials>),
    asking: Asking,
    trunk: &Trunk,
    core: &mut Core,
    now: Now,
) -> Vec<(&'static str, String)> {
    let Asking { method, owner, contact, headers, body } = asking;
    let Addressed { mut draft, uri, hop } = dialog.request(method);
    let to = trunk.way_to(hop, dialog.seen);
    if contact {
        draft.push("Contact", trunk.contact(to));
    }
    for (name, value) in headers {
        draft.push(name, value);
    }
    let cnonce = core.chance.token();
    let plain = body.as_ref().map(|(_, body)| body.as_slice()).unwrap_or_default();
    let authorization = digest.authorize(&Ask { method, uri: &uri, body: plain }, who, &cnonce);
    for (name, value) in &authorization {
        draft.push(name, value.clone());
    }
    if let Some((kind, body)) = body {
        draft.body(kind, body);
    }
    trunk.send(method, draft, to, owner, core, now);
    authorization
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
            gone: false,
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
            agreed: None,
            sdp_version: 0,
            unacknowledged: None,
            change: None,
            acknowledged: None,
            session: None,
            min_se: timer::MIN_SE,
            abilities: Abilities::default(),
            referring: None,
            referred_once: false,
            digits: Digits::default(),
        }
    }

    /// Whether Ended is still to come.
    pub fn live(&self) -> bool {
        self.live
    }

    /// Whether a request of the PBX comes too late: its dialog is no more, and it is answered with 481 (§12.2.2). Only a
    /// BYE that crosses ours is agreed to.
    pub fn too_late(&self, request: &Request) -> bool {
        self.gone || (self.phase == Phase::Over && request.method != "BYE")
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
        self.agreed = sdp::agreed(&self.local_sdp, &theirs).ok();
        core.tell(Event::Answered { leg: self.leg, ours: self.local_sdp.clone(), theirs });
    }

    pub fn call_id(&self) -> &str {
        match (&self.role, &self.dialog) {
            (Role::Caller(caller), _) => caller.call_id(),
            (Role::Called(_), Some(dialog)) => &dialog.call_id,
            (Role::Called(_), None) => "",
        }
    }

    /// Whether it rings at the PBX, and whoever dialled it has another trunk to try.
    pub fn could_ring_elsewhere(&self) -> bool {
        match &self.role {
            Role::Caller(caller) => {
                self.live && self.phase == (Phase::Calling { heard: true }) && caller.has_other_trunks()
            }
            Role::Called(_) => false,
        }
    }

    /// Whether we called: then Call-ID is ours.
    pub fn ours(&self) -> bool {
        match self.role {
            Role::Caller(_) => true,
            Role::Called(_) => false,
        }
    }

    /// Sends a request in the dialog, if there is one.
    pub fn ask(
        &mut self,
        asking: Asking,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
    ) -> Vec<(&'static str, String)> {
        let who = self.credentials.as_ref().or(trunk.credentials.as_ref());
        match self.dialog.as_mut() {
            Some(dialog) => ask_in(dialog, (&mut self.digest, who), asking, trunk, core, now),
            None => Vec::new(),
        }
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
        self.over(now);
        self.digest.begin();
        self.send_bye(trunk, core, now);
    }

    fn send_bye(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let headers = reason_header(self.cause).map(|reason| ("Reason", reason)).into_iter().collect();
        let asking =
            Asking { method: "BYE", owner: Owner::Bye(self.number), contact: false, headers, body: None };
        self.ask(asking, trunk, core, now);
    }

    /// An answer to our BYE: only a challenge needs anything more.
    pub fn bye_answered(&mut self, response: &Response, trunk: &Trunk, core: &mut Core, now: Now) {
        if self.challenged(response, trunk) {
            self.send_bye(trunk, core, now);
        }
    }

    /// The PBX hangs up.
    pub fn hung_up(&mut self, request: &Request, trunk: &Trunk, core: &mut Core, now: Now) {
        let mut code = None;
        self.gone = true;
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
            Phase::Answering { .. } | Phase::Talking | Phase::Over => self.over(now),
        }
        let text = reason::text_or(&request.headers, "the PBX hung up");
        self.end(EndedBy::Peer, code, reason::q850(&request.headers), text, core);
    }

    /// Whether the request belongs to this call, in an early dialog or a confirmed one.
    pub fn owns(&self, request: &Request) -> bool {
        match (&self.dialog, &self.role) {
            (Some(dialog), _) => dialog.owns(request),
            (None, Role::Caller(caller)) => caller.owns(request),
            (None, Role::Called(_)) => false,
        }
    }

    /// Nothing more is wanted of the call. A re-INVITE of ours that is still open is not waited for longer than for a CANCEL.
    pub fn over(&mut self, now: Now) {
        self.phase = Phase::Over;
        self.deadline = self.changing().then(|| now.tick + PATIENCE);
        self.unacknowledged = None;
        self.session = None;
        self.referring = None;
        self.digits = Digits::default();
    }

    pub fn end(&mut self, by: EndedBy, code: Option<u16>, cause: Option<u16>, text: String, core: &mut Core) {
        if std::mem::replace(&mut self.live, false) {
            let ending = Ending { by, code, cause, answered: self.answered, lost: self.lost, text };
            core.out.queue.push_back(Output::Event(Event::Ended { leg: self.leg, ending }));
        }
    }

    pub fn next(&self) -> Option<Tick> {
        let unacknowledged = self.unacknowledged.as_ref().map(Unacknowledged::next);
        let session = self.session.as_ref().filter(|_| self.talking()).map(Session::next);
        let mine = [self.deadline, unacknowledged, session, self.digits.next(), self.referring_until()];
        mine.into_iter().chain([self.ring_again(), self.reliable_next()]).flatten().min()
    }

    pub fn handle_timeout(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        self.repeat_answer(trunk, core, now);
        self.repeat_reliable(trunk, core, now);
        self.repeat_ringing(trunk, core, now);
        self.session_due(trunk, core, now);
        self.referring_due(trunk, core, now);
        if self.digits.next().is_some_and(|due| due <= now.tick) {
            self.next_digit(trunk, core, now);
        }
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
                self.over(now);
            }
            Phase::Called => self.expire(trunk, core, now),
            Phase::Over => core.transactions.forget(Owner::Change(self.number)),
            Phase::Answering { .. } | Phase::Talking => {}
        }
    }
}
