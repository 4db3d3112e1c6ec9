//! The stand-in for Meta's cloud: the Graph API for calls either way, and the sender of signed webhooks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hmac::{Hmac, Mac};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use super::ladder::{Ladder, Lane};
use super::{Event, Events, Fault, tell};
use crate::call::leg::Direction;
use crate::io::clock;

/// The business' number, and the user who calls it or is called.
pub(super) const PHONE_NUMBER_ID: &str = "106540352242922";
pub(super) const BUSINESS: &str = "15550100100";
pub(super) const CALLER: &str = "15557654321";
pub(super) const CALLER_NAME: &str = "Ada Example";
/// What the deep link carried.
pub(super) const PAYLOAD: &str = "order-4711";

/// The secrets that both sides know.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    /// Signs the webhooks.
    pub app_secret: String,
    /// Opens the Graph API.
    pub access_token: String,
}

/// What Meta knows of the call.
#[derive(Debug, Default)]
struct Call {
    offered: bool,
    answer: Option<String>,
    /// What the business wants to be told again with every webhook.
    echo: Option<String>,
    /// When the call was answered, in seconds since the Unix epoch.
    accepted: Option<i64>,
    over: bool,
}

struct Shared {
    secrets: Secrets,
    wacid: String,
    direction: Direction,
    call: Mutex<Call>,
    ladder: Ladder,
    events: Events,
}

impl Shared {
    fn call(&self) -> MutexGuard<'_, Call> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running stand-in.
pub(super) struct Cloud {
    shared: Arc<Shared>,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Cloud {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(
        secrets: Secrets,
        wacid: String,
        direction: Direction,
        ladder: Ladder,
        events: Events,
    ) -> Result<Cloud, String> {
        let shared = Arc::new(Shared { secrets, wacid, direction, call: Mutex::default(), ladder, events });
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let router = Router::new()
            .route("/v25.0/{number}/calls", post(calls))
            .route("/v25.0/{number}/call_permissions", get(permissions))
            .route("/v25.0/{number}/settings", get(settings))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Cloud { shared, address, client, server })
    }

    /// The base of the Graph API.
    pub fn graph_url(&self) -> String {
        format!("http://{}/v25.0", self.address)
    }

