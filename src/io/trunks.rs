//! Where each trunk's server is: names resolved again and again, and our own address towards them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;

use super::sock;
use crate::config::Config;
use crate::gateway::Input;
use crate::sip::{Found, Way};

/// A name that was found is asked for again after this time; a PBX may move.
const AGAIN: Duration = Duration::from_secs(60);

/// The pauses after a name that was not found.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The port of SIP over UDP (RFC 3261 §19.1.2).
const SIP: u16 = 5060;

/// One server to look up.
pub struct Lookup {
    /// The trunk's name.
    pub trunk: String,
    /// Host name or address.
    pub host: String,
    /// Port, if one is given.
    pub port: Option<u16>,
}

/// Follows one trunk's name for as long as the process lives. `bound` is our SIP port.
pub async fn follow(lookup: Lookup, config: Config, bound: SocketAddr, to_gateway: mpsc::Sender<Input>) {
    let mut known: Option<(SocketAddr, SocketAddr)> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        match find(&lookup, &config, bound).await {
            Ok(found) => {
                if known != Some(found) {
                    known = Some(found);
                    let (peer, local) = found;
                    tracing::info!(trunk = %lookup.trunk, %peer, %local, "the trunk's server");
                    let found = vec![Found { way: Way::udp(peer), local }];
                    let input = Input::PeerResolved { trunk: lookup.trunk.clone(), found };
                    if to_gateway.send(input).await.is_err() {
                        return;
                    }
                }
                pause = FIRST_PAUSE;
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => {
                if pause == FIRST_PAUSE {
                    tracing::warn!(trunk = %lookup.trunk, %error, "the trunk's server can't be found, trying on");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn find(
    lookup: &Lookup,
    config: &Config,
    bound: SocketAddr,
) -> std::io::Result<(SocketAddr, SocketAddr)> {
    let port = lookup.port.unwrap_or(SIP);
    let mut found: Vec<SocketAddr> = match lookup.host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::net::lookup_host((lookup.host.as_str(), port)).await?.collect(),
    };
    // A socket bound to an IPv4 address reaches IPv4 only. Round-robin DNS must not look like a PBX that moves.
    found.retain(|address| bound.is_ipv6() || address.is_ipv4());
    found.sort();
    let peer = found.first().copied().ok_or_else(|| std::io::Error::other("no usable address"))?;
    let ip = match (config.sip.public_ip, bound.ip().is_unspecified()) {
        (Some(public), _) => public,
        (None, true) => sock::local_towards(peer)?,
        (None, false) => bound.ip(),
    };
    Ok((peer, SocketAddr::new(ip, bound.port())))
}
