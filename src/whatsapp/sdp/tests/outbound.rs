//! Calls that the business places: our offer, and Meta's answers in full and broken.

use super::*;

/// What a WebRTC stack offers: with everything in it that Meta must not see.
fn stack_offer() -> String {
    stack_answer()
        .replace("a=setup:active", "a=setup:actpass")
        .replace("a=group:BUNDLE audio", "a=group:BUNDLE 0")
        .replace("a=mid:audio", "a=mid:0")
}

/// The documented answer to a browser's offer: foreign codecs, extensions and mid mirrored, `ufrag` in the
/// candidates, IPv6 with the higher priority, no `a=end-of-candidates`.
fn documented_answer() -> String {
    format!(
        "v=0\r\n\
         o=- 7669997803033704573 2 IN IP4 127.0.0.1\r\n\
         s=-\r\n\
         t=0 0\r\n\
         a=group:BUNDLE 0\r\n\
         a=extmap-allow-mixed\r\n\
         a=msid-semantic: WMS 3c28addc-03b9-4170-b5df-535b4fa9ee5f\r\n\
         a=ice-lite\r\n\
         m=audio 3482 UDP/TLS/RTP/SAVPF 111 9 0 8 110 126\r\n\
         c=IN IP4 31.13.65.130\r\n\
         a=rtcp:9 IN IP4 0.0.0.0\r\n\
         a=candidate:1812312339 1 udp 2113939711 2a03:2880:f20a:c6:face:b00c:0:699c 3482 typ host generation 0 network-cost 50 ufrag 6BAzu4R8\r\n\
         a=candidate:2088416839 1 udp 2113937151 31.13.65.130 3482 typ host generation 0 network-cost 50 ufrag 6BAzu4R8\r\n\
         a=ice-ufrag:6BAzu4R8\r\n\
         a=ice-pwd:Zk3vQp8LwN1xTb6Yd0RsHc2MZk3vQp8L\r\n\
         a=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\n\
         a=setup:active\r\n\
         a=mid:0\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
         a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
         a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=sendrecv\r\n\
         a=msid:3c28addc-03b9-4170-b5df-535b4fa9ee5f WhatsAppTrack1\r\n\
         a=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         a=rtcp-fb:111 transport-cc\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1\r\n\
         a=rtpmap:9 G722/8000\r\n\
         a=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:110 telephone-event/48000\r\n\
         a=rtpmap:126 telephone-event/8000\r\n\
         a=ssrc:2331567818 cname:WhatsAppAudioStream1\r\n\
         a=ssrc:2331567818 msid:3c28addc-03b9-4170-b5df-535b4fa9ee5f WhatsAppTrack1"
    )
}

fn our_offer(role: Setup) -> String {
    offer(&stack_offer(), &places(), role).unwrap()
}

fn with_setup(setup: &str) -> Answer {
    Answer::parse(&documented_answer().replace("a=setup:active", setup)).unwrap()
}

#[test]
fn our_offer_is_word_for_word_what_meta_wants() {
    let sdp = our_offer(Setup::ActPass);
    let origin = lines(&sdp)[1].to_owned();
    let wanted = format!(
        "v=0\r\n\
         {origin}\r\n\
         s=-\r\n\
         t=0 0\r\n\
         a=group:BUNDLE 0\r\n\
         m=audio 40010 UDP/TLS/RTP/SAVPF 111 126\r\n\
         c=IN IP4 203.0.113.7\r\n\
         a=rtcp:9 IN IP4 0.0.0.0\r\n\
         a=candidate:1 1 udp 2130706431 192.168.1.20 40010 typ host\r\n\
         a=candidate:2 1 udp 1694498559 203.0.113.7 40010 typ srflx raddr 192.168.1.20 rport 40010\r\n\
         a=candidate:3 1 udp 2122317311 2001:db8::20 40010 typ host\r\n\
         a=end-of-candidates\r\n\
         a=ice-ufrag:hkVzUMRrQPmNAWjy\r\n\
         a=ice-pwd:aWdEOhrTWzGRxMWnQuVfzVRjGdmSyXxB\r\n\
         a=fingerprint:sha-256 {OUR_FINGERPRINT}\r\n\
         a=setup:actpass\r\n\
         a=mid:0\r\n\
         a=sendrecv\r\n\
         a=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 minptime=20;useinbandfec=1;maxaveragebitrate=20000;maxplaybackrate=16000;sprop-maxcapturerate=16000\r\n\
         a=rtpmap:126 telephone-event/8000\r\n\
         a=fmtp:126 0-16\r\n\
         a=ptime:20\r\n\
         a=maxptime:20\r\n\
         a=ssrc:2231627014 cname:our-stream\r\n"
    );
    assert_eq!(sdp, wanted);
    let id = origin.strip_prefix("o=- ").and_then(|rest| rest.strip_suffix(" 2 IN IP4 127.0.0.1")).unwrap();
    assert!(id.parse::<u64>().unwrap() < 1 << 63);
}

