//! The queue in PostgreSQL: for workers on any number of machines.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{error, fmt};

use postgres::types::private::BytesMut;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql::{Database, Dialect, Error, Row, Transaction, Value, Work};

/// Connections of one process.
const CONNECTIONS: usize = 8;
/// Parsed statements of one connection; there are some thirty, and more with many tenants at limits.
const STATEMENTS: usize = 200;
/// Longest wait for one of them.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest statement: more is a lock that nobody will give back.
const STATEMENT: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
                         SET idle_in_transaction_session_timeout = '30s'";
const DIALECT: Dialect = Dialect {
    now: "(extract(epoch from clock_timestamp()) * 1000)::bigint",
    skip: "FOR UPDATE SKIP LOCKED",
    lock: "FOR UPDATE",
    serial: "BIGSERIAL PRIMARY KEY",
};
/// First half of the numbers of advisory locks, to be apart from other programs'.
const LOCKS: i64 = 0x6432_7500_0000_0000;

/// A PostgreSQL database.
pub struct Postgres {
    config: Config,
    tls: MakeRustlsConnect,
    pool: Mutex<Pool>,
    returned: Condvar,
}

struct Pool {
    idle: Vec<Connection>,
    open: usize,
}

/// A connection, with the statements that the server has parsed for it: that halves the exchanges.
struct Connection {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its configuration holds the password.
        f.debug_struct("Postgres").field("hosts", &self.config.get_hosts()).finish()
    }
}

impl Postgres {
    /// Reads the address (`postgres://user:password@host/name?sslmode=require`); connections are
    /// opened when they are needed.
    ///
    /// # Errors
    /// If it is no such address, or there are no trusted authorities for TLS.
    pub fn open(url: &str) -> Result<Postgres, Error> {
        let mut config: Config =
            url.parse().map_err(|_| Error::Refused("its address is malformed".to_owned()))?;
        config.connect_timeout(Duration::from_secs(10));
        config.keepalives_idle(Duration::from_secs(30));
        config.tcp_user_timeout(Duration::from_secs(30));
        if config.get_application_name().is_none() {
            config.application_name("dock2uni");
        }
        let tls = crate::service::tls::client().map_err(Error::Refused)?;
        let tls = MakeRustlsConnect::new(tls);
        let pool = Mutex::new(Pool { idle: Vec::new(), open: 0 });
        Ok(Postgres { config, tls, pool, returned: Condvar::new() })
    }

    /// A connection: an idle one, or a new one if there may be more.
    fn take(&self) -> Result<Connection, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(connection) = pool.idle.pop() {
                if !connection.client.is_closed() {
                    return Ok(connection);
                }
                pool.open -= 1;
            }
            if pool.open < CONNECTIONS {
                pool.open += 1;
                drop(pool);
                return self.connect().inspect_err(|_| self.forget());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Unreachable("all connections are in use".to_owned()));
            }
            let waited = self.returned.wait_timeout(pool, left);
            pool = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn connect(&self) -> Result<Connection, Error> {
        let mut client = self.config.connect(self.tls.clone()).map_err(failed)?;
        client.batch_execute(STATEMENT).map_err(failed)?;
        Ok(Connection { client, statements: HashMap::new() })
    }

    fn give_back(&self, connection: Connection) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.idle.push(connection);
        self.returned.notify_one();
    }

    fn forget(&self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.open -= 1;
        self.returned.notify_one();
    }
}

impl Database for Postgres {
    fn transaction(&self, work: Work<'_>) -> Result<(), Error> {
        let mut connection = self.take()?;
        let Connection { client, statements } = &mut connection;
        let done = (|| {
            let transaction = client.transaction().map_err(failed)?;
            let mut open = Open { transaction, statements };
            // A rollback that fails closes the connection, which does the same.
            work(&mut open)?;
            open.transaction.commit().map_err(failed)
        })();
        match &done {
            Err(Error::Unreachable(_)) => {
                drop(connection);
                self.forget();
            }
            _ => self.give_back(connection),
        }
        done
    }

    fn name(&self) -> &'static str {
        "postgres"
    }
}

struct Open<'a> {
    transaction: postgres::Transaction<'a>,
    statements: &'a mut HashMap<String, Statement>,
}

impl Open<'_> {
    /// A statement as the server has parsed it.
    fn statement(&mut self, sql: &str) -> Result<Statement, Error> {
        let sql = DIALECT.render(sql);
        if let Some(statement) = self.statements.get(&sql) {
            return Ok(statement.clone());
        }
        let statement = self.transaction.prepare(&sql).map_err(failed)?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

fn parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl Transaction for Open<'_> {
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Error> {
        let statement = self.statement(sql)?;
        let rows = self.transaction.query(&statement, &parameters(values)).map_err(failed)?;
        rows.iter()
            .map(|row| {
                let column = |index: usize| match *row.columns()[index].type_() {
                    Type::INT8 => row.try_get::<_, Option<i64>>(index).map(Value::from),
                    Type::INT4 => {
                        row.try_get::<_, Option<i32>>(index).map(|n| n.map(i64::from).into())
                    }
                    Type::VOID => Ok(Value::Null),
                    _ => row.try_get::<_, Option<String>>(index).map(Value::from),
                };
                (0..row.len()).map(column).collect::<Result<_, _>>().map(Row).map_err(failed)
            })
            .collect()
    }

    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Error> {
        let statement = self.statement(sql)?;
        self.transaction.execute(&statement, &parameters(values)).map_err(failed)
    }

    fn exclusive(&mut self, place: i64) -> Result<(), Error> {
        self.query("SELECT pg_advisory_xact_lock($1)", &[(LOCKS | place).into()]).map(|_| ())
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(value) => value.to_sql(kind, out),
            Value::Text(text) => text.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // The schema has texts and 64-bit integers alone.
        true
    }

    to_sql_checked!();
}

/// Sorts failures. What a server says about a statement is final, unless it says that it is
/// shutting down (class 57), has no room (53), or that transactions were in each other's way (40).
fn failed(error: postgres::Error) -> Error {
    let text = || {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    };
    match error.code() {
        Some(code) if !["57", "53", "40", "08", "55"].contains(&&code.code()[..2]) => {
            Error::Refused(text())
        }
        _ => Error::Unreachable(text()),
    }
}
