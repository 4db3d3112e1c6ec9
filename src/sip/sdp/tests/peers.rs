//! What real PBXs, border controllers and phones send, and what comes of it.

use super::*;

const EVENT_8K: Option<Telephone> = Some(Telephone { pt: 101, clock: 8_000 });

/// 30 bytes of 0x41.
const A30: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB";

/// Session lines of `address`, then `media`; lines end as in SIP.
fn from(origin: &str, name: &str, address: &str, media: &str) -> String {
    let lines = format!("v=0\no={origin} IN IP4 {address}\ns={name}\nc=IN IP4 {address}\nt=0 0\n{media}\n");
    lines.lines().map(|line| format!("{}\r\n", line.trim_start())).collect()
}

fn asterisk(media: &str) -> String {
    from("- 1463217860 1463217862", "Asterisk", "10.0.0.5", media)
}

const ASTERISK: &str = "m=audio 14728 RTP/AVP 107 9 8 0 101
    a=rtpmap:107 opus/48000/2
    a=fmtp:107 useinbandfec=1
    a=rtpmap:9 G722/8000
    a=rtpmap:8 PCMA/8000
    a=rtpmap:0 PCMU/8000
    a=rtpmap:101 telephone-event/8000
    a=fmtp:101 0-16
    a=ptime:20
    a=maxptime:20
    a=sendrecv";

#[test]
fn asterisk_offers_and_gets_opus_under_its_own_number() {
    let (answer, media) = called(&all(), &asterisk(ASTERISK)).unwrap();
    assert!(answer.contains("m=audio 20000 RTP/AVP 107 101\r\na=rtpmap:107 opus/48000/2\r\n"), "{answer}");
    assert!(answer.contains("a=fmtp:107 useinbandfec=1;maxaveragebitrate=32000\r\n"), "{answer}");
    let wanted = RemoteMedia {
        rtp: address("10.0.0.5:14728"),
        rtcp: address("10.0.0.5:14729"),
        rtcp_mux: false,
        codec: Codec::Opus,
        pt: 107,
        heard_pt: 107,
        dtmf: EVENT_8K,
        comfort_noise: None,
        ptime_ms: Some(20),
        direction: Direction::SendRecv,
        keys: None,
        opus: OpusFormat { fec: true, ..OpusFormat::default() },
    };
    assert_eq!(media, wanted);
}

#[test]
fn asterisk_answers_g711() {
    let answer = "m=audio 10012 RTP/AVP 0 101
        a=rtpmap:0 PCMU/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-16
        a=ptime:20
        a=maxptime:140
        a=sendrecv";
    let media = answered(&all(), &asterisk(answer)).unwrap();
    assert_eq!(media.rtp, address("10.0.0.5:10012"));
    assert_eq!((media.codec, media.pt, media.heard_pt, media.dtmf), (Codec::Pcmu, 0, 0, EVENT_8K));
}

#[test]
fn asterisk_with_media_encryption_sdes() {
    let line = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{A30}");
    let offer = asterisk(&format!("{line}\n{ASTERISK}").replace("RTP/AVP", "RTP/SAVP"));
    // Its keys are below its m= line.
    let offer = offer.replace(&format!("{line}\r\n"), "") + &line + "\r\n";
    for policy in [SrtpPolicy::Optional, SrtpPolicy::Required] {
        let (answer, media) = called(&local(&[Codec::Pcma], policy), &offer).unwrap();
        assert!(
            answer.contains("m=audio 20000 RTP/SAVP 8 101\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:")
        );
        assert_eq!(media.keys.unwrap().theirs.as_bytes(), [0x41; 30]);
    }
    assert!(matches!(called(&all(), &offer), Err(SdpError::Encrypted { .. })));
}

#[test]
fn asterisk_with_media_encryption_optimistic() {
    let offer = asterisk(ASTERISK) + &format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{A30}\r\n");
    let (answer, media) = called(&local(&[Codec::Pcma], SrtpPolicy::Optional), &offer).unwrap();
    assert!(answer.contains("m=audio 20000 RTP/AVP 8 101\r\na=crypto:1 "), "{answer}");
    assert!(media.keys.is_some());
}

