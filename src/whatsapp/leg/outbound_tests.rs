//! Calls that the business places: every order in which Meta's reply and its webhooks can come.

use proptest::prelude::*;

use super::*;

const WACID: &str = "wacid.OUT==";
const ANSWER: &str = "v=0 meta";

fn leg() -> Leg {
    let to = Callee::parse("+4915112345678").unwrap();
    Leg::outbound(String::from("v=0 ours"), to, String::from("call-1"))
}

fn connect() -> LegOutput {
    LegOutput::Graph(Action::Connect {
        to: Callee::Phone(String::from("4915112345678")),
        sdp: String::from("v=0 ours"),
        opaque: String::from("call-1"),
    })
}

fn terminate() -> LegOutput {
    LegOutput::Graph(Action::Terminate { wacid: String::from(WACID) })
}

fn take() -> LegOutput {
    LegOutput::TakeAnswer(String::from(ANSWER))
}

const RINGS: LegOutput = LegOutput::Event(Event::Ringing);
const ANSWERED: LegOutput = LegOutput::Event(Event::Answered);

fn ended(why: Why) -> LegOutput {
    LegOutput::Event(Event::Ended(why))
}

/// Something that happens to a leg.
#[derive(Debug, Clone)]
enum Step {
    Order(Order),
    /// Graph took `connect`, with or without an id that can be read.
    Taken(Option<&'static str>),
    /// Graph refused `connect` with this code.
    Refused(i64),
    /// What became of `connect` is not known.
    Timeout,
    /// There was no connection for `connect`.
    NoConnection,
    /// All tries of `terminate` are through.
    Told,
    /// A webhook with our opaque data named the call.
    Named,
    Media,
    Status(CallStatus),
    /// Meta's terminate webhook.
    Over(bool),
}
use Step::{Media, Named, NoConnection, Over, Refused, Status, Taken, Timeout, Told};
const DIAL: Step = Step::Order(Order::Dial);
const TAKEN: Step = Taken(Some(WACID));
const RINGING: Step = Status(CallStatus::Ringing);
const ACCEPTED: Step = Status(CallStatus::Accepted);
const REJECTED: Step = Status(CallStatus::Rejected);
const fn end(why: Why) -> Step {
    Step::Order(Order::End(why))
}
const HANG_UP: Step = end(Why::FarHungUp);

fn refusal(code: i64) -> Verdict {
    let body = serde_json::json!({ "error": { "code": code, "message": "no" } });
    Verdict::of_http(400, body.to_string().as_bytes()).unwrap()
}

fn happens(leg: &mut Leg, step: &Step) {
    match step {
        Step::Order(order) => leg.order(*order),
        Taken(wacid) => leg.graph_replied("connect", Ok(wacid.map(str::to_owned))),
        Refused(code) => leg.graph_replied("connect", Err(refusal(*code))),
        Timeout => leg.graph_replied("connect", Err(Verdict::of_timeout())),
        NoConnection => leg.graph_replied("connect", Err(Verdict::of_unreachable("refused"))),
        Told => leg.graph_replied("terminate", Ok(None)),
        Named => leg.adopt(WACID),
        Media => leg.media_answered(String::from(ANSWER)),
        Status(status) => leg.status(status),
        Over(answered) => leg.terminated(*answered),
    }
}

fn drain(leg: &mut Leg) -> Vec<LegOutput> {
    std::iter::from_fn(|| leg.poll()).collect()
}

/// Tells a story step by step, checking what each step makes the leg say.
fn story(steps: &[(Step, &[LegOutput])]) -> Leg {
    let mut leg = leg();
    for (step, wanted) in steps {
        happens(&mut leg, step);
        assert_eq!(drain(&mut leg), *wanted, "at {step:?}");
    }
    leg
}

/// Once over, nothing makes it say anything more.
fn stays_over(mut leg: Leg) {
    assert!(leg.is_over());
    let late = [DIAL, TAKEN, Timeout, Refused(138_006), Told, Named, Media, RINGING, ACCEPTED, REJECTED];
    for step in late.iter().chain(&[Over(true), Over(false), HANG_UP]) {
        happens(&mut leg, step);
        assert_eq!(drain(&mut leg), [], "{step:?} after the end");
    }
    assert_eq!(leg.ending(), None);
}

#[test]
fn a_user_is_rung_picks_up_and_hangs_up() {
    stays_over(story(&[
        (Step::Order(Order::Prepare), &[]),
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (Media, &[take()]),
        (RINGING, &[RINGS]),
        (ACCEPTED, &[LegOutput::OpenGate, ANSWERED]),
        (Over(true), &[ended(Why::UserHungUp)]),
    ]));
}

#[test]
fn the_answer_is_taken_before_graph_has_replied() {
    let leg = story(&[
        (DIAL, &[connect()]),
        (Named, &[]),
        (Media, &[take()]),
        (RINGING, &[RINGS]),
        (TAKEN, &[]),
        (ACCEPTED, &[LegOutput::OpenGate, ANSWERED]),
        (HANG_UP, &[terminate()]),
        (Told, &[ended(Why::FarHungUp)]),
    ]);
    assert_eq!(leg.wacid(), WACID);
    stays_over(leg);
}

#[test]
fn webhooks_that_came_without_a_name_still_count_and_the_reply_names_the_call() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (Media, &[take()]),
        (RINGING, &[RINGS]),
        (ACCEPTED, &[LegOutput::OpenGate, ANSWERED]),
        (HANG_UP, &[]),
        (TAKEN, &[terminate()]),
        (Told, &[ended(Why::FarHungUp)]),
    ]));
}

