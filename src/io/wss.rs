//! The socket of a voice agent: one WebSocket connection (RFC 6455) that we open, as messages.
//!
//! ```text
//!  Socket::connect ── address (never a private one) ── TCP ── TLS ── HTTP upgrade ──┐
//!  Socket::send ───────► outbox ─►┌──────────────────────────────────────────────────┴──┐
//!                                │ pump: writes, reads, pings, watches, says goodbye   │◄─► agent
//!  Socket::recv ◄── 4 messages ◄─└─────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing is read from the agent while four messages wait to be taken: it feels that as TCP's own pressure.
//! The pump is a task of the runtime that opens the socket, and ends with the connection.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Sink, Stream};
use http_body_util::Empty;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::CapacityError};

use super::outbox::{Inbox, Outbox, Unsent, outbox};
use super::random;
use crate::config::{is_private, is_private_host};

/// Messages that were read and wait to be taken.
const HELD: usize = 4;
/// The longest message that is read, in bytes: six minutes of µ-law in base64, a minute of PCM16 at 24 kHz.
const LONGEST: usize = 4 << 20;
/// What the kernel may hold of what we write, in bytes: sound that waits there is late, and can't be taken back.
const SEND_BUFFER: u32 = 32 * 1024;
/// What is read at once, in bytes.
const READ_BUFFER: usize = 16 * 1024;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// How often the agent is asked for a sign of life, after which silence it is dead, and how long a goodbye may take.
const BEAT: Beat =
    Beat { ping: Duration::from_secs(10), dead: Duration::from_secs(30), farewell: Duration::from_secs(2) };

#[derive(Debug, Clone, Copy)]
struct Beat {
    ping: Duration,
    dead: Duration,
    farewell: Duration,
}

/// Where an agent listens.
#[derive(Clone)]
pub struct Target {
    /// `wss://…`, query and all; `ws://…` only with `allow_private`.
    pub url: String,
    /// Headers of the upgrade request: names and values.
    pub headers: Vec<(String, String)>,
    /// The subprotocol that is offered.
    pub subprotocol: Option<String>,
    /// Whether addresses of this machine and of private networks may be dialled.
    pub allow_private: bool,
    /// Certificates (PEM) to believe beside those that browsers trust.
    pub ca: Option<PathBuf>,
}

/// One message, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8.
    Text(String),
    /// Anything.
    Binary(Vec<u8>),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconnected {
    /// What is wrong, and where.
    pub why: String,
    /// Whether trying again can help: nobody was there, or the agent had trouble of its own.
    pub again: bool,
}

impl Unconnected {
    fn passing(why: String) -> Unconnected {
        Unconnected { why, again: true }
    }
}

impl From<String> for Unconnected {
    /// Something that will be as wrong the next time.
    fn from(why: String) -> Unconnected {
        Unconnected { why, again: false }
    }
}

/// An open connection. Dropped, it writes what waits, says goodbye and ends within 2 s.
pub struct Socket {
    to_send: Inbox,
    heard: mpsc::Receiver<Result<Frame, String>>,
    pump: JoinHandle<()>,
}

impl Socket {
    /// Connects, within `patience` for all of it. A name is resolved here, and the address that was found fit is
    /// the one that is connected to. Redirects are not followed.
    ///
    /// # Errors
    /// What is wrong, and where: the URL, the name, the address, TLS, or the agent's answer with its HTTP status.
    /// Neither the URL's path and query nor a header are in it.
    pub async fn connect(target: Target, patience: Duration) -> Result<Socket, Unconnected> {
        let trusted = trust(target.ca.as_deref()).await?;
        Socket::connect_by(target, patience, trusted).await
    }

    async fn connect_by(
        target: Target,
        patience: Duration,
        tls: Arc<ClientConfig>,
    ) -> Result<Socket, Unconnected> {
        let opening = open(&target, tls, Instant::now() + patience);
        match timeout(patience, opening).await {
            Ok(stream) => Ok(Socket::over(stream?, BEAT)),
            Err(_) => {
                let why = format!("the agent has not answered within {} ms", patience.as_millis());
                Err(Unconnected::passing(why))
            }
        }
    }

