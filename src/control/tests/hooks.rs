//! Webhooks: settings, tests, the log, repeating; the events themselves and their signature.

use std::time::Duration;

use serde_json::{Value, json};

use super::fake::{ADMIN, FILE, House, START, record, running};
use crate::call::leg::{Direction, Why};
use crate::clock::Wall;
use crate::config::Secret;
use crate::control::{Told, events};
use crate::ledger::{Attempt, Billing, Spooled};
use crate::whatsapp::notice::{PermissionReply, User};

const SETTINGS: &str = "/v1/webhooks/settings";

fn spool(house: &House, id: &str, name: &str, at: i64) -> i64 {
    house.fake.ledger(|ledger| {
        let event = Spooled {
            id: id.to_owned(),
            call_id: String::new(),
            name: name.to_owned(),
            payload: json!({ "id": id }).to_string(),
            at: Wall(at),
            webhooks: vec!["crm".to_owned()],
        };
        ledger.spool(&[event]).unwrap();
        ledger.due(Wall(i64::MAX), 100).unwrap().into_iter().find(|due| due.event_id == id).unwrap().seq
    })
}

fn attempt(status: Option<u16>) -> Attempt {
    Attempt {
        at: START,
        status_code: status,
        response_body: "thanks".to_owned(),
        error: status.is_none().then(|| "no answer".to_owned()),
        response_time: Duration::from_millis(30),
    }
}

#[tokio::test]
async fn webhooks_are_listed_without_their_secrets() {
    let house = House::new();
    let got = house.get(SETTINGS).await;
    assert!(!got.text.contains("hook-secret") && !got.text.contains("crm-token"));
    assert_eq!(
        got.json()["webhooks"],
        json!([{
            "_id": "crm", "name": "crm", "url": "https://example.com/hook", "secretConfigured": true,
            "events": ["call.ended", "call.failed"], "isActive": true, "lastFiredAt": null, "failureCount": 0,
            "disabledAt": null, "pending": 0, "customHeaders": {"Authorization": "***"}, "disabledResourceGroups": [],
        }])
    );
}

#[tokio::test]
async fn a_webhook_is_made_changed_and_removed_in_the_file() {
    let house = House::new();
    let new = json!({
        "name": "bi", "url": " https://bi.example.com/in ", "secret": "s3cret-77", "events": ["call.received", "call.received"],
        "customHeaders": {"X-Team": "a b"},
    });
    let got = house.post(SETTINGS, new).await.json();
    let made = &got["webhook"];
    let id = made["_id"].as_str().unwrap();
    assert_eq!(
        (id.len(), &made["url"], &made["isActive"]),
        (24, &json!("https://bi.example.com/in"), &json!(true))
    );
    assert_eq!(made["events"], json!(["call.received"]));
    assert!(house.fake.file().contains("s3cret-77") && house.fake.file().contains("# a comment that stays"));

    let put = |body: Value| house.ask(ADMIN, "PUT", SETTINGS, Some(body));
    let got = put(json!({"_id": id, "name": "renamed", "isActive": false})).await.json();
    assert_eq!((&got["webhook"]["name"], &got["webhook"]["isActive"]), (&json!("renamed"), &json!(false)));
    assert_eq!(got["webhook"]["url"], "https://bi.example.com/in", "the rest stays");
    let got =
        put(json!({"_id": "crm", "customHeaders": {"Authorization": "***", "X-New": "1"}, "secret": null}))
            .await;
    assert_eq!(got.json()["webhook"]["secretConfigured"], false);
    let file = house.fake.file();
    assert!(file.contains("Bearer crm-token"), "what is hidden and sent back stays as it is: {file}");
    assert!(!file.contains("hook-secret"));

    assert_eq!(
        house.ask(ADMIN, "DELETE", &format!("{SETTINGS}?id={id}"), None).await.json(),
        json!({"success": true})
    );
    assert_eq!(house.get(SETTINGS).await.json()["webhooks"].as_array().unwrap().len(), 1);
    for (method, path, body) in [
        ("DELETE", format!("{SETTINGS}?id={id}"), None),
        ("PUT", SETTINGS.to_owned(), Some(json!({"_id": id}))),
        ("POST", "/v1/webhooks/test".to_owned(), Some(json!({"webhookId": id}))),
        ("POST", "/v1/webhooks/logs/redeliver".to_owned(), Some(json!({"webhookId": id, "eventId": "e"}))),
    ] {
        assert_eq!(house.ask(ADMIN, method, &path, body).await.fault().0, 404, "{method} {path}");
    }
}

