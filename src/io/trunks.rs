//! Where each trunk's servers are: looked up as often as the DNS wants, and our own address towards each of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;

use super::dns::{Families, Located, Resolver};
use super::{random, sock};
use crate::config::is_private;
use crate::sip::locate::Target;
use crate::sip::{Found, Transport, Way};

/// The pauses after a name that was not found.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One trunk to look up.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The trunk's name.
    pub trunk: String,
    /// What its URI says.
    pub target: Target,
}

/// Where we listen, as far as the other side has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ours {
    /// UDP, as bound.
    pub udp: SocketAddr,
    /// TCP, as bound.
    pub tcp: SocketAddr,
    /// TLS, as bound; without a listener, what we write names the port of TCP, and the peer reaches us over the
    /// connection that we have opened.
    pub tls: Option<SocketAddr>,
    /// What to write in place of our own address, but for a PBX in a private network: that one reaches us without it.
    pub public_ip: Option<IpAddr>,
}

impl Ours {
    /// What to write into Via and Contact towards a way.
    ///
    /// # Errors
    /// There is no route to it.
    pub fn towards(&self, way: Way) -> std::io::Result<SocketAddr> {
        let bound = match way.transport {
            Transport::Udp => self.udp,
            Transport::Tcp => self.tcp,
            Transport::Tls => self.tls.unwrap_or(self.tcp),
        };
        let public_ip = self.public_ip.filter(|public| is_private(*public) || !is_private(way.ip()));
        let ip = match (public_ip, bound.ip().is_unspecified()) {
            (Some(public), _) => public,
            (None, true) => sock::local_towards(way.address)?,
            (None, false) => bound.ip(),
        };
        Ok(SocketAddr::new(ip.to_canonical(), bound.port()))
    }
}

/// What is known of one trunk.
struct Knowledge {
    found: Vec<Found>,
    /// Every question about it was answered.
    sure: bool,
    pause: Duration,
}

impl Knowledge {
    /// Takes what a look has given, and says whether something is new and when to look again. What was known
    /// without a doubt outlives failures and doubtful answers.
    fn learn(&mut self, trunk: &str, looked: Result<(Vec<Found>, Located), String>) -> (bool, Duration) {
        match looked {
            Ok((found, located)) => {
                self.pause = FIRST_PAUSE;
                if self.sure && located.doubtful {
                    tracing::debug!(trunk, "the DNS is in doubt, the trunk's servers stay as they were");
                    return (false, located.ttl);
                }
                self.sure = !located.doubtful;
                let new = self.found != found;
                self.found = found;
                (new, located.ttl)
            }
            Err(error) => {
                if self.pause == FIRST_PAUSE {
                    tracing::warn!(trunk, %error, "the trunk's server can't be found, trying on");
                }
                let wait = self.pause;
                self.pause = (wait * 2).min(LONGEST_PAUSE);
                (false, wait)
            }
        }
    }
}

/// Follows one trunk's name for as long as somebody listens; tells each change, as `as_input` words it: the trunk's
/// name, and where its servers are, in the order in which to try them, at least one.
pub async fn follow<M: Send>(
    lookup: Lookup,
    resolver: Resolver,
    ours: Ours,
    tell: mpsc::Sender<M>,
    as_input: fn(String, Vec<Found>) -> M,
) {
    let seed = random::seed();
    let mut known = Knowledge { found: Vec::new(), sure: false, pause: FIRST_PAUSE };
    loop {
        let (new, wait) = known.learn(&lookup.trunk, find(&lookup, &resolver, &ours, seed).await);
        if new {
            for Found { way, local } in &known.found {
                tracing::info!(trunk = %lookup.trunk, server = %way, %local, "the trunk's server");
            }
            if tell.send(as_input(lookup.trunk.clone(), known.found.clone())).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = tell.closed() => return,
        }
    }
}

