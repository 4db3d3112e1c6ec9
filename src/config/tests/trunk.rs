//! The PBX side: transports, TLS, groups, limits on dialling.

use super::*;

/// A good file whose trunk has these lines too, from line 11.
fn trunk(lines: &str) -> String {
    with("[[trunk]]", &format!("[[trunk]]\n{lines}"))
}

fn server(server: &str) -> String {
    with("sip:192.168.1.10:5070;transport=udp", server)
}

#[test]
fn every_key_of_a_trunk_reaches_its_field() {
    let text = r#"
tls_ca = "/etc/watrunk/agents.pem"
group = "site"
priority = 0
weight = 65535
challenge = true
codecs = ["g722"]
srtp = "required"
dtmf = "info"
learn_media = true
session_expires = 90
dial_allow = ["+49", "+1"]
dial_per_minute = 5
dial_per_day = 0
"#;
    let config = good(&trunk(text).replace("sip:192.168.1.10:5070;transport=udp", "sips:pbx.example.com"));
    let trunk = &config.trunks[0];
    assert_eq!(trunk.tls_ca.as_deref(), Some(Path::new("/etc/watrunk/agents.pem")));
    assert_eq!((trunk.group.as_deref(), trunk.priority, trunk.weight), (Some("site"), 0, 65_535));
    assert!(trunk.challenge && trunk.learn_media);
    assert_eq!(trunk.codecs, [Codec::G722]);
    assert_eq!((trunk.srtp, trunk.dtmf), (Srtp::Required, Dtmf::Info));
    assert_eq!((trunk.session_expires, trunk.dial_allow.join(" ").as_str()), (Some(90), "+49 +1"));
    assert_eq!((trunk.dial_per_minute, trunk.dial_per_day), (5, 0));
    let plain = &good(GOOD).trunks[0];
    assert_eq!((plain.priority, plain.weight, &plain.group, &plain.tls_ca), (10, 10, &None, &None));
    assert_eq!((plain.challenge, plain.learn_media, plain.session_expires), (false, false, Some(1_800)));
    assert_eq!((plain.dial_per_minute, plain.dial_per_day, plain.dial_allow.len()), (60, 0, 0));
    assert_eq!(good(&self::trunk("session_expires = 0")).trunks[0].session_expires, None);
}

#[test]
fn a_server_says_how_it_is_reached() {
    let cases = [
        ("sip:10.0.0.1", None, 5060, false),
        ("sip:10.0.0.1:5080", None, 5080, false),
        ("sip:pbx.example.com", None, 5060, true),
        ("sip:pbx.example.com:5060", None, 5060, false),
        ("sip:pbx.example.com;transport=UDP", Some(Transport::Udp), 5060, false),
        ("sip:pbx.example.com;transport=tcp", Some(Transport::Tcp), 5060, false),
        ("sip:pbx.example.com:5066;Transport=tcp", Some(Transport::Tcp), 5066, false),
        ("sip:pbx.example.com;transport=tls", Some(Transport::Tls), 5061, false),
        ("SIPS:pbx.example.com", Some(Transport::Tls), 5061, false),
        ("sips:[2001:db8::9]:5071;transport=tcp", Some(Transport::Tls), 5071, false),
    ];
    for (text, transport, port, by_dns) in cases {
        let config = good(&server(text));
        let trunk = &config.trunks[0];
        assert_eq!(
            (trunk.transport, trunk.port(), trunk.located_by_dns()),
            (transport, port, by_dns),
            "{text}"
        );
        assert_eq!(trunk.server, text);
    }
    let told = |text: &str| faults(&server(text)).join("\n");
    assert_eq!(
        told("sip:pbx;transport=ws"),
        "w.toml:12: trunk.server: has transport=ws: it must be udp, tcp or tls"
    );
    assert_eq!(told("sip:pbx;transport=udp;transport=tcp"), "w.toml:12: trunk.server: names two transports");
    assert!(told("sips:me@pbx").ends_with("must not have a user part: the user goes into `username`"));
}

#[test]
fn a_destination_leaves_its_transport_to_a_trunk() {
    let told = faults(&with("sip:200@pbx", "sip:200@10.0.0.1;transport=tls"));
    assert_eq!(
        told,
        [
            "w.toml:20: number.forward_to: transport=tls is not supported by this version in a destination: make the host a [[trunk]], whose server says so, and name that"
        ]
    );
}

