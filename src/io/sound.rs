//! The sound threads: each owns some calls, their WebRTC connections and their RTP ports.
//!
//! One thread is one single-threaded tokio runtime. A call never moves between threads, and signalling
//! never runs on one: Opus for many calls can't delay a webhook, nor a webhook Opus.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

use super::agent::{Agent, Happened};
use super::capture::Capture;
use super::host::{self, Beat};
use super::mux::{Port, Seat};
use super::peer::{Dtls, Mouth, Peer, PeerEvent, PeerSettings};
use super::prompts::Prompts;
use super::recorder::{Begin, Recorder};
use super::{clock, random, sock};
use crate::agent::AgentEvent;
use crate::call::record::Quality;
use crate::config::DtlsRole;
use crate::config::{MediaConfig, PortRange};
use crate::gateway::line::{Line, Silence, TapeNews};
use crate::gateway::{
    CallKey, FarSound, Input, LineEvent, LineOrder, LineSetup, Secret, TapeEvent, TapeSetup, WebRtc,
};
use crate::media::tap::{self, Slice};
use crate::media::tape::Form;
use crate::media::{BridgeSettings, Clip, Outgoing, Seeds, UserPacket};
use crate::whatsapp::sdp::{Kind, Place};

/// Orders that may wait for one call: it gets a handful in its life.
const ORDERS: usize = 16;

/// Pairs of ports that are tried before a call is refused.
const PAIRS_TRIED: usize = 50;

/// How often WhatsApp's receiver reports are looked at.
const LOSS_PERIOD: Duration = Duration::from_secs(5);

/// The payload types that we offer: those that Meta uses in its own offers.
const OPUS_PT: u8 = 111;
const DTMF_PT: u8 = 126;

/// The frame of everything here.
const FRAME: Duration = Duration::from_millis(20);

/// What all sound threads share.
pub struct SoundSettings {
    /// The `[media]` section.
    pub media: MediaConfig,
    /// What the PBX is told instead of our own address.
    pub sip_public_ip: Option<IpAddr>,
    /// Who wants to see the PBX's side on the wire.
    pub capture: Arc<Capture>,
    /// What WhatsApp hears while the PBX holds a call; `None`: comfort noise.
    pub hold_clip: Option<Arc<Clip>>,
    /// Who writes recordings.
    pub recorder: Recorder,
}

struct Shared {
    settings: SoundSettings,
    next_pair: AtomicUsize,
    to_gateway: mpsc::Sender<Input>,
}

/// The handle to all sound threads.
pub struct Sound {
    threads: Vec<mpsc::UnboundedSender<Job>>,
    loads: Vec<Arc<AtomicUsize>>,
    placed: BTreeMap<CallKey, mpsc::Sender<Told>>,
    shared: Arc<Shared>,
    bound: Vec<SocketAddr>,
    beats: Vec<Beat>,
    prompts: Prompts,
}

/// What a line is told.
enum Told {
    Order(LineOrder),
    /// Record, and this is what is played before.
    Record(Box<TapeSetup>, Arc<Clip>),
}

enum Job {
    Open { call: CallKey, setup: Box<LineSetup>, orders: mpsc::Receiver<Told>, load: Load },
}

