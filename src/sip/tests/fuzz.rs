//! Anything at all may arrive from the PBX's address: nothing panics, nothing grows without bound, and
//! a call still ends exactly once.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn small() -> Settings {
    Settings { seed: 3, max_dialogs: 4, ..Settings::default() }
}

/// Transactions allowed with those settings.
const MOST: usize = 4 * 4 + 64;

fn check_bounds(lab: &Lab) {
    let (clients, servers) = lab.ua.core.transactions.sizes();
    assert!(servers <= MOST, "{servers} server transactions");
    assert!(clients <= 4 * 4 * 12, "{clients} client transactions");
    assert!(lab.ua.calls.len() <= 16, "{} calls", lab.ua.calls.len());
}

/// A torture message or a plain one with a few octets changed, cut out or doubled.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let plain: Vec<&'static [u8]> = torture::all().collect();
    (0..plain.len(), vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 0..8)).prop_map(
        move |(which, changes)| {
            let mut bytes = plain[which].to_vec();
            for (at, octet, how) in changes {
                if bytes.is_empty() {
                    break;
                }
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = octet,
                    1 => bytes.insert(at, octet),
                    2 => drop(bytes.drain(at..(at + usize::from(octet)).min(bytes.len()))),
                    _ => {
                        let end = (at + usize::from(octet)).min(bytes.len());
                        let again = bytes[at..end].to_vec();
                        bytes.splice(at..at, again);
                    }
                }
            }
            bytes
        },
    )
}

/// Pieces of SIP in any order: more of these get far into the parser than plain noise does.
fn shuffled() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "INVITE ",
        "SIP/2.0 ",
        "200 OK",
        " SIP/2.0",
        "\r\n",
        "\n",
        "\r",
        "Via: ",
        "SIP/2.0/UDP ",
        "192.0.2.1",
        ";branch=",
        "z9hG4bKx",
        ";rport",
        "=",
        ";",
        ",",
        "From: ",
        "<sip:a@b>",
        "To: ",
        "<",
        ">",
        "\"",
        "\\",
        ";tag=1",
        "Call-ID: ",
        "c",
        "CSeq: ",
        "1 INVITE",
        "1 ",
        "sip:",
        "[::1]",
        ":",
        "@",
        "%",
        "?",
        "Content-Length: ",
        "4",
        "-1",
        " ",
        "\t",
        "v=0\r\n",
        "m=audio 1 RTP/AVP 0\r\n",
        "Contact: ",
        "Record-Route: ",
        "WWW-Authenticate: Digest ",
        "realm=\"r\"",
        "nonce=\"n\"",
        "é",
        "\u{0}",
        "Reason: Q.850;cause=16",
        "tel:+1",
        "Refer-To: <sip:1@x?Replaces=%61>\r\n",
        "Replaces: a;to-tag=1;from-tag=2\r\n",
        "Diversion: ",
        "Session-Expires: 9",
        "RAck: 1 1 INVITE\r\n",
    ];
    vec(prop::sample::select(pieces.to_vec()), 0..60).prop_map(|pieces| pieces.concat().into_bytes())
}

/// An answer or a request that belongs to the call, with anything in place of its details.
fn plausible() -> impl Strategy<Value = (u16, String, Vec<u8>)> {
    (90u16..720, "[ -~]{0,40}", vec(any::<u8>(), 0..80))
}

