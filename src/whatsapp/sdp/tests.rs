//! Meta's offers in full, broken ones, and every rule for the answer.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;

mod outbound;

const FINGERPRINT: &str =
    "19:E2:1C:3B:4B:9F:81:E6:B8:5C:F4:A5:A8:D8:73:04:BB:05:2F:70:9F:04:A9:0E:05:E9:26:33:E8:70:88:A2";
const OUR_FINGERPRINT: &str =
    "7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08";

/// An offer in the shape of 2025: SIP-mode documentation, and seen from Graph.
fn current_offer() -> String {
    format!(
        "v=0\r\n\
         o=- 1741113186367 2 IN IP4 127.0.0.1\r\n\
         s=-\r\n\
         t=0 0\r\n\
         a=group:BUNDLE audio\r\n\
         a=msid-semantic: WMS 632a909f-1060-4369-96a4-7bd03e291ee7\r\n\
         a=ice-lite\r\n\
         m=audio 3480 UDP/TLS/RTP/SAVPF 111 126\r\n\
         c=IN IP4 57.144.135.35\r\n\
         a=rtcp:9 IN IP4 0.0.0.0\r\n\
         a=candidate:1775469887 1 udp 2122260223 57.144.135.35 3480 typ host generation 0 network-cost 50\r\n\
         a=candidate:3355715111 1 udp 2122262783 2a03:2880:f343:131:face:b00c:0:699c 3480 typ host generation 0 network-cost 50\r\n\
         a=ice-ufrag:RmDDkfzkwbexPfbC\r\n\
         a=ice-pwd:Zk3vQp8LwN1xTb6Yd0RsHc2M\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\n\
         a=setup:actpass\r\n\
         a=mid:audio\r\n\
         a=sendrecv\r\n\
         a=msid:632a909f-1060-4369-96a4-7bd03e291ee7 WhatsAppTrack1\r\n\
         a=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         a=rtcp-fb:111 transport-cc\r\n\
         a=fmtp:111 maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1\r\n\
         a=rtpmap:126 telephone-event/8000\r\n\
         a=maxptime:20\r\n\
         a=ptime:20\r\n\
         a=ssrc:849255537 cname:WhatsAppAudioStream1\r\n"
    )
}

/// An offer in the older shape of the Graph reference: extensions, `ufrag` in the candidates, more
/// ssrc lines. IPv6 comes first, and the last line has no end.
fn older_offer() -> String {
    format!(
        "v=0\r\n\
         o=- 3626166318745852955 2 IN IP4 127.0.0.1\r\n\
         s=-\r\n\
         t=0 0\r\n\
         a=group:BUNDLE audio\r\n\
         a=extmap-allow-mixed\r\n\
         a=msid-semantic: WMS 7a2ab5d6-6f0c-4ba5-a3c6-cb5b7bb2bd1d\r\n\
         a=ice-lite\r\n\
         m=audio 40012 UDP/TLS/RTP/SAVPF 111 126\r\n\
         c=IN IP4 157.240.1.60\r\n\
         a=rtcp:9 IN IP4 0.0.0.0\r\n\
         a=candidate:1972637320 1 udp 2113939711 2a03:2880:f211:d1:face:b00c:0:699c 40012 typ host generation 0 network-cost 50 ufrag 7PpI/abcd\r\n\
         a=candidate:1972637321 1 udp 2113937151 157.240.1.60 40012 typ host generation 0 network-cost 50 ufrag 7PpI/abcd\r\n\
         a=ice-ufrag:7PpI/abcd\r\n\
         a=ice-pwd:9nQ4rT7yU1iO3pA5sD8fG2hJ6kL0zXcV\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\n\
         a=setup:actpass\r\n\
         a=mid:audio\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
         a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
         a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=sendrecv\r\n\
         a=msid:7a2ab5d6-6f0c-4ba5-a3c6-cb5b7bb2bd1d WhatsAppTrack1\r\n\
         a=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         a=rtcp-fb:111 transport-cc\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1\r\n\
         a=rtpmap:126 telephone-event/8000\r\n\
         a=ssrc:1238967757 cname:WhatsAppAudioStream1\r\n\
         a=ssrc:1238967757 msid:7a2ab5d6-6f0c-4ba5-a3c6-cb5b7bb2bd1d WhatsAppTrack1\r\n\
         a=ssrc:1238967757 mslabel:7a2ab5d6-6f0c-4ba5-a3c6-cb5b7bb2bd1d\r\n\
         a=ssrc:1238967757 label:WhatsAppTrack1"
    )
}

