//! What is kept of a call: a row while it runs, and what remains of it, written once, after which it is closed.

use super::leg::{Direction, Why};
use super::recording::RecordingPart;
use crate::clock::Wall;

/// The sound of one leg as it was received, in plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    /// RTP packets that arrived.
    pub received: u64,
    /// RTP packets that were sent.
    pub sent: u64,
    /// RTP packets that never arrived (RFC 3550 §A.3).
    pub lost: u64,
    /// RTP packets that arrived too late to be played, or twice.
    pub discarded: u64,
    /// 20 ms frames that had to be invented (loss concealment), FEC repairs not counted.
    pub concealed: u64,
    /// 20 ms frames repaired from in-band FEC.
    pub repaired: u64,
    /// Interarrival jitter in milliseconds (RFC 3550 §6.4.1).
    pub jitter_ms: f64,
    /// Estimated mean opinion score, 1.0 to 4.5 (ITU-T G.107 simplified); 0.0 when nothing was heard.
    pub mos: f64,
}

/// Who said a line of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speaker {
    /// The voice agent.
    Agent,
    /// The WhatsApp user.
    User,
}

impl Speaker {
    /// The word in the record: stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Speaker::Agent => "agent",
            Speaker::User => "user",
        }
    }
}

/// One line of a call, as the voice agent understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who said it.
    pub who: Speaker,
    /// The words.
    pub text: String,
    /// When, in milliseconds since the answer.
    pub at_ms: u64,
}

/// Something that a voice agent told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// What it was, in the agent's own word.
    pub name: String,
    /// What it said.
    pub detail: String,
    /// When, in milliseconds since the answer.
    pub at_ms: u64,
}

/// A voice agent's part in a call. Where there was more than one agent, the name is the last one's, and what was
/// counted is added up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentPart {
    /// The host of its address.
    pub name: String,
    /// How it spoke: `twilio`, `openai`, …
    pub dialect: String,
    /// How often a connection was tried.
    pub attempts: u32,
    /// From the answer to its first sound at the user's ear, in milliseconds; `None`: it never spoke.
    pub first_audio_ms: Option<u64>,
    /// How often it was cut off while it had something to say.
    pub barge_ins: u32,
    /// Messages with the user's sound that it did not read in time.
    pub unread: u32,
    /// Messages of its own that could not be understood.
    pub unreadable: u32,
    /// How it failed, if it did, and where the call went on.
    pub failure: Option<String>,
    /// What was said.
    pub transcript: Vec<Line>,
    /// What else it told.
    pub events: Vec<Noted>,
}

/// Lines and events that are kept of a call at most.
pub const MAX_LINES: usize = 400;

impl AgentPart {
    /// Adds what a further agent of the same call has done.
    pub fn add(&mut self, next: AgentPart) {
        let AgentPart {
            name,
            dialect,
            attempts,
            first_audio_ms,
            barge_ins,
            unread,
            unreadable,
            failure,
            transcript,
            events,
        } = next;
        self.name = name;
        self.dialect = dialect;
        self.attempts = self.attempts.saturating_add(attempts);
        self.first_audio_ms = self.first_audio_ms.or(first_audio_ms);
        self.barge_ins = self.barge_ins.saturating_add(barge_ins);
        self.unread = self.unread.saturating_add(unread);
        self.unreadable = self.unreadable.saturating_add(unreadable);
        self.failure = self.failure.take().or(failure);
        self.transcript.extend(transcript);
        self.transcript.truncate(MAX_LINES);
        self.events.extend(events);
        self.events.truncate(MAX_LINES);
    }
}

/// The PBX's part in a call. Where more than one trunk carried it, this is the last one's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrunkPart {
    /// The trunk's name.
    pub name: String,
    /// What the sound was spoken in at the end: `opus`, `g722`, `pcma`, `pcmu`; `None`: nobody answered.
    pub codec: Option<&'static str>,
    /// Whether that was SRTP.
    pub encrypted: bool,
    /// The cause (Q.850) that the PBX gave for the end.
    pub cause: Option<u16>,
    /// The PBX sent sound before anybody answered: WhatsApp can't carry it, nobody heard it.
    pub early_media: bool,
    /// Who was called first and had the call diverted to us.
    pub diverted_from: Option<String>,
}

/// Who asked for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlacedBy {
    /// The WhatsApp user.
    User,
    /// An extension of the PBX.
    Pbx,
    /// A program, by the REST API.
    Api,
}

impl PlacedBy {
    /// Every one there is.
    pub const ALL: [PlacedBy; 3] = [PlacedBy::User, PlacedBy::Pbx, PlacedBy::Api];

