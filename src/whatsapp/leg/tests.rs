//! Every way in which a WhatsApp leg begins and ends, with the messages crossing as they do.

use proptest::prelude::*;

use super::*;

fn leg() -> Leg {
    Leg::inbound("wacid.1", String::from("v=0 ours"))
}

fn pre_accept() -> LegOutput {
    LegOutput::Graph(Action::PreAccept { wacid: String::from("wacid.1"), sdp: String::from("v=0 ours") })
}

fn accept() -> LegOutput {
    LegOutput::Graph(Action::Accept { wacid: String::from("wacid.1"), sdp: String::from("v=0 ours") })
}

fn reject() -> LegOutput {
    LegOutput::Graph(Action::Reject { wacid: String::from("wacid.1") })
}

fn terminate() -> LegOutput {
    LegOutput::Graph(Action::Terminate { wacid: String::from("wacid.1") })
}

fn ended(why: Why) -> LegOutput {
    LegOutput::Event(Event::Ended(why))
}

fn ready() -> LegOutput {
    LegOutput::Event(Event::Ready)
}

fn answered() -> LegOutput {
    LegOutput::Event(Event::Answered)
}

fn verdict(kind: VerdictKind) -> Verdict {
    let mut verdict = Verdict::of_timeout();
    verdict.kind = kind;
    verdict
}

fn drain(leg: &mut Leg) -> Vec<LegOutput> {
    std::iter::from_fn(|| leg.poll()).collect()
}

/// Something that happens to a leg.
#[derive(Debug, Clone)]
enum Step {
    Order(Order),
    Yes(&'static str),
    No(&'static str, VerdictKind),
    /// Meta's terminate webhook.
    Webhook(bool),
}
use Step::{No, Webhook, Yes};
const PREPARE: Step = Step::Order(Order::Prepare);
const ANSWER: Step = Step::Order(Order::Answer);
const fn end(why: Why) -> Step {
    Step::Order(Order::End(why))
}

fn happen(leg: &mut Leg, step: &Step) -> Vec<LegOutput> {
    match step {
        Step::Order(order) => leg.order(*order),
        Step::Yes(name) => leg.graph_replied(name, Ok(None)),
        Step::No(name, kind) => leg.graph_replied(name, Err(verdict(*kind))),
        Step::Webhook(answered) => leg.terminated(*answered),
    }
    drain(leg)
}

/// Tells a story step by step, checking what each step makes the leg say.
fn story(steps: &[(Step, &[LegOutput])]) -> Leg {
    let mut leg = leg();
    for (step, wanted) in steps {
        assert_eq!(happen(&mut leg, step), *wanted, "at {step:?}");
    }
    leg
}

/// Once over, nothing makes it say anything more.
fn stays_over(mut leg: Leg) {
    assert!(leg.is_over());
    for step in [
        PREPARE,
        ANSWER,
        end(Why::Operator),
        Yes("pre_accept"),
        Yes("accept"),
        Yes("terminate"),
        Yes("reject"),
        No("accept", VerdictKind::Refused),
        No("terminate", VerdictKind::Unreachable),
        Webhook(true),
        Webhook(false),
    ] {
        assert_eq!(happen(&mut leg, &step), [], "{step:?} after the end");
    }
}

#[test]
fn a_call_is_prepared_answered_and_hung_up_by_the_user() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (Yes("pre_accept"), &[ready()]),
        (ANSWER, &[accept()]),
        (Yes("accept"), &[LegOutput::OpenGate, answered()]),
        (Webhook(true), &[ended(Why::UserHungUp)]),
    ]));
}

#[test]
fn a_call_is_prepared_answered_and_hung_up_by_the_far_end() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (Yes("pre_accept"), &[ready()]),
        (ANSWER, &[accept()]),
        (Yes("accept"), &[LegOutput::OpenGate, answered()]),
        (end(Why::FarHungUp), &[terminate()]),
        (Yes("terminate"), &[ended(Why::FarHungUp)]),
    ]));
}

