//! What a call costs: pulses, minutes and exact decimals.
//!
//! Meta counts answered business-initiated calls in pulses of 6 seconds and lets calls by the user go free; the
//! volume tier of the month sets the price, and a call that crosses into the next tier is priced there as a whole
//! (WhatsApp Cloud API, Calling API pricing). The carrier and the recording count begun seconds.

use std::time::Duration;

use rust_decimal::{Decimal, RoundingStrategy};

use super::country;
use crate::call::leg::Direction;

/// One pulse, in nanoseconds.
const PULSE: u128 = 6_000_000_000;

/// Pulses of a minute.
const PULSES: u64 = 10;

/// Digits behind the point that a cost keeps: billionths of a dollar.
const PLACES: u32 = 9;

/// What a call can last here, in seconds: a year. What a minute can cost: 10,000 dollars. Within them no sum
/// overflows.
const LONGEST: u64 = 31_536_000;
const DEAREST: u64 = 10_000;

/// The only currency there is.
pub const CURRENCY: &str = "USD";

/// One row of the price list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// The beginning of the numbers it holds for, with or without `+`; empty for all.
    pub prefix: String,
    /// What Meta takes for a minute, in US dollars.
    pub meta_per_minute: Decimal,
    /// What the carrier takes for a minute, in US dollars.
    pub carrier_per_minute: Decimal,
    /// What Meta takes for a minute once the month's minutes are more than the first number.
    pub tiers: Vec<(u64, Decimal)>,
}

/// The price list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rates {
    /// Prefixes without `+`, the longest first.
    rates: Vec<Rate>,
    recording_per_minute: Decimal,
}

/// What the price of a call depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priced<'a> {
    /// Which way it went.
    pub direction: Direction,
    /// Whether WhatsApp's side was up: the user picked up, or Meta took our answer.
    pub answered: bool,
    /// For how long it was up.
    pub billed: Duration,
    /// The WhatsApp user of an outbound call (number or BSUID), the destination's number of an inbound one. What has
    /// no rate costs nothing.
    pub to: &'a str,
    /// How much of it was recorded.
    pub recorded: Duration,
    /// The minutes that Meta has counted for this account in this month before this call.
    pub month_to_date_minutes: Decimal,
}

/// What a call cost. Money in US dollars, to the billionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Billing {
    /// Pulses of 6 seconds that Meta counts.
    pub meta_pulses: u64,
    /// The same in minutes.
    pub meta_minutes: Decimal,
    /// Seconds that the carrier counts.
    pub carrier_seconds: u64,
    /// Seconds that were recorded.
    pub recording_seconds: u64,
    /// What Meta takes.
    pub meta_cost: Decimal,
    /// What the carrier takes.
    pub carrier_cost: Decimal,
    /// What the recording costs.
    pub recording_cost: Decimal,
    /// Carrier and recording: all but Meta, who sends a bill of its own.
    pub billable_cost: Decimal,
    /// Everything.
    pub total_cost: Decimal,
}

impl Billing {
    /// Adds up. `costs`: Meta, carrier, recording.
    pub fn of(
        meta_pulses: u64,
        carrier_seconds: u64,
        recording_seconds: u64,
        costs: [Decimal; 3],
    ) -> Billing {
        let [meta_cost, carrier_cost, recording_cost] = costs;
        let billable_cost = carrier_cost.saturating_add(recording_cost).normalize();
        Billing {
            meta_pulses,
            meta_minutes: minutes(meta_pulses),
            carrier_seconds,
            recording_seconds,
            meta_cost,
            carrier_cost,
            recording_cost,
            billable_cost,
            total_cost: billable_cost.saturating_add(meta_cost).normalize(),
        }
    }

    /// [`CURRENCY`].
    pub const fn currency(&self) -> &'static str {
        CURRENCY
    }
}

/// What a call would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Where the number is, ISO 3166-1 alpha-2; `None` if the prefix belongs to no country.
    pub country: Option<&'static str>,
    /// Everything, for a minute.
    pub per_minute: Decimal,
    /// What the call would cost.
    pub billing: Billing,
}

