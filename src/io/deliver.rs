//! Events to the user's own applications: from the spool on the disk, one POST at a time per call, until they are taken
//! or given up.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use super::clock;
use super::disk::Disk;
use super::live::{self, Newsroom};
use crate::clock::Wall;
use crate::config::{WebhookConfig, is_private, is_private_host};
use crate::control::Fired;
use crate::control::events::{self, Event};
use crate::ledger::{Attempt, Due, Ledger, LedgerError};

/// Who posts.
const USER_AGENT: &str = concat!("watrunk/", env!("CARGO_PKG_VERSION"));

/// An application has this long to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Deliveries on the wire at once, and those to one application.
const AT_ONCE: usize = 16;
const AT_ONE: usize = 4;

/// Deliveries that are looked at for one that may go out now.
const LOOKED_AT: usize = 256;

/// As much of an answer as is read; the log keeps less.
const REPLY: usize = 16 * 1024;

/// With nothing to do, the spool is looked at this often all the same: a wall clock may have jumped.
const IDLE: Duration = Duration::from_secs(60);

/// And while some are under way, this often: others may have become due.
const BUSY: Duration = Duration::from_secs(1);

/// Looks up names, and refuses those that lead to this machine or its network.
#[derive(Clone)]
struct PublicOnly(Arc<Newsroom>);

impl tower_service::Service<Name> for PublicOnly {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allowed = self.0.config().http.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let usable: Vec<SocketAddr> =
                found.filter(|address| allowed || !is_private(address.ip())).collect();
            match usable.is_empty() {
                true => Err(std::io::Error::other(
                    "the name leads to a private address, and http.allow_private is not set",
                )),
                false => Ok(usable.into_iter()),
            }
        })
    }
}

/// The client that posts events: cheap to clone.
#[derive(Clone)]
pub struct Post {
    client: Client<HttpsConnector<HttpConnector<PublicOnly>>, Full<Bytes>>,
    news: Arc<Newsroom>,
    disk: Disk,
}

/// What came of one POST.
struct Outcome {
    status: Option<u16>,
    attempt: Attempt,
}

impl Post {
    /// A client without a connection.
    pub fn new(news: Arc<Newsroom>, disk: Disk) -> Post {
        let mut http = HttpConnector::new_with_resolver(PublicOnly(Arc::clone(&news)));
        http.enforce_http(false);
        http.set_connect_timeout(Some(PATIENCE));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(2)
            .build(connector);
        Post { client, news, disk }
    }

    /// Delivers one event now, once, whatever else waits, and writes it into the log.
    pub async fn fire(&self, webhook: &WebhookConfig, event: &Event) -> Fired {
        let outcome = self.post(webhook, &event.id, event.name, &event.body).await;
        let fired = Fired {
            status: outcome.status,
            ms: u64::try_from(outcome.attempt.response_time.as_millis()).unwrap_or(u64::MAX),
            error: outcome.attempt.error.clone(),
        };
        let (spooled, attempt) =
            (live::spooled(event, "", outcome.attempt.at, vec![webhook.id.clone()]), outcome.attempt);
        let logged = self.disk.write(move |ledger| ledger.fired(&spooled, &attempt)).await;
        if let Err(error) = logged {
            tracing::warn!(%error, "a delivery can't be written into the log");
        }
        fired
    }

