//! The HTTP door: Meta's webhook and the health checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::config::WhatsAppConfig;
use crate::gateway::Input;
use crate::whatsapp::webhook;

/// What the handlers share.
pub struct Door {
    whatsapp: WhatsAppConfig,
    to_gateway: mpsc::Sender<Input>,
    ready: Arc<AtomicBool>,
}

impl Door {
    /// `ready` is what `/readyz` says.
    pub fn new(whatsapp: WhatsAppConfig, to_gateway: mpsc::Sender<Input>, ready: Arc<AtomicBool>) -> Door {
        Door { whatsapp, to_gateway, ready }
    }
}

/// Serves until the process ends.
///
/// # Errors
/// When accepting fails for good.
pub async fn serve(listener: TcpListener, door: Door) -> std::io::Result<()> {
    let router = Router::new()
        .route("/webhooks/whatsapp", get(verify).post(notify))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .layer(DefaultBodyLimit::max(webhook::MAX_BODY))
        .with_state(Arc::new(door));
    axum::serve(listener, router).await
}

/// Meta's verification handshake.
async fn verify(State(door): State<Arc<Door>>, Query(query): Query<Vec<(String, String)>>) -> Response {
    match webhook::challenge(&query, door.whatsapp.verify_token.expose()) {
        Ok(challenge) => challenge.into_response(),
        Err(refusal) => {
            tracing::warn!(%refusal, "a webhook verification was refused");
            (StatusCode::FORBIDDEN, format!("{refusal}\n")).into_response()
        }
    }
}

/// A webhook: the signature over the raw body, then the queue, then 200; everything else comes later.
async fn notify(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Response {
    let signature = headers.get("x-hub-signature-256").and_then(|value| value.to_str().ok());
    if !webhook::authentic(door.whatsapp.app_secret.expose().as_bytes(), signature, &body) {
        tracing::warn!("a webhook with a wrong signature was refused: is app_secret right?");
        return (StatusCode::UNAUTHORIZED, "wrong signature\n").into_response();
    }
    let notices = match webhook::read(&body) {
        Ok(notices) => notices,
        Err(error) => {
            tracing::warn!(%error, "a signed webhook could not be read");
            return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
        }
    };
    if notices.is_empty() {
        return StatusCode::OK.into_response();
    }
    match door.to_gateway.try_send(Input::Notices(notices)) {
        Ok(()) => StatusCode::OK.into_response(),
        // Meta delivers again: better late than lost.
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too busy, send it again\n").into_response(),
    }
}

async fn ready(State(door): State<Arc<Door>>) -> Response {
    match door.ready.load(Ordering::Relaxed) {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no trunk is up, or shutting down\n").into_response(),
    }
}
