//! What was used and what it cost, in all and by day, number or channel; the minutes of a month.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use rust_decimal::Decimal;
use time::{Date, Month, OffsetDateTime, Time, macros::format_description};

use super::cost::{dollars, minutes};
use super::{Ledger, LedgerError};
use crate::clock::Wall;

/// What carries the user's end of a call. This gateway knows WhatsApp only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// WhatsApp.
    WhatsApp,
    /// The telephone network: no call here.
    Pstn,
}

impl Channel {
    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Channel::WhatsApp => "whatsapp",
            Channel::Pstn => "pstn",
        }
    }
}

/// What usage is told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// `YYYY-MM-DD` in UTC.
    Day,
    /// The business number.
    Number,
    /// [`Channel`].
    Channel,
}

/// Which calls to add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// Calls that started then or later,
    pub since: Wall,
    /// and before.
    pub until: Wall,
    /// Only calls of this channel.
    pub channel: Option<Channel>,
    /// Only calls of this business number, `+E164`.
    pub number: Option<String>,
    /// What to tell apart.
    pub group: Option<Group>,
}

/// What some calls come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Calls, running ones too.
    pub calls: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Minutes of talking in closed calls, to the thousandth.
    pub minutes: Decimal,
    /// Carrier and recording, in US dollars.
    pub billable_usd: Decimal,
    /// Meta, in US dollars.
    pub meta_usd: Decimal,
}

/// What was used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// All of it.
    pub totals: Totals,
    /// The parts, in the order of their keys; none if nothing is to be told apart.
    pub groups: BTreeMap<String, Totals>,
}

/// Sums as SQLite gives them: calls, answered, seconds of talking, billable, Meta.
#[derive(Clone, Copy, Default)]
struct Sums(i64, i64, f64, i64, i64);

impl Sums {
    fn add(&mut self, part: Sums) {
        self.0 = self.0.saturating_add(part.0);
        self.1 = self.1.saturating_add(part.1);
        self.2 += part.2;
        self.3 = self.3.saturating_add(part.3);
        self.4 = self.4.saturating_add(part.4);
    }

    fn totals(&self) -> Totals {
        let thousandths = (self.2 / 60.0 * 1_000.0).round();
        Totals {
            calls: u64::try_from(self.0).unwrap_or(0),
            answered: u64::try_from(self.1).unwrap_or(0),
            // Saturates, and what is no number becomes zero.
            minutes: Decimal::new(thousandths as i64, 3).normalize(),
            billable_usd: dollars(self.3),
            meta_usd: dollars(self.4),
        }
    }
}

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// The first business number behind this one.
const NEXT_NUMBER: &str =
    "SELECT business FROM calls INDEXED BY calls_usage WHERE business > ?1 ORDER BY business LIMIT 1";

/// When the first call of a number started in a span.
const NEXT_CALL: &str = "SELECT listed_at FROM calls INDEXED BY calls_usage
    WHERE business = ?1 AND listed_at >= ?2 AND listed_at < ?3 ORDER BY listed_at LIMIT 1";

/// The sums of a number's calls in a span.
const SUMS: &str = "SELECT count(*), count(answered_at), total(talk_seconds),
        coalesce(sum(carrier_nano), 0) + coalesce(sum(recording_nano), 0), coalesce(sum(meta_nano), 0)
    FROM calls INDEXED BY calls_usage WHERE business = ?1 AND listed_at >= ?2 AND listed_at < ?3";

