//! Requests from the PBX: what is answered, what is refused, and with which status (RFC 3261 §8.2).

use crate::clock::Now;

use super::call::Call;
use super::header::quoted;
use super::transaction::{Incoming, ServerKey, way_back};
use super::trunk::Trunk;
use super::wire::{self, Bad, Draft, Request};
use super::words::Way;
use super::{ALLOW, Core, SUPPORTED, UserAgent};

/// A request that waits for an answer.
pub(crate) struct Asked<'a> {
    pub request: &'a Request,
    pub from: Way,
    pub key: ServerKey,
    /// The tag our To gets if it has none.
    pub tag: String,
}

impl Asked<'_> {
    /// Answers it, with more headers if `more` adds some.
    pub fn reply(&self, code: u16, core: &mut Core, now: Now, more: impl FnOnce(&mut Draft)) {
        self.reply_kept(code, core, now, more);
    }

    /// As [`reply`](Self::reply); gives the datagram back.
    pub fn reply_kept(&self, code: u16, core: &mut Core, now: Now, more: impl FnOnce(&mut Draft)) -> Vec<u8> {
        let mut draft = self.request.reply(code, &self.tag, self.from.address);
        more(&mut draft);
        draft.push("Server", core.settings.user_agent.clone());
        let bytes = draft.bytes();
        tracing::debug!(method = %self.request.method, code, "answered");
        core.transactions.respond(&self.key, code, bytes.clone(), now, &mut core.out);
        bytes
    }
}

/// The value of a Warning (RFC 3261 §20.43): 399, words for a person.
pub(crate) fn warning(text: &str) -> String {
    format!("399 watrunk {}", quoted(text))
}

impl UserAgent {
    /// A message that cannot be used: answered without a transaction, if it can be answered.
    pub(crate) fn bad(&mut self, bad: Bad, from: Way) {
        self.core.out.counters.malformed += 1;
        tracing::debug!(%from, why = bad.why, "malformed message");
        let Some((code, headers)) = bad.answer else { return };
        let mut draft = wire::reply(&headers, code, &self.core.chance.token(), from.address);
        draft.push("Warning", warning(bad.why));
        draft.push("Server", self.core.settings.user_agent.clone());
        self.core.out.send(from, draft.bytes());
    }

    /// A request came in.
    pub(crate) fn request(&mut self, request: &Request, from: Way, now: Now) {
        let core = &mut self.core;
        match core.transactions.request(request, from, now, &mut core.out) {
            Incoming::Absorbed => return,
            Incoming::Merged => return self.stateless(request, 482, from),
            Incoming::Full => return self.stateless(request, 503, from),
            Incoming::New => {}
        }
        if request.method == "ACK" {
            if let Some((call, trunk, core)) = self.party(request, from) {
                call.acknowledged(request, trunk, core, now);
            }
            return;
        }
        let key = ServerKey::of(request);
        let asked = Asked { request, from, key, tag: self.core.chance.token() };
        if let Err((code, name, value)) = acceptable(request) {
            return asked.reply(code, &mut self.core, now, |draft| draft.push(name, value));
        }
        if request.method == "CANCEL" {
            return self.cancelled(asked, now);
        }
        if !request.in_dialog() {
            return self.outside(&asked, now);
        }
        match self.party(request, from) {
            Some((call, trunk, core)) => inside(call, trunk, core, &asked, now),
            None => asked.reply(481, &mut self.core, now, |_| {}),
        }
    }

    /// An answer that leaves nothing behind.
    fn stateless(&mut self, request: &Request, code: u16, from: Way) {
        let mut draft = request.reply(code, &self.core.chance.token(), from.address);
        if code == 503 {
            draft.push("Retry-After", "10");
        }
        draft.push("Server", self.core.settings.user_agent.clone());
        self.core.out.send(way_back(request, from), draft.bytes());
    }

    /// The call a request belongs to, if it comes from that call's trunk.
    fn party(&mut self, request: &Request, from: Way) -> Option<(&mut Call, &Trunk, &mut Core)> {
        let call = self.calls.values_mut().find(|call| call.owns(request))?;
        let trunk = self.trunks.get(call.trunk)?;
        trunk.admits(from.ip()).then_some((call, trunk, &mut self.core))
    }

    /// A request outside every dialog.
    fn outside(&mut self, asked: &Asked<'_>, now: Now) {
        let core = &mut self.core;
        match asked.request.method.as_str() {
            "OPTIONS" => asked.reply(200, core, now, capabilities),
            "INVITE" => self.invited(asked, now),
            "NOTIFY" => {
                let event = asked.request.headers.get("Event").and_then(|event| event.split(';').next());
                // Waiting messages are told without being asked for by many PBXs; we only say thanks.
                let mwi = event.is_some_and(|event| event.trim().eq_ignore_ascii_case("message-summary"));
                asked.reply(if mwi { 200 } else { 489 }, core, now, |draft| {
                    if !mwi {
                        draft.push("Allow-Events", "message-summary");
                    }
                });
            }
            // Nobody is called on behalf of somebody with whom we are not in a call.
            "REFER" => asked.reply(403, core, now, |draft| {
                draft.push("Warning", warning("a transfer outside a call"));
            }),
            _ => asked.reply(481, core, now, |_| {}),
        }
    }
}

/// What every request is checked for before anything else: method, scheme, extensions. `Err`: status
/// and a header that explains it.
fn acceptable(request: &Request) -> Result<(), (u16, &'static str, String)> {
    if !wire::is_known(&request.method) {
        return Err((501, "Allow", ALLOW.to_owned()));
    }
    if !ALLOW.split(", ").any(|allowed| allowed == request.method) {
        return Err((405, "Allow", ALLOW.to_owned()));
    }
    if !request.uri.is_sip() && request.uri.scheme != "tel" {
        return Err((416, "Warning", warning("only sip, sips and tel")));
    }
    let known = |tag: &str| SUPPORTED.split(", ").any(|known| known.eq_ignore_ascii_case(tag));
    let required: Vec<&str> = request.headers.list("Require").filter(|tag| !known(tag)).collect();
    if !required.is_empty() && request.method != "CANCEL" {
        return Err((420, "Unsupported", required.join(", ")));
    }
    Ok(())
}

fn capabilities(draft: &mut Draft) {
    draft.push("Allow", ALLOW);
    draft.push("Accept", "application/sdp");
    draft.push("Accept-Encoding", "identity");
    draft.push("Accept-Language", "en");
    draft.push("Supported", SUPPORTED);
}

/// A request in a call.
fn inside(call: &mut Call, trunk: &Trunk, core: &mut Core, asked: &Asked<'_>, now: Now) {
    let request = asked.request;
    if call.too_late(request) {
        return asked.reply(481, core, now, |_| {});
    }
    match request.method.as_str() {
        "INVITE" | "UPDATE" => call.modified(asked, trunk, core, now),
        "BYE" => {
            asked.reply(200, core, now, |_| {});
            call.hung_up(request, trunk, core, now);
        }
        "OPTIONS" => asked.reply(200, core, now, capabilities),
        "INFO" => call.informed(asked, core, now),
        "PRACK" => call.acknowledged_provisional(asked, core, now),
        "REFER" => call.referred(asked, trunk, core, now),
        _ => asked.reply(481, core, now, |_| {}),
    }
}
