//! INVITE, our side: calling, ringing, answered, refused, cancelled; and hanging up.
//!
//! ```text
//! dial          -> INVITE
//!   401/407     -> ACK, INVITE with credentials
//!   18x         -> Ringing
//!   2xx         -> ACK, Answered           2xx of another fork -> ACK, BYE
//!   3xx - 6xx   -> ACK, Ended
//! hang_up       -> Ended at once; then on the wire whatever fits:
//!   nothing heard yet   wait for a provisional answer, then CANCEL (§9.1)
//!   ringing             CANCEL; 487 -> ACK; a 2xx that crosses it -> ACK, BYE
//!   talking             BYE
//! ```

use std::net::SocketAddr;

use crate::clock::{Now, Tick};

use super::auth::{Ask, By, Digest, GivenUp};
use super::dialog::{Addressed, Dialog};
use super::header::{clean, is_token, quoted, user_part};
use super::modify::Unacknowledged;
use super::sdp;
use super::transaction::{Owner, PATIENCE, Sending};
use super::trunk::Trunk;
use super::wire::{Draft, Headers, Request, Response};
use super::words::{Cause, Dial, EndedBy, Ending, Event, LegId, Output};
use super::{ALLOW, Core};

/// Other forks answering later than this many are not acknowledged.
const MOST_FORKS: usize = 8;

/// Headers that the user agent writes itself; nobody else may.
const OURS: [&str; 26] = [
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Max-Forwards",
    "Route",
    "Record-Route",
    "Content-Length",
    "Content-Type",
    "Content-Encoding",
    "Authorization",
    "Proxy-Authorization",
    "P-Asserted-Identity",
    "Allow",
    "Require",
    "Proxy-Require",
    "Supported",
    "User-Agent",
    "Expires",
    "Session-Expires",
    "Min-SE",
    "Reason",
    "RSeq",
    "RAck",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No final answer yet; `heard`: a provisional one came.
    Calling {
        heard: bool,
    },
    /// We gave up; `sent`: the CANCEL is out.
    Cancelling {
        sent: bool,
    },
    Talking,
    /// Nothing left but transactions that run out.
    Over,
}

/// An acknowledgement of a 2xx, kept for when the 2xx comes again.
#[derive(Debug)]
struct Acknowledged {
    tag: String,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    number: u64,
    pub leg: LegId,
    /// The index of its trunk.
    pub trunk: usize,
    /// Ended has not been told yet.
    live: bool,
    phase: Phase,
    dial: Dial,
    uri: String,
    call_id: String,
    /// Name and address of the caller.
    caller: String,
    /// The value of From: the caller and our tag.
    from: String,
    from_tag: String,
    cseq: u32,
    branch: String,
    digest: Digest,
    /// The credentials of the last INVITE, which its ACK repeats (§13.2.2.4).
    credentials: Vec<(&'static str, String)>,
    peer: SocketAddr,
    cause: Cause,
    told_trying: bool,
    ringing: Option<(u16, Option<Vec<u8>>)>,
    /// A session description that came before the answer.
    early: Option<Vec<u8>>,
    deadline: Option<Tick>,
    acks: Vec<Acknowledged>,
    pub dialog: Option<Dialog>,
    /// Our present description, and the PBX's.
    pub local_sdp: String,
    pub remote_sdp: Vec<u8>,
    pub sdp_version: u64,
    /// Our 2xx to a re-INVITE, until its ACK comes.
    pub unacknowledged: Option<Unacknowledged>,
}

impl Call {
    /// Sends the INVITE.
    pub fn start(
        number: u64,
        leg: LegId,
        dial: Dial,
        trunk: &Trunk,
        peer: SocketAddr,
        core: &mut Core,
        now: Now,
    ) -> Call {
        let from_tag = core.chance.token();
        let caller = format!("<sip:{}@{}>", user_part(&dial.from_user), trunk.domain());
        let name = dial.from_name.as_deref().map(quoted).filter(|name| name.len() > 2);
        let caller = name.map_or(caller.clone(), |name| format!("{name} {caller}"));
        let host = dial.host.as_deref().map(|host| host.replace(|c: char| c.is_control() || c == ' ', ""));
        let mut call = Call {
            number,
            leg,
            trunk: trunk.index,
            live: true,
            phase: Phase::Calling { heard: false },
            uri: trunk.uri(&dial.user, host.as_deref()),
            call_id: core.chance.token(),
            from: format!("{caller};tag={from_tag}"),
            caller,
            from_tag,
            cseq: 0,
            branch: String::new(),
            digest: Digest::default(),
            credentials: Vec::new(),
            peer,
            cause: Cause::default(),
            told_trying: false,
            ringing: None,
            early: None,
            deadline: Some(now.tick + core.settings.ring_timeout),
            acks: Vec::new(),
            dialog: None,
            local_sdp: dial.sdp.clone(),
            remote_sdp: Vec::new(),
            sdp_version: sdp::version_of(&dial.sdp),
            unacknowledged: None,
            dial,
        };
        call.invite(trunk, core, now);
        call
    }

