//! Permissions as Graph tells them, their limits, and the brief memory of them.

use proptest::prelude::*;

use super::*;

/// Graph's answer with a call limit that is reached.
const LIMITED: &str = r#"{"messaging_product":"whatsapp",
 "permission":{"status":"temporary","expiration_time":1745343479},
 "actions":[
  {"action_name":"send_call_permission_request","can_perform_action":true,
   "limits":[{"time_period":"PT24H","max_allowed":1,"current_usage":0},{"time_period":"P7D","max_allowed":2,"current_usage":1}]},
  {"action_name":"start_call","can_perform_action":false,
   "limits":[{"time_period":"PT24H","max_allowed":5,"current_usage":5,"limit_expiration_time":1745622600}]}]}"#;

fn permission(status: &str, call: Option<bool>, request: Option<bool>) -> Permission {
    let named = [("start_call", call), ("send_call_permission_request", request)];
    let actions: Vec<Value> = named
        .into_iter()
        .filter_map(|(name, can)| Some(json!({ "action_name": name, "can_perform_action": can? })))
        .collect();
    let body = json!({ "permission": { "status": status }, "actions": actions });
    Permission::parse(body.to_string().as_bytes()).unwrap()
}

fn user(phone: Option<&str>, bsuid: Option<&str>) -> User {
    User { phone: phone.map(str::to_owned), bsuid: bsuid.map(str::to_owned), ..User::default() }
}

fn callee(text: &str) -> Callee {
    Callee::parse(text).unwrap()
}

#[test]
fn graphs_answer_is_read_and_written_again_word_for_word() {
    let permission = Permission::parse(LIMITED.as_bytes()).unwrap();
    assert_eq!(permission.status, PermissionStatus::Temporary);
    assert_eq!(permission.expires_at, Some(1_745_343_479));
    let mut wanted: Value = serde_json::from_str(LIMITED).unwrap();
    wanted.as_object_mut().unwrap().remove("messaging_product");
    assert_eq!(permission.to_json(), wanted);
}

#[test]
fn a_permission_without_limits_is_written_without_them() {
    let body = json!({
        "permission": { "status": "permanent" },
        "actions": [{ "action_name": "start_call", "can_perform_action": true }],
    });
    assert_eq!(Permission::parse(body.to_string().as_bytes()).unwrap().to_json(), body);
}

#[test]
fn the_end_of_a_permission_is_found_under_both_names_and_as_text() {
    for end in [r#""expiration_time":"1745343479""#, r#""expiration":1745343479"#] {
        let body = format!(r#"{{"permission":{{"status":"TEMPORARY",{end}}}}}"#);
        let permission = Permission::parse(body.as_bytes()).unwrap();
        assert_eq!(permission.expires_at, Some(1_745_343_479), "{body}");
        assert_eq!(permission.status, PermissionStatus::Temporary);
    }
}

#[test]
fn what_may_be_done_is_metas_word_and_not_the_status() {
    for status in ["no_permission", "temporary", "permanent", "on_probation"] {
        assert_eq!(permission(status, Some(true), Some(true)).may_call(), Ok(()), "{status}");
        assert_eq!(permission(status, Some(true), Some(true)).may_request(), Ok(()));
    }
    assert_eq!(permission("no_permission", Some(false), None).may_call(), Err(Denied::NoPermission));
    assert_eq!(permission("permanent", Some(false), None).may_call(), Err(Denied::Unavailable));
    assert_eq!(permission("permanent", None, Some(false)).may_request(), Err(Denied::Unavailable));
}

#[test]
fn where_meta_names_no_action_the_status_decides_and_graph_has_the_last_word() {
    assert_eq!(permission("no_permission", None, None).may_call(), Err(Denied::NoPermission));
    for status in ["temporary", "permanent", "on_probation"] {
        assert_eq!(permission(status, None, None).may_call(), Ok(()), "{status}");
    }
    assert_eq!(permission("no_permission", None, None).may_request(), Ok(()));
}

#[test]
fn a_reached_limit_says_how_often_and_until_when() {
    let denied = Permission::parse(LIMITED.as_bytes()).unwrap().may_call().unwrap_err();
    assert_eq!(
        denied,
        Denied::LimitReached { period: String::from("PT24H"), max: Some(5), until: Some(1_745_622_600) }
    );
    assert_eq!(denied.to_string(), "the limit of 5 in 24 hours is reached, again from 2025-04-25 23:10 UTC");
}

#[test]
fn of_several_limits_the_one_that_lasts_longest_counts() {
    let body = r#"{"permission":{"status":"no_permission"},"actions":[
        {"action_name":"send_call_permission_request","can_perform_action":false,"limits":[
         {"time_period":"PT24H","max_allowed":1,"current_usage":1,"limit_expiration_time":100},
         {"time_period":"P7D","max_allowed":2,"current_usage":2,"limit_expiration_time":200},
         {"time_period":"P30D","max_allowed":9,"current_usage":2}]}]}"#;
    let denied = Permission::parse(body.as_bytes()).unwrap().may_request().unwrap_err();
    assert_eq!(denied, Denied::LimitReached { period: String::from("P7D"), max: Some(2), until: Some(200) });
    assert!(denied.to_string().starts_with("the limit of 2 in 7 days is reached, again from 1970-01-01"));
}

