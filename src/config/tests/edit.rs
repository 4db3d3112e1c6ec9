//! Changes by programs: what is written, and that everything else stays as it was, byte for byte.

use super::super::edit::{Edit, EditFault, EditValue, WebhookEdit, apply};
use super::*;

fn number(key: &'static str, value: Option<EditValue>) -> Edit {
    Edit::Number { id: "support".into(), set: vec![(key, value)] }
}

fn text(value: &str) -> Option<EditValue> {
    Some(EditValue::Text(value.into()))
}

/// The lines that are not in the other text, old and new, in order.
fn changed(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let (old, new): (Vec<&str>, Vec<&str>) =
        (before.split_inclusive('\n').collect(), after.split_inclusive('\n').collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let most = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str]| lines[head..lines.len() - tail].iter().map(|l| (*l).to_owned()).collect();
    (part(&old), part(&new))
}

#[track_caller]
fn one_line(before: &str, edit: Edit, old: &str, new: &str) -> String {
    let after = apply(before, &[edit]).unwrap();
    let lines = |lines: Vec<String>| lines.concat();
    let (gone, come) = changed(before, &after);
    assert_eq!((lines(gone).as_str(), lines(come).as_str()), (old, new));
    after
}

#[test]
fn a_value_changes_and_its_comment_stays() {
    let before = with("forward_to = \"sip:200@pbx\"", "  forward_to   =\t'sip:200@pbx'# the desk\r");
    let after = one_line(
        &before,
        number("forward_to", text("sip:300@pbx")),
        "  forward_to   =\t'sip:200@pbx'# the desk\r\n",
        "  forward_to   =\t'sip:300@pbx'# the desk\r\n",
    );
    assert_eq!(apply(&after, &[number("forward_to", text("sip:200@pbx"))]).unwrap(), before);
}

#[test]
fn a_value_that_is_the_same_is_not_rewritten() {
    let before = with("id = \"support\"", "id = \"support\"\nmax_call_seconds = 0x_ff\nenabled = true # yes");
    let before =
        before.replace("0x_ff", "0xff").replace("\"sip:200@pbx\"", "\"\"\"sip:2\\u0030\\u0030@pbx\"\"\"");
    let same = Edit::Number {
        id: "support".into(),
        set: vec![
            ("max_call_seconds", Some(EditValue::Whole(255))),
            ("forward_to", text("sip:200@pbx")),
            ("enabled", Some(EditValue::Flag(true))),
        ],
    };
    assert_eq!(apply(&before, &[same]).unwrap(), before);
}

#[test]
fn a_new_key_comes_after_the_last_one_in_the_style_of_the_table() {
    let edit = || number("max_call_seconds", Some(EditValue::Whole(60)));
    one_line(GOOD, edit(), "", "max_call_seconds = 60\n");
    let tight = with("forward_to = \"sip:200@pbx\"", "\tforward_to=\"sip:200@pbx\" # here\n\n# a remark\n");
    let after = one_line(&tight, edit(), "", "\tmax_call_seconds=60\n");
    assert!(after.contains("# here\n\tmax_call_seconds=60\n\n# a remark\n"), "{after}");
    let without_break = GOOD.trim_end();
    let after = apply(without_break, &[edit()]).unwrap();
    assert_eq!(after, format!("{without_break}\nmax_call_seconds = 60"));
    assert_eq!(apply(&after, &[number("max_call_seconds", None)]).unwrap(), without_break);
}

#[test]
fn a_key_is_taken_out_with_its_line_only() {
    let before =
        with("id = \"support\"", "# the id\nid = \"support\"\nmax_call_seconds = 60 # an hour\n# next\n");
    one_line(&before, number("max_call_seconds", None), "max_call_seconds = 60 # an hour\n", "");
    let list =
        with("id = \"support\"", "call_icon_countries = [\n  \"DE\", # here\n  \"AT\",\n]\nid = \"support\"");
    let lines = "call_icon_countries = [\n  \"DE\", # here\n  \"AT\",\n]\n";
    one_line(&list, number("call_icon_countries", None), lines, "");
    assert_eq!(apply(GOOD, &[number("call_icon_countries", None)]).unwrap(), GOOD, "it was not there");
}

