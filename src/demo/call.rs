//! The call: who does what when, and what is kept of it.

mod agent;
mod outbound;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::agent::Agent;
use super::cloud::{self, Cloud, Secrets};
use super::gateway::{FarEnd, Folder, Gateway, Setting, config};
use super::ladder::Ladder;
use super::measure::{Finding, compare};
use super::pbx::{self, Pbx};
use super::phone::{self, Phone};
use super::{DemoOptions, Event, Fault};
use crate::call::leg::Direction as Way;
use crate::call::record::Record;
use crate::clock::Tick;
use crate::io::{clock, random};
use crate::ledger::{Filter, Ledger};

/// Meta repeats the connect webhook after this time.
const REPEAT: Duration = Duration::from_millis(150);
/// Nothing but the ringing and the talking takes longer.
const SOON: Duration = Duration::from_secs(10);
/// The last sound may still be on its way when the PBX hangs up.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// When the steps of the call were taken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moments {
    /// The connect webhook was sent.
    pub webhook: Option<Tick>,
    /// Graph took `pre_accept`.
    pub pre_accepted: Option<Tick>,
    /// ICE and DTLS were up.
    pub connected: Option<Tick>,
    /// The INVITE was at the PBX, or left it.
    pub invited: Option<Tick>,
    /// The PBX said 180, or was told so.
    pub ringing: Option<Tick>,
    /// The PBX said 200, or was told so.
    pub answered: Option<Tick>,
    /// Graph took `accept`.
    pub accepted: Option<Tick>,
    /// Graph was asked for the permission.
    pub asked: Option<Tick>,
    /// Graph took `connect`.
    pub dialled: Option<Tick>,
    /// The user's phone rang: the webhook RINGING was sent.
    pub rang: Option<Tick>,
    /// The user picked up: the webhook ACCEPTED was sent.
    pub picked_up: Option<Tick>,
}

impl Moments {
    /// Milliseconds between two of them.
    pub fn between(from: Option<Tick>, to: Option<Tick>) -> Option<f64> {
        Some(to?.since(from?).as_secs_f64() * 1_000.0)
    }
}

/// One direction of the sound.
pub(super) struct Direction {
    /// The frequency that was sent, in hertz.
    pub expected_hz: f64,
    /// The level that was sent, in dBFS.
    pub expected_dbfs: f64,
    /// What was found.
    pub found: Finding,
    /// RTP packets that came to the listener.
    pub packets: u64,
    /// RTP packets that never came to the listener.
    pub lost: u64,
    /// What the listener heard since the beginning of the demo, at 8 kHz.
    pub pcm: Vec<i16>,
}

impl Direction {
    /// Frequency within a per cent, level within 6 dB, every burst there and none torn.
    pub fn ok(&self) -> bool {
        let near = |hz: f64| (hz / self.expected_hz - 1.0).abs() < 0.01;
        let found = &self.found;
        found.frequency_hz.is_some_and(near)
            && found.level_dbfs.is_some_and(|level| (level - self.expected_dbfs).abs() < 6.0)
            && found.longest_gap_ms.is_some_and(|gap| gap < 60.0)
    }
}

/// Everything that is left.
pub(super) struct Outcome {
    pub way: Way,
    /// The far end was a voice agent.
    pub agent: bool,
    pub moments: Moments,
    pub to_pbx: Direction,
    pub to_whatsapp: Direction,
    pub digits: String,
    pub record: Option<Record>,
    pub faults: Vec<Fault>,
}

impl Outcome {
    /// What the far end is called.
    pub fn far_end(&self) -> &'static str {
        if self.agent { "agent" } else { "PBX" }
    }

    /// Sound arrived both ways, and nothing went wrong.
    pub fn ok(&self) -> bool {
        self.to_pbx.ok() && self.to_whatsapp.ok() && self.faults.is_empty()
    }
}

/// The stand-ins' handles, and what they have said.
struct Stage {
    events: mpsc::Receiver<(Tick, Event)>,
    phone: mpsc::Sender<phone::Order>,
    way: Way,
    wacid: String,
    moments: Moments,
    faults: Vec<Fault>,
    /// The answer of the relay before the phone that is called.
    described: Option<String>,
    registered: bool,
    acknowledged: bool,
    unregistered: bool,
    ended: bool,
    hung_up: bool,
    said: bool,
}

