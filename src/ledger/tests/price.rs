//! The arithmetic of money, against worked examples.

use std::str::FromStr as _;

use proptest::prelude::*;
use rust_decimal::Decimal;

use crate::call::leg::Direction;
use crate::ledger::cost::{self, Priced, Rate, Rates};
use std::time::Duration;

fn usd(text: &str) -> Decimal {
    Decimal::from_str(text).unwrap()
}

fn rate(prefix: &str, meta: &str, carrier: &str) -> Rate {
    Rate {
        prefix: prefix.into(),
        meta_per_minute: usd(meta),
        carrier_per_minute: usd(carrier),
        tiers: Vec::new(),
    }
}

/// Rest of Africa as Meta prices it: 0.0103 up to 50,000 minutes, 0.0084 up to 250,000, then less.
fn tiered() -> Rates {
    let tiers = vec![(250_000, usd("0.0070")), (50_000, usd("0.0084"))];
    Rates::new(vec![Rate { tiers, ..rate("+254", "0.0103", "0") }], Decimal::ZERO)
}

fn outbound(to: &str, seconds: f64) -> Priced<'_> {
    Priced {
        direction: Direction::Outbound,
        answered: true,
        billed: Duration::from_secs_f64(seconds),
        to,
        recorded: Duration::ZERO,
        month_to_date_minutes: Decimal::ZERO,
    }
}

#[test]
fn fifty_six_seconds_are_ten_pulses_and_a_whole_minute() {
    let rates = Rates::new(vec![rate("+1", "0.012", "0")], Decimal::ZERO);
    let bill = rates.price(&outbound("+15550100200", 56.0));
    assert_eq!((bill.meta_pulses, bill.meta_minutes), (10, usd("1")));
    assert_eq!(bill.meta_cost, usd("0.012"));
    assert_eq!(bill.carrier_seconds, 56);
    assert_eq!((bill.billable_cost, bill.total_cost), (usd("0"), usd("0.012")), "Meta's bill is not ours");
}

#[test]
fn every_begun_pulse_counts() {
    let rates = Rates::new(vec![rate("", "0.06", "0.06")], Decimal::ZERO);
    for (seconds, pulses, carrier) in [
        (0.0, 0, 0),
        (0.000_001, 1, 1),
        (5.999, 1, 6),
        (6.0, 1, 6),
        (6.001, 2, 7),
        (60.0, 10, 60),
        (60.02, 11, 61),
        (3_600.0, 600, 3_600),
    ] {
        let bill = rates.price(&outbound("1", seconds));
        assert_eq!((bill.meta_pulses, bill.carrier_seconds), (pulses, carrier), "{seconds} s");
        assert_eq!(bill.meta_cost, Decimal::new(6, 3) * Decimal::from(pulses), "{seconds} s");
        assert_eq!(bill.carrier_cost, Decimal::new(1, 3) * Decimal::from(carrier), "{seconds} s");
    }
}

#[test]
fn calls_by_the_user_cost_nothing_at_meta_and_unanswered_ones_nothing_at_all() {
    let rates = Rates::new(vec![rate("", "0.5", "0.6")], usd("0.002"));
    let inbound = Priced {
        direction: Direction::Inbound,
        recorded: Duration::from_secs(30),
        ..outbound("+49301", 90.0)
    };
    let bill = rates.price(&inbound);
    assert_eq!((bill.meta_pulses, bill.meta_cost), (0, usd("0")));
    assert_eq!((bill.carrier_cost, bill.recording_cost), (usd("0.9"), usd("0.001")));
    assert_eq!((bill.billable_cost, bill.total_cost), (usd("0.901"), usd("0.901")));
    for direction in [Direction::Inbound, Direction::Outbound] {
        let missed = Priced { answered: false, direction, ..inbound };
        assert_eq!(rates.price(&missed), cost::Billing::default());
    }
}

#[test]
fn the_longest_prefix_wins_with_and_without_its_plus_sign() {
    let rates = Rates::new(
        vec![
            rate("+1", "1", "0"),
            rate("", "9", "0"),
            rate("1416", "2", "0"),
            rate("+14165", "3", "0"),
            rate("1", "7", "0"),
        ],
        Decimal::ZERO,
    );
    for (to, price) in [
        ("+15550100200", "1"),
        ("15550100200", "1"),
        ("+14160100200", "2"),
        ("+14165100200", "3"),
        ("+4930123", "9"),
        ("sip:200@pbx", "9"),
        ("US.12345", "1"),
        ("DE.12345", "9"),
    ] {
        assert_eq!(rates.price(&outbound(to, 60.0)).meta_cost, usd(price), "{to}");
    }
    let none = Rates::new(vec![rate("+1", "1", "1")], Decimal::ZERO);
    assert_eq!(none.price(&outbound("+4930123", 60.0)).total_cost, usd("0"));
    assert_eq!(none.price(&outbound("ZZ.1", 60.0)).total_cost, usd("0"));
}

