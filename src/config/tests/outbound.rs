//! What programs and extensions that call need: keys, rates, webhooks, how a PBX dials.

use rust_decimal::Decimal;

use super::*;

const NUMBER: &str = r#"waba_id = "1022"
[http]
allow_private = true
rate_per_minute = 0
[[http.key]]
name = "hashed"
key_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00A08"
role = "read"
[recording]
per_minute_usd = "0.002"
[[rates]]
prefix = "+49"
meta_per_minute_usd = 0.0125
carrier_per_minute_usd = 1
tiers = [{ from_minutes = 50000, meta_per_minute_usd = 0.01 }, { from_minutes = 250_000, meta_per_minute_usd = 0 }]
[[rates]]
prefix = "+4930"
[[webhook]]
id = "crm"
name = "Our CRM"
url = "HTTPS://example.com:8443/hook/?token=1"
secret = "hook-s3cret"
events = ["call.ended", "call.failed"]
active = false
headers = { X-Tenant = "acme" }
[[webhook]]
url = "http://10.0.0.5/x"
[[number]]
id = "n2"
phone_number_id = "2"
phone_number = "+4930123456"
enabled = false
max_call_seconds = 0
country_code = "49"
national_prefix = ""
international_prefix = "011"
sip_auth_username = "agent"
sip_auth_password = "sip-s3cret"
call_icon_countries = ["de", "AT"]
"#;

fn whole() -> String {
    let (first, rest) = NUMBER.split_once('\n').unwrap();
    format!("{}{rest}", with("[media]", &format!("{first}\n[media]")))
}

/// The text's `[[webhook]]`, `[[rates]]` … behind the good file, whose lines end at 20.
fn told(more: &str) -> Vec<String> {
    faults(&plus(more))
}

#[test]
fn every_key_for_calls_out_reaches_its_field() {
    let config = good(&whole());
    assert_eq!(config.whatsapp.waba_id.as_deref(), Some("1022"));
    assert_eq!((config.http.allow_private, config.http.rate_per_minute), (true, 0));
    assert_eq!(config.recording.per_minute_usd, Decimal::new(2, 3));
    let rate = &config.rates[0];
    assert_eq!((rate.prefix.as_str(), rate.meta_per_minute_usd), ("+49", Decimal::new(125, 4)));
    assert_eq!(rate.carrier_per_minute_usd, Decimal::ONE);
    let tiers: Vec<_> = rate.tiers.iter().map(|tier| (tier.from_minutes, tier.meta_per_minute_usd)).collect();
    assert_eq!(tiers, [(50_000, Decimal::new(1, 2)), (250_000, Decimal::ZERO)]);
    assert_eq!(config.rates[1].meta_per_minute_usd, Decimal::ZERO);
    let [crm, lan] = config.webhooks.as_slice() else { panic!("{:?}", config.webhooks) };
    assert_eq!((crm.id.as_str(), crm.name.as_str(), crm.active), ("crm", "Our CRM", false));
    assert_eq!(crm.url, "HTTPS://example.com:8443/hook/?token=1", "an address is kept as it is");
    assert_eq!(crm.secret.as_ref().unwrap().expose(), "hook-s3cret");
    assert_eq!(crm.events, [EventName::CallEnded, EventName::CallFailed]);
    assert_eq!(crm.headers.iter().collect::<Vec<_>>(), [(&"X-Tenant".to_owned(), &"acme".to_owned())]);
    assert_eq!((lan.name.as_str(), lan.events.len(), lan.active), ("10.0.0.5", 4, true));
    let number = config.number("n2").unwrap();
    assert_eq!((number.enabled, &number.forward_to, number.max_call_seconds), (false, &None, None));
    assert_eq!(number.country_code.as_deref(), Some("49"));
    assert_eq!((number.national_prefix.as_str(), number.international_prefix.as_str()), ("", "011"));
    assert_eq!(number.sip_auth_username.as_deref(), Some("agent"));
    assert_eq!(number.sip_auth_password.as_ref().unwrap().expose(), "sip-s3cret");
    assert_eq!(number.call_icon_countries.as_deref(), Some(&["DE".to_owned(), "AT".to_owned()][..]));
    let printed = format!("{config:?} {config:#?}");
    for hidden in ["s3cret", "token=1", "acme", "9f86", "0x9f", "159, 134"] {
        assert!(!printed.replace("account_id: \"acme\"", "").contains(hidden), "{hidden} in {printed}");
    }
}

