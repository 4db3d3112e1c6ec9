//! Keys, roles, limits, the envelope, the headers.

use axum::body::Body;
use serde_json::json;

use super::fake::{ADMIN, FILE, House, OPERATOR, READER, request};
use crate::control::Source;
use crate::control::limit::FAILURES;
use crate::control::operations::{self, Credentials};
use crate::gateway::desk::{Answer, Refusal, StatusView};

fn status() -> Answer {
    let view = StatusView {
        calls: 0,
        max_calls: 50,
        ready: true,
        draining: false,
        trunks: Vec::new(),
        sip: Default::default(),
    };
    Answer::Status(view)
}

#[tokio::test]
async fn every_operation_but_the_description_and_links_needs_a_key() {
    let house = House::new();
    let keyless = [Credentials::None, Credentials::Link];
    for row in operations::ALL.iter().filter(|row| !keyless.contains(&row.credentials)) {
        for prefix in ["", "/api"] {
            let method = row.verb.as_str().to_ascii_uppercase();
            let path = format!("{prefix}{}", row.path.replace(['{', '}'], ""));
            let got = house.ask("", &method, &path, None).await;
            assert_eq!(got.status, 401, "{path}");
            if row.credentials == Credentials::Bearer {
                assert_eq!(got.json()["error"], "Unauthorized");
                assert_eq!(got.header("www-authenticate"), "Bearer");
            }
        }
    }
    assert!(house.fake.commands().is_empty());
    assert_eq!(house.ask("", "GET", "/openapi.json", None).await.status, 200);
    assert_eq!(house.ask("", "GET", "/api/openapi.json", None).await.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_key_that_is_almost_right_is_wrong() {
    let house = House::new();
    for key in ["sk_admin_0123456789abcde", "sk_admin_0123456789abcdef0", "SK_ADMIN_0123456789ABCDEF", "x"] {
        assert_eq!(house.ask(key, "GET", "/v1/status", None).await.status, 401, "{key}");
    }
}

#[tokio::test]
async fn a_reader_looks_an_operator_calls_an_admin_changes() {
    let house = House::new();
    let forbidden = (403, "insufficient_permissions".to_owned(), String::new());
    let call = json!({});
    assert_eq!(house.ask(READER, "POST", "/v1/whatsapp/calls", Some(call.clone())).await.fault(), forbidden);
    assert_eq!(house.ask(OPERATOR, "POST", "/v1/whatsapp/calls", Some(call)).await.status, 400);
    let path = "/v1/phone-numbers/support/whatsapp/calling";
    for key in [READER, OPERATOR] {
        let got = house.ask(key, "PATCH", path, Some(json!({"accountId": "acme"}))).await;
        assert_eq!(got.fault(), forbidden);
        assert_eq!(got.json()["type"], "permission_error");
        let got = house.ask(key, "DELETE", "/v1/webhooks/settings?id=crm", None).await;
        assert_eq!(got.fault(), forbidden);
    }
    assert_eq!(house.ask(ADMIN, "PATCH", path, Some(json!({"accountId": "acme"}))).await.status, 200);
}

#[tokio::test]
async fn every_answer_has_an_id_and_a_valid_one_of_the_client_is_taken_over() {
    let house = House::new();
    let with = |id: &str| request(READER, "GET", "/v1/phone-numbers").header("x-request-id", id);
    let got = house.send(with("7f0e1c9a-lab").body(Body::empty()).unwrap()).await;
    assert_eq!(got.header("x-request-id"), "7f0e1c9a-lab");
    for bad in ["has blanks", "<script>", &"x".repeat(200)] {
        let got = house.send(with(bad).body(Body::empty()).unwrap()).await;
        assert!(got.header("x-request-id").starts_with("00000000-0000-4000-8000-"), "{bad}");
    }
    for (method, path) in [("GET", "/nowhere"), ("DELETE", "/v1/calls"), ("GET", "/v1/status")] {
        let got = house.ask("", method, path, None).await;
        assert!(!got.header("x-request-id").is_empty(), "{path}");
        assert!(!got.header("x-ratelimit-limit").is_empty(), "{path}");
    }
}

#[tokio::test]
async fn what_is_left_of_the_rate_is_told_and_too_much_is_held_back_until_the_window_has_slid() {
    let house = House::with(&FILE.replace("rate_per_minute = 100", "rate_per_minute = 3"));
    for left in ["2", "1", "0"] {
        house.fake.says(Ok(status()));
        let got = house.get("/v1/status").await;
        assert_eq!((got.status.as_u16(), got.header("x-ratelimit-remaining")), (200, left));
        assert_eq!(got.header("x-ratelimit-limit"), "3");
        house.fake.after(10);
    }
    let got = house.get("/v1/status").await;
    assert_eq!(got.fault().1, "rate_limit_exceeded");
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "30"));
    assert_eq!(got.header("x-ratelimit-reset"), "1795341660");
    assert_eq!(house.ask(ADMIN, "GET", "/v1/phone-numbers", None).await.status, 200, "each key has its own");
    house.fake.after(30);
    house.fake.says(Ok(status()));
    assert_eq!(house.get("/v1/status").await.status, 200);
}