#[test]
fn a_call_into_the_next_tier_is_priced_there_as_a_whole() {
    let rates = tiered();
    let price = |month: &str, seconds: f64| {
        let call = Priced { month_to_date_minutes: usd(month), ..outbound("+254711000000", seconds) };
        rates.price(&call).meta_cost
    };
    assert_eq!(price("0", 600.0), usd("0.103"));
    assert_eq!(price("49990", 600.0), usd("0.103"), "the last minutes of the first tier");
    assert_eq!(price("49990", 600.1), usd("0.08484"), "10.1 minutes at the lower rate");
    assert_eq!(price("49999.9", 600.0), usd("0.084"));
    assert_eq!(price("50000", 6.0), usd("0.00084"));
    assert_eq!(price("249999", 60.0), usd("0.0084"));
    assert_eq!(price("249999", 66.0), usd("0.0077"));
    assert_eq!(price("9999999", 60.0), usd("0.007"));
}

#[test]
fn money_is_exact_to_the_billionth() {
    let rates = Rates::new(vec![rate("+1", "0.0123456", "0.01")], usd("0.002"));
    let call = Priced { recorded: Duration::from_secs(1), ..outbound("+1", 7.0) };
    let bill = rates.price(&call);
    assert_eq!(bill.meta_cost.to_string(), "0.00246912");
    assert_eq!(bill.carrier_cost.to_string(), "0.001166667");
    assert_eq!(bill.recording_cost.to_string(), "0.000033333");
    assert_eq!(bill.billable_cost.to_string(), "0.0012");
    assert_eq!(bill.total_cost.to_string(), "0.00366912");
    // A thousand calls of a tenth of a cent are a dollar, and no less.
    let many: Decimal = (0..1_000).map(|_| usd("0.001")).sum();
    assert_eq!(many, usd("1"));
}

#[test]
fn an_estimate_is_the_price_of_such_a_call() {
    let rates = Rates::new(vec![rate("+49", "0.0500", "0.0100")], usd("0.002"));
    let estimate = rates.estimate("+4915112345678", 5, true, Decimal::ZERO);
    assert_eq!(estimate.country, Some("DE"));
    assert_eq!(estimate.per_minute, usd("0.062"));
    let such = Priced { recorded: Duration::from_secs(300), ..outbound("+4915112345678", 300.0) };
    assert_eq!(estimate.billing, rates.price(&such));
    assert_eq!(estimate.billing.meta_minutes, usd("5"));
    assert_eq!(estimate.billing.billable_cost, usd("0.06"));
    assert_eq!(estimate.billing.total_cost, usd("0.31"));

    let quiet = rates.estimate("DE.1", 1, false, Decimal::ZERO);
    assert_eq!((quiet.country, quiet.per_minute), (Some("DE"), usd("0.06")));
    let nothing = rates.estimate("", 0, true, Decimal::ZERO);
    assert_eq!((nothing.country, nothing.per_minute, nothing.billing.total_cost), (None, usd("0"), usd("0")));
    let tier = tiered().estimate("+254711000000", 10, false, usd("50000"));
    assert_eq!(tier.per_minute, usd("0.0084"));
}

proptest! {
    #[test]
    fn no_call_and_no_rate_breaks_the_arithmetic(
        nanos in any::<u64>(),
        recorded in any::<u64>(),
        month in any::<i64>(),
        price in any::<i64>(),
        scale in 0u32..28,
        to in "\\PC{0,20}",
        prefix in "\\PC{0,4}",
    ) {
        let price = Decimal::new(price, scale);
        let rate = Rate { prefix, meta_per_minute: price, carrier_per_minute: price, tiers: vec![(5, price)] };
        let rates = Rates::new(vec![rate], price);
        let call = Priced {
            direction: Direction::Outbound,
            answered: true,
            billed: Duration::from_nanos(nanos).saturating_mul(1_000_000),
            to: &to,
            recorded: Duration::from_secs(recorded),
            month_to_date_minutes: Decimal::new(month, 1),
        };
        let bill = rates.price(&call);
        prop_assert!(bill.meta_cost >= Decimal::ZERO && bill.carrier_cost >= Decimal::ZERO);
        for money in [bill.meta_cost, bill.carrier_cost, bill.recording_cost] {
            prop_assert_eq!(cost::dollars(cost::nano(money)), money, "a row keeps it as it is");
        }
        rates.estimate(&to, 120, true, Decimal::MAX);
    }
}
