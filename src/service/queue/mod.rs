//! The queue: jobs that are durable from the moment [`Queue::submit`] returns.
//!
//! One logic over two databases ([`sql`]): SQLite in the state directory, or PostgreSQL for workers
//! on many machines.
//!
//! - A job is in one of the states of [`State`]. A worker holds a running one by a *lease* with a token
//!   of its own, which it renews. A lease that ran out is taken back ([`Queue::reap`]), and whoever held
//!   it finds its token refused from then on.
//! - Requests for the same digest, options and destinations are one job (`dedup`, unique) for as long
//!   as that job, or its result, is there.
//! - A result has one row under its key. Two jobs that made the same one (by tag and by digest) both
//!   end with the row of the first.
//! - Tenants take turns within a priority: a job's `rank` is its start time in fair queueing, where
//!   time goes on by one with each job of a tenant. So who queues a thousand waits behind who queues
//!   one, and nobody waits for ever.
//! - Times are the database's.

mod callbacks;
mod postgres;
mod rows;
mod schema;
mod sql;
mod sqlite;

mod workers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

pub use self::callbacks::Callback;
use self::rows::{COLUMNS, job};
use self::sql::{Database, Transaction, Value};
pub use self::workers::Worker;
use super::job::{Job, Outcome, Request, State};
use super::secret::random_hex;

/// Place where leases are given out one at a time, when tenants have limits.
const LEASING: i64 = 2;
/// Lines of a job's log that are kept.
const MAX_LINES: i64 = 2000;
/// Bytes of one line.
const MAX_LINE: usize = 2000;
/// Jobs that are listed at once.
pub const MAX_LISTED: i64 = 500;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Database(#[from] sql::Error),
    /// A tenant has as many jobs waiting as it may.
    #[error("{tenant} has {limit} jobs waiting, and may not have more")]
    Full {
        /// Who.
        tenant: String,
        /// How many it may have.
        limit: u64,
    },
    /// A row that this program did not write.
    #[error("the queue holds something that is not understood: {0}")]
    Row(String),
}

impl Error {
    /// Whether the same may work a little later.
    pub fn passes(&self) -> bool {
        !matches!(self, Error::Database(sql::Error::Refused(_)) | Error::Row(_))
    }
}

/// How many jobs a tenant may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// At work at once, over all workers.
    pub running: Option<u64>,
    /// Waiting.
    pub queued: Option<u64>,
}

/// Limits of tenants by name; `*` for those without one of their own.
pub type Limits = BTreeMap<String, Limit>;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The job, new or old.
    pub id: String,
    /// Whether it is new.
    pub new: bool,
}

/// A job that a worker holds.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The job.
    pub job: Job,
    /// Proves who holds it.
    pub token: String,
    /// The trace that it belongs to, as W3C `traceparent`.
    pub trace: Option<String>,
}

/// What a renewal finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Go on.
    Held,
    /// Somebody wants it stopped.
    Cancelled,
    /// Somebody else has it, or it is over.
    Lost,
}

/// What is being done on a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// In a word.
    pub stage: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; 0 if that isn't known.
    pub total: u64,
    /// Lines for the log.
    pub lines: Vec<String>,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of one tenant.
    pub tenant: Option<String>,
    /// In one state.
    pub state: Option<State>,
    /// With this in the image's name.
    pub image: Option<String>,
    /// Older than this position.
    pub before: Option<i64>,
    /// How many; [`MAX_LISTED`] at most.
    pub limit: i64,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    database: Box<dyn Database>,
    limits: RwLock<Limits>,
}