#[test]
fn the_sections_that_the_example_leaves_out_load_too() {
    let (plain, rest) = EXAMPLE.split_once("# What follows may be left out altogether.\n").unwrap();
    let rest: String = rest.lines().map(|line| format!("{}\n", line.trim_start_matches('#'))).collect();
    let config = good(&format!("{plain}{rest}"));
    assert_eq!((config.rates[0].prefix.as_str(), config.rates[0].tiers.len()), ("+49", 2));
    let hook = &config.webhooks[0];
    assert_eq!((hook.id.as_str(), hook.name.as_str(), hook.headers.len()), ("crm", "example.com", 1));
    let short = good(&plus("[[webhook]]\nurl = \"https://example.com/hook\"\n"));
    let short = &short.webhooks[0];
    assert_eq!((&short.name, &short.events, short.active), (&hook.name, &hook.events, hook.active));
    let recording = RecordingConfig { upload: None, ..config.recording.clone() };
    assert_eq!(recording, good(GOOD).recording, "the example shows the defaults");
    let upload = config.recording.upload.unwrap();
    assert_eq!((upload.keep_local, upload.timeout_seconds, upload.max_tries), (true, 60, 50));
    assert!(matches!(upload.to, UploadTo::S3 { region, .. } if region == "us-east-1"));
}

#[test]
fn a_key_of_the_api_is_known_in_place_and_by_its_hash() {
    let config = good(&whole());
    let hashed = &config.http.keys[0];
    assert!(hashed.matches(b"test"));
    assert!(!hashed.matches(b"tesT") && !hashed.matches(b"") && !hashed.matches(b"test\0"));
    let plain = KeySecret::Plain(Secret::new("sk_0123456789abcdef"));
    assert!(plain.matches(b"sk_0123456789abcdef"));
    assert!(!plain.matches(b"sk_0123456789abcde") && !plain.matches(b""));
}

#[test]
fn a_key_and_the_hash_of_the_same_key_are_told_as_one_key_twice() {
    let key = |name: &str, way: &str| format!("[[http.key]]\nname = \"{name}\"\nrole = \"read\"\n{way}\n");
    let hash = "cf84a2bb9eb9f4a5d5b70ea9e2b7fbb3a5a8b5d2d1b8a2a6a6f0c4bd1f0e2a9c";
    let other = good(&plus(&key("a", &format!("key_sha256 = \"{hash}\""))));
    assert_eq!(other.http.keys.len(), 1);
    let same = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let text = key("a", "key = \"test\"") + &key("b", &format!("key_sha256 = \"{same}\""));
    assert_eq!(told(&text), ["w.toml:28: http.key[2].key_sha256: another [[http.key]] has the same key"]);
}

#[test]
fn what_is_wrong_with_a_key_of_the_api_is_told_without_telling_it() {
    let key = |way: &str| told(&format!("[[http.key]]\nname = \"a\"\nrole = \"read\"\n{way}\n"));
    assert_eq!(
        key(""),
        ["w.toml:21: http.key.key: is missing; give it as `key`, `key_file`, `key_env` or `key_sha256`"]
    );
    for wrong in ["12ab", &"g".repeat(64), &"ä".repeat(32), &"0".repeat(65)] {
        assert_eq!(
            key(&format!("key_sha256 = \"{wrong}\"")),
            ["w.toml:24: http.key.key_sha256: must be 64 hex digits, as sha256sum prints them"]
        );
    }
    let zeros = "0".repeat(64);
    assert_eq!(
        key(&format!("key = \"k\"\nkey_sha256 = \"{zeros}\"")),
        ["w.toml:25: http.key.key_sha256: is given as `key` too; keep one of them"]
    );
}

