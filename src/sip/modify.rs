//! The PBX changes a running call: re-INVITE (RFC 3261 §14) and UPDATE (RFC 3311): hold, resume, a new
//! address for the sound, a session kept alive. Answered at once with our description, the direction
//! mirrored.

use std::time::Duration;

use crate::clock::{Now, Tick};

use super::Core;
use super::call::{Call, Phase};
use super::sdp;
use super::serve::Asked;
use super::timer;
use super::transaction::{PATIENCE, T1, T2, way_back};
use super::trunk::Trunk;
use super::wire::Request;
use super::words::{Cause, EndedBy, Event, Way};

/// Our 2xx to an INVITE or re-INVITE, sent again until its ACK comes (§13.3.1.4).
#[derive(Debug)]
pub(crate) struct Unacknowledged {
    cseq: u32,
    to: Way,
    bytes: Vec<u8>,
    pause: Duration,
    repeat: Tick,
    give_up: Tick,
    /// The 2xx bears our offer, so the ACK bears the answer.
    offered: bool,
}

impl Unacknowledged {
    /// `bytes` has just been sent for the first time.
    pub fn new(invite: &Request, from: Way, bytes: Vec<u8>, offered: bool, now: Now) -> Unacknowledged {
        Unacknowledged {
            cseq: invite.cseq,
            to: way_back(invite, from),
            bytes,
            pause: T1,
            repeat: now.tick + T1,
            give_up: now.tick + PATIENCE,
            offered,
        }
    }

    /// The connection by which it goes is gone.
    pub fn cut_off(&mut self, gone: Way, instead: Way) {
        if self.to == gone {
            self.to = instead;
        }
    }

    pub fn next(&self) -> Tick {
        self.repeat.min(self.give_up)
    }
}

/// What we answer.
enum Verdict {
    /// 200 with this description; the PBX's is new to us if it is given.
    Agreed {
        ours: String,
        theirs: Option<Vec<u8>>,
    },
    /// 200 without one.
    Refreshed,
    Refused(u16, String),
}

impl Call {
    /// A re-INVITE or UPDATE in this call.
    pub(crate) fn modified(&mut self, asked: &Asked<'_>, trunk: &Trunk, core: &mut Core, now: Now) {
        let request = asked.request;
        let invite = request.method == "INVITE";
        let pending = self.unacknowledged.as_ref().is_some_and(|answer| answer.offered);
        let offers = !request.body.is_empty();
        if (invite || offers) && !pending {
            self.implicitly_acknowledged(request, core);
        }
        // §14.2, RFC 3311 §5.2: the PBX's own INVITE is still waiting for our answer.
        if self.phase == Phase::Called && (invite || offers) {
            return asked.reply(500, core, now, |draft| draft.push("Retry-After", "2"));
        }
        if matches!(self.phase, Phase::Calling { .. }) && !invite {
            return self.updated_early(asked, trunk, core, now);
        }
        // Our own INVITE is pending, or our offer in a 2xx: one negotiation at a time.
        if (!self.talking() && (invite || offers)) || (pending && offers) {
            return asked.reply(491, core, now, |_| {});
        }
        if self.changing() && (invite || offers) {
            return asked.reply(491, core, now, |_| {});
        }
        if timer::too_short(&request.headers) {
            return asked.reply(422, core, now, |draft| draft.push("Min-SE", timer::MIN_SE.to_string()));
        }
        let Some(dialog) = self.dialog.as_mut() else { return asked.reply(200, core, now, |_| {}) };
        if !dialog.in_order(request) {
            return asked.reply(500, core, now, |draft| draft.push("Retry-After", "2"));
        }
        let Some(theirs) = self.agree(asked, trunk, core, now) else { return };
        if !theirs.is_empty() {
            self.changed(theirs, core);
        }
    }

    /// Answers a change, and gives the PBX's new description, empty if there is none. `None`: refused.
    pub(crate) fn agree(
        &mut self,
        asked: &Asked<'_>,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
    ) -> Option<Vec<u8>> {
        let (request, headers) = (asked.request, &asked.request.headers);
        let verdict = self.verdict(asked);
        let agreed = match verdict {
            Verdict::Refused(code, why) => {
                asked.reply(code, core, now, |draft| {
                    if code == 415 {
                        draft.push("Accept", "application/sdp");
                    } else {
                        draft.push("Warning", super::serve::warning(&why));
                    }
                });
                return None;
            }
            Verdict::Refreshed => None,
            Verdict::Agreed { ours, theirs } => Some((ours, theirs)),
        };
        self.abilities.learn(headers);
        if let Some(dialog) = self.dialog.as_mut() {
            dialog.refresh_target(headers);
            dialog.seen = asked.from;
        }
        let present = self.session.as_ref().map(|session| session.terms);
        let terms = timer::answered(headers, present, timer::wanted(trunk)).filter(|_| self.talking());
        self.min_se = self.min_se.max(timer::min_se(headers));
        let bytes = asked.reply_kept(200, core, now, |draft| {
            draft.push("Contact", trunk.contact(asked.from));
            draft.push("Allow", super::ALLOW);
            draft.push("Supported", super::SUPPORTED);
            timer::push_answer(draft, terms, headers);
            if let Some((ours, _)) = &agreed {
                draft.body("application/sdp", ours.clone());
            }
        });
        if self.talking() {
            self.time(terms, now);
        }
        let Some((ours, theirs)) = agreed else { return Some(Vec::new()) };
        self.local_sdp = ours;
        if request.method == "INVITE" {
            let offered = request.body.is_empty();
            self.unacknowledged = Some(Unacknowledged::new(request, asked.from, bytes, offered, now));
        }
        Some(theirs.unwrap_or_default())
    }

