//! Recording: what is asked, what is written, how long it is kept and where it is sent.

use std::path::Path;

use rust_decimal::Decimal;

use super::*;

/// Of `age-keygen`.
const KEYS: [&str; 2] = [
    "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
];

/// The good file with these lines in `[recording]`, the first of them in line 22.
fn recorded(lines: &str) -> String {
    plus(&format!("[recording]\n{lines}\n"))
}

/// With these lines in the number, the first of them in line 18.
fn numbered(lines: &str) -> String {
    with("id = \"support\"", &format!("id = \"support\"\n{lines}"))
}

/// With these lines in `[recording.upload]`, the first of them in line 22.
fn uploading(lines: &str) -> String {
    plus(&format!("[recording.upload]\n{lines}\n"))
}

/// An S3 store, lines 22 to 25.
const STORE: &str = "url = \"s3://calls\"\nendpoint = \"https://s3.example.com\"\naccess_key = \"AKIA7\"\n\
                     secret_key = \"store-s3cret\"";

fn age(key: &str) -> String {
    recorded(&format!("encrypt_to = [\"{key}\"]"))
}

#[test]
fn nothing_is_recorded_unless_the_file_says_so_and_then_with_the_documented_defaults() {
    let config = good(GOOD);
    assert!(!config.numbers[0].recording);
    assert_eq!(config.numbers[0].recording_as, NumberRecording::default());
    let it = &config.recording;
    assert_eq!((it.format, it.sample_rate, it.bitrate), (TapeFormat::WavPcm, 8_000, 16_000));
    assert_eq!((it.consent, &it.consent_prompt), (ConsentMode::Announce, &ConsentPrompt::Builtin));
    assert_eq!((&it.consent_language, it.consent_key, it.consent_seconds), (&None, '1', 8));
    assert_eq!((it.announce_to, it.pause_key, it.beep_seconds), (AnnounceTo::Caller, None, None));
    assert_eq!((it.keep_days, it.max_mib, it.min_free_mib), (30, 2_048, 100));
    assert!(it.encrypt_to.is_empty() && it.upload.is_none() && it.per_minute_usd.is_zero());
    let on = numbered("recording = true");
    assert!(good(&on).numbers[0].recording);
    assert_eq!(notes(&on), Vec::<String>::new());
    assert_eq!(good(&plus("[recording]\n")).recording, config.recording);
}

#[test]
fn every_key_of_a_recording_reaches_its_field() {
    let text = recorded(&format!(
        "format = \"ogg\"\nsample_rate = 8000\nbitrate = 24000\nconsent = \"ask\"\nconsent_prompt = \"asked.ogg\"\n\
         consent_key = \"#\"\nconsent_seconds = 5\nannounce_to = \"both\"\npause_key = \"*\"\nbeep_seconds = 15\n\
         keep_days = 0\nmax_mib = 100\nmin_free_mib = 0\nencrypt_to = [\"{}\", \"{}\"]\nper_minute_usd = \"0.002\"",
        KEYS[0], KEYS[1]
    ));
    let config = good(&text);
    let it = &config.recording;
    assert_eq!((it.format, it.sample_rate, it.bitrate), (TapeFormat::Ogg, 8_000, 24_000));
    assert_eq!(it.consent, ConsentMode::Ask);
    assert_eq!(it.consent_prompt, ConsentPrompt::File("asked.ogg".into()));
    assert_eq!((it.consent_key, it.consent_seconds), ('#', 5));
    assert_eq!((it.announce_to, it.pause_key, it.beep_seconds), (AnnounceTo::Both, Some('*'), Some(15)));
    assert_eq!((it.keep_days, it.max_mib, it.min_free_mib), (0, 100, 0));
    assert_eq!(it.encrypt_to, KEYS);
    assert_eq!(it.per_minute_usd, Decimal::new(2, 3));
    assert_eq!(notes(&text), Vec::<String>::new());
    let language = good(&recorded("consent_language = \"pt\"")).recording.consent_language;
    assert_eq!(language.as_deref(), Some("pt"));
}

