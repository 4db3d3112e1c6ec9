//! A trunk: its address, who may speak for it, whether it lives, and what our requests to it look like.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::clock::{Now, Tick, Wall};

use super::Core;
use super::auth::Credentials;
use super::header::{Uri, host_port_of, user_part};
use super::place::Places;
use super::register::Registration;
use super::transaction::{Owner, Sending, T1};
use super::wire::{Draft, Response};
use super::words::{Event, Output, Transport, TrunkSettings, TrunkState, TrunkView, Way};

/// How often a trunk is asked by OPTIONS whether it lives.
pub(crate) const PING: Duration = Duration::from_secs(30);

/// Longer requests don't go by datagrams (RFC 3261 §18.1.1), in octets.
const LONGEST_DATAGRAM: usize = 1_300;
/// How long a trunk that has no TCP is taken to have none.
const WITHOUT_TCP: Duration = Duration::from_secs(600);

/// How often a PBX with a telephone that rings is asked, and how long its answer may take.
const WATCH: Duration = Duration::from_secs(3);

/// How long ago a PBX at least has answered OPTIONS that is asked because a call's sound has stopped: nobody may be speaking.
const DOUBT: Duration = Duration::from_secs(10);

/// How long REGISTER and OPTIONS wait at one place while another could be tried (RFC 3263 §4.3 has 64 T1, half a minute).
const ELSEWHERE: Duration = Duration::from_secs(4);

/// What we call ourselves as long as no way to the trunk is known.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// One trunk and its state.
#[derive(Debug)]
pub(crate) struct Trunk {
    /// Its number: the owner of its transactions.
    pub index: usize,
    pub settings: TrunkSettings,
    /// Where it is.
    pub places: Places,
    /// It has been taken away, and is forgotten once nothing needs it.
    pub removed: bool,
    /// Another one of the same name stands in its place.
    pub replaced: bool,
    /// How many calls in a row failed for its sake.
    pub failures: u32,
    /// It is down because calls failed, whatever REGISTER or OPTIONS say.
    pub bad_for_calls: bool,
    /// Until when it asked to be left alone.
    pub quiet: Option<Tick>,
    /// Until when long requests go by UDP all the same.
    without_tcp: Option<Tick>,
    /// `server_uri`, read. `None`: it is no SIP URI, and the trunk fails.
    pub server: Option<Uri>,
    pub credentials: Option<Credentials>,
    pub registration: Registration,
    state: TrunkState,
    since: Wall,
    pub code: Option<u16>,
    pub round_trip: Option<Duration>,
    public: Option<SocketAddr>,
    pub(super) ping_due: Option<Tick>,
    pub(super) ping_sent: Option<Tick>,
    ping_call_id: String,
    ping_cseq: u32,
    /// Why no connection could be had, since anything was last asked for.
    pub unreached: Option<String>,
    /// A call rings there that another trunk could carry: whether the PBX lives is asked more often.
    watched: bool,
    /// Sound of a call there has stopped: the next OPTIONS are not waited for to the end.
    doubted: bool,
    /// When it last answered OPTIONS.
    answered: Option<Tick>,
    /// This PBX has answered OPTIONS at its present address: only then does silence mean anything.
    pub(super) answers_pings: bool,
    /// It has answered OPTIONS at any of its addresses.
    has_answered: bool,
    /// Where it was before it moved, as long as calls of its go on there.
    pub(super) former: Vec<IpAddr>,
}

impl Trunk {
    pub fn new(index: usize, settings: TrunkSettings, core: &mut Core, now: Now) -> Trunk {
        let server = Uri::read(settings.server_uri.trim()).filter(Uri::is_sip);
        let credentials = credentials(&settings);
        let registration = Registration::new(&mut core.chance, settings.expires);
        let ping_call_id = core.chance.token();
        Trunk {
            index,
            places: Places::new(&settings.found),
            settings,
            removed: false,
            replaced: false,
            failures: 0,
            bad_for_calls: false,
            quiet: None,
            without_tcp: None,
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
            unreached: None,
            watched: false,
            doubted: false,
            answered: None,
            answers_pings: false,
            has_answered: false,
            former: Vec::new(),
        }
    }