#[test]
fn a_file_with_carriage_returns_keeps_them() {
    let before = GOOD.replace('\n', "\r\n");
    let edits = [
        number("max_call_seconds", Some(EditValue::Whole(60))),
        number("forward_to", text("tel:+4930123456")),
        number("trunk", text("pbx")),
        Edit::PutWebhook(WebhookEdit { url: Some("https://a.example/".into()), ..hook("crm") }),
    ];
    let after = apply(&before, &edits).unwrap();
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
    let config = good(&after);
    assert_eq!((config.numbers[0].max_call_seconds, config.webhooks.len()), (Some(60), 1));
    let back = [
        Edit::RemoveWebhook { id: "crm".into() },
        number("forward_to", text("sip:200@pbx")),
        number("max_call_seconds", None),
        number("trunk", None),
    ];
    assert_eq!(apply(&after, &back).unwrap(), before);
}

#[test]
fn a_secret_from_a_file_is_given_in_place_afterwards_and_all_ways_are_taken_out() {
    let secret = |s: &str| Some(EditValue::Secret(Secret::new(s)));
    let before = with("id = \"support\"", "sip_auth_password_file = \"pw\" # by hand\nid = \"support\"");
    let after = one_line(
        &before,
        number("sip_auth_password", secret("a\"b")),
        "sip_auth_password_file = \"pw\" # by hand\n",
        "sip_auth_password = \"a\\\"b\" # by hand\n",
    );
    let config = good(&after);
    assert_eq!(config.numbers[0].sip_auth_password.as_ref().unwrap().expose(), "a\"b");
    for way in
        ["sip_auth_password = \"x\"", "sip_auth_password_file = \"x\"", "sip_auth_password_env = \"x\""]
    {
        let text = with("id = \"support\"", &format!("id = \"support\"\n{way}"));
        assert_eq!(apply(&text, &[number("sip_auth_password", None)]).unwrap(), GOOD);
    }
    assert!(!format!("{:?}", number("sip_auth_password", secret("s3cret"))).contains("s3cret"));
}

#[test]
fn a_number_between_braces_is_edited_there() {
    let (head, _) = GOOD.split_once("[[number]]").unwrap();
    let one =
        "{ id = \"support\", phone_number_id = \"1\", phone_number = \"+15550100100\", enabled = false }";
    let two = "{id='b',phone_number_id='2',phone_number='+15550100101',enabled=false,}";
    let before = format!("number = [{one}, # the first\n  {two}]\n{head}");
    let after = one_line(
        &before,
        number("forward_to", text("sip:1@pbx")),
        &format!("number = [{one}, # the first\n"),
        &format!(
            "number = [{}, # the first\n",
            one.replace("enabled = false", "enabled = false, forward_to = \"sip:1@pbx\"")
        ),
    );
    assert_eq!(apply(&after, &[number("forward_to", None)]).unwrap(), before);
    let second = |key, value| Edit::Number { id: "b".into(), set: vec![(key, value)] };
    let after = apply(&before, &[second("forward_to", text("sip:1@pbx"))]).unwrap();
    assert!(after.contains("enabled=false, forward_to=\"sip:1@pbx\",}]"), "{after}");
    assert_eq!(apply(&after, &[second("forward_to", None)]).unwrap(), before);
    // The first of several, in the middle, and the comma goes along.
    let middle = apply(&after, &[second("enabled", None)]).unwrap();
    assert!(middle.contains("phone_number='+15550100101', forward_to=\"sip:1@pbx\",}]"), "{middle}");
    let first = before.replace("{ id = \"support\"", "{ max_call_seconds = 60, id = \"support\"");
    assert_eq!(apply(&first, &[number("max_call_seconds", None)]).unwrap(), before);
    assert_eq!(good(&after).numbers.len(), 2);
}

