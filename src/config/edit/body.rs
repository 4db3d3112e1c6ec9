//! Where things stand in the text of a TOML file, and the smallest changes to it: everything outside a changed
//! value stays as it is, byte for byte.

use std::ops::Range;

use toml_edit::{Document, InlineTable, Item, Key, Table, Value};

use super::EditValue;

/// A key with its value, as it stands in the text.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key, in its dotted parts.
    pub path: Vec<String>,
    /// Where the key begins, its first part included only if this entry is the first to write it.
    head: usize,
    /// Where the last part of the key begins.
    leaf: usize,
    /// The value, without blanks and comments around it.
    pub value: Range<usize>,
    /// What it means; `None` if no edit could have written it.
    pub found: Option<EditValue>,
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Under a `[header]` or dotted, a key a line. Holds where the first line ends if there is no key.
    Lines { header: usize },
    /// `{ key = value }`. Holds where the brace opens.
    Inline { brace: usize },
}

/// A table's own keys, in the order of the text.
#[derive(Debug, Clone)]
pub(super) struct Body {
    shape: Shape,
    pub entries: Vec<Entry>,
}

/// A table under a header of its own: from the header to the last key.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// From the beginning of the header to the end of the last value.
    span: Range<usize>,
    pub name: Option<String>,
    pub body: Body,
}

/// One table of a list of tables.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub body: Body,
    /// Itself and the tables in it, if it is written under a header; else empty.
    pub parts: Vec<Part>,
    /// The tables in it that are written with braces, by their key.
    pub braces: Vec<(String, Body)>,
    /// The whole of it between braces; of no use for one under a header.
    span: Range<usize>,
}

impl Found {
    /// What a key of its own means.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        match self.body.entry(&[key])?.found.as_ref()? {
            EditValue::Text(text) => Some(text),
            EditValue::Secret(_) | EditValue::Flag(_) | EditValue::Whole(_) | EditValue::Texts(_) => None,
        }
    }
}

/// How a list of tables is written.
#[derive(Debug, Clone)]
pub(super) enum List {
    /// Not at all.
    Missing,
    /// As `[[name]]`.
    Headers(Vec<Found>),
    /// As `name = [{ … }]`. Holds where the bracket opens, and the elements.
    Brackets(usize, Vec<Found>),
}

impl List {
    /// Its tables, in the order of the text.
    pub fn tables(&self) -> &[Found] {
        match self {
            List::Missing => &[],
            List::Headers(tables) | List::Brackets(_, tables) => tables,
        }
    }
}

/// The list of tables of this name. The text is TOML: `None` if it isn't.
pub(super) fn list(text: &str, name: &str) -> Option<List> {
    let document = Document::parse(text).ok()?;
    Some(match document.as_table().get(name) {
        None | Some(Item::None) | Some(Item::Table(_)) => List::Missing,
        Some(Item::ArrayOfTables(tables)) => List::Headers(tables.iter().filter_map(under_header).collect()),
        Some(Item::Value(Value::Array(array))) => {
            let tables = array.iter().filter_map(Value::as_inline_table).filter_map(between_braces).collect();
            List::Brackets(array.span()?.start, tables)
        }
        Some(Item::Value(_)) => List::Missing,
    })
}

fn under_header(table: &Table) -> Option<Found> {
    let mut parts = Vec::new();
    collect_parts(table, None, &mut parts);
    let first = parts.first()?;
    let inline = |(key, item): (&str, &Item)| {
        Some((key.to_owned(), braces_body(item.as_value()?.as_inline_table()?)?))
    };
    let braces = table.iter().filter_map(inline).collect();
    Some(Found { body: first.body.clone(), braces, span: first.span.clone(), parts })
}

fn between_braces(table: &InlineTable) -> Option<Found> {
    let inline =
        |(key, value): (&str, &Value)| Some((key.to_owned(), braces_body(value.as_inline_table()?)?));
    // A dotted key is a table too, but without braces.
    let braces = table.iter().filter(|(_, value)| !is_dotted(value)).filter_map(inline).collect();
    Some(Found { body: braces_body(table)?, parts: Vec::new(), braces, span: table.span()? })
}

fn is_dotted(value: &Value) -> bool {
    value.as_inline_table().is_some_and(InlineTable::is_dotted)
}

fn braces_body(table: &InlineTable) -> Option<Body> {
    let shape = Shape::Inline { brace: table.span()?.start };
    Some(Body { shape, entries: entries(table.get_values()) })
}

fn collect_parts(table: &Table, name: Option<&str>, parts: &mut Vec<Part>) {
    if let Some(header) = table.span().filter(|_| !table.is_dotted() && !table.is_implicit()) {
        let entries = entries(table.get_values());
        let end = entries.last().map_or(header.end, |last| last.value.end);
        parts.push(Part {
            span: header.start..end,
            name: name.map(str::to_owned),
            body: Body { shape: Shape::Lines { header: header.end }, entries },
        });
    }
    for (key, item) in table.iter() {
        match item {
            Item::Table(inner) => collect_parts(inner, Some(key), parts),
            Item::ArrayOfTables(inner) => inner.iter().for_each(|t| collect_parts(t, Some(key), parts)),
            Item::None | Item::Value(_) => {}
        }
    }
}

