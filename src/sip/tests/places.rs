//! Stories of trunks with several places, of calls that fail for the trunk's sake, and of patience.

use super::*;

const FIRST: &str = "192.0.2.1:5060";
const SECOND: &str = "192.0.2.2:5060";
const THIRD: &str = "192.0.2.3:5060";

fn places(addresses: &[&str]) -> Vec<Found> {
    addresses.iter().map(|address| found(address, US)).collect()
}

/// A trunk by OPTIONS at these places, up at the first.
fn up_at(addresses: &[&str]) -> Lab {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    lab.ua.add_trunk(TrunkSettings { found: places(addresses), ..trunk(false) }, lab.now);
    lab.drain();
    let options = lab.take("OPTIONS");
    assert_eq!(options.to, udp(addresses[0]));
    lab.answer(&options, "200 OK", "", "");
    lab.events.clear();
    lab
}

fn registered_at(addresses: &[&str]) -> Lab {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    lab.ua.add_trunk(TrunkSettings { found: places(addresses), ..trunk(true) }, lab.now);
    lab.drain();
    let register = lab.take("REGISTER");
    assert_eq!(register.to, udp(addresses[0]));
    lab.answer(&register, "200 OK", "Expires: 300\r\n", "");
    lab.events.clear();
    lab
}

fn dial_with(lab: &mut Lab, leg: u64, patience: Option<Duration>) {
    lab.ua.dial(LegId(leg), Dial { patience, ..dial() }, lab.now).unwrap();
    lab.drain();
}

fn state(lab: &Lab) -> TrunkState {
    lab.ua.trunks()[0].state.clone()
}

fn peer(lab: &Lab) -> Way {
    lab.ua.trunks()[0].peer.unwrap()
}

#[test]
fn a_call_refused_with_503_goes_on_at_the_next_place_as_one_call() {
    let mut lab = up_at(&[FIRST, SECOND]);
    let invite = lab.dialled();
    assert_eq!(invite.to, udp(FIRST));
    lab.answer(&invite, "503 Service Unavailable", "", "");
    let kinds: Vec<(String, Way)> = lab.sent.iter().map(|sent| (sent.what().to_owned(), sent.to)).collect();
    assert!(kinds.contains(&("ACK".to_owned(), udp(FIRST))), "{kinds:?}");
    assert!(kinds.contains(&("OPTIONS".to_owned(), udp(SECOND))), "{kinds:?}");
    let again = lab.find("INVITE");
    assert_eq!(again.to, udp(SECOND));
    assert_eq!(again.header("Call-ID"), invite.header("Call-ID"));
    assert_ne!(again.branch(), invite.branch());
    lab.no_event();
    lab.answer(&again, "200 OK", "Contact: <sip:200@192.0.2.2:5060>\r\n", THEIRS);
    assert_eq!(lab.take("ACK").to, udp(SECOND));
    assert!(matches!(lab.take_events().as_slice(), [Event::Answered { .. }]));
    assert_eq!(peer(&lab), udp(SECOND), "the next call goes there at once");
}

#[test]
fn a_call_that_finds_no_connection_goes_on_at_the_next_place() {
    let mut lab = up_at(&[FIRST, SECOND]);
    let invite = lab.dialled();
    lab.ua.unreachable(udp(FIRST), "connection refused", lab.now);
    lab.drain();
    let again = lab.find("INVITE");
    assert_eq!((again.to, again.header("Call-ID")), (udp(SECOND), invite.header("Call-ID")));
    lab.no_event();
    lab.answer(&again, "503 Full", "", "");
    let ending = lab.ending();
    assert_eq!(
        (ending.by, ending.code, ending.failed_over()),
        (EndedBy::Peer, Some(503), true),
        "both were tried"
    );
}

