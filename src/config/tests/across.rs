//! Faults that no single key shows, secrets from elsewhere, and real files.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_destination_must_exist_unless_it_is_a_real_host() {
    let told = faults(&with("sip:200@pbx", "sip:200@pdx"));
    assert_eq!(
        told,
        ["w.toml:20: number.forward_to: there is no [[trunk]] with the name \"pdx\"; did you mean \"pbx\"?"]
    );
    let told = faults(&with("sip:200@pbx", "sip:200@pbx\"\ntrunk = \"office"));
    assert_eq!(told, ["w.toml:21: number.trunk: there is no [[trunk]] with the name \"office\""]);
    let hosts = ["10.0.0.9", "10.0.0.9:5080", "pbx.example.com", "asterisk:5060", "[2001:db8::9]:5060"];
    for host in hosts {
        let config = good(&with("sip:200@pbx", &format!("sip:200@{host};transport=udp")));
        let destination = Destination::Sip { user: "200".into(), host: host.into() };
        assert_eq!(config.numbers[0].forward_to, Some(destination));
    }
    let told = faults(&with("sip:200@pbx", "tel:+4930123456"));
    assert_eq!(
        told,
        ["w.toml:20: number.forward_to: tel: needs a trunk that carries it; set trunk = \"pbx\""]
    );
    // With the trunk's own name in doubt nothing is said about who refers to it.
    assert_eq!(faults(&with("name = \"pbx\"", "name = 5")).len(), 1);
}

#[test]
fn what_must_be_unique_is_told_with_the_line_that_has_it_already() {
    let again = r#"[[trunk]]
name = "pbx"
server = "sip:10.0.0.1"
register = false
[[number]]
id = "support"
phone_number_id = "106540352242922"
phone_number = "+15550100100"
forward_to = "sip:200@pbx"
[[http.key]]
name = "ops"
key = "sk_0123456789abcdef"
role = "read"
[[http.key]]
name = "ops"
key = "sk_0123456789abcdef"
role = "admin"
"#;
    assert_eq!(
        faults(&plus(again)),
        [
            "w.toml:22: trunk[2].name: \"pbx\" is taken already by trunk[1].name in line 11",
            "w.toml:26: number[2].id: \"support\" is taken already by number[1].id in line 17",
            "w.toml:27: number[2].phone_number_id: \"106540352242922\" is taken already by number[1].phone_number_id in line 18",
            "w.toml:28: number[2].phone_number: \"+15550100100\" is taken already by number[1].phone_number in line 19",
            "w.toml:35: http.key[2].name: \"ops\" is taken already by http.key[1].name in line 31",
            "w.toml:36: http.key[2].key: another [[http.key]] has the same key",
        ]
    );
}

#[test]
fn ports_that_collide_are_told() {
    assert_eq!(
        faults(&with("40000-40099", "20100-20300")),
        ["w.toml:7: media.rtp_ports: 20000-20199 and media.webrtc_ports (20100-20300) have ports in common"]
    );
    assert_eq!(
        faults(&plus("[sip]\nlisten = \"0.0.0.0:20005\"")),
        ["w.toml:7: media.rtp_ports: 20000-20199 holds port 20005, which is that of sip.listen"]
    );
    assert_eq!(
        faults(&plus("[http]\nlisten = \"127.0.0.1:40099\"")),
        ["w.toml:8: media.webrtc_ports: 40000-40099 holds port 40099, which is that of http.listen"]
    );
    assert_eq!(
        faults(&plus("[http]\nlisten = \"127.0.0.1:5060\"")),
        ["w.toml: sip.listen: is the address of http.listen too (127.0.0.1:5060)"]
    );
    assert_eq!(
        faults(&with("192.168.1.10:5070", "127.0.0.1")),
        [
            "w.toml:12: trunk.server: is this gateway's own address (sip.listen is 0.0.0.0:5060); give one of the two another port"
        ]
    );
    good(&plus("[http]\nlisten = \"127.0.0.1:0\"\n[sip]\nlisten = \"127.0.0.1:0\""));
}

#[test]
fn a_port_range_too_small_for_the_calls_is_told() {
    assert_eq!(
        faults(&with("40000-40099", "40000-40009")),
        [
            "w.toml:8: media.webrtc_ports: has room for 10 calls (1 port each), but gateway.max_calls is 50; widen it or lower max_calls"
        ]
    );
    // 100 ports from an odd one: 49 whole pairs.
    assert_eq!(
        faults(&with("20000-20199", "20001-20100")),
        [
            "w.toml:7: media.rtp_ports: has room for 49 calls (2 ports each), but gateway.max_calls is 50; widen it or lower max_calls"
        ]
    );
    good(&with("20000-20199", "20000-20099"));
}

