//! `/api/v1`: jobs, workers and results, for programs. Described by `openapi.json`.

use std::convert::Infallible;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{App, Peer, Problem, access, blocking};
use crate::service::callback;
use crate::service::config::file::{check_destinations, check_options};
use crate::service::config::{Config, DEFAULT_TENANT, Scope, Token};
use crate::service::job::{Job, Options, Request, State as JobState};
use crate::service::publish::Publisher;
use crate::service::queue::Filter;
use crate::service::trace::Context;
use crate::service::worker::SILENCE;
use crate::source::{Name, Store};

/// The description of the API (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");
/// Pause between two looks at a job that somebody watches.
const WATCH: Duration = Duration::from_millis(500);
/// Longest watch: whoever wants more asks again.
const MAX_WATCH: Duration = Duration::from_secs(3600);

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/openapi.json", get(openapi))
        .route("/api/v1/jobs", get(list).post(submit))
        .route("/api/v1/jobs/{id}", get(show))
        .route("/api/v1/jobs/{id}/events", get(events))
        .route("/api/v1/jobs/{id}/log", get(log))
        .route("/api/v1/jobs/{id}/cancel", post(cancel))
        .route("/api/v1/jobs/{id}/retry", post(retry))
        .route("/api/v1/jobs/{id}/files/{name}", get(file))
        .route("/api/v1/workers", get(workers))
        .route("/api/v1/queue", get(queue))
        .route("/api/v1/reload", post(reload))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// The trace that a request belongs to (W3C Trace Context), if it says so in good form.
pub(super) fn trace(headers: &HeaderMap) -> Option<String> {
    Context::of(headers).map(|context| context.header())
}

/// A job as others see it.
pub fn view(job: &Job) -> Value {
    let mut value = serde_json::to_value(job).unwrap_or_default();
    value["request"]["options"] = json!(job.request.options.masked());
    // It may hold a secret.
    if job.request.callback.is_some() {
        value["request"]["callback"] = json!(true);
    }
    value
}

pub(super) fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such job")
}

