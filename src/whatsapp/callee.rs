//! Who is to be called: a phone number or a business-scoped id.

use std::fmt;

/// Fewest and most digits of a phone number in international form (ITU-T E.164 allows 15).
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
/// Most letters and digits after a BSUID's country.
const MAX_ID: usize = 128;

/// A WhatsApp user as Graph wants to be told.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Callee {
    /// Phone number in international form, digits only.
    Phone(String),
    /// Business-scoped user id, such as `BR.1502576394655843`.
    Bsuid(String),
}

/// Why a text names no WhatsApp user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalleeFault {
    /// Nothing there.
    Empty,
    /// It begins with a zero: a national number, or a dialling prefix.
    NotInternational,
    /// Fewer than 7 or more than 15 digits.
    Length {
        /// How many there are.
        digits: usize,
    },
    /// Neither digits nor the shape of a BSUID.
    Neither,
}

impl fmt::Display for CalleeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalleeFault::Empty => f.write_str("no number was given"),
            CalleeFault::NotInternational => f.write_str(
                "the number begins with 0: WhatsApp needs the country code first, such as +4915112345678",
            ),
            CalleeFault::Length { digits } => {
                write!(f, "the number has {digits} digits, an international number has 7 to 15")
            }
            CalleeFault::Neither => {
                f.write_str("neither an international phone number nor a BSUID such as BR.1502576394655843")
            }
        }
    }
}

impl std::error::Error for CalleeFault {}

impl Callee {
    /// Reads `+49 151 12345678`, `4915112345678` or `BR.1502576394655843`.
    ///
    /// Spaces, hyphens and brackets may stand in a number, as people write them.
    ///
    /// # Errors
    /// [`CalleeFault`], to be told to whoever dialled.
    pub fn parse(text: &str) -> Result<Callee, CalleeFault> {
        let text = text.trim();
        if text.is_empty() {
            return Err(CalleeFault::Empty);
        }
        if let Some(id) = bsuid(text) {
            return Ok(Callee::Bsuid(id));
        }
        let number = text.strip_prefix('+').unwrap_or(text);
        let written = |letter: char| letter.is_ascii_digit() || " -().".contains(letter);
        if !number.chars().all(written) || !number.starts_with(|letter: char| letter != '.') {
            return Err(CalleeFault::Neither);
        }
        let digits: String = number.chars().filter(char::is_ascii_digit).take(64).collect();
        if digits.is_empty() {
            Err(CalleeFault::Neither)
        } else if digits.starts_with('0') {
            Err(CalleeFault::NotInternational)
        } else if DIGITS.contains(&digits.len()) {
            Ok(Callee::Phone(digits))
        } else {
            Err(CalleeFault::Length { digits: digits.len() })
        }
    }
}

/// As records and the PBX show it: `+` and the digits, or the BSUID.
impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Callee::Phone(digits) => write!(f, "+{digits}"),
            Callee::Bsuid(id) => f.write_str(id),
        }
    }
}

/// Says which kind it is, never who: a log line may hold a `{:?}`.
impl fmt::Debug for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Callee::Phone(_) => "Phone(…)",
            Callee::Bsuid(_) => "Bsuid(…)",
        })
    }
}

/// Two letters of a country, a dot, letters and digits; `ENT.` may stand between (the portfolio's form).
fn bsuid(text: &str) -> Option<String> {
    let (country, id) = text.split_once('.')?;
    let two_letters = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_alphabetic());
    let plain = id.strip_prefix("ENT.").unwrap_or(id);
    let whole = (1..=MAX_ID).contains(&plain.len()) && plain.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if two_letters && whole { Some(format!("{}.{id}", country.to_ascii_uppercase())) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_in_every_usual_spelling() {
        let wanted = Ok(Callee::Phone(String::from("4915112345678")));
        for text in [
            "+4915112345678",
            "4915112345678",
            " +49 151 1234 5678 ",
            "+49 (151) 123-456-78",
            "+49.151.12345678",
        ] {
            assert_eq!(Callee::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_bsuid_is_told_from_a_number() {
        for (text, wanted) in [
            ("US.13491208655302741918", "US.13491208655302741918"),
            ("br.1502576394655843", "BR.1502576394655843"),
            ("US.ENT.11815799212886844830", "US.ENT.11815799212886844830"),
        ] {
            let callee = Callee::parse(text).unwrap();
            assert_eq!(callee, Callee::Bsuid(wanted.to_owned()));
            assert_eq!(callee.to_string(), wanted);
        }
    }

    #[test]
    fn what_can_not_be_called_is_refused_with_the_reason() {
        assert_eq!(Callee::parse("  "), Err(CalleeFault::Empty));
        assert_eq!(Callee::parse("0151 12345678"), Err(CalleeFault::NotInternational));
        assert_eq!(Callee::parse("004915112345678"), Err(CalleeFault::NotInternational));
        assert_eq!(Callee::parse("+49151"), Err(CalleeFault::Length { digits: 5 }));
        assert_eq!(Callee::parse("4915112345678901"), Err(CalleeFault::Length { digits: 16 }));
        for text in [
            "alice",
            "+",
            "()",
            "491511234567x",
            "++4915112345678",
            "U.1",
            "USA.1",
            "US.",
            "US.1/..",
            "US.\u{e9}",
        ] {
            assert_eq!(Callee::parse(text), Err(CalleeFault::Neither), "{text}");
        }
        let endless = format!("US.{}", "1".repeat(129));
        assert_eq!(Callee::parse(&endless), Err(CalleeFault::Neither));
        assert!(CalleeFault::NotInternational.to_string().contains("country code"));
    }

    #[test]
    fn a_log_line_does_not_say_who_is_called() {
        for text in ["+4915112345678", "US.13491208655302741918"] {
            let line = format!("{:?}", Callee::parse(text).unwrap());
            assert!(!line.chars().any(|letter| letter.is_ascii_digit()), "{line}");
        }
        assert_eq!(Callee::parse("4915112345678").unwrap().to_string(), "+4915112345678");
    }
}
