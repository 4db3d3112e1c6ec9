//! Where a SIP server is, by the DNS (RFC 3263): NAPTR, SRV, A and AAAA from the host's own name servers.
//!
//! Questions go to the servers of `/etc/resolv.conf`, read anew each time: a host that moves to another network needs
//! no restart. Names of `/etc/hosts` are taken from there alone. Whatever these two don't know, and what has no dot,
//! the system's own resolver may know.

#[cfg(test)]
mod by_hand;
mod message;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::random;
use crate::sip::locate::{self, Naptr, Plan, Srv, Target};
use crate::sip::{Transport, Way};
use message::{Data, Kind, Reply};

/// How long one server is waited for, and how often all of them are asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Servers that are asked (as many as the C library asks).
const SERVERS: usize = 3;
/// Aliases that are followed.
const ALIASES: usize = 8;
/// SRV records, addresses of one host, and ways in all that are kept.
const MOST_SERVICES: usize = 8;
const MOST_ADDRESSES: usize = 4;
const MOST_WAYS: usize = 16;
/// How long an answer holds that says nothing of it, and between what it holds whatever it says.
const UNSAID: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);

/// The addresses that a socket can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4; tried first.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// What a socket bound to this address reaches: `::` both, every other address its own family.
    pub fn of(bound: IpAddr) -> Families {
        Families { v4: bound.is_ipv4() || bound.is_unspecified(), v6: bound.is_ipv6() }
    }

    fn fit(self, ip: &IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// In the order in which to try them; never empty.
    pub ways: Vec<Way>,
    /// After this time it has to be asked again: 5 s to 5 min.
    pub ttl: Duration,
    /// Some question was not answered: there may be better ways. What was known before is worth more.
    pub doubtful: bool,
}

/// What kept a question from being answered.
enum Fault {
    /// The DNS says that there is nothing.
    Nothing,
    /// No server answered to the purpose.
    Failed(String),
}

/// Asks the DNS.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Option<Vec<SocketAddr>>,
    hosts: PathBuf,
}

impl Resolver {
    /// By `/etc/resolv.conf` and `/etc/hosts`.
    pub fn system() -> Resolver {
        Resolver { servers: None, hosts: PathBuf::from("/etc/hosts") }
    }

    /// By these servers and this file of hosts alone.
    #[cfg(test)]
    pub fn by(servers: Vec<SocketAddr>, hosts: PathBuf) -> Resolver {
        Resolver { servers: Some(servers), hosts }
    }

    /// The ways to a target. `seed` draws among servers of one priority: the same seed, the same order.
    ///
    /// # Errors
    /// Why there is none, in words, with the name that was asked for.
    pub async fn locate(&self, target: &Target, families: Families, seed: u64) -> Result<Located, String> {
        let host = target.host.trim_end_matches('.');
        let target = Target { host: host.to_owned(), ..target.clone() };
        let mut search = Search { resolver: self, families, ttl: None, ways: Vec::new(), doubtful: false };
        let plain = if target.secure { Transport::Tls } else { target.transport.unwrap_or(Transport::Udp) };
        match locate::plan(&target) {
            Plan::Numeric(transport, ip, port) => {
                if !families.fit(&ip) {
                    return Err(format!("{ip} can't be reached: sip.listen is of the other IP version"));
                }
                search.add(transport, ip, port);
                search.ttl = Some(LONGEST);
            }
            Plan::Address(transport, port) => search.addresses(host, transport, port).await?,
            // The operator has named the machine: there is nothing to look for beyond it.
            Plan::Srv(_) | Plan::Naptr if !self.in_hosts(host).await.is_empty() || !host.contains('.') => {
                search.addresses(host, plain, plain.usual_port()).await?;
            }
            Plan::Srv(services) => search.services(&services, seed).await,
            Plan::Naptr => {
                let services = search.rules(&target).await;
                search.services(&services, seed).await;
            }
        }
        if search.ways.is_empty() {
            search.addresses(host, plain, plain.usual_port()).await?;
        }
        let ttl = search.ttl.unwrap_or(UNSAID).clamp(SHORTEST, LONGEST);
        Ok(Located { ways: search.ways, ttl, doubtful: search.doubtful })
    }

