//! What is said about sound over a call's life: our offer is kept, each answer is made from it.

use super::*;

fn theirs(formats: &str, version: u32) -> String {
    THEIRS.replace("- 5 1 ", &format!("- 5 {version} ")).replace("RTP/AVP 8 101", formats)
}

/// What the one event that came says is agreed: the call stands, or has changed, on this of the PBX's.
fn agreed(lab: &mut Lab, leg: LegId, wanted: &str, stands: bool) -> sdp::RemoteMedia {
    let mut events = lab.take_events();
    assert_eq!(events.len(), 1, "{events:?}");
    let (told, ours, theirs) = match events.remove(0) {
        Event::Answered { leg, ours, theirs } if stands => (leg, ours, theirs),
        Event::Changed { leg, ours, theirs } if !stands => (leg, ours, theirs),
        other => panic!("{other:?}"),
    };
    assert_eq!((told, theirs.as_slice()), (leg, wanted.as_bytes()));
    sdp::agreed(&ours, &theirs).unwrap()
}

#[test]
fn a_call_answered_with_our_offer_can_change_to_another_codec_later() {
    let mut lab = Lab::up();
    let leg = lab.called(1, THEIRS);
    lab.pick_up(leg, offer());
    let ok = lab.take("200");
    assert_eq!(ok.body(), answer(), "not the offer itself: an answer");
    lab.ask_in(&ok, "ACK", 7, "", "");
    assert_eq!(agreed(&mut lab, leg, THEIRS, true).codec, sdp::Codec::Pcma);
    let moved = theirs("RTP/AVP 0 101", 2);
    lab.ask_in(&ok, "INVITE", 8, "", &moved);
    assert!(lab.take("200").body().contains("m=audio 20000 RTP/AVP 0 101\r\n"));
    assert_eq!(agreed(&mut lab, leg, &moved, false).codec, sdp::Codec::Pcmu);
}

#[test]
fn an_offer_that_cannot_be_answered_is_refused_and_says_why() {
    let mut lab = Lab::up();
    let leg = lab.called(1, &theirs("RTP/SAVP 8 101", 1));
    lab.pick_up(leg, offer());
    assert!(lab.take("488").header("Warning").contains("srtp is \\\"off\\\" for this trunk"));
    let ending = lab.ending();
    assert_eq!((ending.by, ending.code, ending.answered), (EndedBy::Us, Some(488), false));
}

#[test]
fn a_codec_that_changes_under_the_same_words_of_the_pbx_is_told() {
    let mut lab = Lab::up();
    let leg = lab.called(1, "");
    lab.pick_up(leg, offer());
    let ok = lab.take("200");
    let both = theirs("RTP/AVP 0 8 101", 1);
    lab.ask_in(&ok, "ACK", 7, "", &both);
    assert_eq!(agreed(&mut lab, leg, &both, true).codec, sdp::Codec::Pcmu, "the PBX's choice");
    lab.ask_in(&ok, "UPDATE", 8, "", &both);
    assert!(lab.take("200").body().contains("m=audio 20000 RTP/AVP 8 101\r\n"));
    assert_eq!(agreed(&mut lab, leg, &both, false).codec, sdp::Codec::Pcma, "ours");
    lab.ask_in(&ok, "UPDATE", 9, "", &both);
    lab.take("200");
    lab.no_event();
}