#[tokio::test]
async fn an_address_that_tries_keys_is_shut_out_and_the_others_are_not() {
    let house = House::new();
    let from = |ip: &str, key: &str, forwarded: &str| {
        let mut request = request(key, "GET", "/v1/phone-numbers");
        if !forwarded.is_empty() {
            request = request.header("x-forwarded-for", forwarded);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Source(ip.parse().unwrap()));
        request
    };
    for _ in 0..FAILURES {
        assert_eq!(house.send(from("203.0.113.5", "sk_guess", "")).await.status, 401);
    }
    let got = house.send(from("203.0.113.5", ADMIN, "")).await;
    assert_eq!(got.status, 429, "even with the right key, for a minute");
    assert!(!got.header("retry-after").is_empty());
    assert_eq!(house.send(from("203.0.113.6", ADMIN, "")).await.status, 200);
    assert_eq!(house.send(from("127.0.0.1", ADMIN, "198.51.100.1, 203.0.113.5")).await.status, 429);
    assert_eq!(
        house.send(from("203.0.113.6", ADMIN, "203.0.113.5")).await.status,
        200,
        "only a proxy on this machine is believed"
    );
    for _ in 0..=FAILURES {
        house.send(from("127.0.0.1", "sk_guess", "")).await;
    }
    assert_eq!(
        house.send(from("127.0.0.1", ADMIN, "")).await.status,
        200,
        "a proxy that does not say for whom it asks does not shut everybody out"
    );
    for _ in 0..=FAILURES {
        assert_eq!(house.send(from("203.0.113.7", "", "")).await.status, 401);
    }
    assert_eq!(house.send(from("203.0.113.7", ADMIN, "")).await.status, 200, "no key is no guess");
    house.fake.after(61);
    assert_eq!(house.send(from("203.0.113.5", ADMIN, "")).await.status, 200);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_get_the_envelope_too() {
    let house = House::new();
    for path in ["/v1/nothing/here", "/", "/v2/calls", "/v1/calls/", "/api", "/%ff%fe"] {
        let got = house.get(path).await;
        assert_eq!(got.fault(), (404, "not_found".to_owned(), String::new()), "{path}");
    }
    let got = house.ask(ADMIN, "DELETE", "/v1/calls", None).await;
    assert_eq!(got.fault().1, "method_not_allowed");
    assert_eq!((got.status.as_u16(), got.header("allow")), (405, "GET,HEAD"));
    let got = house.ask("", "TRACE", "/v1/whatsapp/calls/estimate", None).await;
    assert_eq!(got.status, 405);
}

#[tokio::test]
async fn bodies_that_are_too_large_not_json_or_of_another_kind_are_refused() {
    let house = House::new();
    let send = |kind: &'static str, body: Vec<u8>| {
        let request = request(ADMIN, "POST", "/v1/whatsapp/calls").header("content-type", kind);
        house.send(request.body(Body::from(body)).unwrap())
    };
    let mut large = vec![b' '; 70_000];
    large[0] = b'{';
    assert_eq!(send("application/json", large.clone()).await.status, 413);
    // One that doesn't say how long it is.
    let chunks = large.chunks(1_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>();
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    let request = request(ADMIN, "POST", "/v1/whatsapp/calls").header("content-type", "application/json");
    assert_eq!(house.send(request.body(body).unwrap()).await.fault().1, "payload_too_large");
    for body in [&b"{"[..], b"[]", b"\xff", b"7", b"{\"a\":1}x"] {
        let got = send("application/json", body.to_vec()).await;
        assert_eq!(got.fault().1, "invalid_json");
    }
    let got = send("application/json", b"{\"accountId\": acme}".to_vec()).await;
    assert_eq!(got.json()["details"], json!({"line": 1, "column": 15}));
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        assert_eq!(send(kind, b"{}".to_vec()).await.status, 415, "{kind}");
    }
    assert_eq!(send("application/json; charset=utf-8", b"{}".to_vec()).await.status, 400);
}

