//! What is said about sound over a call's life: our offer is kept, each answer is made from it.

use super::*;

const LEG: LegId = LegId(1 << 63 | 1);

fn theirs(formats: &str, version: u32) -> String {
    THEIRS.replace("- 5 1 ", &format!("- 5 {version} ")).replace("RTP/AVP 8 101", formats)
}

fn agreed(lab: &Lab, theirs: &str) -> sdp::RemoteMedia {
    sdp::agreed(lab.ua.described(LEG).unwrap(), theirs.as_bytes()).unwrap()
}

#[test]
fn a_call_answered_with_our_offer_can_change_to_another_codec_later() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    assert_eq!(lab.ua.described(leg), None);
    lab.pick_up(leg, offer());
    let ok = lab.take("200");
    assert_eq!(ok.body(), answer(), "not the offer itself: an answer");
    lab.ask_in(&ok, "ACK", 7, "", "");
    assert_eq!(lab.take_events(), [Event::Answered { leg, ours: answer(), theirs: THEIRS.into() }]);
    assert_eq!(agreed(&lab, THEIRS).codec, sdp::Codec::Pcma);
    let moved = theirs("RTP/AVP 0 101", 2);
    lab.ask_in(&ok, "INVITE", 8, "", &moved);
    let now = lab.take("200");
    assert!(now.body().contains("m=audio 20000 RTP/AVP 0 101\r\n"));
    assert_eq!(
        lab.take_events(),
        [Event::Changed { leg, ours: now.body().into(), theirs: moved.clone().into() }]
    );
    assert_eq!(agreed(&lab, &moved).codec, sdp::Codec::Pcmu);
}

#[test]
fn an_offer_that_cannot_be_answered_is_refused_and_says_why() {
    let mut lab = Lab::up();
    let leg = lab.called(1, &theirs("RTP/SAVP 8 101", 1));
    lab.pick_up(leg, offer());
    assert!(lab.take("488").header("Warning").contains("srtp is \\\"off\\\" for this trunk"));
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Us, Some(488), false));
    assert_eq!(lab.ua.described(leg), None);
}

#[test]
fn a_codec_that_changes_under_the_same_words_of_the_pbx_is_told() {
    let mut lab = Lab::up();
    let leg = lab.called(1, "");
    lab.pick_up(leg, offer());
    let ok = lab.take("200");
    let both = theirs("RTP/AVP 0 8 101", 1);
    lab.ask_in(&ok, "ACK", 7, "", &both);
    assert_eq!(lab.take_events(), [Event::Answered { leg, ours: offer(), theirs: both.clone().into() }]);
    assert_eq!(agreed(&lab, &both).codec, sdp::Codec::Pcmu, "the PBX's choice");
    lab.ask_in(&ok, "UPDATE", 8, "", &both);
    let now = lab.take("200");
    assert!(now.body().contains("m=audio 20000 RTP/AVP 8 101\r\n"));
    assert_eq!(
        lab.take_events(),
        [Event::Changed { leg, ours: now.body().into(), theirs: both.clone().into() }]
    );
    assert_eq!(agreed(&lab, &both).codec, sdp::Codec::Pcma, "ours");
    lab.ask_in(&ok, "UPDATE", 9, "", &both);
    lab.take("200");
    lab.no_event();
}