    async fn post(&self, webhook: &WebhookConfig, id: &str, name: &str, payload: &str) -> Outcome {
        let (began, at) = (Instant::now(), clock::now().wall);
        let answered = tokio::time::timeout(PATIENCE, self.exchange(webhook, id, name, payload)).await;
        let (status, body, error) = match answered {
            Ok(Ok((status, body))) if (200..300).contains(&status) => (Some(status), body, None),
            Ok(Ok((status, body))) => (Some(status), body, Some(format!("HTTP {status}"))),
            Ok(Err(error)) => (None, String::new(), Some(error)),
            Err(_) => (None, String::new(), Some(format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        let attempt =
            Attempt { at, status_code: status, response_body: body, error, response_time: began.elapsed() };
        Outcome { status, attempt }
    }

    async fn exchange(
        &self,
        webhook: &WebhookConfig,
        id: &str,
        name: &str,
        payload: &str,
    ) -> Result<(u16, String), String> {
        let uri: Uri = webhook.url.parse().map_err(|_| "the webhook's url is not a URL".to_owned())?;
        // A literal address is never looked up.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if !self.news.config().http.allow_private && host.parse::<IpAddr>().is_ok() && is_private_host(host) {
            return Err("the address is private, and http.allow_private is not set".to_owned());
        }
        let mut post = hyper::Request::builder().method(Method::POST).uri(uri);
        post = post.header("Content-Type", "application/json").header("User-Agent", USER_AGENT);
        for (name, value) in events::headers(id, name, payload, webhook.secret.as_ref()) {
            post = post.header(name, value);
        }
        for (name, value) in &webhook.headers {
            post = post.header(name, value);
        }
        let post =
            post.body(Full::new(Bytes::from(payload.to_owned()))).map_err(|error| error.to_string())?;
        let response = self.client.request(post).await.map_err(|error| super::graph::root(&error))?;
        let status = response.status().as_u16();
        // What the body says is only for the log.
        let body = match Limited::new(response.into_body(), REPLY).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => String::new(),
        };
        Ok((status, body))
    }

    /// Delivers what is spooled for as long as the process lives. An application that is slow holds up nobody else.
    pub async fn deliver(self) {
        let mut under_way: JoinSet<(String, i64)> = JoinSet::new();
        let mut taken: BTreeSet<(String, i64)> = BTreeSet::new();
        loop {
            let now = clock::now().wall;
            let due = self.disk.write(move |ledger| ledger.due(now, LOOKED_AT)).await;
            let due = due.unwrap_or_else(|error| {
                tracing::warn!(%error, "the spool can't be read");
                Vec::new()
            });
            for one in due {
                let key = (one.webhook_id.clone(), one.seq);
                let same = taken.iter().filter(|(webhook, _)| *webhook == one.webhook_id).count();
                if taken.len() < AT_ONCE && same < AT_ONE && !taken.contains(&key) {
                    taken.insert(key.clone());
                    let post = self.clone();
                    under_way.spawn(async move {
                        post.attempt(one).await;
                        key
                    });
                }
            }
            tokio::select! {
                done = under_way.join_next(), if !under_way.is_empty() => match done {
                    Some(Ok(key)) => {
                        taken.remove(&key);
                    }
                    // A bug in one attempt: which one it was is not known, so all that still run are waited for.
                    Some(Err(error)) => {
                        tracing::error!(%error, "an attempt to deliver an event panicked: this is a bug");
                        while under_way.join_next().await.is_some() {}
                        taken.clear();
                    }
                    None => {}
                },
                () = self.rest(!taken.is_empty()) => {}
            }
        }
    }

    /// Until something is spooled or due again.
    async fn rest(&self, busy: bool) {
        let next = match busy {
            // What is under way counts as due until it is settled.
            true => None,
            false => self.disk.write(|ledger| ledger.next_due()).await.ok().flatten(),
        };
        let longest = if busy { BUSY } else { IDLE };
        let pause = next.map_or(longest, |at| until(at).min(longest)).max(Duration::from_millis(50));
        tokio::select! {
            () = self.news.woken() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    async fn attempt(&self, due: Due) {
        let config = self.news.config();
        let webhook = config.webhooks.iter().find(|webhook| webhook.id == due.webhook_id);
        let Some(webhook) = webhook.filter(|webhook| webhook.active) else {
            // It was taken out of the file, or switched off, with events still waiting.
            let now = clock::now().wall;
            self.settle(move |ledger| ledger.forget_webhook(&due.webhook_id, now)).await;
            return;
        };
        let Outcome { attempt, .. } = self.post(webhook, &due.event_id, &due.name, &due.payload).await;
        let after = |pause: Duration| Wall(clock::now().wall.0.saturating_add(pause.as_millis() as i64));
        let next = attempt.error.as_ref().and_then(|_| pause(due.attempt)).map(after);
        if let Some(error) = &attempt.error {
            tracing::info!(webhook = %webhook.id, event = %due.name, attempt = due.attempt, %error,
                again = next.is_some(), "an event was not taken");
        }
        self.settle(move |ledger| match attempt.error {
            None => ledger.delivered(&due.webhook_id, due.seq, &attempt),
            Some(_) => {
                if ledger.failed(&due.webhook_id, due.seq, &attempt, next)? {
                    tracing::warn!(webhook = %due.webhook_id,
                        "a webhook is disabled after too many failures: what waits for it is kept");
                }
                Ok(())
            }
        })
        .await;
    }

    async fn settle(&self, work: impl FnOnce(&mut Ledger) -> Result<(), LedgerError> + Send + 'static) {
        if let Err(error) = self.disk.write(work).await {
            // It is delivered again then: at least once is what we promise.
            tracing::warn!(%error, "a delivery can't be written down");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// How long to wait after this attempt; `None`: it was the last. Together some eighteen hours.
fn pause(attempt: u32) -> Option<Duration> {
    const PAUSES: [u64; 9] = [2, 10, 30, 120, 600, 1_800, 7_200, 18_000, 36_000];
    let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    PAUSES.get(index).copied().map(Duration::from_secs)
}

fn until(at: Wall) -> Duration {
    let millis = at.0.saturating_sub(clock::now().wall.0);
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
