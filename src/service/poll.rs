//! Registries without webhooks: looked at regularly. A tag that leads to another digest than the last
//! time is a push.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::config::{Config, Poll};
use super::pattern::Pattern;
use super::webhook::Push;
use super::worker::Shared;
use crate::source::{self, Digest, Store};

/// Looks until the process ends.
pub(super) fn keep_looking(shared: &Arc<Shared>) {
    let mut looked: HashMap<String, Instant> = HashMap::new();
    while !shared.is_draining() {
        let config = shared.config.get();
        for poll in &config.polls {
            if looked.get(&poll.name).is_some_and(|at| at.elapsed() < poll.every) {
                continue;
            }
            match look(shared, &config, poll) {
                Ok(0) => {}
                Ok(count) => tracing::info!(poll = %poll.name, count, "pushes were found"),
                Err(error) => {
                    tracing::warn!(poll = %poll.name, %error, "the registry can't be read")
                }
            }
            looked.insert(poll.name.clone(), Instant::now());
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn look(shared: &Shared, config: &Config, poll: &Poll) -> Result<usize, String> {
    let store = Store::open(&config.workers.store).map_err(|error| error.to_string())?;
    let mut options = config.registries.clone();
    options.reach = Some(Arc::new(config.guard.clone()));
    let origin = format!("poll:{}", poll.name);
    let mut found = 0;
    for repository in repositories(poll, &options, &store)? {
        let tags = source::tags(&poll.registry, &repository, &options, &store);
        for tag in tags.map_err(|error| error.to_string())? {
            if shared.is_draining() {
                return Ok(found);
            }
            // No rule, no request to the registry.
            let Ok(mut push) = Push::new(&poll.registry, &repository, Some(&tag), None) else {
                continue;
            };
            if config.requests(&poll.name, &origin, &push).is_empty() {
                continue;
            }
            let reference = push.reference();
            let Some(digest) = digest(&reference, &options, &store)? else { continue };
            push.digest = Some(digest);
            let requests = config.requests(&poll.name, &origin, &push);
            let queue = &shared.queue;
            let submitted =
                queue.submit_seen(&poll.name, &reference, &digest.to_string(), &requests);
            for job in submitted.map_err(|error| error.to_string())?.iter().filter(|job| job.new) {
                found += 1;
                shared.metrics.submitted.with_label_values(&[origin.as_str(), "true"]).inc();
                tracing::info!(job = %job.id, image = %push.reference(), "found");
                shared.ring();
            }
        }
    }
    Ok(found)
}

/// The repositories that are meant: names as they are, patterns by the registry's catalogue.
fn repositories(
    poll: &Poll,
    options: &source::Options,
    store: &Store,
) -> Result<Vec<String>, String> {
    let is_pattern = |text: &String| text.contains(['*', '?']);
    let mut names: Vec<String> =
        poll.repositories.iter().filter(|text| !is_pattern(text)).cloned().collect();
    if poll.repositories.iter().any(is_pattern) {
        let all = source::repositories(&poll.registry, options, store);
        let all = all.map_err(|error| error.to_string())?;
        for text in poll.repositories.iter().filter(|text| is_pattern(text)) {
            let pattern = match text.parse::<Pattern>() {
                Ok(pattern) => pattern,
                Err(never) => match never {},
            };
            names.extend(all.iter().filter(|name| pattern.matches(name)).cloned());
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn digest(
    reference: &str,
    options: &source::Options,
    store: &Store,
) -> Result<Option<Digest>, String> {
    let name = reference.parse().map_err(|reason: &str| reason.to_owned())?;
    source::digest_of(&name, options, store).map_err(|error| error.to_string())
}
