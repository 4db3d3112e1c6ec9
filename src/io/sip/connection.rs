//! One connection, TCP or TLS: a task of its own that writes what it is given, tells what it reads, keeps itself
//! alive, and ends with a reason.
//!
//! ```text
//!  SipSockets ── orders (64) ──►┌────────────┐── bytes ──► peer
//!             ◄── happenings ───│ connection │◄── bytes ──
//!                               └────────────┘ pings, pongs, deadlines
//! ```

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::{random, sock};
use super::tls::{self, TlsTrust};
use crate::sip::stream::{Framer, Piece};
use crate::sip::{Transport, Way};

/// How long a connection may take to be there, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long nothing of what we write may be taken.
const STUCK: Duration = Duration::from_secs(10);
/// How long a message may take to become whole, and an accepted connection to bring its first.
const HALF: Duration = Duration::from_secs(30);
/// How long a connection that carries a trunk is silent before it is asked for a sign of life, at the most.
const PING: Duration = Duration::from_secs(30);
/// How long the answer may take (RFC 5626 §4.4.1).
const PONG: Duration = Duration::from_secs(10);
/// A single CRLF is half a ping for no longer than this: what is written at once comes at once. Two late answers
/// must not look like a question, which some servers would take our answer to for the beginning of a message.
const HALF_PING: Duration = Duration::from_secs(1);
/// What is read at once, in bytes.
const READ: usize = 8 * 1024;
/// What waits to be written before orders are left in their queue, in bytes.
const WAITING: usize = 64 * 1024;

/// Whose connection it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    /// Tells apart connections over one way, one after the other.
    pub id: u64,
    pub way: Way,
}

/// What a connection is told.
#[derive(Debug)]
pub(super) enum Order {
    Send(Vec<u8>),
    /// Whether it carries a trunk and has to be kept alive.
    Keep(bool),
}

/// What a connection tells.
#[derive(Debug)]
pub(super) struct Happening {
    pub link: Link,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Message(Vec<u8>),
    /// The last thing that is heard of it. `lost`: orders were not written to their end, or the peer is gone without
    /// a word.
    Ended {
        lost: bool,
        why: String,
    },
}

/// How a connection is made.
pub(super) enum Origin {
    /// We connect; from this address, if it is one.
    Ours { from: Option<std::net::IpAddr>, dscp: u8, trust: Option<TlsTrust> },
    /// It was accepted.
    Theirs { stream: TcpStream, tls: Option<Arc<ServerConfig>> },
}

/// Lives through one connection.
pub(super) async fn live(
    link: Link,
    origin: Origin,
    mut orders: mpsc::Receiver<Order>,
    tell: mpsc::Sender<Happening>,
) {
    // Who connects to us and fails at it has lost nothing of ours.
    let ours = matches!(origin, Origin::Ours { .. });
    let way = link.way;
    let (lost, why) = match timeout(CONNECT, open(way, origin)).await {
        Err(_) => {
            let what = match way.transport {
                Transport::Tls => "no connection and TLS handshake within 5 s: is that a port for TLS?",
                Transport::Udp | Transport::Tcp => "no connection within 5 s",
            };
            (ours, what.to_owned())
        }
        Ok(Err(why)) => (ours, why),
        Ok(Ok(stream)) => {
            let now = Instant::now();
            let mut line = Line {
                link,
                tell: &tell,
                framer: Framer::new(),
                out: Vec::new(),
                unflushed: false,
                keep: false,
                ponged: false,
                heard: now,
                progressed: now,
                half: (!ours).then_some(now),
                pinged: None,
                idle: idle(),
            };
            let End { dead, why } = line.run(stream, &mut orders).await;
            (dead || line.is_writing(), why)
        }
    };
    orders.close();
    let waiting = std::iter::from_fn(|| orders.try_recv().ok()).any(|order| matches!(order, Order::Send(_)));
    let what = What::Ended { lost: lost || waiting, why };
    let _ = tell.send(Happening { link, what }).await;
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// A connection that SIP can be spoken over.
async fn open(way: Way, origin: Origin) -> Result<Box<dyn Wire>, String> {
    match origin {
        Origin::Theirs { stream, tls: None } => Ok(Box::new(stream)),
        Origin::Theirs { stream, tls: Some(config) } => {
            let secured = TlsAcceptor::from(config).accept(stream).await;
            Ok(Box::new(secured.map_err(|error| format!("the TLS handshake failed: {error}"))?))
        }
        Origin::Ours { from, dscp, trust } => {
            let stream = connect(way, from, dscp).await.map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                _ => format!("no connection: {error}"),
            })?;
            if way.transport != Transport::Tls {
                return Ok(Box::new(stream));
            }
            let Some(trust) = trust else {
                return Err("nobody has said whom to believe there".to_owned());
            };
            let reading = trust.clone();
            let read = tokio::task::spawn_blocking(move || tls::client(&reading)).await;
            let (config, name, judge) = read.map_err(|error| format!("TLS can't be set up: {error}"))??;
            let secured = TlsConnector::from(config).connect(name, stream).await;
            Ok(Box::new(secured.map_err(|error| judge.why(&error, &trust))?))
        }
    }
}