#[tokio::test]
async fn a_wrong_webhook_is_named_and_none_leads_into_the_house() {
    let house = House::new();
    let before = house.fake.file();
    for (more, param) in [
        (json!({"name": null}), "name"),
        (json!({"name": "x".repeat(51)}), "name"),
        (json!({"url": null}), "url"),
        (json!({"url": "ftp://x.example.com"}), "url"),
        (json!({"url": "https://"}), "url"),
        (json!({"url": "https://a b.example.com"}), "url"),
        (json!({"url": "https://user:word@bi.example.com"}), "url"),
        (json!({"url": "https://bi.example.com/#x"}), "url"),
        (json!({"url": "http://127.0.0.1:9000/x"}), "url"),
        (json!({"url": "http://localhost/x"}), "url"),
        (json!({"url": "http://169.254.169.254/latest/meta-data"}), "url"),
        (json!({"url": "http://[::1]/"}), "url"),
        (json!({"url": "http://192.168.1.10/"}), "url"),
        (json!({"url": "http://[::ffff:10.0.0.1]/"}), "url"),
        (json!({"events": []}), "events"),
        (json!({"events": null}), "events"),
        (json!({"events": ["call.rang"]}), "events[0]"),
        (json!({"events": ["call.ended", 7]}), "events[1]"),
        (json!({"isActive": "yes"}), "isActive"),
        (json!({"customHeaders": {"a b": "1"}}), "customHeaders.a b"),
        (json!({"customHeaders": {"A": "1\r\nB: 2"}}), "customHeaders.A"),
        (json!({"customHeaders": {"A": ""}}), "customHeaders.A"),
        (json!({"customHeaders": {"A": "1 "}}), "customHeaders.A"),
        (json!({"customHeaders": []}), "customHeaders"),
        (json!({"secret": "a\nb"}), "secret"),
    ] {
        let mut body = json!({"name": "n", "url": "https://bi.example.com", "events": ["call.ended"]});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let got = house.post(SETTINGS, body).await.fault();
        assert_eq!((got.0, got.2.as_str()), (400, param), "{more}");
    }
    let body = json!({"name": "n", "url": "https://bi.example.com", "events": ["call.ended"],
                      "customHeaders": {"Host": "elsewhere"}});
    let got = house.post(SETTINGS, body).await.fault();
    assert_eq!(got, (422, "invalid_field_value".to_owned(), "customHeaders".to_owned()));
    assert_eq!(house.fake.file(), before);
    let open = House::with(&FILE.replace("[http]", "[http]\nallow_private = true"));
    let body = json!({"name": "n", "url": "http://127.0.0.1:9000/x", "events": ["call.ended"]});
    assert_eq!(open.post(SETTINGS, body).await.status, 200);
}

#[tokio::test]
async fn a_test_is_fired_at_once_and_says_how_it_went() {
    let house = House::new();
    let test = |body: Value| house.post("/v1/webhooks/test", body);
    let got = test(json!({"webhookId": "crm"})).await.json();
    assert_eq!(got["success"], true);
    for (event, object) in [
        ("call.received", "call"),
        ("call.ended", "call"),
        ("call.failed", "call"),
        ("call.permission_request", "permission"),
    ] {
        assert_eq!(test(json!({"webhookId": "crm", "event": event})).await.status, 200);
        let (to, fired) = house.fake.fired.lock().unwrap().last().cloned().unwrap();
        let body: Value = serde_json::from_str(&fired.body).unwrap();
        assert_eq!((to.as_str(), fired.name, &body["test"]), ("crm", event, &json!(true)));
        assert!(body[object].is_object() && body["account"]["accountId"] == "acme");
        assert_eq!(body["id"], json!(fired.id));
    }
    *house.fake.fire.lock().unwrap() = Some("it answered 500".to_owned());
    let got = test(json!({"webhookId": "crm", "event": "webhook.test"})).await;
    assert_eq!((got.fault().0, &got.json()["success"]), (502, &json!(false)));
    assert!(got.json()["message"].as_str().unwrap().contains("500"));
    assert_eq!(test(json!({"webhookId": "crm", "event": "call.rang"})).await.fault().2, "event");
    assert_eq!(test(json!({})).await.fault().2, "webhookId");
}