    /// Whether Ended is still to come.
    pub fn live(&self) -> bool {
        self.live
    }

    pub fn talking(&self) -> bool {
        self.phase == Phase::Talking
    }

    /// Our first offer: every later description is made from it.
    pub fn dial_sdp(&self) -> &str {
        &self.dial.sdp
    }

    fn invite(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        self.cseq += 1;
        let cnonce = core.chance.token();
        let ask = Ask { method: "INVITE", uri: &self.uri, body: self.dial.sdp.as_bytes() };
        self.credentials = self.digest.authorize(&ask, trunk.credentials.as_ref(), &cnonce);
        let mut draft = Draft::request("INVITE", &self.uri);
        draft.push("Max-Forwards", "70");
        draft.push("From", self.from.clone());
        draft.push("To", format!("<{}>", self.uri));
        draft.push("Call-ID", self.call_id.clone());
        draft.push("CSeq", format!("{} INVITE", self.cseq));
        draft.push("Contact", trunk.contact());
        draft.push("Allow", ALLOW);
        if self.dial.asserted {
            // With the name: a PBX that trusts this header takes the caller's name from it too.
            draft.push("P-Asserted-Identity", self.caller.clone());
        }
        for (name, value) in &self.credentials {
            draft.push(name, value.clone());
        }
        let foreign = |name: &str| is_token(name) && !OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        for (name, value) in self.dial.headers.iter().filter(|(name, _)| foreign(name)) {
            draft.push(name, clean(value));
        }
        draft.body("application/sdp", self.dial.sdp.clone());
        self.branch = trunk.send("INVITE", draft, self.peer, Owner::Invite(self.number), core, now);
    }

    /// An answer to INVITE.
    pub fn answered(
        &mut self,
        response: &Response,
        from: SocketAddr,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
    ) {
        match response.code {
            ..=199 => self.provisional(response, trunk, core, now),
            200..=299 => self.accepted(response, from, trunk, core, now),
            _ => self.refused(response, trunk, core, now),
        }
    }

    fn provisional(&mut self, response: &Response, trunk: &Trunk, core: &mut Core, now: Now) {
        match self.phase {
            Phase::Cancelling { sent: false } => self.cancel(trunk, core, now),
            Phase::Cancelling { sent: true } | Phase::Talking | Phase::Over => {}
            Phase::Calling { .. } => {
                self.phase = Phase::Calling { heard: true };
                if response.code == 100 {
                    if !std::mem::replace(&mut self.told_trying, true) {
                        core.tell(Event::Trying { leg: self.leg });
                    }
                    return;
                }
                let heard = (response.code, response.sdp());
                if let Some(sdp) = &heard.1 {
                    self.early = Some(sdp.clone());
                }
                if self.ringing.as_ref() != Some(&heard) {
                    self.ringing = Some(heard.clone());
                    core.tell(Event::Ringing { leg: self.leg, code: heard.0, sdp: heard.1 });
                }
            }
        }
    }

