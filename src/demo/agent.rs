//! The stand-in for a voice agent: a WebSocket server in Twilio's dialect that says back what it hears.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Sink as _, Stream as _};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use std::future::poll_fn;
use std::pin::Pin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::ladder::{Ladder, Lane};
use super::measure::{Ear, Track};
use super::pbx::{Heard, Order};
use super::{Event, Events, cloud, tell};
use crate::clock::Tick;
use crate::io::clock;
use crate::media::g711;

/// The longest request for a connection, in bytes.
const REQUEST: usize = 8_192;

/// A socket that is bound.
pub(super) struct Agent {
    listener: TcpListener,
    address: SocketAddr,
    ladder: Ladder,
    events: Events,
    heard: Heard,
    stream: String,
}

type Socket = WebSocketStream<TcpStream>;

impl Agent {
    /// Binds on the loopback. `origin`: when its sound begins to count.
    ///
    /// # Errors
    /// When a port can't be had.
    pub async fn bind(ladder: Ladder, origin: Tick, events: Events) -> Result<Agent, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let heard = Heard::new(Track::new(origin), Ear::new(origin));
        Ok(Agent { listener, address, ladder, events, heard, stream: String::new() })
    }

    /// The destination that leads here.
    pub fn url(&self) -> String {
        format!("ws://{}/agent?dialect=twilio", self.address)
    }

    /// Until `orders` ends.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Heard {
        let mut socket: Option<Socket> = None;
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::HangUp) => if let Some(socket) = &mut socket {
                        self.ladder.arrow(Lane::Far, Lane::Watrunk, "close 1000");
                        let goodbye = Pin::new(&mut *socket).start_send(Message::Close(None));
                        if goodbye.is_err() || flush(socket).await.is_none() {
                            self.fault("the agent's goodbye can't be sent");
                        }
                    },
                    Some(Order::Dial(_)) => self.fault("an agent does not call"),
                    None => return self.heard,
                },
                taken = self.listener.accept(), if socket.is_none() => match taken {
                    Ok((stream, _)) => {
                        // Said before the gateway can know of it: what it does then comes after.
                        tell(&self.events, Event::SessionBegun);
                        match upgrade(stream).await {
                            Ok(open) => {
                                self.ladder.arrow(Lane::Watrunk, Lane::Far, "WebSocket, 101");
                                socket = Some(open);
                            }
                            Err(what) => self.fault(&what),
                        }
                    }
                    Err(error) => self.fault(&error.to_string()),
                },
                message = next(socket.as_mut()) => match message {
                    Some(Message::Text(text)) => {
                        if let Some(reply) = self.read(text.as_str()) {
                            let sent = match &mut socket {
                                Some(socket) => Pin::new(&mut *socket).start_send(reply).is_ok()
                                    && flush(socket).await.is_some(),
                                None => false,
                            };
                            if !sent {
                                self.fault("the agent can't speak");
                            }
                        }
                    }
                    Some(Message::Close(_)) | None => {
                        if let Some(mut open) = socket.take() {
                            // The answer to the goodbye is in the buffer.
                            let _ = flush(&mut open).await;
                        }
                        tell(&self.events, Event::HungUp);
                    }
                    Some(_) => {}
                },
            }
        }
    }

    fn fault(&self, what: &str) {
        tell(&self.events, Event::Fault(what.to_owned()));
    }

    /// Takes a message in; what is to be said to it.
    fn read(&mut self, text: &str) -> Option<Message> {
        let now = clock::tick();
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            self.fault("the agent got something that is no JSON");
            return None;
        };
        match message["event"].as_str().unwrap_or_default() {
            "connected" => self.ladder.arrow(Lane::Watrunk, Lane::Far, "connected"),
            "start" => {
                self.ladder.arrow(Lane::Watrunk, Lane::Far, "start");
                self.started(&message);
            }
            "media" => return self.media(&message, now),
            "dtmf" => {
                let digit = message["dtmf"]["digit"].as_str().unwrap_or_default();
                self.ladder.arrow(Lane::Watrunk, Lane::Far, &format!("dtmf {digit}"));
                self.heard.digits.push_str(digit);
            }
            "stop" => self.ladder.arrow(Lane::Watrunk, Lane::Far, "stop"),
            other => self.fault(&format!("the agent got the event {other:?}")),
        }
        None
    }

    fn started(&mut self, message: &Value) {
        self.stream = message["streamSid"].as_str().unwrap_or_default().to_owned();
        let start = &message["start"];
        let wrong = [
            (!self.stream.starts_with("MZ"), "streamSid"),
            (!start["callSid"].as_str().is_some_and(|sid| sid.starts_with("CA")), "callSid"),
            (start["mediaFormat"]["encoding"] != "audio/x-mulaw", "encoding"),
            (start["customParameters"]["from_number"] != format!("+{}", cloud::CALLER), "from_number"),
        ];
        for (_, what) in wrong.iter().filter(|(wrong, _)| *wrong) {
            self.fault(&format!("the agent is told a wrong {what}"));
        }
    }

    /// 20 ms of the user, which go back as they are.
    fn media(&mut self, message: &Value, now: Tick) -> Option<Message> {
        let media = &message["media"];
        let number = |name: &str| media[name].as_str().and_then(|text| text.parse::<u32>().ok());
        let payload = media["payload"].as_str()?;
        let (Some(chunk), Some(at), Ok(coded)) =
            (number("chunk"), number("timestamp"), STANDARD.decode(payload))
        else {
            self.fault("the agent got sound that can't be read");
            return None;
        };
        let frame: Vec<i16> = coded.iter().map(|code| g711::from_pcmu(*code)).collect();
        self.heard.ear.count(chunk as u16);
        self.heard.ear.hear(now, at, 1_000, &frame);
        self.heard.said.append(now, &frame);
        let reply = json!({"event": "media", "streamSid": self.stream, "media": {"payload": payload}});
        Some(Message::text(reply.to_string()))
    }
}

/// Answers the request for a connection (RFC 6455 §4.2.2).
async fn upgrade(mut stream: TcpStream) -> Result<Socket, String> {
    let said = |error: std::io::Error| format!("the agent's connection: {error}");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > REQUEST {
            return Err("the request for the agent is too long".to_owned());
        }
        head.push(stream.read_u8().await.map_err(said)?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map(|(_, value)| value.trim());
    let Some(key) = key.filter(|_| head.starts_with("GET /agent HTTP/1.1\r\n")) else {
        return Err(format!("the agent can't be asked so: {:?}", head.lines().next().unwrap_or_default()));
    };
    let hash = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        STANDARD.encode(hash)
    );
    stream.write_all(answer.as_bytes()).await.map_err(said)?;
    let _ = stream.set_nodelay(true);
    Ok(WebSocketStream::from_raw_socket(stream, Role::Server, None).await)
}

/// The next message; `None` when the connection is gone; never, as long as there is none.
async fn next(socket: Option<&mut Socket>) -> Option<Message> {
    match socket {
        Some(socket) => poll_fn(|context| Pin::new(&mut *socket).poll_next(context)).await?.ok(),
        None => std::future::pending().await,
    }
}

async fn flush(socket: &mut Socket) -> Option<()> {
    poll_fn(|context| Pin::new(&mut *socket).poll_flush(context)).await.ok()
}
