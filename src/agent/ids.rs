//! Ids in the shapes that agents know from elsewhere: the same for the same call, different for another purpose.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Twilio's `CallSid` of a call of ours: `CA` and 32 hex digits.
pub fn call_sid(call_id: &str) -> String {
    format!("CA{}", hex("twilio call", call_id))
}

/// Twilio's `AccountSid` of an account of ours: `AC` and 32 hex digits.
pub fn account_sid(account: &str) -> String {
    format!("AC{}", hex("twilio account", account))
}

/// 32 hex digits that are the same for the same call, and different for another purpose.
pub(super) fn hex(purpose: &str, call_id: &str) -> String {
    let digest = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(call_id).finalize();
    let mut out = String::with_capacity(32);
    for byte in digest.iter().take(16) {
        // Writing into a String can't fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The same in the shape of a UUID.
pub(super) fn uuid(purpose: &str, call_id: &str) -> String {
    let hex = hex(purpose, call_id);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_same_ids_every_time_and_another_call_has_others() {
        let sid = call_sid("call_0123");
        assert_eq!(sid, call_sid("call_0123"));
        assert_ne!(sid, call_sid("call_0124"));
        let fits = |id: &str, head: &str| {
            id.len() == 34 && id.starts_with(head) && id[2..].bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        assert!(fits(&sid, "CA"), "{sid}");
        assert!(fits(&account_sid("shop"), "AC"));
        assert_ne!(sid[2..], account_sid("call_0123")[2..]);
    }
}
