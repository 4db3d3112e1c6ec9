//! INVITE, ours: calling, ringing, answered, refused, cancelled.
//!
//! ```text
//! dial          -> INVITE
//!   401/407     -> ACK, INVITE with credentials
//!   18x         -> Ringing
//!   2xx         -> ACK, Answered           2xx of another fork -> ACK, BYE
//!   18x with RSeq -> PRACK
//!   422         -> ACK, INVITE with the interval that the PBX wants
//!   3xx         -> ACK, INVITE to whom it names
//!   4xx - 6xx   -> ACK, Ended
//! hang_up       -> Ended at once; then on the wire whatever fits:
//!   nothing heard yet   wait for a provisional answer, then CANCEL (§9.1)
//!   ringing             CANCEL; 487 -> ACK; a 2xx that crosses it -> ACK, BYE
//!   talking             BYE
//! ```

use crate::clock::Now;

use super::auth::{Ask, By, Credentials, GivenUp};
use super::call::{Call, Phase, Role};
use super::dialog::{Addressed, Dialog};
use super::header::{clean, is_token, quoted};
use super::identity::ANONYMOUS;
use super::reason::{push_reason, q850, refusal};
use super::redirect::{Learnt, Redirects, Target};
use super::reliable::{Fork, Heard};
use super::sdp;
use super::timer;
use super::transaction::{Owner, PATIENCE, Sending};
use super::trunk::Trunk;
use super::wire::{Draft, Request, Response};
use super::words::{Dial, EndedBy, Event, LegId, Way};
use super::{ALLOW, Core, SUPPORTED};

/// Other forks answering later than this many are not acknowledged.
const MOST_FORKS: usize = 8;
/// More news than these about the ringing of one call are not told.
const MOST_RINGING: usize = 32;
/// An INVITE that was refused with 422 is sent again no more often than this.
const MOST_RAISES: u8 = 3;

/// Headers that the user agent writes itself; nobody else may.
const OURS: [&str; 30] = [
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
    "Replaces",
    "Referred-By",
    "Refer-To",
    "Privacy",
];

/// An acknowledgement of a 2xx, kept for when the 2xx comes again.
#[derive(Debug)]
struct Acknowledged {
    tag: String,
    to: Way,
    bytes: Vec<u8>,
}

/// What we keep of our INVITE.
#[derive(Debug)]
pub(crate) struct Caller {
    dial: Dial,
    /// The request URI; it changes when the PBX redirects the call, To does not.
    uri: String,
    to_uri: String,
    call_id: String,
    /// Name and address of the caller.
    name: String,
    /// The value of From: the caller and our tag.
    from: String,
    from_tag: String,
    cseq: u32,
    branch: String,
    /// The authorization of the last INVITE, which its ACK repeats (§13.2.2.4).
    authorization: Vec<(&'static str, String)>,
    /// Where the INVITE went.
    pub(super) peer: Way,
    /// And where it went before.
    pub(super) tried: Vec<Way>,
    told_trying: bool,
    ringing: Option<(u16, Option<Vec<u8>>)>,
    /// How often that has been told.
    rang: usize,
    /// A session description that came before the answer.
    early: Option<Vec<u8>>,
    pub(super) forks: Vec<Fork>,
    acks: Vec<Acknowledged>,
    /// The interval of the session timer that is asked for, in seconds, and how often the PBX wanted a longer one.
    session: Option<u32>,
    raises: u8,
    redirects: Redirects,
}

impl Caller {
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Whoever is impatient has somebody else to ask.
    pub fn has_other_trunks(&self) -> bool {
        self.dial.patience.is_some()
    }

    /// Whether the request belongs to an early dialog of this INVITE.
    pub fn owns(&self, request: &Request) -> bool {
        request.call_id == self.call_id && request.to.tag() == Some(&self.from_tag)
    }

    /// What INVITE and its CANCEL have in common.
    fn request(&self, method: &str) -> Draft {
        let mut draft = Draft::request(method, &self.uri);
        draft.push("Max-Forwards", "70");
        draft.push("From", self.from.clone());
        draft.push("To", format!("<{}>", self.to_uri));
        draft.push("Call-ID", self.call_id.clone());
        draft.push("CSeq", format!("{} {method}", self.cseq));
        draft
    }

    /// The early dialog with that tag of the PBX.
    pub fn fork(&mut self, tag: &str) -> Option<&mut Fork> {
        self.forks.iter_mut().find(|fork| fork.dialog.remote_tag == tag)
    }

    /// Whether an INVITE that takes our place means this one, which nobody has answered yet (RFC 3891 §3).
    pub fn is_early(&self, call_id: &str, ours: &str, theirs: &str) -> bool {
        self.forks.iter().any(|fork| fork.dialog.is_named(call_id, ours, theirs))
    }

