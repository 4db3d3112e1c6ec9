//! The edge: the only room with tokio, nix, sockets, files, clocks and randomness.

mod age;
mod agent;
mod backend;
mod capture;
pub mod client;
pub mod clip;
pub mod clock;
pub mod config_file;
mod deliver;
mod disk;
mod dns;
mod graph;
mod host;
mod http;
mod live;
mod mint;
pub mod mux;
mod outbox;
pub mod peer;
mod ports;
mod prompts;
pub mod random;
mod recorder;
mod s3;
pub mod seal;
mod sip;
pub mod sock;
mod sound;
mod sparing;
mod stun;
mod trunks;
mod upload;
mod wss;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::config::Config;
use crate::gateway::{CallKey, Gateway, Input, Output, Settings};
use crate::ledger::Ledger;
use crate::sip::locate::Target;
use crate::sip::{Cidr, Found, Transport};
use host::{Led, Watchdog};

/// Inputs that may wait for the gateway; above that, webhooks are answered 503 and come again.
const INPUTS: usize = 4_096;

/// DSCP of signalling: CS3, as most PBXs mark SIP.
const SIGNALLING_DSCP: u8 = 24;

/// Runs the gateway until SIGTERM has drained it. Prints one line with every bound address when ready. `led`: the
/// board's light that shows how it is.
///
/// # Errors
/// What kept it from starting, in words.
pub fn run(config: Config, led: Option<&str>, path: PathBuf) -> Result<(), String> {
    install_tls();
    host::lock_memory();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime can't be built: {error}"))?;
    let drain = Duration::from_secs(config.gateway.drain_seconds);
    let outcome = runtime.block_on(async {
        let running = Running::start(config, Some(path.clone())).await?;
        println!("{}", running.ready_line());
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        let stop = stop_signals(drain, running.input())?;
        let reload = reload_signals(path, running.input(), Arc::clone(&running.news))?;
        running.until_finished(Led::open(led)).await;
        stop.abort();
        reload.abort();
        Ok(())
    });
    // Name look-ups sit in blocking threads: they must not hold the exit.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// TLS by ring, once per process.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A running gateway: sockets, threads and the loop that feeds it.
pub struct Running {
    gateway: Gateway,
    inputs: mpsc::Receiver<Input>,
    to_gateway: mpsc::Sender<Input>,
    sip: sip::SipSockets,
    resolver: dns::Resolver,
    graph: graph::Graph,
    sound: sound::Sound,
    disk: disk::Disk,
    disk_threads: disk::Threads,
    recorder: recorder::Recorder,
    recorder_threads: recorder::Threads,
    news: Arc<live::Newsroom>,
    desk: Arc<backend::Desk>,
    ready: Arc<AtomicBool>,
    http: std::net::SocketAddr,
    /// What the PBX is told instead of our own address.
    sip_public_ip: Option<IpAddr>,
    rtp_ports: crate::config::PortRange,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Who looks for each trunk's server.
    lookups: BTreeMap<String, tokio::task::JoinHandle<()>>,
    /// Who may open connections to us.
    admitted: Arc<Mutex<Vec<Cidr>>>,
}

/// Whether a source may open a connection: asked by the sockets, answered by what the trunks say.
fn admits(admitted: Arc<Mutex<Vec<Cidr>>>) -> sip::Admits {
    Box::new(move |ip| {
        let admitted = admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.iter().any(|range| range.contains(ip))
    })
}

impl Running {
    /// Binds everything and starts every thread. Without a `file` the API can't change anything for good.
    ///
    /// # Errors
    /// What could not be had, in words.
    pub async fn start(config: Config, file: Option<PathBuf>) -> Result<Running, String> {
        let mut prompts = prompts::Prompts::default();
        if let Some(fault) = prompts.files.load(&config).into_iter().next() {
            return Err(fault.to_string());
        }
        let hold_clip = config.media.hold_clip.as_deref().map(|path| prompts.files.get(path)).transpose()?;
        let state_dir = &config.gateway.state_dir;
        let said = |error: crate::ledger::LedgerError| format!("{}: {error}", state_dir.display());
        let ledger = Ledger::open(state_dir, clock::now().wall).map_err(said)?;
        let interrupted = ledger.interrupted().map_err(said)?;
        let reader = Ledger::open_read_only(state_dir).map_err(said)?;
        let (to_gateway, inputs) = mpsc::channel(INPUTS);
        let listener = TcpListener::bind(config.http.listen)
            .await
            .map_err(|error| format!("http.listen {} can't be bound: {error}", config.http.listen))?;
        let http = listener.local_addr().map_err(|error| error.to_string())?;
        let admitted = Arc::new(Mutex::new(Vec::new()));
        let sip = sip::SipSockets::open(
            sip::SipSettings {
                listen: config.sip.listen,
                tls: config.sip.tls.clone().map(|tls| sip::TlsListen {
                    listen: tls.listen,
                    certificate: tls.cert,
                    key: tls.key,
                }),
                dscp: SIGNALLING_DSCP,
            },
            admits(Arc::clone(&admitted)),
        )?;
        let capture = Arc::new(capture::Capture::default());
        let news = Arc::new(live::Newsroom::new(config.clone()));
        let (disk, disk_threads) = disk::Disk::start(ledger, reader, Arc::clone(&news), to_gateway.clone())?;
        let uploads = Arc::new(Notify::new());
        let (recorder, recorder_threads) = recorder::Recorder::start(
            state_dir,
            recorder::RecorderSettings::of(&config.recording),
            disk.clone(),
            to_gateway.clone(),
            Arc::clone(&uploads),
        )?;
        let sound = sound::Sound::start(
            sound::SoundSettings {
                media: config.media.clone(),
                sip_public_ip: config.sip.public_ip,
                capture: Arc::clone(&capture),
                hold_clip,
                recorder: recorder.clone(),
            },
            prompts,
            to_gateway.clone(),
        )?;
        let graph = graph::Graph::new(&config.whatsapp, to_gateway.clone())?;
        let ready = Arc::new(AtomicBool::new(false));
        let door = http::Door::new(config.whatsapp.clone(), to_gateway.clone(), Arc::clone(&ready));
        let post = deliver::Post::new(Arc::clone(&news), disk.clone());
        let desk = Arc::new(backend::Desk::new(
            to_gateway.clone(),
            disk.clone(),
            Arc::clone(&news),
            post.clone(),
            Arc::clone(&capture),
            file,
            &config.gateway.state_dir,
        ));
        let settings = Settings::from_config(&config);
        let tasks = vec![
            tokio::spawn(http::serve(listener, door, Arc::clone(&desk))),
            tokio::spawn(post.deliver()),
            tokio::spawn(disk::forget(disk.clone())),
            tokio::spawn(upload::deliver(disk.clone(), Arc::clone(&news), state_dir.clone(), uploads)),
        ];
        let targets = settings.targets(&config);
        let mut gateway = Gateway::new(settings, random::seed(), clock::now());
        if !interrupted.is_empty() {
            gateway.handle(Input::Interrupted(interrupted), clock::now());
        }
        let mut running = Running {
            gateway,
            inputs,
            to_gateway,
            sip,
            resolver: dns::Resolver::system(),
            graph,
            sound,
            disk,
            disk_threads,
            recorder,
            recorder_threads,
            news,
            desk,
            ready,
            http,
            sip_public_ip: config.sip.public_ip,
            rtp_ports: config.media.rtp_ports,
            tasks,
            lookups: BTreeMap::new(),
            admitted,
        };
        for (trunk, target) in targets {
            running.look_up(trunk, target);
        }
        running.admit();
        Ok(running)
    }

    /// The one line for people, scripts and tests.
    pub fn ready_line(&self) -> String {
        let webrtc: Vec<String> = self.sound.bound().iter().map(ToString::to_string).collect();
        let ours = self.sip.ours(None);
        let tls = ours.tls.map(|tls| format!(",tls:{tls}")).unwrap_or_default();
        format!(
            "watrunk {} ready: http={} sip=udp:{},tcp:{}{tls} webrtc=udp:{} rtp=udp:{}-{}",
            env!("CARGO_PKG_VERSION"),
            self.http,
            ours.udp,
            ours.tcp,
            webrtc.join(","),
            self.rtp_ports.first,
            self.rtp_ports.last
        )
    }

    /// Where things can be told to the gateway.
    pub fn input(&self) -> mpsc::Sender<Input> {
        self.to_gateway.clone()
    }

    /// Where the webhook is.
    pub fn http(&self) -> std::net::SocketAddr {
        self.http
    }

    /// The loop: until everything is drained.
    pub(crate) async fn until_finished(mut self, mut led: Option<Led>) {
        let mut watchdog = Watchdog::asked_for(self.sound.beats());
        loop {
            if self.carry_out() {
                break;
            }
            let ready = self.gateway.ready();
            self.ready.store(ready, Ordering::Relaxed);
            if let Some(led) = &mut led {
                led.show(ready);
            }
            let deadline =
                self.gateway.poll_timeout().map(|tick| tokio::time::Instant::from(clock::instant(tick)));
            let timer = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(input) => {
                        if let Input::PeerResolved { trunk, found } = &input {
                            self.trust(trunk, found);
                        }
                        let reload = matches!(input, Input::Reload(_));
                        let moves = reload || matches!(input, Input::PeerResolved { .. });
                        if reload {
                            // A prompt that can't be played costs the recordings that need it, and no call.
                            for fault in self.sound.read_prompts(&self.news.config()) {
                                tracing::warn!("reload: {fault}");
                            }
                        }
                        self.step(|gateway| gateway.handle(input, clock::now()));
                        if moves {
                            self.admit();
                            self.recorder.set(recorder::RecorderSettings::of(&self.news.config().recording));
                        }
                    }
                    None => break,
                },
                received = self.sip.recv() => {
                    let input = match received {
                        sip::SipIn::Message { from, bytes } => Input::Sip { from, bytes },
                        sip::SipIn::Unreachable { way, why } | sip::SipIn::Closed { way, why } => {
                            Input::SipUnreachable { way, why }
                        }
                    };
                    self.step(|gateway| gateway.handle(input, clock::now()));
                }
                () = Led::due(led.as_ref()) => if let Some(led) = &mut led {
                    led.blink();
                },
                () = Watchdog::due(watchdog.as_ref()) => if let Some(watchdog) = &mut watchdog {
                    watchdog.feed();
                },
                () = timer => self.step(|gateway| gateway.handle_timeout(clock::now())),
            }
        }
        for task in self.tasks.iter().chain(self.lookups.values()) {
            task.abort();
        }
        // Nobody listens any more: a record that is still being written must not wait for that.
        drop(self.inputs);
        // What the recorder has still to say to the ledger comes before the ledger is closed.
        self.recorder_threads.close();
        self.disk_threads.close();
        tracing::info!("stopped");
    }

    /// A trunk that was added or changed while running is looked up as the others are.
    fn find(&mut self, trunk: &str) {
        let config = self.news.config();
        let targets = Settings::from_config(&config).targets(&config);
        if let Some((trunk, target)) = targets.into_iter().find(|(name, _)| name == trunk) {
            self.look_up(trunk, target);
        }
    }

    fn look_up(&mut self, trunk: String, target: Target) {
        let lookup = trunks::Lookup { trunk: trunk.clone(), target };
        let ours = self.sip.ours(self.sip_public_ip);
        let as_input = |trunk, found| Input::PeerResolved { trunk, found };
        let follow = trunks::follow(lookup, self.resolver.clone(), ours, self.to_gateway.clone(), as_input);
        if let Some(before) = self.lookups.insert(trunk, tokio::spawn(follow)) {
            before.abort();
        }
    }

    /// A trunk's servers were found: whom to believe there.
    fn trust(&mut self, trunk: &str, found: &[Found]) {
        let config = self.news.config();
        let Some(trunk) = config.trunk(trunk) else { return };
        for Found { way, .. } in found.iter().filter(|found| found.way.transport == Transport::Tls) {
            let trust = sip::TlsTrust {
                name: trunk.address.host.clone(),
                ca: trunk.tls_ca.clone(),
                pin: trunk.tls_pin,
            };
            self.sip.trust(*way, trust);
        }
    }

    /// Who belongs to a trunk may open connections, and those that carry trunks are kept.
    fn admit(&mut self) {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = self.gateway.admitted();
        let ways = self.gateway.view_trunks().into_iter().filter_map(|trunk| trunk.peer);
        self.sip.keep(ways.filter(|way| way.transport.is_reliable()).collect());
    }

    /// A service is asked to make an id for a call.
    fn mint(
        &self,
        call: CallKey,
        wanted: crate::agent::Mint,
        patience: Duration,
        allow_private: bool,
        ca: Option<PathBuf>,
    ) {
        let to_gateway = self.to_gateway.clone();
        tokio::spawn(async move {
            let answered = mint::exchange(&wanted.request(), allow_private, ca.as_deref(), patience).await;
            let result = match answered {
                Ok((status, body)) => wanted.minted(status, &body),
                Err(error) => Err(format!("the minting failed: {}", error.why)),
            };
            let _ = to_gateway.send(Input::Minted { call, result }).await;
        });
    }

    /// A bug in one step must not end the calls that it has nothing to do with.
    fn step(&mut self, action: impl FnOnce(&mut Gateway)) {
        let gateway = &mut self.gateway;
        if catch_unwind(AssertUnwindSafe(|| action(gateway))).is_err() {
            tracing::error!("a step of the gateway panicked: this is a bug, the other calls go on");
        }
    }

    /// Carries out what the gateway wants; true when it is finished.
    fn carry_out(&mut self) -> bool {
        let mut finished = false;
        while let Some(output) = self.gateway.poll() {
            match output {
                Output::Sip { to, bytes } => self.sip.send(to, bytes),
                Output::Graph { id, request, patience } => self.graph.send(id, request, patience),
                Output::Line { call, order } => self.sound.order(call, order),
                Output::Record { call, record } => self.disk.record(call, record),
                Output::Agreed { id, part } => {
                    let now = clock::now().wall;
                    self.disk.later(move |ledger| {
                        if let Err(error) = ledger.tape_agreed(&id, &part, now) {
                            tracing::warn!(%error, "a user's consent to be recorded was not written down");
                        }
                    });
                }
                Output::Spoken { running, who, text } => self.news.publish_speech(&running, who, &text),
                Output::Mint { call, mint, patience, allow_private, ca } => {
                    self.mint(call, *mint, patience, allow_private, ca);
                }
                Output::Note { running, received } => self.disk.note(running, received),
                Output::Told { ticket, answer } => self.desk.told(ticket, answer),
                Output::Consent { number, reply } => self.disk.consent(number, reply),
                Output::Find { trunk } => self.find(&trunk),
                Output::Forget { trunk } => {
                    if let Some(lookup) = self.lookups.remove(&trunk) {
                        lookup.abort();
                    }
                }
                Output::Finished => finished = true,
            }
        }
        finished
    }
}

