//! What minutes cost: `[[rates]]`. Amounts are exact decimals.

use rust_decimal::Decimal;

use super::fault::Fault;
use super::known;
use super::reader::{Reader, Section};
use super::sections::{RateConfig, RateTier};

/// Places behind the point that an amount may have.
const PLACES: usize = 8;

/// Digits before the point that an amount may have: sums of such amounts stay exact.
const WHOLE: usize = 6;

/// Volume tiers that a rate may have.
const TIERS: usize = 50;

/// Rates that a file may have.
const RATES: usize = 5_000;

/// Reads an amount. The error completes the sentence "the key …".
pub(super) fn amount(text: &str) -> Result<Decimal, String> {
    let shape = || format!("must be an amount like 0.0125, is \"{text}\"");
    if text.starts_with('-') {
        return Err(format!("must not be negative, is {text}"));
    }
    let digits = text.strip_prefix('+').unwrap_or(text);
    let exponent = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b".+-_eE".contains(&b))
        && digits.contains(['e', 'E']);
    if exponent {
        return Err(format!("must be written without an exponent, is {text}"));
    }
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(whole) || !fraction.is_none_or(are_digits) {
        return Err(shape());
    }
    if fraction.is_some_and(|fraction| fraction.len() > PLACES) {
        return Err(format!("must have at most {PLACES} digits behind the point, is {text}"));
    }
    if whole.trim_start_matches('0').len() > WHOLE {
        return Err(format!("must be below 1000000, is {text}"));
    }
    Decimal::from_str_exact(digits).map_err(|_| shape())
}

/// Reads `[[rates]]`.
pub(super) fn rate(r: &mut Reader<'_>, s: &Section<'_>) -> RateConfig {
    r.need(s, "prefix");
    let mut tiers: Vec<RateTier> = Vec::new();
    let sections = r.sections(s, "tiers", known::TIER);
    if sections.len() > TIERS {
        let at = r.at(s, "tiers");
        r.fault(Fault::at(&at, format!("must have at most {TIERS} tiers, has {}", sections.len())));
    }
    for tier in &sections {
        for key in ["from_minutes", "meta_per_minute_usd"] {
            r.need(tier, key);
        }
        let meta_per_minute_usd = r.amount(tier, "meta_per_minute_usd").unwrap_or_default();
        let Some(from_minutes) = r.whole(tier, "from_minutes", 1..=10_000_000_000_u64, "minutes in a month")
        else {
            continue;
        };
        if let Some(before) = tiers.last().filter(|before| before.from_minutes >= from_minutes) {
            let at = r.at(tier, "from_minutes");
            let what =
                format!("must be above that of the tier before ({}), is {from_minutes}", before.from_minutes);
            r.fault(Fault::at(&at, what));
        }
        tiers.push(RateTier { from_minutes, meta_per_minute_usd });
    }
    RateConfig {
        prefix: r.parsed(s, "prefix", prefix).unwrap_or_default(),
        meta_per_minute_usd: r.amount(s, "meta_per_minute_usd").unwrap_or_default(),
        carrier_per_minute_usd: r.amount(s, "carrier_per_minute_usd").unwrap_or_default(),
        tiers,
    }
}

/// No two rates for one prefix, and not too many.
pub(super) fn check(r: &mut Reader<'_>, sections: &[Section<'_>]) {
    if let Some(first) = sections.get(RATES) {
        let at = first.place().clone();
        r.fault(Fault::at(&at, format!("is one too many: at most {RATES} [[rates]]")));
    }
}

/// `+` and the first 1 to 15 digits of numbers.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix('+').unwrap_or("");
    let fits = (1..=15).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit());
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("must be the beginning of numbers like \"+49\", is \"{text}\""))
}