#[test]
fn accept_repeats_the_very_sdp_of_pre_accept() {
    let mut leg = leg();
    let sdp = |outputs: Vec<LegOutput>| match outputs.as_slice() {
        [LegOutput::Graph(Action::PreAccept { sdp, .. } | Action::Accept { sdp, .. })] => sdp.clone(),
        other => panic!("{other:?}"),
    };
    let first = sdp(happen(&mut leg, &PREPARE));
    happen(&mut leg, &Yes("pre_accept"));
    assert_eq!(sdp(happen(&mut leg, &ANSWER)), first);
}

#[test]
fn an_answer_without_prepare_accepts_directly() {
    story(&[(ANSWER, &[accept()]), (Yes("accept"), &[LegOutput::OpenGate, answered()])]);
}

#[test]
fn an_answer_while_pre_accept_is_in_flight_waits_for_its_reply() {
    story(&[
        (PREPARE, &[pre_accept()]),
        (ANSWER, &[]),
        (Yes("pre_accept"), &[ready(), accept()]),
        (Yes("accept"), &[LegOutput::OpenGate, answered()]),
    ]);
}

#[test]
fn everything_twice_is_everything_once() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (PREPARE, &[]),
        (Yes("pre_accept"), &[ready()]),
        (Yes("pre_accept"), &[]),
        (PREPARE, &[]),
        (ANSWER, &[accept()]),
        (ANSWER, &[]),
        (Yes("accept"), &[LegOutput::OpenGate, answered()]),
        (Yes("accept"), &[]),
        (ANSWER, &[]),
        (end(Why::FarHungUp), &[terminate()]),
        (end(Why::Operator), &[]),
        (Yes("terminate"), &[ended(Why::FarHungUp)]),
        (Yes("terminate"), &[]),
        (Webhook(true), &[]),
    ]));
}

#[test]
fn there_is_nothing_to_tell_a_user_who_hears_ringing_already() {
    story(&[(Step::Order(Order::Ring), &[]), (Step::Order(Order::Dial), &[]), (PREPARE, &[pre_accept()])]);
}

#[test]
fn a_call_that_was_never_prepared_is_rejected() {
    stays_over(story(&[(end(Why::NotRouted), &[reject()]), (Yes("reject"), &[ended(Why::NotRouted)])]));
}

#[test]
fn a_call_that_was_prepared_is_terminated() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (Yes("pre_accept"), &[ready()]),
        (end(Why::FarBusy), &[terminate()]),
        (Yes("terminate"), &[ended(Why::FarBusy)]),
    ]));
}

#[test]
fn an_end_while_pre_accept_is_in_flight_waits_for_its_reply_then_terminates() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (end(Why::FarDeclined), &[]),
        (end(Why::Operator), &[]),
        (Yes("pre_accept"), &[terminate()]),
        (Yes("terminate"), &[ended(Why::FarDeclined)]),
    ]));
}

#[test]
fn an_end_after_an_answer_that_waits_does_not_accept() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (ANSWER, &[]),
        (end(Why::FarHungUp), &[]),
        (Yes("pre_accept"), &[terminate()]),
        (Yes("terminate"), &[ended(Why::FarHungUp)]),
    ]));
}

#[test]
fn an_end_while_accept_is_in_flight_terminates_and_never_opens_the_gate() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (Yes("pre_accept"), &[ready()]),
        (ANSWER, &[accept()]),
        (end(Why::FarHungUp), &[]),
        (Yes("accept"), &[terminate()]),
        (Yes("terminate"), &[ended(Why::FarHungUp)]),
    ]));
}

#[test]
fn an_end_while_an_accept_fails_still_terminates_with_the_reason_of_the_end() {
    for kind in
        [VerdictKind::Refused, VerdictKind::Misconfigured, VerdictKind::Throttled, VerdictKind::Unreachable]
    {
        stays_over(story(&[
            (ANSWER, &[accept()]),
            (end(Why::FarHungUp), &[]),
            (No("accept", kind), &[terminate()]),
            (Yes("terminate"), &[ended(Why::FarHungUp)]),
        ]));
    }
}

