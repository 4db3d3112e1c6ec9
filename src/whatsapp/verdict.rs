//! What an answer of Graph means for the call, for the PBX and for the operator.
//!
//! Codes and their meaning: Meta's "Calling API troubleshooting" page; the general codes: Graph API
//! error handling. What to do about each is our own judgement.

use std::fmt;

use serde_json::Value;

use super::notice::{self, CallFault};
use super::redact::scrub;
use crate::call::leg::Why;

/// What kind of no it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictKind {
    /// What was asked has happened already, or the call is no longer there: nothing is wrong.
    AlreadyOver,
    /// This call can't be had, others may. Trying the same again does not help.
    Refused,
    /// Token, permission, payment, mode of the number: no call will work until somebody acts. WARN.
    Misconfigured,
    /// Too much at the moment.
    Throttled,
    /// No answer from Graph, or only that it is broken.
    Unreachable,
}

/// Whether and when the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Again {
    /// It would get the same answer, or an answer that comes too late for this call.
    Never,
    /// One more time.
    Once,
    /// With growing pauses, as long as the action's time lasts.
    BackOff,
}

/// The meaning of one refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Meta's error code, if it gave one.
    pub code: Option<i64>,
    /// The HTTP status, if there was an answer.
    pub http: Option<u16>,
    /// Message and details for an operator, without token, phone number or line breaks.
    pub text: String,
    /// What kind of no it was.
    pub kind: VerdictKind,
    /// What the PBX is told if the call was its own.
    pub sip_code: u16,
    /// What an operator can do.
    pub cure: &'static str,
    /// Whether the same request may be sent again.
    pub again: Again,
    /// Meta's id of the failed request: its support asks for it.
    pub trace: Option<String>,
    /// Meta may have done what was asked all the same: no clear answer to one of the tries was heard.
    pub in_doubt: bool,
    /// Meta's own word on when to try again, in seconds.
    pub retry_after: Option<u32>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match (self.code, self.http) {
            (Some(code), Some(http)) => write!(f, " (code {code}, HTTP {http})"),
            (Some(code), None) => write!(f, " (code {code})"),
            (None, Some(http)) => write!(f, " (HTTP {http})"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for Verdict {}

/// One row of the table of codes.
struct Row {
    kind: VerdictKind,
    sip: u16,
    again: Again,
    cure: &'static str,
}

const fn row(kind: VerdictKind, sip: u16, again: Again, cure: &'static str) -> Row {
    Row { kind, sip, again, cure }
}

/// The table: Meta's code to its meaning. None: not in any list that was found.
fn known(code: i64) -> Option<Row> {
    use Again::{BackOff, Never, Once};
    use VerdictKind::{AlreadyOver, Misconfigured, Refused, Throttled, Unreachable};
    Some(match code {
        0 | 190 => row(
            Misconfigured,
            503,
            Never,
            "the access token is invalid or has expired: put a system user's token into whatsapp.access_token",
        ),
        3 | 10 | 200..=299 => row(
            Misconfigured,
            503,
            Never,
            "give the app the permission whatsapp_business_messaging on this account and make a new token",
        ),
        4 | 80_007 | 130_429 => row(
            Throttled,
            503,
            BackOff,
            "Meta limits how fast the app may ask: fewer calls at a time, or wait",
        ),
        100 => {
            row(Refused, 500, Never, "Meta found a parameter or the SDP invalid: report it with this text")
        }
        368 => row(
            Refused,
            403,
            Never,
            "Meta blocks the account for a breach of its policies: see Business Manager",
        ),
        613 => row(Throttled, 503, BackOff, "permissions were asked for too often: wait a minute"),
        131_009 => row(Refused, 403, Never, "this message type is not available in the user's country"),
        131_026 => {
            row(Refused, 404, Never, "the user can't get this: no WhatsApp, or a version that is too old")
        }
        131_030 => row(
            Refused,
            403,
            Never,
            "a test number may call only the numbers on its list: add the user there",
        ),
        131_042 | 131_044 => row(
            Misconfigured,
            503,
            Never,
            "the account has no valid payment method: add one in Meta Business Manager, Billing",
        ),
        131_047 => row(
            Refused,
            403,
            Never,
            "the user has not written in the last 24 hours: send an approved template that asks for the permission",
        ),
        131_055 => row(
            Misconfigured,
            503,
            Never,
            "the number is in SIP mode: set calling.sip.status to DISABLED in its settings",
        ),
        138_000 => row(
            Misconfigured,
            503,
            Never,
            "calling is not enabled on the number: set calling.status to ENABLED",
        ),
        138_001 => row(Refused, 404, Never, "the number has no WhatsApp that can be called"),
        138_002 => {
            row(Throttled, 486, Never, "the number has as many calls as Meta allows: wait for one to end")
        }
        138_003 => {
            row(Refused, 486, Never, "there is a call with this user already: wait until it has ended")
        }
        138_004 => row(Unreachable, 503, Once, "Meta could not connect the call: try again"),
        138_005 => row(Throttled, 503, Never, "the number has started too many calls: try later"),
        138_006 => row(Refused, 403, Never, "the user has not allowed calls: send a call permission request"),
        138_007 => row(Refused, 503, Never, "the SDP came too late for Meta: place a new call"),
        138_008 => row(Refused, 500, Never, "Meta found the SDP invalid: report it with this text"),
        138_009 => row(Throttled, 403, Never, "this user was asked for permission too often: wait a day"),
        138_011 => row(
            Refused,
            403,
            Never,
            "exchange a message with the user first, then send the permission request",
        ),
        138_010 | 138_016 => {
            row(Refused, 503, Never, "Meta does not say what this code means: report it with this text")
        }
        138_012 => row(
            Refused,
            486,
            Never,
            "the limit of calls with this user in 24 hours: the text says when it ends",
        ),
        138_013 => row(Refused, 403, Never, "the business number's country does not allow calls to users"),
        138_014 => row(
            Refused,
            403,
            Never,
            "Meta paused calling because of bad feedback: the number's settings say until when",
        ),
        138_015 => row(
            Misconfigured,
            503,
            Never,
            "calling needs a messaging limit of at least 2000 users a day: verify the business, let the number \
             send more good messages, or use Meta's test number, which is exempt",
        ),
        138_017 => row(AlreadyOver, 480, Never, "none needed: the user has allowed calls for good"),
        138_018 => row(
            Misconfigured,
            503,
            Never,
            "subscribe the app to the webhook field \"calls\" (App Dashboard, WhatsApp, Configuration) and to \
             the account (POST <WABA_ID>/subscribed_apps) before enabling calling",
        ),
        138_019 => row(Refused, 480, Never, "the user's app could not set the call up: try later"),
        138_020 => row(Refused, 480, Never, "the user's app could not reach Meta's relay: try later"),
        138_021 => row(
            Refused,
            480,
            Never,
            "no sound reached the user: check UDP out of this box, the NAT address and the provider's VoIP blocking",
        ),
        138_022 => row(Refused, 480, Never, "the user's app sent no sound: try later"),
        138_023 => row(Refused, 480, Never, "the user's app lost its connection: try later"),
        _ => return None,
    })
}

/// The parts of Graph's error body. Only message, type, code and trace id are promised.
struct GraphFault {
    code: Option<i64>,
    subcode: Option<i64>,
    text: String,
    transient: bool,
    trace: Option<String>,
}

impl GraphFault {
    fn read(error: &Value) -> GraphFault {
        let fault = notice::fault(error);
        let title =
            error.get("error_user_msg").or_else(|| error.get("error_user_title")).and_then(Value::as_str);
        let mut text = fault.as_ref().map(|fault| fault.message.clone()).unwrap_or_else(|| {
            error.get("message").or(Some(error)).and_then(Value::as_str).unwrap_or_default().to_owned()
        });
        if let Some(title) = title.filter(|title| !text.contains(title)) {
            text = if text.is_empty() { title.to_owned() } else { format!("{text}: {title}") };
        }
        GraphFault {
            code: fault.map(|fault| fault.code),
            subcode: error.get("error_subcode").and_then(Value::as_i64),
            text,
            transient: error.get("is_transient").and_then(Value::as_bool).unwrap_or(false),
            trace: error
                .get("fbtrace_id")
                .and_then(Value::as_str)
                .filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic()))
                .map(str::to_owned),
        }
    }
}