fn entries(values: Vec<(Vec<&Key>, &Value)>) -> Vec<Entry> {
    let entry = |(keys, value): (Vec<&Key>, &Value)| {
        Some(Entry {
            path: keys.iter().map(|key| key.get().to_owned()).collect(),
            head: keys.first()?.span()?.start,
            leaf: keys.last()?.span()?.start,
            value: value.span()?,
            found: meaning(value),
        })
    };
    let mut entries: Vec<Entry> = values.into_iter().filter_map(entry).collect();
    entries.sort_by_key(|entry| entry.value.start);
    entries
}

fn meaning(value: &Value) -> Option<EditValue> {
    Some(match value {
        Value::String(text) => EditValue::Text(text.value().clone()),
        Value::Boolean(flag) => EditValue::Flag(*flag.value()),
        Value::Integer(number) => EditValue::Whole(u64::try_from(*number.value()).ok()?),
        Value::Array(list) => {
            EditValue::Texts(list.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>()?)
        }
        Value::Float(_) | Value::Datetime(_) | Value::InlineTable(_) => return None,
    })
}

impl Body {
    /// The entry with this key.
    pub fn entry(&self, path: &[&str]) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// The text with another value for this entry, in its style of quotes.
    pub fn replaced(text: &str, entry: &Entry, value: &EditValue) -> String {
        if entry.found.as_ref().is_some_and(|found| found.means(value)) {
            return text.to_owned();
        }
        let old = slice(text, entry.value.clone());
        let literal = old.starts_with('\'') && !old.starts_with("'''");
        splice(text, entry.value.clone(), &value.written(literal))
    }

    /// The text with another key and value instead of this entry, whose key has one part.
    pub fn renamed(text: &str, entry: &Entry, key: &str, value: &EditValue) -> String {
        let equals = equals_of(text, entry);
        splice(text, entry.leaf..entry.value.end, &format!("{}{equals}{}", bare(key), value.written(false)))
    }

    /// The text with one more key, after the last one.
    pub fn with(&self, text: &str, path: &[&str], value: &str) -> String {
        let last = self.entries.last();
        let equals = last.map_or(" = ", |last| equals_of(text, last));
        let key: Vec<String> = path.iter().map(|part| bare(part)).collect();
        let line = format!("{}{equals}{value}", key.join("."));
        match (self.shape, last) {
            (Shape::Lines { header }, _) => {
                let indent = last.map_or("", |last| indent_of(text, last.leaf));
                let at = line_end(text, last.map_or(header, |last| last.value.end));
                add_line(text, at, &format!("{indent}{line}"))
            }
            (Shape::Inline { .. }, Some(last)) => {
                let at = last.value.end;
                splice(text, at..at, &format!("{}{line}", after_comma(text, last.head)))
            }
            (Shape::Inline { brace }, None) => {
                let at = brace + 1;
                let blank = if slice(text, at..text.len()).starts_with('}') { " " } else { "" };
                splice(text, at..at, &format!(" {line}{blank}"))
            }
        }
    }

    /// The text without this entry.
    pub fn without(&self, text: &str, path: &[&str]) -> String {
        let Some(index) = self.entries.iter().position(|entry| entry.path == path) else {
            return text.to_owned();
        };
        let spans: Vec<Range<usize>> = self.entries.iter().map(|e| e.head.min(e.leaf)..e.value.end).collect();
        match (self.shape, self.entries.get(index)) {
            (Shape::Lines { .. }, Some(entry)) => remove_lines(text, entry.leaf..entry.value.end),
            (Shape::Inline { .. }, _) => remove_element(text, &spans, index),
            (Shape::Lines { .. }, None) => text.to_owned(),
        }
    }
}

impl Part {
    /// The text without this table, its header included, and without one blank line before it.
    pub fn removed(&self, text: &str) -> String {
        let start = line_start(text, self.span.start);
        let before = slice(text, 0..start);
        let above = before.strip_suffix("\r\n").or_else(|| before.strip_suffix('\n')).unwrap_or(before);
        let blank_above = above.len() < before.len() && (above.is_empty() || above.ends_with('\n'));
        remove_lines(text, if blank_above { above.len() } else { start }..self.span.end)
    }
}

/// The text without these tables' own headers and keys.
pub(super) fn without_parts(text: &str, parts: &[Part]) -> String {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.span.start));
    parts.into_iter().fold(text.to_owned(), |text, part| part.removed(&text))
}

/// The text with one more table in a list that is written `[[name]]` or not at all: behind the last one, or else
/// at the end of the file.
pub(super) fn with_table(text: &str, tables: &[Found], name: &str, keys: &[(&str, String)]) -> String {
    let newline = newline(text);
    let last = tables.iter().flat_map(|table| &table.parts).map(|part| part.span.end).max();
    let at = last.map_or(text.len(), |end| line_end(text, end));
    let blank = if slice(text, 0..at).trim_start_matches('\u{feff}').is_empty() { "" } else { newline };
    let mut lines = format!("{blank}[[{name}]]");
    for (key, value) in keys {
        lines.push_str(&format!("{newline}{} = {value}", bare(key)));
    }
    add_line(text, at, &lines)
}

