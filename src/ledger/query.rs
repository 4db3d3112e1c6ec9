//! The list of calls, running and closed, a page at a time; one call by its id.

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::schema::{self, CallRow, text};
use super::{Ledger, LedgerError, MAX_LIST};
use crate::call::leg::Direction;
use crate::call::record::ApiStatus;
use crate::clock::Wall;

/// Which calls to list. The stamps compare with [`CallRow::started_at`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallQuery {
    /// Only calls of this account.
    pub account: Option<String>,
    /// Only calls from or to exactly this number (`+E164`) or BSUID.
    pub number_phone: Option<String>,
    /// Only calls with these digits in a row anywhere in the caller or callee. What is no digit is left out, and
    /// nothing but such lets nothing pass.
    pub search_digits: Option<String>,
    /// Only calls that have come so far.
    pub status: Option<ApiStatus>,
    /// Only this direction.
    pub direction: Option<Direction>,
    /// Only calls that started then or later.
    pub since: Option<Wall>,
    /// Only calls that started then or earlier.
    pub until: Option<Wall>,
    /// Only calls that started strictly before: the cursor of the page before.
    pub before: Option<Wall>,
    /// How many at most; [`MAX_LIST`] bounds it.
    pub limit: usize,
}

impl Default for CallQuery {
    /// The latest 50 calls of any kind.
    fn default() -> Self {
        CallQuery {
            account: None,
            number_phone: None,
            search_digits: None,
            status: None,
            direction: None,
            since: None,
            until: None,
            before: None,
            limit: 50,
        }
    }
}

impl Ledger {
    /// A page of calls, the latest first, and the cursor of the next one (for [`CallQuery::before`]); `None` on the
    /// last page.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn calls(&self, query: &CallQuery) -> Result<(Vec<CallRow>, Option<Wall>), LedgerError> {
        let limit = query.limit.min(MAX_LIST);
        // One more than asked for tells whether there is another page.
        let (sql, values) = query.sql(limit.saturating_add(1));
        let mut places = self.read(|on| {
            let mut statement = on.prepare(&sql)?;
            let places = statement.query_map(params_from_iter(&values), |row| row.get::<_, i64>(0))?;
            places.collect::<rusqlite::Result<Vec<i64>>>()
        })?;
        let more = places.len() > limit;
        places.truncate(limit);
        let sql = format!("SELECT {} FROM calls WHERE listed_at = ?1", schema::row_columns());
        let mut rows = Vec::new();
        for at in &places {
            rows.extend(self.rows(&sql, &[Value::Integer(*at)])?);
        }
        let next = places.last().filter(|_| more).map(|at| Wall(*at));
        Ok((rows, next))
    }

    /// One call.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn call(&self, id: &str) -> Result<Option<CallRow>, LedgerError> {
        let sql = format!("SELECT {} FROM calls WHERE id = ?1", schema::row_columns());
        Ok(self.rows(&sql, &[text(id)])?.pop())
    }

    /// The call that Meta knows by this id, if it is running: `None` once it is closed.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn running(&self, wacid: &str) -> Result<Option<CallRow>, LedgerError> {
        let sql = format!(
            "SELECT {} FROM calls INDEXED BY calls_running WHERE ended_at IS NULL AND wacid = ?1",
            schema::row_columns()
        );
        Ok(self.rows(&sql, &[text(wacid)])?.pop())
    }

    /// The rows of a statement over [`schema::row_columns`].
    pub(super) fn rows(&self, sql: &str, values: &[Value]) -> Result<Vec<CallRow>, LedgerError> {
        self.read(|on| {
            let mut statement = on.prepare(sql)?;
            let mut found = statement.query(params_from_iter(values))?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                match schema::row(row)? {
                    Ok(row) => rows.push(row),
                    Err(word) => {
                        tracing::warn!(%word, "a call of another version is left out: unknown word");
                    }
                }
            }
            Ok(rows)
        })
    }

    /// How SQLite goes about a query, for the tests that watch its indexes.
    #[cfg(test)]
    pub(super) fn plan(&self, query: &CallQuery) -> String {
        let (sql, values) = query.sql(query.limit);
        let mut statement = self.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map(params_from_iter(&values), |row| row.get::<_, String>(3)).unwrap();
        steps.map(Result::unwrap).collect::<Vec<_>>().join("\n")
    }
}

impl CallQuery {
    /// The statement that finds the places of the calls, and its values. The index is named: each can pass over the
    /// rows that don't fit without reading them, and no statistics lead SQLite astray.
    fn sql(&self, limit: usize) -> (String, Vec<Value>) {
        let mut values = vec![Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX))];
        let mut put = |value: Value| {
            values.push(value);
            format!("?{}", values.len())
        };
        let mut when = String::new();
        if let Some(account) = &self.account {
            when.push_str(&format!(" AND account = {}", put(text(account))));
        }
        if let Some(status) = self.status {
            when.push_str(&format!(" AND status = {}", put(text(status.as_str()))));
        }
        if let Some(direction) = self.direction {
            when.push_str(&format!(" AND direction = {}", put(text(direction.as_str()))));
        }
        if let Some(since) = self.since {
            when.push_str(&format!(" AND listed_at >= {}", put(Value::Integer(since.0))));
        }
        if let Some(until) = self.until {
            when.push_str(&format!(" AND listed_at <= {}", put(Value::Integer(until.0))));
        }
        if let Some(before) = self.before {
            when.push_str(&format!(" AND listed_at < {}", put(Value::Integer(before.0))));
        }
        if let Some(search) = &self.search_digits {
            let digits: String = search.chars().filter(char::is_ascii_digit).collect();
            if digits.is_empty() {
                when.push_str(" AND FALSE");
            } else {
                when.push_str(&format!(" AND instr(digits, {}) > 0", put(text(&digits))));
            }
        }
        let page = |index: &str, own: &str| {
            format!(
                "SELECT listed_at FROM calls INDEXED BY {index} WHERE {own}{when} ORDER BY listed_at DESC LIMIT ?1"
            )
        };
        let sql = match (&self.number_phone, &self.account, self.status) {
            (Some(number), _, _) => {
                let number = put(text(number));
                // UNION leaves out the second of two same places: a call of a number to itself.
                format!(
                    "SELECT listed_at FROM ({}) UNION SELECT listed_at FROM ({}) ORDER BY listed_at DESC LIMIT ?1",
                    page("calls_by_from", &format!("\"from\" = {number}")),
                    page("calls_by_to", &format!("\"to\" = {number}")),
                )
            }
            (None, Some(_), Some(_)) if self.search_digits.is_none() => page("calls_by_account", "TRUE"),
            (None, _, _) => page("calls_by_time", "TRUE"),
        };
        (sql, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_of_fifty_calls_unless_more_are_asked_for() {
        assert_eq!(CallQuery::default().limit, 50);
        assert!(CallQuery::default().sql(51).0.contains("calls_by_time"));
    }
}
