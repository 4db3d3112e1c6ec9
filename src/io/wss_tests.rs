//! The socket against a server in the same process: real TCP for the way in, a pipe for what comes after it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::*;
use crate::io::outbox::SOUND;

const PATIENCE: Duration = Duration::from_secs(20);
/// Messages that fit into the outbox, whatever they are.
const TO_SEND: usize = 64;
/// Long enough that nothing of it passes by itself.
const CALM: Beat = Beat { ping: PATIENCE, dead: PATIENCE, farewell: PATIENCE };

async fn next<S: Wire>(stream: &mut WebSocketStream<S>) -> Option<Result<Message, Error>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

async fn say<S: Wire>(stream: &mut WebSocketStream<S>, message: Message) {
    poll_fn(|context| Pin::new(&mut *stream).poll_ready(context)).await.unwrap();
    Pin::new(&mut *stream).start_send(message).unwrap();
    poll_fn(|context| Pin::new(&mut *stream).poll_flush(context)).await.unwrap();
}

/// A socket that is open already, and the agent's end of it.
async fn pair(beat: Beat) -> (Socket, WebSocketStream<DuplexStream>) {
    let (ours, theirs) = duplex(64 * 1024);
    let client = WebSocketStream::from_raw_socket(ours, Role::Client, Some(limits())).await;
    let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    (Socket::over(client, beat), server)
}

fn target(port: u16) -> Target {
    Target {
        url: format!("ws://127.0.0.1:{port}/agent?room=5"),
        headers: Vec::new(),
        subprotocol: None,
        allow_private: true,
        ca: None,
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Reads the head of a request.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn switching(head: &str, more: &str) -> Vec<u8> {
    let accept = acceptance(header(head, "Sec-WebSocket-Key").unwrap());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Takes one connection, answers it as told, and gives back what was asked.
async fn answer<S: Wire>(mut stream: S, answer: impl FnOnce(&str) -> Vec<u8>) -> (String, S) {
    let head = head(&mut stream).await;
    stream.write_all(&answer(&head)).await.unwrap();
    stream.flush().await.unwrap();
    (head, stream)
}

/// What `connect` says of an agent that answers so.
async fn refused(target: impl FnOnce(Target) -> Target, said: impl FnOnce(&str) -> Vec<u8>) -> String {
    let (listener, port) = listen().await;
    let agent = async {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, said).await
    };
    let (outcome, _agent) = tokio::join!(Socket::connect(target(self::target(port)), PATIENCE), agent);
    outcome.err().expect("it was taken for an agent").why
}

#[test]
fn the_key_of_the_standard_is_accepted_as_the_standard_says() {
    // RFC 6455 §1.3.
    assert_eq!(acceptance("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[tokio::test]
async fn an_agent_gets_its_headers_and_messages_pass_both_ways() {
    let (listener, port) = listen().await;
    let agent = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (head, stream) = answer(stream, |head| {
            let mut said = switching(head, "Sec-WebSocket-Protocol: audio.jambonz.org\r\n");
            // The first message comes in one piece with the answer.
            said.extend(b"\x81\x05hello");
            said
        })
        .await;
        (head, WebSocketStream::from_raw_socket(stream, Role::Server, None).await)
    };
    let target = Target {
        headers: vec![
            ("Authorization".to_owned(), "Bearer s3cret".to_owned()),
            ("X-Twilio-Signature".to_owned(), "abc=".to_owned()),
        ],
        subprotocol: Some("audio.jambonz.org".to_owned()),
        ..target(port)
    };
    let (socket, (head, mut agent)) = tokio::join!(Socket::connect(target, PATIENCE), agent);
    let mut socket = socket.unwrap();
    assert!(head.starts_with("GET /agent?room=5 HTTP/1.1\r\n"), "{head}");
    let host = format!("127.0.0.1:{port}");
    for (name, value) in [
        ("Host", host.as_str()),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "audio.jambonz.org"),
        ("Authorization", "Bearer s3cret"),
        ("X-Twilio-Signature", "abc="),
    ] {
        assert_eq!(header(&head, name), Some(value), "{name}");
    }
    assert_eq!(socket.recv().await, Some(Ok(Frame::Text("hello".to_owned()))));

    let echo = async {
        for _ in 0..3 {
            let message = next(&mut agent).await.unwrap().unwrap();
            say(&mut agent, message).await;
        }
    };
    let talk = async {
        let said =
            [Frame::Text("grüezi".to_owned()), Frame::Binary(vec![7; LONGEST]), Frame::Binary(Vec::new())];
        for frame in &said {
            socket.send(frame.clone(), false).unwrap();
        }
        for frame in said {
            assert_eq!(
                socket.recv().await,
                Some(Ok(frame)),
                "in order, and a message of the greatest length"
            );
        }
    };
    tokio::join!(echo, talk);
}

#[tokio::test]
async fn an_agent_that_refuses_is_named_with_its_status_and_a_redirect_is_not_followed() {
    let said = |line: &'static str| {
        move |_: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nno").into_bytes()
    };
    let error = refused(|target| target, said("403 Forbidden")).await;
    assert_eq!(error, "127.0.0.1: the agent refuses the connection: HTTP 403");
    let (elsewhere, port) = listen().await;
    let moved = move |_: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    };
    assert!(refused(|target| target, moved).await.ends_with("HTTP 302"));
    elsewhere.into_std().unwrap().accept().expect_err("nobody has come");
    assert!(refused(|target| target, said("200 OK")).await.ends_with("HTTP 200"));
    let error = refused(|target| target, |_| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).await;
    assert!(error.starts_with("127.0.0.1: the upgrade failed: "), "{error}");
}

#[tokio::test]
async fn an_upgrade_that_is_not_ours_is_not_taken() {
    let error = refused(|target| target, |_| switching("Sec-WebSocket-Key: another\r\n", "")).await;
    assert_eq!(error, "127.0.0.1: the agent's answer belongs to another request");
    let error = refused(|target| target, |head| switching(head, "Sec-WebSocket-Protocol: chat\r\n")).await;
    assert_eq!(error, "127.0.0.1: the agent has chosen a subprotocol that was not offered");
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let error = refused(|target| target, |head| switching(head, deflate)).await;
    assert_eq!(error, "127.0.0.1: the agent has chosen an extension that was not offered");
    let other =
        |head: &str| String::from_utf8(switching(head, "")).unwrap().replace("websocket", "h2c").into_bytes();
    let error = refused(|target| target, other).await;
    assert_eq!(error, "127.0.0.1: the agent has switched to another protocol than WebSocket");
}

#[tokio::test]
async fn an_agent_that_chooses_no_subprotocol_is_taken_all_the_same() {
    let (listener, port) = listen().await;
    let agent = async {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, |head| switching(head, "")).await
    };
    let target = Target { subprotocol: Some("audio.jambonz.org".to_owned()), ..target(port) };
    let (socket, _agent) = tokio::join!(Socket::connect(target, PATIENCE), agent);
    assert!(socket.is_ok());
}