impl Verdict {
    /// Judges an HTTP answer. None: it was a yes.
    pub fn of_http(status: u16, body: &[u8]) -> Option<Verdict> {
        // An error body of ours has a few hundred bytes; more is a proxy's page and is not parsed.
        let json: Option<Value> =
            body.get(..body.len().min(64 * 1024)).and_then(|body| serde_json::from_slice(body).ok());
        let error = json.as_ref().and_then(|json| json.get("error"));
        if (200..300).contains(&status) && error.is_none() {
            let success = json.as_ref().and_then(|json| json.get("success"));
            if success != Some(&Value::Bool(false)) {
                return None;
            }
        }
        let fault = error.map(GraphFault::read);
        let mut verdict = Verdict::of_fault(fault.as_ref(), status);
        verdict.http = Some(status);
        // A code of Meta's own is a clear no; a server that only broke may have done it before.
        let clear = verdict.code.is_some_and(|code| known(code).is_some());
        verdict.in_doubt = verdict.kind == VerdictKind::Unreachable && !clear;
        Some(verdict)
    }

    /// Judges the error in a terminate webhook.
    pub fn of_call_fault(fault: &CallFault) -> Verdict {
        let row = known(fault.code).unwrap_or(UNKNOWN);
        Verdict::from_row(row, Some(fault.code), &fault.message, None)
    }

