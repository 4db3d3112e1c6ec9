//! Voice agents: how they are spoken to, what happens when they fail, and those that take SIP only.

use super::super::edit::{Edit, EditFault, EditValue, apply};
use super::*;

/// A good file whose number goes to an agent and has these lines too, from line 21.
fn agent(lines: &str) -> String {
    let text = with("sip:200@pbx", "wss://bot.example.com/a");
    format!("{text}{lines}\n")
}

/// A good file whose number goes to this user at an agent that takes SIP only.
fn by_sip(user: &str, lines: &str) -> String {
    let text = with("sip:200@pbx", &format!("sip:{user}@pbx"));
    format!("{text}{lines}\n")
}

const MINT: &str = r#"mint_url = "https://api.example.com/register?v=2"
mint_body = '{"from": "{caller}", "to": "{number}", "x": {"y": "{z}"}}'
mint_key = "mint-s3cret"
mint_field = "/call/0/id""#;

#[test]
fn every_key_of_agents_reaches_its_field() {
    let config = good(&plus(
        r#"[agent]
dialect = "vapi"
key = "cloud-s3cret"
auth_token = "token2-s3cret"
parameters = { assistantId = "asst-s3cret", prompt = """Be kind.
Be brief.""" }
connect_seconds = 30
retry_seconds = 30
silence_seconds = 20
ca_file = "/etc/watrunk/agents.pem"
"#,
    ));
    let agent = &config.agent;
    assert_eq!((agent.dialect.as_str(), agent.connect_seconds, agent.retry_seconds), ("vapi", 30, 30));
    assert_eq!(agent.silence_seconds, Some(20));
    assert_eq!(agent.key.as_ref().unwrap().expose(), "cloud-s3cret");
    assert_eq!(agent.auth_token.as_ref().unwrap().expose(), "token2-s3cret");
    assert_eq!(agent.parameters.get("prompt").unwrap(), "Be kind.\nBe brief.");
    assert!(!format!("{config:?} {config:#?}").contains("s3cret"));
    let default = good(GOOD).agent;
    assert_eq!(
        (default.dialect.as_str(), default.retry_seconds, default.silence_seconds),
        ("twilio", 5, None)
    );
    assert_eq!((default.auth_token, default.parameters.len()), (None, 0));
    assert_eq!(good(&plus("[agent]\nsilence_seconds = 0\n")).agent.silence_seconds, None);
    assert_eq!(good(&plus("[agent]\nconnect_seconds = 3\n")).agent.retry_seconds, 3);
    let number = good(&agent_with_all());
    let number = &number.numbers[0];
    assert_eq!(number.fallback_to.as_ref().unwrap().to_string(), "sip:{minted}@pbx");
    assert_eq!(number.agent_parameters.get("voice").unwrap(), "marin");
    assert_eq!(number.sip_headers.get("X-Tenant").unwrap(), "acme-s3cret");
    let mint = number.mint.as_ref().unwrap();
    assert_eq!(
        (mint.url.as_str(), mint.field.as_str()),
        ("https://api.example.com/register?v=2", "/call/0/id")
    );
    assert_eq!(mint.key.expose(), "mint-s3cret");
    let printed = format!("{number:?}");
    for hidden in ["s3cret", "marin", "register", "caller}"] {
        assert!(!printed.contains(hidden), "{hidden} in {printed}");
    }
}

fn agent_with_all() -> String {
    agent(&format!(
        "fallback_to = \"sip:{{minted}}@pbx\"\nagent_parameters = {{ voice = \"marin\" }}\n\
         sip_headers = {{ X-Tenant = \"acme-s3cret\" }}\n{MINT}"
    ))
}

#[test]
fn what_is_wrong_with_agents_is_told() {
    let long = "x".repeat(32 * 1024 + 1);
    for (lines, what) in [
        ("retry_seconds = 31", "retry_seconds: must be between 0 and 30 (seconds; 0 is never), is 31".to_owned()),
        ("retry_seconds = 11", "retry_seconds: must not be above connect_seconds (10), is 11".to_owned()),
        (
            "dialect = \"retell\"",
            "dialect: must be one of twilio, telnyx, telnyx-l16, vonage, plivo, exotel, jambonz, asterisk, pcm16, elevenlabs, vapi, deepgram, openai or pcm16-RATE, is \"retell\"".to_owned(),
        ),
        (
            "parameters = { \"a b\" = \"x\" }",
            "parameters.a b: is no name of a parameter (letters, digits, \"-\", \"_\", \".\", at most 64)".to_owned(),
        ),
        ("parameters = { a = 1 }", "parameters.a: must be a string, is a whole number".to_owned()),
        (&format!("parameters = {{ a = \"{long}\" }}"), "parameters.a: must have at most 32768 bytes".to_owned()),
        ("ca_file = \"/etc/watrunk/sip.key\"", "ca_file: \"/etc/watrunk/sip.key\" holds no certificate (PEM: it begins with \"-----BEGIN CERTIFICATE-----\"); it holds a key instead".to_owned()),
        ("auth_tokn = \"x\"", "auth_tokn: unknown key; did you mean `auth_token`?".to_owned()),
        ("assistant_id = \"x\"", "assistant_id: unknown key".to_owned()),
    ] {
        assert_eq!(faults(&plus(&format!("[agent]\n{lines}\n"))), [format!("w.toml:22: agent.{what}")]);
    }
    let many: String = (0..51).map(|n| format!("p{n} = \"x\"\n")).collect();
    let told = faults(&plus(&format!("[agent.parameters]\n{many}")));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("is one too many: at most 50 parameters"), "{told:?}");
}

