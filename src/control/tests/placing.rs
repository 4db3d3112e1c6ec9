//! Calls that programs place, end and hand over; consent asked for; the same key twice.

use std::time::Duration;

use axum::body::Body;
use serde_json::{Value, json};

use super::fake::{ADMIN, FILE, Got, House, OPERATOR, START, request, running};
use crate::call::leg::{Direction, Why};
use crate::config::Destination;
use crate::gateway::desk::{Answer, Command, Place, Refusal};
use crate::whatsapp::callee::Callee;
use crate::whatsapp::graph::Verdict;
use crate::whatsapp::permit::{Denied, Permission};

const CALLS: &str = "/v1/whatsapp/calls";

fn placed() -> Result<Answer, Refusal> {
    Ok(Answer::Placed { id: "call_1".to_owned(), destination: "sip:200@pbx".to_owned(), recording: false })
}

fn body(more: Value) -> Value {
    let mut body = json!({"accountId": "acme", "to": "+4915112345678"});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn graph(code: i64) -> Refusal {
    let text =
        format!("{{\"error\":{{\"message\":\"no ({code})\",\"code\":{code},\"fbtrace_id\":\"AbC\"}}}}");
    Refusal::Graph(Box::new(Verdict::of_http(400, text.as_bytes()).unwrap()))
}

fn permission(text: &str) -> Result<Answer, Refusal> {
    Ok(Answer::Permission(Permission::parse(text.as_bytes()).unwrap()))
}

const OPEN: &str = r#"{"permission":{"status":"no_permission"},"actions":[
    {"action_name":"send_call_permission_request","can_perform_action":true},
    {"action_name":"start_call","can_perform_action":false}]}"#;