#[test]
fn asterisk_holds_and_resumes() {
    let held = asterisk(&ASTERISK.replace("sendrecv", "sendonly"));
    let (answer, media) = called(&laws(), &held).unwrap();
    assert!(answer.contains("a=recvonly\r\n"));
    assert_eq!(media.direction, Direction::SendOnly);
}

#[test]
fn asterisk_asks_for_a_fax_and_is_refused() {
    let fax = "m=image 4382 udptl t38\na=T38FaxVersion:0\na=T38MaxBitRate:14400";
    assert_eq!(called(&all(), &asterisk(fax)).unwrap_err(), SdpError::NoAudio);
}

const FREESWITCH: &str = "m=audio 26354 RTP/AVP 102 9 8 0 103 101 13
    a=rtpmap:102 opus/48000/2
    a=fmtp:102 useinbandfec=1; maxaveragebitrate=30000; maxplaybackrate=48000; ptime=20; minptime=10; maxptime=40
    a=rtpmap:9 G722/8000
    a=rtpmap:8 PCMA/8000
    a=rtpmap:0 PCMU/8000
    a=rtpmap:103 telephone-event/48000
    a=fmtp:103 0-16
    a=rtpmap:101 telephone-event/8000
    a=fmtp:101 0-16
    a=rtpmap:13 CN/8000
    a=ptime:20";

fn freeswitch(media: &str) -> String {
    from("FreeSWITCH 1700000000 1700000001", "FreeSWITCH", "198.51.100.20", media)
}

#[test]
fn freeswitch_offers_digits_in_two_clocks_and_comfort_noise() {
    let (answer, media) = called(&all(), &freeswitch(FREESWITCH)).unwrap();
    assert!(answer.contains("m=audio 20000 RTP/AVP 102 103\r\n"), "{answer}");
    assert_eq!((media.codec, media.dtmf), (Codec::Opus, Some(Telephone { pt: 103, clock: 48_000 })));
    let wanted = OpusFormat { fec: true, max_bitrate: Some(30_000), ..OpusFormat::default() };
    assert_eq!((media.opus, media.comfort_noise), (wanted, None));
    let (answer, media) = called(&local(&[Codec::G722], SrtpPolicy::Off), &freeswitch(FREESWITCH)).unwrap();
    assert!(answer.contains("m=audio 20000 RTP/AVP 9 101 13\r\n"), "{answer}");
    assert_eq!((media.codec, media.dtmf, media.comfort_noise), (Codec::G722, EVENT_8K, Some(13)));
}

/// `rtp_secure_media=optional`: the same sound twice, suites that nobody else has first.
#[test]
fn freeswitch_offers_srtp_and_rtp_side_by_side() {
    let formats = "a=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\na=ptime:20";
    let twice = freeswitch(&format!(
        "m=audio 26354 RTP/SAVP 8 101
        {formats}
        a=crypto:1 AEAD_AES_256_GCM_8 inline:{key}
        a=crypto:2 AES_CM_256_HMAC_SHA1_80 inline:{key}
        a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:{A30}
        m=audio 26354 RTP/AVP 8 101
        {formats}",
        key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
    ));
    let (answer, media) = called(&local(&[Codec::Pcma], SrtpPolicy::Optional), &twice).unwrap();
    assert!(answer.contains("a=crypto:3 AES_CM_128_HMAC_SHA1_80 "), "{answer}");
    assert!(answer.contains("m=audio 0 RTP/AVP 8 101\r\n") && media.keys.is_some(), "{answer}");
    let (answer, media) = called(&laws(), &twice).unwrap();
    assert!(answer.contains("m=audio 0 RTP/SAVP 8 101\r\n") && media.keys.is_none(), "{answer}");
}

