//! A trunk: its address, who may speak for it, whether it lives, and what our requests to it look like.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::clock::{Now, Tick, Wall};

use super::Core;
use super::auth::Credentials;
use super::header::{Uri, user_part};
use super::register::Registration;
use super::transaction::{Owner, Sending};
use super::wire::{Draft, Response};
use super::words::{Event, Output, Transport, TrunkSettings, TrunkState, TrunkView, Way};

/// How often a trunk is asked by OPTIONS whether it lives.
pub(crate) const PING: Duration = Duration::from_secs(30);

/// What we call ourselves as long as no way to the trunk is known.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// One trunk and its state.
#[derive(Debug)]
pub(crate) struct Trunk {
    /// Its place in the list: the owner of its transactions.
    pub index: usize,
    pub settings: TrunkSettings,
    /// `server_uri`, read. `None`: it is no SIP URI, and the trunk fails.
    pub server: Option<Uri>,
    pub credentials: Option<Credentials>,
    pub registration: Registration,
    state: TrunkState,
    since: Wall,
    pub code: Option<u16>,
    pub round_trip: Option<Duration>,
    public: Option<SocketAddr>,
    ping_due: Option<Tick>,
    ping_sent: Option<Tick>,
    ping_call_id: String,
    ping_cseq: u32,
    /// This PBX has answered OPTIONS at its present address: only then does silence mean anything.
    answers_pings: bool,
}

impl Trunk {
    pub fn new(index: usize, settings: TrunkSettings, core: &mut Core, now: Now) -> Trunk {
        let server = Uri::read(settings.server_uri.trim()).filter(Uri::is_sip);
        let credentials = settings
            .password
            .clone()
            .map(|password| Credentials { username: settings.username.clone(), password });
        let registration = Registration::new(&mut core.chance, settings.expires);
        let ping_call_id = core.chance.token();
        Trunk {
            index,
            settings,
            server,
            credentials,
            registration,
            state: TrunkState::Unresolved,
            since: now.wall,
            code: None,
            round_trip: None,
            public: None,
            ping_due: None,
            ping_sent: None,
            ping_call_id,
            ping_cseq: 0,
            answers_pings: false,
        }
    }

    /// The address is known: begins.
    pub fn start(&mut self, core: &mut Core, now: Now) {
        if self.settings.found.is_empty() || self.stopped() {
            return;
        }
        if self.server.is_none() {
            let why = format!("\"{}\" is not a SIP URI", self.settings.server_uri);
            return self.enter(TrunkState::Failed { code: None, why }, core, now);
        }
        self.enter(TrunkState::Trying, core, now);
        // An OPTIONS to an address that was given up must not hold back the one to the new address.
        core.transactions.forget(Owner::Options(self.index));
        self.ping_sent = None;
        self.ping_due = None;
        self.answers_pings = false;
        if self.settings.register {
            self.registration.now(now);
        } else {
            self.ping_due = Some(now.tick);
        }
        self.handle_timeout(core, now);
    }

    /// Where it is spoken to now.
    pub fn peer(&self) -> Option<Way> {
        self.settings.found.first().map(|found| found.way)
    }

    /// What we call ourselves towards it.
    pub fn local(&self) -> SocketAddr {
        self.settings.found.first().map_or(NOWHERE, |found| found.local)
    }

    pub fn stopped(&self) -> bool {
        self.registration.leaving() || self.state == TrunkState::Stopped
    }

    pub fn state(&self) -> &TrunkState {
        &self.state
    }

    /// Changes the state; an event tells of it unless only a figure changed.
    pub fn enter(&mut self, state: TrunkState, core: &mut Core, now: Now) {
        let same_kind = std::mem::discriminant(&self.state) == std::mem::discriminant(&state);
        let news = match (&self.state, &state) {
            (TrunkState::Reachable { .. }, TrunkState::Reachable { .. }) => false,
            (before, after) => before != after,
        };
        if !same_kind {
            self.since = now.wall;
            tracing::debug!(trunk = %self.settings.name, state = ?state, "trunk");
        }
        self.state = state.clone();
        if news {
            let trunk = self.settings.name.clone();
            core.out.queue.push_back(Output::Event(Event::Trunk { trunk, state }));
        }
    }

