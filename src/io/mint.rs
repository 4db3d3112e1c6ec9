//! One request over HTTPS that comes before an agent's call: the service makes the call and says where it is.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::wss::{Unconnected, reach, trust};
use crate::agent::HttpRequest;

/// As much of an answer as is read.
const ANSWER: usize = 64 * 1024;

/// Sends a request on a connection of its own and hands back the answer's status and body. Redirects are not followed.
///
/// # Errors
/// What is wrong, and where, in words without the URL's path and query and without a header.
pub async fn exchange(
    request: &HttpRequest,
    allow_private: bool,
    ca: Option<&Path>,
    patience: Duration,
) -> Result<(u16, Vec<u8>), Unconnected> {
    let until = Instant::now() + patience;
    match timeout(patience, converse(request, allow_private, ca, until)).await {
        Ok(answer) => answer,
        Err(_) => {
            let why = format!("the service has not answered within {} ms", patience.as_millis());
            Err(Unconnected { why, again: true })
        }
    }
}

async fn converse(
    request: &HttpRequest,
    allow_private: bool,
    ca: Option<&Path>,
    until: Instant,
) -> Result<(u16, Vec<u8>), Unconnected> {
    let uri: Uri = request.url.parse().map_err(|_| "the service's address is not a URL".to_owned())?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if allow_private => false,
        Some(_) | None => return Err("the service's address must begin with https://".to_owned().into()),
    };
    let asked = asked(request, &uri)?;
    let (name, wire) = reach(&uri, secure, allow_private, trust(ca).await?, until).await?;
    let broken = |error: &dyn std::error::Error| Unconnected {
        why: format!("{name}: {}", super::graph::root(error)),
        again: true,
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(wire)).await.map_err(|error| broken(&error))?;
    // It ends with the answer, or when this is given up.
    let connection = tokio::spawn(connection);
    let answered = async {
        let response = sender.send_request(asked).await.map_err(|error| broken(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        let body = body.map_err(|error| broken(&*error))?;
        Ok((status, body.to_bytes().to_vec()))
    };
    let answer = answered.await;
    connection.abort();
    answer
}

fn asked(request: &HttpRequest, uri: &Uri) -> Result<Request<Full<Bytes>>, String> {
    let method = match request.method {
        "GET" => Method::GET,
        _ => Method::POST,
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let mut asked = Request::builder()
        .method(method)
        .uri(if path.is_empty() { "/" } else { path })
        .header(HOST, host)
        .header("accept", "application/json")
        .header("user-agent", concat!("watrunk/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_LENGTH, request.body.len());
    for (name, value) in &request.headers {
        let header: HeaderName =
            name.parse().map_err(|_| format!("{name:?} can't be the name of a header"))?;
        let mut value: HeaderValue =
            value.parse().map_err(|_| format!("the header {header} has a value that none can have"))?;
        value.set_sensitive(true);
        asked = asked.header(header, value);
    }
    asked
        .body(Full::new(Bytes::from(request.body.clone())))
        .map_err(|error| format!("the service can't be asked: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn request(port: u16) -> HttpRequest {
        HttpRequest {
            method: "POST",
            url: format!("http://127.0.0.1:{port}/call?secret=1"),
            headers: vec![("authorization".into(), "Bearer s3cret".into())],
            body: r#"{"assistantId":"a"}"#.into(),
        }
    }

    /// Answers one request with this; says what was asked.
    async fn serve(listener: TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"}") {
            asked.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    }

    #[tokio::test]
    async fn the_service_is_asked_once_and_its_answer_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = "HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n{\"ok\":\"yes\"}";
        let request = request(port);
        let (said, asked) = tokio::join!(exchange(&request, true, None, PATIENCE), serve(listener, answer));
        assert_eq!(said, Ok((201, b"{\"ok\":\"yes\"}".to_vec())));
        assert!(asked.starts_with("POST /call?secret=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer s3cret\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\n{\"assistantId\":\"a\"}"), "{asked}");
    }

    #[tokio::test]
    async fn a_service_that_can_not_be_had_is_told_without_its_secrets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let private = exchange(&request(port), false, None, PATIENCE).await.unwrap_err();
        assert!(!private.again && private.why.contains("https://"), "{private:?}");
        drop(listener);
        let nobody = exchange(&request(port), true, None, PATIENCE).await.unwrap_err();
        assert!(nobody.again, "{nobody:?}");
        for fault in [private, nobody] {
            assert!(!fault.why.contains("secret"), "{}", fault.why);
        }
    }
}