#[tokio::test]
async fn queries_that_can_not_be_read_are_refused() {
    let house = House::new();
    for query in
        ["limit=%zz", "limit=%ff", "limit=1&limit=1", "limit=", "limit=1.5", "limit=-1", "channel=smoke"]
    {
        let got = house.get(&format!("/v1/calls?{query}")).await;
        assert_eq!(got.status, 400, "{query}");
    }
    let many = (0..100).map(|n| format!("a{n}=1")).collect::<Vec<_>>().join("&");
    assert_eq!(house.get(&format!("/v1/calls?{many}")).await.status, 400);
    assert_eq!(house.get("/v1/calls?unknown=1&limit=3").await.status, 200, "what nobody asks for is ignored");
}

#[tokio::test]
async fn a_history_that_can_not_be_read_is_said_and_the_rest_goes_on() {
    let house = House::new();
    *house.fake.broken.lock().unwrap() = true;
    let got = house.get("/v1/calls").await;
    assert_eq!(got.fault().1, "history_unavailable");
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, "5"));
    house.fake.says(Ok(status()));
    assert_eq!(house.get("/v1/status").await.status, 200);
}

#[tokio::test]
async fn a_screen_is_told_of_what_happens_as_it_happens() {
    use crate::control::Live;
    use http_body_util::BodyExt as _;
    let house = House::new();
    let live = |id: &str| Live {
        id: id.to_owned(),
        event: "call.ended".to_owned(),
        data: "{\"a\":\"b\"}\r\nid: forged".to_owned(),
    };
    *house.fake.lives.lock().unwrap() = vec![live("evt_1"), live("evt_2\nx")];
    let request = request(READER, "GET", "/v1/events").body(Body::empty()).unwrap();
    let response = house.open(request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(response.headers().contains_key("x-request-id"));
    let mut body = response.into_body();
    let mut text = String::new();
    while !text.contains("evt_2") {
        text.push_str(
            std::str::from_utf8(&body.frame().await.unwrap().unwrap().into_data().unwrap()).unwrap(),
        );
    }
    assert!(text.starts_with(':'), "the stream begins at once: {text}");
    let wanted = "id: evt_1\nevent: call.ended\ndata: {\"a\":\"b\"}  id: forged\n\n";
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("id: evt_2x\n"), "{text}");
}

#[tokio::test]
async fn only_so_many_screens_listen_and_one_that_leaves_makes_room() {
    use crate::control::stream::SCREENS;
    let house = House::new();
    let open = || house.open(request(READER, "GET", "/v1/events").body(Body::empty()).unwrap());
    let mut screens = Vec::new();
    for _ in 0..SCREENS {
        screens.push(open().await);
    }
    assert_eq!(open().await.status(), 429);
    screens.pop();
    assert_eq!(open().await.status(), 200);
}

#[tokio::test]
async fn status_and_trunks_are_the_halls_own_words() {
    use crate::clock::Wall;
    use crate::sip::{TrunkState, TrunkView};
    use std::time::Duration;
    let house = House::new();
    let trunk = |name: &str, state: TrunkState| TrunkView {
        name: name.to_owned(),
        state,
        code: Some(200),
        round_trip: Some(Duration::from_millis(7)),
        since: Wall(0),
        peer: Some(crate::sip::Way::udp("192.168.1.10:5060".parse().unwrap())),
        places: Vec::new(),
        failures: 0,
        public: None,
    };
    let down = TrunkState::Failed { code: Some(403), why: "wrong password".to_owned() };
    let trunks =
        vec![trunk("pbx", TrunkState::Registered { expires: Duration::from_secs(300) }), trunk("old", down)];
    house.fake.says(Ok(Answer::Trunks(trunks.clone())));
    let got = house.get("/v1/trunks").await.json();
    assert_eq!(got["trunks"][0]["state"], "registered");
    assert_eq!(
        (&got["trunks"][1]["up"], &got["trunks"][1]["why"]),
        (&json!(false), &json!("wrong password"))
    );
    let view =
        StatusView { calls: 3, max_calls: 50, ready: true, draining: false, trunks, sip: Default::default() };
    house.fake.says(Ok(Answer::Status(view)));
    let got = house.get("/api/v1/status").await.json();
    assert_eq!((&got["calls"], &got["name"]), (&json!(3), &json!("box")));
    house.fake.says(Err(Refusal::Draining));
    let got = house.get("/v1/status").await;
    assert_eq!((got.fault().1.as_str(), got.header("retry-after")), ("shutting_down", "30"));
    house.fake.says(Ok(Answer::Changed));
    // What can't be: the answer to another question. It is said, and nothing breaks.
    let request = request(READER, "GET", "/v1/status").body(Body::empty()).unwrap();
    assert_eq!(house.open(request).await.status(), 500);
}
