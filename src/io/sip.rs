//! The edge of SIP: UDP, TCP and TLS as ways (RFC 3261 §18). Messages in and out, connections opened, shared, kept
//! alive (RFC 5626) and given up; nothing here knows what a message means.
//!
//! ```text
//!  gateway ── send(way, bytes) ──► SipSockets ──┬── UDP socket
//!          ◄── recv: SipIn ───────              ├── connections, by way: at most 256, of one source 32
//!                                               └── listeners: TCP, TLS; only admitted sources get past them
//! ```
//!
//! Everything is owned by the one task that calls [`SipSockets::recv`]; each connection is a task of its own and
//! reports to it through a bounded channel, so that a peer which floods feels TCP's own pressure.

mod connection;
mod tls;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::sock;
use super::trunks::Ours;
use crate::sip::{Transport, Way};
use connection::{Happening, Link, Order, Origin, What};
pub use tls::TlsTrust;

/// A UDP datagram is never longer.
const DATAGRAM: usize = 65_535;
/// Connections at once: all, and those that one source has opened.
const CONNECTIONS: usize = 256;
const PER_SOURCE: usize = 32;
/// Messages that wait to be written to one connection.
const ORDERS: usize = 64;
/// Messages that were read from connections and wait to be taken.
const HAPPENINGS: usize = 256;
/// How long after the last message a connection may be closed for another, and how long an answer may come: 64 T1.
const TRANSACTION: Duration = Duration::from_secs(32);
/// How long no connection is accepted after the host has refused one (it has no descriptors left, mostly).
const REST: Duration = Duration::from_millis(100);
/// Ways whose trust is remembered.
const TRUSTS: usize = 1_024;
/// Free ports that are tried, if any will do.
const PORTS: usize = 16;

/// Where to listen.
#[derive(Debug, Clone)]
pub struct SipSettings {
    /// UDP and TCP.
    pub listen: SocketAddr,
    /// TLS, if wanted.
    pub tls: Option<TlsListen>,
    /// DSCP of what is sent (RFC 2474, 0..=63).
    pub dscp: u8,
}

/// Where to listen for TLS, and as whom.
#[derive(Debug, Clone)]
pub struct TlsListen {
    /// The address.
    pub listen: SocketAddr,
    /// The certificate and its chain (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM: PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// What comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SipIn {
    /// A datagram, or one message of a stream. Answers go back over `from`.
    Message {
        /// Over what, and from where.
        from: Way,
        /// As it came.
        bytes: Vec<u8>,
    },
    /// What was sent over this way has not arrived, or its answer won't come: no connection, TLS refused, a
    /// connection that broke, or a keep-alive without an answer.
    Unreachable {
        /// The way.
        way: Way,
        /// One sentence for the log and the trunk's state.
        why: String,
    },
    /// The connection of a way that is kept has ended, and nothing was under way. A registrar that reached us over
    /// it no longer does.
    Closed {
        /// The way.
        way: Way,
        /// One sentence.
        why: String,
    },
}

/// Whether a source may open connections to us.
pub type Admits = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// One connection as it is seen from here.
struct Connection {
    /// Grows from one to the next.
    id: u64,
    way: Way,
    orders: mpsc::Sender<Order>,
    /// They have opened it.
    theirs: bool,
    /// When a message last went either way.
    used: Instant,
    /// When a request went out that nothing has come back after.
    asked: Option<Instant>,
}

/// Every socket that SIP has.
pub struct SipSockets {
    udp: UdpSocket,
    tcp: TcpListener,
    tls: Option<(TcpListener, tls::Identity)>,
    ours: Ours,
    dscp: u8,
    admits: Admits,
    /// The oldest first.
    connections: Vec<Connection>,
    next: u64,
    trusts: Vec<(Way, TlsTrust)>,
    kept: BTreeSet<Way>,
    tell: mpsc::Sender<Happening>,
    told: mpsc::Receiver<Happening>,
    /// What `send` has found out; one entry a way.
    failed: VecDeque<(Way, String)>,
    /// No connection is accepted before.
    rest: Instant,
    refused: u64,
    datagram: Vec<u8>,
}

