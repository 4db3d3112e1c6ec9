//! Whatever is sent: no answer is our own fault.

use axum::body::Body;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::fake::{ADMIN, House, START, request, running};
use crate::call::leg::Direction;
use crate::control::operations::{self, Credentials, Form};

/// Names that some operation reads, so that made-up bodies get further than the first field.
const NAMES: [&str; 24] = [
    "accountId",
    "to",
    "forwardTo",
    "action",
    "bodyText",
    "recordOverride",
    "biz_opaque_callback_data",
    "phoneNumberId",
    "number",
    "sipAuthUsername",
    "sipAuthPassword",
    "recordingEnabled",
    "callIconCountries",
    "maxCallDurationSeconds",
    "forwardCallerId",
    "method",
    "code",
    "_id",
    "name",
    "url",
    "events",
    "isActive",
    "customHeaders",
    "webhookId",
];
/// Values that are right somewhere.
const WORDS: [&str; 12] = [
    "acme",
    "fresh",
    "+4915112345678",
    "sip:200@pbx",
    "wss://a.example",
    "send_call_permission_request",
    "crm",
    "call.ended",
    "https://a.example",
    "DE",
    "\u{0}",
    "\n[[number]]",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        proptest::sample::select(&WORDS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), inner, 0..4).prop_map(
                |map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>().into()
            ),
        ]
    })
}

fn body() -> impl Strategy<Value = Value> {
    let right = prop_oneof![Just("acme"), Just("fresh")];
    (right, proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), value(), 0..8)).prop_map(
        |(account, map)| {
            let mut fields: Map<String, Value> = map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            fields.entry("accountId").or_insert(account.into());
            fields.into()
        },
    )
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future);
}

fn paths(id: &str) -> Vec<(&'static str, String, Form)> {
    operations::ALL
        .iter()
        .filter(|row| row.credentials == Credentials::Bearer && row.path != "/v1/events")
        .map(|row| (row.verb.as_str(), row.path.replace("{id}", id), row.form))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_body_is_answered_with_a_fault_of_ours(body in body(), id in proptest::sample::select(vec!["support", "fresh", "call_1"])) {
        run(async move {
            let house = House::new();
            house.fake.ledger(|ledger| ledger.note(&running("call_1", START.0, Direction::Inbound))).unwrap();
            for (verb, path, form) in paths(id) {
                if form == Form::Json {
                    let got = house.ask(ADMIN, &verb.to_ascii_uppercase(), &path, Some(body.clone())).await;
                    assert!(!got.status.is_server_error(), "{verb} {path} {body}: {}", got.text);
                }
            }
        });
    }

    #[test]
    fn no_query_is_answered_with_a_fault_of_ours(
        pairs in proptest::collection::vec((
            proptest::sample::select(vec!["accountId", "to", "limit", "before", "since", "until", "number", "search",
                                          "minutes", "status", "direction", "groupBy", "skip", "id", "webhookId"]),
            "[ -~]{0,20}",
        ), 0..6),
        known in any::<bool>(),
    ) {
        run(async move {
            let house = House::new();
            let mut query: String = pairs
                .iter()
                .map(|(key, value)| format!("{key}={}&", value.replace([' ', '"', '<', '>', '#', '\\', '^', '`', '{', '|', '}'], "%20")))
                .collect();
            if known {
                query = format!("accountId=acme&{query}");
            }
            for (verb, path, form) in paths("support") {
                if form == Form::None {
                    let uri = format!("{path}?{query}");
                    let request = request(ADMIN, &verb.to_ascii_uppercase(), &uri).body(Body::empty()).unwrap();
                    let got = house.send(request).await;
                    assert!(!got.status.is_server_error(), "{verb} {uri}: {}", got.text);
                }
            }
        });
    }

    #[test]
    fn no_bytes_are_answered_with_a_fault_of_ours(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        run(async move {
            let house = House::new();
            let request = request(ADMIN, "POST", "/v1/whatsapp/calls").header("content-type", "application/json");
            let got = house.send(request.body(Body::from(bytes)).unwrap()).await;
            assert!(got.status.is_client_error());
        });
    }
}
