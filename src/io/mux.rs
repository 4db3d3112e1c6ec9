//! One UDP port shared by many WebRTC calls: virtual sockets handed to the WebRTC stack's runtime hook.
//!
//! A call is recognised by the address its packets come from: first the candidates of Meta's offer, then
//! any address whose STUN request names our ICE user fragment (RFC 8445 §7.3.1.3, peer-reflexive).
//!
//! Meta's relay is ICE-lite and uses a handful of addresses for all its calls. Two of our calls on one
//! port to one relay address would be the same five-tuple, and neither side could tell their media apart.
//! So a port takes a call only if none of the call's remote candidates is in use on that port; the next
//! port of `webrtc_ports` takes it otherwise. One port carries everything until that happens.
//!
//! Of a call that we offer, the port stands in our SDP before the relay's addresses are known: they come
//! with the answer. Until then the call has its port for itself, so nothing can collide with what it will
//! be told.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::UdpSocket;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

use super::stun;

/// Datagrams that wait for one call's driver before the oldest is dropped: 0.3 s of sound, or a DTLS flight.
const INBOX: usize = 16;
/// The largest datagram that is taken in: an Ethernet frame's worth.
const DATAGRAM: usize = 1_500;
/// Peer-reflexive addresses that one call may add.
const REFLEXIVE: usize = 8;

/// What one port saw and did not hand on, for the metrics.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Datagrams from an address that belongs to no call.
    pub foreign: AtomicU64,
    /// Datagrams dropped because a call's driver did not keep up.
    pub overflow: AtomicU64,
    /// Datagrams that the kernel would not take at once.
    pub unsent: AtomicU64,
}

struct Session {
    ufrag: String,
    /// The remote candidates have not come yet.
    ahead: bool,
    reflexive: usize,
    inbox: VecDeque<(SocketAddr, usize)>,
    slots: VecDeque<Box<[u8]>>,
    free: Vec<Box<[u8]>>,
    waker: Option<Waker>,
    media_seen: bool,
}

#[derive(Default)]
struct Table {
    next: u64,
    routes: BTreeMap<SocketAddr, u64>,
    sessions: BTreeMap<u64, Session>,
}

/// One bound UDP port and the calls on it.
pub struct Port {
    socket: UdpSocket,
    local: SocketAddr,
    table: Mutex<Table>,
    /// What was dropped here.
    pub counters: PortCounters,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Port {
    /// Binds `address` and prepares it for sound: `dscp` (0..=63) goes into the IP header.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn bind(address: SocketAddr, dscp: u8) -> io::Result<Arc<Port>> {
        let socket = super::sock::udp(address, dscp)?;
        let local = socket.local_addr()?;
        Ok(Arc::new(Port {
            socket: UdpSocket::from_std(socket)?,
            local,
            table: Mutex::default(),
            counters: PortCounters::default(),
        }))
    }

    /// The bound port number.
    pub fn number(&self) -> u16 {
        self.local.port()
    }

    /// Calls on this port now.
    pub fn load(&self) -> usize {
        self.table().sessions.len()
    }

    /// Whether a call to these remote candidates could collide with one that is here already; where there
    /// are none, they are not known yet.
    pub fn collides(&self, remotes: &[SocketAddr]) -> bool {
        let table = self.table();
        if remotes.is_empty() {
            return !table.sessions.is_empty();
        }
        remotes.iter().any(|remote| table.routes.contains_key(remote))
            || table.sessions.values().any(|session| session.ahead)
    }

    /// Takes a call in; without remote candidates they are to come by [`Seat::add_remotes`]. The caller has
    /// asked [`Port::collides`] before. The seat gives its place back when it is dropped.
    pub fn seat(self: &Arc<Port>, ufrag: &str, remotes: &[SocketAddr]) -> Arc<Seat> {
        let mut table = self.table();
        table.next += 1;
        let id = table.next;
        for remote in remotes {
            table.routes.insert(*remote, id);
        }
        table.sessions.insert(
            id,
            Session {
                ufrag: ufrag.to_owned(),
                ahead: remotes.is_empty(),
                reflexive: 0,
                inbox: VecDeque::with_capacity(INBOX),
                slots: VecDeque::with_capacity(INBOX),
                free: (0..INBOX).map(|_| vec![0; DATAGRAM].into_boxed_slice()).collect(),
                waker: None,
                media_seen: false,
            },
        );
        drop(table);
        Arc::new(Seat { port: Arc::clone(self), id })
    }