    /// The addresses that the file of hosts has for a name.
    async fn in_hosts(&self, name: &str) -> Vec<IpAddr> {
        let text = tokio::fs::read_to_string(&self.hosts).await.unwrap_or_default();
        let mut found = Vec::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let ip = words.next().and_then(|word| word.parse::<IpAddr>().ok());
            if let Some(ip) = ip.filter(|_| words.any(|word| word.eq_ignore_ascii_case(name))) {
                found.push(ip);
            }
        }
        found
    }

    async fn servers(&self) -> Vec<SocketAddr> {
        match &self.servers {
            Some(servers) => servers.clone(),
            None => servers(&tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default()),
        }
    }

    /// The values of one kind that a name has, aliases followed, and for how long they hold.
    async fn ask(&self, name: &str, kind: Kind) -> Result<(Vec<Data>, Duration), Fault> {
        let mut name = name.trim_end_matches('.').to_ascii_lowercase();
        let mut ttl = LONGEST;
        for _ in 0..ALIASES {
            let reply = self.reply(&name, kind).await?;
            let alias = |of: &str| {
                reply.records.iter().find_map(|record| match &record.data {
                    Data::Alias(to) if record.name == of => Some((to.as_str(), record.ttl)),
                    Data::Alias(_) | Data::Address(_) | Data::Srv(_) | Data::Naptr(_) => None,
                })
            };
            let mut owner = name.as_str();
            for _ in 0..ALIASES {
                let Some((to, seconds)) = alias(owner) else { break };
                ttl = ttl.min(Duration::from_secs(u64::from(seconds)));
                owner = to;
            }
            let mut found = Vec::new();
            for record in reply.records.iter().filter(|record| record.name == owner) {
                let wanted = match &record.data {
                    Data::Address(ip) => kind == if ip.is_ipv4() { Kind::A } else { Kind::Aaaa },
                    Data::Srv(_) => kind == Kind::Srv,
                    Data::Naptr(_) => kind == Kind::Naptr,
                    Data::Alias(_) => false,
                };
                if wanted {
                    ttl = ttl.min(Duration::from_secs(u64::from(record.ttl)));
                    found.push(record.data.clone());
                }
            }
            if !found.is_empty() {
                return Ok((found, ttl));
            }
            // A server that names an alias and no more: the alias has to be asked for.
            if owner == name || reply.code == NO_SUCH_NAME {
                return Err(Fault::Nothing);
            }
            name = owner.to_owned();
        }
        Err(Fault::Failed(format!("{name} is an alias of an alias without end")))
    }

    /// The first reply of a server that is one: "no such name" counts, a failure does not.
    async fn reply(&self, name: &str, kind: Kind) -> Result<Reply, Fault> {
        let servers = self.servers().await;
        let mut last = String::from("no DNS server is known");
        for _ in 0..ROUNDS {
            for server in servers.iter().take(SERVERS) {
                let id = (random::word() & 0xffff) as u16;
                let Some(question) = message::question(id, name, kind) else {
                    return Err(Fault::Failed(format!("\"{name}\" can't be a name")));
                };
                match exchange(*server, &question).await {
                    Ok(reply) if matches!(reply.code, 0 | NO_SUCH_NAME) => return Ok(reply),
                    Ok(reply) => last = format!("the DNS server {server} refuses (code {})", reply.code),
                    Err(error) => last = format!("the DNS server {server}: {error}"),
                }
            }
        }
        Err(Fault::Failed(last))
    }
}

/// RCODE of a name that does not exist.
const NO_SUCH_NAME: u8 = 3;

/// The servers of a `resolv.conf`; without one, this host's own.
fn servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        let word = words.next()?;
        match word.split_once('%') {
            None => Some(SocketAddr::new(word.parse().ok()?, 53)),
            Some((ip, zone)) => {
                let scope = nix::net::if_::if_nametoindex(zone).ok()?;
                Some(SocketAddrV6::new(ip.parse().ok()?, 53, 0, scope).into())
            }
        }
    });
    let found: Vec<SocketAddr> = named.take(SERVERS).collect();
    if found.is_empty() { vec![(Ipv4Addr::LOCALHOST, 53).into()] } else { found }
}

/// One question to one server: over UDP from a port of its own, and again over TCP if the answer was too long.
async fn exchange(server: SocketAddr, question: &[u8]) -> std::io::Result<Reply> {
    let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer");
    let reply = timeout(PATIENCE, over_udp(server, question)).await.map_err(late)??;
    if !reply.truncated {
        return Ok(reply);
    }
    timeout(PATIENCE, over_tcp(server, question)).await.map_err(late)?
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Reply> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = [0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = message::reply(buffer.get(..length).unwrap_or_default(), question) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = u16::try_from(question.len()).unwrap_or(0).to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    message::reply(&bytes, question).ok_or_else(|| std::io::Error::other("the answer can't be read"))
}

/// One look for ways.
struct Search<'a> {
    resolver: &'a Resolver,
    families: Families,
    /// The shortest of the answers so far.
    ttl: Option<Duration>,
    ways: Vec<Way>,
    doubtful: bool,
}