    /// The address is known: begins.
    pub fn start(&mut self, core: &mut Core, now: Now) {
        if self.peer().is_none() || self.stopped() {
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
        self.has_answered = false;
        self.failures = 0;
        self.bad_for_calls = false;
        self.quiet = None;
        if self.settings.register {
            self.registration.now(now);
        } else {
            self.ping_due = Some(now.tick);
        }
        self.handle_timeout(core, now);
    }

    /// Where it is spoken to now.
    pub fn peer(&self) -> Option<Way> {
        self.places.current().map(|found| found.way)
    }

    /// What we call ourselves towards it where it is spoken to now.
    pub fn local(&self) -> SocketAddr {
        self.places.current().map_or(NOWHERE, |found| found.local)
    }

    /// What we call ourselves towards that end.
    fn local_towards(&self, way: Way) -> SocketAddr {
        self.places.nearest(way).map_or(NOWHERE, |found| found.local)
    }

    /// Whether nothing is left of it but its calls.
    pub fn gone(&self) -> bool {
        self.state == TrunkState::Stopped
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

    /// Whether a datagram from there may be for this trunk, if only for a call that began before it moved.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.may_call(address) || self.former.contains(&address.to_canonical())
    }

    /// Whether calls may come from there.
    fn may_call(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.places.iter().any(|found| found.way.ip().to_canonical() == address)
            || self.settings.allow.iter().any(|range| range.contains(address))
    }

    /// How closely a request's source belongs to this trunk, the closest being the least: the peer, another
    /// port of the peer's, an allowed address. `None`: not at all.
    pub fn kinship(&self, source: Way) -> Option<u8> {
        let same_ip = |peer: &Way| peer.ip().to_canonical() == source.ip().to_canonical();
        let mut ports =
            self.places.iter().map(|found| found.way).filter(same_ip).map(|way| way.address.port());
        match ports.next() {
            Some(first) if first == source.address.port() => Some(0),
            Some(_) if ports.any(|port| port == source.address.port()) => Some(0),
            Some(_) => Some(1),
            None => self.may_call(source.ip()).then_some(2),
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

    /// `sip`, or `sips` if the operator wants nothing else.
    pub fn scheme(&self) -> &str {
        self.server.as_ref().map_or("sip", |server| server.scheme.as_str())
    }

    /// The server as a request URI, with a user if there is one.
    pub fn uri(&self, user: &str, host: Option<&str>) -> String {
        let server = self.server.as_ref();
        let host = host.map(str::to_owned).or_else(|| server.map(Uri::host_port_text)).unwrap_or_default();
        self.uri_of(user, &host)
    }

    /// A URI of that user, or of nobody in particular: an empty user part is none (RFC 3261 §25.1).
    fn uri_of(&self, user: &str, host: &str) -> String {
        match user_part(user) {
            user if user.is_empty() => format!("{}:{host}", self.scheme()),
            user => format!("{}:{user}@{host}", self.scheme()),
        }
    }

    /// Somebody in the trunk's domain, as From and To have him.
    pub fn address(&self, user: &str) -> String {
        format!("<{}>", self.uri_of(user, &self.domain()))
    }

    /// Our account's URI: From and To of REGISTER.
    pub fn account(&self) -> String {
        self.address(&self.settings.username)
    }

    /// Our Contact towards that end.
    pub fn contact(&self, to: Way) -> String {
        let mut uri = self.uri_of(&self.settings.username, &host_port_of(self.local_towards(to)));
        if self.settings.shares_host {
            uri = format!("{uri};trunk={}", self.settings.name);
        }
        // §8.1.1.8: where the request URI is sips, the Contact is, and that says TLS.
        match self.scheme() {
            "sips" => format!("<{uri}>"),
            _ => format!("<{uri}{}>", self.usual_transport(to).in_uri()),
        }
    }

    /// What this trunk is spoken to by at that end: UDP, though a long request may have come by TCP.
    fn usual_transport(&self, to: Way) -> Transport {
        let usual = Way::udp(to.address);
        if self.places.iter().any(|found| found.way == usual) { Transport::Udp } else { to.transport }
    }

    /// Long requests go by UDP for a while.
    pub fn do_without_tcp(&mut self, now: Now) {
        self.without_tcp = Some(now.tick + WITHOUT_TCP);
    }

    /// By which way a request goes that has to go there, and by which one if that can't be: TCP, if it is too long for
    /// UDP.
    fn ways(&self, to: Way, length: usize, now: Now) -> (Way, Option<Way>) {
        let tcp = Way { transport: Transport::Tcp, address: to.address };
        let usual = Way::udp(to.address);
        let has_tcp = self.without_tcp.is_none_or(|until| until <= now.tick);
        match to.transport {
            Transport::Udp if length > LONGEST_DATAGRAM && has_tcp => (tcp, Some(usual)),
            // A dialog that a long request began over TCP goes on there.
            Transport::Tcp if self.places.iter().any(|found| found.way == usual) => (tcp, Some(usual)),
            Transport::Udp | Transport::Tcp | Transport::Tls => (to, None),
        }
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
        let mut request = self.with_via(draft, &branch, to, core);
        let (way, instead) = self.ways(to, request.bytes().len(), now);
        if way.transport != to.transport {
            request.sent_by_another(way.transport, &branch, &branch);
        }
        let sending = Sending { branch: branch.clone(), method, request, to: way, owner, instead };
        core.transactions.start(sending, now, &mut core.out);
        branch
    }

    /// The request with Via on top and our name at the end.
    pub fn with_via(&self, draft: Draft, branch: &str, to: Way, core: &Core) -> Draft {
        let mut complete = Draft { start: draft.start, headers: Default::default(), body: draft.body };
        let local = host_port_of(self.local_towards(to));
        let via = format!("SIP/2.0/{} {local};rport;branch={branch}", to.transport.in_via());
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
        let better = self.places.due().filter(|_| !self.stopped());
        [self.ping_due, self.registration.due(), better].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, core: &mut Core, now: Now) {
        if self.ping_due.is_some_and(|due| due <= now.tick) {
            self.ping_due = None;
            self.ping(core, now);
        }
        if self.registration.due().is_some_and(|due| due <= now.tick) {
            self.register(core, now);
        }
        if !self.stopped()
            && let Some(better) = self.places.ask(now)
        {
            self.ask(better, Owner::Probe(self.index), core, now);
        }
    }

    fn ping(&mut self, core: &mut Core, now: Now) {
        let Some(peer) = self.peer().filter(|_| !self.stopped() && self.ping_sent.is_none()) else {
            return;
        };
        self.ping_sent = Some(now.tick);
        let owner = Owner::Options(self.index);
        self.ask(peer, owner, core, now);
        self.or_elsewhere(owner, core, now);
        self.hurry(core, now);
    }

    /// What has just been sent is not waited for long if there is another place to ask.
    pub fn or_elsewhere(&self, owner: Owner, core: &mut Core, now: Now) {
        if self.places.has_another(now) {
            core.transactions.hurry(owner, ELSEWHERE, now);
        }
    }

    /// A dead PBX says nothing about a telephone that it had ringing: while one rings that could ring elsewhere, OPTIONS
    /// go out every few seconds, and are waited for no longer than that.
    pub fn watch(&mut self, watched: bool, core: &mut Core, now: Now) {
        let begins = watched && !self.watched;
        self.watched = watched;
        // It has just said that the telephone rings: now it can be learned whether it answers OPTIONS at all.
        let soon = if begins && !self.answers_pings { now.tick } else { now.tick + WATCH };
        if watched && self.ping_due.is_none_or(|due| due > soon) && self.ping_sent.is_none() {
            self.ping_due = Some(soon);
        }
        if begins {
            self.hurry(core, now);
        }
    }

    /// The sound of a call there has stopped: OPTIONS go out soon, and are waited for as when a telephone rings. Of a PBX that
    /// never answers them nothing can be learned so.
    pub fn doubt(&mut self, core: &mut Core, now: Now) {
        if self.stopped() || !self.answers_pings {
            return;
        }
        let soon = self.answered.map_or(now.tick, |answered| now.tick.max(answered + DOUBT));
        self.doubted = true;
        if self.ping_sent.is_some() {
            self.hurry(core, now);
        } else if self.ping_due.is_none_or(|due| due > soon) {
            self.ping_due = Some(soon);
            self.handle_timeout(core, now);
        }
    }

    fn hurry(&self, core: &mut Core, now: Now) {
        if (self.watched || self.doubted) && self.answers_pings {
            core.transactions.hurry(Owner::Options(self.index), WATCH, now);
        }
    }

    /// OPTIONS.
    fn ask(&mut self, peer: Way, owner: Owner, core: &mut Core, now: Now) {
        self.ping_cseq = self.ping_cseq.wrapping_add(1) & 0x7fff_ffff;
        let uri = self.uri("", None);
        let mut draft = Draft::request("OPTIONS", &uri);
        draft.push("Max-Forwards", "70");
        draft.push("From", format!("{};tag={}", self.account(), core.chance.token()));
        draft.push("To", format!("<{uri}>"));
        draft.push("Call-ID", self.ping_call_id.clone());
        draft.push("CSeq", format!("{} OPTIONS", self.ping_cseq));
        draft.push("Contact", self.contact(peer));
        draft.push("Accept", "application/sdp");
        self.send("OPTIONS", draft, peer, owner, core, now);
    }

    /// The next OPTIONS, half a minute from now, if this trunk is asked at all.
    pub fn ping_later(&mut self, core: &mut Core, now: Now) {
        if self.ping_due.is_none() && self.ping_sent.is_none() {
            self.ping_due = Some(now.tick + core.chance.part_of(PING, 95, 100));
        }
    }

    /// A final answer to OPTIONS. Any answer shows that the PBX lives, but 503 says it does not serve.
    pub fn pinged(&mut self, response: &Response, core: &mut Core, now: Now) {
        if response.code < 200 || self.stopped() {
            return;
        }
        let Some(sent) = self.ping_sent.take() else { return };
        self.answers_pings = true;
        self.has_answered = true;
        self.doubted = false;
        self.answered = Some(now.tick);
        let round_trip = now.tick.since(sent);
        let before = self.round_trip.replace(round_trip);
        self.ping_later(core, now);
        let serves = response.code != 503;
        if !serves && self.leaves_here(core, now) {
            return;
        }
        if let Some(peer) = self.peer().filter(|_| serves) {
            self.places.works(peer);
        }
        let way = self.peer().filter(|_| serves && !self.wants_quiet(now));
        if self.settings.register {
            if let Some(way) = way.filter(|_| self.bad_for_calls) {
                self.served(way, core, now);
            }
            // It was asked more than once: it may have been started anew in between, and have forgotten us.
            let late = round_trip >= T1 && before.is_none_or(|before| before < T1);
            if late && serves && self.registration.bound() && !self.registration.under_way() {
                self.registration.now(now);
            }
            return;
        }
        self.code = Some(response.code);
        if serves {
            let Some(way) = way else { return };
            self.served(way, core, now);
            self.enter(TrunkState::Reachable { round_trip }, core, now);
        } else {
            self.enter(TrunkState::Failed { code: Some(503), why: response.text() }, core, now);
        }
    }

    /// The place that is spoken to does not serve. True: another one is spoken to.
    pub fn leaves_here(&mut self, core: &mut Core, now: Now) -> bool {
        self.peer().is_some_and(|peer| self.place_failed(peer, None, core, now))
    }

    /// OPTIONS was never answered.
    pub fn ping_lost(&mut self, core: &mut Core, now: Now) {
        self.ping_sent = None;
        self.doubted = false;
        if self.stopped() {
            return;
        }
        self.round_trip = None;
        let silent = !self.has_answered && self.unreached.is_none() && !self.wants_quiet(now);
        let why = self.unreached.take().unwrap_or_else(|| "no answer to OPTIONS".to_owned());
        if self.settings.register {
            // Some registrars drop OPTIONS without a word, and are alive all the same.
            if !self.answers_pings {
                return self.ping_later(core, now);
            }
            if self.leaves_here(core, now) {
                return;
            }
            // It may have been restarted and forgotten us: the registration tells, and comes at once.
            if self.state.is_up() {
                self.code = None;
                self.enter(TrunkState::Failed { code: None, why }, core, now);
                self.registration.now(now);
                self.handle_timeout(core, now);
            }
        } else {
            if self.leaves_here(core, now) {
                return;
            }
            self.code = None;
            self.ping_due = Some(now.tick + core.chance.part_of(Duration::from_secs(4), 50, 100));
            if silent {
                self.failures = 0;
                self.bad_for_calls = false;
                return self.enter(TrunkState::Silent, core, now);
            }
            self.enter(TrunkState::Failed { code: None, why }, core, now);
        }
    }

    /// The operator changed something about it that is no other account and no other server.
    pub fn change(&mut self, mut settings: TrunkSettings, core: &mut Core, now: Now) {
        let before = &self.settings;
        let anew = settings.password != before.password
            || settings.expires != before.expires
            || settings.shares_host != before.shares_host;
        let found = std::mem::replace(&mut settings.found, self.settings.found.clone());
        self.credentials = credentials(&settings);
        self.settings = settings;
        if anew {
            self.registration.begin_anew(self.settings.expires);
            if self.settings.register && self.peer().is_some() && self.server.is_some() {
                self.registration.now(now);
            }
        }
        self.moved(found, core, now);
        self.handle_timeout(core, now);
    }

    pub fn stop(&mut self, core: &mut Core, now: Now) {
        self.ping_due = None;
        // What is under way may succeed, and then there is a binding too.
        let bound = self.registration.bound() || self.registration.under_way();
        if self.settings.register && bound && self.peer().is_some() {
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
            places: self.places.iter().map(|found| found.way).collect(),
            failures: self.failures,
            public: self.public,
        }
    }
}

fn credentials(settings: &TrunkSettings) -> Option<Credentials> {
    let password = settings.password.clone()?;
    Some(Credentials { username: settings.username.clone(), password })
}
