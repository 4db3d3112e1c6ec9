//! Texts that each call fills in: `{call_id}`, `{caller}`, `{number}`, `{minted}`.

use super::fault::Fault;
use super::hooks;
use super::reader::{Reader, Section};
use super::sections::MintConfig;
use super::units::Destination;

/// Longest body of a request, in bytes.
const BODY: usize = 16 * 1024;

/// What may stand in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placeholder {
    /// Our id of the call.
    CallId,
    /// Who calls: E.164 with its plus, or a business-scoped user id.
    Caller,
    /// The business number, E.164 with its plus.
    Number,
    /// What the request of the `mint_…` keys has brought.
    Minted,
}

impl Placeholder {
    /// Every placeholder with its name in the file, without braces.
    pub const NAMES: &'static [(&'static str, Placeholder)] = &[
        ("call_id", Placeholder::CallId),
        ("caller", Placeholder::Caller),
        ("number", Placeholder::Number),
        ("minted", Placeholder::Minted),
    ];

    /// The placeholder that a text begins with, and what follows it.
    fn first(text: &str) -> Option<(Placeholder, &str)> {
        let inside = text.strip_prefix('{')?;
        let rest = |name: &str| inside.strip_prefix(name)?.strip_prefix('}');
        Placeholder::NAMES.iter().find_map(|(name, placeholder)| Some((*placeholder, rest(name)?)))
    }
}

/// A part of a template.
enum Piece<'t> {
    Text(&'t str),
    Place(Placeholder),
}

/// The parts of a text, in order. Braces around anything else are text.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if let Some((placeholder, tail)) = Placeholder::first(rest) {
            rest = tail;
            return Some(Piece::Place(placeholder));
        }
        let mut braces = rest.match_indices('{').map(|(at, _)| at);
        let end = braces.find(|at| rest.get(*at..).and_then(Placeholder::first).is_some());
        let (text, tail) = rest.split_at(end.unwrap_or(rest.len()));
        rest = tail;
        (!text.is_empty()).then_some(Piece::Text(text))
    })
}

/// The placeholders of a text, in order.
pub fn placeholders(text: &str) -> impl Iterator<Item = Placeholder> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Place(placeholder) => Some(placeholder),
        Piece::Text(_) => None,
    })
}

/// The text with each placeholder replaced by what `value` says, which must be fit for where it goes. Braces around
/// anything else stay.
pub fn filled(text: &str, value: impl Fn(Placeholder) -> String) -> String {
    pieces(text).fold(String::with_capacity(text.len()), |mut out, piece| {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Place(placeholder) => out.push_str(&value(placeholder)),
        }
        out
    })
}

/// As [`filled`], of a JSON text: values are escaped as the inside of a JSON string (RFC 8259 §7).
pub fn filled_json(text: &str, value: impl Fn(Placeholder) -> String) -> String {
    filled(text, |placeholder| {
        let quoted = serde_json::Value::String(value(placeholder)).to_string();
        quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or("").to_owned()
    })
}

impl Destination {
    /// The placeholders in its user part, in order.
    pub fn placeholders(&self) -> Vec<Placeholder> {
        match self {
            Destination::Sip { user, .. } => placeholders(user).collect(),
            Destination::Tel(_) | Destination::Wss(_) => Vec::new(),
        }
    }

    /// The destination for one call. What a user part can't hold is escaped (RFC 3261 §25.1).
    pub fn for_call(&self, value: impl Fn(Placeholder) -> String) -> Destination {
        match self {
            Destination::Sip { user, host } => {
                Destination::Sip { user: filled(user, |at| escaped(&value(at))), host: host.clone() }
            }
            Destination::Tel(_) | Destination::Wss(_) => self.clone(),
        }
    }
}

/// As a part of a user part: `unreserved` and `user-unreserved` as they are, all else in hex.
fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// Says that there is no such placeholder, as the rest of a sentence that begins with the key.
pub(super) fn unknown(name: &str) -> String {
    let known: Vec<String> = Placeholder::NAMES.iter().map(|(name, _)| format!("{{{name}}}")).collect();
    format!("has the placeholder {{{name}}}, but there are only {}", known.join(", "))
}

/// Reads the `mint_…` keys: all or none.
pub(super) fn mint(r: &mut Reader<'_>, s: &Section<'_>) -> Option<MintConfig> {
    const KEY: [&str; 3] = ["mint_key", "mint_key_file", "mint_key_env"];
    let key_given = KEY.into_iter().any(|key| s.has(key));
    let given = ["mint_url", "mint_body", "mint_field"].map(|key| (key, s.has(key)));
    let all = given.into_iter().chain([("mint_key", key_given)]);
    if all.clone().any(|(_, given)| given) {
        for (missing, _) in all.filter(|(_, given)| !given) {
            let at = r.at(s, missing);
            r.fault(
                Fault::at(&at, "is missing")
                    .hint("give mint_url, mint_body, mint_key and mint_field, or none"),
            );
        }
    }
    let url = r.parsed(s, "mint_url", hooks::address);
    let body = r.parsed(s, "mint_body", body);
    let field = r.parsed(s, "mint_field", pointer);
    let key = r.secret(s, "mint_key");
    Some(MintConfig { url: url?, body: body?, key: key?, field: field? })
}

fn body(text: &str) -> Result<String, String> {
    if text.len() > BODY {
        return Err(format!("must have at most {BODY} bytes"));
    }
    if placeholders(text).any(|placeholder| placeholder == Placeholder::Minted) {
        return Err("must not hold {minted}: that is what its answer brings".to_owned());
    }
    Ok(text.to_owned())
}

/// RFC 6901 §3, but not the empty one: that is no string.
fn pointer(text: &str) -> Result<String, String> {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if text.starts_with('/') && escapes {
        return Ok(text.to_owned());
    }
    Err(format!("must be a JSON pointer like \"/call_id\", is \"{text}\""))
}