    /// The word in the record: stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            PlacedBy::User => "user",
            PlacedBy::Pbx => "pbx",
            PlacedBy::Api => "api",
        }
    }
}

/// How far a call has come, in the four words of the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiStatus {
    /// It runs, and not both ends have answered.
    Ringing,
    /// It runs, and both ends hear each other.
    Answered,
    /// It is over in one of the usual ways, answered or not.
    Ended,
    /// A hard error ended it.
    Failed,
}

impl ApiStatus {
    /// Every one there is.
    pub const ALL: [ApiStatus; 4] =
        [ApiStatus::Ringing, ApiStatus::Answered, ApiStatus::Ended, ApiStatus::Failed];

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            ApiStatus::Ringing => "ringing",
            ApiStatus::Answered => "answered",
            ApiStatus::Ended => "ended",
            ApiStatus::Failed => "failed",
        }
    }

    /// Whether the call is over.
    pub const fn over(self) -> bool {
        match self {
            ApiStatus::Ringing | ApiStatus::Answered => false,
            ApiStatus::Ended | ApiStatus::Failed => true,
        }
    }
}

/// One running call, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Our own id, unique for ever: `call_` and 24 hex digits.
    pub id: String,
    /// Meta's id, `wacid.…`; empty until Meta gives one.
    pub wacid: String,
    /// The configured number's `id`.
    pub number: String,
    /// The configured number's `account_id`.
    pub account: String,
    /// Meta's id of the number.
    pub phone_number_id: String,
    /// Which way it goes.
    pub direction: Direction,
    /// The caller: `+E164`, a BSUID, or the business number on outbound calls.
    pub from: String,
    /// The WhatsApp user's profile name, if Meta gave one.
    pub profile_name: Option<String>,
    /// The business-scoped user id of the WhatsApp user, if Meta gave one.
    pub user_id: Option<String>,
    /// The callee.
    pub to: String,
    /// Where the call is sent.
    pub destination: String,
    /// When it was admitted.
    pub offered_at: Wall,
    /// Whether the callee's phone rings.
    pub ringing: bool,
    /// When both ends could hear each other.
    pub answered_at: Option<Wall>,
    /// When it was last transferred.
    pub transferred_at: Option<Wall>,
    /// Whether it is recorded.
    pub recording: bool,
    /// Who asked for it.
    pub placed_by: PlacedBy,
}

impl Running {
    /// How far it has come.
    pub const fn status(&self) -> ApiStatus {
        if self.answered_at.is_some() { ApiStatus::Answered } else { ApiStatus::Ringing }
    }
}

/// Errors that a record keeps at most.
pub const MAX_ERRORS: usize = 8;

/// One finished call.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Our own id, unique for ever: `call_` and 24 hex digits.
    pub id: String,
    /// Meta's id, `wacid.…`; empty if Meta never gave one.
    pub wacid: String,
    /// The configured number's `id`.
    pub number: String,
    /// The configured number's `account_id`; empty in records of old versions.
    pub account: String,
    /// Meta's id of the number; empty in records of old versions.
    pub phone_number_id: String,
    /// Which way it went.
    pub direction: Direction,
    /// The caller: `+E164`, a BSUID, or the business number on outbound calls.
    pub from: String,
    /// The caller's or callee's WhatsApp profile name, if Meta gave one.
    pub profile_name: Option<String>,
    /// The business-scoped user id of the WhatsApp user, if Meta gave one.
    pub user_id: Option<String>,
    /// The callee.
    pub to: String,
    /// Where the call was sent: `sip:200@pbx`, `tel:+…`, `wss://…`.
    pub destination: String,
    /// When it was offered to us.
    pub offered_at: Wall,
    /// When both ends could hear each other; `None` if it was never answered.
    pub answered_at: Option<Wall>,
    /// When WhatsApp's side was up: the user picked up, or Meta took our answer.
    pub connected_at: Option<Wall>,
    /// When it was last transferred.
    pub transferred_at: Option<Wall>,
    /// When it was over.
    pub ended_at: Wall,
    /// Seconds of talking, by the monotonic clock.
    pub talk_seconds: f64,
    /// Seconds from `connected_at` to the end, by the monotonic clock: what Meta counts.
    pub billed_seconds: f64,
    /// Whether it was recorded.
    pub recording: bool,
    /// Who asked for it.
    pub placed_by: PlacedBy,
    /// Why it ended.
    pub why: Why,
    /// One sentence for an operator: what was said on the wire.
    pub detail: String,
    /// The final SIP status or the cause of the BYE, if there was one.
    pub sip_code: Option<u16>,
    /// Meta's error code, if there was one.
    pub meta_code: Option<i64>,
    /// What went wrong on the way, as code and sentence, the oldest first: [`MAX_ERRORS`] at most.
    pub errors: Vec<(i64, String)>,
    /// What came from WhatsApp.
    pub whatsapp: Quality,
    /// What came from the destination.
    pub far: Quality,
    /// The voice agent's part in it, if one was called.
    pub agent: Option<Box<AgentPart>>,
    /// The PBX's part in it, if there was one.
    pub trunk: Option<Box<TrunkPart>>,
    /// What was asked, answered and kept, if it was to be recorded.
    pub tape: Option<Box<RecordingPart>>,
}

