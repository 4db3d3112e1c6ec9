//! Moments and money as the API writes them: ISO 8601 in UTC, and JSON numbers from exact decimals.

use rust_decimal::Decimal;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use crate::clock::Wall;

/// `2026-11-22T10:00:00.000Z`. A clock that is beyond the calendar is shown as its beginning.
pub fn iso(wall: Wall) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let nanos = i128::from(wall.0).saturating_mul(1_000_000);
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(format)
        .unwrap_or_default()
}

/// The same as JSON; `null` if there is none.
pub fn maybe(wall: Option<Wall>) -> Value {
    wall.map_or(Value::Null, |wall| Value::String(iso(wall)))
}

/// Reads a date-time (RFC 3339), or a date: its first moment in UTC.
pub fn read(text: &str) -> Option<Wall> {
    let moment = match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(moment) => moment,
        Err(_) => {
            Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?.midnight().assume_utc()
        }
    };
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Wall)
}

/// An amount as a JSON number: the shortest one that reads as the same decimal.
pub fn money(amount: Decimal) -> Value {
    let text = amount.normalize().to_string();
    match text.parse::<i64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => Value::from(text.parse::<f64>().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr as _;

    #[test]
    fn a_moment_comes_back_to_the_millisecond() {
        let wall = Wall(1_764_000_000_123);
        assert_eq!(iso(wall), "2025-11-24T16:00:00.123Z");
        assert_eq!(read(&iso(wall)), Some(wall));
        assert_eq!(read("2025-11-24T17:00:00.123+01:00"), Some(wall));
        assert_eq!(read("2025-11-24"), Some(Wall(1_763_942_400_000)));
        for bad in ["", "yesterday", "2025-13-01", "1764000000"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn money_is_written_as_it_is_counted() {
        for (amount, json) in [
            ("0", "0"),
            ("0.0103", "0.0103"),
            ("1.10", "1.1"),
            ("12345.678901", "12345.678901"),
            ("2.00", "2"),
        ] {
            assert_eq!(money(Decimal::from_str(amount).unwrap()).to_string(), json);
        }
    }
}