#[test]
fn an_amount_is_exact_and_plainly_written() {
    let rate = |amount: &str| {
        let config = good(&plus(&format!("[[rates]]\nprefix = \"+1\"\nmeta_per_minute_usd = {amount}\n")));
        config.rates[0].meta_per_minute_usd.normalize().to_string()
    };
    for (written, meant) in [
        ("0.1", "0.1"),
        ("0.00000001", "0.00000001"),
        ("\"0.30\"", "0.3"),
        ("12", "12"),
        ("+1.5", "1.5"),
        ("1_000.000_1", "1000.0001"),
        ("999999.99999999", "999999.99999999"),
    ] {
        assert_eq!(rate(written), meant, "{written}");
    }
    let wrong = |amount: &str| {
        told(&format!("[[rates]]\nprefix = \"+1\"\ncarrier_per_minute_usd = {amount}\n")).join("\n")
    };
    let at = "w.toml:23: rates.carrier_per_minute_usd: ";
    assert_eq!(wrong("-0.1"), format!("{at}must not be negative, is -0.1"));
    assert_eq!(wrong("1e-3"), format!("{at}must be written without an exponent, is 1e-3"));
    assert_eq!(
        wrong("0.123456789"),
        format!("{at}must have at most 8 digits behind the point, is 0.123456789")
    );
    assert_eq!(wrong("1000000"), format!("{at}must be below 1000000, is 1000000"));
    assert_eq!(wrong("\"free\""), format!("{at}must be an amount like 0.0125, is \"free\""));
    assert_eq!(wrong("\"0,5\""), format!("{at}must be an amount like 0.0125, is \"0,5\""));
    assert_eq!(wrong("inf"), format!("{at}must be an amount like 0.0125, is \"inf\""));
    assert_eq!(wrong("true"), format!("{at}must be an amount like 0.0125, is true or false"));
    assert!(wrong("0x10").starts_with(&format!("{at}must be written in decimal")), "{}", wrong("0x10"));
    assert_eq!(
        told("[recording]\nper_minute_usd = -1\n"),
        ["w.toml:22: recording.per_minute_usd: must not be negative, is -1"]
    );
}

#[test]
fn what_is_wrong_with_a_rate_is_told() {
    let cases = [
        ("[[rates]]\n", "w.toml:21: rates.prefix: is missing"),
        (
            "[[rates]]\nprefix = \"49\"\n",
            "w.toml:22: rates.prefix: must be the beginning of numbers like \"+49\", is \"49\"",
        ),
        (
            "[[rates]]\nprefix = \"+1\"\ntiers = [\n{ from_minutes = 9, meta_per_minute_usd = 0 },\n\
             { from_minutes = 9, meta_per_minute_usd = 0 }]\n",
            "w.toml:25: rates.tiers[2].from_minutes: must be above that of the tier before (9), is 9",
        ),
        (
            "[[rates]]\nprefix = \"+1\"\ntiers = [{ from_minutes = 9 }]\n",
            "w.toml:23: rates.tiers.meta_per_minute_usd: is missing",
        ),
        (
            "[[rates]]\nprefix = \"+1\"\ntiers = [{ from_minutes = 0, meta_per_minute_usd = 1 }]\n",
            "w.toml:23: rates.tiers.from_minutes: must be between 1 and 10000000000 (minutes in a month), is 0",
        ),
        (
            "[[rates]]\nprefix = \"+1\"\ntiers = [{ from_minute = 1, from_minutes = 2, meta_per_minute_usd = 1 }]\n",
            "w.toml:23: rates.tiers.from_minute: unknown key; did you mean `from_minutes`?",
        ),
        (
            "[[rates]]\nprefix = \"+1\"\n[[rates]]\nprefix = \"+1\"\n",
            "w.toml:24: rates[2].prefix: \"+1\" is taken already by rates[1].prefix in line 22",
        ),
    ];
    for (text, line) in cases {
        assert_eq!(told(text), [line]);
    }
    let many: String = (0..5_001).map(|n| format!("[[rates]]\nprefix = \"+1{n:05}\"\n")).collect();
    assert_eq!(told(&many), ["w.toml:10021: rates[5001]: is one too many: at most 5000 [[rates]]"]);
}

