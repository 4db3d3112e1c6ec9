//! The way of a request: who asks, how often, what with; then the operation; then the headers that all answers
//! have.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts as _, RawPathParams, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use axum::routing::on;
use serde_json::Value;

use super::ask::{Fields, Query};
use super::auth::{self, Holder};
use super::fault::{Fault, Kind};
use super::limit::{Left, Limiter};
use super::operations::{self, Credentials, Form, Op, Operation, Verb};
use super::{
    Backend, Source, calls, description, numbers, permissions, place, playback, recordings, status, stream,
    trace, twilio, usage, webhooks,
};
use crate::clock::Now;
use crate::config::{Config, Role};

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// The longest request id of a client that is taken over.
const MAX_REQUEST_ID: usize = 128;
/// Most fields of a query or form.
const MAX_FIELDS: usize = 64;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
/// An answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What the operations share.
pub(super) struct Room<B> {
    pub backend: Arc<B>,
    pub limiter: Mutex<Limiter>,
    /// Live screens that listen.
    pub screens: Arc<AtomicUsize>,
    /// Recordings that are being read.
    pub readers: Arc<AtomicUsize>,
    /// Links to recordings that were used.
    pub used: Mutex<playback::Used>,
}

impl<B> Room<B> {
    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that may be answered.
pub(super) struct Ask {
    pub method: Method,
    pub holder: Holder,
    pub params: Vec<(String, String)>,
    pub query: Query,
    pub fields: Fields,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub now: Now,
    pub config: Arc<Config>,
}

impl Ask {
    /// A part of the path.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// An answer that is a yes, or a no in the shape of a yes.
pub(super) enum Reply {
    /// JSON.
    Json(StatusCode, Value),
    /// The very text of an answer that was given before.
    Again(StatusCode, String),
    /// Go there.
    Found(String),
    /// Anything else.
    Raw(Response<Body>),
}

impl Reply {
    /// 200 with JSON.
    pub fn ok(body: Value) -> Reply {
        Reply::Json(StatusCode::OK, body)
    }

    fn into_response(self) -> Response<Body> {
        match self {
            Reply::Json(status, body) => json(status, body.to_string()),
            Reply::Again(status, body) => {
                let mut response = json(status, body);
                response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                response
            }
            Reply::Found(location) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::FOUND;
                if let Ok(location) = HeaderValue::from_str(&location) {
                    response.headers_mut().insert(LOCATION, location);
                    // It is good for minutes, and whoever has it needs no key.
                    response
                        .headers_mut()
                        .insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
                }
                response
            }
            Reply::Raw(response) => response,
        }
    }
}

fn json(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What an operation answers.
pub(super) type Outcome = Result<Reply, Fault>;

/// Everything under `/v1`, the same under `/api/v1` (Zernio's SDKs have the base URL `https://host/api`), the
/// hang-up of `/2010-04-01`, and `/openapi.json`. Whatever else is asked gets a 404 in the same envelope.
pub fn router<B: Backend>(backend: Arc<B>) -> Router {
    let room = Arc::new(Room {
        backend,
        limiter: Mutex::default(),
        screens: Arc::default(),
        readers: Arc::default(),
        used: Mutex::default(),
    });
    let mut router: Router<Arc<Room<B>>> = Router::new();
    for prefix in ["", "/api"] {
        for operation in operations::ALL {
            let handler = move |State(room): State<Arc<Room<B>>>, request: Request<Body>| async move {
                match operation.verb {
                    Verb::Get => serve(&room, operation, request).await,
                    Verb::Post | Verb::Put | Verb::Patch | Verb::Delete => {
                        whole(room, operation, request).await
                    }
                }
            };
            let path = format!("{prefix}{}", operation.route());
            router = router.route(&path, on(operation.verb.filter(), handler));
        }
    }
    router
        .method_not_allowed_fallback(|State(room): State<Arc<Room<B>>>, request: Request<Body>| async move {
            let what = format!("{} is not a method of this path", request.method());
            let fault =
                Fault::new(StatusCode::METHOD_NOT_ALLOWED, Kind::InvalidRequest, "method_not_allowed", what);
            refuse(&room, request, fault)
        })
        .fallback(|State(room): State<Arc<Room<B>>>, request: Request<Body>| async move {
            let what = format!("there is nothing at {}", shortened(request.uri().path()));
            refuse(&room, request, Fault::not_found(what))
        })
        .with_state(room)
}

/// A change is carried out whole, even if the client has left meanwhile: half of one would be a number that is on at
/// Meta and off in the file.
async fn whole<B: Backend>(
    room: Arc<Room<B>>,
    operation: &'static Operation,
    request: Request<Body>,
) -> Response<Body> {
    let asked = request.headers().clone();
    let backend = Arc::clone(&room.backend);
    match tokio::spawn(async move { serve(&room, operation, request).await }).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, operation = operation.id, "a request ended in a panic: this is a bug");
            let fault = Fault::internal("a defect of this program: see the log");
            finish(&*backend, &asked, fault.into_response(), None)
        }
    }
}