#[test]
fn the_dtls_role_that_we_propose_is_a_switch() {
    for (role, word) in [(Setup::ActPass, "actpass"), (Setup::Active, "active"), (Setup::Passive, "passive")]
    {
        let sdp = our_offer(role);
        assert_eq!(count(&sdp, "a=setup:"), 1);
        assert_eq!(count(&sdp, &format!("a=setup:{word}")), 1);
        assert_eq!(
            sdp.replace(&format!("a=setup:{word}"), ""),
            our_offer(Setup::Passive).replace("a=setup:passive", "")
        );
    }
}

#[test]
fn behind_a_nat_that_nobody_knows_the_offer_has_no_candidates() {
    let sdp = offer(&stack_offer(), &[], Setup::ActPass).unwrap();
    assert!(sdp.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 0.0.0.0\r\n"));
    assert_eq!(count(&sdp, "a=candidate") + count(&sdp, "a=end-of-candidates"), 0);
}

#[test]
fn the_offer_has_the_stacks_payload_types() {
    let odd = stack_offer()
        .replace("SAVPF 111 126", "SAVPF 96 101")
        .replace(":111 ", ":96 ")
        .replace(":126 ", ":101 ");
    let sdp = offer(&odd, &[], Setup::ActPass).unwrap();
    assert!(
        sdp.contains("SAVPF 96 101\r\n")
            && sdp.contains("a=rtpmap:96 opus")
            && sdp.contains("a=fmtp:101 0-16")
    );
    let deaf = stack_offer().replace("a=rtpmap:126 telephone-event/8000\r\n", "");
    assert!(!offer(&deaf, &[], Setup::ActPass).unwrap().contains("126"));
}

#[test]
fn a_stack_that_gave_no_usable_offer_is_a_fault_not_a_dead_call() {
    let with = |from: &str, to: &str| offer(&stack_offer().replace(from, to), &places(), Setup::ActPass);
    assert_eq!(with("m=audio 9", "m=audio 0"), Err(StackFault::NoAudio));
    assert_eq!(with("a=sendrecv", "m=audio 9 X 1"), Err(StackFault::NoAudio));
    assert_eq!(with(":111 opus", ":96 opus"), Err(StackFault::NoOpus));
    assert_eq!(with("a=ice-pwd", "a=ice-pw"), Err(StackFault::NoIce));
    assert_eq!(with("sha-256", "sha-384"), Err(StackFault::NoFingerprint));
    assert_eq!(with("a=ssrc:", "a=x-ssrc:"), Err(StackFault::NoSsrc));
}

#[test]
fn the_documented_answer_is_read() {
    let answer = Answer::parse(&documented_answer()).unwrap();
    let wanted: Vec<SocketAddr> = ["31.13.65.130:3482", "[2a03:2880:f20a:c6:face:b00c:0:699c]:3482"]
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
    assert_eq!(answer.candidates, wanted, "IPv4 first, whatever Meta's priorities say");
    assert_eq!((answer.opus_pt, answer.dtmf_pt), (111, Some(126)), "never the 48 kHz events");
    assert_eq!((answer.setup, answer.ice_lite), (Setup::Active, true));
    assert_eq!((answer.ufrag.as_str(), answer.mid.as_str()), ("6BAzu4R8", "0"));
}

#[test]
fn the_stack_gets_an_answer_without_what_meta_only_mirrors() {
    let answer = Answer::parse(&documented_answer()).unwrap();
    let stack = answer.for_stack(&our_offer(Setup::ActPass));
    assert!(stack.contains("m=audio 3482 UDP/TLS/RTP/SAVPF 111 126\r\n"));
    for never in ["G722", "PCMU", "PCMA", "/48000\r\n", "extmap", "rtcp-fb", "ice-options", "ufrag 6BAzu4R8"]
    {
        assert!(!stack.contains(never), "{never}");
    }
    assert!(stack.split("m=audio").next().unwrap().contains("\r\na=ice-lite\r\n"));
    for once in
        ["a=end-of-candidates", "a=mid:0", "a=group:BUNDLE 0", "a=setup:active", "a=ssrc:", "a=fingerprint:"]
    {
        assert_eq!(count(&stack, once), 1, "{once}");
    }
    let candidates: Vec<Vec<&str>> = lines(&stack)
        .into_iter()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .map(|line| line.split(' ').collect())
        .collect();
    assert_eq!((candidates.len(), candidates[0][4]), (2, "31.13.65.130"));
    let priority = |index: usize| candidates[index][3].parse::<u32>().unwrap();
    assert!(priority(0) > priority(1));
}

#[test]
fn an_answer_without_ice_lite_still_makes_us_the_controlling_side() {
    let answer = Answer::parse(&documented_answer().replace("a=ice-lite\r\n", "")).unwrap();
    assert!(!answer.ice_lite);
    assert_eq!(count(&answer.for_stack(&our_offer(Setup::ActPass)), "a=ice-lite"), 1);
}

#[test]
fn the_dtls_role_is_metas_word_where_it_is_one() {
    for proposed in [Setup::ActPass, Setup::Active, Setup::Passive] {
        for word in ["a=setup:active", "a=setup:passive"] {
            let stack = with_setup(word).for_stack(&our_offer(proposed));
            assert_eq!(count(&stack, word), 1, "{word} to {proposed:?}");
            assert_eq!(count(&stack, "a=setup:"), 1);
        }
    }
}

#[test]
fn an_illegal_actpass_in_the_answer_makes_meta_the_client_unless_we_offered_to_be_it() {
    for illegal in ["a=setup:actpass", "a=x:y", "a=setup:holdconn"] {
        for (proposed, wanted) in [
            (Setup::ActPass, "a=setup:active"),
            (Setup::Passive, "a=setup:active"),
            (Setup::Active, "a=setup:passive"),
        ] {
            let stack = with_setup(illegal).for_stack(&our_offer(proposed));
            assert_eq!(count(&stack, wanted), 1, "{illegal} to {proposed:?}");
        }
        assert_eq!(count(&with_setup(illegal).for_stack("lost"), "a=setup:active"), 1);
    }
}

#[test]
fn the_stack_finds_its_own_mid_whatever_meta_calls_it() {
    let renamed = documented_answer().replace("BUNDLE 0", "BUNDLE audio").replace("a=mid:0", "a=mid:audio");
    let nameless = documented_answer().replace("a=group:BUNDLE 0\r\n", "").replace("a=mid:0\r\n", "");
    for answer in [renamed, nameless] {
        let stack = Answer::parse(&answer).unwrap().for_stack(&our_offer(Setup::ActPass));
        assert!(stack.contains("a=mid:0\r\n") && stack.contains("a=group:BUNDLE 0\r\n"), "{stack}");
    }
}

#[test]
fn digits_are_understood_even_if_the_answer_forgets_them() {
    let silent = documented_answer()
        .replace(" 110 126", "")
        .replace("a=rtpmap:110 telephone-event/48000\r\n", "")
        .replace("a=rtpmap:126 telephone-event/8000\r\n", "");
    let answer = Answer::parse(&silent).unwrap();
    assert_eq!(answer.dtmf_pt, None);
    let stack = answer.for_stack(&our_offer(Setup::ActPass));
    assert!(stack.contains("SAVPF 111 126\r\n") && stack.contains("a=rtpmap:126 telephone-event/8000\r\n"));
}

#[test]
fn an_answer_that_no_call_can_come_of_says_why() {
    let with = |from: &str, to: &str| Answer::parse(&documented_answer().replace(from, to)).unwrap_err();
    assert_eq!(with("opus/48000/2", "speex/8000"), OfferFault::NoOpus);
    assert_eq!(with("a=fingerprint", "a=x"), OfferFault::NoFingerprint);
    assert_eq!(with("a=ice-ufrag", "a=x"), OfferFault::NoIce);
    assert_eq!(with("m=audio 3482", "m=audio 0"), OfferFault::NotAudio);
    assert_eq!(
        Answer::parse("").unwrap_err(),
        OfferFault::Malformed { line: 1, what: "is missing: the SDP is empty" }
    );
    assert!(!format!("{:?}", Answer::parse(&documented_answer()).unwrap()).contains("Zk3vQp8LwN1xTb6Y"));
}

proptest! {
    #[test]
    fn no_text_makes_an_offer_or_answer_panic(sdp in any_sdp(), noise in ".{0,300}", places in any_places()) {
        for text in [&sdp, &noise] {
            if let Ok(offer) = offer(text, &places, Setup::ActPass) {
                keeps_the_rules(&offer.replace("a=setup:actpass", "a=setup:active"))?;
            }
            if let Ok(answer) = Answer::parse(text) {
                let again = Answer::parse(&answer.for_stack(&noise));
                prop_assert!(again.is_ok(), "{:?}", again);
                let _ = answer.for_stack(&sdp);
            }
        }
    }

    #[test]
    fn whatever_meta_answers_the_stack_gets_something_that_fits_its_offer(
        answer in nearly(documented_answer()),
        stack in nearly(stack_offer()),
        places in any_places(),
    ) {
        let (Ok(answer), Ok(ours)) = (Answer::parse(&answer), offer(&stack, &places, Setup::ActPass)) else {
            return Ok(());
        };
        keeps_the_rules(&ours.replace("a=setup:actpass", "a=setup:active"))?;
        let for_stack = answer.for_stack(&ours);
        let mid = lines(&ours).into_iter().find_map(|line| line.strip_prefix("a=mid:")).unwrap().to_owned();
        let line = format!("a=mid:{mid}\r\n");
        prop_assert!(for_stack.contains(&line));
        prop_assert_eq!(count(&for_stack, "a=setup:actpass"), 0);
        prop_assert!(Answer::parse(&for_stack).is_ok());
    }
}
