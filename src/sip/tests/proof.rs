//! Stories of calls whose sender has to prove who he is, and of floods.

use super::super::auth::{Ask, By, Credentials, Digest};
use super::*;

fn guarded() -> Lab {
    guarded_by(Some("gw-secret"))
}

fn guarded_by(password: Option<&str>) -> Lab {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    let password = password.map(str::to_owned);
    lab.ua.add_trunk(TrunkSettings { challenge: true, password, ..trunk(false) }, lab.now);
    lab.drain();
    let options = lab.take("OPTIONS");
    lab.answer(&options, "200 OK", "", "");
    lab.events.clear();
    lab.alive = true;
    lab
}

/// The PBX's side of it.
struct Caller {
    digest: Digest,
    who: Credentials,
    count: u32,
}

impl Caller {
    fn new(username: &str, password: &str) -> Caller {
        let who = Credentials { username: username.into(), password: password.into() };
        Caller { digest: Digest::default(), who, count: 0 }
    }

    fn learn(&mut self, refusal: &Sent) {
        let values: Vec<&str> =
            refusal.text.split("\r\n").filter_map(|line| line.strip_prefix("WWW-Authenticate: ")).collect();
        assert_eq!(values.len(), 2);
        assert!(values[0].contains("algorithm=SHA-256") && values[1].contains("algorithm=MD5"), "{values:?}");
        self.digest.begin();
        self.digest.challenged(By::Server, values.into_iter(), Some(&self.who)).unwrap();
    }

    fn authorization(&mut self) -> String {
        let ask = Ask { method: "INVITE", uri: CALLEE, body: b"" };
        self.digest
            .authorize(&ask, Some(&self.who), "cafe")
            .into_iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect()
    }

    /// Calls; gives our answer.
    fn call(&mut self, lab: &mut Lab) -> Sent {
        let headers = format!("Contact: <sip:200@192.0.2.1:5062>\r\n{}", self.authorization());
        self.call_with(lab, &headers)
    }

    fn call_with(&mut self, lab: &mut Lab, headers: &str) -> Sent {
        self.count += 1;
        lab.sent.clear();
        lab.invite(self.count, CALLEE, headers, THEIRS);
        let answer = lab.sent.remove(0);
        if answer.what() != "100" {
            lab.ask_hop(self.count, "ACK", "");
            assert!(lab.sent.is_empty(), "an ACK is never challenged");
        }
        answer
    }
}

#[test]
fn a_pbx_that_knows_the_password_gets_through_and_hears_no_more_of_it() {
    let mut lab = guarded();
    let mut pbx = Caller::new("gw", "gw-secret");
    let refusal = pbx.call(&mut lab);
    assert_eq!(refusal.what(), "401");
    lab.no_event();
    pbx.learn(&refusal);
    assert!(pbx.authorization().contains("algorithm=SHA-256"));
    assert_eq!(pbx.call(&mut lab).what(), "100");
    let Some(Event::Invited { leg, .. }) = lab.take_events().pop() else { panic!() };
    lab.pick_up(leg, answer());
    let ok = lab.find("200");
    lab.ask_in(&ok, "ACK", 7, "", "");
    lab.ask_in(&ok, "INFO", 8, "Content-Type: application/dtmf\r\n", "5");
    assert_eq!(lab.find("200").header("CSeq"), "8 INFO", "requests in a call are not challenged");
    assert_eq!(pbx.call(&mut lab).what(), "100", "the nonce is good for the next call too");
    assert_eq!((lab.ua.counters().challenged, lab.ua.counters().denied), (1, 0));
}

