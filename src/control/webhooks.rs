//! The applications that want to hear of calls: their settings, the log of deliveries, tries by hand.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::ask::{Fields, Given, Query};
use super::fault::{Fault, Kind};
use super::numbers::{MAX_ID, not_edited};
use super::refusal::forgotten;
use super::serve::{Ask, Outcome, Reply};
use super::stamp::{iso, maybe};
use super::{Backend, events, reach, sample};
use crate::config::edit::{Edit, WebhookEdit};
use crate::config::{Config, EventName, Secret, WebhookConfig};
use crate::ledger::{LogEntry, WebhookState};

/// Webhooks that there may be.
const MOST: usize = 50;
/// Longest name and address, in characters.
const MAX_NAME: usize = 50;
const MAX_URL: usize = 2_048;
/// Most headers of a webhook.
const MAX_HEADERS: usize = 20;
/// Lines of the log that are looked through: the latest.
const LOG: usize = 2_000;
/// Lines on a page, unless more or fewer are asked for; and at most.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 100;
/// Stands for the value of a header, which often is a key. Sent back, it means the value that is there.
const HIDDEN: &str = "***";

/// `GET /v1/webhooks/settings`
pub async fn list<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let ids: Vec<String> = ask.config.webhooks.iter().map(|webhook| webhook.id.clone()).collect();
    let states = backend.read(move |ledger| {
        ids.iter().map(|id| ledger.webhook(id)).collect::<Result<Vec<WebhookState>, _>>()
    });
    let states = states.await.map_err(|e| forgotten(&e))?;
    let rows: Vec<Value> =
        ask.config.webhooks.iter().zip(&states).map(|(webhook, state)| object(webhook, state)).collect();
    Ok(Reply::ok(json!({ "webhooks": rows })))
}

/// A subscription. The secret and the values of headers are never shown.
fn object(webhook: &WebhookConfig, state: &WebhookState) -> Value {
    let headers: Map<String, Value> =
        webhook.headers.keys().map(|name| (name.clone(), json!(HIDDEN))).collect();
    let events: Vec<&str> = webhook.events.iter().map(|event| event.as_str()).collect();
    json!({
        "_id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "secretConfigured": webhook.secret.is_some(),
        "events": events,
        "isActive": webhook.active && state.disabled_at.is_none(),
        "lastFiredAt": maybe(state.last_fired_at),
        "failureCount": state.failure_count,
        "disabledAt": maybe(state.disabled_at),
        "pending": state.pending,
        "customHeaders": headers,
        "disabledResourceGroups": [],
    })
}

async fn shown<B: Backend>(backend: &B, config: &Config, id: &str) -> Outcome {
    let webhook = by_id(config, id)?;
    let id = id.to_owned();
    let state = backend.read(move |ledger| ledger.webhook(&id)).await.map_err(|e| forgotten(&e))?;
    Ok(Reply::ok(json!({ "success": true, "webhook": object(webhook, &state) })))
}

fn by_id<'c>(config: &'c Config, id: &str) -> Result<&'c WebhookConfig, Fault> {
    let found = config.webhooks.iter().find(|webhook| webhook.id == id);
    found.ok_or_else(|| Fault::not_found(format!("no webhook has the id \"{id}\"")))
}

/// What a body says about a webhook. `old`: as it is.
fn edit(
    config: &Config,
    id: String,
    fields: &Fields,
    old: Option<&WebhookConfig>,
) -> Result<WebhookEdit, Fault> {
    let mut edit = WebhookEdit { id, ..WebhookEdit::default() };
    match fields.text("name", MAX_NAME)? {
        Given::Absent => {}
        Given::Value(name) if !name.trim().is_empty() && !name.chars().any(char::is_control) => {
            edit.name = Some(name);
        }
        Given::Value(_) | Given::Null => {
            return Err(Fault::invalid("name", format!("must have 1 to {MAX_NAME} characters")));
        }
    }
    match fields.text("url", MAX_URL)? {
        Given::Absent => {}
        Given::Null => return Err(Fault::invalid("url", "can't be cleared")),
        Given::Value(text) => edit.url = Some(address(config, &text)?),
    }
    match fields.text("secret", 256)? {
        Given::Absent => {}
        Given::Null => edit.secret = Some(Secret::default()),
        Given::Value(secret) if secret.chars().any(char::is_control) => {
            return Err(Fault::invalid("secret", "must not hold control characters"));
        }
        Given::Value(secret) => edit.secret = Some(Secret::new(secret)),
    }
    match fields.list("events", 64)? {
        Given::Absent => {}
        Given::Null => return Err(Fault::invalid("events", "can't be cleared")),
        Given::Value(names) => edit.events = Some(event_names(&names)?),
    }
    match fields.boolean("isActive")? {
        Given::Absent => {}
        Given::Null => return Err(Fault::invalid("isActive", "must be true or false")),
        Given::Value(active) => edit.active = Some(active),
    }
    match fields.texts("customHeaders", MAX_HEADERS)? {
        Given::Absent => {}
        Given::Null => edit.headers = Some(BTreeMap::new()),
        Given::Value(headers) => edit.headers = Some(custom_headers(headers, old)?),
    }
    Ok(edit)
}