    /// Whether the gateway says that it can take calls.
    pub async fn gateway_ready(&self, gateway: SocketAddr) -> bool {
        let Ok(uri) = format!("http://{gateway}/readyz").parse() else { return false };
        self.client.get(uri).await.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    /// The connect webhook: the user's phone rings the business and offers, or the relay is ready for the
    /// business' call and answers.
    pub async fn connect(&self, gateway: SocketAddr, sdp: &str, label: &str) -> Result<(), Fault> {
        let mut element = self.element("connect");
        match self.shared.direction {
            Direction::Inbound => {
                self.shared.call().offered = true;
                element["session"] = json!({ "sdp_type": "offer", "sdp": sdp });
                element["deeplink_payload"] = json!(PAYLOAD);
            }
            Direction::Outbound => element["session"] = json!({ "sdp_type": "answer", "sdp": sdp }),
        }
        self.notify(gateway, "calls", element, label).await
    }

    /// What the user's phone does with the business' call: `RINGING`, `ACCEPTED`.
    pub async fn status(&self, gateway: SocketAddr, status: &str) -> Result<(), Fault> {
        if status == "ACCEPTED" {
            self.shared.call().accepted = Some(now());
        }
        let mut element = json!({
            "id": self.shared.wacid, "type": "call", "status": status, "timestamp": now().to_string(),
            "recipient_id": CALLER,
        });
        self.echo(&mut element);
        self.notify(gateway, "statuses", element, &format!("webhook {status}")).await
    }

    /// The call is over: the terminate webhook.
    pub async fn terminated(&self, gateway: SocketAddr) -> Result<(), Fault> {
        let mut element = self.element("terminate");
        element["status"] = json!("COMPLETED");
        if let Some(accepted) = self.shared.call().accepted {
            element["start_time"] = json!(accepted.to_string());
            element["end_time"] = json!(now().to_string());
            element["duration"] = json!(now() - accepted);
        }
        self.notify(gateway, "calls", element, "webhook terminate").await
    }

    /// What every element of `calls` has.
    fn element(&self, event: &str) -> Value {
        let (direction, from, to) = match self.shared.direction {
            Direction::Inbound => ("USER_INITIATED", CALLER, BUSINESS),
            Direction::Outbound => ("BUSINESS_INITIATED", BUSINESS, CALLER),
        };
        let mut element = json!({
            "id": self.shared.wacid, "event": event, "direction": direction,
            "from": from, "to": to, "timestamp": now().to_string(),
        });
        self.echo(&mut element);
        element
    }

    fn echo(&self, element: &mut Value) {
        if let Some(echo) = &self.shared.call().echo {
            element["biz_opaque_callback_data"] = json!(echo);
        }
    }

    async fn notify(
        &self,
        gateway: SocketAddr,
        list: &str,
        element: Value,
        label: &str,
    ) -> Result<(), Fault> {
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{ "id": "102290129340398", "changes": [{ "field": "calls", "value": {
                "messaging_product": "whatsapp",
                "metadata": { "display_phone_number": BUSINESS, "phone_number_id": PHONE_NUMBER_ID },
                "contacts": [{ "wa_id": CALLER, "profile": { "name": CALLER_NAME } }],
                list: [element],
            }}]}],
        })
        .to_string();
        let said = |error: String| format!("{label}: {error}");
        let mut hmac = Hmac::<Sha256>::new_from_slice(self.shared.secrets.app_secret.as_bytes())
            .map_err(|error| said(error.to_string()))?;
        hmac.update(body.as_bytes());
        let request = hyper::Request::post(format!("http://{gateway}/webhooks/whatsapp"))
            .header("content-type", "application/json")
            .header("x-hub-signature-256", format!("sha256={}", hex(&hmac.finalize().into_bytes())))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| said(error.to_string()))?;
        self.shared.ladder.arrow(Lane::Meta, Lane::Watrunk, label);
        let response = self.client.request(request).await.map_err(|error| said(error.to_string()))?;
        match response.status() {
            StatusCode::OK => Ok(()),
            status => Err(said(format!("the gateway answered {status}"))),
        }
    }
}

