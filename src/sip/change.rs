//! Our own re-INVITE and UPDATE in a call that stands (RFC 3261 §14.1, RFC 3311): sent to keep a session alive.
//!
//! ```text
//! 2xx        ACK if it was an INVITE; refreshed
//! 401, 407   again, with credentials
//! 422        again, with the interval that the PBX wants at least
//! 405, 501   again, as re-INVITE
//! 491        again, after a while: both of us had begun at once
//! 408, 481   BYE, and so if there is no answer at all
//! others     again later, as long as the session lasts
//! ```

use std::time::Duration;

use crate::clock::Now;

use super::auth::By;
use super::call::{Asking, Call};
use super::reason::q850;
use super::timer;
use super::transaction::Owner;
use super::trunk::Trunk;
use super::wire::Response;
use super::words::{Cause, EndedBy, Way};
use super::{ALLOW, Core, SUPPORTED};

/// How long a refresh waits that cannot be made now.
const LATER: Duration = Duration::from_secs(1);
/// How long it waits after a refusal that doesn't say for how long.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// More refusals with 422 in a row than these are not followed.
const MOST_RAISES: u8 = 3;

/// A change of ours that waits for its answer.
#[derive(Debug)]
pub(crate) struct Change {
    /// It is a re-INVITE, not an UPDATE.
    pub invite: bool,
    authorization: Vec<(&'static str, String)>,
    raises: u8,
}

/// The acknowledgement of the answer to our last re-INVITE, for when that comes again.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    cseq: u32,
    to: Way,
    bytes: Vec<u8>,
}

impl Call {
    /// Whether our own re-INVITE is under way: the PBX's changes have to wait for it (§14.2).
    pub(crate) fn changing(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.invite)
    }

    /// Keeps the session alive: by UPDATE if the PBX takes it, else by a re-INVITE that changes nothing.
    pub(crate) fn refresh(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        // §14.1: no INVITE while another one is under way, whichever of us began it.
        if self.change.is_some() || (self.unacknowledged.is_some() && !self.abilities.update) {
            return self.refresh_in(LATER, now);
        }
        self.digest.begin();
        self.send_change(0, trunk, core, now);
    }

    /// Tries again after that time, unless the session has been refreshed or is over by then.
    fn refresh_in(&mut self, wait: Duration, now: Now) {
        if let Some(session) = self.session.as_mut() {
            session.refresh = Some(now.tick + wait);
        }
    }

    fn send_change(&mut self, raises: u8, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(session) = self.session.as_ref() else { return };
        let seconds = session.terms.seconds;
        let invite = !self.abilities.update;
        let headers = vec![
            ("Allow", ALLOW.to_owned()),
            ("Supported", SUPPORTED.to_owned()),
            ("Session-Expires", format!("{seconds};refresher=uac")),
            ("Min-SE", self.min_se.to_string()),
        ];
        let body = invite.then(|| ("application/sdp", self.local_sdp.clone().into_bytes()));
        let method = if invite { "INVITE" } else { "UPDATE" };
        let asking = Asking { method, owner: Owner::Change(self.number), contact: true, headers, body };
        let authorization = self.ask(asking, trunk, core, now);
        self.change = Some(Change { invite, authorization, raises });
    }

    /// An answer to our re-INVITE or UPDATE.
    pub(crate) fn change_answered(
        &mut self,
        response: &Response,
        from: Way,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
    ) {
        let accepted = (200..300).contains(&response.code);
        if response.code < 200
            || accepted && response.method == "INVITE" && !self.acknowledge(response, trunk, core)
        {
            return;
        }
        let Some(change) = self.change.take().filter(|_| self.talking()) else { return };
        self.abilities.learn(&response.headers);
        if accepted {
            if let Some(dialog) = self.dialog.as_mut() {
                dialog.refresh_target(&response.headers);
                dialog.seen = from;
            }
            self.timed_by(&response.headers, now);
            if let Some(theirs) = response.sdp().filter(|_| change.invite) {
                self.changed(theirs, core);
            }
            return;
        }
        tracing::debug!(code = response.code, "a refresh was refused");
        match response.code {
            401 | 407 if self.challenged(response, trunk) => {
                self.send_change(change.raises, trunk, core, now)
            }
            422 if change.raises < MOST_RAISES => {
                self.min_se = self.min_se.max(timer::min_se(&response.headers));
                let least = self.min_se;
                if let Some(session) = self.session.as_mut() {
                    session.terms.seconds = session.terms.seconds.max(least);
                }
                self.send_change(change.raises + 1, trunk, core, now);
            }
            405 | 501 if !change.invite => {
                self.abilities.update = false;
                self.refresh_in(Duration::ZERO, now);
            }
            // §14.1: whoever chose the Call-ID waits longer, so that the two don't meet again.
            491 => {
                let wait = if self.ours() {
                    core.chance.part_of(Duration::from_secs(4), 53, 100)
                } else {
                    core.chance.part_of(Duration::from_secs(2), 0, 100)
                };
                self.refresh_in(wait, now);
            }
            408 | 481 => {
                let text = format!("the PBX does not know the call any more: {}", response.text());
                self.cause = Cause { code: Some(response.code), text: "call gone" };
                self.bye(trunk, core, now);
                self.end(EndedBy::Peer, None, q850(&response.headers), text, core);
            }
            _ => {
                let after = response
                    .headers
                    .get("Retry-After")
                    .and_then(|after| after.split([';', '(', ' ']).next()?.trim().parse::<u64>().ok());
                self.refresh_in(after.map_or(AFTER_REFUSAL, Duration::from_secs).max(LATER), now);
            }
        }
    }

    /// Our re-INVITE or UPDATE was never answered (§12.2.1.2).
    pub(crate) fn change_lost(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        self.change = None;
        if self.talking() {
            let text = "the PBX did not answer when the session was to be refreshed".to_owned();
            self.abandon("no answer to a refresh", text, trunk, core, now);
        }
    }

    /// ACK of a 2xx to our re-INVITE. False: it came again.
    fn acknowledge(&mut self, response: &Response, trunk: &Trunk, core: &mut Core) -> bool {
        if let Some(known) = self.acknowledged.as_ref().filter(|known| known.cseq == response.cseq) {
            core.out.counters.retransmissions += 1;
            core.out.send(known.to, known.bytes.clone());
            return false;
        }
        let Some(dialog) = self.dialog.as_mut() else { return false };
        dialog.refresh_target(&response.headers);
        let mut addressed = dialog.acknowledgement(response.cseq);
        for (name, value) in self.change.iter().flat_map(|change| &change.authorization) {
            addressed.draft.push(name, value.clone());
        }
        let to = trunk.way_to(addressed.hop, dialog.seen);
        let branch = format!("z9hG4bK{}", core.chance.token());
        let bytes = trunk.with_via(addressed.draft, &branch, to, core).bytes();
        core.out.send(to, bytes.clone());
        self.acknowledged = Some(Acknowledged { cseq: response.cseq, to, bytes });
        true
    }

    /// A challenge to a request of ours in the call: whether it can be met.
    pub(crate) fn challenged(&mut self, response: &Response, trunk: &Trunk) -> bool {
        let Some(by) = By::status(response.code) else { return false };
        let challenges = response.headers.all(by.challenge_header());
        let who = self.credentials.as_ref().or(trunk.credentials.as_ref());
        self.digest.challenged(by, challenges, who).is_ok()
    }
}