/// A path for a message: what a scanner sends is not worth more.
fn shortened(path: &str) -> String {
    path.chars().take(200).collect()
}

/// An answer for a path or method that isn't there. It needs no key, and costs a holder one request.
fn refuse<B: Backend>(room: &Room<B>, request: Request<Body>, fault: Fault) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let now = room.backend.now();
    let (outcome, left) = match admit(room, &parts, Credentials::Bearer, now) {
        Ok((_, left)) => (fault, left),
        Err(Stopped { fault: stop, left }) if stop.status == StatusCode::TOO_MANY_REQUESTS => (stop, left),
        Err(Stopped { left, .. }) => (fault, left),
    };
    finish(&*room.backend, &parts.headers, outcome.into_response(), Some(left))
}

async fn serve<B: Backend>(
    room: &Room<B>,
    operation: &'static Operation,
    request: Request<Body>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let now = room.backend.now();
    let admitted = match operation.credentials {
        // The operation looks at the link itself.
        Credentials::None | Credentials::Link => Ok((Holder { name: String::new(), role: Role::Read }, None)),
        Credentials::Bearer | Credentials::Basic => {
            admit(room, &parts, operation.credentials, now).map(|(holder, left)| (holder, Some(left)))
        }
    };
    let (holder, left) = match admitted {
        Ok(admitted) => admitted,
        Err(Stopped { mut fault, left }) => {
            if operation.credentials == Credentials::Basic {
                fault = twilio::shape(fault);
            }
            let mut response = fault.into_response();
            let scheme = match operation.credentials {
                Credentials::None | Credentials::Link | Credentials::Bearer => "Bearer",
                Credentials::Basic => "Basic realm=\"watrunk\"",
            };
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
            return finish(&*room.backend, &parts.headers, response, Some(left));
        }
    };
    let outcome = match prepare(room, operation, holder, &mut parts, body, now).await {
        Ok(ask) => perform(room, operation, &ask).await,
        Err(fault) => Err(fault),
    };
    let response = match outcome {
        Ok(reply) => reply.into_response(),
        Err(fault) if operation.credentials == Credentials::Basic => twilio::shape(fault).into_response(),
        Err(fault) => {
            if fault.status.is_server_error() {
                tracing::debug!(operation = operation.id, code = fault.code, error = %fault.error, "refused");
            }
            fault.into_response()
        }
    };
    finish(&*room.backend, &parts.headers, response, left)
}

/// A request that goes no further.
struct Stopped {
    fault: Fault,
    left: Left,
}