/// Counts a line on its thread for as long as it lives.
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(thread: &Arc<AtomicUsize>) -> Load {
        thread.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(thread))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sound {
    /// Starts the threads and binds each one's first WebRTC port.
    ///
    /// # Errors
    /// When a port can't be bound or a thread can't be started, in words.
    pub fn start(settings: SoundSettings, to_gateway: mpsc::Sender<Input>) -> Result<Sound, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = settings.media.threads.unwrap_or(cores).max(1);
        // Every thread has WebRTC ports of its own: no datagram ever crosses from one to another.
        let count = wanted.min(settings.media.webrtc_ports.count()).max(1);
        let shared = Arc::new(Shared { settings, next_pair: AtomicUsize::new(0), to_gateway });
        let mut sound = Sound {
            threads: Vec::new(),
            loads: Vec::new(),
            placed: BTreeMap::new(),
            shared: Arc::clone(&shared),
            bound: Vec::new(),
            beats: Vec::new(),
            prompts: Prompts::default(),
        };
        for index in 0..count {
            let (jobs_in, jobs) = mpsc::unbounded_channel();
            let (ready_in, ready) = std::sync::mpsc::channel();
            let shared = Arc::clone(&shared);
            let beat = Beat::default();
            sound.beats.push(Arc::clone(&beat));
            std::thread::Builder::new()
                .name(format!("sound-{index}"))
                .spawn(move || {
                    host::prefer_this_thread(index % cores);
                    thread(&shared, index, count, jobs, &ready_in, beat);
                })
                .map_err(|error| format!("a sound thread can't be started: {error}"))?;
            let bound = ready.recv().map_err(|_| "a sound thread died at start".to_owned())??;
            sound.bound.push(bound);
            sound.threads.push(jobs_in);
            sound.loads.push(Arc::new(AtomicUsize::new(0)));
        }
        Ok(sound)
    }

    /// Each thread's sign of life.
    pub fn beats(&self) -> &[Beat] {
        &self.beats
    }

    /// The WebRTC ports that are bound from the start, one per thread.
    pub fn bound(&self) -> &[SocketAddr] {
        &self.bound
    }

    /// Hands an order to a call's line.
    pub fn order(&mut self, call: CallKey, order: LineOrder) {
        match order {
            LineOrder::Open(setup) => self.open(call, setup),
            LineOrder::Close => {
                // The sender goes with it: the line's last order.
                if let Some(orders) = self.placed.remove(&call) {
                    let _ = orders.try_send(Told::Order(LineOrder::Close));
                }
            }
            LineOrder::Record(setup) => match self.prompts.get(&setup) {
                Ok(clip) => self.tell(call, Told::Record(setup, clip)),
                Err(why) => {
                    tracing::warn!(why, "a call is not recorded: there is no prompt to ask with");
                    let event = TapeEvent::Failed(why);
                    let _ = self.shared.to_gateway.try_send(Input::Tape { call, event });
                }
            },
            order @ (LineOrder::Far(_)
            | LineOrder::Remote { .. }
            | LineOrder::Alone(_)
            | LineOrder::Agent(_)
            | LineOrder::AgentEnd(_)
            | LineOrder::PauseTape(_)
            | LineOrder::FarDigit(_)
            | LineOrder::OpenGate { .. }) => self.tell(call, Told::Order(order)),
        }
    }

    fn tell(&self, call: CallKey, told: Told) {
        if let Some(orders) = self.placed.get(&call)
            && orders.try_send(told).is_err()
        {
            tracing::debug!("a line no longer takes orders");
        }
    }

    fn open(&mut self, call: CallKey, setup: Box<LineSetup>) {
        let least = (0..self.loads.len()).min_by_key(|index| self.loads[*index].load(Ordering::Relaxed));
        let Some(index) = least else { return };
        let (orders_in, orders) = mpsc::channel(ORDERS);
        // A line that failed to open or died of a bug is never told to close: its place is given up here.
        self.placed.retain(|_, orders| !orders.is_closed());
        self.placed.insert(call, orders_in);
        let load = Load::new(&self.loads[index]);
        if self.threads[index].send(Job::Open { call, setup, orders, load }).is_err() {
            let event = LineEvent::OpenFailed("the sound thread is gone".to_owned());
            let _ = self.shared.to_gateway.try_send(Input::Line { call, event });
        }
    }
}

/// One sound thread's WebRTC ports: the first stays, the others come and go with their calls.
struct Ports {
    media: MediaConfig,
    mine: Vec<u16>,
    bound: Vec<(Arc<Port>, tokio::task::JoinHandle<()>)>,
}

impl Ports {
    fn new(media: &MediaConfig, index: usize, count: usize) -> Ports {
        let PortRange { first, last } = media.webrtc_ports;
        let mine = (first..=last).skip(index).step_by(count).collect();
        Ports { media: media.clone(), mine, bound: Vec::new() }
    }