    fn verdict(&mut self, asked: &Asked<'_>) -> Verdict {
        let request = asked.request;
        let next = self.sdp_version.saturating_add(1);
        if request.body.is_empty() {
            if request.method == "UPDATE" {
                return Verdict::Refreshed;
            }
            return match sdp::offer_again(&self.first_sdp, next) {
                Ok(ours) => {
                    self.sdp_version = next;
                    Verdict::Agreed { ours, theirs: None }
                }
                Err(fault) => Verdict::Refused(500, fault.to_string()),
            };
        }
        if request.content_type().as_deref() != Some("application/sdp") {
            return Verdict::Refused(415, String::new());
        }
        // A refresh that changes nothing gets the same description again, version and all.
        let same = sdp::reply(&self.first_sdp, &request.body, self.sdp_version);
        match same {
            Ok(same) if same == self.local_sdp => {
                Verdict::Agreed { ours: same, theirs: Some(request.body.clone()) }
            }
            Ok(_) => match sdp::reply(&self.first_sdp, &request.body, next) {
                Ok(ours) => {
                    self.sdp_version = next;
                    Verdict::Agreed { ours, theirs: Some(request.body.clone()) }
                }
                Err(fault) => Verdict::Refused(488, fault.to_string()),
            },
            Err(fault) => Verdict::Refused(488, fault.to_string()),
        }
    }

    /// The PBX's description, if it is another than before or means something else: who offers decides.
    pub(crate) fn changed(&mut self, theirs: Vec<u8>, core: &mut Core) {
        let agreed = sdp::agreed(&self.local_sdp, &theirs).ok();
        if theirs != self.remote_sdp || agreed != self.agreed {
            self.agreed = agreed;
            self.remote_sdp.clone_from(&theirs);
            core.tell(Event::Changed { leg: self.leg, ours: self.local_sdp.clone(), theirs });
        }
    }

    /// ACK of our 2xx. If we made the offer, it brings the answer.
    pub(crate) fn acknowledged(&mut self, ack: &Request, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(answer) = self.unacknowledged.take_if(|answer| answer.cseq == ack.cseq) else { return };
        let theirs = ack.sdp().filter(|_| answer.offered);
        match self.phase {
            Phase::Talking => {
                if let Some(theirs) = theirs {
                    self.changed(theirs, core);
                }
            }
            // §15: now the BYE may go out.
            Phase::Answering { leaving: true } => self.bye(trunk, core, now),
            Phase::Answering { leaving: false } => match theirs {
                Some(theirs) => self.stands(theirs, core),
                None if !answer.offered => self.stands(self.remote_sdp.clone(), core),
                None => {
                    self.cause = Cause { code: Some(488), text: "no session description in ACK" };
                    self.bye(trunk, core, now);
                    let text = "the PBX's ACK brought no session description".to_owned();
                    self.end(EndedBy::Transport, None, None, text, core);
                }
            },
            Phase::Calling { .. } | Phase::Cancelling { .. } | Phase::Called | Phase::Over => {}
        }
    }

    /// Nobody who has not seen our 200 asks for a change. So its ACK was lost or overtaken, and what
    /// stands need not wait for it (RFC 5407 §3.1.4).
    fn implicitly_acknowledged(&mut self, request: &Request, core: &mut Core) {
        let seen = self.unacknowledged.as_ref().is_some_and(|answer| answer.cseq < request.cseq);
        if seen && self.phase == (Phase::Answering { leaving: false }) {
            self.unacknowledged = None;
            self.stands(self.remote_sdp.clone(), core);
        }
    }

    /// Sends our 2xx again; hangs up if its ACK never comes (§13.3.1.4, §14.2).
    pub(crate) fn repeat_answer(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(answer) = self.unacknowledged.as_mut() else { return };
        if answer.give_up <= now.tick {
            self.unacknowledged = None;
            core.out.counters.timeouts += 1;
            // Whoever hung up in the meantime has said why already.
            if self.live() {
                self.cause = Cause { code: Some(408), text: "no ACK" };
            }
            let what = if self.talking() { "a change" } else { "our answer" };
            self.bye(trunk, core, now);
            let text = format!("the PBX never acknowledged {what}");
            return self.end(EndedBy::Timeout, None, None, text, core);
        }
        if answer.repeat <= now.tick {
            answer.pause = (answer.pause * 2).min(T2);
            answer.repeat = now.tick + answer.pause;
            core.out.counters.retransmissions += 1;
            core.out.send(answer.to, answer.bytes.clone());
        }
    }
}