#[tokio::test]
async fn private_addresses_and_plain_text_are_refused_unless_they_are_allowed() {
    let (listener, port) = listen().await;
    for host in
        ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "nas"]
    {
        let url = format!("wss://{host}:{port}/");
        let target = Target { url, allow_private: false, ..target(port) };
        let error = Socket::connect(target, PATIENCE).await.err().unwrap().why;
        let host = host.trim_matches(['[', ']']);
        assert_eq!(error, format!("{host}: the address is private, and that is not allowed"));
    }
    let plain = Target { allow_private: false, ..target(port) };
    let error = Socket::connect(plain, PATIENCE).await.err().unwrap().why;
    assert_eq!(error, "the agent's address must begin with wss://, not ws://");
    listener.into_std().unwrap().accept().expect_err("nobody has come");
}

#[tokio::test]
async fn what_can_be_no_address_or_no_header_is_said_and_no_secret_is() {
    for url in ["", "https://a.example/", "agent", "wss://", "wss:///x", "wss://a:b@a.example/", "wss://ä/"]
    {
        let target = Target { url: url.to_owned(), ..target(1) };
        let error = Socket::connect(target, PATIENCE).await.err().unwrap().why;
        assert!(error.contains("address") || error.contains("URL"), "{url}: {error}");
    }
    for (name, value) in [
        ("Host", "s3cret"),
        ("sec-websocket-key", "s3cret"),
        ("upgrade", "s3cret"),
        ("a b", "s3cret"),
        ("X-Key", "s3cret\r\nX-Other: 1"),
    ] {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let error = Socket::connect(Target { headers, ..target(1) }, PATIENCE).await.err().unwrap().why;
        assert!(error.contains("header") && !error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn an_agent_that_takes_the_connection_and_says_nothing_is_given_up_in_time() {
    let (_listener, port) = listen().await;
    let error = Socket::connect(target(port), Duration::from_millis(50)).await.err().unwrap().why;
    assert_eq!(error, "the agent has not answered within 50 ms");
    // A port that nobody listens on.
    let (gone, port) = listen().await;
    drop(gone);
    let error = Socket::connect(target(port), PATIENCE).await.err().unwrap().why;
    assert!(error.starts_with("127.0.0.1: can't be reached: "), "{error}");
}

#[tokio::test]
async fn tls_is_verified() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let (listener, port) = listen().await;
    let named = |name: &str| Target { url: format!("wss://{name}:{port}"), ..target(port) };

    // By the roots that browsers trust, nobody vouches for it.
    let agent = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.err().unwrap()
    };
    let (outcome, _) = tokio::join!(Socket::connect(named("localhost"), PATIENCE), agent);
    let error = outcome.err().unwrap();
    assert_eq!(error.why, "localhost: TLS: invalid peer certificate: UnknownIssuer");
    assert!(!error.again, "no certificate gets better by waiting");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let trusting = Arc::new(
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    );
    // Trusted, but for another name.
    let agent = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.err().unwrap()
    };
    let (outcome, _) =
        tokio::join!(Socket::connect_by(named("127.0.0.1"), PATIENCE, Arc::clone(&trusting)), agent);
    let error = outcome.err().unwrap().why;
    assert!(error.starts_with("127.0.0.1: TLS: invalid peer certificate: "), "{error}");

    let agent = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let (head, stream) = answer(stream, |head| switching(head, "")).await;
        let mut agent = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let message = next(&mut agent).await.unwrap().unwrap();
        say(&mut agent, message).await;
        // Until the caller has said goodbye.
        while next(&mut agent).await.is_some() {}
        head
    };
    let caller = async {
        let mut socket = Socket::connect_by(named("localhost"), PATIENCE, trusting).await.unwrap();
        socket.send(Frame::Text("over TLS".to_owned()), false).unwrap();
        assert_eq!(socket.recv().await, Some(Ok(Frame::Text("over TLS".to_owned()))));
        socket.close().await;
    };
    let (head, ()) = tokio::join!(agent, caller);
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn pings_are_answered_and_sent_and_are_no_messages() {
    let (mut socket, mut agent) = pair(Beat { ping: Duration::from_millis(20), ..CALM }).await;
    say(&mut agent, Message::Ping(Bytes::from_static(b"there?"))).await;
    let (mut pings, mut pongs) = (0, 0);
    while pings < 3 || pongs < 1 {
        match next(&mut agent).await.unwrap().unwrap() {
            Message::Ping(_) => pings += 1,
            Message::Pong(said) => {
                assert_eq!(&said[..], b"there?");
                pongs += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    say(&mut agent, Message::text("after all that")).await;
    assert_eq!(socket.recv().await, Some(Ok(Frame::Text("after all that".to_owned()))));
}

#[tokio::test]
async fn an_agent_without_a_sign_of_life_is_dead_and_one_that_answers_pings_is_not() {
    let beat = Beat { ping: Duration::from_millis(100), dead: Duration::from_secs(1), farewell: PATIENCE };
    let ((mut lone, _silent), (mut socket, mut agent)) = (pair(beat).await, pair(beat).await);
    let answering = tokio::spawn(async move {
        let mut pings = 0;
        // Reading answers them.
        while let Some(Ok(Message::Ping(_))) = next(&mut agent).await {
            pings += 1;
            if pings == 15 {
                say(&mut agent, Message::text("still here")).await;
            }
        }
    });
    let began = Instant::now();
    assert_eq!(lone.recv().await, Some(Err("nothing was heard of the agent for 1 s".to_owned())));
    assert!(began.elapsed() >= beat.dead - Duration::from_millis(10));
    assert_eq!(lone.recv().await, None);
    assert!(lone.send(Frame::Binary(vec![0]), false).is_err());
    // One and a half times as long.
    assert_eq!(socket.recv().await, Some(Ok(Frame::Text("still here".to_owned()))));
    drop(socket);
    answering.await.unwrap();
}

#[tokio::test]
async fn who_does_not_take_what_was_read_holds_the_agent_up_and_it_does_not_die_of_it() {
    let beat = Beat { ping: PATIENCE, dead: Duration::from_millis(300), farewell: PATIENCE };
    let ((mut lone, _silent), (mut socket, mut agent)) = (pair(beat).await, pair(beat).await);
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let talking = tokio::spawn(async move {
        for n in 0..50u8 {
            say(&mut agent, Message::binary(vec![n; 50_000])).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
        agent
    });
    // When the other one has died, this one has been held up for that long.
    assert!(lone.recv().await.unwrap().is_err());
    let written = written.load(Ordering::Relaxed);
    assert!((HELD..HELD + 4).contains(&written), "{written} messages were let in");
    for n in 0..50 {
        assert_eq!(socket.recv().await, Some(Ok(Frame::Binary(vec![n; 50_000]))));
    }
    talking.await.unwrap();
}

#[tokio::test]
async fn an_agent_that_reads_too_slowly_misses_the_oldest_sound_and_is_kept() {
    let (socket, mut agent) = pair(CALM).await;
    let frame = |n: usize| Frame::Binary(vec![n as u8; 700]);
    // The pump has had no turn yet: all of this waits.
    let dropped: u32 = (0..SOUND + 20).map(|n| socket.send(frame(n), true).unwrap()).sum();
    assert_eq!(dropped, 20);
    for n in 20..SOUND + 20 {
        assert_eq!(next(&mut agent).await.unwrap().unwrap(), Message::binary(vec![n as u8; 700]));
    }
    assert_eq!(socket.send(frame(0), true), Ok(0), "and there is room again");
}

#[tokio::test]
async fn two_sides_that_both_write_without_reading_do_not_stop_each_other() {
    let (mut socket, mut agent) = pair(CALM).await;
    for _ in 0..TO_SEND {
        socket.send(Frame::Binary(vec![1; 20_000]), false).unwrap();
    }
    // More than the pipe holds, before it reads anything.
    for _ in 0..3 {
        say(&mut agent, Message::binary(vec![2; 60_000])).await;
    }
    for _ in 0..3 {
        assert_eq!(socket.recv().await, Some(Ok(Frame::Binary(vec![2; 60_000]))));
    }
    for _ in 0..TO_SEND {
        assert!(next(&mut agent).await.unwrap().is_ok());
    }
}

/// What the socket says of bytes that the agent sends, and the code by which it says goodbye.
async fn told(bytes: &[u8]) -> (String, Option<u16>) {
    let (mut socket, agent) = pair(CALM).await;
    let mut raw = agent.into_inner();
    raw.write_all(bytes).await.unwrap();
    let told = socket.recv().await.unwrap().unwrap_err();
    assert_eq!(socket.recv().await, None);
    let mut agent = WebSocketStream::from_raw_socket(raw, Role::Server, None).await;
    let code = match next(&mut agent).await {
        Some(Ok(Message::Close(frame))) => frame.map(|frame| u16::from(frame.code)),
        _ => None,
    };
    (told, code)
}

#[tokio::test]
async fn what_is_too_long_or_no_websocket_ends_the_connection_with_the_code_for_it() {
    let mut long = vec![0x82, 127];
    long.extend((LONGEST as u64 + 1).to_be_bytes());
    let most = "4194304 are the most";
    assert_eq!(told(&long).await, (format!("the agent sent a message of 4194305 bytes; {most}"), Some(1009)));
    // The same in pieces, none of which is too long.
    let (mut socket, mut agent) = pair(CALM).await;
    let sending = async move {
        for (n, opcode) in [Data::Binary, Data::Continue, Data::Continue].into_iter().enumerate() {
            let piece = RawFrame::message(vec![0; 1_600_000], OpCode::Data(opcode), n == 2);
            poll_fn(|context| Pin::new(&mut agent).poll_ready(context)).await.unwrap();
            let _ = Pin::new(&mut agent).start_send(Message::Frame(piece));
            let _ = poll_fn(|context| Pin::new(&mut agent).poll_flush(context)).await;
        }
        agent
    };
    let (heard, _agent) = tokio::join!(socket.recv(), sending);
    assert!(heard.unwrap().unwrap_err().ends_with(most));

    let (said, code) = told(b"\x81\x02\xff\xfe").await;
    assert_eq!((said.as_str(), code), ("the agent sent text that is not UTF-8", Some(1007)));
    // A compressed frame, an opcode that does not exist, a masked frame, a ping that is too long.
    let ping = [&b"\x89\x7e\x01\0"[..], &[0; 256]].concat();
    for bytes in [&b"\xc1\x01a"[..], b"\x83\x01a", b"\x81\x81abcd\0", &ping] {
        let (said, code) = told(bytes).await;
        assert!(said.starts_with("the agent's connection: "), "{bytes:?}: {said}");
        assert_eq!(code, Some(1002), "{bytes:?}");
    }
}

#[tokio::test]
async fn an_ordinary_goodbye_is_no_error_and_any_other_is_told_with_its_code() {
    for (code, reason, told) in [
        (Some(1000), "bye", None),
        (Some(1001), "", None),
        (None, "", None),
        (Some(1011), "", Some("the agent closed the connection with code 1011")),
        (Some(4400), "no start", Some("the agent closed the connection with code 4400: no start")),
        (Some(4001), "a\nb", Some("the agent closed the connection with code 4001: a\\nb")),
    ] {
        let (mut socket, mut agent) = pair(CALM).await;
        say(&mut agent, Message::text("last words")).await;
        let frame = code.map(|code: u16| CloseFrame { code: code.into(), reason: reason.into() });
        say(&mut agent, Message::Close(frame)).await;
        assert_eq!(socket.recv().await, Some(Ok(Frame::Text("last words".to_owned()))));
        if let Some(told) = told {
            assert_eq!(socket.recv().await, Some(Err(told.to_owned())));
        }
        assert_eq!(socket.recv().await, None, "{code:?}");
        // It was answered.
        let Some(Ok(Message::Close(answer))) = next(&mut agent).await else { panic!("{code:?}") };
        assert_eq!(answer.map(|frame| u16::from(frame.code)), code);
        assert!(socket.send(Frame::Text(String::new()), false).is_err());
    }
    // Codes that nobody may send (RFC 6455 §7.4), and half a code.
    for bytes in [&b"\x88\x02\x03\xe7"[..], b"\x88\x02\x03\xed", b"\x88\x02\xff\xff", b"\x88\x01\x03"] {
        let (said, code) = told(bytes).await;
        assert!(!said.is_empty());
        assert_eq!(code, Some(1002), "{bytes:?}: {said}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_a_goodbye_is_an_error() {
    let (mut socket, agent) = pair(CALM).await;
    drop(agent);
    let told = socket.recv().await.unwrap().unwrap_err();
    assert_eq!(told, "the agent's connection ended without a goodbye");
    assert_eq!(socket.recv().await, None);
}

#[tokio::test]
async fn a_socket_that_is_closed_writes_what_waits_and_then_says_goodbye() {
    let (socket, mut agent) = pair(CALM).await;
    for n in 0..10 {
        socket.send(Frame::Text(format!("{n}")), false).unwrap();
    }
    let hearing = async {
        for n in 0..10 {
            assert_eq!(next(&mut agent).await.unwrap().unwrap(), Message::text(format!("{n}")));
        }
        let Some(Ok(Message::Close(Some(goodbye)))) = next(&mut agent).await else { panic!() };
        assert_eq!(u16::from(goodbye.code), 1000);
        assert!(next(&mut agent).await.is_none());
        drop(agent);
    };
    tokio::join!(socket.close(), hearing);
}

#[tokio::test]
async fn an_agent_that_does_not_answer_the_goodbye_or_does_not_read_is_not_waited_for() {
    let beat = Beat { farewell: Duration::from_millis(50), ..CALM };
    let (socket, _silent) = pair(beat).await;
    let began = Instant::now();
    socket.close().await;
    // More than the pipe holds waits to be written.
    let (socket, _silent) = pair(beat).await;
    for _ in 0..TO_SEND {
        socket.send(Frame::Binary(vec![0; 100_000]), false).unwrap();
    }
    socket.close().await;
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}