    /// A place for a call with these remote candidates: on the first port that has none of them. For a call
    /// without, on a port where there is no other: [`Seat::add_remotes`] tells them when they have come.
    fn seat(&mut self, ufrag: &str, remotes: &[SocketAddr]) -> Result<(Arc<Seat>, u16), String> {
        if self.bound.len() > 1 {
            let mut first = true;
            self.bound.retain(|(port, pump)| {
                let keep = std::mem::take(&mut first) || port.load() > 0;
                if !keep {
                    pump.abort();
                }
                keep
            });
        }
        if let Some((port, _)) = self.bound.iter().find(|(port, _)| !port.collides(remotes)) {
            return Ok((port.seat(ufrag, remotes), port.number()));
        }
        let port = self.bind()?;
        Ok((port.seat(ufrag, remotes), port.number()))
    }

    fn bind(&mut self) -> Result<Arc<Port>, String> {
        let mut last = "every port of webrtc_ports is in use".to_owned();
        for number in &self.mine {
            if self.bound.iter().any(|(port, _)| port.number() == *number) {
                continue;
            }
            let address = SocketAddr::new(self.media.listen_ip, *number);
            match Port::bind(address, self.media.dscp) {
                Ok(port) => {
                    let pump = tokio::spawn(Arc::clone(&port).pump());
                    self.bound.push((Arc::clone(&port), pump));
                    return Ok(port);
                }
                Err(error) => last = format!("UDP port {address} can't be bound: {error}"),
            }
        }
        Err(last)
    }
}

fn thread(
    shared: &Arc<Shared>,
    index: usize,
    count: usize,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    ready: &std::sync::mpsc::Sender<Result<SocketAddr, String>>,
    beat: Beat,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(format!("a sound thread's runtime can't be built: {error}")));
            return;
        }
    };
    runtime.block_on(async {
        let mut ports = Ports::new(&shared.settings.media, index, count);
        match ports.bind() {
            Ok(port) => {
                let bound = SocketAddr::new(shared.settings.media.listen_ip, port.number());
                let _ = ready.send(Ok(bound));
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        }
        let ports = Arc::new(Mutex::new(ports));
        tokio::spawn(host::beat(beat));
        while let Some(Job::Open { call, setup, orders, load }) = jobs.recv().await {
            let (shared, ports) = (Arc::clone(shared), Arc::clone(&ports));
            tokio::spawn(async move {
                let to_gateway = shared.to_gateway.clone();
                let line = tokio::spawn(line(shared, ports, call, *setup, orders));
                let event = match line.await {
                    Ok(event) => event,
                    // A bug ends one call, not the thread.
                    Err(error) => LineEvent::Fault(error.to_string()),
                };
                let _ = to_gateway.send(Input::Line { call, event }).await;
                drop(load);
            });
        }
    });
}

/// Everything that one line holds.
struct Open {
    line: Line,
    peer: Peer,
    mouth: Mouth,
    seat: Arc<Seat>,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// The call's id, and what the PBX knows our RTP port as: for traces.
    id: Arc<str>,
    here: SocketAddr,
}

/// One line, from its ports to its last report: what it says when it is over.
async fn line(
    shared: Arc<Shared>,
    ports: Arc<Mutex<Ports>>,
    call: CallKey,
    setup: LineSetup,
    mut orders: mpsc::Receiver<Told>,
) -> LineEvent {
    let tell = |event: LineEvent| {
        let to_gateway = shared.to_gateway.clone();
        async move {
            let _ = to_gateway.send(Input::Line { call, event }).await;
        }
    };
    let mut open = match open(&shared, &ports, &setup, &tell).await {
        Ok(open) => open,
        Err(what) => return LineEvent::OpenFailed(what),
    };
    let (whatsapp, far) = run(&shared, call, &mut open, &mut orders, &tell).await;
    let Open { peer, line, .. } = open;
    tracing::debug!(dropped = ?line.dropped(), "a line is closed");
    peer.close().await;
    LineEvent::Closed { whatsapp, far }
}