#[test]
fn secrets_come_from_files_and_from_the_environment_too() {
    let text = GOOD
        .replace("app_secret = \"app-s3cret\"", "app_secret_file = \"/run/credentials/app\"")
        .replace("access_token = \"token-s3cret\"", "access_token_env = \"TOKEN\"")
        .replace("password = \"trunk-s3cret\"", "password_file = \"pw\"");
    let mut vault = Vault::default();
    vault.files.insert("/run/credentials/app".into(), "from-a-file\r\n".into());
    vault.files.insert("pw".into(), "  blanks stay \n".into());
    vault.variables.insert("TOKEN".into(), "from-the-environment".into());
    let (config, _) = Config::parse(&text, &vault).unwrap();
    assert_eq!(config.whatsapp.app_secret.expose(), "from-a-file");
    assert_eq!(config.whatsapp.access_token.expose(), "from-the-environment");
    assert_eq!(config.trunks[0].password.as_ref().unwrap().expose(), "  blanks stay ");

    vault.files.insert("/run/credentials/app".into(), "\n".into());
    vault.files.insert("pw".into(), "two\nlines".into());
    vault.variables.clear();
    let told = Config::parse(&text, &vault).unwrap_err();
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "line 2: whatsapp.app_secret_file: the secret is empty",
            "line 3: whatsapp.access_token_env: the environment variable TOKEN is not set",
            "line 14: trunk.password_file: the secret must be one line without control characters",
        ]
    );
    vault.files.clear();
    let told = Config::parse(&text, &vault).unwrap_err();
    assert_eq!(
        told[0].to_string(),
        "line 2: whatsapp.app_secret_file: can't read \"/run/credentials/app\": no such file"
    );
}

#[test]
fn a_secret_given_twice_is_refused() {
    let text = with("password = \"trunk-s3cret\"", "password = \"trunk-s3cret\"\npassword_file = \"pw\"");
    assert_eq!(
        faults(&text),
        ["w.toml:15: trunk.password_file: is given as `password` too; keep one of them"]
    );
}

#[test]
fn no_secret_is_ever_printed() {
    let text = plus("[[http.key]]\nname = \"ops\"\nkey = \"http-s3cret-long-enough\"\nrole = \"read\"");
    let config = good(&text);
    let printed = format!("{config:?} {config:#?}");
    assert!(!printed.contains("s3cret"), "{printed}");
    assert!(printed.contains("***"));
    assert_eq!(Secret::new("s3cret").to_string(), "***");

    // Nor by a fault: neither in place of a key that wants something else, nor twice, nor cut off.
    let broken = [
        with("app_secret = \"app-s3cret\"", "app_secret = [\"app-s3cret\"]"),
        with("app_secret = \"app-s3cret\"", "app_secret = \"app-s3cret\\u0007\""),
        with("app_secret = \"app-s3cret\"", "app_secret = \"app-s3cret"),
        plus(&"[[http.key]]\nname = \"a\"\nkey = \"http-s3cret-long-enough\"\nrole = \"read\"\n".repeat(2)),
    ];
    for text in broken {
        let told = format!("{:?} {:?}", load(&text).unwrap_err(), faults(&text));
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[test]
fn the_column_counts_characters() {
    let told = load("[gateway]\nname = \"ä\"\n[media]\njitter_ms = 60 # ü\nsip = 1\n").unwrap_err();
    let name = told.iter().find(|fault| fault.key == "gateway.name").unwrap();
    assert_eq!((name.line, name.column), (2, 8));
    let unknown = told.iter().find(|fault| fault.key == "media.sip").unwrap();
    assert_eq!((unknown.line, unknown.column), (5, 1));
}

#[test]
fn a_file_cut_off_anywhere_or_with_a_strange_byte_never_panics() {
    let whole = plus(EXAMPLE.split("[[trunk]]").next().unwrap());
    for (at, _) in whole.char_indices() {
        let _ = load(&whole[..at]);
        for strange in ["\"", "[", "\u{0}", "=", "é"] {
            let _ = load(&format!("{}{strange}{}", &whole[..at], &whole[at..]));
        }
    }
}

#[test]
fn a_flood_of_faults_is_cut_short() {
    let flood: String = (0..5_000).map(|n| format!("zz{n} = 1\n")).collect();
    assert_eq!(load(&plus(&format!("[sip]\n{flood}"))).unwrap_err().len(), 200);
}

#[test]
fn a_real_file_is_read_with_its_mode_and_its_neighbours() {
    let folder = std::env::temp_dir().join(format!("watrunk-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("watrunk.toml");
    std::fs::write(&path, with("password = \"trunk-s3cret\"", "password_file = \"pw\"")).unwrap();
    std::fs::write(folder.join("pw"), "beside\n").unwrap();

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (config, notes) = Config::read(&path).unwrap();
    assert_eq!(config.trunks[0].password.as_ref().unwrap().expose(), "beside");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].what.contains("mode 0644"), "{notes:?}");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(Config::read(&path).unwrap().1, []);
    assert_eq!(Config::load(&path).unwrap(), config);

    std::fs::write(&path, b"[gateway]\nname = \"\xff\"\n").unwrap();
    assert_eq!(Config::load(&path).unwrap_err()[0].what, "is not UTF-8: the first bad byte is in line 2");
    std::fs::write(&path, vec![b'#'; 2 * 1024 * 1024]).unwrap();
    assert_eq!(Config::load(&path).unwrap_err()[0].what, "is larger than 1048576 bytes");
    std::fs::remove_dir_all(&folder).unwrap();
    let told = Config::load(&path).unwrap_err();
    assert!(told[0].what.starts_with("can't be read: No such file"), "{told:?}");
}