async fn with_key(house: &House, key: &str, holder: &str, body: &Value) -> Got {
    let request = request(holder, "POST", CALLS)
        .header("content-type", "application/json")
        .header("idempotency-key", key);
    house.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn a_call_is_placed_with_the_numbers_own_destination_or_another() {
    let house = House::new();
    house.fake.says(placed());
    let got = house.post(CALLS, body(json!({"biz_opaque_callback_data": "order 66", "newField": 1}))).await;
    assert_eq!(
        got.json(),
        json!({
            "success": true, "callId": "call_1", "telnyxCallControlId": "call_1", "status": "dialing",
            "direction": "outbound", "to": "+4915112345678", "forwardTo": "sip:200@pbx",
            "recordingEnabled": false,
        })
    );
    house.fake.says(placed());
    let more = json!({"forwardTo": "+4930123456", "recordOverride": true, "to": "DE.77", "number": "+4930550100101"});
    assert_eq!(house.ask(OPERATOR, "POST", "/api/v1/whatsapp/calls", Some(body(more))).await.status, 200);
    let first = Place {
        number: "support".to_owned(),
        to: Callee::Phone("4915112345678".to_owned()),
        destination: None,
        record: None,
    };
    let second = Place {
        number: "sales".to_owned(),
        to: Callee::Bsuid("DE.77".to_owned()),
        destination: Some(Destination::Tel("+4930123456".to_owned())),
        record: Some(true),
    };
    assert_eq!(house.fake.commands(), [Command::Call(Box::new(first)), Command::Call(Box::new(second))]);
}

#[tokio::test]
async fn a_wrong_field_is_named_and_nobody_is_called() {
    let house = House::new();
    for (more, status, param) in [
        (json!({"accountId": null}), 400, "accountId"),
        (json!({"accountId": 7}), 400, "accountId"),
        (json!({"accountId": "nobody"}), 404, "accountId"),
        (json!({"phoneNumberId": "999"}), 404, "phoneNumberId"),
        (json!({"number": "+4930999999"}), 404, "number"),
        (json!({"to": null}), 400, "to"),
        (json!({"to": "nobody"}), 400, "to"),
        (json!({"to": "030123456"}), 400, "to"),
        (json!({"to": "+4930550100100"}), 400, "to"),
        (json!({"action": "dance"}), 400, "action"),
        (json!({"bodyText": "x".repeat(1_025)}), 400, "bodyText"),
        (json!({"biz_opaque_callback_data": "x".repeat(513)}), 400, "biz_opaque_callback_data"),
        (json!({"forwardTo": "ftp://x"}), 400, "forwardTo"),
        (json!({"forwardTo": "sip:200@nowhere"}), 422, "forwardTo"),
        (json!({"forwardTo": "tel:+4930550100100"}), 400, "forwardTo"),
        (json!({"forwardTo": "+4930550100100"}), 400, "forwardTo"),
        (json!({"forwardTo": "wss://127.0.0.1/x"}), 400, "forwardTo"),
        (json!({"forwardTo": "wss://169.254.169.254/x"}), 400, "forwardTo"),
        (json!({"recordOverride": "yes"}), 400, "recordOverride"),
        (json!({"accountId": "fresh"}), 422, ""),
    ] {
        let got = house.post(CALLS, body(more.clone())).await;
        let (found, _, name) = got.fault();
        assert_eq!((found, name.as_str()), (status, param), "{more}: {}", got.text);
    }
    assert_eq!(house.post(CALLS, json!({"accountId": "acme"})).await.fault().1, "missing_required_field");
    assert_eq!(house.fake.commands(), []);
}

#[tokio::test]
async fn every_refusal_says_who_said_no_and_what_can_be_done() {
    let house = House::new();
    let limit = Denied::LimitReached { period: "PT24H".to_owned(), max: Some(5), until: Some(1_795_400_000) };
    let failed = |why| Refusal::Failed { id: "call_9".to_owned(), why, detail: "it broke".to_owned() };
    for (refusal, status, code, platform) in [
        (Refusal::Denied(Denied::NoPermission), 409, "call_permission_required", "meta"),
        (Refusal::Denied(limit), 429, "platform_limit_reached", "meta"),
        (Refusal::Denied(Denied::Unavailable), 409, "call_permission_required", "meta"),
        (graph(138_006), 409, "call_permission_required", "meta"),
        (graph(138_003), 409, "invalid_resource_state", "meta"),
        (graph(138_012), 429, "platform_limit_reached", "meta"),
        (graph(130_429), 429, "platform_rate_limited", "meta"),
        (graph(138_013), 422, "platform_api_error", "meta"),
        (graph(138_001), 422, "platform_api_error", "meta"),
        (graph(138_000), 422, "platform_api_error", "meta"),
        (graph(190), 502, "platform_api_error", "meta"),
        (Refusal::Graph(Box::new(Verdict::of_timeout())), 502, "platform_api_error", "meta"),
        (Refusal::TrunkDown { trunk: "pbx".to_owned() }, 502, "trunk_down", "sip"),
        (Refusal::TrunkDown { trunk: String::new() }, 502, "trunk_down", "sip"),
        (Refusal::NotEnabled, 422, "invalid_resource_state", ""),
        (Refusal::NoDestination, 422, "invalid_resource_state", ""),
        (Refusal::ToItself, 400, "invalid_field_value", ""),
        (Refusal::Busy, 409, "invalid_resource_state", ""),
        (Refusal::Full, 429, "too_many_calls", ""),
        (Refusal::Draining, 503, "shutting_down", ""),
        (Refusal::NoSuchNumber, 404, "not_found", ""),
        (
            Refusal::Failed { id: String::new(), why: Why::Fault, detail: "no answer in time".to_owned() },
            503,
            "no_answer",
            "",
        ),
        (failed(Why::NoPermission), 409, "call_permission_required", "meta"),
        (failed(Why::NotOnWhatsApp), 422, "platform_api_error", "meta"),
        (failed(Why::Throttled), 429, "platform_rate_limited", "meta"),
        (failed(Why::GraphUnreachable), 502, "platform_api_error", "meta"),
        (failed(Why::FarUnreachable), 502, "call_failed", "sip"),
        (failed(Why::MediaFailed), 502, "call_failed", ""),
    ] {
        let name = format!("{refusal:?}");
        house.fake.says(Err(refusal));
        let got = house.post(CALLS, body(json!({}))).await;
        let (found, said, _) = got.fault();
        assert_eq!((found, said.as_str()), (status, code), "{name}");
        assert_eq!(got.json()["platform"].as_str().unwrap_or_default(), platform, "{name}");
        assert_eq!(
            got.headers.contains_key("retry-after"),
            [429, 503].contains(&status) && !name.contains("Limit"),
            "{name}"
        );
    }
    house.fake.says(Err(graph(138_012)));
    let got = house.post(CALLS, body(json!({}))).await.json();
    assert_eq!(
        (&got["platformError"]["code"], &got["platformError"]["fbtrace_id"]),
        (&json!(138_012), &json!("AbC"))
    );
    assert!(got["details"]["cure"].as_str().unwrap().contains("24 hours"));
}

#[tokio::test]
async fn the_same_key_with_the_same_body_places_one_call_and_gets_one_answer() {
    let house = House::new();
    house.fake.says(placed());
    let first = with_key(&house, "order-1", ADMIN, &body(json!({}))).await;
    let again = with_key(&house, "order-1", ADMIN, &body(json!({}))).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (200, 200));
    assert_eq!(first.text, again.text);
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), ("", "true"));
    assert_eq!(house.fake.commands().len(), 1);

    let other = with_key(&house, "order-1", ADMIN, &body(json!({"to": "+4917099999999"}))).await;
    assert_eq!(other.fault(), (422, "idempotency_key_reused".to_owned(), "Idempotency-Key".to_owned()));
    house.fake.says(placed());
    assert_eq!(
        with_key(&house, "order-1", OPERATOR, &body(json!({}))).await.status,
        200,
        "keys are their holder's"
    );
    assert_eq!(house.fake.commands().len(), 2);
    for bad in ["has blanks", &"x".repeat(300), ""] {
        assert_eq!(
            with_key(&house, bad, ADMIN, &body(json!({}))).await.fault().2,
            "Idempotency-Key",
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_request_that_is_still_being_done_is_not_done_twice() {
    use sha2::Digest as _;
    let house = House::new();
    let text = body(json!({})).to_string();
    let digest: [u8; 32] = sha2::Sha256::digest(&text).into();
    house.fake.ledger(|ledger| ledger.begin("slow", "ops", &digest, START)).unwrap();
    let got = with_key(&house, "slow", ADMIN, &body(json!({}))).await;
    assert_eq!((got.fault().0, got.header("retry-after")), (409, "1"));
    assert_eq!(house.fake.commands(), []);
}

#[tokio::test]
async fn what_was_refused_may_be_tried_again_with_the_same_key_but_not_what_may_have_been_done() {
    let house = House::new();
    house.fake.says(Err(Refusal::Full));
    assert_eq!(with_key(&house, "a", ADMIN, &body(json!({}))).await.status, 429);
    house.fake.says(placed());
    assert_eq!(with_key(&house, "a", ADMIN, &body(json!({}))).await.status, 200);
    // No answer of Graph's: the phone may be ringing.
    house.fake.says(Err(Refusal::Graph(Box::new(Verdict::of_timeout()))));
    let first = with_key(&house, "b", ADMIN, &body(json!({}))).await;
    let again = with_key(&house, "b", ADMIN, &body(json!({}))).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (502, 502));
    assert_eq!(first.text, again.text);
    assert_eq!(house.fake.commands().len(), 3);
}

#[tokio::test]
async fn consent_is_asked_for_and_metas_limits_are_kept_before_meta_refuses() {
    let house = House::new();
    let ask =
        || house.post(CALLS, body(json!({"action": "send_call_permission_request", "bodyText": "May we?"})));
    house.fake.says(permission(OPEN));
    house.fake.says(Ok(Answer::Requested(Some("wamid.1".to_owned()))));
    assert_eq!(
        ask().await.json(),
        json!({"success": true, "action": "send_call_permission_request", "to": "+4915112345678", "messageId": "wamid.1"})
    );
    let user = Callee::Phone("4915112345678".to_owned());
    assert_eq!(
        house.fake.commands(),
        [
            Command::Permission { number: "support".to_owned(), user: user.clone() },
            Command::RequestPermission {
                number: "support".to_owned(),
                user,
                text: Some("May we?".to_owned())
            },
        ]
    );
    // Meta's count is behind: ours is not.
    house.fake.says(permission(OPEN));
    let got = ask().await;
    assert_eq!(got.fault(), (429, "platform_limit_reached".to_owned(), "to".to_owned()));
    assert_eq!(
        got.json()["details"],
        json!({"time_period": "PT24H", "max_allowed": 1, "limit_expiration_time": 1_795_428_000})
    );
    house.fake.after(24 * 3_600);
    house.fake.says(permission(OPEN));
    house.fake.says(Ok(Answer::Requested(None)));
    assert_eq!(ask().await.json()["messageId"], json!(null));
    house.fake.after(24 * 3_600);
    house.fake.says(permission(OPEN));
    assert_eq!(ask().await.json()["details"]["time_period"], "P7D");
    // What Meta allows counts, not what is usual.
    house.fake.says(permission(
        r#"{"permission":{"status":"no_permission"},"actions":[{"action_name":"send_call_permission_request",
            "can_perform_action":true,"limits":[{"time_period":"PT24H","max_allowed":25,"current_usage":1},
            {"time_period":"P7D","max_allowed":100,"current_usage":2}]}]}"#,
    ));
    house.fake.says(Ok(Answer::Requested(None)));
    assert_eq!(ask().await.status, 200);
    let asked =
        house.fake.commands().iter().filter(|c| matches!(c, Command::RequestPermission { .. })).count();
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn a_request_that_meta_would_refuse_is_refused_with_metas_reason() {
    let house = House::new();
    house.fake.says(permission(
        r#"{"permission":{"status":"no_permission"},"actions":[{"action_name":"send_call_permission_request",
            "can_perform_action":false,"limits":[{"time_period":"P7D","max_allowed":2,"current_usage":2,
            "limit_expiration_time":1795622600}]}]}"#,
    ));
    let got = house.post(CALLS, body(json!({"action": "send_call_permission_request"}))).await;
    assert_eq!(got.fault().0, 429);
    assert_eq!(got.json()["details"]["limit_expiration_time"], 1_795_622_600);
    house.fake.says(permission(OPEN));
    house.fake.says(Err(graph(131_047)));
    let got = house.post(CALLS, body(json!({"action": "send_call_permission_request"}))).await;
    assert_eq!(got.fault().1, "conversation_required");
    house.fake.says(permission(OPEN));
    house.fake.says(Ok(Answer::Requested(None)));
    let got = house.post(CALLS, body(json!({"action": "send_call_permission_request"}))).await;
    assert_eq!(got.status, 200, "a refused request does not count");
}

