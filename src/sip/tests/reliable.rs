//! Stories of provisional answers that must not get lost (RFC 3262).

use super::*;

const LEG: LegId = LegId(1 << 63 | 1);
const CONTACT: &str = "Contact: <sip:200@192.0.2.1:5062>\r\n";

fn reliable(rseq: u32) -> String {
    format!("{CONTACT}Require: 100rel\r\nRSeq: {rseq}\r\n")
}

#[test]
fn each_reliable_answer_of_the_pbx_is_acknowledged_once_and_in_order() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", &reliable(700), "");
    let prack = lab.take("PRACK");
    assert!(prack.text.starts_with("PRACK sip:200@192.0.2.1:5062 SIP/2.0\r\n"));
    assert_eq!((prack.header("RAck"), prack.header("CSeq")), ("700 1 INVITE", "2 PRACK"));
    assert_eq!((prack.tag("To").as_str(), prack.to), ("pbx1", udp("192.0.2.1:5062")));
    assert_eq!(lab.take_events(), [Event::Ringing { leg: LegId(1), code: 180, sdp: None }]);
    lab.answer(&invite, "180 Ringing", &reliable(700), "");
    lab.answer(&invite, "183 Session Progress", &reliable(702), THEIRS);
    assert!(lab.sent.is_empty(), "§4: a repeat and one before its turn: {:#?}", lab.sent);
    lab.no_event();
    lab.answer(&prack, "200 OK", "", "");
    lab.answer(&invite, "183 Session Progress", &reliable(701), THEIRS);
    let prack = lab.take("PRACK");
    assert_eq!((prack.header("RAck"), prack.header("CSeq")), ("701 1 INVITE", "3 PRACK"));
    let early = Event::Ringing { leg: LegId(1), code: 183, sdp: Some(THEIRS.into()) };
    assert_eq!(lab.take_events(), [early]);
    lab.answer(&invite, "200 OK", CONTACT, "");
    assert_eq!(lab.take("ACK").header("CSeq"), "1 ACK", "the number of the INVITE");
    let answered = Event::Answered { leg: LegId(1), ours: offer(), theirs: THEIRS.into() };
    assert_eq!(lab.take_events(), [answered], "the reliable 183 was the answer");
    lab.leave(LegId(1), None, "");
    assert_eq!(lab.find("BYE").header("CSeq"), "4 BYE", "and the count goes on");
}

#[test]
fn each_telephone_that_rings_has_its_own_count() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    let to = |tag: &str| format!("{};tag={tag}", invite.header("To"));
    lab.answer_as(&invite, "180 Ringing", &to("a"), &reliable(10), "");
    lab.answer_as(&invite, "180 Ringing", &to("b"), &reliable(99), "");
    lab.answer_as(&invite, "183 Session Progress", &to("a"), &reliable(11), THEIRS);
    let pracks: Vec<String> = lab
        .sent
        .iter()
        .map(|sent| format!("{} {} {}", sent.tag("To"), sent.header("RAck"), sent.header("CSeq")))
        .collect();
    assert_eq!(pracks, ["a 10 1 INVITE 2 PRACK", "b 99 1 INVITE 2 PRACK", "a 11 1 INVITE 3 PRACK"]);
    lab.sent.clear();
    lab.answer_as(&invite, "200 OK", &to("b"), CONTACT, &THEIRS.replace("10000", "10008"));
    lab.take("ACK");
    lab.ask(&invite, "BYE", 1, "", "");
    lab.take("481");
    let told = lab.take_events();
    let Some(Event::Answered { theirs, .. }) = told.last() else { panic!("{told:?}") };
    assert!(String::from_utf8_lossy(theirs).contains("10008"), "b's sound, not a's");
}

#[test]
fn a_prack_is_repeated_and_given_credentials_when_asked() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", &reliable(1), "");
    let prack = lab.take("PRACK");
    lab.pass(millis(500));
    assert_eq!(lab.take("PRACK").text, prack.text);
    let challenge = "Proxy-Authenticate: Digest realm=\"a\", nonce=\"n\", algorithm=MD5, qop=\"auth\"\r\n";
    lab.answer(&prack, "407 Proxy", challenge, "");
    let again = lab.take("PRACK");
    assert_eq!((again.header("CSeq"), again.header("RAck")), ("3 PRACK", "1 1 INVITE"));
    assert!(again.header("Proxy-Authorization").contains("username=\"gw\""));
}

#[test]
fn plain_answers_are_not_acknowledged_and_a_gone_telephone_is_not_told() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "RSeq: 5\r\n", "");
    lab.answer(&invite, "199 Early Dialog Terminated", "", "");
    assert!(lab.sent.is_empty());
    assert_eq!(lab.take_events(), [Event::Ringing { leg: LegId(1), code: 180, sdp: None }]);
}