#[test]
fn the_sampling_rate_is_what_the_format_has_unless_it_is_said() {
    let cases = [
        ("format = \"ogg\"", TapeFormat::Ogg, 16_000),
        ("format = \"wav\"\nencoding = \"pcm\"", TapeFormat::WavPcm, 8_000),
        ("sample_rate = 16000", TapeFormat::WavPcm, 16_000),
        ("encoding = \"alaw\"", TapeFormat::WavAlaw, 8_000),
        ("encoding = \"ulaw\"\nsample_rate = 8000", TapeFormat::WavUlaw, 8_000),
    ];
    for (lines, format, rate) in cases {
        let it = good(&recorded(lines)).recording;
        assert_eq!((it.format, it.sample_rate), (format, rate), "{lines}");
    }
}

#[test]
fn what_does_not_go_with_the_format_is_told() {
    let cases = [
        ("format = \"mp3\"", "format: must be \"wav\" or \"ogg\", is \"mp3\""),
        ("encoding = \"ogg\"", "encoding: must be \"pcm\" or \"alaw\" or \"ulaw\", is \"ogg\""),
        (
            "encoding = \"alaw\"\nformat = \"ogg\"",
            "encoding: is for wav, but `format` is \"ogg\", which is always Opus; leave it out, or set format = \"wav\"",
        ),
        (
            "sample_rate = 16000\nencoding = \"alaw\"",
            "sample_rate: must be 8000 with alaw and ulaw, is 16000; leave it out, or set encoding = \"pcm\"",
        ),
        (
            "sample_rate = 44100\nencoding = \"ulaw\"",
            "sample_rate: must be 8000 or 16000 (samples per second), is 44100",
        ),
        ("bitrate = 5999", "bitrate: must be between 6000 and 64000 (bit/s and channel), is 5999"),
        ("sample_rate = \"8000\"", "sample_rate: must be a whole number, is a string"),
    ];
    for (lines, told) in cases {
        assert_eq!(faults(&recorded(lines)), [format!("w.toml:22: recording.{told}")]);
    }
    assert_eq!(
        notes(&recorded("bitrate = 16000")),
        ["w.toml:22: recording.bitrate: of no use: it is for format = \"ogg\""]
    );
}

#[test]
fn the_bounds_of_every_number_of_a_recording_hold() {
    let ask = "consent = \"ask\"";
    let cases: [(&str, u64, u64, i64, u64); 6] = [
        ("consent_seconds", 1, 60, 0, 61),
        ("keep_days", 0, 3_650, -1, 3_651),
        ("max_mib", 0, 100_000_000, -1, 100_000_001),
        ("min_free_mib", 0, 100_000_000, -1, 100_000_001),
        ("bitrate", 6_000, 64_000, 5_999, 64_001),
        ("beep_seconds", 5, 300, -1, 301),
    ];
    for (key, low, high, under, over) in cases {
        for fine in [low, high] {
            good(&recorded(&format!("{ask}\n{key} = {fine}")));
        }
        for wrong in [under.to_string(), over.to_string()] {
            let told = faults(&recorded(&format!("{ask}\n{key} = {wrong}")));
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("w.toml:23: recording.{key}: must be between")), "{told:?}");
            assert!(told[0].ends_with(&format!("is {wrong}")), "{told:?}");
        }
    }
    assert_eq!(good(&recorded("beep_seconds = 0")).recording.beep_seconds, None);
    assert_eq!(
        faults(&recorded("beep_seconds = 4")),
        ["w.toml:22: recording.beep_seconds: must be at least 5 seconds, or 0 for no beep, is 4"]
    );
    let short = notes(&recorded("max_mib = 109"));
    assert_eq!(short.len(), 1, "{short:?}");
    assert!(short[0].starts_with("w.toml:22: recording.max_mib: an hour takes 110 MiB"), "{short:?}");
    assert_eq!(notes(&recorded("max_mib = 110")), Vec::<String>::new());
    let never = notes(&recorded("keep_days = 0\nmax_mib = 0"));
    assert_eq!(
        never,
        [
            "w.toml:23: recording.max_mib: nothing is ever deleted (keep_days is 0 too): recordings fill the disk"
        ]
    );
}

