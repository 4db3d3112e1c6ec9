//! Sessions that are kept alive, or end (RFC 4028): who refreshes, how often, and when it is over.
//!
//! ```text
//! |---- refresh: half of it ----|------------------- Session-Expires --|
//! we refresh        UPDATE or re-INVITE                          BYE   |
//! the PBX does                                BYE: min(32 s, a third) before
//! ```

use std::time::Duration;

use crate::clock::{Now, Tick};

use super::Core;
use super::call::Call;
use super::header::{parameter, split_outside_quotes};
use super::trunk::Trunk;
use super::wire::{Draft, Headers};
use super::words::{Cause, EndedBy};

/// The shortest interval anybody may ask for (§5), in seconds.
pub(crate) const MIN_SE: u32 = 90;
/// Longer intervals than a day are as good as none.
const LONGEST: u32 = 86_400;
/// How much earlier than its end a session is given up that the PBX should have refreshed (§10).
const MARGIN: Duration = Duration::from_secs(32);

/// What two sides have agreed about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The interval, in seconds.
    pub seconds: u32,
    /// The PBX refreshes; else we do.
    pub theirs: bool,
}

/// The timer of a call that stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    pub terms: Terms,
    /// When we refresh, or try to again.
    pub refresh: Option<Tick>,
    /// When the call ends unless it has been refreshed.
    end: Tick,
}

impl Session {
    fn begun(terms: Terms, now: Now) -> Session {
        let interval = Duration::from_secs(u64::from(terms.seconds));
        let margin = if terms.theirs { MARGIN.min(interval / 3) } else { Duration::ZERO };
        let refresh = (!terms.theirs).then_some(now.tick + interval / 2);
        Session { terms, refresh, end: now.tick + (interval - margin) }
    }

    pub fn next(&self) -> Tick {
        self.refresh.map_or(self.end, |refresh| refresh.min(self.end))
    }
}

/// What the PBX can do, as far as it has said so.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Abilities {
    /// It takes UPDATE (RFC 3311).
    pub update: bool,
}

impl Abilities {
    /// Reads Allow, if a message has it.
    pub fn learn(&mut self, headers: &Headers) {
        if headers.get("Allow").is_some() {
            self.update = headers.list("Allow").any(|method| method == "UPDATE");
        }
    }
}

/// `Session-Expires: 1800;refresher=uac`: seconds, and whether it is the sender of the request (`uac`) who refreshes.
fn session_expires(headers: &Headers) -> Option<(u32, Option<bool>)> {
    let mut parts = split_outside_quotes(headers.get("Session-Expires")?, ';')?.into_iter();
    let seconds = parts.next()?.trim().parse::<u32>().ok().filter(|seconds| *seconds > 0)?;
    let refresher = parts.map(parameter).find(|(name, _)| name == "refresher").and_then(|(_, who)| who);
    let uac = match refresher.map(|who| who.to_ascii_lowercase()).as_deref() {
        Some("uac") => Some(true),
        Some("uas") => Some(false),
        Some(_) | None => None,
    };
    Some((seconds.min(LONGEST), uac))
}

/// The value of Min-SE, never less than 90.
pub(crate) fn min_se(headers: &Headers) -> u32 {
    let value = headers.get("Min-SE").and_then(|value| value.split(';').next()?.trim().parse().ok());
    value.unwrap_or(MIN_SE).clamp(MIN_SE, LONGEST)
}

/// Whether an option tag stands in Supported or Require.
pub(crate) fn knows(headers: &Headers, tag: &str) -> bool {
    ["Supported", "Require"]
        .iter()
        .any(|name| headers.list(name).any(|known| known.eq_ignore_ascii_case(tag)))
}

/// The interval a trunk wants, in seconds.
pub(crate) fn wanted(trunk: &Trunk) -> Option<u32> {
    let span = trunk.settings.session_expires?;
    Some(u32::try_from(span.as_secs()).unwrap_or(LONGEST).clamp(MIN_SE, LONGEST))
}

/// An INVITE or UPDATE whose interval is too short for us gets 422 (§9).
pub(crate) fn too_short(headers: &Headers) -> bool {
    knows(headers, "timer") && session_expires(headers).is_some_and(|(seconds, _)| seconds < MIN_SE)
}

/// What we answer to a request that begins or refreshes a session (§9, table 2). `present`: what holds until now.
pub(crate) fn answered(headers: &Headers, present: Option<Terms>, wanted: Option<u32>) -> Option<Terms> {
    let knows = knows(headers, "timer");
    let least = min_se(headers);
    match session_expires(headers) {
        // A proxy put it there, and the PBX cannot be asked for more.
        Some((seconds, _)) if seconds < MIN_SE => None,
        Some((seconds, uac)) => {
            let seconds = wanted.map_or(seconds, |wanted| seconds.min(wanted.max(least)));
            let theirs = uac.or(present.map(|present| present.theirs)).unwrap_or(true);
            Some(Terms { seconds, theirs: theirs && knows })
        }
        None => {
            let seconds = present.map(|present| present.seconds).or(wanted)?.max(least);
            let theirs = present.is_none_or(|present| present.theirs);
            Some(Terms { seconds, theirs: theirs && knows })
        }
    }
}

/// Says in a 2xx what [`answered`] came to.
pub(crate) fn push_answer(draft: &mut Draft, terms: Option<Terms>, request: &Headers) {
    let Some(terms) = terms else { return };
    if knows(request, "timer") {
        draft.push("Require", "timer");
    }
    let refresher = if terms.theirs { "uac" } else { "uas" };
    draft.push("Session-Expires", format!("{};refresher={refresher}", terms.seconds));
}

impl Call {
    /// The interval begins, or begins anew.
    pub(crate) fn time(&mut self, terms: Option<Terms>, now: Now) {
        self.session = terms.map(|terms| Session::begun(terms, now));
    }

    /// What a 2xx to a request of ours says about the timer (§7.2). Without Session-Expires there is none.
    pub(crate) fn timed_by(&mut self, answer: &Headers, now: Now) {
        let terms = session_expires(answer)
            .map(|(seconds, uac)| Terms { seconds: seconds.max(MIN_SE), theirs: !uac.unwrap_or(true) });
        self.time(terms, now);
    }

    /// Refreshes the session, or ends it.
    pub(crate) fn session_due(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        if !self.talking() {
            return;
        }
        let Some(session) = self.session.as_mut() else { return };
        if session.end <= now.tick {
            let Terms { seconds, theirs } = session.terms;
            let whose = if theirs { "the PBX did not refresh it" } else { "it could not be refreshed" };
            let text = format!("the session expired: {whose} within its {seconds} s");
            return self.abandon("session expired", text, trunk, core, now);
        }
        if session.refresh.take_if(|at| *at <= now.tick).is_some() {
            self.refresh(trunk, core, now);
        }
    }

    /// BYE, because the PBX is not there any more.
    pub(crate) fn abandon(
        &mut self,
        why: &'static str,
        text: String,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
    ) {
        self.cause = Cause { code: Some(408), text: why };
        self.bye(trunk, core, now);
        self.end(EndedBy::Timeout, None, None, text, core);
    }
}