async fn open<F: Future<Output = ()>>(
    shared: &Shared,
    ports: &Mutex<Ports>,
    setup: &LineSetup,
    tell: &impl Fn(LineEvent) -> F,
) -> Result<Open, String> {
    let media = &shared.settings.media;
    let (remotes, opus_pt, dtmf_pt, dtls) = match &setup.webrtc {
        WebRtc::Answer { remotes, opus_pt, dtmf_pt, .. } => {
            let remotes = reachable(remotes, media.listen_ip);
            if remotes.is_empty() {
                return Err("the offer has no candidate that our listen_ip can reach".to_owned());
            }
            (remotes, *opus_pt, *dtmf_pt, Dtls::Auto)
        }
        WebRtc::Offer { role } => {
            let dtls = match role {
                DtlsRole::Auto => Dtls::Auto,
                DtlsRole::Client => Dtls::Client,
                DtlsRole::Server => Dtls::Server,
            };
            (Vec::new(), OPUS_PT, Some(DTMF_PT), dtls)
        }
    };
    let ufrag = random::token(8);
    let (seat, port) = ports.lock().unwrap_or_else(PoisonError::into_inner).seat(&ufrag, &remotes)?;
    let ssrc = random::word();
    let own = own_addresses(media);
    let mut peer = Peer::new(
        Arc::clone(&seat),
        PeerSettings {
            ufrag,
            password: random::token(24),
            ssrc,
            opus_pt,
            dtmf_pt,
            local: own[0],
            lite: false,
            dtls,
        },
    )
    .await?;
    let described = match &setup.webrtc {
        WebRtc::Answer { offer, .. } => peer.answer(offer.clone()).await?,
        WebRtc::Offer { .. } => peer.offer().await?,
    };
    let places = match media.public_ip {
        Some(public) => vec![Place { ip: public, port, kind: Kind::Host }],
        None => own.iter().map(|ip| Place { ip: *ip, port, kind: Kind::Host }).collect(),
    };
    let (rtp, rtcp) = pair(shared, media)?;
    let towards = match (shared.settings.sip_public_ip, media.listen_ip.is_unspecified()) {
        (Some(public), _) => public,
        // Without a PBX nobody will ever be told.
        (None, true) => match setup.far {
            Some(far) => {
                sock::local_towards(far).map_err(|error| format!("there is no route to the PBX: {error}"))?
            }
            None => own[0],
        },
        (None, false) => media.listen_ip,
    };
    let rtp_port = rtp.local_addr().map_err(|error| error.to_string())?.port();
    let seeds = Seeds {
        user_ssrc: ssrc,
        user_seq: random::word() as u16 & 0x7fff,
        user_timestamp: random::word(),
        far_ssrc: random::word(),
        far_seq: random::word() as u16 & 0x7fff,
        far_timestamp: random::word(),
    };
    let bridge = BridgeSettings {
        opus_pt,
        user_dtmf_pt: dtmf_pt,
        jitter_ms: media.jitter_ms,
        complexity: media.opus_complexity,
        bitrate: media.opus_bitrate,
        seeds,
    };
    let mut line =
        Line::new(bridge, clock::tick()).map_err(|error| format!("the bridge can't be built: {error}"))?;
    let mouth = peer.mouth();
    line.set_hold_clip(shared.settings.hold_clip.clone());
    let (rtp_address, secret) = (SocketAddr::new(towards, rtp_port), Secret(random::secret()));
    let rtp_bound = SocketAddr::new(media.listen_ip, rtp_port);
    tell(LineEvent::Opened { described, places, rtp: rtp_bound, secret }).await;
    Ok(Open { line, peer, mouth, seat, rtp, rtcp, id: setup.id.as_str().into(), here: rtp_address })
}

/// The candidates that a socket bound to `listen_ip` can reach.
fn reachable(remotes: &[SocketAddr], listen_ip: IpAddr) -> Vec<SocketAddr> {
    remotes.iter().copied().filter(|remote| listen_ip.is_ipv6() || remote.is_ipv4()).collect()
}

