//! Keys: which are offered, which are taken, which are refused and why.

use super::*;
use crate::sip::sdp::crypto::Crypto;

const CM: &str = "AES_CM_128_HMAC_SHA1_80";
/// 30 bytes of 0x41 and 0x42.
const A30: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB";
const B30: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC";

fn optional() -> LocalMedia {
    local(&[Codec::Pcma], SrtpPolicy::Optional)
}

fn required() -> LocalMedia {
    local(&[Codec::Pcma], SrtpPolicy::Required)
}

fn off() -> LocalMedia {
    local(&[Codec::Pcma], SrtpPolicy::Off)
}

/// Our a=crypto lines.
fn lines(text: &str) -> Vec<Crypto> {
    text.lines()
        .filter_map(|line| line.strip_prefix("a=crypto:"))
        .map(|line| Crypto::read(line).unwrap())
        .collect()
}

#[test]
fn four_keys_are_offered_the_strongest_first() {
    for (local, profile) in [(optional(), "RTP/AVP"), (required(), "RTP/SAVP")] {
        let text = offer(&local);
        assert!(text.contains(&format!("m=audio 20000 {profile} 8 101\r\n")), "{text}");
        let offered: Vec<(u32, &str, usize)> = lines(&text)
            .iter()
            .map(|line| (line.tag, line.suite.name(), line.key.as_bytes().len()))
            .collect();
        let wanted = [
            (1, "AEAD_AES_256_GCM", 44),
            (2, "AEAD_AES_128_GCM", 28),
            (3, "AES_CM_128_HMAC_SHA1_80", 30),
            (4, "AES_CM_128_HMAC_SHA1_32", 30),
        ];
        assert_eq!(offered, wanted);
    }
}

#[test]
fn every_key_comes_from_the_secret_and_is_used_once() {
    let keys = |secret: u8| -> Vec<String> {
        lines(&offer(&LocalMedia { secret: [secret; 32], ..required() }))
            .iter()
            .map(|line| line.key.to_base64())
            .collect()
    };
    assert_eq!(keys(1), keys(1), "a re-offer keeps its keys");
    let mut all = [keys(1), keys(2)].concat();
    all.sort();
    all.dedup_by(|later, earlier| later.get(..8) == earlier.get(..8));
    assert_eq!(all.len(), 8, "no two suites or calls share one");
}

#[test]
fn our_keys_are_hkdf_of_the_secret() {
    // Computed with another program: HKDF-Expand(secret, "watrunk srtp AEAD_AES_256_GCM", 44).
    let text = offer(&LocalMedia { secret: std::array::from_fn(|at| at as u8), ..required() });
    assert!(text.contains("a=crypto:1 AEAD_AES_256_GCM inline:kJ52Y7GGXAyI8oHXXnSQxDJqHD9ac7krSSTXzzcEcw58dJ9F0Ks8g54pFYU=\r\n"), "{text}");
    assert!(
        text.contains(
            "a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:MhQkTvMD7fFv4b7i6zcmAdo2veLO709HdY78aNEW\r\n"
        ),
        "{text}"
    );
}

#[test]
fn an_answer_takes_one_of_our_keys() {
    let ours = offer(&required());
    let theirs = audio("RTP/SAVP 8", &[&format!("crypto:3 {CM} inline:{A30}")]);
    let keys = agreed(&ours, theirs.as_bytes()).unwrap().keys.unwrap();
    assert_eq!(keys.suite, Suite::AesCm128HmacSha1_80);
    assert_eq!(keys.ours, lines(&ours)[2].key);
    assert_eq!(keys.theirs, Key::from_bytes(&[0x41; 30]).unwrap());
}