    fn accepted(&mut self, response: &Response, from: SocketAddr, trunk: &Trunk, core: &mut Core, now: Now) {
        let tag = response.to.tag().unwrap_or_default();
        if let Some(known) = self.acks.iter().find(|known| known.tag == tag) {
            core.out.counters.retransmissions += 1;
            core.out.send(known.to, known.bytes.clone());
            return;
        }
        if self.acks.len() >= MOST_FORKS {
            return;
        }
        let mut dialog = Dialog::confirmed(response, &self.from, &self.from_tag, &self.uri, from);
        self.acknowledge(&mut dialog, trunk, core);
        let wanted = matches!(self.phase, Phase::Calling { .. });
        let sdp = response.sdp().or_else(|| self.early.take());
        match sdp {
            Some(sdp) if wanted => {
                self.phase = Phase::Talking;
                self.deadline = None;
                self.remote_sdp = sdp.clone();
                self.dialog = Some(dialog);
                core.tell(Event::Answered { leg: self.leg, sdp });
            }
            Some(_) | None => {
                // Another fork, an answer that crossed our CANCEL, or one without sound: not wanted.
                let Addressed { mut draft, hop, .. } = dialog.request("BYE");
                push_reason(&mut draft, self.cause);
                let to = trunk.way_to(hop, dialog.seen);
                trunk.send("BYE", draft, to, Owner::StrayBye(self.number), core, now);
                if wanted {
                    self.over();
                    let text = format!("{} without a session description", response.text());
                    self.end(EndedBy::Transport, None, None, text, core);
                } else if !self.talking() {
                    self.over();
                }
            }
        }
    }

    fn acknowledge(&mut self, dialog: &mut Dialog, trunk: &Trunk, core: &mut Core) {
        let Addressed { mut draft, hop, .. } = dialog.request("ACK");
        for (name, value) in &self.credentials {
            draft.push(name, value.clone());
        }
        let branch = format!("z9hG4bK{}", core.chance.token());
        let bytes = trunk.with_via(draft, &branch, core).bytes();
        let to = trunk.way_to(hop, dialog.seen);
        core.out.send(to, bytes.clone());
        self.acks.push(Acknowledged { tag: dialog.remote_tag.clone(), to, bytes });
    }

    fn refused(&mut self, response: &Response, trunk: &Trunk, core: &mut Core, now: Now) {
        let calling = matches!(self.phase, Phase::Calling { .. });
        let mut text = response.text();
        if let Some(by) = By::status(response.code).filter(|_| calling) {
            let challenges = response.headers.all(by.challenge_header());
            match self.digest.challenged(by, challenges, trunk.credentials.as_ref()) {
                Ok(()) => {
                    self.phase = Phase::Calling { heard: false };
                    return self.invite(trunk, core, now);
                }
                // The same password did for REGISTER: it is the caller in From that the PBX does not
                // know. Asterisk does so unless it knows the trunk by address or by auth_username.
                Err(GivenUp::WrongPassword) if trunk.registration.bound() => {
                    text = format!(
                        "{text}: registered, but the PBX does not take calls from us under the caller's number"
                    );
                }
                Err(given_up) => text = format!("{text}: {}", given_up.text()),
            }
        }
        if self.talking() {
            return;
        }
        self.over();
        self.end(EndedBy::Peer, Some(response.code), q850(&response.headers), text, core);
    }

    /// INVITE was never answered at all.
    pub fn lost(&mut self, core: &mut Core) {
        self.over();
        self.end(EndedBy::Timeout, None, None, "no answer from the PBX".to_owned(), core);
    }

    /// We hang up. The leg's end is told at once; the rest happens on the wire.
    pub fn hang_up(&mut self, cause: Cause, trunk: &Trunk, core: &mut Core, now: Now) {
        self.leave(cause, trunk, core, now);
        let text = if cause.text.is_empty() { "hung up".to_owned() } else { cause.text.to_owned() };
        self.end(EndedBy::Us, None, None, text, core);
    }

    /// CANCEL, BYE, or nothing: whatever fits.
    pub fn leave(&mut self, cause: Cause, trunk: &Trunk, core: &mut Core, now: Now) {
        self.cause = cause;
        match self.phase {
            Phase::Calling { heard: true } => self.cancel(trunk, core, now),
            Phase::Calling { heard: false } => {
                self.phase = Phase::Cancelling { sent: false };
                self.deadline = None;
            }
            Phase::Talking => self.bye(trunk, core, now),
            Phase::Cancelling { .. } | Phase::Over => {}
        }
    }

    /// CANCEL bears the INVITE's own Via, request URI, To and number (§9.1).
    fn cancel(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let mut draft = Draft::request("CANCEL", &self.uri);
        draft.push("Max-Forwards", "70");
        draft.push("From", self.from.clone());
        draft.push("To", format!("<{}>", self.uri));
        draft.push("Call-ID", self.call_id.clone());
        draft.push("CSeq", format!("{} CANCEL", self.cseq));
        push_reason(&mut draft, self.cause);
        let request = trunk.with_via(draft, &self.branch, core);
        let (branch, owner) = (self.branch.clone(), Owner::Cancel(self.number));
        let sending = Sending { branch, method: "CANCEL", request, to: self.peer, owner };
        core.transactions.start(sending, now, &mut core.out);
        self.phase = Phase::Cancelling { sent: true };
        // §9.1: whoever answers the CANCEL but never the INVITE is not waited for longer than this.
        self.deadline = Some(now.tick + PATIENCE);
    }