#[test]
fn the_handshakes_own_headers_are_not_for_the_file() {
    for key in ["Sec-WebSocket-Key", "sec-websocket-protocol"] {
        let told = faults(&plus(&format!("[agent]\nheaders = {{ {key} = \"x\" }}\n")));
        let what = "is a header that is set by the gateway itself";
        assert_eq!(told, [format!("w.toml:22: agent.headers.{key}: {what}")]);
    }
}

#[test]
fn what_a_service_will_ask_for_and_the_file_has_not_is_noted() {
    let told = |lines: &str| {
        let all = notes(&agent(lines)).into_iter();
        all.filter_map(|note| note.split_once("number.forward_to: ").map(|(_, what)| what.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(""), [""; 0]);
    assert_eq!(told("dialect = \"openai\""), ["openai wants a key: set agent_key, or key in [agent]"]);
    assert_eq!(told("dialect = \"openai\"\nagent_key = \"k\""), [""; 0]);
    assert_eq!(told("dialect = \"deepgram\"\nagent_headers = { authorization = \"Token k\" }"), [""; 0]);
    assert_eq!(
        told("dialect = \"vapi\"\nagent_key = \"k\""),
        ["vapi wants to know which assistant: set agent_parameters.assistantId"]
    );
    assert_eq!(
        told("dialect = \"vapi\"\nagent_key = \"k\"\nagent_parameters = { assistantId = \"a\" }"),
        [""; 0]
    );
    assert_eq!(
        told("dialect = \"jambonz\"\nagent_parameters = { sampleRate = \"32000\", settings = \"{\" }"),
        [
            "sampleRate must be 8000, 16000, 24000 or 48000: 16000 is used",
            "the parameter `settings` is not JSON: it is not used"
        ]
    );
    assert_eq!(told("dialect = \"asterisk\"\nagent_parameters = { format = \"slin16\" }"), [""; 0]);
}

#[test]
fn a_call_falls_back_to_somewhere_else_than_the_agent_that_failed() {
    for fine in ["sip:300@pbx", "sip:300@10.0.0.9:5080", "wss://bot.example.com/b"] {
        let config = good(&agent(&format!("fallback_to = \"{fine}\"")));
        assert_eq!(config.numbers[0].fallback_to.as_ref().unwrap().to_string(), fine);
    }
    let told = |to: &str| faults(&agent(&format!("fallback_to = \"{to}\""))).join("\n");
    let at = "w.toml:21: number.fallback_to: ";
    assert_eq!(
        told("wss://bot.example.com/a"),
        format!(
            "{at}is the same agent as that of forward_to, which has failed by then; name a person or a queue: sip:user@trunk or tel:+number"
        )
    );
    assert_eq!(
        told("tel:+4930123456"),
        format!("{at}tel: needs a trunk that carries it; set trunk = \"pbx\"")
    );
    assert_eq!(
        told("sip:300@pdx"),
        format!("{at}there is no [[trunk]] with the name \"pdx\"; did you mean \"pbx\"?")
    );
    assert!(told("ws://10.0.0.7/").starts_with(&format!("{at}leads to this machine or a private network")));
    assert!(told("300").starts_with(&format!("{at}must be tel:+number")));
}

#[test]
fn a_program_may_take_the_agent_away_from_a_number_that_has_a_fallback() {
    let text = agent("fallback_to = \"sip:300@pbx\" # the desk");
    let to = |to: &str| Edit::Number {
        id: "support".into(),
        set: vec![("forward_to", Some(EditValue::Text(to.into())))],
    };
    let changed = apply(&text, &[to("sip:200@pbx")]).unwrap();
    assert!(changed.ends_with("fallback_to = \"sip:300@pbx\" # the desk\n"), "{changed}");
    assert_eq!(
        notes(&changed),
        [
            "w.toml:21: number.fallback_to: of no use: it is for a voice agent that fails, and forward_to is none"
        ]
    );
    let same = agent("fallback_to = \"wss://bot.example.com/b\"");
    assert!(matches!(apply(&same, &[to("wss://bot.example.com/b")]), Err(EditFault::After(_))));
}

#[test]
fn an_edit_leaves_every_key_of_trunks_and_agents_as_it_is() {
    let text = agent_with_all().replace(
        "[[trunk]]",
        "[sip]\ntls_listen = \"0.0.0.0:5061\"\ntls_cert = \"c.pem\"\ntls_key = \"k.pem\" # ours\n[[trunk]]\ngroup = \"site\" # both\ndial_allow = [\"+49\"]",
    );
    let edit = Edit::Number { id: "support".into(), set: vec![("enabled", Some(EditValue::Flag(false)))] };
    let changed = apply(&text, &[edit]).unwrap();
    let kept: Vec<&str> = changed.lines().filter(|line| *line != "enabled = false").collect();
    assert_eq!(kept, text.lines().collect::<Vec<_>>());
    assert_eq!(changed.lines().count(), text.lines().count() + 1);
}

#[test]
fn a_user_part_is_filled_for_each_call() {
    let config = good(&by_sip("{call_id}-{caller}", ""));
    let destination = config.numbers[0].forward_to.as_ref().unwrap();
    assert_eq!(destination.placeholders(), [Placeholder::CallId, Placeholder::Caller]);
    let value = |placeholder: Placeholder| match placeholder {
        Placeholder::CallId => "call_1".to_owned(),
        Placeholder::Caller => "US.1 2@x".to_owned(),
        Placeholder::Number | Placeholder::Minted => panic!("not in there"),
    };
    assert_eq!(
        destination.for_call(value),
        Destination::Sip { user: "call_1-US.1%202%40x".into(), host: "pbx".into() },
        "a value can't break out of the user part"
    );
    let told = |user: &str| faults(&by_sip(user, "")).join("\n");
    assert_eq!(
        told("{callid}"),
        "w.toml:20: number.forward_to: has the placeholder {callid}, but there are only {call_id}, {caller}, {number}, {minted}"
    );
    assert!(told("{call_id").contains("has no valid user"));
    assert!(told(&"{".repeat(100_000)).contains("has no valid user"), "a long one takes no time");
    assert_eq!(
        told("{minted}"),
        "w.toml:20: number.forward_to: has {minted}, but nothing says how to come by it; set mint_url, mint_body, mint_key and mint_field"
    );
}

#[test]
fn an_id_is_minted_by_a_request_that_is_told_whole_or_not_at_all() {
    let config = good(&by_sip("{minted}", MINT));
    let mint = config.numbers[0].mint.as_ref().unwrap();
    let value = |placeholder: Placeholder| match placeholder {
        Placeholder::Caller => "+49\"\n".to_owned(),
        Placeholder::Number => "+1".to_owned(),
        Placeholder::CallId | Placeholder::Minted => panic!("not in there"),
    };
    assert_eq!(
        filled_json(&mint.body, value),
        r#"{"from": "+49\"\n", "to": "+1", "x": {"y": "{z}"}}"#,
        "a value can't break out of its string, and other braces stay"
    );
    for missing in ["mint_url", "mint_body", "mint_key", "mint_field"] {
        let lines: Vec<&str> = MINT.lines().filter(|line| !line.starts_with(missing)).collect();
        assert_eq!(
            faults(&by_sip("{minted}", &lines.join("\n"))),
            [format!(
                "w.toml:16: number.{missing}: is missing; give mint_url, mint_body, mint_key and mint_field, or none"
            )]
        );
    }
    let told = |line: &str, instead: &str| {
        let (key, _) = line.split_once(' ').unwrap();
        let lines: Vec<&str> = MINT.lines().map(|l| if l.starts_with(key) { instead } else { l }).collect();
        faults(&by_sip("{minted}", &lines.join("\n"))).join("\n")
    };
    assert_eq!(
        told("mint_field ", "mint_field = \"call_id\""),
        "w.toml:24: number.mint_field: must be a JSON pointer like \"/call_id\", is \"call_id\""
    );
    assert_eq!(
        told("mint_body ", "mint_body = \"{minted}\""),
        "w.toml:22: number.mint_body: must not hold {minted}: that is what its answer brings"
    );
    assert!(
        told("mint_url ", "mint_url = \"wss://x\"").contains("must be an address that begins with https://")
    );
    assert_eq!(
        told("mint_url ", "mint_url = \"https://10.0.0.1/\""),
        "w.toml:21: number.mint_url: leads to this machine or a private network; set http.allow_private = true if that is meant"
    );
    assert_eq!(
        notes(&by_sip("200", MINT)),
        ["w.toml:21: number.mint_url: of no use: no destination of this number holds {minted}"]
    );
    assert_eq!(
        notes(&by_sip("{minted}", &MINT.replace("https:", "http:"))),
        ["w.toml:21: number.mint_url: is not encrypted: mint_key can be read on the way"]
    );
}

#[test]
fn headers_of_an_invite_are_ones_own() {
    let told = |header: &str| faults(&by_sip("200", &format!("sip_headers = {{ {header} }}"))).join("\n");
    for (header, what) in [
        ("From = \"x\"", "From: must have a name that begins with \"X-\""),
        ("X- = \"x\"", "X-: must have a name that begins with \"X-\""),
        ("x-whatsapp-call-id = \"x\"", "x-whatsapp-call-id: is a header that is set by the gateway itself"),
        ("X-A = \"a\\r\\nVia: b\"", "X-A: must have a value of printable ASCII, at most 2048 bytes"),
        ("X-A = \"1\", x-a = \"2\"", "x-a: is there twice"),
    ] {
        assert_eq!(told(header), format!("w.toml:21: number.sip_headers.{what}"));
    }
}
