//! A call's voice agent at the edge: its socket, and the leg that knows what to say on it. Lives on the call's sound
//! thread.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::wss::{Frame, Socket, Target, Unconnected};
use super::{clock, mint};
use crate::agent::{AgentEvent, Leg, LegOutput, Message, Summary};
use crate::gateway::AgentSetup;

/// The pause before a connection is tried again; each is twice as long as the one before, up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The longest 20 ms that an agent hears or says: 24 kHz.
pub const WIDEST: usize = 480;

enum State {
    Connecting { connecting: JoinHandle<Result<Socket, String>>, tries: mpsc::UnboundedReceiver<()> },
    Open(Socket),
    Closed,
}

/// What happened on an agent's socket.
pub enum Happened {
    /// It is open, or it could not be opened.
    Opened(Result<Socket, String>),
    /// A message.
    Message(Message),
    /// It is gone.
    Closed(String),
}

/// One call's agent.
pub struct Agent {
    leg: Leg,
    state: State,
    frame: [i16; WIDEST],
}

impl Agent {
    /// Calls an agent; [`Agent::happens`] says how that went.
    pub fn call(setup: AgentSetup) -> Agent {
        let mut leg = Leg::new(setup.session.clone(), clock::tick());
        if setup.answered {
            leg.answered(clock::tick());
        }
        let (trying, tries) = mpsc::unbounded_channel();
        let connecting = tokio::spawn(connect(setup, trying));
        Agent { leg, state: State::Connecting { connecting, tries }, frame: [0; WIDEST] }
    }

    /// The rate of its sound, in hertz.
    pub fn rate(&self) -> u32 {
        self.leg.rate()
    }

    /// What happens next on the socket; never, if nothing can or should. May be given up and asked again.
    pub async fn happens(&mut self) -> Happened {
        let reads = self.leg.wants_input();
        match &mut self.state {
            State::Connecting { connecting, .. } => Happened::Opened(match connecting.await {
                Ok(outcome) => outcome,
                Err(error) => Err(error.to_string()),
            }),
            State::Open(socket) if reads => match socket.recv().await {
                Some(Ok(Frame::Text(text))) => Happened::Message(Message::Text(text)),
                Some(Ok(Frame::Binary(bytes))) => Happened::Message(Message::Binary(bytes)),
                Some(Err(error)) => Happened::Closed(error),
                // An ordinary goodbye has no reason.
                None => Happened::Closed(String::new()),
            },
            State::Open(_) | State::Closed => std::future::pending().await,
        }
    }

    /// Takes in what has happened.
    pub fn take(&mut self, happened: Happened) {
        let now = clock::tick();
        self.count_tries();
        match happened {
            Happened::Opened(Ok(socket)) => {
                self.state = State::Open(socket);
                self.leg.connected(now);
            }
            Happened::Opened(Err(error)) => {
                self.state = State::Closed;
                self.leg.closed(&error, now);
            }
            Happened::Message(message) => self.leg.received(message, now),
            Happened::Closed(reason) => {
                self.state = State::Closed;
                self.leg.closed(&reason, now);
            }
        }
    }

    /// The user is connected.
    pub fn answered(&mut self) {
        self.leg.answered(clock::tick());
    }

    /// The next 20 ms that the agent says, if it says anything.
    pub fn says(&mut self) -> Option<&[i16]> {
        let length = (self.leg.rate() as usize / 50).min(WIDEST);
        let frame = &mut self.frame[..length];
        self.leg.next(frame, clock::tick()).then_some(&*frame)
    }

    /// 20 ms of the user, and a key if one was pressed.
    pub fn hears(&mut self, frame: &[i16], digit: Option<(char, u32)>) {
        let now = clock::tick();
        if !frame.is_empty() {
            self.leg.heard(frame, now);
        }
        if let Some((digit, millis)) = digit {
            self.leg.digit(digit, millis, now);
        }
        if self.leg.poll_timeout().is_some_and(|at| at <= now) {
            self.leg.handle_timeout(now);
        }
    }

