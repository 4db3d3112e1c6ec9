//! What Graph is asked and told, and what becomes of it: one action, one request, few tries.
//!
//! Meta's reference: `/<PHONE_NUMBER_ID>/calls`, `/call_permissions`, `/messages` and `/settings`, and
//! `/<WABA_ID>/subscribed_apps`.

use std::time::Duration;

use serde_json::{Value, json};

use super::callee::Callee;
use super::notice::call_id;
use super::settings::SettingsChange;
pub use super::verdict::{Again, Verdict, VerdictKind};
use crate::clock::{Now, Tick};

/// Longest text of a permission request, in characters.
const MAX_REQUEST_TEXT: usize = 1_024;

/// Something that Graph is asked or told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Give Meta our SDP while the user still hears ringing, so that ICE and DTLS can complete.
    PreAccept {
        /// Meta's id of the call.
        wacid: String,
        /// Our answer.
        sdp: String,
    },
    /// Take the call.
    Accept {
        /// Meta's id of the call.
        wacid: String,
        /// Our answer: the very same as in `pre_accept`.
        sdp: String,
    },
    /// Decline a call that was never pre-accepted or accepted.
    Reject {
        /// Meta's id of the call.
        wacid: String,
    },
    /// End a call.
    Terminate {
        /// Meta's id of the call.
        wacid: String,
    },
    /// Call a user. Sent again only if Meta surely did not get it: nobody is to be rung twice.
    Connect {
        /// Whom.
        to: Callee,
        /// Our offer.
        sdp: String,
        /// Comes back in every webhook of the call (at most 512 characters): by it a webhook that
        /// overtakes the reply is recognised.
        opaque: String,
    },
    /// Ask whether a user may be called or asked for permission: [`crate::whatsapp::permit`].
    Permissions {
        /// Which user.
        user: Callee,
    },
    /// Ask a user, by a message, for permission to call.
    RequestPermission {
        /// Which user.
        to: Callee,
        /// What the message says; Meta's own words if there is none.
        text: Option<String>,
    },
    /// Read the number's calling settings: [`crate::whatsapp::settings`].
    ReadSettings,
    /// Change some of the number's calling settings.
    WriteSettings {
        /// Which, and to what.
        body: SettingsChange,
    },
    /// Which apps get the account's webhooks: [`crate::whatsapp::settings::subscribed_apps`].
    SubscribedApps {
        /// The WhatsApp Business Account's id.
        waba: String,
    },
}

/// The HTTP method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// A question.
    Get,
    /// An order.
    Post,
}

/// A request, all but the address' beginning and the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How it is sent.
    pub method: Method,
    /// To be appended to `graph_url` after a slash: `<PHONE_NUMBER_ID>/calls`. May end in `?a=b`.
    pub path: String,
    /// The JSON body; empty for a question.
    pub body: String,
}

impl Request {
    fn get(path: String) -> Request {
        Request { method: Method::Get, path, body: String::new() }
    }

    fn post(path: String, body: &Value) -> Request {
        Request { method: Method::Post, path, body: body.to_string() }
    }
}