#[test]
fn kamailio_with_rtpengine_moves_the_sound_and_shares_the_port() {
    let keys = [
        ("AEAD_AES_256_GCM", 44),
        ("AEAD_AES_128_GCM", 28),
        ("AES_256_CM_HMAC_SHA1_80", 46),
        ("AES_192_CM_HMAC_SHA1_80", 38),
        ("AES_CM_128_HMAC_SHA1_80", 30),
        ("AES_CM_128_HMAC_SHA1_32", 30),
        ("F8_128_HMAC_SHA1_80", 30),
        ("NULL_HMAC_SHA1_80", 30),
    ];
    let mut media = "m=audio 30012 RTP/SAVP 8 0 101
        c=IN IP4 203.0.113.40
        a=rtpmap:8 PCMA/8000
        a=rtpmap:0 PCMU/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=sendrecv
        a=rtcp:30012
        a=rtcp-mux"
        .to_owned();
    for (tag, (suite, bytes)) in (1..).zip(keys) {
        let key = Key::from_bytes(&vec![0x41; bytes])
            .map(|key| key.to_base64())
            .unwrap_or_else(|| "QUFB".repeat(15));
        media.push_str(&format!("\na=crypto:{tag} {suite} inline:{key}"));
    }
    let theirs = from("- 18446744073709551615 99999999999999999999", "-", "10.0.0.9", &media);
    let (answer, media) = called(&local(&[Codec::Pcma], SrtpPolicy::Required), &theirs).unwrap();
    assert!(answer.contains("a=crypto:1 AEAD_AES_256_GCM ") && answer.contains("a=rtcp-mux\r\n"), "{answer}");
    assert_eq!((media.rtp, media.rtcp), (address("203.0.113.40:30012"), address("203.0.113.40:30012")));
    let keys = media.keys.unwrap();
    assert_eq!((keys.suite, keys.theirs.as_bytes().len()), (Suite::AeadAes256Gcm, 44));
}

#[test]
fn rtpengine_answers_with_rtcp_on_its_own_port() {
    let answer = "m=audio 30044 RTP/AVP 8 101
        a=rtpmap:8 PCMA/8000
        a=rtpmap:101 telephone-event/8000
        a=sendrecv
        a=rtcp:30045
        a=ptime:20";
    let media = answered(&all(), &from("- 7 7", "-", "203.0.113.40", answer)).unwrap();
    assert_eq!((media.rtp.port(), media.rtcp.port(), media.rtcp_mux), (30_044, 30_045, false));
}

#[test]
fn _3cx_offers_g711() {
    let offer = "m=audio 9014 RTP/AVP 8 0 101
        a=rtpmap:8 PCMA/8000
        a=rtpmap:0 PCMU/8000
        a=rtpmap:101 telephone-event/8000
        a=sendrecv";
    let theirs = from("3cxPS 512364544 388435968", "3cxPS Audio call", "192.168.1.10", offer);
    let (_, media) = called(&all(), &theirs).unwrap();
    assert_eq!((media.codec, media.pt, media.dtmf, media.ptime_ms), (Codec::Pcma, 8, EVENT_8K, None));
}

#[test]
fn cisco_cube_has_comfort_noise_at_19_and_g729_first() {
    let offer = "m=audio 8002 RTP/AVP 18 0 8 101 19
        c=IN IP4 10.10.1.2
        a=rtpmap:18 G729/8000
        a=fmtp:18 annexb=no
        a=rtpmap:0 PCMU/8000
        a=rtpmap:8 PCMA/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-16
        a=rtpmap:19 CN/8000
        a=ptime:20";
    let theirs = from("CiscoSystemsSIP-GW-UserAgent 5871 4532", "SIP Call", "10.10.1.1", offer);
    let (answer, media) = called(&laws(), &theirs).unwrap();
    assert!(answer.contains("m=audio 20000 RTP/AVP 8 101 19\r\n"), "{answer}");
    assert_eq!(media.rtp, address("10.10.1.2:8002"));
    assert_eq!((media.codec, media.comfort_noise, media.dtmf), (Codec::Pcma, Some(19), EVENT_8K));
}