    /// Reads the port for ever and hands every datagram to its call.
    pub async fn pump(self: Arc<Port>) {
        let mut buffer = [0_u8; DATAGRAM];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, from)) => self.deliver(&buffer[..length], from),
                // An ICMP error of one peer shows up here; it says nothing about the others.
                Err(error) => {
                    tracing::debug!(%error, "webrtc port: receive failed");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn deliver(&self, datagram: &[u8], from: SocketAddr) {
        let from = canonical(from);
        let mut table = self.table();
        let known = table.routes.get(&from).copied();
        let id = match known.or_else(|| adopt(&mut table, datagram, from)) {
            Some(id) => id,
            None => {
                self.counters.foreign.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let Some(session) = table.sessions.get_mut(&id) else { return };
        session.media_seen |= is_media(datagram);
        let mut slot = match session.free.pop() {
            Some(slot) => slot,
            None => {
                self.counters.overflow.fetch_add(1, Ordering::Relaxed);
                session.inbox.pop_front();
                match session.slots.pop_front() {
                    Some(slot) => slot,
                    None => return,
                }
            }
        };
        slot[..datagram.len()].copy_from_slice(datagram);
        session.inbox.push_back((from, datagram.len()));
        session.slots.push_back(slot);
        let waker = session.waker.take();
        drop(table);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Learns a peer-reflexive address from a STUN Binding request that names one of our user fragments.
fn adopt(table: &mut Table, datagram: &[u8], from: SocketAddr) -> Option<u64> {
    let ufrag = stun::local_ufrag(datagram)?;
    let (id, session) = table.sessions.iter_mut().find(|(_, session)| session.ufrag == ufrag)?;
    if session.reflexive >= REFLEXIVE {
        return None;
    }
    session.reflexive += 1;
    let id = *id;
    table.routes.insert(from, id);
    Some(id)
}

/// An IPv4 address that a dual-stack socket reports as IPv6 is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// RTP or RTCP, by the first byte (RFC 7983 §7): encrypted or not, it is a sign of life.
fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

/// One call's place on a port: a virtual socket.
pub struct Seat {
    port: Arc<Port>,
    id: u64,
}

impl Seat {
    /// The remote candidates of a call that was seated without: from now on what comes from there is its own,
    /// and the port may be shared. False if one of them belongs to another call on this port, which a port
    /// that was asked by [`Port::collides`] can't have: the call can't be carried.
    #[must_use]
    pub fn add_remotes(&self, remotes: &[SocketAddr]) -> bool {
        let mut table = self.port.table();
        let free = |remote| table.routes.get(remote).is_none_or(|owner| *owner == self.id);
        if !remotes.iter().all(free) {
            return false;
        }
        let Some(session) = table.sessions.get_mut(&self.id) else { return false };
        session.ahead &= remotes.is_empty();
        for remote in remotes {
            table.routes.insert(*remote, self.id);
        }
        true
    }

    /// Whether RTP or RTCP has come for this call since this was last asked.
    pub fn media_seen(&self) -> bool {
        let mut table = self.port.table();
        table.sessions.get_mut(&self.id).is_some_and(|session| std::mem::take(&mut session.media_seen))
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("port", &self.port.local).field("id", &self.id).finish()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.port.table();
        table.sessions.remove(&self.id);
        let id = self.id;
        table.routes.retain(|_, owner| *owner != id);
    }
}

impl AsyncUdpSocket for Seat {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.port.local)
    }

    /// Sends now or not at all: sound that waits is sound that is late, and DTLS and STUN repeat themselves.
    fn poll_send(&self, _cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let destination = match (self.port.local.is_ipv6(), transmit.destination.ip()) {
            (true, IpAddr::V4(v4)) => (v4.to_ipv6_mapped(), transmit.destination.port()).into(),
            _ => transmit.destination,
        };
        if self.port.socket.try_send_to(transmit.contents, destination).is_err() {
            self.port.counters.unsent.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut table = self.port.table();
        let Some(session) = table.sessions.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let (Some((from, length)), Some(slot)) = (session.inbox.pop_front(), session.slots.pop_front())
        else {
            // A probe with a no-op waker (the driver's burst drain) must not replace the real one.
            if !cx.waker().will_wake(Waker::noop()) {
                session.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        let length = length.min(buffer.len());
        buffer[..length].copy_from_slice(&slot[..length]);
        session.free.push(slot);
        *meta = RecvMeta::default();
        meta.addr = from;
        meta.len = length;
        meta.stride = length.max(1);
        Poll::Ready(Ok(1))
    }
}

/// The runtime of one peer connection: tokio, but every UDP socket is the call's seat.
#[derive(Debug)]
pub struct SeatRuntime {
    tokio: TokioRuntime,
    seat: Mutex<Option<Arc<Seat>>>,
}

impl SeatRuntime {
    /// A runtime that hands out `seat` once.
    pub fn new(seat: Arc<Seat>) -> SeatRuntime {
        SeatRuntime { tokio: TokioRuntime, seat: Mutex::new(Some(seat)) }
    }
}

impl Runtime for SeatRuntime {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        self.tokio.spawn(future)
    }

    /// The stack binds a socket of its own and passes it here: it is closed, unused, and the call gets
    /// its seat on the shared port instead.
    fn wrap_udp_socket(&self, _bound: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        match self.seat.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(seat) => Ok(seat),
            None => Err(io::Error::other("one call has one socket")),
        }
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.tokio.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        remote: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        self.tokio.connect_tcp(remote)
    }

    fn resolve_host<'a>(
        &'a self,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        self.tokio.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.tokio.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.tokio.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.tokio.block_on(future);
    }

    fn yield_now(&self) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.tokio.yield_now()
    }

    fn name(&self) -> &'static str {
        "watrunk"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding_request(username: &str) -> Vec<u8> {
        let mut attribute = vec![0x00, 0x06, 0x00, username.len() as u8];
        attribute.extend_from_slice(username.as_bytes());
        attribute.resize(4 + username.len().next_multiple_of(4), 0);
        let mut packet = vec![0x00, 0x01, 0x00, attribute.len() as u8, 0x21, 0x12, 0xA4, 0x42];
        packet.extend_from_slice(&[7; 12]);
        packet.extend_from_slice(&attribute);
        packet
    }

    #[test]
    fn our_user_fragment_is_found_in_a_binding_request() {
        assert_eq!(stun::local_ufrag(&binding_request("ours:theirs")), Some("ours"));
    }

    #[test]
    fn anything_else_names_nobody() {
        let good = binding_request("ours:theirs");
        for cut in 0..good.len() {
            let _ = stun::local_ufrag(&good[..cut]);
        }
        assert_eq!(stun::local_ufrag(b"\x80\x6f not stun at all, but long enough to be RTP"), None);
        let mut response = good.clone();
        response[0] = 0x01;
        assert_eq!(stun::local_ufrag(&response), None);
    }

    #[tokio::test]
    async fn two_calls_to_one_relay_address_do_not_share_a_port() {
        let port = Port::bind("127.0.0.1:0".parse().unwrap(), 0).unwrap();
        let relay: SocketAddr = "192.0.2.1:3478".parse().unwrap();
        let other: SocketAddr = "192.0.2.2:3478".parse().unwrap();
        let seat = port.seat("one", &[relay]);
        assert!(port.collides(&[other, relay]));
        assert!(!port.collides(&[other]));
        drop(seat);
        assert!(!port.collides(&[relay]));
        assert_eq!(port.load(), 0);
    }

    #[tokio::test]
    async fn a_call_whose_relay_is_not_known_yet_has_a_port_for_itself_until_it_is() {
        let port = Port::bind("127.0.0.1:0".parse().unwrap(), 0).unwrap();
        let relay: SocketAddr = "192.0.2.1:3478".parse().unwrap();
        let other: SocketAddr = "192.0.2.2:3478".parse().unwrap();
        assert!(!port.collides(&[]));
        let seat = port.seat("ahead", &[]);
        assert!(port.collides(&[other]), "it may turn out to be the same relay");
        assert!(port.collides(&[]));
        assert!(seat.add_remotes(&[relay]));
        assert!(port.collides(&[relay]));
        assert!(!port.collides(&[other]), "now the port is shared");
        let second = port.seat("second", &[other]);
        assert!(!second.add_remotes(&[relay]), "the route stays with its call");
        assert!(second.add_remotes(&[other]));
        drop(seat);
        assert!(second.add_remotes(&[relay]));
    }

    #[tokio::test]
    async fn each_call_on_a_port_gets_its_own_datagrams() {
        let port = Port::bind("127.0.0.1:0".parse().unwrap(), 0).unwrap();
        let pump = tokio::spawn(Arc::clone(&port).pump());
        let (a, b, c) = (bound().await, bound().await, bound().await);
        let one = port.seat("one", &[a.local_addr().unwrap()]);
        let two = port.seat("two", &[b.local_addr().unwrap()]);
        let to = port.socket.local_addr().unwrap();
        a.send_to(b"from a", to).await.unwrap();
        b.send_to(b"from b", to).await.unwrap();
        c.send_to(b"from nobody", to).await.unwrap();
        c.send_to(&binding_request("two:x"), to).await.unwrap();
        let mut buffer = [0; 100];
        let (length, from) = one.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"from a"[..], a.local_addr().unwrap()));
        let (length, _) = two.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"from b");
        let (_, from) = two.recv_from(&mut buffer).await.unwrap();
        assert_eq!(from, c.local_addr().unwrap(), "a peer-reflexive address is learned");
        assert_eq!(port.counters.foreign.load(Ordering::Relaxed), 1);
        pump.abort();
    }

    async fn bound() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }
}