impl Ledger {
    /// Adds up the calls that started in a span of time.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn usage(&self, query: &UsageQuery) -> Result<Usage, LedgerError> {
        match query.channel {
            Some(Channel::Pstn) => return Ok(Usage::default()),
            Some(Channel::WhatsApp) | None => {}
        }
        let parts = self.read(|on| {
            // All of it as it is at one moment.
            let moment = on.unchecked_transaction()?;
            let parts = query.parts(&moment)?;
            moment.commit()?;
            Ok(parts)
        })?;
        let mut all = Sums::default();
        parts.values().for_each(|part| all.add(*part));
        let groups = match query.group {
            Some(_) => parts.into_iter().map(|(key, part)| (key, part.totals())).collect(),
            None => BTreeMap::new(),
        };
        Ok(Usage { totals: all.totals(), groups })
    }

    /// The minutes that Meta counted for this account in the calendar month (UTC) of this moment.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn month_to_date(&self, account: &str, month: Wall) -> Result<Decimal, LedgerError> {
        let (first, next) = month_of(month);
        let pulses: i64 = self.read(|on| {
            on.query_row(
                "SELECT coalesce(sum(meta_pulses), 0) FROM calls INDEXED BY calls_minutes
                 WHERE meta_pulses > 0 AND account = ?1 AND listed_at >= ?2 AND listed_at < ?3",
                params![account, first.0, next.0],
                |row| row.get(0),
            )
        })?;
        Ok(minutes(u64::try_from(pulses).unwrap_or(0)))
    }

    /// How SQLite goes about each part of a query, for the tests that watch its indexes.
    #[cfg(test)]
    pub(super) fn usage_plans(&self) -> Vec<String> {
        let plan = |sql: &str| {
            let mut statement = self.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
            steps.map(Result::unwrap).collect::<Vec<_>>().join("\n")
        };
        [NEXT_NUMBER, NEXT_CALL, SUMS].map(plan).to_vec()
    }
}

impl UsageQuery {
    /// The sums by key: number after number, and day after day where those are told apart, so that every call is
    /// read once and from the index alone.
    fn parts(&self, on: &Connection) -> rusqlite::Result<BTreeMap<String, Sums>> {
        let mut next_number = on.prepare(NEXT_NUMBER)?;
        let mut next_call = on.prepare(NEXT_CALL)?;
        let mut sums = on.prepare(SUMS)?;
        let mut parts: BTreeMap<String, Sums> = BTreeMap::new();
        // Nothing is before the empty text.
        let mut number = Some(self.number.clone().unwrap_or_default());
        while let Some(this) = number {
            let mut from = self.since.0;
            while let Some(first) = next_call
                .query_row(params![this, from, self.until.0], |row| row.get::<_, i64>(0))
                .optional()?
            {
                let (key, until) = match self.group {
                    Some(Group::Day) => {
                        let today = first.div_euclid(DAY);
                        (day(today), today.saturating_add(1).saturating_mul(DAY).min(self.until.0))
                    }
                    Some(Group::Number) => (this.clone(), self.until.0),
                    Some(Group::Channel) => (Channel::WhatsApp.as_str().to_owned(), self.until.0),
                    None => (String::new(), self.until.0),
                };
                let part = sums.query_row(params![this, first, until], |row| {
                    Ok(Sums(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                })?;
                parts.entry(key).or_default().add(part);
                from = until;
            }
            number = match &self.number {
                Some(_) => None,
                None => next_number.query_row([&this], |row| row.get(0)).optional()?,
            };
        }
        Ok(parts)
    }
}

/// Days since the epoch as `YYYY-MM-DD`.
fn day(days: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(days.saturating_mul(86_400))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(format_description!("[year]-[month]-[day]")).unwrap_or_default()
}

/// The first moments of this calendar month and of the next one, in UTC.
fn month_of(at: Wall) -> (Wall, Wall) {
    let date =
        OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH).date();
    let first = |year: i32, month: Month| {
        Date::from_calendar_date(year, month, 1)
            .map_or(at, |day| Wall(day.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp() * 1_000))
    };
    let next = match date.month() {
        Month::December => first(date.year().saturating_add(1), Month::January),
        other => first(date.year(), other.next()),
    };
    (first(date.year(), date.month()), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_one_begins() {
        // 2026-11-22T22:38:08Z, and the last millisecond of 2024.
        assert_eq!(month_of(Wall(1_795_387_088_000)), (Wall(1_793_491_200_000), Wall(1_796_083_200_000)));
        assert_eq!(month_of(Wall(1_735_689_599_999)), (Wall(1_733_011_200_000), Wall(1_735_689_600_000)));
        assert_eq!(month_of(Wall(1_735_689_600_000)).0, Wall(1_735_689_600_000));
    }

    #[test]
    fn days_are_named_as_in_the_calendar() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(20_779), "2026-11-22");
        assert_eq!(day(i64::MAX), "1970-01-01");
    }
}
