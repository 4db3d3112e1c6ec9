//! Stories of connections: what is sent once only, what goes by TCP for its length, and what happens when they break.

use super::*;

/// One trunk that is spoken to by that way, up.
fn up_by(way: Way, uri: &str, register: bool) -> Lab {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    let local = if way.address.is_ipv4() { addr(US) } else { addr("[2001:db8::7]:5060") };
    let found = vec![Found { way, local }];
    lab.ua.add_trunk(TrunkSettings { server_uri: uri.into(), found, ..trunk(register) }, lab.now);
    lab.drain();
    let first = lab.take(if register { "REGISTER" } else { "OPTIONS" });
    lab.answer(&first, "200 OK", if register { "Expires: 300\r\n" } else { "" }, "");
    lab.events.clear();
    lab
}

fn by_tcp(register: bool) -> Lab {
    up_by(tcp(PBX), "sip:pbx.example;transport=tcp", register)
}

/// A call whose INVITE is too long for a datagram.
fn long_dial() -> Dial {
    Dial { headers: vec![("X-Long".into(), "x".repeat(900))], ..dial() }
}

fn dial_long(lab: &mut Lab, leg: u64) {
    lab.ua.dial(LegId(leg), long_dial(), lab.now).unwrap();
    lab.drain();
}

fn receive_by(lab: &mut Lab, text: &str, way: Way) {
    lab.ua.receive(text.as_bytes(), way, lab.now);
    lab.drain();
}

#[test]
fn over_tcp_nothing_is_sent_twice_and_silence_is_still_noticed_after_32_seconds() {
    let mut lab = by_tcp(false);
    let invite = lab.dialled();
    assert!(
        invite.header("Via").starts_with("SIP/2.0/TCP 192.0.2.7:5060;rport;branch=z9hG4bK"),
        "{}",
        invite.text
    );
    assert_eq!(invite.header("Contact"), "<sip:gw@192.0.2.7:5060;transport=tcp>");
    assert_eq!(invite.to, tcp(PBX));
    lab.pass(Duration::from_secs(28));
    assert!(lab.sent.is_empty(), "{:#?}", lab.sent);
    lab.pass(Duration::from_secs(4));
    assert!(lab.ending().failed_over());
    assert_eq!(lab.ua.counters().retransmissions, 0);
}

#[test]
fn over_tcp_a_refused_call_is_forgotten_at_once() {
    let mut lab = by_tcp(false);
    let invite = lab.dialled();
    lab.answer(&invite, "486 Busy Here", "", "");
    assert_eq!(lab.take("ACK").to, tcp(PBX));
    lab.ending();
    lab.ua.handle_timeout(lab.now);
    assert!(lab.ua.calls.is_empty(), "timer D is zero");
    assert_eq!(lab.ua.core.transactions.sizes(), (0, 0));
}

fn call(count: u32, method: &str, from: &str) -> String {
    format!(
        "{method} sip:+49151@gateway.example SIP/2.0\r\nVia: SIP/2.0/TCP {from};branch=z9hG4bKt{count}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:200@pbx.example>;tag=p{count}\r\nTo: <sip:+49151@gateway.example>\r\n\
         Call-ID: t{count}\r\nCSeq: 7 {method}\r\nContact: <sip:200@{from};transport=tcp>\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{THEIRS}",
        THEIRS.len()
    )
}

#[test]
fn over_tcp_our_refusal_goes_out_once_and_our_200_until_it_is_acknowledged() {
    let mut lab = by_tcp(false);
    let connection = tcp("192.0.2.1:40123");
    receive_by(&mut lab, &call(1, "INVITE", PBX), connection);
    assert_eq!(lab.take("100").to, connection, "back through the connection it came by");
    lab.refuse_all(486);
    assert_eq!(lab.take("486").to, connection);
    lab.pass(Duration::from_secs(20));
    assert!(lab.sent.is_empty(), "timer G does not run");
    let ack = call(1, "ACK", PBX)
        .replace("To: <sip:+49151@gateway.example>", "To: <sip:+49151@gateway.example>;tag=x");
    receive_by(&mut lab, &ack, connection);
    lab.ua.handle_timeout(lab.now);
    assert_eq!(lab.ua.core.transactions.sizes().1, 0, "timer I is zero");

    receive_by(&mut lab, &call(2, "INVITE", PBX), connection);
    let Some(Event::Invited { leg, .. }) = lab.take_events().pop() else { panic!() };
    lab.sent.clear();
    lab.pick_up(leg, answer());
    assert_eq!(lab.take("200").header("Contact"), "<sip:gw@192.0.2.7:5060;transport=tcp>");
    lab.pass(millis(3_600));
    let again: Vec<(u64, String)> = lab.sent_kinds();
    assert_eq!(again.len(), 3, "§13.3.1.4: hop by hop it may have got lost all the same: {again:?}");
}

