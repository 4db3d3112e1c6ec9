//! The ladder: every message as an arrow between its two ends, printed as it happens.

use std::io::Write as _;

use crate::clock::Tick;
use crate::io::clock;

/// Who can stand at an end of an arrow, from left to right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// The person with the telephone.
    User,
    /// Meta's cloud.
    Meta,
    /// Us.
    Watrunk,
    /// The PBX, or the voice agent.
    Far,
}

impl Lane {
    const ALL: [Lane; 4] = [Lane::User, Lane::Meta, Lane::Watrunk, Lane::Far];

    /// The column of its line.
    fn column(self) -> usize {
        match self {
            Lane::User => 17,
            Lane::Meta => 42,
            Lane::Watrunk => 67,
            Lane::Far => 92,
        }
    }

    fn name(self, far: &'static str) -> &'static str {
        match self {
            Lane::User => "WhatsApp user",
            Lane::Meta => "Meta",
            Lane::Watrunk => "watrunk",
            Lane::Far => far,
        }
    }
}

/// Prints, or keeps quiet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ladder {
    start: Tick,
    quiet: bool,
}

impl Ladder {
    /// A ladder whose time starts now; a quiet one prints nothing.
    pub fn new(quiet: bool) -> Ladder {
        Ladder { start: clock::tick(), quiet }
    }

    /// The names above the lines; the last one as given.
    pub fn head(self, far: &'static str) {
        self.print(&head(far));
        self.print(&line(None, None));
    }

    /// A message that passes now.
    pub fn arrow(self, from: Lane, to: Lane, label: &str) {
        let millis = clock::tick().since(self.start).as_millis();
        self.print(&line(Some(millis), Some((from, to, label))));
    }

    fn print(self, line: &str) {
        if !self.quiet {
            // A reader that has gone away does not end the call.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
}

fn head(far: &'static str) -> String {
    let mut text = String::new();
    for lane in Lane::ALL {
        let name = lane.name(far);
        let begin = lane.column().saturating_sub(name.len() / 2);
        text.push_str(&" ".repeat(begin.saturating_sub(text.chars().count())));
        text.push_str(name);
    }
    text
}

/// One line of the picture, at most 100 columns wide.
fn line(millis: Option<u128>, arrow: Option<(Lane, Lane, &str)>) -> String {
    let mut cells = vec![' '; Lane::Far.column() + 1];
    if let Some(millis) = millis {
        for (cell, c) in cells.iter_mut().zip(format!("{millis:>6} ms").chars()) {
            *cell = c;
        }
    }
    for lane in Lane::ALL {
        if let Some(cell) = cells.get_mut(lane.column()) {
            *cell = '│';
        }
    }
    if let Some((from, to, label)) = arrow {
        let (left, right) = (from.min(to).column() + 1, from.max(to).column().saturating_sub(1));
        if let Some(span) = cells.get_mut(left..=right.max(left)) {
            shaft(span, from < to, label);
        }
    }
    cells.into_iter().collect::<String>().trim_end().to_owned()
}

/// `── label ──▶`, or the other way round.
fn shaft(span: &mut [char], rightwards: bool, label: &str) {
    span.fill('─');
    let head = if rightwards { span.last_mut() } else { span.first_mut() };
    if let Some(head) = head {
        *head = if rightwards { '▶' } else { '◀' };
    }
    let room = span.len().saturating_sub(4);
    let mut label: Vec<char> = format!(" {label} ").chars().collect();
    if label.len() > room {
        label.truncate(room.saturating_sub(1));
        label.push('…');
    }
    let begin = (span.len() - label.len()) / 2;
    for (cell, c) in span.iter_mut().skip(begin).zip(label) {
        *cell = c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_points_from_its_sender_to_its_receiver_and_the_lanes_stay_in_line() {
        let to_the_right = line(Some(12), Some((Lane::Meta, Lane::Watrunk, "webhook connect")));
        let to_the_left = line(Some(34), Some((Lane::Watrunk, Lane::Meta, "pre_accept")));
        assert!(to_the_right.starts_with("    12 ms"), "{to_the_right}");
        assert!(to_the_right.contains("│─── webhook connect ───▶│"), "{to_the_right}");
        assert!(to_the_left.contains("│◀───── pre_accept ──────│"), "{to_the_left}");
        for text in [&to_the_right, &to_the_left, &line(None, None)] {
            let bars: Vec<usize> =
                text.chars().enumerate().filter(|(_, c)| *c == '│').map(|(at, _)| at).collect();
            assert_eq!(bars, [17, 42, 67, 92], "{text}");
        }
    }

    #[test]
    fn a_line_never_grows_beyond_a_hundred_columns() {
        let long = "a label that is longer than the room between two lanes";
        for (from, to) in [(Lane::User, Lane::Meta), (Lane::Far, Lane::User), (Lane::Meta, Lane::Meta)] {
            assert!(line(Some(123_456), Some((from, to, long))).chars().count() <= 100);
        }
        for far in ["PBX", "voice agent"] {
            assert!(head(far).chars().count() <= 100, "{}", head(far));
        }
    }
}
