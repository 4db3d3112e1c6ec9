//! The HTTP door: Meta's webhook, the health checks, and the way to the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use super::backend::Desk;
use super::clock;
use super::sparing::Sparing;
use crate::config::WhatsAppConfig;
use crate::control::{self, Source};
use crate::gateway::Input;
use crate::whatsapp::webhook;

/// What the handlers share.
pub struct Door {
    whatsapp: WhatsAppConfig,
    to_gateway: mpsc::Sender<Input>,
    ready: Arc<AtomicBool>,
    refused_verifications: Sparing,
    wrong_signatures: Sparing,
    unreadable: Sparing,
}

impl Door {
    /// `ready` is what `/readyz` says.
    pub fn new(whatsapp: WhatsAppConfig, to_gateway: mpsc::Sender<Input>, ready: Arc<AtomicBool>) -> Door {
        let sparing = || Sparing::every(COMPLAINT);
        Door {
            whatsapp,
            to_gateway,
            ready,
            refused_verifications: sparing(),
            wrong_signatures: sparing(),
            unreadable: sparing(),
        }
    }
}

/// Connections at once: Meta and a proxy need a handful; the next ones wait in the kernel's queue.
const CONNECTIONS: usize = 256;

/// Time for a request's headers, and for all of it with its answer.
const HEADERS: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(20);

/// How often one kind of trouble is written down.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Serves for as long as the process lives.
pub async fn serve(listener: TcpListener, door: Door, desk: Arc<Desk>) {
    let router = Router::new()
        .route("/webhooks/whatsapp", get(verify).post(notify))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .layer(DefaultBodyLimit::max(webhook::MAX_BODY))
        .with_state(Arc::new(door))
        .merge(control::router(desk))
        .layer(axum::middleware::from_fn(in_time));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, source) = match listener.accept().await {
            Ok((stream, from)) => (stream, Source(from.ip())),
            // Out of descriptors, or a client that has left again: neither is worth stopping for.
            Err(error) => {
                tracing::debug!(%error, "an HTTP connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(source)));
        tokio::spawn(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an HTTP connection broke off");
            }
            drop(place);
        });
    }
}

/// A request that takes too long, a body that trickles in for one, is given up.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "too slow\n").into_response(),
    }
}

/// Meta's verification handshake.
async fn verify(State(door): State<Arc<Door>>, Query(query): Query<Vec<(String, String)>>) -> Response {
    match webhook::challenge(&query, door.whatsapp.verify_token.expose()) {
        Ok(challenge) => challenge.into_response(),
        Err(refusal) => {
            if let Some(more) = door.refused_verifications.now(clock::tick()) {
                tracing::warn!(%refusal, more, "a webhook verification was refused");
            }
            (StatusCode::FORBIDDEN, format!("{refusal}\n")).into_response()
        }
    }
}

/// A webhook: the signature over the raw body, then the queue, then 200; everything else comes later.
async fn notify(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Response {
    let signature = headers.get("x-hub-signature-256").and_then(|value| value.to_str().ok());
    if !webhook::authentic(door.whatsapp.app_secret.expose().as_bytes(), signature, &body) {
        if let Some(more) = door.wrong_signatures.now(clock::tick()) {
            tracing::warn!(more, "a webhook with a wrong signature was refused: is app_secret right?");
        }
        return (StatusCode::UNAUTHORIZED, "wrong signature\n").into_response();
    }
    let notices = match webhook::read(&body) {
        Ok(notices) => notices,
        Err(error) => {
            if let Some(more) = door.unreadable.now(clock::tick()) {
                tracing::warn!(%error, more, "a signed webhook could not be read");
            }
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