#[test]
fn an_answer_finds_its_way_when_the_connection_it_should_take_is_gone() {
    let mut lab = by_tcp(false);
    let connection = tcp("192.0.2.1:40123");
    receive_by(&mut lab, &call(1, "INVITE", "192.0.2.1:5070"), connection);
    lab.take("100");
    lab.ua.unreachable(connection, "closed", lab.now);
    lab.drain();
    lab.sent.clear();
    lab.refuse_all(486);
    assert_eq!(lab.find("486").to, tcp("192.0.2.1:5070"), "§18.2.2: where the Via says");
}

#[test]
fn a_long_request_goes_by_tcp_and_its_call_stays_there() {
    let mut lab = Lab::up();
    dial_long(&mut lab, 1);
    let invite = lab.take("INVITE");
    assert!(invite.text.len() > 1_300);
    assert_eq!(invite.to, tcp(PBX));
    assert!(invite.header("Via").starts_with("SIP/2.0/TCP "), "{}", invite.text);
    assert_eq!(invite.header("Contact"), "<sip:gw@192.0.2.7:5060>", "whoever calls us back uses UDP");
    lab.pass(Duration::from_secs(3));
    assert!(lab.sent.is_empty());
    lab.answer(&invite, "200 OK", "Contact: <sip:200@192.0.2.1:5060>\r\n", THEIRS);
    let ack = lab.take("ACK");
    assert_eq!(ack.to, tcp(PBX));
    assert!(ack.header("Via").starts_with("SIP/2.0/TCP "));
    lab.leave(LegId(1), None, "");
    let bye = lab.take("BYE");
    assert_eq!(bye.to, tcp(PBX));
    assert!(bye.header("Via").starts_with("SIP/2.0/TCP "));
    // Were the connection gone by then, it would go by UDP.
    lab.ua.unreachable(tcp(PBX), "closed", lab.now);
    lab.drain();
    let bye = lab.take("BYE");
    assert_eq!(bye.to, udp(PBX));
    assert!(bye.header("Via").starts_with("SIP/2.0/UDP "));
}

#[test]
fn a_short_request_goes_by_udp() {
    let mut lab = Lab::up();
    let invite = lab.dialled();
    assert!(invite.text.len() <= 1_300);
    assert_eq!(invite.to, udp(PBX));
}

#[test]
fn where_there_is_no_tcp_the_long_request_goes_by_udp_and_the_next_one_does_so_at_once() {
    let mut lab = Lab::up();
    lab.alive = true;
    dial_long(&mut lab, 1);
    let first = lab.take("INVITE");
    lab.ua.unreachable(tcp(PBX), "connection refused", lab.now);
    lab.drain();
    let again = lab.take("INVITE");
    assert_eq!(again.to, udp(PBX));
    assert!(again.header("Via").starts_with("SIP/2.0/UDP 192.0.2.7:5060;rport;branch=z9hG4bK"));
    assert_ne!(again.branch(), first.branch());
    let rest = |sent: &Sent| sent.text.split_once("Max-Forwards").unwrap().1.to_owned();
    assert_eq!(rest(&again), rest(&first), "else it is the same request");
    lab.no_event();
    assert_eq!(lab.ua.counters().fallen_back, 1);
    assert_eq!(lab.ua.trunks()[0].failures, 0);
    lab.pass(millis(500));
    assert_eq!(lab.take("INVITE").text, again.text, "over UDP it is sent again");
    lab.answer(&again, "180 Ringing", "", "");
    lab.leave(LegId(1), None, "");
    let cancel = lab.take("CANCEL");
    assert_eq!((cancel.to, cancel.branch()), (udp(PBX), again.branch()), "CANCEL follows the INVITE");
    lab.answer(&cancel, "200 OK", "", "");
    lab.answer(&again, "487 Request Terminated", "", "");
    let ack = lab.take("ACK");
    assert_eq!((ack.to, ack.branch()), (udp(PBX), again.branch()));
    lab.pass(Duration::from_secs(120));
    dial_long(&mut lab, 2);
    assert_eq!(lab.find("INVITE").to, udp(PBX), "remembered");
    lab.leave(LegId(2), None, "");
    lab.pass(Duration::from_secs(600));
    lab.sent.clear();
    dial_long(&mut lab, 3);
    assert_eq!(lab.find("INVITE").to, tcp(PBX), "but not for ever");
}

