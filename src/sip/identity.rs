//! Who calls, who had the call diverted, and who must not be known: From, P-Asserted-Identity (RFC 3325), Privacy (RFC 3323),
//! Diversion (RFC 5806), History-Info (RFC 7044).

use super::header::{NameAddr, clean};
use super::wire::{Headers, Request};

/// A user part longer than this is nobody we could call.
pub(crate) const LONGEST_USER: usize = 128;

/// The From of somebody who must not be known (RFC 3323 §4.1.1.3).
pub(crate) const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

fn short(text: &str) -> String {
    clean(text).chars().take(LONGEST_USER).collect()
}

/// Who calls, and by what name: P-Asserted-Identity if the PBX says it, else From.
pub(crate) fn caller(request: &Request) -> (String, Option<String>) {
    let asserted = request.headers.list("P-Asserted-Identity").filter_map(NameAddr::read);
    let mut parties = asserted.filter(|party| party.uri.person().is_some());
    let party = parties.next();
    let party = party.as_ref().unwrap_or(&request.from);
    let user = short(&party.uri.person().unwrap_or_default());
    let name = party.display.as_deref().or(request.from.display.as_deref()).map(short);
    (user, name.filter(|name| !name.is_empty()))
}

/// Whom From names.
pub(crate) fn shown(request: &Request) -> String {
    short(&request.from.uri.person().unwrap_or_default())
}

/// Whether the caller wishes not to be known to the callee.
pub(crate) fn anonymous(request: &Request) -> bool {
    let private = ["id", "user", "header", "session"];
    let asked = request
        .headers
        .list("Privacy")
        .flat_map(|values| values.split(';'))
        .any(|value| private.iter().any(|word| value.trim().eq_ignore_ascii_case(word)));
    let host = request.from.uri.host.as_str();
    asked || host == "anonymous.invalid" || host.ends_with(".anonymous.invalid")
}

/// Who was called before us.
pub(crate) fn diverted_by(headers: &Headers) -> Option<String> {
    let user = |entry: NameAddr| entry.uri.person().map(|user| short(&user)).filter(|user| !user.is_empty());
    if let Some(latest) = headers.list("Diversion").filter_map(NameAddr::read).find_map(user) {
        return Some(latest);
    }
    let mut entries: Vec<NameAddr> = headers.list("History-Info").filter_map(NameAddr::read).collect();
    // The last one is whom the call is for now.
    entries.pop()?;
    user(entries.pop()?)
}
