//! The file as operators write it: what loads, what is refused, and what they are told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::*;

mod across;
mod agents;
mod board;
mod edit;
mod outbound;
mod recording;
mod trunk;

/// Files and variables out of a map.
#[derive(Default)]
struct Vault {
    files: BTreeMap<PathBuf, String>,
    variables: BTreeMap<String, String>,
}

impl SecretSource for Vault {
    fn file(&self, path: &Path) -> Result<String, String> {
        self.files.get(path).cloned().ok_or_else(|| "no such file".to_owned())
    }
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

/// A small file without faults. Its lines are counted below.
const GOOD: &str = r#"[whatsapp]
app_secret = "app-s3cret"
access_token = "token-s3cret"
verify_token = "verify-s3cret"

[media]
rtp_ports = "20000-20199"
webrtc_ports = "40000-40099"

[[trunk]]
name = "pbx"
server = "sip:192.168.1.10:5070;transport=udp"
username = "whatsapp"
password = "trunk-s3cret"

[[number]]
id = "support"
phone_number_id = "106540352242922"
phone_number = "+15550100100"
forward_to = "sip:200@pbx"
"#;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAMC\nAQE=\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAMCAQE=\n-----END PRIVATE KEY-----\n";

/// The files that the example names, and some that are wrong.
fn files() -> Vault {
    let files = [
        ("/etc/watrunk/sip.pem", CERTIFICATE),
        ("/etc/watrunk/agents.pem", CERTIFICATE),
        ("/etc/watrunk/sip.key", KEY),
        ("/etc/watrunk/hold.wav", "RIFF"),
        ("asked.ogg", "OggS\0"),
        ("ASKED.OPUS", "OggS\0"),
        ("told.wav", "RIFF...."),
        ("renamed.wav", "ID3"),
        ("told.mp3", "ID3"),
        ("/etc/watrunk/store.pem", CERTIFICATE),
        ("s3-secret", "store-s3cret\n"),
        ("hold.mp3", "ID3"),
    ];
    let files = files.map(|(path, text)| (PathBuf::from(path), text.to_owned())).into();
    Vault { files, ..Vault::default() }
}

fn load(text: &str) -> Result<(Config, Vec<Note>), Vec<Fault>> {
    Config::parse(text, &files())
}

fn good(text: &str) -> Config {
    load(text).unwrap().0
}

fn faults(text: &str) -> Vec<String> {
    let faults = load(text).expect_err("the text has a fault");
    faults.iter().map(|fault| fault.in_file(Path::new("w.toml")).to_string()).collect()
}

fn notes(text: &str) -> Vec<String> {
    load(text).unwrap().1.iter().map(|note| note.in_file(Path::new("w.toml")).to_string()).collect()
}

/// `GOOD` with one line replaced.
fn with(line: &str, instead: &str) -> String {
    assert!(GOOD.contains(line), "{line} is not in the good file");
    GOOD.replacen(line, instead, 1)
}

/// `GOOD` with a section put after it: it begins at line 21.
fn plus(more: &str) -> String {
    format!("{GOOD}{more}")
}

#[test]
fn a_small_file_loads_with_the_documented_defaults() {
    let config = good(GOOD);
    assert_eq!(config.gateway.max_calls, 50);
    assert_eq!(config.gateway.drain_seconds, 30);
    assert_eq!(config.gateway.state_dir, Path::new("/var/lib/watrunk"));
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.whatsapp.graph_url, "https://graph.facebook.com/v25.0");
    assert_eq!(config.whatsapp.dtls_role, DtlsRole::Auto);
    assert_eq!(config.media.listen_ip, IpAddr::from([0, 0, 0, 0]));
    assert_eq!((config.media.jitter_ms, config.media.opus_complexity, config.media.dscp), (60, 5, 46));
    assert_eq!((config.media.opus_bitrate, config.media.threads), (20_000, None));
    assert_eq!(config.sip.listen.to_string(), "0.0.0.0:5060");
    assert_eq!(config.sip.ring_seconds, 60);
    let trunk = config.trunk("pbx").unwrap();
    assert_eq!(trunk.address, HostPort { host: "192.168.1.10".into(), port: Some(5070) });
    assert_eq!((trunk.register, trunk.expires), (true, 300));
    assert_eq!(trunk.codecs, [Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu]);
    assert_eq!((trunk.srtp, trunk.dtmf), (Srtp::Off, Dtmf::Rfc4733));
    assert_eq!(trunk.password.as_ref().unwrap().expose(), "trunk-s3cret");
    let number = config.number("support").unwrap();
    assert_eq!(number.account_id, "support");
    assert_eq!(number.forward_to, Some(Destination::Sip { user: "200".into(), host: "pbx".into() }));
    assert_eq!((number.enabled, number.caller_id), (true, CallerId::Caller));
    assert_eq!(number.max_call_seconds, Some(14_400));
    assert_eq!((number.national_prefix.as_str(), number.international_prefix.as_str()), ("0", "00"));
    assert_eq!((&number.country_code, &number.call_icon_countries), (&None, &None));
    assert_eq!((&number.sip_auth_username, &number.sip_auth_password), (&None, &None));
    assert_eq!((config.http.allow_private, config.http.rate_per_minute), (false, 600));
    assert_eq!((&config.rates, &config.webhooks, &config.whatsapp.waba_id), (&vec![], &vec![], &None));
    assert!(config.recording.per_minute_usd.is_zero());
    assert_eq!(notes(GOOD), Vec::<String>::new());
}

