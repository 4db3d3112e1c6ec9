//! What a business number's country means for its calls.

use crate::ledger::country;

/// Countries whose business numbers may not call users (Meta, Cloud API Calling: availability).
const BLOCKED: [&str; 5] = ["CA", "EG", "NG", "US", "VN"];

/// Whether Meta lets this business number call users at all. Meta has the last word (error 138013).
pub fn blocks_outbound(phone_number: &str) -> bool {
    country::of(phone_number).is_some_and(|country| BLOCKED.contains(&country))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_five_countries_can_not_call_users() {
        for number in ["+12025550100", "+14165550100", "+20255501000", "+2348055501000", "+84455501000"] {
            assert!(blocks_outbound(number), "{number}");
        }
        for number in ["+4915112345678", "+12425550100", "+5511955501000"] {
            assert!(!blocks_outbound(number), "{number}");
        }
    }
}