#[test]
fn an_edit_that_would_not_load_changes_nothing_and_tells_why() {
    let fault = apply(GOOD, &[number("forward_to", text("sip:1@nowhere"))]).unwrap_err();
    let EditFault::After(faults) = &fault else { panic!("{fault:?}") };
    assert_eq!((faults[0].key.as_str(), faults[0].line), ("number.forward_to", 20));
    assert!(fault.to_string().starts_with("the config file would not load: line 20: number.forward_to: "));
    let fault = apply(GOOD, &[number("colour", text("red"))]).unwrap_err();
    assert!(matches!(&fault, EditFault::After(faults) if faults[0].what == "unknown key"), "{fault}");
    let fault = apply(GOOD, &[number("id", None)]).unwrap_err();
    assert!(matches!(fault, EditFault::After(_)), "{fault}");
    let wrong = Edit::Number { id: "nobody".into(), set: vec![("enabled", Some(EditValue::Flag(true)))] };
    assert_eq!(apply(GOOD, &[wrong]).unwrap_err(), EditFault::NoNumber("nobody".into()));
    let fault = apply(GOOD, &[Edit::RemoveWebhook { id: "x".into() }]).unwrap_err();
    assert_eq!(fault, EditFault::NoWebhook("x".into()));
    let broken = with("[media]", "[media]\njitter_ms = 5");
    let fault = apply(&broken, &[number("enabled", Some(EditValue::Flag(false)))]).unwrap_err();
    assert!(matches!(&fault, EditFault::Before(faults) if faults[0].line == 7), "{fault}");
    let huge = EditValue::Text("x".repeat(2 << 20));
    assert!(matches!(apply(GOOD, &[number("forward_to", Some(huge))]), Err(EditFault::After(_))));
}

fn hook(id: &str) -> WebhookEdit {
    WebhookEdit { id: id.into(), ..WebhookEdit::default() }
}

fn full(id: &str) -> Edit {
    Edit::PutWebhook(WebhookEdit {
        id: id.into(),
        name: Some("Our CRM".into()),
        url: Some("https://a.example/x?y=\"".replace('"', "z")),
        secret: Some(Secret::new("hook-s3cret")),
        events: Some(vec![EventName::CallEnded, EventName::CallFailed]),
        active: Some(false),
        headers: Some([("X-A".to_owned(), "1".to_owned()), ("X.B".to_owned(), "2".to_owned())].into()),
    })
}

#[test]
fn a_new_webhook_is_put_at_the_end_or_behind_the_last_one() {
    let added = "[[webhook]]\nid = \"crm\"\nname = \"Our CRM\"\nurl = \"https://a.example/x?y=z\"\n\
                 secret = \"hook-s3cret\"\nevents = [\"call.ended\", \"call.failed\"]\nactive = false\n\
                 headers = { X-A = \"1\", \"X.B\" = \"2\" }\n";
    let after = apply(GOOD, &[full("crm")]).unwrap();
    assert_eq!(after, format!("{GOOD}\n{added}"));
    let config = good(&after);
    let made = &config.webhooks[0];
    assert_eq!((made.id.as_str(), made.active, made.headers["X.B"].as_str()), ("crm", false, "2"));
    assert_eq!(apply(&after, &[Edit::RemoveWebhook { id: "crm".into() }]).unwrap(), GOOD);

    let first = "[[webhook]]\nurl = \"https://b.example/\"\n[webhook.headers] # its own\nX = \"1\"\n";
    let before = plus(&format!("{first}# about the agent\n[agent]\ndialect = \"twilio\"\n"));
    let after = apply(&before, &[full("crm")]).unwrap();
    assert_eq!(after, before.replace("X = \"1\"\n", &format!("X = \"1\"\n\n{added}")));
    assert_eq!(apply(&after, &[Edit::RemoveWebhook { id: "crm".into() }]).unwrap(), before);
    let id = good(&before).webhooks[0].id.clone();
    let without = apply(&before, &[Edit::RemoveWebhook { id }]).unwrap();
    assert_eq!(without, before.replace(first, ""));
    assert!(!format!("{:?}", full("crm")).contains("s3cret"));
}