#[test]
fn a_limit_without_its_end_is_still_a_limit() {
    let body = r#"{"permission":{"status":"temporary"},"actions":[{"action_name":"start_call",
        "can_perform_action":"false","limits":[{"time_period":"P1M","max_allowed":"3","current_usage":"3"}]}]}"#;
    let denied = Permission::parse(body.as_bytes()).unwrap().may_call().unwrap_err();
    assert_eq!(denied.to_string(), "the limit of 3 in P1M is reached");
}

#[test]
fn what_is_no_permission_is_not_taken_for_one() {
    for body in
        ["", "[]", "{}", r#"{"permission":{}}"#, r#"{"permission":"yes"}"#, r#"{"error":{"code":613}}"#]
    {
        assert_eq!(Permission::parse(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn graph_is_asked_once_in_ten_seconds() {
    let mut permits = Permits::new();
    let now = Now::default();
    let granted = permission("temporary", Some(true), None);
    permits.put("1", callee("+4915112345678"), granted.clone(), now);
    let at = |seconds| now.after(Duration::from_secs(seconds));
    assert_eq!(permits.get("1", &callee("+4915112345678"), at(9)), Some(&granted));
    assert_eq!(permits.get("1", &callee("+4915112345678"), at(10)), None, "it may have changed since");
    assert_eq!(permits.get("2", &callee("+4915112345678"), now), None, "another number of ours");
    assert_eq!(permits.get("1", &callee("+4915112345679"), now), None, "another user");
}

#[test]
fn a_reply_or_a_call_of_the_user_makes_the_memory_worthless() {
    let mut permits = Permits::new();
    let now = Now::default();
    let names = ["4915112345678", "DE.99", "DE.ENT.98"];
    let known = |permits: &Permits| {
        names.iter().filter(|name| permits.get("1", &callee(name), now).is_some()).count()
    };
    for name in names {
        permits.put("1", callee(name), permission("temporary", Some(true), None), now);
    }
    permits.forget("2", &user(Some("4915112345678"), Some("DE.99")));
    assert_eq!(known(&permits), 3);
    permits.forget("1", &user(Some("4915112345678"), Some("DE.99")));
    assert_eq!(known(&permits), 1);
    let parent = User { parent_bsuid: Some(String::from("DE.ENT.98")), ..User::default() };
    permits.forget("1", &parent);
    assert_eq!(known(&permits), 0);
    permits.put("1", callee("DE.99"), permission("temporary", Some(true), None), now);
    permits.forget_callee("1", callee("DE.99"));
    assert!(permits.is_empty());
}

#[test]
fn the_memory_is_bounded_and_the_oldest_goes_first() {
    let mut permits = Permits::with_capacity(3);
    let granted = || permission("permanent", None, None);
    let at = |millis| Now::default().after(Duration::from_millis(millis));
    for (index, name) in ["4915112345670", "4915112345671", "4915112345672"].into_iter().enumerate() {
        permits.put("1", callee(name), granted(), at(index as u64));
    }
    permits.put("1", callee("4915112345670"), granted(), at(10));
    assert_eq!(permits.len(), 3, "the same user takes no more room");
    permits.put("1", callee("4915112345673"), granted(), at(11));
    assert_eq!(permits.len(), 3);
    assert!(permits.get("1", &callee("4915112345671"), at(12)).is_none());
    assert!(permits.get("1", &callee("4915112345670"), at(12)).is_some());
    permits.put("1", callee("4915112345674"), granted(), at(30_000));
    assert_eq!(permits.len(), 1, "what is not believed any more makes room first");
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..300), status in ".{0,20}", can in any::<bool>()) {
        let _ = Permission::parse(&body);
        let body = json!({
            "permission": { "status": status, "expiration_time": i64::MAX },
            "actions": [{ "action_name": "start_call", "can_perform_action": can, "limits": [
                { "time_period": status, "max_allowed": -1, "current_usage": 0, "limit_expiration_time": i64::MIN }] }],
        });
        if let Some(permission) = Permission::parse(body.to_string().as_bytes()) {
            let _ = permission.may_call().map_err(|denied| denied.to_string());
            prop_assert_eq!(Permission::parse(permission.to_json().to_string().as_bytes()), Some(permission));
        }
    }
}