#[test]
fn every_key_reaches_its_field() {
    let text = r#"
[gateway]
name = "box-7"
state_dir = "/srv/w"
max_calls = 7
drain_seconds = 0
[http]
listen = "[::1]:8081"
public_url = "https://calls.example.com/"
[[http.key]]
name = "ops"
key = "sk_0123456789abcdef"
role = "operator"
[whatsapp]
graph_url = "https://graph.example.com/v9/"
app_secret = "a"
access_token = "b"
verify_token = "c"
dtls_role = "server"
[media]
listen_ip = "10.0.0.2"
public_ip = "203.0.113.7"
webrtc_ports = "41000-41010"
rtp_ports = "21000-21019"
jitter_ms = 0x50
opus_complexity = 10
opus_bitrate = 24_000
dscp = 0
threads = 3
[sip]
listen = "10.0.0.2:5062"
public_ip = "203.0.113.8"
ring_seconds = 45
[[trunk]]
name = "pbx"
server = "SIP:pbx.example.com"
register = false
expires = 60
codecs = ["pcmu", "pcma"]
dtmf = "rfc4733"
allow = ["192.168.1.0/24", "2001:db8::1"]
silence_seconds = 40
[[number]]
id = "n1"
account_id = "acme"
phone_number_id = "1"
phone_number = "+4915112345678"
enabled = false
forward_to = "tel:+4930123456"
trunk = "pbx"
caller_id = "business"
recording = false
max_call_seconds = 600
"#;
    let config = good(text);
    assert_eq!(config.gateway.name, "box-7");
    assert_eq!(config.gateway.state_dir, Path::new("/srv/w"));
    assert_eq!((config.gateway.max_calls, config.gateway.drain_seconds), (7, 0));
    assert_eq!(config.http.listen.to_string(), "[::1]:8081");
    assert_eq!(config.http.public_url.as_deref(), Some("https://calls.example.com"));
    assert_eq!((config.http.keys[0].name.as_str(), config.http.keys[0].role), ("ops", Role::Operator));
    assert_eq!(config.http.keys[0].key, KeySecret::Plain(Secret::new("sk_0123456789abcdef")));
    assert_eq!(config.whatsapp.graph_url, "https://graph.example.com/v9");
    assert_eq!(config.whatsapp.app_secret.expose(), "a");
    assert_eq!(config.whatsapp.access_token.expose(), "b");
    assert_eq!(config.whatsapp.verify_token.expose(), "c");
    assert_eq!(config.whatsapp.dtls_role, DtlsRole::Server);
    assert_eq!(config.media.listen_ip.to_string(), "10.0.0.2");
    assert_eq!(config.media.public_ip.unwrap().to_string(), "203.0.113.7");
    assert_eq!(config.media.webrtc_ports, PortRange { first: 41000, last: 41010 });
    assert_eq!(config.media.rtp_ports, PortRange { first: 21000, last: 21019 });
    assert_eq!((config.media.jitter_ms, config.media.opus_complexity), (80, 10));
    assert_eq!((config.media.opus_bitrate, config.media.dscp, config.media.threads), (24_000, 0, Some(3)));
    assert_eq!(config.sip.listen.to_string(), "10.0.0.2:5062");
    assert_eq!(config.sip.public_ip.unwrap().to_string(), "203.0.113.8");
    assert_eq!(config.sip.ring_seconds, 45);
    let trunk = &config.trunks[0];
    assert_eq!(trunk.server, "SIP:pbx.example.com");
    assert_eq!(trunk.address, HostPort { host: "pbx.example.com".into(), port: None });
    assert_eq!((trunk.register, trunk.expires, trunk.silence_seconds), (false, 60, Some(40)));
    assert_eq!((trunk.username.as_str(), &trunk.password), ("", &None));
    assert_eq!(trunk.codecs, [Codec::Pcmu, Codec::Pcma]);
    assert_eq!(trunk.dtmf, Dtmf::Rfc4733);
    assert_eq!(trunk.allow, ["192.168.1.0/24", "2001:db8::1/128"]);
    let number = &config.numbers[0];
    assert_eq!((number.account_id.as_str(), number.phone_number_id.as_str()), ("acme", "1"));
    assert_eq!(number.phone_number, "+4915112345678");
    assert_eq!(number.forward_to, Some(Destination::Tel("+4930123456".into())));
    assert_eq!((number.enabled, number.caller_id), (false, CallerId::Business));
    assert_eq!((number.trunk.as_deref(), number.max_call_seconds), (Some("pbx"), Some(600)));
}