    /// No answer in time.
    pub fn of_timeout() -> Verdict {
        let row =
            row(VerdictKind::Unreachable, 503, Again::BackOff, "see whether this box reaches graph_url");
        Verdict { in_doubt: true, ..Verdict::from_row(row, None, "no answer from Graph in time", None) }
    }

    /// The connection broke before the whole answer was here; `why` in the words of the client.
    pub fn of_broken_off(why: &str) -> Verdict {
        let row = row(
            VerdictKind::Unreachable,
            503,
            Again::BackOff,
            "see whether this box has a stable way to graph_url",
        );
        let text = format!("the connection to Graph broke: {why}");
        Verdict { in_doubt: true, ..Verdict::from_row(row, None, &text, None) }
    }

    /// An answer that can't be read: `what` was asked about.
    pub fn of_nonsense(what: &str) -> Verdict {
        let row = row(VerdictKind::Refused, 503, Again::Never, "Meta has changed its answer: report it");
        Verdict::from_row(row, None, &format!("Graph's answer about {what} can't be read"), None)
    }

    /// No connection; `why` in the words of the client.
    pub fn of_unreachable(why: &str) -> Verdict {
        let row = row(
            VerdictKind::Unreachable,
            503,
            Again::BackOff,
            "see whether this box has DNS, the right time for TLS, and a way to graph_url",
        );
        Verdict::from_row(row, None, &format!("Graph can't be reached: {why}"), None)
    }

    /// It is not the end of the call that is meant, but that somebody has taken it already.
    pub(super) fn says_taken(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        ["accept", "in progress"].iter().any(|word| text.contains(word))
            && !["terminat", "ended", "hung up", "reject"].iter().any(|word| text.contains(word))
    }