/// The address of a webhook: http or https, and somewhere that may be reached.
fn address(config: &Config, text: &str) -> Result<String, Fault> {
    let url = text.trim();
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("https" | "http")) {
        return Err(Fault::invalid("url", "must begin with https:// or http://"));
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte)) {
        let what = "must hold neither blanks, quotes, brackets, #, nor letters outside ASCII";
        return Err(Fault::invalid("url", what));
    }
    reach::checked(config, "url", url)?;
    Ok(url.to_owned())
}

fn event_names(names: &[String]) -> Result<Vec<EventName>, Fault> {
    if names.is_empty() {
        return Err(Fault::invalid("events", "must have at least one entry"));
    }
    let mut events = Vec::new();
    for (at, name) in names.iter().enumerate() {
        match EventName::WORDS.iter().find(|(word, _)| word == name) {
            Some((_, event)) if !events.contains(event) => events.push(*event),
            Some(_) => {}
            None => {
                let words: Vec<&str> = EventName::WORDS.iter().map(|(word, _)| *word).collect();
                let what = format!("must be one of: {}", words.join(", "));
                return Err(Fault::invalid(&format!("events[{at}]"), what));
            }
        }
    }
    Ok(events)
}

fn custom_headers(
    given: Vec<(String, String)>,
    old: Option<&WebhookConfig>,
) -> Result<BTreeMap<String, String>, Fault> {
    let mut headers = BTreeMap::new();
    for (name, value) in given {
        let param = format!("customHeaders.{name}");
        let before = old.and_then(|webhook| webhook.headers.get(&name));
        let value = match before {
            Some(before) if value == HIDDEN => before.clone(),
            Some(_) | None => value,
        };
        // RFC 9110 §5.6.2, §5.5.
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(token) {
            return Err(Fault::invalid(&param, "is not the name of a header"));
        }
        let printable = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !printable || value.is_empty() || value.trim() != value {
            let what = "must be printable ASCII, with no blanks at its ends";
            return Err(Fault::invalid(&param, what));
        }
        headers.insert(name, value);
    }
    Ok(headers)
}

/// `POST /v1/webhooks/settings`
pub async fn create<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    ask.fields.required("name", MAX_NAME)?;
    ask.fields.required("url", MAX_URL)?;
    if matches!(ask.fields.list("events", 64)?, Given::Absent | Given::Null) {
        return Err(Fault::missing("events"));
    }
    // As long as the ids that the file makes up, and as random as a request's.
    let id: String = backend.request_id().chars().filter(char::is_ascii_hexdigit).take(24).collect();
    let edit = edit(&ask.config, id.clone(), &ask.fields, None)?;
    if ask.config.webhooks.len() >= MOST {
        let what = format!("there are {MOST} webhooks already: delete one first");
        return Err(Fault::state(StatusCode::UNPROCESSABLE_ENTITY, what));
    }
    let config = backend.edit(vec![Edit::PutWebhook(edit)]).await.map_err(not_edited)?;
    shown(backend, &config, &id).await
}

/// The `_id` of a body.
fn id_of(fields: &Fields) -> Result<String, Fault> {
    let name = if fields.has("_id") || !fields.has("id") { "_id" } else { "id" };
    fields.required(name, MAX_ID)
}

/// `PUT /v1/webhooks/settings`
pub async fn update<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let id = id_of(&ask.fields)?;
    let old = by_id(&ask.config, &id).map_err(|fault| fault.at("_id"))?;
    let edit = edit(&ask.config, id.clone(), &ask.fields, Some(old))?;
    let (again, name, now) = (edit.active == Some(true), id.clone(), ask.now.wall);
    let config = backend.edit(vec![Edit::PutWebhook(edit)]).await.map_err(not_edited)?;
    if again {
        let reset = backend.write(move |ledger| ledger.reset_webhook(&name, now));
        reset.await.map_err(|e| forgotten(&e))?;
    }
    shown(backend, &config, &id).await
}

/// `DELETE /v1/webhooks/settings`
pub async fn delete<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let id = ask.query.required("id")?.to_owned();
    by_id(&ask.config, &id).map_err(|fault| fault.at("id"))?;
    backend.edit(vec![Edit::RemoveWebhook { id: id.clone() }]).await.map_err(not_edited)?;
    let now = ask.now.wall;
    if let Err(error) = backend.write(move |ledger| ledger.forget_webhook(&id, now)).await {
        tracing::warn!(%error, "the events that wait for a deleted webhook could not be given up");
    }
    Ok(Reply::ok(json!({ "success": true })))
}