#[test]
fn tls_of_our_own_needs_address_certificate_and_key() {
    let tls = "tls_listen = \"0.0.0.0:5061\"\ntls_cert = \"/etc/watrunk/sip.pem\"\ntls_key = \"/etc/watrunk/sip.key\"\n";
    let config = good(&plus(&format!("[sip]\n{tls}")));
    let found = config.sip.tls.unwrap();
    assert_eq!((found.listen.port(), found.cert), (5061, PathBuf::from("/etc/watrunk/sip.pem")));
    assert_eq!(found.key, Path::new("/etc/watrunk/sip.key"));
    assert_eq!(good(GOOD).sip.tls, None);
    for missing in ["tls_listen", "tls_cert", "tls_key"] {
        let lines: String =
            tls.lines().filter(|line| !line.starts_with(missing)).map(|l| format!("{l}\n")).collect();
        let told = faults(&plus(&format!("[sip]\n{lines}")));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("w.toml:21: sip.{missing}: is missing, but `tls_")), "{told:?}");
    }
    let at =
        |port: u16, more: &str| plus(&format!("[sip]\n{more}{}", tls.replace("5061", &port.to_string())));
    assert_eq!(
        faults(&at(5060, "")),
        ["w.toml:22: sip.tls_listen: is the address of sip.listen too (0.0.0.0:5060)"]
    );
    assert_eq!(
        faults(&at(8080, "")),
        ["w.toml:22: sip.tls_listen: is the address of http.listen too (127.0.0.1:8080)"]
    );
    assert_eq!(
        faults(&at(20_001, "")),
        ["w.toml:7: media.rtp_ports: 20000-20199 holds port 20001, which is that of sip.tls_listen"]
    );
    let itself = at(5071, "").replace("sip:192.168.1.10:5070;transport=udp", "sips:127.0.0.1:5071");
    assert!(
        faults(&itself)[0].contains("is this gateway's own address (sip.tls_listen is 0.0.0.0:5071)"),
        "{:?}",
        faults(&itself)
    );
    good(&server("sips:127.0.0.1:5060"));
}