/// What may happen to a call of the PBX, in any order.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Ring,
    Answer,
    Refuse(u16),
    HangUp(Option<u16>),
    /// A request in the dialog: method, number, whether a description comes with it.
    Asks(&'static str, u32, bool),
    /// INVITE, CANCEL, ACK with the INVITE's own branch.
    Hop(&'static str),
    /// Milliseconds.
    Wait(u64),
}

fn turn() -> impl Strategy<Value = Turn> {
    let methods = prop::sample::select(vec![
        "ACK", "BYE", "INVITE", "UPDATE", "INFO", "OPTIONS", "NOTIFY", "PRACK", "REFER",
    ]);
    prop_oneof![
        1 => Just(Turn::Ring),
        2 => Just(Turn::Answer),
        1 => (0u16..800).prop_map(Turn::Refuse),
        1 => proptest::option::of(0u16..800).prop_map(Turn::HangUp),
        6 => (methods, 6u32..11, any::<bool>()).prop_map(|(method, cseq, sdp)| Turn::Asks(method, cseq, sdp)),
        2 => prop::sample::select(vec!["INVITE", "CANCEL", "ACK"]).prop_map(Turn::Hop),
        3 => (0u64..12_000).prop_map(Turn::Wait),
    ]
}

impl Lab {
    /// §15: no BYE of ours goes out before the ACK, unless our 200 went unacknowledged for 32 seconds.
    fn check_byes(&self, acknowledged: Option<u64>) {
        let first = |what: &str| self.sent.iter().find(|sent| sent.what() == what).map(|sent| sent.at);
        let Some(bye) = first("BYE") else { return };
        let answered = self.sent.iter().find(|sent| sent.what() == "200" && sent.has("CSeq: 7 INVITE"));
        let answered = answered.expect("a BYE without a 200").at;
        assert!(acknowledged.is_some_and(|at| at <= bye) || answered + 32_000 <= bye, "{:#?}", self.sent);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn noise_does_no_harm(datagrams in vec(vec(any::<u8>(), 0..600), 0..40)) {
        let mut lab = Lab::up_with(small());
        for datagram in &datagrams {
            lab.receive_from(datagram, PBX);
        }
        check_bounds(&lab);
        prop_assert_eq!(lab.ua.counters().received, datagrams.len() as u64 + 1);
    }

    #[test]
    fn broken_messages_do_no_harm(datagrams in vec(prop_oneof![mutated(), shuffled()], 0..120)) {
        let mut lab = Lab::up_with(small());
        lab.alive = true;
        lab.dialled();
        for datagram in &datagrams {
            lab.ua.receive(datagram, udp(PBX), lab.now);
            while let Some(output) = lab.ua.poll() {
                if let Output::Event(event) = output {
                    lab.events.push(event);
                }
            }
        }
        check_bounds(&lab);
        lab.pass(Duration::from_secs(400));
        let count = |wanted: fn(&Event) -> bool| lab.events.iter().filter(|event| wanted(event)).count();
        let begun = 1 + count(|event| matches!(event, Event::Invited { .. }));
        prop_assert_eq!(count(|event| matches!(event, Event::Ended { .. })), begun);
        prop_assert!(lab.ua.calls.is_empty(), "forgotten in the end");
        prop_assert!(lab.ua.core.transactions.sizes().1 == 0);
    }

    #[test]
    fn a_call_ends_exactly_once_whatever_the_pbx_answers(
        answers in vec(plausible(), 0..30),
        hang_up_after in 0usize..40,
        wait in 0u64..2_000,
    ) {
        let mut lab = Lab::up_with(small());
        lab.alive = true;
        let invite = lab.dialled();
        for (step, (code, header, body)) in answers.iter().enumerate() {
            if step == hang_up_after {
                lab.ua.hang_up(LegId(1), Cause::default(), lab.now);
                lab.drain();
            }
            let latest = lab.sent.iter().rev().find(|sent| sent.what() == "INVITE").cloned().unwrap_or(invite.clone());
            let to = format!("{};tag=t{}", invite.header("To"), code % 5);
            let body: String = body.iter().map(|octet| char::from(octet & 0x7f)).collect();
            let headers = format!(
                "Contact: <sip:{}@x>, {header}\r\nWWW-Authenticate: Digest {header}\r\nRSeq: {}\r\n\
                 Require: 100rel\r\nMin-SE: {}\r\nSession-Expires: {};refresher=uac\r\nReason: {header}\r\n\
                 Warning: {header}\r\n",
                code % 9,
                code % 4,
                code % 500,
                u32::from(*code) * 7 % 400,
            );
            lab.answer_as(&latest, &format!("{code} x"), &to, &headers, &body);
            lab.ask(&invite, ["BYE", "UPDATE", "INVITE", "INFO", "ACK", "REFER", "PRACK"][usize::from(code % 7)], u32::from(*code), "", &body);
            lab.pass(millis(wait));
            check_bounds(&lab);
        }
        lab.ua.hang_up(LegId(1), Cause::default(), lab.now);
        lab.drain();
        lab.pass(Duration::from_secs(300));
        let endings = lab.events.iter().filter(|event| matches!(event, Event::Ended { .. })).count();
        prop_assert_eq!(endings, 1);
        prop_assert!(lab.ua.calls.is_empty());
    }

    #[test]
    fn a_call_of_the_pbx_ends_exactly_once_whatever_either_side_does(
        offers in any::<bool>(),
        turns in vec(turn(), 0..40),
    ) {
        let mut lab = Lab::up_with(small());
        lab.alive = true;
        let body = if offers { THEIRS } else { "" };
        let leg = lab.called(1, body);
        let mut acknowledged = None;
        // To with our tag: known from the 180 or the 200, and guessed at before.
        let mut to = format!("<{CALLEE}>");
        for turn in &turns {
            match *turn {
                Turn::Ring => lab.ring(leg),
                Turn::Answer => lab.pick_up(leg, if offers { answer() } else { offer() }),
                Turn::Refuse(code) => {
                    lab.ua.refuse(leg, Refusal { code, warning: None, retry_after: Some(1) }, lab.now);
                    lab.drain();
                }
                Turn::HangUp(code) => lab.leave(leg, code, "enough"),
                Turn::Asks(method, cseq, sdp) => {
                    let told = lab.sent.iter().find(|sent| ["180", "200"].contains(&sent.what()) && sent.has("INVITE"));
                    if let Some(told) = told {
                        to = told.header("To").to_owned();
                    }
                    if to.contains(";tag=") && (method == "ACK" || cseq > 7 && ["INVITE", "UPDATE"].contains(&method)) {
                        acknowledged.get_or_insert(lab.now.tick.as_millis() - 1_000_000);
                    }
                    let dialog = Sent {
                        at: 0,
                        to: udp(PBX),
                        text: format!("\r\nFrom: \"Bob\" <sip:200@pbx.example>;tag=pbx1\r\nTo: {to}\r\nCall-ID: in1@pbx\r\n"),
                    };
                    let headers = match method {
                        "REFER" => "Refer-To: <sip:300@pbx.example?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\n",
                        "PRACK" => "RAck: 1 7 INVITE\r\n",
                        "UPDATE" if !sdp => "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n",
                        "INVITE" if !sdp => "Session-Expires: 90;refresher=uac\r\n",
                        _ => "",
                    };
                    lab.ask_in(&dialog, method, cseq, headers, if sdp { THEIRS } else { "" });
                }
                Turn::Hop("INVITE") => lab.invite(1, CALLEE, "Contact: <sip:200@192.0.2.1:5062>\r\n", body),
                Turn::Hop(method) => lab.ask_hop(1, method, ""),
                Turn::Wait(wait) => lab.pass(millis(wait)),
            }
            lab.check_byes(acknowledged);
            check_bounds(&lab);
        }
        lab.pass(Duration::from_secs(340));
        lab.leave(leg, None, "");
        lab.pass(Duration::from_secs(100));
        lab.check_byes(acknowledged);
        for leg in lab.events.iter().filter_map(|event| match event {
            Event::Invited { leg, .. } => Some(*leg),
            _ => None,
        }).chain([leg]) {
            let mine: Vec<&Event> = lab.events.iter().filter(|event| match event {
                Event::Answered { leg: of, .. } | Event::Changed { leg: of, .. } | Event::Ended { leg: of, .. } => *of == leg,
                _ => false,
            }).collect();
            let answered = mine.iter().filter(|event| matches!(event, Event::Answered { .. })).count();
            prop_assert!(answered <= 1, "{:?}", mine);
            match mine.iter().filter(|event| matches!(event, Event::Ended { .. })).count() {
                1 => match mine.last() {
                    Some(Event::Ended { ending, .. }) => prop_assert_eq!(ending.answered, answered == 1),
                    other => prop_assert!(false, "told after the end: {:?}", other),
                },
                ended => prop_assert!(false, "{} endings: {:?}", ended, mine),
            }
        }
        prop_assert!(lab.ua.calls.is_empty());
        let (clients, servers) = lab.ua.core.transactions.sizes();
        prop_assert!(clients <= 1 && servers == 0, "nothing but the asking by OPTIONS is left");
    }

    #[test]
    fn descriptions_of_any_kind_do_no_harm(bytes in vec(any::<u8>(), 0..400), text in "([vocmas]=[ -~]{0,30}\r\n){0,12}") {
        let _ = sdp::agreed(&offer(), &bytes);
        let _ = sdp::agreed(&offer(), text.as_bytes());
        let _ = sdp::reply(&offer(), text.as_bytes(), 2);
    }
}
