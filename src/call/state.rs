//! The states of a call and the one function that steps between them.
//!
//! A call has an *origin* (the side that asked for it) and a *target*. That is all that direction means:
//!
//! ```text
//!   Calling ──target Ringing──▶ Calling (origin: Ring)
//!      │ target Answered                        any Ended, limit or order to end, in any state
//!      ▼                                                         │
//!   Answering ──origin Answered──▶ Talking ──────────────────────┤
//!                                   │  ▲ far Answered            │
//!                          transfer ▼  │                         ▼
//!                              Transferring     Ending ──both legs Ended──▶ Over ──record written──▶ closed
//! ```
//!
//! An origin need not be there yet: where a program asked for the call, the far leg is fetched only when it is told
//! to `Answer`, so that nobody's phone rings for a user who does not pick up.
//!
//! Every ending runs through `Ending`, and a call is over only when both legs have said so.

use std::time::Duration;

use super::leg::{Direction, Event, Order, Side, Why};
use crate::clock::{Now, Tick, Wall};

/// A leg that doesn't say `Ended` within this time after being told to end is taken as ended: Meta's
/// `terminate` is retried for half a minute, a BYE for 32 s (RFC 3261 timer F).
const ENDING: Duration = Duration::from_secs(45);

/// Meta and a PBX confirm an answer within this time, retries included.
pub const CONFIRMING: Duration = Duration::from_secs(20);

/// How long the parts of a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the offer to the target's answer.
    pub ringing: Duration,
    /// From the target's answer to the origin's: a confirmation, or the ringing of a far end that is only
    /// fetched now.
    pub answering: Duration,
    /// From both ends hearing each other to the end.
    pub talking: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Calling { until: Tick, rang: bool },
    Answering { until: Tick },
    Talking { since: Tick, until: Tick },
    Transferring { since: Tick, until: Tick, talking: Tick },
    Ending { until: Tick, open: Open, talked: Duration },
    Over { talked: Duration },
}

/// Which legs have not said `Ended` yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    whatsapp: bool,
    far: bool,
}

impl Open {
    const BOTH: Open = Open { whatsapp: true, far: true };

    fn without(self, side: Side) -> Open {
        match side {
            Side::WhatsApp => Open { whatsapp: false, ..self },
            Side::Far => Open { far: false, ..self },
        }
    }

    fn has(self, side: Side) -> bool {
        match side {
            Side::WhatsApp => self.whatsapp,
            Side::Far => self.far,
        }
    }
}

/// One thing that a step asks for: an order to a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// To whom.
    pub side: Side,
    /// What.
    pub order: Order,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    direction: Direction,
    limits: Limits,
    state: State,
    offered: Now,
    answered: Option<Wall>,
    connected: Option<Now>,
    billed: Duration,
    why: Option<Why>,
}

impl Call {
    /// A call that has just been asked for, and the first orders: the origin prepares its media while the
    /// target is being rung.
    pub fn new(direction: Direction, limits: Limits, now: Now) -> (Call, Vec<Step>) {
        let call = Call {
            direction,
            limits,
            state: State::Calling { until: now.tick + limits.ringing, rang: false },
            offered: now,
            answered: None,
            connected: None,
            billed: Duration::ZERO,
            why: None,
        };
        let orders = vec![
            Step { side: call.origin(), order: Order::Prepare },
            Step { side: call.target(), order: Order::Dial },
        ];
        (call, orders)
    }

    /// The side that asked for the call.
    pub fn origin(&self) -> Side {
        match self.direction {
            Direction::Inbound => Side::WhatsApp,
            Direction::Outbound => Side::Far,
        }
    }

    /// The side that is called.
    pub fn target(&self) -> Side {
        self.origin().other()
    }

    /// Who asked for it.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// When it was asked for.
    pub fn offered(&self) -> Now {
        self.offered
    }

    /// When both ends could first hear each other.
    pub fn answered(&self) -> Option<Wall> {
        self.answered
    }

    /// When WhatsApp's side was up: the user picked up, or Meta took our answer. From here Meta counts.
    pub fn connected(&self) -> Option<Wall> {
        self.connected.map(|at| at.wall)
    }

    /// How long WhatsApp's side was up, by the monotonic clock; known once the call is ending.
    pub fn billed(&self) -> Duration {
        self.billed
    }

