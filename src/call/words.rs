//! What others say, as it may stand in the log: without anybody's number.

/// Shorter runs of digits are extensions, codes and ports.
const SHORTEST_NUMBER: usize = 6;

/// The text with `***` in the place of each number that could be somebody's. Records keep the whole text.
pub fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, run) = rest.split_at(at);
        let end = run.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(run.len());
        let (digits, after) = run.split_at(end);
        out.push_str(before);
        out.push_str(if end < SHORTEST_NUMBER { digits } else { "***" });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hidden_and_what_helps_to_find_a_fault_stays() {
        for (said, shown) in [
            ("500 User +4930123456 gone", "500 User +*** gone"),
            ("486 4930123456", "486 ***"),
            ("sip:015112345678@192.0.2.10:5060 is busy", "sip:***@192.0.2.10:5060 is busy"),
            ("no answer from the PBX in 32 s", "no answer from the PBX in 32 s"),
            ("extension 12345", "extension 12345"),
            ("Größe 123456", "Größe ***"),
            ("", ""),
        ] {
            assert_eq!(without_numbers(said), shown);
        }
    }
}
