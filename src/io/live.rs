//! What goes out to others: live events for screens, and who of the webhooks wants to hear of what.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Notify, broadcast};

use crate::call::record::{Running, Speaker};
use crate::clock::Wall;
use crate::config::Config;
use crate::control::Live;
use crate::control::events::{self, Event};
use crate::ledger::Spooled;

/// Live events that a slow screen may be behind before it misses some.
const BEHIND: usize = 256;

/// The configuration in force, and everyone who wants to know what happens.
pub struct Newsroom {
    config: RwLock<Arc<Config>>,
    live: broadcast::Sender<Live>,
    spooled: Notify,
}

impl Newsroom {
    /// Nobody listens yet.
    pub fn new(config: Config) -> Newsroom {
        let (live, _) = broadcast::channel(BEHIND);
        Newsroom { config: RwLock::new(Arc::new(config)), live, spooled: Notify::new() }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another one is in force from now on.
    pub fn replace(&self, config: Config) -> Arc<Config> {
        let config = Arc::new(config);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&config);
        config
    }

    /// Everything that happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }

    /// Tells the screens.
    pub fn publish(&self, event: &Event) {
        let _ = self.live.send(Live::from(event));
    }

    /// Tells the screens how far a call has come.
    pub fn publish_progress(&self, running: &Running) {
        let event = events::progress(super::random::uuid(), running, super::clock::now().wall);
        self.publish(&event);
    }

    /// Tells the screens what was said in a call.
    pub fn publish_speech(&self, running: &Running, who: Speaker, text: &str) {
        let event = events::spoken(super::random::uuid(), running, who, text, super::clock::now().wall);
        self.publish(&event);
    }

    /// The event for every application that wants it; nothing if none does. Events of one call keep their order.
    pub fn spool(&self, event: &Event, call_id: &str, at: Wall) -> Vec<Spooled> {
        let config = self.config();
        let wanted = config.webhooks.iter().filter(|webhook| {
            webhook.active && webhook.events.iter().any(|wanted| wanted.as_str() == event.name)
        });
        let webhooks: Vec<String> = wanted.map(|webhook| webhook.id.clone()).collect();
        match webhooks.is_empty() {
            true => Vec::new(),
            false => vec![spooled(event, call_id, at, webhooks)],
        }
    }

    /// Something has been spooled.
    pub fn wake(&self) {
        self.spooled.notify_one();
    }

    /// Until something has been spooled.
    pub async fn woken(&self) {
        self.spooled.notified().await;
    }
}

/// An event as the spool keeps it.
pub fn spooled(event: &Event, call_id: &str, at: Wall, webhooks: Vec<String>) -> Spooled {
    Spooled {
        id: event.id.clone(),
        call_id: call_id.to_owned(),
        name: event.name.to_owned(),
        payload: event.body.clone(),
        at,
        webhooks,
    }
}
