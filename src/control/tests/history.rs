//! Lists, one call, estimate, usage.

use serde_json::{Value, json};

use super::fake::{House, START, running};
use crate::call::leg::{Direction, Why};
use crate::clock::Wall;

const HOUR: i64 = 3_600_000;

fn ids(list: &Value) -> Vec<&str> {
    list["calls"].as_array().unwrap().iter().map(|call| call["_id"].as_str().unwrap()).collect()
}

/// Five calls, an hour apart, and one that runs.
fn house() -> House {
    let house = House::new();
    let at = |hours: i64| START.0 - 10 * HOUR + hours * HOUR;
    house.closed("call_1", at(1), Direction::Inbound, Why::UserHungUp, 61.5);
    house.closed("call_2", at(2), Direction::Outbound, Why::FarHungUp, 56.0);
    house.closed("call_3", at(3), Direction::Outbound, Why::UserDeclined, 0.0);
    house.closed("call_4", at(4), Direction::Inbound, Why::MediaFailed, 0.0);
    house.closed("call_5", at(5), Direction::Outbound, Why::UserNoAnswer, 0.0);
    house.fake.ledger(|ledger| ledger.note(&running("call_6", at(6), Direction::Outbound))).unwrap();
    house
}

#[tokio::test]
async fn calls_are_listed_newest_first_page_by_page() {
    let house = house();
    let mut seen = Vec::new();
    let mut path = "/v1/whatsapp/calls?accountId=acme&limit=2".to_owned();
    loop {
        let page = house.get(&path).await.json();
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/v1/whatsapp/calls?accountId=acme&limit=2&before={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["call_6", "call_5", "call_4", "call_3", "call_2", "call_1"]);
}

#[tokio::test]
async fn a_list_is_narrowed_by_status_direction_time_number_and_digits() {
    let house = house();
    for (query, wanted) in [
        ("status=answered", vec![]),
        ("status=ringing", vec!["call_6"]),
        ("status=failed", vec!["call_4"]),
        ("direction=inbound", vec!["call_4", "call_1"]),
        ("since=2026-11-22T04:00:00Z&until=2026-11-22T05:00:00%2B00:00", vec!["call_5", "call_4"]),
        ("until=2020-01-01", vec![]),
    ] {
        let got = house.get(&format!("/v1/whatsapp/calls?accountId=acme&{query}")).await.json();
        assert_eq!(ids(&got), wanted, "{query}");
    }
    for (query, wanted) in [
        ("number=%2B4930550100100&limit=1", vec!["call_6"]),
        ("number=4915112345678&direction=inbound", vec!["call_4", "call_1"]),
        ("number=%2B4930", vec![]),
        ("search=112345&status=failed", vec!["call_4"]),
        ("search=abc", vec![]),
        ("channel=pstn", vec![]),
        ("channel=whatsapp&status=failed", vec!["call_4"]),
    ] {
        let got = house.get(&format!("/v1/calls?{query}")).await.json();
        assert_eq!(ids(&got), wanted, "{query}");
    }
    for (path, status, param) in [
        ("/v1/whatsapp/calls", 400, "accountId"),
        ("/v1/whatsapp/calls?accountId=nobody", 404, "accountId"),
        ("/v1/whatsapp/calls?accountId=acme&limit=0", 400, "limit"),
        ("/v1/whatsapp/calls?accountId=acme&limit=201", 400, "limit"),
        ("/v1/whatsapp/calls?accountId=acme&status=lost", 400, "status"),
        ("/v1/whatsapp/calls?accountId=acme&before=yesterday", 400, "before"),
        ("/v1/calls?direction=sideways", 400, "direction"),
        ("/v1/calls?search=111111111111111111111111111111111", 400, "search"),
    ] {
        let got = house.get(path).await.fault();
        assert_eq!((got.0, got.2.as_str()), (status, param), "{path}");
    }
}

#[tokio::test]
async fn a_row_of_the_account_is_compact_and_tells_the_cost() {
    let house = house();
    let got =
        house.get("/v1/whatsapp/calls?accountId=acme&before=2026-11-22T02:00:00.001Z&limit=1").await.json();
    assert_eq!(
        got["calls"][0],
        json!({
            "_id": "call_2", "direction": "outbound", "from": "+4930550100100", "to": "+4915112345678",
            "status": "ended", "startedAt": "2026-11-22T02:00:00.000Z", "endedAt": "2026-11-22T02:01:00.000Z",
            "durationSeconds": 56, "endReason": "hangup", "recordingUrl": null, "recordingExpiresAt": null,
            // 56 s are 10 pulses of 6 s: a minute at 0.06; 56 s of the carrier at 0.003.
            "billing": {"metaCostUSD": 0.06, "telnyxCostUSD": 0.0028, "recordingCostUSD": 0,
                        "billableCostUSD": 0.0028, "totalCostUSD": 0.0628, "currency": "USD"},
        })
    );
    assert!(got["nextCursor"].is_string());
}

#[tokio::test]
async fn one_call_tells_everything() {
    let house = house();
    for path in ["/v1/calls/call_2", "/v1/whatsapp/calls/call_2?accountId=acme"] {
        let got = house.get(path).await.json()["call"].clone();
        let fields = [
            "accountId",
            "channel",
            "contactName",
            "forwardTo",
            "hangupCause",
            "sipHangupCause",
            "why",
            "placedBy",
        ];
        let values = fields.map(|name| got[name].as_str().unwrap().to_owned());
        assert_eq!(
            values,
            ["acme", "whatsapp", "Ada", "sip:200@pbx", "normal_clearing", "200", "far_hung_up", "api"]
        );
        assert_eq!(got["callErrors"], json!([{"code": 486, "message": "busy"}]));
        assert_eq!(
            (&got["billing"]["metaMinutes"], &got["billing"]["telnyxSeconds"]),
            (&json!(1), &json!(56))
        );
        assert_eq!(
            (&got["answeredAt"], &got["transcript"]),
            (&json!("2026-11-22T02:00:04.000Z"), &json!([]))
        );
    }
    let running = house.get("/v1/calls/call_6").await.json()["call"].clone();
    assert_eq!(
        (&running["status"], &running["endedAt"], &running["billing"]),
        (&json!("ringing"), &json!(null), &json!(null))
    );
    assert_eq!(
        house.get("/v1/calls/wacid.call_6").await.json()["call"]["_id"],
        "call_6",
        "Meta's id, while it runs"
    );
    for path in [
        "/v1/calls/none",
        "/v1/whatsapp/calls/none?accountId=acme",
        "/v1/whatsapp/calls/call_2?accountId=fresh",
        "/v1/calls/call_2/recording",
        "/v1/calls/none/recording?as=json",
        "/v1/whatsapp/calls/call_2/recording?accountId=acme",
    ] {
        assert_eq!(house.get(path).await.fault().1, "not_found", "{path}");
    }
    assert_eq!(house.get("/v1/calls/call_2/recording?as=mp3").await.fault().2, "as");
    assert_eq!(house.get("/v1/whatsapp/calls/call_2").await.fault().2, "accountId");
}

#[tokio::test]
async fn an_estimate_is_what_the_call_will_cost() {
    let house = House::new();
    let got =
        house.get("/v1/whatsapp/calls/estimate?accountId=acme&to=%2B4915112345678&minutes=10").await.json();
    assert_eq!(
        got,
        json!({
            "destinationCountry": "DE", "perMinuteUsd": 0.063,
            "breakdown": {"metaMinutes": 10, "metaCostUSD": 0.6, "telnyxCostUSD": 0.03, "recordingCostUSD": 0,
                          "billableCostUSD": 0.03, "totalCostUSD": 0.63},
        })
    );
    let got = house
        .get("/v1/whatsapp/calls/estimate?accountId=acme&to=%2B551199999999&recording=true")
        .await
        .json();
    assert_eq!((&got["destinationCountry"], &got["breakdown"]["totalCostUSD"]), (&json!("BR"), &json!(0)));
    for (query, param) in [
        ("to=%2B4915112345678", "accountId"),
        ("accountId=acme", "to"),
        ("accountId=acme&to=%2B4915112345678&minutes=121", "minutes"),
        ("accountId=acme&to=%2B4915112345678&minutes=0", "minutes"),
        ("accountId=acme&to=%2B4915112345678&recording=maybe", "recording"),
    ] {
        assert_eq!(house.get(&format!("/v1/whatsapp/calls/estimate?{query}")).await.fault().2, param);
    }
}

#[tokio::test]
async fn usage_is_added_up_over_thirty_days_unless_asked_otherwise() {
    let house = house();
    house.closed("call_0", START.0 - 31 * 24 * HOUR, Direction::Outbound, Why::FarHungUp, 56.0);
    let got = house.get("/v1/usage/calls").await.json();
    assert_eq!(
        (&got["since"], &got["until"]),
        (&json!("2026-10-23T10:00:00.000Z"), &json!("2026-11-22T10:00:00.000Z"))
    );
    let totals = json!({"calls": 6, "answered": 2, "minutes": 1.958, "billableUSD": 0.0059, "metaUSD": 0.06});
    assert_eq!((&got["groupBy"], &got["totals"], &got["groups"]), (&json!(null), &totals, &json!([])));
    let days = house.get("/v1/usage/calls?groupBy=day&since=2026-10-01").await.json();
    let keys: Vec<&str> =
        days["groups"].as_array().unwrap().iter().map(|g| g["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["2026-10-22", "2026-11-22"]);
    assert_eq!(days["totals"]["calls"], 7);
    let numbers = house.get("/v1/usage/calls?groupBy=number&number=%2B4930550100100").await.json();
    assert_eq!(
        (&numbers["groups"][0]["key"], &numbers["groups"][0]["calls"]),
        (&json!("+4930550100100"), &json!(6))
    );
    let channels = house.get("/v1/usage/calls?groupBy=channel").await.json();
    assert_eq!(channels["groups"][0]["key"], "whatsapp");
    assert_eq!(house.get("/v1/usage/calls?channel=pstn").await.json()["totals"]["calls"], 0);
    assert_eq!(house.get("/v1/usage/calls?groupBy=moon").await.fault().2, "groupBy");
    assert_eq!(house.get("/v1/usage/calls?since=moon").await.fault().2, "since");
    let none = house.get("/v1/usage/calls?since=2026-11-22&until=2026-11-21").await.json();
    assert_eq!(none["totals"]["calls"], 0);
}

#[tokio::test]
async fn a_clock_beyond_the_calendar_breaks_no_answer() {
    let house = House::new();
    house.closed("call_1", 9_000_000_000_000_000, Direction::Inbound, Why::UserHungUp, f64::NAN);
    let got = house.get("/v1/calls").await.json();
    assert_eq!(got["calls"][0]["startedAt"], crate::control::stamp::iso(Wall(0)));
}
