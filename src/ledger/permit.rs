//! Who may be called: the users' answers, and how often they were asked.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{Ledger, LedgerError};
use crate::clock::Wall;

/// The spans in which Meta counts requests.
pub const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The longer one.
pub const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A user's answer, as it was last heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Whether the user may be called.
    pub accepted: bool,
    /// Whether that holds until it is revoked.
    pub permanent: bool,
    /// Until when it holds otherwise.
    pub expires_at: Option<Wall>,
    /// Where it came from, in Meta's words: `user_action`, `automatic`, …
    pub source: String,
    /// When it was given, by Meta's clock: ours may jump.
    pub updated_at: Wall,
}

/// How often a user was asked since the last connected call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// In the last 24 hours: Meta allows one.
    pub in_day: u32,
    /// In the last 7 days: Meta allows two.
    pub in_week: u32,
    /// When the oldest request of the last 24 hours stops counting.
    pub day_until: Option<Wall>,
    /// When the oldest request of the last 7 days stops counting.
    pub week_until: Option<Wall>,
}

impl Ledger {
    /// Keeps a user's answer. One that is older than what is known changes nothing: webhooks overtake each other.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn note_permission(
        &mut self,
        phone_number_id: &str,
        user: &str,
        permission: &Permission,
    ) -> Result<(), LedgerError> {
        self.write(permission.updated_at, |on| {
            on.execute(
                "INSERT INTO permissions
                     (phone_number_id, user, accepted, permanent, expires_at, source, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (phone_number_id, user) DO UPDATE SET
                     accepted = excluded.accepted, permanent = excluded.permanent,
                     expires_at = excluded.expires_at, source = excluded.source, updated_at = excluded.updated_at
                 WHERE excluded.updated_at >= permissions.updated_at",
                params![
                    phone_number_id,
                    key(user),
                    permission.accepted,
                    permission.permanent,
                    permission.expires_at.map(|at| at.0),
                    permission.source,
                    permission.updated_at.0,
                ],
            )
            .map(|_| ())
        })
    }

    /// A user's last answer, be it in force or not; `None` if there never was one.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn permission(&self, phone_number_id: &str, user: &str) -> Result<Option<Permission>, LedgerError> {
        self.read(|on| {
            on.query_row(
                "SELECT accepted, permanent, expires_at, source, updated_at FROM permissions
                 WHERE phone_number_id = ?1 AND user = ?2",
                params![phone_number_id, key(user)],
                |row| {
                    Ok(Permission {
                        accepted: row.get(0)?,
                        permanent: row.get(1)?,
                        expires_at: row.get::<_, Option<i64>>(2)?.map(Wall),
                        source: row.get(3)?,
                        updated_at: Wall(row.get(4)?),
                    })
                },
            )
            .optional()
        })
    }

    /// Keeps that a user was asked.
    ///
    /// # Errors
    /// A full or failing disk: [`LedgerError::retry`] says whether trying again later can help.
    pub fn note_request(&mut self, phone_number_id: &str, user: &str, at: Wall) -> Result<(), LedgerError> {
        self.write(at, |on| {
            on.execute(
                "INSERT OR IGNORE INTO permission_requests (phone_number_id, user, at) VALUES (?1, ?2, ?3)",
                params![phone_number_id, key(user), at.0],
            )
            .map(|_| ())
        })
    }

    /// How often this user was asked. A connected call with the user begins the count anew.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn requests_since(
        &self,
        phone_number_id: &str,
        user: &str,
        now: Wall,
    ) -> Result<Requests, LedgerError> {
        let week_ago = before(now, WEEK);
        let asked: Vec<i64> = self.read(|on| {
            let mut statement = on.prepare(
                "SELECT at FROM permission_requests WHERE phone_number_id = ?1 AND user = ?2 AND at > ?3
                 ORDER BY at",
            )?;
            let asked =
                statement.query_map(params![phone_number_id, key(user), week_ago.0], |row| row.get(0))?;
            asked.collect()
        })?;
        let today: Vec<i64> = asked.iter().copied().filter(|at| *at > before(now, DAY).0).collect();
        let number = |asked: &[i64]| u32::try_from(asked.len()).unwrap_or(u32::MAX);
        let until = |asked: &[i64], span: Duration| asked.first().map(|at| after(Wall(*at), span));
        Ok(Requests {
            in_day: number(&today),
            in_week: number(&asked),
            day_until: until(&today, DAY),
            week_until: until(&asked, WEEK),
        })
    }
}

/// A call with this user was connected: the count of requests begins anew.
pub(super) fn connected(
    on: &Transaction<'_>,
    phone_number_id: &str,
    user: &str,
    user_id: Option<&str>,
) -> rusqlite::Result<()> {
    on.execute(
        "DELETE FROM permission_requests WHERE phone_number_id = ?1 AND user IN (?2, ?3)",
        params![phone_number_id, key(user), user_id.unwrap_or(user)],
    )
    .map(|_| ())
}

/// A number is one with or without its plus sign.
fn key(user: &str) -> &str {
    user.trim().trim_start_matches('+')
}

pub(super) fn before(now: Wall, span: Duration) -> Wall {
    Wall(now.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

fn after(at: Wall, span: Duration) -> Wall {
    Wall(at.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}
