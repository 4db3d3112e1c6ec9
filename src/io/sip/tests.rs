//! SIP's sockets against peers on loopback: real ones, with real time standing still where something is awaited.

mod tls;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::*;

const LOOPBACK: &str = "127.0.0.1:0";
/// Longer than anything takes that has to happen.
const PATIENCE: Duration = Duration::from_secs(10);

fn settings() -> SipSettings {
    SipSettings { listen: LOOPBACK.parse().unwrap(), tls: None, dscp: 24 }
}

fn open(settings: SipSettings) -> SipSockets {
    SipSockets::open(settings, Box::new(|ip| ip.is_loopback())).unwrap()
}

/// Sockets, and the way to a peer that listens.
async fn with_peer() -> (SipSockets, TcpListener, Way) {
    let peer = TcpListener::bind(LOOPBACK).await.unwrap();
    let way = tcp(peer.local_addr().unwrap());
    (open(settings()), peer, way)
}

fn tcp(address: SocketAddr) -> Way {
    Way { transport: Transport::Tcp, address }
}

fn request(method: &str, number: usize) -> Vec<u8> {
    format!("{method} sip:a@b SIP/2.0\r\nCSeq: {number} {method}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

const ANSWER: &[u8] = b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n";

/// What comes in next.
async fn next(sockets: &mut SipSockets) -> SipIn {
    timeout(PATIENCE, sockets.recv()).await.expect("nothing came in")
}

/// Lets everything that is under way happen, and expects nothing of it to come in.
async fn quiet(sockets: &mut SipSockets) {
    for _ in 0..50 {
        let came = timeout(Duration::from_millis(1), sockets.recv()).await;
        assert!(came.is_err(), "{came:?} came in");
    }
}

/// Lets happen what is under way until this holds, and expects nothing to come in meanwhile.
async fn until(sockets: &mut SipSockets, holds: impl Fn(&SipSockets) -> bool) {
    let begun = std::time::Instant::now();
    while !holds(sockets) {
        assert!(begun.elapsed() < PATIENCE, "{} connections", sockets.connections());
        let came = timeout(Duration::from_millis(1), sockets.recv()).await;
        assert!(came.is_err(), "{came:?} came in");
    }
}

async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("nothing arrived").unwrap();
    bytes
}

/// Whether the other side has closed it: nothing more is read.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

/// A client of ours, from this address.
async fn client(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

fn unreachable(input: SipIn, way: Way) -> String {
    match input {
        SipIn::Unreachable { way: told, why } if told == way => why,
        other => panic!("{other:?} instead of {way} unreachable"),
    }
}

#[tokio::test]
async fn one_connection_carries_requests_and_answers_both_ways() {
    let (mut sockets, peer, way) = with_peer().await;
    for number in 1..=3 {
        sockets.send(way, request("OPTIONS", number));
    }
    let (mut stream, _) = peer.accept().await.unwrap();
    let expected = (1..=3).flat_map(|number| request("OPTIONS", number)).collect::<Vec<u8>>();
    assert_eq!(read(&mut stream, expected.len()).await, expected, "in their order");
    stream.write_all(&[ANSWER, &request("BYE", 7)].concat()).await.unwrap();
    assert_eq!(next(&mut sockets).await, SipIn::Message { from: way, bytes: ANSWER.to_vec() });
    assert_eq!(next(&mut sockets).await, SipIn::Message { from: way, bytes: request("BYE", 7) });
    sockets.send(way, ANSWER.to_vec());
    assert_eq!(read(&mut stream, ANSWER.len()).await, ANSWER);
    assert_eq!(sockets.connections(), 1);
    assert!(timeout(Duration::from_millis(20), peer.accept()).await.is_err(), "no second connection");
}

#[tokio::test]
async fn a_connection_that_the_peer_has_opened_carries_the_answer() {
    let mut sockets = open(settings());
    let mut stream = client(LOOPBACK, sockets.ours(None).tcp).await;
    let invite = request("INVITE", 1);
    let (first, second) = invite.split_at(20);
    stream.write_all(first).await.unwrap();
    quiet(&mut sockets).await;
    stream.write_all(second).await.unwrap();
    let way = tcp(stream.local_addr().unwrap());
    assert_eq!(next(&mut sockets).await, SipIn::Message { from: way, bytes: invite.clone() });
    sockets.send(way, ANSWER.to_vec());
    assert_eq!(read(&mut stream, ANSWER.len()).await, ANSWER);
    assert_eq!(sockets.connections(), 1);
}

#[tokio::test]
async fn datagrams_go_both_ways_and_share_the_port_of_tcp() {
    let mut sockets = open(settings());
    let ours = sockets.ours(None);
    assert_eq!(ours.udp, ours.tcp);
    let peer = UdpSocket::bind(LOOPBACK).await.unwrap();
    let way = Way { transport: Transport::Udp, address: peer.local_addr().unwrap() };
    peer.send_to(&request("OPTIONS", 1), ours.udp).await.unwrap();
    assert_eq!(next(&mut sockets).await, SipIn::Message { from: way, bytes: request("OPTIONS", 1) });
    sockets.send(way, ANSWER.to_vec());
    let mut buffer = [0; 100];
    let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..length], from), (ANSWER, ours.udp));
}

