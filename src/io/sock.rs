//! UDP sockets for sound and signalling: options set where the host permits, each refusal said once.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Once;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6, SockaddrStorage,
    bind, getsockopt, listen, recvmsg, setsockopt, sockopt,
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
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind(address)?,
        SocketAddr::V6(v6) => UdpSocket::from(bound_v6(v6, SockType::Datagram)?),
    };
    socket.set_nonblocking(true)?;
    mark(&socket, address.is_ipv6(), dscp);
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

/// A bound, non-blocking TCP socket that listens; the same promises as for [`udp`].
///
/// # Errors
/// When the address can't be bound.
pub fn tcp(address: SocketAddr, dscp: u8) -> io::Result<std::net::TcpListener> {
    let listener = match address {
        SocketAddr::V4(_) => std::net::TcpListener::bind(address)?,
        SocketAddr::V6(v6) => {
            let socket = bound_v6(v6, SockType::Stream)?;
            listen(&socket, Backlog::new(128)?)?;
            std::net::TcpListener::from(socket)
        }
    };
    listener.set_nonblocking(true)?;
    mark(&listener, address.is_ipv6(), dscp);
    Ok(listener)
}

/// An IPv6 socket that also takes IPv4 when it is bound to `::`, whatever the host's default is.
fn bound_v6(address: std::net::SocketAddrV6, kind: SockType) -> io::Result<OwnedFd> {
    let socket = nix::sys::socket::socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    if kind == SockType::Stream {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
    Ok(socket)
}

/// Sets the DSCP of what leaves; on an IPv6 socket for both protocols.
pub fn mark(socket: &impl AsFd, v6: bool, dscp: u8) {
    let traffic_class = i32::from(dscp) << 2;
    let mut marked = setsockopt(socket, sockopt::Ipv4Tos, &traffic_class);
    if v6 {
        marked = setsockopt(socket, sockopt::Ipv6TClass, &traffic_class);
    }
    if let Err(error) = marked {
        static SAID: Once = Once::new();
        SAID.call_once(|| tracing::warn!(%error, "DSCP can't be set: sound has no priority in the network"));
    }
}

/// An address as everything above the sockets knows it: IPv4 that came in through an IPv6 socket is IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The same address as a socket that is bound to `local` has to be told it: mapped, if it is one of IPv6.
pub fn towards(local: SocketAddr, peer: SocketAddr) -> SocketAddr {
    match (local, peer) {
        (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
            SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port())
        }
        (SocketAddr::V6(_) | SocketAddr::V4(_), peer) => peer,
    }
}

/// Room for one SCM_TIMESTAMPNS control message, with what the kernel may add.
const CONTROL: usize = 128;

/// A datagram that is there already: its length, its source (canonical), and how long ago the kernel got it.
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
        (None, Some(v6)) => Some(canonical(SocketAddr::V6((*v6).into()))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_of_both_protocols_hears_and_reaches_ipv4_as_ipv4() {
        let ours = udp("[::]:0".parse().unwrap(), 24).and_then(tokio::net::UdpSocket::from_std).unwrap();
        let local = ours.local_addr().unwrap();
        let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
        phone.send_to(b"hello", (std::net::Ipv4Addr::LOCALHOST, local.port())).unwrap();
        let mut buffer = [0; 16];
        ours.readable().await.unwrap();
        let (length, from, _) = receive(&ours, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"hello"[..], phone.local_addr().unwrap()));
        ours.send_to(b"you too", towards(local, from)).await.unwrap();
        let (length, _) = phone.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"you too");
    }

    #[test]
    fn a_listener_of_both_protocols_takes_ipv4() {
        let listener = tcp("[::]:0".parse().unwrap(), 24).unwrap();
        let port = listener.local_addr().unwrap().port();
        let phone = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (_, from) = listener.accept().unwrap();
        assert_eq!(canonical(from), phone.local_addr().unwrap());
    }

    #[test]
    fn addresses_are_mapped_for_ipv6_sockets_alone() {
        let (v4, v6): (SocketAddr, SocketAddr) =
            ("192.0.2.1:5060".parse().unwrap(), "[2001:db8::1]:5060".parse().unwrap());
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5060".parse().unwrap();
        assert_eq!((towards(v4, v4), towards(v6, v4), towards(v6, v6)), (v4, mapped, v6));
        assert_eq!((canonical(mapped), canonical(v6), canonical(v4)), (v4, v6, v4));
    }
}
