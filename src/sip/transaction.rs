//! The four machines of RFC 3261 §17, with the Accepted states of RFC 6026.
//!
//! ```text
//!            sends again       gives up          lingers, absorbing repeats
//! INVITE  client  A: T1, x2     B: 64 T1          D: 32 s (refused)   M: 64 T1 (accepted)
//! other   client  E: T1, x2, T2 F: 64 T1          K: T4
//! INVITE  server  G: T1, x2, T2 H: 64 T1          I: T4 (refused)     L: 64 T1 (accepted)
//! other   server                                  J: 64 T1
//! ```
//! 2xx to an INVITE is sent again by the dialog's side ([`modify`](super::modify)), not here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::{Now, Tick};

use super::wire::{Draft, Request, Response};
use super::words::{Counters, Output, Way};

/// An estimate of the round trip.
pub(crate) const T1: Duration = Duration::from_millis(500);
/// The longest pause between repeats.
pub(crate) const T2: Duration = Duration::from_secs(4);
/// How long a message stays in the network.
pub(crate) const T4: Duration = Duration::from_secs(5);
/// 64 T1: how long anybody waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(32);
/// Timer D.
const TIMER_D: Duration = Duration::from_secs(32);
/// How long an INVITE may go without any answer of ours before 100 is sent (§17.2.1).
const SILENCE: Duration = Duration::from_millis(200);

/// What goes out, and the counters beside it.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub queue: VecDeque<Output>,
    pub counters: Counters,
}

impl Out {
    pub fn send(&mut self, to: Way, bytes: Vec<u8>) {
        self.counters.sent += 1;
        self.queue.push_back(Output::Transmit { to, bytes });
    }
}

/// Whose request it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// REGISTER of the trunk with that index.
    Register(usize),
    /// OPTIONS to the trunk with that index.
    Options(usize),
    /// INVITE of the call with that number.
    Invite(u64),
    /// CANCEL of that call.
    Cancel(u64),
    /// BYE of that call.
    Bye(u64),
    /// BYE to a fork of that call that came too late.
    StrayBye(u64),
}

impl Owner {
    fn call(self) -> Option<u64> {
        match self {
            Owner::Invite(call) | Owner::Cancel(call) | Owner::Bye(call) | Owner::StrayBye(call) => {
                Some(call)
            }
            Owner::Register(_) | Owner::Options(_) => None,
        }
    }
}

/// The timers of one transaction.
#[derive(Debug, Clone, Copy)]
enum Timer {
    /// A, E, G.
    Repeat,
    /// B, F, H.
    GiveUp,
    /// D, I, J, K, L, M.
    Linger,
    /// The 200 ms after which an INVITE server says 100.
    Silence,
}

#[derive(Debug, Clone, Copy, Default)]
struct Timers([Option<Tick>; 4]);

impl Timers {
    fn set(&mut self, timer: Timer, at: Tick) {
        self.0[timer as usize] = Some(at);
    }

    fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Only `Linger` runs from now on.
    fn linger(&mut self, at: Tick) {
        *self = Timers::default();
        self.set(Timer::Linger, at);
    }

    /// Whether the timer has run out; then it is stopped.
    fn expired(&mut self, timer: Timer, now: Tick) -> bool {
        self.0[timer as usize].take_if(|at| *at <= now).is_some()
    }

