//! SIP as text: as little of it as the stand-in for a PBX needs, and nothing of the gateway's own reader.

use std::fmt::Write as _;

/// One message, cut into lines.
#[derive(Debug, Clone)]
pub(super) struct Message {
    start: String,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Message {
    /// Cuts a datagram; `None` if it is no SIP.
    pub fn read(datagram: &[u8]) -> Option<Message> {
        let text = std::str::from_utf8(datagram).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let start = lines.next().filter(|start| start.contains("SIP/2.0"))?.to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Some(Message { start, headers, body: body.to_owned() })
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        self.start.split(' ').next().filter(|word| *word != "SIP/2.0")
    }

    /// The URI of a request.
    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of an answer.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The status of an answer, with its reason.
    pub fn reason(&self) -> &str {
        self.start.strip_prefix("SIP/2.0 ").unwrap_or(&self.start)
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The URI between `<` and `>` of a header, or all of its value before the parameters.
    pub fn address(&self, name: &str) -> Option<&str> {
        let value = self.header(name)?;
        match value.split_once('<') {
            Some((_, rest)) => rest.split('>').next(),
            None => value.split(';').next(),
        }
    }

    /// The answer to this request (RFC 3261 §8.2.6). `tag` goes into To unless there is one.
    pub fn answer(&self, status: &str, tag: &str, headers: &[(&str, &str)], sdp: Option<&str>) -> Vec<u8> {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for (name, value) in &self.headers {
            let copied = ["via", "from", "call-id", "cseq"].contains(&name.to_ascii_lowercase().as_str());
            if copied {
                let _ = write!(text, "{name}: {value}\r\n");
            } else if name.eq_ignore_ascii_case("to") {
                let tagged = value.contains(";tag=") || tag.is_empty();
                let tag = if tagged { String::new() } else { format!(";tag={tag}") };
                let _ = write!(text, "To: {value}{tag}\r\n");
            }
        }
        finish(text, headers, sdp)
    }
}

/// A request of our own, complete.
pub(super) fn request(start: &str, headers: &[(&str, &str)], sdp: Option<&str>) -> Vec<u8> {
    finish(format!("{start} SIP/2.0\r\n"), headers, sdp)
}

fn finish(mut text: String, headers: &[(&str, &str)], sdp: Option<&str>) -> Vec<u8> {
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if sdp.is_some() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    let sdp = sdp.unwrap_or_default();
    let _ = write!(text, "Content-Length: {}\r\n\r\n{sdp}", sdp.len());
    text.into_bytes()
}

/// A parameter of an Authorization header, without its quotes.
pub(super) fn parameter<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = header.split_once(' ').map_or(header, |(_, rest)| rest);
    while let Some((key, value)) = rest.split_once('=') {
        let key = key.trim_matches([',', ' ']);
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(',').unwrap_or((value, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.trim());
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_copies_what_the_request_said_and_adds_a_tag() {
        let invite = Message::read(
            b"INVITE sip:200@pbx SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:b>;tag=2\r\n\
              To: \"The desk\" <sip:200@pbx>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n\r\nv=0\r\n",
        )
        .unwrap();
        assert_eq!((invite.method(), invite.uri()), (Some("INVITE"), "sip:200@pbx"));
        assert_eq!((invite.address("to"), invite.body.as_str()), (Some("sip:200@pbx"), "v=0\r\n"));
        let answer = invite.answer("180 Ringing", "mine", &[("Contact", "<sip:d>")], None);
        let text = String::from_utf8(answer).unwrap();
        assert!(text.starts_with("SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n"), "{text}");
        assert!(text.contains("To: \"The desk\" <sip:200@pbx>;tag=mine\r\n"), "{text}");
        assert!(!text.contains("Max-Forwards") && text.ends_with("Content-Length: 0\r\n\r\n"), "{text}");
        assert_eq!(Message::read(text.as_bytes()).unwrap().status(), Some(180));
    }

    #[test]
    fn parameters_are_found_behind_quoted_commas() {
        let header = r#"Digest username="a, b",realm="r=1", nc=00000001, qop=auth,response="ff""#;
        let found =
            ["username", "realm", "nc", "qop", "response", "opaque"].map(|name| parameter(header, name));
        assert_eq!(found, [Some("a, b"), Some("r=1"), Some("00000001"), Some("auth"), Some("ff"), None]);
    }
}
