//! INVITE, the PBX's: taken, ringing, answered, refused, cancelled (RFC 3261 §13.3).
//!
//! ```text
//! INVITE        -> 100, Invited
//! ring          -> 180, and again every minute
//! answer        -> 200, again until its ACK comes; ACK -> Answered
//! refuse        -> 4xx - 6xx, Ended
//!   CANCEL, BYE -> 200, 487 to the INVITE, Ended
//!   Expires     -> 487, Ended
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Now, Tick};

use super::call::{Call, Phase, Role};
use super::dialog::Dialog;
use super::header::clean;
use super::identity::{LONGEST_USER, anonymous, caller, diverted_by, shown};
use super::modify::Unacknowledged;
use super::reason;
use super::refer::Replaces;
use super::reliable::{self, Reliable};
use super::sdp;
use super::serve::{Asked, warning};
use super::timer;
use super::transaction::ServerKey;
use super::trunk::Trunk;
use super::trunks::Trunks;
use super::wire::{self, Draft, Request};
use super::words::{Cause, EndedBy, Event, Invite, LegId, Refusal, Way};
use super::{ALLOW, Core, SUPPORTED, UserAgent};

/// Proxies give up a call that has been ringing for three minutes without a word (§13.3.1.1, §16.6).
const RING_AGAIN: Duration = Duration::from_secs(60);
/// No telephone rings for longer, whatever the PBX wants and whoever forgot to answer or to refuse.
const LONGEST_RING: Duration = Duration::from_secs(300);
/// When to try again after a 503, in seconds.
const RETRY_AFTER: u32 = 10;

/// What we keep of the PBX's INVITE.
#[derive(Debug)]
pub(crate) struct Called {
    /// Without its body.
    request: Request,
    from: Way,
    key: ServerKey,
    tag: String,
    /// When the PBX wants no answer any more.
    expires: Option<Tick>,
    /// When 180 goes out again.
    ring_again: Option<Tick>,
    /// The PBX insists on acknowledging it (RFC 3262), and the last one.
    insists: bool,
    pub reliable: Option<Reliable>,
}

impl Called {
    pub fn cseq(&self) -> u32 {
        self.request.cseq
    }

    fn asked(&self) -> Asked<'_> {
        Asked { request: &self.request, from: self.from, key: self.key.clone(), tag: self.tag.clone() }
    }
}

impl UserAgent {
    /// An INVITE outside every dialog: the PBX calls.
    pub(crate) fn invited(&mut self, asked: &Asked<'_>, now: Now) {
        let core = &mut self.core;
        let request = asked.request;
        let sdp = |kind: &str| kind.trim().eq_ignore_ascii_case("application/sdp");
        if !request.body.is_empty() && !request.content_type().as_deref().is_some_and(sdp) {
            return asked.reply(415, core, now, |draft| draft.push("Accept", "application/sdp"));
        }
        let takes = |accept: &str| {
            let kind = accept.split(';').next().unwrap_or_default();
            sdp(kind) || ["*/*", "application/*"].contains(&kind.trim())
        };
        if request.headers.get("Accept").is_some() && !request.headers.list("Accept").any(takes) {
            return asked.reply(406, core, now, |_| {});
        }
        if timer::too_short(&request.headers) {
            return asked.reply(422, core, now, |draft| draft.push("Min-SE", timer::MIN_SE.to_string()));
        }
        // What our Contact said of two at one host, the PBX has kept in the request URI (§12.1.2, §16.12).
        let meant = request.uri.params.iter().find(|(name, _)| name == "trunk");
        let meant = meant.and_then(|(_, name)| name.as_deref());
        let kin = |trunk: &&Trunk| {
            let kinship = trunk.kinship(asked.from)?;
            Some((kinship, meant.is_none_or(|name| name != trunk.settings.name)))
        };
        let trunk = self.trunks.iter().filter(|trunk| !trunk.removed && kin(trunk).is_some()).min_by_key(kin);
        let Some(trunk) = trunk.filter(|trunk| !trunk.stopped()) else {
            return asked.reply(503, core, now, retry_later);
        };
        if super::challenge::unproven(trunk, asked, core, now) {
            return;
        }
        let addressable = |user: &String| user.len() <= LONGEST_USER && !user.chars().any(char::is_control);
        let Some(to_user) = request.uri.person().filter(addressable) else {
            return asked.reply(404, core, now, |draft| {
                draft.push("Warning", warning("the request URI does not say whom to call"));
            });
        };
        let replaces = match replaced(&self.calls, &self.trunks, asked) {
            Ok(replaces) => replaces,
            Err((code, why)) => {
                return asked.reply(code, core, now, |draft| draft.push("Warning", warning(why)));
            }
        };
        self.calls.retain(|_, call| call.needed(&core.transactions));
        if super::full(&self.calls, core) {
            return asked.reply(503, core, now, retry_later);
        }
        self.numbered += 1;
        let leg = LegId(1 << 63 | self.numbered);
        asked.reply(100, core, now, |_| {});
        let (from_user, from_name) = caller(request);
        let invite = Invite {
            trunk: trunk.settings.name.clone(),
            to_user,
            from_user,
            shown_user: shown(request),
            from_name,
            call_id: request.call_id.clone(),
            sdp: request.sdp(),
            replaces,
            diversion: diverted_by(&request.headers),
            anonymous: anonymous(request),
        };
        self.calls.insert(self.numbered, Call::called(self.numbered, leg, asked, trunk, now));
        tracing::debug!(trunk = %invite.trunk, offer = invite.sdp.is_some(), "the PBX calls");
        core.tell(Event::Invited { leg, invite });
    }

