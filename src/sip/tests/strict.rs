//! What we send is never of an invalid form, whatever we are told to send and whatever we are sent: a reader by the letter
//! of RFC 3261 §25.1 looks at every message.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Why a message is not by the letter.
type Fault = String;

fn token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c))
}

fn host(text: &str) -> bool {
    if let Some(six) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return six.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

fn host_port(text: &str) -> bool {
    let (name, port) = match text.rfind(':').filter(|at| !text[*at..].contains(']')) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    host(name)
        && port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Escapes are whole, and everything else is one of these.
fn escaped(text: &str, allowed: &str) -> bool {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let step = match first {
            '%' => {
                let digits = rest.get(1..3).is_some_and(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
                if digits { 3 } else { return false }
            }
            c if c.is_ascii_alphanumeric() || "-_.!~*'()".contains(c) || allowed.contains(c) => 1,
            _ => return false,
        };
        rest = &rest[step..];
    }
    true
}

fn uri(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("sips:").or_else(|| text.strip_prefix("sip:")) else {
        return text.strip_prefix("tel:").is_some_and(|rest| escaped(rest, "+;=:&"));
    };
    let (user, rest) = match rest.split_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let mut parts = rest.split(';');
    user.is_none_or(|user| !user.is_empty() && escaped(user, "&=+$,;?/:"))
        && host_port(parts.next().unwrap())
        && parts.all(|param| !param.is_empty() && escaped(param, "[]/:&+$="))
}

/// The end of the quoted string that begins here.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped && (c.is_control() || !c.is_ascii()) => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            c if c.is_control() => return None,
            _ => {}
        }
    }
    None
}

fn params(text: &str) -> bool {
    let mut rest = text;
    while let Some(behind) = rest.strip_prefix(';') {
        let end = behind.find([';', '=']).unwrap_or(behind.len());
        if !token(&behind[..end]) {
            return false;
        }
        rest = &behind[end..];
        if let Some(value) = rest.strip_prefix('=') {
            let end = if value.starts_with('"') {
                let Some(end) = quoted(value) else { return false };
                end
            } else {
                let end = value.find(';').unwrap_or(value.len());
                if !token(&value[..end])
                    && !host(&value[..end])
                    && value[..end].parse::<std::net::Ipv6Addr>().is_err()
                {
                    return false;
                }
                end
            };
            rest = &value[end..];
        }
    }
    rest.is_empty()
}

fn name_addr(text: &str) -> bool {
    let rest = if text.starts_with('"') {
        let Some(end) = quoted(text) else { return false };
        text[end..].trim_start()
    } else {
        let end = text.find('<').unwrap_or(0);
        if !text[..end].split(' ').filter(|word| !word.is_empty()).all(token) {
            return false;
        }
        &text[end..]
    };
    match rest.strip_prefix('<') {
        Some(rest) => rest.split_once('>').is_some_and(|(addr, rest)| uri(addr) && params(rest)),
        // Without brackets, parameters are the header's.
        None => {
            let end = rest.find(';').unwrap_or(rest.len());
            uri(&rest[..end]) && params(&rest[end..])
        }
    }
}

fn via(text: &str) -> bool {
    let Some((sent, rest)) = text.split_once(' ') else { return false };
    let end = rest.find(';').unwrap_or(rest.len());
    ["SIP/2.0/UDP", "SIP/2.0/TCP", "SIP/2.0/TLS"].contains(&sent)
        && host_port(&rest[..end])
        && params(&rest[end..])
        && rest.contains(";branch=z9hG4bK")
}

