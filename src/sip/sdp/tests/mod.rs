//! What a PBX's administrator would notice about our descriptions.

mod hostile;
mod peers;
mod srtp;

use super::*;

pub(super) fn local(codecs: &[Codec], srtp: SrtpPolicy) -> LocalMedia {
    LocalMedia {
        rtp: SocketAddr::new([203, 0, 113, 7].into(), 20_000),
        session: 42,
        version: 1,
        codecs: codecs.to_vec(),
        dtmf: true,
        srtp,
        secret: [7; 32],
    }
}

pub(super) fn laws() -> LocalMedia {
    local(&[Codec::Pcma, Codec::Pcmu], SrtpPolicy::Off)
}

pub(super) fn all() -> LocalMedia {
    local(&Codec::ALL, SrtpPolicy::Off)
}

/// What is agreed when the PBX offers, and our answer on the way there.
pub(super) fn called(local: &LocalMedia, theirs: &str) -> Result<(String, RemoteMedia), SdpError> {
    let answer = reply(&offer(local), theirs.as_bytes(), 1)?;
    let media = agreed(&answer, theirs.as_bytes())?;
    Ok((answer, media))
}

/// What is agreed when the PBX answers our offer.
pub(super) fn answered(local: &LocalMedia, theirs: &str) -> Result<RemoteMedia, SdpError> {
    agreed(&offer(local), theirs.as_bytes())
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An m=audio of 192.0.2.1, port 4000, and what follows it.
pub(super) fn audio(formats: &str, attributes: &[&str]) -> String {
    let mut text = format!(
        "v=0\r\no=- 5 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 {formats}\r\n"
    );
    for attribute in attributes {
        text.push_str(&format!("a={attribute}\r\n"));
    }
    text
}

#[test]
fn the_offer_lists_the_codecs_in_order_and_the_digits() {
    let text = offer(&laws());
    assert!(text.contains("o=watrunk 42 1 IN IP4 203.0.113.7\r\n"), "{text}");
    assert!(text.contains("m=audio 20000 RTP/AVP 8 0 101\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"), "{text}");
    assert!(text.contains("a=ptime:20\r\n") && text.contains("a=sendrecv\r\n"), "{text}");
    assert!(text.contains("a=maxptime:60\r\na=rtcp-mux\r\n"), "{text}");
    assert!(!text.contains("a=rtcp:"), "an even port needs no a=rtcp: {text}");
    assert!(!text.contains("crypto") && !text.contains("opus"), "{text}");
    let odd = LocalMedia { rtp: address("203.0.113.7:20001"), ..laws() };
    assert!(offer(&odd).contains("a=rtcp:20002\r\n"));
    assert!(text.lines().all(|line| !line.is_empty()) && text.ends_with("\r\n"));
}

#[test]
fn an_offer_of_every_codec_is_this_text() {
    let wanted = "v=0\r\no=watrunk 42 1 IN IP4 203.0.113.7\r\ns=-\r\nc=IN IP4 203.0.113.7\r\nt=0 0\r\n\
        m=audio 20000 RTP/AVP 96 9 8 0 101 100\r\n\
        a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1;maxaveragebitrate=32000\r\n\
        a=rtpmap:9 G722/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
        a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
        a=rtpmap:100 telephone-event/48000\r\na=fmtp:100 0-16\r\n\
        a=ptime:20\r\na=maxptime:60\r\na=rtcp-mux\r\na=sendrecv\r\n";
    assert_eq!(offer(&all()), wanted);
}

#[test]
fn without_digits_none_are_offered_or_answered() {
    let mute = LocalMedia { dtmf: false, ..all() };
    assert!(!offer(&mute).contains("telephone-event"));
    let theirs = audio("RTP/AVP 8 101", &["rtpmap:101 telephone-event/8000"]);
    let (answer, media) = called(&mute, &theirs).unwrap();
    assert!(answer.contains("RTP/AVP 8\r\n"), "{answer}");
    assert_eq!(media.dtmf, None);
    assert_eq!(answered(&mute, &theirs).unwrap().dtmf, None, "not even if the PBX answers with them");
}

#[test]
fn an_ipv6_offer_says_so() {
    let six = LocalMedia { rtp: address("[2001:db8::7]:20000"), ..laws() };
    let text = offer(&six);
    assert!(text.contains("c=IN IP6 2001:db8::7\r\n"), "{text}");
    assert_eq!(agreed(&offer(&laws()), text.as_bytes()).unwrap().rtp, six.rtp);
}

#[test]
fn our_order_decides_what_we_answer() {
    let theirs =
        audio("RTP/AVP 0 8 9 111 101", &["rtpmap:111 OPUS/48000/2", "rtpmap:101 telephone-event/8000"]);
    for (codecs, codec, pt) in [
        (&[Codec::Opus, Codec::Pcma][..], Codec::Opus, 111),
        (&[Codec::G722, Codec::Opus], Codec::G722, 9),
        (&[Codec::Pcma, Codec::Pcmu], Codec::Pcma, 8),
        (&[Codec::Pcmu, Codec::Pcma], Codec::Pcmu, 0),
    ] {
        let (answer, media) = called(&local(codecs, SrtpPolicy::Off), &theirs).unwrap();
        assert!(answer.contains(&format!("m=audio 20000 RTP/AVP {pt} 101\r\n")), "{answer}");
        assert_eq!((media.codec, media.pt, media.heard_pt), (codec, pt, pt));
    }
}

#[test]
fn their_order_decides_what_they_answer() {
    let media = answered(&laws(), &audio("RTP/AVP 0 8", &[])).unwrap();
    assert_eq!((media.codec, media.pt), (Codec::Pcmu, 0));
}

#[test]
fn an_answer_may_number_opus_otherwise_than_the_offer() {
    let media = answered(&all(), &audio("RTP/AVP 107", &["rtpmap:107 opus/48000/2"])).unwrap();
    assert_eq!((media.codec, media.pt, media.heard_pt), (Codec::Opus, 107, 96));
}

#[test]
fn a_map_speaks_before_the_static_type() {
    let theirs =
        audio("RTP/AVP 0 97 98", &["rtpmap:0 speex/8000", "rtpmap:97 PCMU/16000", "rtpmap:98 pcma/8000/1"]);
    let (_, media) = called(&laws(), &theirs).unwrap();
    assert_eq!((media.codec, media.pt), (Codec::Pcma, 98));
}

#[test]
fn digits_take_the_clock_of_the_codec_if_they_can() {
    let events =
        ["rtpmap:111 opus/48000/2", "rtpmap:101 telephone-event/8000", "rtpmap:110 telephone-event/48000"];
    let theirs = audio("RTP/AVP 111 8 101 110", &events);
    let (answer, media) = called(&all(), &theirs).unwrap();
    assert!(answer.contains("RTP/AVP 111 110\r\n"), "{answer}");
    assert_eq!(media.dtmf, Some(Telephone { pt: 110, clock: 48_000 }));
    let (_, media) = called(&laws(), &theirs).unwrap();
    assert_eq!(media.dtmf, Some(Telephone { pt: 101, clock: 8_000 }));
    let only = theirs.replace(" 101 110", " 101");
    let (_, media) = called(&all(), &only).unwrap();
    assert_eq!((media.codec, media.dtmf), (Codec::Opus, Some(Telephone { pt: 101, clock: 8_000 })));
    let wide = audio("RTP/AVP 9 120", &["rtpmap:120 telephone-event/16000"]);
    let (_, media) = called(&all(), &wide).unwrap();
    assert_eq!(media.dtmf, Some(Telephone { pt: 120, clock: 16_000 }), "any is better than none");
}

#[test]
fn comfort_noise_is_kept_beside_a_codec_of_8_khz() {
    let theirs = audio("RTP/AVP 111 8 13", &["rtpmap:111 opus/48000/2"]);
    let (answer, media) = called(&laws(), &theirs).unwrap();
    assert!(answer.contains("RTP/AVP 8 13\r\n") && answer.contains("a=rtpmap:13 CN/8000\r\n"), "{answer}");
    assert_eq!(media.comfort_noise, Some(13));
    let (answer, media) = called(&all(), &theirs).unwrap();
    assert!(!answer.contains("CN/8000"), "{answer}");
    assert_eq!((media.codec, media.comfort_noise), (Codec::Opus, None));
}

#[test]
fn rtcp_shares_the_port_only_if_both_say_so() {
    let both = audio("RTP/AVP 8", &["rtcp-mux"]);
    let (answer, media) = called(&laws(), &both).unwrap();
    assert!(answer.contains("a=rtcp-mux\r\n"));
    assert_eq!((media.rtcp_mux, media.rtcp), (true, address("192.0.2.1:4000")));
    let apart = audio("RTP/AVP 8", &[]);
    let (answer, media) = called(&laws(), &apart).unwrap();
    assert!(!answer.contains("rtcp-mux"));
    assert_eq!((media.rtcp_mux, media.rtcp), (false, address("192.0.2.1:4001")));
    assert!(answered(&laws(), &both).unwrap().rtcp_mux);
    assert!(!answered(&laws(), &apart).unwrap().rtcp_mux);
}

#[test]
fn what_the_pbx_wants_of_opus_is_read() {
    let asked = "fmtp:111 maxplaybackrate=16000; useinbandfec=1; usedtx=1;stereo=0 ;maxaveragebitrate=20000";
    let media = answered(&all(), &audio("RTP/AVP 111", &["rtpmap:111 opus/48000/2", asked])).unwrap();
    let wanted = OpusFormat { fec: true, dtx: true, stereo: false, max_bitrate: Some(20_000) };
    assert_eq!(media.opus, wanted);
    let media = answered(&all(), &audio("RTP/AVP 111", &["rtpmap:111 opus/48000/2"])).unwrap();
    assert_eq!(media.opus, OpusFormat::default());
}

#[test]
fn the_medium_speaks_before_the_session() {
    let text = "v=0\nc=IN IP4 192.0.2.1\na=inactive\nm=video 0 RTP/AVP 31\nm=audio 4000 RTP/AVP 97 98\n\
        c=IN IP4 192.0.2.2/127\na=rtpmap:97 iLBC/8000\na=rtpmap:98 pcma/8000/1\na=recvonly\n\
        a=rtcp:4100 IN IP4 192.0.2.3\n";
    let media = answered(&laws(), text).unwrap();
    assert_eq!(media.rtp, address("192.0.2.2:4000"));
    assert_eq!(media.rtcp, address("192.0.2.3:4100"));
    assert_eq!((media.codec, media.pt, media.dtmf), (Codec::Pcma, 98, None));
    assert_eq!(media.direction, Direction::RecvOnly);
}

#[test]
fn a_connection_of_zero_is_a_hold() {
    let theirs = audio("RTP/AVP 8", &[]);
    for zero in ["IN IP4 0.0.0.0", "IN IP6 ::"] {
        let held = theirs.replace("c=IN IP4 192.0.2.1", &format!("c={zero}"));
        let (answer, media) = called(&laws(), &held).unwrap();
        assert_eq!(media.direction, Direction::SendOnly, "{zero}");
        assert!(media.rtp.ip().is_unspecified() && answer.contains("a=recvonly\r\n"), "{answer}");
    }
}

#[test]
fn a_hold_is_answered_with_its_mirror_and_a_new_version() {
    let ours = offer(&laws());
    for (theirs, mirror) in [
        ("sendonly", "recvonly"),
        ("inactive", "inactive"),
        ("recvonly", "sendonly"),
        ("sendrecv", "sendrecv"),
    ] {
        let offered = audio("RTP/AVP 0 96", &["rtpmap:96 telephone-event/8000", theirs]);
        let text = reply(&ours, offered.as_bytes(), 2).unwrap();
        assert!(text.contains(&format!("a={mirror}\r\n")), "{text}");
        assert!(text.contains("o=watrunk 42 2 IN IP4 203.0.113.7\r\n"), "{text}");
        assert!(text.contains("m=audio 20000 RTP/AVP 0 96\r\n"), "the PBX's payload types: {text}");
    }
}

#[test]
fn every_other_medium_is_refused_in_its_place() {
    let theirs = audio("RTP/AVP 8", &[]);
    let around = theirs.replace("m=audio", "m=image 6000 udptl t38\r\nm=audio")
        + "m=video 5000 RTP/AVP 31\r\nm=audio 7000 RTP/AVP 0\r\n";
    let (answer, media) = called(&laws(), &around).unwrap();
    let lines: Vec<&str> = answer.lines().filter(|line| line.starts_with("m=")).collect();
    let wanted =
        ["m=image 0 udptl t38", "m=audio 20000 RTP/AVP 8", "m=video 0 RTP/AVP 31", "m=audio 0 RTP/AVP 0"];
    assert_eq!(lines, wanted);
    assert_eq!(media.rtp.port(), 4_000, "the audio that we took, not the first in the text");
}

#[test]
fn of_two_audio_lines_the_usable_one_is_taken() {
    let theirs =
        audio("RTP/SAVP 8", &["crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x"]) + "m=audio 4002 RTP/AVP 8\r\n";
    let (answer, media) = called(&laws(), &theirs).unwrap();
    assert!(answer.contains("m=audio 0 RTP/SAVP 8\r\nm=audio 20000 RTP/AVP 8\r\n"), "{answer}");
    assert_eq!((media.rtp.port(), media.keys), (4_002, None));
}

#[test]
fn what_cannot_be_used_is_named() {
    let fault = |text: &str| called(&laws(), text).unwrap_err();
    let good = audio("RTP/AVP 8", &[]);
    assert_eq!(fault(""), SdpError::Empty);
    assert_eq!(fault("v=0\r\n"), SdpError::NoAudio);
    assert_eq!(fault(&good.replace("m=audio 4000", "m=audio 0")), SdpError::Refused);
    assert_eq!(fault(&good.replace("RTP/AVP", "TCP/MRCPv2")), SdpError::Profile("TCP/MRCPv2".into()));
    assert_eq!(
        fault(&good.replace("c=IN IP4 192.0.2.1", "c=IN IP4 pbx.lan")),
        SdpError::Address("pbx.lan".into())
    );
    assert_eq!(
        fault(&good.replace("m=audio 4000", "m=audio 99999")),
        SdpError::Malformed { line: "m=audio 99999 RTP/AVP 8".into() }
    );
    assert_eq!(
        fault(&format!("{good}{}", "m=video 0 RTP/AVP 31\r\n".repeat(16))),
        SdpError::TooMuch("16 media")
    );
    assert_eq!(
        agreed("v=0\r\n", good.as_bytes()),
        Err(SdpError::Ours(Box::new(SdpError::NoAudio))),
        "our own mistakes don't look like the PBX's"
    );
}

#[test]
fn an_operator_reads_which_codecs_the_pbx_has_and_which_we_have() {
    let theirs = audio("RTP/AVP 18 97 3 101", &["rtpmap:97 iLBC/8000", "rtpmap:101 telephone-event/8000"]);
    let fault = called(&laws(), &theirs).unwrap_err();
    let wanted = "no codec in common: the PBX has G729, iLBC/8000, GSM, telephone-event/8000; \
        this trunk has PCMA, PCMU";
    assert_eq!(fault.to_string(), wanted);
    assert_eq!(answered(&laws(), &theirs).unwrap_err().to_string(), wanted);
}

#[test]
fn an_offer_made_again_keeps_everything_but_the_version() {
    for srtp in [SrtpPolicy::Off, SrtpPolicy::Optional, SrtpPolicy::Required] {
        let odd = LocalMedia { rtp: address("203.0.113.7:20001"), ..local(&Codec::ALL, srtp) };
        let ours = offer(&odd);
        assert_eq!(offer_again(&ours, 2).unwrap(), ours.replace("o=watrunk 42 1 ", "o=watrunk 42 2 "));
        assert_eq!(version_of(&ours), 1);
    }
}

#[test]
fn a_call_that_began_with_one_codec_can_change_to_another() {
    let ours = offer(&all());
    let began = audio("RTP/AVP 8", &[]);
    let first = reply(&ours, began.as_bytes(), 1).unwrap();
    assert_eq!(agreed(&first, began.as_bytes()).unwrap().codec, Codec::Pcma);
    let moved = audio("RTP/AVP 111 0", &["rtpmap:111 opus/48000/2"]);
    let second = reply(&ours, moved.as_bytes(), 2).unwrap();
    assert_eq!(agreed(&second, moved.as_bytes()).unwrap().codec, Codec::Opus);
}

#[test]
fn whether_an_offer_can_be_answered_is_known_before_our_address() {
    let theirs = audio("RTP/AVP 0", &[]);
    assert_eq!(answerable(&[Codec::Opus, Codec::Pcmu], SrtpPolicy::Optional, theirs.as_bytes()), Ok(()));
    let fault = answerable(&[Codec::Opus], SrtpPolicy::Off, theirs.as_bytes()).unwrap_err();
    assert_eq!(fault.to_string(), "no codec in common: the PBX has PCMU; this trunk has opus");
    let fault = answerable(&[Codec::Pcmu], SrtpPolicy::Required, theirs.as_bytes()).unwrap_err();
    assert_eq!(fault, SdpError::Plain { profile: "RTP/AVP".into() });
}
