//! The torture messages of RFC 4475: good ones are accepted and read right, bad ones refused with the
//! right status or dropped, and none does harm.
//!
//! The messages are those of the RFC, but for `mpart01`, whose binary signature is any 600 octets.

use super::super::wire::{Read, Request, Response, read};
use super::*;

macro_rules! message {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../torture/", $name, ".sip")) as &[u8])
    };
}

/// A message, and the status it is answered with; `None`: not answered.
type Case = ((&'static str, &'static [u8]), Option<u16>);

/// §3.1.1: valid. What is not 200 here is refused for what it asks, not for how it is written: `wsinv`
/// claims to belong to a dialog, for instance.
const VALID: &[Case] = &[
    (message!("wsinv"), Some(481)),
    (message!("intmeth"), Some(501)),
    (message!("esc01"), Some(403)),
    (message!("escnull"), Some(405)),
    (message!("esc02"), Some(501)),
    (message!("lwsdisp"), Some(200)),
    (message!("longreq"), Some(403)),
    (message!("dblreq"), Some(405)),
    (message!("semiuri"), Some(200)),
    (message!("transports"), Some(200)),
    (message!("mpart01"), Some(405)),
    (message!("unreason"), None),
    (message!("noreason"), None),
];

/// §3.1.2: invalid. `baddate` and `baddn` may be understood by a generous reader, and a REGISTER is
/// refused whatever its Contact says.
const INVALID: &[Case] = &[
    (message!("badinv01"), Some(400)),
    (message!("clerr"), Some(400)),
    (message!("ncl"), Some(400)),
    (message!("scalar02"), Some(400)),
    (message!("scalarlg"), None),
    (message!("quotbal"), Some(400)),
    (message!("ltgtruri"), Some(400)),
    (message!("lwsruri"), Some(400)),
    (message!("lwsstart"), Some(400)),
    (message!("trws"), Some(400)),
    (message!("escruri"), Some(400)),
    (message!("baddate"), Some(403)),
    (message!("regbadct"), Some(405)),
    (message!("badaspec"), Some(400)),
    (message!("baddn"), Some(200)),
    (message!("badvers"), Some(505)),
    (message!("mismatch01"), Some(400)),
    (message!("mismatch02"), Some(400)),
    (message!("bigcode"), None),
];

/// §3.2 to §3.4: well-formed, but with something in them that decides about the answer.
const SEMANTIC: &[Case] = &[
    (message!("badbranch"), Some(200)),
    (message!("insuf"), Some(400)),
    (message!("unkscm"), Some(416)),
    (message!("novelsc"), Some(416)),
    (message!("unksm2"), Some(405)),
    (message!("bext01"), Some(420)),
    (message!("invut"), Some(415)),
    (message!("regaut01"), Some(405)),
    (message!("multi01"), Some(400)),
    (message!("mcl01"), Some(400)),
    (message!("bcast"), None),
    (message!("zeromf"), Some(200)),
    (message!("cparam01"), Some(405)),
    (message!("cparam02"), Some(405)),
    (message!("regescrt"), Some(405)),
    (message!("sdp01"), Some(406)),
    (message!("inv2543"), Some(403)),
];

pub(super) fn all() -> impl Iterator<Item = &'static [u8]> {
    [VALID, INVALID, SEMANTIC].into_iter().flatten().map(|((_, bytes), _)| *bytes)
}

fn message(name: &str) -> &'static [u8] {
    [VALID, INVALID, SEMANTIC]
        .into_iter()
        .flatten()
        .find(|((known, _), _)| *known == name)
        .map(|((_, bytes), _)| *bytes)
        .unwrap()
}

fn request(name: &str) -> Request {
    match read(message(name)) {
        Read::Request(request) => *request,
        other => panic!("{name}: {other:?}"),
    }
}