async fn find(
    lookup: &Lookup,
    resolver: &Resolver,
    ours: &Ours,
    seed: u64,
) -> Result<(Vec<Found>, Located), String> {
    let families = Families::of(ours.udp.ip());
    let located = resolver.locate(&lookup.target, families, seed).await?;
    let mut found = Vec::new();
    let mut why = String::new();
    for way in &located.ways {
        match ours.towards(*way) {
            Ok(local) => found.push(Found { way: *way, local }),
            // IPv6 in the DNS and none in the house is common.
            Err(error) => why = format!("there is no route to {}: {error}", way.address.ip()),
        }
    }
    if found.is_empty() { Err(why) } else { Ok((found, located)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Ours {
        Ours {
            udp: "0.0.0.0:5060".parse().unwrap(),
            tcp: "0.0.0.0:5070".parse().unwrap(),
            tls: Some("0.0.0.0:5061".parse().unwrap()),
            public_ip: None,
        }
    }

    fn way(text: &str, transport: Transport) -> Way {
        Way { transport, address: text.parse().unwrap() }
    }

    fn looked(address: &str, seconds: u64, doubtful: bool) -> Result<(Vec<Found>, Located), String> {
        let way = way(address, Transport::Udp);
        let found = vec![Found { way, local: "127.0.0.1:5060".parse().unwrap() }];
        Ok((found, Located { ways: vec![way], ttl: Duration::from_secs(seconds), doubtful }))
    }

    #[test]
    fn what_we_write_of_ourselves_is_the_listener_of_that_transport() {
        let ours = ours();
        for (transport, expected) in [
            (Transport::Udp, "127.0.0.1:5060"),
            (Transport::Tcp, "127.0.0.1:5070"),
            (Transport::Tls, "127.0.0.1:5061"),
        ] {
            assert_eq!(ours.towards(way("127.0.0.1:7", transport)).unwrap().to_string(), expected);
        }
        let public = Ours { public_ip: Some("198.51.100.7".parse().unwrap()), tls: None, ..ours };
        let local = public.towards(way("127.0.0.1:7", Transport::Tls)).unwrap();
        assert_eq!(local.to_string(), "198.51.100.7:5070");
        let nat = Ours { public_ip: Some("9.9.9.9".parse().unwrap()), ..ours };
        let local = |peer: &str| nat.towards(way(peer, Transport::Udp)).unwrap().to_string();
        assert_eq!(local("8.8.8.8:5060"), "9.9.9.9:5060");
        assert_eq!(local("127.0.0.1:5060"), "127.0.0.1:5060", "a PBX on this side of the NAT");
        let bound = Ours { udp: "127.0.0.9:5060".parse().unwrap(), ..ours };
        assert_eq!(bound.towards(way("127.0.0.1:7", Transport::Udp)).unwrap().to_string(), "127.0.0.9:5060");
    }

    #[test]
    fn failures_and_doubts_keep_the_last_good_answer() {
        let mut known = Knowledge { found: Vec::new(), sure: false, pause: FIRST_PAUSE };
        let seconds = Duration::from_secs;
        assert_eq!(
            known.learn("t", looked("192.0.2.1:5060", 30, true)),
            (true, seconds(30)),
            "better than nothing"
        );
        assert_eq!(
            known.learn("t", looked("192.0.2.2:5060", 30, true)),
            (true, seconds(30)),
            "no better known"
        );
        assert_eq!(known.learn("t", looked("192.0.2.3:5060", 40, false)), (true, seconds(40)));
        assert_eq!(known.learn("t", looked("192.0.2.3:5060", 50, false)), (false, seconds(50)), "the same");
        assert_eq!(known.learn("t", looked("192.0.2.4:5060", 60, true)), (false, seconds(60)), "in doubt");
        let waits: Vec<u64> = (0..7).map(|_| known.learn("t", Err("gone".to_owned())).1.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(known.found[0].way.address.to_string(), "192.0.2.3:5060");
        assert_eq!(known.learn("t", looked("192.0.2.5:5060", 20, false)), (true, seconds(20)), "it moved");
    }

    #[tokio::test]
    async fn a_trunk_is_told_once_it_is_found_and_the_task_ends_with_its_listener() {
        let target = Target {
            host: "127.0.0.1".to_owned(),
            port: None,
            transport: Some(Transport::Tls),
            secure: false,
        };
        let lookup = Lookup { trunk: "office".to_owned(), target };
        let (tell, mut told) = mpsc::channel(1);
        let task =
            tokio::spawn(follow(lookup, Resolver::system(), ours(), tell, |trunk, found| (trunk, found)));
        let Some((trunk, found)) = told.recv().await else { panic!("nothing was told") };
        assert_eq!((trunk.as_str(), found.len()), ("office", 1));
        assert_eq!(found[0].way.to_string(), "tls:127.0.0.1:5061");
        assert_eq!(found[0].local.to_string(), "127.0.0.1:5061");
        drop(told);
        task.await.unwrap();
    }
}