#[test]
fn a_webhook_whose_headers_stand_elsewhere_is_taken_out_whole_and_alone() {
    let text = plus(
        "# ours\n[[webhook]]\nid = \"crm\"\nurl = \"https://b.example/\"\n\n[agent]\ndialect = \"pcm16\"\n\n[webhook.headers]\nX = \"1\"\n# end\n",
    );
    assert_eq!(good(&text).webhooks[0].headers.len(), 1);
    let after = apply(&text, &[Edit::RemoveWebhook { id: "crm".into() }]).unwrap();
    assert_eq!(after, plus("# ours\n\n[agent]\ndialect = \"pcm16\"\n# end\n"));
}

#[test]
fn a_webhook_without_an_id_keeps_the_one_it_had_when_its_address_changes() {
    let before = plus("[[webhook]]\nurl = \"https://a.example/\" # one\n");
    let id = good(&before).webhooks[0].id.clone();
    let edit = WebhookEdit { url: Some("https://c.example/".into()), ..hook(&id) };
    let after = apply(&before, &[Edit::PutWebhook(edit)]).unwrap();
    assert_eq!(after, plus(&format!("[[webhook]]\nurl = \"https://c.example/\" # one\nid = \"{id}\"\n")));
    assert_eq!(good(&after).webhooks[0].id, id);
    let same = WebhookEdit { active: Some(true), url: Some("https://a.example/".into()), ..hook(&id) };
    let after = apply(&before, &[Edit::PutWebhook(same)]).unwrap();
    assert_eq!(after, plus("[[webhook]]\nurl = \"https://a.example/\" # one\nactive = true\n"));
}

#[test]
fn headers_change_one_by_one_however_they_are_written() {
    let headers = |pairs: &[(&str, &str)]| {
        let map = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Edit::PutWebhook(WebhookEdit { headers: Some(map), ..hook("crm") })
    };
    let base = "[[webhook]]\nid = \"crm\"\nurl = \"https://a.example/\"\n";
    let cases = [
        ("", "headers = { A = \"1\", B = \"2\" }\n", "headers = { A = \"1\", B = \"2\" }\n"),
        ("headers = { A = '0', C = \"3\" } # c\n", "headers = { A = '1', B = \"2\" } # c\n", " # c\n"),
        ("headers.A = \"0\" # a\nheaders.C = \"3\"\n", "headers.A = \"1\" # a\nheaders.B = \"2\"\n", ""),
        (
            "\n[webhook.headers] # h\nC = \"3\" # c\nA = \"0\" # a\n",
            "\n[webhook.headers] # h\nA = \"1\" # a\nB = \"2\"\n",
            "",
        ),
        ("\n[webhook.headers]\n", "\n[webhook.headers]\nA = \"1\"\nB = \"2\"\n", ""),
    ];
    for (old, new, _) in cases {
        let before = plus(&format!("{base}{old}"));
        let after = apply(&before, &[headers(&[("A", "1"), ("B", "2")])]).unwrap();
        assert_eq!(after, plus(&format!("{base}{new}")));
        assert_eq!(good(&after).webhooks[0].headers.len(), 2);
        let none = apply(&after, &[headers(&[])]).unwrap();
        assert_eq!(none, plus(base), "{old}");
        let edit = Edit::PutWebhook(WebhookEdit { secret: Some(Secret::default()), ..hook("crm") });
        let secret = after.replacen("id = \"crm\"\n", "id = \"crm\"\nsecret_env = \"X\"\n", 1);
        assert_eq!(apply(&secret, &[edit]).unwrap(), after);
    }
}