/// What a WebRTC stack answers: with everything in it that Meta must not see.
fn stack_answer() -> String {
    format!(
        "v=0\r\n\
         o=- 5228595038118931041 1700000000 IN IP4 0.0.0.0\r\n\
         s=-\r\n\
         t=0 0\r\n\
         a=msid-semantic:WMS *\r\n\
         a=fingerprint:sha-512 00:11\r\n\
         a=fingerprint:sha-256 {OUR_FINGERPRINT}\r\n\
         a=extmap-allow-mixed\r\n\
         a=group:BUNDLE audio\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111 126\r\n\
         c=IN IP4 0.0.0.0\r\n\
         a=setup:active\r\n\
         a=mid:audio\r\n\
         a=ice-ufrag:hkVzUMRrQPmNAWjy\r\n\
         a=ice-pwd:aWdEOhrTWzGRxMWnQuVfzVRjGdmSyXxB\r\n\
         a=ice-options:trickle\r\n\
         a=rtcp-mux\r\n\
         a=rtcp-rsize\r\n\
         a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\n\
         a=rtcp-fb:111 transport-cc\r\n\
         a=rtpmap:126 telephone-event/8000\r\n\
         a=ssrc:2231627014 cname:our-stream\r\n\
         a=ssrc:2231627014 msid:our-stream our-track\r\n\
         a=candidate:1 1 udp 2130706431 10.9.8.7 50000 typ host\r\n\
         a=sendrecv\r\n"
    )
}

fn place(address: &str, kind: Kind) -> Place {
    let address: SocketAddr = address.parse().unwrap();
    Place { ip: address.ip(), port: address.port(), kind }
}

fn places() -> Vec<Place> {
    let related = "192.168.1.20:40010".parse().unwrap();
    vec![
        place("[2001:db8::20]:40010", Kind::Host),
        place("192.168.1.20:40010", Kind::Host),
        place("203.0.113.7:40010", Kind::ServerReflexive { related }),
    ]
}

fn lines(sdp: &str) -> Vec<&str> {
    sdp.split("\r\n").collect()
}

fn count(sdp: &str, start: &str) -> usize {
    lines(sdp).iter().filter(|line| line.starts_with(start)).count()
}

#[test]
fn the_current_offer_is_read() {
    let offer = Offer::parse(&current_offer()).unwrap();
    assert_eq!((offer.mid.as_str(), offer.bundle), ("audio", true));
    assert_eq!((offer.opus_pt, offer.dtmf_pt), (111, Some(126)));
    let wanted: Vec<SocketAddr> = ["57.144.135.35:3480", "[2a03:2880:f343:131:face:b00c:0:699c]:3480"]
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
    assert_eq!(offer.candidates, wanted);
    assert_eq!((offer.ufrag.as_str(), offer.pwd.as_str()), ("RmDDkfzkwbexPfbC", "Zk3vQp8LwN1xTb6Yd0RsHc2M"));
    assert_eq!(offer.fingerprint, FINGERPRINT);
    assert!(offer.ice_lite);
    assert_eq!(offer.setup, Setup::ActPass);
    assert_eq!((offer.ssrc, offer.cname.as_deref()), (Some(849_255_537), Some("WhatsAppAudioStream1")));
    assert_eq!(offer.msid.as_ref().map(|(_, track)| track.as_str()), Some("WhatsAppTrack1"));
}

#[test]
fn the_older_offer_is_read_with_ipv4_first() {
    let offer = Offer::parse(&older_offer()).unwrap();
    assert_eq!(offer.candidates.len(), 2);
    assert_eq!(offer.candidates[0], "157.240.1.60:40012".parse::<std::net::SocketAddr>().unwrap());
    assert!(offer.candidates[1].is_ipv6());
    assert_eq!(offer.ufrag, "7PpI/abcd");
    assert_eq!(offer.pwd.len(), 32);
    assert_eq!(offer.opus_fmtp.as_deref(), Some("minptime=10;useinbandfec=1"));
    assert_eq!(offer.ssrc, Some(1_238_967_757));
}