/// Meta's answer to our offer: the port may be shared from now on, and ICE begins. Says what is wrong, if anything.
async fn take_answer(
    peer: &Peer,
    seat: &Seat,
    listen_ip: IpAddr,
    answer: String,
    remotes: &[SocketAddr],
) -> Option<&'static str> {
    let remotes = reachable(remotes, listen_ip);
    if remotes.is_empty() {
        return Some("Meta's answer has no candidate that our listen_ip can reach");
    }
    if !seat.add_remotes(&remotes) {
        return Some("another call on this port has the same relay");
    }
    match peer.accept(answer).await {
        Ok(()) => None,
        Err(error) => {
            tracing::info!(%error, "the WebRTC stack does not take Meta's answer");
            Some("the WebRTC stack does not take Meta's answer")
        }
    }
}

/// Our addresses for candidates: never empty.
fn own_addresses(media: &MediaConfig) -> Vec<IpAddr> {
    if !media.listen_ip.is_unspecified() {
        return vec![media.listen_ip];
    }
    let mut found: Vec<IpAddr> =
        sock::host_addresses().into_iter().filter(|ip| media.listen_ip.is_ipv6() || ip.is_ipv4()).collect();
    if found.is_empty() {
        found.push(IpAddr::from([127, 0, 0, 1]));
    }
    found
}

/// An even RTP port and the odd RTCP port above it (RFC 3550 §11).
fn pair(shared: &Shared, media: &MediaConfig) -> Result<(UdpSocket, UdpSocket), String> {
    let pairs = media.rtp_ports.pairs().max(1);
    let even = media.rtp_ports.first.next_multiple_of(2);
    let mut last = String::new();
    for _ in 0..PAIRS_TRIED.min(pairs) {
        let nth = shared.next_pair.fetch_add(1, Ordering::Relaxed) % pairs;
        let port = even + u16::try_from(nth * 2).unwrap_or(0);
        let bind = |port: u16| {
            sock::udp(SocketAddr::new(media.listen_ip, port), media.dscp).and_then(UdpSocket::from_std)
        };
        match bind(port).and_then(|rtp| Ok((rtp, bind(port + 1)?))) {
            Ok(pair) => return Ok(pair),
            Err(error) => last = format!("{port}: {error}"),
        }
    }
    Err(format!("no free pair of ports in rtp_ports ({last})"))
}

