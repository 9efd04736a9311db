//! Rows to jobs.

use super::Error;
use super::sql::Row;
use crate::service::job::{Job, State};
use crate::service::trace::Context;

/// The columns of a job, in the order of [`job`].
pub(super) const COLUMNS: &str = "id, state, request, attempts, lost, worker, stage, progress_done, \
    progress_total, result, error, cancelling, created, started, finished, updated, trace";

/// A job out of a row that has [`COLUMNS`] from `at` on.
pub(super) fn job(row: &Row, at: usize) -> Result<Job, Error> {
    let id = row.text(at);
    let bad = |what: &str| Error::Row(format!("{what} of job {id}"));
    let state = State::of(&row.text(at + 1)).ok_or_else(|| bad("state"))?;
    let request = serde_json::from_str(&row.text(at + 2)).map_err(|_| bad("request"))?;
    let result = row.maybe_text(at + 9).map(|text| serde_json::from_str(&text));
    let result = result.transpose().map_err(|_| bad("result"))?;
    let progress = row.maybe_int(at + 7).zip(row.maybe_int(at + 8));
    Ok(Job {
        state,
        request,
        attempts: row.int(at + 3),
        lost: row.int(at + 4),
        worker: row.maybe_text(at + 5),
        stage: row.maybe_text(at + 6),
        progress: progress.filter(|(_, total)| *total > 0),
        result,
        error: row.maybe_text(at + 10),
        cancelling: row.int(at + 11) != 0,
        trace: row
            .maybe_text(at + 16)
            .and_then(|text| Context::parse(&text))
            .map(|context| context.trace),
        created: row.int(at + 12),
        started: row.maybe_int(at + 13),
        finished: row.maybe_int(at + 14),
        updated: row.int(at + 15),
        id,
    })
}
