//! Tables for people.

/// Widest a column gets, in characters: a table of longer ones can't be read.
const WIDEST: usize = 48;

/// One line per row under a line of headings; `nothing` if there are no rows.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]], nothing: &str) -> String {
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows.iter().map(|row| std::array::from_fn(|column| plain(&row[column]))))
        .collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Much of what is shown was said by strangers: it must neither break the table nor steer the terminal.
pub(super) fn plain(text: &str) -> String {
    let mut cell: String = text.chars().take(WIDEST).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(WIDEST).is_some() {
        cell.pop();
        cell.push('…');
    }
    if cell.is_empty() { "-".to_owned() } else { cell }
}

/// `0:07`, `12:30`, `1:02:03`; whole seconds, rounded.
pub(super) fn talk(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