/// `POST /v1/webhooks/test`
pub async fn test<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let id = ask.fields.required("webhookId", MAX_ID)?;
    let webhook = by_id(&ask.config, &id).map_err(|fault| fault.at("webhookId"))?;
    let mut words: Vec<(&str, Option<EventName>)> =
        EventName::WORDS.iter().map(|(word, event)| (*word, Some(*event))).collect();
    words.push((events::TEST, None));
    let wanted = ask.fields.word("event", &words)?.value().flatten();
    let (event_id, now) = (backend.request_id(), ask.now.wall);
    let event = match wanted {
        Some(name) => sample::event(name, event_id, ask.config.numbers.first(), now),
        None => events::test(event_id, now),
    };
    let fired = backend.fire(webhook.clone(), event).await;
    let ms = fired.ms;
    match (&fired.error, fired.status) {
        (None, status) => {
            let status = status.map_or_else(String::new, |status| format!(" with {status}"));
            let message = format!("the webhook was taken{status} after {ms} ms");
            Ok(Reply::ok(json!({ "success": true, "message": message })))
        }
        (Some(error), _) => {
            let message = format!("the webhook was not taken: {error}");
            let fault = Fault::new(StatusCode::BAD_GATEWAY, Kind::Platform, "webhook_failed", &message);
            let mut body = fault.body();
            body["success"] = json!(false);
            body["message"] = json!(message);
            Ok(Reply::Json(StatusCode::BAD_GATEWAY, body))
        }
    }
}

/// Which lines of the log are asked for.
struct Lines {
    success: Option<bool>,
    event: Option<String>,
    event_id: Option<String>,
}

impl Lines {
    fn read(query: &Query) -> Result<Lines, Fault> {
        Ok(Lines {
            success: query.word("status", &[("success", true), ("failed", false)])?,
            event: query.get("event").map(str::to_owned),
            event_id: query.get("eventId").map(str::to_owned),
        })
    }

    fn fit(&self, line: &LogEntry) -> bool {
        self.success.is_none_or(|success| success == line.success)
            && self.event.as_ref().is_none_or(|event| *event == line.name)
            && self.event_id.as_ref().is_none_or(|id| *id == line.event_id)
    }
}

/// `GET /v1/webhooks/logs`
pub async fn logs<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let limit = ask.query.integer("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    let most = u32::try_from(LOG).unwrap_or(u32::MAX);
    let skip = ask.query.integer("skip", 0..=most)?.unwrap_or(0);
    let lines = Lines::read(&ask.query)?;
    let webhook = ask.query.get("webhookId").map(str::to_owned);
    let (first, count) = (usize::try_from(skip).unwrap_or(0), usize::try_from(limit).unwrap_or(1));
    let found = backend.read(move |ledger| {
        let mut found = ledger.log(webhook.as_deref(), LOG, None)?;
        found.retain(|line| lines.fit(line));
        let total = found.len();
        Ok((found.into_iter().skip(first).take(count).collect::<Vec<_>>(), total))
    });
    let (page, total) = found.await.map_err(|e| forgotten(&e))?;
    let rows: Vec<Value> = page.iter().map(|line| log_row(&ask.config, line)).collect();
    Ok(Reply::ok(json!({
        "logs": rows,
        "pagination": {
            "total": total,
            "limit": limit,
            "skip": skip,
            "pages": total.div_ceil(count.max(1)),
            "hasMore": first.saturating_add(page.len()) < total,
        },
    })))
}

fn log_row(config: &Config, line: &LogEntry) -> Value {
    let webhook = config.webhooks.iter().find(|webhook| webhook.id == line.webhook_id);
    let payload: Value = serde_json::from_str(&line.request_payload).unwrap_or(Value::Null);
    json!({
        "_id": line.id.to_string(),
        "webhookId": line.webhook_id,
        "webhookName": webhook.map(|webhook| &webhook.name),
        "url": webhook.map(|webhook| &webhook.url),
        "event": line.name,
        "eventId": line.event_id,
        "status": if line.success { "success" } else { "failed" },
        "statusCode": line.status_code,
        "requestPayload": payload,
        "responseBody": line.response_body,
        "errorMessage": line.error,
        "attemptNumber": line.attempt_number,
        "responseTime": u64::try_from(line.response_time.as_millis()).unwrap_or(u64::MAX),
        "createdAt": iso(line.at),
    })
}

/// `POST /v1/webhooks/logs/redeliver`
pub async fn redeliver<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let webhook = ask.fields.required("webhookId", MAX_ID)?;
    let event = ask.fields.required("eventId", MAX_ID)?;
    by_id(&ask.config, &webhook).map_err(|fault| fault.at("webhookId"))?;
    let now = ask.now.wall;
    let done = backend.write(move |ledger| {
        let found = ledger.redeliver_event(&event, Some(&webhook), now)?;
        Ok((found, ledger.webhook(&webhook)?))
    });
    let (found, state) = done.await.map_err(|e| forgotten(&e))?;
    if found == 0 {
        let what = "no event with this id went to this webhook, or it is no longer kept";
        return Err(Fault::state(StatusCode::UNPROCESSABLE_ENTITY, what).at("eventId"));
    }
    let message = match state.disabled_at {
        None => "the event is sent again now: the log shows how it goes",
        Some(_) => {
            "the event is sent again once the webhook is active: it is disabled after too many failures"
        }
    };
    Ok(Reply::ok(json!({ "success": true, "message": message })))
}
