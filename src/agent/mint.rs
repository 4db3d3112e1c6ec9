//! One request before the call that brings an id: for services that are called by SIP at `sip:{minted}@…`.

use std::fmt;

use serde_json::Value;

use super::{HttpRequest, Key};

/// The longest id that is taken, in bytes.
const LONGEST: usize = 256;

/// The request, and where its answer has the id.
#[derive(Clone, PartialEq, Eq)]
pub struct Mint {
    /// Where the request (POST) goes: `https://…` or `http://…`.
    pub url: String,
    /// Its body, JSON, filled in for this call.
    pub body: String,
    /// Bearer token of the request.
    pub key: Key,
    /// A JSON pointer (RFC 6901) to a string in the answer.
    pub field: String,
}

/// Neither the address nor the body: both may hold keys.
impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").field("field", &self.field).finish_non_exhaustive()
    }
}

impl Mint {
    /// What is to be sent.
    pub fn request(&self) -> HttpRequest {
        HttpRequest {
            method: "POST",
            url: self.url.clone(),
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("authorization".to_owned(), format!("Bearer {}", self.key.expose())),
            ],
            body: self.body.clone(),
        }
    }

    /// The id in the answer.
    ///
    /// # Errors
    /// What was wrong with the answer, in words that name neither a key nor the answer's own contents beyond its
    /// message.
    pub fn minted(&self, status: u16, body: &[u8]) -> Result<String, String> {
        let answer = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
        if !(200..300).contains(&status) {
            let why = ["message", "detail", "error_message", "error"]
                .iter()
                .find_map(|name| answer.get(*name).and_then(Value::as_str));
            let why: String = why.unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(format!("the minting was refused: HTTP {status} {why}").trim_end().to_owned());
        }
        match answer.pointer(&self.field).and_then(Value::as_str) {
            Some(id) if !id.is_empty() && id.len() <= LONGEST && id.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(id.to_owned())
            }
            Some(_) => Err(format!("the minting brought something at {} that can't be an id", self.field)),
            None => Err(format!("the minting's answer (HTTP {status}) has no text at {}", self.field)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mint() -> Mint {
        Mint {
            url: "https://api.example.com/v2/register-phone-call".into(),
            body: r#"{"agent_id":"a","from":"+15550100200"}"#.into(),
            key: Key::new("s3cret"),
            field: "/call/id".into(),
        }
    }

    #[test]
    fn the_request_has_the_key_and_nothing_prints_it() {
        let request = mint().request();
        assert_eq!(request.method, "POST");
        assert!(request.headers.contains(&("authorization".into(), "Bearer s3cret".into())));
        assert!(!format!("{:?} {request:?}", mint()).contains("s3cret"));
    }

    #[test]
    fn the_id_is_taken_from_where_the_pointer_says() {
        let body = br#"{"call":{"id":"119c3f8e47135a29e65947eeb34cf12d"}}"#;
        assert_eq!(mint().minted(201, body).as_deref(), Ok("119c3f8e47135a29e65947eeb34cf12d"));
    }

    #[test]
    fn an_answer_without_an_id_says_what_is_wrong_with_it() {
        for (status, body, word) in [
            (401, &b"{\"message\":\"Invalid API key\"}"[..], "HTTP 401 Invalid API key"),
            (500, b"<html>", "HTTP 500"),
            (200, b"<html>", "no text at /call/id"),
            (200, b"{\"call\":{\"id\":7}}", "no text at /call/id"),
            (200, b"{\"call\":{\"id\":\"\"}}", "can't be an id"),
            (200, b"{\"call\":{\"id\":\"a b\"}}", "can't be an id"),
        ] {
            let fault = mint().minted(status, body).unwrap_err();
            assert!(fault.contains(word), "{fault}");
        }
    }
}