fn bad(text: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission {
    image: String,
    #[serde(default)]
    options: Options,
    destinations: Vec<String>,
    #[serde(default)]
    priority: i64,
    tenant: Option<String>,
    callback: Option<String>,
}

async fn submit(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Result<Json<Submission>, JsonRejection>,
) -> Result<Response, Problem> {
    let config = app.config.get();
    let token = access::check(&config, &headers, Scope::Write)?;
    let Json(body) = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let image = body.image.clone();
    let who = format!("api:{}", token.name);
    let request = match request(&config, token, body) {
        Ok(request) => request,
        Err(problem) => {
            app.audit.note(&who, Some(peer.0), "submit", &image, "refused");
            return Err(problem);
        }
    };
    let (queue, trace) = (app.queue.clone(), trace(&headers));
    let submitted =
        blocking(move || queue.submit(&[request], trace.as_deref())).await??.into_iter().next();
    let Some(submitted) = submitted else { return Err(not_found()) };
    let new = if submitted.new { "true" } else { "false" };
    app.metrics.submitted.with_label_values(&[who.as_str(), new]).inc();
    let what = format!("{} {image}", submitted.id);
    app.audit.note(&who, Some(peer.0), "submit", &what, "accepted");
    if submitted.new {
        app.workers.ring();
    }
    let status = if submitted.new { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/api/v1/jobs/{}", submitted.id);
    let body = json!({ "id": submitted.id, "new": submitted.new });
    Ok((status, [(header::LOCATION, location)], Json(body)).into_response())
}

/// What is asked for, if this token may ask for it.
fn request(config: &Config, token: &Token, body: Submission) -> Result<Request, Problem> {
    let name: Name = body.image.parse().map_err(|reason: &str| bad(format!("image: {reason}")))?;
    if !token.images.match_text(&format!("{}/{}", name.host, name.repository)) {
        let text = format!("the token may not ask for images of {}/{}", name.host, name.repository);
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    check_options(&body.options, config.trials.is_some())
        .map_err(|why| bad(format!("options: {why}")))?;
    check_destinations(&body.destinations, &config.destinations)
        .map_err(|why| bad(format!("destinations: {why}")))?;
    if let Some(url) = &body.callback {
        callback::check(url).map_err(bad)?;
    }
    let tenant = match (&token.tenant, body.tenant) {
        (Some(own), Some(wanted)) if *own != wanted => {
            let text = format!("the token is for the tenant {own} alone");
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        (Some(own), _) => own.clone(),
        (None, wanted) => wanted.unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
    };
    Ok(Request {
        image: name.to_string(),
        options: body.options,
        destinations: body.destinations,
        priority: body.priority.clamp(-100, 100),
        tenant,
        callback: body.callback,
        origin: format!("api:{}", token.name),
        rule: None,
    })
}

#[derive(Debug, Deserialize)]
struct Listing {
    state: Option<String>,
    tenant: Option<String>,
    image: Option<String>,
    before: Option<i64>,
    limit: Option<i64>,
}

async fn list(
    State(app): State<Arc<App>>,
    Query(listing): Query<Listing>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let config = app.config.get();
    let token = access::check(&config, &headers, Scope::Read)?;
    let state = match &listing.state {
        Some(name) => {
            Some(JobState::of(name).ok_or_else(|| bad(format!("there is no state `{name}`")))?)
        }
        None => None,
    };
    let tenant = token.tenant.clone().or(listing.tenant);
    let limit = listing.limit.unwrap_or(50);
    let (image, before) = (listing.image, listing.before);
    let filter = Filter { tenant, state, image, before, limit };
    let found = blocking(move || app.queue.jobs(&filter)).await??;
    let more = found.len() as i64 >= limit.max(1);
    let next = found.last().filter(|_| more).map(|(seq, _)| *seq);
    let jobs: Vec<_> = found.iter().map(|(_, job)| view(job)).collect();
    Ok(Json(json!({ "jobs": jobs, "next": next })))
}

async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let job = find(&app, &headers, Scope::Read, id).await?;
    Ok(Json(view(&job)))
}

/// A job that the token reaches.
async fn find(
    app: &Arc<App>,
    headers: &HeaderMap,
    scope: Scope,
    id: String,
) -> Result<Job, Problem> {
    let config = app.config.get();
    let tenant = access::check(&config, headers, scope)?.tenant.clone();
    let queue = app.queue.clone();
    blocking(move || queue.job(&id, tenant.as_deref())).await??.ok_or_else(not_found)
}

#[derive(Debug, Deserialize)]
struct After {
    #[serde(default)]
    after: i64,
}

async fn log(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(After { after }): Query<After>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let job = find(&app, &headers, Scope::Read, id).await?;
    let lines = blocking(move || app.queue.log(&job.id, after)).await??;
    let next = lines.last().map_or(after, |line| line.0);
    let lines: Vec<_> =
        lines.iter().map(|(_, at, text)| json!({ "at": at, "text": text })).collect();
    Ok(Json(json!({ "lines": lines, "next": next })))
}

/// Server-sent events (HTML standard): `job` whenever it has changed, `log` for each line, `end`.
async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = find(&app, &headers, Scope::Read, id).await?;
    Ok(watch(app, job, resumed(&headers).unwrap_or(0)))
}

/// The position that a client has seen the log up to, if it comes back.
pub(super) fn resumed(headers: &HeaderMap) -> Option<i64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

/// What happens to a job from now on, and the lines of its log after a position.
pub(super) fn watch(app: Arc<App>, job: Job, mut after: i64) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    tokio::spawn(async move {
        let until = std::time::Instant::now() + MAX_WATCH;
        let mut last = None;
        let mut silent = 0;
        while std::time::Instant::now() < until
            && !app.ending.load(std::sync::atomic::Ordering::SeqCst)
        {
            let (queue, id) = (app.queue.clone(), job.id.clone());
            let look =
                blocking(move || Ok::<_, Problem>((queue.job(&id, None)?, queue.log(&id, after)?)));
            let Ok(Ok((Some(job), lines))) = look.await else { break };
            let mut text = String::new();
            for (seq, at, line) in lines {
                after = seq;
                let data = json!({ "at": at, "text": line });
                text += &format!("id: {seq}\nevent: log\ndata: {data}\n\n");
            }
            if last != Some(job.updated) {
                last = Some(job.updated);
                text += &format!("event: job\ndata: {}\n\n", view(&job));
            }
            if job.state.is_final() {
                text += &format!("event: end\ndata: {}\n\n", json!(job.state));
                let _ = sender.send(text.into()).await;
                return;
            }
            silent += 1;
            if text.is_empty() && silent > 30 {
                // Keeps what is between us from closing the connection.
                text.push_str(": still here\n\n");
            }
            if !text.is_empty() {
                silent = 0;
                if sender.send(text.into()).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(WATCH).await;
        }
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(Chunks(receiver))).into_response()
}

/// A channel as a body.
struct Chunks<T>(mpsc::Receiver<T>);

impl<T: Into<Bytes>> futures_core::Stream for Chunks<T> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|item| item.map(|item| Ok(item.into())))
    }
}

async fn cancel(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    change(app, peer, id, headers, "cancel", |queue, id, tenant, by| queue.cancel(id, tenant, by))
        .await
}

async fn retry(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    change(app, peer, id, headers, "retry", |queue, id, tenant, by| queue.retry(id, tenant, by))
        .await
}