impl Rates {
    /// A price list; of two rows with the same prefix the first holds.
    pub fn new(rates: Vec<Rate>, recording_per_minute: Decimal) -> Rates {
        let mut rates: Vec<Rate> = rates
            .into_iter()
            .map(|mut rate| {
                rate.prefix = rate.prefix.trim().trim_start_matches('+').to_owned();
                rate.tiers.sort_by_key(|tier| tier.0);
                rate
            })
            .collect();
        rates.sort_by_key(|rate| std::cmp::Reverse(rate.prefix.len()));
        Rates { rates, recording_per_minute }
    }

    /// What this call costs.
    pub fn price(&self, call: &Priced<'_>) -> Billing {
        let rate = self.rate(call.to);
        let pulses = match call.direction {
            Direction::Outbound if call.answered => {
                u64::try_from(call.billed.as_nanos().div_ceil(PULSE)).unwrap_or(u64::MAX).min(LONGEST / 6)
            }
            Direction::Outbound | Direction::Inbound => 0,
        };
        let carrier = if call.answered { begun_seconds(call.billed) } else { 0 };
        let recorded = if call.answered { call.recorded } else { Duration::ZERO };
        let (recording, recording_cost) = recording(recorded, self.recording_per_minute);
        let month = call.month_to_date_minutes.saturating_add(minutes(pulses));
        Billing::of(
            pulses,
            carrier,
            recording,
            [
                cost(pulses, PULSES, rate.map_or(Decimal::ZERO, |rate| rate.meta(month))),
                cost(carrier, 60, rate.map_or(Decimal::ZERO, |rate| rate.carrier_per_minute)),
                recording_cost,
            ],
        )
    }

    /// What a call of this many minutes to this user would cost.
    pub fn estimate(
        &self,
        to: &str,
        whole_minutes: u32,
        recording: bool,
        month_to_date: Decimal,
    ) -> Estimate {
        let billed = Duration::from_secs(u64::from(whole_minutes) * 60);
        let billing = self.price(&Priced {
            direction: Direction::Outbound,
            answered: true,
            billed,
            to,
            recorded: if recording { billed } else { Duration::ZERO },
            month_to_date_minutes: month_to_date,
        });
        let per_minute = billing.total_cost.checked_div(Decimal::from(whole_minutes)).unwrap_or_default();
        Estimate { country: country::of(to), per_minute: rounded(per_minute), billing }
    }

    fn rate(&self, to: &str) -> Option<&Rate> {
        let digits = match country::bsuid(to) {
            Some(country) => country::calling_code(country)?,
            None => to.trim().trim_start_matches('+'),
        };
        self.rates.iter().find(|rate| digits.starts_with(&rate.prefix))
    }
}

impl Rate {
    /// Meta's price of a minute of the call that brings the month to this many minutes.
    fn meta(&self, month: Decimal) -> Decimal {
        let tier = self.tiers.iter().rev().find(|(from, _)| month > Decimal::from(*from));
        tier.map_or(self.meta_per_minute, |(_, price)| *price)
    }
}

/// Pulses as minutes.
pub(super) fn minutes(pulses: u64) -> Decimal {
    Decimal::new(i64::try_from(pulses).unwrap_or(i64::MAX), 1).normalize()
}

fn begun_seconds(span: Duration) -> u64 {
    span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)).min(LONGEST)
}

/// The begun seconds of a recording, and what they cost.
pub(super) fn recording(recorded: Duration, per_minute: Decimal) -> (u64, Decimal) {
    let seconds = begun_seconds(recorded);
    (seconds, cost(seconds, 60, per_minute))
}

/// `units` of which `of_a_minute` make a minute.
fn cost(units: u64, of_a_minute: u64, per_minute: Decimal) -> Decimal {
    let price = per_minute.clamp(Decimal::ZERO, Decimal::from(DEAREST));
    let product = Decimal::from(units).checked_mul(price).unwrap_or_default();
    rounded(product.checked_div(Decimal::from(of_a_minute)).unwrap_or_default())
}

fn rounded(money: Decimal) -> Decimal {
    money.round_dp_with_strategy(PLACES, RoundingStrategy::MidpointAwayFromZero).normalize()
}

/// Dollars as the billionths that a row keeps.
pub(super) fn nano(money: Decimal) -> i64 {
    let mut money = rounded(money);
    money.rescale(PLACES);
    i64::try_from(money.mantissa()).unwrap_or(i64::MAX)
}

/// The other way.
pub(super) fn dollars(nano: i64) -> Decimal {
    Decimal::new(nano, PLACES).normalize()
}
