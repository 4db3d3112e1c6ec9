//! Changes that programs make to the file: the fewest bytes that say it, and nothing that wouldn't load.
//!
//! [`apply`] is pure. Comments, order, spelling and whatever it doesn't know stay as they are.

use std::collections::BTreeMap;
use std::fmt;

use super::MAX_FILE;
use super::board::Board;
use super::fault::Fault;
use super::hooks;
use super::secret::{Secret, Unread};
use super::units::EventName;

mod body;

use body::{Body, Found, List};

/// A value to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditValue {
    /// A string.
    Text(String),
    /// A string that must not be seen.
    Secret(Secret),
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(u64),
    /// A list of strings.
    Texts(Vec<String>),
}

impl EditValue {
    /// Whether both are the same in the file.
    fn means(&self, other: &EditValue) -> bool {
        match (self.as_text(), other.as_text()) {
            (Some(one), Some(two)) => one == two,
            (Some(_), None) | (None, Some(_)) => false,
            (None, None) => self == other,
        }
    }

    fn as_text(&self) -> Option<&str> {
        match self {
            EditValue::Text(text) => Some(text),
            EditValue::Secret(secret) => Some(secret.expose()),
            EditValue::Flag(_) | EditValue::Whole(_) | EditValue::Texts(_) => None,
        }
    }

    /// As TOML; with single quotes if asked for and if they can hold it.
    fn written(&self, literal: bool) -> String {
        let text = |text: &str| {
            let fits = !text.contains('\'') && !text.chars().any(|c| c.is_control() && c != '\t');
            if literal && fits { format!("'{text}'") } else { body::basic(text) }
        };
        match self {
            EditValue::Text(value) => text(value),
            EditValue::Secret(secret) => text(secret.expose()),
            EditValue::Flag(flag) => flag.to_string(),
            EditValue::Whole(number) => number.to_string(),
            EditValue::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| body::basic(text)).collect();
                format!("[{}]", texts.join(", "))
            }
        }
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Sets keys of the `[[number]]` with this id; `None` takes a key out. A secret that the file has as
    /// `key_file` or `key_env` is given in place afterwards.
    Number {
        /// Its `id`.
        id: String,
        /// The keys of the file with their new values.
        set: Vec<(&'static str, Option<EditValue>)>,
    },
    /// Changes the `[[webhook]]` with this id, or adds one.
    PutWebhook(WebhookEdit),
    /// Takes the `[[webhook]]` with this id out.
    RemoveWebhook {
        /// Its `id`, written in the file or not.
        id: String,
    },
}

/// What to change in a `[[webhook]]`; `None` leaves as it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WebhookEdit {
    /// Its `id`, written in the file or not.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Where events are sent.
    pub url: Option<String>,
    /// Signs the events. An empty one takes it out.
    pub secret: Option<Secret>,
    /// Those that it wants.
    pub events: Option<Vec<EventName>>,
    /// Whether events are sent.
    pub active: Option<bool>,
    /// All its headers. None at all takes them out.
    pub headers: Option<BTreeMap<String, String>>,
}

/// Neither the values of headers nor the address: both often hold keys.
impl fmt::Debug for WebhookEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WebhookEdit { id, name, url: _, secret, events, active, headers } = self;
        f.debug_struct("WebhookEdit")
            .field("id", id)
            .field("name", name)
            .field("secret", secret)
            .field("events", events)
            .field("active", active)
            .field("headers", &headers.as_ref().map(|headers| headers.keys().collect::<Vec<_>>()))
            .finish_non_exhaustive()
    }
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditFault {
    /// The file had these faults before: it must be put right by hand first.
    Before(Vec<Fault>),
    /// There is no `[[number]]` with this id in the file.
    NoNumber(String),
    /// There is no `[[webhook]]` with this id in the file.
    NoWebhook(String),
    /// The file would have these faults afterwards: the new values can't be so.
    After(Vec<Fault>),
}

impl fmt::Display for EditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |faults: &[Fault]| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            faults.join("; ")
        };
        match self {
            EditFault::Before(faults) => {
                write!(f, "the config file has faults, put them right first: {}", list(faults))
            }
            EditFault::NoNumber(id) => {
                write!(f, "there is no [[number]] with the id \"{id}\" in the config file")
            }
            EditFault::NoWebhook(id) => {
                write!(f, "there is no [[webhook]] with the id \"{id}\" in the config file")
            }
            EditFault::After(faults) => write!(f, "the config file would not load: {}", list(faults)),
        }
    }
}

impl std::error::Error for EditFault {}

