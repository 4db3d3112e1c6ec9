//! What calls would cost, and what they did.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::numbers::{self, pick};
use super::permissions::callee_of;
use super::refusal::forgotten;
use super::serve::{Ask, Outcome, Reply};
use super::stamp::{iso, money};
use super::{Backend, calls};
use crate::clock::Wall;
use crate::config::Config;
use crate::ledger::{Group, Rate, Rates, Totals, UsageQuery};

/// The window of usage unless another is asked for.
const WINDOW: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Minutes of an estimate, at most and unless asked for.
const MAX_MINUTES: u32 = 120;
const MINUTES: u32 = 1;

const GROUPS: &[(&str, Group)] =
    &[("day", Group::Day), ("number", Group::Number), ("channel", Group::Channel)];

/// The price list of the file, as the ledger counts with it.
pub fn rates(config: &Config) -> Rates {
    let rate = |rate: &crate::config::RateConfig| Rate {
        prefix: rate.prefix.clone(),
        meta_per_minute: rate.meta_per_minute_usd,
        carrier_per_minute: rate.carrier_per_minute_usd,
        tiers: rate.tiers.iter().map(|tier| (tier.from_minutes, tier.meta_per_minute_usd)).collect(),
    };
    Rates::new(config.rates.iter().map(rate).collect(), config.recording.per_minute_usd)
}

/// `GET /v1/whatsapp/calls/estimate`
pub async fn estimate<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let number = numbers::of_account(&ask.config, ask.query.required("accountId")?, pick(&ask.query))?;
    let to = callee_of(&ask.query)?.to_string();
    let minutes = ask.query.integer("minutes", 1..=MAX_MINUTES)?.unwrap_or(MINUTES);
    let recording = ask.query.boolean("recording")?.unwrap_or(number.recording);
    let (account, month) = (number.account_id.clone(), ask.now.wall);
    let used = backend.read(move |ledger| ledger.month_to_date(&account, month));
    let used = used.await.map_err(|e| forgotten(&e))?;
    let estimate = rates(&ask.config).estimate(&to, minutes, recording, used);
    let mut breakdown = calls::costs(&estimate.billing);
    breakdown.remove("currency");
    breakdown.insert("metaMinutes".to_owned(), json!(minutes));
    Ok(Reply::ok(json!({
        "destinationCountry": estimate.country,
        "perMinuteUsd": money(estimate.per_minute),
        "breakdown": breakdown,
    })))
}

/// `GET /v1/usage/calls`
pub async fn usage<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let until = ask.query.moment("until")?.unwrap_or(ask.now.wall);
    let window = i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX);
    let since = ask.query.moment("since")?.unwrap_or(Wall(until.0.saturating_sub(window)));
    let group = ask.query.word("groupBy", GROUPS)?;
    let query = UsageQuery {
        since,
        until,
        channel: ask.query.word("channel", calls::CHANNEL)?,
        number: calls::number(&ask.query),
        group,
    };
    let usage = backend.read(move |ledger| ledger.usage(&query)).await.map_err(|e| forgotten(&e))?;
    let groups: Vec<Value> = usage
        .groups
        .iter()
        .map(|(key, part)| {
            let mut row = totals(part);
            row.insert("key".to_owned(), json!(key));
            Value::Object(row)
        })
        .collect();
    let word = GROUPS.iter().find(|(_, known)| Some(*known) == group).map(|(word, _)| *word);
    Ok(Reply::ok(json!({
        "since": iso(since),
        "until": iso(until),
        "groupBy": word,
        "totals": totals(&usage.totals),
        "groups": groups,
    })))
}

fn totals(totals: &Totals) -> Map<String, Value> {
    let facts = [
        ("calls", json!(totals.calls)),
        ("answered", json!(totals.answered)),
        ("minutes", money(totals.minutes)),
        ("billableUSD", money(totals.billable_usd)),
        ("metaUSD", money(totals.meta_usd)),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