#[test]
fn connect_is_not_pickup() {
    let mut leg = story(&[(DIAL, &[connect()]), (TAKEN, &[]), (Media, &[take()])]);
    assert_eq!(leg.ending(), None);
    leg.status(&CallStatus::Other(String::from("QUEUED")));
    assert_eq!(drain(&mut leg), [], "neither ringing nor answered");
}

#[test]
fn a_pickup_needs_no_ringing_before_it() {
    story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (ACCEPTED, &[LegOutput::OpenGate, ANSWERED]),
        (RINGING, &[]),
        (Media, &[take()]),
        (Over(true), &[ended(Why::UserHungUp)]),
    ]);
}

#[test]
fn everything_twice_is_everything_once() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (DIAL, &[]),
        (TAKEN, &[]),
        (TAKEN, &[]),
        (Named, &[]),
        (Media, &[take()]),
        (Media, &[]),
        (RINGING, &[RINGS]),
        (RINGING, &[]),
        (ACCEPTED, &[LegOutput::OpenGate, ANSWERED]),
        (ACCEPTED, &[]),
        (HANG_UP, &[terminate()]),
        (end(Why::Operator), &[]),
        (Told, &[ended(Why::FarHungUp)]),
        (Over(true), &[]),
    ]));
}

#[test]
fn a_user_who_declines_is_told_apart_from_one_who_does_not_answer() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (RINGING, &[RINGS]),
        (REJECTED, &[terminate()]),
        (Over(false), &[ended(Why::UserDeclined)]),
    ]));
    stays_over(story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (RINGING, &[RINGS]),
        (Over(false), &[ended(Why::UserNoAnswer)]),
    ]));
}

#[test]
fn a_declined_call_ends_without_metas_terminate_too() {
    let mut leg = story(&[(DIAL, &[connect()]), (TAKEN, &[]), (REJECTED, &[terminate()])]);
    assert_eq!(leg.ending(), Some(Why::UserDeclined), "the caller need not wait for Graph");
    happens(&mut leg, &Told);
    assert_eq!(drain(&mut leg), [ended(Why::UserDeclined)]);
    stays_over(leg);
}

#[test]
fn a_decline_that_overtakes_the_reply_waits_for_the_name_of_the_call() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (REJECTED, &[]),
        (TAKEN, &[terminate()]),
        (Over(false), &[ended(Why::UserDeclined)]),
    ]));
}