fn admit<B: Backend>(
    room: &Room<B>,
    parts: &Parts,
    credentials: Credentials,
    now: Now,
) -> Result<(Holder, Left), Stopped> {
    let (source, known) = source(parts);
    let config = room.backend.config();
    let mut limiter = room.limiter();
    let too_many = |left: Left, what: &str| {
        let mut fault =
            Fault::new(StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "rate_limit_exceeded", what);
        fault.retry_after = Some(left.wait);
        Stopped { fault, left }
    };
    // A proxy that doesn't say for whom it asks must not shut everybody out.
    if let Err(left) = limiter.source(source, now)
        && known
    {
        return Err(too_many(left, "too many wrong keys from this address: wait a minute"));
    }
    let presented = match credentials {
        Credentials::Bearer | Credentials::Link | Credentials::None => auth::bearer(&parts.headers),
        Credentials::Basic => auth::basic(&parts.headers).or_else(|| auth::bearer(&parts.headers)),
    };
    let holder = presented.as_ref().and_then(|key| auth::who(&config.http.keys, key));
    let Some(holder) = holder else {
        // No key at all is no guess: a lost browser must not shut its address out.
        let left = match (presented, limiter.source(source, now)) {
            (Some(_), _) => limiter.failed(source, now),
            (None, Ok(left) | Err(left)) => left,
        };
        let fault =
            Fault::new(StatusCode::UNAUTHORIZED, Kind::Authentication, "unauthorized", "Unauthorized");
        return Err(Stopped { fault, left });
    };
    match limiter.request(&holder.name, config.http.rate_per_minute, now) {
        Ok(left) => Ok((holder, left)),
        Err(left) => Err(too_many(left, "too many requests with this key: see Retry-After")),
    }
}

/// Who sent it, and whether that is known: a proxy on this machine says for whom it asks.
fn source(parts: &Parts) -> (IpAddr, bool) {
    let peer = match parts.extensions.get::<Source>() {
        Some(Source(ip)) => ip.to_canonical(),
        None => return (IpAddr::V4(Ipv4Addr::UNSPECIFIED), false),
    };
    if !peer.is_loopback() {
        return (peer, true);
    }
    let said = parts.headers.get_all(FORWARDED).iter().next_back().and_then(|value| value.to_str().ok());
    // The last entry is the proxy's own; those before it are the client's word.
    match said.and_then(|said| said.rsplit(',').next()?.trim().parse::<IpAddr>().ok()) {
        Some(ip) => (ip.to_canonical(), true),
        None => (peer, false),
    }
}

async fn prepare<B: Backend>(
    room: &Room<B>,
    operation: &Operation,
    holder: Holder,
    parts: &mut Parts,
    body: Body,
    now: Now,
) -> Result<Ask, Fault> {
    if !operation.need.met_by(holder.role) {
        let needed = operation.need.role().as_str();
        let what = format!("this key is a {} key: {needed} is needed for this", holder.role.as_str());
        return Err(Fault::new(StatusCode::FORBIDDEN, Kind::Permission, "insufficient_permissions", what));
    }
    let params = match RawPathParams::from_request_parts(parts, &()).await {
        Ok(params) => params.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        Err(_) => return Err(Fault::not_found("the path is not UTF-8")),
    };
    let query = pairs(parts.uri.query().unwrap_or(""))?;
    let (body, fields) = match operation.form {
        Form::None => (Bytes::new(), Fields::default()),
        Form::Json => {
            let body = read_body(&parts.headers, body).await?;
            if !body.is_empty() {
                content_type(&parts.headers, "application/json")?;
            }
            let fields = Fields::read(&body)?;
            (body, fields)
        }
        Form::Url => {
            let body = read_body(&parts.headers, body).await?;
            if !body.is_empty() {
                content_type(&parts.headers, "application/x-www-form-urlencoded")?;
            }
            (body, Fields::default())
        }
    };
    let headers = parts.headers.clone();
    let config = room.backend.config();
    Ok(Ask {
        method: parts.method.clone(),
        holder,
        params,
        query: Query(query),
        fields,
        headers,
        body,
        now,
        config,
    })
}

/// The pairs of a query or form (application/x-www-form-urlencoded).
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, Fault> {
    let bad = |what: &str| Fault::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "invalid_query", what);
    if text.split('&').count() > MAX_FIELDS {
        return Err(bad("there are too many fields"));
    }
    let decode = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let pair = [rest.next().unwrap_or(b'-'), rest.next().unwrap_or(b'-')];
                    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
                    let [Some(high), Some(low)] = pair.map(digit) else {
                        return Err(bad("a % is not followed by two hexadecimal digits"));
                    };
                    high * 16 + low
                }
                other => other,
            });
        }
        String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))
    };
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(key)?;
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(bad("a field is there twice").at(&shortened(&key)));
        }
        pairs.push((key, decode(value)?));
    }
    Ok(pairs)
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Fault> {
    let too_large = || {
        let what = format!("the body is larger than {MAX_BODY} bytes");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, Kind::InvalidRequest, "payload_too_large", what)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > MAX_BODY as u64) {
        return Err(too_large());
    }
    match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(bytes) => Ok(bytes),
        Err(error) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                if error.is::<http_body_util::LengthLimitError>() {
                    return Err(too_large());
                }
                cause = error.source();
            }
            Err(Fault::new(
                StatusCode::BAD_REQUEST,
                Kind::InvalidRequest,
                "invalid_body",
                "the body broke off",
            ))
        }
    }
}