async fn connect(way: Way, from: Option<std::net::IpAddr>, dscp: u8) -> std::io::Result<TcpStream> {
    let v6 = way.address.is_ipv6();
    let socket = if v6 { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    // The other side may know us by the address that we are bound to.
    if let Some(from) = from.filter(|from| from.is_ipv6() == v6) {
        socket.bind((from, 0).into())?;
    }
    sock::mark(&socket, v6, dscp);
    let stream = socket.connect(way.address).await?;
    tune(&stream);
    Ok(stream)
}

/// A peer that is gone is noticed by the kernel: after ten seconds in which it acknowledges nothing, or a minute of
/// silence and some probes. Refused options change no more than that.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = stream.as_fd();
    let _ = setsockopt(&socket, sockopt::TcpUserTimeout, &(PONG.as_millis() as u32));
    let _ = setsockopt(&socket, sockopt::KeepAlive, &true);
    let _ = setsockopt(&socket, sockopt::TcpKeepIdle, &60);
    let _ = setsockopt(&socket, sockopt::TcpKeepInterval, &5);
}

/// 80 to 100 per cent of the longest silence: connections that were opened together don't ping together for ever.
fn idle() -> Duration {
    PING * (80 + random::word() % 21) / 100
}

/// Writes some of it, or flushes if there is nothing to write: then `None`. Loses nothing when it is cancelled.
async fn push(writer: &mut (impl AsyncWrite + Unpin), out: &[u8]) -> std::io::Result<Option<usize>> {
    if out.is_empty() { writer.flush().await.map(|()| None) } else { writer.write(out).await.map(Some) }
}

/// How a connection ends.
struct End {
    /// Without a word of the peer's: nothing can be expected over this way.
    dead: bool,
    why: String,
}

impl End {
    fn over(why: &str) -> End {
        End { dead: false, why: why.to_owned() }
    }

    fn dead(why: &str) -> End {
        End { dead: true, why: why.to_owned() }
    }

    fn broken(error: &std::io::Error) -> End {
        use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        let dead = matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable);
        End { dead, why: format!("the connection broke: {error}") }
    }
}

/// A connection that is there.
struct Line<'a> {
    link: Link,
    tell: &'a mpsc::Sender<Happening>,
    framer: Framer,
    /// What waits to be written.
    out: Vec<u8>,
    /// TLS may hold what it has taken.
    unflushed: bool,
    keep: bool,
    /// The peer has answered a ping of ours: from then on it has to answer every one. Some never do.
    ponged: bool,
    /// When anything came last.
    heard: Instant,
    /// When anything could be written last.
    progressed: Instant,
    /// Since when a message is awaited whole.
    half: Option<Instant>,
    /// When we pinged, until anything comes.
    pinged: Option<Instant>,
    /// How long a silence makes us ping.
    idle: Duration,
}