#[test]
fn a_terminate_that_overtakes_everything_ends_the_call() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (Over(false), &[ended(Why::UserNoAnswer)]),
        (Media, &[]),
        (RINGING, &[]),
        (TAKEN, &[]),
    ]));
    stays_over(story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (Over(false), &[ended(Why::UserNoAnswer)]),
        (Media, &[]),
    ]));
}

#[test]
fn a_duration_without_a_pickup_means_that_the_pickup_got_lost() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (RINGING, &[RINGS]),
        (Over(true), &[ended(Why::UserHungUp)]),
    ]));
}

#[test]
fn a_running_call_counts_as_answered_even_if_the_webhook_forgets_to_say_so() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (ACCEPTED, &[LegOutput::OpenGate, ANSWERED]),
        (Over(false), &[ended(Why::UserHungUp)]),
    ]));
}

#[test]
fn a_call_that_was_never_dialled_ends_without_telling_meta() {
    stays_over(story(&[(HANG_UP, &[ended(Why::FarHungUp)])]));
}

#[test]
fn the_caller_gives_up_while_connect_is_under_way() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (HANG_UP, &[]),
        (end(Why::Operator), &[]),
        (TAKEN, &[terminate()]),
        (Told, &[ended(Why::FarHungUp)]),
    ]));
    stays_over(story(&[
        (DIAL, &[connect()]),
        (HANG_UP, &[]),
        (Named, &[terminate()]),
        (TAKEN, &[]),
        (Told, &[ended(Why::FarHungUp)]),
    ]));
    stays_over(story(&[(DIAL, &[connect()]), (HANG_UP, &[]), (Refused(138_006), &[ended(Why::FarHungUp)])]));
    stays_over(story(&[(DIAL, &[connect()]), (HANG_UP, &[]), (NoConnection, &[ended(Why::FarHungUp)])]));
    stays_over(story(&[(DIAL, &[connect()]), (HANG_UP, &[]), (Over(false), &[ended(Why::FarHungUp)])]));
}

#[test]
fn what_comes_after_the_caller_gave_up_is_not_passed_on() {
    story(&[
        (DIAL, &[connect()]),
        (HANG_UP, &[]),
        (Media, &[]),
        (RINGING, &[]),
        (ACCEPTED, &[]),
        (TAKEN, &[terminate()]),
        (Media, &[]),
        (RINGING, &[]),
        (ACCEPTED, &[]),
    ]);
}

#[test]
fn the_caller_gives_up_while_the_phone_rings_and_after_the_pickup() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (HANG_UP, &[terminate()]),
        (Over(false), &[ended(Why::FarHungUp)]),
    ]));
    stays_over(story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (RINGING, &[RINGS]),
        (HANG_UP, &[terminate()]),
        (Told, &[ended(Why::FarHungUp)]),
    ]));
    stays_over(story(&[
        (DIAL, &[connect()]),
        (TAKEN, &[]),
        (ACCEPTED, &[LegOutput::OpenGate, ANSWERED]),
        (end(Why::TooLong), &[terminate()]),
        (Told, &[ended(Why::TooLong)]),
    ]));
}

#[test]
fn a_call_in_doubt_ends_as_soon_as_a_webhook_shows_that_meta_has_it() {
    let mut leg = story(&[(DIAL, &[connect()]), (Timeout, &[])]);
    assert_eq!(leg.ending(), Some(Why::GraphUnreachable), "the caller hears of it at once");
    for late in [Media, RINGING, HANG_UP] {
        happens(&mut leg, &late);
        assert_eq!(drain(&mut leg), []);
    }
    happens(&mut leg, &Named);
    assert_eq!(drain(&mut leg), [terminate()]);
    happens(&mut leg, &Told);
    assert_eq!(drain(&mut leg), [ended(Why::GraphUnreachable)]);
    stays_over(leg);
}