impl Action {
    /// A word for it: Meta's, where it has one.
    pub fn name(&self) -> &'static str {
        match self {
            Action::PreAccept { .. } => "pre_accept",
            Action::Accept { .. } => "accept",
            Action::Reject { .. } => "reject",
            Action::Terminate { .. } => "terminate",
            Action::Connect { .. } => "connect",
            Action::Permissions { .. } => "call_permissions",
            Action::RequestPermission { .. } => "call_permission_request",
            Action::ReadSettings => "read_settings",
            Action::WriteSettings { .. } => "write_settings",
            Action::SubscribedApps { .. } => "subscribed_apps",
        }
    }

    /// The call that it is about, if it is about one that Meta knows.
    pub fn wacid(&self) -> Option<&str> {
        match self {
            Action::PreAccept { wacid, .. }
            | Action::Accept { wacid, .. }
            | Action::Reject { wacid }
            | Action::Terminate { wacid } => Some(wacid),
            Action::Connect { .. }
            | Action::Permissions { .. }
            | Action::RequestPermission { .. }
            | Action::ReadSettings
            | Action::WriteSettings { .. }
            | Action::SubscribedApps { .. } => None,
        }
    }

    /// The request that asks for it.
    pub fn request(&self, phone_number_id: &str) -> Request {
        let calls = format!("{phone_number_id}/calls");
        let on_call =
            |wacid: &str| json!({ "messaging_product": "whatsapp", "call_id": wacid, "action": self.name() });
        match self {
            Action::PreAccept { wacid, sdp } | Action::Accept { wacid, sdp } => {
                let mut body = on_call(wacid);
                // Meta's parameter table says "offer", which silently never connects.
                body["session"] = json!({ "sdp_type": "answer", "sdp": sdp });
                Request::post(calls, &body)
            }
            Action::Reject { wacid } | Action::Terminate { wacid } => Request::post(calls, &on_call(wacid)),
            Action::Connect { to, sdp, opaque } => {
                let mut body = json!({
                    "messaging_product": "whatsapp",
                    "action": "connect",
                    "session": { "sdp_type": "offer", "sdp": sdp },
                    "biz_opaque_callback_data": opaque,
                });
                address(&mut body, to);
                Request::post(calls, &body)
            }
            Action::Permissions { user } => {
                let query = match user {
                    Callee::Phone(digits) => format!("user_wa_id={digits}"),
                    Callee::Bsuid(id) => format!("recipient={id}"),
                };
                Request::get(format!("{phone_number_id}/call_permissions?{query}"))
            }
            Action::RequestPermission { to, text } => {
                let mut interactive = json!({
                    "type": "call_permission_request",
                    "action": { "name": "call_permission_request" },
                });
                if let Some(text) = text {
                    let text: String = text.chars().take(MAX_REQUEST_TEXT).collect();
                    interactive["body"] = json!({ "text": text });
                }
                let mut body = json!({
                    "messaging_product": "whatsapp",
                    "recipient_type": "individual",
                    "type": "interactive",
                    "interactive": interactive,
                });
                address(&mut body, to);
                Request::post(format!("{phone_number_id}/messages"), &body)
            }
            Action::ReadSettings => Request::get(format!("{phone_number_id}/settings")),
            Action::WriteSettings { body } => {
                Request::post(format!("{phone_number_id}/settings"), &body.to_json())
            }
            Action::SubscribedApps { waba } => Request::get(format!("{waba}/subscribed_apps")),
        }
    }

    /// How often it may be tried, and for how long.
    const fn tries(&self) -> Tries {
        match self {
            // A caller waits.
            Action::PreAccept { .. } | Action::Accept { .. } => {
                Tries { seconds: (8, 3), most: 8, twice: true }
            }
            // They have to reach Meta for the sake of the bill.
            Action::Reject { .. } | Action::Terminate { .. } => {
                Tries { seconds: (30, 5), most: 8, twice: true }
            }
            // What is not repeated in doubt gets all the time for its one try.
            Action::Connect { .. } | Action::RequestPermission { .. } => {
                Tries { seconds: (10, 10), most: 4, twice: false }
            }
            Action::Permissions { .. } | Action::ReadSettings | Action::SubscribedApps { .. } => {
                Tries { seconds: (5, 2), most: 3, twice: true }
            }
            Action::WriteSettings { .. } => Tries { seconds: (10, 4), most: 3, twice: true },
        }
    }
}

/// Puts in to whom it goes: a number in `to`, a BSUID in `recipient`.
fn address(body: &mut Value, to: &Callee) {
    match to {
        Callee::Phone(digits) => body["to"] = json!(digits),
        Callee::Bsuid(id) => body["recipient"] = json!(id),
    }
}

/// How often one action may be tried.
struct Tries {
    /// How long all tries may take together, and how long one of them.
    seconds: (u64, u64),
    /// Most tries, whatever the clock says.
    most: u32,
    /// Doing it twice is the same as doing it once.
    twice: bool,
}

/// Meta's id of the call in the reply to [`Action::Connect`]: `{"calls":[{"id":"wacid…"}]}`.
pub fn connected_wacid(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    json.get("calls")?.as_array()?.iter().find_map(|call| call_id(call.get("id")))
}

/// Meta's id of the message in the reply to [`Action::RequestPermission`]: `{"messages":[{"id":"wamid…"}]}`.
pub fn message_id(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    json.get("messages")?.as_array()?.iter().find_map(|message| call_id(message.get("id")))
}

