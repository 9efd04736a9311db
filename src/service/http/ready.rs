//! `GET /readyz`: whether requests can be taken, and what keeps them from it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rustix::fs::{Access, access, statvfs};
use serde_json::{Map, Value, json};

use super::{App, blocking};
use crate::service::publish::Destination;

/// Least free space, in bytes, with which anything is taken in.
const LEAST_SPACE: u64 = 16 << 20;

/// 200 if all is well, 503 if not; both say how each part is. Anybody may ask, so no names of
/// directories or databases are in it.
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let ending = app.ending.load(Ordering::SeqCst);
    let looked = blocking(move || look(&app)).await;
    let mut checks = looked.unwrap_or_else(|_| vec![("checks".to_owned(), Some("they failed"))]);
    checks.push(("process".to_owned(), ending.then_some("it is about to end")));
    let ready = checks.iter().all(|(_, wrong)| wrong.is_none());
    let checks: Map<_, _> =
        checks.into_iter().map(|(name, wrong)| (name, json!(wrong.unwrap_or("ok")))).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "checks": checks })))
}

/// What there is to look at, and what is wrong with it.
fn look(app: &App) -> Vec<(String, Option<&'static str>)> {
    let config = app.config.get();
    let queue = app.queue.ping().err().map(|_| "the database does not answer");
    let mut checks =
        vec![("queue".to_owned(), queue), ("state".to_owned(), directory(&config.server.state))];
    if app.workers.slots > 0 {
        checks.push(("scratch".to_owned(), directory(&config.workers.scratch)));
        for (name, destination) in &config.destinations {
            if let Destination::Directory(path) = destination {
                // One that is not there yet is made by the first result.
                let wrong = if path.exists() { directory(path) } else { None };
                checks.push((format!("destination {name}"), wrong));
            }
        }
    }
    checks
}

/// What is wrong with a directory that is written to.
fn directory(path: &Path) -> Option<&'static str> {
    if !path.is_dir() {
        return Some("the directory is not there");
    }
    if access(path, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Some("the directory cannot be written to");
    }
    match statvfs(path) {
        Ok(space) if space.f_bavail.saturating_mul(space.f_frsize) < LEAST_SPACE => {
            Some("the filesystem is full")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::directory;

    #[test]
    fn directories_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(directory(dir.path()), None);
        assert_eq!(directory(&dir.path().join("x")), Some("the directory is not there"));
    }
}
