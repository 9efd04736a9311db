//! The queue in a SQLite file: the default, with nothing to install.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, TransactionBehavior, params_from_iter};

use super::sql::{Database, Dialect, Error, Row, Transaction, Value, Work};

/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(30);
/// Transactions begin as writers, so rows need no locks.
const DIALECT: Dialect = Dialect {
    now: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    skip: "",
    lock: "",
    serial: "INTEGER PRIMARY KEY AUTOINCREMENT",
};

/// A SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Mutex<Connection>,
}

impl Sqlite {
    /// Opens the file, which is made if there is none.
    ///
    /// # Errors
    /// If it cannot be opened, or is no database.
    pub fn open(path: &Path) -> Result<Sqlite, Error> {
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        // FULL: with a write-ahead log, NORMAL would lose the last commits with the power.
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                        PRAGMA foreign_keys = ON;";
        connection.execute_batch(settings).map_err(failed)?;
        Ok(Sqlite { connection: Mutex::new(connection) })
    }
}

impl Database for Sqlite {
    fn transaction(&self, work: Work<'_>) -> Result<(), Error> {
        // A transaction that panicked was rolled back when it was dropped.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let behavior = TransactionBehavior::Immediate;
        let transaction = connection.transaction_with_behavior(behavior).map_err(failed)?;
        work(&mut Open(&transaction))?;
        transaction.commit().map_err(failed)
    }

    fn name(&self) -> &'static str {
        "sqlite"
    }
}

struct Open<'a>(&'a rusqlite::Transaction<'a>);

fn sqlite(sql: &str) -> String {
    // Parameters by number are `?1` here.
    DIALECT.render(sql).replace('$', "?")
}

impl Transaction for Open<'_> {
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, Error> {
        let mut statement = self.0.prepare(&sqlite(sql)).map_err(failed)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(parameters)).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let values = (0..columns).map(|column| match row.get_ref(column) {
                Ok(ValueRef::Integer(value)) => Ok(Value::Int(value)),
                Ok(ValueRef::Text(text)) => {
                    Ok(Value::Text(String::from_utf8_lossy(text).into_owned()))
                }
                Ok(_) => Ok(Value::Null),
                Err(error) => Err(failed(error)),
            });
            found.push(Row(values.collect::<Result<_, _>>()?));
        }
        Ok(found)
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, Error> {
        let mut statement = self.0.prepare(&sqlite(sql)).map_err(failed)?;
        let changed = statement.execute(params_from_iter(parameters)).map_err(failed)?;
        Ok(changed as u64)
    }

    fn exclusive(&mut self, _: i64) -> Result<(), Error> {
        // Every transaction is: it began as a writer.
        Ok(())
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn failed(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
            Error::Unreachable(error.to_string())
        }
        _ => Error::Refused(error.to_string()),
    }
}