    /// Carries out what the leg wants, up to the next thing to tell the call.
    pub fn event(&mut self) -> Option<AgentEvent> {
        while let Some(output) = self.leg.poll() {
            match output {
                LegOutput::Send(message) => self.send(message, false),
                LegOutput::Sound(message) => self.send(message, true),
                LegOutput::Close => self.shut(),
                LegOutput::Event(event) => return Some(event),
            }
        }
        None
    }

    /// What was sent before still goes out, and goodbye; nobody waits for it.
    fn shut(&mut self) {
        if let State::Open(socket) = std::mem::replace(&mut self.state, State::Closed) {
            tokio::spawn(socket.close());
        }
    }

    fn count_tries(&mut self) {
        if let State::Connecting { tries, .. } = &mut self.state {
            while tries.try_recv().is_ok() {
                self.leg.tried();
            }
        }
    }

    fn send(&mut self, message: Message, sound: bool) {
        let State::Open(socket) = &mut self.state else { return };
        let frame = match message {
            Message::Text(text) => Frame::Text(text),
            Message::Binary(bytes) => Frame::Binary(bytes),
        };
        match socket.send(frame, sound) {
            Ok(0) => {}
            Ok(dropped) => self.leg.skipped(dropped),
            Err(error) => {
                self.state = State::Closed;
                self.leg.closed(&error, clock::tick());
            }
        }
    }

    /// Its part is over: its goodbye, and what is to be remembered of it.
    pub fn end(mut self, why: &str) -> Summary {
        self.leg.end(why, clock::tick());
        while self.event().is_some() {}
        self.count_tries();
        if let State::Connecting { connecting, .. } = &self.state {
            connecting.abort();
        }
        self.shut();
        self.leg.summary()
    }
}

/// Connects, and tries again while that may help: each time by a fresh connection, and where the service makes a call
/// per connection, by a fresh call.
async fn connect(setup: AgentSetup, trying: mpsc::UnboundedSender<()>) -> Result<Socket, String> {
    let begun = Instant::now();
    // Nobody waits longer than this, whatever is tried.
    let until = begun + setup.patience.max(setup.retry);
    let mut pause = PAUSE;
    loop {
        // Nobody may be left who counts.
        let _ = trying.send(());
        let left = until.saturating_duration_since(Instant::now());
        let error = match attempt(&setup, setup.patience.min(left)).await {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        let next = Instant::now() + pause;
        if !error.again || next > begun + setup.retry {
            return Err(error.why);
        }
        tracing::debug!(why = %error.why, pause_ms = pause.as_millis(), "the agent is not there: trying again");
        tokio::time::sleep_until(next).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn attempt(setup: &AgentSetup, patience: Duration) -> Result<Socket, Unconnected> {
    let AgentSetup { url, session, headers, allow_private, ca, .. } = setup;
    let dialect = session.dialect;
    let until = Instant::now() + patience;
    let url = match dialect.mint(session, url) {
        None => url.clone(),
        Some(request) => {
            let (status, body) = mint::exchange(&request, *allow_private, ca.as_deref(), patience).await?;
            dialect.minted(status, &body).map_err(|why| Unconnected {
                why: format!("{dialect} makes no call: {why}"),
                again: (500..600).contains(&status),
            })?
        }
    };
    let headers = together(headers, dialect.headers(session, &url));
    let subprotocol = dialect.subprotocol().map(str::to_owned);
    let target = Target { url, headers, subprotocol, allow_private: *allow_private, ca: ca.clone() };
    Socket::connect(target, until.saturating_duration_since(Instant::now())).await
}

/// The configured headers and those that the dialect demands. Two of one name would be refused: the dialect knows better.
fn together(configured: &[(String, String)], demanded: Vec<(String, String)>) -> Vec<(String, String)> {
    let own =
        |(name, _): &&(String, String)| !demanded.iter().any(|(theirs, _)| theirs.eq_ignore_ascii_case(name));
    let mut headers: Vec<_> = configured.iter().filter(own).cloned().collect();
    headers.extend(demanded);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_the_dialect_sets_is_there_once() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let configured = [header("Authorization", "Bearer file"), header("X-Shop", "7")];
        let sent = together(&configured, vec![header("authorization", "Bearer service")]);
        assert_eq!(sent, [header("X-Shop", "7"), header("authorization", "Bearer service")]);
    }
}