/// The loop of a line: orders, ticks and packets, until it is told to close.
async fn run<F: Future<Output = ()>>(
    shared: &Shared,
    call: CallKey,
    open: &mut Open,
    orders: &mut mpsc::Receiver<Told>,
    tell: &impl Fn(LineEvent) -> F,
) -> (Quality, Quality) {
    let (listen_ip, seen) = (shared.settings.media.listen_ip, &shared.settings.capture);
    let bound = SocketAddr::new(listen_ip, 0);
    let Open { line, peer, mouth, seat, rtp, rtcp, id, here } = open;
    let beside = SocketAddr::new(here.ip(), here.port().saturating_add(1));
    let mut track: Option<Arc<dyn TrackRemote>> = None;
    let mut agent: Option<Agent> = None;
    let mut prompt: Option<(Box<TapeSetup>, Arc<Clip>)> = None;
    let mut tape: Option<Box<TapeSetup>> = None;
    let mut slices: Option<SyncSender<Slice>> = None;
    let mut connected = false;
    let mut stack_lives = true;
    let mut ticker = interval(FRAME);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut loss_ticker = interval(LOSS_PERIOD);
    loss_ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut out = Outgoing::default();
    let mut report = heapless::Vec::new();
    let mut buffer = [0_u8; 1_500];
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Told::Order(LineOrder::Far(FarSound { media, path }))) => {
                    if let Err(error) = line.set_far(media, &path, clock::tick()) {
                        tell(LineEvent::Fault(error.to_string())).await;
                    }
                }
                Some(Told::Order(LineOrder::Remote { sdp, remotes })) => {
                    if let Some(what) = take_answer(peer, seat, listen_ip, sdp, &remotes).await {
                        tell(LineEvent::Lost(what)).await;
                    }
                }
                Some(Told::Order(LineOrder::Alone(heard))) => line.alone(heard, clock::tick()),
                Some(Told::Order(LineOrder::OpenGate { early: true })) => line.warm(),
                Some(Told::Order(LineOrder::OpenGate { early: false })) => {
                    line.open_gate(clock::tick());
                    if let Some(agent) = &mut agent {
                        agent.answered();
                    }
                }
                Some(Told::Order(LineOrder::Agent(setup))) => {
                    let called = Agent::call(*setup);
                    match line.set_agent(called.rate(), clock::tick()) {
                        Ok(()) => agent = Some(called),
                        Err(error) => {
                            let failed = AgentEvent::Failed(error.to_string());
                            tell(LineEvent::Agent(failed)).await;
                        }
                    }
                }
                Some(Told::Order(LineOrder::AgentEnd(why))) => {
                    if let Some(over) = part_from(agent.take(), why.as_str()) {
                        tell(over).await;
                    }
                }
                // A prompt that nobody can hear yet is no prompt: there may be an answer before there is a way to the user.
                Some(Told::Record(setup, clip)) if connected => {
                    line.record(setup.terms, clip);
                    tape = Some(setup);
                }
                Some(Told::Record(setup, clip)) => prompt = Some((setup, clip)),
                Some(Told::Order(LineOrder::PauseTape(paused))) => line.pause(paused),
                Some(Told::Order(LineOrder::FarDigit(digit))) => line.far_pressed(digit),
                Some(Told::Order(LineOrder::Close | LineOrder::Open(_) | LineOrder::Record(_))) | None => {
                    if let Some(over) = part_from(agent.take(), "the call is over") {
                        tell(over).await;
                    }
                    return line.quality();
                }
            },
            _ = ticker.tick() => {
                let now = clock::tick();
                if seat.media_seen() {
                    line.user_lives(now);
                }
                // What an agent says before there is a way to the user waits for it, and so does what it says while the
                // user hears that the call is recorded.
                let heard = connected && !line.is_apart();
                if let Some(frame) = agent.as_mut().filter(|_| heard).and_then(Agent::says) {
                    line.agent_says(frame);
                }
                if let Some(silence) = line.tick(now, &mut out) {
                    tell(match silence {
                        Silence::User => LineEvent::UserSilent,
                        Silence::Far => LineEvent::FarSilent,
                    }).await;
                }
                if line.far_pauses(now) {
                    tell(LineEvent::FarPauses).await;
                }
                if let Some(frame) = &out.to_user {
                    mouth.send(frame.payload_type, frame.marker, frame.sequence, frame.timestamp, &frame.payload);
                }
                if let Some(address) = line.far_address() {
                    for datagram in &out.to_far {
                        let _ = rtp.try_send_to(datagram, sock::towards(bound, address));
                        seen.take(id, *here, address, datagram);
                    }
                }
                if let Some((digit, millis)) = out.digit.filter(|_| agent.is_none()) {
                    tell(LineEvent::Digit(digit, millis)).await;
                }
                if let Some(agent) = &mut agent {
                    // Nor does it hear anything before: what it says to silence would only pile up.
                    let heard: &[i16] = if heard { &out.to_agent } else { &[] };
                    agent.hears(heard, out.digit);
                }
                // A recorder that does not keep up loses sound of the recording: the next slice shows how much.
                if let Some((slice, slices)) = out.tapped.take().zip(slices.as_ref()) {
                    let _ = slices.try_send(slice);
                }
                report.clear();
                if let Some(to) = line.rtcp_due(now, clock::ntp(), &mut report) {
                    let socket = if to.by_rtp_port { &*rtp } else { &*rtcp };
                    let _ = socket.try_send_to(&report, sock::towards(bound, to.address));
                    seen.take(id, if to.by_rtp_port { *here } else { beside }, to.address, &report);
                }
            }
            event = peer.events.recv(), if stack_lives => match event {
                Some(PeerEvent::Connected) => {
                    connected = true;
                    if let Some((setup, clip)) = prompt.take() {
                        line.record(setup.terms, clip);
                        tape = Some(setup);
                    }
                    tell(LineEvent::Connected).await;
                }
                Some(PeerEvent::Lost(what)) => tell(LineEvent::Lost(what)).await,
                Some(PeerEvent::Track(heard)) => track = Some(heard),
                Some(PeerEvent::Gathered) => {}
                None => {
                    stack_lives = false;
                    tell(LineEvent::Lost("the WebRTC stack is gone")).await;
                }
            },
            event = next(track.as_ref()) => match event {
                Some(TrackRemoteEvent::OnRtpPacket(packet)) => {
                    let header = &packet.header;
                    line.from_user(&UserPacket {
                        ssrc: header.ssrc,
                        payload_type: header.payload_type,
                        marker: header.marker,
                        sequence: header.sequence_number,
                        timestamp: header.timestamp,
                        payload: &packet.payload,
                    }, clock::tick());
                }
                Some(_) => {}
                None => track = None,
            },
            happened = happens(agent.as_mut()) => if let Some(agent) = &mut agent {
                agent.take(happened);
            },
            _ = rtp.readable() => {
                while let Ok((length, from, age)) = sock::receive(rtp, &mut buffer) {
                    seen.take(id, from, *here, &buffer[..length]);
                    line.from_far(&buffer[..length], from, clock::tick().before(age));
                }
            }
            _ = rtcp.readable() => {
                while let Ok((length, from)) = rtcp.try_recv_from(&mut buffer) {
                    let from = sock::canonical(from);
                    seen.take(id, from, beside, &buffer[..length]);
                    line.far_rtcp(&buffer[..length], from, clock::tick());
                }
            }
            _ = loss_ticker.tick() => {
                if let Some(loss) = peer.reported_loss().await {
                    line.user_loss(loss);
                }
            }
        }
        while let Some(news) = line.tape_news() {
            if let (TapeNews::Answered(consent), Some(setup)) = (news, tape.as_deref()) {
                slices = consent.given().then(|| begin(&shared.settings.recorder, call, id, setup));
            }
            tell(LineEvent::Tape(news)).await;
        }
        while let Some(event) = agent.as_mut().and_then(Agent::event) {
            tell(LineEvent::Agent(event)).await;
        }
    }
}