    /// A CANCEL (§9.2): of a call that we have not answered, or of anything else that we know.
    pub(crate) fn cancelled(&mut self, mut asked: Asked<'_>, now: Now) {
        let key = ServerKey::cancelled(asked.request);
        let call = self.calls.values_mut().find_map(|call| match &call.role {
            Role::Called(called) if called.key == key => Some((called.tag.clone(), call)),
            Role::Called(_) | Role::Caller(_) => None,
        });
        let Some((tag, call)) = call else {
            let known = self.core.transactions.knows(&key);
            return asked.reply(if known { 200 } else { 481 }, &mut self.core, now, |_| {});
        };
        let trunk = self.trunks.get(call.trunk).filter(|trunk| trunk.admits(asked.from.ip()));
        let Some(trunk) = trunk else { return asked.reply(481, &mut self.core, now, |_| {}) };
        asked.tag = tag;
        asked.reply(200, &mut self.core, now, |_| {});
        call.cancelled(asked.request, trunk, &mut self.core, now);
    }
}

impl Call {
    fn called(number: u64, leg: LegId, asked: &Asked<'_>, trunk: &Trunk, now: Now) -> Call {
        let request = asked.request;
        let expires = request.headers.get("Expires").and_then(|seconds| seconds.trim().parse::<u32>().ok());
        let expires = expires.map(|seconds| now.tick + Duration::from_secs(u64::from(seconds)));
        let called = Called {
            request: Request { body: Vec::new(), ..request.clone() },
            from: asked.from,
            key: asked.key.clone(),
            tag: asked.tag.clone(),
            expires,
            ring_again: None,
            insists: reliable::insists(request),
            reliable: None,
        };
        let mut call = Call::new(number, leg, trunk.index, Phase::Called, Role::Called(Box::new(called)));
        let longest = now.tick + LONGEST_RING;
        call.deadline = Some(expires.map_or(longest, |expires| expires.min(longest)));
        call.dialog = Some(Dialog::called(request, &asked.tag, asked.from));
        call.remote_sdp = request.sdp().unwrap_or_default();
        call.abilities.learn(&request.headers);
        call.min_se = timer::min_se(&request.headers);
        call
    }

