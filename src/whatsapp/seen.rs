//! What has been seen before. Meta delivers at least once and in any order: a notice may be a copy, may
//! come after its own end, may be for another number, may be hours old.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::notice::{CallStatus, Connect, Direction, Notice};
use crate::clock::{Now, Tick};

/// Most calls that are remembered. A number can have 1000 at a time.
const MAX_CALLS: usize = 4_096;
/// How long a call is remembered after its latest notice. Meta does not say for how long it repeats a
/// webhook; ten minutes are the least that makes sense.
const MEMORY: Duration = Duration::from_secs(60 * 60);
/// Most different steps that are remembered of one call.
const MAX_STEPS: usize = 8;
/// A ringing that is older than this has no one waiting any more, in seconds.
const STALE_SECONDS: i64 = 60;
/// A notice that is further in the future shows that our clock is wrong, in seconds.
const FUTURE_SECONDS: i64 = 5 * 60;
/// 2024-01-01: a wall clock before it was never set.
const SANE_WALL_SECONDS: i64 = 1_704_067_200;

/// What to do with a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Admit {
    /// Act on it.
    New,
    /// It was here before.
    Duplicate,
    /// It is for another number of the same account.
    Foreign,
    /// The end of the same call came first.
    Tombstoned,
    /// A ringing that is too old to answer.
    Stale,
}

/// What is remembered of one call, or of something else that is told once.
#[derive(Debug, Clone, Default)]
struct Trace {
    /// Which notice of all was its latest: the key in the order of forgetting.
    turn: u64,
    latest: Tick,
    connected: bool,
    ended: bool,
    /// It is no call but something that is told once.
    told: bool,
    steps: BTreeSet<CallStatus>,
}

/// The memory, bounded in number and in time.
#[derive(Debug, Clone)]
pub struct Seen {
    calls: BTreeMap<String, Trace>,
    /// Calls by their latest notice, oldest first.
    order: BTreeMap<u64, String>,
    turn: u64,
    capacity: usize,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen::new()
    }
}

impl Seen {
    /// An empty memory.
    pub fn new() -> Seen {
        Seen::with_capacity(MAX_CALLS)
    }

    /// An empty memory for so many calls (at least one).
    pub fn with_capacity(calls: usize) -> Seen {
        Seen { calls: BTreeMap::new(), order: BTreeMap::new(), turn: 0, capacity: calls.max(1) }
    }

    /// Judges a notice and remembers it. `ours` says whether a phone number id is one of ours. What is
    /// told of the whole account (an empty id) is ours.
    ///
    /// The end of an unknown call is New and leaves a tombstone: its connect is then not rung.
    pub fn admit(&mut self, notice: &Notice, ours: impl Fn(&str) -> bool, now: Now) -> Admit {
        let of_account = matches!(notice, Notice::Settings(_)) && notice.phone_number_id().is_empty();
        if !of_account && !ours(notice.phone_number_id()) {
            return Admit::Foreign;
        }
        self.forget(now);
        let stale = matches!(notice, Notice::Connect(connect) if is_stale(connect, now));
        let key = key(notice);
        if stale && !self.calls.contains_key(key.as_ref()) {
            return Admit::Stale;
        }
        let trace = self.touch(&key, now);
        match notice {
            Notice::Connect(_) if trace.connected => Admit::Duplicate,
            Notice::Connect(_) => {
                trace.connected = true;
                match (trace.ended, stale) {
                    (true, _) => Admit::Tombstoned,
                    (false, true) => Admit::Stale,
                    (false, false) => Admit::New,
                }
            }
            Notice::Terminate(_) if trace.ended => Admit::Duplicate,
            Notice::Terminate(_) => {
                trace.ended = true;
                Admit::New
            }
            Notice::Status(step) if trace.steps.contains(&step.status) => Admit::Duplicate,
            Notice::Status(step) => {
                if trace.steps.len() < MAX_STEPS {
                    trace.steps.insert(step.status.clone());
                }
                if trace.ended { Admit::Tombstoned } else { Admit::New }
            }
            Notice::Permission(_) | Notice::Settings(_) if trace.told => Admit::Duplicate,
            Notice::Permission(_) | Notice::Settings(_) => {
                trace.told = true;
                Admit::New
            }
        }
    }

    /// A call that is known to be over, though Meta has not said so: whatever comes of it changes nothing.
    pub fn bury(&mut self, wacid: &str, now: Now) {
        self.touch(wacid, now).ended = true;
    }

    /// Whether the end of this call has come. An outgoing call may be over before Graph has told us
    /// its id.
    pub fn has_ended(&self, wacid: &str) -> bool {
        self.calls.get(wacid).is_some_and(|trace| trace.ended)
    }

    /// How many calls are remembered.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The trace of a call, moved to the end of the order of forgetting.
    fn touch(&mut self, wacid: &str, now: Now) -> &mut Trace {
        if !self.calls.contains_key(wacid) {
            while self.calls.len() >= self.capacity && self.drop_oldest() {}
        }
        self.turn = self.turn.saturating_add(1);
        let turn = self.turn;
        self.order.insert(turn, wacid.to_owned());
        let trace = self.calls.entry(wacid.to_owned()).or_default();
        self.order.remove(&trace.turn);
        trace.turn = turn;
        trace.latest = now.tick;
        trace
    }

    fn forget(&mut self, now: Now) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let age = self.calls.get(oldest).map(|trace| now.tick.since(trace.latest));
            if age.is_some_and(|age| age <= MEMORY) || !self.drop_oldest() {
                break;
            }
        }
    }

    fn drop_oldest(&mut self) -> bool {
        match self.order.pop_first() {
            Some((_, oldest)) => {
                self.calls.remove(&oldest);
                true
            }
            None => false,
        }
    }
}

/// What a notice is remembered by. No wacid has a space in it, so calls and the others keep apart.
fn key(notice: &Notice) -> Cow<'_, str> {
    let stamp = |at: Option<i64>| at.unwrap_or_default();
    match notice {
        Notice::Connect(connect) => Cow::Borrowed(&connect.wacid),
        Notice::Status(status) => Cow::Borrowed(&status.wacid),
        Notice::Terminate(terminate) => Cow::Borrowed(&terminate.wacid),
        Notice::Permission(reply) => Cow::Owned(format!(
            "permission {} {} {} {} {}",
            reply.phone_number_id,
            reply.user.caller_user(),
            reply.context_id.as_deref().unwrap_or_default(),
            stamp(reply.timestamp),
            reply.accepted
        )),
        Notice::Settings(notice) => Cow::Owned(format!(
            "settings {} {} {}",
            notice.phone_number_id,
            stamp(notice.timestamp),
            notice.change.digest()
        )),
    }
}

/// A user's ringing is stale after a minute. An answer to a call of ours is not: whether that call still
/// waits for it, the call itself knows. Only judged where our clock can be believed: it may never have
/// been set.
fn is_stale(connect: &Connect, now: Now) -> bool {
    let wall = now.wall.unix_seconds();
    let Some(stamp) = connect.timestamp else { return false };
    if connect.direction == Direction::Outbound
        || wall < SANE_WALL_SECONDS
        || stamp > wall.saturating_add(FUTURE_SECONDS)
    {
        return false;
    }
    wall.saturating_sub(stamp) > STALE_SECONDS
}

#[cfg(test)]
mod tests;