    /// Why it ended or is ending; `None` while it lives.
    pub fn why(&self) -> Option<Why> {
        self.why
    }

    /// Whether the target has answered, and the origin is still to be told so or to confirm it.
    pub fn answering(&self) -> bool {
        matches!(self.state, State::Answering { .. })
    }

    /// Whether both ends hear each other now.
    pub fn talking(&self) -> bool {
        matches!(self.state, State::Talking { .. })
    }

    /// Whether it is on its way out or gone.
    pub fn ending(&self) -> bool {
        matches!(self.state, State::Ending { .. } | State::Over { .. })
    }

    /// Both legs are over: all that is missing is the record. The time both ends heard each other.
    pub fn over(&self) -> Option<Duration> {
        match self.state {
            State::Over { talked } => Some(talked),
            State::Calling { .. }
            | State::Answering { .. }
            | State::Talking { .. }
            | State::Transferring { .. }
            | State::Ending { .. } => None,
        }
    }

    /// A word for the state, for logs and views.
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Calling { rang: false, .. } => "calling",
            State::Calling { rang: true, .. } => "ringing",
            State::Answering { .. } => "answering",
            State::Talking { .. } => "talking",
            State::Transferring { .. } => "transferring",
            State::Ending { .. } => "ending",
            State::Over { .. } => "over",
        }
    }

    /// The next moment at which [`Call::timeout`] has something to say.
    pub fn deadline(&self) -> Option<Tick> {
        match self.state {
            State::Calling { until, .. }
            | State::Answering { until }
            | State::Talking { until, .. }
            | State::Transferring { until, .. }
            | State::Ending { until, .. } => Some(until),
            State::Over { .. } => None,
        }
    }

    /// A leg has said something.
    pub fn heard(&mut self, side: Side, event: Event, now: Now) -> Vec<Step> {
        match event {
            Event::Ended(why) => self.leg_ended(side, why, now),
            Event::Ready => Vec::new(),
            Event::Ringing => self.ringing(side),
            Event::Answered => self.leg_answered(side, now),
        }
    }

    /// The call is to end, whoever asked. A call that is ending already keeps its first reason.
    pub fn end(&mut self, why: Why, now: Now) -> Vec<Step> {
        self.leave(why, Open::BOTH, now)
    }

    /// The far end is to be replaced by another one, blind: the user stays, and waits. The caller has let go of
    /// the old far end; `None` if nobody is talking.
    pub fn transfer(&mut self, now: Now) -> Option<Vec<Step>> {
        let State::Talking { since, until } = self.state else { return None };
        let ringing = (now.tick + self.limits.ringing).min(until);
        self.state = State::Transferring { since, until: ringing, talking: until };
        Some(vec![Step { side: Side::Far, order: Order::Dial }])
    }

    /// The new far end did not come, and the old one is still there: the two talk on. False if nobody is being
    /// transferred.
    pub fn transfer_failed(&mut self) -> bool {
        let State::Transferring { since, talking, .. } = self.state else { return false };
        self.state = State::Talking { since, until: talking };
        true
    }

    /// The deadline has come.
    pub fn timeout(&mut self, now: Now) -> Vec<Step> {
        match self.state {
            State::Calling { until, .. } if now.tick >= until => match self.target() {
                Side::Far => self.end(Why::FarNoAnswer, now),
                Side::WhatsApp => self.end(Why::UserNoAnswer, now),
            },
            State::Answering { until } if now.tick >= until => match self.origin() {
                Side::WhatsApp => self.end(Why::GraphRefused, now),
                Side::Far => self.end(Why::FarNoAnswer, now),
            },
            State::Talking { until, .. } if now.tick >= until => self.end(Why::TooLong, now),
            State::Transferring { until, talking, .. } if now.tick >= until => {
                self.end(if now.tick >= talking { Why::TooLong } else { Why::FarNoAnswer }, now)
            }
            State::Ending { until, talked, .. } if now.tick >= until => {
                self.state = State::Over { talked };
                Vec::new()
            }
            State::Calling { .. }
            | State::Answering { .. }
            | State::Talking { .. }
            | State::Transferring { .. }
            | State::Ending { .. }
            | State::Over { .. } => Vec::new(),
        }
    }

    fn ringing(&mut self, side: Side) -> Vec<Step> {
        match self.state {
            State::Calling { until, rang: false } if side == self.target() => {
                self.state = State::Calling { until, rang: true };
                vec![Step { side: self.origin(), order: Order::Ring }]
            }
            State::Calling { .. }
            | State::Answering { .. }
            | State::Talking { .. }
            | State::Transferring { .. }
            | State::Ending { .. }
            | State::Over { .. } => Vec::new(),
        }
    }

    fn leg_answered(&mut self, side: Side, now: Now) -> Vec<Step> {
        if side == Side::WhatsApp && self.connected.is_none() && !self.ending() {
            self.connected = Some(now);
        }
        match self.state {
            State::Transferring { since, talking, .. } if side == Side::Far => {
                self.state = State::Talking { since, until: talking };
                Vec::new()
            }
            State::Calling { .. } if side == self.target() => {
                self.state = State::Answering { until: now.tick + self.limits.answering };
                vec![Step { side: self.origin(), order: Order::Answer }]
            }
            State::Answering { .. } if side == self.origin() => {
                self.answered = Some(now.wall);
                self.state = State::Talking { since: now.tick, until: now.tick + self.limits.talking };
                Vec::new()
            }
            State::Calling { .. }
            | State::Answering { .. }
            | State::Talking { .. }
            | State::Transferring { .. }
            | State::Ending { .. }
            | State::Over { .. } => Vec::new(),
        }
    }

    fn leg_ended(&mut self, side: Side, why: Why, now: Now) -> Vec<Step> {
        match self.state {
            State::Calling { .. }
            | State::Answering { .. }
            | State::Talking { .. }
            | State::Transferring { .. } => self.leave(why, Open::BOTH.without(side), now),
            State::Ending { until, open, talked } => {
                let open = open.without(side);
                self.state = if open.whatsapp || open.far {
                    State::Ending { until, open, talked }
                } else {
                    State::Over { talked }
                };
                Vec::new()
            }
            State::Over { .. } => Vec::new(),
        }
    }

    /// The one way out.
    fn leave(&mut self, why: Why, open: Open, now: Now) -> Vec<Step> {
        let talked = match self.state {
            State::Calling { .. } | State::Answering { .. } => Duration::ZERO,
            State::Talking { since, .. } | State::Transferring { since, .. } => now.tick - since,
            State::Ending { .. } | State::Over { .. } => return Vec::new(),
        };
        self.why = Some(why);
        self.billed = self.connected.map(|at| now.tick - at.tick).unwrap_or_default();
        self.state = State::Ending { until: now.tick + ENDING, open, talked };
        [Side::WhatsApp, Side::Far]
            .into_iter()
            .filter(|side| open.has(*side))
            .map(|side| Step { side, order: Order::End(why) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        ringing: Duration::from_secs(120),
        answering: Duration::from_secs(20),
        talking: Duration::from_secs(3_600),
    };

    fn at(seconds: u64) -> Now {
        Now::default().after(Duration::from_secs(seconds))
    }

    fn begun(direction: Direction) -> Call {
        Call::new(direction, LIMITS, at(0)).0
    }

    fn talking(direction: Direction) -> Call {
        let mut call = begun(direction);
        let (origin, target) = (call.origin(), call.target());
        call.heard(target, Event::Ringing, at(1));
        call.heard(target, Event::Answered, at(5));
        call.heard(origin, Event::Answered, at(6));
        call
    }

    #[test]
    fn an_inbound_call_prepares_whatsapp_and_rings_the_far_end_at_once() {
        let (call, orders) = Call::new(Direction::Inbound, LIMITS, at(0));
        assert_eq!(
            orders,
            [
                Step { side: Side::WhatsApp, order: Order::Prepare },
                Step { side: Side::Far, order: Order::Dial }
            ]
        );
        assert_eq!(call.word(), "calling");
    }

    #[test]
    fn an_outbound_call_is_the_same_machine_with_the_sides_changed() {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let mut call = begun(direction);
            let (origin, target) = (call.origin(), call.target());
            assert_eq!(
                call.heard(target, Event::Ringing, at(1)),
                [Step { side: origin, order: Order::Ring }]
            );
            assert_eq!(
                call.heard(target, Event::Answered, at(5)),
                [Step { side: origin, order: Order::Answer }]
            );
            assert!(!call.talking(), "nobody talks before the origin has confirmed");
            assert_eq!(call.heard(origin, Event::Answered, at(6)), []);
            assert!(call.talking());
            assert_eq!(call.answered(), Some(at(6).wall));
        }
    }

    #[test]
    fn a_second_ringing_is_not_passed_on_twice() {
        let mut call = begun(Direction::Inbound);
        assert_eq!(call.heard(Side::Far, Event::Ringing, at(1)).len(), 1);
        assert_eq!(call.heard(Side::Far, Event::Ringing, at(2)), []);
    }

    #[test]
    fn whoever_ends_the_call_the_other_leg_is_told_and_the_first_reason_stays() {
        for side in [Side::WhatsApp, Side::Far] {
            let mut call = talking(Direction::Inbound);
            let why = if side == Side::Far { Why::FarHungUp } else { Why::UserHungUp };
            assert_eq!(
                call.heard(side, Event::Ended(why), at(66)),
                [Step { side: side.other(), order: Order::End(why) }]
            );
            assert_eq!(call.over(), None, "the other leg has not confirmed");
            assert_eq!(call.end(Why::Operator, at(67)), [], "it is ending already");
            assert_eq!(call.heard(side.other(), Event::Ended(Why::Operator), at(68)), []);
            assert_eq!(call.over(), Some(Duration::from_secs(60)));
            assert_eq!(call.why(), Some(why));
        }
    }

    #[test]
    fn every_reason_ends_both_legs_from_every_state_exactly_once() {
        for why in Why::ALL {
            for stage in 0..3 {
                let mut call = begun(Direction::Inbound);
                if stage > 0 {
                    call.heard(Side::Far, Event::Answered, at(5));
                }
                if stage > 1 {
                    call.heard(Side::WhatsApp, Event::Answered, at(6));
                }
                let orders = call.end(why, at(10));
                assert_eq!(
                    orders,
                    [
                        Step { side: Side::WhatsApp, order: Order::End(why) },
                        Step { side: Side::Far, order: Order::End(why) }
                    ]
                );
                assert_eq!(call.end(why, at(10)), []);
                call.heard(Side::Far, Event::Ended(why), at(11));
                assert_eq!(call.heard(Side::Far, Event::Ended(why), at(11)), [], "said twice");
                assert_eq!(call.over(), None);
                call.heard(Side::WhatsApp, Event::Ended(why), at(11));
                assert_eq!(call.over().is_some_and(|talked| talked > Duration::ZERO), stage == 2);
                assert_eq!(call.why(), Some(why));
            }
        }
    }

    #[test]
    fn nobody_answering_ends_the_call_at_the_ring_limit() {
        let mut call = begun(Direction::Inbound);
        assert_eq!(call.deadline(), Some(at(120).tick));
        assert_eq!(call.timeout(at(119)), []);
        assert_eq!(call.timeout(at(120)).len(), 2);
        assert_eq!(call.why(), Some(Why::FarNoAnswer));
    }

    #[test]
    fn a_call_ends_at_its_longest_duration() {
        let mut call = talking(Direction::Inbound);
        assert_eq!(call.timeout(at(3_605)), []);
        assert_eq!(call.timeout(at(3_606)).len(), 2);
        assert_eq!(call.why(), Some(Why::TooLong));
    }

    #[test]
    fn an_answer_that_meta_never_confirms_ends_the_call() {
        let mut call = begun(Direction::Inbound);
        call.heard(Side::Far, Event::Answered, at(5));
        assert_eq!(call.timeout(at(25)).len(), 2);
        assert_eq!(call.why(), Some(Why::GraphRefused));
    }

    #[test]
    fn a_leg_that_never_confirms_its_end_does_not_keep_the_call() {
        let mut call = talking(Direction::Inbound);
        call.heard(Side::Far, Event::Ended(Why::FarHungUp), at(10));
        assert_eq!(call.timeout(at(54)), []);
        assert_eq!(call.over(), None);
        call.timeout(at(55));
        assert_eq!(call.over(), Some(Duration::from_secs(4)));
        assert_eq!(call.deadline(), None);
    }

    #[test]
    fn a_late_answer_does_not_revive_a_call_that_is_ending() {
        let mut call = begun(Direction::Inbound);
        call.end(Why::UserGaveUp, at(3));
        assert_eq!(call.heard(Side::Far, Event::Answered, at(4)), []);
        assert_eq!(call.heard(Side::WhatsApp, Event::Answered, at(4)), []);
        assert!(!call.talking());
        assert_eq!(call.why(), Some(Why::UserGaveUp));
    }

    #[test]
    fn meta_counts_from_the_users_answer_whoever_else_is_there() {
        let mut call = begun(Direction::Outbound);
        call.heard(Side::WhatsApp, Event::Answered, at(5));
        call.heard(Side::Far, Event::Answered, at(11));
        call.heard(Side::WhatsApp, Event::Ended(Why::UserHungUp), at(61));
        call.heard(Side::Far, Event::Ended(Why::UserHungUp), at(62));
        assert_eq!((call.billed(), call.over()), (Duration::from_secs(56), Some(Duration::from_secs(50))));
        assert_eq!((call.connected(), call.answered()), (Some(at(5).wall), Some(at(11).wall)));
    }

    #[test]
    fn a_user_who_answered_costs_even_if_the_destination_never_came() {
        let mut call = begun(Direction::Outbound);
        call.heard(Side::WhatsApp, Event::Answered, at(5));
        call.timeout(at(25));
        assert_eq!(call.why(), Some(Why::FarNoAnswer));
        assert_eq!(call.billed(), Duration::from_secs(20));
    }

    #[test]
    fn a_transfer_fetches_another_far_end_and_the_user_talks_on() {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let mut call = talking(direction);
            assert_eq!(call.transfer(at(10)), Some(vec![Step { side: Side::Far, order: Order::Dial }]));
            assert_eq!(call.word(), "transferring");
            assert_eq!(call.transfer(at(11)), None, "one at a time");
            assert_eq!(call.heard(Side::Far, Event::Ringing, at(12)), []);
            assert_eq!(call.heard(Side::Far, Event::Answered, at(14)), []);
            assert!(call.talking());
            call.heard(Side::WhatsApp, Event::Ended(Why::UserHungUp), at(66));
            call.heard(Side::Far, Event::Ended(Why::UserHungUp), at(66));
            assert_eq!(call.over(), Some(Duration::from_secs(60)), "the talk before the transfer counts");
        }
    }

    #[test]
    fn a_transfer_that_nobody_takes_ends_the_call() {
        let mut call = talking(Direction::Inbound);
        call.transfer(at(10));
        assert_eq!(call.timeout(at(129)), []);
        assert_eq!(call.timeout(at(130)).len(), 2);
        assert_eq!(call.why(), Some(Why::FarNoAnswer));
        let mut call = talking(Direction::Inbound);
        call.transfer(at(10));
        let end = [Step { side: Side::WhatsApp, order: Order::End(Why::FarBusy) }];
        assert_eq!(call.heard(Side::Far, Event::Ended(Why::FarBusy), at(12)), end);
    }

    #[test]
    fn a_transfer_does_not_outlast_the_longest_duration() {
        let mut call = talking(Direction::Inbound);
        call.transfer(at(3_600));
        assert_eq!(call.timeout(at(3_605)), []);
        assert_eq!(call.timeout(at(3_606)).len(), 2);
        assert_eq!(call.why(), Some(Why::TooLong));
    }

    #[test]
    fn a_transfer_that_fails_gives_the_call_back_to_the_old_far_end_and_keeps_its_limits() {
        let mut call = talking(Direction::Inbound);
        assert!(!call.transfer_failed(), "nobody is being transferred");
        call.transfer(at(10));
        assert!(call.transfer_failed());
        assert!(call.talking());
        assert_eq!(call.deadline(), Some(at(3_606).tick));
        assert!(call.transfer(at(20)).is_some(), "and it can be tried again");
    }

    #[test]
    fn only_a_talking_call_can_be_transferred() {
        let mut call = begun(Direction::Inbound);
        assert_eq!(call.transfer(at(1)), None);
        call.heard(Side::Far, Event::Answered, at(5));
        assert_eq!(call.transfer(at(6)), None);
        call.end(Why::Operator, at(7));
        assert_eq!(call.transfer(at(8)), None);
    }
}