#[test]
fn the_user_gives_up_at_any_moment_before_the_answer() {
    stays_over(story(&[(Webhook(false), &[ended(Why::UserGaveUp)])]));
    stays_over(story(&[(PREPARE, &[pre_accept()]), (Webhook(false), &[ended(Why::UserGaveUp)])]));
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (Yes("pre_accept"), &[ready()]),
        (Webhook(false), &[ended(Why::UserGaveUp)]),
    ]));
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (ANSWER, &[]),
        (Webhook(false), &[ended(Why::UserGaveUp)]),
    ]));
}

#[test]
fn the_terminate_webhook_overtakes_the_reply_to_accept() {
    stays_over(story(&[
        (ANSWER, &[accept()]),
        (Webhook(false), &[ended(Why::UserGaveUp)]),
        (Yes("accept"), &[]),
    ]));
    stays_over(story(&[
        (ANSWER, &[accept()]),
        (Webhook(true), &[ended(Why::UserHungUp)]),
        (Yes("accept"), &[]),
    ]));
}

#[test]
fn a_running_call_counts_as_answered_even_if_the_webhook_forgets_to_say_so() {
    stays_over(story(&[
        (ANSWER, &[accept()]),
        (Yes("accept"), &[LegOutput::OpenGate, answered()]),
        (Webhook(false), &[ended(Why::UserHungUp)]),
    ]));
}

#[test]
fn the_terminate_webhook_overtakes_the_reply_to_our_own_terminate() {
    stays_over(story(&[
        (ANSWER, &[accept()]),
        (Yes("accept"), &[LegOutput::OpenGate, answered()]),
        (end(Why::FarHungUp), &[terminate()]),
        (Webhook(true), &[ended(Why::FarHungUp)]),
        (No("terminate", VerdictKind::AlreadyOver), &[]),
    ]));
}

#[test]
fn the_user_hangs_up_while_our_end_waits_for_a_reply() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (end(Why::FarNoAnswer), &[]),
        (Webhook(false), &[ended(Why::FarNoAnswer)]),
        (Yes("pre_accept"), &[]),
    ]));
    stays_over(story(&[
        (ANSWER, &[accept()]),
        (end(Why::FarHungUp), &[]),
        (Webhook(true), &[ended(Why::FarHungUp)]),
        (No("accept", VerdictKind::AlreadyOver), &[]),
    ]));
}

#[test]
fn a_refused_pre_accept_rejects_and_ends() {
    for kind in [VerdictKind::Refused, VerdictKind::Misconfigured, VerdictKind::Throttled] {
        stays_over(story(&[
            (PREPARE, &[pre_accept()]),
            (No("pre_accept", kind), &[reject()]),
            (No("reject", kind), &[ended(Why::GraphRefused)]),
        ]));
    }
}

#[test]
fn a_pre_accept_of_which_nothing_was_heard_may_have_been_taken_and_is_terminated() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (No("pre_accept", VerdictKind::Unreachable), &[terminate()]),
        (No("terminate", VerdictKind::Unreachable), &[ended(Why::GraphRefused)]),
    ]));
}

#[test]
fn a_refused_accept_terminates_and_ends() {
    for kind in
        [VerdictKind::Refused, VerdictKind::Misconfigured, VerdictKind::Throttled, VerdictKind::Unreachable]
    {
        stays_over(story(&[
            (PREPARE, &[pre_accept()]),
            (Yes("pre_accept"), &[ready()]),
            (ANSWER, &[accept()]),
            (No("accept", kind), &[terminate()]),
            (Yes("terminate"), &[ended(Why::GraphRefused)]),
        ]));
    }
}

#[test]
fn an_accept_or_pre_accept_that_comes_too_late_means_that_the_user_gave_up() {
    stays_over(story(&[
        (PREPARE, &[pre_accept()]),
        (No("pre_accept", VerdictKind::AlreadyOver), &[ended(Why::UserGaveUp)]),
    ]));
    stays_over(story(&[
        (ANSWER, &[accept()]),
        (No("accept", VerdictKind::AlreadyOver), &[ended(Why::UserGaveUp)]),
        (Webhook(false), &[]),
    ]));
}