/// Carries out the changes, in order, on the text of a config file. Secrets that it has by `*_file` and `*_env`
/// are not looked at.
///
/// # Errors
/// The text had faults, would have some, or lacks what is to be changed. Nothing is changed then.
pub fn apply(text: &str, edits: &[Edit]) -> Result<String, EditFault> {
    check(text).map_err(EditFault::Before)?;
    let mut changed = text.to_owned();
    for edit in edits {
        changed = match edit {
            Edit::Number { id, set } => set_number(changed, id, set)?,
            Edit::PutWebhook(edit) => put_webhook(changed, edit)?,
            Edit::RemoveWebhook { id } => remove_webhook(&changed, id)?,
        };
    }
    check(&changed).map_err(EditFault::After)?;
    Ok(changed)
}

fn check(text: &str) -> Result<(), Vec<Fault>> {
    if text.len() as u64 > MAX_FILE {
        return Err(vec![Fault::of_file(format!("is larger than {MAX_FILE} bytes"))]);
    }
    super::parse(text, &Unread, &Board::default()).value.map(drop)
}

/// An edit may have broken the text: that is told in the end. Here it only has nothing to be found in it.
fn list(text: &str, name: &str) -> List {
    body::list(text, name).unwrap_or(List::Missing)
}

fn set_number(
    mut text: String,
    id: &str,
    set: &[(&'static str, Option<EditValue>)],
) -> Result<String, EditFault> {
    let missing = || EditFault::NoNumber(id.to_owned());
    // By its place: what is set may be the id itself.
    let index = list(&text, "number").tables().iter().position(|number| number.text_of("id") == Some(id));
    let index = index.ok_or_else(missing)?;
    for (key, value) in set {
        text = set_key(text, key, value.as_ref(), |text| {
            list(text, "number").tables().get(index).cloned().ok_or_else(missing)
        })?;
    }
    Ok(text)
}

/// Sets or takes out a key of one table, which is looked for anew after each change.
fn set_key(
    mut text: String,
    key: &str,
    value: Option<&EditValue>,
    find: impl Fn(&str) -> Result<Found, EditFault>,
) -> Result<String, EditFault> {
    let ways = [key.to_owned(), format!("{key}_file"), format!("{key}_env")];
    let Some(value) = value else {
        for way in &ways {
            let body = find(&text)?.body;
            if body.entry(&[way]).is_some() {
                text = body.without(&text, &[way]);
            }
        }
        return Ok(text);
    };
    let body = find(&text)?.body;
    let mut given = ways.iter().filter_map(|way| body.entry(&[way]));
    Ok(match given.next() {
        Some(entry) if entry.path == [key] => Body::replaced(&text, entry, value),
        Some(entry) => Body::renamed(&text, entry, key, value),
        None => body.with(&text, &[key], &value.written(false)),
    })
}

fn position(tables: &[Found], id: &str) -> Option<usize> {
    tables.iter().position(|table| {
        let url = table.text_of("url").unwrap_or("");
        hooks::identity(table.text_of("id"), table.text_of("name"), url) == id
    })
}

fn put_webhook(mut text: String, edit: &WebhookEdit) -> Result<String, EditFault> {
    let WebhookEdit { id, name, url, secret, events, active, headers } = edit;
    let words = |events: &Vec<EventName>| events.iter().map(|event| event.as_str().to_owned()).collect();
    let keys: [(&'static str, Option<EditValue>); 5] = [
        ("name", name.clone().map(EditValue::Text)),
        ("url", url.clone().map(EditValue::Text)),
        ("secret", secret.clone().map(EditValue::Secret)),
        ("events", events.as_ref().map(words).map(EditValue::Texts)),
        ("active", active.map(EditValue::Flag)),
    ];
    let tables = list(&text, "webhook");
    let Some(index) = position(tables.tables(), id) else {
        let mut lines = vec![("id", body::basic(id))];
        let given = keys.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?)));
        let given = given.filter(|(_, value)| *value != &EditValue::Secret(Secret::default()));
        lines.extend(given.map(|(key, value)| (key, value.written(false))));
        if let Some(headers) = headers.as_ref().filter(|headers| !headers.is_empty()) {
            lines.push(("headers", headers_in_braces(headers)));
        }
        return Ok(match &tables {
            List::Missing => body::with_table(&text, &[], "webhook", &lines),
            List::Headers(tables) => body::with_table(&text, tables, "webhook", &lines),
            List::Brackets(bracket, tables) => body::with_element(&text, *bracket, tables, &lines),
        });
    };
    // Tables don't move meanwhile: it stays the one with this index, whatever its id would be.
    let find = |text: &str| {
        let found = list(text, "webhook").tables().get(index).cloned();
        found.ok_or_else(|| EditFault::NoWebhook(id.clone()))
    };
    let renamed = |found: &Found| {
        let differs =
            |new: &Option<String>, key: &str| new.as_deref().is_some_and(|n| found.text_of(key) != Some(n));
        found.text_of("id").is_none() && (differs(name, "name") || differs(url, "url"))
    };
    if renamed(&find(&text)?) {
        // Its id was made of what changes now: who knows it must find it again.
        text = set_key(text, "id", Some(&EditValue::Text(id.clone())), find)?;
    }
    for (key, value) in &keys {
        text = match value {
            None => text,
            Some(EditValue::Secret(secret)) if secret.expose().is_empty() => set_key(text, key, None, find)?,
            Some(value) => set_key(text, key, Some(value), find)?,
        };
    }
    match headers {
        Some(headers) => set_headers(text, headers, find),
        None => Ok(text),
    }
}

