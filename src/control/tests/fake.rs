//! What stands behind the doors in tests: a hall that says what it is told to, a ledger and a file that are real.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::Stream;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::fs::File;

use super::described;
use crate::call::leg::{Direction, Why};
use crate::call::record::{PlacedBy, Quality, Record, Running};
use crate::clock::{Now, Wall};
use crate::config::edit::{Edit, apply};
use crate::config::{Config, SecretSource, WebhookConfig};
use crate::control::Packet;
use crate::control::{Backend, EditFault, Fired, Live, events, router};
use crate::gateway::desk::{Answer, Command, Refusal, StatusView};
use crate::ledger::{Billing, Ledger, LedgerError};
use crate::whatsapp::permit::Permission;

pub const FILE: &str = r#"
[gateway]
name = "box"                 # a comment that stays

[http]
public_url = "https://calls.example.com"
rate_per_minute = 100

[[http.key]]
name = "ops"
key = "sk_admin_0123456789abcdef"
role = "admin"

[[http.key]]
name = "desk"
key = "sk_operator_0123456789abcdef"
role = "operator"

[[http.key]]
name = "screen"
key = "sk_read_0123456789abcdef"
role = "read"

[whatsapp]
app_secret = "app-secret"
access_token = "access-token"
verify_token = "verify-token"

[[trunk]]
name = "pbx"
server = "sip:192.168.1.10:5060"
username = "whatsapp"
password = "secret"

[[number]]
id = "support"
account_id = "acme"
phone_number_id = "106540352242922"
phone_number = "+4930550100100"
forward_to = "sip:200@pbx"   # the front desk
trunk = "pbx"

[[number]]
id = "sales"
account_id = "acme"
phone_number_id = "106540352242923"
phone_number = "+4930550100101"
forward_to = "tel:+4930550100999"
trunk = "pbx"

[[number]]
id = "fresh"
phone_number_id = "106540352242924"
phone_number = "+12025550100"
enabled = false

[[rates]]
prefix = "+49"
meta_per_minute_usd = 0.06
carrier_per_minute_usd = 0.003

[[webhook]]
id = "crm"
name = "crm"
url = "https://example.com/hook"
secret = "hook-secret"
events = ["call.ended", "call.failed"]
headers = { Authorization = "Bearer crm-token" }
"#;

pub const ADMIN: &str = "sk_admin_0123456789abcdef";
pub const OPERATOR: &str = "sk_operator_0123456789abcdef";
pub const READER: &str = "sk_read_0123456789abcdef";

/// 2026-11-22T10:00:00Z
pub const START: Wall = Wall(1_795_341_600_000);

struct NoSecrets;