    fn next(&self) -> Option<Tick> {
        self.0.iter().flatten().min().copied()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    /// Calling, Trying: nothing heard yet.
    Sent,
    Proceeding,
    Completed,
    Accepted,
}

#[derive(Debug)]
struct Client {
    owner: Owner,
    invite: bool,
    state: ClientState,
    to: Way,
    request: Draft,
    bytes: Vec<u8>,
    /// The acknowledgement of a refusal.
    ack: Option<Vec<u8>>,
    pause: Duration,
    timers: Timers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerState {
    /// Trying, Proceeding: no final answer yet.
    Open,
    Completed,
    Confirmed,
    Accepted,
}

#[derive(Debug)]
struct Server {
    invite: bool,
    state: ServerState,
    to: Way,
    /// For 482: Call-ID, CSeq and the tag of From (§8.2.2.2).
    merged: (String, u32, String),
    /// The last answer.
    bytes: Option<Vec<u8>>,
    /// The 100 that goes out if nothing else does.
    trying: Vec<u8>,
    pause: Duration,
    timers: Timers,
}

/// A request to be sent: its top Via has that branch.
#[derive(Debug)]
pub(crate) struct Sending {
    pub branch: String,
    pub method: &'static str,
    pub request: Draft,
    pub to: Way,
    pub owner: Owner,
}

/// What tells a client transaction from others (§17.1.3): branch and method.
type ClientKey = (String, String);

/// What tells a server transaction from others (§17.2.3): branch, sent-by and method, ACK counting as
/// INVITE.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerKey {
    branch: String,
    sent_by: String,
    method: String,
}

impl ServerKey {
    pub fn of(request: &Request) -> ServerKey {
        let method = if request.method == "ACK" { "INVITE" } else { request.method.as_str() };
        ServerKey::for_method(request, method)
    }

    /// The INVITE that a CANCEL means.
    pub fn cancelled(cancel: &Request) -> ServerKey {
        ServerKey::for_method(cancel, "INVITE")
    }

    fn for_method(request: &Request, method: &str) -> ServerKey {
        let sent_by = format!("{}:{}", request.via.host, request.via.port.unwrap_or(5060));
        ServerKey { branch: request.branch(), sent_by, method: method.to_owned() }
    }
}

/// What the layer makes of a request that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Somebody has to answer it.
    New,
    /// It has been dealt with.
    Absorbed,
    /// The same request on another way: 482.
    Merged,
    /// As many transactions as allowed exist.
    Full,
}

/// What time brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// A request of ours was never answered (timers B, F).
    TimedOut(Owner),
    /// A transaction of ours is forgotten.
    Gone(Owner),
}

/// All transactions.
#[derive(Debug)]
pub(crate) struct Transactions {
    clients: BTreeMap<ClientKey, Client>,
    servers: BTreeMap<ServerKey, Server>,
    most_servers: usize,
}

impl Transactions {
    pub fn new(most_servers: usize) -> Transactions {
        Transactions { clients: BTreeMap::new(), servers: BTreeMap::new(), most_servers }
    }

