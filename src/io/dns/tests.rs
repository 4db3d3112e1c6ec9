//! The resolver against a name server on loopback, whose messages are made by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::*;

/// What the server has under a name.
type Zone = BTreeMap<(&'static str, u16), Vec<(u32, Data)>>;

/// How it behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Answers over UDP are cut.
    Cuts,
    /// Says SERVFAIL to everything.
    Fails,
    /// Knows nothing of NAPTR and says so by NOTIMP.
    NoNaptr,
}

/// RCODEs of RFC 1035 §4.1.1.
const SERVER_FAILURE: u8 = 2;
const NOT_IMPLEMENTED: u8 = 4;

struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<(Zone, Mood)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

fn answer(question: &[u8], zone: &Zone, mood: Mood, datagram: bool) -> (Vec<u8>, String) {
    let (name, number) = by_hand::asked(question);
    let kind = by_hand::NUMBERS.iter().find(|(_, each)| *each == number).unwrap().0;
    let said = format!("{} {name}", format!("{kind:?}").to_uppercase());
    if mood == Mood::Fails {
        return (by_hand::reply(question, 0, SERVER_FAILURE, &[]), said);
    }
    if mood == Mood::NoNaptr && kind == Kind::Naptr {
        return (by_hand::reply(question, 0, NOT_IMPLEMENTED, &[]), said);
    }
    if mood == Mood::Cuts && datagram {
        return (by_hand::reply(question, by_hand::CUT, 0, &[]), said);
    }
    let mut owner = name;
    let mut code = 0;
    let mut records = Vec::new();
    loop {
        if !zone.keys().any(|(each, _)| *each == owner) {
            code = NO_SUCH_NAME;
        }
        let alias = zone.iter().find(|((each, number), _)| *each == owner && *number == by_hand::ALIAS);
        let wanted = zone.iter().find(|((each, each_number), _)| *each == owner && *each_number == number);
        for ((each, _), found) in alias.iter().chain(wanted.iter()) {
            records.extend(found.iter().map(|(ttl, data)| (*each, *ttl, data.clone())));
        }
        match alias.and_then(|(_, found)| found.first()) {
            Some((_, Data::Alias(to))) => owner = to.clone(),
            _ => break,
        }
    }
    (by_hand::reply(question, 0, code, &records), said)
}

impl Server {
    async fn start(records: Vec<(&'static str, u32, Data)>, mood: Mood) -> Server {
        let mut zone = Zone::new();
        for (name, ttl, data) in records {
            zone.entry((name, by_hand::number(&data))).or_default().push((ttl, data));
        }
        let zone = Arc::new(Mutex::new((zone, mood)));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let (shared, heard) = (Arc::clone(&zone), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let (bytes, said) = {
                    let held = shared.lock().unwrap();
                    answer(&buffer[..length], &held.0, held.1, true)
                };
                heard.lock().unwrap().push(said);
                let _ = udp.send_to(&bytes, from).await;
            }
        });
        let shared = Arc::clone(&zone);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; usize::from(length)];
                stream.read_exact(&mut question).await.unwrap();
                let (bytes, _) = {
                    let held = shared.lock().unwrap();
                    answer(&question, &held.0, held.1, false)
                };
                stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        });
        Server { address, zone, asked }
    }

    fn resolver(&self) -> Resolver {
        Resolver::by(vec![self.address], PathBuf::from("/nonexistent"))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn a(ip: &str) -> Data {
    Data::Address(ip.parse().unwrap())
}

fn srv(priority: u16, port: u16, target: &str) -> Data {
    Data::Srv(Srv { priority, weight: 0, port, target: target.to_owned() })
}

fn naptr(order: u16, services: &str, replacement: &str) -> Data {
    Data::Naptr(Naptr {
        order,
        preference: 1,
        flags: "s".to_owned(),
        services: services.to_owned(),
        replacement: replacement.to_owned(),
    })
}

fn target(host: &str) -> Target {
    Target { host: host.to_owned(), port: None, transport: None, secure: false }
}

const V4: Families = Families { v4: true, v6: false };
const BOTH: Families = Families { v4: true, v6: true };

async fn ways(resolver: &Resolver, target: &Target, families: Families) -> Vec<String> {
    match resolver.locate(target, families, 1).await {
        Ok(located) => located.ways.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error],
    }
}

