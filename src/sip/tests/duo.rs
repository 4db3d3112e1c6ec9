//! Two of us on one wire that loses, delays, reorders and doubles: each call ends once on either side,
//! and nothing is left behind.

use std::collections::{BTreeMap, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ADDRESSES: [&str; 2] = ["192.0.2.1:5060", "192.0.2.7:5060"];
/// Who dials, and who is called.
const ANN: usize = 0;
const BEN: usize = 1;
const LEG: LegId = LegId(1);

/// What happens to a datagram.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// Per cent.
    lost: u64,
    doubled: u64,
    /// At most, in milliseconds.
    late: u64,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Ring,
    Answer,
    Refuse,
    HangUp,
    /// Refreshes the session now, whoever's turn it is.
    Refresh,
    Digit(char),
    /// The connection between the two is gone, with what was on its way.
    Break,
}

struct Duo {
    transport: Transport,
    sides: [UserAgent; 2],
    events: [Vec<Event>; 2],
    /// What is to be done on which side when, in order.
    script: VecDeque<(Tick, usize, Order)>,
    wire: BTreeMap<(Tick, u64), (usize, Vec<u8>)>,
    sent: u64,
    weather: Weather,
    /// Nobody learns that the other takes UPDATE: changes are re-INVITEs.
    old: bool,
    dice: u64,
    now: Now,
}

impl Duo {
    fn new(seed: u64) -> Duo {
        Duo::refreshed(seed, None)
    }

    /// Ann wants her sessions refreshed that often.
    fn refreshed(seed: u64, session_expires: Option<Duration>) -> Duo {
        Duo::over(seed, Transport::Udp, session_expires)
    }

    fn over(seed: u64, transport: Transport, session_expires: Option<Duration>) -> Duo {
        let now = Now { tick: Tick::from_millis(1_000), wall: Wall(1_700_000_000_000) };
        let side = |me: usize| {
            let mut ua = UserAgent::new(Settings { seed: seed + me as u64, ..Settings::default() });
            let way = Way { transport, address: addr(ADDRESSES[1 - me]) };
            let found = vec![Found { way, local: addr(ADDRESSES[me]) }];
            let session_expires = session_expires.filter(|_| me == ANN);
            ua.add_trunk(TrunkSettings { found, allow: vec![], session_expires, ..trunk(false) }, now);
            ua
        };
        let mut duo = Duo {
            transport,
            sides: [side(ANN), side(BEN)],
            events: [vec![], vec![]],
            script: VecDeque::new(),
            wire: BTreeMap::new(),
            sent: 0,
            weather: Weather::default(),
            old: false,
            dice: seed,
            now,
        };
        duo.pass(millis(100));
        assert!(duo.sides.iter().all(|ua| ua.trunks()[0].state.is_up()));
        duo.events = [vec![], vec![]];
        duo
    }

    fn way(&self, side: usize) -> Way {
        Way { transport: self.transport, address: addr(ADDRESSES[side]) }
    }

    /// A number below `sides`, the same in every run (xorshift).
    fn throw(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides.max(1)
    }

