//! Stories of trunks that are taken away or changed while they work.

use super::*;

fn registered(settings: TrunkSettings) -> Lab {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    lab.ua.add_trunk(settings, lab.now);
    lab.drain();
    let register = lab.take("REGISTER");
    lab.answer(&register, "200 OK", "Expires: 300\r\n", "");
    lab.events.clear();
    lab
}

fn change(lab: &mut Lab, settings: TrunkSettings) {
    lab.ua.change_trunk(settings, lab.now);
    lab.drain();
}

#[test]
fn a_trunk_that_is_removed_leaves_and_vanishes_once_its_call_is_over() {
    let mut lab = registered(trunk(true));
    lab.talking();
    lab.ua.remove_trunk("pbx", lab.now);
    lab.drain();
    let leave = lab.take("REGISTER");
    assert_eq!(leave.header("Expires"), "0");
    assert_eq!(lab.ua.dial(LegId(2), dial(), lab.now), Err(DialError::UnknownTrunk));
    lab.answer(&leave, "200 OK", "", "");
    assert_eq!(lab.take_events(), [Event::Trunk { trunk: "pbx".into(), state: TrunkState::Stopped }]);
    lab.pass(Duration::from_secs(40));
    assert_eq!(lab.ua.trunks().len(), 1, "its call goes on");
    lab.leave(LegId(1), None, "");
    let bye = lab.find("BYE");
    lab.answer(&bye, "200 OK", "", "");
    lab.ending();
    lab.pass(Duration::from_secs(40));
    assert!(lab.ua.trunks().is_empty());
    assert_eq!(lab.ua.poll_timeout(), None);
    lab.receive_from(b"OPTIONS sip:gw@192.0.2.7 SIP/2.0\r\n\r\n", PBX);
    assert_eq!(lab.ua.counters().dropped_foreign, 1, "nobody knows it any more");
    lab.ua.remove_trunk("pbx", lab.now);
}

#[test]
fn a_removed_trunk_takes_no_calls() {
    let mut lab = registered(trunk(true));
    lab.ua.remove_trunk("pbx", lab.now);
    lab.drain();
    lab.sent.clear();
    lab.invite(1, CALLEE, "", THEIRS);
    lab.take("503");
    lab.no_event();
}

#[test]
fn a_trunk_that_nobody_answers_is_removed_all_the_same() {
    let mut lab = registered(trunk(true));
    lab.ua.remove_trunk("pbx", lab.now);
    lab.pass(Duration::from_secs(70));
    assert!(lab.ua.trunks().is_empty());
    let mut lab = Lab::up();
    lab.ua.remove_trunk("pbx", lab.now);
    lab.drain();
    assert!(
        lab.sent.is_empty() && lab.ua.trunks().is_empty(),
        "without a registration there is nothing to undo"
    );
}

#[test]
fn a_registration_under_way_is_taken_back_too() {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    lab.ua.remove_trunk("pbx", lab.now);
    lab.drain();
    let leave = lab.take("REGISTER");
    assert_eq!((leave.header("CSeq"), leave.header("Expires")), ("2 REGISTER", "0"));
    lab.answer(&first, "200 OK", "Expires: 300\r\n", "");
    assert!(!lab.ua.trunks()[0].state.is_up(), "an answer that nobody waits for any more");
    lab.answer(&leave, "200 OK", "", "");
    lab.pass(Duration::from_secs(600));
    assert!(lab.sent.is_empty() && lab.ua.trunks().is_empty());
}

#[test]
fn what_did_not_change_is_left_alone() {
    let mut lab = registered(trunk(true));
    change(&mut lab, trunk(true));
    change(&mut lab, TrunkSettings { found: vec![], ..trunk(true) });
    change(
        &mut lab,
        TrunkSettings { allow: vec!["203.0.113.9".parse().unwrap()], challenge: true, ..trunk(true) },
    );
    assert!(lab.sent.is_empty(), "{:#?}", lab.sent);
    lab.no_event();
    assert_eq!(lab.ua.trunks()[0].peer, Some(udp(PBX)));
    lab.receive_from(b"\r\n\r\n", "203.0.113.9:5060");
    assert_eq!(lab.ua.counters().not_sip, 1, "but who is heard changed at once");
}