#[tokio::test]
async fn naptr_leads_to_srv_and_srv_to_addresses_in_their_orders() {
    let server = Server::start(
        vec![
            ("carrier.test", 900, naptr(20, "SIP+D2U", "_sip._udp.carrier.test")),
            ("carrier.test", 900, naptr(10, "SIPS+D2T", "_sips._tcp.carrier.test")),
            ("_sips._tcp.carrier.test", 900, srv(2, 5071, "two.carrier.test")),
            ("_sips._tcp.carrier.test", 900, srv(1, 5061, "one.carrier.test")),
            ("_sip._udp.carrier.test", 120, srv(1, 5060, "one.carrier.test")),
            ("one.carrier.test", 200, a("192.0.2.1")),
            ("one.carrier.test", 200, a("2001:db8::1")),
            ("two.carrier.test", 200, a("192.0.2.2")),
        ],
        Mood::Well,
    )
    .await;
    let resolver = server.resolver();
    let located = resolver.locate(&target("carrier.test"), BOTH, 1).await.unwrap();
    let ways: Vec<String> = located.ways.iter().map(ToString::to_string).collect();
    let expected = [
        "tls:192.0.2.1:5061",
        "tls:[2001:db8::1]:5061",
        "tls:192.0.2.2:5071",
        "udp:192.0.2.1:5060",
        "udp:[2001:db8::1]:5060",
    ];
    assert_eq!(ways, expected);
    assert_eq!((located.ttl, located.doubtful), (Duration::from_secs(120), false), "the shortest of all");
    let only_v4 = resolver.locate(&target("carrier.test"), V4, 1).await.unwrap();
    assert_eq!(only_v4.ways.len(), 3, "a socket of IPv4 reaches no IPv6");
}

#[tokio::test]
async fn a_port_asks_for_addresses_alone_and_a_number_for_nothing() {
    let server = Server::start(vec![("pbx.test", 60, a("192.0.2.9"))], Mood::Well).await;
    let resolver = server.resolver();
    let with_port = Target { port: Some(5080), transport: Some(Transport::Tcp), ..target("pbx.test") };
    assert_eq!(ways(&resolver, &with_port, V4).await, ["tcp:192.0.2.9:5080"]);
    assert_eq!(server.asked(), ["A pbx.test"]);
    assert_eq!(ways(&resolver, &target("192.0.2.7"), V4).await, ["udp:192.0.2.7:5060"]);
    assert_eq!(server.asked(), Vec::<String>::new());
    let v6 = ways(&resolver, &target("2001:db8::7"), V4).await;
    assert!(v6[0].contains("can't be reached"), "{v6:?}");
}

#[tokio::test]
async fn a_name_without_services_is_its_own_server_over_udp() {
    let server = Server::start(vec![("pbx.test", 1, a("192.0.2.9"))], Mood::Well).await;
    let located = server.resolver().locate(&target("pbx.test."), V4, 1).await.unwrap();
    assert_eq!(located.ways[0].to_string(), "udp:192.0.2.9:5060");
    assert_eq!(located.ttl, SHORTEST, "not asked again more often than that");
    let asked = server.asked();
    assert_eq!(
        asked,
        [
            "NAPTR pbx.test",
            "SRV _sip._udp.pbx.test",
            "SRV _sip._tcp.pbx.test",
            "SRV _sips._tcp.pbx.test",
            "A pbx.test"
        ]
    );
}

#[tokio::test]
async fn a_given_transport_asks_for_its_own_service() {
    let server = Server::start(
        vec![("_sip._tcp.pbx.test", 60, srv(1, 5070, "a.pbx.test")), ("a.pbx.test", 60, a("192.0.2.3"))],
        Mood::Well,
    )
    .await;
    let tcp = Target { transport: Some(Transport::Tcp), ..target("pbx.test") };
    assert_eq!(ways(&server.resolver(), &tcp, V4).await, ["tcp:192.0.2.3:5070"]);
    assert_eq!(server.asked(), ["SRV _sip._tcp.pbx.test", "A a.pbx.test"]);
}

#[tokio::test]
async fn aliases_are_followed_to_their_end_and_an_endless_one_is_not() {
    let alias = |to: &str| Data::Alias(to.to_owned());
    let server = Server::start(
        vec![
            ("pbx.test", 30, alias("host.cloud.test")),
            ("host.cloud.test", 60, alias("h7.cloud.test")),
            ("h7.cloud.test", 90, a("192.0.2.4")),
        ],
        Mood::Well,
    )
    .await;
    let with_port = Target { port: Some(5060), ..target("pbx.test") };
    let located = server.resolver().locate(&with_port, V4, 1).await.unwrap();
    assert_eq!(located.ways[0].to_string(), "udp:192.0.2.4:5060");
    assert_eq!(located.ttl, Duration::from_secs(30));
}

