//! UDP sockets for sound and signalling: options set where the host permits, each refusal said once.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Once;

use nix::sys::socket::{setsockopt, sockopt};

/// Room for a second of many calls on one socket.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A bound, non-blocking UDP socket whose packets carry `dscp` (RFC 2474, 0..=63).
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
    if let Err(error) = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER) {
        static SAID: Once = Once::new();
        SAID.call_once(|| tracing::warn!(%error, "the receive buffer can't be enlarged"));
    }
    Ok(socket)
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