/// Reads a message by the letter.
fn read(message: &str) -> Result<(), Fault> {
    let (head, body) = message.split_once("\r\n\r\n").ok_or("no empty line")?;
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default();
    let words: Vec<&str> = start.splitn(3, ' ').collect();
    let [first, second, third] = words.as_slice() else { return Err(format!("start line {start:?}")) };
    let request = *first != "SIP/2.0";
    let good = if request {
        token(first) && uri(second) && *third == "SIP/2.0"
    } else {
        second.len() == 3
            && second.parse::<u16>().is_ok_and(|code| (100..700).contains(&code))
            && !third.is_empty()
    };
    if !good {
        return Err(format!("start line {start:?}"));
    }
    let mut headers: Vec<(&str, &str)> = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("header line {line:?}"))?;
        if !token(name) || value != value.trim() || value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(format!("header line {line:?}"));
        }
        headers.push((name, value));
    }
    let all = |wanted: &'static str| {
        headers.iter().filter(move |(name, _)| *name == wanted).map(|(_, value)| *value)
    };
    for single in ["From", "To", "Call-ID", "CSeq", "Content-Length"] {
        if all(single).count() != 1 {
            return Err(format!("not one {single}"));
        }
    }
    if request && (all("Max-Forwards").next() != Some("70") || all("Via").count() != 1) {
        return Err("a request with one Via and 70 hops to go".into());
    }
    let wrong = |name: &str, value: &str| Err(format!("{name}: {value:?}"));
    for (name, value) in &headers {
        let fine = match *name {
            "Via" => via(value),
            "From" | "To" | "Contact" | "Route" | "Record-Route" | "P-Asserted-Identity" => name_addr(value),
            "Call-ID" => !value.is_empty() && !value.contains(' '),
            "CSeq" => value.split_once(' ').is_some_and(|(number, method)| {
                number.parse::<u32>().is_ok_and(|number| number < 1 << 31)
                    && token(method)
                    && (!request || method == *first)
            }),
            "Content-Length" => value.parse() == Ok(body.len()),
            "Max-Forwards" | "Expires" | "Retry-After" | "Min-SE" => value.parse::<u32>().is_ok(),
            "Warning" => {
                let rest = value.strip_prefix("399 watrunk ").unwrap_or_default();
                rest.starts_with('"') && quoted(rest) == Some(rest.len())
            }
            "Reason" => {
                value.split_once(';').is_some_and(|(name, rest)| token(name) && params(&format!(";{rest}")))
            }
            "Allow" | "Supported" | "Require" => value.split(", ").all(|one| one.is_empty() || token(one)),
            _ => true,
        };
        if !fine {
            return wrong(name, value);
        }
    }
    if !request || *first == "ACK" {
        return Ok(());
    }
    if !all("From").next().is_some_and(|from| from.contains(";tag=")) {
        return Err("From without a tag".into());
    }
    Ok(())
}

fn check(lab: &Lab) {
    for sent in &lab.sent {
        if let Err(fault) = read(&sent.text) {
            panic!("{fault} in {}", sent.text);
        }
    }
}

#[test]
fn the_strict_reader_is_strict() {
    let good = "OPTIONS sip:a%20b@h:5060;lr SIP/2.0\r\nVia: SIP/2.0/UDP [::1]:5060;rport;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n\
        From: \"A \\\" B\" <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(read(good), Ok(()));
    for (from, to) in [
        ("OPTIONS sip", "OPTIONS  sip"),
        ("a%20b", "a%2b%b"),
        ("a%20b", "a b"),
        ("SIP/2.0\r\nVia", "SIP/2.0 \r\nVia"),
        ("h:5060;lr", "h:99999;lr"),
        ("branch=z9hG4bKa", "branch=a"),
        ("rport;", ";"),
        ("A \\\" B", "A \" B"),
        ("A \\\" B", "A \u{7} B"),
        (";tag=1", ""),
        (";tag=1", ";tag="),
        ("<sip:b@h>", "sip:@h"),
        ("<sip:b@h>", "B <sip:b@h"),
        ("Call-ID: c", "Call-ID: c d"),
        ("Call-ID: c", "Call-ID:c"),
        ("Call-ID: c", "Call-ID: c\r\nCall-ID: d"),
        ("1 OPTIONS", "1 INVITE"),
        ("1 OPTIONS", "4294967296 OPTIONS"),
        ("Length: 2", "Length: 3"),
        ("Max-Forwards: 70", "X: a\rb\r\nMax-Forwards: 70"),
        ("Max-Forwards: 70\r\n", ""),
    ] {
        assert!(good.contains(from), "{from}");
        assert!(read(&good.replacen(from, to, 1)).is_err(), "{to}");
    }
}

#[test]
fn what_the_torture_messages_get_from_us_is_of_a_valid_form() {
    for bytes in torture::all() {
        let mut lab = Lab::up();
        lab.receive_from(bytes, PBX);
        for event in lab.take_events() {
            let Event::Invited { leg, .. } = event else { continue };
            lab.ring(leg);
            lab.pick_up(leg, offer());
        }
        for sent in &lab.sent {
            // Via, From, To and Call-ID of an answer are the sender's own; the rest is ours.
            let own = ["Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: ", "Record-Route: "];
            let start = sent.text.split("\r\n").next().unwrap();
            assert!(start.starts_with("SIP/2.0 ") && start.len() > 12, "{start}");
            for line in sent.text.split("\r\n\r\n").next().unwrap().split("\r\n").skip(1) {
                let theirs = own.iter().any(|own| line.starts_with(own));
                let name = line.split(": ").next().unwrap();
                assert!(theirs || token(name), "{line:?}");
                assert!(!line.contains(['\r', '\n']), "{line:?}");
            }
        }
    }
}