    fn bye(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        self.over();
        let Some(dialog) = self.dialog.as_mut() else { return };
        let Addressed { mut draft, uri, hop } = dialog.request("BYE");
        let to = trunk.way_to(hop, dialog.seen);
        push_reason(&mut draft, self.cause);
        let cnonce = core.chance.token();
        let ask = Ask { method: "BYE", uri: &uri, body: b"" };
        for (name, value) in self.digest.authorize(&ask, trunk.credentials.as_ref(), &cnonce) {
            draft.push(name, value);
        }
        trunk.send("BYE", draft, to, Owner::Bye(self.number), core, now);
    }

    /// An answer to our BYE: only a challenge needs anything more.
    pub fn bye_answered(&mut self, response: &Response, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(by) = By::status(response.code) else { return };
        let challenges = response.headers.all(by.challenge_header());
        if self.digest.challenged(by, challenges, trunk.credentials.as_ref()).is_ok() {
            self.bye(trunk, core, now);
        }
    }

    /// The PBX hangs up.
    pub fn hung_up(&mut self, request: &Request, core: &mut Core, now: Now) {
        match self.phase {
            // All its 200s were lost, so the INVITE is still open here: not for ever.
            Phase::Calling { .. } | Phase::Cancelling { .. } => {
                self.phase = Phase::Cancelling { sent: true };
                self.deadline = Some(now.tick + PATIENCE);
            }
            Phase::Talking | Phase::Over => self.over(),
        }
        let text = request.headers.list("Reason").find_map(reason_text);
        let text = text.unwrap_or_else(|| "the PBX hung up".to_owned());
        self.end(EndedBy::Peer, None, q850(&request.headers), text, core);
    }

    /// Whether the request belongs to this call, in an early dialog or a confirmed one.
    pub fn owns(&self, request: &Request) -> bool {
        match &self.dialog {
            Some(dialog) => dialog.owns(request),
            None => request.call_id == self.call_id && request.to.tag() == Some(&self.from_tag),
        }
    }

    fn over(&mut self) {
        self.phase = Phase::Over;
        self.deadline = None;
        self.unacknowledged = None;
    }

    pub fn end(&mut self, by: EndedBy, code: Option<u16>, cause: Option<u16>, text: String, core: &mut Core) {
        if std::mem::replace(&mut self.live, false) {
            let answered = self.dialog.is_some();
            let ending = Ending { by, code, cause, answered, text };
            core.out.queue.push_back(Output::Event(Event::Ended { leg: self.leg, ending }));
        }
    }

    pub fn next(&self) -> Option<Tick> {
        let unacknowledged = self.unacknowledged.as_ref().map(Unacknowledged::next);
        [self.deadline, unacknowledged].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        self.repeat_answer(trunk, core, now);
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
            Phase::Talking | Phase::Over => {}
        }
    }
}

fn push_reason(draft: &mut Draft, cause: Cause) {
    if let Some(code) = cause.code {
        draft.push("Reason", format!("SIP;cause={code};text={}", quoted(cause.text)));
    }
}

/// The parameter of an element of Reason (RFC 3326).
fn reason_param(element: &str, wanted: &str) -> Option<String> {
    super::header::split_outside_quotes(element, ';')?
        .into_iter()
        .skip(1)
        .map(super::header::parameter)
        .find(|(name, _)| name == wanted)
        .and_then(|(_, value)| value)
}

fn reason_text(element: &str) -> Option<String> {
    let text = clean(&reason_param(element, "text")?);
    (!text.is_empty()).then(|| text.chars().take(80).collect())
}

/// The Q.850 cause of a message's Reason header.
fn q850(headers: &Headers) -> Option<u16> {
    headers
        .list("Reason")
        .filter(|element| {
            element.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("Q.850"))
        })
        .find_map(|element| reason_param(element, "cause")?.parse().ok().filter(|cause| *cause > 0))
}