impl SipSockets {
    /// Binds everything. Within a runtime.
    ///
    /// # Errors
    /// What could not be bound or read, in words, with the setting's name.
    pub fn open(settings: SipSettings, admits: Admits) -> Result<SipSockets, String> {
        let (udp, tcp) = bind(settings.listen, settings.dscp)
            .map_err(|error| format!("sip.listen {} can't be bound: {error}", settings.listen))?;
        let said = |error: std::io::Error| error.to_string();
        let mut ours = Ours {
            udp: udp.local_addr().map_err(said)?,
            tcp: tcp.local_addr().map_err(said)?,
            tls: None,
            public_ip: None,
        };
        let mut tls = None;
        if let Some(listen) = settings.tls {
            let identity = tls::Identity::read(&listen.certificate, &listen.key)?;
            let listener = sock::tcp(listen.listen, settings.dscp)
                .and_then(TcpListener::from_std)
                .map_err(|error| format!("sip.tls_listen {} can't be bound: {error}", listen.listen))?;
            ours.tls = Some(listener.local_addr().map_err(said)?);
            tls = Some((listener, identity));
        }
        let (tell, told) = mpsc::channel(HAPPENINGS);
        Ok(SipSockets {
            udp,
            tcp,
            tls,
            ours,
            dscp: settings.dscp,
            admits,
            connections: Vec::new(),
            next: 0,
            trusts: Vec::new(),
            kept: BTreeSet::new(),
            tell,
            told,
            failed: VecDeque::new(),
            rest: Instant::now(),
            refused: 0,
            datagram: vec![0; DATAGRAM],
        })
    }

    /// Where we listen; `public_ip` is written in place of our own address.
    pub fn ours(&self, public_ip: Option<IpAddr>) -> Ours {
        Ours { public_ip, ..self.ours }
    }

    /// Whom to believe at the other end of a TLS way. Without it none is connected to. Other trust than before ends
    /// the connections that were made in the old one.
    pub fn trust(&mut self, way: Way, trust: TlsTrust) {
        if let Some((_, known)) = self.trusts.iter_mut().find(|(each, _)| *each == way) {
            if *known != trust {
                *known = trust;
                self.connections.retain(|connection| connection.theirs || connection.way != way);
            }
            return;
        }
        if self.trusts.len() >= TRUSTS {
            let (connections, kept) = (&self.connections, &self.kept);
            self.trusts.retain(|(each, _)| {
                kept.contains(each) || connections.iter().any(|connection| connection.way == *each)
            });
        }
        self.trusts.push((way, trust));
    }

    /// The ways that carry trunks, all of them: their connections are kept alive, and never closed for others.
    pub fn keep(&mut self, ways: BTreeSet<Way>) {
        for connection in &self.connections {
            let keep = ways.contains(&connection.way);
            if keep != self.kept.contains(&connection.way) {
                // A full queue is one that will be found out by itself.
                let _ = connection.orders.try_send(Order::Keep(keep));
            }
        }
        self.kept = ways;
    }