#[test]
fn a_storm_of_provisional_answers_is_told_in_bounds() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    for count in 0..150 {
        let to = format!("{};tag=t{count}", invite.header("To"));
        lab.answer_as(&invite, if count % 2 == 0 { "180 Ringing" } else { "183 On" }, &to, &reliable(1), "");
    }
    assert!(lab.events.len() <= 32, "{}", lab.events.len());
    assert_eq!(lab.sent.iter().filter(|sent| sent.what() == "PRACK").count(), 8, "no more forks than these");
    lab.answer(&invite, "200 OK", CONTACT, THEIRS);
    lab.find("ACK");
}

#[test]
fn an_early_session_agreed_reliably_can_be_changed_before_the_answer() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    lab.answer(&invite, "183 Session Progress", &reliable(1), THEIRS);
    lab.sent.clear();
    lab.take_events();
    let moved = THEIRS.replace("10000", "10002");
    lab.ask(&invite, "UPDATE", 5, "", &moved);
    let ok = lab.take("200");
    assert!(ok.body().contains("m=audio 20000 ") && ok.body().contains("o=watrunk 42 2 "), "{}", ok.text);
    let early = Event::Ringing { leg: LegId(1), code: 183, sdp: Some(moved.clone().into()) };
    assert_eq!(lab.take_events(), [early]);
    lab.ask(&invite, "UPDATE", 4, "", THEIRS);
    lab.take("500");
    lab.answer(&invite, "200 OK", CONTACT, THEIRS);
    lab.take("ACK");
    let answered = Event::Answered { leg: LegId(1), ours: ok.body().into(), theirs: moved.into() };
    assert_eq!(lab.take_events(), [answered], "what was agreed last holds");
    lab.ask(&invite, "UPDATE", 3, "", "");
    lab.take("500");
    lab.ask(&invite, "UPDATE", 6, "", "");
    lab.take("200");
}

/// A call of a PBX that insists, ringing; our 180.
fn ringing(lab: &mut Lab) -> Sent {
    lab.alive = true;
    lab.invite(1, CALLEE, &format!("{CONTACT}Require: 100rel\r\n"), THEIRS);
    lab.take("100");
    lab.take_events();
    lab.ring(LEG);
    lab.take("180")
}

fn rack(ringing: &Sent) -> String {
    format!("RAck: {} 7 INVITE\r\n", ringing.header("RSeq"))
}

#[test]
fn our_ringing_is_repeated_ever_less_often_until_a_pbx_that_insists_acknowledges_it() {
    let mut lab = Lab::up();
    let ringing = ringing(&mut lab);
    assert_eq!(ringing.header("Require"), "100rel");
    assert!((1..1 << 31).contains(&ringing.header("RSeq").parse::<u32>().unwrap()));
    let start = ringing.at;
    lab.pass(millis(8_000));
    assert!(lab.sent.iter().all(|sent| sent.text == ringing.text));
    assert_eq!(lab.sent_kinds(), [500, 1_500, 3_500, 7_500].map(|at| (start + at, "180".to_owned())));
    lab.ask_in(&ringing, "PRACK", 8, &rack(&ringing), "");
    let ok = lab.take("200");
    assert_eq!((ok.header("CSeq"), ok.tag("To")), ("8 PRACK", ringing.tag("To")));
    lab.pass(Duration::from_secs(40));
    assert!(lab.sent.is_empty());
    lab.ask_in(&ringing, "PRACK", 9, &rack(&ringing), "");
    lab.take("481");
    lab.pick_up(LEG, offer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "ACK", 7, "", "");
    assert!(matches!(lab.take_events().as_slice(), [Event::Answered { .. }]));
}

#[test]
fn ringing_again_after_a_minute_has_the_next_number() {
    let mut lab = Lab::up();
    let first = ringing(&mut lab);
    lab.ask_in(&first, "PRACK", 8, &rack(&first), "");
    lab.sent.clear();
    lab.pass(millis(60_000));
    let second = lab.take("180");
    let number = |sent: &Sent| sent.header("RSeq").parse::<u32>().unwrap();
    assert_eq!(number(&second), number(&first) + 1);
    lab.ask_in(&second, "PRACK", 9, &rack(&first), "");
    lab.take("481");
    lab.ask_in(&second, "PRACK", 10, &rack(&second), "");
    lab.take("200");
}

