//! The verbs that ask a running gateway, against a small HTTP server that plays one.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::ledger::Ledger;

/// What a verb has asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub line: String,
    pub key: String,
    pub body: Value,
}

/// What it is told, in the order of asking; the last is told again and again. An object with `raw` (Base64) is a file,
/// with its `tag`.
pub(super) type Script = Vec<(u16, Value)>;

/// Plays the gateway as long as the test lasts.
pub(super) struct Played {
    pub base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Played {
    pub fn new(script: Script) -> Played {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut script: VecDeque<(u16, Value)> = script.into();
            for socket in listener.incoming() {
                let Some((status, body)) = script.front().cloned() else { return };
                if script.len() > 1 {
                    script.pop_front();
                }
                answer(socket.unwrap(), status, &body, &log);
            }
        });
        Played { base, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    /// Runs a verb against it.
    pub fn watrunk(&self, line: &[&str]) -> (Result<(), Failed>, String, String) {
        let line = [line, &["--api", &self.base, "--key", "sk_test"]].concat();
        let cli = Cli::try_parse_from(std::iter::once(&"watrunk").chain(&line)).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = match cli.verb {
            // Nobody waits between two looks.
            Verb::Call(args) => call::place(&args, Duration::ZERO, &mut out, &mut err),
            verb => carry_out(verb, &mut out, &mut err),
        };
        (outcome, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }
}

fn answer(socket: TcpStream, status: u16, body: &Value, log: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (mut key, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name {
            "authorization" => key = value.to_owned(),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).unwrap();
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let sent = serde_json::from_slice(&sent).unwrap_or(Value::Null);
    log.lock().unwrap().push(Asked { line, key, body: sent });
    let (body, tag) = match (body["raw"].as_str(), body["tag"].as_str()) {
        (Some(raw), Some(tag)) => (STANDARD.decode(raw).unwrap(), tag),
        _ => (body.as_str().map_or_else(|| body.to_string(), str::to_owned).into_bytes(), ""),
    };
    let tag = if tag.is_empty() { String::new() } else { format!("ETag: \"{tag}\"\r\n") };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\n{tag}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = reader.into_inner().write_all(&[head.into_bytes(), body].concat());
}

pub(super) fn numbers() -> Value {
    let number = |id: &str, phone: &str, enabled: bool| {
        json!({ "id": id, "accountId": "acme", "phoneNumberId": format!("1{id}"), "phoneNumber": phone,
            "callingEnabled": enabled, "forwardTo": "sip:200@pbx", "trunk": "pbx" })
    };
    json!({ "numbers": [number("old", "+15550100101", false), number("support", "+15550100100", true)] })
}

fn placed() -> Value {
    json!({ "success": true, "callId": "call_1", "status": "dialing", "direction": "outbound" })
}

fn looked(status: &str, more: Value) -> Value {
    let mut call = json!({ "_id": "call_1", "status": status, "answeredAt": null });
    for (key, value) in more.as_object().unwrap() {
        call[key] = value.clone();
    }
    json!({ "call": call })
}

pub(super) fn no(code: &str, error: &str) -> Value {
    json!({ "error": error, "type": "permission_error", "code": code })
}

#[test]
fn call_dials_rings_and_is_done_when_the_user_answers() {
    let gateway = Played::new(vec![
        (200, numbers()),
        (200, placed()),
        // Not written down yet.
        (404, no("not_found", "no call has this id")),
        (200, looked("ringing", json!({}))),
        (200, looked("ringing", json!({}))),
        (200, looked("answered", json!({ "answeredAt": "2026-11-22T10:00:00.000Z" }))),
    ]);
    let (outcome, out, err) =
        gateway.watrunk(&["call", "+4915112345678", "--forward-to", "sip:7@pbx", "--record"]);
    assert_eq!((outcome, err.as_str()), (Ok(()), ""));
    assert_eq!(
        out,
        "call_1: dialing +4915112345678 from support\nringing\nanswered; `watrunk hangup call_1` ends it\n"
    );
    let asked = gateway.asked();
    assert_eq!(asked[1].line, "POST /v1/whatsapp/calls");
    assert_eq!(
        asked[1].body,
        json!({ "accountId": "acme", "phoneNumberId": "1support", "to": "+4915112345678",
            "forwardTo": "sip:7@pbx", "recordOverride": true })
    );
    assert_eq!(asked[2].line, "GET /v1/whatsapp/calls/call_1?accountId=acme");
    assert!(asked.iter().all(|asked| asked.key == "Bearer sk_test"));
}

#[test]
fn call_fails_with_the_reason_when_nobody_answers() {
    for (end, told) in [
        (json!({ "endReason": "no_answer", "detail": "nobody took it" }), "no answer: nobody took it"),
        (json!({ "endReason": "rejected" }), "declined"),
        (
            json!({ "endReason": "error", "detail": "", "sipHangupCause": "486", "metaErrorCode": 138000 }),
            "the call failed: SIP 486, Meta 138000",
        ),
    ] {
        let gateway = Played::new(vec![(200, numbers()), (200, placed()), (200, looked("failed", end))]);
        let (outcome, out, err) = gateway.watrunk(&["call", "+4915112345678"]);
        assert_eq!((outcome, err), (Err(Failed), format!("watrunk: {told}\n")));
        assert_eq!(out, "call_1: dialing +4915112345678 from support\n");
    }
    let over = looked("ended", json!({ "answeredAt": "2026-11-22T10:00:00.000Z", "durationSeconds": 62 }));
    let gateway = Played::new(vec![(200, numbers()), (200, placed()), (200, over)]);
    let (outcome, out, _) = gateway.watrunk(&["call", "+4915112345678"]);
    assert_eq!(outcome, Ok(()));
    assert!(out.ends_with("answered, and over after 1:02\n"), "{out}");
}

#[test]
fn call_says_what_the_api_says_and_stops_when_the_gateway_is_gone() {
    let refused = no("call_permission_required", "the user has not given permission");
    let gateway = Played::new(vec![(200, numbers()), (409, refused.clone())]);
    let (outcome, out, err) = gateway.watrunk(&["call", "+4915112345678"]);
    assert_eq!((outcome, out.as_str()), (Err(Failed), ""));
    assert_eq!(err, "watrunk: the user has not given permission (call_permission_required)\n");
    let gateway = Played::new(vec![(200, numbers()), (409, refused.clone())]);
    let (outcome, out, _) = gateway.watrunk(&["call", "+4915112345678", "--json"]);
    assert_eq!((outcome, out), (Err(Failed), format!("{refused}\n")), "programs get the API's own answer");

    let gateway = Played::new(vec![(200, numbers()), (200, placed()), (500, json!({ "error": "ouch" }))]);
    let (outcome, _, err) = gateway.watrunk(&["call", "+4915112345678"]);
    assert_eq!((outcome, err.as_str()), (Err(Failed), "watrunk: ouch\n"));
    assert_eq!(gateway.asked().len(), 8, "a look that goes wrong is tried again, but not for ever");
}

#[test]
fn call_without_waiting_and_as_json() {
    let gateway = Played::new(vec![(200, numbers()), (200, placed())]);
    let (outcome, out, _) = gateway.watrunk(&["call", "+4915112345678", "--no-wait", "--json"]);
    assert_eq!((outcome, out), (Ok(()), format!("{}\n", placed())));
    assert_eq!(gateway.asked().len(), 2);
    let answered = looked("answered", json!({ "answeredAt": "2026-11-22T10:00:00.000Z" }));
    let gateway = Played::new(vec![(200, numbers()), (200, placed()), (200, answered.clone())]);
    let (outcome, out, _) =
        gateway.watrunk(&["call", "+4915112345678", "--json", "--number", "+15550100101"]);
    assert_eq!((outcome, out), (Ok(()), format!("{answered}\n")));
    assert_eq!(gateway.asked()[1].body["phoneNumberId"], "1old");
}

#[test]
fn which_number_calls_must_be_clear() {
    let mut several = numbers();
    several["numbers"][0]["callingEnabled"] = json!(true);
    for (known, line, told) in [
        (
            several.clone(),
            vec!["call", "+49151"],
            "there are several numbers, say which with --number: old, support",
        ),
        (json!({ "numbers": [] }), vec!["call", "+49151"], "no number is enabled"),
        (
            numbers(),
            vec!["permissions", "+49151", "--number", "x"],
            "there is no number \"x\"; there are: old, support",
        ),
    ] {
        let gateway = Played::new(vec![(200, known)]);
        let (outcome, _, err) = gateway.watrunk(&line);
        assert_eq!((outcome, err), (Err(Failed), format!("watrunk: {told}\n")));
        assert_eq!(gateway.lines(), ["GET /v1/phone-numbers"], "nothing else was asked");
    }
}

#[test]
fn hangup_ends_a_call_and_says_if_it_was_over() {
    let gateway = Played::new(vec![(200, json!({ "success": true, "callId": "a b", "status": "ending" }))]);
    assert_eq!(gateway.watrunk(&["hangup", "a b"]), (Ok(()), "a b: ending\n".into(), String::new()));
    assert_eq!(gateway.lines(), ["POST /v1/voice/calls/a%20b/end"]);
    let gateway = Played::new(vec![(200, json!({ "success": true, "callId": "c", "status": "failed" }))]);
    assert_eq!(gateway.watrunk(&["hangup", "c"]).1, "c: was over already (failed)\n");
    let gateway = Played::new(vec![(404, no("not_found", "no call has the id \"c\""))]);
    let (outcome, _, err) = gateway.watrunk(&["hangup", "c"]);
    assert_eq!((outcome, err.as_str()), (Err(Failed), "watrunk: no call has the id \"c\" (not_found)\n"));
}

#[test]
fn permissions_are_shown_in_words_and_asked_for() {
    let permission = json!({
        "permission": { "status": "temporary", "expiration_time": 1_764_000_000 },
        "actions": [
            { "action_name": "start_call", "can_perform_action": true,
                "limits": [{ "time_period": "PT24H", "max_allowed": 10, "current_usage": 2 }] },
            { "action_name": "send_call_permission_request", "can_perform_action": false,
                "limits": [{ "time_period": "P7D", "max_allowed": 2, "current_usage": 2,
                    "limit_expiration_time": 1_764_000_000 }] },
        ],
    });
    let gateway = Played::new(vec![(200, numbers()), (200, permission)]);
    let (outcome, out, _) = gateway.watrunk(&["permissions", "+49151"]);
    assert_eq!(outcome, Ok(()));
    assert_eq!(
        out,
        "+49151: permission to call until 2025-11-24 16:00 UTC\n\
         ACTION                        ALLOWED NOW  USED\n\
         start_call                    yes          2 of 10 in a day\n\
         send_call_permission_request  no           2 of 2 in 7 days (until 2025-11-24 16:00 UTC)\n"
    );
    let line = "GET /v1/whatsapp/call-permissions?accountId=acme&phoneNumberId=1support&to=%2B49151";
    assert_eq!(gateway.lines()[1], line);

    for (more, body) in [(vec!["--request"], None), (vec!["--request", "May we call?"], Some("May we call?"))]
    {
        let gateway = Played::new(vec![(200, numbers()), (200, json!({ "success": true }))]);
        let line = [vec!["permissions", "+49151"], more].concat();
        assert_eq!(gateway.watrunk(&line).1, "+49151 was asked for permission\n");
        let asked = &gateway.asked()[1];
        assert_eq!((asked.line.as_str(), asked.body["bodyText"].as_str()), ("POST /v1/whatsapp/calls", body));
        assert_eq!(asked.body["action"], "send_call_permission_request");
    }
}

#[test]
fn numbers_trunks_and_status_are_tables_or_the_answer_as_it_came() {
    let gateway = Played::new(vec![(200, numbers())]);
    assert_eq!(
        gateway.watrunk(&["numbers"]).1,
        "ID       NUMBER        ACCOUNT  CALLING   DESTINATION  TRUNK\n\
         old      +15550100101  acme     disabled  sip:200@pbx  pbx\n\
         support  +15550100100  acme     enabled   sip:200@pbx  pbx\n"
    );
    let trunks = json!([
        { "name": "pbx", "state": "registered", "up": true, "why": null, "roundTripMs": 3,
            "since": "2026-11-22T10:00:00.000Z", "address": "192.168.1.10:5060" },
        { "name": "b", "state": "failed", "why": "403 Forbidden", "roundTripMs": null,
            "since": "2026-11-22T10:00:01.000Z", "address": null },
    ]);
    let table = "TRUNK  STATE       CODE  SINCE (UTC)          ADDRESS            ROUND TRIP  WHY\n\
                 pbx    registered  -     2026-11-22 10:00:00  192.168.1.10:5060  3 ms        -\n\
                 b      failed      -     2026-11-22 10:00:01  -                  -           403 Forbidden\n";
    let gateway = Played::new(vec![(200, json!({ "trunks": trunks }))]);
    assert_eq!(gateway.watrunk(&["trunks"]).1, table);
    let status = json!({ "name": "box-1", "version": "1.2.3", "ready": true, "draining": false, "calls": 2,
        "maxCalls": 50, "trunks": trunks });
    let gateway = Played::new(vec![(200, status)]);
    let head = "box-1 (watrunk 1.2.3): ready\ncalls: 2 of 50\n\n";
    assert_eq!(gateway.watrunk(&["status"]).1, format!("{head}{table}"));
    let odd = "{ \"numbers\" :\n [ ] }";
    let gateway = Played::new(vec![(200, json!(odd))]);
    assert_eq!(gateway.watrunk(&["numbers", "--json"]).1, format!("{odd}\n"), "as it came");
    assert_eq!(gateway.watrunk(&["trunks"]).1, "no trunks\n");
}

fn page(ids: &[&str], next: Option<&str>) -> Value {
    let call = |id: &&str| {
        json!({ "_id": id, "direction": "outbound", "from": "+15550100100", "to": "+49151", "forwardTo": "sip:2@pbx",
            "status": "ended", "startedAt": "2026-11-22T10:00:00.000Z", "answeredAt": "2026-11-22T10:00:05.000Z",
            "durationSeconds": 62, "endReason": "hangup", "billing": { "totalCostUSD": 0.01234 } })
    };
    json!({ "calls": ids.iter().map(call).collect::<Vec<_>>(), "nextCursor": next })
}

#[test]
fn calls_asks_for_what_was_wanted_and_turns_the_pages() {
    let mut missed = page(&["call_b"], None);
    for (key, value) in
        [("answeredAt", json!(null)), ("endReason", json!("no_answer")), ("billing", json!(null))]
    {
        missed["calls"][0][key] = value;
    }
    let first = page(&["call_a"], Some("2026-11-22T10:00:00.000Z"));
    let gateway = Played::new(vec![(200, numbers()), (200, first), (200, missed)]);
    let (outcome, out, err) = gateway.watrunk(&[
        "calls",
        "--number",
        "support",
        "--direction",
        "outbound",
        "--status",
        "ended",
        "--since",
        "2026-11-01",
        "--until",
        "2026-12-01T00:00:00+01:00",
        "--limit",
        "300",
    ]);
    assert_eq!((outcome, err.as_str()), (Ok(()), ""));
    assert_eq!(
        out,
        "TIME (UTC)           ID      DIRECTION  FROM          TO      DESTINATION  STATUS             TALK  COST (USD)\n\
         2026-11-22 10:00:00  call_a  outbound   +15550100100  +49151  sip:2@pbx    ended              1:02  0.0123\n\
         2026-11-22 10:00:00  call_b  outbound   +15550100100  +49151  sip:2@pbx    ended (no_answer)  -     -\n"
    );
    let query = "GET /v1/calls?direction=outbound&status=ended&number=%2B15550100100\
                 &since=2026-11-01T00%3A00%3A00.000Z&until=2026-11-30T23%3A00%3A00.000Z";
    let cursor = "2026-11-22T10%3A00%3A00.000Z";
    assert_eq!(
        gateway.lines()[1..],
        [format!("{query}&limit=200"), format!("{query}&limit=200&before={cursor}")]
    );
    // One page is printed as it came, several as one.
    let one = page(&["call_a"], None);
    let gateway = Played::new(vec![(200, one.clone())]);
    assert_eq!(gateway.watrunk(&["calls", "--json"]).1, format!("{one}\n"));
    assert_eq!(gateway.lines(), ["GET /v1/calls?limit=50"]);
    let gateway = Played::new(vec![(200, page(&["call_a"], Some("x"))), (200, page(&["call_b"], Some("y")))]);
    let (_, out, _) = gateway.watrunk(&["calls", "--json", "--limit", "2"]);
    let read: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((read["calls"].as_array().unwrap().len(), &read["nextCursor"]), (2, &json!("y")));
}

#[test]
fn a_running_call_shows_whether_it_is_recorded_right_now() {
    let ids = ["call_a", "call_b", "call_c", "call_d", "call_e"];
    let mut running = page(&ids, None);
    for (n, state) in ["asking", "running", "paused", "failed"].into_iter().enumerate() {
        for (key, value) in [
            ("status", json!("answered")),
            ("endReason", json!(null)),
            ("recording", json!({ "state": state })),
        ] {
            running["calls"][n][key] = value;
        }
    }
    // The call is over, and its file is being finished.
    running["calls"][4]["endedAt"] = json!("2026-11-22T10:01:07.000Z");
    running["calls"][4]["recording"] = json!({ "state": "running" });
    let gateway = Played::new(vec![(200, running)]);
    let (_, out, _) = gateway.watrunk(&["calls"]);
    let status = |line: &str| line.get(75..101).unwrap_or_default().trim().to_owned();
    let shown: Vec<String> = out.lines().skip(1).map(status).collect();
    let expected = [
        "answered, asked to record",
        "answered, recorded",
        "answered, recording paused",
        "answered",
        "ended",
    ];
    assert_eq!(shown, expected, "{out}");
}

#[test]
fn calls_without_a_gateway_are_read_from_the_file_and_that_is_said() {
    let key = "[[http.key]]\nname = \"ops\"\nkey = \"sk_0123456789abcdef\"\nrole = \"admin\"\n";
    // A port where nobody listens: it was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (http, told) in [
        (format!("[http]\nlisten = \"{free}\"\n{key}"), format!("no gateway answers at http://{free}: ")),
        (String::new(), "has no [[http.key]] that can be shown: ".to_owned()),
    ] {
        let here = Box1::new(&format!("{SEALED}{http}"));
        Ledger::open(&here.state(), Wall(0)).unwrap().insert(&call("call_1")).unwrap();
        let (outcome, out, err) = watrunk(&["calls", "--config", &here.config()]);
        assert_eq!(outcome, Ok(()));
        assert!(out.contains("user_hung_up"), "{out}");
        assert!(err.contains(&told) && err.ends_with("; this is from the history file\n"), "{err}");
        assert_eq!(
            watrunk(&["status", "--config", &here.config()]).0,
            Err(Failed),
            "status has no file to read"
        );
        // Only the file knows these words.
        let (outcome, out, err) = watrunk(&["calls", "--status", "user_hung_up", "--config", &here.config()]);
        assert_eq!((outcome, err.as_str()), (Ok(()), ""));
        assert!(out.contains("user_hung_up"), "{out}");
    }
    let base = format!("http://{free}");
    let there = |line: &[&str]| watrunk(&[line, &["--api", &base, "--key", "k"]].concat());
    let (outcome, out, err) = there(&["calls"]);
    assert_eq!((outcome, out.as_str()), (Err(Failed), ""), "another machine's calls are not in this file");
    assert!(err.starts_with(&format!("watrunk: no gateway answers at {base}: ")), "{err}");
    assert_eq!(there(&["calls", "--status", "unanswered"]).0, Err(Failed));
    // The variables of a shell that asks elsewhere as a rule don't matter then.
    let here = Box1::new(SEALED);
    assert_eq!(
        there(&["calls", "--offline", "--config", &here.config()]),
        (Ok(()), "no calls\n".into(), "".into())
    );
}

#[test]
fn the_gateway_and_the_key_come_from_the_config_and_a_key_of_the_file_goes_nowhere_else() {
    let gateway = Played::new(vec![(200, numbers())]);
    let listen = gateway.base.trim_start_matches("http://");
    let keys = "[[http.key]]\nname = \"r\"\nkey = \"sk_reader_0123456789\"\nrole = \"read\"\n\
                [[http.key]]\nname = \"a\"\nkey = \"sk_admin_0123456789\"\nrole = \"admin\"\n";
    // The other secrets can't be read by whoever types this.
    let here = Box1::new(&format!("{SEALED}[http]\nlisten = \"{listen}\"\n{keys}"));
    assert_eq!(watrunk(&["numbers", "--config", &here.config()]).0, Ok(()));
    assert_eq!(watrunk(&["numbers", "--key", "typed", "--config", &here.config()]).0, Ok(()));
    let shown: Vec<String> = gateway.asked().into_iter().map(|asked| asked.key).collect();
    assert_eq!(shown, ["Bearer sk_admin_0123456789", "Bearer typed"]);
    let (outcome, _, err) = watrunk(&["numbers", "--api", &gateway.base, "--config", &here.config()]);
    assert_eq!((outcome, err.as_str()), (Err(Failed), "watrunk: --api needs --key (or WATRUNK_KEY) too\n"));
    assert_eq!(gateway.asked().len(), 2);
}

#[test]
fn a_key_that_is_refused_and_an_answer_that_is_no_api_are_told() {
    let gateway = Played::new(vec![(401, json!({ "error": "Unauthorized" }))]);
    let (outcome, _, err) = gateway.watrunk(&["status"]);
    assert_eq!(outcome, Err(Failed));
    assert!(err.starts_with("watrunk: Unauthorized: give a key with --key or WATRUNK_KEY"), "{err}");
    let gateway = Played::new(vec![(200, json!("<html>a router</html>"))]);
    let (outcome, out, err) = gateway.watrunk(&["status"]);
    assert_eq!((outcome, out.as_str()), (Err(Failed), ""));
    assert!(err.ends_with("does not speak the API: its answer is no JSON\n"), "{err}");
}