#[tokio::test]
async fn sockets_of_both_protocols_speak_to_ipv4_as_such() {
    let mut sockets = open(SipSettings { listen: "[::]:0".parse().unwrap(), ..settings() });
    let port = sockets.ours(None).udp.port();
    let to: SocketAddr = (std::net::Ipv4Addr::LOCALHOST, port).into();
    let phone = UdpSocket::bind(LOOPBACK).await.unwrap();
    phone.send_to(&request("OPTIONS", 1), to).await.unwrap();
    let way = Way { transport: Transport::Udp, address: phone.local_addr().unwrap() };
    assert_eq!(next(&mut sockets).await, SipIn::Message { from: way, bytes: request("OPTIONS", 1) });
    sockets.send(way, ANSWER.to_vec());
    let mut buffer = [0; 100];
    assert_eq!(phone.recv(&mut buffer).await.unwrap(), ANSWER.len());
    let mut stream = client(LOOPBACK, to).await;
    stream.write_all(&request("BYE", 1)).await.unwrap();
    let way = tcp(stream.local_addr().unwrap());
    assert_eq!(next(&mut sockets).await, SipIn::Message { from: way, bytes: request("BYE", 1) });
    sockets.send(way, ANSWER.to_vec());
    assert_eq!(read(&mut stream, ANSWER.len()).await, ANSWER);
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unreachable_at_once() {
    let (mut sockets, peer, way) = with_peer().await;
    drop(peer);
    sockets.send(way, request("OPTIONS", 1));
    sockets.send(way, request("OPTIONS", 2));
    assert_eq!(unreachable(next(&mut sockets).await, way), "connection refused");
    quiet(&mut sockets).await;
    assert_eq!(sockets.connections(), 0);
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_told_and_the_next_message_opens_another() {
    let (mut sockets, peer, way) = with_peer().await;
    let invite = request("INVITE", 1);
    sockets.send(way, invite.clone());
    let (mut stream, _) = peer.accept().await.unwrap();
    read(&mut stream, invite.len()).await;
    drop(stream);
    assert_eq!(unreachable(next(&mut sockets).await, way), "the peer closed the connection");
    sockets.send(way, invite.clone());
    let (mut stream, _) = peer.accept().await.unwrap();
    assert_eq!(read(&mut stream, invite.len()).await, invite);
}

#[tokio::test]
async fn an_idle_connection_that_is_closed_is_told_only_if_it_carries_a_trunk() {
    let (mut sockets, peer, way) = with_peer().await;
    for kept in [false, true] {
        sockets.keep(if kept { BTreeSet::from([way]) } else { BTreeSet::new() });
        sockets.send(way, request("OPTIONS", 1));
        let (mut stream, _) = peer.accept().await.unwrap();
        stream.write_all(ANSWER).await.unwrap();
        assert_eq!(next(&mut sockets).await, SipIn::Message { from: way, bytes: ANSWER.to_vec() });
        read(&mut stream, request("OPTIONS", 1).len()).await;
        drop(stream);
        if kept {
            let why = "the peer closed the connection".to_owned();
            assert_eq!(next(&mut sockets).await, SipIn::Closed { way, why });
        } else {
            quiet(&mut sockets).await;
        }
        assert_eq!(sockets.connections(), 0);
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_is_given_up_before_it_fills_the_memory() {
    let (mut sockets, peer, way) = with_peer().await;
    let mut big = request("MESSAGE", 1);
    big.resize(16 * 1024, b' ');
    let mut sent = 0;
    let mut said = None;
    let (_stream, _) = {
        sockets.send(way, big.clone());
        peer.accept().await.unwrap()
    };
    // The kernel takes some megabytes before it takes no more.
    while said.is_none() && sent < 2_000 {
        sockets.send(way, big.clone());
        sent += 1;
        said = timeout(Duration::from_millis(1), sockets.recv()).await.ok();
    }
    let why = unreachable(said.unwrap(), way);
    assert!(why.contains("too slowly"), "{why}");
    assert_eq!(sockets.connections(), 0);
}

#[tokio::test]
async fn a_peer_that_reads_nothing_for_ten_seconds_is_given_up() {
    let (mut sockets, peer, way) = with_peer().await;
    let mut big = request("MESSAGE", 1);
    big.resize(1024 * 1024, b' ');
    for _ in 0..20 {
        sockets.send(way, big.clone());
    }
    let (_stream, _) = peer.accept().await.unwrap();
    quiet(&mut sockets).await;
    tokio::time::pause();
    let why = unreachable(sockets.recv().await, way);
    assert_eq!(why, "the peer has read nothing for 10 s");
}

#[tokio::test]
async fn half_a_message_is_not_waited_for_for_ever() {
    let mut sockets = open(settings());
    let mut streams = Vec::new();
    for half in [&b""[..], b"INVITE sip:a", b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\n1234"] {
        let mut stream = client(LOOPBACK, sockets.ours(None).tcp).await;
        stream.write_all(half).await.unwrap();
        streams.push(stream);
    }
    until(&mut sockets, |sockets| sockets.connections() == 3).await;
    quiet(&mut sockets).await;
    tokio::time::pause();
    let begun = Instant::now();
    let waited = timeout(Duration::from_secs(40), sockets.recv()).await;
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!((begun.elapsed().as_secs(), sockets.connections()), (40, 0));
    tokio::time::resume();
    for mut stream in streams {
        assert!(is_closed(&mut stream).await);
    }
}

#[tokio::test]
async fn garbage_ends_its_connection_and_no_other() {
    let mut sockets = open(settings());
    let to = sockets.ours(None).tcp;
    let mut good = client(LOOPBACK, to).await;
    let mut bad = client(LOOPBACK, to).await;
    until(&mut sockets, |sockets| sockets.connections() == 2).await;
    bad.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(&mut sockets, |sockets| sockets.connections() == 1).await;
    assert!(is_closed(&mut bad).await);
    good.write_all(&request("OPTIONS", 1)).await.unwrap();
    let from = tcp(good.local_addr().unwrap());
    assert_eq!(next(&mut sockets).await, SipIn::Message { from, bytes: request("OPTIONS", 1) });
    assert_eq!(sockets.connections(), 1);
}

#[tokio::test]
async fn only_admitted_sources_get_past_the_listener() {
    let admits: Admits = Box::new(|ip| ip == IpAddr::from([127, 0, 0, 2]));
    let mut sockets = SipSockets::open(settings(), admits).unwrap();
    let to = sockets.ours(None).tcp;
    let mut stranger = client("127.0.0.1:0", to).await;
    let mut friend = client("127.0.0.2:0", to).await;
    let _ = stranger.write_all(&request("OPTIONS", 1)).await;
    friend.write_all(&request("OPTIONS", 2)).await.unwrap();
    let from = tcp(friend.local_addr().unwrap());
    assert_eq!(next(&mut sockets).await, SipIn::Message { from, bytes: request("OPTIONS", 2) });
    until(&mut sockets, |sockets| sockets.refused() == 1).await;
    assert_eq!(sockets.connections(), 1);
}

#[tokio::test]
async fn a_thousand_connections_of_one_source_leave_room_for_the_others() {
    let mut sockets = open(settings());
    let to = sockets.ours(None).tcp;
    let mut held = Vec::new();
    for _ in 0..20 {
        for _ in 0..50 {
            held.push(client("127.0.0.3:0", to).await);
        }
        let seen = held.len() as u64;
        until(&mut sockets, |sockets| sockets.connections() as u64 + sockets.refused() == seen).await;
    }
    assert_eq!((sockets.connections(), sockets.refused()), (PER_SOURCE, 1_000 - PER_SOURCE as u64));
    let mut other = client("127.0.0.4:0", to).await;
    other.write_all(&request("OPTIONS", 1)).await.unwrap();
    let from = tcp(other.local_addr().unwrap());
    assert_eq!(next(&mut sockets).await, SipIn::Message { from, bytes: request("OPTIONS", 1) });
}

#[tokio::test]
async fn a_full_house_closes_what_was_idle_the_longest() {
    let mut sockets = open(settings());
    let to = sockets.ours(None).tcp;
    let mut held = Vec::new();
    for source in 1..=8 {
        for _ in 0..PER_SOURCE {
            let mut stream = client(&format!("127.0.1.{source}:0"), to).await;
            stream.write_all(&request("OPTIONS", 1)).await.unwrap();
            next(&mut sockets).await;
            held.push(stream);
        }
    }
    assert_eq!(sockets.connections(), CONNECTIONS);
    // All of them are as good as in use.
    let mut early = client("127.0.1.9:0", to).await;
    until(&mut sockets, |sockets| sockets.refused() == 1).await;
    assert!(is_closed(&mut early).await);
    tokio::time::pause();
    tokio::time::advance(TRANSACTION).await;
    tokio::time::resume();
    held[0].write_all(&request("OPTIONS", 2)).await.unwrap();
    next(&mut sockets).await;
    let mut late = client("127.0.1.9:0", to).await;
    late.write_all(&request("OPTIONS", 3)).await.unwrap();
    let from = tcp(late.local_addr().unwrap());
    assert_eq!(next(&mut sockets).await, SipIn::Message { from, bytes: request("OPTIONS", 3) });
    assert_eq!(sockets.connections(), CONNECTIONS);
    assert!(is_closed(&mut held[1]).await, "the first one was used again, the second was not");
}

#[tokio::test]
async fn a_ping_of_the_peers_is_answered() {
    let mut sockets = open(settings());
    let mut stream = client(LOOPBACK, sockets.ours(None).tcp).await;
    stream.write_all(b"\r\n\r\n").await.unwrap();
    quiet(&mut sockets).await;
    assert_eq!(read(&mut stream, 2).await, b"\r\n");
}

/// A kept connection that has been idle from now on, time standing still.
async fn kept(sockets: &mut SipSockets, peer: &TcpListener, way: Way) -> TcpStream {
    sockets.keep(BTreeSet::from([way]));
    sockets.send(way, request("REGISTER", 1));
    let (mut stream, _) = peer.accept().await.unwrap();
    read(&mut stream, request("REGISTER", 1).len()).await;
    stream.write_all(ANSWER).await.unwrap();
    next(sockets).await;
    tokio::time::pause();
    stream
}

/// Answers pings until `stop`; says at which moments they came.
async fn pinged(sockets: &mut SipSockets, stream: &mut TcpStream, pings: usize, pong: bool) -> Vec<Duration> {
    let begun = Instant::now();
    let mut moments = Vec::new();
    for _ in 0..pings {
        let mut ping = [0; 4];
        tokio::select! {
            read = stream.read_exact(&mut ping) => assert_eq!((read.unwrap(), &ping), (4, b"\r\n\r\n")),
            input = sockets.recv() => panic!("{input:?} came in"),
        }
        moments.push(begun.elapsed());
        if pong {
            stream.write_all(b"\r\n").await.unwrap();
        }
    }
    moments
}

#[tokio::test]
async fn a_peer_that_answers_keep_alives_is_dead_when_it_stops() {
    let (mut sockets, peer, way) = with_peer().await;
    let mut stream = kept(&mut sockets, &peer, way).await;
    let moments = pinged(&mut sockets, &mut stream, 4, true).await;
    let mut before = Duration::ZERO;
    for moment in &moments {
        let pause = moment.saturating_sub(before);
        assert!((Duration::from_secs(24)..Duration::from_secs(31)).contains(&pause), "{moments:?}");
        before = *moment;
    }
    pinged(&mut sockets, &mut stream, 1, false).await;
    let begun = Instant::now();
    let why = unreachable(sockets.recv().await, way);
    assert_eq!((why.as_str(), begun.elapsed().as_secs()), ("a keep-alive was not answered within 10 s", 10));
}

#[tokio::test]
async fn a_peer_that_never_answers_keep_alives_is_left_alive() {
    let (mut sockets, peer, way) = with_peer().await;
    let mut stream = kept(&mut sockets, &peer, way).await;
    pinged(&mut sockets, &mut stream, 6, false).await;
    assert_eq!(sockets.connections(), 1);
    // The answers of two pings, late and together, are no ping: nothing may be answered.
    sockets.keep(BTreeSet::new());
    tokio::time::resume();
    stream.write_all(&request("BYE", 1)).await.unwrap();
    assert_eq!(next(&mut sockets).await, SipIn::Message { from: way, bytes: request("BYE", 1) });
    assert!(timeout(Duration::from_millis(20), stream.read_u8()).await.is_err());
}

#[tokio::test]
async fn a_connection_without_a_trunk_is_left_in_silence() {
    let (mut sockets, peer, way) = with_peer().await;
    let mut stream = kept(&mut sockets, &peer, way).await;
    sockets.keep(BTreeSet::new());
    let mut byte = [0];
    tokio::select! {
        read = stream.read(&mut byte) => panic!("{read:?} was read"),
        input = sockets.recv() => panic!("{input:?} came in"),
        () = tokio::time::sleep(Duration::from_secs(600)) => {}
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let other = UdpSocket::bind(LOOPBACK).await.unwrap();
    let listen = other.local_addr().unwrap();
    let said = SipSockets::open(SipSettings { listen, ..settings() }, Box::new(|_| true)).err().unwrap();
    assert!(said.starts_with(&format!("sip.listen {listen} can't be bound")), "{said}");
}
