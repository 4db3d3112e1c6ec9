//! Stories of the four machines: what is sent when, and what is forgotten when.

use super::super::wire::{Read, read};
use super::*;

const FROM: &str = "192.0.2.1:5060";

struct Desk {
    transactions: Transactions,
    out: Out,
    now: Now,
    told: Vec<(u64, Told)>,
}

impl Desk {
    fn new() -> Desk {
        Desk { transactions: Transactions::new(4), out: Out::default(), now: Now::default(), told: vec![] }
    }

    /// Lets time pass; gives the milliseconds at which something was sent.
    fn pass(&mut self, millis: u64) -> Vec<u64> {
        let end = self.now.after(Duration::from_millis(millis));
        let mut sent = Vec::new();
        while let Some(due) = self.transactions.next().filter(|due| *due <= end.tick) {
            self.now = self.now.after(due.since(self.now.tick));
            let told = self.transactions.handle_timeout(self.now, &mut self.out);
            self.told.extend(told.into_iter().map(|told| (self.now.tick.as_millis(), told)));
            for _ in self.out.queue.drain(..) {
                sent.push(self.now.tick.as_millis());
            }
        }
        self.now = end;
        sent
    }

    fn start(&mut self, method: &'static str) {
        let mut request = Draft::request(method, "sip:200@pbx.example");
        request.push("Via", "SIP/2.0/UDP 192.0.2.7;rport;branch=z9hG4bKus");
        request.push("Route", "<sip:192.0.2.1;lr>");
        request.push("Max-Forwards", "70");
        request.push("From", "<sip:us@h>;tag=1");
        request.push("To", "<sip:200@pbx.example>");
        request.push("Call-ID", "c");
        request.push("CSeq", format!("3 {method}"));
        let sending = Sending {
            branch: "z9hG4bKus".into(),
            method,
            request,
            to: Way::udp(FROM.parse().unwrap()),
            owner: Owner::Invite(1),
            instead: None,
        };
        self.transactions.start(sending, self.now, &mut self.out);
        assert_eq!(self.sent().len(), 1);
    }

    fn sent(&mut self) -> Vec<String> {
        let text = |output| match output {
            Output::Transmit { bytes, .. } => String::from_utf8(bytes).unwrap(),
            Output::Event(event) => panic!("{event:?}"),
        };
        self.out.queue.drain(..).map(text).collect()
    }

    fn answer(&mut self, code: u16, method: &str) -> Option<Owner> {
        let text = format!(
            "SIP/2.0 {code} X\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKus\r\nFrom: <sip:us@h>;tag=1\r\n\
             To: <sip:200@pbx.example>;tag=2\r\nCall-ID: c\r\nCSeq: 3 {method}\r\n\r\n"
        );
        let Read::Response(response) = read(text.as_bytes()) else { panic!() };
        self.transactions.response(&response, self.now, &mut self.out)
    }

    fn request(&mut self, method: &str, branch: &str) -> (Incoming, ServerKey) {
        let text = format!(
            "{method} sip:us@192.0.2.7 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;rport;branch={branch}\r\n\
             From: <sip:p@h>;tag={branch}\r\nTo: <sip:us@h>\r\nCall-ID: d\r\nCSeq: 1 {method}\r\n\r\n"
        );
        let Read::Request(request) = read(text.as_bytes()) else { panic!() };
        let incoming =
            self.transactions.request(&request, Way::udp(FROM.parse().unwrap()), self.now, &mut self.out);
        (incoming, ServerKey::of(&request))
    }

    fn respond(&mut self, key: &ServerKey, code: u16) {
        let bytes = format!("SIP/2.0 {code} X\r\n\r\n").into_bytes();
        self.transactions.respond(key, code, bytes, self.now, &mut self.out);
    }

    fn empty(&self) -> bool {
        self.transactions.clients.is_empty() && self.transactions.servers.is_empty()
    }
}