impl SecretSource for NoSecrets {
    fn file(&self, _: &std::path::Path) -> Result<String, String> {
        Err("none".to_owned())
    }
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

pub fn config(text: &str) -> Result<Config, String> {
    Config::parse(text, &NoSecrets)
        .map(|(config, _)| config)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// What a hall without calls says.
fn usual(command: &Command) -> Result<Answer, Refusal> {
    let permission = br#"{"permission":{"status":"no_permission"},"actions":[]}"#;
    Ok(match command {
        Command::Call(place) => Answer::Placed {
            id: "call_1".to_owned(),
            destination: place.destination.as_ref().map(ToString::to_string).unwrap_or_default(),
            recording: false,
        },
        Command::HangUp { .. } | Command::Transfer { .. } => return Err(Refusal::NoSuchCall),
        Command::Record { id, on } => Answer::Recording { id: id.clone(), paused: !on },
        Command::Calls => Answer::Calls(Vec::new()),
        Command::Trunks => Answer::Trunks(Vec::new()),
        Command::Tracing { on } => Answer::Tracing(on.unwrap_or(false)),
        Command::Trace { .. } => return Err(Refusal::NoSuchCall),
        Command::Status => Answer::Status(StatusView {
            calls: 0,
            max_calls: 50,
            ready: true,
            draining: false,
            trunks: Vec::new(),
            sip: Default::default(),
        }),
        Command::Permission { .. } => Answer::Permission(Permission::parse(permission).unwrap()),
        Command::RequestPermission { .. } => Answer::Requested(None),
        Command::ReadSettings { .. } => Answer::Settings(Box::default()),
        Command::WriteSettings { .. } => Answer::Changed,
        Command::SubscribedApps { .. } => {
            Answer::Apps(vec![crate::whatsapp::settings::SubscribedApp { id: "app".to_owned(), name: None }])
        }
    })
}

pub struct Fake {
    now: Mutex<Now>,
    file: Mutex<String>,
    ledger: Mutex<Ledger>,
    folder: PathBuf,
    says: Mutex<VecDeque<Result<Answer, Refusal>>>,
    pub asked: Mutex<Vec<Command>>,
    pub fired: Mutex<Vec<(String, events::Event)>>,
    pub fire: Mutex<Option<String>>,
    pub lives: Mutex<Vec<Live>>,
    pub broken: Mutex<bool>,
    full: Mutex<bool>,
    ids: AtomicU64,
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Fake {
    fn new(file: &str) -> Fake {
        static FOLDERS: AtomicU64 = AtomicU64::new(0);
        let n = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("watrunk-doors-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        config(file).unwrap();
        Fake {
            now: Mutex::new(Now { wall: START, ..Now::default() }),
            file: Mutex::new(file.to_owned()),
            ledger: Mutex::new(Ledger::open(&folder, START).unwrap()),
            folder,
            says: Mutex::default(),
            asked: Mutex::default(),
            fired: Mutex::default(),
            fire: Mutex::default(),
            lives: Mutex::default(),
            broken: Mutex::default(),
            full: Mutex::default(),
            ids: AtomicU64::new(0),
        }
    }

    pub fn after(&self, seconds: u64) {
        let mut now = self.now.lock().unwrap();
        *now = now.after(Duration::from_secs(seconds));
    }

    /// What the hall says to the next command.
    pub fn says(&self, answer: Result<Answer, Refusal>) {
        self.says.lock().unwrap().push_back(answer);
    }

    /// Puts a recording's file where it belongs.
    pub fn lay(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.join(name), bytes).unwrap();
    }

    /// Where it belongs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Nothing can be written any more, or all again.
    pub fn full(&self, full: bool) {
        *self.full.lock().unwrap() = full;
    }

    /// Whether it is there.
    pub fn lies(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    pub fn file(&self) -> String {
        self.file.lock().unwrap().clone()
    }

    pub fn ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.ledger.lock().unwrap())
    }

    pub fn commands(&self) -> Vec<Command> {
        self.asked.lock().unwrap().clone()
    }
}

impl Backend for Fake {
    fn now(&self) -> Now {
        *self.now.lock().unwrap()
    }

    fn config(&self) -> Arc<Config> {
        Arc::new(config(&self.file()).unwrap())
    }

    async fn command(&self, command: Command) -> Result<Answer, Refusal> {
        self.asked.lock().unwrap().push(command.clone());
        self.says.lock().unwrap().pop_front().unwrap_or_else(|| usual(&command))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        if *self.broken.lock().unwrap() {
            return Err(LedgerError::Disk("it is gone".to_owned()));
        }
        work(&self.ledger.lock().unwrap())
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        if *self.broken.lock().unwrap() || *self.full.lock().unwrap() {
            return Err(LedgerError::Disk("it is gone".to_owned()));
        }
        work(&mut self.ledger.lock().unwrap())
    }

    async fn edit(&self, edits: Vec<Edit>) -> Result<Arc<Config>, EditFault> {
        let mut file = self.file.lock().unwrap();
        let text = apply(&file, &edits)?;
        let loaded = config(&text).map_err(EditFault::Invalid)?;
        *file = text;
        Ok(Arc::new(loaded))
    }

    fn live(&self) -> impl Stream<Item = Live> + Send + use<> {
        stream::iter(std::mem::take(&mut *self.lives.lock().unwrap())).chain(stream::pending())
    }

    async fn fire(&self, webhook: WebhookConfig, event: events::Event) -> Fired {
        self.fired.lock().unwrap().push((webhook.id, event));
        match self.fire.lock().unwrap().clone() {
            None => Fired { status: Some(204), ms: 12, error: None },
            Some(error) => Fired { status: None, ms: 12, error: Some(error) },
        }
    }

    fn capture(&self, on: Option<bool>) -> bool {
        on.unwrap_or(false)
    }

    fn captured(&self, _: &str) -> Vec<Packet> {
        Vec::new()
    }

    fn link_key(&self) -> &[u8; 32] {
        &[42; 32]
    }

    async fn open_recording(&self, file: &str) -> io::Result<(File, u64)> {
        let file = File::open(self.folder.join(file)).await?;
        let bytes = file.metadata().await?.len();
        Ok((file, bytes))
    }

    async fn delete_recording(&self, file: &str) -> io::Result<()> {
        tokio::fs::remove_file(self.folder.join(file)).await
    }

    fn request_id(&self) -> String {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        format!("00000000-0000-4000-8000-{n:012x}")
    }
}

/// The doors, with somebody behind them.
pub struct House {
    pub fake: Arc<Fake>,
    router: Router,
}

/// An answer.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub bytes: Vec<u8>,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and param.
    pub fn fault(&self) -> (u16, String, String) {
        let body = self.json();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), text("code"), text("param"))
    }
}

