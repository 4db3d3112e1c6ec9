//! SIP traces: switched on and off, and read in three forms by those who may.

use serde_json::json;

use super::fake::{ADMIN, House, OPERATOR, READER};
use crate::clock::Wall;
use crate::gateway::Traced;
use crate::gateway::desk::{Answer, Command};
use crate::sip::Way;

const PATH: &str = "/v1/calls/call_1/trace";

fn traced() -> Answer {
    let text = "INVITE sip:+4915112345678@192.0.2.10 SIP/2.0\r\nCSeq: 1 INVITE\r\nAuthorization: Digest response=\"s3cret\"\r\n\r\n";
    Answer::Trace(vec![Traced {
        at: Wall(1_800_000_000_000),
        sent: true,
        way: Way::udp("192.0.2.10:5060".parse().unwrap()),
        local: None,
        bytes: text.as_bytes().to_vec(),
    }])
}

#[tokio::test]
async fn tracing_is_switched_by_an_operator_and_anybody_may_see_whether_it_is_on() {
    let house = House::new();
    assert_eq!(house.ask(READER, "PUT", "/v1/trace", Some(json!({ "enabled": true }))).await.status, 403);
    let got = house.ask(OPERATOR, "PUT", "/v1/trace", Some(json!({ "enabled": true, "sound": true }))).await;
    assert_eq!(got.json(), json!({ "enabled": true, "sound": true }));
    assert_eq!(house.fake.commands(), [Command::Tracing { on: Some(true) }]);
    let got = house.ask(OPERATOR, "PUT", "/v1/trace", Some(json!({ "enabled": false, "sound": true }))).await;
    assert_eq!(got.json(), json!({ "enabled": false, "sound": false }), "sound alone is no trace");
    assert_eq!(house.ask(READER, "GET", "/v1/trace", None).await.json()["enabled"], false);
    assert_eq!(house.ask(OPERATOR, "PUT", "/v1/trace", Some(json!({}))).await.fault().2, "enabled");
}

#[tokio::test]
async fn a_trace_is_a_ladder_json_or_a_capture_and_credentials_are_for_admins() {
    let house = House::new();
    house.fake.says(Ok(traced()));
    let got = house.ask(OPERATOR, "GET", PATH, None).await;
    assert!(got.header("content-type").starts_with("text/plain"));
    let ladder = &got.text;
    assert!(
        ladder.contains("── INVITE") && ladder.contains("Digest ***") && !ladder.contains("s3cret"),
        "{ladder}"
    );

    house.fake.says(Ok(traced()));
    let got = house.ask(OPERATOR, "GET", &format!("{PATH}?format=json&mask=all"), None).await.json();
    let message = got["messages"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("INVITE sip:***@192.0.2.10"), "{message}");

    house.fake.says(Ok(traced()));
    let got = house.ask(ADMIN, "GET", &format!("{PATH}?format=pcap&mask=none"), None).await;
    assert_eq!(got.header("content-type"), "application/vnd.tcpdump.pcap");
    assert!(got.text.contains("s3cret"));

    for (key, query, status) in [
        (OPERATOR, "?mask=none", 403),
        (READER, "", 403),
        (OPERATOR, "?format=xml", 400),
        (OPERATOR, "?mask=some", 400),
        (OPERATOR, "", 404),
    ] {
        assert_eq!(house.ask(key, "GET", &format!("{PATH}{query}"), None).await.status, status, "{query}");
    }
}
