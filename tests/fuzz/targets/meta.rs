//! Descriptions of Meta's, offers and answers, and of our WebRTC stack: what is written of one can be read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watrunk::whatsapp::sdp::{Answer, Kind, Offer, Place, Setup, answer, offer};

/// What our WebRTC stack says, as far as we read it.
const STACK: &str = include_str!("../corpus/meta/stack");

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let places = [
        Place { ip: [192, 0, 2, 7].into(), port: 40_000, kind: Kind::Host },
        Place {
            ip: [198, 51, 100, 7].into(),
            port: 40_000,
            kind: Kind::ServerReflexive { related: ([192, 0, 2, 7], 40_000).into() },
        },
    ];
    let ours = offer(STACK, &places, Setup::ActPass).expect("our stack's offer is fine");
    if let Ok(theirs) = Offer::parse(&text) {
        let read = Offer::parse(&theirs.for_stack()).expect("what the stack gets is an offer");
        assert_eq!((read.opus_pt, &read.ufrag, &read.pwd), (theirs.opus_pt, &theirs.ufrag, &theirs.pwd));
        assert_eq!(read.candidates.len(), theirs.candidates.len());
        if let Ok(answer) = answer(STACK, &theirs, &places) {
            Answer::parse(&answer).expect("Meta can read our answer");
        }
    }
    if let Ok(theirs) = Answer::parse(&text) {
        Answer::parse(&theirs.for_stack(&ours)).expect("what the stack gets is an answer");
    }
    if let Ok(ours) = offer(&text, &places, Setup::ActPass) {
        Offer::parse(&ours).expect("Meta can read our offer");
    }
});