    fn of_fault(fault: Option<&GraphFault>, status: u16) -> Verdict {
        let Some(fault) = fault else {
            let text = if status < 300 {
                "Graph says that it did not succeed"
            } else {
                "Graph refused without a reason"
            };
            return Verdict::from_row(by_status(status), None, text, None);
        };
        // Meta has no code for "too late": it comes as 100 or as something new, and only the words tell.
        let vague = fault.code.is_none_or(|code| code == 100 || known(code).is_none());
        let row = if fault.code == Some(100) && fault.subcode == Some(33) {
            WRONG_ADDRESS
        } else if vague && speaks_of_over(&fault.text) {
            row(VerdictKind::AlreadyOver, 480, Again::Never, "none needed: the call was over")
        } else {
            fault
                .code
                .and_then(known)
                .unwrap_or_else(|| if fault.transient { BROKEN_FOR_NOW } else { by_status(status) })
        };
        Verdict::from_row(row, fault.code, &fault.text, fault.trace.clone())
    }

    fn from_row(row: Row, code: Option<i64>, text: &str, trace: Option<String>) -> Verdict {
        let text = scrub(text);
        Verdict {
            code,
            http: None,
            text: if text.is_empty() { String::from("no reason given") } else { text },
            kind: row.kind,
            sip_code: row.sip,
            cure: row.cure,
            again: row.again,
            trace,
            in_doubt: false,
            retry_after: None,
        }
    }

    /// Why a call ended whose `connect` got this verdict.
    pub fn why(&self) -> Why {
        match (self.code, self.kind) {
            (Some(138_006), _) => Why::NoPermission,
            (Some(138_001 | 131_026 | 131_030), _) => Why::NotOnWhatsApp,
            (Some(138_003), _) => Why::UserBusy,
            (Some(138_012), _) | (_, VerdictKind::Throttled) => Why::Throttled,
            (_, VerdictKind::Unreachable) => Why::GraphUnreachable,
            (_, VerdictKind::Refused | VerdictKind::Misconfigured | VerdictKind::AlreadyOver) => {
                Why::GraphRefused
            }
        }
    }
}

/// Seconds until a PBX may try again, where Meta does not say: rates are counted per minute and longer.
const AFTER_THROTTLING: u32 = 60;
/// The same where Graph did not answer, or where this gateway restarts.
const AFTER_TROUBLE: u32 = 30;
/// The longest pause that is asked of a PBX, in seconds: some stay away from the whole trunk for that long.
const LONGEST_PAUSE: u32 = 600;
/// Longest Warning text, in characters: it shares a UDP datagram with a whole response.
const MAX_WARNING: usize = 240;

/// How a PBX is told that its call to a WhatsApp user is not to be: the status code, the text for
/// `Warning` (RFC 3261 §20.43; without quotes, an admin understands it), and the seconds for
/// `Retry-After`, only with 503.
///
/// `verdict` is what Graph said to `connect`, if it was Graph that said no.
pub fn sip_refusal(why: Why, verdict: Option<&Verdict>) -> (u16, String, Option<u32>) {
    let (code, words, pause) = refusal(why);
    let said = verdict.filter(|verdict| verdict.why() == why);
    let code = said.map_or(code, |verdict| verdict.sip_code);
    let mut warning = String::from(words);
    if let Some(verdict) = verdict {
        let whose = match verdict.kind {
            VerdictKind::Unreachable => "",
            _ => "Meta says: ",
        };
        warning = format!("{words}: {}. {whose}{verdict}", verdict.cure);
    }
    let plain = |letter: char| match letter {
        '"' => '\'',
        '\\' => '/',
        letter if letter.is_control() => ' ',
        letter => letter,
    };
    let warning = warning.chars().map(plain).take(MAX_WARNING).collect();
    let asked = said.and_then(|verdict| verdict.retry_after).filter(|seconds| *seconds > 0);
    let pause = pause.filter(|_| code == 503).map(|usual| asked.unwrap_or(usual).min(LONGEST_PAUSE));
    (code, warning, pause)
}

