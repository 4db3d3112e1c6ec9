//! The four machines of RFC 3261 §17, with the Accepted states of RFC 6026.
//!
//! ```text
//!            sends again       gives up          lingers, absorbing repeats
//! INVITE  client  A: T1, x2     B: 64 T1          D: 32 s (refused)   M: 64 T1 (accepted)
//! other   client  E: T1, x2, T2 F: 64 T1          K: T4
//! INVITE  server  G: T1, x2, T2 H: 64 T1          I: T4 (refused)     L: 64 T1 (accepted)
//! other   server                                  J: 64 T1
//! ```
//! Over a connection nothing is sent again, and nothing lingers but what was accepted: A, E and G don't run, D, I, J and
//! K are zero. 2xx to an INVITE is sent again by the dialog's side ([`modify`](super::modify)), not here, and over a
//! connection too (§13.3.1.4).
//!
//! A request that is too long for a datagram goes over a connection to the same address (§18.1.1); if that cannot be
//! made, or brings nothing, it goes by datagram after all.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
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
/// How long a request that went over a connection for its length waits there for a first answer.
const TRIAL: Duration = Duration::from_secs(4);

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
    /// OPTIONS to a better place of that trunk's.
    Probe(usize),
    /// INVITE of the call with that number.
    Invite(u64),
    /// CANCEL of that call.
    Cancel(u64),
    /// BYE of that call.
    Bye(u64),
    /// BYE to a fork of that call that came too late.
    StrayBye(u64),
    /// re-INVITE or UPDATE in that call.
    Change(u64),
    /// INFO in that call.
    Info(u64),
    /// NOTIFY in that call: how a transfer goes.
    Notify(u64),
    /// PRACK in that call.
    Prack(u64),
}

impl Owner {
    fn call(self) -> Option<u64> {
        match self {
            Owner::Invite(call)
            | Owner::Cancel(call)
            | Owner::Bye(call)
            | Owner::StrayBye(call)
            | Owner::Change(call)
            | Owner::Info(call)
            | Owner::Notify(call)
            | Owner::Prack(call) => Some(call),
            Owner::Register(_) | Owner::Options(_) | Owner::Probe(_) => None,
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
    /// The time within which any answer at all is wanted, and that after which a connection is not worth the wait.
    Patience,
}

#[derive(Debug, Clone, Copy, Default)]
struct Timers([Option<Tick>; 5]);

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

    fn has_run_out(&self, timer: Timer, now: Tick) -> bool {
        self.0[timer as usize].is_some_and(|at| at <= now)
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
    /// Where the same request goes if a connection cannot be made.
    instead: Option<Way>,
    /// How long whoever asks is willing to wait for a first answer.
    patience: Option<Duration>,
    /// The connection could not be made or broke.
    broken: bool,
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
    /// Where answers go once the connection that the request came by is gone (§18.2.2).
    aside: Way,
    /// The lower, the older.
    born: u64,
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
    /// Where it goes if a connection to `to` cannot be made.
    pub instead: Option<Way>,
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
    /// A request of ours was never answered (timers B, F), or not by the way it was sent.
    TimedOut(Owner),
    /// Nobody has answered as soon as was wanted; answers that come yet are looked at.
    Impatient(Owner),
    /// A transaction of ours is forgotten.
    Gone(Owner),
}

/// A request of ours that failed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub way: Way,
    /// There was no connection; else there was no answer.
    pub broken: bool,
}

/// All transactions.
#[derive(Debug)]
pub(crate) struct Transactions {
    clients: BTreeMap<ClientKey, Client>,
    servers: BTreeMap<ServerKey, Server>,
    most_servers: usize,
    born: u64,
    /// To each [`Told::TimedOut`] and [`Told::Impatient`], in the same order, what failed.
    failed: VecDeque<Failed>,
    /// Where connections were tried in vain and datagrams went instead.
    without_tcp: Vec<SocketAddr>,
}

impl Transactions {
    pub fn new(most_servers: usize) -> Transactions {
        Transactions {
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            most_servers,
            born: 0,
            failed: VecDeque::new(),
            without_tcp: Vec::new(),
        }
    }

    /// How many exist, ours and the PBX's.
    pub fn sizes(&self) -> (usize, usize) {
        (self.clients.len(), self.servers.len())
    }

    /// Sends a request.
    pub fn start(&mut self, sending: Sending, now: Now, out: &mut Out) {
        let Sending { branch, method, request, to, owner, instead } = sending;
        let bytes = request.bytes();
        let mut client = Client {
            owner,
            invite: method == "INVITE",
            state: ClientState::Sent,
            to,
            request,
            bytes,
            ack: None,
            pause: T1,
            timers: Timers::default(),
            instead,
            patience: None,
            broken: false,
        };
        client.start(now.tick, out);
        self.clients.insert((branch, method.to_owned()), client);
    }

    /// Whoever sent that request wants any answer at all within `patience`, else he is told [`Told::Impatient`].
    pub fn hurry(&mut self, owner: Owner, patience: Duration, now: Now) {
        for client in self.clients.values_mut() {
            if client.owner == owner && client.state == ClientState::Sent {
                client.patience = Some(patience);
                client.be_patient(now.tick);
            }
        }
    }

    /// The branch and the way of that request, as long as it waits for its answer.
    pub fn waiting(&self, owner: Owner) -> Option<(String, Way)> {
        let (key, client) =
            self.clients.iter().find(|(_, client)| client.owner == owner && client.waits())?;
        Some((key.0.clone(), client.to))
    }

