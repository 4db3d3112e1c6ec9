//! Session descriptions of a PBX: to our offer, and as an offer of its own. What we answer can be read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watrunk::sip::sdp::{self, Codec, LocalMedia, SrtpPolicy};

fn ours(srtp: SrtpPolicy) -> String {
    sdp::offer(&LocalMedia {
        rtp: ([192, 0, 2, 7], 20_000).into(),
        session: 42,
        version: 1,
        codecs: Codec::ALL.to_vec(),
        dtmf: true,
        srtp,
        secret: [7; 32],
    })
}

fuzz_target!(|data: &[u8]| {
    for policy in [SrtpPolicy::Off, SrtpPolicy::Optional, SrtpPolicy::Required] {
        let ours = ours(policy);
        if let Ok(media) = sdp::agreed(&ours, data) {
            assert!(policy != SrtpPolicy::Off || media.keys.is_none(), "keys without being asked");
            assert!(
                policy != SrtpPolicy::Required || media.keys.is_some(),
                "no keys where they are required"
            );
        }
        let Ok(answer) = sdp::reply(&ours, data, 2) else { continue };
        let media = sdp::agreed(&answer, data).expect("our answer and its offer agree");
        assert!(policy != SrtpPolicy::Required || media.keys.is_some(), "no keys where they are required");
        assert!(media.pt < 128, "no payload type: {}", media.pt);
    }
});
