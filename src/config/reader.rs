//! The door of the toml crate: values taken out of its tables one by one, each fault noted with its place.

use std::ops::{Range, RangeInclusive};
use std::path::Path;

use rust_decimal::Decimal;
use toml::de::{DeTable, DeValue};

use super::board::InForce;
use super::fault::{Fault, Note, PLACEHOLDER, Place, nearest};
use super::known;
use super::money::amount;
use super::secret::{FileBeside, Secret, SecretSource};
use super::sections::SoundFile;

/// Faults beyond this many are not kept: nobody reads them.
const MAX_FAULTS: usize = 200;

/// A table of the file, or the place where one is missing.
#[derive(Debug, Clone)]
pub(super) struct Section<'d> {
    table: Option<&'d DeTable<'d>>,
    at: Place,
}

impl Section<'_> {
    /// Whether the key is there, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Where the section begins.
    pub fn place(&self) -> &Place {
        &self.at
    }

    /// The full name of a key in this section.
    fn path(&self, key: &str) -> String {
        if self.at.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at.key) }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub value: T,
    pub at: Place,
}

/// What has been found out about the file so far.
pub(super) struct Reader<'a> {
    line_starts: Vec<usize>,
    text: &'a str,
    secrets: &'a dyn SecretSource,
    faults: Vec<Fault>,
    notes: Vec<Note>,
    secrets_in_place: bool,
    sections: &'static [(&'static str, &'static [&'static str])],
    in_force: Vec<InForce>,
    sounds: Vec<SoundFile>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, secrets: &'a dyn SecretSource) -> Reader<'a> {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Reader {
            line_starts,
            text,
            secrets,
            faults: Vec::new(),
            notes: Vec::new(),
            secrets_in_place: false,
            sections: known::SECTIONS,
            in_force: Vec::new(),
            sounds: Vec::new(),
        }
    }

    /// The sections that a key without a home may belong to.
    pub fn knowing(self, sections: &'static [(&'static str, &'static [&'static str])]) -> Reader<'a> {
        Reader { sections, ..self }
    }

    /// Keeps what is in force, to be told with the outcome.
    pub fn keep(&mut self, in_force: Vec<InForce>) {
        self.in_force = in_force;
    }

    /// A key names a sound file that looks like one.
    pub fn sound_file(&mut self, path: &Path, at: Place) {
        self.sounds.push(SoundFile { path: path.to_owned(), at });
    }

    /// All that were named.
    pub fn take_sounds(&mut self) -> Vec<SoundFile> {
        std::mem::take(&mut self.sounds)
    }

    /// Runs `read` over the file's root table. Nothing is read from a file that isn't TOML: its faults are
    /// all there is to say.
    pub fn document<T>(
        mut self,
        known: &[&str],
        read: impl FnOnce(&mut Reader<'a>, &Section<'_>) -> T,
    ) -> Outcome<T> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let at = error.span().map(|span| self.place(&span, String::new())).unwrap_or_default();
            self.faults.push(Fault::at(&at, format!("is not TOML: {}", error.message())));
        }
        let mut value = None;
        if self.faults.is_empty() {
            let section = Section { table: Some(root.get_ref()), at: Place::default() };
            self.refuse_unknown(&section, known);
            value = Some(read(&mut self, &section));
        }
        let Reader { mut faults, mut notes, secrets_in_place, in_force, .. } = self;
        faults.sort();
        faults.dedup();
        faults.truncate(MAX_FAULTS);
        notes.sort();
        match value {
            Some(value) if faults.is_empty() => {
                Outcome { value: Ok(value), notes, secrets_in_place, in_force }
            }
            _ => Outcome { value: Err(faults), notes, secrets_in_place, in_force },
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub fn note(&mut self, at: &Place, what: impl Into<String>) {
        self.notes.push(Note::at(at, what));
    }

    /// Whether nothing is wrong with the key of this place: only then is it worth comparing with others.
    pub fn sound(&self, at: &Place) -> bool {
        self.faults.iter().all(|fault| fault.key != at.key)
    }

    /// Whether nothing is wrong with the key of this place nor with anything in it.
    pub fn sound_below(&self, at: &Place) -> bool {
        let inside = |key: &str| {
            key.strip_prefix(&at.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
        };
        !self.faults.iter().any(|fault| inside(&fault.key))
    }

    /// Where a key stands; the section's own place if the key isn't there.
    pub fn at(&self, section: &Section<'_>, key: &str) -> Place {
        match section.table.and_then(|table| table.get(key)) {
            Some(value) => self.place(&value.span(), section.path(key)),
            None => Place { key: section.path(key), ..section.at.clone() },
        }
    }

    fn place(&self, span: &Range<usize>, key: String) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..span.start).map_or(0, |before| before.chars().count()) + 1;
        Place { line, column, key }
    }

    fn wrong_type(&mut self, at: &Place, wanted: &str, value: &DeValue<'_>) {
        let is = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(Fault::at(at, format!("must be {wanted}, is {is}")));
    }

    fn refuse_unknown(&mut self, section: &Section<'_>, known: &[&str]) {
        let Some(table) = section.table else { return };
        for key in table.keys() {
            let word: &str = key.get_ref();
            if known.contains(&word) {
                continue;
            }
            let shown: String = word.chars().take(64).collect();
            let at = self.place(&key.span(), section.path(&shown));
            let fault = Fault::at(&at, "unknown key");
            let elsewhere = self.sections.iter().find(|(_, keys)| keys.contains(&word));
            let fault = match (nearest(word, known.iter().copied()), elsewhere) {
                (Some(near), _) => fault.hint(format!("did you mean `{near}`?")),
                (None, Some((name, _))) => fault.hint(format!("it belongs in {name}")),
                (None, None) => fault,
            };
            self.fault(fault);
        }
    }

    /// A `[name]` section inside `parent`, its unknown keys refused. It may be missing.
    pub fn section<'d>(&mut self, parent: &Section<'d>, name: &str, known: &[&str]) -> Section<'d> {
        let at = self.at(parent, name);
        let found = parent.table.and_then(|table| table.get(name));
        let table = match found.map(|value| value.get_ref()) {
            Some(DeValue::Table(table)) => Some(table),
            Some(DeValue::Array(_)) => {
                self.fault(Fault::at(&at, "must be one table, is a list").hint(format!("write [{name}]")));
                None
            }
            Some(other) => {
                self.wrong_type(&at, "a table", other);
                None
            }
            None => None,
        };
        let section = Section { table, at };
        self.refuse_unknown(&section, known);
        section
    }

    /// The `[[name]]` sections inside `parent`, in order, their unknown keys refused.
    pub fn sections<'d>(&mut self, parent: &Section<'d>, name: &str, known: &[&str]) -> Vec<Section<'d>> {
        let at = self.at(parent, name);
        let Some(found) = parent.table.and_then(|table| table.get(name)) else { return Vec::new() };
        let DeValue::Array(list) = found.get_ref() else {
            let fault = Fault::at(&at, "must be a list of tables");
            self.fault(fault.hint(format!("write [[{}]]", parent.path(name))));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let key = if list.len() == 1 {
                parent.path(name)
            } else {
                format!("{}[{}]", parent.path(name), index + 1)
            };
            let at = self.place(&item.span(), key);
            match item.get_ref() {
                DeValue::Table(table) => {
                    let section = Section { table: Some(table), at };
                    self.refuse_unknown(&section, known);
                    sections.push(section);
                }
                other => self.wrong_type(&at, "a table", other),
            }
        }
        sections
    }

    fn value<'d>(&self, section: &Section<'d>, key: &str) -> Option<Found<&'d DeValue<'d>>> {
        let value = section.table?.get(key)?;
        Some(Found { value: value.get_ref(), at: self.place(&value.span(), section.path(key)) })
    }

    /// Says that a key must be there, if it isn't.
    pub fn need(&mut self, section: &Section<'_>, key: &str) {
        if !section.has(key) {
            let at = self.at(section, key);
            self.fault(Fault::at(&at, "is missing"));
        }
    }

    /// A string that isn't empty.
    pub fn text(&mut self, section: &Section<'_>, key: &str) -> Option<Found<String>> {
        let found = self.value(section, key)?;
        self.string(found)
    }

    fn string(&mut self, found: Found<&DeValue<'_>>) -> Option<Found<String>> {
        let Found { value, at } = found;
        match value {
            DeValue::String(text) if text.is_empty() => {
                self.fault(Fault::at(&at, "must not be empty"));
                None
            }
            DeValue::String(text) => Some(Found { value: text.clone().into_owned(), at }),
            other => {
                self.wrong_type(&at, "a string", other);
                None
            }
        }
    }

    /// A string that means something. The error of `meaning` completes the sentence "the key …".
    pub fn parsed<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        meaning: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let found = self.text(section, key)?;
        match meaning(&found.value) {
            Ok(value) => Some(value),
            Err(what) => {
                self.fault(Fault::at(&found.at, what));
                None
            }
        }
    }

    /// As [`Reader::parsed`], of a string that may be empty.
    pub fn parsed_or_empty<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        meaning: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.value(section, key)?.value {
            DeValue::String(text) if text.is_empty() => meaning("").ok(),
            _ => self.parsed(section, key, meaning),
        }
    }

    /// An amount of money: a number or a string, meant exactly as it is written.
    pub fn amount(&mut self, section: &Section<'_>, key: &str) -> Option<Decimal> {
        let Found { value, at } = self.value(section, key)?;
        let read = match value {
            DeValue::Integer(number) if number.radix() == 10 => amount(number.as_str()),
            DeValue::Integer(number) => Err(format!("must be written in decimal, is {number}")),
            DeValue::Float(number) => amount(number.as_str()),
            DeValue::String(text) => amount(text),
            other => {
                self.wrong_type(&at, "an amount like 0.0125", other);
                return None;
            }
        };
        read.map_err(|what| self.fault(Fault::at(&at, what))).ok()
    }

    /// A table of strings, none of them empty, by the names of the file. They are taken for secrets.
    pub fn named_texts(&mut self, section: &Section<'_>, key: &str) -> Option<Vec<(String, Found<String>)>> {
        let Found { value, at } = self.value(section, key)?;
        let DeValue::Table(table) = value else {
            self.wrong_type(&at, "a table of strings", value);
            return None;
        };
        let mut texts = Vec::new();
        for (name, item) in table {
            let shown: String = name.get_ref().chars().take(64).collect();
            let at = self.place(&item.span(), format!("{}.{shown}", at.key));
            if let Some(found) = self.string(Found { value: item.get_ref(), at }) {
                texts.push((name.get_ref().clone().into_owned(), found));
            }
        }
        self.secrets_in_place |= !texts.is_empty();
        Some(texts)
    }

    /// One of a few words.
    pub fn word<T: Copy>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let found = self.text(section, key)?;
        self.word_of(&found, words)
    }

    fn word_of<T: Copy>(&mut self, found: &Found<String>, words: &[(&'static str, T)]) -> Option<T> {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == found.value) {
            return Some(*value);
        }
        let list: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let fault = Fault::at(&found.at, format!("must be {}, is \"{}\"", list.join(" or "), found.value));
        self.fault(match nearest(&found.value, words.iter().map(|(word, _)| *word)) {
            Some(near) => fault.hint(format!("did you mean \"{near}\"?")),
            None => fault,
        });
        None
    }

    /// A list of strings, none empty.
    pub fn texts(&mut self, section: &Section<'_>, key: &str) -> Option<Vec<Found<String>>> {
        let Found { value, at } = self.value(section, key)?;
        let DeValue::Array(list) = value else {
            self.wrong_type(&at, "a list of strings", value);
            return None;
        };
        let mut texts = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let at = self.place(&item.span(), format!("{}[{}]", at.key, index + 1));
            texts.extend(self.string(Found { value: item.get_ref(), at }));
        }
        Some(texts)
    }

    /// A list of words, none twice.
    pub fn words<T: Copy + PartialEq>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        words: &[(&'static str, T)],
    ) -> Option<Vec<T>> {
        let mut values = Vec::new();
        for found in self.texts(section, key)? {
            let Some(value) = self.word_of(&found, words) else { continue };
            if values.contains(&value) {
                self.fault(Fault::at(&found.at, format!("\"{}\" is in the list twice", found.value)));
            } else {
                values.push(value);
            }
        }
        Some(values)
    }

    /// A whole number within `range`; `unit` is what it counts.
    pub fn whole<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        range: RangeInclusive<u64>,
        unit: &str,
    ) -> Option<T>
    where
        T: TryFrom<u64>,
    {
        let Found { value, at } = self.value(section, key)?;
        let DeValue::Integer(number) = value else {
            self.wrong_type(&at, "a whole number", value);
            return None;
        };
        let read = u64::from_str_radix(number.as_str(), number.radix()).ok();
        if let Some(read) = read.filter(|read| range.contains(read))
            && let Ok(value) = T::try_from(read)
        {
            return Some(value);
        }
        let (low, high) = (range.start(), range.end());
        self.fault(Fault::at(&at, format!("must be between {low} and {high} ({unit}), is {number}")));
        None
    }

    /// `true` or `false`.
    pub fn flag(&mut self, section: &Section<'_>, key: &str) -> Option<bool> {
        let Found { value, at } = self.value(section, key)?;
        match value {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                self.wrong_type(&at, "true or false", other);
                None
            }
        }
    }

    /// A secret, in place or by `key_file` or `key_env`; never two of them. What is wrong with it is told
    /// without telling it.
    pub fn secret(&mut self, section: &Section<'_>, key: &str) -> Option<Secret> {
        let (by_file, by_env) = (format!("{key}_file"), format!("{key}_env"));
        let ways = [key, by_file.as_str(), by_env.as_str()];
        let mut given = ways.into_iter().filter(|way| section.has(way));
        let way = given.next()?;
        if let Some(second) = given.next() {
            let at = self.at(section, second);
            self.fault(Fault::at(&at, format!("is given as `{way}` too")).hint("keep one of them"));
            return None;
        }
        let found = self.text(section, way)?;
        let text = if way == by_file {
            match self.secrets.file(Path::new(&found.value)) {
                Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
                Err(why) => {
                    self.fault(Fault::at(&found.at, format!("can't read \"{}\": {why}", found.value)));
                    return None;
                }
            }
        } else if way == by_env {
            match self.secrets.variable(&found.value) {
                Some(text) => text,
                None => {
                    self.fault(Fault::at(
                        &found.at,
                        format!("the environment variable {} is not set", found.value),
                    ));
                    return None;
                }
            }
        } else {
            self.secrets_in_place = true;
            found.value
        };
        if text.is_empty() {
            self.fault(Fault::at(&found.at, "the secret is empty"));
            return None;
        }
        if text.chars().any(char::is_control) {
            self.fault(Fault::at(&found.at, "the secret must be one line without control characters"));
            return None;
        }
        if text.starts_with("CHANGE-ME") {
            self.note(&found.at, PLACEHOLDER);
        }
        Some(Secret::new(text))
    }

    /// A file that others open later: where it is, and its first `most` bytes, if they could be looked at.
    pub fn file_beside(&mut self, section: &Section<'_>, key: &str, most: u64) -> Option<Found<FileBeside>> {
        let Found { value, at } = self.text(section, key)?;
        match self.secrets.look_at(Path::new(&value), most) {
            Ok(found) => Some(Found { value: found, at }),
            Err(why) => {
                self.fault(Fault::at(&at, format!("can't read \"{value}\": {why}")));
                None
            }
        }
    }

    /// A secret without which there is no gateway.
    pub fn need_secret(&mut self, section: &Section<'_>, key: &str) -> Option<Secret> {
        let given =
            [key, &format!("{key}_file"), &format!("{key}_env")].into_iter().any(|way| section.has(way));
        if !given {
            let at = self.at(section, key);
            let fault = Fault::at(&at, "is missing");
            self.fault(fault.hint(format!("give it as `{key}`, `{key}_file` or `{key}_env`")));
        }
        self.secret(section, key)
    }
}

/// What remains when the file has been read.
pub(super) struct Outcome<T> {
    pub value: Result<T, Vec<Fault>>,
    pub notes: Vec<Note>,
    /// Whether the file itself holds a secret.
    pub secrets_in_place: bool,
    /// The settings that a board can make.
    pub in_force: Vec<InForce>,
}
