//! TLS: who is believed, what is said of who is not, and our own certificate through its changes.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// A certificate and its key, as PEM.
#[derive(Clone)]
struct Papers {
    certificate: String,
    key: String,
}

impl Papers {
    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn pin(&self) -> [u8; 32] {
        Sha256::digest(self.der()).into()
    }
}

fn params(name: &str, years: std::ops::Range<i32>, authority: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
}

fn papers(certificate: &Certificate, key: &KeyPair) -> Papers {
    Papers {
        certificate: pem("CERTIFICATE", certificate.der()),
        key: pem("PRIVATE KEY", &key.serialize_der()),
    }
}

fn self_signed(name: &str, years: std::ops::Range<i32>, authority: bool) -> Papers {
    let key = KeyPair::generate().unwrap();
    let certificate = params(name, years, authority).self_signed(&key).unwrap();
    papers(&certificate, &key)
}

/// A server's certificate, and that of its authority.
fn issued(name: &str, years: std::ops::Range<i32>) -> (Papers, String) {
    let signer = KeyPair::generate().unwrap();
    let authority = params("authority.test", 2020..2090, true);
    let known = pem("CERTIFICATE", authority.self_signed(&signer).unwrap().der());
    let issuer = Issuer::new(authority, signer);
    let key = KeyPair::generate().unwrap();
    let mut wanted = params(name, years, false);
    if let Ok(ip) = name.parse() {
        wanted.subject_alt_names = vec![SanType::IpAddress(ip)];
    }
    let certificate = wanted.signed_by(&key, &issuer).unwrap();
    (papers(&certificate, &key), known)
}

/// A folder of one test's files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("watrunk-sip-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn acceptor(papers: &Papers) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![papers.der()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Sends one request to a server with these papers. What came of it: the name that was asked for (SNI), or why not.
async fn sent(papers: &Papers, trust: Option<TlsTrust>) -> Result<Option<String>, String> {
    let peer = TcpListener::bind(LOOPBACK).await.unwrap();
    let way = Way { transport: Transport::Tls, address: peer.local_addr().unwrap() };
    let mut sockets = open(settings());
    if let Some(trust) = trust {
        sockets.trust(way, trust);
    }
    sockets.send(way, request("OPTIONS", 1));
    let acceptor = acceptor(papers);
    let server = tokio::spawn(async move {
        let (stream, _) = peer.accept().await.ok()?;
        let mut stream = acceptor.accept(stream).await.ok()?;
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let mut bytes = vec![0; request("OPTIONS", 1).len()];
        stream.read_exact(&mut bytes).await.ok()?;
        assert_eq!(bytes, request("OPTIONS", 1));
        stream.write_all(ANSWER).await.ok()?;
        // Until the other side has gone.
        let _ = stream.read_u8().await;
        Some(name)
    });
    let outcome = match next(&mut sockets).await {
        SipIn::Message { from, bytes } => {
            assert_eq!((from, bytes.as_slice()), (way, ANSWER));
            drop(sockets);
            return Ok(server.await.unwrap().unwrap());
        }
        SipIn::Unreachable { way: told, why } if told == way => Err(why),
        other => panic!("{other:?}"),
    };
    server.abort();
    outcome
}

fn trust(name: &str) -> TlsTrust {
    TlsTrust { name: name.to_owned(), ca: None, pin: None }
}