#[test]
fn what_is_wrong_with_a_webhook_is_told() {
    let hook = |line: &str| told(&format!("[[webhook]]\nurl = \"https://a.example/\"\n{line}\n")).join("\n");
    assert_eq!(told("[[webhook]]\nname = \"x\"\n"), ["w.toml:21: webhook.url: is missing"]);
    let shape = "must be an address that begins with https:// or http://";
    for (url, what) in [
        ("x", shape),
        ("ftp://a.example", shape),
        ("https://u:p@a.example", "must not hold a user or a password: put a header into `headers`"),
        ("https://a.example/ x", "must hold neither blanks, #, quotes nor letters outside ASCII"),
        ("https://a.example/#x", "must hold neither blanks, #, quotes nor letters outside ASCII"),
        ("https:///x", "has no valid host name or address in \"\""),
    ] {
        assert_eq!(
            told(&format!("[[webhook]]\nurl = \"{url}\"\n")),
            [format!("w.toml:22: webhook.url: {what}")]
        );
    }
    let long = "x".repeat(51);
    for (line, what) in [
        ("id = \"a b\"", "id: must be letters, digits, \"-\", \"_\" and \".\", at most 64, is \"a b\""),
        (
            &format!("name = \"{long}\""),
            "name: must have at most 50 characters, none of them a control character",
        ),
        ("secret = \"\"", "secret: must not be empty"),
        ("events = []", "events: is empty; leave it out for all, or set active = false for none"),
        ("events = [\"call.ended\", \"call.ended\"]", "events[2]: \"call.ended\" is in the list twice"),
        ("active = 1", "active: must be true or false, is a whole number"),
        ("headers = { Host = \"x\" }", "headers.Host: is a header that is set by the gateway itself"),
        (
            "headers = { X-Zernio-Event = \"x\" }",
            "headers.X-Zernio-Event: is a header that is set by the gateway itself",
        ),
        (
            "headers = { content-type = \"x\" }",
            "headers.content-type: is a header that is set by the gateway itself",
        ),
        (
            "headers = { \"a b\" = \"x\" }",
            "headers.a b: is no name of a header (letters, digits, \"-\", at most 64)",
        ),
        (
            "headers = { A = \"x\\r\\ny\" }",
            "headers.A: must have a value of printable ASCII, at most 2048 bytes",
        ),
        ("headers = { A = \"1\", a = \"2\" }", "headers.a: is there twice"),
        ("headers = { A = 1 }", "headers.A: must be a string, is a whole number"),
        ("headers = \"A: b\"", "headers: must be a table of strings, is a string"),
        ("url_ = 1", "url_: unknown key; did you mean `url`?"),
    ] {
        assert_eq!(hook(line), format!("w.toml:23: webhook.{what}"));
    }
    assert!(hook("events = [\"call.end\"]").ends_with("; did you mean \"call.ended\"?"));
    let twice = "[[webhook]]\nurl = \"https://a.example/\"\n".repeat(2);
    assert!(told(&twice)[0].starts_with("w.toml:23: webhook[2].id: \""), "{:?}", told(&twice));
    let many: String = (0..51).map(|n| format!("[[webhook]]\nurl = \"https://a.example/{n}\"\n")).collect();
    assert_eq!(told(&many), ["w.toml:121: webhook[51]: is one too many: at most 50 [[webhook]]"]);
}

#[test]
fn a_webhook_to_a_private_address_must_be_meant() {
    for host in ["127.0.0.1:9000", "localhost", "192.168.1.4", "[::1]", "169.254.169.254", "crm.local", "crm"]
    {
        let text = format!("[[webhook]]\nurl = \"http://{host}/x\"\n");
        assert_eq!(
            told(&text),
            [
                "w.toml:22: webhook.url: leads to this machine or a private network; set http.allow_private = true if that is meant"
            ],
            "{host}"
        );
        let (config, notes) = load(&plus(&format!("[http]\nallow_private = true\n{text}"))).unwrap();
        assert_eq!((config.webhooks.len(), notes.len()), (1, 1));
        assert_eq!(notes[0].what, "is not encrypted");
    }
}