#[test]
fn a_firewall_that_swallows_tcp_does_not_swallow_the_call() {
    let mut lab = Lab::up();
    lab.alive = true;
    lab.ua.dial(LegId(1), Dial { patience: Some(Duration::from_secs(5)), ..long_dial() }, lab.now).unwrap();
    lab.drain();
    assert_eq!(lab.take("INVITE").to, tcp(PBX));
    lab.pass(Duration::from_secs(4));
    let again = lab.take("INVITE");
    assert_eq!((again.at, again.to), (4_000, udp(PBX)));
    lab.answer(&again, "100 Trying", "", "");
    lab.pass(Duration::from_secs(60));
    assert_eq!(lab.take_events(), [Event::Trying { leg: LegId(1) }]);
}

#[test]
fn a_connection_that_breaks_while_it_rings_ends_the_call_for_another_trunk_to_take() {
    let mut lab = by_tcp(false);
    let invite = lab.dialled();
    lab.answer(&invite, "180 Ringing", "", "");
    lab.events.clear();
    lab.ua.unreachable(tcp(PBX), "reset", lab.now);
    lab.drain();
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.failed_over()), (EndedBy::Transport, None, true));
    assert_eq!(ending.text, "the connection to the PBX broke");
}

#[test]
fn our_200_goes_on_where_the_trunk_is_when_its_connection_is_gone() {
    let mut lab = by_tcp(false);
    let connection = tcp("192.0.2.1:40123");
    receive_by(&mut lab, &call(1, "INVITE", PBX), connection);
    let Some(Event::Invited { leg, .. }) = lab.take_events().pop() else { panic!() };
    lab.pick_up(leg, answer());
    lab.sent.clear();
    lab.ua.unreachable(connection, "closed", lab.now);
    lab.pass(millis(600));
    assert_eq!(lab.find("200").to, tcp(PBX));
}

#[test]
fn a_call_that_stands_outlives_its_connection() {
    let mut lab = by_tcp(false);
    let connection = tcp("192.0.2.1:40123");
    receive_by(&mut lab, &call(1, "INVITE", PBX), connection);
    let Some(Event::Invited { leg, .. }) = lab.take_events().pop() else { panic!() };
    lab.sent.clear();
    lab.pick_up(leg, answer());
    let ok = lab.take("200");
    let ack =
        call(1, "ACK", PBX).replace("To: <sip:+49151@gateway.example>", &format!("To: {}", ok.header("To")));
    receive_by(&mut lab, &ack, connection);
    assert!(matches!(lab.take_events().as_slice(), [Event::Answered { .. }]));
    lab.ua.unreachable(connection, "closed", lab.now);
    lab.drain();
    lab.no_event();
    lab.sent.clear();
    lab.leave(leg, None, "");
    assert_eq!(lab.take("BYE").to, tcp(PBX), "not to a port where nobody listens");
}

#[test]
fn a_broken_connection_registers_anew_at_once_and_then_less_and_less_often() {
    let mut lab = by_tcp(true);
    lab.pass(Duration::from_secs(70));
    lab.sent.clear();
    lab.ua.unreachable(tcp(PBX), "closed", lab.now);
    lab.drain();
    let again = lab.find("REGISTER");
    assert_eq!(again.at, 70_000);
    let mut last = again.at;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        lab.ua.unreachable(tcp(PBX), "refused", lab.now);
        lab.drain();
        assert!(lab.sent.is_empty());
        while lab.sent.iter().all(|sent| sent.what() != "REGISTER") {
            lab.sent.clear();
            lab.wait();
        }
        let register = lab.find("REGISTER");
        pauses.push(register.at - last);
        last = register.at;
    }
    for (index, pause) in pauses.iter().enumerate() {
        let longest = (1_000u64 << index).min(60_000);
        assert!((longest / 2..=longest).contains(pause), "pause {index}: {pauses:?}");
    }
    assert!(!lab.ua.trunks()[0].state.is_up());
    let view = lab.ua.trunks().remove(0);
    assert_eq!(view.state, TrunkState::Failed { code: None, why: "no answer to REGISTER".into() });
}