#[tokio::test]
async fn a_server_of_a_given_authority_is_believed_and_asked_for_by_its_name() {
    let folder = Folder::new("authority");
    let (papers, authority) = issued("pbx.test", 2020..2080);
    let ca = Some(folder.file("ca.pem", &authority));
    let by_name = sent(&papers, Some(TlsTrust { ca: ca.clone(), ..trust("pbx.test") })).await;
    assert_eq!(by_name, Ok(Some("pbx.test".to_owned())));

    let (papers, authority) = issued("127.0.0.1", 2020..2080);
    let ca = Some(folder.file("ca2.pem", &authority));
    let by_address = sent(&papers, Some(TlsTrust { ca, ..trust("127.0.0.1") })).await;
    assert_eq!(by_address, Ok(None), "an address is no name to ask for");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_is_refused_with_the_reason() {
    let folder = Folder::new("refused");
    let (papers, authority) = issued("pbx.test", 2020..2080);
    let ca = Some(folder.file("ca.pem", &authority));
    let said = sent(&papers, Some(TlsTrust { ca, ..trust("other.test") })).await.unwrap_err();
    assert_eq!(said, "the certificate is not for other.test, but for pbx.test");

    let (papers, authority) = issued("pbx.test", 2020..2021);
    let ca = Some(folder.file("old.pem", &authority));
    let said = sent(&papers, Some(TlsTrust { ca, ..trust("pbx.test") })).await.unwrap_err();
    assert_eq!(said, "the certificate of pbx.test has expired (or this host's clock is wrong)");

    let (papers, authority) = issued("pbx.test", 2079..2080);
    let ca = Some(folder.file("young.pem", &authority));
    let said = sent(&papers, Some(TlsTrust { ca, ..trust("pbx.test") })).await.unwrap_err();
    assert_eq!(said, "the certificate of pbx.test is not valid yet (or this host's clock is wrong)");

    let (papers, _) = issued("pbx.test", 2020..2080);
    let ca = Some(folder.file("ca.pem", &authority));
    let said = sent(&papers, Some(TlsTrust { ca, ..trust("pbx.test") })).await.unwrap_err();
    assert!(said.contains("of an unknown issuer"), "another authority of the same name: {said}");
}

#[tokio::test]
async fn a_self_signed_server_is_refused_with_what_to_set_and_believed_once_it_is_set() {
    let folder = Folder::new("selfsigned");
    for authority in [false, true] {
        let papers = self_signed("pbx.test", 2020..2080, authority);
        let pin: String = papers.pin().iter().map(|byte| format!("{byte:02x}")).collect();
        let said = sent(&papers, Some(trust("pbx.test"))).await.unwrap_err();
        assert!(said.contains("self-signed") && said.contains("tls_ca"), "{said}");
        assert!(said.contains(&format!("tls_pin = \"{pin}\"")), "{said}");

        let pinned = TlsTrust { pin: Some(papers.pin()), ..trust("pbx.test") };
        assert_eq!(sent(&papers, Some(pinned)).await, Ok(Some("pbx.test".to_owned())));

        let ca = Some(folder.file("server.pem", &papers.certificate));
        let given = TlsTrust { ca: ca.clone(), ..trust("pbx.test") };
        assert_eq!(sent(&papers, Some(given)).await, Ok(Some("pbx.test".to_owned())));
        let said = sent(&papers, Some(TlsTrust { ca, ..trust("other.test") })).await.unwrap_err();
        assert!(said.starts_with("the certificate is not for other.test"), "{said}");
    }
}

#[tokio::test]
async fn a_pin_holds_for_one_certificate_whatever_its_name_and_age() {
    let papers = self_signed("old.test", 2020..2021, false);
    let pinned = TlsTrust { pin: Some(papers.pin()), ..trust("not a name") };
    assert!(sent(&papers, Some(pinned.clone())).await.is_ok());
    let other = self_signed("old.test", 2020..2080, false);
    let said = sent(&other, Some(pinned)).await.unwrap_err();
    let shown: String = other.pin().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(said.contains("not the pinned one") && said.contains(&shown), "{said}");
}

#[tokio::test]
async fn what_is_missing_for_tls_is_said() {
    let papers = self_signed("pbx.test", 2020..2080, false);
    assert_eq!(sent(&papers, None).await.unwrap_err(), "nobody has said whom to believe there");
    let said = sent(&papers, Some(trust("a name"))).await.unwrap_err();
    assert_eq!(said, "\"a name\" is no name that a certificate could be for");
    let ca = Some(PathBuf::from("/nonexistent/ca.pem"));
    let said = sent(&papers, Some(TlsTrust { ca, ..trust("pbx.test") })).await.unwrap_err();
    assert!(said.starts_with("tls_ca /nonexistent/ca.pem: "), "{said}");
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_is_told_as_such() {
    let peer = TcpListener::bind(LOOPBACK).await.unwrap();
    let way = Way { transport: Transport::Tls, address: peer.local_addr().unwrap() };
    let mut sockets = open(settings());
    sockets.trust(way, trust("pbx.test"));
    sockets.send(way, request("OPTIONS", 1));
    let (mut stream, _) = peer.accept().await.unwrap();
    stream.write_all(b"SIP/2.0 400 Bad Request\r\n\r\n").await.unwrap();
    assert_eq!(unreachable(next(&mut sockets).await, way), "the server does not speak TLS on that port");
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_is_given_up_after_five_seconds() {
    let peer = TcpListener::bind(LOOPBACK).await.unwrap();
    let way = Way { transport: Transport::Tls, address: peer.local_addr().unwrap() };
    let mut sockets = open(settings());
    sockets.trust(way, trust("pbx.test"));
    sockets.send(way, request("OPTIONS", 1));
    let _held = peer.accept().await.unwrap();
    quiet(&mut sockets).await;
    tokio::time::pause();
    let begun = Instant::now();
    let said = unreachable(sockets.recv().await, way);
    assert_eq!(said, "no connection and TLS handshake within 5 s: is that a port for TLS?");
    assert!(begun.elapsed() <= Duration::from_secs(5));
}

#[tokio::test]
async fn other_trust_than_before_ends_the_connection() {
    let papers = self_signed("pbx.test", 2020..2080, false);
    let peer = TcpListener::bind(LOOPBACK).await.unwrap();
    let way = Way { transport: Transport::Tls, address: peer.local_addr().unwrap() };
    let mut sockets = open(settings());
    let pinned = TlsTrust { pin: Some(papers.pin()), ..trust("pbx.test") };
    sockets.trust(way, pinned.clone());
    sockets.send(way, request("OPTIONS", 1));
    let (stream, _) = peer.accept().await.unwrap();
    let mut stream = acceptor(&papers).accept(stream).await.unwrap();
    let mut bytes = vec![0; request("OPTIONS", 1).len()];
    stream.read_exact(&mut bytes).await.unwrap();
    sockets.trust(way, pinned);
    assert_eq!(sockets.connections(), 1, "the same trust changes nothing");
    sockets.trust(way, trust("pbx.test"));
    assert_eq!(sockets.connections(), 0);
    assert!(timeout(PATIENCE, stream.read_u8()).await.unwrap().is_err(), "closed");
}

/// Sockets that listen for TLS with these papers.
fn listening(folder: &Folder, papers: &Papers) -> SipSockets {
    let listen = TlsListen {
        listen: LOOPBACK.parse().unwrap(),
        certificate: folder.file("cert.pem", &papers.certificate),
        key: folder.file("key.pem", &papers.key),
    };
    open(SipSettings { tls: Some(listen), ..settings() })
}

/// A client that believes these papers alone; `None` if it is shown others.
async fn shown(sockets: &mut SipSockets, papers: &Papers) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(papers.der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = client(LOOPBACK, sockets.ours(None).tls.unwrap()).await;
    let shake =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("box.test").unwrap(), stream);
    tokio::select! {
        shaken = shake => shaken.ok(),
        input = sockets.recv() => panic!("{input:?} came in"),
    }
}

/// The files are looked at once a second.
async fn a_second_later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_peer_that_connects_by_tls_is_heard_and_answered() {
    let folder = Folder::new("listen");
    let papers = self_signed("box.test", 2020..2080, false);
    let mut sockets = listening(&folder, &papers);
    let mut stream = shown(&mut sockets, &papers).await.unwrap();
    stream.write_all(&request("INVITE", 1)).await.unwrap();
    let from = Way { transport: Transport::Tls, address: stream.get_ref().0.local_addr().unwrap() };
    assert_eq!(next(&mut sockets).await, SipIn::Message { from, bytes: request("INVITE", 1) });
    sockets.send(from, ANSWER.to_vec());
    let mut bytes = vec![0; ANSWER.len()];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!((bytes.as_slice(), sockets.connections()), (ANSWER, 1));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_never() {
    let folder = Folder::new("reload");
    let (first, second) =
        (self_signed("box.test", 2020..2080, false), self_signed("box.test", 2020..2081, false));
    let mut sockets = listening(&folder, &first);
    let mut old = shown(&mut sockets, &first).await.expect("the first");

    folder.file("cert.pem", &second.certificate);
    a_second_later().await;
    assert!(shown(&mut sockets, &first).await.is_some(), "half of a pair is no pair: the old one stays");

    folder.file("key.pem", &second.key);
    a_second_later().await;
    assert!(shown(&mut sockets, &first).await.is_none());
    assert!(shown(&mut sockets, &second).await.is_some(), "the second");

    folder.file("cert.pem", "nothing");
    a_second_later().await;
    assert!(shown(&mut sockets, &second).await.is_some(), "a broken file leaves the last good pair");

    old.write_all(&request("OPTIONS", 1)).await.unwrap();
    assert!(matches!(next(&mut sockets).await, SipIn::Message { .. }), "and calls that run go on");
}

#[tokio::test]
async fn a_certificate_that_can_not_be_used_is_said_at_the_start() {
    let folder = Folder::new("start");
    let (one, other) =
        (self_signed("box.test", 2020..2080, false), self_signed("box.test", 2020..2080, false));
    let said = |certificate: PathBuf, key: PathBuf| {
        let tls = TlsListen { listen: LOOPBACK.parse().unwrap(), certificate, key };
        SipSockets::open(SipSettings { tls: Some(tls), ..settings() }, Box::new(|_| true)).err().unwrap()
    };
    let certificate = folder.file("cert.pem", &one.certificate);
    let missing = Path::new("/nonexistent/key.pem").to_owned();
    assert!(said(certificate.clone(), missing).starts_with("sip.tls_key /nonexistent/key.pem: "));
    let key = folder.file("key.pem", &other.key);
    let mismatch = said(certificate.clone(), key.clone());
    assert!(mismatch.contains("is not the key of"), "{mismatch}");
    let empty = folder.file("empty.pem", "");
    assert!(said(empty, key).contains("there is no certificate in it"));
}