/// Time for the last hang-ups after a drain, retries included.
const AFTER_DRAIN: Duration = Duration::from_secs(45);

fn stop_signals(
    drain: Duration,
    to_gateway: mpsc::Sender<Input>,
) -> Result<tokio::task::JoinHandle<()>, String> {
    let said = |error: std::io::Error| format!("signals can't be caught: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(said)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(said)?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let patience = u32::try_from((drain + AFTER_DRAIN).as_micros()).unwrap_or(u32::MAX);
            let _ = sd_notify::notify(
                false,
                &[sd_notify::NotifyState::Stopping, sd_notify::NotifyState::ExtendTimeoutUsec(patience)],
            );
            let _ = to_gateway.send(Input::Drain).await;
        }
    }))
}

fn reload_signals(
    path: PathBuf,
    to_gateway: mpsc::Sender<Input>,
    news: Arc<live::Newsroom>,
) -> Result<tokio::task::JoinHandle<()>, String> {
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|error| format!("signals can't be caught: {error}"))?;
    Ok(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match Config::load(&path) {
                Ok(config) => {
                    let settings = Settings::from_config(&config);
                    news.replace(config);
                    let _ = to_gateway.send(Input::Reload(Box::new(settings))).await;
                }
                Err(faults) => {
                    for fault in &faults {
                        tracing::warn!("reload: {fault}");
                    }
                    tracing::warn!("reload: the file has faults, the old configuration stays");
                }
            }
        }
    }))
}