    /// How many exist, ours and the PBX's.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.clients.len(), self.servers.len())
    }

    /// Sends a request.
    pub fn start(&mut self, sending: Sending, now: Now, out: &mut Out) {
        let Sending { branch, method, request, to, owner } = sending;
        let bytes = request.bytes();
        out.send(to, bytes.clone());
        let mut timers = Timers::default();
        timers.set(Timer::Repeat, now.tick + T1);
        timers.set(Timer::GiveUp, now.tick + PATIENCE);
        let invite = method == "INVITE";
        let state = ClientState::Sent;
        let client = Client { owner, invite, state, to, request, bytes, ack: None, pause: T1, timers };
        self.clients.insert((branch, method.to_owned()), client);
    }

    /// A response came. `Some`: somebody has to look at it.
    pub fn response(&mut self, response: &Response, now: Now, out: &mut Out) -> Option<Owner> {
        let branch = response.via.branch.clone().unwrap_or_default();
        let Some(client) = self.clients.get_mut(&(branch, response.method.clone())) else {
            out.counters.stray_responses += 1;
            return None;
        };
        client.response(response, now.tick, out)
    }

    /// A request came.
    pub fn request(&mut self, request: &Request, from: Way, now: Now, out: &mut Out) -> Incoming {
        let key = ServerKey::of(request);
        if let Some(server) = self.servers.get_mut(&key) {
            return server.repeated(request, now.tick, out);
        }
        if request.method == "ACK" {
            return Incoming::New;
        }
        let merged =
            (request.call_id.clone(), request.cseq, request.from.tag().unwrap_or_default().to_owned());
        let elsewhere =
            |(other, server): (&ServerKey, &Server)| server.merged == merged && other.method == key.method;
        if !request.in_dialog() && self.servers.iter().any(elsewhere) {
            return Incoming::Merged;
        }
        if self.servers.len() >= self.most_servers {
            out.counters.refused_full += 1;
            return Incoming::Full;
        }
        let invite = request.method == "INVITE";
        let mut timers = Timers::default();
        if invite {
            timers.set(Timer::Silence, now.tick + SILENCE);
        } else {
            // A request nobody answers must not stay for ever.
            timers.set(Timer::Linger, now.tick + PATIENCE);
        }
        let to = way_back(request, from);
        let trying = request.reply(100, "", from.address).bytes();
        let state = ServerState::Open;
        let server = Server { invite, state, to, merged, bytes: None, trying, pause: T1, timers };
        self.servers.insert(key, server);
        Incoming::New
    }

    /// Answers a request.
    pub fn respond(&mut self, key: &ServerKey, code: u16, bytes: Vec<u8>, now: Now, out: &mut Out) {
        if let Some(server) = self.servers.get_mut(key) {
            server.respond(code, bytes, now.tick, out);
        }
    }

    /// Whether that request is still known.
    pub fn knows(&self, key: &ServerKey) -> bool {
        self.servers.contains_key(key)
    }

    /// Whether any transaction still works for that call.
    pub fn works_for(&self, call: u64) -> bool {
        self.clients.values().any(|client| client.owner.call() == Some(call))
    }

    /// Forgets a request of ours: after a CANCEL without consequence (§9.1).
    pub fn forget(&mut self, owner: Owner) {
        self.clients.retain(|_, client| client.owner != owner);
    }

    /// Nothing comes by that way any more: whoever waits for an answer there gives up now.
    pub fn unreachable(&mut self, way: Way, now: Now) {
        for client in self.clients.values_mut().filter(|client| client.to == way && client.waits()) {
            client.timers.set(Timer::GiveUp, now.tick);
        }
    }

    /// The next moment at which something happens.
    pub fn next(&self) -> Option<Tick> {
        let clients = self.clients.values().filter_map(|client| client.timers.next());
        clients.chain(self.servers.values().filter_map(|server| server.timers.next())).min()
    }

    /// That moment has come.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Out) -> Vec<Told> {
        let mut told = Vec::new();
        self.clients.retain(|_, client| {
            let alive = client.tick(now.tick, &mut told, out);
            if !alive {
                told.push(Told::Gone(client.owner));
            }
            alive
        });
        self.servers.retain(|_, server| server.tick(now.tick, out));
        told
    }
}

impl Client {
    fn waits(&self) -> bool {
        matches!(self.state, ClientState::Sent | ClientState::Proceeding)
    }

    fn response(&mut self, response: &Response, now: Tick, out: &mut Out) -> Option<Owner> {
        match (self.state, response.code) {
            (ClientState::Sent | ClientState::Proceeding, ..=199) => {
                self.state = ClientState::Proceeding;
                if self.invite {
                    self.timers = Timers::default();
                } else {
                    self.pause = T2;
                }
                Some(self.owner)
            }
            (ClientState::Sent | ClientState::Proceeding, 200..=299) if self.invite => {
                self.state = ClientState::Accepted;
                self.timers.linger(now + PATIENCE);
                Some(self.owner)
            }
            (ClientState::Accepted, 200..=299) => Some(self.owner),
            (ClientState::Sent | ClientState::Proceeding, _) => {
                self.state = ClientState::Completed;
                if self.invite {
                    let ack = self.acknowledgement(response).bytes();
                    out.send(self.to, ack.clone());
                    self.ack = Some(ack);
                    self.timers.linger(now + TIMER_D);
                } else {
                    self.timers.linger(now + T4);
                }
                Some(self.owner)
            }
            (ClientState::Completed, 300..) => {
                if let Some(ack) = &self.ack {
                    out.counters.retransmissions += 1;
                    out.send(self.to, ack.clone());
                }
                None
            }
            (ClientState::Completed | ClientState::Accepted, _) => None,
        }
    }

