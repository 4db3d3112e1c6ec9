//! UDP sockets for sound and signalling: options set where the host permits, each refusal said once.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Once;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;

/// Room for a second of many calls on one socket.
const RECEIVE_BUFFER: usize = 1 << 20;

/// SO_PRIORITY of sound: the highest that needs no capability.
const SOUND_PRIORITY: i32 = 6;

/// DSCP from which traffic is sound or video, and asks for priority on the way out of this host too.
const EXPEDITED: u8 = 32;

/// A bound, non-blocking UDP socket whose packets carry `dscp` (RFC 2474, 0..=63) and whose datagrams are
/// stamped by the kernel as they arrive.
///
/// # Errors
/// When the address can't be bound. Options that the host refuses are logged once and left.
pub fn udp(address: SocketAddr, dscp: u8) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let traffic_class = i32::from(dscp) << 2;
    let marked = match address.ip() {
        IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Tos, &traffic_class),
        IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6TClass, &traffic_class),
    };
    if let Err(error) = marked {
        static SAID: Once = Once::new();
        SAID.call_once(|| tracing::warn!(%error, "DSCP can't be set: sound has no priority in the network"));
    }
    if dscp >= EXPEDITED
        && let Err(error) = setsockopt(&socket, sockopt::Priority, &SOUND_PRIORITY)
    {
        static SAID: Once = Once::new();
        SAID.call_once(|| tracing::info!(%error, "sockets of sound have no priority on this host"));
    }
    if let Err(error) = setsockopt(&socket, sockopt::ReceiveTimestampns, &true) {
        static SAID: Once = Once::new();
        SAID.call_once(
            || tracing::info!(%error, "the kernel does not stamp datagrams: jitter is measured late"),
        );
    }
    let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
    // Linux answers with twice of what it gives.
    let given = getsockopt(&socket, sockopt::RcvBuf).unwrap_or(0) / 2;
    if given < RECEIVE_BUFFER {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::info!(
                given,
                wanted = RECEIVE_BUFFER,
                "receive buffers are small (sysctl net.core.rmem_max)"
            );
        });
    }
    Ok(socket)
}

/// Room for one SCM_TIMESTAMPNS control message, with what the kernel may add.
const CONTROL: usize = 128;

/// A datagram that is there already: its length, its source, and how long ago the kernel got it.
///
/// # Errors
/// `WouldBlock` if there is none.
pub fn receive(
    socket: &tokio::net::UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Duration)> {
    socket.try_io(Interest::READABLE, || {
        let mut control = [0_u8; CONTROL];
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let from = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut age = Duration::ZERO;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmTimestampns(stamp) = part {
                age = since(stamp);
            }
        }
        Ok((message.bytes, from, age))
    })
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::new(IpAddr::V4(v4.ip()), v4.port())),
        (None, Some(v6)) => Some(SocketAddr::new(IpAddr::V6(v6.ip()), v6.port())),
        (None, None) => None,
    }
}

/// How long ago a kernel time stamp was. A wall clock that was set meanwhile makes no datagram older than this.
fn since(stamp: TimeSpec) -> Duration {
    const OLDEST: Duration = Duration::from_millis(200);
    let then = Duration::new(
        u64::try_from(stamp.tv_sec()).unwrap_or(0),
        u32::try_from(stamp.tv_nsec()).unwrap_or(0),
    );
    let age = super::clock::since_epoch().saturating_sub(then);
    if age > OLDEST { Duration::ZERO } else { age }
}

/// The local address that packets to `peer` leave from, by the routing table: nothing is sent.
///
/// # Errors
/// When there is no route.
pub fn local_towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match peer.ip() {
        IpAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

/// This host's addresses that a peer could reach, loopback and link-local ones left out; IPv4 first.
pub fn host_addresses() -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    if let Ok(interfaces) = nix::ifaddrs::getifaddrs() {
        for interface in interfaces {
            let Some(address) = interface.address else { continue };
            let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (None, Some(v6)) => IpAddr::V6(v6.ip()),
                (None, None) => continue,
            };
            let usable = match ip {
                IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
                IpAddr::V6(v6) => !v6.is_loopback() && (v6.segments()[0] & 0xffc0) != 0xfe80,
            };
            if usable && !found.contains(&ip) {
                found.push(ip);
            }
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}
