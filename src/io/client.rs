//! The client of a running gateway's API: one request, one answer, while the caller waits.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, USER_AGENT};
use hyper::{Method, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Http, Error as HttpError};
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take: a call that is placed waits for Meta.
const PATIENCE: Duration = Duration::from_secs(60);

/// As much of an answer as is read: a page of two hundred calls is below 1 MiB.
const ANSWER: usize = 16 * 1024 * 1024;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as it came.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// Nobody listens there: nothing was asked.
    Absent(String),
    /// It was asked, perhaps; the answer was lost, late or no HTTP.
    Lost(String),
}

/// Asks one API with one key.
pub struct Client {
    runtime: Runtime,
    http: Http<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: HeaderValue,
}

impl Client {
    /// A client for the API at `base` (`http://` or `https://`, without `/v1`).
    ///
    /// # Errors
    /// When base or key can't be used, in words.
    pub fn new(base: &str, key: &str) -> Result<Client, String> {
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base).to_owned();
        let uri: Uri = base.parse().map_err(|_| format!("\"{base}\" is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(format!("\"{base}\" is not a URL that begins with http:// or https://"));
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| "the key has characters that no header can carry".to_owned())?;
        authorization.set_sensitive(true);
        super::install_tls();
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.enforce_http(false);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime can't be built: {error}"))?;
        Ok(Client {
            runtime,
            http: Http::builder(TokioExecutor::new()).build(connector),
            base,
            authorization,
        })
    }

    /// Where it asks.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET` of a path with its query.
    ///
    /// # Errors
    /// When no answer came.
    pub fn get(&self, path: &str) -> Result<Answer, Silence> {
        self.exchange(Method::GET, path, None)
    }

    /// `POST` of a JSON text.
    ///
    /// # Errors
    /// When no answer came.
    pub fn post(&self, path: &str, json: &str) -> Result<Answer, Silence> {
        self.exchange(Method::POST, path, Some(json))
    }

    /// `PUT` of a JSON text.
    ///
    /// # Errors
    /// When no answer came.
    pub fn put(&self, path: &str, json: &str) -> Result<Answer, Silence> {
        self.exchange(Method::PUT, path, Some(json))
    }

    /// `PATCH` with a JSON text.
    ///
    /// # Errors
    /// When no answer came.
    pub fn patch(&self, path: &str, json: &str) -> Result<Answer, Silence> {
        self.exchange(Method::PATCH, path, Some(json))
    }

    /// `DELETE` of a path.
    ///
    /// # Errors
    /// When no answer came.
    pub fn delete(&self, path: &str) -> Result<Answer, Silence> {
        self.exchange(Method::DELETE, path, None)
    }

    /// `GET` of something that is larger than an answer: what comes with a status of 2xx goes to `take` piece by piece
    /// until it is over or `take` says false, and the answer holds nothing of it. `tag` gets the `ETag`.
    ///
    /// # Errors
    /// When no answer came, or not all of it; a minute without a byte is the end of patience.
    pub fn pour(
        &self,
        path: &str,
        tag: &mut Option<String>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Answer, Silence> {
        let late = |_| Silence::Lost(format!("nothing came for {} s", PATIENCE.as_secs()));
        let broken = |error: hyper::Error| Silence::Lost(format!("the answer broke off: {}", root(&error)));
        self.runtime.block_on(async {
            let sent = tokio::time::timeout(PATIENCE, self.send(Method::GET, path, None));
            let response = sent.await.map_err(late)??;
            if !response.status().is_success() {
                return tokio::time::timeout(PATIENCE, whole(response)).await.map_err(late)?;
            }
            *tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            let status = response.status().as_u16();
            let mut body = response.into_body();
            while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame()).await.map_err(late)? {
                let frame = frame.map_err(broken)?;
                if frame.data_ref().is_some_and(|piece| !take(piece)) {
                    break;
                }
            }
            Ok(Answer { status, bytes: Vec::new() })
        })
    }

    fn exchange(&self, method: Method, path: &str, json: Option<&str>) -> Result<Answer, Silence> {
        let asked = async {
            match tokio::time::timeout(PATIENCE, self.ask(method, path, json)).await {
                Ok(answer) => answer,
                Err(_) => Err(Silence::Lost(format!("no answer within {} s", PATIENCE.as_secs()))),
            }
        };
        self.runtime.block_on(asked)
    }

    async fn ask(&self, method: Method, path: &str, json: Option<&str>) -> Result<Answer, Silence> {
        whole(self.send(method, path, json).await?).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        json: Option<&str>,
    ) -> Result<Response<Incoming>, Silence> {
        let lost = |error: &dyn std::error::Error| Silence::Lost(root(error));
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, &self.authorization)
            .header(USER_AGENT, concat!("watrunk/", env!("CARGO_PKG_VERSION")));
        if json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(json.unwrap_or_default().to_owned()));
        let request = request.body(body).map_err(|error| lost(&error))?;
        self.http.request(request).await.map_err(|error| silence(&error))
    }
}

/// An answer with all of its body, which is not read beyond its limit.
async fn whole(response: Response<Incoming>) -> Result<Answer, Silence> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER).collect().await;
    let body = body.map_err(|error| Silence::Lost(format!("the answer broke off: {error}")))?;
    Ok(Answer { status, bytes: body.to_bytes().to_vec() })
}

fn silence(error: &HttpError) -> Silence {
    if error.is_connect() { Silence::Absent(root(error)) } else { Silence::Lost(root(error)) }
}

/// The innermost cause says what a person can act on: "connection refused", "no such host".
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Text as it may stand in a query or a path: all but unreserved characters is escaped (RFC 3986 §2.3).
pub fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_stands_in_a_query_is_escaped() {
        assert_eq!(escaped("+49 30&é"), "%2B49%2030%26%C3%A9");
        assert_eq!(escaped("call_1-a.b~"), "call_1-a.b~");
    }

    #[test]
    fn a_base_may_have_a_path_and_must_be_a_url() {
        for (given, base) in [
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://calls.example.com/api/v1", "https://calls.example.com/api"),
        ] {
            assert_eq!(Client::new(given, "k").unwrap().base(), base);
        }
        for wrong in ["", "calls.example.com", "ftp://a", "http://", "http://a b"] {
            assert!(Client::new(wrong, "k").is_err(), "{wrong:?} was taken");
        }
        assert!(Client::new("http://a", "k\n").is_err());
    }

    #[test]
    fn nobody_there_is_told_from_a_lost_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = Client::new(&format!("http://{address}"), "k").unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 4_096];
            let length = socket.read(&mut request).unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        assert!(matches!(client.get("/v1/status?a=b"), Err(Silence::Lost(_))));
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /v1/status?a=b HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer k\r\n"), "{request}");
        assert!(matches!(client.get("/v1/status"), Err(Silence::Absent(_))));
    }
}