/// Capability negotiation (RFC 5939) that we don't take part in: the m= line counts.
#[test]
fn avaya_offers_srtp_as_a_capability_and_digits_at_127() {
    let offer = format!(
        "b=AS:64
        a=avf:avc=n prio=n
        a=csup:avf-v0
        m=audio 2056 RTP/AVP 18 8 0 127
        a=tcap:1 RTP/SAVP
        a=acap:1 crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{A30}
        a=pcfg:1 t=1 a=1
        a=rtpmap:18 G729/8000
        a=rtpmap:127 telephone-event/8000
        a=fmtp:127 0-15
        a=ptime:20"
    );
    let theirs = from("- 1 2", "-", "10.1.1.31", &offer);
    let (answer, media) = called(&local(&[Codec::Pcmu, Codec::Pcma], SrtpPolicy::Optional), &theirs).unwrap();
    assert!(answer.contains("m=audio 20000 RTP/AVP 0 127\r\n") && !answer.contains("crypto"), "{answer}");
    assert_eq!((media.codec, media.dtmf), (Codec::Pcmu, Some(Telephone { pt: 127, clock: 8_000 })));
    assert_eq!(media.keys, None);
}

#[test]
fn baresip_speaks_stereo_opus_and_names_its_rtcp() {
    let offer = "a=tool:baresip 3.10.1
        m=audio 19832 RTP/AVP 96 9 0 8 101
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 stereo=1;sprop-stereo=1
        a=rtpmap:9 G722/8000
        a=rtpmap:0 PCMU/8000
        a=rtpmap:8 PCMA/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=rtcp:19833
        a=rtcp-mux
        a=rtcp-rsize
        a=sendrecv
        a=label:1
        a=ssrc:2311434021 cname:sip:bob@example.com
        a=ptime:20";
    let theirs = from("- 3793817361 1043816312", "-", "192.168.0.11", offer);
    let (_, media) = called(&all(), &theirs).unwrap();
    assert_eq!((media.codec, media.pt, media.rtcp_mux), (Codec::Opus, 96, true));
    assert_eq!(media.opus, OpusFormat { stereo: true, ..OpusFormat::default() });
    let (_, media) = called(&local(&[Codec::G722, Codec::Pcma], SrtpPolicy::Off), &theirs).unwrap();
    assert_eq!((media.codec, media.pt, media.rtcp), (Codec::G722, 9, media.rtp));
}

#[test]
fn linphone_offers_feedback_and_digits_in_three_clocks() {
    let offer = "a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics
        a=record:off
        m=audio 7078 RTP/AVPF 96 97 98 0 8 18 101 99 100
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 useinbandfec=1
        a=rtpmap:97 speex/16000
        a=fmtp:97 vbr=on
        a=rtpmap:98 speex/8000
        a=fmtp:98 vbr=on
        a=fmtp:18 annexb=yes
        a=rtpmap:101 telephone-event/48000
        a=rtpmap:99 telephone-event/16000
        a=rtpmap:100 telephone-event/8000
        a=rtcp-fb:* trr-int 5000
        a=rtcp-fb:* ccm tmmbr";
    let theirs = from("alice 3570 2145", "Talk", "192.168.1.23", offer);
    let (answer, media) = called(&all(), &theirs).unwrap();
    assert!(answer.contains("m=audio 20000 RTP/AVPF 96 101\r\n"), "{answer}");
    assert_eq!((media.codec, media.dtmf), (Codec::Opus, Some(Telephone { pt: 101, clock: 48_000 })));
    let (_, media) = called(&laws(), &theirs).unwrap();
    assert_eq!((media.codec, media.dtmf), (Codec::Pcma, Some(Telephone { pt: 100, clock: 8_000 })));
}

#[test]
fn linphone_takes_our_best_effort_keys() {
    let answer = format!(
        "m=audio 7078 RTP/AVP 96 101
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 useinbandfec=1
        a=rtpmap:101 telephone-event/8000
        a=crypto:4 AES_CM_128_HMAC_SHA1_32 inline:{A30}
        a=rtcp-mux"
    );
    let theirs = from("alice 3570 2145", "Talk", "192.168.1.23", &answer);
    let media = answered(&local(&Codec::ALL, SrtpPolicy::Optional), &theirs).unwrap();
    assert_eq!((media.codec, media.rtcp_mux), (Codec::Opus, true));
    assert_eq!(media.keys.unwrap().suite, Suite::AesCm128HmacSha1_32);
}
