//! Webhooks as Meta sends them, as it might, and as nobody should.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::whatsapp::notice::{CallStatus, Connect, Direction, PermissionReply, Status, Terminate, User};

const SECRET: &[u8] = b"key";
const BODY: &[u8] = b"The quick brown fox jumps over the lazy dog";
/// HMAC-SHA256 of the two above, as every text book prints it.
const DIGEST: &str = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";

fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query.iter().map(|(key, value)| (String::from(*key), String::from(*value))).collect()
}

fn envelope(value: serde_json::Value) -> Vec<u8> {
    json!({"object": "whatsapp_business_account",
           "entry": [{"id": "1", "changes": [{"value": value, "field": "calls"}]}]})
    .to_string()
    .into_bytes()
}

fn one(value: serde_json::Value) -> Notice {
    let mut notices = read(&envelope(value)).unwrap();
    assert_eq!(notices.len(), 1, "{notices:?}");
    notices.remove(0)
}

fn connect(value: serde_json::Value) -> Connect {
    match one(value) {
        Notice::Connect(connect) => *connect,
        other => panic!("not a connect: {other:?}"),
    }
}

fn terminate(value: serde_json::Value) -> Terminate {
    match one(value) {
        Notice::Terminate(terminate) => *terminate,
        other => panic!("not a terminate: {other:?}"),
    }
}

fn inbound_call() -> serde_json::Value {
    json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "16315553601", "phone_number_id": "106540352242922"},
        "contacts": [{"wa_id": "16315553602", "user_id": "US.13491208655302741918",
                      "parent_user_id": "US.ENT.118", "profile": {"name": "Jo\r\nDoe", "username": "jo"}}],
        "calls": [{"id": "wacid.ABGGFjFVU2AfAgo6V-Hc5eCgK5Gh==", "from": "16315553602", "to": "16315553601",
                   "event": "connect", "direction": "USER_INITIATED", "timestamp": "1671644824",
                   "session": {"sdp_type": "offer", "sdp": "v=0\r\n"}, "cta_payload": "order-7"}]
    })
}

#[test]
fn the_handshake_echoes_the_challenge_to_whoever_knows_the_token() {
    let query = pairs(&[
        ("hub.mode", "subscribe"),
        ("hub.challenge", "1158201444"),
        ("hub.verify_token", "let me in"),
    ]);
    assert_eq!(challenge(&query, "let me in"), Ok(String::from("1158201444")));
    assert_eq!(challenge(&query, "let me i"), Err(Refusal::WrongToken));
    assert_eq!(challenge(&query, ""), Err(Refusal::WrongToken));
    let blank = pairs(&[("hub.mode", "subscribe"), ("hub.challenge", "1"), ("hub.verify_token", "")]);
    assert_eq!(
        challenge(&blank, ""),
        Err(Refusal::WrongToken),
        "a token that is not configured opens nothing"
    );
}

#[test]
fn the_handshake_refuses_what_is_incomplete() {
    let no_mode = pairs(&[("hub.challenge", "1"), ("hub.verify_token", "t")]);
    assert_eq!(challenge(&no_mode, "t"), Err(Refusal::NotSubscribe));
    let other_mode = pairs(&[("hub.mode", "unsubscribe"), ("hub.challenge", "1"), ("hub.verify_token", "t")]);
    assert_eq!(challenge(&other_mode, "t"), Err(Refusal::NotSubscribe));
    let no_token = pairs(&[("hub.mode", "subscribe"), ("hub.challenge", "1")]);
    assert_eq!(challenge(&no_token, "t"), Err(Refusal::WrongToken));
    let empty = pairs(&[("hub.mode", "subscribe"), ("hub.challenge", ""), ("hub.verify_token", "t")]);
    assert_eq!(challenge(&empty, "t"), Err(Refusal::NoChallenge));
    let long = "1".repeat(5_000);
    let long = pairs(&[("hub.mode", "subscribe"), ("hub.challenge", &long), ("hub.verify_token", "t")]);
    assert_eq!(challenge(&long, "t"), Err(Refusal::NoChallenge));
}

