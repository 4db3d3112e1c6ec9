//! Two of our peers, one in the part of Meta's ICE-lite relay, over shared ports on the loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::net::UdpSocket;
use webrtc::media_stream::track_remote::TrackRemoteEvent;

use super::*;
use crate::io::mux::Port;

fn settings(name: &str, ssrc: u32, lite: bool, dtls: Dtls) -> PeerSettings {
    PeerSettings {
        ufrag: format!("{name}fragment"),
        password: "0123456789abcdef01234567".to_owned(),
        ssrc,
        opus_pt: 111,
        dtmf_pt: Some(126),
        local: [127, 0, 0, 1].into(),
        lite,
        dtls,
    }
}

fn with_port(sdp: &str, port: u16) -> String {
    let mut lines: Vec<String> =
        sdp.lines().filter(|line| !line.starts_with("a=candidate")).map(str::to_owned).collect();
    lines.push(format!("a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host"));
    lines.join("\r\n") + "\r\n"
}

/// A shared port on the loopback, read for as long as the test lasts.
fn port() -> (Arc<Port>, SocketAddr) {
    let port = Port::bind("127.0.0.1:0".parse().unwrap(), 0).unwrap();
    tokio::spawn(Arc::clone(&port).pump());
    let at = SocketAddr::from(([127, 0, 0, 1], port.number()));
    (port, at)
}

async fn track_of(peer: &mut Peer) -> Arc<dyn TrackRemote> {
    loop {
        if let PeerEvent::Track(track) = peer.events.recv().await.unwrap() {
            return track;
        }
    }
}

async fn payload_of(track: &Arc<dyn TrackRemote>) -> (u8, Bytes, u32) {
    loop {
        if let TrackRemoteEvent::OnRtpPacket(packet) = track.poll().await.unwrap() {
            return (packet.header.payload_type, packet.payload, packet.header.ssrc);
        }
    }
}

/// Twenty packets each way, three of four with sound and one with a digit.
async fn talk(user: &mut Peer, peer: &mut Peer) {
    let (user_mouth, peer_mouth) = (user.mouth(), peer.mouth());
    let ears = async {
        let (theirs, mine) = (track_of(peer).await, track_of(user).await);
        let (mut of_user, mut of_box) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..20 {
            let (payload_type, payload, ssrc) = payload_of(&theirs).await;
            assert_eq!((&payload[..], ssrc), (&b"from the user"[..], 1));
            *of_user.entry(payload_type).or_insert(0) += 1;
            let (payload_type, payload, ssrc) = payload_of(&mine).await;
            assert_eq!((&payload[..], ssrc), (&b"from the box"[..], 2));
            *of_box.entry(payload_type).or_insert(0) += 1;
        }
        [of_user, of_box]
    };
    let mouths = async {
        for n in 0..1_000_u16 {
            let payload_type = if n % 4 == 3 { 126 } else { 111 };
            user_mouth.send(payload_type, n == 0, n, u32::from(n) * 960, b"from the user");
            peer_mouth.send(payload_type, n == 0, n, u32::from(n) * 960, b"from the box");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("ten seconds, and not twenty packets each way");
    };
    let heard = tokio::select! { heard = ears => heard, () = mouths => unreachable!() };
    for kinds in heard {
        assert!(kinds[&111] > kinds[&126] && kinds[&126] > 0, "{kinds:?}");
    }
}

#[tokio::test]
async fn an_ice_lite_offerer_and_our_answerer_pass_sound_and_digits_over_shared_ports() {
    let ((meta, meta_at), (ours, _)) = (port(), port());
    let user = settings("meta", 1, true, Dtls::Auto);
    let mut user = Peer::new(meta.seat("metafragment", &[]), user).await.unwrap();
    let peer = settings("our", 2, false, Dtls::Auto);
    let mut peer = Peer::new(ours.seat("ourfragment", &[meta_at]), peer).await.unwrap();
    let offer = with_port(&user.offer().await.unwrap(), meta.number());
    let answer = peer.answer(offer).await.unwrap();
    assert!(answer.contains("a=setup:active"), "{answer}");
    user.accept(with_port(&answer, ours.number())).await.unwrap();
    talk(&mut user, &mut peer).await;
    user.close().await;
    peer.close().await;
    assert_eq!((meta.load(), ours.load()), (0, 0), "the places on the ports are given back");
}

/// What passes between us and the relay, and who says the first word of DTLS.
#[derive(Debug, Default)]
struct Wire {
    packets_of_ours: usize,
    hellos_of_ours: usize,
    hellos_of_meta: usize,
}

/// A DTLS record with a ClientHello (RFC 6347 §4.1, §4.2.2).
fn is_client_hello(datagram: &[u8]) -> bool {
    datagram.first() == Some(&22) && datagram.get(13) == Some(&1)
}

/// A wire that can be listened to: what comes to `near` leaves from `far` to `meta`, and back.
async fn wire(near: UdpSocket, meta: SocketAddr, seen: Arc<std::sync::Mutex<Wire>>) {
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut there, mut back) = ([0; 1_500], [0; 1_500]);
    let mut ours = None;
    loop {
        tokio::select! {
            got = near.recv_from(&mut there) => {
                let Ok((length, from)) = got else { continue };
                ours = Some(from);
                {
                    let mut seen = seen.lock().unwrap();
                    seen.packets_of_ours += 1;
                    seen.hellos_of_ours += usize::from(is_client_hello(&there[..length]));
                }
                let _ = far.send_to(&there[..length], meta).await;
            }
            got = far.recv_from(&mut back) => {
                let Ok((length, _)) = got else { continue };
                seen.lock().unwrap().hellos_of_meta += usize::from(is_client_hello(&back[..length]));
                if let Some(ours) = ours {
                    let _ = near.send_to(&back[..length], ours).await;
                }
            }
        }
    }
}