impl Record {
    /// What remains of a call whose process died. When it did nobody knows, so no second of it is counted.
    pub fn interrupted(running: Running, found_at: Wall) -> Record {
        let detail = "the gateway was cut off while the call ran".to_owned();
        Record::of(running, found_at, Why::Interrupted, detail)
    }

    /// What is known of a call while it runs, and how it ended: nothing is counted yet.
    pub fn of(running: Running, ended_at: Wall, why: Why, detail: String) -> Record {
        Record {
            id: running.id,
            wacid: running.wacid,
            number: running.number,
            account: running.account,
            phone_number_id: running.phone_number_id,
            direction: running.direction,
            from: running.from,
            profile_name: running.profile_name,
            user_id: running.user_id,
            to: running.to,
            destination: running.destination,
            offered_at: running.offered_at,
            answered_at: running.answered_at,
            connected_at: running.answered_at,
            transferred_at: running.transferred_at,
            ended_at,
            talk_seconds: 0.0,
            billed_seconds: 0.0,
            recording: running.recording,
            placed_by: running.placed_by,
            why,
            detail,
            sip_code: None,
            meta_code: None,
            errors: Vec::new(),
            whatsapp: Quality::default(),
            far: Quality::default(),
            agent: None,
            trunk: None,
            tape: None,
        }
    }

    /// Whether anyone ever talked.
    pub fn answered(&self) -> bool {
        self.answered_at.is_some()
    }
}

/// The coarse word for an ending in the API: `hangup`, `no_answer`, `rejected` or `error`.
pub const fn end_reason(why: Why) -> &'static str {
    match why {
        Why::UserHungUp | Why::FarHungUp | Why::TooLong | Why::Draining | Why::Operator => "hangup",
        Why::UserGaveUp | Why::FarGaveUp | Why::UserNoAnswer | Why::FarNoAnswer => "no_answer",
        Why::UserDeclined | Why::UserBusy | Why::FarBusy | Why::FarDeclined | Why::OverLimit => "rejected",
        Why::NoPermission
        | Why::NotOnWhatsApp
        | Why::FarUnreachable
        | Why::TrunkDown
        | Why::GraphRefused
        | Why::Throttled
        | Why::GraphUnreachable
        | Why::MediaFailed
        | Why::UserSilent
        | Why::FarSilent
        | Why::AgentFailed
        | Why::Interrupted
        | Why::BadOffer
        | Why::NotRouted
        | Why::Fault => "error",
    }
}

/// Whether an ending is one of the usual ways or a hard error. A call that was answered has failed only if what
/// carried it failed: a transfer that reached nobody ends it like any other.
pub const fn status_of(why: Why, answered: bool) -> ApiStatus {
    match why {
        Why::UserHungUp
        | Why::UserGaveUp
        | Why::UserDeclined
        | Why::UserNoAnswer
        | Why::UserBusy
        | Why::FarHungUp
        | Why::FarGaveUp
        | Why::FarBusy
        | Why::FarDeclined
        | Why::FarNoAnswer
        | Why::UserSilent
        | Why::FarSilent
        | Why::AgentFailed
        | Why::OverLimit
        | Why::TooLong
        | Why::Draining
        | Why::Operator => ApiStatus::Ended,
        Why::FarUnreachable | Why::TrunkDown | Why::NotRouted => {
            if answered {
                ApiStatus::Ended
            } else {
                ApiStatus::Failed
            }
        }
        Why::NoPermission
        | Why::NotOnWhatsApp
        | Why::GraphRefused
        | Why::Throttled
        | Why::GraphUnreachable
        | Why::MediaFailed
        | Why::Interrupted
        | Why::BadOffer
        | Why::Fault => ApiStatus::Failed,
    }
}