#[tokio::test]
async fn an_answer_that_was_cut_is_asked_for_again_over_tcp() {
    let server = Server::start(vec![("pbx.test", 60, a("192.0.2.5"))], Mood::Cuts).await;
    let with_port = Target { port: Some(5060), ..target("pbx.test") };
    assert_eq!(ways(&server.resolver(), &with_port, V4).await, ["udp:192.0.2.5:5060"]);
}

#[tokio::test]
async fn a_router_that_knows_no_naptr_still_leads_to_the_server_but_in_doubt() {
    let server = Server::start(
        vec![("_sip._udp.pbx.test", 60, srv(1, 5062, "a.pbx.test")), ("a.pbx.test", 60, a("192.0.2.3"))],
        Mood::NoNaptr,
    )
    .await;
    let located = server.resolver().locate(&target("pbx.test"), V4, 1).await.unwrap();
    assert_eq!(located.ways[0].to_string(), "udp:192.0.2.3:5062");
    assert!(located.doubtful);
}

#[tokio::test]
async fn a_name_that_is_not_there_and_a_server_that_fails_are_told_apart() {
    let server = Server::start(vec![], Mood::Well).await;
    let resolver = server.resolver();
    assert_eq!(
        ways(&resolver, &target("no.test"), V4).await,
        ["no.test is not found: there is no such name"]
    );
    server.zone.lock().unwrap().1 = Mood::Fails;
    let said = ways(&resolver, &target("no.test"), V4).await;
    assert!(said[0].contains("refuses (code 2)"), "{said:?}");
    let nobody = Resolver::by(vec![], PathBuf::from("/nonexistent"));
    assert!(ways(&nobody, &target("no.test"), V4).await[0].contains("no DNS server is known"));
}

#[tokio::test]
async fn the_second_server_answers_where_the_first_is_dead() {
    let server = Server::start(vec![("pbx.test", 60, a("192.0.2.5"))], Mood::Well).await;
    // Bound and closed again: what is sent there is refused at once.
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let resolver = Resolver::by(vec![dead, server.address], PathBuf::from("/nonexistent"));
    let with_port = Target { port: Some(5060), ..target("pbx.test") };
    assert_eq!(ways(&resolver, &with_port, V4).await, ["udp:192.0.2.5:5060"]);
}

#[tokio::test]
async fn the_file_of_hosts_comes_before_the_dns() {
    let server = Server::start(vec![("pbx.test", 60, a("192.0.2.5"))], Mood::Well).await;
    let file = std::env::temp_dir().join(format!("watrunk-hosts-{}", std::process::id()));
    std::fs::write(&file, "# a comment\n10.0.0.5 other pbx.test # here\n::1 pbx.test\n").unwrap();
    let resolver = Resolver::by(vec![server.address], file.clone());
    assert_eq!(ways(&resolver, &target("PBX.test"), V4).await, ["udp:10.0.0.5:5060"]);
    assert_eq!(server.asked(), Vec::<String>::new());
    std::fs::write(&file, "::1 pbx.test\n").unwrap();
    let said = ways(&resolver, &target("pbx.test"), V4).await;
    assert!(said[0].contains("IP version"), "{said:?}");
    let _ = std::fs::remove_file(&file);
}

#[test]
fn the_servers_of_resolv_conf_are_read_and_without_any_it_is_this_host() {
    let text = "# x\nsearch a.test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver bad\n\
                nameserver fe80::1%lo\noptions ndots:1\nnameserver 192.0.2.54\n";
    let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["192.0.2.53:53", "[2001:db8::53]:53", "[fe80::1%1]:53"]);
    assert_eq!(servers("").iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:53"]);
}

#[test]
fn a_bound_address_says_what_it_reaches() {
    assert_eq!(Families::of("0.0.0.0".parse().unwrap()), V4);
    assert_eq!(Families::of("::".parse().unwrap()), BOTH);
    assert_eq!(Families::of("2001:db8::1".parse().unwrap()), Families { v4: false, v6: true });
}