#[test]
fn a_new_password_is_used_at_once_and_the_binding_stays() {
    let mut lab = registered(trunk(true));
    change(&mut lab, TrunkSettings { password: Some("other".into()), ..trunk(true) });
    let again = lab.take("REGISTER");
    assert_ne!(again.header("Expires"), "0");
    lab.no_event();
    assert!(lab.ua.trunks()[0].state.is_up());
    lab.answer(&again, "200 OK", "Expires: 300\r\n", "");
    let printed = format!("{:?}", lab.ua);
    assert!(!printed.contains("other"), "{printed}");
}

#[test]
fn another_account_registers_anew_while_the_calls_of_the_old_one_go_on() {
    let mut lab = registered(trunk(true));
    lab.talking();
    change(&mut lab, TrunkSettings { username: "gw2".into(), ..trunk(true) });
    let both = std::mem::take(&mut lab.sent);
    let [leave, enter] = both.as_slice() else { panic!("{both:#?}") };
    assert_eq!((leave.header("To"), leave.header("Expires")), ("<sip:gw@pbx.example>", "0"));
    assert_eq!((enter.header("To"), enter.header("Expires")), ("<sip:gw2@pbx.example>", "300"));
    assert_eq!(lab.ua.trunks().len(), 1, "the operator sees the one he configured");
    lab.answer(enter, "200 OK", "Expires: 300\r\n", "");
    lab.answer(leave, "200 OK", "", "");
    assert!(lab.ua.trunks()[0].state.is_up());
    lab.events.clear();

    // A new call of the PBX belongs to the new trunk, and the old call still works.
    lab.invite(1, CALLEE, "Contact: <sip:200@192.0.2.1:5062>\r\n", THEIRS);
    lab.take("100");
    let Some(Event::Invited { leg, .. }) = lab.take_events().pop() else { panic!() };
    lab.leave(leg, None, "");
    lab.events.clear();
    lab.sent.clear();
    lab.leave(LegId(1), None, "");
    let bye = lab.take("BYE");
    assert!(bye.header("From").contains("+15550100"));
    lab.answer(&bye, "200 OK", "", "");
    lab.ending();
}

#[test]
fn a_trunk_that_no_longer_registers_is_asked_by_options() {
    let mut lab = registered(trunk(true));
    change(&mut lab, trunk(false));
    let kinds: Vec<String> = lab.sent.iter().map(|sent| sent.what().to_owned()).collect();
    assert_eq!(kinds, ["REGISTER", "OPTIONS"]);
}

#[test]
fn another_server_waits_for_its_own_address() {
    let mut lab = registered(trunk(true));
    change(&mut lab, TrunkSettings { server_uri: "sip:other.example".into(), found: vec![], ..trunk(true) });
    let leave = lab.take("REGISTER");
    assert_eq!((leave.to, leave.header("Expires")), (udp(PBX), "0"));
    assert_eq!(lab.ua.trunks()[0].state, TrunkState::Unresolved);
    lab.ua.set_peers("pbx", vec![found("192.0.2.9:5060", US)], lab.now);
    lab.drain();
    let enter = lab.take("REGISTER");
    assert_eq!(enter.to, udp("192.0.2.9:5060"));
    assert!(enter.text.starts_with("REGISTER sip:other.example SIP/2.0\r\n"));
}

#[test]
fn a_trunk_that_is_new_is_added() {
    let mut lab = Lab::up();
    change(&mut lab, TrunkSettings { name: "second".into(), ..trunk(true) });
    lab.take("REGISTER");
    let names: Vec<String> = lab.ua.trunks().into_iter().map(|view| view.name).collect();
    assert_eq!(names, ["pbx", "second"]);
}

#[test]
fn trunks_register_each_for_themselves() {
    let mut lab = registered(trunk(true));
    let other = TrunkSettings {
        name: "b".into(),
        found: vec![found("198.51.100.1:5060", US)],
        allow: vec![],
        ..trunk(true)
    };
    lab.ua.add_trunk(other, lab.now);
    lab.drain();
    let register = lab.take("REGISTER");
    lab.answer(&register, "403 Forbidden", "", "");
    let states: Vec<bool> = lab.ua.trunks().iter().map(|view| view.state.is_up()).collect();
    assert_eq!(states, [true, false]);
    lab.pass(Duration::from_secs(60));
    assert!(lab.sent.iter().any(|sent| sent.what() == "REGISTER"));
    assert!(lab.sent.iter().all(|sent| sent.what() != "REGISTER" || sent.to == udp("198.51.100.1:5060")));
}
