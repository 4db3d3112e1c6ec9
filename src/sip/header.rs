//! The values of headers read by our own hand: URIs, name-addr, Via, CSeq, lists, parameters; and the
//! writing side, which lets nothing break out of its place.

use std::net::{IpAddr, SocketAddr};

use super::words::{Transport, Way};

/// A SIP URI (RFC 3261 §19.1), or any other URI kept as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uri {
    /// In lower case.
    pub scheme: String,
    /// Still percent-encoded; with the password, if there is one.
    pub user: Option<String>,
    /// In lower case, without the brackets of IPv6. Empty unless the scheme is sip or sips.
    pub host: String,
    pub port: Option<u16>,
    /// Names in lower case.
    pub params: Vec<(String, Option<String>)>,
    /// Whether `?headers` follow, which a request URI must not have.
    pub has_headers: bool,
}

impl Uri {
    /// Reads a URI; `None` if it is none. Never looks at what follows white space.
    pub fn read(text: &str) -> Option<Uri> {
        let (scheme, rest) = text.split_once(':')?;
        let well_formed = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !well_formed || rest.is_empty() || text.chars().any(|c| c.is_whitespace() || "<>\"".contains(c)) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "sip" && scheme != "sips" {
            let user = Some(rest.to_owned());
            return Some(Uri {
                scheme,
                user,
                host: String::new(),
                port: None,
                params: vec![],
                has_headers: false,
            });
        }
        // The user part may contain ; ? and /, so it is cut off first. A raw @ is not allowed in it.
        let (user, rest) = match rest.split_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        if user == Some("") || rest.contains('@') {
            return None;
        }
        let (rest, has_headers) = match rest.split_once('?') {
            Some((rest, _)) => (rest, true),
            None => (rest, false),
        };
        let mut parts = rest.split(';');
        let (host, port) = host_port(parts.next()?)?;
        let params = parts.filter(|part| !part.is_empty()).map(parameter).collect();
        Some(Uri { scheme, user: user.map(str::to_owned), host, port, params, has_headers })
    }

    pub fn is_sip(&self) -> bool {
        self.scheme == "sip" || self.scheme == "sips"
    }

    /// Whom it means: the user part without password and parameters, decoded; of telephone numbers
    /// (RFC 3966) without the separators that are there for the eye.
    pub fn person(&self) -> Option<String> {
        let telephone = self.scheme == "tel"
            || self.params.iter().any(|(name, value)| name == "user" && value.as_deref() == Some("phone"));
        let user = self.user.as_deref()?.split([';', '?', ':']).next()?;
        let mut person = percent_decoded(user);
        if telephone {
            person.retain(|c| !"-.() ".contains(c));
        }
        (!person.is_empty()).then_some(person)
    }

    /// Loose routing (RFC 3261 §16.12).
    pub fn is_loose(&self) -> bool {
        self.params.iter().any(|(name, _)| name == "lr")
    }

    /// The address, if the host is one. Port 5060 if none is given.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port.unwrap_or(5060)))
    }

    /// What its scheme and parameters ask for; `None`: it doesn't say.
    pub fn transport(&self) -> Option<Transport> {
        if self.scheme == "sips" {
            return Some(Transport::Tls);
        }
        let word = self.params.iter().find(|(name, _)| name == "transport")?.1.as_deref()?;
        Transport::of_word(word)
    }

    /// The way there in a dialog whose messages came by `seen`, if the host is an address. A URI that doesn't say how
    /// means the way that is known to work; over a connection, whoever is at its other end is spoken to through it.
    pub fn way(&self, seen: Way) -> Option<Way> {
        let ip: IpAddr = self.host.parse().ok()?;
        let transport = self.transport().unwrap_or(seen.transport);
        if transport == seen.transport
            && transport.is_reliable()
            && ip.to_canonical() == seen.ip().to_canonical()
        {
            return Some(seen);
        }
        let port = self.port.unwrap_or(transport.usual_port());
        Some(Way { transport, address: SocketAddr::new(ip, port) })
    }

    /// The host as it is written in a URI.
    pub fn host_text(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// Host and, if it was given, port, as they are written in a URI.
    pub fn host_port_text(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host_text()),
            None => self.host_text(),
        }
    }
}

/// An address as it is written in URIs and Via: without the zone, which means nothing to anybody else.
pub(crate) fn host_port_of(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => format!("{ip}:{}", address.port()),
        IpAddr::V6(ip) => format!("[{ip}]:{}", address.port()),
    }
}

/// `host`, `host:port`, `[v6]:port`
pub(crate) fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest.trim().strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.trim(), Some(port)),
            None => (text, None),
        },
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(named) {
        return None;
    }
    let port = match port.map(str::trim) {
        None => None,
        Some(port) if port.is_empty() || port.len() > 5 => return None,
        Some(port) => Some(port.parse().ok()?),
    };
    Some((host.to_ascii_lowercase(), port))
}