#[tokio::test]
async fn metas_word_on_a_permission_is_passed_on_whole() {
    let house = House::new();
    let meta = json!({
        "permission": {"status": "temporary", "expiration_time": 1_795_622_600},
        "actions": [{"action_name": "start_call", "can_perform_action": false, "limits": [
            {"time_period": "PT24H", "max_allowed": 5, "current_usage": 5, "limit_expiration_time": 1_795_622_600}]}],
    });
    house.fake.says(permission(&meta.to_string()));
    let got = house.get("/v1/whatsapp/call-permissions?accountId=acme&to=4915112345678").await;
    assert_eq!(got.json(), meta);
    for (query, status, param) in [
        ("to=%2B4915112345678", 400, "accountId"),
        ("accountId=acme", 400, "to"),
        ("accountId=acme&to=bob", 400, "to"),
        ("accountId=nobody&to=%2B4915112345678", 404, "accountId"),
    ] {
        let got = house.get(&format!("/v1/whatsapp/call-permissions?{query}")).await.fault();
        assert_eq!((got.0, got.2.as_str()), (status, param), "{query}");
    }
    house.fake.says(Err(graph(613)));
    let got = house.get("/v1/whatsapp/call-permissions?accountId=acme&to=%2B4915112345678").await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "60"));
}