/// The recorder takes down what comes by this.
fn begin(recorder: &Recorder, call: CallKey, id: &str, setup: &TapeSetup) -> SyncSender<Slice> {
    let (slices, taken) = sync_channel(tap::WAITING);
    recorder.begin(Begin {
        call,
        id: id.to_owned(),
        number: setup.number.clone(),
        account: setup.account.clone(),
        form: Form::of(&setup.config),
        encrypt_to: setup.config.encrypt_to.clone(),
        keep_days: setup.config.keep_days,
        upload: setup.config.upload.is_some(),
        began: clock::now().wall,
        slices: taken,
    });
    slices
}

/// What happens next on the agent's socket; never, as long as there is no agent.
async fn happens(agent: Option<&mut Agent>) -> Happened {
    match agent {
        Some(agent) => agent.happens().await,
        None => std::future::pending().await,
    }
}

/// The agent, if there is one, hears goodbye: the call is over, or another far end takes its place. What is to be told
/// of it.
fn part_from(agent: Option<Agent>, why: &str) -> Option<LineEvent> {
    agent.map(|agent| LineEvent::AgentOver(Box::new(agent.end(why))))
}

/// WhatsApp's next packet; never, as long as there is no track.
async fn next(track: Option<&Arc<dyn TrackRemote>>) -> Option<TrackRemoteEvent> {
    match track {
        Some(track) => track.poll().await,
        None => std::future::pending().await,
    }
}
