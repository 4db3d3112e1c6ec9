//! What is wrong with a config file, and where: one line for people per fault.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// Longest sentence that is printed, in characters.
const MAX_SENTENCE: usize = 300;

/// What is said about a secret of the example that was never changed.
pub(super) const PLACEHOLDER: &str = "is still the placeholder of the example";

/// A place in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
    pub key: String,
}

/// Something that keeps the gateway from starting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, if it is another one than the config file.
    pub file: Option<PathBuf>,
    /// Line in the file, from 1; 0 if the fault has none (a missing section, an unreadable file).
    pub line: usize,
    /// Column in characters, from 1; 0 where `line` is 0.
    pub column: usize,
    /// The key, as in `trunk[2].server`: lists count from 1, and a list of one has no number. Empty if the
    /// fault is about the whole file.
    pub key: String,
    /// What is wrong, as the rest of a sentence that begins with the key.
    pub what: String,
    /// What to do about it, if that can be guessed.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault of the whole file.
    pub fn of_file(what: impl Into<String>) -> Fault {
        Fault { file: None, line: 0, column: 0, key: String::new(), what: what.into(), hint: None }
    }

    pub(super) fn at(place: &Place, what: impl Into<String>) -> Fault {
        Fault {
            file: None,
            line: place.line,
            column: place.column,
            key: place.key.clone(),
            what: what.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault, of another file than the config file.
    pub(super) fn of(mut self, file: &Path) -> Fault {
        self.file = Some(file.to_owned());
        self
    }

    /// `watrunk.toml:12: trunk.expires: must be between 20 and 86400 (seconds), is 5`
    pub fn in_file<'a>(&'a self, path: &'a Path) -> impl fmt::Display + 'a {
        Line {
            path: Some(self.file.as_deref().unwrap_or(path)),
            line: self.line,
            key: &self.key,
            what: &self.what,
            hint: self.hint.as_deref(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { file, line, key, what, hint, .. } = self;
        Line { path: file.as_deref(), line: *line, key, what, hint: hint.as_deref() }.fmt(f)
    }
}

impl std::error::Error for Fault {}

/// Something an operator should know, with which the gateway runs all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Line in the file, from 1; 0 if the note has none.
    pub line: usize,
    /// Column in characters, from 1; 0 where `line` is 0.
    pub column: usize,
    /// The key, written as in [`Fault::key`].
    pub key: String,
    /// What is worth knowing.
    pub what: String,
}

impl Note {
    /// Whether it is about a secret of the example that was never changed: nothing can run with that.
    pub fn is_placeholder(&self) -> bool {
        self.what == PLACEHOLDER
    }

    pub(super) fn at(place: &Place, what: impl Into<String>) -> Note {
        Note { line: place.line, column: place.column, key: place.key.clone(), what: what.into() }
    }

    /// `watrunk.toml:12: media.stun: not in force in this version`
    pub fn in_file<'a>(&'a self, path: &'a Path) -> impl fmt::Display + 'a {
        Line { path: Some(path), line: self.line, key: &self.key, what: &self.what, hint: None }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Line { path: None, line: self.line, key: &self.key, what: &self.what, hint: None }.fmt(f)
    }
}

/// The one way in which both are written.
struct Line<'a> {
    path: Option<&'a Path>,
    line: usize,
    key: &'a str,
    what: &'a str,
    hint: Option<&'a str>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path, self.line) {
            (Some(path), 0) => write!(f, "{}: ", path.display())?,
            (Some(path), line) => write!(f, "{}:{line}: ", path.display())?,
            (None, 0) => {}
            (None, line) => write!(f, "line {line}: ")?,
        }
        if !self.key.is_empty() {
            one_line(f, self.key)?;
            f.write_str(": ")?;
        }
        one_line(f, self.what)?;
        match self.hint {
            Some(hint) => {
                f.write_str("; ")?;
                one_line(f, hint)
            }
            None => Ok(()),
        }
    }
}

/// Values out of the file are quoted: they must neither break the line nor steer the terminal.
fn one_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars().take(MAX_SENTENCE) {
        if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
    }
    if text.chars().nth(MAX_SENTENCE).is_some() { f.write_str("…") } else { Ok(()) }
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    // A key of another program's file may be as long as it likes: nothing that long is a typing error.
    if word.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        // `listen` for `listen_ip` is a plain beginning, not a slip of the finger: it costs one. The other way round
        // it costs two: `recording_consnt` is rather `recording_consent` than `recording`.
        .map(|(far, candidate)| {
            let cost = match word.len() >= 3 {
                true if candidate.starts_with(&word) => far.min(1),
                true if word.starts_with(candidate) => far.min(2),
                true | false => far,
            };
            (cost, far, candidate)
        })
        .filter(|(cost, _, candidate)| *cost <= 1 + candidate.len().max(word.len()) / 4)
        .min_by_key(|(cost, far, _)| (*cost, *far))
        .map(|(_, _, candidate)| candidate)
}

/// Edit distance with swaps of neighbours counted as one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let swap = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + swap);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_strange_word_is_not() {
        let known = ["listen_ip", "public_ip", "stun", "jitter_ms"];
        assert_eq!(nearest("lisen_ip", known), Some("listen_ip"));
        assert_eq!(nearest("listen", known), Some("listen_ip"));
        assert_eq!(nearest("sutn", known), Some("stun"));
        assert_eq!(nearest("stun_server", known), Some("stun"));
        assert_eq!(nearest("stun_servrs", ["stun", "stun_servers"]), Some("stun_servers"));
        assert_eq!(nearest("stun_srvrs", ["stun", "stun_servers"]), Some("stun_servers"));
        assert_eq!(nearest("JITTER_MS", known), Some("jitter_ms"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(5_000), known), None);
    }

    #[test]
    fn a_fault_prints_file_line_key_reason_and_hint() {
        let fault = Fault {
            file: None,
            line: 12,
            column: 1,
            key: "trunk.expires".into(),
            what: "must be between 20 and 86400 (seconds), is 5".into(),
            hint: None,
        };
        assert_eq!(
            fault.in_file(Path::new("watrunk.toml")).to_string(),
            "watrunk.toml:12: trunk.expires: must be between 20 and 86400 (seconds), is 5"
        );
        let hinted = Fault { hint: Some("say 300".into()), ..fault };
        assert_eq!(
            hinted.to_string(),
            "line 12: trunk.expires: must be between 20 and 86400 (seconds), is 5; say 300"
        );
        let elsewhere = hinted.of(Path::new("board.toml"));
        assert!(elsewhere.in_file(Path::new("watrunk.toml")).to_string().starts_with("board.toml:12: "));
        assert!(elsewhere.to_string().starts_with("board.toml:12: "));
        assert_eq!(Fault::of_file("is empty").in_file(Path::new("a.toml")).to_string(), "a.toml: is empty");
    }
}
