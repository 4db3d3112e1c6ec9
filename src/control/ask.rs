//! What a request brings, read field by field: each wrong one is named.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::fault::{Fault, Kind};
use super::stamp;
use crate::clock::Wall;

/// The query string.
#[derive(Debug, Clone, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    /// The value with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The same, which must be there.
    ///
    /// # Errors
    /// 400 `missing_required_field`.
    pub fn required(&self, name: &str) -> Result<&str, Fault> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| Fault::missing(name))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 if it is none, or not in the range.
    pub fn integer(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Fault> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<u32>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(Fault::invalid(
                name,
                format!("must be a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// 400 if it is neither.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Fault::invalid(name, "must be true or false")),
        }
    }

    /// A date-time.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn moment(&self, name: &str) -> Result<Option<Wall>, Fault> {
        let Some(text) = self.get(name) else { return Ok(None) };
        // A `+` of the offset that was not escaped has become a blank.
        match stamp::read(&text.replace(' ', "+")) {
            Some(wall) => Ok(Some(wall)),
            None => Err(Fault::invalid(name, "must be a date-time like 2026-11-22T10:00:00Z")),
        }
    }

    /// One of a list of words.
    ///
    /// # Errors
    /// 400 if it is none of them.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Fault> {
        let Some(text) = self.get(name) else { return Ok(None) };
        word(name, text, words).map(Some)
    }
}

fn word<T: Copy>(name: &str, text: &str, words: &[(&str, T)]) -> Result<T, Fault> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Fault::invalid(name, format!("must be one of: {}", list.join(", ")))
    })
}

/// A field that may be left out, cleared or set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given<T> {
    /// Not there: keep what is.
    Absent,
    /// `null`: clear it.
    Null,
    /// A value.
    Value(T),
}

impl<T> Given<T> {
    /// The value, if there is one. For fields that may be `null`.
    pub fn value(self) -> Option<T> {
        match self {
            Given::Value(value) => Some(value),
            Given::Absent | Given::Null => None,
        }
    }

    /// The value, if the field is there; for fields that may not be `null`. `what` is what the field must be, in words
    /// that go on after its name.
    ///
    /// # Errors
    /// 400 for a `null`.
    pub fn never_null(self, name: &str, what: &str) -> Result<Option<T>, Fault> {
        match self {
            Given::Absent => Ok(None),
            Given::Null => Err(Fault::invalid(name, what)),
            Given::Value(value) => Ok(Some(value)),
        }
    }
}

/// A JSON object. Fields that nobody asks for are ignored.
#[derive(Debug, Clone, Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body; an empty one is an empty object.
    ///
    /// # Errors
    /// 400 with the position of what is wrong.
    pub fn read(body: &[u8]) -> Result<Fields, Fault> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Fields::default());
        }
        let bad =
            |what: String| Fault::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "invalid_json", what);
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(bad("the body must be a JSON object".to_owned())),
            Err(error) => {
                let at = json!({ "line": error.line(), "column": error.column() });
                Err(bad(format!("the body is not JSON: {error}")).with(at))
            }
        }
    }

    fn given(&self, name: &str) -> Given<&Value> {
        match self.0.get(name) {
            None => Given::Absent,
            Some(Value::Null) => Given::Null,
            Some(value) => Given::Value(value),
        }
    }

    /// Whether the field is there, `null` or not.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn each<T>(&self, name: &str, read: impl FnOnce(&Value) -> Result<T, Fault>) -> Result<Given<T>, Fault> {
        match self.given(name) {
            Given::Absent => Ok(Given::Absent),
            Given::Null => Ok(Given::Null),
            Given::Value(value) => read(value).map(Given::Value),
        }
    }

    /// A text of at most `most` characters.
    ///
    /// # Errors
    /// 400 if it is none, or longer.
    pub fn text(&self, name: &str, most: usize) -> Result<Given<String>, Fault> {
        self.each(name, |value| text(name, value, most))
    }

    /// The same, which must be there and not be empty.
    ///
    /// # Errors
    /// 400.
    pub fn required(&self, name: &str, most: usize) -> Result<String, Fault> {
        match self.text(name, most)?.value() {
            Some(text) if !text.trim().is_empty() => Ok(text),
            Some(_) | None => Err(Fault::missing(name)),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// 400 if it is neither.
    pub fn boolean(&self, name: &str) -> Result<Given<bool>, Fault> {
        self.each(name, |value| value.as_bool().ok_or_else(|| Fault::invalid(name, "must be true or false")))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 if it is none, or not in the range.
    pub fn integer(&self, name: &str, range: RangeInclusive<u64>) -> Result<Given<u64>, Fault> {
        self.each(name, |value| match whole(value) {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(Fault::invalid(
                name,
                format!("must be a whole number from {} to {}", range.start(), range.end()),
            )),
        })
    }

    /// One of a list of words.
    ///
    /// # Errors
    /// 400 if it is none of them.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Given<T>, Fault> {
        self.each(name, |value| match value.as_str() {
            Some(text) => word(name, text, words),
            None => Err(Fault::invalid(name, "must be a string")),
        })
    }

    /// A list of texts, at most `most` of them; a wrong one is named by its place.
    ///
    /// # Errors
    /// 400.
    pub fn list(&self, name: &str, most: usize) -> Result<Given<Vec<String>>, Fault> {
        self.each(name, |value| {
            let items = value.as_array().ok_or_else(|| Fault::invalid(name, "must be a list of strings"))?;
            if items.len() > most {
                return Err(Fault::invalid(name, format!("must have at most {most} entries")));
            }
            items.iter().enumerate().map(|(at, item)| text(&format!("{name}[{at}]"), item, 256)).collect()
        })
    }

    /// An object of texts, at most `most` of them.
    ///
    /// # Errors
    /// 400.
    pub fn texts(&self, name: &str, most: usize) -> Result<Given<Vec<(String, String)>>, Fault> {
        self.each(name, |value| {
            let fields =
                value.as_object().ok_or_else(|| Fault::invalid(name, "must be an object of strings"))?;
            if fields.len() > most {
                return Err(Fault::invalid(name, format!("must have at most {most} entries")));
            }
            fields
                .iter()
                .map(|(key, item)| Ok((key.clone(), text(&format!("{name}.{key}"), item, 1_024)?)))
                .collect()
        })
    }
}

/// A whole number; JSON knows no other kind, so `60.0` is one.
fn whole(value: &Value) -> Option<u64> {
    let fraction = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=1e15).contains(number));
    value.as_u64().or_else(|| fraction().map(|number| number as u64))
}