#[tokio::test]
async fn deliveries_are_logged_and_can_be_repeated() {
    let house = House::new();
    let first = spool(&house, "evt_1", "call.ended", START.0);
    let second = spool(&house, "evt_2", "call.failed", START.0 + 1);
    house.fake.ledger(|ledger| {
        ledger.failed("crm", first, &attempt(None), Some(Wall(START.0 + 5_000))).unwrap();
        ledger.delivered("crm", first, &attempt(Some(200))).unwrap();
        ledger.delivered("crm", second, &attempt(Some(204))).unwrap();
    });
    let got = house.get("/v1/webhooks/logs?limit=2").await.json();
    assert_eq!(got["pagination"], json!({"total": 3, "limit": 2, "skip": 0, "pages": 2, "hasMore": true}));
    assert_eq!(got["logs"][0]["eventId"], "evt_2");
    let row = &got["logs"][1];
    assert_eq!(
        (&row["status"], &row["statusCode"], &row["attemptNumber"]),
        (&json!("success"), &json!(200), &json!(2))
    );
    assert_eq!(
        (&row["requestPayload"]["id"], &row["webhookName"], &row["responseTime"]),
        (&json!("evt_1"), &json!("crm"), &json!(30))
    );
    for (query, total) in [
        ("skip=2", 3),
        ("status=failed", 1),
        ("event=call.failed", 1),
        ("eventId=evt_1", 2),
        ("webhookId=other", 0),
        ("webhookId=crm&status=success", 2),
    ] {
        let got = house.get(&format!("/v1/webhooks/logs?{query}")).await.json();
        assert_eq!(got["pagination"]["total"], total, "{query}");
    }
    for (query, param) in [("limit=101", "limit"), ("skip=-1", "skip"), ("status=lost", "status")] {
        assert_eq!(house.get(&format!("/v1/webhooks/logs?{query}")).await.fault().2, param);
    }

    let again = |body: Value| house.post("/v1/webhooks/logs/redeliver", body);
    let got = again(json!({"webhookId": "crm", "eventId": "evt_1"})).await.json();
    assert_eq!(got["success"], true);
    let due = house.fake.ledger(|ledger| ledger.due(START, 10)).unwrap();
    assert_eq!(due.iter().map(|due| due.event_id.as_str()).collect::<Vec<_>>(), ["evt_1"]);
    assert_eq!(again(json!({"webhookId": "crm", "eventId": "evt_9"})).await.fault().0, 422);
    assert_eq!(again(json!({"webhookId": "crm"})).await.fault().2, "eventId");
}

#[tokio::test]
async fn a_webhook_that_was_disabled_begins_anew_when_it_is_switched_on() {
    let house = House::new();
    let seq = spool(&house, "evt_1", "call.ended", START.0);
    for _ in 0..10 {
        house.fake.ledger(|l| l.failed("crm", seq, &attempt(None), Some(START))).unwrap();
    }
    let shown = || async { house.get(SETTINGS).await.json()["webhooks"][0].clone() };
    let off = shown().await;
    assert_eq!(
        (&off["isActive"], &off["failureCount"], &off["pending"]),
        (&json!(false), &json!(10), &json!(1))
    );
    assert!(off["disabledAt"].is_string());
    house.ask(ADMIN, "PUT", SETTINGS, Some(json!({"_id": "crm", "isActive": true}))).await;
    let on = shown().await;
    assert_eq!(
        (&on["isActive"], &on["failureCount"], &on["disabledAt"]),
        (&json!(true), &json!(0), &json!(null))
    );
}

#[tokio::test]
async fn a_screen_that_comes_back_gets_what_it_has_missed() {
    use super::fake::{READER, request};
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    let house = House::new();
    for (n, id) in ["evt_1", "evt_2", "evt_3"].into_iter().enumerate() {
        let seq = spool(&house, id, "call.ended", START.0 + n as i64);
        house.fake.ledger(|l| l.delivered("crm", seq, &attempt(Some(200)))).unwrap();
    }
    let request = request(READER, "GET", "/v1/events").header("last-event-id", "evt_1");
    let mut body = house.open(request.body(Body::empty()).unwrap()).await.into_body();
    let mut text = String::new();
    while !text.contains("evt_3") {
        text.push_str(
            std::str::from_utf8(&body.frame().await.unwrap().unwrap().into_data().unwrap()).unwrap(),
        );
    }
    assert!(
        text.find("id: evt_2").unwrap() < text.find("id: evt_3").unwrap() && !text.contains("evt_1"),
        "{text}"
    );
}

