//! Text from outside, made fit for logs and for people.

/// Longest text that is shown, in characters.
const LONGEST: usize = 300;
/// What stands where something was taken out.
const HIDDEN: &str = "[hidden]";

/// Text without line breaks, without phone numbers, without anything that could be a token, and not long.
///
/// Seven digits in a row, or six after a plus with gaps between them, could be a phone number; 24
/// letters and digits in a row could be a token. Dates and Meta's error codes stay.
pub(super) fn scrub(text: &str) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let flat = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut clean = String::new();
    let mut rest = flat.as_str();
    while let Some(first) = rest.chars().next() {
        let (run, hide) = match first {
            '+' => international(rest),
            _ if is_plain(first) => plain(rest),
            _ => (first.len_utf8(), false),
        };
        let (shown, tail) = rest.split_at(run);
        clean.push_str(if hide { HIDDEN } else { shown });
        rest = tail;
        if clean.len() > 4 * LONGEST {
            break;
        }
    }
    clean.chars().take(LONGEST).collect()
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Length of a run of letters and digits, and whether it has to go.
fn plain(rest: &str) -> (usize, bool) {
    let run = rest.find(|letter| !is_plain(letter)).unwrap_or(rest.len());
    let word = rest.get(..run).unwrap_or_default();
    let digits = word.split(|letter: char| !letter.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    (run, digits >= 7 || (word.len() >= 24 && digits > 0))
}

/// Length of `+` and the digits and gaps after it, and whether it has to go.
fn international(rest: &str) -> (usize, bool) {
    let gap = |letter: char| " -().".contains(letter);
    let after = rest.get(1..).unwrap_or_default();
    let end = after.find(|letter: char| !letter.is_ascii_digit() && !gap(letter)).unwrap_or(after.len());
    let number = after.get(..end).unwrap_or_default().trim_end_matches(gap);
    (1 + number.len(), number.bytes().filter(u8::is_ascii_digit).count() >= 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_is_hidden_in_every_spelling() {
        assert_eq!(scrub("call 16315553602 failed"), "call [hidden] failed");
        assert_eq!(scrub("to +1 (631) 555-3602: no"), "to [hidden]: no");
        assert_eq!(scrub("wa:+49.30.1234.567, sorry"), "wa:[hidden], sorry");
    }

    #[test]
    fn a_token_is_hidden_and_a_permission_is_not() {
        let text = scrub("token EAAGm0PX4ZCpsBAKZCo5tZBxyz lacks whatsapp_business_messaging");
        assert_eq!(text, "token [hidden] lacks whatsapp_business_messaging");
    }

    #[test]
    fn codes_and_dates_stay_readable() {
        let text = "(#138012) next call at 2026-12-20 10:15:00 UTC";
        assert_eq!(scrub(text), text);
    }

    #[test]
    fn line_breaks_and_length_do_not_pass() {
        assert_eq!(scrub("a\r\nINFO forged\tline"), "a INFO forged line");
        assert_eq!(scrub(&"word ".repeat(500)).chars().count(), LONGEST);
        assert_eq!(scrub("+"), "+");
        assert_eq!(scrub("\u{e9}\u{4e2d}+\u{4e2d}"), "\u{e9}\u{4e2d}+\u{4e2d}");
    }
}