impl Queue {
    /// Opens a queue in a SQLite file.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn sqlite(path: &Path) -> Result<Queue, Error> {
        Queue::over(Box::new(sqlite::Sqlite::open(path)?))
    }

    /// Opens a queue in a PostgreSQL database.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn postgres(url: &str) -> Result<Queue, Error> {
        Queue::over(Box::new(postgres::Postgres::open(url)?))
    }

    fn over(database: Box<dyn Database>) -> Result<Queue, Error> {
        database.transaction(&mut |transaction| schema::migrate(transaction))?;
        Ok(Queue { database, limits: RwLock::default() })
    }

    /// Which database it is in.
    pub fn database(&self) -> &'static str {
        self.database.name()
    }

    /// Sets what tenants may have.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Whether a tenant has a limit of its own or by default.
    fn limit(&self, tenant: &str) -> Limit {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        limits.get(tenant).or_else(|| limits.get("*")).copied().unwrap_or_default()
    }

    fn limits_running(&self) -> bool {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        limits.values().any(|limit| limit.running.is_some())
    }

    /// Runs `work` in one transaction.
    fn run<T>(
        &self,
        mut work: impl FnMut(&mut dyn Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut value = None;
        let mut failed = None;
        let done = self.database.transaction(&mut |transaction| match work(transaction) {
            Ok(done) => {
                value = Some(done);
                Ok(())
            }
            Err(Error::Database(error)) => Err(error),
            Err(other) => {
                failed = Some(other);
                // Rolls back; the words are never seen.
                Err(sql::Error::Refused(String::new()))
            }
        });
        match (done, failed, value) {
            (_, Some(error), _) => Err(error),
            (Err(error), None, _) => Err(error.into()),
            (Ok(()), None, Some(value)) => Ok(value),
            (Ok(()), None, None) => Err(Error::Row("a transaction that did nothing".to_owned())),
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it doesn't.
    pub fn ping(&self) -> Result<(), Error> {
        self.run(|tx| Ok(tx.query("SELECT 1", &[]).map(|_| ())?))
    }

    /// Takes requests in, all or none. When this returns they are on disk.
    ///
    /// # Errors
    /// [`Error::Full`] if a tenant has too many waiting.
    pub fn submit(
        &self,
        requests: &[Request],
        trace: Option<&str>,
    ) -> Result<Vec<Submitted>, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.run(|tx| requests.iter().map(|request| self.submit_one(tx, request, trace)).collect())
    }

    fn submit_one(
        &self,
        tx: &mut dyn Transaction,
        request: &Request,
        trace: Option<&str>,
    ) -> Result<Submitted, Error> {
        let dedup = request.dedup();
        if let Some(known) = join(tx, &dedup, request)? {
            return Ok(known);
        }
        let tenant = request.tenant.as_str();
        if let Some(limit) = self.limit(tenant).queued {
            let count = "SELECT count(*) FROM jobs WHERE tenant = $1 AND state = 'queued'";
            let waiting = tx.query(count, &[tenant.into()])?.first().map_or(0, |row| row.int(0));
            if u64::try_from(waiting).unwrap_or(0) >= limit {
                return Err(Error::Full { tenant: tenant.to_owned(), limit });
            }
        }
        let rank = "SELECT CASE WHEN a > b THEN a ELSE b END FROM (SELECT
            (SELECT coalesce(max(rank) + 1, 0) FROM jobs WHERE tenant = $1 AND state = 'queued') AS a,
            (SELECT coalesce(min(rank), 0) FROM jobs WHERE state = 'queued') AS b) AS ranks";
        let rank = tx.query(rank, &[tenant.into()])?.first().map_or(0, |row| row.int(0));
        let id = random_hex(12);
        let json = serde_json::to_string(request).map_err(|error| Error::Row(error.to_string()))?;
        let has_digest = i64::from(dedup.starts_with("digest:"));
        let insert =
            "INSERT INTO jobs (id, state, tenant, priority, rank, dedup, request, has_digest,
            trace, ready, created, updated)
            VALUES ($1, 'queued', $2, $3, $4, $5, $6, $7, $8, {now}, {now}, {now})
            ON CONFLICT (dedup) DO NOTHING";
        let values: [Value; 8] = [
            id.as_str().into(),
            tenant.into(),
            request.priority.into(),
            rank.into(),
            dedup.as_str().into(),
            json.into(),
            has_digest.into(),
            trace.into(),
        ];
        if tx.execute(insert, &values)? == 1 {
            let text = format!("queued by {}", request.origin);
            append(tx, &id, &text)?;
            callbacks::owe(tx, &id, request.callback.as_deref(), false)?;
            return Ok(Submitted { id, new: true });
        }
        // Another process was faster.
        join(tx, &dedup, request)?.ok_or_else(|| {
            let text = "a job vanished while it was looked at".to_owned();
            sql::Error::Unreachable(text).into()
        })
    }

    /// Gives the next job to a worker for so long; `None` if there is none.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn lease(&self, worker: &str, time: Duration) -> Result<Option<Lease>, Error> {
        let limited = self.limits_running();
        self.run(|tx| {
            let mut sql = "SELECT id FROM jobs WHERE state = 'queued' AND ready <= {now}".to_owned();
            let mut values = Vec::new();
            if limited {
                tx.exclusive(LEASING)?;
                let count = "SELECT tenant, count(*) FROM jobs WHERE state = 'running' GROUP BY tenant";
                for row in tx.query(count, &[])? {
                    let most = self.limit(&row.text(0)).running;
                    if most.is_some_and(|most| row.int(1) >= i64::try_from(most).unwrap_or(i64::MAX)) {
                        values.push(Value::from(row.text(0)));
                        sql += &format!(" AND tenant <> ${}", values.len());
                    }
                }
            }
            sql += " ORDER BY priority DESC, rank, seq LIMIT 1 {skip}";
            let Some(row) = tx.query(&sql, &values)?.into_iter().next() else { return Ok(None) };
            let id = row.text(0);
            let token = random_hex(16);
            let until = i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2);
            // A tag may move once it has been looked at, so another request for it is another job.
            let take = format!(
                "UPDATE jobs SET state = 'running', worker = $2, token = $3,
                 lease_until = {{now}} + $4, started = coalesce(started, {{now}}), updated = {{now}},
                 stage = NULL, progress_done = NULL, progress_total = NULL,
                 dedup = CASE WHEN has_digest = 1 THEN dedup ELSE NULL END
                 WHERE id = $1 AND state = 'queued' RETURNING trace, {COLUMNS}"
            );
            let values: [Value; 4] =
                [id.as_str().into(), worker.into(), token.as_str().into(), until.into()];
            let Some(row) = tx.query(&take, &values)?.into_iter().next() else { return Ok(None) };
            append(tx, &id, &format!("taken by {worker}"))?;
            Ok(Some(Lease { job: job(&row, 1)?, token, trace: row.maybe_text(0) }))
        })
    }

    /// Renews a lease and tells how the work gets on.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn beat(&self, lease: &Lease, time: Duration, progress: &Progress) -> Result<Beat, Error> {
        let until = i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2);
        self.run(|tx| {
            let renew = "UPDATE jobs SET lease_until = {now} + $3, updated = {now}, stage = $4,
                progress_done = $5, progress_total = $6
                WHERE id = $1 AND token = $2 AND state = 'running' RETURNING cancelling";
            let number = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
            let values: [Value; 6] = [
                lease.job.id.as_str().into(),
                lease.token.as_str().into(),
                until.into(),
                Some(progress.stage.as_str()).filter(|stage| !stage.is_empty()).into(),
                number(progress.done),
                number(progress.total),
            ];
            let Some(row) = tx.query(renew, &values)?.into_iter().next() else {
                return Ok(Beat::Lost);
            };
            for line in &progress.lines {
                append(tx, &lease.job.id, line)?;
            }
            Ok(if row.int(0) == 0 { Beat::Held } else { Beat::Cancelled })
        })
    }

    /// The result under a key, if there is one.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn result(&self, key: &str) -> Result<Option<Outcome>, Error> {
        self.run(|tx| {
            let rows = tx.query("SELECT outcome FROM results WHERE key = $1", &[key.into()])?;
            rows.first().map(|row| parse(&row.text(0))).transpose()
        })
    }

    /// Ends a job with a result. Of several with the same key the first counts; the outcome that the
    /// job ends with is returned. `None` if the lease was lost: then nothing has changed.
    ///
    /// # Errors
    /// If the database can't be reached. Asking again is safe.
    pub fn complete(&self, lease: &Lease, outcome: &Outcome) -> Result<Option<Outcome>, Error> {
        self.run(|tx| {
            match holds(tx, lease)? {
                Held::Yes => {}
                Held::Over => return self.outcome(tx, &lease.job.id),
                Held::No => return Ok(None),
            }
            let id = lease.job.id.as_str();
            let put = "INSERT INTO results (key, job, outcome, published)
                VALUES ($1, $2, $3, {now}) ON CONFLICT (key) DO NOTHING";
            let key = outcome.key.as_str();
            let first = tx.execute(put, &[key.into(), id.into(), text(outcome)?.into()])? == 1;
            let mut last = outcome.clone();
            if !first {
                let rows = tx.query("SELECT outcome FROM results WHERE key = $1", &[key.into()])?;
                if let Some(row) = rows.first() {
                    last = Outcome { reused: true, ..parse(&row.text(0))? };
                }
            }
            let said = if last.reused { "done: the result was there already" } else { "done" };
            self.end(tx, lease, State::Done, Some(&last), None, said)?;
            Ok(Some(last))
        })
    }

    /// Ends a job without a result. Whether it was still held.
    ///
    /// # Errors
    /// If the database can't be reached. Asking again is safe.
    pub fn give_up(&self, lease: &Lease, state: State, why: &str) -> Result<bool, Error> {
        self.run(|tx| match holds(tx, lease)? {
            Held::Yes => {
                self.end(tx, lease, state, None, Some(why), &format!("{}: {why}", state.name()))?;
                Ok(true)
            }
            Held::Over => Ok(true),
            Held::No => Ok(false),
        })
    }

    fn end(
        &self,
        tx: &mut dyn Transaction,
        lease: &Lease,
        state: State,
        outcome: Option<&Outcome>,
        error: Option<&str>,
        said: &str,
    ) -> Result<(), Error> {
        // What failed or was called off may be asked for again.
        let end = "UPDATE jobs SET state = $2, result = $3, result_key = $5, error = $4, finished = {now},
            updated = {now}, lease_until = NULL, stage = NULL,
            dedup = CASE WHEN $2 IN ('done', 'skipped') THEN dedup ELSE NULL END
            WHERE id = $1";
        let key = outcome.map(|outcome| outcome.key.as_str());
        let outcome = outcome.map(text).transpose()?;
        let id = lease.job.id.as_str();
        let values: [Value; 5] =
            [id.into(), state.name().into(), outcome.into(), error.into(), key.into()];
        tx.execute(end, &values)?;
        append(tx, id, said)?;
        callbacks::fall_due(tx, id)
    }

    fn outcome(&self, tx: &mut dyn Transaction, id: &str) -> Result<Option<Outcome>, Error> {
        let rows = tx.query("SELECT result FROM jobs WHERE id = $1", &[id.into()])?;
        rows.first().and_then(|row| row.maybe_text(0)).map(|text| parse(&text)).transpose()
    }

    /// Gives a job back to be tried again after a while, because of something that passes; after
    /// `most` such failures it fails for good. Whether it was still held.
    ///
    /// # Errors
    /// If the database can't be reached. Asking again is safe.
    pub fn retry_later(
        &self,
        lease: &Lease,
        why: &str,
        after: Duration,
        most: i64,
    ) -> Result<bool, Error> {
        self.run(|tx| {
            match holds(tx, lease)? {
                Held::Yes => {}
                Held::Over => return Ok(true),
                Held::No => return Ok(false),
            }
            if lease.job.attempts + 1 >= most {
                let said = format!("failed for the last time: {why}");
                self.end(tx, lease, State::Failed, None, Some(why), &said)?;
                return Ok(true);
            }
            let again = "UPDATE jobs SET state = 'queued', attempts = attempts + 1, error = $2,
                ready = {now} + $3, token = NULL, lease_until = NULL, stage = NULL, updated = {now}
                WHERE id = $1";
            let wait = i64::try_from(after.as_millis()).unwrap_or(i64::MAX / 2);
            let id = lease.job.id.as_str();
            tx.execute(again, &[id.into(), why.into(), wait.into()])?;
            append(tx, id, &format!("to be tried again in {} s: {why}", after.as_secs()))?;
            Ok(true)
        })
    }

    /// Gives a job back untouched: its worker goes home. Whether it was still held.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn release(&self, lease: &Lease) -> Result<bool, Error> {
        self.run(|tx| {
            if !matches!(holds(tx, lease)?, Held::Yes) {
                return Ok(false);
            }
            let back = "UPDATE jobs SET state = 'queued', ready = {now}, token = NULL,
                lease_until = NULL, stage = NULL, updated = {now} WHERE id = $1";
            let id = lease.job.id.as_str();
            tx.execute(back, &[id.into()])?;
            append(tx, id, "given back: its worker is being shut down")?;
            Ok(true)
        })
    }

    /// Takes back the jobs of workers that are gone. One that was lost more than `most` times fails:
    /// it may be what kills them. Returns how many were taken back.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn reap(&self, most: i64) -> Result<usize, Error> {
        self.run(|tx| {
            let lost = format!(
                "UPDATE jobs SET state = 'queued', lost = lost + 1, ready = {{now}}, token = NULL,
                 lease_until = NULL, stage = NULL, updated = {{now}}
                 WHERE state = 'running' AND lease_until < {{now}} RETURNING {COLUMNS}"
            );
            let rows = tx.query(&lost, &[])?;
            for row in &rows {
                let job = job(row, 0)?;
                let worker = job.worker.clone().unwrap_or_default();
                append(tx, &job.id, &format!("taken back: {worker} was not heard of any more"))?;
                if job.cancelling {
                    let lease = Lease { job, token: String::new(), trace: None };
                    self.end(tx, &lease, State::Cancelled, None, None, "cancelled")?;
                } else if job.lost > most {
                    let why = format!("{} workers were lost at this job", job.lost);
                    let lease = Lease { job, token: String::new(), trace: None };
                    self.end(tx, &lease, State::Failed, None, Some(&why), &why)?;
                }
            }
            Ok(rows.len())
        })
    }

    /// Calls a job off. A queued one is cancelled at once, a running one by its worker. Returns the
    /// job as it is then, or `None` if there is none of that name (for that tenant).
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn cancel(&self, id: &str, tenant: Option<&str>, by: &str) -> Result<Option<Job>, Error> {
        self.run(|tx| {
            let Some(job) = find(tx, id, tenant, true)? else { return Ok(None) };
            match job.state {
                State::Queued => {
                    let lease = Lease { job, token: String::new(), trace: None };
                    let why = format!("called off by {by}");
                    self.end(tx, &lease, State::Cancelled, None, Some(&why), &why)?;
                }
                State::Running => {
                    let ask = "UPDATE jobs SET cancelling = 1, updated = {now} WHERE id = $1";
                    tx.execute(ask, &[id.into()])?;
                    append(tx, id, &format!("to be called off, says {by}"))?;
                }
                _ => {}
            }
            find(tx, id, tenant, false)
        })
    }

    /// Queues a job that failed or was called off once more. Returns the job as it is then; it is
    /// unchanged if it is not over, or done.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn retry(&self, id: &str, tenant: Option<&str>, by: &str) -> Result<Option<Job>, Error> {
        self.run(|tx| {
            let Some(job) = find(tx, id, tenant, true)? else { return Ok(None) };
            if matches!(job.state, State::Failed | State::Cancelled) {
                let dedup = job.request.dedup();
                let taken = "SELECT id FROM jobs WHERE dedup = $1";
                let taken = !tx.query(taken, &[dedup.as_str().into()])?.is_empty();
                let again =
                    "UPDATE jobs SET state = 'queued', attempts = 0, lost = 0, cancelling = 0,
                    error = NULL, ready = {now}, finished = NULL, updated = {now}, dedup = $2,
                    result = NULL, result_key = NULL
                    WHERE id = $1";
                let dedup = Some(dedup).filter(|_| !taken);
                tx.execute(again, &[id.into(), dedup.into()])?;
                append(tx, id, &format!("queued again by {by}"))?;
                callbacks::owe(tx, id, job.request.callback.as_deref(), false)?;
            }
            find(tx, id, tenant, false)
        })
    }

    /// One job; of one tenant, if one is named.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn job(&self, id: &str, tenant: Option<&str>) -> Result<Option<Job>, Error> {
        self.run(|tx| find(tx, id, tenant, false))
    }

    /// Jobs, latest first, with their positions.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn jobs(&self, filter: &Filter) -> Result<Vec<(i64, Job)>, Error> {
        let mut sql = format!("SELECT seq, {COLUMNS} FROM jobs WHERE seq < $1");
        let mut values: Vec<Value> = vec![filter.before.unwrap_or(i64::MAX).into()];
        if let Some(tenant) = &filter.tenant {
            values.push(tenant.as_str().into());
            sql += &format!(" AND tenant = ${}", values.len());
        }
        if let Some(state) = filter.state {
            values.push(state.name().into());
            sql += &format!(" AND state = ${}", values.len());
        }
        if let Some(image) = &filter.image {
            // Requests are JSON, with the image first. Not by an index: it is for people.
            values.push(format!("{{\"image\":\"%{}%\",\"options\":%", escape(image)).into());
            sql += &format!(" AND request LIKE ${} ESCAPE '!'", values.len());
        }
        values.push(filter.limit.clamp(1, MAX_LISTED).into());
        sql += &format!(" ORDER BY seq DESC LIMIT ${}", values.len());
        self.run(|tx| {
            tx.query(&sql, &values)?.iter().map(|row| Ok((row.int(0), job(row, 1)?))).collect()
        })
    }

    /// Lines of a job's log after a position: position, time, text.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn log(&self, id: &str, after: i64) -> Result<Vec<(i64, i64, String)>, Error> {
        self.run(|tx| {
            let sql =
                "SELECT seq, at, text FROM log WHERE job = $1 AND seq > $2 ORDER BY seq LIMIT $3";
            let rows = tx.query(sql, &[id.into(), after.into(), MAX_LINES.into()])?;
            Ok(rows.iter().map(|row| (row.int(0), row.int(1), row.text(2))).collect())
        })
    }

    /// How many jobs are in each state.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn counts(&self) -> Result<BTreeMap<State, i64>, Error> {
        self.run(|tx| {
            let rows = tx.query("SELECT state, count(*) FROM jobs GROUP BY state", &[])?;
            let counted =
                rows.iter().filter_map(|row| Some((State::of(&row.text(0))?, row.int(1))));
            let mut counts: BTreeMap<State, i64> =
                State::ALL.into_iter().map(|state| (state, 0)).collect();
            counts.extend(counted);
            Ok(counts)
        })
    }

    /// Seconds that the job that has been ready longest has waited.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn oldest_wait(&self) -> Result<i64, Error> {
        self.run(|tx| {
            let sql = "SELECT coalesce({now} - min(ready), 0) FROM jobs WHERE state = 'queued'";
            Ok(tx.query(sql, &[])?.first().map_or(0, |row| row.int(0)).max(0) / 1000)
        })
    }

    /// Whether a worker still holds this job by this token.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn is_held(&self, id: &str, token: &str) -> Result<bool, Error> {
        self.run(|tx| {
            let sql = "SELECT 1 FROM jobs WHERE id = $1 AND token = $2 AND state = 'running'";
            Ok(!tx.query(sql, &[id.into(), token.into()])?.is_empty())
        })
    }

    /// Results that are older than so long, oldest first: a hundred at most.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn old_results(&self, age: Duration) -> Result<Vec<Outcome>, Error> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX / 2);
        self.run(|tx| {
            let sql = "SELECT outcome FROM results WHERE published < {now} - $1
                ORDER BY published LIMIT 100";
            tx.query(sql, &[age.into()])?.iter().map(|row| parse(&row.text(0))).collect()
        })
    }

    /// Forgets a result: who asks for it again gets it made again.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn forget_result(&self, key: &str) -> Result<(), Error> {
        self.run(|tx| {
            tx.execute("DELETE FROM results WHERE key = $1", &[key.into()])?;
            let free = "UPDATE jobs SET dedup = NULL, result_key = NULL WHERE result_key = $1";
            tx.execute(free, &[key.into()])?;
            Ok(())
        })
    }

    /// Removes jobs that ended longer ago than this, unless their result is there; returns how many.
    ///
    /// # Errors
    /// If the database can't be reached.
    pub fn forget_jobs(&self, age: Duration) -> Result<u64, Error> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX / 2);
        self.run(|tx| {
            let sql = "DELETE FROM jobs WHERE finished < {now} - $1
                AND state IN ('done', 'failed', 'cancelled', 'skipped')
                AND id NOT IN (SELECT job FROM results)
                AND id NOT IN (SELECT job FROM callbacks)";
            Ok(tx.execute(sql, &[age.into()])?)
        })
    }

    /// Whether a poll has not seen this digest under this name before; remembers it. Done in one with
    /// [`Queue::submit`], so that nothing is seen and then lost.
    ///
    /// # Errors
    /// As those of [`Queue::submit`].
    pub fn submit_seen(
        &self,
        source: &str,
        name: &str,
        digest: &str,
        requests: &[Request],
    ) -> Result<Vec<Submitted>, Error> {
        self.run(|tx| {
            let known = "SELECT 1 FROM seen WHERE source = $1 AND name = $2 AND digest = $3";
            let values: [Value; 3] = [source.into(), name.into(), digest.into()];
            if !tx.query(known, &values)?.is_empty() {
                return Ok(Vec::new());
            }
            let put = "INSERT INTO seen (source, name, digest) VALUES ($1, $2, $3)
                ON CONFLICT (source, name) DO UPDATE SET digest = $3";
            tx.execute(put, &values)?;
            requests.iter().map(|request| self.submit_one(tx, request, None)).collect()
        })
    }
}