#[test]
fn a_prompt_is_built_in_or_a_sound_file_that_can_be_read() {
    for file in ["asked.ogg", "ASKED.OPUS", "told.wav"] {
        let config = good(&recorded(&format!("consent_prompt = \"{file}\"")));
        assert_eq!(config.recording.consent_prompt, ConsentPrompt::File(file.into()));
    }
    assert_eq!(
        good(&recorded("consent_prompt = \"builtin\"")).recording.consent_prompt,
        ConsentPrompt::Builtin
    );
    let cases = [
        ("told.mp3", "must be a file whose name ends in .wav or .ogg or .opus, is \"told.mp3\""),
        (
            "renamed.wav",
            "\"renamed.wav\" is no sound file of this kind, whatever its name says; make one with: ffmpeg -i IN \
             -ac 1 -ar 8000 OUT.wav",
        ),
        ("gone.wav", "can't read \"gone.wav\": no such file"),
        ("built-in", "can't read \"built-in\": no such file"),
        ("", "must not be empty"),
    ];
    for (file, told) in cases {
        assert_eq!(
            faults(&recorded(&format!("consent_prompt = \"{file}\""))),
            [format!("w.toml:22: recording.consent_prompt: {told}")]
        );
        assert_eq!(
            faults(&numbered(&format!("recording_prompt = \"{file}\""))),
            [format!("w.toml:18: number.recording_prompt: {told}")]
        );
    }
}

