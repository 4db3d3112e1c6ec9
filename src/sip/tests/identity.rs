//! Stories of who calls whom, through whom, and who must not know.

use super::*;

const CONTACT: &str = "Contact: <sip:200@192.0.2.1:5062>\r\n";

fn invited(headers: &str) -> Invite {
    let mut lab = Lab::up();
    lab.invite(1, CALLEE, &format!("{CONTACT}{headers}"), THEIRS);
    lab.take("100");
    match lab.take_events().as_slice() {
        [Event::Invited { invite, .. }] => invite.clone(),
        other => panic!("not one Invited: {other:?}"),
    }
}

#[test]
fn who_diverted_the_call_is_read_from_diversion_and_else_from_history_info() {
    let history = "History-Info: <sip:+49301@pbx?Reason=SIP%3Bcause%3D302>;index=1, \
                   <sip:%2B49302@pbx>;index=1.1\r\nHistory-Info: <sip:+49303@pbx>;index=1.1.1\r\n";
    for (headers, diverted) in [
        ("", None),
        ("Diversion: <sip:+49301@pbx>;reason=no-answer;counter=1\r\n", Some("+49301")),
        ("Diversion: \"Ann\" <tel:+49-30-1>;reason=user-busy, <sip:+49302@pbx>\r\n", Some("+49301")),
        ("Diversion: nonsense\r\nDiversion: <sip:pbx>\r\nDiversion: <sip:7@pbx>\r\n", Some("7")),
        (history, Some("+49302")),
        ("History-Info: <sip:+49301@pbx>;index=1\r\n", None),
        ("History-Info: <sip:+49301@pbx>;index=1\r\nDiversion: <sip:+49309@pbx>\r\n", Some("+49309")),
    ] {
        assert_eq!(invited(headers).diversion.as_deref(), diverted, "{headers}");
    }
    let long = format!("Diversion: <sip:{}%0d%0aEvil@pbx>\r\n", "1".repeat(200));
    assert_eq!(invited(&long).diversion.unwrap().len(), 128);
}

#[test]
fn a_caller_who_wishes_not_to_be_known_is_marked_as_such() {
    let vouched = "P-Asserted-Identity: <sip:+15550100@pbx>\r\n";
    for (headers, anonymous) in [
        ("", false),
        ("Privacy: none\r\n", false),
        ("Privacy: id\r\n", true),
        ("Privacy: header;user;critical\r\n", true),
        ("Privacy: ID\r\n", true),
        ("Privacy: history\r\n", false),
    ] {
        let invite = invited(&format!("{vouched}{headers}"));
        assert_eq!((invite.anonymous, invite.from_user.as_str()), (anonymous, "+15550100"), "{headers}");
    }
    let mut lab = Lab::up();
    let text = format!(
        "INVITE {CALLEE} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bKa\r\n\
         From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1\r\nTo: <{CALLEE}>\r\nCall-ID: a\r\n\
         CSeq: 1 INVITE\r\n{vouched}\r\n"
    );
    lab.receive(&text);
    let [Event::Invited { invite, .. }] = lab.events.as_slice() else { panic!("{:?}", lab.events) };
    assert!(invite.anonymous);
    assert_eq!(invite.from_user, "+15550100", "the PBX knows better than From");
}

#[test]
fn a_private_call_names_its_caller_to_the_pbx_alone() {
    let mut lab = Lab::up();
    lab.ua.dial(LegId(1), Dial { privacy: true, ..dial() }, lab.now).unwrap();
    lab.drain();
    let invite = lab.take("INVITE");
    assert!(invite.header("From").starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag="));
    assert_eq!(invite.header("Privacy"), "id");
    assert!(invite.header("P-Asserted-Identity").contains("<sip:+15550100@pbx.example>"));
    let rest = invite.text.replace(invite.header("P-Asserted-Identity"), "");
    assert!(!rest.contains("15550100"), "{rest}");
    lab.answer(&invite, "200 OK", CONTACT, THEIRS);
    let ack = lab.take("ACK");
    assert_eq!(ack.header("From"), invite.header("From"));
    assert!(!lab.dialled_again().has("Privacy"));
}

impl Lab {
    fn dialled_again(&mut self) -> Sent {
        self.ua.dial(LegId(2), dial(), self.now).unwrap();
        self.drain();
        self.take("INVITE")
    }
}

#[test]
fn what_a_call_takes_the_place_of_and_on_whose_behalf_stands_in_its_invite_alone() {
    let mut lab = Lab::up();
    let replaces = "98732@pbx;to-tag=r33th4x0r;from-tag=ff87ff\r\nEvil: 1";
    let referred_by = Some("<sip:200@pbx.example>\r\nEvil: 2".to_owned());
    let dial = Dial { replaces: Some(replaces.into()), referred_by, ..dial() };
    lab.ua.dial(LegId(1), dial, lab.now).unwrap();
    lab.drain();
    let invite = lab.take("INVITE");
    assert_eq!(invite.header("Replaces"), "98732@pbx;to-tag=r33th4x0r;from-tag=ff87ff  Evil: 1");
    assert_eq!(invite.header("Referred-By"), "<sip:200@pbx.example>  Evil: 2");
    assert!(invite.header("Supported").contains("replaces") && !invite.has("Require"));
    lab.answer(&invite, "486 Busy Here", "", "");
    assert!(!lab.take("ACK").has("Replaces"));
}

#[test]
fn the_end_of_a_call_says_what_the_pbx_said() {
    for (reason, text, cause) in [
        ("", "the PBX hung up", None),
        ("Reason: Q.850;cause=16\r\n", "the PBX hung up: Q.850 cause 16", Some(16)),
        ("Reason: SIP;cause=503\r\n", "the PBX hung up: 503 Service Unavailable", None),
        ("Reason: SIP;cause=200;text=\"elsewhere\", Q.850;cause=26\r\n", "elsewhere", Some(26)),
        ("Reason: q.850 ;Cause=31;text=\"Normal, unspecified\"\r\n", "Normal, unspecified", Some(31)),
        ("Reason: Q.850;cause=0;text=\"\"\r\n", "the PBX hung up", None),
        ("Reason: ;;;\"\r\n", "the PBX hung up", None),
    ] {
        let mut lab = Lab::up();
        let (invite, _) = lab.talking();
        lab.ask(&invite, "BYE", 1, reason, "");
        let ending = lab.ending();
        assert_eq!((ending.text.as_str(), ending.cause), (text, cause), "{reason}");
    }
    for (headers, text, cause) in [
        ("Reason: Q.850;cause=34;text=\"No circuit\"\r\n", "503 Full: No circuit", Some(34)),
        ("Warning: 399 pbx \"out of \\\"lines\\\"\"\r\n", "503 Full: out of \"lines\"", None),
        ("Reason: SIP;cause=503;text=\"Full\"\r\n", "503 Full", None),
        ("Warning: 399\r\n", "503 Full", None),
    ] {
        let mut lab = Lab::up();
        let invite = lab.dialled();
        lab.answer(&invite, "503 Full", headers, "");
        let ending = lab.ending();
        assert_eq!((ending.text.as_str(), ending.cause), (text, cause), "{headers}");
    }
    let mut lab = Lab::up();
    lab.called(1, THEIRS);
    lab.ask_hop(1, "CANCEL", "Reason: SIP;cause=200\r\n");
    assert_eq!(lab.ending().text, "the caller gave up: 200 OK");
}