    /// Answers the PBX's INVITE, if that is still open.
    fn respond(
        &mut self,
        code: u16,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
        more: impl FnOnce(&mut Draft),
    ) -> Vec<u8> {
        let Role::Called(called) = &mut self.role else { return Vec::new() };
        called.ring_again = (code < 200).then_some(now.tick + RING_AGAIN);
        if let Some(reliable) = called.reliable.as_mut().filter(|_| code >= 200) {
            reliable.overtaken();
        }
        called.asked().reply_kept(code, core, now, |draft| {
            if code < 300 {
                // §12.1.1: what establishes a dialog says how it is reached.
                for route in called.request.headers.all("Record-Route") {
                    draft.push("Record-Route", route);
                }
                draft.push("Contact", trunk.contact(called.from));
                draft.push("Allow", ALLOW);
                draft.push("Supported", SUPPORTED);
            }
            more(draft);
        })
    }

    pub(crate) fn ring(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        if self.phase == Phase::Called && self.ring_again().is_none() {
            self.say_ringing(trunk, core, now);
        }
    }

    /// 180, and if the PBX insists, in a way that does not get lost (RFC 3262 §3).
    fn say_ringing(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Role::Called(called) = &self.role else { return };
        if !called.insists {
            self.respond(180, trunk, core, now, |_| {});
            return;
        }
        let rseq = match &called.reliable {
            Some(last) => last.rseq() + 1,
            None => 1 + u32::try_from(core.chance.number() % (1 << 30)).unwrap_or(0),
        };
        let bytes = self.respond(180, trunk, core, now, |draft| {
            draft.push("Require", "100rel");
            draft.push("RSeq", rseq.to_string());
        });
        let Role::Called(called) = &mut self.role else { return };
        called.reliable = Some(Reliable::new(rseq, &called.request, called.from, bytes, now));
    }

    /// When our reliable 180 goes out again.
    pub(crate) fn reliable_next(&self) -> Option<Tick> {
        match &self.role {
            Role::Called(called) => called.reliable.as_ref()?.next(),
            Role::Caller(_) => None,
        }
    }

    /// When 180 goes out again.
    pub(crate) fn ring_again(&self) -> Option<Tick> {
        match &self.role {
            Role::Called(called) => called.ring_again,
            Role::Caller(_) => None,
        }
    }

    pub(crate) fn repeat_ringing(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        if self.ring_again().is_some_and(|at| at <= now.tick) {
            self.say_ringing(trunk, core, now);
        }
    }

    /// The 200.
    pub(crate) fn answer(&mut self, sdp: String, trunk: &Trunk, core: &mut Core, now: Now) {
        if self.phase != Phase::Called {
            return;
        }
        self.sdp_version = sdp::version_of(&sdp);
        let ours = match self.remote_sdp.as_slice() {
            [] => Ok(sdp.clone()),
            theirs => sdp::reply(&sdp, theirs, self.sdp_version),
        };
        let ours = match ours {
            Ok(ours) => ours,
            Err(fault) => {
                let refusal = Refusal { code: 488, warning: Some(fault.to_string()), retry_after: None };
                return self.refuse(refusal, trunk, core, now);
            }
        };
        // Not our answer: a later offer of the PBX may take what this one did not.
        self.first_sdp = sdp;
        self.local_sdp.clone_from(&ours);
        let Role::Called(called) = &self.role else { return };
        let headers = called.request.headers.clone();
        let terms = timer::answered(&headers, None, timer::wanted(trunk));
        let bytes = self.respond(200, trunk, core, now, |draft| {
            timer::push_answer(draft, terms, &headers);
            draft.body("application/sdp", ours);
        });
        self.time(terms, now);
        let Role::Called(called) = &self.role else { return };
        let offered = self.remote_sdp.is_empty();
        self.unacknowledged = Some(Unacknowledged::new(&called.request, called.from, bytes, offered, now));
        self.phase = Phase::Answering { leaving: false };
        self.deadline = None;
    }

