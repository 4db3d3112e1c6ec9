//! Whether a user may be called, and may be asked: Graph's `call_permissions`, and a brief memory of it.
//!
//! The numbers in the limits are Meta's live ones: they are obeyed and shown, never known beforehand.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::callee::Callee;
use super::notice::{self, User};
use crate::clock::{Now, Tick};

/// How long an answer of Graph's is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// Most users that are remembered.
const MAX_USERS: usize = 1_024;

/// Meta's name of the permission to call.
const CALL: &str = "start_call";
/// Meta's name of the permission to ask.
const REQUEST: &str = "send_call_permission_request";

/// What a user has said to being called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermissionStatus {
    /// Nothing, or no; also where the user can't be called at all.
    NoPermission,
    /// Yes, for a time.
    Temporary,
    /// Yes.
    Permanent,
    /// Something newer than this program, in Meta's word.
    Unknown(String),
}

impl PermissionStatus {
    /// Meta's word for it.
    pub fn as_str(&self) -> &str {
        match self {
            PermissionStatus::NoPermission => "no_permission",
            PermissionStatus::Temporary => "temporary",
            PermissionStatus::Permanent => "permanent",
            PermissionStatus::Unknown(word) => word,
        }
    }
}

/// How often something may be done in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The time, as an ISO 8601 duration such as `PT24H`.
    pub period: String,
    /// How often in it.
    pub max_allowed: Option<i64>,
    /// How often it was done in it.
    pub current_usage: Option<i64>,
    /// When it may be done again, in seconds since the Unix epoch; only where the limit is reached.
    pub expires_at: Option<i64>,
}

impl Limit {
    fn is_reached(&self) -> bool {
        self.expires_at.is_some()
            || matches!((self.max_allowed, self.current_usage), (Some(max), Some(used)) if used >= max)
    }
}

/// Something that the business may or may not do with this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermittedAction {
    /// Meta's name: `start_call`, `send_call_permission_request`.
    pub name: String,
    /// It may, now.
    pub can: bool,
    /// How often.
    pub limits: Vec<Limit>,
}

/// Graph's answer to [`super::graph::Action::Permissions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// What the user has said.
    pub status: PermissionStatus,
    /// Until when a temporary permission lasts, in seconds since the Unix epoch.
    pub expires_at: Option<i64>,
    /// What may be done.
    pub actions: Vec<PermittedAction>,
}

/// Why something may not be done with a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The user has not allowed calls.
    NoPermission,
    /// It was done as often as Meta allows.
    LimitReached {
        /// In this time, as an ISO 8601 duration.
        period: String,
        /// So often, if Meta says.
        max: Option<i64>,
        /// Again from then on, in seconds since the Unix epoch, if Meta says.
        until: Option<i64>,
    },
    /// Meta does not allow it and gives no reason.
    Unavailable,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::NoPermission => f.write_str("the user has not allowed calls"),
            Denied::LimitReached { period, max, until } => {
                f.write_str("the limit of ")?;
                match max {
                    Some(max) => write!(f, "{max} in {}", period_in_words(period))?,
                    None => f.write_str(&period_in_words(period))?,
                }
                f.write_str(" is reached")?;
                match until.and_then(super::settings::moment) {
                    Some(moment) => write!(f, ", again from {moment}"),
                    None => Ok(()),
                }
            }
            Denied::Unavailable => f.write_str("Meta does not allow it at the moment, without a reason"),
        }
    }
}

impl std::error::Error for Denied {}

impl Permission {
    /// Reads Graph's answer. None: it is none.
    pub fn parse(body: &[u8]) -> Option<Permission> {
        let json: Value = serde_json::from_slice(body).ok()?;
        let permission = json.get("permission")?.as_object()?;
        let status = notice::word(permission.get("status"))?;
        let status = match status.to_ascii_lowercase().as_str() {
            "no_permission" => PermissionStatus::NoPermission,
            "temporary" => PermissionStatus::Temporary,
            "permanent" => PermissionStatus::Permanent,
            other => PermissionStatus::Unknown(other.chars().take(64).collect()),
        };
        let expires = permission.get("expiration_time").or_else(|| permission.get("expiration"));
        let actions = notice::objects(json.get("actions")).filter_map(action).collect();
        Some(Permission { status, expires_at: notice::whole(expires), actions })
    }

    /// Whether the user may be called now.
    ///
    /// # Errors
    /// [`Denied`]: Graph would refuse `connect`.
    pub fn may_call(&self) -> Result<(), Denied> {
        match (self.may(CALL), &self.status) {
            (Some(outcome), PermissionStatus::NoPermission) => outcome.map_err(|denied| match denied {
                Denied::Unavailable => Denied::NoPermission,
                Denied::NoPermission | Denied::LimitReached { .. } => denied,
            }),
            (Some(outcome), _) => outcome,
            (None, PermissionStatus::NoPermission) => Err(Denied::NoPermission),
            // Graph has the last word.
            (
                None,
                PermissionStatus::Temporary | PermissionStatus::Permanent | PermissionStatus::Unknown(_),
            ) => Ok(()),
        }
    }

