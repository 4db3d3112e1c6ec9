//! Stories of registering and of trunks that are only asked whether they live.

use super::*;

const MD5: &str =
    "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n";
const OK: &str = "Contact: <sip:gw@192.0.2.7:5060>;expires=100\r\n";

fn states(lab: &mut Lab) -> Vec<TrunkState> {
    lab.take_events()
        .into_iter()
        .map(|event| match event {
            Event::Trunk { trunk, state } if trunk == "pbx" => state,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn registered(seconds: u64) -> TrunkState {
    TrunkState::Registered { expires: Duration::from_secs(seconds) }
}

/// Registered for 100 s.
fn done() -> Lab {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    lab.answer(&first, "401 Unauthorized", MD5, "");
    let second = lab.take("REGISTER");
    lab.answer(&second, "200 OK", OK, "");
    assert_eq!(states(&mut lab), [TrunkState::Trying, registered(100)]);
    lab
}

#[test]
fn a_challenge_is_answered_and_the_trunk_is_registered() {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    assert_eq!(first.to, udp(PBX));
    assert!(first.text.starts_with("REGISTER sip:pbx.example:5060 SIP/2.0\r\n"), "{}", first.text);
    assert_eq!(first.header("To"), "<sip:gw@pbx.example>");
    assert_eq!(first.header("Contact"), "<sip:gw@192.0.2.7:5060>;expires=300");
    assert!(first.header("Via").starts_with("SIP/2.0/UDP 192.0.2.7:5060;rport;branch=z9hG4bK"));
    assert_eq!(first.header("User-Agent"), "watrunk");
    assert!(!first.has("Authorization"));
    lab.answer(&first, "401 Unauthorized", MD5, "");
    let second = lab.take("REGISTER");
    assert_eq!(second.header("Call-ID"), first.header("Call-ID"));
    assert_eq!((first.header("CSeq"), second.header("CSeq")), ("1 REGISTER", "2 REGISTER"));
    assert_ne!(second.branch(), first.branch());
    let authorization = second.header("Authorization");
    for part in
        ["username=\"gw\"", "realm=\"asterisk\"", "uri=\"sip:pbx.example:5060\"", "nc=00000001", "qop=auth,"]
    {
        assert!(authorization.contains(part), "{part} in {authorization}");
    }
    lab.pass(millis(40));
    lab.answer(&second, "200 OK", OK, "");
    assert_eq!(states(&mut lab), [TrunkState::Trying, registered(100)]);
    let view = &lab.ua.trunks()[0];
    assert_eq!((view.code, view.round_trip), (Some(200), Some(millis(40))));
    assert_eq!(view.public, Some(addr("198.51.100.7:1024")), "as the PBX sees us");
}

#[test]
fn the_binding_is_refreshed_after_about_four_fifths_with_the_same_nonce_counted_on() {
    let mut lab = done();
    lab.alive = true;
    lab.pass(Duration::from_secs(74));
    assert!(lab.sent.is_empty(), "too early: {:#?}", lab.sent);
    lab.pass(Duration::from_secs(12));
    let refresh = lab.find("REGISTER");
    assert!((75_000..=85_000).contains(&refresh.at), "{}", refresh.at);
    assert!(refresh.header("Authorization").contains("nc=00000002"));
    assert_eq!(refresh.header("CSeq"), "3 REGISTER");
    lab.answer(&refresh, "200 OK", "Expires: 200\r\n", "");
    assert_eq!(states(&mut lab), [registered(200)], "the Expires header counts where Contact is silent");
}

#[test]
fn a_registrar_that_rewrote_our_contact_is_still_understood() {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    let contacts = "Contact: <sip:other@192.0.2.9>;expires=7, <sip:gw@198.51.100.7:1024>;expires=60\r\n";
    lab.answer(&first, "200 OK", contacts, "");
    assert_eq!(states(&mut lab), [TrunkState::Trying, registered(60)]);
}

#[test]
fn routes_that_a_registrar_hands_out_are_left_alone() {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    let more =
        "Service-Route: <sip:edge@192.0.2.9;lr>\r\nPath: <sip:p@192.0.2.8;lr>\r\nSupported: path, gruu\r\n";
    lab.answer(&first, "200 OK", &format!("{more}{OK}"), "");
    assert_eq!(states(&mut lab), [TrunkState::Trying, registered(100)]);
    let invite = lab.dialled();
    assert_eq!(invite.to, udp(PBX));
    assert!(!invite.has("192.0.2.9") && !invite.has("192.0.2.8"), "{}", invite.text);
}

#[test]
fn an_aged_nonce_is_replaced_without_a_word() {
    let mut lab = done();
    lab.alive = true;
    lab.pass(Duration::from_secs(86));
    let refresh = lab.find("REGISTER");
    lab.answer(&refresh, "401 Unauthorized", &MD5.replace("n1", "n2").replace("qop", "stale=true, qop"), "");
    let again = lab.find("REGISTER");
    assert!(again.header("Authorization").contains("nonce=\"n2\"") && again.has("nc=00000001"));
    lab.answer(&again, "200 OK", OK, "");
    lab.no_event();
}

#[test]
fn a_wrong_password_is_not_tried_again_at_once() {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    lab.answer(&first, "401 Unauthorized", MD5, "");
    let second = lab.take("REGISTER");
    lab.answer(&second, "401 Unauthorized", MD5, "");
    assert!(lab.sent.is_empty());
    let why = "401 Unauthorized: wrong user name or password".to_owned();
    assert_eq!(states(&mut lab), [TrunkState::Trying, TrunkState::Failed { code: Some(401), why }]);
    lab.pass(Duration::from_secs(5));
    let later = lab.find("REGISTER");
    assert!(!later.has("Authorization"), "the next attempt begins anew");
    assert_eq!(lab.ua.dial(LegId(1), dial(), lab.now), Err(DialError::TrunkDown { code: Some(401) }));
}

#[test]
fn without_a_password_a_challenge_says_so() {
    let mut lab = Lab::new(Settings::default());
    lab.ua.add_trunk(TrunkSettings { password: None, ..trunk(true) }, lab.now);
    lab.drain();
    let first = lab.take("REGISTER");
    lab.answer(&first, "401 Unauthorized", MD5, "");
    let TrunkState::Failed { why, .. } = &lab.ua.trunks()[0].state else { panic!() };
    assert!(why.contains("a password is asked for and none is configured"), "{why}");
}

#[test]
fn of_several_challenges_the_strongest_is_met() {
    for (challenges, expected) in [
        (
            "WWW-Authenticate: Digest realm=\"r\", nonce=\"s\", algorithm=SHA-256, qop=\"auth\"\r\n\
          WWW-Authenticate: Digest realm=\"r\", nonce=\"m\", algorithm=MD5, qop=\"auth\"\r\n",
            "algorithm=SHA-256, qop=auth,",
        ),
        (
            "WWW-Authenticate: Digest realm=\"r\", nonce=\"m\", algorithm=MD5\r\n\
          WWW-Authenticate: Digest realm=\"r\", nonce=\"s\", algorithm=SHA-256, qop=\"auth,auth-int\"\r\n",
            "algorithm=SHA-256, qop=auth,",
        ),
        (
            "WWW-Authenticate: Digest realm=\"r\",nonce=\"i\",qop=\"auth-int\"\r\n",
            "qop=auth-int, nc=00000001",
        ),
        (
            "WWW-Authenticate: Digest realm=\"r\", nonce=\"x\", algorithm=\"what\"\r\n\
          WWW-Authenticate: Digest realm=\"r\", nonce=\"p\"\r\n",
            "nonce=\"p\"",
        ),
    ] {
        let mut lab = Lab::registering();
        let first = lab.take("REGISTER");
        lab.answer(&first, "401 Unauthorized", challenges, "");
        let second = lab.take("REGISTER");
        assert!(second.header("Authorization").contains(expected), "{expected} in {}", second.text);
    }
}

#[test]
fn a_challenge_nobody_can_meet_is_a_failure_not_a_loop() {
    for header in ["", "WWW-Authenticate: Basic realm=\"r\"\r\n", "WWW-Authenticate: Digest realm=\"r\r\n"] {
        let mut lab = Lab::registering();
        let first = lab.take("REGISTER");
        lab.answer(&first, "401 Unauthorized", header, "");
        assert!(lab.sent.is_empty());
        assert!(matches!(states(&mut lab).as_slice(), [_, TrunkState::Failed { code: Some(401), .. }]));
    }
}

#[test]
fn a_proxy_in_front_is_answered_beside_the_registrar() {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    lab.answer(
        &first,
        "407 Proxy",
        &MD5.replace("WWW-Authenticate", "Proxy-Authenticate").replace("n1", "p1"),
        "",
    );
    let second = lab.take("REGISTER");
    assert!(second.header("Proxy-Authorization").contains("nonce=\"p1\""));
    lab.answer(&second, "401 Unauthorized", MD5, "");
    let third = lab.take("REGISTER");
    assert!(third.header("Authorization").contains("nonce=\"n1\""));
    assert!(third.header("Proxy-Authorization").contains("nc=00000002"));
}

#[test]
fn too_brief_an_interval_is_prolonged_once() {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    lab.answer(&first, "423 Interval Too Brief", "Min-Expires: 1800\r\n", "");
    let second = lab.take("REGISTER");
    assert_eq!(second.header("Expires"), "1800");
    lab.answer(&second, "423 Interval Too Brief", "Min-Expires: 3600\r\n", "");
    assert!(lab.sent.is_empty(), "no haggling");
    assert!(matches!(states(&mut lab).as_slice(), [_, TrunkState::Failed { code: Some(423), .. }]));
}

#[test]
fn refusals_are_retried_with_pauses_that_grow_to_two_minutes() {
    let mut lab = Lab::registering();
    let mut last = 0;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let register = lab.take("REGISTER");
        pauses.push(register.at - last);
        last = register.at;
        lab.answer(&register, "403 Forbidden", "", "");
        lab.pass(lab.ua.poll_timeout().unwrap().since(lab.now.tick));
        while lab.sent.is_empty() {
            lab.pass(lab.ua.poll_timeout().unwrap().since(lab.now.tick));
        }
    }
    for (index, pause) in pauses.iter().enumerate().skip(1) {
        let longest = (4_000u64 << (index - 1)).min(120_000);
        assert!((longest / 2..=longest).contains(pause), "pause {index}: {pause}");
    }
    assert_eq!(states(&mut lab).len(), 2, "told once, not ten times");
}

#[test]
fn a_busy_registrar_says_how_long_to_wait() {
    let mut lab = Lab::registering();
    let first = lab.take("REGISTER");
    lab.answer(&first, "503 Service Unavailable", "Retry-After: 60 (soon)\r\n", "");
    lab.pass(Duration::from_secs(59));
    assert!(lab.sent.is_empty());
    lab.pass(Duration::from_secs(1));
    lab.take("REGISTER");
}

#[test]
fn a_dead_registrar_is_a_failure_after_32_seconds_and_comes_back_by_itself() {
    let mut lab = Lab::registering();
    lab.pass(Duration::from_secs(32));
    let why = "no answer to REGISTER".to_owned();
    assert_eq!(states(&mut lab), [TrunkState::Trying, TrunkState::Failed { code: None, why }]);
    assert_eq!(lab.sent.len(), 11);
    lab.sent.clear();
    lab.pass(Duration::from_secs(1));
    let again = lab.find("REGISTER");
    lab.answer(&again, "200 OK", OK, "");
    assert_eq!(states(&mut lab), [registered(100)]);
}

#[test]
fn a_pbx_that_falls_silent_between_refreshes_is_noticed() {
    let mut lab = done();
    lab.wait();
    let ping = lab.take("OPTIONS");
    lab.answer(&ping, "200 OK", "", "");
    lab.pass(Duration::from_secs(63));
    assert!(matches!(states(&mut lab).as_slice(), [TrunkState::Failed { code: None, .. }]));
    assert_eq!(lab.sent.last().unwrap().what(), "REGISTER", "and asked to take us again at once");
}

#[test]
fn leaving_takes_the_binding_away() {
    let mut lab = done();
    lab.ua.shutdown(lab.now);
    lab.drain();
    let leave = lab.take("REGISTER");
    assert_eq!(leave.header("Contact"), "<sip:gw@192.0.2.7:5060>;expires=0");
    assert!(leave.header("Authorization").contains("nc=00000002"));
    assert_eq!(lab.ua.dial(LegId(1), dial(), lab.now), Err(DialError::TrunkDown { code: Some(200) }));
    lab.answer(&leave, "401 Unauthorized", &MD5.replace("n1", "n2"), "");
    let again = lab.take("REGISTER");
    assert_eq!(again.header("Expires"), "0");
    lab.answer(&again, "200 OK", "", "");
    assert_eq!(states(&mut lab), [TrunkState::Stopped]);
    lab.pass(Duration::from_secs(600));
    assert!(lab.sent.is_empty(), "nothing more is said");
}

#[test]
fn leaving_a_dead_registrar_ends_too() {
    let mut lab = done();
    lab.ua.shutdown(lab.now);
    lab.pass(Duration::from_secs(33));
    assert_eq!(states(&mut lab), [TrunkState::Stopped]);
}

#[test]
fn nothing_is_sent_before_the_address_is_known() {
    let mut lab = Lab::new(Settings::default());
    lab.ua.add_trunk(TrunkSettings { found: Vec::new(), ..trunk(true) }, lab.now);
    lab.pass(Duration::from_secs(100));
    assert!(lab.sent.is_empty());
    assert_eq!(lab.ua.trunks()[0].state, TrunkState::Unresolved);
    assert_eq!(lab.ua.dial(LegId(1), dial(), lab.now), Err(DialError::TrunkDown { code: None }));
    lab.ua.set_peers("pbx", vec![found("192.0.2.5:5080", "192.0.2.8:5060")], lab.now);
    lab.drain();
    let register = lab.take("REGISTER");
    assert_eq!(register.to, udp("192.0.2.5:5080"));
    assert!(register.has("192.0.2.8:5060"));
    lab.ua.set_peers("pbx", vec![found("192.0.2.5:5080", "192.0.2.8:5060")], lab.now);
    lab.drain();
    assert!(lab.sent.is_empty(), "the same address again changes nothing");
    lab.ua.set_peers("pbx", vec![found("192.0.2.6:5080", "192.0.2.8:5060")], lab.now);
    lab.drain();
    assert_eq!(lab.take("REGISTER").to, udp("192.0.2.6:5080"));
}

#[test]
fn a_new_address_is_asked_at_once_even_while_the_old_one_is_silent() {
    let mut lab = Lab::new(Settings::default());
    lab.ua.add_trunk(trunk(false), lab.now);
    lab.pass(Duration::from_secs(3));
    lab.sent.clear();
    lab.ua.set_peers("pbx", vec![found("192.0.2.6:5060", US)], lab.now);
    lab.drain();
    let ping = lab.take("OPTIONS");
    assert_eq!(ping.to, udp("192.0.2.6:5060"));
    lab.pass(Duration::from_secs(3));
    assert!(lab.sent.iter().all(|sent| sent.to == udp("192.0.2.6:5060")), "the old address is left alone");
    assert_eq!(lab.ua.poll_timeout().map(|at| at.as_millis()), Some(1_006_500));
}

#[test]
fn a_registered_trunk_whose_calls_are_challenged_for_ever_is_told_apart_from_a_wrong_password() {
    let mut lab = done();
    let invite = lab.dialled();
    lab.answer(&invite, "401 Unauthorized", MD5, "");
    let again = lab.find("INVITE");
    lab.answer(&again, "401 Unauthorized", &MD5.replace("n1", "n2"), "");
    let text = lab.ending().text;
    assert!(text.starts_with("401 Unauthorized: registered, but the PBX does not take calls"), "{text}");

    // A call's own password says nothing about the trunk's.
    let credentials = Some(("ext-77".to_owned(), "wrong".to_owned()));
    lab.ua.dial(LegId(2), Dial { credentials, ..dial() }, lab.now).unwrap();
    lab.drain();
    let invite = lab.find("INVITE");
    lab.answer(&invite, "401 Unauthorized", MD5, "");
    let again = lab.find("INVITE");
    lab.answer(&again, "401 Unauthorized", &MD5.replace("n1", "n2"), "");
    assert_eq!(lab.ending().text, "401 Unauthorized: wrong user name or password");
}

#[test]
fn a_trunk_without_registration_is_asked_every_half_minute() {
    let mut lab = Lab::new(Settings::default());
    lab.ua.add_trunk(trunk(false), lab.now);
    lab.drain();
    let first = lab.take("OPTIONS");
    assert!(first.text.starts_with("OPTIONS sip:pbx.example:5060 SIP/2.0\r\n"));
    lab.pass(millis(3));
    lab.answer(&first, "404 Not Found", "", "");
    let up = TrunkState::Reachable { round_trip: millis(3) };
    assert_eq!(states(&mut lab), [TrunkState::Trying, up], "any answer shows life");
    lab.pass(Duration::from_secs(28));
    assert!(lab.sent.is_empty());
    lab.wait();
    let second = lab.take("OPTIONS");
    assert!((28_503..=30_003).contains(&second.at), "not all boxes in one beat: {}", second.at);
    lab.pass(millis(9));
    lab.answer(&second, "200 OK", "", "");
    assert_eq!(lab.ua.trunks()[0].round_trip, Some(millis(9)));
    lab.no_event();
    lab.pass(Duration::from_secs(63));
    assert!(matches!(states(&mut lab).as_slice(), [TrunkState::Failed { code: None, .. }]));
    lab.pass(Duration::from_secs(4));
    let again = lab.sent.iter().rev().find(|sent| sent.header("CSeq").starts_with("4 ")).unwrap().clone();
    lab.answer(&again, "200 OK", "", "");
    assert!(matches!(states(&mut lab).as_slice(), [TrunkState::Reachable { .. }]));
}

#[test]
fn a_registrar_that_never_answers_options_is_not_taken_for_dead() {
    let mut lab = done();
    lab.sent.clear();
    lab.pass(Duration::from_secs(100));
    assert!(lab.sent.iter().any(|sent| sent.text.starts_with("OPTIONS")));
    assert!(lab.ua.trunks()[0].state.is_up());
    lab.no_event();
}

#[test]
fn a_pbx_that_says_503_to_options_is_down() {
    let mut lab = Lab::up();
    lab.wait();
    let ping = lab.take("OPTIONS");
    lab.answer(&ping, "503 Maintenance", "", "");
    let why = "503 Maintenance".to_owned();
    assert_eq!(states(&mut lab), [TrunkState::Failed { code: Some(503), why }]);
}

#[test]
fn a_server_that_is_no_uri_fails_with_a_reason() {
    let mut lab = Lab::new(Settings::default());
    lab.ua.add_trunk(TrunkSettings { server_uri: "pbx".into(), ..trunk(true) }, lab.now);
    lab.drain();
    assert!(lab.sent.is_empty());
    let TrunkState::Failed { why, .. } = &lab.ua.trunks()[0].state else { panic!() };
    assert_eq!(why, "\"pbx\" is not a SIP URI");
}

#[test]
fn a_range_of_addresses_contains_what_it_says() {
    let contains =
        |range: &str, address: &str| range.parse::<Cidr>().unwrap().contains(address.parse().unwrap());
    assert!(contains("192.0.2.64/28", "192.0.2.79") && !contains("192.0.2.64/28", "192.0.2.80"));
    assert!(contains("192.0.2.1", "::ffff:192.0.2.1") && !contains("192.0.2.1", "192.0.2.2"));
    assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "192.0.2.1"));
    assert!(contains("0.0.0.0/0", "203.0.113.9") && contains("::/0", "::1"));
    for bad in ["", "192.0.2.1/33", "pbx", "::1/129", "192.0.2.1/", "192.0.2.1/x"] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
}