#[test]
fn the_id_of_a_webhook_without_one_is_made_of_its_name_and_address() {
    let hook = |more: &str| {
        let config = good(&plus(&format!("[[webhook]]\nurl = \"https://example.com/hook\"\n{more}")));
        config.webhooks[0].id.clone()
    };
    // printf 'example.com\0https://example.com/hook' | sha256sum | head -c 24
    assert_eq!(hook(""), "208037a66286170e1f215479");
    assert_eq!(hook("name = \"example.com\"\n"), hook(""));
    assert_ne!(hook("name = \"other\"\n"), hook(""));
    assert_eq!(hook("active = false\n"), hook(""));
}

#[test]
fn what_is_wrong_with_a_number_that_dials_out_is_told() {
    let number =
        |line: &str| faults(&with("id = \"support\"", &format!("id = \"support\"\n{line}"))).join("\n");
    for (line, what) in [
        (
            "country_code = \"+49\"",
            "country_code: must be a country code like \"49\", without \"+\" and zeros before it, is \"+49\"",
        ),
        (
            "country_code = \"0049\"",
            "country_code: must be a country code like \"49\", without \"+\" and zeros before it, is \"0049\"",
        ),
        ("country_code = 49", "country_code: must be a string, is a whole number"),
        ("national_prefix = \"x\"", "national_prefix: must be at most 8 digits, is \"x\""),
        ("international_prefix = \"\"", "international_prefix: must not be empty"),
        (
            "international_prefix = \"0\"",
            "international_prefix: is that of national numbers too (\"0\"); give national_prefix or international_prefix another value",
        ),
        (
            "sip_auth_username = \"a@b\"",
            "sip_auth_username: must be a SIP user without \"@\" and blanks, at most 128 characters, is \"a@b\"",
        ),
        (
            "sip_auth_password_env = \"NOT_SET\"",
            "sip_auth_password_env: the environment variable NOT_SET is not set",
        ),
        (
            "call_icon_countries = [\"DE\", \"Germany\"]",
            "call_icon_countries[2]: must be a country of two letters like \"DE\", is \"Germany\"",
        ),
        ("call_icon_countries = [\"DE\", \"de\"]", "call_icon_countries[2]: \"DE\" is in the list twice"),
        (
            "call_icon_countries = []",
            "call_icon_countries: is empty; leave it out: then users of all countries see the button",
        ),
        ("max_call_seconds = 9", "max_call_seconds: must be at least 10 seconds, or 0 for no cap, is 9"),
        (
            "max_call_seconds = 86401",
            "max_call_seconds: must be between 0 and 86400 (seconds; 0 is no cap), is 86401",
        ),
    ] {
        assert_eq!(number(line), format!("w.toml:18: number.{what}"));
    }
    assert_eq!(
        faults(&with("forward_to = \"sip:200@pbx\"", "")),
        ["w.toml:16: number.forward_to: is missing; set it, or enabled = false"]
    );
    good(&with("forward_to = \"sip:200@pbx\"", "enabled = false"));
    let noted = notes(&with("id = \"support\"", "id = \"support\"\nsip_auth_password = \"p\""));
    assert_eq!(
        noted,
        ["w.toml:16: number.sip_auth_username: there is none: sip_auth_password is of no use without it"]
    );
    assert_eq!(
        faults(&with("[media]", "waba_id = \"x1\"\n[media]")),
        ["w.toml:6: whatsapp.waba_id: must be digits only, is \"x1\""]
    );
    assert_eq!(
        told("[http]\nrate_per_minute = -1\nallow_private = 1\n"),
        [
            "w.toml:22: http.rate_per_minute: must be between 0 and 1000000 (requests; 0 is no limit), is -1",
            "w.toml:23: http.allow_private: must be true or false, is a whole number",
        ]
    );
}