#[test]
fn the_example_loads_as_it_is_and_names_every_key() {
    let (config, notes) = load(EXAMPLE).unwrap();
    assert_eq!(config.numbers[0].forward_to.as_ref().unwrap().to_string(), "sip:200@pbx");
    let placeholders = notes.iter().filter(|note| note.what.contains("placeholder")).count();
    assert_eq!((placeholders, notes.len()), (5, 5), "{notes:?}");
    for (section, keys) in known::SECTIONS {
        assert!(EXAMPLE.contains(section), "{section} is not in the example");
        for key in *keys {
            let stem = key.trim_end_matches("_file").trim_end_matches("_env");
            assert!(EXAMPLE.contains(stem), "{section} {key} is not in the example");
        }
    }
}

/// `[recording]` of a config whose built-in prompt is English for all.
fn plain_as(config: &Config) -> RecordingConfig {
    RecordingConfig { consent_language: Some("en".to_owned()), ..config.recording.clone() }
}

#[test]
fn what_the_example_comments_out_as_defaults_are_the_defaults() {
    let uncommented: Vec<String> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
                rest.to_owned()
            }
            _ => line.to_owned(),
        })
        .take_while(|line| !line.starts_with("# What follows may be left out"))
        .collect();
    let mut whole = good(&uncommented.join("\n"));
    let plain = good(EXAMPLE);
    // These have no default: they show a value.
    whole.media.public_ip = None;
    whole.media.threads = None;
    whole.sip.public_ip = None;
    whole.media.hold_clip = None;
    whole.sounds.clear();
    whole.sip.tls = None;
    whole.trunks[0].allow.clear();
    whole.trunks[0].silence_seconds = None;
    whole.trunks[0].group = None;
    whole.trunks[0].dial_allow.clear();
    whole.whatsapp.waba_id = None;
    whole.numbers[0].sip_auth_username = None;
    whole.numbers[0].sip_auth_password = None;
    whole.numbers[0].call_icon_countries = None;
    whole.numbers[0].country_code = None;
    whole.numbers[0].dialect = None;
    whole.numbers[0].fallback_to = None;
    whole.numbers[0].mint = None;
    whole.numbers[0].agent_parameters = NamedTexts::default();
    whole.numbers[0].sip_headers = NamedTexts::default();
    // Nothing is the same as what [recording] says.
    assert_eq!(whole.recording.for_number(&whole.numbers[0].recording_as), plain_as(&whole));
    whole.numbers[0].recording_as = NumberRecording::default();
    assert_eq!(whole, plain);
    assert!(uncommented.iter().any(|line| line.starts_with("jitter_ms = 60")), "nothing was uncommented");
}