/// The job that a request comes too late to begin, if there is one. Its end is told to this one as well.
fn join(
    tx: &mut dyn Transaction,
    dedup: &str,
    request: &Request,
) -> Result<Option<Submitted>, Error> {
    let rows = tx.query("SELECT id, state FROM jobs WHERE dedup = $1", &[dedup.into()])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let id = row.text(0);
    let ended = State::of(&row.text(1)).is_some_and(State::is_final);
    callbacks::owe(tx, &id, request.callback.as_deref(), ended)?;
    Ok(Some(Submitted { id, new: false }))
}

/// Whether a lease holds.
enum Held {
    Yes,
    /// The job ended under this very token: an answer got lost.
    Over,
    No,
}

fn holds(tx: &mut dyn Transaction, lease: &Lease) -> Result<Held, Error> {
    let sql = "SELECT state FROM jobs WHERE id = $1 AND token = $2 {lock}";
    let rows = tx.query(sql, &[lease.job.id.as_str().into(), lease.token.as_str().into()])?;
    Ok(match rows.first().map(|row| row.text(0)).as_deref() {
        Some("running") => Held::Yes,
        Some(_) => Held::Over,
        None => Held::No,
    })
}

fn find(
    tx: &mut dyn Transaction,
    id: &str,
    tenant: Option<&str>,
    lock: bool,
) -> Result<Option<Job>, Error> {
    let lock = if lock { "{lock}" } else { "" };
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE id = $1 {lock}");
    let rows = tx.query(&sql, &[id.into()])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let job = job(row, 0)?;
    Ok(Some(job).filter(|job| tenant.is_none_or(|tenant| job.request.tenant == tenant)))
}

/// Adds a line to a job's log.
fn append(tx: &mut dyn Transaction, id: &str, line: &str) -> Result<(), Error> {
    let mut end = line.len().min(MAX_LINE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    // PostgreSQL takes no NUL in a text.
    let line = line[..end].replace('\0', "\u{fffd}");
    let sql = "INSERT INTO log (job, at, text) SELECT $1, {now}, $2
        WHERE (SELECT count(*) FROM log WHERE job = $1) < $3";
    tx.execute(sql, &[id.into(), line.into(), MAX_LINES.into()])?;
    Ok(())
}

/// A text that stands for itself in a pattern of LIKE.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '!') {
            escaped.push('!');
        }
        // A quote would be outside of the name; PostgreSQL takes no NUL.
        escaped.push(if matches!(letter, '"' | '\0') { '\u{fffd}' } else { letter });
    }
    escaped
}

fn text(outcome: &Outcome) -> Result<String, Error> {
    serde_json::to_string(outcome).map_err(|error| Error::Row(error.to_string()))
}

fn parse(text: &str) -> Result<Outcome, Error> {
    serde_json::from_str(text).map_err(|error| Error::Row(error.to_string()))
}
