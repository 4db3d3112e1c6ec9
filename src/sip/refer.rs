//! The PBX transfers a call: REFER in, NOTIFY out (RFC 3515, RFC 5589), with Replaces (RFC 3891) if it is attended.
//!
//! ```text
//! REFER        -> 202, Referred, NOTIFY 100
//! refer_told   -> NOTIFY with the status, one at a time; 200 and above: the last one
//! ```

use std::time::Duration;

use crate::clock::{Now, Tick};

use super::Core;
use super::call::{Asking, Call};
use super::header::{NameAddr, Uri, clean, parameter, percent_decoded, without_headers};
use super::serve::{Asked, warning};
use super::transaction::Owner;
use super::trunk::Trunk;
use super::wire::{self, Headers, Response};
use super::words::{Event, Refer};

/// How long a transfer may take until the PBX is told that it failed.
const LONGEST: Duration = Duration::from_secs(180);

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Referring {
    /// The value of Event.
    event: String,
    /// The PBX wants to hear nothing of it (RFC 4488).
    silent: bool,
    /// The status whose NOTIFY waits for its answer.
    under_way: Option<u16>,
    /// The status that is told next.
    waiting: Option<u16>,
    end: Tick,
}

/// Which dialog an INVITE takes the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replaces {
    pub call_id: String,
    /// Our tag.
    pub to_tag: String,
    /// The PBX's.
    pub from_tag: String,
    pub early_only: bool,
}

impl Replaces {
    /// `call-id;to-tag=…;from-tag=…;early-only`
    pub fn read(value: &str) -> Option<Replaces> {
        let mut parts = value.split(';');
        let call_id = parts.next()?.trim().to_owned();
        let (mut to_tag, mut from_tag, mut early_only) = (None, None, false);
        for (name, value) in parts.map(parameter) {
            match name.as_str() {
                "to-tag" => to_tag = value,
                "from-tag" => from_tag = value,
                "early-only" => early_only = true,
                _ => {}
            }
        }
        // A tag of 0 stands for none: a dialog with somebody from before RFC 3261 (§6.1).
        let from_tag = from_tag.map(|tag| if tag == "0" { String::new() } else { tag })?;
        Some(Replaces { call_id, to_tag: to_tag?, from_tag, early_only })
            .filter(|read| !read.call_id.is_empty())
    }
}