#[test]
fn a_number_out_of_range_is_told_with_line_range_and_value() {
    let text = with("username = \"whatsapp\"", "username = \"whatsapp\"\nexpires = 5");
    assert_eq!(faults(&text), ["w.toml:14: trunk.expires: must be between 20 and 86400 (seconds), is 5"]);
    let text = plus("[sip]\nring_seconds = -1\n");
    assert_eq!(faults(&text), ["w.toml:22: sip.ring_seconds: must be between 5 and 300 (seconds), is -1"]);
    let huge = "9".repeat(40);
    let text = plus(&format!("[gateway]\ndrain_seconds = {huge}\n"));
    assert!(faults(&text)[0].starts_with("w.toml:22: gateway.drain_seconds: must be between 0 and 86400"));
}

#[test]
fn the_bounds_of_every_number_hold() {
    let cases = [
        ("gateway", "max_calls", 1, 100, 0, 10_001),
        ("media", "jitter_ms", 20, 200, 19, 201),
        ("media", "opus_complexity", 0, 10, -1, 11),
        ("media", "opus_bitrate", 6_000, 64_000, 5_999, 64_001),
        ("media", "dscp", 0, 63, -1, 64),
        ("media", "threads", 1, 256, 0, 257),
        ("sip", "ring_seconds", 5, 300, 4, 301),
        ("sip", "max_per_second", 5, 1_000, 4, 1_001),
        ("agent", "connect_seconds", 5, 60, 0, 61),
        ("agent", "silence_seconds", 0, 3_600, -1, 3_601),
    ];
    let bare = GOOD.replace("[media]\nrtp_ports = \"20000-20199\"\nwebrtc_ports = \"40000-40099\"\n", "");
    for (section, key, low, high, under, over) in cases {
        for fine in [low, high] {
            good(&format!("{bare}[{section}]\n{key} = {fine}\n"));
        }
        for wrong in [under, over] {
            let told = faults(&format!("{bare}[{section}]\n{key} = {wrong}\n"));
            assert_eq!(told.len(), 1, "{section}.{key} = {wrong}: {told:?}");
            assert!(told[0].ends_with(&format!("is {wrong}")), "{told:?}");
        }
    }
}

#[test]
fn a_wrong_type_is_named() {
    let cases = [
        ("[gateway]\nmax_calls = \"ten\"", "gateway.max_calls: must be a whole number, is a string"),
        (
            "[gateway]\nmax_calls = 1.5",
            "gateway.max_calls: must be a whole number, is a number with a fraction",
        ),
        ("[gateway]\nname = 1", "gateway.name: must be a string, is a whole number"),
        ("[gateway]\nname = 1979-05-27", "gateway.name: must be a string, is a date or time"),
        ("[sip]\nlisten = true", "sip.listen: must be a string, is true or false"),
        ("[sip]\nlisten = [1]", "sip.listen: must be a string, is a list"),
        ("[sip]\nlisten = {a = 1}", "sip.listen: must be a string, is a table"),
    ];
    for (text, told) in cases {
        assert_eq!(faults(&plus(text)), [format!("w.toml:22: {told}")]);
    }
    let text = with("username = \"whatsapp\"", "username = \"whatsapp\"\nregister = \"yes\"");
    assert_eq!(faults(&text), ["w.toml:14: trunk.register: must be true or false, is a string"]);
    let text = with("username = \"whatsapp\"", "username = \"whatsapp\"\ncodecs = \"pcma\"");
    assert_eq!(faults(&text), ["w.toml:14: trunk.codecs: must be a list of strings, is a string"]);
    let text = with("username = \"whatsapp\"", "username = \"whatsapp\"\nallow = [\"10.0.0.0/8\", 4]");
    assert_eq!(faults(&text), ["w.toml:14: trunk.allow[2]: must be a string, is a whole number"]);
}