#[test]
fn ringing_that_is_never_acknowledged_ends_the_call() {
    let mut lab = Lab::up();
    ringing(&mut lab);
    lab.pass(millis(31_999));
    lab.no_event();
    lab.sent.clear();
    lab.pass(millis(1));
    assert!(lab.take("504").header("Warning").contains("PRACK"));
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Timeout, Some(504), false));
}

#[test]
fn an_answer_need_not_wait_for_the_acknowledgement_of_ringing_without_sound() {
    let mut lab = Lab::up();
    let ringing = ringing(&mut lab);
    lab.pick_up(LEG, offer());
    let ok = lab.take("200");
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.pass(Duration::from_secs(40));
    assert!(lab.sent.is_empty(), "§3: not repeated after the final answer");
    lab.ask_in(&ringing, "PRACK", 8, &rack(&ringing), "");
    lab.take("200");
}

#[test]
fn a_pbx_that_only_can_hears_plain_ringing() {
    let mut lab = Lab::up();
    lab.invite(1, CALLEE, &format!("{CONTACT}Supported: 100rel\r\n"), THEIRS);
    lab.take("100");
    lab.ring(LEG);
    assert!(!lab.take("180").has("RSeq"));
}

#[test]
fn a_prack_for_nothing_is_refused() {
    let mut lab = Lab::up();
    let ringing = ringing(&mut lab);
    let wrong = ringing.header("RSeq").parse::<u32>().unwrap() + 1;
    for (cseq, headers, body, status) in [
        (8, format!("RAck: {wrong} 7 INVITE\r\n"), "", "481"),
        (9, format!("RAck: {} 6 INVITE\r\n", ringing.header("RSeq")), "", "481"),
        (10, format!("RAck: {} 7 BYE\r\n", ringing.header("RSeq")), "", "481"),
        (11, "RAck: x\r\n".to_owned(), "", "400"),
        (12, String::new(), "", "400"),
        (13, rack(&ringing), THEIRS, "488"),
        (14, rack(&ringing), "", "200"),
    ] {
        lab.ask_in(&ringing, "PRACK", cseq, &headers, body);
        lab.take(status);
    }
    let (invite, _) = lab.talking();
    lab.ask(&invite, "PRACK", 1, "RAck: 1 1 INVITE\r\n", "");
    lab.take("481");
}

#[test]
fn a_telephone_that_was_spoken_to_early_and_answers_too_late_is_hung_up_in_its_own_count() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    let to = |tag: &str| format!("{};tag={tag}", invite.header("To"));
    lab.answer_as(&invite, "180 Ringing", &to("a"), &reliable(10), "");
    lab.answer_as(&invite, "180 Ringing", &to("b"), &reliable(20), "");
    lab.answer_as(&invite, "200 OK", &to("a"), CONTACT, THEIRS);
    lab.sent.clear();
    lab.answer_as(&invite, "200 OK", &to("b"), CONTACT, THEIRS);
    let both = std::mem::take(&mut lab.sent);
    let [ack, bye] = both.as_slice() else { panic!("{both:#?}") };
    assert_eq!((ack.header("CSeq"), ack.tag("To").as_str()), ("1 ACK", "b"));
    assert_eq!((bye.header("CSeq"), bye.tag("To").as_str()), ("3 BYE", "b"), "its PRACK was number 2");
    assert!(matches!(lab.take_events().last(), Some(Event::Answered { .. })));
}

#[test]
fn ringing_that_is_not_acknowledged_yet_goes_on_by_the_next_connection() {
    let tcp = |address: &str| Way { transport: Transport::Tcp, address: addr(address) };
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    let place = Found { way: tcp(PBX), local: addr(US) };
    lab.ua.add_trunk(TrunkSettings { found: vec![place], ..trunk(false) }, lab.now);
    lab.drain();
    let text = format!(
        "INVITE {CALLEE} SIP/2.0\r\nVia: SIP/2.0/TCP {PBX};branch=z9hG4bKa\r\nFrom: <sip:200@pbx>;tag=1\r\n\
         To: <{CALLEE}>\r\nCall-ID: a\r\nCSeq: 7 INVITE\r\nRequire: 100rel\r\n{CONTACT}\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{THEIRS}",
        THEIRS.len()
    );
    let connection = tcp("192.0.2.1:40001");
    lab.ua.receive(text.as_bytes(), connection, lab.now);
    lab.ring(LEG);
    let ringing = lab.find("180");
    assert_eq!(ringing.to, connection);
    lab.ua.unreachable(connection, "reset", lab.now);
    lab.drain();
    lab.sent.clear();
    lab.pass(millis(500));
    let again = lab.find("180");
    assert_eq!((again.to, &again.text), (tcp(PBX), &ringing.text));
}
