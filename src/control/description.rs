//! The API's description of itself (OpenAPI 3.1), as it is served.

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

/// The description. Which operations there are is in [`super::operations`]; a test compares both.
pub const TEXT: &str = include_str!("openapi.json");

/// `GET /openapi.json`
pub fn serve() -> Response<Body> {
    let mut response = Response::new(Body::from(TEXT));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
