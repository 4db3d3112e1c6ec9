//! What Graph is told about a call, and what becomes of it: one action, one request, few tries.
//!
//! Meta's reference: `POST /<PHONE_NUMBER_ID>/calls`.

use std::time::Duration;

use serde_json::json;

pub use super::verdict::{Again, Verdict, VerdictKind};
use crate::clock::{Now, Tick};

/// Something that Graph is asked to do with a call.
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
}

/// A request, all but the address' beginning and the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// To be appended to `graph_url` after a slash: `<PHONE_NUMBER_ID>/calls`.
    pub path: String,
    /// The JSON body.
    pub body: String,
}

impl Action {
    /// Meta's word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Action::PreAccept { .. } => "pre_accept",
            Action::Accept { .. } => "accept",
            Action::Reject { .. } => "reject",
            Action::Terminate { .. } => "terminate",
        }
    }

    /// The call that it is about.
    pub fn wacid(&self) -> &str {
        match self {
            Action::PreAccept { wacid, .. }
            | Action::Accept { wacid, .. }
            | Action::Reject { wacid }
            | Action::Terminate { wacid } => wacid,
        }
    }

    /// The POST that asks for it.
    pub fn request(&self, phone_number_id: &str) -> Request {
        let mut body = json!({
            "messaging_product": "whatsapp",
            "call_id": self.wacid(),
            "action": self.name(),
        });
        match self {
            Action::PreAccept { sdp, .. } | Action::Accept { sdp, .. } => {
                // Meta's parameter table says "offer", which silently never connects.
                body["session"] = json!({ "sdp_type": "answer", "sdp": sdp });
            }
            Action::Reject { .. } | Action::Terminate { .. } => {}
        }
        Request { path: format!("{phone_number_id}/calls"), body: body.to_string() }
    }

    /// How long it may take with all its tries. A caller waits for the first two; the others have to
    /// reach Meta for the sake of the bill.
    const fn patience(&self) -> Duration {
        match self {
            Action::PreAccept { .. } | Action::Accept { .. } => Duration::from_secs(8),
            Action::Reject { .. } | Action::Terminate { .. } => Duration::from_secs(30),
        }
    }

    /// How long one try may take.
    const fn try_timeout(&self) -> Duration {
        match self {
            Action::PreAccept { .. } | Action::Accept { .. } => Duration::from_secs(3),
            Action::Reject { .. } | Action::Terminate { .. } => Duration::from_secs(5),
        }
    }
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
    /// No connection, in the client's words.
    Unreachable(String),
}

/// What to do after a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Graph said yes.
    Done,
    /// Send the same request again then.
    Retry {
        /// When.
        at: Tick,
    },
    /// It won't happen. [`VerdictKind::AlreadyOver`] is among these, and is nobody's fault.
    Failed(Verdict),
}

/// The first pause before a request is sent again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(6);
/// A try that would have less time than this is not worth making.
const SHORTEST_TRY: Duration = Duration::from_millis(500);
/// Most tries of one action, whatever the clock says.
const MOST_TRIES: u32 = 8;

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
        let deadline = now.tick + action.patience();
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
        self.action.try_timeout().min(self.deadline.since(now.tick)).max(SHORTEST_TRY)
    }

    /// Takes the reply to the latest try. `jitter` is any random number: it spreads the tries of many
    /// calls that failed together.
    pub fn replied(&mut self, reply: &Reply, now: Now, jitter: u64) -> Next {
        self.tries = self.tries.saturating_add(1);
        let (verdict, retry_after) = match reply {
            Reply::Http { status, retry_after, body } => match Verdict::of_http(*status, body) {
                None => return Next::Done,
                Some(verdict) => {
                    (verdict, retry_after.map(|seconds| Duration::from_secs(u64::from(seconds))))
                }
            },
            Reply::Timeout => (Verdict::of_timeout(), None),
            Reply::Unreachable(why) => (Verdict::of_unreachable(why), None),
        };
        if verdict.kind == VerdictKind::AlreadyOver
            && self.in_doubt
            && verdict.says_taken()
            && self.takes_the_call()
        {
            // Our own earlier try did it: only its answer was lost.
            return Next::Done;
        }
        self.in_doubt |= verdict.kind == VerdictKind::Unreachable;
        let tries_left = match verdict.again {
            Again::Never => 0,
            Again::Once => 2_u32.saturating_sub(self.tries),
            Again::BackOff => MOST_TRIES.saturating_sub(self.tries),
        };
        let at = now.tick + self.pause(jitter).max(retry_after.unwrap_or_default());
        if tries_left == 0 || at + SHORTEST_TRY > self.deadline {
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