#[test]
fn a_busy_telephone_is_not_tried_elsewhere() {
    for refusal in ["486 Busy Here", "603 Decline", "404 Not Found", "408 Request Timeout", "480 Gone"] {
        let mut lab = up_at(&[FIRST, SECOND]);
        let invite = lab.dialled();
        lab.answer(&invite, refusal, "", "");
        lab.take("ACK");
        assert!(!lab.ending().failed_over(), "{refusal}");
        assert_eq!(peer(&lab), udp(FIRST));
        assert_eq!(lab.ua.trunks()[0].failures, 0);
    }
    for refusal in ["500 Oops", "502 Bad Gateway", "504 Server Time-out"] {
        let mut lab = up_at(&[FIRST, SECOND]);
        let invite = lab.dialled();
        lab.answer(&invite, refusal, "", "");
        assert!(lab.ending().failed_over(), "{refusal}: another trunk may do better");
    }
}

#[test]
fn a_place_that_is_silent_to_options_is_left_for_the_next_and_taken_up_again_when_it_is_back() {
    let mut lab = up_at(&[FIRST, SECOND]);
    lab.wait();
    lab.pass(Duration::from_secs(32));
    let asked = lab.sent.iter().rev().find(|sent| sent.to == udp(SECOND)).cloned().unwrap();
    assert_eq!(asked.what(), "OPTIONS");
    lab.no_event();
    assert!(state(&lab).is_up(), "what is silent is one place, not the trunk");
    lab.sent.clear();
    lab.answer(&asked, "200 OK", "", "");
    assert_eq!(peer(&lab), udp(SECOND));

    // A minute later the first one is asked whether it is back, and it is not.
    let mut asked_first = Vec::new();
    for _ in 0..5 {
        lab.wait();
        for sent in std::mem::take(&mut lab.sent) {
            if sent.to == udp(SECOND) {
                lab.answer(&sent, "200 OK", "", "");
            } else {
                asked_first.push(sent);
            }
        }
    }
    assert!(!asked_first.is_empty() && asked_first.iter().all(|sent| sent.to == udp(FIRST)));
    assert_eq!(peer(&lab), udp(SECOND));
    // Now it answers.
    lab.answer(asked_first.last().unwrap(), "200 OK", "", "");
    assert_eq!(peer(&lab), udp(FIRST));
    lab.no_event();
    lab.sent.clear();
    let invite = lab.dialled();
    assert_eq!(invite.to, udp(FIRST));
}

#[test]
fn a_running_dialog_stays_where_it_is_when_the_trunk_moves() {
    let mut lab = up_at(&[FIRST, SECOND]);
    lab.talking();
    lab.ua.dial(LegId(2), dial(), lab.now).unwrap();
    lab.drain();
    let invite = lab.take("INVITE");
    lab.answer(&invite, "503 x", "", "");
    assert_eq!(peer(&lab), udp(SECOND));
    lab.sent.clear();
    lab.leave(LegId(1), None, "");
    assert_eq!(lab.take("BYE").to, udp("192.0.2.1:5062"), "where its Contact says");
}

#[test]
fn every_silent_place_is_tried_before_a_trunk_is_down() {
    let mut lab = up_at(&[FIRST, SECOND, THIRD]);
    lab.pass(Duration::from_secs(30 + 2 * 4));
    assert!(state(&lab).is_up());
    assert_eq!(peer(&lab), udp(THIRD), "four seconds for each that is not the last");
    lab.pass(Duration::from_secs(26));
    assert!(state(&lab).is_up(), "the last one has half a minute");
    lab.pass(Duration::from_secs(8));
    assert!(matches!(state(&lab), TrunkState::Failed { code: None, .. }));
    let tried: std::collections::BTreeSet<Way> = lab.sent.iter().map(|sent| sent.to).collect();
    assert_eq!(tried.len(), 3);
    // It comes back wherever somebody answers.
    lab.sent.clear();
    for _ in 0..3 {
        lab.wait();
        for sent in std::mem::take(&mut lab.sent) {
            lab.answer(&sent, "200 OK", "", "");
        }
    }
    assert!(state(&lab).is_up());
}