/// What came back for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Http {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u32>,
        /// The body, cut by the shell to a sane size.
        body: Vec<u8>,
    },
    /// None in the time that [`Attempt::timeout`] gave.
    Timeout,
    /// No connection, in the client's words: Meta surely did not get the request.
    Unreachable(String),
    /// The connection broke before the whole answer was here, in the client's words: Meta may have got
    /// the request.
    BrokenOff(String),
}

/// What to do after a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Graph said yes: the body of its answer. Empty if only a later try showed that an earlier one had
    /// got through.
    Done(Vec<u8>),
    /// Send the same request again then.
    Retry {
        /// When.
        at: Tick,
    },
    /// No yes was heard. [`VerdictKind::AlreadyOver`] is among these, and is nobody's fault. If
    /// [`Verdict::in_doubt`] is set, it may have happened all the same.
    Failed(Verdict),
}

/// The first pause before a request is sent again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(6);
/// A try that would have less time than this is not worth making.
const SHORTEST_TRY: Duration = Duration::from_millis(500);
/// One action with its bounded tries. The shell sends [`Attempt::request`], reports the reply, and does
/// what [`Next`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    action: Action,
    deadline: Tick,
    tries: u32,
    /// An earlier try may have reached Meta without our hearing of it.
    in_doubt: bool,
}

impl Attempt {
    /// The first try is sent at `now`.
    pub fn new(action: Action, now: Now) -> Attempt {
        let deadline = now.tick + Duration::from_secs(action.tries().seconds.0);
        Attempt { action, deadline, tries: 0, in_doubt: false }
    }

    /// What is attempted.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// The request, the same for every try.
    pub fn request(&self, phone_number_id: &str) -> Request {
        self.action.request(phone_number_id)
    }

    /// How long a try that is sent at `now` may wait for its answer before it is a [`Reply::Timeout`].
    pub fn timeout(&self, now: Now) -> Duration {
        Duration::from_secs(self.action.tries().seconds.1)
            .min(self.deadline.since(now.tick))
            .max(SHORTEST_TRY)
    }

    /// Takes the reply to the latest try. `jitter` is any random number: it spreads the tries of many
    /// calls that failed together.
    pub fn replied(&mut self, reply: &Reply, now: Now, jitter: u64) -> Next {
        self.tries = self.tries.saturating_add(1);
        let mut verdict = match reply {
            Reply::Http { status, retry_after, body } => match Verdict::of_http(*status, body) {
                None => return Next::Done(body.clone()),
                Some(verdict) => Verdict { retry_after: *retry_after, ..verdict },
            },
            Reply::Timeout => Verdict::of_timeout(),
            Reply::Unreachable(why) => Verdict::of_unreachable(why),
            Reply::BrokenOff(why) => Verdict::of_broken_off(why),
        };
        if verdict.kind == VerdictKind::AlreadyOver
            && self.in_doubt
            && verdict.says_taken()
            && self.takes_the_call()
        {
            // Our own earlier try did it: only its answer was lost.
            return Next::Done(Vec::new());
        }
        let Tries { most, twice, .. } = self.action.tries();
        self.in_doubt |= verdict.in_doubt;
        let tries_left = match verdict.again {
            _ if self.in_doubt && !twice => 0,
            Again::Never => 0,
            Again::Once => most.min(2).saturating_sub(self.tries),
            Again::BackOff => most.saturating_sub(self.tries),
        };
        let asked = Duration::from_secs(verdict.retry_after.map_or(0, u64::from));
        let at = now.tick + self.pause(jitter).max(asked);
        if tries_left == 0 || at + SHORTEST_TRY > self.deadline {
            verdict.in_doubt = self.in_doubt;
            return Next::Failed(verdict);
        }
        Next::Retry { at }
    }

    fn takes_the_call(&self) -> bool {
        matches!(self.action, Action::PreAccept { .. } | Action::Accept { .. })
    }

    /// Half the exponential pause, and up to as much again by chance.
    fn pause(&self, jitter: u64) -> Duration {
        let doublings = self.tries.saturating_sub(1).min(8);
        let full = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        let half = full / 2;
        let chance = jitter % (u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1));
        half + Duration::from_micros(chance)
    }
}

#[cfg(test)]
mod tests;