#[test]
fn webhooks_between_brackets_are_added_and_taken_out_there() {
    let remove = |id: &str| Edit::RemoveWebhook { id: id.into() };
    let put = |id: &str| Edit::PutWebhook(WebhookEdit { url: Some("https://c.example/".into()), ..hook(id) });
    let one = "{ id = \"a\", url = \"https://a.example/\" }";
    let new = "{ id = \"c\", url = \"https://c.example/\" }";
    for (before, with_new) in [
        (format!("webhook = [{one}]\n{GOOD}"), format!("webhook = [{one}, {new}]\n{GOOD}")),
        (
            format!("webhook = [\n  {one}, # x\n]\n{GOOD}"),
            format!("webhook = [\n  {one},\n  {new}, # x\n]\n{GOOD}"),
        ),
        (format!("webhook = []\n{GOOD}"), format!("webhook = [{new}]\n{GOOD}")),
    ] {
        let after = apply(&before, &[put("c")]).unwrap();
        assert_eq!(after, with_new);
        assert_eq!(apply(&after, &[remove("c")]).unwrap(), before);
        if before.contains(one) {
            let without = apply(&after, &[remove("a")]).unwrap();
            assert_eq!(good(&without).webhooks[0].id, "c");
            let headed = Edit::PutWebhook(WebhookEdit {
                headers: Some([("A".to_owned(), "1".to_owned())].into()),
                ..hook("c")
            });
            let with_header = apply(&after, &[headed]).unwrap();
            assert!(
                with_header.contains("url = \"https://c.example/\", headers = { A = \"1\" } }"),
                "{with_header}"
            );
        }
    }
}

#[test]
fn the_example_can_be_edited_and_loses_nothing() {
    let edits = [
        number("forward_to", text("tel:+4930123456")),
        number("enabled", Some(EditValue::Flag(false))),
        number("sip_auth_password", Some(EditValue::Secret(Secret::new("x")))),
        number("call_icon_countries", Some(EditValue::Texts(vec!["DE".into(), "AT".into()]))),
        full("crm"),
    ];
    let after = apply(EXAMPLE, &edits).unwrap();
    let kept = EXAMPLE.lines().filter(|line| !line.starts_with("forward_to"));
    let mut lines = after.lines();
    for line in kept {
        assert!(lines.any(|other| other == line), "{line} is gone or has moved");
    }
    let config = good(&after);
    assert_eq!(config.numbers[0].call_icon_countries.as_deref().map(<[String]>::len), Some(2));
    assert_eq!(config.webhooks.len(), 1);
}

mod inverse {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Style {
        crlf: bool,
        last_break: bool,
        equals: &'static str,
        indent: &'static str,
        comment: &'static str,
        braces: bool,
        keys: Vec<(&'static str, EditValue)>,
        hooks: usize,
    }

    fn value(key: &'static str) -> BoxedStrategy<EditValue> {
        match key {
            "max_call_seconds" => (10_u64..86_400).prop_map(EditValue::Whole).boxed(),
            "enabled" => any::<bool>().prop_map(EditValue::Flag).boxed(),
            "call_icon_countries" => proptest::sample::subsequence(vec!["DE", "AT", "BR", "IN"], 1..4)
                .prop_map(|list| EditValue::Texts(list.into_iter().map(str::to_owned).collect()))
                .boxed(),
            "sip_auth_password" => "[ -~]{1,20}".prop_map(|s| EditValue::Secret(Secret::new(s))).boxed(),
            "caller_id" => prop_oneof![Just("caller"), Just("business")]
                .prop_map(|word| EditValue::Text(word.to_owned()))
                .boxed(),
            _ => "[0-9]{1,5}".prop_map(|user| EditValue::Text(format!("sip:{user}@pbx"))).boxed(),
        }
    }

    const KEYS: [&str; 6] = [
        "forward_to",
        "max_call_seconds",
        "enabled",
        "call_icon_countries",
        "sip_auth_password",
        "caller_id",
    ];

    fn styles() -> impl Strategy<Value = Style> {
        let keys =
            (KEYS.map(value), proptest::sample::subsequence((1..KEYS.len()).collect::<Vec<_>>(), 0..5));
        let keys = keys.prop_map(|(values, which)| {
            let all: Vec<_> = KEYS.into_iter().zip(values).collect();
            std::iter::once(0).chain(which).filter_map(|at| all.get(at).cloned()).collect::<Vec<_>>()
        });
        let blanks = (prop_oneof![Just(" = "), Just("=")], prop_oneof![Just(""), Just("  "), Just("\t")]);
        let comment = prop_oneof![Just(""), Just(" # why, [not] = {this}?"), Just("# \"x")];
        (any::<(bool, bool, bool)>(), blanks, comment, keys, 0..3_usize).prop_map(
            |((crlf, last_break, braces), (equals, indent), comment, keys, hooks)| Style {
                crlf,
                last_break,
                equals,
                indent,
                comment,
                braces,
                keys,
                hooks,
            },
        )
    }