/// A name-addr or addr-spec with header parameters: From, To, Contact, Route …
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameAddr {
    /// Without quotes and backslashes.
    pub display: Option<String>,
    pub uri: Uri,
    /// The URI as it came.
    pub uri_text: String,
    /// Names in lower case, values without quotes.
    pub params: Vec<(String, Option<String>)>,
}

impl NameAddr {
    /// Reads one; `None` if it is none, for instance if a quote is never closed.
    pub fn read(text: &str) -> Option<NameAddr> {
        let text = text.trim();
        let open = find_outside_quotes(text, '<')?;
        let (display, uri_text, rest) = match open {
            Some(open) => {
                let (display, rest) = (text.get(..open)?, text.get(open + 1..)?);
                let (uri, rest) = rest.split_once('>')?;
                (Some(unquote(display.trim())).filter(|name| !name.is_empty()), uri, rest)
            }
            // Without brackets, parameters belong to the header, and the URI may have no ? (§20).
            None => {
                let end = text.find(';').unwrap_or(text.len());
                let uri = text.get(..end)?.trim();
                if uri.contains(['?', ',']) {
                    return None;
                }
                (None, uri, text.get(end..)?)
            }
        };
        let rest = rest.trim();
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
        let params = split_outside_quotes(rest, ';')?
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(parameter)
            .collect();
        Some(NameAddr { display, uri: Uri::read(uri_text)?, uri_text: uri_text.to_owned(), params })
    }

    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref())
    }

    pub fn tag(&self) -> Option<&str> {
        self.param("tag").filter(|tag| !tag.is_empty())
    }
}

/// One Via (RFC 3261 §20.42, RFC 3581).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Via {
    /// UDP, TCP, TLS …, in upper case.
    pub transport: String,
    pub host: String,
    pub port: Option<u16>,
    pub branch: Option<String>,
    pub received: Option<IpAddr>,
    /// `Some(None)`: the sender asks for its port.
    pub rport: Option<Option<u16>>,
}

impl Via {
    pub fn read(text: &str) -> Option<Via> {
        let mut parts = split_outside_quotes(text, ';')?.into_iter();
        let sent = parts.next()?.trim();
        let (name, rest) = sent.split_once('/')?;
        let (version, rest) = rest.split_once('/')?;
        if !name.trim().eq_ignore_ascii_case("SIP") || version.trim() != "2.0" {
            return None;
        }
        let (transport, sent_by) = rest.trim().split_once(|c: char| c.is_whitespace())?;
        let (host, port) = host_port(sent_by)?;
        let transport = transport.to_ascii_uppercase();
        let mut via = Via { transport, host, port, branch: None, received: None, rport: None };
        for part in parts {
            // Empty parameters are the fault of RFC 4475 §3.1.2.1.
            if part.trim().is_empty() {
                return None;
            }
            match parameter(part) {
                (name, Some(value)) if name == "branch" => via.branch = Some(value),
                (name, Some(value)) if name == "received" => {
                    via.received = value.trim_matches(['[', ']']).parse().ok();
                }
                (name, value) if name == "rport" => {
                    via.rport = Some(value.and_then(|port| port.parse().ok()))
                }
                _ => {}
            }
        }
        Some(via)
    }
}

/// `4711 INVITE`
pub(crate) fn cseq(text: &str) -> Option<(u32, &str)> {
    let (number, method) = text.trim().split_once(|c: char| c.is_whitespace())?;
    let number: u32 = number.parse().ok().filter(|number| *number < 1 << 31)?;
    Some((number, method.trim())).filter(|(_, method)| is_token(method))
}

/// `name = value`, the name in lower case, the value without its quotes.
pub(crate) fn parameter(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.trim().to_ascii_lowercase(), Some(unquote(value.trim()))),
        None => (text.trim().to_ascii_lowercase(), None),
    }
}

/// A quoted string without its quotes and escapes; anything else as it is.
pub(crate) fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            plain.push(c);
            escaped = false;
        }
    }
    plain
}

/// Where `wanted` first stands outside quotes and, for separators, outside `<…>`. `None`: a quote or
/// a bracket is never closed.
fn find_outside_quotes(text: &str, wanted: char) -> Option<Option<usize>> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == wanted && !quoted => return Some(Some(at)),
            _ => {}
        }
    }
    if quoted { None } else { Some(None) }
}

/// The pieces between separators that stand outside quotes and outside `<…>`. `None`: a quote is never
/// closed.
pub(crate) fn split_outside_quotes(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut quoted, mut escaped, mut bracket, mut start) = (false, false, false, 0);
    let mut pieces = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracket = true,
            '>' if !quoted => bracket = false,
            c if c == separator && !quoted && !bracket => {
                pieces.extend(text.get(start..at));
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if quoted {
        return None;
    }
    pieces.extend(text.get(start..));
    Some(pieces)
}

/// A URI's text and its headers, which stand behind the first question mark after the user part.
pub(crate) fn without_headers(uri: &str) -> (&str, &str) {
    let host = uri.find('@').unwrap_or(0);
    match uri.get(host..).and_then(|rest| rest.find('?')) {
        Some(at) => (uri.get(..host + at).unwrap_or_default(), uri.get(host + at + 1..).unwrap_or_default()),
        None => (uri, ""),
    }
}

