//! What was used and what it cost, in all and by day, number or channel; the minutes of a month.

use std::collections::BTreeMap;

use rusqlite::{ToSql, params};
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
#[derive(Default)]
struct Sums(i64, i64, f64, i64, i64);

impl Sums {
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

const SUMS: &str = "count(*), count(answered_at), total(talk_seconds),
    coalesce(sum(carrier_nano), 0) + coalesce(sum(recording_nano), 0), coalesce(sum(meta_nano), 0)";

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
        let (sql, values) = query.sql();
        let parts = self.read(|on| {
            let mut statement = on.prepare(&sql)?;
            let values: Vec<&dyn ToSql> = values.iter().map(AsRef::as_ref).collect();
            let parts = statement.query_map(values.as_slice(), |row| {
                let key = match query.group {
                    Some(Group::Day) => day(row.get(0)?),
                    Some(Group::Number | Group::Channel) => row.get(0)?,
                    None => String::new(),
                };
                Ok((key, Sums(row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)))
            })?;
            parts.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut all = Sums::default();
        let mut groups = BTreeMap::new();
        for (key, part) in parts {
            all.0 = all.0.saturating_add(part.0);
            all.1 = all.1.saturating_add(part.1);
            all.2 += part.2;
            all.3 = all.3.saturating_add(part.3);
            all.4 = all.4.saturating_add(part.4);
            if query.group.is_some() && part.0 > 0 {
                groups.insert(key, part.totals());
            }
        }
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

    /// How SQLite goes about a query, for the tests that watch its indexes.
    #[cfg(test)]
    pub(super) fn usage_plan(&self, query: &UsageQuery) -> String {
        let (sql, values) = query.sql();
        let values: Vec<&dyn ToSql> = values.iter().map(AsRef::as_ref).collect();
        let mut statement = self.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map(values.as_slice(), |row| row.get::<_, String>(3)).unwrap();
        steps.map(Result::unwrap).collect::<Vec<_>>().join("\n")
    }
}

impl UsageQuery {
    fn sql(&self) -> (String, Vec<Box<dyn ToSql>>) {
        let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(self.since.0), Box::new(self.until.0)];
        let number = match &self.number {
            Some(number) => {
                values.push(Box::new(number.clone()));
                " AND business = ?3"
            }
            None => "",
        };
        let (key, group) = match self.group {
            Some(Group::Day) => ("listed_at / 86400000", " GROUP BY 1"),
            Some(Group::Number) => ("business", " GROUP BY 1"),
            Some(Group::Channel) => ("'whatsapp'", ""),
            None => ("''", ""),
        };
        let sql = format!(
            "SELECT {key}, {SUMS} FROM calls INDEXED BY calls_usage
             WHERE listed_at >= ?1 AND listed_at < ?2{number}{group}"
        );
        (sql, values)
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