    /// What an answer says about its early dialog.
    fn hear(&mut self, response: &Response, from: Way) -> Heard {
        let Some(tag) = response.to.tag() else { return Heard::Plain };
        if let Some(fork) = self.fork(tag) {
            return fork.hear(response);
        }
        if self.forks.len() >= MOST_FORKS {
            return Heard::OutOfTurn;
        }
        let fork = Fork::new(Dialog::confirmed(response, &self.from, &self.from_tag, &self.uri, from));
        let heard = fork.hear(response);
        self.forks.push(fork);
        heard
    }

    /// It rings, or sounds already: told unless it has been told.
    pub fn heard_early(&mut self, code: u16, sdp: Option<Vec<u8>>, leg: LegId, core: &mut Core) {
        if let Some(sdp) = &sdp {
            self.early = Some(sdp.clone());
        }
        let heard = (code, sdp);
        if self.ringing.as_ref() != Some(&heard) && self.rang < MOST_RINGING {
            self.rang += 1;
            self.ringing = Some(heard.clone());
            core.tell(Event::Ringing { leg, code: heard.0, sdp: heard.1 });
        }
    }

    fn acknowledge(&mut self, dialog: &Dialog, trunk: &Trunk, core: &mut Core) {
        let Addressed { mut draft, hop, .. } = dialog.acknowledgement(self.cseq);
        for (name, value) in &self.authorization {
            draft.push(name, value.clone());
        }
        let branch = format!("z9hG4bK{}", core.chance.token());
        let to = trunk.way_to(hop, dialog.seen);
        let bytes = trunk.with_via(draft, &branch, to, core).bytes();
        core.out.send(to, bytes.clone());
        self.acks.push(Acknowledged { tag: dialog.remote_tag.clone(), to, bytes });
    }
}

impl Call {
    /// Sends the INVITE.
    pub fn dialled(
        number: u64,
        leg: LegId,
        mut dial: Dial,
        trunk: &Trunk,
        peer: Way,
        core: &mut Core,
        now: Now,
    ) -> Call {
        let from_tag = core.chance.token();
        let caller = trunk.address(&dial.from_user);
        let name = dial.from_name.as_deref().map(quoted).filter(|name| name.len() > 2);
        let name = name.map_or(caller.clone(), |name| format!("{name} {caller}"));
        let shown = if dial.privacy { ANONYMOUS } else { &name };
        let host = dial.host.as_deref().map(|host| host.replace(|c: char| c.is_control() || c == ' ', ""));
        let credentials = dial.credentials.take();
        let sdp = dial.sdp.clone();
        let uri = trunk.uri(&dial.user, host.as_deref());
        let caller = Caller {
            to_uri: uri.clone(),
            uri,
            call_id: core.chance.token(),
            from: format!("{shown};tag={from_tag}"),
            name,
            from_tag,
            cseq: 0,
            branch: String::new(),
            authorization: Vec::new(),
            peer,
            tried: Vec::new(),
            told_trying: false,
            ringing: None,
            rang: 0,
            early: None,
            forks: Vec::new(),
            acks: Vec::new(),
            session: timer::wanted(trunk),
            raises: 0,
            redirects: Redirects::default(),
            dial,
        };
        let role = Role::Caller(Box::new(caller));
        let mut call = Call::new(number, leg, trunk.index, Phase::Calling { heard: false }, role);
        call.credentials = credentials.map(|(username, password)| Credentials { username, password });
        call.deadline = Some(now.tick + core.settings.ring_timeout);
        call.sdp_version = sdp::version_of(&sdp);
        call.first_sdp.clone_from(&sdp);
        call.local_sdp = sdp;
        call.invite(trunk, core, now);
        call
    }

    pub(super) fn invite(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Role::Caller(caller) = &mut self.role else { return };
        caller.cseq += 1;
        // The tags of a refusal and its early dialogs are forgotten.
        caller.forks.clear();
        caller.early = None;
        let cnonce = core.chance.token();
        let ask = Ask { method: "INVITE", uri: &caller.uri, body: caller.dial.sdp.as_bytes() };
        let who = self.credentials.as_ref().or(trunk.credentials.as_ref());
        caller.authorization = self.digest.authorize(&ask, who, &cnonce);
        let mut draft = caller.request("INVITE");
        draft.push("Contact", trunk.contact(caller.peer));
        draft.push("Allow", ALLOW);
        draft.push("Supported", SUPPORTED);
        if let Some(seconds) = caller.session {
            draft.push("Session-Expires", seconds.to_string());
            draft.push("Min-SE", self.min_se.to_string());
        }
        if let Some(replaces) = &caller.dial.replaces {
            draft.push("Replaces", clean(replaces));
        }
        if let Some(by) = &caller.dial.referred_by {
            draft.push("Referred-By", clean(by));
        }
        if caller.dial.privacy {
            draft.push("Privacy", "id");
        }
        if caller.dial.asserted {
            // With the name: a PBX that trusts this header takes the caller's name from it too.
            draft.push("P-Asserted-Identity", caller.name.clone());
        }
        for (name, value) in &caller.authorization {
            draft.push(name, value.clone());
        }
        let foreign = |name: &str| is_token(name) && !OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        for (name, value) in caller.dial.headers.iter().filter(|(name, _)| foreign(name)) {
            draft.push(name, clean(value));
        }
        draft.body("application/sdp", caller.dial.sdp.clone());
        let owner = Owner::Invite(self.number);
        caller.branch = trunk.send("INVITE", draft, caller.peer, owner, core, now);
        caller.tried.push(caller.peer);
        if let Some(patience) = caller.dial.patience {
            core.transactions.hurry(owner, patience, now);
        }
    }