impl Stage {
    /// Takes what the stand-ins say until `done`, or says that `what` did not happen in time.
    async fn until(&mut self, what: &str, patience: Duration, done: impl Fn(&Stage) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !done(self) {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some((at, event))) => self.take(Some(at), event).await,
                Ok(None) | Err(_) => {
                    self.faults.push(format!("{what}: not within {} s", patience.as_secs()));
                    return false;
                }
            }
        }
        true
    }

    async fn take(&mut self, now: Option<Tick>, event: Event) {
        match event {
            Event::Registered => self.registered = true,
            Event::Unregistered => self.unregistered = true,
            Event::PreAccepted(answer) => {
                self.moments.pre_accepted = now;
                let _ = self.phone.send(phone::Order::Answer(answer)).await;
            }
            Event::Accepted(answer) => {
                self.moments.accepted = now;
                if self.moments.pre_accepted.is_none() {
                    let _ = self.phone.send(phone::Order::Answer(answer)).await;
                }
                if self.moments.answered.is_none() {
                    self.faults.push("accept came before the far end had answered".to_owned());
                }
                let _ = self.phone.send(phone::Order::Talk).await;
            }
            Event::Ended => self.ended = true,
            Event::Invited { uri, from, wacid, payload } => {
                self.moments.invited = now;
                let wrong = [
                    (!uri.starts_with(&format!("sip:{}@", pbx::EXTENSION)), "request URI"),
                    (!from.contains(cloud::CALLER) || !from.contains(cloud::CALLER_NAME), "From"),
                    (wacid != self.wacid, "X-WhatsApp-Call-ID"),
                    (payload != cloud::PAYLOAD, "X-WhatsApp-Payload"),
                ];
                for (_, what) in wrong.iter().filter(|(wrong, _)| *wrong) {
                    self.faults.push(format!("the INVITE has a wrong {what}"));
                }
            }
            Event::Ringing => {
                self.moments.ringing = now;
                if self.way == Way::Outbound && self.moments.rang.is_none() {
                    self.faults.push("the PBX got 180 before the user's phone rang".to_owned());
                }
            }
            Event::Answered => {
                self.moments.answered = now;
                if self.way == Way::Outbound && self.moments.picked_up.is_none() {
                    self.faults.push("the PBX got 200 before the user had picked up".to_owned());
                }
            }
            Event::Asked => self.moments.asked = now,
            Event::Dialled(offer) => {
                self.moments.dialled = now;
                if self.moments.asked.is_none() {
                    self.faults.push("Graph was not asked whether the user may be called".to_owned());
                }
                let _ = self.phone.send(phone::Order::Offer(offer)).await;
            }
            Event::Looked => {}
            Event::SessionBegun => self.moments.answered = now,
            Event::Described(answer) => self.described = Some(answer),
            Event::Refused(why) => {
                self.faults.push(format!("the gateway refused the PBX's call: {why}"));
                self.ended = true;
            }
            Event::Acknowledged => self.acknowledged = true,
            Event::HungUp => self.hung_up = true,
            Event::Connected => self.moments.connected = now,
            Event::Said => self.said = true,
            Event::Fault(fault) => self.faults.push(fault),
        }
    }
}

/// Makes the call.
///
/// # Errors
/// When it could not even be tried.
pub(super) async fn make(options: &DemoOptions) -> Result<Outcome, String> {
    let origin = clock::tick();
    let ladder = Ladder::new(options.json);
    let folder = Folder::new()?;
    let secrets = Secrets { app_secret: random::token(32), access_token: random::token(40) };
    let password = random::token(16);
    let wacid = format!("wacid.{}==", random::token(46));
    let (events_in, events) = mpsc::channel(64);

    let way = if options.outbound { Way::Outbound } else { Way::Inbound };
    let cloud = Cloud::start(secrets.clone(), wacid.clone(), way, ladder, events_in.clone()).await?;
    let (to_pbx, pbx_orders) = mpsc::channel(4);
    let (to_phone, phone_orders) = mpsc::channel(4);
    let setting =
        |far| Setting { state_dir: folder.path(), graph_url: cloud.graph_url(), secrets: &secrets, far };
    let (config, pbx) = if options.agent {
        let agent = Agent::bind(ladder, origin, events_in.clone()).await?;
        let config = config(&setting(FarEnd::Agent(agent.url())))?;
        ladder.head("voice agent");
        (config, tokio::spawn(agent.run(pbx_orders)))
    } else {
        let pbx = Pbx::bind(password.clone(), ladder, origin, events_in.clone()).await?;
        let config = config(&setting(FarEnd::Pbx(pbx.address(), &password)))?;
        ladder.head("PBX");
        (config, tokio::spawn(pbx.run(pbx_orders)))
    };
    let mut offer = String::new();
    let phone = match way {
        Way::Inbound => {
            let phone = Phone::calling(ladder, origin, events_in).await?;
            phone.sdp().clone_into(&mut offer);
            tokio::spawn(phone.run(phone_orders))
        }
        Way::Outbound => tokio::spawn(Phone::called(ladder, origin, events_in, phone_orders)),
    };
    let gateway = Gateway::start(config).await?;
    let mut stage = Stage {
        events,
        phone: to_phone,
        way,
        wacid,
        moments: Moments::default(),
        faults: Vec::new(),
        described: None,
        registered: false,
        acknowledged: false,
        unregistered: false,
        ended: false,
        hung_up: false,
        said: false,
    };

    let done = match way {
        Way::Inbound if options.agent => agent::answer(&mut stage, &cloud, &gateway, &offer).await,
        Way::Inbound => inbound(&mut stage, &cloud, &gateway, &offer).await,
        Way::Outbound => outbound::place(&mut stage, &cloud, &gateway, &to_pbx).await,
    };
    if done.is_some() {
        finish(&mut stage, &cloud, &gateway, &to_pbx).await;
    }

    if !gateway.stop().await {
        stage.faults.push("the gateway did not stop in time".to_owned());
    }
    if stage.registered {
        stage
            .until("the PBX hears that the gateway leaves", Duration::from_secs(1), |s| s.unregistered)
            .await;
    }
    drop(to_pbx);
    let Stage { phone: to_phone, moments, mut faults, wacid, .. } = stage;
    drop(to_phone);
    let at_pbx = pbx.await.map_err(|error| format!("the far end's stand-in failed: {error}"))?;
    let at_phone = phone.await.map_err(|error| format!("the phone's stand-in failed: {error}"))??;
    match way {
        Way::Inbound if at_phone.early > 0 => {
            faults.push(format!("{} packets came to the user before accept was taken", at_phone.early));
        }
        Way::Outbound => faults.extend(outbound::early(&moments, at_phone.early, at_phone.early_dbfs)),
        Way::Inbound => {}
    }
    if at_pbx.digits != phone::DIGITS && (moments.accepted.is_some() || moments.picked_up.is_some()) {
        faults.push(format!("the far end read the digits {:?}, not {:?}", at_pbx.digits, phone::DIGITS));
    }
    let record =
        match Ledger::open_read_only(folder.path()).and_then(|ledger| ledger.list(&Filter::default())) {
            Ok(records) => records.into_iter().find(|record| record.wacid == wacid),
            Err(error) => {
                faults.push(format!("the history can't be read: {error}"));
                None
            }
        };
    match &record {
        Some(record) if record.direction != way => {
            faults.push(format!("the record says that the call was {}", record.direction.as_str()));
        }
        Some(_) => {}
        None => faults.push("no record of the call was written".to_owned()),
    }
    let direction = |voice: &super::tone::Bursts, said, ear: &super::measure::Ear| Direction {
        expected_hz: voice.hz,
        expected_dbfs: voice.dbfs,
        found: compare(said, &ear.track),
        packets: ear.packets(),
        lost: ear.lost(),
        pcm: ear.track.pcm().to_vec(),
    };
    // An agent that echoes says in the user's voice.
    let far_voice = if options.agent { &phone::VOICE } else { &pbx::VOICE };
    Ok(Outcome {
        way,
        agent: options.agent,
        moments,
        to_pbx: direction(&phone::VOICE, &at_phone.said, &at_pbx.ear),
        to_whatsapp: direction(far_voice, &at_pbx.said, &at_phone.ear),
        digits: at_pbx.digits,
        record,
        faults,
    })
}

