//! Why a call ended: Reason (RFC 3326) with SIP and Q.850 causes, said and read, and what else an answer says for a person.

use super::header::{clean, parameter, quoted, split_outside_quotes, unquote};
use super::wire::{self, Draft, Headers, Response};
use super::words::Cause;

/// A text of the PBX is not kept longer than this, in characters.
const LONGEST: usize = 80;

/// The value of Reason for a request that ends a call.
pub(crate) fn reason_header(cause: Cause) -> Option<String> {
    cause.code.map(|code| format!("SIP;cause={code};text={}", quoted(cause.text)))
}

/// Says why in a request that ends a call.
pub(crate) fn push_reason(draft: &mut Draft, cause: Cause) {
    if let Some(value) = reason_header(cause) {
        draft.push("Reason", value);
    }
}

/// The elements of Reason of that protocol, as their parameters.
fn elements(headers: &Headers, protocol: &str) -> Vec<Vec<(String, Option<String>)>> {
    let mut found = Vec::new();
    for element in headers.list("Reason") {
        let Some(parts) = split_outside_quotes(element, ';') else { continue };
        let mut parts = parts.into_iter();
        if parts.next().is_some_and(|name| name.trim().eq_ignore_ascii_case(protocol)) {
            found.push(parts.map(parameter).collect());
        }
    }
    found
}

fn cause(headers: &Headers, protocol: &str) -> Option<u16> {
    elements(headers, protocol).iter().flatten().find_map(|(name, value)| {
        let value = value.as_deref().filter(|_| name == "cause")?;
        value.trim().parse().ok().filter(|cause| *cause > 0)
    })
}

/// The Q.850 cause.
pub(crate) fn q850(headers: &Headers) -> Option<u16> {
    cause(headers, "Q.850")
}

/// The first text in Reason, whichever protocol it goes with.
fn text(headers: &Headers) -> Option<String> {
    let texts = headers.list("Reason").filter_map(|element| {
        let parts = split_outside_quotes(element, ';')?;
        let text = parts.into_iter().skip(1).map(parameter).find(|(name, _)| name == "text")?.1?;
        Some(clean(&text)).filter(|text| !text.is_empty())
    });
    texts.map(|text| text.chars().take(LONGEST).collect()).next()
}

/// What a CANCEL or BYE says: its text, else its causes after `otherwise`, else that alone.
pub(crate) fn text_or(headers: &Headers, otherwise: &str) -> String {
    if let Some(text) = text(headers) {
        return text;
    }
    let sip = cause(headers, "SIP").map(|code| format!("{code} {}", wire::reason(code)));
    let q850 = q850(headers).map(|cause| format!("Q.850 cause {cause}"));
    let causes: Vec<String> = sip.into_iter().chain(q850).collect();
    if causes.is_empty() { otherwise.to_owned() } else { format!("{otherwise}: {}", causes.join(", ")) }
}

/// What a refusal says: its status, and the text of its Reason or Warning if that says more.
pub(crate) fn refusal(response: &Response) -> String {
    let status = response.text();
    let warning = response.headers.list("Warning").find_map(|warning| {
        let text = warning.trim().splitn(3, ' ').nth(2)?;
        let text = clean(&unquote(text.trim()));
        (!text.is_empty()).then(|| text.chars().take(LONGEST).collect::<String>())
    });
    match text(&response.headers).or(warning).filter(|more| !status.contains(more.as_str())) {
        Some(more) => format!("{status}: {more}"),
        None => status,
    }
}