    /// The final answer that is none, if there was none yet. Tells nothing.
    pub(crate) fn reject(
        &mut self,
        code: u16,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
        more: impl FnOnce(&mut Draft),
    ) {
        if self.phase == Phase::Called {
            self.respond(code, trunk, core, now, more);
            self.over(now);
        }
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal, trunk: &Trunk, core: &mut Core, now: Now) {
        let code = if (400..700).contains(&refusal.code) { refusal.code } else { 480 };
        if self.phase != Phase::Called {
            return self.hang_up(Cause { code: Some(code), text: wire::reason(code) }, trunk, core, now);
        }
        let words = refusal.warning.as_deref().map(clean).filter(|words| !words.is_empty());
        self.reject(code, trunk, core, now, |draft| {
            if let Some(words) = &words {
                draft.push("Warning", warning(words));
            }
            if let Some(seconds) = refusal.retry_after {
                draft.push("Retry-After", seconds.to_string());
            }
        });
        let text = format!("{code} {}", words.as_deref().unwrap_or(wire::reason(code)));
        self.end(EndedBy::Us, Some(code), None, text.trim_end().to_owned(), core);
    }

    /// Hanging up before the answer is refusing.
    pub(crate) fn decline(&mut self, cause: Cause, trunk: &Trunk, core: &mut Core, now: Now) {
        let warning = (!cause.text.is_empty()).then(|| cause.text.to_owned());
        let refusal = Refusal { code: cause.code.unwrap_or(480), warning, retry_after: None };
        self.refuse(refusal, trunk, core, now);
    }

    /// The PBX gives up. After our final answer that changes nothing (§9.2).
    fn cancelled(&mut self, cancel: &Request, trunk: &Trunk, core: &mut Core, now: Now) {
        if self.phase != Phase::Called {
            return;
        }
        self.reject(487, trunk, core, now, |_| {});
        let text = reason::text_or(&cancel.headers, "the caller gave up");
        self.end(EndedBy::Peer, Some(487), reason::q850(&cancel.headers), text, core);
    }

    /// Nobody answered as long as the PBX, or we, were willing to wait (§13.3.1).
    pub(crate) fn expire(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Role::Called(called) = &self.role else { return };
        let expired = called.expires.is_some_and(|at| at <= now.tick);
        let (code, text) = if expired {
            (487, "nobody answered before the PBX's INVITE expired")
        } else {
            (480, "nobody answered")
        };
        self.reject(code, trunk, core, now, |draft| draft.push("Warning", warning(text)));
        self.end(EndedBy::Timeout, Some(code), None, text.to_owned(), core);
    }
}

fn retry_later(draft: &mut Draft) {
    draft.push("Retry-After", RETRY_AFTER.to_string());
}

/// The call that an INVITE with Replaces takes the place of (RFC 3891 §3), if it comes from that call's trunk.
fn replaced(
    calls: &BTreeMap<u64, Call>,
    trunks: &Trunks,
    asked: &Asked<'_>,
) -> Result<Option<LegId>, (u16, &'static str)> {
    let mut all = asked.request.headers.all("Replaces");
    let Some(value) = all.next() else { return Ok(None) };
    let wanted = Replaces::read(value).filter(|_| all.next().is_none());
    let wanted = wanted.ok_or((400, "one Replaces with both tags is needed"))?;
    let Replaces { call_id, to_tag, from_tag, early_only } = &wanted;
    let admitted = |call: &&Call| trunks.get(call.trunk).is_some_and(|trunk| trunk.admits(asked.from.ip()));
    let named = |call: &&Call| match (&call.dialog, &call.role) {
        (Some(dialog), _) => dialog.is_named(call_id, to_tag, from_tag),
        (None, Role::Caller(caller)) => caller.is_early(call_id, to_tag, from_tag),
        (None, Role::Called(_)) => false,
    };
    let call = calls.values().filter(admitted).find(named).ok_or((481, "no call of that description"))?;
    match call.phase {
        _ if !call.live() => Err((603, "that call is over")),
        Phase::Talking | Phase::Answering { .. } if *early_only => Err((486, "that call has been answered")),
        Phase::Talking | Phase::Answering { .. } | Phase::Calling { .. } => Ok(Some(call.leg)),
        // Only who called may be replaced before the answer.
        Phase::Called | Phase::Cancelling { .. } | Phase::Over => Err((481, "no call of that description")),
    }
}
