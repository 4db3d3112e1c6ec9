//! Bytes <-> message: the door of rsip, which reads what a normaliser has straightened first.
//!
//! rsip 0.4.0 refuses folded and compact headers, IPv6 and tel: URIs, latin-1, bare LF and methods it
//! does not know, all of which real PBXs send. So the bytes are cut into clean lines before, the start
//! line is read by our own hand, and values are read by [`header`](super::header).

use std::net::SocketAddr;

use super::header::{NameAddr, Uri, Via, cseq, is_token, split_outside_quotes};
use super::words::Transport;

/// Longer messages are not read: no SIP over UDP is that long, and what we keep of one stays small.
pub(crate) const LONGEST: usize = 16 * 1024;
/// More header lines than these are not read.
const MOST_HEADERS: usize = 200;

/// What a datagram was.
#[derive(Debug)]
pub(crate) enum Read {
    /// A keep-alive (RFC 5626 §3.5.1) or STUN (RFC 5389).
    NotSip,
    Request(Box<Request>),
    Response(Box<Response>),
    /// It cannot be used.
    Bad(Bad),
}

/// Why a message cannot be used, and what to answer, if it can be answered.
#[derive(Debug)]
pub(crate) struct Bad {
    pub why: &'static str,
    /// The status, and the headers to be copied into the answer.
    pub answer: Option<(u16, Headers)>,
}

/// Header lines in their order; names are compared without regard to case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// The first line of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All lines of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The elements of all lines of that name, split at their commas.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|line| split_outside_quotes(line, ',').unwrap_or_default())
            .map(str::trim)
            .filter(|element| !element.is_empty())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A request that came in, its indispensable headers read.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub method: String,
    pub uri: Uri,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub via: Via,
    pub from: NameAddr,
    pub to: NameAddr,
    pub call_id: String,
    pub cseq: u32,
}

impl Request {
    /// The branch, or for senders from before RFC 3261 something that serves (§17.2.3).
    pub fn branch(&self) -> String {
        match &self.via.branch {
            Some(branch) if branch.len() > "z9hG4bK".len() && branch.starts_with("z9hG4bK") => branch.clone(),
            Some(_) | None => {
                format!("{} {} {}", self.call_id, self.cseq, self.from.tag().unwrap_or_default())
            }
        }
    }

    /// Whether it belongs to a dialog or claims to.
    pub fn in_dialog(&self) -> bool {
        self.to.tag().is_some()
    }

    /// The media type of the body, in lower case and without parameters.
    pub fn content_type(&self) -> Option<String> {
        content_type(&self.headers)
    }

    /// The body, if it is a session description.
    pub fn sdp(&self) -> Option<Vec<u8>> {
        sdp(&self.headers, &self.body)
    }

    /// The answer as far as it follows from the request (§8.2.6). `tag` goes into To, if To has none.
    pub fn reply(&self, code: u16, tag: &str, from: SocketAddr) -> Draft {
        reply(&self.headers, code, tag, from)
    }
}

/// An answer that came in, its indispensable headers read.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub code: u16,
    pub reason: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub via: Via,
    pub to: NameAddr,
    pub call_id: String,
    pub cseq: u32,
    pub method: String,
}

impl Response {
    /// `486 Busy Here`
    pub fn text(&self) -> String {
        let words = if self.reason.is_empty() { reason(self.code) } else { self.reason.as_str() };
        format!("{} {}", self.code, words.chars().take(80).collect::<String>()).trim_end().to_owned()
    }

    /// The body, if it is a session description.
    pub fn sdp(&self) -> Option<Vec<u8>> {
        sdp(&self.headers, &self.body)
    }
}

fn sdp(headers: &Headers, body: &[u8]) -> Option<Vec<u8>> {
    let described = content_type(headers).is_some_and(|kind| kind == "application/sdp");
    (described && !body.is_empty()).then(|| body.to_vec())
}

fn content_type(headers: &Headers) -> Option<String> {
    let kind = headers.get("Content-Type")?.split(';').next()?.trim().to_ascii_lowercase();
    (!kind.is_empty()).then_some(kind)
}