async fn change(
    app: Arc<App>,
    peer: Peer,
    id: String,
    headers: HeaderMap,
    action: &'static str,
    act: impl FnOnce(
        &crate::service::queue::Queue,
        &str,
        Option<&str>,
        &str,
    ) -> Result<Option<Job>, crate::service::queue::Error>
    + Send
    + 'static,
) -> Result<Json<Value>, Problem> {
    let config = app.config.get();
    let token = access::check(&config, &headers, Scope::Write)?;
    let (tenant, who) = (token.tenant.clone(), format!("api:{}", token.name));
    let (queue, by, wanted) = (app.queue.clone(), who.clone(), id.clone());
    let job = blocking(move || act(&queue, &wanted, tenant.as_deref(), &by)).await??;
    let outcome = job.as_ref().map_or("not found", |job| job.state.name());
    app.audit.note(&who, Some(peer.0), action, &id, outcome);
    app.workers.ring();
    job.map(|job| Json(view(&job))).ok_or_else(not_found)
}

async fn file(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = find(&app, &headers, Scope::Results, id).await?;
    send(&app, "api", peer, &job, &name).await
}

/// Sends a file of a result.
pub(super) async fn send(
    app: &Arc<App>,
    who: &str,
    peer: Peer,
    job: &Job,
    name: &str,
) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "there is no such file");
    let outcome = job.result.clone().ok_or_else(missing)?;
    let file = outcome.files.iter().find(|file| file.name == name).cloned().ok_or_else(missing)?;
    let config = app.config.get();
    app.audit.note(who, Some(peer.0), "fetch", &format!("{} {name}", job.id), "sent");
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    let (store, described) = (app.store.clone(), file.clone());
    // The file is opened and read on a thread of its own: some stores are spoken to by a runtime.
    let (opened, size) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let found = Store::open(&store).map_err(|error| error.to_string()).and_then(|store| {
            let publisher = Publisher {
                destinations: &config.destinations,
                registries: &config.registries,
                guard: &config.guard,
                store: &store,
            };
            publisher.open(&outcome, &described).map_err(|error| error.to_string())
        });
        let mut found = match found {
            Ok(found) => found,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        let _ = opened.send(Ok(found.size));
        let mut buffer = vec![0; 256 << 10];
        loop {
            match found.bytes.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    let bytes = Bytes::copy_from_slice(&buffer[..count]);
                    if sender.blocking_send(bytes).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // The length that was promised is not reached, so the client notices.
                    tracing::warn!(%error, "a result broke off");
                    return;
                }
            }
        }
    });
    let size = match size.await {
        Ok(Ok(size)) => size,
        Ok(Err(error)) => return Err(Problem::new(StatusCode::CONFLICT, error)),
        Err(_) => return Err(missing()),
    };
    // Names of files are ours: `disk.img`.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::ETAG, format!("\"{}\"", file.digest)),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", file.name)),
    ];
    Ok((headers, Body::from_stream(Chunks(receiver))).into_response())
}

async fn workers(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    access::check(&app.config.get(), &headers, Scope::Read)?;
    let workers = blocking(move || app.queue.workers(SILENCE)).await??;
    Ok(Json(json!({ "workers": workers })))
}

async fn queue(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    access::check(&app.config.get(), &headers, Scope::Read)?;
    let looked = blocking(move || {
        let (counts, oldest) = (app.queue.counts()?, app.queue.oldest_wait()?);
        Ok::<_, Problem>((counts, oldest, app.queue.database()))
    });
    let (counts, oldest, database) = looked.await??;
    let counts: std::collections::BTreeMap<_, _> =
        counts.iter().map(|(state, count)| (state.name(), count)).collect();
    Ok(Json(json!({ "jobs": counts, "oldest_seconds": oldest, "database": database })))
}

async fn reload(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let who = format!("api:{}", access::check(&app.config.get(), &headers, Scope::Admin)?.name);
    let reloading = app.clone();
    let done = blocking(move || (reloading.reload)()).await?;
    let outcome = if done.is_ok() { "done" } else { "refused" };
    app.audit.note(&who, Some(peer.0), "reload", "configuration", outcome);
    let later = done.map_err(bad)?;
    Ok(Json(json!({ "after_restart": later })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_no_other() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let described: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
        let source = include_str!("api.rs");
        let table = source.split("fn routes()").nth(1).unwrap().split("\n}").next().unwrap();
        let mut routes: Vec<String> = table
            .split(".route(\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect();
        routes.push("/hooks/{name}".to_owned());
        routes.sort();
        assert_eq!(described, routes);
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["responses"].is_object(), "{method} {path}");
                assert!(operation["operationId"].is_string(), "{method} {path}");
            }
        }
    }

    #[test]
    fn traces_are_taken_in_good_form_only() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            trace(&headers)
        };
        assert!(of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        assert!(of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0'").is_none());
        assert!(of("x").is_none());
    }
}