#[test]
fn a_file_that_is_no_certificate_or_key_is_told_apart() {
    let twice = format!("{CERTIFICATE}{CERTIFICATE}");
    let old = KEY.replace("PRIVATE KEY", "RSA PRIVATE KEY");
    let files = [
        ("chain.pem", twice.as_str()),
        ("old.key", &old),
        ("a.key", KEY),
        ("cut.pem", "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n"),
        ("odd.pem", "-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n"),
        ("der.pem", "0\u{3}\u{2}\u{1}"),
        ("text.pem", "hello"),
        (
            "locked.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAMCAQE=\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ),
    ];
    let files = files.map(|(path, text)| (PathBuf::from(path), text.to_owned())).into();
    let vault = Vault { files, ..Vault::default() };
    let told = |cert: &str, key: &str| {
        let text =
            format!("[sip]\ntls_listen = \"0.0.0.0:5061\"\ntls_cert = \"{cert}\"\ntls_key = \"{key}\"\n");
        match Config::parse(&plus(&text), &vault) {
            Ok(_) => String::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    };
    assert_eq!(told("chain.pem", "a.key"), "");
    assert_eq!(told("chain.pem", "old.key"), "");
    assert_eq!(told("none.pem", "a.key"), "line 23: sip.tls_cert: can't read \"none.pem\": no such file");
    for (cert, what) in [
        ("cut.pem", "holds a broken certificate"),
        ("odd.pem", "holds a broken certificate"),
        ("der.pem", "is DER, not PEM; turn it into PEM with openssl: -inform der -in FILE -out FILE.pem"),
        ("text.pem", "holds no certificate (PEM: it begins with \"-----BEGIN CERTIFICATE-----\")"),
        (
            "a.key",
            "holds no certificate (PEM: it begins with \"-----BEGIN CERTIFICATE-----\"); it holds a key instead",
        ),
    ] {
        assert_eq!(told(cert, "a.key"), format!("line 23: sip.tls_cert: \"{cert}\" {what}"));
    }
    for (key, what) in [
        ("locked.key", "is locked with a passphrase; unlock it: openssl pkey -in LOCKED -out KEY"),
        (
            "chain.pem",
            "holds no private key (PEM: it begins with \"-----BEGIN PRIVATE KEY-----\"); it holds a certificate instead",
        ),
    ] {
        assert_eq!(told("chain.pem", key), format!("line 24: sip.tls_key: \"{key}\" {what}"));
    }
}

#[test]
fn whom_a_tls_trunk_believes_is_told_by_an_authority_or_a_fingerprint() {
    let pin = "AB:".repeat(31) + "cd";
    let pinned =
        |server: &str, lines: &str| trunk(lines).replace("sip:192.168.1.10:5070;transport=udp", server);
    let config = good(&pinned("sip:pbx.example.com;transport=tls", &format!("tls_pin = \"{pin}\"")));
    let mut expected = [0xab; 32];
    expected[31] = 0xcd;
    assert_eq!(config.trunks[0].tls_pin, Some(expected));
    assert_eq!(
        faults(&pinned("sips:pbx", "tls_pin = \"abcd\"")),
        [
            "w.toml:11: trunk.tls_pin: must be 64 hex digits, colons allowed, as openssl x509 -noout -fingerprint -sha256 -in FILE prints them"
        ]
    );
    let without = "is for TLS, but `server` does not say that it is reached by TLS; write server = \"sips:…\", or \";transport=tls\" behind it";
    for server in ["sip:pbx.example.com", "sip:pbx.example.com;transport=tcp", "sip:10.0.0.1:5061"] {
        assert_eq!(
            faults(&pinned(server, &format!("tls_pin = \"{pin}\"\ntls_ca = \"/etc/watrunk/sip.pem\""))),
            [format!("w.toml:11: trunk.tls_pin: {without}"), format!("w.toml:12: trunk.tls_ca: {without}")]
        );
    }
    assert_eq!(
        notes(&pinned("sips:pbx", &format!("tls_pin = \"{pin}\"\ntls_ca = \"/etc/watrunk/sip.pem\""))),
        ["w.toml:12: trunk.tls_ca: of no use beside tls_pin, which alone decides"]
    );
    assert_eq!(
        faults(&pinned("sips:pbx", "tls_ca = \"gone.pem\"")),
        ["w.toml:11: trunk.tls_ca: can't read \"gone.pem\": no such file"]
    );
}

#[test]
fn encrypted_sound_whose_keys_cross_in_the_clear_is_noted() {
    let clear = "w.toml:11: trunk.srtp: without TLS the keys cross in the clear: whoever sees the SIP messages can hear the call";
    assert_eq!(notes(&trunk("srtp = \"required\"")), [clear]);
    assert_eq!(notes(&trunk("srtp = \"optional\"")), [clear]);
    let secure = trunk("srtp = \"required\"").replace("transport=udp", "transport=tls");
    assert_eq!(notes(&secure), Vec::<String>::new());
}

#[test]
fn trunks_of_a_group_are_meant_by_its_name() {
    let more = |line: &str| {
        format!(
            "[[trunk]]\nname = \"second\"\nserver = \"sip:10.0.0.2\"\nregister = false\ngroup = \"site\"\n{line}\n"
        )
    };
    let first =
        trunk("group = \"site\"\npriority = 20").replace("sip:200@pbx\"", "sip:200@site\"\ntrunk = \"site\"");
    let config = good(&format!("{first}{}", more("")));
    let names = |name: &str| config.trunks_named(name).iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    assert_eq!(names("site"), ["second", "pbx"], "the lower priority number comes first");
    assert_eq!(names("pbx"), ["pbx"]);
    assert_eq!(names("nobody"), Vec::<String>::new());
    let told = faults(&format!("{}{}", first.replace("@site", "@sitte"), more("")));
    assert_eq!(
        told,
        [
            "w.toml:22: number.forward_to: there is no [[trunk]] with the name \"sitte\"; did you mean \"site\"?"
        ]
    );
    let taken = faults(&plus(&more("").replace("\"site\"", "\"pbx\"")));
    assert_eq!(
        taken,
        [
            "w.toml:25: trunk[2].group: \"pbx\" is a trunk's own name (trunk[1].name in line 11); give the group a name of its own"
        ]
    );
    let own = trunk("group = \"pbx\"") + &more("").replace("\"site\"", "\"other\"");
    assert_eq!(good(&own).trunks_named("pbx").len(), 1);
    assert_eq!(
        faults(&trunk("group = \"a.b\"")),
        ["w.toml:11: trunk.group: must not hold a dot, is \"a.b\""]
    );
    assert_eq!(
        notes(&trunk("weight = 3")),
        ["w.toml:11: trunk.weight: of no use without `group`: calls are shared only within one"]
    );
}

#[test]
fn what_is_wrong_with_a_trunk_is_told() {
    for (line, what) in [
        ("codecs = []", "codecs: is empty; leave it out for opus, g722, pcma and pcmu"),
        ("priority = 65536", "priority: must be between 0 and 65535 (lower is first), is 65536"),
        ("weight = -1", "weight: must be between 0 and 65535 (a share), is -1"),
        (
            "session_expires = 89",
            "session_expires: must be at least 90 seconds, or 0 for no session timer, is 89",
        ),
        (
            "session_expires = 86401",
            "session_expires: must be between 0 and 86400 (seconds; 0 is off), is 86401",
        ),
        (
            "dial_allow = [\"+49\", \"49\"]",
            "dial_allow[2]: must be the beginning of numbers like \"+49\", is \"49\"",
        ),
        ("dial_allow = [\"+49\", \"+49\"]", "dial_allow[2]: \"+49\" is in the list twice"),
        (
            "dial_per_minute = -1",
            "dial_per_minute: must be between 0 and 100000 (calls; 0 is no limit), is -1",
        ),
        (
            "dial_per_day = 10000001",
            "dial_per_day: must be between 0 and 10000000 (calls; 0 is no limit), is 10000001",
        ),
        ("learn_media = \"yes\"", "learn_media: must be true or false, is a string"),
        ("learn_medai = true", "learn_medai: unknown key; did you mean `learn_media`?"),
        ("dial_per_minutes = 3", "dial_per_minutes: unknown key; did you mean `dial_per_minute`?"),
        ("max_per_second = 3", "max_per_second: unknown key; it belongs in [sip]"),
    ] {
        assert_eq!(faults(&trunk(line)), [format!("w.toml:11: trunk.{what}")]);
    }
}

#[test]
fn a_pbx_can_be_asked_for_digest_only_with_user_and_password() {
    good(&trunk("challenge = true"));
    let needs = "trunk.challenge: needs `username` and `password`: the PBX must answer with them; set both, or challenge = false";
    let text = trunk("challenge = true").replace("password = \"trunk-s3cret\"", "");
    assert_eq!(faults(&text), [format!("w.toml:11: {needs}")]);
    let text = trunk("challenge = true\nregister = false").replace("username = \"whatsapp\"", "");
    assert_eq!(faults(&text), [format!("w.toml:11: {needs}")]);
}

#[test]
fn a_clip_for_calls_on_hold_is_a_wav_file_that_can_be_read() {
    let clip = |path: &str| with("[media]", &format!("[media]\nhold_clip = \"{path}\""));
    let config = good(&clip("/etc/watrunk/hold.wav"));
    assert_eq!(config.media.hold_clip.as_deref(), Some(Path::new("/etc/watrunk/hold.wav")));
    assert_eq!(
        faults(&clip("hold.mp3")),
        ["w.toml:7: media.hold_clip: must be a file whose name ends in .wav, is \"hold.mp3\""]
    );
    assert_eq!(
        faults(&clip("gone.wav")),
        ["w.toml:7: media.hold_clip: can't read \"gone.wav\": no such file"]
    );
}

#[test]
fn files_beside_a_real_config_are_found_and_those_who_may_not_read_them_are_not_told() {
    let folder = std::env::temp_dir().join(format!("watrunk-beside-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("watrunk.toml");
    let text = trunk("tls_ca = \"ca.pem\"").replace("transport=udp", "transport=tls");
    std::fs::write(&path, &text).unwrap();
    assert!(Config::read(&path).unwrap_err()[0].what.starts_with("can't read \"ca.pem\""));
    let (named, _) = Config::read_without_secrets(&path).unwrap();
    assert_eq!(named.trunks[0].tls_ca.as_deref(), Some(Path::new("ca.pem")));
    assert!(Config::read_what_may_be_read(&path).is_ok());
    assert!(crate::config::edit::apply(&text, &[]).is_ok(), "an edit looks at no other file");
    std::fs::write(folder.join("ca.pem"), CERTIFICATE).unwrap();
    let (config, _) = Config::read(&path).unwrap();
    assert_eq!(config.trunks[0].tls_ca, Some(folder.join("ca.pem")));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn two_trunks_at_one_address_are_told_of_unless_both_register() {
    let second = |more: &str, port: u16| {
        let lines = "username = \"b\"\npassword = \"p\"\n";
        plus(&format!("[[trunk]]\nname = \"second\"\nserver = \"sip:192.168.1.10:{port}\"\n{lines}{more}"))
    };
    let told = notes(&second("register = false", 5070));
    assert!(
        told.len() == 1 && told[0].contains("trunk[2].server: is that of \"pbx\" in line 12 too"),
        "{told:?}"
    );
    assert_eq!(notes(&second("", 5070)), Vec::<String>::new());
    assert_eq!(notes(&second("register = false", 5072)), Vec::<String>::new(), "another port");
}