const HEADERS: &str = "headers";

/// How a webhook's headers are written.
enum Headers {
    Missing,
    /// `headers.Name = "…"` among the other keys.
    Dotted(Body),
    /// `headers = { … }`, or a table under a header of its own.
    Table(Body),
}

fn headers_of(found: &Found) -> Headers {
    let part = found.parts.iter().skip(1).find(|part| part.name.as_deref() == Some(HEADERS));
    let braces = found.braces.iter().find(|(name, _)| name == HEADERS);
    match (part, braces) {
        (Some(part), _) => Headers::Table(part.body.clone()),
        (None, Some((_, body))) => Headers::Table(body.clone()),
        (None, None)
            if found.body.entries.iter().any(|e| e.path.first().is_some_and(|key| key == HEADERS)) =>
        {
            Headers::Dotted(found.body.clone())
        }
        (None, None) => Headers::Missing,
    }
}

/// Header by header: those that stay keep their line.
fn set_headers(
    mut text: String,
    headers: &BTreeMap<String, String>,
    find: impl Fn(&str) -> Result<Found, EditFault>,
) -> Result<String, EditFault> {
    for (name, value) in headers {
        let value = EditValue::Text(value.clone());
        let set = |text: &str, body: &Body, path: &[&str]| match body.entry(path) {
            Some(entry) => Body::replaced(text, entry, &value),
            None => body.with(text, path, &value.written(false)),
        };
        let found = find(&text)?;
        text = match headers_of(&found) {
            Headers::Missing => {
                let all = headers_in_braces(headers);
                return Ok(found.body.with(&text, &[HEADERS], &all));
            }
            Headers::Dotted(body) => set(&text, &body, &[HEADERS, name]),
            Headers::Table(body) => set(&text, &body, &[name]),
        };
    }
    let found = find(&text)?;
    if headers.is_empty() {
        if found.body.entry(&[HEADERS]).is_some() {
            return Ok(found.body.without(&text, &[HEADERS]));
        }
        let parts: Vec<_> =
            found.parts.iter().skip(1).filter(|p| p.name.as_deref() == Some(HEADERS)).cloned().collect();
        if !parts.is_empty() {
            return Ok(body::without_parts(&text, &parts));
        }
    }
    let gone = |path: &[String]| path.last().is_some_and(|name| !headers.contains_key(name));
    let old: Vec<Vec<String>> = match headers_of(&found) {
        Headers::Missing => Vec::new(),
        Headers::Dotted(body) => {
            body.entries.into_iter().map(|e| e.path).filter(|p| p.len() == 2 && gone(p)).collect()
        }
        Headers::Table(body) => body.entries.into_iter().map(|e| e.path).filter(|path| gone(path)).collect(),
    };
    for path in old {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        text = match headers_of(&find(&text)?) {
            Headers::Missing => text,
            Headers::Dotted(body) | Headers::Table(body) => body.without(&text, &path),
        };
    }
    Ok(text)
}

fn headers_in_braces(headers: &BTreeMap<String, String>) -> String {
    let keys: Vec<(&str, String)> =
        headers.iter().map(|(name, value)| (name.as_str(), body::basic(value))).collect();
    body::braces(&keys)
}

fn remove_webhook(text: &str, id: &str) -> Result<String, EditFault> {
    let tables = list(text, "webhook");
    let missing = || EditFault::NoWebhook(id.to_owned());
    let index = position(tables.tables(), id).ok_or_else(missing)?;
    match &tables {
        List::Missing => Err(missing()),
        List::Headers(tables) => {
            let table = tables.get(index).ok_or_else(missing)?;
            Ok(body::without_parts(text, &table.parts))
        }
        List::Brackets(_, tables) => Ok(body::without_element(text, tables, index)),
    }
}
