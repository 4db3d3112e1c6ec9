//! The words of a leg: what it is told (orders), what it tells (events), and why a call ends.

use std::fmt;

/// One of the two ends of a call. Direction is data: which side offered the call is a field, not a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The WhatsApp user, behind Meta.
    WhatsApp,
    /// The destination: a phone behind the PBX, later a voice agent.
    Far,
}

impl Side {
    /// The opposite side.
    pub const fn other(self) -> Side {
        match self {
            Side::WhatsApp => Side::Far,
            Side::Far => Side::WhatsApp,
        }
    }
}

/// Who asked for the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The WhatsApp user called the business (Meta: `USER_INITIATED`).
    Inbound,
    /// The business called the WhatsApp user (Meta: `BUSINESS_INITIATED`).
    Outbound,
}

impl Direction {
    /// The name in records and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// Why a call ended. Each is one row of the table that turns an ending into Graph actions, SIP codes
/// and the word in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The WhatsApp user hung up a running call.
    UserHungUp,
    /// The WhatsApp user gave up before the call was answered.
    UserGaveUp,
    /// The WhatsApp user declined our call.
    UserDeclined,
    /// The WhatsApp user did not pick up our call.
    UserNoAnswer,
    /// The business has a call with this WhatsApp user already.
    UserBusy,
    /// The WhatsApp user has not allowed calls.
    NoPermission,
    /// There is no WhatsApp that can be called with this number.
    NotOnWhatsApp,
    /// The destination hung up a running call.
    FarHungUp,
    /// The PBX's caller gave up before the WhatsApp user answered (CANCEL).
    FarGaveUp,
    /// The destination is busy (SIP 486, 600).
    FarBusy,
    /// The destination declined (SIP 603, 403).
    FarDeclined,
    /// The destination did not answer in time (SIP 408, 480, 487 or our own ring timer).
    FarNoAnswer,
    /// The destination does not exist or can't be reached (SIP 404, 5xx, transport).
    FarUnreachable,
    /// The trunk is not registered or does not answer OPTIONS.
    TrunkDown,
    /// Meta refused `pre_accept`, `accept` or `connect`.
    GraphRefused,
    /// Meta allows no more calls at the moment: a rate or a limit.
    Throttled,
    /// Meta's Graph API did not answer.
    GraphUnreachable,
    /// ICE or DTLS did not come up.
    MediaFailed,
    /// Nothing came from WhatsApp for 30 s.
    UserSilent,
    /// Nothing came from the destination for the configured time.
    FarSilent,
    /// The voice agent was there and failed: it broke off, or said nothing for the configured time.
    AgentFailed,
    /// `max_calls` was reached.
    OverLimit,
    /// `max_call_seconds` was reached.
    TooLong,
    /// The gateway is shutting down.
    Draining,
    /// The gateway stopped while the call ran: found when it started again.
    Interrupted,
    /// The offer can't be answered (no Opus, no fingerprint, several media lines, …).
    BadOffer,
    /// The number is not enabled or has no destination.
    NotRouted,
    /// An operator or a program asked for it.
    Operator,
    /// A defect of this program: this call ends, the others go on.
    Fault,
}

impl Why {
    /// Every reason there is, in the order of declaration.
    pub const ALL: [Why; 29] = [
        Why::UserHungUp,
        Why::UserGaveUp,
        Why::UserDeclined,
        Why::UserNoAnswer,
        Why::UserBusy,
        Why::NoPermission,
        Why::NotOnWhatsApp,
        Why::FarHungUp,
        Why::FarGaveUp,
        Why::FarBusy,
        Why::FarDeclined,
        Why::FarNoAnswer,
        Why::FarUnreachable,
        Why::TrunkDown,
        Why::GraphRefused,
        Why::Throttled,
        Why::GraphUnreachable,
        Why::MediaFailed,
        Why::UserSilent,
        Why::FarSilent,
        Why::AgentFailed,
        Why::OverLimit,
        Why::TooLong,
        Why::Draining,
        Why::Interrupted,
        Why::BadOffer,
        Why::NotRouted,
        Why::Operator,
        Why::Fault,
    ];

    /// The word in the record and in events: stable, snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::UserHungUp => "user_hung_up",
            Why::UserGaveUp => "user_gave_up",
            Why::UserDeclined => "user_declined",
            Why::UserNoAnswer => "user_no_answer",
            Why::UserBusy => "user_busy",
            Why::NoPermission => "no_permission",
            Why::NotOnWhatsApp => "not_on_whatsapp",
            Why::FarHungUp => "far_hung_up",
            Why::FarGaveUp => "far_gave_up",
            Why::FarBusy => "far_busy",
            Why::FarDeclined => "far_declined",
            Why::FarNoAnswer => "far_no_answer",
            Why::FarUnreachable => "far_unreachable",
            Why::TrunkDown => "trunk_down",
            Why::GraphRefused => "graph_refused",
            Why::Throttled => "throttled",
            Why::GraphUnreachable => "graph_unreachable",
            Why::MediaFailed => "media_failed",
            Why::UserSilent => "user_silent",
            Why::FarSilent => "far_silent",
            Why::AgentFailed => "agent_failed",
            Why::OverLimit => "over_limit",
            Why::TooLong => "too_long",
            Why::Draining => "draining",
            Why::Interrupted => "interrupted",
            Why::BadOffer => "bad_offer",
            Why::NotRouted => "not_routed",
            Why::Operator => "operator",
            Why::Fault => "fault",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the call tells a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Get everything ready that can be ready before anyone has answered (Meta's `pre_accept`).
    Prepare,
    /// Start ringing the person at that end.
    Dial,
    /// Tell the person at that end that the other one rings.
    Ring,
    /// The other end has answered: answer here too. Sound may cross once this is confirmed.
    Answer,
    /// End this leg. Every leg gets it at most once, and answers [`Event::Ended`].
    End(Why),
}

/// What a leg tells the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Prepared: the media path is set up as far as it can be.
    Ready,
    /// The person at that end is being rung.
    Ringing,
    /// That end has answered (or confirmed our answer): sound may cross.
    Answered,
    /// That leg is over, for this reason, and needs no more orders.
    Ended(Why),
}