fn text(name: &str, value: &Value, most: usize) -> Result<String, Fault> {
    match value.as_str() {
        None => Err(Fault::invalid(name, "must be a string")),
        Some(text) if text.chars().count() > most => {
            Err(Fault::invalid(name, format!("must have at most {most} characters")))
        }
        Some(text) => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn json_that_is_broken_is_answered_with_the_place() {
        let fault = Fields::read(b"{\"a\": 1,\n  oops}").unwrap_err();
        assert_eq!(fault.code, "invalid_json");
        assert_eq!(fault.details, Some(json!({"line": 2, "column": 3})));
        assert_eq!(Fields::read(b"[1]").unwrap_err().code, "invalid_json");
        assert!(Fields::read(b" \n").is_ok(), "no body is an empty one");
        assert!(Fields::read("[".repeat(10_000).as_bytes()).is_err(), "a deep one does no harm");
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        let body = fields(r#"{"a": 1, "b": "x", "c": ["US", 5], "d": {"k": 1}, "e": "long"}"#);
        let param = |fault: Fault| fault.param.clone().unwrap();
        assert_eq!(param(body.text("a", 10).unwrap_err()), "a");
        assert_eq!(param(body.boolean("b").unwrap_err()), "b");
        assert_eq!(param(body.list("c", 10).unwrap_err()), "c[1]");
        assert_eq!(param(body.texts("d", 10).unwrap_err()), "d.k");
        assert_eq!(param(body.text("e", 3).unwrap_err()), "e");
        assert_eq!(param(body.integer("a", 2..=3).unwrap_err()), "a");
        assert_eq!(body.required("zz", 9).unwrap_err().code, "missing_required_field");
    }

    #[test]
    fn absent_null_and_a_value_are_three_things() {
        let body = fields(r#"{"a": null, "b": "x"}"#);
        assert_eq!(body.text("a", 9).unwrap(), Given::Null);
        assert_eq!(body.text("b", 9).unwrap(), Given::Value("x".to_owned()));
        assert_eq!(body.text("c", 9).unwrap(), Given::Absent);
        let fault = body.text("a", 9).unwrap().never_null("a", "must be a string").unwrap_err();
        assert_eq!((fault.param.as_deref(), fault.error.as_str()), (Some("a"), "a must be a string"));
        assert_eq!(body.text("b", 9).unwrap().never_null("b", "").unwrap().as_deref(), Some("x"));
        assert_eq!(body.text("c", 9).unwrap().never_null("c", "").unwrap(), None);
    }

    #[test]
    fn an_offset_whose_plus_was_not_escaped_is_understood() {
        let query = Query(vec![("since".to_owned(), "2026-11-22T10:00:00 01:00".to_owned())]);
        assert_eq!(query.moment("since").unwrap(), stamp::read("2026-11-22T09:00:00Z"));
    }
}