#[test]
fn md5_and_the_old_formula_without_qop_do_too() {
    for drop in ["algorithm=SHA-256", "qop"] {
        let mut lab = guarded();
        let mut pbx = Caller::new("gw", "gw-secret");
        let refusal = pbx.call(&mut lab);
        let mut values: Vec<String> = refusal
            .text
            .split("\r\n")
            .filter_map(|line| line.strip_prefix("WWW-Authenticate: "))
            .map(str::to_owned)
            .collect();
        if drop == "qop" {
            values.iter_mut().for_each(|value| *value = value.replace(", qop=\"auth\"", ""));
        } else {
            values.retain(|value| !value.contains(drop));
        }
        pbx.digest.begin();
        pbx.digest.challenged(By::Server, values.iter().map(String::as_str), Some(&pbx.who)).unwrap();
        let headers = pbx.authorization();
        assert_eq!(pbx.call_with(&mut lab, &headers).what(), "100", "without {drop}");
        let again = pbx.call_with(&mut lab, &headers);
        assert_eq!(again.what(), "401", "but not twice");
        assert!(again.has("stale=true"));
    }
}

#[test]
fn a_wrong_password_or_name_is_refused_and_counted() {
    for (name, password) in [("gw", "guess"), ("root", "gw-secret")] {
        let mut lab = guarded();
        let mut scanner = Caller::new(name, password);
        let refusal = scanner.call(&mut lab);
        scanner.learn(&refusal);
        assert_eq!(scanner.call(&mut lab).what(), "403");
        lab.no_event();
        assert_eq!(lab.ua.counters().denied, 1);
    }
}

#[test]
fn an_old_nonce_is_stale_and_a_new_one_helps() {
    let mut lab = guarded();
    let mut pbx = Caller::new("gw", "gw-secret");
    let refusal = pbx.call(&mut lab);
    assert!(!refusal.has("stale"));
    pbx.learn(&refusal);
    lab.pass(Duration::from_secs(61));
    let stale = pbx.call(&mut lab);
    assert_eq!(stale.what(), "401");
    assert!(stale.has("stale=true"), "{}", stale.text);
    pbx.learn(&stale);
    assert_eq!(pbx.call(&mut lab).what(), "100");
}

#[test]
fn what_was_overheard_is_of_no_use() {
    let mut lab = guarded();
    let mut pbx = Caller::new("gw", "gw-secret");
    let refusal = pbx.call(&mut lab);
    pbx.learn(&refusal);
    let overheard = pbx.authorization();
    assert_eq!(pbx.call_with(&mut lab, &overheard).what(), "100");
    assert_eq!(pbx.call_with(&mut lab, &overheard).what(), "401", "the count has been used");
    // From another address of the same trunk, the nonce is nobody's.
    let fresh = pbx.authorization();
    let text = format!(
        "INVITE {CALLEE} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.70;rport;branch=z9hG4bKother\r\nFrom: <sip:x@h>;tag=9\r\n\
         To: <{CALLEE}>\r\nCall-ID: other\r\nCSeq: 1 INVITE\r\n{fresh}\r\n"
    );
    lab.receive_from(text.as_bytes(), "192.0.2.70:5060");
    assert_eq!(lab.find("401").to, udp("192.0.2.70:5060"));
    // And it is good for whom it was meant only.
    pbx.count += 1;
    let expensive = "sip:+900123@gateway.example";
    lab.invite(pbx.count, expensive, &pbx.authorization(), THEIRS);
    assert_eq!(lab.find("403").header("To").split(';').next(), Some("<sip:+900123@gateway.example>"));
}

#[test]
fn nonsense_in_an_authorization_is_a_challenge_and_no_panic() {
    for value in [
        "",
        "Digest",
        "Digest x",
        "Basic Z3c6Z3ctc2VjcmV0",
        "Digest username=\"gw\", realm=\"watrunk\", nonce=\"é\", uri=\"sip:x\", response=\"\"",
        "Digest username=\"gw\", realm=\"watrunk\", nonce=\"00\", uri=\"\", response=\"0\", qop=auth, nc=zz, cnonce=\"\"",
        "Digest username=\"gw\", realm=\"other\", nonce=\"0\", uri=\"sip:x\", response=\"0\"",
        "Digest username=\"gw",
    ] {
        let mut lab = guarded();
        let mut pbx = Caller::new("gw", "gw-secret");
        let answer = pbx.call_with(&mut lab, &format!("Authorization: {value}\r\n"));
        assert_eq!(answer.what(), "401", "{value}");
        assert!(!answer.has("stale"));
    }
}

