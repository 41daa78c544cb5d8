//! Running statements, each prepared once per connection.

use rusqlite::{Connection, Params, Row};

use super::fault::Fault;

/// Runs `sql` once; how many rows it changed.
pub(crate) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize, Fault> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

/// The first row of a statement, decoded.
pub(crate) fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl FnOnce(&Row<'_>) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(decode).transpose()
}

/// All rows of a statement, decoded.
pub(crate) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl Fn(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(decode(row)?);
    }
    Ok(found)
}

/// Fails unless `sql` is one search of `index`: a scan or a sort would make the cost of an answer grow with the table.
#[cfg(test)]
pub(crate) fn assert_searches(connection: &Connection, sql: &str, index: &str) {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let count = statement.parameter_count();
    let params = rusqlite::params_from_iter((0..count).map(|_| rusqlite::types::Null));
    let plan: Vec<String> = statement.query_map(params, |row| row.get("detail")).unwrap().map(Result::unwrap).collect();
    assert_eq!(plan.len(), 1, "{sql}: {plan:?}");
    assert!(plan[0].starts_with("SEARCH") && plan[0].contains(index), "{sql}: {plan:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_decoded_and_what_can_not_be_is_told() {
        let connection = Connection::open_in_memory().unwrap();
        execute(&connection, "CREATE TABLE numbers (number INTEGER PRIMARY KEY)", []).unwrap();
        assert_eq!(execute(&connection, "INSERT INTO numbers VALUES (1), (2)", []).unwrap(), 2);
        let number = |row: &Row<'_>| Ok(row.get::<_, i64>(0)?);
        let above = "SELECT number FROM numbers WHERE number > ?1";
        assert_eq!(first(&connection, above, [0], number).unwrap(), Some(1));
        assert_eq!(first(&connection, above, [2], number).unwrap(), None);
        assert_eq!(all(&connection, above, [0], number).unwrap(), [1, 2]);
        let damaged = all(&connection, above, [0], |_| Err::<(), _>(Fault::corrupt("a number")));
        assert!(matches!(damaged, Err(Fault::Corrupt(_))));
        assert_searches(&connection, above, "PRIMARY KEY (rowid>?)");
    }
}
