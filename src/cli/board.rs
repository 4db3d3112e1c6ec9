//! What `watrunk check` says about the board: the settings it can make, as they are in force, and who made them.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::{Inspected, Origin};

/// One line for the board, then one for each setting.
pub(super) fn in_force(found: &Inspected, config: &Path) -> String {
    let mut text = String::new();
    let board_file = found.board.path.as_deref().map(|path| path.display().to_string());
    let _ = match &board_file {
        Some(file) => {
            writeln!(text, "board: {} ({}), from {file}", found.board.name, found.board.description)
        }
        None => writeln!(text, "board: none"),
    };
    for value in &found.in_force {
        let from = match (value.origin, &board_file) {
            (Origin::File(line), _) => format!("{}:{line}", config.display()),
            (Origin::Board(line), Some(file)) => format!("{file}:{line}"),
            (Origin::Board(_) | Origin::BuiltIn, _) => "default".to_owned(),
        };
        let _ = writeln!(text, "in force: {} = {} ({from})", value.key, value.value);
    }
    text
}