    fn drain(&mut self) {
        for me in [ANN, BEN] {
            while let Some(output) = self.sides[me].poll() {
                match output {
                    Output::Event(event) => {
                        if !matches!(event, Event::Trunk { .. }) {
                            self.events[me].push(event);
                        }
                    }
                    Output::Transmit { to, bytes } => {
                        assert_eq!(to, self.way(1 - me));
                        let bytes = if self.old { without_update(&bytes) } else { bytes };
                        let copies = 1 + u64::from(self.throw(100) < self.weather.doubled);
                        for _ in 0..copies {
                            let late = millis(self.throw(self.weather.late + 1));
                            if self.throw(100) >= self.weather.lost {
                                self.sent += 1;
                                self.wire.insert((self.now.tick + late, self.sent), (1 - me, bytes.clone()));
                            }
                        }
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, side: usize, order: Order) {
        let leg = if side == ANN { LEG } else { LegId(1 << 63 | 1) };
        if let Order::Break = order {
            self.wire.clear();
            for me in [ANN, BEN] {
                let way = self.way(1 - me);
                self.sides[me].unreachable(way, "broken", self.now);
            }
            return;
        }
        let (ua, now) = (&mut self.sides[side], self.now);
        match order {
            Order::Ring => ua.ring(leg, now),
            Order::Answer => ua.answer(leg, answer(), now),
            Order::Refuse => ua.refuse(leg, Refusal { code: 486, warning: None, retry_after: None }, now),
            Order::Refresh => {
                if let Some((call, trunk, core)) = ua.live(leg).filter(|(call, ..)| call.talking()) {
                    call.refresh(trunk, core, now);
                }
            }
            Order::Digit(digit) => ua.send_digit(leg, digit, 60, now),
            Order::HangUp => ua.hang_up(leg, Cause { code: Some(480), text: "bye" }, now),
            Order::Break => {}
        }
    }

    /// Lets time pass, stopping wherever something is due on either side, on the wire or in the script.
    fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        self.drain();
        for _ in 0..200_000 {
            let timers = self.sides.iter().filter_map(UserAgent::poll_timeout).min();
            let wire = self.wire.keys().next().map(|(at, _)| *at);
            let script = self.script.front().map(|(at, ..)| *at);
            let Some(due) = [timers, wire, script].into_iter().flatten().min().filter(|due| *due <= end.tick)
            else {
                self.now = end;
                return;
            };
            self.now = self.now.after(due.since(self.now.tick));
            if script.is_some_and(|at| at <= due) {
                let (_, side, order) = self.script.pop_front().unwrap();
                self.carry_out(side, order);
            } else if wire.is_some_and(|at| at <= due) {
                let (_, (to, bytes)) = self.wire.pop_first().unwrap();
                let from = self.way(1 - to);
                self.sides[to].receive(&bytes, from, self.now);
            } else {
                for side in &mut self.sides {
                    side.handle_timeout(self.now);
                }
            }
            self.drain();
        }
        panic!("time stands still");
    }

    /// Both have a call.
    fn talk(&mut self) {
        self.dial();
        self.pass(millis(100));
        self.carry_out(BEN, Order::Answer);
        self.pass(millis(100));
        for events in &mut self.events {
            assert!(matches!(events.last(), Some(Event::Answered { .. })), "{events:?}");
            events.clear();
        }
    }

    /// Nothing happened but that the same was said in other words: an offer where there was an answer.
    fn check_same_sound(&self) {
        for events in &self.events {
            for event in events {
                let Event::Changed { ours, theirs, .. } = event else { panic!("{event:?}") };
                let agreed = sdp::agreed(ours, theirs).unwrap();
                assert_eq!((agreed.rtp, agreed.codec), (addr("192.0.2.7:20000"), sdp::Codec::Pcma));
                assert_eq!(agreed.direction, sdp::Direction::SendRecv);
            }
        }
    }

    /// How many calls stand, and how many changes wait for their answers.
    fn standing(&self) -> (usize, usize) {
        let calls = || self.sides.iter().flat_map(|ua| ua.calls.values());
        (calls().filter(|call| call.talking()).count(), calls().filter(|call| call.change.is_some()).count())
    }

    fn dial(&mut self) {
        let dial = Dial { headers: vec![], from_name: Some("Ann".into()), ..dial() };
        self.sides[ANN].dial(LEG, dial, self.now).unwrap();
    }

    /// The law, on one side: whoever began ends once, is answered at most once and before, and hears
    /// nothing afterwards.
    fn check(&self, side: usize) {
        let events = &self.events[side];
        let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
        let begun = if side == ANN { 1 } else { count(|event| matches!(event, Event::Invited { .. })) };
        assert!(begun <= 1, "{events:?}");
        let answered = count(|event| matches!(event, Event::Answered { .. }));
        assert!(answered <= 1, "{events:?}");
        assert_eq!(count(|event| matches!(event, Event::Ended { .. })), begun, "{events:?}");
        if let Some(last) = events.last() {
            let Event::Ended { ending, .. } = last else { panic!("{events:?}") };
            assert_eq!(ending.answered, answered == 1, "{events:?}");
        }
    }

    /// Nothing of the call is left; what is left is the asking by OPTIONS.
    fn check_forgotten(&self) {
        for ua in &self.sides {
            assert!(ua.calls.is_empty());
            assert!(ua.core.transactions.sizes().0 <= 1);
        }
    }
}

fn without_update(bytes: &[u8]) -> Vec<u8> {
    String::from_utf8(bytes.to_vec()).unwrap().replace("UPDATE, ", "").into_bytes()
}

#[test]
fn one_of_us_calls_the_other_and_both_agree_about_everything() {
    let mut duo = Duo::new(1);
    duo.dial();
    duo.pass(millis(10));
    let [Event::Invited { leg, invite }] = duo.events[BEN].as_slice() else { panic!("{:?}", duo.events) };
    assert_eq!((invite.to_user.as_str(), invite.from_user.as_str()), ("200", "+15550100"));
    assert_eq!((invite.from_name.as_deref(), invite.sdp.as_deref()), (Some("Ann"), Some(offer().as_bytes())));
    let leg = *leg;
    assert_eq!(duo.events[ANN], [Event::Trying { leg: LEG }]);
    duo.carry_out(BEN, Order::Ring);
    duo.pass(millis(3_000));
    assert_eq!(duo.events[ANN][1..], [Event::Ringing { leg: LEG, code: 180, sdp: None }]);
    duo.carry_out(BEN, Order::Answer);
    duo.pass(millis(10));
    assert_eq!(duo.events[ANN][2..], [Event::Answered { leg: LEG, ours: offer(), theirs: answer().into() }]);
    assert_eq!(duo.events[BEN][1..], [Event::Answered { leg, ours: answer(), theirs: offer().into() }]);
    duo.pass(Duration::from_secs(600));
    duo.carry_out(BEN, Order::HangUp);
    duo.pass(Duration::from_secs(60));
    duo.check(ANN);
    duo.check(BEN);
    let Some(Event::Ended { ending, .. }) = duo.events[ANN].last() else { panic!() };
    assert_eq!((ending.by, ending.answered), (EndedBy::Peer, true));
    let counters = duo.sides.each_ref().map(UserAgent::counters);
    assert!(counters.iter().all(|counters| counters.retransmissions + counters.stray_responses == 0));
    duo.check_forgotten();
}

#[test]
fn a_wire_cut_for_good_after_the_answer_ends_the_call_of_whoever_waits_for_the_ack() {
    let mut duo = Duo::new(2);
    duo.dial();
    duo.pass(millis(10));
    duo.weather.lost = 100;
    duo.carry_out(BEN, Order::Answer);
    duo.pass(Duration::from_secs(31));
    assert!(matches!(duo.events[BEN].as_slice(), [Event::Invited { .. }]));
    duo.pass(Duration::from_secs(200));
    duo.check(ANN);
    duo.check(BEN);
    duo.check_forgotten();
}

#[test]
fn a_call_is_kept_alive_for_hours_and_ends_soon_after_the_wire_is_cut() {
    for old in [false, true] {
        let mut duo = Duo::refreshed(3, Some(Duration::from_secs(90)));
        duo.old = old;
        duo.talk();
        let before = duo.sides.each_ref().map(UserAgent::counters);
        duo.pass(Duration::from_secs(7_200));
        assert_eq!(duo.standing(), (2, 0));
        assert_eq!(duo.events, [vec![], vec![]]);
        let after = duo.sides.each_ref().map(UserAgent::counters);
        assert_eq!(after[ANN].retransmissions, before[ANN].retransmissions);
        assert!(after[ANN].sent - before[ANN].sent >= 160, "a refresh every 45 s, and OPTIONS");
        duo.weather.lost = 100;
        duo.pass(Duration::from_secs(90));
        for side in [ANN, BEN] {
            let [Event::Ended { ending, .. }] = duo.events[side].as_slice() else {
                panic!("{:?}", duo.events)
            };
            assert_eq!((ending.by, ending.answered), (EndedBy::Timeout, true), "{side}: {}", ending.text);
        }
        duo.pass(Duration::from_secs(200));
        duo.check_forgotten();
    }
}

#[test]
fn changes_that_both_begin_at_once_meet_and_succeed_in_the_end() {
    for seed in 1..40 {
        let mut duo = Duo::refreshed(seed, Some(Duration::from_secs(1_800)));
        duo.old = true;
        duo.talk();
        duo.weather.late = 40;
        duo.carry_out(ANN, Order::Refresh);
        duo.carry_out(BEN, Order::Refresh);
        duo.pass(millis(60));
        duo.pass(Duration::from_secs(10));
        assert_eq!(duo.standing(), (2, 0));
        let due = |side: usize| duo.sides[side].calls.values().next().unwrap().session.unwrap().next();
        for side in [ANN, BEN] {
            assert!(due(side) > duo.now.tick + Duration::from_secs(880), "refreshed on side {side}");
        }
        duo.pass(Duration::from_secs(7_200));
        assert_eq!(duo.standing(), (2, 0));
        duo.check_same_sound();
    }
}

#[test]
fn over_tcp_nothing_is_ever_sent_twice_but_our_200() {
    let mut duo = Duo::over(3, Transport::Tcp, None);
    duo.dial();
    duo.pass(millis(10));
    duo.carry_out(BEN, Order::Ring);
    duo.pass(millis(30_000));
    duo.carry_out(BEN, Order::Answer);
    duo.pass(Duration::from_secs(600));
    duo.carry_out(ANN, Order::HangUp);
    duo.pass(Duration::from_secs(60));
    duo.check(ANN);
    duo.check(BEN);
    let counters = duo.sides.each_ref().map(UserAgent::counters);
    assert!(counters.iter().all(|counters| counters.retransmissions + counters.stray_responses == 0));
    duo.check_forgotten();
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        3 => Just(Order::Ring),
        4 => Just(Order::Answer),
        1 => Just(Order::Refuse),
        2 => Just(Order::HangUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whatever_the_weather_and_whatever_both_want_each_side_ends_once(
        seed in 1u64..1 << 40,
        lost in 0u64..70,
        doubled in 0u64..30,
        late in 0u64..1_500,
        called in vec((0u64..20_000, order()), 0..5),
        caller in proptest::option::of(0u64..30_000),
    ) {
        let mut duo = Duo::new(seed);
        duo.weather = Weather { lost, doubled, late };
        let mut script: Vec<(Tick, usize, Order)> =
            called.iter().map(|(after, order)| (duo.now.tick + millis(*after), BEN, *order)).collect();
        script.extend(caller.map(|after| (duo.now.tick + millis(after), ANN, Order::HangUp)));
        script.extend([ANN, BEN].map(|side| (duo.now.tick + millis(150_000), side, Order::HangUp)));
        script.sort_by_key(|(at, ..)| *at);
        duo.script = script.into();
        duo.dial();
        duo.pass(Duration::from_secs(400));
        duo.check(ANN);
        duo.check(BEN);
        duo.check_forgotten();
    }
}

proptest! {
    // Each of these is a call of minutes, with a refresh every 45 seconds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn a_call_lives_through_bad_weather_and_glare_and_ends_once_on_either_side(
        seed in 1u64..1 << 40,
        old in any::<bool>(),
        lost in 0u64..40,
        doubled in 0u64..30,
        late in 0u64..1_500,
        changes in vec((0u64..400_000, 0usize..2), 0..12),
    ) {
        let mut duo = Duo::refreshed(seed, Some(Duration::from_secs(90)));
        duo.old = old;
        duo.talk();
        duo.weather = Weather { lost, doubled, late };
        let start = duo.now.tick;
        let mut script: Vec<(Tick, usize, Order)> =
            changes.iter().map(|(after, side)| (start + millis(*after), *side, Order::Refresh)).collect();
        script.sort_by_key(|(at, ..)| *at);
        duo.script = script.into();
        duo.pass(Duration::from_secs(500));
        if lost == 0 {
            prop_assert_eq!(duo.standing().0, 2);
            duo.check_same_sound();
        }
        duo.carry_out(ANN, Order::HangUp);
        duo.carry_out(BEN, Order::HangUp);
        duo.pass(Duration::from_secs(200));
        for side in [ANN, BEN] {
            let ends = duo.events[side].iter().filter(|event| matches!(event, Event::Ended { .. })).count();
            prop_assert_eq!(ends, 1);
            let last = matches!(duo.events[side].last(), Some(Event::Ended { .. }));
            prop_assert!(last, "told after the end");
        }
        duo.check_forgotten();
    }

    #[test]
    fn digits_by_info_arrive_in_their_order_and_none_twice(
        seed in 1u64..1 << 40,
        lost in 0u64..40,
        doubled in 0u64..30,
        late in 0u64..1_500,
        digits in vec(prop::sample::select("0123456789*#ABCD".chars().collect::<Vec<char>>()), 1..20),
    ) {
        let mut duo = Duo::new(seed);
        duo.talk();
        duo.weather = Weather { lost, doubled, late };
        for digit in &digits {
            duo.carry_out(ANN, Order::Digit(*digit));
        }
        duo.pass(Duration::from_secs(400));
        let heard: Vec<char> = duo.events[BEN]
            .iter()
            .filter_map(|event| match event {
                Event::Digit { digit, .. } => Some(*digit),
                _ => None,
            })
            .collect();
        prop_assert!(digits.starts_with(&heard), "{:?} of {:?}", heard, digits);
        if lost < 10 {
            prop_assert_eq!(heard, digits);
        }
    }

    #[test]
    fn whenever_the_connection_breaks_each_side_ends_once(
        seed in 1u64..1 << 40,
        tls in any::<bool>(),
        breaks in vec(0u64..20_000, 0..4),
        called in vec((0u64..20_000, order()), 0..5),
        caller in proptest::option::of(0u64..30_000),
    ) {
        let mut duo = Duo::over(seed, if tls { Transport::Tls } else { Transport::Tcp }, None);
        let mut script: Vec<(Tick, usize, Order)> =
            called.iter().map(|(after, order)| (duo.now.tick + millis(*after), BEN, *order)).collect();
        script.extend(breaks.iter().map(|after| (duo.now.tick + millis(*after), ANN, Order::Break)));
        script.extend(caller.map(|after| (duo.now.tick + millis(after), ANN, Order::HangUp)));
        script.extend([ANN, BEN].map(|side| (duo.now.tick + millis(150_000), side, Order::HangUp)));
        script.sort_by_key(|(at, ..)| *at);
        duo.script = script.into();
        duo.dial();
        duo.pass(Duration::from_secs(400));
        duo.check(ANN);
        duo.check(BEN);
        duo.check_forgotten();
    }
}
