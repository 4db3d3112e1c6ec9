//! Who asks, and may they? Bearer keys with roles.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::{HttpKey, Role};

/// Longest credentials that are looked at, in bytes.
const MAX_CREDENTIALS: usize = 1_024;

/// Whoever holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The key's name in the file.
    pub name: String,
    /// What it allows.
    pub role: Role,
}

/// What an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To look: any key.
    Look,
    /// To place, end and hand over calls, and to ask for permission: `operator` and `admin`.
    Operate,
    /// To change numbers and webhooks: `admin`.
    Administer,
}

impl Need {
    /// The weakest role that is enough.
    pub const fn role(self) -> Role {
        match self {
            Need::Look => Role::Read,
            Need::Operate => Role::Operator,
            Need::Administer => Role::Admin,
        }
    }

    /// Whether this role is enough.
    pub const fn met_by(self, role: Role) -> bool {
        match (self, role) {
            (Need::Look, Role::Read | Role::Operator | Role::Admin) => true,
            (Need::Operate, Role::Operator | Role::Admin) => true,
            (Need::Administer, Role::Admin) => true,
            (Need::Operate, Role::Read) | (Need::Administer, Role::Read | Role::Operator) => false,
        }
    }
}

fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (said, rest) = value.split_once(' ')?;
    let fits = said.eq_ignore_ascii_case(scheme) && rest.len() <= MAX_CREDENTIALS;
    fits.then(|| rest.trim())
}

/// The key of `Authorization: Bearer …` (RFC 6750 §2.1).
pub fn bearer(headers: &HeaderMap) -> Option<Vec<u8>> {
    credentials(headers, "bearer").map(|key| key.as_bytes().to_vec())
}

/// The password of `Authorization: Basic …` (RFC 7617); the user may be anything.
pub fn basic(headers: &HeaderMap) -> Option<Vec<u8>> {
    let decoded = STANDARD.decode(credentials(headers, "basic")?).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    decoded.get(colon + 1..).map(<[u8]>::to_vec)
}

/// Whose key this is. Every key is compared, whether or not one has fitted already.
pub fn who(keys: &[HttpKey], presented: &[u8]) -> Option<Holder> {
    let mut found = None;
    for key in keys {
        if key.matches(presented) {
            found = Some(key);
        }
    }
    found.map(|key| Holder { name: key.name.clone(), role: key.role })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_bearer_key_is_read_whatever_the_case_of_the_scheme() {
        assert_eq!(bearer(&headers("Bearer sk_1")).unwrap(), b"sk_1");
        assert_eq!(bearer(&headers("bearer  sk_1 ")).unwrap(), b"sk_1");
        for bad in ["Basic sk_1", "Bearer", "sk_1", &format!("Bearer {}", "x".repeat(2_000))] {
            assert_eq!(bearer(&headers(bad)), None, "{bad}");
        }
    }

    #[test]
    fn of_basic_credentials_only_the_password_counts_and_may_hold_colons() {
        assert_eq!(basic(&headers(&format!("Basic {}", STANDARD.encode("AC1:sk:1")))).unwrap(), b"sk:1");
        assert_eq!(basic(&headers("Basic %%%")), None);
        assert_eq!(basic(&headers(&format!("Basic {}", STANDARD.encode("nocolon")))), None);
    }

    #[test]
    fn a_role_may_do_what_the_weaker_ones_may() {
        let may = |need: Need| [Role::Read, Role::Operator, Role::Admin].map(|role| need.met_by(role));
        assert_eq!(may(Need::Look), [true, true, true]);
        assert_eq!(may(Need::Operate), [false, true, true]);
        assert_eq!(may(Need::Administer), [false, false, true]);
    }
}
