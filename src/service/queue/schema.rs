//! The tables, and how they come to be.

use super::sql::{Error, Transaction};

/// One step for each version of the schema; a step is never changed once it is released.
const STEPS: [&[&str]; 1] = [&[
    "CREATE TABLE jobs (
        seq {serial},
        id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        tenant TEXT NOT NULL,
        priority BIGINT NOT NULL,
        rank BIGINT NOT NULL,
        dedup TEXT UNIQUE,
        request TEXT NOT NULL,
        has_digest BIGINT NOT NULL,
        ready BIGINT NOT NULL,
        attempts BIGINT NOT NULL DEFAULT 0,
        lost BIGINT NOT NULL DEFAULT 0,
        worker TEXT,
        token TEXT,
        lease_until BIGINT,
        cancelling BIGINT NOT NULL DEFAULT 0,
        stage TEXT,
        progress_done BIGINT,
        progress_total BIGINT,
        result TEXT,
        result_key TEXT,
        error TEXT,
        trace TEXT,
        created BIGINT NOT NULL,
        started BIGINT,
        finished BIGINT,
        updated BIGINT NOT NULL
    )",
    "CREATE INDEX jobs_next ON jobs (priority DESC, rank, seq) WHERE state = 'queued'",
    "CREATE INDEX jobs_ranks ON jobs (tenant, rank) WHERE state = 'queued'",
    "CREATE INDEX jobs_rank ON jobs (rank) WHERE state = 'queued'",
    "CREATE INDEX jobs_leases ON jobs (lease_until) WHERE state = 'running'",
    "CREATE INDEX jobs_states ON jobs (state, finished)",
    "CREATE INDEX jobs_tenants ON jobs (tenant, seq)",
    "CREATE INDEX jobs_results ON jobs (result_key) WHERE result_key IS NOT NULL",
    "CREATE TABLE results (
        key TEXT PRIMARY KEY,
        job TEXT NOT NULL,
        outcome TEXT NOT NULL,
        published BIGINT NOT NULL
    )",
    "CREATE INDEX results_age ON results (published)",
    "CREATE TABLE log (
        seq {serial},
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        at BIGINT NOT NULL,
        text TEXT NOT NULL
    )",
    "CREATE INDEX log_jobs ON log (job, seq)",
    "CREATE TABLE callbacks (
        seq {serial},
        id TEXT NOT NULL UNIQUE,
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        url TEXT NOT NULL,
        due BIGINT NOT NULL,
        attempts BIGINT NOT NULL DEFAULT 0,
        error TEXT
    )",
    "CREATE INDEX callbacks_due ON callbacks (due)",
    "CREATE TABLE workers (
        id TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        version TEXT NOT NULL,
        slots BIGINT NOT NULL,
        running BIGINT NOT NULL,
        draining BIGINT NOT NULL,
        started BIGINT NOT NULL,
        seen BIGINT NOT NULL
    )",
    "CREATE TABLE seen (
        source TEXT NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (source, name)
    )",
]];

/// Place that brings the schema up to date one at a time.
const MIGRATING: i64 = 1;

/// Brings the tables up to date.
///
/// # Errors
/// If the database refuses, or its schema is of a later version than this program knows.
pub fn migrate(transaction: &mut dyn Transaction) -> Result<(), Error> {
    transaction.exclusive(MIGRATING)?;
    transaction.execute("CREATE TABLE IF NOT EXISTS schema (version BIGINT NOT NULL)", &[])?;
    let rows = transaction.query("SELECT version FROM schema", &[])?;
    let version = rows.first().map_or(0, |row| row.int(0));
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > STEPS.len() {
        return Err(Error::Refused(format!(
            "its tables are of version {version}, and this program knows {} at most; use the \
             newer program",
            STEPS.len()
        )));
    }
    for step in STEPS.iter().skip(done).flat_map(|step| step.iter()) {
        transaction.execute(step, &[])?;
    }
    transaction.execute("DELETE FROM schema", &[])?;
    let version = STEPS.len() as i64;
    transaction.execute("INSERT INTO schema (version) VALUES ($1)", &[version.into()])?;
    Ok(())
}