impl Search<'_> {
    fn holds(&mut self, ttl: Duration) {
        self.ttl = Some(self.ttl.map_or(ttl, |before| before.min(ttl)));
    }

    fn add(&mut self, transport: Transport, ip: IpAddr, port: u16) {
        let way = Way { transport, address: SocketAddr::new(ip.to_canonical(), port) };
        if self.ways.len() < MOST_WAYS && !self.ways.contains(&way) {
            self.ways.push(way);
        }
    }

    /// A question stays open. Ways may still be found by other means; whether they are all is not known.
    fn fails(&mut self, name: &str, why: &str) {
        tracing::debug!(%name, %why, "the DNS does not answer");
        self.doubtful = true;
        self.holds(UNSAID);
    }

    /// NAPTR, or what stands in for it. Routers that answer for the DNS often know no NAPTR: SRV is asked for anyway.
    async fn rules(&mut self, target: &Target) -> Vec<(Transport, String)> {
        match self.resolver.ask(&target.host, Kind::Naptr).await {
            Ok((found, ttl)) => {
                let rules: Vec<Naptr> = found
                    .into_iter()
                    .filter_map(|data| if let Data::Naptr(rule) = data { Some(rule) } else { None })
                    .collect();
                let services = locate::by_naptr(&rules, target.secure);
                if !services.is_empty() {
                    self.holds(ttl);
                    return services;
                }
            }
            Err(Fault::Nothing) => {}
            Err(Fault::Failed(why)) => self.fails(&target.host, &why),
        }
        locate::services(target)
    }

    /// SRV of each name, and the addresses of what they name. Those that there are not are left out.
    async fn services(&mut self, services: &[(Transport, String)], seed: u64) {
        for (transport, name) in services.iter().take(MOST_SERVICES) {
            let (found, ttl) = match self.resolver.ask(name, Kind::Srv).await {
                Ok(found) => found,
                Err(Fault::Nothing) => continue,
                Err(Fault::Failed(why)) => return self.fails(name, &why),
            };
            self.holds(ttl);
            let records: Vec<Srv> = found
                .into_iter()
                .filter_map(|data| if let Data::Srv(record) = data { Some(record) } else { None })
                .collect();
            for record in locate::in_order(&records, seed).into_iter().take(MOST_SERVICES) {
                if let Err(error) = self.addresses(&record.target, *transport, record.port).await {
                    tracing::debug!(%error, service = %name, "a server of a service has no address");
                }
            }
        }
    }

    /// A and AAAA of a host, IPv4 first, each in an order that does not change with every answer.
    async fn addresses(&mut self, host: &str, transport: Transport, port: u16) -> Result<(), String> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            self.add(transport, ip, port);
            return Ok(());
        }
        let mut found = self.resolver.in_hosts(host).await;
        let mut why = "there is no such name".to_owned();
        if found.is_empty() && host.contains('.') {
            for kind in [Kind::A, Kind::Aaaa] {
                if if kind == Kind::A { !self.families.v4 } else { !self.families.v6 } {
                    continue;
                }
                match self.resolver.ask(host, kind).await {
                    Ok((data, ttl)) => {
                        self.holds(ttl);
                        found.extend(
                            data.into_iter().filter_map(|data| {
                                if let Data::Address(ip) = data { Some(ip) } else { None }
                            }),
                        );
                    }
                    Err(Fault::Nothing) => {}
                    Err(Fault::Failed(failed)) => {
                        self.fails(host, &failed);
                        why = failed;
                    }
                }
            }
        }
        if found.is_empty() && self.resolver.servers.is_none() {
            let looked = timeout(PATIENCE * 2, tokio::net::lookup_host((host, port))).await;
            if let Ok(Ok(addresses)) = looked {
                found.extend(addresses.map(|address| address.ip()));
            }
        }
        if !found.is_empty() && !found.iter().any(|ip| self.families.fit(ip)) {
            why = "it has addresses of the IP version alone that sip.listen is not of".to_owned();
        }
        found.retain(|ip| self.families.fit(ip));
        let mut sorted: Vec<IpAddr> = Vec::with_capacity(found.len());
        for ip in found {
            let at = sorted.partition_point(|other| *other < ip);
            if sorted.get(at) != Some(&ip) {
                sorted.insert(at, ip);
            }
        }
        let found = sorted;
        if found.is_empty() {
            return Err(format!("{host} is not found: {why}"));
        }
        for ip in found.into_iter().take(MOST_ADDRESSES) {
            self.add(transport, ip, port);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
