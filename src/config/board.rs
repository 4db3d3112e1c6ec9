//! The board's own file: what the hardware can carry, as the lowest layer under the operator's file.
//!
//! Lowest first: what is built in, the board file, the config file. A board file says only what depends on the
//! hardware; a box without one runs with what is built in.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::reader::{Reader, Section};
use super::secret::Unread;
use super::sections::{GatewayConfig, MediaConfig};
use super::{known, text_of};

/// Where the board file is unless `WATRUNK_BOARD` says otherwise.
pub const BOARD_PATH: &str = "/usr/lib/watrunk/board.toml";

/// What is known about the hardware.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Board {
    /// The file it was read from; `None`: there is none.
    pub path: Option<PathBuf>,
    /// A short name, as in `pi4`; empty if there is no file.
    pub name: String,
    /// The name for people.
    pub description: String,
    /// The target triple that its binary is built for.
    pub target: Option<String>,
    /// Seconds after which the hardware's watchdog resets the board; `None`: it has none.
    pub watchdog_seconds: Option<u64>,
    /// The status LED's name in `/sys/class/leds`.
    pub led: Option<String>,
    /// `gateway.max_calls`, and its line.
    pub(super) max_calls: Option<(usize, usize)>,
    /// `media.opus_complexity`, and its line.
    pub(super) opus_complexity: Option<(u8, usize)>,
    /// `media.threads`, and its line.
    pub(super) threads: Option<(usize, usize)>,
}

impl Board {
    /// Reads a board file's text.
    ///
    /// # Errors
    /// Every fault in it, in its order.
    pub fn parse(text: &str) -> Result<Board, Vec<Fault>> {
        // A board has no secrets.
        let reader = Reader::new(text, &Unread).knowing(known::BOARD_SECTIONS);
        reader.document(known::BOARD, board).value
    }

    /// Reads the board file of this machine. `named` is what `WATRUNK_BOARD` holds: then that file must be there,
    /// and an empty name means no board file at all.
    ///
    /// # Errors
    /// Every fault in it, each with the file's name.
    pub(super) fn of_machine(named: Option<&OsStr>) -> Result<Board, Vec<Fault>> {
        let path = match named {
            Some(name) if name.is_empty() => return Ok(Board::default()),
            Some(name) => Path::new(name),
            None => Path::new(BOARD_PATH),
        };
        let in_it = |faults: Vec<Fault>| faults.into_iter().map(|fault| fault.of(path)).collect::<Vec<_>>();
        let text = match text_of(path) {
            Err((_, Some(ErrorKind::NotFound))) if named.is_none() => return Ok(Board::default()),
            Err((fault, _)) => return Err(in_it(vec![fault])),
            Ok((text, _)) => text,
        };
        let board = Board::parse(&text).map_err(in_it)?;
        Ok(Board { path: Some(path.to_owned()), ..board })
    }

    /// `[gateway]` when the config file says nothing.
    pub(super) fn gateway(&self) -> GatewayConfig {
        let built_in = GatewayConfig::default();
        GatewayConfig { max_calls: self.max_calls.map_or(built_in.max_calls, |(n, _)| n), ..built_in }
    }

    /// `[media]` when the config file says nothing.
    pub(super) fn media(&self) -> MediaConfig {
        let built_in = MediaConfig::default();
        MediaConfig {
            opus_complexity: self.opus_complexity.map_or(built_in.opus_complexity, |(n, _)| n),
            threads: self.threads.map(|(n, _)| n).or(built_in.threads),
            ..built_in
        }
    }
}

fn board(r: &mut Reader<'_>, root: &Section<'_>) -> Board {
    let gateway = r.section(root, "gateway", known::BOARD_GATEWAY);
    let media = r.section(root, "media", known::BOARD_MEDIA);
    r.need(root, "name");
    let name = r.text(root, "name").map(|found| found.value).unwrap_or_default();
    let max_calls = max_calls(r, &gateway);
    let opus_complexity = opus_complexity(r, &media);
    let threads = threads(r, &media);
    let line = |r: &Reader<'_>, section: &Section<'_>, key| r.at(section, key).line;
    Board {
        path: None,
        description: r.text(root, "description").map_or_else(|| name.clone(), |found| found.value),
        name,
        target: r.text(root, "target").map(|found| found.value),
        watchdog_seconds: r.whole(root, "watchdog_seconds", 1..=3_600, "seconds"),
        led: r.parsed(root, "led", led),
        max_calls: max_calls.map(|n| (n, line(r, &gateway, "max_calls"))),
        opus_complexity: opus_complexity.map(|n| (n, line(r, &media, "opus_complexity"))),
        threads: threads.map(|n| (n, line(r, &media, "threads"))),
    }
}

/// `max_calls` of a `[gateway]`, in either file.
pub(super) fn max_calls(r: &mut Reader<'_>, gateway: &Section<'_>) -> Option<usize> {
    r.whole(gateway, "max_calls", 1..=10_000, "calls")
}

/// `opus_complexity` of a `[media]`, in either file.
pub(super) fn opus_complexity(r: &mut Reader<'_>, media: &Section<'_>) -> Option<u8> {
    r.whole(media, "opus_complexity", 0..=10, "0 is the cheapest")
}

/// `threads` of a `[media]`, in either file.
pub(super) fn threads(r: &mut Reader<'_>, media: &Section<'_>) -> Option<usize> {
    r.whole(media, "threads", 1..=256, "threads")
}

/// A name in `/sys/class/leds`: it becomes part of a path.
fn led(text: &str) -> Result<String, String> {
    if text.contains('/') || text.starts_with('.') || text.chars().any(char::is_control) {
        return Err(format!("must be a name in /sys/class/leds, is \"{text}\""));
    }
    Ok(text.to_owned())
}

/// Where a value in force came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Neither file says anything.
    BuiltIn,
    /// The board file, in this line.
    Board(usize),
    /// The config file, in this line.
    File(usize),
}

/// A setting that a board can make, as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The key, as in `gateway.max_calls`.
    pub key: &'static str,
    /// The value, for people.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
}

/// The settings that a board can make. The sections are those of the config file.
pub(super) fn in_force(
    r: &Reader<'_>,
    board: &Board,
    (gateway, gateway_at): (&GatewayConfig, &Section<'_>),
    (media, media_at): (&MediaConfig, &Section<'_>),
) -> Vec<InForce> {
    let origin = |section: &Section<'_>, key: &str, board: Option<usize>| match (section.has(key), board) {
        (true, _) => Origin::File(r.at(section, key).line),
        (false, Some(line)) => Origin::Board(line),
        (false, None) => Origin::BuiltIn,
    };
    let threads = media.threads.map_or_else(|| "one per core".to_owned(), |n| n.to_string());
    vec![
        InForce {
            key: "gateway.max_calls",
            value: gateway.max_calls.to_string(),
            origin: origin(gateway_at, "max_calls", board.max_calls.map(|(_, line)| line)),
        },
        InForce {
            key: "media.opus_complexity",
            value: media.opus_complexity.to_string(),
            origin: origin(media_at, "opus_complexity", board.opus_complexity.map(|(_, line)| line)),
        },
        InForce {
            key: "media.threads",
            value: threads,
            origin: origin(media_at, "threads", board.threads.map(|(_, line)| line)),
        },
    ]
}