#[test]
fn a_section_written_the_wrong_way_is_told_the_right_one() {
    let text = GOOD.replace("[[trunk]]", "[trunk]");
    let told = faults(&text);
    assert_eq!(told[0], "w.toml:10: trunk: must be a list of tables; write [[trunk]]");
    let text = GOOD.replace("[media]", "[[media]]");
    assert_eq!(faults(&text), ["w.toml:6: media: must be one table, is a list; write [media]"]);
    assert_eq!(
        faults(&plus("[http]\nkey = \"abc\"\n"))[0],
        "w.toml:22: http.key: must be a list of tables; write [[http.key]]"
    );
    assert_eq!(faults(&format!("sip = 5060\n{GOOD}")), ["w.toml:1: sip: must be a table, is a whole number"]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let text = with("[media]", "[media]\nlistenip = \"0.0.0.0\"");
    assert_eq!(faults(&text), ["w.toml:7: media.listenip: unknown key; did you mean `listen_ip`?"]);
    let text = plus("[gatway]\nname = \"x\"\n");
    assert_eq!(faults(&text), ["w.toml:21: gatway: unknown key; did you mean `gateway`?"]);
    let text = with("[media]", "[media]\nring_seconds = 30");
    assert_eq!(faults(&text), ["w.toml:7: media.ring_seconds: unknown key; it belongs in [sip]"]);
    let text = with("[media]", "[media]\ncolour = \"red\"");
    assert_eq!(faults(&text), ["w.toml:7: media.colour: unknown key"]);
    let text = with("id = \"support\"", "id = \"support\"\nforwardto = \"x\"");
    assert_eq!(faults(&text), ["w.toml:18: number.forwardto: unknown key; did you mean `forward_to`?"]);
    let text = plus("[recording]\nkeep_day = 3\n");
    assert_eq!(faults(&text), ["w.toml:22: recording.keep_day: unknown key; did you mean `keep_days`?"]);
}

#[test]
fn several_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = r#"[gateway]
max_calls = "many"
[whatsapp]
app_secret = "a"
acces_token = "b"
verify_token = 5
[media]
jitter_ms = 5
[[trunk]]
name = "a"
server = "192.168.1.10"
[[trunk]]
name = "b"
server = "sips:10.0.0.1;transport=udp"
register = false
"#;
    assert_eq!(
        faults(text),
        [
            "w.toml:2: gateway.max_calls: must be a whole number, is a string",
            "w.toml:3: whatsapp.access_token: is missing; give it as `access_token`, `access_token_file` or `access_token_env`",
            "w.toml:5: whatsapp.acces_token: unknown key; did you mean `access_token`?",
            "w.toml:6: whatsapp.verify_token: must be a string, is a whole number",
            "w.toml:8: media.jitter_ms: must be between 20 and 200 (milliseconds), is 5",
            "w.toml:9: trunk[1].username: is missing, but the trunk registers; set it, or register = false for a peer by address",
            "w.toml:11: trunk[1].server: must be like \"sip:192.168.1.10:5060;transport=udp\", is \"192.168.1.10\"",
            "w.toml:14: trunk[2].server: sips: means TLS, which is not over UDP",
        ]
    );
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_lines_and_nothing_else() {
    let text = "[gateway]\nname = \n[whatsapp]\napp_secret = \"a\"\napp_secret = \"b\"\n";
    let told = faults(text);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("w.toml:2: is not TOML: "), "{told:?}");
    assert_eq!(told[1], "w.toml:5: is not TOML: duplicate key");
}

#[test]
fn an_empty_file_lacks_the_secrets_only() {
    let told = faults("");
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|line| line.starts_with("w.toml: whatsapp.")), "{told:?}");
}

