//! A call of the PBX, every phase against everything that can happen in it.

use super::*;

/// What can happen, in the order of the table's columns.
const HAPPENS: [&str; 15] = [
    "ring",
    "answer",
    "refuse",
    "hang up",
    "CANCEL",
    "BYE",
    "ACK",
    "INVITE",
    "re-INVITE",
    "UPDATE",
    "refresh",
    "INFO",
    "OPTIONS",
    "REFER",
    "PRACK",
];

/// The phase, and for each happening what is sent and what is told.
const TABLE: [(&str, [&str; 15]); 6] = [
    (
        "ringing",
        [
            "",
            "200",
            "486 Ended-Us-486",
            "480 Ended-Us-480",
            "200 487 Ended-Peer-487",
            "200 487 Ended-Peer-487",
            "",
            "180",
            "500",
            "500",
            "200",
            "200 Digit",
            "200",
            "491",
            "481",
        ],
    ),
    (
        "answering",
        [
            "",
            "",
            "Ended-Us",
            "Ended-Us",
            "200",
            "200 Ended-Peer",
            "Answered",
            "",
            "200 Answered Changed",
            "200 Answered Changed",
            "200",
            "200 Digit",
            "200",
            "491",
            "481",
        ],
    ),
    ("leaving", ["", "", "", "", "200", "200", "BYE", "", "491", "491", "200", "200", "200", "491", "481"]),
    (
        "talking",
        [
            "",
            "",
            "BYE Ended-Us-answered",
            "BYE Ended-Us-answered",
            "200",
            "200 Ended-Peer-answered",
            "",
            "",
            "200 Changed",
            "200 Changed",
            "200",
            "200 Digit",
            "200",
            "202 NOTIFY Referred",
            "481",
        ],
    ),
    ("hung up", ["", "", "", "", "200", "200", "", "", "481", "481", "481", "481", "481", "481", "481"]),
    // A refused call is forgotten; its transaction goes on.
    ("refused", ["", "", "", "", "200", "481", "", "486", "481", "481", "481", "481", "481", "481", "481"]),
];

const MOVED: &str = "v=0\r\no=- 5 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=audio 10002 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n";

/// A call in that phase; the last answer of ours that bore our tag.
fn come_to(phase: &str) -> (Lab, LegId, Sent) {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.ring(leg);
    let mut answer = lab.take("180");
    if phase == "refused" {
        lab.ua.refuse(leg, Refusal { code: 486, warning: None, retry_after: None }, lab.now);
        // Time passes, as it does.
        lab.ua.handle_timeout(lab.now);
        lab.drain();
    } else if phase != "ringing" {
        lab.pick_up(leg, super::answer());
        answer = lab.take("200");
        if phase != "answering" && phase != "leaving" {
            lab.ask_in(&answer, "ACK", 7, "", "");
        }
        if phase == "leaving" || phase == "hung up" {
            lab.leave(leg, None, "");
        }
    }
    lab.sent.clear();
    lab.events.clear();
    (lab, leg, answer)
}

fn happen(lab: &mut Lab, leg: LegId, answer: &Sent, what: &str) {
    match what {
        "ring" => lab.ring(leg),
        "answer" => lab.pick_up(leg, super::answer()),
        "refuse" => {
            lab.ua.refuse(leg, Refusal { code: 486, warning: None, retry_after: None }, lab.now);
            lab.drain();
        }
        "hang up" => lab.leave(leg, None, ""),
        "CANCEL" => lab.ask_hop(1, "CANCEL", ""),
        "ACK" => lab.ask_in(answer, "ACK", 7, "", ""),
        "INVITE" => lab.invite(1, CALLEE, "Contact: <sip:200@192.0.2.1:5062>\r\n", THEIRS),
        "re-INVITE" => lab.ask_in(answer, "INVITE", 8, "", MOVED),
        "UPDATE" => lab.ask_in(answer, "UPDATE", 8, "", MOVED),
        "refresh" => lab.ask_in(answer, "UPDATE", 8, "", ""),
        "INFO" => lab.ask_in(answer, "INFO", 8, "Content-Type: application/dtmf\r\n", "5"),
        "REFER" => lab.ask_in(answer, "REFER", 8, "Refer-To: <sip:300@pbx.example>\r\n", ""),
        "PRACK" => lab.ask_in(answer, "PRACK", 8, "RAck: 1 7 INVITE\r\n", ""),
        method => lab.ask_in(answer, method, 8, "", ""),
    }
}

fn told(event: &Event) -> String {
    match event {
        Event::Ended { ending, .. } => {
            let code = ending.code.map_or(String::new(), |code| format!("-{code}"));
            format!("Ended-{:?}{code}{}", ending.by, if ending.answered { "-answered" } else { "" })
        }
        other => format!("{other:?}").split(' ').next().unwrap().to_owned(),
    }
}

#[test]
fn in_every_phase_everything_that_can_happen_has_its_answer() {
    for (phase, expected) in TABLE {
        for (what, expected) in HAPPENS.iter().zip(expected) {
            let (mut lab, leg, answer) = come_to(phase);
            happen(&mut lab, leg, &answer, what);
            let sent = lab.sent.iter().map(|sent| sent.what().to_owned());
            let outcome: Vec<String> = sent.chain(lab.events.iter().map(told)).collect();
            assert_eq!(outcome.join(" "), expected, "{phase}: {what}");
        }
    }
}