#[test]
fn a_registrar_that_closes_every_connection_at_once_is_not_hammered() {
    let mut lab = by_tcp(true);
    let mut registers = 0;
    let end = lab.now.after(Duration::from_secs(60)).tick;
    while lab.now.tick < end {
        lab.ua.unreachable(tcp(PBX), "closed", lab.now);
        lab.drain();
        lab.sent.clear();
        lab.wait();
        for sent in std::mem::take(&mut lab.sent) {
            registers += u32::from(sent.what() == "REGISTER");
            lab.answer(&sent, "200 OK", "Expires: 300\r\n", "");
        }
    }
    assert!((30..=130).contains(&registers), "{registers} in a minute");
}

#[test]
fn tls_and_sips_are_written_as_such() {
    let mut lab = up_by(tls("192.0.2.1:5061"), "sip:pbx.example;transport=tls", false);
    let invite = lab.dialled();
    assert!(invite.header("Via").starts_with("SIP/2.0/TLS 192.0.2.7:5060;"));
    assert!(invite.text.starts_with("INVITE sip:200@pbx.example SIP/2.0"), "{}", invite.text);
    assert_eq!(invite.header("Contact"), "<sip:gw@192.0.2.7:5060;transport=tls>");

    let mut lab = up_by(tls("192.0.2.1:5061"), "sips:pbx.example", true);
    let invite = lab.dialled();
    assert!(invite.text.starts_with("INVITE sips:200@pbx.example SIP/2.0"), "{}", invite.text);
    assert!(invite.header("From").contains("<sips:+15550100@pbx.example>"), "{}", invite.text);
    assert_eq!(invite.header("To"), "<sips:200@pbx.example>");
    assert_eq!(invite.header("Contact"), "<sips:gw@192.0.2.7:5060>", "§8.1.1.8");
    lab.leave(LegId(1), None, "");
    lab.ua.shutdown(lab.now);
    lab.drain();
    let leave = lab.find("REGISTER");
    assert_eq!(leave.header("To"), "<sips:gw@pbx.example>");
}

#[test]
fn ipv6_stands_in_brackets_and_without_a_zone() {
    let way = Way::udp(addr("[2001:db8::1]:5060"));
    let mut lab = up_by(way, "sip:[2001:db8::1]:5060", false);
    let invite = lab.dialled();
    assert_eq!(invite.to, way);
    assert!(invite.text.starts_with("INVITE sip:200@[2001:db8::1]:5060 SIP/2.0\r\n"), "{}", invite.text);
    assert!(invite.header("Via").starts_with("SIP/2.0/UDP [2001:db8::7]:5060;rport;"));
    assert_eq!(invite.header("Contact"), "<sip:gw@[2001:db8::7]:5060>");
    assert!(invite.header("From").contains("@[2001:db8::1]>"));
    let ok = "Contact: <sip:200@[2001:db8::1]:5062>\r\n";
    lab.answer(&invite, "200 OK", ok, THEIRS);
    let ack = lab.take("ACK");
    assert_eq!(ack.to, Way::udp(addr("[2001:db8::1]:5062")));
    assert!(ack.text.starts_with("ACK sip:200@[2001:db8::1]:5062 SIP/2.0\r\n"));
    let ask = "OPTIONS sip:gw@[2001:db8::7] SIP/2.0\r\nVia: SIP/2.0/UDP [2001:db8::99]:5060;rport;branch=z9hG4bKv6\r\n\
        From: <sip:p@h>;tag=1\r\nTo: <sip:gw@h>\r\nCall-ID: v6\r\nCSeq: 1 OPTIONS\r\n\r\n";
    receive_by(&mut lab, ask, way);
    let answer = lab.take("200");
    assert_eq!(
        answer.header("Via"),
        "SIP/2.0/UDP [2001:db8::99]:5060;branch=z9hG4bKv6;received=2001:db8::1;rport=5060"
    );

    // The zone of a link-local address means nothing to anybody else.
    let mut lab = Lab::new(Settings::default());
    let local = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::7".parse().unwrap(), 5060, 0, 3));
    let found = vec![Found { way: Way::udp(addr("[fe80::1%3]:5060")), local }];
    lab.ua.add_trunk(TrunkSettings { found, ..trunk(true) }, lab.now);
    lab.drain();
    let register = lab.take("REGISTER");
    assert!(register.header("Via").starts_with("SIP/2.0/UDP [fe80::7]:5060;"), "{}", register.text);
    assert!(register.header("Contact").starts_with("<sip:gw@[fe80::7]:5060>"));
}