#[test]
fn passwords_and_seeds_are_never_printed() {
    let lab = done();
    let printed = format!("{:?} {:?}", lab.ua, trunk(true));
    assert!(!printed.contains("gw-secret"), "{printed}");
    assert!(printed.contains("(hidden)"));
}

#[test]
fn a_pbx_that_was_started_anew_between_two_refreshes_is_registered_at_once() {
    let mut lab = done();
    lab.wait();
    let ping = lab.take("OPTIONS");
    lab.pass(millis(20));
    lab.answer(&ping, "200 OK", "", "");
    lab.wait();
    let ping = lab.take("OPTIONS");
    lab.pass(millis(2_000));
    assert!(!lab.sent.is_empty(), "asked again");
    lab.sent.clear();
    lab.answer(&ping, "200 OK", "", "");
    lab.wait();
    let register = lab.take("REGISTER");
    assert_eq!(register.at, lab.now.tick.as_millis() - 1_000_000);
    assert!(lab.ua.trunks()[0].state.is_up(), "nobody has heard of it");
    lab.pass(millis(700));
    lab.sent.clear();
    lab.answer(&register, "200 OK", OK, "");
    // A way that is always this slow says nothing.
    lab.wait();
    let ping = lab.take("OPTIONS");
    lab.pass(millis(600));
    lab.sent.clear();
    lab.answer(&ping, "200 OK", "", "");
    lab.pass(Duration::from_secs(10));
    assert!(lab.sent.is_empty(), "{:?}", lab.sent);
}