/// Until the gateway has registered at the PBX and says that it is ready.
async fn ready(stage: &mut Stage, cloud: &Cloud, gateway: &Gateway) -> Option<()> {
    stage.until("the gateway registers at the PBX", SOON, |s| s.registered).await.then_some(())?;
    let deadline = Instant::now() + SOON;
    while !cloud.gateway_ready(gateway.http).await {
        if Instant::now() > deadline {
            stage.faults.push("/readyz never said that the gateway is ready".to_owned());
            return None;
        }
        sleep(Duration::from_millis(10)).await;
    }
    Some(())
}

/// The user calls the business, up to the answer; what does not happen is in `stage.faults`, and ends it.
async fn inbound(stage: &mut Stage, cloud: &Cloud, gateway: &Gateway, offer: &str) -> Option<()> {
    let ok = |done: bool| done.then_some(());
    ready(stage, cloud, gateway).await?;
    stage.moments.webhook = Some(clock::tick());
    let (ringing, again) = tokio::join!(cloud.connect(gateway.http, offer, "webhook connect"), async {
        sleep(REPEAT).await;
        cloud.connect(gateway.http, offer, "webhook again").await
    });
    for outcome in [ringing, again] {
        if let Err(fault) = outcome {
            stage.faults.push(fault);
        }
    }
    ok(stage.until("the PBX rings", SOON, |s| s.moments.ringing.is_some() || s.ended).await)?;
    ok(stage.until("Graph gets accept", SOON, |s| s.moments.accepted.is_some() || s.ended).await)?;
    ok(stage.until("the PBX gets ACK", SOON, |s| s.acknowledged || s.ended).await)
}

/// From the answer to the hanging up.
async fn finish(stage: &mut Stage, cloud: &Cloud, gateway: &Gateway, pbx: &mpsc::Sender<pbx::Order>) {
    if !stage.until("the user has said all", phone::patience(), |s| s.said || s.ended).await {
        return;
    }
    if stage.ended {
        stage.faults.push("the gateway ended the call".to_owned());
    } else {
        sleep(LAST_WORDS).await;
        let _ = pbx.send(pbx::Order::HangUp).await;
        stage.until("the far end's goodbye is answered", SOON, |s| s.hung_up).await;
        stage.until("Graph gets terminate", SOON, |s| s.ended).await;
    }
    let _ = stage.phone.send(phone::Order::HangUp).await;
    if let Err(fault) = cloud.terminated(gateway.http).await {
        stage.faults.push(fault);
    }
}
