//! The numbers' configuration: read, enabled, changed, disabled; at Meta and in the file.

use serde_json::{Value, json};

use super::fake::{ADMIN, FILE, House};
use crate::gateway::desk::{Answer, Command, Refusal};
use crate::whatsapp::graph::Verdict;
use crate::whatsapp::settings::{Settings, SettingsChange};

const FRESH: &str = "/v1/phone-numbers/fresh/whatsapp/calling";
const LEGACY: &str = "/v1/whatsapp/phone-numbers/fresh/calling";
const SUPPORT: &str = "/v1/phone-numbers/support/whatsapp/calling";

fn settings(calling: Value) -> Result<Answer, Refusal> {
    let text = json!({ "calling": calling }).to_string();
    Ok(Answer::Settings(Box::new(Settings::parse(text.as_bytes()).unwrap())))
}

fn graph(status: u16, code: i64) -> Refusal {
    let text = json!({"error": {"message": "Meta says no", "code": code, "fbtrace_id": "AbC"}}).to_string();
    Refusal::Graph(Box::new(Verdict::of_http(status, text.as_bytes()).unwrap()))
}

fn enable(more: Value) -> Value {
    let mut body = json!({"accountId": "fresh", "forwardTo": "sip:200@pbx"});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn the_configuration_of_a_number_is_shown_flat_by_account_and_by_id() {
    let house = House::new();
    let got = house.get("/v1/whatsapp/calling?accountId=acme").await.json();
    assert_eq!(
        got,
        json!({
            "phoneNumberDocId": "support", "phoneNumber": "+4930550100100", "callingEnabled": true,
            "callDeepLink": "https://wa.me/call/4930550100100", "forwardTo": "sip:200@pbx",
            "recordingEnabled": false, "sipAuthUsername": null, "sipAuthPasswordConfigured": false,
            "callIconCountries": null, "callerIdMode": "business", "callerIdVerified": true,
            "maxCallDurationSeconds": 14_400, "forwardCallerId": "caller",
        })
    );
    let fresh = house.get(FRESH).await.json();
    assert_eq!(
        (&fresh["callingEnabled"], &fresh["callDeepLink"], &fresh["forwardTo"], &fresh["outboundDisabled"]),
        (&json!(false), &json!(null), &json!(null), &json!(true))
    );
    let by_meta = house.get("/api/v1/phone-numbers/106540352242922/whatsapp/calling").await.json();
    assert_eq!(
        (&by_meta["phoneNumber"], &by_meta["outboundDisabled"]),
        (&json!("+4930550100100"), &json!(false))
    );
    assert_eq!(by_meta.get("phoneNumberDocId"), None);
    let second = house.get("/v1/whatsapp/calling?accountId=acme&phoneNumberId=106540352242923").await.json();
    assert_eq!(second["phoneNumberDocId"], "sales");
    let second = house.get("/v1/whatsapp/calling?accountId=acme&number=+4930550100101").await.json();
    assert_eq!(second["phoneNumberDocId"], "sales", "a plus that was not escaped is understood");
    for (path, status, param) in [
        ("/v1/whatsapp/calling", 400, "accountId"),
        ("/v1/whatsapp/calling?accountId=nobody", 404, "accountId"),
        ("/v1/phone-numbers/none/whatsapp/calling", 404, "id"),
    ] {
        let got = house.get(path).await.fault();
        assert_eq!((got.0, got.2.as_str()), (status, param), "{path}");
    }
    let all = house.get("/v1/phone-numbers").await.json();
    assert_eq!(all["numbers"].as_array().unwrap().len(), 3);
    assert_eq!(all["numbers"][2]["accountId"], "fresh");
    assert_eq!(
        house.get("/v1/phone-numbers?accountId=acme").await.json()["numbers"].as_array().unwrap().len(),
        2
    );
    assert!(house.fake.commands().is_empty(), "nobody else is asked");
}

#[tokio::test]
async fn an_account_is_served_by_its_first_number_that_is_enabled() {
    let off = FILE.replacen("forward_to = \"sip:200@pbx\"   # the front desk", "enabled = false", 1);
    let house = House::with(&off);
    let got = house.get("/v1/whatsapp/calling?accountId=acme").await.json();
    assert_eq!(got["phoneNumberDocId"], "sales");
}

#[tokio::test]
async fn enabling_sets_it_at_meta_then_in_the_file_and_keeps_every_comment() {
    for path in [FRESH, LEGACY, "/api/v1/whatsapp/phone-numbers/fresh/calling"] {
        let house = House::new();
        house.fake.says(settings(json!({"status": "DISABLED", "srtp_key_exchange_protocol": "SDES"})));
        house.fake.says(Ok(Answer::Changed));
        let more = json!({
            "callIconCountries": ["de", "FR"], "maxCallDurationSeconds": 600, "forwardCallerId": "business",
            "sipAuthUsername": "u", "sipAuthPassword": "digest-secret-5521", "recordingEnabled": false,
        });
        let got = house.post(path, enable(more)).await;
        assert_eq!(
            got.json(),
            json!({
                "success": true, "callingEnabled": true, "sipHostname": "calls.example.com",
                "forwardTo": "sip:200@pbx", "callerIdMode": "business",
            })
        );
        let change = SettingsChange {
            enabled: Some(true),
            icon_countries: Some(vec!["DE".to_owned(), "FR".to_owned()]),
            dtls: Some(true),
            ..SettingsChange::default()
        };
        assert_eq!(
            house.fake.commands(),
            [
                Command::ReadSettings { number: "fresh".to_owned() },
                Command::WriteSettings { number: "fresh".to_owned(), change },
            ]
        );
        let shown = house.get(FRESH).await;
        assert!(!shown.text.contains("digest-secret-5521"));
        let shown = shown.json();
        assert_eq!(shown["callIconCountries"], json!(["DE", "FR"]));
        assert_eq!(
            (&shown["maxCallDurationSeconds"], &shown["forwardCallerId"]),
            (&json!(600), &json!("business"))
        );
        assert_eq!(
            (&shown["sipAuthUsername"], &shown["sipAuthPasswordConfigured"]),
            (&json!("u"), &json!(true))
        );
        let file = house.fake.file();
        assert!(file.contains("# a comment that stays") && file.contains("# the front desk"));
        assert!(file.contains("digest-secret-5521"), "secrets of the API are in the file");
    }
}

#[tokio::test]
async fn what_meta_refuses_is_explained_and_changes_nothing_here() {
    let house = House::new();
    let before = house.fake.file();
    let off = || settings(json!({"status": "DISABLED"}));
    for (code, words) in [(138_015, "2000"), (138_018, "subscribe")] {
        house.fake.says(off());
        house.fake.says(Err(graph(400, code)));
        let got = house.post(FRESH, enable(json!({}))).await;
        assert_eq!(got.fault(), (400, "platform_api_error".to_owned(), String::new()));
        let body = got.json();
        assert_eq!((&body["platform"], &body["platformError"]["code"]), (&json!("meta"), &json!(code)));
        assert!(body["error"].as_str().unwrap().contains(words), "{body}");
    }
    house.fake.says(settings(json!({"status": "DISABLED", "sip": {"status": "ENABLED"}})));
    let got = house.post(FRESH, enable(json!({}))).await;
    assert_eq!(got.fault(), (409, "invalid_resource_state".to_owned(), String::new()));
    assert!(got.json()["error"].as_str().unwrap().contains("calling.sip.status"));
    house.fake.says(Err(graph(429, 80_007)));
    assert_eq!(house.post(FRESH, enable(json!({}))).await.status, 429);
    house.fake.says(Err(Refusal::Graph(Box::new(Verdict::of_timeout()))));
    assert_eq!(house.post(FRESH, enable(json!({}))).await.status, 502);
    assert_eq!(house.fake.file(), before);
}

#[tokio::test]
async fn with_the_account_known_it_is_checked_that_an_app_hears_of_its_calls() {
    let file = FILE.replace("[whatsapp]", "[whatsapp]\nwaba_id = \"104\"");
    let house = House::with(&file);
    let off = || settings(json!({"status": "DISABLED"}));
    house.fake.says(off());
    house.fake.says(Ok(Answer::Apps(Vec::new())));
    let got = house.post(FRESH, enable(json!({}))).await;
    assert_eq!(got.fault().0, 409);
    assert!(got.json()["error"].as_str().unwrap().contains("subscribe"));
    for apps in [
        Ok(Answer::Apps(vec![crate::whatsapp::settings::SubscribedApp { id: "app".to_owned(), name: None }])),
        Err(graph(403, 200)),
    ] {
        house.fake.says(off());
        house.fake.says(apps);
        house.fake.says(Ok(Answer::Changed));
        assert_eq!(house.post(FRESH, enable(json!({}))).await.status, 200);
    }
}

#[tokio::test]
async fn an_update_writes_what_is_there_clears_what_is_null_and_keeps_the_rest() {
    let house = House::new();
    let got = house.ask(ADMIN, "PATCH", FRESH, Some(json!({"accountId": "fresh"}))).await;
    assert_eq!(got.fault().0, 422, "not before it is enabled");
    let patch = |body: Value| {
        let mut whole = json!({"accountId": "acme"});
        for (name, value) in body.as_object().unwrap() {
            whole[name] = value.clone();
        }
        house.ask(ADMIN, "PATCH", SUPPORT, Some(whole))
    };
    let got =
        patch(json!({"sipAuthUsername": "u", "sipAuthPassword": "p-5521", "callIconCountries": ["DE"]}))
            .await;
    assert_eq!(
        (&got.json()["success"], &got.json()["sipAuthPasswordConfigured"]),
        (&json!(true), &json!(true))
    );
    assert!(!got.text.contains("p-5521"));
    let got =
        patch(json!({"sipAuthPassword": null, "forwardTo": "+4930123456", "maxCallDurationSeconds": null}))
            .await;
    let got = got.json();
    assert_eq!((&got["sipAuthUsername"], &got["sipAuthPasswordConfigured"]), (&json!("u"), &json!(false)));
    assert_eq!(
        (&got["forwardTo"], &got["maxCallDurationSeconds"]),
        (&json!("tel:+4930123456"), &json!(null))
    );
    assert_eq!(got["callIconCountries"], json!(["DE"]));
    assert_eq!(patch(json!({"callIconCountries": null})).await.json()["callIconCountries"], json!(null));
    let got = patch(json!({"callIconCountries": ["de", "DE"], "maxCallDurationSeconds": 60.0})).await.json();
    assert_eq!((&got["callIconCountries"], &got["maxCallDurationSeconds"]), (&json!(["DE"]), &json!(60)));
    assert_eq!(patch(json!({"callIconCountries": []})).await.json()["callIconCountries"], json!(null));
    assert!(house.fake.commands().is_empty(), "Meta is not asked");
    assert_eq!(patch(json!({"recordingEnabled": true})).await.json()["recordingEnabled"], true);
    assert!(house.fake.file().contains("recording = true"), "it is in the file");
    assert_eq!(patch(json!({"recordingEnabled": false})).await.json()["recordingEnabled"], false);
    let before = house.fake.file();
    assert_eq!(patch(json!({})).await.status, 200);
    assert_eq!(house.fake.file(), before);
}

#[tokio::test]
async fn a_wrong_setting_is_named_and_changes_nothing() {
    let house = House::new();
    let before = house.fake.file();
    for (field, value, status) in [
        ("forwardTo", json!("gopher://x"), 400),
        ("forwardTo", json!(7), 400),
        ("forwardTo", json!(""), 400),
        ("forwardTo", json!(null), 400),
        ("forwardTo", json!("tel:+4930550100100"), 400),
        ("forwardTo", json!("sips:200@pbx"), 400),
        ("forwardTo", json!("sip:200@nosuch"), 422),
        ("forwardTo", json!("sip:200@pbx\nevil = 1"), 400),
        ("maxCallDurationSeconds", json!(29), 400),
        ("maxCallDurationSeconds", json!(14_401), 400),
        ("maxCallDurationSeconds", json!("60"), 400),
        ("maxCallDurationSeconds", json!(60.5), 400),
        ("recordingEnabled", json!("no"), 400),
        ("recordingEnabled", json!(null), 400),
        ("callIconCountries", json!("DE"), 400),
        ("callIconCountries", json!(["DEU"]), 400),
        ("callIconCountries", json!([null]), 400),
        ("forwardCallerId", json!("both"), 400),
        ("forwardCallerId", json!(null), 400),
        ("sipAuthUsername", json!({"a": 1}), 400),
        ("sipAuthUsername", json!("a b"), 400),
        ("sipAuthUsername", json!("u@host"), 400),
        ("sipAuthPassword", json!("a\u{0}b"), 400),
        ("accountId", json!("fresh"), 404),
        ("accountId", json!(null), 400),
    ] {
        let mut body = json!({"accountId": "acme"});
        body[field] = value.clone();
        let got = house.ask(ADMIN, "PATCH", SUPPORT, Some(body)).await;
        let (found, _, param) = got.fault();
        assert_eq!((found, param.split('[').next().unwrap()), (status, field), "{value}: {}", got.text);
    }
    assert_eq!(house.fake.file(), before);
    assert_eq!(house.post(FRESH, json!({"accountId": "fresh"})).await.fault().2, "forwardTo");
    assert_eq!(
        house.post(FRESH, json!({"accountId": "acme", "forwardTo": "sip:1@pbx"})).await.fault().2,
        "accountId"
    );
    let no_trunk = enable(json!({"forwardTo": "+4930123456"}));
    assert_eq!(house.post(FRESH, no_trunk).await.fault().2, "forwardTo", "nobody would carry tel:");
    assert!(house.fake.commands().is_empty());
}

#[tokio::test]
async fn disabling_keeps_the_destination_even_if_meta_can_not_be_told() {
    let house = House::new();
    house.fake.says(Ok(Answer::Changed));
    let got = house.ask(ADMIN, "DELETE", &format!("{SUPPORT}?accountId=acme"), None).await.json();
    assert_eq!((&got["disabledAtMeta"], &got["callingEnabled"]), (&json!(true), &json!(false)));
    assert_eq!(got["forwardTo"], "sip:200@pbx");
    house.fake.says(Err(graph(500, 2)));
    let path = "/v1/whatsapp/phone-numbers/sales/calling?accountId=acme";
    let got = house.ask(ADMIN, "DELETE", path, None).await.json();
    assert_eq!(
        (&got["success"], &got["disabledAtMeta"], &got["callingEnabled"]),
        (&json!(true), &json!(false), &json!(false))
    );
    let change = SettingsChange { enabled: Some(false), ..SettingsChange::default() };
    assert_eq!(house.fake.commands()[0], Command::WriteSettings { number: "support".to_owned(), change });
    assert_eq!(house.ask(ADMIN, "DELETE", SUPPORT, None).await.fault().2, "accountId");
    assert_eq!(house.ask(ADMIN, "DELETE", &format!("{SUPPORT}?accountId=fresh"), None).await.fault().0, 404);
}

#[tokio::test]
async fn there_is_no_caller_id_to_verify() {
    let house = House::new();
    let path = "/v1/phone-numbers/support/whatsapp/caller-id-verification";
    let got = house.ask(ADMIN, "POST", path, None).await.json();
    assert_eq!(got, json!({"verified": true, "codeSent": false, "method": "sms"}));
    assert_eq!(house.post(path, json!({"method": "call"})).await.json()["method"], "call");
    assert_eq!(house.post(path, json!({"method": "pigeon"})).await.fault().2, "method");
    let verify = format!("{path}/verify");
    assert_eq!(house.post(&verify, json!({"code": "123456"})).await.json(), json!({"verified": true}));
    for code in [json!("123"), json!("12345678901"), json!("12 45"), json!(123_456), json!(null)] {
        assert_eq!(house.post(&verify, json!({"code": code})).await.fault().2, "code");
    }
}