    /// ACK of a refusal (§17.1.1.3): the INVITE's own headers, and To from the answer.
    fn acknowledgement(&self, response: &Response) -> Draft {
        let uri = self.request.start.split(' ').nth(1).unwrap_or_default();
        let mut ack = Draft::request("ACK", uri);
        for name in ["Via", "Route", "Max-Forwards", "From"] {
            for value in self.request.headers.all(name) {
                ack.push(name, value);
            }
        }
        ack.push("To", response.headers.get("To").unwrap_or_default());
        ack.push("Call-ID", response.call_id.clone());
        ack.push("CSeq", format!("{} ACK", response.cseq));
        ack
    }

    /// False: forget it.
    fn tick(&mut self, now: Tick, told: &mut Vec<Told>, out: &mut Out) -> bool {
        if self.timers.expired(Timer::GiveUp, now) {
            out.counters.timeouts += 1;
            told.push(Told::TimedOut(self.owner));
            return false;
        }
        if self.timers.expired(Timer::Repeat, now) {
            out.counters.retransmissions += 1;
            out.send(self.to, self.bytes.clone());
            self.pause *= 2;
            if !self.invite {
                self.pause = self.pause.min(T2);
            }
            self.timers.set(Timer::Repeat, now + self.pause);
        }
        !self.timers.expired(Timer::Linger, now)
    }
}

impl Server {
    fn repeated(&mut self, request: &Request, now: Tick, out: &mut Out) -> Incoming {
        if request.method == "ACK" {
            return match self.state {
                ServerState::Completed => {
                    self.state = ServerState::Confirmed;
                    self.timers.linger(now + T4);
                    Incoming::Absorbed
                }
                ServerState::Accepted => Incoming::New,
                ServerState::Open | ServerState::Confirmed => Incoming::Absorbed,
            };
        }
        out.counters.repeated_requests += 1;
        match (self.state, &self.bytes) {
            (ServerState::Open | ServerState::Completed, Some(bytes)) => out.send(self.to, bytes.clone()),
            (ServerState::Open | ServerState::Completed, None) => {}
            (ServerState::Confirmed | ServerState::Accepted, _) => {}
        }
        Incoming::Absorbed
    }

    fn respond(&mut self, code: u16, bytes: Vec<u8>, now: Tick, out: &mut Out) {
        if self.state != ServerState::Open {
            return;
        }
        out.send(self.to, bytes.clone());
        self.bytes = Some(bytes);
        self.timers.stop(Timer::Silence);
        match code {
            ..=199 => {}
            200..=299 if self.invite => {
                self.state = ServerState::Accepted;
                self.timers.linger(now + PATIENCE);
            }
            _ if self.invite => {
                self.state = ServerState::Completed;
                self.timers.set(Timer::Repeat, now + T1);
                self.timers.set(Timer::GiveUp, now + PATIENCE);
            }
            _ => {
                self.state = ServerState::Completed;
                self.timers.linger(now + PATIENCE);
            }
        }
    }

    /// False: forget it.
    fn tick(&mut self, now: Tick, out: &mut Out) -> bool {
        if self.timers.expired(Timer::Silence, now) {
            out.send(self.to, self.trying.clone());
            self.bytes = Some(self.trying.clone());
        }
        if self.timers.expired(Timer::GiveUp, now) {
            out.counters.timeouts += 1;
            return false;
        }
        if self.timers.expired(Timer::Repeat, now) {
            if let Some(bytes) = &self.bytes {
                out.counters.retransmissions += 1;
                out.send(self.to, bytes.clone());
            }
            self.pause = (self.pause * 2).min(T2);
            self.timers.set(Timer::Repeat, now + self.pause);
        }
        !self.timers.expired(Timer::Linger, now)
    }
}

/// Where the answer goes (RFC 3261 §18.2.2, RFC 3581 §4): over a connection, back through it; else always to the
/// address the request came from, never to `maddr`, and to its port if it asked for that, else to the port of its Via.
pub(crate) fn way_back(request: &Request, from: Way) -> Way {
    if from.transport.is_reliable() || request.via.rport.is_some() {
        return from;
    }
    Way::udp((from.ip(), request.via.port.unwrap_or(5060)).into())
}

#[cfg(test)]
#[path = "tests/transaction.rs"]
mod tests;
