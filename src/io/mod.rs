//! The edge: the only room with tokio, nix, sockets, files, clocks and randomness.

mod agent;
mod backend;
pub mod client;
mod clip;
pub mod clock;
pub mod config_file;
mod deliver;
mod disk;
mod graph;
mod host;
mod http;
mod live;
mod mint;
pub mod mux;
mod outbox;
pub mod peer;
pub mod random;
pub mod sock;
mod sound;
mod sparing;
mod trunks;
mod wss;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::gateway::{CallKey, Gateway, Input, Output, Settings};
use crate::ledger::Ledger;
use host::{Led, Watchdog};

/// Inputs that may wait for the gateway; above that, webhooks are answered 503 and come again.
const INPUTS: usize = 4_096;

/// A UDP datagram is never longer.
const DATAGRAM: usize = 65_535;

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
    sip: UdpSocket,
    graph: graph::Graph,
    sound: sound::Sound,
    disk: disk::Disk,
    disk_threads: disk::Threads,
    news: Arc<live::Newsroom>,
    desk: Arc<backend::Desk>,
    ready: Arc<AtomicBool>,
    http: std::net::SocketAddr,
    sip_address: std::net::SocketAddr,
    rtp_ports: crate::config::PortRange,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Who looks for each trunk's server.
    lookups: BTreeMap<String, tokio::task::JoinHandle<()>>,
}

impl Running {
    /// Binds everything and starts every thread. Without a `file` the API can't change anything for good.
    ///
    /// # Errors
    /// What could not be had, in words.
    pub async fn start(config: Config, file: Option<PathBuf>) -> Result<Running, String> {
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
        let sip = sock::udp(config.sip.listen, SIGNALLING_DSCP)
            .and_then(UdpSocket::from_std)
            .map_err(|error| format!("sip.listen {} can't be bound: {error}", config.sip.listen))?;
        let sip_address = sip.local_addr().map_err(|error| error.to_string())?;
        let sound = sound::Sound::start(
            sound::SoundSettings {
                media: config.media.clone(),
                sip_public_ip: config.sip.public_ip,
                hold_clip: config.media.hold_clip.as_deref().map(clip::read).transpose()?.map(Arc::new),
            },
            to_gateway.clone(),
        )?;
        let news = Arc::new(live::Newsroom::new(config.clone()));
        let (disk, disk_threads) = disk::Disk::start(ledger, reader, Arc::clone(&news), to_gateway.clone())?;
        let graph = graph::Graph::new(&config.whatsapp, to_gateway.clone())?;
        let ready = Arc::new(AtomicBool::new(false));
        let door = http::Door::new(config.whatsapp.clone(), to_gateway.clone(), Arc::clone(&ready));
        let post = deliver::Post::new(Arc::clone(&news), disk.clone());
        let desk = Arc::new(backend::Desk::new(
            to_gateway.clone(),
            disk.clone(),
            Arc::clone(&news),
            post.clone(),
            file,
        ));
        let settings = Settings::from_config(&config);
        let tasks = vec![
            tokio::spawn(http::serve(listener, door, Arc::clone(&desk))),
            tokio::spawn(post.deliver()),
            tokio::spawn(disk::forget(disk.clone())),
        ];
        let mut lookups = BTreeMap::new();
        for (trunk, server) in settings.servers(&config) {
            let lookup = trunks::Lookup { trunk: trunk.clone(), host: server.host, port: server.port };
            let follow = trunks::follow(lookup, config.clone(), sip_address, to_gateway.clone());
            lookups.insert(trunk, tokio::spawn(follow));
        }
        let mut gateway = Gateway::new(settings, random::seed(), clock::now());
        if !interrupted.is_empty() {
            gateway.handle(Input::Interrupted(interrupted), clock::now());
        }
        Ok(Running {
            gateway,
            inputs,
            to_gateway,
            sip,
            graph,
            sound,
            disk,
            disk_threads,
            news,
            desk,
            ready,
            http,
            sip_address,
            rtp_ports: config.media.rtp_ports,
            tasks,
            lookups,
        })
    }

    /// The one line for people, scripts and tests.
    pub fn ready_line(&self) -> String {
        let webrtc: Vec<String> = self.sound.bound().iter().map(ToString::to_string).collect();
        format!(
            "watrunk {} ready: http={} sip=udp:{} webrtc=udp:{} rtp=udp:{}-{}",
            env!("CARGO_PKG_VERSION"),
            self.http,
            self.sip_address,
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
        let mut datagram = vec![0_u8; DATAGRAM];
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
                    Some(input) => self.step(|gateway| gateway.handle(input, clock::now())),
                    None => break,
                },
                received = self.sip.recv_from(&mut datagram) => match received {
                    Ok((length, from)) => {
                        let bytes = datagram[..length].to_vec();
                        let from = crate::sip::Way::udp(from);
                        self.step(|gateway| gateway.handle(Input::Sip { from, bytes }, clock::now()));
                    }
                    // ICMP errors of single peers show up here.
                    Err(error) => {
                        tracing::debug!(%error, "SIP port: receive failed");
                        tokio::task::yield_now().await;
                    }
                },
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
        self.disk_threads.close();
        tracing::info!("stopped");
    }

    /// A trunk that was added or changed while running is looked up as the others are.
    fn find(&mut self, trunk: &str) {
        let config = self.news.config();
        let servers = Settings::from_config(&config).servers(&config);
        let Some((trunk, server)) = servers.into_iter().find(|(name, _)| name == trunk) else { return };
        let lookup = trunks::Lookup { trunk: trunk.clone(), host: server.host, port: server.port };
        let (config, to_gateway) = ((*config).clone(), self.to_gateway.clone());
        let follow = tokio::spawn(trunks::follow(lookup, config, self.sip_address, to_gateway));
        if let Some(before) = self.lookups.insert(trunk, follow) {
            before.abort();
        }
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
                Output::Sip { to, bytes } => {
                    // A full socket buffer is loss like any other: SIP sends again.
                    if let Err(error) = self.sip.try_send_to(&bytes, to.address) {
                        tracing::debug!(%error, "a SIP message could not be sent");
                    }
                }
                Output::Graph { id, request, patience } => self.graph.send(id, request, patience),
                Output::Line { call, order } => self.sound.order(call, order),
                Output::Record { call, record } => self.disk.record(call, record),
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
                Output::TrunkUp { .. } => {}
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