#[test]
fn a_call_in_doubt_that_the_caller_gave_up_keeps_the_callers_reason() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (HANG_UP, &[]),
        (Timeout, &[]),
        (Named, &[terminate()]),
        (Told, &[ended(Why::FarHungUp)]),
    ]));
    stays_over(story(&[
        (DIAL, &[connect()]),
        (HANG_UP, &[]),
        (Timeout, &[]),
        (Over(false), &[ended(Why::FarHungUp)]),
    ]));
}

#[test]
fn a_webhook_before_the_timeout_leaves_no_doubt() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (Named, &[]),
        (Timeout, &[]),
        (RINGING, &[RINGS]),
        (ACCEPTED, &[LegOutput::OpenGate, ANSWERED]),
        (HANG_UP, &[terminate()]),
        (Told, &[ended(Why::FarHungUp)]),
    ]));
}

#[test]
fn a_yes_without_an_id_is_named_by_the_first_webhook() {
    stays_over(story(&[
        (DIAL, &[connect()]),
        (Taken(None), &[]),
        (Named, &[]),
        (RINGING, &[RINGS]),
        (HANG_UP, &[terminate()]),
        (Told, &[ended(Why::FarHungUp)]),
    ]));
    stays_over(story(&[
        (DIAL, &[connect()]),
        (Taken(None), &[]),
        (HANG_UP, &[]),
        (Named, &[terminate()]),
        (Told, &[ended(Why::FarHungUp)]),
    ]));
    stays_over(story(&[
        (DIAL, &[connect()]),
        (HANG_UP, &[]),
        (Taken(None), &[]),
        (Over(false), &[ended(Why::FarHungUp)]),
    ]));
}

#[test]
fn a_refusal_ends_the_call_with_its_reason() {
    for (code, why) in [
        (138_006, Why::NoPermission),
        (138_001, Why::NotOnWhatsApp),
        (131_026, Why::NotOnWhatsApp),
        (131_030, Why::NotOnWhatsApp),
        (138_003, Why::UserBusy),
        (4, Why::Throttled),
        (80_007, Why::Throttled),
        (130_429, Why::Throttled),
        (613, Why::Throttled),
        (138_002, Why::Throttled),
        (138_005, Why::Throttled),
        (138_012, Why::Throttled),
        (100, Why::GraphRefused),
        (131_044, Why::GraphRefused),
        (131_055, Why::GraphRefused),
        (138_000, Why::GraphRefused),
        (138_008, Why::GraphRefused),
        (138_013, Why::GraphRefused),
        (999_999, Why::GraphRefused),
        (138_004, Why::GraphUnreachable),
    ] {
        stays_over(story(&[(DIAL, &[connect()]), (Refused(code), &[ended(why)])]));
    }
    stays_over(story(&[(DIAL, &[connect()]), (NoConnection, &[ended(Why::GraphUnreachable)])]));
}

#[test]
fn the_first_name_of_a_call_stays() {
    let mut leg = story(&[(DIAL, &[connect()]), (Named, &[])]);
    leg.adopt("wacid.OTHER");
    assert_eq!(leg.wacid(), WACID);
}

#[test]
fn what_was_not_passed_on_yet_is_dropped_when_the_call_is_over() {
    let mut leg = leg();
    for step in [DIAL, Named, Media, Over(false)] {
        happens(&mut leg, &step);
    }
    assert_eq!(drain(&mut leg), [ended(Why::UserNoAnswer)]);
}

#[test]
fn what_belongs_to_our_calls_changes_nothing_in_a_users_call() {
    let mut leg = Leg::inbound(WACID, String::from("v=0 ours"));
    assert_eq!(leg.direction(), Direction::Inbound);
    leg.order(Order::Prepare);
    leg.graph_replied("pre_accept", Ok(None));
    drain(&mut leg);
    for step in [DIAL, TAKEN, Timeout, Named, Media, RINGING, ACCEPTED, REJECTED] {
        happens(&mut leg, &step);
        assert_eq!(drain(&mut leg), [], "{step:?}");
    }
    leg.order(Order::Answer);
    leg.graph_replied("accept", Ok(None));
    assert_eq!(drain(&mut leg).last(), Some(&ANSWERED));
    for step in [Media, RINGING, REJECTED] {
        happens(&mut leg, &step);
        assert_eq!(drain(&mut leg), [], "{step:?}");
    }
}