fn response(name: &str) -> Response {
    match read(message(name)) {
        Read::Response(response) => *response,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn every_torture_message_gets_the_answer_the_rfc_asks_for() {
    for ((name, bytes), status) in [VALID, INVALID, SEMANTIC].into_iter().flatten() {
        let mut lab = Lab::up();
        lab.receive_from(bytes, PBX);
        lab.refuse_all(403);
        lab.sent.retain(|sent| sent.what() != "100");
        let answers: Vec<&str> = lab.sent.iter().map(Sent::what).collect();
        let expected: Vec<String> = status.iter().map(u16::to_string).collect();
        assert_eq!(answers, expected, "{name}");
        lab.no_event();
        for answer in &lab.sent {
            assert!(answer.text.ends_with("Content-Length: 0\r\n\r\n"), "{name}: {}", answer.text);
        }
    }
}

#[test]
fn what_is_dropped_is_counted_for_what_it_is() {
    let mut lab = Lab::up();
    for name in ["unreason", "noreason", "bcast"] {
        lab.receive_from(message(name), PBX);
    }
    let counters = lab.ua.counters();
    assert_eq!((counters.stray_responses, counters.malformed), (3, 0), "good answers that nobody waits for");
    for name in ["scalarlg", "bigcode"] {
        lab.receive_from(message(name), PBX);
    }
    assert_eq!(lab.ua.counters().malformed, 2);
}

#[test]
fn tortuous_white_space_is_seen_through() {
    let wsinv = request("wsinv");
    assert_eq!((wsinv.method.as_str(), wsinv.cseq), ("INVITE", 9));
    assert_eq!(wsinv.uri.params, [("unknownparam".into(), None)]);
    assert_eq!(
        (wsinv.to.uri_text.as_str(), wsinv.to.tag()),
        ("sip:vivekg@chair-dnrc.example.com", Some("1918181833n"))
    );
    assert_eq!(
        (wsinv.from.display.as_deref(), wsinv.from.tag()),
        (Some("J Rosenberg \\\""), Some("98asjd8"))
    );
    assert_eq!(wsinv.headers.get("max-forwards"), Some("0068"));
    assert_eq!(wsinv.headers.get("NewFangledHeader"), Some("newfangled value continued newfangled value"));
    assert_eq!(wsinv.headers.get("Subject"), Some(""));
    assert_eq!(wsinv.headers.all("Via").count(), 3);
    assert_eq!((wsinv.via.transport.as_str(), wsinv.via.host.as_str()), ("UDP", "192.0.2.2"));
    assert_eq!(wsinv.via.branch.as_deref(), Some("390skdjuw"));
    let second = super::super::header::Via::read(wsinv.headers.all("Via").nth(1).unwrap()).unwrap();
    assert_eq!((second.transport.as_str(), second.branch.as_deref()), ("TCP", Some("z9hG4bK9ikj8")));
    let contact = super::super::header::NameAddr::read(wsinv.headers.get("Contact").unwrap()).unwrap();
    assert_eq!(contact.display.as_deref(), Some("Quoted string \"\""));
    assert_eq!((contact.param("newparam"), contact.param("q")), (Some("newvalue"), Some("0.33")));
    assert_eq!(wsinv.body.len(), 150);
}

#[test]
fn every_character_that_is_allowed_is_allowed() {
    let intmeth = request("intmeth");
    assert_eq!(intmeth.method, "!interesting-Method0123456789_*+`.%indeed'~");
    assert_eq!(intmeth.uri.host, "example.com");
    let user = "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)";
    assert_eq!(intmeth.uri.user.as_deref(), Some(user));
    assert_eq!(intmeth.to.display.as_deref(), Some("BEL:\u{7} NUL:\0 DEL:\u{7f}"));
    assert_eq!(intmeth.from.display.as_deref(), Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(intmeth.from.tag(), Some("_token~1'+`*%!-."));
    assert_eq!(intmeth.from.param("fromparam''~+*_!.-%"), Some("работающий"));
    assert_eq!(intmeth.call_id, "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{");
    assert_eq!(intmeth.via.branch.as_deref(), Some("z9hG4bK-.!%66*_+`'~"));
    assert_eq!(intmeth.headers.get("extensionHeader-!.%*+_`'~"), Some("\u{feff}大停電"));
}

#[test]
fn escapes_are_left_as_they_are() {
    let esc01 = request("esc01");
    assert_eq!(
        (esc01.uri.scheme.as_str(), esc01.uri.user.as_deref()),
        ("sip", Some("sips%3Auser%40example.com"))
    );
    assert_eq!(esc01.uri.host, "example.net");
    let contact = super::super::header::NameAddr::read(esc01.headers.get("Contact").unwrap()).unwrap();
    assert!(!contact.uri.is_loose(), "an escaped lr is no lr until it is unescaped");
    assert_eq!(request("escnull").to.uri.user.as_deref(), Some("null-%00-null"));
    assert_eq!(request("escnull").headers.all("Contact").count(), 2);
    let esc02 = request("esc02");
    assert_eq!((esc02.method.as_str(), esc02.to.display.as_deref()), ("RE%47IST%45R", Some("%Z%45")));
    assert_eq!(esc02.headers.all("Contact").count(), 2, "an escaped header name is another header");
}

#[test]
fn a_display_name_may_touch_its_bracket() {
    let lwsdisp = request("lwsdisp");
    assert_eq!((lwsdisp.from.display.as_deref(), lwsdisp.from.tag()), (Some("caller"), Some("323")));
}

#[test]
fn long_values_are_read_to_their_end() {
    let longreq = request("longreq");
    assert_eq!(longreq.headers.all("Via").count(), 34);
    assert_eq!(longreq.call_id, format!("longreq.one{}longcallid", "really".repeat(20)));
    assert_eq!(longreq.from.tag(), Some(format!("12{}424", "982".repeat(50)).as_str()));
    assert_eq!(longreq.to.uri.port, Some(6000));
    assert_eq!(longreq.body.len(), 150);
}

#[test]
fn what_follows_the_body_is_not_read() {
    let dblreq = request("dblreq");
    assert_eq!((dblreq.method.as_str(), dblreq.body.len()), ("REGISTER", 0));
}

#[test]
fn semicolons_in_the_user_part_stay_there() {
    let semiuri = request("semiuri");
    assert_eq!(semiuri.uri.user.as_deref(), Some("user;par=u%40example.net"));
    assert!(semiuri.uri.params.is_empty());
    assert_eq!(semiuri.headers.list("Accept").count(), 6);
}

#[test]
fn any_transport_may_stand_in_a_via() {
    let transports = request("transports");
    let names: Vec<String> = transports
        .headers
        .all("Via")
        .map(|via| super::super::header::Via::read(via).unwrap().transport)
        .collect();
    assert_eq!(names, ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]);
}

#[test]
fn a_binary_body_arrives_octet_by_octet() {
    let mpart01 = request("mpart01");
    assert_eq!(mpart01.content_type().as_deref(), Some("multipart/mixed"));
    assert!(message("mpart01").ends_with(&mpart01.body));
    assert_eq!(mpart01.body.len(), 883);
}

#[test]
fn reasons_may_be_anything_or_nothing() {
    let unreason = response("unreason");
    assert_eq!(unreason.reason, "= 2**3 * 5**2 но сто девяносто девять - простое");
    assert_eq!(unreason.sdp().unwrap().len(), 154);
    assert_eq!((response("noreason").code, response("noreason").reason.as_str()), (100, ""));
    assert_eq!(response("noreason").text(), "100 Trying");
}

#[test]
fn a_caller_from_before_rfc_3261_is_answered_and_acknowledges() {
    let mut lab = Lab::up();
    lab.receive_from(message("inv2543"), PBX);
    lab.take("100");
    lab.refuse_all(403);
    let refusal = lab.take("403");
    assert_eq!(refusal.to, udp(PBX), "no port in its Via: 5060");
    lab.receive_from(message("inv2543"), PBX);
    assert_eq!(lab.take("403").text, refusal.text, "a repeat is recognised without a branch");
    let ack = String::from_utf8_lossy(message("inv2543")).replace("INVITE", "ACK");
    lab.receive(&ack);
    lab.pass(Duration::from_secs(10));
    assert!(lab.sent.is_empty());
}