/// A token (RFC 3261 §25.1).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c))
}

/// A header value with nothing in it that could end the line: control characters become spaces.
pub(crate) fn clean(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.trim().to_owned()
}

/// A quoted string: control characters are dropped, quotes and backslashes escaped, at most 256
/// characters long.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().filter(|c| !c.is_control()).take(256) {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The user part of a URI: what RFC 3261 §25.1 does not allow there is percent-encoded.
pub(crate) fn user_part(text: &str) -> String {
    let mut out = String::new();
    for byte in text.trim().bytes().filter(|byte| !byte.is_ascii_control()).take(128) {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `%2B` becomes `+`. What is no escape stays as it is, what is no UTF-8 becomes replacement characters.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digit = |at: usize| behind.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high << 4 | low));
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_taken_apart() {
        let uri = Uri::read("sips:alice:pw@[2001:DB8::1]:5070;transport=tcp;lr?a=b").unwrap();
        assert_eq!((uri.scheme.as_str(), uri.user.as_deref()), ("sips", Some("alice:pw")));
        assert_eq!((uri.host.as_str(), uri.port), ("2001:db8::1", Some(5070)));
        assert_eq!(uri.params, [("transport".into(), Some("tcp".into())), ("lr".into(), None)]);
        assert!(uri.has_headers && uri.is_loose());
        assert_eq!(uri.address(), Some("[2001:db8::1]:5070".parse().unwrap()));
        assert_eq!(uri.host_port_text(), "[2001:db8::1]:5070");
    }

    #[test]
    fn a_uri_says_whom_it_means() {
        for (uri, person) in [
            ("sip:+4915112345678@gw", Some("+4915112345678")),
            ("sip:%2B49151;phone-context=x@gw:5060;user=phone", Some("+49151")),
            ("sip:00(49)-151.1@gw;user=phone", Some("00491511")),
            ("sip:a-b.c@gw", Some("a-b.c")),
            ("sip:bob:secret@gw", Some("bob")),
            ("sip:%e6%9d%8e%zz%4@gw", Some("李%zz%4")),
            ("sip:%FF@gw", Some("\u{fffd}")),
            ("tel:+49-151-(123)45;isub=1", Some("+4915112345")),
            ("sip:gw", None),
            ("sip:;x=y@gw", None),
            ("tel:-;ext=1", None),
        ] {
            assert_eq!(Uri::read(uri).unwrap().person().as_deref(), person, "{uri}");
        }
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for bad in [
            "",
            "sip:",
            "sip:@host",
            "sip:a@",
            "sip:a@h:99999",
            "sip:a@b@c",
            "sip: a@b",
            "<sip:a@b>",
            "sip:a@[::1",
            "1a:b",
        ] {
            assert_eq!(Uri::read(bad), None, "{bad}");
        }
        assert_eq!(Uri::read("tel:+15550100").unwrap().scheme, "tel");
    }

    #[test]
    fn an_angle_bracket_inside_quotes_is_part_of_the_name() {
        let read = NameAddr::read(r#""a <b> \"c\"" <sip:x@h;lr>;tag=9;p="q;r""#).unwrap();
        assert_eq!(read.display.as_deref(), Some(r#"a <b> "c""#));
        assert_eq!((read.tag(), read.param("p")), (Some("9"), Some("q;r")));
        assert!(read.uri.is_loose());
        assert_eq!(NameAddr::read(r#""open <sip:x@h>"#), None);
    }

    #[test]
    fn without_brackets_parameters_belong_to_the_header() {
        let read = NameAddr::read("sip:x@h;tag=9").unwrap();
        assert_eq!(read.tag(), Some("9"));
        assert!(read.uri.params.is_empty());
    }

    #[test]
    fn a_via_tells_who_sent_it_and_how_it_was_seen() {
        let via =
            Via::read("SIP / 2.0 / udp 192.0.2.1 : 5061 ;branch=z9hG4bKa;rport=1024;received=[2001:db8::9]");
        let via = via.unwrap();
        assert_eq!((via.transport.as_str(), via.host.as_str(), via.port), ("UDP", "192.0.2.1", Some(5061)));
        assert_eq!(via.branch.as_deref(), Some("z9hG4bKa"));
        assert_eq!(via.rport, Some(Some(1024)));
        assert_eq!(via.received, Some("2001:db8::9".parse().unwrap()));
        assert_eq!(Via::read("SIP/2.0/UDP h;rport").unwrap().rport, Some(None));
        assert_eq!(Via::read("SIP/2.0/UDP h;;"), None);
    }

    #[test]
    fn what_we_write_cannot_break_out() {
        assert_eq!(clean("a\r\nVia: evil"), "a  Via: evil");
        assert_eq!(quoted("Al\"i\\ce\r\n<sip:x>"), r#""Al\"i\\ce<sip:x>""#);
        assert_eq!(quoted("Zoë"), "\"Zoë\"");
        assert_eq!(user_part("+1 555@x>\r\n#"), "+1%20555%40x%3E%23");
    }
}