    fn over<S: Wire + 'static>(stream: WebSocketStream<S>, beat: Beat) -> Socket {
        let (to_send, orders) = outbox();
        // One more place, for the reason why there is no more to come.
        let (tell, heard) = mpsc::channel(HELD + 1);
        let pump = tokio::spawn(pump(stream, orders, tell, beat));
        Socket { to_send, heard, pump }
    }

    /// The next message of the agent; an error once if the connection fails, or if the agent closes it with
    /// another code than 1000 or 1001; `None` when it is closed. Loses nothing when it is cancelled.
    pub async fn recv(&mut self) -> Option<Result<Frame, String>> {
        self.heard.recv().await
    }

    /// Writes a message, after those before it. `sound`: it is the user's sound, and the oldest of that is dropped if
    /// more than 100 such messages wait; says how many were.
    ///
    /// # Errors
    /// Hundreds of other messages wait, or the connection is closed: this message is not sent.
    pub fn send(&self, frame: Frame, sound: bool) -> Result<u32, String> {
        self.to_send.put(frame, sound).map_err(|unsent| {
            match unsent {
                Unsent::Full => "the agent reads too slowly: hundreds of messages wait",
                Unsent::Closed => "the connection to the agent is closed",
            }
            .to_owned()
        })
    }

    /// Writes what waits, says goodbye (code 1000) and waits for the agent's, 2 s for all of it.
    pub async fn close(self) {
        let Socket { to_send, heard, pump } = self;
        drop((to_send, heard));
        // It ends by itself; a panic in it was told to the log already.
        let _ = pump.await;
    }
}

/// TCP, or TLS over it.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// What is trusted: the roots that browsers trust, and the certificates in `ca`.
///
/// # Errors
/// A sentence about `ca`: it can't be read, or holds what is no certificate.
pub async fn trust(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let Some(path) = ca.map(Path::to_owned) else { return tls() };
    // A slow card must not hold up the sound of the calls on this thread.
    let read = tokio::task::spawn_blocking(move || tls_by(&path));
    read.await.map_err(|error| error.to_string())?
}

/// What is trusted: the roots that browsers trust.
fn tls() -> Result<Arc<ClientConfig>, String> {
    static ROOTS: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = ROOTS.get() {
        return Ok(Arc::clone(config));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?
        .with_webpki_roots()
        .with_no_client_auth();
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(config))))
}

/// As [`tls`], and the operator's own authorities are believed too.
fn tls_by(path: &Path) -> Result<Arc<ClientConfig>, String> {
    let said = |error: &dyn std::fmt::Display| format!("ca_file {}: {error}", path.display());
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| said(&error))? {
        let certificate = certificate.map_err(|error| said(&error))?;
        roots.add(certificate).map_err(|error| said(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// From a URL to a connection that speaks WebSocket.
async fn open(
    target: &Target,
    tls: Arc<ClientConfig>,
    until: Instant,
) -> Result<WebSocketStream<Box<dyn Wire>>, Unconnected> {
    let uri: Uri = target.url.parse().map_err(|_| "the agent's address is not a URL".to_owned())?;
    let secure = match uri.scheme_str() {
        Some("wss") => true,
        Some("ws") if target.allow_private => false,
        Some("ws") => return Err("the agent's address must begin with wss://, not ws://".to_owned().into()),
        _ => return Err("the agent's address must begin with wss://".to_owned().into()),
    };
    let (request, key) = upgrade(target, &uri, secure)?;
    let (name, wire) = reach(&uri, secure, target.allow_private, tls, until).await?;
    let (wire, read) = exchange(wire, request, &key, target).await.map_err(|error| {
        let why = format!("{name}: {}", error.why);
        Unconnected { why, ..error }
    })?;
    Ok(WebSocketStream::from_partially_read(wire, read, Role::Client, Some(limits())).await)
}

/// From a URL to its server's name and a connection to that.
///
/// # Errors
/// What is wrong with the name, the address or TLS.
pub async fn reach(
    uri: &Uri,
    secure: bool,
    allow_private: bool,
    tls: Arc<ClientConfig>,
    until: Instant,
) -> Result<(String, Box<dyn Wire>), Unconnected> {
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if authority.contains('@') {
        let why = "a name and password belong into the Authorization header, not into the URL";
        return Err(why.to_owned().into());
    }
    let host = uri.host().unwrap_or_default();
    let name = host.trim_matches(['[', ']']).to_owned();
    if name.is_empty() {
        return Err("the address has no host".to_owned().into());
    }
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let addresses = resolve(&name, port, allow_private).await?;
    let tcp =
        dial(&addresses, until).await.map_err(|error| Unconnected::passing(format!("{name}: {error}")))?;
    let wire: Box<dyn Wire> = if secure {
        let server = ServerName::try_from(name.clone()).map_err(|_| format!("{name} is no name for TLS"))?;
        let stream = TlsConnector::from(tls).connect(server, tcp).await;
        Box::new(stream.map_err(|error| {
            // A certificate that is not believed will not be believed in a second either.
            let again = error.get_ref().is_none_or(|cause| !cause.is::<rustls::Error>());
            Unconnected { why: format!("{name}: TLS: {}", words(&error)), again }
        })?)
    } else {
        Box::new(tcp)
    };
    Ok((name, wire))
}

/// What a failing connection says to an operator: TLS's own sentence about a missing goodbye is for programmers.
fn words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it ended without a goodbye".to_owned(),
        _ => super::graph::root(error),
    }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Each message leaves at once: it is sound.
        .write_buffer_size(0)
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST))
}