impl Line<'_> {
    /// Until it ends; says why.
    async fn run(&mut self, stream: Box<dyn Wire>, orders: &mut mpsc::Receiver<Order>) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut buffer = vec![0; READ];
        let end = loop {
            let step = tokio::select! {
                read = reader.read(&mut buffer) => match read {
                    Ok(0) => Err(End::over("the peer closed the connection")),
                    Ok(length) => self.heard(buffer.get(..length).unwrap_or_default()).await,
                    Err(error) => Err(End::broken(&error)),
                },
                pushed = push(&mut writer, &self.out), if self.is_writing() => match pushed {
                    Ok(Some(0)) => Err(End::over("the connection takes nothing more")),
                    Ok(Some(length)) => {
                        self.out.drain(..length);
                        (self.progressed, self.unflushed) = (Instant::now(), true);
                        Ok(())
                    }
                    Ok(None) => {
                        self.unflushed = false;
                        Ok(())
                    }
                    Err(error) => Err(End::broken(&error)),
                },
                order = orders.recv(), if self.out.len() < WAITING => match order {
                    Some(order) => {
                        self.obey(order);
                        Ok(())
                    }
                    None => Err(End::over("it was closed by us")),
                },
                () = sleep_until(self.due()) => self.late(),
            };
            if let Err(end) = step {
                break end;
            }
        };
        // What was ordered before the end, and TLS's goodbye: a courtesy with a limit.
        let goodbye = async {
            let _ = writer.write_all(&self.out).await;
            let _ = writer.shutdown().await;
        };
        let _ = timeout_at(Instant::now() + Duration::from_secs(1), goodbye).await;
        end
    }

    fn is_writing(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    fn write(&mut self, bytes: &[u8]) {
        if !self.is_writing() {
            self.progressed = Instant::now();
        }
        self.out.extend_from_slice(bytes);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Send(bytes) => self.write(&bytes),
            Order::Keep(keep) => {
                if keep && !self.keep {
                    self.heard = Instant::now();
                }
                (self.keep, self.pinged) = (keep, None);
            }
        }
    }

    async fn heard(&mut self, bytes: &[u8]) -> Result<(), End> {
        let now = Instant::now();
        if now.duration_since(self.heard) > HALF_PING {
            self.framer.take_single();
        }
        self.heard = now;
        self.idle = idle();
        self.framer.push(bytes);
        loop {
            match self.framer.piece() {
                Ok(Some(Piece::Message(bytes))) => {
                    self.half = None;
                    let what = What::Message(bytes);
                    let told = self.tell.send(Happening { link: self.link, what }).await;
                    told.map_err(|_| End::over("the gateway is gone"))?;
                }
                // Pings that are not listened to make nothing grow.
                Ok(Some(Piece::Ping)) if self.out.len() < WAITING => self.write(b"\r\n"),
                Ok(Some(Piece::Ping)) => {}
                Ok(None) => break,
                Err(garbage) => return Err(End::over(&garbage.to_string())),
            }
        }
        if self.pinged.take().is_some() && self.framer.take_single() {
            self.ponged = true;
        }
        if self.framer.is_amid() {
            self.half.get_or_insert(now);
        }
        Ok(())
    }

    /// Everything that can be late, and when it will be.
    fn deadlines(&self) -> [Option<(Instant, Late)>; 3] {
        let life = match self.pinged {
            _ if !self.keep => None,
            Some(pinged) if self.ponged => Some((pinged + PONG, Late::Pong)),
            // The kernel notices a peer that is gone; one that lives and says nothing is pinged again.
            Some(pinged) => Some((pinged + self.idle, Late::Ping)),
            None => Some((self.heard + self.idle, Late::Ping)),
        };
        [
            self.is_writing().then_some((self.progressed + STUCK, Late::Stuck)),
            self.half.map(|since| (since + HALF, Late::Half)),
            life,
        ]
    }

    fn due(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3_600);
        self.deadlines().into_iter().flatten().map(|(at, _)| at).min().unwrap_or(far)
    }

    fn late(&mut self) -> Result<(), End> {
        let now = Instant::now();
        for (at, late) in self.deadlines().into_iter().flatten() {
            if at > now {
                continue;
            }
            match late {
                Late::Stuck => return Err(End::dead("the peer has read nothing for 10 s")),
                Late::Half => return Err(End::over("no whole message came within 30 s")),
                Late::Pong => return Err(End::dead("a keep-alive was not answered within 10 s")),
                Late::Ping => {
                    self.pinged = Some(now);
                    self.idle = idle();
                    self.write(b"\r\n\r\n");
                }
            }
        }
        Ok(())
    }
}

/// What can be late.
#[derive(Debug, Clone, Copy)]
enum Late {
    /// Writing.
    Stuck,
    /// A message's other half.
    Half,
    /// Our next question for a sign of life.
    Ping,
    /// The answer to it.
    Pong,
}
