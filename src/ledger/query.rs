//! The list of calls, running and closed, a page at a time; one call by its id.

use rusqlite::types::Value;
use rusqlite::{Rows, params_from_iter};

use super::schema::{self, CallRow, text};
use super::{Ledger, LedgerError, MAX_LIST};
use crate::call::leg::Direction;
use crate::call::record::{ApiStatus, PlacedBy};
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
        let sql = format!("SELECT {} FROM calls WHERE listed_at = ?1", schema::list_columns());
        let rows = self.read(|on| {
            let mut statement = on.prepare(&sql)?;
            let mut rows = Vec::new();
            for at in &places {
                rows.extend(known(statement.query([at])?)?);
            }
            Ok(rows)
        })?;
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

    /// The calls out that PBXs have begun in a span, the oldest first: by which trunk each came, and when. A call that was
    /// handed over since is told with the trunk that has it now.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn dialled(
        &self,
        since: Wall,
        until: Wall,
        mut tell: impl FnMut(&str, Wall),
    ) -> Result<(), LedgerError> {
        self.read(|on| {
            let sql = "SELECT destination, offered_at FROM calls
                WHERE listed_at >= ?1 AND listed_at < ?2 AND placed_by = ?3 ORDER BY listed_at";
            let mut statement = on.prepare(sql)?;
            let mut rows = statement.query((since.0, until.0, PlacedBy::Pbx.as_str()))?;
            while let Some(row) = rows.next()? {
                let destination: String = row.get(0)?;
                if let Some((_, trunk)) = destination.rsplit_once('@') {
                    tell(trunk, Wall(row.get(1)?));
                }
            }
            Ok(())
        })
    }

    /// The rows of a statement over [`schema::row_columns`].
    pub(super) fn rows(&self, sql: &str, values: &[Value]) -> Result<Vec<CallRow>, LedgerError> {
        self.read(|on| {
            let mut statement = on.prepare(sql)?;
            known(statement.query(params_from_iter(values))?)
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

/// The rows that this version understands.
fn known(mut found: Rows<'_>) -> rusqlite::Result<Vec<CallRow>> {
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        match schema::row(row)? {
            Ok(row) => rows.push(row),
            Err(word) => tracing::warn!(%word, "a call of another version is left out: unknown word"),
        }
    }
    Ok(rows)
}

impl CallQuery {
    /// The statement that finds the places of the calls, and its values. Its indexes are named, so that no statistics
    /// lead SQLite astray.
    fn sql(&self, limit: usize) -> (String, Vec<Value>) {
        let mut values = Values(vec![Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX))]);
        let mut when = String::new();
        for (at, compare) in [(self.since, ">="), (self.until, "<="), (self.before, "<")] {
            if let Some(at) = at {
                when.push_str(&format!(" AND listed_at {compare} {}", values.put(Value::Integer(at.0))));
            }
        }
        let account = self.account.as_ref().map(|account| format!("account = {}", values.put(text(account))));
        let number = self.number_phone.as_ref().map(|number| values.put(text(number)));
        let numbers = number.map(|number| (format!("\"from\" = {number}"), format!("\"to\" = {number}")));

        if let Some(search) = &self.search_digits {
            let digits: String = search.chars().filter(char::is_ascii_digit).collect();
            when.push_str(&format!(" AND instr(digits, {}) > 0", values.put(text(&digits))));
            if digits.is_empty() {
                when.push_str(" AND FALSE");
            }
            if let Some(status) = self.status {
                when.push_str(&format!(" AND status = '{}'", status.as_str()));
            }
            if let Some(direction) = self.direction {
                when.push_str(&format!(" AND direction = '{}'", direction.as_str()));
            }
            if let Some(account) = account {
                when.push_str(&format!(" AND {account}"));
            }
            if let Some((from, to)) = numbers {
                when.push_str(&format!(" AND ({from} OR {to})"));
            }
            return (page("calls_by_digits", "TRUE", &when), values.0);
        }

        let mut searches = Vec::new();
        for status in
            ApiStatus::ALL.into_iter().filter(|status| self.status.is_none_or(|only| only == *status))
        {
            for direction in [Direction::Inbound, Direction::Outbound] {
                if self.direction.is_some_and(|only| only != direction) {
                    continue;
                }
                let kind = format!("status = '{}' AND direction = '{}'", status.as_str(), direction.as_str());
                match (&numbers, &account) {
                    (Some((from, to)), account) => {
                        let account = account.as_deref().unwrap_or("TRUE");
                        for (index, number) in [("calls_by_from", from), ("calls_by_to", to)] {
                            let own = format!("{number} AND {kind} AND {account}");
                            searches.push(page(index, &own, &when));
                        }
                    }
                    (None, Some(account)) => {
                        searches.push(page("calls_by_account", &format!("{account} AND {kind}"), &when));
                    }
                    (None, None) => searches.push(page("calls_by_status", &kind, &when)),
                }
            }
        }
        // UNION leaves out the second of two same places: a call of a number to itself.
        let searches: Vec<String> =
            searches.into_iter().map(|search| format!("SELECT listed_at FROM ({search})")).collect();
        (format!("{} ORDER BY listed_at DESC LIMIT ?1", searches.join(" UNION ")), values.0)
    }
}

/// One search of a statement: the latest that are `own` and `when`.
fn page(index: &str, own: &str, when: &str) -> String {
    format!(
        "SELECT listed_at FROM calls INDEXED BY {index} WHERE {own}{when} ORDER BY listed_at DESC LIMIT ?1"
    )
}

/// The values of a statement, numbered from 1.
struct Values(Vec<Value>);

impl Values {
    fn put(&mut self, value: Value) -> String {
        self.0.push(value);
        format!("?{}", self.0.len())
    }
}