    /// Connections that are open or being opened.
    #[cfg(test)]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Connections that were not accepted since the start: sources that are not admitted, or too many.
    #[cfg(test)]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Sends one message: over UDP at once or not at all; over TCP and TLS by the connection that there is, or a new
    /// one. What fails later comes out of [`SipSockets::recv`].
    pub fn send(&mut self, way: Way, bytes: Vec<u8>) {
        let way = Way { address: sock::canonical(way.address), ..way };
        match way.transport {
            Transport::Udp => {
                let to = sock::towards(self.ours.udp, way.address);
                match self.udp.try_send_to(&bytes, to) {
                    Ok(_) => {}
                    // A full socket buffer is loss like any other: SIP sends again.
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        tracing::debug!(%way, "a SIP message could not be sent: the socket is full");
                    }
                    Err(error) => self.fail(way, format!("nothing can be sent there: {error}")),
                }
            }
            Transport::Tcp | Transport::Tls => self.send_by_connection(way, bytes),
        }
    }

    fn send_by_connection(&mut self, way: Way, mut bytes: Vec<u8>) {
        let now = Instant::now();
        let asks = asks(&bytes);
        // The newest of several is the likeliest to live.
        if let Some(at) = self.connections.iter().rposition(|connection| connection.way == way) {
            let connection = &mut self.connections[at];
            let awaits = connection.awaits(now);
            match connection.orders.try_send(Order::Send(bytes)) {
                Ok(()) => {
                    connection.used = now;
                    if asks {
                        connection.asked = Some(now);
                    }
                    return;
                }
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.connections.remove(at);
                    self.fail(way, format!("the peer reads too slowly: {ORDERS} messages wait"));
                    return;
                }
                // It has ended, and what it says of that is still on its way to us.
                Err(mpsc::error::TrySendError::Closed(order)) => {
                    self.connections.remove(at);
                    match order {
                        Order::Send(again) if !awaits => bytes = again,
                        Order::Send(_) | Order::Keep(_) => {
                            self.fail(way, "the connection broke".to_owned());
                            return;
                        }
                    }
                }
            }
        }
        if !self.make_room(None) {
            self.fail(way, format!("{CONNECTIONS} connections are open, and none of them is idle"));
            return;
        }
        let bound = match way.transport {
            Transport::Udp | Transport::Tcp => self.ours.tcp,
            Transport::Tls => self.ours.tls.unwrap_or(self.ours.tcp),
        };
        let from = Some(bound.ip()).filter(|ip| !ip.is_unspecified());
        let trust = self.trusts.iter().find(|(each, _)| *each == way).map(|(_, trust)| trust.clone());
        let origin = Origin::Ours { from, dscp: self.dscp, trust };
        self.begin(way, origin, Some(bytes));
    }

    /// The next thing that comes in. Loses nothing when it is cancelled.
    pub async fn recv(&mut self) -> SipIn {
        loop {
            if let Some((way, why)) = self.failed.pop_front() {
                return SipIn::Unreachable { way, why };
            }
            tokio::select! {
                happening = self.told.recv() => {
                    if let Some(input) = happening.and_then(|happening| self.happened(happening)) {
                        return input;
                    }
                }
                received = self.udp.recv_from(&mut self.datagram) => match received {
                    Ok((length, from)) => {
                        let bytes = self.datagram.get(..length).unwrap_or_default().to_vec();
                        let from = Way { transport: Transport::Udp, address: sock::canonical(from) };
                        return SipIn::Message { from, bytes };
                    }
                    // ICMP errors of single peers show up here.
                    Err(error) => {
                        tracing::debug!(%error, "SIP port: receive failed");
                        tokio::task::yield_now().await;
                    }
                },
                accepted = accept(Some(&self.tcp), self.rest) => self.accepted(accepted, Transport::Tcp),
                accepted = accept(self.tls.as_ref().map(|(listener, _)| listener), self.rest) => {
                    self.accepted(accepted, Transport::Tls);
                }
            }
        }
    }

    fn fail(&mut self, way: Way, why: String) {
        if !self.failed.iter().any(|(each, _)| *each == way) && self.failed.len() < TRUSTS {
            self.failed.push_back((way, why));
        }
    }

    /// Starts a connection's task, with the first that it has to send.
    fn begin(&mut self, way: Way, origin: Origin, first: Option<Vec<u8>>) {
        self.next += 1;
        let id = self.next;
        let (orders, ordered) = mpsc::channel(ORDERS);
        let theirs = matches!(origin, Origin::Theirs { .. });
        let now = Instant::now();
        let asked = first.as_ref().filter(|bytes| asks(bytes)).map(|_| now);
        if self.kept.contains(&way) {
            let _ = orders.try_send(Order::Keep(true));
        }
        if let Some(bytes) = first {
            let _ = orders.try_send(Order::Send(bytes));
        }
        tokio::spawn(connection::live(Link { id, way }, origin, ordered, self.tell.clone()));
        self.connections.push(Connection { id, way, orders, theirs, used: now, asked });
    }

    /// Sees to it that one more connection may be opened, from this source or by us: the idle one that was used the
    /// longest time ago goes for it. False: there is none to go.
    fn make_room(&mut self, source: Option<IpAddr>) -> bool {
        let of_source = |connection: &Connection| {
            source.is_some_and(|ip| connection.theirs && connection.way.address.ip() == ip)
        };
        let crowded =
            self.connections.iter().filter(|connection| of_source(connection)).count() >= PER_SOURCE;
        if !crowded && self.connections.len() < CONNECTIONS {
            return true;
        }
        let idle = self
            .connections
            .iter()
            .filter(|connection| !crowded || of_source(connection))
            .filter(|connection| !self.kept.contains(&connection.way))
            .filter(|connection| connection.used.elapsed() >= TRANSACTION)
            .min_by_key(|connection| connection.used)
            .map(|connection| connection.id);
        self.connections.retain(|connection| Some(connection.id) != idle);
        idle.is_some()
    }

    fn accepted(&mut self, accepted: std::io::Result<(TcpStream, SocketAddr)>, transport: Transport) {
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                self.rest = Instant::now() + REST;
                return;
            }
        };
        let way = Way { transport, address: sock::canonical(from) };
        let ip = way.address.ip();
        if !(self.admits)(ip) || !self.make_room(Some(ip)) {
            self.refused = self.refused.saturating_add(1);
            tracing::debug!(%way, "a connection was refused: the source is not admitted, or has too many");
            return;
        }
        connection::tune(&stream);
        sock::mark(&stream, self.ours.tcp.is_ipv6(), self.dscp);
        let tls = match (transport, &mut self.tls) {
            (Transport::Tls, Some((_, identity))) => Some(identity.current()),
            (Transport::Tls, None) => return,
            (Transport::Udp | Transport::Tcp, _) => None,
        };
        tracing::debug!(%way, "a connection was accepted");
        self.begin(way, Origin::Theirs { stream, tls }, None);
    }

    fn happened(&mut self, happening: Happening) -> Option<SipIn> {
        let Happening { link: Link { id, way }, what } = happening;
        let now = Instant::now();
        match what {
            // What came before we closed it is as good as any.
            What::Message(bytes) => {
                if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
                    (connection.used, connection.asked) = (now, None);
                }
                Some(SipIn::Message { from: way, bytes })
            }
            What::Ended { lost, why } => {
                let at = self.connections.iter().position(|connection| connection.id == id)?;
                let connection = self.connections.remove(at);
                tracing::debug!(%way, why, "a connection has ended");
                if lost || connection.awaits(now) {
                    Some(SipIn::Unreachable { way, why })
                } else {
                    self.kept.contains(&way).then_some(SipIn::Closed { way, why })
                }
            }
        }
    }
}

impl Connection {
    /// Whether an answer may still come over it.
    fn awaits(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now.duration_since(asked) < TRANSACTION)
    }
}

/// Whether a message wants one back: requests do, but for ACK; so do answers to an INVITE, but they are sent again.
fn asks(bytes: &[u8]) -> bool {
    !bytes.starts_with(b"SIP/") && !bytes.starts_with(b"ACK ")
}

/// UDP and TCP on one port: if any port will do, one that both can have.
fn bind(address: SocketAddr, dscp: u8) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { PORTS } else { 1 };
    loop {
        let udp = sock::udp(address, dscp).and_then(UdpSocket::from_std)?;
        let same = SocketAddr::new(address.ip(), udp.local_addr()?.port());
        match sock::tcp(same, dscp).and_then(TcpListener::from_std) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if tries <= 1 => return Err(error),
            Err(_) => tries -= 1,
        }
    }
}

/// The next connection; never, if there is no listener.
async fn accept(listener: Option<&TcpListener>, rest: Instant) -> std::io::Result<(TcpStream, SocketAddr)> {
    let Some(listener) = listener else { return std::future::pending().await };
    sleep_until(rest).await;
    listener.accept().await
}

#[cfg(test)]
mod tests;