#[test]
fn a_genuine_signature_is_believed_in_either_case() {
    assert!(authentic(SECRET, Some(&format!("sha256={DIGEST}")), BODY));
    assert!(authentic(SECRET, Some(&format!("SHA256={}", DIGEST.to_uppercase())), BODY));
}

#[test]
fn a_signature_that_is_wrong_missing_or_misshapen_is_refused() {
    let good = format!("sha256={DIGEST}");
    assert!(!authentic(SECRET, None, BODY));
    assert!(!authentic(SECRET, Some(""), BODY));
    assert!(!authentic(SECRET, Some(DIGEST), BODY));
    assert!(!authentic(SECRET, Some(&format!("sha1={DIGEST}")), BODY));
    assert!(!authentic(SECRET, Some(&good[..good.len() - 1]), BODY));
    assert!(!authentic(SECRET, Some(&good[..good.len() - 2]), BODY));
    assert!(!authentic(SECRET, Some(&format!("{good}00")), BODY));
    assert!(!authentic(SECRET, Some(&format!("sha256={}", "zz".repeat(32))), BODY));
    assert!(!authentic(SECRET, Some(&format!("sha256={}", "\u{e9}".repeat(32))), BODY));
    assert!(!authentic(SECRET, Some(&good.replace("f7", "f8")), BODY));
    assert!(!authentic(SECRET, Some(&good), b"The quick brown fox jumps over the lazy cog"));
    assert!(!authentic(b"kez", Some(&good), BODY));
}

#[test]
fn an_empty_secret_authenticates_nobody() {
    // HMAC-SHA256 with an empty key over an empty body: a published value.
    let header = "sha256=b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";
    assert!(!authentic(b"", Some(header), b""));
}

#[test]
fn a_ringing_user_is_read_with_everything_the_pbx_wants_to_know() {
    let connect = connect(inbound_call());
    assert_eq!(connect.wacid, "wacid.ABGGFjFVU2AfAgo6V-Hc5eCgK5Gh==");
    assert_eq!(connect.phone_number_id, "106540352242922");
    assert_eq!(connect.direction, Direction::Inbound);
    assert_eq!(connect.timestamp, Some(1_671_644_824));
    assert_eq!((connect.sdp_type.as_str(), connect.sdp.as_str()), ("offer", "v=0\r\n"));
    assert_eq!(connect.payload.as_deref(), Some("order-7"));
    assert_eq!(connect.user.caller_user(), "+16315553602");
    assert_eq!(connect.user.display(), Some("Jo  Doe"), "no header can be forged with a name");
    assert_eq!(connect.user.username.as_deref(), Some("jo"));
    assert_eq!(connect.user.bsuid.as_deref(), Some("US.13491208655302741918"));
    assert_eq!(connect.user.parent_bsuid.as_deref(), Some("US.ENT.118"));
}

#[test]
fn a_user_without_a_phone_number_is_known_by_the_scoped_id() {
    let mut call = inbound_call();
    call["calls"][0].as_object_mut().unwrap().remove("from");
    call["calls"][0]["from_user_id"] = json!("US.13491208655302741918");
    call["contacts"] = json!([{"user_id": "US.13491208655302741918", "profile": {"username": "jo"}}]);
    let user = connect(call).user;
    assert_eq!(user.phone, None);
    assert_eq!(user.caller_user(), "US.13491208655302741918");
    assert_eq!(user.display(), Some("jo"));
}

#[test]
fn a_user_of_whom_nothing_is_told_is_anonymous() {
    let mut call = inbound_call();
    call["calls"][0].as_object_mut().unwrap().remove("from");
    call["contacts"] = json!([]);
    let user = connect(call).user;
    assert_eq!((user.caller_user().as_str(), user.display()), ("anonymous", None));
}

