//! The Graph API client: one request out, one reply in. Retries are decided in `whatsapp::graph`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Semaphore, mpsc};

use crate::config::WhatsAppConfig;
use crate::gateway::{Input, RequestId};
use crate::whatsapp::graph::{self, Reply, Request};

/// Requests on the wire at once; the next ones wait their turn within their own patience.
const AT_ONCE: usize = 64;

/// As much of a reply as is read: Graph's are below 2 kB.
const REPLY: usize = 64 * 1024;

/// The client: cheap to clone.
#[derive(Clone)]
pub struct Graph {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: HeaderValue,
    turns: Arc<Semaphore>,
    to_gateway: mpsc::Sender<Input>,
}

impl Graph {
    /// A client for the configured Graph URL and token.
    ///
    /// # Errors
    /// When the token can't be a header value.
    pub fn new(config: &WhatsAppConfig, to_gateway: mpsc::Sender<Input>) -> Result<Graph, String> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", config.access_token.expose()))
            .map_err(|_| "whatsapp.access_token has characters that no header can carry".to_owned())?;
        authorization.set_sensitive(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .build();
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(60)).build(connector);
        Ok(Graph {
            client,
            base: config.graph_url.trim_end_matches('/').to_owned(),
            authorization,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            to_gateway,
        })
    }

    /// Sends it in the background; the reply goes to the gateway.
    pub fn send(&self, id: RequestId, request: Request, patience: Duration) {
        let graph = self.clone();
        tokio::spawn(async move {
            let reply = match tokio::time::timeout(patience, graph.exchange(request)).await {
                Ok(Ok(reply) | Err(reply)) => reply,
                Err(_) => Reply::Timeout,
            };
            let _ = graph.to_gateway.send(Input::GraphReplied { request: id, reply }).await;
        });
    }

    /// Both ways out are what the gateway is told: an answer, or why there is none.
    async fn exchange(&self, request: Request) -> Result<Reply, Reply> {
        let unsent = |error: &dyn std::fmt::Display| Reply::Unreachable(error.to_string());
        let _turn = self.turns.acquire().await.map_err(|error| unsent(&error))?;
        let uri: Uri = format!("{}/{}", self.base, request.path)
            .parse()
            .map_err(|_| unsent(&"whatsapp.graph_url is not a URL"))?;
        let method = match request.method {
            graph::Method::Get => Method::GET,
            graph::Method::Post => Method::POST,
        };
        let request = hyper::Request::builder()
            .method(method)
            .uri(uri)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(request.body)))
            .map_err(|error| unsent(&error))?;
        let response = self.client.request(request).await.map_err(|error| {
            // Only without a connection is it sure that Meta has not got it.
            let tell = if error.is_connect() { Reply::Unreachable } else { Reply::BrokenOff };
            tell(root(&error))
        })?;
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = Limited::new(response.into_body(), REPLY)
            .collect()
            .await
            .map_err(|error| Reply::BrokenOff(error.to_string()))?;
        Ok(Reply::Http { status, retry_after, body: body.to_bytes().to_vec() })
    }
}

/// The innermost cause says what an operator can act on: "connection refused", "no such host".
pub fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