    /// An answer to INVITE.
    pub fn answered(&mut self, response: &Response, from: Way, trunk: &Trunk, core: &mut Core, now: Now) {
        match response.code {
            ..=199 => self.provisional(response, from, trunk, core, now),
            200..=299 => self.accepted(response, from, trunk, core, now),
            _ => self.refused(response, trunk, core, now),
        }
    }

    fn provisional(&mut self, response: &Response, from: Way, trunk: &Trunk, core: &mut Core, now: Now) {
        match self.phase {
            Phase::Cancelling { sent: false } => return self.cancel(trunk, core, now),
            Phase::Calling { .. } => self.phase = Phase::Calling { heard: true },
            Phase::Cancelling { sent: true }
            | Phase::Called
            | Phase::Answering { .. }
            | Phase::Talking
            | Phase::Over => return,
        }
        self.abilities.learn(&response.headers);
        let leg = self.leg;
        let Role::Caller(caller) = &mut self.role else { return };
        if response.code == 100 {
            if !std::mem::replace(&mut caller.told_trying, true) {
                core.tell(Event::Trying { leg });
            }
            return;
        }
        let heard = caller.hear(response, from);
        // 199 (RFC 6228): one telephone of several will not answer any more.
        if heard != Heard::OutOfTurn && response.code != 199 {
            caller.heard_early(response.code, response.sdp(), leg, core);
        }
        if let Heard::Reliable(rseq) = heard {
            self.acknowledge_provisional(response, rseq, trunk, core, now);
        }
    }

    fn accepted(&mut self, response: &Response, from: Way, trunk: &Trunk, core: &mut Core, now: Now) {
        let Role::Caller(caller) = &mut self.role else { return };
        let tag = response.to.tag().unwrap_or_default();
        if let Some(known) = caller.acks.iter().find(|known| known.tag == tag) {
            core.out.counters.retransmissions += 1;
            core.out.send(known.to, known.bytes.clone());
            return;
        }
        if caller.acks.len() >= MOST_FORKS {
            return;
        }
        let mut dialog = Dialog::confirmed(response, &caller.from, &caller.from_tag, &caller.uri, from);
        let mut agreed = None;
        if let Some(fork) = caller.fork(tag) {
            dialog.succeed(&fork.dialog);
            // What was agreed upon early and changed since is not undone by a description that comes late.
            agreed = fork.agreed.take().map(|sdp| (sdp, fork.changed));
        }
        caller.acknowledge(&dialog, trunk, core);
        let wanted = matches!(self.phase, Phase::Calling { .. });
        let sdp = match agreed {
            Some((changed, true)) => Some(changed),
            Some((agreed, false)) => response.sdp().or(Some(agreed)),
            None => response.sdp().or_else(|| caller.early.take()),
        };
        match sdp {
            Some(sdp) if wanted => {
                self.dialog = Some(dialog);
                self.abilities.learn(&response.headers);
                self.timed_by(&response.headers, now);
                self.stands(sdp, core);
            }
            Some(_) | None => {
                // Another fork, an answer that crossed our CANCEL, or one without sound: not wanted.
                let Addressed { mut draft, hop, .. } = dialog.request("BYE");
                push_reason(&mut draft, self.cause);
                let to = trunk.way_to(hop, dialog.seen);
                trunk.send("BYE", draft, to, Owner::StrayBye(self.number), core, now);
                if wanted {
                    self.over(now);
                    let text = format!("{} without a session description", response.text());
                    self.end(EndedBy::Transport, None, None, text, core);
                } else if !self.talking() {
                    self.over(now);
                }
            }
        }
    }