fn now() -> i64 {
    clock::now().wall.unix_seconds()
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `POST /<phone number id>/calls`
async fn calls(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let action = body["action"].as_str().unwrap_or_default().to_owned();
    let outcome = admit(&shared, &number, &headers).and_then(|()| act(&shared, &action, &body));
    let label = match action.as_str() {
        "pre_accept" | "accept" | "connect" => format!("{action} (SDP)"),
        _ => action.clone(),
    };
    shared.ladder.arrow(Lane::Watrunk, Lane::Meta, &label);
    let outcome = outcome.map(|event| {
        let reply = match &event {
            Event::Dialled(_) => json!({ "calls": [{ "id": shared.wacid }] }),
            _ => json!({ "success": true }),
        };
        (event, reply)
    });
    respond(&shared, &action, outcome)
}

/// `GET /<phone number id>/call_permissions?user_wa_id=<digits>`
async fn permissions(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    shared.ladder.arrow(Lane::Watrunk, Lane::Meta, "call_permissions?");
    let outcome =
        admit(&shared, &number, &headers).and_then(|()| match query.get("user_wa_id").map(String::as_str) {
            Some(CALLER) => Ok((Event::Asked, permission())),
            _ => Err(invalid("unknown user_wa_id")),
        });
    respond(&shared, "permissions", outcome)
}

/// The user has allowed calls for a week, and was not called yet.
fn permission() -> Value {
    let limits = json!([{ "time_period": "PT24H", "max_allowed": 10, "current_usage": 0 }]);
    json!({
        "permission": { "status": "temporary", "expiration_time": now() + 7 * 86_400 },
        "actions": [{ "action_name": "start_call", "can_perform_action": true, "limits": limits }],
    })
}

/// `GET /<phone number id>/settings`: calling is enabled, by webhooks and DTLS.
async fn settings(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<String>,
    headers: HeaderMap,
) -> Response {
    shared.ladder.arrow(Lane::Watrunk, Lane::Meta, "settings?");
    let calling = json!({
        "status": "ENABLED", "call_icon_visibility": "DEFAULT", "srtp_key_exchange_protocol": "DTLS",
        "callback_permission_status": "ENABLED", "sip": { "status": "DISABLED" },
    });
    let outcome = admit(&shared, &number, &headers).map(|()| (Event::Looked, json!({ "calling": calling })));
    respond(&shared, "settings", outcome)
}

/// Whether the request has the token and is about our number.
fn admit(shared: &Shared, number: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let known = bearer.and_then(|value| value.strip_prefix("Bearer ")) == Some(&shared.secrets.access_token);
    match known {
        false => Err(Refusal { status: StatusCode::UNAUTHORIZED, code: 190, what: "invalid access token" }),
        true if number != PHONE_NUMBER_ID => Err(invalid("unknown phone number id")),
        true => Ok(()),
    }
}

/// Graph's answer, and what it means for the demo.
fn respond(shared: &Shared, asked: &str, outcome: Result<(Event, Value), Refusal>) -> Response {
    match outcome {
        Ok((event, mut reply)) => {
            shared.ladder.arrow(Lane::Meta, Lane::Watrunk, &format!("200 to {asked}"));
            tell(&shared.events, event);
            reply["messaging_product"] = json!("whatsapp");
            axum::Json(reply).into_response()
        }
        Err(Refusal { status, code, what }) => {
            shared.ladder.arrow(Lane::Meta, Lane::Watrunk, &format!("{} {what}", status.as_u16()));
            tell(&shared.events, Event::Fault(format!("Meta refused {asked:?}: {what}")));
            let error = json!({
                "message": format!("(#{code}) {what}"), "type": "OAuthException", "code": code,
                "error_data": { "messaging_product": "whatsapp", "details": what }, "fbtrace_id": "demo",
            });
            (status, axum::Json(json!({ "error": error }))).into_response()
        }
    }
}

struct Refusal {
    status: StatusCode,
    code: u32,
    what: &'static str,
}

fn invalid(what: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, code: 100, what }
}

/// What Meta does with an action, as strictly as it says that it is.
fn act(shared: &Shared, action: &str, body: &Value) -> Result<Event, Refusal> {
    if body["messaging_product"] != "whatsapp" {
        return Err(invalid("messaging_product is not whatsapp"));
    }
    let mut call = shared.call();
    if action == "connect" {
        if shared.direction == Direction::Inbound || call.offered {
            return Err(invalid("no call can be placed to this user now"));
        }
        if body["to"] != CALLER {
            return Err(invalid("to is not the user's number in digits"));
        }
        let offer = offer(body)?;
        call.offered = true;
        call.echo = body["biz_opaque_callback_data"].as_str().map(str::to_owned);
        return Ok(Event::Dialled(offer));
    }
    if !call.offered || body["call_id"] != shared.wacid.as_str() {
        return Err(invalid("unknown call_id"));
    }
    if call.over {
        return Err(invalid("the call is over"));
    }
    match action {
        "pre_accept" | "accept" | "reject" if shared.direction == Direction::Outbound => {
            Err(invalid("the business has placed this call itself"))
        }
        "pre_accept" => {
            let answer = answer(body)?;
            if call.answer.is_some() {
                return Err(invalid("pre_accept came twice"));
            }
            call.answer = Some(answer.clone());
            Ok(Event::PreAccepted(answer))
        }
        "accept" => {
            let answer = answer(body)?;
            if call.accepted.is_some() {
                return Err(invalid("accept came twice"));
            }
            if call.answer.as_ref().is_some_and(|before| *before != answer) {
                return Err(invalid("accept's SDP is not pre_accept's"));
            }
            call.accepted = Some(now());
            Ok(Event::Accepted(answer))
        }
        "reject" if call.accepted.is_some() => Err(invalid("the call was accepted, it needs terminate")),
        "reject" | "terminate" => {
            call.over = true;
            Ok(Event::Ended)
        }
        _ => Err(invalid("unknown action")),
    }
}