/// A message that goes out.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub start: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Draft {
    pub fn request(method: &str, uri: &str) -> Draft {
        Draft { start: format!("{method} {uri} SIP/2.0"), headers: Headers::default(), body: Vec::new() }
    }

    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.headers.push(name, value);
    }

    pub fn body(&mut self, kind: &str, body: impl Into<Vec<u8>>) {
        self.headers.push("Content-Type", kind);
        self.body = body.into();
    }

    /// The same request by another transport: its own Via, the first, says so, with another branch.
    pub fn sent_by_another(&mut self, transport: Transport, branch: &str, other: &str) {
        let Some((_, via)) = self.headers.0.iter_mut().find(|(name, _)| name == "Via") else { return };
        if let Some((_, rest)) = via.split_once(' ') {
            *via = format!("SIP/2.0/{} {}", transport.in_via(), rest.replace(branch, other));
        }
    }

    /// The datagram. Line ends inside values become spaces here too: the last gate.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = String::with_capacity(512 + self.body.len());
        let mut line = |words: &[&str]| {
            for word in words {
                text.extend(word.chars().map(|c| if matches!(c, '\r' | '\n') { ' ' } else { c }));
            }
            text.push_str("\r\n");
        };
        line(&[&self.start]);
        for (name, value) in self.headers.iter() {
            line(&[name, ": ", value]);
        }
        line(&["Content-Length: ", &self.body.len().to_string()]);
        line(&[]);
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer with what §8.2.6 wants copied; also for messages of which only headers could be read.
pub(crate) fn reply(headers: &Headers, code: u16, tag: &str, from: SocketAddr) -> Draft {
    let mut draft = Draft {
        start: format!("SIP/2.0 {code} {}", reason(code)),
        headers: Headers::default(),
        body: vec![],
    };
    for (index, via) in headers.all("Via").enumerate() {
        draft.push("Via", if index == 0 { seen_from(via, from) } else { via.to_owned() });
    }
    draft.headers.0.extend(headers.get("From").map(|from| ("From".to_owned(), from.to_owned())));
    if let Some(to) = headers.get("To") {
        let tagged = NameAddr::read(to).is_some_and(|to| to.tag().is_some());
        let plain = tagged || code == 100 || tag.is_empty();
        draft.push("To", if plain { to.to_owned() } else { format!("{to};tag={tag}") });
    }
    for name in ["Call-ID", "CSeq"] {
        draft.headers.0.extend(headers.get(name).map(|value| (name.to_owned(), value.to_owned())));
    }
    draft
}

/// The top Via with `received` and `rport` filled in (RFC 3261 §18.2.1, RFC 3581 §4).
fn seen_from(via: &str, from: SocketAddr) -> String {
    let mut out = String::new();
    let mut asked = false;
    for (index, part) in split_outside_quotes(via, ';').unwrap_or_default().into_iter().enumerate() {
        let name = part.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "received" if index > 0 => continue,
            "rport" if index > 0 => asked = true,
            _ => {
                if index > 0 {
                    out.push(';');
                }
                out.push_str(part.trim());
            }
        }
    }
    let ip = from.ip().to_canonical();
    let same = Via::read(via).is_some_and(|via| via.host.parse() == Ok(ip));
    if asked || !same {
        out.push_str(&format!(";received={ip}"));
    }
    if asked {
        out.push_str(&format!(";rport={}", from.port()));
    }
    out
}

/// Reads a datagram. Never panics, whatever it is.
pub(crate) fn read(datagram: &[u8]) -> Read {
    let start = datagram.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(datagram.len());
    let bytes = datagram.get(start..).unwrap_or_default();
    // The two top bits of STUN are zero, and so are those of no method: letters begin at 0x41.
    if bytes.is_empty() || bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\0')) || bytes[0] < 4 {
        return Read::NotSip;
    }
    match straighten(bytes) {
        Ok(Straight { start: Start::Request { method, uri, version_ok }, headers, body }) => {
            request(method, &uri, version_ok, headers, body)
        }
        Ok(Straight { start: Start::Response { code, reason }, headers, body }) => {
            response(code, reason, headers, body)
        }
        Err(why) => Read::Bad(Bad { why, answer: None }),
    }
}

/// A message cut into clean pieces.
struct Straight<'a> {
    start: Start,
    headers: Result<Headers, (&'static str, Headers)>,
    body: &'a [u8],
}

enum Start {
    Request { method: String, uri: String, version_ok: bool },
    Response { code: u16, reason: String },
}

/// UTF-8 if it is, else latin-1.
fn decode(line: &[u8]) -> String {
    match std::str::from_utf8(line) {
        Ok(text) => text.to_owned(),
        Err(_) => line.iter().copied().map(char::from).collect(),
    }
}