    /// Whether a datagram from there may be for this trunk.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.peer().is_some_and(|peer| peer.ip().to_canonical() == address)
            || self.settings.allow.iter().any(|range| range.contains(address))
    }

    /// How closely a request's source belongs to this trunk, the closest being the least: the peer, another
    /// port of the peer's, an allowed address. `None`: not at all.
    pub fn kinship(&self, source: Way) -> Option<u8> {
        let same_ip = |peer: &Way| peer.ip().to_canonical() == source.ip().to_canonical();
        match self.peer().filter(same_ip) {
            Some(peer) if peer.address.port() == source.address.port() => Some(0),
            Some(_) => Some(1),
            None => self.admits(source.ip()).then_some(2),
        }
    }

    /// Where a request in a dialog goes: to the next hop its route says, if that is one of this
    /// trunk's addresses, else the way the dialog's last message came. So a PBX behind NAT that writes
    /// its private address into Contact is still reached, and nobody can point us at a third party.
    pub fn way_to(&self, hop: Option<Way>, seen: Way) -> Way {
        hop.filter(|hop| self.admits(hop.ip())).unwrap_or(seen)
    }

    /// The host of From and To.
    pub fn domain(&self) -> String {
        self.server.as_ref().map(Uri::host_text).unwrap_or_default()
    }

    /// The server as a request URI, with a user if there is one.
    pub fn uri(&self, user: &str, host: Option<&str>) -> String {
        let server = self.server.as_ref();
        let scheme = server.map_or("sip", |server| server.scheme.as_str());
        let host = host.map(str::to_owned).or_else(|| server.map(Uri::host_port_text)).unwrap_or_default();
        if user.is_empty() {
            format!("{scheme}:{host}")
        } else {
            format!("{scheme}:{}@{host}", user_part(user))
        }
    }

    /// Our account's URI: From and To of REGISTER.
    pub fn account(&self) -> String {
        format!("<sip:{}@{}>", user_part(&self.settings.username), self.domain())
    }

    /// Our Contact.
    pub fn contact(&self) -> String {
        let transport = self.transport().in_uri();
        format!("<sip:{}@{}{transport}>", user_part(&self.settings.username), self.local())
    }

    /// What this trunk is spoken to by.
    fn transport(&self) -> Transport {
        self.peer().map(|peer| peer.transport).unwrap_or_default()
    }

    /// Writes Via above the rest and starts the transaction. Gives the branch.
    pub fn send(
        &self,
        method: &'static str,
        draft: Draft,
        to: Way,
        owner: Owner,
        core: &mut Core,
        now: Now,
    ) -> String {
        let branch = format!("z9hG4bK{}", core.chance.token());
        let request = self.with_via(draft, &branch, to.transport, core);
        let sending = Sending { branch: branch.clone(), method, request, to, owner };
        core.transactions.start(sending, now, &mut core.out);
        branch
    }

    /// The request with Via on top and our name at the end.
    pub fn with_via(&self, draft: Draft, branch: &str, transport: Transport, core: &Core) -> Draft {
        let mut complete = Draft { start: draft.start, headers: Default::default(), body: draft.body };
        let via = format!("SIP/2.0/{} {};rport;branch={branch}", transport.in_via(), self.local());
        complete.push("Via", via);
        for (name, value) in draft.headers.iter() {
            complete.push(name, value);
        }
        complete.push("User-Agent", core.settings.user_agent.clone());
        complete
    }

    /// What the PBX says about our address (RFC 3581).
    pub fn learn(&mut self, response: &Response) {
        let received = response.via.received.unwrap_or_else(|| self.local().ip());
        if let Some(port) =
            response.via.rport.flatten().or(response.via.received.map(|_| self.local().port()))
        {
            self.public = Some(SocketAddr::new(received, port));
        }
    }

    pub fn next(&self) -> Option<Tick> {
        [self.ping_due, self.registration.due()].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, core: &mut Core, now: Now) {
        if self.ping_due.is_some_and(|due| due <= now.tick) {
            self.ping_due = None;
            self.ping(core, now);
        }
        if self.registration.due().is_some_and(|due| due <= now.tick) {
            self.register(core, now);
        }
    }

    fn ping(&mut self, core: &mut Core, now: Now) {
        let Some(peer) = self.peer().filter(|_| !self.stopped() && self.ping_sent.is_none()) else {
            return;
        };
        self.ping_cseq = self.ping_cseq.wrapping_add(1) & 0x7fff_ffff;
        let uri = self.uri("", None);
        let mut draft = Draft::request("OPTIONS", &uri);
        draft.push("Max-Forwards", "70");
        draft.push("From", format!("{};tag={}", self.account(), core.chance.token()));
        draft.push("To", format!("<{uri}>"));
        draft.push("Call-ID", self.ping_call_id.clone());
        draft.push("CSeq", format!("{} OPTIONS", self.ping_cseq));
        draft.push("Contact", self.contact());
        draft.push("Accept", "application/sdp");
        self.ping_sent = Some(now.tick);
        self.send("OPTIONS", draft, peer, Owner::Options(self.index), core, now);
    }

    /// The next OPTIONS, half a minute from now, if this trunk is asked at all.
    pub fn ping_later(&mut self, now: Now) {
        if self.ping_due.is_none() && self.ping_sent.is_none() {
            self.ping_due = Some(now.tick + PING);
        }
    }

    /// A final answer to OPTIONS. Any answer shows that the PBX lives, but 503 says it does not serve.
    pub fn pinged(&mut self, response: &Response, core: &mut Core, now: Now) {
        if response.code < 200 || self.stopped() {
            return;
        }
        let Some(sent) = self.ping_sent.take() else { return };
        self.answers_pings = true;
        let round_trip = now.tick.since(sent);
        self.round_trip = Some(round_trip);
        self.ping_due = Some(now.tick + PING);
        if self.settings.register {
            return;
        }
        self.code = Some(response.code);
        let state = match response.code {
            503 => TrunkState::Failed { code: Some(503), why: response.text() },
            _ => TrunkState::Reachable { round_trip },
        };
        self.enter(state, core, now);
    }

    /// OPTIONS was never answered.
    pub fn ping_lost(&mut self, core: &mut Core, now: Now) {
        self.ping_sent = None;
        if self.stopped() {
            return;
        }
        self.round_trip = None;
        let why = "no answer to OPTIONS".to_owned();
        if self.settings.register {
            // Some registrars drop OPTIONS without a word, and are alive all the same.
            if !self.answers_pings {
                return self.ping_later(now);
            }
            // It may have been restarted and forgotten us: the registration tells, and comes at once.
            if self.state.is_up() {
                self.code = None;
                self.enter(TrunkState::Failed { code: None, why }, core, now);
                self.registration.now(now);
                self.handle_timeout(core, now);
            }
        } else {
            self.code = None;
            self.ping_due = Some(now.tick + core.chance.part_of(Duration::from_secs(4), 50, 100));
            self.enter(TrunkState::Failed { code: None, why }, core, now);
        }
    }

    pub fn stop(&mut self, core: &mut Core, now: Now) {
        self.ping_due = None;
        if self.settings.register && self.registration.bound() && self.peer().is_some() {
            self.registration.leave();
            self.register(core, now);
        } else {
            self.registration.cancel();
            self.enter(TrunkState::Stopped, core, now);
        }
    }

    pub fn view(&self) -> TrunkView {
        TrunkView {
            name: self.settings.name.clone(),
            state: self.state.clone(),
            code: self.code,
            round_trip: self.round_trip,
            since: self.since,
            peer: self.peer(),
            public: self.public,
        }
    }
}
