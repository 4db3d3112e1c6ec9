//! `GET /v1/events`: what happens, as it happens (Server-Sent Events, WHATWG HTML §9.2).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt as _};

use super::Backend;
use super::events::Live;
use super::fault::{Fault, Kind};
use super::serve::{Ask, Outcome, Reply, Room};

/// Screens that may listen at a time.
pub const SCREENS: usize = 32;
/// How often a silent stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Lines of the delivery log that are looked through for what a screen has missed.
const KEPT: usize = 500;

/// A place among those who listen for long.
pub(super) struct Seat(Arc<AtomicUsize>);

impl Seat {
    /// One of so many.
    pub(super) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Seat> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(taken));
        (before < most).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens the stream. With `Last-Event-ID` it begins with what was missed, as far as it is still known.
pub async fn open<B: Backend>(room: &Room<B>, ask: &Ask) -> Outcome {
    let Some(seat) = Seat::take(&room.screens, SCREENS) else {
        let what = format!("{SCREENS} live screens listen already");
        let mut fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "too_many_streams", what);
        fault.retry_after = Some(30);
        return Err(fault);
    };
    // Listened to first, so that nothing falls between the two.
    let live = room.backend.live();
    let last = ask.headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| id.len() <= 128);
    let missed = match last {
        Some(id) => since(&*room.backend, id.to_owned()).await,
        None => Vec::new(),
    };
    let hello = stream::once(async { Event::default().comment("watching") });
    let events = hello.chain(stream::iter(missed).chain(live).map(move |live| {
        let _ = &seat;
        told(&live)
    }));
    let sse = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    Ok(Reply::Raw(sse.into_response()))
}

/// An event as the stream has it: a line must not be broken by what is in it.
fn told(live: &Live) -> Event {
    let plain = |text: &str| text.chars().filter(char::is_ascii_graphic).collect::<String>();
    let data: String = live.data.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Event::default().id(plain(&live.id)).event(plain(&live.event)).data(data)
}

/// Events after this one, the oldest first: of those that went to a webhook, the latest are kept. None if this one is
/// not among them.
async fn since<B: Backend>(backend: &B, last: String) -> Vec<Live> {
    let missed = backend.read(move |ledger| {
        let mut missed: Vec<Live> = Vec::new();
        for line in ledger.log(None, KEPT, None)? {
            if line.event_id == last {
                missed.reverse();
                return Ok(missed);
            }
            // Each try is a line.
            if missed.iter().all(|live| live.id != line.event_id) {
                missed.push(Live { id: line.event_id, event: line.name, data: line.request_payload });
            }
        }
        Ok(Vec::new())
    });
    missed.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "a live screen does not get what it missed");
        Vec::new()
    })
}