#[test]
fn a_contact_that_is_somebody_else_lends_no_name() {
    let mut call = inbound_call();
    call["contacts"] = json!([{"wa_id": "4930123456", "profile": {"name": "Somebody Else"}}]);
    assert_eq!(connect(call).user.display(), None);
}

#[test]
fn among_many_contacts_the_callers_own_is_found() {
    let mut call = inbound_call();
    call["contacts"] = json!([{"wa_id": "4930123456", "profile": {"name": "A"}}, 7,
                              {"wa_id": "16315553602", "profile": {"name": "B"}}]);
    assert_eq!(connect(call).user.display(), Some("B"));
}

#[test]
fn an_outgoing_call_has_its_user_at_the_other_end() {
    let mut call = inbound_call();
    call["calls"][0] = json!({"id": "wacid.1", "event": "connect", "direction": "BUSINESS_INITIATED",
        "from": "16315553601", "to": "16315553602", "timestamp": 1671644824,
        "session": {"sdp_type": "answer", "sdp": "v=0"}});
    let connect = connect(call);
    assert_eq!(connect.direction, Direction::Outbound);
    assert_eq!(connect.user.caller_user(), "+16315553602");
    assert_eq!(connect.timestamp, Some(1_671_644_824));
}

#[test]
fn a_missing_direction_is_told_by_the_kind_of_sdp() {
    for (kind, direction) in [("offer", Direction::Inbound), ("answer", Direction::Outbound)] {
        let value =
            json!({"calls": [{"id": "w", "event": "connect", "session": {"sdp_type": kind, "sdp": ""}}]});
        assert_eq!(connect(value).direction, direction);
    }
}

#[test]
fn a_picked_up_call_ends_with_its_length() {
    let end = terminate(json!({
        "metadata": {"phone_number_id": 106540352242922_u64},
        "calls": [{"id": "wacid.1", "event": "terminate", "direction": "USER_INITIATED", "from": "16315553602",
                   "timestamp": "1671644900", "status": ["Completed"], "start_time": "1671644830",
                   "end_time": 1671644899, "duration": "69", "terminate_reason": "user"}]}));
    assert!(end.answered);
    assert_eq!(
        (end.duration, end.start_time, end.end_time),
        (Some(69), Some(1_671_644_830), Some(1_671_644_899))
    );
    assert_eq!(end.status.as_deref(), Some("COMPLETED"));
    assert_eq!(end.phone_number_id, "106540352242922");
    assert_eq!((end.reason.as_deref(), end.error), (Some("user"), None));
}

#[test]
fn a_completed_call_without_a_start_was_not_answered() {
    let end = terminate(json!({"calls": [{"id": "w", "event": "terminate", "status": "COMPLETED",
                                          "start_time": null, "timestamp": 1.5e9}]}));
    assert!(!end.answered);
    assert_eq!(end.timestamp, Some(1_500_000_000));
}

#[test]
fn the_error_of_a_failed_call_is_found_beside_it_and_inside_it() {
    let beside = terminate(json!({
        "calls": [{"id": "w", "event": "terminate", "status": "FAILED"}],
        "errors": [{"code": 138021, "message": "No media", "error_data": {"details": "from +1 631 555 3601"}}]}));
    let fault = beside.error.unwrap();
    assert_eq!((fault.code, fault.message.as_str()), (138_021, "No media: from [hidden]"));
    let inside = terminate(json!({
        "calls": [{"id": "w", "event": "terminate", "errors": [{"code": "138020", "title": "Relay"}]}]}));
    let fault = inside.error.unwrap();
    assert_eq!((fault.code, fault.message.as_str()), (138_020, "Relay"));
}