    /// What failed on its way since the last look, to each [`Told::TimedOut`] and [`Told::Impatient`] one.
    pub fn failed(&mut self) -> VecDeque<Failed> {
        std::mem::take(&mut self.failed)
    }

    /// The addresses at which there was no TCP for a request that should have gone by it, since the last look.
    pub fn without_tcp(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.without_tcp)
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
        let invite = request.method == "INVITE";
        if self.servers.len() >= self.most_servers {
            // Room is made for calls, not for more of what fills it.
            let matters = invite || request.in_dialog() || request.method == "CANCEL";
            if !matters || !self.evict() {
                out.counters.refused_full += 1;
                return Incoming::Full;
            }
            out.counters.evicted += 1;
        }
        let mut timers = Timers::default();
        if invite {
            timers.set(Timer::Silence, now.tick + SILENCE);
        } else {
            // A request nobody answers must not stay for ever.
            timers.set(Timer::Linger, now.tick + PATIENCE);
        }
        let to = way_back(request, from);
        let port = request.via.port.unwrap_or(from.transport.usual_port());
        let aside = Way { transport: from.transport, address: (from.ip(), port).into() };
        self.born += 1;
        let trying = request.reply(100, "", from.address).bytes();
        let state = ServerState::Open;
        let born = self.born;
        let server =
            Server { invite, state, to, aside, born, merged, bytes: None, trying, pause: T1, timers };
        self.servers.insert(key, server);
        Incoming::New
    }

    /// Forgets the oldest transaction that is no INVITE, an answered one first. False: there is none.
    fn evict(&mut self) -> bool {
        let others = self.servers.iter().filter(|(_, server)| !server.invite);
        let oldest = others.min_by_key(|(_, server)| (server.state == ServerState::Open, server.born));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else { return false };
        self.servers.remove(&key).is_some()
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

    /// Nothing comes by that way any more: whoever waits for an answer there gives up now or asks by another, and answers
    /// go where the Via says.
    pub fn unreachable(&mut self, way: Way, now: Now, out: &mut Out) {
        self.fall_back(now, out, |client| client.to == way);
        for client in self.clients.values_mut().filter(|client| client.to == way && client.waits()) {
            client.broken = true;
            client.timers.set(Timer::GiveUp, now.tick);
        }
        if way.transport.is_reliable() {
            for server in self.servers.values_mut().filter(|server| server.to == way) {
                server.to = server.aside;
            }
        }
    }

    /// Sends by datagram what was sent over a connection for its length alone and has not been answered (§18.1.1): with
    /// another branch, for it is another transaction.
    fn fall_back(&mut self, now: Now, out: &mut Out, which: impl Fn(&Client) -> bool) {
        let silent =
            |client: &Client| client.state == ClientState::Sent && client.instead.is_some() && which(client);
        let keys: Vec<ClientKey> =
            self.clients.iter().filter(|(_, client)| silent(client)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(mut client) = self.clients.remove(&key) else { continue };
            let Some(instead) = client.instead.take() else { continue };
            let branch = format!("{}.again", key.0);
            client.request.sent_by_another(instead.transport, &key.0, &branch);
            client.bytes = client.request.bytes();
            client.to = instead;
            client.timers = Timers::default();
            client.start(now.tick, out);
            out.counters.fallen_back += 1;
            self.without_tcp.push(instead.address);
            self.clients.insert((branch, key.1), client);
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
        self.fall_back(now, out, |client| client.timers.has_run_out(Timer::Patience, now.tick));
        let failed = &mut self.failed;
        self.clients.retain(|_, client| {
            let before = told.len();
            let alive = client.tick(now.tick, &mut told, out);
            failed.extend(told.iter().skip(before).map(|_| Failed { way: client.to, broken: client.broken }));
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
    fn start(&mut self, now: Tick, out: &mut Out) {
        out.send(self.to, self.bytes.clone());
        if !self.to.transport.is_reliable() {
            self.pause = T1;
            self.timers.set(Timer::Repeat, now + T1);
        }
        self.timers.set(Timer::GiveUp, now + PATIENCE);
        self.be_patient(now);
    }

    fn be_patient(&mut self, now: Tick) {
        let trial = self.instead.map(|_| TRIAL);
        if let Some(span) = [trial, self.patience].into_iter().flatten().min() {
            self.timers.set(Timer::Patience, now + span);
        }
    }

    /// How long what has been answered may come again.
    fn absorbing(&self, span: Duration) -> Duration {
        if self.to.transport.is_reliable() { Duration::ZERO } else { span }
    }

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
                    self.timers.stop(Timer::Patience);
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
                    self.timers.linger(now + self.absorbing(TIMER_D));
                } else {
                    self.timers.linger(now + self.absorbing(T4));
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
        if self.timers.expired(Timer::Patience, now) {
            told.push(Told::Impatient(self.owner));
            self.timers.stop(Timer::Repeat);
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
    /// How long what has been answered may come again.
    fn absorbing(&self, span: Duration) -> Duration {
        if self.to.transport.is_reliable() { Duration::ZERO } else { span }
    }

    fn repeated(&mut self, request: &Request, now: Tick, out: &mut Out) -> Incoming {
        if request.method == "ACK" {
            return match self.state {
                ServerState::Completed => {
                    self.state = ServerState::Confirmed;
                    self.timers.linger(now + self.absorbing(T4));
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
                if !self.to.transport.is_reliable() {
                    self.timers.set(Timer::Repeat, now + T1);
                }
                self.timers.set(Timer::GiveUp, now + PATIENCE);
            }
            _ => {
                self.state = ServerState::Completed;
                self.timers.linger(now + self.absorbing(PATIENCE));
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