#[test]
fn each_place_is_told_the_address_of_ours_that_it_can_reach() {
    let mut lab = Lab::new(Settings { seed: 7, ..Settings::default() });
    let six = Found { way: Way::udp(addr("[2001:db8::1]:5060")), local: addr("[2001:db8::7]:5060") };
    let four = Found { way: tcp("192.0.2.1:5060"), local: addr("198.51.100.7:5070") };
    lab.ua.add_trunk(TrunkSettings { found: vec![six, four], ..trunk(true) }, lab.now);
    lab.drain();
    let first = lab.take("REGISTER");
    assert!(first.header("Contact").starts_with("<sip:gw@[2001:db8::7]:5060>"));
    lab.ua.unreachable(six.way, "no route", lab.now);
    lab.drain();
    let second = lab.take("REGISTER");
    assert_eq!(second.to, four.way);
    assert!(second.header("Contact").starts_with("<sip:gw@198.51.100.7:5070;transport=tcp>"));
    assert!(second.header("Via").starts_with("SIP/2.0/TCP 198.51.100.7:5070;"));
}

#[test]
fn in_a_flood_over_tcp_what_comes_but_once_is_heard_all_the_same() {
    let options = |way: Way, nth: usize| {
        let transport = way.transport.in_via();
        format!(
            "OPTIONS sip:gw@{US} SIP/2.0\r\nVia: SIP/2.0/{transport} {PBX};rport;branch=z9hG4bKo{nth}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@pbx.example>;tag=o\r\nTo: <sip:gw@{US}>\r\nCall-ID: o{nth}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let mut lab = by_tcp(false);
    let (invite, _) = lab.talking();
    lab.ua.dial(LegId(2), dial(), lab.now).unwrap();
    lab.drain();
    let second = lab.take("INVITE");
    let bye = |call_id: &str, nth: u32| {
        format!(
            "BYE sip:gw@{US} SIP/2.0\r\nVia: SIP/2.0/TCP {PBX};rport;branch=z9hG4bKb{nth}\r\nMax-Forwards: 70\r\n\
             From: {};tag=pbx1\r\nTo: {}\r\nCall-ID: {call_id}\r\nCSeq: 9 BYE\r\nContent-Length: 0\r\n\r\n",
            invite.header("To"),
            invite.header("From"),
        )
    };
    for nth in 0..1_000 {
        receive_by(&mut lab, &options(tcp(PBX), nth), tcp(PBX));
    }
    let dropped = lab.ua.counters().dropped_rate;
    assert!(dropped > 100, "{dropped}");
    lab.sent.clear();
    receive_by(&mut lab, &bye("of nobody", 1), tcp(PBX));
    assert_eq!(lab.ua.counters().dropped_rate, dropped + 1);
    receive_by(&mut lab, &bye(invite.header("Call-ID"), 2), tcp(PBX));
    lab.take("200");
    assert!(lab.ending().answered);
    lab.answer(&second, "486 Busy Here", "", "");
    assert_eq!(lab.ending().code, Some(486));
    assert_eq!(lab.ua.counters().dropped_rate, dropped + 1);
    // A datagram would be sent again.
    let ack = bye(invite.header("Call-ID"), 3).replace("BYE", "ACK").replace("/TCP", "/UDP");
    receive_by(&mut lab, &ack, udp(PBX));
    assert_eq!(lab.ua.counters().dropped_rate, dropped + 2);
}