#[test]
fn an_error_beside_two_calls_is_not_pinned_on_the_one_that_succeeded() {
    let body = envelope(json!({
        "calls": [{"id": "a", "event": "terminate", "status": "COMPLETED", "duration": 3},
                  {"id": "b", "event": "terminate", "status": "Failed"}],
        "errors": [{"code": 138023, "message": "lost"}]}));
    let codes: Vec<Option<i64>> = read(&body)
        .unwrap()
        .iter()
        .map(|notice| match notice {
            Notice::Terminate(end) => end.error.as_ref().map(|fault| fault.code),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, [None, Some(138_023)]);
}

#[test]
fn the_steps_of_an_outgoing_call_are_read_and_message_statuses_are_not() {
    let body = envelope(json!({
    "metadata": {"phone_number_id": "1"},
    "statuses": [
        {"id": "wacid.1", "type": "call", "status": "RINGING", "timestamp": "1671644824"},
        {"id": "wacid.1", "type": "call", "status": ["ACCEPTED"]},
        {"id": "wacid.1", "type": "call", "status": "rejected"},
        {"id": "wacid.1", "type": "call", "status": "HELD_BY_ELVES"},
        {"id": "wamid.1", "status": "delivered"},
    ]}));
    let steps: Vec<CallStatus> = read(&body)
        .unwrap()
        .into_iter()
        .map(|notice| match notice {
            Notice::Status(Status { status, .. }) => status,
            other => panic!("{other:?}"),
        })
        .collect();
    let newer = CallStatus::Other(String::from("HELD_BY_ELVES"));
    assert_eq!(steps, [CallStatus::Ringing, CallStatus::Accepted, CallStatus::Rejected, newer]);
}

#[test]
fn a_batch_is_read_whole_and_in_order() {
    let change = |ids: [&str; 2]| {
        json!({"field": "calls", "value": {"metadata": {"phone_number_id": "1"},
               "calls": [{"id": ids[0], "event": "connect"}, {"id": ids[1], "event": "terminate"}]}})
    };
    let body = json!({"entry": [{"changes": [change(["a", "b"]), change(["c", "d"])]}, {"changes": [change(["e", "f"])]}]});
    let notices = read(body.to_string().as_bytes()).unwrap();
    let ids: Vec<&str> = notices.iter().filter_map(Notice::wacid).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
    assert!(notices.iter().all(|notice| notice.phone_number_id() == "1"));
}

#[test]
fn a_bad_element_does_not_spoil_its_neighbours() {
    let long = "x".repeat(600);
    let body = envelope(json!({"calls": [
        7, null, [], "call", {}, {"event": "connect"}, {"id": "", "event": "connect"},
        {"id": {"a": 1}, "event": "connect"}, {"id": "a\r\nX-Evil: 1", "event": "connect"},
        {"id": long, "event": "terminate"},
        {"id": "good", "event": "connect", "session": 5, "timestamp": {}, "from": [], "direction": 9},
    ], "statuses": [null, {"type": "call"}, {"type": "call", "id": "s"}], "contacts": {"a": 1}, "errors": 4}));
    let notices = read(&body).unwrap();
    assert_eq!(notices.iter().filter_map(Notice::wacid).collect::<Vec<_>>(), ["good"]);
}

#[test]
fn events_fields_and_objects_that_are_not_used_are_passed_over() {
    let body = json!({"object": "whatsapp_business_account", "entry": [{"changes": [
        {"field": "messages", "value": {"messages": [{"id": "wamid"}], "statuses": [{"id": "w", "type": "call", "status": "RINGING"}]}},
        {"field": "account_update", "value": {"event": "ACCOUNT_RESTRICTION"}},
        {"field": "calls"}, {"value": {}}, 3,
        {"field": "calls", "value": {"calls": [{"id": "w", "event": "call_created"},
                                               {"id": "w", "event": "call_recording_available"}, {"id": "w"}]}},
        {"field": "calls", "value": {"errors": [{"code": 131044, "message": "payment"}]}},
    ]}, null, {"changes": null}]});
    assert_eq!(read(body.to_string().as_bytes()), Ok(vec![]));
    assert_eq!(read(br#"{"object":"page","entry":[{"changes":[{"field":"calls","value":{"calls":[{"id":"a","event":"connect"}]}}]}]}"#), Ok(vec![]));
    assert_eq!(read(b"{}"), Ok(vec![]));
}

#[test]
fn a_body_that_can_not_be_read_is_refused_with_the_reason() {
    assert_eq!(read(b""), Err(BadBody::NotJson { line: 1, column: 0 }));
    assert_eq!(read(b"{\n  \"entry\": oops}"), Err(BadBody::NotJson { line: 2, column: 12 }));
    assert_eq!(read(b"[]"), Err(BadBody::NotAnObject));
    assert!(matches!(read(&[0xff, 0xfe, b'{', b'}']), Err(BadBody::NotJson { .. })));
    assert_eq!(read(&vec![b' '; MAX_BODY + 1]), Err(BadBody::TooLarge { bytes: MAX_BODY + 1 }));
}

#[test]
fn a_body_made_to_exhaust_the_box_is_refused_before_it_is_parsed() {
    assert_eq!(read("[".repeat(100_000).as_bytes()), Err(BadBody::TooDeep));
    assert_eq!(read(r#"{"a":"#.repeat(100_000).as_bytes()), Err(BadBody::TooDeep));
    let wide = format!("{{\"entry\":[{}0]}}", "0,".repeat(300_000));
    assert_eq!(read(wide.as_bytes()), Err(BadBody::TooManyValues));
}

#[test]
fn commas_and_brackets_inside_texts_are_not_taken_for_structure() {
    let text = format!("{}\\\"{}", "[{,".repeat(100_000), ",".repeat(300_000));
    let body = format!("{{\"entry\":[{{\"changes\":[]}}],\"text\":\"{text}\"}}");
    assert_eq!(read(body.as_bytes()), Ok(vec![]));
}

#[test]
fn a_full_batch_passes_and_one_notice_more_does_not() {
    let body = |count: usize| {
        let calls: Vec<_> =
            (0..count).map(|index| json!({"id": format!("w{index}"), "event": "terminate"})).collect();
        envelope(json!({"calls": calls}))
    };
    assert_eq!(read(&body(MAX_NOTICES)).map(|notices| notices.len()), Ok(MAX_NOTICES));
    assert_eq!(read(&body(MAX_NOTICES + 1)), Err(BadBody::TooManyNotices));
}

#[test]
fn a_log_line_of_a_connect_shows_no_phone_number() {
    let line = format!("{:?}", one(inbound_call()));
    assert!(!line.contains("16315553602") && !line.contains("Doe") && !line.contains("1349"), "{line}");
    assert!(line.contains("phone"), "{line}");
}

fn changes(field: &str, value: serde_json::Value) -> Vec<Notice> {
    let body = json!({"object": "whatsapp_business_account",
                      "entry": [{"id": "1", "changes": [{"field": field, "value": value}]}]});
    read(body.to_string().as_bytes()).unwrap()
}

/// A `messages` change with one reply to a permission request.
fn reply(reply: serde_json::Value, context: serde_json::Value) -> serde_json::Value {
    let mut message = json!({
        "from": "16315553602", "from_user_id": "US.13491208655302741918", "id": "wamid.HBg", "timestamp": "1671644824",
        "type": "interactive",
        "interactive": {"type": "call_permission_reply", "call_permission_reply": reply}});
    if !context.is_null() {
        message["context"] = json!({"from": "16315553601", "id": context});
    }
    json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "16315553601", "phone_number_id": "106540352242922"},
        "contacts": [{"wa_id": "16315553602", "user_id": "US.13491208655302741918", "profile": {"name": "Jo"}}],
        "messages": [message]})
}

fn permission(value: serde_json::Value) -> PermissionReply {
    match changes("messages", value).as_slice() {
        [Notice::Permission(reply)] => (**reply).clone(),
        other => panic!("not one permission: {other:?}"),
    }
}

#[test]
fn every_way_to_grant_or_take_back_a_permission_is_read() {
    let (wamid, wacid) = ("wamid.REQUEST", "wacid.CALL==");
    let in_a_week = Some(1_768_550_400);
    let accept = |permanent: bool, source: &str| json!({"response": "accept", "is_permanent": permanent, "response_source": source});
    let until = |mut reply: serde_json::Value, end: serde_json::Value| {
        reply["expiration_timestamp"] = end;
        reply
    };
    let reject = |source: &str| json!({"response": "reject", "response_source": source});
    for (said, context, (accepted, permanent, expires_at), source) in [
        (
            until(accept(false, "user_action"), json!("1768550400")),
            json!(wamid),
            (true, false, in_a_week),
            "user_action",
        ),
        (
            until(accept(false, "user_action"), json!(1_768_550_400)),
            json!(wamid),
            (true, false, in_a_week),
            "user_action",
        ),
        (accept(true, "user_action"), json!(wamid), (true, true, None), "user_action"),
        (accept(true, "user_action"), json!(null), (true, true, None), "user_action"),
        (reject("user_action"), json!(wamid), (false, false, None), "user_action"),
        (
            until(accept(false, "automatic"), json!("1768550400")),
            json!(wacid),
            (true, false, in_a_week),
            "automatic",
        ),
        (reject("automatic"), json!(null), (false, false, None), "automatic"),
    ] {
        let user = User {
            phone: Some(String::from("16315553602")),
            bsuid: Some(String::from("US.13491208655302741918")),
            name: Some(String::from("Jo")),
            ..User::default()
        };
        let wanted = PermissionReply {
            phone_number_id: String::from("106540352242922"),
            user,
            accepted,
            permanent,
            expires_at,
            source: Some(source.to_owned()),
            context_id: context.as_str().map(str::to_owned),
            timestamp: Some(1_671_644_824),
        };
        assert_eq!(permission(reply(said.clone(), context)), wanted, "{said}");
    }
}

#[test]
fn a_permission_reply_of_a_user_without_a_number_names_the_scoped_id() {
    let mut value = reply(json!({"response": "ACCEPT", "is_permanent": "true"}), json!(null));
    value["messages"][0].as_object_mut().unwrap().remove("from");
    value["contacts"][0].as_object_mut().unwrap().remove("wa_id");
    let reply = permission(value);
    assert_eq!((reply.user.phone, reply.permanent), (None, true));
    assert_eq!(reply.user.bsuid.as_deref(), Some("US.13491208655302741918"));
}

#[test]
fn nothing_else_of_the_messages_is_read() {
    for message in [
        json!({"from": "1631555", "id": "wamid", "type": "text", "text": {"body": "call_permission_reply"}}),
        json!({"from": "1631555", "id": "wacid.V", "type": "audio", "audio": {"id": "1", "voice": true}}),
        json!({"from": "1631555", "id": "wamid", "type": "interactive", "interactive": {"type": "button_reply"}}),
        json!("text"),
    ] {
        assert_eq!(changes("messages", json!({"messages": [message]})), []);
    }
    for broken in [json!({}), json!({"response": "maybe"}), json!({"is_permanent": true})] {
        assert_eq!(changes("messages", reply(broken.clone(), json!(null))), [], "{broken}");
    }
    let mut nobody = reply(json!({"response": "accept"}), json!(null));
    nobody["messages"] = json!([{"type": "interactive", "interactive": {"type": "call_permission_reply",
        "call_permission_reply": {"response": "accept"}}}]);
    nobody.as_object_mut().unwrap().remove("contacts");
    assert_eq!(changes("messages", nobody), [], "nobody said it");
}

#[test]
fn what_we_gave_meta_with_a_call_comes_back_in_each_of_its_notices() {
    let mut value = inbound_call();
    value["calls"] = json!([
        {"id": "wacid.A", "event": "connect", "direction": "BUSINESS_INITIATED", "biz_opaque_callback_data": "call-1",
         "session": {"sdp_type": "answer", "sdp": "v=0\r\n"}},
        {"id": "wacid.A", "event": "terminate", "biz_opaque_callback_data": "call-1"},
        {"id": "wacid.B", "event": "terminate"}]);
    value["statuses"] =
        json!([{"id": "wacid.A", "type": "call", "status": "RINGING", "biz_opaque_callback_data": "call-1"}]);
    let notices = read(&envelope(value)).unwrap();
    let opaque: Vec<Option<&str>> = notices.iter().map(Notice::opaque).collect();
    assert_eq!(opaque, [Some("call-1"), Some("call-1"), None, Some("call-1")]);
}

#[test]
fn news_of_the_number_and_of_the_account_are_read() {
    let changed = json!({"messaging_product": "whatsapp", "timestamp": 1, "type": "phone_number_settings",
        "phone_number_settings": {"phone_number_id": "106540352242922", "calling": {"status": "DISABLED"}}});
    let [Notice::Settings(notice)] = &changes("account_settings_update", changed)[..] else {
        panic!("nothing")
    };
    assert_eq!(notice.phone_number_id, "106540352242922");
    assert!(notice.change.to_string().contains("calling is not enabled"), "{}", notice.change);
    let warned = json!({"event": "ACCOUNT_VIOLATION",
        "violation_info": {"violation_type": "LOW_BUSINESS_INITIATED_CALLING_QUALITY"}});
    let [warning] = &changes("account_update", warned)[..] else { panic!("nothing") };
    assert_eq!((warning.phone_number_id(), warning.wacid()), ("", None));
    assert_eq!(changes("account_update", json!({"event": "VERIFIED_ACCOUNT"})), []);
}

#[test]
fn a_log_line_of_a_permission_reply_shows_no_phone_number() {
    let line = format!("{:?}", permission(reply(json!({"response": "accept"}), json!(null))));
    assert!(!line.contains("16315553602") && !line.contains("Jo"), "{line}");
}

/// JSON of any shape under the keys that are looked at.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        ".{0,12}".prop_map(|value| json!(value)),
        prop_oneof![
            Just("connect"),
            Just("terminate"),
            Just("call"),
            Just("calls"),
            Just("1671644824"),
            Just("call_permission_reply"),
            Just("accept")
        ]
        .prop_map(|value| json!(value)),
    ];
    let keys = prop::sample::select(vec![
        "object",
        "entry",
        "changes",
        "field",
        "value",
        "metadata",
        "phone_number_id",
        "contacts",
        "wa_id",
        "profile",
        "name",
        "calls",
        "statuses",
        "errors",
        "id",
        "event",
        "type",
        "status",
        "from",
        "to",
        "direction",
        "timestamp",
        "session",
        "sdp",
        "sdp_type",
        "start_time",
        "duration",
        "code",
        "message",
        "error_data",
        "details",
        "from_user_id",
        "messages",
        "interactive",
        "call_permission_reply",
        "response",
        "context",
        "phone_number_settings",
        "calling",
        "violation_info",
        "restriction_info",
    ]);
    leaf.prop_recursive(8, 128, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| json!(items)),
            prop::collection::vec((keys.clone(), inner), 0..8).prop_map(|pairs| serde_json::Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        let _ = authentic(b"secret", std::str::from_utf8(&bytes).ok(), &bytes);
    }

    #[test]
    fn no_shape_of_a_change_makes_it_panic_or_fail(value in any_json()) {
        for field in ["calls", "messages", "account_settings_update", "account_update"] {
            let body = json!({"entry": [{"changes": [{"field": field, "value": value}]}]});
            prop_assert!(read(body.to_string().as_bytes()).is_ok());
        }
    }

    #[test]
    fn a_cut_delivery_is_refused_and_does_no_harm(end in 0_usize..600) {
        let body = envelope(inbound_call());
        let end = end.min(body.len() - 1);
        let refused = matches!(read(&body[..end]), Err(BadBody::NotJson { .. }));
        prop_assert!(refused);
    }
}