/// The addresses of a name that may be dialled; never empty.
async fn resolve(name: &str, port: u16, allow_private: bool) -> Result<Vec<SocketAddr>, Unconnected> {
    let refused = || format!("{name}: the address is private, and that is not allowed");
    if let Ok(ip) = name.parse::<IpAddr>() {
        let fit = allow_private || !is_private(ip);
        return if fit { Ok(vec![SocketAddr::new(ip, port)]) } else { Err(refused().into()) };
    }
    if !allow_private && is_private_host(name) {
        return Err(refused().into());
    }
    let found = tokio::net::lookup_host((name, port))
        .await
        .map_err(|error| Unconnected::passing(format!("{name} is not found: {error}")))?;
    let fit: Vec<SocketAddr> =
        found.filter(|address| allow_private || !is_private(address.ip())).take(ADDRESSES).collect();
    if fit.is_empty() { Err(refused().into()) } else { Ok(fit) }
}

/// The first of the addresses that answers; each has its share of the time that is left.
async fn dial(addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, String> {
    let mut last = String::new();
    for (tried, address) in (0u32..).zip(addresses) {
        let left = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_sub(tried).max(1);
        let share = until.saturating_duration_since(Instant::now()) / left;
        let connecting = async {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // Both are for speed: without them it works as well.
            let _ = socket.set_send_buffer_size(SEND_BUFFER);
            let stream = socket.connect(*address).await?;
            let _ = stream.set_nodelay(true);
            Ok::<TcpStream, std::io::Error>(stream)
        };
        match timeout(share, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = "no answer".to_owned(),
        }
    }
    Err(format!("can't be reached: {last}"))
}

/// The request that asks for the upgrade (RFC 6455 §4.1), and its key.
fn upgrade(target: &Target, uri: &Uri, secure: bool) -> Result<(Request<Empty<Bytes>>, String), String> {
    let host = match (uri.host().unwrap_or_default(), uri.port_u16()) {
        (host, None) => host.to_owned(),
        (host, Some(443)) if secure => host.to_owned(),
        (host, Some(80)) if !secure => host.to_owned(),
        (host, Some(port)) => format!("{host}:{port}"),
    };
    let words = [random::word(), random::word(), random::word(), random::word()];
    let mut nonce = [0; 16];
    for (bytes, word) in nonce.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    let key = STANDARD.encode(nonce);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .uri(if path.is_empty() { "/" } else { path })
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    if let Some(subprotocol) = &target.subprotocol {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    for (name, value) in &target.headers {
        let header: HeaderName =
            name.parse().map_err(|_| format!("{name:?} can't be the name of a header"))?;
        let ours = [HOST, CONNECTION, UPGRADE, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY];
        if ours.contains(&header) || header == SEC_WEBSOCKET_EXTENSIONS {
            return Err(format!("the header {header} can't be set: it belongs to the upgrade"));
        }
        let mut value: HeaderValue =
            value.parse().map_err(|_| format!("the header {header} has a value that none can have"))?;
        value.set_sensitive(header == AUTHORIZATION);
        request = request.header(header, value);
    }
    let request =
        request.body(Empty::new()).map_err(|error| format!("the upgrade can't be asked for: {error}"))?;
    Ok((request, key))
}

/// What a server must answer to a key (RFC 6455 §4.2.2).
fn acceptance(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Asks for the upgrade. The wire comes back, with what was read beyond the answer.
async fn exchange(
    wire: Box<dyn Wire>,
    request: Request<Empty<Bytes>>,
    key: &str,
    target: &Target,
) -> Result<(Box<dyn Wire>, Vec<u8>), Unconnected> {
    let broken = |error: hyper::Error| {
        Unconnected::passing(format!("the upgrade failed: {}", super::graph::root(&error)))
    };
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(wire))
        .await
        .map_err(broken)?;
    let mut connection = pin!(connection.without_shutdown());
    let mut asking = pin!(sender.send_request(request));
    let mut parts = None;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut asking => break response.map_err(broken)?,
            ended = &mut connection, if parts.is_none() => parts = Some(ended.map_err(broken)?),
        }
    };
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let why = format!("the agent refuses the connection: HTTP {}", status.as_u16());
        return Err(Unconnected { why, again: status.is_server_error() });
    }
    let said = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    if !said(UPGRADE).is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return Err("the agent has switched to another protocol than WebSocket".to_owned().into());
    }
    if said(SEC_WEBSOCKET_ACCEPT) != Some(acceptance(key).as_str()) {
        return Err("the agent's answer belongs to another request".to_owned().into());
    }
    // It may choose none of those that were offered, but not another one (§4.1).
    if said(SEC_WEBSOCKET_PROTOCOL).is_some_and(|chosen| target.subprotocol.as_deref() != Some(chosen)) {
        return Err("the agent has chosen a subprotocol that was not offered".to_owned().into());
    }
    if response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err("the agent has chosen an extension that was not offered".to_owned().into());
    }
    let parts = match parts {
        Some(parts) => parts,
        None => connection.await.map_err(broken)?,
    };
    Ok((parts.io.into_inner(), parts.read_buf.into()))
}

