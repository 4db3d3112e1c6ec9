//! The UDP ports of a sound thread: those for WebRTC, a pair for each call's RTP, and our addresses before them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;

use super::mux::{Port, Seat};
use super::sock;
use crate::config::{MediaConfig, PortRange};

/// Pairs of ports that are tried before a call is refused.
const PAIRS_TRIED: usize = 50;

/// One sound thread's WebRTC ports: the first stays, the others come and go with their calls.
pub struct Ports {
    media: MediaConfig,
    mine: Vec<u16>,
    bound: Vec<(Arc<Port>, tokio::task::JoinHandle<()>)>,
}

impl Ports {
    /// None is bound yet: of all ports the thread has every `count`th from its `index` on.
    pub fn new(media: &MediaConfig, index: usize, count: usize) -> Ports {
        let PortRange { first, last } = media.webrtc_ports;
        let mine = (first..=last).skip(index).step_by(count).collect();
        Ports { media: media.clone(), mine, bound: Vec::new() }
    }

    /// A place for a call with these remote candidates: on the first port that has none of them. For a call
    /// without, on a port where there is no other: [`Seat::add_remotes`] tells them when they have come.
    pub fn seat(&mut self, ufrag: &str, remotes: &[SocketAddr]) -> Result<(Arc<Seat>, u16), String> {
        if self.bound.len() > 1 {
            let mut first = true;
            self.bound.retain(|(port, pump)| {
                let keep = std::mem::take(&mut first) || port.load() > 0;
                if !keep {
                    pump.abort();
                }
                keep
            });
        }
        if let Some((port, _)) = self.bound.iter().find(|(port, _)| !port.collides(remotes)) {
            return Ok((port.seat(ufrag, remotes), port.number()));
        }
        let port = self.bind()?;
        Ok((port.seat(ufrag, remotes), port.number()))
    }

    /// One more.
    pub fn bind(&mut self) -> Result<Arc<Port>, String> {
        let mut last = "every port of webrtc_ports is in use".to_owned();
        for number in &self.mine {
            if self.bound.iter().any(|(port, _)| port.number() == *number) {
                continue;
            }
            let address = SocketAddr::new(self.media.listen_ip, *number);
            match Port::bind(address, self.media.dscp) {
                Ok(port) => {
                    let pump = tokio::spawn(Arc::clone(&port).pump());
                    self.bound.push((Arc::clone(&port), pump));
                    return Ok(port);
                }
                Err(error) => last = format!("UDP port {address} can't be bound: {error}"),
            }
        }
        Err(last)
    }
}

/// The candidates that a socket bound to `listen_ip` can reach.
pub fn reachable(remotes: &[SocketAddr], listen_ip: IpAddr) -> Vec<SocketAddr> {
    remotes.iter().copied().filter(|remote| listen_ip.is_ipv6() || remote.is_ipv4()).collect()
}

/// Our addresses for candidates: never empty.
pub fn own_addresses(media: &MediaConfig) -> Vec<IpAddr> {
    if !media.listen_ip.is_unspecified() {
        return vec![media.listen_ip];
    }
    let mut found: Vec<IpAddr> =
        sock::host_addresses().into_iter().filter(|ip| media.listen_ip.is_ipv6() || ip.is_ipv4()).collect();
    if found.is_empty() {
        found.push(IpAddr::from([127, 0, 0, 1]));
    }
    found
}

/// An even RTP port and the odd RTCP port above it (RFC 3550 §11). `next`: which pair is tried first.
pub fn pair(next: &AtomicUsize, media: &MediaConfig) -> Result<(UdpSocket, UdpSocket), String> {
    let pairs = media.rtp_ports.pairs().max(1);
    let even = media.rtp_ports.first.next_multiple_of(2);
    let mut last = String::new();
    for _ in 0..PAIRS_TRIED.min(pairs) {
        let nth = next.fetch_add(1, Ordering::Relaxed) % pairs;
        let port = even + u16::try_from(nth * 2).unwrap_or(0);
        let bind = |port: u16| {
            sock::udp(SocketAddr::new(media.listen_ip, port), media.dscp).and_then(UdpSocket::from_std)
        };
        match bind(port).and_then(|rtp| Ok((rtp, bind(port + 1)?))) {
            Ok(pair) => return Ok(pair),
            Err(error) => last = format!("{port}: {error}"),
        }
    }
    Err(format!("no free pair of ports in rtp_ports ({last})"))
}