fn straighten(bytes: &[u8]) -> Result<Straight<'_>, &'static str> {
    if bytes.len() > LONGEST {
        return Err("the message is too long");
    }
    let mut lines: Vec<String> = Vec::new();
    let mut rest = bytes;
    let mut ended = false;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() {
            ended = true;
            break;
        }
        let folded = line.starts_with(b" ") || line.starts_with(b"\t");
        if let Some(last) = lines.last_mut().filter(|_| folded) {
            last.push(' ');
            last.push_str(decode(line).trim());
        } else if lines.len() > MOST_HEADERS {
            return Err("too many header lines");
        } else {
            lines.push(decode(line));
        }
    }
    let Some((first, lines)) = lines.split_first() else { return Err("no start line") };
    let start = start_line(first)?;
    let mut headers = header_lines(lines);
    if !ended {
        headers = headers.and_then(|headers| Err(("the header section never ends", headers)));
    }
    Ok(Straight { start, headers, body: rest })
}

fn start_line(line: &str) -> Result<Start, &'static str> {
    if line.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("SIP/")) {
        let (version, rest) = line.split_once(' ').ok_or("a status line without a status")?;
        if !version.eq_ignore_ascii_case("SIP/2.0") {
            return Err("an answer of another SIP version");
        }
        let (code, reason) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
        let well_formed = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
        let code = code.parse().ok().filter(|code| well_formed && (100..700).contains(code));
        let code = code.ok_or("a status that is not between 100 and 699")?;
        return Ok(Start::Response { code, reason: reason.trim().to_owned() });
    }
    let (method, rest) = line.split_once(' ').ok_or("a start line of one word")?;
    if !is_token(method) {
        return Err("a method that is not a token");
    }
    let line_end = rest.trim_end();
    let (uri, version) = line_end.rsplit_once(' ').ok_or("a request line without a version")?;
    if !version.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("SIP/")) {
        return Err("not SIP");
    }
    // One space and no more (§7.1): a line that breaks this keeps its fault in the URI, for the 400.
    let uri = if line_end.len() == rest.len() { uri } else { "" };
    let version_ok = version.eq_ignore_ascii_case("SIP/2.0");
    Ok(Start::Request { method: method.to_owned(), uri: uri.to_owned(), version_ok })
}

/// The full name of a compact one (RFC 3261 §7.3.3 and the extensions' registry).
fn full_name(name: &str) -> &str {
    let [letter] = name.as_bytes() else { return name };
    match letter.to_ascii_lowercase() {
        b'a' => "Accept-Contact",
        b'b' => "Referred-By",
        b'c' => "Content-Type",
        b'd' => "Request-Disposition",
        b'e' => "Content-Encoding",
        b'f' => "From",
        b'i' => "Call-ID",
        b'j' => "Reject-Contact",
        b'k' => "Supported",
        b'l' => "Content-Length",
        b'm' => "Contact",
        b'o' => "Event",
        b'r' => "Refer-To",
        b's' => "Subject",
        b't' => "To",
        b'u' => "Allow-Events",
        b'v' => "Via",
        b'x' => "Session-Expires",
        b'y' => "Identity",
        _ => name,
    }
}

/// Names trimmed and written out, Via lists split. On a fault: what was good, for the answer.
fn header_lines(lines: &[String]) -> Result<Headers, (&'static str, Headers)> {
    let mut headers = Headers::default();
    let mut fault = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':').filter(|(name, _)| is_token(name.trim_end())) else {
            fault = Some("a header line without a name");
            continue;
        };
        let name = full_name(name.trim_end());
        if name.eq_ignore_ascii_case("Via") {
            for via in split_outside_quotes(value, ',').unwrap_or_default() {
                headers.push(name, via.trim());
            }
        } else {
            headers.push(name, value.trim());
        }
        if headers.0.len() > MOST_HEADERS {
            return Err(("too many headers", headers));
        }
    }
    match fault {
        None => Ok(headers),
        Some(why) => Err((why, headers)),
    }
}

/// The methods rsip knows (RFC 3261 and its extensions); they are compared with regard to case.
const KNOWN: [&str; 14] = [
    "ACK",
    "BYE",
    "CANCEL",
    "INFO",
    "INVITE",
    "MESSAGE",
    "NOTIFY",
    "OPTIONS",
    "PRACK",
    "PUBLISH",
    "REFER",
    "REGISTER",
    "SUBSCRIBE",
    "UPDATE",
];

/// Whether the method is one that SIP defines.
pub(crate) fn is_known(method: &str) -> bool {
    KNOWN.contains(&method)
}