fn content_type(headers: &HeaderMap, wanted: &str) -> Result<(), Fault> {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = said.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let what = format!("the body must be {wanted}: say so in Content-Type");
    Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Kind::InvalidRequest, "unsupported_media_type", what))
}

async fn perform<B: Backend>(room: &Room<B>, operation: &Operation, ask: &Ask) -> Outcome {
    let backend = &*room.backend;
    match operation.op {
        Op::GetCallingByAccount => numbers::by_account(backend, ask).await,
        Op::GetCalling => numbers::get(backend, ask).await,
        Op::EnableCalling => numbers::enable(backend, ask).await,
        Op::UpdateCalling => numbers::update(backend, ask).await,
        Op::DisableCalling => numbers::disable(backend, ask).await,
        Op::StartCallerId => numbers::start_caller_id(ask),
        Op::VerifyCallerId => numbers::verify_caller_id(ask),
        Op::GetPermissions => permissions::get(backend, ask).await,
        Op::PlaceCall => place::place(backend, ask).await,
        Op::ListWhatsAppCalls => calls::list_of_account(backend, ask).await,
        Op::Estimate => usage::estimate(backend, ask).await,
        Op::GetWhatsAppCall => calls::get_of_account(backend, ask).await,
        Op::GetWhatsAppRecording => recordings::get_of_account(backend, ask).await,
        Op::PauseWhatsAppRecording => recordings::pause_of_account(backend, ask).await,
        Op::DeleteWhatsAppRecording => recordings::delete_of_account(backend, ask).await,
        Op::ListCalls => calls::list(backend, ask).await,
        Op::GetCall => calls::get(backend, ask).await,
        Op::GetRecording => recordings::get(backend, ask).await,
        Op::PauseRecording => recordings::pause_any(backend, ask).await,
        Op::DeleteRecording => recordings::delete_any(backend, ask).await,
        Op::FetchRecording => playback::fetch(room, ask).await,
        Op::Audit => recordings::audit(backend, ask).await,
        Op::Usage => usage::usage(backend, ask).await,
        Op::EndCall => place::end(backend, ask).await,
        Op::TransferCall => place::transfer(backend, ask).await,
        Op::ListWebhooks => webhooks::list(backend, ask).await,
        Op::CreateWebhook => webhooks::create(backend, ask).await,
        Op::UpdateWebhook => webhooks::update(backend, ask).await,
        Op::DeleteWebhook => webhooks::delete(backend, ask).await,
        Op::TestWebhook => webhooks::test(backend, ask).await,
        Op::WebhookLogs => webhooks::logs(backend, ask).await,
        Op::Redeliver => webhooks::redeliver(backend, ask).await,
        Op::Status => status::status(backend).await,
        Op::Trunks => status::trunks(backend).await,
        Op::TraceState => trace::state(backend).await,
        Op::TraceSwitch => trace::switch(backend, ask).await,
        Op::TraceCall => trace::of_call(backend, ask).await,
        Op::Numbers => numbers::list(backend, ask).await,
        Op::Events => stream::open(room, ask).await,
        Op::Description => Ok(Reply::Raw(description::serve())),
        Op::Twilio => twilio::update(backend, ask).await,
    }
}

/// The headers that all answers have.
fn finish<B: Backend>(
    backend: &B,
    asked: &HeaderMap,
    mut response: Response<Body>,
    left: Option<Left>,
) -> Response<Body> {
    let given = asked.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain)
    });
    let id = given.map_or_else(|| backend.request_id(), str::to_owned);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(left) = left {
        headers.insert(LIMIT, HeaderValue::from(left.limit));
        headers.insert(REMAINING, HeaderValue::from(left.remaining));
        headers.insert(RESET, HeaderValue::from(left.reset));
    }
    response
}