/// The code, the words and the pause for each ending of a call that the PBX placed and nobody answered.
fn refusal(why: Why) -> (u16, &'static str, Option<u32>) {
    let (code, words) = match why {
        Why::UserDeclined => (603, "the WhatsApp user declined"),
        Why::UserNoAnswer => (480, "the WhatsApp user did not answer"),
        Why::UserHungUp | Why::UserGaveUp | Why::UserSilent => (480, "the WhatsApp user is gone"),
        Why::UserBusy => (486, "there is a call with this WhatsApp user already"),
        Why::NoPermission => (403, "no call permission: the WhatsApp user has not allowed calls"),
        Why::NotOnWhatsApp => (404, "no WhatsApp that can be called"),
        Why::GraphRefused => (503, "WhatsApp refused the call"),
        Why::Throttled => return (503, "WhatsApp allows no more calls now", Some(AFTER_THROTTLING)),
        Why::GraphUnreachable => return (503, "WhatsApp can't be reached", Some(AFTER_TROUBLE)),
        Why::MediaFailed => (503, "no media path to WhatsApp"),
        Why::FarHungUp | Why::FarGaveUp | Why::FarNoAnswer | Why::FarDeclined | Why::FarBusy => {
            (487, "the caller ended the call")
        }
        Why::FarSilent | Why::AgentFailed => (480, "nothing came from the caller"),
        Why::FarUnreachable | Why::TrunkDown => (503, "the trunk is down"),
        Why::OverLimit => (486, "this gateway has as many calls as it may have"),
        Why::TooLong => (480, "the call was as long as it may be"),
        Why::Draining | Why::Interrupted => {
            return (503, "the gateway is shutting down", Some(AFTER_TROUBLE));
        }
        Why::BadOffer => (488, "the offer can't be used"),
        Why::NotRouted => (404, "no WhatsApp number is set up for this call"),
        Why::Operator => (480, "an operator ended the call"),
        Why::Fault => (500, "a defect of the gateway"),
    };
    (code, words, None)
}

/// What is thought of a code that no list has.
const UNKNOWN: Row = row(
    VerdictKind::Refused,
    503,
    Again::Never,
    "this program does not know the code: report it with this text",
);

/// The address that was asked is nobody's.
const WRONG_ADDRESS: Row = row(
    VerdictKind::Misconfigured,
    503,
    Again::Never,
    "whatsapp.graph_url or the number's phone_number_id is wrong, or the token has no access to the number",
);

/// Meta says that it is its own fault and will pass.
const BROKEN_FOR_NOW: Row =
    row(VerdictKind::Unreachable, 503, Again::BackOff, "Meta has trouble: wait, and see metastatus.com");

/// What the HTTP status alone says.
fn by_status(status: u16) -> Row {
    match status {
        401 | 403 => row(
            VerdictKind::Misconfigured,
            503,
            Again::Never,
            "the access token is not accepted: put a system user's token into whatsapp.access_token",
        ),
        300..=399 | 404 | 405 => WRONG_ADDRESS,
        408 | 425 | 500..=599 => BROKEN_FOR_NOW,
        429 => row(VerdictKind::Throttled, 503, Again::BackOff, "Meta limits how fast the app may ask: wait"),
        _ => UNKNOWN,
    }
}

/// Whether the words say that the call has ended, or that somebody has acted on it, already.
fn speaks_of_over(text: &str) -> bool {
    const ACTED: [&str; 7] = ["terminat", "ended", "hung up", "reject", "accept", "complete", "in progress"];
    const GONE: [&str; 6] =
        ["not found", "no longer", "does not exist", "has ended", "not active", "not ongoing"];
    let text = text.to_ascii_lowercase();
    let has = |phrase: &&str| text.contains(*phrase);
    let of_a_call = text.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == "call");
    (text.contains("already") && ACTED.iter().any(has)) || (of_a_call && GONE.iter().any(has))
}

#[cfg(test)]
mod tests;