impl House {
    pub fn new() -> House {
        House::with(FILE)
    }

    pub fn with(file: &str) -> House {
        let fake = Arc::new(Fake::new(file));
        let router = router(Arc::clone(&fake));
        House { fake, router }
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: Request<Body>) -> Got {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = TowerToHyperService::new(self.router.clone()).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let got = Got {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes: bytes.to_vec(),
        };
        described::check(&method, &path, &got);
        got
    }

    /// The answer with its body unread: for streams.
    pub async fn open(&self, request: Request<Body>) -> axum::http::Response<Body> {
        TowerToHyperService::new(self.router.clone()).call(request).await.unwrap()
    }

    pub async fn ask(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Got {
        let mut request = request(key, method, path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json");
            return self.send(request.body(Body::from(body.to_string())).unwrap()).await;
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Got {
        self.ask(READER, "GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Got {
        self.ask(ADMIN, "POST", path, Some(body)).await
    }
}

pub fn request(key: &str, method: &str, path: &str) -> axum::http::request::Builder {
    let builder = Request::builder().method(method).uri(path);
    if key.is_empty() { builder } else { builder.header("authorization", format!("Bearer {key}")) }
}

pub fn running(id: &str, at: i64, direction: Direction) -> Running {
    let (from, to) = match direction {
        Direction::Inbound => ("+4915112345678", "+4930550100100"),
        Direction::Outbound => ("+4930550100100", "+4915112345678"),
    };
    Running {
        id: id.to_owned(),
        wacid: format!("wacid.{id}"),
        number: "support".to_owned(),
        account: "acme".to_owned(),
        phone_number_id: "106540352242922".to_owned(),
        direction,
        from: from.to_owned(),
        profile_name: Some("Ada".to_owned()),
        user_id: Some("DE.123".to_owned()),
        to: to.to_owned(),
        destination: "sip:200@pbx".to_owned(),
        offered_at: Wall(at),
        ringing: true,
        answered_at: None,
        transferred_at: None,
        recording: false,
        placed_by: PlacedBy::Api,
    }
}

pub fn record(id: &str, at: i64, direction: Direction, why: Why, talked: f64) -> Record {
    let call = running(id, at, direction);
    let answered = (talked > 0.0).then_some(Wall(at + 4_000));
    Record {
        id: call.id,
        wacid: call.wacid,
        number: call.number,
        account: call.account,
        phone_number_id: call.phone_number_id,
        direction,
        from: call.from,
        profile_name: call.profile_name,
        user_id: call.user_id,
        to: call.to,
        destination: call.destination,
        offered_at: call.offered_at,
        answered_at: answered,
        connected_at: answered,
        transferred_at: None,
        ended_at: Wall(at + 4_000 + (talked * 1_000.0) as i64),
        talk_seconds: talked,
        billed_seconds: talked,
        recording: false,
        placed_by: call.placed_by,
        why,
        detail: "BYE from the PBX".to_owned(),
        sip_code: Some(200),
        meta_code: None,
        errors: vec![(486, "busy".to_owned())],
        whatsapp: Quality::default(),
        far: Quality::default(),
        agent: None,
        trunk: None,
        tape: None,
    }
}

impl House {
    /// A closed call of 56 seconds.
    pub fn closed(&self, id: &str, at: i64, direction: Direction, why: Why, talked: f64) -> Billing {
        let record = record(id, at, direction, why, talked);
        let rates = crate::control::rates(&self.fake.config());
        let user = match direction {
            Direction::Inbound => &record.from,
            Direction::Outbound => &record.to,
        };
        let billing = rates.price(&crate::ledger::Priced {
            direction,
            answered: record.answered(),
            billed: Duration::from_secs_f64(talked.max(0.0)),
            to: user,
            recorded: Duration::ZERO,
            month_to_date_minutes: Default::default(),
        });
        self.fake.ledger(|ledger| ledger.close(&record, &billing, &[])).unwrap();
        billing
    }
}