#[test]
fn a_pbx_that_never_answers_options_is_called_all_the_same() {
    let mut lab = Lab::new(Settings::default());
    lab.ua.add_trunk(trunk(false), lab.now);
    lab.pass(Duration::from_secs(31));
    assert!(lab.ua.dial(LegId(1), dial(), lab.now).is_err(), "it may yet answer");
    lab.pass(Duration::from_secs(1));
    assert_eq!(states(&mut lab), [TrunkState::Trying, TrunkState::Silent]);
    lab.sent.clear();
    lab.ua.dial(LegId(1), dial(), lab.now).unwrap();
    lab.drain();
    let invite = lab.take("INVITE");
    lab.answer(&invite, "486 Busy Here", "", "");
    lab.events.clear();
    // Whoever answers no call either is down, until somebody may try again.
    for leg in [2, 3] {
        lab.ua.dial(LegId(leg), Dial { patience: Some(Duration::from_secs(1)), ..dial() }, lab.now).unwrap();
        lab.pass(Duration::from_secs(1));
    }
    assert!(matches!(lab.ua.trunks()[0].state, TrunkState::Failed { .. }));
    lab.pass(Duration::from_secs(35));
    assert_eq!(lab.ua.trunks()[0].state, TrunkState::Silent);
    lab.sent.clear();
    lab.pass(Duration::from_secs(5));
    let ping = lab.find("OPTIONS");
    lab.answer(&ping, "200 OK", "", "");
    assert!(matches!(lab.ua.trunks()[0].state, TrunkState::Reachable { .. }));
    lab.pass(Duration::from_secs(64));
    assert!(matches!(lab.ua.trunks()[0].state, TrunkState::Failed { .. }), "its silence means something now");
}