/// What one turn of the pump did.
enum Turn {
    Flushed,
    Heard(Message),
    Broken(Error),
    Ended,
}

/// Writes and reads as far as it can; what is found out first is told.
fn turn<S: Wire>(
    stream: &mut WebSocketStream<S>,
    context: &mut Context<'_>,
    flush: bool,
    read: bool,
) -> Poll<Turn> {
    if flush {
        match Pin::new(&mut *stream).poll_flush(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(Turn::Flushed),
            Poll::Ready(Err(error)) => return Poll::Ready(Turn::Broken(error)),
            Poll::Pending => {}
        }
    }
    if !read {
        return Poll::Pending;
    }
    Pin::new(stream).poll_next(context).map(|next| match next {
        Some(Ok(message)) => Turn::Heard(message),
        Some(Err(error)) => Turn::Broken(error),
        None => Turn::Ended,
    })
}

/// Why the pump has stopped, and what is still to be done.
enum End {
    /// We are done, or the agent has said goodbye: the handshake is to be finished.
    Goodbye,
    /// The agent broke the protocol: it is told by this code.
    Fault(CloseCode),
    /// There is nobody to talk to.
    Gone,
}

/// Carries messages both ways until one side ends it.
async fn pump<S: Wire>(
    mut stream: WebSocketStream<S>,
    mut orders: Outbox,
    tell: mpsc::Sender<Result<Frame, String>>,
    beat: Beat,
) {
    let mut ping = interval_at(Instant::now() + beat.ping, beat.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut alive = Instant::now();
    let mut unflushed = false;
    // When the socket was dropped, and until when it may go on.
    let mut until: Option<Instant> = None;
    let (end, why) = loop {
        let full = until.is_none() && tell.capacity() <= 1;
        let write = tokio::select! {
            turn = poll_fn(|context| turn(&mut stream, context, unflushed, !full)) => match turn {
                Turn::Flushed => {
                    unflushed = false;
                    None
                }
                Turn::Heard(message) => {
                    alive = Instant::now();
                    match message {
                        Message::Text(text) => {
                            let _ = tell.try_send(Ok(Frame::Text(text.as_str().to_owned())));
                        }
                        Message::Binary(bytes) => {
                            let _ = tell.try_send(Ok(Frame::Binary(bytes.into())));
                        }
                        // The answer to a ping is in the buffer, and leaves with the next flush.
                        Message::Ping(_) => unflushed = true,
                        Message::Pong(_) | Message::Frame(_) => {}
                        Message::Close(frame) => break (End::Goodbye, parted(frame)),
                    }
                    None
                }
                Turn::Broken(error) => break fault(error),
                Turn::Ended => break (End::Gone, None),
            },
            () = tell.closed(), if until.is_none() => {
                until = Some(Instant::now() + beat.farewell);
                None
            }
            _ = tell.reserve_many(2), if full => {
                // While nothing was read, nothing could be heard.
                alive = Instant::now();
                None
            }
            order = orders.take(), if !unflushed => match order {
                Some(Frame::Text(text)) => Some(Message::text(text)),
                Some(Frame::Binary(bytes)) => Some(Message::binary(bytes)),
                None => break (End::Goodbye, None),
            },
            _ = ping.tick(), if !unflushed => Some(Message::Ping(Bytes::new())),
            () = sleep_until(alive + beat.dead), if !full => {
                let silent = format!("nothing was heard of the agent for {} s", beat.dead.as_secs_f32());
                break (End::Gone, Some(silent));
            }
            () = sleep_until(until.unwrap_or(alive)), if until.is_some() => break (End::Gone, None),
        };
        if let Some(message) = write {
            unflushed = true;
            if let Err(error) = Pin::new(&mut stream).start_send(message) {
                break fault(error);
            }
        }
    };
    if let Some(why) = why {
        // There is always a place for it.
        let _ = tell.try_send(Err(why));
    }
    drop((tell, orders));
    let until = until.unwrap_or_else(|| Instant::now() + beat.farewell);
    let _ = timeout_at(until, farewell(stream, end)).await;
}

/// Ends the connection as the protocol wants it (RFC 6455 §7.1.1): the server closes TCP.
async fn farewell<S: Wire>(mut stream: WebSocketStream<S>, end: End) {
    let code = match end {
        End::Goodbye => CloseCode::Normal,
        End::Fault(code) => code,
        End::Gone => return,
    };
    // After the agent's goodbye there is an answer in the buffer already, and this one is not taken.
    let goodbye = CloseFrame { code, reason: "".into() };
    let _ = Pin::new(&mut stream).start_send(Message::Close(Some(goodbye)));
    let flushed = poll_fn(|context| Pin::new(&mut stream).poll_flush(context)).await;
    if flushed.is_ok() && matches!(end, End::Goodbye) {
        while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {}
    }
    let _ = stream.get_mut().shutdown().await;
}

/// What a goodbye of the agent means: nothing to tell if it is an ordinary one.
fn parted(frame: Option<CloseFrame>) -> Option<String> {
    let frame = frame?;
    match (u16::from(frame.code), frame.reason.as_str()) {
        (1000 | 1001, _) => None,
        (code, "") => Some(format!("the agent closed the connection with code {code}")),
        (code, reason) => {
            Some(format!("the agent closed the connection with code {code}: {}", reason.escape_debug()))
        }
    }
}

/// What went wrong, and what the agent is told of it.
fn fault(error: Error) -> (End, Option<String>) {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => (End::Gone, None),
        Error::Io(error) => {
            (End::Gone, Some(format!("the connection to the agent failed: {}", words(&error))))
        }
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => (End::Gone, Some("the agent's connection ended without a goodbye".to_owned())),
        Error::Capacity(CapacityError::MessageTooLong { size, .. }) => (
            End::Fault(CloseCode::Size),
            Some(format!("the agent sent a message of {size} bytes; {LONGEST} are the most")),
        ),
        Error::Utf8(_) => {
            (End::Fault(CloseCode::Invalid), Some("the agent sent text that is not UTF-8".to_owned()))
        }
        error => (End::Fault(CloseCode::Protocol), Some(format!("the agent's connection: {error}"))),
    }
}

#[cfg(test)]
#[path = "wss_tests.rs"]
mod tests;
