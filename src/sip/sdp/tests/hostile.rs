//! Descriptions that nobody means, and laws that hold for all.

use proptest::prelude::*;

use super::*;

const KEY: &str = "inline:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB";

fn any_local() -> impl Strategy<Value = LocalMedia> {
    let codecs = prop::collection::vec(prop::sample::select(Codec::ALL.to_vec()), 1..6);
    let srtp = prop::sample::select(vec![SrtpPolicy::Off, SrtpPolicy::Optional, SrtpPolicy::Required]);
    let rtp = (any::<std::net::IpAddr>(), 1024_u16..).prop_filter("a place", |(ip, _)| !ip.is_unspecified());
    (rtp, codecs, any::<bool>(), srtp, any::<[u8; 32]>(), any::<u64>()).prop_map(
        |((ip, port), codecs, dtmf, srtp, secret, session)| LocalMedia {
            rtp: SocketAddr::new(ip, port),
            session,
            version: 1,
            codecs,
            dtmf,
            srtp,
            secret,
        },
    )
}

/// Lines that telephones send, in any order, some of them cut.
fn any_lines() -> impl Strategy<Value = String> {
    let known = [
        "c=IN IP4 192.0.2.1",
        "c=IN IP6 ::",
        "m=audio 4000 RTP/AVP 0 8 9 13 96 97 101",
        "m=audio 4002/2 RTP/SAVP 8 96 101",
        "m=audio 0 RTP/AVP 0",
        "m=audio 4004 RTP/SAVPF 111",
        "m=video 4006 UDP/TLS/RTP/SAVPF 96",
        "a=rtpmap:96 opus/48000/2",
        "a=rtpmap:97 telephone-event/48000",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtpmap:0 CN/8000",
        "a=fmtp:96 useinbandfec=1;stereo=1",
        "a=rtcp-mux",
        "a=rtcp:65535 IN IP4 198.51.100.1",
        "a=ptime:4294967296",
        "a=sendonly",
        "a=inactive",
        "a=fingerprint:sha-256 00:11",
    ];
    let keys = [
        format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 {KEY}"),
        format!("a=crypto:3 AES_CM_128_HMAC_SHA1_80 {KEY}|2^31"),
        format!("a=crypto:4 AES_CM_128_HMAC_SHA1_32 {KEY}|2^31|1:1"),
        format!("a=crypto:999999999 AES_CM_128_HMAC_SHA1_32 {KEY} WSH=64"),
    ];
    let known: Vec<String> = known.into_iter().map(str::to_owned).chain(keys).collect();
    let line = prop_oneof![
        8 => prop::sample::select(known.clone()),
        1 => (prop::sample::select(known), 0_usize..60, "\\PC{0,6}")
            .prop_map(|(line, cut, tail)| line.chars().take(cut).chain(tail.chars()).collect()),
    ];
    prop::collection::vec(line, 0..24).prop_map(|lines| {
        let common = ["c=IN IP4 192.0.2.9", "m=audio 5000 RTP/AVP 8 0 9"].map(str::to_owned);
        common.iter().chain(&lines).map(|line| format!("{line}\r\n")).collect()
    })
}

/// What the answering side sends is what the offering side hears.
fn mirrored(keys: Option<Keys>) -> Option<Keys> {
    keys.map(|Keys { suite, ours, theirs }| Keys { suite, ours: theirs, theirs: ours })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(local in any_local(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let ours = offer(&local);
        let _ = reply(&ours, &bytes, 2);
        let _ = agreed(&ours, &bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = (reply(&text, &bytes, 2), agreed(&text, &bytes), offer_again(&text, 2), version_of(&text));
    }

    #[test]
    fn whatever_we_answer_can_be_read_and_means_the_same_to_us(local in any_local(), theirs in any_lines()) {
        let ours = offer(&local);
        let _ = agreed(&ours, theirs.as_bytes());
        if let Ok(answer) = reply(&ours, theirs.as_bytes(), 2) {
            let media = agreed(&answer, theirs.as_bytes());
            prop_assert!(media.is_ok(), "{:?}\n{}\n{}", media, theirs, answer);
            let media = media.unwrap();
            prop_assert_eq!(media.pt, media.heard_pt);
            prop_assert_eq!(media.keys.is_some(), answer.contains("a=crypto:"));
            prop_assert!(local.srtp != SrtpPolicy::Required || media.keys.is_some(), "in the clear: {}", answer);
            prop_assert!(local.srtp != SrtpPolicy::Off || media.keys.is_none());
            prop_assert_eq!(answer.matches("m=").count(), theirs.matches("\nm=").count());
            prop_assert!(answer.lines().all(|line| line.get(1..2) == Some("=")), "{}", answer);
            // From an answer of ours comes that answer again.
            prop_assert_eq!(reply(&answer, theirs.as_bytes(), 2), Ok(answer.clone()));
            prop_assert!(offer_again(&answer, 3).is_ok());
        }
    }

    #[test]
    fn two_of_us_agree_unless_they_can_not(here in any_local(), there in any_local()) {
        let offered = offer(&here);
        let common = here.codecs.iter().any(|codec| there.codecs.contains(codec));
        let secure = !matches!(
            (here.srtp, there.srtp),
            (SrtpPolicy::Required, SrtpPolicy::Off) | (SrtpPolicy::Off | SrtpPolicy::Optional, SrtpPolicy::Required)
        );
        let answer = reply(&offer(&there), offered.as_bytes(), 1);
        prop_assert_eq!(answerable(&there.codecs, there.srtp, offered.as_bytes()).is_ok(), answer.is_ok());
        prop_assert_eq!(answer.is_ok(), common && secure, "{:?}", answer);
        if let Ok(answer) = answer {
            let left = agreed(&offered, answer.as_bytes()).unwrap();
            let right = agreed(&answer, offered.as_bytes()).unwrap();
            prop_assert_eq!((left.codec, left.pt, left.dtmf), (right.codec, right.pt, right.dtmf));
            prop_assert_eq!(left.keys.clone(), mirrored(right.keys));
            prop_assert_eq!(left.dtmf.is_some(), here.dtmf && there.dtmf);
            prop_assert_eq!((left.rtp, right.rtp), (there.rtp, here.rtp));
            prop_assert!(left.rtcp_mux && left.rtcp == left.rtp && right.rtcp == right.rtp);
            let both_want = here.srtp != SrtpPolicy::Off && there.srtp != SrtpPolicy::Off;
            prop_assert_eq!(left.keys.is_some(), both_want);
        }
    }
}