/// The straightened text through rsip: its headers and its body.
fn through_rsip(start: &str, headers: &Headers, body: &[u8]) -> Option<(Headers, Vec<u8>)> {
    use rsip::message::HasHeaders;
    let mut text = format!("{start}\r\n").into_bytes();
    for (name, value) in headers.iter() {
        text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body);
    let message = rsip::SipMessage::try_from(text).ok()?;
    let mut read = Headers::default();
    for header in message.headers().iter() {
        let line = header.to_string();
        let (name, value) = line.split_once(':')?;
        read.push(name, value.trim());
    }
    Some((read, message.body().clone()))
}

/// Headers that may stand only once (§7.3.1), because their values are no lists.
const SINGLE: [&str; 8] =
    ["From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Length", "Content-Type", "Expires"];

/// The body as long as Content-Length says (§18.3: over UDP it may be left out).
fn framed<'a>(headers: &Headers, body: &'a [u8]) -> Result<&'a [u8], &'static str> {
    match headers.get("Content-Length") {
        None => Ok(body),
        Some(length) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| "Content-Length is too large")?;
            body.get(..length).ok_or("the body is shorter than Content-Length")
        }
        Some(_) => Err("Content-Length is not a number"),
    }
}

/// What every message must have (§8.1.1).
struct Essentials {
    via: Via,
    from: NameAddr,
    to: NameAddr,
    call_id: String,
    cseq: u32,
    method: String,
}

fn essentials(headers: &Headers) -> Result<Essentials, &'static str> {
    if let Some(twice) = SINGLE.iter().find(|name| headers.all(name).count() > 1) {
        tracing::debug!(header = twice, "a header that may stand only once stands more often");
        return Err("a header that may stand only once stands more often");
    }
    let via = headers.get("Via").and_then(Via::read).ok_or("Via is missing or malformed")?;
    let from = headers.get("From").and_then(NameAddr::read).ok_or("From is missing or malformed")?;
    let to = headers.get("To").and_then(NameAddr::read).ok_or("To is missing or malformed")?;
    let call_id = headers.get("Call-ID").filter(|id| !id.is_empty()).ok_or("Call-ID is missing")?.to_owned();
    let (number, method) = headers.get("CSeq").and_then(cseq).ok_or("CSeq is missing or malformed")?;
    Ok(Essentials { via, from, to, call_id, cseq: number, method: method.to_owned() })
}

fn request(
    method: String,
    uri: &str,
    version_ok: bool,
    headers: Result<Headers, (&'static str, Headers)>,
    body: &[u8],
) -> Read {
    // An ACK is never answered, and an answer needs at least a Via and a CSeq to find its way.
    let refuse = |code: u16, why: &'static str, headers: Headers| {
        let answerable = method != "ACK" && ["Via", "CSeq"].iter().all(|name| headers.get(name).is_some());
        Read::Bad(Bad { why, answer: answerable.then_some((code, headers)) })
    };
    let headers = match headers {
        Ok(headers) => headers,
        Err((why, headers)) => return refuse(400, why, headers),
    };
    if !version_ok {
        return refuse(505, "another SIP version", headers);
    }
    let Some(uri) = Uri::read(uri).filter(|uri| !uri.has_headers) else {
        return refuse(400, "a malformed request line", headers);
    };
    let body = match framed(&headers, body) {
        Ok(body) => body,
        Err(why) => return refuse(400, why, headers),
    };
    let read = match essentials(&headers) {
        Ok(read) => read,
        Err(why) => return refuse(400, why, headers),
    };
    if read.method != method {
        return refuse(400, "CSeq names another method", headers);
    }
    if headers.get("Max-Forwards").is_some_and(|hops| hops.parse::<u8>().is_err()) {
        return refuse(400, "Max-Forwards is not between 0 and 255", headers);
    }
    let spoken = if is_known(&method) { method.as_str() } else { "OPTIONS" };
    let Some((headers, body)) = through_rsip(&format!("{spoken} sip:uri.invalid SIP/2.0"), &headers, body)
    else {
        return refuse(400, "the message cannot be parsed", headers);
    };
    let Essentials { via, from, to, call_id, cseq, .. } = read;
    Read::Request(Box::new(Request { method, uri, headers, body, via, from, to, call_id, cseq }))
}