#[test]
fn a_prompt_beside_a_real_config_is_found_where_it_is() {
    let folder = std::env::temp_dir().join(format!("watrunk-prompt-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("watrunk.toml");
    let text = recorded("consent_prompt = \"told.wav\"");
    std::fs::write(&path, &text).unwrap();
    assert!(Config::read(&path).unwrap_err()[0].what.starts_with("can't read \"told.wav\""));
    assert!(Config::read_without_secrets(&path).is_ok());
    assert!(crate::config::edit::apply(&text, &[]).is_ok(), "an edit looks at no other file");
    std::fs::write(folder.join("told.wav"), "RIFF\0\0\0\0WAVE").unwrap();
    let (config, _) = Config::read(&path).unwrap();
    assert_eq!(config.recording.consent_prompt, ConsentPrompt::File(folder.join("told.wav")));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn languages_and_words_that_there_are_none_of_are_told_with_those_there_are() {
    for language in LANGUAGES {
        good(&recorded(&format!("consent_language = \"{language}\"")));
    }
    let list = "must be one of en, es, pt, fr, de, it, nl, id, hi, ar, tr, ru";
    let cases = [
        (
            "consent_language = \"pt-BR\"",
            format!("consent_language: {list}, is \"pt-BR\"; did you mean \"pt\"?"),
        ),
        (
            "consent_language = \"sv\"",
            format!(
                "consent_language: {list}, is \"sv\"; for another language set the prompt to a file of yours"
            ),
        ),
        (
            "consent = \"asks\"",
            "consent: must be \"announce\" or \"ask\", is \"asks\"; did you mean \"ask\"?".to_owned(),
        ),
        (
            "announce_to = \"callee\"",
            "announce_to: must be \"caller\" or \"both\", is \"callee\"; did you mean \"caller\"?".to_owned(),
        ),
    ];
    for (line, told) in cases {
        assert_eq!(faults(&recorded(line)), [format!("w.toml:22: recording.{told}")]);
    }
}

#[test]
fn a_key_is_one_of_a_telephone() {
    for key in ["0", "9", "*", "#"] {
        let text = recorded(&format!("pause_key = \"{key}\""));
        assert_eq!(good(&text).recording.pause_key, key.chars().next());
    }
    for key in ["A", "12", "٣", " "] {
        let told = format!("must be one key of 0 to 9, * and #, is \"{key}\"");
        assert_eq!(
            faults(&recorded(&format!("pause_key = \"{key}\""))),
            [format!("w.toml:22: recording.pause_key: {told}")]
        );
        assert_eq!(
            faults(&recorded(&format!("consent_key = \"{key}\""))),
            [format!("w.toml:22: recording.consent_key: {told}")]
        );
    }
    assert_eq!(
        faults(&recorded("consent_key = 1")),
        ["w.toml:22: recording.consent_key: must be a string, is a whole number"]
    );
    // One is pressed by the user, the other one by who was called.
    good(&recorded("consent = \"ask\"\nconsent_key = \"1\"\npause_key = \"1\""));
}

#[test]
fn the_built_in_prompt_asks_for_the_key_one_and_no_other() {
    assert_eq!(
        faults(&recorded("consent_key = \"2\"\nconsent = \"ask\"")),
        [
            "w.toml:22: recording.consent_key: is another key than the one that the built-in prompt asks for (\"press \
          one\"); leave consent_key out, or set consent_prompt to a file of yours that names the key"
        ]
    );
    good(&recorded("consent_key = \"2\"\nconsent = \"ask\"\nconsent_prompt = \"asked.ogg\""));
    let number = |lines: &str, recording: &str| {
        format!("{}[recording]\n{recording}\n", numbered(&format!("recording = true\n{lines}")))
    };
    let told = "means the built-in prompt, which says \"press one\", but recording.consent_key is \"2\"; set \
                recording_prompt to a file of yours that names the key, or leave consent_key out";
    assert_eq!(
        faults(&number("recording_consent = \"ask\"", "consent_key = \"2\"")),
        [format!("w.toml:19: number.recording_consent: {told}")]
    );
    let asked = "consent = \"ask\"\nconsent_key = \"2\"\nconsent_prompt = \"asked.ogg\"";
    assert_eq!(
        faults(&number("recording_prompt = \"builtin\"", asked)),
        [format!("w.toml:19: number.recording_prompt: {told}")]
    );
    good(&number("recording_prompt = \"builtin\"\nrecording_consent = \"announce\"", asked));
    good(&number("recording_consent = \"ask\"\nrecording_prompt = \"asked.ogg\"", "consent_key = \"2\""));
}

#[test]
fn keys_that_nothing_asks_for_are_noted() {
    assert_eq!(
        notes(&recorded("consent_key = \"5\"\nconsent_seconds = 9")),
        [
            "w.toml:22: recording.consent_key: of no use: nobody is asked (consent = \"ask\")",
            "w.toml:23: recording.consent_seconds: of no use: nobody is asked (consent = \"ask\")",
        ]
    );
    let language = "of no use: the file of the prompt is played in any case";
    let mine = "consent_prompt = \"told.wav\"\nconsent_language = \"de\"";
    assert_eq!(notes(&recorded(mine)), [format!("w.toml:23: recording.consent_language: {language}")]);
    let back = format!("{}[recording]\n{mine}\n", numbered("recording_prompt = \"builtin\""));
    assert_eq!(notes(&back), Vec::<String>::new());
    let both = numbered("recording_language = \"de\"\nrecording_prompt = \"told.wav\"");
    assert_eq!(notes(&both), [format!("w.toml:18: number.recording_language: {language}")]);
    let one = format!("{}[recording]\nconsent_seconds = 9\n", numbered("recording_consent = \"ask\""));
    assert_eq!(notes(&one), Vec::<String>::new());
}

#[test]
fn a_number_says_what_is_otherwise_for_its_own_calls() {
    let text = format!(
        "{}[recording]\nbeep_seconds = 20\nconsent_language = \"es\"\n",
        numbered(
            "recording = true\nrecording_consent = \"ask\"\nrecording_prompt = \"builtin\"\n\
             recording_language = \"fr\"\nrecording_announce_to = \"both\"\nrecording_beep_seconds = 0\n\
             recording_keep_days = 7"
        )
    );
    let config = good(&text);
    let own = NumberRecording {
        consent: Some(ConsentMode::Ask),
        prompt: Some(ConsentPrompt::Builtin),
        language: Some("fr".to_owned()),
        announce_to: Some(AnnounceTo::Both),
        beep_seconds: Some(0),
        keep_days: Some(7),
    };
    assert_eq!(config.numbers[0].recording_as, own);
    let general = &config.recording;
    let it = general.for_number(&own);
    assert_eq!((it.consent, it.consent_language.as_deref()), (ConsentMode::Ask, Some("fr")));
    assert_eq!((it.announce_to, it.beep_seconds, it.keep_days), (AnnounceTo::Both, None, 7));
    let beeping = NumberRecording { beep_seconds: Some(30), ..NumberRecording::default() };
    assert_eq!(general.for_number(&beeping).beep_seconds, Some(30));
    assert_eq!(general.for_number(&NumberRecording::default()), *general);
    let told = "must be at least 5 seconds, or 0 for no beep, is 2";
    assert_eq!(
        faults(&numbered("recording_beep_seconds = 2")),
        [format!("w.toml:18: number.recording_beep_seconds: {told}")]
    );
    assert_eq!(
        faults(&numbered("recording_keep_days = 4000")),
        ["w.toml:18: number.recording_keep_days: must be between 0 and 3650 (days; 0 is for ever), is 4000"]
    );
    assert_eq!(
        faults(&numbered("recording_consnt = \"ask\"")),
        ["w.toml:18: number.recording_consnt: unknown key; did you mean `recording_consent`?"]
    );
}

#[test]
fn a_public_key_is_taken_and_what_is_none_is_told_without_telling_it() {
    for key in KEYS {
        assert_eq!(good(&age(key)).recording.encrypt_to, [key]);
    }
    assert!(good(&recorded("encrypt_to = []")).recording.encrypt_to.is_empty());
    let at = "w.toml:22: recording.encrypt_to[1]:";
    let changed = KEYS[0].replacen("3z7", "3z8", 1);
    let swapped = KEYS[0].replacen("jy54", "yj54", 1);
    for wrong in [&changed, &swapped] {
        let told = [format!("{at} has a wrong checksum: a letter of it was changed; copy it again")];
        assert_eq!(faults(&age(wrong)), told, "{wrong}");
    }
    let (upper, short, long) = (KEYS[0].to_ascii_uppercase(), &KEYS[0][..61], format!("{}q", KEYS[0]));
    let letter = KEYS[0].replacen('z', "b", 1);
    let shapes = [&upper, short, &long, &letter, "ssh-ed25519 AAAAC3Nza", "age1", "é"];
    for wrong in shapes {
        let told = faults(&age(wrong));
        let shape = "must be a public key of age (\"age1\" and 58 more lower-case letters and digits); make a pair \
                     with age-keygen -o watrunk.key, which prints the public key";
        assert_eq!(told, [format!("{at} {shape}")], "{wrong}");
    }
    let told = faults(&age("AGE-SECRET-KEY-1QQQQQQQQQQQ"));
    assert!(told[0].starts_with(&format!("{at} is a secret key")), "{told:?}");
    assert!(!told[0].contains("QQQ"), "{told:?}");
    let twice = recorded(&format!("encrypt_to = [\"{0}\", \"{0}\"]", KEYS[1]));
    assert_eq!(faults(&twice), ["w.toml:22: recording.encrypt_to[2]: is in the list twice"]);
    assert_eq!(
        faults(&recorded("encrypt_to = \"age1\"")),
        ["w.toml:22: recording.encrypt_to: must be a list of strings, is a string"]
    );
}

#[test]
fn an_upload_to_a_store_has_its_address_and_its_keys() {
    let config = good(&uploading(STORE));
    let upload = config.recording.upload.unwrap();
    assert_eq!((upload.keep_local, upload.timeout_seconds, upload.max_tries), (true, 60, 50));
    assert_eq!(upload.ca_file, None);
    let UploadTo::S3 { endpoint, region, bucket, prefix, access_key, secret_key } = &upload.to else {
        panic!("not S3");
    };
    assert_eq!((endpoint.as_str(), region.as_str()), ("https://s3.example.com", "us-east-1"));
    assert_eq!((bucket.as_str(), prefix.as_str()), ("calls", ""));
    assert_eq!((access_key.as_str(), secret_key.expose()), ("AKIA7", "store-s3cret"));
    let printed = format!("{upload:?}");
    assert!(!printed.contains("s3cret") && !printed.contains("AKIA7"), "{printed}");

    let text = uploading(
        "url = \"S3://calls.acme-1/watrunk/box=7/\"\nendpoint = \"https://minio.example:9000/\"\nregion = \"eu-1\"\n\
         access_key_env = \"KEY_ID\"\nsecret_key_file = \"s3-secret\"\nkeep_local = false\ntimeout_seconds = 5\n\
         max_tries = 1000\nca_file = \"/etc/watrunk/store.pem\"",
    );
    let mut vault = files();
    vault.variables.insert("KEY_ID".to_owned(), "AKIA8".to_owned());
    let (config, notes) = Config::parse(&text, &vault).unwrap();
    assert_eq!(notes, []);
    let upload = config.recording.upload.unwrap();
    assert_eq!((upload.keep_local, upload.timeout_seconds, upload.max_tries), (false, 5, 1_000));
    assert_eq!(upload.ca_file.as_deref(), Some(Path::new("/etc/watrunk/store.pem")));
    let UploadTo::S3 { endpoint, region, bucket, prefix, access_key, secret_key } = &upload.to else {
        panic!("not S3");
    };
    assert_eq!((endpoint.as_str(), region.as_str()), ("https://minio.example:9000", "eu-1"));
    assert_eq!((bucket.as_str(), prefix.as_str()), ("calls.acme-1", "watrunk/box=7/"));
    assert_eq!((access_key.as_str(), secret_key.expose()), ("AKIA8", "store-s3cret"));
}

#[test]
fn an_upload_by_http_has_an_address_and_maybe_a_token() {
    let config = good(&uploading("url = \"https://example.com/in/\"\ntoken = \"t0ken\""));
    let UploadTo::Http { url, token } = config.recording.upload.unwrap().to else { panic!("not HTTP") };
    assert_eq!((url.as_str(), token.unwrap().expose()), ("https://example.com/in", "t0ken"));
    let bare = good(&uploading("url = \"HTTPS://example.com\""));
    let UploadTo::Http { url, token } = bare.recording.upload.unwrap().to else { panic!("not HTTP") };
    assert_eq!((url.as_str(), token), ("HTTPS://example.com", None));
    let inline = recorded("upload = { url = \"https://example.com\", max_tries = 3 }");
    assert_eq!(good(&inline).recording.upload.unwrap().max_tries, 3);
}

#[test]
fn an_upload_without_what_its_address_needs_is_refused() {
    assert_eq!(faults(&uploading("")), ["w.toml:21: recording.upload.url: is missing"]);
    assert_eq!(faults(&uploading("keep_local = false")), ["w.toml:21: recording.upload.url: is missing"]);
    let behind = "is missing, but `url` begins with s3://";
    assert_eq!(
        faults(&uploading("url = \"s3://calls\"")),
        [
            format!(
                "w.toml:21: recording.upload.access_key: {behind}; give it as `access_key`, `access_key_file` or `access_key_env`"
            ),
            format!(
                "w.toml:21: recording.upload.endpoint: {behind}; set it to the store's address, as in \"https://s3.eu-central-1.amazonaws.com\""
            ),
            format!(
                "w.toml:21: recording.upload.secret_key: {behind}; give it as `secret_key`, `secret_key_file` or `secret_key_env`"
            ),
        ]
    );
    let both = faults(&uploading(&format!("{STORE}\nsecret_key_file = \"s3-secret\"")));
    assert_eq!(
        both,
        ["w.toml:26: recording.upload.secret_key_file: is given as `secret_key` too; keep one of them"]
    );
}

#[test]
fn keys_of_the_other_kind_of_upload_are_refused() {
    let http = "is for addresses that begin with s3://, and `url` is none; leave it out";
    for (line, key) in [
        ("endpoint = \"https://a.example\"", "endpoint"),
        ("region = \"eu-1\"", "region"),
        ("access_key = \"a\"", "access_key"),
        ("secret_key_file = \"s3-secret\"", "secret_key_file"),
    ] {
        let text = uploading(&format!("url = \"https://example.com\"\n{line}"));
        assert_eq!(faults(&text), [format!("w.toml:23: recording.upload.{key}: {http}")]);
    }
    assert_eq!(
        faults(&uploading(&format!("{STORE}\ntoken = \"t\""))),
        [
            "w.toml:26: recording.upload.token: is for addresses that begin with https:// and http://, and `url` is \
          none; leave it out"
        ]
    );
}

#[test]
fn an_address_that_nothing_can_be_sent_to_is_told_without_its_secrets() {
    let bucket = |name: &str| {
        format!(
            "must name a bucket as in s3://bucket/prefix (3 to 63 lower-case letters, digits, \"-\" and \".\"), \
             the bucket is \"{name}\""
        )
    };
    let prefix = |name: &str| {
        format!(
            "must have a prefix of letters, digits, \"-\", \"_\", \".\", \"~\", \"=\" and single slashes, at most \
             512 bytes, is \"{name}\""
        )
    };
    let shape = "must be an address that begins with s3://, https:// or http://".to_owned();
    let (long, deep) = ("b".repeat(64), "x".repeat(512));
    let cases = [
        ("recordings".to_owned(), shape.clone()),
        ("ftp://user:pa55@example.com".to_owned(), shape),
        ("s3://".to_owned(), bucket("")),
        ("s3://ab/x".to_owned(), bucket("ab")),
        ("s3://Calls".to_owned(), bucket("Calls")),
        ("s3://-calls".to_owned(), bucket("-calls")),
        ("s3://a..calls".to_owned(), bucket("a..calls")),
        (format!("s3://{long}"), bucket(&long)),
        ("s3://calls//x".to_owned(), prefix("/x")),
        ("s3://calls/../x".to_owned(), prefix("../x")),
        ("s3://calls/a b".to_owned(), prefix("a b")),
        ("s3://calls/a?x=1".to_owned(), prefix("a?x=1")),
        (format!("s3://calls/{deep}"), prefix(&deep)),
        (
            "https://u:pa55@example.com".to_owned(),
            "must not hold a user or a password: set `token`".to_owned(),
        ),
        (
            "https://example.com/in?sig=pa55".to_owned(),
            "must not hold a query: the file's name is put behind it".to_owned(),
        ),
        (
            "https://example.com/a b".to_owned(),
            "must hold neither blanks, #, quotes nor letters outside ASCII".to_owned(),
        ),
    ];
    for (url, told) in cases {
        let text = uploading(&STORE.replace("s3://calls", &url));
        let text = if url.starts_with("s3") { text } else { uploading(&format!("url = \"{url}\"")) };
        let told_at = format!("w.toml:22: recording.upload.url: {told}");
        let seen = faults(&text);
        assert_eq!(seen.len(), 1, "{seen:?}");
        // A sentence that is too long is cut.
        let (head, _) = told_at.split_at(told_at.len().min(200));
        assert!(seen[0].starts_with(head), "{seen:?}");
        assert!(!seen[0].contains("pa55"), "{seen:?}");
    }
    let endpoint = |address: &str| faults(&uploading(&STORE.replace("https://s3.example.com", address)));
    assert_eq!(
        endpoint("https://s3.example.com/calls"),
        [
            "w.toml:23: recording.upload.endpoint: must be an address without a path: the bucket belongs in `url`, is \
          \"https://s3.example.com/calls\""
        ]
    );
    assert_eq!(
        endpoint("s3.example.com"),
        [
            "w.toml:23: recording.upload.endpoint: must be an address that begins with https:// or http://, is \
          \"s3.example.com\""
        ]
    );
    assert_eq!(
        faults(&uploading(&format!("{STORE}\nregion = \"EU 1\""))),
        ["w.toml:26: recording.upload.region: must be a region like \"eu-central-1\", is \"EU 1\""]
    );
    let visible = "the secret must hold neither blanks nor letters outside ASCII";
    assert_eq!(
        faults(&uploading(&STORE.replace("AKIA7", "AKIA 7"))),
        [format!("w.toml:24: recording.upload.access_key: {visible}")]
    );
    assert_eq!(
        faults(&uploading("url = \"https://example.com\"\ntoken = \"tökén\"")),
        [format!("w.toml:23: recording.upload.token: {visible}")]
    );
}

#[test]
fn the_bounds_of_an_upload_hold() {
    for (key, low, high, unit) in [("timeout_seconds", 5, 3_600, "seconds"), ("max_tries", 1, 1_000, "tries")]
    {
        for fine in [low, high] {
            good(&uploading(&format!("{STORE}\n{key} = {fine}")));
        }
        for wrong in [low - 1, high + 1] {
            assert_eq!(
                faults(&uploading(&format!("{STORE}\n{key} = {wrong}"))),
                [format!(
                    "w.toml:26: recording.upload.{key}: must be between {low} and {high} ({unit}), is {wrong}"
                )]
            );
        }
    }
    assert_eq!(
        faults(&uploading(&format!("{STORE}\nmax_try = 1"))),
        ["w.toml:26: recording.upload.max_try: unknown key; did you mean `max_tries`?"]
    );
    assert_eq!(
        faults(&uploading(&format!("{STORE}\nca_file = \"told.wav\""))),
        [
            "w.toml:26: recording.upload.ca_file: \"told.wav\" holds no certificate (PEM: it begins with \"-----BEGIN \
          CERTIFICATE-----\")"
        ]
    );
}

#[test]
fn an_upload_that_others_can_listen_to_is_noted_unless_it_is_encrypted_before() {
    let clear = STORE.replace("https://s3.example.com", "http://minio:9000");
    let heard = "is not encrypted: recordings can be heard on the way, unless encrypt_to is set";
    assert_eq!(notes(&uploading(&clear)), [format!("w.toml:23: recording.upload.endpoint: {heard}")]);
    let sealed = recorded(&format!("encrypt_to = [\"{}\"]\n[recording.upload]\n{clear}", KEYS[0]));
    assert_eq!(notes(&sealed), Vec::<String>::new());
    let at = "w.toml:22: recording.upload.url:";
    assert_eq!(
        notes(&uploading("url = \"HTTP://10.0.0.5/in\"\ntoken = \"t\"")),
        [format!("{at} {heard}"), format!("{at} is not encrypted: the token can be read on the way"),]
    );
    assert_eq!(
        notes(&uploading(&format!("{clear}\nca_file = \"/etc/watrunk/store.pem\"")))[1],
        "w.toml:26: recording.upload.ca_file: of no use: `endpoint` is not https://"
    );
    assert_eq!(notes(&uploading(STORE)), Vec::<String>::new());
}

#[test]
fn a_program_switches_recording_on_and_off_in_the_file() {
    use crate::config::edit::{Edit, EditFault, EditValue, apply};
    let set = |text: &str, keys: Vec<(&'static str, Option<EditValue>)>| {
        apply(text, &[Edit::Number { id: "support".to_owned(), set: keys }])
    };
    let on = set(GOOD, vec![("recording", Some(EditValue::Flag(true)))]).unwrap();
    assert_eq!(on, format!("{GOOD}recording = true\n"));
    assert!(good(&on).numbers[0].recording);
    let off = set(&on, vec![("recording", Some(EditValue::Flag(false)))]).unwrap();
    assert!(!good(&off).numbers[0].recording);
    // The keys beside it are others than `recording`.
    let beside = numbered("recording = false # by law\nrecording_keep_days = 7");
    let on = set(&beside, vec![("recording", Some(EditValue::Flag(true)))]).unwrap();
    assert_eq!(on, numbered("recording = true # by law\nrecording_keep_days = 7"));
    let without = set(&on, vec![("recording_keep_days", None)]).unwrap();
    assert_eq!(without, numbered("recording = true # by law"));
    let wrong = set(GOOD, vec![("recording_consent", Some(EditValue::Text("maybe".to_owned())))]);
    assert!(matches!(wrong, Err(EditFault::After(_))), "{wrong:?}");
    // Files and secrets of a recording are not looked at.
    let all = recorded(
        "consent_prompt = \"gone.wav\"\n[recording.upload]\nurl = \"s3://calls\"\nendpoint = \"https://a.example\"\n\
         access_key_env = \"NONE\"\nsecret_key_file = \"gone\"\nca_file = \"gone.pem\"",
    );
    assert!(set(&all, vec![("recording", Some(EditValue::Flag(true)))]).is_ok());
}