#[test]
fn a_trunk_that_asks_for_a_password_that_nobody_configured_takes_no_call() {
    let mut lab = guarded_by(None);
    let mut pbx = Caller::new("gw", "");
    assert_eq!(pbx.call(&mut lab).what(), "403");
    lab.no_event();
}

#[test]
fn options_and_cancel_are_not_challenged() {
    let mut lab = guarded();
    lab.ask_hop(1, "CANCEL", "");
    lab.take("481");
    lab.ask_hop(1, "OPTIONS", "");
    lab.take("200");
}

#[test]
fn a_flood_from_a_known_address_is_dropped_unread_and_disturbs_no_call() {
    let mut lab = Lab::up();
    lab.alive = true;
    let (invite, _) = lab.talking();
    let flood = |count: u32| {
        format!(
            "OPTIONS sip:gw@{US} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.70;rport;branch=z9hG4bKf{count}\r\nFrom: <sip:x@h>;tag=9\r\n\
             To: <sip:gw@h>\r\nCall-ID: f{count}\r\nCSeq: 1 OPTIONS\r\n\r\n"
        )
    };
    let before = lab.ua.counters();
    for count in 0..10_000 {
        lab.receive_from(flood(count).as_bytes(), "192.0.2.70:5060");
    }
    let counters = lab.ua.counters();
    assert_eq!(counters.dropped_rate, 9_800);
    assert_eq!(counters.sent - before.sent, 200, "no more is answered than is read");
    for count in 0..10_000u32 {
        lab.receive_from(&count.to_be_bytes().repeat(100), "203.0.113.5:5060");
    }
    assert_eq!(lab.ua.counters().dropped_foreign, 10_000, "strangers cost not even a bucket");
    assert_eq!(lab.ua.counters().malformed, 0);
    lab.sent.clear();
    lab.ask(&invite, "INFO", 2, "Content-Type: application/dtmf\r\n", "5");
    lab.take("200");
    assert!(matches!(lab.take_events().as_slice(), [Event::Digit { digit: '5', .. }]));
    lab.pass(Duration::from_secs(1));
    lab.receive_from(flood(20_000).as_bytes(), "192.0.2.70:5060");
    lab.take("200");
}

#[test]
fn a_call_finds_room_among_other_transactions_but_not_beyond_the_cap_of_calls() {
    let mut lab =
        Lab::up_with(Settings { seed: 1, max_dialogs: 1, max_per_second: 10_000, ..Settings::default() });
    for count in 0..500 {
        lab.receive(&format!(
            "OPTIONS sip:gw@{US} SIP/2.0\r\nVia: SIP/2.0/UDP {PBX};rport;branch=z9hG4bKf{count}\r\nFrom: <sip:x@h>;tag=9\r\n\
             To: <sip:gw@h>\r\nCall-ID: f{count}\r\nCSeq: 1 OPTIONS\r\n\r\n"
        ));
    }
    lab.sent.clear();
    let leg = lab.called(1, THEIRS);
    assert_eq!(lab.ua.counters().evicted, 1);
    lab.invite(2, CALLEE, "", THEIRS);
    let refusal = lab.take("503");
    assert_eq!(refusal.header("Retry-After"), "10");
    lab.ask_hop(1, "CANCEL", "");
    let kinds: Vec<String> = lab.sent_kinds().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["200", "487"], "and a CANCEL finds room too");
    assert!(matches!(lab.take_events().as_slice(), [Event::Ended { leg: ended, .. }] if *ended == leg));
    // Nothing but calls: the next one is told to wait.
    for count in 10..200 {
        lab.invite(count, CALLEE, "", THEIRS);
    }
    assert_eq!(lab.sent.last().unwrap().what(), "503");
    assert!(lab.sent.last().unwrap().has("Retry-After: 10\r\n"));
    assert!(lab.ua.core.transactions.sizes().1 <= 68);
}
