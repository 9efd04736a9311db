//! `/ui/`: what waits, who works, and the latest conversions.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use minijinja::context;
use serde::Deserialize;

use super::super::blocking;
use super::view::{self, encode};
use super::{Shared, Visitor};
use crate::service::config::Scope;
use crate::service::job::State as JobState;
use crate::service::queue::Filter;
use crate::service::worker::SILENCE;

/// Conversions on a page.
const ROWS: i64 = 25;
/// Longest text that is looked for.
const MAX_TEXT: usize = 200;

/// What is looked for. Forms send empty fields, which look for nothing.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    state: String,
    #[serde(default)]
    tenant: String,
    #[serde(default)]
    image: String,
    before: Option<i64>,
}

impl Search {
    fn filter(&self, visitor: &Visitor) -> Filter {
        let given = |text: &str| {
            let text: String = text.trim().chars().take(MAX_TEXT).collect();
            Some(text).filter(|text| !text.is_empty())
        };
        Filter {
            tenant: visitor.tenant().map(str::to_owned).or_else(|| given(&self.tenant)),
            // What is no state is not looked for: the address was made by hand.
            state: JobState::of(&self.state),
            image: given(&self.image),
            before: self.before,
            // One more tells whether there is another page.
            limit: ROWS + 1,
        }
    }

    /// The address of the same search from another position.
    fn address(&self, before: Option<i64>) -> String {
        let fields = [("state", &self.state), ("tenant", &self.tenant), ("image", &self.image)];
        let mut address = "/ui/?".to_owned();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            address += &format!("{name}={}&", encode(value));
        }
        if let Some(before) = before {
            address += &format!("before={before}&");
        }
        address.pop();
        address
    }

    fn is_empty(&self) -> bool {
        self.state.is_empty() && self.tenant.is_empty() && self.image.is_empty()
    }
}

pub(super) async fn show(
    State(app): Shared,
    Query(search): Query<Search>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let visitor = match Visitor::of(&app, &headers, &uri, Scope::Read) {
        Ok(visitor) => visitor,
        Err(response) => return *response,
    };
    let filter = search.filter(&visitor);
    let looked = blocking(move || {
        let queue = &app.queue;
        let (counts, oldest) = (queue.counts()?, queue.oldest_wait()?);
        Ok::<_, crate::service::queue::Error>((
            (counts, oldest, queue.database()),
            queue.workers(SILENCE)?,
            queue.jobs(&filter)?,
        ))
    });
    let ((counts, oldest, database), workers, mut found) = match looked.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return visitor.problem(error.into()),
        Err(problem) => return visitor.problem(problem),
    };
    let more = found.len() as i64 > ROWS;
    found.truncate(ROWS as usize);
    let older = found.last().filter(|_| more).map(|(seq, _)| search.address(Some(*seq)));
    let now = view::now();
    let jobs: Vec<_> = found.iter().map(|(_, job)| view::row(job, now)).collect();
    let counts: Vec<_> = JobState::ALL
        .into_iter()
        .map(|state| {
            let count = counts.get(&state).copied().unwrap_or(0);
            context! { name => state.name(), count }
        })
        .collect();
    // A server without workers of its own is no worker.
    let workers = workers.iter().filter(|worker| worker.slots > 0);
    let workers: Vec<_> = workers.map(|worker| view::worker(worker, now)).collect();
    let newest = search.before.map(|_| search.address(None));
    let is_empty = search.is_empty();
    let values = context! {
        counts, oldest, database, workers, jobs, older, newest,
        search => context! { state => search.state, tenant => search.tenant, image => search.image,
            is_empty },
    };
    visitor.page("overview", "Conversions", values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_kept_from_page_to_page() {
        let search = Search { image: "a&b=\"é".into(), state: "done".into(), ..Search::default() };
        assert_eq!(search.address(Some(7)), "/ui/?state=done&image=a%26b%3D%22%C3%A9&before=7");
        assert_eq!(Search::default().address(None), "/ui/");
    }
}