#[tokio::test]
async fn ending_a_call_twice_is_as_good_as_once() {
    let house = House::new();
    house.fake.says(Ok(Answer::Ending { id: "call_1".to_owned() }));
    let got = house.ask(OPERATOR, "POST", "/v1/voice/calls/call_1/end", None).await;
    assert_eq!(got.json(), json!({"success": true, "callId": "call_1", "status": "ending"}));
    house.closed("call_1", START.0, Direction::Outbound, Why::Operator, 56.0);
    house.closed("call_2", START.0 + 9, Direction::Outbound, Why::MediaFailed, 0.0);
    for (id, status) in [("call_1", "ended"), ("call_2", "failed")] {
        let got = house.post(&format!("/v1/voice/calls/{id}/end"), json!({})).await;
        assert_eq!(got.json(), json!({"success": true, "callId": id, "status": status}));
    }
    assert_eq!(house.post("/v1/voice/calls/call_3/end", json!({})).await.fault().0, 404);
}

#[tokio::test]
async fn a_talking_call_is_handed_over_and_another_is_not() {
    let house = House::new();
    house.fake.ledger(|l| l.note(&running("call_1", START.0, Direction::Inbound))).unwrap();
    let path = "/v1/voice/calls/call_1/transfer";
    house.fake.says(Ok(Answer::Transferring { id: "call_1".to_owned(), to: "sip:300@pbx".to_owned() }));
    let got = house.post(path, json!({"to": "sip:300@pbx"})).await;
    assert_eq!(got.json(), json!({"success": true, "callId": "call_1", "transferredTo": "sip:300@pbx"}));
    house.fake.says(Err(Refusal::NotNow { state: "ringing" }));
    let got = house.post(path, json!({"to": "+4930123456"})).await;
    assert_eq!((got.fault().0, &got.json()["details"]["state"]), (409, &json!("ringing")));
    for (to, status) in
        [(json!("tel:+4930550100100"), 400), (json!("nowhere"), 400), (json!(7), 400), (json!(null), 400)]
    {
        let got = house.post(path, json!({"to": to})).await.fault();
        assert_eq!((got.0, got.2.as_str()), (status, "to"), "{to}");
    }
    house.fake.says(Err(Refusal::NoSuchCall));
    assert_eq!(house.post(path, json!({"to": "sip:300@pbx"})).await.fault().0, 409, "it is over");
    assert_eq!(
        house.post("/v1/voice/calls/none/transfer", json!({"to": "sip:300@pbx"})).await.fault().0,
        404
    );
}