#[test]
fn a_registrar_that_is_dead_or_overloaded_hands_over_to_the_next_at_once() {
    let mut lab = registered_at(&[FIRST, SECOND]);
    lab.alive = true;
    lab.pass(Duration::from_secs(200));
    lab.wait();
    let refresh = lab.find("REGISTER");
    assert_eq!(refresh.to, udp(FIRST));
    lab.answer(&refresh, "503 Overloaded", "", "");
    let next = lab.take("REGISTER");
    assert_eq!((next.at, next.to), (refresh.at, udp(SECOND)));
    lab.no_event();
    lab.answer(&next, "200 OK", "Expires: 300\r\n", "");
    assert!(state(&lab).is_up());

    let mut lab = registered_at(&[FIRST, SECOND]);
    lab.alive = true;
    lab.pass(Duration::from_secs(200));
    lab.wait();
    lab.sent.clear();
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.sent.last().unwrap().to, udp(SECOND), "four seconds of silence");
    assert!(state(&lab).is_up());
}

#[test]
fn a_name_whose_first_server_was_never_there_is_registered_at_the_second_within_seconds() {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    lab.ua.add_trunk(TrunkSettings { found: places(&[FIRST, SECOND]), ..trunk(true) }, lab.now);
    lab.drain();
    assert_eq!(lab.take("REGISTER").to, udp(FIRST));
    lab.pass(millis(3_999));
    assert!(lab.sent.iter().all(|sent| sent.to == udp(FIRST)), "it may be slow, or a datagram was lost");
    lab.sent.clear();
    lab.pass(millis(1));
    let register = lab.take("REGISTER");
    assert_eq!(register.to, udp(SECOND));
    lab.answer(&register, "200 OK", "Expires: 300\r\n", "");
    assert_eq!(state(&lab), TrunkState::Registered { expires: Duration::from_secs(300) });
}

#[test]
fn a_pbx_whose_sound_has_stopped_is_asked_soon_and_is_down_if_it_does_not_answer() {
    let mut lab = up_at(&[FIRST]);
    lab.talking();
    lab.pass(Duration::from_secs(5));
    lab.sent.clear();
    lab.ua.doubt(LegId(1), lab.now);
    lab.drain();
    assert!(lab.sent.is_empty(), "it has answered five seconds ago");
    lab.pass(Duration::from_secs(5));
    let options = lab.find("OPTIONS");
    assert_eq!(options.at, 10_000);
    lab.answer(&options, "200 OK", "", "");
    assert!(state(&lab).is_up(), "nobody spoke");
    lab.sent.clear();
    lab.pass(Duration::from_secs(15));
    assert!(lab.sent.iter().all(|sent| sent.what() != "OPTIONS"), "asked once for each pause");
    lab.ua.doubt(LegId(1), lab.now);
    lab.drain();
    assert_eq!(lab.find("OPTIONS").at, 25_000, "at once");
    lab.pass(millis(2_999));
    assert!(state(&lab).is_up());
    lab.pass(millis(1));
    assert!(matches!(state(&lab), TrunkState::Failed { code: None, .. }), "{:?}", state(&lab));
    assert_eq!(lab.ua.dial(LegId(2), dial(), lab.now), Err(DialError::TrunkDown { code: None }));
}

#[test]
fn the_same_places_in_another_order_change_nothing() {
    let mut lab = registered_at(&[FIRST, SECOND, THIRD]);
    for order in [[THIRD, SECOND, FIRST], [SECOND, FIRST, THIRD], [FIRST, THIRD, SECOND]] {
        lab.ua.set_peers("pbx", places(&order), lab.now);
        lab.drain();
    }
    lab.ua.set_peers("pbx", vec![], lab.now);
    lab.drain();
    assert!(lab.sent.is_empty(), "nothing found is no news either");
    lab.no_event();
    assert_eq!(peer(&lab), udp(FIRST));
    // One that is new does not disturb the one that works.
    lab.ua.set_peers("pbx", places(&[FIRST, "192.0.2.9:5060"]), lab.now);
    lab.drain();
    assert!(lab.sent.is_empty());
    lab.no_event();
    assert_eq!(lab.ua.trunks()[0].places, [udp(FIRST), udp("192.0.2.9:5060")]);
}