#[test]
fn line_ends_of_every_kind_read_the_same() {
    for offer in [current_offer(), older_offer()] {
        let wanted = Offer::parse(&offer);
        assert!(wanted.is_ok());
        assert_eq!(Offer::parse(&offer.replace("\r\n", "\n")), wanted);
        assert_eq!(Offer::parse(offer.trim_end()), wanted);
        assert_eq!(Offer::parse(&format!("{offer}\r\n\r\n")), wanted);
    }
}

#[test]
fn secrets_are_found_in_the_session_part_too() {
    let moved = |name: &str| {
        let offer = current_offer();
        let line = lines(&offer).into_iter().find(|line| line.starts_with(name)).unwrap().to_owned();
        offer.replace(&format!("{line}\r\n"), "").replace("m=audio", &format!("{line}\r\nm=audio"))
    };
    for name in ["a=fingerprint:", "a=ice-ufrag:", "a=ice-pwd:", "a=setup:", "c="] {
        assert_eq!(Offer::parse(&moved(name)), Offer::parse(&current_offer()), "{name}");
    }
}

#[test]
fn the_sha_256_is_picked_from_several_fingerprints() {
    let several =
        format!("a=fingerprint:sha-1 00:11\r\na=fingerprint:SHA-256 {}", FINGERPRINT.to_lowercase());
    let offer = current_offer().replace(&format!("a=fingerprint:sha-256 {FINGERPRINT}"), &several);
    assert_eq!(Offer::parse(&offer).unwrap().fingerprint, FINGERPRINT);
}

#[test]
fn payload_types_are_taken_as_offered() {
    let offer = current_offer()
        .replace("SAVPF 111 126", "SAVPF 8 0 96 101")
        .replace(":111 ", ":96 ")
        .replace(":126 ", ":101 ");
    let offer = Offer::parse(&offer).unwrap();
    assert_eq!((offer.opus_pt, offer.dtmf_pt), (96, Some(101)));
    let without = current_offer().replace("a=rtpmap:126 telephone-event/8000\r\n", "");
    assert_eq!(Offer::parse(&without).unwrap().dtmf_pt, None);
    let fast = current_offer().replace("telephone-event/8000", "telephone-event/48000");
    assert_eq!(Offer::parse(&fast).unwrap().dtmf_pt, None);
}

#[test]
fn candidates_that_can_not_be_used_are_left_out() {
    let first = "a=candidate:1775469887 1 udp";
    let more = "a=candidate:1 2 udp 1 198.51.100.1 3480 typ host\r\n\
                a=candidate:2 1 tcp 1 198.51.100.2 3480 typ host tcptype passive\r\n\
                a=candidate:3 1 udp 1 0.0.0.0 3480 typ host\r\n\
                a=candidate:4 1 udp 1 198.51.100.4 0 typ host\r\n\
                a=candidate:5 1 udp 1 somewhere.local 3480 typ host\r\n\
                a=candidate:6 1 udp 1 224.0.0.1 3480 typ host\r\n\
                a=candidate:7 1 udp\r\n\
                a=candidate:8 1 UDP 1 57.144.135.35 3480 typ host\r\n";
    let offer = current_offer().replace(first, &format!("{more}{first}"));
    assert_eq!(Offer::parse(&offer).unwrap().candidates, Offer::parse(&current_offer()).unwrap().candidates);
    let many: String = (0..200)
        .map(|index| format!("a=candidate:1 1 udp 1 198.51.100.7 {} typ host\r\n", 1_000 + index))
        .collect();
    let offer = current_offer().replace(first, &format!("{many}{first}"));
    assert_eq!(Offer::parse(&offer).unwrap().candidates.len(), 16);
}

#[test]
fn without_candidates_the_address_of_the_connection_line_is_used() {
    let offer: String =
        current_offer().split_inclusive("\r\n").filter(|line| !line.starts_with("a=candidate")).collect();
    assert_eq!(
        Offer::parse(&offer).unwrap().candidates,
        ["57.144.135.35:3480".parse::<std::net::SocketAddr>().unwrap()]
    );
    assert_eq!(
        Offer::parse(&offer.replace("c=IN IP4 57.144.135.35", "c=IN IP4 0.0.0.0")),
        Err(OfferFault::NoIce)
    );
}

