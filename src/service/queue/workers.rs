//! Who works on the queue.

use std::time::Duration;

use serde::Serialize;

use super::sql::Value;
use super::{Error, Queue};

/// A worker process. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Worker {
    /// Its name, another one each time it starts.
    pub id: String,
    /// Its machine.
    pub host: String,
    /// Its version.
    pub version: String,
    /// Jobs that it takes at once.
    pub slots: i64,
    /// Jobs that it has.
    pub running: i64,
    /// Whether it takes no more.
    pub draining: bool,
    /// When it started.
    pub started: i64,
    /// When it last said so.
    pub seen: i64,
}

impl Queue {
    /// Says that a worker is there.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn present(&self, worker: &Worker) -> Result<(), Error> {
        self.run(|tx| {
            let sql = "INSERT INTO workers
                (id, host, version, slots, running, draining, started, seen)
                VALUES ($1, $2, $3, $4, $5, $6, {now}, {now})
                ON CONFLICT (id) DO UPDATE SET running = $5, draining = $6, seen = {now}";
            let values: [Value; 6] = [
                worker.id.as_str().into(),
                worker.host.as_str().into(),
                worker.version.as_str().into(),
                worker.slots.into(),
                worker.running.into(),
                i64::from(worker.draining).into(),
            ];
            tx.execute(sql, &values)?;
            Ok(())
        })
    }

    /// Says that a worker is gone.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn gone(&self, id: &str) -> Result<(), Error> {
        self.run(|tx| {
            Ok(tx.execute("DELETE FROM workers WHERE id = $1", &[id.into()]).map(|_| ())?)
        })
    }

    /// The workers, and removes those that were not heard of for so long.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn workers(&self, silence: Duration) -> Result<Vec<Worker>, Error> {
        let silence = i64::try_from(silence.as_millis()).unwrap_or(i64::MAX / 2);
        self.run(|tx| {
            tx.execute("DELETE FROM workers WHERE seen < {now} - $1", &[silence.into()])?;
            let sql = "SELECT id, host, version, slots, running, draining, started, seen
                FROM workers ORDER BY started, id";
            let rows = tx.query(sql, &[])?;
            Ok(rows
                .iter()
                .map(|row| Worker {
                    id: row.text(0),
                    host: row.text(1),
                    version: row.text(2),
                    slots: row.int(3),
                    running: row.int(4),
                    draining: row.int(5) != 0,
                    started: row.int(6),
                    seen: row.int(7),
                })
                .collect())
        })
    }
}