#[test]
fn every_place_of_a_trunk_may_call_us_and_nobody_else() {
    let mut lab = up_at(&[FIRST, SECOND]);
    let ask = |from: &str| {
        format!(
            "OPTIONS sip:gw@{US} SIP/2.0\r\nVia: SIP/2.0/UDP {from};rport;branch=z9hG4bK{from}\r\nFrom: <sip:p@h>;tag=1\r\n\
             To: <sip:gw@h>\r\nCall-ID: {from}\r\nCSeq: 1 OPTIONS\r\n\r\n"
        )
    };
    lab.receive_from(ask(SECOND).as_bytes(), SECOND);
    lab.take("200");
    lab.receive_from(ask(THIRD).as_bytes(), THIRD);
    assert!(lab.sent.is_empty());
    assert_eq!(lab.ua.counters().dropped_foreign, 1);
}

#[test]
fn two_calls_in_a_row_that_nobody_answers_take_a_trunk_down_until_something_succeeds() {
    let mut lab = Lab::up();
    dial_with(&mut lab, 1, Some(Duration::from_secs(3)));
    lab.pass(Duration::from_secs(3));
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.failed_over()), (EndedBy::Timeout, None, true));
    assert!(state(&lab).is_up());
    assert_eq!(lab.ua.trunks()[0].failures, 1, "it ails");
    assert!(lab.sent.iter().any(|sent| sent.at == 3_000 && sent.what() == "OPTIONS"), "asked at once");
    dial_with(&mut lab, 2, Some(Duration::from_secs(3)));
    lab.pass(Duration::from_secs(3));
    let TrunkState::Failed { code: None, why } = state(&lab) else { panic!("{:?}", state(&lab)) };
    assert_eq!(why, "2 calls in a row failed: no answer to INVITE");
    assert_eq!(lab.ua.dial(LegId(3), dial(), lab.now), Err(DialError::TrunkDown { code: None }));
    lab.events.clear();
    let ping = lab.find("OPTIONS");
    lab.answer(&ping, "200 OK", "", "");
    assert!(state(&lab).is_up());
    assert_eq!(lab.ua.trunks()[0].failures, 0);
}

#[test]
fn a_registered_trunk_that_ails_is_registered_again_once_it_answers() {
    let mut lab = Lab::registering();
    let register = lab.take("REGISTER");
    lab.answer(&register, "200 OK", "Expires: 300\r\n", "");
    lab.events.clear();
    for leg in 1..=2 {
        let invite = {
            dial_with(&mut lab, leg, None);
            lab.find("INVITE")
        };
        lab.answer(&invite, "503 Maintenance", "", "");
        assert!(lab.ending().failed_over() || leg == 2);
        if leg == 2 {
            break;
        }
    }
    assert!(matches!(state(&lab), TrunkState::Failed { code: Some(503), .. }));
    let register = lab.find("REGISTER");
    lab.answer(&register, "200 OK", "Expires: 300\r\n", "");
    assert_eq!(state(&lab), TrunkState::Registered { expires: Duration::from_secs(300) });
}

#[test]
fn a_call_that_is_served_wipes_the_failure_before_it_away() {
    let mut lab = Lab::up();
    lab.alive = true;
    for round in 0..4 {
        dial_with(&mut lab, round * 2 + 1, None);
        let invite = lab.find("INVITE");
        lab.answer(&invite, "503 x", "", "");
        dial_with(&mut lab, round * 2 + 2, None);
        let invite = lab.find("INVITE");
        lab.answer(&invite, "100 Trying", "", "");
        lab.answer(&invite, "486 Busy Here", "", "");
        assert!(state(&lab).is_up(), "round {round}");
    }
}

#[test]
fn a_pbx_that_asks_for_a_pause_gets_it_for_five_minutes_at_most() {
    for (header, seconds) in [("Retry-After: 20 (busy)\r\n", 20), ("Retry-After: 86400\r\n", 300)] {
        let mut lab = Lab::up();
        let invite = lab.dialled();
        lab.answer(&invite, "503 x", header, "");
        lab.find("ACK");
        assert!(lab.ending().failed_over());
        assert_eq!(lab.ua.dial(LegId(2), dial(), lab.now), Err(DialError::TrunkDown { code: Some(503) }));
        lab.pass(Duration::from_secs(seconds - 1));
        assert!(!state(&lab).is_up());
        assert!(lab.sent.iter().all(|sent| sent.what() != "INVITE"));
        lab.sent.clear();
        lab.wait();
        let ping = lab.find("OPTIONS");
        assert_eq!(ping.at, seconds * 1_000, "then it is asked");
        lab.answer(&ping, "200 OK", "", "");
        assert!(state(&lab).is_up());
    }
}

