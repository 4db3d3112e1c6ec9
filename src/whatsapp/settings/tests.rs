//! Settings as Graph tells them, and what an operator is told of them.

use proptest::prelude::*;

use super::*;

/// Everything that Meta's reference has, on a number that works.
const FULL: &str = r#"{"calling":{
  "status":"ENABLED","call_icon_visibility":"DEFAULT",
  "call_icons":{"restrict_to_user_countries":["us","BR"]},
  "call_hours":{"status":"ENABLED","timezone_id":"America/Manaus",
     "weekly_operating_hours":[{"day_of_week":"MONDAY","open_time":"0400","close_time":"1020"}],
     "holiday_schedule":[{"date":"2026-01-01","start_time":"0000","end_time":"2359"}]},
  "callback_permission_status":"ENABLED",
  "srtp_key_exchange_protocol":"DTLS",
  "audio":{"additional_codecs":["PCMA","PCMU"]},
  "voicemail":{"status":"DISABLED"},
  "sip":{"status":"DISABLED","webhook_delivery":"DISABLED",
     "servers":[{"hostname":"sip.example.com","port":5061,"app_id":1,"sip_user_password":"secret"}]}},
 "storage_configuration":{"status":"DEFAULT"}}"#;

fn settings(calling: Value) -> Settings {
    Settings::parse(json!({ "calling": calling }).to_string().as_bytes()).unwrap()
}

fn sentences(calling: Value) -> Vec<String> {
    settings(calling).faults().iter().map(ToString::to_string).collect()
}