#[test]
fn an_offer_that_can_not_be_answered_says_why() {
    let without = |start: &str| -> String {
        current_offer().split_inclusive("\r\n").filter(|line| !line.starts_with(start)).collect()
    };
    let with = |from: &str, to: &str| current_offer().replace(from, to);
    assert_eq!(Offer::parse(&without("a=rtpmap:111")), Err(OfferFault::NoOpus));
    assert_eq!(Offer::parse(&with("opus/48000/2", "PCMU/8000")), Err(OfferFault::NoOpus));
    assert_eq!(Offer::parse(&with("SAVPF 111 126", "SAVPF 126")), Err(OfferFault::NoOpus));
    assert_eq!(Offer::parse(&without("a=fingerprint")), Err(OfferFault::NoFingerprint));
    assert_eq!(Offer::parse(&with("sha-256", "sha-512")), Err(OfferFault::NoFingerprint));
    assert_eq!(Offer::parse(&with(":E2:", ":")), Err(OfferFault::NoFingerprint));
    assert_eq!(Offer::parse(&with(":E2:", ":XY:")), Err(OfferFault::NoFingerprint));
    assert_eq!(Offer::parse(&without("a=ice-ufrag")), Err(OfferFault::NoIce));
    assert_eq!(Offer::parse(&without("a=ice-pwd")), Err(OfferFault::NoIce));
    let second = format!("{}m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", current_offer());
    assert_eq!(Offer::parse(&second), Err(OfferFault::SeveralMedia));
    assert_eq!(Offer::parse(&with("m=audio", "m=video")), Err(OfferFault::NotAudio));
    assert_eq!(Offer::parse(&with("m=audio 3480", "m=audio 0")), Err(OfferFault::NotAudio));
    assert_eq!(Offer::parse("v=0\r\ns=-\r\n"), Err(OfferFault::NotAudio));
    let padded = format!("{}a=x:{}\r\n", current_offer(), "y".repeat(MAX_SDP));
    assert_eq!(Offer::parse(&padded), Err(OfferFault::TooLong));
    assert_eq!(Offer::parse(&format!("v=0{}", "\n".repeat(1_000))), Err(OfferFault::TooLong));
}

#[test]
fn what_is_not_sdp_is_refused_with_the_line() {
    let line = |sdp: &str| match Offer::parse(sdp) {
        Err(OfferFault::Malformed { line, .. }) => line,
        other => panic!("{other:?}"),
    };
    assert_eq!(line(""), 1);
    assert_eq!(line("hello"), 1);
    assert_eq!(line("{\"sdp\":\"v=0\"}"), 1);
    assert_eq!(line("o=- 1 1 IN IP4 0.0.0.0\r\nv=0"), 1);
    assert_eq!(line("v=0\r\ns=-\r\nnonsense\r\n"), 3);
    assert_eq!(line("v=0\r\ns=a\0b\r\n"), 2);
    assert_eq!(line("v=0\r\nm=audio\r\n"), 2);
    assert_eq!(line("v=0\r\nm=audio 99999 X 1\r\n"), 2);
    assert_eq!(line("v=0\r\nm=audio 9\r\n"), 2);
}

#[test]
fn an_sdes_offer_is_told_apart() {
    let sdes = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 3480 RTP/SAVP 111\r\nc=IN IP4 57.144.135.35\r\n\
                a=rtpmap:111 opus/48000/2\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n";
    let fault = Offer::parse(sdes).unwrap_err();
    assert_eq!(fault, OfferFault::NoIce);
}