fn response(
    code: u16,
    reason: String,
    headers: Result<Headers, (&'static str, Headers)>,
    body: &[u8],
) -> Read {
    let read = headers.map_err(|(why, _)| why).and_then(|headers| {
        let body = framed(&headers, body)?;
        let read = essentials(&headers)?;
        let (headers, body) = through_rsip("SIP/2.0 200 OK", &headers, body).ok_or("cannot be parsed")?;
        let Essentials { via, to, call_id, cseq, method, from: _ } = read;
        Ok(Response { code, reason, headers, body, via, to, call_id, cseq, method })
    });
    match read {
        Ok(response) => Read::Response(Box::new(response)),
        Err(why) => Read::Bad(Bad { why, answer: None }),
    }
}

/// The words that go with a status (RFC 3261 §21 and its extensions).
pub(crate) fn reason(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        433 => "Anonymity Disallowed",
        469 => "Bad Info Package",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        484 => "Address Incomplete",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "OPTIONS sip:gw@192.0.2.7 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bKa\r\n\
        From: <sip:pbx@192.0.2.1>;tag=1\r\nTo: <sip:gw@192.0.2.7>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\
        Content-Length: 2\r\n\r\nhi";

    fn good(text: &[u8]) -> Request {
        match read(text) {
            Read::Request(request) => *request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_request_is_read() {
        let request = good(PLAIN.as_bytes());
        assert_eq!((request.method.as_str(), request.cseq, request.call_id.as_str()), ("OPTIONS", 1, "c"));
        assert_eq!(request.body, b"hi");
        assert_eq!(request.branch(), "z9hG4bKa");
    }

    #[test]
    fn bare_line_feeds_compact_names_and_latin_1_are_understood() {
        let mut bytes =
            PLAIN.replace("\r\n", "\n").replace("Via:", "v :").replace("From: ", "f: Zo\u{1} ").into_bytes();
        let at = bytes.iter().position(|byte| *byte == 1).unwrap();
        bytes[at] = 0xeb;
        let request = good(&bytes);
        assert_eq!(request.from.display.as_deref(), Some("Zoë"));
        assert_eq!(request.body, b"hi");
    }

    #[test]
    fn tel_ipv6_and_unknown_methods_pass() {
        assert_eq!(
            good(PLAIN.replace("sip:gw@192.0.2.7 SIP", "tel:+15550100 SIP").as_bytes()).uri.scheme,
            "tel"
        );
        let six = good(PLAIN.replace("sip:gw@192.0.2.7 SIP", "sip:gw@[2001:db8::1]:5062 SIP").as_bytes());
        assert_eq!((six.uri.host.as_str(), six.uri.port), ("2001:db8::1", Some(5062)));
        assert_eq!(good(PLAIN.replace("OPTIONS", "PING").as_bytes()).method, "PING");
        assert_eq!(good(PLAIN.replace("OPTIONS", "invite").as_bytes()).method, "invite");
    }

    #[test]
    fn keep_alives_and_stun_are_not_sip() {
        for bytes in [&b""[..], b"\r\n\r\n", b"\0\0\0\0", b"\0\x01\0\0\x21\x12\xa4\x42"] {
            assert!(matches!(read(bytes), Read::NotSip), "{bytes:?}");
        }
    }

    #[test]
    fn a_bad_request_carries_what_its_answer_needs_and_a_bad_ack_nothing() {
        let cut = PLAIN.replace("Length: 2", "Length: 3");
        let Read::Bad(Bad { answer: Some((400, headers)), .. }) = read(cut.as_bytes()) else { panic!() };
        let text =
            String::from_utf8(reply(&headers, 400, "t", "192.0.2.1:5070".parse().unwrap()).bytes()).unwrap();
        assert!(text.starts_with("SIP/2.0 400 Bad Request\r\n"), "{text}");
        assert!(
            text.contains("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa;received=192.0.2.1;rport=5070\r\n"),
            "{text}"
        );
        assert!(text.contains("To: <sip:gw@192.0.2.7>;tag=t\r\n"), "{text}");
        let ack = cut.replace("OPTIONS", "ACK");
        assert!(matches!(read(ack.as_bytes()), Read::Bad(Bad { answer: None, .. })));
    }

    #[test]
    fn a_sender_seen_from_elsewhere_is_told_so() {
        let from = "198.51.100.4:1024".parse().unwrap();
        assert_eq!(
            seen_from("SIP/2.0/UDP 10.0.0.1:5060;branch=x", from),
            "SIP/2.0/UDP 10.0.0.1:5060;branch=x;received=198.51.100.4"
        );
        assert_eq!(seen_from("SIP/2.0/UDP 198.51.100.4;branch=x", from), "SIP/2.0/UDP 198.51.100.4;branch=x");
    }

    #[test]
    fn nothing_written_can_end_a_line() {
        let mut draft = Draft::request("OPTIONS", "sip:x\r\nEvil: 1");
        draft.push("X", "a\r\n\r\nb");
        assert_eq!(
            draft.bytes(),
            b"OPTIONS sip:x  Evil: 1 SIP/2.0\r\nX: a    b\r\nContent-Length: 0\r\n\r\n"
        );
    }
}