#[test]
fn an_event_is_signed_with_both_families_of_headers() {
    let event = events::test("evt_1".to_owned(), START);
    let secret = Secret::new("hook-secret");
    let headers = events::headers(&event.id, event.name, "{\"a\":1}", Some(&secret));
    // printf '{"a":1}' | openssl dgst -sha256 -hmac hook-secret
    let signature = "eb8ded9d103e519ca7e2ab1be0df069c649c61531b59a9dcbf2fa2e799fb1fa6";
    for (name, value) in [
        ("X-Zernio-Event", "webhook.test"),
        ("X-Zernio-Event-Id", "evt_1"),
        ("X-Zernio-Signature", signature),
        ("X-Late-Event", "webhook.test"),
        ("X-Late-Event-Id", "evt_1"),
        ("X-Late-Signature", signature),
    ] {
        assert!(headers.contains(&(name, value.to_owned())), "{name}: {headers:?}");
    }
    let unsigned = events::headers(&event.id, event.name, &event.body, None);
    assert!(unsigned.iter().all(|(name, _)| !name.contains("Signature")));
}

#[test]
fn events_tell_a_call_from_beginning_to_end() {
    let id = || "evt_1".to_owned();
    let parse = |event: &events::Event| serde_json::from_str::<Value>(&event.body).unwrap();
    let begun = events::received(id(), &running("call_1", START.0, Direction::Inbound), START);
    let account =
        json!({"id": "acme", "accountId": "acme", "platform": "whatsapp", "username": "+4930550100100"});
    assert_eq!(
        parse(&begun),
        json!({
            "id": "evt_1", "event": "call.received",
            "call": {
                "id": "call_1", "metaCallId": "wacid.call_1", "accountId": "acme", "phoneNumberId": "106540352242922",
                "direction": "inbound", "from": "+4915112345678", "to": "+4930550100100", "forwardTo": "sip:200@pbx",
                "contactId": null, "conversationId": null, "startedAt": "2026-11-22T10:00:00.000Z",
            },
            "account": account.clone(), "timestamp": "2026-11-22T10:00:00.000Z",
        })
    );
    let done = record("call_1", START.0, Direction::Outbound, Why::UserHungUp, 56.9);
    let ended = parse(&events::over(id(), &done, &Billing::default(), &Told::default(), START));
    assert_eq!((&ended["event"], &ended["account"]), (&json!("call.ended"), &account));
    let call = &ended["call"];
    assert_eq!(
        (&call["durationSeconds"], &call["endReason"], &call["hangupCause"]),
        (&json!(56), &json!("hangup"), &json!("normal_clearing"))
    );
    assert_eq!(call["billing"]["totalCostUSD"], 0);
    let mut broken = record("call_2", START.0, Direction::Inbound, Why::GraphRefused, 0.0);
    broken.meta_code = Some(138_008);
    broken.detail = "SDP Validation error".to_owned();
    let failed = parse(&events::over(id(), &broken, &Billing::default(), &Told::default(), START));
    assert_eq!(failed["event"], "call.failed");
    assert_eq!(failed["call"]["error"], json!({"code": 138_008, "message": "SDP Validation error"}));
    assert_eq!(failed["call"]["failedAt"], "2026-11-22T10:00:04.000Z");
}

#[test]
fn a_reply_to_a_permission_request_is_told_with_its_end() {
    let house = House::new();
    use crate::control::Backend as _;
    let config = house.fake.config();
    let mut reply = PermissionReply {
        phone_number_id: "106540352242922".to_owned(),
        user: User { phone: Some("4915112345678".to_owned()), ..User::default() },
        accepted: true,
        permanent: false,
        expires_at: Some(1_795_900_000),
        source: Some("user_action".to_owned()),
        context_id: None,
        timestamp: None,
    };
    let told = |reply: &PermissionReply| {
        let event = events::permission("evt_1".to_owned(), reply, &config.numbers[0], START);
        serde_json::from_str::<Value>(&event.body).unwrap()["permission"].clone()
    };
    assert_eq!(
        told(&reply),
        json!({
            "from": "+4915112345678", "response": "accept", "isPermanent": false,
            "responseSource": "user_action", "expirationTimestamp": 1_795_900_000,
        })
    );
    reply.accepted = false;
    reply.source = Some("automatic".to_owned());
    assert_eq!(
        told(&reply),
        json!({"from": "+4915112345678", "response": "reject", "isPermanent": false, "responseSource": "automatic"})
    );
}