#[test]
fn an_unanswered_invite_is_sent_seven_times_and_given_up_after_32_seconds() {
    let mut desk = Desk::new();
    desk.start("INVITE");
    assert_eq!(desk.pass(60_000), [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert_eq!(desk.told[0], (32_000, Told::TimedOut(Owner::Invite(1))));
    assert!(desk.empty());
    assert_eq!(desk.out.counters.retransmissions, 6);
}

#[test]
fn another_unanswered_request_is_sent_eleven_times_at_most_4_seconds_apart() {
    let mut desk = Desk::new();
    desk.start("OPTIONS");
    let times = [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
    assert_eq!(desk.pass(60_000), times);
    assert_eq!(desk.told[0], (32_000, Told::TimedOut(Owner::Invite(1))));
    assert!(desk.empty());
}

#[test]
fn a_provisional_answer_silences_an_invite_for_as_long_as_it_rings() {
    let mut desk = Desk::new();
    desk.start("INVITE");
    desk.pass(600);
    assert_eq!(desk.answer(180, "INVITE"), Some(Owner::Invite(1)));
    assert_eq!(desk.pass(600_000), Vec::<u64>::new());
    assert!(desk.told.is_empty(), "timer B does not run while it rings");
    assert_eq!(desk.answer(180, "INVITE"), Some(Owner::Invite(1)), "every provisional answer is passed on");
}

#[test]
fn a_provisional_answer_slows_another_request_but_does_not_stop_it() {
    let mut desk = Desk::new();
    desk.start("OPTIONS");
    desk.pass(100);
    desk.answer(100, "OPTIONS");
    assert_eq!(desk.pass(20_000), [500, 4_500, 8_500, 12_500, 16_500]);
    desk.pass(60_000);
    assert_eq!(desk.told[0], (32_000, Told::TimedOut(Owner::Invite(1))), "timer F runs on");
}

#[test]
fn a_refusal_is_acknowledged_with_the_invites_own_via_and_route_each_time_it_comes() {
    let mut desk = Desk::new();
    desk.start("INVITE");
    assert_eq!(desk.answer(486, "INVITE"), Some(Owner::Invite(1)));
    let first = desk.sent();
    assert_eq!(
        first[0],
        "ACK sip:200@pbx.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;rport;branch=z9hG4bKus\r\n\
         Route: <sip:192.0.2.1;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:us@h>;tag=1\r\n\
         To: <sip:200@pbx.example>;tag=2\r\nCall-ID: c\r\nCSeq: 3 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    desk.pass(31_999);
    assert_eq!(desk.answer(486, "INVITE"), None, "told once");
    assert_eq!(desk.sent(), first, "the lost ACK is replaced");
    desk.pass(1);
    assert!(desk.empty(), "timer D: 32 s");
    assert_eq!(desk.answer(486, "INVITE"), None);
    assert!(desk.sent().is_empty());
    assert_eq!(desk.out.counters.stray_responses, 1);
}

#[test]
fn an_accepted_invite_passes_every_2xx_on_for_32_seconds() {
    let mut desk = Desk::new();
    desk.start("INVITE");
    for _ in 0..3 {
        assert_eq!(desk.answer(200, "INVITE"), Some(Owner::Invite(1)));
        assert!(desk.sent().is_empty(), "the ACK of a 2xx is not this layer's");
        desk.pass(10_000);
    }
    assert_eq!(desk.answer(486, "INVITE"), None, "a refusal after a 2xx means nothing");
    desk.pass(1_999);
    assert!(!desk.empty());
    desk.pass(1);
    assert!(desk.empty(), "timer M: 64 T1");
}

#[test]
fn the_answer_to_another_request_ends_its_repeats_and_is_told_once() {
    let mut desk = Desk::new();
    desk.start("OPTIONS");
    assert_eq!(desk.answer(200, "OPTIONS"), Some(Owner::Invite(1)));
    assert_eq!(desk.answer(200, "OPTIONS"), None);
    assert_eq!(desk.pass(4_999), Vec::<u64>::new());
    assert!(!desk.empty());
    desk.pass(1);
    assert!(desk.empty(), "timer K: T4");
}

#[test]
fn an_answer_to_another_method_is_stray() {
    let mut desk = Desk::new();
    desk.start("OPTIONS");
    assert_eq!(desk.answer(200, "INVITE"), None);
    assert_eq!(desk.out.counters.stray_responses, 1);
}

#[test]
fn a_refused_invite_is_refused_again_until_it_is_acknowledged() {
    let mut desk = Desk::new();
    let (incoming, key) = desk.request("INVITE", "z9hG4bKa");
    assert_eq!(incoming, Incoming::New);
    desk.respond(&key, 403);
    assert_eq!(desk.sent().len(), 1);
    assert_eq!(desk.pass(12_000), [500, 1_500, 3_500, 7_500, 11_500], "timer G: doubling up to T2");
    assert_eq!(desk.request("INVITE", "z9hG4bKa").0, Incoming::Absorbed);
    assert_eq!(desk.sent().len(), 1, "a repeat is answered at once");
    assert_eq!(desk.request("ACK", "z9hG4bKa").0, Incoming::Absorbed);
    assert_eq!(desk.pass(4_999), Vec::<u64>::new());
    assert!(!desk.empty());
    desk.pass(1);
    assert!(desk.empty(), "timer I: T4");
}

#[test]
fn a_refusal_that_is_never_acknowledged_is_given_up_after_32_seconds() {
    let mut desk = Desk::new();
    let (_, key) = desk.request("INVITE", "z9hG4bKa");
    desk.respond(&key, 403);
    desk.pass(31_999);
    assert!(!desk.empty());
    desk.pass(1);
    assert!(desk.empty(), "timer H");
}

#[test]
fn an_invite_nobody_answers_within_200_ms_is_told_trying() {
    let mut desk = Desk::new();
    let (_, key) = desk.request("INVITE", "z9hG4bKa");
    desk.pass(199);
    assert_eq!(desk.pass(1), [200]);
    desk.request("INVITE", "z9hG4bKa");
    assert!(desk.sent()[0].starts_with("SIP/2.0 100 Trying\r\n"));
    desk.respond(&key, 180);
    assert!(desk.sent()[0].starts_with("SIP/2.0 180 "));
    desk.request("INVITE", "z9hG4bKa");
    assert!(desk.sent()[0].starts_with("SIP/2.0 180 "), "the last provisional answer is repeated");
}

#[test]
fn an_accepted_invite_absorbs_repeats_and_lets_the_ack_through() {
    let mut desk = Desk::new();
    let (_, key) = desk.request("INVITE", "z9hG4bKa");
    desk.respond(&key, 200);
    desk.sent();
    assert_eq!(desk.request("INVITE", "z9hG4bKa").0, Incoming::Absorbed);
    assert!(desk.sent().is_empty(), "RFC 6026: only the dialog's side repeats a 2xx");
    assert_eq!(desk.request("ACK", "z9hG4bKa").0, Incoming::New);
    desk.pass(31_999);
    assert!(!desk.empty());
    desk.pass(1);
    assert!(desk.empty(), "timer L: 64 T1");
}

#[test]
fn a_repeated_request_gets_the_same_answer_for_32_seconds() {
    let mut desk = Desk::new();
    let (_, key) = desk.request("BYE", "z9hG4bKa");
    desk.respond(&key, 200);
    let first = desk.sent();
    desk.pass(31_999);
    assert_eq!(desk.request("BYE", "z9hG4bKa").0, Incoming::Absorbed);
    assert_eq!(desk.sent(), first);
    desk.pass(1);
    assert!(desk.empty(), "timer J: 64 T1");
}

#[test]
fn a_second_final_answer_is_not_sent() {
    let mut desk = Desk::new();
    let (_, key) = desk.request("OPTIONS", "z9hG4bKa");
    desk.respond(&key, 200);
    desk.respond(&key, 486);
    assert_eq!(desk.sent().len(), 1);
}

#[test]
fn one_transaction_too_many_is_refused_until_another_is_forgotten() {
    let mut desk = Desk::new();
    for branch in ["z9hG4bKa", "z9hG4bKb", "z9hG4bKc", "z9hG4bKd"] {
        let (incoming, key) = desk.request("OPTIONS", branch);
        assert_eq!(incoming, Incoming::New);
        desk.respond(&key, 200);
    }
    assert_eq!(desk.request("OPTIONS", "z9hG4bKe").0, Incoming::Full);
    assert_eq!(desk.request("OPTIONS", "z9hG4bKa").0, Incoming::Absorbed, "repeats are still answered");
    desk.pass(32_000);
    assert_eq!(desk.request("OPTIONS", "z9hG4bKe").0, Incoming::New);
}
