//! `/ui/jobs/ID`: one conversion with its stages, log, report and files, and what can be done to it.

use std::io::Read as _;
use std::sync::Arc;

use axum::Form;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use minijinja::context;
use minijinja::value::Serde;
use serde::Deserialize;

use super::super::{App, Peer, Problem, api, blocking};
use super::{Shared, Visitor, is_genuine, view};
use crate::plan::Report;
use crate::service::config::Scope;
use crate::service::job::Job;
use crate::service::publish::Publisher;
use crate::service::queue::{self, Queue};
use crate::source::Store;

/// Largest report that is shown, in bytes.
const MAX_REPORT: u64 = 16 << 20;

/// A job that a visitor may see, and the visitor; or what to answer.
async fn find(
    app: &Arc<App>,
    headers: &HeaderMap,
    uri: &Uri,
    scope: Scope,
    id: String,
) -> Result<(Visitor, Job), Box<Response>> {
    let visitor = Visitor::of(app, headers, uri, scope)?;
    let (queue, tenant) = (app.queue.clone(), visitor.token.tenant.clone());
    let found = blocking(move || queue.job(&id, tenant.as_deref())).await;
    match found {
        Ok(Ok(Some(job))) => Ok((visitor, job)),
        Ok(Ok(None)) => Err(Box::new(visitor.problem(api::not_found()))),
        Ok(Err(error)) => Err(Box::new(visitor.problem(error.into()))),
        Err(problem) => Err(Box::new(visitor.problem(problem))),
    }
}

pub(super) async fn show(
    State(app): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let (visitor, job) = match find(&app, &headers, &uri, Scope::Read, id).await {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let (queue, id) = (app.queue.clone(), job.id.clone());
    match blocking(move || queue.log(&id, 0)).await {
        Ok(Ok(log)) => visitor.page("job", &job.request.image, view::job(&job, &log, view::now())),
        Ok(Err(error)) => visitor.problem(error.into()),
        Err(problem) => visitor.problem(problem),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: i64,
}

/// What the script listens to: the API's events, for a session.
pub(super) async fn events(
    State(app): Shared,
    Path(id): Path<String>,
    Query(After { after }): Query<After>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    match find(&app, &headers, &uri, Scope::Read, id).await {
        Ok((_, job)) => api::watch(app, job, api::resumed(&headers).unwrap_or(after)),
        Err(response) => *response,
    }
}

pub(super) async fn file(
    State(app): Shared,
    Extension(peer): Extension<Peer>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let (visitor, job) = match find(&app, &headers, &uri, Scope::Results, id).await {
        Ok(found) => found,
        Err(response) => return *response,
    };
    match api::send(&app, &visitor.name(), peer, &job, &name).await {
        Ok(response) => response,
        Err(problem) => visitor.problem(problem),
    }
}

/// The compatibility report that was made with the result.
pub(super) async fn report(
    State(app): Shared,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let (visitor, job) = match find(&app, &headers, &uri, Scope::Results, id).await {
        Ok(found) => found,
        Err(response) => return *response,
    };
    app.audit.note(&visitor.name(), Some(peer.0), "fetch", &format!("{} report", job.id), "shown");
    let read = {
        let job = job.clone();
        blocking(move || read_report(&app, &job)).await
    };
    match read {
        Ok(Ok(report)) => {
            let title = format!("Report on {}", job.request.image);
            let values = context! { id => job.id, report => Serde(report) };
            visitor.page("report", &title, values)
        }
        Ok(Err(problem)) | Err(problem) => visitor.problem(problem),
    }
}

fn read_report(app: &App, job: &Job) -> Result<Report, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "there is no report with this conversion");
    let outcome = job.result.as_ref().ok_or_else(missing)?;
    let file = outcome.files.iter().find(|file| file.kind == "report").ok_or_else(missing)?;
    let failed = |text: String| Problem::new(StatusCode::CONFLICT, text);
    let config = app.config.get();
    let store = Store::open(&app.store).map_err(|error| failed(error.to_string()))?;
    let publisher = Publisher {
        destinations: &config.destinations,
        registries: &config.registries,
        guard: &config.guard,
        store: &store,
    };
    let opened = publisher.open(outcome, file).map_err(|error| failed(error.to_string()))?;
    let mut text = Vec::new();
    let read = opened.bytes.take(MAX_REPORT).read_to_end(&mut text);
    read.map_err(|error| failed(format!("the report cannot be read: {error}")))?;
    serde_json::from_slice(&text)
        .map_err(|error| failed(format!("the report is of another version of dock2uni: {error}")))
}

#[derive(Deserialize)]
pub(super) struct Action {
    proof: String,
}

pub(super) async fn cancel(
    State(app): Shared,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(action): Form<Action>,
) -> Response {
    change(&app, peer, id, &headers, &action, "cancel", Queue::cancel).await
}

pub(super) async fn retry(
    State(app): Shared,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(action): Form<Action>,
) -> Response {
    change(&app, peer, id, &headers, &action, "retry", Queue::retry).await
}

type Act = fn(&Queue, &str, Option<&str>, &str) -> Result<Option<Job>, queue::Error>;

async fn change(
    app: &Arc<App>,
    peer: Peer,
    id: String,
    headers: &HeaderMap,
    action: &Action,
    what: &'static str,
    act: Act,
) -> Response {
    // Who has to sign in first goes on to the page, not to the action.
    let page = format!("/ui/jobs/{}", view::encode(&id)).parse().unwrap_or_default();
    let (visitor, job) = match find(app, headers, &page, Scope::Write, id).await {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let (who, peer) = (visitor.name(), Some(peer.0));
    if !is_genuine(app, headers, &visitor, &action.proof) {
        app.audit.note(&who, peer, what, &job.id, "forged");
        let text = "the form was not made for this session: go back, load the page and try again";
        return visitor.problem(Problem::new(StatusCode::FORBIDDEN, text));
    }
    let (queue, by, id, tenant) =
        (app.queue.clone(), who.clone(), job.id.clone(), visitor.token.tenant.clone());
    let changed = match blocking(move || act(&queue, &id, tenant.as_deref(), &by)).await {
        Ok(Ok(changed)) => changed,
        Ok(Err(error)) => return visitor.problem(error.into()),
        Err(problem) => return visitor.problem(problem),
    };
    let outcome = changed.map_or("not found", |job| job.state.name());
    app.audit.note(&who, peer, what, &job.id, outcome);
    app.workers.ring();
    // Loading the page again does nothing again.
    Redirect::to(&format!("/ui/jobs/{}", job.id)).into_response()
}