fn told(value: Value) -> Option<SettingsNotice> {
    match notice(&value) {
        Ok(Notice::Settings(notice)) => Some(*notice),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

#[test]
fn a_number_that_works_has_no_faults() {
    let settings = Settings::parse(FULL.as_bytes()).unwrap();
    assert_eq!(settings.faults(), []);
    assert_eq!(settings.icon_countries, ["US", "BR"]);
    assert_eq!(settings.additional_codecs, ["PCMA", "PCMU"]);
    assert_eq!(settings.callback_permission.as_deref(), Some("ENABLED"));
    assert_eq!(
        settings.sip_servers,
        [SipServer { hostname: String::from("sip.example.com"), port: Some(5_061) }]
    );
    let hours = settings.hours.unwrap();
    assert_eq!((hours.enabled, hours.timezone.as_deref()), (true, Some("America/Manaus")));
    assert_eq!((hours.weekly.len(), hours.holidays.len()), (1, 1));
    assert!(sentences(json!({"status": "enabled"})).is_empty(), "DTLS is what counts where nothing is set");
}

#[test]
fn a_password_at_meta_is_not_kept() {
    assert!(!format!("{:?}", Settings::parse(FULL.as_bytes()).unwrap()).contains("secret"));
}

#[test]
fn each_fault_is_a_sentence_with_its_cure() {
    for (calling, code_word, stops) in [
        (json!({}), "calling.status to ENABLED", true),
        (json!({"status": "DISABLED"}), "calling.status to ENABLED", true),
        (json!({"status": "ENABLED", "sip": {"status": "ENABLED"}}), "131055", true),
        (json!({"status": "ENABLED", "srtp_key_exchange_protocol": "SDES"}), "set it to DTLS", true),
        (json!({"status": "ENABLED", "call_icon_visibility": "DISABLE_ALL"}), "no call button", false),
    ] {
        let faults = settings(calling.clone()).faults();
        let [fault] = faults.as_slice() else { panic!("{calling}: {faults:?}") };
        assert!(fault.to_string().contains(code_word), "{fault}");
        assert_eq!(fault.stops_calls(), stops, "{fault}");
    }
}

#[test]
fn a_restriction_says_what_and_until_when() {
    let restricted = |kind: &str, expiration: Value| {
        let list = json!([{"type": kind, "reason": "low quality", "expiration": expiration}]);
        sentences(json!({"status": "ENABLED", "restrictions": {"restrictions_list": list}}))
    };
    assert_eq!(
        restricted("RESTRICTED_BUSINESS_INITIATED_CALLING", json!("1780315200")),
        ["Meta has paused calls to users until 2026-06-01 12:00 UTC: low quality"]
    );
    assert_eq!(
        restricted("RESTRICTED_USER_INITIATED_CALLING", json!(1_780_315_200)),
        ["Meta has paused calls from users until 2026-06-01 12:00 UTC: low quality"]
    );
    assert_eq!(restricted("NEW_KIND", Value::Null), ["NEW_KIND: low quality"]);
}

#[test]
fn what_has_no_settings_is_none() {
    for body in ["", "[]", "{}", r#"{"calling":[]}"#, r#"{"error":{"code":190}}"#] {
        assert_eq!(Settings::parse(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn only_what_is_to_change_is_written() {
    assert_eq!(SettingsChange::default().to_json(), json!({"calling": {}}));
    assert!(SettingsChange::default().is_empty());
    let change = SettingsChange {
        enabled: Some(true),
        icons: Some(false),
        icon_countries: Some(vec![String::from("DE")]),
        callback_permission: Some(false),
        sip: Some(false),
        dtls: Some(true),
        hours: None,
    };
    assert!(!change.is_empty());
    assert_eq!(
        change.to_json(),
        json!({"calling": {
            "status": "ENABLED",
            "call_icon_visibility": "DISABLE_ALL",
            "call_icons": {"restrict_to_user_countries": ["DE"]},
            "callback_permission_status": "DISABLED",
            "sip": {"status": "DISABLED"},
            "srtp_key_exchange_protocol": "DTLS",
        }})
    );
    let cleared = SettingsChange { icon_countries: Some(Vec::new()), ..SettingsChange::default() };
    assert_eq!(cleared.to_json(), json!({"calling": {"call_icons": {"restrict_to_user_countries": []}}}));
}

#[test]
fn call_hours_come_back_as_they_were_with_their_holidays() {
    let hours = Settings::parse(FULL.as_bytes()).unwrap().hours;
    let change = SettingsChange { hours: hours.clone(), ..SettingsChange::default() };
    let full: Value = serde_json::from_str(FULL).unwrap();
    assert_eq!(change.to_json()["calling"]["call_hours"], full["calling"]["call_hours"]);
    assert_eq!(settings(change.to_json()["calling"].clone()).hours, hours);
}

#[test]
fn a_change_by_whomever_is_told_with_what_it_breaks() {
    let notice = told(json!({
        "messaging_product": "whatsapp", "timestamp": "1780315200", "type": "phone_number_settings",
        "phone_number_settings": {"phone_number_id": "106540352242922", "calling": {
            "status": "ENABLED", "sip": {"status": "ENABLED"}}},
    }))
    .unwrap();
    assert_eq!((notice.phone_number_id.as_str(), notice.timestamp), ("106540352242922", Some(1_780_315_200)));
    let said = notice.change.to_string();
    assert!(said.starts_with("the number's calling settings have changed; ") && said.contains("SIP mode"));
}

#[test]
fn a_warning_and_a_restriction_of_the_account_are_told() {
    let warned = told(json!({"event": "ACCOUNT_VIOLATION",
        "violation_info": {"violation_type": "USER_INITIATED_CALLS_LOW_PICKUP_RATE"}}))
    .unwrap();
    assert_eq!(warned.phone_number_id, "");
    assert!(warned.change.to_string().contains("too few calls of users are picked up"));
    let restricted = told(json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": [
        {"restriction_type": "RESTRICTED_BUSINESS_INITIATED_CALLING", "expiration": 1_780_315_200},
        {"restriction_type": "RESTRICTED_ADD_PHONE_NUMBER_ACTION", "expiration": 1}]}))
    .unwrap();
    assert_eq!(restricted.change.to_string(), "Meta has paused calls to users until 2026-06-01 12:00 UTC");
}

#[test]
fn account_updates_that_are_not_about_calls_are_passed_over() {
    for value in [
        json!({"event": "VERIFIED_ACCOUNT"}),
        json!({"event": "ACCOUNT_VIOLATION", "violation_info": {"violation_type": "ADULT"}}),
        json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": [{"restriction_type": "RESTRICTED_ADD_PHONE_NUMBER_ACTION"}]}),
        json!({"type": "phone_number_settings", "phone_number_settings": {"phone_number_id": "1"}}),
        json!({}),
        json!("x"),
    ] {
        assert_eq!(told(value.clone()), None, "{value}");
    }
}

#[test]
fn the_apps_of_an_account_are_listed() {
    let body = br#"{"data":[{"whatsapp_business_api_data":{"link":"https://x","name":"Trunk","id":"670843887433847"}}]}"#;
    let wanted = SubscribedApp { id: String::from("670843887433847"), name: Some(String::from("Trunk")) };
    assert_eq!(subscribed_apps(body), Some(vec![wanted]));
    assert_eq!(subscribed_apps(br#"{"data":[]}"#), Some(Vec::new()), "no webhook arrives anywhere");
    assert_eq!(subscribed_apps(br#"{"success":true}"#), None);
}

/// JSON of any shape, with the names that are looked for.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
        Just(json!("ENABLED")),
        Just(json!("ACCOUNT_RESTRICTION")),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let name = prop::sample::select(vec![
            "calling",
            "sip",
            "servers",
            "hostname",
            "call_hours",
            "weekly_operating_hours",
            "restrictions",
            "restrictions_list",
            "type",
            "expiration",
            "event",
            "restriction_info",
            "restriction_type",
            "phone_number_settings",
            "status",
            "call_icons",
            "restrict_to_user_countries",
            "data",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6).prop_map(|map| {
                Value::Object(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_shape_makes_it_panic(value in any_json()) {
        let body = value.to_string();
        if let Some(settings) = Settings::parse(body.as_bytes()) {
            let _ = settings.faults().iter().map(ToString::to_string).collect::<Vec<_>>();
        }
        let _ = subscribed_apps(body.as_bytes());
        if let Ok(Notice::Settings(notice)) = notice(&value) {
            let _ = notice.change.to_string();
        }
    }
}
