//! The API's description of itself (OpenAPI 3.1), as it is served.

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

/// As it is written for people.
const WRITTEN: &[u8] = include_bytes!("openapi.json");

/// The description, without the spaces between its words: a fifth of it that the binary need not carry. Which
/// operations there are is in [`super::operations`]; a test compares both.
pub static TEXT: &str = match std::str::from_utf8(&SQUEEZED) {
    Ok(text) => text,
    Err(_) => "{}",
};

static SQUEEZED: [u8; squeeze::<0>(WRITTEN).1] = squeeze(WRITTEN).0;

/// The first `N` bytes that count, and how many there are: all but spaces and line ends outside of strings.
#[allow(long_running_const_eval)] // Once for each byte of the file, when the program is compiled.
const fn squeeze<const N: usize>(json: &[u8]) -> ([u8; N], usize) {
    let (mut kept, mut count, mut at) = ([0; N], 0, 0);
    let (mut quoted, mut escaped) = (false, false);
    while at < json.len() {
        let byte = json[at];
        if quoted || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            if count < N {
                kept[count] = byte;
            }
            count += 1;
        }
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && byte == b'\\' && !escaped;
        at += 1;
    }
    (kept, count)
}

/// `GET /openapi.json`
pub fn serve() -> Response<Body> {
    let mut response = Response::new(Body::from(TEXT));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_that_is_served_says_what_was_written_and_no_more() {
        let written: serde_json::Value = serde_json::from_slice(WRITTEN).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(TEXT).unwrap(), written);
        assert!(TEXT.len() < WRITTEN.len() * 9 / 10, "{} of {}", TEXT.len(), WRITTEN.len());
        let (kept, count) = squeeze::<40>(br#"{ "a \" b\\" : [ 1 ,  "c d" ] }"#);
        assert_eq!(&kept[..count], br#"{"a \" b\\":[1,"c d"]}"#);
    }
}
