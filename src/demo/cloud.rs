//! The stand-in for Meta's cloud: the Graph API for calls, and the sender of signed webhooks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
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
use crate::io::clock;

/// The number that is called, and who calls it.
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
    accepted: Option<i64>,
    over: bool,
}

struct Shared {
    secrets: Secrets,
    wacid: String,
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
        ladder: Ladder,
        events: Events,
    ) -> Result<Cloud, String> {
        let shared = Arc::new(Shared { secrets, wacid, call: Mutex::default(), ladder, events });
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let router =
            Router::new().route("/v25.0/{number}/calls", post(calls)).with_state(Arc::clone(&shared));
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

    /// The user's phone rings us: the connect webhook.
    pub async fn connect(&self, gateway: SocketAddr, offer: &str, label: &str) -> Result<(), Fault> {
        self.shared.call().offered = true;
        let calls = json!([{
            "id": self.shared.wacid, "event": "connect", "direction": "USER_INITIATED",
            "from": CALLER, "to": BUSINESS, "timestamp": now().to_string(),
            "session": { "sdp_type": "offer", "sdp": offer }, "deeplink_payload": PAYLOAD,
        }]);
        self.notify(gateway, calls, label).await
    }

    /// The call is over: the terminate webhook.
    pub async fn terminated(&self, gateway: SocketAddr) -> Result<(), Fault> {
        let mut element = json!({
            "id": self.shared.wacid, "event": "terminate", "direction": "USER_INITIATED",
            "from": CALLER, "to": BUSINESS, "timestamp": now().to_string(), "status": "COMPLETED",
        });
        if let Some(accepted) = self.shared.call().accepted {
            element["start_time"] = json!(accepted.to_string());
            element["end_time"] = json!(now().to_string());
            element["duration"] = json!(now() - accepted);
        }
        self.notify(gateway, json!([element]), "webhook terminate").await
    }

    async fn notify(&self, gateway: SocketAddr, calls: Value, label: &str) -> Result<(), Fault> {
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{ "id": "102290129340398", "changes": [{ "field": "calls", "value": {
                "messaging_product": "whatsapp",
                "metadata": { "display_phone_number": BUSINESS, "phone_number_id": PHONE_NUMBER_ID },
                "contacts": [{ "wa_id": CALLER, "profile": { "name": CALLER_NAME } }],
                "calls": calls,
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
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let known = bearer.and_then(|value| value.strip_prefix("Bearer ")) == Some(&shared.secrets.access_token);
    let outcome = match known {
        false => Err(Refusal { status: StatusCode::UNAUTHORIZED, code: 190, what: "invalid access token" }),
        true if number != PHONE_NUMBER_ID => Err(invalid("unknown phone number id")),
        true => act(&shared, &action, &body),
    };
    let label = match action.as_str() {
        "pre_accept" | "accept" => format!("{action} (SDP)"),
        _ => action.clone(),
    };
    shared.ladder.arrow(Lane::Watrunk, Lane::Meta, &label);
    match outcome {
        Ok(event) => {
            shared.ladder.arrow(Lane::Meta, Lane::Watrunk, &format!("200 to {action}"));
            tell(&shared.events, event);
            axum::Json(json!({ "messaging_product": "whatsapp", "success": true })).into_response()
        }
        Err(Refusal { status, code, what }) => {
            shared.ladder.arrow(Lane::Meta, Lane::Watrunk, &format!("{} {what}", status.as_u16()));
            tell(&shared.events, Event::Fault(format!("Meta refused {action:?}: {what}")));
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
    if !call.offered || body["call_id"] != shared.wacid.as_str() {
        return Err(invalid("unknown call_id"));
    }
    if call.over {
        return Err(invalid("the call is over"));
    }
    match action {
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
    if body["session"]["sdp_type"] != "answer" {
        return Err(invalid("sdp_type is not answer"));
    }
    let sdp = body["session"]["sdp"].as_str().unwrap_or_default();
    let count = |begin: &str| sdp.lines().filter(|line| line.starts_with(begin)).count();
    let has = |line: &str| sdp.lines().any(|found| found == line);
    match () {
        () if !sdp.ends_with("\r\n") => Err(invalid("the SDP's lines don't end with CRLF")),
        () if count("m=") != 1 || count("m=audio ") != 1 => Err(invalid("the SDP has not one audio line")),
        () if count("a=fingerprint:") != 1 || count("a=fingerprint:sha-256 ") != 1 => {
            Err(invalid("the SDP has not one sha-256 fingerprint"))
        }
        () if !has("a=setup:active") => Err(invalid("the SDP is not setup:active")),
        () if !has("a=mid:audio") => Err(invalid("the SDP has not the offer's mid")),
        () if !has("a=rtpmap:111 opus/48000/2") => Err(invalid("the SDP has no Opus")),
        () if !has("a=rtcp-mux") => Err(invalid("the SDP has no rtcp-mux")),
        () => Ok(sdp.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 126\r\na=fingerprint:sha-256 AA\r\n\
        a=setup:active\r\na=mid:audio\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n";

    fn shared() -> Shared {
        let secrets = Secrets { app_secret: "a".to_owned(), access_token: "b".to_owned() };
        let (events, _) = tokio::sync::mpsc::channel(1);
        let call = Mutex::new(Call { offered: true, ..Call::default() });
        Shared { secrets, wacid: "wacid.1".to_owned(), call, ladder: Ladder::new(true), events }
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
}
