//! Callbacks that are owed: written down with the request, and due from the transaction that ends the
//! job, so none is forgotten.

use std::time::Duration;

use super::sql::Transaction;
use super::{Error, Queue};
use crate::service::secret::random_hex;

/// A callback that is due.
#[derive(Clone, Debug)]
pub struct Callback {
    /// Its name, the same however often it is tried.
    pub id: String,
    /// The job that ended.
    pub job: String,
    /// Where to.
    pub url: String,
    /// How often it was tried.
    pub attempts: i64,
}

/// Notes that the end of a job must be told there, once: at its end, or now if it has ended.
pub(super) fn owe(
    tx: &mut dyn Transaction,
    job: &str,
    url: Option<&str>,
    ended: bool,
) -> Result<(), Error> {
    let Some(url) = url else { return Ok(()) };
    let due = if ended { "{now}" } else { "9223372036854775807" };
    let sql = format!(
        "INSERT INTO callbacks (id, job, url, due) SELECT $1, $2, $3, {due}
         WHERE NOT EXISTS (SELECT 1 FROM callbacks WHERE job = $2 AND url = $3)"
    );
    tx.execute(&sql, &[random_hex(12).into(), job.into(), url.into()])?;
    Ok(())
}

/// A job has ended: who wants to know that is told from now on.
pub(super) fn fall_due(tx: &mut dyn Transaction, job: &str) -> Result<(), Error> {
    tx.execute("UPDATE callbacks SET due = {now} WHERE job = $1", &[job.into()])?;
    Ok(())
}

impl Queue {
    /// Takes the next callback that is due; it is due again after `again`, unless it is settled.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn due_callback(&self, again: Duration) -> Result<Option<Callback>, Error> {
        let again = i64::try_from(again.as_millis()).unwrap_or(i64::MAX / 2);
        self.run(|tx| {
            let next = "SELECT id FROM callbacks WHERE due <= {now} ORDER BY due LIMIT 1 {skip}";
            let Some(row) = tx.query(next, &[])?.into_iter().next() else { return Ok(None) };
            let take = "UPDATE callbacks SET due = {now} + $2, attempts = attempts + 1
                WHERE id = $1 RETURNING id, job, url, attempts";
            let rows = tx.query(take, &[row.text(0).into(), again.into()])?;
            Ok(rows.first().map(|row| Callback {
                id: row.text(0),
                job: row.text(1),
                url: row.text(2),
                attempts: row.int(3),
            }))
        })
    }

    /// Settles a callback: it was told (`None`), or won't be. What there is to say goes to the job's
    /// log.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn settle_callback(&self, callback: &Callback, text: &str) -> Result<(), Error> {
        self.run(|tx| {
            tx.execute("DELETE FROM callbacks WHERE id = $1", &[callback.id.as_str().into()])?;
            super::append(tx, &callback.job, text)
        })
    }

    /// Puts a callback off.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn delay_callback(
        &self,
        callback: &Callback,
        wait: Duration,
        why: &str,
    ) -> Result<(), Error> {
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2);
        self.run(|tx| {
            let sql = "UPDATE callbacks SET due = {now} + $2, error = $3 WHERE id = $1";
            tx.execute(sql, &[callback.id.as_str().into(), wait.into(), why.into()])?;
            Ok(())
        })
    }
}
