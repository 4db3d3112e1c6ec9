//! A call's voice agent at the edge: its socket, and the leg that knows what to say on it. Lives on the call's sound
//! thread.

use tokio::task::JoinHandle;

use super::clock;
use super::wss::{Frame, Socket, Target};
use crate::agent::{AgentEvent, Leg, LegOutput, Message, Summary};
use crate::gateway::AgentSetup;

/// The longest 20 ms that an agent hears or says: 24 kHz.
pub const WIDEST: usize = 480;

enum State {
    Connecting(JoinHandle<Result<Socket, String>>),
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
        let AgentSetup { url, session, mut headers, allow_private, ca, patience, answered } = setup;
        let dialect = session.dialect;
        headers.extend(dialect.headers(&session));
        let subprotocol = dialect.subprotocol().map(str::to_owned);
        let mut leg = Leg::new(session, clock::tick());
        if answered {
            leg.answered(clock::tick());
        }
        let target = Target { url, headers, subprotocol, allow_private, ca };
        let connecting = tokio::spawn(Socket::connect(target, patience));
        Agent { leg, state: State::Connecting(connecting), frame: [0; WIDEST] }
    }

    /// The rate of its sound, in hertz.
    pub fn rate(&self) -> u32 {
        self.leg.rate()
    }

    /// What happens next on the socket; never, if nothing can or should. May be given up and asked again.
    pub async fn happens(&mut self) -> Happened {
        let reads = self.leg.wants_input();
        match &mut self.state {
            State::Connecting(connecting) => Happened::Opened(match connecting.await {
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
                LegOutput::Send(message) => self.send(message),
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

    fn send(&mut self, message: Message) {
        let State::Open(socket) = &mut self.state else { return };
        let frame = match message {
            Message::Text(text) => Frame::Text(text),
            Message::Binary(bytes) => Frame::Binary(bytes),
        };
        if let Err(error) = socket.send(frame) {
            self.state = State::Closed;
            self.leg.closed(&error, clock::tick());
        }
    }

    /// Its part is over: its goodbye, and what is to be remembered of it.
    pub fn end(mut self, why: &str) -> Summary {
        self.leg.end(why, clock::tick());
        while self.event().is_some() {}
        if let State::Connecting(connecting) = &self.state {
            connecting.abort();
        }
        self.shut();
        self.leg.summary()
    }
}