#[test]
fn an_answer_with_a_tag_or_a_suite_that_we_did_not_offer_is_refused() {
    for line in [format!("9 {CM} inline:{A30}"), format!("4 {CM} inline:{A30}")] {
        let theirs = audio("RTP/SAVP 8", &[&format!("crypto:{line}")]);
        for local in [optional(), required()] {
            match answered(&local, &theirs) {
                Err(SdpError::NotOffered { taken, ours }) => {
                    assert!(
                        line.starts_with(&taken) && ours.starts_with("1 AEAD_AES_256_GCM, 2 "),
                        "{taken} {ours}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn the_first_suite_that_we_know_is_answered_under_its_tag_with_our_key() {
    let offered = [
        format!("crypto:7 F8_128_HMAC_SHA1_80 inline:{A30}"),
        format!("crypto:8 {CM} inline:{A30}|2^31|1:1"),
        format!("crypto:9 aes_cm_128_hmac_sha1_32 inline:{B30}|2^20 WSH=128 -later"),
        format!("crypto:10 {CM} inline:{A30}"),
    ];
    let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
    let theirs = audio("RTP/SAVP 8", &offered);
    for local in [optional(), required()] {
        let (answer, media) = called(&local, &theirs).unwrap();
        let mine = lines(&offer(&local))[3].key.clone();
        assert!(answer.contains("m=audio 20000 RTP/SAVP 8"), "{answer}");
        assert_eq!(lines(&answer), [Crypto { tag: 9, suite: Suite::AesCm128HmacSha1_32, key: mine.clone() }]);
        let theirs = Key::from_bytes(&[0x42; 30]).unwrap();
        assert_eq!(media.keys, Some(Keys { suite: Suite::AesCm128HmacSha1_32, ours: mine, theirs }));
    }
}

#[test]
fn a_line_that_we_could_not_keep_to_is_not_used() {
    for (line, why) in [
        (format!("1 {CM} inline:{A30} UNENCRYPTED_SRTP"), "a=crypto:1 wants UNENCRYPTED_SRTP"),
        (format!("1 {CM} inline:{A30} UNAUTHENTICATED_SRTP"), "a=crypto:1 wants UNAUTHENTICATED_SRTP"),
        (format!("1 {CM} inline:{A30} KDR=4"), "a=crypto:1 wants KDR"),
        (format!("1 {CM} inline:{A30} FEC_KEY=inline:{B30}"), "a=crypto:1 wants FEC_KEY"),
        (format!("1 {CM} inline:{A30}|2^20|1:4"), "a=crypto:1 has an MKI"),
        (format!("1 {CM} inline:{A30}|1:4"), "a=crypto:1 has an MKI"),
        (format!("1 {CM} inline:{A30}|1:1;inline:{B30}|2:1"), "a=crypto:1 has an MKI"),
        (format!("1 AEAD_AES_128_GCM inline:{A30}"), "the key of a=crypto:1 is not 28 bytes"),
        (format!("1 {CM} inline:{}", &A30[..36]), "the key of a=crypto:1 is not 30 bytes"),
        (format!("1 {CM} inline:{A30}{A30}{A30}"), "the key of a=crypto:1 is not 30 bytes"),
        (format!("1 {CM} uri:{A30}"), "a=crypto is not \"tag suite inline:key\""),
        (format!("1 inline:{A30} {CM}"), "a=crypto is not \"tag suite inline:key\""),
        (format!("1234567890 {CM} inline:{A30}"), "a=crypto is not \"tag suite inline:key\""),
        ("1".to_owned(), "a=crypto is not \"tag suite inline:key\""),
        (format!("1 AES_192_CM_HMAC_SHA1_80 inline:{A30}"), "suite AES_192_CM_HMAC_SHA1_80 is not known"),
    ] {
        let theirs = audio("RTP/SAVP 8", &[&format!("crypto:{line}")]);
        let fault = called(&required(), &theirs).unwrap_err();
        assert!(fault.to_string().contains(why), "{line}: {fault}");
        assert!(!fault.to_string().contains("QUFB"), "a key in an error: {fault}");
        assert_eq!(answered(&required(), &theirs), Err(fault));
        let best_effort = theirs.replace("RTP/SAVP", "RTP/AVP");
        let (answer, media) = called(&optional(), &best_effort).unwrap();
        assert!(!answer.contains("crypto") && media.keys.is_none(), "{answer}");
    }
}

#[test]
fn keys_without_padding_are_read() {
    let keys = |inline: &str| {
        let theirs = audio("RTP/SAVP 8", &[&format!("crypto:1 AEAD_AES_256_GCM inline:{inline}")]);
        answered(&required(), &theirs).unwrap().keys.unwrap().theirs
    };
    let key = Key::from_bytes(&[9; 44]).unwrap();
    assert!(key.to_base64().ends_with('='));
    assert_eq!(keys(&key.to_base64()), key);
    assert_eq!(keys(key.to_base64().trim_end_matches('=')), key);
}

#[test]
fn with_srtp_off_an_encrypted_offer_is_refused_and_says_why() {
    let line = format!("crypto:1 {CM} inline:{A30}");
    let theirs = audio("RTP/SAVP 8", &[&line]);
    let fault = called(&off(), &theirs).unwrap_err();
    assert_eq!(fault, SdpError::Encrypted { profile: "RTP/SAVP".into() });
    assert_eq!(fault.to_string(), "audio profile RTP/SAVP is SRTP, and srtp is \"off\" for this trunk");
    let best_effort = audio("RTP/AVP 8", &[&line]);
    let (answer, media) = called(&off(), &best_effort).unwrap();
    assert!(!answer.contains("crypto") && media.keys.is_none(), "{answer}");
}

#[test]
fn with_srtp_required_nothing_goes_in_the_clear() {
    for attributes in [&[][..], &[format!("crypto:3 {CM} inline:{A30}").as_str()]] {
        let theirs = audio("RTP/AVP 8", attributes);
        let fault = called(&required(), &theirs).unwrap_err();
        assert_eq!(fault, SdpError::Plain { profile: "RTP/AVP".into() });
        assert_eq!(
            fault.to_string(),
            "audio profile RTP/AVP is not SRTP, and srtp is \"required\" for this trunk"
        );
        assert_eq!(answered(&required(), &theirs), Err(fault));
    }
}

#[test]
fn with_srtp_optional_the_pbx_decides() {
    let line = format!("crypto:1 {CM} inline:{A30}");
    for (theirs, encrypted) in [
        (audio("RTP/AVP 8", &[]), false),
        (audio("RTP/AVP 8", &[&line]), true),
        (audio("RTP/SAVP 8", &[&line]), true),
        (audio("RTP/SAVPF 8", &[&line]), true),
        (audio("RTP/AVPF 8", &[]), false),
    ] {
        let (answer, media) = called(&optional(), &theirs).unwrap();
        assert_eq!(
            (answer.contains("a=crypto:1 "), media.keys.is_some()),
            (encrypted, encrypted),
            "{answer}"
        );
    }
    assert_eq!(answered(&optional(), &audio("RTP/AVP 8", &[])).unwrap().keys, None);
    let taken = audio("RTP/AVP 8", &[&format!("crypto:3 {CM} inline:{A30}")]);
    assert!(answered(&optional(), &taken).unwrap().keys.is_some());
    assert_eq!(
        called(&optional(), &audio("RTP/SAVP 8", &[])).unwrap_err(),
        SdpError::NoKey { why: "no a=crypto line".into() }
    );
}

#[test]
fn a_hold_and_its_end_change_no_key() {
    let ours = offer(&required());
    let line = format!("crypto:1 {CM} inline:{A30}");
    let keys = |direction: &str, version| {
        let theirs = audio("RTP/SAVP 8", &[&line, direction]);
        let answer = reply(&ours, theirs.as_bytes(), version).unwrap();
        agreed(&answer, theirs.as_bytes()).unwrap().keys.unwrap()
    };
    let talking = keys("sendrecv", 1);
    assert_eq!(keys("sendonly", 2), talking);
    assert_eq!(keys("sendrecv", 3), talking);
    assert_eq!(lines(&offer_again(&ours, 4).unwrap()), lines(&ours));
}

#[test]
fn dtls_is_refused_by_its_name() {
    let fingerprint = "fingerprint:sha-256 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B";
    for (profile, policy) in [
        ("UDP/TLS/RTP/SAVPF", off()),
        ("UDP/TLS/RTP/SAVP", required()),
        ("RTP/SAVPF", optional()),
        ("TCP/DTLS/RTP/SAVP", optional()),
    ] {
        let theirs = audio(&format!("{profile} 8"), &[fingerprint, "setup:actpass"]);
        let fault = called(&policy, &theirs).unwrap_err();
        assert_eq!(fault, SdpError::Dtls(profile.into()));
        assert!(fault.to_string().contains("wants SRTP keys by DTLS"));
    }
}

#[test]
fn no_key_is_ever_printed() {
    let ours = offer(&required());
    let theirs = audio("RTP/SAVP 8", &[&format!("crypto:3 {CM} inline:{A30}")]);
    let media = agreed(&ours, theirs.as_bytes()).unwrap();
    let printed = format!("{media:?} {:?}", LocalMedia { secret: [0x41; 32], ..required() });
    assert!(printed.contains("Key(30 bytes)"), "{printed}");
    for secret in ["65, 65", "QUFB", "secret"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    let folded = format!("{theirs} inline:{A30}\r\n");
    assert!(!answered(&required(), &folded).unwrap_err().to_string().contains("QUFB"));
}