    /// Whether the user may be sent a permission request now.
    ///
    /// # Errors
    /// [`Denied`]: Graph would refuse the message.
    pub fn may_request(&self) -> Result<(), Denied> {
        self.may(REQUEST).unwrap_or(Ok(()))
    }

    fn may(&self, name: &str) -> Option<Result<(), Denied>> {
        let action = self.actions.iter().find(|action| action.name == name)?;
        if action.can {
            return Some(Ok(()));
        }
        // The one that lasts longest is what has to be waited for.
        let reached = action.limits.iter().filter(|limit| limit.is_reached());
        Some(Err(match reached.max_by_key(|limit| limit.expires_at) {
            Some(limit) => Denied::LimitReached {
                period: limit.period.clone(),
                max: limit.max_allowed,
                until: limit.expires_at,
            },
            None => Denied::Unavailable,
        }))
    }

    /// In Meta's own shape and names, as Graph gave it.
    pub fn to_json(&self) -> Value {
        let mut permission = json!({ "status": self.status.as_str() });
        if let Some(at) = self.expires_at {
            permission["expiration_time"] = json!(at);
        }
        let actions: Vec<Value> = self
            .actions
            .iter()
            .map(|action| {
                let mut json = json!({ "action_name": action.name, "can_perform_action": action.can });
                if !action.limits.is_empty() {
                    json["limits"] = action.limits.iter().map(Limit::to_json).collect();
                }
                json
            })
            .collect();
        json!({ "permission": permission, "actions": actions })
    }
}

impl Limit {
    fn to_json(&self) -> Value {
        let mut json = json!({ "time_period": self.period });
        for (key, number) in [
            ("max_allowed", self.max_allowed),
            ("current_usage", self.current_usage),
            ("limit_expiration_time", self.expires_at),
        ] {
            if let Some(number) = number {
                json[key] = json!(number);
            }
        }
        json
    }
}

fn action(action: &Map<String, Value>) -> Option<PermittedAction> {
    let limits = notice::objects(action.get("limits")).map(|limit| Limit {
        period: notice::text(limit.get("time_period")).unwrap_or_default(),
        max_allowed: notice::whole(limit.get("max_allowed")),
        current_usage: notice::whole(limit.get("current_usage")),
        expires_at: notice::whole(limit.get("limit_expiration_time")),
    });
    Some(PermittedAction {
        name: notice::text(action.get("action_name"))?,
        can: notice::truth(action.get("can_perform_action")),
        limits: limits.collect(),
    })
}

/// `PT24H` and its like for people; anything unusual as it is.
fn period_in_words(period: &str) -> String {
    let number = |start: &str, end: &str| -> Option<u32> {
        period.strip_prefix(start)?.strip_suffix(end)?.parse().ok()
    };
    match (number("PT", "H"), number("P", "D")) {
        (Some(hours), _) => format!("{hours} hours"),
        (None, Some(days)) => format!("{days} days"),
        (None, None) => period.to_owned(),
    }
}

/// What Graph said of users a moment ago: so that a page and the call that follows it ask once.
#[derive(Debug, Clone)]
pub struct Permits {
    known: BTreeMap<(String, Callee), (Tick, Permission)>,
    capacity: usize,
}

impl Default for Permits {
    fn default() -> Permits {
        Permits::new()
    }
}

impl Permits {
    /// An empty memory.
    pub fn new() -> Permits {
        Permits::with_capacity(MAX_USERS)
    }

    /// An empty memory for so many users (at least one).
    pub fn with_capacity(users: usize) -> Permits {
        Permits { known: BTreeMap::new(), capacity: users.max(1) }
    }

    /// What Graph said of this user in the last ten seconds.
    pub fn get(&self, phone_number_id: &str, callee: &Callee, now: Now) -> Option<&Permission> {
        let (at, permission) = self.known.get(&(phone_number_id.to_owned(), callee.clone()))?;
        if now.tick.since(*at) < BELIEVED { Some(permission) } else { None }
    }

    /// Graph has just said this.
    pub fn put(&mut self, phone_number_id: &str, callee: Callee, permission: Permission, now: Now) {
        let key = (phone_number_id.to_owned(), callee);
        self.known.remove(&key);
        if self.known.len() >= self.capacity {
            self.known.retain(|_, (at, _)| now.tick.since(*at) < BELIEVED);
        }
        while self.known.len() >= self.capacity {
            let oldest = self.known.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.known.remove(&oldest);
        }
        self.known.insert(key, (now.tick, permission));
    }

    /// Something has happened that changes what this user's permissions are: a reply, a call.
    pub fn forget(&mut self, phone_number_id: &str, user: &User) {
        let phone = user.phone.clone().map(Callee::Phone);
        let ids = [&user.bsuid, &user.parent_bsuid].into_iter().flatten().cloned().map(Callee::Bsuid);
        for callee in phone.into_iter().chain(ids) {
            self.forget_callee(phone_number_id, callee);
        }
    }

    /// The same for a user who is known as callee only.
    pub fn forget_callee(&mut self, phone_number_id: &str, callee: Callee) {
        self.known.remove(&(phone_number_id.to_owned(), callee));
    }

    /// How many users are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests;