/// We offer, an ICE-lite relay answers after `late`: with `theirs` as its part in DTLS, and `said` instead of
/// its true `a=setup`. Sound and digits pass both ways; true if we were the DTLS client.
async fn offered(ours: Dtls, offered: &str, theirs: Dtls, said: Option<&str>, late: Duration) -> bool {
    let ((meta, meta_at), (port, _)) = (port(), port());
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let wire_at = near.local_addr().unwrap();
    let seen = Arc::default();
    let wire = tokio::spawn(wire(near, meta_at, Arc::clone(&seen)));
    // The relay's address is not known when the port is chosen.
    let seat = port.seat("ourfragment", &[]);
    let mut peer = Peer::new(Arc::clone(&seat), settings("our", 2, false, ours)).await.unwrap();
    let user = settings("meta", 1, true, theirs);
    let mut user = Peer::new(meta.seat("metafragment", &[]), user).await.unwrap();

    let offer = peer.offer().await.unwrap();
    assert_eq!(offer.lines().filter(|line| *line == format!("a=setup:{offered}")).count(), 1, "{offer}");
    assert!(!offer.contains("a=ice-lite") && offer.contains("a=fingerprint:sha-256 "), "{offer}");
    let answer = user.answer(with_port(&offer, port.number())).await.unwrap();
    tokio::time::sleep(late).await;
    assert_eq!(seen.lock().unwrap().packets_of_ours, 0, "nothing is sent before the answer");
    assert!(answer.contains("a=ice-lite"), "{answer}");
    let answer = with_port(&answer, wire_at.port());
    let answer = match said {
        Some("") => {
            answer.lines().filter(|line| !line.starts_with("a=setup")).collect::<Vec<_>>().join("\r\n")
        }
        Some(said) => with_setup(&answer, said),
        None => answer,
    };
    assert!(seat.add_remotes(&[wire_at]));
    peer.accept(answer).await.unwrap();
    talk(&mut user, &mut peer).await;

    user.close().await;
    peer.close().await;
    drop(seat);
    wire.abort();
    assert_eq!((meta.load(), port.load()), (0, 0), "the places on the ports are given back");
    let seen = seen.lock().unwrap();
    assert!((seen.hellos_of_ours == 0) != (seen.hellos_of_meta == 0), "one client: {seen:?}");
    seen.hellos_of_ours > 0
}

const AT_ONCE: Duration = Duration::ZERO;

#[tokio::test]
async fn an_offer_of_actpass_follows_an_answer_of_active_as_the_dtls_server() {
    assert!(!offered(Dtls::Auto, "actpass", Dtls::Client, None, AT_ONCE).await);
}

#[tokio::test]
async fn an_offer_of_actpass_follows_an_answer_of_passive_as_the_dtls_client() {
    assert!(offered(Dtls::Auto, "actpass", Dtls::Server, None, AT_ONCE).await);
}

#[tokio::test]
async fn an_answer_of_actpass_or_of_nothing_means_that_we_wait_as_the_dtls_server() {
    for said in ["actpass", ""] {
        assert!(!offered(Dtls::Auto, "actpass", Dtls::Client, Some(said), AT_ONCE).await);
    }
}

#[tokio::test]
async fn an_offer_of_active_makes_us_the_dtls_client_even_if_the_answer_says_actpass() {
    assert!(offered(Dtls::Client, "active", Dtls::Server, None, AT_ONCE).await);
    assert!(offered(Dtls::Client, "active", Dtls::Server, Some("actpass"), AT_ONCE).await);
}

#[tokio::test]
async fn an_offer_of_passive_makes_us_the_dtls_server() {
    assert!(!offered(Dtls::Server, "passive", Dtls::Client, None, AT_ONCE).await);
}

#[tokio::test]
async fn an_answer_that_comes_late_finds_the_call_ready() {
    assert!(!offered(Dtls::Auto, "actpass", Dtls::Auto, None, Duration::from_millis(500)).await);
}