    fn shown(value: &EditValue) -> String {
        match value {
            EditValue::Text(text) => format!("{text:?}"),
            EditValue::Secret(secret) => {
                format!("\"{}\"", secret.expose().replace('\\', "\\\\").replace('"', "\\\""))
            }
            EditValue::Flag(flag) => flag.to_string(),
            EditValue::Whole(number) => number.to_string(),
            EditValue::Texts(texts) => format!("{texts:?}"),
        }
    }

    fn file(style: &Style) -> String {
        let Style { equals, indent, comment, .. } = style;
        let (head, _) = GOOD.split_once("[[number]]").unwrap();
        let own = [("id", "\"support\""), ("phone_number_id", "\"1\""), ("phone_number", "\"+15550100100\"")];
        let mut keys: Vec<(&str, String)> = own.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        keys.extend(style.keys.iter().map(|(key, value)| (*key, shown(value))));
        let mut text = head.to_owned();
        if style.braces {
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}{equals}{v}")).collect();
            text = format!("number = [{{{}}}]{comment}\n{head}", keys.join(", "));
        } else {
            text.push_str(&format!("[[number]]{comment}\n"));
            for (key, value) in &keys {
                text.push_str(&format!("{indent}{key}{equals}{value}{comment}\n"));
            }
            text.push_str("\n# after\n");
        }
        for n in 0..style.hooks {
            let at = format!("{indent}url{equals}\"https://a.example/{n}\"");
            text.push_str(&format!("# hook {n}\n[[webhook]]\n{indent}id{equals}\"h{n}\"\n{at}{comment}\n"));
        }
        if !style.last_break {
            text.truncate(text.trim_end().len());
        }
        if style.crlf { text.replace('\n', "\r\n") } else { text }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn an_edit_and_its_inverse_give_the_same_bytes(
            style in styles(),
            sets in proptest::collection::vec((0..KEYS.len()).prop_flat_map(|k| (Just(KEYS[k]), value(KEYS[k]))), 1..5),
            add in any::<bool>(),
        ) {
            let before = file(&style);
            let was = |key: &str| style.keys.iter().find(|(k, _)| *k == key).map(|(_, value)| value.clone());
            let mut edits: Vec<Edit> =
                sets.iter().map(|(key, value)| number(key, Some(value.clone()))).collect();
            let mut back: Vec<Edit> = sets.iter().rev().map(|(key, _)| number(key, was(key))).collect();
            if add {
                edits.push(full("crm"));
                back.insert(0, Edit::RemoveWebhook { id: "crm".into() });
            }
            let after = apply(&before, &edits).unwrap();
            prop_assert!(good(&after).number("support").is_some());
            // Whatever line holds none of the keys that were set is there as it was, in its order.
            let mut lines = after.split('\n');
            for line in before.split('\n').filter(|line| !style.braces || !line.starts_with("number")) {
                if sets.iter().all(|(key, _)| !line.trim_start().starts_with(key)) {
                    let bare = line.trim_end_matches('\r');
                    prop_assert!(lines.any(|l| l.trim_end_matches('\r') == bare), "{line:?} in {after}");
                }
            }
            prop_assert_eq!(apply(&after, &back).unwrap(), before);
        }

        #[test]
        fn no_text_makes_an_edit_panic(text in "(\\[\\[number\\]\\]|\\[\\[webhook\\]\\]|id|=|\"a\"|\\{|\\}|\\[|\\]|,|#|\\.|\n|\r\n|url| |é){0,40}") {
            let id = "a".to_owned();
            let _ = apply(&format!("{GOOD}{text}"), &[full("a"), Edit::RemoveWebhook { id }]);
            let _ = apply(&text, &[number("enabled", None)]);
        }
    }
}