#[test]
fn keys_that_must_be_there_are_missed_at_their_section() {
    let told = faults(&plus("[[http.key]]\n[[trunk]]\n[[number]]\n"));
    let missing: Vec<&str> = told.iter().filter_map(|line| line.split(": is missing").next()).collect();
    assert_eq!(
        missing,
        [
            "w.toml:21: http.key.key",
            "w.toml:21: http.key.name",
            "w.toml:21: http.key.role",
            "w.toml:22: trunk[2].name",
            "w.toml:22: trunk[2].server",
            "w.toml:22: trunk[2].username",
            "w.toml:23: number[2].forward_to",
            "w.toml:23: number[2].id",
            "w.toml:23: number[2].phone_number",
            "w.toml:23: number[2].phone_number_id",
        ]
    );
}

#[test]
fn values_of_the_wrong_shape_are_refused_with_an_example() {
    let number = |line: &str, instead: &str| faults(&with(line, instead));
    let cases = [
        (
            with("+15550100100", "015550100100"),
            "w.toml:19: number.phone_number: must be a number like +15550100100 (E.164, digits only), is \"015550100100\"",
        ),
        (
            with("+15550100100", "+1 555 0100"),
            "w.toml:19: number.phone_number: must be a number like +15550100100 (E.164, digits only), is \"+1 555 0100\"",
        ),
        (
            with("sip:200@pbx", "tel:12"),
            "w.toml:20: number.forward_to: must be a number like +15550100100 (E.164, digits only), is \"12\"",
        ),
        (
            with("sip:200@pbx", "200"),
            "w.toml:20: number.forward_to: must be tel:+number, sip:user@trunk or wss://host, is \"200\"",
        ),
        (
            with("sip:200@pbx", "sip:pbx"),
            "w.toml:20: number.forward_to: needs a user, like \"sip:200@pbx\", is \"sip:pbx\"",
        ),
        (
            with("sip:200@pbx", "sip:2 0@pbx"),
            "w.toml:20: number.forward_to: has no valid user in \"sip:2 0@pbx\"",
        ),
        (
            with("106540352242922", "abc"),
            "w.toml:18: number.phone_number_id: must be digits only, is \"abc\"",
        ),
        (
            with("20000-20199", "20000"),
            "w.toml:7: media.rtp_ports: must be two ports like \"40000-40099\", is \"20000\"",
        ),
        (
            with("20000-20199", "20199-20000"),
            "w.toml:7: media.rtp_ports: must not end (20000) below its beginning (20199)",
        ),
        (
            with("20000-20199", "500-900"),
            "w.toml:7: media.rtp_ports: must not begin below port 1024, begins at 500",
        ),
        (with("name = \"pbx\"", "name = \"p.b\""), "w.toml:11: trunk.name: must not hold a dot, is \"p.b\""),
        (
            with("192.168.1.10:5070", "192.168.1.300"),
            "w.toml:12: trunk.server: has no valid host name or address in \"192.168.1.300\"",
        ),
        (
            with("192.168.1.10:5070", "pbx:99999"),
            "w.toml:12: trunk.server: has no valid port (1 to 65535) in \"pbx:99999\"",
        ),
        (
            with("sip:192", "sip:me@192"),
            "w.toml:12: trunk.server: must not have a user part: the user goes into `username`",
        ),
        (
            plus("[http]\nlisten = \"8080\""),
            "w.toml:22: http.listen: must be an address and a port like \"127.0.0.1:8080\", is \"8080\"",
        ),
        (
            plus("[http]\npublic_url = \"calls.example.com\""),
            "w.toml:22: http.public_url: must be an address that begins with https:// or http://, is \"calls.example.com\"",
        ),
        (
            plus("[sip]\npublic_ip = \"0.0.0.0\""),
            "w.toml:22: sip.public_ip: must be an address that others can send to, is \"0.0.0.0\"",
        ),
        (plus("[sip]\npublic_ip = \"here\""), "w.toml:22: sip.public_ip: must be an IP address, is \"here\""),
        (plus("[gateway]\nname = \"\""), "w.toml:22: gateway.name: must not be empty"),
        (
            plus("[gateway]\nname = \"my box\""),
            "w.toml:22: gateway.name: must be letters, digits, \"-\", \"_\" and \".\", at most 64, is \"my box\"",
        ),
        (
            with("[media]", "[media]\nstun = [\"stun.example.com\"]"),
            "w.toml:7: media.stun[1]: must be like \"stun:stun.example.com:3478\", is \"stun.example.com\"",
        ),
        (
            with("[[trunk]]", "[[trunk]]\nallow = [\"10.0.0.0/33\"]"),
            "w.toml:11: trunk.allow[1]: must have a prefix of at most 32 bits, is \"10.0.0.0/33\"",
        ),
        (
            with("[[trunk]]", "[[trunk]]\nallow = [\"pbx\"]"),
            "w.toml:11: trunk.allow[1]: must be a network like \"192.168.1.0/24\", is \"pbx\"",
        ),
        (
            with("[[trunk]]", "[[trunk]]\ndtmf = \"rfc2833\""),
            "w.toml:11: trunk.dtmf: must be \"rfc4733\" or \"info\", is \"rfc2833\"; did you mean \"rfc4733\"?",
        ),
        (
            with("[[trunk]]", "[[trunk]]\ncodecs = [\"pcma\", \"gsm\"]"),
            "w.toml:11: trunk.codecs[2]: must be \"opus\" or \"g722\" or \"pcma\" or \"pcmu\", is \"gsm\"",
        ),
        (
            with("[[trunk]]", "[[trunk]]\ncodecs = [\"pcma\", \"pcma\"]"),
            "w.toml:11: trunk.codecs[2]: \"pcma\" is in the list twice",
        ),
    ];
    for (text, told) in cases {
        assert_eq!(faults(&text), [told]);
    }
    // A value can't break the line that quotes it.
    let told = number("sip:200@pbx", "a\\nb\\u001b[31m");
    assert_eq!(told.len(), 1);
    assert!(!told[0].contains(['\n', '\u{1b}']), "{told:?}");
}