#[test]
fn torture_in_an_answer_does_not_harm_the_call_that_it_answers() {
    // Each valid or invalid answer of the RFC, made an answer to our INVITE by its Via, its Call-ID and its CSeq.
    for bytes in torture::all() {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if !text.starts_with("SIP/2.0 ") {
            continue;
        }
        let mut lab = Lab::up();
        lab.alive = true;
        let invite = lab.dialled();
        let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
        for line in &mut lines {
            for name in ["Via", "Call-ID", "CSeq", "From"] {
                if line.to_ascii_lowercase().starts_with(&format!("{}:", name.to_ascii_lowercase())) {
                    *line = format!("{name}: {}", invite.header(name));
                }
            }
        }
        lab.receive(&lines.join("\r\n"));
        check(&lab);
        lab.leave(LegId(1), None, "");
        lab.pass(Duration::from_secs(200));
        let ended = lab.events.iter().filter(|event| matches!(event, Event::Ended { .. })).count();
        assert_eq!(ended, 1, "{text}");
        assert!(lab.ua.calls.is_empty(), "{text}");
        check(&lab);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn whatever_we_are_told_to_dial_the_messages_are_of_a_valid_form(
        user in "\\PC{0,20}|[ -~\u{0}-\u{1f}]{0,20}",
        from_user in "\\PC{0,20}|[ -~\r\n]{0,20}",
        from_name in proptest::option::of("\\PC{0,20}|[ -~\u{0}-\u{1f}]{0,20}"),
        headers in vec(("[ -~\r\n]{0,10}|X-[a-z]{1,5}", "\\PC{0,20}|[ -~\r\n]{0,20}"), 0..4),
        asserted in any::<bool>(),
        privacy in any::<bool>(),
        register in any::<bool>(),
        code in proptest::option::of(0u16..1_000),
        answers in vec(prop::sample::select(vec!["100", "180", "183", "401", "407", "302", "422", "486", "503", "200"]), 0..5),
    ) {
        let mut lab = if register { Lab::registering() } else { Lab::up() };
        if register {
            let first = lab.take("REGISTER");
            lab.answer(&first, "401 x", "WWW-Authenticate: Digest realm=\"a\\\"b\", nonce=\"n\", qop=\"auth\"\r\n", "");
            check(&lab);
            let second = lab.find("REGISTER");
            lab.answer(&second, "200 OK", "Expires: 300\r\n", "");
            lab.events.clear();
        }
        lab.alive = true;
        let dial = Dial { user, from_user, from_name, headers, asserted, privacy, ..dial() };
        lab.ua.dial(LegId(1), dial, lab.now).unwrap();
        lab.drain();
        check(&lab);
        for answer in answers {
            let Some(invite) = lab.sent.iter().rev().find(|sent| sent.what() == "INVITE").cloned() else { break };
            let more = "Contact: <sip:200@192.0.2.1:5062>\r\nRecord-Route: <sip:192.0.2.1;lr>\r\n\
                WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\nMin-SE: 2000\r\nRequire: 100rel\r\nRSeq: 1\r\n";
            let body = if answer == "200" || answer == "183" { THEIRS } else { "" };
            let more = if answer == "200" { more.replace("Require: 100rel\r\n", "") } else { more.to_owned() };
            lab.answer(&invite, &format!("{answer} x"), &more, body);
            lab.pass(millis(700));
            check(&lab);
        }
        lab.ua.hang_up(LegId(1), Cause { code, text: "a \"quoted\" reason" }, lab.now);
        lab.pass(Duration::from_secs(100));
        lab.ua.shutdown(lab.now);
        lab.drain();
        check(&lab);
    }

    #[test]
    fn whatever_we_answer_the_pbx_is_of_a_valid_form(
        warning in proptest::option::of("\\PC{0,30}|[ -~\u{0}-\u{1f}]{0,30}"),
        code in 0u16..1_000,
        retry_after in proptest::option::of(any::<u32>()),
        headers in "(Record-Route: <sip:192[.]0[.]2[.]1;lr>\r\n)?(Supported: timer, 100rel\r\nSession-Expires: 1800\r\n)?(Require: [a-z]{1,5}\r\n)?",
        answered in any::<bool>(),
    ) {
        let mut lab = Lab::up();
        lab.alive = true;
        lab.invite(1, CALLEE, &format!("Contact: <sip:200@192.0.2.1:5062>\r\n{headers}"), THEIRS);
        check(&lab);
        if let Some(Event::Invited { leg, .. }) = lab.take_events().pop() {
            lab.ring(leg);
            if answered {
                lab.pick_up(leg, offer());
                let ok = lab.find("200");
                lab.ask_in(&ok, "ACK", 7, "", "");
                for (cseq, method) in (8..).zip(["OPTIONS", "INFO", "UPDATE", "MESSAGE", "SUBSCRIBE", "INVITE"]) {
                    lab.ask_in(&ok, method, cseq, "", if method == "INVITE" { THEIRS } else { "" });
                }
                check(&lab);
            }
            lab.ua.refuse(leg, Refusal { code, warning, retry_after }, lab.now);
            lab.pass(Duration::from_secs(100));
        }
        check(&lab);
    }
}
