//! What must be done now and then: taking jobs back from lost workers, saying that this one is there,
//! callbacks, and throwing away what is old. Each has a thread of its own, so that a slow address or
//! store keeps nobody else waiting.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::{STAGING, Shared, is_abandoned};
use crate::service::callback;
use crate::service::config::Config;
use crate::service::publish::{Destination, Publisher};
use crate::service::queue::Worker;
use crate::source::Store;
use crate::source::clean;

/// How long a worker may be silent before it is forgotten.
pub const SILENCE: Duration = Duration::from_secs(300);
/// How old a directory in a staging area is before anybody asks whose it is.
const YOUNG: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PACE: Duration = Duration::from_secs(1);

/// Whether the workers of this process have ended.
fn is_over(shared: &Shared) -> bool {
    shared.is_draining() && shared.running() == 0
}

/// Tells callbacks until the workers of this process have ended.
pub(super) fn keep_telling(shared: &Shared) {
    while !is_over(shared) {
        callback::tell_all(shared, &shared.config.get());
        thread::sleep(PACE);
    }
}

/// Throws old things away until the workers of this process have ended.
pub(super) fn keep_tidy(shared: &Shared) {
    let mut tidied: Option<Instant> = None;
    while !is_over(shared) {
        if tidied.is_none_or(|tidied| tidied.elapsed() > Duration::from_secs(60)) {
            tidied = Some(Instant::now());
            let config = shared.config.get();
            sweep(shared, &config);
            retire(shared, &config);
        }
        thread::sleep(PACE);
    }
}

/// Keeps leases and workers in order until the workers of this process have ended.
pub(super) fn keep_house(shared: &Shared) {
    loop {
        let config = shared.config.get();
        if is_over(shared) {
            let _ = shared.queue.gone(&shared.name);
            return;
        }
        present(shared);
        match shared.queue.reap(config.queue.lost) {
            Ok(0) => {}
            Ok(count) => {
                shared.metrics.taken_back.inc_by(count as u64);
                tracing::warn!(count, "jobs were taken back from workers that are gone");
                shared.ring();
            }
            Err(error) => tracing::warn!(%error, "no looking for lost jobs"),
        }
        thread::sleep((config.queue.lease / 4).min(PACE));
    }
}

fn present(shared: &Shared) {
    let worker = Worker {
        id: shared.name.clone(),
        host: shared.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: shared.slots as i64,
        running: shared.running() as i64,
        draining: shared.is_draining(),
        ..Worker::default()
    };
    if let Err(error) = shared.queue.present(&worker) {
        tracing::warn!(%error, "the queue does not know of this worker");
    }
}

/// Removes what killed workers have left in staging areas.
fn sweep(shared: &Shared, config: &Config) {
    let directories = config.destinations.values().filter_map(|destination| match destination {
        Destination::Directory(path) => Some(path),
        _ => None,
    });
    for base in directories.chain([&config.workers.scratch]) {
        let Ok(entries) = fs::read_dir(base.join(STAGING)) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if age(&path).is_some_and(|age| age > YOUNG) && is_abandoned(&shared.queue, &path) {
                tracing::info!(path = %path.display(), "removes what a lost worker has left");
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(%error, path = %path.display(), "cannot be removed");
                }
            }
        }
    }
}

fn age(path: &Path) -> Option<Duration> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(modified).ok()
}

/// Throws away what is older than the configuration wants it.
fn retire(shared: &Shared, config: &Config) {
    let retention = &config.retention;
    let Ok(store) = Store::open(&config.workers.store) else { return };
    if let Some(age) = retention.results {
        let publisher = Publisher {
            destinations: &config.destinations,
            registries: &config.registries,
            guard: &config.guard,
            store: &store,
        };
        let old = shared.queue.old_results(age);
        let old = old.inspect_err(|error| tracing::warn!(%error, "old results stay"));
        for outcome in old.unwrap_or_default() {
            // Removed first: while its row is there nobody makes it anew, only to have it removed.
            let done = publisher.remove(&outcome).map_err(|error| error.to_string());
            let done = done.and_then(|()| {
                shared.queue.forget_result(&outcome.key).map_err(|error| error.to_string())
            });
            match done {
                Ok(()) => {
                    shared.metrics.retired.inc();
                    tracing::info!(key = %outcome.key, digest = %outcome.digest, "result retired");
                }
                Err(error) => tracing::warn!(%error, key = %outcome.key, "result not retired"),
            }
        }
    }
    if let Some(age) = retention.jobs
        && let Err(error) = shared.queue.forget_jobs(age)
    {
        tracing::warn!(%error, "old jobs stay");
    }
    if let Some(age) = retention.store {
        match clean::items(&store) {
            Ok(items) => {
                for item in items.iter().filter(|item| item.age > age) {
                    // In use or gone: the next time, then.
                    let _ = fs::remove_file(&item.path);
                }
            }
            Err(error) => tracing::warn!(%error, "the store is not looked through"),
        }
    }
}