#[test]
fn what_this_version_can_not_do_is_refused_not_ignored() {
    let cases = [
        (with(";transport=udp", ";lr"), 12, "trunk.server"),
        (with("sip:200@pbx", "sips:200@pbx"), 20, "number.forward_to"),
        (with("sip:200@pbx", "sip:200@10.0.0.1;transport=tcp"), 20, "number.forward_to"),
        (plus("[http]\ntls_cert = \"a.pem\""), 22, "http.tls_cert"),
        (plus("[http]\ntls_key = \"a.pem\""), 22, "http.tls_key"),
    ];
    for (text, line, key) in cases {
        let told = faults(&text);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("w.toml:{line}: {key}: ")), "{told:?}");
        assert!(told[0].contains("not supported by this version"), "{told:?}");
    }
}

#[test]
fn what_this_version_leaves_out_is_noted() {
    let stun = notes(&with("[media]", "[media]\nstun = [\"stun:stun.example.com\"]"));
    assert!(stun[0].starts_with("w.toml:7: media.stun: not in force"), "{stun:?}");
}

#[test]
fn what_may_surprise_an_operator_is_noted() {
    let cases = [
        (
            plus("[http]\nlisten = \"0.0.0.0:8080\""),
            "w.toml:22: http.listen: can be reached from other machines",
        ),
        (
            with("[whatsapp]", "[whatsapp]\ngraph_url = \"http://127.0.0.1:9000/v25.0\""),
            "w.toml:2: whatsapp.graph_url: is not encrypted",
        ),
        (with("password = \"trunk-s3cret\"", ""), "w.toml:10: trunk.password: there is none"),
        (
            plus("[[http.key]]\nname = \"a\"\nkey = \"short\"\nrole = \"read\""),
            "w.toml:21: http.key: the key has fewer than 16",
        ),
        (GOOD.split("[[number]]").next().unwrap().to_owned(), "w.toml: number: there is none"),
    ];
    for (text, begins) in cases {
        let told = notes(&text);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(begins), "{told:?}");
    }
}
