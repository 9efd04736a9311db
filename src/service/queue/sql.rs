//! The little that the queue needs of a database, so that its logic is written once.
//!
//! Statements are in the common language of SQLite and PostgreSQL, with parameters `$1`, `$2`, ... and
//! a few words in braces for what the two say differently:
//!
//! | word | meaning |
//! |---|---|
//! | `{now}` | milliseconds since 1970, by the database's clock: workers' clocks may differ |
//! | `{skip}` | at the end of a SELECT: lock the row, and pass over what others have locked |
//! | `{lock}` | at the end of a SELECT: lock the row, and wait for others to let it go |
//! | `{serial}` | a column that counts up |

use std::fmt;

/// A value of a row or a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// A row, by position.
#[derive(Clone, Debug)]
pub struct Row(pub Vec<Value>);

impl Row {
    /// An integer; 0 for anything else, which the schema excludes.
    pub fn int(&self, index: usize) -> i64 {
        self.maybe_int(index).unwrap_or(0)
    }

    /// An integer or NULL.
    pub fn maybe_int(&self, index: usize) -> Option<i64> {
        match self.0.get(index) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A text; empty for anything else, which the schema excludes.
    pub fn text(&self, index: usize) -> String {
        self.maybe_text(index).unwrap_or_default()
    }

    /// A text or NULL.
    pub fn maybe_text(&self, index: usize) -> Option<String> {
        match self.0.get(index) {
            Some(Value::Text(value)) => Some(value.clone()),
            _ => None,
        }
    }
}

/// What went wrong in a database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or has broken off: what was asked may or may not have been done.
    #[error("the queue's database cannot be reached: {0}")]
    Unreachable(String),
    /// It refuses.
    #[error("the queue's database: {0}")]
    Refused(String),
}

/// An open transaction.
pub trait Transaction {
    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// See [`Error`].
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, Error>;

    /// Runs a statement; returns how many rows it changed.
    ///
    /// # Errors
    /// See [`Error`].
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, Error>;

    /// Waits until no other transaction is at the place of this name, till the end.
    ///
    /// # Errors
    /// See [`Error`].
    fn exclusive(&mut self, place: i64) -> Result<(), Error>;
}

/// What is done in a transaction.
pub type Work<'a> = &'a mut dyn FnMut(&mut dyn Transaction) -> Result<(), Error>;

/// A database.
pub trait Database: Send + Sync + fmt::Debug {
    /// Runs `work` in one transaction: all of it is done, durably, or nothing.
    ///
    /// # Errors
    /// That of `work`, or of the commit.
    fn transaction(&self, work: Work<'_>) -> Result<(), Error>;

    /// Which one it is, for people.
    fn name(&self) -> &'static str;
}

/// What a database says for the words in braces.
pub struct Dialect {
    /// `{now}`
    pub now: &'static str,
    /// `{skip}`
    pub skip: &'static str,
    /// `{lock}`
    pub lock: &'static str,
    /// `{serial}`
    pub serial: &'static str,
}

impl Dialect {
    /// Replaces the words in braces.
    pub fn render(&self, sql: &str) -> String {
        sql.replace("{now}", self.now)
            .replace("{skip}", self.skip)
            .replace("{lock}", self.lock)
            .replace("{serial}", self.serial)
    }
}