/// The answer in a request, if Meta would take it.
fn answer(body: &Value) -> Result<String, Refusal> {
    let sdp = session(body, "answer")?;
    let has = |line: &str| sdp.lines().any(|found| found == line);
    match () {
        () if !has("a=setup:active") => Err(invalid("the SDP is not setup:active")),
        () if !has("a=mid:audio") => Err(invalid("the SDP has not the offer's mid")),
        () if !has("a=rtpmap:111 opus/48000/2") => Err(invalid("the SDP has no Opus")),
        () => Ok(sdp.to_owned()),
    }
}

/// The offer in a request, if Meta would take it.
fn offer(body: &Value) -> Result<String, Refusal> {
    let sdp = session(body, "offer")?;
    let any = |begin: &str, end: &str| sdp.lines().any(|line| line.starts_with(begin) && line.ends_with(end));
    match () {
        () if !any("a=setup:", "") => Err(invalid("the SDP has no setup")),
        () if !any("a=mid:", "") => Err(invalid("the SDP has no mid")),
        () if any("a=ice-lite", "") => Err(invalid("the business is ICE-lite, and so is Meta")),
        () if !any("a=rtpmap:", " opus/48000/2") => Err(invalid("the SDP has no Opus")),
        () if !any("a=rtpmap:", " telephone-event/8000") => Err(invalid("the SDP has no telephone-event")),
        () => Ok(sdp.to_owned()),
    }
}