#[test]
fn the_stack_gets_an_offer_that_makes_it_controlling_and_a_dtls_client() {
    for original in [current_offer(), older_offer(), current_offer().replace("a=ice-lite\r\n", "")] {
        let offer = Offer::parse(&original).unwrap();
        let stack = offer.for_stack();
        let session = stack.split("m=audio").next().unwrap();
        assert!(session.contains("\r\na=ice-lite\r\n"), "in the session part, where stacks look for it");
        assert!(session.contains("a=group:BUNDLE audio\r\n"));
        assert_eq!(count(&stack, "a=setup:actpass"), 1);
        assert_eq!(count(&stack, "a=mid:audio"), 1);
        assert_eq!(count(&stack, "a=extmap") + count(&stack, "a=rtcp-fb"), 0);
        assert_eq!(count(&stack, "a=rtpmap:"), 2);
        assert_eq!(count(&stack, "a=ssrc:"), 1);
        assert_eq!(count(&stack, "a=msid:"), 1);
        assert!(stack.ends_with("\r\n"));
        let mut again = Offer::parse(&stack).unwrap();
        assert!(again.ice_lite);
        again.ice_lite = offer.ice_lite;
        again.opus_fmtp.clone_from(&offer.opus_fmtp);
        assert_eq!(again, offer, "every other fact has come through");
    }
}

#[test]
fn the_stack_prefers_metas_ipv4() {
    let stack = Offer::parse(&older_offer()).unwrap().for_stack();
    let candidates: Vec<Vec<&str>> = lines(&stack)
        .into_iter()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .map(|line| line.split(' ').collect())
        .collect();
    assert_eq!(candidates.len(), 2);
    assert_eq!((candidates[0][4], candidates[0][5]), ("157.240.1.60", "40012"));
    let priority = |index: usize| candidates[index][3].parse::<u32>().unwrap();
    assert!(priority(0) > priority(1));
}