/// Anything that can happen, in any order.
fn any_step() -> impl Strategy<Value = Step> {
    let codes = prop::sample::select(vec![4, 100, 138_001, 138_003, 138_004, 138_006, 138_012, 131_055]);
    prop_oneof![
        2 => Just(DIAL),
        1 => Just(Step::Order(Order::Prepare)),
        1 => Just(Step::Order(Order::Answer)),
        1 => Just(HANG_UP),
        2 => Just(TAKEN),
        1 => Just(Taken(None)),
        1 => codes.prop_map(Refused),
        1 => Just(Timeout),
        1 => Just(NoConnection),
        1 => Just(Told),
        2 => Just(Named),
        2 => Just(Media),
        2 => Just(RINGING),
        2 => Just(ACCEPTED),
        1 => Just(REJECTED),
        1 => any::<bool>().prop_map(Over),
    ]
}

proptest! {
    /// Drained or not in between: each word at most once, the gate before Answered, nothing but `connect`
    /// without a name, silence after Ended, and an end that is always reached once a webhook came.
    #[test]
    fn whatever_happens_the_leg_keeps_its_word(
        steps in prop::collection::vec((any_step(), any::<bool>()), 0..40),
    ) {
        let mut leg = leg();
        let mut said: Vec<LegOutput> = Vec::new();
        for (step, drained) in &steps {
            // Nobody answers a hang-up that has not been sent.
            if matches!(step, Told) && !said.contains(&terminate()) {
                continue;
            }
            let alive = leg.ending().is_none();
            happens(&mut leg, step);
            prop_assert!(alive || leg.ending().is_some() || leg.is_over(), "{:?} revived it", step);
            if *drained {
                said.extend(drain(&mut leg));
            }
        }
        for step in [end(Why::Operator), Taken(None), Told, Named, Told] {
            happens(&mut leg, &step);
            said.extend(drain(&mut leg));
        }
        prop_assert!(leg.is_over());
        for (index, output) in said.iter().enumerate() {
            prop_assert!(!said[..index].contains(output), "twice: {:?}", output);
            if let LegOutput::Graph(action) = output {
                let dial = action.name() == "connect";
                prop_assert!(dial || action.wacid() == Some(WACID), "{:?}", action);
                prop_assert!(dial || action.name() == "terminate", "{:?}", action);
            }
        }
        let ends = said.iter().filter(|output| matches!(output, LegOutput::Event(Event::Ended(_)))).count();
        prop_assert_eq!(ends, 1);
        prop_assert!(matches!(said.last(), Some(LegOutput::Event(Event::Ended(_)))));
        let place = |wanted: &LegOutput| said.iter().position(|output| output == wanted);
        prop_assert_eq!(place(&LegOutput::OpenGate).map(|index| index + 1), place(&ANSWERED));
        let terminates = said.iter().position(|output| *output == terminate());
        prop_assert!(terminates.is_none_or(|at| at + 2 == said.len()), "only the end follows a terminate");
        // A call that Meta took is ended by Meta or by us, never just forgotten.
        let dialled = said.contains(&connect());
        let taken = steps.iter().any(|(step, _)| matches!(step, Step::Taken(Some(_)) | Named));
        let closed = steps.iter().any(|(step, _)| matches!(step, Over(_) | Refused(_) | NoConnection));
        prop_assert!(!(dialled && taken && !closed) || terminates.is_some() || dropped_dial(&steps));
    }
}

/// The end came before the dialling was drained, or before it was ordered.
fn dropped_dial(steps: &[(Step, bool)]) -> bool {
    let at = |wanted: fn(&Step) -> bool| steps.iter().position(|(step, _)| wanted(step));
    let dial = at(|step| matches!(step, Step::Order(Order::Dial)));
    let named = steps.iter().rposition(|(step, _)| matches!(step, Step::Taken(Some(_)) | Named));
    named < dial
}