#[tokio::test]
async fn a_voice_agent_ends_a_call_as_it_would_at_twilio() {
    use base64::Engine as _;
    let house = House::new();
    let send = |key: &str, sid: &str, form: &'static str| {
        let user = base64::engine::general_purpose::STANDARD.encode(format!("AC123:{key}"));
        let request = axum::http::Request::builder()
            .method("POST")
            .uri(format!("/2010-04-01/Accounts/AC123/Calls/{sid}"))
            .header("authorization", format!("Basic {user}"))
            .header("content-type", "application/x-www-form-urlencoded");
        house.send(request.body(Body::from(form)).unwrap())
    };
    house.fake.ledger(|l| l.note(&running("call_1", START.0, Direction::Outbound))).unwrap();
    house.fake.says(Ok(Answer::Ending { id: "call_1".to_owned() }));
    let got = send(OPERATOR, "call_1.json", "Status=completed").await.json();
    assert_eq!(
        (&got["sid"], &got["status"], &got["direction"]),
        (&json!("call_1"), &json!("completed"), &json!("outbound-api"))
    );
    assert_eq!(house.fake.commands(), [Command::HangUp { id: "call_1".to_owned() }]);
    house.closed("call_1", START.0, Direction::Outbound, Why::Operator, 56.0);
    let got = send(OPERATOR, "call_1.json", "Status=completed").await.json();
    assert_eq!(got["duration"], "56");
    for (key, sid, form, status, code) in [
        ("sk_wrong", "call_1.json", "Status=completed", 401, 20_003),
        (super::fake::READER, "call_1.json", "Status=completed", 403, 20_003),
        (OPERATOR, "none.json", "Status=completed", 404, 20_404),
        (OPERATOR, "call_1", "Status=completed", 404, 20_404),
        (OPERATOR, "call_1.json", "Status=in-progress", 400, 21_220),
        (OPERATOR, "call_1.json", "", 400, 21_220),
        (OPERATOR, "call_1.json", "Twiml=%3CHangup%2F%3E", 422, 21_220),
    ] {
        let got = send(key, sid, form).await;
        assert_eq!((got.status.as_u16(), got.json()["code"].as_i64()), (status, Some(code)), "{sid} {form}");
        assert_eq!(got.json()["status"], status);
    }
}

#[tokio::test]
async fn a_change_is_carried_out_whole_even_if_the_client_leaves() {
    let house = House::with(FILE);
    house.fake.says(placed());
    let request = request(ADMIN, "POST", CALLS)
        .header("content-type", "application/json")
        .header("idempotency-key", "left")
        .body(Body::from(body(json!({})).to_string()))
        .unwrap();
    let asked = house.open(request);
    // Polled once, then dropped: as when the connection breaks.
    let _ = tokio::time::timeout(Duration::ZERO, asked).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let again = with_key(&house, "left", ADMIN, &body(json!({}))).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(house.fake.commands().len(), 1);
}