#[test]
fn the_answer_is_word_for_word_what_meta_wants() {
    let offer = Offer::parse(&current_offer()).unwrap();
    let sdp = answer(&stack_answer(), &offer, &places()).unwrap();
    let origin = lines(&sdp)[1].to_owned();
    let wanted = format!(
        "v=0\r\n\
         {origin}\r\n\
         s=-\r\n\
         t=0 0\r\n\
         a=group:BUNDLE audio\r\n\
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
         a=setup:active\r\n\
         a=mid:audio\r\n\
         a=sendrecv\r\n\
         a=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1\r\n\
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
fn the_answer_is_the_same_each_time_it_is_made() {
    let offer = Offer::parse(&current_offer()).unwrap();
    assert_eq!(answer(&stack_answer(), &offer, &places()), answer(&stack_answer(), &offer, &places()));
}

#[test]
fn the_answer_mirrors_what_was_offered() {
    let renamed = older_offer()
        .replace("BUNDLE audio", "BUNDLE 0")
        .replace("a=mid:audio", "a=mid:0")
        .replace("a=rtpmap:126 telephone-event/8000\r\n", "");
    let offer = Offer::parse(&renamed).unwrap();
    let sdp = answer(&stack_answer(), &offer, &[]).unwrap();
    assert!(sdp.contains("a=group:BUNDLE 0\r\n") && sdp.contains("a=mid:0\r\n"));
    assert!(sdp.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n"));
    assert!(sdp.contains("a=fmtp:111 minptime=10;useinbandfec=1\r\n"));
    assert!(!sdp.contains("telephone-event") && !sdp.contains("candidate"));

    let nameless = current_offer().replace("a=group:BUNDLE audio\r\n", "").replace("a=mid:audio\r\n", "");
    let sdp = answer(&stack_answer(), &Offer::parse(&nameless).unwrap(), &places()).unwrap();
    assert!(!sdp.contains("BUNDLE") && !sdp.contains("a=mid"));
}

#[test]
fn an_offer_without_opus_parameters_gets_metas_usual_ones() {
    let bare: String =
        current_offer().split_inclusive("\r\n").filter(|line| !line.starts_with("a=fmtp")).collect();
    let sdp = answer(&stack_answer(), &Offer::parse(&bare).unwrap(), &places()).unwrap();
    assert!(sdp.contains("a=fmtp:111 minptime=20;useinbandfec=1;maxaveragebitrate=20000;"));
    let odd = current_offer().replace("minptime=20;", "minptime=20;usedtx=1;cbr=x;evil=1 2;useinbandfec;");
    let sdp = answer(&stack_answer(), &Offer::parse(&odd).unwrap(), &places()).unwrap();
    assert!(sdp.contains(";minptime=20;sprop-maxcapturerate=16000;"), "only what we can keep is promised");
}

#[test]
fn addresses_that_nobody_can_reach_are_not_given_to_meta() {
    let offer = Offer::parse(&current_offer()).unwrap();
    let places = [
        place("0.0.0.0:40010", Kind::Host),
        place("192.168.1.20:0", Kind::Host),
        place("[::]:40010", Kind::Host),
        place("192.168.1.20:40010", Kind::Host),
        place("192.168.1.20:40010", Kind::Host),
    ];
    let sdp = answer(&stack_answer(), &offer, &places).unwrap();
    assert_eq!(count(&sdp, "a=candidate:"), 1);
    assert!(sdp.contains("c=IN IP4 192.168.1.20\r\n"));
    let many: Vec<Place> = (1..200).map(|port| place(&format!("192.168.1.20:{port}"), Kind::Host)).collect();
    assert_eq!(count(&answer(&stack_answer(), &offer, &many).unwrap(), "a=candidate:"), 16);
}

#[test]
fn an_ipv6_only_box_says_so() {
    let offer = Offer::parse(&current_offer()).unwrap();
    let sdp = answer(&stack_answer(), &offer, &[place("[2001:db8::20]:40010", Kind::Host)]).unwrap();
    assert!(sdp.contains("m=audio 40010 ") && sdp.contains("c=IN IP6 2001:db8::20\r\n"));
}

#[test]
fn a_stack_that_gave_no_usable_answer_is_a_fault_not_a_dead_call() {
    let offer = Offer::parse(&current_offer()).unwrap();
    let with = |from: &str, to: &str| answer(&stack_answer().replace(from, to), &offer, &places());
    assert_eq!(with("a=setup:active", "a=setup:passive"), Err(StackFault::Passive));
    assert_eq!(with("m=audio 9", "m=audio 0"), Err(StackFault::NoAudio));
    assert_eq!(with("m=audio", "m=video"), Err(StackFault::NoAudio));
    assert_eq!(with("a=sendrecv", "m=audio 9 X 1"), Err(StackFault::NoAudio));
    assert_eq!(with("SAVPF 111 126", "SAVPF 126"), Err(StackFault::NoOpus));
    assert_eq!(with(":111 opus", ":96 opus"), Err(StackFault::NoOpus));
    assert_eq!(with("a=ice-pwd", "a=ice-pw"), Err(StackFault::NoIce));
    assert_eq!(with("sha-256", "sha-384"), Err(StackFault::NoFingerprint));
    assert_eq!(with("a=ssrc:", "a=x-ssrc:"), Err(StackFault::NoSsrc));
    assert_eq!(
        with("s=-", "s"),
        Err(StackFault::Malformed { line: 3, what: "is not of the form letter=value" })
    );
    assert_eq!(answer(&"v=0\r\n".repeat(9_000), &offer, &places()), Err(StackFault::TooLong));
}

#[test]
fn a_source_without_a_name_gets_one() {
    let offer = Offer::parse(&current_offer()).unwrap();
    let unnamed = stack_answer().replace("a=ssrc:2231627014 cname:our-stream\r\n", "");
    let sdp = answer(&unnamed, &offer, &places()).unwrap();
    assert!(sdp.contains("a=ssrc:2231627014 cname:watrunk\r\n"));
}

#[test]
fn a_log_line_of_an_offer_shows_no_password() {
    let line = format!("{:?}", Offer::parse(&current_offer()).unwrap());
    assert!(!line.contains("Zk3vQp8LwN1xTb6Yd0RsHc2M"), "{line}");
}

/// The lines of real descriptions and of none, shuffled, cut and mutilated.
fn any_sdp() -> impl Strategy<Value = String> {
    let known: Vec<String> = [current_offer(), older_offer(), stack_answer()]
        .iter()
        .flat_map(|sdp| sdp.split("\r\n").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let line = prop_oneof![
        6 => prop::sample::select(known.clone()),
        2 => (prop::sample::select(known), 0_usize..80, "\\PC{0,6}").prop_map(|(line, cut, tail)| {
            let kept: String = line.chars().take(cut).collect();
            kept + &tail
        }),
        1 => "[a-z]=\\PC{0,40}",
    ];
    let end = prop::sample::select(vec!["\r\n", "\n", "\r", ""]);
    prop::collection::vec((line, end), 0..60).prop_map(|lines| {
        lines.into_iter().fold(String::from("v=0\r\n"), |sdp, (line, end)| sdp + &line + end)
    })
}

/// A whole description with a few lines lost, doubled or mutilated: most still parse.
fn nearly(sdp: String) -> impl Strategy<Value = String> {
    let lines: Vec<String> = sdp.split("\r\n").map(str::to_owned).collect();
    let last = lines.len();
    prop::collection::vec((0..last, 0_u8..3, "\\PC{0,8}"), 0..4).prop_map(move |edits| {
        let mut lines = lines.clone();
        for (index, edit, text) in edits {
            let Some(line) = lines.get_mut(index) else { continue };
            match edit {
                0 => line.clear(),
                1 => line.push_str(&text),
                _ => *line = format!("{line}\r\n{line}"),
            }
        }
        lines.join("\r\n")
    })
}

fn any_places() -> impl Strategy<Value = Vec<Place>> {
    let place = (any::<IpAddr>(), any::<u16>(), prop::option::of((any::<IpAddr>(), any::<u16>()))).prop_map(
        |(ip, port, related)| {
            let kind = related.map_or(Kind::Host, |(ip, port)| Kind::ServerReflexive {
                related: SocketAddr::new(ip, port),
            });
            Place { ip, port, kind }
        },
    );
    prop::collection::vec(place, 0..20)
}

/// The rules that hold for every answer that leaves this house.
fn keeps_the_rules(sdp: &str) -> Result<(), TestCaseError> {
    prop_assert!(sdp.starts_with("v=0\r\n") && sdp.ends_with("\r\n") && !sdp.contains("\r\n\r\n"));
    prop_assert_eq!(sdp.replace("\r\n", "").find(['\r', '\n', '\0']), None);
    for once in [
        "m=",
        "c=",
        "a=fingerprint:sha-256 ",
        "a=fingerprint:",
        "a=setup:active",
        "a=setup:",
        "a=sendrecv",
        "a=rtcp-mux",
        "a=ssrc:",
        "a=ptime:20",
        "a=maxptime:20",
        "a=ice-ufrag:",
        "a=ice-pwd:",
        "a=fmtp:",
    ] {
        let wanted = if once == "a=fmtp:" && sdp.contains("telephone-event") { 2 } else { 1 };
        prop_assert_eq!(count(sdp, once), wanted, "{}", once);
    }
    for never in
        ["a=ice-lite", "a=extmap", "a=rtcp-fb", "a=ice-options", "a=crypto", "a=rtcp-rsize", "a=msid"]
    {
        prop_assert_eq!(count(sdp, never), 0, "{}", never);
    }
    let foundations: BTreeSet<&str> =
        lines(sdp).iter().filter_map(|line| line.strip_prefix("a=candidate:")?.split(' ').next()).collect();
    prop_assert_eq!(foundations.len(), count(sdp, "a=candidate:"));
    prop_assert_eq!(count(sdp, "a=end-of-candidates"), usize::from(!foundations.is_empty()));
    Ok(())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(offer in any_sdp(), stack in any_sdp(), noise in ".{0,300}", places in any_places()) {
        let sound = Offer::parse(&current_offer()).unwrap();
        let _ = Offer::parse(&noise);
        let _ = answer(&noise, &sound, &places);
        if let Ok(offer) = Offer::parse(&offer) {
            let _ = offer.for_stack();
            if let Ok(sdp) = answer(&stack, &offer, &places) {
                keeps_the_rules(&sdp)?;
            }
        }
    }

    #[test]
    fn whatever_meta_offers_and_the_stack_answers_the_rules_are_kept(
        offer in prop_oneof![nearly(current_offer()), nearly(older_offer())],
        stack in nearly(stack_answer()),
        places in any_places(),
    ) {
        if let Ok(offer) = Offer::parse(&offer) {
            let again = Offer::parse(&offer.for_stack());
            prop_assert!(again.is_ok(), "{:?} from {:?}", again, offer);
            if let Ok(sdp) = answer(&stack, &offer, &places) {
                keeps_the_rules(&sdp)?;
            }
        }
    }
}