/// What is wrong with a REFER: the status, and words for a person.
type Fault = (u16, &'static str);

impl Refer {
    /// Reads Refer-To and Referred-By.
    fn read(headers: &Headers) -> Result<Refer, Fault> {
        let mut all = headers.list("Refer-To");
        let (Some(value), None) = (all.next(), all.next()) else {
            return Err((400, "REFER needs exactly one Refer-To"));
        };
        // Some leave the brackets out although headers follow.
        let bracketed;
        let value = if value.contains('<') {
            value
        } else {
            bracketed = format!("<{value}>");
            &bracketed
        };
        let target = NameAddr::read(value).ok_or((400, "Refer-To is malformed"))?;
        let Uri { scheme, params, .. } = &target.uri;
        if !target.uri.is_sip() && scheme != "tel" {
            return Err((416, "Refer-To is not sip, sips or tel"));
        }
        let method =
            params.iter().find(|(name, _)| name == "method").and_then(|(_, method)| method.as_deref());
        if method.is_some_and(|method| !method.eq_ignore_ascii_case("INVITE")) {
            return Err((501, "only calls are made for a REFER"));
        }
        let (to_uri, inside) = without_headers(&target.uri_text);
        let mut replaces = None;
        for (name, value) in inside.split('&').filter_map(|header| header.split_once('=')) {
            if percent_decoded(name).eq_ignore_ascii_case("Replaces") {
                let value = clean(&percent_decoded(value));
                Replaces::read(&value).ok_or((400, "Replaces in Refer-To is malformed"))?;
                replaces = Some(value);
            }
        }
        Ok(Refer {
            to_user: clean(&target.uri.person().unwrap_or_default()),
            to_host: target.uri.is_sip().then(|| target.uri.host_port_text()),
            to_uri: clean(to_uri),
            replaces,
            referred_by: headers.get("Referred-By").map(clean).filter(|by| !by.is_empty()),
        })
    }
}

impl Call {
    /// REFER in this call.
    pub(crate) fn referred(&mut self, asked: &Asked<'_>, trunk: &Trunk, core: &mut Core, now: Now) {
        let headers = &asked.request.headers;
        // One transfer at a time, and none before the call stands.
        if !self.talking() || self.referring.is_some() {
            let why = if self.talking() { "a transfer is under way" } else { "the call does not stand yet" };
            return asked.reply(491, core, now, |draft| draft.push("Warning", warning(why)));
        }
        let refer = match Refer::read(headers) {
            Ok(refer) => refer,
            Err((code, why)) => {
                return asked.reply(code, core, now, |draft| draft.push("Warning", warning(why)));
            }
        };
        let in_order = self.dialog.as_mut().is_some_and(|dialog| dialog.in_order(asked.request));
        if !in_order {
            return asked.reply(500, core, now, |draft| draft.push("Retry-After", "2"));
        }
        if let Some(dialog) = self.dialog.as_mut() {
            dialog.refresh_target(headers);
            dialog.seen = asked.from;
        }
        let silent =
            headers.get("Refer-Sub").is_some_and(|wanted| wanted.trim().eq_ignore_ascii_case("false"));
        asked.reply(202, core, now, |draft| {
            draft.push("Contact", trunk.contact(asked.from));
            if silent {
                draft.push("Refer-Sub", "false");
            }
        });
        // §2.4.6: only from the second one on must they be told apart.
        let event = match std::mem::replace(&mut self.referred_once, true) {
            false => "refer".to_owned(),
            true => format!("refer;id={}", asked.request.cseq),
        };
        let end = now.tick + LONGEST;
        self.referring = Some(Referring { event, silent, under_way: None, waiting: None, end });
        tracing::debug!(attended = refer.replaces.is_some(), "the PBX transfers the call");
        core.tell(Event::Referred { leg: self.leg, refer });
        self.refer_told(100, trunk, core, now);
    }

    /// The status of what a REFER asked for.
    pub(crate) fn refer_told(&mut self, code: u16, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(referring) = self.referring.as_mut() else { return };
        let code = if (100..700).contains(&code) { code } else { 500 };
        if referring.waiting.or(referring.under_way).is_some_and(|last| last >= 200 || last == code) {
            return;
        }
        if referring.silent {
            self.referring.take_if(|_| code >= 200);
            return;
        }
        referring.waiting = Some(code);
        if referring.under_way.is_none() {
            self.notify(trunk, core, now);
        }
    }

    /// The next NOTIFY.
    fn notify(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(referring) = self.referring.as_mut() else { return };
        let Some(code) = referring.waiting.take() else { return };
        referring.under_way = Some(code);
        self.digest.begin();
        self.send_notify(trunk, core, now);
    }

    fn send_notify(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(referring) = self.referring.as_ref().filter(|_| self.talking()) else { return };
        let Some(code) = referring.under_way else { return };
        let left = referring.end.since(now.tick).as_secs();
        let state = match code {
            ..200 => format!("active;expires={left}"),
            200.. => "terminated;reason=noresource".to_owned(),
        };
        let headers = vec![("Event", referring.event.clone()), ("Subscription-State", state)];
        let status = format!("SIP/2.0 {code} {}\r\n", wire::reason(code)).into_bytes();
        let body = Some(("message/sipfrag;version=2.0", status));
        let asking =
            Asking { method: "NOTIFY", owner: Owner::Notify(self.number), contact: true, headers, body };
        self.ask(asking, trunk, core, now);
    }

    /// An answer to our NOTIFY.
    pub(crate) fn notify_answered(&mut self, response: &Response, trunk: &Trunk, core: &mut Core, now: Now) {
        if response.code < 200 || self.referring.is_none() {
            return;
        }
        if self.challenged(response, trunk) {
            return self.send_notify(trunk, core, now);
        }
        if response.code >= 300 {
            tracing::debug!(code = response.code, "the PBX does not want to hear how the transfer goes");
            return self.notify_lost();
        }
        let Some(referring) = self.referring.as_mut() else { return };
        if referring.under_way.take().is_some_and(|code| code >= 200) {
            self.referring = None;
        } else {
            self.notify(trunk, core, now);
        }
    }

    /// The PBX does not listen (RFC 6665 §4.2.2): nothing more is told, but the transfer goes on.
    pub(crate) fn notify_lost(&mut self) {
        if let Some(referring) = self.referring.as_mut() {
            let over = referring.waiting.or(referring.under_way).is_some_and(|code| code >= 200);
            referring.silent = true;
            referring.under_way = None;
            referring.waiting = None;
            self.referring.take_if(|_| over);
        }
    }

    /// When a transfer has taken too long.
    pub(crate) fn referring_until(&self) -> Option<Tick> {
        self.referring.as_ref().map(|referring| referring.end)
    }

    pub(crate) fn referring_due(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some(referring) = self.referring.as_mut().filter(|referring| referring.end <= now.tick) else {
            return;
        };
        let told = referring.waiting.or(referring.under_way).is_some_and(|last| last >= 200);
        if told || referring.silent {
            self.referring = None;
        } else {
            // The end of it waits for nothing but its own answer.
            referring.end = now.tick + super::transaction::PATIENCE + super::transaction::T4;
            self.refer_told(408, trunk, core, now);
        }
    }
}