/// The SDP in a request, with what Meta wants of both kinds.
fn session<'a>(body: &'a Value, kind: &str) -> Result<&'a str, Refusal> {
    let sdp = body["session"]["sdp"].as_str().unwrap_or_default();
    let count = |begin: &str| sdp.lines().filter(|line| line.starts_with(begin)).count();
    match () {
        () if body["session"]["sdp_type"] != kind => Err(invalid("sdp_type is not what the action needs")),
        () if !sdp.ends_with("\r\n") => Err(invalid("the SDP's lines don't end with CRLF")),
        () if count("m=") != 1 || count("m=audio ") != 1 => Err(invalid("the SDP has not one audio line")),
        () if count("a=fingerprint:") != 1 || count("a=fingerprint:sha-256 ") != 1 => {
            Err(invalid("the SDP has not one sha-256 fingerprint"))
        }
        () if count("a=ssrc:") != 1 => Err(invalid("the SDP has not one ssrc")),
        () if count("a=rtcp-mux") != 1 => Err(invalid("the SDP has no rtcp-mux")),
        () => Ok(sdp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 126\r\na=fingerprint:sha-256 AA\r\n\
        a=setup:active\r\na=mid:audio\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:1 cname:a\r\n";

    fn shared() -> Shared {
        in_direction(Direction::Inbound)
    }

    fn in_direction(direction: Direction) -> Shared {
        let secrets = Secrets { app_secret: "a".to_owned(), access_token: "b".to_owned() };
        let (events, _) = tokio::sync::mpsc::channel(1);
        let offered = direction == Direction::Inbound;
        let call = Mutex::new(Call { offered, ..Call::default() });
        Shared { secrets, wacid: "wacid.1".to_owned(), direction, call, ladder: Ladder::new(true), events }
    }

    fn request(action: &str, sdp: &str) -> Value {
        json!({ "messaging_product": "whatsapp", "call_id": "wacid.1", "action": action,
            "session": { "sdp_type": "answer", "sdp": sdp } })
    }

    #[test]
    fn an_accept_that_repeats_pre_accept_is_taken() {
        let shared = shared();
        assert!(act(&shared, "pre_accept", &request("pre_accept", ANSWER)).is_ok());
        assert!(act(&shared, "accept", &request("accept", ANSWER)).is_ok());
        assert!(act(&shared, "terminate", &request("terminate", "")).is_ok());
    }

    #[test]
    fn an_accept_with_another_sdp_is_refused_as_meta_does() {
        let shared = shared();
        assert!(act(&shared, "pre_accept", &request("pre_accept", ANSWER)).is_ok());
        let other = ANSWER.replace("SAVPF 111 126", "SAVPF 111");
        let refusal = act(&shared, "accept", &request("accept", &other)).err().unwrap();
        assert_eq!((refusal.code, refusal.what), (100, "accept's SDP is not pre_accept's"));
    }

    #[test]
    fn an_answer_that_meta_would_refuse_is_refused() {
        let wrong = [
            ANSWER.replace("setup:active", "setup:passive"),
            ANSWER.replace("a=setup", "a=fingerprint:sha-512 BB\r\na=setup"),
            ANSWER.replace("m=audio", "m=video 9 X 1\r\nm=audio"),
            ANSWER.replace("mid:audio", "mid:0"),
            ANSWER.replace("\r\n", "\n"),
        ];
        for sdp in wrong {
            assert!(answer(&request("pre_accept", &sdp)).is_err(), "{sdp}");
        }
    }

    fn connect(sdp: &str) -> Value {
        json!({ "messaging_product": "whatsapp", "to": CALLER, "action": "connect",
            "session": { "sdp_type": "offer", "sdp": sdp }, "biz_opaque_callback_data": "mine" })
    }

    fn our_offer() -> String {
        ANSWER
            .replace("setup:active", "setup:actpass")
            .replace("mid:audio", "mid:0")
            .replace("a=ssrc", "a=rtpmap:126 telephone-event/8000\r\na=ssrc")
    }

    #[test]
    fn a_call_to_the_user_is_placed_once_and_ended_but_never_accepted_by_the_business() {
        let shared = in_direction(Direction::Outbound);
        let placed = act(&shared, "connect", &connect(&our_offer())).ok().unwrap();
        assert!(matches!(placed, Event::Dialled(sdp) if sdp == our_offer()));
        assert!(act(&shared, "connect", &connect(&our_offer())).is_err(), "one call at a time");
        for action in ["pre_accept", "accept", "reject"] {
            assert!(act(&shared, action, &request(action, ANSWER)).is_err(), "{action}");
        }
        assert!(act(&shared, "terminate", &request("terminate", "")).is_ok());
        assert!(act(&shared, "terminate", &request("terminate", "")).is_err(), "it is over");
    }

    #[test]
    fn an_offer_that_meta_would_refuse_is_refused() {
        let wrong = [
            our_offer().replace("a=setup:actpass\r\n", ""),
            our_offer().replace("opus/48000/2", "opus/48000"),
            our_offer().replace("telephone-event/8000", "telephone-event/48000"),
            our_offer().replace("a=mid:0\r\n", "a=mid:0\r\na=ice-lite\r\n"),
            our_offer().replace("a=ssrc", "a=ssrc:2 cname:b\r\na=ssrc"),
            our_offer().replace("\r\n", "\n"),
        ];
        for sdp in wrong {
            let shared = in_direction(Direction::Outbound);
            assert!(act(&shared, "connect", &connect(&sdp)).is_err(), "{sdp}");
        }
        let shared = in_direction(Direction::Outbound);
        let mut plus = connect(&our_offer());
        plus["to"] = json!(format!("+{CALLER}"));
        assert!(act(&shared, "connect", &plus).is_err(), "digits, without the plus sign");
        assert!(act(&shared, "connect", &connect(&our_offer())).is_ok());
    }
}