    fn refused(&mut self, response: &Response, trunk: &Trunk, core: &mut Core, now: Now) {
        let calling = matches!(self.phase, Phase::Calling { .. });
        let mut text = refusal(response);
        if let Some(by) = By::status(response.code).filter(|_| calling) {
            let challenges = response.headers.all(by.challenge_header());
            let who = self.credentials.as_ref().or(trunk.credentials.as_ref());
            match self.digest.challenged(by, challenges, who) {
                Ok(()) => return self.invite_again(trunk, core, now),
                // The same password did for REGISTER: it is the caller in From that the PBX does not
                // know. Asterisk does so unless it knows the trunk by address or by auth_username.
                Err(GivenUp::WrongPassword) if trunk.registration.bound() && self.credentials.is_none() => {
                    text = format!(
                        "{text}: registered, but the PBX does not take calls from us under the caller's number"
                    );
                }
                Err(given_up) => text = format!("{text}: {}", given_up.text()),
            }
        }
        if calling && response.code == 422 && self.raised(response) {
            return self.invite_again(trunk, core, now);
        }
        if calling && let Some(more) = self.redirected(response, trunk, core, now) {
            match more {
                Some(more) => text = format!("{text}: {more}"),
                None => return,
            }
        }
        if self.talking() {
            return;
        }
        self.over(now);
        self.end(EndedBy::Peer, Some(response.code), q850(&response.headers), text, core);
    }

    fn invite_again(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        self.phase = Phase::Calling { heard: false };
        self.invite(trunk, core, now);
    }

    /// 422: the PBX wants a longer interval (RFC 4028 §7.3). Whether that is one that we have not tried.
    fn raised(&mut self, response: &Response) -> bool {
        let Role::Caller(caller) = &mut self.role else { return false };
        let least = timer::min_se(&response.headers);
        let Some(seconds) = caller.session.filter(|seconds| *seconds < least) else { return false };
        if caller.raises >= MOST_RAISES {
            return false;
        }
        tracing::debug!(seconds, least, "the PBX wants a longer session interval");
        caller.raises += 1;
        caller.session = Some(least);
        self.min_se = least;
        true
    }

    /// A refusal that leaves others to be called: those whom a 3xx names, or named before. `None`: there was never anybody;
    /// `Some(None)`: the next one is being called; `Some(Some(…))`: why nobody is.
    fn redirected(
        &mut self,
        response: &Response,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
    ) -> Option<Option<&'static str>> {
        let Role::Caller(caller) = &mut self.role else { return None };
        let mut learnt = None;
        if (300..400).contains(&response.code) {
            learnt = Some(caller.redirects.learn(response, &caller.uri, caller.peer, trunk));
        }
        // 6xx means everywhere (RFC 3261 §21.6).
        let next = caller.redirects.next().filter(|_| response.code < 600);
        let Some(target) = next else {
            return match learnt? {
                Learnt::Nothing => None,
                Learnt::Circle => Some(Some("the PBX redirects the call in a circle")),
                Learnt::Somebody => Some(Some("the PBX redirects the call too often")),
            };
        };
        self.follow(target, trunk, core, now);
        Some(None)
    }

    /// Calls somebody else, as the PBX said.
    fn follow(&mut self, target: Target, trunk: &Trunk, core: &mut Core, now: Now) {
        let Role::Caller(caller) = &mut self.role else { return };
        tracing::debug!(directly = target.hop.is_some(), "the PBX redirects the call");
        caller.uri = target.uri;
        caller.peer = target.hop.or(trunk.peer()).unwrap_or(caller.peer);
        caller.tried.clear();
        self.lost = false;
        self.digest.begin();
        self.invite_again(trunk, core, now);
    }

    /// INVITE was never answered at all.
    pub fn lost(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let calling = matches!(self.phase, Phase::Calling { .. });
        if let Role::Caller(caller) = &mut self.role
            && let Some(target) = caller.redirects.next().filter(|_| calling)
        {
            return self.follow(target, trunk, core, now);
        }
        self.over(now);
        self.end(EndedBy::Timeout, None, None, "no answer from the PBX".to_owned(), core);
    }

    /// CANCEL bears the INVITE's own Via, request URI, To and number (§9.1).
    pub fn cancel(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Role::Caller(caller) = &self.role else { return };
        let mut draft = caller.request("CANCEL");
        push_reason(&mut draft, self.cause);
        // A long INVITE may have gone by another transport than we asked for.
        let sent = core.transactions.waiting(Owner::Invite(self.number));
        let (branch, to) = sent.unwrap_or_else(|| (caller.branch.clone(), caller.peer));
        let request = trunk.with_via(draft, &branch, to, core);
        let owner = Owner::Cancel(self.number);
        let sending = Sending { branch, method: "CANCEL", request, to, owner, instead: None };
        core.transactions.start(sending, now, &mut core.out);
        self.phase = Phase::Cancelling { sent: true };
        // §9.1: whoever answers the CANCEL but never the INVITE is not waited for longer than this.
        self.deadline = Some(now.tick + PATIENCE);
    }
}
