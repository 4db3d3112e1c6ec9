//! Stories of digits by INFO that we send, and of INFO that is none.

use super::*;

const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"a\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n";

fn send(lab: &mut Lab, digits: &str, millis: u32) {
    for digit in digits.chars() {
        lab.ua.send_digit(LegId(1), digit, millis, lab.now);
    }
    lab.drain();
}

#[test]
fn digits_go_one_after_the_other_in_their_order_and_each_as_long_as_it_is_pressed() {
    let mut lab = Lab::up();
    lab.talking();
    send(&mut lab, "1#b", 200);
    let first = lab.take("INFO");
    assert_eq!(first.header("Content-Type"), "application/dtmf-relay");
    assert_eq!((first.body(), first.header("CSeq")), ("Signal=1\r\nDuration=200\r\n", "2 INFO"));
    assert_eq!(first.to, udp("192.0.2.1:5062"));
    lab.answer(&first, "200 OK", "", "");
    lab.pass(millis(249));
    assert!(lab.sent.is_empty(), "the key is still down");
    lab.pass(millis(1));
    let second = lab.take("INFO");
    assert_eq!(second.body(), "Signal=#\r\nDuration=200\r\n");
    lab.pass(millis(499));
    assert!(lab.sent.is_empty(), "the next one waits for the answer, however late");
    lab.pass(millis(1));
    assert_eq!(lab.take("INFO").text, second.text, "the same one again");
    lab.answer(&second, "200 OK", "", "");
    let third = lab.take("INFO");
    assert_eq!((third.body(), third.header("CSeq")), ("Signal=B\r\nDuration=200\r\n", "4 INFO"));
    lab.answer(&third, "200 OK", "", "");
    lab.pass(Duration::from_secs(5));
    assert!(lab.sent.is_empty());
    lab.no_event();
}

#[test]
fn digits_get_credentials_when_asked_for_and_stop_where_they_are_refused() {
    let mut lab = Lab::up();
    lab.talking();
    send(&mut lab, "12", 100);
    let first = lab.take("INFO");
    lab.answer(&first, "401 Unauthorized", CHALLENGE, "");
    let again = lab.take("INFO");
    assert_eq!(again.body(), "Signal=1\r\nDuration=100\r\n");
    assert!(again.header("Authorization").contains("username=\"gw\""));
    lab.answer(&again, "415 Unsupported", "", "");
    lab.pass(Duration::from_secs(5));
    assert!(lab.sent.is_empty(), "the second would fare no better");
    lab.ask(&again, "OPTIONS", 50, "", "");
    send(&mut lab, "3", 100);
    assert_eq!(lab.find("INFO").body(), "Signal=3\r\nDuration=100\r\n");
}

#[test]
fn what_is_no_digit_or_has_no_call_is_dropped_and_no_more_wait_than_may() {
    let mut lab = Lab::up();
    lab.alive = true;
    let invite = lab.dialled();
    send(&mut lab, "1", 100);
    assert!(lab.sent.is_empty(), "nobody has answered yet");
    lab.answer(&invite, "200 OK", "Contact: <sip:200@192.0.2.1:5062>\r\n", THEIRS);
    lab.take("ACK");
    send(&mut lab, "x é", 100);
    assert!(lab.sent.is_empty());
    send(&mut lab, &"5".repeat(500), 40);
    let mut sent = 0;
    for _ in 0..100 {
        let Some(info) = lab.sent.pop() else { break };
        assert_eq!(info.what(), "INFO");
        sent += 1;
        lab.answer(&info, "200 OK", "", "");
        lab.pass(millis(90));
    }
    assert_eq!(sent, 65, "one under way and 64 that wait");
    send(&mut lab, "12", 100);
    lab.sent.clear();
    lab.leave(LegId(1), None, "");
    lab.take("BYE");
    send(&mut lab, "3", 100);
    lab.pass(Duration::from_secs(1));
    assert!(lab.sent.iter().all(|sent| ["BYE", "INFO"].contains(&sent.what()) && !sent.has("Signal=2")));
}

#[test]
fn a_pbx_that_never_answers_a_digit_is_not_sent_the_next_and_keeps_its_call() {
    let mut lab = Lab::up();
    lab.alive = true;
    lab.talking();
    send(&mut lab, "12", 100);
    lab.pass(Duration::from_secs(60));
    assert!(lab.sent.iter().all(|sent| sent.has("Signal=1")), "{:#?}", lab.sent);
    lab.no_event();
}

#[test]
fn info_of_a_package_nobody_asked_for_is_named_as_such() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    lab.ask(&invite, "INFO", 1, "Info-Package: conference\r\nContent-Type: text/plain\r\n", "x");
    assert_eq!(lab.take("469").header("Recv-Info"), "");
    lab.ask(&invite, "INFO", 2, "Info-Package: nothing\r\n", "");
    lab.take("469");
    lab.ask(&invite, "INFO", 3, "Content-Type: application/media_control+xml\r\n", "<x/>");
    assert_eq!(lab.take("415").header("Accept"), "application/dtmf-relay, application/dtmf");
    lab.no_event();
    let relay = "Info-Package: dtmf\r\nContent-Type: application/dtmf-relay\r\n";
    lab.ask(&invite, "INFO", 4, relay, "Signal=7\r\n");
    lab.take("200");
    assert_eq!(lab.take_events(), [Event::Digit { leg: LegId(1), digit: '7', millis: 160 }]);
}

#[test]
fn what_we_do_not_do_in_a_call_is_refused_with_what_we_do() {
    let mut lab = Lab::up();
    let (invite, _) = lab.talking();
    for (cseq, method, headers, status) in [
        (1, "MESSAGE", "Content-Type: text/plain\r\n", "405"),
        (2, "SUBSCRIBE", "Event: refer\r\n", "405"),
        (3, "PUBLISH", "", "405"),
        (4, "DANCE", "", "501"),
    ] {
        lab.ask(&invite, method, cseq, headers, "hi");
        assert_eq!(lab.take(status).header("Allow"), ALLOW);
    }
    lab.ask(&invite, "NOTIFY", 5, "Event: dialog\r\n", "");
    lab.take("481");
    lab.no_event();
}