#[test]
fn what_comes_too_late_for_the_patience_is_cancelled_or_hung_up() {
    let mut lab = Lab::up();
    lab.alive = true;
    dial_with(&mut lab, 1, Some(millis(1_000)));
    let invite = lab.take("INVITE");
    lab.pass(millis(999));
    lab.no_event();
    lab.pass(millis(1));
    assert!(lab.ending().failed_over());
    lab.sent.clear();
    lab.pass(Duration::from_secs(5));
    assert!(lab.sent.is_empty(), "it is not sent again");
    lab.answer(&invite, "180 Ringing", "", "");
    let cancel = lab.take("CANCEL");
    assert_eq!(cancel.branch(), invite.branch());
    lab.answer(&cancel, "200 OK", "", "");
    lab.answer(&invite, "200 OK", "Contact: <sip:200@192.0.2.1:5062>\r\n", THEIRS);
    let kinds: Vec<String> = lab.sent_kinds().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["ACK", "BYE"], "it crossed our CANCEL");
    lab.no_event();
    lab.pass(Duration::from_secs(100));
    assert!(lab.ua.calls.is_empty());
}

#[test]
fn one_word_from_the_pbx_is_enough_for_the_patience() {
    let mut lab = Lab::up();
    lab.alive = true;
    dial_with(&mut lab, 1, Some(millis(1_000)));
    let invite = lab.take("INVITE");
    lab.pass(millis(900));
    lab.answer(&invite, "100 Trying", "", "");
    lab.pass(Duration::from_secs(60));
    assert_eq!(lab.take_events(), [Event::Trying { leg: LegId(1) }]);
    lab.pass(Duration::from_secs(61));
    let ending = lab.ending();
    assert_eq!((ending.by, ending.failed_over()), (EndedBy::Timeout, false), "a telephone that rang in vain");
}

#[test]
fn a_trunk_that_moves_while_all_its_places_are_dead_ends_every_call_once() {
    let mut lab = up_at(&[FIRST, SECOND, THIRD]);
    for leg in 1..=3 {
        dial_with(&mut lab, leg, None);
    }
    for place in [FIRST, SECOND, THIRD, FIRST, SECOND, THIRD] {
        lab.ua.unreachable(udp(place), "no route", lab.now);
        lab.drain();
    }
    let endings = lab.take_events().iter().filter(|event| matches!(event, Event::Ended { ending, .. } if ending.by == EndedBy::Transport && ending.failed_over())).count();
    assert_eq!(endings, 3);
    assert!(!state(&lab).is_up());
    lab.pass(Duration::from_secs(200));
    assert!(lab.ua.calls.is_empty());
}

#[test]
fn calls_that_began_before_the_trunk_moved_are_heard_from_where_it_was() {
    let mut lab = up_at(&[FIRST]);
    lab.alive = true;
    let (invite, _) = lab.talking();
    lab.ua.set_peers("pbx", places(&[SECOND]), lab.now);
    lab.drain();
    lab.events.clear();
    lab.invite(3, CALLEE, "Contact: <sip:200@192.0.2.1:5062>\r\n", THEIRS);
    lab.take("503");
    lab.no_event();
    lab.ask(&invite, "BYE", 1, "", "");
    lab.take("200");
    assert!(lab.ending().answered);
    lab.pass(Duration::from_secs(64));
    lab.sent.clear();
    let foreign = lab.ua.counters().dropped_foreign;
    lab.invite(4, CALLEE, "Contact: <sip:200@192.0.2.1:5062>\r\n", THEIRS);
    assert!(lab.sent.is_empty(), "{:?}", lab.sent);
    assert_eq!(lab.ua.counters().dropped_foreign, foreign + 1);
    let admitted = |text: &str| lab.ua.admitted().iter().any(|range| range.contains(addr(text).ip()));
    assert!(admitted(SECOND) && !admitted(FIRST));
}