/// The text with one more table in a list that is written `name = [{ … }]`.
pub(super) fn with_element(text: &str, bracket: usize, tables: &[Found], keys: &[(&str, String)]) -> String {
    let element = braces(keys);
    match tables.last() {
        Some(last) => {
            let at = last.span.end;
            splice(text, at..at, &format!("{}{element}", after_comma(text, last.span.start)))
        }
        None => splice(text, bracket + 1..bracket + 1, &element),
    }
}

/// The text without this element of a list that is written `name = [{ … }]`.
pub(super) fn without_element(text: &str, tables: &[Found], index: usize) -> String {
    let spans: Vec<Range<usize>> = tables.iter().map(|table| table.span.clone()).collect();
    remove_element(text, &spans, index)
}

/// `{ key = value, … }`
pub(super) fn braces(keys: &[(&str, String)]) -> String {
    if keys.is_empty() {
        return "{}".to_owned();
    }
    let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{} = {value}", bare(key))).collect();
    format!("{{ {} }}", keys.join(", "))
}

/// What separates elements of a list: a line of its own each, or not, as the last one has it.
fn after_comma(text: &str, last_start: usize) -> String {
    let start = line_start(text, last_start);
    let before = slice(text, start..last_start);
    if before.trim().is_empty() && start > 0 {
        format!(",{}{before}", newline(text))
    } else {
        ", ".to_owned()
    }
}

/// Takes an element out of a list, with one of the commas beside it.
fn remove_element(text: &str, spans: &[Range<usize>], index: usize) -> String {
    let Some(span) = spans.get(index) else { return text.to_owned() };
    if let Some(before) = index.checked_sub(1).and_then(|before| spans.get(before)) {
        return splice(text, before.end..span.end, "");
    }
    let end = match spans.get(1) {
        Some(_) => behind_comma(text, span.end),
        None => span.end,
    };
    splice(text, span.start..end, "")
}

/// Where the next element begins: behind blanks, comments, one comma and the blanks behind that.
fn behind_comma(text: &str, from: usize) -> usize {
    let mut comma = false;
    let mut comment = false;
    for (at, c) in slice(text, from..text.len()).char_indices() {
        match c {
            '\n' => comment = false,
            _ if comment => {}
            '#' if !comma => comment = true,
            ',' if !comma => comma = true,
            ' ' | '\t' | '\r' => {}
            _ => return from + at,
        }
    }
    text.len()
}

/// Adds whole lines, without a line break at their end, where a line begins or the text ends.
fn add_line(text: &str, at: usize, lines: &str) -> String {
    let newline = newline(text);
    let before = slice(text, 0..at);
    let broken = before.is_empty() || before.ends_with('\n') || before == "\u{feff}";
    if broken {
        splice(text, at..at, &format!("{lines}{newline}"))
    } else {
        splice(text, at..at, &format!("{newline}{lines}"))
    }
}

/// Takes out the lines that the range touches. The last line of a file may lack its break: then the line before
/// lacks it afterwards.
fn remove_lines(text: &str, range: Range<usize>) -> String {
    let start = line_start(text, range.start);
    let end = line_end(text, range.end);
    let cut = splice(text, start..end, "");
    if end == text.len() && !text.ends_with('\n') && start == cut.len() {
        let without = cut.strip_suffix("\r\n").or_else(|| cut.strip_suffix('\n')).map(str::to_owned);
        return without.unwrap_or(cut);
    }
    cut
}

fn slice(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or("")
}

fn splice(text: &str, range: Range<usize>, with: &str) -> String {
    let mut changed = String::with_capacity(text.len() + with.len());
    changed.push_str(slice(text, 0..range.start));
    changed.push_str(with);
    changed.push_str(slice(text, range.end..text.len()));
    changed
}

fn line_start(text: &str, at: usize) -> usize {
    slice(text, 0..at).rfind('\n').map_or(0, |newline| newline + 1)
}

/// Behind the line break, or the end of the text.
fn line_end(text: &str, at: usize) -> usize {
    slice(text, at..text.len()).find('\n').map_or(text.len(), |newline| at + newline + 1)
}

fn indent_of(text: &str, at: usize) -> &str {
    let line = slice(text, line_start(text, at)..at);
    let blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
    line.get(..blanks).unwrap_or("")
}

/// ` = ` or `=`, as the entry has it. Keys that are lined up have more blanks: one will do.
fn equals_of(text: &str, entry: &Entry) -> &'static str {
    if slice(text, 0..entry.value.start).ends_with('=') { "=" } else { " = " }
}

/// The file's way to end a line.
pub(super) fn newline(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if slice(text, 0..at).ends_with('\r') => "\r\n",
        Some(_) | None => "\n",
    }
}

/// A key as it is written: in quotes if it must be.
fn bare(key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if plain { key.to_owned() } else { basic(key) }
}

/// A basic string (TOML 1.0, "String").
pub(super) fn basic(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