#[test]
fn a_terminate_or_reject_that_fails_in_any_way_still_ends_the_leg() {
    for kind in [
        VerdictKind::AlreadyOver,
        VerdictKind::Refused,
        VerdictKind::Misconfigured,
        VerdictKind::Throttled,
        VerdictKind::Unreachable,
    ] {
        stays_over(story(&[
            (end(Why::OverLimit), &[reject()]),
            (No("reject", kind), &[ended(Why::OverLimit)]),
        ]));
        stays_over(story(&[
            (ANSWER, &[accept()]),
            (Yes("accept"), &[LegOutput::OpenGate, answered()]),
            (end(Why::TooLong), &[terminate()]),
            (No("terminate", kind), &[ended(Why::TooLong)]),
        ]));
    }
}

#[test]
fn a_reply_to_something_that_was_not_asked_changes_nothing() {
    story(&[
        (Yes("accept"), &[]),
        (Yes("terminate"), &[]),
        (Yes("nonsense"), &[]),
        (PREPARE, &[pre_accept()]),
        (Yes("accept"), &[]),
        (Yes("reject"), &[]),
        (Yes("pre_accept"), &[ready()]),
    ]);
}

#[test]
fn what_was_not_sent_yet_is_dropped_when_the_user_hangs_up() {
    let mut leg = leg();
    leg.order(Order::Prepare);
    leg.terminated(false);
    assert_eq!(drain(&mut leg), [ended(Why::UserGaveUp)]);
}

/// Anything that can happen, in any order.
fn any_step() -> impl Strategy<Value = Step> {
    let name = prop::sample::select(vec!["pre_accept", "accept", "reject", "terminate"]);
    let kind = prop::sample::select(vec![
        VerdictKind::AlreadyOver,
        VerdictKind::Refused,
        VerdictKind::Misconfigured,
        VerdictKind::Throttled,
        VerdictKind::Unreachable,
    ]);
    prop_oneof![
        Just(PREPARE),
        Just(ANSWER),
        Just(Step::Order(Order::Ring)),
        Just(end(Why::FarHungUp)),
        name.clone().prop_map(Yes),
        (name, kind).prop_map(|(name, kind)| No(name, kind)),
        any::<bool>().prop_map(Webhook),
    ]
}

proptest! {
    /// Drained or not in between: at most one of each word, never two actions at a time, the gate before
    /// Answered, silence after Ended, and an end that is always reached.
    #[test]
    fn whatever_happens_the_leg_keeps_its_word(
        steps in prop::collection::vec((any_step(), any::<bool>()), 0..40),
    ) {
        let mut leg = leg();
        let mut said: Vec<LegOutput> = Vec::new();
        for (step, drained) in &steps {
            match step {
                Step::Order(order) => leg.order(*order),
                Step::Yes(name) => leg.graph_replied(name, Ok(None)),
                Step::No(name, kind) => leg.graph_replied(name, Err(verdict(*kind))),
                Step::Webhook(answered) => leg.terminated(*answered),
            }
            if *drained {
                said.extend(drain(&mut leg));
            }
        }
        leg.order(Order::End(Why::Operator));
        for name in ["pre_accept", "accept", "reject", "terminate"] {
            leg.graph_replied(name, Ok(None));
        }
        said.extend(drain(&mut leg));
        prop_assert!(leg.is_over());
        for (index, output) in said.iter().enumerate() {
            prop_assert!(!said[..index].contains(output), "twice: {:?}", output);
        }
        let ends = said.iter().filter(|output| matches!(output, LegOutput::Event(Event::Ended(_)))).count();
        prop_assert_eq!(ends, 1);
        prop_assert!(matches!(said.last(), Some(LegOutput::Event(Event::Ended(_)))));
        let place = |wanted: &LegOutput| said.iter().position(|output| output == wanted);
        prop_assert_eq!(place(&LegOutput::OpenGate).map(|index| index + 1), place(&answered()));
        prop_assert!(!(said.contains(&reject()) && said.contains(&terminate())));
    }
}
